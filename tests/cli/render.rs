//! `hairpin-livekit render` on files, with servers that look like LiveKit and MediaMTX.

use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use tempfile::TempDir;

use super::place::{Place, text};

const SECRET: &str = "a secret for these tests";

const UDP: &str = "turn:turn.example.org:3478?transport=udp";
const TLS: &str = "turns:turn.example.org:5349?transport=tcp";

const LIVEKIT: &str = "\
# LiveKit of our meetings
port: 7880
rtc:
  # UDP ports
  port_range_start: 50000   # and up
  port_range_end: 60000
keys: {APIone: secret-of-livekit}   # flow style elsewhere
";

/// A folder with a secret and a file to write into.
struct Desk {
    folder: TempDir,
}

impl Desk {
    fn new(name: &str, contents: &str) -> Desk {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join(name), contents).unwrap();
        fs::write(folder.path().join("secret"), format!("{SECRET}\n")).unwrap();
        fs::set_permissions(folder.path().join("secret"), fs::Permissions::from_mode(0o600)).unwrap();
        Desk { folder }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap()
    }

    /// Renders in this folder, with the secret in it.
    fn render(&self, args: &[&str]) -> Output {
        run(self.folder.path(), &[&["--secret-file", "secret"], args].concat())
    }
}

fn run(folder: &Path, args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_hairpin-livekit"));
    for variable in ["HAIRPIN_ADMIN_SOCKET", "HAIRPIN_MEDIAMTX_CREDENTIALS", "RUNTIME_DIRECTORY"] {
        command.env_remove(variable);
    }
    command.arg("render").args(args).current_dir(folder).stdin(Stdio::null()).output().unwrap()
}

/// What a command printed that must have this exit status.
fn printed(output: &Output, status: i32) -> String {
    assert_eq!(output.status.code(), Some(status), "{output:?}");
    text(&output.stdout).to_owned()
}

#[test]
fn a_section_is_printed_for_pasting() {
    let desk = Desk::new("livekit.yaml", LIVEKIT);
    let said = printed(&desk.render(&["--url", TLS, "--url", UDP]), 0);
    let path = desk.path("secret").canonicalize().unwrap();
    let entry = |port, protocol| {
        format!(
            "    - host: turn.example.org\n      port: {port}\n      protocol: {protocol}\n      secret_file: {}\n      ttl: 14400\n",
            path.display()
        )
    };
    assert!(said.starts_with("rtc:\n  turn_servers:\n    # hairpin-livekit: "), "{said}");
    assert!(said.ends_with(&[entry(3478, "udp"), entry(5349, "tls")].concat()), "{said}");
    assert!(!said.contains(SECRET));
    let said = printed(&desk.render(&["--url", UDP, "--inline"]), 0);
    assert!(said.contains(&format!("      secret: \"{SECRET}\"\n")), "{said}");
    let said =
        printed(&desk.render(&["--url", UDP, "--url", "turns:turn.example.org:443", "--mode", "turn"]), 0);
    assert!(
        said.starts_with("turn:\n") && said.contains("  domain: turn.example.org\n  tls_port: 5349\n"),
        "{said}"
    );
    assert_eq!(desk.read("livekit.yaml"), LIVEKIT);
}

/// The relay beside it tells its URLs.
#[test]
fn a_running_relay_is_asked_for_its_urls() {
    let place = Place::new("");
    let _relay = place.start(Stdio::null());
    let desk = Desk::new("livekit.yaml", LIVEKIT);
    let mut command = Command::new(env!("CARGO_BIN_EXE_hairpin-livekit"));
    command.args(["render", "--secret-file"]).arg(desk.path("secret"));
    let socket = place.folder.path().join("control.sock");
    let output = command.env("HAIRPIN_ADMIN_SOCKET", &socket).output().unwrap();
    let said = printed(&output, 0);
    for (port, protocol) in [(place.udp, "udp"), (place.tcp, "tcp")] {
        assert!(
            said.contains(&format!(
                "    - host: 127.0.0.1\n      port: {port}\n      protocol: {protocol}\n"
            )),
            "{said}"
        );
    }
    let output = command.env("HAIRPIN_ADMIN_SOCKET", desk.path("none")).output().unwrap();
    assert_eq!(printed(&output, 1), "");
    assert!(
        text(&output.stderr).contains("there is no control socket") && text(&output.stderr).contains("--url"),
        "{output:?}"
    );
}

