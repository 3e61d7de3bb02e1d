//! A worker: one thread's loop around its core, its sockets and its timers.
//!
//! It waits in an epoll set of its own, level-triggered, for all of them: no task for a relay socket, and nothing to
//! remember of a socket that was not emptied. One pass takes control datagrams first, then data, then what peers sent,
//! then connections, each within a budget, so that a flood of one sort starves no other; what there is no time for is
//! shed by the kernel's queues.

use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use tokio::sync::{mpsc, watch};

use crate::auth::Auth;
use crate::datapath::clock::Clock;
use crate::datapath::event_source::EventSource;
use crate::datapath::listen::entrance::Entrance;
use crate::datapath::listen::handshake::Handshaken;
use crate::datapath::listen::steering::Kind;
use crate::datapath::relay::table::{Opening, Resources};
use crate::datapath::stats::Published;
use crate::datapath::stream::Incoming;
use crate::datapath::sys::epoll::{Epoll, Events, Readiness};
use crate::datapath::worker::log::Log;
use crate::datapath::worker::losses::LossMonitor;
use crate::datapath::worker::packet_path::PacketPath;
use crate::datapath::worker::wake::{WakeTimer, Waker};
use crate::turn::{Now, OperatorCommand, Output, RelayId};

/// Sockets that one pass may serve.
const SOCKETS: usize = 256;

/// How far apart passes begin while packets keep coming that the kernel does not join, in nanoseconds. To be woken and to
/// sleep again costs more than a packet, so what comes within that time is served together, as network
/// cards moderate their interrupts.
const GATHER: u64 = 150_000;

/// How often counters are published while there is something to count, in nanoseconds.
const PUBLISH: u64 = 100_000_000;

/// What others send to a worker. That nobody can send any more means: stop.
pub(in crate::datapath) enum WorkerCommand {
    /// Fail, for a test of what happens then.
    Panic,
}

/// The worker.
pub(in crate::datapath) struct Worker<'g> {
    traffic: PacketPath<'g>,
    entrance: Entrance<'g>,
    epoll: Epoll,
    events: Events,
    alarm: WakeTimer,
    bell: Waker,
    control: ControlPlane,
    /// The event at which a pass begins with connections, so that none of them is always the last.
    turn: usize,
    /// When the last pass began.
    pass_at: u64,
    losses: LossMonitor<'g>,
    published: Arc<Published>,
    /// When counters were published last, and whether anything has happened since.
    published_at: u64,
    unpublished: bool,
}

/// What the slower part of a worker needs.
struct ControlPlane {
    clock: Clock,
    now: Now,
    log: Log,
    resources: Arc<Resources>,
    /// When the next reservation lapses that this worker knows of.
    lapse: Option<u64>,
}

