//! PASSWORD-ALGORITHMS and PASSWORD-ALGORITHM: what is offered, and what a request chose. RFC 8489 §14.11, §14.12
//! and §18.5. Both algorithms have empty parameters, so each entry is four bytes and needs no padding.

use super::credential::PasswordAlgorithm;

/// The list of every challenge, in preferential order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Offer {
    /// SHA-256, then MD5.
    Both,
    /// MD5 alone, since some user has no other key.
    Md5,
}

impl Offer {
    /// The value of PASSWORD-ALGORITHMS.
    pub(super) fn value(self) -> &'static [u8] {
        match self {
            Offer::Both => &[0, 2, 0, 0, 0, 1, 0, 0],
            Offer::Md5 => &[0, 1, 0, 0],
        }
    }

    /// The offer a client repeats; `None` is a list that this server never sends.
    pub(super) fn from_value(value: &[u8]) -> Option<Offer> {
        [Offer::Both, Offer::Md5].into_iter().find(|offer| offer.value() == value)
    }

    pub(super) fn includes(self, algorithm: PasswordAlgorithm) -> bool {
        self == Offer::Both || algorithm == PasswordAlgorithm::Md5
    }
}

impl PasswordAlgorithm {
    /// The value of PASSWORD-ALGORITHM; `None` is an unknown one, or one with parameters.
    pub(super) fn from_value(value: &[u8]) -> Option<PasswordAlgorithm> {
        match value {
            [0, 1, 0, 0] => Some(PasswordAlgorithm::Md5),
            [0, 2, 0, 0] => Some(PasswordAlgorithm::Sha256),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 8489 §14.11: algorithm numbers and parameter lengths, the preferred one first.
    #[test]
    fn offers_are_lists_of_their_algorithms() {
        for offer in [Offer::Both, Offer::Md5] {
            let listed: Vec<_> = offer.value().chunks(4).map(PasswordAlgorithm::from_value).collect();
            let expected: Vec<_> = [PasswordAlgorithm::Sha256, PasswordAlgorithm::Md5]
                .into_iter()
                .filter(|&algorithm| offer.includes(algorithm))
                .map(Some)
                .collect();
            assert_eq!(listed, expected);
            assert_eq!(Offer::from_value(offer.value()), Some(offer));
        }
    }

    /// RFC 8489 §14.11, §14.12: another order, a rest, a parameter are something else.
    #[test]
    fn other_values_are_unknown() {
        let lists: [&[u8]; 4] =
            [&[], &[0, 1, 0, 0, 0, 2, 0, 0], &[0, 2, 0, 0], &[0, 2, 0, 0, 0, 1, 0, 0, 0, 3, 0, 0]];
        for list in lists {
            assert_eq!(Offer::from_value(list), None, "{list:?}");
        }
        let values: [&[u8]; 6] = [
            &[],
            &[0, 1],
            &[0, 0, 0, 0],
            &[0, 3, 0, 0],
            &[0, 2, 0, 4, 1, 1, 1, 1],
            &[0, 1, 0, 0, 0, 0, 0, 0],
        ];
        for value in values {
            assert_eq!(PasswordAlgorithm::from_value(value), None, "{value:?}");
        }
    }
}