#[test]
fn a_file_is_written_once_and_everything_else_stays() {
    let desk = Desk::new("real.yaml", LIVEKIT);
    fs::set_permissions(desk.path("real.yaml"), fs::Permissions::from_mode(0o640)).unwrap();
    symlink("real.yaml", desk.path("livekit.yaml")).unwrap();
    let args = ["--url", UDP, "--url", TLS, "--into", "livekit.yaml"];
    let said = printed(&desk.render(&args), 0);
    assert!(said.contains("rtc.turn_servers was written") && said.contains("restart LiveKit"), "{said}");
    let written = desk.read("real.yaml");
    let (head, tail) = written.split_once("  turn_servers:\n").unwrap();
    let tail = tail.lines().skip_while(|line| line.starts_with("    ")).map(|line| format!("{line}\n"));
    assert_eq!(head.to_owned() + &tail.collect::<String>(), LIVEKIT);
    assert_eq!(fs::metadata(desk.path("real.yaml")).unwrap().mode() & 0o7777, 0o640);
    assert!(desk.path("livekit.yaml").is_symlink());
    assert_eq!(fs::read_dir(desk.folder.path()).unwrap().count(), 3, "nothing is left behind");

    // The second time there is nothing to do, and nothing is done.
    let inode = fs::metadata(desk.path("real.yaml")).unwrap().ino();
    assert!(printed(&desk.render(&args), 0).contains("rtc.turn_servers is current"));
    assert_eq!(
        (desk.read("real.yaml"), fs::metadata(desk.path("real.yaml")).unwrap().ino()),
        (written, inode)
    );
}

#[test]
fn check_tells_by_its_exit_status_whether_a_file_is_current() {
    let desk = Desk::new("livekit.yaml", LIVEKIT);
    let check =
        |more: &[&str]| desk.render(&[&["--url", UDP, "--into", "livekit.yaml", "--check"], more].concat());
    let said = printed(&check(&["--inline"]), 1);
    assert!(said.contains("is not current\n") && said.contains("+ - host: turn.example.org\n"), "{said}");
    assert!(said.contains("secret: (hidden)") && !said.contains(SECRET), "{said}");
    assert_eq!(desk.read("livekit.yaml"), LIVEKIT);
    printed(&desk.render(&["--url", UDP, "--into", "livekit.yaml", "--inline"]), 0);
    assert!(printed(&check(&["--inline"]), 0).ends_with("rtc.turn_servers is current\n"));
    // A new secret, and one more listener.
    fs::write(desk.path("secret"), "another secret for these tests\n").unwrap();
    let output = check(&["--inline", "--url", TLS]);
    let said = printed(&output, 1);
    assert!(
        said.contains("-   secret: (hidden)\n") && said.contains("+   secret: (hidden), another one\n"),
        "{said}"
    );
    assert!(said.contains("+   protocol: tls\n"), "{said}");
    for stream in [&output.stdout, &output.stderr] {
        assert!(!text(stream).contains("for these tests"), "{output:?}");
    }
}

