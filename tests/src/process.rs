//! What a process holds and may do.
//!
//! Owns counting descriptors, resident memory and CPU time, and the raw calls of the harness: limits,
//! users, process groups, seccomp filters.

use std::io;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::time::{Duration, Instant};

/// Open descriptors of this process.
///
/// # Panics
/// Without `/proc`.
pub fn fd_count() -> usize {
    // The directory that is being read is one of them, each time.
    std::fs::read_dir("/proc/self/fd").expect("/proc is mounted").count() - 1
}

/// Worker threads that the kernel has made for rings of this process.
///
/// # Panics
/// Without `/proc`.
pub fn kernel_workers() -> usize {
    let threads = std::fs::read_dir("/proc/self/task").expect("/proc is mounted").flatten();
    let is_worker = |name: String| name.starts_with("iou-wrk");
    // One that has ended meanwhile has no name any more.
    let name = |path: std::path::PathBuf| std::fs::read_to_string(path.join("comm"));
    threads.filter(|thread| name(thread.path()).is_ok_and(is_worker)).count()
}

/// Waits until so many descriptors are open, at most `limit` (closing a socket may lag a turn behind);
/// gives how many there are then.
pub fn fds_settle_at(want: usize, limit: Duration) -> usize {
    let until = Instant::now() + limit;
    loop {
        let count = fd_count();
        if count == want || Instant::now() >= until {
            return count;
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Resident memory of this process's own, in bytes: no pages of files, as of a program that is run through for the
/// first time.
///
/// # Panics
/// Without `/proc`.
pub fn rss_bytes() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").expect("/proc is mounted");
    let pages: Vec<u64> = statm.split(' ').filter_map(|s| s.parse().ok()).collect();
    let [_, resident, of_files, ..] = pages[..] else { panic!("another form of statm: {statm}") };
    resident.saturating_sub(of_files) * page_bytes()
}

/// Bytes of a page.
pub fn page_bytes() -> u64 {
    // SAFETY: no arguments that could be wrong.
    unsafe { libc::sysconf(libc::_SC_PAGESIZE) as u64 }
}

/// How long the calling thread would have run and was not let, because others did; zero where the kernel does not
/// count that. A time that was measured, less this, does not grow with the machine's load.
pub fn thread_kept_waiting() -> Duration {
    let stat = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    let waited = stat.split(' ').nth(1).and_then(|ns| ns.parse().ok());
    Duration::from_nanos(waited.unwrap_or(0))
}

/// Pages that the calling thread was the first to touch, or that it touched anew, since it began: its minor page
/// faults, those of system calls that it made among them.
///
/// # Panics
/// Without `/proc`.
pub fn thread_faults() -> u64 {
    let stat = std::fs::read_to_string("/proc/thread-self/stat").expect("/proc is mounted");
    // The name, which may hold anything, is in brackets; after it come state, ppid, pgrp, session, tty,
    // its group, flags, and then these.
    let after_name = stat.rsplit_once(") ").map_or("", |(_, rest)| rest);
    let faults = after_name.split(' ').nth(7).and_then(|n| n.parse().ok());
    faults.unwrap_or_else(|| panic!("another form of stat: {stat}"))
}

/// Gives this process memory by single pages from now on, so that a fault is a page.
///
/// # Errors
/// The system's.
pub fn no_huge_pages() -> io::Result<()> {
    let (on, zero): (libc::c_ulong, libc::c_ulong) = (1, 0);
    // SAFETY: integers alone.
    check(unsafe { libc::prctl(libc::PR_SET_THP_DISABLE, on, zero, zero, zero) })
}

/// CPU time of the calling thread.
pub fn thread_cpu() -> Duration {
    cpu_of(libc::CLOCK_THREAD_CPUTIME_ID)
}

/// CPU time of the process.
pub fn process_cpu() -> Duration {
    cpu_of(libc::CLOCK_PROCESS_CPUTIME_ID)
}

fn cpu_of(clock: libc::clockid_t) -> Duration {
    let mut t = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: a live timespec that the call fills.
    let rc = unsafe { libc::clock_gettime(clock, &mut t) };
    assert_eq!(rc, 0, "the clock exists");
    Duration::new(t.tv_sec as u64, t.tv_nsec as u32)
}

/// Whether this process runs as root.
pub fn is_root() -> bool {
    // SAFETY: always succeeds.
    unsafe { libc::geteuid() == 0 }
}

/// Whether strace is there and may trace.
pub fn strace_works() -> bool {
    let tried = Command::new("strace").args(["-f", "-o", "/dev/null", "true"]).output();
    tried.is_ok_and(|o| o.status.success())
}

/// Sets the soft limit of open descriptors of this process.
///
/// # Panics
/// If the system refuses.
pub fn set_file_limit(soft: u64) {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: a live rlimit that the call fills.
    assert_eq!(unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit) }, 0);
    limit.rlim_cur = soft.min(limit.rlim_max);
    // SAFETY: a live rlimit that the call reads.
    assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &limit) }, 0);
}

