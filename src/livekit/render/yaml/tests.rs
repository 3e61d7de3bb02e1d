//! Files as people have them, with the section written into them.

use proptest::prelude::*;

use super::*;
use crate::auth::Secret;

const SERVERS: Section = Section {
    parent: Some("rtc"),
    key: "turn_servers",
    notes: Vec::new(),
    body: Body::List(Vec::new()),
    kept: &[],
};

fn entry(host: &str, secret: &str) -> Entry {
    vec![
        ("host", Value::Text(host.into())),
        ("port", Value::Number(3478)),
        ("secret", Value::Hidden(Secret::new(secret))),
    ]
}

/// `rtc.turn_servers` with one server.
fn one() -> Section {
    Section { notes: vec!["note".into()], body: Body::List(vec![entry("turn.example.org", "s")]), ..SERVERS }
}

/// `rtc.turn_servers` with two servers.
fn two() -> Section {
    let entries = vec![entry("turn.example.org", "s"), entry("b.example.org", "s")];
    Section { notes: vec!["note".into()], body: Body::List(entries), ..SERVERS }
}

fn turn() -> Section {
    Section {
        parent: None,
        key: "turn",
        body: Body::Map(vec![
            ("enabled", Value::Flag(true)),
            ("bind_addresses", Value::Texts(vec!["127.0.0.1".into()])),
        ]),
        kept: &["ttl_seconds"],
        ..SERVERS
    }
}

fn written(before: &str, section: &Section) -> String {
    let after = edit(text(before.as_bytes()).unwrap(), section)
        .unwrap_or_else(|refusal| panic!("{refusal}\n{before}"))
        .text
        .unwrap_or_else(|| panic!("nothing to do\n{before}"));
    let again = edit(&after, section).unwrap_or_else(|refusal| panic!("{refusal}\n{after}"));
    assert!(again.text.is_none(), "the written section is not current:\n{after}");
    after
}

/// What the section refuses to be written into.
fn refusal(before: &str, section: &Section) -> Refusal {
    let edited = text(before.as_bytes()).and_then(|text| edit(text, section));
    match edited {
        Ok(edited) => panic!("{before:?} became {:?}", edited.text),
        Err(refusal) => refusal,
    }
}

#[test]
fn a_missing_section_is_the_first_of_its_parent() {
    let before = "\
# LiveKit
port: 7880
rtc:  # media
  # the range
  port_range_start: 50000

  tcp_port: 7881  # ICE/TCP
  # turn_servers: []
keys:
  a: b
";
    let after = "\
# LiveKit
port: 7880
rtc:  # media
  turn_servers:
    # hairpin-livekit: note
    - host: turn.example.org
      port: 3478
      secret: \"s\"
  # the range
  port_range_start: 50000

  tcp_port: 7881  # ICE/TCP
  # turn_servers: []
keys:
  a: b
";
    assert_eq!(written(before, &one()), after);
}

#[test]
fn a_missing_parent_comes_last() {
    let added = "rtc:\n  turn_servers:\n    # hairpin-livekit: note\n    - host: turn.example.org\n      port: 3478\n      \
                 secret: \"s\"\n";
    for before in [
        "port: 1\n",
        "port: 1\n# last\n",
        "---\nport: 1\n",
        "port: 1\ntext: |+\n  a\n\n",
        "%YAML 1.2\n---\na: 1\n",
    ] {
        assert_eq!(written(before, &one()), format!("{before}{added}"));
    }
    assert_eq!(written("port: 1", &one()), format!("port: 1\n{added}"), "no final line end");
    assert_eq!(written("port: 1\n...\n# end\n", &one()), format!("port: 1\n{added}...\n# end\n"));
    assert_eq!(
        written("a:\n    b: 1\n", &one()).replace("        ", "    ").lines().nth(3),
        Some("    turn_servers:")
    );
    assert_eq!(refusal("port: 1\ntext: |\n  a", &one()), Refusal::OpenEnd);
}

