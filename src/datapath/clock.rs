//! The clock of the fast plane: read once a batch, and handed to the core as two integers.

use std::time::{Instant, SystemTime};

use crate::turn::Now;

/// Counts from when it was made; all workers of a process share one beginning, since reservations pass between them.
#[derive(Clone, Copy, Debug)]
pub(super) struct Clock {
    start: Instant,
}

impl Clock {
    #[allow(clippy::disallowed_methods, reason = "this is where the time comes from")]
    pub(super) fn new() -> Clock {
        Clock { start: Instant::now() }
    }

    #[allow(clippy::disallowed_methods, reason = "this is where the time comes from")]
    pub(super) fn now(&self) -> Now {
        let unix = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        Now { mono: self.start.elapsed().as_nanos() as u64, unix: unix.as_secs() }
    }
}
