//! What a connection goes through before it is TURN: accepting, admission, TLS, and a look at its first bytes
//! (RFC 8489 sections 6.2.2 and 6.2.3).
//!
//! Stages run as tasks on a thread beside each worker, never in the packet loop: a handshake takes as much time as
//! hundreds of packets. The thread has a tenth of a worker's weight, so packets do not wait for handshakes, and a flood of
//! packets leaves them a share of the CPU. The limit per source bounds how many connections anybody has in these
//! stages. The first bytes, decrypted where there is TLS, travel with the connection: the worker tells STUN from ChannelData by
//! them, whatever protocol ALPN chose.
//!
//! The thread lives as long as the worker's thread, also while the worker restarts. Not here: messages and their framing,
//! which start when the worker has the connection.

use std::cell::RefCell;
use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::rc::{Rc, Weak};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use rustls::ServerConnection;
use rustls::server::Acceptor;
use tokio::io::AsyncReadExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime;
use tokio::sync::{mpsc, oneshot};
use tokio::task;
use tokio::time::{sleep, timeout};
use tokio_rustls::LazyConfigAcceptor;
use tokio_rustls::server::TlsStream;
use tracing::{debug, error, info, warn};

use super::group::ListenerGroup;
use crate::datapath::line_budget::{COMMON, LineBudgets};
use crate::datapath::stream::StreamLimits;
use crate::datapath::stream::admission::{
    Admission, Admitted, ConnectionId, ConnectionPermit, Displacing, Refusal,
};
use crate::datapath::stream::closed::{ClosedConnection, log_closed};
use crate::datapath::stream::incoming::{Incoming, OpenConnection};
use crate::datapath::stream::stats::{
    AdmissionRefusal, ConnectionEnd, HANDSHAKES, HandshakeFailure, StreamCounters,
};
use crate::datapath::{clock, sys};
use crate::tls::Identities;
use crate::turn::{ClientAddr, FiveTuple, Transport, Via};

/// Commands that wait for the thread at most.
const COMMANDS: usize = 256;

/// How long accepting pauses when this process has no file descriptors or memory left.
const PAUSE: Duration = Duration::from_millis(100);

/// How often summaries of suppressed log lines are looked for.
const SUMMARIES: Duration = Duration::from_secs(5);

/// The first bytes of a connection that are read here; the worker reads the rest.
const FIRST_BYTES: usize = 2048;

/// What the stages need to know; replaced as a whole.
#[derive(Clone, Default)]
pub(in crate::datapath) struct StageConfig {
    /// The certificates for TLS clients.
    pub(in crate::datapath) identities: Option<Identities>,
    pub(in crate::datapath) limits: StreamLimits,
}

/// A command to the thread that runs the stages.
pub(in crate::datapath) enum StageCommand {
    /// Accept connections from a group's listener of this worker.
    Listen(Arc<ListenerGroup>, oneshot::Sender<io::Result<()>>),
    /// Stop accepting them, and close the listener. Connections that were accepted stay.
    Unlisten(Transport, SocketAddr, oneshot::Sender<()>),
    /// Use this from now on.
    Apply(Arc<StageConfig>, oneshot::Sender<()>),
    /// Reply as a sign of life with the monotonic time.
    Ping(oneshot::Sender<u64>),
}

/// Takes connections that have passed their stages.
pub(in crate::datapath) trait Sink: Clone + Send + 'static {
    /// Hands a connection over; waits while too many wait already.
    fn take(&self, incoming: Incoming) -> impl Future<Output = ()>;
}

/// The thread of a worker that runs the stages.
pub(in crate::datapath) struct Stages {
    commands: mpsc::Sender<StageCommand>,
    /// Dropping it ends the thread.
    shutdown: Option<oneshot::Sender<()>>,
    counters: Arc<Mutex<StreamCounters>>,
    thread: Option<JoinHandle<()>>,
}

