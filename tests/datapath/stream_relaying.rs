//! Data in both directions over TCP and TLS.

use hairpin::datapath::stream::stats::ConnectionEnd;
use hairpin::turn::Transport;
use hairpin::wire::{ChannelRange, attribute};

use crate::client::{padded_channel_message, send_indication};
use crate::world::{Relay, STREAMS, Setup, addr, assert_silent, peer, receive, relay, setup};

/// RFC 8489 §6.2.2, §6.2.3: Binding over TCP and TLS, in both families.
#[test]
fn binding() {
    for ip in ["127.1.5.1", "::1"] {
        let relay = relay(ip);
        for transport in STREAMS {
            let mut client = relay.client(transport);
            let reply = client.binding();
            let mapped = reply.attribute(attribute::XOR_MAPPED_ADDRESS).unwrap().xor_address().unwrap();
            assert_eq!(mapped, client.tcp().local_addr().unwrap());
        }
        relay.wait_for_ends(ConnectionEnd::Client, [1, 1]);
        relay.wait_until_empty();
        relay.stop();
    }
}

/// RFC 8656 §11, §12, §16: channels and indications in both directions.
#[test]
fn channels_and_indications() {
    let relay = relay("127.1.5.2");
    for transport in STREAMS {
        let (mut client, peer, other) = (relay.allocated(transport), peer(), peer());
        client.bind(0x4001, addr(&peer));
        client.permit(addr(&other));
        let relayed = client.relayed[0];
        for len in [0, 1, 2, 3, 4, 100, 1200] {
            let data: Vec<u8> = (0..len).map(|i| i as u8).collect();
            client.send(&padded_channel_message(0x4001, &data));
            assert_eq!(receive(&peer), (data.clone(), relayed));
            peer.send_to(&data, relayed).unwrap();
            assert_eq!(client.channel_data(), (0x4001, data.clone()));
            client.send(&send_indication(addr(&other), &data));
            assert_eq!(receive(&other), (data.clone(), relayed));
            other.send_to(&data, relayed).unwrap();
            assert_eq!(client.indication(), (other.local_addr().unwrap(), data));
        }
        assert_eq!(client.refresh(0).code(), 0);
        client.send(&padded_channel_message(0x4001, b"nowhere"));
        assert_eq!(client.binding().code(), 0, "the data is ignored, and the stream stays open");
        assert_silent(&peer);
    }
    relay.wait_until_empty();
    relay.stop();
}

/// RFC 5766 §11: the wider range of channel numbers, by the setting, over every transport.
#[test]
fn channel_numbers_of_older_clients() {
    let relay = Relay::start(Setup { channels: ChannelRange::Rfc5766, ..setup("127.1.5.9") });
    for transport in Transport::ALL {
        let mut client = relay.allocated(transport);
        for number in [0x4FFF, 0x5000, 0x6ABC, 0x7FFE] {
            let peer = peer();
            client.bind(number, addr(&peer));
            client.send(&padded_channel_message(number, b"four"));
            assert_eq!(receive(&peer), (b"four".to_vec(), client.relayed[0]), "{transport:?} {number:#x}");
            peer.send_to(b"back", client.relayed[0]).unwrap();
            assert_eq!(client.channel_data(), (number, b"back".to_vec()));
        }
        client.send(&padded_channel_message(0x7FFF, b"none"));
        assert_eq!(client.binding().code(), 0, "the stream stays open");
    }
    relay.stop();
}

/// RFC 8656 §12.5: the largest datagrams in both directions.
#[test]
fn the_largest_datagrams() {
    let relay = relay("127.1.5.3");
    for transport in STREAMS {
        let (mut client, peer, other) = (relay.allocated(transport), peer(), peer());
        client.bind(0x4001, addr(&peer));
        client.permit(addr(&other));
        for len in [65_000, 65_506, 65_507] {
            let data: Vec<u8> = (0..len).map(|i| (i / 7) as u8).collect();
            client.send(&padded_channel_message(0x4001, &data));
            assert_eq!(receive(&peer).0, data);
            peer.send_to(&data, client.relayed[0]).unwrap();
            assert!(client.channel_data() == (0x4001, data.clone()));
            client.send(&send_indication(addr(&other), &data));
            assert!(receive(&other).0 == data);
            other.send_to(&data, client.relayed[0]).unwrap();
            assert!(client.indication().1 == data);
        }
        // This is a valid message in the stream, but too long for a datagram, so it is dropped.
        client.send(&padded_channel_message(0x4001, &vec![0; 65_535]));
        client.send(&padded_channel_message(0x4001, b"after"));
        assert_eq!(receive(&peer).0, b"after");
    }
    relay.stop();
}

/// Bursts of messages in one write arrive at a peer as separate datagrams, and bursts from a peer as separate messages.
#[test]
fn bursts() {
    let relay = relay("127.1.5.4");
    for transport in STREAMS {
        let (mut client, peer) = (relay.allocated(transport), peer());
        client.bind(0x4001, addr(&peer));
        for len in [1100, 7, 0] {
            let payload = |n: usize| vec![n as u8; len];
            let burst: Vec<u8> = (0..50).flat_map(|n| padded_channel_message(0x4001, &payload(n))).collect();
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
        let mixed: Vec<u8> =
            sizes.iter().flat_map(|&len| padded_channel_message(0x4001, &vec![9; len])).collect();
        client.send(&mixed);
        assert_eq!(sizes.map(|_| receive(&peer).0.len()), sizes);
    }
    relay.stop();
}

/// RFC 8656 §7.2: a TCP client and a TLS client of one relay reach each other.
#[test]
fn tcp_and_tls_clients_reach_each_other() {
    let relay = relay("127.1.5.5");
    let (mut tcp, mut tls) = (relay.allocated(STREAMS[0]), relay.allocated(STREAMS[1]));
    tcp.bind(0x4001, tls.relayed[0]);
    tls.bind(0x4002, tcp.relayed[0]);
    tcp.send(&padded_channel_message(0x4001, b"to the other"));
    assert_eq!(tls.channel_data(), (0x4002, b"to the other".to_vec()));
    tls.send(&padded_channel_message(0x4002, b"and back"));
    assert_eq!(tcp.channel_data(), (0x4001, b"and back".to_vec()));
    relay.stop();
}

/// Many idle connections do not affect an active one.
#[test]
fn many_idle_connections() {
    let relay = relay("127.1.5.6");
    let mut idle: Vec<_> = (0..300).map(|n| relay.client(STREAMS[usize::from(n % 10 == 0)])).collect();
    for client in idle.iter_mut().step_by(2) {
        assert_eq!(client.binding().code(), 0);
    }
    relay.wait_for("all connections are open", |stats| stats.sockets.streams.open.iter().sum::<u64>() == 300);
    let (mut client, peer) = (relay.allocated(STREAMS[0]), peer());
    client.bind(0x4001, addr(&peer));
    for n in 0..2000u32 {
        client.send(&padded_channel_message(0x4001, &n.to_be_bytes()));
        assert_eq!(receive(&peer).0, n.to_be_bytes());
        peer.send_to(&n.to_be_bytes(), client.relayed[0]).unwrap();
        assert_eq!(client.channel_data().1, n.to_be_bytes());
    }
    for client in &mut idle {
        assert_eq!(client.binding().code(), 0);
    }
    relay.stop();
}
