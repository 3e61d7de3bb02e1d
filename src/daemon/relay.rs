//! A running relay. It opens the listeners first, so that a second process fails before it changes anything, then starts the
//! workers and HTTP. How it changes while it runs is in `change`.

use std::net::{IpAddr, TcpListener};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;

use anyhow::{Result, bail};
use rand::SeedableRng;
use rand::rngs::StdRng;
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tracing::{error, warn};

use super::certificates::{CertificateBoard, CertificateStatus, Certificates};
use super::drain::{Drain, DrainControl, DrainWatch};
use super::external::{ExternalSource, ExternalStats};
use super::files::{self, FileBudget, FileRoom};
use super::heartbeat::{self, Heartbeat};
use super::host::HostTables;
use super::http::{self, Reserve};
use super::ice::Offer;
use super::listeners::{ClientListener, Listeners};
use super::logging::LostLines;
use super::metrics::{self, AddressCounts, Readings, ReloadCounts, RevocationCounts};
use super::operators::Operators;
use super::place::Place;
use super::process::Process;
use super::revocations::{self, RevokedUsers};
use super::service_manager::Health;
use super::stop::StopGuard;
use super::{announce, backends, own, random, unix_now, watch};
use crate::auth::{Auth, NonceKeys};
use crate::config::{Settings, Site};
use crate::datapath::{SpliceStats, WorkerStats, WorkerThread, Workers};
use crate::tls::Identities;
use crate::turn::PerFamily;
use crate::turn::bucket::RateLimiter;
use crate::turn::peers::Overlays;

/// A relay that serves clients.
pub struct RunningRelay {
    /// What it runs with.
    pub(super) settings: Settings,
    /// What this relay is on the network now, and what the workers serve by.
    pub(super) place: Place,
    pub(super) site: Site,
    pub(super) auth: Arc<Auth>,
    pub(super) certificates: Certificates,
    pub(super) keys: RelayKeys,
    pub(super) listeners: Listeners,
    pub(super) files: FileBudget,
    pub(super) room: FileRoom,
    pub(super) draining: DrainControl,
    /// Counts the snapshots that the workers were given.
    pub(super) generation: u64,
    pub(super) workers: Arc<Workers>,
    pub(super) http: Arc<http::Server<RelayPages>>,
    pub(super) pages: Arc<RelayPages>,
    /// The external addresses that are asked for.
    pub(super) external: ExternalSource,
    /// Addresses of this machine, or external ones, may have changed.
    changed: Arc<Notify>,
    tasks: Vec<JoinHandle<()>>,
}

/// Random keys that last as long as the process, so that nonces stay valid when settings change.
#[derive(Clone)]
pub(super) struct RelayKeys {
    pub(super) nonce: NonceKeys,
    /// Keys the hash that assigns UDP clients to workers.
    pub(super) steering: u32,
    /// Users that an operator has revoked, whatever the settings are.
    pub(super) revoked: Arc<RevokedUsers>,
}

/// What HTTP serves.
pub(super) struct RelayPages {
    workers: Arc<Workers>,
    heartbeat: Arc<Heartbeat>,
    stopping: AtomicBool,
    drain: DrainWatch,
    changing: Mutex<ChangingPages>,
    certificates: Arc<CertificateBoard>,
    lost: LostLines,
    host: HostTables,
    process: Process,
    external: Arc<ExternalStats>,
    revoked: Arc<RevokedUsers>,
}

/// What of it changes with settings and addresses.
#[derive(Clone)]
pub(super) struct ChangingPages {
    /// The addresses that relay, and why there is none.
    pub(super) addresses: (PerFamily<u64>, Result<(), String>),
    /// How often the addresses that relay have become others.
    pub(super) relay_changes: u64,
    pub(super) limits: metrics::NamedLimits,
    pub(super) reloads: ReloadCounts,
}

