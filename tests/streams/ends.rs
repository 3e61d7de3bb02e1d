//! How connections end, and what that frees.

use std::net::{Shutdown, UdpSocket};

use hairpin::datapath::stream::stats::ConnectionEnd;
use hairpin::wire::Method;
use socket2::SockRef;

use crate::client::{Client, channel_message};
use crate::world::{BOTH, Relay, peer, receive, relay};

/// RFC 8489 §6.2.2: a request is answered even if its client has shut down its sending side; then the stream is closed.
#[test]
fn a_half_closed_client_is_answered() {
    let relay = relay("127.1.7.1");
    for transport in BOTH {
        let mut client = relay.client(transport);
        let requests: Vec<_> = (0..500).map(|_| client.request(Method::Binding, &[], &[])).collect();
        client.send(&requests.concat());
        client.end_sending();
        for request in &requests {
            assert_eq!(client.message()[8..20], request[8..20]);
        }
        assert_eq!(client.try_message().expect("an orderly end"), None);

        // An Allocate too, though its allocation ends with the stream.
        let mut client = relay.client(transport);
        assert_eq!(client.refresh(600).code(), 437, "to have a nonce");
        let request = client.request(Method::Allocate, &Client::allocation(), &[]);
        client.send(&request);
        client.end_sending();
        assert_eq!(crate::client::Reply(client.message()).code(), 0);
        assert_eq!(client.try_message().expect("an orderly end"), None);
    }
    relay.wait_for_ends(ConnectionEnd::Client, [2, 2]);
    relay.wait_until_empty();
    relay.stop();
}

/// RFC 8489 §6.2.2: also if the answers are more than the client's socket takes at once; TLS says goodbye behind them.
#[test]
fn a_half_closed_client_that_reads_late() {
    let relay = relay("127.1.7.6");
    for transport in BOTH {
        let (mut client, peer) = (relay.allocated(transport), peer());
        SockRef::from(client.socket()).set_recv_buffer_size(128 << 10).unwrap();
        client.bind(0x4001, &peer);
        while relay.stats().sockets.streams.data_dropped[usize::from(transport == BOTH[1])] == 0 {
            for _ in 0..200 {
                peer.send_to(&[7; 1000], client.relayed[0]).unwrap();
            }
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
        let request = client.request(Method::Binding, &[], &[]);
        client.send(&request);
        client.end_sending();
        let (mut data, mut answers) = (0, 0);
        while let Some(message) = client.try_message().expect("an orderly end") {
            if message[0] < 0x40 {
                answers += 1;
            } else {
                assert_eq!(message, channel_message(0x4001, &[7; 1000]));
                data += 1;
            }
        }
        assert!(answers == 1 && data > 200, "{answers} and {data}");
    }
    relay.stop();
}

/// RFC 8656 §5: the end of a stream, orderly or not, frees what its client held, and nothing else.
#[test]
fn what_an_end_frees() {
    let relay = Relay::start("127.1.7.2", |setup| setup.user_allocations = 3);
    for transport in BOTH {
        let (mut kept, peer) = (relay.allocated(transport), peer());
        kept.bind(0x4001, &peer);
        for reset in [false, true] {
            let mut ended = relay.allocated(transport);
            ended.bind(0x4001, &peer);
            let port = ended.relayed[0];
            assert!(UdpSocket::bind(port).is_err());
            // Data before the end is relayed.
            ended.send(&channel_message(0x4001, b"last words"));
            if reset {
                assert_eq!(receive(&peer).0, b"last words");
                SockRef::from(ended.socket()).set_linger(Some(std::time::Duration::ZERO)).unwrap();
            } else {
                ended.end_sending();
                assert_eq!(receive(&peer).0, b"last words");
            }
            drop(ended);
            let why = if reset { ConnectionEnd::Reset } else { ConnectionEnd::Client };
            let already = if transport == BOTH[0] { [1, 0] } else { [1 + u64::from(!reset), 1] };
            relay.wait_for_ends(why, already);
            relay.wait_for("one is left", |stats| stats.turn.allocations == 1);
            assert!(UdpSocket::bind(port).is_ok(), "its port is free");
            kept.send(&channel_message(0x4001, b"still here"));
            assert_eq!(receive(&peer).0, b"still here");
            peer.send_to(b"still here too", kept.relayed[0]).unwrap();
            assert_eq!(kept.channel_data().1, b"still here too");
        }
        drop(kept);
        relay.wait_until_empty();
    }
    let others: Vec<_> = (0..3).map(|_| relay.allocated(BOTH[0])).collect();
    assert_eq!(relay.client(BOTH[1]).allocate().code(), 486, "the quota is whole, and no more");
    drop(others);
    relay.stop();
}

/// RFC 8656 §8: an allocation that is deleted, or expires, ends without its stream.
#[test]
fn a_stream_outlives_its_allocation() {
    let relay = relay("127.1.7.3");
    for transport in BOTH {
        let mut client = relay.allocated(transport);
        assert_eq!(client.refresh(0).code(), 0);
        assert_eq!(client.refresh(600).code(), 437);
        assert_eq!(client.allocate().code(), 0, "and may have another");
    }
    relay.stop();
}

/// A stop closes every connection, in order, and listeners can be had again.
#[test]
fn a_stop_closes_everything() {
    let relay = Relay::start("127.1.7.4", |setup| setup.workers = 3);
    let mut clients: Vec<_> = (0..12).map(|n| relay.allocated(BOTH[n % 2])).collect();
    let listeners = (relay.tcp, relay.tls);
    relay.stop();
    for client in &mut clients {
        assert_eq!(client.try_message().expect("an orderly end"), None);
        assert!(UdpSocket::bind(client.relayed[0]).is_ok());
    }
    drop(clients);
    let again = Relay::start("127.1.7.4", |setup| {
        setup.tcp = vec![listeners.0];
        setup.tls = vec![listeners.1];
    });
    assert_eq!((again.tcp, again.tls), listeners);
    again.stop();
}

/// A worker that fails closes its own connections and no others; their places are free again.
#[test]
fn a_worker_that_fails() {
    let relay = Relay::start("127.1.7.5", |setup| setup.workers = 2);
    let mut clients: Vec<_> = (0..32).map(|n| relay.allocated(BOTH[n % 2])).collect();
    relay.wait_for("all are counted", |stats| stats.sockets.streams.open == [16, 16]);
    let lost: u64 = relay.workers().stats()[1].sockets.streams.open.iter().sum();
    assert!(lost > 0 && lost < 32, "both serve: {lost}");
    relay.workers().panic(1);
    relay.wait_for("it begins again", |stats| {
        stats.panics == 1 && stats.sockets.streams.open.iter().sum::<u64>() == 32 - lost
    });
    let kept = clients.iter_mut().filter_map(|client| {
        client.socket().shutdown(Shutdown::Write).ok()?;
        client.try_message().ok()
    });
    drop(kept);
    for transport in BOTH.repeat(8) {
        assert_eq!(relay.client(transport).binding().code(), 0, "it serves on");
    }
    drop(clients);
    relay.wait_until_empty();
    relay.stop();
}
