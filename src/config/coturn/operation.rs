//! Limits, metrics, logs and threads: what has a counterpart with one value.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use toml_edit::Value;

use super::document::{Document, Place, Weight};
use super::source::{Input, Lines, options, shown};
use crate::config::table::SETTINGS;

/// A number with a counterpart that means the same: coturn's key, ours, and our bounds.
const NUMBERS: [(&str, &str, u64, u64); 6] = [
    ("user-quota", "limits.user_allocations", 0, 1_000_000),
    ("total-quota", "limits.allocations", 0, 1_000_000),
    ("max-bps", "limits.bandwidth", 0, 1_000_000_000_000),
    ("max-allocate-lifetime", "limits.max_allocation_lifetime", 1, 31_536_000),
    ("permission-lifetime", "limits.permission_lifetime", 1, 31_536_000),
    ("channel-lifetime", "limits.channel_lifetime", 1, 31_536_000),
];

/// The lifetime of allocations whose clients ask for none (RFC 8656 section 3.2).
const ALLOCATION_LIFETIME: u64 = 600;

/// The most threads of coturn.
const THREADS_MAX: u64 = 128;

/// The port of Prometheus' metrics, there and here.
const METRICS: u16 = 9641;

/// Writes what is left.
pub fn translate(input: &Input<'_>, lines: &Lines<'_>, document: &mut Document) {
    limits(input, lines, document);
    threads(lines, document);
    if let Some(entry) = lines.last("software-attribute").filter(|entry| entry.flag() == Some(true)) {
        document.set("software", "hairpin", Place::line(entry.line));
    }
    if let Some(entry) = lines.last("no-software-attribute").filter(|entry| entry.flag() == Some(false)) {
        document.set("software", "hairpin", Place::line(entry.line));
    }
    metrics(lines, document);
    log(lines, document);
}

fn limits(input: &Input<'_>, lines: &Lines<'_>, document: &mut Document) {
    let options = options(input, lines);
    for (key, to, least, most) in NUMBERS {
        let from_database = options.iter().find(|(option, _)| *option == key).map(|(_, value)| *value);
        let (value, place) = match (from_database, lines.last(key)) {
            (Some(value), _) => (Some(value), Place::Database),
            (None, Some(entry)) if entry.value.is_empty() => continue,
            (None, Some(entry)) => {
                (entry.number().and_then(|number| u64::try_from(number).ok()), Place::line(entry.line))
            }
            (None, None) => {
                unlimited(key, to, document);
                continue;
            }
        };
        let Some(value) = value.filter(|value| *value >= least) else {
            let written = lines.last(key).map_or(String::new(), |entry| shown(entry.value));
            let text = format!("{key}={written} has no counterpart, and the default is used");
            document.comment("limits", Weight::Lost, place, text);
            continue;
        };
        document.set(to, i64::try_from(value.min(most)).unwrap_or(i64::MAX), place.clone());
        if value > most {
            document.remark(
                Weight::Note,
                Place::Nowhere,
                format!("{key}={value} is more than hairpin's bound, {most}"),
            );
        }
        if from_database.is_some() && lines.last(key).is_some() {
            let text = format!("the options of the realm in the database precede {key} in the configuration");
            document.remark(Weight::Note, Place::Nowhere, text);
        }
        if key == "max-allocate-lifetime" && value < ALLOCATION_LIFETIME {
            document.set("limits.allocation_lifetime", i64::try_from(value).unwrap_or(i64::MAX), place);
        }
    }
    let limited = lines.on("unauthorized-ratelimit");
    if let Some((rate, entry)) = lines.number("unauthorized-ratelimit-rps") {
        if limited.is_some() && rate > 0 {
            let rate = i64::try_from(rate.min(1_000_000)).unwrap_or(i64::MAX);
            document.set("limits.unauthenticated_rate", rate, Place::line(entry.line));
            let text =
                "unauthenticated_burst, 1000, comes before it: an office behind one address must not notice";
            document.remark(Weight::Note, Place::Nowhere, text);
        } else {
            let text = "unauthorized-ratelimit-rps has no effect in coturn without unauthorized-ratelimit; hairpin's default holds";
            document.comment("limits", Weight::Note, Place::line(entry.line), text);
        }
    }
}

