use std::ffi::OsString;
use std::io;
use std::path::Path;

use super::*;
use crate::config::secrets::SAMPLE;
use crate::config::{FileContents, Finding, ReadContext};
use crate::livekit::settings::{PeersMode, Settings};

const SECRET: &str = "a shared secret for these tests";
const TOKEN: &str = "0123456789abcdef0123456789abcdef";

/// What LiveKit needs, and a secret.
const BASE: &str = "[livekit]\nurl = \"wss://livekit.example.org\"\nkeys_file = \"keys\"\n[credentials]\nsecret_file = \"/etc/hairpin/secret\"\n";

fn file(path: &Path) -> io::Result<FileContents> {
    let text = match path.to_str().unwrap_or_default() {
        "keys" | "/etc/hairpin/livekit-keys" => {
            "APIfirst: an API secret of at least thirty-two characters\nAPIsecond: another API secret of thirty-two characters\n"
        }
        "/etc/hairpin/secret" => "a shared secret for these tests\nan older shared secret\n",
        "/etc/hairpin/metrics-tokens" => "prometheus:read:fedcba9876543210fedcba9876543210\n",
        "/etc/hairpin/livekit-tokens" => "backend:read:0123456789abcdef0123456789abcdef\n",
        "/etc/hairpin/turn-2-token" => "livekit:admin:0123456789abcdef0123456789abcdef\n",
        "/etc/hairpin/redis-password" => "a password\n",
        "/etc/hairpin/privkey.pem" => "-----BEGIN PRIVATE KEY-----\n",
        name if name.ends_with(".pem") => "-----BEGIN CERTIFICATE-----\n",
        "/etc" => return Err(io::ErrorKind::IsADirectory.into()),
        _ => return Err(io::ErrorKind::NotFound.into()),
    };
    Ok(text.into())
}

fn context(environment: &dyn Fn(&str) -> Option<OsString>) -> ReadContext<'_> {
    ReadContext { read: &file, environment, ..ReadContext::NONE }
}

fn read(text: &str) -> Result<Loaded, Vec<Finding>> {
    load("file", text, Purpose::Run, &context(&|_| None))
}

fn settings(text: &str) -> Settings {
    read(&format!("{BASE}{text}")).unwrap_or_else(|mistakes| panic!("{mistakes:#?}")).settings
}

/// Every finding about a complete configuration with these lines: mistakes, otherwise warnings.
fn findings(text: &str) -> Vec<String> {
    let found = read(&format!("{text}\n{BASE}"));
    let lines = found.map(|loaded| loaded.warnings).unwrap_or_else(|mistakes| mistakes);
    lines
        .iter()
        .map(ToString::to_string)
        .filter(|line| !line.contains("which addresses the SFU has"))
        .collect()
}

#[test]
fn a_short_configuration_has_one_relay_and_the_defaults() {
    let settings = settings("");
    assert_eq!(settings.livekit.url, "wss://livekit.example.org");
    let keys: Vec<_> = settings.livekit.keys.iter().map(|key| key.key.as_str()).collect();
    assert_eq!(keys, ["APIfirst", "APIsecond"], "in the order of the file, because the first one signs");
    assert_eq!(settings.relays.len(), 1);
    assert_eq!((settings.relays[0].name.as_str(), &settings.relays[0].socket), ("local", &None));
    assert_eq!(settings.credentials.secrets[0].as_bytes(), SECRET.as_bytes());
    assert_eq!(settings.credentials.ttl, 14_400, "LiveKit's own default");
    assert_eq!(format!("{:?}", settings.http.listen), "[127.0.0.1:9643]");
    assert_eq!((settings.peers.mode, settings.lifecycle.revoke), (PeersMode::Only, true));
    assert_eq!((settings.lifecycle.reconcile, settings.health.interval), (3, 15));
}

#[test]
fn the_sample_is_valid_with_every_line_uncommented() {
    let uncommented =
        |line: &str| line.strip_prefix('#').filter(|rest| !rest.starts_with(' ')).unwrap_or(line).to_owned();
    // A relay has one of the two.
    let lines = pages::sample();
    let lines: Vec<String> =
        lines.lines().map(uncommented).filter(|line| !line.starts_with("socket = ")).collect();
    // The secret of the sample is refused, because everybody knows it. The sample's relay comes first, before the sections.
    let text = lines.join("\n").replace(SAMPLE, "another secret of this test");
    let Loaded { settings, warnings, has_secret } =
        read(&text).unwrap_or_else(|mistakes| panic!("{mistakes:#?}"));
    assert!(warnings.is_empty(), "{warnings:?}");
    assert!(has_secret);
    assert_eq!((settings.relays.len(), settings.relays[0].region.as_str()), (1, "eu-central"));
    assert!(settings.http.tokens.find(TOKEN.as_bytes()).is_some());
    assert!(settings.peers.redis_password.is_some() && settings.relays[0].token.is_some());
}

