//! The requests with which the load generator sets up the minimal relay.

use std::net::{Ipv4Addr, SocketAddrV4};

/// The first bytes of an [`AllocationRequest`], which random bytes from strangers do not have.
const MAGIC: [u8; 4] = *b"HPBR";

/// Asks for an allocation for the sender. The response is the relayed port, in two bytes.
pub struct AllocationRequest {
    /// The only peer.
    pub peer: SocketAddrV4,
    /// The header before each payload to the client; headers from the client have the same length.
    pub header: Vec<u8>,
    /// Whether this is the last request, after which the relay starts to forward.
    pub last: bool,
}

impl AllocationRequest {
    pub fn write(&self) -> Vec<u8> {
        let mut bytes = MAGIC.to_vec();
        bytes.extend([self.header.len() as u8, u8::from(self.last)]);
        bytes.extend(self.peer.ip().octets());
        bytes.extend(self.peer.port().to_be_bytes());
        bytes.extend(&self.header);
        bytes
    }

    /// Reads a complete request.
    pub fn read(bytes: &[u8]) -> Option<AllocationRequest> {
        let &[len, last, a, b, c, d, p0, p1, ref header @ ..] = bytes.strip_prefix(&MAGIC)? else {
            return None;
        };
        let peer = SocketAddrV4::new(Ipv4Addr::new(a, b, c, d), u16::from_be_bytes([p0, p1]));
        let (header, last) = (header.to_vec(), last != 0);
        (header.len() == usize::from(len)).then_some(AllocationRequest { peer, header, last })
    }
}

/// A request of a storm's client, which the relay echoes.
#[derive(Clone, Copy)]
pub enum StormRequest {
    /// Opens a relay socket.
    Open = 3,
    /// Is only echoed.
    Echo,
    /// Closes the relay socket.
    Close,
}

/// About the length of a TURN request with credentials.
const LENGTH: usize = 150;

impl StormRequest {
    /// Writes the request with a transaction number.
    pub fn write(self, transaction: u64) -> Vec<u8> {
        let mut bytes = vec![0; LENGTH];
        bytes[0] = self as u8;
        bytes[1..9].copy_from_slice(&transaction.to_be_bytes());
        bytes
    }

    pub fn read(bytes: &[u8]) -> Option<StormRequest> {
        let all = [StormRequest::Open, StormRequest::Echo, StormRequest::Close];
        all.into_iter().find(|request| bytes.first() == Some(&(*request as u8)))
    }
}
