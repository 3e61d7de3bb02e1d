//! Random interleavings of packets, requests, late answers, snapshots, moves and commands: nothing panics, and after each of
//! them the tables, gauges, deadlines and open sockets agree.

#[allow(dead_code, reason = "the stories use all of it")]
#[path = "../../tests/stories/world.rs"]
mod world;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;

use proptest::prelude::*;
use proptest::strategy::ValueTree;

use self::world::{Client, World, addr, channel_message, config, credentials, rules};
use super::peers::{PeerRules, Rules};
use super::{
    Allocation, AllocationLimits, Denial, External, LiveRelays, OperatorCommand, PeerAddr, PerFamily,
    RelayId, Server, ToPeer, Tos, Transport, TurnConfig,
};
use crate::auth::AuthConfig;
use crate::wire::{Family, Method, attribute};

const CLIENTS: [(&str, Transport); 4] = [
    ("198.51.100.1:1000", Transport::Udp),
    ("198.51.100.1:1000", Transport::Tcp),
    ("[2001:db8::9]:1000", Transport::Udp),
    ("198.51.100.2:1000", Transport::Tls),
];

const PEERS: [&str; 10] = [
    "8.8.8.8:1",
    "8.8.8.8:2",
    "8.8.4.4:1",
    "192.0.2.1:50000",
    "192.0.2.1:7882",
    "203.0.113.1:50000",
    "203.0.113.1:7882",
    "203.0.113.1:60000",
    "[2606:4700::1]:1",
    "[2001:db8::1]:50002",
];

/// What the relay's own machine is to clients.
#[derive(Clone, Copy, Debug)]
enum Machine {
    /// Only clients meet there.
    Closed,
    /// Every port is open.
    Open,
    /// A server is beside the relay.
    Server,
    /// It is behind a NAT, where its external address is 203.0.113.1, and so is the server.
    Nat,
}

impl Machine {
    const ALL: [Machine; 4] = [Machine::Closed, Machine::Open, Machine::Server, Machine::Nat];

    /// `peers.allow`
    fn allow(self) -> &'static [&'static str] {
        match self {
            Machine::Closed => &["192.0.2.0/24"],
            Machine::Open => &["192.0.2.1"],
            Machine::Server => &["192.0.2.1:7000-8000"],
            Machine::Nat => &["192.0.2.1:7000-8000", "203.0.113.1:60000"],
        }
    }

    /// Whether a packet may be exchanged with a port of the machine where no allocation lives.
    fn opens(self, port: u16) -> bool {
        match self {
            Machine::Closed => false,
            Machine::Open => port != 3478,
            Machine::Server | Machine::Nat => (7000..=8000).contains(&port),
        }
    }

    fn config(self, denied: &str) -> TurnConfig {
        let (inside, outside) = ("192.0.2.1".parse().unwrap(), "203.0.113.1".parse().unwrap());
        let allow = self.allow().iter().map(|rule| rule.parse().unwrap()).collect();
        let mut rules = Rules { allow, deny: vec![denied.parse().unwrap()], ..rules() };
        let mut external = External::default();
        if matches!(self, Machine::Nat) {
            external = External::new(vec![(inside, outside)]);
            rules.relay.push(outside);
            rules.relay.retain(|ip| *ip != inside);
        }
        TurnConfig { peers: PeerRules::new(rules), external, ..config() }
    }
}

const LIMITS: AllocationLimits = AllocationLimits {
    allocations: 3,
    permissions: 4,
    channels: 3,
    new_peers: 0,
    bandwidth: 100_000,
    pending: 2,
};

#[derive(Clone, Debug)]
enum Step {
    /// `shape` selects the families, the port, and whether the last request is retransmitted.
    Allocate {
        client: usize,
        shape: u8,
    },
    /// A Refresh of one family or of all.
    Refresh {
        client: usize,
        lifetime: u32,
        family: Option<Family>,
    },
    Permit {
        client: usize,
        peers: Vec<usize>,
    },
    Bind {
        client: usize,
        channel: u16,
        peer: usize,
    },
    Send {
        client: usize,
        peer: usize,
    },
    ChannelData {
        client: usize,
        channel: u16,
    },
    FromPeer {
        relay: prop::sample::Index,
        peer: usize,
    },
    ClientGone {
        client: usize,
    },
    /// Questions stay unanswered from now on, or no longer.
    Hold(bool),
    /// The oldest unanswered question is answered.
    Answer {
        denied: bool,
        short_of: Option<Family>,
    },
    Pass(u64),
    PassUnnoticed(u64),
    /// New rules: which range is denied, and what the relay's own address is.
    Apply {
        denied: usize,
        own: usize,
        permissions: usize,
    },
    /// One step of the timeout.
    Timeout,
    /// An allocation is taken, and adopted again now or later.
    Take(prop::sample::Index),
    Adopt,
    EndAll,
}

