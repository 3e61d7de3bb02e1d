//! RelaySocket sockets: what peers send to and hear from (RFC 8656 section 5).
//!
//! The worker that handles an Allocate request opens them, bound to one address and port that nobody else has (never
//! SO_REUSEPORT). The order is quota, ports, sockets; each is a guard, so any failure returns everything and so does
//! a worker that panics. What belongs together for one allocation is a [`RelaySockets`].

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

use rand::RngExt;
use rand::rngs::StdRng;
use slotmap::SecondaryMap;
use socket2::{Domain, Protocol, Socket, Type};

use crate::datapath::event_source::EventSource;
use crate::datapath::relay::ports::{Port, Ports};
use crate::datapath::relay::quota::{Quota, QuotaLedger};
use crate::datapath::relay::reservations::{Reservation, Reservations};
use crate::datapath::sys::epoll::Epoll;
use crate::datapath::sys::option;
use crate::datapath::worker::losses::{DropCounter, QueueLoss};
use crate::turn::{AllocationId, Answer, Ask, Denial, PortRequest, RelayId, RelayedAddr, Shortage, Token};
use crate::wire::Family;

/// What a relay socket asks for: a video key frame at once.
pub(in crate::datapath) const BUFFER: usize = 1 << 20;

/// How often another relay address is tried when one is gone from this machine.
const ADDRESSES_GONE: usize = 8;

/// What all workers share to open relay sockets.
pub(in crate::datapath) struct Resources {
    pub(in crate::datapath) ports: Arc<Ports>,
    pub(in crate::datapath) ledger: Arc<QuotaLedger>,
    pub(in crate::datapath) reservations: Reservations,
    /// How long a reservation is kept, in nanoseconds.
    pub(in crate::datapath) reservation_lifetime: u64,
    /// RelaySocket sockets hand out joined datagrams.
    pub(in crate::datapath) gro: bool,
}

/// A relay socket with its port. The socket is closed before the port is given back.
pub(in crate::datapath) struct RelaySocket {
    socket: UdpSocket,
    port: Port,
    /// The last pass of its worker that found something there.
    served: u64,
    counted: DropCounter,
}

/// The relay sockets of an allocation, and its quota.
struct RelaySockets {
    v4: Option<RelaySocket>,
    v6: Option<RelaySocket>,
    /// Held until the last socket is closed.
    _quota: Quota,
    /// Its place in [`Relays::order`].
    place: usize,
}

/// What a relay socket is opened for, and by whom.
pub(in crate::datapath) struct Opening<'a> {
    /// Monotonic nanoseconds.
    pub(in crate::datapath) now: u64,
    pub(in crate::datapath) ticket: AllocationId,
    /// The worker's set of sockets.
    pub(in crate::datapath) epoll: &'a Epoll,
    /// Hears what went wrong outside of this program.
    pub(in crate::datapath) trouble: &'a mut dyn FnMut(SocketAddr, &io::Error),
}

/// The relay sockets of a worker.
pub(in crate::datapath) struct Relays {
    slots: SecondaryMap<AllocationId, RelaySockets>,
    /// All of them, side by side, to be gone through in turns.
    order: Vec<AllocationId>,
    /// Whose turn is next.
    turn: usize,
    /// What sockets lost that are closed.
    lost: QueueLoss,
    resources: Arc<Resources>,
    rng: StdRng,
}

impl Relays {
    /// None yet. `rng` chooses ports and tokens.
    pub(in crate::datapath) fn new(resources: Arc<Resources>, rng: StdRng) -> Relays {
        let (slots, order) = (SecondaryMap::new(), Vec::new());
        Relays { slots, order, turn: 0, lost: QueueLoss::default(), resources, rng }
    }

    /// Does what the core asks. If it fails, everything is as it was.
    pub(in crate::datapath) fn answer(&mut self, ask: Ask, mut opening: Opening<'_>) -> Answer {
        let ticket = opening.ticket;
        let opened = match ask {
            Ask::OpenRelay { user, v4, v6, port } => self.open(&user, [v4, v6], port, &mut opening),
            Ask::ClaimReservation { user, token } => self.claim(&user, token, &mut opening),
        };
        match opened {
            Ok((mut slot, answer)) => {
                slot.place = self.order.len();
                self.order.push(ticket);
                self.slots.insert(ticket, slot);
                answer
            }
            Err(denial) => Answer::Refused(denial),
        }
    }

