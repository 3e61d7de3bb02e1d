//! Which signal does what: SIGTERM, SIGINT and SIGQUIT stop the relay gracefully, and a second one stops it immediately;
//! SIGHUP reloads the configuration, and SIGUSR1 drains the relay, as it does coturn. Every other signal is ignored with a line in
//! the log, because the default of most is to end the process, and with it every call. SIGABRT keeps its default.
//!
//! The signals of faults are ignored if they are sent by kill(2). A fault itself ends the process nevertheless: if its signal is
//! blocked, the kernel restores the default action (`force_sig_info_to_task` in kernel/signal.c).
//!
//! All of them are blocked before the first thread is created, so that every thread inherits the mask, and are read from a
//! descriptor (signalfd(2)), which also reports the real-time signals. A thread of its own does that, so that a relay can be
//! stopped whatever the daemon is doing.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use nix::sys::signal::{SigSet, Signal as Number};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use tokio::sync::{Notify, watch};
use tokio::time::Instant;
use tracing::{debug, info, warn};

use super::stop::{StopGuard, cut_short};

/// The signals that stop the relay.
const STOP: [Number; 3] = [Number::SIGTERM, Number::SIGINT, Number::SIGQUIT];

/// Signals that are left alone: SIGABRT for systemd's watchdog, and SIGPIPE, which Rust ignores.
const DEFAULT: [Number; 2] = [Number::SIGABRT, Number::SIGPIPE];

/// How often an ignored signal is logged.
const LINE_INTERVAL: Duration = Duration::from_secs(1);

/// The first real-time signal that programs can use.
const SIGRTMIN: u32 = 34;

/// The signals that a relay handles, from the beginning of its start.
pub struct BlockedSignals(SignalFd);

/// What signals ask for.
pub struct Signals {
    /// The first signal to stop.
    stop: watch::Receiver<Option<&'static str>>,
    pending: Arc<Pending>,
}

/// What is to be done, each at most once: many signals of one kind take the place of no other.
#[derive(Default)]
pub struct Pending {
    reload: Notify,
    drain: Notify,
}

/// The thread that reads signals.
struct SignalReader {
    descriptor: SignalFd,
    stop: watch::Sender<Option<&'static str>>,
    pending: Arc<Pending>,
    guard: Arc<StopGuard>,
    /// When each ignored signal was last logged.
    logged: HashMap<u32, Instant>,
}

/// What a signal asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Signal {
    /// To stop; the name of the signal.
    Stop(&'static str),
    /// To reload the configuration.
    Reload,
    /// To drain.
    Drain,
    /// Nothing; the number of the signal.
    Ignored(u32),
}

/// Blocks what does not stop the relay, while it reads its configuration. To be called before any thread is created.
pub fn block_others() -> io::Result<()> {
    let mut set = handled();
    STOP.iter().for_each(|signal| set.remove(*signal));
    Ok(set.thread_block()?)
}

impl BlockedSignals {
    /// Blocks the signals that a relay handles. To be called before any thread is created.
    pub fn new() -> io::Result<BlockedSignals> {
        let set = handled();
        set.thread_block()?;
        Ok(BlockedSignals(SignalFd::with_flags(&set, SfdFlags::SFD_CLOEXEC)?))
    }
}

impl Signals {
    /// Reads signals from now on. The first one to stop arms `guard`, and the second one ends the process.
    pub fn new(blocked: BlockedSignals, guard: Arc<StopGuard>) -> io::Result<Signals> {
        let (stop, stopped) = watch::channel(None);
        let pending = Arc::<Pending>::default();
        let logged = HashMap::new();
        let reader = SignalReader { descriptor: blocked.0, stop, pending: pending.clone(), guard, logged };
        thread::Builder::new().name("signals".into()).spawn(move || reader.run())?;
        Ok(Signals { stop: stopped, pending })
    }

    /// Signals that a test gives.
    #[cfg(test)]
    pub fn given() -> (watch::Sender<Option<&'static str>>, Arc<Pending>, Signals) {
        let (stop, stopped) = watch::channel(None);
        let pending = Arc::<Pending>::default();
        (stop, pending.clone(), Signals { stop: stopped, pending })
    }

    /// Waits for a signal to stop, and returns its name. It is returned again and again.
    pub async fn stopped(&self) -> &'static str {
        let mut stop = self.stop.clone();
        match stop.wait_for(Option::is_some).await {
            Ok(name) => name.unwrap_or_default(),
            // The thread cannot fail; if it does, the relay serves on without signals.
            Err(_) => std::future::pending().await,
        }
    }

    /// Waits for a signal to reload the configuration.
    pub async fn reload(&self) {
        self.pending.reload.notified().await;
    }

    /// Waits for a signal to drain.
    pub async fn drain(&self) {
        self.pending.drain.notified().await;
    }
}

