//! What hairpin is meant to reach beside the others, and what came out.
#![allow(clippy::print_stdout, reason = "a table for a person")]

use crate::case::Case;
use crate::report::Column;

/// One ratio: in which case, of what, beside whom, within which bound.
struct Target(&'static str, &'static str, Beside, Bound);

#[derive(Clone, Copy)]
enum Beside {
    Coturn,
    Floor,
    /// The figure is judged by itself.
    Nobody,
}

enum Bound {
    AtMost(f64),
    AtLeast(f64),
}

use Beside::{Coturn, Floor, Nobody};
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
    Target("allocations-10k", "/growth", Nobody, AtMost(1.15)),
    Target("tcp", PACKET, Coturn, AtMost(0.80)),
    Target("tcp", PACKET, Floor, AtMost(1.15)),
    Target("tls", PACKET, Coturn, AtMost(0.80)),
    Target("tls", PACKET, Floor, AtMost(1.15)),
    Target("storm", ALLOCATION, Coturn, AtMost(0.45)),
    Target("storm", ALLOCATION, Floor, AtMost(2.0)),
    Target("memory", BYTES, Coturn, AtMost(0.20)),
    Target("memory", BYTES, Nobody, AtMost(4096.0)),
    Target("highest-thin", RATE, Coturn, AtLeast(1.2)),
    Target("highest-thin", DELAY, Coturn, AtMost(1.0)),
    Target("highest-bursts", RATE, Coturn, AtLeast(1.7)),
    Target("highest-bursts", DELAY, Coturn, AtMost(1.0)),
    Target("strangers-requests", LOSS, Nobody, AtMost(0.001)),
    Target("strangers-requests", "/delay_us/p99", Nobody, AtMost(20_000.0)),
    Target("strangers-passwords", LOSS, Nobody, AtMost(0.001)),
    Target("strangers-passwords", "/delay_us/p99", Nobody, AtMost(20_000.0)),
    Target("strangers-garbage", LOSS, Nobody, AtMost(0.001)),
    Target("strangers-garbage", "/delay_us/p99", Nobody, AtMost(20_000.0)),
    Target("strangers-binding", LOSS, Nobody, AtMost(0.001)),
    Target("strangers-binding", "/delay_us/p99", Nobody, AtMost(20_000.0)),
];

/// Prints every target whose case was measured with all whom it takes.
pub fn print(measured: &[(&Case, Vec<Column>)]) {
    println!("\n{:<22}{:<24}{:<10}{:>12}{:>12}", "hairpin", "", "beside", "wanted", "measured");
    for Target(case, pointer, beside, bound) in TARGETS {
        let Some((_, columns)) = measured.iter().find(|(measured, _)| measured.name == *case) else {
            continue;
        };
        let named = |name: &str| columns.iter().find(|column| column.name == name);
        let Some(hairpin) = named("hairpin") else { continue };
        let (name, figure) = match beside {
            Coturn => ("coturn", named("coturn").and_then(|other| hairpin.ratio(other, pointer))),
            Floor => ("floor", named("floor").and_then(|other| hairpin.ratio(other, pointer))),
            Nobody => ("", Some(hairpin.median(pointer))),
        };
        let Some(figure) = figure.filter(|figure| figure.is_finite()) else { continue };
        let (wanted, met) = match bound {
            AtMost(most) => (format!("<= {most}"), figure <= *most),
            AtLeast(least) => (format!(">= {least}"), figure >= *least),
        };
        let missed = if met { "" } else { "  missed" };
        let pointer = &pointer[1..];
        println!("{case:<22}{pointer:<24}{name:<10}{wanted:>12}{figure:>12.3}{missed}");
    }
}
