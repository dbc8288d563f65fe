//! Descriptors, and who holds what they name.
//!
//! Owns [`Files`]: every socket and eventfd of the world that is open, or closed and still held by an op.
//! Each has a real descriptor as its placeholder, so that numbers are given out, closed and reused by the
//! system itself: a file is known by its number and its inode, and a close is noticed by the inode having
//! changed. Invariants: a file ends when its descriptor is closed and no op holds it; numbers decide
//! nothing. All eventfds of a system share one inode, so one eventfd in another's place is not noticed.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;

use super::check::Mistake;
use super::net::{HostId, SockId};
use super::state::State;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct FileId(u32);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FileKind {
    Socket(SockId),
    Event,
}

/// A descriptor that is open, for a leak check.
#[derive(Clone, Debug)]
pub(crate) struct OpenFile {
    pub(crate) host: HostId,
    /// What it is: `"socket"`, `"eventfd"` or `"ring"`.
    pub(crate) what: &'static str,
}

pub(super) struct File {
    fd: RawFd,
    inode: (u64, u64),
    host: HostId,
    kind: FileKind,
    /// The descriptor has not been closed.
    open: bool,
    /// Ops that hold it.
    held: u32,
    /// The other end of an eventfd; see [`event`].
    twin: Option<OwnedFd>,
}

#[derive(Default)]
pub(super) struct Files {
    made: u32,
    all: BTreeMap<FileId, File>,
    by_fd: BTreeMap<RawFd, FileId>,
}

impl State {
    /// A descriptor that stands for a new file. Whatever had its number before is closed.
    pub(super) fn install(
        &mut self,
        fd: &OwnedFd,
        host: HostId,
        kind: FileKind,
        twin: Option<OwnedFd>,
    ) -> io::Result<FileId> {
        let raw = fd.as_raw_fd();
        if let Some(&old) = self.files.by_fd.get(&raw) {
            self.closed(old);
        }
        let inode = inode_of(raw).ok_or_else(io::Error::last_os_error)?;
        self.files.made += 1;
        let id = FileId(self.files.made);
        self.files.by_fd.insert(raw, id);
        self.files.all.insert(id, File { fd: raw, inode, host, kind, open: true, held: 0, twin });
        Ok(id)
    }

    /// What a descriptor names, if it is open and of this world.
    pub(super) fn look_up(&mut self, fd: RawFd) -> Option<(FileId, FileKind)> {
        let Some(&id) = self.files.by_fd.get(&fd) else { return self.duplicated(fd) };
        let file = self.files.all.get(&id)?;
        if inode_of(fd) == Some(file.inode) {
            return Some((id, file.kind));
        }
        self.closed(id);
        None
    }

    /// A second descriptor of a socket, as `dup(2)` makes it. It does not keep the socket open.
    fn duplicated(&self, fd: RawFd) -> Option<(FileId, FileKind)> {
        let inode = inode_of(fd)?;
        let is_it = |file: &File| {
            file.open && file.inode == inode && matches!(file.kind, FileKind::Socket(_))
        };
        self.files.all.iter().find(|(_, file)| is_it(file)).map(|(id, file)| (*id, file.kind))
    }

    pub(super) fn hold(&mut self, id: FileId) {
        if let Some(file) = self.files.all.get_mut(&id) {
            file.held += 1;
        }
    }

    pub(super) fn let_go(&mut self, id: FileId) {
        if let Some(file) = self.files.all.get_mut(&id) {
            file.held -= 1;
            if file.held == 0 && !file.open {
                self.end_file(id);
            }
        }
    }

    pub(super) fn sweep(&mut self) {
        let gone: Vec<FileId> = self
            .files
            .all
            .iter()
            .filter(|(_, file)| file.open && inode_of(file.fd) != Some(file.inode))
            .map(|(id, _)| *id)
            .collect();
        for id in gone {
            self.closed(id);
        }
        self.settle();
        self.run_unasked();
    }

    /// The descriptor has been closed.
    fn closed(&mut self, id: FileId) {
        let Some(file) = self.files.all.get_mut(&id) else { return };
        file.open = false;
        let (fd, held) = (file.fd, file.held);
        self.files.by_fd.remove(&fd);
        self.note("close", &[i64::from(id.0), i64::from(held)]);
        if let Some(opcode) = self.unsubmitted_on(fd) {
            self.blame(Mistake::ClosedBeforeSubmission, || {
                format!("descriptor {fd} was closed under a queued submission of op {opcode}")
            });
        }
        if held == 0 {
            self.end_file(id);
        }
    }

    fn end_file(&mut self, id: FileId) {
        let Some(file) = self.files.all.remove(&id) else { return };
        if let FileKind::Socket(sock) = file.kind {
            self.close_socket(sock);
        }
    }

