//! What differs between two configurations.

use super::kind::Reload;

/// A setting that has another value than before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// Its key, such as `limits.channels`.
    pub key: String,
    /// The old and the new value, `old -> new`; only that it has changed if the value is secret.
    pub what: String,
    /// When the new value holds.
    pub holds: Reload,
}
