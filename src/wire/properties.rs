//! Property tests of the codec: no input makes it panic, and what it encodes it decodes to the same values.

use std::net::SocketAddr;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

use super::{
    CHANNEL_HEADER, ChannelHeader, ChannelRange, Class, DATA_INDICATION_HEADER_MAX, Encoder, Malformed,
    Message, Method, TransactionId, attribute, data_indication_header, padding,
};

/// Every allowed combination of class and method.
fn message_types() -> impl Strategy<Value = (Class, Method)> {
    use Class::*;
    use Method::*;
    let methods = [Binding, Allocate, Refresh, CreatePermission, ChannelBind];
    let pairs = methods.iter().flat_map(|&method| [Request, Success, Error].map(|class| (class, method)));
    let indications = [Binding, Send, Data].map(|method| (Indication, method));
    select(pairs.chain(indications).collect::<Vec<_>>())
}

/// Attributes of any type but integrity and FINGERPRINT.
fn attributes() -> impl Strategy<Value = Vec<(u16, Vec<u8>)>> {
    let ends = [attribute::MESSAGE_INTEGRITY, attribute::MESSAGE_INTEGRITY_SHA256, attribute::FINGERPRINT];
    let kind = any::<u16>()
        .prop_filter("integrity and FINGERPRINT are added last", move |kind| !ends.contains(kind));
    vec((kind, vec(any::<u8>(), 0..40)), 0..12)
}

/// Almost valid messages, which reach more code than random bytes do.
fn almost_valid_messages() -> impl Strategy<Value = Vec<u8>> {
    let kind = prop_oneof![select(vec![0x06, 0x08, 0x09, 0x12, 0x1C, 0x8028, 0x8002, 0x8000]), any::<u16>()];
    let len = prop_oneof![9 => Just(None), 1 => any::<u16>().prop_map(Some)];
    let attribute = (kind, len, vec(any::<u8>(), 0..40)).prop_map(|(kind, len, value)| {
        let len = len.unwrap_or(value.len() as u16);
        [&kind.to_be_bytes()[..], &len.to_be_bytes(), &value, &[0; 3][..padding(value.len())]].concat()
    });
    let id = any::<[u8; 12]>().prop_map(TransactionId);
    (message_types(), id, vec(attribute, 0..6), any::<bool>()).prop_map(
        |((class, method), id, attributes, classic)| {
            let mut bytes = Encoder::new(class, method, id).finish();
            bytes.extend(attributes.concat());
            let len = bytes.len() as u16 - 20;
            bytes[2..4].copy_from_slice(&len.to_be_bytes());
            bytes[4] ^= u8::from(classic);
            bytes
        },
    )
}

fn addresses() -> impl Strategy<Value = SocketAddr> {
    any::<SocketAddr>().prop_map(|addr| SocketAddr::new(addr.ip(), addr.port()))
}

/// Decodes `bytes` in every way and returns the length of the attributes.
fn decode_everything(bytes: &[u8]) -> Result<usize, Malformed> {
    let _ = (ChannelRange::Rfc5766.is_channel_data(bytes), ChannelHeader::parse(bytes));
    let message = Message::parse(bytes)?;
    let _ = (message.verify_sha1(b"key"), message.verify_sha256(b"key"));
    let mut seen = 0;
    for attribute in message.attributes() {
        seen += 4 + attribute.value.len() + padding(attribute.value.len());
        let _ = (attribute.xor_address(), attribute.u32(), attribute.utf8());
        let _ = (attribute.channel_number(), attribute.family(), attribute.reserve_next_port());
        let _ = (attribute.protocol(), attribute.error_code());
        let first = message.attribute(attribute.kind).expect("the iterator yielded one");
        assert!(first.value.as_ptr() <= attribute.value.as_ptr());
    }
    Ok(seen)
}

