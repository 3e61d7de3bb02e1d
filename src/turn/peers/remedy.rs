//! What an operator can do about a refused peer.

use std::fmt;
use std::net::SocketAddr;

use crate::shown;

/// What an operator can do about a refused peer: the entry for `peers.allow`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Remedy {
    /// The address is this machine's own.
    Own {
        /// The entry, if a server on this machine has the port.
        here: SocketAddr,
        /// The entry, if another machine behind the same external address has it.
        elsewhere: Option<SocketAddr>,
    },
    /// The address is not global unicast.
    Other(SocketAddr),
    /// The operator's rules deny it.
    Denied(SocketAddr),
    /// The listener of the client has peers of its own and does not allow this one.
    Listener(SocketAddr),
    /// The listener of the client has peers of its own and denies this one.
    ListenerDenied(SocketAddr),
    /// An overlay limits clients to what overlays name.
    Overlay(SocketAddr),
    /// The relay itself listens on the port.
    Endpoint,
}

impl fmt::Display for Remedy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A CreatePermission may have no port
        let entry = |peer: &SocketAddr| match peer.port() {
            0 => format!("\"{}\"", peer.ip()),
            _ => format!("\"{peer}\""),
        };
        // A masked address is no entry: it would open a whole network
        let foreign =
            |peer: &SocketAddr| if shown::are_masked() { "its address".to_owned() } else { entry(peer) };
        match self {
            Remedy::Own { here, elsewhere } => {
                write!(f, "to reach a server on this machine, add {} to peers.allow", entry(here))?;
                if here.port() == 0 {
                    write!(f, ", best with the server's ports")?;
                }
                match elsewhere {
                    None => Ok(()),
                    Some(peer) => {
                        let entry = entry(peer);
                        write!(f, "; to reach another machine behind this external address, add {entry}")
                    }
                }
            }
            Remedy::Other(peer) => {
                write!(f, "if clients need this peer, add {} to peers.allow", foreign(peer))
            }
            Remedy::Listener(peer) | Remedy::ListenerDenied(peer) => {
                let entry = foreign(peer);
                write!(
                    f,
                    "the client's listener has peers of its own: if its clients need this peer, add {entry} to peers.allow of \
                     that [[listener]]"
                )?;
                match self {
                    Remedy::ListenerDenied(_) => write!(f, ", or deny less there"),
                    _ => Ok(()),
                }
            }
            Remedy::Overlay(peer) => write!(
                f,
                "an overlay of mode \"only\" limits clients to the peers that overlays name (`hairpin ctl peers` lists them): if \
                 clients need this peer, its owner must add {}",
                foreign(peer)
            ),
            Remedy::Endpoint => {
                write!(f, "no rule opens it; a server on this machine, such as an SFU, needs another port")
            }
            Remedy::Denied(peer) => {
                write!(f, "if clients need this peer, add {} to peers.allow, or deny less", foreign(peer))
            }
        }
    }
}
