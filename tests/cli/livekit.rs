//! `hairpin-livekit init` and `run` beside a real relay. A small server answers in the place of LiveKit; the real one is for the
//! end-to-end tests.

use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use super::place::{Place, SECRET, hairpin, signal_to, text};

const KEYS: &str = "APIfirst: an API secret of at least thirty-two characters\n";

/// An address of the documentation, which no machine has.
const SFU: &str = "198.51.100.7";

/// `hairpin-livekit` in the same environment as the relay.
fn sidecar(folder: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_hairpin-livekit"));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("HAIRPIN_") {
            command.env_remove(name);
        }
    }
    command.env_remove("STATE_DIRECTORY").env("RUNTIME_DIRECTORY", folder).current_dir(folder);
    command.args(args).stdin(Stdio::null());
    command
}

/// A running sidecar. It is killed when dropped.
struct Running {
    child: Child,
    log: PathBuf,
}

impl Running {
    fn start(folder: &Path, config: &str) -> Running {
        let log = folder.join("sidecar.log");
        let stderr = Stdio::from(fs::File::create(&log).unwrap());
        let child = sidecar(folder, &["run", "--config", config]).stderr(stderr).spawn().unwrap();
        Running { child, log }
    }

    fn said(&self) -> String {
        fs::read_to_string(&self.log).unwrap()
    }

    fn wait_for(&self, words: &str) {
        let deadline = Instant::now() + Duration::from_secs(20);
        while !self.said().contains(words) {
            assert!(Instant::now() < deadline, "{words} is not in\n{}", self.said());
            thread::sleep(Duration::from_millis(50));
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What LiveKit answers: `OK` at `/`, and no rooms.
fn livekit() -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    let answer = |mut stream: TcpStream| {
        let mut request = [0; 4096];
        let read = stream.read(&mut request).unwrap_or(0);
        let body = if request[..read].starts_with(b"GET / ") { "OK" } else { "{\"rooms\":[]}" };
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len());
        let _ = stream.write_all(format!("{head}{body}").as_bytes());
    };
    thread::spawn(move || listener.incoming().flatten().for_each(answer));
    address
}

/// A relay with a secret in a file, as it should be, and LiveKit's keys beside it.
fn place() -> Place {
    let place = Place::new("");
    let config = fs::read_to_string(place.file()).unwrap();
    let secret = format!("secrets = \"{SECRET}\"");
    assert!(config.contains(&secret));
    fs::write(place.file(), config.replace(&secret, "secret_files = \"secret\"")).unwrap();
    private(&place.folder.path().join("secret"), &format!("{SECRET}\n"));
    private(&place.folder.path().join("keys"), KEYS);
    place
}

/// A TCP port that nobody uses.
fn free() -> u16 {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port()
}

fn private(path: &Path, contents: &str) {
    fs::write(path, contents).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
}

fn init(folder: &Path, url: &str, more: &[&str]) -> Output {
    let args = ["init", "--livekit-url", url, "--api-key-file", "keys", "--output", "sidecar.toml"];
    sidecar(folder, &[&args, more].concat()).output().unwrap()
}

/// The overlay of the sidecar, as the relay has it.
fn overlay(socket: &Path) -> Option<String> {
    let output = hairpin(&["ctl", "--socket", socket.to_str().unwrap(), "--json", "status"]);
    let status: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let overlays = status["overlays"].as_array().unwrap().clone();
    let ours = overlays.into_iter().find(|overlay| overlay["owner"] == "livekit")?;
    Some(format!("{} {}", ours["mode"].as_str().unwrap(), ours["addresses"]))
}

fn wait_for_overlay(socket: &Path, expected: Option<&str>) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while overlay(socket).as_deref() != expected {
        assert!(Instant::now() < deadline, "{:?} instead of {expected:?}", overlay(socket));
        thread::sleep(Duration::from_millis(100));
    }
}

