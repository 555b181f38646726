//! A set of groups, a bit for each: with thousands of groups, the engine inserts
//! and removes all of them several times for each renewal.

use super::GroupId;

const BITS: usize = u64::BITS as usize;

/// See the module. Two sets made for the same number of groups are equal if they
/// have the same members.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct GroupSet(Vec<u64>);

impl GroupSet {
    /// An empty set for this many groups.
    pub fn none_of(groups: usize) -> Self {
        Self(vec![0; groups.div_ceil(BITS)])
    }

    /// Is nothing in it?
    pub fn is_empty(&self) -> bool {
        self.0.iter().all(|word| *word == 0)
    }

    /// Puts a group in.
    pub fn insert(&mut self, group: GroupId) {
        let place = group.place();
        if let Some(word) = self.0.get_mut(place / BITS) {
            *word |= 1 << (place % BITS);
        }
    }

    /// Empties the set and returns its groups by rising number.
    pub fn take(&mut self) -> Vec<GroupId> {
        let mut all = Vec::new();
        for (place, word) in self.0.iter_mut().enumerate() {
            let mut left = std::mem::take(word);
            while left != 0 {
                let group = place * BITS + left.trailing_zeros() as usize;
                all.extend(GroupId::at(group));
                left &= left - 1;
            }
        }
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_put_in_comes_out_once_and_in_order() {
        let mut set = GroupSet::none_of(130);
        assert!(set.is_empty());
        for group in [129, 0, 64, 63, 64] {
            set.insert(GroupId(group));
        }
        assert!(!set.is_empty());
        assert_eq!(set.take(), [0, 63, 64, 129].map(GroupId));
        assert_eq!((set.take(), set), (Vec::new(), GroupSet::none_of(130)));
    }
}
