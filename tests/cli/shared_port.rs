//! A port that TURN shares with TLS and with web servers: what `hairpin check` says, and reloads.

use std::fs;
use std::path::Path;
use std::process::Stdio;

use serde_json::{Value, json};

use crate::place::{Place, hairpin, text};
use crate::streams::{binding, certify, connect};

/// The inodes of the sockets that listen at this port of 127.0.0.1 (proc(5), /proc/net/tcp).
fn sockets(port: u16) -> Vec<String> {
    let table = fs::read_to_string("/proc/net/tcp").unwrap();
    let local = format!("0100007F:{port:04X}");
    let rows = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let listening = rows.filter(|row| row.get(1) == Some(&&*local) && row.get(3) == Some(&"0A"));
    listening.map(|row| row[9].to_owned()).collect()
}

fn ctl(socket: &Path, args: &[&str]) -> String {
    let output = hairpin(&[&["ctl", "--socket", socket.to_str().unwrap()], args].concat());
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    text(&output.stdout).to_owned()
}

/// TCP and TLS at one address are one socket. Reloads that add or remove one of them, or change what is served there, keep it, and end
/// no connection.
#[test]
fn tcp_and_tls_share_a_socket_that_reloads_keep() {
    let place = Place::new("");
    certify(&place);
    let (tcp, tls) = (place.tcp, format!("tls = \"127.0.0.1:{}\"\n", place.tls));
    let both =
        fs::read_to_string(place.file()).unwrap().replace(&tls, &format!("tls = \"127.0.0.1:{tcp}\"\n"));
    let only_tcp = both.replace(&format!("tls = \"127.0.0.1:{tcp}\"\n"), "tls = []\n");
    let only_tls = both.replace(&format!("tcp = \"127.0.0.1:{tcp}\"\n"), "tcp = []\n");
    let routes = only_tls.replace(&format!("tls = \"127.0.0.1:{tcp}\"\n"), "")
        + &format!(
            "[[listener]]\naddress = \"127.0.0.1:{tcp}\"\ntransports = [\"tls\", \"tcp\"]\nhttp = \"127.0.0.1:1\"\n\
             proxy_from = [\"10.0.0.0/24\"]\nmss = 1300\n[listener.routes]\n\"www.example.org\" = \"127.0.0.1:2\"\n\
             \"relay.example.org\" = {{ http = \"127.0.0.1:3\", send_proxy = true }}\n"
        );
    fs::write(place.file(), &both).unwrap();
    let log = place.folder.path().join("log");
    let relay = place.start(Stdio::from(fs::File::create(&log).unwrap()));
    let socket = place.folder.path().join("control.sock");
    let first = sockets(tcp);
    assert_eq!(first.len(), 1, "one per worker");
    let mut held = connect(tcp);
    binding(&mut held);
    let listeners = || -> Vec<Value> {
        let status: Value = serde_json::from_str(&ctl(&socket, &["status", "--json"])).unwrap();
        status["listeners"].as_array().unwrap().clone()
    };
    for (config, transports) in [
        (&both, &["udp", "tcp", "tls"][..]),
        (&only_tcp, &["udp", "tcp"]),
        (&only_tls, &["udp", "tls"]),
        (&routes, &["udp", "tls", "tcp"]),
        (&both, &["udp", "tcp", "tls"]),
    ] {
        fs::write(place.file(), config).unwrap();
        let said = ctl(&socket, &["reload"]);
        let mut found = Vec::new();
        for one in listeners() {
            let transport = one["transport"].as_str().unwrap().to_owned();
            if transport != "udp" {
                assert_eq!(one["address"], format!("127.0.0.1:{tcp}"));
                assert_eq!(one["protocols"], json!(["turn", "tls"]), "{said}");
            }
            found.push(transport);
        }
        found.sort_unstable();
        let mut transports = transports.to_vec();
        transports.sort_unstable();
        assert_eq!(found, transports, "{said}");
        assert_eq!(sockets(tcp), first, "{said}");
        binding(&mut held);
        binding(&mut connect(tcp));
    }

    fs::write(place.file(), &routes).unwrap();
    ctl(&socket, &["reload"]);
    let tcp_listener = listeners().into_iter().find(|one| one["transport"] == "tcp").unwrap();
    let expected = json!({
        "transport": "tcp",
        "address": format!("127.0.0.1:{tcp}"),
        "protocols": ["turn", "tls"],
        "routes": [
            { "name": "relay.example.org", "http": { "address": "127.0.0.1:3", "send_proxy": true }, "h2c": null },
            { "name": "www.example.org", "pass": { "address": "127.0.0.1:2", "send_proxy": false } },
        ],
        "default_backend": null,
        "http": { "address": "127.0.0.1:1", "send_proxy": false },
        "proxy_from": ["10.0.0.0/24"],
        "proxy": "required",
        "mss": 1300,
    });
    assert_eq!(tcp_listener, expected);
    let table = ctl(&socket, &["status"]);
    let expected = format!(
        "\nTCP connections:\n  127.0.0.1:{tcp} turn, tls; plain HTTP -> 127.0.0.1:1; PROXY header required from 10.0.0.0/24\n    \
         relay.example.org -> http 127.0.0.1:3 (send_proxy)\n    www.example.org -> 127.0.0.1:2\n"
    );
    assert!(table.contains(&expected), "{table}");

    // A changed route is told by its name and backends.
    fs::write(place.file(), routes.replace("127.0.0.1:2\"", "127.0.0.1:4\"")).unwrap();
    let said = ctl(&socket, &["reload"]);
    let changed = "127.0.0.1:4 (was 127.0.0.1:2); it holds at once";
    assert!(said.contains(&format!("127.0.0.1:{tcp}: route www.example.org -> {changed}")), "{said}");
    binding(&mut held);

    let log = fs::read_to_string(log).unwrap();
    assert!(log.contains(&format!("TCP connections to 127.0.0.1:{tcp} may speak TURN and TLS")), "{log}");
    assert_eq!(relay.stop("TERM"), Some(0));
}

