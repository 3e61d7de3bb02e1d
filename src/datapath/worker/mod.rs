//! The workers' threads: started together, started again one by one when they fail, stopped together.
//!
//! A worker that panics drops everything it has: its epoll set, its relay sockets, and with them ports and quota. It begins
//! again, empty, on the same listener sockets; the clients of other workers notice nothing.

mod event_loop;
pub(in crate::datapath) mod log;
pub(in crate::datapath) mod losses;
mod packet_path;
pub(in crate::datapath) mod wake;

use std::io;
use std::net::SocketAddr;
use std::panic::{self, AssertUnwindSafe};
use std::sync::{Arc, mpsc as sync};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::sync::{mpsc, watch};
use tracing::{error, info};

use crate::auth::Auth;
use crate::datapath::DatapathConfig;
use crate::datapath::clock::Clock;
use crate::datapath::listen::admission::Admission;
use crate::datapath::listen::entrance::Entrance;
use crate::datapath::listen::group::{self, ListenerGroup};
use crate::datapath::listen::handshake::Handshakes;
use crate::datapath::listen::steering::Kind;
use crate::datapath::relay::ports::Ports;
use crate::datapath::relay::quota::QuotaLedger;
use crate::datapath::relay::reservations::Reservations;
use crate::datapath::relay::table::{Relays, Resources};
use crate::datapath::stats::{Published, WorkerStats};
use crate::datapath::stream::{self, Streams};
use crate::datapath::sys::option;
use crate::datapath::worker::event_loop::{Worker, WorkerCommand};
use crate::datapath::worker::losses::LossMonitor;
use crate::datapath::worker::packet_path::{Listener, PacketPath};
use crate::datapath::worker::wake::Waker;
use crate::turn::bucket::AnswerBucket;
use crate::turn::{self, Server, Transport};

/// Letters that wait for a worker at most.
const MAIL: usize = 16;

/// How long a worker that could not begin again waits before it tries once more.
const RETRY: Duration = Duration::from_secs(1);

/// All workers of a process.
pub struct Workers {
    handles: Vec<WorkerHandle>,
    auth: watch::Sender<Arc<Auth>>,
}

