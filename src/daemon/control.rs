//! Orders to the running relay. Signals and the control interface give them; the daemon's main loop carries them out one
//! after the other, so that no two changes overlap.

use tokio::sync::{mpsc, oneshot};

use super::reload::{ReloadError, ReloadReport};

/// Orders that wait at most.
const ORDERS: usize = 64;

/// An order, with a channel for the outcome.
pub(super) enum Order {
    /// Read the configuration again and apply what has changed.
    Reload(oneshot::Sender<Result<ReloadReport, ReloadError>>),
}

/// Gives orders to the running relay.
#[derive(Clone)]
pub struct Control {
    orders: mpsc::Sender<Order>,
}

impl Control {
    /// A handle, and the orders that are given with it and its clones.
    pub(super) fn new() -> (Control, mpsc::Receiver<Order>) {
        let (orders, receiver) = mpsc::channel(ORDERS);
        (Control { orders }, receiver)
    }

    /// Reads the configuration again and applies what has changed.
    ///
    /// # Errors
    /// Why nothing has changed.
    pub async fn reload(&self) -> Result<ReloadReport, ReloadError> {
        self.order(Order::Reload).await.map_err(ReloadError::new)?
    }

    async fn order<T>(&self, order: impl FnOnce(oneshot::Sender<T>) -> Order) -> Result<T, String> {
        let (reply, replied) = oneshot::channel();
        let stopping = || "the relay is stopping".to_owned();
        self.orders.send(order(reply)).await.map_err(|_| stopping())?;
        replied.await.map_err(|_| stopping())
    }
}
