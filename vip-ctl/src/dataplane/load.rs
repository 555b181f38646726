//! Loads the embedded object: with new maps where nothing is pinned, else under
//! the pinned ones, so that an upgrade moves no VIP.

use std::path::Path;

use aya::{Ebpf, EbpfLoader, maps::Array, programs::Program};
use vip_common::{
    layout::{LAYOUT_VERSION, NodeConfig},
    names,
};

use super::{
    DataPlane, DataPlaneError, bpffs, clock_check, error::errno_of, local_in, object::OBJECT, pinned_node,
};

/// The programs in the kernel, not attached yet, and the maps under them.
pub struct Loaded {
    /// Groups, VIPs, leases.
    pub plane: DataPlane,
    /// The programs.
    pub ebpf: Ebpf,
    /// True if the maps were pinned already.
    pub adopted: bool,
}

/// Loads the programs over the maps that are pinned below `dir`, and compares the
/// clocks. Without such maps, creates them with room for `vips_max` VIPs.
///
/// # Errors
/// Any [`DataPlaneError`]; pins that were not there before are gone again.
pub fn load(dir: &Path, vips_max: u32) -> Result<Loaded, DataPlaneError> {
    bpffs::prepare(dir)?;
    let adopted = match pinned_node(dir)? {
        Some(node) if node.layout_version != LAYOUT_VERSION => {
            return Err(DataPlaneError::Layout { found: node.layout_version, ours: LAYOUT_VERSION });
        }
        Some(_) => true,
        None => {
            // An interrupted load may have left maps without a record.
            bpffs::remove(dir)?;
            bpffs::prepare(dir)?;
            false
        }
    };
    let loaded = load_over(dir, vips_max, adopted)
        .and_then(|ebpf| Ok(Loaded { plane: DataPlane::open(dir)?, ebpf, adopted }));
    if loaded.is_err() && !adopted {
        // The first error matters; the next load removes leftovers.
        let _ = bpffs::remove(dir);
    }
    loaded
}

/// Loads the programs over the maps that `plane` has open, for a process that
/// writes leases there: programs over any other maps would not see them.
///
/// # Errors
/// [`DataPlaneError::Replaced`] if those are no longer pinned, and the errors of
/// [`load`].
pub fn load_under(plane: &DataPlane) -> Result<Ebpf, DataPlaneError> {
    plane.check_pinned()?;
    let ebpf = load_over(&plane.dir, plane.node.vips_max, true)?;
    // Otherwise the loader would create and pin the maps that it does not find.
    plane.check_pinned()?;
    Ok(ebpf)
}

/// Lets the verifier check every program, and compares the clocks; attaches and
/// pins nothing, and leaves nothing in the kernel.
///
/// # Errors
/// The errors of [`load`].
pub fn try_out() -> Result<(), DataPlaneError> {
    clock_check::check(&mut into_kernel()?)
}

/// What of the gate at IP level this kernel can have, where the maps are, or would be,
/// pinned below `dir`.
///
/// # Errors
/// The errors of [`load`].
pub fn possible_local_in(dir: &Path) -> Result<local_in::LocalIn, DataPlaneError> {
    Ok(local_in::possible(&into_kernel()?, dir))
}

/// The tags of this version's programs on the way in: the kernel's hashes of
/// their instructions.
///
/// # Errors
/// The errors of [`load`].
pub fn tags() -> Result<Vec<u64>, DataPlaneError> {
    let ebpf = into_kernel()?;
    let tag = |name: &str| {
        let program = ebpf.program(name).ok_or_else(|| missing(name))?;
        let info = program.info();
        info.map(|info| info.tag()).map_err(|e| DataPlaneError::from_source(format!("look at {name}"), &e))
    };
    let tc = names::WAY_IN_TC.iter().map(|name| tag(name)).collect::<Result<Vec<_>, _>>()?;
    // A kernel without them runs the way in at tc.
    Ok(tc.into_iter().chain(names::WAY_IN_XDP.iter().filter_map(|name| tag(name).ok())).collect())
}

