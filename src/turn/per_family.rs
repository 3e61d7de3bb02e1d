//! A value for each address family.

use std::ops::{Index, IndexMut};

use crate::wire::Family;

/// One value for IPv4 and one for IPv6.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct PerFamily<T> {
    /// The value for IPv4.
    pub v4: T,
    /// The value for IPv6.
    pub v6: T,
}

/// The address families that are wanted or available.
pub type Families = PerFamily<bool>;

impl<T> PerFamily<T> {
    /// The value of each family as `make` returns it, IPv4 first.
    pub fn from_fn(mut make: impl FnMut(Family) -> T) -> PerFamily<T> {
        PerFamily { v4: make(Family::V4), v6: make(Family::V6) }
    }

    /// Converts both values, IPv4 first.
    pub fn map<U>(self, mut convert: impl FnMut(T) -> U) -> PerFamily<U> {
        PerFamily { v4: convert(self.v4), v6: convert(self.v6) }
    }

    /// References to both values.
    pub fn as_ref(&self) -> PerFamily<&T> {
        PerFamily { v4: &self.v4, v6: &self.v6 }
    }

    /// Both families with their values, IPv4 first.
    pub fn iter(&self) -> impl Iterator<Item = (Family, &T)> {
        self.as_ref().into_iter()
    }
}

impl<T> PerFamily<Option<T>> {
    /// The families that have a value, with that value, IPv4 first.
    pub fn present(&self) -> impl Iterator<Item = (Family, &T)> {
        self.iter().filter_map(|(family, value)| Some((family, value.as_ref()?)))
    }
}

impl<T> IntoIterator for PerFamily<T> {
    type Item = (Family, T);
    type IntoIter = std::array::IntoIter<(Family, T), 2>;

    fn into_iter(self) -> Self::IntoIter {
        [(Family::V4, self.v4), (Family::V6, self.v6)].into_iter()
    }
}

impl<T> Index<Family> for PerFamily<T> {
    type Output = T;

    fn index(&self, family: Family) -> &T {
        match family {
            Family::V4 => &self.v4,
            Family::V6 => &self.v6,
        }
    }
}

impl<T> IndexMut<Family> for PerFamily<T> {
    fn index_mut(&mut self, family: Family) -> &mut T {
        match family {
            Family::V4 => &mut self.v4,
            Family::V6 => &mut self.v6,
        }
    }
}
