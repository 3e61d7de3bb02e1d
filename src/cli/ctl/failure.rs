//! The failure of a command.

/// Why a command has failed.
#[derive(Debug)]
pub struct Failure {
    /// What happened, and what to do.
    pub message: String,
    /// The mistakes of a configuration.
    pub findings: Vec<String>,
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
    pub fn new(message: impl Into<String>) -> Failure {
        Failure {
            message: message.into(),
            findings: Vec::new(),
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
