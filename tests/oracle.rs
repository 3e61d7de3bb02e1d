//! Compares the codec with an independent one: stun-rs decodes what hairpin encodes to the same values and vice versa, for
//! the attributes that both support.
//!
//! Deliberately not here: the feature bits of the nonce cookie, which stun-rs implements as misprinted in RFC 8489 §18.1
//! (erratum 6290), and ICMP, whose type and code have 7 and 9 bits in the figure of RFC 8656 §18.13.

#![allow(clippy::unwrap_used, reason = "the whole file is a test")]

use std::net::SocketAddr;

use hairpin::wire::{self, Class, Encoder, Family, Message, Method, TransactionId, attribute as kind};
use proptest::collection::{btree_set, vec};
use proptest::prelude::*;
use proptest::sample::select;
use stun_rs::attributes::{stun, turn};
use stun_rs::{
    AddressFamily, DecoderContextBuilder, HMACKey, MessageClass, MessageDecoderBuilder,
    MessageEncoderBuilder, MessageMethod, StunAttribute, StunMessage, StunMessageBuilder, methods,
};

/// An attribute, independent of either codec. Responses have some that the server never decodes.
#[derive(Clone, Debug, PartialEq)]
enum AttributeValue {
    MappedAddress(SocketAddr),
    XorMappedAddress(SocketAddr),
    XorPeerAddress(SocketAddr),
    XorRelayedAddress(SocketAddr),
    Username(String),
    Realm(String),
    Nonce(String),
    Software(String),
    Userhash([u8; 32]),
    ErrorCode(u16, String),
    AddressErrorCode(Family, u16, String),
    UnknownAttributes(Vec<u16>),
    ChannelNumber(u16),
    Lifetime(u32),
    Data(Vec<u8>),
    RequestedAddressFamily(Family),
    AdditionalAddressFamily(Family),
    EvenPort(bool),
    RequestedTransport(u8),
    DontFragment,
    ReservationToken([u8; 8]),
}

use AttributeValue::*;

impl AttributeValue {
    /// Encodes it with hairpin.
    fn encode(&self, out: &mut Encoder) {
        match self {
            MappedAddress(addr) => out.mapped_address(*addr),
            XorMappedAddress(addr) => out.xor_address(kind::XOR_MAPPED_ADDRESS, *addr),
            XorPeerAddress(addr) => out.xor_address(kind::XOR_PEER_ADDRESS, *addr),
            XorRelayedAddress(addr) => out.xor_address(kind::XOR_RELAYED_ADDRESS, *addr),
            Username(text) => out.text(kind::USERNAME, text),
            Realm(text) => out.text(kind::REALM, text),
            Nonce(text) => out.text(kind::NONCE, text),
            Software(text) => out.text(kind::SOFTWARE, text),
            Userhash(hash) => out.bytes(kind::USERHASH, hash),
            ErrorCode(..) => unreachable!("Encoder::error_response adds it"),
            AddressErrorCode(family, code, reason) => out.address_error_code(*family, *code, reason),
            UnknownAttributes(kinds) => out.unknown_attributes(kinds),
            ChannelNumber(number) => out.u32(kind::CHANNEL_NUMBER, u32::from(*number) << 16),
            Lifetime(seconds) => out.u32(kind::LIFETIME, *seconds),
            Data(data) => out.bytes(kind::DATA, data),
            RequestedAddressFamily(family) => {
                out.u32(kind::REQUESTED_ADDRESS_FAMILY, family_number(*family) << 24);
            }
            AdditionalAddressFamily(family) => {
                out.u32(kind::ADDITIONAL_ADDRESS_FAMILY, family_number(*family) << 24);
            }
            EvenPort(reserve) => out.bytes(kind::EVEN_PORT, &[u8::from(*reserve) << 7]),
            RequestedTransport(protocol) => out.u32(kind::REQUESTED_TRANSPORT, u32::from(*protocol) << 24),
            DontFragment => out.bytes(kind::DONT_FRAGMENT, &[]),
            ReservationToken(token) => out.bytes(kind::RESERVATION_TOKEN, token),
        }
    }

