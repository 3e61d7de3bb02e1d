//! The floor: a minimal relay with the same kinds of sockets as hairpin, which shows what the kernel alone costs.
//!
//! It has one socket for all UDP clients or one per TCP or TLS client, and one per allocation. All flows are set up
//! before the loop starts; after that nothing is parsed and nothing is checked: a header of known length (ChannelData or
//! indication) is removed in one direction, and a prepared one is added in the other. There are deliberately no maps
//! (the client's port is an index), clocks, timers or counters. A batch is not split when it exceeds one send, or when
//! its payloads differ in length; no case needs that, and it would show as loss.

mod datagrams;
mod event_loop;
mod header;
pub mod protocol;
mod storm;
mod streams;
mod sys;
pub mod variant;

use std::net::SocketAddrV4;
use std::path::PathBuf;

use anyhow::Result;
use clap::Args;

use crate::tls::TlsIdentity;
use crate::workload::ClientTransport;
use datagrams::DatagramRelay;
use streams::StreamRelay;
use variant::Variant;

/// Arguments of the minimal relay's process.
#[derive(Args)]
pub struct FloorArgs {
    /// The address for clients.
    listen: SocketAddrV4,
    /// Options, as in `floor:plain+edge`.
    #[arg(default_value = "")]
    variant: Variant,
    /// Transport between clients and relay.
    #[arg(long)]
    transport: ClientTransport,
    /// Open and close relay sockets only.
    #[arg(long)]
    storm: bool,
    /// The directory of certificate and key, for TLS clients.
    #[arg(long)]
    identity: Option<PathBuf>,
}

/// Serves until the process is killed.
pub fn serve(args: &FloorArgs) -> Result<()> {
    let &FloorArgs { listen, variant, transport, storm, .. } = args;
    if storm {
        return Ok(storm::run(listen, variant)?);
    }
    if transport == ClientTransport::Udp {
        return Ok(event_loop::run(DatagramRelay::set_up(listen, variant)?, variant)?);
    }
    let tls = args.identity.as_deref().map(|dir| TlsIdentity::in_dir(dir).server_config()).transpose()?;
    Ok(event_loop::run(StreamRelay::set_up(listen, tls.as_ref(), variant)?, variant)?)
}
