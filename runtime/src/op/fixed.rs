//! A socket with its place in its core's table of files.
//!
//! Owns [`FixedFile`]. What the table is, and which ops use it, is the driver's. Invariant: a place is given
//! back before its descriptor is closed or given away, or else neither is.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

use super::Submitter;

/// A socket's descriptor which is also in the table of files of its core's ring, where there is one (the
/// setting [`fixed_files`](crate::Settings::fixed_files)) and it has a place for it. Ops on the descriptor
/// then spare the kernel a look-up; whatever else it is good for, it is good for as ever.
///
/// ```
/// use coreloop::op::Submitter;
/// use coreloop::{EventLoop, Feature, Settings};
///
/// let mut event_loop = EventLoop::with(Settings::default().fixed_files(1024)).unwrap();
/// let has_table = event_loop.ring_report().in_force.contains(Feature::FixedFiles);
/// event_loop.block_on(async {
///     let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
///     let socket = Submitter::current().fix_file(listener.into());
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

/// A place in the table, or none, of this core.
#[derive(Debug)]
struct Entry {
    submitter: Submitter,
    /// Below 0 without one.
    place: RawFd,
}

impl Submitter {
    /// Enters a socket into the core's table of files; a system call, where there is a table.
    pub fn fix_file(&self, socket: OwnedFd) -> FixedFile {
        let place = if self.driver.fix_file(socket.as_fd()) { socket.as_raw_fd() } else { -1 };
        FixedFile { entry: Entry { submitter: self.clone(), place }, fd: socket }
    }
}

impl FixedFile {
    /// The core's.
    #[inline]
    pub fn submitter(&self) -> &Submitter {
        &self.entry.submitter
    }

    /// Whether the socket has a place in the table.
    pub fn is_in_table(&self) -> bool {
        self.entry.place >= 0
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
        if self.place >= 0 {
            self.submitter.driver.unfix_file(self.place);
        }
    }
}
