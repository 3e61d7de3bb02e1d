//! Why a relay has not done what was asked.

/// Why a relay has not done what was asked.
#[derive(Debug)]
pub struct Failure {
    /// What happened, and what to do.
    pub message: String,
    /// The mistakes of a configuration.
    pub findings: Vec<String>,
    /// There is no control socket at all.
    pub is_missing: bool,
    /// Nobody listens there.
    pub is_gone: bool,
    /// The connection broke: another attempt may succeed.
    pub is_broken: bool,
    /// It is a mistake in the arguments.
    pub is_usage: bool,
    /// The relay is stopping.
    pub is_stopping: bool,
}

impl Failure {
    /// With this message.
    pub fn new(message: impl Into<String>) -> Failure {
        Failure {
            message: message.into(),
            findings: Vec::new(),
            is_missing: false,
            is_gone: false,
            is_broken: false,
            is_usage: false,
            is_stopping: false,
        }
    }

    /// A mistake in the arguments.
    pub fn usage(message: impl Into<String>) -> Failure {
        Failure { is_usage: true, ..Failure::new(message) }
    }
}
