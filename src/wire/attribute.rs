//! Attributes: their numbers (RFC 8489 §18.3, RFC 8656 §18) and how their values are read (RFC 8489 §14).
//!
//! A reader checks the shape of a value and nothing else. Bits that receivers must ignore are ignored.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::{MAGIC_COOKIE, Malformed, TransactionId, padding};

/// MAPPED-ADDRESS (RFC 8489 §14.1).
pub const MAPPED_ADDRESS: u16 = 0x0001;
/// USERNAME (RFC 8489 §14.3).
pub const USERNAME: u16 = 0x0006;
/// MESSAGE-INTEGRITY (RFC 8489 §14.5).
pub const MESSAGE_INTEGRITY: u16 = 0x0008;
/// ERROR-CODE (RFC 8489 §14.8).
pub const ERROR_CODE: u16 = 0x0009;
/// UNKNOWN-ATTRIBUTES (RFC 8489 §14.13).
pub const UNKNOWN_ATTRIBUTES: u16 = 0x000A;
/// CHANNEL-NUMBER (RFC 8656 §18.1).
pub const CHANNEL_NUMBER: u16 = 0x000C;
/// LIFETIME (RFC 8656 §18.2).
pub const LIFETIME: u16 = 0x000D;
/// XOR-PEER-ADDRESS (RFC 8656 §18.3).
pub const XOR_PEER_ADDRESS: u16 = 0x0012;
/// DATA (RFC 8656 §18.4).
pub const DATA: u16 = 0x0013;
/// REALM (RFC 8489 §14.9).
pub const REALM: u16 = 0x0014;
/// NONCE (RFC 8489 §14.10).
pub const NONCE: u16 = 0x0015;
/// XOR-RELAYED-ADDRESS (RFC 8656 §18.5).
pub const XOR_RELAYED_ADDRESS: u16 = 0x0016;
/// REQUESTED-ADDRESS-FAMILY (RFC 8656 §18.6).
pub const REQUESTED_ADDRESS_FAMILY: u16 = 0x0017;
/// EVEN-PORT (RFC 8656 §18.7).
pub const EVEN_PORT: u16 = 0x0018;
/// REQUESTED-TRANSPORT (RFC 8656 §18.8).
pub const REQUESTED_TRANSPORT: u16 = 0x0019;
/// DONT-FRAGMENT (RFC 8656 §18.9).
pub const DONT_FRAGMENT: u16 = 0x001A;
/// MESSAGE-INTEGRITY-SHA256 (RFC 8489 §14.6).
pub const MESSAGE_INTEGRITY_SHA256: u16 = 0x001C;
/// PASSWORD-ALGORITHM (RFC 8489 §14.12).
pub const PASSWORD_ALGORITHM: u16 = 0x001D;
/// USERHASH (RFC 8489 §14.4).
pub const USERHASH: u16 = 0x001E;
/// XOR-MAPPED-ADDRESS (RFC 8489 §14.2).
pub const XOR_MAPPED_ADDRESS: u16 = 0x0020;
/// RESERVATION-TOKEN (RFC 8656 §18.10).
pub const RESERVATION_TOKEN: u16 = 0x0022;
/// ADDITIONAL-ADDRESS-FAMILY (RFC 8656 §18.11).
pub const ADDITIONAL_ADDRESS_FAMILY: u16 = 0x8000;
/// ADDRESS-ERROR-CODE (RFC 8656 §18.12).
pub const ADDRESS_ERROR_CODE: u16 = 0x8001;
/// PASSWORD-ALGORITHMS (RFC 8489 §14.11).
pub const PASSWORD_ALGORITHMS: u16 = 0x8002;
/// ALTERNATE-DOMAIN (RFC 8489 §14.16).
pub const ALTERNATE_DOMAIN: u16 = 0x8003;
/// ICMP (RFC 8656 §18.13).
pub const ICMP: u16 = 0x8004;
/// SOFTWARE (RFC 8489 §14.14).
pub const SOFTWARE: u16 = 0x8022;
/// ALTERNATE-SERVER (RFC 8489 §14.15).
pub const ALTERNATE_SERVER: u16 = 0x8023;
/// FINGERPRINT (RFC 8489 §14.7).
pub const FINGERPRINT: u16 = 0x8028;
/// What some clients send for ADDITIONAL-ADDRESS-FAMILY: the number of its drafts, before RFC 8656 assigned 0x8000.
pub const ADDITIONAL_ADDRESS_FAMILY_DRAFT: u16 = 0x8032;

