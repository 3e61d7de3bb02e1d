//! The loads that contestants are put under.

use std::fmt;

use clap::ValueEnum;

use crate::load::Protocol;

/// One load.
pub struct Case {
    /// What it is called on the command line.
    pub name: &'static str,
    /// What it is.
    pub about: &'static str,
    /// What is done.
    pub kind: Kind,
}

/// What a case does, and with it what is counted.
pub enum Kind {
    /// Packets through allocations that are there.
    Traffic(Traffic),
    /// The same beside a run with few allocations: what their number costs.
    Growth(Traffic),
    /// Clients that allocate, bind a channel and delete.
    Storm {
        /// How many of them wait for an answer at a time.
        clients: usize,
    },
    /// Memory of the server, with idle allocations and after this traffic.
    Memory(Traffic),
    /// The highest rate without loss worth mentioning, this one being where the search begins; and the delay at half of
    /// coturn's.
    Highest(Traffic),
}

impl Kind {
    /// Whether it can be asked of such a contestant: the floor keeps nothing, so its memory says nothing.
    pub fn suits(&self, protocol: Protocol) -> bool {
        !matches!((self, protocol), (Kind::Memory(_), Protocol::Floor))
    }
}

/// Packets on a fixed grid in time.
#[derive(Clone, Copy)]
pub struct Traffic {
    pub allocations: usize,
    /// Bytes of payload in a packet.
    pub payload: usize,
    /// Packets back to back.
    pub burst: usize,
    /// Packets a second, both directions together.
    pub rate: u64,
    /// How clients reach the relay.
    pub client: Client,
    /// What a packet between client and relay is.
    pub form: Form,
    /// Who else sends to the relay meanwhile.
    pub strangers: Option<Strangers>,
}

/// How clients reach the relay.
#[derive(Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum Client {
    #[default]
    Udp,
    Tcp,
    Tls,
}

/// What a packet between client and relay is.
#[derive(Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum Form {
    /// ChannelData.
    #[default]
    Channel,
    /// A Send indication, a Data indication.
    Indication,
}

/// Datagrams of senders who have no allocation and get none.
#[derive(Clone, Copy)]
pub struct Strangers {
    pub kind: Nuisance,
    /// How many addresses they come from.
    pub sources: usize,
    /// Datagrams a second.
    pub rate: u64,
}

/// What a stranger sends.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Nuisance {
    /// Allocate without credentials.
    Requests,
    /// Allocate with a wrong password.
    Passwords,
    /// What is not STUN at all.
    Garbage,
    /// Binding.
    Binding,
}

/// The word that stands for it on a command line.
macro_rules! as_on_the_command_line {
    ($($kind:ty),*) => {$(
        impl fmt::Display for $kind {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.to_possible_value().as_ref().map_or("", |value| value.get_name()))
            }
        }
    )*};
}
as_on_the_command_line!(Client, Form, Nuisance);

/// As many as [`Kind::Growth`] compares to.
pub const FEW: usize = 100;

/// A hundred calls.
pub const THIN: Traffic = Traffic {
    allocations: FEW,
    payload: 200,
    burst: 1,
    rate: 40_000,
    client: Client::Udp,
    form: Form::Channel,
    strangers: None,
};
const BURSTS: Traffic = Traffic { allocations: 50, payload: 1100, burst: 8, rate: 100_000, ..THIN };

/// Fifty calls of two hundred packets a second, and thousands who have no business here.
const fn beside(kind: Nuisance) -> Kind {
    let strangers = Some(Strangers { kind, sources: 4_000, rate: 20_000 });
    Kind::Traffic(Traffic { allocations: 50, rate: 10_000, strangers, ..THIN })
}

/// Every case, in the order of the tables.
pub const CASES: &[Case] = &[
    Case {
        name: "thin-40k",
        about: "thin flows: 100 allocations, 200 B, both directions, 40,000 packets a second",
        kind: Kind::Traffic(THIN),
    },
    Case {
        name: "thin-100k",
        about: "thin flows: 100 allocations, 200 B, both directions, 100,000 packets a second",
        kind: Kind::Traffic(Traffic { rate: 100_000, ..THIN }),
    },
    Case {
        name: "bursts",
        about: "video bursts: 50 allocations, 8 x 1100 B back to back, both directions, 100,000 packets a second",
        kind: Kind::Traffic(BURSTS),
    },
    Case {
        name: "indications",
        about: "thin-40k in Send and Data indications",
        kind: Kind::Traffic(Traffic { form: Form::Indication, ..THIN }),
    },
    Case {
        name: "allocations-10k",
        about: "thin-40k over 10,000 allocations: the same packets a second, four on each",
        kind: Kind::Growth(Traffic { allocations: 10_000, ..THIN }),
    },
    Case {
        name: "tcp",
        about: "thin flows of TCP clients: 100 allocations, 200 B, both directions, 20,000 packets a second",
        kind: Kind::Traffic(Traffic { client: Client::Tcp, rate: 20_000, ..THIN }),
    },
    Case {
        name: "tls",
        about: "thin flows of TLS clients: 100 allocations, 200 B, both directions, 20,000 packets a second",
        kind: Kind::Traffic(Traffic { client: Client::Tls, rate: 20_000, ..THIN }),
    },
    Case {
        name: "storm",
        about: "64 clients at a time, each challenged once, that allocate, bind a channel and delete",
        kind: Kind::Storm { clients: 64 },
    },
    Case {
        name: "memory",
        about: "resident memory of 5,000 allocations, idle and after some packets",
        kind: Kind::Memory(Traffic { allocations: 5_000, rate: 20_000, ..THIN }),
    },
    Case {
        name: "memory-tcp",
        about: "the same of 1,000 allocations of TCP clients",
        kind: Kind::Memory(Traffic { allocations: 1_000, rate: 5_000, client: Client::Tcp, ..THIN }),
    },
    Case {
        name: "memory-tls",
        about: "the same of 1,000 allocations of TLS clients",
        kind: Kind::Memory(Traffic { allocations: 1_000, rate: 5_000, client: Client::Tls, ..THIN }),
    },
    Case {
        name: "highest-thin",
        about: "thin flows: the most packets a second with less than 0.1 % loss, and the delay at half of coturn's most",
        kind: Kind::Highest(THIN),
    },
    Case { name: "highest-bursts", about: "video bursts: the same", kind: Kind::Highest(BURSTS) },
    Case {
        name: "strangers-requests",
        about: "50 calls, 10,000 packets a second, beside 20,000 requests a second without credentials",
        kind: beside(Nuisance::Requests),
    },
    Case {
        name: "strangers-passwords",
        about: "50 calls, 10,000 packets a second, beside 20,000 requests a second with a wrong password",
        kind: beside(Nuisance::Passwords),
    },
    Case {
        name: "strangers-garbage",
        about: "50 calls, 10,000 packets a second, beside 20,000 datagrams a second that are no STUN",
        kind: beside(Nuisance::Garbage),
    },
    Case {
        name: "strangers-binding",
        about: "50 calls, 10,000 packets a second, beside 20,000 Binding requests a second",
        kind: beside(Nuisance::Binding),
    },
];
