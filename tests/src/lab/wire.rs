//! What makes a veth pair behave like a cable to a switch for XDP: a pass-all
//! program on the switch's port, and no transmit checksum offload.
//!
//! The bridge and the pairs themselves are made by `ip`, in the lab. The two
//! instructions of each program here are the lab's own: nothing of vip's data
//! plane is used, so that the lab works where vip's does not.

use std::ffi::CString;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use anyhow::{Context, Result, bail};
use nix::net::if_::if_nametoindex;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};

use super::netns::{Netns, run, tool};

/// `bpf(BPF_PROG_LOAD, …)`, of linux/bpf.h.
const BPF_PROG_LOAD: libc::c_long = 5;
/// `bpf(BPF_PROG_ATTACH, …)`, of linux/bpf.h.
const BPF_PROG_ATTACH: libc::c_long = 8;
/// `BPF_PROG_TYPE_SCHED_CLS`, of linux/bpf.h.
const BPF_PROG_TYPE_SCHED_CLS: u32 = 3;
/// `BPF_PROG_TYPE_XDP`, of linux/bpf.h.
const BPF_PROG_TYPE_XDP: u32 = 6;
/// `BPF_F_XDP_HAS_FRAGS`, of linux/bpf.h: without it the other end can have no large MTU.
const BPF_F_XDP_HAS_FRAGS: u32 = 1 << 5;
/// `XDP_PASS`, of linux/bpf.h.
const XDP_PASS: u8 = 2;
/// `TCX_PASS`, of linux/bpf.h: accept, and run no further program.
const TCX_PASS: u8 = 0;

/// The head of `union bpf_attr` for BPF_PROG_LOAD, as far as it is needed.
#[repr(C)]
struct ProgLoad {
    prog_type: u32,
    insn_cnt: u32,
    insns: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log_buf: u64,
    kern_version: u32,
    prog_flags: u32,
}

/// The head of `union bpf_attr` for BPF_PROG_ATTACH to tcx.
#[repr(C)]
struct ProgAttach {
    target_ifindex: u32,
    attach_bpf_fd: i32,
    attach_type: u32,
    attach_flags: u32,
    replace_bpf_fd: u32,
    relative_fd: u32,
    expected_revision: u64,
}

/// `bpf(2)`: returns what the command returns, a file descriptor where it makes one.
///
/// # Safety
/// `attr` is laid out as the kernel expects the attributes of this command, and what it
/// points to lives until the call returns.
unsafe fn bpf<T>(command: libc::c_long, attr: &T) -> Result<i32> {
    // SAFETY: the caller vouches for `attr`, and its size is passed along.
    let returned = unsafe { libc::syscall(libc::SYS_bpf, command, &raw const *attr, size_of::<T>()) };
    if returned < 0 {
        return Err(std::io::Error::last_os_error().into());
    }
    i32::try_from(returned).context("the kernel has returned no number of 32 bits")
}

/// Loads a program that returns `verdict`, whatever the packet.
fn load_constant(prog_type: u32, verdict: u8) -> Result<OwnedFd> {
    let license = c"GPL";
    // `r0 = verdict; exit`, eight bytes an instruction.
    let instructions: [[u8; 8]; 2] = [[0xb7, 0, 0, 0, verdict, 0, 0, 0], [0x95, 0, 0, 0, 0, 0, 0, 0]];
    let attr = ProgLoad {
        prog_type,
        insn_cnt: 2,
        insns: instructions.as_ptr() as u64,
        license: license.as_ptr() as u64,
        log_level: 0,
        log_size: 0,
        log_buf: 0,
        kern_version: 0,
        prog_flags: if prog_type == BPF_PROG_TYPE_XDP { BPF_F_XDP_HAS_FRAGS } else { 0 },
    };
    // SAFETY: the attributes are those of the command, and what they point to lives until
    // the call returns.
    let fd = unsafe { bpf(BPF_PROG_LOAD, &attr) }.context("loading a program that passes all packets")?;
    // SAFETY: the kernel just gave us this descriptor; nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Attaches a pass-all XDP program in native mode to `interface` in `ns`: the
/// peer of a veth needs one for the other side's XDP_TX to arrive (it fails
/// silently otherwise). It stays until the interface goes, so that a lab can
/// be kept after its owner has ended.
///
/// # Errors
/// When the program or the interface is refused by the kernel.
pub fn attach_pass_all(ns: &Netns, interface: &str) -> Result<()> {
    let program = load_constant(BPF_PROG_TYPE_XDP, XDP_PASS)?;
    ns.enter(|| set_xdp(interface, &program))?
        .with_context(|| format!("attaching the pass-all program to {interface} in {}", ns.name()))
}

/// In or out of an interface, at tc.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// What comes in.
    In,
    /// What leaves.
    Out,
}

