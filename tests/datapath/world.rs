//! A running relay on loopback. Every test uses addresses of its own.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr, SocketAddr, UdpSocket};
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use hairpin::auth::{self, Auth, NonceKeys, Password, Secret, StaticUser};
use hairpin::datapath::stream::StreamLimits;
use hairpin::datapath::stream::stats::ConnectionEnd;
use hairpin::datapath::{
    DatapathConfig, DatapathSnapshot, ListenerGroup, SpliceLimits, WorkerStats, Workers,
};
use hairpin::tls::{Identities, Identity, NamedIdentity, Sessions, UnknownName};
use hairpin::turn::bucket::{RateLimiter, Rates};
use hairpin::turn::peers::{Cidr, PeerRules, Rules};
use hairpin::turn::{self, AllocationLimits, ExemptSources, Families, Lifetimes, ListenerTable, Transport};
use hairpin::wire::ChannelRange;
use rand::SeedableRng;
use rand::rngs::StdRng;
use rcgen::{CertifiedKey, generate_simple_self_signed};
use rustls::pki_types::CertificateDer;

use crate::client::Client;

const FAMILIES: Families = Families { v4: true, v6: true };

pub const REALM: &str = "example.org";

/// Both stream transports.
pub const STREAMS: [Transport; 2] = [Transport::Tcp, Transport::Tls];

/// How long sockets of clients and peers wait.
pub const TIMEOUT: Duration = Duration::from_secs(5);

/// A relay, its listeners and its certificate.
pub struct Relay {
    workers: Workers,
    pub setup: Setup,
    pub identities: Identities,
    pub udp: Vec<SocketAddr>,
    pub tcp: SocketAddr,
    pub tls: SocketAddr,
    pub certificate: CertificateDer<'static>,
}

/// The configuration of a relay.
pub struct Setup {
    pub workers: usize,
    pub udp: Vec<SocketAddr>,
    pub tcp: SocketAddr,
    pub tls: SocketAddr,
    pub relay: Vec<IpAddr>,
    pub ports: RangeInclusive<u16>,
    pub user_allocations: usize,
    pub reservation_lifetime: u64,
    pub connections: StreamLimits,
    pub exempt: Vec<Cidr>,
    pub lifetimes: Lifetimes,
    pub gro: bool,
    pub gso: bool,
    pub steering: bool,
    pub channels: ChannelRange,
}

/// A relay with the default setup.
pub fn relay(ip: &str) -> Relay {
    Relay::start(setup(ip))
}

/// One worker that listens and relays on `ip`, with all kernel features enabled.
pub fn setup(ip: &str) -> Setup {
    let ip: IpAddr = ip.parse().unwrap();
    let any_port = SocketAddr::new(ip, 0);
    Setup {
        workers: 1,
        udp: vec![any_port],
        tcp: any_port,
        tls: any_port,
        relay: vec![ip],
        ports: 20_000..=39_999,
        user_allocations: 1000,
        reservation_lifetime: 30,
        connections: StreamLimits::default(),
        exempt: Vec::new(),
        lifetimes: Lifetimes::default(),
        gro: true,
        gso: true,
        steering: true,
        channels: ChannelRange::default(),
    }
}

impl Setup {
    pub fn datapath(&self) -> DatapathConfig {
        DatapathConfig {
            workers: self.workers,
            gro: self.gro,
            gso: self.gso,
            steering: self.steering,
            channels: self.channels,
            mss: HashMap::new(),
        }
    }

