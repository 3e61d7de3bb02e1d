//! Results as tables. Clients choose some of what is in them, such as user names, so nothing that a terminal would act on is
//! printed as it is.

use std::fmt::Write;

use serde_json::Value;

use crate::admin::times;
use crate::daemon::reload::summary;
use crate::plural::counted;
use crate::text;

/// Text in which control characters and invisible ones are escaped: a terminal would act on the former, and a person would
/// not see the latter.
pub fn safe(value: &str) -> String {
    let mut safe = String::with_capacity(value.len());
    let mut buffer = [0; 4];
    for c in value.chars() {
        match text::invisible(c.encode_utf8(&mut buffer)).is_some() || c == '\t' {
            true => safe.extend(c.escape_unicode()),
            false => safe.push(c),
        }
    }
    safe
}

/// A response as JSON, in which control characters and invisible ones are escaped, too.
pub fn json(value: &Value) -> String {
    let pretty = serde_json::to_string_pretty(value).unwrap_or_default();
    let mut safe = String::with_capacity(pretty.len() + 1);
    let mut buffer = [0; 4];
    for c in pretty.chars() {
        if c != '\n' && text::invisible(c.encode_utf8(&mut buffer)).is_some() {
            let mut units = [0; 2];
            for unit in c.encode_utf16(&mut units) {
                let _ = write!(safe, "\\u{unit:04x}");
            }
        } else {
            safe.push(c);
        }
    }
    safe.push('\n');
    safe
}

/// A value in a cell: text without quotes, `-` for nothing.
fn cell(value: &Value) -> String {
    match value {
        Value::Null => "-".into(),
        Value::String(text) => safe(text),
        other => safe(&other.to_string()),
    }
}

/// Lines of columns, each as wide as its widest cell.
fn table(head: &[&str], rows: &[Vec<String>]) -> String {
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count());
        cells.chain([head[column].chars().count()]).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..head.len()).map(width).collect();
    let head = head.iter().map(|cell| (*cell).to_owned()).collect();
    let mut out = String::new();
    for row in [&head].into_iter().chain(rows) {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(&widths) {
            let _ = write!(line, "{cell}{}  ", " ".repeat(width - cell.chars().count()));
        }
        out.push_str(line.trim_end());
        out.push('\n');
    }
    out
}

/// Names and values, one pair per line.
fn pairs(rows: &[(&str, String)]) -> String {
    let width = rows.iter().map(|(name, _)| name.len()).max().unwrap_or(0) + 2;
    rows.iter().fold(String::new(), |mut out, (name, value)| {
        let _ = writeln!(out, "{name:width$}{value}");
        out
    })
}

