//! The names of allocations for operators.

use std::fmt;
use std::str::FromStr;
use std::sync::atomic::{AtomicU64, Ordering};

/// The name of an allocation for operators. It is unique in a process and stays with an allocation that moves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AllocationName(pub u64);

/// Names for the allocations of all servers of a process, in the order of their creation.
#[derive(Debug)]
pub struct AllocationNames(AtomicU64);

impl AllocationNames {
    /// Names from `first` on. It is random, so that a name of an earlier process hardly ever means another allocation.
    pub fn new(first: u64) -> AllocationNames {
        // Short enough to be typed, and followed by more names than there will ever be
        AllocationNames(AtomicU64::new(first >> 20))
    }

    pub(super) fn next(&self) -> AllocationName {
        AllocationName(self.0.fetch_add(1, Ordering::Relaxed))
    }
}

impl fmt::Display for AllocationName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:011x}", self.0)
    }
}

impl FromStr for AllocationName {
    type Err = AllocationNameError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        // Only digits, because `from_str_radix` accepts a leading plus sign.
        let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        let value = u64::from_str_radix(text, 16).ok().filter(|_| digits);
        value.map(AllocationName).ok_or(AllocationNameError)
    }
}

/// Text that is not the name of an allocation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not the id of an allocation, which has hexadecimal digits only")]
pub struct AllocationNameError;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_short_hexadecimal_numbers() {
        let names = AllocationNames::new(u64::MAX);
        let (one, two) = (names.next(), names.next());
        assert_eq!((one.to_string(), one < two), ("fffffffffff".into(), true));
        for name in [one, two, AllocationName(0), AllocationName(u64::MAX)] {
            assert_eq!(name.to_string().parse(), Ok(name));
        }
        for text in ["", "+1", "-1", " 1", "1 ", "0x1", "g", "10000000000000000"] {
            assert_eq!(text.parse::<AllocationName>(), Err(AllocationNameError), "{text:?}");
        }
    }
}
