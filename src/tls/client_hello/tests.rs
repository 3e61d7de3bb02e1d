//! ClientHellos of real clients, made ones, and every way to cut them. That rustls reads the same is a fuzz target, too.

use proptest::prelude::*;
use rustls::server::Acceptor;

use super::*;

/// What real clients have sent. They are seeds of the fuzz target, behind a byte for its mode.
macro_rules! captured {
    ($name:literal) => {
        (include_bytes!(concat!("../../../fuzz/corpus/client_hello/", $name)).split_first().unwrap().1, $name)
    };
}

const CAPTURED: [(&[u8], &str); 8] = [
    captured!("openssl-tls13"),
    captured!("openssl-tls12-alpn"),
    captured!("openssl-tls10"),
    captured!("openssl-no-name"),
    captured!("curl"),
    captured!("chromium"),
    captured!("chromium-turn"),
    captured!("firefox"),
];

fn vector<const N: usize>(content: &[u8]) -> Vec<u8> {
    [&content.len().to_be_bytes()[8 - N..], content].concat()
}

fn extension(kind: u16, data: &[u8]) -> Vec<u8> {
    [&kind.to_be_bytes()[..], &vector::<2>(data)].concat()
}

/// A server_name extension with these entries.
fn names(entries: &[(u8, &[u8])]) -> Vec<u8> {
    let list: Vec<u8> =
        entries.iter().flat_map(|(kind, name)| [&[*kind][..], &vector::<2>(name)].concat()).collect();
    extension(SERVER_NAME, &vector::<2>(&list))
}

fn named(name: &str) -> Vec<u8> {
    names(&[(HOST_NAME, name.as_bytes())])
}

/// What rustls does not do without.
fn signatures() -> Vec<u8> {
    extension(13, &vector::<2>(&[8, 4]))
}

/// A ClientHello without its record, that ends before its extensions if there is no list of them.
fn message(extensions: Option<&[Vec<u8>]>) -> Vec<u8> {
    let body = [
        &[3, 3][..],
        &[7; 32],
        &vector::<1>(&[9; 32]),
        &vector::<2>(&[0x13, 0x01, 0xC0, 0x2F]),
        &vector::<1>(&[0]),
        &extensions.map(|list| vector::<2>(&list.concat())).unwrap_or_default(),
    ]
    .concat();
    [&[CLIENT_HELLO][..], &vector::<3>(&body)].concat()
}

fn record(payload: &[u8]) -> Vec<u8> {
    [&[HANDSHAKE_RECORD, 3, 1][..], &vector::<2>(payload)].concat()
}

/// A message in records with payloads of these lengths, used cyclically.
fn records(message: &[u8], lengths: &[usize]) -> Vec<u8> {
    let (mut sent, mut rest) = (Vec::new(), message);
    for len in lengths.iter().cycle() {
        if rest.is_empty() {
            break;
        }
        let (payload, after) = rest.split_at(rest.len().min(*len));
        sent.extend(record(payload));
        rest = after;
    }
    sent
}

fn with(extensions: &[Vec<u8>]) -> Result<ClientHello, HelloError> {
    let all = [extensions, &[signatures()]].concat();
    read(&record(&message(Some(&all)))).map(|hello| hello.expect("a whole ClientHello"))
}

/// The name that rustls reads, if any.
fn rustls_reads(bytes: &[u8]) -> Option<Option<String>> {
    let (mut acceptor, mut rest) = (Acceptor::default(), bytes);
    let accepted = loop {
        acceptor.read_tls(&mut rest).ok()?;
        match acceptor.accept() {
            Ok(Some(accepted)) => break accepted,
            Ok(None) if !rest.is_empty() => {}
            _ => return None,
        }
    };
    let hello = accepted.client_hello();
    let ours = read(bytes).unwrap().unwrap();
    assert!(ours.agrees(&hello));
    Some(hello.server_name().map(canonical))
}

