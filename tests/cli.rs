//! The words a person types, said to the real program.

#![cfg(test)]
#![allow(clippy::disallowed_methods, reason = "these tests wait for real programs")]

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

const SECRET: &str = "a secret for these tests";

#[test]
fn check_reports_every_mistake_and_does_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("hairpin.toml");
    let mistakes = "\
workers = \"four\"
worker = 4
[listen]
udp = [\"198.51.100.254:3478\"]
[relay]
ports = \"65535-49152\"
[auth]
secrets = [\"short\"]
secret_files = [\"missing\"]
[peers]
allow = [\"10.0.0.0/40\"]
[limits]
channels = 5000
";
    fs::write(&file, mistakes).unwrap();
    let output = hairpin(&["check", file.to_str().unwrap()]);
    let lines: Vec<String> = text(&output.stdout).lines().map(str::to_owned).collect();
    assert_eq!((lines.len(), output.status.code()), (8, Some(2)), "{lines:#?}");
    let places = [
        "1: workers",
        "2: worker",
        "4: listen.udp",
        "6: relay.ports",
        "8: auth.secrets",
        "9: auth.secret_files",
    ];
    for (line, place) in
        lines.iter().zip(places.into_iter().chain(["11: peers.allow", "13: limits.channels"]))
    {
        assert!(line.starts_with(&format!("{}:{place}", file.display())), "{line} is not about {place}");
        assert!(line.contains("; "), "{line} has no fix");
    }
    assert!(!text(&output.stdout).contains("short"), "a secret was shown");
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);

    let output = hairpin(&["check", folder.path().join("other.toml").to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stdout).contains("cannot be read"));
}

#[test]
fn check_says_ok_and_warns() {
    let relay = Place::new("[limits]\npermission_lifetime = 5\n");
    let output = hairpin(&["check", relay.config()]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let said = text(&output.stdout);
    assert!(
        said.contains("warning: limits.permission_lifetime = 5") && said.ends_with("hairpin.toml: ok\n"),
        "{said}"
    );
}

#[test]
fn the_sample_is_right_once_there_is_a_secret() {
    let sample = concat!(env!("CARGO_MANIFEST_DIR"), "/conf/hairpin.toml");
    let output = command(&["check", sample]).env("HAIRPIN_AUTH_SECRET", SECRET).output().unwrap();
    assert_eq!((output.status.code(), output.stderr.len()), (Some(0), 0), "{output:?}");
}

#[test]
fn names_and_passwords_that_cannot_be_prepared_are_mistakes() {
    let place = Place::new("[[auth.user]]\nname = \"a\\u0007b\"\npassword = \"x\"\n");
    let output = hairpin(&["check", place.config()]);
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    assert!(text(&output.stdout).contains("user name"), "{output:?}");
}

#[test]
fn credentials_are_ice_servers() {
    let place = Place::new("");
    let before = unix_now();
    let args = ["credentials", "--user", "alice", "--ttl", "1h", "--config", place.config()];
    let servers = ice_server(&hairpin(&args));
    let username = servers["username"].as_str().unwrap();
    let expiry: u64 = username.strip_suffix(":alice").unwrap().parse().unwrap();
    assert!((before + 3600..before + 3660).contains(&expiry));
    let password = hairpin::auth::time_limited_password(SECRET.as_bytes(), username);
    assert_eq!(servers["credential"], password);
    assert_eq!(servers["urls"][0], format!("turn:127.0.0.1:{}?transport=udp", place.udp));

    assert_eq!(servers["urls"][1], format!("turn:127.0.0.1:{}?transport=tcp", place.tcp));

    let args = [&args[..], &["--domain", "turn.example.org"]].concat();
    let servers = ice_server(&hairpin(&args));
    assert_eq!(servers["urls"][0], format!("turn:turn.example.org:{}?transport=udp", place.udp));
}

#[test]
fn credentials_name_the_external_address() {
    let place = Place::new("");
    let text = fs::read_to_string(place.file()).unwrap();
    fs::write(place.file(), text.replace("[http]", "external_ip = \"203.0.113.5\"\n[http]")).unwrap();
    let servers = ice_server(&hairpin(&["credentials", "--user", "alice", "--config", place.config()]));
    assert_eq!(servers["urls"][0], format!("turn:203.0.113.5:{}?transport=udp", place.udp));
}

#[test]
fn credentials_need_a_secret_that_is_there() {
    let folder = tempfile::tempdir().unwrap();
    let state = folder.path().to_str().unwrap();
    let args = ["credentials", "--user", "alice", "--domain", "turn.example.org", "--state-dir", state];
    let output = hairpin(&args);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("start `hairpin serve` first"), "{output:?}");
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0, "none is made");

    let output =
        command(&args).env("HAIRPIN_AUTH_SECRET", format!("{SECRET},another secret of these tests")).output();
    let servers = ice_server(&output.unwrap());
    let password =
        hairpin::auth::time_limited_password(SECRET.as_bytes(), servers["username"].as_str().unwrap());
    assert_eq!(servers["credential"], password);
}

#[test]
fn without_credentials_it_refuses_to_start() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("hairpin.toml");
    fs::write(&file, "[http]\nlisten = []\n").unwrap();
    let output = hairpin(&["serve", "--config", file.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    assert!(text(&output.stderr).contains("never runs as an anonymous relay"), "{output:?}");
}

#[test]
fn taken_ports_are_told_with_the_fix() {
    let place = Place::new("");
    let held = UdpSocket::bind((Ipv4Addr::LOCALHOST, place.udp)).unwrap();
    let output = place.fails();
    assert!(
        output.contains(&format!("udp 127.0.0.1:{}: already in use (another hairpin?)", place.udp)),
        "{output}"
    );
    drop(held);

    let held = TcpListener::bind((Ipv4Addr::LOCALHOST, place.tcp)).unwrap();
    let output = place.fails();
    assert!(
        output.contains(&format!("tcp 127.0.0.1:{}: already in use (another hairpin?)", place.tcp)),
        "{output}"
    );
    drop(held);

    let held = TcpListener::bind((Ipv4Addr::LOCALHOST, place.http)).unwrap();
    let output = place.fails();
    assert!(
        output.contains(&format!("http 127.0.0.1:{}: already in use (another hairpin?)", place.http)),
        "{output}"
    );
    drop(held);

    let running = place.start(Stdio::null());
    let output = place.fails();
    assert!(output.contains("already in use (another hairpin?)"), "{output}");
    assert_eq!(running.stop("TERM"), Some(0), "the first one serves on");
}

#[test]
fn it_serves_until_it_is_told_to_stop() {
    for signal in ["TERM", "INT"] {
        let place = Place::new("");
        let running = place.start(Stdio::null());
        assert!(place.get("/healthz").starts_with("HTTP/1.1 200"));
        let metrics = place.get("/metrics");
        for family in [
            "hairpin_build_info",
            "hairpin_limit",
            "hairpin_connections",
            "hairpin_allocations",
            "hairpin_log_lines_dropped_total",
        ] {
            assert!(metrics.contains(&format!("# TYPE {family} ")), "{metrics}");
        }
        assert!(place.get("/").starts_with("HTTP/1.1 404"));
        assert!(
            text(&running.stop_with_output(signal)).is_empty(),
            "nothing but ICE servers is for standard output"
        );
    }
}

#[test]
fn logs_that_nobody_reads_harm_nothing() {
    // A pipe that is full already, and one whose reader is gone.
    let (reader, mut full) = std::io::pipe().unwrap();
    let ours = full.try_clone().unwrap();
    std::thread::spawn(move || while full.write_all(&[0; 4096]).is_ok() {});
    std::thread::sleep(Duration::from_millis(200));
    let (gone, closed) = std::io::pipe().unwrap();
    drop(gone);
    for stderr in [ours, closed] {
        let place = Place::new("");
        let running = place.start(stderr.into());
        assert!(place.get("/healthz").starts_with("HTTP/1.1 200"));
        let began = Instant::now();
        assert_eq!(running.stop("TERM"), Some(0));
        assert!(began.elapsed() < Duration::from_secs(10));
    }
    drop(reader);
}

/// A configuration of its own in a folder of its own, with ports that nobody has.
struct Place {
    folder: TempDir,
    udp: u16,
    tcp: u16,
    http: u16,
}

impl Place {
    /// One with these settings besides.
    fn new(more: &str) -> Place {
        let udp = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port();
        let tcp = || TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let [tcp, http] = [tcp(), tcp()].map(|listener| listener.local_addr().unwrap().port());
        let place = Place { folder: tempfile::tempdir().unwrap(), udp, tcp, http };
        // Below the ports that systems give out.
        let text = format!(
            "workers = 1\n[listen]\nudp = \"127.0.0.1:{udp}\"\ntcp = \"127.0.0.1:{tcp}\"\n[relay]\naddresses = \"127.0.0.1\"\nports = \"20000-20099\"\n\
             [http]\nlisten = \"127.0.0.1:{http}\"\n[auth]\nsecrets = \"{SECRET}\"\n{more}"
        );
        fs::write(place.file(), text).unwrap();
        place
    }

    fn file(&self) -> PathBuf {
        self.folder.path().join("hairpin.toml")
    }

    fn config(&self) -> &'static str {
        self.file().to_str().unwrap().to_owned().leak()
    }

    /// Starts a relay and waits until it serves.
    fn start(&self, stderr: Stdio) -> Running {
        let child =
            command(&["serve", "--config", self.config()]).stdout(Stdio::piped()).stderr(stderr).spawn();
        let running = Running(child.unwrap());
        let deadline = Instant::now() + Duration::from_secs(20);
        while TcpStream::connect((Ipv4Addr::LOCALHOST, self.http)).is_err() {
            assert!(Instant::now() < deadline, "it does not serve");
            std::thread::sleep(Duration::from_millis(20));
        }
        running
    }

    /// Starts a relay that cannot start, and returns what it says.
    fn fails(&self) -> String {
        let output = hairpin(&["serve", "--config", self.config()]);
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        text(&output.stderr).to_owned()
    }

    fn get(&self, path: &str) -> String {
        let mut stream = TcpStream::connect(SocketAddr::from((Ipv4Addr::LOCALHOST, self.http))).unwrap();
        write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }
}

/// A relay that runs. Killed if the test forgets to stop it.
struct Running(Child);

impl Running {
    /// Sends a signal and returns the exit status.
    fn stop(mut self, signal: &str) -> Option<i32> {
        signal_to(&self.0, signal);
        self.0.wait().unwrap().code()
    }

    /// The same; the exit status must be 0. Returns what was written to standard output.
    fn stop_with_output(mut self, signal: &str) -> Vec<u8> {
        signal_to(&self.0, signal);
        let mut written = Vec::new();
        BufReader::new(self.0.stdout.take().unwrap()).read_until(0, &mut written).unwrap();
        assert_eq!(self.0.wait().unwrap().code(), Some(0));
        written
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn signal_to(child: &Child, signal: &str) {
    let sent = Command::new("kill").args([&format!("-{signal}"), &child.id().to_string()]).status().unwrap();
    assert!(sent.success());
}

fn hairpin(args: &[&str]) -> Output {
    command(args).output().unwrap()
}

/// The program, in an environment where neither systemd nor a secret is.
fn command(args: &[&str]) -> Command {
    let mut command = Command::new(Path::new(env!("CARGO_BIN_EXE_hairpin")));
    for variable in ["HAIRPIN_AUTH_SECRET", "INVOCATION_ID", "NOTIFY_SOCKET", "STATE_DIRECTORY"] {
        command.env_remove(variable);
    }
    command.args(args).stdin(Stdio::null());
    command
}

fn ice_server(output: &Output) -> serde_json::Value {
    assert!(output.status.success(), "{output:?}");
    let printed: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    printed["iceServers"][0].clone()
}

#[allow(clippy::disallowed_methods, reason = "the test compares with the program's clock")]
fn unix_now() -> u64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs()
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}
