//! The relay sockets of a worker (RFC 8656 section 5): opened for Allocate requests, and closed.
//!
//! The order is quota, ports, sockets. Each is a guard, so a failure returns everything, and so does a worker that
//! panics.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

use rand::RngExt;
use rand::rngs::StdRng;
use slotmap::{Key, SlotMap};

use super::ports::Ports;
use super::quota::{Quota, QuotaLedger};
use super::reservations::{Reservation, Reservations};
use super::socket::RelaySocket;
use tracing::warn;

use crate::datapath::drops::QueueLoss;
use crate::datapath::line_budget::LineBudget;
use crate::datapath::poll::{EventSource, Poll, RelaySocketKey};
use crate::turn::{
    Answer, Ask, Denial, Families, Opened, OpenedRelay, PerFamily, PortRequest, RelayId, RelaySocketId,
    RelayedAddr, Shortage, Token,
};
use crate::wire::Family;

/// How often another relay address is tried when one is gone from this machine.
const ADDRESSES_GONE: usize = 8;

/// What all workers share to open relay sockets.
pub(in crate::datapath) struct Resources {
    pub(in crate::datapath) ports: Arc<Ports>,
    pub(in crate::datapath) ledger: Arc<QuotaLedger>,
    pub(in crate::datapath) reservations: Reservations,
    /// How long a reservation is kept, in nanoseconds.
    pub(in crate::datapath) reservation_lifetime: u64,
    /// Relay sockets receive with GRO.
    pub(in crate::datapath) gro: bool,
}

/// A relay socket in the table.
struct TableEntry {
    relay: RelaySocket,
    /// The relayed address of an allocation that it serves, once that exists.
    owner: Option<RelayId>,
    /// The sockets of an allocation share its quota: it is released with the last of them.
    quota: Arc<Quota>,
    /// The index in [`Relays::order`].
    place: usize,
}

/// Logs relay sockets that could not be opened.
#[derive(Default)]
pub(in crate::datapath) struct SocketLog(LineBudget);

impl SocketLog {
    fn failed(&mut self, now: u64, relayed: SocketAddr, error: &io::Error) {
        let Some(suppressed) = self.0.take(now) else { return };
        warn!(%relayed, %error, suppressed, "a relay socket could not be opened");
    }
}

/// What a relay socket is opened for, and by whom.
pub(in crate::datapath) struct Opening<'a> {
    /// Monotonic nanoseconds.
    pub(in crate::datapath) now: u64,
    /// The worker's epoll set.
    pub(in crate::datapath) poll: &'a Poll,
    /// Where failures of the machine are logged.
    pub(in crate::datapath) log: &'a mut SocketLog,
}

/// The relay sockets of a worker.
pub(in crate::datapath) struct Relays {
    sockets: SlotMap<RelaySocketKey, TableEntry>,
    /// All of them, side by side, to be gone through in turns.
    order: Vec<RelaySocketKey>,
    /// Whose turn is next.
    turn: usize,
    /// What sockets lost that are closed.
    lost: QueueLoss,
    resources: Arc<Resources>,
    rng: StdRng,
}

impl Relays {
    /// An empty table. `rng` chooses ports and tokens.
    pub(in crate::datapath) fn new(resources: Arc<Resources>, rng: StdRng) -> Relays {
        let (sockets, order) = (SlotMap::with_key(), Vec::new());
        Relays { sockets, order, turn: 0, lost: QueueLoss::default(), resources, rng }
    }

    /// Does what the core asks. On failure nothing has changed.
    pub(in crate::datapath) fn answer(&mut self, ask: Ask, mut opening: Opening<'_>) -> Answer {
        let opened = match ask {
            Ask::OpenRelay { user, families, port } => self.open(&user, families, port, &mut opening),
            Ask::ClaimReservation { user, token } => self.claim(&user, token, &mut opening),
        };
        opened.unwrap_or_else(Answer::Refused)
    }

    /// Notes which relayed addresses of an allocation the sockets serve that were opened for it.
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

    /// Notes that a pass found something at a socket; true if the pass before did too.
    pub(in crate::datapath) fn served(&mut self, key: RelaySocketKey, pass: u64) -> bool {
        let relay = self.sockets.get_mut(key).map(|entry| &mut entry.relay);
        relay.is_some_and(|relay| relay.served(pass))
    }

    /// Closes a socket and releases its port; with the last socket of an allocation its quota is released too.
    pub(in crate::datapath) fn close(&mut self, key: RelaySocketKey) {
        let Some(TableEntry { relay, place, .. }) = self.sockets.remove(key) else { return };
        self.lost.add(relay.take_loss());
        self.order.swap_remove(place);
        if let Some(moved) = self.order.get(place).and_then(|&moved| self.sockets.get_mut(moved)) {
            moved.place = place;
        }
    }

    /// How many sockets there are.
    pub(in crate::datapath) fn len(&self) -> usize {
        self.sockets.len()
    }