#[test]
fn an_empty_parent_or_section_is_filled() {
    let section = |indent: &str| {
        format!(
            "{indent}# hairpin-livekit: note\n{indent}- host: turn.example.org\n{indent}  port: 3478\n{indent}  secret: \"s\"\n"
        )
    };
    for (before, key) in [
        ("rtc:\nport: 1\n", "rtc:\n"),
        ("rtc: ~\nport: 1\n", "rtc:\n"),
        ("rtc: null # media\nport: 1\n", "rtc: # media\n"),
        ("rtc: {}   \nport: 1\n", "rtc:\n"),
        ("rtc:  # media\nport: 1\n", "rtc:  # media\n"),
    ] {
        let after = format!("{key}  turn_servers:\n{}port: 1\n", section("    "));
        assert_eq!(written(before, &one()), after, "{before}");
    }
    assert_eq!(written("rtc:", &one()), format!("rtc:\n  turn_servers:\n{}", section("    ")).trim_end());
    for (before, key) in [
        ("rtc:\n  turn_servers:\n  a: 1\n", "  turn_servers:\n"),
        ("rtc:\n  turn_servers: []\n  a: 1\n", "  turn_servers:\n"),
        ("rtc:\n  turn_servers: null # none\n  a: 1\n", "  turn_servers: # none\n"),
        ("rtc:\n  turn_servers : ~\n  a: 1\n", "  turn_servers :\n"),
        ("rtc:\n  \"turn_servers\": [ ]\n  a: 1\n", "  \"turn_servers\":\n"),
    ] {
        assert_eq!(written(before, &one()), format!("rtc:\n{key}{}  a: 1\n", section("    ")), "{before}");
    }
    // As MediaMTX delivers its file: comments below the key, which are not a part of the list.
    let before = "webrtcICEServers2: []\n  # - url: stun:a\n  # username: ''\n# next\nwebrtc: yes\n";
    let servers = Section { parent: None, key: "webrtcICEServers2", ..one() };
    let after = format!("webrtcICEServers2:\n{}{}", section("  "), before.split_once('\n').unwrap().1);
    assert_eq!(written(before, &servers), after);
}

/// Comments belong to the operator: they stay above and beside what they were above and beside.
#[test]
fn comments_in_the_section_stay() {
    let before = "\
rtc:
  turn_servers:  # ours
    # Frankfurt
    - host: old.example.org  # DNS
      port: 3479
      username: x  # static
      # rotated monthly
      secret: \"#a\" # secret

    # Helsinki
    -   host: b.example.org
        port: 3478 # main
        note: |
          # no comment

    - # third
      host: c
  # after
  a: 1
";
    let after = "\
rtc:
  turn_servers:  # ours
    # hairpin-livekit: note
    # static
    # Frankfurt
    - host: turn.example.org  # DNS
      port: 3478
      # rotated monthly
      secret: \"s\" # secret

    # Helsinki
    - host: b.example.org
      port: 3478 # main
      secret: \"s\"
    # third
  # after
  a: 1
";
    assert_eq!(written(before, &two()), after);
    assert_eq!(written(after, &one()).matches('#').count(), after.matches('#').count());
}

#[test]
fn own_notes_are_replaced() {
    let before = "rtc:\n  turn_servers:\n    # hairpin-livekit: of an old version\n    - host: a\n  b: 1\n";
    let after = written(before, &one());
    assert!(after.contains("# hairpin-livekit: note\n") && !after.contains("old version"), "{after}");
}

/// A list may begin at the column of its key.
#[test]
fn the_column_of_a_list_stays() {
    let before = "rtc:\n    turn_servers:\n    - host: a\n      port: 1\n    # after\n    b: 1\n";
    let after = "rtc:\n    turn_servers:\n    # hairpin-livekit: note\n    - host: turn.example.org\n      port: 3478\n      \
                 secret: \"s\"\n    # after\n    b: 1\n";
    assert_eq!(written(before, &one()), after);
}

