//! What the judge asks of this host: its interfaces, and whether programs and gates
//! are there.

use std::{
    cell::Cell,
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use crate::{
    dataplane::{
        attach::{self, Presence},
        local_in,
    },
    host::{Host, HostError, Interface, settings},
};

/// The interfaces of this node, as they are now.
pub trait Links {
    /// Every interface, by index.
    ///
    /// # Errors
    /// [`HostError`].
    fn present(&self) -> Result<BTreeMap<u32, Interface>, HostError>;
    /// The interface of this name, if there is one.
    ///
    /// # Errors
    /// [`HostError`].
    fn named(&self, name: &str) -> Result<Option<Interface>, HostError>;
    /// Why our program answers nobody on this one of the interfaces `present`; `None` if it does.
    fn program_trouble(&self, link: &Interface, present: &BTreeMap<u32, Interface>) -> Option<String>;
    /// Is it surely gone from there?
    fn lost_program(&self, link: &Interface) -> bool;
    /// Does another program come before one of ours at tc on this interface?
    fn is_displaced(&self, link: &Interface) -> bool;
    /// Has somebody lowered the ARP settings that this host needs?
    fn has_low_settings(&self) -> bool;
    /// Is the gate at IP level gone, where this host had it?
    fn lost_local_in(&self) -> bool;
}

/// [`Links`] of this host.
pub struct HostLinks {
    /// Reads the interfaces by netlink.
    pub host: Host,
    /// Where programs are pinned.
    pub bpf_dir: PathBuf,
    /// Has the gate at IP level been there at any look? Not every kernel has it.
    pub had_local_in: Cell<bool>,
}

impl Links for HostLinks {
    fn present(&self) -> Result<BTreeMap<u32, Interface>, HostError> {
        self.host.interfaces()
    }

    fn named(&self, name: &str) -> Result<Option<Interface>, HostError> {
        self.host.interface(name)
    }

    fn program_trouble(&self, link: &Interface, present: &BTreeMap<u32, Interface>) -> Option<String> {
        program_trouble(&self.bpf_dir, link, present)
    }

    fn lost_program(&self, link: &Interface) -> bool {
        attach::presence(&self.bpf_dir, link) == Presence::Gone
    }

    fn is_displaced(&self, link: &Interface) -> bool {
        attach::is_displaced(&self.bpf_dir, link)
    }

    fn has_low_settings(&self) -> bool {
        settings::are_low()
    }

    fn lost_local_in(&self) -> bool {
        let is_missing = local_in::is_missing(&self.bpf_dir);
        let is_there = is_missing.as_ref().is_ok_and(|is| !*is);
        let had = self.had_local_in.replace(self.had_local_in.get() || is_there);
        had && is_missing.is_ok_and(|is| is)
    }
}

/// Why our program, that is pinned below `dir`, answers nobody on this one of the interfaces
/// `present`; `None` if it does.
pub fn program_trouble(dir: &Path, link: &Interface, present: &BTreeMap<u32, Interface>) -> Option<String> {
    match attach::presence(dir, link) {
        Presence::Gone => Some(without_program(&link.name)),
        Presence::Runs(mode) => attach::modes(mode, link, present).err().map(|e| e.to_string()),
        // What can't be read now costs no lease.
        Presence::Unknown => None,
    }
}

/// Why an interface without our program can't be served on.
pub fn without_program(name: &str) -> String {
    format!("{name} has no program on the way in")
}
