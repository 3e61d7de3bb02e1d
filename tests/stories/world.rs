//! The world of the stories: a server, a clock that moves only when told to, clients with credentials, and an owner of
//! relay sockets that answers questions.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex};

use hairpin::auth::{Auth, AuthConfig, NonceKeys, Password, Secret, StaticUser, md5_key};
use hairpin::turn::bucket::{RateLimiter, Rates, UnsignedResponse};
use hairpin::turn::peers::{Cidr, PeerRules, Rules};
use hairpin::turn::{
    Admission, AllocationLimits, AllocationNames, Answer, Ask, ChannelBound, ClientAddr, Closed,
    ClosedPortDropped, Denial, External, Families, FiveTuple, Lifetimes, ListenerTable, LiveRelays, Now,
    Opened, OpenedRelay, Output, PeerAddr, PerFamily, PortRequest, Refused, RelayId, RelayRequest,
    RelaySocketId, RelayedAddr, Server, Shared, Shortage, Snapshot, Ticket, ToClient, ToPeer, Token, Tos,
    Transport, TurnConfig, Via,
};
use hairpin::wire::{
    Attribute, ChannelRange, Class, Encoder, Family, Message, Method, TransactionId, attribute,
};
use rand::SeedableRng;
use rand::rngs::StdRng;

pub const REALM: &str = "example.org";
pub const SECOND: u64 = 1_000_000_000;
pub const START: u64 = 1_700_000_000;

/// Peers that may be reached.
pub const PEER: &str = "8.8.8.8:5000";
pub const PEER6: &str = "[2606:4700::1]:5000";
/// A peer that is refused.
pub const PRIVATE: &str = "10.0.0.1:5000";

