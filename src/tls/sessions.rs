//! What TLS sessions are resumed with (RFC 8446 section 2.2, RFC 5077): one set of keys for the whole life of the process, shared
//! by every worker and every certificate, so that a session made before a certificate was renewed resumes after it.
//!
//! A ticket holds the name that the client asked for, and rustls resumes a session only for the same name (RFC 6066 section 3);
//! with another name, or after the choice of certificate has made a cipher suite impossible, the handshake is a full one. Whether
//! a name is served at all is decided before any ticket is looked at. Keys are in memory only, and replaced every 6 hours.

use std::fmt;
use std::mem;
use std::sync::{Arc, Mutex, PoisonError};

use rustls::Error;
use rustls::crypto::aws_lc_rs::Ticketer;
use rustls::pki_types::UnixTime;
use rustls::server::{ProducesTickets, ServerSessionMemoryCache, StoresServerSessions};

/// Sessions of clients of TLS 1.2 that take no tickets: the most that are kept.
const STORED: usize = 1024;

/// How long a key encrypts tickets, in seconds. It decrypts them for as long again.
const KEY_LIFE: u32 = 6 * 60 * 60;

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
    pub fn new() -> Result<Sessions, Error> {
        Sessions::rotating(KEY_LIFE, || UnixTime::now().as_secs())
    }

    /// New keys, each of which encrypts tickets for `key_life` seconds of a clock and decrypts them for as long again.
    ///
    /// # Errors
    /// The system has no random numbers.
    pub fn rotating(
        key_life: u32,
        clock: impl Fn() -> u64 + Send + Sync + 'static,
    ) -> Result<Sessions, Error> {
        let keys = Keys { current: Ticketer::new()?, previous: None, since: clock() };
        let ticketer = Rotation { key_life, clock: Box::new(clock), keys: Mutex::new(keys) };
        Ok(Sessions { ticketer: Arc::new(ticketer), storage: ServerSessionMemoryCache::new(STORED) })
    }
}

impl fmt::Debug for Sessions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Sessions")
    }
}

/// Replaces keys as time passes. The rotation of rustls depends on handshakes: after a quiet night, the first client could still
/// resume with a key of the evening before.
struct Rotation {
    key_life: u32,
    clock: Box<dyn Fn() -> u64 + Send + Sync>,
    keys: Mutex<Keys>,
}

/// Keys of AES-256 and HMAC-SHA256 (RFC 5077 section 4).
#[derive(Clone)]
struct Keys {
    current: Arc<dyn ProducesTickets>,
    previous: Option<Arc<dyn ProducesTickets>>,
    /// When `current` has replaced `previous`.
    since: u64,
}

impl Keys {
    /// Replaces what is too old, also when nobody has asked for a long time.
    fn rotate(&mut self, now: u64, key_life: u64) -> Result<(), Error> {
        let periods = now.saturating_sub(self.since) / key_life.max(1);
        if periods > 0 {
            let outdated = mem::replace(&mut self.current, Ticketer::new()?);
            self.previous = (periods == 1).then_some(outdated);
            self.since += periods * key_life;
        }
        Ok(())
    }
}

impl Rotation {
    /// The keys of now; `None` if there are no random numbers for new ones.
    fn keys(&self) -> Option<Keys> {
        let now = (self.clock)();
        // Keys are replaced by whole values.
        let mut keys = self.keys.lock().unwrap_or_else(PoisonError::into_inner);
        keys.rotate(now, self.key_life.into()).ok()?;
        Some(keys.clone())
    }
}

impl ProducesTickets for Rotation {
    fn enabled(&self) -> bool {
        true
    }

    fn lifetime(&self) -> u32 {
        self.key_life.saturating_mul(2)
    }

    fn encrypt(&self, plain: &[u8]) -> Option<Vec<u8>> {
        self.keys()?.current.encrypt(plain)
    }

    fn decrypt(&self, ticket: &[u8]) -> Option<Vec<u8>> {
        let keys = self.keys()?;
        keys.current.decrypt(ticket).or_else(|| keys.previous?.decrypt(ticket))
    }
}

impl fmt::Debug for Rotation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Rotation")
    }
}