/// The soft limit of open descriptors.
pub fn file_limit() -> u64 {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: a live rlimit that the call fills.
    assert_eq!(unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit) }, 0);
    limit.rlim_cur
}

/// Gives the calling thread a copy of the process's descriptor table for itself. What it opens from now on
/// counts against the same limit, but by itself; what was open stays so until this thread ends.
///
/// # Errors
/// As `unshare(2)`: a sandbox may forbid it.
pub fn own_descriptor_table() -> io::Result<()> {
    // SAFETY: plain integers; threads that share memory need not share descriptors.
    check(unsafe { libc::unshare(libc::CLONE_FILES) })
}

/// Opens `/dev/null` until no number below the highest one in use is free, for good; gives the lowest
/// free number.
///
/// # Panics
/// Without `/proc` or `/dev/null`.
pub fn fill_descriptor_gaps() -> u64 {
    let highest = std::fs::read_dir("/proc/self/fd")
        .expect("/proc is mounted")
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<i32>().ok())
        .max()
        .expect("the directory itself is open");
    loop {
        let file = std::fs::File::open("/dev/null").expect("it is there");
        let number = std::os::fd::IntoRawFd::into_raw_fd(file);
        if number >= highest {
            return number as u64 + 1;
        }
    }
}

/// Has system call `number` answer `errno` in this thread from now on, by a seccomp filter.
///
/// # Errors
/// Where the kernel has no seccomp filters.
pub fn block_syscall(number: libc::c_long, errno: i32) -> io::Result<()> {
    let if_number = unless(number as u32, 1);
    filter(&mut [load(0), if_number, answer(errno), ALLOW])
}

/// As [`block_syscall`], of `setsockopt(2)` with this option alone. Threads that are started later inherit it.
///
/// # Errors
/// Where the kernel has no seccomp filters.
pub fn block_socket_option(option: i32, errno: i32) -> io::Result<()> {
    // The low half of the third argument.
    let argument = std::mem::offset_of!(libc::seccomp_data, args) as u32 + 2 * 8;
    let argument = argument + if cfg!(target_endian = "big") { 4 } else { 0 };
    let if_number = unless(libc::SYS_setsockopt as u32, 3);
    let if_option = unless(option as u32, 1);
    filter(&mut [load(0), if_number, load(argument), if_option, answer(errno), ALLOW])
}

const ALLOW: libc::sock_filter = step(libc::BPF_RET | libc::BPF_K, libc::SECCOMP_RET_ALLOW, 0);

const fn step(code: u32, k: u32, jf: u8) -> libc::sock_filter {
    libc::sock_filter { code: code as u16, jt: 0, jf, k }
}

const fn load(at: u32) -> libc::sock_filter {
    step(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, at, 0)
}