impl Stages {
    /// Starts the thread of `worker`, which accepts connections from `groups` when this returns.
    pub(in crate::datapath) fn start(
        worker: usize,
        groups: Vec<Arc<ListenerGroup>>,
        admission: Arc<Admission>,
        config: Arc<StageConfig>,
        sink: impl Sink,
    ) -> io::Result<Stages> {
        let (sender, commands) = mpsc::channel(COMMANDS);
        let (shutdown, ended) = oneshot::channel();
        let (ready, readiness) = std::sync::mpsc::channel();
        let counters = Arc::new(Mutex::default());
        let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
        let counted = counters.clone();
        let thread = thread::Builder::new().name(format!("worker-{worker}-conn")).spawn(move || {
            sys::yield_to_workers();
            let (config, log) = (RefCell::new(config), RefCell::default());
            let context = Rc::new(StageContext { worker, admission, counters: counted, config, log, sink });
            let tasks = task::LocalSet::new();
            tasks.block_on(&runtime, async move {
                let mut listeners = Listeners::default();
                let listening = groups.iter().try_for_each(|group| listeners.listen(&context, group));
                // A group closes when its last owner drops it.
                drop(groups);
                // Whoever starts this waits for it.
                let _ = ready.send(listening);
                tokio::select! {
                    () = summarize(context.clone()) => {}
                    () = run(context, listeners, commands) => {}
                    _ = ended => {}
                }
            });
        })?;
        let listening = readiness.recv().unwrap_or_else(|_| Err(io::ErrorKind::BrokenPipe.into()));
        listening?;
        Ok(Stages { commands: sender, shutdown: Some(shutdown), counters, thread: Some(thread) })
    }

    /// Where commands go.
    pub(in crate::datapath) fn commands(&self) -> mpsc::Sender<StageCommand> {
        self.commands.clone()
    }

    /// What the stages have counted.
    pub(in crate::datapath) fn counters(&self) -> Arc<Mutex<StreamCounters>> {
        self.counters.clone()
    }
}

impl Drop for Stages {
    /// Ends the thread, and with it every connection that is in its stages.
    fn drop(&mut self) {
        self.shutdown = None;
        if let Some(thread) = self.thread.take() {
            // Permits are guards, so a thread that has panicked has returned them.
            let _ = thread.join();
        }
    }
}

/// What the tasks of the thread share.
struct StageContext<S> {
    worker: usize,
    admission: Arc<Admission>,
    counters: Arc<Mutex<StreamCounters>>,
    config: RefCell<Arc<StageConfig>>,
    log: RefCell<LineBudgets>,
    sink: S,
}

/// A connection on its way through the stages.
struct PendingConnection {
    socket: TcpStream,
    tuple: FiveTuple,
    permit: ConnectionPermit,
}

/// How the stages of a connection ended.
enum StageOutcome {
    /// It may speak TURN.
    Turn(Incoming),
    /// It is closed.
    Closed(ConnectionEnd),
    /// It is closed, since its TLS handshake failed.
    HandshakeFailed(HandshakeFailure, String),
}

/// The tasks that accept connections, and the listeners that they hold.
#[derive(Default)]
struct Listeners(HashMap<(Transport, SocketAddr), (task::AbortHandle, Weak<TcpListener>)>);

impl Listeners {
    /// Accepts connections from this worker's listener of a group; a group for datagrams has none.
    fn listen<S: Sink>(&mut self, context: &Rc<StageContext<S>>, group: &ListenerGroup) -> io::Result<()> {
        let Some(listener) = group.listener(context.worker) else { return Ok(()) };
        let listener = TcpListener::from_std(listener.try_clone()?)?;
        let (listener, transport) = (Rc::new(listener), group.transport());
        let (context, held) = (context.clone(), Rc::downgrade(&listener));
        let accept = move || accept(context.clone(), listener.clone(), transport);
        let task = task::spawn_local(restart_after_panics(accept));
        self.0.insert((transport, group.local_addr()), (task.abort_handle(), held));
        Ok(())
    }

    /// Stops accepting connections; the listener is closed when this returns.
    async fn unlisten(&mut self, transport: Transport, addr: SocketAddr) {
        let Some((accepting, held)) = self.0.remove(&(transport, addr)) else { return };
        accepting.abort();
        // The tasks end, and drop it, when the runtime comes to them.
        while held.strong_count() > 0 {
            task::yield_now().await;
        }
    }
}

