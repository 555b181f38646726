//! Hardware addresses that an interface lets in beside its own: a static unicast entry of its
//! filter, as `bridge fdb add MAC dev INTERFACE self` makes it. It is no address of the
//! interface, and is there on every node, whoever holds.
//!
//! Which are ours is in the record: the kernel does not say who made an entry.

use std::collections::BTreeSet;

use netlink_packet_route::neighbour::{NeighbourFlags, NeighbourMessage};
use rtnetlink::Handle;
use serde::{Deserialize, Serialize};

use super::{Host, HostError, Saved, Tried, local_clients::unless, mac_text};

/// There is no such entry, or no such interface any more.
const ABSENT: [i32; 2] = [libc::ENOENT, libc::ENODEV];

/// A hardware address that an interface lets in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct LetIn {
    /// The interface's index.
    pub ifindex: u32,
    /// The hardware address.
    pub mac: [u8; 6],
}

impl Host {
    /// Makes interfaces let in these hardware addresses, and no longer others that an earlier
    /// call made them let in. Returns what was done, in words; none if all was there.
    ///
    /// # Errors
    /// [`HostError`], of the first that failed; the others were tried. What was changed is
    /// recorded.
    pub fn let_in(&self, wanted: &BTreeSet<LetIn>) -> Result<Vec<String>, HostError> {
        let mut saved = Saved::read(&self.run_dir)?;
        if wanted.is_empty() && saved.let_in.is_empty() {
            return Ok(Vec::new());
        }
        let mut done = Vec::new();
        let before = saved.let_in.clone();
        let gone: BTreeSet<_> = before.difference(wanted).copied().collect();
        self.runtime.block_on(shut_out(&self.handle, &gone))?;
        done.extend(gone.iter().map(|it| format!("no longer lets in {}", mac_text(it.mac))));
        saved.let_in.retain(|it| wanted.contains(it));
        // Those of others are theirs to take off.
        let mut others = self.others.borrow_mut();
        others.retain(|it| wanted.contains(it));
        saved.let_in.extend(wanted.difference(&others));
        if saved.let_in != before {
            saved.write(&self.run_dir)?;
        }
        let mut failed = None;
        for it in wanted {
            let added = self.runtime.block_on(add(&self.handle, *it));
            match added.tried(|| format!("let in {} on interface number {}", mac_text(it.mac), it.ifindex)) {
                Ok(true) => {
                    done.push(format!("let in {}", mac_text(it.mac)));
                    // Somebody had taken theirs off.
                    others.remove(it);
                    saved.let_in.insert(*it);
                }
                Ok(false) if before.contains(it) || others.contains(it) => {}
                Ok(false) => {
                    saved.let_in.remove(it);
                    others.insert(*it);
                }
                // The other groups shall be heard all the same.
                Err(e) => drop(failed.get_or_insert(e)),
            }
        }
        drop(others);
        if saved != Saved::read(&self.run_dir)? {
            saved.write(&self.run_dir)?;
        }
        failed.map_or(Ok(done), Err)
    }
}

/// Takes these off, as far as they are there.
pub(super) async fn shut_out(handle: &Handle, gone: &BTreeSet<LetIn>) -> Result<(), HostError> {
    for it in gone {
        let deleted = handle.neighbours().del(entry(handle, *it)).execute().await;
        unless(deleted, &ABSENT)
            .tried(|| format!("take {} off interface number {}", mac_text(it.mac), it.ifindex))?;
    }
    Ok(())
}

/// False if it is there.
async fn add(handle: &Handle, it: LetIn) -> Result<bool, rtnetlink::Error> {
    let request = handle.neighbours().add_bridge(it.ifindex, &it.mac).flags(NeighbourFlags::Own);
    unless(request.execute().await, &[libc::EEXIST])
}

fn entry(handle: &Handle, it: LetIn) -> NeighbourMessage {
    let mut request = handle.neighbours().add_bridge(it.ifindex, &it.mac).flags(NeighbourFlags::Own);
    request.message_mut().clone()
}
