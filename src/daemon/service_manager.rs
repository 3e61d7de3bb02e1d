//! What systemd, or another service manager, is told about this process (sd_notify(3)): that it is ready, what it does, that it
//! reloads or stops, and that it is alive.
//!
//! A thread of its own sends, so that no notification holds up the relay, and so that a daemon that is stuck neither goes on
//! saying that it is alive nor keeps the service manager from knowing what it waits for. It compares what is with what it has told;
//! a message that could not be sent is due again a moment later.

use std::env;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use sd_notify::NotifyState;
use tokio::time::Instant;
use tracing::warn;

/// The environment variable that names the socket. Children do not get it: what they say would be taken for what this process says.
pub const SOCKET_VARIABLE: &str = "NOTIFY_SOCKET";

/// How often the thread looks, if the watchdog does not ask for more.
const TICK: Duration = Duration::from_millis(500);

/// How long a caller waits at most until something is sent.
const PATIENCE: Duration = Duration::from_millis(100);

/// What is added to the time that a stop takes at most.
const MARGIN: Duration = Duration::from_secs(5);

/// For how long a drain asks at a time, and how often.
const DRAIN_EXTENSION: Duration = Duration::from_secs(30);
const DRAIN_INTERVAL: Duration = Duration::from_secs(5);

/// The longest STATUS in characters: it is one line of `systemctl status`.
const STATUS_MAX: usize = 400;

/// The service manager of this process, if there is one.
pub struct ServiceManager(Option<Arc<Shared>>);

/// How this process is.
pub struct Health {
    /// Whether everything is alive, otherwise why not. The watchdog only hears of what is.
    pub live: Result<(), String>,
    /// Whether it serves, otherwise what it waits for.
    pub ready: Result<(), String>,
    /// It lets what it serves come to an end, however long that takes.
    pub drains: bool,
    /// It stops, and takes that long at most.
    pub stop: Option<Duration>,
}

struct Shared {
    progress: Mutex<Progress>,
    /// Wakes the thread.
    wake: Condvar,
    /// Wakes who waits for the thread.
    done: Condvar,
}

/// What was done until now.
#[derive(Clone, Default)]
struct Progress {
    /// What is served.
    serves: String,
    /// How many reloads have begun and ended.
    begun: u64,
    ended: u64,
    /// When the last one began, on the kernel's monotonic clock.
    began_at: i128,
    /// Why the last one has changed nothing.
    failure: Option<String>,
    /// How often the thread was asked to look at once, and has.
    asked: u64,
    answered: u64,
}

/// What was told until now.
#[derive(Clone, Debug, Default, PartialEq)]
struct Told {
    ready: bool,
    begun: u64,
    ended: u64,
    stopping: bool,
    status: String,
    /// When a drain asked for more time.
    extended: Option<Instant>,
}

/// The thread that tells.
struct Teller<F> {
    shared: Arc<Shared>,
    health: F,
    socket: Sender,
    watchdog: bool,
    tick: Duration,
    told: Told,
    /// A failure was logged.
    failed: bool,
}

struct Sender {
    socket: UnixDatagram,
    to: SocketAddr,
}

impl ServiceManager {
    /// Tells the service manager that this process is ready, and from then on how it is. Without a service manager nothing
    /// happens. `health` is asked on a thread of its own.
    pub fn start(health: impl Fn() -> Health + Send + 'static) -> ServiceManager {
        let Some(name) = env::var_os(SOCKET_VARIABLE).filter(|name| !name.is_empty()) else {
            return ServiceManager(None);
        };
        let watchdog = sd_notify::watchdog_enabled();
        let started = Sender::new(name.as_bytes()).and_then(|socket| {
            let shared =
                Arc::new(Shared { progress: Mutex::default(), wake: Condvar::new(), done: Condvar::new() });
            let teller = Teller {
                shared: shared.clone(),
                health,
                socket,
                watchdog: watchdog.is_some(),
                tick: tick(watchdog),
                told: Told::default(),
                failed: false,
            };
            thread::Builder::new().name("service-manager".into()).spawn(move || teller.run())?;
            Ok(shared)
        });
        match started {
            Ok(shared) => ServiceManager(Some(shared)),
            Err(error) => {
                warn!("the service manager is told nothing: {SOCKET_VARIABLE} {}: {error}", name.display());
                ServiceManager(None)
            }
        }
    }

