//! `hairpin ctl` and `hairpin completions`: against a running relay, against what only looks like one, and without any.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::{Output, Stdio};
use std::thread;

use super::place::{Place, command, hairpin, text};

const ADMIN: &str = "0123456789abcdef0123456789abcdef";
const READ: &str = "fedcba9876543210fedcba9876543210";

fn ctl(socket: &Path, args: &[&str]) -> Output {
    hairpin(&[&["ctl", "--socket", socket.to_str().unwrap()], args].concat())
}

/// The message of a command that must fail.
fn failure(output: &Output) -> &str {
    assert_eq!((output.status.code(), output.stdout.len()), (Some(1), 0), "{output:?}");
    text(&output.stderr)
}

/// The message about a mistake in the arguments.
fn usage(output: &Output) -> &str {
    assert_eq!((output.status.code(), output.stdout.len()), (Some(2), 0), "{output:?}");
    text(&output.stderr)
}

fn json(output: &Output) -> serde_json::Value {
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn a_relay_is_looked_at_and_reloaded() {
    let place = Place::new("");
    let log = place.folder.path().join("log");
    let relay = place.start(Stdio::from(fs::File::create(&log).unwrap()));
    let socket = place.folder.path().join("control.sock");
    let status = json(&ctl(&socket, &["status", "--json"]));
    assert_eq!(status["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(status["ice_urls"][0], format!("turn:127.0.0.1:{}?transport=udp", place.udp));
    assert_eq!(status["limits"]["channels"], 1024);
    assert_eq!((&status["ready"], &status["last_reload"]), (&true.into(), &serde_json::Value::Null));
    let again = json(&ctl(&socket, &["--json", "status"]));
    assert_eq!(status["instance"], again["instance"]);
    let table = ctl(&socket, &["status"]);
    assert!(text(&table.stdout).contains("\nlisteners        udp 127.0.0.1:"), "{table:?}");

    let config = fs::read_to_string(place.file()).unwrap();
    fs::write(place.file(), format!("{config}[limits]\nchannels = 7\n")).unwrap();
    let reloaded = ctl(&socket, &["reload"]);
    assert!(text(&reloaded.stdout).contains("limits.channels: 1024 -> 7; it holds at once"), "{reloaded:?}");
    fs::write(place.file(), format!("{config}[limits]\nchannels = \"many\"\n")).unwrap();
    let refused = ctl(&socket, &["reload"]);
    let said = failure(&refused);
    assert!(said.contains("the configuration has 1 mistake\n") && said.contains("limits.channels"), "{said}");
    let reload = json(&ctl(&socket, &["status", "--json"]))["last_reload"].clone();
    assert_eq!((&reload["ok"], &reload["by"]), (&false.into(), &"reload".into()));

    let log = fs::read_to_string(log).unwrap();
    let lines: Vec<&str> = log.lines().filter(|line| line.contains("audit")).collect();
    assert_eq!(lines.len(), 2, "{log}");
    assert!(lines[0].contains("uid=") && lines[0].contains("action=\"reload\" outcome=\"ok\""), "{log}");
    assert!(lines[1].contains("outcome=\"refused: the configuration has 1 mistake\""), "{log}");
    assert_eq!(relay.stop("TERM"), Some(0));
    assert!(!socket.exists());
}

/// The audit log is written whatever the level of the log.
#[test]
fn a_token_allows_what_its_scope_says() {
    let place = Place::new(
        "[log]\nlevel = \"error\"\n[admin]\nlisten = \"127.0.0.1:0\"\nsocket = \"\"\ntokens_file = \"tokens\"\n",
    );
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let config = fs::read_to_string(place.file()).unwrap();
    fs::write(place.file(), config.replace("127.0.0.1:0\"", &format!("127.0.0.1:{port}\""))).unwrap();
    let tokens = place.folder.path().join("tokens");
    fs::write(&tokens, format!("ops:admin:{ADMIN}\nwatch:read:{READ}\n")).unwrap();
    fs::set_permissions(&tokens, fs::Permissions::from_mode(0o600)).unwrap();
    let log = place.folder.path().join("log");
    let _relay = place.start(Stdio::from(fs::File::create(&log).unwrap()));
    assert!(!place.folder.path().join("control.sock").exists());
    let url = format!("http://127.0.0.1:{port}");
    let call = |token: &str, args: &[&str]| {
        let args = [&["ctl", "--url", &url], args].concat();
        command(&args).env("HAIRPIN_ADMIN_TOKEN", token).output().unwrap()
    };
    assert_eq!(json(&call(READ, &["status", "--json"]))["ready"], true);
    assert_eq!(
        failure(&call(READ, &["reload"])),
        "hairpin: this token may only read; use one with the scope admin\n"
    );
    assert_eq!(call(ADMIN, &["reload"]).status.code(), Some(0));
    let wrong = call(&ADMIN[1..], &["status"]);
    assert!(failure(&wrong).contains("this token is not one of admin.tokens_file"));
    let file = hairpin(&["ctl", "--url", &url, "--token-file", tokens.to_str().unwrap(), "reload"]);
    assert_eq!(file.status.code(), Some(0), "{file:?}");
    let none = hairpin(&["ctl", "--url", &url, "status"]);
    assert!(usage(&none).contains("set HAIRPIN_ADMIN_TOKEN"), "{none:?}");
    let log = fs::read_to_string(log).unwrap();
    let audited: Vec<_> = log.lines().map(|line| line.split("audit").nth(1).unwrap_or(line)).collect();
    assert_eq!(audited.len(), 3, "{log}");
    assert!(audited[0].contains("token=\"watch\"") && audited[0].contains("outcome=\"read_only: "), "{log}");
    assert!(audited[1].contains("token=\"ops\"") && audited[1].contains("outcome=\"ok\""), "{log}");
    assert!(!log.contains(&ADMIN[1..]) && !log.contains(READ), "a token is in the log");
}

/// A reload to TLS without a certificate that can be used must not serve tokens in the clear.
#[test]
fn the_api_over_tls_is_not_opened_without_a_certificate() {
    let place = Place::new("");
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let tokens = place.folder.path().join("tokens");
    fs::write(&tokens, format!("ops:admin:{ADMIN}\n")).unwrap();
    fs::set_permissions(&tokens, fs::Permissions::from_mode(0o600)).unwrap();
    for name in ["cert.pem", "key.pem"] {
        fs::write(place.folder.path().join(name), "damaged\n").unwrap();
    }
    let _relay = place.start(Stdio::null());
    let config = fs::read_to_string(place.file()).unwrap();
    let more = format!(
        "[admin]\nlisten = \"0.0.0.0:{port}\"\ntls = true\ntokens_file = \"tokens\"\n[tls]\ncert = \"cert.pem\"\nkey = \"key.pem\"\n"
    );
    fs::write(place.file(), config + &more).unwrap();
    let socket = place.folder.path().join("control.sock");
    let reload = ctl(&socket, &["reload"]);
    let said = failure(&reload);
    assert!(
        said.contains("the certificate file has no certificate") && said.contains("(tls.cert cert.pem)"),
        "{said}"
    );
    assert!(std::net::TcpStream::connect(("127.0.0.1", port)).is_err());
}

#[test]
fn a_relay_that_is_not_there_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("control.sock");
    let missing = ctl(&socket, &["status"]);
    let said = failure(&missing);
    assert!(
        said.contains(&format!("there is no control socket at {}; is the relay running?", socket.display())),
        "{said}"
    );
    drop(UnixListener::bind(&socket).unwrap());
    let dead = ctl(&socket, &["status"]);
    assert!(failure(&dead).contains("the one that made it has ended"), "{dead:?}");
    let config = folder.path().join("hairpin.toml");
    fs::write(&config, format!("[admin]\nsocket = \"{}\"\n", socket.display())).unwrap();
    let named = hairpin(&["ctl", "--config", config.to_str().unwrap(), "status"]);
    assert!(failure(&named).contains(socket.to_str().unwrap()), "{named:?}");
    fs::write(&config, "[admin]\nsocket = \"\"\n").unwrap();
    let off = hairpin(&["ctl", "--config", config.to_str().unwrap(), "status"]);
    assert!(failure(&off).contains("the relay has no control socket; use --url"), "{off:?}");
    let clear = command(&["ctl", "--url", "http://192.0.2.1:9642", "status"])
        .env("HAIRPIN_ADMIN_TOKEN", ADMIN)
        .output();
    assert!(usage(&clear.unwrap()).contains("the token is not sent to 192.0.2.1 without TLS"));
}

/// A relay that has not been restarted after an update knows less than `ctl`.
#[test]
fn an_older_relay_is_named_with_its_version() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("control.sock");
    let listener = UnixListener::bind(&socket).unwrap();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut head = [0; 4096];
            let n = stream.read(&mut head).unwrap();
            let (status, body) = match &head[..n] {
                head if head.starts_with(b"GET /v1/status ") => ("200 OK", "{\"version\":\"0.0.9\"}"),
                head if head.starts_with(b"POST /v1/drain ") => (
                    "400 Bad Request\r\nHairpin-Version: 0.0.9",
                    "{\"error\":{\"code\":\"bad_request\",\"message\":\"deadline: unknown\"}}",
                ),
                _ => ("404 Not Found", "{\"error\":{\"code\":\"unknown_route\",\"message\":\"?\"}}"),
            };
            write!(
                stream,
                "HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
                body.len()
            )
            .unwrap();
        }
    });
    for args in [&["undrain"][..], &["peers", "clear", "livekit"], &["show", "1"]] {
        let output = ctl(&socket, args);
        assert_eq!(
            failure(&output),
            format!(
                "hairpin: the relay is version 0.0.9 and does not know this command of version {}; restart it with the installed \
                 version\n",
                hairpin::VERSION
            )
        );
    }
    assert_eq!(
        failure(&ctl(&socket, &["drain", "--deadline", "5"])),
        format!("hairpin: deadline: unknown (the relay is version 0.0.9, this is {})\n", hairpin::VERSION)
    );
}

