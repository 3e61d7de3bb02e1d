//! The sockets that a running relay listens on, for clients and for HTTP, and how they change: everything new is bound before
//! anything else happens.
//!
//! A removed listener for UDP serves its allocations until the last one has ended, and then closes. If its address returns
//! before, its sockets are used again. A removed listener for TCP or TLS closes at once, since its connections have sockets of
//! their own.
//!
//! A listener for TCP and one for TLS at the same address are one socket. It stays open until both are removed.

use std::collections::{HashMap, HashSet};
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;

use anyhow::{Result, bail};
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tracing::{error, info};

use super::http;
use crate::datapath::{DatapathConfig, ListenerGroup};
use crate::plural::counted;
use crate::turn::Transport;

/// A listener for clients, as the configuration has it.
pub type ClientListener = (Transport, SocketAddr);

/// The most removed listeners for streams that are remembered; the oldest is forgotten.
const REMOVED: usize = 256;

/// What listens now.
#[derive(Default)]
pub struct Listeners {
    open: Vec<OpenListener>,
    /// Removed listeners for UDP with allocations.
    closing: Vec<OpenListener>,
    /// Removed listeners for streams: connections of theirs may have no allocation yet.
    removed: Vec<ClientListener>,
    http: Vec<HttpListener>,
    /// One of `closing` has no allocation any more.
    emptied: Arc<Notify>,
}

/// The sockets of a listener for clients.
#[derive(Clone)]
pub struct OpenListener {
    pub listener: ClientListener,
    pub group: Arc<ListenerGroup>,
}

struct HttpListener {
    addr: SocketAddr,
    task: JoinHandle<()>,
}

/// What is about to change. New sockets are bound; dropping this closes them again.
#[derive(Default)]
pub struct ListenerChange {
    /// Bound, and not served yet.
    pub opened: Vec<OpenListener>,
    /// New listeners for streams at the address of another one, whose sockets they share.
    shared: Vec<OpenListener>,
    /// They were being removed, and come back with their sockets.
    pub returned: Vec<ClientListener>,
    pub removed: Vec<ClientListener>,
    pub http_opened: Vec<(SocketAddr, TcpListener)>,
    pub http_removed: Vec<SocketAddr>,
    /// Stream sockets of clients that are about to be closed.
    closed: Vec<SocketAddr>,
    /// Stream listeners of others that are about to be closed.
    leaving: Vec<SocketAddr>,
}

impl Listeners {
    /// Binds what is missing for these listeners. Nothing changes yet. `leaving` are stream listeners of this process beside these
    /// that are about to be closed.
    ///
    /// # Errors
    /// One of them cannot be bound, or overlaps one that still serves its allocations.
    pub fn prepare(
        &self,
        wanted: &[ClientListener],
        http: &[SocketAddr],
        leaving: &[SocketAddr],
        config: &DatapathConfig,
        key: u32,
    ) -> Result<ListenerChange> {
        let is_open = |listener: &ClientListener| self.open.iter().any(|one| one.listener == *listener);
        let is_closing = |listener: &ClientListener| self.closing.iter().any(|one| one.listener == *listener);
        let gone = self.open.iter().map(|one| one.listener).filter(|listener| !wanted.contains(listener));
        let http_gone = self.http.iter().map(|one| one.addr).filter(|addr| !http.contains(addr));
        let removed: Vec<ClientListener> = gone.collect();
        let is_wanted = |addr: &SocketAddr| wanted.iter().any(|one| one.0.is_stream() && one.1 == *addr);
        let streams = removed.iter().filter(|(transport, _)| transport.is_stream()).map(|(_, addr)| *addr);
        let mut change = ListenerChange {
            closed: streams.filter(|addr| !is_wanted(addr)).collect(),
            removed,
            http_removed: http_gone.collect(),
            leaving: leaving.to_vec(),
            ..ListenerChange::default()
        };
        for &listener in wanted.iter().filter(|listener| !is_open(listener)) {
            if is_closing(&listener) {
                change.returned.push(listener);
                continue;
            }
            let (transport, addr) = listener;
            let is_same = |one: &&OpenListener| one.listener.0.is_stream() && one.listener.1 == addr;
            let mut others = self.open.iter().chain(&change.opened);
            if transport.is_stream()
                && let Some(other) = others.find(is_same)
            {
                let group = other.group.clone();
                change.shared.push(OpenListener { listener, group });
                continue;
            }
            let group = match transport {
                Transport::Udp => {
                    self.refuse_overlaps(addr, &change)?;
                    ListenerGroup::open(addr, config, key)
                }
                Transport::Tcp | Transport::Tls if change.makes_room_for(addr) => {
                    ListenerGroup::open_stream_beside(transport, addr, config)
                }
                Transport::Tcp | Transport::Tls => ListenerGroup::open_stream(transport, addr, config),
            }?;
            change.opened.push(OpenListener { listener, group: Arc::new(group) });
        }
        for &addr in http.iter().filter(|addr| self.http.iter().all(|one| one.addr != **addr)) {
            let listener = http::open(addr, change.makes_room_for(addr))?;
            change.http_opened.push((addr, listener));
        }
        Ok(change)
    }

