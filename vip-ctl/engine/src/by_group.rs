//! A list with a place for each group, which is asked by [`GroupId`]: so that a
//! number of a group and a place in a list are converted here and nowhere else.

use std::ops::{Index, IndexMut};

use super::config::GroupId;

impl GroupId {
    /// The group's place in a list that is sorted as the configuration is.
    #[must_use]
    pub fn place(self) -> usize {
        usize::from(self.0)
    }

    /// The group at this place; `None` beyond what a group's number can be.
    #[must_use]
    pub fn at(place: usize) -> Option<Self> {
        u16::try_from(place).ok().map(Self)
    }

    /// The first `count` groups, in order; at most 65,536, as many as there are numbers.
    pub fn first(count: usize) -> impl Iterator<Item = Self> + Clone + use<> {
        (0..=u16::MAX).map(Self).take(count)
    }
}

/// A `T` for each group, in the order of their numbers.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ByGroup<T>(Vec<T>);

impl<T> ByGroup<T> {
    /// For no group at all.
    #[must_use]
    pub const fn new() -> Self {
        Self(Vec::new())
    }

    /// What `of` says of each of the first `count` groups.
    pub fn from_fn(count: usize, of: impl FnMut(GroupId) -> T) -> Self {
        GroupId::first(count).map(of).collect()
    }

    /// For how many groups.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.0.len()
    }

    /// For none?
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The group's own; `None` if there is no such group.
    #[must_use]
    pub fn get(&self, group: GroupId) -> Option<&T> {
        self.0.get(group.place())
    }

    /// [`ByGroup::get`], to be changed.
    pub fn get_mut(&mut self, group: GroupId) -> Option<&mut T> {
        self.0.get_mut(group.place())
    }

    /// The groups.
    pub fn ids(&self) -> impl Iterator<Item = GroupId> + Clone + use<T> {
        GroupId::first(self.0.len())
    }

    /// All of them, without their groups.
    pub fn iter(&self) -> std::slice::Iter<'_, T> {
        self.0.iter()
    }

    /// [`ByGroup::iter`], to be changed.
    pub fn iter_mut(&mut self) -> std::slice::IterMut<'_, T> {
        self.0.iter_mut()
    }

    /// Each with its group.
    pub fn with_ids(&self) -> impl Iterator<Item = (GroupId, &T)> {
        self.ids().zip(&self.0)
    }

    /// [`ByGroup::with_ids`], to be changed.
    pub fn with_ids_mut(&mut self) -> impl Iterator<Item = (GroupId, &mut T)> {
        self.ids().zip(&mut self.0)
    }

    /// The first group whose own is as `is_it` says.
    pub fn find(&self, is_it: impl FnMut(&T) -> bool) -> Option<GroupId> {
        self.0.iter().position(is_it).and_then(GroupId::at)
    }

    /// One more, for the group that comes next.
    pub fn push(&mut self, value: T) {
        self.0.push(value);
    }

    /// As a list without groups.
    #[must_use]
    pub const fn as_slice(&self) -> &[T] {
        self.0.as_slice()
    }
}

impl<T> Default for ByGroup<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T> Index<GroupId> for ByGroup<T> {
    type Output = T;

    /// # Panics
    /// If there is no such group.
    fn index(&self, group: GroupId) -> &T {
        &self.0[group.place()]
    }
}

impl<T> IndexMut<GroupId> for ByGroup<T> {
    fn index_mut(&mut self, group: GroupId) -> &mut T {
        &mut self.0[group.place()]
    }
}

impl<T> From<Vec<T>> for ByGroup<T> {
    fn from(list: Vec<T>) -> Self {
        Self(list)
    }
}

impl<T> From<ByGroup<T>> for Vec<T> {
    fn from(by_group: ByGroup<T>) -> Self {
        by_group.0
    }
}

impl<T> FromIterator<T> for ByGroup<T> {
    fn from_iter<I: IntoIterator<Item = T>>(each: I) -> Self {
        Self(each.into_iter().collect())
    }
}

impl<T> IntoIterator for ByGroup<T> {
    type Item = T;
    type IntoIter = std::vec::IntoIter<T>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

impl<'a, T> IntoIterator for &'a ByGroup<T> {
    type Item = &'a T;
    type IntoIter = std::slice::Iter<'a, T>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl<'a, T> IntoIterator for &'a mut ByGroup<T> {
    type Item = &'a mut T;
    type IntoIter = std::slice::IterMut<'a, T>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter_mut()
    }
}

/// A list is as long and has the same: for tests.
impl<T: PartialEq<U>, U, const N: usize> PartialEq<[U; N]> for ByGroup<T> {
    fn eq(&self, other: &[U; N]) -> bool {
        self.0 == *other
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_group_finds_its_own() {
        let mut squares = ByGroup::from_fn(3, |group| u32::from(group.0) * u32::from(group.0));
        assert_eq!((squares.len(), squares[GroupId(2)], squares.get(GroupId(3))), (3, 4, None));
        assert_eq!(squares.find(|square| *square == 1), Some(GroupId(1)));
        squares[GroupId(1)] = 7;
        squares.push(9);
        let all: Vec<_> = squares.with_ids().map(|(group, square)| (group.0, *square)).collect();
        assert_eq!(all, [(0, 0), (1, 7), (2, 4), (3, 9)]);
    }

    #[test]
    fn places_beyond_the_last_number_are_nobodys() {
        assert_eq!(GroupId::at(65_535).map(GroupId::place), Some(65_535));
        assert_eq!(GroupId::at(65_536), None);
        assert_eq!(GroupId::first(70_000).count(), 65_536);
    }
}
