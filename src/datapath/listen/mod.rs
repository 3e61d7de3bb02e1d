//! Where clients come in: listener groups, the steering program, accepting and admitting connections, TLS handshakes.

pub(in crate::datapath) mod accept;
pub(in crate::datapath) mod admission;
pub(in crate::datapath) mod entrance;
pub(in crate::datapath) mod group;
pub(in crate::datapath) mod handshake;
pub(in crate::datapath) mod steering;
