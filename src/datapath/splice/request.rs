//! What the stages hand over: a connection that goes to a backend.

use std::net::{SocketAddr, TcpStream};

use rustls::ServerConnection;

use super::backend::Backend;
use crate::datapath::stream::admission::ConnectionId;
use crate::turn::ClientAddr;

/// A connection that goes to a backend.
pub(in crate::datapath) struct SpliceRequest {
    /// Its socket, which does not block.
    pub(in crate::datapath) socket: TcpStream,
    /// Its TLS session if TLS ends here, past the handshake: it has been given every byte that was read.
    pub(in crate::datapath) tls: Option<Box<ServerConnection>>,
    /// What the client has sent for the backend already, decrypted where TLS ends here.
    pub(in crate::datapath) received: Vec<u8>,
    pub(in crate::datapath) splice: Splice,
}

/// Who a connection is of, and where it goes.
#[derive(Clone)]
pub(in crate::datapath) struct Splice {
    pub(in crate::datapath) backend: Backend,
    /// The client, as the header of a trusted proxy names it if there is one.
    pub(in crate::datapath) client: ClientAddr,
    /// The address that the client connected to.
    pub(in crate::datapath) server: SocketAddr,
    /// Its name in the log.
    pub(in crate::datapath) connection: ConnectionId,
}