impl Direction {
    /// As `tc` calls it.
    const fn name(self) -> &'static str {
        match self {
            Self::In => "ingress",
            Self::Out => "egress",
        }
    }
}

/// Has another one decide on the way in or out of `interface` in `ns`, before all that
/// are there: it accepts every packet, and none behind it is asked. By tcx a program,
/// before 6.6 a filter of clsact. It stays until the interface goes.
///
/// # Errors
/// When the kernel refuses it.
pub fn attach_first(ns: &Netns, interface: &str, direction: Direction) -> Result<()> {
    /// `BPF_TCX_INGRESS` and `BPF_TCX_EGRESS`, of linux/bpf.h.
    const BPF_TCX: [u32; 2] = [46, 47];
    /// `BPF_F_BEFORE`, of linux/bpf.h.
    const BPF_F_BEFORE: u32 = 1 << 3;

    let program = load_constant(BPF_PROG_TYPE_SCHED_CLS, TCX_PASS)?;
    ns.enter(|| {
        let attr = ProgAttach {
            target_ifindex: if_nametoindex(interface)?,
            attach_bpf_fd: program.as_raw_fd(),
            attach_type: BPF_TCX[usize::from(direction == Direction::Out)],
            attach_flags: BPF_F_BEFORE,
            replace_bpf_fd: 0,
            relative_fd: 0,
            expected_revision: 0,
        };
        // SAFETY: the attributes are those of the command, and point to nothing.
        match unsafe { bpf(BPF_PROG_ATTACH, &attr) } {
            Ok(_) => Ok(()),
            Err(e) if is_unknown(&e) => filter_first(ns, interface, direction),
            Err(e) => Err(e.context("attaching a program to tcx")),
        }
    })?
    .with_context(|| format!("on {interface} in {}", ns.name()))
}

/// Detaches a pinned link, which leaves the pin where it is.
///
/// # Errors
/// When nothing is pinned there, or the kernel can't.
pub fn detach_link(pin: &Path) -> Result<()> {
    /// `bpf(BPF_OBJ_GET, …)`, of linux/bpf.h.
    const BPF_OBJ_GET: libc::c_long = 7;
    /// `bpf(BPF_LINK_DETACH, …)`, of linux/bpf.h.
    const BPF_LINK_DETACH: libc::c_long = 34;

    let path = CString::new(pin.as_os_str().as_bytes())?;
    let attr = [path.as_ptr() as u64, 0];
    // SAFETY: the command takes a path, which lives until the call returns, and zeros.
    let fd = unsafe { bpf(BPF_OBJ_GET, &attr) }.with_context(|| format!("opening {}", pin.display()))?;
    // SAFETY: the kernel just gave us this descriptor; nobody else owns it.
    let link = unsafe { OwnedFd::from_raw_fd(fd) };
    // SAFETY: the descriptor is the command's only attribute.
    unsafe { bpf(BPF_LINK_DETACH, &link.as_raw_fd()) }.context("detaching a link").map(drop)
}

/// The head of `union bpf_attr` for BPF_PROG_TEST_RUN.
#[repr(C)]
struct TestRun {
    prog_fd: u32,
    retval: u32,
    data_size_in: u32,
    data_size_out: u32,
    data_in: u64,
    data_out: u64,
    repeat: u32,
    duration: u32,
    ctx_size_in: u32,
    ctx_size_out: u32,
    ctx_in: u64,
    ctx_out: u64,
}

/// `struct nf_hook_state`, of linux/netfilter.h, as far as a test run may fill it in.
#[repr(C)]
struct HookState {
    hook: u8,
    pf: u8,
    pad: [u8; 6],
    zero: [u64; 5],
}

