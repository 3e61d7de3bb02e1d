//! How a running relay changes: settings that were reloaded, addresses that come and go, removed listeners that have served
//! their last allocation. Running allocations stay.

use std::collections::HashSet;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tokio::task::spawn_blocking;
use tokio::time::timeout;
use tracing::{error, info};

use super::certificates::{self, Cause};
use super::files::FileRoom;
use super::listeners::{ClientListener, ListenerChange, OpenListener};
use super::place::Place;
use super::relay::{RunningRelay, auth, listeners, serve, summary};
use super::{announce, unix_now};
use crate::auth::Auth;
use crate::config::{Change, Settings, Site};
use crate::datapath::DatapathConfig;
use crate::tls::Identities;
use crate::turn::peers::Overlays;

/// How long the workers may take to receive a snapshot.
const APPLY: Duration = Duration::from_secs(10);

/// How long they may take to give a sign of life before settings are applied.
const RESPOND: Duration = Duration::from_secs(2);

/// The most former relayed addresses that are remembered; the oldest is forgotten.
const FORMER: usize = 256;

/// What the workers serve by.
#[derive(Clone)]
struct Serving {
    settings: Settings,
    site: Site,
    auth: Arc<Auth>,
    identities: Option<Identities>,
    room: FileRoom,
}

/// New settings that can be used, with the sockets that they need. Dropping it closes those.
pub struct PreparedReload {
    changes: Vec<Change>,
    settings: Settings,
    auth: Arc<Auth>,
    certificates: certificates::Prepared,
    place: Place,
    listeners: ListenerChange,
    /// Listeners that this machine cannot open, and could not before.
    skipped: Vec<ClientListener>,
}

impl PreparedReload {
    /// The stream listeners that it closes.
    pub fn closes(&self) -> Vec<SocketAddr> {
        self.listeners.closes().collect()
    }

    /// Who the relay will be for TLS clients.
    pub fn identities(&self) -> Option<Identities> {
        self.certificates.identities()
    }
}

impl RunningRelay {
    /// Checks settings and binds every socket that is missing for them. Nothing changes yet. `leaving` are stream listeners
    /// beside those of the relay that are about to be closed.
    ///
    /// # Errors
    /// They cannot be used, or a socket cannot be bound.
    pub async fn prepare(&self, new: &Settings, leaving: &[SocketAddr]) -> Result<PreparedReload> {
        let (changes, settings, auth) = self.digest(new).await?;
        // One that cannot be used keeps nothing else from being applied.
        let certificates = self.certificates.prepare(&settings.tls);
        // The workers refuse a listener for TLS without one, but only after they serve by everything else.
        let needs_one = settings.listens_for_tls() || settings.http.uses_tls();
        if needs_one && certificates.identities().is_none() {
            let why = certificates.failures().into_iter().next();
            bail!(
                "{}",
                why.unwrap_or_else(|| "TLS: there is no certificate; set tls.cert and tls.key".to_owned())
            );
        }
        let (wanted, mut skipped) = listeners(&settings)?;
        let before = listeners(&self.settings).map(|(_, skipped)| skipped).unwrap_or_default();
        skipped.retain(|one| !before.contains(one));
        let place = self.place_for(&settings)?;
        if let Some(silent) = self.workers.silent_threads(RESPOND).await.first() {
            bail!("worker {} gives no sign of life; reload again once it responds", silent.worker);
        }
        // Last, since clients may connect to what is bound.
        let mss = settings.segment_sizes();
        let datapath = DatapathConfig { mss, ..self.settings.datapath(&self.site) };
        let listeners =
            self.listeners.prepare(&wanted, &settings.http.listen, leaving, &datapath, self.keys.steering)?;
        Ok(PreparedReload { changes, settings, auth, certificates, place, listeners, skipped })
    }

    /// What differs in new settings, what of them holds before a restart, and the keys of their credentials: in a thread of its own,
    /// since there may be hundreds of thousands of users.
    async fn digest(&self, new: &Settings) -> Result<(Vec<Change>, Settings, Arc<Auth>)> {
        let (running, new) = (self.settings.clone(), new.clone());
        let (keys, serving) = (self.keys.clone(), self.auth.clone());
        let digesting = spawn_blocking(move || {
            let changes = running.changes(&new);
            let settings = new.until_restart(&running);
            let auth = auth(&settings, &keys, Some((&serving, &running)))?;
            Ok((changes, settings, auth))
        });
        digesting.await.context("there is no thread to derive keys")?
    }

