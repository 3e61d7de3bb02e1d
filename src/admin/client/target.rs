//! How a relay is reached: over its control socket, or over TCP with a token.

use std::fmt;
use std::fs;
use std::io;
use std::net::IpAddr;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use nix::unistd::{Gid, Group};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::TlsConnector;

use super::failure::Failure;
use crate::daemon::{self, control_socket};

/// The environment variable with the control socket, which the relay knows, too.
const SOCKET: &str = "HAIRPIN_ADMIN_SOCKET";

/// Where the relay is.
pub enum Target {
    /// The paths of its control socket that are tried.
    Socket(Vec<PathBuf>),
    /// Over TCP.
    Url {
        /// A name or an address, which has no brackets.
        host: String,
        /// The port.
        port: u16,
        /// TLS, if it is used.
        tls: Option<TlsConnector>,
        /// The value of `Authorization`.
        authorization: String,
    },
}

/// A connection to a relay.
pub trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Stream for S {}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Target::Socket(paths) => write!(f, "{}", list(paths)),
            Target::Url { .. } => f.write_str(&self.host()),
        }
    }
}

impl Target {
    /// The control socket at `path`, otherwise the one that the environment names, otherwise that of `hairpin serve`.
    pub fn socket(path: Option<PathBuf>) -> Target {
        let named = || daemon::variable(SOCKET).filter(|path| !path.is_empty()).map(PathBuf::from);
        match path.or_else(named) {
            Some(path) => Target::Socket(vec![path]),
            None => Target::Socket(control_socket::default_paths(&daemon::variable)),
        }
    }

    /// The control socket of a relay with this configuration.
    ///
    /// # Errors
    /// The configuration cannot be read, or turns the socket off.
    pub fn of_configuration(file: &Path) -> Result<Target, Failure> {
        // The relay, too, prefers the environment to the file.
        let path = match daemon::variable(SOCKET).is_some_and(|path| !path.is_empty()) {
            true => None,
            false => socket_of(file)?,
        };
        Ok(Target::socket(path))
    }

    /// The API over TCP, at `http://HOST:PORT` or `https://HOST:PORT`. `tls` is asked for if the URL wants it, `token` once the URL may
    /// have it. `label` is what messages call the URL.
    ///
    /// # Errors
    /// The URL, the token or the certificates cannot be used.
    pub fn url(
        label: &str,
        url: &str,
        tls: impl FnOnce() -> Result<TlsConnector, Failure>,
        token: impl FnOnce() -> Result<String, Failure>,
    ) -> Result<Target, Failure> {
        let wrong = || {
            Failure::usage(format!(
                "{label}: write it like http://127.0.0.1:9642 or https://turn.example.org:9642"
            ))
        };
        let (scheme, rest) = url.split_once("://").ok_or_else(wrong)?;
        let authority = rest.strip_suffix('/').unwrap_or(rest);
        let is_tls = match scheme {
            "https" => true,
            "http" => false,
            _ => return Err(wrong()),
        };
        let (host, port) = match authority.strip_prefix('[') {
            Some(rest) => {
                let (host, port) = rest.split_once(']').ok_or_else(wrong)?;
                (host, port.strip_prefix(':'))
            }
            None => match authority.split_once(':') {
                Some((host, port)) => (host, Some(port)),
                None => (authority, None),
            },
        };
        let port = match port {
            Some(port) => port.parse().map_err(|_| wrong())?,
            None if is_tls => 443,
            None => 80,
        };
        if host.is_empty() || host.contains(['/', '@', '?', '#', ' ']) {
            return Err(wrong());
        }
        let is_loopback = host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback());
        if !is_tls && !is_loopback {
            return Err(Failure::usage(format!(
                "{label}: the token is not sent to {host} without TLS, where others could read it; use https://"
            )));
        }
        let tls = is_tls.then(tls).transpose()?;
        Ok(Target::Url { host: host.to_owned(), port, tls, authorization: format!("Bearer {}", token()?) })
    }

    /// The value of `Host`.
    pub fn host(&self) -> String {
        match self {
            Target::Socket(_) => "localhost".into(),
            Target::Url { host, port, .. } if host.contains(':') => format!("[{host}]:{port}"),
            Target::Url { host, port, .. } => format!("{host}:{port}"),
        }
    }

    /// The value of `Authorization`.
    pub fn authorization(&self) -> Option<&str> {
        match self {
            Target::Socket(_) => None,
            Target::Url { authorization, .. } => Some(authorization),
        }
    }

    /// Connects.
    ///
    /// # Errors
    /// Why there is no connection, and what to do.
    pub async fn connect(&self) -> Result<Box<dyn Stream>, Failure> {
        match self {
            Target::Socket(paths) => connect_socket(paths).await,
            Target::Url { host, port, tls, .. } => {
                let failed = |error: io::Error| Failure {
                    is_gone: error.kind() == io::ErrorKind::ConnectionRefused,
                    is_broken: matches!(
                        error.kind(),
                        io::ErrorKind::ConnectionReset
                            | io::ErrorKind::BrokenPipe
                            | io::ErrorKind::UnexpectedEof
                    ),
                    ..Failure::new(format!("cannot connect to {}: {error}", self.host()))
                };
                let stream = TcpStream::connect((host.as_str(), *port)).await.map_err(failed)?;
                let Some(tls) = tls else { return Ok(Box::new(stream)) };
                let name = ServerName::try_from(host.clone())
                    .map_err(|_| Failure::new(format!("{host} is not a name that a certificate can have")))?;
                Ok(Box::new(tls.connect(name, stream).await.map_err(failed)?))
            }
        }
    }
}

