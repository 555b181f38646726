//! Notices when a cable comes back: whoever is behind it has missed what this node announced
//! meanwhile. The cable of a bridge's or bond's port counts as well, while that itself may
//! have had a carrier all the time.

use std::collections::BTreeMap;

use crate::{
    dataplane::attach,
    host::Interface,
    mutant::{self, Mutant},
};

/// How many times each interface had got a carrier when netlink last spoke of it: the kernel
/// may tell of a cable that went and came back as of one change.
#[derive(Debug, Default)]
pub struct Carriers(BTreeMap<u32, u32>);

impl Carriers {
    /// Has this interface got back its carrier?
    pub(super) fn comes_back(&mut self, link: &Interface) -> bool {
        let before = self.0.insert(link.index, link.carrier_ups);
        let is_back = before.is_some_and(|before| before != link.carrier_ups);
        is_back && link.up && link.carrier && !mutant::is(Mutant::CableMissed)
    }

    /// What there is before netlink has spoken of it.
    pub(super) fn learn(&mut self, link: &Interface) {
        self.0.entry(link.index).or_insert(link.carrier_ups);
    }

    /// This interface is gone.
    pub(super) fn forget(&mut self, index: u32) {
        self.0.remove(&index);
    }
}

/// Is it one of these interfaces, or a port of one?
pub(super) fn concerns(link: &Interface, ours: &[String]) -> bool {
    let controller = || attach::name_of(link.controller?);
    ours.contains(&link.name) || controller().is_some_and(|name| ours.contains(&name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cable_that_comes_back_is_noticed_once() {
        let mut carriers = Carriers::default();
        let ours = ["eth0".to_owned()];
        let link = |name: &str, carrier, carrier_ups| {
            let name = name.to_owned();
            Interface { index: 7, name, up: true, carrier, carrier_ups, ..Interface::default() }
        };
        let told = [(true, 3), (true, 3), (false, 3), (true, 4), (true, 4), (true, 5)];
        let seen = told.map(|(carrier, ups)| carriers.comes_back(&link("eth0", carrier, ups)));
        assert_eq!(seen, [false, false, false, true, false, true]);
        assert!(concerns(&link("eth0", true, 6), &ours));
        assert!(!concerns(&link("eth1", true, 6), &ours), "it is no interface of ours");
        carriers.forget(7);
        assert!(!carriers.comes_back(&link("eth0", true, 9)), "another one");
        carriers.forget(7);
        carriers.learn(&link("eth0", true, 9));
        assert!(carriers.comes_back(&link("eth0", true, 10)), "the first that netlink says");
    }
}
