//! Where received bytes lie until they are sent: slots in one block of memory, each with room for a whole GRO batch and,
//! before it, for the headers that its datagrams may get.
//!
//! Pages that no batch reaches are never touched, so the block costs what is used.

use std::ops::Range;

use crate::turn::Header;

/// Batches that can lie here at a time.
pub(in crate::datapath) const SLOTS: usize = 64;

/// Datagrams in a batch at most: what Linux joins is 64, or 128 from a sender on the same machine.
pub(in crate::datapath) const JOINED: usize = 128;

/// The longest batch.
const BATCH: usize = 1 << 16;

/// A header and padding for each of a batch's datagrams.
const HEADROOM: usize = JOINED * (Header::MAX + 3);

/// Zero bytes after the last datagram.
const TAIL: usize = 64;

/// Slots are an odd number of cache lines apart, so that their first lines do not compete for one place in the cache.
const SLOT: usize = HEADROOM + BATCH + TAIL;
const _: () = assert!(SLOT % 128 == 64);

/// Beside an unfinished message there is always room to read more.
const _: () = assert!(SLOT > crate::wire::FRAME_MAX);

/// The block.
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

    /// All of the next slot, for bytes of a stream: they need no headroom, but a message may be longer than a datagram.
    ///
    /// # Panics
    /// If no slot is free.
    pub(in crate::datapath) fn whole(&mut self) -> &mut [u8] {
        &mut self.memory[self.used * SLOT..][..SLOT]
    }

    /// Takes the slot that [`Arena::whole`] gave; returns where it begins.
    pub(in crate::datapath) fn take_whole(&mut self) -> usize {
        self.used += 1;
        (self.used - 1) * SLOT
    }

    /// Frees all slots.
    pub(in crate::datapath) fn clear(&mut self) {
        self.used = 0;
    }

    /// All of the block.
    pub(in crate::datapath) fn memory(&mut self) -> &mut [u8] {
        &mut self.memory
    }
}

/// Where the slot that `at` lies in ends.
pub(in crate::datapath) fn slot_end(at: usize) -> usize {
    (at / SLOT + 1) * SLOT
}
