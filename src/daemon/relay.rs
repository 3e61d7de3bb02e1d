//! A running relay. It opens the listeners first, so that a second process fails before it changes anything, then starts the
//! workers and HTTP.

use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rand::SeedableRng;
use rand::rngs::StdRng;
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tracing::{error, info, warn};

use super::heartbeat::{self, Heartbeat};
use super::host::HostTables;
use super::http::{self, Reserve};
use super::logging::LostLines;
use super::place::Place;
use super::{announce, files, metrics, own, random, watch};
use crate::auth::{Auth, NonceKeys};
use crate::config::{Settings, Site};
use crate::datapath::{DescriptorRoom, ListenerGroup, Workers};
use crate::tls::Identity;
use crate::turn::bucket::RateLimiter;
use crate::turn::{PerFamily, Transport};

/// How long the workers may take to receive a snapshot.
const APPLY: Duration = Duration::from_secs(10);

/// The most former relayed addresses that are remembered; the oldest is forgotten.
const FORMER: usize = 256;

/// A relay that serves clients.
pub struct RunningRelay {
    settings: Settings,
    /// What this relay is on the network now, and what the workers serve by.
    place: Place,
    site: Site,
    auth: Arc<Auth>,
    /// The same for the whole life of the process, so that TLS sessions can be resumed.
    identity: Option<Identity>,
    keys: RelayKeys,
    /// Counts the snapshots that the workers were given.
    generation: u64,
    workers: Arc<Workers>,
    pages: Arc<RelayPages>,
    /// Addresses of this machine may have changed.
    changed: Arc<Notify>,
    tasks: Vec<JoinHandle<()>>,
}

/// Random keys that last as long as the process, so that nonces stay valid when settings change.
struct RelayKeys {
    nonce: NonceKeys,
    /// Keys the hash that assigns UDP clients to workers.
    steering: u32,
}

/// What HTTP serves.
struct RelayPages {
    workers: Arc<Workers>,
    heartbeat: Arc<Heartbeat>,
    stopping: AtomicBool,
    /// The addresses that relay, and why there is none.
    addresses: Mutex<(PerFamily<u64>, Result<(), String>)>,
    limits: metrics::NamedLimits,
    lost: LostLines,
    host: HostTables,
}