    /// Whether there is one.
    pub fn is_some(&self) -> bool {
        self.0.is_some()
    }

    /// What is served from now on; it is the STATUS while all is well.
    pub fn serves(&self, what: String) {
        let Some(shared) = &self.0 else { return };
        shared.progress().serves = what;
        shared.wake.notify_one();
    }

    /// A reload begins.
    pub fn reload_begins(&self) {
        let Some(shared) = &self.0 else { return };
        let mut progress = shared.progress();
        progress.begun += 1;
        progress.began_at = match NotifyState::monotonic_usec_now() {
            Ok(NotifyState::MonotonicUsec(now)) => now,
            _ => 0,
        };
        shared.settle(progress);
    }

    /// It has ended; why it has changed nothing, if so.
    pub fn reload_ended(&self, failure: Option<String>) {
        let Some(shared) = &self.0 else { return };
        let mut progress = shared.progress();
        progress.ended = progress.begun;
        progress.failure = failure;
        shared.settle(progress);
    }

    /// Lets the service manager know what has changed, such as a stop that begins.
    pub fn tell(&self) {
        let Some(shared) = &self.0 else { return };
        shared.settle(shared.progress());
    }
}

impl Shared {
    fn progress(&self) -> MutexGuard<'_, Progress> {
        // Texts and numbers: whatever was written is a value.
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until the thread has told what there is to tell, but not for a service manager that does not read.
    fn settle(&self, mut progress: MutexGuard<'_, Progress>) {
        progress.asked += 1;
        let asked = progress.asked;
        self.wake.notify_one();
        let waits = |progress: &mut Progress| progress.answered < asked;
        drop(self.done.wait_timeout_while(progress, PATIENCE, waits));
    }
}

impl<F: Fn() -> Health> Teller<F> {
    fn run(mut self) {
        loop {
            let progress = self.shared.progress().clone();
            let health = (self.health)();
            let (mut messages, told) = due(&self.told, &progress, &health, Instant::now());
            if self.watchdog && health.live.is_ok() {
                messages.push(text(&[NotifyState::Watchdog]));
            }
            match messages.iter().try_for_each(|message| self.socket.send(message)) {
                Ok(()) => self.told = told,
                Err(error) if !self.failed => {
                    self.failed = true;
                    warn!(
                        "the service manager cannot be told anything: {error}; it is tried again and again"
                    );
                }
                Err(_) => {}
            }
            let mut now = self.shared.progress();
            now.answered = progress.asked;
            self.shared.done.notify_all();
            if now.asked == progress.asked {
                drop(self.shared.wake.wait_timeout(now, self.tick));
            }
        }
    }
}

impl Sender {
    /// A name that begins with `@` is one of the abstract namespace.
    fn new(name: &[u8]) -> io::Result<Sender> {
        let to = match name.split_first() {
            Some((b'@', name)) => SocketAddr::from_abstract_name(name)?,
            Some((b'/', _)) => SocketAddr::from_pathname(std::ffi::OsStr::from_bytes(name))?,
            _ => {
                return Err(io::Error::new(
                    io::ErrorKind::InvalidInput,
                    "neither a path nor an abstract name",
                ));
            }
        };
        let socket = UnixDatagram::unbound()?;
        // A full queue must not hold up what is due next.
        socket.set_nonblocking(true)?;
        Ok(Sender { socket, to })
    }

    fn send(&self, message: &str) -> io::Result<()> {
        self.socket.send_to_addr(message.as_bytes(), &self.to).map(drop)
    }
}

/// How often the thread looks: at least twice in the time after which the watchdog bites.
fn tick(watchdog: Option<Duration>) -> Duration {
    watchdog.map_or(TICK, |limit| (limit / 2).clamp(Duration::from_millis(1), TICK))
}

