//! The measured servers: minimal relays, coturn, hairpin, and any other TURN server whose address, user and realm can be
//! given on its command line. Each run starts a new process.

use std::ffi::OsString;
use std::fs;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::str::FromStr;

use anyhow::{Context, Result, ensure};

use crate::credentials::{PASSWORD, REALM, USER};
use crate::floor::variant::Variant;
use crate::testbed::{ChildProcess, Host};
use crate::tls::{TLS_NAME, TlsIdentity};
use crate::workload::{ClientTransport, SetupProtocol};

const PORT: u16 = 3478;
/// The port of TLS connections beside UDP clients, and of downloads.
pub const TLS_PORT: u16 = 443;
/// The port of the web server on the relay's host.
pub const WEB_PORT: u16 = 8443;
/// Connections for this name are passed through unopened.
pub const PASSED_NAME: &str = "www.example.org";

/// coturn as it performs best on one CPU: one relay thread, none of the features that cost every call something but log
/// lines, no unused listeners, and no SOFTWARE attribute in Data indications.
const COTURN: &str = "{turnserver} -n -m 1 --no-cli --no-dtls --no-tcp-relay --lt-cred-mech --no-software-attribute \
    --allow-loopback-peers -L {ip} -E {ip} -u {user}:{password} -r {realm} \
    --min-port 32768 --max-port 65535 -b {dir}/turndb --pidfile {dir}/pid -l stdout";
const COTURN_UDP: &str = "--no-tls --no-tcp -p {port}";
const COTURN_UDP_AND_TLS: &str =
    "--no-tcp -p {port} --tls-listening-port {tls_port} --cert {dir}/certificate.pem --pkey {dir}/key.pem";
const COTURN_TCP: &str = "--no-tls --no-udp -p {port}";
const COTURN_TLS: &str =
    "--no-tcp --no-udp --tls-listening-port {port} --cert {dir}/certificate.pem --pkey {dir}/key.pem";

/// A server that takes part.
#[derive(Clone)]
pub struct Contestant {
    /// The name in the tables.
    pub name: String,
    program: Program,
}

#[derive(Clone)]
enum Program {
    /// The minimal relay with these options.
    Floor(String),
    Coturn,
    /// hairpin, or another build of it at this path, perhaps with a `listen.mss`.
    Hairpin(Option<PathBuf>, Option<u16>),
    /// A command line with placeholders.
    Command(String),
}

/// The paths of the servers that are programs of their own.
pub struct ProgramPaths {
    pub turnserver: PathBuf,
    pub hairpin: PathBuf,
}

/// How a run uses a server.
pub struct ServerUse {
    pub transport: ClientTransport,
    /// The peers' address.
    pub peer_ip: Ipv4Addr,
    pub storm: bool,
    /// TLS connections are opened at [`TLS_PORT`].
    pub tls: bool,
    /// Other connections are passed on to a web server.
    pub web: bool,
}

impl FromStr for Contestant {
    type Err = String;

    fn from_str(word: &str) -> Result<Contestant, String> {
        let (name, program) = match word.split_once('=') {
            Some((name, program)) => (name, program),
            None => (word, word),
        };
        let (kind, option) = match program.split_once(':') {
            Some((kind, option)) => (kind, Some(option)),
            None => (program, None),
        };
        let program = match (kind, option) {
            ("floor", options) => {
                let options = options.unwrap_or_default();
                Variant::from_str(options)?;
                Program::Floor(options.to_owned())
            }
            ("coturn", None) => Program::Coturn,
            ("hairpin", path) => Program::Hairpin(path.map(PathBuf::from), None),
            (kind, path) if kind.starts_with("hairpin@") => {
                let mss =
                    kind["hairpin@".len()..].parse().map_err(|_| "hairpin@MSS needs a number".to_owned())?;
                Program::Hairpin(path.map(PathBuf::from), Some(mss))
            }
            _ if word.contains('=') => Program::Command(program.to_owned()),
            _ => return Err("not floor[:OPTION+..], coturn, hairpin[@MSS][:PATH] or NAME=COMMAND".to_owned()),
        };
        Ok(Contestant { name: name.to_owned(), program })
    }
}

impl Contestant {
    /// How allocations on this server are made.
    pub fn setup(&self) -> SetupProtocol {
        match self.program {
            Program::Floor(_) => SetupProtocol::Floor,
            Program::Coturn | Program::Hairpin(..) | Program::Command(_) => SetupProtocol::Turn,
        }
    }

    /// Whether it is a build of hairpin.
    pub fn is_hairpin(&self) -> bool {
        matches!(self.program, Program::Hairpin(..))
    }

    /// Starts the server and returns its address for clients. Its configuration and log are in `dir`.
    pub fn start(
        &self,
        host: &Host,
        paths: &ProgramPaths,
        dir: &Path,
        server_use: &ServerUse,
    ) -> Result<(ChildProcess, SocketAddrV4)> {
        let address = SocketAddrV4::new(host.ip, PORT);
        let words = match &self.program {
            Program::Floor(options) => floor_command(address, options, server_use, dir)?,
            Program::Command(words) => fill(words, address, paths, dir),
            Program::Coturn => {
                let listener = match server_use.transport {
                    ClientTransport::Udp if server_use.tls => COTURN_UDP_AND_TLS,
                    ClientTransport::Udp => COTURN_UDP,
                    ClientTransport::Tcp => COTURN_TCP,
                    ClientTransport::Tls => COTURN_TLS,
                };
                fill(&format!("{COTURN} {listener}"), address, paths, dir)
            }
            Program::Hairpin(path, mss) => {
                let config = dir.join("hairpin.toml");
                fs::write(&config, hairpin_config(address, server_use, *mss, dir))?;
                let program = path.as_ref().unwrap_or(&paths.hairpin);
                vec![program.into(), "serve".into(), "--config".into(), config.into()]
            }
        };
        ensure!(!words.is_empty(), "{} has no command", self.name);
        let mut command = host.command(&words[0]);
        let log = fs::File::create(dir.join("log"))?;
        command.args(&words[1..]).stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        Ok((ChildProcess(command.spawn()?), address))
    }

