//! Encoding of transport addresses in attributes, plain or XORed (RFC 8489 §14.1, §14.2).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::layout::{MAGIC_COOKIE, TransactionId};
use super::malformed::Malformed;

/// An address family (RFC 8489 §14.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// The family of `addr`.
    pub const fn of(addr: IpAddr) -> Family {
        match addr {
            IpAddr::V4(_) => Family::V4,
            IpAddr::V6(_) => Family::V6,
        }
    }

    /// The number assigned to this family.
    pub(super) const fn code(self) -> u8 {
        match self {
            Family::V4 => 0x01,
            Family::V6 => 0x02,
        }
    }

    /// The family with this number, or `None` if there is none.
    pub(super) const fn from_code(code: u8) -> Option<Family> {
        match code {
            0x01 => Some(Family::V4),
            0x02 => Some(Family::V6),
            _ => None,
        }
    }

    /// Length of an address attribute's value in bytes.
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
        AddressValue::masked(addr, &xor_mask(id))
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

/// Decodes an XORed address. Clients send no plain ones.
pub(super) fn read_xor(value: &[u8], id: TransactionId) -> Result<SocketAddr, Malformed> {
    let mask = xor_mask(id);
    // RFC 8489 §14.1: the first byte is ignored.
    let Some((&[_, family, p0, p1], ip)) = value.split_first_chunk() else {
        return Err(Malformed::Value);
    };
    let mut port = [p0, p1];
    apply(&mask, &mut port);
    let ip = match Family::from_code(family).ok_or(Malformed::Family)? {
        Family::V4 => {
            let mut octets = <[u8; 4]>::try_from(ip).map_err(|_| Malformed::Value)?;
            apply(&mask, &mut octets);
            IpAddr::V4(Ipv4Addr::from(octets))
        }
        Family::V6 => {
            let mut octets = <[u8; 16]>::try_from(ip).map_err(|_| Malformed::Value)?;
            apply(&mask, &mut octets);
            IpAddr::V6(Ipv6Addr::from(octets))
        }
    };
    Ok(SocketAddr::new(ip, u16::from_be_bytes(port)))
}

/// RFC 8489 §14.2: ports and IPv4 addresses are XORed with the leading bytes of the magic cookie, IPv6 addresses with
/// the magic cookie and the transaction ID.
fn xor_mask(id: TransactionId) -> [u8; 16] {
    let mut mask = [0; 16];
    mask[..4].copy_from_slice(&MAGIC_COOKIE.to_be_bytes());
    mask[4..].copy_from_slice(&id.0);
    mask
}

fn apply(mask: &[u8; 16], bytes: &mut [u8]) {
    bytes.iter_mut().zip(mask).for_each(|(byte, mask)| *byte ^= mask);
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: TransactionId = TransactionId(*b"\xb7\xe7\xa7\x01\xbc\x34\xd6\x86\xfa\x87\xdf\xae");

    /// RFC 8489 §14.1: family, port and address in network byte order.
    #[test]
    fn a_plain_address_is_not_masked() {
        let v4 = AddressValue::plain("192.0.2.1:32853".parse().unwrap());
        assert_eq!(v4.bytes(), [0x00, 0x01, 0x80, 0x55, 192, 0, 2, 1]);
        let v6 = AddressValue::plain("[2001:db8::1]:32853".parse().unwrap());
        assert_eq!(v6.bytes(), b"\x00\x02\x80\x55\x20\x01\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\x01");
    }

    /// RFC 8489 §14.2: the port and an IPv4 address are XORed with the magic cookie only.
    #[test]
    fn an_ipv4_address_does_not_depend_on_the_transaction_id() {
        let addr: SocketAddr = "192.0.2.1:32853".parse().unwrap();
        let expected = [0x00, 0x01, 0xa1, 0x47, 0xe1, 0x12, 0xa6, 0x43];
        assert_eq!(AddressValue::xor(addr, ID).bytes(), expected);
        assert_eq!(AddressValue::xor(addr, TransactionId([0; 12])).bytes(), expected);
    }

    /// RFC 8489 §14.1: the first byte is ignored, the family must be known, and the length must match the family.
    #[test]
    fn malformed_addresses_are_rejected() {
        let v4 = [0xff, 1, 0xa1, 0x47, 0xe1, 0x12, 0xa6, 0x43];
        assert_eq!(read_xor(&v4, ID), Ok("192.0.2.1:32853".parse().unwrap()));
        for family in [0, 3] {
            assert_eq!(read_xor(&[0, family, 0, 80, 192, 0, 2, 1], ID), Err(Malformed::Family));
        }
        for len in 0..32 {
            for family in [Family::V4, Family::V6] {
                let mut value = vec![0; len];
                if let Some(byte) = value.get_mut(1) {
                    *byte = family.code();
                }
                assert_eq!(
                    read_xor(&value, ID).is_ok(),
                    len == family.value_len(),
                    "{family:?}, {len} bytes"
                );
            }
        }
    }
}