/// What is not edited is left alone, and the section is printed to be pasted; with --check it is not, since it has a secret.
#[test]
fn what_is_not_edited_is_refused_with_the_section() {
    for (contents, reason) in [
        ("port: 7880\nrtc: {tcp_port: 7881}\n", "line 2: `rtc` is in flow style"),
        ("port: 7880\nrtc:\n  turn_servers: [{host: a}]\n", "line 3: `turn_servers` is in flow style"),
        ("{\"port\": 7880}\n", "the file is JSON"),
        ("port: 7880\nrtc: &media\n  tcp_port: 1\n", "anchors"),
        ("port: 7880\n---\nport: 7881\n", "several documents"),
        ("port: 7880\nport: 7881\n", "listed twice"),
        ("port: 7880\nrtc:\n\ttcp_port: 1\n", "line 3: this is not valid YAML"),
        ("port: {{ .Values.port }}\n", "line 1: the file is a template"),
        (
            "apiVersion: v1\nkind: ConfigMap\ndata:\n  livekit.yaml: |\n    port: 7880\n    rtc: {}\n",
            "Kubernetes manifest (ConfigMap)",
        ),
        ("replicaCount: 1\nlivekit:\n  port: 7880\n  rtc: {}\n", "inside it, below `livekit`"),
        ("name: something else\n", "does not look like LiveKit's configuration"),
        ("", "the file is empty"),
    ] {
        let desk = Desk::new("livekit.yaml", contents);
        let args = ["--url", UDP, "--into", "livekit.yaml", "--inline"];
        let output = desk.render(&args);
        let (said, why) = (printed(&output, 1), text(&output.stderr));
        assert!(why.contains(reason) && why.contains("paste this section"), "{why}");
        assert!(said.starts_with("rtc:\n  turn_servers:\n") && said.contains(SECRET), "{said}");
        assert_eq!(desk.read("livekit.yaml"), contents);
        let output = desk.render(&[&args[..], &["--check"]].concat());
        assert_eq!(printed(&output, 1), "", "{output:?}");
        assert!(
            text(&output.stderr).contains(reason) && !text(&output.stderr).contains(SECRET),
            "{output:?}"
        );
    }
}

/// LiveKit would not start with such a file, or make credentials that the relay refuses.
#[test]
fn a_secret_file_that_livekit_refuses_is_not_written() {
    let desk = Desk::new("livekit.yaml", LIVEKIT);
    fs::set_permissions(desk.path("secret"), fs::Permissions::from_mode(0o604)).unwrap();
    let output = desk.render(&["--url", UDP, "--into", "livekit.yaml"]);
    assert!(text(&output.stderr).contains("chmod o="), "{output:?}");
    assert_eq!((output.status.code(), desk.read("livekit.yaml").as_str()), (Some(1), LIVEKIT));
    // For LiveKit in a container the path is another one, which cannot be checked.
    let args = ["--secret-file", "/run/secrets/turn", "--url", UDP];
    let output = run(desk.folder.path(), &args);
    assert!(printed(&output, 0).contains("secret_file: /run/secrets/turn\n"));
    assert!(text(&output.stderr).contains("not on this machine"), "{output:?}");
}

/// The sidecar's configuration has all that is needed: the relays, the secret, LiveKit's file.
#[test]
fn a_configuration_names_relays_secret_and_file() {
    let desk = Desk::new("livekit.yaml", LIVEKIT);
    let config = format!(
        "[livekit]\nconfig_file = \"livekit.yaml\"\n[credentials]\nsecret_file = \"secret\"\nttl = 600\n\
         [[relay]]\nname = \"a\"\nurls = [\"{UDP}\"]\n[[relay]]\nname = \"b\"\nurl = \"https://b.example.org:9642\"\n\
         token_file = \"token\"\nurls = [\"turn:[2001:db8::7]\", \"{TLS}\"]\n"
    );
    fs::write(desk.path("hairpin-livekit.toml"), config).unwrap();
    fs::write(desk.path("token"), "0123456789abcdef0123456789abcdef\n").unwrap();
    fs::set_permissions(desk.path("token"), fs::Permissions::from_mode(0o600)).unwrap();
    let here = |args: &[&str]| run(desk.folder.path(), args);
    // It is found in the working directory, too.
    assert!(printed(&here(&["--config", "hairpin-livekit.toml", "--check"]), 1).contains("is not current"));
    assert!(printed(&here(&["--write"]), 0).contains("livekit.yaml: rtc.turn_servers was written"));
    let written = desk.read("livekit.yaml");
    assert_eq!(written.matches("    - host: ").count(), 3, "{written}");
    assert!(
        written.contains("    - host: \"[2001:db8::7]\"\n      port: 3478\n      protocol: udp\n"),
        "{written}"
    );
    assert_eq!(written.matches("      ttl: 600\n").count(), 3, "{written}");
    assert!(printed(&here(&["--check"]), 0).contains("is current"));
    // One name for both.
    let said = printed(&here(&["--domain", "relays.example.org"]), 0);
    assert_eq!(said.matches("    - host: relays.example.org\n").count(), 2, "{said}");
    let output = here(&["--config", "none.toml"]);
    assert_eq!(output.status.code(), Some(2), "{output:?}");
}