fn items(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn list(value: &Value) -> String {
    let texts: Vec<String> = items(value).map(cell).collect();
    if texts.is_empty() { "none".into() } else { texts.join(", ") }
}

fn duration(value: &Value) -> String {
    value.as_u64().map_or_else(|| "-".into(), times::shown)
}

/// Bits per second as people read them.
fn bit_rate(bytes: &Value) -> String {
    let Some(bytes) = bytes.as_f64() else { return "-".into() };
    let bits = bytes * 8.0;
    match bits {
        0.0..1e3 => format!("{bits:.0} bit/s"),
        1e3..1e6 => format!("{:.1} kbit/s", bits / 1e3),
        1e6..1e9 => format!("{:.1} Mbit/s", bits / 1e6),
        _ => format!("{:.1} Gbit/s", bits / 1e9),
    }
}

/// `hairpin ctl status`.
pub fn status(value: &Value) -> String {
    let state = match (value["ready"].as_bool(), &value["draining"]) {
        (_, draining) if !draining.is_null() => waits_for(draining),
        (Some(true), _) => "ready".into(),
        _ => format!("not ready: {}", cell(&value["not_ready"])),
    };
    let listeners: Vec<String> = items(&value["listeners"])
        .map(|one| format!("{} {}", cell(&one["transport"]), cell(&one["address"])))
        .collect();
    let relay: Vec<String> = items(&value["relay_addresses"])
        .map(|one| match &one["external"] {
            Value::Null => cell(&one["address"]),
            external => format!("{}, advertised as {}", cell(&one["address"]), cell(external)),
        })
        .collect();
    let counts = &value["counts"];
    let count = |key: &str, what| counted(counts[key].as_u64().unwrap_or(0) as usize, what);
    let reload = &value["last_reload"];
    let reload = match reload["ok"].as_bool() {
        None => "none yet".into(),
        Some(true) => {
            format!("{} by {}: {}", cell(&reload["at"]), cell(&reload["by"]), cell(&reload["outcome"]))
        }
        Some(false) => {
            format!("{} by {} failed: {}", cell(&reload["at"]), cell(&reload["by"]), cell(&reload["outcome"]))
        }
    };
    let mut rows = vec![
        ("version", format!("{} (API {})", cell(&value["version"]), cell(&value["api"]))),
        ("instance", cell(&value["instance"])),
        ("started", format!("{} ({} ago)", cell(&value["started"]), duration(&value["uptime"]))),
        ("state", state),
        ("listeners", listeners.join(", ")),
        ("relay addresses", if relay.is_empty() { "none yet".into() } else { relay.join("; ") }),
        ("metrics", list(&value["http"])),
        ("auth", auth(&value["auth"])),
        ("control socket", cell(&value["control_socket"])),
        ("admin API", list(&value["admin"])),
        (
            "now",
            [
                count("allocations", "allocation"),
                count("permissions", "permission"),
                count("channels", "channel"),
                count("spliced_connections", "spliced connection"),
            ]
            .join(", "),
        ),
        ("last reload", reload),
    ];
    for certificate in items(&value["certificates"]) {
        let failing = if certificate["failing"] == true { "; its files cannot be used" } else { "" };
        let signed = if certificate["self_signed"] == true { ", self-signed" } else { "" };
        let line = format!(
            "{} for {}{signed}, expires {}{failing}",
            cell(&certificate["file"]),
            list(&certificate["names"]),
            cell(&certificate["expires"])
        );
        rows.push(("certificate", line));
    }
    rows.extend(items(&value["backends"]).map(|one| ("backend", backend(one))));
    let mut out = pairs(&rows);
    let services = services(items(&value["listeners"]));
    if !services.is_empty() {
        let _ = write!(out, "\nTCP connections:\n{services}");
    }
    let _ = writeln!(out, "\nICE URLs for clients:");
    for url in items(&value["ice_urls"]) {
        let _ = writeln!(out, "  {}", cell(url));
    }
    let _ = writeln!(out, "\nlimits:");
    for (name, limit) in value["limits"].as_object().into_iter().flatten() {
        let _ = writeln!(out, "  {} {}", safe(name), cell(limit));
    }
    out.push('\n');
    out + &special_peers(value)
}

/// A server that connections are passed on to.
fn backend(one: &Value) -> String {
    let open = counted(one["connections"].as_u64().unwrap_or(0) as usize, "connection");
    let failing = match &one["failing_since"] {
        Value::Null => String::new(),
        since => format!(", cannot be reached since {}: {}", cell(since), cell(&one["error"])),
    };
    format!("{}, {open}{failing}", cell(&one["backend"]))
}

/// What the TCP connections of listeners may be. TCP and TLS at one address are one socket.
fn services<'a>(listeners: impl Iterator<Item = &'a Value>) -> String {
    let mut out = String::new();
    let mut told: Vec<&Value> = Vec::new();
    let backend = |one: &Value| {
        let proxy = if one["send_proxy"] == true { " (send_proxy)" } else { "" };
        format!("{}{proxy}", cell(&one["address"]))
    };
    for one in listeners.filter(|one| one["protocols"].is_array()) {
        if told.contains(&&one["address"]) {
            continue;
        }
        told.push(&one["address"]);
        let _ = write!(out, "  {} {}", cell(&one["address"]), list(&one["protocols"]));
        for (key, what) in [("default_backend", "other names"), ("http", "plain HTTP")] {
            if !one[key].is_null() {
                let _ = write!(out, "; {what} -> {}", backend(&one[key]));
            }
        }
        if !one["proxy"].is_null() {
            let _ = write!(out, "; PROXY header {} from {}", cell(&one["proxy"]), list(&one["proxy_from"]));
        }
        out.push('\n');
        for route in items(&one["routes"]) {
            let backends = [("pass", ""), ("http", "http "), ("h2c", "h2c ")].into_iter();
            let backends = backends.filter(|(key, _)| !route[*key].is_null());
            let backends: Vec<String> =
                backends.map(|(key, kind)| format!("{kind}{}", backend(&route[key]))).collect();
            let _ = writeln!(out, "    {} -> {}", cell(&route["name"]), backends.join(", "));
        }
    }
    out
}

