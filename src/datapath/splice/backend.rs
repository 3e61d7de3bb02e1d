//! The address of a server that connections are passed on to, as an operator writes it.

use std::fmt;

/// A server that connections are passed on to.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Backend {
    /// A host name, which is resolved for each connection, or an IP address.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// Connections to it begin with a header of the PROXY protocol, version 2.
    pub send_proxy: bool,
}

impl fmt::Display for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host.contains(':') {
            true => write!(f, "[{}]:{}", self.host, self.port),
            false => write!(f, "{}:{}", self.host, self.port),
        }
    }
}
