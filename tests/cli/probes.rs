//! Probes of the sidecar: against a running relay, and against everything that may be there instead.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use hairpin::auth::{Secret, md5_key};
use hairpin::livekit::check;
use hairpin::livekit::ice_url::ClientTransport;
use hairpin::livekit::probe::client::TurnCredential;
use hairpin::livekit::probe::failure::{CertificateFault, Direction, Failure};
use hairpin::livekit::probe::meeting::{accepts, probe};
use hairpin::livekit::probe::rounds::{credential, round};
use hairpin::livekit::probe::targets::ProbeTarget;
use hairpin::livekit::probe::tls::Roots;
use hairpin::livekit::relays::Relay;
use hairpin::livekit::settings::{ApiKey, RelaySettings, Settings};
use hairpin::wire::{Class, Encoder, Family, Message, Method, attribute};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, UdpSocket};
use tokio_rustls::TlsAcceptor;

use super::place::{Place, SECRET, command, hairpin, text};

const NAME: &str = "turn.example.org";

/// An authority of the tests.
struct Authority {
    issuer: Issuer<'static, KeyPair>,
    folder: tempfile::TempDir,
}

impl Authority {
    fn new() -> Authority {
        let (key, mut params) = (KeyPair::generate().unwrap(), CertificateParams::default());
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(rcgen::DnType::CommonName, "an authority of tests");
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("ca.pem"), params.self_signed(&key).unwrap().pem()).unwrap();
        Authority { issuer: Issuer::new(params, key), folder }
    }

    fn ca_file(&self) -> PathBuf {
        self.folder.path().join("ca.pem")
    }

    fn roots(&self) -> Roots {
        Roots::load(Some(&self.ca_file())).unwrap()
    }

    /// Certificate and key as PEM.
    fn issue(&self, name: &str, change: impl Fn(&mut CertificateParams)) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new([name.to_owned()]).unwrap();
        change(&mut params);
        (params.signed_by(&key, &self.issuer).unwrap().pem(), key.serialize_pem())
    }
}

fn self_signed() -> (String, String) {
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new([NAME.to_owned()]).unwrap();
    (params.self_signed(&key).unwrap().pem(), key.serialize_pem())
}

fn target(transport: ClientTransport, address: SocketAddr) -> ProbeTarget {
    ProbeTarget {
        transport,
        address,
        name: NAME.into(),
        shown: address.to_string(),
        relay_ports: None,
        is_elsewhere: false,
    }
}

fn stranger() -> TurnCredential {
    TurnCredential { username: "alice".into(), password: "wonder".into() }
}

async fn probed(transport: ClientTransport, at: SocketAddr, roots: &Roots) -> Result<Duration, Failure> {
    probe(&target(transport, at), Family::V4, &stranger(), roots).await
}

async fn relay_at(socket: &Path, ca_file: &Path, urls: &[String]) -> Arc<Relay> {
    let settings = RelaySettings {
        name: "local".into(),
        socket: Some(socket.to_owned()),
        ca_file: Some(ca_file.to_owned()),
        urls: urls.to_vec(),
        ..RelaySettings::default()
    };
    let relay = Arc::new(Relay::new(settings).unwrap());
    let watching = relay.clone();
    tokio::spawn(async move { watching.watch().await });
    relay.follow().wait_for(|state| state.status.is_some()).await.unwrap();
    relay
}

