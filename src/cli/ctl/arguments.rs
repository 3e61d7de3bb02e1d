//! The arguments of `hairpin ctl`. None of them is a token, which every user of the machine could read.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};

use crate::admin::percent::encoded;
use crate::admin::times;
use crate::cli::parse;

/// The arguments of `hairpin ctl`.
#[derive(Args)]
pub struct CtlArgs {
    #[command(subcommand)]
    pub command: CtlCommand,
    /// Print the response as JSON
    #[arg(long, global = true)]
    pub json: bool,
    /// The control socket of the relay [default: that of `hairpin serve`: admin.socket of --config, otherwise control.sock in
    /// $XDG_RUNTIME_DIR/hairpin or /run/hairpin]
    #[arg(long, global = true, value_name = "PATH", conflicts_with_all = ["config", "url"])]
    pub socket: Option<PathBuf>,
    /// Use the control socket of this configuration file
    #[arg(long, global = true, value_name = "FILE", conflicts_with = "url")]
    pub config: Option<PathBuf>,
    /// Use the API over TCP, at http://HOST:PORT or https://HOST:PORT (admin.listen)
    #[arg(long, global = true, value_name = "URL")]
    pub url: Option<String>,
    /// The file with the token for --url [default: the environment variable HAIRPIN_ADMIN_TOKEN]
    #[arg(long, global = true, value_name = "FILE", requires = "url")]
    pub token_file: Option<PathBuf>,
    /// The certificates that --url is verified with, as PEM [default: those of this machine]
    #[arg(long, global = true, value_name = "FILE", requires = "url")]
    pub ca_file: Option<PathBuf>,
}

impl CtlArgs {
    /// Whether they say where the relay is.
    pub fn names_relay(&self) -> bool {
        self.socket.is_some() || self.config.is_some() || self.url.is_some()
    }
}

#[derive(Subcommand)]
pub enum CtlCommand {
    /// Show what the relay is and does: version, addresses, ICE URLs, limits, peers
    Status,
    /// List allocations
    #[command(alias = "allocations")]
    List {
        #[command(flatten)]
        filters: Filters,
        #[command(flatten)]
        page: Page,
    },
    /// Show an allocation
    Show {
        /// The allocation, as `list` calls it
        id: String,
    },
    /// End an allocation
    End {
        /// The allocation, as `list` calls it
        id: String,
    },
    /// End every allocation of a user; new ones are possible
    EndUser {
        /// The user, as `list` calls it
        user: String,
    },
    /// Refuse a user from now on, and end its allocations
    ///
    /// Credentials are refused that expire up to the given time. By default the time is now plus auth.max_lifetime, so that every
    /// credential that exists is refused. A static user is refused until `unrevoke`.
    Revoke {
        /// The user: the name of a static user, otherwise the part of the user name beside the expiry
        user: String,
        /// Refuse credentials that expire up to this time: Unix seconds, or a time like 2026-12-01T08:00:00Z
        #[arg(long, value_name = "TIME", value_parser = times::unix_time, conflicts_with = "duration")]
        until: Option<u64>,
        /// The same, counted from now: seconds, or a time like 30m, 12h or 7d
        #[arg(long = "for", value_name = "TIME", value_parser = parse::duration)]
        duration: Option<Duration>,
        /// Keep allocations whose credential expires later
        #[arg(long)]
        keep_later: bool,
    },
    /// Accept a revoked user again
    Unrevoke {
        /// The user, as `revocations` calls it
        user: String,
    },
    /// List revoked users
    Revocations {
        #[command(flatten)]
        page: Page,
    },
    /// Take no new allocations, and stop once the last one has ended
    Drain {
        /// Stop after this time at the latest: seconds, or a time like 30m, 12h or 7d
        #[arg(long, value_name = "TIME", value_parser = parse::duration)]
        deadline: Option<Duration>,
        /// Wait until the relay has ended
        #[arg(long)]
        wait: bool,
    },
    /// Take new allocations again
    Undrain,
    /// Read the configuration again and apply what has changed
    Reload {
        /// Send SIGHUP to this process if there is no control socket, and do not wait for the outcome
        #[arg(long, value_name = "PID", value_parser = clap::value_parser!(i32).range(1..))]
        or_signal: Option<i32>,
    },
    /// Show or change which peers may be reached
    #[command(subcommand)]
    Peers(PeersCommand),
}

#[derive(Subcommand)]
pub enum PeersCommand {
    /// List the rules about peers, each with its origin
    List,
    /// Set the overlay of a program: addresses of peers that it names
    ///
    /// It replaces what the same owner has set before. `deny` of the configuration and the relay's own listeners come first.
    Set {
        /// Who sets it
        owner: String,
        /// Whether these peers may be reached in addition, or no other than those of overlays
        #[arg(long, value_parser = ["add", "only"], default_value = "add")]
        mode: String,
        // Not a doc comment, in which rustdoc would take the brackets for a link.
        #[arg(
            value_name = "ADDR",
            required = true,
            help = "Exact addresses, with ports or without: 203.0.113.7:7882, 10.0.0.7:50000-60000, [2001:db8::7]:7882"
        )]
        addresses: Vec<String>,
    },
    /// Remove the overlay of a program
    Clear {
        /// Who has set it
        owner: String,
    },
}

/// Which allocations are listed.
#[derive(Args)]
pub struct Filters {
    /// Only those of this user
    #[arg(long)]
    user: Option<String>,
    /// Only those of clients at this address, with or without a port
    #[arg(long, value_name = "ADDR")]
    client: Option<String>,
    /// Only those with a permission or a channel for this peer
    #[arg(long, value_name = "ADDR")]
    peer: Option<String>,
    /// Only those of clients over this transport
    #[arg(long, value_parser = ["udp", "tcp", "tls"])]
    transport: Option<String>,
    /// Only those that are at least as old: seconds, or a time like 30m, 12h or 7d
    #[arg(long, value_name = "TIME", value_parser = parse::duration)]
    min_age: Option<Duration>,
    /// Only those that are at most as old
    #[arg(long, value_name = "TIME", value_parser = parse::duration)]
    max_age: Option<Duration>,
    /// Do not measure rates, which takes a second per page
    #[arg(long)]
    no_rates: bool,
}

impl Filters {
    pub fn query(&self) -> String {
        let seconds = |age: Option<Duration>| age.map(|age| age.as_secs().to_string());
        let values = [
            ("user", self.user.clone()),
            ("client", self.client.clone()),
            ("peer", self.peer.clone()),
            ("transport", self.transport.clone()),
            ("min_age", seconds(self.min_age)),
            ("max_age", seconds(self.max_age)),
            ("rates", self.no_rates.then(|| "false".into())),
        ];
        query(&values.into_iter().filter_map(|(key, value)| Some((key, value?))).collect::<Vec<_>>())
    }
}

/// Which part of a list.
#[derive(Args)]
pub struct Page {
    /// How many at most, up to 1000 [default: 100]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=1000))]
    limit: Option<u64>,
    /// Continue after an earlier page
    #[arg(long, value_name = "CURSOR")]
    pub cursor: Option<String>,
    /// All of them, page by page
    #[arg(long)]
    pub all: bool,
}

impl Page {
    pub fn limit(&self) -> u64 {
        self.limit.unwrap_or(if self.all { 1000 } else { 100 })
    }
}

/// Values as a query.
pub fn query(values: &[(&str, String)]) -> String {
    let pairs = values.iter().map(|(key, value)| format!("{key}={}", encoded(value)));
    pairs.collect::<Vec<_>>().join("&")
}
