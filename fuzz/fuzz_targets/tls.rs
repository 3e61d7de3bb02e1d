//! The TLS path of a connection, from the ClientHello to complete messages. An arbitrary client never causes a panic and
//! never gets a message through. A real client's messages arrive whatever the sizes of its records and segments; if a
//! byte of its ciphertext is changed, no other messages arrive. Buffers are bounded.

#![no_main]

use std::cell::RefCell;
use std::io::{self, Read, Write};
use std::mem;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::rc::Rc;
use std::sync::{Arc, LazyLock};

use hairpin::datapath::stream::{Connection, Pool, Reassembly, next};
use hairpin::tls::{Identity, Sessions};
use hairpin::turn::{ClientAddr, FiveTuple, Transport, Via};
use hairpin::wire::{self, FRAME_MAX};
use libfuzzer_sys::fuzz_target;
use rcgen::{CertifiedKey, generate_simple_self_signed};
use rustls::crypto::aws_lc_rs;
use rustls::server::Acceptor;
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, ClientConnection, RootCertStore, ServerConfig, ServerConnection};

const NAME: &str = "turn.example.org";

const TUPLE: FiveTuple = FiveTuple {
    client: ClientAddr(SocketAddr::new(IpAddr::V4(Ipv4Addr::new(198, 51, 100, 1)), 40_000)),
    server: SocketAddr::new(IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)), 5349),
    transport: Transport::Tls,
    via: Via::Direct,
};

/// The least that a worker reads at a time, and the size of its buffer for ciphertext.
const READ_SIZE: usize = 4 << 10;
const CIPHERTEXT: usize = 1 << 16;

/// Far more reads than any input of this fuzz target needs.
const READS: usize = 100_000;

/// The most that a server may hold for a client before the client reads: certificate, tickets, alerts.
const OUTGOING_MAX: usize = 16 << 10;

/// What the first byte of the input selects. The lower bits are the number of piece lengths that follow it.
const LENGTHS: u8 = 0x1F;
const REAL_CLIENT: u8 = 0x20;
const OLD_VERSION: u8 = 0x40;
const CORRUPT: u8 = 0x80;

/// The configurations of the server, and of clients with TLS 1.3 and 1.2.
static CONFIGS: LazyLock<(Arc<ServerConfig>, [Arc<ClientConfig>; 2])> = LazyLock::new(|| {
    let CertifiedKey { cert, signing_key } =
        generate_simple_self_signed([NAME.to_owned()]).expect("a certificate");
    let identity = Identity::from_pem(cert.pem().as_bytes(), signing_key.serialize_pem().as_bytes());
    let mut roots = RootCertStore::empty();
    roots.add(cert.der().clone()).expect("a root certificate");
    let client = |version| {
        let builder = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_protocol_versions(&[version])
            .expect("supported versions");
        Arc::new(builder.with_root_certificates(roots.clone()).with_no_client_auth())
    };
    let sessions = Sessions::new().expect("random keys");
    let server = identity.expect("a usable certificate").server_config(&[], &sessions);
    (Arc::new(server), [client(&TLS13), client(&TLS12)])
});

fuzz_target!(|input: &[u8]| {
    let Some((&mode, rest)) = input.split_first() else { return };
    let (lengths, bytes) = rest.split_at(rest.len().min(usize::from(mode & LENGTHS)));
    if mode & REAL_CLIENT == 0 { arbitrary_client(bytes, lengths) } else { real_client(mode, bytes, lengths) }
});

/// All bytes on the connection are arbitrary.
fn arbitrary_client(bytes: &[u8], lengths: &[u8]) {
    let mut server = Server::new(READ_SIZE);
    for piece in pieces(bytes, lengths) {
        if server.receive(piece).is_err() {
            break;
        }
    }
    assert!(server.messages.is_empty());
}