/// Runs a netfilter program over an Ethernet frame, as if the host were about to take
/// it as its own. Returns the program's verdict.
///
/// # Errors
/// When the kernel refuses the program or the frame.
pub fn run_netfilter(program: BorrowedFd<'_>, frame: &[u8]) -> Result<u32> {
    /// `NF_INET_LOCAL_IN` and `NFPROTO_IPV4`, of linux/netfilter.h.
    const LOCAL_IN: HookState = HookState { hook: 1, pf: 2, pad: [0; 6], zero: [0; 5] };

    let (context, ctx_size_in) = (LOCAL_IN, u32::try_from(size_of::<HookState>())?);
    test_run(program, frame, (&raw const context as u64, ctx_size_in)).context("running a netfilter program")
}

/// Runs a socket filter over an Ethernet frame, of which it sees what is behind the
/// header, as a rule of nftables has it. Returns what the program does.
///
/// # Errors
/// When the kernel refuses the program or the frame.
pub fn run_socket_filter(program: BorrowedFd<'_>, frame: &[u8]) -> Result<u32> {
    test_run(program, frame, (0, 0)).context("running a socket filter")
}

fn test_run(program: BorrowedFd<'_>, frame: &[u8], (ctx_in, ctx_size_in): (u64, u32)) -> Result<u32> {
    /// `bpf(BPF_PROG_TEST_RUN, …)`, of linux/bpf.h.
    const BPF_PROG_TEST_RUN: libc::c_long = 10;

    let attr = TestRun {
        prog_fd: u32::try_from(program.as_raw_fd())?,
        retval: u32::MAX,
        data_size_in: u32::try_from(frame.len())?,
        data_size_out: 0,
        data_in: frame.as_ptr() as u64,
        data_out: 0,
        repeat: 1,
        duration: 0,
        ctx_size_in,
        ctx_size_out: 0,
        ctx_in,
        ctx_out: 0,
    };
    let attr = std::cell::UnsafeCell::new(attr);
    // SAFETY: the attributes are those of the command, and what they point to lives until
    // the call returns; the kernel writes its answer into them.
    unsafe { bpf(BPF_PROG_TEST_RUN, &attr) }?;
    Ok(attr.into_inner().retval)
}

/// Does the kernel not know what it was asked for?
fn is_unknown(error: &anyhow::Error) -> bool {
    error.downcast_ref::<std::io::Error>().is_some_and(|e| e.raw_os_error() == Some(libc::EINVAL))
}

/// Puts a filter on the way in or out of `interface` in `ns`, before all that are there: it
/// accepts every packet. Of filters with the lowest priority, the kernel asks the newest
/// first. It stays until the interface goes.
///
/// # Errors
/// When `tc` is missing or fails.
pub fn filter_first(ns: &Netns, interface: &str, direction: Direction) -> Result<()> {
    filter(ns, interface, direction, "all")
}

/// The same for packets of one `protocol`, as `tc` spells it. The kernel allows filters
/// for one protocol only at each priority, so that none can be put before it.
///
/// # Errors
/// As [`filter_first`].
pub fn filter(ns: &Netns, interface: &str, direction: Direction, protocol: &str) -> Result<()> {
    // It is there already where a gate is.
    let _there = tc(ns, &["qdisc", "add", "dev", interface, "clsact"]);
    let filter = ["filter", "add", "dev", interface, direction.name(), "protocol", protocol, "prio", "1"];
    tc(ns, &[&filter[..], &["bpf", "da", "bytecode", "1,6 0 0 0"]].concat()).map(drop)
}

/// What the filters on the way in or out of `interface` in `ns` are, in the order in which they
/// are asked: the names of programs, and the kinds of others.
///
/// # Errors
/// When `tc` is missing or fails.
pub fn filters(ns: &Netns, interface: &str, direction: Direction) -> Result<Vec<String>> {
    let shown = tc(ns, &["filter", "show", "dev", interface, direction.name()])?;
    // Each has a line with its handle, after one for all of its priority.
    let filters = shown.lines().filter_map(|line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let at = words.iter().position(|word| *word == "handle")?;
        let kind = words.get(words.iter().position(|word| *word == "chain")?.checked_sub(1)?)?;
        // A classic program has no name.
        let name = words.get(at + 2).filter(|name| *kind == "bpf" && **name != "direct-action");
        Some((*name.unwrap_or(kind)).to_owned())
    });
    Ok(filters.collect())
}

fn tc(ns: &Netns, args: &[&str]) -> Result<String> {
    tool("tc")?;
    run(ns.command("tc")?.args(args))
}

