//! How many connections there may be: in total, half-open in total, and half-open from one source.
//!
//! Half-open is a connection that has not yet brought a whole message. Sources are IPv4 addresses and IPv6 /64s. The
//! ledger is one for the process and used by what opens and closes connections only; every place is a guard, so
//! whatever ends, a worker that panics too, gives its places back.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::datapath::stream::StreamLimits;
use crate::datapath::stream::stats::AdmissionRefusal;

/// Who has how many connections.
pub(in crate::datapath) struct Admission {
    limits: StreamLimits,
    counts: Mutex<AdmissionCounts>,
}

/// No entry is 0, so the table is no larger than the total.
#[derive(Default)]
struct AdmissionCounts {
    total: usize,
    half_open: usize,
    by_source: HashMap<u64, usize>,
}

/// A connection's place. Given back when dropped.
pub(in crate::datapath) struct ConnectionPermit(Arc<Admission>);

/// A half-open connection's place. Given back when dropped: that is, when the first message is whole.
pub(in crate::datapath) struct HalfOpenPermit(Arc<Admission>, u64);

impl Admission {
    /// Nobody is there.
    pub(in crate::datapath) fn new(limits: StreamLimits) -> Arc<Admission> {
        Arc::new(Admission { limits, counts: Mutex::default() })
    }

    /// A place for a new connection.
    pub(in crate::datapath) fn admit(
        self: &Arc<Self>,
        client: IpAddr,
    ) -> Result<(ConnectionPermit, HalfOpenPermit), AdmissionRefusal> {
        let source = source(client);
        let mut counts = self.counts();
        if counts.total >= self.limits.connections {
            return Err(AdmissionRefusal::Connections);
        }
        if counts.half_open >= self.limits.half_open {
            return Err(AdmissionRefusal::HalfOpen);
        }
        if counts.by_source.get(&source).is_some_and(|&count| count >= self.limits.half_open_per_address) {
            return Err(AdmissionRefusal::HalfOpenPerAddress);
        }
        counts.total += 1;
        counts.half_open += 1;
        *counts.by_source.entry(source).or_default() += 1;
        Ok((ConnectionPermit(self.clone()), HalfOpenPermit(self.clone(), source)))
    }

    fn counts(&self) -> MutexGuard<'_, AdmissionCounts> {
        // Nothing panics between the changes of one lock.
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for ConnectionPermit {
    fn drop(&mut self) {
        self.0.counts().total -= 1;
    }
}

impl Drop for HalfOpenPermit {
    fn drop(&mut self) {
        let mut counts = self.0.counts();
        counts.half_open -= 1;
        if let Some(count) = counts.by_source.get_mut(&self.1) {
            *count -= 1;
            if *count == 0 {
                counts.by_source.remove(&self.1);
            }
        }
    }
}

/// An IPv4 address, or the network part of an IPv6 address; those that begin with 0 are no one's.
fn source(client: IpAddr) -> u64 {
    match client {
        IpAddr::V4(ip) => ip.to_bits().into(),
        IpAddr::V6(ip) => (ip.to_bits() >> 64) as u64,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn every_bound_is_met_and_every_place_returns() {
        let limits = StreamLimits {
            connections: 5,
            half_open: 3,
            half_open_per_address: 2,
            ..StreamLimits::default()
        };
        let admission = Admission::new(limits);
        let admit = |text| admission.admit(ip(text));
        let refused = |text| admit(text).err();
        let (first, second) = (admit("192.0.2.1").unwrap(), admit("192.0.2.1").unwrap());
        assert_eq!(refused("192.0.2.1"), Some(AdmissionRefusal::HalfOpenPerAddress));
        let third = admit("192.0.2.2").unwrap();
        assert_eq!(refused("192.0.2.3"), Some(AdmissionRefusal::HalfOpen));
        drop((first.1, second.1, third.1));
        let (fourth, fifth) = (admit("2001:db8::1").unwrap(), admit("2001:db8::2").unwrap());
        assert_eq!(refused("192.0.2.3"), Some(AdmissionRefusal::Connections));
        drop(first.0);
        assert_eq!(refused("2001:db8::ffff"), Some(AdmissionRefusal::HalfOpenPerAddress), "one /64");
        drop(admit("2001:db8:0:1::").unwrap());
        drop((second.0, third.0, fourth, fifth));
        let counts = admission.counts();
        assert_eq!((counts.total, counts.half_open, counts.by_source.len()), (0, 0, 0));
    }

    #[test]
    fn a_panic_gives_places_back() {
        let admission = Admission::new(StreamLimits::default());
        let held = admission.clone();
        let thread = std::thread::spawn(move || {
            let _place = held.admit(ip("192.0.2.1"));
            panic!("a worker fails, as this test wants it to");
        });
        assert!(thread.join().is_err());
        let counts = admission.counts();
        assert_eq!((counts.total, counts.half_open), (0, 0));
    }
}