    /// The socket of a relayed address.
    pub(in crate::datapath) fn socket(&self, id: RelayId) -> Option<BorrowedFd<'_>> {
        let slot = self.slots.get(id.allocation)?;
        let relay = match id.family {
            Family::V4 => &slot.v4,
            Family::V6 => &slot.v6,
        };
        relay.as_ref().map(|relay| relay.socket.as_fd())
    }

    /// Notes that a pass found something at a relayed address; true if the pass before did too.
    pub(in crate::datapath) fn served(&mut self, id: RelayId, pass: u64) -> bool {
        let relay = self.slots.get_mut(id.allocation).and_then(|slot| match id.family {
            Family::V4 => slot.v4.as_mut(),
            Family::V6 => slot.v6.as_mut(),
        });
        relay.is_some_and(|relay| std::mem::replace(&mut relay.served, pass) + 1 == pass)
    }

    /// Closes a socket and gives its port back; the last of an allocation gives its quota back too.
    pub(in crate::datapath) fn close(&mut self, id: RelayId) {
        let Some(slot) = self.slots.get_mut(id.allocation) else { return };
        let closed = match id.family {
            Family::V4 => slot.v4.take(),
            Family::V6 => slot.v6.take(),
        };
        if let Some(relay) = closed {
            self.lost.add(relay.lost());
        }
        if slot.v4.is_none() && slot.v6.is_none() {
            let place = slot.place;
            self.slots.remove(id.allocation);
            self.order.swap_remove(place);
            if let Some(moved) = self.order.get(place).and_then(|&moved| self.slots.get_mut(moved)) {
                moved.place = place;
            }
        }
    }

    /// How many allocations have sockets here.
    pub(in crate::datapath) fn len(&self) -> usize {
        self.slots.len()
    }

    /// What peers sent in vain, as far as it was not told yet: to sockets that are closed, and to those of the `most`
    /// allocations whose turn it is.
    pub(in crate::datapath) fn lost(&mut self, most: usize) -> QueueLoss {
        let mut lost = std::mem::take(&mut self.lost);
        for _ in 0..most.min(self.order.len()) {
            if self.turn >= self.order.len() {
                self.turn = 0;
            }
            if let Some(slot) = self.slots.get(self.order[self.turn]) {
                [&slot.v4, &slot.v6].into_iter().flatten().for_each(|relay| lost.add(relay.lost()));
            }
            self.turn += 1;
        }
        lost
    }

    /// RFC 8656 section 7.2: a new relayed address of each family wanted, IPv4 first.
    fn open(
        &mut self,
        user: &Arc<str>,
        wanted: [bool; 2],
        wish: PortRequest,
        opening: &mut Opening<'_>,
    ) -> Result<(RelaySockets, Answer), Denial> {
        let quota = self.resources.ledger.reserve(user)?;
        let spare = (wish == PortRequest::Pair).then(|| self.resources.ledger.reserve(user)).transpose()?;
        let mut kept = None;
        let mut relay = |family: Family, wanted: bool| {
            wanted.then(|| {
                let (relay, next) = bind_free(&self.resources, family, wish, &mut self.rng, opening)?;
                opening.watch(&relay)?;
                kept = kept.take().or(next);
                Ok(relay)
            })
        };
        let (v4, v6) = (relay(Family::V4, wanted[0]), relay(Family::V6, wanted[1]));
        if !matches!((&v4, &v6), (Some(Ok(_)), _) | (_, Some(Ok(_)))) {
            return Err(Denial::Capacity);
        }
        let token = match kept.zip(spare) {
            Some((relay, quota)) => Some(self.keep(opening.now, relay, quota)?),
            None => None,
        };
        let answer = Answer::Opened { v4: answer(&v4), v6: answer(&v6), token };
        Ok((RelaySockets::new(v4.and_then(Result::ok), v6.and_then(Result::ok), quota), answer))
    }

    /// RFC 8656 section 7.2: keeps the next higher port for whoever brings the token.
    fn keep(&mut self, now: u64, relay: RelaySocket, quota: Quota) -> Result<Token, Denial> {
        let token: Token = self.rng.random();
        let until = now + self.resources.reservation_lifetime;
        let kept = self.resources.reservations.keep(now, token, Reservation { relay, quota, until });
        if kept { Ok(token) } else { Err(Denial::Capacity) }
    }

    /// RFC 8656 section 7.2: a token that is not known, or no more, is 508.
    fn claim(
        &mut self,
        user: &Arc<str>,
        token: Token,
        opening: &mut Opening<'_>,
    ) -> Result<(RelaySockets, Answer), Denial> {
        let reservations = &self.resources.reservations;
        let mut reservation = reservations.claim(opening.now, &token).ok_or(Denial::Capacity)?;
        let passed = reservation.quota.pass_to(user);
        if let Err(denial) = passed.and_then(|()| opening.watch(&reservation.relay).or(Err(Denial::Capacity)))
        {
            reservations.keep(opening.now, token, reservation);
            return Err(denial);
        }
        let Reservation { relay, quota, .. } = reservation;
        let relayed = Some(Ok(RelayedAddr(relay.addr())));
        Ok(match relay.family() {
            Family::V4 => (
                RelaySockets::new(Some(relay), None, quota),
                Answer::Opened { v4: relayed, v6: None, token: None },
            ),
            Family::V6 => (
                RelaySockets::new(None, Some(relay), quota),
                Answer::Opened { v4: None, v6: relayed, token: None },
            ),
        })
    }
}