impl RunningRelay {
    /// Opens every socket and starts the workers, which serve by these overlays from the first request on. Must be called on a
    /// tokio runtime.
    pub fn start(
        settings: &Settings,
        overlays: Overlays,
        lost: LostLines,
        revoked: Arc<RevokedUsers>,
    ) -> Result<RunningRelay> {
        // Low descriptors, opened before others need them.
        let (reserve, host, process) = (Reserve::open(), HostTables::open(), Process::start());
        let (external, asker) = ExternalSource::new();
        let place = Place::look(settings, &[], &external.known());
        if let Some(misfit) = &place.misfit {
            bail!("relay.external_ip: {misfit}");
        }
        let (wanted, skipped) = listeners(settings)?;
        announce::skipped(&skipped);
        let site = Site {
            listeners: wanted,
            closing: Vec::new(),
            external: place.external.clone(),
            relay: place.addresses(),
            former: Vec::new(),
            own: place.own.ranges.clone(),
            widened: place.own.widened,
            draining: false,
            overlays,
            cpus: thread::available_parallelism().map_or(1, usize::from),
        };
        let datapath = settings.datapath(&site);
        let mut files = FileBudget::new(files::raise_limit(), files::open(datapath.workers as u64));
        let keys = RelayKeys {
            nonce: NonceKeys { current: random::bytes()?, previous: None },
            steering: u32::from_ne_bytes(random::bytes()?),
            revoked: revoked.clone(),
        };
        let mut listeners = Listeners::default();
        let mut change =
            listeners.prepare(&site.listeners, &settings.http.listen, &[], &datapath, keys.steering)?;
        let room = files.divide(settings, &site, listeners.descriptors(&change, datapath.workers as u64), 0);

        let mut rng = StdRng::from_seed(random::bytes()?);
        let auth = auth(settings, &keys, None)?;
        let certificates = Certificates::start(&settings.tls)?;
        let mut snapshot = settings.snapshot(1, &site, auth.clone(), certificates.identities());
        room.apply(&mut snapshot);
        let groups = change.opened.iter().map(|one| one.group.clone()).collect();
        let rates = RateLimiter::new(&mut rng);
        let workers = Arc::new(Workers::start(&datapath, groups, snapshot, rates, rng)?);
        announce::relay(settings, &site, &place);

        let heartbeat = Arc::new(Heartbeat::new(workers.threads()));
        let draining = DrainControl::default();
        let pages = Arc::new(RelayPages {
            workers: workers.clone(),
            heartbeat: heartbeat.clone(),
            stopping: AtomicBool::new(false),
            drain: draining.watch(),
            changing: Mutex::new(ChangingPages {
                addresses: summary(&place),
                relay_changes: 0,
                limits: room.limits(settings),
                reloads: ReloadCounts::new(unix_now()),
            }),
            certificates: certificates.board(),
            lost,
            host,
            process,
            external: external.stats(),
            revoked: revoked.clone(),
        });
        let http = http::Server::new(pages.clone(), reserve);
        http.configure(&settings.http, certificates.identities());
        for (addr, listener) in change.http_opened.drain(..) {
            listeners.add_http(addr, serve(&http, listener));
        }
        listeners.keep(&mut change);
        let pruning = tokio::spawn(revocations::prune(revoked));
        let mut tasks = vec![pruning, tokio::spawn(heartbeat::run(workers.clone(), heartbeat))];
        tasks.push(certificates.watch());
        let changed = Arc::new(Notify::new());
        let notified = changed.clone();
        tasks.push(tokio::spawn(async move { watch::run(&notified).await }));
        external.ask(&place.questions);
        tasks.push(tokio::spawn(asker.run(changed.clone())));
        Ok(RunningRelay {
            settings: settings.clone(),
            place,
            site,
            auth,
            certificates,
            keys,
            listeners,
            files,
            room,
            draining,
            generation: 1,
            workers,
            http,
            pages,
            external,
            changed,
            tasks,
        })
    }

