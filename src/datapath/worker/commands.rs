//! Commands from other threads to a worker: one bounded channel per worker, and replies by one-shot channels.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::sync::{mpsc, oneshot};

use super::budget::Budget;
use super::listener::Listener;
use super::state::Worker;
use crate::datapath::clock;
use crate::datapath::listen::group::ListenerGroup;
use crate::datapath::listen::stages::Sink;
use crate::datapath::poll::{EventSource, Readiness};
use crate::datapath::snapshot::DatapathSnapshot;
use crate::datapath::stream::incoming::Incoming;
use crate::datapath::wake::Waker;
use crate::turn::Transport;

/// Commands that wait for a worker at most.
pub(super) const COMMANDS: usize = 256;

/// The time slice for commands in one pass, in nanoseconds.
const SLICE: u64 = 2_000_000;

/// A command to a worker.
pub(in crate::datapath) enum WorkerCommand {
    /// Serve by these credentials, rules and limits from now on.
    Apply(Arc<DatapathSnapshot>),
    /// Serve a group's sockets of this worker.
    Listen(Arc<ListenerGroup>),
    /// Stop serving the sockets of a listener, and close them.
    Unlisten(Transport, SocketAddr),
    /// Serve a connection that has passed its stages.
    Connection(Box<Incoming>),
    /// Reply as a sign of life.
    Ping(oneshot::Sender<()>),
    /// Panic, for tests of what happens then.
    Panic,
}

/// What a worker restarts with after a panic.
pub(super) struct Standing {
    pub(super) worker: usize,
    pub(super) snapshot: Arc<DatapathSnapshot>,
    pub(super) groups: Vec<Arc<ListenerGroup>>,
}

impl Standing {
    /// Keeps current while no worker runs, which concerns commands about listeners and snapshots; what else waits is
    /// dropped.
    pub(super) fn keep_current(&mut self, commands: &mut mpsc::Receiver<WorkerCommand>) {
        loop {
            match commands.try_recv() {
                Ok(WorkerCommand::Apply(snapshot)) => self.snapshot = snapshot,
                Ok(WorkerCommand::Listen(group)) => self.groups.push(group),
                Ok(WorkerCommand::Unlisten(transport, addr)) => self.remove(transport, addr),
                Ok(WorkerCommand::Connection(_) | WorkerCommand::Ping(_) | WorkerCommand::Panic) => {}
                Err(_) => return,
            }
        }
    }

    fn remove(&mut self, transport: Transport, addr: SocketAddr) {
        self.groups.retain(|group| (group.transport(), group.local_addr()) != (transport, addr));
    }
}

/// The sending side of a worker's channel.
#[derive(Clone)]
pub(in crate::datapath) struct WorkerSender {
    pub(super) sender: mpsc::Sender<WorkerCommand>,
    pub(super) waker: Waker,
}

impl WorkerSender {
    /// Sends a command; waits while too many wait already. A worker that has stopped gets none.
    pub(in crate::datapath) async fn send(&self, command: WorkerCommand) {
        if self.sender.send(command).await.is_ok() {
            self.waker.wake();
        }
    }

    /// The same outside of an asynchronous context.
    pub(super) fn blocking_send(&self, command: WorkerCommand) {
        if self.sender.blocking_send(command).is_ok() {
            self.waker.wake();
        }
    }
}

impl Sink for WorkerSender {
    async fn take(&self, incoming: Incoming) {
        self.send(WorkerCommand::Connection(Box::new(incoming))).await;
    }
}

impl Worker {
    /// Carries out the commands that wait, within a time slice.
    pub(super) fn carry_out(
        &mut self,
        commands: &mut mpsc::Receiver<WorkerCommand>,
        standing: &mut Standing,
    ) {
        let mut budget = Budget::new(SLICE);
        loop {
            let command = match commands.try_recv() {
                Ok(command) => command,
                // The senders live as long as the worker.
                Err(_) => return,
            };
            match command {
                WorkerCommand::Apply(snapshot) => {
                    standing.snapshot = snapshot;
                    self.apply(&standing.snapshot);
                }
                WorkerCommand::Listen(group) => {
                    standing.groups.push(group.clone());
                    self.listen(standing.worker, &group);
                }
                WorkerCommand::Unlisten(transport, addr) => {
                    standing.remove(transport, addr);
                    self.unlisten(transport, addr);
                }
                WorkerCommand::Connection(incoming) => self.open(*incoming),
                WorkerCommand::Ping(reply) => {
                    // Whoever asked may have stopped waiting.
                    let _ = reply.send(());
                }
                WorkerCommand::Panic => panic!("this worker was told to panic"),
            }
            budget.check(clock::mono());
            if budget.is_exhausted() {
                // The rest is for the next pass.
                self.waker.wake();
                return;
            }
        }
    }

    /// Serves by a snapshot from now on.
    pub(super) fn apply(&mut self, snapshot: &DatapathSnapshot) {
        self.core.apply(self.now, snapshot.turn.clone());
        self.streams.set_limits(snapshot.connections);
        self.drain();
    }

    /// Serves a group's sockets.
    pub(super) fn listen(&mut self, worker: usize, group: &Arc<ListenerGroup>) {
        for listener in Listener::of(group, worker) {
            let socket = listener.socket.clone();
            let key = self.listeners.insert(listener);
            if let Err(error) = self.poll.add(&socket, EventSource::Listener(key)) {
                tracing::error!(addr = %group.local_addr(), %error, "a listener cannot be polled");
                self.listeners.remove(key);
            }
        }
        self.losses.add(group.clone());
    }

    fn unlisten(&mut self, transport: Transport, addr: SocketAddr) {
        self.losses.remove(transport, addr);
        if transport == Transport::Udp {
            let poll = &self.poll;
            self.listeners.retain(|_, listener| {
                let stays = listener.addr != addr;
                if !stays {
                    poll.remove(&listener.socket);
                }
                stays
            });
        }
    }

    /// Takes a connection over from its stages.
    fn open(&mut self, incoming: Incoming) {
        self.unpublished = true;
        self.streams.replace(self.now.mono, &incoming.tuple);
        self.close_streams();
        let opened = self.streams.open(self.now.mono, incoming, &self.poll, &mut self.counters.streams);
        if let Some(id) = opened {
            // Its first bytes came with it.
            self.serve_stream(id, Readiness::READABLE, &mut Budget::new(SLICE));
            self.send();
            self.close_streams();
        }
    }
}
