//! Pairs of real network cards, each with a cable between its ends, as `cargo xtask vm` puts
//! some into its machine (`xtask/src/vm/machine.rs`): a driver, with queues and filters,
//! where a veth has none. A lab borrows them, and gets them back when its namespaces end.

use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

use anyhow::{Context, Result};

use super::{clock, wait_until};

/// What the hardware addresses of such cards begin with; the number of the pair and of
/// its end follow.
const OURS: &str = "02:76:69:70:";
/// What those begin with that make a card with a standby, and the other end of its cable.
const WITH_STANDBY: &str = "02:76:69:71:00:";
/// Set where there are such cards.
const CARDS_ENV: &str = "VIP_LAB_CARDS";
/// The kernel takes a namespace apart after it was deleted, and gives back the cards then.
const PATIENCE: Duration = Duration::from_secs(20);

/// A pair of cards that nobody uses: the names of its ends in this process's namespace.
///
/// # Errors
/// When there is none, or none comes back in 20 s.
pub(super) fn free_pair() -> Result<[String; 2]> {
    let mut found = None;
    wait_until(clock::now().plus(PATIENCE), || {
        found = pairs().into_values().find_map(|ends| <[String; 2]>::try_from(ends).ok());
        found.is_some()
    });
    found.context("no pair of network cards is free: `cargo xtask vm` has some")
}

/// Is there a pair for each of three nodes? Those that a former lab had come back soon.
#[must_use]
pub fn are_here() -> bool {
    let free = || pairs().into_values().filter(|ends| ends.len() == 2).count();
    std::env::var_os(CARDS_ENV).is_some() && wait_until(clock::now().plus(PATIENCE), || free() >= 3)
}

/// A card of virtio that the kernel has put on top of two: one of another driver, which
/// carries frames while it is there, and its own. All three have the same hardware address,
/// and stay in this process's namespace.
#[derive(Clone, Debug)]
pub struct WithStandby {
    /// The one above.
    pub upper: String,
    /// The card of the other driver.
    pub primary: String,
    /// The other end of the cable.
    pub far: String,
}

/// That card; `None` where there is none.
#[must_use]
pub fn with_standby() -> Option<WithStandby> {
    let names = |end: &str| -> Vec<String> {
        let is_it = |(mac, _): &(String, String)| *mac == format!("{WITH_STANDBY}{end}");
        addresses().filter(is_it).map(|(_, name)| name).collect()
    };
    let driver = |name: &str| fs::read_link(format!("/sys/class/net/{name}/device/driver")).ok();
    let near = names("00");
    let has_lower = |name: &&String| {
        let mut entries = fs::read_dir(format!("/sys/class/net/{name}")).into_iter().flatten().flatten();
        entries.any(|entry| entry.file_name().to_string_lossy().starts_with("lower_"))
    };
    let upper = near.iter().find(has_lower)?;
    let primary = near.iter().find(|name| driver(name).is_some_and(|driver| driver.ends_with("vmxnet3")))?;
    Some(WithStandby { upper: upper.clone(), primary: primary.clone(), far: names("01").pop()? })
}

/// The names of the cards of each pair, by its number.
fn pairs() -> BTreeMap<String, Vec<String>> {
    let mut by_address = BTreeMap::new();
    for (address, name) in addresses() {
        if let Some((pair, end)) = address.strip_prefix(OURS).and_then(|rest| rest.split_once(':')) {
            by_address.insert((pair.to_owned(), end.to_owned()), name);
        }
    }
    let mut pairs = BTreeMap::<_, Vec<_>>::new();
    for ((pair, _), name) in by_address {
        pairs.entry(pair).or_default().push(name);
    }
    pairs
}

/// The interfaces of this process's namespace: hardware address, and name.
fn addresses() -> impl Iterator<Item = (String, String)> {
    let all = fs::read_dir("/sys/class/net").into_iter().flatten().flatten();
    all.filter_map(|entry| {
        let address = fs::read_to_string(entry.path().join("address")).ok()?;
        Some((address.trim().to_owned(), entry.file_name().to_string_lossy().into_owned()))
    })
}
