//! Connections without sockets, in virtual time.

use std::collections::VecDeque;
use std::sync::Arc;

use nix::time::{ClockId, clock_gettime};
use rustls::{ClientConfig, ClientConnection, RootCertStore, ServerConfig};

use super::super::reassembly::{Reassembly, next};
use super::*;
use crate::turn::{ClientAddr, Header, Transport, Via};
use crate::wire::ChannelRange;

/// A socket in memory: what the client has sent, and what it has room to receive.
#[derive(Default)]
struct Pipe {
    sent_by_client: VecDeque<Vec<u8>>,
    closed_by_client: bool,
    received_by_client: Vec<u8>,
    room: usize,
}

impl Read for Pipe {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let Some(segment) = self.sent_by_client.front_mut() else {
            return if self.closed_by_client { Ok(0) } else { Err(io::ErrorKind::WouldBlock.into()) };
        };
        let len = segment.len().min(buffer.len());
        buffer[..len].copy_from_slice(&segment[..len]);
        segment.drain(..len);
        if segment.is_empty() {
            self.sent_by_client.pop_front();
        }
        Ok(len)
    }
}

impl Write for Pipe {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let len = bytes.len().min(self.room);
        if len == 0 {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        self.room -= len;
        self.received_by_client.extend_from_slice(&bytes[..len]);
        Ok(len)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn tuple(transport: Transport) -> FiveTuple {
    FiveTuple {
        client: ClientAddr("192.0.2.1:4000".parse().unwrap()),
        server: "192.0.2.9:3478".parse().unwrap(),
        transport,
        via: Via::Direct,
    }
}

fn plain(received: &[u8]) -> Connection<Pipe> {
    Connection::new(0, Pipe::default(), None, tuple(Transport::Tcp), received.to_vec())
}

/// A connection and its client, past the handshake.
fn tls() -> (Connection<Pipe>, ClientConnection) {
    let made = rcgen::generate_simple_self_signed(["relay.example.org".to_owned()]).unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(made.cert.der().clone()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let key = rustls::pki_types::PrivatePkcs8KeyDer::from(made.signing_key.serialize_der()).into();
    let server = ServerConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .unwrap();
    let client = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let mut server = ServerConnection::new(Arc::new(server)).unwrap();
    let mut client =
        ClientConnection::new(Arc::new(client), "relay.example.org".try_into().unwrap()).unwrap();
    while client.is_handshaking() || server.is_handshaking() || client.wants_write() {
        let mut bytes = Vec::new();
        while client.wants_write() {
            client.write_tls(&mut bytes).unwrap();
        }
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            server.read_tls(&mut rest).unwrap();
            server.process_new_packets().unwrap();
        }
        let mut bytes = Vec::new();
        while server.wants_write() {
            server.write_tls(&mut bytes).unwrap();
        }
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            client.read_tls(&mut rest).unwrap();
            client.process_new_packets().unwrap();
        }
    }
    let connection =
        Connection::new(0, Pipe::default(), Some(Box::new(server)), tuple(Transport::Tls), Vec::new());
    (connection, client)
}

/// Encrypts each piece as a record of its own.
fn records(client: &mut ClientConnection, pieces: impl IntoIterator<Item = Vec<u8>>) -> Vec<u8> {
    let mut bytes = Vec::new();
    for piece in pieces {
        client.writer().write_all(&piece).unwrap();
        while client.wants_write() {
            client.write_tls(&mut bytes).unwrap();
        }
    }
    bytes
}

/// Reads until nothing more is there; returns the messages, and whether the client has closed its side.
fn messages(connection: &mut Connection<Pipe>) -> (Vec<Vec<u8>>, bool) {
    let (mut pool, mut ciphertext) = (Pool::default(), vec![0; 1 << 16]);
    let (mut messages, mut again) = (Vec::new(), false);
    loop {
        let mut buffer = vec![0; 1 << 17];
        let buffered = connection.reassembly.buffered();
        let end = (buffered + connection.state.read_size).min(buffer.len());
        let outcome = connection.read(&mut buffer[buffered..end], &mut ciphertext, again).unwrap();
        let end = connection.reassembly.complete(&mut buffer, outcome.len, &mut pool);
        let mut at = 0;
        while let Some(run) = next(&buffer[at..end], ChannelRange::Rfc8656, true).unwrap() {
            messages.extend(buffer[at..at + run.len].chunks(run.segment_size).map(<[u8]>::to_vec));
            at += run.len;
        }
        if outcome.len > 0 {
            connection.reassembly.buffer_rest(&buffer[at..end], &mut pool);
        }
        again = outcome.more;
        let socket = &connection.socket;
        let quiet = socket.sent_by_client.is_empty() && !socket.closed_by_client;
        if outcome.ended || !again && outcome.drained && quiet {
            return (messages, outcome.ended);
        }
    }
}

fn channel_data(len: u8) -> Vec<u8> {
    let mut message = vec![0x40, 1, 0, len];
    message.resize(4 + usize::from(len).next_multiple_of(4), len);
    message
}

/// RFC 8489 §6.2.2: what the stages have read is the start of the stream.
#[test]
fn bytes_of_the_stages_come_before_those_of_the_socket() {
    let stream = [channel_data(8), channel_data(12), channel_data(16)].concat();
    for at in 1..stream.len() {
        let mut connection = plain(&stream[..at]);
        connection.socket.sent_by_client.push_back(stream[at..].to_vec());
        connection.socket.closed_by_client = true;
        let expected = vec![channel_data(8), channel_data(12), channel_data(16)];
        assert_eq!(messages(&mut connection), (expected, true), "split at {at}");
    }
}

#[test]
fn tls_records_of_any_size_bring_the_same_messages() {
    let stream = (1..=60).flat_map(channel_data).collect::<Vec<u8>>();
    for size in [1, 7, 100, stream.len()] {
        let (mut connection, mut client) = tls();
        let bytes = records(&mut client, stream.chunks(size).map(<[u8]>::to_vec));
        connection.socket.sent_by_client.extend(bytes.chunks(1000).map(<[u8]>::to_vec));
        let (got, ended) = messages(&mut connection);
        assert_eq!((got.concat(), ended), (stream.clone(), false), "records of {size} bytes");
        client.send_close_notify();
        let mut bytes = Vec::new();
        client.write_tls(&mut bytes).unwrap();
        connection.socket.sent_by_client.push_back(bytes);
        assert!(messages(&mut connection).1, "close_notify ends the stream");
    }
}

/// Records of one byte cost a multiple of their bytes, but no more per record the more there are.
#[test]
fn the_cost_of_one_byte_records_is_linear() {
    let cost = |count: usize| {
        let (mut connection, mut client) = tls();
        let stream = channel_data(96).into_iter().cycle().take(count);
        let bytes = records(&mut client, stream.map(|byte| vec![byte]));
        connection.socket.sent_by_client.extend(bytes.chunks(4096).map(<[u8]>::to_vec));
        let before = clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).unwrap();
        let (got, ended) = messages(&mut connection);
        let after = clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).unwrap();
        assert_eq!((got.len(), ended), (count / 100, false));
        (after.tv_sec() - before.tv_sec()) as f64 + (after.tv_nsec() - before.tv_nsec()) as f64 / 1e9
    };
    let least = |count| (0..3).map(|_| cost(count)).fold(f64::INFINITY, f64::min);
    // Four times as many; if each cost as much as there are, it would be sixteen times as much.
    let (few, many) = (least(5_000), least(20_000));
    assert!(many < 9.0 * few, "{few} s for 5,000 records, {many} s for 20,000");
}