/// Who may use the relay.
fn auth(value: &Value) -> String {
    let count = |key: &str, what| counted(value[key].as_u64().unwrap_or(0) as usize, what);
    let files: Vec<String> = items(&value["secret_files"]).map(cell).collect();
    let files = if files.is_empty() { String::new() } else { format!(" (files: {})", files.join(", ")) };
    format!(
        "realm {}, {}{files}, {}, {}, credentials for up to {}",
        cell(&value["realm"]),
        count("shared_secrets", "shared secret"),
        count("livekit_keys", "LiveKit API key"),
        count("users", "static user"),
        duration(&value["max_lifetime"])
    )
}

/// `hairpin ctl list`.
pub fn allocations(values: &[Value]) -> String {
    let row = |one: &Value| {
        let relayed: Vec<String> = items(&one["relayed"]).map(|relay| cell(&relay["external"])).collect();
        vec![
            cell(&one["id"]),
            cell(&one["user"]),
            cell(&one["client"]),
            cell(&one["transport"]),
            relayed.join(", "),
            duration(&one["age"]),
            cell(&one["channels"]),
            bit_rate(&one["to_peer"]["bytes_per_second"]),
            bit_rate(&one["to_client"]["bytes_per_second"]),
        ]
    };
    let head = ["ID", "USER", "CLIENT", "OVER", "RELAYED", "AGE", "CHANNELS", "TO PEERS", "TO CLIENT"];
    table(&head, &values.iter().map(row).collect::<Vec<_>>())
}

/// `hairpin ctl show`.
pub fn allocation(value: &Value) -> String {
    let relayed: Vec<String> = items(&value["relayed"])
        .map(|relay| match relay["external"] == relay["address"] {
            true => cell(&relay["address"]),
            false => format!("{}, advertised as {}", cell(&relay["address"]), cell(&relay["external"])),
        })
        .collect();
    let traffic = |traffic: &Value| {
        format!(
            "{} packets, {} bytes; now {} packets/s, {}",
            cell(&traffic["packets"]),
            cell(&traffic["bytes"]),
            cell(&traffic["packets_per_second"]),
            bit_rate(&traffic["bytes_per_second"])
        )
    };
    let mut out = pairs(&[
        ("id", cell(&value["id"])),
        ("user", cell(&value["user"])),
        ("client", format!("{} over {}", cell(&value["client"]), cell(&value["transport"]))),
        ("listener", cell(&value["server"])),
        ("relayed", relayed.join("; ")),
        ("created", format!("{} ({} ago)", cell(&value["created"]), duration(&value["age"]))),
        ("expires", format!("in {} unless refreshed", duration(&value["expires_in"]))),
        ("to peers", traffic(&value["to_peer"])),
        ("to client", traffic(&value["to_client"])),
    ]);
    for permission in items(&value["peers"]["permissions"]) {
        let _ = writeln!(
            out,
            "permission  {} for {}",
            cell(&permission["peer"]),
            duration(&permission["expires_in"])
        );
    }
    for channel in items(&value["peers"]["channels"]) {
        let number = channel["number"].as_u64().unwrap_or(0);
        let _ = writeln!(
            out,
            "channel     {number:#06x} to {} for {}",
            cell(&channel["peer"]),
            duration(&channel["expires_in"])
        );
    }
    out
}

