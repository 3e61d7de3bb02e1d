//! The clock of the fast plane, read once per batch and handed to the core as two integers.

use nix::time::{ClockId, clock_gettime};

use crate::turn::Now;

/// The time now. `mono` is raw CLOCK_MONOTONIC, which is the same in all threads and processes of a machine, so deadlines
/// can pass between workers and between processes.
#[allow(clippy::disallowed_methods, reason = "the fast plane reads the time here alone")]
pub(super) fn now() -> Now {
    let unix = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    Now { mono: mono(), unix: unix.as_secs() }
}

/// Monotonic nanoseconds now.
pub(super) fn mono() -> u64 {
    let time = clock_gettime(ClockId::CLOCK_MONOTONIC).expect("every Linux has CLOCK_MONOTONIC");
    time.tv_sec() as u64 * 1_000_000_000 + time.tv_nsec() as u64
}