async fn run<S: Sink>(
    context: Rc<StageContext<S>>,
    mut listeners: Listeners,
    mut commands: mpsc::Receiver<StageCommand>,
) {
    while let Some(command) = commands.recv().await {
        match command {
            // Whoever waits for a reply may have stopped waiting.
            StageCommand::Listen(group, reply) => drop(reply.send(listeners.listen(&context, &group))),
            StageCommand::Unlisten(transport, addr, reply) => {
                listeners.unlisten(transport, addr).await;
                let _ = reply.send(());
            }
            StageCommand::Apply(config, reply) => {
                *context.config.borrow_mut() = config;
                let _ = reply.send(());
            }
            StageCommand::Ping(reply) => drop(reply.send(clock::mono())),
        }
    }
}

/// Runs a task again and again: if it panics, nobody else would notice that its work is not done any more.
async fn restart_after_panics<T: Future<Output = ()> + 'static>(task: impl Fn() -> T) {
    loop {
        // A set ends its tasks when this one is aborted.
        let mut set = tokio::task::JoinSet::new();
        set.spawn_local(task());
        match set.join_next().await {
            Some(Err(error)) if error.is_panic() => {
                error!("accepting connections panicked; it starts again");
                sleep(PAUSE).await;
            }
            _ => return,
        }
    }
}

/// Writes the summaries of suppressed log lines that are due, again and again.
async fn summarize<S>(context: Rc<StageContext<S>>) {
    loop {
        sleep(SUMMARIES).await;
        for (reason, count) in context.log.borrow_mut().take_summaries(clock::mono()) {
            info!(reason, count, "log lines suppressed: failed connections");
        }
    }
}

/// Accepts connections until the listener is removed.
async fn accept<S: Sink>(context: Rc<StageContext<S>>, listener: Rc<TcpListener>, transport: Transport) {
    let index = StreamCounters::index(transport);
    loop {
        let (socket, client) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                // accept(2): other errors are those of the new connection.
                if let Some(libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM) = error.raw_os_error()
                {
                    context.counters().accept_paused += 1;
                    sleep(PAUSE).await;
                }
                continue;
            }
        };
        // RFC 8656 §5: the server's side is the address that the client asked, never a wildcard.
        let Ok(server) = socket.local_addr() else { continue };
        let tuple = FiveTuple {
            client: ClientAddr(sys::address::normalize(client)),
            server: sys::address::normalize(server),
            transport,
            via: Via::Direct,
        };
        context.counters().accepted[index] += 1;
        match context.admission.admit(tuple.client.0.ip()) {
            Ok(Admitted { permit, displaced, displaces }) => {
                if let Some(displacing) = displaces {
                    context.log_displaced(displacing);
                }
                let pending = PendingConnection { socket, tuple, permit };
                task::spawn_local(context.clone().pass_stages(pending, displaced));
            }
            Err(refusal) => {
                context.counters().refused[index][refusal.why] += 1;
                context.log_refused(&tuple, refusal);
            }
        }
    }
}

impl<S: Sink> StageContext<S> {
    async fn pass_stages(self: Rc<Self>, pending: PendingConnection, displaced: oneshot::Receiver<()>) {
        let tuple = pending.tuple;
        let connection = pending.permit.connection();
        let transport = tuple.transport;
        let stages = async {
            match transport {
                Transport::Tcp => self.plain(pending).await,
                Transport::Tls => self.tls(pending).await,
                // Datagrams are not accepted.
                Transport::Udp => StageOutcome::Closed(ConnectionEnd::System),
            }
        };
        let outcome = tokio::select! {
            biased;
            outcome = stages => outcome,
            Ok(()) = displaced => StageOutcome::Closed(ConnectionEnd::Displaced),
        };
        match outcome {
            StageOutcome::Turn(incoming) => self.sink.take(incoming).await,
            StageOutcome::Closed(why) => {
                self.counters().closed[StreamCounters::index(transport)][why] += 1;
                let limits = self.config.borrow().limits;
                log_closed(
                    &mut self.log.borrow_mut(),
                    clock::mono(),
                    ClosedConnection {
                        tuple: &tuple,
                        connection: Some(connection),
                        session: None,
                        why,
                        limits: &limits,
                    },
                );
            }
            StageOutcome::HandshakeFailed(why, error) => {
                self.counters().handshakes_failed[why] += 1;
                self.log_handshake(&tuple, connection, why, &error);
            }
        }
    }

