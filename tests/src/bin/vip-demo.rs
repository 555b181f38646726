//! The program behind `cargo xtask demo`: arguments in, exit code out. All it
//! does is in `vip_tests::demo`; building what it runs is xtask's business.

use std::process::ExitCode;

use clap::Parser;
use vip_tests::demo::{self, DemoArgs};
use vip_tests::lab::cleanup;

fn main() -> ExitCode {
    cleanup::exit_code(demo::run(&DemoArgs::parse()))
}