    pub fn snapshot(&self, identities: Option<Identities>) -> DatapathSnapshot {
        let rules = Rules {
            allow: vec!["127.0.0.0/8".parse().unwrap(), "fc00::/7".parse().unwrap()],
            relay: self.relay.clone(),
            own: vec!["127.0.0.0/8".parse().unwrap(), "::1".parse().unwrap()],
            ..Rules::default()
        };
        let turn = turn::TurnConfig {
            admission: turn::Admission::Open,
            external: turn::External::default(),
            families: FAMILIES,
            lifetimes: self.lifetimes,
            channels: self.channels,
            limits: AllocationLimits::default(),
            rates: Rates::default(),
            peers: PeerRules::new(rules),
            listeners: ListenerTable::default(),
            software: None,
        };
        let user = |name: &str| StaticUser {
            name: name.into(),
            password: Password::Plain(Secret::new("secret")),
            allocations: self.user_allocations,
        };
        let auth = auth::AuthConfig {
            realm: REALM.into(),
            users: vec![user("alice"), user("bob")],
            listed: Arc::default(),
            secrets: Vec::new(),
            livekit_keys: Vec::new(),
            livekit_two_part: true,
            user_before_expiry: false,
            max_lifetime: 2_592_000,
            nonce_lifetime: 3600,
        };
        let auth = Auth::new(auth, NonceKeys { current: [7; 32], previous: None }).unwrap();
        DatapathSnapshot {
            turn: Arc::new(turn::Snapshot { generation: 1, auth: Arc::new(auth), config: turn }),
            relay: self.relay.clone(),
            ports: self.ports.clone(),
            reservation_lifetime: self.reservation_lifetime,
            descriptors: hairpin::datapath::DescriptorRoom::UNBOUNDED,
            gather: Duration::from_micros(150),
            user_allocations: self.user_allocations,
            allocations: 1000,
            connections: self.connections,
            splices: SpliceLimits::default(),
            exempt: ExemptSources::new(&self.exempt),
            services: HashMap::new(),
            identities,
        }
    }
}

impl Relay {
    pub fn start(setup: Setup) -> Relay {
        let CertifiedKey { cert, signing_key } =
            generate_simple_self_signed(["relay.example.org".into()]).unwrap();
        let identity = Identity::from_pem(cert.pem().as_bytes(), signing_key.serialize_pem().as_bytes());
        let config = setup.datapath();
        let stream = |transport, addr| ListenerGroup::open_stream(transport, addr, &config).unwrap();
        let (tcp, tls) = (stream(Transport::Tcp, setup.tcp), stream(Transport::Tls, setup.tls));
        let udp = setup.udp.iter().map(|&addr| ListenerGroup::open(addr, &config, 0x1234_5678).unwrap());
        let groups: Vec<_> = [tcp, tls].into_iter().chain(udp).map(Arc::new).collect();
        let addrs: Vec<_> = groups.iter().map(|group| group.local_addr()).collect();
        let mut rng = StdRng::seed_from_u64(5);
        let rates = RateLimiter::new(&mut rng);
        let named = NamedIdentity { identity: identity.unwrap(), names: Vec::new(), until: 0 };
        let sessions = Sessions::new().unwrap();
        let identities = Identities::new(&[named], UnknownName::Default, &sessions).unwrap();
        let snapshot = setup.snapshot(Some(identities.clone()));
        let workers = Workers::start(&config, groups, snapshot, rates, rng).unwrap();
        let (tcp, tls, udp) = (addrs[0], addrs[1], addrs[2..].to_vec());
        Relay { workers, setup, identities, udp, tcp, tls, certificate: cert.der().clone() }
    }

    /// A relay with other limits on connections.
    pub fn limited(ip: &str, limits: StreamLimits) -> Relay {
        Relay::start(Setup { connections: limits, ..setup(ip) })
    }

    pub fn workers(&self) -> &Workers {
        &self.workers
    }

    pub fn client(&self, transport: Transport) -> Client {
        match transport {
            Transport::Udp => Client::over_udp(self.udp[0]),
            Transport::Tcp => Client::over_tcp(self.tcp),
            Transport::Tls => Client::over_tls(self, &rustls::version::TLS13),
        }
    }

    /// A client with an allocation.
    pub fn allocated(&self, transport: Transport) -> Client {
        let mut client = self.client(transport);
        assert_eq!(client.allocate_own_family().code(), 0);
        client
    }

    /// The sum of all workers' counters.
    pub fn stats(&self) -> WorkerStats {
        self.workers().stats().iter().fold(WorkerStats::default(), |mut sum, part| {
            sum.add(part);
            sum
        })
    }

