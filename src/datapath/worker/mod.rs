//! The workers' threads: started together, restarted one by one after a panic, stopped together.
//!
//! A worker that panics drops everything it has: its epoll set, its relay sockets, and with them ports and quota. It
//! restarts, empty, on the same listener sockets; the clients of other workers notice nothing.
//!
//! - `state`, `listener`: a worker and what it owns
//! - `event_loop`: its passes; `budget`: the time that a pass may spend
//! - `datagrams`, `streams`, `outputs`: packets in, packets out, and what the core asks for
//! - `commands`, `operator_request`: what other threads want of a worker; [`operator`](AllocationQuery): what operators ask of all
//! - `log`, `losses`: what is logged, and what the kernel's queues dropped

mod budget;
mod commands;
mod datagrams;
mod event_loop;
mod listener;
mod log;
mod loopback;
mod losses;
mod operator;
mod operator_request;
mod outputs;
mod state;
mod streams;

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::panic::{self, AssertUnwindSafe};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, mpsc as sync};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use rand::Rng as _;
use rand::SeedableRng;
use rand::rngs::StdRng;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tracing::{error, info, warn};

use self::commands::{COMMANDS, Standing, WorkerCommand, WorkerSender};
use self::losses::LossMonitor;
pub use self::operator::{AllocationPage, AllocationQuery, EndedAllocations, RatedAllocation};
use self::state::{Parts, Worker};
use super::cpu_clock::CpuClock;
use super::descriptors::Descriptors;
use super::listen::group::{self, ListenerGroup, OpenError};
use super::listen::stages::{StageCommand, StageConfig, Stages};
use super::listen::steering::QueueKind;
use super::relay::ports::{PortUsage, Ports, TooManyAddresses};
use super::relay::quota::QuotaLedger;
use super::relay::reservations::Reservations;
use super::relay::table::{Relays, Resources};
use super::snapshot::DatapathSnapshot;
use super::splice::splicer::Splicer;
use super::splice::stats::SpliceStats;
use super::stats::{Published, WorkerStats};
use super::stream::admission::Admission;
use super::stream::table::Streams;
use super::sys::option;
use super::wake::Waker;
use super::{DatapathConfig, clock};
use crate::keyed::KeyedState;
use crate::turn::bucket::RateLimiter;
use crate::turn::{self, AllocationNames, PerFamily, Server, Transport};

/// How long a worker that could not restart waits before it tries again.
const RETRY: Duration = Duration::from_secs(1);

/// All workers of a process.
pub struct Workers {
    workers: usize,
    handles: Vec<WorkerHandle>,
    stop: Arc<AtomicBool>,
    /// Empty once they are stopped.
    threads: Mutex<Vec<JoinHandle<()>>>,
    resources: Arc<Resources>,
    descriptors: Arc<Descriptors>,
    admission: Arc<Admission>,
    splicer: Arc<Splicer>,
    /// What the stages of connections serve by.
    stages: Mutex<Arc<StageConfig>>,
    /// What they serve by.
    serving: Mutex<Arc<turn::Snapshot>>,
}

/// Why workers cannot serve.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A group has sockets for another number of workers.
    #[error("{0} {1}: the listener was opened for {2} workers, but {3} are running")]
    OtherWorkers(&'static str, SocketAddr, usize, usize),
    /// There is a TLS listener, but no identity, and no backend that connections are passed on to.
    #[error("tls {0}: TLS clients need a certificate and its key, or routes to backends")]
    NoIdentity(SocketAddr),
    /// Another process has taken the address of a group since.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// There are too many relay addresses.
    #[error(transparent)]
    Addresses(#[from] TooManyAddresses),
    /// No thread or no epoll set could be created.
    #[error("a worker could not be started: {0}")]
    System(#[from] io::Error),
}

/// A thread: a worker, or the one beside it that runs the stages of its connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WorkerThread {
    /// The worker's index.
    pub worker: usize,
    /// It is the thread beside the worker.
    pub stages: bool,
}

impl fmt::Display for WorkerThread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let worker = self.worker;
        match self.stages {
            false => write!(f, "worker {worker}"),
            true => write!(f, "the thread that accepts the connections of worker {worker}"),
        }
    }
}

