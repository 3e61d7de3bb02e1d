//! How connections end, and what that releases.

use std::net::{Shutdown, UdpSocket};

use hairpin::datapath::stream::stats::ConnectionEnd;
use hairpin::wire::Method;
use socket2::SockRef;

use crate::client::{Client, Reply, padded_channel_message};
use crate::world::{Relay, STREAMS, Setup, addr, peer, receive, relay, setup};

/// RFC 8489 §6.2.2: a client that has shut down its sending side gets its responses, and then the stream is closed.
#[test]
fn a_half_closed_client_gets_responses() {
    let relay = relay("127.1.7.1");
    for transport in STREAMS {
        let mut client = relay.client(transport);
        let requests: Vec<_> = (0..500).map(|_| client.request(Method::Binding, &[], &[])).collect();
        client.send(&requests.concat());
        client.end_sending();
        for request in &requests {
            assert_eq!(client.message()[8..20], request[8..20]);
        }
        assert_eq!(client.try_message().expect("an orderly end"), None);

        // This includes an Allocate response, although the allocation ends with the stream.
        let mut client = relay.client(transport);
        assert_eq!(client.refresh(600).code(), 437, "the client has a nonce");
        let request = client.request(Method::Allocate, &Client::allocation(), &[]);
        client.send(&request);
        client.end_sending();
        assert_eq!(Reply(client.message()).code(), 0);
        assert_eq!(client.try_message().expect("an orderly end"), None);
    }
    relay.wait_for_ends(ConnectionEnd::Client, [2, 2]);
    relay.wait_until_empty();
    relay.stop();
}

/// RFC 8489 §6.2.2: the same when more is queued than fits into the socket buffers; TLS sends close_notify at the end.
#[test]
fn a_half_closed_slow_reader() {
    let relay = relay("127.1.7.6");
    for transport in STREAMS {
        let (mut client, peer) = (relay.allocated(transport), peer());
        SockRef::from(client.tcp()).set_recv_buffer_size(128 << 10).unwrap();
        client.bind(0x4001, addr(&peer));
        while relay.stats().sockets.streams.data_dropped[usize::from(transport == STREAMS[1])] == 0 {
            for _ in 0..200 {
                peer.send_to(&[7; 1000], client.relayed[0]).unwrap();
            }
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
        let request = client.request(Method::Binding, &[], &[]);
        client.send(&request);
        client.end_sending();
        let (mut data, mut responses) = (0, 0);
        while let Some(message) = client.try_message().expect("an orderly end") {
            if message[0] < 0x40 {
                responses += 1;
            } else {
                assert_eq!(message, padded_channel_message(0x4001, &[7; 1000]));
                data += 1;
            }
        }
        assert!(responses == 1 && data > 200, "{responses} and {data}");
    }
    relay.stop();
}

/// RFC 8656 §5: the end of a stream, orderly or not, releases the allocation of its client and no other.
#[test]
fn the_end_of_a_stream_releases_its_allocation() {
    let relay = Relay::start(Setup { user_allocations: 3, ..setup("127.1.7.2") });
    for transport in STREAMS {
        let (mut kept, peer) = (relay.allocated(transport), peer());
        kept.bind(0x4001, addr(&peer));
        for reset in [false, true] {
            let mut ended = relay.allocated(transport);
            ended.bind(0x4001, addr(&peer));
            let port = ended.relayed[0];
            assert!(UdpSocket::bind(port).is_err());
            // Data that was sent before the end is relayed.
            ended.send(&padded_channel_message(0x4001, b"last words"));
            if reset {
                assert_eq!(receive(&peer).0, b"last words");
                SockRef::from(ended.tcp()).set_linger(Some(std::time::Duration::ZERO)).unwrap();
            } else {
                ended.end_sending();
                assert_eq!(receive(&peer).0, b"last words");
            }
            drop(ended);
            let why = if reset { ConnectionEnd::Reset } else { ConnectionEnd::Client };
            let already = if transport == STREAMS[0] { [1, 0] } else { [1 + u64::from(!reset), 1] };
            relay.wait_for_ends(why, already);
            relay.wait_for("one is left", |stats| stats.turn.allocations == 1);
            assert!(UdpSocket::bind(port).is_ok(), "its port is free");
            kept.send(&padded_channel_message(0x4001, b"still here"));
            assert_eq!(receive(&peer).0, b"still here");
            peer.send_to(b"still here too", kept.relayed[0]).unwrap();
            assert_eq!(kept.channel_data().1, b"still here too");
        }
        drop(kept);
        relay.wait_until_empty();
    }
    let others: Vec<_> = (0..3).map(|_| relay.allocated(STREAMS[0])).collect();
    assert_eq!(relay.client(STREAMS[1]).allocate(&[]).code(), 486, "three allocations use the whole quota");
    drop(others);
    relay.stop();
}

/// RFC 8656 §8: deleting an allocation does not close its stream.
#[test]
fn a_stream_outlives_its_allocation() {
    let relay = relay("127.1.7.3");
    for transport in STREAMS {
        let mut client = relay.allocated(transport);
        assert_eq!(client.refresh(0).code(), 0);
        assert_eq!(client.refresh(600).code(), 437);
        assert_eq!(client.allocate(&[]).code(), 0, "a new allocation");
    }
    relay.stop();
}

/// Stopping closes every connection in an orderly way, and listener addresses can be bound again.
#[test]
fn stopping_closes_everything() {
    let relay = Relay::start(Setup { workers: 3, ..setup("127.1.7.4") });
    let mut clients: Vec<_> = (0..12).map(|n| relay.allocated(STREAMS[n % 2])).collect();
    let listeners = (relay.tcp, relay.tls);
    relay.stop();
    for client in &mut clients {
        assert_eq!(client.try_message().expect("an orderly end"), None);
        assert!(UdpSocket::bind(client.relayed[0]).is_ok());
    }
    drop(clients);
    let again = Relay::start(Setup { tcp: listeners.0, tls: listeners.1, ..setup("127.1.7.4") });
    assert_eq!((again.tcp, again.tls), listeners);
    again.stop();
}

/// A panicking worker closes its own connections and no others, and new connections are accepted.
#[test]
fn a_panicking_worker() {
    let relay = Relay::start(Setup { workers: 2, ..setup("127.1.7.5") });
    let mut clients: Vec<_> = (0..32).map(|n| relay.allocated(STREAMS[n % 2])).collect();
    relay.wait_for("all connections are counted", |stats| stats.sockets.streams.open == [16, 16]);
    let lost: u64 = relay.workers().stats()[1].sockets.streams.open.iter().sum();
    assert!(lost > 0 && lost < 32, "both workers have connections: {lost}");
    relay.workers().panic(1);
    relay.wait_for("the worker restarts", |stats| {
        stats.panics == 1 && stats.sockets.streams.open.iter().sum::<u64>() == 32 - lost
    });
    let kept = clients.iter_mut().filter_map(|client| {
        client.tcp().shutdown(Shutdown::Write).ok()?;
        client.try_message().ok()
    });
    drop(kept);
    for transport in STREAMS.repeat(8) {
        assert_eq!(relay.client(transport).binding().code(), 0, "new connections are served");
    }
    drop(clients);
    relay.wait_until_empty();
    relay.stop();
}
