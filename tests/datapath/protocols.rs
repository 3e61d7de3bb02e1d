//! Many protocols on one port: what a connection says decides who serves it, and how long and with how much memory it may be
//! undecided.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::thread::sleep;
use std::time::Duration;

use hairpin::datapath::stream::StreamLimits;
use hairpin::datapath::stream::stats::{ConnectionEnd, HandshakeFailure};
use hairpin::datapath::{Backend, DatapathSnapshot, Proxies, Route, Routes, StreamService};
use hairpin::tls::{CertificateName, Identities, Identity, NamedIdentity, Sessions, UnknownName};
use hairpin::wire::{Class, Encoder, Method, TransactionId};
use rcgen::{CertifiedKey, generate_simple_self_signed};
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::version::TLS13;
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use tokio::time::Instant;

use crate::client::{Client, ClientSocket, connect};
use crate::world::{Relay, TIMEOUT, alone, block_on, relay};

/// The names of the certificate, apart from a name of which it knows nothing.
const NAMES: [&str; 2] = ["turn.example.org", "live.example.org"];

const REQUEST: &[u8] = b"GET /rtc HTTP/1.1\r\nHost: live.example.org\r\n\r\n";
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// A relay with a certificate for [`NAMES`], whose port for TCP serves what a test wants.
struct Place {
    relay: Relay,
    identities: Identities,
    certificate: CertificateDer<'static>,
}

type Stream = StreamOwned<ClientConnection, TcpStream>;

impl Place {
    fn new(ip: &str, unknown: UnknownName) -> Place {
        Place::over(relay(ip), unknown)
    }

    fn over(relay: Relay, unknown: UnknownName) -> Place {
        let names = NAMES.map(str::to_owned);
        let CertifiedKey { cert, signing_key } = generate_simple_self_signed(names).unwrap();
        let identity =
            Identity::from_pem(cert.pem().as_bytes(), signing_key.serialize_pem().as_bytes()).unwrap();
        let named = NamedIdentity { identity, names: NAMES.into_iter().map(name).collect(), until: 0 };
        let identities = Identities::new(&[named], unknown, &Sessions::new().unwrap()).unwrap();
        Place { relay, identities, certificate: cert.der().clone() }
    }

    fn serve(&self, service: StreamService) {
        let services = HashMap::from([(self.relay.tcp, Arc::new(service))]);
        let snapshot = self.relay.setup.snapshot(Some(self.identities.clone()));
        block_on(self.relay.workers().apply(DatapathSnapshot { services, ..snapshot })).unwrap();
    }

    /// A client for a name (an address is sent as none), before its handshake.
    fn client(&self, name: &str, protocols: &[&[u8]]) -> ClientConnection {
        let mut roots = RootCertStore::empty();
        roots.add(self.certificate.clone()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&TLS13])
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = protocols.iter().map(|one| one.to_vec()).collect();
        let name = ServerName::try_from(name.to_owned()).unwrap();
        ClientConnection::new(Arc::new(config), name).unwrap()
    }

    /// The ClientHello of such a client.
    fn hello(&self, name: &str) -> Vec<u8> {
        let mut hello = Vec::new();
        self.client(name, &[]).write_tls(&mut hello).unwrap();
        hello
    }

    /// The same after its handshake, and what ALPN chose.
    fn dial(&self, name: &str, protocols: &[&[u8]]) -> (Stream, Option<Vec<u8>>) {
        let mut stream = StreamOwned::new(self.client(name, protocols), connect(self.relay.tcp));
        while stream.conn.is_handshaking() {
            stream.conn.complete_io(&mut stream.sock).unwrap();
        }
        let chosen = stream.conn.alpn_protocol().map(<[u8]>::to_vec);
        (stream, chosen)
    }

    fn wait_for_tcp_ends(&self, why: ConnectionEnd, expected: u64) {
        self.relay.wait_for(&format!("{why:?} {expected}"), |stats| {
            stats.sockets.streams.closed.iter().map(|reasons| reasons[why]).sum::<u64>() == expected
        });
    }
}

fn name(text: &str) -> CertificateName {
    CertificateName::parse(text).unwrap()
}

/// A web server or the like.
struct Server(TcpListener);

impl Server {
    fn new() -> Server {
        Server(TcpListener::bind("127.3.0.1:0").unwrap())
    }

