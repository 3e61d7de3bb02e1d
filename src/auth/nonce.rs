//! Stateless nonces: RFC 8489 §9.2, §9.2.4, §18.1 with erratum 6290, RFC 8656 §5.
//!
//! ```text
//! obMatJos2 | features  | time made | HMAC-SHA256, truncated
//! 9 chars   | 4, base64 | 4 bytes   | 10 bytes
//!                       |   19 characters of base64url   |
//! ```
//!
//! The HMAC covers the time in seconds, the client's address and port, the features and the algorithms offered, so only the
//! holder of the key can make a nonce. A nonce is not single-use: as RFC 8489 §9.2.3.2 requires, the client may reuse it
//! during its lifetime.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use super::algorithms::AlgorithmOffer;

/// RFC 8489 §18.1, erratum 6290: bit 0 is the least significant of the 24.
pub(super) const PASSWORD_ALGORITHMS: u32 = 1 << 0;
pub(super) const USERNAME_ANONYMITY: u32 = 1 << 1;

/// The constant start of the nonce cookie (RFC 8489 §9.2).
const COOKIE_PREFIX: &[u8] = b"obMatJos2";
const COOKIE_LEN: usize = COOKIE_PREFIX.len() + 4;

/// A nonce has 32 bytes, so that the attribute needs no padding.
const NONCE_LEN: usize = COOKIE_LEN + 19;
const TAG_LEN: usize = 10;

/// The NONCE of a response that sends a client to another server (300). libwebrtc signs its first request there with it, and gives up
/// if that is refused with 401 or 438, as nonces of other servers are. It begins anew, without a nonce, after a 437: that is
/// what the other server answers an Allocate with this nonce. It is no secret and proves nothing.
pub const REDIRECTED: &[u8] = b"sent here by another relay";

/// Keys of the nonces' HMAC, shared by all workers and by all servers behind the same address.
#[derive(Clone)]
pub struct NonceKeys {
    /// Makes and validates nonces.
    pub current: [u8; 32],
    /// The key before a rotation, which only validates, so that nonces in use remain valid.
    pub previous: Option<[u8; 32]>,
}

impl fmt::Debug for NonceKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("NonceKeys(***)")
    }
}

/// The status of a nonce received from a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NonceStatus {
    /// Made by this server for this client, and still valid.
    Valid,
    /// Made by this server for this client, and expired.
    Stale,
    /// Anything else.
    Foreign,
}

/// Makes and validates nonces.
pub(super) struct Nonces {
    current: Hmac<Sha256>,
    previous: Option<Hmac<Sha256>>,
    cookie: [u8; COOKIE_LEN],
    offer: AlgorithmOffer,
    lifetime: u32,
}

impl Nonces {
    pub(super) fn new(keys: &NonceKeys, features: u32, offer: AlgorithmOffer, lifetime: u32) -> Nonces {
        let keyed = |key| Hmac::new_from_slice(key).expect("HMAC takes keys of any length");
        let mut cookie = [0; COOKIE_LEN];
        cookie[..COOKIE_PREFIX.len()].copy_from_slice(COOKIE_PREFIX);
        let [_, bits @ ..] = features.to_be_bytes();
        let written = STANDARD.encode_slice(bits, &mut cookie[COOKIE_PREFIX.len()..]);
        debug_assert_eq!(written, Ok(4), "24 bits take four characters");
        Nonces {
            current: keyed(&keys.current),
            previous: keys.previous.as_ref().map(|key| keyed(key)),
            cookie,
            offer,
            lifetime,
        }
    }

    /// RFC 8489 §9.2.4: different for each client.
    pub(super) fn make(&self, unix: u64, client: SocketAddr) -> [u8; NONCE_LEN] {
        let made = (unix as u32).to_be_bytes();
        let tag = self.tag(&self.current, made, client).finalize().into_bytes();
        let mut body = [0; 4 + TAG_LEN];
        body[..4].copy_from_slice(&made);
        body[4..].copy_from_slice(&tag[..TAG_LEN]);
        let mut nonce = [0; NONCE_LEN];
        nonce[..COOKIE_LEN].copy_from_slice(&self.cookie);
        let written = URL_SAFE_NO_PAD.encode_slice(body, &mut nonce[COOKIE_LEN..]);
        debug_assert_eq!(written, Ok(NONCE_LEN - COOKIE_LEN), "14 bytes take 19 characters");
        nonce
    }

