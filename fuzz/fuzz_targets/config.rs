//! The configuration loader fed with arbitrary text. Loading never panics, every finding names a line of the file, no
//! output contains a secret, and every configuration that loads can be converted for the layers below.

#![no_main]

use std::io;
use std::path::Path;
use std::sync::{Arc, LazyLock};

use hairpin::auth::{Auth, NonceKeys};
use hairpin::config::{FileContents, Loaded, ReadContext, Site, load};
use libfuzzer_sys::fuzz_target;
use rcgen::{CertifiedKey, generate_simple_self_signed};
use toml_edit::{Array, DocumentMut, InlineTable, Item, TableLike, Value};

/// A secret that must not appear in any output.
const MARKER: &str = "Zq7-this-is-a-secret-W9x";
/// The same, but shorter than the loader accepts.
const SHORT_MARKER: &str = "Zq7-W9x";
const NUMBER_MARKER: i64 = 716_253_443_526_171;

/// The certificate of a TLS server and its key.
static IDENTITY: LazyLock<(String, String)> = LazyLock::new(|| {
    let CertifiedKey { cert, signing_key } =
        generate_simple_self_signed(["turn.example.org".to_owned()]).expect("a certificate");
    (cert.pem(), signing_key.serialize_pem())
});

fuzz_target!(|input: &[u8]| {
    let Some((&choice, text)) = input.split_last() else { return };
    let Ok(text) = std::str::from_utf8(text) else { return };
    if contains_marker(text) {
        return;
    }
    check(text, choice);
    if let Ok(mut document) = text.parse::<DocumentMut>() {
        insert_markers(&mut document, choice);
        check(&document.to_string(), choice);
    }
});

/// Loads a file and checks everything that is said about it.
fn check(text: &str, choice: u8) {
    let reader = ReadContext {
        own: &|| (vec!["127.0.0.0/8".parse().expect("a range")], false),
        discovered: &Vec::new,
        has_address: &|ip| !ip.is_multicast(),
        read: &read,
        environment: &|name| (name == "HAIRPIN_AUTH_SECRET" && choice & 1 != 0).then(|| MARKER.into()),
        now: 1_900_000_000,
        generates: choice & 2 != 0,
        keeps_certificates: choice & 4 != 0,
        ..ReadContext::NONE
    };
    let (loaded, findings) = match load("hairpin.toml", text, &reader) {
        Ok(Loaded { settings, mut warnings, notes, .. }) => {
            warnings.extend(notes.into_iter().map(|note| note.0));
            (Some(settings), warnings)
        }
        Err(mistakes) => (None, mistakes),
    };
    assert!(loaded.is_some() || findings.iter().any(|finding| !finding.warning));
    for finding in &findings {
        let shown = finding.to_string();
        assert!(!contains_marker(&shown) && !contains_marker(&format!("{finding:?}")), "{shown}");
        assert!(!shown.contains(char::is_control), "{shown:?}");
        if let Some(line) = finding.line {
            assert!((1..=text.split('\n').count()).contains(&line), "{shown}");
        }
    }
    let Some(settings) = loaded else { return };
    assert!(!contains_marker(&format!("{settings:?}")));
    let site = Site {
        listeners: settings.listener_addresses(),
        relay: settings.relay.addresses.clone(),
        own: settings.relay.addresses.iter().copied().map(Into::into).collect(),
        cpus: 2,
        ..Site::default()
    };
    // The loader has checked them, unless the relay keeps earlier ones.
    let certificates = settings.tls.all();
    assert!(reader.keeps_certificates || certificates.iter().all(|one| one.load().is_ok()));
    settings.datapath(&site);
    settings.rates();
    match Auth::new(settings.auth(), NonceKeys { current: [0; 32], previous: None }) {
        Ok(auth) => drop(settings.snapshot(0, &site, Arc::new(auth), None)),
        Err(error) => assert!(!contains_marker(&error.to_string()), "{error}"),
    }
}

/// The files that exist: by what their names contain.
fn read(path: &Path) -> io::Result<FileContents> {
    let name = path.to_string_lossy();
    // A secret where a file name belongs is not the name of a file.
    if contains_marker(&name) {
        return Err(io::ErrorKind::NotFound.into());
    }
    let bytes = if name.contains("chain") {
        IDENTITY.0.clone()
    } else if name.contains("damaged") {
        // A key that has lost its line ends.
        format!("-----BEGIN PRIVATE KEY-----{MARKER}-----END PRIVATE KEY-----")
    } else if name.contains("key") {
        IDENTITY.1.clone()
    } else if name.contains("secret") {
        format!("# a comment\n{MARKER}\n{SHORT_MARKER}\n")
    } else if name.contains("password") {
        format!("{MARKER}\n{MARKER}\n")
    } else if name.contains("empty") {
        String::new()
    } else {
        return Err(io::ErrorKind::NotFound.into());
    };
    let (is_public, is_writable) = (name.contains("public"), name.contains("writable"));
    Ok(FileContents { bytes: bytes.into_bytes(), is_public, is_writable })
}

/// Replaces every secret of a configuration, and adds some in the wrong place.
fn insert_markers(document: &mut DocumentMut, choice: u8) {
    if let Some(tls) = document.get_mut("tls").and_then(Item::as_table_like_mut)
        && let Some(key) = tls.get_mut("key")
    {
        *key = Item::Value(if choice & 4 != 0 { MARKER.into() } else { "damaged".into() });
    }
    let Some(auth) = document.get_mut("auth").and_then(Item::as_table_like_mut) else { return };
    if let Some(secrets) = auth.get_mut("secrets") {
        *secrets = Item::Value(marker(choice));
    }
    if let Some(misspelt) = ["secert", "realm", "nonce_lifetime", MARKER].get(usize::from(choice / 64)) {
        auth.insert(misspelt, Item::Value(if *misspelt == "realm" { marker(5) } else { MARKER.into() }));
    }
    if let Some(files) = auth.get_mut("secret_files").filter(|_| choice & 8 != 0) {
        *files = Item::Value(MARKER.into());
    }
    let replace = |user: &mut dyn TableLike| {
        for key in ["password", "key"] {
            if let Some(secret) = user.get_mut(key) {
                *secret = Item::Value(marker(choice / 8));
            }
        }
    };
    match auth.get_mut("user") {
        Some(Item::ArrayOfTables(users)) => users.iter_mut().for_each(|user| replace(user)),
        Some(Item::Value(Value::Array(users))) => {
            users.iter_mut().filter_map(Value::as_inline_table_mut).for_each(|user| replace(user));
        }
        _ => {}
    }
}

/// A marker, of a type that may or may not be allowed.
fn marker(choice: u8) -> Value {
    match choice % 8 {
        0 | 1 => Array::from_iter([MARKER]).into(),
        2 => Array::from_iter([MARKER, SHORT_MARKER]).into(),
        3 => MARKER.into(),
        4 => SHORT_MARKER.into(),
        5 => NUMBER_MARKER.into(),
        6 => Array::from_iter([NUMBER_MARKER]).into(),
        _ => InlineTable::from_iter([("secret", MARKER)]).into(),
    }
}

fn contains_marker(text: &str) -> bool {
    text.contains(MARKER) || text.contains(SHORT_MARKER) || text.contains(&NUMBER_MARKER.to_string())
}
