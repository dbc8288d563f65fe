//! A socket with its place in its core's table of files.
//!
//! Owns [`FixedFile`]. What the table is, and which ops use it, is the driver's. Invariant: a place is given
//! back before its descriptor is closed or given away, or else neither is.

use std::cell::Cell;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

use super::Submitter;

/// A socket's descriptor that is also entered into the table of files of its core's ring once so many ops
/// have used it that a place pays, if there is a table (the setting
/// [`fixed_files`](crate::Settings::fixed_files)) and a place for it. Ops on the descriptor spare the
/// kernel a look-up then; whatever else it is good for, it is good for as ever.
///
/// ```
/// use coreloop::op::Submitter;
/// use coreloop::{EventLoop, Feature};
///
/// let mut event_loop = EventLoop::new().unwrap();
/// let has_table = event_loop.ring_report().in_force.contains(Feature::FixedFiles);
/// event_loop.block_on(async {
///     let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
///     let socket = Submitter::current().file(listener.into());
///     assert!(!socket.is_in_table());
///     for _ in 0..32 {
///         socket.note_op();
///     }
///     assert_eq!(socket.is_in_table(), has_table);
///     drop(socket.into_fd()); // As plain a descriptor as before.
/// });
/// ```
#[derive(Debug)]
pub struct FixedFile {
    // Dropped first.
    entry: Entry,
    fd: OwnedFd,
}

/// A place in the table, or none yet, of this core.
#[derive(Debug)]
struct Entry {
    submitter: Submitter,
    /// Below 0 without one.
    place: Cell<RawFd>,
    /// Ops until it is entered; 0 once that was tried, and where there is no table.
    ops_left: Cell<u32>,
}

impl Submitter {
    /// Takes charge of a socket, which gets a place in the core's table of files
    /// when [enough ops](FixedFile::note_op) have used it.
    pub fn file(&self, socket: OwnedFd) -> FixedFile {
        let (place, ops_left) = (Cell::new(-1), Cell::new(self.driver.ops_worth_a_place()));
        FixedFile { entry: Entry { submitter: self.clone(), place, ops_left }, fd: socket }
    }
}

impl FixedFile {
    /// The core's.
    #[inline]
    pub fn submitter(&self) -> &Submitter {
        &self.entry.submitter
    }

    /// Counts an op on the socket. The one by which a place pays (the 32nd) makes a system call, where there
    /// is a table.
    #[inline]
    pub fn note_op(&self) {
        match self.entry.ops_left.get() {
            0 => {}
            1 => self.enter(),
            left => self.entry.ops_left.set(left - 1),
        }
    }

    #[cold]
    fn enter(&self) {
        self.entry.ops_left.set(0);
        if self.entry.submitter.driver.fix_file(self.as_fd()) {
            self.entry.place.set(self.fd.as_raw_fd());
        }
    }

    /// Whether the socket has a place in the table.
    pub fn is_in_table(&self) -> bool {
        self.entry.place.get() >= 0
    }

    /// The descriptor, no longer in the table.
    pub fn into_fd(self) -> OwnedFd {
        let Self { entry, fd } = self;
        drop(entry);
        fd
    }
}

impl AsFd for FixedFile {
    #[inline]
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Drop for Entry {
    /// A system call for a socket that is in the table.
    fn drop(&mut self) {
        if self.place.get() >= 0 {
            self.submitter.driver.unfix_file(self.place.get());
        }
    }
}