    /// Decodes it with hairpin.
    fn decode(attribute: wire::Attribute<'_>) -> AttributeValue {
        let text = || attribute.utf8().unwrap().to_owned();
        match attribute.kind {
            kind::XOR_MAPPED_ADDRESS => XorMappedAddress(attribute.xor_address().unwrap()),
            kind::XOR_PEER_ADDRESS => XorPeerAddress(attribute.xor_address().unwrap()),
            kind::XOR_RELAYED_ADDRESS => XorRelayedAddress(attribute.xor_address().unwrap()),
            kind::USERNAME => Username(text()),
            kind::REALM => Realm(text()),
            kind::NONCE => Nonce(text()),
            kind::SOFTWARE => Software(text()),
            kind::USERHASH => Userhash(attribute.array().unwrap()),
            kind::ERROR_CODE => {
                let (code, reason) = attribute.error_code().unwrap();
                ErrorCode(code, reason.to_owned())
            }
            kind::CHANNEL_NUMBER => ChannelNumber(attribute.channel_number().unwrap()),
            kind::LIFETIME => Lifetime(attribute.u32().unwrap()),
            kind::DATA => Data(attribute.value.to_vec()),
            kind::REQUESTED_ADDRESS_FAMILY => RequestedAddressFamily(attribute.family().unwrap()),
            kind::ADDITIONAL_ADDRESS_FAMILY => AdditionalAddressFamily(attribute.family().unwrap()),
            kind::EVEN_PORT => EvenPort(attribute.reserve_next_port().unwrap()),
            kind::REQUESTED_TRANSPORT => RequestedTransport(attribute.protocol().unwrap()),
            kind::DONT_FRAGMENT => {
                let [] = attribute.array().unwrap();
                DontFragment
            }
            kind::RESERVATION_TOKEN => ReservationToken(attribute.array().unwrap()),
            other => panic!("{other:#06x} was never encoded"),
        }
    }

    /// Converts it to the type of stun-rs.
    fn to_oracle(&self) -> StunAttribute {
        match self.clone() {
            MappedAddress(addr) => stun::MappedAddress::from(addr).into(),
            XorMappedAddress(addr) => stun::XorMappedAddress::from(addr).into(),
            XorPeerAddress(addr) => turn::XorPeerAddress::from(addr).into(),
            XorRelayedAddress(addr) => turn::XorRelayedAddress::from(addr).into(),
            Username(text) => stun::UserName::new(text).unwrap().into(),
            Realm(text) => stun::Realm::new(text).unwrap().into(),
            Nonce(text) => stun::Nonce::new(text).unwrap().into(),
            Software(text) => stun::Software::new(text).unwrap().into(),
            Userhash(_) => self.decoded_by_oracle(),
            ErrorCode(code, reason) => stun::ErrorCode::new(oracle_error(code, &reason)).into(),
            AddressErrorCode(family, code, reason) => {
                turn::AddressErrorCode::new(oracle_family(family), oracle_error(code, &reason)).into()
            }
            UnknownAttributes(kinds) => stun::UnknownAttributes::from(&kinds[..]).into(),
            ChannelNumber(number) => turn::ChannelNumber::new(number).into(),
            Lifetime(seconds) => turn::LifeTime::new(seconds).into(),
            Data(data) => turn::Data::from(data).into(),
            RequestedAddressFamily(family) => turn::RequestedAddressFamily::new(oracle_family(family)).into(),
            AdditionalAddressFamily(family) => {
                turn::AdditionalAddressFamily::new(oracle_family(family)).into()
            }
            EvenPort(reserve) => turn::EvenPort::new(reserve).into(),
            RequestedTransport(_) => self.decoded_by_oracle(),
            DontFragment => turn::DontFragment::default().into(),
            ReservationToken(token) => turn::ReservationToken::from(token).into(),
        }
    }

    /// For the attributes that stun-rs has no constructor for from an arbitrary value.
    fn decoded_by_oracle(&self) -> StunAttribute {
        let mut message = Encoder::new(Class::Request, Method::Binding, TransactionId([0; 12]));
        self.encode(&mut message);
        let (message, _) = MessageDecoderBuilder::default().build().decode(&message.finish()).unwrap();
        message.attributes()[0].clone()
    }

