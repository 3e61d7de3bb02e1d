//! Two charts, the cost per packet by number of allocations and by rate, as SVG for light and dark pages.

use std::fmt::Write;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::bench::Bench;
use crate::case::{Case, CaseKind, THIN};
use crate::workload::Workload;

const ALLOCATIONS: [usize; 4] = [10, 100, 1_000, 10_000];
const RATES: [u64; 6] = [10_000, 20_000, 40_000, 60_000, 80_000, 100_000];

/// Measures all points, writes both files and returns the figures of every run.
pub fn draw(bench: &Bench<'_>, dir: &Path) -> Result<Vec<Value>> {
    let by_allocations =
        ALLOCATIONS.map(|allocations| (allocations as f64, Workload { allocations, ..THIN }));
    let by_rate = RATES.map(|rate| (rate as f64, Workload { rate, ..THIN }));
    let mut raw = Vec::new();
    fs::create_dir_all(dir)?;
    for (name, scale, label, points) in [
        ("cost-by-allocations", Scale::Logarithmic, "allocations, at 40,000 packets/s", &by_allocations[..]),
        ("cost-by-rate", Scale::Linear, "packets/s, over 100 allocations", &by_rate[..]),
    ] {
        let mut chart = Chart { scale, label, lines: Vec::new() };
        for &(x, workload) in points {
            let case = Case { name, about: label, kind: CaseKind::Traffic(workload) };
            for column in bench.measure(&case)? {
                let cost = column.median("/ns_per_packet") / 1000.0;
                chart.add(&column.name, x, cost);
                raw.push(json!({ "plot": name, "at": x, "contestant": column.name, "runs": column.runs }));
            }
        }
        let path = dir.join(name).with_extension("svg");
        fs::write(&path, chart.svg()).with_context(|| path.display().to_string())?;
    }
    Ok(raw)
}

/// A line per contestant over a common axis.
struct Chart {
    scale: Scale,
    /// The label of the horizontal axis.
    label: &'static str,
    lines: Vec<Line>,
}

enum Scale {
    Linear,
    Logarithmic,
}

/// The points of one contestant, from left to right. The vertical axis is in microseconds.
struct Line {
    name: String,
    points: Vec<(f64, f64)>,
}

const WIDTH: f64 = 720.0;
const HEIGHT: f64 = 400.0;
/// The position of the axes.
const LEFT: f64 = 60.0;
const RIGHT: f64 = 620.0;
const TOP: f64 = 40.0;
const BOTTOM: f64 = 340.0;
/// Steps of the vertical axis are one of these, times a power of ten.
const STEPS: [f64; 3] = [1.0, 2.0, 5.0];
const STEPS_MAX: f64 = 8.0;

/// Blue, orange, green and purple, visible on white and on black.
const STYLE: &str = "text{font:13px sans-serif;fill:#444}.axis{stroke:#888}.grid{stroke:#8884}\
    .c0{stroke:#2f7ed8;fill:#2f7ed8}.c1{stroke:#e07b1a;fill:#e07b1a}.c2{stroke:#3a9a4f;fill:#3a9a4f}\
    .c3{stroke:#9a5fc0;fill:#9a5fc0}.line{fill:none;stroke-width:2.5}.name{stroke:none}\
    @media(prefers-color-scheme:dark){text:not(.name){fill:#ccc}}";
const COLOURS: usize = 4;

impl Chart {
    fn add(&mut self, name: &str, x: f64, y: f64) {
        if !y.is_finite() {
            return;
        }
        match self.lines.iter_mut().find(|line| line.name == name) {
            Some(line) => line.points.push((x, y)),
            None => self.lines.push(Line { name: name.to_owned(), points: vec![(x, y)] }),
        }
    }