    fn backend(&self) -> Backend {
        let port = self.0.local_addr().unwrap().port();
        Backend { host: "127.3.0.1".into(), port, send_proxy: false }
    }

    /// Accepts a connection, reads these bytes, and answers.
    fn answer(&self, expected: &[u8], answer: &[u8]) -> TcpStream {
        let (mut socket, _) = self.0.accept().unwrap();
        socket.set_read_timeout(Some(TIMEOUT)).unwrap();
        let mut received = vec![0; expected.len()];
        socket.read_exact(&mut received).unwrap();
        assert_eq!(received.escape_ascii().to_string(), expected.escape_ascii().to_string());
        socket.write_all(answer).unwrap();
        socket
    }
}

/// Waits until the server has closed a connection, in an orderly way and without an answer.
fn closed_without_an_answer(mut socket: &TcpStream) {
    socket.set_read_timeout(Some(TIMEOUT)).unwrap();
    let mut answer = Vec::new();
    socket.read_to_end(&mut answer).expect("no reset");
    assert_eq!(answer, b"");
}

/// The same after a handshake: TLS ends in an orderly way, too (RFC 8446 section 6.1), with nothing inside of it.
fn closed_inside_tls(mut stream: Stream) {
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).expect("close_notify");
    assert_eq!(answer, b"");
}

fn binding() -> Vec<u8> {
    Encoder::new(Class::Request, Method::Binding, TransactionId([7; 12])).finish()
}

fn turn(stream: Stream) -> Client {
    Client::over_stream(ClientSocket::Tls(Box::new(stream)))
}

/// The name in the ClientHello chooses: a route passes the connection through unopened, every byte of it replayed; a name with a
/// certificate ends here; others go to the default backend, and those without a name get the default certificate.
#[test]
fn the_name_chooses_who_serves_a_connection() {
    let place = Place::new("127.1.20.1", UnknownName::Refuse);
    let (web, rest) = (Server::new(), Server::new());
    let routes = [
        (name("www.example.org"), Route::Pass(web.backend())),
        (name("turn.example.org"), Route::Pass(web.backend())),
    ];
    let routed = |default| StreamService {
        turn: true,
        tls: true,
        routes: Routes::new(routes.clone(), default),
        ..StreamService::default()
    };
    place.serve(routed(Some(rest.backend())));
    for (name, server) in [
        ("www.example.org", &web),
        // A route comes before a certificate.
        ("turn.example.org", &web),
        ("else.example", &rest),
    ] {
        let hello = place.hello(name);
        let mut client = connect(place.relay.tcp);
        client.write_all(&hello).unwrap();
        let mut backend = server.answer(&hello, b"\x15\x03\x03\x00\x02\x02\x28");
        client.read_exact(&mut [0; 7]).unwrap();
        // Both directions go on, and each ends on its own.
        client.write_all(b"more").unwrap();
        client.shutdown(Shutdown::Write).unwrap();
        let mut received = Vec::new();
        backend.read_to_end(&mut received).unwrap();
        assert_eq!(received, b"more");
        backend.write_all(b"last").unwrap();
        drop(backend);
        client.read_exact(&mut [0; 4]).unwrap();
    }
    // Nobody has a certificate for an address.
    let mut config = place.client("127.1.20.1", &[]);
    let mut socket = connect(place.relay.tcp);
    config.write_tls(&mut socket).unwrap();
    let mut record = [0; 5];
    socket.read_exact(&mut record).unwrap();
    assert_eq!(record[0], 0x16, "a ServerHello from here");
    assert_eq!(turn(place.dial("live.example.org", &[]).0).binding().code(), 0);
    // Without a default backend the setting for unknown names holds: here they get the alert unrecognized_name.
    place.serve(routed(None));
    let mut socket = connect(place.relay.tcp);
    socket.write_all(&place.hello("else.example")).unwrap();
    let mut answer = Vec::new();
    socket.read_to_end(&mut answer).unwrap();
    assert_eq!(answer, [0x15, 3, 3, 0, 2, 2, 112]);
    place.relay.stop();
}