    /// Converts it from the type of stun-rs.
    fn from_oracle(attribute: &StunAttribute) -> AttributeValue {
        use StunAttribute as Theirs;
        match attribute {
            Theirs::MappedAddress(theirs) => MappedAddress(*theirs.socket_address()),
            Theirs::XorMappedAddress(theirs) => XorMappedAddress(*theirs.socket_address()),
            Theirs::XorPeerAddress(theirs) => XorPeerAddress(*theirs.socket_address()),
            Theirs::XorRelayedAddress(theirs) => XorRelayedAddress(*theirs.socket_address()),
            Theirs::UserName(theirs) => Username(theirs.as_str().to_owned()),
            Theirs::Realm(theirs) => Realm(theirs.as_str().to_owned()),
            Theirs::Nonce(theirs) => Nonce(theirs.as_str().to_owned()),
            Theirs::Software(theirs) => Software(theirs.as_str().to_owned()),
            Theirs::UserHash(theirs) => Userhash(theirs.hash().try_into().unwrap()),
            Theirs::ErrorCode(theirs) => {
                ErrorCode(theirs.error_code().error_code(), theirs.error_code().reason().to_owned())
            }
            Theirs::AddressErrorCode(theirs) => AddressErrorCode(
                our_family(theirs.family()),
                theirs.error_code().error_code(),
                theirs.error_code().reason().to_owned(),
            ),
            Theirs::UnknownAttributes(theirs) => UnknownAttributes(theirs.attributes().to_vec()),
            Theirs::ChannelNumber(theirs) => ChannelNumber(theirs.number()),
            Theirs::LifeTime(theirs) => Lifetime(theirs.as_u32()),
            Theirs::Data(theirs) => Data(theirs.as_bytes().to_vec()),
            Theirs::RequestedAddressFamily(theirs) => RequestedAddressFamily(our_family(theirs.family())),
            Theirs::AdditionalAddressFamily(theirs) => AdditionalAddressFamily(our_family(theirs.family())),
            Theirs::EvenPort(theirs) => EvenPort(theirs.reserve()),
            Theirs::RequestedTrasport(theirs) => RequestedTransport(theirs.protocol().as_u8()),
            Theirs::DontFragment(_) => DontFragment,
            Theirs::ReservationToken(theirs) => ReservationToken(theirs.token().try_into().unwrap()),
            other => panic!("{other:?} was never encoded"),
        }
    }
}

fn family_number(family: Family) -> u32 {
    match family {
        Family::V4 => 1,
        Family::V6 => 2,
    }
}

fn oracle_error(code: u16, reason: &str) -> stun_rs::ErrorCode {
    stun_rs::ErrorCode::new(code, reason).unwrap()
}

fn oracle_family(family: Family) -> AddressFamily {
    match family {
        Family::V4 => AddressFamily::IPv4,
        Family::V6 => AddressFamily::IPv6,
    }
}

fn our_family(family: AddressFamily) -> Family {
    match family {
        AddressFamily::IPv4 => Family::V4,
        AddressFamily::IPv6 => Family::V6,
    }
}

fn oracle_class(class: Class) -> MessageClass {
    match class {
        Class::Request => MessageClass::Request,
        Class::Indication => MessageClass::Indication,
        Class::Success => MessageClass::SuccessResponse,
        Class::Error => MessageClass::ErrorResponse,
    }
}

fn oracle_method(method: Method) -> MessageMethod {
    match method {
        Method::Binding => methods::BINDING,
        Method::Allocate => methods::ALLOCATE,
        Method::Refresh => methods::REFRESH,
        Method::Send => methods::SEND,
        Method::Data => methods::DATA,
        Method::CreatePermission => methods::CREATE_PERMMISSION,
        Method::ChannelBind => methods::CHANNEL_BIND,
    }
}

/// A message, independent of either codec.
#[derive(Clone, Debug)]
struct TestMessage {
    class: Class,
    method: Method,
    id: [u8; 12],
    /// The first one of an error response is an ErrorCode.
    attributes: Vec<AttributeValue>,
    key: String,
    sha1: bool,
    sha256: bool,
    fingerprint: bool,
}

