//! The codec against another one: what hairpin encodes, stun-rs decodes to the same, and the other way round, for
//! every attribute that both know.
//!
//! Left out: the nonce cookie's feature bits, which stun-rs has as RFC 8489 §18.1 misprints them (erratum 6290), and
//! the inside of ICMP, whose type and code RFC 8656 §18.13 draws with 7 and 9 bits.

#![allow(clippy::unwrap_used, reason = "all of it is test")]

use std::net::SocketAddr;

use hairpin::wire::{self, Class, Encoder, Family, Message, Method, TransactionId, attribute as kind};
use proptest::collection::{btree_set, vec};
use proptest::prelude::*;
use proptest::sample::select;
use stun_rs::attributes::{stun, turn};
use stun_rs::{
    AddressFamily, Algorithm, AlgorithmId, DecoderContextBuilder, HMACKey, MessageClass,
    MessageDecoderBuilder, MessageEncoderBuilder, MessageMethod, StunAttribute, StunMessage,
    StunMessageBuilder,
};

/// The meaning of an attribute, apart from either codec.
#[derive(Clone, Debug, PartialEq)]
enum Meaning {
    MappedAddress(SocketAddr),
    AlternateServer(SocketAddr),
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
    PasswordAlgorithm(u16, Vec<u8>),
    PasswordAlgorithms(Vec<(u16, Vec<u8>)>),
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

use Meaning::*;

impl Meaning {
    /// Encodes it as hairpin does.
    fn encode(&self, out: &mut Encoder) {
        match self {
            MappedAddress(addr) => out.mapped_address(*addr),
            AlternateServer(addr) => out.bytes(kind::ALTERNATE_SERVER, &plain_address(*addr)),
            XorMappedAddress(addr) => out.xor_address(kind::XOR_MAPPED_ADDRESS, *addr),
            XorPeerAddress(addr) => out.xor_address(kind::XOR_PEER_ADDRESS, *addr),
            XorRelayedAddress(addr) => out.xor_address(kind::XOR_RELAYED_ADDRESS, *addr),
            Username(text) => out.text(kind::USERNAME, text),
            Realm(text) => out.text(kind::REALM, text),
            Nonce(text) => out.text(kind::NONCE, text),
            Software(text) => out.text(kind::SOFTWARE, text),
            Userhash(hash) => out.bytes(kind::USERHASH, hash),
            ErrorCode(..) => unreachable!("the encoder of an error answer begins with it"),
            AddressErrorCode(family, code, reason) => out.address_error_code(*family, *code, reason),
            UnknownAttributes(kinds) => out.unknown_attributes(kinds),
            PasswordAlgorithm(number, parameters) => {
                out.bytes(kind::PASSWORD_ALGORITHM, &algorithms(&[(*number, parameters.clone())]));
            }
            PasswordAlgorithms(list) => out.bytes(kind::PASSWORD_ALGORITHMS, &algorithms(list)),
            ChannelNumber(number) => out.u32(kind::CHANNEL_NUMBER, u32::from(*number) << 16),
            Lifetime(seconds) => out.u32(kind::LIFETIME, *seconds),
            Data(data) => out.bytes(kind::DATA, data),
            RequestedAddressFamily(family) => {
                out.u32(kind::REQUESTED_ADDRESS_FAMILY, u32::from(family.code()) << 24);
            }
            AdditionalAddressFamily(family) => {
                out.u32(kind::ADDITIONAL_ADDRESS_FAMILY, u32::from(family.code()) << 24);
            }
            EvenPort(reserve) => out.bytes(kind::EVEN_PORT, &[u8::from(*reserve) << 7]),
            RequestedTransport(protocol) => out.u32(kind::REQUESTED_TRANSPORT, u32::from(*protocol) << 24),
            DontFragment => out.bytes(kind::DONT_FRAGMENT, &[]),
            ReservationToken(token) => out.bytes(kind::RESERVATION_TOKEN, token),
        }
    }

