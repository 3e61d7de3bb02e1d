//! A worker: one thread's loop around its core, its sockets and its timers.
//!
//! Its sockets are in an epoll set of its own, and tokio waits for that one descriptor: no task for a relay socket. One
//! pass takes control datagrams first, then data, then what peers sent, each within a budget, so that a flood of one
//! sort starves no other; what there is no time for is shed by the kernel's queues.

use std::io;
use std::sync::Arc;

use tokio::io::unix::AsyncFd;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use super::clock::Clock;
use super::log::Log;
use super::relay::{Opening, Resources};
use super::stats::Published;
use super::steering::Kind;
use super::sys::epoll::{Epoll, Events};
use super::traffic::Traffic;
use super::watched::Watched;
use crate::auth::Auth;
use crate::turn::{Command, Now, Output};

/// Sockets that one pass may serve.
const SOCKETS: usize = 256;

/// How often counters are published while there is something to count, in nanoseconds.
const PUBLISH: u64 = 100_000_000;

/// What others send to a worker. That nobody can send any more means: stop.
pub(super) enum Mail {
    /// Fail, for a test of what happens then.
    Panic,
}

/// The worker.
pub(super) struct Worker<'g> {
    traffic: Traffic<'g>,
    epoll: AsyncFd<Epoll>,
    events: Events,
    control: Control,
    published: Arc<Published>,
    /// When counters were published last, and whether anything has happened since.
    published_at: u64,
    unpublished: bool,
}

/// What the slower part of a worker needs.
struct Control {
    clock: Clock,
    now: Now,
    log: Log,
    resources: Arc<Resources>,
    /// When the next reservation lapses that this worker knows of.
    lapse: Option<u64>,
}

impl<'g> Worker<'g> {
    /// A worker that listens. To be called on its own tokio runtime.
    pub(super) fn new(
        clock: Clock,
        traffic: Traffic<'g>,
        resources: Arc<Resources>,
        published: Arc<Published>,
    ) -> io::Result<Worker<'g>> {
        let epoll = Epoll::new()?;
        for (place, listener) in traffic.listeners.iter().enumerate() {
            epoll.add(listener.socket(), Watched::Listener(place))?;
        }
        let now = clock.now();
        // A worker that failed may have left some behind.
        let lapse = resources.reservations.next();
        Ok(Worker {
            traffic,
            epoll: epoll.on_this_runtime()?,
            events: Events::new(SOCKETS),
            control: Control { clock, now, log: Log::default(), resources, lapse },
            published,
            published_at: now.mono,
            unpublished: true,
        })
    }

    /// Serves until nobody can send mail any more, then ends every allocation.
    pub(super) async fn run(
        mut self,
        mail: &mut mpsc::Receiver<Mail>,
        mut auth: watch::Receiver<Arc<Auth>>,
    ) -> io::Result<()> {
        let mut armed = None;
        let timer = tokio::time::sleep_until(Instant::from_std(self.control.clock.instant(0)));
        tokio::pin!(timer);
        loop {
            let due = self.due();
            // A timer that rings early costs less than one that is set for each packet.
            if due.is_some_and(|due| armed.is_none_or(|armed| due < armed)) {
                armed = due;
                timer.as_mut().reset(Instant::from_std(self.control.clock.instant(due.unwrap_or(0))));
            }
            tokio::select! {
                biased;
                mail = mail.recv() => match mail {
                    Some(Mail::Panic) => panic!("this worker was told to fail"),
                    None => break,
                },
                Ok(()) = auth.changed() => {
                    let newest = auth.borrow_and_update().clone();
                    self.traffic.core.command(self.control.now, Command::NewAuth(newest));
                }
                () = &mut timer, if armed.is_some() => {
                    armed = None;
                    self.control.now = self.control.clock.now();
                    self.timers();
                }
                guard = self.epoll.readable() => {
                    let mut guard = guard?;
                    let drained = pass(&mut self.traffic, &mut self.control, guard.get_inner(), &mut self.events)?;
                    if drained {
                        guard.clear_ready();
                    }
                    self.unpublished = true;
                    self.timers();
                }
            }
        }
        self.stop();
        Ok(())
    }

    /// When something is to be done without any packet.
    fn due(&self) -> Option<u64> {
        let publish = self.unpublished.then_some(self.published_at + PUBLISH);
        [self.traffic.core.poll_timeout(), self.control.lapse, publish].into_iter().flatten().min()
    }

    /// Does what is due.
    fn timers(&mut self) {
        let now = self.control.now;
        if self.traffic.core.poll_timeout().is_some_and(|at| at <= now.mono) {
            self.traffic.core.handle_timeout(now);
            self.control.drain(&mut self.traffic, self.epoll.get_ref());
            self.unpublished = true;
        }
        if self.control.lapse.is_some_and(|at| at <= now.mono) {
            self.control.resources.reservations.lapse(now.mono);
            self.control.lapse = self.control.resources.reservations.next();
        }
        if self.unpublished && now.mono >= self.published_at + PUBLISH {
            self.publish();
        }
    }

    fn publish(&mut self) {
        self.published_at = self.control.now.mono;
        self.unpublished = !self.published.write(self.traffic.core.stats(), &self.traffic.counters);
    }

    fn stop(&mut self) {
        self.control.now = self.control.clock.now();
        self.traffic.core.command(self.control.now, Command::End);
        self.control.drain(&mut self.traffic, self.epoll.get_ref());
        self.publish();
    }
}

/// Serves each socket that can be read, once; true if none can any more.
fn pass(
    traffic: &mut Traffic<'_>,
    control: &mut Control,
    epoll: &Epoll,
    events: &mut Events,
) -> io::Result<bool> {
    control.now = control.clock.now();
    let mut drained = epoll.ready(events)?;
    for kind in [Kind::Control, Kind::Data] {
        for n in 0..events.len() {
            let Some(Watched::Listener(listener)) = events.watched(n) else { continue };
            if traffic.listeners[listener].kind() == kind {
                drained &= traffic.serve_listener(control.now, listener, |traffic| {
                    control.drain(traffic, epoll);
                    control.now = control.clock.now();
                });
            }
        }
    }
    for n in 0..events.len() {
        if let Some(Watched::Relay(relay)) = events.watched(n) {
            if events.has_error(n) {
                drained &= traffic.serve_errors(control.now, relay);
            }
            drained &= traffic.serve_relay(control.now, relay);
        }
    }
    traffic.send();
    control.drain(traffic, epoll);
    Ok(drained)
}

impl Control {
    /// Does everything that the core wants done.
    fn drain(&mut self, traffic: &mut Traffic<'_>, epoll: &Epoll) {
        while let Some(output) = traffic.core.poll_output() {
            match output {
                Output::Reply { to, message } => traffic.reply(&to, &message),
                Output::Ask { ticket, ask } => {
                    let (now, log) = (self.now.mono, &mut self.log);
                    let mut trouble = |relayed, error: &io::Error| log.trouble(now, relayed, error);
                    let opening = Opening { now, ticket, epoll, trouble: &mut trouble };
                    let answer = traffic.relays.answer(ask, opening);
                    self.lapse = self.resources.reservations.next();
                    traffic.core.answered(self.now, ticket, answer);
                }
                Output::CloseRelay(relay) => traffic.relays.close(relay),
                Output::Opened(opened) => self.log.opened(&opened),
                Output::Closed(closed) => self.log.closed(&closed),
                Output::Refused(refused) => self.log.refused(self.now.mono, &refused),
                // For a forwarding table in the kernel; this one forwards itself.
                Output::ChannelBound { .. } | Output::ChannelUnbound { .. } => {}
            }
        }
    }
}
