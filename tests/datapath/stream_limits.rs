//! Limits and timeouts of connections, and isolation from clients that reach them.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, sleep};
use std::time::Duration;

use hairpin::datapath::stream::StreamLimits;
use hairpin::datapath::stream::stats::{AdmissionRefusal, ConnectionEnd, HandshakeFailure};
use hairpin::turn::{Lifetimes, Transport};
use hairpin::wire::{Class, Encoder, Method, TransactionId};
use socket2::{Domain, SockRef, Socket, Type};

use crate::client::{Client, ClientSocket, connect, padded_channel_message, tls, tls_config, tls_over};
use crate::world::{Relay, STREAMS, Setup, TIMEOUT, addr, alone, peer, receive, relay, setup};

const SOON: Duration = Duration::from_millis(300);

/// Reads until the server closes the connection; returns how many bytes it sent.
fn read_until_closed(mut socket: &TcpStream) -> usize {
    let mut bytes = Vec::new();
    match socket.read_to_end(&mut bytes) {
        Ok(len) => len,
        Err(error) => {
            assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
            bytes.len()
        }
    }
}

/// Slow clients: no handshake, no first message, a message that is never complete although bytes keep arriving, silence.
#[test]
fn timeouts() {
    let limits = StreamLimits {
        handshake_timeout: SOON,
        first_message_timeout: SOON,
        unfinished_message_timeout: SOON,
        idle_timeout: 3 * SOON,
        ..StreamLimits::default()
    };
    let relay = Relay::limited("127.1.8.1", limits);
    let mut unfinished = connect(relay.tls);
    unfinished.write_all(&[0x16, 3, 1]).unwrap();
    assert_eq!(read_until_closed(&unfinished), 0);
    relay.wait_for("the handshake times out", |stats| {
        stats.sockets.streams.handshakes_failed[HandshakeFailure::TooSlow] == 1
    });
    for transport in STREAMS {
        let mut silent = relay.client(transport);
        silent.assert_closed();

        let mut dripping = relay.client(transport);
        let request = dripping.request(Method::Binding, &[], &[]);
        dripping.send(&request);
        dripping.message();
        let software = vec![(0x8022, vec![0; 20_000])];
        let mut message = dripping.request(Method::Binding, &software, &[]).into_iter();
        let socket = dripping.tcp().try_clone().unwrap();
        socket.set_nonblocking(true).unwrap();
        let open = || !matches!(socket.peek(&mut [0]), Ok(0)) && socket.take_error().unwrap().is_none();
        let mut drips = 0;
        while drips < 500 && (open() || transport == Transport::Tls) {
            let byte = [message.next().unwrap()];
            let sent = match &mut dripping.socket {
                ClientSocket::Tcp(socket) => (&*socket).write(&byte).map(drop),
                ClientSocket::Tls(tls) => tls.write_all(&byte).and_then(|()| tls.flush()),
                ClientSocket::Udp(_) => unreachable!(),
            };
            if sent.is_err() {
                break;
            }
            drips += 1;
            sleep(Duration::from_millis(10));
        }
        assert!((20..500).contains(&drips), "{drips}");

        let mut idle = relay.client(transport);
        assert_eq!(idle.binding().code(), 0);
        idle.assert_closed();
    }
    relay.wait_for_ends(ConnectionEnd::NoMessage, [1, 1]);
    relay.wait_for_ends(ConnectionEnd::Unfinished, [1, 1]);
    relay.wait_for_ends(ConnectionEnd::Idle, [1, 1]);
    relay.wait_until_empty();
    relay.stop();
}

/// A client with an allocation may be silent; the idle timeout starts when the allocation ends.
#[test]
fn the_idle_timeout_starts_after_the_allocation() {
    let limits = StreamLimits { idle_timeout: SOON, ..StreamLimits::default() };
    let lifetimes = Lifetimes { allocation_lifetime: 2, max_allocation_lifetime: 2, ..Lifetimes::default() };
    let relay = Relay::start(Setup { lifetimes, connections: limits, ..setup("127.1.8.2") });
    let mut clients = STREAMS.map(|transport| relay.allocated(transport));
    sleep(Duration::from_secs(1));
    for client in &mut clients {
        assert_eq!(client.binding().code(), 0, "the stream is open");
    }
    for client in &mut clients {
        client.assert_closed();
    }
    relay.wait_for_ends(ConnectionEnd::Idle, [1, 1]);
    relay.stop();
}