/// Passes over the next `skipped` unless what was loaded is `value`.
const fn unless(value: u32, skipped: u8) -> libc::sock_filter {
    step(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, value, skipped)
}

const fn answer(errno: i32) -> libc::sock_filter {
    step(libc::BPF_RET | libc::BPF_K, libc::SECCOMP_RET_ERRNO | errno as u32, 0)
}

fn filter(steps: &mut [libc::sock_filter]) -> io::Result<()> {
    let program = libc::sock_fprog { len: steps.len() as u16, filter: steps.as_mut_ptr() };
    // SAFETY: plain integers.
    let rc = unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) };
    if rc != 0 {
        return Err(io::Error::last_os_error());
    }
    let mode = libc::SECCOMP_MODE_FILTER;
    // SAFETY: a live program that the kernel copies.
    let rc = unsafe { libc::prctl(libc::PR_SET_SECCOMP, mode, &raw const program) };
    if rc == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Has the calling thread run on one CPU only.
///
/// # Errors
/// As `sched_setaffinity(2)`.
pub fn run_on(cpu: usize) -> io::Result<()> {
    // SAFETY: all-zero bytes are an empty set.
    let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    assert!(cpu < libc::CPU_SETSIZE as usize, "a CPU that the set has room for");
    // SAFETY: the set is live, and has room for `cpu`.
    unsafe { libc::CPU_SET(cpu, &mut set) };
    // SAFETY: a live set of the length that is given.
    check(unsafe { libc::sched_setaffinity(0, size_of_val(&set), &raw const set) })
}

/// Sends a signal to the calling thread; its handler has run when this returns. One that is sent to the process
/// may be another thread's to take, a while later.
pub fn raise(signal: i32) {
    // SAFETY: a plain call.
    let raised = unsafe { libc::raise(signal) };
    assert_eq!(raised, 0, "signal {signal} was raised");
}

/// Has this process ignore a signal.
pub fn ignore(signal: i32) {
    // SAFETY: a plain call that sets no handler.
    let before = unsafe { libc::signal(signal, libc::SIG_IGN) };
    assert_ne!(before, libc::SIG_ERR, "signal {signal} can be ignored");
}

/// Sends a signal to a process or, if negative, to a process group.
pub fn kill(pid: i32, signal: i32) {
    // SAFETY: plain integers; a process that is gone is an error that does not matter.
    unsafe { libc::kill(pid, signal) };
}

/// Sets a variable of this process, or takes it away.
///
/// # Panics
/// For a value with a zero byte.
pub fn set_variable(name: &str, value: Option<&std::ffi::OsStr>) {
    // SAFETY: for children with one test, in which no other thread reads the environment.
    unsafe {
        match value {
            Some(value) => std::env::set_var(name, value),
            None => std::env::remove_var(name),
        }
    }
}

/// Has another number mean what `from` does, whatever it was before.
pub fn take_number(from: i32, to: i32) {
    // SAFETY: numbers only; who holds `to` is the caller's own.
    let rc = unsafe { libc::dup2(from, to) };
    assert_eq!(rc, to, "dup2: {}", io::Error::last_os_error());
}

/// Closes a descriptor by its number, whoever thinks to own it: for forked children alone, whose copies of
/// owners are never dropped.
pub fn close_number(fd: i32) {
    // SAFETY: a plain integer; one that is not open is an error that does not matter.
    unsafe { libc::close(fd) };
}

/// Sets the wall clock of the machine so many seconds on, or back.
///
/// # Panics
/// Without the right to.
pub fn step_wall_clock(seconds: i64) {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: a live timespec that the call fills.
    let rc = unsafe { libc::clock_gettime(libc::CLOCK_REALTIME, &raw mut now) };
    assert_eq!(rc, 0);
    now.tv_sec += seconds;
    // SAFETY: a live timespec that the call reads.
    let rc = unsafe { libc::clock_settime(libc::CLOCK_REALTIME, &raw const now) };
    assert_eq!(rc, 0, "clock_settime: {}", io::Error::last_os_error());
}

