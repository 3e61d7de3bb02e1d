//! Splits a GRO batch from a client into runs of messages that the core can handle together. The kernel only joins
//! datagrams by size, so a batch may hold different messages.

use crate::wire::{self, ChannelRange};

/// The first run of messages in a batch of segments of `segment_size` bytes: the size of each message, and the length of the
/// run.
///
/// ChannelData segments of the same size, channel and length (RFC 8656 section 12.4) form a run. Any other segment, and a
/// shorter last one, is a run of its own.
pub(in crate::datapath) fn run(batch: &[u8], segment_size: usize) -> (usize, usize) {
    let mut datagrams = batch.chunks(segment_size.max(1));
    let Some(first) = datagrams.next() else { return (0, 0) };
    let Some(header) = first.first_chunk::<{ wire::CHANNEL_HEADER }>() else {
        return (first.len(), first.len());
    };
    // The core checks whether the number may be bound.
    let more = if ChannelRange::Rfc5766.is_channel_data(first) {
        datagrams.take_while(|next| next.len() == first.len() && next.starts_with(header)).count()
    } else {
        0
    };
    (first.len(), first.len() * (1 + more))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn runs_end_where_the_header_or_the_size_changes() {
        let datagram = |header: [u8; 4], len| {
            let mut bytes = header.to_vec();
            bytes.resize(len, 0xAA);
            bytes
        };
        let (a, b) = ([0x40, 1, 0, 6], [0x40, 2, 0, 6]);
        let batch = [datagram(a, 10), datagram(a, 10), datagram(b, 10), datagram(b, 7)].concat();
        assert_eq!(run(&batch, 10), (10, 20));
        assert_eq!(run(&batch[20..], 10), (10, 10));
        assert_eq!(run(&batch[30..], 10), (7, 7));
        let stun = [0x00, 0x16, 0, 6];
        let batch = [datagram(stun, 10), datagram(stun, 10)].concat();
        assert_eq!(run(&batch, 10), (10, 10), "one STUN message at a time");
        assert_eq!(run(&[0x40, 1, 0x40, 1], 2), (2, 2), "too short for a header");
        assert_eq!(run(&[], 1), (0, 0));
    }

    proptest! {
        /// Runs cover any batch without gaps, and each consists of whole datagrams that start with the same bytes.
        #[test]
        fn runs_cover_the_batch(batch in prop::collection::vec(0x3Fu8..0x42, 0..400), segment_size in 1usize..20) {
            let mut rest = &batch[..];
            let mut before = 0;
            while !rest.is_empty() {
                let (size, len) = run(rest, segment_size);
                prop_assert!(size <= segment_size && len > 0 && len % size == 0);
                prop_assert_eq!(before % segment_size, 0, "runs start between datagrams");
                let (this, after) = rest.split_at(len);
                for datagram in this.chunks(size) {
                    prop_assert_eq!(&datagram[..size.min(4)], &this[..size.min(4)]);
                }
                before += len;
                rest = after;
            }
        }
    }
}
