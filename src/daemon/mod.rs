//! The slow plane.

pub mod addresses;
pub mod ice;
pub mod random;
pub mod state;