#[test]
fn mistakes_in_arguments_have_their_own_status() {
    for args in [
        &["ctl"][..],
        &["ctl", "frobnicate"],
        &["ctl", "end"],
        &["ctl", "list", "--limit", "0"],
        &["ctl", "list", "--transport", "sctp"],
        &["ctl", "drain", "--deadline", "soon"],
        &["ctl", "revoke", "alice", "--until", "soon"],
        &["ctl", "revoke", "alice", "--until", "5", "--for", "5"],
        &["ctl", "peers", "set", "livekit"],
        &["ctl", "peers", "set", "livekit", "--mode", "none", "192.0.2.1:5"],
        &["ctl", "--token-file", "x", "status"],
        &["ctl", "--url", "turn.example.org", "status"],
        &["ctl", "--url", "https://127.0.0.1:9642", "--token-file", "/nonexistent", "status"],
        &["completions", "tcsh"],
    ] {
        let output = hairpin(args);
        assert_eq!(output.status.code(), Some(2), "{args:?}: {output:?}");
    }
}

#[test]
fn shells_complete_the_commands() {
    for shell in ["bash", "zsh", "fish"] {
        let output = hairpin(&["completions", shell]);
        assert_eq!((output.status.code(), output.stderr.len()), (Some(0), 0), "{output:?}");
        for word in ["unrevoke", "end-user", "deadline"] {
            assert!(text(&output.stdout).contains(word), "{shell}: {word}");
        }
    }
}

