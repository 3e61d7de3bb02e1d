//! Who is measured: bare relays, coturn, hairpin, and any other TURN server that can be told its address, user and
//! realm on its command line. Every run has a process of its own.

use std::ffi::OsString;
use std::fs;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::str::FromStr;

use anyhow::{Context, Result, ensure};

use crate::case::Client;
use crate::floor;
use crate::load::Protocol;
use crate::testbed::{Running, Testbed};
use crate::tls::Identity;

/// The one user of every server.
pub const USER: &str = "bench";
/// And the password.
pub const PASSWORD: &str = "correct-horse";
const REALM: &str = "bench";
const PORT: u16 = 3478;

/// coturn as it serves best on one CPU: one relay thread, none of what costs a call nothing but log lines, no listener
/// that nobody uses, and Data indications without its name in each.
const COTURN: &str = "{turnserver} -n -m 1 --no-cli --no-dtls --no-tcp-relay --lt-cred-mech --no-software-attribute \
    --allow-loopback-peers -L {ip} -E {ip} -u {user}:{password} -r {realm} \
    --min-port 32768 --max-port 65535 -b {dir}/turndb --pidfile {dir}/pid -l stdout";
const COTURN_UDP: &str = "--no-tls --no-tcp -p {port}";
const COTURN_TCP: &str = "--no-tls --no-udp -p {port}";
const COTURN_TLS: &str =
    "--no-tcp --no-udp --tls-listening-port {port} --cert {dir}/certificate.pem --pkey {dir}/key.pem";

/// One column of the comparison.
#[derive(Clone)]
pub struct Contestant {
    /// What it is called in the table.
    pub name: String,
    /// How its flows are set up.
    pub protocol: Protocol,
    how: How,
}

#[derive(Clone)]
enum How {
    Floor(String),
    Words(String),
    Coturn,
    Hairpin,
}

/// Where the servers are that have a path.
pub struct Paths {
    pub turnserver: PathBuf,
    pub hairpin: PathBuf,
}

impl FromStr for Contestant {
    type Err = String;

    fn from_str(word: &str) -> Result<Contestant, String> {
        let (name, protocol, how) = match word.split_once('=') {
            Some((name, command)) => (name, Protocol::Turn, How::Words(command.to_owned())),
            None if word == "coturn" => (word, Protocol::Turn, How::Coturn),
            None if word == "hairpin" => (word, Protocol::Turn, How::Hairpin),
            None => {
                let (kind, options) = word.split_once(':').unwrap_or((word, ""));
                if kind != "floor" {
                    return Err("neither floor[:options], coturn, hairpin nor NAME=COMMAND".to_owned());
                }
                floor::Shape::from_str(options)?;
                (word, Protocol::Floor, How::Floor(options.to_owned()))
            }
        };
        Ok(Contestant { name: name.to_owned(), protocol, how })
    }
}

impl Contestant {
    /// Starts it on the relay's host, to be reached in this way, perhaps by a storm of clients.
    pub fn start(
        &self,
        testbed: &Testbed,
        paths: &Paths,
        dir: &Path,
        client: Client,
        storm: bool,
    ) -> Result<(Running, SocketAddrV4)> {
        let address = SocketAddrV4::new(testbed.relay.ip, PORT);
        let words = match &self.how {
            How::Floor(options) => floor_words(address, options, client, storm, dir)?,
            How::Words(words) => fill(words, address, paths, dir),
            How::Coturn => {
                let listener = match client {
                    Client::Udp => COTURN_UDP,
                    Client::Tcp => COTURN_TCP,
                    Client::Tls => COTURN_TLS,
                };
                fill(&format!("{COTURN} {listener}"), address, paths, dir)
            }
            How::Hairpin => {
                let path = dir.join("hairpin.toml");
                fs::write(&path, hairpin_configuration(address, testbed.clients.ip, client, dir))?;
                vec![paths.hairpin.clone().into(), "serve".into(), "--config".into(), path.into()]
            }
        };
        ensure!(!words.is_empty(), "{} has no command", self.name);
        let mut command = testbed.relay.command(&words[0]);
        let log = fs::File::create(dir.join("log"))?;
        command.args(&words[1..]).stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        Ok((Running(command.spawn()?), address))
    }

    /// Why it cannot take part, if so.
    pub fn absence(&self, paths: &Paths) -> Option<String> {
        let words = match &self.how {
            How::Floor(_) => return None,
            How::Hairpin => {
                return (!paths.hairpin.exists()).then(|| format!("no {}", paths.hairpin.display()));
            }
            How::Words(words) => words,
            How::Coturn => COTURN,
        };
        let program = words.split(' ').next().unwrap_or_default();
        let program = program.replace("{turnserver}", &paths.turnserver.to_string_lossy());
        let found = Command::new("which").arg(&program).output().is_ok_and(|which| which.status.success());
        (!found).then(|| format!("no {program} here"))
    }
}

fn floor_words(
    address: SocketAddrV4,
    options: &str,
    client: Client,
    storm: bool,
    dir: &Path,
) -> Result<Vec<OsString>> {
    let program = std::env::current_exe()?.into_os_string();
    let mut words = vec![program, "floor".into(), address.to_string().into(), options.into()];
    words.extend(["--client".into(), client.to_string().into()]);
    words.extend(storm.then(|| "--storm".into()));
    if client == Client::Tls {
        words.extend(["--identity".into(), dir.into()]);
    }
    Ok(words)
}

fn fill(words: &str, address: SocketAddrV4, paths: &Paths, dir: &Path) -> Vec<OsString> {
    let fill = |word: &str| {
        word.replace("{turnserver}", &paths.turnserver.to_string_lossy())
            .replace("{ip}", &address.ip().to_string())
            .replace("{port}", &address.port().to_string())
            .replace("{user}", USER)
            .replace("{password}", PASSWORD)
            .replace("{realm}", REALM)
            .replace("{dir}", &dir.to_string_lossy())
    };
    words.split_whitespace().map(|word| fill(word).into()).collect()
}

fn hairpin_configuration(address: SocketAddrV4, clients: Ipv4Addr, client: Client, dir: &Path) -> String {
    let listen = |kind| if kind == client { format!("[\"{address}\"]") } else { "[]".to_owned() };
    let Identity { certificate, key } = Identity::of(dir);
    let tls = match client {
        Client::Tls => format!("[tls]\ncert = {certificate:?}\nkey = {key:?}\n"),
        _ => String::new(),
    };
    format!(
        "workers = 1\n\
         [listen]\nudp = {}\ntcp = {}\ntls = {}\n\
         {tls}\
         [relay]\naddresses = [\"{}\"]\nports = \"32768-65535\"\n\
         [auth]\nrealm = \"{REALM}\"\n[[auth.user]]\nname = \"{USER}\"\npassword = \"{PASSWORD}\"\n\
         [peers]\nallow = [\"{clients}/32\"]\n\
         [limits]\nuser_allocations = 100000\nunauthenticated_burst = 1000000\n\
         [http]\nlisten = []\n",
        listen(Client::Udp),
        listen(Client::Tcp),
        listen(Client::Tls),
        address.ip(),
    )
}

/// What a server that failed has said last.
pub fn last_words(dir: &Path) -> Result<String> {
    let log = fs::read(dir.join("log")).context("its log")?;
    let log = String::from_utf8_lossy(&log);
    let lines: Vec<&str> = log.lines().collect();
    Ok(lines[lines.len().saturating_sub(5)..].join("\n"))
}
