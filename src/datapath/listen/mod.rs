//! How clients reach a worker: listener groups and the steering program for datagrams; accepting and the
//! stages before TURN for connections.

pub(in crate::datapath) mod accept;
pub(in crate::datapath) mod group;
pub(in crate::datapath) mod service;
pub(in crate::datapath) mod stages;
pub(in crate::datapath) mod steering;
