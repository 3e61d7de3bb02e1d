//! The highest rate that a server relays without loss worth mentioning: doubling until it fails, then halving the
//! interval in between.

use anyhow::{Result, ensure};
use serde_json::{Value, json};

/// Seconds of each probe.
pub const PROBE: f64 = 1.0;
/// A rate has failed if as many probes of it have.
const PROBES: usize = 4;
/// Packets lost that are worth mentioning.
const LOSS: f64 = 0.001;
/// Less than this part of the rate arrives only if the generator could not send it.
const ARRIVED: f64 = 0.99;
/// The answer is at most so far from the lowest rate that failed.
const PRECISION: f64 = 0.05;
/// Below this it is given up.
const LOWEST: u64 = 1_000;

/// Searches from this rate on. `probe` measures one rate.
pub fn search(from: u64, probe: impl Fn(u64) -> Result<Value>) -> Result<Value> {
    // What was lost in one of them may have been the machine's fault.
    let holds = |rate| -> Result<Probe> {
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
        let tried = holds(rate)?;
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
        ensure!(rate >= LOWEST, "it loses packets at every rate");
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

/// The best probe; if the generator was behind in the one that failed, the relay may have had more in it.
fn report(best: Option<Probe>, worst: Option<Probe>) -> Value {
    let mut figures = best.map_or(Value::Null, |probe| probe.figures);
    if let Some(worst) = worst {
        figures["failed_at"] = json!(worst.rate);
        figures["generator"]["behind"] = worst.figures["generator"]["behind"].clone();
    }
    figures
}