impl RelaySockets {
    fn new(v4: Option<RelaySocket>, v6: Option<RelaySocket>, quota: Quota) -> RelaySockets {
        RelaySockets { v4, v6, _quota: quota, place: 0 }
    }
}

impl Opening<'_> {
    /// From now on the worker hears the socket, and other clients of this relay may send there.
    fn watch(&mut self, relay: &RelaySocket) -> Result<(), Shortage> {
        let id = RelayId { allocation: self.ticket, family: relay.family() };
        self.epoll.add(relay.socket.as_fd(), EventSource::Relay(id)).map_err(|error| {
            (self.trouble)(relay.addr(), &error);
            Shortage
        })?;
        relay.port.set_live();
        Ok(())
    }
}

fn answer(relay: &Option<Result<RelaySocket, Shortage>>) -> Option<Result<RelayedAddr, Shortage>> {
    let relay = relay.as_ref()?;
    Some(relay.as_ref().map(|relay| RelayedAddr(relay.addr())).map_err(|shortage| *shortage))
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
                (opening.trouble)(port.addr(), &error);
                gone += 1;
            }
            _ => {
                (opening.trouble)(port.addr(), &error);
                break;
            }
        }
    }
    Err(Shortage)
}

impl RelaySocket {
    /// Opens the socket of a port.
    pub(in crate::datapath) fn open(port: Port, gro: bool) -> Result<RelaySocket, (Port, io::Error)> {
        match bind(port.addr(), gro) {
            Ok(socket) => Ok(RelaySocket { socket, port, served: 0, counted: DropCounter::default() }),
            Err(error) => Err((port, error)),
        }
    }

    /// The relayed transport address.
    pub(in crate::datapath) fn addr(&self) -> SocketAddr {
        self.port.addr()
    }

    fn family(&self) -> Family {
        Family::of(self.addr().ip())
    }

    fn lost(&self) -> QueueLoss {
        self.counted.lost(self.socket.as_fd())
    }
}

fn bind(addr: SocketAddr, gro: bool) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::for_address(addr), Type::DGRAM, Some(Protocol::UDP))?;
    socket.set_nonblocking(true)?;
    option::may_fragment(socket.as_fd(), addr.is_ipv6())?;
    // What the kernel lacks was said when the listeners were opened.
    let _ = option::receive_marks(socket.as_fd(), addr.is_ipv6());
    if gro {
        let _ = option::receive_joined(socket.as_fd());
    }
    // RFC 8656 §11.5
    option::receive_errors(socket.as_fd(), addr.is_ipv6())?;
    option::buffers(socket.as_fd(), BUFFER)?;
    socket.bind(&addr.into())?;
    Ok(socket.into())
}

#[cfg(test)]
mod tests;
