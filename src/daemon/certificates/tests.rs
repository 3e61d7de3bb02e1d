//! Files that change under a running relay. Certificates are told apart by the year in which they expire.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use rcgen::{CertificateParams, KeyPair, date_time_ymd};
use tempfile::TempDir;

use super::*;
use crate::config::tls::Pem;
use crate::tls::CertificateName;

/// A new certificate that expires at the end of a year, and its key.
fn make(year: i32) -> (String, String) {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new([format!("in-{year}.example.org")]).unwrap();
    params.not_before = date_time_ymd(2020, 1, 1);
    params.not_after = date_time_ymd(year, 12, 31);
    (params.self_signed(&key).unwrap().pem(), key.serialize_pem())
}

/// A folder with certificates.
struct Folder(TempDir);

impl Folder {
    fn new() -> Folder {
        Folder(TempDir::new().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).unwrap();
    }

    /// Writes a new pair.
    fn renew(&self, name: &str, year: i32) {
        let (cert, key) = make(year);
        self.write(&format!("{name}.pem"), &cert);
        self.write(&format!("{name}.key"), &key);
    }

    /// The settings for these pairs.
    fn settings(&self, names: &[&str]) -> TlsSettings {
        let pem = |name: String| {
            let path = self.path(&name);
            let read = reading::read(&path);
            Pem::of_file("tls.cert", name, path, read)
        };
        let one = |name: &&str| CertificateSettings {
            cert: pem(format!("{name}.pem")),
            key: pem(format!("{name}.key")),
            names: Vec::new(),
        };
        TlsSettings { certificates: names.iter().map(one).collect(), ..TlsSettings::default() }
    }
}

/// The years of the certificates that serve.
fn years(certificates: &Certificates) -> Vec<u64> {
    let year = |status: &CertificateStatus| 1970 + status.expiry.unwrap() / 31_556_952;
    certificates.board().stats().certificates.iter().map(year).collect()
}

/// How many certificates were renewed, how many attempts failed, and which files fail now.
fn counts(certificates: &Certificates) -> (u64, u64, Vec<bool>) {
    let stats = certificates.board().stats();
    (stats.renewed, stats.failed, stats.certificates.iter().map(|one| one.is_failing).collect())
}

#[test]
fn an_unusable_certificate_is_an_error_at_start() {
    let folder = Folder::new();
    folder.renew("a", 2040);
    folder.write("b.pem", &make(2041).0);
    folder.write("b.key", &make(2041).1);
    assert!(Certificates::start(&folder.settings(&["a"])).is_ok());
    let error = Certificates::start(&folder.settings(&["a", "b"])).map(|_| ()).unwrap_err().to_string();
    assert!(error.starts_with("TLS: the private key does not belong to the first certificate"), "{error}");
    assert!(error.ends_with("(tls.cert b.key)"), "{error}");
    let error = Certificates::start(&folder.settings(&["c"])).map(|_| ()).unwrap_err().to_string();
    assert_eq!(error, "tls.cert c.pem cannot be read: No such file or directory; correct the path");
}

/// A certificate and its key are two files: until both are new, the earlier certificate serves. One failure counts once, however
/// often it is looked at.
#[tokio::test]
async fn a_half_written_pair_keeps_the_earlier_certificate() {
    let folder = Folder::new();
    folder.renew("a", 2040);
    let mut certificates = Certificates::start(&folder.settings(&["a"])).unwrap();
    assert!(!certificates.renew().await, "nothing has changed");
    let (cert, key) = make(2050);
    folder.write("a.pem", &cert);
    certificates.renew().await;
    assert_eq!((years(&certificates), counts(&certificates)), (vec![2040], (0, 1, vec![true])));
    assert!(certificates.identities().is_some());
    certificates.renew().await;
    assert_eq!(counts(&certificates), (0, 1, vec![true]), "it counts once");
    folder.write("a.key", &key[..key.len() / 2]);
    certificates.renew().await;
    assert_eq!((years(&certificates), counts(&certificates)), (vec![2040], (0, 2, vec![true])), "cut off");
    folder.write("a.key", &key);
    assert!(certificates.renew().await);
    assert_eq!((years(&certificates), counts(&certificates)), (vec![2050], (1, 2, vec![false])));
    assert_eq!(certificates.failures(), Vec::<String>::new());
}

/// Each of several certificates is replaced or kept by itself.
#[tokio::test]
async fn certificates_do_not_hold_up_each_other() {
    let folder = Folder::new();
    for name in ["a", "b", "c"] {
        folder.renew(name, 2040);
    }
    let mut certificates = Certificates::start(&folder.settings(&["a", "b", "c"])).unwrap();
    folder.renew("a", 2050);
    fs::remove_file(folder.path("b.key")).unwrap();
    folder.renew("c", 2060);
    assert!(certificates.renew().await);
    assert_eq!(years(&certificates), [2050, 2040, 2060]);
    assert_eq!(counts(&certificates), (2, 1, vec![false, true, false]));
    let [failure] = &certificates.failures()[..] else { panic!("{:?}", certificates.failures()) };
    assert!(failure.starts_with("tls.cert b.key cannot be read: No such file or directory"), "{failure}");
}

