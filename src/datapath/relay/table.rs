//! The relay sockets of a worker (RFC 8656 section 5), and how they are opened and closed.
//!
//! Resources are acquired in the order quota, ports, sockets. Each is a guard, so a failure or a panic releases all of them.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rand::RngExt;
use rand::rngs::StdRng;
use slotmap::{Key, SlotMap};
use tracing::warn;

use super::ports::{NoPort, Ports, Wanted};
use super::quota::{Quota, QuotaLedger};
use super::reservations::{Reservation, Reservations, Reserver};
use super::socket::RelaySocket;
use crate::auth::Account;
use crate::datapath::drops::QueueLoss;
use crate::datapath::line_budget::LineBudget;
use crate::datapath::poll::{EventSource, Poll, RelaySocketKey};
use crate::turn::{
    Answer, Ask, Denial, Families, Opened, OpenedRelay, PerFamily, PortRequest, RelayId, RelayRequest,
    RelaySocketId, RelayedAddr, Shortage, Token,
};

/// How many relay addresses that are gone from this machine are skipped.
const MAX_UNAVAILABLE: usize = 8;

/// Resources of relay sockets, shared by all workers.
pub(in crate::datapath) struct Resources {
    pub(in crate::datapath) ports: Arc<Ports>,
    pub(in crate::datapath) ledger: Arc<QuotaLedger>,
    pub(in crate::datapath) reservations: Reservations,
    /// How long a reservation is kept, in nanoseconds.
    pub(in crate::datapath) reservation_lifetime: AtomicU64,
    /// Relay sockets receive with GRO.
    pub(in crate::datapath) gro: bool,
}

/// A relay socket in the table.
struct TableEntry {
    relay: RelaySocket,
    /// The relayed address that it serves, once the allocation exists.
    owner: Option<RelayId>,
    /// Shared by the sockets of an allocation, and released with the last of them.
    quota: Arc<Quota>,
    /// The index in [`Relays::order`].
    index: usize,
}

/// Logs relay sockets that could not be opened.
#[derive(Default)]
pub(in crate::datapath) struct SocketLog {
    failed: LineBudget,
    exhausted: LineBudget,
}

impl SocketLog {
    fn failed(&mut self, now: u64, relayed: SocketAddr, error: &io::Error) {
        let Some(suppressed) = self.failed.take(now) else { return };
        let suppressed = (suppressed > 0).then_some(suppressed);
        warn!(%relayed, %error, suppressed, "a relay socket could not be opened");
    }

    fn exhausted(&mut self, now: u64) {
        let Some(suppressed) = self.exhausted.take(now) else { return };
        let suppressed = (suppressed > 0).then_some(suppressed);
        warn!(
            suppressed,
            "no relay socket is left: this process has as many relay sockets and connections as its limit on open files \
             leaves room for; raise LimitNOFILE (systemd) or `ulimit -Hn`"
        );
    }

    /// Writes the summaries that are due.
    pub(in crate::datapath) fn summarize(&mut self, now: u64) {
        for (budget, reason) in [(&mut self.failed, "failed"), (&mut self.exhausted, "open_files")] {
            if let Some(count) = budget.take_summary(now) {
                warn!(reason, count, "log lines suppressed: relay sockets that could not be opened");
            }
        }
    }

    /// Whether summaries wait to be written.
    pub(in crate::datapath) fn is_behind(&self) -> bool {
        self.failed.is_behind() || self.exhausted.is_behind()
    }
}

/// What a worker passes in to open relay sockets.
pub(in crate::datapath) struct Opening<'a> {
    /// Monotonic nanoseconds.
    pub(in crate::datapath) now: u64,
    /// The worker's epoll set.
    pub(in crate::datapath) poll: &'a Poll,
    /// Logs system call errors.
    pub(in crate::datapath) log: &'a mut SocketLog,
}

/// Why no relay socket was opened.
#[derive(Clone, Copy, PartialEq, Eq)]
enum NoRelay {
    /// No port is free.
    Taken,
    /// The limit on open files was reached.
    OpenFiles,
    /// The system refused the socket.
    Failed,
}

/// The relay sockets of a worker.
pub(in crate::datapath) struct Relays {
    sockets: SlotMap<RelaySocketKey, TableEntry>,
    /// All sockets, in the order in which their drops are polled.
    order: Vec<RelaySocketKey>,
    /// The index in `order` of the next socket to poll.
    cursor: usize,
    /// What sockets that are closed have dropped.
    dropped: QueueLoss,
    resources: Arc<Resources>,
    rng: StdRng,
}

impl Relays {
    /// An empty table. `rng` chooses ports and tokens.
    pub(in crate::datapath) fn new(resources: Arc<Resources>, rng: StdRng) -> Relays {
        let (sockets, order) = (SlotMap::with_key(), Vec::new());
        Relays { sockets, order, cursor: 0, dropped: QueueLoss::default(), resources, rng }
    }