/// A ClientHello is put together from any number of segments and records, and each byte is replayed.
#[test]
fn a_client_hello_in_pieces() {
    let place = Place::new("127.1.20.2", UnknownName::Default);
    let web = Server::new();
    let routes = Routes::new([(name("www.example.org"), Route::Pass(web.backend()))], None);
    place.serve(StreamService { tls: true, routes, ..StreamService::default() });
    let hello = place.hello("www.example.org");
    let in_records: Vec<u8> = hello[5..]
        .chunks(100)
        .flat_map(|part| [&[0x16, 3, 1, 0, part.len() as u8][..], part].concat())
        .collect();
    for (bytes, piece) in [(&hello, 7), (&in_records, 1000), (&in_records, 64)] {
        let mut client = connect(place.relay.tcp);
        for piece in bytes.chunks(piece) {
            client.write_all(piece).unwrap();
            sleep(Duration::from_millis(1));
        }
        web.answer(bytes, b"x");
        client.read_exact(&mut [0]).unwrap();
    }
    // One that ends here, too.
    let mut tls = place.client("live.example.org", &[]);
    let mut socket = connect(place.relay.tcp);
    let mut hello = Vec::new();
    tls.write_tls(&mut hello).unwrap();
    for part in hello[5..].chunks(50) {
        socket.write_all(&[&[0x16, 3, 1, 0, part.len() as u8][..], part].concat()).unwrap();
        sleep(Duration::from_millis(1));
    }
    let mut stream = StreamOwned::new(tls, socket);
    while stream.conn.is_handshaking() {
        stream.conn.complete_io(&mut stream.sock).unwrap();
    }
    assert_eq!(turn(stream).binding().code(), 0);
    place.relay.stop();
}

/// Inside TLS the first decrypted bytes decide, whatever ALPN chose: STUN is TURN, HTTP/1.1 and the preface of HTTP/2 go to the
/// backends of the route as they are. What has none is closed.
#[test]
fn the_first_decrypted_bytes_decide() {
    let place = Place::new("127.1.20.3", UnknownName::Default);
    let (http, h2c) = (Server::new(), Server::new());
    let serve = |h2c| {
        let route = Route::Terminate { http: Some(http.backend()), h2c };
        let routes = Routes::new([(name("live.example.org"), route)], None);
        place.serve(StreamService { tls: true, routes, ..StreamService::default() });
    };
    serve(Some(h2c.backend()));
    for (offered, chosen) in [
        (&[][..], None),
        (&[&b"stun.turn"[..]][..], Some(&b"stun.turn"[..])),
        (&[b"stun.nat-discovery"], Some(b"stun.nat-discovery")),
        (&[b"h2", b"http/1.1"], Some(b"h2")),
        (&[b"http/1.1"], Some(b"http/1.1")),
        (&[b"http/1.1", b"stun.turn"], Some(b"stun.turn")),
        (&[b"webrtc"], None),
    ] {
        let dial = || {
            let (stream, negotiated) = place.dial("live.example.org", offered);
            assert_eq!(negotiated.as_deref(), chosen, "{offered:?}");
            stream
        };
        assert_eq!(turn(dial()).allocate_own_family().code(), 0);
        for (bytes, server) in [(REQUEST, &http), (PREFACE, &h2c)] {
            let mut stream = dial();
            stream.write_all(bytes).unwrap();
            let backend = server.answer(bytes, b"answer");
            let mut answer = [0; 6];
            stream.read_exact(&mut answer).unwrap();
            assert_eq!(&answer, b"answer");
            drop(backend);
        }
    }
    serve(None);
    let (mut stream, chosen) = place.dial("live.example.org", &[b"h2", b"http/1.1"]);
    assert_eq!(chosen.as_deref(), Some(&b"http/1.1"[..]));
    stream.write_all(PREFACE).unwrap();
    closed_inside_tls(stream);
    // A name without a route is for TURN alone.
    let (mut stream, chosen) = place.dial("turn.example.org", &[b"h2", b"http/1.1"]);
    assert_eq!(chosen, None);
    stream.write_all(REQUEST).unwrap();
    closed_inside_tls(stream);
    place.wait_for_tcp_ends(ConnectionEnd::NotServed, 2);
    assert_eq!(turn(place.dial("turn.example.org", &[b"http/1.1"]).0).binding().code(), 0);
    place.relay.stop();
}

