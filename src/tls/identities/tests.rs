//! Which certificate a client gets, whether sessions resume, by whole handshakes in memory.

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

use rcgen::{
    CertificateParams, KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_RSA_SHA256, SignatureAlgorithm as Kind,
};
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms};
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::server::Acceptor;
use rustls::version::{TLS12, TLS13};
use rustls::{
    ClientConfig, ClientConnection, Error, HandshakeKind, NamedGroup, RootCertStore, ServerConnection,
    SignatureScheme, SupportedCipherSuite, SupportedProtocolVersion,
};

use super::*;

/// A certificate for these names, and its DER.
fn certificate(names: &[&str], kind: &'static Kind, until: u64) -> (NamedIdentity, CertificateDer<'static>) {
    let key = KeyPair::generate_for(kind).unwrap();
    let valid: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
    let made = CertificateParams::new(valid).unwrap().self_signed(&key).unwrap();
    let identity = Identity::from_pem(made.pem().as_bytes(), key.serialize_pem().as_bytes()).unwrap();
    let names = names.iter().map(|name| CertificateName::parse(name).unwrap()).collect();
    (NamedIdentity { identity, names, until }, made.der().clone())
}

fn ecdsa(names: &[&str]) -> (NamedIdentity, CertificateDer<'static>) {
    certificate(names, &PKCS_ECDSA_P256_SHA256, 0)
}

/// A server with certificates whose number clients are told.
struct Server {
    identities: Identities,
    ders: Vec<CertificateDer<'static>>,
}

