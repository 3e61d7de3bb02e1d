//! The thread that runs the stages, and its commands.

use std::cell::RefCell;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use tokio::runtime;
use tokio::sync::{mpsc, oneshot};
use tokio::task;
use tokio::time::sleep;
use tracing::info;

use super::accept::Listeners;
use super::config::StageConfig;
use super::context::{SharedContext, Sink, StageContext};
use super::handshake_queue::HandshakeQueue;
use crate::datapath::listen::group::ListenerGroup;
use crate::datapath::splice::splicer::Splicer;
use crate::datapath::stream::admission::Admission;
use crate::datapath::stream::stats::StreamCounters;
use crate::datapath::{clock, sys};
use crate::turn::Transport;

/// Commands that wait for the thread at most.
const COMMANDS: usize = 256;

/// How often summaries of suppressed log lines are looked for.
const SUMMARIES: Duration = Duration::from_secs(5);

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
        (admission, splicer): (Arc<Admission>, Arc<Splicer>),
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
            let handshakes = HandshakeQueue::new();
            let shared =
                StageContext { worker, admission, counters: counted, config, log, splicer, handshakes, sink };
            let context = Rc::new(shared);
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

async fn run<S: Sink>(
    context: SharedContext<S>,
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

/// Writes the summaries of suppressed log lines that are due, again and again.
async fn summarize<S>(context: SharedContext<S>) {
    loop {
        sleep(SUMMARIES).await;
        for (reason, count) in context.log.borrow_mut().take_summaries(clock::mono()) {
            info!(reason, count, "log lines suppressed: failed connections");
        }
    }
}
