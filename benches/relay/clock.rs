//! Time in nanoseconds since a process, or a measurement, started.

use std::time::Instant;

/// A monotonic clock.
#[derive(Clone, Copy)]
pub struct Clock(Instant);

impl Clock {
    /// Starts a clock at zero.
    #[allow(clippy::disallowed_methods, reason = "a benchmark measures time")]
    pub fn start() -> Clock {
        Clock(Instant::now())
    }

    /// Nanoseconds since the start.
    pub fn now(&self) -> u64 {
        self.0.elapsed().as_nanos() as u64
    }
}