    /// A listener for UDP that still serves its allocations would lose their packets to another one at a part of its addresses.
    fn refuse_overlaps(&self, addr: SocketAddr, change: &ListenerChange) -> Result<()> {
        if let Some(one) = self.closing.iter().find(|one| overlap(one.listener.1, addr)) {
            let (old, count) = (one.listener.1, counted(one.group.allocations(), "allocation"));
            bail!(
                "udp {addr}: overlaps udp {old}, which was removed and still drains: it serves {count} until they have ended; \
                 reload again once the log says that it is closed, or list {old} instead"
            );
        }
        let mut removed = change.removed.iter().filter(|(transport, _)| *transport == Transport::Udp);
        if let Some((_, old)) = removed.find(|(_, old)| overlap(*old, addr)) {
            bail!(
                "udp {addr}: overlaps udp {old}, which this configuration removes and which then drains: it serves its allocations \
                 until they have ended; remove {old} by a reload of its own, and add {addr} once the log says that it is closed"
            );
        }
        Ok(())
    }

    /// The listeners for clients as they are after a change: those that take allocations, and those that do not any more.
    pub fn after(&self, change: &ListenerChange) -> (Vec<ClientListener>, Vec<ClientListener>) {
        let stays = |listener: &ClientListener| !change.removed.contains(listener);
        let open = self.open.iter().map(|one| one.listener).filter(stays);
        let new = change.opened.iter().chain(&change.shared).map(|one| one.listener);
        let open: Vec<_> = open.chain(new).chain(change.returned.iter().copied()).collect();
        let closing = self.closing.iter().map(|one| one.listener).chain(self.removed.iter().copied());
        let closing = closing.chain(change.removed.iter().copied());
        // Where another listener has all of its addresses now, nobody can tell which connections are of the removed one.
        let is_replaced = |(transport, addr): &ClientListener| {
            let is_same = |other: &Transport| other.is_stream() == transport.is_stream();
            let mut same = open.iter().filter(|(other, at)| is_same(other) && overlap(*at, *addr));
            same.any(|(_, at)| at.ip() == addr.ip() || at.ip().is_unspecified())
        };
        let closing = closing.filter(|listener| !is_replaced(listener)).collect();
        (open, closing)
    }

    /// Every socket for clients and HTTP that this process has open, or will have after a change.
    pub fn descriptors(&self, change: &ListenerChange, workers: u64) -> u64 {
        let clients = distinct(self.open.iter().chain(&self.closing).chain(&change.opened)).len() as u64;
        // Two sockets per worker: of UDP one of each kind, of streams one and its duplicate beside the worker.
        2 * workers * clients + (self.http.len() + change.http_opened.len()) as u64
    }

    /// Keeps the groups of a change that workers serve now, and forgets those that they do not. Returns the listeners for streams
    /// that are to be closed.
    pub fn keep(&mut self, change: &mut ListenerChange) -> Vec<OpenListener> {
        let is_removed = |one: &OpenListener| change.removed.contains(&one.listener);
        let (removed, stay): (Vec<_>, Vec<_>) = self.open.drain(..).partition(is_removed);
        let returns = |one: &OpenListener| change.returned.contains(&one.listener);
        let (returned, closing): (Vec<_>, Vec<_>) = self.closing.drain(..).partition(returns);
        for OpenListener { listener: (_, addr), group } in &returned {
            info!("udp {addr}: it has not closed yet, and takes new allocations again");
            group.keep();
        }
        let new = change.opened.drain(..).chain(change.shared.drain(..));
        self.open = stay.into_iter().chain(new).chain(returned).collect();
        let (streams, datagrams): (Vec<_>, Vec<_>) =
            removed.into_iter().partition(|one| one.listener.0.is_stream());
        self.removed.retain(|listener| self.open.iter().all(|one| one.listener != *listener));
        for one in &streams {
            self.removed.retain(|listener| *listener != one.listener);
            self.removed.push(one.listener);
        }
        let excess = self.removed.len().saturating_sub(REMOVED);
        self.removed.drain(..excess);
        for OpenListener { listener: (_, addr), group } in &datagrams {
            match group.allocations() {
                0 => info!("udp {addr}: removed; it has no allocation and closes now"),
                serves => info!(
                    "udp {addr}: removed; it refuses new allocations, serves {} until they end, and then closes",
                    counted(serves, "allocation")
                ),
            }
            group.notify_when_empty(&self.emptied);
        }
        self.closing = closing.into_iter().chain(datagrams).collect();
        let is_shared =
            |one: &OpenListener| self.open.iter().any(|open| Arc::ptr_eq(&open.group, &one.group));
        distinct(streams.iter().filter(|one| !is_shared(one))).into_iter().cloned().collect()
    }

