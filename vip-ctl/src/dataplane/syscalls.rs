//! `bpf(2)` for what aya 0.14 does not know: netfilter programs and links, programs for
//! rules of nftables, detaching a
//! link, and the keys of a map whose values nobody knows.

use std::{
    ffi::{CStr, CString},
    io, mem,
    os::{
        fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd},
        unix::ffi::OsStrExt,
    },
    path::Path,
};

use aya_obj::generated::{
    bpf_attach_type::BPF_NETFILTER,
    bpf_attr,
    bpf_cmd::{
        self, BPF_LINK_CREATE, BPF_LINK_DETACH, BPF_MAP_GET_NEXT_KEY, BPF_OBJ_GET, BPF_OBJ_GET_INFO_BY_FD,
        BPF_OBJ_PIN, BPF_PROG_GET_FD_BY_ID, BPF_PROG_LOAD,
    },
    bpf_insn, bpf_link_info, bpf_prog_info,
    bpf_prog_type::{BPF_PROG_TYPE_NETFILTER, BPF_PROG_TYPE_SOCKET_FILTER},
};

/// Bytes that the verifier may write: the end of what it says tells why.
const LOG_LEN: usize = 1 << 16;
/// NFPROTO_IPV4, of linux/netfilter.h.
const IPV4: u32 = 2;

/// A hook of netfilter for IPv4, by its number in linux/netfilter.h.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NetfilterHook {
    /// For what the host takes as its own: NF_INET_LOCAL_IN.
    LocalIn = 1,
    /// For what leaves, by an interface or by `lo`: NF_INET_POST_ROUTING.
    PostRouting = 4,
}

/// What a program is loaded as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ProgramType {
    /// For a hook of netfilter.
    Netfilter,
    /// For a socket, or a rule of nftables.
    SocketFilter,
}

/// What the kernel tells of a netfilter link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct LinkInfo {
    /// The kernel's id of its program.
    pub(super) program: u32,
    /// Its place among the programs of the hook: lower ones come first.
    pub(super) priority: i32,
}

/// Loads a program. An error comes with the last line of the verifier.
pub(super) fn load_program(
    kind: ProgramType,
    name: &str,
    instructions: &[bpf_insn],
    license: &CStr,
) -> Result<OwnedFd, (io::Error, String)> {
    let mut log = vec![0_u8; LOG_LEN];
    let mut attr = zeroed();
    // SAFETY: the attributes of this command are numbers and pointers, all zero so far.
    let load = unsafe { &mut attr.__bindgen_anon_3 };
    match kind {
        ProgramType::Netfilter => {
            load.prog_type = BPF_PROG_TYPE_NETFILTER as u32;
            load.expected_attach_type = BPF_NETFILTER as u32;
        }
        ProgramType::SocketFilter => load.prog_type = BPF_PROG_TYPE_SOCKET_FILTER as u32,
    }
    load.insns = instructions.as_ptr() as u64;
    load.insn_cnt = u32::try_from(instructions.len()).unwrap_or(u32::MAX);
    load.license = license.as_ptr() as u64;
    load.prog_name = kernel_name(name);
    load.log_level = 1;
    load.log_size = u32::try_from(log.len()).unwrap_or(0);
    load.log_buf = log.as_mut_ptr() as u64;
    // SAFETY: what the attributes point to lives until the call returns.
    let loaded = unsafe { bpf_fd(BPF_PROG_LOAD, &mut attr) };
    loaded.map_err(|e| {
        let said = CStr::from_bytes_until_nul(&log).unwrap_or_default().to_string_lossy();
        let because = said.lines().rev().find(|line| !line.is_empty() && !line.starts_with("processed"));
        (e, because.unwrap_or_default().to_owned())
    })
}

/// A program's name as the kernel has it, which is short.
pub(super) fn kernel_name(name: &str) -> [libc::c_char; 16] {
    let mut short = [0; 16];
    for (place, byte) in short.iter_mut().zip(name.bytes().take(15)) {
        *place = byte.cast_signed();
    }
    short
}

/// Attaches a program to this hook in this thread's network namespace.
pub(super) fn create_link(
    program: BorrowedFd<'_>,
    hook: NetfilterHook,
    priority: i32,
) -> io::Result<OwnedFd> {
    let mut attr = zeroed();
    attr.link_create.__bindgen_anon_1.prog_fd = unsigned(program);
    attr.link_create.attach_type = BPF_NETFILTER as u32;
    // SAFETY: the union's fields are numbers.
    let place = unsafe { &mut attr.link_create.__bindgen_anon_3.netfilter };
    (place.pf, place.hooknum, place.priority) = (IPV4, hook as u32, priority);
    // SAFETY: the attributes point to nothing.
    unsafe { bpf_fd(BPF_LINK_CREATE, &mut attr) }
}

/// Pins an object, where no file is yet.
pub(super) fn pin(object: BorrowedFd<'_>, path: &Path) -> io::Result<()> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    let mut attr = zeroed();
    // SAFETY: the fields of this command are numbers.
    let named = unsafe { &mut attr.__bindgen_anon_4 };
    named.pathname = path.as_ptr() as u64;
    named.bpf_fd = unsigned(object);
    // SAFETY: the path lives until the call returns.
    unsafe { bpf(BPF_OBJ_PIN, &mut attr) }.map(drop)
}

