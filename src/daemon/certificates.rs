//! The certificates of a running relay: read again when their files change, kept when new ones cannot be used, and watched until
//! they expire. Workers get a new set with their next snapshot; connections keep what they began with.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Result, bail};
use tokio::sync::{Notify, watch};
use tokio::task::{JoinHandle, spawn_blocking};
use tokio::time::{Instant, timeout};
use tracing::{error, info, warn};

use super::{file_watch, reading, unix_now};
use crate::config::certificate::{Certificate, Remaining};
use crate::config::server_certificate::{CertificateError, ServerCertificate, TlsWarning, clashes};
use crate::config::tls::{CertificateSettings, TlsSettings};
use crate::tls::{Identities, NamedIdentity, Sessions};

/// How often an error says that a certificate has expired.
const EXPIRED: Duration = Duration::from_secs(24 * 3600);

/// How long everything else waits for files of certificates; a thread of their own waits on.
const READ: Duration = Duration::from_secs(2);

/// The certificates that serve, and the files that they come from.
pub struct Certificates {
    /// The files as they were last read.
    settings: TlsSettings,
    served: Vec<Served>,
    identities: Option<Identities>,
    /// The same for the whole life of the process, so that TLS sessions can be resumed.
    sessions: Sessions,
    /// Files that are being read for longer than [`READ`], and what they were read for.
    reading: Option<(TlsSettings, JoinHandle<TlsSettings>)>,
    board: Arc<CertificateBoard>,
    /// Files may have changed, or it is time to look at the clock.
    changed: Arc<Notify>,
    /// The files that are watched.
    paths: watch::Sender<Vec<std::path::PathBuf>>,
}

/// What metrics tell about certificates.
#[derive(Debug, Default)]
pub struct CertificateBoard(Mutex<CertificateStats>);

/// The counters and the state of the certificates.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CertificateStats {
    /// In the order of the configuration.
    pub certificates: Vec<CertificateStatus>,
    /// How often certificates were replaced by new ones.
    pub renewed: u64,
    /// How often files could not be used.
    pub failed: u64,
}

/// A certificate in the metrics.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CertificateStatus {
    /// The configured name of the file.
    pub file: String,
    /// When the certificate that serves expires, in Unix seconds; `None` if none does.
    pub expiry: Option<u64>,
    /// The host names that clients get it for; empty if none serves.
    pub names: Vec<String>,
    /// Whether it is self-signed, so that browsers refuse it.
    pub is_self_signed: bool,
    /// Whether the files cannot be used, so that an earlier certificate serves, or none.
    pub is_failing: bool,
}

/// Certificates that were read and are not used yet.
pub struct Prepared {
    settings: TlsSettings,
    served: Vec<Served>,
    identities: Option<Identities>,
}

impl Prepared {
    /// What clients would get.
    pub fn identities(&self) -> Option<Identities> {
        self.identities.clone()
    }

    /// Why the files of some certificates cannot be used, one sentence each.
    pub fn failures(&self) -> Vec<String> {
        failures(&self.served)
    }
}

/// A certificate of the settings.
#[derive(Clone)]
struct Served {
    settings: CertificateSettings,
    /// `None` if its files cannot be used, and there is no earlier one.
    certificate: Option<Arc<ServerCertificate>>,
    /// Why the files cannot be used.
    failure: Option<CertificateError>,
    told: Told,
}

/// What the log has said about the expiry of a certificate.
#[derive(Clone, Copy, Default)]
struct Told {
    remaining: Option<Remaining>,
    at: Option<Instant>,
}

impl Certificates {
    /// The certificates of a start.
    ///
    /// # Errors
    /// One of them cannot be used.
    pub fn start(settings: &TlsSettings) -> Result<Certificates> {
        let sessions = Sessions::new()?;
        let prepared = prepare(settings, &[], &sessions);
        if let Some(failure) = prepared.served.iter().find_map(|one| one.failure.as_ref()) {
            bail!("{failure}");
        }
        let Prepared { settings, served, identities } = prepared;
        let (paths, _) = watch::channel(settings.paths());
        let (board, changed) = Default::default();
        let reading = None;
        let mut started =
            Certificates { settings, served, identities, sessions, reading, board, changed, paths };
        started.log_start();
        started.publish(0, 0);
        Ok(started)
    }

    /// Logs what is unusual about the certificates of a start, unless reading the configuration has done so.
    fn log_start(&mut self) {
        let (unix, instant) = (unix_now(), now());
        for one in self.served.iter_mut() {
            let Some(certificate) = &one.certificate else { continue };
            if !one.settings.cert.is_of_configuration() {
                one.log_warnings(certificate);
                continue;
            }
            // An expired one is an error in any case.
            let Some(own) = certificate.own().filter(|own| own.remaining(unix) != Some(Remaining::Nothing))
            else {
                continue;
            };
            let _ = one.told.due(own, unix, instant);
        }
        self.look_at_the_clock();
    }

    /// What clients get.
    pub fn identities(&self) -> Option<Identities> {
        self.identities.clone()
    }