    pub(super) fn validate(&self, unix: u64, client: SocketAddr, nonce: &[u8]) -> NonceStatus {
        let Some(body) = nonce.strip_prefix(&self.cookie) else { return NonceStatus::Foreign };
        let mut decoded = [0; 4 + TAG_LEN];
        if body.len() != NONCE_LEN - COOKIE_LEN
            || URL_SAFE_NO_PAD.decode_slice_unchecked(body, &mut decoded).is_err()
        {
            return NonceStatus::Foreign;
        }
        let [t0, t1, t2, t3, tag @ ..] = decoded;
        let made = [t0, t1, t2, t3];
        let ours = |key| self.tag(key, made, client).verify_truncated_left(&tag).is_ok();
        if !ours(&self.current) && !self.previous.as_ref().is_some_and(ours) {
            return NonceStatus::Foreign;
        }
        // The age of a nonce from the future is huge. The clock was set back, so its lifetime cannot be measured.
        let age = (unix as u32).wrapping_sub(u32::from_be_bytes(made));
        if age < self.lifetime { NonceStatus::Valid } else { NonceStatus::Stale }
    }

    /// All fields have a fixed size, so that different inputs never concatenate to the same bytes.
    fn tag(&self, key: &Hmac<Sha256>, made: [u8; 4], client: SocketAddr) -> Hmac<Sha256> {
        let mut mac = key.clone();
        mac.update(&self.cookie);
        mac.update(&[self.offer as u8]);
        mac.update(&made);
        match client.ip() {
            IpAddr::V4(ip) => mac.update(&ip.octets()),
            IpAddr::V6(ip) => mac.update(&ip.octets()),
        }
        mac.update(&client.port().to_be_bytes());
        // A link-local address identifies a client only together with its scope.
        if let SocketAddr::V6(v6) = client {
            mac.update(&v6.scope_id().to_be_bytes());
        }
        mac
    }
}