/// Ends a TCP connection by a reset, also if others have the same socket: `connect(2)` to AF_UNSPEC.
pub(crate) fn reset_connection(socket: &std::net::TcpStream) {
    let nowhere =
        libc::sockaddr { sa_family: libc::AF_UNSPEC as libc::sa_family_t, sa_data: [0; 14] };
    let len = size_of_val(&nowhere) as libc::socklen_t;
    // SAFETY: a live address of that length. One that has ended is an error that does not matter.
    unsafe { libc::connect(std::os::fd::AsRawFd::as_raw_fd(socket), &raw const nowhere, len) };
}

pub(crate) fn kill_group(leader: u32) {
    kill(-(leader as i32), libc::SIGKILL);
}

pub(crate) fn write_raw(fd: i32, bytes: &[u8]) {
    // SAFETY: a live buffer; a closed descriptor is an error that does not matter.
    let _ = unsafe { libc::write(fd, bytes.as_ptr().cast(), bytes.len()) };
}

/// As many descriptors as this user may have: a session's soft limit is often 1,024.
fn raise_file_limit() -> io::Result<()> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: a live rlimit that the call fills.
    check(unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit) })?;
    limit.rlim_cur = limit.rlim_max;
    // SAFETY: a live rlimit that the call reads.
    check(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &limit) })
}

/// Sets a child's limits and user, gives it small pages only, and ties its life to the calling thread's.
pub(crate) fn prepare_child(
    command: &mut Command,
    files: Option<u64>,
    memlock: Option<u64>,
    uid: Option<u32>,
) {
    let limits: Vec<_> = [(libc::RLIMIT_NOFILE, files), (libc::RLIMIT_MEMLOCK, memlock)]
        .into_iter()
        .filter_map(|(which, limit)| Some((which, limit?)))
        .collect();
    let between = move || {
        if files.is_none() {
            raise_file_limit()?;
        }
        for (which, limit) in &limits {
            let limit = libc::rlimit { rlim_cur: *limit, rlim_max: *limit };
            // SAFETY: a live rlimit that the call reads.
            check(unsafe { libc::setrlimit(*which, &limit) })?;
        }
        if let Some(uid) = uid {
            // SAFETY: plain integers; `setgroups` reads no element.
            check(unsafe { libc::setgroups(0, std::ptr::null()) })?;
            // SAFETY: plain integers.
            check(unsafe { libc::setgid(uid) })?;
            // SAFETY: plain integers.
            check(unsafe { libc::setuid(uid) })?;
        }
        // A first byte of 2 MiB that makes all of it resident is no growth of a test's. Kernels without huge pages
        // do not know this.
        // SAFETY: plain integers.
        let _unknown = unsafe { libc::prctl(libc::PR_SET_THP_DISABLE, 1, 0, 0, 0) };
        // SAFETY: plain integers.
        check(unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) })
    };
    // SAFETY: `between` makes system calls only: it neither allocates nor takes locks.
    unsafe { command.pre_exec(between) };
}

fn check(rc: i32) -> io::Result<()> {
    if rc == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// The thread takes no signals for as long as this lives.
#[derive(Debug)]
pub struct NoSignals(libc::sigset_t);

impl NoSignals {
    /// From here on.
    pub fn here() -> Self {
        // SAFETY: a set of bits, for which zeroes are a value; the calls fill and read those two alone.
        unsafe {
            let (mut all, mut before) = std::mem::zeroed();
            libc::sigfillset(&raw mut all);
            libc::pthread_sigmask(libc::SIG_BLOCK, &raw const all, &raw mut before);
            Self(before)
        }
    }
}

impl Drop for NoSignals {
    fn drop(&mut self) {
        // SAFETY: it reads the set that the other call has filled.
        unsafe {
            libc::pthread_sigmask(libc::SIG_SETMASK, &raw const self.0, std::ptr::null_mut())
        };
    }
}
