//! The order of TLS handshakes on a thread. Many clients may begin at once, an office whose network is back, and the first answer to
//! each costs about a millisecond. If all of them were answered before the first could complete, every handshake would take as long
//! as all of them together, and each client that gives up on the way would have cost the others its share. So they take turns:
//! one whose client has answered goes on before the next one begins.
//!
//! Waiting for a turn is the relay's time, not the client's: it has a bound of its own, and does not count towards the client's
//! deadline.

use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::task;

/// Handshakes that wait for their turn, in the order in which they came.
pub(super) struct HandshakeQueue(Semaphore);

/// A turn. Dropping it gives it to the next one.
pub(super) struct Turn<'a> {
    _permit: Option<SemaphorePermit<'a>>,
}

impl HandshakeQueue {
    pub(super) fn new() -> HandshakeQueue {
        HandshakeQueue(Semaphore::new(1))
    }

    /// Waits for a turn. Only what takes time on this thread belongs into it, never waiting for a client.
    pub(super) async fn turn(&self) -> Turn<'_> {
        // It is never closed.
        Turn { _permit: self.0.acquire().await.ok() }
    }
}

impl Turn<'_> {
    /// Ends it once the tasks have run whose clients have answered.
    pub(super) async fn end(self) {
        task::yield_now().await;
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::io::Write;
    use std::rc::Rc;

    use tokio::io::AsyncReadExt;
    use tokio::net::{TcpListener, TcpStream};
    use tokio::task::LocalSet;

    use super::*;

    /// Of clients that begin at once, each is done before those behind it have begun, except for the one whose turn it is while it
    /// answers.
    #[tokio::test]
    async fn handshakes_complete_in_turn() {
        const CLIENTS: usize = 50;
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (queue, order) = (Rc::new(HandshakeQueue::new()), Rc::new(RefCell::new(Vec::new())));
        let tasks = LocalSet::new();
        for n in 0..CLIENTS {
            let client =
                TcpStream::connect(listener.local_addr().unwrap()).await.unwrap().into_std().unwrap();
            client.set_nonblocking(false).unwrap();
            let (mut socket, _) = listener.accept().await.unwrap();
            let (queue, order) = (queue.clone(), order.clone());
            tasks.spawn_local(async move {
                let turn = queue.turn().await;
                order.borrow_mut().push((n, "begun"));
                // The client answers at once.
                (&client).write_all(b"x").unwrap();
                turn.end().await;
                socket.read_exact(&mut [0]).await.unwrap();
                order.borrow_mut().push((n, "done"));
            });
        }
        tasks.await;
        let order = order.borrow();
        let at = |event| order.iter().position(|other| *other == event).unwrap();
        for n in 0..CLIENTS - 3 {
            assert!(at((n, "begun")) < at((n + 1, "begun")));
            assert!(at((n, "done")) < at((n + 3, "begun")), "{order:?}");
        }
    }
}
