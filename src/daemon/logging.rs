//! Logs go to standard error by way of a thread of their own and a bounded queue: a reader that is slow, stuck or gone
//! costs lines, which are counted, and nothing else.

use std::io::{self, IsTerminal, Write};
use std::panic::{self, AssertUnwindSafe};

use tracing::level_filters::LevelFilter;
use tracing_appender::non_blocking::{ErrorCounter, NonBlocking, NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::Layer as _;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

use crate::config::settings::{Format, Level, LogSettings};

/// Lines that wait to be written at most.
const QUEUE: usize = 8192;

/// The log. When it is dropped, what waits is written, for a second at most.
pub struct Logging {
    dropped: ErrorCounter,
    guard: Option<WorkerGuard>,
}

/// Counts the lines that were lost.
#[derive(Clone)]
pub struct LostLines(ErrorCounter);

impl Logging {
    /// Starts logging for the whole process; panics are logged too, for standard error may be stuck.
    pub fn start(log: &LogSettings) -> Logging {
        let (writer, guard) = queue(io::stderr());
        let dropped = writer.error_counter();
        let layer = fmt::layer().with_writer(writer).with_ansi(io::stderr().is_terminal());
        let layer = match log.format {
            Format::Human => layer.with_target(false).boxed(),
            Format::Json => {
                layer.json().flatten_event(true).with_current_span(false).with_span_list(false).boxed()
            }
        };
        // Libraries have their say when something is wrong.
        let level = level(log.level);
        let filter = Targets::new().with_default(level.min(LevelFilter::WARN)).with_target("hairpin", level);
        // Only a test that starts two relays in one process has one already.
        let _ = tracing_subscriber::registry().with(layer.with_filter(filter)).try_init();
        panic::set_hook(Box::new(|panic| tracing::error!("this is a bug in hairpin: {panic}")));
        Logging { dropped, guard: Some(guard) }
    }

    /// A reader of the count of lost lines.
    pub fn lost(&self) -> LostLines {
        LostLines(self.dropped.clone())
    }
}

impl Drop for Logging {
    fn drop(&mut self) {
        let guard = self.guard.take();
        // With a stuck reader it complains on standard output, and panics if that is closed.
        let _ = panic::catch_unwind(AssertUnwindSafe(|| drop(guard)));
    }
}

impl LostLines {
    /// Lines lost so far.
    pub fn lines(&self) -> usize {
        self.0.dropped_lines()
    }
}

/// A bounded queue before a writer that may be slow, with a thread that empties it.
fn queue(writer: impl Write + Send + 'static) -> (NonBlocking, WorkerGuard) {
    NonBlockingBuilder::default().lossy(true).buffered_lines_limit(QUEUE).thread_name("log").finish(writer)
}

fn level(level: Level) -> LevelFilter {
    match level {
        Level::Error => LevelFilter::ERROR,
        Level::Warn => LevelFilter::WARN,
        Level::Info => LevelFilter::INFO,
        Level::Debug => LevelFilter::DEBUG,
        Level::Trace => LevelFilter::TRACE,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    /// A writer whose reader never reads.
    struct Stuck(mpsc::Receiver<()>);

    impl Write for Stuck {
        fn write(&mut self, line: &[u8]) -> io::Result<usize> {
            let _ = self.0.recv();
            Ok(line.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_stuck_reader_costs_lines_that_are_counted() {
        let (release, stuck) = mpsc::channel();
        let (mut writer, guard) = queue(Stuck(stuck));
        for _ in 0..QUEUE + 100 {
            writer.write_all(b"a line\n").unwrap();
        }
        // The thread holds one more at most.
        let lost = LostLines(writer.error_counter()).lines();
        assert!((99..=100).contains(&lost), "{lost}");
        drop(release);
        drop(guard);
    }
}
