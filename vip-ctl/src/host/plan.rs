//! The dry run of [`Host::ensure`] and [`Host::restore`]: what each would still
//! change.

use std::{collections::BTreeSet, net::IpAddr};

use super::{Host, HostError, LOOPBACK, Reach, Saved, local_clients, mac_text, settings};

impl Host {
    /// What [`Host::ensure`] would do for these VIPs, in sentences.
    ///
    /// # Errors
    /// [`HostError`] if the host can't be read.
    pub fn missing(&self, vips: &BTreeSet<IpAddr>, reach: &Reach) -> Result<Vec<String>, HostError> {
        let low = settings::low()?.into_iter();
        let mut would: Vec<_> =
            low.map(|(name, wanted)| format!("net.ipv4.conf.all.{name} would be set to {wanted}")).collect();
        let saved = Saved::read(&self.run_dir)?;
        would.extend(self.runtime.block_on(local_clients::missing_rules(&self.handle, reach, &saved))?);
        let present: BTreeSet<_> =
            self.addresses(LOOPBACK)?.into_iter().map(|(address, _)| address).collect();
        for vip in vips.iter().filter(|vip| !present.contains(vip)) {
            would.push(format!("{vip} would be put on lo"));
        }
        Ok(would)
    }

    /// What [`Host::restore`] would put back, in sentences.
    ///
    /// # Errors
    /// [`HostError`] if the record can't be read.
    pub fn saved_changes(&self) -> Result<Vec<String>, HostError> {
        let saved = Saved::read(&self.run_dir)?;
        let mut would: Vec<_> =
            saved.addresses.iter().map(|vip| format!("{vip} would be taken off lo")).collect();
        let subnets = self.connected()?.into_iter();
        would.extend(subnets.map(|subnet| format!("the route to {subnet} would be deleted")));
        let let_in = saved.let_in.iter().map(|it| mac_text(it.mac));
        would.extend(let_in.map(|mac| format!("the entry that lets in {mac} would be deleted")));
        if saved.local_rule_moved {
            would.push("the rule for the local table would be moved back to 0".into());
        }
        let settings = settings::still_ours(&saved)?.into_iter();
        would.extend(
            settings.map(|(name, value)| format!("net.ipv4.conf.all.{name} would be set back to {value}")),
        );
        Ok(would)
    }
}