impl<'g> Worker<'g> {
    /// A worker that listens, and comes when the bell is rung.
    pub(in crate::datapath) fn new(
        clock: Clock,
        traffic: PacketPath<'g>,
        entrance: Entrance<'g>,
        resources: Arc<Resources>,
        losses: LossMonitor<'g>,
        published: Arc<Published>,
        bell: Waker,
    ) -> io::Result<Worker<'g>> {
        let (epoll, alarm) = (Epoll::new()?, WakeTimer::new()?);
        epoll.add(alarm.as_fd(), EventSource::WakeTimer)?;
        epoll.add(bell.as_fd(), EventSource::Waker)?;
        for (place, listener) in traffic.listeners.iter().enumerate() {
            epoll.add(listener.socket(), EventSource::Listener(place))?;
        }
        entrance.watch(&epoll)?;
        let now = clock.now();
        // A worker that failed may have left some behind.
        let lapse = resources.reservations.next();
        Ok(Worker {
            traffic,
            entrance,
            epoll,
            events: Events::new(SOCKETS),
            alarm,
            bell,
            control: ControlPlane { clock, now, log: Log::default(), resources, lapse },
            turn: 0,
            pass_at: now.mono,
            losses,
            published,
            published_at: now.mono,
            unpublished: true,
        })
    }

    /// Serves until nobody can send mail any more, then ends every allocation.
    pub(in crate::datapath) fn run(
        mut self,
        mail: &mut mpsc::Receiver<WorkerCommand>,
        mut auth: watch::Receiver<Arc<Auth>>,
    ) -> io::Result<()> {
        loop {
            self.alarm.set(self.control.now.mono, self.due())?;
            self.epoll.wait(&mut self.events)?;
            self.control.now = self.control.clock.now();
            let (alarm, bell) = self.events.find(EventSource::WakeTimer, EventSource::Waker);
            if alarm {
                self.alarm.silence();
            }
            if bell {
                self.bell.silence();
                match mail.try_recv() {
                    Ok(WorkerCommand::Panic) => panic!("this worker was told to fail"),
                    Err(mpsc::error::TryRecvError::Disconnected) => break,
                    Err(mpsc::error::TryRecvError::Empty) => {}
                }
                if auth.has_changed().unwrap_or(false) {
                    let newest = auth.borrow_and_update().clone();
                    self.traffic.core.command(self.control.now, OperatorCommand::NewAuth(newest));
                }
                while let Some(handshaken) = self.entrance.handshaken() {
                    self.control.handshaken(&mut self.traffic, &self.epoll, handshaken);
                }
            }
            let began = self.control.now.mono;
            self.unpublished |= self.events.len() > usize::from(alarm);
            self.pass();
            self.timers();
            self.gather(began);
        }
        self.stop();
        Ok(())
    }

    /// Serves each socket that has something, once.
    fn pass(&mut self) {
        let Worker { traffic, entrance, control, epoll, events, turn, .. } = self;
        traffic.begin_pass();
        for kind in [Kind::Control, Kind::Data] {
            for n in 0..events.len() {
                let Some(EventSource::Listener(listener)) = events.event_source(n) else { continue };
                if traffic.listeners[listener].kind() == kind {
                    traffic.serve_listener(control.now, listener, |traffic| {
                        control.drain(traffic, epoll);
                        control.now = control.clock.now();
                    });
                }
            }
        }
        for n in 0..events.len() {
            if let Some(EventSource::Relay(relay)) = events.event_source(n) {
                if events.has_error(n) {
                    traffic.serve_errors(control.now, relay);
                }
                traffic.serve_relay(control.now, relay, epoll);
            }
        }
        let count = events.len();
        for n in (0..count).map(|n| (*turn + n) % count) {
            if let Some(EventSource::Stream(id)) = events.event_source(n) {
                if !traffic.has_time() {
                    *turn = n;
                    break;
                }
                let event = events.readiness(n);
                traffic.serve_stream(control.now, id, event, epoll, |traffic| control.drain(traffic, epoll));
            }
        }
        traffic.send();
        control.drain(traffic, epoll);
        control.close_streams(traffic, epoll);
        for n in 0..events.len() {
            if let Some(EventSource::Acceptor(place)) = events.event_source(n) {
                control.accept(traffic, entrance, place, epoll);
            }
        }
    }

    /// Lets packets gather while they come close together and none are left. The first after a rest never waits.
    fn gather(&mut self, began: u64) {
        let keep_coming = began.saturating_sub(std::mem::replace(&mut self.pass_at, began)) < 3 * GATHER;
        if keep_coming && self.traffic.may_gather() {
            let left = GATHER.saturating_sub(self.control.clock.now().mono.saturating_sub(began));
            thread::sleep(Duration::from_nanos(left));
        }
    }

    /// When something is to be done without any packet.
    fn due(&self) -> Option<u64> {
        let publish = self.has_news().then_some(self.published_at + PUBLISH);
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
            self.control.drain(&mut self.traffic, &self.epoll);
            self.unpublished = true;
        }
        if self.traffic.streams.poll_timeout().is_some_and(|at| at <= now.mono) {
            self.traffic.streams.handle_timeout(now.mono, &mut self.traffic.counters.streams);
            self.control.close_streams(&mut self.traffic, &self.epoll);
            self.unpublished = true;
        }
        self.entrance.handle_timeout(now.mono, &self.epoll);
        if self.control.lapse.is_some_and(|at| at <= now.mono) {
            self.control.resources.reservations.lapse(now.mono);
            self.control.lapse = self.control.resources.reservations.next();
        }
        if self.has_news() && now.mono >= self.published_at + PUBLISH {
            self.publish();
        }
    }

    /// Whether there is, or may be, something to publish.
    fn has_news(&self) -> bool {
        self.unpublished || self.losses.is_behind() || self.control.log.is_behind()
    }

    fn publish(&mut self) {
        let Worker { traffic, control, losses, .. } = self;
        let (now, log) = (control.now.mono, &mut control.log);
        losses.count(now, self.unpublished, &mut traffic.relays, &mut traffic.counters, log);
        self.published_at = now;
        self.unpublished = !self.published.write(self.traffic.core.stats(), &self.traffic.counters);
    }

    fn stop(&mut self) {
        self.control.now = self.control.clock.now();
        self.traffic.core.command(self.control.now, OperatorCommand::EndAll);
        self.control.drain(&mut self.traffic, &self.epoll);
        self.traffic.streams.shut_down(self.control.now.mono);
        self.control.close_streams(&mut self.traffic, &self.epoll);
        self.publish();
    }
}

