//! What a reload of the configuration came to: what has changed key by key, or why nothing has.

use std::fmt;

use crate::config::{Change, Finding, Reload};

/// A reload that was carried out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReloadReport {
    /// Each setting that has another value than the relay runs with, and when the new one holds.
    pub changed: Vec<Change>,
    /// What is unusual about the new configuration, but runs.
    pub warnings: Vec<Finding>,
    /// Why some certificates cannot be used, so that earlier ones serve.
    pub certificates: Vec<String>,
}

impl ReloadReport {
    /// How many settings have changed, and which need a restart.
    pub fn summary(&self) -> String {
        let restart = self.changed.iter().filter(|change| change.holds == Reload::Restart);
        let restart: Vec<_> = restart.map(|change| change.key).collect();
        summary(self.changed.len() - restart.len(), &restart)
    }
}

/// The same of a number of settings that hold now or soon, and the keys of those that need a restart.
pub fn summary(changed: usize, restart: &[&str]) -> String {
    let settings = match changed {
        0 => "no setting has".to_owned(),
        1 => "1 setting has".to_owned(),
        n => format!("{n} settings have"),
    };
    let waiting = match restart {
        [] => String::new(),
        [key] => format!("; 1 more needs a restart: {key}"),
        keys => format!("; {} more need a restart: {}", keys.len(), keys.join(", ")),
    };
    format!("{settings} changed{waiting}")
}

/// Why nothing has changed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReloadError {
    /// What happened.
    pub what: String,
    /// Each mistake in the configuration, with its file, line and key.
    pub findings: Vec<Finding>,
}

impl ReloadError {
    /// A reason that is no mistake in the configuration.
    pub fn new(what: impl Into<String>) -> ReloadError {
        ReloadError { what: what.into(), findings: Vec::new() }
    }
}

impl fmt::Display for ReloadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)
    }
}
