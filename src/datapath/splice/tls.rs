//! Moves bytes between a client's TLS session, which ends here, and a plain socket.

use std::io::{self, IoSlice, Read, Write};
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustls::ServerConnection;
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::task::coop::consume_budget;

use super::flow::{Broken, Destination};
use super::plain::would_block;

/// What rustls is given to encrypt at a time: it holds no more than that, encrypted.
const PIECE: usize = 32 << 10;

/// A client's TLS session, past the handshake. Both directions use it, one after the other: they are one task.
pub(super) struct TlsClient {
    session: Mutex<Box<ServerConnection>>,
    /// The session has something to send that is no data, such as a key update.
    flush: Notify,
}

/// How far a client's direction has come.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Progress {
    Open,
    /// The client has sent close_notify.
    Closed,
}

/// Decrypts what the client sends until it has sent close_notify.
pub(super) async fn decrypt(
    client: &TcpStream,
    tls: &TlsClient,
    backend: &Destination<'_>,
) -> Result<(), Broken> {
    // The session may hold bytes that came with the first ones.
    let (plain, progress) = tls.take(&[])?;
    backend.write_all(&plain).await?;
    drop(plain);
    if progress == Progress::Closed {
        return Ok(());
    }
    let mut bulk = false;
    loop {
        client.readable().await.map_err(|_| Broken::Source)?;
        consume_budget().await;
        let mut buffer = backend.flow.pools.buffer(bulk);
        match client.try_read(&mut buffer.bytes) {
            // RFC 8446 §6.1: without close_notify, bytes may be missing.
            Ok(0) => return Err(Broken::Truncated),
            Ok(count) => {
                bulk = count == buffer.bytes.len();
                let taken = tls.take(&buffer.bytes[..count]);
                tls.try_flush(client);
                let (plain, progress) = taken?;
                // The buffer is held until this is written: the bound on buffers bounds decrypted bytes, too, however slow the backend is.
                backend.write_all(&plain).await?;
                if progress == Progress::Closed {
                    return Ok(());
                }
            }
            Err(error) => would_block(&error)?,
        }
    }
}

/// Encrypts what the backend sends until it has closed its direction.
pub(super) async fn encrypt(
    backend: &TcpStream,
    tls: &TlsClient,
    client: &Destination<'_>,
) -> Result<(), Broken> {
    let mut bulk = false;
    loop {
        tokio::select! {
            ready = backend.readable() => ready.map_err(|_| Broken::Source)?,
            () = tls.flush.notified() => {
                tls.flush(client).await?;
                continue;
            }
        }
        consume_budget().await;
        let mut buffer = client.flow.pools.buffer(bulk);
        match backend.try_read(&mut buffer.bytes) {
            Ok(0) => return Ok(()),
            Ok(count) => {
                bulk = count == buffer.bytes.len();
                tls.send(&buffer.bytes[..count], client).await?;
            }
            Err(error) => would_block(&error)?,
        }
    }
}

impl TlsClient {
    /// A session that has been given every byte that was read from its client.
    pub(super) fn new(session: Box<ServerConnection>) -> TlsClient {
        TlsClient { session: Mutex::new(session), flush: Notify::new() }
    }

    /// Gives the session bytes of the client, and takes what they decrypt to. That is no more than the bytes, and one record
    /// that they complete.
    fn take(&self, mut bytes: &[u8]) -> Result<(Vec<u8>, Progress), Broken> {
        let mut session = self.session();
        let mut plain = Vec::new();
        loop {
            let state = session.process_new_packets().map_err(|_| Broken::Tls)?;
            let (start, len) = (plain.len(), state.plaintext_bytes_to_read());
            plain.resize(start + len, 0);
            session.reader().read_exact(&mut plain[start..]).map_err(|_| Broken::Tls)?;
            if state.peer_has_closed() {
                return Ok((plain, Progress::Closed));
            }
            if bytes.is_empty() || session.read_tls(&mut bytes).map_err(|_| Broken::Tls)? == 0 {
                return Ok((plain, Progress::Open));
            }
        }
    }

    /// Encrypts and writes all of it.
    async fn send(&self, bytes: &[u8], client: &Destination<'_>) -> Result<(), Broken> {
        let mut rest = bytes;
        while !rest.is_empty() {
            let piece = &rest[..rest.len().min(PIECE)];
            let count = self.session().writer().write(piece).map_err(|_| client.broken())?;
            rest = &rest[count..];
            self.flush(client).await?;
            client.moved(count);
        }
        Ok(())
    }

    /// Tells the client that nothing follows.
    pub(super) async fn close(&self, client: &Destination<'_>) -> Result<(), Broken> {
        self.session().send_close_notify();
        self.flush(client).await
    }

    /// Writes what the session has to send.
    async fn flush(&self, client: &Destination<'_>) -> Result<(), Broken> {
        let write = || {
            let mut session = self.session();
            while session.wants_write() {
                session.write_tls(&mut Ready(client.socket))?;
            }
            Ok(())
        };
        client.when_writable(write).await
    }

    /// Writes what the session has to send as far as the socket takes it; the direction to the client writes the rest.
    fn try_flush(&self, client: &TcpStream) {
        let mut session = self.session();
        while session.wants_write() {
            if session.write_tls(&mut Ready(client)).is_err() {
                return self.flush.notify_one();
            }
        }
    }

    fn session(&self) -> MutexGuard<'_, Box<ServerConnection>> {
        // The task that panicked was the only one that used it.
        self.session.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Writes what the socket takes now.
struct Ready<'a>(&'a TcpStream);

impl Write for Ready<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.try_write(bytes)
    }

    fn write_vectored(&mut self, bytes: &[IoSlice<'_>]) -> io::Result<usize> {
        self.0.try_write_vectored(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