#[test]
fn bytes_that_are_no_record_end_a_tls_connection() {
    let (mut connection, _client) = tls();
    connection.socket.sent_by_client.push_back(b"GET / HTTP/1.1\r\n\r\n".to_vec());
    let outcome = connection.read(&mut [0; 1 << 16], &mut [0; 1 << 16], false);
    assert_eq!(outcome, Err(ConnectionEnd::Tls));
}

/// A client that reads slowly gets whole messages in order, however little it reads at a time.
#[test]
fn writes_continue_where_the_socket_stopped() {
    for (mut connection, client) in [(plain(&[]), None), {
        let (c, t) = tls();
        (c, Some(t))
    }] {
        let mut pool = Pool::default();
        for n in 0..50 {
            assert!(connection.outgoing.push_data(
                1 << 16,
                &Header::Channel(0x4001),
                n,
                &[n as u8; 96],
                &mut pool
            ));
        }
        while !connection.write(false, &mut pool).unwrap() {
            connection.socket.room = 37;
        }
        assert!(!connection.wants_write());
        let received = std::mem::take(&mut connection.socket.received_by_client);
        let plaintext = match client {
            None => received,
            Some(mut client) => {
                let (mut rest, mut plaintext) = (&received[..], Vec::new());
                while !rest.is_empty() {
                    client.read_tls(&mut rest).unwrap();
                    client.process_new_packets().unwrap();
                    let mut buffer = vec![0; 1 << 15];
                    while let Ok(len @ 1..) = client.reader().read(&mut buffer) {
                        plaintext.extend_from_slice(&buffer[..len]);
                    }
                }
                plaintext
            }
        };
        assert_eq!(plaintext.len(), 50 * 100);
        assert!(plaintext.chunks(100).enumerate().all(|(n, message)| message[4..] == [n as u8; 96]));
    }
}

/// The buffered part of an unfinished message is shorter than a message.
#[test]
fn an_unfinished_message_waits_for_its_rest() {
    let message = channel_data(200);
    let mut connection = plain(&message[..50]);
    assert_eq!(messages(&mut connection).0, Vec::<Vec<u8>>::new());
    assert_eq!(connection.reassembly.buffered(), 50);
    connection.socket.sent_by_client.push_back(message[50..].to_vec());
    assert_eq!(messages(&mut connection).0, vec![message]);
    assert_eq!(connection.reassembly.buffered(), Reassembly::default().buffered());
}

/// No event reports what rustls has decrypted together with the bytes that the stages took.
#[test]
fn decrypted_bytes_behind_those_of_the_stages_are_read_at_once() {
    let (mut connection, mut client) = tls();
    let bytes = records(&mut client, [channel_data(8)]);
    let tls = connection.tls.as_mut().unwrap();
    tls.read_tls(&mut &bytes[..]).unwrap();
    tls.process_new_packets().unwrap();
    connection.received = channel_data(12);
    let (mut buffer, mut ciphertext) = ([0; 1 << 16], [0; 1 << 16]);
    let first = connection.read(&mut buffer, &mut ciphertext, false).unwrap();
    assert!(first.len == channel_data(12).len() && first.more);
    let second = connection.read(&mut buffer, &mut ciphertext, true).unwrap();
    assert_eq!((&buffer[..second.len], second.more), (&channel_data(8)[..], false));
}
