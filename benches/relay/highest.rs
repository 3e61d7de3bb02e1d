//! The highest rate that a server relays with less than 0.1 % loss: the rate is doubled until it fails, then found by
//! bisection.

use anyhow::{Result, ensure};
use serde_json::{Value, json};

/// Seconds of each probe.
pub const PROBE: f64 = 1.0;
/// A rate has failed when this many probes have failed.
const PROBES: usize = 4;
/// The lowest share of lost packets that fails a probe.
const LOSS: f64 = 0.001;
/// The lowest share of planned packets that must arrive; fewer mean that the generator could not send them.
const ARRIVED: f64 = 0.99;
/// The search ends when the lowest rate that failed is at most this much higher than the highest that did not.
const PRECISION: f64 = 0.05;
/// The search fails below this rate.
const LOWEST: u64 = 1_000;

/// Searches from a first rate. `probe` measures one rate.
pub fn search(from: u64, probe: impl Fn(u64) -> Result<Value>) -> Result<Value> {
    // A single probe may have failed because of other processes.
    let measure = |rate| -> Result<Probe> {
        let mut probed = Probe { rate, figures: probe(rate)? };
        for _ in 1..PROBES {
            if probed.is_clean() {
                break;
            }
            probed = Probe { rate, figures: probe(rate)? };
        }
        Ok(probed)
    };
    let (mut best, mut worst): (Option<Probe>, Option<Probe>) = (None, None);
    let mut rate = from;
    loop {
        let tried = measure(rate)?;
        if tried.is_clean() {
            best = Some(tried);
        } else {
            worst = Some(tried);
        }
        rate = match (&best, &worst) {
            (Some(best), None) => best.rate * 2,
            (None, Some(worst)) => worst.rate / 2,
            (Some(best), Some(worst)) if worst.rate as f64 > best.rate as f64 * (1.0 + PRECISION) => {
                (best.rate + worst.rate) / 2
            }
            _ => break,
        };
        ensure!(rate >= LOWEST, "packets are lost at every rate");
    }
    Ok(report(best, worst))
}

struct Probe {
    rate: u64,
    figures: Value,
}

impl Probe {
    fn is_clean(&self) -> bool {
        let figure = |name: &str| self.figures[name].as_f64();
        figure("loss").is_some_and(|loss| loss < LOSS)
            && figure("packets_per_second").is_some_and(|arrived| arrived > self.rate as f64 * ARRIVED)
    }
}

/// The figures of the highest rate. The warnings are those of the rate that failed: if the generator was the bottleneck
/// there, the relay may be able to do more.
fn report(best: Option<Probe>, worst: Option<Probe>) -> Value {
    let mut figures = best.map_or(Value::Null, |probe| probe.figures);
    if let Some(worst) = worst {
        figures["failed_at"] = json!(worst.rate);
        figures["warnings"] = worst.figures["warnings"].clone();
    }
    figures
}
