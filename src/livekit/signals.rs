//! Which signal does what: SIGTERM, SIGINT and SIGQUIT stop the sidecar, and SIGHUP reads its configuration again. SIGUSR1 and
//! SIGUSR2 are ignored with a line in the log, because their default would end the process.
//!
//! They are blocked before the first thread is created, so that every thread inherits the mask, and are read from a descriptor
//! (signalfd(2)) by a thread of their own.

use std::io;
use std::thread;

use nix::sys::signal::{SigSet, Signal as Number};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use tokio::sync::mpsc;
use tracing::{info, warn};

/// The signals that stop the sidecar.
const STOP: [Number; 3] = [Number::SIGTERM, Number::SIGINT, Number::SIGQUIT];

/// Those that are ignored.
const IGNORED: [Number; 2] = [Number::SIGUSR1, Number::SIGUSR2];

/// The signals that the sidecar handles, from the beginning of its start.
pub struct BlockedSignals(SignalFd);

/// Signals as they arrive.
pub struct Signals(mpsc::Receiver<Signal>);

/// The most signals that wait. One more says nothing new.
const WAITING: usize = 4;

/// What a signal asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// To stop; the name of the signal.
    Stop(&'static str),
    /// To read the configuration again.
    Reload,
}

impl BlockedSignals {
    /// Blocks the signals that the sidecar handles. To be called before any thread is created.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn new() -> io::Result<BlockedSignals> {
        let mut set = SigSet::empty();
        STOP.iter().chain(&IGNORED).for_each(|signal| set.add(*signal));
        set.add(Number::SIGHUP);
        set.thread_block()?;
        Ok(BlockedSignals(SignalFd::with_flags(&set, SfdFlags::SFD_CLOEXEC)?))
    }

    /// Reads them from now on. A second one to stop ends the process at once.
    ///
    /// # Errors
    /// There cannot be another thread.
    pub fn watch(self) -> io::Result<Signals> {
        let (sender, receiver) = mpsc::channel(WAITING);
        thread::Builder::new().name("signals".into()).spawn(move || read(&self.0, &sender))?;
        Ok(Signals(receiver))
    }
}

impl Signals {
    /// Waits for the next signal that asks for something.
    pub async fn next(&mut self) -> Signal {
        match self.0.recv().await {
            Some(signal) => signal,
            // The thread cannot fail; if it does, the sidecar works on without signals.
            None => std::future::pending().await,
        }
    }
}

fn read(descriptor: &SignalFd, sender: &mpsc::Sender<Signal>) {
    let mut is_stopping = false;
    loop {
        let number = match descriptor.read_signal() {
            Ok(Some(found)) => found.ssi_signo,
            Ok(None) | Err(nix::Error::EINTR) => continue,
            Err(_) => return,
        };
        match meaning(number) {
            Some(Signal::Stop(name)) if is_stopping => {
                warn!("{name}: stopping at once");
                std::process::exit(1);
            }
            Some(signal) => {
                is_stopping |= matches!(signal, Signal::Stop(_));
                let _ = sender.try_send(signal);
            }
            None => info!("signal {number}: ignored; SIGHUP reads the configuration again, SIGTERM stops"),
        }
    }
}

fn meaning(number: u32) -> Option<Signal> {
    match i32::try_from(number).ok().and_then(|number| Number::try_from(number).ok()) {
        Some(stop) if STOP.contains(&stop) => Some(Signal::Stop(stop.as_str())),
        Some(Number::SIGHUP) => Some(Signal::Reload),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_signals_stop_and_one_reloads() {
        assert_eq!([1, 2, 3, 15].map(|number| meaning(number).is_some()), [true; 4]);
        assert_eq!(meaning(1), Some(Signal::Reload));
        assert_eq!([10, 12, 64].map(meaning), [None; 3]);
    }
}