impl ControlPlane {
    /// Does everything that the core wants done.
    fn drain(&mut self, traffic: &mut PacketPath<'_>, epoll: &Epoll) {
        while let Some(output) = traffic.core.poll_output() {
            match output {
                Output::Reply { to, message } => traffic.reply(self.now, &to, &message),
                Output::Ask { ticket, ask } => {
                    let (now, log) = (self.now.mono, &mut self.log);
                    let mut trouble = |relayed, error: &io::Error| log.trouble(now, relayed, error);
                    let opening = Opening { now, epoll, trouble: &mut trouble };
                    let answer = traffic.relays.answer(ask, opening);
                    self.lapse = self.resources.reservations.next();
                    traffic.core.answered(self.now, ticket, answer);
                }
                Output::CloseRelay(socket) => traffic.relays.close(socket.into()),
                Output::Opened(opened) => {
                    for (family, relay) in opened.relays.present() {
                        traffic
                            .relays
                            .set_owner(relay.socket.into(), RelayId { allocation: opened.id, family });
                    }
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
    fn close_streams(&mut self, traffic: &mut PacketPath<'_>, epoll: &Epoll) {
        let now = self.now;
        traffic.streams.flush(now.mono, epoll, &mut traffic.counters.streams);
        while let Some((id, tuple)) = traffic.streams.poll_ended() {
            // RFC 8656 §5: an allocation lives no longer than its stream
            traffic.core.client_gone(now, &tuple);
            self.drain(traffic, epoll);
            traffic.streams.close(now.mono, id, epoll, &mut traffic.counters.streams);
        }
    }

    /// Takes in what waits at a listener for streams.
    fn accept(
        &mut self,
        traffic: &mut PacketPath<'_>,
        entrance: &mut Entrance<'_>,
        place: usize,
        epoll: &Epoll,
    ) {
        let now = self.now.mono;
        let mut counters = std::mem::take(&mut traffic.counters.streams);
        let mut ready = Vec::new();
        entrance.accept(now, place, epoll, &mut counters, |incoming| ready.push(incoming));
        traffic.counters.streams = counters;
        ready.into_iter().for_each(|incoming| self.open(traffic, epoll, incoming));
    }

    /// What became of a TLS handshake.
    fn handshaken(&mut self, traffic: &mut PacketPath<'_>, epoll: &Epoll, handshaken: Handshaken) {
        match handshaken {
            Handshaken::Done(incoming) => self.open(traffic, epoll, incoming),
            Handshaken::Failed(tuple, why, error) => {
                traffic.counters.streams.handshakes_failed[why as usize] += 1;
                self.log.handshake_failed(self.now.mono, &tuple, why, &error);
            }
        }
    }

    /// A connection begins.
    fn open(&mut self, traffic: &mut PacketPath<'_>, epoll: &Epoll, incoming: Incoming) {
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
