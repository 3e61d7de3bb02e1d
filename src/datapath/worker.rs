//! A worker: one thread's loop around its core, its sockets and its timers.
//!
//! Its sockets are in an epoll set of its own, and tokio waits for that one descriptor: no task for a relay socket. One
//! pass takes control datagrams first, then data, then what peers sent, then connections, each within a budget, so that a
//! flood of one sort starves no other; what there is no time for is shed by the kernel's queues.

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
use super::stream::Incoming;
use super::stream::entrance::Entrance;
use super::stream::handshake::Handshaken;
use super::sys::epoll::{Epoll, Events, Readiness};
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
    entrance: Entrance<'g>,
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
        entrance: Entrance<'g>,
        resources: Arc<Resources>,
        published: Arc<Published>,
    ) -> io::Result<Worker<'g>> {
        let epoll = Epoll::new()?;
        for (place, listener) in traffic.listeners.iter().enumerate() {
            epoll.add(listener.socket(), Watched::Listener(place))?;
        }
        entrance.watch(&epoll)?;
        let now = clock.now();
        // A worker that failed may have left some behind.
        let lapse = resources.reservations.next();
        Ok(Worker {
            traffic,
            entrance,
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
                    let (traffic, entrance, events) = (&mut self.traffic, &mut self.entrance, &mut self.events);
                    if pass(traffic, entrance, &mut self.control, guard.get_inner(), events)? {
                        guard.clear_ready();
                    }
                    self.unpublished = true;
                    self.timers();
                    if self.entrance.is_busy() {
                        // However many packets there are, handshakes have a turn too.
                        tokio::task::yield_now().await;
                    }
                }
                handshaken = self.entrance.handshaken() => {
                    self.control.now = self.control.clock.now();
                    self.control.handshaken(&mut self.traffic, self.epoll.get_ref(), handshaken);
                    self.unpublished = true;
                }
            }
        }
        self.stop();
        Ok(())
    }

    /// When something is to be done without any packet.
    fn due(&self) -> Option<u64> {
        let publish = self.unpublished.then_some(self.published_at + PUBLISH);
        let Worker { traffic, entrance, control, .. } = self;
        let streams = [traffic.streams.poll_timeout(), entrance.poll_timeout()];
        let others = [traffic.core.poll_timeout(), control.lapse, publish];
        streams.into_iter().chain(others).flatten().min()
    }

    /// Does what is due.
    fn timers(&mut self) {
        let now = self.control.now;
        if self.traffic.core.poll_timeout().is_some_and(|at| at <= now.mono) {
            self.traffic.core.handle_timeout(now);
            self.control.drain(&mut self.traffic, self.epoll.get_ref());
            self.unpublished = true;
        }
        if self.traffic.streams.poll_timeout().is_some_and(|at| at <= now.mono) {
            self.traffic.streams.handle_timeout(now.mono, &mut self.traffic.counters.streams);
            self.control.close_streams(&mut self.traffic, self.epoll.get_ref());
            self.unpublished = true;
        }
        self.entrance.handle_timeout(now.mono, self.epoll.get_ref());
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
        self.traffic.streams.shut_down(self.control.now.mono);
        self.control.close_streams(&mut self.traffic, self.epoll.get_ref());
        self.publish();
    }
}

/// Serves each socket that can be read, once; true if none can any more.
fn pass(
    traffic: &mut Traffic<'_>,
    entrance: &mut Entrance<'_>,
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
            drained &= traffic.serve_relay(control.now, relay, epoll);
        }
    }
    for n in 0..events.len() {
        if let Some(Watched::Stream(id)) = events.watched(n) {
            let event = events.readiness(n);
            drained &=
                traffic.serve_stream(control.now, id, event, epoll, |traffic| control.drain(traffic, epoll));
        }
    }
    traffic.send();
    control.drain(traffic, epoll);
    control.close_streams(traffic, epoll);
    for n in 0..events.len() {
        if let Some(Watched::Acceptor(place)) = events.watched(n) {
            drained &= control.accept(traffic, entrance, place, epoll);
        }
    }
    while let Some(handshaken) = entrance.poll_handshaken() {
        control.handshaken(traffic, epoll, handshaken);
    }
    Ok(drained)
}

