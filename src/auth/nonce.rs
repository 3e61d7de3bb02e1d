//! Nonces that need no memory: RFC 8489 §9.2, §9.2.4, §18.1 with erratum 6290, RFC 8656 §5.
//!
//! A nonce is the 13 characters of the nonce cookie and 19 of base64url: the second it was made, and 80 bits of an
//! HMAC-SHA256 over that second, the client's address and port, the cookie's features and the algorithms offered with
//! it. Whoever has the key can tell a nonce of its own from any other, and everyone else can only repeat one. It is
//! not single-use: within its lifetime the client it was made for may use it as often as it likes, as §9.2.3.2 wants.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use super::algorithms::Offer;

/// RFC 8489 §18.1, erratum 6290: bit 0 is the rightmost of the 24.
pub(super) const PASSWORD_ALGORITHMS: u32 = 1 << 0;
pub(super) const USERNAME_ANONYMITY: u32 = 1 << 1;

/// RFC 8489 §9.2: how every nonce of a server that follows it begins.
const MARK: &[u8] = b"obMatJos2";
const COOKIE: usize = MARK.len() + 4;

/// A whole nonce: 32 bytes, so that the attribute needs no padding.
const LEN: usize = COOKIE + 19;
const TAG: usize = 10;

/// Keys that nonces are made with; the same for all workers, and for all servers that share an address.
#[derive(Clone)]
pub struct NonceKeys {
    /// Makes and checks.
    pub current: [u8; 32],
    /// Only checks: the key before, so that replacing it makes no nonce stale at once.
    pub previous: Option<[u8; 32]>,
}

impl fmt::Debug for NonceKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("NonceKeys(***)")
    }
}

/// What became of a nonce that a client sent back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// Sent by this server to this client, and still valid.
    Fresh,
    /// Sent by this server to this client, its time over.
    Stale,
    /// Anything else.
    Foreign,
}

/// Makes and judges nonces.
pub(super) struct Nonces {
    current: Hmac<Sha256>,
    previous: Option<Hmac<Sha256>>,
    cookie: [u8; COOKIE],
    offer: Offer,
    lifetime: u32,
}

impl Nonces {
    pub(super) fn new(keys: &NonceKeys, features: u32, offer: Offer, lifetime: u32) -> Nonces {
        let keyed = |key| Hmac::new_from_slice(key).expect("HMAC takes keys of any length");
        let mut cookie = [0; COOKIE];
        cookie[..MARK.len()].copy_from_slice(MARK);
        let [_, bits @ ..] = features.to_be_bytes();
        let written = STANDARD.encode_slice(bits, &mut cookie[MARK.len()..]);
        debug_assert_eq!(written, Ok(4), "24 bits are four characters");
        Nonces {
            current: keyed(&keys.current),
            previous: keys.previous.as_ref().map(|key| keyed(key)),
            cookie,
            offer,
            lifetime,
        }
    }

    /// RFC 8489 §9.2.4: never the same for two clients.
    pub(super) fn make(&self, unix: u64, client: SocketAddr) -> [u8; LEN] {
        let made = (unix as u32).to_be_bytes();
        let tag = self.tag(&self.current, made, client).finalize().into_bytes();
        let mut body = [0; 4 + TAG];
        body[..4].copy_from_slice(&made);
        body[4..].copy_from_slice(&tag[..TAG]);
        let mut nonce = [0; LEN];
        nonce[..COOKIE].copy_from_slice(&self.cookie);
        let written = URL_SAFE_NO_PAD.encode_slice(body, &mut nonce[COOKIE..]);
        debug_assert_eq!(written, Ok(LEN - COOKIE), "14 bytes are 19 characters");
        nonce
    }

    pub(super) fn judge(&self, unix: u64, client: SocketAddr, nonce: &[u8]) -> Standing {
        let Some(body) = nonce.strip_prefix(&self.cookie) else { return Standing::Foreign };
        let mut decoded = [0; 4 + TAG];
        if body.len() != LEN - COOKIE || URL_SAFE_NO_PAD.decode_slice_unchecked(body, &mut decoded).is_err() {
            return Standing::Foreign;
        }
        let [t0, t1, t2, t3, tag @ ..] = decoded;
        let made = [t0, t1, t2, t3];
        let ours = |key| self.tag(key, made, client).verify_truncated_left(&tag).is_ok();
        if !ours(&self.current) && !self.previous.as_ref().is_some_and(ours) {
            return Standing::Foreign;
        }
        // One from the future has a huge age: the clock was set back, and its lifetime cannot be told any more.
        let age = (unix as u32).wrapping_sub(u32::from_be_bytes(made));
        if age < self.lifetime { Standing::Fresh } else { Standing::Stale }
    }

