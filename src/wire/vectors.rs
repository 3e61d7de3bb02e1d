//! The published test vectors: RFC 5769, and RFC 8489 Appendix B.1 as corrected by erratum 6268.

use md5::Md5;
use sha2::{Digest, Sha256};

use super::{Class, Encoder, Malformed, Message, Method, TransactionId, attribute};

const ICE_PASSWORD: &[u8] = b"VOkJxbRl1RmTxUk/WvJxBt";
const USER: &str = "\u{30DE}\u{30C8}\u{30EA}\u{30C3}\u{30AF}\u{30B9}";
const REALM: &str = "example.org";
const PASSWORD: &str = "TheMatrIX";

fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.chars().filter_map(|c| c.to_digit(16)).map(|digit| digit as u8).collect();
    digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect()
}

fn request() -> Vec<u8> {
    hex("00010058 2112a442 b7e7a701bc34d686fa87dfae
         80220010 5354554e207465737420636c69656e74
         00240004 6e0001ff
         80290008 932ff9b151263b36
         00060009 6576746a3a68367659202020
         00080014 9aeaa70cbfd8cb56781ef2b5b2d3f249c1b571a2
         80280004 e57a3bcf")
}

/// RFC 5769 §2.1: a sample request.
#[test]
fn rfc5769_request() {
    let bytes = request();
    let message = Message::parse(&bytes).unwrap();
    assert_eq!((message.class(), message.method()), (Class::Request, Method::Binding));
    assert_eq!(format!("{:?}", message.transaction_id()), "b7e7a701bc34d686fa87dfae");
    assert!(message.has_fingerprint() && !message.is_classic());
    assert!(message.verify_sha1(ICE_PASSWORD));
    assert!(!message.has_integrity_sha256() && !message.verify_sha256(ICE_PASSWORD));
    let kinds: Vec<u16> = message.attributes().map(|attribute| attribute.kind).collect();
    assert_eq!(kinds, [attribute::SOFTWARE, 0x0024, 0x8029, attribute::USERNAME]);
    assert_eq!(message.attribute(attribute::SOFTWARE).unwrap().utf8(), Ok("STUN test client"));
    assert_eq!(message.attribute(attribute::USERNAME).unwrap().utf8(), Ok("evtj:h6vY"));
    assert_eq!(message.attribute(0x0024).unwrap().u32(), Ok(0x6e0001ff));
}

/// RFC 5769 §2.2: a sample IPv4 response.
#[test]
fn rfc5769_ipv4_response() {
    let bytes = hex("0101003c 2112a442 b7e7a701bc34d686fa87dfae
         8022000b 7465737420766563746f7220
         00200008 0001a147e112a643
         00080014 2b91f599fd9e90c38c7489f92af9ba53f06be7d7
         80280004 c07d4c96");
    check_response(&bytes, "192.0.2.1:32853");
}

/// RFC 5769 §2.3: a sample IPv6 response.
#[test]
fn rfc5769_ipv6_response() {
    let bytes = hex("01010048 2112a442 b7e7a701bc34d686fa87dfae
         8022000b 7465737420766563746f7220
         00200014 0002a147 0113a9faa5d3f179bc25f4b5bed2b9d9
         00080014 a382954e4be67bf11784c97c8292c275bfe3ed41
         80280004 c8fb0b4c");
    check_response(&bytes, "[2001:db8:1234:5678:11:2233:4455:6677]:32853");
}

fn check_response(bytes: &[u8], mapped: &str) {
    let message = Message::parse(bytes).unwrap();
    assert_eq!((message.class(), message.method()), (Class::Success, Method::Binding));
    assert!(message.has_fingerprint() && message.verify_sha1(ICE_PASSWORD));
    assert_eq!(message.attribute(attribute::SOFTWARE).unwrap().utf8(), Ok("test vector"));
    let address = message.attribute(attribute::XOR_MAPPED_ADDRESS).unwrap().xor_address();
    assert_eq!(address, Ok(mapped.parse().unwrap()));

    // The encoder reproduces the vector except for the padding, which the vector fills with spaces.
    let mut again = Encoder::new(message.class(), message.method(), message.transaction_id());
    again.text(attribute::SOFTWARE, "test vector");
    again.xor_address(attribute::XOR_MAPPED_ADDRESS, mapped.parse().unwrap());
    let again = again.finish();
    let end = again.len();
    assert_eq!(again[4..35], bytes[4..35]);
    assert_eq!(again[36..], bytes[36..end]);
}

/// RFC 5769 §2.4: a sample request with long-term authentication.
#[test]
fn rfc5769_long_term_request() {
    let bytes = hex("00010060 2112a442 78ad3433c6ad72c029da412e
         00060012 e3839ee38388e383aae38383e382afe382b90000
         0015001c 662f2f3439396b3935346436 4f4c33346f4c3946 5354767936347341
         0014000b 6578616d706c652e6f726700
         00080014 f67024656dd64a3e02b8e0712e85c9a28ca89666");
    let key = Md5::digest(format!("{USER}:{REALM}:{PASSWORD}"));
    let message = Message::parse(&bytes).unwrap();
    assert!(message.verify_sha1(&key) && !message.has_fingerprint());
    assert_eq!(message.attribute(attribute::USERNAME).unwrap().utf8(), Ok(USER));
    assert_eq!(message.attribute(attribute::NONCE).unwrap().utf8(), Ok("f//499k954d6OL34oL9FSTvy64sA"));
    assert_eq!(message.attribute(attribute::REALM).unwrap().utf8(), Ok(REALM));

    let mut again = Encoder::new(Class::Request, Method::Binding, message.transaction_id());
    again.text(attribute::USERNAME, USER);
    again.text(attribute::NONCE, "f//499k954d6OL34oL9FSTvy64sA");
    again.text(attribute::REALM, REALM);
    again.integrity_sha1(&key);
    assert_eq!(again.finish(), bytes);
}

/// RFC 8489 §14.6, Appendix B.1 with erratum 6268: USERHASH and MESSAGE-INTEGRITY-SHA256.
#[test]
fn rfc8489_userhash_request() {
    let bytes = hex("00010090 2112a442 78ad3433c6ad72c029da412e
         001e0020 4a3cf38fef6992bda952c67804 17da0f24819415569e60b205c46e41407f1704
         00150029 6f624d61744a6f73324141414366 2f2f3439396b3935346436 4f4c33346f4c3946535476793634734100 0000
         0014000b 6578616d706c652e6f726700
         001d0004 00020000
         001c0020 b5c7bf005b6c52a21c51c5e892f81924136296cb927c43149309278cc6518e65");
    let nonce = "obMatJos2AAACf//499k954d6OL34oL9FSTvy64sA";
    let key = Sha256::digest(format!("{USER}:{REALM}:{PASSWORD}"));
    let userhash: [u8; 32] = Sha256::digest(format!("{USER}:{REALM}")).into();
    let message = Message::parse(&bytes).unwrap();
    assert!(message.verify_sha256(&key) && !message.verify_sha256(ICE_PASSWORD));
    assert!(!message.has_integrity_sha1());
    assert_eq!(message.attribute(attribute::USERHASH).unwrap().array(), Ok(userhash));
    assert_eq!(message.attribute(attribute::NONCE).unwrap().utf8(), Ok(nonce));
    assert_eq!(message.attribute(attribute::PASSWORD_ALGORITHM).unwrap().value, [0, 2, 0, 0]);

    let mut again = Encoder::new(Class::Request, Method::Binding, message.transaction_id());
    again.bytes(attribute::USERHASH, &userhash);
    again.text(attribute::NONCE, nonce);
    again.text(attribute::REALM, REALM);
    again.bytes(attribute::PASSWORD_ALGORITHM, &[0, 2, 0, 0]);
    again.integrity_sha256(&key);
    assert_eq!(again.finish(), bytes);
}

/// RFC 8489 §14.5, §14.7: FINGERPRINT and MESSAGE-INTEGRITY detect a flipped bit.
#[test]
fn a_modified_vector_does_not_verify() {
    let mut bytes = request();
    bytes[30] ^= 1;
    assert_eq!(Message::parse(&bytes).unwrap_err(), Malformed::Fingerprint);
    bytes.truncate(bytes.len() - 8);
    bytes[3] -= 8;
    assert!(!Message::parse(&bytes).unwrap().verify_sha1(ICE_PASSWORD));
    assert_eq!(
        Message::parse(&bytes).unwrap().transaction_id(),
        TransactionId(*b"\xb7\xe7\xa7\x01\xbc\x34\xd6\x86\xfa\x87\xdf\xae")
    );
}
