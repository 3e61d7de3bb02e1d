//! SIGTERM and SIGINT stop the relay gracefully; a second one stops it immediately. SIGHUP reloads credentials.

use std::io;

use tokio::signal::unix::{self, SignalKind, signal};

/// The signals that a relay handles.
pub struct Signals {
    term: unix::Signal,
    interrupt: unix::Signal,
    hangup: unix::Signal,
}

/// What a signal asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// To stop; the name of the signal.
    Stop(&'static str),
    /// To reload credentials.
    Reload,
}

impl Signals {
    /// Handles these signals from now on. Must be called on a tokio runtime.
    pub fn new() -> io::Result<Signals> {
        Ok(Signals {
            term: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    /// Waits for the next signal.
    pub async fn next(&mut self) -> Signal {
        tokio::select! {
            _ = self.hangup.recv() => Signal::Reload,
            _ = self.term.recv() => Signal::Stop("SIGTERM"),
            _ = self.interrupt.recv() => Signal::Stop("SIGINT"),
        }
    }

    /// Waits for a signal to stop.
    pub async fn stop(&mut self) {
        while self.next().await == Signal::Reload {}
    }
}
