//! The limit on open files, and what it leaves room for. Each allocation holds one file descriptor per address family, and each
//! client connection holds one.
//!
//! Whoever uses the last descriptor takes it from everybody: without one there is no relay socket, no connection and no
//! answer to a scrape. So connections and relay sockets together are bounded below the limit. Relay sockets have at least half of that room, or as
//! many as there can be, and leave at least a quarter to connections.

use std::fs;

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tracing::warn;

use super::http;

/// How many files a worker and the thread beside it open: epoll sets, timers, wake-up handles.
const PER_WORKER: u64 = 10;

/// How many files are open if nobody can tell.
const UNKNOWN: u64 = 64;

/// Files besides those for HTTP that are left free: the configuration, certificates, netlink, log files.
const OTHERS: u64 = 24;

/// How many connections and relay sockets ports and settings allow.
#[derive(Clone, Copy, Debug)]
pub struct Wanted {
    /// Connections of clients.
    pub connections: u64,
    /// Relay sockets.
    pub relay_sockets: u64,
}

/// What the limit on open files leaves room for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Room {
    /// Connections of clients.
    pub connections: u64,
    /// Connections that there may be at least, however many relay sockets there are.
    pub kept: u64,
    /// Connections and relay sockets.
    pub total: u64,
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

/// How many files are open now, and will be once so many workers run on `streams` listeners for connections.
pub fn open(workers: u64, streams: u64) -> u64 {
    let now = fs::read_dir("/proc/self/fd").map_or(UNKNOWN, |files| files.count() as u64);
    // A worker has a descriptor of its own for each listener.
    now + workers * (PER_WORKER + streams)
}

/// Divides what `limit` leaves beside the files that are `open`. The log says what holds if that is less than `wanted`.
pub fn divide(limit: u64, open: u64, wanted: Wanted) -> Room {
    let room = divided(limit, open, wanted);
    if let Some(warning) = warning(limit, wanted, room) {
        warn!("{warning}");
    }
    room
}

fn divided(limit: u64, open: u64, wanted: Wanted) -> Room {
    let free = limit.saturating_sub(open);
    // A low limit has room for few scrapes at a time.
    let total = free - (http::CONNECTIONS as u64 + OTHERS).min(free / 4);
    // A client of a connection has a relay socket too.
    let share = (total / 2).max(total.saturating_sub(wanted.relay_sockets));
    let connections = wanted.connections.min(share);
    Room { connections, kept: connections.min(total / 4), total }
}

fn warning(limit: u64, wanted: Wanted, room: Room) -> Option<String> {
    let Wanted { connections, relay_sockets } = wanted;
    (room.total < connections.saturating_add(relay_sockets)).then(|| {
        let fewer = match room.connections < connections {
            true => {
                let holds = room.connections;
                format!("at most {holds} connections are served instead of the {connections} of limits.connections, and ")
            }
            false => String::new(),
        };
        format!(
            "this process may open {limit} files, fewer than the {relay_sockets} relay sockets and {connections} connections \
             that ports and limits allow: {fewer}at most {} connections and relay sockets together, and allocations beyond \
             that are refused with 508; raise LimitNOFILE (systemd) or `ulimit -Hn`",
            room.total
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn room(connections: u64, kept: u64, total: u64) -> Room {
        Room { connections, kept, total }
    }

    #[test]
    fn a_high_limit_leaves_room_for_everything() {
        let wanted = Wanted { connections: 50_000, relay_sockets: 16_384 };
        let room = divided(524_288, 100, wanted);
        assert_eq!((room.connections, warning(524_288, wanted, room)), (50_000, None));
    }

    /// Connections leave room for relay sockets, and both for everything else.
    #[test]
    fn a_low_limit_is_divided() {
        let divided = |connections, relay_sockets| divided(1024, 100, Wanted { connections, relay_sockets });
        assert_eq!(divided(50_000, 16_384), room(418, 209, 836));
        assert_eq!(divided(100, 16_384), room(100, 100, 836));
        assert_eq!(divided(50_000, 10), room(826, 209, 836));
        let wanted = Wanted { connections: 50_000, relay_sockets: 16_384 };
        for limit in 0..5000 {
            let Room { connections, kept, total } = super::divided(limit, 100, wanted);
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

    #[test]
    fn the_limit_is_raised_to_the_hard_limit() {
        let limit = raise_limit();
        assert_eq!(getrlimit(Resource::RLIMIT_NOFILE).unwrap(), (limit, limit));
        assert!(open(1, 1) > PER_WORKER);
    }
}
