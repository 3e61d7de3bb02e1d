//! TLS: the ClientHello, the choice of what happens to the connection, the handshake, and the first decrypted bytes.

use std::time::Duration;

use rustls::ServerConnection;
use rustls::server::Acceptor;
use tokio::time::{Instant, timeout_at};
use tokio_rustls::server::TlsStream;
use tokio_rustls::{LazyConfigAcceptor, StartHandshake};

use super::client_hello::client_hello;
use super::context::StageContext;
use super::handshake_queue::Turn;
use super::not_served::not_served_inside;
use super::pending::{Closed, Passed, PendingConnection, Served};
use super::prefixed::Prefixed;
use super::route::{Decision, Inside, route};
use super::sniff::sniff_decrypted;
use crate::datapath::clock;
use crate::datapath::stream::incoming::OpenConnection;
use crate::datapath::stream::stats::{ConnectionEnd, HANDSHAKES, HandshakeFailure};
use crate::tls::{ClientHello, HelloRefusal, Identities};
use crate::turn::Transport;
use crate::wire::Sniffed;

/// Passes a TLS connection on, or completes its handshake and looks at what is inside.
pub(super) async fn tls<S>(
    context: &StageContext<S>,
    pending: &mut PendingConnection,
) -> Result<Passed, Closed> {
    // It is not an open connection over TLS before its handshake is complete.
    pending.open = None;
    pending.begin(pending.config.limits.handshake_timeout);
    let hello = client_hello(pending).await?;
    let config = pending.config.clone();
    let identities = config.identities.as_ref();
    let name = hello.server_name.as_deref();
    match (route(&pending.service, name, identities), identities) {
        (Decision::Pass(backend), _) => Ok(Passed {
            tls: None,
            opened: clock::mono(),
            received: pending.stream.take_received(),
            served: Served::Backend(backend),
        }),
        (Decision::Terminate(inside), Some(identities)) => {
            terminate(context, pending, identities, (&hello, &inside)).await
        }
        (Decision::Refused, _) => {
            let asked = match name {
                Some(name) => format!("the client asked for {name}, which has no route"),
                None => "the client asked for no name".to_owned(),
            };
            let error = format!("{asked}, and there is neither a certificate nor a default_backend");
            Err(Closed::Handshake(HandshakeFailure::UnknownName, error))
        }
        (Decision::Terminate(_), None) => {
            let error = "there is no certificate that can be used".to_owned();
            Err(Closed::Handshake(HandshakeFailure::Other, error))
        }
    }
}

/// Completes the handshake. The first decrypted bytes decide who serves the connection, whatever protocol ALPN chose.
async fn terminate<S>(
    context: &StageContext<S>,
    pending: &mut PendingConnection,
    identities: &Identities,
    (hello, inside): (&ClientHello, &Inside),
) -> Result<Passed, Closed> {
    hello.check_version().map_err(|refusal| refused(refusal, hello, &pending.stream))?;
    let late = || Closed::Handshake(HandshakeFailure::TooSlow, "the handshake timed out".to_owned());
    // Reading it again costs little, and waits for nothing, so it needs no turn.
    let accepting = LazyConfigAcceptor::new(Acceptor::default(), &mut pending.stream);
    let accepted = timeout_at(pending.deadline, accepting).await.map_err(|_| late())?;
    let accepted = accepted.map_err(|error| Closed::handshake(&error))?;
    let began = Instant::now();
    let turn_by = began + pending.config.limits.handshake_timeout;
    let turn = timeout_at(turn_by, context.handshakes.turn()).await;
    let turn = turn.map_err(|_| {
        let error = "the relay did not come to the handshake in time: too many others came before it";
        Closed::Handshake(HandshakeFailure::TooSlow, error.to_owned())
    })?;
    pending.deadline += began.elapsed();
    if accepted.io.has_ended() {
        let error = "the client closed the connection before the relay came to its handshake".to_owned();
        return Err(Closed::Handshake(HandshakeFailure::Gone, error));
    }
    let handshake = handshake(accepted, turn, identities, (hello, inside));
    let mut stream = timeout_at(pending.deadline, handshake).await.unwrap_or_else(|_| Err(late()))?;
    let opened = clock::mono();
    let took = Duration::from_nanos(opened.saturating_sub(pending.accepted));
    context.counters().handshakes.observe(&HANDSHAKES, took);
    pending.open = Some(OpenConnection::new(context.counters.clone(), Transport::Tls));
    let deadline = Instant::now() + pending.config.limits.first_message_timeout;
    let silence = if inside.has_route() { ConnectionEnd::NoRequest } else { ConnectionEnd::NoMessage };
    let sniffed = sniff_decrypted(&mut stream, pending.config.channels, deadline, silence).await;
    let (_, mut session) = stream.into_inner();
    match decide(sniffed, pending, (hello, inside)) {
        Ok((served, received)) => Ok(Passed { tls: Some(Box::new(session)), opened, received, served }),
        Err(closed) => {
            close_notify(&mut session, &pending.stream);
            Err(closed)
        }
    }
}