    /// Sets the largest TCP segment of new connections; listeners that are not listed leave it to the kernel.
    pub fn set_segment_sizes(&self, sizes: &HashMap<SocketAddr, u16>) {
        for OpenListener { listener: (transport, addr), group } in &self.open {
            if let Err(error) = group.set_mss(sizes.get(addr).copied().unwrap_or_default()) {
                error!("{} {addr}: the mss stays what it was: {error}", transport.as_str());
            }
        }
    }

    /// Serves an HTTP listener by this task.
    pub fn add_http(&mut self, addr: SocketAddr, task: JoinHandle<()>) {
        self.http.push(HttpListener { addr, task });
    }

    /// Closes HTTP listeners. Connections that were accepted are served to their end.
    pub async fn remove_http(&mut self, addrs: &[SocketAddr]) {
        let (removed, stay): (Vec<_>, Vec<_>) =
            self.http.drain(..).partition(|one| addrs.contains(&one.addr));
        self.http = stay;
        for HttpListener { task, .. } in removed {
            task.abort();
            // Its socket is closed once the task has ended.
            let _ = task.await;
        }
    }

    /// Stops serving HTTP.
    pub fn stop_http(&self) {
        self.http.iter().for_each(|one| one.task.abort());
    }

    /// Waits until a removed listener may have no allocation any more.
    pub async fn emptied(&self) {
        self.emptied.notified().await;
    }

    /// Takes the removed listeners that have no allocation any more.
    pub fn take_empty(&mut self) -> Vec<OpenListener> {
        let (empty, closing) = self.closing.drain(..).partition(|one| one.group.allocations() == 0);
        self.closing = closing;
        empty
    }
}

impl ListenerChange {
    /// Whether a socket that this change closes keeps a stream socket from being bound to `addr`.
    fn makes_room_for(&self, addr: SocketAddr) -> bool {
        self.closes().chain(self.leaving.iter().copied()).any(|old| overlap(old, addr))
    }

    /// The stream listeners that this change closes.
    pub fn closes(&self) -> impl Iterator<Item = SocketAddr> {
        self.closed.iter().chain(&self.http_removed).copied()
    }
}

/// Listeners with sockets of their own: of several that share them the first.
fn distinct<'a>(listeners: impl Iterator<Item = &'a OpenListener>) -> Vec<&'a OpenListener> {
    let mut seen = HashSet::new();
    listeners.filter(|one| seen.insert(Arc::as_ptr(&one.group))).collect()
}

