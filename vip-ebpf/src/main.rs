//! The BPF programs and their maps: where the kernel's calling convention
//! meets the verdicts of the library. Nothing is decided here.
#![cfg_attr(target_arch = "bpf", no_std, no_main)]

#[cfg(target_arch = "bpf")]
mod local_in;
#[cfg(target_arch = "bpf")]
mod logged;
#[cfg(target_arch = "bpf")]
mod maps;
#[cfg(target_arch = "bpf")]
mod programs;
#[cfg(target_arch = "bpf")]
mod routes;

/// The licence that the kernel asks for.
// SAFETY: loaders read this section as text that ends with a zero, which it is;
// nothing else has this name.
#[cfg(target_arch = "bpf")]
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

/// Never called: the optimiser removes every path that could panic.
#[cfg(target_arch = "bpf")]
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

#[cfg(not(target_arch = "bpf"))]
fn main() {
    eprintln!("vip-ebpf is a BPF object; build it with `cargo xtask build`");
    std::process::exit(64);
}
