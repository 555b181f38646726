//! The record of the groups and VIPs that a node has had, in its state
//! directory. What follows from one for the next is [`vip_lease::table`]'s.

use std::{fs, io, net::IpAddr, path::Path};

use vip_lease::table::{Configured, Table};

use crate::{config::Group, record};

/// The record's file in the state directory.
const FILE: &str = "groups.json";

impl Configured for Group {
    fn name(&self) -> &str {
        &self.name
    }

    fn vips(&self) -> &[IpAddr] {
        &self.vips
    }
}

/// The record that the last process left; `None` if there is none.
///
/// # Errors
/// If it is there and can't be read.
pub fn load(state_dir: &Path) -> io::Result<Option<Table>> {
    match fs::read(state_dir.join(FILE)) {
        Ok(text) => Ok(Some(serde_json::from_slice(&text)?)),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(e),
    }
}

/// Writes the record.
///
/// # Errors
/// If that fails; the former one is left then.
pub fn store(table: &Table, state_dir: &Path) -> io::Result<()> {
    record::write_durably(state_dir, FILE, table)
}