#[test]
fn every_mistake_is_reported_with_its_line_and_fix() {
    let text = "[livekit]\nurl = \"livekit.example.org\"\nkey_file = \"keys\"\n[credentials]\nttl = \"4h\"\n[peers]\nmode = \"all\"\n";
    let mistakes: Vec<String> = read(text).unwrap_err().iter().map(ToString::to_string).collect();
    for (line, said) in [
        (2, "livekit.url = \"livekit.example.org\": not a URL; write it like"),
        (3, "livekit.key_file: unknown setting; did you mean livekit.keys_file?"),
        (5, "credentials.ttl = ***: expected a number, found text"),
        (7, "peers.mode = \"all\": unknown value; use one of only, add, off"),
    ] {
        let place = format!("file:{line}: {said}");
        assert!(mistakes.iter().any(|mistake| mistake.starts_with(&place)), "{place}\n{mistakes:#?}");
    }
}

/// Whoever runs the sidecar is told what is missing; whoever only renders needs less.
#[test]
fn what_is_missing_depends_on_the_purpose() {
    let mistakes: Vec<String> = read("").unwrap_err().iter().map(ToString::to_string).collect();
    assert_eq!(mistakes.len(), 2, "{mistakes:#?}");
    assert!(mistakes[0].contains("livekit.url: there is no URL of LiveKit"));
    assert!(mistakes[1].contains("livekit.keys_file: there is no API key of LiveKit"));
    assert!(load("file", "", Purpose::Render, &context(&|_| None)).is_ok());
    let without = "[livekit]\nurl = \"ws://127.0.0.1:7880\"\nkeys_file = \"keys\"\n";
    let warnings = read(without).unwrap().warnings;
    assert!(warnings.iter().any(|one| one.what.contains("there is no shared secret")), "{warnings:?}");
}

#[test]
fn settings_that_disagree_are_reported() {
    for (text, said) in [
        ("[[relay]]\nurl = \"https://turn-2.example.org:9642\"", "the API over TCP needs a token"),
        (
            "[[relay]]\nurl = \"http://turn-2.example.org:9642\"\ntoken_file = \"/etc/hairpin/turn-2-token\"",
            "the token would cross the network without TLS",
        ),
        ("[[relay]]\nsocket = \"control.sock\"", "not an absolute path"),
        ("[[relay]]\ntoken_file = \"/etc/hairpin/turn-2-token\"", "only the API over TCP has tokens"),
        (
            "[[relay]]\nname = \"a\"\n[[relay]]\nname = \"a\"\nsocket = \"/x\"",
            "another relay has the same name",
        ),
        ("[[relay]]\nname = \"a\"\n[[relay]]\nname = \"b\"", "the relay is listed twice"),
        ("[[relay]]\nname = \"a b\"", "not a name for logs and metrics"),
        ("[[relay]]\nurls = [\"turn://turn.example.org\"]", "an ICE URL has no slashes"),
        ("[http]\ncert = \"/etc/hairpin/fullchain.pem\"", "the certificate has no private key"),
        ("[http]\nkey = \"/etc/hairpin/privkey.pem\"", "the private key has no certificate"),
        (
            "[http]\ncert = \"/etc/hairpin/privkey.pem\"\nkey = \"/etc/hairpin/privkey.pem\"",
            "has no certificate in PEM",
        ),
        (
            "[http]\nlisten = \"0.0.0.0\"",
            "warning: http.listen = \"0.0.0.0\": 0.0.0.0:9643 is not a loopback address",
        ),
        ("[http]\norigins = \"https://*.example.org\"", "not an origin"),
        ("[http]\ntokens_file = \"none\"", "http.tokens_file = ***: cannot be read"),
        ("[peers]\naddresses = [\"10.0.0.0/8:50000-60000\"]", "is not an exact address with ports"),
        ("[peers]\naddresses = [\"203.0.113.7\"]", "is not an exact address with ports"),
        ("[peers]\nredis = \"redis://:hunter2@10.0.0.5\"", "peers.redis = ***: a URL with a password"),
        (
            "[peers]\nredis_password_file = \"/etc/hairpin/redis-password\"",
            "no Redis server that the password is for",
        ),
        ("[lifecycle]\nreconcile = 0", "out of range"),
    ] {
        let found = findings(text);
        assert!(found.len() == 1 && found[0].contains(said), "{text}: {found:?}");
        assert!(!found[0].contains("hunter2") && found[0].contains("; "), "{found:?}");
    }
    let secure = "[http]\nlisten = \"0.0.0.0\"\ncert = \"/etc/hairpin/fullchain.pem\"\nkey = \"/etc/hairpin/privkey.pem\"";
    assert!(findings(secure).is_empty());
    let api =
        read(&BASE.replace("[credentials]", "api_url = \"http://10.0.0.7:7880\"\n[credentials]")).unwrap();
    assert!(api.warnings.iter().any(|one| one.what.contains("access tokens cross the network")));
}

