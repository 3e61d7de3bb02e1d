//! Configuration files, valid and invalid.

use std::io;
use std::net::IpAddr;
use std::path::Path;
use std::sync::LazyLock;

use rcgen::{CertificateParams, DnType, Issuer, KeyPair, PKCS_RSA_SHA256, date_time_ymd};

use super::{ReadContext, Settings, load, without_file};
use crate::auth::Password;

pub const GOOD: &str = "[auth]\nsecrets = [\"0123456789abcdef\"]\n";

/// 2030-01-01
const NOW: u64 = 1_893_456_000;

/// A chain that is valid from 2020 to 2040 and its key, then a certificate that expired in 2025 and its key, then the chain and
/// the key again with RSA.
static PEMS: LazyLock<[String; 6]> = LazyLock::new(|| {
    let (ca_key, key) = (KeyPair::generate().unwrap(), KeyPair::generate().unwrap());
    let params = |name: &str, until| {
        let mut params = CertificateParams::new(["turn.example.org".to_owned()]).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        params.not_before = date_time_ymd(2020, 1, 1);
        params.not_after = date_time_ymd(until, 12, 31);
        params
    };
    let rsa_key = KeyPair::generate_for(&PKCS_RSA_SHA256).unwrap();
    let ca = params("authority", 2040).self_signed(&ca_key).unwrap();
    let issuer = Issuer::new(params("authority", 2040), ca_key);
    let chain = params("relay", 2040).signed_by(&key, &issuer).unwrap();
    let rsa = params("relay", 2040).signed_by(&rsa_key, &issuer).unwrap();
    let old_key = KeyPair::generate().unwrap();
    let old = params("relay", 2025).self_signed(&old_key).unwrap().pem();
    let (chain, rsa) = (chain.pem() + &ca.pem(), rsa.pem() + &ca.pem());
    let [key, old_key, rsa_key] = [key, old_key, rsa_key].map(|key| key.serialize_pem());
    [chain, key, old, old_key, rsa, rsa_key]
});

/// The contents of the file with this name, if it is one of the [`PEMS`].
pub fn pem(path: &Path) -> Option<String> {
    let names = ["fullchain.pem", "privkey.pem", "old.pem", "old-key.pem", "rsa.pem", "rsa-key.pem"];
    let n = names.iter().position(|name| path.ends_with(name))?;
    Some(PEMS[n].clone())
}

/// A machine with two addresses, some files and no environment variables.
pub fn reader() -> ReadContext<'static> {
    ReadContext {
        own: &|| {
            let own = ["127.0.0.0/8", "::1", "192.0.2.1", "2001:db8::1"];
            (own.map(|range| range.parse().unwrap()).into(), false)
        },
        discovered: &|| vec!["192.0.2.1".parse().unwrap()],
        has_address: &|ip| {
            ip.is_loopback() || ["192.0.2.1", "2001:db8::1"].map(|a| a.parse()).contains(&Ok::<IpAddr, _>(ip))
        },
        read: &|path| match path.to_str() {
            Some("secrets") => {
                Ok("# first, then second\r\nfirst secret of two\n\n  second secret of two \r\n".into())
            }
            Some("password") => Ok("\u{FEFF}# bob's\r\nwith some spaces\r\n\r\n".into()),
            Some("empty") => Ok("\n".into()),
            Some("/etc" | "folder") => Err(io::ErrorKind::IsADirectory.into()),
            _ => pem(path).map(|pem| pem.as_str().into()).ok_or_else(|| io::ErrorKind::NotFound.into()),
        },
        read_here: &|path| (reader().read)(path),
        variables: &Vec::new,
        arguments: &[],
        environment: &|_| None,
        now: NOW,
        ..ReadContext::NONE
    }
}

pub fn read(text: &str) -> Settings {
    load("hairpin.toml", text, &reader()).unwrap_or_else(|mistakes| panic!("{mistakes:?}")).settings
}

/// The findings about a file with credentials and this text.
pub fn lines(text: &str) -> Vec<String> {
    let both = format!("{text}\n{GOOD}");
    match load("hairpin.toml", &both, &reader()) {
        Ok(loaded) => loaded.warnings,
        Err(mistakes) => mistakes,
    }
    .iter()
    .map(ToString::to_string)
    .collect()
}