    /// Runs with prepared settings from now on, but for those that need a restart. Returns every difference to what it ran with.
    ///
    /// # Errors
    /// A worker cannot serve by them; the relay serves as before.
    pub async fn reload(&mut self, prepared: PreparedReload) -> Result<Vec<Change>> {
        let PreparedReload { changes, settings, auth, certificates, place, listeners: mut change, skipped } =
            prepared;
        let identities = certificates.identities();
        let (open, closing) = self.listeners.after(&change);
        let closing = self.settings.recall(&self.site.closing, &closing);
        let site = Site { listeners: open, closing, ..self.site_at(&place) };
        let workers = settings.datapath(&site).workers as u64;
        let descriptors = self.listeners.descriptors(&change, workers);
        let room = self.files.divide(&settings, &site, descriptors, self.splices().connections);

        let serving = Serving { settings, site, auth, identities, room };
        if let Err(error) = self.serve_all(&serving, &change).await {
            self.give_up(&change).await;
            return Err(error);
        }
        for listener in self.listeners.keep(&mut change) {
            self.unlisten(&listener).await;
        }
        self.listeners.set_segment_sizes(&serving.settings.segment_sizes());
        self.http.configure(&serving.settings.http, serving.identities.clone());
        self.listeners.remove_http(&change.http_removed).await;
        for (addr, listener) in change.http_opened.drain(..) {
            self.listeners.add_http(addr, serve(&self.http, listener));
        }

        announce::skipped(&skipped);
        announce::change(&serving.settings, (&self.place, &self.site), (&place, &serving.site));
        self.pages.changing().limits = serving.room.limits(&serving.settings);
        self.external.ask_now(&place.questions);
        self.move_to(place);
        self.certificates.adopt(certificates, Cause::Reload);
        let Serving { settings, site, auth, identities: _, room } = serving;
        (self.settings, self.site, self.auth, self.room) = (settings, site, auth, room);
        Ok(changes)
    }

    /// Reads the files of certificates again, and serves new connections by them from now on.
    /// Returns whether there are others now.
    pub async fn renew_certificates(&mut self) -> bool {
        if !self.certificates.renew().await {
            return false;
        }
        self.settings.tls = self.certificates.settings().clone();
        self.http.configure(&self.settings.http, self.certificates.identities());
        if let Err(error) = self.apply(&self.serving()).await {
            error!("certificates have changed, but are not in use yet: {error:#}");
        }
        true
    }

    /// Why some certificates cannot be used, so that earlier ones serve.
    pub fn certificate_failures(&self) -> Vec<String> {
        self.certificates.failures()
    }

    /// Counts a reload, which took so long.
    pub fn count_reload(&self, done: bool, took: Duration) {
        self.pages.changing().reloads.count(done, unix_now(), took);
    }

    /// Makes new allocations, or none, from now on.
    ///
    /// # Errors
    /// A worker does not respond. It will make them, or none, when it does: the snapshot waits in its queue.
    pub(super) async fn admit(&mut self, admits: bool) -> Result<()> {
        self.site.draining = !admits;
        self.apply(&self.serving()).await
    }

    /// Looks for the addresses of this machine, and serves by them from now on.
    pub async fn adapt(&mut self) {
        let place = Place::look(&self.settings, &self.place.relay, &self.external.known());
        self.external.ask(&place.questions);
        if place == self.place {
            return;
        }
        let serving = Serving { site: self.site_at(&place), ..self.serving() };
        if let Err(error) = self.apply(&serving).await {
            // The place stays what it was, so the next look tries again.
            return error!("the addresses of this machine have changed, but are not in use yet: {error:#}");
        }
        announce::change(&self.settings, (&self.place, &self.site), (&place, &serving.site));
        self.move_to(place);
        self.site = serving.site;
    }

    /// Is there from now on, for health and metrics.
    fn move_to(&mut self, place: Place) {
        let set = |place: &Place| place.addresses().into_iter().collect::<HashSet<IpAddr>>();
        let mut pages = self.pages.changing();
        pages.relay_changes += u64::from(set(&place) != set(&self.place));
        pages.addresses = summary(&place);
        drop(pages);
        self.place = place;
    }