/// Says where coturn has no limit and hairpin has one.
fn unlimited(key: &str, to: &str, document: &mut Document) {
    let default = SETTINGS.iter().find(|setting| setting.key == to).map_or("", |setting| setting.default);
    let text = match key {
        "user-quota" => format!(
            "without user-quota coturn has no limit of allocations per user; hairpin's default for names of time-limited credentials holds, \
             user_allocations = {default}. 0 is no limit"
        ),
        "total-quota" => format!(
            "without total-quota coturn has no limit of allocations; hairpin's default holds, allocations = {default}. 0 is no limit"
        ),
        _ => return,
    };
    document.comment("limits", Weight::Lost, Place::Nowhere, text);
}

fn threads(lines: &Lines<'_>, document: &mut Document) {
    let (threads, key) = match (lines.number("relay-threads"), lines.number("cpus")) {
        (Some(threads), _) => (threads, "relay-threads"),
        (None, Some(cpus)) if cpus.0 > 0 => (cpus, "cpus"),
        _ => return,
    };
    let (count, entry) = threads;
    let count = count.clamp(1, THREADS_MAX);
    document.set("workers", i64::try_from(count).unwrap_or(1), Place::line(entry.line));
    let text = format!(
        "{key}={}: without this line there is one worker per CPU, which is best for most machines",
        shown(entry.value)
    );
    document.remark(Weight::Note, Place::Nowhere, text);
}

fn metrics(lines: &Lines<'_>, document: &mut Document) {
    // 4.17 turns metrics on with TLS, too.
    let on = lines.last("prometheus").or_else(|| lines.on("prometheus-tls"));
    let others = ["prometheus-port", "prometheus-address"].map(|key| lines.last(key));
    let Some(on) = on else {
        for entry in others.into_iter().flatten() {
            let text = format!("{} has no effect without prometheus, there and here", entry.key);
            document.comment("http", Weight::Note, Place::line(entry.line), text);
        }
        return;
    };
    let mut at = vec![on.line];
    at.extend(others.iter().flatten().map(|entry| entry.line));
    let port = lines.number("prometheus-port").and_then(|(port, _)| u16::try_from(port).ok());
    let port = port.filter(|port| *port != 0).unwrap_or(METRICS);
    let written = lines.last("prometheus-address").filter(|entry| !entry.value.is_empty());
    let address = match written.map(|entry| entry.value.trim().parse::<IpAddr>()) {
        None => Ipv4Addr::UNSPECIFIED.into(),
        Some(address) => address.unwrap_or(Ipv4Addr::LOCALHOST.into()),
    };
    let socket = SocketAddr::new(address, port);
    document.set("http.listen", Value::from_iter([socket.to_string()]), Place::Lines(at));
    if let Some(entry) = written.filter(|entry| entry.value.trim().parse::<IpAddr>().is_err()) {
        let text = format!(
            "prometheus-address={} is no address: the metrics are only on {socket}. Write the address that Prometheus connects to",
            shown(entry.value)
        );
        document.remark(Weight::Danger, Place::Nowhere, text);
    }
    if !socket.ip().is_loopback() {
        let text = format!(
            "whoever can connect to {socket} reads the metrics, as with coturn: close the port in the firewall, or list a private address or \
             127.0.0.1"
        );
        document.remark(Weight::Danger, Place::Nowhere, text);
    }
    let text =
        "names and labels of metrics differ: docs/from-coturn.md has a table. /readyz is for health checks";
    document.remark(Weight::Note, Place::Nowhere, text);
    if let Some(entry) = lines.on("prometheus-tls") {
        document.set("http.tls", true, Place::line(entry.line));
    }
    if let Some(entry) = lines.last("prometheus-path").filter(|entry| entry.value != "/metrics") {
        let text = format!("prometheus-path={} is left out: the path is /metrics", shown(entry.value));
        document.comment("http", Weight::Lost, Place::line(entry.line), text);
    }
}

fn log(lines: &Lines<'_>, document: &mut Document) {
    if let Some(entry) = lines.last("log-min-level") {
        let level = match entry.value.to_ascii_lowercase().as_str() {
            "debug" => "debug",
            "info" => "info",
            "warning" => "warn",
            "error" => "error",
            _ => {
                let text = format!("log-min-level={} is no level of coturn", shown(entry.value));
                document.comment("log", Weight::Lost, Place::line(entry.line), text);
                return;
            }
        };
        document.set("log.level", level, Place::line(entry.line));
        return;
    }
    if let Some(entry) = lines.on("Verbose") {
        document.set("log.level", "debug", Place::line(entry.line));
    }
}
