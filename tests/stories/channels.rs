//! Channels.

use hairpin::turn::stats::Dropped;
use hairpin::turn::{AllocationLimits, Header, PeerAddr, Tos, TurnConfig};
use hairpin::wire::{ChannelRange, Method, attribute};

use crate::world::{Client, PEER, PEER6, PRIVATE, World, addr, channel_message, config, credentials};

const A: &str = "198.51.100.1:40000";

/// RFC 8656 §12.5, §12.6, §12.7: data both ways on a bound channel.
#[test]
fn data_flows_both_ways() {
    let mut world = World::default();
    let mut client = world.allocated(A);
    assert_eq!(client.channel_data(&mut world, 0x4000, b"early"), None);
    assert_eq!(client.bind(&mut world, 0x4000, PEER).code(), 0);
    let forward = client.channel_data(&mut world, 0x4000, b"hello").unwrap();
    assert_eq!(
        (forward.socket, forward.peer, forward.offset, forward.len),
        (world.relays[&client.relay()], PeerAddr(addr(PEER)), 4, 5)
    );
    assert!(!forward.dont_fragment);
    let back = world.peer_sends(client.relay(), PEER, b"world").unwrap();
    assert_eq!((back.tuple, back.header), (client.tuple, Header::Channel(0x4000)));
    let mut header = [0; 4];
    back.header.write(0, 5, &mut header);
    assert_eq!(header, [0x40, 0, 0, 5]);
    // Another port of that address has a permission, but no channel
    assert!(matches!(
        world.peer_sends(client.relay(), "8.8.8.8:9", b"x").unwrap().header,
        Header::Data { .. }
    ));
    assert_eq!(world.channels, ["+0x4000 8.8.8.8:5000"]);
}

/// RFC 8656 §12.6: a length beyond the datagram is discarded, padding is not data, and no data is data.
#[test]
fn lengths() {
    let mut world = World::default();
    let mut client = world.allocated(A);
    client.bind(&mut world, 0x4000, PEER);
    let tuple = client.tuple;
    assert_eq!(world.deliver(&tuple, &[0x40, 0, 0, 6, 1, 2, 3, 4, 5]), None);
    assert_eq!(world.deliver(&tuple, &[0x40, 0, 0]), None);
    assert_eq!(world.deliver(&tuple, &[0x40, 0, 0, 5, 1, 2, 3, 4, 5, 0, 0, 0]).unwrap().len, 5);
    assert_eq!(world.deliver(&tuple, &[0x40, 0, 0, 0]).unwrap().len, 0);
    assert_eq!(world.server.stats().dropped(Dropped::NoChannel), 2);
}

/// RFC 8656 §12, §14: a run of messages is one decision and counted as many packets; DSCP and ECN are kept.
#[test]
fn runs_are_one_decision() {
    let mut world = World::default();
    let mut client = world.allocated(A);
    client.bind(&mut world, 0x4000, PEER);
    let run = channel_message(0x4000, &[7; 96]).repeat(10);
    let forward = world.server.from_client(world.now, &client.tuple, Tos(0xB8), 100, &run).unwrap();
    assert_eq!((forward.offset, forward.len, forward.tos), (4, 96, Tos(0xB8)));
    let peer = PeerAddr(addr(PEER));
    let back = world.server.from_peer(world.now, client.relay(), peer, Tos(1), 96, &[7; 96 * 9 + 5]).unwrap();
    assert_eq!((back.header, back.tos), (Header::Channel(0x4000), Tos(1)));
    let stats = world.server.stats();
    assert_eq!((stats.to_peer[0].packets, stats.to_peer[0].bytes), (10, 960));
    assert_eq!((stats.to_client[0].packets, stats.to_client[0].bytes), (10, 96 * 9 + 5));
}

/// RFC 8656 §12.2: both attributes, a number in range, and neither the number nor the peer bound to something else.
#[test]
fn bad_bindings() {
    let mut world = World::default();
    let mut client = world.allocated(A);
    for (channel, code) in
        [(0x3FFF, 400), (0x5000, 400), (0x7FFF, 400), (0xFFFF, 400), (0x4FFF, 0), (0x4000, 400)]
    {
        assert_eq!(client.bind(&mut world, channel, PEER).code(), code, "{channel:#x}");
    }
    assert_eq!(client.bind(&mut world, 0x4FFF, "8.8.8.8:5001").code(), 400);
    assert_eq!(client.bind(&mut world, 0x4FFF, PEER).code(), 0, "the same again refreshes");
    assert_eq!(client.bind(&mut world, 0x4001, "8.8.8.8:5001").code(), 0, "another port is another peer");
    assert_eq!(client.bind(&mut world, 0x4002, PEER6).code(), 443);
    assert_eq!(client.bind(&mut world, 0x4002, PRIVATE).code(), 403);
    assert_eq!(client.bind(&mut world, 0x4002, "8.8.8.8:0").code(), 403);
    let missing =
        client.ask(&mut world, Method::ChannelBind, |r| r.u32(attribute::CHANNEL_NUMBER, 0x4002_0000));
    assert_eq!(missing.code(), 400);
    let missing = client
        .ask(&mut world, Method::ChannelBind, |r| r.xor_address(attribute::XOR_PEER_ADDRESS, addr(PEER)));
    assert_eq!(missing.code(), 400);
    assert_eq!(world.server.stats().channels, 2);
}

