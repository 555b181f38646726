//! What keeps a busy machine from holding up the lease loop: real-time
//! priority for its thread, and memory that is not paged out.

use std::io;

/// Middle of the FIFO range (1–99): above ordinary work, below the kernel's
/// own watchdogs and migration threads.
const PRIORITY: i32 = 50;

/// Gives the calling thread real-time priority.
///
/// # Errors
/// If it is not allowed (CAP_SYS_NICE or RLIMIT_RTPRIO).
pub fn prioritise() -> io::Result<()> {
    let parameters = libc::sched_param { sched_priority: PRIORITY };
    // SAFETY: 0 is the calling thread; the parameters live through the call.
    // Children must not inherit it.
    let result = unsafe {
        libc::sched_setscheduler(0, libc::SCHED_FIFO | libc::SCHED_RESET_ON_FORK, &raw const parameters)
    };
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