impl TestMessage {
    fn encode(&self) -> Vec<u8> {
        let id = TransactionId(self.id);
        let (mut out, rest) = match &self.attributes[..] {
            [ErrorCode(code, reason), rest @ ..] => {
                let request = Encoder::new(Class::Request, self.method, id).finish();
                (Encoder::error_response(&Message::parse(&request).unwrap(), *code, reason), rest)
            }
            all => (Encoder::new(self.class, self.method, id), all),
        };
        rest.iter().for_each(|attribute| attribute.encode(&mut out));
        if self.sha1 {
            out.integrity_sha1(self.key.as_bytes());
        }
        if self.sha256 {
            out.integrity_sha256(self.key.as_bytes());
        }
        if self.fingerprint {
            out.fingerprint();
        }
        out.finish()
    }

    fn encode_by_oracle(&self) -> Vec<u8> {
        let mut message = StunMessageBuilder::new(oracle_method(self.method), oracle_class(self.class))
            .with_transaction_id(self.id.into());
        for attribute in &self.attributes {
            message = message.with_attribute(attribute.to_oracle());
        }
        if self.sha1 {
            message = message.with_attribute(stun::MessageIntegrity::new(self.oracle_key()));
        }
        if self.sha256 {
            message = message.with_attribute(stun::MessageIntegritySha256::new(self.oracle_key()));
        }
        if self.fingerprint {
            message = message.with_attribute(stun::Fingerprint::default());
        }
        let mut bytes = vec![0xFF; 65_536];
        let len = MessageEncoderBuilder::default().build().encode(&mut bytes, &message.build()).unwrap();
        bytes.truncate(len);
        bytes
    }

    /// Decodes the message and verifies its integrity.
    fn decode_by_oracle(&self, bytes: &[u8]) -> StunMessage {
        let context = DecoderContextBuilder::default().with_key(self.oracle_key()).with_validation().build();
        let (message, len) =
            MessageDecoderBuilder::default().with_context(context).build().decode(bytes).unwrap();
        assert_eq!(len, bytes.len());
        message
    }

    fn oracle_key(&self) -> HMACKey {
        HMACKey::new_short_term(&self.key).unwrap()
    }
}

fn addresses() -> impl Strategy<Value = SocketAddr> {
    any::<SocketAddr>().prop_map(|addr| SocketAddr::new(addr.ip(), addr.port()))
}

fn families() -> impl Strategy<Value = Family> {
    select(vec![Family::V4, Family::V6])
}

fn codes() -> impl Strategy<Value = (u16, String)> {
    (300..700_u16, ".{0,127}")
}

fn texts() -> impl Strategy<Value = AttributeValue> {
    // stun-rs checks that realm and nonce are qdtext (RFC 8489 §14.9), and accepts ASCII only.
    let quotable = "[a-zA-Z0-9/+=._-]{1,120}";
    prop_oneof![
        "[a-zA-Z0-9:.@äλ漢マ_-]{1,120}".prop_map(Username),
        quotable.prop_map(Realm),
        quotable.prop_map(Nonce),
        ".{0,127}".prop_map(Software),
    ]
}

/// The attributes that the server decodes.
fn decoded() -> impl Strategy<Value = AttributeValue> {
    let addressed = prop_oneof![
        addresses().prop_map(XorMappedAddress),
        addresses().prop_map(XorPeerAddress),
        addresses().prop_map(XorRelayedAddress),
        families().prop_map(RequestedAddressFamily),
        families().prop_map(AdditionalAddressFamily),
    ];
    let plain = prop_oneof![
        any::<[u8; 32]>().prop_map(Userhash),
        any::<u16>().prop_map(ChannelNumber),
        any::<u32>().prop_map(Lifetime),
        vec(any::<u8>(), 0..1500).prop_map(Data),
        any::<bool>().prop_map(EvenPort),
        any::<u8>().prop_map(RequestedTransport),
        Just(DontFragment),
        any::<[u8; 8]>().prop_map(ReservationToken),
    ];
    prop_oneof![1 => addressed, 1 => texts(), 2 => plain]
}