#[test]
fn mistakes_in_the_arguments_have_their_own_exit_status() {
    let desk = Desk::new("livekit.yaml", LIVEKIT);
    for args in [
        &["--url", UDP, "--check"][..],
        &["--url", UDP, "--run", "true"],
        &["--url", UDP, "--into", "livekit.yaml", "--check", "--run", "true"],
        &["--url", UDP, "--api", "http://127.0.0.1:9"],
        &["--url", UDP, "--write"],
        &["--url", UDP, "--write", "--into", "livekit.yaml"],
        &["--url", "http://turn.example.org"],
        &["--url", UDP, "--mode", "other"],
        &["--url", UDP, "--domain", "two words"],
        &["--url", "turn:192.0.2.1:3478", "--mode", "turn"],
    ] {
        let output = desk.render(args);
        assert_eq!((output.status.code(), text(&output.stdout)), (Some(2), ""), "{args:?} {output:?}");
    }
}

/// A server that answers `GET /` as LiveKit does, and is restarted when a file appears: it closes what is open.
struct FakeLiveKit {
    address: SocketAddr,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl FakeLiveKit {
    /// `comes_back` after the restart.
    fn new(restart: PathBuf, comes_back: bool) -> FakeLiveKit {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let thread = thread::spawn(move || {
            let mut listener = Some(listener);
            let mut open: Vec<TcpStream> = Vec::new();
            while !stopped.load(Ordering::Relaxed) {
                if restart.exists() {
                    fs::remove_file(&restart).unwrap();
                    open.clear();
                    drop(listener.take());
                    thread::sleep(Duration::from_millis(300));
                    listener = comes_back.then(|| TcpListener::bind(address).unwrap());
                }
                if let Some(listener) = &listener {
                    listener.set_nonblocking(true).unwrap();
                    if let Ok((stream, _)) = listener.accept() {
                        stream.set_nonblocking(true).unwrap();
                        open.push(stream);
                    }
                }
                for stream in &mut open {
                    let mut request = [0; 1024];
                    if stream.read(&mut request).is_ok_and(|n| n > 0) {
                        let _ = stream
                            .write_all(b"HTTP/1.1 406 Not Acceptable\r\nContent-Length: 9\r\n\r\nNot Ready");
                    }
                }
                thread::sleep(Duration::from_millis(10));
            }
        });
        FakeLiveKit { address, stop, thread: Some(thread) }
    }

    fn url(&self) -> String {
        format!("ws://{}", self.address)
    }
}

impl Drop for FakeLiveKit {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let _ = self.thread.take().unwrap().join();
    }
}

/// LiveKit's port decides, and not the exit status of the command; and the command runs only if there is a change.
#[test]
fn livekit_is_restarted_once_and_seen_to_come_back() {
    let desk = Desk::new("livekit.yaml", LIVEKIT);
    let livekit = FakeLiveKit::new(desk.path("restart"), true);
    let url = livekit.url();
    let args = [
        "--url",
        UDP,
        "--into",
        "livekit.yaml",
        "--livekit-url",
        &url,
        "--run",
        "touch restart; echo ran >> log; exit 3",
    ];
    let said = printed(&desk.render(&args), 0);
    assert!(
        said.contains("was written\n")
            && said.contains("LiveKit is back (the command has ended with exit status: 3)"),
        "{said}"
    );
    assert!(printed(&desk.render(&args), 0).contains("is current"));
    assert_eq!(desk.read("log"), "ran\n");
}

