//! Prometheus' metric families and their text format, from numbers that were read before.
//!
//! A label's value is `&'static str`, or a `String` that the caller made from a number or the configuration. A borrowed string,
//! which a client might have chosen, is not accepted.

use std::borrow::Cow;
use std::time::Duration;

use prometheus::proto::{Bucket, Counter, Gauge, LabelPair, Metric, MetricFamily, MetricType};
use prometheus::{Encoder as _, TextEncoder};

use crate::histogram::Histogram;

/// A value and its labels.
pub struct Sample {
    labels: Vec<LabelPair>,
    value: f64,
}

/// A sample. Prometheus' values are floating-point numbers, exact up to 2^53.
pub fn row<const N: usize, T>(labels: [(&'static str, T); N], value: u64) -> Sample
where
    T: Into<Cow<'static, str>>,
{
    Sample { labels: pairs(labels), value: value as f64 }
}

/// A sample in seconds.
pub fn seconds<const N: usize, T>(labels: [(&'static str, T); N], value: Duration) -> Sample
where
    T: Into<Cow<'static, str>>,
{
    Sample { labels: pairs(labels), value: value.as_secs_f64() }
}

/// No labels.
pub const UNLABELLED: [(&str, &str); 0] = [];

/// A counter.
pub fn counter(name: &str, help: &str, rows: impl IntoIterator<Item = Sample>) -> MetricFamily {
    let metrics = rows.into_iter().map(|Sample { labels, value }| {
        let (mut metric, mut counter) = (Metric::from_label(labels), Counter::default());
        counter.set_value(value);
        metric.set_counter(counter);
        metric
    });
    family(name, help, MetricType::COUNTER, metrics.collect())
}

/// A gauge.
pub fn gauge(name: &str, help: &str, rows: impl IntoIterator<Item = Sample>) -> MetricFamily {
    let metrics = rows.into_iter().map(|Sample { labels, value }| {
        let (mut metric, mut gauge) = (Metric::from_label(labels), Gauge::default());
        gauge.set_value(value);
        metric.set_gauge(gauge);
        metric
    });
    family(name, help, MetricType::GAUGE, metrics.collect())
}

/// A histogram without labels.
pub fn histogram<const N: usize>(
    name: &str,
    help: &str,
    bounds: &[Duration; N],
    values: &Histogram<N>,
) -> MetricFamily {
    let rows = [(UNLABELLED, *values)];
    histograms(name, help, bounds, rows)
}

/// Histograms with labels.
pub fn histograms<const N: usize, const L: usize, T: Into<Cow<'static, str>>>(
    name: &str,
    help: &str,
    bounds: &[Duration; N],
    rows: impl IntoIterator<Item = ([(&'static str, T); L], Histogram<N>)>,
) -> MetricFamily {
    let metrics = rows.into_iter().map(|(labels, values)| {
        let buckets = bounds.iter().zip(values.cumulative()).map(|(bound, count)| {
            let mut bucket = Bucket::default();
            bucket.set_upper_bound(bound.as_secs_f64());
            bucket.set_cumulative_count(count);
            bucket
        });
        let mut histogram = prometheus::proto::Histogram::default();
        histogram.set_bucket(buckets.collect());
        histogram.set_sample_count(values.total());
        histogram.set_sample_sum(values.sum().as_secs_f64());
        let mut metric = Metric::from_label(pairs(labels));
        metric.set_histogram(histogram);
        metric
    });
    family(name, help, MetricType::HISTOGRAM, metrics.collect())
}

/// The page with these families. Those without a sample are left out: without /proc, for example, there are no counters of
/// this machine.
pub fn page(mut families: Vec<MetricFamily>) -> String {
    families.retain(|family| !family.get_metric().is_empty());
    let mut page = Vec::new();
    // Encoding only fails for a family without rows, or if writing fails.
    let written = TextEncoder::new().encode(&families, &mut page);
    debug_assert!(written.is_ok(), "{written:?}");
    String::from_utf8(page).unwrap_or_default()
}

/// The row of a family in the documentation.
#[cfg(test)]
pub fn documentation(family: &MetricFamily) -> String {
    let labels = family.get_metric()[0].get_label().iter().map(|label| format!("`{}`", label.name()));
    let labels: Vec<_> = labels.collect();
    format!("| `{}` | {} | {} |", family.name(), labels.join(", "), family.help())
}

fn pairs<const N: usize, T: Into<Cow<'static, str>>>(labels: [(&'static str, T); N]) -> Vec<LabelPair> {
    let pair = |(name, value): (&str, T)| {
        let mut pair = LabelPair::default();
        pair.set_name(name.to_owned());
        pair.set_value(value.into().into_owned());
        pair
    };
    labels.map(pair).into()
}

fn family(name: &str, help: &str, kind: MetricType, metrics: Vec<Metric>) -> MetricFamily {
    let mut family = MetricFamily::default();
    family.set_name(name.to_owned());
    family.set_help(help.to_owned());
    family.set_field_type(kind);
    family.set_metric(metrics);
    family
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Prometheus wants cumulative buckets, `+Inf` among them, and sum and count in base units.
    #[test]
    fn a_histogram_has_cumulative_buckets_in_seconds() {
        const BOUNDS: [Duration; 2] = [Duration::from_millis(5), Duration::from_secs(60)];
        let mut values = Histogram::default();
        for millis in [1, 2, 70, 60_500] {
            values.observe(&BOUNDS, Duration::from_millis(millis));
        }
        let one = histograms("lag_seconds", "Help.", &BOUNDS, [([("worker", 3.to_string())], values)]);
        let wanted = "# HELP lag_seconds Help.\n# TYPE lag_seconds histogram\n\
                      lag_seconds_bucket{worker=\"3\",le=\"0.005\"} 2\nlag_seconds_bucket{worker=\"3\",le=\"60\"} 3\n\
                      lag_seconds_bucket{worker=\"3\",le=\"+Inf\"} 4\nlag_seconds_sum{worker=\"3\"} 60.573\n\
                      lag_seconds_count{worker=\"3\"} 4\n";
        assert_eq!(page(vec![one]), wanted);
    }
}
