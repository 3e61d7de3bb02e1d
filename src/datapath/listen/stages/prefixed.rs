//! A socket together with what was read from it before it was known who reads next.

use std::io;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::task::{Context, Poll};

use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// What is read at a time while it is not known what the connection speaks.
const READ: usize = 2048;

/// The most that [`Prefixed::discard`] reads.
const DISCARDED: usize = 64 << 10;

/// A socket whose first bytes have been read already: a reader gets these first. Writing goes to the socket.
pub(super) struct Prefixed {
    socket: TcpStream,
    /// Read and not consumed yet.
    received: Vec<u8>,
}

impl Prefixed {
    /// Nothing has been read from `socket`.
    pub(super) fn new(socket: TcpStream) -> Prefixed {
        Prefixed { socket, received: Vec::new() }
    }

    /// What was read and is not consumed.
    pub(super) fn received(&self) -> &[u8] {
        &self.received
    }

    /// Takes all of it, for a reader that goes on with the socket.
    pub(super) fn take_received(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.received)
    }

    /// Takes the first `count` bytes away.
    pub(super) fn consume(&mut self, count: usize) {
        self.received.drain(..count);
        if self.received.is_empty() {
            // A connection that waits for more holds no buffer.
            self.received = Vec::new();
        }
    }

    /// Waits until more has arrived and adds it, so that at most `limit` bytes are held; 0 if the client has closed its side.
    /// A connection that is silent holds no memory for this: the buffer is allocated once there is something to read.
    pub(super) async fn read_more(&mut self, limit: usize) -> io::Result<usize> {
        let before = self.received.len();
        let room = READ.min(limit.saturating_sub(before));
        if room == 0 {
            return Err(io::ErrorKind::OutOfMemory.into());
        }
        loop {
            self.socket.readable().await?;
            self.received.resize(before + room, 0);
            let read = self.socket.try_read(&mut self.received[before..]);
            self.received.truncate(before + read.as_ref().map_or(0, |count| *count));
            match read {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                read => return read,
            }
        }
    }

    /// Writes what the socket takes at once.
    pub(super) fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        self.socket.try_write(bytes)
    }

    /// Whether the client has closed or reset the connection, and nothing is left to read.
    pub(super) fn has_ended(&self) -> bool {
        match SockRef::from(&self.socket).peek(&mut [MaybeUninit::uninit()]) {
            Ok(count) => count == 0,
            Err(error) => error.kind() != io::ErrorKind::WouldBlock,
        }
    }

    /// Reads off what the client has sent so far: a socket that is closed with unread bytes is reset, which looks like a failure
    /// of the network to the client.
    pub(super) fn discard(&self) {
        let mut bytes = [0; READ];
        for _ in 0..DISCARDED / READ {
            if !matches!(self.socket.try_read(&mut bytes), Ok(READ)) {
                return;
            }
        }
    }

    /// The socket, no longer of this thread's runtime.
    pub(super) fn into_std(self) -> io::Result<std::net::TcpStream> {
        self.socket.into_std()
    }
}

impl AsyncRead for Prefixed {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.received.is_empty() {
            return Pin::new(&mut self.socket).poll_read(context, buffer);
        }
        let count = self.received.len().min(buffer.remaining());
        buffer.put_slice(&self.received[..count]);
        self.consume(count);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Prefixed {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.socket).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    async fn pair() -> (TcpStream, Prefixed) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        (client, Prefixed::new(listener.accept().await.unwrap().0))
    }

    /// What was read first is read again, before what the socket has.
    #[tokio::test]
    async fn a_reader_gets_every_byte_once_and_in_order() {
        let (mut client, mut stream) = pair().await;
        client.write_all(b"PROXY header, hello").await.unwrap();
        while stream.received().len() < 19 {
            stream.read_more(100).await.unwrap();
        }
        stream.consume(14);
        client.write_all(b" world").await.unwrap();
        client.shutdown().await.unwrap();
        let (mut byte, mut rest) = ([0], Vec::new());
        stream.read_exact(&mut byte).await.unwrap();
        stream.read_to_end(&mut rest).await.unwrap();
        assert_eq!((&byte, &rest[..]), (b"h", &b"ello world"[..]));
    }

    /// Bytes that wait are still to be read; the end of the connection is seen behind them.
    #[tokio::test]
    async fn the_end_is_seen_without_reading() {
        let (mut client, mut stream) = pair().await;
        assert!(!stream.has_ended());
        client.write_all(b"x").await.unwrap();
        drop(client);
        assert_eq!(stream.read_more(100).await.unwrap(), 1);
        stream.socket.readable().await.unwrap();
        assert!(stream.has_ended());
    }

    /// However much has arrived, no more than the limit is held; a reader at the limit is told instead of waiting.
    #[tokio::test]
    async fn what_is_held_is_bounded() {
        let (mut client, mut stream) = pair().await;
        client.write_all(&[7; 9000]).await.unwrap();
        while stream.received().len() < 5000 {
            stream.read_more(5000).await.unwrap();
        }
        assert_eq!(stream.received().len(), 5000);
        assert!(stream.read_more(5000).await.is_err());
        assert!(stream.received.capacity() <= 4 * READ);
        stream.consume(5000);
        assert_eq!(stream.received.capacity(), 0, "a connection that waits holds no buffer");
    }
}