/// Opens what is pinned.
pub(super) fn pinned(path: &Path) -> io::Result<OwnedFd> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    let mut attr = zeroed();
    attr.__bindgen_anon_4.pathname = path.as_ptr() as u64;
    // SAFETY: the path lives until the call returns.
    unsafe { bpf_fd(BPF_OBJ_GET, &mut attr) }
}

/// Detaches a link at once. What is pinned goes only some time after its pin.
pub(super) fn detach(link: BorrowedFd<'_>) -> io::Result<()> {
    let mut attr = zeroed();
    attr.link_detach.link_fd = unsigned(link);
    // SAFETY: the attributes point to nothing.
    unsafe { bpf(BPF_LINK_DETACH, &mut attr) }.map(drop)
}

/// The key behind `last` in a map whose keys are four bytes, or the first one; `None` at
/// the end.
pub(super) fn next_key(map: BorrowedFd<'_>, last: Option<[u8; 4]>) -> io::Result<Option<[u8; 4]>> {
    let mut next = [0; 4];
    let mut attr = zeroed();
    attr.__bindgen_anon_2.map_fd = unsigned(map);
    attr.__bindgen_anon_2.key = last.as_ref().map_or(0, |last| std::ptr::from_ref(last) as u64);
    attr.__bindgen_anon_2.__bindgen_anon_1.next_key = std::ptr::from_mut(&mut next) as u64;
    // SAFETY: both keys live until the call returns, and have the map's size.
    match unsafe { bpf(BPF_MAP_GET_NEXT_KEY, &mut attr) } {
        Ok(_) => Ok(Some(next)),
        Err(e) if e.raw_os_error() == Some(libc::ENOENT) => Ok(None),
        Err(e) => Err(e),
    }
}

/// The program with this id.
pub(super) fn program(id: u32) -> io::Result<OwnedFd> {
    let mut attr = zeroed();
    attr.__bindgen_anon_6.__bindgen_anon_1.prog_id = id;
    // SAFETY: the attributes point to nothing.
    unsafe { bpf_fd(BPF_PROG_GET_FD_BY_ID, &mut attr) }
}

/// What the kernel tells of a netfilter link.
pub(super) fn link_info(link: BorrowedFd<'_>) -> io::Result<LinkInfo> {
    // SAFETY: `bpf_link_info` is numbers and pointers, for which zero is a value.
    let mut info: bpf_link_info = unsafe { mem::zeroed() };
    read_info(link, &mut info)?;
    // SAFETY: for a netfilter link the kernel wrote this one; it is numbers.
    let place = unsafe { info.__bindgen_anon_1.netfilter };
    Ok(LinkInfo { program: info.prog_id, priority: place.priority })
}

/// The kernel's hash of a program's instructions, and the program's name.
pub(super) fn program_tag(program: BorrowedFd<'_>) -> io::Result<([u8; 8], [libc::c_char; 16])> {
    let info = program_info(program)?;
    Ok((info.tag, info.name))
}

/// The kernel's number of a program, which no other one has until the next boot.
pub(super) fn program_id(program: BorrowedFd<'_>) -> io::Result<u32> {
    Ok(program_info(program)?.id)
}

fn program_info(program: BorrowedFd<'_>) -> io::Result<bpf_prog_info> {
    // SAFETY: `bpf_prog_info` is numbers and pointers, for which zero is a value.
    let mut info: bpf_prog_info = unsafe { mem::zeroed() };
    read_info(program, &mut info)?;
    Ok(info)
}

fn read_info<T>(object: BorrowedFd<'_>, info: &mut T) -> io::Result<()> {
    let mut attr = zeroed();
    attr.info.bpf_fd = unsigned(object);
    attr.info.info = std::ptr::from_mut(info) as u64;
    attr.info.info_len = u32::try_from(size_of::<T>()).unwrap_or(0);
    // SAFETY: `info` lives until the call returns, and its size is passed along.
    unsafe { bpf(BPF_OBJ_GET_INFO_BY_FD, &mut attr) }.map(drop)
}

fn zeroed() -> bpf_attr {
    // SAFETY: `bpf_attr` is a union of numbers and pointers, for which zero is a value.
    unsafe { mem::zeroed() }
}

/// A descriptor as the kernel's attributes have it: never negative.
fn unsigned(fd: BorrowedFd<'_>) -> u32 {
    fd.as_raw_fd().cast_unsigned()
}

/// # Safety
/// `attr` has the attributes of this command, which makes a descriptor, and what it
/// points to lives until the call returns.
unsafe fn bpf_fd(command: bpf_cmd, attr: &mut bpf_attr) -> io::Result<OwnedFd> {
    // SAFETY: the caller vouches for the attributes.
    let fd = unsafe { bpf(command, attr)? };
    // SAFETY: the kernel just gave us this descriptor; nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// # Safety
/// `attr` has the attributes of this command, and what it points to lives until the
/// call returns.
unsafe fn bpf(command: bpf_cmd, attr: &mut bpf_attr) -> io::Result<RawFd> {
    // SAFETY: the caller vouches for the attributes, and their size is passed along.
    let returned = unsafe {
        libc::syscall(libc::SYS_bpf, command as libc::c_int, &raw mut *attr, size_of::<bpf_attr>())
    };
    if returned < 0 {
        return Err(io::Error::last_os_error());
    }
    RawFd::try_from(returned).map_err(io::Error::other)
}
