//! From the text of a configuration file to settings. Every mistake is reported, not only the first.

use super::table::{SECRET_VARIABLE, TABLES};
use super::{checks, relay};
use crate::config::document::{FileReading, judged};
use crate::config::section::line_starts;
use crate::config::{Finding, ReadContext};
use crate::livekit::settings::Settings;

/// What a configuration is read for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// To run the sidecar, or to check what it would do. LiveKit has to be named.
    Run,
    /// To print or write sections of other configurations, for which less is needed.
    Render,
}

/// Settings that can be used, and the warnings about them.
#[derive(Debug)]
pub struct Loaded {
    /// The settings.
    pub settings: Settings,
    /// What is unusual, but runs.
    pub warnings: Vec<Finding>,
    /// Whether the file itself contains a secret.
    pub has_secret: bool,
}

/// Reads `text`, the configuration called `file`.
///
/// # Errors
/// Returns every mistake in the file and the environment, sorted by line.
pub fn load(
    file: &str,
    text: &str,
    purpose: Purpose,
    context: &ReadContext<'_>,
) -> Result<Loaded, Vec<Finding>> {
    let lines = line_starts(text);
    let mut reading = FileReading::new(&TABLES, TABLES.source(file, text, &lines, context));
    let mut settings = Settings::default();
    reading.read(&mut settings, &|_| true)?;
    // The environment precedes the file, and the first secret makes credentials.
    let mut secrets = Vec::new();
    reading.secrets_of_environment(SECRET_VARIABLE, "credentials.secret", &mut secrets);
    super::kinds::add_new(&mut secrets, std::mem::take(&mut settings.credentials.secrets).into_iter());
    settings.credentials.secrets = secrets;
    if settings.relays.is_empty() {
        settings.relays.push(relay::local());
    }
    checks::agreement(&settings, purpose).into_iter().for_each(|one| reading.disagreement(one));
    let warnings = judged(reading.findings)?;
    Ok(Loaded { settings, warnings, has_secret: reading.has_secret })
}

impl Default for Settings {
    /// The defaults of the table, and no relay.
    fn default() -> Settings {
        let mut settings = Settings::blank();
        TABLES.defaults(&mut settings);
        settings
    }
}
