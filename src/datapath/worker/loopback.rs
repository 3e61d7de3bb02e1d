//! Clients at loopback addresses. Their mapped address is one that a browser cannot use, and nothing else would tell the operator.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

use tracing::warn;

use crate::turn::{FiveTuple, Via};

/// Listeners that are told apart at most.
const LISTENERS: usize = 64;

/// Listeners that were warned about, by whether they are for streams and by port. Programs of this machine use the relay by
/// loopback all day, so one line per listener and process has to do.
static WARNED: Mutex<BTreeSet<(bool, u16)>> = Mutex::new(BTreeSet::new());

/// A client has an allocation.
pub(super) fn warn_once(tuple: &FiveTuple) {
    if tuple.via != Via::Direct || !tuple.client.0.ip().is_loopback() {
        return;
    }
    let mut warned = WARNED.lock().unwrap_or_else(PoisonError::into_inner);
    if warned.len() == LISTENERS || !warned.insert((tuple.transport.is_stream(), tuple.server.port())) {
        return;
    }
    let fix = if tuple.transport.is_stream() {
        "nothing if the client is a program on this machine; if it is a proxy that forwards clients to this port, let it send PROXY headers \
         and list its address as proxy_from of a [[listener]] with this port (a header that names no client, LOCAL or UNKNOWN, does not count)"
    } else {
        "nothing if the client is a program on this machine; if it forwards packets of clients to this port, let clients send them here \
         themselves, or let it keep their source address"
    };
    let (client, server, transport) = (tuple.client, tuple.server, tuple.transport.as_str());
    warn!(
        %client,
        %server,
        transport,
        fix,
        "a client at a loopback address has an allocation: browsers do not use it, and Firefox abandons it without an error"
    );
}