    /// The program that is not installed, if the server cannot take part.
    pub fn missing_program(&self, paths: &ProgramPaths) -> Option<String> {
        let words = match &self.program {
            Program::Floor(_) => return None,
            Program::Hairpin(path, _) => {
                let path = path.as_ref().unwrap_or(&paths.hairpin);
                return (!path.exists()).then(|| path.display().to_string());
            }
            Program::Command(words) => words,
            Program::Coturn => COTURN,
        };
        let program = words.split(' ').next().unwrap_or_default();
        let program = program.replace("{turnserver}", &paths.turnserver.to_string_lossy());
        let found = Command::new("which").arg(&program).output().is_ok_and(|which| which.status.success());
        (!found).then_some(program)
    }
}

fn floor_command(
    address: SocketAddrV4,
    options: &str,
    server_use: &ServerUse,
    dir: &Path,
) -> Result<Vec<OsString>> {
    let program = std::env::current_exe()?.into_os_string();
    let mut words = vec![program, "floor".into(), address.to_string().into(), options.into()];
    words.extend(["--transport".into(), server_use.transport.to_string().into()]);
    words.extend(server_use.storm.then(|| "--storm".into()));
    if server_use.transport == ClientTransport::Tls {
        words.extend(["--identity".into(), dir.into()]);
    }
    Ok(words)
}

fn fill(words: &str, address: SocketAddrV4, paths: &ProgramPaths, dir: &Path) -> Vec<OsString> {
    let fill = |word: &str| {
        word.replace("{turnserver}", &paths.turnserver.to_string_lossy())
            .replace("{ip}", &address.ip().to_string())
            .replace("{port}", &address.port().to_string())
            .replace("{tls_port}", &TLS_PORT.to_string())
            .replace("{user}", USER)
            .replace("{password}", PASSWORD)
            .replace("{realm}", REALM)
            .replace("{dir}", &dir.to_string_lossy())
    };
    words.split_whitespace().map(|word| fill(word).into()).collect()
}

fn hairpin_config(address: SocketAddrV4, server_use: &ServerUse, mss: Option<u16>, dir: &Path) -> String {
    let &ServerUse { transport, peer_ip, tls, web, .. } = server_use;
    let tls_address = SocketAddrV4::new(*address.ip(), TLS_PORT);
    let listen = |kind| match kind {
        _ if kind == transport => format!("[\"{address}\"]"),
        ClientTransport::Tls if tls && !web => format!("[\"{tls_address}\"]"),
        _ => "[]".to_owned(),
    };
    let TlsIdentity { certificate, key } = TlsIdentity::in_dir(dir);
    let has_tls = tls || web || transport == ClientTransport::Tls;
    let identity = has_tls.then(|| format!("[tls]\ncert = {certificate:?}\nkey = {key:?}\n"));
    let mss = mss.map(|mss| format!("mss = {mss}\n"));
    // The certificate is for the address, which clients do not name, and for a name.
    let routes = web.then(|| {
        format!(
            "[[listener]]\naddress = \"{tls_address}\"\ntransports = [\"tls\"]\n{mss}\
             [listener.routes]\n\"{PASSED_NAME}\" = \"127.0.0.1:{WEB_PORT}\"\n\
             \"{TLS_NAME}\" = {{ http = \"127.0.0.1:{WEB_PORT}\" }}\n",
            mss = mss.as_deref().unwrap_or_default(),
        )
    });
    format!(
        "workers = 1\n\
         [listen]\nudp = {}\ntcp = {}\ntls = {}\n{}\
         {}{}\
         [relay]\naddresses = [\"{}\"]\nports = \"32768-65535\"\n\
         [auth]\nrealm = \"{REALM}\"\n[[auth.user]]\nname = \"{USER}\"\npassword = \"{PASSWORD}\"\n\
         [peers]\nallow = [\"{peer_ip}/32\"]\n\
         [limits]\nuser_allocations = 0\nnew_allocations_rate = 0\nunauthenticated_burst = 1000000\n\
         [http]\nlisten = []\n",
        listen(ClientTransport::Udp),
        listen(ClientTransport::Tcp),
        listen(ClientTransport::Tls),
        mss.as_deref().unwrap_or_default(),
        identity.unwrap_or_default(),
        routes.unwrap_or_default(),
        address.ip(),
    )
}

/// The last lines that a server logged.
pub fn last_log_lines(dir: &Path) -> Result<String> {
    let log = fs::read(dir.join("log")).context("reading the server's log")?;
    let log = String::from_utf8_lossy(&log);
    let lines: Vec<&str> = log.lines().collect();
    Ok(lines[lines.len().saturating_sub(5)..].join("\n"))
}
