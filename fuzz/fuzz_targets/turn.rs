//! The TURN server fed with arbitrary requests and data from clients with and without credentials, datagrams from peers,
//! passing time and outcomes of opening relay sockets. It never panics, forwards only bytes it was given, respects its
//! limits, and closes every relay socket in the end.

#![no_main]

#[allow(dead_code, reason = "the stories use all of it")]
#[path = "../../tests/stories/world.rs"]
mod world;

use hairpin::turn::{
    AllocationLimits, Answer, Denial, OperatorCommand, PeerAddr, PerFamily, PortUse, Shortage, ToPeer, Tos,
};
use hairpin::wire::{Class, Encoder, Family, Message, Method, TransactionId, attribute};
use libfuzzer_sys::fuzz_target;
use world::{Client, World, addr, config, credentials};

/// Small enough to be reached.
const LIMITS: AllocationLimits = AllocationLimits {
    allocations: 6,
    permissions: 4,
    channels: 3,
    new_peers: 3,
    bandwidth: 2000,
    pending: 2,
};

/// The ports of a relay that has none left.
const ALL_PORTS: PortUse = PortUse { range: (49152, 49153), ports: 2, in_use: 2 };

const CLIENTS: [&str; 4] =
    ["198.51.100.1:1000", "198.51.100.1:1001", "[2001:db8::9]:1000", "[fe80::9%3]:1000"];

const PEERS: [&str; 8] = [
    "8.8.8.8:1",
    "8.8.8.8:2",
    "8.8.4.4:0",
    "10.0.0.1:1",
    "192.0.2.1:50000",
    "192.0.2.1:3478",
    "[2606:4700::1]:1",
    "[2001:db8::1]:50000",
];

const METHODS: [Method; 7] = [
    Method::Allocate,
    Method::Refresh,
    Method::CreatePermission,
    Method::ChannelBind,
    Method::Send,
    Method::Binding,
    Method::Data,
];

fuzz_target!(|input: &[u8]| {
    let mut world = World::new(hairpin::turn::TurnConfig { limits: LIMITS, ..config() }, credentials());
    let mut clients = CLIENTS.map(Client::new);
    for client in &mut clients {
        // Fetches a nonce.
        client.refresh(&mut world, 0);
    }
    let mut input = Input(input);
    while let Some(step) = input.byte() {
        let client = &mut clients[usize::from(step >> 6)];
        match step & 15 {
            0..=6 => request(&mut world, client, &mut input),
            7 => {
                let bytes = input.some().to_vec();
                let forward = world.deliver(&client.tuple, &bytes);
                check(&world, forward, bytes.len());
            }
            8 => {
                let channel = 0x4000 + u16::from(input.byte().unwrap_or(0) % 5);
                let run =
                    world::channel_message(channel, input.some()).repeat(1 + usize::from(step >> 4 & 3));
                let segment_size = run.len() / (1 + usize::from(step >> 4 & 3));
                let forward =
                    world.server.from_client(world.now, &client.tuple, Tos(step), segment_size, &run);
                check(&world, forward, segment_size);
            }
            9 => from_peer(&mut world, &mut input),
            10 => world.pass(u64::from(input.byte().unwrap_or(0)) * 8),
            11 => world.pass_unnoticed(u64::from(input.byte().unwrap_or(0)) * 8),
            12 => world.hold = !world.hold,
            13 => {
                world.deny = Some(if step & 16 == 0 { Denial::Quota(6) } else { Denial::NoPort(ALL_PORTS) })
            }
            14 => {
                world.short_of = [None, Some(Family::V4), Some(Family::V6), None][usize::from(step >> 4 & 3)]
            }
            _ => answer(&mut world, step),
        }
        let stats = world.server.stats();
        assert!(stats.allocations <= LIMITS.allocations as u64);
        assert!(stats.permissions <= (LIMITS.allocations * LIMITS.permissions) as u64);
        assert!(stats.channels <= (LIMITS.allocations * LIMITS.channels) as u64);
        for (_, reply) in world.replies.drain(..) {
            assert!(Message::parse(&reply).is_ok() || reply[4..8] != [0x21, 0x12, 0xA4, 0x42]);
        }
    }
    while !world.asked.is_empty() {
        answer(&mut world, 0);
    }
    world.server.command(world.now, OperatorCommand::EndAll);
    world.drain();
    world.assert_empty();
});

