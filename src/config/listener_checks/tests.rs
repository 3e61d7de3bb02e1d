//! `[[listener]]` sections, valid and invalid.

use super::*;
use crate::config::listener::PeersMode;
use crate::config::load;
use crate::config::tests::{GOOD, lines, note, one, read, reader};
use crate::turn::External;
use crate::turn::peers::Forbidden;

/// Every listener as text, those with peers of their own marked.
fn listeners(text: &str) -> Vec<String> {
    let text_of = |one: Listener| {
        let own = if one.peers == ListenerPeers::default() { "" } else { " *" };
        format!("{} {}{own}", one.transport.as_str(), one.address)
    };
    read(&format!("{text}\n{GOOD}")).listeners().into_iter().map(text_of).collect()
}

/// The listeners of a file are those that it lists; the defaults are for files that list none.
#[test]
fn a_file_with_listeners_opens_no_others() {
    let one = "[[listener]]\naddress = \"192.0.2.1:3480\"\n";
    assert_eq!(listeners(one), ["udp 192.0.2.1:3480", "tcp 192.0.2.1:3480"]);
    let also = format!("{one}[listen]\nudp = \"127.0.0.1\"");
    assert_eq!(listeners(&also), ["udp 127.0.0.1:3478", "udp 192.0.2.1:3480", "tcp 192.0.2.1:3480"]);
    let before = format!("[listen]\ngso = false\n{one}");
    assert_eq!(listeners(&before).len(), 2, "settings of [listen] that are no listeners");
    let certificate = format!("[tls]\ncert = \"fullchain.pem\"\nkey = \"privkey.pem\"\n{one}");
    assert_eq!(listeners(&certificate).len(), 2, "TLS is not listed");
}

#[test]
fn ports_default_to_those_of_the_transport() {
    let tls = "[tls]\ncert = \"fullchain.pem\"\nkey = \"privkey.pem\"\n";
    let all = "[[listener]]\naddress = \"192.0.2.1\"\ntransports = [\"tls\", \"udp\", \"tcp\"]";
    let expected = ["tls 192.0.2.1:5349", "udp 192.0.2.1:3478", "tcp 192.0.2.1:3478"];
    assert_eq!(listeners(&format!("{tls}{all}")), expected);
    let v6 = "[[listener]]\naddress = \"[2001:db8::1]\"\ntransports = \"tls\"";
    assert_eq!(listeners(&format!("{tls}{v6}")), ["tls [2001:db8::1]:5349"]);
    let port = "[[listener]]\naddress = \"[::]:443\"\ntransports = [\"udp\", \"tls\"]";
    assert_eq!(listeners(&format!("{tls}{port}")), ["udp [::]:443", "tls [::]:443"]);
}

/// TOML has three ways to write a table inside of a section.
#[test]
fn peers_can_be_written_in_every_way_of_toml() {
    let head = "[[listener]]\naddress = \"192.0.2.1:3480\"\n";
    for peers in [
        "peers.mode = \"alone\"\npeers.allow = [\"100.64.0.5:7882\"]\npeers.deny = []",
        "peers = { mode = \"alone\", allow = [\"100.64.0.5:7882\"] }",
        "[listener.peers]\nmode = \"alone\"\nallow = \"100.64.0.5:7882\"",
    ] {
        let second = "[[listener]]\naddress = \"127.0.0.1:3480\"\n[listener.peers]\ndeny = [\"9.9.9.9\"]";
        let settings = read(&format!("{head}{peers}\n{second}\n{GOOD}"));
        let [first, second] = &settings.listener[..] else { panic!("{:?}", settings.listener) };
        let allow = vec!["100.64.0.5:7882".parse().unwrap()];
        assert_eq!(first.peers, ListenerPeers { mode: PeersMode::Alone, allow, deny: Vec::new() }, "{peers}");
        assert_eq!((second.peers.mode, second.peers.deny.len()), (PeersMode::Add, 1));
    }
    let array = "listener = [{ address = \"192.0.2.1:3480\", peers = { deny = [\"9.9.9.9\"] } }]\n";
    assert_eq!(listeners(array), ["udp 192.0.2.1:3480 *", "tcp 192.0.2.1:3480 *"]);
}

