//! Whatever a service manager's variables say is taken or refused in words: NOTIFY_SOCKET, LISTEN_FDS.
//!
//! As `fuzz_settings`, each in a process of its own, since variables are the process's.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use coreloop::fds;
use coreloop::systemd::{State, notify, watchdog_interval};
use coreloop_tests::fuzz::{Fuzzed, fuzz, signature};
use coreloop_tests::process::set_variable;
use coreloop_tests::{fd_count, figure, in_child};

fn corpus(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(name)
}

fn shown(fuzzed: Fuzzed) {
    figure!("{fuzzed:?}");
    assert!(fuzzed.signatures >= 3, "{fuzzed:?}");
}

/// The lines of an input, as values of variables: those have no zero bytes.
fn lines(input: &[u8], n: usize) -> Vec<Vec<u8>> {
    let mut lines = input
        .splitn(n, |byte| *byte == b'\n')
        .map(|line| line.iter().copied().filter(|byte| *byte != 0).collect());
    (0..n).map(|_| lines.next().unwrap_or_default()).collect()
}

/// A name, and what is told: nobody listens at any that comes of the corpus.
#[test]
fn fuzz_notify_socket() {
    in_child("fuzz_notify_socket", || {
        let words = ["@", "/", "@coreloop-fuzz", "/nonexistent/", "..", "\\n", "é"];
        let fds = fd_count();
        shown(fuzz(&corpus("notify_socket"), &words, |input| {
            let lines = lines(input, 2);
            set_variable("NOTIFY_SOCKET", Some(OsStr::from_bytes(&lines[0])));
            set_variable("WATCHDOG_USEC", Some(OsStr::from_bytes(&lines[1])));
            let status = String::from_utf8_lossy(&lines[1]).replace("\\n", "\n");
            let told = notify(&[State::Ready, State::Status(&status)]);
            assert_eq!(fd_count(), fds);
            match told {
                Ok(told) => {
                    assert!(!told || !lines[0].is_empty());
                    assert!(!status.contains('\n') || !told);
                    signature((told, watchdog_interval().is_some()))
                }
                Err(e) => signature((e.kind(), e.raw_os_error())),
            }
        }));
    });
}

/// Three lines: LISTEN_PID (`PID` is this process), LISTEN_FDS, LISTEN_FDNAMES.
#[test]
fn fuzz_listen_fds() {
    in_child("fuzz_listen_fds", || {
        let pid = std::process::id().to_string();
        // They are taken once: what was taken then is nobody's afterwards.
        set_variable("LISTEN_PID", Some(OsStr::new(&pid)));
        set_variable("LISTEN_FDS", Some(OsStr::new("0")));
        assert!(fds::inherited().unwrap().is_empty());
        let before = fd_count();
        let words = ["PID", ":", "::", "-1", "+2", "4294967296", "\n"];
        shown(fuzz(&corpus("listen_fds"), &words, |input| {
            let lines = lines(input, 3);
            let mine = String::from_utf8_lossy(&lines[0]).replace("PID", &pid);
            set_variable("LISTEN_PID", Some(OsStr::new(&mine)));
            set_variable("LISTEN_FDS", Some(OsStr::from_bytes(&lines[1])));
            set_variable("LISTEN_FDNAMES", Some(OsStr::from_bytes(&lines[2])));
            let came = fds::inherited();
            assert_eq!(fd_count(), before);
            match came {
                Ok(came) => {
                    assert!(came.is_empty(), "taken twice");
                    u64::from(mine.trim() == pid)
                }
                Err(e) => {
                    assert_eq!(e.kind(), std::io::ErrorKind::InvalidData);
                    signature(e.to_string().len().min(30))
                }
            }
        }));
    });
}

/// A count beyond what is open is an error, and closes nothing of anybody's.
#[test]
fn listen_fds_beyond_what_is_open_close_nothing() {
    in_child("listen_fds_beyond_what_is_open_close_nothing", || {
        let pid = std::process::id().to_string();
        let file = std::fs::File::open("/proc/self/status").unwrap();
        let before = fd_count();
        set_variable("LISTEN_PID", Some(OsStr::new(&pid)));
        set_variable("LISTEN_FDS", Some(OsStr::new("2147483647")));
        let error = fds::inherited().unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EBADF), "{error}");
        assert_eq!(fd_count(), before);
        assert!(file.metadata().is_ok());
    });
}
