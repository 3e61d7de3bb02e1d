//! Bounds and deadlines: who asks too much or says too little, and what others notice of it.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, sleep};
use std::time::Duration;

use hairpin::datapath::stream::StreamLimits;
use hairpin::datapath::stream::stats::{AdmissionRefusal, ConnectionEnd, HandshakeFailure};
use hairpin::turn::{Lifetimes, Transport};
use hairpin::wire::{Class, Encoder, Method, TransactionId};
use socket2::{Domain, SockRef, Socket, Type};

use crate::client::{Client, Stream, channel_message, connect, tls, tls_config};
use crate::world::{BOTH, Relay, alone, peer, receive, relay};

const SOON: Duration = Duration::from_millis(300);

/// Whatever the server sends, until it closes.
fn until_closed(mut socket: &TcpStream) -> usize {
    let mut bytes = Vec::new();
    match socket.read_to_end(&mut bytes) {
        Ok(len) => len,
        Err(error) => {
            assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
            bytes.len()
        }
    }
}

/// Slowloris: no first message, one that is never finished, however its bytes drip, or no handshake.
#[test]
fn deadlines() {
    let limits = StreamLimits {
        handshake_timeout: SOON,
        first_message_timeout: SOON,
        unfinished_message_timeout: SOON,
        idle_timeout: 3 * SOON,
        ..StreamLimits::default()
    };
    let relay = Relay::limited("127.1.8.1", limits);
    let silent = connect(relay.tls);
    assert_eq!(until_closed(&silent), 0);
    relay.wait_for("a handshake that never began", |stats| {
        stats.sockets.streams.handshakes_failed[HandshakeFailure::TooSlow] == 1
    });
    for transport in BOTH {
        let mut silent = relay.client(transport);
        silent.assert_closed();

        let mut dripping = relay.client(transport);
        let request = dripping.request(Method::Binding, &[], &[]);
        dripping.send(&request);
        dripping.message();
        let mut message = channel_message(0x4001, &[0; 20_000]).into_iter();
        let socket = dripping.socket().try_clone().unwrap();
        socket.set_nonblocking(true).unwrap();
        let open = || !matches!(socket.peek(&mut [0]), Ok(0)) && socket.take_error().unwrap().is_none();
        let mut drips = 0;
        while drips < 500 && (open() || transport == Transport::Tls) {
            let byte = [message.next().unwrap()];
            let sent = match &mut dripping.stream {
                Stream::Tcp(socket) => (&*socket).write(&byte).map(drop),
                Stream::Tls(tls) => tls.write_all(&byte).and_then(|()| tls.flush()),
                Stream::Udp(_) => unreachable!(),
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

/// A client with an allocation may be silent; when the allocation ends, its time begins.
#[test]
fn silence_with_an_allocation() {
    let limits = StreamLimits { idle_timeout: SOON, ..StreamLimits::default() };
    let lifetimes = Lifetimes { allocation_lifetime: 2, max_allocation_lifetime: 2, ..Lifetimes::default() };
    let relay = Relay::start("127.1.8.2", |setup| {
        setup.lifetimes = lifetimes;
        setup.connections = limits;
    });
    let mut clients = BOTH.map(|transport| relay.allocated(transport));
    sleep(Duration::from_secs(1));
    for client in &mut clients {
        assert_eq!(client.binding().code(), 0, "it is open");
    }
    for client in &mut clients {
        client.assert_closed();
    }
    relay.wait_for_ends(ConnectionEnd::Idle, [1, 1]);
    relay.stop();
}

/// Half-open connections from one source, and all of them, have a bound; a message makes room for the next.
#[test]
fn bounds_on_connections() {
    let limits =
        StreamLimits { connections: 6, half_open: 5, half_open_per_address: 3, ..StreamLimits::default() };
    let relay = Relay::limited("127.1.8.3", limits);
    let mut open: Vec<_> = (0..3).map(|_| Client::over_tcp(relay.tcp)).collect();
    assert_eq!(until_closed(&connect(relay.tcp)), 0);
    assert_eq!(until_closed(&connect(relay.tls)), 0, "whichever port");
    for client in &mut open {
        assert_eq!(client.binding().code(), 0);
    }
    let from = |ip: [u8; 4]| {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        socket.bind(&std::net::SocketAddr::from((ip, 0)).into()).unwrap();
        socket.connect(&relay.tcp.into()).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        TcpStream::from(socket)
    };
    let elsewhere: Vec<_> = (1..=3).map(|n| from([127, 1, 9, n])).collect();
    assert_eq!(until_closed(&from([127, 1, 9, 4])), 0, "all places are taken");
    drop(elsewhere);
    relay.wait_for_ends(ConnectionEnd::Client, [3, 0]);
    let mut next = relay.client(BOTH[0]);
    assert_eq!(next.binding().code(), 0);
    relay.wait_for("what was refused", |stats| {
        let refused = stats.sockets.streams.refused;
        refused[0][AdmissionRefusal::HalfOpenPerAddress] == 1
            && refused[1][AdmissionRefusal::HalfOpenPerAddress] == 1
            && refused[0][AdmissionRefusal::Connections] == 1
    });
    relay.stop();
}

/// RFC 8656 §12.7: to a client that does not read, whole messages are dropped, memory is bounded, and what comes later is
/// intact; answers are not dropped.
#[test]
fn a_slow_reader() {
    let queue = 64 << 10;
    let relay = Relay::limited("127.1.8.4", StreamLimits { client_queue: queue, ..StreamLimits::default() });
    for (n, transport) in BOTH.into_iter().enumerate() {
        let (mut client, peer) = (relay.allocated(transport), peer());
        SockRef::from(client.socket()).set_recv_buffer_size(4096).unwrap();
        client.bind(0x4001, &peer);
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
            assert!(sent < 200_000, "the queue has a bound");
            sleep(Duration::from_millis(5));
        }
        let request = client.request(Method::Binding, &[], &[]);
        client.send(&request);
        let (mut last, mut answered, mut count) = (None, false, 0);
        client.socket().set_read_timeout(Some(Duration::from_millis(500))).unwrap();
        while let Ok(message) = client.try_message() {
            let message = message.expect("the stream stays");
            if message[0] < 0x40 {
                answered = true;
                assert_eq!(message[8..20], request[8..20]);
                continue;
            }
            let number = u32::from_be_bytes(message[4..8].try_into().unwrap());
            assert!(last.is_none_or(|last| last < number), "in order");
            assert_eq!(message, channel_message(0x4001, &payload(number)), "whole");
            (last, count) = (Some(number), count + 1);
        }
        assert!(answered && count < sent, "{count} of {sent}");
        client.socket().set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        for word in [&b"later"[..], b"messages", b"are intact"] {
            peer.send_to(word, client.relayed[0]).unwrap();
            assert_eq!(client.channel_data(), (0x4001, word.to_vec()));
        }
    }
    relay.stop();
}

/// A client that asks and asks and never reads is closed before its answers take more than their share.
#[test]
fn answers_that_nobody_reads() {
    let relay =
        Relay::limited("127.1.8.5", StreamLimits { client_queue: 16 << 10, ..StreamLimits::default() });
    for transport in BOTH {
        let mut client = relay.client(transport);
        SockRef::from(client.socket()).set_recv_buffer_size(4096).unwrap();
        let requests = client.request(Method::Binding, &[], &[]).repeat(500);
        let mut stream = client.stream;
        let closed = (0..10_000).find(|_| {
            let sent = match &mut stream {
                Stream::Tcp(socket) => socket.write_all(&requests),
                Stream::Tls(tls) => tls.write_all(&requests),
                Stream::Udp(_) => unreachable!(),
            };
            sent.is_err()
        });
        assert!(closed.is_some());
    }
    relay.wait_for_ends(ConnectionEnd::NotRead, [1, 1]);
    relay.wait_until_empty();
    relay.stop();
}

/// A flood of handshakes beside calls over UDP and TCP: they survive, and so does whoever comes later.
#[test]
fn a_flood_of_handshakes_beside_calls() {
    let relay = relay("127.1.8.6");
    let peer = peer();
    let mut calls = [relay.client(Transport::Udp), relay.client(Transport::Tcp)];
    for call in &mut calls {
        assert_eq!(call.allocate().code(), 0);
        call.bind(0x4001, &peer);
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
            // These never finish.
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
                call.send(&channel_message(0x4001, &n.to_be_bytes()));
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
    assert!(accepted > 10, "there was a flood: {accepted}");
    relay.stop();
}

/// Many clients that send more at once than a pass takes from all connections: each gets all of its answers.
#[test]
fn greedy_clients_take_turns() {
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

/// Whoever waits costs nothing: half-open and idle clients, one that does not read, one that has closed its side and does
/// not read either. Measured as the processor time of a process of its own.
#[test]
fn waiting_costs_nothing() {
    if !alone("limits::waiting_costs_nothing") {
        return;
    }
    let relay =
        Relay::limited("127.1.8.8", StreamLimits { client_queue: 64 << 10, ..StreamLimits::default() });
    let _half_open = (connect(relay.tcp), connect(relay.tls), BOTH.map(|transport| relay.client(transport)));
    let mut slow: Vec<_> = BOTH.repeat(2).into_iter().map(|transport| relay.allocated(transport)).collect();
    let peer = peer();
    for (n, client) in slow.iter_mut().enumerate() {
        SockRef::from(client.socket()).set_recv_buffer_size(4096).unwrap();
        client.bind(0x4001, &peer);
        let dropped = |relay: &Relay| relay.stats().sockets.streams.data_dropped[n % 2];
        let before = dropped(&relay);
        while dropped(&relay) == before {
            (0..100).for_each(|_| assert!(peer.send_to(&[7; 1000], client.relayed[0]).is_ok()));
            sleep(Duration::from_millis(2));
        }
    }
    slow[2].end_sending();
    slow[3].end_sending();
    relay.wait_for("they linger", |stats| stats.turn.allocations == 2);
    let used = || -> u64 {
        let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
        let fields: Vec<_> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
        fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
    };
    let before = used();
    sleep(Duration::from_secs(1));
    // In hundredths of a second; what spins would use them all.
    let used = used() - before;
    assert!(used < 20, "{used} %");
    assert_eq!(relay.stats().sockets.streams.open, [4, 3], "all are still there");
    relay.stop();
}

/// Descriptors run out: connections wait in the backlog, the worker neither spins nor fails, and when there are some again
/// they are served. Takes the whole process's descriptors, so it runs in a process of its own.
#[test]
fn descriptors_run_out() {
    if !alone("limits::descriptors_run_out") {
        return;
    }
    let relay = relay("127.1.8.7");
    let (mut call, peer) = (relay.allocated(Transport::Tcp), peer());
    call.bind(0x4001, &peer);
    let mut waiting: Vec<_> =
        (0..4).map(|_| Socket::new(Domain::IPV4, Type::STREAM, None).unwrap()).collect();
    let mut taken: Vec<OwnedFd> = Vec::new();
    while let Ok(one) = peer.as_fd().try_clone_to_owned() {
        taken.push(one);
        assert!(taken.len() < 2_000_000, "descriptors have a bound");
    }
    for (n, socket) in waiting.iter_mut().enumerate() {
        socket.connect(&if n % 2 == 0 { relay.tcp } else { relay.tls }.into()).unwrap();
    }
    relay.wait_for("accepting pauses", |stats| stats.sockets.streams.accept_paused >= 2);
    let before = relay.stats().sockets.streams.accept_paused;
    for n in 0..50u32 {
        call.send(&channel_message(0x4001, &n.to_be_bytes()));
        assert_eq!(receive(&peer).0, n.to_be_bytes());
        sleep(Duration::from_millis(10));
    }
    let pauses = relay.stats().sockets.streams.accept_paused - before;
    assert!(pauses < 50, "{pauses} in half a second: it spins");
    drop(taken);
    let socket = TcpStream::from(waiting.swap_remove(0));
    socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    let mut client = Client::over(Stream::Tcp(socket));
    assert_eq!(client.binding().code(), 0, "it waited");
    assert_eq!(relay.client(Transport::Tls).binding().code(), 0);
    relay.stop();
}
