//! Memory that allocations take of the server: while they rest, and once packets have passed.
//!
//! It is the process's resident memory, without what the kernel keeps for its sockets. The server is looked at first
//! when it has served one allocation, so that what it does once is no part of the difference.

use std::time::Duration;

use anyhow::Result;
use serde_json::{Value, json};

use super::{Order, allocate, traffic};
use crate::clock::Clock;
use crate::cpu;

/// How long the server may go on with what it does after an answer.
const REST: Duration = Duration::from_millis(300);

/// Opens all allocations, then sends; what was seen.
pub fn run(order: &Order) -> Result<Value> {
    let resident = || {
        std::thread::sleep(REST);
        cpu::resident_kib(order.process)
    };
    let _first = allocate::open(&Order { allocations: 1, ..order.clone() })?;
    let empty = resident();
    let mut flows = allocate::open(order)?;
    let idle = resident();
    let outcome = traffic::run(Clock::start(), order, &mut flows)?;
    let busy = resident();
    let each = |kib: u64| kib.saturating_sub(empty) as f64 * 1024.0 / flows.len() as f64;
    Ok(json!({
        "bytes_per_allocation": each(idle),
        "bytes_per_busy_allocation": each(busy),
        "empty_kib": empty,
        "idle_kib": idle,
        "busy_kib": busy,
        "packets_per_allocation": outcome.tally.arrived as f64 / flows.len() as f64,
    }))
}
