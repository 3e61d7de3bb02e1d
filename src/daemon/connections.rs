//! A bounded set of HTTP connections, each a task. One that finds no place takes that of the oldest one that has not sent its
//! request, so that silent connections hold up nobody.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::task::JoinHandle;

/// The open connections.
pub struct Connections {
    most: usize,
    /// The oldest one first.
    open: Mutex<VecDeque<Connection>>,
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
    pub fn new(most: usize) -> Connections {
        Connections { most, open: Mutex::default() }
    }

    /// Starts to serve a connection, if need be in the place of another.
    pub async fn start<F>(&self, serve: impl FnOnce(Asked) -> F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let is_full = {
            let mut open = self.open();
            open.retain(|connection| !connection.task.is_finished());
            open.len() >= self.most
        };
        if is_full {
            self.close_oldest().await;
        }
        let asked = Asked(Arc::new(AtomicBool::new(false)));
        let task = tokio::spawn(serve(asked.clone()));
        self.open().push_back(Connection { task, asked });
    }

    /// Closes the oldest connection that has not sent its request, otherwise the oldest one.
    pub async fn close_oldest(&self) -> bool {
        let oldest = {
            let mut open = self.open();
            open.retain(|connection| !connection.task.is_finished());
            let idle = open.iter().position(|one| !one.asked.0.load(Ordering::Relaxed));
            open.remove(idle.unwrap_or(0))
        };
        let Some(Connection { task, .. }) = oldest else { return false };
        task.abort();
        // Its descriptor is closed once the task has ended.
        let _ = task.await;
        true
    }

    /// How many there are, with those that have just ended.
    #[cfg(test)]
    pub fn len(&self) -> usize {
        self.open().len()
    }

    fn open(&self) -> MutexGuard<'_, VecDeque<Connection>> {
        // Every change is a single call, so a panic cannot leave an inconsistent state.
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Connections {
    fn drop(&mut self) {
        self.open().iter().for_each(|connection| connection.task.abort());
    }
}
