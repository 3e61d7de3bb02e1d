//! What an event in a worker's epoll set is about, in the 64 bits that the kernel keeps with a socket.
//!
//! The generation of a key stands above, its place and the kind of socket below, so an event for something that is
//! closed already is told from one for what took its place. What has no generation lives as long as the worker.

use slotmap::{Key, KeyData};

use crate::datapath::relay::table::RelaySocketKey;
use crate::datapath::stream::StreamId;

/// A socket of this worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum EventSource {
    /// A listener, by its place among the worker's listeners.
    Listener(usize),
    /// A listener for streams, by its place among the worker's.
    Acceptor(usize),
    /// A relay socket.
    Relay(RelaySocketKey),
    /// A client's connection.
    Stream(StreamId),
    /// The worker's own clock.
    WakeTimer,
    /// What other threads wake it with.
    Waker,
}

/// Bits of the kind.
const KIND: u32 = 2;

impl EventSource {
    /// As an event has it.
    pub(super) fn pack(self) -> u64 {
        match self {
            EventSource::Listener(place) => join(0, place as u64, 0),
            EventSource::Acceptor(place) => join(0, place as u64, 1),
            EventSource::Relay(key) => keyed(key.data(), 0),
            EventSource::Stream(id) => keyed(id.data(), 2),
            EventSource::WakeTimer => join(0, 0, 2),
            EventSource::Waker => join(0, 0, 3),
        }
    }

    /// Reads what [`EventSource::pack`] wrote.
    pub(super) fn unpack(event: u64) -> Option<EventSource> {
        let (generation, low) = (event >> 32, event & 0xFFFF_FFFF);
        let (place, kind) = (low >> KIND, low & ((1 << KIND) - 1));
        let key = KeyData::from_ffi(generation << 32 | place);
        match (generation, kind) {
            (0, 0) => Some(EventSource::Listener(place as usize)),
            (0, 1) => Some(EventSource::Acceptor(place as usize)),
            (0, 2) => Some(EventSource::WakeTimer),
            (0, _) => Some(EventSource::Waker),
            (_, 0) => Some(EventSource::Relay(RelaySocketKey::from(key))),
            (_, 2) => Some(EventSource::Stream(StreamId::from(key))),
            _ => None,
        }
    }
}

/// A generation is never 0.
fn keyed(key: KeyData, kind: u64) -> u64 {
    let key = key.as_ffi();
    join(key >> 32, key & 0xFFFF_FFFF, kind)
}

fn join(generation: u64, place: u64, kind: u64) -> u64 {
    debug_assert!(place < 1 << (32 - KIND), "a place has 30 bits; tables are far smaller");
    generation << 32 | place << KIND | kind
}

#[cfg(test)]
mod tests {
    use slotmap::SlotMap;

    use super::*;

    #[test]
    fn it_survives_the_kernel() {
        let mut relays: SlotMap<RelaySocketKey, ()> = SlotMap::with_key();
        let first = relays.insert(());
        relays.remove(first);
        let relay = relays.insert(());
        assert_ne!(first, relay);
        let stream = SlotMap::with_key().insert(());
        let event_source = [
            EventSource::Listener(0),
            EventSource::Listener(77),
            EventSource::Acceptor(0),
            EventSource::Acceptor(77),
            EventSource::WakeTimer,
            EventSource::Waker,
            EventSource::Stream(stream),
            EventSource::Relay(first),
            EventSource::Relay(relay),
        ];
        for (n, one) in event_source.into_iter().enumerate() {
            assert_eq!(EventSource::unpack(one.pack()), Some(one));
            assert!(event_source[..n].iter().all(|other| other.pack() != one.pack()));
        }
        assert_eq!(EventSource::unpack(u64::MAX), None);
    }
}
