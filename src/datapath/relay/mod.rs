//! Relay sockets, and the resources that they use: ports, quotas and reservations (RFC 8656 sections 5 and 7.2).
//!
//! Ports, the quota ledger and reservations are shared by all workers, and used on the control path only.

pub(in crate::datapath) mod ports;
pub(in crate::datapath) mod quota;
pub(in crate::datapath) mod reservations;
pub(in crate::datapath) mod socket;
pub(in crate::datapath) mod table;
