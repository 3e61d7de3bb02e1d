//! The daemon's main loop: it waits for what a running relay is asked to do, and does one thing after the other, so that no two
//! changes overlap. A signal to stop does not wait for any of them.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::task::spawn_blocking;
use tokio::time::{Instant, timeout};
use tracing::{error, info, warn};

use super::admin::AdminSockets;
use super::control::Order;
use super::drain::DrainEnd;
use super::logging::Logging;
use super::overlays::OverlayStore;
use super::relay::RunningRelay;
use super::reload::{ReloadError, ReloadReport};
use super::service_manager::ServiceManager;
use super::signals::Signals;
use super::status::{self, AuthStatus, Counts, Instance, LastReload, Status};
use super::stop::StopGuard;
use super::{
    KeptSecrets, ServeArgs, complete_certificate, complete_secrets, configuration, load, offer_ice_servers,
};

use crate::config::{Finding, Loaded, Reload};
use crate::plural::counted;

/// How long reading the configuration may take. Files with a million users take seconds.
const READ: Duration = Duration::from_secs(30);

/// What the main loop waits for.
pub(super) struct Inputs {
    pub(super) signals: Signals,
    pub(super) orders: mpsc::Receiver<Order>,
    /// A signal has stopped the relay while something was carried out.
    interrupted: bool,
}

/// What the main loop works on.
pub(super) struct Daemon<'a> {
    pub(super) args: &'a ServeArgs,
    pub(super) logging: &'a Logging,
    pub(super) relay: RunningRelay,
    pub(super) stop: Arc<StopGuard>,
    pub(super) admin: AdminSockets,
    pub(super) instance: Instance,
    pub(super) last_reload: Option<LastReload>,
    /// Peers that programs have named.
    pub(super) overlays: OverlayStore,
    /// The directory of a shared secret that the settings do not have.
    pub(super) secret_directory: Option<PathBuf>,
    /// ICE servers were printed, or the log says how to get them.
    pub(super) offered: bool,
    /// What was last said about listeners without a URL.
    pub(super) explained: Vec<String>,
    /// Who started this process, and follows what it does.
    pub(super) service: ServiceManager,
}

/// Something to do.
enum Event {
    Stop(&'static str),
    Reload,
    Drain,
    DrainEnded(DrainEnd),
    Order(Order),
    /// Addresses of this machine may have changed.
    Addresses,
    /// A removed listener may have served its last allocation.
    Drained,
    /// Files of certificates may have changed.
    Certificates,
}

/// Serves until a signal or the end of a drain stops the relay; returns which.
pub(super) async fn run(daemon: &mut Daemon<'_>, inputs: &mut Inputs) -> &'static str {
    let heartbeat = daemon.relay.heartbeat();
    loop {
        daemon.offer();
        daemon.explain_urls();
        if daemon.service.is_some() {
            daemon.service.serves(daemon.relay.serves());
        }
        daemon.stop.set_deadline(daemon.relay.settings().stop_deadline);
        let event = inputs.next(&daemon.relay).await;
        let _change = heartbeat.change();
        let change: Pin<Box<dyn Future<Output = ()> + '_>> = match event {
            Event::Stop(signal) => return daemon.ends(DrainEnd::Stopped, signal),
            Event::DrainEnded(end) => return daemon.ends(end, end.cause()),
            Event::Drain => Box::pin(daemon.drain_by_signal()),
            Event::Reload => Box::pin(daemon.reload_by_signal()),
            Event::Order(order) => Box::pin(daemon.carry_out(order)),
            Event::Addresses => Box::pin(daemon.relay.adapt()),
            Event::Drained => Box::pin(daemon.relay.close_drained()),
            Event::Certificates => Box::pin(daemon.renew_certificates()),
        };
        if let Some(signal) = inputs.unless_stopped(change).await {
            return daemon.ends(DrainEnd::Stopped, signal);
        }
    }
}

impl Inputs {
    pub(super) fn new(signals: Signals, orders: mpsc::Receiver<Order>) -> Inputs {
        Inputs { signals, orders, interrupted: false }
    }

    /// Waits for something to do. Whatever happens all the time, everything else has its turn: `select!` looks at its branches
    /// in random order.
    async fn next(&mut self, relay: &RunningRelay) -> Event {
        tokio::select! {
            name = self.signals.stopped() => Event::Stop(name),
            () = self.signals.reload() => Event::Reload,
            () = self.signals.drain() => Event::Drain,
            Some(order) = self.orders.recv() => Event::Order(order),
            () = relay.changed() => Event::Addresses,
            () = relay.drained() => Event::Drained,
            end = relay.drain_ended() => Event::DrainEnded(end),
            () = relay.certificates_changed() => Event::Certificates,
        }
    }

    /// Completes a change, or gives it up when a signal stops the relay; returns the name of that signal. A stuck worker
    /// can hold up a change for seconds. Other signals wait.
    async fn unless_stopped(&mut self, change: impl Future<Output = ()>) -> Option<&'static str> {
        tokio::select! {
            biased;
            name = self.signals.stopped() => {
                self.interrupted = true;
                Some(name)
            }
            () = change => None,
        }
    }