#[test]
fn what_clients_send() {
    for (bytes, client) in CAPTURED {
        let hello = read(bytes).unwrap().unwrap();
        let name = match client {
            "openssl-no-name" | "openssl-tls10" => None,
            "openssl-tls13" | "openssl-tls12-alpn" | "chromium-turn" => Some("turn.example.org"),
            _ => Some("www.example.org"),
        };
        assert_eq!(hello.server_name.as_deref(), name, "{client}");
        // It says what versions rustls does not speak only once it has a configuration, but wants signature schemes at once.
        if client != "openssl-tls10" {
            assert_eq!(rustls_reads(bytes).unwrap(), hello.server_name);
        }
    }
}

/// RFC 5246 §7.4.1.2: a ClientHello may end before its extensions.
#[test]
fn older_clients_have_no_extensions() {
    let nothing = ClientHello { server_name: None, version: 0x0303 };
    assert_eq!(read(&record(&message(None))), Ok(Some(nothing.clone())));
    assert_eq!(read(&record(&message(Some(&[])))), Ok(Some(nothing)));
}

/// RFC 6066 §3: names are compared without regard to case; a trailing dot is not allowed, but sent. An address is no name.
#[test]
fn names_are_canonical() {
    for (sent, expected) in [
        ("turn.example.org", Some("turn.example.org")),
        ("TURN.Example.ORG.", Some("turn.example.org")),
        ("xn--bcher-kva.example", Some("xn--bcher-kva.example")),
        ("under_score.example", Some("under_score.example")),
        ("localhost", Some("localhost")),
        ("192.0.2.7", None),
        ("2001:db8::7", None),
    ] {
        let hello = with(&[named(sent)]).unwrap();
        assert_eq!(hello.server_name.as_deref(), expected, "{sent}");
    }
    assert_eq!(with(&[]).unwrap().server_name, None);
}

/// RFC 6066 §3, RFC 8446 §4.2: one host name in one extension. rustls refuses the same.
#[test]
fn what_is_no_name_is_refused() {
    let long = "a.".repeat(127) + "a";
    let texts =
        ["a..b", "-a.example", "a b", "a/b", "[2001:db8::7]", "1.2.3", "b\u{fc}cher.example", "a\0b", &long];
    let other = [(1, &b"a.example"[..])];
    let two = [(HOST_NAME, &b"a.example"[..]), (HOST_NAME, b"b.example")];
    let lists = [vec![named("a.example"), named("a.example")], vec![names(&other)], vec![names(&two)]];
    for extensions in texts.iter().map(|text| vec![named(text)]).chain(lists) {
        assert_eq!(with(&extensions), Err(HelloError::ServerName), "{extensions:?}");
        let all = [extensions, vec![signatures()]].concat();
        let mut acceptor = Acceptor::default();
        acceptor.read_tls(&mut &record(&message(Some(&all)))[..]).unwrap();
        assert!(acceptor.accept().is_err());
    }
    let empty = [(HOST_NAME, &b""[..])];
    assert_eq!(with(&[names(&empty)]), Err(HelloError::ServerName));
    assert_eq!(with(&[extension(SERVER_NAME, b"")]), Err(HelloError::Malformed));
    assert_eq!(HelloError::ServerName.alert(), [21, 3, 3, 0, 2, 2, 47]);
}

/// RFC 6066 §3: what follows a name of another type cannot be read.
#[test]
fn a_name_before_one_of_another_type() {
    let entries = [(HOST_NAME, &b"a.example"[..]), (9, b"\xFF")];
    assert_eq!(with(&[names(&entries)]).unwrap().server_name.as_deref(), Some("a.example"));
}

/// Application protocols (RFC 7301) are for the server that completes the handshake to read: that they are malformed is its to say.
#[test]
fn application_protocols_are_not_looked_at() {
    for offered in [&[0, 3, 2, b'h', b'2'][..], &[0, 1, 0], &[0, 0], &[0, 3, 9, b'h', b'2'], b""] {
        let hello = with(&[extension(16, offered), named("a.example")]).unwrap();
        assert_eq!(hello.server_name.as_deref(), Some("a.example"), "{offered:?}");
    }
}