struct WorkerHandle {
    commands: WorkerSender,
    stages: mpsc::Sender<StageCommand>,
    stage_counters: Arc<Mutex<super::stream::stats::StreamCounters>>,
    published: Arc<Published>,
    cpu: Arc<CpuClock>,
}

/// What a worker's thread starts with, again after each panic.
struct WorkerSeed {
    index: usize,
    resources: Arc<Resources>,
    shared: Arc<turn::Shared>,
    gso: bool,
    published: Arc<Published>,
    cpu: Arc<CpuClock>,
    waker: Waker,
    stop: Arc<AtomicBool>,
    /// Its thread ends with the worker's.
    _stages: Stages,
}

impl Workers {
    /// Starts `config.workers` threads on the sockets of `groups`. `rates` limits what clients cause; `rng` is seeded from
    /// the operating system.
    ///
    /// # Errors
    /// See [`StartError`].
    pub fn start(
        config: &DatapathConfig,
        groups: Vec<Arc<ListenerGroup>>,
        snapshot: DatapathSnapshot,
        rates: RateLimiter,
        mut rng: StdRng,
    ) -> Result<Workers, StartError> {
        let stage_config = Arc::new(stage_config(&snapshot));
        groups.iter().try_for_each(|group| check(config.workers, group, &stage_config))?;
        group::warn_of_small_buffers(&groups);
        let descriptors = Descriptors::new(snapshot.descriptors);
        let ports = Ports::new(snapshot.ports.clone(), descriptors.clone());
        ports.set_addresses(&snapshot.relay)?;
        let ledger = QuotaLedger::new(snapshot.user_allocations, snapshot.allocations);
        let resources = Arc::new(Resources {
            ports: ports.clone(),
            ledger,
            reservations: Reservations::default(),
            reservation_lifetime: nanoseconds(snapshot.reservation_lifetime).into(),
            gro: config.gro,
        });
        let shared = Arc::new(turn::Shared {
            rates,
            live: Box::new(ports),
            names: AllocationNames::new(rng.next_u64()),
        });
        let gso = config.gso && can_gso(&groups);
        let admission = Admission::new(snapshot.connections, snapshot.exempt.clone(), descriptors.clone());
        let splicer = Splicer::new(snapshot.splices, snapshot.exempt.clone());
        splicer.apply(snapshot.splices, snapshot.exempt.clone(), snapshot.backends());
        let snapshot = Arc::new(snapshot);
        let workers = config.workers;
        let mut this = Workers {
            workers,
            handles: Vec::new(),
            stop: Arc::default(),
            threads: Mutex::default(),
            resources: resources.clone(),
            descriptors,
            admission,
            splicer,
            stages: Mutex::new(stage_config.clone()),
            serving: Mutex::new(snapshot.turn.clone()),
        };
        let (ready, readiness) = sync::channel();
        for index in 0..workers {
            let (published, waker) = (Arc::new(Published::default()), Waker::new()?);
            let cpu = Arc::new(CpuClock::default());
            let (sender, commands) = mpsc::channel(COMMANDS);
            let sender = WorkerSender { sender, waker: waker.clone() };
            let (admission, splicer) = (this.admission.clone(), this.splicer.clone());
            let config = stage_config.clone();
            let stages = Stages::start(index, groups.clone(), (admission, splicer), config, sender.clone())?;
            let handle = WorkerHandle {
                commands: sender,
                stages: stages.commands(),
                stage_counters: stages.counters(),
                published: published.clone(),
                cpu: cpu.clone(),
            };
            let seed = WorkerSeed {
                index,
                resources: resources.clone(),
                shared: shared.clone(),
                gso,
                published,
                cpu,
                waker,
                stop: this.stop.clone(),
                _stages: stages,
            };
            let standing = Standing { worker: index, snapshot: snapshot.clone(), groups: groups.clone() };
            let (rng, ready) = (StdRng::from_rng(&mut rng), ready.clone());
            let thread = thread::Builder::new()
                .name(format!("worker-{index}"))
                .spawn(move || seed.live(commands, standing, rng, &ready))?;
            this.handles.push(handle);
            this.threads.get_mut().unwrap_or_else(PoisonError::into_inner).push(thread);
        }
        for result in readiness.iter().take(workers) {
            result?;
        }
        info!(workers, gro = config.gro, gso, "workers run");
        Ok(this)
    }

