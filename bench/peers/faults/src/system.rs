//! What the cases ask of the system: descriptors, memory, CPU, limits, a filter of calls.

use std::fs;
use std::io;
use std::time::Duration;

/// Descriptors that are open, but for the one that this looks with.
pub fn fds() -> usize {
    fs::read_dir("/proc/self/fd").map_or(0, |entries| entries.count().saturating_sub(1))
}

/// Descriptors, looked at until they are down at `before` or a second has passed.
pub fn fds_above(before: usize) -> usize {
    for _ in 0..100 {
        if fds() <= before {
            return 0;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    fds() - before
}

/// Resident memory in MiB.
pub fn resident_mib() -> u64 {
    let statm = fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages = statm.split(' ').nth(1).and_then(|n| n.parse::<u64>().ok()).unwrap_or(0);
    (pages * 4096) >> 20
}

/// CPU time of the process's threads that there are.
pub fn cpu() -> Duration {
    let tasks = fs::read_dir("/proc/self/task").into_iter().flatten().flatten();
    let of_task = |task: fs::DirEntry| {
        let stat = fs::read_to_string(task.path().join("schedstat")).unwrap_or_default();
        stat.split(' ').next().and_then(|n| n.parse::<u64>().ok()).unwrap_or(0)
    };
    Duration::from_nanos(tasks.map(of_task).sum())
}

/// Sets how many descriptors may be open; the hard limit stays.
pub fn limit_fds(count: Option<u64>) -> io::Result<()> {
    // SAFETY: the limits are plain numbers, read and written by the kernel.
    let failed = unsafe {
        let mut limits: libc::rlimit = std::mem::zeroed();
        libc::getrlimit(libc::RLIMIT_NOFILE, &mut limits) != 0 || {
            limits.rlim_cur = count.unwrap_or(limits.rlim_max).min(limits.rlim_max);
            libc::setrlimit(libc::RLIMIT_NOFILE, &limits) != 0
        }
    };
    if failed { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Has the kernel answer io_uring's three calls with EPERM, as containers' filters do.
pub fn forbid_rings() -> io::Result<()> {
    const LOAD_NUMBER: u16 = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
    const AT_LEAST: u16 = (libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K) as u16;
    const ABOVE: u16 = (libc::BPF_JMP | libc::BPF_JGT | libc::BPF_K) as u16;
    const ANSWER: u16 = (libc::BPF_RET | libc::BPF_K) as u16;
    let (first, last) = (libc::SYS_io_uring_setup as u32, libc::SYS_io_uring_register as u32);
    let step = |code, jt, jf, k| libc::sock_filter { code, jt, jf, k };
    let mut steps = [
        step(LOAD_NUMBER, 0, 0, 0),
        step(AT_LEAST, 0, 2, first),
        step(ABOVE, 1, 0, last),
        step(ANSWER, 0, 0, libc::SECCOMP_RET_ERRNO | libc::EPERM as u32),
        step(ANSWER, 0, 0, libc::SECCOMP_RET_ALLOW),
    ];
    let program = libc::sock_fprog { len: steps.len() as u16, filter: steps.as_mut_ptr() };
    // SAFETY: the program and its steps live over the call, which copies them.
    let failed = unsafe {
        libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0
            || libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &program) != 0
    };
    if failed { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Ends this process with the one that started it.
pub fn end_with_parent() {
    // SAFETY: no memory is passed.
    unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
}
