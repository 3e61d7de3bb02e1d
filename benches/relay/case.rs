//! The cases, in which servers are measured.

use crate::contestant::Contestant;
use crate::workload::{
    Beside, ClientTransport, Framing, Handshakes, PeerHost, SetupProtocol, StrangerMessage, Strangers,
    Workload,
};

/// A case.
pub struct Case {
    /// The name on the command line.
    pub name: &'static str,
    /// The description in the heading of the table.
    pub about: &'static str,
    pub kind: CaseKind,
}

/// What is done and measured.
pub enum CaseKind {
    /// The cost per packet through existing allocations.
    Traffic(Workload),
    /// The same, and its ratio to the cost with [`FEW`] allocations.
    Growth(Workload),
    /// The cost per allocation, with clients that allocate, bind a channel and delete.
    Storm {
        /// Requests in flight.
        clients: usize,
    },
    /// The server's memory per allocation, idle and after this traffic.
    Memory(Workload),
    /// The highest rate with less than 0.1 % loss, beginning the search with this one, and the delay at half of coturn's.
    Highest(Workload),
    /// The delay of packets while TLS connections are opened, and without them in the same round.
    Handshakes(Workload, Handshakes),
    /// The delay of packets during a download through the relay's port, during the same download past the relay, and without
    /// one, in the same round; and the CPU time of the relay's host per GB.
    Download(Workload),
}

impl CaseKind {
    /// Whether the case makes sense. The memory of the minimal relay does not, it shakes no hands beside UDP clients, and only
    /// hairpin passes connections on.
    pub fn suits(&self, contestant: &Contestant) -> bool {
        match self {
            CaseKind::Memory(_) | CaseKind::Handshakes(..) => contestant.setup() == SetupProtocol::Turn,
            CaseKind::Download(_) => contestant.is_hairpin(),
            CaseKind::Traffic(_) | CaseKind::Growth(_) | CaseKind::Storm { .. } | CaseKind::Highest(_) => {
                true
            }
        }
    }
}

/// The number of allocations that [`CaseKind::Growth`] compares to.
pub const FEW: usize = 100;

/// Thin flows: a hundred calls.
pub const THIN: Workload = Workload {
    allocations: FEW,
    payload: 200,
    burst: 1,
    rate: 40_000,
    transport: ClientTransport::Udp,
    framing: Framing::Channel,
    peers: PeerHost::Clients,
    beside: None,
};
/// Video bursts.
const BURSTS: Workload = Workload { allocations: 50, payload: 1100, burst: 8, rate: 100_000, ..THIN };

/// Fifty calls of two hundred packets per second.
const CALLS: Workload = Workload { allocations: 50, rate: 10_000, ..THIN };

/// Calls, while thousands of strangers send.
const fn with_strangers(message: StrangerMessage) -> CaseKind {
    let strangers = Beside::Strangers(Strangers { message, sources: 4_000, rate: 20_000 });
    CaseKind::Traffic(Workload { beside: Some(strangers), ..CALLS })
}

/// Calls, while 200 TLS connections per second are opened.
const fn with_handshakes(transport: ClientTransport, resumed: bool) -> CaseKind {
    CaseKind::Handshakes(Workload { transport, ..CALLS }, Handshakes { rate: 200, resumed })
}