/// The probe leaves nothing behind, and is no load.
#[tokio::test]
async fn a_relay_is_probed_on_every_transport() {
    let authority = Authority::new();
    let place = Place::new("[limits]\nallocations = 1\nuser_allocations = 1\nnew_allocations_rate = 1\n");
    let file = |name: &str| place.folder.path().join(name);
    let (cert, key) = authority.issue(NAME, |_| ());
    fs::write(file("cert.pem"), cert).unwrap();
    fs::write(file("key.pem"), key).unwrap();
    let text = fs::read_to_string(place.file()).unwrap();
    let tls = format!("[listen]\ntls = \"127.0.0.1:{}\"\n", place.tls);
    let files = format!("[tls]\ncert = {:?}\nkey = {:?}\n", file("cert.pem"), file("key.pem"));
    fs::write(place.file(), text.replace("[listen]\n", &tls) + &files).unwrap();
    let running = place.start(Stdio::null());

    let urls = [format!("turns:{NAME}:{}?transport=tcp", place.tls)];
    let relay = relay_at(&file("control.sock"), &authority.ca_file(), &urls).await;
    let probes = round(&relay, &Arc::new(authority.roots())).await.unwrap();
    let shown: Vec<_> =
        probes.iter().map(|one| (one.transport.as_str(), one.port, one.outcome.is_ok())).collect();
    assert_eq!(
        shown,
        [("udp", place.udp, true), ("tcp", place.tcp, true), ("tls", place.tls, true)],
        "{probes:?}"
    );
    // Workers publish their counters now and then.
    let page = || place.get("/metrics");
    let deadline = Instant::now() + Duration::from_secs(20);
    while !page().contains("\nhairpin_probe_allocations_total 6\n") {
        assert!(Instant::now() < deadline, "{}", page());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let metrics = page();
    for line in [
        "hairpin_allocations{transport=\"udp\",family=\"ipv4\"} 0",
        "hairpin_allocations_opened_total 0",
        "hairpin_permissions 0",
        "hairpin_relayed_packets_total{direction=\"to_peer\",transport=\"tls\"} 0",
    ] {
        assert!(metrics.contains(&format!("\n{line}\n")), "{line} is not in {metrics}");
    }

    // As browsers see it: by the name in the URL, and without the authority of the tests
    relay.probed(probes);
    assert_eq!(relay.working_urls(), urls);
    let others = relay_at(
        &file("control.sock"),
        &authority.ca_file(),
        &[format!("turns:other.example.org:{}", place.tls)],
    )
    .await;
    let probes = round(&others, &Arc::new(authority.roots())).await.unwrap();
    let problem = probes.last().unwrap().outcome.clone().unwrap_err();
    assert!(
        problem.contains("the certificate is for turn.example.org, not for other.example.org"),
        "{problem}"
    );
    others.probed(probes);
    assert!(others.working_urls().is_empty());

    // What the relay makes of credentials
    let (roots, at) = (authority.roots(), SocketAddr::from((Ipv4Addr::LOCALHOST, place.udp)));
    let udp = target(ClientTransport::Udp, at);
    let own = credential(&relay).await.unwrap();
    assert!(own.username.starts_with("hairpin-probe:"));
    assert_eq!(accepts(&udp, Family::V4, &own, &roots).await, Ok(()));
    assert_eq!(accepts(&udp, Family::V4, &stranger(), &roots).await, Err(Failure::Unauthorized));
    assert_eq!(running.stop("TERM"), Some(0));
}

/// Answers `GET /` as LiveKit does, by a clock of long ago, and refuses every key.
async fn livekit() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut request = [0; 4096];
                while let Ok(len @ 1..) = stream.read(&mut request).await {
                    let head = match request[..len].starts_with(b"GET / ") {
                        true => "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n",
                        false => "HTTP/1.1 401 Unauthorized\r\nContent-Length: 2\r\n",
                    };
                    let response = format!("{head}Date: Tue, 01 Sep 2026 00:00:00 GMT\r\n\r\nOK");
                    let _ = stream.write_all(response.as_bytes()).await;
                }
            });
        }
    });
    at
}

async fn checked(settings: &Settings) -> Vec<String> {
    check::run(settings).await.iter().map(ToString::to_string).collect()
}

