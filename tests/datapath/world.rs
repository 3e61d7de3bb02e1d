//! A running relay on loopback, each test's on addresses of its own.

use std::net::{IpAddr, Ipv6Addr, SocketAddr, UdpSocket};
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use hairpin::auth::{self, Auth, NonceKeys, Password, Secret, StaticUser};
use hairpin::datapath::stream::StreamLimits;
use hairpin::datapath::{DatapathConfig, DatapathSnapshot, ListenerGroup, WorkerStats, Workers};
use hairpin::tls::Identity;
use hairpin::turn::bucket::AnswerBucket;
use hairpin::turn::peers::{PeerRules, Rules};
use hairpin::turn::{self, AllocationLimits, Families, Lifetimes};
use rand::SeedableRng;
use rand::rngs::StdRng;

use crate::client::Client;

const FAMILIES: Families = Families { v4: true, v6: true };

pub const REALM: &str = "example.org";

/// A relay and what it listens on.
pub struct Relay {
    workers: Workers,
    pub listeners: Vec<SocketAddr>,
}

/// What a relay is started with.
pub struct Setup {
    pub workers: usize,
    pub udp: Vec<SocketAddr>,
    pub relay: Vec<IpAddr>,
    pub ports: RangeInclusive<u16>,
    pub user_allocations: usize,
    pub reservation_lifetime: u64,
    pub connections: StreamLimits,
    pub lifetimes: Lifetimes,
    pub gro: bool,
    pub gso: bool,
    pub steering: bool,
}

/// One worker that listens for UDP clients and relays on `ip`, with everything on.
pub fn setup(ip: &str) -> Setup {
    let ip: IpAddr = ip.parse().unwrap();
    Setup {
        workers: 1,
        udp: vec![SocketAddr::new(ip, 0)],
        relay: vec![ip],
        ports: 20_000..=39_999,
        user_allocations: 1000,
        reservation_lifetime: 30,
        connections: StreamLimits::default(),
        lifetimes: Lifetimes::default(),
        gro: true,
        gso: true,
        steering: true,
    }
}

impl Setup {
    pub fn datapath(&self) -> DatapathConfig {
        DatapathConfig {
            workers: self.workers,
            ports: self.ports.clone(),
            reservation_lifetime: self.reservation_lifetime,
            gather: Duration::from_micros(150),
            gro: self.gro,
            gso: self.gso,
            steering: self.steering,
        }
    }

    pub fn snapshot(&self, identity: Option<Identity>) -> DatapathSnapshot {
        let rules = Rules {
            allow: vec!["127.0.0.0/8".parse().unwrap(), "fc00::/7".parse().unwrap()],
            relay: self.relay.clone(),
            local: self.relay.clone(),
            ..Rules::default()
        };
        let turn = turn::TurnConfig {
            external: turn::External::default(),
            families: FAMILIES,
            lifetimes: self.lifetimes,
            limits: AllocationLimits::default(),
            peers: PeerRules::new(rules),
            software: None,
        };
        let user =
            |name: &str| StaticUser { name: name.into(), password: Password::Plain(Secret::new("secret")) };
        let auth = auth::AuthConfig {
            realm: REALM.into(),
            users: vec![user("alice"), user("bob")],
            secrets: Vec::new(),
            user_before_expiry: false,
            nonce_lifetime: 3600,
        };
        let auth = Auth::new(auth, NonceKeys { current: [7; 32], previous: None }).unwrap();
        DatapathSnapshot {
            turn: Arc::new(turn::Snapshot { generation: 1, auth: Arc::new(auth), config: turn }),
            relay: self.relay.clone(),
            user_allocations: self.user_allocations,
            allocations: 1000,
            connections: self.connections,
            identity,
        }
    }
}

impl Relay {
    pub fn start(setup: Setup) -> Relay {
        let config = setup.datapath();
        let open = |&addr| Arc::new(ListenerGroup::open(addr, &config, 0x1234_5678).unwrap());
        let groups: Vec<_> = setup.udp.iter().map(open).collect();
        let listeners = groups.iter().map(|group| group.local_addr()).collect();
        let answers = AnswerBucket::new(0, 0, 1);
        let rng = StdRng::seed_from_u64(5);
        let workers = Workers::start(&config, groups, setup.snapshot(None), answers, rng).unwrap();
        Relay { workers, listeners }
    }

    pub fn workers(&self) -> &Workers {
        &self.workers
    }

    /// A client on the first listener's address.
    pub fn client(&self) -> Client {
        Client::new(self.listeners[0])
    }

    /// A client with an allocation.
    pub fn allocated(&self) -> Client {
        let mut client = self.client();
        assert_eq!(client.allocate_here().code(), 0);
        client
    }

    /// All workers' counters together.
    pub fn stats(&self) -> WorkerStats {
        self.workers().stats().iter().fold(WorkerStats::default(), |mut sum, part| {
            sum.add(part);
            sum
        })
    }

    /// Waits until the published counters are as wanted.
    pub fn wait_for(&self, what: &str, wanted: impl Fn(&WorkerStats) -> bool) {
        for _ in 0..500 {
            if wanted(&self.stats()) {
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        panic!("{what}: {:?}", self.stats());
    }

    pub fn stop(self) {
        self.workers.stop();
    }
}

/// A peer for a relay on `ip`: of the same family, and in IPv4 beside the relay's own address, to which the stricter rules
/// for clients that meet apply.
pub fn peer(ip: &str) -> UdpSocket {
    if ip.contains(':') { socket(&ipv6().expect("asked before").to_string()) } else { socket("127.2.0.1") }
}

/// An IPv6 address of this machine that may be a peer's; `::1` never may.
pub fn ipv6() -> Option<Ipv6Addr> {
    let table = std::fs::read_to_string("/proc/net/if_inet6").unwrap_or_default();
    // Address, interface, prefix length, scope (00: global), flags, name.
    let global = table.lines().find(|line| line.split_whitespace().nth(3) == Some("00"));
    let bits = global.and_then(|line| u128::from_str_radix(line.split_whitespace().next()?, 16).ok());
    if bits.is_none() {
        eprintln!("this machine has no IPv6 address but ::1: nothing is relayed over IPv6 here");
    }
    bits.map(Ipv6Addr::from)
}

/// A socket that waits for a second at most.
pub fn socket(ip: &str) -> UdpSocket {
    let socket = UdpSocket::bind((ip, 0)).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
    socket
}

/// What arrives, and from whom.
pub fn receive(socket: &UdpSocket) -> (Vec<u8>, SocketAddr) {
    let mut buffer = vec![0; 65_536];
    let (len, from) = socket.recv_from(&mut buffer).expect("a datagram");
    buffer.truncate(len);
    (buffer, from)
}

/// Nothing arrives in a tenth of a second.
pub fn assert_silent(socket: &UdpSocket) {
    socket.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
    let got = socket.recv(&mut [0; 2048]);
    socket.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
    assert!(got.is_err(), "{got:?}");
}

pub fn addr(socket: &UdpSocket) -> SocketAddr {
    socket.local_addr().unwrap()
}