/// Whether sockets at both addresses would receive some of the same packets.
pub(super) fn overlap(one: SocketAddr, other: SocketAddr) -> bool {
    let is_any = one.ip().is_unspecified() || other.ip().is_unspecified();
    one.port() == other.port() && one.is_ipv4() == other.is_ipv4() && (is_any || one.ip() == other.ip())
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;

    use super::*;
    use crate::config::{Settings, Site};

    /// Listeners at these addresses, at one free port.
    fn at<const N: usize>(transport: Transport, ips: [&str; N]) -> [ClientListener; N] {
        let port = match transport {
            Transport::Udp => UdpSocket::bind("0.0.0.0:0").unwrap().local_addr().unwrap().port(),
            _ => TcpListener::bind("0.0.0.0:0").unwrap().local_addr().unwrap().port(),
        };
        ips.map(|ip| (transport, SocketAddr::new(ip.parse().unwrap(), port)))
    }

    fn config() -> DatapathConfig {
        let site = Site { cpus: 1, ..Site::default() };
        Settings::default().datapath(&site)
    }

    /// The listeners after changes to each of these lists in turn.
    fn after(lists: &[&[ClientListener]]) -> (Vec<ClientListener>, Vec<ClientListener>) {
        let mut listeners = Listeners::default();
        for list in lists {
            let mut change = listeners.prepare(list, &[], &[], &config(), 1).unwrap();
            let after = listeners.after(&change);
            listeners.keep(&mut change);
            assert_eq!(listeners.after(&ListenerChange::default()), after, "a change is as it was announced");
        }
        listeners.after(&ListenerChange::default())
    }

    /// A connection of a removed listener gets no allocation, unless another listener has all of its addresses now.
    #[test]
    fn removed_listeners_are_closing() {
        let [any, one, other] = at(Transport::Tcp, ["0.0.0.0", "127.1.16.1", "127.1.16.2"]);
        for (lists, closing) in [
            (&[&[one, other][..], &[other]][..], &[one][..]),
            (&[&[one], &[other], &[one]], &[other]),
            (&[&[any], &[one]], &[any]),
            (&[&[one, other], &[any]], &[]),
            (&[&[any], &[one], &[any]], &[]),
        ] {
            let (open, found) = after(lists);
            assert_eq!((&open[..], &found[..]), (*lists.last().unwrap(), closing), "{lists:?}");
        }
    }

    /// TCP and TLS at one address are one socket, which stays open while one of them is served: no connection that waits in it is
    /// lost.
    #[test]
    fn tcp_and_tls_at_one_address_share_a_socket() {
        let [tcp] = at(Transport::Tcp, ["127.1.16.5"]);
        let tls = (Transport::Tls, tcp.1);
        let mut listeners = Listeners::default();
        let mut groups = Vec::new();
        for (list, opened, closed) in [
            (&[tcp, tls][..], 1, 0),
            (&[tls], 0, 0),
            (&[tcp], 0, 0),
            (&[tls, tcp], 0, 0),
            (&[], 0, 1),
            (&[tls], 1, 0),
            (&[tcp, tls], 0, 0),
            (&[tcp], 0, 0),
            (&[], 0, 1),
        ] {
            let mut change = listeners.prepare(list, &[], &[], &config(), 1).unwrap();
            assert_eq!((change.opened.len(), change.closes().count() >= closed), (opened, true), "{list:?}");
            groups.extend(change.opened.iter().map(|one| Arc::downgrade(&one.group)));
            let (open, closing) = listeners.after(&change);
            assert!(open.len() == list.len() && list.iter().all(|one| open.contains(one)), "{open:?}");
            assert_eq!(closing.is_empty(), !list.is_empty(), "connections of both: {closing:?}");
            assert_eq!(listeners.descriptors(&change, 3), 6);
            let removed = listeners.keep(&mut change);
            assert_eq!(removed.len(), closed, "{list:?}");
            drop(removed);
            assert_eq!(groups.last().unwrap().upgrade().is_some(), !list.is_empty(), "{list:?}");
        }
        assert_eq!(groups.len(), 2);
    }

    /// Sockets for a part of the addresses of one that still serves its allocations would take packets of theirs.
    #[test]
    fn what_overlaps_a_draining_listener_is_refused() {
        let [any, one, other] = at(Transport::Udp, ["0.0.0.0", "127.1.16.3", "127.1.16.4"]);
        let mut listeners = Listeners::default();
        let open = |listeners: &Listeners, list: &[ClientListener]| {
            listeners.prepare(list, &[], &[], &config(), 1).map_err(|error| error.to_string())
        };
        let mut change = open(&listeners, &[one]).unwrap();
        listeners.keep(&mut change);
        let group = listeners.open[0].group.clone();
        let error = open(&listeners, &[any]).err().unwrap();
        let overlaps = |what: &str| format!("udp {}: overlaps udp {}, which {what}", any.1, one.1);
        assert!(error.starts_with(&overlaps("this configuration removes")), "{error}");
        let mut change = open(&listeners, &[other]).unwrap();
        assert_eq!(change.removed, [one]);
        listeners.keep(&mut change);
        let error = open(&listeners, &[any, other]).err().unwrap();
        assert!(error.starts_with(&overlaps("was removed and still drains")), "{error}");
        let mut change = open(&listeners, &[one, other]).unwrap();
        assert_eq!((&change.returned[..], change.opened.len()), (&[one][..], 0), "it takes its sockets back");
        listeners.keep(&mut change);
        assert!(listeners.open.iter().any(|open| Arc::ptr_eq(&open.group, &group)));
        assert_eq!((listeners.closing.len(), listeners.take_empty().len()), (0, 0));
        let mut change = open(&listeners, &[other]).unwrap();
        listeners.keep(&mut change);
        drop(group);
        assert_eq!(listeners.take_empty().len(), 1);
        let mut change = open(&listeners, &[other]).unwrap();
        listeners.keep(&mut change);
        drop(open(&listeners, &[one, other]).unwrap());
    }
}