/// Forwarded bytes lie within one segment, and leave from an open relay socket to an allowed peer.
fn check(world: &World, forward: Option<ToPeer>, segment_size: usize) {
    let Some(forward) = forward else { return };
    assert!(forward.offset + forward.len <= segment_size);
    let relayed = world.sockets.get(&forward.socket).expect("an open socket");
    assert_eq!(relayed.is_ipv4(), forward.peer.0.is_ipv4());
    assert!(
        forward.peer.0.port() != 0 && !PEERS[3..=5].contains(&forward.peer.0.to_string().as_str()) || {
            // The relay's own address, on the port of a live allocation.
            world.sockets.values().any(|socket| *socket == forward.peer.0)
        }
    );
}

/// A message whose attributes roughly fit its method.
fn request(world: &mut World, client: &mut Client, input: &mut Input<'_>) {
    let method = METHODS[usize::from(input.byte().unwrap_or(0)) % METHODS.len()];
    let shape = input.byte().unwrap_or(0);
    let fill = |message: &mut Encoder, input: &mut Input<'_>| {
        if method == Method::Allocate && shape & 1 == 0 {
            message.bytes(attribute::REQUESTED_TRANSPORT, &[17, 0, 0, 0]);
        }
        if method == Method::ChannelBind {
            message.u32(attribute::CHANNEL_NUMBER, (0x3FFF + u32::from(shape & 7)) << 16);
        }
        if !matches!(method, Method::Allocate | Method::Refresh) {
            let peer = PEERS[usize::from(input.byte().unwrap_or(0)) % PEERS.len()];
            message.xor_address(attribute::XOR_PEER_ADDRESS, addr(peer));
        }
        for _ in 0..shape >> 6 {
            let kind = [
                attribute::LIFETIME,
                attribute::REQUESTED_ADDRESS_FAMILY,
                attribute::ADDITIONAL_ADDRESS_FAMILY,
                attribute::EVEN_PORT,
                attribute::RESERVATION_TOKEN,
                attribute::XOR_PEER_ADDRESS,
                attribute::DATA,
                0x7FFF,
            ][usize::from(input.byte().unwrap_or(0) & 7)];
            message.bytes(kind, input.some());
        }
    };
    let bytes = if method == Method::Send || method == Method::Data {
        let mut message = Encoder::new(Class::Indication, method, TransactionId([1; 12]));
        fill(&mut message, input);
        message.finish()
    } else {
        if shape & 2 == 0 {
            // A retransmission if the previous request was the same.
            client.next_id = client.next_id.wrapping_sub(1);
        }
        client.user = if shape & 12 == 12 { "bob" } else { "alice" }.into();
        client.password = ["wonder", "builder"][usize::from(shape & 12 == 12)].into();
        client.next_id %= 250;
        client.request(method, |message| fill(message, input))
    };
    let forward = world.deliver(&client.tuple, &bytes);
    check(world, forward, bytes.len());
}

fn from_peer(world: &mut World, input: &mut Input<'_>) {
    let at = usize::from(input.byte().unwrap_or(0));
    let Some(&relay) = world.relays.keys().nth(at % 8) else { return };
    let peer = PeerAddr(addr(PEERS[usize::from(input.byte().unwrap_or(0)) % PEERS.len()]));
    let segment_size = 1 + usize::from(input.byte().unwrap_or(0));
    let payload = input.some();
    if let Some(to) = world.server.from_peer(world.now, relay, peer, Tos(0), segment_size, payload) {
        for (n, segment) in payload.chunks(segment_size).enumerate() {
            let mut header = vec![0; to.header.len()];
            to.header.write(n, segment.len(), &mut header);
        }
    }
}

/// Answers the oldest pending question, possibly with fewer relay sockets than requested.
fn answer(world: &mut World, step: u8) {
    let Some((ticket, ask)) = world.asked.pop_front() else { return };
    let mut answer = world.open(&ask);
    if let Answer::Opened { relays: PerFamily { v4: Some(v4), .. }, .. } = &mut answer
        && step & 32 != 0
        && let Ok(opened) = std::mem::replace(v4, Err(Shortage))
    {
        world.sockets.remove(&opened.socket);
    }
    world.server.answered(world.now, ticket, answer);
    world.drain();
}

/// The fuzzer's input, consumed from the front.
struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    fn byte(&mut self) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }

    /// As many bytes as the first byte says.
    fn some(&mut self) -> &'a [u8] {
        let len = usize::from(self.byte().unwrap_or(0)).min(self.0.len());
        let (some, rest) = self.0.split_at(len);
        self.0 = rest;
        some
    }
}
