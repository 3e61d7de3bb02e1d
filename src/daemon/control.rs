//! Orders to the running relay. Signals and the control interface give them; the daemon's main loop carries them out one
//! after the other, so that no two changes overlap.

use std::time::Duration;

use tokio::sync::{mpsc, oneshot};

use super::drain::{Drain, DrainEnd, DrainReport, DrainWatch};
use super::operators::Operators;
use super::overlays::OverlayOrder;
use super::reload::{ReloadError, ReloadReport};
use super::status::Status;

/// Orders that wait at most.
const ORDERS: usize = 64;

/// Why no order is carried out any more.
pub const STOPPING: &str = "the relay is stopping";

/// An order, with a channel for the outcome.
pub(super) enum Order {
    /// Tell what the relay is and does.
    Status(oneshot::Sender<Box<Status>>),
    /// List or change the peers that programs name.
    Overlay(OverlayOrder),
    /// Read the configuration again and apply what has changed.
    Reload(oneshot::Sender<Result<ReloadReport, ReloadError>>),
    /// Take no new allocations, and stop when the last one has ended or this time is over.
    Drain(Option<Duration>, oneshot::Sender<DrainReport>),
    /// Take new allocations again.
    Undrain(oneshot::Sender<bool>),
}

/// Gives orders to the running relay.
#[derive(Clone)]
pub struct Control {
    orders: mpsc::Sender<Order>,
    drain: DrainWatch,
    pub(super) operators: Operators,
}

impl Control {
    /// A handle, and the orders that are given with it and its clones.
    pub(super) fn new(drain: DrainWatch, operators: Operators) -> (Control, mpsc::Receiver<Order>) {
        let (orders, receiver) = mpsc::channel(ORDERS);
        (Control { orders, drain, operators }, receiver)
    }

    /// Whether the relay is stopping.
    pub(super) fn is_stopping(&self) -> bool {
        self.orders.is_closed()
    }

    /// Reads the configuration again and applies what has changed.
    ///
    /// # Errors
    /// Why nothing has changed.
    pub async fn reload(&self) -> Result<ReloadReport, ReloadError> {
        self.order(Order::Reload).await.map_err(ReloadError::new)?
    }

    /// Takes no new allocations, and stops when the last one has ended or the deadline has come. Without a deadline, that of the
    /// settings is used. While the relay drains already, a deadline replaces the one that it has.
    ///
    /// # Errors
    /// The relay is stopping.
    pub async fn drain(&self, deadline: Option<Duration>) -> Result<DrainReport, String> {
        self.order(|reply| Order::Drain(deadline, reply)).await
    }

    /// Takes new allocations again. Returns whether the relay was draining.
    ///
    /// # Errors
    /// The relay is stopping.
    pub async fn undrain(&self) -> Result<bool, String> {
        self.order(Order::Undrain).await
    }

    /// Whether the relay drains now, since when, until when, and how many allocations are left.
    pub fn drain_status(&self) -> Drain {
        self.drain.now()
    }

    /// Waits for the end of the drain that goes on; `None` if there is none. The process lives on for a moment, so that the answer
    /// can be told to whoever asked.
    pub async fn drained(&self) -> Option<DrainEnd> {
        self.drain.clone().ended().await
    }

    /// What the relay is and does now.
    ///
    /// # Errors
    /// The relay is stopping.
    pub async fn status(&self) -> Result<Box<Status>, String> {
        self.order(Order::Status).await
    }

    pub(super) async fn order<T>(
        &self,
        order: impl FnOnce(oneshot::Sender<T>) -> Order,
    ) -> Result<T, String> {
        let (reply, replied) = oneshot::channel();
        let stopping = || STOPPING.to_owned();
        self.orders.send(order(reply)).await.map_err(|_| stopping())?;
        replied.await.map_err(|_| stopping())
    }
}

#[cfg(test)]
impl Control {
    /// For tests of what gives orders: those of a relay that is stopping.
    pub fn stopping() -> Control {
        let (orders, _) = mpsc::channel(1);
        Control { orders, drain: DrainWatch::none(), operators: Operators::none() }
    }
}