/// RFC 5766 §11: its range of channel numbers is accepted if the operator wants it; otherwise the log names the number, the
/// range and the setting.
#[test]
fn channel_numbers_of_older_clients() {
    for (channels, most) in [(ChannelRange::Rfc8656, 0x4FFF), (ChannelRange::Rfc5766, 0x7FFE)] {
        let mut world = World::new(TurnConfig { channels, ..config() }, credentials());
        let mut client = world.allocated(A);
        for number in [0x4000, 0x4FFF, 0x5000, 0x6ABC, 0x7FFE, 0x7FFF, 0x3FFF, 0x8000, 0xFFFF] {
            let peer = format!("8.8.8.8:{number}");
            let data = |world: &mut World, client: &Client| {
                let run = channel_message(number, &[7; 96]).repeat(3);
                world.server.from_client(world.now, &client.tuple, Tos(0), 100, &run)
            };
            assert_eq!(data(&mut world, &client), None, "not bound");
            let is_accepted = (0x4000..=most).contains(&number);
            let code = client.bind(&mut world, number, &peer).code();
            assert_eq!(code, if is_accepted { 0 } else { 400 }, "{number:#x}");
            let forward = data(&mut world, &client);
            assert_eq!(
                forward.map(|to| (to.peer, to.len)),
                is_accepted.then_some((PeerAddr(addr(&peer)), 96))
            );
            if is_accepted {
                let back = world.peer_sends(client.relay(), &peer, b"x").unwrap();
                assert_eq!(back.header, Header::Channel(number));
                assert_eq!(client.bind(&mut world, number, &peer).code(), 0, "refreshed");
            } else {
                let refused = world.refused.last().unwrap();
                assert_eq!(refused.channel, Some(number));
                assert!(
                    refused.reason.text().contains(&format!("0x4000-{most:#06X}").replace("0X", "0x")),
                    "{}",
                    refused.reason.text()
                );
                let fix = refused.fix.to_string().contains("listen.rfc5766_channels = true");
                // No setting allows numbers beyond those of RFC 5766
                let helps = channels == ChannelRange::Rfc8656 && (0x4000..=0x7FFE).contains(&number);
                assert_eq!(fix, helps, "{number:#x}");
            }
        }
        // First bytes that belong to other protocols are counted as such, each segment of a run
        let foreign = if channels == ChannelRange::Rfc8656 { 7 } else { 3 };
        assert_eq!(world.server.stats().dropped(Dropped::NotTurn), 2 * 3 * foreign);
    }
}

/// RFC 8656 §12: ten minutes, refreshed by ChannelBind but not by data; afterwards number and peer can be bound again.
#[test]
fn a_binding_lasts_ten_minutes() {
    let mut world = World::default();
    let mut client = world.allocated(A);
    client.refresh(&mut world, 3600);
    client.bind(&mut world, 0x4000, PEER);
    world.pass(400);
    client.bind(&mut world, 0x4000, PEER);
    world.pass(299);
    client.permit(&mut world, &[PEER]);
    world.pass(299);
    assert!(client.channel_data(&mut world, 0x4000, b"x").is_some());
    world.pass_unnoticed(2);
    assert!(client.channel_data(&mut world, 0x4000, b"x").is_none());
    world.channels.retain(|told| told.contains("0x4000"));
    assert_eq!(world.channels, ["+0x4000 8.8.8.8:5000", "+0x4000 8.8.8.8:5000", "-0x4000"]);
    assert_eq!(client.bind(&mut world, 0x4000, "8.8.8.8:1").code(), 0);
    assert_eq!(client.bind(&mut world, 0x4001, PEER).code(), 0);
}

/// RFC 8656 §9, §12: a binding installs a permission of five minutes; the channel outlives it, and without a permission
/// data from the peer is dropped.
#[test]
fn the_channel_outlives_its_permission() {
    let mut world = World::default();
    let mut client = world.allocated(A);
    client.bind(&mut world, 0x4000, PEER);
    world.pass(300);
    assert!(world.peer_sends(client.relay(), PEER, b"x").is_none());
    assert!(client.channel_data(&mut world, 0x4000, b"x").is_some());
    client.permit(&mut world, &[PEER]);
    assert_eq!(world.peer_sends(client.relay(), PEER, b"x").unwrap().header, Header::Channel(0x4000));
    world.pass(299);
    assert!(world.peer_sends(client.relay(), PEER, b"x").is_some());
    client.refresh(&mut world, 0);
    world.assert_empty();
}

/// RFC 8656 §12.2: 508 at the limit of channels; bound ones can be refreshed.
#[test]
fn channels_are_bounded() {
    let limits = AllocationLimits { channels: 2, new_peers: 0, ..AllocationLimits::default() };
    let mut world = World::new(hairpin::turn::TurnConfig { limits, ..config() }, credentials());
    let mut client = world.allocated(A);
    for (channel, peer, code) in [
        (0x4000, "8.8.8.8:1", 0),
        (0x4001, "8.8.8.8:2", 0),
        (0x4002, "8.8.8.8:3", 508),
        (0x4001, "8.8.8.8:2", 0),
    ] {
        assert_eq!(client.bind(&mut world, channel, peer).code(), code);
    }
}

/// RFC 8656 §12: channels of one allocation do not exist in another.
#[test]
fn channels_belong_to_their_allocation() {
    let mut world = World::default();
    let (mut one, mut two) = (world.allocated(A), world.allocated("198.51.100.1:40001"));
    one.bind(&mut world, 0x4000, PEER);
    assert!(two.channel_data(&mut world, 0x4000, b"x").is_none());
    assert_eq!(two.bind(&mut world, 0x4000, "8.8.4.4:1").code(), 0);
    assert_eq!(one.channel_data(&mut world, 0x4000, b"x").unwrap().peer.0, addr(PEER));
}
