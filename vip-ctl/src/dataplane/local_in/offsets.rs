//! Where the running kernel has what the programs read, by its own type information.

use std::{fs, io, sync::OnceLock};

use vip_common::layout::SkbOffsets;

use super::{Refused, btf::Btf};

/// Type information of the running kernel, and of the module that records connections.
const KERNEL_BTF: &str = "/sys/kernel/btf/vmlinux";
const CONNTRACK_BTF: &str = "/sys/kernel/btf/nf_conntrack";

/// The offsets. Without those of connections as long as the kernel records none: the
/// module for that can come at any time.
///
/// # Errors
/// When the kernel doesn't tell those of packets.
pub(super) fn known() -> Result<SkbOffsets, Refused> {
    // The kernel does not change while it runs: what is known stays known.
    static PACKETS: OnceLock<SkbOffsets> = OnceLock::new();
    static ALL: OnceLock<SkbOffsets> = OnceLock::new();
    if let Some(all) = ALL.get() {
        return Ok(*all);
    }
    let has_module = fs::exists(CONNTRACK_BTF).unwrap_or(false);
    if let Some(packets) = PACKETS.get().filter(|_| !has_module) {
        return Ok(*packets);
    }
    let kernel = fs::read(KERNEL_BTF).map_err(|e| {
        let why = format!("{KERNEL_BTF} can't be read ({e})");
        if e.kind() == io::ErrorKind::NotFound { Refused::Never(why) } else { Refused::Now(why) }
    })?;
    let mut btf = Btf::default();
    btf.add(&kernel).ok_or_else(|| Refused::Never(format!("{KERNEL_BTF} can't be understood")))?;
    let packets = packets(&btf)?;
    let built_in = connections(&btf, packets);
    // A module's types go on where the kernel's end.
    let module = if built_in.is_none() { fs::read(CONNTRACK_BTF).ok() } else { None };
    let is_read = module.is_some();
    let in_module = || {
        btf.add(&module?)?;
        connections(&btf, packets)
    };
    match built_in.or_else(in_module) {
        Some(all) => Ok(*ALL.get_or_init(|| all)),
        // A module that does not tell won't tell later.
        None if is_read => Ok(*ALL.get_or_init(|| packets)),
        None => Ok(*PACKETS.get_or_init(|| packets)),
    }
}

fn packets(btf: &Btf) -> Result<SkbOffsets, Refused> {
    let offset = |field| {
        offset(btf, "sk_buff", field)
            .ok_or_else(|| Refused::Never(format!("{KERNEL_BTF} has no field {field} in sk_buff")))
    };
    let (head, network_header) = (offset("head")?, offset("network_header")?);
    Ok(SkbOffsets { head, network_header, ..SkbOffsets::default() })
}

/// With those of connections: of the original direction's tuple, which comes first, and its
/// destination, which begins with the address.
fn connections(btf: &Btf, packets: SkbOffsets) -> Option<SkbOffsets> {
    let connection = offset(btf, "sk_buff", "_nfct")?;
    let status = offset(btf, "nf_conn", "status").filter(|at| *at > 0)?;
    let tuple = offset(btf, "nf_conn", "tuplehash")? + offset(btf, "nf_conntrack_tuple_hash", "tuple")?;
    let destination = tuple + offset(btf, "nf_conntrack_tuple", "dst")?;
    Some(SkbOffsets { connection, status, destination, ..packets })
}

fn offset(btf: &Btf, structure: &str, field: &str) -> Option<u16> {
    btf.field_offset(structure, field).and_then(|at| u16::try_from(at).ok())
}