    /// Fields of fixed size, so that no two inputs read the same.
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
        // A link-local address is a client's only together with its link.
        if let SocketAddr::V6(v6) = client {
            mac.update(&v6.scope_id().to_be_bytes());
        }
        mac
    }
}

/// The security features of any nonce, also of one that is not ours; `None` if it has no nonce cookie (RFC 8489 §9.2).
pub(super) fn features(nonce: &[u8]) -> Option<u32> {
    let coded = nonce.strip_prefix(MARK)?.get(..4)?;
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
        Nonces::new(keys, PASSWORD_ALGORITHMS, Offer::Both, 3600)
    }

    fn client() -> SocketAddr {
        "192.0.2.1:5000".parse().unwrap()
    }

    /// RFC 8489 §9.2, §18.1, erratum 6290: `AAAB` is password algorithms, `AAAD` both features, as `AAAC` of Appendix
    /// B.1 is username anonymity.
    #[test]
    fn cookie_bits_count_from_the_right() {
        for (bits, text) in [
            (0, "obMatJos2AAAA"),
            (PASSWORD_ALGORITHMS, "obMatJos2AAAB"),
            (USERNAME_ANONYMITY, "obMatJos2AAAC"),
            (PASSWORD_ALGORITHMS | USERNAME_ANONYMITY, "obMatJos2AAAD"),
        ] {
            let nonce = Nonces::new(&keys(1), bits, Offer::Both, 60).make(NOW, client());
            assert!(nonce.starts_with(text.as_bytes()), "{}", String::from_utf8_lossy(&nonce));
            assert_eq!(features(&nonce), Some(bits));
        }
        assert_eq!(features(b"obMatJos2AAAC//499k954d6OL34oL9FSTvy64sA"), Some(USERNAME_ANONYMITY));
        assert_eq!(features(b"obMatJos2gAAA"), Some(0x80_0000));
        for without in
            ["", "obMatJos2", "obMatJos2AAA", "obMatJos2AA==", "obMatJos2A-_A", "obmatjos2AAAB", "xyz"]
        {
            assert_eq!(features(without.as_bytes()), None, "{without}");
        }
    }

    /// RFC 8489 §14.10: fewer than 128 characters, all of them qdtext; short, as unauthenticated answers carry it.
    #[test]
    fn nonces_are_short_text() {
        let nonce = nonces(&keys(1)).make(NOW, client());
        assert_eq!(nonce.len(), 32);
        assert!(nonce.iter().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(byte)));
    }

    /// RFC 8656 §5: a nonce expires; RFC 8489 §9.2.4: then it is stale. So is one from the future.
    #[test]
    fn a_nonce_lives_its_lifetime() {
        let nonces = nonces(&keys(1));
        let nonce = nonces.make(NOW, client());
        for (later, standing) in [
            (0, Standing::Fresh),
            (3599, Standing::Fresh),
            (3600, Standing::Stale),
            (86_400, Standing::Stale),
            (-1, Standing::Stale),
            (-3600, Standing::Stale),
        ] {
            assert_eq!(nonces.judge(NOW.wrapping_add_signed(later), client(), &nonce), standing, "{later}");
        }
    }

    /// RFC 8656 §5: nonces expire after 2106 as before.
    #[test]
    fn time_may_pass_what_32_bits_hold() {
        let nonces = nonces(&keys(1));
        let late = u64::from(u32::MAX);
        let nonce = nonces.make(late, client());
        assert_eq!(nonces.judge(late + 10, client(), &nonce), Standing::Fresh);
        assert_eq!(nonces.judge(late + 3600, client(), &nonce), Standing::Stale);
    }

    /// RFC 8489 §9.2.4: not the same nonce for another address or port, and it is worth nothing there.
    #[test]
    fn a_nonce_is_one_clients() {
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
                let expected = if made_for == used_by { Standing::Fresh } else { Standing::Foreign };
                assert_eq!(nonces.judge(NOW, used_by, &nonce), expected, "{made_for} {used_by}");
                assert_eq!(nonces.make(NOW, used_by) == nonce, made_for == used_by);
            }
        }
    }

    /// RFC 8489 §9.2: the flow label is no part of the source address and port.
    #[test]
    fn a_flow_label_changes_nothing() {
        let nonces = nonces(&keys(1));
        let with = |flow| SocketAddr::V6(SocketAddrV6::new(Ipv6Addr::LOCALHOST, 5000, flow, 0));
        assert_eq!(nonces.judge(NOW, with(7), &nonces.make(NOW, with(9))), Standing::Fresh);
    }

    /// RFC 8489 §9.2.4: while a key is replaced, the nonces made with it stay valid.
    #[test]
    fn the_previous_key_still_checks_and_no_longer_makes() {
        let old = nonces(&keys(1));
        let new = nonces(&NonceKeys { current: [2; 32], previous: Some([1; 32]) });
        let newer = nonces(&NonceKeys { current: [3; 32], previous: Some([2; 32]) });
        let nonce = old.make(NOW, client());
        assert_eq!(new.judge(NOW, client(), &nonce), Standing::Fresh);
        assert_eq!(new.judge(NOW + 3600, client(), &nonce), Standing::Stale);
        assert_eq!(newer.judge(NOW, client(), &nonce), Standing::Foreign);
        assert_eq!(old.judge(NOW, client(), &new.make(NOW, client())), Standing::Foreign);
        assert_eq!(newer.judge(NOW, client(), &new.make(NOW, client())), Standing::Fresh);
    }

    /// RFC 8489 §9.2.1: features and algorithms cannot be changed on the way without making another nonce of it.
    #[test]
    fn a_nonce_is_bound_to_what_it_was_sent_with() {
        let make = |features, offer| Nonces::new(&keys(1), features, offer, 3600);
        let kinds = [
            make(PASSWORD_ALGORITHMS, Offer::Both),
            make(PASSWORD_ALGORITHMS, Offer::Md5),
            make(PASSWORD_ALGORITHMS | USERNAME_ANONYMITY, Offer::Both),
            make(PASSWORD_ALGORITHMS | USERNAME_ANONYMITY, Offer::Md5),
        ];
        for (i, sender) in kinds.iter().enumerate() {
            let nonce = sender.make(NOW, client());
            for (j, judge) in kinds.iter().enumerate() {
                let expected = if i == j { Standing::Fresh } else { Standing::Foreign };
                assert_eq!(judge.judge(NOW, client(), &nonce), expected, "{i} {j}");
                // The body of one under the cookie of the other.
                let mut moved = judge.make(NOW, client());
                moved[COOKIE..].copy_from_slice(&nonce[COOKIE..]);
                assert_eq!(judge.judge(NOW, client(), &moved), expected, "{i} {j}");
            }
        }
    }

    proptest! {
        /// RFC 8489 §9.2: only the server that made a nonce can make it, so any change makes it foreign.
        #[test]
        fn a_changed_nonce_is_foreign(at in 0..LEN, to: u8, cut in 0..LEN) {
            let nonces = nonces(&keys(1));
            let nonce = nonces.make(NOW, client());
            let mut changed = nonce;
            changed[at] = to;
            prop_assume!(changed != nonce);
            prop_assert_eq!(nonces.judge(NOW, client(), &changed), Standing::Foreign);
            prop_assert_eq!(nonces.judge(NOW, client(), &nonce[..cut]), Standing::Foreign);
            let longer = [&nonce[..], &[to]].concat();
            prop_assert_eq!(nonces.judge(NOW, client(), &longer), Standing::Foreign);
        }

        /// RFC 8489 §14.10: a NONCE may hold anything.
        #[test]
        fn any_bytes_are_judged(bytes: Vec<u8>) {
            features(&bytes);
            prop_assert_eq!(nonces(&keys(1)).judge(NOW, client(), &bytes), Standing::Foreign);
        }

        /// RFC 8489 §9.2.4: what was made is accepted, for any client at any time.
        #[test]
        fn a_nonce_comes_back(unix: u32, age in 0..3600_u64, ip: IpAddr, port: u16, key: [u8; 32]) {
            let nonces = nonces(&NonceKeys { current: key, previous: None });
            let client = SocketAddr::new(ip, port);
            let unix = u64::from(unix);
            prop_assert_eq!(nonces.judge(unix + age, client, &nonces.make(unix, client)), Standing::Fresh);
        }
    }
}
