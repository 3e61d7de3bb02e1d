//! What would change in a section, as lines in which nothing secret appears.

use std::collections::BTreeSet;

use serde_json::Value;

use super::yaml::scalar;

/// The values that are shown. Any other may be a secret.
const SHOWN: [&str; 20] = [
    "host",
    "port",
    "protocol",
    "ttl",
    "secret_file",
    "url",
    "username",
    "clientOnly",
    "enabled",
    "domain",
    "tls_port",
    "external_tls",
    "udp_port",
    "bind_addresses",
    "ttl_seconds",
    "cert_file",
    "key_file",
    "relay_range_start",
    "relay_range_end",
    "stun_servers",
];

/// The most lines.
const LINES_MAX: usize = 200;

/// The fields that go, marked `-`, and those that come, marked `+`, with those that stay, entry by entry.
pub fn lines(old: Option<&Value>, new: &Value) -> Vec<String> {
    let mut lines = Vec::new();
    match (old, new) {
        (None | Some(Value::Array(_) | Value::Null), Value::Array(after)) => {
            let before = old.and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
            for n in 0..before.len().max(after.len()) {
                entry(before.get(n), after.get(n), "- ", &mut lines);
            }
        }
        (None | Some(Value::Object(_)), Value::Object(_)) => entry(old, Some(new), "", &mut lines),
        _ => {
            lines.push("- (hidden)".to_owned());
            lines.extend(self::lines(None, new));
        }
    }
    if lines.len() > LINES_MAX {
        lines.truncate(LINES_MAX);
        lines.push("...".into());
    }
    lines
}

/// The fields of an entry, each with its mark. The first one begins with `lead`.
fn entry(old: Option<&Value>, new: Option<&Value>, lead: &str, lines: &mut Vec<String>) {
    let [before, after] = [old, new].map(|one| one.and_then(Value::as_object));
    if old.is_some() && before.is_none() {
        lines.push(format!("- {lead}(hidden)"));
    }
    let keys = [before, after].into_iter().flatten().flat_map(|fields| fields.keys());
    let mut lead = lead.to_owned();
    for key in keys.collect::<BTreeSet<_>>() {
        let (before, after) = (before.and_then(|one| one.get(key)), after.and_then(|one| one.get(key)));
        let mut push = |mark, value: &Value, note| {
            lines.push(format!("{mark} {lead}{}: {}{note}", scalar(key), shown(key, value)));
        };
        match (before, after) {
            (Some(before), Some(after)) if before == after => push(' ', before, ""),
            (before, after) => {
                let is_hidden = !SHOWN.contains(&key.as_str()) && before.is_some();
                before.into_iter().for_each(|value| push('-', value, ""));
                after
                    .into_iter()
                    .for_each(|value| push('+', value, if is_hidden { ", another one" } else { "" }));
            }
        }
        lead = " ".repeat(lead.len());
    }
}

fn shown(key: &str, value: &Value) -> String {
    match value {
        _ if !SHOWN.contains(&key) => "(hidden)".into(),
        Value::String(text) => scalar(text),
        Value::Array(items) if items.iter().all(Value::is_string) => {
            let items: Vec<_> = items.iter().filter_map(Value::as_str).map(scalar).collect();
            format!("[{}]", items.join(", "))
        }
        Value::Number(_) | Value::Bool(_) | Value::Null => value.to_string(),
        Value::Array(_) | Value::Object(_) => "(hidden)".into(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_changes_is_shown_without_secrets() {
        let old = json!([
            {"host": "a", "port": 1, "secret": "old secret", "credential": "other secret"},
            {"host": "b", "secret": "same secret"},
        ]);
        let new = json!([
            {"host": "a", "port": 2, "secret": "new secret"},
            {"host": "b", "secret": "same secret"},
            {"host": "c"},
        ]);
        let lines = lines(Some(&old), &new);
        let expected = [
            "- - credential: (hidden)",
            "    host: a",
            "-   port: 1",
            "+   port: 2",
            "-   secret: (hidden)",
            "+   secret: (hidden), another one",
            "  - host: b",
            "    secret: (hidden)",
            "+ - host: c",
        ];
        assert_eq!(lines, expected);
        assert_eq!(super::lines(None, &json!([{"host": "a"}])), ["+ - host: a"]);
    }

    #[test]
    fn whatever_a_file_has_is_shown_safely_and_in_bounds() {
        let odd = json!({"a\u{1b}[2J": "x", "host": "a\u{1b}[2J", "bind_addresses": ["a", 1], "domain": {"x": "y"}});
        let shown = lines(Some(&odd), &json!({})).join("\n");
        assert!(!shown.contains('\u{1b}') && !shown.contains('y') && !shown.contains(": x"), "{shown}");
        let long: Value = (0..10_000).map(|_| json!({"host": "a"})).collect();
        assert_eq!(lines(Some(&long), &json!([])).len(), LINES_MAX + 1);
        assert_eq!(lines(Some(&json!("text")), &json!([])), ["- (hidden)"]);
        assert_eq!(lines(Some(&json!(["text"])), &json!([])), ["- - (hidden)"]);
    }
}
