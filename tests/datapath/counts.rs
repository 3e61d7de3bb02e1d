//! Packets and bytes count as relayed when they have left, and only then.

use std::thread::sleep;
use std::time::Duration;

use hairpin::datapath::stats::Unsent;
use hairpin::turn::Transport;
use hairpin::turn::stats::TrafficCount;
use hairpin::wire::{Message, Method, attribute};
use socket2::SockRef;

use crate::client::{channel_message, padded_channel_message, send_indication};
use crate::world::{STREAMS, addr, peer, receive, relay};

/// RFC 8656 §12.7: what a client does not read waits or is dropped. It counts when it leaves.
#[test]
fn a_client_that_does_not_read() {
    let relay = relay("127.1.14.1");
    for (n, transport) in STREAMS.into_iter().enumerate() {
        let (mut client, bound, permitted) = (relay.allocated(transport), peer(), peer());
        SockRef::from(client.tcp()).set_recv_buffer_size(4096).unwrap();
        client.bind(0x4001, addr(&bound));
        client.permit(addr(&permitted));
        let counted = || relay.stats().turn.to_client[transport.index()];
        let mut sent = TrafficCount::default();
        while relay.stats().sockets.streams.data_dropped[n] < 200 {
            for len in 900..1000 {
                for peer in [&bound, &permitted] {
                    peer.send_to(&vec![7; len], client.relayed[0]).unwrap();
                }
                (sent.packets, sent.bytes) = (sent.packets + 2, sent.bytes + 2 * len as u64);
            }
            sleep(Duration::from_millis(2));
        }
        sleep(Duration::from_millis(300));
        let first = counted();
        assert!(first.packets > 0 && first.bytes < 200_000, "{first:?} of {sent:?} have left");
        let mut read = TrafficCount::default();
        client.tcp().set_read_timeout(Some(Duration::from_millis(500))).unwrap();
        while let Ok(message) = client.try_message() {
            let message = message.expect("the stream stays open");
            let len = if message[0] < 0x40 {
                let indication = Message::parse(&message).unwrap();
                indication.attribute(attribute::DATA).unwrap().value.len()
            } else {
                usize::from(u16::from_be_bytes([message[2], message[3]]))
            };
            (read.packets, read.bytes) = (read.packets + 1, read.bytes + len as u64);
        }
        assert!(read.packets < sent.packets, "some were dropped");
        relay.wait_for("what was read is counted", |stats| stats.turn.to_client[transport.index()] == read);
        // What waits when the connection ends never leaves.
        let dropped = relay.stats().sockets.streams.data_dropped[n];
        while relay.stats().sockets.streams.data_dropped[n] == dropped {
            (0..200).for_each(|_| assert!(bound.send_to(&[7; 1000], client.relayed[0]).is_ok()));
            sleep(Duration::from_millis(2));
        }
        let before = counted();
        SockRef::from(client.tcp()).set_linger(Some(Duration::ZERO)).unwrap();
        drop(client);
        relay.wait_until_empty();
        let after = counted();
        assert!(
            after.packets - before.packets < 100 && before.packets >= read.packets,
            "{before:?} {after:?}"
        );
    }
    relay.stop();
}

/// What the kernel does not take is not relayed; what is sent with it is.
#[test]
fn datagrams_that_cannot_be_sent() {
    let relay = relay("127.1.14.2");
    for transport in Transport::ALL {
        let (mut client, peer) = (relay.allocated(transport), peer());
        // Without SO_BROADCAST the kernel refuses to send there.
        let refused = "127.255.255.255:9".parse().unwrap();
        client.bind(0x4001, addr(&peer));
        client.bind(0x4002, refused);
        let message = if transport.is_stream() { padded_channel_message } else { channel_message };
        let before = relay.stats().sockets.unsent;
        for _ in 0..10 {
            client.send(&message(0x4001, &[1; 100]));
            client.send(&message(0x4002, &[2; 100]));
            client.send(&send_indication(refused, &[3; 100]));
            client.send(&send_indication(addr(&peer), &[4; 60]));
            assert_eq!((receive(&peer).0.len(), receive(&peer).0.len()), (100, 60));
        }
        let mut lost = 20;
        if transport.is_stream() {
            // Longer than a datagram.
            client.send(&message(0x4001, &[5; 65_520]));
            client.send(&message(0x4001, &[6; 100]));
            assert_eq!(receive(&peer).0.len(), 100);
            lost += 1;
        }
        let expected = TrafficCount {
            packets: 20 + u64::from(transport.is_stream()),
            bytes: 1600 + 100 * u64::from(transport.is_stream()),
        };
        relay.wait_for("losses are counted", |stats| {
            stats.sockets.unsent.sum() == before.sum() + lost
                && stats.turn.to_peer[transport.index()] == expected
        });
    }
    assert_eq!(relay.stats().sockets.unsent[Unsent::Closed], 0);
    relay.stop();
}

/// Data that a client sends right before it deletes its allocation leaves before the relay socket closes.
#[test]
fn data_right_before_the_end() {
    let relay = relay("127.1.14.3");
    for transport in STREAMS {
        let (mut client, peer) = (relay.allocated(transport), peer());
        client.bind(0x4001, addr(&peer));
        let lifetime = (attribute::LIFETIME, vec![0; 4]);
        let refresh = client.request(Method::Refresh, &[lifetime], &[]);
        client.send(&[padded_channel_message(0x4001, b"last words"), refresh].concat());
        assert_eq!(receive(&peer).0, b"last words");
        client.message();
        relay.wait_for("it is counted", |stats| stats.turn.to_peer[transport.index()].packets == 1);
    }
    assert_eq!(relay.stats().sockets.unsent.sum(), 0);
    relay.stop();
}
