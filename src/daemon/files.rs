//! The limit of open files: each allocation holds one, two if it has both families, and
//! each connection of a client holds one.

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tracing::warn;

/// Files that are open beside relay sockets, roughly: listeners, logs, HTTP.
const OTHERS: u64 = 256;

/// Raises the limit as far as it goes, and says so if `sockets` relay sockets and `connections` of clients do not fit.
pub fn raise_limit(sockets: u64, connections: u64) {
    let (soft, hard) = match getrlimit(Resource::RLIMIT_NOFILE) {
        Ok(limits) => limits,
        Err(error) => return warn!(%error, "the limit of open files cannot be read"),
    };
    let limit = match setrlimit(Resource::RLIMIT_NOFILE, hard, hard) {
        Ok(()) => hard,
        Err(error) => {
            warn!(%error, "the limit of open files cannot be raised from {soft} to {hard}");
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
            "this process may open {limit} files, fewer than the {sockets} relay sockets and {connections} connections \
             that ports and limits allow: allocations beyond that are refused with 508, connections wait; raise LimitNOFILE (systemd) or `ulimit -Hn`"
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn too_few_files_are_told_of() {
        assert_eq!(warning(100_000, 16_384, 50_000), None);
        assert!(warning(65_536, 16_384, 50_000).is_some());
        assert!(warning(1024, 16_384, 0).unwrap().contains("open 1024 files"));
    }

    #[test]
    fn the_limit_ends_at_its_hard_one() {
        raise_limit(1, 1);
        let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
        assert_eq!(soft, hard);
    }
}
