//! Log lines that clients cause: a few per period, and the next one says how many were suppressed.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::plural::counted;

/// Lines per period.
const LINES: u32 = 10;

/// The period.
const PERIOD: Duration = Duration::from_secs(10);

/// How many lines may still be written.
#[derive(Default)]
pub struct LineLimit(Mutex<State>);

#[derive(Default)]
struct State {
    since: Option<Instant>,
    written: u32,
    suppressed: u64,
}

impl LineLimit {
    /// Takes one line; returns what is to be written at its end, or `None` if it is suppressed.
    pub fn take(&self) -> Option<String> {
        let now = Instant::now();
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if state.since.is_none_or(|since| now - since >= PERIOD) {
            (state.since, state.written) = (Some(now), 0);
        }
        if state.written == LINES {
            state.suppressed += 1;
            return None;
        }
        state.written += 1;
        Some(match std::mem::take(&mut state.suppressed) {
            0 => String::new(),
            n => format!(" ({} suppressed)", counted(n as usize, "line")),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_flood_writes_few_lines_and_its_size_is_told() {
        let lines = LineLimit::default();
        assert_eq!((0..1000).filter(|_| lines.take().is_some()).count() as u32, LINES);
        tokio::time::advance(PERIOD).await;
        assert_eq!(lines.take().as_deref(), Some(" (990 lines suppressed)"));
        assert_eq!(lines.take().as_deref(), Some(""));
    }
}