/// All cases, in the order of the tables.
pub const CASES: &[Case] = &[
    Case {
        name: "thin-40k",
        about: "thin flows: 100 allocations, 200 B, both directions, 40,000 packets per second",
        kind: CaseKind::Traffic(THIN),
    },
    Case {
        name: "thin-100k",
        about: "thin flows: 100 allocations, 200 B, both directions, 100,000 packets per second",
        kind: CaseKind::Traffic(Workload { rate: 100_000, ..THIN }),
    },
    Case {
        name: "bursts",
        about: "video bursts: 50 allocations, 8 x 1100 B back to back, both directions, 100,000 packets per second",
        kind: CaseKind::Traffic(BURSTS),
    },
    Case {
        name: "indications",
        about: "thin-40k in Send and Data indications",
        kind: CaseKind::Traffic(Workload { framing: Framing::Indication, ..THIN }),
    },
    Case {
        name: "own-address",
        about: "thin-40k with peers on the relay's own address, as of a media server on the same machine",
        kind: CaseKind::Traffic(Workload { peers: PeerHost::Relay, ..THIN }),
    },
    Case {
        name: "allocations-10k",
        about: "thin-40k over 10,000 allocations: the same rate, four packets per second and allocation",
        kind: CaseKind::Growth(Workload { allocations: 10_000, ..THIN }),
    },
    Case {
        name: "tcp",
        about: "thin flows of TCP clients: 100 allocations, 200 B, both directions, 20,000 packets per second",
        kind: CaseKind::Traffic(Workload { transport: ClientTransport::Tcp, rate: 20_000, ..THIN }),
    },
    Case {
        name: "tls",
        about: "thin flows of TLS clients: 100 allocations, 200 B, both directions, 20,000 packets per second",
        kind: CaseKind::Traffic(Workload { transport: ClientTransport::Tls, rate: 20_000, ..THIN }),
    },
    Case {
        name: "tls-video",
        about: "video of TLS clients, which does not fit into every segment: 50 allocations, 1200 B, both directions, 10,000 \
                packets per second",
        kind: CaseKind::Traffic(Workload { payload: 1200, transport: ClientTransport::Tls, ..CALLS }),
    },
    Case {
        name: "storm",
        about: "64 clients at a time that are challenged, allocate, bind a channel and delete",
        kind: CaseKind::Storm { clients: 64 },
    },
    Case {
        name: "memory",
        about: "resident memory per allocation of 5,000 UDP clients, idle and after some packets",
        kind: CaseKind::Memory(Workload { allocations: 5_000, rate: 20_000, ..THIN }),
    },
    Case {
        name: "memory-tcp",
        about: "resident memory per allocation of 1,000 TCP clients, idle and after some packets",
        kind: CaseKind::Memory(Workload {
            allocations: 1_000,
            rate: 5_000,
            transport: ClientTransport::Tcp,
            ..THIN
        }),
    },
    Case {
        name: "memory-tls",
        about: "resident memory per allocation of 1,000 TLS clients, idle and after some packets",
        kind: CaseKind::Memory(Workload {
            allocations: 1_000,
            rate: 5_000,
            transport: ClientTransport::Tls,
            ..THIN
        }),
    },
    Case {
        name: "highest-thin",
        about: "thin flows: the highest rate with less than 0.1 % loss, and the delay at half of coturn's highest rate",
        kind: CaseKind::Highest(THIN),
    },
    Case {
        name: "highest-bursts",
        about: "video bursts: the highest rate with less than 0.1 % loss, and the delay at half of coturn's highest rate",
        kind: CaseKind::Highest(BURSTS),
    },
    Case {
        name: "strangers-requests",
        about: "50 calls, 10,000 packets per second, while strangers send 20,000 requests per second without credentials",
        kind: with_strangers(StrangerMessage::Requests),
    },
    Case {
        name: "strangers-passwords",
        about: "50 calls, 10,000 packets per second, while strangers send 20,000 requests per second with a wrong password",
        kind: with_strangers(StrangerMessage::Passwords),
    },
    Case {
        name: "strangers-garbage",
        about: "50 calls, 10,000 packets per second, while strangers send 20,000 datagrams per second that are not STUN",
        kind: with_strangers(StrangerMessage::Garbage),
    },
    Case {
        name: "strangers-binding",
        about: "50 calls, 10,000 packets per second, while strangers send 20,000 Binding requests per second",
        kind: with_strangers(StrangerMessage::Binding),
    },
    Case {
        name: "handshakes",
        about: "50 calls, 10,000 packets per second, while 200 TLS connections per second are opened with full handshakes",
        kind: with_handshakes(ClientTransport::Udp, false),
    },
    Case {
        name: "handshakes-resumed",
        about: "50 calls, 10,000 packets per second, while 200 TLS sessions per second are resumed",
        kind: with_handshakes(ClientTransport::Udp, true),
    },
    Case {
        name: "handshakes-tls",
        about: "50 calls over TLS, 10,000 packets per second, while 200 TLS connections per second are opened with full \
                handshakes",
        kind: with_handshakes(ClientTransport::Tls, false),
    },
    Case {
        name: "download",
        about: "50 calls, 10,000 packets per second, during a download through the relay's port, and past the relay",
        kind: CaseKind::Download(CALLS),
    },
];