    /// A TLS handshake has failed.
    fn log_handshake(&self, tuple: &FiveTuple, connection: ConnectionId, why: HandshakeFailure, error: &str) {
        let (client, server, connection) = (tuple.client, tuple.server, connection.0);
        let (reason, fix) = (why.as_str(), why.fix());
        if why.is_ordinary() {
            return debug!(%client, %server, reason, error, connection, "connection closed before its TLS handshake");
        }
        let Some(suppressed) = self.log.borrow_mut().take(clock::mono(), reason, COMMON) else { return };
        let suppressed = (suppressed > 0).then_some(suppressed);
        let timeout = self.config.borrow().limits.handshake_timeout.as_secs();
        let limit = (why == HandshakeFailure::TooSlow).then_some(timeout);
        let setting = limit.map(|_| "limits.handshake_timeout");
        info!(%client, %server, reason, error, fix, setting, limit, connection, suppressed, "TLS handshake failed");
    }

    /// A connection was closed right after it was accepted.
    fn log_refused(&self, tuple: &FiveTuple, refusal: Refusal) {
        let Refusal { why, source, limit, setting, by_open_files } = refusal;
        let reason = why.as_str();
        let Some(suppressed) = self.log.borrow_mut().take(clock::mono(), reason, COMMON) else { return };
        let suppressed = (suppressed > 0).then_some(suppressed);
        let (client, server, transport) = (tuple.client, tuple.server, tuple.transport.as_str());
        let fix = match why {
            AdmissionRefusal::Connections if by_open_files => {
                "raise LimitNOFILE (systemd) or ulimit -n: it leaves room for this many"
            }
            AdmissionRefusal::Connections => "raise limits.connections",
            AdmissionRefusal::ConnectionsPerSource => {
                "if many clients are behind this source: raise limits.connections_per_source, or limits.connections, of which \
                 one source gets a quarter at most; if it is your own proxy, balancer or NAT, list it in limits.exempt_sources"
            }
        };
        info!(%client, %server, transport, reason, %source, limit, fix, setting, suppressed, "connection refused");
    }

    /// The oldest connection of a source makes room for a new one.
    fn log_displaced(&self, displacing: Displacing) {
        let Displacing { source, limit, by_open_files } = displacing;
        let setting = if by_open_files { "LimitNOFILE" } else { "limits.connections" };
        let reason = ConnectionEnd::Displaced.as_str();
        let Some(suppressed) = self.log.borrow_mut().take(clock::mono(), reason, COMMON) else { return };
        let suppressed = (suppressed > 0).then_some(suppressed);
        let fix = if by_open_files {
            "unless this is an attack, raise LimitNOFILE (systemd) or ulimit -n, which bounds the number of connections"
        } else {
            "unless this is an attack, raise limits.connections"
        };
        warn!(
            reason,
            %source,
            fix,
            setting,
            limit,
            suppressed,
            "all connections are in use: closed the oldest connection without an allocation of the busiest source to admit a new one"
        );
    }

    /// TCP: TURN starts with the first byte.
    async fn plain(&self, pending: PendingConnection) -> StageOutcome {
        let PendingConnection { mut socket, tuple, permit } = pending;
        let open = OpenConnection::new(self.counters.clone(), tuple.transport);
        let opened = clock::mono();
        let mut received = Vec::new();
        let limit = self.config.borrow().limits.first_message_timeout;
        let read = async {
            received.reserve_exact(FIRST_BYTES);
            socket.read_buf(&mut received).await
        };
        if let Err(why) = first_bytes(timeout(limit, read).await) {
            return StageOutcome::Closed(why);
        }
        let Ok(socket) = socket.into_std() else { return StageOutcome::Closed(ConnectionEnd::System) };
        StageOutcome::Turn(Incoming { socket, tls: None, tuple, permit, open, opened, received })
    }