    /// What serves operators.
    pub(super) fn operators(&self) -> Operators {
        Operators { workers: Arc::downgrade(&self.workers), revoked: self.keys.revoked.clone() }
    }

    /// The addresses of this relay.
    pub fn site(&self) -> &Site {
        &self.site
    }

    /// The settings that it runs with.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// The threads that have not ended, to be asked while the relay stops.
    pub fn unfinished(&self) -> impl Fn() -> Vec<WorkerThread> + Send + Sync + use<> {
        let workers = self.workers.clone();
        move || workers.unfinished()
    }

    /// How many allocations and reserved ports there are.
    pub fn allocations(&self) -> u64 {
        self.workers.allocations() as u64
    }

    /// The certificates for TLS clients.
    pub fn identities(&self) -> Option<Identities> {
        self.certificates.identities()
    }

    /// The counters of each worker.
    pub fn stats(&self) -> Vec<WorkerStats> {
        self.workers.stats()
    }

    /// What is counted of connections to backends.
    pub fn splices(&self) -> SpliceStats {
        self.workers.splices()
    }

    /// The certificates for TLS clients.
    pub fn certificates(&self) -> Vec<CertificateStatus> {
        self.pages.certificates.stats().certificates
    }

    /// The URLs for clients.
    pub fn ice_urls(&self, domain: Option<&str>) -> Vec<String> {
        // Browsers refuse a self-signed one whatever the name.
        let certificates = self.certificates().into_iter().filter(|one| !one.is_self_signed);
        let certified: Vec<String> = certificates.flat_map(|one| one.names).collect();
        self.offer(domain, &certified).urls()
    }

    /// Why some listeners have no URL, and what to do.
    pub fn ice_notes(&self, domain: Option<&str>) -> Vec<String> {
        self.offer(domain, &[]).notes()
    }