/// Each finding is a line that says what is wrong and what to do, and one failure hides no other.
#[tokio::test]
async fn the_path_is_checked_from_the_relay_on() {
    let place = Place::new("max_lifetime = 3600\n[peers]\nallow = \"10.0.0.0/8\"\n");
    let file = |name: &str| place.folder.path().join(name);
    fs::write(file("keys"), "APIkey: a secret of LiveKit that is long\n").unwrap();
    fs::set_permissions(file("keys"), fs::Permissions::from_mode(0o600)).unwrap();
    let config = fs::read_to_string(place.file()).unwrap();
    let keys = format!("livekit_keys_file = {:?}\nmax_lifetime", file("keys"));
    fs::write(place.file(), config.replace("max_lifetime", &keys)).unwrap();
    fs::write(file("livekit.yaml"), "rtc:\n  node_ip: 10.0.0.9\n  udp_port: 7882\n").unwrap();
    // Overlays are kept in its own folder.
    let state = file("state").to_str().unwrap().to_owned();
    let running = place.wait_for_start(
        &mut command(&["serve", "--config", place.config(), "--state-dir", &state]),
        Stdio::null(),
    );
    let relay = |name: &str, socket| RelaySettings {
        name: name.into(),
        socket: Some(socket),
        ..RelaySettings::default()
    };
    let mut settings = Settings {
        relays: vec![relay("local", file("control.sock")), relay("gone", file("none.sock"))],
        ..Settings::default()
    };
    settings.credentials.secrets = vec![Secret::new(SECRET)];
    settings.credentials.ttl = 600;
    settings.livekit.config_file = Some(file("livekit.yaml"));
    settings.livekit.url = format!("http://{}", livekit().await);
    settings.livekit.keys =
        vec![ApiKey { key: "APIkey".into(), secret: Secret::new("a secret of LiveKit that is long") }];
    settings.http.listen = vec![SocketAddr::from(([127, 0, 0, 1], 9643))];
    let has = |lines: &[String], begin: &str, rest: &str| {
        assert!(
            lines.iter().any(|line| line.starts_with(begin) && line.contains(rest)),
            "{begin} {rest}: {lines:#?}"
        );
    };
    let lines = checked(&settings).await;
    has(&lines, "ok     relay local: version", "ready");
    has(&lines, "FAILED relay gone: ", "is the relay running?");
    has(&lines, &format!("ok     probe local UDP 127.0.0.1:{}: ", place.udp), "two clients meet in");
    has(&lines, &format!("ok     probe local TCP 127.0.0.1:{}: ", place.tcp), "two clients meet in");
    has(&lines, "ok     credentials local: ", "accepts");
    has(&lines, "ok     livekit-keys local: ", "APIkey");
    has(&lines, "FAILED peers local: ", "start `hairpin-livekit run`");
    has(&lines, "ok     livekit http://127.0.0.1:", "it answers");
    has(&lines, "FAILED livekit-key ", "its clock is");
    has(&lines, "FAILED clock livekit: ", "s behind this machine's");
    has(&lines, "hint   livekit-config ", "has no rtc.turn_servers");
    has(&lines, "FAILED webhook: ", "add webhook.urls: [http://127.0.0.1:9643/v1/webhook]");
    has(&lines, "hint   outside local: ", "20000-20099");
    assert!(!lines.iter().any(|line| line.starts_with("FAILED firewall")), "{lines:#?}");

    let control = Relay::new(settings.relays[0].clone()).unwrap();
    control.set_peers("only", &["10.0.0.9:7882".into()]).await.unwrap();
    settings.credentials.ttl = 7200;
    let lines = checked(&settings).await;
    has(&lines, "ok     peers local: ", "10.0.0.9:7882 (only)");
    has(&lines, "FAILED credentials local: ", "7200 s, more than the relay accepts (3600 s)");
    settings.livekit.url =
        format!("http://{}", TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap());
    settings.livekit.keys[0].secret = Secret::new("another secret of LiveKit");
    settings.credentials.secrets = vec![Secret::new("another secret for these tests")];
    settings.credentials.ttl = 600;
    let lines = checked(&settings).await;
    has(&lines, "FAILED credentials local: ", "put the same secret into auth.secret_files");
    has(&lines, "FAILED livekit http://127.0.0.1:", "cannot be reached");
    has(&lines, "FAILED livekit-keys local: ", "auth.livekit_keys_file");
    assert!(!lines.iter().any(|line| line.contains("secret for these tests")), "{lines:#?}");
    assert_eq!(running.stop("TERM"), Some(0));
}

