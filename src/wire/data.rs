//! What stands before the payload in a Data indication (RFC 8656 §11.3), written in place: the payload of a
//! relayed packet is never copied.

use std::net::SocketAddr;

use super::attribute::{self, AddressValue};
use super::message::{HEADER, message_type};
use super::{Class, Family, MAGIC_COOKIE, Method, TransactionId, padding};

/// The longest header: that for a peer with an IPv6 address.
pub const DATA_HEADER_MAX: usize = data_header_len(Family::V6);

/// Bytes before the payload: the STUN header, XOR-PEER-ADDRESS, and the type and length of DATA.
pub const fn data_header_len(peer: Family) -> usize {
    HEADER + 4 + peer.value_len() + 4
}

/// Writes the header of a Data indication and says how long it is: 36 bytes for an IPv4 peer, 48 for IPv6. The
/// payload comes next, then [`padding`] zero bytes.
///
/// `None`, and nothing written, when the payload is too long for an indication's 16-bit length (which takes an
/// IPv6 peer and more than 65,504 bytes: no UDP client could be sent it either), or when `out` is too short.
pub fn data_indication_header(
    out: &mut [u8],
    id: TransactionId,
    peer: SocketAddr,
    payload_len: usize,
) -> Option<usize> {
    let len = data_header_len(Family::of(peer.ip()));
    let out = out.get_mut(..len)?;
    let data = u16::try_from(payload_len).ok()?;
    let total = u16::try_from(len - HEADER + payload_len + padding(payload_len)).ok()?;
    let value = AddressValue::xor(peer, id);
    let value = value.bytes();
    let (header, attributes) = out.split_at_mut(HEADER);
    header[..2].copy_from_slice(&message_type(Class::Indication, Method::Data).to_be_bytes());
    header[2..4].copy_from_slice(&total.to_be_bytes());
    header[4..8].copy_from_slice(&MAGIC_COOKIE.to_be_bytes());
    header[8..].copy_from_slice(&id.0);
    let (address, payload) = attributes.split_at_mut(4 + value.len());
    address[..2].copy_from_slice(&attribute::XOR_PEER_ADDRESS.to_be_bytes());
    address[2..4].copy_from_slice(&(value.len() as u16).to_be_bytes());
    address[4..].copy_from_slice(value);
    payload[..2].copy_from_slice(&attribute::DATA.to_be_bytes());
    payload[2..].copy_from_slice(&data.to_be_bytes());
    Some(len)
}