    /// Waits until the published counters meet a condition.
    pub fn wait_for(&self, what: &str, wanted: impl Fn(&WorkerStats) -> bool) {
        for _ in 0..1000 {
            if wanted(&self.stats()) {
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        panic!("{what}: {:?}", self.stats());
    }

    /// Waits until so many connections have ended for this reason, over TCP and over TLS.
    pub fn wait_for_ends(&self, why: ConnectionEnd, expected: [u64; 2]) {
        let count = |stats: &WorkerStats| stats.sockets.streams.closed.map(|reasons| reasons[why]);
        self.wait_for(&format!("{why:?} {expected:?}"), |stats| count(stats) == expected);
    }

    /// Waits until no connection or allocation is left.
    pub fn wait_until_empty(&self) {
        self.wait_for("everything has ended", |stats| {
            stats.sockets.streams.open == [0, 0]
                && stats.turn.allocations == 0
                && stats.turn.channels == 0
                && stats.turn.permissions == 0
        });
    }

    pub fn stop(self) {
        self.workers.stop();
    }
}

/// Waits for a change of a relay.
pub fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

/// An IPv4 peer. Its address is not the relay's own, because stricter rules apply between clients of the same relay.
pub fn peer() -> UdpSocket {
    socket("127.2.0.1")
}

/// A peer of the same family as `ip`.
pub fn peer_like(ip: &str) -> UdpSocket {
    if ip.contains(':') { socket(&ipv6().expect("checked before").to_string()) } else { peer() }
}

/// An IPv6 address of this machine that a peer can have; `::1` is always refused.
pub fn ipv6() -> Option<Ipv6Addr> {
    let table = std::fs::read_to_string("/proc/net/if_inet6").unwrap_or_default();
    // Address, interface, prefix length, scope (00: global), flags, name.
    let global = table.lines().find(|line| line.split_whitespace().nth(3) == Some("00"));
    let bits = global.and_then(|line| u128::from_str_radix(line.split_whitespace().next()?, 16).ok());
    if bits.is_none() {
        eprintln!("skipped: relaying over IPv6 needs an address of this machine other than ::1");
    }
    bits.map(Ipv6Addr::from)
}

/// A socket with a timeout.
pub fn socket(ip: &str) -> UdpSocket {
    let socket = UdpSocket::bind((ip, 0)).unwrap();
    socket.set_read_timeout(Some(TIMEOUT)).unwrap();
    socket
}

/// The next datagram and its source.
pub fn receive(socket: &UdpSocket) -> (Vec<u8>, SocketAddr) {
    let mut buffer = vec![0; 65_536];
    let (len, from) = socket.recv_from(&mut buffer).expect("a datagram");
    buffer.truncate(len);
    (buffer, from)
}

/// Fails if anything arrives within a tenth of a second.
pub fn assert_silent(socket: &UdpSocket) {
    socket.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
    let got = socket.recv(&mut [0; 2048]);
    socket.set_read_timeout(Some(TIMEOUT)).unwrap();
    assert!(got.is_err(), "{got:?}");
}

pub fn addr(socket: &UdpSocket) -> SocketAddr {
    socket.local_addr().unwrap()
}

/// Runs a test in a process of its own. Returns true in that process; otherwise starts it, fails if the test fails there,
/// and returns false. `test` is the path of the test within its target.
pub fn alone(test: &str) -> bool {
    const ALONE: &str = "HAIRPIN_TEST_ALONE";
    if std::env::var_os(ALONE).is_some() {
        return true;
    }
    let mut command = std::process::Command::new(std::env::current_exe().unwrap());
    let child = command.args(["--exact", test, "--nocapture"]).env(ALONE, "1").output().unwrap();
    assert!(child.status.success(), "{}", String::from_utf8_lossy(&child.stderr));
    assert!(String::from_utf8_lossy(&child.stdout).contains("1 passed"), "there is no test {test}");
    false
}
