//! Build, load, demo and test tasks of vip.
fn main() {}
