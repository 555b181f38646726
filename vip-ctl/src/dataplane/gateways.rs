//! The maps of gateways: which VIPs are gateways on which interface, and the word that
//! spares the programs a look where none is.

use std::collections::BTreeMap;

use vip_common::layout::Gateways;

use super::{DataPlane, DataPlaneError};
use crate::mutant::{Mutant, is};

/// A write to one of the maps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// The word of bits.
    Bits(u64),
    /// An interface with its gateways.
    Put(u32, Gateways),
    /// An interface without any.
    Remove(u32),
}

/// What makes the maps, with `bits` and `there` in them, those with `wanted`. At each moment
/// between, an interface that is in the map has its bit, or the programs would not look.
fn steps(bits: u64, there: &BTreeMap<u32, Gateways>, wanted: &BTreeMap<u32, Gateways>) -> Vec<Step> {
    let last = wanted.keys().fold(0, |bits, ifindex| bits | Gateways::bit(*ifindex));
    let first = if is(Mutant::GatewaysUnseen) { bits } else { bits | last };
    let mut steps = Vec::new();
    if first != bits {
        steps.push(Step::Bits(first));
    }
    let differs = |(ifindex, new): &(&u32, &Gateways)| there.get(ifindex) != Some(*new);
    steps.extend(wanted.iter().filter(differs).map(|(ifindex, new)| Step::Put(*ifindex, *new)));
    let goes = |ifindex: &&u32| !wanted.contains_key(ifindex);
    steps.extend(there.keys().filter(goes).map(|ifindex| Step::Remove(*ifindex)));
    if last != first {
        steps.push(Step::Bits(last));
    }
    steps
}

impl DataPlane {
    /// The gateways, by the indices of interfaces.
    ///
    /// # Errors
    /// [`DataPlaneError::Kernel`] if the map can't be read.
    pub fn gateways(&self) -> Result<BTreeMap<u32, Gateways>, DataPlaneError> {
        let entries = self.gateways.iter();
        entries.map(|entry| entry.map_err(|e| DataPlaneError::map("read the gateways", e))).collect()
    }

    /// The word of bits ([`Gateways::bit`]) beside them.
    ///
    /// # Errors
    /// [`DataPlaneError::Kernel`] if the map can't be read.
    pub fn gateway_bits(&self) -> Result<u64, DataPlaneError> {
        self.gateway_bits.get(&0, 0).map_err(|e| DataPlaneError::map("read the gateways", e))
    }

    /// Makes these the gateways. Writes what differs.
    ///
    /// # Errors
    /// [`DataPlaneError::Kernel`] if a map can't be read or written; the call can be made
    /// again.
    pub fn set_gateways(&mut self, wanted: &BTreeMap<u32, Gateways>) -> Result<(), DataPlaneError> {
        for step in steps(self.gateway_bits()?, &self.gateways()?, wanted) {
            let done = match step {
                Step::Bits(bits) => self.gateway_bits.set(0, bits, 0),
                Step::Put(ifindex, gateways) => self.gateways.insert(ifindex, gateways, 0),
                Step::Remove(ifindex) => self.gateways.remove(&ifindex),
            };
            done.map_err(|e| DataPlaneError::map("write a gateway", e))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_moment_of_a_change_is_unfenced() {
        let of = |last: u8| Gateways::of([[10, 0, 1, last]]).expect("a gateway");
        // 3 and 67 share a bit.
        let sets: [BTreeMap<u32, Gateways>; 5] = [
            BTreeMap::new(),
            [(3, of(1))].into(),
            [(3, of(2)), (4, of(1))].into(),
            [(67, of(1))].into(),
            [(4, of(1)), (67, of(3))].into(),
        ];
        let bits_of = |set: &BTreeMap<u32, Gateways>| set.keys().fold(0, |bits, i| bits | Gateways::bit(*i));
        for (before, after) in sets.iter().flat_map(|before| sets.iter().map(move |after| (before, after))) {
            let (mut bits, mut map) = (bits_of(before), before.clone());
            let steps = steps(bits, before, after);
            assert_eq!(steps.is_empty(), before == after, "{steps:?}");
            for step in steps {
                match step {
                    Step::Bits(new) => bits = new,
                    Step::Put(ifindex, gateways) => drop(map.insert(ifindex, gateways)),
                    Step::Remove(ifindex) => drop(map.remove(&ifindex)),
                }
                let is_fenced =
                    |ifindex: &u32| map.contains_key(ifindex) && bits & Gateways::bit(*ifindex) != 0;
                let stays = before.keys().filter(|ifindex| after.contains_key(ifindex));
                assert!(stays.chain(map.keys()).all(is_fenced), "{before:?} {after:?}: {step:?}");
            }
            assert_eq!((bits, &map), (bits_of(after), after));
        }
        // Somebody else's word, and what an interrupted change has left, are mended.
        assert_eq!(steps(0, &sets[1], &sets[1]), [Step::Bits(8)]);
        assert_eq!(steps(!0, &sets[1], &sets[1]), [Step::Bits(8)]);
    }
}
