//! Where local clients of groups are to go: what the notices say of each is
//! kept until many of them can be done together, and what that takes to know
//! of this host is asked once, not for each group. Ten thousand groups can
//! move at once.

use std::collections::BTreeMap;

use vip_common::GroupIndex;

use crate::{
    host::Place,
    node::{Node, NodeError, Ways},
};

/// What is asked of, and done to, the host. Every call but `placed` is a
/// question to the kernel, or many.
pub(super) trait Ground {
    /// The ways out of all groups.
    fn ways(&self) -> Result<Ways, NodeError>;
    /// Where a group's local clients were let go last.
    fn placed(&self, group: GroupIndex) -> Option<Place>;
    /// Lets them go there.
    fn place(&self, group: GroupIndex, place: Place) -> Result<(), NodeError>;
}

impl Ground for Node {
    fn ways(&self) -> Result<Ways, NodeError> {
        Node::ways(self)
    }

    fn placed(&self, group: GroupIndex) -> Option<Place> {
        self.host.placed(group)
    }

    fn place(&self, group: GroupIndex, place: Place) -> Result<(), NodeError> {
        Ok(self.host.place_local_clients(group, place)?)
    }
}

/// What is to be done, and what is known.
#[derive(Debug, Default)]
pub(super) struct Places {
    /// Is the group here? By the last notice.
    wanted: BTreeMap<GroupIndex, bool>,
    /// As long as nothing on this host has changed that they depend on.
    ways: Option<Ways>,
}

impl Places {
    /// A group is here now, or is not.
    pub(super) fn want(&mut self, group: GroupIndex, is_here: bool) {
        self.wanted.insert(group, is_here);
    }

    /// Interfaces, addresses or VIPs of this host are others, or may be.
    pub(super) fn forget_ways(&mut self) {
        self.ways = None;
    }

    /// Does what is to be done; what could not be done and why. It is not
    /// tried again before a repair, or a notice about that group.
    pub(super) fn settle(&mut self, ground: &impl Ground) -> Vec<(GroupIndex, NodeError)> {
        let mut failed = Vec::new();
        for (group, is_here) in std::mem::take(&mut self.wanted) {
            if let Err(e) = self.settle_one(ground, group, is_here) {
                failed.push((group, e));
            }
        }
        failed
    }

    fn settle_one(
        &mut self,
        ground: &impl Ground,
        group: GroupIndex,
        is_here: bool,
    ) -> Result<(), NodeError> {
        let place = match (is_here, &mut self.ways) {
            (true, _) => Place::Here,
            (false, Some(ways)) => ways.out(group),
            (false, unknown @ None) => unknown.insert(ground.ways()?).out(group),
        };
        if ground.placed(group) == Some(place) { Ok(()) } else { ground.place(group, place) }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::{Cell, RefCell};

    use super::*;
    use crate::host::HostError;

    /// A host's routes, with a count of what it was asked.
    #[derive(Default)]
    struct Routes {
        placed: RefCell<BTreeMap<GroupIndex, Place>>,
        questions: Cell<usize>,
        orders: Cell<usize>,
        broken: Cell<Option<GroupIndex>>,
    }

    const IFINDEX: u32 = 7;
    const OUT: Place = Place::Out { ifindex: IFINDEX, source: None };

    impl Ground for Routes {
        fn ways(&self) -> Result<Ways, NodeError> {
            self.questions.set(self.questions.get() + 1);
            let sources = (0..10_000).map(|group| (GroupIndex(group), None)).collect();
            Ok(Ways { ifindex: Some(IFINDEX), sources })
        }

        fn placed(&self, group: GroupIndex) -> Option<Place> {
            self.placed.borrow().get(&group).copied()
        }

        fn place(&self, group: GroupIndex, place: Place) -> Result<(), NodeError> {
            self.orders.set(self.orders.get() + 1);
            if self.broken.get() == Some(group) {
                let source = std::io::Error::from_raw_os_error(libc::ENETDOWN);
                return Err(HostError::io("set the route of local clients", source).into());
            }
            self.placed.borrow_mut().insert(group, place);
            Ok(())
        }
    }

    #[test]
    fn ten_thousand_changes_ask_the_kernel_once_and_set_each_route_once() {
        let (mut places, routes) = (Places::default(), Routes::default());
        for batch in 0..40 {
            for group in 0..250 {
                // Told three times each, as a failover does.
                for _ in 0..3 {
                    places.want(GroupIndex(batch * 250 + group), false);
                }
            }
            assert!(places.settle(&routes).is_empty());
        }
        assert_eq!((routes.questions.get(), routes.orders.get()), (1, 10_000));
        // What is so already is not set again.
        (0..10_000).for_each(|group| places.want(GroupIndex(group), false));
        assert!(places.settle(&routes).is_empty());
        assert_eq!((routes.questions.get(), routes.orders.get()), (1, 10_000));
    }

    #[test]
    fn the_last_word_on_a_group_counts() {
        let (mut places, routes) = (Places::default(), Routes::default());
        let (a, b) = (GroupIndex(0), GroupIndex(1));
        for (group, is_here) in [(a, true), (b, false), (a, false), (b, true), (a, true), (b, false)] {
            places.want(group, is_here);
        }
        assert!(places.settle(&routes).is_empty());
        assert_eq!(routes.placed.borrow().clone(), [(a, Place::Here), (b, OUT)].into());
        assert_eq!(routes.orders.get(), 2);
        places.want(a, false);
        places.want(b, true);
        assert!(places.settle(&routes).is_empty());
        assert_eq!(routes.placed.borrow().clone(), [(a, OUT), (b, Place::Here)].into());
    }

    #[test]
    fn what_has_changed_on_the_host_is_asked_again() {
        let (mut places, routes) = (Places::default(), Routes::default());
        places.want(GroupIndex(0), true);
        assert!(places.settle(&routes).is_empty());
        assert_eq!(routes.questions.get(), 0, "who is here needs no way out");
        for round in 1..=3 {
            places.forget_ways();
            places.want(GroupIndex(0), false);
            places.want(GroupIndex(1), false);
            assert!(places.settle(&routes).is_empty());
            assert_eq!(routes.questions.get(), round);
        }
    }

    #[test]
    fn one_that_fails_keeps_no_other_from_its_place() {
        let (mut places, routes) = (Places::default(), Routes::default());
        routes.broken.set(Some(GroupIndex(1)));
        (0..3).for_each(|group| places.want(GroupIndex(group), false));
        let failed = places.settle(&routes);
        assert_eq!(failed.iter().map(|(group, _)| *group).collect::<Vec<_>>(), [GroupIndex(1)]);
        assert_eq!(routes.placed.borrow().clone(), [(GroupIndex(0), OUT), (GroupIndex(2), OUT)].into());
    }
}
