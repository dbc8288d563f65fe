//! What a process does about itself: its core, its parent, and how long it may take.

use std::io;
use std::thread::{self, JoinHandle};

/// Pins the calling thread, and with it all threads that it starts.
pub fn pin(core: usize) -> io::Result<()> {
    if core_affinity::set_for_current(core_affinity::CoreId { id: core }) {
        Ok(())
    } else {
        Err(io::Error::other(format!("cannot pin to core {core}")))
    }
}

/// Lets the calling thread run on every core again: for runtimes that look at where they may run
/// before they pin their threads themselves.
pub fn unpin() -> io::Result<()> {
    // SAFETY: a set of all ones is a valid value, and the kernel only reads it.
    let failed = unsafe {
        let mut all: libc::cpu_set_t = std::mem::zeroed();
        for core in 0..libc::CPU_SETSIZE as usize {
            libc::CPU_SET(core, &mut all);
        }
        libc::sched_setaffinity(0, size_of_val(&all), &all) != 0
    };
    if failed { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Runs `body` on a thread of that core.
pub fn on_core<T, F>(core: usize, body: F) -> JoinHandle<T>
where
    T: Send + 'static,
    F: FnOnce() -> T + Send + 'static,
{
    thread::spawn(move || {
        pin(core).expect("the core exists");
        body()
    })
}

/// Has the kernel end this process when the thread that started it ends.
pub fn end_with_parent() {
    // SAFETY: no memory is passed.
    let parent_is_gone = unsafe {
        libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
        libc::getppid() == 1
    };
    if parent_is_gone && std::process::id() != 1 {
        // Either it ended before it could be watched or it is a container's first process.
        eprintln!("the parent is process 1: this process ends on a signal only");
    }
}

/// Ends the process with code 3 after so many seconds: a workload that hangs is a result.
///
/// A signal, not a thread: with a second thread malloc would take its locks in every workload.
pub fn limit_seconds(seconds: u32) {
    extern "C" fn over(_: libc::c_int) {
        let message = b"the workload took too long\n";
        // SAFETY: both calls are allowed in a signal handler, and the message lives for ever.
        unsafe {
            libc::write(2, message.as_ptr().cast(), message.len());
            libc::_exit(3);
        }
    }
    // SAFETY: the handler only calls what handlers may call.
    unsafe {
        libc::signal(libc::SIGALRM, over as *const () as libc::sighandler_t);
        libc::alarm(seconds);
    }
}
