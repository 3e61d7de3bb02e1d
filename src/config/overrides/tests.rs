//! Settings of arguments and the environment.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::Path;

use super::*;
use crate::config::{Loaded, load, tests::pem, without_file};

const SECRET: &str = "0123456789abcdef";

/// Loads a file, or the defaults, with these arguments of `--set` and this environment.
fn loaded(file: Option<&str>, set: &[&str], environment: &[(&str, &str)]) -> Result<Loaded, Vec<String>> {
    let arguments: Vec<_> = set.iter().map(|text| Argument::set(text)).collect();
    let environment: BTreeMap<String, OsString> =
        environment.iter().map(|(name, value)| ((*name).to_owned(), (*value).into())).collect();
    read(file, &arguments, &environment)
}

fn read(
    file: Option<&str>,
    arguments: &[Argument],
    environment: &BTreeMap<String, OsString>,
) -> Result<Loaded, Vec<String>> {
    let reads = |path: &Path| {
        let text = match path.file_name().and_then(|name| name.to_str()) {
            Some("tokens" | "metrics-tokens") => {
                "prometheus:read:0123456789abcdef0123456789abcdef\n".to_owned()
            }
            Some("users") => "bob:builder\n".to_owned(),
            Some("livekit-keys.yaml") => "APIkey: 0123456789abcdef0123456789abcdef\n".to_owned(),
            _ => pem(path).unwrap_or_else(|| "a secret in a file\n".to_owned()),
        };
        Ok(text.as_str().into())
    };
    let context = ReadContext {
        read: &reads,
        read_here: &reads,
        arguments,
        variables: &|| environment.keys().cloned().collect(),
        environment: &|name| environment.get(name).cloned(),
        now: 1_893_456_000,
        ..ReadContext::NONE
    };
    let loaded = match file {
        Some(text) => load("hairpin.toml", text, &context),
        None => without_file(&context),
    };
    loaded.map_err(|mistakes| mistakes.iter().map(ToString::to_string).collect())
}

fn warnings(set: &[&str], environment: &[(&str, &str)]) -> Vec<String> {
    loaded(None, set, environment).unwrap().warnings.iter().map(ToString::to_string).collect()
}

fn notes(file: Option<&str>, set: &[&str], environment: &[(&str, &str)]) -> Vec<String> {
    let loaded = loaded(file, set, environment).unwrap();
    loaded.overrides.iter().map(ToString::to_string).collect()
}

/// Every key but secrets can be set by an argument and by a variable, as TOML and without the quotes and brackets of a list.
#[test]
fn every_setting_can_be_set_without_a_file() {
    let rows = || SETTINGS.iter().filter(|setting| !setting.kind.is_secret());
    let value = |setting: &Setting<Settings>| match setting.example {
        "" => setting.default,
        example => example,
    };
    let bare = |setting: &Setting<Settings>| {
        let value = value(setting);
        if setting.kind.shape() == Shape::Plain || value == "[]" || value == "\"\"" {
            return value.to_owned();
        }
        let value = value.strip_prefix("[\"").and_then(|rest| rest.strip_suffix("\"]")).unwrap_or(value);
        value.trim_matches('"').replace("\", \"", ",")
    };
    let file: String = rows().map(|row| format!("{} = {}\n", row.key, value(row))).collect();
    let expected = loaded(Some(&file), &[], &[]).map(|loaded| format!("{:?}", loaded.settings)).unwrap();
    for is_bare in [false, true] {
        let text = |row: &Setting<Settings>| if is_bare { bare(row) } else { value(row).to_owned() };
        let set: Vec<_> = rows().map(|row| format!("{}={}", row.key, text(row))).collect();
        let set: Vec<_> = set.iter().map(String::as_str).collect();
        let found = loaded(None, &set, &[]).unwrap();
        assert_eq!(format!("{:?}", found.settings), expected);
        assert_eq!(found.overrides.len(), set.len());
        let variables: Vec<_> = rows().map(|row| (variable_of(row.key), text(row))).collect();
        let variables: Vec<_> =
            variables.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        let found = loaded(None, &[], &variables).unwrap();
        assert_eq!(format!("{:?}", found.settings), expected);
    }
}

#[test]
fn every_variable_belongs_to_one_setting() {
    let mut names: Vec<_> = SETTINGS.iter().map(|setting| variable_of(setting.key)).collect();
    names.push(SECRET_VARIABLE.to_owned());
    names.sort_unstable();
    assert!(names.windows(2).all(|pair| pair[0] != pair[1]), "{names:?}");
}

