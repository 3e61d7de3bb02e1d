//! Targets for hairpin, most of them relative to another contestant, and the measured values.
#![allow(clippy::print_stdout, reason = "the benchmark prints tables")]

use crate::case::Case;
use crate::report::{self, Column};

/// A case, the JSON pointer of a figure, what the figure is divided by, and the bound.
struct Target(&'static str, &'static str, Baseline, Bound);

#[derive(Clone, Copy)]
enum Baseline {
    Coturn,
    Floor,
    /// The figure itself has a bound.
    Absolute,
}

enum Bound {
    AtMost(f64),
    AtLeast(f64),
}

use Baseline::{Absolute, Coturn, Floor};
use Bound::{AtLeast, AtMost};

const PACKET: &str = "/ns_per_packet";
const ALLOCATION: &str = "/ns_per_allocation";
const BYTES: &str = "/bytes_per_allocation";
const RATE: &str = "/packets_per_second";
const DELAY: &str = "/at_half/delay_us/p99";
const LOSS: &str = "/loss";

const TARGETS: &[Target] = &[
    Target("thin-40k", PACKET, Coturn, AtMost(0.82)),
    Target("thin-40k", PACKET, Floor, AtMost(1.10)),
    Target("thin-100k", PACKET, Coturn, AtMost(0.82)),
    Target("thin-100k", PACKET, Floor, AtMost(1.10)),
    Target("bursts", PACKET, Coturn, AtMost(0.53)),
    Target("bursts", PACKET, Floor, AtMost(1.15)),
    Target("indications", PACKET, Coturn, AtMost(0.75)),
    Target("indications", PACKET, Floor, AtMost(1.15)),
    Target("allocations-10k", "/growth", Absolute, AtMost(1.15)),
    Target("tcp", PACKET, Coturn, AtMost(0.80)),
    Target("tcp", PACKET, Floor, AtMost(1.15)),
    Target("tls", PACKET, Coturn, AtMost(0.80)),
    Target("tls", PACKET, Floor, AtMost(1.15)),
    Target("storm", ALLOCATION, Coturn, AtMost(0.45)),
    Target("storm", ALLOCATION, Floor, AtMost(2.0)),
    Target("memory", BYTES, Coturn, AtMost(0.20)),
    Target("memory", BYTES, Absolute, AtMost(4096.0)),
    Target("highest-thin", RATE, Coturn, AtLeast(1.2)),
    Target("highest-thin", DELAY, Coturn, AtMost(1.0)),
    Target("highest-bursts", RATE, Coturn, AtLeast(1.7)),
    Target("highest-bursts", DELAY, Coturn, AtMost(1.0)),
    Target("strangers-requests", LOSS, Absolute, AtMost(0.001)),
    Target("strangers-requests", "/delay_us/p99", Absolute, AtMost(20_000.0)),
    Target("strangers-passwords", LOSS, Absolute, AtMost(0.001)),
    Target("strangers-passwords", "/delay_us/p99", Absolute, AtMost(20_000.0)),
    Target("strangers-garbage", LOSS, Absolute, AtMost(0.001)),
    Target("strangers-garbage", "/delay_us/p99", Absolute, AtMost(20_000.0)),
    Target("strangers-binding", LOSS, Absolute, AtMost(0.001)),
    Target("strangers-binding", "/delay_us/p99", Absolute, AtMost(20_000.0)),
];

/// Prints every target whose case and contestants were measured.
pub fn print(measured: &[(&Case, Vec<Column>)]) {
    let mut rows = Vec::new();
    for Target(case, pointer, baseline, bound) in TARGETS {
        let Some((_, columns)) = measured.iter().find(|(measured, _)| measured.name == *case) else {
            continue;
        };
        let Some(hairpin) = report::named(columns, "hairpin") else { continue };
        let ratio_to = |name| report::named(columns, name).and_then(|other| hairpin.ratio(other, pointer));
        let (name, figure) = match baseline {
            Coturn => ("coturn", ratio_to("coturn")),
            Floor => ("floor", ratio_to("floor")),
            Absolute => ("", Some(hairpin.median(pointer))),
        };
        let Some(figure) = figure.filter(|figure| figure.is_finite()) else { continue };
        let (target, met) = match bound {
            AtMost(most) => (format!("<= {most}"), figure <= *most),
            AtLeast(least) => (format!(">= {least}"), figure >= *least),
        };
        let missed = if met { "" } else { "  missed" };
        let pointer = &pointer[1..];
        rows.push(format!("{case:<22}{pointer:<24}{name:<12}{target:>12}{figure:>12.3}{missed}"));
    }
    if !rows.is_empty() {
        println!("\n{:<22}{:<24}{:<12}{:>12}{:>12}", "case", "figure", "relative to", "target", "measured");
        rows.iter().for_each(|row| println!("{row}"));
    }
}