/// Who serves a connection by its first decrypted bytes.
fn decide(
    sniffed: Result<(Sniffed, Vec<u8>), ConnectionEnd>,
    pending: &PendingConnection,
    (hello, inside): (&ClientHello, &Inside),
) -> Result<(Served, Vec<u8>), Closed> {
    let (sniffed, received) = sniffed.map_err(Closed::End)?;
    // The client's last message of the handshake is an answer to what it was sent, so what was read before that is consumed.
    if !pending.stream.received().is_empty() {
        return Err(Closed::End(ConnectionEnd::Tls));
    }
    let backend = match sniffed {
        Sniffed::Http => inside.http.clone(),
        Sniffed::Http2 => inside.h2c.clone(),
        Sniffed::Turn | Sniffed::Tls | Sniffed::Proxy | Sniffed::Other => None,
    };
    match backend {
        Some(backend) => Ok((Served::Backend(backend), received)),
        None if sniffed == Sniffed::Turn => Ok((Served::Turn, received)),
        None => {
            let name = hello.server_name.as_deref();
            Err(not_served_inside(sniffed, pending.tuple.server, name, inside.has_route()))
        }
    }
}

/// Tells the client that this is the end, and nothing was cut off (RFC 8446 section 6.1). It is no answer of what runs inside.
fn close_notify(session: &mut ServerConnection, stream: &Prefixed) {
    session.send_close_notify();
    let mut records = Vec::new();
    while session.wants_write() && session.write_tls(&mut records).is_ok() {}
    // A client that does not read, or has left, needs none.
    let _ = stream.try_write(&records);
}

async fn handshake<'a>(
    accepted: StartHandshake<&'a mut Prefixed>,
    turn: Turn<'_>,
    identities: &Identities,
    (routed, inside): (&ClientHello, &Inside),
) -> Result<TlsStream<&'a mut Prefixed>, Closed> {
    if !routed.agrees(&accepted.client_hello()) {
        let error = "the name in the ClientHello is ambiguous".to_owned();
        return Err(Closed::Handshake(HandshakeFailure::NotTls, error));
    }
    let config = match identities.choose(&accepted.client_hello(), inside.protocols()) {
        Ok(config) => config,
        Err(refusal) => return Err(refused(refusal, routed, accepted.io)),
    };
    // The key exchange and the signature are done here; the answer leaves with the first poll.
    let answered = accepted.into_stream(config);
    let (stream, ()) = tokio::join!(answered, turn.end());
    stream.map_err(|error| Closed::handshake(&error))
}

/// Tells a client that is refused.
fn refused(refusal: HelloRefusal, hello: &ClientHello, stream: &Prefixed) -> Closed {
    // Its buffer has room for so little; a client that has left needs no alert.
    let _ = stream.try_write(&refusal.alert());
    match refusal {
        HelloRefusal::UnknownName => {
            let name = hello.server_name.as_deref().unwrap_or_default();
            let error = format!("the client asked for {name}, which no certificate is for");
            Closed::Handshake(HandshakeFailure::UnknownName, error)
        }
        HelloRefusal::OldVersion(_) => {
            Closed::Handshake(HandshakeFailure::NothingInCommon, refusal.to_string())
        }
        HelloRefusal::OnlyAcme => Closed::Handshake(HandshakeFailure::OnlyAcme, refusal.to_string()),
    }
}