/// The messages that are due, and what is told once they are sent.
fn due(told: &Told, progress: &Progress, health: &Health, now: Instant) -> (Vec<String>, Told) {
    use NotifyState::{ExtendTimeoutUsec, MonotonicUsec, Ready, Reloading, Status, Stopping};
    let mut messages = Vec::new();
    let mut new = told.clone();
    new.status = status(progress, health);
    let status = Status(&new.status);
    if !new.ready {
        new.ready = true;
        messages.push(text(&[Ready, status.clone()]));
    }
    // A reload that is over already is told as a whole: the service manager waits for its end.
    if new.begun < progress.begun {
        new.begun = progress.begun;
        messages.push(text(&[Reloading, MonotonicUsec(progress.began_at), status.clone()]));
    }
    if new.ended < progress.ended {
        new.ended = progress.ended;
        messages.push(text(&[Ready, status.clone()]));
    }
    if let Some(limit) = health.stop
        && !new.stopping
    {
        new.stopping = true;
        messages.push(text(&[Stopping, ExtendTimeoutUsec(micros(limit + MARGIN)), status.clone()]));
    }
    if messages.is_empty() && told.status != new.status {
        messages.push(text(&[status]));
    }
    // It extends the watchdog's time, too (systemd's service_extend_timeout), so a stuck thread must not ask for it.
    if health.drains && health.live.is_ok() && health.stop.is_none() {
        if new.extended.is_none_or(|last| now.saturating_duration_since(last) >= DRAIN_INTERVAL) {
            new.extended = Some(now);
            messages.push(text(&[ExtendTimeoutUsec(micros(DRAIN_EXTENSION))]));
        }
    } else {
        new.extended = None;
    }
    (messages, new)
}

/// What this process does, in one line.
fn status(progress: &Progress, health: &Health) -> String {
    let all = if health.stop.is_some() {
        "stopping".to_owned()
    } else if progress.begun > progress.ended {
        "reading the configuration again".to_owned()
    } else {
        let now = match (&health.live, &health.ready) {
            (Err(why), _) => format!("not alive: {why}"),
            (_, Err(why)) if health.drains => format!("draining: {why}"),
            (_, Err(why)) => format!("waiting: {why}"),
            (Ok(()), Ok(())) => progress.serves.clone(),
        };
        match &progress.failure {
            Some(failure) => format!("the last reload has changed nothing: {failure}; {now}"),
            None => now,
        }
    };
    // A line break would begin another assignment.
    all.chars().map(|c| if c.is_control() { ' ' } else { c }).take(STATUS_MAX).collect()
}

