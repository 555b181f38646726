//! The embedded BPF object. What is loaded of it, and how, is `load`'s and
//! `local_in`'s business.

/// The BPF object, built by `cargo xtask build`.
pub(super) static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/vip-ebpf.o"));