    /// Serves by a snapshot from now on, on every thread when this returns. Allocations keep the key that made them, so no
    /// call ends because of its credentials; permissions and channels that the new rules refuse end. A new relay address is
    /// used after every thread has the snapshot, a removed one is not used from the beginning. Ports of a former range and
    /// connections beyond a lower limit stay until they end.
    ///
    /// # Errors
    /// There are too many relay addresses; some are left out.
    pub async fn apply(&self, snapshot: DatapathSnapshot) -> Result<(), StartError> {
        let Resources { ports, ledger, reservation_lifetime, .. } = &*self.resources;
        ports.remove_except(&snapshot.relay);
        ports.set_range(&snapshot.ports);
        ledger.set_limits(snapshot.user_allocations, snapshot.allocations);
        reservation_lifetime.store(nanoseconds(snapshot.reservation_lifetime), Ordering::Relaxed);
        self.descriptors.set_room(snapshot.descriptors);
        self.admission.set_limits(snapshot.connections, snapshot.exempt.clone());
        self.splicer.apply(snapshot.splices, snapshot.exempt.clone(), snapshot.backends());
        let (stages, snapshot) = (Arc::new(stage_config(&snapshot)), Arc::new(snapshot));
        *self.stages.lock().unwrap_or_else(PoisonError::into_inner) = stages.clone();
        let mut replies = Vec::new();
        for handle in &self.handles {
            let (reply, replied) = oneshot::channel();
            handle.commands.send(WorkerCommand::Apply(snapshot.clone(), reply)).await;
            replies.push(replied);
            let (reply, replied) = oneshot::channel();
            let _ = handle.stages.send(StageCommand::Apply(stages.clone(), reply)).await;
            replies.push(replied);
        }
        carried_out(replies).await;
        self.serve(snapshot.turn.clone());
        Ok(ports.set_addresses(&snapshot.relay)?)
    }

    /// Serves another listener, on every thread when this returns.
    ///
    /// # Errors
    /// It was opened for another number of workers, it is for TLS and there is no identity, or a thread cannot wait for its
    /// sockets; no thread serves it.
    pub async fn listen(&self, group: Arc<ListenerGroup>) -> Result<(), StartError> {
        let stages = self.stages.lock().unwrap_or_else(PoisonError::into_inner).clone();
        check(self.workers, &group, &stages)?;
        group.accept()?;
        let mut replies = Vec::new();
        for handle in &self.handles {
            if group.transport().is_stream() {
                let (reply, replied) = oneshot::channel();
                let _ = handle.stages.send(StageCommand::Listen(group.clone(), reply)).await;
                replies.push(replied);
            }
            let (reply, replied) = oneshot::channel();
            handle.commands.send(WorkerCommand::Listen(group.clone(), reply)).await;
            replies.push(replied);
        }
        let listening: io::Result<Vec<()>> = carried_out(replies).await.into_iter().collect();
        if let Err(error) = listening {
            self.unlisten(group.transport(), group.local_addr()).await;
            return Err(error.into());
        }
        Ok(())
    }

    /// Stops serving a listener: when this returns, no thread has a socket of it. Connections that were accepted there stay;
    /// the address is free once the group's last owner has dropped it.
    pub async fn unlisten(&self, transport: Transport, addr: SocketAddr) {
        let mut replies = Vec::new();
        for handle in &self.handles {
            if transport.is_stream() {
                let (reply, replied) = oneshot::channel();
                let _ = handle.stages.send(StageCommand::Unlisten(transport, addr, reply)).await;
                replies.push(replied);
            }
            let (reply, replied) = oneshot::channel();
            handle.commands.send(WorkerCommand::Unlisten(transport, addr, reply)).await;
            replies.push(replied);
        }
        carried_out(replies).await;
    }

    /// Every thread.
    pub fn threads(&self) -> impl Iterator<Item = WorkerThread> {
        (0..self.workers).flat_map(|worker| [false, true].map(|stages| WorkerThread { worker, stages }))
    }

