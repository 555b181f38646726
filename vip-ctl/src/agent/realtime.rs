//! What keeps a busy machine from holding up the lease loop: real-time
//! priority for its thread, and memory that is not paged out.

use std::io;

/// A thread that must not wait for ordinary work. Its priority is in the middle
/// of the FIFO range (1–99), below the kernel's own watchdogs.
#[derive(Clone, Copy, Debug)]
#[repr(i32)]
pub enum Role {
    /// Sends announcements, in bursts with pauses.
    Announcer = 49,
    /// Renews leases.
    Lease = 50,
}

/// Gives the calling thread real-time priority.
///
/// # Errors
/// If it is not allowed (CAP_SYS_NICE or RLIMIT_RTPRIO).
pub fn prioritise(role: Role) -> io::Result<()> {
    // The kernel's `struct sched_param` is this one number. The system call
    // itself, since musl's function of that name only says ENOSYS.
    let priority = role as libc::c_int;
    // Children must not inherit it.
    let policy: libc::c_int = libc::SCHED_FIFO | libc::SCHED_RESET_ON_FORK;
    // SAFETY: 0 is the calling thread; the priority lives through the call.
    let result = unsafe { libc::syscall(libc::SYS_sched_setscheduler, 0, policy, &raw const priority) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Locks the process's memory as it is touched, now and later.
///
/// # Errors
/// If it is not allowed (CAP_IPC_LOCK or RLIMIT_MEMLOCK).
pub fn lock_memory() -> io::Result<()> {
    // SAFETY: takes flags only.
    let result = unsafe { libc::mlockall(libc::MCL_CURRENT | libc::MCL_FUTURE | libc::MCL_ONFAULT) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