#[test]
fn values_are_toml_or_bare_words() {
    let udp = |text: &str| {
        let set = format!("listen.udp={text}");
        format!("{:?}", loaded(None, &[&set, "listen.gso=true"], &[]).unwrap().settings.listen.udp)
    };
    for text in [
        "127.0.0.1:1,[::]:2",
        "[\"127.0.0.1:1\", '[::]:2']",
        "[127.0.0.1:1, [::]:2]",
        "127.0.0.1:1\n[::]:2\n",
    ] {
        assert_eq!(udp(text), "[127.0.0.1:1, [::]:2]", "{text}");
    }
    for text in ["[::]:2", "\"[::]:2\"", "[[::]:2]", "[\"[::]:2\"]"] {
        assert_eq!(udp(text), "[[::]:2]", "{text}");
    }
    assert_eq!(udp("[::]"), "[[::]:3478]");
    assert_eq!(udp("[::]:1, [::1]"), "[[::]:1, [::1]:3478]");
    assert_eq!(udp("[]"), "[]");
    let realm = |text: &str| loaded(None, &[&format!("auth.realm={text}")], &[]).unwrap().settings.auth.realm;
    for (text, expected) in [
        ("a,b", "a,b"),
        ("12", "12"),
        ("true", "true"),
        ("\"x y\"", "x y"),
        ("x = y", "x = y"),
        ("a\nb = 1", "a\nb = 1"),
    ] {
        assert_eq!(realm(text), expected);
    }
    let settings = loaded(None, &["software=\"\"", "workers=4", " listen.gro =false"], &[]).unwrap().settings;
    assert_eq!((settings.software.as_str(), settings.workers, settings.listen.gro), ("", 4, false));
}

/// Flags precede the environment, which precedes the file, and it is said which value is used. What is not used may be wrong.
#[test]
fn flags_precede_the_environment_and_that_the_file() {
    let file = format!(
        "workers = 0\n[log]\nlevel = \"loud\"\n[relay]\nports = \"9-1\"\n[auth]\nsecrets = \"{SECRET}\"\n"
    );
    let set = ["log.level=debug"];
    let environment =
        [("HAIRPIN_LOG_LEVEL", "silent"), ("HAIRPIN_RELAY_PORTS", "2000-3000"), ("HAIRPIN_WORKERS", "")];
    let settings = loaded(Some(&file), &set, &environment).unwrap().settings;
    assert_eq!(
        (settings.log.level, settings.relay.ports),
        (crate::config::settings::Level::Debug, 2000..=3000)
    );
    assert_eq!(
        notes(Some(&file), &set, &environment),
        [
            "environment: note: HAIRPIN_RELAY_PORTS = 2000-3000: sets relay.ports instead of hairpin.toml:5, which is not \
             used; flags precede the environment, and the environment precedes the file",
            "arguments: note: --set log.level=debug: sets log.level instead of HAIRPIN_LOG_LEVEL in the environment and of \
             hairpin.toml:3, which are not used; flags precede the environment, and the environment precedes the file",
        ]
    );
    assert_eq!(
        notes(None, &[], &[("HAIRPIN_WORKERS", "3")]),
        [
            "environment: note: HAIRPIN_WORKERS = 3: sets workers; flags precede the environment, and the environment precedes \
          the file"
        ]
    );
}

/// Flags of their own are settings like any other.
#[test]
fn flags_of_their_own_precede_the_environment() {
    let flag = [Argument::flag("--relay-ports", "relay.ports", "2000-3000")];
    let environment = BTreeMap::from([("HAIRPIN_RELAY_PORTS".to_owned(), "4000-5000".into())]);
    let found = read(None, &flag, &environment).unwrap();
    assert_eq!(found.settings.relay.ports, 2000..=3000);
    let note = "arguments: note: --relay-ports = 2000-3000: sets relay.ports instead of HAIRPIN_RELAY_PORTS in the environment, \
                which is not used;";
    assert!(found.overrides[0].to_string().starts_with(note), "{:?}", found.overrides);
    let both = [Argument::set("relay.ports=4000-5000"), flag[0].clone()];
    let mistakes = read(None, &both, &BTreeMap::new()).unwrap_err();
    assert!(mistakes[0].starts_with("arguments: --relay-ports: relay.ports is set twice"), "{mistakes:?}");
}

