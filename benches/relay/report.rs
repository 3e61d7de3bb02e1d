//! The table: medians of all runs of a contestant, and ratios to the floor and to coturn.
#![allow(clippy::print_stdout, reason = "the table is what the benchmark is for")]

use serde_json::Value;

use crate::case::Case;

/// All runs of one contestant in one case.
pub struct Column {
    pub name: String,
    pub runs: Vec<Value>,
}

/// Ratios are to these, where they took part.
const REFERENCES: [&str; 2] = ["floor", "coturn"];

/// Prints one case.
pub fn print(case: &Case, columns: &[Column]) {
    println!("\n{}: {}", case.name, case.about);
    println!(
        "{:<24} {:>10} {:>15} {:>8} {:>8} {:>7} {:>7}  {:>9} {:>8}  {:>8} {:>8} {:>8}  {:>6} {:>6}",
        "",
        "ns/packet",
        "min..max",
        "server",
        "receive",
        "/floor",
        "/coturn",
        "packets/s",
        "loss",
        "p50 us",
        "p99 us",
        "p99.9",
        "gen %",
        "else %"
    );
    for column in columns.iter().filter(|column| !column.runs.is_empty()) {
        let cost = column.median("/ns_per_packet");
        let ratio = |reference: &str| {
            let reference = columns.iter().find(|column| column.name == reference && !column.runs.is_empty());
            reference.map_or_else(String::new, |reference| {
                format!("{:.2}", cost / reference.median("/ns_per_packet"))
            })
        };
        let all = column.sorted("/ns_per_packet");
        let generator = column.median("/generator/cpu") * 100.0;
        println!(
            "{:<24} {:>10.0} {:>15} {:>8.0} {:>8.0} {:>7} {:>7}  {:>9.0} {:>7.3}%  {:>8.0} {:>8.0} {:>8.0}  {:>6.0} {:>6.0}",
            column.name,
            cost,
            format!("{:.0}..{:.0}", all[0], all[all.len() - 1]),
            column.median("/server_ns_per_packet"),
            column.median("/napi_ns_per_packet"),
            ratio(REFERENCES[0]),
            ratio(REFERENCES[1]),
            column.median("/packets_per_second"),
            column.median("/loss") * 100.0,
            column.median("/delay_us/p50"),
            column.median("/delay_us/p99"),
            column.median("/delay_us/p99.9"),
            generator,
            column.median("/others_cpu") * 100.0,
        );
    }
    for column in columns {
        for (run, figures) in column.runs.iter().enumerate() {
            for why in figures["generator"]["behind"].as_array().into_iter().flatten() {
                let why = why.as_str().unwrap_or_default();
                println!("  {}, run {}: the generator may be the bottleneck: {why}", column.name, run + 1);
            }
            let wrong = figures["wrong"].as_u64().unwrap_or(0);
            if wrong != 0 {
                println!("  {}, run {}: {wrong} packets arrived wrong", column.name, run + 1);
            }
        }
    }
}

impl Column {
    fn sorted(&self, pointer: &str) -> Vec<f64> {
        let value = |run: &Value| run.pointer(pointer).and_then(Value::as_f64).unwrap_or(f64::NAN);
        let mut values: Vec<f64> = self.runs.iter().map(value).collect();
        values.sort_by(f64::total_cmp);
        values
    }

    fn median(&self, pointer: &str) -> f64 {
        let values = self.sorted(pointer);
        (values[(values.len() - 1) / 2] + values[values.len() / 2]) / 2.0
    }
}
