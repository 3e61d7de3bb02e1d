//! Connections that another server gets.

use super::pending::Closed;
use crate::datapath::splice::backend::Backend;
use crate::datapath::stream::stats::ConnectionEnd;

/// The end of a connection for a backend.
pub(super) fn unavailable(backend: &Backend) -> Closed {
    let what = format!("connections are not passed on to {backend}");
    Closed::Because(ConnectionEnd::NotServed, what, "remove the route".to_owned())
}
