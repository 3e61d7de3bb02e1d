//! Feeds arbitrary bytes to `wire`: nothing panics, decoded messages survive encoding and decoding again, and no input is
//! both a STUN message and ChannelData.

#![no_main]

use std::net::SocketAddr;

use hairpin::wire::{
    Attribute, CHANNEL_HEADER, ChannelHeader, ChannelRange, Class, DATA_INDICATION_HEADER_MAX, Encoder,
    Family, Message, TransactionId, attribute, data_indication_header, data_indication_header_len, padding,
};
use libfuzzer_sys::{fuzz_mutator, fuzz_target, fuzzer_mutate};

fuzz_target!(|bytes: &[u8]| {
    let channel = channel_data(bytes);
    if let Ok(message) = Message::parse(bytes) {
        assert!(!channel);
        stun(bytes, &message);
    }
});

// Most mutations break the length field, which hides the code behind that check, so three of four are repaired.
fuzz_mutator!(|data: &mut [u8], size: usize, max_size: usize, seed: u32| {
    let size = fuzzer_mutate(data, size, max_size);
    if seed % 4 != 0 {
        repair(&mut data[..size]);
    }
    size
});

/// Sets the length field, and the value of a FINGERPRINT at the end.
fn repair(data: &mut [u8]) {
    let Some(len) = data.len().checked_sub(20) else { return };
    let Ok(len) = u16::try_from(len) else { return };
    data[2..4].copy_from_slice(&len.to_be_bytes());
    if let Some((before, [0x80, 0x28, 0x00, 0x04, value @ ..])) = data.split_last_chunk_mut::<8>() {
        value.copy_from_slice(&(crc32fast::hash(before) ^ 0x5354_554E).to_be_bytes());
    }
}

fn is_channel_data(bytes: &[u8]) -> bool {
    ChannelRange::Rfc5766.is_channel_data(bytes)
}

fn channel_data(bytes: &[u8]) -> bool {
    let Some(header) = ChannelHeader::parse(bytes) else {
        assert!(!is_channel_data(bytes) || bytes.len() < CHANNEL_HEADER || bytes.starts_with(&[0x7F, 0xFF]));
        return false;
    };
    assert!(is_channel_data(bytes));
    let mut again = [0; CHANNEL_HEADER];
    header.write(&mut again);
    assert_eq!(again, bytes[..CHANNEL_HEADER]);
    true
}

fn stun(bytes: &[u8], message: &Message<'_>) {
    let id = message.transaction_id();
    assert!(!message.verify_sha1(b"a key") || message.has_integrity_sha1());
    assert!(!message.verify_sha256(b"a key") || message.has_integrity_sha256());

    let mut again = Encoder::new(message.class(), message.method(), id);
    for attribute in message.attributes() {
        encode_again(&attribute, &mut again);
        let first = message.attribute(attribute.kind).expect("the iterator yielded one");
        assert!(first.value.as_ptr() <= attribute.value.as_ptr());
    }
    again.integrity_sha1(b"a key");
    again.integrity_sha256(b"another key");
    again.fingerprint();
    let again = again.finish();
    let again = Message::parse(&again).expect("encoded messages are valid");
    assert_eq!((again.class(), again.method()), (message.class(), message.method()));
    assert_eq!(again.transaction_id(), id);
    assert!(again.verify_sha1(b"a key") && again.verify_sha256(b"another key") && again.has_fingerprint());
    assert_eq!(again.attributes().count(), message.attributes().count());
    for (again, attribute) in again.attributes().zip(message.attributes()) {
        assert_eq!(again.kind, attribute.kind);
        assert_same_value(&again, &attribute);
    }

    if message.class() == Class::Request {
        let response = Encoder::error_response(message, 400, "Bad Request").finish();
        assert_eq!(response[4..20], bytes[4..20]);
        assert_eq!(Message::parse(&response).is_ok(), !message.is_classic());
    }
    for attribute in message.attributes() {
        if let Ok(peer) = attribute.xor_address() {
            data_indication(id, peer, attribute.value);
        }
    }
}

/// Encodes an attribute from its decoded value if it has one, otherwise from its bytes.
fn encode_again(attribute: &Attribute<'_>, out: &mut Encoder) {
    let kind = attribute.kind;
    match kind {
        attribute::XOR_MAPPED_ADDRESS | attribute::XOR_PEER_ADDRESS | attribute::XOR_RELAYED_ADDRESS => {
            match attribute.xor_address() {
                Ok(addr) => out.xor_address(kind, addr),
                Err(_) => out.bytes(kind, attribute.value),
            }
        }
        _ => match (attribute.u32(), attribute.utf8()) {
            (Ok(number), _) => out.u32(kind, number),
            (_, Ok(text)) => out.text(kind, text),
            _ => out.bytes(kind, attribute.value),
        },
    }
}

/// Both decode to the same values. The first byte of an address is ignored, and encoded as 0.
fn assert_same_value(again: &Attribute<'_>, attribute: &Attribute<'_>) {
    assert_eq!(again.xor_address(), attribute.xor_address());
    if again.value != attribute.value {
        assert!(attribute.xor_address().is_ok() && again.value[0] == 0);
        assert_eq!(again.value[1..], attribute.value[1..]);
        return;
    }
    assert_eq!(again.u32(), attribute.u32());
    assert_eq!(again.utf8(), attribute.utf8());
    assert_eq!(again.array::<8>(), attribute.array::<8>());
    assert_eq!(again.channel_number(), attribute.channel_number());
    assert_eq!(again.family(), attribute.family());
    assert_eq!(again.protocol(), attribute.protocol());
    assert_eq!(again.reserve_next_port(), attribute.reserve_next_port());
    assert_eq!(again.error_code(), attribute.error_code());
}

fn data_indication(id: TransactionId, peer: SocketAddr, payload: &[u8]) {
    let mut bytes = vec![0; DATA_INDICATION_HEADER_MAX];
    let len = data_indication_header(&mut bytes, id, peer, payload.len()).expect("the payload is short");
    assert_eq!(len, data_indication_header_len(Family::of(peer.ip())));
    bytes.truncate(len);
    bytes.extend_from_slice(payload);
    bytes.resize(bytes.len() + padding(payload.len()), 0);
    let message = Message::parse(&bytes).expect("the indication is valid");
    let read = message.attribute(attribute::XOR_PEER_ADDRESS).expect("it has a peer");
    assert_eq!(read.xor_address(), Ok(peer));
    assert_eq!(message.attribute(attribute::DATA).expect("it has data").value, payload);
}