/// A minimal configuration does not close the relay to everything, but says that it does not know the SFU.
#[test]
fn an_sfu_whose_addresses_nothing_says_is_a_warning() {
    let unknown = |text: &str| {
        let warnings = read(&format!("{BASE}{text}")).unwrap().warnings;
        warnings.iter().any(|one| one.what.contains("which addresses the SFU has"))
    };
    assert!(unknown(""));
    for text in [
        "[peers]\nmode = \"off\"",
        "[peers]\naddresses = \"203.0.113.7:50000-60000\"",
        "[peers]\nredis = \"redis://10.0.0.5\"",
    ] {
        assert!(!unknown(text), "{text}");
    }
}

#[test]
fn the_environment_has_the_secret_first() {
    let environment = |name: &str| (name == SECRET_VARIABLE).then(|| "a secret of the environment".into());
    let loaded = load("file", BASE, Purpose::Run, &context(&environment)).unwrap();
    let secrets: Vec<_> =
        loaded.settings.credentials.secrets.iter().map(|one| one.as_bytes().to_vec()).collect();
    assert_eq!(secrets.len(), 3);
    assert_eq!(secrets[0], b"a secret of the environment");
    let short = |name: &str| (name == SECRET_VARIABLE).then(|| "short".into());
    let mistakes = load("file", BASE, Purpose::Run, &context(&short)).unwrap_err();
    assert!(
        mistakes[0].to_string().starts_with("environment: HAIRPIN_LIVEKIT_SECRET = ***:"),
        "{mistakes:?}"
    );
}

/// A secret in the place of a file's name, or of another setting, does not appear.
#[test]
fn misplaced_secrets_are_hidden() {
    for text in [
        "[credentials]\nsecret_file = \"hunter2hunter2hunter2\"",
        "[credentials]\nttl = \"hunter2hunter2hunter2\"",
        "[livekit]\nkeys_file = \"APIkey: hunter2hunter2hunter2\"",
        "[livekit]\nurl = \"wss://key:hunter2hunter2hunter2@livekit.example.org\"",
        "[[relay]]\ntoken_file = \"hunter2hunter2hunter2\"",
        "[credentials]\nhunter2hunter2hunter2 = true",
    ] {
        let mistakes = format!("{:?}", read(text).unwrap_err());
        assert!(mistakes.contains("***") && !mistakes.contains("hunter2"), "{text}: {mistakes}");
    }
}

#[test]
fn debug_output_has_no_secrets() {
    let shown = format!(
        "{:?}",
        settings(
            "[peers]\nredis = \"redis://10.0.0.5\"\nredis_password_file = \"/etc/hairpin/redis-password\""
        )
    );
    for secret in [SECRET, "an API secret", "a password", "older"] {
        assert!(!shown.contains(secret), "{shown}");
    }
}

#[test]
fn a_reload_names_what_has_changed() {
    let old = settings("");
    assert!(changes(&old, &old).is_empty());
    let new = settings("ttl = 60\n[[relay]]\nname = \"turn-1\"\n[http]\nburst = 1\n");
    assert_eq!(changes(&old, &new), ["relay", "credentials.ttl", "http.burst"]);
}

/// The defaults of the table are those of the types.
#[test]
fn the_defaults_are_the_same_everywhere() {
    assert!(changes(&Settings::blank(), &Settings::default()).is_empty());
}
