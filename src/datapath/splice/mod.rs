//! Connections that are not for TURN: each goes to a backend, and bytes are copied in both directions until both have ended.
//!
//! They run on a small runtime of the process ([`splicer`]), whose threads yield to the packet workers, and have limits of
//! their own, so that a busy web site locks no TURN client out. A connection ([`connection`]) dials its backend ([`dial`]),
//! sends what was read of the client before, and copies ([`copy`]): between two plain sockets with splice(2) where much moves
//! ([`plain`]), and through rustls where TLS ends here ([`tls`]). Buffers and pipes are bounded ([`pools`]). What becomes of the
//! connections of each backend is counted and remembered ([`backends`], [`stats`]), and told to operators ([`log`]). A backend that
//! leads back to this relay is noticed ([`loops`]).
//!
//! Not here: which connection goes where, which the stages of `listen` decide.

pub(in crate::datapath) mod backend;
mod backends;
mod connection;
mod copy;
mod dial;
mod flow;
pub(in crate::datapath) mod limits;
mod log;
mod loops;
mod plain;
mod pools;
pub(in crate::datapath) mod request;
pub(in crate::datapath) mod splicer;
pub(in crate::datapath) mod stats;
#[cfg(test)]
mod tests;
mod tls;

/// Bytes of one direction of a connection that are buffered here at most; the kernel's buffers come on top.
const BUFFER: usize = 64 << 10;

/// Bytes that the kernel may hold unsent in each direction: more would only wait longer.
const UNSENT: u32 = 128 << 10;