/// RTM_SETLINK with a nested IFLA_XDP { IFLA_XDP_FD, IFLA_XDP_FLAGS }.
fn set_xdp(interface: &str, program: &OwnedFd) -> Result<()> {
    const IFLA_XDP: u16 = 43;
    const IFLA_XDP_FD: u16 = 1;
    const IFLA_XDP_FLAGS: u16 = 3;
    const XDP_FLAGS_DRV_MODE: u32 = 1 << 2;
    const NLA_F_NESTED: u16 = 1 << 15;
    const NLM_F_REQUEST_ACK: u16 = 1 | 4;

    let ifindex = if_nametoindex(interface).with_context(|| format!("there is no interface {interface}"))?;
    let mut message = Vec::with_capacity(64);
    message.extend(0_u32.to_ne_bytes()); // the length, set below
    message.extend(libc::RTM_SETLINK.to_ne_bytes());
    message.extend(NLM_F_REQUEST_ACK.to_ne_bytes());
    message.extend([0; 8]); // sequence number, port
    message.extend([0; 4]); // struct ifinfomsg: family, pad, type
    message.extend(ifindex.to_ne_bytes());
    message.extend([0; 8]); // flags, change mask
    message.extend(20_u16.to_ne_bytes());
    message.extend((IFLA_XDP | NLA_F_NESTED).to_ne_bytes());
    for (kind, value) in
        [(IFLA_XDP_FD, program.as_raw_fd().to_ne_bytes()), (IFLA_XDP_FLAGS, XDP_FLAGS_DRV_MODE.to_ne_bytes())]
    {
        message.extend(8_u16.to_ne_bytes());
        message.extend(kind.to_ne_bytes());
        message.extend(value);
    }
    let length = u32::try_from(message.len()).context("the RTM_SETLINK message is too long")?;
    message[..4].copy_from_slice(&length.to_ne_bytes());

    let route = socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, None)?;
    nix::unistd::write(&route, &message).context("sending RTM_SETLINK")?;
    let mut reply = [0_u8; 256];
    let len = nix::unistd::read(&route, &mut reply).context("reading the answer to RTM_SETLINK")?;
    // struct nlmsghdr (16 bytes), then NLMSG_ERROR's error number, 0 for an acknowledgement.
    let errno = reply[..len].get(16..20).and_then(|b| b.try_into().ok()).map(i32::from_ne_bytes);
    match errno {
        Some(0) => Ok(()),
        Some(e) => {
            Err(std::io::Error::from_raw_os_error(-e)).context("the kernel refuses RTM_SETLINK with IFLA_XDP")
        }
        None => bail!("the answer to RTM_SETLINK has {len} bytes"),
    }
}

/// `struct ifreq` as SIOCETHTOOL uses it: a name and a pointer.
#[repr(C)]
struct EthtoolRequest {
    name: [u8; libc::IFNAMSIZ],
    data: *mut EthtoolValue,
    pad: [u8; 16],
}

/// `struct ethtool_value` of linux/ethtool.h.
#[repr(C)]
struct EthtoolValue {
    cmd: u32,
    data: u32,
}

/// Switches transmit checksum offload of `interface` in `ns` off. A frame
/// between veths otherwise carries no checksum, and one that XDP sends on is
/// wrong on arrival.
///
/// # Errors
/// When there is no such interface, or it can't.
pub fn disable_tx_checksum_offload(ns: &Netns, interface: &str) -> Result<()> {
    const SIOCETHTOOL: libc::c_ulong = 0x8946;
    const ETHTOOL_STXCSUM: u32 = 0x17;

    let name =
        CString::new(interface).with_context(|| format!("{interface:?} is not an interface's name"))?;
    let bytes = name.as_bytes();
    if bytes.len() >= libc::IFNAMSIZ {
        bail!("{interface} is too long for an interface's name");
    }
    let errno = ns.enter(|| {
        let any = socket(AddressFamily::Inet, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)?;
        let mut value = EthtoolValue { cmd: ETHTOOL_STXCSUM, data: 0 };
        let mut request = EthtoolRequest { name: [0; libc::IFNAMSIZ], data: &raw mut value, pad: [0; 16] };
        request.name[..bytes.len()].copy_from_slice(bytes);
        // SAFETY: the request is at least as large as the kernel's struct ifreq
        // and points to a value that outlives the call.
        let result = unsafe { libc::ioctl(any.as_raw_fd(), SIOCETHTOOL as _, &raw mut request) };
        nix::errno::Errno::result(result).map(drop)
    })?;
    errno.with_context(|| format!("switching off tx checksums of {interface} in {}", ns.name()))
}