/// LiveKit ends with status 0 if its configuration is wrong.
#[test]
fn a_livekit_that_stays_away_is_a_failure() {
    let desk = Desk::new("livekit.yaml", LIVEKIT);
    let livekit = FakeLiveKit::new(desk.path("restart"), false);
    // Its port comes from the file, too.
    fs::write(desk.path("livekit.yaml"), LIVEKIT.replace("7880", &livekit.address.port().to_string()))
        .unwrap();
    let output =
        desk.render(&["--url", UDP, "--into", "livekit.yaml", "--wait", "2s", "--run", "touch restart"]);
    assert!(printed(&output, 1).contains("was written\n"));
    assert!(text(&output.stderr).contains("LiveKit does not answer"), "{output:?}");
    assert!(desk.read("livekit.yaml").contains("turn_servers"));
}

/// A LiveKit that lets its participants finish answers on, with the old configuration.
#[test]
fn a_livekit_that_was_not_restarted_is_told() {
    let desk = Desk::new("livekit.yaml", LIVEKIT);
    let livekit = FakeLiveKit::new(desk.path("restart"), true);
    let url = livekit.url();
    let output =
        desk.render(&["--url", UDP, "--into", "livekit.yaml", "--livekit-url", &url, "--run", "true"]);
    assert!(printed(&output, 0).contains("nothing shows that it was restarted"), "{output:?}");
}

/// A server that closes every connection at once, or serves one at a time, is no obstacle.
#[test]
fn a_livekit_of_few_connections_is_seen_to_answer() {
    for version in ["1.0", "1.1"] {
        let desk = Desk::new("livekit.yaml", LIVEKIT);
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let mut request = [0; 1024];
                while stream.read(&mut request).is_ok_and(|n| n > 0) {
                    let _ = write!(stream, "HTTP/{version} 200 OK\r\nContent-Length: 2\r\n\r\nOK");
                    if version == "1.0" {
                        break;
                    }
                }
            }
        });
        let output =
            desk.render(&["--url", UDP, "--into", "livekit.yaml", "--livekit-url", &url, "--run", "true"]);
        assert!(printed(&output, 0).contains("nothing shows that it was restarted"), "{output:?}");
    }
}

/// A server that answers as MediaMTX's API does; returns the requests it has had.
struct FakeMediaMtx {
    address: SocketAddr,
    requests: Arc<Mutex<Vec<String>>>,
}

impl FakeMediaMtx {
    /// Wants `authorization`, if there is some.
    fn new(authorization: Option<&'static str>) -> FakeMediaMtx {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let requests = Arc::new(Mutex::new(Vec::new()));
        let seen = requests.clone();
        thread::spawn(move || {
            let mut servers = serde_json::json!([]);
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let (head, body) = request(&mut stream);
                let is_known = authorization.is_none_or(|wanted| head.contains(wanted));
                let (status, response) = if !is_known {
                    ("401 Unauthorized", String::new())
                } else if head.starts_with("GET /v3/config/global/get ") {
                    ("200 OK", serde_json::json!({"api": true, "webrtcICEServers2": servers}).to_string())
                } else if head.starts_with("PATCH /v3/config/global/patch ") {
                    let patch: serde_json::Value = serde_json::from_str(&body).unwrap();
                    servers = patch["webrtcICEServers2"].clone();
                    ("200 OK", String::new())
                } else {
                    ("404 Not Found", String::new())
                };
                seen.lock().unwrap().push(head.lines().next().unwrap().to_owned());
                let _ = write!(
                    stream,
                    "HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n{response}",
                    response.len()
                );
            }
        });
        FakeMediaMtx { address, requests }
    }

    fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    fn patches(&self) -> usize {
        self.requests.lock().unwrap().iter().filter(|line| line.starts_with("PATCH")).count()
    }
}