/// Why workers could not be started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A group has sockets for another number of workers.
    #[error("{0} {1}: opened for {2} workers, not for {3}")]
    OtherWorkers(&'static str, SocketAddr, usize, usize),
    /// There are TLS listeners, but no identity.
    #[error("tls {0}: TLS clients need a certificate and its key")]
    NoIdentity(SocketAddr),
    /// No thread, or no epoll set.
    #[error("a worker could not be started: {0}")]
    System(#[from] io::Error),
}

struct WorkerHandle {
    thread: JoinHandle<()>,
    mail: mpsc::Sender<WorkerCommand>,
    bell: Waker,
    published: Arc<Published>,
}

/// What each life of a worker begins with.
struct WorkerSeed {
    index: usize,
    groups: Arc<[ListenerGroup]>,
    clock: Clock,
    resources: Arc<Resources>,
    config: Arc<turn::TurnConfig>,
    auth: watch::Receiver<Arc<Auth>>,
    shared: Arc<turn::Shared>,
    gso: bool,
    streams: stream::StreamConfig,
    admission: Arc<Admission>,
    published: Arc<Published>,
    bell: Waker,
}

impl Workers {
    /// Starts `config.workers` threads on the sockets of `groups`. `answers` bounds what strangers get; `rng` is seeded from
    /// the operating system.
    pub fn start(
        config: &DatapathConfig,
        groups: Arc<[ListenerGroup]>,
        core: Arc<turn::TurnConfig>,
        auth: Arc<Auth>,
        answers: AnswerBucket,
        mut rng: StdRng,
    ) -> Result<Workers, StartError> {
        if let Some(group) = groups.iter().find(|group| group.workers() != config.workers) {
            let transport = group.transport().as_str();
            return Err(StartError::OtherWorkers(
                transport,
                group.local_addr(),
                group.workers(),
                config.workers,
            ));
        }
        if let Some(group) = groups.iter().find(|group| group.transport() == Transport::Tls)
            && config.streams.identity.is_none()
        {
            return Err(StartError::NoIdentity(group.local_addr()));
        }
        group::tell_of_little_room(&groups);
        let ports = Ports::new(&config.relay, config.ports.clone());
        let resources = Arc::new(Resources {
            ports: ports.clone(),
            ledger: QuotaLedger::new(config.user_allocations, config.total_allocations),
            reservations: Reservations::default(),
            reservation_lifetime: config.reservation_lifetime * 1_000_000_000,
            gro: config.gro,
        });
        let shared = Arc::new(turn::Shared { answers, live: Box::new(ports) });
        let gso = config.gso && can_send_joined(&groups);
        let admission = Admission::new(config.streams.limits);
        let clock = Clock::new();
        let (sender, auth) = watch::channel(auth);
        let mut workers = Workers { handles: Vec::new(), auth: sender };
        let (ready, readiness) = sync::channel();
        for index in 0..config.workers {
            let (published, bell) = (Arc::new(Published::default()), Waker::new()?);
            let life = WorkerSeed {
                index,
                groups: groups.clone(),
                clock,
                resources: resources.clone(),
                config: core.clone(),
                auth: auth.clone(),
                shared: shared.clone(),
                gso,
                streams: config.streams.clone(),
                admission: admission.clone(),
                published: published.clone(),
                bell: bell.clone(),
            };
            let (sender, mail) = mpsc::channel(MAIL);
            let (rng, ready) = (StdRng::from_rng(&mut rng), ready.clone());
            let thread = thread::Builder::new()
                .name(format!("worker-{index}"))
                .spawn(move || life.live(mail, rng, &ready))?;
            workers.handles.push(WorkerHandle { thread, mail: sender, bell, published });
        }
        for result in readiness.iter().take(config.workers) {
            result?;
        }
        info!(workers = config.workers, gro = config.gro, gso, "workers run");
        Ok(workers)
    }

    /// Judges credentials by these from now on. Allocations keep the key that made them, so no call ends.
    pub fn renew_auth(&self, auth: Arc<Auth>) {
        self.auth.send_replace(auth);
        self.handles.iter().for_each(|handle| handle.bell.ring());
    }

    /// What each worker has counted.
    pub fn stats(&self) -> Vec<WorkerStats> {
        self.handles.iter().map(|handle| handle.published.read()).collect()
    }

    /// Ends every allocation and waits for all threads.
    pub fn stop(self) {
        // A worker whose mail nobody can send any more stops; so all of them stop at once.
        let stop = |WorkerHandle { thread, mail, bell, .. }| {
            drop(mail);
            bell.ring();
            thread
        };
        let threads: Vec<_> = self.handles.into_iter().map(stop).collect();
        for thread in threads {
            if thread.join().is_err() {
                error!("a worker failed while it stopped");
            }
        }
    }

    /// Makes a worker panic, for tests of what happens then.
    #[doc(hidden)]
    pub fn fail(&self, worker: usize) {
        let sent = self.handles[worker].mail.try_send(WorkerCommand::Panic);
        debug_assert!(sent.is_ok(), "one letter fits");
        self.handles[worker].bell.ring();
    }
}

impl WorkerSeed {
    /// Serves until it is to stop, beginning again whenever it fails.
    fn live(
        self,
        mut mail: mpsc::Receiver<WorkerCommand>,
        mut rng: StdRng,
        ready: &sync::Sender<io::Result<()>>,
    ) {
        let mut begun = false;
        loop {
            let rng = StdRng::from_rng(&mut rng);
            let started = || {
                if !std::mem::replace(&mut begun, true) {
                    let _ = ready.send(Ok(()));
                }
            };
            match panic::catch_unwind(AssertUnwindSafe(|| self.serve(&mut mail, rng, started))) {
                Ok(Ok(())) => return,
                Ok(Err(error)) if !begun => {
                    let _ = ready.send(Err(error));
                    return;
                }
                Ok(Err(error)) => {
                    error!(worker = self.index, %error, "a worker could not go on; it begins again");
                    thread::sleep(RETRY);
                }
                Err(_) => error!(
                    worker = self.index,
                    "a worker failed; its clients lost their allocations; it begins again"
                ),
            }
            self.published.begin_again();
            if mail.is_closed() {
                return;
            }
        }
    }

    /// One life.
    fn serve(
        &self,
        mail: &mut mpsc::Receiver<WorkerCommand>,
        mut rng: StdRng,
        started: impl FnOnce(),
    ) -> io::Result<()> {
        let relays = Relays::new(self.resources.clone(), StdRng::from_rng(&mut rng));
        let streams = Streams::new(self.streams.limits, rng.next_u64());
        let mut auth = self.auth.clone();
        let newest = auth.borrow_and_update().clone();
        let core = Server::new(self.config.clone(), newest, self.shared.clone(), rng);
        let listeners = Listener::all(&self.groups, self.index);
        let traffic = PacketPath::new(listeners, relays, streams, core, self.gso);
        let (resources, published, bell) =
            (self.resources.clone(), self.published.clone(), self.bell.clone());
        let losses = LossMonitor::new(&self.groups, self.index);
        let worker = Worker::new(self.clock, traffic, self.entrance()?, resources, losses, published, bell)?;
        started();
        worker.run(mail, auth)
    }

    /// The way in for streams.
    fn entrance(&self) -> io::Result<Entrance<'_>> {
        let acceptors: Vec<_> =
            self.groups.iter().filter_map(|group| Some((group, group.acceptor(self.index)?))).collect();
        let tls = acceptors.iter().any(|(group, _)| group.transport() == Transport::Tls);
        let identity = self.streams.identity.as_ref().filter(|_| tls);
        let limit = self.streams.limits.handshake;
        let handshakes =
            identity.map(|identity| Handshakes::new(identity.config(), limit, self.bell.clone()));
        let acceptors = acceptors.into_iter().map(|(_, acceptor)| acceptor).collect();
        Ok(Entrance::new(acceptors, handshakes.transpose()?, self.admission.clone()))
    }
}

/// Whether the kernel can cut datagrams; says so if not.
fn can_send_joined(groups: &[ListenerGroup]) -> bool {
    let Some(socket) = groups.iter().find_map(|group| group.socket(0, Kind::Data)) else { return true };
    let can = option::can_send_joined(socket);
    if !can {
        tracing::warn!("no UDP_SEGMENT: every datagram is sent by itself");
    }
    can
}
