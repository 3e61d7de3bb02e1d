//! A ClientHello as our reader and rustls read it. No bytes cause a panic; any division into segments gives the same answer, which
//! never changes and comes within the bound; whatever rustls accepts, our reader reads with the same name.

#![no_main]

use hairpin::tls::client_hello::{CLIENT_HELLO_MAX, ClientHello, HelloError, HelloReader, read};
use libfuzzer_sys::fuzz_target;
use rustls::server::Acceptor;

/// What the first byte of the input selects. The lower bits are the number of lengths that follow it.
const LENGTHS: u8 = 0x1F;
/// The bytes are a message that is to be divided into records, not records.
const MESSAGE: u8 = 0x20;

const RECORD_HEADER: [u8; 3] = [22, 3, 1];

fuzz_target!(|input: &[u8]| {
    let Some((&mode, rest)) = input.split_first() else { return };
    let (lengths, bytes) = rest.split_at(rest.len().min(usize::from(mode & LENGTHS)));
    let sent = if mode & MESSAGE == 0 { bytes.to_vec() } else { records(bytes, lengths) };
    let whole = read(&sent);
    if sent.len() >= CLIENT_HELLO_MAX {
        assert_ne!(whole, Ok(None), "it waits for more than the bound");
    }
    assert_eq!(in_pieces(&sent, lengths), whole);
    assert_eq!(in_pieces(&sent, &[0]), whole, "byte by byte");
    if let Ok(Some(hello)) = &whole {
        assert!(hello.server_name.as_ref().is_none_or(|name| {
            !name.ends_with('.') && name.is_ascii() && *name == name.to_ascii_lowercase()
        }));
    }
    if sent.len() <= CLIENT_HELLO_MAX {
        agrees(&sent, &whole);
    }
});

/// Compares with rustls.
fn agrees(sent: &[u8], whole: &Result<Option<ClientHello>, HelloError>) {
    let (mut acceptor, mut rest) = (Acceptor::default(), sent);
    while !rest.is_empty() {
        if acceptor.read_tls(&mut rest).is_err() {
            return;
        }
        match acceptor.accept() {
            Ok(None) => {}
            Ok(Some(accepted)) => {
                let Ok(Some(ours)) = whole else { panic!("rustls accepts what we do not: {whole:?}") };
                let theirs = accepted.client_hello();
                assert!(ours.agrees(&theirs), "{ours:?}, and rustls: {:?}", theirs.server_name());
                return;
            }
            Err(_) => return,
        }
    }
}

/// What a reader says that is told of each piece.
fn in_pieces(sent: &[u8], lengths: &[u8]) -> Result<Option<ClientHello>, HelloError> {
    let mut reader = HelloReader::default();
    let mut arrived = 0;
    for length in lengths_or_one(lengths) {
        if arrived == sent.len() {
            break;
        }
        arrived = sent.len().min(arrived + 1 + 8 * usize::from(length));
        match reader.read(&sent[..arrived]) {
            Ok(None) => {}
            verdict => return verdict,
        }
    }
    Ok(None)
}

/// A message in records of these lengths.
fn records(message: &[u8], lengths: &[u8]) -> Vec<u8> {
    let (mut sent, mut rest) = (Vec::new(), message);
    for length in lengths_or_one(lengths) {
        if rest.is_empty() {
            break;
        }
        let (payload, after) = rest.split_at(rest.len().min(1 + 8 * usize::from(length)));
        sent.extend(RECORD_HEADER);
        sent.extend((payload.len() as u16).to_be_bytes());
        sent.extend(payload);
        rest = after;
    }
    sent
}

fn lengths_or_one(lengths: &[u8]) -> impl Iterator<Item = u8> {
    let lengths = if lengths.is_empty() { &[255][..] } else { lengths };
    lengths.iter().copied().cycle()
}
