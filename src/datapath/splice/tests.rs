//! Connections to backends on loopback, from the hand-over to the end.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use rcgen::{CertifiedKey, generate_simple_self_signed};
use rustls::pki_types::{PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, ServerConfig, ServerConnection, StreamOwned};
use sha2::{Digest, Sha256};
use socket2::{Domain, SockRef, Socket, Type};
use tokio::time::Instant;

use super::backend::Backend;
use super::limits::SpliceLimits;
use super::request::{Splice, SpliceRequest};
use super::splicer::Splicer;
use super::stats::{BackendHealth, BackendStats, SpliceEnd, SpliceFailure};
use crate::datapath::stream::admission::ConnectionId;
use crate::turn::{ClientAddr, ExemptSources};

/// How long anything may take that happens at once on an idle machine.
const PATIENCE: Duration = Duration::from_secs(60);

const MEGABYTE: usize = 1 << 20;

/// A splicer, one backend, and a listener for its clients.
struct World {
    splicer: Arc<Splicer>,
    backend: Backend,
    server: TcpListener,
    clients: TcpListener,
}

impl World {
    fn new(limits: SpliceLimits) -> World {
        let server = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = server.local_addr().unwrap().port();
        let backend = Backend { host: "127.0.0.1".into(), port, send_proxy: false };
        World::to(backend, server, limits)
    }

    fn to(backend: Backend, server: TcpListener, limits: SpliceLimits) -> World {
        let splicer = Splicer::new(limits, ExemptSources::default());
        splicer.apply(limits, ExemptSources::default(), [&backend].into_iter());
        World { splicer, backend, server, clients: TcpListener::bind("127.0.0.1:0").unwrap() }
    }

    /// A new client, and the socket of its connection on this side.
    fn client(&self) -> (TcpStream, TcpStream) {
        let client = TcpStream::connect(self.clients.local_addr().unwrap()).unwrap();
        let (accepted, _) = self.clients.accept().unwrap();
        [&client, &accepted].into_iter().for_each(|socket| socket.set_read_timeout(Some(PATIENCE)).unwrap());
        (client, accepted)
    }

    fn splice(&self, socket: TcpStream, tls: Option<Box<ServerConnection>>, received: &[u8]) {
        socket.set_nonblocking(true).unwrap();
        let splice = Splice {
            backend: self.backend.clone(),
            client: ClientAddr(socket.peer_addr().unwrap()),
            server: socket.local_addr().unwrap(),
            connection: ConnectionId(7),
        };
        self.splicer.splice(SpliceRequest { socket, tls, received: received.to_vec(), splice });
    }

    /// A client without TLS whose connection is handed over after these bytes.
    fn plain(&self, received: &[u8]) -> TcpStream {
        let (client, accepted) = self.client();
        self.splice(accepted, None, received);
        client
    }

    /// A client without TLS at this address.
    fn plain_from(&self, source: [u8; 4]) -> TcpStream {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        socket.bind(&SocketAddr::from((source, 0)).into()).unwrap();
        socket.connect(&self.clients.local_addr().unwrap().into()).unwrap();
        let client = TcpStream::from(socket);
        client.set_read_timeout(Some(PATIENCE)).unwrap();
        let (accepted, _) = self.clients.accept().unwrap();
        self.splice(accepted, None, b"");
        client
    }

    /// A client whose TLS ends here.
    fn tls(&self, received: &[u8]) -> StreamOwned<ClientConnection, TcpStream> {
        let (client, mut accepted) = self.client();
        let (server_config, client_config) = tls_configs();
        let session =
            ClientConnection::new(client_config, ServerName::try_from("a.example").unwrap()).unwrap();
        let mut client = StreamOwned::new(session, client);
        let handshake = thread::spawn(move || {
            let mut session = ServerConnection::new(server_config).unwrap();
            while session.is_handshaking() {
                session.complete_io(&mut accepted).unwrap();
            }
            (accepted, session)
        });
        while client.conn.is_handshaking() {
            client.conn.complete_io(&mut client.sock).unwrap();
        }
        let (accepted, session) = handshake.join().unwrap();
        self.splice(accepted, Some(Box::new(session)), received);
        client
    }

