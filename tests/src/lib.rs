//! Integration tests and lab of vip: what several test binaries and
//! the demo and the bench share. The tests themselves live in `tests/tests/`, most of them in one program, `lab`.

pub mod bench;
pub mod demo;
pub mod flood;
pub mod lab;
