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

/// The names of the cards of each pair, by its number.
fn pairs() -> BTreeMap<String, Vec<String>> {
    let mut by_address = BTreeMap::new();
    for entry in fs::read_dir("/sys/class/net").into_iter().flatten().flatten() {
        let Ok(address) = fs::read_to_string(entry.path().join("address")) else { continue };
        let name = entry.file_name().to_string_lossy().into_owned();
        if let Some((pair, end)) = address.trim().strip_prefix(OURS).and_then(|rest| rest.split_once(':')) {
            by_address.insert((pair.to_owned(), end.to_owned()), name);
        }
    }
    let mut pairs = BTreeMap::<_, Vec<_>>::new();
    for ((pair, _), name) in by_address {
        pairs.entry(pair).or_default().push(name);
    }
    pairs
}