/// Whether this server understands a comprehension-required attribute. Those that RFC 8489 §18.3.1 and RFC 8656 §18
/// reserve, CHANGE-REQUEST of classic STUN among them, are not understood.
pub const fn is_known(kind: u16) -> bool {
    matches!(
        kind,
        MAPPED_ADDRESS
            | USERNAME
            | MESSAGE_INTEGRITY
            | ERROR_CODE
            | UNKNOWN_ATTRIBUTES
            | CHANNEL_NUMBER
            | LIFETIME
            | XOR_PEER_ADDRESS
            | DATA
            | REALM
            | NONCE
            | XOR_RELAYED_ADDRESS
            | REQUESTED_ADDRESS_FAMILY
            | EVEN_PORT
            | REQUESTED_TRANSPORT
            | DONT_FRAGMENT
            | MESSAGE_INTEGRITY_SHA256
            | PASSWORD_ALGORITHM
            | USERHASH
            | XOR_MAPPED_ADDRESS
            | RESERVATION_TOKEN
    )
}

/// One attribute of a message.
#[derive(Clone, Copy, Debug)]
pub struct Attribute<'a> {
    /// Its type.
    pub kind: u16,
    /// Its value, without padding.
    pub value: &'a [u8],
    id: TransactionId,
}

impl<'a> Attribute<'a> {
    pub(super) fn new(kind: u16, value: &'a [u8], id: TransactionId) -> Attribute<'a> {
        Attribute { kind, value, id }
    }

    /// Whether a receiver that does not understand it must not go on (RFC 8489 §14).
    pub fn is_comprehension_required(&self) -> bool {
        self.kind < 0x8000
    }

    /// A plain address: MAPPED-ADDRESS, ALTERNATE-SERVER (RFC 8489 §14.1).
    pub fn address(&self) -> Result<SocketAddr, Malformed> {
        read_address(self.value, &[0; 16])
    }

    /// An XORed address: XOR-PEER-ADDRESS and its like (RFC 8489 §14.2).
    pub fn xor_address(&self) -> Result<SocketAddr, Malformed> {
        read_address(self.value, &mask(self.id))
    }

    /// Four bytes as a number: LIFETIME (RFC 8656 §18.2).
    pub fn u32(&self) -> Result<u32, Malformed> {
        self.array().map(u32::from_be_bytes)
    }

    /// A value of exactly this many bytes: RESERVATION-TOKEN (RFC 8656 §18.10), USERHASH (RFC 8489 §14.4).
    pub fn array<const N: usize>(&self) -> Result<[u8; N], Malformed> {
        self.value.try_into().map_err(|_| Malformed::Value)
    }

    /// Text: USERNAME, REALM and others (RFC 8489 §14.3). No attribute that holds text passes 763 bytes.
    pub fn utf8(&self) -> Result<&'a str, Malformed> {
        if self.value.len() > 763 {
            return Err(Malformed::Value);
        }
        std::str::from_utf8(self.value).map_err(|_| Malformed::Value)
    }

    /// CHANNEL-NUMBER (RFC 8656 §18.1), whatever the number.
    pub fn channel_number(&self) -> Result<u16, Malformed> {
        self.array().map(|[n0, n1, _, _]| u16::from_be_bytes([n0, n1]))
    }

    /// REQUESTED-ADDRESS-FAMILY and ADDITIONAL-ADDRESS-FAMILY (RFC 8656 §18.6).
    pub fn family(&self) -> Result<Family, Malformed> {
        let [family, _, _, _] = self.array()?;
        Family::from_code(family).ok_or(Malformed::Family)
    }

    /// EVEN-PORT: whether the next port is to be reserved (RFC 8656 §18.7).
    pub fn reserve_next_port(&self) -> Result<bool, Malformed> {
        self.array().map(|[bits]| bits & 0x80 != 0)
    }

    /// REQUESTED-TRANSPORT: the protocol's number, 17 for UDP (RFC 8656 §18.8).
    pub fn protocol(&self) -> Result<u8, Malformed> {
        self.array().map(|[protocol, _, _, _]| protocol)
    }

    /// PASSWORD-ALGORITHM, and PASSWORD-ALGORITHMS (RFC 8489 §14.11, §14.12).
    pub fn password_algorithms(&self) -> PasswordAlgorithms<'a> {
        PasswordAlgorithms { rest: self.value }
    }

    /// ERROR-CODE: the code and its reason phrase (RFC 8489 §14.8).
    pub fn error_code(&self) -> Result<(u16, &'a str), Malformed> {
        let Some((&[_, _, class, number], reason)) = self.value.split_first_chunk() else {
            return Err(Malformed::Value);
        };
        let class = class & 0x07;
        if !(3..=6).contains(&class) || number > 99 || reason.len() > 763 {
            return Err(Malformed::Value);
        }
        let reason = std::str::from_utf8(reason).map_err(|_| Malformed::Value)?;
        Ok((u16::from(class) * 100 + u16::from(number), reason))
    }

    /// ADDRESS-ERROR-CODE: as ERROR-CODE, for one family of a dual allocation (RFC 8656 §18.12).
    pub fn address_error_code(&self) -> Result<(Family, u16, &'a str), Malformed> {
        let (code, reason) = self.error_code()?;
        let family = Family::from_code(self.value[0]).ok_or(Malformed::Family)?;
        Ok((family, code, reason))
    }

    /// UNKNOWN-ATTRIBUTES: the types that were not understood (RFC 8489 §14.13).
    pub fn unknown_attributes(&self) -> Result<impl Iterator<Item = u16> + 'a, Malformed> {
        let (pairs, odd) = self.value.as_chunks();
        if !odd.is_empty() {
            return Err(Malformed::Value);
        }
        Ok(pairs.iter().map(|&pair| u16::from_be_bytes(pair)))
    }
}

