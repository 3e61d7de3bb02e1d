//! Packets between receipt and departure: the arena they lie in, how GRO batches are split, and how GSO batches are built.

pub(in crate::datapath) mod arena;
pub(in crate::datapath) mod outbox;
pub(in crate::datapath) mod segmentation;
pub(in crate::datapath) mod split;
