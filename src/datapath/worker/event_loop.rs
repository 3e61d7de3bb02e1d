//! A worker's event loop.
//!
//! It waits in an epoll set of its own, level-triggered: there is no task per socket, and a socket that was not emptied
//! is reported again. One pass serves requests first, then data from clients, then packets from peers, then connections, each
//! within a slice of time, so no kind of work starves another. What there is no time for waits in the kernel's queues, and
//! what these have no room for is dropped there.

use std::io;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;

use tokio::sync::mpsc;

use super::budget::Budget;
use super::commands::{Standing, WorkerCommand};
use super::state::{Pass, Worker};
use crate::datapath::clock;
use crate::datapath::listen::steering::QueueKind;
use crate::datapath::poll::EventSource;
use crate::turn::OperatorCommand;

/// How often counters are published while there is something to count, in nanoseconds.
const PUBLISH: u64 = 100_000_000;

/// The time slices of a pass, in nanoseconds: for requests, data from clients, packets from peers, and connections.
const REQUESTS: u64 = 2_000_000;
const DATA: u64 = 4_000_000;
const PEERS: u64 = 4_000_000;
const CONNECTIONS: u64 = 2_000_000;

impl Worker {
    /// Serves until it is told to stop, then ends every allocation. `standing` is kept current, so that a worker that takes
    /// over after a panic starts from it.
    pub(super) fn run(
        &mut self,
        commands: &mut mpsc::Receiver<WorkerCommand>,
        standing: &mut Standing,
    ) -> io::Result<()> {
        loop {
            self.timer.set(self.now.mono, self.due())?;
            self.poll.wait(&mut self.events)?;
            self.now = clock::now();
            let previous = std::mem::replace(&mut self.pass.started, self.now.mono);
            let (mut woken, mut quiet) = (false, 0);
            for n in 0..self.events.len() {
                match self.events.source(n) {
                    Some(EventSource::Timer) => {
                        self.timer.clear();
                        quiet += 1;
                    }
                    Some(EventSource::Waker) => {
                        self.waker.clear();
                        woken = true;
                        quiet += 1;
                    }
                    _ => {}
                }
            }
            self.unpublished |= self.events.len() > quiet;
            if woken {
                if self.stop.load(Ordering::Relaxed) {
                    break;
                }
                // What it counts is to be published, though no socket had an event.
                self.unpublished |= self.streams.end_displaced(self.now.mono, &mut self.counters.streams);
                self.carry_out(commands, standing);
            }
            self.pass();
            self.timers();
            self.gather(previous);
        }
        self.stop();
        Ok(())
    }

    /// Serves each socket that has something, once.
    fn pass(&mut self) {
        self.pass.number += 1;
        self.pass.unjoined = 0;
        self.pass.unfinished = false;
        let count = self.events.len();
        self.serve_listeners(QueueKind::Control, REQUESTS);
        self.serve_listeners(QueueKind::Data, DATA);
        self.serve_relays(count);
        self.serve_streams(count);
        self.send();
        self.drain();
        self.close_streams();
    }

    /// Serves the listener sockets of a kind, which share a time slice evenly.
    fn serve_listeners(&mut self, kind: QueueKind, slice: u64) {
        let ready = |worker: &Worker, n| match worker.events.source(n) {
            Some(EventSource::Listener(key)) => {
                worker.listeners.get(key).filter(|listener| listener.kind == kind).map(|_| key)
            }
            _ => None,
        };
        let count = (0..self.events.len()).filter(|&n| ready(self, n).is_some()).count();
        for n in 0..self.events.len() {
            if let Some(key) = ready(self, n) {
                self.serve_listener(key, Budget::new(slice / count as u64));
            }
        }
    }

    fn serve_relays(&mut self, count: usize) {
        let mut budget = Budget::new(PEERS);
        let first = self.pass.first_relay;
        for n in (0..count).map(|n| (first + n) % count) {
            let Some(EventSource::Relay(key)) = self.events.source(n) else { continue };
            if budget.is_exhausted() {
                self.pass.first_relay = n;
                self.pass.unfinished = true;
                return;
            }
            if self.events.readiness(n).error {
                self.serve_errors(key, &mut budget);
            }
            self.serve_relay(key, &mut budget);
        }
    }

    fn serve_streams(&mut self, count: usize) {
        let mut budget = Budget::new(CONNECTIONS);
        let first = self.pass.first_stream;
        for n in (0..count).map(|n| (first + n) % count) {
            let Some(EventSource::Stream(id)) = self.events.source(n) else { continue };
            if budget.is_exhausted() {
                self.pass.first_stream = n;
                self.pass.unfinished = true;
                return;
            }
            let event = self.events.readiness(n);
            self.serve_stream(id, event, &mut budget);
        }
    }

    /// Lets packets gather, if they arrive close together, the kernel does not join them, and this pass has left none. To wake and to
    /// sleep costs more than a packet, so what comes within that time is served together, as network cards moderate
    /// their interrupts. A packet that comes alone is not held back.
    fn gather(&mut self, previous: u64) {
        let Pass { started, unjoined, unfinished, .. } = self.pass;
        let keep_coming = started.saturating_sub(previous) < 3 * self.gather;
        if keep_coming && unjoined > 1 && !unfinished {
            let left = self.gather.saturating_sub(clock::mono().saturating_sub(started));
            thread::sleep(Duration::from_nanos(left));
        }
    }

    /// When something is to be done without any packet.
    fn due(&self) -> Option<u64> {
        let publish = self.has_news().then_some(self.published_at + PUBLISH);
        [self.core.poll_timeout(), self.streams.poll_timeout(), self.reservation_expiry, publish]
            .into_iter()
            .flatten()
            .min()
    }

    /// Does what is due.
    fn timers(&mut self) {
        let now = self.now;
        if self.core.poll_timeout().is_some_and(|at| at <= now.mono) {
            self.core.handle_timeout(now);
            self.drain();
            self.close_streams();
            self.unpublished = true;
        }
        if self.streams.poll_timeout().is_some_and(|at| at <= now.mono) {
            self.streams.handle_timeout(now.mono, &mut self.counters.streams);
            self.close_streams();
            self.unpublished = true;
        }
        if self.reservation_expiry.is_some_and(|at| at <= now.mono) {
            self.resources.reservations.expire(now.mono);
            self.reservation_expiry = self.resources.reservations.next_expiry();
        }
        if self.has_news() && now.mono >= self.published_at + PUBLISH {
            self.publish();
        }
    }

    /// Whether there is, or may be, something to publish.
    fn has_news(&self) -> bool {
        self.unpublished
            || self.losses.is_behind()
            || self.log.is_behind()
            || self.socket_log.is_behind()
            || self.streams.is_behind()
    }

    fn publish(&mut self) {
        let (now, active) = (self.now.mono, self.unpublished);
        self.losses.count(now, active, &mut self.relays, &mut self.counters, &mut self.log);
        self.log.summarize(now);
        self.socket_log.summarize(now);
        self.streams.summarize(now);
        self.published_at = now;
        self.unpublished = !self.published.write(self.core.stats(), &self.counters, self.streams.unsent());
    }

    fn stop(&mut self) {
        self.now = clock::now();
        self.core.command(self.now, OperatorCommand::EndAll);
        self.drain();
        self.streams.shut_down(self.now.mono);
        self.close_streams();
        self.publish();
    }
}
