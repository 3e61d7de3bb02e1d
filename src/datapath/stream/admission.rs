//! How many connections there may be: in total, half-open in total, and half-open per source.
//!
//! A connection is half-open until its first message is complete. A source is an IPv4 address or an IPv6 /64. One ledger
//! serves the process and is used only when connections open and close. Permits are guards, so whatever ends, a worker
//! that panics too, returns them.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::StreamLimits;
use super::stats::AdmissionRefusal;

/// Counts connections against their limits.
pub(in crate::datapath) struct Admission {
    state: Mutex<AdmissionState>,
}

/// No entry is 0, so the table is no larger than the total.
#[derive(Default)]
struct AdmissionState {
    limits: StreamLimits,
    total: usize,
    half_open: usize,
    by_source: HashMap<u64, usize>,
}

/// Counts as a connection until it is dropped.
pub(in crate::datapath) struct ConnectionPermit(Arc<Admission>);

/// Counts as a half-open connection until it is dropped, which is when the first message is complete.
pub(in crate::datapath) struct HalfOpenPermit(Arc<Admission>, u64);

/// The permits of a new connection.
pub(in crate::datapath) struct Permits {
    pub(in crate::datapath) connection: ConnectionPermit,
    pub(in crate::datapath) half_open: HalfOpenPermit,
}

impl Admission {
    /// No connection is counted yet.
    pub(in crate::datapath) fn new(limits: StreamLimits) -> Arc<Admission> {
        Arc::new(Admission { state: Mutex::new(AdmissionState { limits, ..AdmissionState::default() }) })
    }

    /// Replaces the limits. Connections beyond them stay.
    pub(in crate::datapath) fn set_limits(&self, limits: StreamLimits) {
        self.state().limits = limits;
    }

    /// Admits a new connection of a client.
    pub(in crate::datapath) fn admit(self: &Arc<Self>, client: IpAddr) -> Result<Permits, AdmissionRefusal> {
        let source = source(client);
        let mut state = self.state();
        if state.total >= state.limits.connections {
            return Err(AdmissionRefusal::Connections);
        }
        if state.half_open >= state.limits.half_open {
            return Err(AdmissionRefusal::HalfOpen);
        }
        let per_address = state.limits.half_open_per_address;
        if state.by_source.get(&source).is_some_and(|&count| count >= per_address) {
            return Err(AdmissionRefusal::HalfOpenPerAddress);
        }
        state.total += 1;
        state.half_open += 1;
        *state.by_source.entry(source).or_default() += 1;
        Ok(Permits {
            connection: ConnectionPermit(self.clone()),
            half_open: HalfOpenPermit(self.clone(), source),
        })
    }

    fn state(&self) -> MutexGuard<'_, AdmissionState> {
        // Nothing panics between the changes of one lock.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for ConnectionPermit {
    fn drop(&mut self) {
        self.0.state().total -= 1;
    }
}

impl Drop for HalfOpenPermit {
    fn drop(&mut self) {
        let mut state = self.0.state();
        state.half_open -= 1;
        if let Some(count) = state.by_source.get_mut(&self.1) {
            *count -= 1;
            if *count == 0 {
                state.by_source.remove(&self.1);
            }
        }
    }
}

/// An IPv4 address, or the /64 of an IPv6 address. No IPv6 source is below 2^32, so the two never collide.
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
    fn each_limit_holds_and_every_permit_returns() {
        let limits =
            StreamLimits { connections: 5, half_open: 3, half_open_per_address: 2, ..Default::default() };
        let admission = Admission::new(limits);
        let admit = |text| admission.admit(ip(text));
        let refused = |text| admit(text).err();
        let (first, second) = (admit("192.0.2.1").unwrap(), admit("192.0.2.1").unwrap());
        assert_eq!(refused("192.0.2.1"), Some(AdmissionRefusal::HalfOpenPerAddress));
        let third = admit("192.0.2.2").unwrap();
        assert_eq!(refused("192.0.2.3"), Some(AdmissionRefusal::HalfOpen));
        drop((first.half_open, second.half_open, third.half_open));
        let (fourth, fifth) = (admit("2001:db8::1").unwrap(), admit("2001:db8::2").unwrap());
        assert_eq!(refused("192.0.2.3"), Some(AdmissionRefusal::Connections));
        drop(first.connection);
        assert_eq!(refused("2001:db8::ffff"), Some(AdmissionRefusal::HalfOpenPerAddress), "one /64");
        drop(admit("2001:db8:0:1::").unwrap());
        drop((second.connection, third.connection, fourth, fifth));
        let state = admission.state();
        assert_eq!((state.total, state.half_open, state.by_source.len()), (0, 0, 0));
    }

    #[test]
    fn limits_change_while_connections_are_open() {
        let admission = Admission::new(StreamLimits { connections: 1, ..Default::default() });
        let _first = admission.admit(ip("192.0.2.1")).unwrap();
        assert!(admission.admit(ip("192.0.2.2")).is_err());
        admission.set_limits(StreamLimits { connections: 2, ..Default::default() });
        assert!(admission.admit(ip("192.0.2.2")).is_ok());
    }

    #[test]
    fn a_panic_returns_permits() {
        let admission = Admission::new(StreamLimits::default());
        let held = admission.clone();
        let thread = std::thread::spawn(move || {
            let _permits = held.admit(ip("192.0.2.1"));
            panic!("a worker fails, as this test wants it to");
        });
        assert!(thread.join().is_err());
        let state = admission.state();
        assert_eq!((state.total, state.half_open), (0, 0));
    }
}