/// The security features of a nonce, whoever made it. Returns `None` if it has no nonce cookie (RFC 8489 §9.2).
pub(super) fn features(nonce: &[u8]) -> Option<u32> {
    let coded = nonce.strip_prefix(COOKIE_PREFIX)?.get(..4)?;
    let mut bits = [0; 4];
    STANDARD.decode_slice_unchecked(coded, &mut bits[1..]).ok().filter(|&read| read == 3)?;
    Some(u32::from_be_bytes(bits))
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv6Addr, SocketAddrV6};

    use proptest::prelude::*;

    use super::*;

    const NOW: u64 = 1_700_000_000;

    fn keys(current: u8) -> NonceKeys {
        NonceKeys { current: [current; 32], previous: None }
    }

    fn nonces(keys: &NonceKeys) -> Nonces {
        Nonces::new(keys, PASSWORD_ALGORITHMS, AlgorithmOffer::Both, 3600)
    }

    fn client() -> SocketAddr {
        "192.0.2.1:5000".parse().unwrap()
    }

    /// RFC 8489 §9.2, §18.1, erratum 6290: `AAAB` is password algorithms, `AAAC` username anonymity as in Appendix B.1, and
    /// `AAAD` both.
    #[test]
    fn feature_bits_count_from_the_least_significant() {
        for (bits, text) in [
            (0, "obMatJos2AAAA"),
            (PASSWORD_ALGORITHMS, "obMatJos2AAAB"),
            (USERNAME_ANONYMITY, "obMatJos2AAAC"),
            (PASSWORD_ALGORITHMS | USERNAME_ANONYMITY, "obMatJos2AAAD"),
        ] {
            let nonce = Nonces::new(&keys(1), bits, AlgorithmOffer::Both, 60).make(NOW, client());
            assert!(nonce.starts_with(text.as_bytes()), "{}", String::from_utf8_lossy(&nonce));
            assert_eq!(features(&nonce), Some(bits));
        }
        assert_eq!(features(b"obMatJos2AAAC//499k954d6OL34oL9FSTvy64sA"), Some(USERNAME_ANONYMITY));
        assert_eq!(features(b"obMatJos2gAAA"), Some(0x80_0000));
        for invalid in
            ["", "obMatJos2", "obMatJos2AAA", "obMatJos2AA==", "obMatJos2A-_A", "obmatjos2AAAB", "xyz"]
        {
            assert_eq!(features(invalid.as_bytes()), None, "{invalid}");
        }
    }

    /// RFC 8489 §14.10: fewer than 128 characters of qdtext. Shorter is better, because unauthenticated responses carry it.
    #[test]
    fn a_nonce_is_short_text() {
        let nonce = nonces(&keys(1)).make(NOW, client());
        assert_eq!(nonce.len(), 32);
        assert!(nonce.iter().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(byte)));
    }

    /// RFC 8656 §5, RFC 8489 §9.2.4: a nonce becomes stale after its lifetime. One from the future is stale too.
    #[test]
    fn a_nonce_becomes_stale() {
        let nonces = nonces(&keys(1));
        let nonce = nonces.make(NOW, client());
        for (later, status) in [
            (0, NonceStatus::Valid),
            (3599, NonceStatus::Valid),
            (3600, NonceStatus::Stale),
            (86_400, NonceStatus::Stale),
            (-1, NonceStatus::Stale),
            (-3600, NonceStatus::Stale),
        ] {
            assert_eq!(nonces.validate(NOW.wrapping_add_signed(later), client(), &nonce), status, "{later}");
        }
    }

    /// RFC 8656 §5: nonces still expire when the 32-bit timestamp wraps in 2106.
    #[test]
    fn the_timestamp_may_wrap() {
        let nonces = nonces(&keys(1));
        let late = u64::from(u32::MAX);
        let nonce = nonces.make(late, client());
        assert_eq!(nonces.validate(late + 10, client(), &nonce), NonceStatus::Valid);
        assert_eq!(nonces.validate(late + 3600, client(), &nonce), NonceStatus::Stale);
    }

    /// RFC 8489 §9.2.4: another address or port gets another nonce, and each is invalid for the others.
    #[test]
    fn a_nonce_is_bound_to_the_client() {
        let nonces = nonces(&keys(1));
        let link = |scope| {
            SocketAddr::V6(SocketAddrV6::new(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1), 5000, 0, scope))
        };
        let clients = [
            client(),
            "192.0.2.1:5001".parse().unwrap(),
            "192.0.2.2:5000".parse().unwrap(),
            "[2001:db8::1]:5000".parse().unwrap(),
            "[::192.0.2.1]:5000".parse().unwrap(),
            link(1),
            link(2),
        ];
        for made_for in clients {
            let nonce = nonces.make(NOW, made_for);
            for used_by in clients {
                let expected = if made_for == used_by { NonceStatus::Valid } else { NonceStatus::Foreign };
                assert_eq!(nonces.validate(NOW, used_by, &nonce), expected, "{made_for} {used_by}");
                assert_eq!(nonces.make(NOW, used_by) == nonce, made_for == used_by);
            }
        }
    }

    /// RFC 8489 §9.2: the flow label is not part of the source address and port.
    #[test]
    fn the_flow_label_is_ignored() {
        let nonces = nonces(&keys(1));
        let with = |flow| SocketAddr::V6(SocketAddrV6::new(Ipv6Addr::LOCALHOST, 5000, flow, 0));
        assert_eq!(nonces.validate(NOW, with(7), &nonces.make(NOW, with(9))), NonceStatus::Valid);
    }

    /// RFC 8489 §9.2.4: nonces remain valid when their key becomes the previous one.
    #[test]
    fn the_previous_key_only_validates() {
        let old = nonces(&keys(1));
        let new = nonces(&NonceKeys { current: [2; 32], previous: Some([1; 32]) });
        let newer = nonces(&NonceKeys { current: [3; 32], previous: Some([2; 32]) });
        let nonce = old.make(NOW, client());
        assert_eq!(new.validate(NOW, client(), &nonce), NonceStatus::Valid);
        assert_eq!(new.validate(NOW + 3600, client(), &nonce), NonceStatus::Stale);
        assert_eq!(newer.validate(NOW, client(), &nonce), NonceStatus::Foreign);
        assert_eq!(old.validate(NOW, client(), &new.make(NOW, client())), NonceStatus::Foreign);
        assert_eq!(newer.validate(NOW, client(), &new.make(NOW, client())), NonceStatus::Valid);
    }

    /// RFC 8489 §9.2.1: a nonce is invalid with features or algorithms other than those it was sent with.
    #[test]
    fn a_nonce_is_bound_to_features_and_algorithms() {
        let make = |features, offer| Nonces::new(&keys(1), features, offer, 3600);
        let kinds = [
            make(PASSWORD_ALGORITHMS, AlgorithmOffer::Both),
            make(PASSWORD_ALGORITHMS, AlgorithmOffer::Md5),
            make(PASSWORD_ALGORITHMS | USERNAME_ANONYMITY, AlgorithmOffer::Both),
            make(PASSWORD_ALGORITHMS | USERNAME_ANONYMITY, AlgorithmOffer::Md5),
        ];
        for (i, sender) in kinds.iter().enumerate() {
            let nonce = sender.make(NOW, client());
            for (j, validator) in kinds.iter().enumerate() {
                let expected = if i == j { NonceStatus::Valid } else { NonceStatus::Foreign };
                assert_eq!(validator.validate(NOW, client(), &nonce), expected, "{i} {j}");
                // One nonce's body with the other's cookie.
                let mut moved = validator.make(NOW, client());
                moved[COOKIE_LEN..].copy_from_slice(&nonce[COOKIE_LEN..]);
                assert_eq!(validator.validate(NOW, client(), &moved), expected, "{i} {j}");
            }
        }
    }

    proptest! {
        /// RFC 8489 §9.2: any modification of a nonce makes it foreign.
        #[test]
        fn a_modified_nonce_is_foreign(at in 0..NONCE_LEN, to: u8, cut in 0..NONCE_LEN) {
            let nonces = nonces(&keys(1));
            let nonce = nonces.make(NOW, client());
            let mut changed = nonce;
            changed[at] = to;
            prop_assume!(changed != nonce);
            prop_assert_eq!(nonces.validate(NOW, client(), &changed), NonceStatus::Foreign);
            prop_assert_eq!(nonces.validate(NOW, client(), &nonce[..cut]), NonceStatus::Foreign);
            let longer = [&nonce[..], &[to]].concat();
            prop_assert_eq!(nonces.validate(NOW, client(), &longer), NonceStatus::Foreign);
        }

        /// RFC 8489 §14.10: arbitrary bytes in NONCE do not panic and are foreign.
        #[test]
        fn arbitrary_bytes_are_foreign(bytes: Vec<u8>) {
            features(&bytes);
            prop_assert_eq!(nonces(&keys(1)).validate(NOW, client(), &bytes), NonceStatus::Foreign);
        }

        /// RFC 8489 §9.2.4: a nonce is valid for its client during its lifetime.
        #[test]
        fn a_nonce_is_valid_for_its_client(unix: u32, age in 0..3600_u64, ip: IpAddr, port: u16, key: [u8; 32]) {
            let nonces = nonces(&NonceKeys { current: key, previous: None });
            let client = SocketAddr::new(ip, port);
            let unix = u64::from(unix);
            prop_assert_eq!(nonces.validate(unix + age, client, &nonces.make(unix, client)), NonceStatus::Valid);
        }
    }
}
