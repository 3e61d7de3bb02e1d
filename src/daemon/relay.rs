//! A running relay. It opens the listeners first, so that a second process fails before it changes anything, then starts the
//! workers and HTTP.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rand::SeedableRng;
use rand::rngs::StdRng;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tracing::{error, info, warn};

use super::addresses::{self, Chosen, Why};
use super::heartbeat::{self, Heartbeat};
use super::logging::LostLines;
use super::{announce, files, host, http, metrics, random};
use crate::auth::{Auth, NonceKeys};
use crate::config::{Settings, Site, external};
use crate::datapath::{ListenerGroup, Workers};
use crate::turn::Transport;
use crate::turn::bucket::RateLimiter;
use crate::turn::peers::Cidr;

/// How long the workers may take to receive a snapshot.
const APPLY: Duration = Duration::from_secs(10);

/// A relay that serves clients.
pub struct RunningRelay {
    settings: Settings,
    site: Site,
    keys: RelayKeys,
    /// Counts the snapshots that the workers were given.
    generation: u64,
    workers: Arc<Workers>,
    pages: Arc<RelayPages>,
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
    limits: metrics::NamedLimits,
    lost: LostLines,
}

impl RunningRelay {
    /// Opens every socket and starts the workers. Must be called on a tokio runtime.
    pub fn start(settings: &Settings, lost: LostLines) -> Result<RunningRelay> {
        let chosen = choose(settings)?;
        let relay: Vec<IpAddr> = chosen.iter().map(|chosen| chosen.address).collect();
        let site = Site {
            listeners: listeners(settings.listen.all())?,
            external: external::pair(&settings.relay.external_ip, &relay).context("relay.external_ip")?,
            relay,
            own: own()?,
            cpus: thread::available_parallelism().map_or(1, usize::from),
        };
        files::raise_limit(sockets(settings, site.relay.len()), settings.limits.connections);

        let datapath = settings.datapath(&site);
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
        let snapshot = settings.snapshot(1, &site, auth(settings, &keys.nonce)?, settings.tls.identity()?);
        let workers = Arc::new(Workers::start(
            &datapath,
            groups,
            snapshot,
            RateLimiter::new(settings.rates(), &mut rng),
            rng,
        )?);
        announce::relay(settings, &site, &chosen);

        let heartbeat = Arc::new(Heartbeat::new());
        let pages = Arc::new(RelayPages {
            workers: workers.clone(),
            heartbeat: heartbeat.clone(),
            stopping: AtomicBool::new(false),
            limits: settings.limits_by_name(),
            lost,
        });
        let serve = |listener| {
            let pages = Arc::clone(&pages);
            tokio::spawn(async move {
                if let Err(error) = http::serve(listener, pages).await {
                    error!(%error, "http has stopped serving");
                }
            })
        };
        let mut tasks: Vec<_> = http.into_iter().map(serve).collect();
        tasks.push(tokio::spawn(heartbeat::run(workers.clone(), heartbeat)));
        Ok(RunningRelay { settings: settings.clone(), site, keys, generation: 1, workers, pages, tasks })
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
        let identity = self.settings.tls.identity()?;
        let settings = Settings { auth: settings.auth.clone(), ..self.settings.clone() };
        self.generation += 1;
        let snapshot = settings.snapshot(self.generation, &self.site, auth, identity);
        // A stuck worker must not keep the daemon from its signals.
        timeout(APPLY, self.workers.apply(snapshot)).await.context("a worker takes no commands")??;
        self.settings = settings;
        Ok(())
    }

    /// Ends every allocation and waits for the workers. Not to be called from an asynchronous context.
    pub fn stop(&self) {
        self.pages.stopping.store(true, Ordering::Relaxed);
        self.tasks.iter().for_each(JoinHandle::abort);
        self.workers.stop();
    }
}

impl http::Pages for RelayPages {
    fn metrics(&self) -> String {
        metrics::page(&self.workers.stats(), &self.limits, self.lost.lines() as u64, &host::udp_errors())
    }

    fn is_healthy(&self) -> bool {
        !self.stopping.load(Ordering::Relaxed) && self.heartbeat.is_alive()
    }
}

fn auth(settings: &Settings, nonce_keys: &NonceKeys) -> Result<Arc<Auth>> {
    let auth = Auth::new(settings.auth(), nonce_keys.clone())?;
    auth.warnings().iter().for_each(|warning| warn!("{warning}"));
    Ok(Arc::new(auth))
}

/// The relayed addresses: those of the configuration, otherwise at most one per family.
fn choose(settings: &Settings) -> Result<Vec<Chosen>> {
    let configured = &settings.relay.addresses;
    if !configured.is_empty() {
        return Ok(configured.iter().map(|&address| Chosen { address, why: Why::Configured }).collect());
    }
    let (v4, v6) = (addresses::discover_v4(), addresses::discover_v6());
    if let (Err(v4), Err(v6)) = (&v4, &v6) {
        bail!(
            "there is no address to relay with (IPv4: {v4}; IPv6: {v6}); list addresses of this machine in relay.addresses in \
             a configuration and start with --config"
        );
    }
    for (family, found) in [("IPv4", &v4), ("IPv6", &v6)] {
        if let Err(why) = found {
            info!("no {family} relayed address: {why}");
        }
    }
    Ok([v4, v6].into_iter().flatten().collect())
}

/// The addresses of this machine's interfaces, and what is loopback on every machine.
pub(super) fn own() -> Result<Vec<Cidr>> {
    let mut own: Vec<Cidr> = addresses::all()
        .context("cannot list the addresses of this machine")?
        .into_iter()
        .map(Cidr::from)
        .collect();
    own.extend(["127.0.0.0/8", "::1/128"].map(|range| range.parse::<Cidr>().expect("a range of ours")));
    Ok(own)
}

/// The listeners that this machine can open: those for IPv6 only if it has IPv6.
fn listeners(listed: Vec<(Transport, SocketAddr)>) -> Result<Vec<(Transport, SocketAddr)>> {
    if addresses::has_ipv6() {
        return Ok(listed);
    }
    let (v6, rest): (Vec<_>, Vec<_>) = listed.into_iter().partition(|(_, addr)| addr.is_ipv6());
    if rest.is_empty() {
        bail!("this machine has no IPv6, and [listen] has only IPv6 addresses; list an IPv4 address");
    }
    v6.iter().for_each(|(one, addr)| info!("skipping {} {addr}: this machine has no IPv6", one.as_str()));
    Ok(rest)
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
