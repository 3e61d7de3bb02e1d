//! The limit on open files, and what it leaves room for. Each allocation holds one file descriptor per address family, and each
//! client connection holds one.
//!
//! Whoever uses the last descriptor takes it from everybody: without one there is no relay socket, no connection and no
//! answer to a scrape. So connections and relay sockets together are bounded below the limit. Relay sockets have at least half
//! of that room, or as many as there can be, and leave at least a quarter to connections. Connections to backends have
//! descriptors of their own, if the configuration has backends.

use std::fs;

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tracing::warn;

use super::http;
use super::metrics::NamedLimits;
use crate::config::{Settings, Site};
use crate::datapath::{DatapathSnapshot, DescriptorRoom, SpliceLimits};

/// How many files a worker and the thread beside it open: epoll sets, timers, wake-up handles.
const PER_WORKER: u64 = 10;

/// How many files are open if nobody can tell.
const UNKNOWN: u64 = 64;

/// Files besides those for HTTP that are left free: the configuration, certificates, netlink, log files.
const OTHERS: u64 = 24;

/// How many connections and relay sockets ports and settings allow.
#[derive(Clone, Copy, Debug)]
struct Wanted {
    /// Connections of clients.
    connections: u64,
    /// Relay sockets.
    relay_sockets: u64,
    /// Connections to backends.
    splices: u64,
    /// Those that are open now, perhaps to backends that are not in the configuration any more.
    open_splices: u64,
}

/// What the limit on open files leaves room for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Room {
    /// Connections of clients.
    connections: u64,
    /// Connections that there may be at least, however many relay sockets there are.
    kept: u64,
    /// Connections and relay sockets.
    total: u64,
    /// Connections to backends, whose descriptors are set apart.
    splices: u64,
}

/// What is known about files, to divide them again when settings change.
pub struct FileBudget {
    limit: u64,
    /// Files that are open for other purposes than listeners, relay sockets and connections.
    open: u64,
    /// What the log said last.
    told: Option<String>,
}

/// What relay sockets and connections have.
#[derive(Clone, Copy)]
pub struct FileRoom {
    connections: u64,
    splices: u64,
    lowers_splices: bool,
    descriptors: DescriptorRoom,
}

impl FileBudget {
    /// Nothing is divided yet.
    pub fn new(limit: u64, open: u64) -> FileBudget {
        FileBudget { limit, open, told: None }
    }

    /// Divides what is left beside the `listening` sockets and the connections to backends that are open already. The log says what holds if that is less than the settings allow, once.
    pub fn divide(
        &mut self,
        settings: &Settings,
        site: &Site,
        listening: u64,
        open_splices: usize,
    ) -> FileRoom {
        let has_streams = site.listeners.iter().any(|(transport, _)| transport.is_stream());
        let wanted = Wanted { open_splices: open_splices as u64, ..wanted(settings, has_streams) };
        let room = divided(self.limit, self.open + listening, wanted);
        let told = warning(self.limit, wanted, room);
        if let Some(warning) = told.as_ref().filter(|warning| self.told.as_ref() != Some(*warning)) {
            warn!("{warning}");
        }
        self.told = told;
        let count = |files: u64| usize::try_from(files).unwrap_or(usize::MAX);
        let connections = if has_streams { room.connections } else { settings.limits.connections };
        FileRoom {
            connections,
            splices: if wanted.splices == 0 { settings.limits.spliced_connections } else { room.splices },
            lowers_splices: room.splices < wanted.splices,
            descriptors: DescriptorRoom {
                total: count(room.total),
                connections: count(room.kept),
                lowers_connections: connections < settings.limits.connections,
            },
        }
    }
}

impl FileRoom {
    /// Bounds what a snapshot allows.
    pub fn apply(&self, snapshot: &mut DatapathSnapshot) {
        snapshot.connections.connections = usize::try_from(self.connections).unwrap_or(usize::MAX);
        snapshot.descriptors = self.descriptors;
        snapshot.splices.connections = usize::try_from(self.splices).unwrap_or(usize::MAX);
        snapshot.splices.by_open_files = self.lowers_splices;
    }

