//! Integration tests, lab and simulator of vip: what several test binaries and
//! the demo share. The tests themselves live in `tests/tests/`.

pub mod demo;
pub mod flood;
pub mod lab;
pub mod model;
pub mod sim;