    /// Serves by these overlays from now on. Permissions and channels that they refuse end.
    ///
    /// # Errors
    /// A worker does not respond; the others serve as before.
    pub async fn set_overlays(&mut self, overlays: Overlays) -> Result<()> {
        let serving = Serving { site: Site { overlays, ..self.site.clone() }, ..self.serving() };
        if let Err(error) = self.apply(&serving).await {
            if let Err(error) = self.apply(&self.serving()).await {
                error!("a worker still serves by the new overlays: it does not respond: {error:#}");
            }
            return Err(error);
        }
        self.site = serving.site;
        Ok(())
    }

    /// Closes the removed listeners that have served their last allocation.
    pub async fn close_drained(&mut self) {
        for listener in self.listeners.take_empty() {
            self.unlisten(&listener).await;
            let (transport, addr) = listener.listener;
            let transport = transport.as_str();
            drop(listener);
            info!("{transport} {addr}: the last allocation has ended; the removed listener is closed");
        }
        let (open, closing) = self.listeners.after(&ListenerChange::default());
        let closing = self.settings.recall(&self.site.closing, &closing);
        let site = Site { listeners: open, closing, ..self.site.clone() };
        let serving = Serving { site, ..self.serving() };
        match self.apply(&serving).await {
            Ok(()) => self.site = serving.site,
            // Peers stay refused at its address until the next change.
            Err(error) => {
                error!("a removed listener is closed, but its address stays refused to peers: {error:#}")
            }
        }
    }

    /// Gives the workers the snapshot, then the new listeners.
    async fn serve_all(&mut self, serving: &Serving, change: &ListenerChange) -> Result<()> {
        self.apply(serving).await?;
        for OpenListener { group, .. } in &change.opened {
            let listening = timeout(APPLY, self.workers.listen(group.clone()));
            listening.await.context("a worker takes no commands")??;
        }
        Ok(())
    }

    /// Serves as before a change that has failed.
    async fn give_up(&mut self, change: &ListenerChange) {
        if let Err(error) = self.apply(&self.serving()).await {
            error!("a worker still serves by the new settings: it does not respond: {error:#}");
        }
        // One deadline for all of them: a worker that takes no commands takes none of these.
        let unlisten = async {
            for OpenListener { group, .. } in &change.opened {
                self.workers.unlisten(group.transport(), group.local_addr()).await;
            }
        };
        if timeout(APPLY, unlisten).await.is_err() {
            error!("new listeners are not closed: a worker takes no commands");
        }
    }

    /// Takes a listener from the workers.
    async fn unlisten(&self, OpenListener { group, .. }: &OpenListener) {
        let (transport, addr) = (group.transport(), group.local_addr());
        if timeout(APPLY, self.workers.unlisten(transport, addr)).await.is_err() {
            let transport = transport.as_str();
            error!("{transport} {addr}: the removed listener is not closed: a worker takes no commands");
        }
    }

    /// Gives the workers a new snapshot.
    async fn apply(&mut self, serving: &Serving) -> Result<()> {
        self.generation += 1;
        let Serving { settings, site, auth, identities, room } = serving;
        let mut snapshot = settings.snapshot(self.generation, site, auth.clone(), identities.clone());
        room.apply(&mut snapshot);
        timeout(APPLY, self.workers.apply(snapshot)).await.context("a worker takes no commands")??;
        Ok(())
    }

    fn serving(&self) -> Serving {
        Serving {
            settings: self.settings.clone(),
            site: self.site.clone(),
            auth: self.auth.clone(),
            identities: self.certificates.identities(),
            room: self.room,
        }
    }

    /// Where the relay is with other settings.
    fn place_for(&self, settings: &Settings) -> Result<Place> {
        let same = settings.relay == self.settings.relay;
        // A configured address is none that was discovered before.
        let before = if same { &self.place.relay[..] } else { &[] };
        let place = Place::look(settings, before, &self.external.known());
        match &place.misfit {
            Some(misfit) if !same => bail!("relay.external_ip: {misfit}"),
            _ => Ok(place),
        }
    }

    fn site_at(&self, place: &Place) -> Site {
        Site {
            external: place.external.clone().after(&self.site.external, |ip| place.own.may_contain(ip)),
            former: former(&self.site, place),
            relay: place.addresses(),
            own: place.own.ranges.clone(),
            widened: place.own.widened,
            ..self.site.clone()
        }
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