    /// Asks a thread for a sign of life. Returns how long it took to reply, by the clock of the thread, so that no delay of
    /// the caller counts; `None` if it has ended. Never ready if it is stuck.
    pub fn ping(&self, thread: WorkerThread) -> impl Future<Output = Option<Duration>> + Send + use<> {
        let handle = &self.handles[thread.worker];
        let (commands, stages) = (handle.commands.clone(), handle.stages.clone());
        async move {
            let (reply, replied) = oneshot::channel();
            let asked = clock::mono();
            match thread.stages {
                false => commands.send(WorkerCommand::Ping(reply)).await,
                // The reply fails if the thread has ended.
                true => drop(stages.send(StageCommand::Ping(reply)).await),
            }
            let replied = replied.await.ok()?;
            Some(Duration::from_nanos(replied.saturating_sub(asked)))
        }
    }

    /// Asks every thread for a sign of life and returns those that gave none within `limit`.
    pub async fn silent_threads(&self, limit: Duration) -> Vec<WorkerThread> {
        let mut pings = JoinSet::new();
        for thread in self.threads() {
            let ping = timeout(limit, self.ping(thread));
            pings.spawn(async move { ping.await.ok().flatten().is_none().then_some(thread) });
        }
        pings.join_all().await.into_iter().flatten().collect()
    }

    /// How many allocations and reserved ports there are, of all workers.
    pub fn allocations(&self) -> usize {
        self.resources.ledger.total()
    }

    /// The threads that have not ended. Those beside workers end after them.
    pub fn unfinished(&self) -> Vec<WorkerThread> {
        let unfinished = |(worker, handle): (usize, &WorkerHandle)| {
            let stages = handle.commands.sender.is_closed();
            (!stages || !handle.stages.is_closed()).then_some(WorkerThread { worker, stages })
        };
        self.handles.iter().enumerate().filter_map(unfinished).collect()
    }

    /// How many of the ports of relayed addresses are in use, by family.
    pub fn port_usage(&self) -> PerFamily<PortUsage> {
        self.resources.ports.usage()
    }

    /// What is counted of connections that go to backends.
    pub fn splices(&self) -> SpliceStats {
        self.splicer.stats()
    }

    /// What each worker has counted.
    pub fn stats(&self) -> Vec<WorkerStats> {
        self.handles.iter().map(WorkerHandle::stats).collect()
    }

    /// Ends every allocation and every connection to a backend, and waits for all threads. It blocks.
    pub fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
        self.handles.iter().for_each(|handle| handle.commands.waker.wake());
        let threads = std::mem::take(&mut *self.threads.lock().unwrap_or_else(PoisonError::into_inner));
        for thread in threads {
            if thread.join().is_err() {
                error!("a worker panicked while it stopped");
            }
        }
        self.splicer.stop();
    }

    /// Makes a worker panic, for tests of what happens then.
    #[doc(hidden)]
    pub fn panic(&self, worker: usize) {
        self.handles[worker].commands.blocking_send(WorkerCommand::Panic);
    }

    /// Makes a worker do nothing for some time, for tests of what notices that.
    #[doc(hidden)]
    pub async fn block(&self, worker: usize, time: Duration) {
        self.handles[worker].commands.send(WorkerCommand::Block(time)).await;
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        self.stop();
    }
}

impl WorkerHandle {
    fn stats(&self) -> WorkerStats {
        let mut stats = WorkerStats { cpu: self.cpu.read(), ..self.published.read() };
        // Integers alone: whatever was written is a value.
        stats.sockets.streams.add(&self.stage_counters.lock().unwrap_or_else(PoisonError::into_inner));
        stats
    }
}

