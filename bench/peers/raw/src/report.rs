//! Counters of a server, and the one line of JSON that tells them.

use std::io::{self, Write};

/// What a server has done since it started.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counters {
    /// Bytes received, all of which go back.
    pub bytes: u64,
    /// Receives that completed, with whatever result.
    pub recv_completions: u64,
    /// Sends that completed, with whatever result.
    pub send_completions: u64,
    /// Calls that submit or wait (`io_uring_enter`, or `epoll_wait`).
    pub enters: u64,
    /// Receives that found no buffer.
    pub enobufs: u64,
}

impl Counters {
    /// Writes the line to stdout at once; `runtime` is the server's name in the report.
    pub fn print(&self, runtime: &str) -> io::Result<()> {
        let Self { bytes, recv_completions, send_completions, enters, enobufs } = self;
        let cpu_ns = thread_cpu_ns()?;
        let mut stdout = io::stdout().lock();
        writeln!(
            stdout,
            "{{\"runtime\":\"{runtime}\",\"requests_bytes\":{bytes},\
             \"recv_completions\":{recv_completions},\"send_completions\":{send_completions},\
             \"enters\":{enters},\"cpu_ns\":{cpu_ns},\"enobufs\":{enobufs}}}"
        )?;
        stdout.flush()
    }
}

fn thread_cpu_ns() -> io::Result<u64> {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is a live timespec that the call may write.
    if unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &mut time) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64)
}
