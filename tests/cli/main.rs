//! The commands of the real program.

#![cfg(test)]
#![allow(clippy::disallowed_methods, reason = "these tests wait for real programs")]

mod ctl;
mod import_coturn;
mod livekit;
mod place;
mod probes;
mod render;
mod secrets;
mod settings;
mod shared_port;
mod signals;
mod streams;
mod users;

use std::fs;
use std::io::Write;
use std::net::{Ipv4Addr, TcpListener, UdpSocket};
use std::process::{Output, Stdio};
use std::time::{Duration, Instant};

use place::{Place, SECRET, command, hairpin, text};
use rcgen::{CertificateParams, DnType, Issuer, KeyPair};

#[test]
fn check_reports_every_mistake_and_writes_no_file() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("hairpin.toml");
    let mistakes = "\
workers = \"four\"
worker = 4
[listen]
udp = [\"198.51.100.256:3478\"]
[relay]
ports = \"65535-49152\"
[auth]
secrets = [\"short\"]
secret_files = [\"missing\"]
[peers]
allow = [\"10.0.0.0/40\"]
[limits]
channels = 5000
";
    fs::write(&file, mistakes).unwrap();
    let output = hairpin(&["check", file.to_str().unwrap()]);
    let lines: Vec<String> = text(&output.stdout).lines().map(str::to_owned).collect();
    assert_eq!((lines.len(), output.status.code()), (8, Some(2)), "{lines:#?}");
    let places = [
        "1: workers",
        "2: worker",
        "4: listen.udp",
        "6: relay.ports",
        "8: auth.secrets",
        "9: auth.secret_files",
    ];
    for (line, place) in
        lines.iter().zip(places.into_iter().chain(["11: peers.allow", "13: limits.channels"]))
    {
        assert!(line.starts_with(&format!("{}:{place}", file.display())), "{line} is not about {place}");
        assert!(line.contains("; "), "{line} has no fix");
    }
    assert!(!text(&output.stdout).contains("short"), "a secret is shown");
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);

    let output = hairpin(&["check", folder.path().join("other.toml").to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stdout).contains("cannot be read"));
}

#[test]
fn check_prints_ok_and_warnings() {
    let relay = Place::new("[limits]\npermission_lifetime = 5\n");
    let output = hairpin(&["check", relay.config()]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let said = text(&output.stdout);
    assert!(
        said.contains("warning: limits.permission_lifetime = 5") && said.ends_with("hairpin.toml: ok\n"),
        "{said}"
    );
}

/// RFC 8656 §21: a range that is wider than this machine's own does not open it, which is no mistake.
#[test]
fn check_notes_what_a_range_does_not_open() {
    let place = Place::new("[peers]\nallow = [\"126.0.0.0/7\"]\n");
    let output = hairpin(&["check", place.config()]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let said = text(&output.stdout);
    assert!(
        said.contains("note: peers.allow = [\"126.0.0.0/7\"]: 126.0.0.0/7 does not open this machine's own"),
        "{said}"
    );
    assert!(
        said.contains("name it exactly, like")
            && !said.contains("warning: peers")
            && said.ends_with(": ok\n"),
        "{said}"
    );
}

/// coturn writes ranges as their first and last address.
#[test]
fn check_tells_the_cidr_notation_of_a_range() {
    let place = Place::new("[peers]\ndeny = [\"10.0.0.0-10.255.255.255\", \"192.168.0.1-192.168.0.6\"]\n");
    let output = hairpin(&["check", place.config()]);
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    let said = text(&output.stdout);
    assert!(said.contains("write \"10.0.0.0/8\"\n"), "{said}");
    assert!(
        said.contains("\"192.168.0.1\", \"192.168.0.2/31\", \"192.168.0.4/31\", \"192.168.0.6\""),
        "{said}"
    );
}

#[test]
fn arguments_for_peers_are_checked() {
    for (argument, value, said) in [
        ("--allow-peer", "203.0.113.7:0", "not a port from 1 to 65535"),
        ("--allow-peer", "10.0.0.0-10.255.255.255", "write \"10.0.0.0/8\""),
        ("--allow-peer", "example.org", "not an IP address"),
        ("--relay-ports", "49999-40000", "the range is reversed; write \"40000-49999\""),
        ("--relay-ports", "80-90", "ports below 1024"),
    ] {
        let output = hairpin(&["serve", argument, value]);
        assert_eq!(output.status.code(), Some(2), "{output:?}");
        assert!(text(&output.stderr).contains(said), "{output:?}");
    }
    let place = Place::new("");
    let output = hairpin(&["serve", "--config", place.config(), "--allow-peer", "10.0.0.0/8"]);
    assert!(text(&output.stderr).contains("cannot be used with"), "{output:?}");
    let help = hairpin(&["help", "serve"]);
    assert!(text(&help.stdout).contains("203.0.113.7:50000-60000 or [2001:db8::7]:7882"), "{help:?}");
}

#[test]
fn the_sample_with_a_secret_is_valid() {
    let sample = concat!(env!("CARGO_MANIFEST_DIR"), "/conf/hairpin.toml");
    let output = command(&["check", sample]).env("HAIRPIN_AUTH_SECRET", SECRET).output().unwrap();
    assert_eq!((output.status.code(), output.stderr.len()), (Some(0), 0), "{output:?}");
}

#[test]
fn names_and_passwords_that_cannot_be_prepared_are_mistakes() {
    let place = Place::new("[[auth.user]]\nname = \"a\\u0007b\"\npassword = \"x\"\n");
    let output = hairpin(&["check", place.config()]);
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    assert!(text(&output.stdout).contains("user name"), "{output:?}");
}

#[test]
fn credentials_are_ice_servers() {
    let place = Place::new("");
    let before = unix_now();
    let args = ["credentials", "--user", "alice", "--ttl", "1h", "--config", place.config()];
    let servers = ice_server(&hairpin(&args));
    let username = servers["username"].as_str().unwrap();
    let expiry: u64 = username.strip_suffix(":alice").unwrap().parse().unwrap();
    assert!((before + 3600..before + 3660).contains(&expiry));
    let password = hairpin::auth::time_limited_password(SECRET.as_bytes(), username);
    assert_eq!(servers["credential"], password);
    assert_eq!(servers["urls"][0], format!("turn:127.0.0.1:{}?transport=udp", place.udp));

    assert_eq!(servers["urls"][1], format!("turn:127.0.0.1:{}?transport=tcp", place.tcp));

    let args = [&args[..], &["--domain", "turn.example.org"]].concat();
    let servers = ice_server(&hairpin(&args));
    assert_eq!(servers["urls"][0], format!("turn:turn.example.org:{}?transport=udp", place.udp));
}

/// Credentials that the relay would refuse are not made.
#[test]
fn credentials_expire_within_the_longest_lifetime() {
    let place = Place::new("max_lifetime = 3600\n");
    let args = ["credentials", "--user", "alice", "--config", place.config(), "--ttl"];
    let output = hairpin(&[&args[..], &["3601"]].concat());
    assert_eq!((output.status.code(), output.stdout.len()), (Some(1), 0), "{output:?}");
    assert!(text(&output.stderr).contains("auth.max_lifetime is 3600 seconds"), "{output:?}");
    ice_server(&hairpin(&[&args[..], &["1h"]].concat()));
}

#[test]
fn credentials_contain_the_external_address() {
    let place = Place::new("");
    let text = fs::read_to_string(place.file()).unwrap();
    fs::write(place.file(), text.replace("[http]", "external_ip = \"203.0.113.5\"\n[http]")).unwrap();
    let servers = ice_server(&hairpin(&["credentials", "--user", "alice", "--config", place.config()]));
    assert_eq!(servers["urls"][0], format!("turn:203.0.113.5:{}?transport=udp", place.udp));
}

/// The same URLs as those of the running relay: TLS has a name of the certificate, what clients connect to is written, and a name that
/// leads to a backend is said to be missing.
#[test]
fn credentials_have_names_and_public_addresses() {
    let place = Place::new("");
    let key = KeyPair::generate().unwrap();
    let mut authority = CertificateParams::default();
    authority.distinguished_name.push(DnType::CommonName, "an authority of these tests");
    let issuer = Issuer::new(authority, KeyPair::generate().unwrap());
    let names = ["turn.example.org".to_owned(), "www.example.org".to_owned()];
    let certificate = CertificateParams::new(names).unwrap().signed_by(&key, &issuer).unwrap();
    fs::write(place.file().with_file_name("cert.pem"), certificate.pem()).unwrap();
    fs::write(place.file().with_file_name("key.pem"), key.serialize_pem()).unwrap();
    let before = fs::read_to_string(place.file()).unwrap();
    let listeners = "[[listener]]\naddress = \"192.0.2.7:8443\"\ntransports = [\"udp\", \"tls\"]\npublic = \"203.0.113.9:443\"\n\
                     [listener.routes]\n\"www.example.org\" = \"127.0.0.1:8444\"\n";
    let tls = "[tls]\ncert = \"cert.pem\"\nkey = \"key.pem\"\n";
    fs::write(place.file(), format!("{before}{listeners}{tls}")).unwrap();
    let args = ["credentials", "--user", "alice", "--config", place.config()];
    let output = hairpin(&args);
    let servers = ice_server(&output);
    let expected = ["turn:203.0.113.9:443?transport=udp", "turns:turn.example.org:443?transport=tcp"];
    assert_eq!(servers["urls"], serde_json::json!(expected));
    assert!(text(&output.stderr).contains("nobody else reaches a loopback address"), "{output:?}");

    let with_name = format!("{before}{listeners}{tls}").replace("public = \"203.0.113.9:443\"\n", "");
    fs::write(place.file(), with_name).unwrap();
    let output = hairpin(&[&args[..], &["--domain", "www.example.org"]].concat());
    assert_eq!(ice_server(&output)["urls"], serde_json::json!(["turn:www.example.org:8443?transport=udp"]));
    let said = text(&output.stderr);
    assert!(
        said.contains("tls 192.0.2.7:8443 has no turns: URL for www.example.org (--domain): a route passes"),
        "{said}"
    );
}

#[test]
fn credentials_need_an_existing_secret() {
    let folder = tempfile::tempdir().unwrap();
    let state = folder.path().to_str().unwrap();
    let args = ["credentials", "--user", "alice", "--domain", "turn.example.org", "--state-dir", state];
    let output = hairpin(&args);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("start `hairpin serve` first"), "{output:?}");
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0, "none is generated");

    let output =
        command(&args).env("HAIRPIN_AUTH_SECRET", format!("{SECRET},another secret of these tests")).output();
    let servers = ice_server(&output.unwrap());
    let password =
        hairpin::auth::time_limited_password(SECRET.as_bytes(), servers["username"].as_str().unwrap());
    assert_eq!(servers["credential"], password);
}

#[test]
fn without_credentials_it_refuses_to_start() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("hairpin.toml");
    fs::write(&file, "[http]\nlisten = []\n").unwrap();
    let output = hairpin(&["serve", "--config", file.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    assert!(text(&output.stderr).contains("never runs as an anonymous relay"), "{output:?}");
}

#[test]
fn taken_ports_are_told_with_the_fix() {
    let place = Place::new("");
    let held = UdpSocket::bind((Ipv4Addr::LOCALHOST, place.udp)).unwrap();
    let output = place.fails();
    assert!(
        output.contains(&format!("udp 127.0.0.1:{}: already in use (another hairpin?)", place.udp)),
        "{output}"
    );
    drop(held);

    let held = TcpListener::bind((Ipv4Addr::LOCALHOST, place.tcp)).unwrap();
    let output = place.fails();
    assert!(
        output.contains(&format!("tcp 127.0.0.1:{}: already in use (another hairpin?)", place.tcp)),
        "{output}"
    );
    drop(held);

    let held = TcpListener::bind((Ipv4Addr::LOCALHOST, place.http)).unwrap();
    let output = place.fails();
    assert!(
        output.contains(&format!("http 127.0.0.1:{}: already in use (another hairpin?)", place.http)),
        "{output}"
    );
    drop(held);

    let running = place.start(Stdio::null());
    let output = place.fails();
    assert!(output.contains("already in use (another hairpin?)"), "{output}");
    assert_eq!(running.stop("TERM"), Some(0), "the first one keeps running");
}

#[test]
fn it_serves_until_a_signal_stops_it() {
    for signal in ["TERM", "INT"] {
        let place = Place::new("");
        let running = place.start(Stdio::null());
        assert!(place.get("/healthz").starts_with("HTTP/1.1 200"));
        let metrics = place.get("/metrics");
        for family in [
            "hairpin_build_info",
            "hairpin_limit",
            "hairpin_connections",
            "hairpin_allocations",
            "hairpin_log_lines_dropped_total",
        ] {
            assert!(metrics.contains(&format!("# TYPE {family} ")), "{metrics}");
        }
        assert!(place.get("/").starts_with("HTTP/1.1 404"));
        assert!(text(&running.stop_with_output(signal)).is_empty(), "only ICE servers go to standard output");
    }
}

#[test]
fn the_relay_runs_if_nobody_reads_its_log() {
    // A full pipe, and a pipe without a reader.
    let (reader, mut full) = std::io::pipe().unwrap();
    let ours = full.try_clone().unwrap();
    std::thread::spawn(move || while full.write_all(&[0; 4096]).is_ok() {});
    std::thread::sleep(Duration::from_millis(200));
    let (gone, closed) = std::io::pipe().unwrap();
    drop(gone);
    for stderr in [ours, closed] {
        let place = Place::new("");
        let running = place.start(stderr.into());
        assert!(place.get("/healthz").starts_with("HTTP/1.1 200"));
        let began = Instant::now();
        assert_eq!(running.stop("TERM"), Some(0));
        assert!(began.elapsed() < Duration::from_secs(10));
    }
    drop(reader);
}

fn ice_server(output: &Output) -> serde_json::Value {
    assert!(output.status.success(), "{output:?}");
    let printed: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    printed["iceServers"][0].clone()
}

#[allow(clippy::disallowed_methods, reason = "the test compares with the program's clock")]
fn unix_now() -> u64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs()
}
