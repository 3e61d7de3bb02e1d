//! Settings of arguments and the environment, and the version.

use super::place::{Place, SECRET, command, hairpin, text};

/// Flags precede the environment, which precedes the file, and `check` says so for each setting.
#[test]
fn check_says_where_each_setting_comes_from() {
    let place = Place::new("[log]\nlevel = \"warn\"\n");
    let output = command(&["check", place.config(), "--set", "log.level=debug"])
        .envs([
            ("HAIRPIN_LOG_LEVEL", "error"),
            ("HAIRPIN_RELAY_PORTS", "21000-21099"),
            ("HAIRPIN_PORT", "tcp://10.0.0.1:3478"),
        ])
        .output()
        .unwrap();
    let said = text(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{said}");
    let file = place.file().display().to_string();
    for line in [
        format!(
            "arguments: note: --set log.level=debug: sets log.level instead of HAIRPIN_LOG_LEVEL in the environment and of {file}:"
        ),
        format!(
            "environment: note: HAIRPIN_RELAY_PORTS = 21000-21099: sets relay.ports instead of {file}:7, which is not used; flags precede"
        ),
    ] {
        assert!(said.contains(&line), "{line} is not in\n{said}");
    }
    assert!(!said.contains("HAIRPIN_PORT ") && said.ends_with(": ok\n"), "{said}");
}

#[test]
fn check_reports_mistakes_outside_of_the_file() {
    let place = Place::new("");
    let output = command(&[
        "check",
        place.config(),
        "--set",
        "listen.udp=nowhere",
        "--set",
        &format!("auth.secrets={SECRET}"),
    ])
    .envs([("HAIRPIN_LIMITS_CHANNELS", "many"), ("HAIRPIN_AUTH_SECRETS", SECRET)])
    .output()
    .unwrap();
    let said = text(&output.stdout);
    assert_eq!(output.status.code(), Some(2), "{said}");
    for line in [
        "arguments: --set listen.udp=\"nowhere\": not an address with a port; write it like",
        "arguments: --set auth.secrets=***: a secret is never an argument, because every user of this machine can read",
        "environment: HAIRPIN_LIMITS_CHANNELS = \"many\": expected a number, found text",
    ] {
        assert!(said.contains(line), "{line} is not in\n{said}");
    }
    assert!(!said.contains(SECRET), "{said}");
    let output = command(&["check", place.config()]).env("HAIRPIN_AUTH_SECRETS", SECRET).output().unwrap();
    let said = text(&output.stdout);
    assert!(said.contains("warning: HAIRPIN_AUTH_SECRETS: is not used: HAIRPIN_AUTH_SECRET is"), "{said}");
    assert!(!said.contains(SECRET) && output.status.success(), "{said}");
}

/// Without a file, everything may come from flags and the environment.
#[test]
fn a_relay_without_a_file_takes_its_settings_from_the_environment() {
    let place = Place::new("");
    let mut start = command(&["serve", "--set", &format!("http.listen=127.0.0.1:{}", place.http)]);
    start.envs([
        ("HAIRPIN_AUTH_SECRET", SECRET.to_owned()),
        ("HAIRPIN_LISTEN_UDP", format!("127.0.0.1:{}", place.udp)),
        ("HAIRPIN_LISTEN_TCP", "[]".to_owned()),
        ("HAIRPIN_LISTEN_TLS", "[]".to_owned()),
        ("HAIRPIN_RELAY_ADDRESSES", "127.0.0.1".to_owned()),
        ("HAIRPIN_RELAY_PORTS", "22000-22099".to_owned()),
        ("HAIRPIN_WORKERS", "1".to_owned()),
        ("HAIRPIN_WORKRES", "secretive".to_owned()),
    ]);
    let log = place.folder.path().join("log");
    let running = place.wait_for_start(&mut start, std::fs::File::create(&log).unwrap().into());
    place.wait_for_log(&log, "relayed addresses: 127.0.0.1 (configured); ports 22000-22099");
    drop(running);
    let said = std::fs::read_to_string(&log).unwrap();
    for words in [
        &format!("listening for clients on udp 127.0.0.1:{}\n", place.udp),
        "environment: note: HAIRPIN_WORKERS = 1: sets workers; flags precede",
        "environment: warning: HAIRPIN_WORKRES: unknown variable, which has no effect; did you mean HAIRPIN_WORKERS?",
    ] {
        assert!(said.contains(words), "{words:?} is not in\n{said}");
    }
    assert!(!said.contains("secretive") && !said.contains("the shared secret is in"), "{said}");
}

/// `credentials` reads the same settings as `serve`.
#[test]
fn credentials_use_the_settings_of_the_environment() {
    let output = command(&["credentials", "--user", "alice", "--set", "listen.udp=192.0.2.7:4000"])
        .envs([("HAIRPIN_AUTH_SECRET", SECRET), ("HAIRPIN_LISTEN_TCP", "[]"), ("HAIRPIN_LISTEN_TLS", "[]")])
        .output()
        .unwrap();
    let said = text(&output.stdout);
    assert!(said.contains("\"urls\":[\"turn:192.0.2.7:4000?transport=udp\"]"), "{output:?}");
}

#[test]
fn the_version_names_the_commit_and_the_features() {
    let long = hairpin(&["--version"]);
    let line = text(&long.stdout);
    let start = format!("hairpin {} (", env!("CARGO_PKG_VERSION"));
    let rest = line.strip_prefix(&start).unwrap_or_else(|| panic!("{line}"));
    let (commit, rest) = rest.split_once(") features: ").unwrap_or_else(|| panic!("{line}"));
    assert!(
        commit == "unknown" || commit.len() == 7 && commit.bytes().all(|b| b.is_ascii_hexdigit()),
        "{line}"
    );
    assert!(
        ["udp", "tcp", "tls1.3"].iter().all(|feature| rest.split_whitespace().any(|word| word == *feature)),
        "{line}"
    );
    assert_eq!(text(&hairpin(&["-V"]).stdout), format!("hairpin {}\n", env!("CARGO_PKG_VERSION")));
}
