//! Lets a socket receive only what a program of classic BPF lets in.

use std::{
    io,
    os::fd::{AsFd, AsRawFd as _},
};

use libc::sock_filter;

/// An instruction: its code, how many to skip if its test holds and if not, and its number.
///
/// # Errors
/// If that is no instruction's code.
pub fn instruction(code: u32, jt: u8, jf: u8, k: u32) -> io::Result<sock_filter> {
    Ok(sock_filter { code: u16::try_from(code).map_err(io::Error::other)?, jt, jf, k })
}

/// Lets in only what `program` does, instead of the program before.
///
/// # Errors
/// If the kernel refuses the program; then the one before stays.
pub fn attach(socket: impl AsFd, program: &[sock_filter]) -> io::Result<()> {
    let len = u16::try_from(program.len()).map_err(io::Error::other)?;
    let program = libc::sock_fprog { len, filter: program.as_ptr().cast_mut() };
    // SAFETY: the program lives until the call returns, and the kernel copies it.
    let set = unsafe {
        libc::setsockopt(
            socket.as_fd().as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_ATTACH_FILTER,
            (&raw const program).cast(),
            libc::socklen_t::try_from(size_of_val(&program)).map_err(io::Error::other)?,
        )
    };
    if set < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