    /// Carries out what the core asks for. On failure, nothing has changed.
    pub(in crate::datapath) fn answer(&mut self, ask: Ask, mut opening: Opening<'_>) -> Answer {
        let opened = match ask {
            Ask::OpenRelay(request) => self.open(&request, &mut opening),
            Ask::ClaimReservation { user, token } => self.claim(&user, token, &mut opening),
        };
        opened.unwrap_or_else(Answer::Refused)
    }

    /// Records which relayed addresses the sockets of a new allocation serve.
    pub(in crate::datapath) fn set_owner(&mut self, opened: &Opened) {
        for (family, relay) in opened.relays.present() {
            if let Some(entry) = self.sockets.get_mut(relay.socket.into()) {
                entry.owner = Some(RelayId { allocation: opened.id, family });
            }
        }
    }

    /// The relayed address that a socket serves.
    pub(in crate::datapath) fn owner(&self, key: RelaySocketKey) -> Option<RelayId> {
        self.sockets.get(key)?.owner
    }

    /// The file descriptor of a socket.
    pub(in crate::datapath) fn socket(&self, key: RelaySocketKey) -> Option<BorrowedFd<'_>> {
        Some(self.sockets.get(key)?.relay.as_fd())
    }

    /// Records that a pass received something from a socket; true if the previous pass did too.
    pub(in crate::datapath) fn served(&mut self, key: RelaySocketKey, pass: u64) -> bool {
        let relay = self.sockets.get_mut(key).map(|entry| &mut entry.relay);
        relay.is_some_and(|relay| relay.served(pass))
    }

    /// Closes a socket and releases its port and, with the last socket of an allocation, its quota.
    pub(in crate::datapath) fn close(&mut self, key: RelaySocketKey) {
        let Some(TableEntry { relay, index, .. }) = self.sockets.remove(key) else { return };
        self.dropped.add(relay.take_drops());
        self.order.swap_remove(index);
        if let Some(moved) = self.order.get(index).and_then(|&moved| self.sockets.get_mut(moved)) {
            moved.index = index;
        }
    }

    /// The number of open sockets.
    pub(in crate::datapath) fn len(&self) -> usize {
        self.sockets.len()
    }

    /// Takes the drops, not reported before, of closed sockets and of the next `count` open sockets.
    pub(in crate::datapath) fn take_drops(&mut self, count: usize) -> QueueLoss {
        let mut dropped = std::mem::take(&mut self.dropped);
        for _ in 0..count.min(self.order.len()) {
            if self.cursor >= self.order.len() {
                self.cursor = 0;
            }
            if let Some(entry) = self.sockets.get(self.order[self.cursor]) {
                dropped.add(entry.relay.take_drops());
            }
            self.cursor += 1;
        }
        dropped
    }

    /// RFC 8656 section 7.2: opens a relayed address of each requested family, IPv4 first.
    fn open(&mut self, request: &RelayRequest, opening: &mut Opening<'_>) -> Result<Answer, Denial> {
        let RelayRequest { user, client, families, port, near } = request;
        let quota = Arc::new(self.resources.ledger.reserve(user)?);
        let next_quota =
            (*port == PortRequest::Pair).then(|| self.resources.ledger.reserve(user)).transpose()?;
        let (mut reserved, mut why) = (None, NoRelay::Taken);
        let relays = PerFamily::from_fn(|family| {
            families[family].then(|| {
                let wanted = Wanted { family, port: *port, near, avoid: &[] };
                let bound = bind_free(&self.resources, wanted, &mut self.rng, opening);
                let (relay, next) = bound.map_err(|no_relay| {
                    why = no_relay;
                    Shortage
                })?;
                let opened = self.insert(relay, quota.clone(), opening).map_err(|_| {
                    why = NoRelay::Failed;
                    Shortage
                })?;
                reserved = reserved.take().or(next);
                Ok(opened)
            })
        });
        if !relays.present().any(|(_, relay)| relay.is_ok()) {
            return Err(self.denial(why, *families));
        }
        let token = reserved
            .zip(next_quota)
            .map(|(relay, quota)| self.reserve(opening.now, relay, quota, Reserver::new(user, *client)))
            .transpose();
        if token.is_err() {
            for opened in relays.present().filter_map(|(_, relay)| relay.ok()) {
                self.close(opened.socket.into());
            }
        }
        Ok(Answer::Opened { relays, token: token? })
    }

    /// Why there is no relay socket of any of these families.
    fn denial(&self, why: NoRelay, families: Families) -> Denial {
        let ports = &self.resources.ports;
        if !families.into_iter().any(|(family, wanted)| wanted && ports.has_address(family)) {
            return Denial::NoAddress;
        }
        match why {
            NoRelay::Taken => Denial::NoPort(ports.in_use(families)),
            NoRelay::OpenFiles => Denial::OpenFiles(ports.descriptors().total()),
            NoRelay::Failed => Denial::SocketFailed,
        }
    }

    /// Adds a socket: the worker polls it from now on, and other clients of this relay may send to it.
    fn insert(
        &mut self,
        relay: RelaySocket,
        quota: Arc<Quota>,
        opening: &mut Opening<'_>,
    ) -> Result<OpenedRelay, TableEntry> {
        let entry = TableEntry { relay, owner: None, quota, index: self.order.len() };
        let addr = RelayedAddr(entry.relay.addr());
        let key = self.sockets.insert(entry);
        if opening.watch(key, &self.sockets[key].relay).is_err() {
            return Err(self.sockets.remove(key).expect("it was inserted above"));
        }
        self.order.push(key);
        Ok(OpenedRelay { addr, socket: RelaySocketId(key.data().as_ffi()) })
    }

    /// RFC 8656 section 7.2: reserves the next higher port for the request that presents the token.
    fn reserve(&mut self, now: u64, relay: RelaySocket, quota: Quota, by: Reserver) -> Result<Token, Denial> {
        let token: Token = self.rng.random();
        let expires = now + self.resources.reservation_lifetime.load(Ordering::Relaxed);
        self.resources.reservations.insert(now, token, Reservation { relay, quota, by, expires })?;
        Ok(token)
    }

    /// RFC 8656 section 7.2: an unknown or expired token is error 508.
    fn claim(&mut self, user: &Account, token: Token, opening: &mut Opening<'_>) -> Result<Answer, Denial> {
        let reservations = &self.resources.reservations;
        let mut reservation = reservations.claim(opening.now, &token).ok_or(Denial::Token)?;
        let reserved_by = reservation.quota.user().clone();
        if let Err(denial) = reservation.quota.transfer_to(user) {
            reservations.restore(token, reservation);
            return Err(denial);
        }
        let Reservation { relay, quota, by, expires } = reservation;
        let family = relay.family();
        let opened =
            self.insert(relay, Arc::new(quota), opening).map_err(|TableEntry { relay, quota, .. }| {
                if let Some(mut quota) = Arc::into_inner(quota) {
                    quota.return_to(&reserved_by);
                    let reservation = Reservation { relay, quota, by, expires };
                    self.resources.reservations.restore(token, reservation);
                }
                Denial::SocketFailed
            })?;
        if let Some(Err(error)) = self.sockets.get_mut(opened.socket.into()).map(|entry| entry.relay.claim())
        {
            // It still relays, with small buffers.
            opening.log.failed(opening.now, opened.addr.0, &error);
        }
        let relays = PerFamily::from_fn(|one| (one == family).then_some(Ok(opened)));
        Ok(Answer::Opened { relays, token: None })
    }
}

