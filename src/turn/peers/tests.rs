//! Who may be reached.

use std::fmt;
use std::net::Ipv6Addr;
use std::str::FromStr;

use super::*;

/// The relay's own address.
const OWN: &str = "10.1.1.1";
/// Another address of this machine.
const VIP: &str = "8.8.4.4";

fn parsed<T: FromStr<Err: fmt::Debug>>(texts: &[&str]) -> Vec<T> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

fn rules(allow: &[&str], deny: &[&str]) -> PeerRules {
    PeerRules::new(Rules {
        allow: parsed(allow),
        deny: parsed(deny),
        nat64: parsed(&["2a00:64::/48"]),
        relay: parsed(&[OWN]),
        own: parsed(&["127.0.0.1", "127.0.0.0/8", "::1", OWN, VIP, "2001:db8:5::9", "2001:db8:5::/64"]),
        endpoints: parsed(&["0.0.0.0:3478", "127.0.0.1:9641"]),
        ..Rules::default()
    })
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn scope(rules: &PeerRules, text: &str) -> Result<Scope, Forbidden> {
    rules.judge(ip(text), &External::default())
}

/// Whether an address may get a permission.
fn may(rules: &PeerRules, text: &str) -> bool {
    scope(rules, text).is_ok()
}

/// Whether a port is reached, with or without an allocation there.
fn may_at(rules: &PeerRules, text: &str, port: u16, live: bool) -> bool {
    scope(rules, text).is_ok_and(|scope| scope.check(port, |_| live).is_ok())
}

/// The ports of `candidates` that are reached without an allocation.
fn open(rules: &PeerRules, text: &str, candidates: &[u16]) -> Vec<u16> {
    candidates.iter().copied().filter(|port| may_at(rules, text, *port, false)).collect()
}

/// RFC 8656 §21: each range that is refused by default, with its first and last address.
#[test]
fn refuses_everything_that_is_not_global() {
    let rules = rules(&[], &[]);
    for (range, name) in DENIED.iter().chain(&TUNNELS) {
        let range: Cidr = range.parse().unwrap();
        for ip in [range.first(), range.last()] {
            assert!(!may(&rules, &ip.to_string()), "{ip} is {name}");
        }
    }
    for ip in [
        "0.0.0.0",
        "::",
        "fec0::1",
        "febf::1",
        "192.0.0.8",
        "255.255.255.255",
        "::7f00:1",
        "::ffff:8.8.8.8",
        "2002:808:808::1",
    ] {
        assert!(!may(&rules, ip), "{ip}");
    }
}

/// RFC 8656 §21, RFC 4291 §2.4: of IPv6, only 2000::/3 and NAT64 addresses are global unicast; whatever IANA has not
/// assigned yet is refused.
#[test]
fn of_ipv6_only_global_unicast_and_nat64_are_reached() {
    let rules = rules(&[], &[]);
    for first in 0..=u16::MAX {
        let ip = IpAddr::V6(Ipv6Addr::new(first, 0xff, 1, 2, 3, 4, 5, 6));
        let global = (0x2000..=0x3fff).contains(&first);
        let special = matches!(first, 0x2002 | 0x3fff) || first == 0x2001;
        assert_eq!(may(&rules, &ip.to_string()), global && !special, "{ip}");
    }
    for ip in ["::ffff:0:8.8.8.8", "64:ff9b:1::8.8.8.8", "64:ff9a::8.8.8.8", "fe7f::1", "2001:1ff::1"] {
        assert!(!may(&rules, ip), "{ip}");
    }
    for ip in ["2001:200::1", "3ffe::1", "64:ff9b::8.8.8.8"] {
        assert!(may(&rules, ip), "{ip}");
    }
}

/// RFC 8656 §10.2: what is refused by default can be opened, but for tunnels (§21.4) and what means "this host".
#[test]
fn a_refusal_can_be_lifted() {
    let open = ["::1/128", "200::/7", "4000::/3", "fe00::/9", "fd00:1::/32", "3fff::/20", "::ffff:0:0:0/96"];
    let some = rules(&open, &[]);
    for ip in ["::1", "201::1", "5000::1", "fe10::1", "fd00:1::5", "3fff::1", "::ffff:0:8.8.8.8"] {
        assert!(may(&some, ip), "{ip}");
    }
    assert!(!may(&some, "fd00:2::5") && !may(&some, "6000::1") && !may(&some, "400::1"));
    let all = rules(
        &["::/0", "0.0.0.0/0", "2002::/16", "2001::/32", "::/96", "::ffff:0:0/96", "::/128", "0.0.0.0/8"],
        &[],
    );
    for ip in ["::", "0.0.0.0", "2002::1", "2001::1", "::8.8.8.8", "::ffff:8.8.8.8", "::2"] {
        assert!(!may(&all, ip), "{ip}");
    }
    assert!(may(&all, "0.1.2.3") && !may(&all, "10.9.9.9") && !may(&all, "fd00::1"));
}

/// RFC 8656 §10.2: global unicast addresses may be reached.
#[test]
fn allows_what_is_global() {
    let rules = rules(&[], &[]);
    for ip in [
        "8.8.8.8",
        "100.63.255.255",
        "100.128.0.0",
        "172.32.0.1",
        "198.20.0.0",
        "223.255.255.255",
        "2606:4700::1",
        "2001:4860::1",
    ] {
        assert_eq!(scope(&rules, ip), Ok(Scope::EveryPort), "{ip}");
    }
}

/// RFC 8656 §21.4: an IPv4 address inside a NAT64 address is judged as IPv4.
#[test]
fn looks_into_nat64() {
    let all = rules(&[], &[]);
    assert!(may(&all, "64:ff9b::8.8.8.8"));
    assert!(!may(&all, "64:ff9b::127.0.0.1") && !may(&all, "64:ff9b::0.0.0.0"));
    assert!(!may(&all, "64:ff9b::a9fe:a9fe"));
    // RFC 6052 §2.2: a 48-bit prefix, the address around byte 8.
    assert!(!may(&all, "2a00:64:0:7f00:0:100::"));
    assert!(may(&all, "2a00:64:0:808:8:800::"));
    // This machine's own addresses are closed, whatever they are wrapped in
    assert!(!may(&all, "64:ff9b::8.8.4.4") && !may_at(&all, "64:ff9b::10.1.1.1", 22, false));
    assert!(may_at(&all, "64:ff9b::10.1.1.1", 50000, true));
    let peer = "[64:ff9b::10.1.1.1]:50000".parse().unwrap();
    assert_eq!(scope(&all, "64:ff9b::10.1.1.1").unwrap().send_to(peer, |_| true), Ok(peer));
    // Either address can be denied
    let some = rules(&[], &["[64:ff9b::/96]:5000", "8.8.8.0/24"]);
    assert!(!may(&some, "64:ff9b::8.8.8.8") && may_at(&some, "64:ff9b::9.9.9.9", 5001, false));
    assert!(!may_at(&some, "64:ff9b::9.9.9.9", 5000, false));
}

/// RFC 8656 §10.2: the operator's ranges; the more specific wins, deny wins a tie, and both beat the defaults.
#[test]
fn weighs_allow_and_deny() {
    let open = rules(&["10.0.0.0/8", "127.0.0.1"], &["10.2.0.0/16", "9.9.9.0/24", "10.3.0.0/16"]);
    assert!(may(&open, "10.9.9.9"));
    assert!(may(&open, "127.0.0.1"));
    assert!(!may(&open, "127.0.0.2"));
    assert!(!may(&open, "10.2.0.1"));
    assert!(!may(&open, "9.9.9.9"));
    assert!(!may(&rules(&["9.9.9.0/24"], &["9.9.9.0/24"]), "9.9.9.9"));
    // A wide allow undoes no built-in refusal, a narrow list can stand alone.
    assert!(!may(&rules(&["0.0.0.0/0"], &[]), "10.9.9.9"));
    let only = rules(&["8.8.8.8"], &["0.0.0.0/0", "::/0"]);
    assert!(may(&only, "8.8.8.8"));
    assert!(!may(&only, "8.8.8.9"));
    assert!(!may(&only, OWN));
}

/// RFC 8656 §10.2: a rule with ports beats the same prefix without; otherwise the longest prefix wins, and deny wins a tie.
/// Rules of the same prefix unite.
#[test]
fn weighs_ports() {
    let ports = [1, 79, 80, 81, 4999, 5000, 5500, 6000, 6001, 65535];
    for (allow, deny, expected) in [
        (&["10.9.9.9:5000-6000"][..], &[][..], &[5000, 5500, 6000][..]),
        (&["10.0.0.0/8:5000-6000"], &[], &[5000, 5500, 6000]),
        (&["10.9.9.9:80", "10.9.9.9:5000-5500", "10.9.9.9:5400-6000"], &[], &[80, 5000, 5500, 6000]),
        // The longer prefix wins, with or without ports
        (&["10.9.9.9"], &["10.0.0.0/8:80"], &ports),
        (&["10.0.0.0/8:80"], &["10.9.9.9"], &[]),
        (&["10.0.0.0/8:80", "10.9.0.0/16"], &["10.9.9.9:81-65535"], &[1, 79, 80]),
        (&["10.0.0.0/8:80-5000"], &["10.9.0.0/16:81"], &[80, 4999, 5000]),
        // Ports beat the same prefix without
        (&["10.9.9.9:80"], &["10.9.9.9"], &[80]),
        (&["10.9.9.9"], &["10.9.9.9:80"], &[1, 79, 81, 4999, 5000, 5500, 6000, 6001, 65535]),
        // Deny wins a tie
        (&["10.9.9.9:80-5000"], &["10.9.9.9:81-5500"], &[80]),
        (&["10.9.9.9"], &["10.9.9.9"], &[]),
    ] {
        let rules = rules(allow, deny);
        assert_eq!(open(&rules, "10.9.9.9", &ports), expected, "{allow:?} {deny:?}");
    }
    // Elsewhere, what is not refused by default stays open
    assert_eq!(scope(&rules(&["9.9.9.9:80"], &[]), "9.9.9.9"), Ok(Scope::EveryPort));
    let rules = rules(&["9.9.9.9:80"], &["0.0.0.0/0", "9.9.9.10:80"]);
    assert_eq!((open(&rules, "9.9.9.9", &ports), open(&rules, "9.9.9.10", &ports)), (vec![80], vec![]));
    let v6 = self::rules(&["[2001:db8::7]:7882", "[2001:db8:1::/48]:5000-6000"], &[]);
    assert!(may_at(&v6, "2001:db8::7", 7882, false) && !may_at(&v6, "2001:db8::7", 7883, false));
    assert_eq!(open(&v6, "2001:db8:1::9", &ports), [5000, 5500, 6000]);
}

/// RFC 8656 §9: two clients of one relay meet at its own address, at live allocations only. Other addresses of this machine
/// are closed.
#[test]
fn own_addresses_open_live_ports_only() {
    let rules = rules(&[], &[]);
    assert!(may_at(&rules, OWN, 50000, true));
    assert!(!may_at(&rules, OWN, 50000, false));
    for own in [VIP, "127.0.0.1", "127.0.0.5", "::1", "2001:db8:5::", "2001:db8:5::9"] {
        assert_eq!(scope(&rules, own), Err(Forbidden::Own), "{own}");
    }
}

/// RFC 8656 §21: what the operator names exactly, or by a range within one own range, opens an own address; a wider range
/// was not written with this machine in mind.
#[test]
fn own_addresses_are_opened_by_name() {
    for (allow, own, expected) in [
        (&["10.0.0.0/8", "0.0.0.0/0", "10.1.1.0/24"][..], OWN, false),
        (&["10.1.1.0/31:1-65535"], OWN, false),
        (&[OWN], OWN, true),
        (&["10.1.1.1:7882"], OWN, true),
        (&["10.0.0.0/8", "10.1.1.1:7882"], OWN, true),
        (&["10.1.1.1:7883"], OWN, false),
        (&["8.8.4.0/24", "8.8.0.0/16"], VIP, false),
        (&["8.8.4.4:7000-8000"], VIP, true),
        (&["127.0.0.0/8"], "127.0.0.5", true),
        (&["127.0.0.0/24:7882"], "127.0.0.5", true),
        (&["127.0.1.0/24"], "127.0.0.5", false),
        (&["127.0.0.5"], "127.0.0.5", true),
        (&["126.0.0.0/7"], "127.0.0.5", false),
        (&["2001:db8:5::/64"], "2001:db8:5::9", true),
        (&["2001:db8::/32"], "2001:db8:5::9", false),
        (&["2001:db8:5::/48"], "2001:db8:5::9", false),
        (&["::1"], "::1", true),
        (&["::/8"], "::1", false),
    ] {
        assert_eq!(may_at(&rules(allow, &[]), own, 7882, false), expected, "{allow:?} {own}");
    }
    // Beside the ports of a server, clients still meet
    let beside = rules(&["10.1.1.1:7882"], &[]);
    assert!(may_at(&beside, OWN, 50000, true) && !may_at(&beside, OWN, 50000, false));
    // A wider range neither opens an own address nor is it a denial
    let wide = rules(&["10.1.0.0/16"], &["10.0.0.0/8"]);
    assert!(may_at(&wide, OWN, 50000, true) && !may_at(&wide, OWN, 7882, false));
    // A denial closes live ports, too
    let denied = rules(&["10.1.1.1:7882"], &["10.1.1.0/24"]);
    assert!(may_at(&denied, OWN, 7882, false) && !may_at(&denied, OWN, 50000, true));
    assert_eq!(scope(&rules(&[], &[OWN]), OWN), Err(Forbidden::Denied));
    assert!(denied.denies(ip(OWN), 49152..=65535) && !denied.denies(ip(OWN), 7882..=7882));
}

/// RFC 8656 §21: where own ranges are wider than the machine's, or depend on the link, only an exact address or a loopback
/// range opens something: the rest of such a range is elsewhere.
#[test]
fn ranges_that_are_not_exact_open_no_part() {
    for (widened, allow, own, expected) in [
        (true, "8.8.4.0/24", VIP, false),
        (true, "8.8.4.128/25", "8.8.4.200", false),
        (true, VIP, VIP, true),
        (true, "8.8.4.4:7882", VIP, true),
        (true, "127.0.0.0/16", "127.0.0.5", true),
        (false, "8.8.4.0/25", VIP, true),
        (false, "fe80::/64", "fe80::5", false),
        (false, "fe80::/10", "fe80::5", false),
        (false, "fe80::5", "fe80::5", true),
    ] {
        let rules = PeerRules::new(Rules {
            allow: parsed(&[allow]),
            own: parsed(&["127.0.0.0/8", "8.8.4.0/24", "fe80::/10"]),
            widened,
            ..Rules::default()
        });
        assert_eq!(may_at(&rules, own, 7882, false), expected, "{allow} {own}");
        assert_eq!(scope(&rules, "fe80::6"), Err(Forbidden::Special("link-local")));
    }
}

/// RFC 6052 §2: an address of this machine inside a NAT64 prefix is this machine's own; packets to it do not reach the NAT64.
#[test]
fn an_own_address_inside_a_nat64_prefix() {
    let rules = |allow: &[&str]| {
        PeerRules::new(Rules {
            allow: parsed(allow),
            nat64: parsed(&["2a00:64::/96"]),
            own: parsed(&["2a00:64::808:808"]),
            ..Rules::default()
        })
    };
    assert_eq!(scope(&rules(&[]), "2a00:64::808:808"), Err(Forbidden::Own));
    assert_eq!(scope(&rules(&["2a00:64::/96"]), "2a00:64::808:808"), Err(Forbidden::Own));
    assert!(may_at(&rules(&["[2a00:64::808:808]:7882"]), "2a00:64::808:808", 7882, false));
    assert!(may(&rules(&[]), "2a00:64::808:809") && !may(&rules(&[]), "2a00:64::7f00:1"));
}

/// RFC 8656 §21: the ports of the relay's own endpoints are refused at every own address, whatever is allowed.
#[test]
fn endpoints_are_never_peers() {
    let rules = rules(&["0.0.0.0/0", "127.0.0.0/8", OWN, VIP, "127.0.0.5:3478", "2001:db8:5::/64"], &[]);
    for own in [OWN, VIP, "127.0.0.1", "127.0.0.5", "2001:db8:5::9"] {
        for port in [3478, 9641] {
            assert!(!may_at(&rules, own, port, true), "{own}:{port}");
            assert!(may_at(&rules, own, port + 1, false), "{own}:{port}");
        }
    }
    assert!(!may_at(&rules, "8.8.8.8", 0, true) && may_at(&rules, "8.8.8.8", 3478, false));
    // A specific listener is an own address, even if the kernel's table was not read
    let unread = PeerRules::new(Rules { endpoints: parsed(&["8.8.8.8:3478"]), ..Rules::default() });
    assert!(!may_at(&unread, "8.8.8.8", 3478, true) && !may_at(&unread, "8.8.8.8", 53, false));
}

/// The outside E of a 1:1 NAT and the inside I behind it: a port of E is that of I if an allocation lives there or I is
/// allowed for it; otherwise it is another machine's behind the same address, which only E itself opens.
#[test]
fn behind_a_nat_a_port_is_here_or_elsewhere() {
    const I: &str = "10.1.1.1";
    const E: &str = "8.8.4.4";
    /// Where packets to a port of E go: nowhere, here, or elsewhere.
    fn to(rules: &PeerRules, named: &str, port: u16, live: bool) -> &'static str {
        let external = External::new(vec![(ip(I), ip(E))]);
        let scope = rules.judge(ip(named), &external);
        let is_live = |relayed: SocketAddr| {
            assert_eq!(relayed, SocketAddr::new(ip(I), port), "asked for by its inside name");
            live
        };
        match scope.map(|scope| scope.send_to(SocketAddr::new(ip(named), port), is_live)) {
            Ok(Ok(to)) if to == SocketAddr::new(ip(I), port) => "here",
            Ok(Ok(to)) if to == SocketAddr::new(ip(E), port) => "elsewhere",
            Ok(Ok(to)) => panic!("{to}"),
            Ok(Err(_)) => "nowhere",
            Err(_) => "refused",
        }
    }
    let rules = |allow: &[&str], deny: &[&str]| {
        PeerRules::new(Rules {
            allow: parsed(allow),
            deny: parsed(deny),
            nat64: Vec::new(),
            relay: parsed(&[I, E]),
            own: parsed(&["127.0.0.0/8", I]),
            endpoints: parsed(&["0.0.0.0:3478"]),
            ..Rules::default()
        })
    };
    let (none, i, e) = (rules(&[], &[]), rules(&["10.1.1.1:7882"], &[]), rules(&["8.8.4.4"], &[]));
    let both = rules(&["10.1.1.1:7882", "8.8.4.4"], &[]);
    let wide = rules(&["0.0.0.0/0", "10.0.0.0/8", "8.8.4.0/24"], &[]);
    let denied = rules(&["10.1.1.1:7882"], &["0.0.0.0/0"]);
    let private = rules(&[], &["10.0.0.0/8"]);
    for (rules, name, at_e, live_e, server_e, at_i, server_i) in [
        (&none, "nothing", "nowhere", "here", "nowhere", "nowhere", "nowhere"),
        (&wide, "wide", "nowhere", "here", "nowhere", "nowhere", "nowhere"),
        (&i, "I:7882", "nowhere", "here", "here", "nowhere", "here"),
        (&e, "E", "elsewhere", "here", "elsewhere", "nowhere", "nowhere"),
        (&both, "both", "elsewhere", "here", "here", "nowhere", "here"),
        (&denied, "all but I:7882", "nowhere", "nowhere", "here", "nowhere", "here"),
        (&private, "denied inside", "nowhere", "here", "nowhere", "refused", "refused"),
    ] {
        let found =
            [(E, 50000, false), (E, 50000, true), (E, 7882, false), (I, 50000, false), (I, 7882, false)];
        let found = found.map(|(named, port, live)| to(rules, named, port, live));
        assert_eq!(found, [at_e, live_e, server_e, at_i, server_i], "{name}");
        assert!(["nowhere", "refused"].contains(&to(rules, E, 3478, true)), "{name}");
        assert!(["nowhere", "refused"].contains(&to(rules, I, 3478, true)), "{name}");
    }
    // RFC 8656 §9: an allocation is reached by either name
    for (rules, expected) in [(&none, "here"), (&e, "here"), (&denied, "nowhere"), (&private, "refused")] {
        assert_eq!(to(rules, I, 50000, true), expected);
    }
    // A denial of E itself is as specific as what opens I
    assert_eq!(to(&rules(&["10.1.1.1:7882"], &["8.8.4.4:7882"]), E, 7882, false), "nowhere");
    assert_eq!(to(&rules(&["10.1.1.1:7882"], &["8.8.4.4"]), E, 7882, false), "here");
    assert_eq!(to(&rules(&["10.1.1.1"], &["8.8.4.4"]), E, 7882, false), "refused");
}

