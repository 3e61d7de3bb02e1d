//! The slow plane.

pub mod addresses;
pub mod http;
pub mod ice;
pub mod logging;
pub mod random;
pub mod state;
