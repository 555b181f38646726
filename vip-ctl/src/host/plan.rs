//! The dry run of [`Host::ensure`] and [`Host::restore`]: what each would still
//! change.

use std::{collections::BTreeSet, fs, net::IpAddr};

use super::{Host, HostError, LOOPBACK, Reach, SETTINGS, Saved, WANTED, local_clients};

impl Host {
    /// What [`Host::ensure`] would do for these VIPs, in sentences.
    ///
    /// # Errors
    /// [`HostError`] if the host can't be read.
    pub fn missing(&self, vips: &BTreeSet<IpAddr>, reach: &Reach) -> Result<Vec<String>, HostError> {
        let mut would = Vec::new();
        for (name, wanted) in WANTED {
            let path = format!("{SETTINGS}/{name}");
            let text = fs::read_to_string(&path).map_err(|e| HostError::io(format!("read {path}"), e))?;
            if text.trim().parse::<u8>().is_ok_and(|value| value < wanted) {
                would.push(format!("net.ipv4.conf.all.{name} would be set to {wanted}"));
            }
        }
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
        if saved.local_rule_moved {
            would.push("the rule for the local table would be moved back to 0".into());
        }
        for (name, value) in &saved.settings {
            would.push(format!("net.ipv4.conf.all.{name} would be set back to {value}"));
        }
        Ok(would)
    }
}
