//! Logs go to standard error through a bounded queue and a separate thread. If the reader of standard error is slow, stuck or
//! gone, lines are dropped and counted; nothing else is affected.
//!
//! Where standard error is systemd's journal, each line begins with its priority (sd-daemon(3)), so that `journalctl -p warning`
//! finds it, and readable lines have no time of their own.

use std::fs::File;
use std::io::{self, IsTerminal, Write};
use std::os::fd::AsFd as _;
use std::os::unix::fs::MetadataExt as _;
use std::panic::{self, AssertUnwindSafe};

use tracing::level_filters::LevelFilter;
use tracing::{Event, Subscriber};
use tracing_appender::non_blocking::{ErrorCounter, NonBlocking, NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::filter::{Filtered, Targets};
use tracing_subscriber::fmt::format::{JsonFields, Writer};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{Layer, Registry, fmt, reload};

use crate::config::settings::{Format, Level, LogSettings};
use crate::shown;

/// The most lines that wait to be written.
const QUEUE: usize = 8192;

/// The target of the audit log, whose lines are written at every level.
pub const AUDIT: &str = "hairpin::audit";

/// The log. Dropping it writes the waiting lines, for at most one second.
pub struct Logging {
    dropped: ErrorCounter,
    writer: NonBlocking,
    handle: reload::Handle<Filtered<Lines, Targets, Registry>, Registry>,
    to_journal: bool,
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
        let to_journal = writes_to_journal();
        shown::mask_addresses(log.mask_addresses);
        let layer = lines(log.format, to_journal, writer.clone()).with_filter(filter(log.level));
        let (layer, handle) = reload::Layer::new(layer);
        // This only fails in a test that starts two relays in one process.
        let _ = tracing_subscriber::registry().with(layer).try_init();
        panic::set_hook(Box::new(|panic| {
            // What it says was not written for the log.
            let panic = in_one_line(&panic.to_string());
            tracing::error!("this is a bug in hairpin: {}", shown::text(&panic));
        }));
        Logging { dropped, writer, handle, to_journal, guard: Some(guard) }
    }

    /// Uses other settings from the next line on.
    pub fn apply(&self, log: &LogSettings) {
        shown::mask_addresses(log.mask_addresses);
        // This only fails if the layer is gone, and with it the log.
        let _ = self.handle.modify(|layer| {
            *layer.inner_mut() = lines(log.format, self.to_journal, self.writer.clone());
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

/// Words of several lines, such as a panic's place and message, in one.
fn in_one_line(text: &str) -> String {
    text.lines().map(str::trim).collect::<Vec<_>>().join(" ")
}

/// Gets each event at once, and writes it as a single line whatever is in its fields: a second line would have no time and no
/// priority, and could pretend to be another event.
struct OneLine(NonBlocking);

impl Write for OneLine {
    fn write(&mut self, event: &[u8]) -> io::Result<usize> {
        let line = event.strip_suffix(b"\n").unwrap_or(event);
        if !line.iter().any(|byte| b"\n\r".contains(byte)) {
            return self.0.write(event);
        }
        let mut escaped = Vec::with_capacity(event.len() + 16);
        for byte in line {
            match byte {
                b'\n' => escaped.extend_from_slice(b"\\n"),
                b'\r' => escaped.extend_from_slice(b"\\r"),
                byte => escaped.push(*byte),
            }
        }
        escaped.extend_from_slice(&event[line.len()..]);
        self.0.write_all(&escaped)?;
        Ok(event.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

fn lines(format: Format, to_journal: bool, writer: NonBlocking) -> Lines {
    let writer = move || OneLine(writer.clone());
    let layer = fmt::layer().with_writer(writer).with_ansi(io::stderr().is_terminal());
    let json = || {
        let json = fmt::format().json();
        json.flatten_event(true).with_current_span(false).with_span_list(false)
    };
    match (format, to_journal) {
        (Format::Human, false) => layer.with_target(false).boxed(),
        (Format::Human, true) => {
            layer.event_format(WithPriority(fmt::format().with_target(false).without_time())).boxed()
        }
        (Format::Json, false) => layer.fmt_fields(JsonFields::new()).event_format(json()).boxed(),
        (Format::Json, true) => {
            layer.fmt_fields(JsonFields::new()).event_format(WithPriority(json())).boxed()
        }
    }
}

/// Writes lines with their priority before them, as sd-daemon(3) has it.
struct WithPriority<F>(F);

impl<S, N, F> FormatEvent<S, N> for WithPriority<F>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
    F: FormatEvent<S, N>,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> std::fmt::Result {
        write!(writer, "<{}>", priority(*event.metadata().level()))?;
        self.0.format_event(context, writer, event)
    }
}

/// The priority of syslog(3).
fn priority(level: tracing::Level) -> u8 {
    match level {
        tracing::Level::ERROR => 3,
        tracing::Level::WARN => 4,
        tracing::Level::INFO => 6,
        _ => 7,
    }
}

/// Whether standard error is the journal that systemd has named, and not a file or pipe that a child inherits the name for
/// (systemd.exec(5), `$JOURNAL_STREAM`).
fn writes_to_journal() -> bool {
    let Some(named) = super::variable("JOURNAL_STREAM") else { return false };
    let is_same = |file: File| {
        let metadata = file.metadata().ok()?;
        Some(named.to_str()? == format!("{}:{}", metadata.dev(), metadata.ino()))
    };
    io::stderr().as_fd().try_clone_to_owned().ok().and_then(|stderr| is_same(stderr.into())).unwrap_or(false)
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

    /// Each line begins with its priority, in both formats; the journal has the time. What has several lines, in its sentence or
    /// in a field, is one.
    #[test]
    fn lines_of_the_journal() {
        for (format, begin) in [(Format::Human, "<4> WARN "), (Format::Json, "<4>{\"timestamp\":")] {
            let written = written(format, true);
            let lines: Vec<_> = written.lines().collect();
            assert_eq!(lines.len(), 2, "{written}");
            assert!(lines.iter().all(|line| line.starts_with(begin)), "{written}");
            assert!(lines[0].contains("reason") && lines[1].contains(r"of\ntwo\r\n lines"), "{written}");
            assert!(lines[1].contains(r"in\na field"), "{written}");
        }
        let elsewhere = written(Format::Human, false);
        assert_eq!(elsewhere.lines().count(), 2, "{elsewhere}");
        let panic = "panicked at src/a.rs:1:2:\nassertion `left == right` failed\n  left: 1\n right: 2";
        assert_eq!(
            in_one_line(panic),
            "panicked at src/a.rs:1:2: assertion `left == right` failed left: 1 right: 2"
        );
        use tracing::Level;
        let levels = [Level::ERROR, Level::WARN, Level::INFO, Level::DEBUG, Level::TRACE];
        assert_eq!(levels.map(priority), [3, 4, 6, 7, 7]);
    }

    /// What two events become.
    fn written(format: Format, to_journal: bool) -> String {
        let shared = Shared::default();
        let (writer, guard) = queue(shared.clone());
        let subscriber = tracing_subscriber::registry().with(lines(format, to_journal, writer));
        tracing::subscriber::with_default(subscriber, || {
            tracing::warn!(reason = "none", "a line");
            tracing::warn!(reason = %"in\na field", "a sentence of\ntwo\r\n lines");
        });
        drop(guard);
        String::from_utf8(shared.0.lock().unwrap().clone()).unwrap()
    }

    /// A writer that keeps what is written.
    #[derive(Clone, Default)]
    struct Shared(std::sync::Arc<std::sync::Mutex<Vec<u8>>>);

    impl Write for Shared {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
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