    fn accept(&self) -> TcpStream {
        // It bounds accept(2), too.
        SockRef::from(&self.server).set_read_timeout(Some(PATIENCE)).unwrap();
        let (socket, _) = self.server.accept().unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket
    }

    fn stats(&self) -> BackendStats {
        self.splicer.stats().backends.remove(0)
    }

    fn ended(&self, why: SpliceEnd) {
        eventually(|| self.stats().closed[why] == 1 && self.stats().closed.sum() == 1);
        eventually(|| self.splicer.stats().connections == 0);
        assert_eq!(self.stats().open, 0);
    }
}

fn eventually(is: impl Fn() -> bool) {
    let since = Instant::now();
    while !is() {
        assert!(since.elapsed() < PATIENCE, "it does not happen");
        thread::sleep(Duration::from_millis(5));
    }
}

fn limits() -> SpliceLimits {
    SpliceLimits { connect_timeout: Duration::from_secs(5), ..SpliceLimits::default() }
}

fn tls_configs() -> (Arc<ServerConfig>, Arc<ClientConfig>) {
    let CertifiedKey { cert, signing_key } = generate_simple_self_signed(["a.example".into()]).unwrap();
    let key = PrivateKeyDer::try_from(signing_key.serialize_der()).unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(cert.der().clone()).unwrap();
    let server = ServerConfig::builder().with_no_client_auth();
    let server = server.with_single_cert(vec![cert.der().clone()], key).unwrap();
    let client = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
    (Arc::new(server), Arc::new(client))
}

/// Bytes that differ everywhere.
fn bytes(seed: u8, len: usize) -> Vec<u8> {
    (0..len).map(|n| (n.wrapping_mul(31) >> 3) as u8 ^ seed ^ (n >> 11) as u8).collect()
}