    /// Reads it as hairpin does.
    fn read(attribute: wire::Attribute<'_>) -> Meaning {
        let text = || attribute.utf8().unwrap().to_owned();
        let list =
            || attribute.password_algorithms().map(Result::unwrap).map(|(number, p)| (number, p.to_vec()));
        match attribute.kind {
            kind::MAPPED_ADDRESS => MappedAddress(attribute.address().unwrap()),
            kind::ALTERNATE_SERVER => AlternateServer(attribute.address().unwrap()),
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
            kind::ADDRESS_ERROR_CODE => {
                let (family, code, reason) = attribute.address_error_code().unwrap();
                AddressErrorCode(family, code, reason.to_owned())
            }
            kind::UNKNOWN_ATTRIBUTES => UnknownAttributes(attribute.unknown_attributes().unwrap().collect()),
            kind::PASSWORD_ALGORITHM => {
                let mut list: Vec<_> = list().collect();
                let (number, parameters) = list.pop().unwrap();
                assert!(list.is_empty());
                PasswordAlgorithm(number, parameters)
            }
            kind::PASSWORD_ALGORITHMS => PasswordAlgorithms(list().collect()),
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

    /// Says it to stun-rs.
    fn to_oracle(&self) -> StunAttribute {
        match self.clone() {
            MappedAddress(addr) => stun::MappedAddress::from(addr).into(),
            AlternateServer(addr) => stun::AlternateServer::from(addr).into(),
            XorMappedAddress(addr) => stun::XorMappedAddress::from(addr).into(),
            XorPeerAddress(addr) => turn::XorPeerAddress::from(addr).into(),
            XorRelayedAddress(addr) => turn::XorRelayedAddress::from(addr).into(),
            Username(text) => stun::UserName::new(text).unwrap().into(),
            Realm(text) => stun::Realm::new(text).unwrap().into(),
            Nonce(text) => stun::Nonce::new(text).unwrap().into(),
            Software(text) => stun::Software::new(text).unwrap().into(),
            Userhash(_) => self.echoed_by_oracle(),
            ErrorCode(code, reason) => stun::ErrorCode::new(oracle_error(code, &reason)).into(),
            AddressErrorCode(family, code, reason) => {
                turn::AddressErrorCode::new(oracle_family(family), oracle_error(code, &reason)).into()
            }
            UnknownAttributes(kinds) => stun::UnknownAttributes::from(&kinds[..]).into(),
            PasswordAlgorithm(number, parameters) => oracle_algorithm(number, &parameters).into(),
            PasswordAlgorithms(list) => {
                let list: Vec<_> = list.iter().map(|(number, p)| oracle_algorithm(*number, p)).collect();
                stun::PasswordAlgorithms::from(list).into()
            }
            ChannelNumber(number) => turn::ChannelNumber::new(number).into(),
            Lifetime(seconds) => turn::LifeTime::new(seconds).into(),
            Data(data) => turn::Data::from(data).into(),
            RequestedAddressFamily(family) => turn::RequestedAddressFamily::new(oracle_family(family)).into(),
            AdditionalAddressFamily(family) => {
                turn::AdditionalAddressFamily::new(oracle_family(family)).into()
            }
            EvenPort(reserve) => turn::EvenPort::new(reserve).into(),
            RequestedTransport(_) => self.echoed_by_oracle(),
            DontFragment => turn::DontFragment::default().into(),
            ReservationToken(token) => turn::ReservationToken::from(token).into(),
        }
    }

    /// For what stun-rs lets no one make of its value: it gets to read it first.
    fn echoed_by_oracle(&self) -> StunAttribute {
        let mut message = Encoder::new(Class::Request, Method::Binding, TransactionId([0; 12]));
        self.encode(&mut message);
        let (message, _) = MessageDecoderBuilder::default().build().decode(&message.finish()).unwrap();
        message.attributes()[0].clone()
    }

    /// Hears it from stun-rs.
    fn from_oracle(attribute: &StunAttribute) -> Meaning {
        use StunAttribute as Theirs;
        match attribute {
            Theirs::MappedAddress(theirs) => MappedAddress(*theirs.socket_address()),
            Theirs::AlternateServer(theirs) => AlternateServer(*theirs.socket_address()),
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
            Theirs::PasswordAlgorithm(theirs) => {
                let (number, parameters) = our_algorithm(theirs);
                PasswordAlgorithm(number, parameters)
            }
            Theirs::PasswordAlgorithms(theirs) => {
                PasswordAlgorithms(theirs.iter().map(our_algorithm).collect())
            }
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

fn plain_address(addr: SocketAddr) -> Vec<u8> {
    let port = addr.port().to_be_bytes();
    match addr {
        SocketAddr::V4(v4) => [&[0, 1][..], &port, &v4.ip().octets()].concat(),
        SocketAddr::V6(v6) => [&[0, 2][..], &port, &v6.ip().octets()].concat(),
    }
}

fn algorithms(list: &[(u16, Vec<u8>)]) -> Vec<u8> {
    let mut value = Vec::new();
    for (number, parameters) in list {
        value.resize(value.len() + wire::padding(value.len()), 0);
        value.extend_from_slice(&number.to_be_bytes());
        value.extend_from_slice(&(parameters.len() as u16).to_be_bytes());
        value.extend_from_slice(parameters);
    }
    value
}

fn oracle_algorithm(number: u16, parameters: &[u8]) -> stun::PasswordAlgorithm {
    stun::PasswordAlgorithm::new(Algorithm::new(AlgorithmId::from(number), parameters))
}

fn our_algorithm(theirs: &stun::PasswordAlgorithm) -> (u16, Vec<u8>) {
    (theirs.algorithm().into(), theirs.parameters().unwrap_or_default().to_vec())
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

/// A whole message, apart from either codec.
#[derive(Clone, Debug)]
struct Sample {
    class: Class,
    method: Method,
    id: [u8; 12],
    /// Of an error answer the first is ErrorCode, in others there is none.
    attributes: Vec<Meaning>,
    key: String,
    sha1: bool,
    sha256: bool,
    fingerprint: bool,
}

impl Sample {
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
        let method = MessageMethod::try_from(self.method.code()).unwrap();
        let mut message =
            StunMessageBuilder::new(method, oracle_class(self.class)).with_transaction_id(self.id.into());
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

    /// Decoded, and all integrity verified.
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

fn algorithm_lists() -> impl Strategy<Value = Vec<(u16, Vec<u8>)>> {
    vec((any::<u16>(), vec(any::<u8>(), 0..10)), 1..6)
}

fn texts() -> impl Strategy<Value = Meaning> {
    // Realm and nonce are sequences of qdtext (RFC 8489 §14.9); stun-rs insists on that, in ASCII.
    let quotable = "[a-zA-Z0-9/+=._-]{1,120}";
    prop_oneof![
        "[a-zA-Z0-9:.@äλ漢マ_-]{1,120}".prop_map(Username),
        quotable.prop_map(Realm),
        quotable.prop_map(Nonce),
        ".{0,127}".prop_map(Software),
    ]
}

fn meanings() -> impl Strategy<Value = Meaning> {
    let addressed = prop_oneof![
        addresses().prop_map(MappedAddress),
        addresses().prop_map(AlternateServer),
        addresses().prop_map(XorMappedAddress),
        addresses().prop_map(XorPeerAddress),
        addresses().prop_map(XorRelayedAddress),
        families().prop_map(RequestedAddressFamily),
        families().prop_map(AdditionalAddressFamily),
    ];
    let plain = prop_oneof![
        any::<[u8; 32]>().prop_map(Userhash),
        (families(), codes()).prop_map(|(family, (code, reason))| AddressErrorCode(family, code, reason)),
        btree_set(any::<u16>(), 0..8).prop_map(|kinds| UnknownAttributes(kinds.into_iter().collect())),
        algorithm_lists().prop_map(|mut list| list.remove(0)).prop_map(|(n, p)| PasswordAlgorithm(n, p)),
        algorithm_lists().prop_map(PasswordAlgorithms),
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

/// Every class and method that may stand together.
fn kinds() -> impl Strategy<Value = (Class, Method)> {
    use Method::*;
    let asked = [Binding, Allocate, Refresh, CreatePermission, ChannelBind];
    let classes = [Class::Request, Class::Success, Class::Error];
    let pairs = asked.iter().flat_map(|&method| classes.map(|class| (class, method)));
    let told = [Binding, Send, Method::Data].map(|method| (Class::Indication, method));
    select(pairs.chain(told).collect::<Vec<_>>())
}

fn samples() -> impl Strategy<Value = Sample> {
    let ends = any::<(bool, bool, bool)>();
    (kinds(), any::<[u8; 12]>(), codes(), vec(meanings(), 0..10), "[!-~]{1,100}", ends).prop_map(
        |((class, method), id, (code, reason), mut attributes, key, (sha1, sha256, fingerprint))| {
            if class == Class::Error {
                attributes.insert(0, ErrorCode(code, reason));
            }
            Sample { class, method, id, attributes, key, sha1, sha256, fingerprint }
        },
    )
}

proptest! {
    /// RFC 8489 §14, RFC 8656 §18: what hairpin encodes, stun-rs decodes to the same.
    #[test]
    fn the_oracle_reads_what_we_write(sample in samples()) {
        let bytes = sample.encode();
        let message = sample.decode_by_oracle(&bytes);
        prop_assert_eq!(message.class(), oracle_class(sample.class));
        prop_assert_eq!(message.method().as_u16(), sample.method.code());
        prop_assert_eq!(message.transaction_id().as_bytes(), &sample.id);
        let (ends, others): (Vec<_>, Vec<_>) = message.attributes().iter().partition(|attribute| {
            attribute.is_message_integrity() || attribute.is_message_integrity_sha256() || attribute.is_fingerprint()
        });
        let read: Vec<_> = others.into_iter().map(Meaning::from_oracle).collect();
        prop_assert_eq!(read, sample.attributes);
        let expected = [sample.sha1, sample.sha256, sample.fingerprint].iter().filter(|&&there| there).count();
        prop_assert_eq!(ends.len(), expected);
    }

    /// RFC 8489 §14, RFC 8656 §18: what stun-rs encodes, hairpin decodes to the same.
    #[test]
    fn we_read_what_the_oracle_writes(sample in samples()) {
        let bytes = sample.encode_by_oracle();
        let message = Message::parse(&bytes).unwrap();
        prop_assert_eq!((message.class(), message.method()), (sample.class, sample.method));
        prop_assert_eq!(message.transaction_id(), TransactionId(sample.id));
        let read: Vec<_> = message.attributes().map(Meaning::read).collect();
        prop_assert_eq!(read, sample.attributes);
        let key = sample.key.as_bytes();
        prop_assert_eq!((message.has_integrity_sha1(), message.verify_sha1(key)), (sample.sha1, sample.sha1));
        prop_assert_eq!((message.has_integrity_sha256(), message.verify_sha256(key)), (sample.sha256, sample.sha256));
        prop_assert_eq!(message.has_fingerprint(), sample.fingerprint);
    }

    /// RFC 8489 §5, §14: both write the same bytes.
    #[test]
    fn both_write_the_same_bytes(sample in samples()) {
        prop_assert_eq!(sample.encode(), sample.encode_by_oracle());
    }
}