    fn svg(&self) -> String {
        let points = || self.lines.iter().flat_map(|line| &line.points);
        let step = step(points().map(|point| point.1).fold(0.0, f64::max));
        let steps = (points().map(|point| point.1).fold(0.0, f64::max) / step).ceil().max(1.0);
        let mut marks: Vec<f64> = points().map(|point| point.0).collect();
        marks.sort_by(f64::total_cmp);
        marks.dedup();
        let across = |x: f64| self.across(&marks, x);
        let up = |y: f64| BOTTOM - (BOTTOM - TOP) * y / (step * steps);

        let mut svg = Svg::new();
        for n in 0..=steps as u32 {
            let y = f64::from(n) * step;
            svg.line("grid", (LEFT, up(y)), (RIGHT, up(y)));
            svg.text("end", (LEFT - 8.0, up(y) + 4.0), "", &y.to_string());
        }
        for &x in &marks {
            svg.line("axis", (across(x), BOTTOM), (across(x), BOTTOM + 5.0));
            svg.text("middle", (across(x), BOTTOM + 20.0), "", &thousands(x));
        }
        svg.line("axis", (LEFT, BOTTOM), (RIGHT, BOTTOM));
        svg.line("axis", (LEFT, TOP), (LEFT, BOTTOM));
        svg.text("start", (10.0, TOP - 18.0), "", "CPU time of the relay host, us per packet");
        svg.text("middle", ((LEFT + RIGHT) / 2.0, BOTTOM + 44.0), "", self.label);
        let mut ends: Vec<(f64, usize)> = Vec::new();
        for (index, line) in self.lines.iter().enumerate() {
            let points: Vec<(f64, f64)> = line.points.iter().map(|&(x, y)| (across(x), up(y))).collect();
            svg.path(index % COLOURS, &points);
            ends.extend(points.last().map(|end| (end.1, index)));
        }
        // Names are placed at the ends of their lines, without overlapping.
        ends.sort_by(|a, b| a.0.total_cmp(&b.0));
        let mut lowest = 0.0_f64;
        for (y, index) in ends {
            lowest = y.max(lowest + 16.0);
            let class = format!("name c{}", index % COLOURS);
            svg.text("start", (RIGHT + 10.0, lowest + 4.0), &class, &self.lines[index].name);
        }
        svg.finish()
    }

    fn across(&self, marks: &[f64], x: f64) -> f64 {
        let place = |x: f64| match self.scale {
            Scale::Linear => x,
            Scale::Logarithmic => x.log10(),
        };
        let least = match self.scale {
            Scale::Linear => 0.0,
            Scale::Logarithmic => place(marks[0]),
        };
        let most = place(marks[marks.len() - 1]);
        LEFT + (RIGHT - LEFT) * (place(x) - least) / (most - least).max(f64::MIN_POSITIVE)
    }
}

/// A round step that divides the axis into at most [`STEPS_MAX`] parts.
fn step(most: f64) -> f64 {
    let magnitude = 10f64.powf((most.max(1e-3) / STEPS_MAX).log10().floor());
    let fits = |step: &f64| most <= step * magnitude * STEPS_MAX;
    STEPS.into_iter().find(fits).unwrap_or(10.0) * magnitude
}

fn thousands(number: f64) -> String {
    let number = number as u64;
    if number < 1000 { number.to_string() } else { format!("{},{:03}", number / 1000, number % 1000) }
}

/// An SVG document that is being written.
struct Svg(String);

impl Svg {
    fn new() -> Svg {
        let size = format!("viewBox=\"0 0 {WIDTH} {HEIGHT}\" width=\"{WIDTH}\" height=\"{HEIGHT}\"");
        Svg(format!("<svg xmlns=\"http://www.w3.org/2000/svg\" {size}>\n<style>{STYLE}</style>\n"))
    }

    fn line(&mut self, class: &str, (x1, y1): (f64, f64), (x2, y2): (f64, f64)) {
        self.put(format_args!(
            "<line class=\"{class}\" x1=\"{x1:.1}\" y1=\"{y1:.1}\" x2=\"{x2:.1}\" y2=\"{y2:.1}\"/>"
        ));
    }

    fn text(&mut self, anchor: &str, (x, y): (f64, f64), class: &str, text: &str) {
        let text = text.replace('&', "&amp;").replace('<', "&lt;");
        self.put(format_args!(
            "<text class=\"{class}\" x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{text}</text>"
        ));
    }

    fn path(&mut self, colour: usize, points: &[(f64, f64)]) {
        let all: Vec<String> = points.iter().map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
        self.put(format_args!("<polyline class=\"line c{colour}\" points=\"{}\"/>", all.join(" ")));
        for (x, y) in points {
            self.put(format_args!("<circle class=\"c{colour}\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3\"/>"));
        }
    }

    fn put(&mut self, element: std::fmt::Arguments<'_>) {
        // Writing to a string cannot fail.
        let _ = writeln!(self.0, "{element}");
    }

    fn finish(mut self) -> String {
        self.0.push_str("</svg>\n");
        self.0
    }
}
