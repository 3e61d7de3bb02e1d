//! Commands from other threads to a worker: one bounded channel per worker, and replies by one-shot channels.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};

use super::budget::Budget;
use super::listener::Listener;
use super::operator_request::OperatorRequest;
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

/// A command to a worker, with a channel for the reply where the sender waits until it is carried out.
pub(in crate::datapath) enum WorkerCommand {
    /// Serve by these credentials, rules and limits from now on.
    Apply(Arc<DatapathSnapshot>, oneshot::Sender<()>),
    /// Serve a group's sockets of this worker.
    Listen(Arc<ListenerGroup>, oneshot::Sender<io::Result<()>>),
    /// Stop serving the sockets of a listener, and close them.
    Unlisten(Transport, SocketAddr, oneshot::Sender<()>),
    /// Serve a connection that has passed its stages.
    Connection(Box<Incoming>),
    /// Do what an operator asks for.
    Operator(OperatorRequest),
    /// Reply as a sign of life with the monotonic time.
    Ping(oneshot::Sender<u64>),
    /// Panic, for tests of what happens then.
    Panic,
    /// Do nothing for some time, for tests of what notices that.
    Block(Duration),
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
                // Whoever waits for a reply may have stopped waiting.
                Ok(WorkerCommand::Apply(snapshot, reply)) => {
                    self.snapshot = snapshot;
                    let _ = reply.send(());
                }
                Ok(WorkerCommand::Listen(group, reply)) => {
                    self.groups.push(group);
                    let _ = reply.send(Ok(()));
                }
                Ok(WorkerCommand::Unlisten(transport, addr, reply)) => {
                    self.remove(transport, addr);
                    let _ = reply.send(());
                }
                Ok(
                    WorkerCommand::Connection(_)
                    | WorkerCommand::Operator(_)
                    | WorkerCommand::Ping(_)
                    | WorkerCommand::Panic
                    | WorkerCommand::Block(_),
                ) => {}
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
        self.continue_ending();
        let mut budget = Budget::new(SLICE);
        loop {
            let command = match commands.try_recv() {
                Ok(command) => command,
                // The senders live as long as the worker.
                Err(_) => return,
            };
            // Whoever waits for a reply may have stopped waiting.
            match command {
                WorkerCommand::Apply(snapshot, reply) => {
                    standing.snapshot = snapshot;
                    self.apply(&standing.snapshot);
                    let _ = reply.send(());
                }
                WorkerCommand::Listen(group, reply) => {
                    let listening = self.listen(standing.worker, &group);
                    if listening.is_ok() {
                        standing.groups.push(group);
                    }
                    let _ = reply.send(listening);
                }
                WorkerCommand::Unlisten(transport, addr, reply) => {
                    standing.remove(transport, addr);
                    self.unlisten(transport, addr);
                    let _ = reply.send(());
                }
                WorkerCommand::Connection(incoming) => self.open(*incoming),
                WorkerCommand::Operator(request) => self.operate(request),
                WorkerCommand::Ping(reply) => drop(reply.send(clock::mono())),
                WorkerCommand::Panic => panic!("this worker was told to panic"),
                WorkerCommand::Block(time) => thread::sleep(time),
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
        self.gather = snapshot.gather.as_nanos() as u64;
        self.drain();
    }

    /// Serves a group's sockets: all of them, or none if one cannot be polled.
    pub(super) fn listen(&mut self, worker: usize, group: &Arc<ListenerGroup>) -> io::Result<()> {
        self.losses.add(group.clone());
        // A worker that panicked has left its count.
        group.reset(worker);
        for listener in Listener::of(group, worker) {
            let socket = listener.socket.clone();
            let key = self.listeners.insert(listener);
            if let Err(error) = self.poll.add(&socket, EventSource::Listener(key)) {
                self.listeners.remove(key);
                self.unlisten(group.transport(), group.local_addr());
                return Err(error);
            }
        }
        Ok(())
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
