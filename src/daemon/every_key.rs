//! A reload of a running relay changes every key of the settings table, one after the other, and does what the table says of each.

use std::collections::BTreeMap;
use std::net::UdpSocket;
use std::path::{Path, PathBuf};

use rcgen::{CertificateParams, KeyPair};

use super::configuration;
use super::logging::LostLines;
use super::relay::RunningRelay;
use crate::config::{Change, Reload, Settings, every_key};
use crate::turn::peers::Overlays;

/// The address of this relay.
const IP: &str = "127.1.15.1";

/// A value for each key that differs from the default and from [`base`]. `PORT` is a free port.
const VALUES: &[(&str, &str)] = &[
    ("workers", "3"),
    ("user", r#""nobody""#),
    ("software", r#""other""#),
    ("stop_deadline", "7"),
    ("drain_deadline", "7"),
    ("listen.udp", r#"["127.1.15.1:PORT"]"#),
    ("listen.tcp", r#"["127.1.15.1:PORT"]"#),
    ("listen.tls", r#"["127.1.15.1:PORT"]"#),
    ("listen.gro", "false"),
    ("listen.gso", "false"),
    ("listen.steering", "false"),
    ("listen.rfc5766_channels", "true"),
    ("listen.gather", "0"),
    ("listen.mss", "1300"),
    ("relay.addresses", r#"["127.1.15.2"]"#),
    ("relay.external_ip", r#"["192.0.2.1"]"#),
    ("relay.external_ip_interval", "100"),
    ("relay.stun_server", r#""127.0.0.1""#),
    ("relay.ports", r#""20000-20200""#),
    ("tls.cert", r#""other.pem""#),
    ("tls.key", r#""other.key""#),
    ("tls.unknown_name", r#""refuse""#),
    ("auth.realm", r#""other""#),
    ("auth.secrets", r#"["another secret for this test"]"#),
    ("auth.secret_files", r#"["secrets"]"#),
    ("auth.users_file", r#""users""#),
    ("auth.livekit_keys_file", r#""livekit-keys""#),
    ("auth.livekit_two_part", "false"),
    ("auth.user_before_expiry", "true"),
    ("auth.max_lifetime", "100"),
    ("auth.nonce_lifetime", "100"),
    ("auth.on_removal", r#""end""#),
    ("limits.user_allocations", "17"),
    ("limits.allocations", "17"),
    ("limits.new_allocations_burst", "17"),
    ("limits.new_allocations_rate", "17"),
    ("limits.permissions", "17"),
    ("limits.channels", "17"),
    ("limits.new_peers", "17"),
    ("limits.bandwidth", "17"),
    ("limits.unauthenticated_burst", "17"),
    ("limits.unauthenticated_rate", "17"),
    ("limits.binding_burst", "17"),
    ("limits.binding_rate", "17"),
    ("limits.exempt_sources", r#"["10.0.0.0/24"]"#),
    ("limits.connections", "17"),
    ("limits.connections_per_source", "17"),
    ("limits.client_queue", "20000"),
    ("limits.handshake_timeout", "17"),
    ("limits.first_message_timeout", "17"),
    ("limits.unfinished_message_timeout", "17"),
    ("limits.idle_timeout", "17"),
    ("limits.spliced_connections", "17"),
    ("limits.spliced_connections_per_source", "17"),
    ("limits.spliced_idle_timeout", "17"),
    ("limits.backend_connect_timeout", "17"),
    ("limits.allocation_lifetime", "700"),
    ("limits.max_allocation_lifetime", "3000"),
    ("limits.permission_lifetime", "200"),
    ("limits.channel_lifetime", "700"),
    ("limits.reservation_lifetime", "40"),
    ("peers.allow", r#"["10.0.0.0/8"]"#),
    ("peers.deny", r#"["198.51.100.0/24"]"#),
    ("peers.nat64", r#"["2001:db8:64::/96"]"#),
    ("http.listen", r#"["127.1.15.1:PORT"]"#),
    ("http.tls", "true"),
    ("http.tokens_file", r#""other-tokens""#),
    ("admin.socket", r#""/nowhere/control.sock""#),
    ("admin.group", r#""other""#),
    ("admin.listen", r#"["127.1.15.1:PORT"]"#),
    ("admin.tls", "true"),
    ("admin.hosts", r#"["other.example.org"]"#),
    ("admin.tokens_file", r#""other-tokens""#),
    ("log.level", r#""debug""#),
    ("log.format", r#""json""#),
    ("log.mask_addresses", "true"),
];

/// Sections that replace those of [`base`], for each key of a section that can be repeated.
const SECTIONS: &[(&str, &str)] = &[
    ("auth.user.name", "[[auth.user]]\nname = \"bob\"\npassword = \"one\""),
    ("auth.user.password", "[[auth.user]]\nname = \"alice\"\npassword = \"two\""),
    ("auth.user.password_file", "[[auth.user]]\nname = \"alice\"\npassword_file = \"password\""),
    ("auth.user.key", "[[auth.user]]\nname = \"alice\"\nkey = \"00112233445566778899aabbccddeeff\""),
    ("auth.user.allocations", "[[auth.user]]\nname = \"alice\"\npassword = \"one\"\nallocations = 7"),
    ("tls.certificate.cert", "[[tls.certificate]]\ncert = \"other.pem\"\nkey = \"other.key\""),
    ("tls.certificate.key", "[[tls.certificate]]\ncert = \"cert.pem\"\nkey = \"key.pem\""),
    (
        "tls.certificate.names",
        "[[tls.certificate]]\ncert = \"cert.pem\"\nkey = \"other.key\"\nnames = [\"a.example\"]",
    ),
    ("listener.address", "[[listener]]\naddress = \"127.1.15.1:OTHER\""),
    ("listener.transports", "[[listener]]\naddress = \"127.1.15.1:LISTENER\"\ntransports = [\"udp\"]"),
    ("listener.public", "[[listener]]\naddress = \"127.1.15.1:LISTENER\"\npublic = \"turn.example.org:443\""),
    ("listener.peers.mode", "[[listener]]\naddress = \"127.1.15.1:LISTENER\"\npeers = { mode = \"alone\" }"),
    (
        "listener.peers.allow",
        "[[listener]]\naddress = \"127.1.15.1:LISTENER\"\npeers = { allow = [\"10.0.0.0/8\"] }",
    ),
    (
        "listener.peers.deny",
        "[[listener]]\naddress = \"127.1.15.1:LISTENER\"\npeers = { deny = [\"198.51.100.0/24\"] }",
    ),
    ("listener.protocols", "[[listener]]\naddress = \"127.1.15.1:LISTENER\"\nprotocols = [\"turn\"]"),
    (
        "listener.routes",
        "[[listener]]\naddress = \"127.1.15.1:LISTENER\"\nroutes = { \"www.example.org\" = \"127.0.0.1:9\" }",
    ),
    (
        "listener.default_backend",
        "[[listener]]\naddress = \"127.1.15.1:LISTENER\"\ndefault_backend = \"127.0.0.1:9\"",
    ),
    ("listener.http", "[[listener]]\naddress = \"127.1.15.1:LISTENER\"\nhttp = \"127.0.0.1:9\""),
    ("listener.proxy_from", "[[listener]]\naddress = \"127.1.15.1:LISTENER\"\nproxy_from = \"10.0.0.0/8\""),
    (
        "listener.proxy",
        "[[listener]]\naddress = \"127.1.15.1:LISTENER\"\nproxy_from = \"10.0.0.0/8\"\nproxy = \"optional\"",
    ),
    ("listener.mss", "[[listener]]\naddress = \"127.1.15.1:LISTENER\"\nmss = 1300"),
    ("sibling.v4", "[[sibling]]\nv4 = \"192.0.2.8\"\nudp = 3478"),
    ("sibling.v6", "[[sibling]]\nv4 = \"192.0.2.7\"\nv6 = \"2001:db8::7\"\nudp = 3478"),
    ("sibling.udp", "[[sibling]]\nv4 = \"192.0.2.7\"\nudp = 3479"),
    ("sibling.tcp", "[[sibling]]\nv4 = \"192.0.2.7\"\nudp = 3478\ntcp = 3478"),
    ("sibling.tls", "[[sibling]]\nv4 = \"192.0.2.7\"\nudp = 3478\ntls = 5349"),
    ("sibling.domain", "[[sibling]]\nv4 = \"192.0.2.7\"\nudp = 3478\ndomain = \"other.example.org\""),
    (
        "sibling.certificate_names_address",
        "[[sibling]]\nv4 = \"192.0.2.7\"\nudp = 3478\ntls = 5349\ncertificate_names_address = true",
    ),
];

/// The sections that can be repeated, at first.
const REPEATED: &[(&str, &str)] = &[
    ("auth.user", "[[auth.user]]\nname = \"alice\"\npassword = \"one\""),
    ("tls.certificate", "[[tls.certificate]]\ncert = \"cert.pem\"\nkey = \"other.key\""),
    ("listener", "[[listener]]\naddress = \"127.1.15.1:LISTENER\""),
    ("sibling", "[[sibling]]\nv4 = \"192.0.2.7\"\nudp = 3478"),
];

/// What the relay starts with, by key.
fn base() -> BTreeMap<&'static str, String> {
    let listen = || format!("[\"{IP}:{}\"]", free_port());
    BTreeMap::from([
        ("workers", "2".into()),
        ("listen.udp", listen()),
        ("listen.tcp", listen()),
        ("listen.tls", listen()),
        ("relay.addresses", format!("[\"{IP}\"]")),
        // No free port is among them.
        ("relay.ports", "\"20000-20100\"".into()),
        ("tls.cert", "\"cert.pem\"".into()),
        ("tls.key", "\"key.pem\"".into()),
        ("auth.secrets", "[\"a secret for this test\"]".into()),
        ("http.listen", listen()),
        ("admin.listen", listen()),
        ("admin.tokens_file", "\"tokens\"".into()),
    ])
}

fn free_port() -> u16 {
    UdpSocket::bind((IP, 0)).unwrap().local_addr().unwrap().port()
}

/// A configuration file in a folder with the files that it names.
struct Place {
    _folder: tempfile::TempDir,
    file: PathBuf,
    /// The ports of a `[[listener]]`, before and after its address changes.
    ports: [u16; 2],
}

impl Place {
    fn new() -> Place {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
        let key = KeyPair::generate().unwrap();
        for name in ["cert.pem", "other.pem"] {
            let params = CertificateParams::new([format!("{name}.example.org")]).unwrap();
            write(name, &params.self_signed(&key).unwrap().pem());
        }
        write("key.pem", &key.serialize_pem());
        write("other.key", &format!("\n{}", key.serialize_pem()));
        write("secrets", "a secret in a file of this test\n");
        write("users", "carol:three\n");
        write("livekit-keys", "APIkey: a secret of this test\n");
        write("password", "two\n");
        write("tokens", &format!("one:admin:{}\n", "a".repeat(40)));
        write("other-tokens", &format!("one:admin:{}\n", "b".repeat(40)));
        let file = folder.path().join("hairpin.toml");
        Place { _folder: folder, file, ports: [free_port(), free_port()] }
    }

    fn settings(&self, values: &BTreeMap<&str, String>, repeated: &[&str]) -> Settings {
        let mut sections: BTreeMap<&str, String> = BTreeMap::new();
        for (key, value) in values {
            let (section, name) = key.rsplit_once('.').unwrap_or(("", key));
            *sections.entry(section).or_default() += &format!("{name} = {value}\n");
        }
        let section = |(name, lines): (&&str, &String)| match *name {
            "" => lines.clone(),
            name => format!("[{name}]\n{lines}"),
        };
        let text: Vec<String> = sections.iter().map(section).collect();
        let text = [text.join("\n"), repeated.join("\n")].join("\n");
        let [listener, other] = self.ports.map(|port| port.to_string());
        let text = text.replace("LISTENER", &listener).replace("OTHER", &other);
        std::fs::write(&self.file, &text).unwrap();
        let read = configuration::read(Path::new(&self.file), &[], false);
        read.unwrap_or_else(|mistakes| panic!("{mistakes:#?}\n{text}")).settings
    }
}

/// What one key is changed to: the settings with it.
fn with(place: &Place, base: &BTreeMap<&'static str, String>, key: &str) -> (String, Settings) {
    let at_first: Vec<&str> = REPEATED.iter().map(|(_, text)| *text).collect();
    if let Some((_, text)) = SECTIONS.iter().find(|(one, _)| *one == key) {
        let is_of = |section: &str| key.strip_prefix(section).is_some_and(|rest| rest.starts_with('.'));
        let (section, _) = REPEATED.iter().find(|(section, _)| is_of(section)).unwrap();
        let others = REPEATED.iter().map(|(one, at_first)| if one == section { text } else { at_first });
        let sections: Vec<&str> = others.copied().collect();
        return ((*section).to_owned(), place.settings(base, &sections));
    }
    let Some((key, value)) = VALUES.iter().find(|(one, _)| *one == key) else {
        panic!("add a value for {key} to this test: what a reload makes of each key is tested");
    };
    let mut values = base.clone();
    values.insert(key, value.replace("PORT", &free_port().to_string()));
    ((*key).to_owned(), place.settings(&values, &at_first))
}

async fn reload(relay: &mut RunningRelay, new: &Settings) -> anyhow::Result<Vec<Change>> {
    let prepared = relay.prepare(new, &[]).await?;
    relay.reload(prepared).await
}

/// Each key is reported with what the table says, and holds or does not accordingly; nothing else is reported.
#[tokio::test]
async fn a_reload_does_with_every_key_what_the_table_says() {
    let (place, base) = (Place::new(), base());
    let (_, before) = with(&place, &base, "auth.user.name");
    let start: Vec<&str> = REPEATED.iter().map(|(_, text)| *text).collect();
    let start = place.settings(&base, &start);
    assert!(!before.changes(&start).is_empty());
    let mut relay = RunningRelay::start(
        &start,
        Overlays::default(),
        LostLines::none(),
        crate::daemon::revocations::RevokedUsers::none(),
    )
    .unwrap();
    for (key, holds) in every_key() {
        let (reported, new) = with(&place, &base, &key);
        let changes = reload(&mut relay, &new).await.unwrap_or_else(|error| panic!("{key}: {error:#}"));
        assert!(!changes.is_empty(), "{key}: not reported");
        for change in &changes {
            assert_eq!((change.key, change.holds), (&*reported, holds), "{key}: {}", change.what);
        }
        let left = relay.settings().changes(&new);
        match holds {
            Reload::Live | Reload::NewAllocations => assert_eq!(left, [], "{key}: it holds"),
            Reload::Restart => assert_eq!(left, changes, "{key}: it does not hold, and is told again"),
        }
        let back = reload(&mut relay, &start).await.unwrap_or_else(|error| panic!("{key}: {error:#}"));
        assert_eq!(back.is_empty(), holds == Reload::Restart, "{key}: {back:?}");
        assert_eq!(relay.settings().changes(&start), []);
    }
    tokio::task::spawn_blocking(move || relay.stop()).await.unwrap();
}
