//! SIGTERM and SIGINT ask for a graceful stop; a second one means now. SIGHUP asks to read credentials again.

use std::io;

use tokio::signal::unix::{self, SignalKind, signal};

/// The signals that a relay listens to.
pub struct Signals {
    term: unix::Signal,
    interrupt: unix::Signal,
    hangup: unix::Signal,
}

/// What a signal asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// To stop, by the signal of this name.
    Stop(&'static str),
    /// To read credentials again.
    Reload,
}

impl Signals {
    /// From now on these signals no longer kill. To be called on a tokio runtime.
    pub fn new() -> io::Result<Signals> {
        Ok(Signals {
            term: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    /// What the next one asks for.
    pub async fn next(&mut self) -> Signal {
        tokio::select! {
            _ = self.hangup.recv() => Signal::Reload,
            _ = self.term.recv() => Signal::Stop("SIGTERM"),
            _ = self.interrupt.recv() => Signal::Stop("SIGINT"),
        }
    }

    /// Waits for one that stops.
    pub async fn stop(&mut self) {
        while self.next().await == Signal::Reload {}
    }
}