/// Which workers did not respond, one sentence each: what they have is unknown.
pub fn silent_workers(value: &Value) -> impl Iterator<Item = String> {
    items(&value["silent_workers"]).map(|worker| {
        format!("worker {} does not respond; allocations that it has are not included", cell(worker))
    })
}

/// `hairpin ctl end` and `end-user`.
pub fn ended(value: &Value) -> String {
    format!("{} ended\n", counted(value["ended"].as_u64().unwrap_or(0) as usize, "allocation"))
}

/// `hairpin ctl revoke`.
pub fn revoked(value: &Value) -> String {
    let user = cell(&value["user"]);
    let until = match &value["until"] {
        Value::Null => "until unrevoked".to_owned(),
        until => format!("with credentials that expire up to {}", cell(until)),
    };
    format!("{user} is refused {until}; {}", ended(value))
}

/// `hairpin ctl unrevoke`.
pub fn unrevoked(value: &Value) -> String {
    format!("{} is accepted again\n", cell(&value["user"]))
}

/// `hairpin ctl revocations`.
pub fn revocations(values: &[Value]) -> String {
    let until = |one: &Value| match &one["until"] {
        Value::Null => "unrevoked".into(),
        until => cell(until),
    };
    let rows: Vec<_> = values.iter().map(|one| vec![cell(&one["user"]), until(one)]).collect();
    table(&["USER", "UNTIL"], &rows)
}

/// What a drain waits for.
pub fn waits_for(drain: &Value) -> String {
    let allocations = counted(drain["allocations"].as_u64().unwrap_or(0) as usize, "allocation");
    match &drain["deadline"] {
        Value::Null => format!("draining: waits for the end of {allocations}"),
        deadline => {
            format!("draining: waits for the end of {allocations}, until {} at the latest", cell(deadline))
        }
    }
}

/// `hairpin ctl drain`.
pub fn drain(value: &Value) -> String {
    format!("{}\n", waits_for(&value["draining"]))
}

/// `hairpin ctl undrain`.
pub fn undrained(value: &Value) -> String {
    match value["was_draining"].as_bool() {
        Some(false) => "the relay was not draining\n".into(),
        _ => "the relay takes new allocations again\n".into(),
    }
}

/// `hairpin ctl reload`.
pub fn reloaded(value: &Value) -> String {
    let mut out = String::new();
    for warning in items(&value["warnings"]) {
        let _ = writeln!(out, "{}", cell(warning));
    }
    for change in items(&value["changed"]) {
        let holds = match change["holds"].as_str() {
            Some("live") => "at once",
            Some("new_allocations") => "for new allocations",
            _ => "after a restart",
        };
        let _ = writeln!(out, "{}: {}; it holds {holds}", cell(&change["key"]), cell(&change["change"]));
    }
    for certificate in items(&value["certificates"]) {
        let _ = writeln!(out, "the files of a certificate cannot be used: {}", cell(certificate));
    }
    let (restart, changed): (Vec<_>, Vec<_>) =
        items(&value["changed"]).partition(|change| change["holds"] == "restart");
    let restart: Vec<_> = restart.iter().map(|change| cell(&change["key"])).collect();
    let restart: Vec<_> = restart.iter().map(String::as_str).collect();
    let _ = writeln!(out, "the configuration is reloaded: {}", summary(changed.len(), &restart));
    out
}

/// `hairpin ctl peers list`.
pub fn peers(value: &Value) -> String {
    let rows: Vec<_> = items(&value["peers"]).map(peer).collect();
    table(&["PEER", "ACTION", "ORIGIN"], &rows) + &only(value)
}

fn peer(one: &Value) -> Vec<String> {
    let origin = match &one["what"] {
        Value::Null => cell(&one["origin"]),
        what => format!("{} ({})", cell(&one["origin"]), cell(what)),
    };
    vec![cell(&one["peer"]), cell(&one["action"]), origin]
}

