//! The tables, one form for each kind of case: medians of all runs of a contestant, and ratios to the floor and to
//! coturn.
#![allow(clippy::print_stdout, reason = "the table is what the benchmark is for")]

use serde_json::Value;

use crate::case::{Case, Kind};

/// All runs of one contestant in one case; null where one failed.
pub struct Column {
    pub name: String,
    pub runs: Vec<Value>,
}

/// Ratios are to these, where they took part.
const REFERENCES: [&str; 2] = ["floor", "coturn"];

/// One figure of a table: its heading, where it stands in a run, what it is multiplied by, its decimals.
struct Figure(&'static str, &'static str, f64, usize);

/// What a table shows: first what is compared, then what explains it.
struct Table(Figure, &'static [Figure]);

const TRAFFIC: Table = Table(Figure("ns/packet", "/ns_per_packet", 1.0, 0), PACKETS);
const GROWTH: Table = Table(
    Figure("ns/packet", "/ns_per_packet", 1.0, 0),
    &[
        Figure("at 100", "/ns_per_packet_of_few", 1.0, 0),
        Figure("/at 100", "/growth", 1.0, 2),
        Figure("loss %", "/loss", 100.0, 3),
        Figure("p50 us", "/delay_us/p50", 1.0, 0),
        Figure("p99 us", "/delay_us/p99", 1.0, 0),
        Figure("gen %", "/generator/cpu", 100.0, 0),
        Figure("others %", "/others_cpu", 100.0, 0),
    ],
);
const STORM: Table = Table(
    Figure("ns/alloc", "/ns_per_allocation", 1.0, 0),
    &[
        Figure("server", "/server_ns_per_allocation", 1.0, 0),
        Figure("receive", "/napi_ns_per_allocation", 1.0, 0),
        Figure("allocs/s", "/allocations_per_second", 1.0, 0),
        Figure("repeated", "/repeated", 1.0, 0),
        Figure("p50 us", "/delay_us/p50", 1.0, 0),
        Figure("p99 us", "/delay_us/p99", 1.0, 0),
        Figure("gen %", "/generator/cpu", 100.0, 0),
        Figure("others %", "/others_cpu", 100.0, 0),
    ],
);
const MEMORY: Table = Table(
    Figure("B/idle", "/bytes_per_allocation", 1.0, 0),
    &[
        Figure("B/busy", "/bytes_per_busy_allocation", 1.0, 0),
        Figure("empty KiB", "/empty_kib", 1.0, 0),
        Figure("idle KiB", "/idle_kib", 1.0, 0),
        Figure("busy KiB", "/busy_kib", 1.0, 0),
    ],
);
const HIGHEST: Table = Table(
    Figure("packets/s", "/packets_per_second", 1.0, 0),
    &[
        Figure("Mbit/s", "/bits_per_second", 1e-6, 0),
        Figure("CPU %", "/relay_cpu", 100.0, 0),
        Figure("p99 us", "/delay_us/p99", 1.0, 0),
        Figure("gen %", "/generator/cpu", 100.0, 0),
        Figure("at half", "/at_half/packets_per_second", 1.0, 0),
        Figure("loss %", "/at_half/loss", 100.0, 3),
        Figure("p50 us", "/at_half/delay_us/p50", 1.0, 0),
        Figure("p99 us", "/at_half/delay_us/p99", 1.0, 0),
    ],
);

const PACKETS: &[Figure] = &[
    Figure("server", "/server_ns_per_packet", 1.0, 0),
    Figure("receive", "/napi_ns_per_packet", 1.0, 0),
    Figure("packets/s", "/packets_per_second", 1.0, 0),
    Figure("Mbit/s", "/bits_per_second", 1e-6, 0),
    Figure("loss %", "/loss", 100.0, 3),
    Figure("p50 us", "/delay_us/p50", 1.0, 0),
    Figure("p99 us", "/delay_us/p99", 1.0, 0),
    Figure("p99.9 us", "/delay_us/p99.9", 1.0, 0),
    Figure("RSS KiB", "/resident_kib", 1.0, 0),
    Figure("gen %", "/generator/cpu", 100.0, 0),
    Figure("others %", "/others_cpu", 100.0, 0),
];

/// Prints one case.
pub fn print(case: &Case, columns: &[Column]) {
    let Table(compared, figures) = match case.kind {
        Kind::Traffic(_) => TRAFFIC,
        Kind::Growth(_) => GROWTH,
        Kind::Storm { .. } => STORM,
        Kind::Memory(_) => MEMORY,
        Kind::Highest(_) => HIGHEST,
    };
    println!("\n{}: {}", case.name, case.about);
    print!("{:<24}{:>10}{:>15}", "", compared.0, "min..max");
    REFERENCES.iter().for_each(|reference| print!("{:>9}", format!("/{reference}")));
    figures.iter().for_each(|Figure(heading, ..)| print!("{heading:>10}"));
    println!();
    for column in columns {
        let costs = column.sorted(compared.1);
        let (Some(least), Some(most)) = (costs.first(), costs.last()) else { continue };
        print!("{:<24}{:>10.0}{:>15}", column.name, median(&costs), format!("{least:.0}..{most:.0}"));
        for reference in REFERENCES {
            let ratio = columns
                .iter()
                .find(|column| column.name == reference)
                .and_then(|to| column.ratio(to, compared.1));
            print!("{:>9}", ratio.map_or_else(String::new, |ratio| format!("{ratio:.2}")));
        }
        for &Figure(_, pointer, scale, decimals) in figures {
            print!("{:>10.decimals$}", column.median(pointer) * scale);
        }
        println!();
    }
    columns.iter().for_each(Column::print_doubts);
}

impl Column {
    /// Of all runs that have it.
    pub fn median(&self, pointer: &str) -> f64 {
        median(&self.sorted(pointer))
    }

    /// The median of what each run cost beside the other's run of the same round: the machine's moods cancel out.
    pub fn ratio(&self, to: &Column, pointer: &str) -> Option<f64> {
        let cost = |run: &Value| run.pointer(pointer).and_then(Value::as_f64);
        let rounds = self.runs.iter().zip(&to.runs);
        let mut ratios: Vec<f64> =
            rounds.filter_map(|(run, other)| Some(cost(run)? / cost(other)?)).collect();
        ratios.sort_by(f64::total_cmp);
        (!ratios.is_empty()).then(|| median(&ratios))
    }

    fn sorted(&self, pointer: &str) -> Vec<f64> {
        let mut values: Vec<f64> =
            self.runs.iter().filter_map(|run| run.pointer(pointer).and_then(Value::as_f64)).collect();
        values.sort_by(f64::total_cmp);
        values
    }

    fn print_doubts(&self) {
        for (run, figures) in self.runs.iter().enumerate() {
            for why in figures["generator"]["behind"].as_array().into_iter().flatten() {
                let why = why.as_str().unwrap_or_default();
                println!("  {}, run {}: the generator may be the bottleneck: {why}", self.name, run + 1);
            }
            let wrong = figures["wrong"].as_u64().unwrap_or(0);
            if wrong != 0 {
                println!("  {}, run {}: {wrong} packets arrived wrong", self.name, run + 1);
            }
        }
    }
}

/// Of sorted values.
fn median(values: &[f64]) -> f64 {
    match values.len() {
        0 => f64::NAN,
        len => (values[(len - 1) / 2] + values[len / 2]) / 2.0,
    }
}
