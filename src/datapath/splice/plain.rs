//! Moves bytes from one socket to another as they are: with splice(2) while there is much, so that they stay in the kernel, and
//! through a small buffer otherwise.

use std::io;
use std::ops::ControlFlow;

use nix::fcntl::{SpliceFFlags, splice};
use tokio::io::Interest;
use tokio::net::TcpStream;
use tokio::task::coop::consume_budget;

use super::BUFFER;
use super::flow::{Broken, Destination};
use super::pools::PipeLease;

/// Moves bytes until the source has closed its direction.
pub(super) async fn pump(source: &TcpStream, destination: &Destination<'_>) -> Result<(), Broken> {
    let mut bulk = false;
    loop {
        source.readable().await.map_err(|_| Broken::Source)?;
        consume_budget().await;
        if bulk && let Some(pipe) = destination.flow.pools.pipe() {
            if through(pipe, source, destination).await?.is_break() {
                return Ok(());
            }
            bulk = false;
            continue;
        }
        let mut buffer = destination.flow.pools.buffer(bulk);
        match source.try_read(&mut buffer.bytes) {
            Ok(0) => return Ok(()),
            Ok(count) => {
                destination.write_all(&buffer.bytes[..count]).await?;
                bulk = count == buffer.bytes.len();
            }
            Err(error) => would_block(&error)?,
        }
    }
}

/// Moves bytes through a pipe until none are left for now.
async fn through(
    mut pipe: PipeLease<'_>,
    source: &TcpStream,
    destination: &Destination<'_>,
) -> Result<ControlFlow<()>, Broken> {
    let flags = SpliceFFlags::SPLICE_F_NONBLOCK | SpliceFFlags::SPLICE_F_MOVE;
    let to = destination.socket;
    loop {
        // It is empty, so it is the socket that has nothing if this would block.
        let fill = || Ok(splice(source, None, &pipe.pipe().write, None, BUFFER, flags)?);
        let count = match source.try_io(Interest::READABLE, fill) {
            Ok(0) => return Ok(ControlFlow::Break(())),
            Ok(count) => count,
            Err(error) if is_unsupported(&error) => {
                destination.flow.pools.never_splice();
                return Ok(ControlFlow::Continue(()));
            }
            Err(error) => {
                would_block(&error)?;
                return Ok(ControlFlow::Continue(()));
            }
        };
        pipe.filled = count;
        while pipe.filled > 0 {
            let drain = || Ok(splice(&pipe.pipe().read, None, to, None, pipe.filled, flags)?);
            let count = destination.when_writable(|| to.try_io(Interest::WRITABLE, drain)).await?;
            pipe.filled = pipe.filled.saturating_sub(count);
            destination.moved(count);
        }
        consume_budget().await;
    }
}

/// Nothing for an error that says that there is nothing to read.
pub(super) fn would_block(error: &io::Error) -> Result<(), Broken> {
    match error.kind() {
        io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted => Ok(()),
        _ => Err(Broken::Source),
    }
}

/// EPERM is what a filter of system calls answers.
fn is_unsupported(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EINVAL | libc::ENOSYS | libc::EOPNOTSUPP | libc::EPERM))
}