    /// The files as they were last read.
    pub fn settings(&self) -> &TlsSettings {
        &self.settings
    }

    /// Why the files of some certificates cannot be used, one sentence each.
    pub fn failures(&self) -> Vec<String> {
        failures(&self.served)
    }

    /// What metrics tell.
    pub fn board(&self) -> Arc<CertificateBoard> {
        self.board.clone()
    }

    /// Watches the files. Must be called on a tokio runtime.
    pub fn watch(&self) -> JoinHandle<()> {
        let (paths, changed) = (self.paths.subscribe(), self.changed.clone());
        tokio::spawn(async move { file_watch::run(paths, &changed).await })
    }

    /// Waits until files may have changed, or it is time to look at the clock. [`Certificates::renew`] is to be called then.
    pub async fn changed(&self) {
        self.changed.notified().await;
    }

    /// Reads the files again. Returns whether there are other certificates now.
    pub async fn renew(&mut self) -> bool {
        let (before, mut read) = self.reading.take().unwrap_or_else(|| {
            let settings = self.settings.clone();
            (settings.clone(), spawn_blocking(move || settings.reread(&|path| reading::read(path))))
        });
        // A file may be on a network file system that does not respond, and everything else must go on.
        let Ok(read_now) = timeout(READ, &mut read).await else {
            warn!("TLS: the files of certificates cannot be read: their file system does not respond");
            self.reading = Some((before, read));
            return false;
        };
        let renewed = match read_now {
            // A reload may have other ones meanwhile.
            Ok(settings) if before == self.settings && settings != self.settings => {
                let prepared = self.prepare(&settings);
                self.adopt(prepared, Cause::Files)
            }
            _ => false,
        };
        self.look_at_the_clock();
        renewed
    }

    /// The certificates of changed settings, which are not used before they are [adopted](Certificates::adopt). Where a new one
    /// cannot be used, the earlier one stays.
    pub fn prepare(&self, settings: &TlsSettings) -> Prepared {
        prepare(settings, &self.served, &self.sessions)
    }

    /// Uses certificates from now on, and logs what has changed. Returns whether there are others now.
    pub fn adopt(&mut self, prepared: Prepared, cause: Cause) -> bool {
        let Prepared { settings, served, identities } = prepared;
        let (mut renewed, mut failed) = (0, 0);
        for one in &served {
            let earlier = self.served.iter().find(|earlier| earlier.settings.has_the_files_of(&one.settings));
            if let Some(failure) = &one.failure {
                let is_known = earlier.is_some_and(|earlier| earlier.failure.as_ref() == Some(failure));
                if !is_known || cause == Cause::Reload {
                    failed += 1;
                    one.log_failure(failure, cause);
                }
                continue;
            }
            let Some(certificate) = &one.certificate else { continue };
            let is_same = earlier.and_then(|earlier| earlier.certificate.as_ref());
            if is_same.is_none_or(|earlier| !earlier.is(certificate)) {
                renewed += 1;
                one.log_new(certificate);
            } else if earlier.is_some_and(|earlier| earlier.failure.is_some()) {
                info!("TLS: the files of the certificate can be used again ({})", one.settings.cert);
            }
        }
        log_clashes(&served);
        let is_other = settings != self.settings;
        (self.settings, self.served, self.identities) = (settings, served, identities);
        self.paths.send_if_modified(|watched| {
            let paths = self.settings.paths();
            std::mem::replace(watched, paths) != self.settings.paths()
        });
        self.look_at_the_clock();
        self.publish(renewed, failed);
        is_other
    }

    /// Says which certificates expire, once for each part of their lifetime. The clock may have been set since the last look.
    fn look_at_the_clock(&mut self) {
        let (now, instant) = (unix_now(), now());
        for one in &mut self.served {
            let Some(own) = one.certificate.as_ref().and_then(|one| one.own()) else { continue };
            let Some(sentence) = one.told.due(own, now, instant).and_then(|()| own.expiry(now)) else {
                continue;
            };
            let cert = &one.settings.cert;
            match own.remaining(now) {
                Some(Remaining::Nothing) => {
                    error!("TLS: the certificate {sentence}, and clients refuse it; renew it ({cert})");
                }
                _ => warn!("TLS: the certificate {sentence}; renew it, or clients refuse it then ({cert})"),
            }
        }
    }

    fn publish(&self, renewed: u64, failed: u64) {
        let status = |one: &Served| CertificateStatus {
            file: one.settings.cert.name.clone(),
            expiry: one.certificate.as_ref().and_then(|one| Some(one.own()?.until.unix())),
            names: one.certificate.as_ref().map(|one| told_names(one)).unwrap_or_default(),
            is_self_signed: one.certificate.as_ref().is_some_and(|one| one.is_self_signed()),
            is_failing: one.failure.is_some(),
        };
        let mut stats = self.board.0.lock().unwrap_or_else(PoisonError::into_inner);
        stats.certificates = self.served.iter().map(status).collect();
        stats.renewed += renewed;
        stats.failed += failed;
    }
}

/// Why certificates are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// Files have changed. Whoever writes them may not be done.
    Files,
    /// The operator asked for a reload.
    Reload,
}