    /// Takes no more orders: whoever gave one is told that the relay stops. Returns whether anybody is told.
    pub(super) fn refuse_orders(mut self) -> bool {
        self.orders.close();
        let waiting = std::iter::from_fn(|| self.orders.try_recv().ok()).count();
        self.interrupted || waiting > 0
    }
}

impl Daemon<'_> {
    /// Offers ICE servers once there are some.
    fn offer(&mut self) {
        // Without an address there are no URLs yet.
        if !self.offered && !self.relay.site().relay.is_empty() {
            let settings = self.relay.settings();
            offer_ice_servers(settings, &self.relay, self.args, self.secret_directory.as_deref());
            self.offered = true;
        }
    }

    /// Logs why listeners have no URL, once, and again if that changes.
    fn explain_urls(&mut self) {
        let notes = self.relay.ice_notes(self.args.domain.as_deref());
        notes.iter().filter(|note| !self.explained.contains(note)).for_each(|note| warn!("{note}"));
        self.explained = notes;
    }

    /// Carries out an order. Whoever gave it may have stopped waiting.
    async fn carry_out(&mut self, order: Order) {
        match order {
            Order::Status(reply) => drop(reply.send(Box::new(self.status()))),
            Order::Overlay(order) => self.overlays.carry_out(order, &mut self.relay).await,
            Order::Reload(reply) => self.reload_by_order(reply).await,
            Order::Drain(deadline, reply) => drop(reply.send(self.relay.drain("drain", deadline).await)),
            Order::Undrain(reply) => drop(reply.send(self.relay.undrain("undrain").await)),
        }
    }

    /// What the relay is and does now.
    fn status(&self) -> Status {
        let (settings, site) = (self.relay.settings(), self.relay.site());
        let outside = |ip: &IpAddr| Some(site.outside(*ip)).filter(|outside| outside != ip);
        Status {
            uptime: self.instance.uptime(),
            instance: self.instance.clone(),
            listeners: status::listeners(settings, &site.listeners, self.relay.identities().is_some()),
            http: settings.http.listen.clone(),
            control_socket: self.admin.control_path().map(Path::to_owned),
            admin: self.admin.listeners().collect(),
            relay: site.relay.iter().map(|ip| (*ip, outside(ip))).collect(),
            domain: self.args.domain.clone(),
            auth: AuthStatus::of(&settings.auth, self.secret_directory.as_deref()),
            relay_ports: settings.relay.ports.clone(),
            not_ready: self.relay.not_ready(),
            ice_urls: self.relay.ice_urls(self.args.domain.as_deref()),
            limits: self.relay.room.limits(settings),
            counts: Counts::of(&self.relay.stats()),
            splices: self.relay.splices(),
            peers: status::peers(settings, self.overlays.all()),
            overlays: self.overlays.all().cloned().collect(),
            certificates: self.relay.certificates(),
            revoked: self.relay.revoked(),
            last_reload: self.last_reload.clone(),
        }
    }

    async fn drain_by_signal(&mut self) {
        self.relay.drain("SIGUSR1", None).await;
    }

    /// The relay stops; returns why.
    fn ends(&mut self, drain: DrainEnd, why: &'static str) -> &'static str {
        self.relay.draining.end(drain);
        why
    }

    async fn renew_certificates(&mut self) {
        if self.relay.renew_certificates().await {
            self.admin.use_certificates(self.relay.identities());
        }
    }

    async fn reload_by_signal(&mut self) {
        let _ = self.reload("SIGHUP").await;
    }

    async fn reload_by_order(&mut self, reply: oneshot::Sender<Result<ReloadReport, ReloadError>>) {
        let _ = reply.send(self.reload("reload").await);
    }

    /// Reads the configuration again and applies what has changed. If it has a mistake, or a socket cannot be bound, nothing
    /// changes. `by` is who asked.
    async fn reload(&mut self, by: &str) -> Result<ReloadReport, ReloadError> {
        self.service.reload_begins();
        let started = Instant::now();
        let done = self.try_reload().await;
        self.relay.count_reload(done.is_ok(), started.elapsed());
        self.last_reload = Some(LastReload::new(by, &done));
        match &done {
            Ok(report) => log_report(by, report),
            Err(error) => {
                error.findings.iter().for_each(|mistake| error!("{}", mistake.logged()));
                error!("{by}: nothing has changed: {error}");
            }
        }
        // `systemctl reload` returns with this, and points at the log.
        self.service.reload_ended(done.as_ref().err().map(ToString::to_string));
        done
    }

    async fn try_reload(&mut self) -> Result<ReloadReport, ReloadError> {
        let failed = |error: anyhow::Error| ReloadError::new(format!("{error:#}"));
        let Reread { loaded: mut new, secrets, certificate } = reread(self.args.clone()).await?;
        let secrets = secrets.map_err(failed)?;
        if secrets.as_ref().is_some_and(|one| one.generated) {
            info!("a shared secret was generated, because the configuration has none any more");
        }
        // A certificate that cannot be used keeps nothing else from being applied, such as new credentials.
        let mut certificates = Vec::new();
        if let Err(error) = certificate {
            if self.relay.identities().is_none() {
                return Err(failed(error));
            }
            let sentence = format!("{error:#}");
            error!("the certificate cannot be read; the earlier one is used: {sentence}");
            certificates.push(sentence);
            new.settings.tls = self.relay.settings().tls.clone();
        }
        // Every socket is bound before anything changes.
        let prepared = self
            .relay
            .prepare(&new.settings, &self.admin.closes(&new.settings.admin))
            .await
            .map_err(failed)?;
        let identities = prepared.identities();
        let admin =
            self.admin.open(&new.settings.admin, identities.as_ref(), &prepared.closes()).map_err(failed)?;
        let changed = self.relay.reload(prepared).await.map_err(failed)?;
        self.secret_directory = secrets.map(|secrets| secrets.directory);
        if let Err(error) = self.admin.apply(admin, self.relay.identities()) {
            new.warnings.push(self.control_socket_stays(&error));
        }
        if changed.iter().any(|change| change.key.starts_with("log.")) {
            self.logging.apply(&self.relay.settings().log);
        }
        certificates.extend(self.relay.certificate_failures());
        Ok(ReloadReport { changed, warnings: new.warnings, certificates })
    }

    /// Everything else of a reload is done when this turns out.
    fn control_socket_stays(&self, error: &anyhow::Error) -> Finding {
        let file =
            self.args.config.as_ref().map_or("environment".to_owned(), |file| file.display().to_string());
        Finding {
            file,
            line: None,
            key: "admin.socket".to_owned(),
            value: String::new(),
            what: format!("the control socket stays where it was: {error:#}"),
            fix: "reload again after that".to_owned(),
            warning: true,
        }
    }
}