/// Connects from this address.
fn from(ip: [u8; 4], server: SocketAddr) -> TcpStream {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::from((ip, 0)).into()).unwrap();
    socket.connect(&server.into()).unwrap();
    socket.set_read_timeout(Some(TIMEOUT)).unwrap();
    TcpStream::from(socket)
}

/// Connections without an allocation are limited per source, over both transports together. An allocation makes room, and
/// its end takes it again.
#[test]
fn limits_per_source() {
    let limits = StreamLimits { connections: 40, connections_per_source: 3, ..StreamLimits::default() };
    let relay = Relay::limited("127.1.8.3", limits);
    let mut open: Vec<_> = (0..3).map(|_| Client::over_tcp(relay.tcp)).collect();
    open.iter_mut().for_each(|client| assert_eq!(client.binding().code(), 0));
    assert_eq!(read_until_closed(&connect(relay.tcp)), 0);
    assert_eq!(read_until_closed(&connect(relay.tls)), 0, "also on the other port");
    let _elsewhere = from([127, 1, 9, 1], relay.tcp);
    assert_eq!(open[0].allocate(&[]).code(), 0);
    open.push(Client::over_tcp(relay.tcp));
    assert_eq!(open[3].binding().code(), 0);
    assert_eq!(open[0].refresh(0).code(), 0);
    assert_eq!(read_until_closed(&connect(relay.tcp)), 0, "four count");
    drop(open.pop());
    relay.wait_for_ends(ConnectionEnd::Client, [1, 0]);
    assert_eq!(read_until_closed(&connect(relay.tcp)), 0, "three count");
    drop(open.pop());
    relay.wait_for_ends(ConnectionEnd::Client, [2, 0]);
    assert_eq!(Client::over_tcp(relay.tcp).binding().code(), 0);
    relay.wait_for("refusals are counted", |stats| {
        let refused = stats.sockets.streams.refused;
        refused.map(|reasons| reasons[AdmissionRefusal::ConnectionsPerSource]) == [4, 0]
    });
    relay.stop();
}

/// One source has a quarter of all connections at most. At a full table the oldest connection of the busiest source makes room,
/// in its stages or after them; those with an allocation stay, and if there are no others, new ones are refused.
#[test]
fn nobody_locks_others_out() {
    for workers in [1, 2] {
        let limits = StreamLimits { connections: 8, ..StreamLimits::default() };
        let ip = if workers == 1 { "127.1.8.10" } else { "127.1.8.11" };
        let relay = Relay::start(Setup { connections: limits, workers, ..setup(ip) });
        let intruders: Vec<_> =
            (1..=4).flat_map(|n| [(); 2].map(|()| from([127, 1, 9, n], relay.tcp))).collect();
        relay.wait_for("all are open", |stats| stats.sockets.streams.open[0] == 8);
        assert_eq!(read_until_closed(&from([127, 1, 9, 1], relay.tcp)), 0, "a quarter is two");
        let request = Encoder::new(Class::Request, Method::Binding, TransactionId([7; 12])).finish();
        // Half of them have spoken, so workers have them; the others are in their stages.
        for mut intruder in intruders.iter().step_by(2) {
            intruder.write_all(&request).unwrap();
            intruder.read_exact(&mut [0; 32]).unwrap();
        }
        let mut clients: Vec<_> = (0..8)
            .map(|n| {
                let mut client = relay.client(STREAMS[n % 2]);
                assert_eq!(client.allocate(&[]).code(), 0, "client {n} gets in");
                client
            })
            .collect();
        intruders.iter().for_each(|intruder| assert!(read_until_closed(intruder) <= 100));
        relay.wait_for_ends(ConnectionEnd::Displaced, [8, 0]);
        assert_eq!(read_until_closed(&from([127, 1, 9, 9], relay.tcp)), 0, "all have allocations");
        clients.iter_mut().for_each(|client| assert_eq!(client.refresh(600).code(), 0));
        relay.wait_for("refusals are counted", |stats| {
            let refused = stats.sockets.streams.refused[0];
            (refused[AdmissionRefusal::ConnectionsPerSource], refused[AdmissionRefusal::Connections])
                == (1, 1)
        });
        relay.stop();
    }
}