impl Opening<'_> {
    fn watch(&mut self, key: RelaySocketKey, relay: &RelaySocket) -> Result<(), Shortage> {
        self.poll.add(relay, EventSource::Relay(key)).map_err(|error| {
            self.log.failed(self.now, relay.addr(), &error);
            Shortage
        })?;
        relay.set_live();
        Ok(())
    }
}

/// Takes a free port and binds it and, for [`PortRequest::Pair`], also the next one.
fn bind_free(
    resources: &Resources,
    wanted: Wanted<'_>,
    rng: &mut StdRng,
    opening: &mut Opening<'_>,
) -> Result<(RelaySocket, Option<RelaySocket>), NoRelay> {
    let mut gone = Vec::new();
    // Every iteration removes a port or an address from those that are free, or returns.
    loop {
        let (port, next) = match resources.ports.take(opening.now, Wanted { avoid: &gone, ..wanted }, rng) {
            Ok(ports) => ports,
            Err(NoPort::Taken) => return Err(NoRelay::Taken),
            Err(NoPort::Descriptors) => {
                opening.log.exhausted(opening.now);
                return Err(NoRelay::OpenFiles);
            }
        };
        let relays = RelaySocket::open(port, resources.gro).and_then(|relay| {
            let next = next.map(|port| RelaySocket::reserve(port, resources.gro)).transpose()?;
            Ok((relay, next))
        });
        let (port, error) = match relays {
            Ok(relays) => return Ok(relays),
            Err(failed) => failed,
        };
        match error.kind() {
            io::ErrorKind::AddrInUse => port.used_elsewhere(opening.now),
            // The daemon follows the addresses of this machine, but an allocation may be faster.
            io::ErrorKind::AddrNotAvailable if gone.len() < MAX_UNAVAILABLE => {
                opening.log.failed(opening.now, port.addr(), &error);
                gone.push(port.addr().ip());
            }
            _ => {
                opening.log.failed(opening.now, port.addr(), &error);
                return Err(NoRelay::Failed);
            }
        }
    }
}

#[cfg(test)]
mod tests;
