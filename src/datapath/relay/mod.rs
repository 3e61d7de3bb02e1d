//! Relay sockets and what they cost: ports, quota, reservations (RFC 8656 sections 5 and 7.2).
//!
//! All workers share the ports, the quota ledger and the reservations. They are used on the control path only.

pub(in crate::datapath) mod ports;
pub(in crate::datapath) mod quota;
pub(in crate::datapath) mod reservations;
pub(in crate::datapath) mod socket;
pub(in crate::datapath) mod table;
