//! A running relay on loopback, each test's on addresses of its own.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use hairpin::auth::{self, Auth, NonceKeys, Password, Secret, StaticUser};
use hairpin::datapath::stream::StreamLimits;
use hairpin::datapath::stream::stats::ConnectionEnd;
use hairpin::datapath::{DatapathConfig, DatapathSnapshot, ListenerGroup, WorkerStats, Workers};
use hairpin::tls::Identity;
use hairpin::turn::bucket::AnswerBucket;
use hairpin::turn::peers::{PeerRules, Rules};
use hairpin::turn::{self, AllocationLimits, Families, Lifetimes, Transport};
use rand::SeedableRng;
use rand::rngs::StdRng;
use rcgen::{CertifiedKey, generate_simple_self_signed};

use crate::client::Client;

const FAMILIES: Families = Families { v4: true, v6: true };

pub const REALM: &str = "example.org";

/// Both stream transports.
pub const BOTH: [Transport; 2] = [Transport::Tcp, Transport::Tls];

/// A relay and what it listens on.
pub struct Relay {
    workers: Workers,
    pub setup: Setup,
    pub identity: Identity,
    pub udp: SocketAddr,
    pub tcp: SocketAddr,
    pub tls: SocketAddr,
    pub certificate: rustls::pki_types::CertificateDer<'static>,
}

/// What a relay is started with.
pub struct Setup {
    pub workers: usize,
    pub udp: Vec<SocketAddr>,
    pub tcp: Vec<SocketAddr>,
    pub tls: Vec<SocketAddr>,
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

/// One worker that listens and relays on `ip`, with everything on.
pub fn relay(ip: &str) -> Relay {
    Relay::start(ip, |_| {})
}

impl Relay {
    /// The same, with another setup.
    pub fn start(ip: &str, change: impl FnOnce(&mut Setup)) -> Relay {
        let ip: IpAddr = ip.parse().unwrap();
        let here = SocketAddr::new(ip, 0);
        let CertifiedKey { cert, signing_key } =
            generate_simple_self_signed(["relay.example.org".into()]).unwrap();
        let identity = Identity::from_pem(cert.pem().as_bytes(), signing_key.serialize_pem().as_bytes());
        let mut setup = Setup {
            workers: 1,
            udp: vec![here],
            tcp: vec![here],
            tls: vec![here],
            relay: vec![ip],
            ports: 20_000..=39_999,
            user_allocations: 1000,
            reservation_lifetime: 30,
            connections: StreamLimits::default(),
            lifetimes: Lifetimes::default(),
            gro: true,
            gso: true,
            steering: true,
        };
        change(&mut setup);
        let config = setup.datapath();
        let groups: Vec<_> = [
            ListenerGroup::open(setup.udp[0], &config, 0x1234_5678).unwrap(),
            ListenerGroup::open_stream(Transport::Tcp, setup.tcp[0], &config).unwrap(),
            ListenerGroup::open_stream(Transport::Tls, setup.tls[0], &config).unwrap(),
        ]
        .map(Arc::new)
        .into();
        let at = |group: usize| groups[group].local_addr();
        let (udp, tcp, tls) = (at(0), at(1), at(2));
        let answers = AnswerBucket::new(0, 0, 1);
        let rng = StdRng::seed_from_u64(5);
        let identity = identity.unwrap();
        let snapshot = setup.snapshot(Some(identity.clone()));
        let workers = Workers::start(&config, groups, snapshot, answers, rng).unwrap();
        Relay { workers, setup, identity, udp, tcp, tls, certificate: cert.der().clone() }
    }

    pub fn limited(ip: &str, limits: StreamLimits) -> Relay {
        Relay::start(ip, |setup| setup.connections = limits)
    }

    pub fn workers(&self) -> &Workers {
        &self.workers
    }

    /// A client.
    pub fn client(&self, transport: Transport) -> Client {
        match transport {
            Transport::Tls => Client::over_tls(self, &rustls::version::TLS13),
            Transport::Tcp => Client::over_tcp(self.tcp),
            Transport::Udp => Client::over_udp(self.udp),
        }
    }

    /// A client with an allocation.
    pub fn allocated(&self, transport: Transport) -> Client {
        let mut client = self.client(transport);
        assert_eq!(client.allocate().code(), 0);
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

    /// Waits until nothing is left of any client.
    pub fn wait_until_empty(&self) {
        self.wait_for("nothing is left", |stats| {
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

/// A peer for IPv4 relays, beside the relay's own addresses, to which the stricter rules for clients that meet apply. It waits
/// for some seconds at most.
pub fn peer() -> UdpSocket {
    let socket = UdpSocket::bind(("127.2.0.1", 0)).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    socket
}

/// What arrives, and from whom.
pub fn receive(socket: &UdpSocket) -> (Vec<u8>, SocketAddr) {
    let mut buffer = vec![0; 65_536];
    let (len, from) = socket.recv_from(&mut buffer).expect("a datagram");
    buffer.truncate(len);
    (buffer, from)
}

/// Fails if anything arrives within a short while.
pub fn assert_silent(socket: &UdpSocket) {
    socket.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
    let mut buffer = [0; 2048];
    let got = socket.recv(&mut buffer);
    assert!(got.is_err(), "{:?}", &buffer[..got.unwrap()]);
    socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
}

/// Whether this process runs this one test alone; if not, another process is made to, and its failure is this test's.
pub fn alone(test: &str) -> bool {
    const ALONE: &str = "HAIRPIN_TEST_ALONE";
    if std::env::var_os(ALONE).is_some() {
        return true;
    }
    let mut command = std::process::Command::new(std::env::current_exe().unwrap());
    let child = command.args(["--exact", test, "--nocapture"]).env(ALONE, "1").output().unwrap();
    assert!(child.status.success(), "{}", String::from_utf8_lossy(&child.stderr));
    assert!(String::from_utf8_lossy(&child.stdout).contains("1 passed"), "{test} was found");
    false
}