/// What a start with routes says.
#[test]
fn the_log_of_a_start_has_the_routes() {
    let place = Place::new("");
    certify(&place);
    let shared = format!(
        "[[listener]]\naddress = \"127.0.0.1:{}\"\ntransports = [\"tls\"]\nprotocols = [\"tls\"]\n\
         default_backend = \"localhost:1\"\n[listener.routes]\n\"*.example.org\" = {{ pass = \"localhost:2\", send_proxy = true }}\n",
        place.tls
    );
    let config = fs::read_to_string(place.file()).unwrap();
    let listen = format!("tls = \"127.0.0.1:{}\"\n", place.tls);
    fs::write(place.file(), config.replace(&listen, "") + &shared).unwrap();
    let log = place.folder.path().join("log");
    let relay = place.start(Stdio::from(fs::File::create(&log).unwrap()));
    // It is the last of what a start says.
    place.wait_for_log(&log, "realm ");
    let log = fs::read_to_string(log).unwrap();
    for line in [
        format!("TCP connections to 127.0.0.1:{} may speak TURN and TLS", place.tcp),
        format!(
            "TCP connections to 127.0.0.1:{} may speak TLS; routes *.example.org -> localhost:2 (send_proxy); other names -> \
             localhost:1",
            place.tls
        ),
    ] {
        assert!(log.lines().any(|said| said.ends_with(&line)), "{line}\n{log}");
    }
    assert_eq!(relay.stop("TERM"), Some(0));
}

/// `hairpin check` names file, line, key and fix of what cannot work.
#[test]
fn check_refuses_what_cannot_work() {
    let place = Place::new("");
    certify(&place);
    let config = fs::read_to_string(place.file()).unwrap();
    let line = config.lines().count() + 5;
    let check = |text: &str, http: u16| {
        let listener = format!(
            "[[listener]]\naddress = \"127.0.0.1:4430\"\ntransports = [\"udp\", \"tcp\", \"tls\"]\n[listener.routes]\n{text}\n"
        );
        fs::write(place.file(), format!("{config}{listener}").replace("HTTP", &http.to_string())).unwrap();
        let output = hairpin(&["check", place.config()]);
        let said = text_of(&output);
        (output.status.code(), said.replace(place.config(), "FILE"))
    };
    let (code, said) =
        check("\"www.example.org\" = \"127.0.0.1:1\"\n\"relay.example.org\" = { http = \"127.0.0.1:2\" }", 0);
    assert_eq!(code, Some(0), "{said}");
    for (text, expected) in [
        (
            "\"www.example.org\" = \"localhost:4430\"",
            "localhost:4430 is this relay's own listener 127.0.0.1:4430",
        ),
        ("\"www.example.org\" = \"127.0.0.1:HTTP\"", "is http.listen: strangers would reach it"),
        ("\"www.example.org\" = { http = \"127.0.0.1:1\" }", "no certificate is valid for www.example.org"),
        ("\"www.example.org\" = \"/run/web.sock\"", "a Unix socket cannot be a backend"),
        (
            "\"192.0.2.1\" = \"127.0.0.1:1\"",
            "is an address, and clients that connect to an address name no host (SNI)",
        ),
        ("www.example.org = \"127.0.0.1:1\"", "write \"www.example.org\" = ..."),
    ] {
        let (code, said) = check(text, place.http);
        assert_eq!(code, Some(2), "{said}");
        assert!(said.contains(&format!("FILE:{line}: listener.routes")) && said.contains(expected), "{said}");
    }
    // Both sections would say what the address serves.
    let two = "[[listener]]\naddress = \"127.0.0.1:4430\"\ntransports = [\"tcp\"]\n\
               [[listener]]\naddress = \"127.0.0.1:4430\"\ntransports = [\"tls\"]\n";
    fs::write(place.file(), format!("{config}{two}")).unwrap();
    let output = hairpin(&["check", place.config()]);
    let said = text_of(&output);
    let expected = "\"tcp\" and \"tls\" share an address if one section lists both";
    assert!(output.status.code() == Some(2) && said.contains(expected), "{said}");
}

fn text_of(output: &std::process::Output) -> String {
    text(&output.stdout).to_owned() + text(&output.stderr)
}