impl Pending {
    /// A signal has arrived.
    pub fn reload(&self) {
        self.reload.notify_one();
    }

    /// A signal has arrived.
    pub fn drain(&self) {
        self.drain.notify_one();
    }
}

impl SignalReader {
    fn run(mut self) {
        loop {
            match self.descriptor.read_signal() {
                Ok(Some(info)) => self.take(meaning(info.ssi_signo)),
                Ok(None) | Err(nix::Error::EINTR) => {}
                Err(_) => return,
            }
        }
    }

    fn take(&mut self, signal: Signal) {
        match signal {
            Signal::Stop(name) if self.stop.borrow().is_some() => {
                warn!("{name}: stopping at once");
                cut_short();
            }
            Signal::Stop(name) => {
                self.guard.arm();
                self.stop.send_replace(Some(name));
            }
            Signal::Ignored(number) => self.log(number),
            Signal::Reload => self.pending.reload(),
            Signal::Drain => self.pending.drain(),
        }
    }

    fn log(&mut self, number: u32) {
        let now = Instant::now();
        if self.logged.get(&number).is_some_and(|last| now - *last < LINE_INTERVAL) {
            return;
        }
        self.logged.insert(number, now);
        let name = name(number);
        match standard(number) {
            Some(Number::SIGUSR2) => warn!(
                "{name}: ignored, nothing was reloaded; SIGHUP reloads the configuration and the certificate, and a \
                 renewed certificate needs no signal"
            ),
            Some(Number::SIGTSTP | Number::SIGTTIN | Number::SIGTTOU) => {
                info!("{name}: ignored, because a stopped relay holds up every call; SIGTERM ends it");
            }
            // Sent by terminals and the kernel in the course of things.
            Some(Number::SIGWINCH | Number::SIGCHLD | Number::SIGURG) => {
                debug!("{name}: ignored");
            }
            // systemd sends it after SIGTERM.
            Some(Number::SIGCONT) if self.stop.borrow().is_some() => debug!("{name}: ignored"),
            _ => info!(
                "{name}: ignored; SIGHUP reloads the configuration, SIGUSR1 drains the relay, SIGTERM ends it"
            ),
        }
    }
}

/// Every signal but those of [`DEFAULT`].
fn handled() -> SigSet {
    let mut set = SigSet::all();
    DEFAULT.iter().for_each(|signal| set.remove(*signal));
    set
}

fn meaning(number: u32) -> Signal {
    match standard(number) {
        Some(stop) if STOP.contains(&stop) => Signal::Stop(stop.as_str()),
        Some(Number::SIGHUP) => Signal::Reload,
        Some(Number::SIGUSR1) => Signal::Drain,
        _ => Signal::Ignored(number),
    }
}

/// The signal, unless it is a real-time one.
fn standard(number: u32) -> Option<Number> {
    i32::try_from(number).ok().and_then(|number| Number::try_from(number).ok())
}

fn name(number: u32) -> String {
    match standard(number) {
        Some(signal) => signal.as_str().to_owned(),
        None => format!("SIGRTMIN+{}", number.saturating_sub(SIGRTMIN)),
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::timeout;

    use super::*;

    #[test]
    fn only_three_signals_stop_the_relay() {
        let stopping: Vec<u32> =
            (1..=64).filter(|number| matches!(meaning(*number), Signal::Stop(_))).collect();
        assert_eq!(stopping, [2, 3, 15]);
        assert_eq!([1, 10, 12].map(meaning), [Signal::Reload, Signal::Drain, Signal::Ignored(12)]);
    }

    /// Each kind of signal waits for its own turn, once, however many of another kind there are.
    #[tokio::test(start_paused = true)]
    async fn a_storm_of_reloads_loses_no_drain() {
        let (_stop, pending, signals) = Signals::given();
        for _ in 0..100 {
            pending.reload();
        }
        pending.drain();
        for expected in [true, false] {
            assert_eq!(timeout(LINE_INTERVAL, signals.drain()).await.is_ok(), expected);
            assert_eq!(timeout(LINE_INTERVAL, signals.reload()).await.is_ok(), expected);
        }
    }

    #[test]
    fn aborts_keep_their_default() {
        let set = handled();
        assert!(DEFAULT.iter().all(|signal| !set.contains(*signal)));
        assert!(Number::iterator().filter(|signal| !DEFAULT.contains(signal)).all(|one| set.contains(one)));
    }

    #[test]
    fn real_time_signals_have_names() {
        assert_eq!([name(12), name(34), name(64)], ["SIGUSR2", "SIGRTMIN+0", "SIGRTMIN+30"]);
    }
}