/// The bytes are what a client sends after its handshake.
fn real_client(mode: u8, bytes: &[u8], lengths: &[u8]) {
    let config = CONFIGS.1[usize::from(mode & OLD_VERSION != 0)].clone();
    let name = NAME.try_into().expect("a host name");
    let mut client = ClientConnection::new(config, name).expect("a client");
    let mut server = Server::new(READ_SIZE << (lengths.len() % 4));
    while client.is_handshaking() {
        for piece in pieces(&sent(&mut client), lengths) {
            server.receive(piece).expect("a valid handshake");
        }
        let answered = mem::take(&mut server.pipe.0.borrow_mut().outgoing);
        let mut answered = &answered[..];
        while !answered.is_empty() {
            client.read_tls(&mut answered).expect("a slice can be read");
            client.process_new_packets().expect("a valid handshake");
        }
    }
    let (corruption, bytes) = bytes.split_at(if mode & CORRUPT == 0 { 0 } else { bytes.len().min(3) });
    let mut ciphertext = Vec::new();
    for piece in pieces(bytes, lengths) {
        client.writer().write_all(piece).expect("the buffer is empty");
        ciphertext.append(&mut sent(&mut client));
    }
    client.send_close_notify();
    ciphertext.append(&mut sent(&mut client));
    if let [high, low, mask] = corruption {
        let at = usize::from(u16::from_be_bytes([*high, *low])) % ciphertext.len();
        ciphertext[at] ^= mask;
    }
    let (expected, is_lost) = messages(bytes);
    let end = pieces(&ciphertext, lengths).find_map(|piece| server.receive(piece).err());
    if mode & CORRUPT == 0 {
        assert_eq!(server.messages, expected);
        assert_eq!(end, Some(if is_lost { End::Framing } else { End::Closed }));
    } else {
        assert!(expected.starts_with(&server.messages));
    }
}

/// What a client has to send.
fn sent(client: &mut ClientConnection) -> Vec<u8> {
    let mut sent = Vec::new();
    while client.wants_write() {
        client.write_tls(&mut sent).expect("a vector takes it");
    }
    sent
}

/// How a connection ends.
#[derive(Debug, PartialEq, Eq)]
enum End {
    /// With a close_notify.
    Closed,
    Tls,
    Framing,
}

/// The server's side of a connection.
struct Server {
    stage: Stage,
    pipe: Pipe,
    reassembly: Reassembly,
    pool: Pool,
    buffer: Vec<u8>,
    ciphertext: Vec<u8>,
    /// The most that is decrypted at a time.
    read_size: usize,
    /// The messages that have arrived.
    messages: Vec<Vec<u8>>,
}

/// As in the stages of a connection before it is TURN.
enum Stage {
    Hello(Acceptor),
    Handshake(Box<ServerConnection>),
    Open(Connection<Pipe>),
}

impl Server {
    fn new(read_size: usize) -> Server {
        Server {
            stage: Stage::Hello(Acceptor::default()),
            pipe: Pipe::default(),
            reassembly: Reassembly::default(),
            pool: Pool::default(),
            buffer: vec![0xEE; FRAME_MAX + read_size],
            ciphertext: vec![0xEE; CIPHERTEXT],
            read_size,
            messages: Vec::new(),
        }
    }

    /// Takes bytes from the client.
    fn receive(&mut self, bytes: &[u8]) -> Result<(), End> {
        self.pipe.0.borrow_mut().incoming.extend(bytes);
        let result = loop {
            match self.step() {
                Ok(true) => {}
                Ok(false) => break Ok(()),
                Err(end) => break Err(end),
            }
        };
        assert!(self.pipe.0.borrow().outgoing.len() <= OUTGOING_MAX);
        result
    }