impl RunningRelay {
    /// Opens every socket and starts the workers. Must be called on a tokio runtime.
    pub fn start(settings: &Settings, lost: LostLines) -> Result<RunningRelay> {
        // Low descriptors, opened before others need them.
        let (reserve, host) = (Reserve::open(), HostTables::open());
        let place = Place::look(settings, &[]);
        if let Some(misfit) = &place.misfit {
            bail!("relay.external_ip: {misfit}");
        }
        let site = Site {
            listeners: listeners(settings.listen.all())?,
            external: place.external.clone(),
            relay: place.addresses(),
            former: Vec::new(),
            own: place.own.ranges.clone(),
            widened: place.own.widened,
            draining: false,
            cpus: thread::available_parallelism().map_or(1, usize::from),
        };
        let limit = files::raise_limit();

        let mut datapath = settings.datapath(&site);
        let keys = RelayKeys {
            nonce: NonceKeys { current: random::bytes()?, previous: None },
            steering: u32::from_ne_bytes(random::bytes()?),
        };
        let open = |&(transport, addr): &(Transport, SocketAddr)| match transport {
            Transport::Udp => ListenerGroup::open(addr, &datapath, keys.steering),
            Transport::Tcp | Transport::Tls => ListenerGroup::open_stream(transport, addr, &datapath),
        };
        let groups = site.listeners.iter().map(|listener| open(listener).map(Arc::new));
        let groups = groups.collect::<Result<Vec<_>, _>>()?;
        let http = settings.http.listen.iter().map(|addr| http::open(*addr)).collect::<Result<Vec<_>>>()?;

        let mut rng = StdRng::from_seed(random::bytes()?);
        let streams = groups.iter().filter(|group| group.transport().is_stream()).count();
        let room =
            files::divide(limit, files::open(datapath.workers as u64, streams as u64), wanted(settings));
        let count = |files: u64| usize::try_from(files).unwrap_or(usize::MAX);
        datapath.descriptors = DescriptorRoom {
            total: count(room.total),
            connections: if streams > 0 { count(room.kept) } else { 0 },
            lowers_connections: room.connections < settings.limits.connections,
        };
        let mut settings = settings.clone();
        settings.limits.connections = room.connections;

        let auth = auth(&settings, &keys.nonce)?;
        let identity = settings.tls.identity()?;
        let snapshot = settings.snapshot(1, &site, auth.clone(), identity.clone());
        let workers = Arc::new(Workers::start(
            &datapath,
            groups,
            snapshot,
            RateLimiter::new(settings.rates(), &mut rng),
            rng,
        )?);
        announce::relay(&settings, &site, &place);

        let heartbeat = Arc::new(Heartbeat::new(workers.threads()));
        let pages = Arc::new(RelayPages {
            workers: workers.clone(),
            heartbeat: heartbeat.clone(),
            stopping: AtomicBool::new(false),
            addresses: Mutex::new(summary(&place)),
            limits: settings.limits_by_name(),
            lost,
            host,
        });
        let server = http::Server::new(pages.clone(), reserve);
        let serve = |listener| {
            let server = server.clone();
            tokio::spawn(async move {
                if let Err(error) = server.serve(listener).await {
                    error!(%error, "http has stopped serving");
                }
            })
        };
        let mut tasks: Vec<_> = http.into_iter().map(serve).collect();
        tasks.push(tokio::spawn(heartbeat::run(workers.clone(), heartbeat)));
        let changed = Arc::new(Notify::new());
        let notified = changed.clone();
        tasks.push(tokio::spawn(async move { watch::run(&notified).await }));
        Ok(RunningRelay {
            settings,
            place,
            site,
            auth,
            identity,
            keys,
            generation: 1,
            workers,
            pages,
            changed,
            tasks,
        })
    }

    /// The addresses of this relay.
    pub fn site(&self) -> &Site {
        &self.site
    }

    /// Uses the `[auth]` of these settings from now on. Nonces and allocations stay valid.
    ///
    /// # Errors
    /// The credentials cannot be used; nothing has changed.
    pub async fn renew_auth(&mut self, settings: &Settings) -> Result<()> {
        let auth = auth(settings, &self.keys.nonce)?;
        let settings = Settings { auth: settings.auth.clone(), ..self.settings.clone() };
        self.apply(&settings, &self.site.clone(), auth.clone()).await?;
        (self.settings, self.auth) = (settings, auth);
        Ok(())
    }

    /// Waits until addresses of this machine may have changed. [`RunningRelay::adapt`] is to be called then.
    pub async fn changed(&self) {
        self.changed.notified().await;
    }

    /// Looks for the addresses of this machine, and serves by them from now on.
    pub async fn adapt(&mut self) {
        let place = Place::look(&self.settings, &self.place.relay);
        if place == self.place {
            return;
        }
        let site = Site {
            external: place.external.clone(),
            former: former(&self.site, &place),
            relay: place.addresses(),
            own: place.own.ranges.clone(),
            widened: place.own.widened,
            ..self.site.clone()
        };
        if let Err(error) = self.apply(&self.settings.clone(), &site, self.auth.clone()).await {
            // The place stays what it was, so the next look tries again.
            return error!("the addresses of this machine have changed, but are not in use yet: {error:#}");
        }
        announce::change(&self.settings, (&self.place, &self.site), (&place, &site));
        *self.pages.addresses.lock().unwrap_or_else(PoisonError::into_inner) = summary(&place);
        (self.place, self.site) = (place, site);
    }

    /// Gives the workers a new snapshot.
    async fn apply(&mut self, settings: &Settings, site: &Site, auth: Arc<Auth>) -> Result<()> {
        self.generation += 1;
        let snapshot = settings.snapshot(self.generation, site, auth, self.identity.clone());
        // A stuck worker must not keep the daemon from its signals.
        timeout(APPLY, self.workers.apply(snapshot)).await.context("a worker takes no commands")??;
        Ok(())
    }

