//! What stands around a payload between client and relay: ChannelData (RFC 8656 §12.4), or a Send indication on the way
//! out and a Data indication on the way back (§11). In a stream ChannelData is padded (§12.5), indications always are.

use std::net::{SocketAddr, SocketAddrV4};

use hairpin::wire::{
    self, CHANNEL_HEADER, ChannelHeader, Class, DATA_INDICATION_HEADER_MAX, Encoder, Message, Method,
    TransactionId, attribute,
};

use super::traffic::STAMP;
use crate::case::{Client, Form};

/// The transaction id of an indication.
const ID: std::ops::Range<usize> = 8..20;

/// The messages of one flow.
pub struct Frame {
    form: Form,
    /// What the client's messages begin with.
    header: Vec<u8>,
    payload: usize,
    padding: usize,
    peer: SocketAddr,
    channel: u16,
}

impl Frame {
    /// For payloads of one length.
    pub fn new(client: Client, form: Form, channel: u16, peer: SocketAddrV4, payload: usize) -> Frame {
        let (peer, padding) = (SocketAddr::V4(peer), wire::padding(payload));
        let (header, padding) = match form {
            Form::Channel if client == Client::Udp => (channel_header(channel, payload), 0),
            Form::Channel => (channel_header(channel, payload), padding),
            Form::Indication => {
                let mut send = Encoder::new(Class::Indication, Method::Send, TransactionId([0; 12]));
                send.xor_address(attribute::XOR_PEER_ADDRESS, peer);
                send.bytes(attribute::DATA, &vec![0; payload]);
                let mut send = send.finish();
                send.truncate(send.len() - payload - padding);
                (send, padding)
            }
        };
        Frame { form, header, payload, padding, peer, channel }
    }

    /// Which messages they are.
    pub fn form(&self) -> Form {
        self.form
    }

    /// The only peer.
    pub fn peer(&self) -> SocketAddr {
        self.peer
    }

    /// The channel bound to the peer, if channels are used.
    pub fn channel(&self) -> u16 {
        self.channel
    }

    /// The length of a client's message.
    pub fn len(&self) -> usize {
        self.header.len() + self.payload + self.padding
    }

    /// Writes a client's message, all but the part of the payload behind the stamp.
    pub fn write(&self, message: &mut [u8], stamp: &[u8; STAMP]) {
        let (header, payload) = message.split_at_mut(self.header.len());
        header.copy_from_slice(&self.header);
        if self.form == Form::Indication {
            // No two are alike, as RFC 8489 §5 wants it.
            header[ID].copy_from_slice(&stamp[..ID.len()]);
        }
        payload[..STAMP].copy_from_slice(stamp);
        payload[self.payload..].fill(0);
    }

    /// What the relay is to put before what the peer sends, with a transaction id of zeros.
    pub fn returning(&self) -> Vec<u8> {
        if self.form == Form::Channel {
            return self.header.clone();
        }
        let mut header = vec![0; DATA_INDICATION_HEADER_MAX];
        let id = TransactionId([0; 12]);
        let len = wire::data_indication_header(&mut header, id, self.peer, self.payload).unwrap_or(0);
        header.truncate(len);
        header
    }

    /// The payload of a message that the relay sent to the client; `None` if anything is wrong with it.
    pub fn payload<'m>(&self, message: &'m [u8]) -> Option<&'m [u8]> {
        match self.form {
            Form::Channel => {
                let payload = message.strip_prefix(&self.header[..])?;
                (message.len() == self.len()).then(|| &payload[..self.payload])
            }
            Form::Indication => {
                let message = Message::parse(message).ok()?;
                let from = message.attribute(attribute::XOR_PEER_ADDRESS)?.xor_address().ok()?;
                let data = message.attribute(attribute::DATA)?.value;
                let right = (message.class(), message.method()) == (Class::Indication, Method::Data);
                (right && from == self.peer && data.len() == self.payload).then_some(data)
            }
        }
    }
}

fn channel_header(number: u16, payload: usize) -> Vec<u8> {
    let mut bytes = [0; CHANNEL_HEADER];
    ChannelHeader { number, len: payload as u16 }.write(&mut bytes);
    bytes.to_vec()
}