#[test]
fn every_command_has_a_help_that_teaches() {
    let folder = tempfile::tempdir().unwrap();
    let output = sidecar(folder.path(), &["--help"]).output().unwrap();
    assert_eq!(output.status.code(), Some(0));
    for word in ["init", "run", "check", "render", "completions", "hairpin-livekit init --livekit-url wss://"]
    {
        assert!(text(&output.stdout).contains(word), "{word}");
    }
    for name in ["init", "run", "check", "render"] {
        let output = sidecar(folder.path(), &[name, "--help"]).output().unwrap();
        assert!(text(&output.stdout).contains("Examples:\n  hairpin-livekit "), "{name}: {output:?}");
    }
    let output = sidecar(folder.path(), &["completions", "bash"]).output().unwrap();
    assert!(text(&output.stdout).contains("hairpin-livekit"));
    assert_eq!(sidecar(folder.path(), &["serve"]).output().unwrap().status.code(), Some(2));
}

/// From nothing: what init writes runs as it is, and the relay reaches the SFU without a setting of its own.
#[test]
fn two_commands_make_a_relay_reach_the_sfu() {
    let place = place();
    let folder = place.folder.path();
    let _relay = place.start(Stdio::null());
    let socket = folder.join("control.sock");
    let api = livekit();
    fs::write(
        folder.join("livekit.yaml"),
        format!("port: {}\nrtc:\n  node_ip: {SFU}\n  udp_port: 7882\n", api.port()),
    )
    .unwrap();
    let output = init(folder, &format!("ws://{api}"), &["--livekit-config", "livekit.yaml"]);
    let said = text(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    for words in [
        "turn_servers:".to_owned(),
        format!("host: 127.0.0.1\n           port: {}\n", place.udp),
        format!("secret_file: {}", folder.join("secret").display()),
        "webhook:\n       api_key: APIfirst\n       urls:\n         - http://127.0.0.1:9643/v1/webhook\n"
            .to_owned(),
        "hairpin-livekit run --config sidecar.toml\n".to_owned(),
    ] {
        assert!(said.contains(&words), "{words} is not in\n{said}");
    }
    assert!(!said.contains(SECRET) && !said.contains("an API secret"), "{said}");
    let file = folder.join("sidecar.toml");
    let written = fs::read_to_string(&file).unwrap();
    assert!(!written.contains(SECRET) && written.contains("mode = \"only\""), "{written}");
    assert_eq!(file.metadata().unwrap().permissions().mode() & 0o007, 0);

    // Another one is not replaced without a word
    let again = init(folder, &format!("ws://{api}"), &[]);
    assert_eq!(again.status.code(), Some(1));
    assert!(text(&again.stderr).contains("is there already; use --force"), "{again:?}");
    assert_eq!(fs::read_to_string(&file).unwrap(), written);

    fs::write(&file, written.replace("127.0.0.1:9643", &format!("127.0.0.1:{}", free()))).unwrap();
    let sidecar = Running::start(folder, "sidecar.toml");
    wait_for_overlay(&socket, Some("only [\"198.51.100.7:7882\"]"));
    // LiveKit's configuration is followed
    fs::write(folder.join("livekit.yaml"), format!("rtc:\n  node_ip: {SFU}\n  udp_port: 7883-7890\n"))
        .unwrap();
    wait_for_overlay(&socket, Some("only [\"198.51.100.7:7883-7890\"]"));
    // Somebody clears it
    let cleared = hairpin(&["ctl", "--socket", socket.to_str().unwrap(), "peers", "clear", "livekit"]);
    assert_eq!(cleared.status.code(), Some(0), "{cleared:?}");
    wait_for_overlay(&socket, Some("only [\"198.51.100.7:7883-7890\"]"));
    assert!(!sidecar.said().contains(SECRET), "{}", sidecar.said());
}

/// A mistake changes nothing; otherwise a reload changes what has to change.
#[test]
fn a_reload_changes_peers_or_nothing() {
    let place = place();
    let folder = place.folder.path();
    let _relay = place.start(Stdio::null());
    let socket = folder.join("control.sock");
    let config = |mode: &str| {
        let text = format!(
            "[livekit]\nurl = \"ws://{}\"\nkeys_file = \"keys\"\n[credentials]\nsecret_file = \"secret\"\n[http]\nlisten = []\n\
             [peers]\nmode = {mode}\naddresses = \"198.51.100.7:7882\"\n[health]\nprobe = false\n[lifecycle]\nrevoke = false\n",
            livekit()
        );
        fs::write(folder.join("sidecar.toml"), text).unwrap();
    };
    config("\"add\"");
    let mut sidecar = Running::start(folder, "sidecar.toml");
    wait_for_overlay(&socket, Some("add [\"198.51.100.7:7882\"]"));
    config("\"all\"");
    signal_to(&sidecar.child, "HUP");
    sidecar.wait_for("sidecar.toml:9: peers.mode = \"all\": unknown value");
    sidecar.wait_for("the configuration has 1 mistake: nothing is changed");
    assert_eq!(overlay(&socket).as_deref(), Some("add [\"198.51.100.7:7882\"]"));
    config("\"off\"");
    signal_to(&sidecar.child, "HUP");
    sidecar.wait_for("peers.mode");
    wait_for_overlay(&socket, None);
    signal_to(&sidecar.child, "TERM");
    assert_eq!(sidecar.child.wait().unwrap().code(), Some(0), "{}", sidecar.said());
}

/// Without a relay, without LiveKit and without a secret init says what is missing, and still writes what it can.
#[test]
fn what_is_missing_gets_a_sentence_each() {
    let folder = tempfile::tempdir().unwrap();
    let unused = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap();
    let output = init(folder.path(), &format!("ws://{unused}"), &["--socket", "/nonexistent/control.sock"]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let said = text(&output.stdout);
    for words in [
        "To do first:",
        "the API keys:",
        "No such file",
        "the relay: there is no control socket",
        "start it (`hairpin serve`)",
    ] {
        assert!(said.contains(words), "{words} is not in\n{said}");
    }
    assert!(folder.path().join("sidecar.toml").exists());
    let wrong = init(folder.path(), "livekit.example.org", &[]);
    assert_eq!(wrong.status.code(), Some(2));
    assert!(
        text(&wrong.stderr).contains("--livekit-url: not a URL; write it like wss://livekit.example.org"),
        "{wrong:?}"
    );
}

/// Run reports every mistake in the configuration, and needs neither relay nor LiveKit to start.
#[test]
fn a_sidecar_starts_without_anybody_else() {
    let folder = tempfile::tempdir().unwrap();
    let unused = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap();
    fs::write(folder.path().join("wrong.toml"), "[livekit]\nurl = 5\n[peers]\nmod = \"only\"\n").unwrap();
    let output = sidecar(folder.path(), &["run", "--config", "wrong.toml"]).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    let said = text(&output.stderr);
    assert!(
        said.contains("wrong.toml:2: livekit.url") && said.contains("did you mean peers.mode?"),
        "{said}"
    );
    let output = sidecar(folder.path(), &["run", "--config", "none.toml"]).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("let `hairpin-livekit init` write a configuration"), "{output:?}");

    private(&folder.path().join("keys"), KEYS);
    let config = format!(
        "[[relay]]\nsocket = \"{}/control.sock\"\n[livekit]\nurl = \"ws://{unused}\"\nkeys_file = \"keys\"\n[http]\nlisten = \"127.0.0.1:{}\"\n",
        folder.path().display(),
        free()
    );
    fs::write(folder.path().join("sidecar.toml"), config).unwrap();
    let mut running = Running::start(folder.path(), "sidecar.toml");
    running.wait_for("hairpin-livekit is starting");
    thread::sleep(Duration::from_secs(2));
    assert_eq!(running.child.try_wait().unwrap().map(|status| status.code()), None, "{}", running.said());
    signal_to(&running.child, "INT");
    assert_eq!(running.child.wait().unwrap().code(), Some(0));
}
