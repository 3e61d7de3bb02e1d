//! Enums whose values are counted, and their counters.

use std::fmt;
use std::ops::{Index, IndexMut};

/// An enum whose values are counted. [`counted!`] implements it.
pub trait Counted: Copy + 'static {
    /// One counter per value.
    type Array: AsRef<[u64]> + AsMut<[u64]> + Copy + Default + Eq;

    /// Every value, in the order of [`Counted::index`].
    const VALUES: &'static [Self];

    /// The index in an array of counters.
    fn index(self) -> usize;

    /// The name in metrics and logs.
    fn as_str(self) -> &'static str;
}

/// A counter for each value of an enum, indexed by the value.
pub struct Counters<E: Counted>(E::Array);

impl<E: Counted> Counters<E> {
    /// Every value with its counter.
    pub fn iter(&self) -> impl Iterator<Item = (E, u64)> {
        E::VALUES.iter().copied().zip(self.0.as_ref().iter().copied())
    }

    /// The sum of all counters.
    pub fn sum(&self) -> u64 {
        self.0.as_ref().iter().sum()
    }

    /// Adds each counter of `other`.
    pub fn add(&mut self, other: &Counters<E>) {
        for (value, count) in other.iter() {
            self[value] += count;
        }
    }
}

impl<E: Counted> Index<E> for Counters<E> {
    type Output = u64;

    fn index(&self, value: E) -> &u64 {
        &self.0.as_ref()[value.index()]
    }
}

impl<E: Counted> IndexMut<E> for Counters<E> {
    fn index_mut(&mut self, value: E) -> &mut u64 {
        &mut self.0.as_mut()[value.index()]
    }
}

impl<E: Counted> Clone for Counters<E> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<E: Counted> Copy for Counters<E> {}

impl<E: Counted> Default for Counters<E> {
    fn default() -> Self {
        Counters(E::Array::default())
    }
}

impl<E: Counted> PartialEq for Counters<E> {
    fn eq(&self, other: &Self) -> bool {
        self.0 == other.0
    }
}

impl<E: Counted> Eq for Counters<E> {}

impl<E: Counted> fmt::Debug for Counters<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.0.as_ref()).finish()
    }
}

/// Declares an enum with a name for each value, for metrics and logs, so that values, names and counters cannot disagree.
macro_rules! counted {
    (
        $(#[$meta:meta])*
        $vis:vis enum $name:ident {
            $($(#[$value_meta:meta])* $value:ident = $text:literal,)+
        }
    ) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        $vis enum $name {
            $($(#[$value_meta])* $value,)+
        }

        impl $name {
            /// Every value, in the order of declaration.
            pub const ALL: [$name; [$($text),+].len()] = [$($name::$value),+];

            /// The index in [`Self::ALL`].
            pub const fn index(self) -> usize {
                self as usize
            }

            /// The name in metrics and logs.
            pub const fn as_str(self) -> &'static str {
                match self {
                    $($name::$value => $text,)+
                }
            }
        }

        impl $crate::counted::Counted for $name {
            type Array = [u64; $name::ALL.len()];

            const VALUES: &'static [$name] = &$name::ALL;

            fn index(self) -> usize {
                $name::index(self)
            }

            fn as_str(self) -> &'static str {
                $name::as_str(self)
            }
        }
    };
}

pub(crate) use counted;

#[cfg(test)]
mod tests {
    use super::*;

    counted! {
        /// For this test.
        enum Fruit {
            /// An apple.
            Apple = "apple",
            /// A pear.
            Pear = "a_pear",
        }
    }

    #[test]
    fn each_value_has_its_counter_and_its_name() {
        let mut counters = Counters::<Fruit>::default();
        counters[Fruit::Pear] += 2;
        let mut sum = counters;
        sum.add(&counters);
        let named: Vec<_> = sum.iter().map(|(fruit, count)| (fruit.as_str(), count)).collect();
        assert_eq!((named, sum.sum()), (vec![("apple", 0), ("a_pear", 4)], 4));
    }
}