/// What opens a port is told by its inside name, and never where nothing can open it.
#[test]
fn remedies_name_what_opens_a_port() {
    let rules = rules(&[], &[]);
    let external = External::new(vec![(ip(OWN), ip("203.0.113.5"))]);
    let remedy_for = |peer: &str, why, external: &External| {
        let remedy = rules.remedy(peer.parse().unwrap(), why, external);
        remedy.map(|remedy| remedy.to_string())
    };
    let remedy = |peer: &str, external: &External| remedy_for(peer, Forbidden::Own, external);
    let here =
        |entry: &str| Some(format!("to reach a server on this machine, add \"{entry}\" to peers.allow"));
    let none = External::default();
    assert_eq!(remedy("10.1.1.1:7882", &none), here("10.1.1.1:7882"));
    assert_eq!(remedy("[2001:db8:5::9]:7882", &none), here("[2001:db8:5::9]:7882"));
    assert_eq!(remedy("[64:ff9b::10.1.1.1]:7882", &none), here("10.1.1.1:7882"));
    assert_eq!(remedy("10.1.1.1:7882", &external), here("10.1.1.1:7882"));
    assert_eq!(
        remedy("203.0.113.5:7882", &external).unwrap(),
        "to reach a server on this machine, add \"10.1.1.1:7882\" to peers.allow; to reach another machine behind this \
         external address, add \"203.0.113.5:7882\""
    );
    assert_eq!(
        remedy("127.0.0.1:0", &none).unwrap(),
        "to reach a server on this machine, add \"127.0.0.1\" to peers.allow, best with the server's ports"
    );
    assert_eq!(remedy("10.1.1.1:3478", &none), None, "an endpoint");
    assert_eq!(remedy_for("10.1.1.1:0", Forbidden::PortZero, &none), None);
    assert_eq!(
        remedy_for("10.9.9.9:5000", Forbidden::Special("private"), &none).unwrap(),
        "if clients need this peer, add \"10.9.9.9:5000\" to peers.allow"
    );
    assert_eq!(
        remedy_for("[64:ff9b::10.9.9.9]:0", Forbidden::Denied, &none).unwrap(),
        "if clients need this peer, add \"10.9.9.9\" to peers.allow, or deny less"
    );
}

#[test]
fn reads_ranges() {
    assert_eq!("10.0.0.0/8".parse::<Cidr>().unwrap().to_string(), "10.0.0.0/8");
    assert_eq!("::1".parse::<Cidr>().unwrap().to_string(), "::1/128");
    assert_eq!(
        "10.0.0.1/8".parse::<Cidr>().unwrap_err().to_string(),
        "has bits set after the prefix; did you mean 10.0.0.0/8?"
    );
    assert_eq!("10.0.0.0/33".parse::<Cidr>(), Err(CidrError::Length(32)));
    assert_eq!("ten".parse::<Cidr>(), Err(CidrError::Address));
    assert!("0.0.0.0/0".parse::<Cidr>().unwrap().contains("1.2.3.4".parse().unwrap()));
    assert!(!"0.0.0.0/0".parse::<Cidr>().unwrap().contains("::1".parse().unwrap()));
}