    /// Ends every allocation and waits for the workers. Not to be called from an asynchronous context.
    pub fn stop(&self) {
        self.pages.stopping.store(true, Ordering::Relaxed);
        self.workers.stop();
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

impl http::Pages for RelayPages {
    fn metrics(&self) -> String {
        let addresses = self.addresses().0;
        let lost = self.lost.lines() as u64;
        metrics::page(&self.workers.stats(), addresses, &self.limits, lost, &self.host.udp_errors())
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
        self.is_live()?;
        self.addresses().1
    }
}

impl RelayPages {
    fn addresses(&self) -> (PerFamily<u64>, Result<(), String>) {
        self.addresses.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// The addresses that have relayed until now or before, do not any more, and are still this machine's: allocations live
/// there until they end.
fn former(site: &Site, place: &Place) -> Vec<IpAddr> {
    let relay = place.addresses();
    let stays = |ip: &IpAddr| !relay.contains(ip) && place.own.may_contain(*ip);
    let mut former: Vec<IpAddr> = site.relay.iter().chain(&site.former).copied().filter(stays).collect();
    former.truncate(FORMER);
    former
}

/// What HTTP tells about the addresses that relay.
fn summary(place: &Place) -> (PerFamily<u64>, Result<(), String>) {
    let count = |is_family: fn(&IpAddr) -> bool| {
        place.relay.iter().filter(|chosen| is_family(&chosen.address)).count() as u64
    };
    (PerFamily { v4: count(IpAddr::is_ipv4), v6: count(IpAddr::is_ipv6) }, place.is_ready())
}

fn auth(settings: &Settings, nonce_keys: &NonceKeys) -> Result<Arc<Auth>> {
    let auth = Auth::new(settings.auth(), nonce_keys.clone())?;
    auth.warnings().iter().for_each(|warning| warn!("{warning}"));
    Ok(Arc::new(auth))
}

/// The listeners that this machine can open: those for IPv6 only if it has IPv6.
fn listeners(listed: Vec<(Transport, SocketAddr)>) -> Result<Vec<(Transport, SocketAddr)>> {
    let has_ipv6 = own::has_ipv6();
    let (listeners, skipped): (Vec<_>, Vec<_>) =
        listed.into_iter().partition(|(_, addr)| has_ipv6 || addr.is_ipv4());
    if listeners.is_empty() {
        bail!("this machine has no IPv6, and [listen] has only IPv6 addresses; list an IPv4 address");
    }
    skipped
        .iter()
        .for_each(|(one, addr)| info!("skipping {} {addr}: this machine has no IPv6", one.as_str()));
    Ok(listeners)
}

/// The connections and relay sockets that the settings allow.
fn wanted(settings: &Settings) -> files::Wanted {
    // An address per family, unless they are listed.
    let addresses = settings.relay.addresses.len().max(2);
    files::Wanted { connections: settings.limits.connections, relay_sockets: sockets(settings, addresses) }
}

/// The most relay sockets that there can be.
fn sockets(settings: &Settings, addresses: usize) -> u64 {
    let ports = u64::try_from(settings.relay.ports.len()).unwrap_or(u64::MAX);
    let ports = ports.saturating_mul(addresses as u64);
    // An allocation has at most two.
    match settings.limits.allocations {
        0 => ports,
        allocations => ports.min(allocations.saturating_mul(2)),
    }
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;
    use tokio::time::{Instant, sleep};

    use super::*;
    use crate::auth::Secret;

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
        (RunningRelay::start(&settings, LostLines::none()).unwrap(), http)
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
        assert_eq!(get(http, "/metrics").await.0, 200, "metrics are served nevertheless");
        while get(http, "/livez").await.0 != 200 {
            assert!(since.elapsed() < Duration::from_secs(20));
            sleep(Duration::from_millis(50)).await;
        }
        assert_eq!(get(http, "/healthz").await.0, 200);
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
