//! The text of a configuration: its files, its TOML, and what is wrong where.
//! What the values mean is not known here.

pub(super) mod files;
pub(super) mod keepalived;
pub(super) mod report;
pub(super) mod section;
pub(super) mod suggest;
pub(super) mod syntax;
