//! Routes of local clients: collects what the notices say of each group until
//! many can be done together, and asks this host only once for what that takes,
//! not for each group. Ten thousand groups can move at once.

use std::{collections::BTreeMap, net::IpAddr};

use vip_common::GroupIndex;

use crate::{
    host::Place,
    node::{Node, NodeError, Ways},
};

/// Questions and changes to the host. Every call but `placed` asks the kernel,
/// some of them many times.
pub(super) trait Ground {
    /// The ways out of all groups.
    fn ways(&self) -> Result<Ways, NodeError>;
    /// Where a VIP's local clients were last sent.
    fn placed(&self, vip: IpAddr) -> Option<Place>;
    /// Sends them there.
    fn place(&self, vip: IpAddr, place: Place) -> Result<(), NodeError>;
}

impl Ground for Node {
    fn ways(&self) -> Result<Ways, NodeError> {
        Node::ways(self)
    }

    fn placed(&self, vip: IpAddr) -> Option<Place> {
        self.host.placed(vip)
    }

    fn place(&self, vip: IpAddr, place: Place) -> Result<(), NodeError> {
        Ok(self.host.place_local_clients(vip, place)?)
    }
}

/// Work to do, and what is known for it.
#[derive(Debug, Default)]
pub(super) struct Places {
    /// Is the group here, by the last notice?
    wanted: BTreeMap<GroupIndex, bool>,
    /// Kept as long as nothing on this host has changed that they depend on.
    ways: Option<Ways>,
}

impl Places {
    /// A group has come here, or is no longer here.
    pub(super) fn want(&mut self, group: GroupIndex, is_here: bool) {
        self.wanted.insert(group, is_here);
    }

    /// Interfaces, addresses or VIPs of this host may have changed.
    pub(super) fn forget_ways(&mut self) {
        self.ways = None;
    }

    /// Sets the routes that are due; returns the groups for which that failed,
    /// and why. It does not try those again before a repair, or a notice about
    /// the group.
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
        let ways = match &mut self.ways {
            Some(ways) => ways,
            unknown @ None => unknown.insert(ground.ways()?),
        };
        let mut result = Ok(());
        for (vip, place) in ways.places(group, is_here) {
            if ground.placed(vip) != Some(place) {
                result = result.and(ground.place(vip, place));
            }
        }
        result
    }
}

#[cfg(test)]
mod tests {
    use std::{
        cell::{Cell, RefCell},
        net::Ipv4Addr,
    };

    use super::*;
    use crate::host::HostError;

    /// A host's routes, with a count of what it was asked.
    #[derive(Default)]
    struct Routes {
        placed: RefCell<BTreeMap<IpAddr, Place>>,
        questions: Cell<usize>,
        orders: Cell<usize>,
        broken: Cell<Option<IpAddr>>,
    }

    const IFINDEX: u32 = 7;
    const OUT: Place = Place::Out { ifindex: IFINDEX, source: None };

    /// Each group has two VIPs.
    fn vips(group: u32) -> [IpAddr; 2] {
        [0x0a00_0000 + group * 2, 0x0a00_0001 + group * 2].map(|address| Ipv4Addr::from(address).into())
    }

    fn all<const N: usize>(groups: [(u32, Place); N]) -> BTreeMap<IpAddr, Place> {
        groups.iter().flat_map(|(group, place)| vips(*group).map(|vip| (vip, *place))).collect()
    }

    impl Ground for Routes {
        fn ways(&self) -> Result<Ways, NodeError> {
            self.questions.set(self.questions.get() + 1);
            let outs = (0..10_000).map(|g| (GroupIndex(g), vips(g).map(|vip| (vip, OUT)).to_vec()));
            Ok(Ways { outs: outs.collect() })
        }

        fn placed(&self, vip: IpAddr) -> Option<Place> {
            self.placed.borrow().get(&vip).copied()
        }

        fn place(&self, vip: IpAddr, place: Place) -> Result<(), NodeError> {
            self.orders.set(self.orders.get() + 1);
            if self.broken.get() == Some(vip) {
                let source = std::io::Error::from_raw_os_error(libc::ENETDOWN);
                return Err(HostError::io("set the route of local clients", source).into());
            }
            self.placed.borrow_mut().insert(vip, place);
            Ok(())
        }
    }

    #[test]
    fn ten_thousand_changes_ask_the_kernel_once_and_set_each_route_once() {
        let (mut places, routes) = (Places::default(), Routes::default());
        for batch in 0..40 {
            for group in 0..250 {
                // Three notices each, as in a failover.
                for _ in 0..3 {
                    places.want(GroupIndex(batch * 250 + group), false);
                }
            }
            assert!(places.settle(&routes).is_empty());
        }
        assert_eq!((routes.questions.get(), routes.orders.get()), (1, 20_000));
        // Routes that are right already are not set again.
        (0..10_000).for_each(|group| places.want(GroupIndex(group), false));
        assert!(places.settle(&routes).is_empty());
        assert_eq!((routes.questions.get(), routes.orders.get()), (1, 20_000));
    }

    #[test]
    fn the_last_word_on_a_group_counts() {
        let (mut places, routes) = (Places::default(), Routes::default());
        let (a, b) = (GroupIndex(0), GroupIndex(1));
        for (group, is_here) in [(a, true), (b, false), (a, false), (b, true), (a, true), (b, false)] {
            places.want(group, is_here);
        }
        assert!(places.settle(&routes).is_empty());
        assert_eq!(routes.placed.borrow().clone(), all([(0, Place::Here), (1, OUT)]));
        assert_eq!(routes.orders.get(), 4);
        places.want(a, false);
        places.want(b, true);
        assert!(places.settle(&routes).is_empty());
        assert_eq!(routes.placed.borrow().clone(), all([(0, OUT), (1, Place::Here)]));
    }

    #[test]
    fn what_has_changed_on_the_host_is_asked_again() {
        let (mut places, routes) = (Places::default(), Routes::default());
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
        routes.broken.set(Some(vips(1)[0]));
        (0..3).for_each(|group| places.want(GroupIndex(group), false));
        let failed = places.settle(&routes);
        assert_eq!(failed.iter().map(|(group, _)| *group).collect::<Vec<_>>(), [GroupIndex(1)]);
        let mut placed = all([(0, OUT), (1, OUT), (2, OUT)]);
        placed.remove(&vips(1)[0]);
        assert_eq!(routes.placed.borrow().clone(), placed, "nor its other VIP");
    }
}
