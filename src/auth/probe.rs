//! The reserved user of probes: `hairpin-probe:<expiry>:<random>`, with a password that only this process can make. A program that
//! looks after the relay, such as the sidecar, gets such a credential from the admin API whatever users and secrets are configured,
//! and tests the relay as a client would. What it allocates is neither load nor anybody's quota.
//!
//! A static user cannot have such a name, and no shared secret makes its password.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use super::account::PROBE_USER;
use super::algorithms::PasswordAlgorithm;
use super::credential::{Credential, Key};
use super::nonce::NonceKeys;
use super::origin::Origin;

/// How long a credential can make allocations, in seconds.
const LIFETIME: u64 = 300;

/// Bytes of the random part.
const RANDOM: usize = 9;

/// A credential for a probe.
#[derive(Clone)]
pub struct ProbeCredential {
    /// The user name.
    pub username: String,
    /// The password.
    pub password: String,
    /// The realm of this relay.
    pub realm: String,
    /// Until when it can make allocations, in Unix seconds.
    pub expires: u64,
}

/// Makes and verifies the passwords of probes, with keys that last as long as those of the nonces.
pub(super) struct ProbeKeys {
    current: Hmac<Sha256>,
    previous: Option<Hmac<Sha256>>,
}

/// The user name of a probe.
pub(super) struct ProbeName<'a> {
    username: &'a str,
    expires: u64,
}

impl<'a> ProbeName<'a> {
    pub(super) fn parse(username: &'a str) -> Option<ProbeName<'a>> {
        let (expires, random) = username.strip_prefix(PROBE_USER)?.strip_prefix(':')?.split_once(':')?;
        let is_number = !random.is_empty() && expires.bytes().all(|byte| byte.is_ascii_digit());
        Some(ProbeName { username, expires: expires.parse().ok().filter(|_| is_number)? })
    }

    /// When it expires, in Unix seconds.
    pub(super) fn expires(&self) -> u64 {
        self.expires
    }
}

impl ProbeKeys {
    pub(super) fn new(keys: &NonceKeys) -> ProbeKeys {
        let hmac = |key: &[u8]| Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes keys of any length");
        let derive = |key: &[u8; 32]| hmac(&hmac(key).chain_update("hairpin probe").finalize().into_bytes());
        ProbeKeys { current: derive(&keys.current), previous: keys.previous.as_ref().map(derive) }
    }

    pub(super) fn issue(&self, unix: u64, realm: &str, random: [u8; RANDOM]) -> ProbeCredential {
        let expires = unix.saturating_add(LIFETIME);
        let random: String = random.iter().map(|byte| format!("{byte:02x}")).collect();
        let username = format!("{PROBE_USER}:{expires}:{random}");
        let password = password(&self.current, &username);
        ProbeCredential { username, password, realm: realm.to_owned(), expires }
    }

    pub(super) fn verify(
        &self,
        name: &ProbeName<'_>,
        realm: &str,
        algorithm: PasswordAlgorithm,
        origin: Origin,
        verify_key: impl Fn(&[u8]) -> bool,
    ) -> Option<Credential> {
        let keys = std::iter::once(&self.current).chain(&self.previous);
        keys.map(|key| Key::derive(algorithm, name.username, realm, password(key, name.username).as_bytes()))
            .find(|key| verify_key(key.as_bytes()))
            .map(|key| Credential::of_probe(name.username, name.expires, origin, key))
    }
}

fn password(key: &Hmac<Sha256>, username: &str) -> String {
    STANDARD.encode(key.clone().chain_update(username).finalize().into_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_probes_are_reserved() {
        for (name, reserved, expires) in [
            ("hairpin-probe:1700000000:ab12", true, Some(1_700_000_000)),
            ("hairpin-probe:5:1700000000", true, Some(5)),
            ("hairpin-probe", true, None),
            ("hairpin-probe:", true, None),
            ("hairpin-probe:5", true, None),
            ("hairpin-probe:5:", true, None),
            ("hairpin-probe::ab", true, None),
            ("hairpin-probe:+5:ab", true, None),
            ("hairpin-probe:18446744073709551616:ab", true, None),
            ("hairpin-probes:5:ab", false, None),
            ("1700000000:hairpin-probe", false, None),
            ("alice", false, None),
            ("", false, None),
        ] {
            assert_eq!(crate::auth::is_reserved(name), reserved, "{name}");
            assert_eq!(ProbeName::parse(name).map(|name| name.expires), expires, "{name}");
        }
    }

    /// Each process has keys of its own, so another relay's probes are strangers.
    #[test]
    fn passwords_depend_on_the_process_and_the_name() {
        let keys = |byte| ProbeKeys::new(&NonceKeys { current: [byte; 32], previous: None });
        let issued = keys(1).issue(1000, "example.org", [7; RANDOM]);
        assert_eq!(
            (issued.username.as_str(), issued.expires),
            ("hairpin-probe:1300:070707070707070707", 1300)
        );
        assert_eq!(issued.password, password(&keys(1).current, &issued.username));
        assert_ne!(issued.password, password(&keys(2).current, &issued.username));
        assert_ne!(issued.password, keys(1).issue(1001, "example.org", [7; RANDOM]).password);
    }
}
