//! Data both ways.

use hairpin::datapath::stream::stats::ConnectionEnd;
use hairpin::wire::attribute;

use crate::client::{channel_message, send_message};
use crate::world::{BOTH, assert_silent, peer, receive, relay};

/// RFC 8489 §6.2.2, §6.2.3: Binding over TCP and TLS, in both families.
#[test]
fn binding() {
    for ip in ["127.1.5.1", "::1"] {
        let relay = relay(ip);
        for transport in BOTH {
            let mut client = relay.client(transport);
            let reply = client.binding();
            let mapped = reply.attribute(attribute::XOR_MAPPED_ADDRESS).unwrap().xor_address().unwrap();
            assert_eq!(mapped, client.socket().local_addr().unwrap());
        }
        relay.wait_for_ends(ConnectionEnd::Client, [1, 1]);
        relay.wait_until_empty();
        relay.stop();
    }
}

/// RFC 8656 §11, §12, §16: channels and indications, both ways, over both.
#[test]
fn channels_and_indications() {
    let relay = relay("127.1.5.2");
    for transport in BOTH {
        let (mut client, peer, other) = (relay.allocated(transport), peer(), peer());
        client.bind(0x4001, &peer);
        client.permit(&other);
        let relayed = client.relayed[0];
        for len in [0, 1, 2, 3, 4, 100, 1200] {
            let data: Vec<u8> = (0..len).map(|i| i as u8).collect();
            client.send(&channel_message(0x4001, &data));
            assert_eq!(receive(&peer), (data.clone(), relayed));
            peer.send_to(&data, relayed).unwrap();
            assert_eq!(client.channel_data(), (0x4001, data.clone()));
            client.send(&send_message(&other, &data));
            assert_eq!(receive(&other), (data.clone(), relayed));
            other.send_to(&data, relayed).unwrap();
            assert_eq!(client.indication(), (other.local_addr().unwrap(), data));
        }
        assert_eq!(client.refresh(0).code(), 0);
        client.send(&channel_message(0x4001, b"nowhere"));
        assert_eq!(client.binding().code(), 0, "ignored, and the stream stays");
        assert_silent(&peer);
    }
    relay.wait_until_empty();
    relay.stop();
}

/// RFC 8656 §12.5: the largest datagram that fits, both ways.
#[test]
fn the_largest_datagrams() {
    let relay = relay("127.1.5.3");
    for transport in BOTH {
        let (mut client, peer, other) = (relay.allocated(transport), peer(), peer());
        client.bind(0x4001, &peer);
        client.permit(&other);
        for len in [65_000, 65_506, 65_507] {
            let data: Vec<u8> = (0..len).map(|i| (i / 7) as u8).collect();
            client.send(&channel_message(0x4001, &data));
            assert_eq!(receive(&peer).0, data);
            peer.send_to(&data, client.relayed[0]).unwrap();
            assert!(client.channel_data() == (0x4001, data.clone()));
            client.send(&send_message(&other, &data));
            assert!(receive(&other).0 == data);
            other.send_to(&data, client.relayed[0]).unwrap();
            assert!(client.indication().1 == data);
        }
        // Longer than any datagram: whole in the stream, lost at the socket, and the stream goes on.
        client.send(&channel_message(0x4001, &vec![0; 65_535]));
        client.send(&channel_message(0x4001, b"after"));
        assert_eq!(receive(&peer).0, b"after");
    }
    relay.stop();
}

/// Many equal messages in one write leave as runs and arrive as they were sent; bursts from a peer arrive as single
/// messages.
#[test]
fn bursts() {
    let relay = relay("127.1.5.4");
    for transport in BOTH {
        let (mut client, peer) = (relay.allocated(transport), peer());
        client.bind(0x4001, &peer);
        for len in [1100, 7, 0] {
            let payload = |n: usize| vec![n as u8; len];
            let burst: Vec<u8> = (0..50).flat_map(|n| channel_message(0x4001, &payload(n))).collect();
            client.send(&burst);
            for n in 0..50 {
                assert_eq!(receive(&peer).0, payload(n));
            }
            for n in 0..50 {
                peer.send_to(&payload(n), client.relayed[0]).unwrap();
            }
            for n in 0..50 {
                assert_eq!(client.channel_data(), (0x4001, payload(n)));
            }
        }
        let sizes = [3, 1200, 1200, 90, 90, 0, 5, 1199];
        let mixed: Vec<u8> = sizes.iter().flat_map(|&len| channel_message(0x4001, &vec![9; len])).collect();
        client.send(&mixed);
        assert_eq!(sizes.map(|_| receive(&peer).0.len()), sizes);
    }
    relay.stop();
}

/// RFC 8656 §7.2: two clients of one relay, one over each transport, reach each other.
#[test]
fn tcp_meets_tls() {
    let relay = relay("127.1.5.5");
    let (mut tcp, mut tls) = (relay.allocated(BOTH[0]), relay.allocated(BOTH[1]));
    tcp.bind_to(0x4001, tls.relayed[0]);
    tls.bind_to(0x4002, tcp.relayed[0]);
    tcp.send(&channel_message(0x4001, b"to the other"));
    assert_eq!(tls.channel_data(), (0x4002, b"to the other".to_vec()));
    tls.send(&channel_message(0x4002, b"and back"));
    assert_eq!(tcp.channel_data(), (0x4001, b"and back".to_vec()));
    relay.stop();
}

/// Idle connections cost a served client nothing that it notices.
#[test]
fn many_idle_connections_beside_a_served_client() {
    let relay = crate::world::Relay::limited(
        "127.1.5.6",
        hairpin::datapath::stream::StreamLimits { half_open_per_address: 400, ..Default::default() },
    );
    let mut idle: Vec<_> = (0..300).map(|n| relay.client(BOTH[usize::from(n % 10 == 0)])).collect();
    for client in idle.iter_mut().step_by(2) {
        assert_eq!(client.binding().code(), 0);
    }
    relay.wait_for("all are open", |stats| stats.sockets.streams.open.iter().sum::<u64>() == 300);
    let (mut client, peer) = (relay.allocated(BOTH[0]), peer());
    client.bind(0x4001, &peer);
    for n in 0..2000u32 {
        client.send(&channel_message(0x4001, &n.to_be_bytes()));
        assert_eq!(receive(&peer).0, n.to_be_bytes());
        peer.send_to(&n.to_be_bytes(), client.relayed[0]).unwrap();
        assert_eq!(client.channel_data().1, n.to_be_bytes());
    }
    for client in &mut idle {
        assert_eq!(client.binding().code(), 0);
    }
    relay.stop();
}
