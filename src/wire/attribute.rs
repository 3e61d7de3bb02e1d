//! Attributes: the types that this server uses (RFC 8489 §18.3, RFC 8656 §18) and how their values are decoded
//! (RFC 8489 §14).
//!
//! Decoding checks the format of a value only, and ignores reserved bits as the RFCs require.

use std::net::SocketAddr;

use super::address::{self, Family};
use super::layout::TransactionId;
use super::malformed::Malformed;

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
/// ADDITIONAL-ADDRESS-FAMILY as numbered by its drafts, which some clients still send. RFC 8656 assigned 0x8000.
pub const ADDITIONAL_ADDRESS_FAMILY_DRAFT: u16 = 0x8032;

/// Whether this server understands a comprehension-required attribute. It does not understand those that RFC 8489 §18.3.1
/// and RFC 8656 §18 reserve, such as CHANGE-REQUEST of classic STUN.
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
    /// The attribute type.
    pub kind: u16,
    /// The value, without padding.
    pub value: &'a [u8],
    id: TransactionId,
}

impl<'a> Attribute<'a> {
    pub(super) fn new(kind: u16, value: &'a [u8], id: TransactionId) -> Attribute<'a> {
        Attribute { kind, value, id }
    }

    /// Whether a receiver that does not understand the attribute must reject the message (RFC 8489 §14).
    pub fn is_comprehension_required(&self) -> bool {
        self.kind < 0x8000
    }

    /// Decodes an XORed address such as XOR-PEER-ADDRESS (RFC 8489 §14.2).
    ///
    /// # Errors
    ///
    /// Returns [`Malformed::Family`] for an unknown address family and [`Malformed::Value`] if the length does not match it.
    pub fn xor_address(&self) -> Result<SocketAddr, Malformed> {
        address::read_xor(self.value, self.id)
    }

    /// Decodes a 32-bit number such as LIFETIME (RFC 8656 §18.2).
    ///
    /// # Errors
    ///
    /// Returns [`Malformed::Value`] if the value is not four bytes long.
    pub fn u32(&self) -> Result<u32, Malformed> {
        self.array().map(u32::from_be_bytes)
    }

    /// Decodes a value of fixed length such as RESERVATION-TOKEN (RFC 8656 §18.10).
    ///
    /// # Errors
    ///
    /// Returns [`Malformed::Value`] if the value has another length.
    pub fn array<const N: usize>(&self) -> Result<[u8; N], Malformed> {
        self.value.try_into().map_err(|_| Malformed::Value)
    }

    /// Decodes text such as USERNAME or REALM, which is at most 763 bytes long in every attribute (RFC 8489 §14.3).
    ///
    /// # Errors
    ///
    /// Returns [`Malformed::Value`] if the value is longer than that or not UTF-8.
    pub fn utf8(&self) -> Result<&'a str, Malformed> {
        if self.value.len() > 763 {
            return Err(Malformed::Value);
        }
        std::str::from_utf8(self.value).map_err(|_| Malformed::Value)
    }

    /// Decodes CHANNEL-NUMBER (RFC 8656 §18.1) without checking its range.
    ///
    /// # Errors
    ///
    /// Returns [`Malformed::Value`] if the value is not four bytes long.
    pub fn channel_number(&self) -> Result<u16, Malformed> {
        self.array().map(|[n0, n1, _, _]| u16::from_be_bytes([n0, n1]))
    }

    /// Decodes REQUESTED-ADDRESS-FAMILY or ADDITIONAL-ADDRESS-FAMILY (RFC 8656 §18.6, §18.11).
    ///
    /// # Errors
    ///
    /// Returns [`Malformed::Value`] if the value is not four bytes long, and [`Malformed::Family`] for an unknown address
    /// family.
    pub fn family(&self) -> Result<Family, Malformed> {
        let [family, _, _, _] = self.array()?;
        Family::from_code(family).ok_or(Malformed::Family)
    }

    /// Decodes EVEN-PORT: whether to reserve the next higher port (RFC 8656 §18.7).
    ///
    /// # Errors
    ///
    /// Returns [`Malformed::Value`] if the value is not one byte long.
    pub fn reserve_next_port(&self) -> Result<bool, Malformed> {
        self.array().map(|[bits]| bits & 0x80 != 0)
    }

    /// Decodes REQUESTED-TRANSPORT: the IP protocol number, 17 for UDP (RFC 8656 §18.8).
    ///
    /// # Errors
    ///
    /// Returns [`Malformed::Value`] if the value is not four bytes long.
    pub fn protocol(&self) -> Result<u8, Malformed> {
        self.array().map(|[protocol, _, _, _]| protocol)
    }

