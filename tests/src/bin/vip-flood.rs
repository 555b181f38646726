//! The program behind the flood table of `docs/security.md`: arguments in, exit
//! code out. All it does is in `vip_tests::flood`.

use std::process::ExitCode;

use clap::Parser;
use vip_tests::flood::{self, FloodArgs};

fn main() -> ExitCode {
    match flood::run(&FloodArgs::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("error: {e:#}");
            ExitCode::FAILURE
        }
    }
}
