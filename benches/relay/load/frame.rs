//! The messages between client and relay: ChannelData (RFC 8656 §12.4), or a Send indication to the relay and a Data
//! indication to the client (§11). ChannelData is padded in a stream (§12.5), indications always.

use std::net::{SocketAddr, SocketAddrV4};
use std::ops::Range;

use hairpin::wire::{
    self, CHANNEL_HEADER, ChannelHeader, Class, DATA_INDICATION_HEADER_MAX, Encoder, Message, Method,
    TransactionId, attribute,
};

use super::stamp::STAMP;
use crate::workload::{ClientTransport, Framing, Workload};

/// The transaction id in an indication.
const ID: Range<usize> = 8..20;

/// The messages of one flow.
pub struct Frame {
    framing: Framing,
    /// The header of the client's messages.
    header: Vec<u8>,
    payload: usize,
    padding: usize,
    peer: SocketAddr,
    channel: u16,
}

impl Frame {
    pub fn new(workload: &Workload, channel: u16, peer: SocketAddrV4) -> Frame {
        let &Workload { framing, transport, payload, .. } = workload;
        let (peer, padding) = (SocketAddr::V4(peer), wire::padding(payload));
        let (header, padding) = match framing {
            Framing::Channel if transport == ClientTransport::Udp => (channel_header(channel, payload), 0),
            Framing::Channel => (channel_header(channel, payload), padding),
            Framing::Indication => {
                let mut send = Encoder::new(Class::Indication, Method::Send, TransactionId([0; 12]));
                send.xor_address(attribute::XOR_PEER_ADDRESS, peer);
                send.bytes(attribute::DATA, &vec![0; payload]);
                let mut send = send.finish();
                send.truncate(send.len() - payload - padding);
                (send, padding)
            }
        };
        Frame { framing, header, payload, padding, peer, channel }
    }

    pub fn framing(&self) -> Framing {
        self.framing
    }

    pub fn peer(&self) -> SocketAddr {
        self.peer
    }

    /// The channel number, for [`Framing::Channel`].
    pub fn channel(&self) -> u16 {
        self.channel
    }

    /// The length of a client's message.
    pub fn len(&self) -> usize {
        self.header.len() + self.payload + self.padding
    }

    /// Writes a client's message, except for the part of the payload after the stamp.
    pub fn write(&self, message: &mut [u8], stamp: &[u8; STAMP]) {
        let (header, payload) = message.split_at_mut(self.header.len());
        header.copy_from_slice(&self.header);
        if self.framing == Framing::Indication {
            // RFC 8489 §5: every indication has its own transaction id.
            header[ID].copy_from_slice(&stamp[..ID.len()]);
        }
        payload[..STAMP].copy_from_slice(stamp);
        payload[self.payload..].fill(0);
    }

    /// The header that the minimal relay adds before payloads to the client, with a transaction id of zeros.
    pub fn header_to_client(&self) -> Vec<u8> {
        if self.framing == Framing::Channel {
            return self.header.clone();
        }
        let mut header = vec![0; DATA_INDICATION_HEADER_MAX];
        let id = TransactionId([0; 12]);
        let len = wire::data_indication_header(&mut header, id, self.peer, self.payload).unwrap_or(0);
        header.truncate(len);
        header
    }

    /// The payload of a message to the client, or `None` if anything about the message is wrong.
    pub fn payload<'m>(&self, message: &'m [u8]) -> Option<&'m [u8]> {
        match self.framing {
            Framing::Channel => {
                let payload = message.strip_prefix(&self.header[..])?;
                (message.len() == self.len()).then(|| &payload[..self.payload])
            }
            Framing::Indication => {
                let message = Message::parse(message).ok()?;
                let peer = message.attribute(attribute::XOR_PEER_ADDRESS)?.xor_address().ok()?;
                let data = message.attribute(attribute::DATA)?.value;
                let is_data = (message.class(), message.method()) == (Class::Indication, Method::Data);
                (is_data && peer == self.peer && data.len() == self.payload).then_some(data)
            }
        }
    }
}

fn channel_header(number: u16, payload: usize) -> Vec<u8> {
    let mut bytes = [0; CHANNEL_HEADER];
    ChannelHeader { number, len: payload as u16 }.write(&mut bytes);
    bytes.to_vec()
}
