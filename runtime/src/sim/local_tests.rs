//! Unix sockets and second descriptors, held to Linux.
//!
//! Owns a program of random calls that is run on both kernels, and what only the simulated one can be asked.

use std::collections::BTreeSet;
use std::io;
use std::net::Shutdown;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::rc::Rc;

use super::faults::Faults;
use super::kernel::SimKernel;
use super::rng::Rng;
use super::world::World;
use crate::sys::kernel::Kernel;
use crate::sys::linux::Linux;

/// Sockets of a program, at most.
const SOCKETS_MAX: usize = 6;

struct Machine<'a> {
    kernel: &'a dyn Kernel,
    path: PathBuf,
    listeners: Vec<OwnedFd>,
    sockets: Vec<Socket>,
}

/// Descriptors are sent by sockets that connected, and only of such ones. So nothing on its way holds itself
/// open: Linux finds and closes what does, but whenever its collector runs.
struct Socket {
    fd: OwnedFd,
    connected: bool,
}

/// An answer as both can be compared: no descriptor's number.
fn told<T>(result: io::Result<T>, shown: impl FnOnce(T) -> String) -> String {
    match result {
        Ok(value) => shown(value),
        Err(e) => e.raw_os_error().map_or_else(|| format!("{:?}", e.kind()), |n| format!("-{n}")),
    }
}

impl Machine<'_> {
    /// One call, with the numbers that both machines draw alike.
    fn call(&mut self, (what, which, how): (u64, u64, u64)) -> String {
        let at = |len: usize| (which as usize) % len.max(1);
        let (i, l) = (at(self.sockets.len()), at(self.listeners.len()));
        let socket = self.sockets.get(i).map(|socket| socket.fd.as_fd());
        let connected = self.sockets.get(i).is_some_and(|socket| socket.connected);
        let of = |connected| move |fd| Socket { fd, connected };
        let listener = self.listeners.get(l).map(|fd| fd.as_fd());
        match (what, socket, listener) {
            (0, ..) if self.listeners.len() < 2 => {
                let made = self.kernel.listen_local(&self.path, how as i32 % 3);
                told(made.map(|fd| self.listeners.push(fd)), |()| "listens".into())
            }
            (1..=3, ..) if self.sockets.len() < SOCKETS_MAX => {
                let made = self.kernel.connect_local(&self.path).map(of(true));
                told(made.map(|socket| self.sockets.push(socket)), |()| "connected".into())
            }
            (4..=6, _, Some(listener)) if self.sockets.len() < SOCKETS_MAX => {
                let made = self.kernel.accept_local(listener).map(of(false));
                told(made.map(|socket| self.sockets.push(socket)), |()| "accepted".into())
            }
            (7..=10, Some(socket), _) => {
                let sent = self.sockets.iter().filter(|socket| connected && socket.connected);
                let fds: Vec<BorrowedFd<'_>> =
                    sent.take(how as usize % 3).map(|socket| socket.fd.as_fd()).collect();
                let sent = self.kernel.send_message(socket, &vec![7; 1 + how as usize], &fds);
                told(sent, |()| "sent".into())
            }
            (11..=14, Some(socket), _) => {
                let mut bytes = vec![0; if how == 0 { 0 } else { 20 }];
                let got = self.kernel.recv_message(socket, &mut bytes);
                let shown = told(got.as_ref().map_err(again), |(n, fds)| {
                    format!("{n} bytes, {} descriptors", fds.len())
                });
                let room = SOCKETS_MAX.saturating_sub(self.sockets.len());
                let fds = got.map(|(_, fds)| fds).unwrap_or_default();
                self.sockets.extend(fds.into_iter().take(room).map(of(true)));
                shown
            }
            (15, Some(socket), _) => {
                let how = [Shutdown::Read, Shutdown::Write, Shutdown::Both][how as usize % 3];
                told(self.kernel.shutdown(socket, how), |()| "shut down".into())
            }
            (16, Some(_), _) => {
                drop(self.sockets.remove(i));
                "closed".into()
            }
            (17, _, Some(_)) if how < 6 => {
                drop(self.listeners.remove(l));
                "closed a listener".into()
            }
            (18, ..) if how < 6 => told(self.kernel.unlink_local(&self.path), |()| "gone".into()),
            (19, Some(socket), _) if self.sockets.len() < SOCKETS_MAX => {
                let made = self.kernel.duplicate(socket).map(of(connected));
                told(made.map(|socket| self.sockets.push(socket)), |()| "two".into())
            }
            (20, _, Some(listener)) => told(self.kernel.is_listener(listener), |is| is.to_string()),
            (21, Some(socket), _) => told(self.kernel.is_listener(socket), |is| is.to_string()),
            _ => String::new(),
        }
    }
}