#[test]
fn other_indentations_are_followed() {
    let before = "room:\n    a: 1\nport: 1\n";
    let after = "room:\n    a: 1\nport: 1\nrtc:\n    turn_servers:\n        # hairpin-livekit: note\n        - host: \
                 turn.example.org\n          port: 3478\n          secret: \"s\"\n";
    assert_eq!(written(before, &one()), after);
    let after = written("  port: 1\n  rtc:\n   a: 1\n", &one());
    assert!(after.starts_with("  port: 1\n  rtc:\n   turn_servers:\n    # hair"), "{after}");
    let after = written("  port: 1\n", &one());
    assert!(after.starts_with("  port: 1\n  rtc:\n    turn_servers:\n      # hair"), "{after}");
}

#[test]
fn line_ends_marks_and_missing_line_ends_stay() {
    let before = "\u{FEFF}port: 1\r\nrtc:\r\n  turn_servers:\r\n  - host: a # x\r\n  b: \u{e9}\r\nlast: 1";
    let after = written(before, &one());
    assert!(
        after.starts_with("\u{FEFF}port: 1\r\nrtc:\r\n  turn_servers:\r\n  # hairpin-livekit: note\r\n"),
        "{after:?}"
    );
    assert!(
        after.contains("- host: turn.example.org # x\r\n") && after.ends_with("  b: \u{e9}\r\nlast: 1"),
        "{after:?}"
    );
    assert_eq!(after.matches('\n').count(), after.matches("\r\n").count());
    let after = written("rtc:\n  turn_servers:\n    - host: a", &one());
    assert!(after.ends_with("secret: \"s\""), "{after:?}");
}

#[test]
fn a_mapping_is_replaced_and_keeps_what_is_to_be_kept() {
    let before = "port: 1\nturn:\n  enabled: false  # for now\n  domain: a\n  # minutes\n  ttl_seconds: 600\n  bind_addresses: [0.0.0.0]\n# end\n";
    let after = "port: 1\nturn:\n  enabled: true  # for now\n  bind_addresses:\n    - 127.0.0.1\n  # minutes\n  ttl_seconds: 600\n# end\n";
    assert_eq!(written(before, &turn()), after);
    let after = "port: 1\nturn:\n  enabled: true\n  bind_addresses:\n    - 127.0.0.1\n";
    assert_eq!(written("port: 1\n", &turn()), after);
    let list = "turn:\n  bind_addresses:\n    # outside\n    - 0.0.0.0 # all\n    - \"::\"\n  enabled: false\nport: 1\n";
    let after = "turn:\n  enabled: true\n  # all\n  bind_addresses:\n    - 127.0.0.1\n";
    let written = written(list, &turn());
    assert!(
        written.contains("# outside") && written.contains("# all") && written.ends_with("port: 1\n"),
        "{written}\n{after}"
    );
}

/// However it is written, also in flow style or with other comments: nothing to do is nothing to do.
#[test]
fn a_section_of_equal_value_is_current() {
    for before in [
        "rtc: {turn_servers: [{host: turn.example.org, port: 3478, secret: s}]}\n",
        "rtc:\n  turn_servers:\n  - {secret: 's', port: 0xD96, host: \"turn.example.org\"}\n",
        "rtc:\n  turn_servers: # mine\n  - port: 3478\n    # x\n    secret: s\n    host: turn.example.org\n",
    ] {
        let edited = edit(before, &one()).unwrap();
        assert!(edited.text.is_none() && edited.old == Some(edited.new), "{before}");
    }
    assert!(
        edit("turn:\n  bind_addresses: [127.0.0.1]\n  ttl_seconds: 60\n  enabled: true\n", &turn())
            .unwrap()
            .text
            .is_none()
    );
}

