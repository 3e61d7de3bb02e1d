//! Overlays are checked, kept, and hold.

use std::net::UdpSocket;
use std::path::Path;

use super::*;
use crate::auth::Secret;
use crate::daemon::logging::LostLines;
use crate::daemon::relay::RunningRelay;
use crate::turn::External;

fn overlay(owner: &str, addresses: &[&str]) -> Result<Overlay, OverlayError> {
    let addresses: Vec<String> = addresses.iter().map(|text| (*text).to_owned()).collect();
    Overlay::new(owner, OverlayMode::Add, &addresses, 1_893_456_000)
}

fn store(folder: &Path) -> Arc<Store> {
    Arc::new(Store::open(Ok(folder.to_owned())))
}

fn loaded(folder: &Path) -> OverlayStore {
    OverlayStore::load(store(folder)).unwrap()
}

fn site() -> Site {
    Site {
        relay: vec!["10.1.1.1".parse().unwrap()],
        external: External::new(vec![("10.1.1.1".parse().unwrap(), "203.0.113.5".parse().unwrap())]),
        own: vec!["10.1.1.0/28".parse().unwrap()],
        listeners: vec![(crate::turn::Transport::Udp, "0.0.0.0:3478".parse().unwrap())],
        ..Site::default()
    }
}

#[test]
fn an_owner_has_a_plain_name() {
    let longest = "a".repeat(64);
    for name in ["livekit", "sfu-1.example_org", "A", "7", &longest] {
        assert!(overlay(name, &[]).is_ok(), "{name}");
    }
    for name in ["", ".", "..", "-x", "a b", "a/b", "a\n", "é", &format!("{longest}a")] {
        assert!(matches!(overlay(name, &[]), Err(OverlayError::Invalid(_))), "{name:?}");
    }
}

/// RFC 8656 §21: an overlay names hosts elsewhere, or servers on this machine by its address; never what means "this host" or many
/// hosts.
#[test]
fn only_single_addresses_of_hosts_are_taken() {
    let good = [
        "10.0.0.5",
        "203.0.113.7:50000-60000",
        "[2001:db8::7]:7882",
        "fd00::5",
        "100.64.0.5:7882",
        "10.0.0.5/32",
    ];
    assert_eq!(overlay("a", &good).unwrap().addresses.len(), 5, "the first and the last are one");
    for (address, why) in [
        ("10.0.0.0/8", "a range of addresses"),
        ("10.0.0.1-10.0.0.9", "CIDR notation"),
        ("sfu.example.org", "not an IP address"),
        ("10.0.0.5:0", "not a port"),
        ("10.0.0.5:9-8", "reversed"),
        ("127.0.0.1:7882", "a loopback address"),
        ("[::1]:7882", "a loopback address"),
        ("169.254.169.254:80", "a link-local address"),
        ("[fe80::1]:7882", "a link-local address"),
        ("0.0.0.0:7882", "the unspecified address"),
        ("[::]:7882", "the unspecified address"),
        ("224.0.0.1", "a multicast address"),
        ("[ff02::1]:7882", "a multicast address"),
        ("255.255.255.255", "broadcast"),
        ("[::ffff:10.0.0.5]:7882", "IPv4-mapped"),
        ("[::10.0.0.5]:7882", "IPv4-compatible"),
        ("2002:a00:5::1", "6to4"),
        ("2001::5", "Teredo"),
        ("64:ff9b::10.0.0.5", "write that"),
        ("10.0.0.5\u{1b}[2J", "not an IP address"),
    ] {
        let Err(OverlayError::Invalid(what)) = overlay("a", &[address]) else { panic!("{address} is taken") };
        assert!(what.contains(why) && !what.contains('\u{1b}'), "{address}: {what}");
    }
}

#[test]
fn an_overlay_has_a_bound() {
    let addresses: Vec<String> = (0..=ADDRESSES).map(|n| format!("10.0.{}.{}", n / 256, n % 256)).collect();
    let new = |n: usize| Overlay::new("a", OverlayMode::Only, &addresses[..n], 0);
    assert_eq!(new(ADDRESSES).unwrap().addresses.len(), ADDRESSES);
    assert!(matches!(new(ADDRESSES + 1), Err(OverlayError::Invalid(_))));
}

/// Own addresses need ports; what the file denies and the relay's listeners have no effect, and the answer says so.
#[test]
fn what_an_overlay_cannot_open_is_told() {
    for (address, is_taken) in [
        ("10.1.1.2", false),
        ("10.1.1.1", false),
        ("203.0.113.5", false),
        ("10.1.1.2:7882", true),
        ("10.9.9.9", true),
    ] {
        let checked = overlay("a", &[address]).unwrap().check_own(&site());
        assert_eq!(checked.is_ok(), is_taken, "{address}");
        let told = checked.err().map(|error| error.to_string()).unwrap_or_default();
        assert!(is_taken || told.contains(&format!("like \"{address}:7882\"")), "{told}");
    }
    let mut settings = Settings::default();
    settings.peers.deny = vec!["10.9.0.0/16".parse().unwrap()];
    let set = overlay("a", &["10.9.9.9:7882", "10.1.1.2:3478", "10.1.1.2:7882", "10.8.8.8"]).unwrap();
    let warnings = set.warnings(&settings, &site());
    assert_eq!(
        warnings,
        [
            "the overlay of a does not open 10.1.1.2:3478: this server's own endpoint",
            "the overlay of a does not open 10.9.9.9:7882: denied by peers.deny",
        ]
    );
}