    /// The number of a file's descriptor, while that is open.
    pub(super) fn descriptor_of(&self, id: FileId) -> Option<RawFd> {
        self.files.all.get(&id).filter(|file| file.open).map(|file| file.fd)
    }

    /// The count of an eventfd, which is 0 afterwards; none if it was 0.
    pub(super) fn take_count(&mut self, id: FileId) -> Option<u64> {
        let twin = self.files.all.get(&id)?.twin.as_ref()?;
        let (mut sum, mut count) = (0u64, 0u64);
        // SAFETY: 8 live bytes; both ends of an eventfd are made non-blocking.
        while unsafe { libc::read(twin.as_raw_fd(), (&raw mut count).cast(), 8) } == 8 {
            sum = sum.saturating_add(count);
        }
        (sum > 0).then_some(sum)
    }

    /// The `POLL*` events of an eventfd.
    pub(super) fn event_mask(&self, id: FileId) -> u32 {
        let Some(twin) = self.files.all.get(&id).and_then(|f| f.twin.as_ref()) else { return 0 };
        let events = libc::POLLIN | libc::POLLOUT;
        let mut asked = libc::pollfd { fd: twin.as_raw_fd(), events, revents: 0 };
        // SAFETY: one live pollfd; a timeout of 0 returns at once.
        unsafe { libc::poll(&mut asked, 1, 0) };
        asked.revents as u16 as u32
    }

    /// Passes on what a real call gave; notes that it failed for want of descriptors.
    pub(super) fn owned<T>(&mut self, made: io::Result<T>) -> io::Result<T> {
        if let Err(e) = &made
            && let Some(errno @ (libc::EMFILE | libc::ENFILE)) = e.raw_os_error()
        {
            let open = self.descriptors();
            self.starved.get_or_insert((errno, open));
        }
        made
    }

    /// Real descriptors that this world has open.
    pub(super) fn descriptors(&self) -> usize {
        let files = self.files.all.values();
        let files: usize = files.map(|f| usize::from(f.open) + usize::from(f.twin.is_some())).sum();
        files + self.open_rings().count()
    }

    pub(super) fn open_files(&self) -> Vec<OpenFile> {
        let files = self.files.all.values().filter(|file| file.open).map(|file| OpenFile {
            host: file.host,
            what: if file.kind == FileKind::Event { "eventfd" } else { "socket" },
        });
        files.chain(self.open_rings()).collect()
    }
}

/// A real descriptor that does nothing: what a simulated socket's number stands on.
pub(super) fn placeholder(family: i32) -> io::Result<OwnedFd> {
    // SAFETY: no pointers are passed.
    let fd = unsafe { libc::socket(family, libc::SOCK_STREAM | libc::SOCK_CLOEXEC, 0) };
    owned(fd)
}

/// What stands for an eventfd, and our end of it, from which the counts are read that were written to the
/// other. No real one: all of those share an inode, so a close could not be told from a number that somebody
/// else's eventfd has taken since.
pub(super) fn event() -> io::Result<(OwnedFd, OwnedFd)> {
    let (users, ours) = UnixStream::pair()?;
    users.set_nonblocking(true)?;
    ours.set_nonblocking(true)?;
    Ok((users.into(), ours.into()))
}

/// A descriptor for a ring, of which nothing is asked.
pub(super) fn eventfd() -> io::Result<OwnedFd> {
    // SAFETY: no pointers are passed.
    owned(unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) })
}

fn owned(fd: RawFd) -> io::Result<OwnedFd> {
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the call that gave the number has just made it, and nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// An option of a real socket that is one number.
pub(super) fn option(fd: RawFd, level: i32, name: i32) -> i32 {
    let (mut value, mut len) = (0i32, size_of::<i32>() as libc::socklen_t);
    // SAFETY: `value` and `len` live, and `len` says how long `value` is.
    unsafe { libc::getsockopt(fd, level, name, (&raw mut value).cast(), &mut len) };
    value
}

pub(super) fn set_option(fd: RawFd, level: i32, name: i32, value: i32) {
    let len = size_of::<i32>() as libc::socklen_t;
    // SAFETY: `value` lives, and `len` says how long it is. A placeholder that refuses stays as it is.
    unsafe { libc::setsockopt(fd, level, name, (&raw const value).cast(), len) };
}

fn inode_of(fd: RawFd) -> Option<(u64, u64)> {
    // SAFETY: all-zero bytes are a valid stat.
    let mut stat: libc::stat = unsafe { std::mem::zeroed() };
    // SAFETY: a live stat that the call fills.
    (unsafe { libc::fstat(fd, &mut stat) } == 0).then_some((stat.st_dev, stat.st_ino))
}