    /// Does what the current stage can do; false if it needs more bytes.
    fn step(&mut self) -> Result<bool, End> {
        let mut pipe = self.pipe.clone();
        match &mut self.stage {
            Stage::Hello(acceptor) => {
                if !has_more(acceptor.read_tls(&mut pipe))? {
                    return Ok(false);
                }
                if let Some(accepted) = acceptor.accept().map_err(|_| End::Tls)? {
                    let tls = accepted.into_connection(CONFIGS.0.clone()).map_err(|_| End::Tls)?;
                    self.stage = Stage::Handshake(Box::new(tls));
                }
            }
            Stage::Handshake(tls) => {
                // The ClientHello may have brought bytes behind it.
                let processed = tls.process_new_packets();
                while tls.wants_write() {
                    tls.write_tls(&mut pipe).map_err(|_| End::Tls)?;
                }
                processed.map_err(|_| End::Tls)?;
                if tls.is_handshaking() {
                    return has_more(tls.read_tls(&mut pipe));
                }
                let Stage::Handshake(tls) = mem::replace(&mut self.stage, Stage::Hello(Acceptor::default()))
                else {
                    unreachable!()
                };
                self.stage = Stage::Open(Connection::new(0, pipe, Some(tls), TUPLE, Vec::new()));
            }
            Stage::Open(_) => {
                self.read()?;
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Reads all there is, as a worker does.
    fn read(&mut self) -> Result<(), End> {
        let Stage::Open(connection) = &mut self.stage else { return Ok(()) };
        let mut again = false;
        for _ in 0..READS {
            let buffered = self.reassembly.buffered();
            assert!(buffered < FRAME_MAX);
            let room = &mut self.buffer[buffered..buffered + self.read_size];
            let outcome = connection.read(room, &mut self.ciphertext, again).map_err(|_| End::Tls)?;
            let end = self.reassembly.complete(&mut self.buffer, outcome.len, &mut self.pool);
            let mut at = 0;
            while let Some(run) =
                next(&self.buffer[at..end], wire::ChannelRange::Rfc8656, true).map_err(|_| End::Framing)?
            {
                for message in self.buffer[at..at + run.len].chunks(run.segment_size) {
                    self.messages.push(message.to_vec());
                }
                at += run.len;
            }
            self.reassembly.buffer_rest(&self.buffer[at..end], &mut self.pool);
            if connection.wants_write() {
                connection.write(false, &mut self.pool).map_err(|_| End::Tls)?;
            }
            if outcome.ended && !outcome.more {
                return Err(End::Closed);
            }
            again = outcome.more;
            if !again && outcome.drained {
                return Ok(());
            }
        }
        panic!("the connection reports more bytes than there can be");
    }
}

/// Whether a read of TLS records brought bytes.
fn has_more(read: io::Result<usize>) -> Result<bool, End> {
    match read {
        Ok(count) => Ok(count > 0),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(false),
        Err(_) => Err(End::Tls),
    }
}

/// A socket that does not block: what the client has sent, and what it has not read yet.
#[derive(Clone, Default)]
struct Pipe(Rc<RefCell<PipeBuffers>>);

#[derive(Default)]
struct PipeBuffers {
    incoming: Vec<u8>,
    outgoing: Vec<u8>,
}

impl Read for Pipe {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let incoming = &mut self.0.borrow_mut().incoming;
        if incoming.is_empty() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let len = incoming.len().min(buffer.len());
        buffer[..len].copy_from_slice(&incoming[..len]);
        incoming.drain(..len);
        Ok(len)
    }
}

impl Write for Pipe {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.borrow_mut().outgoing.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The messages of a stream, and whether framing is lost behind them.
fn messages(stream: &[u8]) -> (Vec<Vec<u8>>, bool) {
    let (mut found, mut rest) = (Vec::new(), stream);
    loop {
        match wire::frame_len(rest, wire::ChannelRange::Rfc8656) {
            Ok(Some(len)) if len <= rest.len() => {
                let (message, after) = rest.split_at(len);
                found.push(message.to_vec());
                rest = after;
            }
            Ok(_) => return (found, false),
            Err(_) => return (found, true),
        }
    }
}

/// Cuts bytes into pieces of these lengths, each times 16 plus one, used cyclically.
fn pieces<'a>(mut bytes: &'a [u8], lengths: &'a [u8]) -> impl Iterator<Item = &'a [u8]> {
    let lengths = if lengths.is_empty() { &[255][..] } else { lengths };
    lengths.iter().cycle().map_while(move |length| {
        let (piece, rest) = bytes.split_at(bytes.len().min(1 + 16 * usize::from(*length)));
        bytes = rest;
        (!piece.is_empty()).then_some(piece)
    })
}
