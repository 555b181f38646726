//! The gate at IP level, at netfilter's hook for what this host takes as its own, and
//! behind NAT. It holds what comes in by a way that nothing else guards: from a container,
//! a tunnel, another interface, or one that was made again while no agent looks; and what a
//! published port would take to a container.
//!
//! It is netfilter programs ([`link`], Linux 6.4), or else rules of nftables that ask
//! programs ([`table`]). Both belong to the network namespace, not to an interface.

mod btf;
mod link;
mod offsets;
mod program;
mod table;

use std::{
    fs,
    path::Path,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use aya::Ebpf;
use vip_common::{BootNs, layout::SkbOffsets, names};

pub(super) use self::program::skb_offsets;
use self::program::{Refused, in_programs};
use super::{DataPlaneError, syscalls::NetfilterHook};
use crate::clock;

/// Is the gate at IP level there?
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LocalIn {
    /// Yes.
    Attached,
    /// At the hook for what the host takes as its own, and not behind NAT; why, in words.
    OpenToNat(String),
    /// This kernel can't have it; why, in words.
    Unavailable(String),
}

/// How long after the kernel has refused the program behind NAT to try that again.
const AGAIN: Duration = Duration::from_mins(10);

/// Is there where the kernel records connections.
const CONNECTIONS: &str = "/proc/sys/net/netfilter/nf_conntrack_count";

/// A part of the gate, and its hook.
#[derive(Debug)]
struct Part {
    /// The netfilter program.
    program: &'static str,
    hook: NetfilterHook,
    /// The program that a rule of nftables asks, and the chain which that is in.
    table_program: &'static str,
    chain: &'static str,
}

/// The gate's parts. Without the kernel's record of connections there is no NAT, and
/// only the first.
const PARTS: [Part; 2] = [
    Part {
        program: names::PROG_LOCAL_IN,
        hook: NetfilterHook::LocalIn,
        table_program: names::PROG_LOCAL_IN_NFT,
        chain: "input",
    },
    Part {
        program: names::PROG_TRANSLATED,
        hook: NetfilterHook::PostRouting,
        table_program: names::PROG_TRANSLATED_NFT,
        chain: "postrouting",
    },
];

impl Part {
    /// Those that there shall be.
    fn wanted(offsets: SkbOffsets) -> &'static [Self] {
        if offsets.status == 0 { &PARTS[..1] } else { &PARTS }
    }

    /// Is it there, in either way, and does it look at what it can now?
    fn is_attached(&self, dir: &Path, offsets: SkbOffsets) -> Result<bool, DataPlaneError> {
        Ok(link::is_attached(self, dir, offsets)? || table::is_attached(self, dir, offsets)?)
    }
}

/// A program's name in the kernel, by which one that looks behind NAT is told from one
/// that was loaded before the kernel could do it.
fn kernel_name(part: &Part, program: &str, offsets: SkbOffsets) -> String {
    let is_both = part.hook == NetfilterHook::LocalIn && offsets.status != 0;
    if is_both { format!("{program}_ct") } else { program.to_owned() }
}

/// Attaches the gate in this network namespace, or replaces the one that an earlier
/// process pinned: by netfilter programs, or where the kernel has none, by rules of nftables.
/// The programs get the maps of `ebpf`. On error it removes nothing.
///
/// # Errors
/// [`DataPlaneError::Kernel`] if the kernel has such programs, or rules, and refuses one of
/// these a place, or a pin can't be read or written.
pub fn attach(ebpf: &Ebpf, dir: &Path) -> Result<LocalIn, DataPlaneError> {
    let [host, behind_nat] = &PARTS;
    let mut by: fn(&Part, &Ebpf, &Path) -> _ = link::attach;
    let mut done = by(host, ebpf, dir)?;
    if let LocalIn::Unavailable(why) = &done {
        by = table::attach;
        done = match by(host, ebpf, dir)? {
            LocalIn::Unavailable(and) => LocalIn::Unavailable(format!("{why}, {and}")),
            there @ (LocalIn::Attached | LocalIn::OpenToNat(_)) => there,
        };
    } else if table::is_pinned(dir) {
        // The kernel had no netfilter programs, or did not say how packets look to them.
        table::detach(dir)?;
    }
    let refused = if done != LocalIn::Attached || Part::wanted(in_programs()).len() < PARTS.len() {
        None
    } else {
        // The node serves all the same, and guards what it can.
        match by(behind_nat, ebpf, dir) {
            Ok(LocalIn::Attached) => None,
            Ok(LocalIn::OpenToNat(why) | LocalIn::Unavailable(why)) => Some(why),
            Err(e) => Some(e.to_string()),
        }
    };
    *REFUSED.lock().unwrap_or_else(PoisonError::into_inner) = refused.clone().map(|why| (clock::now(), why));
    Ok(refused.map_or(done, LocalIn::OpenToNat))
}

