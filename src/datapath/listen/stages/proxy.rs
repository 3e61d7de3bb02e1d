//! The header that a trusted proxy sends before everything else (HAProxy's proxy-protocol.txt).

use super::pending::{Closed, PendingConnection};
use crate::datapath::stream::stats::ConnectionEnd;
use crate::wire::Sniffed;

/// Whether a connection comes from a proxy whose header is believed.
pub(super) fn is_trusted(pending: &PendingConnection) -> bool {
    pending.service.proxies.contains(pending.tuple.client.0.ip())
}

/// Reads the header of a trusted proxy, if there is one.
pub(super) async fn read_header(pending: &mut PendingConnection) -> Result<(), Closed> {
    if !is_trusted(pending) {
        return Ok(());
    }
    pending.begin(pending.config.limits.handshake_timeout);
    Ok(())
}

/// The end of a connection that begins with a header which is not believed.
pub(super) fn untrusted(pending: &PendingConnection, sniffed: Sniffed) -> Option<Closed> {
    let what = "a PROXY header came from a source that is not trusted, so it is not believed".to_owned();
    let fix = "list the proxy in proxy_from of a [[listener]], or turn the header off in the proxy (HAProxy: send-proxy, nginx: \
               proxy_protocol)";
    let is_untrusted = sniffed == Sniffed::Proxy && !is_trusted(pending);
    is_untrusted.then(|| Closed::Because(ConnectionEnd::UntrustedProxyHeader, what, fix.to_owned()))
}
