//! What the TCP listeners of the slow plane speak: HTTP, or HTTPS with the certificates of `[tls]`.

use std::io;
use std::time::Duration;

use rustls::server::Acceptor;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::LazyConfigAcceptor;
use tokio_rustls::server::TlsStream;

use crate::tls::{Identities, Protocols};

/// What listeners speak.
#[derive(Clone, Default)]
pub enum Security {
    /// HTTP.
    #[default]
    Plain,
    /// HTTPS. `None` while no certificate can be used: then nobody is served, because tokens must not be read on the way.
    Tls(Option<Identities>),
}

impl Security {
    /// That of a section with a key `tls`.
    pub fn of(tls: bool, identities: Option<Identities>) -> Security {
        match tls {
            true => Security::Tls(identities),
            false => Security::Plain,
        }
    }

    /// Whether nobody can be served.
    pub fn is_closed(&self) -> bool {
        matches!(self, Security::Tls(None))
    }
}

/// A handshake that must not take longer than `time`.
///
/// # Errors
/// As [`handshake`], or it took too long.
pub async fn handshake_within(
    time: Duration,
    stream: TcpStream,
    identities: &Identities,
) -> io::Result<TlsStream<TcpStream>> {
    timeout(time, handshake(stream, identities)).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

/// The handshake of a TLS server with these certificates.
///
/// # Errors
/// The connection has failed, or the client is refused, as one that asks for a name that no certificate is for.
pub async fn handshake(stream: TcpStream, identities: &Identities) -> io::Result<TlsStream<TcpStream>> {
    let start = LazyConfigAcceptor::new(Acceptor::default(), stream).await?;
    let config = identities.choose(&start.client_hello(), Protocols { http: true, h2: false });
    let config = config.map_err(io::Error::other)?;
    start.into_stream(config).await
}
