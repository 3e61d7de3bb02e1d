//! The memory that holds received bytes until they are sent: one block of slots, each with room for a whole GRO batch and,
//! before it, for the headers that are added to its segments.
//!
//! ```text
//! slot: | headroom: a header and padding per segment | batch: 64 KiB | tail |
//! ```
//!
//! Pages that no batch reaches are never touched, so only those in use consume memory.

use std::ops::Range;

use crate::turn::Header;

/// The number of slots.
pub(in crate::datapath) const SLOTS: usize = 64;

/// The maximum number of segments in a GRO batch: 64 on Linux, or 128 from a sender on the same machine.
pub(in crate::datapath) const SEGMENTS: usize = 128;

/// The maximum length of a batch.
const BATCH: usize = 1 << 16;

/// A header and padding for each segment of a batch.
const HEADROOM: usize = SEGMENTS * (Header::MAX + 3);

/// Padding after the last segment.
const TAIL: usize = 64;

/// The stride is an odd number of cache lines, so that the starts of the slots do not all map to the same cache set.
const SLOT: usize = HEADROOM + BATCH + TAIL;
const _: () = assert!(SLOT % 128 == 64);

// A slot always has room to read more after an unfinished message.
const _: () = assert!(SLOT > crate::wire::FRAME_MAX);

/// A block of slots, which are taken in order and freed together.
pub(in crate::datapath) struct Arena {
    memory: Box<[u8]>,
    used: usize,
}

impl Arena {
    /// An arena whose slots are all free.
    pub(in crate::datapath) fn new() -> Arena {
        Arena { memory: vec![0; SLOTS * SLOT].into(), used: 0 }
    }

    /// The number of free slots.
    pub(in crate::datapath) fn free(&self) -> usize {
        SLOTS - self.used
    }

    /// The buffers of free slots.
    pub(in crate::datapath) fn buffers(&mut self) -> impl Iterator<Item = &mut [u8]> {
        let slots = self.memory.chunks_exact_mut(SLOT).skip(self.used);
        slots.map(|slot| &mut slot[HEADROOM..HEADROOM + BATCH])
    }

    /// Takes the next slot, which has received `len` bytes; returns their range.
    pub(in crate::datapath) fn take(&mut self, len: usize) -> Range<usize> {
        let start = self.used * SLOT + HEADROOM;
        self.used += 1;
        start..start + len
    }

    /// The next slot with its headroom, for bytes of a connection: a message in a stream may be longer than a datagram.
    ///
    /// # Panics
    /// If no slot is free.
    pub(in crate::datapath) fn whole(&mut self) -> &mut [u8] {
        &mut self.memory[self.used * SLOT..][..SLOT]
    }

    /// Takes the slot that [`Arena::whole`] returned; returns its start.
    pub(in crate::datapath) fn take_whole(&mut self) -> usize {
        self.used += 1;
        (self.used - 1) * SLOT
    }

    /// Frees all slots.
    pub(in crate::datapath) fn clear(&mut self) {
        self.used = 0;
    }

    /// The whole block.
    pub(in crate::datapath) fn memory(&mut self) -> &mut [u8] {
        &mut self.memory
    }
}

/// The end of the slot that contains `at`.
pub(in crate::datapath) fn slot_end(at: usize) -> usize {
    (at / SLOT + 1) * SLOT
}
