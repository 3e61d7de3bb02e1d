//! The tokens of the admin API: who may use it over TCP, and for what. Only digests of the tokens are kept.

use std::fmt;

use sha2::{Digest, Sha256};

use super::report::ERRORS_MAX;
use super::secrets::{WrongLine, lines};

/// The fewest characters of a token: it alone is the proof of who calls.
const MIN: usize = 32;

/// The most.
const MAX: usize = 512;

/// The most tokens: each is compared with each that is presented.
const TOKENS_MAX: usize = 1000;

/// Tokens with the same name: the one in use, and the one that replaces it.
const PER_NAME: usize = 2;

const GOOD: &str = "`openssl rand -hex 32` generates a good one";

/// What a token allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// To look.
    Read,
    /// To look and to change.
    Admin,
}

/// Who may use the API over TCP.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Tokens(Vec<Token>);

/// A token without its text.
#[derive(Clone, PartialEq, Eq)]
pub struct Token {
    /// Whom the audit log names.
    pub name: String,
    /// What it allows.
    pub scope: Scope,
    digest: [u8; 32],
}

impl Tokens {
    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Something that differs if the tokens do.
    pub(super) fn fingerprint(&self) -> Vec<u8> {
        let of = |token: &Token| {
            let scope = u8::from(token.scope == Scope::Admin);
            [token.name.as_bytes(), &[0, scope], &token.digest].concat()
        };
        self.0.iter().flat_map(of).collect()
    }

    /// The token that was presented. Takes the same time for each that is not one of these: what is compared are digests, to
    /// the last byte of the last of them.
    pub fn find(&self, presented: &[u8]) -> Option<&Token> {
        let digest: [u8; 32] = Sha256::digest(presented).into();
        let mut found = None;
        for token in &self.0 {
            let differs = token.digest.iter().zip(&digest).fold(0, |differs, (a, b)| differs | (a ^ b));
            if std::hint::black_box(differs) == 0 {
                found = Some(token);
            }
        }
        found
    }

    /// The tokens of a file, and the lines that are wrong. Sentences never quote a line.
    pub fn in_file(bytes: &[u8]) -> (Tokens, Vec<WrongLine>) {
        let (mut tokens, mut wrong) = (Tokens::default(), Vec::new());
        let lines = match lines(bytes) {
            Ok(lines) => lines,
            Err(error) => return (tokens, vec![error]),
        };
        if lines.is_empty() {
            let what = "the file has no token".to_owned();
            let fix = format!("write a line like NAME:admin:TOKEN; {GOOD}");
            return (tokens, vec![WrongLine { line: None, what, fix }]);
        }
        for (n, line) in lines {
            if let Err((what, fix)) = token(line.trim_matches([' ', '\t'])).and_then(|new| tokens.add(new))
                && wrong.len() < ERRORS_MAX
            {
                wrong.push(WrongLine { line: Some(n), what: what.into(), fix });
            }
        }
        (tokens, wrong)
    }

    fn add(&mut self, new: Token) -> Result<(), (&'static str, String)> {
        let same: Vec<&Token> = self.0.iter().filter(|token| token.name == new.name).collect();
        if same.len() >= PER_NAME {
            let fix = "remove the oldest of them, or use another name".to_owned();
            return Err(("there are already two tokens with this name", fix));
        }
        if same.iter().any(|token| token.scope != new.scope) {
            return Err((
                "a token with the same name has another scope",
                "use another name, or the same scope".into(),
            ));
        }
        if self.0.iter().any(|token| token.digest == new.digest) {
            return Err(("the token is listed twice", "remove one of the lines".into()));
        }
        if self.0.len() >= TOKENS_MAX {
            return Err(("there are too many tokens", format!("keep at most {TOKENS_MAX}")));
        }
        self.0.push(new);
        Ok(())
    }
}