/// When this process was last refused the program behind NAT, and why.
static REFUSED: Mutex<Option<(BootNs, String)>> = Mutex::new(None);

/// What is open where the kernel has refused this process the program behind NAT, in words.
#[must_use]
pub fn open_to_nat() -> Option<String> {
    let refused = REFUSED.lock().unwrap_or_else(PoisonError::into_inner);
    refused.as_ref().map(|(_, why)| nat_text(why))
}

/// What is open without the program behind NAT.
#[must_use]
pub fn nat_text(why: &str) -> String {
    format!(
        "packets to a VIP that NAT on this host gives another destination, as a published port does, pass without a lease: the gate at IP level is not behind NAT ({why})"
    )
}

/// Is a part of the gate missing that another try may bring? What the kernel has refused is
/// tried again after [`AGAIN`] only.
///
/// # Errors
/// [`DataPlaneError::Kernel`] if the kernel doesn't tell.
pub fn is_missing(dir: &Path) -> Result<bool, DataPlaneError> {
    if !guards_host(dir)? {
        return Ok(true);
    }
    let refused = REFUSED.lock().unwrap_or_else(PoisonError::into_inner).as_ref().map(|(at, _)| *at);
    Ok(refused.is_none_or(|at| clock::now().since(at) >= AGAIN) && !is_attached(dir)?)
}

/// Is the part there that holds what the host takes as its own, and does it look behind NAT
/// where there can be any?
///
/// # Errors
/// [`DataPlaneError::Kernel`] if the kernel doesn't tell.
pub fn guards_host(dir: &Path) -> Result<bool, DataPlaneError> {
    PARTS[0].is_attached(dir, offsets::known().unwrap_or_default())
}

/// Is the gate there that is pinned below `dir`, does it run in this network namespace, and
/// look behind NAT where there can be any?
///
/// # Errors
/// [`DataPlaneError::Kernel`] if the kernel doesn't tell.
pub fn is_attached(dir: &Path) -> Result<bool, DataPlaneError> {
    let offsets = offsets::known().unwrap_or_default();
    for part in Part::wanted(offsets) {
        if !part.is_attached(dir, offsets)? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// What to tell where NAT can take packets to a VIP past the gate: the kernel records
/// connections, and does not tell how. `None` where it can't.
#[must_use]
pub fn blind_to_nat() -> Option<&'static str> {
    let is_blind = || offsets::known().unwrap_or_default().status == 0;
    (fs::exists(CONNECTIONS).unwrap_or(false) && is_blind()).then_some(
        "NAT on this host can take packets to a VIP past the gate at IP level: the kernel has no type information of its connections (CONFIG_DEBUG_INFO_BTF, CONFIG_DEBUG_INFO_BTF_MODULES)",
    )
}

/// The table of nftables that the gate is, for people, where it is that.
#[must_use]
pub fn in_table(dir: &Path) -> Option<String> {
    table::is_pinned(dir).then(|| format!("ip {}", table::table_name(dir)))
}

/// What of the gate this kernel can have, over the maps of `ebpf`. `dir` is where those of
/// this host are, or would be, pinned.
pub(super) fn possible(ebpf: &Ebpf, dir: &Path) -> LocalIn {
    let one_by_one = |possible: &dyn Fn(&Part) -> Result<(), String>| {
        let [host, behind_nat] = &PARTS;
        if let Err(why) = possible(host) {
            return LocalIn::Unavailable(why);
        }
        let both = Part::wanted(in_programs()).len() == PARTS.len();
        let nat = if both { possible(behind_nat) } else { Ok(()) };
        nat.map_or_else(LocalIn::OpenToNat, |()| LocalIn::Attached)
    };
    let by_links = one_by_one(&|part| link::loaded(ebpf, part).map(drop).map_err(Refused::why));
    let LocalIn::Unavailable(why) = by_links else { return by_links };
    match one_by_one(&|part| table::possible(part, ebpf, dir)) {
        LocalIn::Unavailable(and) => LocalIn::Unavailable(format!("{why}, {and}")),
        there @ (LocalIn::Attached | LocalIn::OpenToNat(_)) => there,
    }
}

/// Removes the gate; succeeds if it is not there.
///
/// # Errors
/// [`DataPlaneError::Kernel`].
pub fn detach(dir: &Path) -> Result<(), DataPlaneError> {
    // Where there are links, nobody has asked for a table; without any pin there can be one.
    if !link::detach(dir)? || table::is_pinned(dir) {
        table::detach(dir)?;
    }
    Ok(())
}
