//! The server's memory per allocation, while allocations are idle and after some packets.
//!
//! It is the resident memory of the process; what the kernel keeps for its sockets is not included. The baseline is
//! taken after the first allocation, so that one-time work does not count.

use std::time::Duration;

use anyhow::Result;
use serde_json::{Value, json};

use super::args::LoadArgs;
use super::{setup, traffic};
use crate::clock::Clock;
use crate::procfs;

/// Time for a server to finish work that it does after a response.
const PAUSE: Duration = Duration::from_millis(300);

/// Makes all allocations, sends the traffic and returns the figures.
pub fn run(args: &LoadArgs) -> Result<Value> {
    let resident = || {
        std::thread::sleep(PAUSE);
        procfs::resident_kib(args.server_pid)
    };
    let mut first = args.clone();
    first.workload.allocations = 1;
    let _first = setup::open(&first)?;
    let empty = resident();
    let mut flows = setup::open(args)?;
    let idle = resident();
    let outcome = traffic::run(Clock::start(), args, &mut flows)?;
    let busy = resident();
    let per_allocation = |kib: u64| kib.saturating_sub(empty) as f64 * 1024.0 / flows.len() as f64;
    Ok(json!({
        "bytes_per_allocation": per_allocation(idle),
        "bytes_per_busy_allocation": per_allocation(busy),
        "empty_kib": empty,
        "idle_kib": idle,
        "busy_kib": busy,
        "packets_per_allocation": outcome.tally.arrived as f64 / flows.len() as f64,
    }))
}