fn step() -> impl Strategy<Value = Step> {
    let client = || 0..CLIENTS.len();
    let peer = || 0..PEERS.len();
    let channel = || 0x4000u16..0x4004;
    let family = || prop_oneof![Just(None), Just(Some(Family::V4)), Just(Some(Family::V6))];
    let seconds = || prop_oneof![4 => 0u64..4, 1 => 290u64..310, 1 => 590u64..610];
    let lifetime = prop_oneof![1 => Just(0), 2 => Just(600), 2 => Just(900)];
    prop_oneof![
        8 => (client(), any::<u8>()).prop_map(|(client, shape)| Step::Allocate { client, shape }),
        3 => (client(), lifetime, family())
            .prop_map(|(client, lifetime, family)| Step::Refresh { client, lifetime, family }),
        8 => (client(), prop::collection::vec(peer(), 1..5))
            .prop_map(|(client, peers)| Step::Permit { client, peers }),
        12 => (client(), channel(), peer())
            .prop_map(|(client, channel, peer)| Step::Bind { client, channel, peer }),
        24 => (client(), peer()).prop_map(|(client, peer)| Step::Send { client, peer }),
        8 => (client(), channel()).prop_map(|(client, channel)| Step::ChannelData { client, channel }),
        24 => (any::<prop::sample::Index>(), peer()).prop_map(|(relay, peer)| Step::FromPeer { relay, peer }),
        1 => client().prop_map(|client| Step::ClientGone { client }),
        1 => Just(Step::Hold(true)),
        2 => Just(Step::Hold(false)),
        3 => (prop::bool::weighted(0.2), family())
            .prop_map(|(denied, short_of)| Step::Answer { denied, short_of }),
        4 => seconds().prop_map(Step::Pass),
        2 => seconds().prop_map(Step::PassUnnoticed),
        2 => (0..4usize, 0..Machine::ALL.len(), 1..6usize)
            .prop_map(|(denied, own, permissions)| Step::Apply { denied, own, permissions }),
        3 => Just(Step::Timeout),
        2 => any::<prop::sample::Index>().prop_map(Step::Take),
        4 => Just(Step::Adopt),
        1 => Just(Step::EndAll),
    ]
}

/// Every run begins with two allocations, one of both families, and permissions for peers on this machine and elsewhere.
fn begin() -> impl Iterator<Item = Step> {
    let allocations = [(0, 0x01), (1, 0xE1)].map(|(client, shape)| Step::Allocate { client, shape });
    let permissions = (0..2).map(|client| Step::Permit { client, peers: vec![0, 4] });
    allocations.into_iter().chain(permissions)
}

/// Credentials whose nonces outlive every run.
fn lasting() -> AuthConfig {
    AuthConfig { nonce_lifetime: 1_000_000, ..credentials() }
}

/// The world, the clients in it, and the allocations that no server has.
struct Run {
    world: World,
    clients: Vec<Client>,
    requests: Vec<Vec<u8>>,
    taken: VecDeque<Box<Allocation>>,
    machine: Machine,
    /// How many packets reached a port of this machine.
    own: u64,
}

impl Run {
    fn new() -> Run {
        let mut world = World::new(TurnConfig { limits: LIMITS, ..config() }, lasting());
        let mut clients = Vec::new();
        for (address, transport) in CLIENTS {
            let mut client = Client::new(address);
            client.tuple.transport = transport;
            // Learns its nonce
            client.refresh(&mut world, 0);
            clients.push(client);
        }
        Run {
            world,
            clients,
            requests: vec![Vec::new(); CLIENTS.len()],
            taken: VecDeque::new(),
            machine: Machine::Closed,
            own: 0,
        }
    }