/// No configured user can be taken for a probe.
#[test]
fn a_user_cannot_have_the_name_of_probes() {
    for name in ["hairpin-probe", "hairpin-probe:1:a"] {
        let place =
            Place::new(&format!("[[auth.user]]\nname = \"{name}\"\npassword = \"a password for tests\"\n"));
        let output = hairpin(&["check", place.config()]);
        assert_eq!(output.status.code(), Some(2), "{output:?}");
        assert!(text(&output.stdout).contains("this name is kept for probes of the relay"), "{output:?}");
    }
}

/// Serves TLS with a certificate, and nothing else.
async fn tls_server((cert, key): (String, String)) -> SocketAddr {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let certificate = CertificateDer::from_pem_slice(cert.as_bytes()).unwrap();
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate], PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap())
        .unwrap();
    let (acceptor, listener) =
        (TlsAcceptor::from(Arc::new(config)), TcpListener::bind("127.0.0.1:0").await.unwrap());
    let at = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                acceptor.accept(stream).await.map(|mut tls| tls.get_mut().1.send_close_notify())
            });
        }
    });
    at
}

/// What browsers refuse in silence is told apart.
#[tokio::test]
async fn each_fault_of_a_certificate_is_named() {
    let authority = Authority::new();
    let day = |days: u64| SystemTime::UNIX_EPOCH + Duration::from_secs(days * 86_400);
    let expired = authority.issue(NAME, |params| {
        params.not_before = day(20_000).into();
        params.not_after = day(20_001).into();
    });
    for (files, expected) in [
        (expired, CertificateFault::Expired(20_001 * 86_400)),
        (
            authority.issue("other.example.org", |_| ()),
            CertificateFault::OtherName(vec!["other.example.org".into()]),
        ),
        (self_signed(), CertificateFault::SelfSigned),
        (Authority::new().issue(NAME, |_| ()), CertificateFault::UnknownIssuer),
    ] {
        let at = tls_server(files).await;
        let failure = probed(ClientTransport::Tls, at, &authority.roots()).await.unwrap_err();
        assert_eq!(failure, Failure::Certificate(expected, NAME.into()));
    }
    let good = tls_server(authority.issue(NAME, |_| ())).await;
    assert_eq!(probed(ClientTransport::Tls, good, &authority.roots()).await, Err(Failure::Closed));
}

/// A server that answers each connection with these bytes, and then with the rest again and again.
async fn tcp_server(first: Vec<u8>, again: Option<Vec<u8>>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let (first, again) = (first.clone(), again.clone());
            tokio::spawn(async move {
                let _ = stream.write_all(&first).await;
                while let Some(again) = &again {
                    if stream.write_all(again).await.is_err() {
                        return;
                    }
                }
                let mut sink = [0; 1024];
                while stream.read(&mut sink).await.is_ok_and(|len| len > 0) {}
            });
        }
    });
    at
}