#[test]
fn mistakes_name_the_argument_or_the_variable() {
    for (set, expected) in [
        (
            "listen.udp=0.0.0.0:0",
            "--set listen.udp=\"0.0.0.0:0\": port 0 is not a valid port; write a port from 1 to 65535",
        ),
        (
            "listen.udp=0.0.0.0,203.0.113.256",
            "--set listen.udp=\"203.0.113.256\": not an address with a port; write it like",
        ),
        (
            "workers=four",
            "--set workers=\"four\": expected a number, found text; write a whole number, without quotes",
        ),
        (
            "listen.gro=1",
            "--set listen.gro=1: expected true or false, found a number; write true or false, without quotes",
        ),
        ("limits.channels=0", "--set limits.channels=0: out of range: 0 does not mean no limit here"),
        ("listen.upd=0.0.0.0", "--set listen.upd: unknown setting; did you mean listen.udp?"),
        ("realm=x", "--set realm: unknown setting; did you mean auth.realm?"),
        ("min-port=x", "--set min-port: unknown setting; did you mean relay.ports?"),
        ("quite.different=x", "--set quite.different: unknown setting; remove it"),
        ("listen.udp", "--set: expected key=value; write it like --set listen.udp=0.0.0.0:3478"),
        (
            "listen.udp=",
            "--set listen.udp: there is no value; write --set listen.udp=VALUE; [] is an empty list",
        ),
        ("relay.ports=3000-4000", "--set relay.ports=3000-4000: the relay ports 3000-4000 include"),
    ] {
        let mistakes = loaded(None, &[set], &[]).unwrap_err();
        assert!(
            mistakes.len() == 1 && mistakes[0].starts_with(&format!("arguments: {expected}")),
            "{mistakes:?}"
        );
    }
    let twice = loaded(None, &["workers=1", "workers=2"], &[]).unwrap_err();
    assert_eq!(
        twice,
        [
            "arguments: --set workers: workers is set twice; write it once; commas separate the elements of a list"
        ]
    );
    let file = format!("auth.secrets = \"{SECRET}\"");
    let mistakes =
        loaded(Some(&file), &[], &[("HAIRPIN_RELAY_PORTS", "1-2"), ("HAIRPIN_LIMITS_CHANNELS", "x")]);
    assert_eq!(
        mistakes.unwrap_err(),
        [
            "environment: HAIRPIN_RELAY_PORTS = \"1-2\": ports below 1024 belong to system services; start at 1024 or above",
            "environment: HAIRPIN_LIMITS_CHANNELS = \"x\": expected a number, found text; write a whole number, without quotes",
        ]
    );
    let bytes = OsString::from_vec(vec![0xFF]);
    let mistakes = read(None, &[], &BTreeMap::from([("HAIRPIN_SOFTWARE".to_owned(), bytes)])).unwrap_err();
    assert_eq!(
        mistakes,
        ["environment: HAIRPIN_SOFTWARE: the value is not UTF-8; set it again, or unset it"]
    );
}

/// Arguments can be read by every user of the machine.
#[test]
fn secrets_are_no_arguments() {
    for key in ["auth.secrets", "auth.secret", "auth.user", "auth.user.password", "auth.user.key"] {
        let mistakes = loaded(None, &[&format!("{key}={SECRET}")], &[]).unwrap_err();
        let expected =
            format!("arguments: --set {key}=***: a secret is never an argument, because every user");
        assert!(mistakes[0].starts_with(&expected) && mistakes[0].contains(SECRET_VARIABLE), "{mistakes:?}");
        assert!(!mistakes[0].contains(SECRET));
    }
    for text in [SECRET.to_owned(), format!("auth.{SECRET}{SECRET}=x")] {
        let mistakes = loaded(None, &[&text], &[]).unwrap_err();
        assert!(!mistakes[0].contains(SECRET), "{mistakes:?}");
    }
    assert!(!format!("{:?}", Argument::set(&format!("auth.secrets={SECRET}"))).contains(SECRET));
}

/// A secret that stands where a file is named is not shown either.
#[test]
fn files_with_secrets_can_be_named() {
    let found = loaded(Some(""), &["auth.secret_files=/run/secrets/a,/run/secrets/b"], &[]).unwrap();
    let twice = "--set auth.secret_files=\"/run/secrets/b\": /run/secrets/b:1: a secret is listed twice";
    assert!(found.warnings[0].to_string().contains(twice), "{:?}", found.warnings);
    let settings =
        loaded(Some(""), &[], &[("HAIRPIN_AUTH_SECRET_FILES", "/run/secrets/a")]).unwrap().settings;
    assert_eq!(settings.auth.secrets.len(), 1);
    let notes = notes(Some(""), &[], &[("HAIRPIN_AUTH_SECRET_FILES", SECRET)]);
    assert!(notes[0].starts_with("environment: note: HAIRPIN_AUTH_SECRET_FILES = ***: sets"), "{notes:?}");
}

