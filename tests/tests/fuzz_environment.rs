//! Whatever a service manager's variables say is taken or refused in words: NOTIFY_SOCKET, LISTEN_FDS.
//!
//! As `fuzz_settings`, each in a process of its own, since variables are the process's.

use std::ffi::OsStr;
use std::io::ErrorKind;
use std::os::fd::AsRawFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::path::{Path, PathBuf};

use coreloop::fds;
use coreloop::systemd::{State, notify, watchdog_interval};
use coreloop_tests::forked::{Ended, fork};
use coreloop_tests::fuzz::{Fuzzed, fuzz, signature};
use coreloop_tests::process::{close_number, set_variable, take_number};
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

/// A manager listens at a path or at an abstract name; each message comes whole, and alone. One that does not
/// read is an error, and no wait.
#[test]
fn notify_reaches_a_manager_at_a_path_and_at_an_abstract_name() {
    in_child("notify_reaches_a_manager_at_a_path_and_at_an_abstract_name", || {
        let name = format!("coreloop-notify-{}", std::process::id());
        let path = std::env::temp_dir().join(&name);
        let abstract_name = SocketAddr::from_abstract_name(&name).unwrap();
        for (manager, variable) in [
            (UnixDatagram::bind(&path).unwrap(), path.clone().into_os_string()),
            (UnixDatagram::bind_addr(&abstract_name).unwrap(), format!("@{name}").into()),
        ] {
            set_variable("NOTIFY_SOCKET", Some(&variable));
            let fds = fd_count();
            assert!(notify(&[State::Ready, State::Status("as it should be")]).unwrap());
            assert!(notify(&[State::Stopping]).unwrap());
            let mut bytes = [0; 100];
            for text in ["READY=1\nSTATUS=as it should be", "STOPPING=1"] {
                let n = manager.recv(&mut bytes).unwrap();
                assert_eq!(std::str::from_utf8(&bytes[..n]), Ok(text));
            }
            let behind = (0..100_000).find_map(|_| notify(&[State::Watchdog]).err());
            assert_eq!(behind.expect("it is full at some time").kind(), ErrorKind::WouldBlock);
            assert_eq!(fd_count(), fds);
        }
        std::fs::remove_file(&path).unwrap();
    });
}

/// Three lines: LISTEN_PID (`PID` is this process), LISTEN_FDS, LISTEN_FDNAMES. A process takes them once, so
/// each input has one of its own: a fork, to which two sockets were given, and nothing behind them.
#[test]
fn fuzz_listen_fds() {
    in_child("fuzz_listen_fds", || {
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let (before, mut taken) = (fd_count(), 0);
        let words = ["PID", ":", "::", "-1", "+2", "1", "4294967296", "\n"];
        shown(fuzz(&corpus("listen_fds"), &words, |input| {
            let lines = lines(input, 3);
            let ended = fork(|| {
                // Above all that a child of a test has open.
                take_number(socket.as_raw_fd(), 200);
                (3..200).for_each(close_number);
                (3..5).for_each(|number| take_number(200, number));
                let mine = std::process::id().to_string();
                let mine = String::from_utf8_lossy(&lines[0]).replace("PID", &mine);
                set_variable("LISTEN_PID", Some(OsStr::new(&mine)));
                set_variable("LISTEN_FDS", Some(OsStr::from_bytes(&lines[1])));
                set_variable("LISTEN_FDNAMES", Some(OsStr::from_bytes(&lines[2])));
                given(&lines[1], &lines[2])
            })
            .wait();
            assert_eq!(fd_count(), before);
            let Ended::Exit(status) = ended else { panic!("{ended:?}") };
            assert_ne!(status, WRONG);
            taken += usize::from((1..=2).contains(&status));
            status as u64
        }));
        figure!("{taken} times sockets were taken");
        assert!(taken > 0, "none was ever taken");
    });
}

/// Exit status of a fork that got what it was not given.
const WRONG: i32 = 99;

/// How many sockets were taken, or which error it was.
fn given(count: &[u8], names: &[u8]) -> i32 {
    match fds::inherited() {
        Ok(came) if came.is_empty() => 0,
        Ok(came) => {
            let count = String::from_utf8_lossy(count).trim().parse::<usize>();
            let names = String::from_utf8(names.to_vec()).unwrap_or_default();
            let names = names.split(':').chain(std::iter::repeat(""));
            let right =
                came.iter().zip(names).zip(3..).all(|(((name, fd), wanted), number)| {
                    name == wanted && fd.as_raw_fd() == number
                });
            let all = count == Ok(came.len()) && came.len() <= 2;
            if right && all { came.len() as i32 } else { WRONG }
        }
        Err(e) if e.raw_os_error() == Some(libc::EBADF) => 3,
        Err(e) if e.kind() == ErrorKind::InvalidData => 4 + (e.to_string().len().min(30) as i32),
        Err(_) => WRONG,
    }
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

/// What the process has opened itself is close-on-exec, and so it was not handed in, whatever the variables
/// say that a process leaves to what it becomes.
#[test]
fn listen_fds_that_this_process_opened_stay_their_owners() {
    in_child("listen_fds_that_this_process_opened_stay_their_owners", || {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        for handed_in in 0..2 {
            let ended = fork(|| {
                take_number(listener.as_raw_fd(), 200);
                (3..200).for_each(close_number);
                (3..3 + handed_in).for_each(|number| take_number(200, number));
                let file = std::fs::File::open("/proc/self/status").unwrap();
                assert_eq!(file.as_raw_fd(), 3 + handed_in);
                set_variable("LISTEN_PID", Some(OsStr::new(&std::process::id().to_string())));
                set_variable("LISTEN_FDS", Some(OsStr::new(&(handed_in + 1).to_string())));
                let taken = fds::inherited().map(|came| came.len());
                let refused = taken.is_err_and(|e| e.raw_os_error() == Some(libc::EBADF));
                // Nobody came to own either, and has closed it by now.
                let is_open = |number| Path::new(&format!("/proc/self/fd/{number}")).exists();
                let stay = file.metadata().is_ok() && (3..3 + handed_in).all(is_open);
                i32::from(refused) + 2 * i32::from(stay)
            })
            .wait();
            let Ended::Exit(status) = ended else { panic!("{ended:?}") };
            assert_eq!(status, 3, "with {handed_in} handed in");
        }
    });
}
