//! A bounded set of HTTP connections, each a task. One that finds no place takes that of the oldest one that has not sent its
//! request, so that silent connections hold up nobody. Whether it may take that of a request in progress depends on what is
//! served.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;

/// The most bytes of a request's head, and of what is read of its body at once.
const HEAD: usize = 32 << 10;

/// The open connections.
pub struct Connections {
    /// One permit per place.
    places: Arc<Semaphore>,
    full: WhenFull,
    /// The oldest one first.
    open: Mutex<VecDeque<Connection>>,
}

/// What happens if every connection has sent its request and another one comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WhenFull {
    /// The oldest one is closed.
    Close,
    /// The new one waits until a response is complete: a change that has begun must be answered.
    Wait,
}

/// Notes that a connection has sent its request.
#[derive(Clone)]
pub struct Asked(Arc<AtomicBool>);

struct Connection {
    task: JoinHandle<()>,
    asked: Asked,
}

impl Asked {
    /// The request has arrived.
    pub fn note(&self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl Connections {
    /// No connection yet, and `most` at a time.
    pub fn new(most: usize, full: WhenFull) -> Connections {
        Connections { places: Arc::new(Semaphore::new(most)), full, open: Mutex::default() }
    }

    /// Starts to serve a connection, if need be in the place of another, or after it.
    pub async fn start<F>(&self, serve: impl FnOnce(Asked) -> F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        if self.places.available_permits() == 0 {
            self.close_oldest().await;
        }
        // The semaphore is never closed.
        let Ok(place) = self.places.clone().acquire_owned().await else { return };
        let asked = Asked(Arc::new(AtomicBool::new(false)));
        let served = serve(asked.clone());
        let task = tokio::spawn(async move {
            served.await;
            drop(place);
        });
        let mut open = self.open();
        open.retain(|connection| !connection.task.is_finished());
        open.push_back(Connection { task, asked });
    }

    /// Closes the oldest connection that has not sent its request, otherwise the oldest one if requests may be given up. Returns
    /// whether there was one.
    pub async fn close_oldest(&self) -> bool {
        let oldest = {
            let mut open = self.open();
            open.retain(|connection| !connection.task.is_finished());
            match (open.iter().position(|one| !one.asked.0.load(Ordering::Relaxed)), self.full) {
                (Some(silent), _) => open.remove(silent),
                (None, WhenFull::Close) => open.pop_front(),
                (None, WhenFull::Wait) => None,
            }
        };
        let Some(Connection { task, .. }) = oldest else { return false };
        task.abort();
        // Its descriptor is closed once the task has ended.
        let _ = task.await;
        true
    }

    /// How many there are, with those that have just ended.
    #[cfg(test)]
    pub fn count(&self) -> usize {
        self.open().len()
    }

    fn open(&self) -> MutexGuard<'_, VecDeque<Connection>> {
        // Every change is a single call, so a panic cannot leave an inconsistent state.
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Serves one request of a connection and closes it. The head of the request must arrive within `time`.
///
/// # Errors
/// The connection has failed.
pub async fn serve_request<R: Future<Output = Response<String>>>(
    stream: impl AsyncRead + AsyncWrite + Unpin + 'static,
    asked: Asked,
    time: Duration,
    respond: impl Fn(Request<Incoming>) -> R,
) -> hyper::Result<()> {
    let service = service_fn(|request| {
        asked.note();
        let response = respond(request);
        async { Ok::<_, Infallible>(response.await) }
    });
    http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(time)
        .max_buf_size(HEAD)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), service)
        .await
}

impl Drop for Connections {
    fn drop(&mut self) {
        self.open().iter().for_each(|connection| connection.task.abort());
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::oneshot;
    use tokio::time::timeout;

    use super::*;

    const MOMENT: Duration = Duration::from_secs(1);

    /// A request that takes effect must be answered: a new connection waits for it, but not for one that is silent.
    #[tokio::test(start_paused = true)]
    async fn a_request_in_progress_is_not_given_up() {
        let connections = Connections::new(2, WhenFull::Wait);
        let (answer, answered) = oneshot::channel::<()>();
        let (report, reported) = oneshot::channel();
        connections
            .start(|asked| {
                asked.note();
                async move {
                    let _ = report.send(answered.await);
                }
            })
            .await;
        let silent = |_| std::future::pending();
        connections.start(silent).await;
        let asks = |asked: Asked| {
            asked.note();
            std::future::pending()
        };
        timeout(MOMENT, connections.start(asks)).await.expect("it takes the place of the silent one");
        assert!(timeout(MOMENT, connections.start(silent)).await.is_err(), "it waits");
        assert!(!connections.close_oldest().await, "not even if there are no descriptors");
        answer.send(()).unwrap();
        timeout(MOMENT, connections.start(silent)).await.expect("the response is complete");
        assert_eq!(reported.await, Ok(Ok(())));
    }

    #[tokio::test(start_paused = true)]
    async fn a_page_that_nobody_reads_is_given_up() {
        let connections = Connections::new(1, WhenFull::Close);
        for _ in 0..3 {
            let asks = |asked: Asked| {
                asked.note();
                std::future::pending()
            };
            timeout(MOMENT, connections.start(asks)).await.unwrap();
            assert_eq!(connections.count(), 1);
        }
    }
}
