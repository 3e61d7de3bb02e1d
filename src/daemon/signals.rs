//! SIGTERM and SIGINT ask for a graceful stop; a second one means now.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};

/// The signals that stop a relay.
pub struct Signals {
    term: Signal,
    interrupt: Signal,
}

impl Signals {
    /// From now on these signals no longer kill. To be called on a tokio runtime.
    pub fn new() -> io::Result<Signals> {
        Ok(Signals { term: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    /// The name of the next one.
    pub async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.term.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}
