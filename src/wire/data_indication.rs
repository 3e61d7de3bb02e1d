//! The header of a Data indication (RFC 8656 §11.3), written in place in front of the payload so that the payload of a
//! relayed packet is not copied.

use std::net::SocketAddr;

use super::address::{AddressValue, Family};
use super::attribute;
use super::layout::{MAGIC_COOKIE, STUN_HEADER, TransactionId, padding};
use super::method::{Class, Method, message_type};

/// Length of the longest header, that for an IPv6 peer.
pub const DATA_INDICATION_HEADER_MAX: usize = data_indication_header_len(Family::V6);

/// Length of the header: the STUN header, XOR-PEER-ADDRESS, and the type and length of DATA.
pub const fn data_indication_header_len(peer: Family) -> usize {
    STUN_HEADER + 4 + peer.value_len() + 4
}

/// Writes the header of a Data indication and returns its length: 36 bytes for an IPv4 peer, 48 for IPv6. The payload
/// follows it, and then [`padding`] zero bytes.
///
/// Returns `None` and writes nothing if `out` is too short or if the message would exceed the 16-bit length field. The
/// latter takes an IPv6 peer and more than 65,504 bytes, which do not fit into a datagram to the client either.
pub fn data_indication_header(
    out: &mut [u8],
    id: TransactionId,
    peer: SocketAddr,
    payload_len: usize,
) -> Option<usize> {
    let len = data_indication_header_len(Family::of(peer.ip()));
    let out = out.get_mut(..len)?;
    let data = u16::try_from(payload_len).ok()?;
    let total = u16::try_from(len - STUN_HEADER + payload_len + padding(payload_len)).ok()?;
    let value = AddressValue::xor(peer, id);
    let value = value.bytes();
    let (header, attributes) = out.split_at_mut(STUN_HEADER);
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

/// The length of the payload in a message that relays data to a client: ChannelData, or a Data indication with a header that
/// [`data_indication_header`] has written. `None` for every other message.
pub fn relayed_payload(message: &[u8]) -> Option<usize> {
    let word = |at: usize| Some(u16::from_be_bytes(*message.get(at..)?.first_chunk()?));
    if message.first()? & 0xC0 == 0x40 {
        return word(2).map(usize::from);
    }
    let address = STUN_HEADER + 4;
    let is_data = word(0)? == message_type(Class::Indication, Method::Data)
        && word(STUN_HEADER)? == attribute::XOR_PEER_ADDRESS;
    let data = address + usize::from(word(STUN_HEADER + 2)?);
    (is_data && word(data)? == attribute::DATA).then(|| word(data + 2).map(usize::from))?
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::samples::ID;
    use crate::wire::{Encoder, Message};

    fn peers() -> [SocketAddr; 2] {
        ["192.0.2.9:4000".parse().unwrap(), "[2001:db8::9]:4000".parse().unwrap()]
    }

    /// RFC 8656 §11.3: writing in place produces the same bytes as the encoder.
    #[test]
    fn writing_in_place_matches_the_encoder() {
        for (peer, header) in peers().into_iter().zip([36, 48]) {
            for payload in [&b""[..], b"a", b"ab", b"abc", b"abcd", &[7; 1200]] {
                let mut out = vec![0xFF; DATA_INDICATION_HEADER_MAX + payload.len() + 3];
                let len = data_indication_header(&mut out, ID, peer, payload.len()).unwrap();
                assert_eq!((len, data_indication_header_len(Family::of(peer.ip()))), (header, header));
                out.truncate(len);
                out.extend_from_slice(payload);
                out.resize(out.len() + padding(payload.len()), 0);

                let mut expected = Encoder::new(Class::Indication, Method::Data, ID);
                expected.xor_address(attribute::XOR_PEER_ADDRESS, peer);
                expected.bytes(attribute::DATA, payload);
                assert_eq!(out, expected.finish());
                assert_eq!(Message::parse(&out).unwrap().attribute(attribute::DATA).unwrap().value, payload);
                assert_eq!(relayed_payload(&out), Some(payload.len()));
            }
        }
    }

    #[test]
    fn other_messages_relay_nothing() {
        assert_eq!(relayed_payload(&[0x40, 1, 1, 2]), Some(0x102));
        let mut icmp = Encoder::new(Class::Indication, Method::Data, ID);
        icmp.xor_address(attribute::XOR_PEER_ADDRESS, peers()[0]);
        icmp.bytes(0x8004, &[0; 8]);
        let response = Encoder::new(Class::Success, Method::Binding, ID);
        for message in [icmp.finish(), response.finish(), vec![], vec![0x40, 1, 1], vec![0x00, 0x17]] {
            assert_eq!(relayed_payload(&message), None, "{message:?}");
        }
    }

    /// RFC 8656 §11.3, RFC 8489 §5: the 16-bit length field limits the payload. Every UDP payload of an IPv4 peer fits.
    #[test]
    fn the_length_field_limits_the_payload() {
        let [v4, v6] = peers();
        let mut out = [0; DATA_INDICATION_HEADER_MAX];
        assert_eq!(data_indication_header(&mut out, ID, v4, 65_507), Some(36));
        assert_eq!(data_indication_header(&mut out, ID, v4, 65_516), Some(36));
        assert_eq!(data_indication_header(&mut out, ID, v4, 65_517), None);
        assert_eq!(data_indication_header(&mut out, ID, v6, 65_504), Some(48));
        assert_eq!(data_indication_header(&mut out, ID, v6, 65_505), None);
        assert_eq!(data_indication_header(&mut out, ID, v6, usize::MAX / 2), None);
    }

    /// RFC 8656 §11.3: a buffer that is too short is left unchanged.
    #[test]
    fn a_short_buffer_is_left_unchanged() {
        let [v4, v6] = peers();
        let mut out = [0xFF; DATA_INDICATION_HEADER_MAX];
        assert_eq!(data_indication_header(&mut out[..35], ID, v4, 4), None);
        assert_eq!(data_indication_header(&mut out[..47], ID, v6, 4), None);
        assert_eq!(out, [0xFF; DATA_INDICATION_HEADER_MAX]);
    }
}