/// 1,000 clients of one office connect at once, over TCP or TLS, and get their allocations.
#[test]
fn an_office_reconnects() {
    if !alone("stream_limits::an_office_reconnects") {
        return;
    }
    let relay = relay("127.1.8.12");
    let mut clients: Vec<_> = (0..1000).map(|_| Client::over_tcp(relay.tcp)).collect();
    clients.iter_mut().for_each(|client| assert_eq!(client.allocate(&[]).code(), 0));
    let connections: Vec<_> = (0..1000).map(|_| connect(relay.tls)).collect();
    assert_eq!(tls_over(&relay, connections.into_iter().next_back().unwrap()).binding().code(), 0);
    let refused = relay.stats().sockets.streams.refused;
    assert_eq!(refused.map(|reasons| reasons.sum()), [0, 0]);
    relay.stop();
}

/// Behind an exempt source are many clients.
#[test]
fn an_exempt_source() {
    let limits = StreamLimits { connections: 100, connections_per_source: 1, ..StreamLimits::default() };
    let exempt = vec!["127.0.0.1/32".parse().unwrap()];
    let relay = Relay::start(Setup { connections: limits, exempt, ..setup("127.1.8.13") });
    let mut clients: Vec<_> = (0..60).map(|_| Client::over_tcp(relay.tcp)).collect();
    clients.iter_mut().for_each(|client| assert_eq!(client.binding().code(), 0));
    let _one = from([127, 1, 9, 1], relay.tcp);
    assert_eq!(read_until_closed(&from([127, 1, 9, 1], relay.tcp)), 0);
    relay.stop();
}

/// RFC 8656 §12.7: when a client does not read, memory is bounded, whole data messages are dropped, later messages are intact,
/// and responses are not dropped.
#[test]
fn a_slow_reader() {
    let queue = 64 << 10;
    let relay = Relay::limited("127.1.8.4", StreamLimits { client_queue: queue, ..StreamLimits::default() });
    for (n, transport) in STREAMS.into_iter().enumerate() {
        let (mut client, peer) = (relay.allocated(transport), peer());
        SockRef::from(client.tcp()).set_recv_buffer_size(4096).unwrap();
        client.bind(0x4001, addr(&peer));
        let mut sent = 0u32;
        let payload = |sent: u32| {
            let mut payload = sent.to_be_bytes().to_vec();
            payload.resize(1000 + sent as usize % 7, sent as u8);
            payload
        };
        while relay.stats().sockets.streams.data_dropped[n] == 0 {
            for _ in 0..200 {
                peer.send_to(&payload(sent), client.relayed[0]).unwrap();
                sent += 1;
            }
            assert!(sent < 200_000, "the queue is bounded");
            sleep(Duration::from_millis(5));
        }
        let request = client.request(Method::Binding, &[], &[]);
        client.send(&request);
        let (mut last, mut responded, mut count) = (None, false, 0);
        client.tcp().set_read_timeout(Some(Duration::from_millis(500))).unwrap();
        while let Ok(message) = client.try_message() {
            let message = message.expect("the stream stays open");
            if message[0] < 0x40 {
                responded = true;
                assert_eq!(message[8..20], request[8..20]);
                continue;
            }
            let number = u32::from_be_bytes(message[4..8].try_into().unwrap());
            assert!(last.is_none_or(|last| last < number), "in order");
            assert_eq!(message, padded_channel_message(0x4001, &payload(number)), "whole");
            (last, count) = (Some(number), count + 1);
        }
        assert!(responded && count < sent, "{count} of {sent}");
        client.tcp().set_read_timeout(Some(TIMEOUT)).unwrap();
        for word in [&b"later"[..], b"messages", b"are intact"] {
            peer.send_to(word, client.relayed[0]).unwrap();
            assert_eq!(client.channel_data(), (0x4001, word.to_vec()));
        }
    }
    relay.stop();
}