fn again(e: &io::Error) -> io::Error {
    e.raw_os_error().map_or_else(|| e.kind().into(), io::Error::from_raw_os_error)
}

#[test]
fn sim_local_sockets_answer_as_linux_does() {
    let path = std::env::temp_dir().join(format!("coreloop-sim-local-{}", std::process::id()));
    let mut kinds = BTreeSet::new();
    for seed in 0..400 {
        let world = World::new(seed, Faults::none());
        let kernel: Rc<SimKernel> = world.kernel(world.add_host(Vec::new()));
        let _ = std::fs::remove_file(&path);
        let machine = |kernel| Machine {
            kernel,
            path: path.clone(),
            listeners: Vec::new(),
            sockets: Vec::new(),
        };
        let (mut real, mut simulated) = (machine(&Linux as &dyn Kernel), machine(&*kernel));
        let (mut rng, mut said) = (Rng::new(seed), Vec::new());
        for _ in 0..80 {
            let call = (rng.below(22), rng.below(60), rng.below(24));
            let (expected, got) = (real.call(call), simulated.call(call));
            said.push(format!("{call:?} {expected}"));
            kinds.insert(expected.clone());
            assert_eq!(got, expected, "seed {seed}, after\n{}", said.join("\n"));
        }
        drop(simulated);
        assert!(world.open_files().is_empty(), "seed {seed}: {:?}", world.open_files());
    }
    let _ = std::fs::remove_file(&path);
    // The programs came to all of these.
    let errnos = [
        libc::EAGAIN,
        libc::EPIPE,
        libc::ECONNRESET,
        libc::ECONNREFUSED,
        libc::ENOENT,
        libc::EADDRINUSE,
    ];
    let told = errnos.iter().map(|errno| format!("-{errno}"));
    let told =
        told.chain(["InvalidData", "InvalidInput", "0 bytes, 0 descriptors"].map(str::to_owned));
    let missing: Vec<_> = told.filter(|kind| !kinds.contains(kind)).collect();
    assert!(missing.is_empty(), "{missing:?} of {kinds:?}");
}

#[test]
fn sim_a_socket_ends_with_its_last_descriptor() {
    let world = World::new(1, Faults::none());
    let kernel = world.kernel(world.add_host(Vec::new()));
    let addr = "127.0.0.1:7000".parse().unwrap();
    let bound = || {
        let socket = kernel.stream_socket(libc::AF_INET).unwrap();
        kernel.bind(socket.as_fd(), &addr).map(|()| socket)
    };
    let first = bound().unwrap();
    let second = kernel.duplicate(first.as_fd()).unwrap();
    // One that nobody hears of, until it is used.
    let third = second.try_clone().unwrap();
    drop(first);
    assert_eq!(bound().unwrap_err().raw_os_error(), Some(libc::EADDRINUSE));
    assert_eq!(kernel.local_addr(third.as_fd()).unwrap(), addr);
    assert_eq!(world.open_files().len(), 2);
    drop(second);
    assert_eq!(bound().unwrap_err().raw_os_error(), Some(libc::EADDRINUSE));
    drop(third);
    drop(bound().unwrap());
    assert!(world.open_files().is_empty());
}

#[test]
fn sim_what_a_message_carries_lives_until_it_is_dropped() {
    let world = World::new(1, Faults::none());
    let kernel = world.kernel(world.add_host(Vec::new()));
    let path = PathBuf::from("talk");
    let listener = kernel.listen_local(&path, 1).unwrap();
    let near = kernel.connect_local(&path).unwrap();
    let far = kernel.accept_local(listener.as_fd()).unwrap();
    let addr = "127.0.0.1:7000".parse().unwrap();
    let lent = kernel.stream_socket(libc::AF_INET).unwrap();
    kernel.bind(lent.as_fd(), &addr).unwrap();
    let is_free = || {
        let socket = kernel.stream_socket(libc::AF_INET).unwrap();
        kernel.bind(socket.as_fd(), &addr).is_ok()
    };
    for _ in 0..2 {
        kernel.send_message(near.as_fd(), b"yours", &[lent.as_fd()]).unwrap();
    }
    drop((lent, listener));
    let mut bytes = [0; 5];
    let (_, came) = kernel.recv_message(far.as_fd(), &mut bytes).unwrap();
    drop(came);
    assert!(!is_free(), "the second message has it");
    drop(far);
    assert!(is_free());
    let end = kernel.recv_message(near.as_fd(), &mut bytes).unwrap_err();
    assert_eq!(end.raw_os_error(), Some(libc::ECONNRESET), "a message was not read");
    assert_eq!(kernel.recv_message(near.as_fd(), &mut bytes).unwrap().0, 0);
    drop(near);
    assert!(world.open_files().is_empty());
}
