//! Connections that are passed on to a backend, byte by byte.

pub mod limits;
