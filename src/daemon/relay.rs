//! A running relay: listener sockets first, so that a second one fails before it changes anything, then the workers,
//! then HTTP.

use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;

use anyhow::{Context, Result, bail};
use rand::SeedableRng;
use rand::rngs::StdRng;
use tokio::task::JoinHandle;
use tracing::{error, info, warn};

use super::addresses::{self, Chosen, Why};
use super::logging::LostLines;
use super::{announce, files, host, http, metrics, random};
use crate::auth::{Auth, NonceKeys};
use crate::config::{Settings, Site, external};
use crate::datapath::{ListenerGroup, Workers};
use crate::turn::Transport;

/// A relay that serves clients.
pub struct RunningRelay {
    site: Site,
    nonce_keys: NonceKeys,
    pages: Arc<RelayPages>,
    http: Vec<JoinHandle<()>>,
}

/// What HTTP shows. The workers are gone while the relay stops.
struct RelayPages {
    workers: Mutex<Option<Workers>>,
    limits: metrics::NamedLimits,
    lost: LostLines,
}

impl RunningRelay {
    /// Opens every socket and starts the workers. To be called on a tokio runtime.
    pub fn start(settings: &Settings, lost: LostLines) -> Result<RunningRelay> {
        let chosen = choose(settings)?;
        let relay: Vec<IpAddr> = chosen.iter().map(|chosen| chosen.address).collect();
        let site = Site {
            listeners: listeners(settings.listen.all())?,
            external: external::pair(&settings.relay.external_ip, &relay).context("relay.external_ip")?,
            relay,
            local: addresses::all().context("this machine's addresses cannot be listed")?,
            cpus: thread::available_parallelism().map_or(1, usize::from),
        };
        files::raise_limit(sockets(settings, site.relay.len()), settings.limits.connections);

        let datapath = settings.datapath(&site, settings.tls.identity()?);
        let key = u32::from_ne_bytes(random::bytes()?);
        let open = |(transport, addr): &(Transport, SocketAddr)| match transport {
            Transport::Udp => ListenerGroup::open(*addr, &datapath, key),
            stream => ListenerGroup::open_stream(*stream, *addr, &datapath),
        };
        let groups = site.listeners.iter().map(open).collect::<Result<Vec<_>, _>>()?;
        let http = settings.http.listen.iter().map(|addr| http::open(*addr)).collect::<Result<Vec<_>>>()?;

        let nonce_keys = NonceKeys { current: random::bytes()?, previous: None };
        let auth = auth(settings, &nonce_keys)?;
        let workers = Workers::start(
            &datapath,
            groups.into(),
            Arc::new(settings.turn(&site)),
            auth,
            settings.answers(u64::from_ne_bytes(random::bytes()?)),
            StdRng::from_seed(random::bytes()?),
        )?;
        announce::relay(settings, &site, &chosen);

        let pages = Arc::new(RelayPages {
            workers: Mutex::new(Some(workers)),
            limits: settings.limits_by_name(),
            lost,
        });
        let serve = |listener| {
            let pages = Arc::clone(&pages);
            tokio::spawn(async move {
                if let Err(error) = http::serve(listener, pages).await {
                    error!(%error, "http has ended");
                }
            })
        };
        let http = http.into_iter().map(serve).collect();
        Ok(RunningRelay { site, nonce_keys, pages, http })
    }

    /// Where it listens and what it relays with.
    pub fn site(&self) -> &Site {
        &self.site
    }

    /// Judges credentials by these settings from now on. Nonces stay good, and so do running calls.
    pub fn renew_auth(&self, settings: &Settings) -> Result<()> {
        let auth = auth(settings, &self.nonce_keys)?;
        if let Some(workers) = self.pages.workers().as_ref() {
            workers.renew_auth(auth);
        }
        Ok(())
    }

    /// Ends every allocation and waits for the workers.
    pub fn stop(self) {
        self.http.iter().for_each(JoinHandle::abort);
        let workers = self.pages.workers().take();
        if let Some(workers) = workers {
            workers.stop();
        }
    }
}

impl RelayPages {
    fn workers(&self) -> MutexGuard<'_, Option<Workers>> {
        // It is filled once and emptied once.
        self.workers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl http::Pages for RelayPages {
    fn metrics(&self) -> String {
        let stats = self.workers().as_ref().map(Workers::stats).unwrap_or_default();
        metrics::page(&stats, &self.limits, self.lost.lines() as u64, &host::udp_errors())
    }

    fn is_healthy(&self) -> bool {
        self.workers().is_some()
    }
}

fn auth(settings: &Settings, nonce_keys: &NonceKeys) -> Result<Arc<Auth>> {
    let auth = Auth::new(settings.auth(), nonce_keys.clone())?;
    auth.warnings().iter().for_each(|warning| warn!("{warning}"));
    Ok(Arc::new(auth))
}

/// The relayed addresses: those of the configuration, else one a family as far as there is one.
fn choose(settings: &Settings) -> Result<Vec<Chosen>> {
    let configured = &settings.relay.addresses;
    if !configured.is_empty() {
        return Ok(configured.iter().map(|&address| Chosen { address, why: Why::Configured }).collect());
    }
    let (v4, v6) = (addresses::discover_v4(), addresses::discover_v6());
    if let (Err(v4), Err(v6)) = (&v4, &v6) {
        bail!(
            "no address to relay with (IPv4: {v4}; IPv6: {v6}); list addresses of this machine as relay.addresses in a \
             configuration and start with --config"
        );
    }
    for (family, found) in [("IPv4", &v4), ("IPv6", &v6)] {
        if let Err(why) = found {
            info!("no {family} relayed addresses: {why}");
        }
    }
    Ok([v4, v6].into_iter().flatten().collect())
}

/// The listeners that this machine can have: none with IPv6 where there is no IPv6.
fn listeners(listed: Vec<(Transport, SocketAddr)>) -> Result<Vec<(Transport, SocketAddr)>> {
    if addresses::has_ipv6() {
        return Ok(listed);
    }
    let (v6, rest): (Vec<_>, Vec<_>) = listed.into_iter().partition(|(_, addr)| addr.is_ipv6());
    if rest.is_empty() {
        bail!("this machine has no IPv6, and [listen] lists nothing else; list an IPv4 address");
    }
    v6.iter().for_each(|(one, addr)| info!("{} {addr} is left out: this machine has no IPv6", one.as_str()));
    Ok(rest)
}

/// How many relay sockets there can be.
fn sockets(settings: &Settings, addresses: usize) -> u64 {
    let ports = u64::try_from(settings.relay.ports.len()).unwrap_or(u64::MAX);
    let ports = ports.saturating_mul(addresses as u64);
    // An allocation has two at most.
    ports.min(settings.limits.allocations.saturating_mul(2))
}
