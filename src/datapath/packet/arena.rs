//! The memory that received bytes are in until they are sent: slots of one block, each with room for a whole GRO batch
//! and, before it, for the headers that its segments may get.
//!
//!     slot: | headroom: a header and padding per segment | batch: 64 KiB | tail |
//!
//! Pages that no batch reaches are never touched, so the block costs what is used.

use std::ops::Range;

use crate::turn::Header;

/// Batches that the arena holds at a time.
pub(in crate::datapath) const SLOTS: usize = 64;

/// Segments of a GRO batch at most: Linux joins 64, or 128 from a sender on the same machine.
pub(in crate::datapath) const SEGMENTS: usize = 128;

/// The longest batch.
const BATCH: usize = 1 << 16;

/// A header and padding for each segment of a batch.
const HEADROOM: usize = SEGMENTS * (Header::MAX + 3);

/// Padding after the last segment.
const TAIL: usize = 64;

/// Slots are an odd number of cache lines apart, so that their first lines do not compete for one set of the cache.
const SLOT: usize = HEADROOM + BATCH + TAIL;
const _: () = assert!(SLOT % 128 == 64);

/// There is always room to read more beside an unfinished message.
const _: () = assert!(SLOT > crate::wire::FRAME_MAX);

/// The slots.
pub(in crate::datapath) struct Arena {
    memory: Box<[u8]>,
    used: usize,
}

impl Arena {
    /// All slots are free.
    pub(in crate::datapath) fn new() -> Arena {
        Arena { memory: vec![0; SLOTS * SLOT].into(), used: 0 }
    }

    /// How many slots are free.
    pub(in crate::datapath) fn free(&self) -> usize {
        SLOTS - self.used
    }

    /// The buffers of free slots.
    pub(in crate::datapath) fn buffers(&mut self) -> impl Iterator<Item = &mut [u8]> {
        let slots = self.memory.chunks_exact_mut(SLOT).skip(self.used);
        slots.map(|slot| &mut slot[HEADROOM..HEADROOM + BATCH])
    }

    /// Takes the next slot, into which `len` bytes were received; returns where they are.
    pub(in crate::datapath) fn take(&mut self, len: usize) -> Range<usize> {
        let start = self.used * SLOT + HEADROOM;
        self.used += 1;
        start..start + len
    }

    /// The whole next slot, for bytes of a connection: they need no headroom, but a message may be longer than a datagram.
    ///
    /// # Panics
    /// If no slot is free.
    pub(in crate::datapath) fn whole(&mut self) -> &mut [u8] {
        &mut self.memory[self.used * SLOT..][..SLOT]
    }

    /// Takes the slot that [`Arena::whole`] returned; returns where it starts.
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

/// Where the slot ends that contains `at`.
pub(in crate::datapath) fn slot_end(at: usize) -> usize {
    (at / SLOT + 1) * SLOT
}
