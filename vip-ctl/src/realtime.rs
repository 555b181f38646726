//! Keeps a busy machine from holding up the lease loop: real-time priority for
//! its thread, and memory that is in RAM before it is needed and stays there.

use std::{
    fs::File,
    io::{self, BufRead as _, BufReader},
    ops::Range,
};

/// Bytes of a page; a larger one is touched several times.
const PAGE: usize = 4096;
/// More stack than the deepest path of a takeover needs, with everything that it
/// calls.
const STACK: usize = 256 * 1024;

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
/// If this process may not (CAP_SYS_NICE or RLIMIT_RTPRIO).
pub fn prioritise(role: Role) -> io::Result<()> {
    // The kernel's `struct sched_param` is this one number. Uses the system call
    // itself, since musl's function of that name only returns ENOSYS.
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
/// If this process may not (CAP_IPC_LOCK or RLIMIT_MEMLOCK).
pub fn lock_memory() -> io::Result<()> {
    // SAFETY: takes flags only.
    let result = unsafe { libc::mlockall(libc::MCL_CURRENT | libc::MCL_FUTURE | libc::MCL_ONFAULT) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Pages in this program's code and constants, and those of its libraries, so
/// that the first takeover reads nothing from a disk. Returns how many bytes that
/// are. After [`lock_memory`], they stay.
///
/// # Errors
/// If the kernel does not list the mappings.
pub fn page_in_program() -> io::Result<usize> {
    let mut bytes = 0;
    for line in BufReader::new(File::open("/proc/self/maps")?).lines() {
        let Some(pages) = program_pages(&line?) else { continue };
        bytes += pages.len();
        let advise = |advice| {
            let start = std::ptr::with_exposed_provenance_mut(pages.start);
            // SAFETY: neither advice changes what is mapped or what is in it; a
            // mapping that has gone meanwhile is an error to the kernel.
            unsafe { libc::madvise(start, pages.len(), advice) }
        };
        // Before Linux 5.14: into the page cache at least.
        if advise(libc::MADV_POPULATE_READ) != 0 {
            // Then the kernel pages it in on demand, as usual.
            let _ = advise(libc::MADV_WILLNEED);
        }
    }
    Ok(bytes)
}

/// The addresses in a line of `/proc/self/maps`, if the line is about a read-only
/// part of a program file (proc_pid_maps(5)).
fn program_pages(line: &str) -> Option<Range<usize>> {
    let mut fields = line.split_ascii_whitespace();
    let (start, end) = fields.next()?.split_once('-')?;
    let mode = fields.next()?;
    // The offset and the device.
    let inode = fields.nth(2)?;
    let is_file = inode != "0" && fields.next()?.starts_with('/');
    let is_program = matches!(mode, "r-xp" | "r--p");
    let address = |text| usize::from_str_radix(text, 16).ok();
    (is_file && is_program).then_some(address(start)?..address(end)?)
}

/// Touches the calling thread's stack as deep as it may get.
#[inline(never)]
pub fn touch_stack() {
    let mut stack = [0_u8; STACK];
    for byte in stack.iter_mut().step_by(PAGE) {
        // SAFETY: a place of the array; volatile, so that it is done.
        unsafe { std::ptr::from_mut(byte).write_volatile(1) };
    }
    std::hint::black_box(&stack);
}

#[cfg(test)]
mod tests {
    use std::{fs, thread};

    use nix::sys::resource::{UsageWho, getrusage};

    use super::*;

    #[test]
    fn code_and_constants_of_files_are_told_from_the_rest() {
        let pages = |line| program_pages(line);
        let code = "7f10a000-7f10c000 r-xp 00002000 fe:01 131 /usr/lib/x86_64-linux-gnu/libc.so.6";
        assert_eq!(pages(code), Some(0x7f10_a000..0x7f10_c000));
        assert!(pages("55d0-55d1 r--p 00000000 fe:01 131    /usr/bin/vip-ctl (deleted)").is_some());
        for other in [
            "55d0-55d1 rw-p 00000000 fe:01 131 /usr/bin/vip-ctl",
            "55d0-55d1 rw-p 00000000 00:00 0 [heap]",
            "7fff-8000 r-xp 00000000 00:00 0 [vdso]",
            "7fff-8000 r--s 00000000 00:0e 12 anon_inode:bpf-map",
            "7fff-8000 ---p 00000000 00:00 0",
            "",
        ] {
            assert_eq!(pages(other), None, "{other}");
        }
    }

    /// Size and resident size of the mappings of this program's code, in KiB.
    fn code() -> (usize, usize) {
        let (own, text) = (std::env::current_exe().unwrap(), fs::read_to_string("/proc/self/smaps").unwrap());
        let (mut size, mut resident, mut is_code) = (0, 0, false);
        for line in text.lines() {
            let value = || line.split_ascii_whitespace().nth(1).and_then(|value| value.parse::<usize>().ok());
            if line.starts_with("Size:") && is_code {
                size += value().unwrap();
            } else if line.starts_with("Rss:") && is_code {
                resident += value().unwrap();
            } else if line.split_ascii_whitespace().next().is_some_and(|first| first.contains('-')) {
                is_code = line.contains("r-xp") && line.ends_with(own.to_str().unwrap());
            }
        }
        (size, resident)
    }

    #[test]
    fn all_of_the_code_is_there_after_it_was_paged_in() {
        let (size, before) = code();
        assert!(size > 0 && before < size, "{before} of {size} KiB are there before");
        assert!(page_in_program().unwrap() >= size * 1024);
        assert_eq!(code(), (size, size));
    }

    /// Page faults of this thread.
    fn faults() -> i64 {
        let usage = getrusage(UsageWho::RUSAGE_THREAD).unwrap();
        usage.minor_page_faults() + usage.major_page_faults()
    }

    /// Uses as much stack as a takeover may.
    #[inline(never)]
    fn deep() -> u8 {
        let mut stack = [0_u8; STACK - 64 * 1024];
        for byte in stack.iter_mut().step_by(PAGE) {
            // SAFETY: as above.
            unsafe { std::ptr::from_mut(byte).write_volatile(2) };
        }
        std::hint::black_box(&stack)[0]
    }

    #[test]
    fn a_stack_that_was_touched_costs_no_fault() {
        let run = |touched: bool| {
            let body = move || {
                // Asking for the number itself may page something in.
                faults();
                if touched {
                    touch_stack();
                }
                let before = faults();
                deep();
                faults() - before
            };
            thread::Builder::new().stack_size(4 * STACK).spawn(body).unwrap().join().unwrap()
        };
        let (cold, warm) = (run(false), run(true));
        assert!(cold >= 16 && warm <= cold / 4, "{cold} faults before, {warm} after");
    }
}
