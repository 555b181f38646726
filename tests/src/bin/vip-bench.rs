//! The program behind `cargo xtask bench`: arguments in, exit code out. All it
//! does is in `vip_tests::bench`; building what it runs is xtask's business.

use std::process::ExitCode;

use clap::Parser;
use vip_tests::bench::{self, BenchArgs};
use vip_tests::lab::cleanup;

fn main() -> ExitCode {
    cleanup::exit_code(bench::run(&BenchArgs::parse()))
}