#[test]
fn what_is_not_block_style_is_refused() {
    let flow = |line, key: &str| Refusal::Flow { line, key: key.into() };
    let unusual = |line, key: &str| Refusal::Unusual { line, key: key.into() };
    for (before, expected) in [
        ("{\"port\": 1}\n", Refusal::Json),
        ("{port: 1, rtc: {}}\n", Refusal::Json),
        ("port: 1\nrtc: {tcp_port: 1}\n", flow(2, "rtc")),
        ("rtc:\n  {tcp_port: 1}\n", flow(1, "rtc")),
        ("rtc:\n  turn_servers: [{host: a}]\n", flow(2, "turn_servers")),
        ("rtc:\n  turn_servers:\n    [{host: a}]\n", flow(2, "turn_servers")),
        ("rtc:\n  turn_servers:\n    - {host: a}\n", flow(3, "turn_servers")),
        ("rtc:\n  turn_servers:\n    - host: b\n    - {host: a}\n", flow(4, "turn_servers")),
        ("rtc:\n  turn_servers:\n    []\n", unusual(2, "turn_servers")),
        ("? rtc\n: a: 1\n", unusual(1, "rtc")),
        ("rtc: 1\n", Refusal::WrongType { line: 1, key: "rtc".into(), wanted: "mapping" }),
        ("rtc:\n- a\n", Refusal::WrongType { line: 1, key: "rtc".into(), wanted: "mapping" }),
        (
            "rtc:\n  turn_servers: a\n",
            Refusal::WrongType { line: 2, key: "turn_servers".into(), wanted: "list" },
        ),
        (
            "rtc:\n  turn_servers:\n    a: 1\n",
            Refusal::WrongType { line: 2, key: "turn_servers".into(), wanted: "list" },
        ),
        (
            "rtc:\n  turn_servers: ''\n",
            Refusal::WrongType { line: 2, key: "turn_servers".into(), wanted: "list" },
        ),
        ("port: {{ .Values.port }}\n", Refusal::Template(1)),
        ("port: 1\n{% if a %}\nrtc:\n{% endif %}\n", Refusal::Template(2)),
        ("rtc: &a\n  b: 1\n", Refusal::Anchor(1)),
        ("x: &a {}\nrtc: *a\n", Refusal::Anchor(1)),
        ("rtc:\n  a: 1\nrtc:\n  b: 1\n", Refusal::Duplicate { line: 3, key: "rtc".into() }),
        (
            "rtc:\n  turn_servers: []\n  turn_servers: []\n",
            Refusal::Duplicate { line: 3, key: "turn_servers".into() },
        ),
        ("port: 1\rrtc:\n", Refusal::CarriageReturn(1)),
        ("port: 1\n---\nrtc:\n", Refusal::SeveralDocuments(2)),
    ] {
        assert_eq!(refusal(before, &one()), expected, "{before}");
    }
    assert!(matches!(text(&vec![b' '; FILE_MAX + 1]), Err(Refusal::TooLarge)));
    assert!(matches!(text(b"a: \xFF\n"), Err(Refusal::NotText { line: 1, .. })));
}

/// Flow style, templates in comments and long texts elsewhere are no obstacle.
#[test]
fn what_is_not_touched_may_be_in_any_style() {
    for before in [
        "bind_addresses: [\"127.0.0.1\"]\nrtc:\n  ips: {includes: [10.0.0.0/8]}\n  a: 1\n",
        "# {{ ansible_managed }}\nrtc:\n  a: 1 # {{ x }}\n",
        "keys: {a: b}\nrtc:\n  a: \"x\n    y\"\n  b: >-\n    text\n    # no comment\n\n  c: 'it''s'\n",
    ] {
        let after = written(before, &one());
        let (head, tail) = after.split_once("  turn_servers:").unwrap();
        let tail = tail.split_once("secret: \"s\"\n").unwrap().1;
        assert_eq!(format!("{head}{tail}"), before);
    }
}