/// A reload applies what can be used. A certificate in the place of one whose files nothing names any more keeps that; a new one
/// that cannot be used is left out.
#[tokio::test]
async fn a_reload_keeps_earlier_certificates() {
    let folder = Folder::new();
    folder.renew("a", 2040);
    folder.renew("b", 2041);
    let mut certificates = Certificates::start(&folder.settings(&["a", "b"])).unwrap();
    folder.write("new.pem", "no certificate");
    let prepared = certificates.prepare(&folder.settings(&["new", "b", "new"]));
    assert_eq!(years(&certificates), [2040, 2041], "it is only prepared");
    certificates.adopt(prepared, Cause::Reload);
    let stats = certificates.board().stats();
    assert_eq!(stats.certificates[2].expiry, None);
    assert_eq!(counts(&certificates).2, [true, false, true]);
    let expiries: Vec<_> = stats.certificates[..2].iter().map(|one| one.expiry.is_some()).collect();
    assert_eq!(expiries, [true, true]);
    let prepared = certificates.prepare(&folder.settings(&["b", "a"]));
    certificates.adopt(prepared, Cause::Reload);
    assert_eq!(years(&certificates), [2041, 2040], "the order is the default's");
    let prepared = certificates.prepare(&TlsSettings::default());
    certificates.adopt(prepared, Cause::Reload);
    assert!(certificates.identities().is_none(), "TLS is off because the settings say so");
}

/// Kubernetes swaps `..data`, certbot a link per file.
#[tokio::test]
async fn links_are_followed() {
    let folder = Folder::new();
    for (version, year) in [("..1", 2040), ("..2", 2050)] {
        fs::create_dir(folder.path(version)).unwrap();
        folder.renew(&format!("{version}/a"), year);
    }
    symlink("..1", folder.path("..data")).unwrap();
    for file in ["a.pem", "a.key"] {
        symlink(Path::new("..data").join(file), folder.path(file)).unwrap();
    }
    let mut certificates = Certificates::start(&folder.settings(&["a"])).unwrap();
    let watching = certificates.watch();
    certificates.changed().await;
    assert!(!certificates.renew().await);
    symlink("..2", folder.path("..new")).unwrap();
    fs::rename(folder.path("..new"), folder.path("..data")).unwrap();
    let renewed = async {
        loop {
            certificates.changed().await;
            if certificates.renew().await {
                return;
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(20), renewed).await.expect("the change is noticed");
    assert_eq!(years(&certificates), [2050]);
    watching.abort();
}

/// The names that settings list hold also for a certificate that is kept.
#[tokio::test]
async fn kept_certificates_have_the_names_of_the_settings() {
    let folder = Folder::new();
    folder.renew("a", 2040);
    let mut certificates = Certificates::start(&folder.settings(&["a"])).unwrap();
    folder.write("a.key", "damaged");
    let mut settings = folder.settings(&["a"]);
    let name = CertificateName::parse("other.example.org").unwrap();
    settings.certificates[0].names = vec![name.clone()];
    let prepared = certificates.prepare(&settings);
    certificates.adopt(prepared, Cause::Reload);
    assert_eq!(certificates.served[0].certificate.as_ref().unwrap().names(), [name]);
}

#[tokio::test]
async fn unreadable_files_are_errors_and_missing_ones_may_come() {
    let folder = Folder::new();
    folder.renew("a", 2040);
    let failure = |settings: &TlsSettings| settings.all()[0].load().unwrap_err().may_be_unfinished;
    fs::remove_file(folder.path("a.key")).unwrap();
    assert!(failure(&folder.settings(&["a"])), "missing");
    fs::create_dir(folder.path("a.key")).unwrap();
    assert!(!failure(&folder.settings(&["a"])), "a directory");
    fs::remove_dir(folder.path("a.key")).unwrap();
    folder.write("a.key", "cut off");
    assert!(failure(&folder.settings(&["a"])));
    fs::set_permissions(folder.path("a.key"), fs::Permissions::from_mode(0o000)).unwrap();
    if reading::read(&folder.path("a.key")).is_err() {
        assert!(!failure(&folder.settings(&["a"])), "not for this user");
    }
}

/// The log says once for each part of a lifetime that it is nearly over, and once a day that it is over, also if the clock is set
/// in between.
#[test]
fn each_warning_comes_once() {
    const DAY: u64 = 86_400;
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(["a".to_owned()]).unwrap();
    (params.not_before, params.not_after) = (date_time_ymd(2026, 1, 1), date_time_ymd(2026, 4, 1));
    let own = Certificate::parse(params.self_signed(&key).unwrap().der()).unwrap();
    let until = own.until.unix();
    let (start, mut told) = (now(), Told::default());
    let mut due = |left: i64, hours: u64| {
        let instant = start + Duration::from_secs(hours * 3600);
        told.due(&own, until.checked_add_signed(-left).unwrap(), instant).is_some()
    };
    let day = DAY as i64;
    assert!(!due(40 * day, 0), "there is time");
    assert!(due(29 * day, 1) && !due(28 * day, 2), "a third");
    assert!(due(8 * day, 3) && !due(7 * day, 4), "a tenth");
    assert!(!due(40 * day, 5) && !due(8 * day, 6), "the clock was set back");
    assert!(due(2 * day, 7) && !due(day, 8), "a thirtieth");
    assert!(due(-1, 9) && !due(-5, 10) && !due(-9 * day, 32), "it has expired");
    assert!(due(-10 * day, 33), "a day later");
    let mut late = Told::default();
    assert!(late.due(&own, until - DAY, start).is_some() && late.due(&own, until - DAY, start).is_none());
}