pub fn one(text: &str) -> String {
    let mut lines = lines(text);
    assert_eq!(lines.len(), 1, "{lines:#?}");
    lines.remove(0)
}

/// The only note about a file that has no mistakes and no warnings.
pub fn note(text: &str) -> String {
    let loaded = load("hairpin.toml", &format!("{text}\n{GOOD}"), &reader()).unwrap();
    assert_eq!((&loaded.warnings[..], loaded.notes.len()), (&[][..], 1), "{:?}", loaded.notes);
    loaded.notes[0].to_string()
}

#[test]
fn a_file_with_eight_mistakes_gives_eight_lines() {
    let text = r#"
workers = "four"
[listen]
upd = ["0.0.0.0:3478"]
[relay]
addresses = ["192.0.2.1", "192.0.2.256"]
ports = "65535-49152"
[auth]
secrets = [
  "0123456789abcdef",
  "short",
]
secret_files = ["missing"]
[peers]
allow = ["10.0.0.0/40"]
[log]
level = "loud"
"#;
    let mistakes = load("hairpin.toml", text, &reader()).unwrap_err();
    let lines: Vec<String> = mistakes.iter().map(ToString::to_string).collect();
    assert_eq!(
        lines,
        [
            "hairpin.toml:2: workers = \"four\": expected a number, found text; write a whole number, without quotes",
            "hairpin.toml:4: listen.upd: unknown setting; did you mean listen.udp?",
            "hairpin.toml:6: relay.addresses = \"192.0.2.256\": not an IP address; write it like \"192.0.2.1\" or \
             \"2001:db8::1\"",
            "hairpin.toml:7: relay.ports = \"65535-49152\": the range is reversed; write \"49152-65535\"",
            "hairpin.toml:11: auth.secrets = ***: a secret of 5 characters can be guessed; use at least 16; \
             `openssl rand -base64 32` generates a good one",
            "hairpin.toml:13: auth.secret_files = ***: cannot be read: No such file or directory; correct the path, or if \
             this is the secret itself, move it to auth.secrets",
            "hairpin.toml:15: peers.allow = \"10.0.0.0/40\": the prefix length must be a number from 0 to 32; write it \
             like \"192.0.2.0/24\" or \"2001:db8::/32\"",
            "hairpin.toml:17: log.level = \"loud\": unknown value; use one of error, warn, info, debug, trace",
        ]
    );
}