/// LiveKit's own sample, in short: everything but the section stays.
fn documents() -> impl Strategy<Value = String> {
    let scalar = prop::sample::select(vec![
        "1",
        "text",
        "\"quoted # not a comment\"",
        "'it''s'",
        "[1, 2]",
        "{a: 1}",
        "~",
        "",
        "|\n      block\n      # text\n",
        ">-\n      folded",
        "\u{e9}\u{1F600}",
    ]);
    let comment = prop::sample::select(vec!["", "", " # beside", "   # \u{fc}"]);
    let above = prop::sample::select(vec!["", "", "\n", "# a comment\n", "    # deeper\n\n"]);
    let field = (above, scalar, comment);
    let fields = prop::collection::vec(field, 0..4);
    let nested = fields.clone().prop_map(|fields| lines(&fields, "      ", "k"));
    let servers = prop::option::of(prop::collection::vec(fields.clone(), 0..3).prop_map(|entries| {
        let mut text = String::from("  turn_servers:\n");
        for entry in entries.iter().filter(|entry| !entry.is_empty()) {
            text += &format!("    - host: a\n{}", lines(entry, "      ", "k"));
        }
        text
    }));
    let rtc = prop::option::of((fields.clone(), servers).prop_map(|(fields, servers)| {
        format!("rtc:\n{}{}", lines(&fields, "  ", "r"), servers.unwrap_or_default())
    }));
    (fields.clone(), rtc, fields, nested, any::<bool>(), any::<bool>(), any::<bool>()).prop_map(
        |(before, rtc, after, nested, crlf, mark, end)| {
            let mut text = lines(&before, "", "b") + &rtc.unwrap_or_default() + &lines(&after, "", "a");
            text += &format!("deep:\n    x:\n{nested}last: 1\n");
            let text = if end { text } else { text.trim_end().to_owned() };
            let text = if crlf { text.replace('\n', "\r\n") } else { text };
            if mark { format!("\u{FEFF}{text}") } else { text }
        },
    )
}

fn lines(fields: &[(&str, &str, &str)], indent: &str, name: &str) -> String {
    let mut text = String::new();
    for (n, (above, value, comment)) in fields.iter().enumerate() {
        let value = value.replace("\n      ", &format!("\n{indent}      "));
        let comment = if value.contains('\n') { "" } else { comment };
        text += &format!("{above}{indent}{name}{n}: {value}{comment}\n");
    }
    text
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, ..ProptestConfig::default() })]

    /// Every document is edited so that everything else is as before: lines outside the section, comments anywhere, the value of
    /// all other keys (which `edit` itself verifies), and a second edit finds nothing to do.
    #[test]
    fn everything_else_stays(before in documents()) {
        let edited = edit(&before, &two()).map_err(|refusal| TestCaseError::fail(format!("{refusal}\n{before}")))?;
        let after = edited.text.expect("no document has these servers");
        prop_assert!(edit(&after, &two()).unwrap().text.is_none());
        for comment in ["# a comment", "# deeper", "# beside", "# \u{fc}"] {
            prop_assert_eq!(before.matches(comment).count(), after.matches(comment).count(), "{}\n{}", before, after);
        }
        let (head, tail) = (shared(before.chars(), after.chars()), shared(before.chars().rev(), after.chars().rev()));
        let lost: String = before.chars().skip(head).take(before.chars().count().saturating_sub(head + tail)).collect();
        for line in lost.lines().skip(1) {
            let is_of_section = line.trim().is_empty() || line.contains("host") || line.contains('k') || line.contains('#')
                || line.contains("block") || line.contains("folded");
            prop_assert!(is_of_section, "lost {:?}\n{}\n{}", line, before, after);
        }
    }

    /// No text makes it panic, whatever bytes a file has.
    #[test]
    fn no_text_panics(noise in "[ab:\\-#\\[\\]{}|>\"'&*!%?, \\t\\r\\n~\u{e9}\u{2028}]{0,60}") {
        for text in [noise.clone(), format!("rtc:\n  a: 1\n{noise}"), format!("rtc:\n  turn_servers:\n    - a: 1\n{noise}")] {
            if let Ok(text) = super::text(text.as_bytes()) {
                let _ = edit(text, &two());
            }
        }
    }
}

fn shared(one: impl Iterator<Item = char>, other: impl Iterator<Item = char>) -> usize {
    one.zip(other).take_while(|(one, other)| one == other).count()
}
