//! Relay sockets that are reserved for a later allocation (RFC 8656 sections 7.2 and 18.10): an Allocate request with
//! EVEN-PORT and the R bit reserves one, and its token claims it on any worker and from any 5-tuple.
//!
//! The process has one bounded table. Each entry holds a socket, its port and the quota of the user who reserved it, and
//! releases them when it expires. Time and tokens are passed in.

use std::collections::{BTreeSet, HashMap};
use std::net::{IpAddr, Ipv6Addr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::quota::Quota;
use super::socket::RelaySocket;
use crate::auth::{Account, AccountKey};
use crate::turn::{Denial, Token};

/// The maximum number of reservations, which bounds the cost of an attack by authenticated clients.
const MAX_RESERVATIONS: usize = 4096;

/// The maximum number of reservations of a [`Reserver`]. Its clients claim them at once.
const MAX_PER_RESERVER: usize = 16;

/// The reservations by token. The lock is only taken for Allocate requests with EVEN-PORT or RESERVATION-TOKEN, and to expire
/// entries.
#[derive(Default)]
pub(in crate::datapath) struct Reservations {
    table: Mutex<ReservationTable>,
    /// When the next reservation expires, so that this is known without the lock; 0 if there is none.
    next_expiry: AtomicU64,
}

#[derive(Default)]
struct ReservationTable {
    by_token: HashMap<Token, Reservation>,
    /// The tokens in the order in which their reservations expire.
    by_expiry: BTreeSet<(u64, Token)>,
    /// How many reservations each reserver has. Entries of 0 are removed.
    by_reserver: HashMap<Reserver, usize>,
}

/// Who reserved a port: a user, or a name that many clients share with the address of the client.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(in crate::datapath) struct Reserver(AccountKey, Option<IpAddr>);

impl Reserver {
    /// The reserver that a request of `user` from `client` counts for.
    pub(in crate::datapath) fn new(user: &Account, client: IpAddr) -> Reserver {
        let source = match client {
            IpAddr::V4(_) => client,
            IpAddr::V6(v6) => Ipv6Addr::from_bits(v6.to_bits() >> 64 << 64).into(),
        };
        Reserver(user.key(), user.is_shared().then_some(source))
    }
}

/// A reserved relay socket.
pub(in crate::datapath) struct Reservation {
    /// A bound socket that no worker reads yet.
    pub(in crate::datapath) relay: RelaySocket,
    /// The quota of the user who reserved it, until it is claimed.
    pub(in crate::datapath) quota: Quota,
    /// Who reserved it.
    pub(in crate::datapath) by: Reserver,
    /// When it expires, in monotonic nanoseconds.
    pub(in crate::datapath) expires: u64,
}

impl Reservations {
    /// Adds a reservation. Drops it if the token is in use, or if the table or the reserver's share of it is full.
    pub(in crate::datapath) fn insert(
        &self,
        now: u64,
        token: Token,
        reservation: Reservation,
    ) -> Result<(), Denial> {
        self.expire(now);
        let mut table = self.table();
        let of_reserver = table.by_reserver.get(&reservation.by).copied().unwrap_or(0);
        if of_reserver >= MAX_PER_RESERVER {
            return Err(Denial::UserReservations(MAX_PER_RESERVER));
        }
        if table.by_token.len() >= MAX_RESERVATIONS || table.by_token.contains_key(&token) {
            return Err(Denial::Reservations(MAX_RESERVATIONS));
        }
        table.add(token, reservation);
        self.publish_expiry(&table);
        Ok(())
    }

    /// Returns a reservation that was taken by [`Reservations::claim`] but could not be used.
    pub(in crate::datapath) fn restore(&self, token: Token, reservation: Reservation) {
        let mut table = self.table();
        table.add(token, reservation);
        self.publish_expiry(&table);
    }

    /// Takes the reservation of a token. A caller that cannot use it passes it to [`Reservations::restore`].
    pub(in crate::datapath) fn claim(&self, now: u64, token: &Token) -> Option<Reservation> {
        let mut table = self.table();
        let reservation = table.remove(token)?;
        self.publish_expiry(&table);
        // An expired socket is closed after the lock is released.
        drop(table);
        (reservation.expires > now).then_some(reservation)
    }

    /// Drops all expired reservations; returns how many.
    pub(in crate::datapath) fn expire(&self, now: u64) -> usize {
        if self.next_expiry().is_none_or(|at| at > now) {
            return 0;
        }
        let mut expired = Vec::new();
        let mut table = self.table();
        while let Some(&(at, token)) = table.by_expiry.first()
            && at <= now
        {
            expired.extend(table.remove(&token));
        }
        self.publish_expiry(&table);
        // Sockets are closed after the lock is released.
        drop(table);
        expired.len()
    }

    /// When the next reservation expires. Takes no lock.
    pub(in crate::datapath) fn next_expiry(&self) -> Option<u64> {
        Some(self.next_expiry.load(Ordering::Relaxed)).filter(|&at| at > 0)
    }

    fn publish_expiry(&self, table: &ReservationTable) {
        let next = table.by_expiry.first().map_or(0, |(at, _)| *at);
        self.next_expiry.store(next, Ordering::Relaxed);
    }

    fn table(&self) -> MutexGuard<'_, ReservationTable> {
        // Nothing panics between the changes of the maps, so they agree.
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ReservationTable {
    fn add(&mut self, token: Token, reservation: Reservation) {
        self.by_expiry.insert((reservation.expires, token));
        *self.by_reserver.entry(reservation.by.clone()).or_default() += 1;
        self.by_token.insert(token, reservation);
    }

    fn remove(&mut self, token: &Token) -> Option<Reservation> {
        let reservation = self.by_token.remove(token)?;
        self.by_expiry.remove(&(reservation.expires, *token));
        if let Some(count) = self.by_reserver.get_mut(&reservation.by) {
            *count -= 1;
            if *count == 0 {
                self.by_reserver.remove(&reservation.by);
            }
        }
        Some(reservation)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use rand::SeedableRng;
    use rand::rngs::StdRng;
    use socket2::SockRef;

    use super::super::ports::{Ports, Wanted};
    use super::super::quota::QuotaLedger;
    use super::*;
    use crate::datapath::descriptors::{DescriptorRoom, Descriptors};
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
            let ports = Ports::new(20_000..=32_000, Descriptors::new(DescriptorRoom::UNBOUNDED));
            ports.set_addresses(&[ip.parse().unwrap()]).unwrap();
            Maker { ports, ledger: QuotaLedger::new(usize::MAX, usize::MAX), rng: StdRng::seed_from_u64(3) }
        }

        fn make(&mut self, expires: u64) -> Reservation {
            self.make_for("alice", expires)
        }

        fn make_for(&mut self, user: &str, expires: u64) -> Reservation {
            self.make_from(&user.into(), "192.0.2.1", expires)
        }

        fn make_from(&mut self, user: &Account, client: &str, expires: u64) -> Reservation {
            let quota = self.ledger.reserve(user).unwrap();
            let by = Reserver::new(user, client.parse().unwrap());
            loop {
                let wanted = Wanted { family: Family::V4, port: PortRequest::Any, near: &[], avoid: &[] };
                let (port, _) = self.ports.take(0, wanted, &mut self.rng).unwrap();
                match RelaySocket::reserve(port, false) {
                    Ok(relay) => return Reservation { relay, quota, by, expires },
                    Err((port, _)) => port.used_elsewhere(0),
                }
            }
        }
    }

    /// RFC 8656 §7.2: a token claims its reservation once, and only until it expires.
    #[test]
    fn a_token_is_valid_once() {
        let (mut maker, table) = (Maker::new("127.0.1.1"), Reservations::default());
        assert!(table.insert(0, [1; 8], maker.make(30)).is_ok());
        assert!(table.claim(29, &[2; 8]).is_none());
        assert!(table.claim(29, &[1; 8]).is_some());
        assert!(table.claim(29, &[1; 8]).is_none());
        assert!(table.insert(0, [1; 8], maker.make(30)).is_ok());
        assert!(table.claim(30, &[1; 8]).is_none());
        assert_eq!(maker.ledger.total(), 0);
    }

    /// RFC 8656 §7.2: an expired reservation releases its socket, port and quota.
    #[test]
    fn expiry_releases_everything() {
        let (mut maker, table) = (Maker::new("127.0.1.2"), Reservations::default());
        let reservation = maker.make(30);
        let addr = reservation.relay.addr();
        let buffer = SockRef::from(&reservation.relay).recv_buffer_size().unwrap();
        assert!(buffer < 8192, "{buffer}");
        assert!(table.insert(0, [1; 8], reservation).is_ok());
        assert!(table.insert(0, [2; 8], maker.make(40)).is_ok());
        assert_eq!((table.next_expiry(), table.expire(29), maker.ledger.total()), (Some(30), 0, 2));
        assert!(std::net::UdpSocket::bind(addr).is_err());
        assert_eq!((table.expire(30), maker.ledger.total(), table.next_expiry()), (1, 1, Some(40)));
        assert!(std::net::UdpSocket::bind(addr).is_ok());
    }

    #[test]
    fn the_table_is_bounded() {
        let (mut maker, table) = (Maker::new("127.0.1.3"), Reservations::default());
        for token in 0..MAX_RESERVATIONS {
            let reservation = maker.make_for(&format!("user {}", token / MAX_PER_RESERVER), 30);
            assert!(table.insert(0, (token as u64).to_be_bytes(), reservation).is_ok());
        }
        assert_eq!(
            table.insert(0, [0xFF; 8], maker.make(30)),
            Err(Denial::Reservations(MAX_RESERVATIONS)),
            "full"
        );
        assert_eq!(maker.ledger.total(), MAX_RESERVATIONS, "the refused reservation was released");
        assert!(table.insert(30, [0xFF; 8], maker.make(60)).is_ok(), "expired entries make room");
    }

    /// One user cannot reserve every port, or the memory of as many receive buffers.
    #[test]
    fn a_user_has_few_reservations() {
        let (mut maker, table) = (Maker::new("127.0.1.5"), Reservations::default());
        for token in 0..MAX_PER_RESERVER as u64 {
            assert!(table.insert(0, token.to_be_bytes(), maker.make(30)).is_ok());
        }
        assert_eq!(
            table.insert(0, [0xFE; 8], maker.make(30)),
            Err(Denial::UserReservations(MAX_PER_RESERVER))
        );
        assert!(table.insert(0, [0xFF; 8], maker.make_for("bob", 30)).is_ok());
        let claimed = table.claim(0, &0_u64.to_be_bytes()).unwrap();
        assert!(table.insert(0, [0xFE; 8], maker.make(30)).is_ok(), "a claim makes room");
        table.restore(0_u64.to_be_bytes(), claimed);
        assert!(table.claim(0, &0_u64.to_be_bytes()).is_some(), "nothing that was claimed is lost");
    }

    /// Many clients share the name of a static user, so each address has a share of its own.
    #[test]
    fn a_shared_name_is_counted_per_source() {
        let (mut maker, table) = (Maker::new("127.0.1.6"), Reservations::default());
        let shared = Account::static_user("everyone", 0);
        let mut token = 0_u64;
        let mut reserve = |client: &str| {
            token += 1;
            table.insert(0, token.to_be_bytes(), maker.make_from(&shared, client, 30)).is_ok()
        };
        for client in ["192.0.2.1", "192.0.2.2", "2001:db8::1"] {
            assert!((0..MAX_PER_RESERVER).all(|_| reserve(client)), "{client}");
            assert!(!reserve(client), "{client}");
        }
        assert!(!reserve("2001:db8::2"), "a /64 is one source");
        assert!(reserve("2001:db8:0:1::2"));
    }

    #[test]
    fn a_token_in_use_is_refused() {
        let (mut maker, table) = (Maker::new("127.0.1.4"), Reservations::default());
        assert!(table.insert(0, [1; 8], maker.make(30)).is_ok());
        assert!(table.insert(0, [1; 8], maker.make(30)).is_err());
        assert!(table.claim(0, &[1; 8]).is_some());
    }
}