/// A service may start before the network, so an address that is not there is no mistake.
#[test]
fn an_address_that_is_not_on_this_machine_is_a_warning() {
    let text = "\
[listen]
udp = [\"192.0.2.9:3478\"]
[relay]
addresses = [\"192.0.2.1\", \"2001:db8::99\"]
[http]
listen = \"127.0.0.1:9641\"
";
    let expected = [
        "hairpin.toml:2: warning: listen.udp = [\"192.0.2.9:3478\"]: 192.0.2.9 is not an address of this machine now; \
         clients are not served there until it has; if it is a mistake, `ip addr` lists those that it has",
        "hairpin.toml:4: warning: relay.addresses = [\"192.0.2.1\", \"2001:db8::99\"]: 2001:db8::99 is not an address of this \
         machine now; the relay waits for it; if it is a mistake, `ip addr` lists those that it has",
    ];
    assert_eq!(lines(text), expected);
    let both = format!("{text}{GOOD}");
    let loaded = load("hairpin.toml", &both, &reader()).unwrap();
    assert_eq!(loaded.settings.relay.addresses.len(), 2, "it is used once the machine has it");
}

#[test]
fn everything_can_be_set() {
    let settings = read(
        r#"
workers = 3
software = "hairpin"
[listen]
udp = ["192.0.2.1", "[2001:db8::1]:4000", "2001:db8::1"]
tcp = "192.0.2.1"
tls = "192.0.2.1"
gro = false
gso = false
steering = false
gather = 20
rfc5766_channels = true
[relay]
addresses = "192.0.2.1"
external_ip = "203.0.113.1"
ports = "50000-50010"
[tls]
cert = "fullchain.pem"
key = "privkey.pem"
[auth]
realm = "example.org"
secrets = "0123456789abcdef"
secret_files = ["secrets"]
user_before_expiry = true
nonce_lifetime = 60
[[auth.user]]
name = "alice"
password = "a"
[[auth.user]]
name = "bob"
password_file = "password"
[[auth.user]]
name = "carol"
key = "0x00112233445566778899aabbccddeeff"
[limits]
user_allocations = 1
allocations = 2
permissions = 3
channels = 4
bandwidth = 500000
connections = 10
connections_per_source = 9
client_queue = 65536
handshake_timeout = 7
first_message_timeout = 6
unfinished_message_timeout = 5
idle_timeout = 4
unauthenticated_burst = 5
unauthenticated_rate = 0
exempt_sources = ["10.0.0.0/24", "fd00::1"]
allocation_lifetime = 600
max_allocation_lifetime = 700
permission_lifetime = 300
channel_lifetime = 600
reservation_lifetime = 31
[peers]
allow = ["10.0.0.0/8"]
deny = ["10.1.0.0/16", "2001:db8::/32"]
nat64 = ["2001:db8:64::/96"]
[http]
listen = []
[log]
level = "debug"
format = "json"
"#,
    );
    let text = format!("{settings:?}");
    for (value, expected) in [
        (format!("{:?}", settings.listen.udp), "[192.0.2.1:3478, [2001:db8::1]:4000, [2001:db8::1]:3478]"),
        (format!("{:?}", settings.listen.tcp), "[192.0.2.1:3478]"),
        (format!("{:?}", settings.listen.tls), "[192.0.2.1:5349]"),
        (format!("{:?}", settings.tls.all()[0].load().unwrap().named_identity().identity), "Identity"),
        (format!("{:?}", settings.relay.addresses), "[192.0.2.1]"),
        (settings.limits.bandwidth.to_string(), "500000"),
        (settings.relay.external_ip[0].to_string(), "203.0.113.1"),
        (format!("{:?}", settings.relay.ports), "50000..=50010"),
        (format!("{:?}", settings.peers.deny), "[10.1.0.0/16, 2001:db8::/32]"),
    ] {
        assert_eq!(value, expected, "in {text}");
    }
    let secrets: Vec<_> = settings.auth.secrets.iter().map(|secret| secret.as_bytes()).collect();
    assert_eq!(secrets, [&b"0123456789abcdef"[..], b"first secret of two", b"second secret of two"]);
    let [alice, bob, carol] = &settings.auth.users[..] else { panic!("{:?}", settings.auth.users) };
    assert_eq!([&alice.name, &bob.name, &carol.name], ["alice", "bob", "carol"]);
    assert!(matches!(&bob.password, Password::Plain(password) if password.as_bytes() == b"with some spaces"));
    assert!(matches!(&carol.password, Password::Md5Key(key) if key[..3] == [0, 0x11, 0x22]));
    assert_eq!(settings.listen.gather, 20);
    assert!(settings.listen.rfc5766_channels);
    assert!(settings.auth.user_before_expiry && !settings.listen.gro && settings.http.listen.is_empty());
    assert!(!text.contains("0123456789abcdef") && !text.contains("some spaces"), "{text}");
}

#[test]
fn mistyped_keys_get_a_suggestion() {
    assert!(one("[listen]\nUDP = []").contains("did you mean listen.udp?"));
    assert!(one("[relay]\nudp = []").contains("did you mean listen.udp?"));
    assert!(one("min-port = 1").contains("did you mean relay.ports?"));
    assert!(one("[relais]\nports = \"1\"").contains("relais: unknown setting; did you mean relay?"));
    assert!(one("zzzzzzzzzz = 1").contains("docs/configuration.md"));
    assert!(
        one("[[auth.user]]\nnaem = \"a\"").contains("auth.user.naem: unknown setting; did you mean name?")
    );
    assert!(one("listen = 5").contains("write [listen]"));
    assert!(one("[workers]").contains("workers: expected a value, found a section; write workers = ..."));
}

#[test]
fn invalid_toml_is_reported_with_its_line() {
    let line = one("[listen\nudp = []");
    assert!(line.starts_with("hairpin.toml:1: not valid TOML: "), "{line}");
}

#[test]
fn wrong_values_are_reported() {
    for (text, expected) in [
        (
            "[relay]\nports = \"3000-4000\"",
            "the relay ports 3000-4000 include the port of 0.0.0.0:3478 and [::]:3478; change",
        ),
        (
            "[listen]\nudp = \"0.0.0.0:50000\"",
            "listen.udp = \"0.0.0.0:50000\": the relay ports 49152-65535 include the port of 0.0.0.0:50000",
        ),
        ("[relay]\nports = \"0-99\"", "below 1024"),
        ("[relay]\nports = 5", "expected text, found a number"),
        ("[relay]\nports = \"5000\"", "not a valid port range"),
        ("[relay]\naddresses = [\"0.0.0.0\"]", "a wildcard address cannot"),
        ("[relay]\naddresses = [\"fe80::1\"]", "link-local"),
        ("[relay]\naddresses = [\"224.0.0.1\"]", "multicast"),
        ("[relay]\naddresses = [\"::ffff:192.0.2.1\"]", "write 192.0.2.1"),
        ("[relay]\naddresses = [\"192.0.2.1\", \"192.0.2.1\"]", "192.0.2.1 is listed twice"),
        (
            "[listen]\nudp = [\"192.0.2.1\", \"0.0.0.0\"]",
            "0.0.0.0:3478 includes 192.0.2.1:3478, which is listed too",
        ),
        (
            "[relay]\nexternal_ip = \"turn_example.org:3478\"",
            "not an external address; write it like \"203.0.113.7\"",
        ),
        ("[relay]\nexternal_ip = \"203.0.113.1/\"", "not an external address"),
        ("[relay]\nexternal_ip = \"0.0.0.0\"", "0.0.0.0 cannot be reached from outside"),
        ("[relay]\nexternal_ip = \"203.0.113.1/2001:db8::1\"", "write two addresses of the same family"),
        (
            "[relay]\nexternal_ip = [\"203.0.113.1\", \"203.0.113.1\"]",
            "relay.external_ip = [\"203.0.113.1\", \"203.0.113.1\"]: 203.0.113.1 is listed twice",
        ),
        (
            "[relay]\naddresses = \"192.0.2.1\"\nexternal_ip = \"203.0.113.1/127.0.0.1\"",
            "relay.external_ip = \"203.0.113.1/127.0.0.1\": 127.0.0.1 is not one of the relayed addresses (192.0.2.1)",
        ),
        (
            "[relay]\naddresses = [\"192.0.2.1\", \"127.0.0.1\"]\nexternal_ip = \"203.0.113.1\"",
            "write which one, like \"203.0.113.1/192.0.2.1\"",
        ),
        (
            "[relay]\naddresses = \"192.0.2.1\"\nexternal_ip = [\"203.0.113.1\", \"203.0.113.2\"]",
            "192.0.2.1 would have two external addresses",
        ),
        ("[listen]\nudp = []\ntcp = []", "there is no listener for clients"),
        (
            "[listen]\ntcp = \"127.0.0.1:9641\"",
            "listen.tcp = \"127.0.0.1:9641\": 127.0.0.1:9641 is listed twice; remove or change one",
        ),
        ("[http]\nlisten = \"127.0.0.1:3478\"", "0.0.0.0:3478 includes 127.0.0.1:3478, which is listed too"),
        (
            "[listen]\ntcp = \"192.0.2.1:5349\"\ntls = \"0.0.0.0\"\n[tls]\ncert = \"fullchain.pem\"\nkey = \"privkey.pem\"",
            "listen.tls = \"0.0.0.0\": 0.0.0.0:5349 includes 192.0.2.1:5349, which is listed too",
        ),
        (
            "[listen]\ntls = \"0.0.0.0\"",
            "listen.tls = \"0.0.0.0\": TLS requires a certificate and its private key; set tls.cert",
        ),
        (
            "[tls]\ncert = \"fullchain.pem\"",
            "tls.cert = \"fullchain.pem\": the certificate has no private key; set tls.key",
        ),
        (
            "[tls]\nkey = \"privkey.pem\"",
            "tls.key = \"privkey.pem\": the private key has no certificate; set tls.cert",
        ),
        (
            "[tls]\ncert = \"none.pem\"\nkey = \"privkey.pem\"",
            "tls.cert = \"none.pem\": cannot be read: No such file",
        ),
        (
            "[tls]\ncert = \"secrets\"\nkey = \"privkey.pem\"",
            "tls.cert = \"secrets\": the certificate file has no",
        ),
        (
            "[tls]\ncert = \"fullchain.pem\"\nkey = \"secrets\"",
            "tls.key = \"secrets\": the key file has no private key",
        ),
        (
            "[tls]\ncert = \"fullchain.pem\"\nkey = \"old-key.pem\"",
            "tls.key = \"old-key.pem\": the private key does not belong to the first certificate",
        ),
        ("[limits]\nclient_queue = 1", "write a number from 16384"),
        ("[limits]\nidle_timeout = 0", "write a number from 1"),
        ("[listen]\nudp = [\"192.0.2.1:0\"]", "port 0 is not a valid port"),
        ("[listen]\nudp = [\"255.255.255.255:3478\"]", "a broadcast address"),
        ("[listen]\nudp = [\"turn.example.org\"]", "not an address with a port"),
        (
            "[limits]\nmax_allocation_lifetime = 599",
            "max_allocation_lifetime, 599 s, is less than allocation_lifetime, 600 s",
        ),
        ("[limits]\npermission_lifetime = 0", "write a number from 1"),
        ("[limits]\nchannels = 4097", "write a number from 1 to 4096"),
        ("[limits]\nchannels = 0", "out of range: 0 does not mean no limit here"),
        ("[limits]\npermissions = 0", "out of range: 0 does not mean no limit here"),
        ("[limits]\nclient_queue = 0", "out of range: 0 does not mean no limit here"),
        ("[limits]\nhandshake_timeout = 0", "handshake_timeout = 0: out of range; write"),
        (
            "[[auth.user]]\nname = \"alice:wonder\"",
            "auth.user.name = ***: the user has no password; coturn's user:password",
        ),
        (
            "[[auth.user]]\nname = \"a\"\npassword = \"a\"\nallocations = -1",
            "write a number from 0 to 1000000",
        ),
        ("[listen]\ngather = 1001", "write a number from 0 to 1000"),
        ("[limits]\nchannels = -1", "out of range"),
        ("[limits]\nmax-bps = 1", "did you mean limits.bandwidth?"),
        ("[peers]\nnat64 = [\"2001:db8::/65\"]", "not a NAT64 prefix"),
        ("[peers]\nnat64 = [\"10.0.0.0/32\"]", "not a NAT64 prefix"),
        ("[peers]\ndeny = [\"10.0.0.1/8\"]", "bits set after the prefix"),
        ("[auth.user]\nname = \"a\"", "write [[auth.user]]"),
        (
            "[[auth.user]]\npassword = \"a\"",
            "1: auth.user: name is missing; add a line like name = \"alice\"",
        ),
        ("[[auth.user]]\nname = \"a\"", "2: auth.user.name = \"a\": the user has no password"),
        ("[[auth.user]]\nname = \"a\"\npassword = \"\"", "auth.user.password = ***: the password is empty"),
        ("[[auth.user]]\nname = \"a\"\npassword_file = \"empty\"", "the file is empty"),
        ("[[auth.user]]\nname = \"a\"\nkey = \"abc\"", "auth.user.key = ***: not an MD5 key"),
        (
            "[[auth.user]]\nname = \"a\"\npassword = \"a\"\npassword_file = \"password\"",
            "the user has more than one password",
        ),
        (
            "[[auth.user]]\nname = \"a\"\npassword = \"a\"\n[[auth.user]]\nname = \"a\"\npassword = \"b\"",
            "5: auth.user.name = \"a\": this user is listed twice",
        ),
    ] {
        let line = one(text);
        assert!(line.contains(expected), "{text:?} gave {line}");
        assert!(!line.contains("warning"), "{line}");
    }
}

/// RFC 8656 §3.2, §5, §7.2, §9, §12: other lifetimes are useful for tests, so they are used with a warning.
#[test]
fn lifetimes_that_differ_from_the_rfc_cause_a_warning() {
    for (text, expected) in [
        ("[limits]\npermission_lifetime = 1", "limits.permission_lifetime = 1: RFC 8656 section 9 says 300"),
        ("[limits]\nchannel_lifetime = 1", "section 12 says 600"),
        ("[limits]\nallocation_lifetime = 1", "section 3.2 says 600"),
        ("[limits]\nmax_allocation_lifetime = 9999", "section 7.2 says at most 3600"),
        ("[limits]\nreservation_lifetime = 1", "section 7.2 says at least 30"),
        ("auth.nonce_lifetime = 86400\nauth.secrets = \"0123456789abcdef\"", "section 5 says at most 3600"),
        ("[http]\nlisten = [\"192.0.2.1:9641\"]", "192.0.2.1:9641 is not a loopback address"),
        (
            "[limits]\nexempt_sources = [\"10.0.0.0/8\", \"203.0.113.0/24\", \"fc00::/7\"]",
            "203.0.113.0/24 is public",
        ),
        ("[limits]\nexempt_sources = [\"0.0.0.0/0\", \"::/0\"]", "0.0.0.0/0, ::/0 are public"),
    ] {
        let both = if text.starts_with("auth") { text.to_owned() } else { format!("{text}\n{GOOD}") };
        let loaded = load("hairpin.toml", &both, &reader()).unwrap();
        let [warning] = &loaded.warnings[..] else { panic!("{:?}", loaded.warnings) };
        assert!(warning.to_string().contains(&format!("warning: {}", &warning.key)), "{warning}");
        assert!(warning.to_string().contains(expected), "{warning}");
    }
}

#[test]
fn an_expired_certificate_causes_a_warning() {
    let text = "[tls]\ncert = \"old.pem\"\nkey = \"old-key.pem\"";
    let expected = "hairpin.toml:2: warning: tls.cert = \"old.pem\": the certificate expired on 2025-12-31; renew it, or clients refuse it";
    assert_eq!(one(text), expected);
    let text = format!("{text}\n{GOOD}");
    let early = load("hairpin.toml", &text, &ReadContext { now: 1_000_000_000, ..reader() }).unwrap();
    assert!(early.warnings[0].to_string().contains("is not valid before 2020-01-01"), "{:?}", early.warnings);
}

#[test]
fn without_a_certificate_tls_is_off() {
    assert!(read(GOOD).listen.tls.is_empty());
    let text = format!("[tls]\ncert = \"fullchain.pem\"\nkey = \"privkey.pem\"\n{GOOD}");
    let settings = read(&text);
    assert_eq!(settings.listen.tls.len(), 2);
    assert!(settings.tls.is_valid_for("turn.example.org") && !settings.tls.is_valid_for("example.org"));
    assert!(!settings.tls.is_self_signed() && !format!("{settings:?}").contains("PRIVATE"));
}

#[test]
fn never_an_anonymous_relay() {
    let mistakes = load("hairpin.toml", "", &reader()).unwrap_err();
    assert!(
        mistakes[0].to_string().starts_with("hairpin.toml: auth.secrets: there are no credentials"),
        "{}",
        mistakes[0]
    );
}

#[test]
fn secrets_may_come_from_the_environment() {
    let variable =
        |_: &str| Some("a secret of the first, a secret of the second\na secret of the third\n".into());
    let loaded = load("hairpin.toml", "", &ReadContext { environment: &variable, ..reader() }).unwrap();
    assert_eq!(loaded.settings.auth.secrets.len(), 3);
    let short = |_: &str| Some("short,".into());
    let mistakes = without_file(&ReadContext { environment: &short, ..reader() }).unwrap_err();
    assert_eq!(mistakes.len(), 1);
    assert!(mistakes[0].to_string().starts_with("environment: HAIRPIN_AUTH_SECRET = ***: a secret of 5"));
}

#[test]
fn without_a_file_the_defaults_are_used() {
    let settings = without_file(&reader()).unwrap().settings;
    assert_eq!(format!("{:?}", settings.listen.udp), "[0.0.0.0:3478, [::]:3478]");
    assert_eq!(format!("{:?}", settings.listen.tcp), "[0.0.0.0:3478, [::]:3478]");
    assert_eq!(format!("{:?}", settings.listen.tls), "[0.0.0.0:5349, [::]:5349]");
    assert_eq!(settings.relay.ports, 49152..=65535);
    assert_eq!(format!("{:?}", settings.http.listen), "[127.0.0.1:9641]");
    assert_eq!((settings.auth.realm.as_str(), settings.limits.user_allocations), ("hairpin", 1000));
}

/// RFC 8656 §21: a range that is wider than this machine's addresses was not written with them in mind.
#[test]
fn a_wide_range_does_not_open_own_addresses() {
    for (allow, own, example) in [
        ("0.0.0.0/0", "127.0.0.0/8, 192.0.2.1", "192.0.2.1:7882"),
        ("192.0.2.0/24", "192.0.2.1", "192.0.2.1:7882"),
        ("192.0.2.0/24:7882", "192.0.2.1", "192.0.2.1:7882"),
        ("126.0.0.0/7", "127.0.0.0/8", "127.0.0.1:7882"),
        ("2001:db8::/32", "2001:db8::1", "[2001:db8::1]:7882"),
    ] {
        let line = note(&format!("[peers]\nallow = [\"{allow}\"]"));
        let said =
            format!("{allow} does not open this machine's own addresses ({own}); to reach a server on");
        assert!(line.contains(&said) && line.contains("hairpin.toml:2: note: peers.allow"), "{line}");
        assert!(line.ends_with(&format!("name it exactly, like \"{example}\"")), "{line}");
    }
    let external = "[relay]\naddresses = \"192.0.2.1\"\nexternal_ip = \"203.0.113.5\"\n";
    let line = note(&format!("{external}[peers]\nallow = [\"203.0.113.0/24\"]"));
    assert!(
        line.contains("203.0.113.0/24 does not open this machine's own addresses (203.0.113.5)")
            && line.ends_with("name it exactly, like \"192.0.2.1:7882\""),
        "{line}"
    );
    for allow in ["10.0.0.0/8", "127.0.0.0/16:7882", "192.0.2.1:7882", "192.0.2.2", "[::1]:7882"] {
        let text = format!("[peers]\nallow = [\"{allow}\"]\n{GOOD}");
        let loaded = load("hairpin.toml", &text, &reader()).unwrap();
        assert!(loaded.notes.is_empty() && loaded.warnings.is_empty(), "{loaded:?}");
    }
}

/// A server and the relay on one address need ports of their own.
#[test]
fn relay_ports_and_allowed_own_ports_overlap() {
    for (allow, ports, said) in [
        ("192.0.2.1:50000-60000", "49152-65535", "overlap the relay ports 49152-65535"),
        ("192.0.2.1:50000-60000", "49152-65535", "set relay.ports to others, like \"60001-65535\""),
        ("192.0.2.1:60000", "49152-65535", "like \"49152-59999\""),
        ("192.0.2.1:9642-65535", "49152-65535", "set relay.ports to ports that the server does not use"),
        ("192.0.2.1", "20000-20099", "opens every UDP port there, also the relay ports 20000-20099"),
        ("[2001:db8::1]:20099-20100", "20000-20099", "like \"20000-20098\""),
    ] {
        let line = one(&format!("[relay]\nports = \"{ports}\"\n[peers]\nallow = [\"{allow}\"]"));
        assert!(line.contains(said) && line.contains("warning: peers.allow"), "{line}");
    }
    // Behind a NAT, the external address is another machine's, but for the relay's own ports
    let nat = "[relay]\naddresses = \"192.0.2.1\"\nexternal_ip = \"203.0.113.5\"\n[peers]\n";
    let line = one(&format!("{nat}allow = [\"203.0.113.5:50000-60000\"]"));
    assert!(line.contains("overlap the relay ports"), "{line}");
    assert_eq!(lines(&format!("{nat}allow = [\"203.0.113.5\", \"192.0.2.1:7882\"]")), Vec::<String>::new());
    for allow in [
        "192.0.2.1:30000-40000",
        "192.0.2.2:49152-65535",
        "10.0.0.0/8:50000-60000",
        // Relay sockets are never bound there
        "127.0.0.0/8",
        "127.0.0.1:50000-60000",
        "[::1]:49152-65535",
    ] {
        assert_eq!(lines(&format!("[peers]\nallow = [\"{allow}\"]")), Vec::<String>::new(), "{allow}");
    }
}

/// RFC 8656 §9: clients of one relay call each other at its own address.
#[test]
fn a_denied_relay_address_is_told() {
    for (relay, peers, denied) in [
        ("", "deny = [\"192.0.2.0/24\"]", "192.0.2.1"),
        ("", "deny = [\"0.0.0.0/0\"]", "192.0.2.1"),
        ("", "deny = [\"192.0.2.1:65535\"]", "192.0.2.1"),
        (
            "addresses = [\"192.0.2.1\", \"2001:db8::1\"]",
            "deny = [\"::/0\", \"192.0.2.1\"]",
            "192.0.2.1, 2001:db8::1",
        ),
        ("external_ip = \"203.0.113.5\"", "deny = [\"203.0.113.5\"]", "203.0.113.5"),
    ] {
        let line = one(&format!("[relay]\n{relay}\n[peers]\n{peers}"));
        let said =
            format!("denies the relay's own {denied}, so clients of this relay cannot call each other");
        assert!(line.contains(&said) && line.contains("warning: peers.deny"), "{line}");
        assert_eq!(
            line.contains("each other at the ports that it denies;"),
            peers.contains(":65535"),
            "{line}"
        );
    }
    for (relay, peers) in [
        ("external_ip = \"203.0.113.5\"", "deny = [\"192.0.2.0/24\"]"),
        ("", "deny = [\"192.0.2.1:1-1023\", \"10.0.0.0/8\"]"),
    ] {
        let text = format!("[relay]\n{relay}\n[peers]\n{peers}");
        assert_eq!(lines(&text), Vec::<String>::new(), "{text}");
    }
}

/// RFC 8656 §21: what the relay itself listens on is closed at every own address.
#[test]
fn an_allowed_port_of_a_listener_is_told() {
    for (allow, said) in [
        (
            "192.0.2.1:3478",
            "192.0.2.1:3478 does not open 3478 (listen.udp, listen.tcp), a port that this relay",
        ),
        (
            "127.0.0.1:3000-10000",
            "does not open 3478 (listen.udp, listen.tcp), 9641 (http.listen), ports that",
        ),
        (
            "[2001:db8::1]:9641",
            "does not open 9641 (http.listen), a port that this relay itself listens on; give",
        ),
    ] {
        let line = one(&format!("[peers]\nallow = [\"{allow}\"]"));
        assert!(line.contains(said) && line.contains("warning: peers.allow"), "{line}");
    }
    for allow in ["192.0.2.2:3478", "192.0.2.1:3479", "10.0.0.0/8:3478"] {
        assert_eq!(lines(&format!("[peers]\nallow = [\"{allow}\"]")), Vec::<String>::new(), "{allow}");
    }
}

/// RFC 8656 §21.4: what is always refused cannot be allowed.
#[test]
fn an_allow_without_effect_is_told() {
    for (allow, said) in [
        ("::ffff:10.0.0.1", "IPv4-mapped addresses are always refused; write the IPv4 address, 10.0.0.1"),
        ("2002::/16", "6to4 addresses are always refused; remove it"),
        ("2001::/32", "Teredo addresses are always refused; remove it"),
        ("64:ff9b::/96", "NAT64 addresses are judged by the IPv4 address inside; write the IPv4 range"),
        (
            "[64:ff9b::a00:1]:7882",
            "NAT64 addresses are judged by the IPv4 address inside; write the IPv4 range",
        ),
        ("0.0.0.0", "the unspecified address is always refused; remove it"),
    ] {
        let line = one(&format!("[peers]\nallow = [\"{allow}\"]"));
        assert!(line.contains(said) && line.contains("has no effect"), "{line}");
    }
}

#[test]
fn coturns_ranges_are_told_in_cidr_notation() {
    for (text, fix) in [
        ("10.0.0.0-10.255.255.255", "write \"10.0.0.0/8\""),
        ("10.0.0.1-10.0.0.4", "write \"10.0.0.1\", \"10.0.0.2/31\", \"10.0.0.4\""),
    ] {
        for key in ["allow", "deny"] {
            let line = one(&format!("[peers]\n{key} = [\"{text}\"]"));
            assert!(line.ends_with(fix) && line.contains(&format!("peers.{key} = \"{text}\"")), "{line}");
        }
        let line = one(&format!("[limits]\nexempt_sources = [\"{text}\"]"));
        assert!(line.ends_with(fix) && line.contains("is written in CIDR notation"), "{line}");
    }
}
