//! Descriptors, and who holds what they name.
//!
//! Owns [`Files`]: every socket and eventfd of the world that is open, or closed and still held. Each has
//! real descriptors as its placeholders, so that numbers are given out, closed and reused by the system
//! itself: a file is known by its inode, each of its descriptors by its number, and a close is noticed by
//! the inode under a number having changed. A socket may have several descriptors; those that come by a
//! plain `dup(2)`, which nobody hears of here, are found when they are first used. Until then they do not
//! keep it open. Invariants: a file ends when its last descriptor is closed and nobody holds it, neither an
//! op nor a message on its way; numbers decide nothing. A descriptor is named once: one that has taken the
//! number of another of the same file is that one still.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;

use super::check::Mistake;
use super::net::socket::{Phase, Socket};
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
    /// Those that have not been closed, in the order in which they came. Few: each is one that a user owns.
    fds: Vec<RawFd>,
    inode: (u64, u64),
    host: HostId,
    kind: FileKind,
    /// Ops and messages that hold it.
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
        let inode = inode_of(raw).ok_or_else(io::Error::last_os_error)?;
        self.files.made += 1;
        let id = FileId(self.files.made);
        self.files.all.insert(id, File { fds: Vec::new(), inode, host, kind, held: 0, twin });
        self.name(raw, id);
        Ok(id)
    }

    /// A number that is a descriptor of a file from now on. Whatever had it before is closed.
    pub(super) fn name(&mut self, fd: RawFd, id: FileId) {
        if self.files.by_fd.contains_key(&fd) {
            self.closed(fd);
        }
        if let Some(file) = self.files.all.get_mut(&id) {
            file.fds.push(fd);
            self.files.by_fd.insert(fd, id);
        }
    }

    /// What a descriptor names, if it is open and of this world.
    pub(super) fn look_up(&mut self, fd: RawFd) -> Option<(FileId, FileKind)> {
        let inode = inode_of(fd)?;
        if let Some(&id) = self.files.by_fd.get(&fd) {
            let file = self.files.all.get(&id)?;
            if inode == file.inode {
                return Some((id, file.kind));
            }
            self.closed(fd);
        }
        self.adopt(fd, inode)
    }

    /// A further descriptor of a socket, as a plain `dup(2)` made it: it is one of the socket's from now on.
    fn adopt(&mut self, fd: RawFd, inode: (u64, u64)) -> Option<(FileId, FileKind)> {
        let is_it = |file: &File| {
            !file.fds.is_empty() && file.inode == inode && matches!(file.kind, FileKind::Socket(_))
        };
        let found = self.files.all.iter().find(|(_, file)| is_it(file));
        let (id, kind) = found.map(|(id, file)| (*id, file.kind))?;
        self.note("duplicate", &[i64::from(id.0)]);
        self.name(fd, id);
        Some((id, kind))
    }

    pub(super) fn kind_of(&self, id: FileId) -> Option<FileKind> {
        self.files.all.get(&id).map(|file| file.kind)
    }

    pub(super) fn hold(&mut self, id: FileId) {
        if let Some(file) = self.files.all.get_mut(&id) {
            file.held += 1;
        }
    }

    pub(super) fn let_go(&mut self, id: FileId) {
        if let Some(file) = self.files.all.get_mut(&id) {
            file.held -= 1;
            if file.held == 0 && file.fds.is_empty() {
                self.end_file(id);
            }
        }
    }

    pub(super) fn sweep(&mut self) {
        // In the order of the files, which numbers do not decide.
        let mut gone = Vec::new();
        for file in self.files.all.values() {
            gone.extend(file.fds.iter().filter(|fd| inode_of(**fd) != Some(file.inode)));
        }
        for fd in gone {
            self.closed(fd);
        }
        self.settle();
        self.run_unasked();
    }

    /// A descriptor has been closed.
    fn closed(&mut self, fd: RawFd) {
        let Some(id) = self.files.by_fd.remove(&fd) else { return };
        let Some(file) = self.files.all.get_mut(&id) else { return };
        file.fds.retain(|other| *other != fd);
        let (left, held) = (file.fds.len(), file.held);
        self.note("close", &[i64::from(id.0), i64::from(held), left as i64]);
        if let Some(opcode) = self.unsubmitted_on(fd) {
            self.blame(Mistake::ClosedBeforeSubmission, || {
                format!("descriptor {fd} was closed under a queued submission of op {opcode}")
            });
        }
        if held == 0 && left == 0 {
            self.end_file(id);
        }
    }

    fn end_file(&mut self, id: FileId) {
        let Some(file) = self.files.all.remove(&id) else { return };
        if let FileKind::Socket(sock) = file.kind {
            self.close_socket(sock);
        }
    }

    /// The number of a file's first descriptor that is open.
    pub(super) fn descriptor_of(&self, id: FileId) -> Option<RawFd> {
        self.files.all.get(&id)?.fds.first().copied()
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
        let files: usize = files.map(|f| f.fds.len() + usize::from(f.twin.is_some())).sum();
        let on_the_way = |socket: &Socket| match &socket.phase {
            Phase::Local(local) => local.descriptors(),
            _ => 0,
        };
        let on_the_way: usize = self.net.socks.values().map(on_the_way).sum();
        files + on_the_way + self.open_rings().count()
    }

    pub(super) fn open_files(&self) -> Vec<OpenFile> {
        let mut open = Vec::new();
        for file in self.files.all.values() {
            let what = if file.kind == FileKind::Event { "eventfd" } else { "socket" };
            open.extend(file.fds.iter().map(|_| OpenFile { host: file.host, what }));
        }
        open.extend(self.open_rings());
        open
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