/// A client whose kernel receives little before the client reads it.
fn small_client(relay: &Relay, transport: Transport) -> Client {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.set_recv_buffer_size(16 << 10).unwrap();
    socket.set_send_buffer_size(64 << 10).unwrap();
    socket.connect(&if transport == Transport::Tls { relay.tls } else { relay.tcp }.into()).unwrap();
    let socket = TcpStream::from(socket);
    socket.set_read_timeout(Some(TIMEOUT)).unwrap();
    if transport == Transport::Tls {
        tls_over(relay, socket)
    } else {
        Client::over_stream(ClientSocket::Tcp(socket))
    }
}

/// Sends requests until the relay has not read any for so many times [`SOON`], or has closed the connection; returns how many
/// and the rest of one.
fn ask_without_reading(client: &mut Client, patience: usize) -> (usize, Vec<u8>) {
    let request = Encoder::new(Class::Request, Method::Binding, TransactionId([7; 12])).finish();
    client.tcp().set_write_timeout(Some(SOON)).unwrap();
    let (mut written, len, mut stuck) = (0, request.len(), 0);
    while stuck < patience {
        let rest = &request[written % len..];
        let count = match &mut client.socket {
            ClientSocket::Tcp(socket) => socket.write(rest),
            // rustls takes what it is given, and writes it later if the socket is full.
            ClientSocket::Tls(tls) => {
                if tls.conn.wants_write() {
                    match tls.conn.write_tls(&mut tls.sock) {
                        Ok(_) => {
                            stuck = 0;
                            continue;
                        }
                        Err(error) => Err(error),
                    }
                } else {
                    tls.conn.writer().write(rest)
                }
            }
            ClientSocket::Udp(_) => unreachable!(),
        };
        match count {
            Ok(count) => (written, stuck) = (written + count, 0),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => stuck += 1,
            Err(_) => break,
        }
        assert!(written < 10_000_000, "the relay reads on");
    }
    client.tcp().set_write_timeout(Some(TIMEOUT)).unwrap();
    (written / len, request[written % len..].to_vec())
}

/// RFC 8489 §6.2.2: while responses cannot leave, requests are not read, so few responses wait. When the client reads, each
/// request gets its response, with and without an allocation, also if the client has closed its side by then.
#[test]
fn responses_that_are_not_read_yet() {
    let relay = relay("127.1.8.5");
    for (transport, allocated) in
        STREAMS.into_iter().flat_map(|transport| [(transport, false), (transport, true)])
    {
        let mut client = small_client(&relay, transport);
        if allocated {
            assert_eq!(client.allocate(&[]).code(), 0);
        }
        let answered = |relay: &Relay| relay.stats().turn.responses[0][0];
        // Until the responses to the client before are published.
        sleep(SOON);
        let before = answered(&relay);
        let (count, _rest) = ask_without_reading(&mut client, 5);
        sleep(SOON);
        let waiting = 32 * (answered(&relay) - before);
        // A few in queues here, 32 KiB in the kernel, and what the client's kernel has received.
        let bound = if allocated { 256 << 10 } else { 128 << 10 };
        assert!(waiting < bound, "{waiting} bytes of responses wait: {transport:?}, {allocated}");
        assert!(count as u64 > waiting / 32, "{count} requests, of which some wait");
        let mut responses = Vec::new();
        while responses.len() < 32 * count {
            read_only(&mut client, &mut responses);
        }
        assert!(responses.chunks(32).all(|response| response.starts_with(&[1, 1])));
        assert_eq!(responses.len(), 32 * count);
        drop(client);
    }
    relay.wait_until_empty();
    relay.stop();
}

/// Reads without waiting until everything is written, as rustls would do.
fn read_only(client: &mut Client, bytes: &mut Vec<u8>) {
    let mut buffer = [0; 1 << 16];
    let len = match &mut client.socket {
        ClientSocket::Tcp(socket) => socket.read(&mut buffer).unwrap(),
        ClientSocket::Tls(tls) => {
            tls.sock.set_nonblocking(true).unwrap();
            while tls.conn.wants_write() && tls.conn.write_tls(&mut tls.sock).is_ok() {}
            tls.sock.set_nonblocking(false).unwrap();
            assert!(tls.conn.read_tls(&mut tls.sock).unwrap() > 0);
            tls.conn.process_new_packets().unwrap();
            match tls.conn.reader().read(&mut buffer) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => 0,
                read => read.unwrap(),
            }
        }
        ClientSocket::Udp(_) => unreachable!(),
    };
    bytes.extend_from_slice(&buffer[..len]);
}

