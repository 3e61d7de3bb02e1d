//! A download beside calls: a web server on the relay's host that never stops sending, and a client that reads at a
//! fixed rate.
//!
//! Nothing here looks at the bytes. The web server begins to send when it has read something, be it the ClientHello of a
//! connection that the relay does not open, or a request. So a download past the relay and one that is passed through
//! carry the same bytes, and neither end encrypts any.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::net::{SocketAddrV4, TcpListener, TcpStream};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::Args;
use rustls::{ClientConnection, StreamOwned};

use crate::clock::Clock;
use crate::contestant::PASSED_NAME;
use crate::tls::{self, TLS_NAME};
use crate::workload::DownloadPath;

/// Arguments of the web server.
#[derive(Args)]
pub struct WebArgs {
    /// Its address.
    #[arg(long)]
    listen: SocketAddrV4,
}

/// Arguments of the process that downloads.
#[derive(Args)]
pub struct DownloadArgs {
    /// The web server, or the relay's address for TLS clients.
    #[arg(long)]
    server: SocketAddrV4,
    /// How the download reaches the web server.
    #[arg(long)]
    path: DownloadPath,
    /// The relay's certificate.
    #[arg(long)]
    certificate: PathBuf,
    /// Mbit/s; 0: as fast as it goes.
    #[arg(long)]
    rate: u64,
    /// The file that tells the number of bytes so far.
    #[arg(long)]
    progress: PathBuf,
}

const REQUEST: &[u8] = b"GET /video HTTP/1.1\r\nHost: relay.example.org\r\n\r\n";
/// Bytes per call.
const CHUNK: usize = 128 << 10;
/// Bytes after which the number so far is written.
const STEP: u64 = 1 << 20;
const TICK: Duration = Duration::from_micros(250);
/// Attempts to reach a server that is still starting.
const TRIES: u32 = 100;
const PAUSE: Duration = Duration::from_millis(50);

/// Serves until it is killed.
pub fn serve(args: &WebArgs) -> io::Result<()> {
    for socket in TcpListener::bind(args.listen)?.incoming() {
        let mut socket = socket?;
        std::thread::spawn(move || -> io::Result<()> {
            if socket.read(&mut [0; 4096])? == 0 {
                return Ok(());
            }
            let page = vec![0; CHUNK];
            loop {
                socket.write_all(&page)?;
            }
        });
    }
    Ok(())
}

/// Downloads until it is killed.
pub fn run(args: &DownloadArgs) -> Result<()> {
    let progress = File::create(&args.progress)?;
    let mut connection = open(args)?;
    let mut chunk = vec![0; CHUNK];
    let (clock, mut bytes) = (Clock::start(), 0);
    loop {
        let due = match args.rate {
            0 => u64::MAX,
            rate => (u128::from(clock.now()) * u128::from(rate) / 8_000) as u64,
        };
        let due = due.min(bytes + STEP);
        while bytes < due {
            match connection.read(&mut chunk)? {
                0 => bail!("the download has ended"),
                count => bytes += count as u64,
            }
        }
        progress.write_all_at(&bytes.to_ne_bytes(), 0)?;
        if args.rate != 0 {
            std::thread::sleep(TICK);
        }
    }
}

/// How many bytes a download has so far.
pub fn progress(file: &Path) -> u64 {
    let bytes = fs::read(file).unwrap_or_default();
    bytes.first_chunk().map_or(0, |bytes| u64::from_ne_bytes(*bytes))
}

/// Connects and sends what makes the web server send.
fn open(args: &DownloadArgs) -> Result<Box<dyn Read>> {
    let mut socket = connect(args.server)?;
    let name = if args.path == DownloadPath::Terminated { TLS_NAME } else { PASSED_NAME };
    let mut tls = ClientConnection::new(tls::client_config(&args.certificate)?, name.try_into()?)?;
    if args.path == DownloadPath::Terminated {
        let mut tls = StreamOwned::new(tls, socket);
        tls.write_all(REQUEST)?;
        return Ok(Box::new(tls));
    }
    // The ClientHello; what follows it is never TLS.
    while tls.wants_write() {
        tls.write_tls(&mut socket)?;
    }
    Ok(Box::new(socket))
}

fn connect(server: SocketAddrV4) -> Result<TcpStream> {
    let mut last = None;
    for _ in 0..TRIES {
        match TcpStream::connect(server) {
            Ok(socket) => return Ok(socket),
            Err(error) => last = Some(error),
        }
        std::thread::sleep(PAUSE);
    }
    Err(last.unwrap_or_else(|| io::ErrorKind::TimedOut.into())).context("connecting to the server")
}