#[test]
fn mistakes_are_told_with_their_line() {
    let tls = "[tls]\ncert = \"fullchain.pem\"\nkey = \"privkey.pem\"\n";
    for (text, expected) in [
        ("", ":1: listener: address is missing; add a line like address = \"192.0.2.7:3480\""),
        (
            "address = \"somewhere\"",
            ":2: listener.address = \"somewhere\": not an address with a port; write it like \"192.0.2.1:3478\"",
        ),
        ("address = \"192.0.2.1:0\"", "port 0 is not a valid port"),
        ("address = [\"192.0.2.1\"]", ":2: listener.address = [\"192.0.2.1\"]: expected text, found a list"),
        ("address = \"::1\"\ntransports = []", ":3: listener.transports = []: the listener has no transport"),
        (
            "address = \"::1\"\ntransports = [\"UDP\"]",
            ":3: listener.transports = \"UDP\": unknown transport; use one of udp, tcp, tls",
        ),
        ("address = \"::1\"\ntransports = [\"udp\", \"udp\"]", ":3: listener.transports"),
        (
            "address = \"::1\"\ntransports = [\"tls\"]",
            ":3: listener.transports = [\"tls\"]: TLS requires a certificate and its private key; set tls.cert and tls.key",
        ),
        ("address = \"::1\"\nport = 5", ":3: listener.port: unknown setting"),
        (
            "address = \"::1\"\npeers.alow = []",
            ":3: listener.peers.alow: unknown setting; did you mean peers.allow?",
        ),
        (
            "address = \"::1\"\npeers = [\"10.0.0.0/8\"]",
            ":3: listener.peers: expected a section, found a value; write listener.peers.mode = ...",
        ),
        (
            "address = \"::1\"\npeers.mode = \"only\"",
            ":3: listener.peers.mode = \"only\": unknown value; use one of add, alone",
        ),
        (
            "address = \"::1\"\npeers.allow = [\"10.0.0.1/8\"]",
            ":3: listener.peers.allow = \"10.0.0.1/8\": has bits set after the prefix",
        ),
        (
            "address = \"192.0.2.1:50000\"",
            ":2: listener.address = \"192.0.2.1:50000\": the relay ports 49152-65535 include the port of 192.0.2.1:50000",
        ),
    ] {
        let found = one(&format!("[[listener]]\n{text}"));
        assert!(found.contains(expected), "{text}: {found}");
    }
    let single = one("[listener]\naddress = \"::1\"");
    assert!(single.contains("write [[listener]] with two brackets"), "{single}");
    let shared = "[[listener]]\naddress = \"[::]:443\"\ntransports = [\"tcp\", \"tls\"]\n";
    assert_eq!(lines(&format!("{tls}{shared}")), [""; 0]);
    let empty = one("[[listener]]\naddress = \"::1\"\n[[listener]]\naddress = \"192.0.2.9:1\"");
    assert!(
        empty.contains("warning: listener.address = \"192.0.2.9:1\": 192.0.2.9 is not an address"),
        "{empty}"
    );
}

/// Two listeners cannot have the same address, or one that the other includes, over the same kind of socket.
#[test]
fn a_listener_that_is_listed_twice_is_told_with_both_places() {
    let tls = "[tls]\ncert = \"fullchain.pem\"\nkey = \"privkey.pem\"\n";
    let listener = |address: &str, transports: &str| {
        format!("[[listener]]\naddress = \"{address}\"\ntransports = [{transports}]\n")
    };
    let first = listener("192.0.2.1:3480", "\"udp\"");
    for (text, expected) in [
        (
            listener("192.0.2.1:3480", "\"tcp\", \"udp\""),
            "hairpin.toml:8: listener.address = \"192.0.2.1:3480\": udp 192.0.2.1:3480 is listed twice, here and in the \
             [[listener]] of line 5; remove or change one of them",
        ),
        (
            listener("0.0.0.0:3480", "\"udp\""),
            "udp 0.0.0.0:3480 includes 192.0.2.1:3480 of the [[listener]] of line 5",
        ),
        (
            format!("[listen]\nudp = \"192.0.2.1:3480\"\n{}", listener("127.0.0.1:3480", "\"udp\"")),
            "hairpin.toml:5: listener.address = \"192.0.2.1:3480\": udp 192.0.2.1:3480 is listed twice, here and in listen.udp",
        ),
        (
            format!("[listen]\nudp = \"0.0.0.0:3480\"\n{}", listener("127.0.0.1:3481", "\"udp\"")),
            "udp 192.0.2.1:3480 is included in 0.0.0.0:3480 of listen.udp",
        ),
        (
            listener("127.0.0.1:9641", "\"tls\""),
            "tls 127.0.0.1:9641 is listed twice, here and in http.listen",
        ),
    ] {
        let found = lines(&format!("{tls}{first}{text}"));
        assert!(found[0].contains(expected), "{text}: {found:?}");
    }
    let apart = format!("{first}{}", listener("192.0.2.1:3480", "\"tcp\""));
    assert_eq!(listeners(&apart), ["udp 192.0.2.1:3480", "tcp 192.0.2.1:3480"], "other kinds of sockets");
    let many: String =
        (0..257).map(|n| listener(&format!("127.0.1.{}:{}", n % 250, 1000 + n), "\"udp\"")).collect();
    let found = lines(&many);
    assert!(found[0].contains("more than 256 [[listener]] sections"), "{found:?}");
}

