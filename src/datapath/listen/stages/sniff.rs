//! What a connection speaks, by its first bytes.

use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::time::{Instant, timeout_at};

use super::pending::{Closed, PendingConnection, ReadFailure};
use crate::datapath::stream::stats::ConnectionEnd;
use crate::wire::{self, ChannelRange, SNIFF_MAX, Sniffed};

/// The most that is read before it is known what a connection speaks. A verdict needs far less; the rest is for whoever serves it.
const FIRST_BYTES: usize = 2048;
const _: () = assert!(SNIFF_MAX < FIRST_BYTES);

/// Reads until it is known what the connection speaks. The bytes stay in front of the stream.
pub(super) async fn sniff(pending: &mut PendingConnection) -> Result<Sniffed, Closed> {
    let channels = pending.config.channels;
    loop {
        if let Some(sniffed) = wire::sniff(pending.stream.received(), channels) {
            return Ok(sniffed);
        }
        match pending.read_more(FIRST_BYTES).await {
            Ok(()) => {}
            Err(ReadFailure::Gone(why)) => return Err(Closed::End(why)),
            Err(ReadFailure::Late) => return Err(Closed::End(ConnectionEnd::NoMessage)),
            Err(ReadFailure::Full) => return Ok(Sniffed::Other),
        }
    }
}

/// The same for what is decrypted, of which it returns what was read. `silence` is the end of a client that sends nothing.
pub(super) async fn sniff_decrypted(
    stream: &mut (impl AsyncRead + Unpin),
    channels: ChannelRange,
    deadline: Instant,
    silence: ConnectionEnd,
) -> Result<(Sniffed, Vec<u8>), ConnectionEnd> {
    let mut received = Vec::new();
    loop {
        let read = async {
            received.reserve_exact(FIRST_BYTES - received.len());
            stream.read_buf(&mut received).await
        };
        match timeout_at(deadline, read).await {
            Ok(Ok(0)) => return Err(ConnectionEnd::Client),
            Ok(Ok(_)) => {}
            Ok(Err(error)) if error.get_ref().is_some_and(|error| error.is::<rustls::Error>()) => {
                return Err(ConnectionEnd::Tls);
            }
            Ok(Err(_)) => return Err(ConnectionEnd::Reset),
            Err(_) if received.is_empty() => return Err(silence),
            Err(_) => return Err(ConnectionEnd::NoMessage),
        }
        if let Some(sniffed) = wire::sniff(&received, channels) {
            return Ok((sniffed, received));
        }
        if received.len() == FIRST_BYTES {
            return Ok((Sniffed::Other, received));
        }
    }
}
