//! The ClientHello, which is put together before anything is decided about a TLS connection.

use super::pending::{Closed, PendingConnection, ReadFailure};
use crate::datapath::stream::stats::{ConnectionEnd, HandshakeFailure};
use crate::tls::client_hello::CLIENT_HELLO_MAX;
use crate::tls::{ClientHello, HelloError, HelloReader};

/// Reads until the ClientHello is complete, in however many segments and records it comes. It stays in front of the stream.
pub(super) async fn client_hello(pending: &mut PendingConnection) -> Result<ClientHello, Closed> {
    let mut reader = HelloReader::default();
    loop {
        match reader.read(pending.stream.received()) {
            Ok(Some(hello)) => return Ok(hello),
            Ok(None) => {}
            Err(error) => {
                // Its buffer has room for so little; a client that has left needs no alert.
                let _ = pending.stream.try_write(&error.alert());
                return Err(match error {
                    HelloError::TooLarge => Closed::End(ConnectionEnd::ClientHelloTooLarge),
                    _ => failed(HandshakeFailure::NotTls, &error.to_string()),
                });
            }
        }
        pending.read_more(CLIENT_HELLO_MAX).await.map_err(|failure| match failure {
            ReadFailure::Gone(_) => {
                failed(HandshakeFailure::Gone, "the client closed the connection within its ClientHello")
            }
            ReadFailure::Late => {
                failed(HandshakeFailure::TooSlow, "the ClientHello was not complete in time")
            }
            ReadFailure::Full => Closed::End(ConnectionEnd::ClientHelloTooLarge),
        })?;
    }
}

fn failed(why: HandshakeFailure, error: &str) -> Closed {
    Closed::Handshake(why, error.to_owned())
}