/// Unknown names warn with the nearest one; their values are never shown.
#[test]
fn unknown_variables_are_warned_about() {
    for (name, expected) in [
        ("HAIRPIN_LISTEN_UPD", "unknown variable, which has no effect; did you mean HAIRPIN_LISTEN_UDP?"),
        (
            "HAIRPIN_EXTERNAL_IP",
            "unknown variable, which has no effect; did you mean HAIRPIN_RELAY_EXTERNAL_IP?",
        ),
        (
            "HAIRPIN_LIMIT_USER_ALLOCATIONS",
            "unknown variable, which has no effect; did you mean HAIRPIN_LIMITS_USER_ALLOCATIONS?",
        ),
        ("HAIRPIN_MIN_PORT", "unknown variable, which has no effect; did you mean HAIRPIN_RELAY_PORTS?"),
        ("HAIRPIN_AUTH_SECRTE", "unknown variable, which has no effect; did you mean HAIRPIN_AUTH_SECRET?"),
        ("HAIRPIN_SECRET", "unknown variable, which has no effect; did you mean HAIRPIN_AUTH_SECRET?"),
        (
            "HAIRPIN_AUTH_SECRETS",
            "is not used: HAIRPIN_AUTH_SECRET is the variable for shared secrets; rename it to HAIRPIN_AUTH_SECRET",
        ),
        (
            "HAIRPIN_AUTH_USER",
            "is not used: only a file can have sections that can be repeated; write [[auth.user]] in a configuration file",
        ),
        (
            "HAIRPIN_AUTH_USER_BEFORE_EXPIRE",
            "unknown variable, which has no effect; did you mean HAIRPIN_AUTH_USER_BEFORE_EXPIRY?",
        ),
        (
            "HAIRPIN_AUTH_USER_PASSWORD",
            "is not used: only a file can have sections that can be repeated; write [[auth.user]] in a configuration file",
        ),
        ("HAIRPIN_SOMETHING_ELSE_ENTIRELY", "unknown variable, which has no effect; remove it"),
        ("HAIRPIN_PORT", "unknown variable, which has no effect; did you mean HAIRPIN_RELAY_PORTS?"),
    ] {
        let found = warnings(&[], &[(name, SECRET)]);
        let expected = format!("environment: warning: {name}: {expected}");
        assert!(found.len() == 1 && found[0].starts_with(&expected), "{found:?}");
        assert!(!found[0].contains(SECRET));
    }
    let known = [("HAIRPIN_ADMIN_TOKEN", SECRET), ("HAIRPIN_AUTH_SECRET", SECRET), ("HAIRPIN_WORKERS", "1")];
    assert_eq!(warnings(&[], &known), Vec::<String>::new());
    let links = [("HAIRPIN_PORT", "tcp://10.0.0.1:3478"), ("HAIRPIN_SERVICE_HOST", "10.0.0.1")];
    assert_eq!(warnings(&[], &links), Vec::<String>::new());
}

/// A file that does not mention TLS turns it off; arguments and the environment mention it, too.
#[test]
fn what_is_set_elsewhere_counts_as_present() {
    let file = format!("auth.secrets = \"{SECRET}\"");
    let tls = |set: &[&str]| loaded(Some(&file), set, &[]).map(|loaded| loaded.settings.listen.tls.len());
    assert_eq!(tls(&[]), Ok(0));
    assert_eq!(tls(&["tls.cert=fullchain.pem", "tls.key=privkey.pem"]), Ok(2));
    let mistakes = tls(&["listen.tls=0.0.0.0"]).unwrap_err();
    assert!(
        mistakes[0].starts_with("arguments: --set listen.tls=0.0.0.0: TLS requires a certificate"),
        "{mistakes:?}"
    );
    let mistakes = loaded(None, &["tls.cert=fullchain.pem"], &[]).map(drop).unwrap_err();
    assert!(
        mistakes[0].starts_with("arguments: --set tls.cert=***: the certificate has no private key"),
        "{mistakes:?}"
    );
}

/// A changed argument or variable is a changed setting.
#[test]
fn overrides_take_part_in_the_comparison() {
    let before = loaded(None, &["limits.channels=5"], &[("HAIRPIN_WORKERS", "1")]).unwrap();
    let after = loaded(None, &["limits.channels=6"], &[("HAIRPIN_WORKERS", "1")]).unwrap();
    let changes = before.settings.changes(&after.settings);
    assert_eq!(changes.iter().map(|change| change.key).collect::<Vec<_>>(), ["limits.channels"]);
}