/// A client that asks and never reads is disconnected in the end. Its allocation is not refreshed, so that ends, too.
#[test]
fn responses_that_are_never_read() {
    let limits = StreamLimits { idle_timeout: 2 * SOON, ..StreamLimits::default() };
    let lifetimes = Lifetimes { allocation_lifetime: 2, max_allocation_lifetime: 2, ..Lifetimes::default() };
    let relay = Relay::start(Setup { lifetimes, connections: limits, ..setup("127.1.8.14") });
    for transport in STREAMS {
        for allocated in [false, true] {
            let mut client = if allocated { relay.allocated(transport) } else { relay.client(transport) };
            ask_without_reading(&mut client, 100);
        }
        let n = usize::from(transport == STREAMS[1]);
        relay.wait_for("both are closed", |stats| {
            stats.sockets.streams.closed[n][ConnectionEnd::NotRead] == 2
        });
    }
    relay.wait_until_empty();
    relay.stop();
}

/// RFC 8656 §12.7: a client whose data cannot leave gets the responses to its requests behind it, and keeps its allocation.
#[test]
fn responses_behind_data_that_is_not_read_yet() {
    let relay = relay("127.1.8.15");
    for (n, transport) in STREAMS.into_iter().enumerate() {
        let (mut client, peer) = (relay.allocated(transport), peer());
        SockRef::from(client.tcp()).set_recv_buffer_size(4096).unwrap();
        client.bind(0x4001, addr(&peer));
        while relay.stats().sockets.streams.data_dropped[n] == 0 {
            (0..200).for_each(|_| assert!(peer.send_to(&[7; 1000], client.relayed[0]).is_ok()));
            sleep(Duration::from_millis(2));
        }
        let requests: Vec<_> = (0..300).map(|_| client.request(Method::Refresh, &[], &[])).collect();
        client.send(&requests.concat());
        sleep(SOON);
        let mut responses = requests.iter();
        while responses.len() > 0 {
            let message = client.message();
            if message[0] < 0x40 {
                assert_eq!(message[8..20], responses.next().unwrap()[8..20]);
            }
        }
        client.send(&padded_channel_message(0x4001, b"still here"));
        assert_eq!(receive(&peer).0, b"still here");
    }
    relay.stop();
}

/// A flood of handshakes affects neither calls over UDP and TCP nor new connections.
#[test]
fn a_flood_of_handshakes_does_not_affect_calls() {
    let relay = relay("127.1.8.6");
    let peer = peer();
    let mut calls = [relay.client(Transport::Udp), relay.client(Transport::Tcp)];
    for call in &mut calls {
        assert_eq!(call.allocate(&[]).code(), 0);
        call.bind(0x4001, addr(&peer));
    }
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    let _ = tls(&relay, tls_config(&relay, &rustls::version::TLS13));
                }
            });
        }
        scope.spawn(|| {
            // These handshakes are never completed.
            let mut half: Vec<TcpStream> = Vec::new();
            while !stop.load(Ordering::Relaxed) {
                half.push(TcpStream::connect(relay.tls).unwrap());
                let _ = half.last().unwrap().write_all(&[0x16, 3, 1, 2, 0]);
                half.truncate(100);
                sleep(Duration::from_millis(5));
            }
        });
        for n in 0..500u32 {
            for call in &mut calls {
                call.send(&padded_channel_message(0x4001, &n.to_be_bytes()));
                assert_eq!(receive(&peer).0, n.to_be_bytes());
                peer.send_to(&n.to_be_bytes(), call.relayed[0]).unwrap();
                assert_eq!(call.channel_data().1, n.to_be_bytes());
            }
        }
        let mut later = relay.client(Transport::Tls);
        assert_eq!(later.binding().code(), 0);
        stop.store(true, Ordering::Relaxed);
    });
    let accepted = relay.stats().sockets.streams.accepted[1];
    assert!(accepted > 10, "handshakes are accepted: {accepted}");
    relay.stop();
}