proptest! {
    /// RFC 8489 §6.3: arbitrary bytes do not make the decoder panic.
    #[test]
    fn arbitrary_bytes_do_not_panic(bytes in vec(any::<u8>(), 0..200)) {
        let _ = decode_everything(&bytes);
    }

    /// RFC 8489 §14: malformed attributes do not make the decoder panic, and valid ones lie inside the message.
    #[test]
    fn malformed_messages_do_not_panic(bytes in almost_valid_messages()) {
        if let Ok(seen) = decode_everything(&bytes) {
            prop_assert!(seen <= bytes.len() - 20);
        }
    }

    /// RFC 8489 §5, §14: messages round-trip with any combination of integrity and FINGERPRINT.
    #[test]
    fn messages_round_trip(
        (class, method) in message_types(),
        id in any::<[u8; 12]>(),
        attributes in attributes(),
        key in vec(any::<u8>(), 0..100),
        (sha1, sha256, fingerprint) in any::<(bool, bool, bool)>(),
    ) {
        let mut message = Encoder::new(class, method, TransactionId(id));
        attributes.iter().for_each(|(kind, value)| message.bytes(*kind, value));
        if sha1 {
            message.integrity_sha1(&key);
        }
        if sha256 {
            message.integrity_sha256(&key);
        }
        if fingerprint {
            message.fingerprint();
        }
        let bytes = message.finish();
        let message = Message::parse(&bytes).unwrap();
        prop_assert_eq!((message.class(), message.method()), (class, method));
        prop_assert_eq!(message.transaction_id(), TransactionId(id));
        prop_assert_eq!((message.has_integrity_sha1(), message.verify_sha1(&key)), (sha1, sha1));
        prop_assert_eq!((message.has_integrity_sha256(), message.verify_sha256(&key)), (sha256, sha256));
        prop_assert_eq!(message.has_fingerprint(), fingerprint);
        let read: Vec<(u16, Vec<u8>)> = message.attributes().map(|a| (a.kind, a.value.to_vec())).collect();
        prop_assert_eq!(read, attributes);
    }

    /// RFC 8489 §14.2, RFC 8656 §18.3: any address round-trips with any transaction ID.
    #[test]
    fn addresses_round_trip(id in any::<[u8; 12]>(), addr in addresses()) {
        let mut message = Encoder::new(Class::Success, Method::Binding, TransactionId(id));
        message.xor_address(attribute::XOR_MAPPED_ADDRESS, addr);
        let bytes = message.finish();
        let message = Message::parse(&bytes).unwrap();
        prop_assert_eq!(message.attribute(attribute::XOR_MAPPED_ADDRESS).unwrap().xor_address(), Ok(addr));
    }

    /// RFC 8656 §11.3: a Data indication written in place carries peer and payload.
    #[test]
    fn data_indications_round_trip(
        id in any::<[u8; 12]>(),
        peer in addresses(),
        payload in vec(any::<u8>(), 0..1500),
    ) {
        let mut bytes = vec![0; DATA_INDICATION_HEADER_MAX];
        let len = data_indication_header(&mut bytes, TransactionId(id), peer, payload.len()).unwrap();
        bytes.truncate(len);
        bytes.extend_from_slice(&payload);
        bytes.resize(bytes.len() + padding(payload.len()), 0);
        let message = Message::parse(&bytes).unwrap();
        prop_assert_eq!((message.class(), message.method()), (Class::Indication, Method::Data));
        prop_assert_eq!(message.attribute(attribute::XOR_PEER_ADDRESS).unwrap().xor_address(), Ok(peer));
        prop_assert_eq!(message.attribute(attribute::DATA).unwrap().value, payload);
    }

    /// RFC 8656 §12.4: a ChannelData header round-trips and is not a STUN message.
    #[test]
    fn channel_headers_round_trip(number in ChannelRange::Rfc5766.numbers(), len in any::<u16>()) {
        let mut bytes = [0; CHANNEL_HEADER];
        ChannelHeader { number, len }.write(&mut bytes);
        prop_assert!(ChannelRange::Rfc5766.is_channel_data(&bytes));
        prop_assert_eq!(ChannelHeader::parse(&bytes), Some(ChannelHeader { number, len }));
        prop_assert_eq!(Message::parse(&[bytes; 5].concat()).unwrap_err(), Malformed::NotStun);
    }
}