pub fn addr(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

/// The relayed addresses that hold an allocation.
#[derive(Clone, Default)]
pub struct Live(Arc<Mutex<BTreeSet<SocketAddr>>>);

impl LiveRelays for Live {
    fn is_live(&self, relayed: SocketAddr) -> bool {
        self.0.lock().unwrap().contains(&relayed)
    }
}

pub struct World {
    pub server: Server,
    pub now: Now,
    /// The generation of the newest snapshot.
    pub generation: u64,
    pub live: Live,
    /// The relay sockets that are open.
    pub sockets: BTreeMap<RelaySocketId, SocketAddr>,
    /// The socket of each relayed address that was ever opened.
    pub relays: BTreeMap<RelayId, RelaySocketId>,
    /// Sockets reserved with a token.
    pub reserved: BTreeMap<Token, SocketAddr>,
    /// The next question is answered with this instead.
    pub deny: Option<Denial>,
    /// No ports of this family are free.
    pub short_of: Option<Family>,
    /// Questions stay unanswered in `asked`.
    pub hold: bool,
    pub asked: VecDeque<(Ticket, Ask)>,
    pub replies: VecDeque<(FiveTuple, Vec<u8>)>,
    pub opened: Vec<Opened>,
    pub closed: Vec<Closed>,
    pub refused: Vec<Refused>,
    pub withheld: Vec<UnsignedResponse>,
    pub nested: Vec<FiveTuple>,
    pub closed_ports_dropped: Vec<ClosedPortDropped>,
    /// What a forwarding table outside of the server was told, as text.
    pub channels: Vec<String>,
    pub bound: Vec<ChannelBound>,
    pub next_port: u16,
    pub next_socket: u64,
}

pub fn config() -> TurnConfig {
    TurnConfig {
        admission: Admission::Open,
        families: Families { v4: true, v6: true },
        lifetimes: Lifetimes::default(),
        channels: ChannelRange::default(),
        limits: AllocationLimits { new_peers: 0, ..AllocationLimits::default() },
        rates: Rates::default(),
        external: External::default(),
        peers: PeerRules::new(rules()),
        listeners: ListenerTable::default(),
        software: None,
    }
}

pub fn rules() -> Rules {
    let relay = ["192.0.2.1".parse().unwrap(), "2001:db8::1".parse().unwrap()];
    Rules {
        relay: relay.to_vec(),
        own: relay.iter().copied().map(Cidr::from).collect(),
        endpoints: vec![addr("0.0.0.0:3478"), addr("[::]:3478")],
        ..Rules::default()
    }
}

pub fn credentials() -> AuthConfig {
    let user = |name: &str, password: &str| StaticUser {
        name: name.into(),
        password: Password::Plain(Secret::new(password)),
        allocations: 0,
    };
    AuthConfig {
        realm: REALM.into(),
        users: vec![user("alice", "wonder"), user("bob", "builder")],
        listed: std::sync::Arc::default(),
        secrets: Vec::new(),
        livekit_keys: Vec::new(),
        livekit_two_part: true,
        user_before_expiry: false,
        max_lifetime: 2_592_000,
        nonce_lifetime: 3600,
    }
}

impl Default for World {
    fn default() -> World {
        World::new(config(), credentials())
    }
}

impl World {
    pub fn new(config: TurnConfig, credentials: AuthConfig) -> World {
        World::with_rates(config, credentials, Rates::default())
    }

    pub fn with_rates(config: TurnConfig, credentials: AuthConfig, rates: Rates) -> World {
        let config = TurnConfig { rates, ..config };
        let live = Live::default();
        let mut rng = StdRng::seed_from_u64(1);
        let shared = Shared {
            rates: RateLimiter::new(&mut rng),
            live: Box::new(live.clone()),
            names: AllocationNames::new(1 << 20),
        };
        World {
            server: Server::new(
                Arc::new(Snapshot { generation: 1, auth: auth(credentials), config }),
                Arc::new(shared),
                rng,
            ),
            generation: 1,
            now: Now { mono: 5 * SECOND, unix: START },
            live,
            sockets: BTreeMap::new(),
            relays: BTreeMap::new(),
            reserved: BTreeMap::new(),
            deny: None,
            short_of: None,
            hold: false,
            asked: VecDeque::new(),
            replies: VecDeque::new(),
            opened: Vec::new(),
            closed: Vec::new(),
            refused: Vec::new(),
            withheld: Vec::new(),
            nested: Vec::new(),
            closed_ports_dropped: Vec::new(),
            channels: Vec::new(),
            bound: Vec::new(),
            next_port: 50_000,
            next_socket: 0,
        }
    }

    /// Lets time pass; every timeout on the way is handled when it is due.
    pub fn pass(&mut self, seconds: u64) {
        let end = self.now.mono + seconds * SECOND;
        let mut steps = 0;
        while let Some(at) = self.server.poll_timeout().filter(|at| *at <= end) {
            self.at(at.max(self.now.mono));
            self.server.handle_timeout(self.now);
            self.drain();
            steps = if self.server.poll_timeout() == Some(at) { steps + 1 } else { 0 };
            assert!(steps < 1000, "a deadline that does not end");
        }
        self.at(end);
    }

    /// Lets time pass without handling any timeout.
    pub fn pass_unnoticed(&mut self, seconds: u64) {
        self.at(self.now.mono + seconds * SECOND);
    }

    fn at(&mut self, mono: u64) {
        let started = self.now.unix - self.now.mono / SECOND;
        self.now = Now { mono, unix: started + mono / SECOND };
    }

    /// Applies a new snapshot; no permission or channel has been judged by it yet.
    pub fn apply(&mut self, config: TurnConfig, credentials: AuthConfig) {
        self.generation += 1;
        let snapshot = Snapshot { generation: self.generation, auth: auth(credentials), config };
        self.server.apply(self.now, Arc::new(snapshot));
    }

    /// Delivers a message from a client; returns the decision to forward it.
    pub fn deliver(&mut self, tuple: &FiveTuple, bytes: &[u8]) -> Option<ToPeer> {
        let forward = self.server.from_client(self.now, tuple, Tos(0), bytes.len(), bytes);
        self.drain();
        forward
    }

    /// Sends a request and takes its response.
    pub fn ask(&mut self, tuple: &FiveTuple, bytes: &[u8]) -> Reply {
        assert_eq!(self.deliver(tuple, bytes), None);
        let reply = self.replies.pop_front().expect("a response");
        assert!(self.replies.is_empty(), "one response");
        assert_eq!(reply.0, *tuple, "it goes to the sender of the request");
        Reply(reply.1)
    }

    /// Sends a request that gets no response.
    pub fn ignores(&mut self, tuple: &FiveTuple, bytes: &[u8]) {
        assert_eq!(self.deliver(tuple, bytes), None);
        assert!(self.replies.is_empty(), "no response");
    }

    /// A datagram from a peer to a relayed address.
    pub fn peer_sends(&mut self, relay: RelayId, peer: &str, payload: &[u8]) -> Option<ToClient> {
        let to = self.server.from_peer(self.now, relay, PeerAddr(addr(peer)), Tos(0), payload.len(), payload);
        self.drain();
        to
    }

    pub fn drain(&mut self) {
        while let Some(output) = self.server.poll_output() {
            match output {
                Output::Reply { to, message } => self.replies.push_back((to, message)),
                Output::Ask { ticket, ask } if self.hold => self.asked.push_back((ticket, ask)),
                Output::Ask { ticket, ask } => {
                    let answer = self.open(&ask);
                    self.server.answered(self.now, ticket, answer);
                }
                Output::CloseRelay(socket) => {
                    let closed = self.sockets.remove(&socket).expect("an open relay socket");
                    self.live.0.lock().unwrap().remove(&closed);
                }
                Output::Opened(opened) => {
                    for (family, relay) in opened.relays.present() {
                        self.relays.insert(RelayId { allocation: opened.id, family }, relay.socket);
                    }
                    self.opened.push(opened);
                }
                Output::Closed(closed) => self.closed.push(closed),
                Output::Refused(refused) => self.refused.push(refused),
                Output::Withheld { response, .. } => self.withheld.push(response),
                Output::NestedDropped { from } => self.nested.push(from),
                Output::ClosedPortDropped(dropped) => self.closed_ports_dropped.push(dropped),
                Output::ChannelBound(bound) => {
                    self.channels.push(format!("+{:#x} {}", bound.channel, bound.peer));
                    self.bound.push(bound);
                }
                Output::PermissionLapsed { peer, .. } => self.channels.push(format!("lapsed {peer}")),
                Output::PermissionRestored { peer, .. } => self.channels.push(format!("restored {peer}")),
                Output::ChannelUnbound { channel, .. } => self.channels.push(format!("-{channel:#x}")),
            }
        }
    }

    /// The answer to a question, as the datapath would give it.
    pub fn open(&mut self, ask: &Ask) -> Answer {
        if let Some(denial) = self.deny.take() {
            return Answer::Refused(denial);
        }
        match ask {
            Ask::OpenRelay(RelayRequest { families, port, .. }) => {
                let first = self.next_port;
                self.next_port += 2;
                let ip = |family| -> IpAddr {
                    match family {
                        Family::V4 => "192.0.2.1".parse().unwrap(),
                        Family::V6 => "2001:db8::1".parse().unwrap(),
                    }
                };
                let relays = PerFamily::from_fn(|family| {
                    families[family].then(|| match self.short_of == Some(family) {
                        true => Err(Shortage),
                        false => Ok(self.socket(SocketAddr::new(ip(family), first))),
                    })
                });
                let token = (*port == PortRequest::Pair).then(|| {
                    let token = u64::from(first).to_be_bytes();
                    let family = if families.v4 { Family::V4 } else { Family::V6 };
                    self.reserved.insert(token, SocketAddr::new(ip(family), first + 1));
                    token
                });
                Answer::Opened { relays, token }
            }
            Ask::ClaimReservation { token, .. } => match self.reserved.remove(token) {
                None => Answer::Refused(Denial::SocketFailed),
                Some(reserved) => {
                    let mut relays = PerFamily::default();
                    relays[Family::of(reserved.ip())] = Some(Ok(self.socket(reserved)));
                    Answer::Opened { relays, token: None }
                }
            },
        }
    }

    pub fn socket(&mut self, at: SocketAddr) -> OpenedRelay {
        // Differs from every other number in these stories
        let socket = RelaySocketId(1 << 40 | self.next_socket);
        self.next_socket += 1;
        self.sockets.insert(socket, at);
        self.live.0.lock().unwrap().insert(at);
        OpenedRelay { addr: RelayedAddr(at), socket }
    }

    /// The relayed transport address, if it is still open.
    pub fn relayed(&self, relay: RelayId) -> Option<SocketAddr> {
        self.sockets.get(self.relays.get(&relay)?).copied()
    }

    /// Closes a socket without being told to, as if it moved elsewhere.
    pub fn give_away(&mut self, socket: RelaySocketId) -> SocketAddr {
        let at = self.sockets.remove(&socket).expect("an open relay socket");
        self.live.0.lock().unwrap().remove(&at);
        at
    }

    /// A client with an allocation.
    pub fn allocated(&mut self, client: &str) -> Client {
        let mut client = Client::new(client);
        let answer = client.allocate(self, |_| {});
        assert_eq!(answer.code(), 0);
        client.relay = Some(RelayId { allocation: self.opened.last().unwrap().id, family: Family::V4 });
        client
    }

    /// Asserts that nothing is left: no socket, no deadline, no gauge above zero.
    pub fn assert_empty(&self) {
        assert!(self.sockets.is_empty());
        assert_eq!(self.server.poll_timeout(), None);
        let stats = self.server.stats();
        assert_eq!((stats.allocations, stats.permissions, stats.channels), (0, 0, 0));
        assert_eq!(stats.relays, [PerFamily::default(); 3]);
    }
}

pub fn auth(config: AuthConfig) -> Arc<Auth> {
    Arc::new(Auth::new(config, NonceKeys { current: [7; 32], previous: None }).unwrap())
}

/// A client with a user's long-term credential.
#[derive(Clone)]
pub struct Client {
    pub tuple: FiveTuple,
    pub user: String,
    pub password: String,
    pub nonce: Vec<u8>,
    pub relay: Option<RelayId>,
    pub next_id: u8,
}

impl Client {
    pub fn new(client: &str) -> Client {
        let server = if addr(client).is_ipv4() { "192.0.2.1:3478" } else { "[2001:db8::1]:3478" };
        Client {
            tuple: FiveTuple {
                client: ClientAddr(addr(client)),
                server: addr(server),
                transport: Transport::Udp,
                via: Via::Direct,
            },
            user: "alice".into(),
            password: "wonder".into(),
            nonce: Vec::new(),
            relay: None,
            next_id: 0,
        }
    }

    pub fn named(self, user: &str, password: &str) -> Client {
        Client { user: user.into(), password: password.into(), ..self }
    }

    pub fn relay(&self) -> RelayId {
        self.relay.expect("an allocation")
    }

    pub fn key(&self) -> [u8; 16] {
        md5_key(&self.user, REALM, &self.password)
    }

    /// A request with a new transaction id and this client's credentials.
    pub fn request(&mut self, method: Method, fill: impl FnOnce(&mut Encoder)) -> Vec<u8> {
        let mut request = Encoder::new(Class::Request, method, self.id());
        fill(&mut request);
        request.text(attribute::USERNAME, &self.user);
        request.text(attribute::REALM, REALM);
        request.bytes(attribute::NONCE, &self.nonce);
        request.integrity_sha1(&self.key());
        request.finish()
    }

    pub fn id(&mut self) -> TransactionId {
        self.next_id += 1;
        TransactionId([self.next_id; 12])
    }

    /// Sends a request. After a 401 or 438 with a new nonce it sends the request again, as every client does.
    pub fn ask(&mut self, world: &mut World, method: Method, fill: impl Fn(&mut Encoder)) -> Reply {
        let request = self.request(method, &fill);
        let answer = world.ask(&self.tuple, &request);
        match answer.code() {
            401 | 438 if answer.bytes(attribute::NONCE).is_some_and(|nonce| nonce != self.nonce) => {
                self.nonce = answer.bytes(attribute::NONCE).unwrap();
                let request = self.request(method, fill);
                world.ask(&self.tuple, &request)
            }
            _ => answer,
        }
    }

    /// An Allocate with REQUESTED-TRANSPORT UDP and what `fill` adds.
    pub fn allocate(&mut self, world: &mut World, fill: impl Fn(&mut Encoder)) -> Reply {
        self.ask(world, Method::Allocate, |request| {
            request.bytes(attribute::REQUESTED_TRANSPORT, &[17, 0, 0, 0]);
            fill(request);
        })
    }

    pub fn refresh(&mut self, world: &mut World, lifetime: u32) -> Reply {
        self.ask(world, Method::Refresh, |request| request.u32(attribute::LIFETIME, lifetime))
    }

    pub fn permit(&mut self, world: &mut World, peers: &[&str]) -> Reply {
        self.ask(world, Method::CreatePermission, |request| {
            for peer in peers {
                request.xor_address(attribute::XOR_PEER_ADDRESS, addr(peer));
            }
        })
    }

    pub fn bind(&mut self, world: &mut World, channel: u16, peer: &str) -> Reply {
        self.ask(world, Method::ChannelBind, |request| {
            request.u32(attribute::CHANNEL_NUMBER, u32::from(channel) << 16);
            request.xor_address(attribute::XOR_PEER_ADDRESS, addr(peer));
        })
    }

    /// A Send indication.
    pub fn send(&mut self, world: &mut World, peer: &str, data: &[u8]) -> Option<ToPeer> {
        let mut indication = Encoder::new(Class::Indication, Method::Send, self.id());
        indication.xor_address(attribute::XOR_PEER_ADDRESS, addr(peer));
        indication.bytes(attribute::DATA, data);
        world.deliver(&self.tuple, &indication.finish())
    }

    /// A ChannelData message.
    pub fn channel_data(&self, world: &mut World, channel: u16, data: &[u8]) -> Option<ToPeer> {
        world.deliver(&self.tuple, &channel_message(channel, data))
    }
}

pub fn channel_message(channel: u16, data: &[u8]) -> Vec<u8> {
    [&channel.to_be_bytes(), &(data.len() as u16).to_be_bytes(), data].concat()
}

/// A response.
pub struct Reply(pub Vec<u8>);

impl Reply {
    pub fn message(&self) -> Message<'_> {
        Message::parse(&self.0).expect("a STUN message")
    }

    /// The error code, or 0 for success.
    pub fn code(&self) -> u16 {
        match self.message().class() {
            Class::Success => 0,
            _ => self.attribute(attribute::ERROR_CODE).expect("ERROR-CODE").error_code().unwrap().0,
        }
    }

    pub fn attribute(&self, kind: u16) -> Option<Attribute<'_>> {
        self.message().attribute(kind)
    }

    pub fn bytes(&self, kind: u16) -> Option<Vec<u8>> {
        Some(self.attribute(kind)?.value.to_vec())
    }

    pub fn lifetime(&self) -> Option<u32> {
        Some(self.attribute(attribute::LIFETIME)?.u32().unwrap())
    }

    /// Every XOR-RELAYED-ADDRESS.
    pub fn relayed(&self) -> Vec<SocketAddr> {
        let all = self.message().attributes().filter(|a| a.kind == attribute::XOR_RELAYED_ADDRESS);
        all.map(|relayed| relayed.xor_address().unwrap()).collect()
    }

    pub fn token(&self) -> Option<Token> {
        Some(self.attribute(attribute::RESERVATION_TOKEN)?.array().unwrap())
    }
}