    /// TLS: TURN starts with the first decrypted byte.
    async fn tls(&self, pending: PendingConnection) -> StageOutcome {
        let PendingConnection { socket, tuple, permit } = pending;
        let StageConfig { identities, limits } = StageConfig::clone(&self.config.borrow());
        let accepted = clock::mono();
        let Some(identities) = identities else {
            let error = "there is no certificate that can be used".to_owned();
            return StageOutcome::HandshakeFailed(HandshakeFailure::Other, error);
        };
        let mut stream = match timeout(limits.handshake_timeout, handshake(socket, &identities)).await {
            Ok(Ok(stream)) => stream,
            Ok(Err((why, error))) => return StageOutcome::HandshakeFailed(why, error),
            Err(_) => {
                let error = "the handshake timed out".to_owned();
                return StageOutcome::HandshakeFailed(HandshakeFailure::TooSlow, error);
            }
        };
        let open = OpenConnection::new(self.counters.clone(), tuple.transport);
        let opened = clock::mono();
        let took = Duration::from_nanos(opened.saturating_sub(accepted));
        self.counters().handshakes.observe(&HANDSHAKES, took);
        let mut received = Vec::new();
        let limit = limits.first_message_timeout;
        let read = async {
            received.reserve_exact(FIRST_BYTES);
            stream.read_buf(&mut received).await
        };
        if let Err(why) = first_bytes(timeout(limit, read).await) {
            return StageOutcome::Closed(why);
        }
        let (socket, tls) = stream.into_inner();
        let Ok(socket) = socket.into_std() else { return StageOutcome::Closed(ConnectionEnd::System) };
        let tls: Option<Box<ServerConnection>> = Some(Box::new(tls));
        StageOutcome::Turn(Incoming { socket, tls, tuple, permit, open, opened, received })
    }

    fn counters(&self) -> MutexGuard<'_, StreamCounters> {
        // Integers alone: whatever was written is a value.
        self.counters.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a read of the first bytes came to.
fn first_bytes(read: Result<io::Result<usize>, tokio::time::error::Elapsed>) -> Result<(), ConnectionEnd> {
    match read {
        Ok(Ok(0)) => Err(ConnectionEnd::Client),
        Ok(Ok(_)) => Ok(()),
        Ok(Err(error)) if is_tls(&error) => Err(ConnectionEnd::Tls),
        Ok(Err(_)) => Err(ConnectionEnd::Reset),
        Err(_) => Err(ConnectionEnd::NoMessage),
    }
}

fn is_tls(error: &io::Error) -> bool {
    error.get_ref().is_some_and(|error| error.is::<rustls::Error>())
}

/// The first byte of a TLS connection: that of a handshake record (RFC 8446 section 5.1).
const HANDSHAKE_RECORD: u8 = 0x16;

/// The fatal alert `unrecognized_name` (RFC 6066 section 3) as a record (RFC 8446 section 5.1). rustls sends another one if no
/// certificate is found.
const UNRECOGNIZED_NAME: [u8; 7] = [0x15, 3, 3, 0, 2, 2, 112];

/// Completes a TLS handshake, or says why it failed.
async fn handshake(
    socket: TcpStream,
    identities: &Identities,
) -> Result<TlsStream<TcpStream>, (HandshakeFailure, String)> {
    let failed = |error: io::Error| (HandshakeFailure::from_error(&error), error.to_string());
    // rustls does not tell what it read instead of TLS.
    let mut first = [0; 16];
    let count = socket.peek(&mut first).await.map_err(failed)?;
    match first[..count] {
        [] => Err((HandshakeFailure::Gone, "the client has sent nothing".to_owned())),
        [HANDSHAKE_RECORD, ..] => {
            let hello = LazyConfigAcceptor::new(Acceptor::default(), socket).await.map_err(failed)?;
            match identities.choose(&hello.client_hello()) {
                Some(config) => hello.into_stream(config).await.map_err(failed),
                None => {
                    let name = hello.client_hello().server_name().unwrap_or_default().to_owned();
                    // Its buffer has room for so little; a client that has left needs no alert.
                    let _ = hello.io.try_write(&UNRECOGNIZED_NAME);
                    Err((
                        HandshakeFailure::UnknownName,
                        format!("the client asked for {name}, which no certificate is for"),
                    ))
                }
            }
        }
        _ => {
            // A socket that is closed with unread bytes is reset, which looks like a failure of the network.
            let _ = socket.try_read(&mut [0; FIRST_BYTES]);
            Err((HandshakeFailure::NotTls, HandshakeFailure::not_tls(&first[..count]).to_owned()))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    #[test]
    fn a_task_that_panics_starts_again() {
        let runtime = runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let runs = Rc::new(Cell::new(0));
        let counted = runs.clone();
        let task = move || {
            let runs = counted.clone();
            async move {
                runs.set(runs.get() + 1);
                assert!(runs.get() == 3, "it fails, as this test wants it to");
            }
        };
        tokio::task::LocalSet::new().block_on(&runtime, restart_after_panics(task));
        assert_eq!(runs.get(), 3);
    }
}
