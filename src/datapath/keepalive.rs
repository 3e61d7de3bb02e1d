//! How the kernel finds out that the other end of a silent connection is gone.

use std::io;
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};

/// After this much silence the kernel probes whether a connection is alive, and again every [`INTERVAL`].
pub(in crate::datapath) const AFTER: Duration = Duration::from_secs(60);

/// See [`AFTER`].
const INTERVAL: Duration = Duration::from_secs(15);

/// Unanswered probes after which a connection has ended.
const RETRIES: u32 = 4;

/// Makes the kernel probe this connection, or those that a listener accepts.
pub(in crate::datapath) fn enable(socket: &SockRef<'_>) -> io::Result<()> {
    let keepalive = TcpKeepalive::new().with_time(AFTER).with_interval(INTERVAL).with_retries(RETRIES);
    socket.set_tcp_keepalive(&keepalive)
}
