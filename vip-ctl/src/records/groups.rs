//! The record of the groups and VIPs that a node has had, in its state directory.
//! [`vip_lease::table`] decides how one table follows from another.

use std::{io, net::IpAddr, path::Path};

use vip_lease::table::{Configured, Table};

use crate::{config::Group, records};

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
/// If the file exists but cannot be read or parsed.
pub fn load(state_dir: &Path) -> io::Result<Option<Table>> {
    records::read(state_dir, FILE)
}

/// Writes the record.
///
/// # Errors
/// If that fails; then the former record stays.
pub fn store(table: &Table, state_dir: &Path) -> io::Result<()> {
    records::write_durably(state_dir, FILE, table)
}
