//! The section that is written, as values and as lines of YAML.

use std::fmt::Write as _;
use std::net::Ipv4Addr;

use serde_json::{Map, json};

use super::comments::{Comments, OURS};
use crate::auth::Secret;

/// A section, and where it belongs.
#[derive(Clone, Debug)]
pub struct Section {
    /// The key of the mapping that has it, if that is not the document.
    pub parent: Option<&'static str>,
    /// Its key.
    pub key: &'static str,
    /// What it says about itself, one comment line each.
    pub notes: Vec<String>,
    /// Its value.
    pub body: Body,
    /// Keys of an existing mapping whose numbers stay.
    pub kept: &'static [&'static str],
}

/// The value of a section.
#[derive(Clone, Debug)]
pub enum Body {
    /// A list of mappings.
    List(Vec<Entry>),
    /// One mapping.
    Map(Entry),
}

/// A mapping.
pub type Entry = Vec<(&'static str, Value)>;

/// A value.
#[derive(Clone, Debug)]
pub enum Value {
    /// Text.
    Text(String),
    /// Text that is printed only where it is to be pasted.
    Hidden(Secret),
    /// A number.
    Number(u64),
    /// `true` or `false`.
    Flag(bool),
    /// A list of texts.
    Texts(Vec<String>),
}

impl Section {
    /// The section with the keys that lead to it, for pasting.
    pub fn print(&self) -> String {
        let (mut text, mut indent) = (String::new(), 0);
        for key in self.parent.iter().chain([&self.key]) {
            let _ = writeln!(text, "{:indent$}{key}:", "");
            indent += 2;
        }
        for line in self.lines(indent, &Comments::default()) {
            let _ = writeln!(text, "{line}");
        }
        text
    }

    /// The lines below the key, at this column, together with the comments of the section that is replaced.
    pub fn lines(&self, indent: usize, old: &Comments) -> Vec<String> {
        let notes = self.notes.iter().map(|note| format!("{:indent$}{OURS}{note}", ""));
        let mut lines: Vec<String> = notes.collect();
        let (entries, dash) = match &self.body {
            Body::List(entries) => (&entries[..], "- "),
            Body::Map(entry) => (std::slice::from_ref(entry), ""),
        };
        for (n, entry) in entries.iter().enumerate() {
            let keys: Vec<_> = entry.iter().map(|(key, _)| *key).collect();
            lines.extend(old.gone(n, &keys, indent));
            let mut lead = dash;
            for (key, value) in entry {
                lines.extend(old.above(n, key));
                let comment = old.beside(n, key);
                let deeper = indent + dash.len();
                match value {
                    Value::Texts(texts) => {
                        lines.push(format!("{:indent$}{lead:deep$}{key}:{comment}", "", deep = dash.len()));
                        lines.extend(texts.iter().map(|text| format!("{:deeper$}  - {}", "", scalar(text))));
                    }
                    value => {
                        let value = value.source();
                        lines.push(format!(
                            "{:indent$}{lead:deep$}{key}: {value}{comment}",
                            "",
                            deep = dash.len()
                        ));
                    }
                }
                lead = "";
            }
        }
        lines.extend(old.rest(entries.len(), indent));
        lines
    }

    /// The section with the numbers of the existing one that stay.
    pub fn with_kept(&self, old: Option<&serde_json::Value>) -> Section {
        let mut section = self.clone();
        if let (Body::Map(entry), Some(old)) = (&mut section.body, old) {
            let numbers =
                self.kept.iter().filter_map(|key| Some((*key, Value::Number(old.get(key)?.as_u64()?))));
            entry.extend(numbers);
        }
        section
    }

    /// Whether it has a secret itself.
    pub fn has_secret(&self) -> bool {
        let entries = match &self.body {
            Body::List(entries) => &entries[..],
            Body::Map(entry) => std::slice::from_ref(entry),
        };
        entries.iter().flatten().any(|(_, value)| matches!(value, Value::Hidden(_)))
    }

    /// The value, for comparisons.
    pub fn value(&self) -> serde_json::Value {
        let entry = |entry: &Entry| {
            let fields = entry.iter().map(|(key, value)| ((*key).to_owned(), value.json()));
            serde_json::Value::Object(fields.collect::<Map<_, _>>())
        };
        match &self.body {
            Body::List(entries) => entries.iter().map(entry).collect(),
            Body::Map(one) => entry(one),
        }
    }
}

impl Value {
    fn json(&self) -> serde_json::Value {
        match self {
            Value::Text(text) => json!(text),
            Value::Hidden(secret) => json!(String::from_utf8_lossy(secret.as_bytes())),
            Value::Number(number) => json!(number),
            Value::Flag(flag) => json!(flag),
            Value::Texts(texts) => json!(texts),
        }
    }

    fn source(&self) -> String {
        match self {
            Value::Text(text) => scalar(text),
            Value::Hidden(secret) => quoted(&String::from_utf8_lossy(secret.as_bytes())),
            Value::Number(number) => number.to_string(),
            Value::Flag(flag) => flag.to_string(),
            Value::Texts(texts) => {
                let texts: Vec<_> = texts.iter().map(|text| scalar(text)).collect();
                format!("[{}]", texts.join(", "))
            }
        }
    }
}

/// A string as YAML of every version reads it back: plain where that is beyond doubt, otherwise in double quotes.
pub fn scalar(text: &str) -> String {
    let is_word = text.starts_with(|first: char| first.is_ascii_alphabetic() || first == '/')
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._/?=:@+-".contains(&byte))
        && !text.ends_with(':');
    // YAML 1.1 takes some words for truth values.
    let words = ["true", "false", "null", "yes", "no", "on", "off", "y", "n"];
    let is_reserved = words.iter().any(|word| text.eq_ignore_ascii_case(word));
    if is_word && !is_reserved || text.parse::<Ipv4Addr>().is_ok() { text.to_owned() } else { quoted(text) }
}

fn quoted(text: &str) -> String {
    let mut quoted = String::from('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => quoted.extend(['\\', c]),
            c if c.is_control() || matches!(c, '\u{2028}' | '\u{2029}' | '\u{FEFF}') => {
                let _ = write!(quoted, "\\u{:04X}", u32::from(c));
            }
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}

#[cfg(test)]
mod tests {
    use saphyr::{LoadableYamlNode, Yaml};

    use super::*;

    fn section(parent: Option<&'static str>, key: &'static str, body: Body) -> Section {
        Section { parent, key, notes: vec!["a note".into()], body, kept: &[] }
    }

    #[test]
    fn a_section_is_printed_with_the_keys_that_lead_to_it() {
        let entry = |host: &str| {
            vec![
                ("host", Value::Text(host.into())),
                ("port", Value::Number(3478)),
                ("secret", Value::Hidden(Secret::new("a \"secret\""))),
            ]
        };
        let list = Body::List(vec![entry("turn.example.org"), entry("[2001:db8::1]")]);
        let expected = r#"rtc:
  turn_servers:
    # hairpin-livekit: a note
    - host: turn.example.org
      port: 3478
      secret: "a \"secret\""
    - host: "[2001:db8::1]"
      port: 3478
      secret: "a \"secret\""
"#;
        assert_eq!(section(Some("rtc"), "turn_servers", list).print(), expected);
        let map = Body::Map(vec![
            ("enabled", Value::Flag(true)),
            ("bind_addresses", Value::Texts(vec!["127.0.0.1".into(), "::1".into()])),
            ("ttl_seconds", Value::Number(600)),
        ]);
        let expected = r#"turn:
  # hairpin-livekit: a note
  enabled: true
  bind_addresses:
    - 127.0.0.1
    - "::1"
  ttl_seconds: 600
"#;
        assert_eq!(section(None, "turn", map).print(), expected);
    }

    /// Whatever the text is, a parser reads it back as that text.
    #[test]
    fn every_text_is_read_back_as_itself() {
        for text in [
            "",
            " ",
            "x ",
            "yes",
            "NO",
            "null",
            "~",
            "1e5",
            "0x10",
            "12:30",
            "-",
            "- a",
            "a: b",
            "a #b",
            "#",
            "'",
            "\"",
            "\\",
            "\\n",
            "{a}",
            "[a]",
            "*a",
            "&a",
            "!a",
            "%a",
            "@a",
            "`a",
            "|",
            ">",
            "a:",
            ":a",
            "\u{e9}",
            "\u{2028}",
            "\u{7}",
            "\u{85}",
            "a\nb",
            "a\r\n",
            "\t",
            "turn.example.org",
            "127.0.0.1",
            "[2001:db8::1]",
            "/etc/a-b_c.d",
            "/etc/a b",
            "turn:a.b:3478?transport=udp",
            "{{ x }}",
            "\u{1F600}",
        ] {
            let yaml = format!("a: {}\nb: 1\n", scalar(text));
            let read = Yaml::load_from_str(&yaml).unwrap();
            assert_eq!(read[0]["a"].as_str(), Some(text), "{yaml:?}");
            assert_eq!(read[0]["b"].as_integer(), Some(1), "{yaml:?}");
        }
    }
}