impl Control {
    /// Does everything that the core wants done.
    fn drain(&mut self, traffic: &mut Traffic<'_>, epoll: &Epoll) {
        while let Some(output) = traffic.core.poll_output() {
            match output {
                Output::Reply { to, message } => traffic.reply(self.now, &to, &message),
                Output::Ask { ticket, ask } => {
                    let (now, log) = (self.now.mono, &mut self.log);
                    let mut trouble = |relayed, error: &io::Error| log.trouble(now, relayed, error);
                    let opening = Opening { now, ticket, epoll, trouble: &mut trouble };
                    let answer = traffic.relays.answer(ask, opening);
                    self.lapse = self.resources.reservations.next();
                    traffic.core.answered(self.now, ticket, answer);
                }
                Output::CloseRelay(relay) => traffic.relays.close(relay),
                Output::Opened(opened) => {
                    traffic.streams.allocated(self.now.mono, &opened.tuple, true);
                    self.log.opened(&opened);
                }
                Output::Closed(closed) => {
                    traffic.streams.allocated(self.now.mono, &closed.tuple, false);
                    self.log.closed(&closed);
                }
                Output::Refused(refused) => self.log.refused(self.now.mono, &refused),
                // For a forwarding table in the kernel; this one forwards itself.
                Output::ChannelBound { .. } | Output::ChannelUnbound { .. } => {}
            }
        }
    }

    /// Writes what waits for clients over streams, and closes their connections that end: first the core is told.
    fn close_streams(&mut self, traffic: &mut Traffic<'_>, epoll: &Epoll) {
        let now = self.now;
        traffic.streams.flush(now.mono, epoll, &mut traffic.counters.streams);
        while let Some((id, tuple)) = traffic.streams.poll_ended() {
            // RFC 8656 §5: an allocation lives no longer than its stream
            traffic.core.client_gone(now, &tuple);
            self.drain(traffic, epoll);
            traffic.streams.close(now.mono, id, epoll, &mut traffic.counters.streams);
        }
    }

    /// Takes in what waits at a listener for streams; false if there may be more.
    fn accept(
        &mut self,
        traffic: &mut Traffic<'_>,
        entrance: &mut Entrance<'_>,
        place: usize,
        epoll: &Epoll,
    ) -> bool {
        let now = self.now.mono;
        let mut counters = std::mem::take(&mut traffic.counters.streams);
        let mut ready = Vec::new();
        let drained = entrance.accept(now, place, epoll, &mut counters, |incoming| ready.push(incoming));
        traffic.counters.streams = counters;
        ready.into_iter().for_each(|incoming| self.open(traffic, epoll, incoming));
        drained
    }

    /// What became of a TLS handshake.
    fn handshaken(&mut self, traffic: &mut Traffic<'_>, epoll: &Epoll, handshaken: Handshaken) {
        match handshaken {
            Handshaken::Done(incoming) => self.open(traffic, epoll, incoming),
            Handshaken::Failed(tuple, why, error) => {
                traffic.counters.streams.handshakes_failed[why as usize] += 1;
                self.log.handshake_failed(self.now.mono, &tuple, why, &error);
            }
        }
    }

    /// A connection begins.
    fn open(&mut self, traffic: &mut Traffic<'_>, epoll: &Epoll, incoming: Incoming) {
        let now = self.now;
        traffic.streams.displace(now.mono, &incoming.tuple);
        self.close_streams(traffic, epoll);
        let tls = incoming.tls.is_some();
        let opened = traffic.streams.open(now.mono, incoming, epoll, &mut traffic.counters.streams);
        if let Some(id) = opened.filter(|_| tls) {
            // A client may send with the last of its handshake.
            traffic.serve_stream(now, id, Readiness::READABLE, epoll, |traffic| self.drain(traffic, epoll));
            traffic.send();
            self.close_streams(traffic, epoll);
        }
    }
}