/// Many clients send more than one pass of the worker reads; each of them gets all of its responses.
#[test]
fn busy_clients_take_turns() {
    const REQUESTS: usize = 1200;
    let relay = relay("127.1.8.9");
    let request = Encoder::new(Class::Request, Method::Binding, TransactionId([7; 12])).finish();
    let requests = request.repeat(REQUESTS);
    thread::scope(|scope| {
        for _ in 0..12 {
            scope.spawn(|| {
                let mut client = relay.client(Transport::Tcp);
                client.send(&requests);
                (0..REQUESTS).for_each(|_| assert!(client.message().starts_with(&[1, 1])));
            });
        }
    });
    relay.stop();
}

/// Waiting connections use no CPU time: half-open and idle ones, slow readers, and half-closed slow readers. The test runs in a
/// process of its own to measure its CPU time.
#[test]
fn waiting_uses_no_cpu_time() {
    if !alone("stream_limits::waiting_uses_no_cpu_time") {
        return;
    }
    let relay =
        Relay::limited("127.1.8.8", StreamLimits { client_queue: 64 << 10, ..StreamLimits::default() });
    let _half_open =
        (connect(relay.tcp), connect(relay.tls), STREAMS.map(|transport| relay.client(transport)));
    let mut slow: Vec<_> =
        STREAMS.repeat(2).into_iter().map(|transport| relay.allocated(transport)).collect();
    let peer = peer();
    for (n, client) in slow.iter_mut().enumerate() {
        SockRef::from(client.tcp()).set_recv_buffer_size(4096).unwrap();
        client.bind(0x4001, addr(&peer));
        let dropped = |relay: &Relay| relay.stats().sockets.streams.data_dropped[n % 2];
        let before = dropped(&relay);
        while dropped(&relay) == before {
            (0..100).for_each(|_| assert!(peer.send_to(&[7; 1000], client.relayed[0]).is_ok()));
            sleep(Duration::from_millis(2));
        }
    }
    slow[2].end_sending();
    slow[3].end_sending();
    relay.wait_for("half-closed connections linger", |stats| stats.turn.allocations == 2);
    let used = || -> u64 {
        let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
        let fields: Vec<_> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
        fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
    };
    let before = used();
    sleep(Duration::from_secs(1));
    // In hundredths of a second; a busy loop would use 100.
    let used = used() - before;
    assert!(used < 20, "{used} %");
    assert_eq!(relay.stats().sockets.streams.open, [5, 3], "all connections are still open");
    relay.stop();
}

/// Without free file descriptors, connections wait in the backlog and the worker continues, without a busy loop; later they are
/// served. The test uses all file descriptors, so it runs in a process of its own.
#[test]
fn file_descriptors_run_out() {
    if !alone("stream_limits::file_descriptors_run_out") {
        return;
    }
    let relay = relay("127.1.8.7");
    let (mut call, peer) = (relay.allocated(Transport::Tcp), peer());
    call.bind(0x4001, addr(&peer));
    let mut waiting: Vec<_> =
        (0..4).map(|_| Socket::new(Domain::IPV4, Type::STREAM, None).unwrap()).collect();
    let mut taken: Vec<OwnedFd> = Vec::new();
    while let Ok(one) = peer.as_fd().try_clone_to_owned() {
        taken.push(one);
        assert!(taken.len() < 2_000_000, "file descriptors are limited");
    }
    for (n, socket) in waiting.iter_mut().enumerate() {
        socket.connect(&if n % 2 == 0 { relay.tcp } else { relay.tls }.into()).unwrap();
    }
    relay.wait_for("accepting pauses", |stats| stats.sockets.streams.accept_paused >= 2);
    let before = relay.stats().sockets.streams.accept_paused;
    for n in 0..50u32 {
        call.send(&padded_channel_message(0x4001, &n.to_be_bytes()));
        assert_eq!(receive(&peer).0, n.to_be_bytes());
        sleep(Duration::from_millis(10));
    }
    let pauses = relay.stats().sockets.streams.accept_paused - before;
    assert!(pauses < 50, "a busy loop: {pauses} pauses in half a second");
    drop(taken);
    let socket = TcpStream::from(waiting.swap_remove(0));
    socket.set_read_timeout(Some(TIMEOUT)).unwrap();
    let mut client = Client::over_stream(ClientSocket::Tcp(socket));
    assert_eq!(client.binding().code(), 0, "the connection waited in the backlog");
    assert_eq!(relay.client(Transport::Tls).binding().code(), 0);
    relay.stop();
}