#[test]
fn every_command_has_a_manual_page() {
    let folder = tempfile::tempdir().unwrap();
    let pages = folder.path().join("new/man1");
    let output = hairpin(&["man", "--dir", pages.to_str().unwrap()]);
    assert_eq!(
        (output.status.code(), output.stdout.len(), output.stderr.len()),
        (Some(0), 0, 0),
        "{output:?}"
    );
    for name in ["hairpin", "hairpin-serve", "hairpin-ctl", "hairpin-ctl-drain", "hairpin-ctl-peers-set"] {
        let page = std::fs::read(pages.join(format!("{name}.1"))).unwrap();
        let words: Vec<_> = name.split('-').skip(1).collect();
        let printed = hairpin(&[&["man"], words.as_slice()].concat());
        assert_eq!((printed.status.code(), printed.stdout), (Some(0), page), "{name}");
    }
    assert!(!pages.join("hairpin-help.1").exists());

    let output = hairpin(&["man", "ctl", "dance"]);
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    assert!(text(&output.stderr).contains("there is no command `ctl dance`"), "{output:?}");
    let output = hairpin(&["man", "--dir", "/dev/null/man1"]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(text(&output.stderr).contains("cannot write /dev/null/man1"), "{output:?}");
}

/// One of a live relay is not taken away; that is an error where the configuration names it.
#[test]
fn a_socket_in_use_is_named_at_the_start() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("hairpin.sock");
    let setting = format!("[admin]\nsocket = \"{}\"\n", socket.display());
    let (first, second) = (Place::new(&setting), Place::new(&setting));
    let relay = first.start(Stdio::null());
    let said = second.fails();
    let process = format!("another relay uses it (process {})", relay.id());
    assert!(said.contains(&process) && said.contains(socket.to_str().unwrap()), "{said}");
    assert_eq!(json(&ctl(&socket, &["status", "--json"]))["http"][0], format!("127.0.0.1:{}", first.http));
}
