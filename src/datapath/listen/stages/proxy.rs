//! The header that a trusted proxy sends before everything else (HAProxy's proxy-protocol.txt). It says who the client is: from here
//! on the connection is the client's, for limits, permissions, logs and responses.
//!
//! From anybody else a header is not read, so that nobody chooses an address.

use super::pending::{Closed, PendingConnection, ReadFailure};
use crate::datapath::stream::stats::ConnectionEnd;
use crate::datapath::sys;
use crate::turn::{ClientAddr, Via};
use crate::wire::{PROXY_HEADER_MAX, ProxyError, ProxyHeader, Sniffed};

/// Whether a connection comes from a proxy whose header is believed.
pub(super) fn is_trusted(pending: &PendingConnection) -> bool {
    // Whoever a header names is no proxy of ours, whatever address that has.
    pending.tuple.via == Via::Direct && pending.service.proxies.contains(pending.tuple.client.0.ip())
}

/// Reads the header of a trusted proxy, if there is one, and admits the client that it names.
pub(super) async fn read_header(pending: &mut PendingConnection) -> Result<(), Closed> {
    if !is_trusted(pending) {
        return Ok(());
    }
    pending.begin(pending.config.limits.handshake_timeout);
    let Some((header, len)) = header(pending).await? else {
        // Nobody but its source is the client, which has no more than others.
        return pending.permit.identify(pending.tuple.client.0.ip()).map_err(Closed::Refused);
    };
    pending.stream.consume(len);
    pending.spoke_for_client();
    let Some((client, _)) = header.addresses else { return Ok(()) };
    let is_proxy = client.ip() == pending.tuple.client.0.ip();
    pending.proxy = Some(pending.tuple.client.0);
    pending.tuple.client = ClientAddr(sys::address::normalize(client));
    pending.tuple.via = Via::Proxy(pending.permit.connection().0);
    // A balancer that names itself in health checks keeps the limit of many clients.
    if is_proxy { Ok(()) } else { pending.permit.identify(client.ip()).map_err(Closed::Refused) }
}

/// Waits for the whole header. `None`: there is none, and none is required.
async fn header(pending: &mut PendingConnection) -> Result<Option<(ProxyHeader, usize)>, Closed> {
    let is_required = pending.service.proxies.required;
    loop {
        match ProxyHeader::read(pending.stream.received()) {
            Ok(Some(header)) => return Ok(Some(header)),
            Ok(None) => {}
            Err(ProxyError::Missing) if !is_required => return Ok(None),
            Err(ProxyError::Missing) => return Err(missing("the connection begins with something else")),
            Err(error) => return Err(invalid(&error.to_string())),
        }
        let has_begun = !pending.stream.received().is_empty();
        match pending.read_more(PROXY_HEADER_MAX).await {
            Ok(()) => {}
            Err(ReadFailure::Gone(_)) if has_begun => {
                return Err(invalid("the connection ended inside of it"));
            }
            Err(ReadFailure::Gone(why)) => return Err(Closed::End(why)),
            Err(ReadFailure::Late) if has_begun => {
                return Err(invalid("it was not complete within limits.handshake_timeout"));
            }
            // A client that says nothing meets the next deadline.
            Err(ReadFailure::Late) if !is_required => return Ok(None),
            Err(ReadFailure::Late) => return Err(missing("nothing came within limits.handshake_timeout")),
            Err(ReadFailure::Full) => return Err(invalid(&ProxyError::TooLong.to_string())),
        }
    }
}

fn missing(why: &str) -> Closed {
    let what = format!("a proxy in proxy_from has sent no PROXY header: {why}");
    let fix = "turn the header on in the proxy (HAProxy: send-proxy, nginx: proxy_protocol on); if others connect from its address, \
               too, set proxy = \"optional\" in the [[listener]]";
    Closed::Because(ConnectionEnd::MissingProxyHeader, what, fix.to_owned())
}

fn invalid(why: &str) -> Closed {
    let what = format!("the PROXY header is not valid: {why}");
    let fix = "the proxy must send a header of version 1 or 2 as HAProxy's proxy-protocol.txt describes it: update the proxy";
    Closed::Because(ConnectionEnd::InvalidProxyHeader, what, fix.to_owned())
}

/// The end of a connection that begins with a header which is not believed.
pub(super) fn untrusted(pending: &PendingConnection, sniffed: Sniffed) -> Option<Closed> {
    let is_untrusted = sniffed == Sniffed::Proxy && pending.tuple.via == Via::Direct && !is_trusted(pending);
    let what = "a PROXY header came from a source that is not trusted, so it is not believed".to_owned();
    let fix = "if it is your proxy, list its address in proxy_from of the [[listener]] with this port, or turn the header off in the \
               proxy (HAProxy: send-proxy, nginx: proxy_protocol)";
    is_untrusted.then(|| Closed::Because(ConnectionEnd::UntrustedProxyHeader, what, fix.to_owned()))
}