/// The algorithms of a PASSWORD-ALGORITHMS or PASSWORD-ALGORITHM, in order: each number with its parameters. After
/// an error there are no more.
#[derive(Clone, Debug)]
pub struct PasswordAlgorithms<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for PasswordAlgorithms<'a> {
    type Item = Result<(u16, &'a [u8]), Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let rest = std::mem::take(&mut self.rest);
        let Some((&[n0, n1, l0, l1], rest)) = rest.split_first_chunk() else {
            return Some(Err(Malformed::Value));
        };
        let Some((parameters, rest)) = rest.split_at_checked(u16::from_be_bytes([l0, l1]).into()) else {
            return Some(Err(Malformed::Value));
        };
        // RFC 8489 §14.12: parameters are padded; whether the last one's padding is part of the value is not said.
        self.rest = rest.get(padding(parameters.len())..).unwrap_or_default();
        Some(Ok((u16::from_be_bytes([n0, n1]), parameters)))
    }
}

/// An address family (RFC 8489 §14.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// The family of an address.
    pub const fn of(addr: IpAddr) -> Family {
        match addr {
            IpAddr::V4(_) => Family::V4,
            IpAddr::V6(_) => Family::V6,
        }
    }

    /// Its number on the wire.
    pub const fn code(self) -> u8 {
        match self {
            Family::V4 => 0x01,
            Family::V6 => 0x02,
        }
    }

    /// The family with this number.
    pub const fn from_code(code: u8) -> Option<Family> {
        match code {
            0x01 => Some(Family::V4),
            0x02 => Some(Family::V6),
            _ => None,
        }
    }

    /// Bytes of an address attribute's value.
    pub(super) const fn value_len(self) -> usize {
        match self {
            Family::V4 => 8,
            Family::V6 => 20,
        }
    }
}

/// An encoded address, plain or XORed (RFC 8489 §14.1, §14.2).
pub(super) struct AddressValue {
    bytes: [u8; 20],
    family: Family,
}

impl AddressValue {
    pub fn plain(addr: SocketAddr) -> AddressValue {
        AddressValue::masked(addr, &[0; 16])
    }

    pub fn xor(addr: SocketAddr, id: TransactionId) -> AddressValue {
        AddressValue::masked(addr, &mask(id))
    }

    fn masked(addr: SocketAddr, mask: &[u8; 16]) -> AddressValue {
        let family = Family::of(addr.ip());
        let mut bytes = [0; 20];
        bytes[1] = family.code();
        bytes[2..4].copy_from_slice(&addr.port().to_be_bytes());
        match addr.ip() {
            IpAddr::V4(ip) => bytes[4..8].copy_from_slice(&ip.octets()),
            IpAddr::V6(ip) => bytes[4..].copy_from_slice(&ip.octets()),
        }
        apply(mask, &mut bytes[2..4]);
        apply(mask, &mut bytes[4..family.value_len()]);
        AddressValue { bytes, family }
    }

    pub fn bytes(&self) -> &[u8] {
        &self.bytes[..self.family.value_len()]
    }
}

fn read_address(value: &[u8], mask: &[u8; 16]) -> Result<SocketAddr, Malformed> {
    // RFC 8489 §14.1: the first byte is ignored.
    let Some((&[_, family, p0, p1], ip)) = value.split_first_chunk() else {
        return Err(Malformed::Value);
    };
    let mut port = [p0, p1];
    apply(mask, &mut port);
    let ip = match Family::from_code(family).ok_or(Malformed::Family)? {
        Family::V4 => {
            let mut octets = <[u8; 4]>::try_from(ip).map_err(|_| Malformed::Value)?;
            apply(mask, &mut octets);
            IpAddr::V4(Ipv4Addr::from(octets))
        }
        Family::V6 => {
            let mut octets = <[u8; 16]>::try_from(ip).map_err(|_| Malformed::Value)?;
            apply(mask, &mut octets);
            IpAddr::V6(Ipv6Addr::from(octets))
        }
    };
    Ok(SocketAddr::new(ip, u16::from_be_bytes(port)))
}

/// RFC 8489 §14.2: ports and IPv4 addresses are XORed with the cookie's first bytes, IPv6 addresses with the cookie
/// and the transaction id.
fn mask(id: TransactionId) -> [u8; 16] {
    let mut mask = [0; 16];
    mask[..4].copy_from_slice(&MAGIC_COOKIE.to_be_bytes());
    mask[4..].copy_from_slice(&id.0);
    mask
}

fn apply(mask: &[u8; 16], bytes: &mut [u8]) {
    bytes.iter_mut().zip(mask).for_each(|(byte, mask)| *byte ^= mask);
}
