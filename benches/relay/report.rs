//! The tables, one layout per kind of case: medians of all runs of a contestant, and ratios between contestants.
#![allow(clippy::print_stdout, reason = "the benchmark prints tables")]

use serde_json::Value;

use crate::case::{Case, CaseKind};

/// All runs of one contestant in one case; a failed run is null.
pub struct Column {
    pub name: String,
    pub runs: Vec<Value>,
}

/// Ratios to these contestants are printed if they take part.
const REFERENCES: [&str; 3] = ["floor", "coturn", "hairpin"];

/// A column of a table: heading, JSON pointer into a run, factor, decimals.
struct Figure(&'static str, &'static str, f64, usize);

/// The compared figure, for which ratios are printed, and other figures.
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
        Figure("resent", "/retransmissions", 1.0, 0),
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

const HANDSHAKES: Table = Table(
    Figure("p99 us", "/delay_us/p99", 1.0, 0),
    &[
        Figure("p50 us", "/delay_us/p50", 1.0, 0),
        Figure("p99.9 us", "/delay_us/p99.9", 1.0, 0),
        Figure("loss %", "/loss", 100.0, 3),
        Figure("quiet p50", "/quiet/delay_us/p50", 1.0, 0),
        Figure("quiet p99", "/quiet/delay_us/p99", 1.0, 0),
        Figure("p99/quiet", "/to_quiet", 1.0, 2),
        Figure("us/hands.", "/us_per_handshake", 1.0, 0),
        Figure("hands./s", "/beside/per_second", 1.0, 0),
        Figure("resumed %", "/beside/resumed", 100.0, 0),
        Figure("failed", "/beside/failed", 1.0, 0),
        Figure("own p50", "/beside/delay_us/p50", 1.0, 0),
        Figure("own p99", "/beside/delay_us/p99", 1.0, 0),
        Figure("gen %", "/generator/cpu", 100.0, 0),
        Figure("others %", "/others_cpu", 100.0, 0),
    ],
);
const DOWNLOAD: Table = Table(
    Figure("p99 us", "/delay_us/p99", 1.0, 0),
    &[
        Figure("quiet p99", "/quiet/delay_us/p99", 1.0, 0),
        Figure("past p99", "/past/delay_us/p99", 1.0, 0),
        Figure("/past", "/delay_to_past", 1.0, 2),
        Figure("ended p99", "/terminated/delay_us/p99", 1.0, 0),
        Figure("/past", "/terminated_delay_to_past", 1.0, 2),
        Figure("s/GB past", "/past/s_per_gb", 1.0, 2),
        Figure("s/GB", "/s_per_gb", 1.0, 2),
        Figure("/past", "/cost_to_past", 1.0, 2),
        Figure("s/GB end.", "/terminated/s_per_gb", 1.0, 2),
        Figure("/past", "/terminated_cost_to_past", 1.0, 2),
        Figure("MB/s past", "/past/downloaded_per_second", 1e-6, 0),
        Figure("MB/s", "/downloaded_per_second", 1e-6, 0),
        Figure("MB/s end.", "/terminated/downloaded_per_second", 1e-6, 0),
        Figure("loss %", "/loss", 100.0, 3),
        Figure("gen %", "/generator/cpu", 100.0, 0),
        Figure("others %", "/others_cpu", 100.0, 0),
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

/// Prints the table of one case.
pub fn print(case: &Case, columns: &[Column]) {
    let Table(compared, figures) = match case.kind {
        CaseKind::Traffic(_) => TRAFFIC,
        CaseKind::Growth(_) => GROWTH,
        CaseKind::Storm { .. } => STORM,
        CaseKind::Memory(_) => MEMORY,
        CaseKind::Highest(_) => HIGHEST,
        CaseKind::Handshakes(..) => HANDSHAKES,
        CaseKind::Download(_) => DOWNLOAD,
    };
    println!("\n{}: {}", case.name, case.about);
    print!("{:<24}{:>10}{:>15}", "", compared.0, "min..max");
    let references: Vec<&Column> = REFERENCES.iter().filter_map(|name| named(columns, name)).collect();
    references.iter().for_each(|reference| print!("{:>9}", format!("/{}", reference.name)));
    figures.iter().for_each(|Figure(heading, ..)| print!("{heading:>10}"));
    println!();
    for column in columns {
        let costs = column.sorted(compared.1);
        let (Some(least), Some(most)) = (costs.first(), costs.last()) else { continue };
        print!("{:<24}{:>10.0}{:>15}", column.name, median(&costs), format!("{least:.0}..{most:.0}"));
        for reference in &references {
            let ratio = column.ratio(reference, compared.1);
            print!("{:>9}", ratio.map_or_else(String::new, |ratio| format!("{ratio:.2}")));
        }
        for &Figure(_, pointer, scale, decimals) in figures {
            print!("{:>10.decimals$}", column.median(pointer) * scale);
        }
        println!();
    }
    columns.iter().for_each(Column::print_warnings);
}

/// The column of a contestant.
pub fn named<'a>(columns: &'a [Column], name: &str) -> Option<&'a Column> {
    columns.iter().find(|column| column.name == name)
}

impl Column {
    /// The median of all runs that have this figure.
    pub fn median(&self, pointer: &str) -> f64 {
        median(&self.sorted(pointer))
    }

    /// The median of the ratios within each round, so that changes of the machine's speed between rounds cancel out.
    pub fn ratio(&self, to: &Column, pointer: &str) -> Option<f64> {
        let figure = |run: &Value| run.pointer(pointer).and_then(Value::as_f64);
        let rounds = self.runs.iter().zip(&to.runs);
        let mut ratios: Vec<f64> =
            rounds.filter_map(|(run, other)| Some(figure(run)? / figure(other)?)).collect();
        ratios.sort_by(f64::total_cmp);
        (!ratios.is_empty()).then(|| median(&ratios))
    }

    fn sorted(&self, pointer: &str) -> Vec<f64> {
        let mut values: Vec<f64> =
            self.runs.iter().filter_map(|run| run.pointer(pointer).and_then(Value::as_f64)).collect();
        values.sort_by(f64::total_cmp);
        values
    }

    fn print_warnings(&self) {
        for (run, figures) in self.runs.iter().enumerate() {
            for warning in figures["warnings"].as_array().into_iter().flatten().filter_map(Value::as_str) {
                println!("  {}, run {}: {warning}", self.name, run + 1);
            }
            let wrong = figures["wrong"].as_u64().unwrap_or(0);
            if wrong != 0 {
                println!("  {}, run {}: {wrong} packets had wrong contents", self.name, run + 1);
            }
        }
    }
}

/// The median of sorted values.
fn median(values: &[f64]) -> f64 {
    match values.len() {
        0 => f64::NAN,
        len => (values[(len - 1) / 2] + values[len / 2]) / 2.0,
    }
}
