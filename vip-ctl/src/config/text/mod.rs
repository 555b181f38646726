//! The text of a configuration: its files, its TOML, and the places of mistakes.
//! It does not know what the values mean.

pub(super) mod files;
pub(super) mod keepalived;
pub(super) mod report;
pub(super) mod section;
pub(super) mod suggest;
pub(super) mod syntax;