impl WorkerSeed {
    /// Serves until it is told to stop, and restarts after each panic.
    fn live(
        self,
        mut commands: mpsc::Receiver<WorkerCommand>,
        mut standing: Standing,
        mut rng: StdRng,
        ready: &sync::Sender<io::Result<()>>,
    ) {
        let mut started = false;
        self.cpu.start();
        loop {
            let rng = StdRng::from_rng(&mut rng);
            let mut worker = None;
            let served = panic::catch_unwind(AssertUnwindSafe(|| {
                let worker = worker.insert(self.worker(&standing, rng)?);
                if !std::mem::replace(&mut started, true) {
                    let _ = ready.send(Ok(()));
                }
                worker.run(&mut commands, &mut standing)
            }));
            let allocations = served.is_err().then(|| worker.as_mut().and_then(Worker::log_lost)).flatten();
            // What was in the middle of a change may panic again.
            let _ = panic::catch_unwind(AssertUnwindSafe(|| drop(worker)));
            match served {
                Ok(Ok(())) => return,
                Ok(Err(error)) if !started => {
                    let _ = ready.send(Err(error));
                    return;
                }
                Ok(Err(error)) => {
                    error!(worker = self.index, %error, "a worker failed; it restarts");
                    thread::sleep(RETRY);
                    standing.keep_current(&mut commands);
                }
                Err(_) => error!(
                    worker = self.index,
                    allocations, "a worker panicked; its clients lost their allocations; it restarts"
                ),
            }
            self.published.restart();
            if self.stop.load(Ordering::Relaxed) {
                return;
            }
        }
    }

    /// A worker with the current listeners and snapshot.
    fn worker(&self, standing: &Standing, mut rng: StdRng) -> io::Result<Worker> {
        let relays = Relays::new(self.resources.clone(), StdRng::from_rng(&mut rng));
        let keyed = KeyedState::from_rng(&mut rng);
        let streams = Streams::new(standing.snapshot.connections, keyed, self.waker.clone());
        let core = Server::new(standing.snapshot.turn.clone(), self.shared.clone(), rng);
        let mut worker = Worker::new(Parts {
            core,
            relays,
            streams,
            losses: LossMonitor::new(self.index),
            resources: self.resources.clone(),
            published: self.published.clone(),
            waker: self.waker.clone(),
            stop: self.stop.clone(),
            gso: self.gso,
            gather: standing.snapshot.gather,
        })?;
        standing.groups.iter().try_for_each(|group| worker.listen(self.index, group))?;
        // Commands that waited while it restarted.
        self.waker.wake();
        Ok(worker)
    }
}

impl Worker {
    /// Names the allocations that end with this worker, which has panicked; returns how many there are.
    fn log_lost(&mut self) -> Option<usize> {
        let now = clock::mono();
        let Worker { core, log, .. } = self;
        let tell = || {
            let told = core.sessions().map(|(session, tuple, user)| log.lost(now, session, &tuple, user));
            told.count()
        };
        panic::catch_unwind(AssertUnwindSafe(tell)).ok()
    }
}

/// Waits until every thread has replied, or has ended.
async fn carried_out<T>(replies: Vec<oneshot::Receiver<T>>) -> Vec<T> {
    let mut results = Vec::new();
    for reply in replies {
        results.extend(reply.await.ok());
    }
    results
}

fn stage_config(snapshot: &DatapathSnapshot) -> StageConfig {
    StageConfig {
        identities: snapshot.identities.clone(),
        limits: snapshot.connections,
        services: snapshot.services.clone(),
        channels: snapshot.turn.config.channels,
    }
}

fn check(workers: usize, group: &ListenerGroup, stages: &StageConfig) -> Result<(), StartError> {
    let addr = group.local_addr();
    if group.workers() != workers {
        return Err(StartError::OtherWorkers(group.transport().as_str(), addr, group.workers(), workers));
    }
    match group.transport() {
        Transport::Tls if !stages.can_serve_tls(addr) => Err(StartError::NoIdentity(addr)),
        Transport::Udp | Transport::Tcp | Transport::Tls => Ok(()),
    }
}

fn nanoseconds(seconds: u64) -> u64 {
    seconds.saturating_mul(1_000_000_000)
}

/// Whether the kernel can segment datagrams; logs if not.
fn can_gso(groups: &[Arc<ListenerGroup>]) -> bool {
    let Some(socket) = groups.iter().find_map(|group| group.socket(0, QueueKind::Data)) else { return true };
    let can = option::can_gso(socket.as_fd());
    if !can {
        warn!("no UDP_SEGMENT: every datagram is sent by itself");
    }
    can
}
