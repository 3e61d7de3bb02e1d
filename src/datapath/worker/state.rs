//! A worker: what it owns, and how that is put together. What it does is in the files beside this one.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use slotmap::SlotMap;

use super::listener::Listener;
use super::log::Log;
use super::losses::LossMonitor;
use super::operator_request::Ending;
use crate::datapath::clock;
use crate::datapath::packet::arena::Arena;
use crate::datapath::packet::outbox::Outbox;
use crate::datapath::poll::{EventSource, Events, ListenerKey, Poll};
use crate::datapath::relay::table::{Relays, Resources, SocketLog};
use crate::datapath::stats::{Published, SocketCounters};
use crate::datapath::stream::table::Streams;
use crate::datapath::sys::receive::Receiver;
use crate::datapath::wake::{WakeTimer, Waker};
use crate::turn::{Now, Server};

/// Sockets that one pass may serve.
const SOCKETS: usize = 256;

/// GRO batches received in one system call.
pub(super) const BATCHES_PER_CALL: usize = 16;

/// The worker.
pub(super) struct Worker {
    pub(super) core: Server,
    pub(super) listeners: SlotMap<ListenerKey, Listener>,
    pub(super) relays: Relays,
    pub(super) streams: Streams,
    pub(super) counters: SocketCounters,
    pub(super) arena: Arena,
    pub(super) receiver: Receiver,
    pub(super) outbox: Outbox,
    pub(super) poll: Poll,
    pub(super) now: Now,
    pub(super) pass: Pass,
    pub(super) log: Log,
    pub(super) socket_log: SocketLog,
    pub(super) resources: Arc<Resources>,
    pub(super) losses: LossMonitor,
    pub(super) waker: Waker,
    /// The worker ends every allocation and returns once this is set.
    pub(super) stop: Arc<AtomicBool>,
    /// When the next reservation expires that this worker knows of.
    pub(super) reservation_expiry: Option<u64>,
    /// Allocations that operators are ending.
    pub(super) ending: VecDeque<Ending>,
    pub(super) events: Events,
    pub(super) timer: WakeTimer,
    /// How far apart passes start while packets keep coming, in nanoseconds.
    pub(super) gather: u64,
    pub(super) published: Arc<Published>,
    /// When counters were published last, and whether anything has happened since.
    pub(super) published_at: u64,
    pub(super) unpublished: bool,
}

/// One pass over what is to be served.
#[derive(Default)]
pub(super) struct Pass {
    /// Counts passes.
    pub(super) number: u64,
    /// When it started, in monotonic nanoseconds.
    pub(super) started: u64,
    /// Batches received that the kernel has not joined: those of one datagram, and reads of connections.
    pub(super) unjoined: usize,
    /// It may have left something.
    pub(super) unfinished: bool,
    /// The event at which the next pass starts with relay sockets and with connections, so that none of them is always
    /// the last.
    pub(super) first_relay: usize,
    pub(super) first_stream: usize,
}

/// What a worker is made of, beside what it makes itself.
pub(super) struct Parts {
    pub(super) core: Server,
    pub(super) relays: Relays,
    pub(super) streams: Streams,
    pub(super) losses: LossMonitor,
    pub(super) resources: Arc<Resources>,
    pub(super) published: Arc<Published>,
    pub(super) waker: Waker,
    pub(super) stop: Arc<AtomicBool>,
    /// Batches of datagrams may be sent with GSO.
    pub(super) gso: bool,
    pub(super) gather: Duration,
}

impl Worker {
    /// A worker without listeners.
    pub(super) fn new(parts: Parts) -> io::Result<Worker> {
        let Parts { core, relays, streams, losses, resources, published, waker, stop, gso, gather } = parts;
        let (poll, timer, now) = (Poll::new()?, WakeTimer::new()?, clock::now());
        poll.add(&timer, EventSource::Timer)?;
        poll.add(&waker, EventSource::Waker)?;
        // A worker that panicked may have left reservations.
        let reservation_expiry = resources.reservations.next_expiry();
        Ok(Worker {
            core,
            listeners: SlotMap::with_key(),
            relays,
            streams,
            counters: SocketCounters::default(),
            arena: Arena::new(),
            receiver: Receiver::new(BATCHES_PER_CALL),
            outbox: Outbox::new(gso),
            poll,
            now,
            pass: Pass { started: now.mono, ..Pass::default() },
            log: Log::default(),
            socket_log: SocketLog::default(),
            resources,
            losses,
            waker,
            stop,
            reservation_expiry,
            ending: VecDeque::new(),
            events: Events::new(SOCKETS),
            timer,
            gather: gather.as_nanos() as u64,
            published,
            published_at: now.mono,
            unpublished: true,
        })
    }
}