    /// The limits that hold.
    pub fn limits(&self, settings: &Settings) -> NamedLimits {
        let mut settings = settings.clone();
        settings.limits.connections = self.connections;
        settings.limits.spliced_connections = self.splices;
        settings.limits_by_name()
    }
}

/// The connections and relay sockets that the settings allow.
fn wanted(settings: &Settings, has_streams: bool) -> Wanted {
    // An address per family, unless they are listed.
    let addresses = settings.relay.addresses.len().max(2);
    let connections = if has_streams { settings.limits.connections } else { 0 };
    let has_backends = settings.listeners().iter().any(|listener| !listener.service.backends().is_empty());
    let splices = if has_backends { settings.limits.spliced_connections } else { 0 };
    Wanted { connections, relay_sockets: sockets(settings, addresses), splices, open_splices: 0 }
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

/// Raises the limit as far as possible and returns it.
pub fn raise_limit() -> u64 {
    let (soft, hard) = match getrlimit(Resource::RLIMIT_NOFILE) {
        Ok(limits) => limits,
        Err(error) => {
            warn!(%error, "cannot read the limit on open files");
            return 1024;
        }
    };
    match setrlimit(Resource::RLIMIT_NOFILE, hard, hard) {
        Ok(()) => hard,
        Err(error) => {
            warn!(%error, "cannot raise the limit on open files from {soft} to {hard}");
            soft
        }
    }
}

/// How many files are open now, and will be once so many workers run. To be called before listeners are open.
pub fn open(workers: u64) -> u64 {
    let now = fs::read_dir("/proc/self/fd").map_or(UNKNOWN, |files| files.count() as u64);
    now + workers * PER_WORKER
}

fn divided(limit: u64, open: u64, wanted: Wanted) -> Room {
    let free = limit.saturating_sub(open);
    // A low limit has room for few scrapes at a time.
    let total = free - (http::CONNECTIONS as u64 + OTHERS).min(free / 4);
    // TURN is what the relay is for: connections to backends have a third at most, and none of TURN's descriptors.
    let (splices, set_apart) = match wanted.splices {
        0 => (0, 0),
        splices => {
            let pipes = SpliceLimits::descriptors(0);
            let fit = (total / 3).saturating_sub(pipes) / 2;
            let splices = splices.min(fit).max(1);
            (splices, SpliceLimits::descriptors(splices).min(total / 3))
        }
    };
    // Those that run keep theirs, although new ones may be fewer, or none.
    let running = match wanted.open_splices {
        0 => 0,
        open => SpliceLimits::descriptors(open).min(total / 3),
    };
    let total = total - set_apart.max(running);
    // A client of a connection has a relay socket too.
    let share = (total / 2).max(total.saturating_sub(wanted.relay_sockets));
    let connections = wanted.connections.min(share);
    Room { connections, kept: connections.min(total / 4), total, splices }
}

fn warning(limit: u64, wanted: Wanted, room: Room) -> Option<String> {
    let Wanted { connections, relay_sockets, splices, .. } = wanted;
    let fits = room.total >= connections.saturating_add(relay_sockets) && room.splices >= splices;
    (!fits).then(|| {
        let fewer = |holds: u64, wanted: u64, what: &str, setting: &str| match holds < wanted {
            true => format!("at most {holds} {what} are served instead of the {wanted} of {setting}, and "),
            false => String::new(),
        };
        let fewer = fewer(room.splices, splices, "connections to backends", "limits.spliced_connections")
            + &fewer(room.connections, connections, "connections", "limits.connections");
        let (and_connections, connections_and) = match connections {
            0 => (String::new(), ""),
            _ => (format!(" and {connections} connections"), "connections and "),
        };
        let and_splices = match splices {
            0 => String::new(),
            _ => format!(" and {splices} connections to backends, of two files each,"),
        };
        format!(
            "this process may open {limit} files, fewer than the {relay_sockets} relay sockets{and_connections}{and_splices} \
             that ports and limits allow: {fewer}at most {} {connections_and}relay sockets together, and allocations beyond \
             that are refused with 508; raise LimitNOFILE (systemd) or `ulimit -Hn`",
            room.total
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn room(connections: u64, kept: u64, total: u64) -> Room {
        Room { connections, kept, total, splices: 0 }
    }

    #[test]
    fn a_high_limit_leaves_room_for_everything() {
        let wanted = Wanted { connections: 50_000, relay_sockets: 16_384, splices: 0, open_splices: 0 };
        let room = divided(524_288, 100, wanted);
        assert_eq!((room.connections, warning(524_288, wanted, room)), (50_000, None));
    }

    /// Connections leave room for relay sockets, and both for everything else.
    #[test]
    fn a_low_limit_is_divided() {
        let divided = |connections, relay_sockets| {
            divided(1024, 100, Wanted { connections, relay_sockets, splices: 0, open_splices: 0 })
        };
        assert_eq!(divided(50_000, 16_384), room(418, 209, 836));
        assert_eq!(divided(100, 16_384), room(100, 100, 836));
        assert_eq!(divided(50_000, 10), room(826, 209, 836));
        let wanted = Wanted { connections: 50_000, relay_sockets: 16_384, splices: 0, open_splices: 0 };
        for limit in 0..5000 {
            let Room { connections, kept, total, .. } = super::divided(limit, 100, wanted);
            assert!(total <= limit.saturating_sub(100) && 2 * connections <= total, "{limit}");
            assert_eq!(kept, total / 4, "{limit}");
        }
        let warning = warning(1024, wanted, room(418, 209, 836)).unwrap();
        for part in
            ["may open 1024 files", "at most 418 connections are served instead of the 50000", "LimitNOFILE"]
        {
            assert!(warning.contains(part), "{warning}");
        }
    }

    /// Connections to backends take two descriptors each, a third of all at most, and none that TURN's may have.
    #[test]
    fn connections_to_backends_have_descriptors_of_their_own() {
        let wanted =
            |splices| Wanted { connections: 50_000, relay_sockets: 16_384, splices, open_splices: 0 };
        let high = divided(524_288, 100, wanted(10_000));
        assert_eq!((high.splices, high.connections), (10_000, 50_000));
        assert_eq!(high.total + SpliceLimits::descriptors(10_000), divided(524_288, 100, wanted(0)).total);
        assert_eq!(warning(524_288, wanted(10_000), high), None);
        for limit in 300..5000 {
            let (without, with) = (divided(limit, 100, wanted(0)), divided(limit, 100, wanted(10_000)));
            assert!(with.splices >= 1 && with.total >= without.total * 2 / 3, "{limit}: {with:?}");
        }
        let low = divided(1024, 100, wanted(10_000));
        let warning = warning(1024, wanted(10_000), low).unwrap();
        let told = format!(
            "at most {} connections to backends are served instead of the 10000 of limits.spliced_connections",
            low.splices
        );
        assert!(
            warning.contains(&told) && warning.contains("at most 279 connections are served"),
            "{warning}"
        );
    }

    /// A reload that removes backends, or allows fewer connections to them, gives TURN no descriptor that is still open.
    #[test]
    fn connections_that_run_keep_their_descriptors() {
        let wanted = |splices, open_splices| Wanted {
            connections: 50_000,
            relay_sockets: 16_384,
            splices,
            open_splices,
        };
        let divided = |splices, open_splices| divided(1024, 100, wanted(splices, open_splices));
        assert_eq!(divided(0, 40), Room { splices: 0, ..divided(40, 40) });
        assert_eq!(divided(10, 40), Room { splices: 10, ..divided(40, 0) });
        assert!(divided(0, 40).total + 2 * 40 <= divided(0, 0).total);
        assert!(divided(0, 1_000_000).total >= divided(0, 0).total * 2 / 3, "TURN keeps its share");
        assert_eq!(divided(40, 10), divided(40, 0));
    }

    #[test]
    fn the_limit_is_raised_to_the_hard_limit() {
        let limit = raise_limit();
        assert_eq!(getrlimit(Resource::RLIMIT_NOFILE).unwrap(), (limit, limit));
        assert!(open(1) > PER_WORKER);
    }
}
