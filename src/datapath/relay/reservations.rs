//! Relay sockets that are reserved for a later allocation (RFC 8656 sections 7.2 and 18.10): an EVEN-PORT with R reserves
//! one, and its token redeems it, on any worker and from any 5-tuple.
//!
//! The process has one table with a bound. Each entry holds a socket, its port and its maker's quota, and returns all of
//! them when it lapses. Time and tokens are passed in.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::quota::Quota;
use super::socket::RelaySocket;
use crate::turn::Token;

/// Reservations at a time, which bounds what an attack by an authenticated client costs.
const MOST: usize = 4096;

/// The table. A short lock, taken only by Allocate requests with EVEN-PORT or RESERVATION-TOKEN.
#[derive(Default)]
pub(in crate::datapath) struct Reservations {
    table: Mutex<HashMap<Token, Reservation>>,
}

/// What a token stands for.
pub(in crate::datapath) struct Reservation {
    /// A socket that is bound, but not yet read by any worker.
    pub(in crate::datapath) relay: RelaySocket,
    /// The quota of its maker.
    pub(in crate::datapath) quota: Quota,
    /// When it lapses, in monotonic nanoseconds.
    pub(in crate::datapath) until: u64,
}

impl Reservations {
    /// Keeps a reservation; false, and it is dropped, if there are too many or the token is in use.
    pub(in crate::datapath) fn keep(&self, now: u64, token: Token, reservation: Reservation) -> bool {
        self.lapse(now);
        let mut table = self.table();
        let free = table.len() < MOST && !table.contains_key(&token);
        if free {
            table.insert(token, reservation);
        }
        free
    }

    /// Takes what a token stands for. A caller that cannot use it passes it to [`Reservations::keep`] again.
    pub(in crate::datapath) fn claim(&self, now: u64, token: &Token) -> Option<Reservation> {
        let reservation = self.table().remove(token)?;
        (reservation.until > now).then_some(reservation)
    }

    /// Drops every reservation that has lapsed; returns how many.
    pub(in crate::datapath) fn lapse(&self, now: u64) -> usize {
        // Sockets are closed after the lock is released.
        let lapsed: Vec<_> = self.table().extract_if(|_, reservation| reservation.until <= now).collect();
        lapsed.len()
    }

    /// When the next one lapses.
    pub(in crate::datapath) fn next(&self) -> Option<u64> {
        self.table().values().map(|reservation| reservation.until).min()
    }

    fn table(&self) -> MutexGuard<'_, HashMap<Token, Reservation>> {
        // No half-made change can be seen: each is one call.
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use rand::SeedableRng;
    use rand::rngs::StdRng;

    use super::super::ports::Ports;
    use super::super::quota::QuotaLedger;
    use super::*;
    use crate::turn::PortRequest;
    use crate::wire::Family;

    /// Makes reservations on loopback ports.
    struct Maker {
        ports: Arc<Ports>,
        ledger: Arc<QuotaLedger>,
        rng: StdRng,
    }

    impl Maker {
        /// Each test has an address of its own.
        fn new(ip: &str) -> Maker {
            let ports = Ports::new(20_000..=32_000);
            ports.set_addresses(&[ip.parse().unwrap()]).unwrap();
            Maker { ports, ledger: QuotaLedger::new(usize::MAX, usize::MAX), rng: StdRng::seed_from_u64(3) }
        }

        fn make(&mut self, until: u64) -> Reservation {
            let quota = self.ledger.reserve(&"alice".into()).unwrap();
            loop {
                let (port, _) = self.ports.take(0, Family::V4, PortRequest::Any, &mut self.rng).unwrap();
                match RelaySocket::open(port, false) {
                    Ok(relay) => return Reservation { relay, quota, until },
                    Err((port, _)) => port.held_by_another(0),
                }
            }
        }
    }

    /// RFC 8656 §7.2: a token redeems its reservation once, and only while it lasts.
    #[test]
    fn a_token_is_good_once() {
        let (mut maker, table) = (Maker::new("127.0.1.1"), Reservations::default());
        assert!(table.keep(0, [1; 8], maker.make(30)));
        assert!(table.claim(29, &[2; 8]).is_none());
        assert!(table.claim(29, &[1; 8]).is_some());
        assert!(table.claim(29, &[1; 8]).is_none());
        assert!(table.keep(0, [1; 8], maker.make(30)));
        assert!(table.claim(30, &[1; 8]).is_none());
        assert_eq!(maker.ledger.total(), 0);
    }

    /// RFC 8656 §7.2: when it lapses, socket, port and quota return.
    #[test]
    fn what_lapses_returns_everything() {
        let (mut maker, table) = (Maker::new("127.0.1.2"), Reservations::default());
        let reservation = maker.make(30);
        let addr = reservation.relay.addr();
        assert!(table.keep(0, [1; 8], reservation));
        assert!(table.keep(0, [2; 8], maker.make(40)));
        assert_eq!((table.next(), table.lapse(29), maker.ledger.total()), (Some(30), 0, 2));
        assert!(std::net::UdpSocket::bind(addr).is_err());
        assert_eq!((table.lapse(30), maker.ledger.total(), table.next()), (1, 1, Some(40)));
        assert!(std::net::UdpSocket::bind(addr).is_ok());
    }

    #[test]
    fn the_table_has_a_bound() {
        let (mut maker, table) = (Maker::new("127.0.1.3"), Reservations::default());
        for token in 0..MOST as u64 {
            assert!(table.keep(0, token.to_be_bytes(), maker.make(30)));
        }
        assert!(!table.keep(0, [0xFF; 8], maker.make(30)), "full");
        assert_eq!(maker.ledger.total(), MOST, "what was not kept was returned");
        assert!(table.keep(30, [0xFF; 8], maker.make(60)), "what lapsed made room");
    }

    #[test]
    fn a_token_in_use_is_not_given_again() {
        let (mut maker, table) = (Maker::new("127.0.1.4"), Reservations::default());
        assert!(table.keep(0, [1; 8], maker.make(30)));
        assert!(!table.keep(0, [1; 8], maker.make(30)));
        assert!(table.claim(0, &[1; 8]).is_some());
    }
}