impl CertificateBoard {
    /// The counters and the state now.
    pub fn stats(&self) -> CertificateStats {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Served {
    /// The certificate of settings, otherwise that of `earlier`.
    fn new(settings: CertificateSettings, earlier: Option<&Served>) -> Served {
        if let Some(earlier) = earlier.filter(|earlier| earlier.settings == settings) {
            return earlier.clone();
        }
        let before = earlier.and_then(|earlier| Some((earlier.certificate.clone()?, earlier.told)));
        match settings.load() {
            Ok(certificate) => {
                let told = before.filter(|(earlier, _)| earlier.is(&certificate)).map(|(_, told)| told);
                let told = told.unwrap_or_default();
                Served { settings, certificate: Some(Arc::new(certificate)), failure: None, told }
            }
            Err(failure) => {
                let certificate =
                    before.as_ref().map(|(earlier, _)| Arc::new(earlier.with_names_of(&settings)));
                let told = before.map(|(_, told)| told).unwrap_or_default();
                Served { settings, certificate, failure: Some(failure), told }
            }
        }
    }

    fn log_failure(&self, failure: &CertificateError, cause: Cause) {
        let kept = match &self.certificate {
            Some(_) => "the earlier certificate is used until they can be",
            None => "clients get other certificates until they can be",
        };
        match cause == Cause::Files && failure.may_be_unfinished {
            true => warn!("the files of a certificate have changed and cannot be used; {kept}: {failure}"),
            false => error!("the files of a certificate cannot be used; {kept}: {failure}"),
        }
    }

    fn log_new(&self, certificate: &ServerCertificate) {
        let until = certificate.own().map(|own| format!(", valid until {}", own.until)).unwrap_or_default();
        let names: Vec<_> = certificate.names().iter().take(NAMES).map(ToString::to_string).collect();
        let names = if names.is_empty() { "no name".to_owned() } else { names.join(", ") };
        info!("TLS: new connections get a new certificate for {names}{until} ({})", self.settings.cert);
        self.log_warnings(certificate);
    }

    fn log_warnings(&self, certificate: &ServerCertificate) {
        for TlsWarning { what, fix } in certificate.warnings(unix_now()) {
            warn!("TLS: {what}; {fix} ({})", self.settings.cert);
        }
    }
}

/// The most names of a certificate that a log line shows.
const NAMES: usize = 10;

/// The most names of a certificate that a status has.
const STATUS_NAMES: usize = 100;

fn told_names(certificate: &ServerCertificate) -> Vec<String> {
    certificate.names().iter().take(STATUS_NAMES).map(ToString::to_string).collect()
}

impl Told {
    /// Whether the log should say how much is left of a certificate now.
    fn due(&mut self, certificate: &Certificate, now: u64, instant: Instant) -> Option<()> {
        let remaining = certificate.remaining(now)?;
        let is_new = self.remaining.is_none_or(|told| remaining > told);
        let is_again = remaining == Remaining::Nothing
            && self.at.is_none_or(|at| instant.saturating_duration_since(at) >= EXPIRED);
        if !is_new && !is_again {
            return None;
        }
        *self = Told { remaining: Some(remaining), at: Some(instant) };
        Some(())
    }
}

/// The certificates of `settings`. One that cannot be used is kept from `earlier`: that with the same files, otherwise that in the
/// same place whose files nothing names any more.
fn prepare(settings: &TlsSettings, earlier: &[Served], sessions: &Sessions) -> Prepared {
    let all = settings.all();
    let with_same_files =
        |one: &CertificateSettings| earlier.iter().find(|earlier| earlier.settings.has_the_files_of(one));
    let is_orphan = |one: &&Served| !all.iter().any(|new| new.has_the_files_of(&one.settings));
    let served: Vec<Served> = all
        .iter()
        .enumerate()
        .map(|(n, one)| {
            let earlier = with_same_files(one).or_else(|| earlier.get(n).filter(is_orphan));
            Served::new(one.clone(), earlier)
        })
        .collect();
    let usable = served.iter().filter_map(|one| one.certificate.as_ref());
    let named: Vec<NamedIdentity> = usable.map(|one| one.named_identity()).collect();
    let identities = Identities::new(&named, settings.unknown_name, sessions);
    Prepared { settings: settings.clone(), served, identities }
}

fn failures(served: &[Served]) -> Vec<String> {
    served.iter().filter_map(|one| Some(one.failure.as_ref()?.to_string())).collect()
}

fn log_clashes(served: &[Served]) {
    let usable: Vec<_> = served.iter().filter_map(|one| Some((one, one.certificate.as_deref()?))).collect();
    let certificates: Vec<_> = usable.iter().map(|(_, certificate)| *certificate).collect();
    for (n, TlsWarning { what, fix }) in clashes(&certificates) {
        warn!("TLS: {what}; {fix} ({})", usable[n].0.settings.cert);
    }
}

#[allow(clippy::disallowed_methods, reason = "only the daemon and datapath read the clock")]
fn now() -> Instant {
    Instant::now()
}

#[cfg(test)]
mod tests;