/// What overlays with the mode `only` mean for all others.
fn only(value: &Value) -> String {
    let owners: Vec<String> = items(&value["overlays"])
        .filter(|overlay| overlay["mode"] == "only")
        .map(|overlay| cell(&overlay["owner"]))
        .collect();
    match owners.is_empty() {
        true => String::new(),
        false => {
            format!("only peers of overlays are reached, because of the mode of {}\n", owners.join(", "))
        }
    }
}

/// The rules about peers that are not the defaults.
fn special_peers(value: &Value) -> String {
    let (special, defaults): (Vec<&Value>, Vec<&Value>) =
        items(&value["peers"]).partition(|one| one["origin"] != "default");
    let rows: Vec<_> = special.into_iter().map(peer).collect();
    let others =
        format!("{} refused by default; see `hairpin ctl peers list`\n", counted(defaults.len(), "range"));
    match rows.is_empty() {
        true => format!("peers: {others}"),
        false => table(&["PEER", "ACTION", "ORIGIN"], &rows) + &only(value) + &others,
    }
}

/// `hairpin ctl peers set`.
pub fn overlay(value: &Value) -> String {
    let n = items(&value["addresses"]).count();
    let mut out = format!("{} ({}): {}\n", cell(&value["owner"]), cell(&value["mode"]), counted(n, "peer"));
    for warning in items(&value["warnings"]) {
        let _ = writeln!(out, "{}", cell(warning));
    }
    out
}

/// `hairpin ctl peers clear`.
pub fn cleared(value: &Value) -> String {
    format!("the overlay of {} is removed\n", cell(&value["owner"]))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// Clients choose their user names, and could make a terminal hide a line or type a command.
    #[test]
    fn nothing_that_a_terminal_acts_on_is_printed() {
        let hostile = "a\u{1b}[2Jb\u{9b}1mc\nd\re\tf\u{202e}g\u{7f}";
        let rows = allocations(&[json!({ "id": "1", "user": hostile, "client": "192.0.2.1:5" })]);
        assert_eq!(rows.lines().count(), 2, "{rows}");
        for text in [rows, json(&json!({ "user": hostile }))] {
            let bad = text.chars().filter(|c| *c != '\n' && text::invisible(&c.to_string()).is_some());
            assert_eq!(bad.count(), 0, "{text:?}");
        }
        let read: Value = serde_json::from_str(&json(&json!({ "user": hostile }))).unwrap();
        assert_eq!(read["user"], hostile, "JSON says the same");
        assert_eq!(safe("Zo\u{eb} \u{65e5}\u{672c}"), "Zo\u{eb} \u{65e5}\u{672c}");
    }

    /// What needs a restart has not changed yet, and a certificate that cannot be used is no success.
    #[test]
    fn a_reload_says_what_it_has_not_done() {
        let change = |key, holds| json!({ "key": key, "change": "1 -> 2", "holds": holds });
        let reload = json!({
            "changed": [change("limits.channels", "live"), change("workers", "restart")],
            "warnings": [],
            "certificates": ["cert.pem: no permission"],
        });
        let text = reloaded(&reload);
        assert!(text.contains("workers: 1 -> 2; it holds after a restart\n"), "{text}");
        assert!(text.contains("cannot be used: cert.pem: no permission\n"), "{text}");
        assert!(text.ends_with("1 setting has changed; 1 more needs a restart: workers\n"), "{text}");
    }

    #[test]
    fn columns_are_aligned() {
        let text =
            table(&["A", "LONG"], &[vec!["wide cell".into(), "x".into()], vec!["b".into(), String::new()]]);
        assert_eq!(text, "A          LONG\nwide cell  x\nb\n");
    }

    #[test]
    fn rates_have_units() {
        for (bytes, text) in
            [(0, "0 bit/s"), (100, "800 bit/s"), (1000, "8.0 kbit/s"), (250_000, "2.0 Mbit/s")]
        {
            assert_eq!(bit_rate(&json!(bytes)), text);
        }
    }
}
