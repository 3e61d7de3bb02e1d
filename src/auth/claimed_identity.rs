//! What a request claims about its sender before verification: RFC 8489 §14.3, §14.4, §14.9-14.12.

use super::algorithms::PasswordAlgorithm;
use super::credential::{Credential, userhash};
use super::prepare::strip_quotes;
use super::verdict::ResponseIntegrity;
use crate::wire::{Message, attribute};

/// RFC 8489 §14.3: the longest USERNAME that a server has to support, in bytes.
const USERNAME_MAX: usize = 763;

/// The authentication attributes of a request. Duplicates are ignored (RFC 8489 §14).
pub(super) struct ClaimedIdentity<'a> {
    pub name: ClaimedName<'a>,
    pub realm: &'a [u8],
    pub nonce: &'a [u8],
    /// PASSWORD-ALGORITHMS.
    pub offered: Option<&'a [u8]>,
    /// PASSWORD-ALGORITHM.
    pub chosen: Option<&'a [u8]>,
}

/// USERNAME or USERHASH. USERNAME takes precedence.
#[derive(Clone, Copy)]
pub(super) enum ClaimedName<'a> {
    Username(&'a str),
    Userhash(&'a [u8; 32]),
    Invalid,
}

impl<'a> ClaimedIdentity<'a> {
    /// Returns `None` if an attribute is missing that is needed to verify the integrity (RFC 8489 §9.2.4).
    pub(super) fn from_request(request: &Message<'a>) -> Option<ClaimedIdentity<'a>> {
        let (mut username, mut hash, mut realm, mut nonce) = (None, None, None, None);
        let (mut offered, mut chosen) = (None, None);
        for found in request.attributes() {
            let slot = match found.kind {
                attribute::USERNAME => &mut username,
                attribute::USERHASH => &mut hash,
                attribute::REALM => &mut realm,
                attribute::NONCE => &mut nonce,
                attribute::PASSWORD_ALGORITHMS => &mut offered,
                attribute::PASSWORD_ALGORITHM => &mut chosen,
                _ => continue,
            };
            slot.get_or_insert(found.value);
        }
        let name = match (username, hash) {
            (Some(value), _) => ClaimedName::username(value),
            // RFC 8489 §14.4: exactly 32 bytes.
            (None, Some(value)) => value.try_into().map_or(ClaimedName::Invalid, ClaimedName::Userhash),
            (None, None) => return None,
        };
        Some(ClaimedIdentity { name, realm: strip_quotes(realm?), nonce: nonce?, offered, chosen })
    }

    /// Whether the request claims the name of `known`.
    pub(super) fn names(&self, known: &Credential) -> bool {
        match self.name {
            ClaimedName::Username(name) => name == &**known.username(),
            ClaimedName::Userhash(hash) => *hash == userhash(known.username().as_bytes(), self.realm),
            ClaimedName::Invalid => false,
        }
    }

    /// The algorithm that the request names. `None` is an unknown one.
    pub(super) fn algorithm(&self) -> Option<PasswordAlgorithm> {
        // RFC 8489 §9.2.4: "processed as though PASSWORD-ALGORITHM were MD5"
        self.chosen.map_or(Some(PasswordAlgorithm::Md5), PasswordAlgorithm::from_value)
    }

    /// RFC 8489 §9.2.4: a client that names no algorithm may not support MESSAGE-INTEGRITY-SHA256. One that names MD5 and
    /// signs with MESSAGE-INTEGRITY alone may not either, although the RFC expects it: it gets both, of which any client
    /// verifies one.
    pub(super) fn response_integrity(&self, request: &Message<'_>) -> ResponseIntegrity {
        if self.offered.is_none() && self.chosen.is_none() {
            ResponseIntegrity::Sha1
        } else if !request.has_integrity_sha256() && self.algorithm() == Some(PasswordAlgorithm::Md5) {
            ResponseIntegrity::Both
        } else {
            ResponseIntegrity::Sha256
        }
    }
}

impl<'a> ClaimedName<'a> {
    fn username(value: &'a [u8]) -> ClaimedName<'a> {
        match str::from_utf8(strip_quotes(value)) {
            Ok(name) if name.len() <= USERNAME_MAX => ClaimedName::Username(name),
            _ => ClaimedName::Invalid,
        }
    }
}