/// What a listener serves is a setting of each: everything else is closed in an orderly way and without an answer.
#[test]
fn a_listener_serves_what_is_set() {
    let place = Place::new("127.1.20.4", UnknownName::Default);
    let web = Server::new();
    let cases = [
        ("TURN", binding()),
        ("TLS", place.hello("turn.example.org")),
        ("HTTP", REQUEST.to_vec()),
        ("HTTP/2", PREFACE.to_vec()),
        ("SSH", b"SSH-2.0-OpenSSH_9\r\n".to_vec()),
        ("garbage", vec![0xFF; 3000]),
    ];
    let mut ends = 0;
    for (turn, tls, http) in
        [(true, false, false), (false, true, false), (false, false, true), (false, false, false)]
    {
        let http = http.then(|| web.backend());
        place.serve(StreamService { turn, tls, http: http.clone(), ..StreamService::default() });
        for (what, bytes) in &cases {
            let mut client = connect(place.relay.tcp);
            client.write_all(bytes).unwrap();
            match *what {
                "TURN" if turn => client.read_exact(&mut [0; 20]).unwrap(),
                "TLS" if tls => client.read_exact(&mut [0; 5]).unwrap(),
                "HTTP" if http.is_some() => drop(web.answer(bytes, b"")),
                _ => {
                    closed_without_an_answer(&client);
                    ends += 1;
                    place.wait_for_tcp_ends(ConnectionEnd::NotServed, ends);
                }
            }
        }
    }
    place.relay.stop();
}

/// Each stage has a deadline as a whole: whoever sends a byte now and then, or nothing, is closed when it has passed.
#[test]
fn slow_clients_are_closed_at_the_deadline_of_their_stage() {
    let soon = Duration::from_millis(400);
    let limits =
        StreamLimits { handshake_timeout: soon, first_message_timeout: soon, ..StreamLimits::default() };
    let place = Place::over(Relay::limited("127.1.20.5", limits), UnknownName::Default);
    let web = Server::new();
    let route = Route::Terminate { http: Some(web.backend()), h2c: None };
    let routes = Routes::new([(name("live.example.org"), route)], None);
    let proxies = Proxies { from: vec!["127.9.9.9/32".parse().unwrap()], required: true };
    place.serve(StreamService { turn: true, tls: true, http: Some(web.backend()), routes, proxies });
    let hello = place.hello("live.example.org");
    let in_records: Vec<u8> = hello[5..].iter().flat_map(|byte| [0x16, 3, 1, 0, 1, *byte]).collect();
    let dripping: [&[u8]; 6] =
        [b"", b"OPTIONSOPTIONSOPTIONS", b"PRI * HTTP/2.0\r\n\r\nSM", &hello, &in_records, &binding()];
    let dripped = dripping.map(|bytes| {
        let (socket, started) = (connect(place.relay.tcp), Instant::now());
        socket.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
        let mut bytes = bytes.iter();
        // A read that times out is a pause.
        while matches!((&socket).read(&mut [0]), Err(error) if error.kind() == std::io::ErrorKind::WouldBlock)
        {
            if let Some(byte) = bytes.next() {
                let _ = (&socket).write_all(&[*byte]);
            }
            assert!(started.elapsed() < 10 * TIMEOUT, "a deadline is not extended");
        }
        bytes.len()
    });
    assert!(
        dripped[3] > 0 && dripped[4] > 0,
        "they were closed before they had sent everything: {dripped:?}"
    );
    // Silence after the handshake, and a request that never becomes one.
    for beginning in [&b""[..], b"GE"] {
        let mut stream = place.dial("live.example.org", &[]).0;
        stream.write_all(beginning).unwrap();
        closed_inside_tls(stream);
    }
    // Browsers connect ahead of their requests, but only to a name that has a web server.
    place.wait_for_tcp_ends(ConnectionEnd::NoRequest, 1);
    closed_inside_tls(place.dial("turn.example.org", &[]).0);
    place.wait_for_tcp_ends(ConnectionEnd::NoRequest, 1);
    place.relay.wait_for("ClientHellos that were never complete", |stats| {
        stats.sockets.streams.handshakes_failed[HandshakeFailure::TooSlow] == 2
    });
    place.relay.wait_until_empty();
    place.relay.stop();
}

