//! Tells xtask the processor that it is built for, in Rust's words.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    let arch = std::env::var("CARGO_CFG_TARGET_ARCH").unwrap_or_default();
    println!("cargo::rustc-env=VIP_ARCH={arch}");
}
