//! A socket's place in its core's table of files.
//!
//! Owns [`FixedFile`]. What the table is, and which ops use it, is the driver's.

use std::os::fd::{AsFd, AsRawFd, RawFd};

use super::Submitter;

/// Keeps a socket in the table of files of its core's ring, where there is one (the setting
/// [`fixed_files`](crate::Settings::fixed_files)) and it has a place for it; else it does nothing but know
/// its core. Ops on the socket's descriptor then spare the kernel a look-up.
///
/// It belongs beside the descriptor, in whatever the ops hold, and is to be dropped first: a descriptor that
/// is closed before stays open in the kernel until then. (In a struct, fields are dropped in their order.)
///
/// ```
/// use coreloop::op::{FixedFile, Submitter};
/// use coreloop::{EventLoop, Feature, Settings};
/// use std::os::fd::OwnedFd;
///
/// struct Socket {
///     file: FixedFile,
///     fd: OwnedFd,
/// }
///
/// let mut event_loop = EventLoop::with(Settings::default().fixed_files(1024)).unwrap();
/// let has_table = event_loop.ring_report().in_force.contains(Feature::FixedFiles);
/// event_loop.block_on(async {
///     let fd = OwnedFd::from(std::net::TcpListener::bind("127.0.0.1:0").unwrap());
///     let socket = Socket { file: Submitter::current().fix_file(&fd), fd };
///     assert_eq!(socket.file.is_in_table(), has_table);
///     drop(socket);
/// });
/// ```
#[derive(Debug)]
pub struct FixedFile {
    submitter: Submitter,
    /// Below 0 without a place.
    place: RawFd,
}

impl Submitter {
    /// Enters a socket into the core's table of files; a system call, where there is a table.
    pub fn fix_file(&self, socket: impl AsFd) -> FixedFile {
        let fd = socket.as_fd();
        let place = if self.driver.fix_file(fd) { fd.as_raw_fd() } else { -1 };
        FixedFile { submitter: self.clone(), place }
    }
}

impl FixedFile {
    /// The core's.
    #[inline]
    pub fn submitter(&self) -> &Submitter {
        &self.submitter
    }

    /// Whether the socket has a place in the table.
    pub fn is_in_table(&self) -> bool {
        self.place >= 0
    }
}

impl Drop for FixedFile {
    /// A system call for a socket that is in the table.
    fn drop(&mut self) {
        if self.place >= 0 {
            self.submitter.driver.unfix_file(self.place);
        }
    }
}
