//! The limit on open files. Each allocation holds one file descriptor per address family, and each client connection holds
//! one.

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tracing::warn;

/// Roughly how many other files are open: listeners, logs, HTTP.
const OTHERS: u64 = 256;

/// Raises the limit as far as possible, and warns if it is too low for `sockets` relay sockets and `connections` of clients.
pub fn raise_limit(sockets: u64, connections: u64) {
    let (soft, hard) = match getrlimit(Resource::RLIMIT_NOFILE) {
        Ok(limits) => limits,
        Err(error) => return warn!(%error, "cannot read the limit on open files"),
    };
    let limit = match setrlimit(Resource::RLIMIT_NOFILE, hard, hard) {
        Ok(()) => hard,
        Err(error) => {
            warn!(%error, "cannot raise the limit on open files from {soft} to {hard}");
            soft
        }
    };
    if let Some(warning) = warning(limit, sockets, connections) {
        warn!("{warning}");
    }
}

fn warning(limit: u64, sockets: u64, connections: u64) -> Option<String> {
    (limit < sockets.saturating_add(connections).saturating_add(OTHERS)).then(|| {
        format!(
            "this process may open {limit} files, fewer than the {sockets} relay sockets and {connections} connections that \
             ports and limits allow; allocations beyond that are refused with 508 and connections wait; raise LimitNOFILE \
             (systemd) or `ulimit -Hn`"
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_low_limit_causes_a_warning() {
        assert_eq!(warning(100_000, 16_384, 50_000), None);
        assert!(warning(65_536, 16_384, 50_000).is_some());
        assert!(warning(1024, 16_384, 0).unwrap().contains("open 1024 files"));
    }

    #[test]
    fn the_limit_is_raised_to_the_hard_limit() {
        raise_limit(1, 1);
        let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
        assert_eq!(soft, hard);
    }
}