/// What is said about `[peers]` and this machine's own addresses is also said about the peers of a listener.
#[test]
fn the_peers_of_a_listener_are_looked_at() {
    let listener = |peers: &str| format!("[[listener]]\naddress = \"192.0.2.1:3480\"\n{peers}\n");
    for (peers, expected) in [
        (
            "peers.allow = [\"192.0.2.1:3480\"]",
            "does not open 3480 (listener), a port that this relay itself listens on",
        ),
        ("peers.allow = [\"192.0.2.1:50000\"]", "overlap the relay ports"),
        ("peers.allow = [\"2002::/16\"]", "6to4 addresses are always refused"),
        ("peers.deny = [\"192.0.2.0/24\"]", "denies the relay's own 192.0.2.1"),
    ] {
        let found = one(&listener(peers));
        assert!(found.contains(":3: warning: listener.peers."), "{found}");
        assert!(found.contains(expected), "{found}");
    }
    let told = note(&listener("peers.allow = [\"192.0.2.0/24\"]"));
    assert!(told.contains(":3: note: listener.peers.allow") && told.contains("does not open"), "{told}");
}

/// The table of `turn` has the listeners that differ, those being removed among them with the peers that they had.
#[test]
fn listeners_have_their_rules_in_the_relay() {
    let text = "[peers]\nallow = [\"10.0.0.0/8\"]\n[[listener]]\naddress = \"192.0.2.1:3480\"\n\
                [[listener]]\naddress = \"192.0.2.1:3481\"\n[listener.peers]\nmode = \"alone\"\nallow = \"100.64.0.5\"\n";
    let settings = load("hairpin.toml", &format!("{text}{GOOD}"), &reader()).unwrap().settings;
    let removed = Listener { address: "192.0.2.1:3482".parse().unwrap(), ..settings.listeners()[2].clone() };
    let wildcard = (Transport::Udp, "0.0.0.0:3480".parse().unwrap());
    let closing =
        settings.recall(std::slice::from_ref(&removed), &[(removed.transport, removed.address), wildcard]);
    let site = crate::config::Site { closing, ..Default::default() };
    let turn = settings.turn(&site);
    let judge = |port: u16, peer: &str| {
        let found = turn.listeners.of(Transport::Udp, ([192, 0, 2, 1], port).into());
        let rules = found.and_then(|one| one.peers.as_deref()).unwrap_or(&turn.peers);
        (
            rules.judge(peer.parse().unwrap(), &External::default()).map(drop),
            found.is_some_and(|one| one.closing),
        )
    };
    let of_another = turn.listeners.of(Transport::Udp, "192.0.2.2:3480".parse().unwrap());
    assert!(of_another.is_some_and(|one| one.closing), "the removed wildcard");
    let shared = Err(Forbidden::Special("carrier-grade NAT"));
    assert_eq!((judge(3480, "10.0.0.1"), judge(3480, "100.64.0.5")), ((Ok(()), false), (shared, false)));
    for (port, closing) in [(3481, false), (3482, true)] {
        assert_eq!(judge(port, "10.0.0.1"), (Err(Forbidden::Unlisted), closing));
        assert_eq!(judge(port, "100.64.0.5"), (Ok(()), closing));
    }
}

/// A reload says which listeners have come, which are gone, and whose peers are others.
#[test]
fn changes_are_told_by_listener() {
    let listener = |port: u16, allow: &str| {
        format!(
            "[[listener]]\naddress = \"192.0.2.1:{port}\"\ntransports = \"udp\"\npeers.allow = [{allow}]\n"
        )
    };
    let old = read(&format!("{}{}{GOOD}", listener(1, ""), listener(2, "\"10.0.0.5\"")));
    let new = read(&format!("{}{}{GOOD}", listener(3, ""), listener(2, "\"10.0.0.6:7882\"")));
    let told: Vec<String> =
        old.changes(&new).into_iter().map(|one| format!("{}: {}", one.key, one.what)).collect();
    let expected = [
        "listener: udp 192.0.2.1:3 added",
        "listener: udp 192.0.2.1:1 removed",
        "listener: udp 192.0.2.1:2: peers (add, allow [10.0.0.5], deny []) -> (add, allow [10.0.0.6:7882], deny [])",
    ];
    assert_eq!(told, expected);
    assert!(new.changes(&new.clone()).is_empty());
}
