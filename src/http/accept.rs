//! Accepting connections when there may be no file descriptor left for them.
//!
//! accept(2) fails for lack of a descriptor before it looks whether a connection waits. A server that asks once more than there are
//! connections would make room for nobody, and close the connection that it has just accepted.

use std::io;
use std::os::fd::AsFd;
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use tokio::time::sleep;

/// How long a server without descriptors waits before it looks for connections again.
const PAUSE: Duration = Duration::from_millis(20);

/// Waits for a connection and accepts it.
///
/// # Errors
/// The connection has ended already, or there is no descriptor or memory for it, see [`is_exhaustion`].
pub async fn next<L: AsFd, C>(listener: &L, accept: impl AsyncFn(&L) -> io::Result<C>) -> io::Result<C> {
    loop {
        match accept(listener).await {
            Err(error) if is_exhaustion(&error) && !is_waited_for(listener) => sleep(PAUSE).await,
            accepted => return accepted,
        }
    }
}

/// Whether `accept` failed because there is no descriptor or memory left.
pub fn is_exhaustion(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM))
}

/// Whether a connection waits.
fn is_waited_for(listener: &impl AsFd) -> bool {
    let mut listener = [PollFd::new(listener.as_fd(), PollFlags::POLLIN)];
    poll(&mut listener, PollTimeout::ZERO) != Ok(0)
}

#[cfg(test)]
mod tests {
    use tokio::net::{TcpListener, TcpStream};
    use tokio::time::timeout;

    use super::*;

    async fn none_left(_: &TcpListener) -> io::Result<()> {
        Err(io::Error::from_raw_os_error(libc::EMFILE))
    }

    /// While nobody waits, a lack of descriptors is no error; for a connection that waits, it is.
    #[tokio::test]
    async fn a_lack_of_descriptors_matters_to_connections_only() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        assert!(timeout(3 * PAUSE, next(&listener, none_left)).await.is_err(), "nobody waits");
        let _client = TcpStream::connect(address).await.unwrap();
        assert!(is_exhaustion(&next(&listener, none_left).await.unwrap_err()));
        next(&listener, TcpListener::accept).await.unwrap();
        assert!(timeout(3 * PAUSE, next(&listener, none_left)).await.is_err(), "nobody waits any more");
    }
}