/// Whatever is kept comes back as it was; anything else in its place keeps the relay from starting.
#[test]
fn a_damaged_file_keeps_the_relay_from_starting() {
    let folder = tempfile::tempdir().unwrap();
    assert!(loaded(folder.path()).overlays.is_empty(), "there is no file");
    let mut overlays = BTreeMap::new();
    for (owner, mode) in [("one", OverlayMode::Add), ("two", OverlayMode::Only)] {
        let set = Overlay { mode, ..overlay(owner, &["10.0.0.5", "[2001:db8::7]:50000-60000"]).unwrap() };
        overlays.insert(owner.to_owned(), set);
    }
    let good = text(&overlays);
    store(folder.path()).replace(FILE, good.as_bytes()).unwrap();
    assert_eq!(loaded(folder.path()).overlays, overlays);
    for damaged in [
        "",
        "{}",
        &good[..good.len() / 2],
        &good.replace("10.0.0.5", "10.0.0.0/8"),
        &good.replace("10.0.0.5", "127.0.0.1"),
        &good.replace("\"only\"", "\"more\""),
        &good.replace("\"version\": 1", "\"version\": 2"),
        &good.replace("\"two\"", "\"../two\""),
        &good.replace("addresses", "adresses"),
    ] {
        std::fs::write(folder.path().join(FILE), damaged).unwrap();
        let error = OverlayStore::load(store(folder.path())).err().map(|error| error.to_string()).unwrap();
        assert!(
            error.contains("overlays.json: is ") && error.contains("move it away to start without"),
            "{error}"
        );
    }
}

/// A relay on a loopback address of its own.
fn relay(ip: &str, overlays: Overlays) -> RunningRelay {
    let free = || UdpSocket::bind((ip, 0)).unwrap().local_addr().unwrap();
    let mut settings = Settings::default();
    (settings.workers, settings.listen.tcp, settings.listen.tls) = (1, Vec::new(), Vec::new());
    (settings.listen.udp, settings.http.listen) = (vec![free()], Vec::new());
    settings.relay.addresses = vec![ip.parse().unwrap()];
    settings.auth.secrets = vec![Secret::new("a secret for these tests")];
    RunningRelay::start(
        &settings,
        overlays,
        LostLines::none(),
        crate::daemon::revocations::RevokedUsers::none(),
    )
    .unwrap()
}

/// Whether clients of a relay may have a permission for an address, by what its workers were given last.
fn reaches(relay: &RunningRelay, ip: &str) -> bool {
    let turn = relay.settings().turn(relay.site());
    turn.peers.judge(ip.parse().unwrap(), &turn.external).is_ok()
}

/// An overlay holds when the order is answered, and after the next start, with one for each owner.
#[tokio::test]
async fn overlays_hold_now_and_after_the_next_start() {
    let folder = tempfile::tempdir().unwrap();
    let mut overlays = loaded(folder.path());
    let mut first = relay("127.1.17.1", overlays.rules());
    let set = overlays.set(overlay("livekit", &["10.0.0.5:7882"]).unwrap(), &mut first).await.unwrap();
    assert!(!set.replaced && set.warnings.is_empty() && reaches(&first, "10.0.0.5"));
    let again = overlays.set(overlay("livekit", &["10.0.0.6:7882"]).unwrap(), &mut first).await.unwrap();
    assert!(again.replaced && !reaches(&first, "10.0.0.5"));
    let only = Overlay { mode: OverlayMode::Only, ..overlay("other", &["10.0.0.7:7882"]).unwrap() };
    overlays.set(only, &mut first).await.unwrap();
    assert!(reaches(&first, "10.0.0.6") && reaches(&first, "10.0.0.7") && !reaches(&first, "8.8.8.8"));
    let unknown = overlays.clear("nobody", &mut first).await;
    assert_eq!(unknown, Err(OverlayError::Unknown("nobody".into())));
    let first = tokio::task::spawn_blocking(move || first.stop());
    first.await.unwrap();
    drop(overlays);

    let mut overlays = loaded(folder.path());
    let mut second = relay("127.1.17.1", overlays.rules());
    assert!(reaches(&second, "10.0.0.6") && reaches(&second, "10.0.0.7") && !reaches(&second, "8.8.8.8"));
    overlays.clear("other", &mut second).await.unwrap();
    assert!(!reaches(&second, "10.0.0.7") && reaches(&second, "8.8.8.8"));
    assert_eq!(loaded_again(&overlays), ["livekit"]);
    for n in 1..OWNERS {
        overlays.set(overlay(&format!("owner-{n}"), &[]).unwrap(), &mut second).await.unwrap();
    }
    let full = overlays.set(overlay("one-more", &[]).unwrap(), &mut second).await;
    assert!(matches!(full, Err(OverlayError::Full(_))));
    assert!(overlays.set(overlay("livekit", &[]).unwrap(), &mut second).await.is_ok(), "its owner has one");
    tokio::task::spawn_blocking(move || second.stop()).await.unwrap();
}

/// The owners in the file.
fn loaded_again(overlays: &OverlayStore) -> Vec<String> {
    parse(&overlays.store.read(FILE).unwrap().unwrap()).unwrap().into_keys().collect()
}

/// What cannot be kept does not hold either.
#[tokio::test]
async fn an_overlay_that_cannot_be_kept_is_refused() {
    let nowhere =
        Arc::new(Store::open(Err(anyhow::anyhow!("there is no state directory; set --state-dir or HOME"))));
    let mut overlays = OverlayStore::load(nowhere).unwrap();
    let mut relay = relay("127.1.17.2", overlays.rules());
    let refused = overlays.set(overlay("livekit", &["10.0.0.5:7882"]).unwrap(), &mut relay).await;
    let Err(OverlayError::Failed(why)) = refused else { panic!("{refused:?}") };
    assert!(why.contains("set --state-dir"), "{why}");
    assert!(!reaches(&relay, "10.0.0.5") && overlays.overlays.is_empty());
    tokio::task::spawn_blocking(move || relay.stop()).await.unwrap();
}
