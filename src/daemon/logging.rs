//! Logs go to standard error through a bounded queue and a separate thread. If the reader of standard error is slow, stuck or
//! gone, lines are dropped and counted; nothing else is affected.

use std::io::{self, IsTerminal, Write};
use std::panic::{self, AssertUnwindSafe};

use tracing::level_filters::LevelFilter;
use tracing_appender::non_blocking::{ErrorCounter, NonBlocking, NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::filter::{Filtered, Targets};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{Layer, Registry, fmt, reload};

use crate::config::settings::{Format, Level, LogSettings};

/// The most lines that wait to be written.
const QUEUE: usize = 8192;

/// The target of the audit log, whose lines are written at every level.
pub const AUDIT: &str = "hairpin::audit";

/// The log. Dropping it writes the waiting lines, for at most one second.
pub struct Logging {
    dropped: ErrorCounter,
    writer: NonBlocking,
    handle: reload::Handle<Filtered<Lines, Targets, Registry>, Registry>,
    guard: Option<WorkerGuard>,
}

/// Writes lines in a format.
type Lines = Box<dyn Layer<Registry> + Send + Sync>;

/// Counts dropped lines.
#[derive(Clone)]
pub struct LostLines(ErrorCounter);

impl Logging {
    /// Starts logging for the whole process. Panics are logged too, since writing them to a stuck standard error would block.
    pub fn start(log: &LogSettings) -> Logging {
        let (writer, guard) = queue(io::stderr());
        let dropped = writer.error_counter();
        let layer = lines(log.format, writer.clone()).with_filter(filter(log.level));
        let (layer, handle) = reload::Layer::new(layer);
        // This only fails in a test that starts two relays in one process.
        let _ = tracing_subscriber::registry().with(layer).try_init();
        panic::set_hook(Box::new(|panic| tracing::error!("this is a bug in hairpin: {panic}")));
        Logging { dropped, writer, handle, guard: Some(guard) }
    }

    /// Uses another level and format from the next line on.
    pub fn apply(&self, log: &LogSettings) {
        // This only fails if the layer is gone, and with it the log.
        let _ = self.handle.modify(|layer| {
            *layer.inner_mut() = lines(log.format, self.writer.clone());
            *layer.filter_mut() = filter(log.level);
        });
    }

    /// A reader of the number of dropped lines.
    pub fn lost(&self) -> LostLines {
        LostLines(self.dropped.clone())
    }
}

impl Drop for Logging {
    fn drop(&mut self) {
        let guard = self.guard.take();
        // With a stuck reader the guard writes to standard output, and panics if that is closed.
        let _ = panic::catch_unwind(AssertUnwindSafe(|| drop(guard)));
    }
}

#[cfg(test)]
impl LostLines {
    /// For tests that log nowhere.
    pub fn none() -> LostLines {
        LostLines(tracing_appender::non_blocking(io::sink()).0.error_counter())
    }
}

impl LostLines {
    /// Lines dropped so far.
    pub fn lines(&self) -> usize {
        self.0.dropped_lines()
    }
}

/// A bounded queue in front of a writer that may be slow, with a thread that empties it.
fn queue(writer: impl Write + Send + 'static) -> (NonBlocking, WorkerGuard) {
    NonBlockingBuilder::default().lossy(true).buffered_lines_limit(QUEUE).thread_name("log").finish(writer)
}

fn lines(format: Format, writer: NonBlocking) -> Lines {
    let layer = fmt::layer().with_writer(writer).with_ansi(io::stderr().is_terminal());
    match format {
        Format::Human => layer.with_target(false).boxed(),
        Format::Json => {
            layer.json().flatten_event(true).with_current_span(false).with_span_list(false).boxed()
        }
    }
}

fn filter(least: Level) -> Targets {
    // Other crates only log warnings and errors.
    let level = level(least);
    let others = Targets::new().with_default(level.min(LevelFilter::WARN));
    others.with_target("hairpin", level).with_target(AUDIT, level.max(LevelFilter::INFO))
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
    fn lines_for_a_stuck_reader_are_dropped_and_counted() {
        let (release, stuck) = mpsc::channel();
        let (mut writer, guard) = queue(Stuck(stuck));
        for _ in 0..QUEUE + 100 {
            writer.write_all(b"a line\n").unwrap();
        }
        // The thread may hold one more.
        let lost = LostLines(writer.error_counter()).lines();
        assert!((99..=100).contains(&lost), "{lost}");
        drop(release);
        drop(guard);
    }
}