    fn carry_out(&mut self, step: Step) {
        let world = &mut self.world;
        match step {
            Step::Allocate { client, shape } => {
                if shape & 3 != 0 || self.requests[client].is_empty() {
                    self.requests[client] = self.clients[client].request(Method::Allocate, |request| {
                        request.bytes(attribute::REQUESTED_TRANSPORT, &[17, 0, 0, 0]);
                        match shape >> 5 {
                            0 | 1 => request.bytes(attribute::ADDITIONAL_ADDRESS_FAMILY, &[2, 0, 0, 0]),
                            2 => request.bytes(attribute::REQUESTED_ADDRESS_FAMILY, &[2, 0, 0, 0]),
                            3 => request.bytes(attribute::EVEN_PORT, &[0x80]),
                            4 => request.bytes(attribute::RESERVATION_TOKEN, &[0; 8]),
                            _ => {}
                        }
                    });
                }
                world.deliver(&self.clients[client].tuple, &self.requests[client]);
            }
            Step::Refresh { client, lifetime, family } => {
                let request = self.clients[client].request(Method::Refresh, |request| {
                    request.u32(attribute::LIFETIME, lifetime);
                    if let Some(family) = family {
                        request.bytes(attribute::REQUESTED_ADDRESS_FAMILY, &[1 + family as u8, 0, 0, 0]);
                    }
                });
                world.deliver(&self.clients[client].tuple, &request);
            }
            Step::Permit { client, peers } => {
                let request = self.clients[client].request(Method::CreatePermission, |request| {
                    for peer in peers {
                        request.xor_address(attribute::XOR_PEER_ADDRESS, addr(PEERS[peer]));
                    }
                });
                world.deliver(&self.clients[client].tuple, &request);
            }
            Step::Bind { client, channel, peer } => {
                let request = self.clients[client].request(Method::ChannelBind, |request| {
                    request.u32(attribute::CHANNEL_NUMBER, u32::from(channel) << 16);
                    request.xor_address(attribute::XOR_PEER_ADDRESS, addr(PEERS[peer]));
                });
                world.deliver(&self.clients[client].tuple, &request);
            }
            Step::Send { client, peer } => {
                let forward = self.clients[client].send(world, PEERS[peer], b"data");
                self.check_forward(forward);
            }
            Step::ChannelData { client, channel } => {
                let forward = world.deliver(&self.clients[client].tuple, &channel_message(channel, b"data"));
                self.check_forward(forward);
            }
            Step::FromPeer { relay, peer } => {
                let open = |relay: &RelayId| world.relayed(*relay).is_some();
                let relays: Vec<_> = world.relays.keys().copied().filter(open).collect();
                if !relays.is_empty() {
                    let relay = *relay.get(&relays);
                    let peer = PeerAddr(addr(PEERS[peer]));
                    let told = world.server.from_peer(world.now, relay, peer, Tos(0), 4, b"data");
                    assert!(told.is_none() || self.may_reach(peer.0), "{peer} was heard");
                }
            }
            Step::ClientGone { client } => world.server.client_gone(world.now, &self.clients[client].tuple),
            Step::Hold(hold) => world.hold = hold,
            Step::Answer { denied, short_of } => {
                if let Some((ticket, ask)) = world.asked.pop_front() {
                    world.deny = denied.then_some(Denial::SocketFailed);
                    world.short_of = short_of;
                    let answer = world.open(&ask);
                    world.server.answered(world.now, ticket, answer);
                    (world.deny, world.short_of) = (None, None);
                }
            }
            Step::Pass(seconds) => world.pass(seconds),
            Step::PassUnnoticed(seconds) => world.pass_unnoticed(seconds),
            Step::Apply { denied, own, permissions } => {
                let denied = ["8.8.8.0/24", "8.8.0.0/16", "2606:4700::/32", "100.64.0.0/10"][denied];
                let limits = AllocationLimits { permissions, ..LIMITS };
                self.machine = Machine::ALL[own];
                world.apply(TurnConfig { limits, ..self.machine.config(denied) }, lasting());
            }
            Step::Timeout => world.server.handle_timeout(world.now),
            Step::Take(which) => {
                let ids: Vec<_> = world.server.allocations.keys().collect();
                if !ids.is_empty() {
                    self.taken.extend(world.server.take(world.now, *which.get(&ids)));
                }
            }
            Step::Adopt => {
                if let Some(allocation) = self.taken.pop_front() {
                    self.taken.extend(world.server.adopt(world.now, allocation).err());
                }
            }
            Step::EndAll => world.server.command(world.now, OperatorCommand::EndAll),
        }
        self.world.drain();
        self.world.replies.clear();
        check(&self.world.server);
        self.check_sockets();
    }

    /// RFC 8656 §21: what is forwarded reaches no port of this machine that nobody has opened.
    fn check_forward(&mut self, forward: Option<ToPeer>) {
        if let Some(ToPeer { socket, peer, .. }) = forward {
            assert!(self.world.sockets.contains_key(&socket));
            assert!(self.may_reach(peer.0), "{peer} was reached");
            self.own += u64::from(self.is_own(peer.0));
        }
    }