/// RFC 8446 §4.2.1, RFC 5246 appendix E.1: clients whose best version is too old are told that, and only they. A backend may still
/// speak it, so the name is read.
#[test]
fn versions_that_are_too_old() {
    let versions = |list: &[u16]| {
        let list: Vec<u8> = list.iter().flat_map(|version| version.to_be_bytes()).collect();
        extension(SUPPORTED_VERSIONS, &vector::<1>(&list))
    };
    for (list, expected) in [
        (&[0x0304, 0x0303][..], Ok(())),
        (&[0x0304], Ok(())),
        (&[0x5A5A, 0x0303, 0x0302], Ok(())),
        (&[0x0302, 0x0301], Err(HelloRefusal::OldVersion(0x0302))),
        (&[0x5A5A, 0x7F1C, 0x0301], Err(HelloRefusal::OldVersion(0x0301))),
    ] {
        let hello = with(&[versions(list), named("a.example")]).unwrap();
        assert_eq!(hello.check_version(), expected, "{list:?}");
        assert_eq!(hello.server_name.as_deref(), Some("a.example"));
    }
    for (bytes, client) in CAPTURED {
        let verdict = read(bytes).unwrap().unwrap().check_version();
        let is_old = client == "openssl-tls10";
        assert_eq!(verdict.err(), is_old.then_some(HelloRefusal::OldVersion(0x0301)), "{client}");
    }
    let refusal = HelloRefusal::OldVersion(0x0302);
    assert_eq!(refusal.alert(), [21, 3, 3, 0, 2, 2, 70]);
    for (version, offer) in
        [(0x0302, "TLS 1.1 at most"), (0x0300, "SSL 3.0 at most"), (0x0002, "no version"), (0, "no version")]
    {
        let refusal = HelloRefusal::OldVersion(version).to_string();
        assert!(refusal.contains(offer), "{refusal}");
    }
    assert_eq!(with(&[extension(SUPPORTED_VERSIONS, &[3, 3, 4, 3])]), Err(HelloError::Malformed));
}

/// With Encrypted ClientHello the outer name routes; the inner one is encrypted, and other extensions are not looked at.
#[test]
fn the_outer_name_routes() {
    let hidden = extension(0xFE0D, b"\0\0\x01\0\x03anything that is not read");
    let hello = with(&[hidden, named("public.example")]).unwrap();
    assert_eq!(hello.server_name.as_deref(), Some("public.example"));
}

/// What can never become a ClientHello is an error with the byte that shows it.
#[test]
fn errors_are_found_early() {
    let first =
        |bytes: &[u8]| (0..=bytes.len()).find_map(|len| read(&bytes[..len]).err().map(|error| (len, error)));
    let hello = record(&message(Some(&[named("a.example")])));
    let changed = |at: usize, byte| {
        let mut bytes = hello.clone();
        bytes[at] = byte;
        bytes
    };
    assert_eq!(first(&hello), None);
    for (bytes, len, error) in [
        (b"GET / HTTP/1.1\r\n".to_vec(), 1, HelloError::NotHandshake),
        (b"\x15\x03\x03\x00\x02\x02\x28".to_vec(), 1, HelloError::NotHandshake),
        (b"\x16\x02\x00".to_vec(), 2, HelloError::NotHandshake),
        (b"\x16\x03\x01\x00\x00".to_vec(), 5, HelloError::EmptyRecord),
        (b"\x16\x03\x01\x00\x10\x02".to_vec(), 6, HelloError::NotClientHello),
        (b"\x16\x03\x01\x40\x00\x01".to_vec(), 5, HelloError::TooLarge),
        // The same whether or not the bytes behind it are there.
        (b"\x16\x03\x01\x40\x00\x02".to_vec(), 5, HelloError::TooLarge),
        (b"\x16\x03\x01\x00\x10\x01\x01\x00\x00".to_vec(), 9, HelloError::TooLarge),
        ([&records(&message(None), &[3])[..8], b"\x17"].concat(), 9, HelloError::NotHandshake),
        (changed(hello.len() - 1, 0xFF), hello.len(), HelloError::ServerName),
        (changed(8, hello[8] - 1), hello.len(), HelloError::Malformed),
    ] {
        assert_eq!(first(&bytes), Some((len, error)), "{bytes:?}");
        assert_eq!(read(&bytes), Err(error), "{bytes:?}");
    }
}

