//! The limit on open files, and what it leaves room for. Each allocation holds one file descriptor per address family, and each
//! client connection holds one.
//!
//! Whoever uses the last descriptor takes it from everybody: without one there is no relay socket, no connection and no
//! answer to a scrape. So connections and relay sockets are bounded below the limit, each by a share of its own.

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

/// What the limit on open files leaves room for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Room {
    /// Connections of clients.
    pub connections: u64,
    /// Relay sockets.
    pub relay_sockets: u64,
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

/// Divides what `limit` leaves beside the files that are `open`. `wanted` is what ports and settings allow; the log says what
/// holds instead.
pub fn divide(limit: u64, open: u64, wanted: Room) -> Room {
    let room = divided(limit, open, wanted);
    const FIX: &str = "raise LimitNOFILE (systemd) or `ulimit -Hn`";
    if room.connections < wanted.connections {
        warn!(
            "this process may open {limit} files, so at most {} connections are served instead of the {} of \
             limits.connections; {FIX}",
            room.connections, wanted.connections
        );
    }
    if room.relay_sockets < wanted.relay_sockets {
        warn!(
            "this process may open {limit} files, so at most {} relay sockets are opened instead of the {} that relay.ports \
             and limits.allocations allow, and allocations beyond that are refused with 508; {FIX}",
            room.relay_sockets, wanted.relay_sockets
        );
    }
    room
}

fn divided(limit: u64, open: u64, wanted: Room) -> Room {
    let free = limit.saturating_sub(open);
    // A low limit has room for few scrapes at a time.
    let reserve = (http::CONNECTIONS as u64 + OTHERS).min(free / 4);
    let free = free - reserve;
    // A client of a connection has a relay socket too, and those over UDP have only that.
    let share = (free / 3).max(free.saturating_sub(wanted.relay_sockets));
    let connections = wanted.connections.min(share);
    Room { connections, relay_sockets: wanted.relay_sockets.min(free - connections) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn room(connections: u64, relay_sockets: u64) -> Room {
        Room { connections, relay_sockets }
    }

    #[test]
    fn a_high_limit_leaves_room_for_everything() {
        assert_eq!(divided(524_288, 100, room(50_000, 16_384)), room(50_000, 16_384));
    }

    /// Connections leave room for relay sockets, and both for everything else.
    #[test]
    fn a_low_limit_is_divided() {
        assert_eq!(divided(1024, 100, room(50_000, 16_384)), room(278, 558));
        assert_eq!(divided(1024, 100, room(100, 16_384)), room(100, 736));
        assert_eq!(divided(1024, 100, room(50_000, 10)), room(826, 10));
        for limit in 0..5000 {
            let wanted = room(50_000, 16_384);
            let Room { connections, relay_sockets } = divided(limit, 100, wanted);
            assert!(connections + relay_sockets <= limit.saturating_sub(100), "{limit}");
            assert!(relay_sockets >= 2 * connections, "{limit}");
        }
    }

    #[test]
    fn the_limit_is_raised_to_the_hard_limit() {
        let limit = raise_limit();
        assert_eq!(getrlimit(Resource::RLIMIT_NOFILE).unwrap(), (limit, limit));
        assert!(open(1, 1) > PER_WORKER);
    }
}
