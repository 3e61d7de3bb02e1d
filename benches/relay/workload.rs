//! What a run sends. The cases, the load generator and the minimal relay share these types.

use std::fmt;

use clap::{Args, ValueEnum};

/// Packets sent on a fixed time grid.
#[derive(Args, Clone, Copy)]
pub struct Workload {
    /// Number of allocations.
    #[arg(long)]
    pub allocations: usize,
    /// Bytes of payload per packet.
    #[arg(long)]
    pub payload: usize,
    /// Packets per burst, sent back to back.
    #[arg(long)]
    pub burst: usize,
    /// Packets per second, both directions together.
    #[arg(long)]
    pub rate: u64,
    /// Transport between clients and relay.
    #[arg(long)]
    pub transport: ClientTransport,
    /// Messages between clients and relay.
    #[arg(long)]
    pub framing: Framing,
    /// The host of the peers.
    #[arg(long)]
    pub peers: PeerHost,
    /// Other traffic of the relay's host in the meantime.
    #[arg(skip)]
    pub beside: Option<Beside>,
}

/// Traffic beside the calls, from a process of its own on the clients' host.
#[derive(Clone, Copy)]
pub enum Beside {
    Strangers(Strangers),
    Handshakes(Handshakes),
    Download(DownloadPath),
}

/// Transport between clients and relay.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ClientTransport {
    Udp,
    Tcp,
    Tls,
}

/// Messages between clients and relay.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Framing {
    /// ChannelData messages.
    Channel,
    /// Send and Data indications.
    Indication,
}

/// The host of the peers.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum PeerHost {
    /// Beside the clients.
    Clients,
    /// The relay's host, where peers use the relay's own address.
    Relay,
}

/// Datagrams from senders that have no allocation and get none.
#[derive(Args, Clone, Copy)]
pub struct Strangers {
    /// The message that each of them sends.
    #[arg(long)]
    pub message: StrangerMessage,
    /// Number of source addresses.
    #[arg(long)]
    pub sources: usize,
    /// Datagrams per second.
    #[arg(long)]
    pub rate: u64,
}

/// What a stranger sends.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum StrangerMessage {
    /// Allocate requests without credentials.
    Requests,
    /// Allocate requests with a wrong password.
    Passwords,
    /// Bytes that are not STUN.
    Garbage,
    /// Binding requests.
    Binding,
}

/// TLS connections that are opened, answered once and closed.
#[derive(Args, Clone, Copy)]
pub struct Handshakes {
    /// Handshakes per second.
    #[arg(long)]
    pub rate: u64,
    /// Resume the session of an earlier connection.
    #[arg(long)]
    pub resumed: bool,
}

/// How a download reaches the web server on the relay's host.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum DownloadPath {
    /// Past the relay, at a port of its own.
    Past,
    /// Through the relay's port, as TLS that it does not open.
    Passed,
    /// Through the relay's port, where TLS ends.
    Terminated,
}

/// How the allocations of a run are made.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum SetupProtocol {
    /// TURN requests.
    Turn,
    /// The requests of the minimal relay.
    Floor,
}

/// Implements `Display` with the words that clap parses, because the benchmark passes them to its child processes.
macro_rules! display_as_argument {
    ($($kind:ty),*) => {$(
        impl fmt::Display for $kind {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.to_possible_value().as_ref().map_or("", |value| value.get_name()))
            }
        }
    )*};
}
display_as_argument!(ClientTransport, DownloadPath, Framing, PeerHost, StrangerMessage, SetupProtocol);

impl Workload {
    /// The arguments that clap parses back into this workload.
    pub fn to_args(self) -> String {
        let Workload { allocations, payload, burst, rate, transport, framing, peers, beside: _ } = self;
        format!(
            "--allocations {allocations} --payload {payload} --burst {burst} --rate {rate} \
             --transport {transport} --framing {framing} --peers {peers}"
        )
    }
}

impl Strangers {
    /// The arguments that clap parses back into these strangers.
    pub fn to_args(self) -> String {
        let Strangers { message, sources, rate } = self;
        format!("--message {message} --sources {sources} --rate {rate}")
    }
}

impl Handshakes {
    /// The arguments that clap parses back into this.
    pub fn to_args(self) -> String {
        format!("--rate {} {}", self.rate, if self.resumed { "--resumed" } else { "" })
    }
}