/// A client can neither make the relay wait for more than the bound nor keep more than that.
#[test]
fn the_bound() {
    let padded = |padding: usize| record(&message(Some(&[extension(21, &vec![0; padding])])));
    let overhead = padded(0).len();
    let longest = padded(CLIENT_HELLO_MAX - overhead);
    assert_eq!(longest.len(), CLIENT_HELLO_MAX);
    assert!(read(&longest).unwrap().is_some());
    assert_eq!(read(&padded(CLIENT_HELLO_MAX - overhead + 1)[..9]), Err(HelloError::TooLarge));
    // Its records count, not only the message in them.
    let small = message(Some(&[extension(21, &[0; 3000])]));
    let mut reader = HelloReader::default();
    let sent = records(&small, &[1]);
    assert!(small.len() < CLIENT_HELLO_MAX && sent.len() > CLIENT_HELLO_MAX);
    let error = (0..=CLIENT_HELLO_MAX).find_map(|len| reader.read(&sent[..len]).err());
    assert_eq!(error, Some(HelloError::TooLarge));
    assert_eq!(read(&sent[..CLIENT_HELLO_MAX]), Err(HelloError::TooLarge));
}

/// Each record is looked at once, however many reads its bytes arrive in: a client that sends byte by byte costs no more than one
/// that sends all at once. Counted by the records that are left to look at, not by time.
#[test]
fn records_are_looked_at_once() {
    let sent = records(&message(Some(&[extension(21, &[0; 2000])])), &[1]);
    let mut reader = HelloReader::default();
    for len in 0..sent.len() {
        assert_eq!(reader.read(&sent[..len]), Ok(None));
        assert!(len - reader.at < RECORD_HEADER + 1);
    }
    assert!(reader.read(&sent).unwrap().is_some());
}

proptest! {
    /// RFC 8446 §5.1: any division into records and segments reads the same.
    #[test]
    fn any_division_reads_the_same(
        client in 0..CAPTURED.len(),
        lengths in prop::collection::vec(1usize..600, 1..20),
        pieces in prop::collection::vec(1usize..900, 1..20),
    ) {
        let (bytes, _) = CAPTURED[client];
        let expected = read(bytes).unwrap().unwrap();
        let sent = records(&bytes[RECORD_HEADER..], &lengths);
        prop_assume!(sent.len() <= CLIENT_HELLO_MAX);
        let mut reader = HelloReader::default();
        let (mut arrived, mut sizes) = (0, pieces.iter().cycle());
        while arrived < sent.len() {
            prop_assert_eq!(reader.read(&sent[..arrived]), Ok(None));
            arrived = sent.len().min(arrived + sizes.next().unwrap());
        }
        prop_assert_eq!(reader.read(&sent), Ok(Some(expected.clone())));
        // What follows it does not matter.
        let more = [&sent[..], b"\x14\x03\x03\x00\x01\x01\x17"].concat();
        prop_assert_eq!(read(&more), Ok(Some(expected)));
    }

    /// Arbitrary bytes, and ClientHellos with damage, never cause a panic, and rustls reads no other name in them.
    #[test]
    fn rustls_reads_the_same(
        client in 0..CAPTURED.len(),
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
        lengths in prop::collection::vec(1usize..600, 1..4),
        arbitrary in prop::collection::vec(any::<u8>(), 0..100),
    ) {
        let _ = read(&arbitrary);
        let mut bytes = CAPTURED[client].0[RECORD_HEADER..].to_vec();
        for (at, byte) in damage {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        let sent = records(&bytes, &lengths);
        prop_assume!(sent.len() <= CLIENT_HELLO_MAX);
        let ours = read(&sent);
        if let Some(name) = rustls_reads(&sent) {
            prop_assert_eq!(ours.unwrap().unwrap().server_name, name);
        }
    }

    /// A ClientHello that is cut off is never taken for a whole one.
    #[test]
    fn a_part_is_no_whole(client in 0..CAPTURED.len(), cut: prop::sample::Index) {
        let (bytes, _) = CAPTURED[client];
        prop_assert_eq!(read(&bytes[..cut.index(bytes.len())]), Ok(None));
    }
}
