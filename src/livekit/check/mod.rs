//! Proves the whole path from clients over the relays to LiveKit, and says what is wrong, each in one sentence with the fix.
//!
//! - [`run`](run()): looks at everything, in order
//! - [`livekit`](mod@livekit): whether LiveKit answers, and takes the API key
//! - [`dns`], [`clock`], [`credentials`], [`sfu`], [`ports`]: what to make of it, as pure functions

pub mod clock;
pub mod credentials;
pub mod dns;
pub mod livekit;
pub mod ports;
pub mod run;
pub mod sfu;

use std::fmt;

use serde_json::{Value, json};

pub use run::run;

/// What was found about one thing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// What was checked: `relay`, `probe`, `dns` and so on.
    pub check: &'static str,
    /// Which of them: a relay, a listener, a name.
    pub subject: String,
    /// What came out.
    pub verdict: Verdict,
}

/// What a check has shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is as it should be.
    Good(String),
    /// It cannot be told from here, or need not be wrong: what to look at.
    Hint(String),
    /// What is wrong, and the fix.
    Wrong(String),
}

impl Finding {
    /// A finding.
    pub fn new(check: &'static str, subject: impl Into<String>, verdict: Verdict) -> Finding {
        Finding { check, subject: subject.into(), verdict }
    }

    /// Whether something is wrong.
    pub fn is_wrong(&self) -> bool {
        matches!(self.verdict, Verdict::Wrong(_))
    }

    fn json(&self) -> Value {
        let (result, said) = match &self.verdict {
            Verdict::Good(said) => ("ok", said),
            Verdict::Hint(said) => ("hint", said),
            Verdict::Wrong(said) => ("failed", said),
        };
        json!({ "check": self.check, "subject": self.subject, "result": result, "message": said })
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (word, said) = match &self.verdict {
            Verdict::Good(said) => ("ok", said),
            Verdict::Hint(said) => ("hint", said),
            Verdict::Wrong(said) => ("FAILED", said),
        };
        let subject = if self.subject.is_empty() { String::new() } else { format!(" {}", self.subject) };
        // A message of somebody else's may have several lines.
        let said = said.split_whitespace().collect::<Vec<_>>().join(" ");
        write!(f, "{word:<6} {}{subject}: {said}", self.check)
    }
}

/// All findings for programs.
pub fn json(findings: &[Finding]) -> Value {
    let checks: Vec<Value> = findings.iter().map(Finding::json).collect();
    json!({ "ok": !findings.iter().any(Finding::is_wrong), "checks": checks })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_finding_is_one_line() {
        let wrong = Finding::new("dns", "turn.example.org", Verdict::Wrong("no record;\n  add one".into()));
        assert_eq!(wrong.to_string(), "FAILED dns turn.example.org: no record; add one");
        let good = Finding::new("livekit", "", Verdict::Good("it answers".into()));
        assert_eq!(good.to_string(), "ok     livekit: it answers");
        let all = json(&[good, wrong]);
        assert_eq!((&all["ok"], &all["checks"][1]["result"]), (&false.into(), &"failed".into()));
    }
}