/// Connects to the first of these sockets that there is.
async fn connect_socket(paths: &[PathBuf]) -> Result<Box<dyn Stream>, Failure> {
    let is_missing =
        |error: &io::Error| matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory);
    let mut refused = None;
    for path in paths {
        match UnixStream::connect(path).await {
            Ok(stream) => return Ok(Box::new(stream)),
            Err(error) if is_missing(&error) => {}
            Err(error) => {
                refused.get_or_insert_with(|| explained(path, &error));
            }
        }
    }
    Err(refused.unwrap_or_else(|| Failure {
        is_gone: true,
        is_missing: true,
        ..Failure::new(format!("there is no control socket at {}; is the relay running?", list(paths)))
    }))
}

fn explained(path: &Path, error: &io::Error) -> Failure {
    let shown = path.display();
    match error.kind() {
        io::ErrorKind::PermissionDenied => Failure::new(format!(
            "permission denied: {shown} is for {}; run this as root, or as a member of that group",
            members(path)
        )),
        io::ErrorKind::ConnectionRefused => Failure {
            is_gone: true,
            ..Failure::new(format!(
                "no relay listens on {shown}: the one that made it has ended; is the relay running?"
            ))
        },
        _ => Failure {
            // The relay has not accepted the connections that wait (unix(7): EAGAIN).
            is_broken: error.kind() == io::ErrorKind::WouldBlock,
            ..Failure::new(format!("cannot connect to the control socket {shown}: {error}"))
        },
    }
}

/// Who may use a socket.
fn members(path: &Path) -> String {
    let Ok(file) = fs::symlink_metadata(path) else { return "the group of the relay".into() };
    let gid = file.gid();
    match Group::from_gid(Gid::from_raw(gid)) {
        Ok(Some(group)) => format!("the group {}", group.name),
        _ => format!("the group {gid}"),
    }
}

fn list(paths: &[PathBuf]) -> String {
    paths.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(" or ")
}

/// `admin.socket` of a configuration. Nothing else of it is read: whoever may use the socket need not be able to read the secrets.
fn socket_of(file: &Path) -> Result<Option<PathBuf>, Failure> {
    let failed = |error: String| Failure::usage(format!("{}: {error}", file.display()));
    let contents = fs::read_to_string(file).map_err(|error| failed(format!("cannot be read: {error}")))?;
    let document = toml_edit::Document::parse(contents.as_str())
        .map_err(|_| failed("not valid TOML; `hairpin check` names the line".into()))?;
    match document.get("admin").and_then(|admin| admin.get("socket")).and_then(|socket| socket.as_str()) {
        None => Ok(None),
        Some("") => Err(Failure::new(format!(
            "{}: admin.socket is \"\", so the relay has no control socket; use --url",
            file.display()
        ))),
        Some(path) => Ok(Some(path.into())),
    }
}

/// The token in the lines of a text: alone, or in a line of the relay's own file, `name:scope:token`.
pub fn token_in(text: &str) -> Option<String> {
    let mut lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    let token = lines.next().map(|line| line.rsplit(':').next().unwrap_or(line))?;
    let is_token = !token.is_empty() && token.bytes().all(|byte| byte.is_ascii_graphic());
    is_token.then(|| token.to_owned())
}

/// TLS whose certificates are verified with those of `ca_file` or else of this machine.
///
/// # Errors
/// There are none.
pub fn connector(ca_file: Option<&Path>) -> Result<TlsConnector, Failure> {
    let roots = match ca_file {
        Some(file) => of_file(file)?,
        None => of_machine(),
    };
    if roots.is_empty() {
        return Err(Failure::new(
            "this machine has no certificates of authorities; name some with --ca-file",
        ));
    }
    with_roots(roots)
}

/// TLS whose certificates are verified with those of this machine, and those of `ca_file` besides.
///
/// # Errors
/// There are none.
pub fn connector_besides(ca_file: Option<&Path>) -> Result<TlsConnector, Failure> {
    let mut roots = of_machine();
    if let Some(file) = ca_file {
        roots.extend(of_file(file)?.roots);
    }
    if roots.is_empty() {
        return Err(Failure::new(
            "this machine has no certificates of authorities; install ca-certificates, or set relay.ca_file",
        ));
    }
    with_roots(roots)
}

fn of_machine() -> RootCertStore {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    roots
}

/// At least one.
fn of_file(file: &Path) -> Result<RootCertStore, Failure> {
    let wrong = || Failure::usage(format!("{} has no certificates in PEM that can be read", file.display()));
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(file).map_err(|_| wrong())? {
        roots.add(certificate.map_err(|_| wrong())?).map_err(|_| wrong())?;
    }
    if roots.is_empty() { Err(wrong()) } else { Ok(roots) }
}

fn with_roots(roots: RootCertStore) -> Result<TlsConnector, Failure> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| Failure::new(error.to_string()))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(TlsConnector::from(Arc::new(config)))
}