/// A ClientHello that is larger than is put together, or none at all after a byte that promised one, is closed and counted.
#[test]
fn oversized_and_malformed_client_hellos() {
    let place = Place::new("127.1.20.6", UnknownName::Default);
    // Its length promises too much; or records go on and on.
    let promised = [&[0x16, 3, 1, 0x40, 0, 1, 0, 0xFF, 0xFF][..], &[7; 20_000]].concat();
    let endless: Vec<u8> =
        [&[0x16, 3, 1, 0, 4, 1, 0, 0x3F, 0xF0][..], &[0x16, 3, 1, 0, 1, 0].repeat(10_000)].concat();
    for bytes in [&promised, &endless] {
        let mut client = connect(place.relay.tcp);
        // The relay may have closed it before everything was written.
        let _ = client.write_all(bytes);
        let _ = client.read_to_end(&mut Vec::new());
    }
    place.wait_for_tcp_ends(ConnectionEnd::ClientHelloTooLarge, 2);
    for bytes in [
        &[0x16, 2, 0][..],
        &[0x16, 3, 1, 0, 0],
        &[0x16, 3, 1, 0, 4, 2, 0, 0, 0],
        &[0x16, 3, 1, 0, 4, 1, 0, 0, 0],
    ] {
        let mut client = connect(place.relay.tcp);
        client.write_all(bytes).unwrap();
        let _ = client.read_to_end(&mut Vec::new());
    }
    place.relay.wait_for("malformed ones", |stats| {
        stats.sockets.streams.handshakes_failed[HandshakeFailure::NotTls] == 4
    });
    place.relay.wait_until_empty();
    place.relay.stop();
}

/// Until it is known what a connection is for, it holds little memory: one that is silent next to nothing, one with an unfinished
/// ClientHello what it has sent. The test runs in a process of its own to measure that.
#[test]
fn memory_of_undecided_connections_is_bounded() {
    if !alone("protocols::memory_of_undecided_connections_is_bounded") {
        return;
    }
    const COUNT: usize = 400;
    let place = Place::new("127.1.20.7", UnknownName::Default);
    let resident = || {
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.trim().trim_end_matches(" kB").parse::<usize>().unwrap() << 10
    };
    let open = |expected: u64| {
        place.relay.wait_for("they are open", |stats| stats.sockets.streams.open[0] == expected);
    };
    let per_connection = |bytes: &[u8], open: &dyn Fn(usize)| -> (usize, Vec<TcpStream>) {
        let before = resident();
        let sockets: Vec<_> = (0..COUNT).map(|_| connect(place.relay.tcp)).collect();
        sockets.iter().for_each(|mut socket| socket.write_all(bytes).unwrap());
        open(COUNT);
        (resident().saturating_sub(before) / COUNT, sockets)
    };
    // The first ones fill caches that later ones share.
    let warm_up = per_connection(b"", &|count| open(count as u64)).1;
    drop(warm_up);
    place.relay.wait_until_empty();
    let (silent, sockets) = per_connection(b"", &|count| open(count as u64));
    assert!(silent < 8 << 10, "{silent} bytes for a silent connection");
    drop(sockets);
    place.relay.wait_until_empty();
    // As much of a ClientHello as may be held, without its end.
    let hello = [&[0x16, 3, 1, 0x3F, 0xF0, 1, 0, 0x3F, 0xEC][..], &[0; 16_000]].concat();
    let begun = |_| sleep(Duration::from_secs(1));
    let (unfinished, sockets) = per_connection(&hello, &begun);
    assert!(unfinished < 40 << 10, "{unfinished} bytes for an unfinished ClientHello");
    drop(sockets);
    place.relay.wait_until_empty();
    place.relay.stop();
}

/// A connection that is closed or reset before it has sent a byte, as balancers do to test the port, is no failure.
#[test]
fn connections_without_a_byte_are_no_failures() {
    let place = Place::new("127.1.20.8", UnknownName::Default);
    let socket = |addr: SocketAddr| connect(addr);
    drop((socket(place.relay.tcp), socket(place.relay.tls)));
    place.relay.wait_for_ends(ConnectionEnd::NoBytes, [2, 0]);
    for addr in [place.relay.tcp, place.relay.tls] {
        socket2::SockRef::from(&socket(addr)).set_linger(Some(Duration::ZERO)).unwrap();
    }
    place.relay.wait_for_ends(ConnectionEnd::NoBytes, [4, 0]);
    let streams = place.relay.stats().sockets.streams;
    assert_eq!((streams.accepted, streams.handshakes_failed.sum()), ([4, 0], 0));
    place.relay.stop();
}