    /// What peers sent in vain and was not reported yet: to sockets that are closed, and to the `most` sockets whose turn
    /// it is.
    pub(in crate::datapath) fn take_losses(&mut self, most: usize) -> QueueLoss {
        let mut lost = std::mem::take(&mut self.lost);
        for _ in 0..most.min(self.order.len()) {
            if self.turn >= self.order.len() {
                self.turn = 0;
            }
            if let Some(entry) = self.sockets.get(self.order[self.turn]) {
                lost.add(entry.relay.take_loss());
            }
            self.turn += 1;
        }
        lost
    }

    /// RFC 8656 section 7.2: a new relayed address of each family wanted, IPv4 first.
    fn open(
        &mut self,
        user: &Arc<str>,
        families: Families,
        wish: PortRequest,
        opening: &mut Opening<'_>,
    ) -> Result<Answer, Denial> {
        let quota = Arc::new(self.resources.ledger.reserve(user)?);
        let spare = (wish == PortRequest::Pair).then(|| self.resources.ledger.reserve(user)).transpose()?;
        let mut kept = None;
        let relays = PerFamily::from_fn(|family| {
            families[family].then(|| {
                let (relay, next) = bind_free(&self.resources, family, wish, &mut self.rng, opening)?;
                let opened = self.insert(relay, quota.clone(), opening).map_err(|_| Shortage)?;
                kept = kept.take().or(next);
                Ok(opened)
            })
        });
        if !relays.present().any(|(_, relay)| relay.is_ok()) {
            return Err(Denial::Capacity);
        }
        let token = kept.zip(spare).map(|(relay, quota)| self.keep(opening.now, relay, quota)).transpose();
        if token.is_err() {
            for opened in relays.present().filter_map(|(_, relay)| relay.ok()) {
                self.close(opened.socket.into());
            }
        }
        Ok(Answer::Opened { relays, token: token? })
    }

    /// Adds a socket: from now on the worker hears it, and other clients of this relay may send there.
    fn insert(
        &mut self,
        relay: RelaySocket,
        quota: Arc<Quota>,
        opening: &mut Opening<'_>,
    ) -> Result<OpenedRelay, TableEntry> {
        let entry = TableEntry { relay, owner: None, quota, place: self.order.len() };
        let addr = RelayedAddr(entry.relay.addr());
        let key = self.sockets.insert(entry);
        if opening.watch(key, &self.sockets[key].relay).is_err() {
            return Err(self.sockets.remove(key).expect("it was inserted above"));
        }
        self.order.push(key);
        Ok(OpenedRelay { addr, socket: RelaySocketId(key.data().as_ffi()) })
    }

    /// RFC 8656 section 7.2: keeps the next higher port for whoever brings the token.
    fn keep(&mut self, now: u64, relay: RelaySocket, quota: Quota) -> Result<Token, Denial> {
        let token: Token = self.rng.random();
        let until = now + self.resources.reservation_lifetime;
        let kept = self.resources.reservations.keep(now, token, Reservation { relay, quota, until });
        if kept { Ok(token) } else { Err(Denial::Capacity) }
    }

    /// RFC 8656 section 7.2: a token that is not known, or no more, is 508.
    fn claim(&mut self, user: &Arc<str>, token: Token, opening: &mut Opening<'_>) -> Result<Answer, Denial> {
        let reservations = &self.resources.reservations;
        let mut reservation = reservations.claim(opening.now, &token).ok_or(Denial::Capacity)?;
        if let Err(denial) = reservation.quota.pass_to(user) {
            reservations.keep(opening.now, token, reservation);
            return Err(denial);
        }
        let Reservation { relay, quota, until } = reservation;
        let family = relay.family();
        let opened =
            self.insert(relay, Arc::new(quota), opening).map_err(|TableEntry { relay, quota, .. }| {
                if let Some(quota) = Arc::into_inner(quota) {
                    self.resources.reservations.keep(opening.now, token, Reservation { relay, quota, until });
                }
                Denial::Capacity
            })?;
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

/// Takes a free port and binds it; for [`PortRequest::Pair`] the next one too.
fn bind_free(
    resources: &Resources,
    family: Family,
    wish: PortRequest,
    rng: &mut StdRng,
    opening: &mut Opening<'_>,
) -> Result<(RelaySocket, Option<RelaySocket>), Shortage> {
    let mut gone = 0;
    // Each turn leaves one port fewer to try, or ends, or is counted.
    while let Some((port, next)) = resources.ports.take(opening.now, family, wish, rng) {
        let relays = RelaySocket::open(port, resources.gro).and_then(|relay| {
            let next = next.map(|port| RelaySocket::open(port, resources.gro)).transpose()?;
            Ok((relay, next))
        });
        let (port, error) = match relays {
            Ok(relays) => return Ok(relays),
            Err(failed) => failed,
        };
        match error.kind() {
            io::ErrorKind::AddrInUse => port.held_by_another(opening.now),
            io::ErrorKind::AddrNotAvailable if gone < ADDRESSES_GONE => {
                opening.log.failed(opening.now, port.addr(), &error);
                gone += 1;
            }
            _ => {
                opening.log.failed(opening.now, port.addr(), &error);
                break;
            }
        }
    }
    Err(Shortage)
}

#[cfg(test)]
mod tests;
