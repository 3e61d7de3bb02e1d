//! TLS connections beside calls: each does a handshake, gets the response to one Binding request, and is closed.
//!
//! An open loop: connections begin at fixed times, whatever happened to earlier ones. The clients have addresses of
//! strangers, and do as little as they can, because they share their CPU with the load generator: they do not verify
//! the server's certificate, and offer one key exchange and one cipher suite, so that all servers use the same.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, SocketAddrV4, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Result, bail};
use clap::Args;
use hairpin::wire::{Class, Encoder, Method, TransactionId};
use rustls::{ClientConfig, ClientConnection, HandshakeKind};
use serde_json::{Value, json};
use socket2::{Domain, Socket, Type};

use crate::clock::Clock;
use crate::flood;
use crate::load::Histogram;
use crate::workload::Handshakes;
use crate::{stream, tls};

/// Arguments of the process that opens the connections.
#[derive(Args)]
pub struct HandshakeArgs {
    /// The relay's address for TLS clients.
    #[arg(long)]
    server: SocketAddrV4,
    #[command(flatten)]
    handshakes: Handshakes,
}

/// Connections at a time. Each thread has its share of the rate, and so 0.3 s per connection at 200 per second.
const THREADS: u64 = 64;
const SOURCES: u64 = 4_000;
/// How long a connection may take.
const TIMEOUT: Duration = Duration::from_secs(2);
/// Attempts to reach a server that is still starting.
const TRIES: u32 = 100;
const PAUSE: Duration = Duration::from_millis(50);

/// Opens connections until standard input ends, and returns what became of them.
pub fn run(args: &HandshakeArgs) -> Result<Value> {
    let tally = Mutex::new(HandshakeTally { duration: Histogram::new(), resumed: 0, failed: 0, skipped: 0 });
    let ended = AtomicBool::new(false);
    await_server(args.server)?;
    let clock = Clock::start();
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let client = Client { args, clock, tally: &tally, ended: &ended };
            scope.spawn(move || client.run(thread));
        }
        let _ = io::stdin().read_to_end(&mut Vec::new());
        ended.store(true, Ordering::Relaxed);
    });
    let seconds = clock.now() as f64 / 1e9;
    let HandshakeTally { duration, resumed, failed, skipped } =
        tally.into_inner().unwrap_or_else(PoisonError::into_inner);
    let total = duration.total();
    Ok(json!({
        "per_second": total as f64 / seconds,
        "resumed": resumed as f64 / total.max(1) as f64,
        "failed": failed,
        "skipped": skipped,
        "delay_us": {
            "p50": duration.quantile(0.5) as f64 / 1e3,
            "p99": duration.quantile(0.99) as f64 / 1e3,
        },
    }))
}

struct HandshakeTally {
    /// From the first packet to the response.
    duration: Histogram,
    resumed: u64,
    failed: u64,
    /// Connections that were not opened because earlier ones took too long.
    skipped: u64,
}

fn await_server(server: SocketAddrV4) -> Result<()> {
    for _ in 0..TRIES {
        if TcpStream::connect(server).is_ok() {
            return Ok(());
        }
        std::thread::sleep(PAUSE);
    }
    bail!("the server refuses connections")
}

/// One of the threads.
struct Client<'a> {
    args: &'a HandshakeArgs,
    clock: Clock,
    tally: &'a Mutex<HandshakeTally>,
    ended: &'a AtomicBool,
}

impl Client<'_> {
    fn run(&self, thread: u64) {
        // Each thread has its own sessions, so that one that resumes always has a ticket.
        let Ok(config) = tls::unverified_config(self.args.handshakes.resumed) else { return };
        let interval = 1_000_000_000 / self.args.handshakes.rate.max(1);
        let mut turn = thread;
        while !self.ended.load(Ordering::Relaxed) {
            let (due, now) = (turn * interval, self.clock.now());
            if due > now {
                std::thread::sleep(Duration::from_nanos(due - now));
                continue;
            }
            turn += THREADS;
            let done = if now - due > THREADS * interval { None } else { Some(self.connect(turn, &config)) };
            let now = self.clock.now();
            let mut tally = self.tally.lock().unwrap_or_else(PoisonError::into_inner);
            match done {
                None => tally.skipped += 1,
                Some(Err(_)) => tally.failed += 1,
                Some(Ok((began, kind))) => {
                    tally.duration.add(now - began, 1);
                    tally.resumed += u64::from(kind == Some(HandshakeKind::Resumed));
                }
            }
        }
    }

    /// Opens a connection and returns when it began, after the response.
    fn connect(&self, turn: u64, config: &Arc<ClientConfig>) -> io::Result<(u64, Option<HandshakeKind>)> {
        let began = self.clock.now();
        let server = self.args.server;
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
        let source = flood::address(*server.ip(), (turn % SOURCES) as usize);
        socket.bind(&SocketAddr::from((source, 0)).into())?;
        socket.connect_timeout(&server.into(), TIMEOUT)?;
        socket.set_tcp_nodelay(true)?;
        let mut socket = TcpStream::from(socket);
        socket.set_read_timeout(Some(TIMEOUT))?;
        let mut tls =
            ClientConnection::new(config.clone(), (*server.ip()).into()).map_err(io::Error::other)?;
        let mut opened = rustls::Stream::new(&mut tls, &mut socket);
        let mut id = TransactionId([0; 12]);
        id.0[..8].copy_from_slice(&turn.to_be_bytes());
        opened.write_all(&Encoder::new(Class::Request, Method::Binding, id).finish())?;
        let (mut response, mut len) = ([0; 2048], 0);
        while stream::message_len(&response[..len])?.is_none() {
            match opened.read(&mut response[len..])? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                count => len += count,
            }
        }
        Ok((began, tls.handshake_kind()))
    }
}
