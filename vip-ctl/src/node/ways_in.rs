//! The ways by which packets to a VIP come in beside the interfaces that a node
//! names: the gate at IP level holds them, where the kernel has it.

use std::collections::BTreeMap;

use aya::Ebpf;

use super::{Interface, Node, NodeError, attach, local_in};
use crate::dataplane::local_in::LocalIn;

impl Node {
    /// Attaches the gate at IP level, and warns where the kernel can't have it.
    pub(super) fn attach_local_in(&mut self, ebpf: &Ebpf) -> Result<(), NodeError> {
        let before = local_in::open_to_nat();
        match local_in::attach(ebpf, self.plane.dir())? {
            LocalIn::Attached => {
                self.has_local_in = true;
                self.warnings.extend(local_in::blind_to_nat().map(str::to_owned));
            }
            LocalIn::OpenToNat(_) => {
                self.has_local_in = true;
                // Each try of this process is refused for the same reason.
                let now = local_in::open_to_nat();
                self.warnings.extend(now.filter(|_| before.is_none()));
            }
            LocalIn::Unavailable(why) => {
                self.has_local_in = false;
                self.warnings.push(format!("the host has no gate at IP level: {why}"));
            }
        }
        Ok(())
    }

    /// Warns of interfaces that nothing guards where there is no gate at IP level: the
    /// host accepts packets for its addresses on every interface.
    pub(super) fn warn_of_ways_in(&mut self, present: &BTreeMap<u32, Interface>) {
        if local_in::guards_host(self.plane.dir()).unwrap_or(false) {
            return;
        }
        let guarded = attach::interfaces(self.plane.dir()).unwrap_or_default();
        for interface in present.values() {
            let is_guarded = |index| guarded.contains_key(&index);
            let is_held =
                is_guarded(interface.index) || attach::is_below_guarded(interface, present, &is_guarded);
            if !interface.loopback && interface.up && !is_held {
                self.warnings.push(format!(
                    "{} is up and not guarded: packets to a VIP that come in there are accepted whatever the lease says; add it with --iface {}",
                    interface.name, interface.name
                ));
            }
        }
    }
}
