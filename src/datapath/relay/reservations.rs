//! Relay sockets that are reserved for a later allocation (RFC 8656 sections 7.2 and 18.10): an Allocate request with
//! EVEN-PORT and the R bit reserves one, and its token claims it on any worker and from any 5-tuple.
//!
//! The process has one bounded table. Each entry holds a socket, its port and the quota of the user who reserved it, and
//! releases them when it expires. Time and tokens are passed in.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::quota::Quota;
use super::socket::RelaySocket;
use crate::turn::Token;

/// The maximum number of reservations, which bounds the cost of an attack by an authenticated client.
const MAX_RESERVATIONS: usize = 4096;

/// The reservations by token. The lock is only taken for Allocate requests with EVEN-PORT or RESERVATION-TOKEN, and to expire
/// entries.
#[derive(Default)]
pub(in crate::datapath) struct Reservations {
    table: Mutex<HashMap<Token, Reservation>>,
}

/// A reserved relay socket.
pub(in crate::datapath) struct Reservation {
    /// A bound socket that no worker reads yet.
    pub(in crate::datapath) relay: RelaySocket,
    /// The quota of the user who reserved it, until it is claimed.
    pub(in crate::datapath) quota: Quota,
    /// When it expires, in monotonic nanoseconds.
    pub(in crate::datapath) expires: u64,
}

impl Reservations {
    /// Adds a reservation. Drops it and returns false if the table is full or the token is in use.
    pub(in crate::datapath) fn insert(&self, now: u64, token: Token, reservation: Reservation) -> bool {
        self.expire(now);
        let mut table = self.table();
        let free = table.len() < MAX_RESERVATIONS && !table.contains_key(&token);
        if free {
            table.insert(token, reservation);
        }
        free
    }

    /// Takes the reservation of a token. A caller that cannot use it passes it to [`Reservations::insert`] again.
    pub(in crate::datapath) fn claim(&self, now: u64, token: &Token) -> Option<Reservation> {
        let reservation = self.table().remove(token)?;
        (reservation.expires > now).then_some(reservation)
    }

    /// Drops all expired reservations; returns how many.
    pub(in crate::datapath) fn expire(&self, now: u64) -> usize {
        // Sockets are closed after the lock is released.
        let expired: Vec<_> = self.table().extract_if(|_, reservation| reservation.expires <= now).collect();
        expired.len()
    }

    /// When the next reservation expires.
    pub(in crate::datapath) fn next_expiry(&self) -> Option<u64> {
        self.table().values().map(|reservation| reservation.expires).min()
    }

    fn table(&self) -> MutexGuard<'_, HashMap<Token, Reservation>> {
        // Every change is a single call, so a panic cannot leave an inconsistent state.
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

    /// Creates reservations on loopback ports.
    struct Maker {
        ports: Arc<Ports>,
        ledger: Arc<QuotaLedger>,
        rng: StdRng,
    }

    impl Maker {
        /// Every test uses an address of its own.
        fn new(ip: &str) -> Maker {
            let ports = Ports::new(20_000..=32_000);
            ports.set_addresses(&[ip.parse().unwrap()]).unwrap();
            Maker { ports, ledger: QuotaLedger::new(usize::MAX, usize::MAX), rng: StdRng::seed_from_u64(3) }
        }

        fn make(&mut self, expires: u64) -> Reservation {
            let quota = self.ledger.reserve(&"alice".into()).unwrap();
            loop {
                let (port, _) = self.ports.take(0, Family::V4, PortRequest::Any, &mut self.rng).unwrap();
                match RelaySocket::open(port, false) {
                    Ok(relay) => return Reservation { relay, quota, expires },
                    Err((port, _)) => port.used_elsewhere(0),
                }
            }
        }
    }

    /// RFC 8656 §7.2: a token claims its reservation once, and only until it expires.
    #[test]
    fn a_token_is_valid_once() {
        let (mut maker, table) = (Maker::new("127.0.1.1"), Reservations::default());
        assert!(table.insert(0, [1; 8], maker.make(30)));
        assert!(table.claim(29, &[2; 8]).is_none());
        assert!(table.claim(29, &[1; 8]).is_some());
        assert!(table.claim(29, &[1; 8]).is_none());
        assert!(table.insert(0, [1; 8], maker.make(30)));
        assert!(table.claim(30, &[1; 8]).is_none());
        assert_eq!(maker.ledger.total(), 0);
    }

    /// RFC 8656 §7.2: an expired reservation releases its socket, port and quota.
    #[test]
    fn expiry_releases_everything() {
        let (mut maker, table) = (Maker::new("127.0.1.2"), Reservations::default());
        let reservation = maker.make(30);
        let addr = reservation.relay.addr();
        assert!(table.insert(0, [1; 8], reservation));
        assert!(table.insert(0, [2; 8], maker.make(40)));
        assert_eq!((table.next_expiry(), table.expire(29), maker.ledger.total()), (Some(30), 0, 2));
        assert!(std::net::UdpSocket::bind(addr).is_err());
        assert_eq!((table.expire(30), maker.ledger.total(), table.next_expiry()), (1, 1, Some(40)));
        assert!(std::net::UdpSocket::bind(addr).is_ok());
    }

    #[test]
    fn the_table_is_bounded() {
        let (mut maker, table) = (Maker::new("127.0.1.3"), Reservations::default());
        for token in 0..MAX_RESERVATIONS as u64 {
            assert!(table.insert(0, token.to_be_bytes(), maker.make(30)));
        }
        assert!(!table.insert(0, [0xFF; 8], maker.make(30)), "full");
        assert_eq!(maker.ledger.total(), MAX_RESERVATIONS, "the refused reservation was released");
        assert!(table.insert(30, [0xFF; 8], maker.make(60)), "expired entries make room");
    }

    #[test]
    fn a_token_in_use_is_refused() {
        let (mut maker, table) = (Maker::new("127.0.1.4"), Reservations::default());
        assert!(table.insert(0, [1; 8], maker.make(30)));
        assert!(!table.insert(0, [1; 8], maker.make(30)));
        assert!(table.claim(0, &[1; 8]).is_some());
    }
}
