//! A relay under test: its configuration, the running program, and its output.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

pub const SECRET: &str = "a secret for these tests";

/// A configuration in its own folder, with unused ports.
pub struct Place {
    pub folder: TempDir,
    pub udp: u16,
    pub tcp: u16,
    pub tls: u16,
    pub http: u16,
}

impl Place {
    /// Creates one with additional settings.
    pub fn new(more: &str) -> Place {
        let udp = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port();
        let tcp = || TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let [tcp, tls, http] = [tcp(), tcp(), tcp()].map(|listener| listener.local_addr().unwrap().port());
        let place = Place { folder: tempfile::tempdir().unwrap(), udp, tcp, tls, http };
        // Relay ports below the ephemeral ports of the system.
        let text = format!(
            "workers = 1\n[listen]\nudp = \"127.0.0.1:{udp}\"\ntcp = \"127.0.0.1:{tcp}\"\n[relay]\naddresses = \"127.0.0.1\"\nports = \"20000-20099\"\n\
             [http]\nlisten = \"127.0.0.1:{http}\"\n[auth]\nsecrets = \"{SECRET}\"\n{more}"
        );
        fs::write(place.file(), text).unwrap();
        place
    }

    pub fn file(&self) -> PathBuf {
        self.folder.path().join("hairpin.toml")
    }

    pub fn config(&self) -> &'static str {
        self.file().to_str().unwrap().to_owned().leak()
    }

    /// Starts the relay and waits until it serves.
    pub fn start(&self, stderr: Stdio) -> Running {
        // What it keeps is its own, too: relays that run at the same time would share one, and only one of them may change it.
        let state = self.folder.path().join("state");
        fs::create_dir_all(&state).unwrap();
        let mut command = command(&["serve", "--config", self.config()]);
        self.wait_for_start(command.env("STATE_DIRECTORY", state), stderr)
    }

    /// Runs a command that starts the relay, and waits until it serves.
    pub fn wait_for_start(&self, command: &mut Command, stderr: Stdio) -> Running {
        // Its control socket is in its own folder.
        command.env("RUNTIME_DIRECTORY", self.folder.path());
        let running = Running(command.stdout(Stdio::piped()).stderr(stderr).spawn().unwrap());
        let deadline = Instant::now() + Duration::from_secs(20);
        while !self.is_served() {
            assert!(Instant::now() < deadline, "the relay does not serve");
            std::thread::sleep(Duration::from_millis(20));
        }
        running
    }

    /// Whether the relay responds to requests. That a connection is accepted says less: the kernel does that, while the relay
    /// still opens its other sockets.
    fn is_served(&self) -> bool {
        let Ok(mut stream) = TcpStream::connect((Ipv4Addr::LOCALHOST, self.http)) else { return false };
        let mut response = String::new();
        stream.write_all(b"GET /livez HTTP/1.1\r\nHost: here\r\n\r\n").is_ok()
            && stream.read_to_string(&mut response).is_ok()
            && !response.is_empty()
    }

    /// Starts the relay, which must fail, and returns its log.
    pub fn fails(&self) -> String {
        let output = hairpin(&["serve", "--config", self.config()]);
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        text(&output.stderr).to_owned()
    }

    /// Waits until the log has these words.
    pub fn wait_for_log(&self, log: &Path, words: &str) {
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            let said = fs::read_to_string(log).unwrap();
            if said.contains(words) {
                return;
            }
            assert!(Instant::now() < deadline, "{words} is not in\n{said}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    pub fn get(&self, path: &str) -> String {
        let mut stream = TcpStream::connect(SocketAddr::from((Ipv4Addr::LOCALHOST, self.http))).unwrap();
        write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
        let mut response = String::new();
        stream.read_to_string(&mut response).unwrap();
        response
    }
}

/// A running relay. It is killed when dropped.
pub struct Running(Child);

impl Running {
    pub fn id(&self) -> u32 {
        self.0.id()
    }

    /// Sends a signal.
    pub fn signal(&self, signal: &str) {
        signal_to(&self.0, signal);
    }

    /// Sends a signal and returns the exit status.
    pub fn stop(mut self, signal: &str) -> Option<i32> {
        signal_to(&self.0, signal);
        self.0.wait().unwrap().code()
    }

    /// The same, but the exit status must be 0; returns what it wrote to standard output.
    pub fn stop_with_output(mut self, signal: &str) -> Vec<u8> {
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

pub fn signal_to(child: &Child, signal: &str) {
    let sent = Command::new("kill").args([&format!("-{signal}"), &child.id().to_string()]).status().unwrap();
    assert!(sent.success());
}

pub fn hairpin(args: &[&str]) -> Output {
    command(args).output().unwrap()
}

/// The program, in an environment without systemd's variables and without a secret.
pub fn command(args: &[&str]) -> Command {
    let mut command = Command::new(Path::new(env!("CARGO_BIN_EXE_hairpin")));
    let systemd =
        ["INVOCATION_ID", "NOTIFY_SOCKET", "RUNTIME_DIRECTORY", "STATE_DIRECTORY", "XDG_RUNTIME_DIR"];
    let hairpin = ["HAIRPIN_AUTH_SECRET", "HAIRPIN_ADMIN_SOCKET", "HAIRPIN_ADMIN_TOKEN"];
    for variable in systemd.into_iter().chain(hairpin) {
        command.env_remove(variable);
    }
    command.args(args).stdin(Stdio::null());
    command
}

pub fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}
