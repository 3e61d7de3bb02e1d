//! What a connection speaks, by its first bytes.

use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::time::{Instant, timeout_at};

use super::pending::{PendingConnection, ReadFailure};
use crate::datapath::stream::stats::ConnectionEnd;
use crate::wire::{self, ChannelRange, SNIFF_MAX, Sniffed};

/// The most that is read before it is known what a connection speaks. A verdict needs far less; the rest is for whoever serves it.
const FIRST_BYTES: usize = 2048;
const _: () = assert!(SNIFF_MAX < FIRST_BYTES);

/// Reads until it is known what the connection speaks. The bytes stay in front of the stream.
pub(super) async fn sniff(pending: &mut PendingConnection) -> Result<Sniffed, ReadFailure> {
    let channels = pending.config.channels;
    loop {
        if let Some(sniffed) = wire::sniff(pending.stream.received(), channels) {
            return Ok(sniffed);
        }
        pending.read_more(FIRST_BYTES).await?;
    }
}

/// The same for what is decrypted, of which it returns what was read.
pub(super) async fn sniff_decrypted(
    stream: &mut (impl AsyncRead + Unpin),
    channels: ChannelRange,
    deadline: Instant,
) -> Result<(Sniffed, Vec<u8>), ReadFailure> {
    let mut received = Vec::new();
    loop {
        let read = async {
            received.reserve_exact(FIRST_BYTES - received.len());
            stream.read_buf(&mut received).await
        };
        match timeout_at(deadline, read).await {
            Ok(Ok(0)) => return Err(ReadFailure::Gone(ConnectionEnd::Client)),
            Ok(Ok(_)) => {}
            Ok(Err(error)) if error.get_ref().is_some_and(|error| error.is::<rustls::Error>()) => {
                return Err(ReadFailure::Gone(ConnectionEnd::Tls));
            }
            Ok(Err(_)) => return Err(ReadFailure::Gone(ConnectionEnd::Reset)),
            Err(_) => return Err(ReadFailure::Late),
        }
        if let Some(sniffed) = wire::sniff(&received, channels) {
            return Ok((sniffed, received));
        }
        if received.len() == FIRST_BYTES {
            return Err(ReadFailure::Full);
        }
    }
}
