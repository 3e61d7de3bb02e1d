//! The values of PASSWORD-ALGORITHMS and PASSWORD-ALGORITHM: RFC 8489 §14.11, §14.12 and §18.5. Both algorithms have empty
//! parameters, so each entry takes four bytes and needs no padding.

/// Derives a key from a password (RFC 8489 §18.5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PasswordAlgorithm {
    /// 0x0001, the only algorithm before RFC 8489.
    Md5,
    /// 0x0002.
    Sha256,
}

impl PasswordAlgorithm {
    /// Decodes PASSWORD-ALGORITHM. Returns `None` for an unknown algorithm or one with parameters.
    pub(super) fn from_value(value: &[u8]) -> Option<PasswordAlgorithm> {
        match value {
            [0, 1, 0, 0] => Some(PasswordAlgorithm::Md5),
            [0, 2, 0, 0] => Some(PasswordAlgorithm::Sha256),
            _ => None,
        }
    }
}

/// The algorithms offered in every challenge, in order of preference.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum AlgorithmOffer {
    /// SHA-256, then MD5.
    Both,
    /// Only MD5, because some user has no other key.
    Md5,
}

impl AlgorithmOffer {
    /// The value of PASSWORD-ALGORITHMS.
    pub(super) fn value(self) -> &'static [u8] {
        match self {
            AlgorithmOffer::Both => &[0, 2, 0, 0, 0, 1, 0, 0],
            AlgorithmOffer::Md5 => &[0, 1, 0, 0],
        }
    }

    /// Decodes the list that a client repeats. Returns `None` for a list that this server never sends.
    pub(super) fn from_value(value: &[u8]) -> Option<AlgorithmOffer> {
        [AlgorithmOffer::Both, AlgorithmOffer::Md5].into_iter().find(|offer| offer.value() == value)
    }

    pub(super) fn includes(self, algorithm: PasswordAlgorithm) -> bool {
        self == AlgorithmOffer::Both || algorithm == PasswordAlgorithm::Md5
    }
}
