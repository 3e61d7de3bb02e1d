//! What a reload of the configuration came to: what has changed key by key, or why nothing has.

use std::fmt;

use crate::config::{Change, Finding};

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
