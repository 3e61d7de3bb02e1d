//! The daemon's main loop: it waits for what a running relay is asked to do, and does one thing after the other, so that no two
//! changes overlap. A signal to stop does not wait for any of them.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::pin::Pin;

use tokio::sync::{mpsc, oneshot};
use tracing::{error, info, warn};

use super::control::Order;
use super::relay::RunningRelay;
use super::reload::{ReloadError, ReloadReport};
use super::signals::{Signal, Signals};
use super::{ServeArgs, complete, load, offer_ice_servers};
use crate::config::{Change, Loaded, Reload};
use crate::plural::counted;

/// What the main loop waits for.
pub(super) struct Inputs {
    pub(super) signals: Signals,
    pub(super) orders: mpsc::Receiver<Order>,
    /// Signals that arrived while a change was carried out, each once.
    waiting: VecDeque<Signal>,
}

/// What the main loop works on.
pub(super) struct Daemon<'a> {
    pub(super) args: &'a ServeArgs,
    pub(super) loaded: &'a Loaded,
    pub(super) relay: RunningRelay,
    /// The directory of a shared secret that the settings do not have.
    pub(super) secret_directory: Option<PathBuf>,
    /// ICE servers were printed, or the log says how to get them.
    pub(super) offered: bool,
}

/// Something to do.
enum Event {
    Stop(&'static str),
    Reload,
    Order(Order),
    /// Addresses of this machine may have changed.
    Addresses,
}

/// Serves until a signal stops the relay; returns the name of the signal.
pub(super) async fn run(daemon: &mut Daemon<'_>, inputs: &mut Inputs) -> &'static str {
    loop {
        daemon.offer();
        let change: Pin<Box<dyn Future<Output = ()> + '_>> = match inputs.next(&daemon.relay).await {
            Event::Stop(signal) => return signal,
            Event::Reload => Box::pin(daemon.reload_by_signal()),
            Event::Order(order) => Box::pin(daemon.carry_out(order)),
            Event::Addresses => Box::pin(daemon.relay.adapt()),
        };
        if let Some(signal) = inputs.unless_stopped(change).await {
            return signal;
        }
    }
}

impl Inputs {
    pub(super) fn new(signals: Signals, orders: mpsc::Receiver<Order>) -> Inputs {
        Inputs { signals, orders, waiting: VecDeque::new() }
    }

    /// Waits for something to do.
    async fn next(&mut self, relay: &RunningRelay) -> Event {
        loop {
            let signal = match self.waiting.pop_front() {
                Some(signal) => signal,
                None => tokio::select! {
                    signal = self.signals.next() => signal,
                    Some(order) = self.orders.recv() => return Event::Order(order),
                    () = relay.changed() => return Event::Addresses,
                },
            };
            match signal {
                Signal::Stop(name) => return Event::Stop(name),
                Signal::Reload => return Event::Reload,
                Signal::Ignored(_) => {}
            }
        }
    }

    /// Completes a change, or gives it up when a signal stops the relay; returns the name of that signal. A stuck worker
    /// can hold up a change for seconds. Other signals are kept for later.
    async fn unless_stopped(&mut self, change: impl Future<Output = ()>) -> Option<&'static str> {
        tokio::pin!(change);
        loop {
            tokio::select! {
                signal = self.signals.next() => match signal {
                    Signal::Stop(name) => return Some(name),
                    signal if !self.waiting.contains(&signal) => self.waiting.push_back(signal),
                    _ => {}
                },
                () = &mut change => return None,
            }
        }
    }
}

impl Daemon<'_> {
    /// Offers ICE servers once there are some.
    fn offer(&mut self) {
        // Without an address there are no URLs yet.
        if !self.offered && !self.relay.site().relay.is_empty() {
            let settings = &self.loaded.settings;
            offer_ice_servers(settings, &self.relay, self.args, self.secret_directory.as_deref());
            self.offered = true;
        }
    }

    async fn carry_out(&mut self, order: Order) {
        match order {
            Order::Reload(reply) => self.reload_by_order(reply).await,
        }
    }

    async fn reload_by_signal(&mut self) {
        let _ = self.reload("SIGHUP").await;
    }

    async fn reload_by_order(&mut self, reply: oneshot::Sender<Result<ReloadReport, ReloadError>>) {
        // Whoever asked may have stopped waiting.
        let _ = reply.send(self.reload("reload").await);
    }

    /// Reads the configuration again and applies what has changed. If it has a mistake, nothing changes. `by` is who asked.
    async fn reload(&mut self, by: &str) -> Result<ReloadReport, ReloadError> {
        let done = self.try_reload().await;
        match &done {
            Ok(report) => {
                report.warnings.iter().for_each(|warning| warn!("{warning}"));
                let restart: Vec<_> = report.changed.iter().map(|change| &*change.key).collect();
                if !restart.is_empty() {
                    warn!(
                        "{by} reloads only [auth]; {} changed too, and {} a restart: {}",
                        if restart.len() == 1 { "another setting has" } else { "other settings have" },
                        if restart.len() == 1 { "needs" } else { "need" },
                        restart.join(", ")
                    );
                }
                info!("{by}: credentials are reloaded; running calls continue");
            }
            Err(error) => {
                error.findings.iter().for_each(|mistake| error!("{mistake}"));
                error!("{by}: nothing has changed: {error}");
            }
        }
        done
    }

    async fn try_reload(&mut self) -> Result<ReloadReport, ReloadError> {
        let mut new = load(self.args).map_err(|findings| ReloadError {
            what: format!("the configuration has {}", counted(findings.len(), "mistake")),
            findings,
        })?;
        let failed = |error: anyhow::Error| ReloadError::new(format!("{error:#}"));
        complete(&mut new.settings, self.args).map_err(failed)?;
        self.relay.renew_auth(&new.settings).await.map_err(failed)?;
        let changed = self.loaded.changed(&new).into_iter();
        let changed =
            changed.map(|key| Change { key: key.into(), what: "changed".into(), holds: Reload::Restart });
        Ok(ReloadReport { changed: changed.collect(), warnings: new.warnings })
    }
}
