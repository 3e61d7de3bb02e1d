//! Clients over TCP and TLS of the real program: its listeners, its certificate, its limits and their metrics.

use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::process::Stdio;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hairpin::wire::{Class, Encoder, Message, Method, TransactionId, attribute};
use rcgen::{CertificateParams, KeyPair};
use rustls::pki_types::CertificateDer;
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

use crate::place::{Place, hairpin, text};

/// RFC 8489 §6.2.2, §6.2.3
#[test]
fn clients_connect_over_tcp_and_tls() {
    let place = Place::new("");
    let certificate = certify(&place);
    let running = place.start(Stdio::null());

    let mut tcp = connect(place.tcp);
    let mut tls = tls(place.tls, &certificate);
    assert_eq!(binding(&mut tcp), tcp.local_addr().unwrap());
    assert_eq!(binding(&mut tls), tls.sock.local_addr().unwrap());
    place.wait_for("hairpin_connections{transport=\"tcp\"} 1");
    place.wait_for("hairpin_connections{transport=\"tls\"} 1");

    drop(tls);
    place.wait_for("hairpin_connections_closed_total{transport=\"tls\",reason=\"client\"} 1");
    assert_eq!(running.stop("TERM"), Some(0));
    assert_eq!(tcp.read(&mut [0; 9]).unwrap(), 0, "connections are closed when the relay stops");
}

#[test]
fn connections_are_limited() {
    let limits = "[limits]\nconnections_per_source = 2\nconnections = 8\nidle_timeout = 3\nfirst_message_timeout = 2\n\
                  unfinished_message_timeout = 1\nhandshake_timeout = 1\n";
    let place = Place::new(limits);
    certify(&place);
    let _running = place.start(Stdio::null());

    let mut silent = [(); 2].map(|()| connect(place.tcp));
    place.wait_for("hairpin_connections{transport=\"tcp\"} 2");
    assert_closed(&mut connect(place.tcp));
    place
        .wait_for("hairpin_connections_refused_total{transport=\"tcp\",reason=\"connections_per_source\"} 1");
    silent.iter_mut().for_each(assert_closed);
    place.wait_for("hairpin_connections_closed_total{transport=\"tcp\",reason=\"no_message\"} 2");

    let mut half = connect(place.tcp);
    binding(&mut half);
    half.write_all(&[0x00, 0x01, 0x00]).unwrap();
    assert_closed(&mut half);
    place.wait_for("hairpin_connections_closed_total{transport=\"tcp\",reason=\"unfinished_message\"} 1");

    let mut half = connect(place.tls);
    half.write_all(&[0x16, 3, 1]).unwrap();
    assert_closed(&mut half);
    place.wait_for("hairpin_tls_handshakes_failed_total{reason=\"too_slow\"} 1");

    let mut idle = [(); 2].map(|()| {
        let mut stream = connect(place.tcp);
        binding(&mut stream);
        stream
    });
    assert_closed(&mut connect(place.tcp));
    place
        .wait_for("hairpin_connections_refused_total{transport=\"tcp\",reason=\"connections_per_source\"} 2");
    idle.iter_mut().for_each(assert_closed);
    place.wait_for("hairpin_connections_closed_total{transport=\"tcp\",reason=\"idle\"} 2");
    place.wait_for("hairpin_limit{name=\"connections_per_source\"} 2");
}

#[test]
fn check_reports_a_wrong_private_key() {
    let place = Place::new("");
    certify(&place);
    let output = hairpin(&["check", place.config()]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");

    let other = KeyPair::generate().unwrap().serialize_pem();
    fs::write(place.folder.path().join("key.pem"), other).unwrap();
    let output = hairpin(&["check", place.config()]);
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    let said = text(&output.stdout);
    assert!(
        said.contains("tls.key = \"key.pem\": the private key does not belong to the first certificate"),
        "{said}"
    );
    assert!(said.ends_with("; use the private key that the certificate was made for\n"), "{said}");
}

/// Adds a certificate and a TLS listener to a configuration.
pub fn certify(place: &Place) -> CertificateDer<'static> {
    let key = KeyPair::generate().unwrap();
    let certificate =
        CertificateParams::new(["relay.example.org".to_owned()]).unwrap().self_signed(&key).unwrap();
    fs::write(place.folder.path().join("cert.pem"), certificate.pem()).unwrap();
    fs::write(place.folder.path().join("key.pem"), key.serialize_pem()).unwrap();
    let text = fs::read_to_string(place.file()).unwrap();
    let listen = format!("[listen]\ntls = \"127.0.0.1:{}\"\n", place.tls);
    let tls = "[tls]\ncert = \"cert.pem\"\nkey = \"key.pem\"\n";
    fs::write(place.file(), text.replace("[listen]\n", &listen) + tls).unwrap();
    certificate.der().clone()
}

pub fn connect(port: u16) -> TcpStream {
    let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    stream
}

/// A TLS connection that verifies the certificate.
fn tls(port: u16, certificate: &CertificateDer<'static>) -> StreamOwned<ClientConnection, TcpStream> {
    let mut roots = RootCertStore::empty();
    roots.add(certificate.clone()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let config = config.with_root_certificates(roots).with_no_client_auth();
    let name = "relay.example.org".try_into().unwrap();
    StreamOwned::new(ClientConnection::new(Arc::new(config), name).unwrap(), connect(port))
}

/// Sends a Binding request and returns the mapped address.
pub fn binding(stream: &mut (impl Read + Write)) -> SocketAddr {
    let request = Encoder::new(Class::Request, Method::Binding, TransactionId([7; 12])).finish();
    stream.write_all(&request).unwrap();
    let mut response = vec![0; 20];
    stream.read_exact(&mut response).unwrap();
    response.resize(20 + usize::from(u16::from_be_bytes([response[2], response[3]])), 0);
    stream.read_exact(&mut response[20..]).unwrap();
    let response = Message::parse(&response).unwrap();
    response.attribute(attribute::XOR_MAPPED_ADDRESS).unwrap().xor_address().unwrap()
}

fn assert_closed(stream: &mut TcpStream) {
    match stream.read(&mut [0; 64]) {
        Ok(0) => {}
        Ok(len) => panic!("received {len} bytes"),
        Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset),
    }
}

impl Place {
    /// Waits until the metrics have this line.
    fn wait_for(&self, line: &str) {
        let deadline = Instant::now() + Duration::from_secs(10);
        loop {
            let metrics = self.get("/metrics");
            if metrics.lines().any(|found| found == line) {
                return;
            }
            assert!(Instant::now() < deadline, "{line} is not in\n{metrics}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}
