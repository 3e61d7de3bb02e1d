//! What TLS sessions are resumed with (RFC 8446 section 2.2, RFC 5077): one set of keys for the whole life of the process, shared
//! by every worker and every certificate, so that a session made before a certificate was renewed resumes after it.
//!
//! A ticket holds the name that the client asked for, and rustls resumes a session only for the same name (RFC 6066 section 3);
//! with another name, or after the choice of certificate has made a cipher suite impossible, the handshake is a full one. Whether
//! a name is served at all is decided before any ticket is looked at. Keys of tickets are replaced every 6 hours, and a ticket is
//! accepted for at most 12; they are in memory only.

use std::fmt;
use std::sync::Arc;

use rustls::crypto::aws_lc_rs::Ticketer;
use rustls::server::{ProducesTickets, ServerSessionMemoryCache, StoresServerSessions};

/// Sessions of clients of TLS 1.2 that take no tickets: the most that are kept.
const STORED: usize = 1024;

/// The keys of tickets, and the sessions of clients that take none.
#[derive(Clone)]
pub struct Sessions {
    pub(super) ticketer: Arc<dyn ProducesTickets>,
    pub(super) storage: Arc<dyn StoresServerSessions>,
}

impl Sessions {
    /// New keys.
    ///
    /// # Errors
    /// The system has no random numbers.
    pub fn new() -> Result<Sessions, rustls::Error> {
        Ok(Sessions { ticketer: Ticketer::new()?, storage: ServerSessionMemoryCache::new(STORED) })
    }
}

impl fmt::Debug for Sessions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Sessions")
    }
}
