//! The few raw libc calls of the benchmark, each wrapped so that its callers need no `unsafe`.
//!
//! Owns every `unsafe` block of this crate (those about processes stand in `process`). Knows nothing of
//! what the values mean: it answers with
//! plain numbers, or with the error the kernel gave.

#![allow(unsafe_code)]

use std::io;

pub mod process;

/// A soft and a hard resource limit; `None` means unlimited.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Limit {
    /// What the process gets now.
    pub soft: Option<u64>,
    /// What it may raise the soft limit to without privileges.
    pub hard: Option<u64>,
}

/// A limit that can be asked for by [`limit`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LimitKind {
    /// Bytes of locked memory (`ulimit -l`, which counts in KiB).
    MemLock,
    /// Open files (`ulimit -n`).
    OpenFiles,
}

/// Nanoseconds of CLOCK_MONOTONIC: the one time base of every latency here.
pub fn monotonic_ns() -> u64 {
    clock_ns(libc::CLOCK_MONOTONIC)
}

/// Nanoseconds of CPU that the calling thread has used so far, kernel time included.
pub fn thread_cpu_ns() -> u64 {
    clock_ns(libc::CLOCK_THREAD_CPUTIME_ID)
}

/// The kernel's id of the calling thread, as `/proc/self/task` names it.
pub fn thread_id() -> u32 {
    // SAFETY: gettid takes nothing, touches no memory of ours and cannot fail.
    let tid = unsafe { libc::gettid() };
    u32::try_from(tid).expect("the kernel hands out positive thread ids")
}

/// One resource limit of this process.
pub fn limit(kind: LimitKind) -> io::Result<Limit> {
    let mut raw = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    let resource = match kind {
        LimitKind::MemLock => libc::RLIMIT_MEMLOCK,
        LimitKind::OpenFiles => libc::RLIMIT_NOFILE,
    };
    // SAFETY: `raw` is a live rlimit that the call fills.
    let answer = unsafe { libc::getrlimit(resource, &mut raw) };
    if answer != 0 {
        return Err(io::Error::last_os_error());
    }
    let finite = |value| (value != libc::RLIM_INFINITY).then_some(value);
    Ok(Limit { soft: finite(raw.rlim_cur), hard: finite(raw.rlim_max) })
}

/// Raises the soft limit of open files to the hard one, and answers with what is then in force.
pub fn raise_open_files() -> io::Result<Limit> {
    let now = limit(LimitKind::OpenFiles)?;
    let hard = now.hard.unwrap_or(libc::RLIM_INFINITY);
    let raw = libc::rlimit { rlim_cur: hard, rlim_max: hard };
    // SAFETY: `raw` is a live rlimit that the call only reads.
    if unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw) } != 0 {
        return Err(io::Error::last_os_error());
    }
    limit(LimitKind::OpenFiles)
}

/// Columns of the terminal on stdout, or `None` if stdout is no terminal.
pub fn stdout_columns() -> Option<usize> {
    let mut size = libc::winsize { ws_row: 0, ws_col: 0, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: TIOCGWINSZ writes one `winsize` through the pointer, and `size` is one.
    let answer = unsafe { libc::ioctl(libc::STDOUT_FILENO, libc::TIOCGWINSZ, &mut size) };
    (answer == 0 && size.ws_col > 0).then_some(usize::from(size.ws_col))
}

fn clock_ns(clock: libc::clockid_t) -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is a live timespec that the call fills.
    let answer = unsafe { libc::clock_gettime(clock, &mut time) };
    assert_eq!(answer, 0, "both clocks exist on every Linux that has io_uring");
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clocks_advance() {
        let (wall, cpu) = (monotonic_ns(), thread_cpu_ns());
        let mut sum = 0u64;
        for i in 0..100_000u64 {
            sum = std::hint::black_box(sum.wrapping_add(i));
        }
        assert!(monotonic_ns() > wall);
        assert!(thread_cpu_ns() > cpu);
    }

    #[test]
    fn the_process_may_open_files() {
        let files = limit(LimitKind::OpenFiles).unwrap();
        assert!(files.soft.is_none_or(|soft| soft > 0));
        assert!(limit(LimitKind::MemLock).is_ok());
    }

    #[test]
    fn raising_open_files_reaches_the_hard_limit() {
        let raised = raise_open_files().unwrap();
        assert_eq!(raised.soft, raised.hard);
    }
}