    fn offer<'a>(&'a self, domain: Option<&'a str>, certified: &'a [String]) -> Offer<'a> {
        let (site, settings) = (self.site(), &self.settings);
        let (listeners, addresses, external) = (&site.listeners, &site.relay, &site.external);
        Offer { listeners, addresses, external, domain, certified, settings }
    }

    /// How many users are revoked.
    pub fn revoked(&self) -> u64 {
        self.pages.revoked.table().len() as u64
    }

    /// Why it cannot serve clients, if it cannot.
    pub fn not_ready(&self) -> Option<String> {
        http::Pages::is_ready(&*self.pages).err()
    }

    /// How it is, for the service manager, which asks on a thread of its own.
    pub(super) fn health(&self, stop: Arc<StopGuard>) -> impl Fn() -> Health + Send + use<> {
        let pages = self.pages.clone();
        move || Health {
            live: http::Pages::is_live(&*pages),
            ready: http::Pages::is_ready(&*pages),
            drains: matches!(pages.drain.now(), Drain::On(_)),
            stop: stop.armed(),
        }
    }

    /// What it serves, in one line.
    pub(super) fn serves(&self) -> String {
        announce::serves(&self.site, &self.place)
    }

    /// The signs of life.
    pub(super) fn heartbeat(&self) -> Arc<Heartbeat> {
        self.pages.heartbeat.clone()
    }

    /// Waits until addresses of this machine, or external ones, may have changed. [`RunningRelay::adapt`] is to be called then.
    pub async fn changed(&self) {
        self.changed.notified().await;
    }

    /// Waits until files of certificates may have changed. [`RunningRelay::renew_certificates`] is to be called then.
    pub async fn certificates_changed(&self) {
        self.certificates.changed().await;
    }

    /// Waits until a removed listener may be closed. [`RunningRelay::close_drained`] is to be called then.
    pub async fn drained(&self) {
        self.listeners.emptied().await;
    }

    /// Ends every allocation and waits for the workers. Not to be called from an asynchronous context.
    pub fn stop(&self) {
        self.pages.stopping.store(true, Ordering::Relaxed);
        self.workers.stop();
        self.listeners.stop_http();
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

/// Serves HTTP at a listener.
pub(super) fn serve(server: &Arc<http::Server<RelayPages>>, listener: TcpListener) -> JoinHandle<()> {
    let server = server.clone();
    tokio::spawn(async move {
        if let Err(error) = server.serve(listener).await {
            error!(%error, "http has stopped serving");
        }
    })
}

impl http::Pages for RelayPages {
    fn metrics(&self) -> String {
        let ChangingPages { addresses, relay_changes, limits, reloads } = self.changing().clone();
        metrics::page(&Readings {
            workers: self.workers.stats(),
            lags: self.heartbeat.lags().collect(),
            ports: self.workers.port_usage(),
            addresses: AddressCounts { relay: addresses.0, relay_changes, external: self.external.counts() },
            limits,
            reloads,
            log_lines_dropped: self.lost.lines() as u64,
            host: self.host.udp_errors(),
            draining: self.drain.now() != Drain::Off,
            is_ready: http::Pages::is_ready(self).is_ok(),
            certificates: self.certificates.stats(),
            revocations: RevocationCounts {
                users: self.revoked.table().len() as u64,
                made: self.revoked.made(),
            },
            splices: self.workers.splices(),
            process: self.process.families(),
        })
    }

    fn is_live(&self) -> Result<(), String> {
        // Workers that stop do not respond.
        if self.stopping.load(Ordering::Relaxed) {
            return Ok(());
        }
        self.heartbeat.silence().map_or(Ok(()), |silence| Err(silence.to_string()))
    }

    fn is_ready(&self) -> Result<(), String> {
        if self.stopping.load(Ordering::Relaxed) {
            return Err("the relay is stopping".into());
        }
        self.drain.reason().map_or(Ok(()), Err)?;
        self.is_live()?;
        self.changing().addresses.1.clone()
    }

    fn remarks(&self) -> String {
        backends::remarks(&self.workers.splices())
    }
}

impl RelayPages {
    pub(super) fn changing(&self) -> MutexGuard<'_, ChangingPages> {
        // Integers and texts: whatever was written is a value.
        self.changing.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What HTTP tells about the addresses that relay.
pub(super) fn summary(place: &Place) -> (PerFamily<u64>, Result<(), String>) {
    let count = |is_family: fn(&IpAddr) -> bool| {
        place.relay.iter().filter(|chosen| is_family(&chosen.address)).count() as u64
    };
    (PerFamily { v4: count(IpAddr::is_ipv4), v6: count(IpAddr::is_ipv6) }, place.is_ready())
}

/// The credentials of these settings. `before` is what the relay runs with.
pub(super) fn auth(
    settings: &Settings,
    keys: &RelayKeys,
    before: Option<(&Auth, &Settings)>,
) -> Result<Arc<Auth>> {
    let (config, nonce) = (settings.auth(), keys.nonce.clone());
    let auth = match before {
        Some((auth, running)) => auth.renewed(&running.auth.listed, config, nonce),
        None => Auth::new(config, nonce),
    };
    let auth = auth?.with_revocations(keys.revoked.table().clone()).on_removal(settings.auth.on_removal);
    auth.warnings().iter().for_each(|warning| warn!("{warning}"));
    Ok(Arc::new(auth))
}

/// The listeners that this machine can open, and those that it cannot: without IPv6, those for IPv6.
pub(super) fn listeners(settings: &Settings) -> Result<(Vec<ClientListener>, Vec<ClientListener>)> {
    let has_ipv6 = own::has_ipv6();
    let (listeners, skipped): (Vec<_>, Vec<_>) =
        settings.listener_addresses().into_iter().partition(|(_, addr)| has_ipv6 || addr.is_ipv4());
    if listeners.is_empty() {
        bail!("this machine has no IPv6, and every listener has an IPv6 address; list an IPv4 address");
    }
    Ok((listeners, skipped))
}

#[cfg(test)]
mod tests {
    use std::net::{SocketAddr, UdpSocket};
    use std::time::Duration;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;
    use tokio::time::{Instant, sleep};

    use super::*;
    use crate::auth::Secret;
    use crate::config::Change;

    /// A port that is free on `ip` now.
    fn free_port(ip: &str) -> SocketAddr {
        UdpSocket::bind((ip, 0)).unwrap().local_addr().unwrap()
    }

    /// A relay on loopback addresses of its own, with these relayed addresses.
    fn relay(ip: &str, relayed: &[&str]) -> (RunningRelay, SocketAddr) {
        let mut settings = Settings::default();
        (settings.workers, settings.listen.tcp, settings.listen.tls) = (2, Vec::new(), Vec::new());
        settings.listen.udp = vec![free_port(ip)];
        settings.http.listen = vec![free_port(ip)];
        settings.relay.addresses = relayed.iter().map(|ip| ip.parse().unwrap()).collect();
        settings.auth.secrets = vec![Secret::new("a secret for these tests")];
        let http = settings.http.listen[0];
        let lost = LostLines::none();
        (RunningRelay::start(&settings, Overlays::default(), lost, RevokedUsers::none()).unwrap(), http)
    }

    async fn reload(relay: &mut RunningRelay, new: &Settings) -> Result<Vec<Change>> {
        let prepared = relay.prepare(new, &[]).await?;
        relay.reload(prepared).await
    }

    /// The status and the text of a page.
    async fn get(http: SocketAddr, page: &str) -> (u16, String) {
        let mut stream = TcpStream::connect(http).await.unwrap();
        stream.write_all(format!("GET {page} HTTP/1.1\r\nHost: here\r\n\r\n").as_bytes()).await.unwrap();
        let mut response = String::new();
        stream.read_to_string(&mut response).await.unwrap();
        let status = response.split(' ').nth(1).unwrap().parse().unwrap();
        (status, response.split_once("\r\n\r\n").unwrap().1.to_owned())
    }

    /// The value of a series on a page of metrics.
    fn value(page: &str, series: &str) -> f64 {
        let value = page.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
        value.unwrap_or_else(|| panic!("{series} is not in\n{page}")).parse().unwrap()
    }

    /// Addresses that come and go count once per change, and ports follow them.
    #[tokio::test]
    async fn changes_of_relay_addresses_count() {
        let (mut relay, http) = relay("127.1.14.8", &["127.1.14.8"]);
        let mut new = relay.settings().clone();
        let figures = async || {
            let page = get(http, "/metrics").await.1;
            ["hairpin_relay_address_changes_total", "hairpin_relay_ports{family=\"ipv4\"}"]
                .map(|series| value(&page, series))
        };
        assert_eq!(figures().await, [0.0, 16384.0]);
        for (addresses, wanted) in [
            (&["127.1.14.8", "127.1.14.9"][..], [1.0, 32768.0]),
            (&["127.1.14.9", "127.1.14.8"], [1.0, 32768.0]),
            (&["127.1.14.9"], [2.0, 16384.0]),
        ] {
            new.relay.addresses = addresses.iter().map(|ip| ip.parse().unwrap()).collect();
            reload(&mut relay, &new).await.unwrap();
            relay.adapt().await;
            assert_eq!(figures().await, wanted, "{addresses:?}");
        }
        tokio::task::spawn_blocking(move || relay.stop()).await.unwrap();
    }

    /// A worker that does not go on fails every health check, and they recover with it.
    #[tokio::test]
    async fn a_blocked_worker_fails_the_health_checks_until_it_goes_on() {
        let (relay, http) = relay("127.1.14.1", &["127.1.14.1"]);
        for page in ["/livez", "/readyz", "/healthz"] {
            assert_eq!(get(http, page).await, (200, "ok\n".into()), "{page}");
        }
        let since = Instant::now();
        relay.workers.block(1, Duration::from_secs(6)).await;
        while get(http, "/livez").await.0 == 200 {
            assert!(since.elapsed() < Duration::from_secs(5));
            sleep(Duration::from_millis(50)).await;
        }
        assert!(since.elapsed() > Duration::from_secs(2), "a short pause is no failure");
        for page in ["/livez", "/readyz", "/healthz"] {
            let (status, reason) = get(http, page).await;
            assert_eq!(status, 503, "{page}");
            assert!(reason.starts_with("worker 1 has given no sign of life for 3 s"), "{page}: {reason}");
        }
        let page = get(http, "/metrics").await;
        assert_eq!(page.0, 200, "metrics are served nevertheless");
        assert!(value(&page.1, "hairpin_worker_unanswered_seconds{worker=\"1\"}") > 2.0, "{}", page.1);
        assert_eq!(value(&page.1, "hairpin_ready"), 0.0);
        while get(http, "/livez").await.0 != 200 {
            assert!(since.elapsed() < Duration::from_secs(20));
            sleep(Duration::from_millis(50)).await;
        }
        assert_eq!(get(http, "/healthz").await.0, 200);
        let page = get(http, "/metrics").await.1;
        let late = |worker: usize| {
            let up_to = format!("hairpin_worker_loop_lag_seconds_bucket{{worker=\"{worker}\",le=\"3\"}}");
            let all = format!("hairpin_worker_loop_lag_seconds_count{{worker=\"{worker}\"}}");
            value(&page, &all) - value(&page, &up_to)
        };
        assert!(late(1) >= 1.0, "the late answer counts: {page}");
        assert_eq!(value(&page, "hairpin_ready"), 1.0);
        tokio::task::spawn_blocking(move || relay.stop()).await.unwrap();
    }

    /// Nothing is applied while a worker does not go on, since some would serve by other settings than others.
    #[tokio::test]
    async fn a_blocked_worker_keeps_settings_from_changing() {
        let (mut relay, _) = relay("127.1.14.4", &["127.1.14.4"]);
        let mut new = relay.settings().clone();
        new.limits.channels = 7;
        relay.workers.block(1, Duration::from_secs(3)).await;
        let error = reload(&mut relay, &new).await.unwrap_err().to_string();
        assert_eq!(error, "worker 1 gives no sign of life; reload again once it responds");
        assert_eq!(relay.settings().changes(&new).len(), 1);
        assert_eq!(reload(&mut relay, &new).await.unwrap().len(), 1);
        tokio::task::spawn_blocking(move || relay.stop()).await.unwrap();
    }

    /// A listener for streams or HTTP may take a part of the addresses of one that goes with the same reload, or more; what
    /// cannot be bound changes nothing.
    #[tokio::test]
    async fn listeners_are_replaced_by_wider_and_narrower_ones() {
        let (mut relay, http) = relay("127.1.14.5", &["127.1.14.5"]);
        let tcp = free_port("127.1.14.5");
        let any = |addr: SocketAddr| SocketAddr::new("0.0.0.0".parse().unwrap(), addr.port());
        let mut narrow = relay.settings().clone();
        narrow.listen.tcp = vec![tcp];
        let mut wide = narrow.clone();
        (wide.listen.tcp, wide.http.listen) = (vec![any(tcp)], vec![any(http)]);
        for settings in [&narrow, &wide, &narrow, &wide] {
            reload(&mut relay, settings).await.unwrap();
            assert_eq!(get(http, "/livez").await.0, 200);
            let (tcp, http) = (settings.listen.tcp[0], settings.http.listen[0]);
            let elsewhere = |addr: SocketAddr| SocketAddr::new("127.1.14.6".parse().unwrap(), addr.port());
            for addr in [tcp, http] {
                let is_open = TcpStream::connect(elsewhere(addr)).await.is_ok();
                assert_eq!(is_open, addr.ip().is_unspecified(), "{addr}");
            }
            TcpStream::connect((IpAddr::from([127, 1, 14, 5]), tcp.port())).await.unwrap();
        }
        let mut taken = narrow.clone();
        let holder = std::net::TcpListener::bind("127.1.14.5:0").unwrap();
        taken.http.listen = vec![holder.local_addr().unwrap()];
        let error = reload(&mut relay, &taken).await.unwrap_err().to_string();
        assert!(error.starts_with(&format!("http {}: already in use", taken.http.listen[0])), "{error}");
        assert_eq!(relay.settings().changes(&wide), []);
        assert_eq!(get(http, "/livez").await.0, 200);
        tokio::task::spawn_blocking(move || relay.stop()).await.unwrap();
    }

    /// A listener for TLS needs a certificate, and without one nothing is applied, so no call ends.
    #[tokio::test]
    async fn a_reload_without_a_certificate_for_tls_changes_nothing() {
        let (mut relay, _) = relay("127.1.14.7", &["127.1.14.7"]);
        let before = relay.settings().clone();
        let mut new = before.clone();
        new.listen.tls = vec![free_port("127.1.14.7")];
        new.limits.channels = 7;
        let error = reload(&mut relay, &new).await.unwrap_err().to_string();
        assert_eq!(error, "TLS: there is no certificate; set tls.cert and tls.key");
        assert_eq!((relay.settings().changes(&before), relay.generation), (vec![], 1));
        tokio::task::spawn_blocking(move || relay.stop()).await.unwrap();
    }

    /// Two clients of the relay meet at the external address that they were told, although a reload has written another one.
    #[tokio::test]
    async fn a_reload_remembers_the_external_address_of_running_calls() {
        let (mut relay, _) = relay("127.1.14.8", &["127.1.14.8"]);
        let [local, old, new]: [IpAddr; 3] =
            ["127.1.14.8", "203.0.113.5", "203.0.113.6"].map(|ip| ip.parse().unwrap());
        let mut settings = relay.settings().clone();
        for (external, known) in
            [(vec![old], [true, false]), (vec![new], [true, true]), (vec![], [false, true])]
        {
            settings.relay.external_ip = external.iter().map(|ip| ip.to_string().parse().unwrap()).collect();
            reload(&mut relay, &settings).await.unwrap();
            relay.adapt().await;
            let found = [old, new].map(|ip| relay.site().external.inside_of(ip));
            assert_eq!(found, known.map(|known| known.then_some(local)), "{external:?}");
        }
        tokio::task::spawn_blocking(move || relay.stop()).await.unwrap();
    }

    /// Without an address to relay with, the relay is alive but not ready, and it says what it waits for.
    #[tokio::test]
    async fn a_relay_without_an_address_is_alive_but_not_ready() {
        let (relay, http) = relay("127.1.14.2", &["192.0.2.77"]);
        assert_eq!(get(http, "/livez").await.0, 200);
        for page in ["/readyz", "/healthz"] {
            let reason = "there is no address to relay with (192.0.2.77: this machine does not have it)\n";
            assert_eq!(get(http, page).await, (503, reason.into()), "{page}");
        }
        let page = get(http, "/metrics").await.1;
        assert!(page.contains("hairpin_relay_addresses{family=\"ipv4\"} 0\n"), "{page}");
        let pages = relay.pages.clone();
        tokio::task::spawn_blocking(move || relay.stop()).await.unwrap();
        assert_eq!(http::Pages::is_live(&*pages), Ok(()), "workers that have stopped are no failure");
        assert_eq!(http::Pages::is_ready(&*pages), Err("the relay is stopping".into()));
    }

    #[tokio::test]
    async fn a_relay_with_some_of_its_addresses_is_ready() {
        let (relay, http) = relay("127.1.14.3", &["192.0.2.77", "127.1.14.3"]);
        assert_eq!(get(http, "/readyz").await.0, 200);
        assert_eq!(relay.site().relay, ["127.1.14.3".parse::<IpAddr>().unwrap()]);
        tokio::task::spawn_blocking(move || relay.stop()).await.unwrap();
    }
}