    fn may_reach(&self, peer: SocketAddr) -> bool {
        let opened = peer.is_ipv4() && self.machine.opens(peer.port());
        !self.is_own(peer) || opened || self.world.live.is_live(peer)
    }

    fn is_own(&self, peer: SocketAddr) -> bool {
        ["192.0.2.1", "2001:db8::1"].contains(&&*peer.ip().to_string())
    }

    /// Every open socket belongs to exactly one allocation; [`World`] checks that none is closed twice.
    fn check_sockets(&self) {
        let here = self.world.server.allocations.values().chain(&self.taken);
        let sockets = here.flat_map(|allocation| {
            allocation.sockets().present().map(|(_, socket)| *socket).collect::<Vec<_>>()
        });
        let sockets: Vec<_> = sockets.collect();
        let distinct: BTreeSet<_> = sockets.iter().copied().collect();
        assert_eq!(distinct.len(), sockets.len(), "a socket belongs to two allocations");
        assert_eq!(distinct, self.world.sockets.keys().copied().collect());
    }
}

/// The tables, gauges and deadlines of a server agree.
fn check(server: &Server) {
    let stats = server.stats();
    let (mut permissions, mut channels) = (0, 0);
    let mut relays = [PerFamily::<u64>::default(); Transport::ALL.len()];
    let mut deadlines = server.pending.deadlines().collect::<BTreeSet<_>>();
    for (id, allocation) in &server.allocations {
        allocation.check();
        assert_eq!(server.by_tuple.get(&allocation.tuple), Some(&id));
        assert_eq!(server.by_name.get(&allocation.name), Some(&id));
        assert!(server.pending.allocate_on(&allocation.tuple).is_none());
        permissions += allocation.permissions() as u64;
        channels += allocation.channels() as u64;
        assert!(allocation.relays().next().is_some(), "an allocation without a relayed address");
        for (family, _) in allocation.relays() {
            relays[allocation.tuple.transport.index()][family] += 1;
        }
        for deadline in allocation.deadlines(id) {
            assert!(deadlines.insert(deadline), "{deadline:?} is there twice");
        }
    }
    assert_eq!(server.by_tuple.len(), server.allocations.len());
    assert_eq!(server.by_name.len(), server.allocations.len());
    assert_eq!(stats.allocations, server.allocations.len() as u64);
    assert_eq!((stats.permissions, stats.channels, stats.relays), (permissions, channels, relays));
    assert!(server.allocations.len() <= LIMITS.allocations);
    assert!(server.pending.len() <= LIMITS.pending);
    assert_eq!(server.timers.all(), &deadlines);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn everything_agrees_at_all_times(steps in prop::collection::vec(step(), 1..60)) {
        let mut run = Run::new();
        for step in begin().chain(steps) {
            run.carry_out(step);
        }
        // At the end nothing is left
        run.world.hold = false;
        while !run.world.asked.is_empty() {
            run.carry_out(Step::Answer { denied: false, short_of: None });
        }
        for allocation in std::mem::take(&mut run.taken) {
            for (_, socket) in allocation.sockets().present() {
                run.world.give_away(*socket);
            }
        }
        run.carry_out(Step::EndAll);
        run.world.pass(0);
        run.world.assert_empty();
    }
}

/// The steps above reach what they should: allocations with permissions and channels, refused and pending requests.
#[test]
fn the_steps_reach_everything() {
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let mut reached = BTreeMap::<&str, u64>::new();
    for _ in 0..200 {
        let steps = prop::collection::vec(step(), 1..60).new_tree(&mut runner).unwrap().current();
        let mut run = Run::new();
        for step in begin().chain(steps) {
            run.carry_out(step);
            let stats = run.world.server.stats();
            *reached.entry("dual").or_default() +=
                u64::from(stats.relays.iter().any(|r| r.v4 > 0 && r.v6 > 0));
            *reached.entry("channels").or_default() += u64::from(stats.channels > 1);
            *reached.entry("pending").or_default() += run.world.server.pending.len() as u64;
            *reached.entry("taken").or_default() += run.taken.len() as u64;
            *reached.entry("sweep").or_default() += u64::from(run.world.server.sweep.due().is_some());
        }
        *reached.entry("own").or_default() += run.own;
        let relayed =
            |counts: &[super::stats::TrafficCount]| counts.iter().map(|count| count.packets).sum::<u64>();
        *reached.entry("to peer").or_default() += relayed(&run.world.server.stats().to_peer);
        *reached.entry("to client").or_default() += relayed(&run.world.server.stats().to_client);
    }
    assert!(reached.values().all(|count| *count > 20), "{reached:?}");
}
