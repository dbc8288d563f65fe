//! `epoll-echo`: the same echo with epoll, receives and sends as plain system calls.
//!
//! Level-triggered: one receive per event brings everything in the usual case, and if it doesn't,
//! the next wait reports the rest; no call is made only to be told that nothing is left. All
//! connections share one buffer, which stays hot. What the socket won't take is kept aside, and
//! the connection is then watched for room to write instead of for bytes: it reads no more until
//! its bytes have left.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::ptr;

use clap::Parser;
use raw_peers::net;
use raw_peers::options::ServerOptions;
use raw_peers::report::Counters;
use raw_peers::signals::{Request, Signals};

const NAME: &str = "epoll";

/// Events taken per wait; the rest are reported by the next one.
const EVENTS_MAX: usize = 1024;

/// Accepts per event, so that a flood of connections can't starve the others.
const ACCEPTS_MAX: u32 = 64;

#[derive(Parser)]
#[command(version, about = "Hand-written epoll echo server")]
struct Options {
    #[command(flatten)]
    server: ServerOptions,
}

fn main() -> io::Result<()> {
    let options = Options::parse().server;
    net::pin(options.core)?;
    let signals = Signals::open(options.seconds)?;
    let listener = net::listen(options.addr, &options.congestion)?;
    listener.set_nonblocking(true)?;
    net::announce(&listener)?;
    // SAFETY: the descriptor is new, checked, and owned by nobody else.
    let epoll = unsafe { OwnedFd::from_raw_fd(checked(libc::epoll_create1(libc::EPOLL_CLOEXEC))?) };
    let mut server = Server {
        epoll,
        buffer: vec![0; options.buffer_size as usize],
        unsent: HashMap::new(),
        open: 0,
        open_max: options.max_connections,
        counters: Counters::default(),
    };
    server.watch(libc::EPOLL_CTL_ADD, listener.as_raw_fd(), libc::EPOLLIN)?;
    server.watch(libc::EPOLL_CTL_ADD, signals.as_raw_fd(), libc::EPOLLIN)?;
    server.run(listener.as_raw_fd(), &signals)
}

struct Server {
    epoll: OwnedFd,
    buffer: Vec<u8>,
    /// What a connection's socket had no room for; rare, so kept out of the way.
    unsent: HashMap<RawFd, Vec<u8>>,
    open: u32,
    open_max: u32,
    counters: Counters,
}

impl Server {
    fn run(&mut self, listener: RawFd, signals: &Signals) -> io::Result<()> {
        let mut events = vec![libc::epoll_event { events: 0, u64: 0 }; EVENTS_MAX];
        loop {
            self.counters.enters += 1;
            // SAFETY: `events` has room for as many as are asked for.
            let count = unsafe {
                let (at, max) = (events.as_mut_ptr(), EVENTS_MAX as i32);
                libc::epoll_wait(self.epoll.as_raw_fd(), at, max, -1)
            };
            let count = match checked(count) {
                Ok(count) => count as usize,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => 0,
                Err(error) => return Err(error),
            };
            for event in &events[..count] {
                let fd = event.u64 as RawFd;
                if fd == listener {
                    self.accept(listener)?;
                } else if fd == signals.as_raw_fd() {
                    while let Some(request) = signals.take() {
                        self.counters.print(NAME)?;
                        if request == Request::Stop {
                            return Ok(());
                        }
                    }
                } else if event.events & libc::EPOLLOUT as u32 != 0 {
                    self.send_rest(fd)?;
                } else {
                    self.echo(fd)?;
                }
            }
        }
    }

    fn accept(&mut self, listener: RawFd) -> io::Result<()> {
        for _ in 0..ACCEPTS_MAX {
            let flags = libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
            // SAFETY: no address is asked for.
            let fd = unsafe { libc::accept4(listener, ptr::null_mut(), ptr::null_mut(), flags) };
            match checked(fd) {
                Ok(fd) => {
                    self.open += 1;
                    if self.open > self.open_max {
                        self.close(fd);
                    } else {
                        self.watch(libc::EPOLL_CTL_ADD, fd, libc::EPOLLIN)?;
                    }
                }
                Err(error) => match error.raw_os_error() {
                    Some(libc::EAGAIN) => break,
                    Some(libc::EINTR | libc::ECONNABORTED) => {}
                    _ => return Err(error),
                },
            }
        }
        Ok(())
    }

    #[inline]
    fn echo(&mut self, fd: RawFd) -> io::Result<()> {
        let (at, size) = (self.buffer.as_mut_ptr(), self.buffer.len());
        // SAFETY: the buffer has `size` bytes.
        let received = unsafe { libc::recv(fd, at.cast(), size, 0) };
        self.counters.recv_completions += 1;
        if received <= 0 {
            if received < 0 && would_block() {
                return Ok(());
            }
            self.close(fd);
            return Ok(());
        }
        let received = received as usize;
        self.counters.bytes += received as u64;
        let Some(sent) = send(fd, &self.buffer[..received], &mut self.counters) else {
            self.close(fd);
            return Ok(());
        };
        if sent < received {
            self.unsent.insert(fd, self.buffer[sent..received].to_vec());
            self.watch(libc::EPOLL_CTL_MOD, fd, libc::EPOLLOUT)?;
        }
        Ok(())
    }

    #[cold]
    fn send_rest(&mut self, fd: RawFd) -> io::Result<()> {
        let Some(rest) = self.unsent.get_mut(&fd) else { return Ok(()) };
        match send(fd, rest, &mut self.counters) {
            None => self.close(fd),
            Some(sent) if sent < rest.len() => drop(rest.drain(..sent)),
            Some(_) => {
                self.unsent.remove(&fd);
                self.watch(libc::EPOLL_CTL_MOD, fd, libc::EPOLLIN)?;
            }
        }
        Ok(())
    }

    fn watch(&self, operation: i32, fd: RawFd, interest: i32) -> io::Result<()> {
        let mut event = libc::epoll_event { events: interest as u32, u64: fd as u64 };
        // SAFETY: the event outlives the call, which copies it.
        unsafe { checked(libc::epoll_ctl(self.epoll.as_raw_fd(), operation, fd, &mut event))? };
        Ok(())
    }

    /// Closing takes the descriptor out of the epoll set too: it was never duplicated.
    #[cold]
    fn close(&mut self, fd: RawFd) {
        self.open -= 1;
        self.unsent.remove(&fd);
        // SAFETY: an accepted descriptor, which nobody names from here on.
        unsafe { libc::close(fd) };
    }
}

/// How many bytes the socket took, possibly none; nothing if the connection is broken.
#[inline]
fn send(fd: RawFd, bytes: &[u8], counters: &mut Counters) -> Option<usize> {
    counters.send_completions += 1;
    // SAFETY: the slice is readable.
    let sent = unsafe { libc::send(fd, bytes.as_ptr().cast(), bytes.len(), libc::MSG_NOSIGNAL) };
    match sent {
        0.. => Some(sent as usize),
        _ if would_block() => Some(0),
        _ => None,
    }
}

fn would_block() -> bool {
    let error = io::Error::last_os_error().raw_os_error();
    matches!(error, Some(libc::EAGAIN | libc::EINTR))
}

fn checked(result: i32) -> io::Result<i32> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}
