//! Calls about processes: children that end with their parent, signals as a flag, and a network of one's own.
//!
//! Owns the flag that SIGINT and SIGTERM set once [`catch_signals`] was called; nothing else is shared.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};

static STOP: AtomicBool = AtomicBool::new(false);

/// From now on SIGINT and SIGTERM are remembered instead of ending the process.
pub fn catch_signals() {
    let handler = remember as extern "C" fn(libc::c_int);
    for signal in [libc::SIGINT, libc::SIGTERM] {
        // SAFETY: the handler only stores to an atomic, which is async-signal-safe.
        unsafe { libc::signal(signal, handler as libc::sighandler_t) };
    }
}

/// Whether one of them has come.
pub fn stop_requested() -> bool {
    STOP.load(Ordering::Relaxed)
}

extern "C" fn remember(_signal: libc::c_int) {
    STOP.store(true, Ordering::Relaxed);
}

/// Makes the child end when the calling thread does, and keeps the terminal's Ctrl-C from it: its parent
/// decides when it ends.
pub fn tie_to_parent(command: &mut Command) {
    command.process_group(0);
    // SAFETY: between fork and exec only prctl is called, which is async-signal-safe.
    unsafe {
        command.pre_exec(|| match libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        });
    }
}

/// Asks a process to end.
pub fn terminate(pid: u32) {
    if let Ok(pid) = libc::pid_t::try_from(pid) {
        // SAFETY: kill touches no memory. The callers' process is a child not yet waited for, so that its
        // number can't be another's.
        unsafe { libc::kill(pid, libc::SIGTERM) };
    }
}

/// CPU time of all children that have ended and were waited for, in ns.
pub fn ended_children_cpu_ns() -> u64 {
    let mut usage = std::mem::MaybeUninit::<libc::rusage>::zeroed();
    // SAFETY: the call fills the rusage it is given; zeroed, it is a valid one in any case.
    let usage = unsafe {
        libc::getrusage(libc::RUSAGE_CHILDREN, usage.as_mut_ptr());
        usage.assume_init()
    };
    let ns = |time: libc::timeval| time.tv_sec as u64 * 1_000_000_000 + time.tv_usec as u64 * 1_000;
    ns(usage.ru_utime) + ns(usage.ru_stime)
}

/// Ticks per second in which /proc/stat counts.
pub fn ticks_per_second() -> u64 {
    // SAFETY: sysconf only reads.
    let ticks = unsafe { libc::sysconf(libc::_SC_CLK_TCK) };
    u64::try_from(ticks).ok().filter(|ticks| *ticks > 0).unwrap_or(100)
}

/// Why there is no network of one's own.
#[derive(Debug)]
pub enum NoNetwork {
    /// There is the one that was there before.
    Refused(io::Error),
    /// The thread is in one that does not work, and there is no way back.
    Stranded(io::Error),
}

/// Gives the calling thread, and threads and children that it makes from now on, a network that has
/// nothing but its own loopback, which is up. Needs the right to administrate (root).
pub fn enter_private_network() -> Result<(), NoNetwork> {
    in_new_network(loopback_up)
}

/// Enters a new network, and stays there if `set_up` succeeds in it.
fn in_new_network(set_up: impl FnOnce() -> io::Result<()>) -> Result<(), NoNetwork> {
    // The thread's own: that of /proc/self is the main thread's.
    let old = File::open("/proc/thread-self/ns/net").map_err(NoNetwork::Refused)?;
    // SAFETY: unshare touches no memory; the network of this thread alone changes.
    if unsafe { libc::unshare(libc::CLONE_NEWNET) } != 0 {
        return Err(NoNetwork::Refused(io::Error::last_os_error()));
    }
    set_up().map_err(|error| {
        // SAFETY: setns touches no memory; the descriptor is open, and a network's.
        match unsafe { libc::setns(old.as_raw_fd(), libc::CLONE_NEWNET) } {
            0 => NoNetwork::Refused(error),
            _ => NoNetwork::Stranded(error),
        }
    })
}

fn loopback_up() -> io::Result<()> {
    // SAFETY: socket touches no memory of ours; its descriptor is checked, and nobody else has it.
    let socket = unsafe {
        let fd = libc::socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0);
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        OwnedFd::from_raw_fd(fd)
    };
    // SAFETY: an ifreq is plain data, for which zeroes are valid.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    request.ifr_name[0] = b'l' as libc::c_char;
    request.ifr_name[1] = b'o' as libc::c_char;
    request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as libc::c_short;
    // SAFETY: SIOCSIFFLAGS reads the name and the flags of one ifreq, which lives.
    match unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS, &request) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ended_children_are_counted() {
        let before = ended_children_cpu_ns();
        let mut command = Command::new("/bin/sh");
        command.args(["-c", "i=0; while [ $i -lt 100000 ]; do i=$((i+1)); done"]);
        tie_to_parent(&mut command);
        assert!(command.status().unwrap().success());
        assert!(ended_children_cpu_ns() > before);
        assert!(ticks_per_second() >= 1);
    }

    #[test]
    fn a_network_that_can_not_be_set_up_is_left_again() {
        // On a thread of its own, since it stays in the last one.
        let tried = std::thread::spawn(|| {
            let now = || std::fs::read_link("/proc/thread-self/ns/net").unwrap();
            let before = now();
            let mut entered = None;
            let failed = in_new_network(|| {
                entered = Some(now());
                Err(io::Error::from(io::ErrorKind::Unsupported))
            });
            let Err(NoNetwork::Refused(error)) = failed else { panic!("{failed:?}") };
            assert_eq!(now(), before, "the old one");
            let Some(entered) = entered else {
                eprintln!("SKIPPED a_network_that_can_not_be_set_up_is_left_again: {error}");
                return;
            };
            assert_ne!(entered, before);
            assert_eq!(error.kind(), io::ErrorKind::Unsupported);
            enter_private_network().unwrap();
            assert_ne!(now(), before);
        });
        tried.join().unwrap();
    }

    #[test]
    fn a_child_that_is_asked_to_ends() {
        let mut command = Command::new("sleep");
        command.arg("60");
        tie_to_parent(&mut command);
        let mut child = command.spawn().unwrap();
        terminate(child.id());
        assert!(!child.wait().unwrap().success());
        assert!(!stop_requested(), "it was not us who was asked");
    }
}