/// One datagram of assignments.
fn text(states: &[NotifyState<'_>]) -> String {
    states.iter().map(|state| format!("{state}\n")).collect()
}

fn micros(time: Duration) -> u32 {
    u32::try_from(time.as_micros()).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn well() -> Health {
        Health { live: Ok(()), ready: Ok(()), drains: false, stop: None }
    }

    /// Sends everything that is due until nothing is.
    fn told(told: &mut Told, progress: &Progress, health: &Health, now: Instant) -> String {
        let (messages, new) = due(told, progress, health, now);
        *told = new;
        messages.concat()
    }

    #[test]
    fn readiness_and_status_are_told_once() {
        let (mut before, now) = (Told::default(), Instant::now());
        let progress = Progress { serves: "serving".into(), ..Progress::default() };
        let waits = Health { ready: Err("there is no address".into()), ..well() };
        // READY comes although it waits: nothing that is started after the relay waits for an address.
        assert_eq!(
            told(&mut before, &progress, &waits, now),
            "READY=1\nSTATUS=waiting: there is no address\n"
        );
        assert_eq!(told(&mut before, &progress, &waits, now), "");
        assert_eq!(told(&mut before, &progress, &well(), now), "STATUS=serving\n");
        let stuck = Health { live: Err("worker 1 is silent".into()), ..well() };
        assert_eq!(told(&mut before, &progress, &stuck, now), "STATUS=not alive: worker 1 is silent\n");
    }

    #[test]
    fn a_reload_is_told_as_a_whole_and_its_failure_stays() {
        let (mut before, now) = (Told::default(), Instant::now());
        let mut progress = Progress { serves: "serving".into(), ..Progress::default() };
        told(&mut before, &progress, &well(), now);
        (progress.begun, progress.began_at) = (1, 77);
        let begins = "RELOADING=1\nMONOTONIC_USEC=77\nSTATUS=reading the configuration again\n";
        assert_eq!(told(&mut before, &progress, &well(), now), begins);
        (progress.ended, progress.failure) = (1, Some("1 mistake\nREADY=0".into()));
        let ended = "READY=1\nSTATUS=the last reload has changed nothing: 1 mistake READY=0; serving\n";
        assert_eq!(told(&mut before, &progress, &well(), now), ended);
        // One that is over before the thread looks is told, too, and in this order.
        (progress.begun, progress.ended, progress.failure) = (2, 2, None);
        let both = "RELOADING=1\nMONOTONIC_USEC=77\nSTATUS=serving\nREADY=1\nSTATUS=serving\n";
        assert_eq!(told(&mut before, &progress, &well(), now), both);
    }

    #[test]
    fn a_stop_gets_the_time_that_it_may_take() {
        let mut before = Told { ready: true, ..Told::default() };
        let stops = Health { stop: Some(Duration::from_secs(20)), drains: true, ..well() };
        let expected = "STOPPING=1\nEXTEND_TIMEOUT_USEC=25000000\nSTATUS=stopping\n";
        assert_eq!(told(&mut before, &Progress::default(), &stops, Instant::now()), expected);
        assert_eq!(told(&mut before, &Progress::default(), &stops, Instant::now()), "");
        let longest = Health { stop: Some(Duration::from_secs(1 << 32)), ..well() };
        let all = told(&mut Told::default(), &Progress::default(), &longest, Instant::now());
        assert!(all.contains("EXTEND_TIMEOUT_USEC=4294967295\n"), "{all}");
    }

    /// Each extension ends long before the next one; a stuck thread gets none, because that would extend the watchdog, too.
    #[test]
    fn a_drain_asks_for_time_again_and_again_while_it_is_alive() {
        let (mut before, progress) = (Told::default(), Progress::default());
        let began = Instant::now();
        let drains = |left: u64| Health { ready: Err(format!("{left} left")), drains: true, ..well() };
        let all = told(&mut before, &progress, &drains(2), began);
        assert_eq!(all, "READY=1\nSTATUS=draining: 2 left\nEXTEND_TIMEOUT_USEC=30000000\n");
        assert_eq!(told(&mut before, &progress, &drains(1), began), "STATUS=draining: 1 left\n");
        let mut extensions = 0;
        for second in 1..=60 {
            let all = told(&mut before, &progress, &drains(1), began + Duration::from_secs(second));
            extensions += all.matches("EXTEND_TIMEOUT_USEC").count();
        }
        assert_eq!(extensions, 12);
        let stuck = Health { live: Err("silent".into()), ..drains(1) };
        let all = told(&mut before, &progress, &stuck, began + Duration::from_secs(100));
        assert!(!all.contains("EXTEND"), "{all}");
    }

    /// sd_watchdog_enabled(3): at least twice within the time.
    #[test]
    fn the_watchdog_hears_often_enough() {
        assert_eq!(tick(None), TICK);
        assert_eq!(tick(Some(Duration::from_secs(30))), TICK);
        assert_eq!(tick(Some(Duration::from_millis(600))), Duration::from_millis(300));
        assert_eq!(tick(Some(Duration::ZERO)), Duration::from_millis(1));
    }

    #[test]
    fn sockets_have_paths_or_abstract_names() {
        let name = format!("hairpin-test-{}", std::process::id());
        let receiver = UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
        let sender = Sender::new(format!("@{name}").as_bytes()).unwrap();
        sender.send("READY=1\n").unwrap();
        let mut buffer = [0; 100];
        let length = receiver.recv(&mut buffer).unwrap();
        assert_eq!(&buffer[..length], b"READY=1\n");
        assert!(Sender::new(b"vsock:2:9999").is_err() && Sender::new(b"").is_err());
        // A queue that nobody reads fills, and holds up nobody.
        assert!((0..100_000).any(|_| sender.send("STATUS=full\n").is_err()));
    }
}