fn request(stream: &mut TcpStream) -> (String, String) {
    let mut bytes = Vec::new();
    loop {
        let mut more = [0; 4096];
        let n = stream.read(&mut more).unwrap();
        bytes.extend_from_slice(&more[..n]);
        let so_far = String::from_utf8_lossy(&bytes).into_owned();
        let Some((head, body)) = so_far.split_once("\r\n\r\n") else {
            assert!(n > 0, "a request has a head");
            continue;
        };
        let length = head
            .lines()
            .find_map(|line| line.to_ascii_lowercase().strip_prefix("content-length: ").map(str::to_owned));
        if n == 0 || body.len() >= length.map_or(0, |length| length.parse().unwrap()) {
            return (head.to_owned(), body.to_owned());
        }
    }
}

/// A running MediaMTX is told once, and read back; its file is for its next start.
#[test]
fn mediamtx_gets_the_relay_by_its_api_and_in_its_file() {
    let before = "logLevel: info\nwebrtcICEServers2: []\n  # - url: stun:stun.example.org\nauthInternalUsers:\n- user: any\n";
    let desk = Desk::new("mediamtx.yml", before);
    let server = FakeMediaMtx::new(None);
    let url = server.url();
    let args = ["--mode", "mediamtx", "--url", UDP, "--url", TLS, "--into", "mediamtx.yml", "--api", &url];
    let output = desk.render(&[&args[..], &["--check"]].concat());
    let said = printed(&output, 1);
    assert_eq!((said.matches("is not current").count(), server.patches()), (2, 0), "{said}");
    assert!(!said.contains(SECRET) && desk.read("mediamtx.yml") == before, "{said}");

    let said = printed(&desk.render(&args), 0);
    assert!(
        said.contains("webrtcICEServers2 was written") && said.contains("webrtcICEServers2 was set"),
        "{said}"
    );
    let entry = |url: &str| {
        format!(
            "  - url: {url}\n    username: AUTH_SECRET\n    password: \"{SECRET}\"\n    clientOnly: true\n"
        )
    };
    let written = desk.read("mediamtx.yml");
    assert!(written.starts_with("logLevel: info\nwebrtcICEServers2:\n  # hairpin-livekit: "), "{written}");
    let rest = "  # - url: stun:stun.example.org\nauthInternalUsers:\n- user: any\n";
    assert!(written.ends_with(&[&entry(UDP), &entry(TLS), rest].concat()), "{written}");

    // A change would end running sessions, so there is none without need.
    assert_eq!(printed(&desk.render(&args), 0).matches("is current").count(), 2);
    assert_eq!(
        printed(&desk.render(&[&args[..], &["--check"]].concat()), 0).matches("is current").count(),
        2
    );
    assert_eq!(server.patches(), 1);
}

#[test]
fn credentials_for_mediamtx_come_from_a_file() {
    let desk = Desk::new("user", "# of the API\nadmin:of the API\n");
    let server = FakeMediaMtx::new(Some("Basic YWRtaW46b2YgdGhlIEFQSQ=="));
    let url = server.url();
    let args = ["--mode", "mediamtx", "--url", UDP, "--api", &url];
    let output = desk.render(&args);
    assert_eq!(printed(&output, 1), "");
    assert!(text(&output.stderr).contains("--api-credentials"), "{output:?}");
    let said = printed(&desk.render(&[&args[..], &["--api-credentials", "user"]].concat()), 0);
    assert!(said.contains("webrtcICEServers2 was set") && !said.contains(SECRET), "{said}");
    // Nobody listens there.
    drop(TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).map(|listener| {
        let url = format!("http://{}", listener.local_addr().unwrap());
        drop(listener);
        let output = desk.render(&["--mode", "mediamtx", "--url", UDP, "--api", &url]);
        assert!(text(&output.stderr).contains("is `api: yes` in its configuration?"), "{output:?}");
    }));
}