/// What a reload has read.
struct Reread {
    loaded: Loaded,
    secrets: anyhow::Result<Option<KeptSecrets>>,
    certificate: anyhow::Result<()>,
}

/// Reads the configuration again. Its files may be on a network file system that does not respond, and everything else must go on.
async fn reread(args: ServeArgs) -> Result<Reread, ReloadError> {
    let read = spawn_blocking(move || {
        let mut loaded = load(&args, configuration::reread)?;
        let secrets = complete_secrets(&mut loaded.settings, &args);
        let certificate = complete_certificate(&mut loaded.settings, &args);
        Ok(Reread { loaded, secrets, certificate })
    });
    let unread = |why: &str| ReloadError::new(format!("the configuration cannot be read: {why}"));
    let read = timeout(READ, read).await.map_err(|_| unread("its file system does not respond"))?;
    read.map_err(|_| unread("there is no thread for it"))?.map_err(|findings: Vec<Finding>| ReloadError {
        what: format!("the configuration has {}", counted(findings.len(), "mistake")),
        findings,
    })
}

/// Logs what a reload has changed, one line per setting, and then how many.
fn log_report(by: &str, report: &ReloadReport) {
    report.warnings.iter().for_each(|warning| warn!("{}", warning.logged()));
    let (restart, changed): (Vec<_>, Vec<_>) =
        report.changed.iter().partition(|change| change.holds == Reload::Restart);
    for change in &changed {
        info!("reloaded: {}: {}; it holds {}", change.key, change.logged(), change.holds.describe());
    }
    for change in &restart {
        warn!("not reloaded: {}: {}; it needs a restart", change.key, change.logged());
    }
    info!("{by}: the configuration is reloaded: {}; running calls continue", report.summary());
}

#[cfg(test)]
mod tests {
    use tokio::time::sleep;

    use super::*;

    /// A signal to stop does not wait for a change that a stuck worker holds up. A reload that was asked for meanwhile is not
    /// forgotten while the change goes on.
    #[tokio::test(start_paused = true)]
    async fn a_stuck_change_holds_up_no_signal() {
        let (stop, pending, signals) = Signals::given();
        let mut inputs = Inputs::new(signals, mpsc::channel(1).1);
        pending.reload();
        assert_eq!(inputs.unless_stopped(sleep(Duration::from_millis(50))).await, None);
        inputs.signals.reload().await;
        stop.send_replace(Some("SIGTERM"));
        assert_eq!(inputs.unless_stopped(std::future::pending()).await, Some("SIGTERM"));
        assert!(inputs.refuse_orders(), "whoever waits for the change is told");
    }

    /// Orders that wait when the relay stops are refused, and so are later ones.
    #[tokio::test]
    async fn a_relay_that_stops_refuses_orders() {
        let (orders, receiver) = mpsc::channel(2);
        let (reply, replied) = oneshot::channel();
        orders.send(Order::Undrain(reply)).await.unwrap();
        assert!(Inputs::new(Signals::given().2, receiver).refuse_orders());
        assert!(replied.await.is_err() && orders.is_closed());
        assert!(!Inputs::new(Signals::given().2, mpsc::channel(1).1).refuse_orders(), "nobody waits");
    }
}