/// Reads a line, `name:scope:token`.
fn token(line: &str) -> Result<Token, (&'static str, String)> {
    let form = "write NAME:SCOPE:TOKEN, like prometheus:read: and the token, without blanks and quotes";
    let mut parts = line.splitn(3, ':');
    let (Some(name), Some(scope), Some(text)) = (parts.next(), parts.next(), parts.next()) else {
        return Err(("is not a token with its name and scope", form.into()));
    };
    let is_name = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    if name.is_empty() || name.len() > 64 || !name.chars().all(is_name) {
        let fix = "use 1 to 64 letters, digits, dots, hyphens and underscores".to_owned();
        return Err(("not a valid name for a token", fix));
    }
    let scope = match scope {
        "read" => Scope::Read,
        "admin" => Scope::Admin,
        _ => return Err(("not a valid scope", "write read or admin".into())),
    };
    // RFC 6750 section 2.1
    let is_token = |c: char| c.is_ascii_alphanumeric() || "-._~+/=".contains(c);
    if !text.chars().all(is_token) {
        let fix = format!("use letters, digits and -._~+/= only; {GOOD}");
        return Err(("a token contains a character that HTTP does not transport", fix));
    }
    if text.len() < MIN {
        return Err((
            "a token is so short that it can be guessed",
            format!("use at least {MIN} characters; {GOOD}"),
        ));
    }
    if text.len() > MAX {
        return Err(("a token is too long", format!("use at most {MAX} characters")));
    }
    Ok(Token { name: name.into(), scope, digest: Sha256::digest(text).into() })
}

impl fmt::Debug for Tokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.0.iter().map(|token| &token.name)).finish()
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Token({}, {:?}, ***)", self.name, self.scope)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: &str = "0123456789abcdef0123456789abcdef";
    const TWO: &str = "fedcba9876543210fedcba9876543210";
    const THREE: &str = "00000000000000001111111111111111";

    fn read(text: &str) -> (Tokens, Vec<String>) {
        let (tokens, wrong) = Tokens::in_file(text.as_bytes());
        let place = |wrong: &WrongLine| format!("{:?} {}; {}", wrong.line, wrong.what, wrong.fix);
        (tokens, wrong.iter().map(place).collect())
    }

    /// Two tokens of one name are valid at a time, so that one can replace the other.
    #[test]
    fn a_token_has_a_name_and_a_scope() {
        let text = format!("# tokens\r\nops:admin:{ONE}\r\n\r\nops:admin:{TWO}\r\nwatch:read:{THREE}\r\n");
        let (tokens, wrong) = read(&text);
        assert!(wrong.is_empty(), "{wrong:?}");
        let found = |text: &str| tokens.find(text.as_bytes()).map(|token| (token.name.as_str(), token.scope));
        assert_eq!(found(ONE), Some(("ops", Scope::Admin)));
        assert_eq!(found(TWO), Some(("ops", Scope::Admin)));
        assert_eq!(found(THREE), Some(("watch", Scope::Read)));
        assert_eq!([found(""), found(&ONE[1..]), found("ops")], [None; 3]);
        assert_eq!(format!("{tokens:?}"), r#"["ops", "ops", "watch"]"#);
    }

    #[test]
    fn wrong_lines_are_named_and_not_quoted() {
        let third = format!("ops:admin:{ONE}\nops:admin:{TWO}\nops:admin:{THREE}");
        let other = format!("ops:admin:{ONE}\nops:read:{TWO}");
        let twice = format!("ops:admin:{ONE}\nme:read:{ONE}");
        for (text, line, said) in [
            (ONE, "Some(1)", "is not a token with its name and scope"),
            (&format!("ops:write:{ONE}"), "Some(1)", "write read or admin"),
            (&format!("o ps:read:{ONE}"), "Some(1)", "not a valid name for a token"),
            (&format!(":read:{ONE}"), "Some(1)", "not a valid name for a token"),
            ("ops:read:0123456789abcdef", "Some(1)", "use at least 32 characters"),
            (&format!("ops:read:\"{ONE}\""), "Some(1)", "a character that HTTP does not transport"),
            (&format!("ops:read:{}", "x".repeat(513)), "Some(1)", "at most 512"),
            (&third, "Some(3)", "already two tokens with this name"),
            (&other, "Some(2)", "has another scope"),
            (&twice, "Some(2)", "the token is listed twice"),
            ("# nothing\n", "None", "the file has no token"),
        ] {
            let (_, wrong) = read(text);
            assert_eq!(wrong.len(), 1, "{text}: {wrong:?}");
            assert!(wrong[0].starts_with(line) && wrong[0].contains(said), "{text}: {wrong:?}");
            assert!(!wrong[0].contains("0123456789"), "{wrong:?}");
        }
    }
}