    /// Decodes ERROR-CODE: the code and the reason phrase (RFC 8489 §14.8).
    ///
    /// # Errors
    ///
    /// Returns [`Malformed::Value`] if the value is too short, the code is not between 300 and 699, or the reason phrase is longer
    /// than 763 bytes or not UTF-8.
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
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attribute(value: &[u8]) -> Attribute<'_> {
        Attribute::new(0, value, TransactionId([0; 12]))
    }

    /// RFC 8489 §14: types below 0x8000 are comprehension-required.
    #[test]
    fn types_from_0x8000_are_optional() {
        let required = |kind| Attribute::new(kind, &[], TransactionId([0; 12])).is_comprehension_required();
        assert!(required(0x0000) && required(XOR_PEER_ADDRESS) && required(0x7FFF));
        assert!(!required(ADDITIONAL_ADDRESS_FAMILY) && !required(FINGERPRINT) && !required(0xFFFF));
    }

    /// RFC 8489 §18.3.1, RFC 8656 §18: reserved types are not understood, such as CHANGE-REQUEST (0x0003).
    #[test]
    fn reserved_types_are_unknown() {
        for kind in
            [0x0000, 0x0002, 0x0003, 0x0004, 0x0005, 0x0007, 0x000B, 0x0010, 0x0021, 0x0024, 0x0025, 0x7FFF]
        {
            assert!(!is_known(kind), "{kind:#06x}");
        }
        assert_eq!((0..0x8000).filter(|&kind| is_known(kind)).count(), 21);
    }

    /// RFC 8656 §18.1, §18.2, §18.6-18.8, §18.10: values of fixed length must have that length; reserved bits are ignored.
    #[test]
    fn the_length_of_fixed_values_is_checked() {
        let ones = [0xFF; 40];
        for len in 0..ones.len() {
            let attribute = attribute(&ones[..len]);
            assert_eq!(attribute.u32(), if len == 4 { Ok(u32::MAX) } else { Err(Malformed::Value) });
            assert_eq!(attribute.channel_number(), if len == 4 { Ok(0xFFFF) } else { Err(Malformed::Value) });
            assert_eq!(attribute.protocol(), if len == 4 { Ok(0xFF) } else { Err(Malformed::Value) });
            assert_eq!(attribute.family(), Err(if len == 4 { Malformed::Family } else { Malformed::Value }));
            assert_eq!(
                attribute.reserve_next_port(),
                if len == 1 { Ok(true) } else { Err(Malformed::Value) }
            );
            assert_eq!(attribute.array::<8>().is_ok(), len == 8);
            assert_eq!(attribute.array::<32>().is_ok(), len == 32);
        }
        assert_eq!(attribute(&[0x40, 0x01, 0xFF, 0xFF]).channel_number(), Ok(0x4001));
        assert_eq!(attribute(&[0x11, 0xFF, 0xFF, 0xFF]).protocol(), Ok(17));
        assert_eq!(attribute(&[0x02, 0xFF, 0xFF, 0xFF]).family(), Ok(Family::V6));
        assert_eq!(attribute(&[0x7F]).reserve_next_port(), Ok(false));
    }

    /// RFC 8489 §14.3, §14.9: text is UTF-8 of at most 763 bytes.
    #[test]
    fn text_is_utf8_of_limited_length() {
        assert_eq!(attribute("\u{30DE}\u{30C8}".as_bytes()).utf8(), Ok("\u{30DE}\u{30C8}"));
        assert_eq!(attribute(b"\xff").utf8(), Err(Malformed::Value));
        assert!(attribute(&[b'a'; 763]).utf8().is_ok());
        assert_eq!(attribute(&[b'a'; 764]).utf8(), Err(Malformed::Value));
    }

    /// RFC 8489 §14.8: the class is 3 to 6, the number 0 to 99; reserved bits are ignored.
    #[test]
    fn error_codes_are_checked() {
        assert_eq!(attribute(b"\xff\xff\xfc\x01Unauthenticated").error_code(), Ok((401, "Unauthenticated")));
        assert_eq!(attribute(b"\0\0\x06\x63").error_code(), Ok((699, "")));
        for value in [&b"\0\0\x02\0"[..], b"\0\0\x07\0", b"\0\0\x04\x64", b"\0\0\x04", b"\0\0\x04\x01\xff"] {
            assert_eq!(attribute(value).error_code(), Err(Malformed::Value), "{value:?}");
        }
    }
}