/// The attributes that the server encodes only.
fn encoded() -> impl Strategy<Value = AttributeValue> {
    prop_oneof![
        addresses().prop_map(MappedAddress),
        (families(), codes()).prop_map(|(family, (code, reason))| AddressErrorCode(family, code, reason)),
        btree_set(any::<u16>(), 0..8).prop_map(|kinds| UnknownAttributes(kinds.into_iter().collect())),
    ]
}

fn all() -> impl Strategy<Value = AttributeValue> {
    prop_oneof![5 => decoded(), 1 => encoded()]
}

/// Every allowed combination of class and method.
fn message_types() -> impl Strategy<Value = (Class, Method)> {
    use Method::*;
    let methods = [Binding, Allocate, Refresh, CreatePermission, ChannelBind];
    let classes = [Class::Request, Class::Success, Class::Error];
    let pairs = methods.iter().flat_map(|&method| classes.map(|class| (class, method)));
    let indications = [Binding, Send, Method::Data].map(|method| (Class::Indication, method));
    select(pairs.chain(indications).collect::<Vec<_>>())
}

fn messages(attributes: impl Strategy<Value = AttributeValue>) -> impl Strategy<Value = TestMessage> {
    let ends = any::<(bool, bool, bool)>();
    (message_types(), any::<[u8; 12]>(), codes(), vec(attributes, 0..10), "[!-~]{1,100}", ends).prop_map(
        |((class, method), id, (code, reason), mut attributes, key, (sha1, sha256, fingerprint))| {
            if class == Class::Error {
                attributes.insert(0, ErrorCode(code, reason));
            }
            TestMessage { class, method, id, attributes, key, sha1, sha256, fingerprint }
        },
    )
}

proptest! {
    /// RFC 8489 §14, RFC 8656 §18: stun-rs decodes what hairpin encodes to the same values.
    #[test]
    fn the_oracle_decodes_our_messages(expected in messages(all())) {
        let bytes = expected.encode();
        let message = expected.decode_by_oracle(&bytes);
        prop_assert_eq!(message.class(), oracle_class(expected.class));
        prop_assert_eq!(message.method(), oracle_method(expected.method));
        prop_assert_eq!(message.transaction_id().as_bytes(), &expected.id);
        let (ends, others): (Vec<_>, Vec<_>) = message.attributes().iter().partition(|attribute| {
            attribute.is_message_integrity() || attribute.is_message_integrity_sha256() || attribute.is_fingerprint()
        });
        let read: Vec<_> = others.into_iter().map(AttributeValue::from_oracle).collect();
        prop_assert_eq!(read, expected.attributes);
        let sealed = [expected.sha1, expected.sha256, expected.fingerprint].iter().filter(|&&present| present).count();
        prop_assert_eq!(ends.len(), sealed);
    }

    /// RFC 8489 §14, RFC 8656 §18: hairpin decodes what stun-rs encodes to the same values.
    #[test]
    fn we_decode_the_messages_of_the_oracle(expected in messages(decoded())) {
        let bytes = expected.encode_by_oracle();
        let message = Message::parse(&bytes).unwrap();
        prop_assert_eq!((message.class(), message.method()), (expected.class, expected.method));
        prop_assert_eq!(message.transaction_id(), TransactionId(expected.id));
        let read: Vec<_> = message.attributes().map(AttributeValue::decode).collect();
        prop_assert_eq!(read, expected.attributes);
        let key = expected.key.as_bytes();
        prop_assert_eq!((message.has_integrity_sha1(), message.verify_sha1(key)), (expected.sha1, expected.sha1));
        prop_assert_eq!((message.has_integrity_sha256(), message.verify_sha256(key)), (expected.sha256, expected.sha256));
        prop_assert_eq!(message.has_fingerprint(), expected.fingerprint);
    }

    /// RFC 8489 §5, §14: both encode the same bytes.
    #[test]
    fn both_encode_the_same_bytes(expected in messages(all())) {
        prop_assert_eq!(expected.encode(), expected.encode_by_oracle());
    }
}