/// The programs in the kernel, over maps of their own.
fn into_kernel() -> Result<Ebpf, DataPlaneError> {
    let offsets = local_in::skb_offsets();
    let mut ebpf = EbpfLoader::new()
        .override_global(names::SKB_OFFSETS, &offsets, true)
        .load(OBJECT)
        .map_err(|e| DataPlaneError::from_source("load the data plane into the kernel".into(), &e))?;
    verify(&mut ebpf)?;
    Ok(ebpf)
}

/// Loads every program into the kernel.
fn verify(ebpf: &mut Ebpf) -> Result<(), DataPlaneError> {
    for name in names::WAY_IN_XDP {
        match program::<aya::programs::Xdp>(ebpf, name)?.load() {
            Ok(()) => {}
            // Kernels before 5.18 know no frames of several buffers: the way in is at tc.
            Err(e) if errno_of(&e) == Some(libc::EINVAL) => {}
            Err(e) => return Err(refused(name, &e)),
        }
    }
    program::<aya::programs::Xdp>(ebpf, names::PROG_CLOCK)?
        .load()
        .map_err(|e| refused(names::PROG_CLOCK, &e))?;
    for name in names::WAY_IN_TC.iter().chain(&[names::PROG_EGRESS, names::PROG_LOCAL]) {
        program::<aya::programs::SchedClassifier>(ebpf, name)?.load().map_err(|e| refused(name, &e))?;
    }
    Ok(())
}

fn load_over(dir: &Path, vips_max: u32, adopted: bool) -> Result<Ebpf, DataPlaneError> {
    let mut loader = EbpfLoader::new();
    for name in names::MAPS {
        // Pins the record last: where it is, everything else is, too.
        if adopted || *name != names::NODE {
            loader.map_pin_path(name, bpffs::map_path(dir, name));
        }
    }
    let offsets = local_in::skb_offsets();
    loader.override_global(names::SKB_OFFSETS, &offsets, true);
    loader.map_max_entries(names::VIPS_V4, vips_max);
    loader.map_max_entries(names::COUNTERS, vips_max + 1).map_max_entries(names::HEARD, vips_max + 1);
    let mut ebpf = loader
        .load(OBJECT)
        .map_err(|e| DataPlaneError::from_source("load the data plane into the kernel".into(), &e))?;
    verify(&mut ebpf)?;
    clock_check::check(&mut ebpf)?;
    if !adopted {
        write_node(&mut ebpf, dir, vips_max)?;
    }
    Ok(ebpf)
}

fn write_node(ebpf: &mut Ebpf, dir: &Path, vips_max: u32) -> Result<(), DataPlaneError> {
    let map = ebpf.take_map(names::NODE).ok_or_else(|| missing(names::NODE))?;
    let mut node: Array<_, NodeConfig> =
        Array::try_from(map).map_err(|e| DataPlaneError::map(names::NODE, e))?;
    node.set(0, NodeConfig { layout_version: LAYOUT_VERSION, vips_max }, 0)
        .map_err(|e| DataPlaneError::map("write the node's record", e))?;
    node.pin(bpffs::map_path(dir, names::NODE))
        .map_err(|e| DataPlaneError::from_source("pin the node's record".into(), &e))
}

/// The program called `name`, as its type.
pub(super) fn program<'a, T>(ebpf: &'a mut Ebpf, name: &str) -> Result<&'a mut T, DataPlaneError>
where
    &'a mut T: TryFrom<&'a mut Program, Error = aya::programs::ProgramError>,
{
    ebpf.program_mut(name)
        .ok_or_else(|| missing(name))?
        .try_into()
        .map_err(|e| DataPlaneError::from_source(format!("find the program {name}"), &e))
}

fn refused(name: &str, error: &aya::programs::ProgramError) -> DataPlaneError {
    DataPlaneError::from_source(format!("load the program {name}"), error)
}

fn missing(name: &str) -> DataPlaneError {
    DataPlaneError::Kernel {
        what: format!("find {name} in the embedded object"),
        message: "this vip-ctl was built with another data plane; build it again".into(),
    }
}
