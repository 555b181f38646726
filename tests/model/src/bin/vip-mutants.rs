//! Lists the mutants of the lease engine for `cargo xtask mutants`, a line each:
//! `engine`, the name, and why it is harmless, if so; with tabs in between.

use vip_engine::Mutant;

fn main() {
    for mutant in Mutant::ALL {
        println!("engine\t{}\t{}", mutant.name(), mutant.harmless().unwrap_or_default());
    }
}