/// Whatever is there instead of a relay, the probe ends in time and says what it is.
#[tokio::test]
async fn what_is_there_instead_of_a_relay_is_named() {
    use ClientTransport::{Tcp, Tls, Udp};
    let roots = Authority::new().roots();
    let closed = {
        let (tcp, udp) =
            (TcpListener::bind("127.0.0.1:0").await.unwrap(), UdpSocket::bind("127.0.0.1:0").await.unwrap());
        [tcp.local_addr().unwrap(), udp.local_addr().unwrap()]
    };
    let silent_udp = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let oversized = [&[0x01, 0x13, 0xFF, 0xFC, 0x21, 0x12, 0xA4, 0x42][..], &[0xFF; 65_548]].concat();
    let flood = [&[0x40, 0, 0x40, 0][..], &[7; 0x4000]].concat();
    let http = || b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec();
    // A relay with tls.unknown_name = "refuse" (RFC 6066 section 3)
    let unrecognized_name = vec![0x15, 3, 3, 0, 2, 2, 112];
    let no_certificate = Failure::Certificate(CertificateFault::OtherName(Vec::new()), NAME.into());
    let cases = [
        (Tcp, closed[0], Failure::Refused),
        (Udp, closed[1], Failure::Refused),
        (Udp, silent_udp.local_addr().unwrap(), Failure::Silent),
        (Tcp, tcp_server(Vec::new(), None).await, Failure::Mute),
        (Tls, tcp_server(Vec::new(), None).await, Failure::Mute),
        (Tcp, tcp_server(http(), None).await, Failure::NotTurn),
        (Tls, tcp_server(http(), None).await, Failure::NotTls),
        (Tcp, tcp_server(oversized, None).await, Failure::NotTurn),
        (Tls, tcp_server(unrecognized_name, None).await, no_certificate),
        (Tcp, tcp_server(Vec::new(), Some(flood)).await, Failure::Mute),
        (Udp, fake(Fake::Garbage).await, Failure::NotTurn),
        (Udp, fake(Fake::Unsigned).await, Failure::NotSigned),
        (Udp, fake(Fake::Swallows).await, Failure::Lost(Direction::Channel)),
        (Udp, fake(Fake::Refuses).await, Failure::Error(Method::Allocate, 508)),
        (Udp, fake(Fake::NoAddress).await, Failure::Incomplete(Method::Allocate)),
    ];
    let probes: Vec<_> = cases
        .into_iter()
        .map(|(transport, at, expected)| {
            let roots = roots.clone();
            tokio::spawn(async move {
                let failure = probed(transport, at, &roots).await.unwrap_err();
                assert_eq!(failure, expected, "{transport} {at}");
            })
        })
        .collect();
    for probe in probes {
        tokio::time::timeout(Duration::from_secs(60), probe).await.expect("it ends").unwrap();
    }
}

/// What a fake server does.
#[derive(Clone, Copy, PartialEq)]
enum Fake {
    /// Responds with bytes that are no message.
    Garbage,
    /// Does not know the password.
    Unsigned,
    /// Does everything, with a stale nonce once (RFC 8489 §9.2.5), but relays nothing.
    Swallows,
    /// Has no room.
    Refuses,
    /// Tells no relayed address.
    NoAddress,
}

/// A server over UDP.
async fn fake(what: Fake) -> SocketAddr {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let at = socket.local_addr().unwrap();
    tokio::spawn(async move {
        let (mut bytes, mut seen) = (vec![0; 2000], 0);
        while let Ok((len, from)) = socket.recv_from(&mut bytes).await {
            seen += 1;
            let response = match Message::parse(&bytes[..len]) {
                Ok(request) if request.class() == Class::Request => respond(what, &request, seen),
                _ => continue,
            };
            let _ = socket.send_to(&response, from).await;
        }
    });
    at
}

fn respond(what: Fake, request: &Message<'_>, seen: u32) -> Vec<u8> {
    if what == Fake::Garbage {
        return vec![0xFF; 1200];
    }
    let (is_signed, key) = (request.has_integrity_sha1(), md5_key("alice", "example.org", "wonder"));
    // The second message is the first signed one.
    let code = if !is_signed {
        401
    } else if seen == 2 {
        438
    } else {
        508
    };
    let is_refused = !is_signed || seen == 2 || what == Fake::Refuses;
    let mut response = match is_refused {
        true => Encoder::error_response(request, code, ""),
        false => Encoder::response(request, Class::Success),
    };
    if is_refused {
        response.text(attribute::REALM, "example.org");
        response.text(attribute::NONCE, &format!("nonce {seen}"));
    } else if request.method() == Method::Allocate && what != Fake::NoAddress {
        response.xor_address(attribute::XOR_RELAYED_ADDRESS, "127.0.0.1:9".parse().unwrap());
    }
    if !is_refused && what != Fake::Unsigned {
        response.integrity_sha1(&key);
    }
    response.finish()
}