fn digest(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Everything until the end, or the error.
fn read_all(mut from: impl Read) -> (Vec<u8>, io::Result<()>) {
    let mut bytes = Vec::new();
    let result = from.read_to_end(&mut bytes).map(drop);
    (bytes, result)
}

fn reset(socket: TcpStream) {
    SockRef::from(&socket).set_linger(Some(Duration::ZERO)).unwrap();
}

fn is_reset(result: io::Result<()>) -> bool {
    result.is_err_and(|error| error.kind() == ErrorKind::ConnectionReset)
}

/// What splice(2) moves and what is copied is the same, in both directions at once.
#[test]
fn ten_megabytes_each_way_arrive_as_they_were_sent() {
    for copies in [false, true] {
        let world = World::new(limits());
        if copies {
            world.splicer.pools().never_splice();
        }
        let (up, down) = (bytes(1, 10 * MEGABYTE), bytes(2, 10 * MEGABYTE));
        let client = world.plain(&up[..1000]);
        let server = world.accept();
        thread::scope(|scope| {
            scope.spawn(|| {
                (&server).write_all(&down).unwrap();
                server.shutdown(Shutdown::Write).unwrap();
            });
            let received = scope.spawn(|| read_all(&server));
            let answered = scope.spawn(|| read_all(&client));
            (&client).write_all(&up[1000..]).unwrap();
            client.shutdown(Shutdown::Write).unwrap();
            for (thread, sent) in [(received, &up), (answered, &down)] {
                let (got, end) = thread.join().unwrap();
                assert_eq!((digest(&got), end.is_ok()), (digest(sent), true), "copies: {copies}");
            }
        });
        world.ended(SpliceEnd::Finished);
        let BackendStats { to_backend, to_client, total, health, .. } = world.stats();
        assert_eq!((to_backend, to_client, total), (up.len() as u64, down.len() as u64, 1));
        assert_eq!((health, world.splicer.pools().are_used()), (BackendHealth::Up, false));
    }
}

/// A TLS client closes its direction with close_notify, and gets a response after that.
#[test]
fn ten_megabytes_each_way_through_tls() {
    let world = World::new(limits());
    let (up, down) = (bytes(1, 10 * MEGABYTE), bytes(2, 10 * MEGABYTE));
    let mut client = world.tls(&up[..1000]);
    let server = world.accept();
    thread::scope(|scope| {
        let received = scope.spawn(|| {
            let received = read_all(&server);
            (&server).write_all(&down).unwrap();
            server.shutdown(Shutdown::Write).unwrap();
            received
        });
        client.write_all(&up[1000..]).unwrap();
        client.conn.send_close_notify();
        client.flush().unwrap();
        let (answered, end) = read_all(&mut client);
        assert_eq!((digest(&answered), end.is_ok()), (digest(&down), true), "close_notify has come");
        let (received, end) = received.join().unwrap();
        assert_eq!((digest(&received), end.is_ok()), (digest(&up), true));
    });
    world.ended(SpliceEnd::Finished);
    let BackendStats { to_backend, to_client, .. } = world.stats();
    assert_eq!((to_backend, to_client), (up.len() as u64, down.len() as u64));
}

/// The other direction goes on after one side has closed its own.
#[test]
fn a_half_close_is_carried_over_in_both_directions() {
    let world = World::new(limits());
    let mut client = world.plain(b"GET / HTTP/1.0\r\n\r\n");
    client.shutdown(Shutdown::Write).unwrap();
    let mut server = world.accept();
    assert_eq!(read_all(&server).0, b"GET / HTTP/1.0\r\n\r\n");
    server.write_all(b"late").unwrap();
    let mut four = [0; 4];
    client.read_exact(&mut four).unwrap();
    drop(server);
    assert_eq!(read_all(&client).0, b"");
    world.ended(SpliceEnd::Finished);

    let world = World::new(limits());
    let mut client = world.plain(b"");
    let server = world.accept();
    server.shutdown(Shutdown::Write).unwrap();
    assert_eq!(read_all(&client).0, b"");
    client.write_all(b"late").unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    assert_eq!(read_all(&server).0, b"late");
    world.ended(SpliceEnd::Finished);

    let world = World::new(limits());
    let mut client = world.tls(b"");
    let server = world.accept();
    server.shutdown(Shutdown::Write).unwrap();
    let (got, end) = read_all(&mut client);
    assert_eq!((got, end.is_ok()), (Vec::new(), true), "close_notify");
    client.write_all(b"late").unwrap();
    client.conn.send_close_notify();
    client.flush().unwrap();
    assert_eq!(read_all(&server).0, b"late");
    world.ended(SpliceEnd::Finished);
}

/// A reset is carried over, after what was sent before it.
#[test]
fn a_reset_is_no_orderly_end() {
    for size in [1000, 100_000] {
        let sent = bytes(3, size);
        let world = World::new(limits());
        let client = world.plain(b"");
        let mut server = world.accept();
        server.write_all(&sent).unwrap();
        eventually(|| world.stats().to_client == size as u64);
        reset(server);
        let (got, end) = read_all(&client);
        assert_eq!((got == sent, is_reset(end)), (true, true), "{size}");
        world.ended(SpliceEnd::BackendReset);

        let world = World::new(limits());
        let mut client = world.plain(b"");
        let server = world.accept();
        client.write_all(&sent).unwrap();
        eventually(|| world.stats().to_backend == size as u64);
        reset(client);
        let (got, end) = read_all(&server);
        assert_eq!((got == sent, is_reset(end)), (true, true), "{size}");
        world.ended(SpliceEnd::ClientReset);
    }
}

/// A server that answers and closes without reading the rest of the request resets the connection; its answer arrives.
#[test]
fn an_answer_before_a_reset_is_delivered() {
    let world = World::new(limits());
    let mut client = world.plain(b"POST / HTTP/1.1\r\n\r\n");
    let mut server = world.accept();
    server.write_all(b"HTTP/1.1 413 Too Large\r\n\r\n").unwrap();
    client.write_all(&bytes(4, 100_000)).unwrap();
    eventually(|| world.stats().to_backend > 50_000);
    drop(server);
    let got = read_all(&client).0;
    assert_eq!(got, b"HTTP/1.1 413 Too Large\r\n\r\n");
    eventually(|| world.stats().closed.sum() == 1);
}

/// RFC 8446 §6.1: without close_notify, bytes may be missing, so the backend is not told that the client has finished.
#[test]
fn a_tls_client_that_goes_without_close_notify_has_not_finished() {
    let world = World::new(limits());
    let mut client = world.tls(b"");
    let server = world.accept();
    client.write_all(b"half of a request").unwrap();
    client.sock.shutdown(Shutdown::Write).unwrap();
    let (got, end) = read_all(&server);
    assert_eq!((&got[..], is_reset(end)), (&b"half of a request"[..], true));
    world.ended(SpliceEnd::Truncated);
}

/// The backend resets while a TLS client waits: the client sees no orderly end.
#[test]
fn a_tls_client_sees_no_close_notify_after_a_reset() {
    let world = World::new(limits());
    let mut client = world.tls(b"");
    let mut server = world.accept();
    server.write_all(b"half of an answer").unwrap();
    eventually(|| world.stats().to_client == 17);
    reset(server);
    let (got, end) = read_all(&mut client);
    assert_eq!((&got[..], end.is_err()), (&b"half of an answer"[..], true));
    world.ended(SpliceEnd::BackendReset);
}

#[test]
fn bytes_that_are_not_tls_end_the_connection() {
    let world = World::new(limits());
    let mut client = world.tls(b"");
    let server = world.accept();
    client.sock.write_all(&[0x17, 3, 3, 0, 5, 1, 2, 3, 4, 5]).unwrap();
    assert!(is_reset(read_all(&server).1));
    let end = read_all(&mut client).1;
    assert!(end.is_err_and(|error| error.kind() == ErrorKind::InvalidData), "the client gets an alert");
    world.ended(SpliceEnd::Tls);
}

/// A backend that cannot be reached closes that connection alone, and health says since when.
#[test]
fn a_backend_that_cannot_be_reached() {
    let limits = SpliceLimits { connect_timeout: Duration::from_millis(500), ..limits() };
    let world = World::new(limits);
    let World { splicer, backend, server, clients } = world;
    let address = server.local_addr().unwrap();
    drop(server);
    let unused = TcpListener::bind("127.0.0.1:0").unwrap();
    let world = World { splicer, backend, server: unused, clients };
    assert_eq!(read_all(world.plain(b"hello")).0, b"");
    eventually(|| world.stats().failed[SpliceFailure::Refused] == 1);
    let BackendHealth::Failing { error, .. } = world.stats().health else { panic!("{:?}", world.stats()) };
    assert!(error.starts_with(&format!("{address}: Connection refused")), "{error}");
    // It starts, and nobody connects to it.
    let server = TcpListener::bind(address).unwrap();
    eventually(|| world.stats().health == BackendHealth::Up);
    server.accept().unwrap();
    let World { splicer, backend, clients, .. } = world;
    let world = World { splicer, backend, server, clients };
    let _client = world.plain(b"hello");
    world.accept();
    eventually(|| world.stats().total == 1);

    // Its queue is full, and nobody accepts.
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.bind(&"127.0.0.1:0".parse::<SocketAddr>().unwrap().into()).unwrap();
    socket.listen(0).unwrap();
    let full = TcpListener::from(socket);
    let address = full.local_addr().unwrap();
    let mut waiting = Vec::new();
    while let Ok(one) = TcpStream::connect_timeout(&address, Duration::from_millis(200)) {
        waiting.push(one);
    }
    let backend = Backend { host: "127.0.0.1".into(), port: address.port(), send_proxy: false };
    let world = World::to(backend, full, limits);
    assert_eq!(read_all(world.plain(b"hello")).0, b"");
    eventually(|| world.stats().failed[SpliceFailure::Timeout] == 1);

    let backend = Backend { host: "nowhere.invalid".into(), port: 1, send_proxy: false };
    let world = World::to(backend, TcpListener::bind("127.0.0.1:0").unwrap(), limits);
    assert_eq!(read_all(world.plain(b"hello")).0, b"");
    eventually(|| world.stats().failed[SpliceFailure::Unresolved] == 1);
    let BackendHealth::Failing { error, .. } = world.stats().health else { panic!("{:?}", world.stats()) };
    assert!(error.starts_with("nowhere.invalid: "), "{error}");
}

/// Every address of a name is tried: localhost often begins with ::1.
#[test]
fn a_name_is_resolved_and_all_its_addresses_are_tried() {
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = server.local_addr().unwrap().port();
    let backend = Backend { host: "localhost".into(), port, send_proxy: true };
    let world = World::to(backend, server, limits());
    let client = world.plain(b"hello");
    let ends = (client.local_addr().unwrap(), client.peer_addr().unwrap());
    client.shutdown(Shutdown::Write).unwrap();
    let got = read_all(world.accept()).0;
    let mut header = Vec::new();
    crate::wire::ProxyHeader::write_v2(ends.0, ends.1, &mut header);
    assert_eq!(got, [&header[..], b"hello"].concat());
    assert_eq!(world.stats().to_backend, 5, "the header is none of the client's bytes");
}

/// A name may lead to a listener of this relay, which no check of the configuration sees: the second pass through it is refused.
#[test]
fn a_backend_that_leads_back_here_is_no_endless_loop() {
    for send_proxy in [false, true] {
        let clients = TcpListener::bind("127.0.0.1:0").unwrap();
        let backend =
            Backend { host: "localhost".into(), port: clients.local_addr().unwrap().port(), send_proxy };
        let world = World::to(backend, TcpListener::bind("127.0.0.1:0").unwrap(), limits());
        let World { splicer, backend, server, .. } = world;
        let world = World { splicer, backend, server, clients };
        let client = world.plain(b"hello");
        // Routed by what came, as by the stages
        let (mut again, _) = world.clients.accept().unwrap();
        again.read_exact(&mut [0; 5]).unwrap();
        world.splice(again, None, b"hello");
        assert!(is_reset(read_all(&client).1));
        assert_eq!((world.stats().failed[SpliceFailure::Loop], world.stats().total), (1, 1));
        world.ended(SpliceEnd::BackendReset);
        assert_eq!(world.stats().health, BackendHealth::Up);
    }
}

/// Neither one source nor one backend takes all connections, and what is refused is closed at once.
#[test]
fn connections_are_bounded_per_source_and_in_total() {
    let world = World::new(SpliceLimits { connections_per_source: 3, ..limits() });
    let held: Vec<_> = (0..3).map(|_| (world.plain(b""), world.accept())).collect();
    assert_eq!(read_all(world.plain(b"")).0, b"");
    assert_eq!(world.stats().failed[SpliceFailure::Limit], 1);
    assert_eq!(world.splicer.stats().connections, 3);
    drop(held);
    eventually(|| world.splicer.stats().connections == 0);
    let _next = (world.plain(b""), world.accept());

    // No source has more than a quarter, and at a full table the oldest of the busiest source makes room.
    let world = World::new(SpliceLimits { connections: 4, ..limits() });
    let mut held = Vec::new();
    for n in 1..=5 {
        held.push((world.plain_from([127, 0, 0, n]), world.accept()));
        eventually(|| world.stats().total == u64::from(n));
    }
    eventually(|| world.stats().closed[SpliceEnd::Displaced] == 1);
    eventually(|| world.splicer.stats().connections == 4);
    assert_eq!(read_all(world.plain_from([127, 0, 0, 5])).0, b"");
    assert_eq!(world.stats().failed[SpliceFailure::Limit], 1);
}

/// Any byte in either direction counts; one side that has closed its direction leaves the other the same time.
#[test]
fn silent_connections_end() {
    let idle_timeout = Duration::from_millis(1500);
    let world = World::new(SpliceLimits { idle_timeout, ..limits() });
    let (mut client, mut server) = (world.plain(b""), world.accept());
    let began = Instant::now();
    while began.elapsed() < 2 * idle_timeout {
        client.write_all(b"x").unwrap();
        server.read_exact(&mut [0]).unwrap();
        thread::sleep(Duration::from_millis(50));
    }
    assert!(is_reset(read_all(&client).1) && is_reset(read_all(&server).1));
    world.ended(SpliceEnd::Idle);

    let world = World::new(SpliceLimits { idle_timeout, ..limits() });
    let (client, server) = (world.plain(b""), world.accept());
    server.shutdown(Shutdown::Write).unwrap();
    assert_eq!(read_all(&client).0, b"");
    assert!(is_reset(read_all(&server).1));
    world.ended(SpliceEnd::HalfClosed);
}

/// The end of a direction starts the clock anew: a response to the last request of a connection that was at rest has its time.
#[test]
fn a_direction_that_ends_leaves_the_other_its_whole_time() {
    let world = World::new(SpliceLimits { idle_timeout: Duration::from_millis(4000), ..limits() });
    let (mut client, mut server) = (world.plain(b""), world.accept());
    thread::sleep(Duration::from_millis(3000));
    client.shutdown(Shutdown::Write).unwrap();
    assert_eq!(read_all(&server).0, b"");
    thread::sleep(Duration::from_millis(1500));
    server.write_all(b"late").unwrap();
    client.read_exact(&mut [0; 4]).unwrap();
    drop(server);
    assert_eq!(read_all(&client).0, b"");
    world.ended(SpliceEnd::Finished);
}

/// A client that reads nothing stops its backend: at most one buffer or pipe of each direction is filled here.
#[test]
fn slow_readers_hold_little() {
    const CLIENTS: usize = 300;
    let world = World::new(limits());
    let held: Vec<_> = (0..CLIENTS).map(|_| (world.plain(b""), world.accept())).collect();
    let sent = bytes(5, MEGABYTE);
    for (_, server) in &held {
        server.set_nonblocking(true).unwrap();
    }
    // Until no backend gets rid of anything for a while.
    let mut quiet = Instant::now();
    while quiet.elapsed() < Duration::from_millis(500) {
        for (_, server) in &held {
            if (&*server).write(&sent).is_ok() {
                quiet = Instant::now();
            }
        }
    }
    let (buffers, pipes) = world.splicer.pools().in_use();
    assert!(buffers + pipes <= CLIENTS && pipes <= SpliceLimits::PIPES, "{buffers} buffers, {pipes} pipes");
    drop(held);
    eventually(|| world.splicer.stats().connections == 0);
    assert!(!world.splicer.pools().are_used());
}

/// What is decrypted of a TLS client's upload and not written yet belongs to a buffer, of which there is a bounded number.
#[test]
fn slow_backends_of_tls_clients_hold_little() {
    const CLIENTS: usize = 8;
    let world = World::new(limits());
    let mut held: Vec<_> = (0..CLIENTS).map(|_| (world.tls(b""), world.accept())).collect();
    let sent = bytes(6, MEGABYTE);
    for (client, _) in &held {
        client.sock.set_nonblocking(true).unwrap();
    }
    let mut quiet = Instant::now();
    while quiet.elapsed() < Duration::from_millis(1000) {
        for (client, _) in &mut held {
            if client.write(&sent).is_ok() {
                quiet = Instant::now();
            }
        }
    }
    let (buffers, _) = world.splicer.pools().in_use();
    assert!((1..=CLIENTS).contains(&buffers), "{buffers} buffers");
    drop(held);
    eventually(|| world.splicer.stats().connections == 0);
    assert!(!world.splicer.pools().are_used());
}

/// Connections end with the process, and no cut one looks like an orderly end.
#[test]
fn a_stop_resets_every_connection() {
    let world = World::new(limits());
    let held: Vec<_> = (0..20).map(|_| (world.plain(b"x"), world.accept())).collect();
    for (_, server) in &held {
        (&*server).read_exact(&mut [0]).unwrap();
    }
    world.splicer.stop();
    for (client, server) in &held {
        assert!(is_reset(read_all(client).1) && is_reset(read_all(server).1));
    }
    assert_eq!(world.splicer.stats().connections, 0);
    assert_eq!(read_all(world.plain(b"")).0, b"", "none begins any more");
    world.splicer.stop();
}

/// A backend that is removed from the configuration keeps its connections.
#[test]
fn a_reload_leaves_running_connections_alone() {
    let world = World::new(limits());
    let (mut client, mut server) = (world.plain(b""), world.accept());
    world.splicer.apply(limits(), ExemptSources::default(), [].into_iter());
    client.write_all(b"still here").unwrap();
    server.read_exact(&mut [0; 10]).unwrap();
    assert_eq!(world.stats().open, 1);
    drop((client, server));
    eventually(|| world.splicer.stats().backends.is_empty());
}