fn server(certificates: Vec<(NamedIdentity, CertificateDer<'static>)>, unknown: UnknownName) -> Server {
    resuming(certificates, unknown, &Sessions::new().unwrap())
}

fn resuming(
    certificates: Vec<(NamedIdentity, CertificateDer<'static>)>,
    unknown: UnknownName,
    sessions: &Sessions,
) -> Server {
    let (named, ders): (Vec<_>, Vec<_>) = certificates.into_iter().unzip();
    Server { identities: Identities::new(&named, unknown, sessions).unwrap(), ders }
}

/// A client that trusts everything that a server in this test has.
fn client(
    server: &Server,
    provider: CryptoProvider,
    version: &'static SupportedProtocolVersion,
) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    server.ders.iter().for_each(|der| roots.add(der.clone()).unwrap());
    ClientConfig::builder_with_provider(Arc::new(provider))
        .with_protocol_versions(&[version])
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth()
}

fn any() -> CryptoProvider {
    aws_lc_rs::default_provider()
}

/// A client that verifies only signatures of such schemes.
fn verifying(is_verified: fn(&SignatureScheme) -> bool) -> CryptoProvider {
    let all = any().signature_verification_algorithms;
    let mapping: Vec<_> = all.mapping.iter().filter(|(scheme, _)| is_verified(scheme)).copied().collect();
    let mapping = Box::leak(mapping.into_boxed_slice());
    CryptoProvider {
        signature_verification_algorithms: WebPkiSupportedAlgorithms { all: all.all, mapping },
        ..any()
    }
}

/// A client with only these cipher suites.
fn with_suites(is_used: fn(&SupportedCipherSuite) -> bool) -> CryptoProvider {
    let all = any();
    CryptoProvider { cipher_suites: all.cipher_suites.iter().copied().filter(is_used).collect(), ..all }
}

fn is_rsa(scheme: &SignatureScheme) -> bool {
    format!("{scheme:?}").starts_with("RSA")
}

/// What a client got: the number of the certificate, the kind of handshake, and what the client thinks of early data.
#[derive(Debug, PartialEq)]
struct Got {
    certificate: usize,
    kind: HandshakeKind,
    alpn: Option<Vec<u8>>,
    may_send_early: bool,
}

/// Why there was no handshake, or it failed.
#[derive(Debug, PartialEq)]
enum Failed {
    Refused(HelloRefusal),
    Tls(Error),
}

/// A handshake with `name`, which serves TURN alone; an address is sent as no name.
fn connect(server: &Server, config: &Arc<ClientConfig>, name: &str) -> Result<Got, Failed> {
    connect_to(server, Protocols::default(), config, name)
}

/// The same with a name that serves `protocols`.
fn connect_to(
    server: &Server,
    protocols: Protocols,
    config: &Arc<ClientConfig>,
    name: &str,
) -> Result<Got, Failed> {
    let name = ServerName::try_from(name.to_owned()).unwrap();
    let mut client = ClientConnection::new(config.clone(), name).unwrap();
    let may_send_early = client.early_data().is_some();
    let mut acceptor = Acceptor::default();
    let mut hello = Vec::new();
    client.write_tls(&mut hello).unwrap();
    acceptor.read_tls(&mut &hello[..]).unwrap();
    let accepted = acceptor.accept().map_err(|(error, _)| Failed::Tls(error))?.expect("a whole ClientHello");
    let chosen = server.identities.choose(&accepted.client_hello(), protocols).map_err(Failed::Refused)?;
    let mut connection = accepted.into_connection(chosen).map_err(|(error, _)| Failed::Tls(error))?;
    exchange(&mut client, &mut connection).map_err(Failed::Tls)?;
    let shown = client.peer_certificates().unwrap()[0].clone().into_owned();
    Ok(Got {
        certificate: server.ders.iter().position(|der| *der == shown).expect("one of this server"),
        kind: client.handshake_kind().unwrap(),
        alpn: connection.alpn_protocol().map(<[u8]>::to_vec),
        may_send_early,
    })
}

/// Carries bytes between both until nothing is left.
fn exchange(client: &mut ClientConnection, server: &mut ServerConnection) -> Result<(), Error> {
    loop {
        let (mut up, mut down) = (Vec::new(), Vec::new());
        while client.wants_write() {
            client.write_tls(&mut up).unwrap();
        }
        while server.wants_write() {
            server.write_tls(&mut down).unwrap();
        }
        if up.is_empty() && down.is_empty() {
            return Ok(());
        }
        let (mut up, mut down): (&[u8], &[u8]) = (&up, &down);
        while !up.is_empty() {
            server.read_tls(&mut up).unwrap();
            server.process_new_packets()?;
        }
        while !down.is_empty() {
            client.read_tls(&mut down).unwrap();
            client.process_new_packets()?;
        }
    }
}

/// The number of the certificate that a client for `name` gets.
fn gets(
    server: &Server,
    provider: CryptoProvider,
    version: &'static SupportedProtocolVersion,
    name: &str,
) -> usize {
    connect(server, &unverified(client(server, provider, version)), name).unwrap().certificate
}

/// A client that does not look at the names in certificates, as a client that connects to an address.
fn unverified(config: ClientConfig) -> Arc<ClientConfig> {
    let mut config = config;
    let algorithms = config.crypto_provider().signature_verification_algorithms;
    config.dangerous().set_certificate_verifier(Arc::new(Trusting(algorithms)));
    Arc::new(config)
}

#[derive(Debug)]
struct Trusting(WebPkiSupportedAlgorithms);

impl rustls::client::danger::ServerCertVerifier for Trusting {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: rustls::pki_types::UnixTime,
    ) -> Result<rustls::client::danger::ServerCertVerified, Error> {
        Ok(rustls::client::danger::ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, Error> {
        rustls::crypto::verify_tls12_signature(message, certificate, signature, &self.0)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, Error> {
        rustls::crypto::verify_tls13_signature(message, certificate, signature, &self.0)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_schemes()
    }
}

/// RFC 6066 §3: a client gets the certificate for the name that it asks for, compared without regard to case or a trailing dot.
/// A wildcard stands for one label, and an exact name goes before it. IDN are A-labels on the wire.
#[test]
fn the_name_chooses() {
    let server = server(
        vec![
            ecdsa(&["default.example"]),
            ecdsa(&["turn.example.org", "www.example.org"]),
            ecdsa(&["*.example.org"]),
            ecdsa(&["xn--bcher-kva.example"]),
        ],
        UnknownName::Default,
    );
    for version in [&TLS12, &TLS13] {
        for (name, expected) in [
            ("default.example", 0),
            ("turn.example.org", 1),
            ("TURN.Example.ORG", 1),
            ("turn.example.org.", 1),
            ("www.example.org", 1),
            ("other.example.org", 2),
            ("example.org", 0),
            ("a.b.example.org", 0),
            ("xn--bcher-kva.example", 3),
            ("XN--BCHER-KVA.example.", 3),
            ("unknown.example", 0),
            ("192.0.2.7", 0),
            ("2001:db8::7", 0),
        ] {
            assert_eq!(gets(&server, any(), version, name), expected, "{name}");
        }
    }
}

/// A client that asks for a name of no certificate is refused where the settings say so; one that asks for none never is.
#[test]
fn unknown_names_are_refused() {
    let server = server(vec![ecdsa(&["a.example"]), ecdsa(&["b.example"])], UnknownName::Refuse);
    let config = unverified(client(&server, any(), &TLS13));
    assert_eq!(connect(&server, &config, "c.example"), Err(Failed::Refused(HelloRefusal::UnknownName)));
    assert_eq!(connect(&server, &config, "b.example").unwrap().certificate, 1);
    assert_eq!(connect(&server, &config, "192.0.2.7").unwrap().certificate, 0);
}

/// RFC 8446 §4.2.3, RFC 5246 §7.4.2: with an RSA and an ECDSA key for one name, a client gets one that it can verify by its
/// signature schemes and, with TLS 1.2, its cipher suites. The order of the settings does not matter.
#[test]
fn the_key_suits_the_client() {
    let one = |kind| certificate(&["turn.example.org"], kind, 0);
    for rsa in [0, 1] {
        let kinds: [&'static Kind; 2] = if rsa == 0 {
            [&PKCS_RSA_SHA256, &PKCS_ECDSA_P256_SHA256]
        } else {
            [&PKCS_ECDSA_P256_SHA256, &PKCS_RSA_SHA256]
        };
        let ecdsa = 1 - rsa;
        let server = server(kinds.into_iter().map(one).collect(), UnknownName::Default);
        let name = "turn.example.org";
        for version in [&TLS12, &TLS13] {
            assert_eq!(gets(&server, any(), version, name), ecdsa);
            assert_eq!(gets(&server, verifying(is_rsa), version, name), rsa);
            assert_eq!(gets(&server, verifying(|scheme| !is_rsa(scheme)), version, name), ecdsa);
            // Without a name, the default certificate goes first, and the other one is for those that cannot verify it.
            assert_eq!(gets(&server, any(), version, "192.0.2.7"), 0);
            assert_eq!(gets(&server, verifying(is_rsa), version, "192.0.2.7"), rsa);
        }
        let rsa_suites = with_suites(|suite| format!("{suite:?}").contains("ECDHE_RSA"));
        assert_eq!(gets(&server, rsa_suites, &TLS12, name), rsa);
        let ecdsa_suites = with_suites(|suite| format!("{suite:?}").contains("ECDHE_ECDSA"));
        assert_eq!(gets(&server, ecdsa_suites, &TLS12, name), ecdsa);
    }
}

/// RFC 8422 §5.1.1: until TLS 1.2 the groups of a client also name the curves of the keys that it can verify. In TLS 1.3 they
/// are about key exchange alone (RFC 8446 §4.2.7).
#[test]
fn the_curve_suits_the_client() {
    let one = |kind| certificate(&["turn.example.org"], kind, 0);
    let server = server(vec![one(&PKCS_ECDSA_P256_SHA256), one(&PKCS_RSA_SHA256)], UnknownName::Default);
    for (groups, version, expected) in [
        (&[NamedGroup::X25519][..], &TLS12, 1),
        (&[NamedGroup::secp384r1], &TLS12, 1),
        (&[NamedGroup::X25519, NamedGroup::secp256r1], &TLS12, 0),
        (&[NamedGroup::X25519], &TLS13, 0),
    ] {
        let mut provider = any();
        provider.kx_groups.retain(|group| groups.contains(&group.name()));
        provider.cipher_suites.retain(|suite| suite.version() == version);
        assert_eq!(gets(&server, provider, version, "turn.example.org"), expected, "{groups:?}");
    }
}

/// A client that can verify none of the certificates is told so, and does not get one that it cannot verify.
#[test]
fn nothing_in_common() {
    let server = server(vec![ecdsa(&["a.example"])], UnknownName::Default);
    for version in [&TLS12, &TLS13] {
        let config = unverified(client(&server, verifying(is_rsa), version));
        let error = connect(&server, &config, "a.example").unwrap_err();
        assert!(matches!(error, Failed::Tls(Error::PeerIncompatible(_))), "{error:?}");
    }
}

/// RFC 8446 §4.2.7: key exchange follows the client's order, so browsers get the post-quantum hybrid that they put first.
#[test]
fn key_exchange_follows_the_client() {
    let server = server(vec![ecdsa(&["a.example"])], UnknownName::Default);
    // The first byte is for the fuzz target whose seeds they are.
    let chromium = include_bytes!("../../../fuzz/corpus/client_hello/chromium");
    let firefox = include_bytes!("../../../fuzz/corpus/client_hello/firefox");
    let openssl = include_bytes!("../../../fuzz/corpus/client_hello/openssl-tls13");
    for (hello, expected) in [
        (&chromium[1..], NamedGroup::X25519MLKEM768),
        (&firefox[1..], NamedGroup::X25519MLKEM768),
        (&openssl[1..], NamedGroup::X25519),
    ] {
        let mut acceptor = Acceptor::default();
        acceptor.read_tls(&mut &hello[..]).unwrap();
        let accepted = acceptor.accept().map_err(|(error, _)| error).unwrap().unwrap();
        let chosen = server.identities.choose(&accepted.client_hello(), Protocols::default()).unwrap();
        let connection = accepted.into_connection(chosen).map_err(|(error, _)| error).unwrap();
        assert_eq!(connection.negotiated_key_exchange_group().unwrap().name(), expected);
    }
}

/// Of two certificates with the same kind of key for one name, the one that expires later is used.
#[test]
fn of_two_the_later_one_is_used() {
    let one = |until| certificate(&["a.example"], &PKCS_ECDSA_P256_SHA256, until);
    let server = server(vec![ecdsa(&["b.example"]), one(10), one(30), one(20)], UnknownName::Default);
    assert_eq!(gets(&server, any(), &TLS13, "a.example"), 2);
}

/// A session that was made before a certificate was renewed resumes after it, and on every worker, which share the keys of
/// tickets. RFC 8446 §4.6.1, RFC 5077.
#[test]
fn sessions_resume_after_a_renewal() {
    let sessions = Sessions::new().unwrap();
    let make = || ecdsa(&["a.example"]);
    for version in [&TLS12, &TLS13] {
        let before = resuming(vec![make()], UnknownName::Default, &sessions);
        let config = unverified(client(&before, any(), version));
        assert_eq!(connect(&before, &config, "a.example").unwrap().kind, HandshakeKind::Full);
        assert_eq!(connect(&before, &config, "a.example").unwrap().kind, HandshakeKind::Resumed);
        let old = before.ders[0].clone();
        let mut renewed = resuming(vec![make()], UnknownName::Refuse, &sessions);
        // A resumed session has the certificate that it was made with.
        renewed.ders.push(old);
        let got = connect(&renewed, &config, "a.example").unwrap();
        assert_eq!((got.kind, got.certificate), (HandshakeKind::Resumed, 1));
        let other_keys = server(vec![make()], UnknownName::Default);
        let got = connect(&other_keys, &config, "a.example").unwrap();
        assert_eq!(got.kind, HandshakeKind::Full, "keys of another process");
    }
}

/// RFC 5077 §5.5: keys of tickets are replaced. A key decrypts tickets for as long again as it has encrypted them, whether or not
/// there were handshakes meanwhile.
#[test]
fn keys_of_tickets_rotate() {
    const LIFE: u32 = 100;
    for version in [&TLS12, &TLS13] {
        let now = Arc::new(AtomicU64::new(5000));
        let clock = now.clone();
        let sessions = Sessions::rotating(LIFE, move || clock.load(Relaxed)).unwrap();
        let server = resuming(vec![ecdsa(&["a.example"])], UnknownName::Default, &sessions);
        let made = || {
            let config = unverified(client(&server, any(), version));
            assert_eq!(connect(&server, &config, "a.example").unwrap().kind, HandshakeKind::Full);
            config
        };
        let at = |after: u64, config: &Arc<ClientConfig>| {
            now.store(5000 + after, Relaxed);
            connect(&server, config, "a.example").unwrap().kind
        };
        let early = [made(), made(), made(), made()];
        assert_eq!(at(99, &early[0]), HandshakeKind::Resumed);
        let late = made();
        assert_eq!(at(100, &early[1]), HandshakeKind::Resumed, "with the previous key");
        assert_eq!(at(199, &early[2]), HandshakeKind::Resumed);
        assert_eq!(at(199, &late), HandshakeKind::Resumed);
        let next = made();
        assert_eq!(at(200, &early[3]), HandshakeKind::Full, "its key is gone");
        assert_eq!(at(200, &next), HandshakeKind::Resumed);
        let before_the_night = made();
        assert_eq!(at(900, &before_the_night), HandshakeKind::Full, "nobody has asked for a long time");
        assert_eq!(at(900, &before_the_night), HandshakeKind::Resumed);
    }
}

/// RFC 6066 §3: a session is not resumed for another name, whose certificate the client has not seen.
#[test]
fn sessions_do_not_cross_names() {
    let server = server(vec![ecdsa(&["a.example"]), ecdsa(&["b.example"])], UnknownName::Default);
    for version in [&TLS12, &TLS13] {
        let mut config = client(&server, any(), version);
        // Resumes whatever session it has, for any name.
        config.resumption = rustls::client::Resumption::store(Arc::new(AnyName::default()));
        let config = unverified(config);
        assert_eq!(connect(&server, &config, "a.example").unwrap().kind, HandshakeKind::Full);
        let got = connect(&server, &config, "b.example").unwrap();
        assert_eq!((got.kind, got.certificate), (HandshakeKind::Full, 1));
        assert_eq!(connect(&server, &config, "b.example").unwrap().kind, HandshakeKind::Resumed);
        let got = connect(&server, &config, "192.0.2.7").unwrap();
        assert_eq!((got.kind, got.certificate), (HandshakeKind::Full, 0), "no name is another name");
    }
}

/// A name that is not served any more is refused, whatever ticket a client has.
#[test]
fn a_ticket_opens_no_refused_name() {
    let sessions = Sessions::new().unwrap();
    let before = resuming(vec![ecdsa(&["a.example"])], UnknownName::Default, &sessions);
    let config = unverified(client(&before, any(), &TLS13));
    assert_eq!(connect(&before, &config, "b.example").unwrap().kind, HandshakeKind::Full);
    let after = resuming(vec![ecdsa(&["a.example"])], UnknownName::Refuse, &sessions);
    assert_eq!(connect(&after, &config, "b.example"), Err(Failed::Refused(HelloRefusal::UnknownName)));
}

/// RFC 8446 §8: early data could be replayed, so tickets do not allow it, and clients do not send it.
#[test]
fn early_data_is_off() {
    let server = server(vec![ecdsa(&["a.example"])], UnknownName::Default);
    let mut config = client(&server, any(), &TLS13);
    config.enable_early_data = true;
    let config = unverified(config);
    for expected in [HandshakeKind::Full, HandshakeKind::Resumed] {
        let got = connect(&server, &config, "a.example").unwrap();
        assert_eq!((got.kind, got.may_send_early), (expected, false));
    }
}

/// What a client that offers these protocols, to a name that serves `served`, has negotiated.
fn negotiated(
    server: &Server,
    served: Protocols,
    offered: &[&[u8]],
    name: &str,
) -> Result<Option<Vec<u8>>, Failed> {
    let mut config = client(server, any(), &TLS13);
    config.alpn_protocols = offered.iter().map(|one| one.to_vec()).collect();
    connect_to(server, served, &unverified(config), name).map(|got| got.alpn)
}

/// RFC 7301 §3.2: the server's order decides, and only what the name serves is negotiated; a client that offers nothing of it is
/// served without ALPN. RFC 7443 §3: TURN's protocols are negotiated with every name and every certificate.
#[test]
fn application_protocols_are_those_that_the_name_serves() {
    let server = server(vec![ecdsa(&["a.example"]), ecdsa(&["b.example"])], UnknownName::Default);
    let (http, h2) = (Protocols { http: true, h2: false }, Protocols { http: false, h2: true });
    let (turn, both) = (Protocols::default(), Protocols { http: true, h2: true });
    let browser = [&b"h2"[..], b"http/1.1"];
    let everything = [&b"http/1.1"[..], b"h2", b"stun.nat-discovery", b"stun.turn"];
    for (served, offered, expected) in [
        (turn, &[][..], None),
        (turn, &[&b"stun.turn"[..]][..], Some("stun.turn")),
        (turn, &[b"stun.nat-discovery"], Some("stun.nat-discovery")),
        (turn, &[b"h2", b"stun.nat-discovery"], Some("stun.nat-discovery")),
        (turn, &browser, None),
        (turn, &[b"http/1.1"], None),
        (turn, &[b"webrtc", b"c-webrtc"], None),
        (http, &browser, Some("http/1.1")),
        (http, &[b"h2"], None),
        (http, &[b"http/1.1"], Some("http/1.1")),
        (http, &[b"http/1.0"], None),
        (h2, &browser, Some("h2")),
        (h2, &[b"http/1.1"], None),
        (both, &browser, Some("h2")),
        (both, &[b"http/1.1", b"h2"], Some("h2")),
        (both, &[b"http/1.1"], Some("http/1.1")),
        (both, &everything, Some("stun.turn")),
        (both, &everything[..3], Some("stun.nat-discovery")),
        (both, &[b"acme-tls/1", b"h2"], Some("h2")),
        (both, &[b"acme-tls/1", b"x"], None),
    ] {
        for name in ["a.example", "b.example", "192.0.2.7"] {
            let alpn = negotiated(&server, served, offered, name).unwrap();
            assert_eq!(alpn.as_deref(), expected.map(str::as_bytes), "{served:?} {offered:?}");
        }
    }
}

/// RFC 8737 §3: a client that offers `acme-tls/1` alone validates a name, and must not be served without it.
#[test]
fn validation_of_certificates_is_refused() {
    let server = server(vec![ecdsa(&["a.example"])], UnknownName::Default);
    for served in Protocols::ALL {
        let refused = negotiated(&server, served, &[b"acme-tls/1"], "a.example");
        assert_eq!(refused, Err(Failed::Refused(HelloRefusal::OnlyAcme)));
    }
    assert_eq!(HelloRefusal::OnlyAcme.alert(), [21, 3, 3, 0, 2, 2, 120]);
}

/// A session resumes whatever protocol it was made with, and the protocol is negotiated again (RFC 7301 §3.1).
#[test]
fn sessions_cross_protocols() {
    let server = server(vec![ecdsa(&["a.example"])], UnknownName::Default);
    let both = Protocols { http: true, h2: true };
    for version in [&TLS12, &TLS13] {
        let mut config = client(&server, any(), version);
        config.alpn_protocols = vec![b"stun.turn".to_vec()];
        let turn = unverified(config);
        // It shares the sessions.
        let mut web = ClientConfig::clone(&turn);
        web.alpn_protocols = vec![b"h2".to_vec()];
        let web = Arc::new(web);
        assert_eq!(connect_to(&server, both, &turn, "a.example").unwrap().kind, HandshakeKind::Full);
        let got = connect_to(&server, both, &web, "a.example").unwrap();
        assert_eq!((got.kind, got.alpn.as_deref()), (HandshakeKind::Resumed, Some(&b"h2"[..])));
    }
}

/// Which names have a certificate: those without one may be passed on instead.
#[test]
fn names_are_covered() {
    let server = server(vec![ecdsa(&["a.example"]), ecdsa(&["*.b.example"])], UnknownName::Default);
    let covered = ["a.example", "b.example", "x.b.example", "y.x.b.example", "c.example"]
        .map(|name| server.identities.covers(name));
    assert_eq!(covered, [true, false, true, false, false]);
}

/// One place for sessions, whatever name they are for.
#[derive(Debug, Default)]
struct AnyName(std::sync::Mutex<Stored>);

#[derive(Debug, Default)]
struct Stored {
    tls12: Option<rustls::client::Tls12ClientSessionValue>,
    tls13: Vec<rustls::client::Tls13ClientSessionValue>,
}

impl rustls::client::ClientSessionStore for AnyName {
    fn set_kx_hint(&self, _: ServerName<'static>, _: rustls::NamedGroup) {}

    fn kx_hint(&self, _: &ServerName<'_>) -> Option<rustls::NamedGroup> {
        None
    }

    fn set_tls12_session(&self, _: ServerName<'static>, value: rustls::client::Tls12ClientSessionValue) {
        self.0.lock().unwrap().tls12 = Some(value);
    }

    fn tls12_session(&self, _: &ServerName<'_>) -> Option<rustls::client::Tls12ClientSessionValue> {
        self.0.lock().unwrap().tls12.clone()
    }

    fn remove_tls12_session(&self, _: &ServerName<'static>) {}

    fn insert_tls13_ticket(&self, _: ServerName<'static>, value: rustls::client::Tls13ClientSessionValue) {
        self.0.lock().unwrap().tls13.push(value);
    }

    fn take_tls13_ticket(&self, _: &ServerName<'static>) -> Option<rustls::client::Tls13ClientSessionValue> {
        self.0.lock().unwrap().tls13.pop()
    }
}
