//! The ring's table of files: sockets that an op names without a look-up of its descriptor.
//!
//! Owns [`FileTable`], which sockets are in it, and the calls that put them there. A socket's place is the
//! number of its descriptor, so an op is built as ever, shows as ever, and takes the short way by a flag.
//! Invariant: a number is marked only while its socket is in the table and has that descriptor; who enters
//! one answers for that (`op::FixedFile`, which has the descriptor).

use std::cell::Cell;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::ptr;

use super::Driver;
use super::asked::FIXED_FILES;
use super::features::{Feature, Missing, RingReport};
use super::ring::Ring;
use super::setup::soft_limit;
use crate::sys::Kernel;
use crate::sys::abi::{self, RsrcRegister, RsrcUpdate, register};

/// Which descriptors are in the table; without one it has no places.
#[derive(Default)]
pub(super) struct FileTable {
    places: u32,
    /// A bit for each place.
    marked: Box<[Cell<u64>]>,
    /// Ops on a socket by which it is entered; 0 without a table.
    worth_a_place: u32,
}

impl FileTable {
    /// A table in the ring, of as many places as were asked for or as the process may have descriptors.
    pub(super) fn register(
        kernel: &dyn Kernel,
        ring: &Ring,
        asked: u32,
        report: &mut RingReport,
    ) -> Self {
        let in_force = report.in_force.contains(Feature::FixedFiles);
        // The kernel takes no table of more places (EMFILE), and there would be no descriptors for them.
        let limit = soft_limit(libc::RLIMIT_NOFILE).and_then(|limit| u32::try_from(limit).ok());
        let places = limit.map_or(asked, |limit| asked.min(limit));
        if in_force && places > 0 {
            let mut table =
                RsrcRegister { nr: places, flags: abi::RSRC_SPARSE, ..RsrcRegister::default() };
            let bytes = size_of_val(&table) as u32;
            let arg = ptr::from_mut(&mut table).cast();
            // SAFETY: one live io_uring_rsrc_register, which the call reads; it names no memory.
            match unsafe { ring.register(register::FILES2, arg, bytes) } {
                Ok(_) => {
                    let words = places.div_ceil(64) as usize;
                    let marked = vec![Cell::new(0); words].into();
                    return Self { places, marked, worth_a_place: kernel.ops_worth_a_place() };
                }
                Err(e) => {
                    let errno = e.raw_os_error().unwrap_or(0);
                    report.without(Feature::FixedFiles, Missing::Failed(errno));
                }
            }
        }
        if asked > 0 && asked != FIXED_FILES {
            report.step_down("fixed_files", asked, "off", report.why(Feature::FixedFiles));
        }
        Self::default()
    }

    /// Whether the socket with this descriptor is in the table.
    #[inline]
    pub(super) fn has(&self, fd: RawFd) -> bool {
        let place = fd as u32;
        let word = self.marked.get(place as usize / 64);
        word.is_some_and(|word| word.get() & 1 << (place % 64) != 0)
    }

    fn mark(&self, place: u32, on: bool) {
        let word = &self.marked[place as usize / 64];
        let bit = 1 << (place % 64);
        word.set(if on { word.get() | bit } else { word.get() & !bit });
    }
}

impl Driver {
    /// Ops on a socket by which it is worth a place; 0 if none ever is.
    pub(crate) fn ops_worth_a_place(&self) -> u32 {
        self.files.worth_a_place
    }

    /// Enters a socket into the table, if there is one with a place for it. Whether it is in it now.
    pub(crate) fn fix_file(&self, fd: BorrowedFd<'_>) -> bool {
        let number = fd.as_raw_fd();
        let has_place = (number as u32) < self.files.places;
        let fixed = has_place && self.put_file(number, number);
        if has_place {
            self.files.mark(number as u32, fixed);
        }
        fixed
    }

    /// Takes a socket out that was entered. Its file closes with its descriptor then, as any.
    pub(crate) fn unfix_file(&self, number: RawFd) {
        if self.files.has(number) {
            self.files.mark(number as u32, false);
            // Linux takes out without a reason to refuse; a ring that is closed has no table.
            self.put_file(number, -1);
        }
    }

    fn put_file(&self, place: RawFd, mut fd: RawFd) -> bool {
        let data = (&raw mut fd).expose_provenance() as u64;
        let mut update = RsrcUpdate { offset: place as u32, resv: 0, data };
        let ring = self.ring.borrow();
        let arg = ptr::from_mut(&mut update).cast();
        // SAFETY: one live io_uring_files_update that names one live descriptor number.
        ring.as_ref()
            .is_some_and(|ring| unsafe { ring.register(register::FILES_UPDATE, arg, 1).is_ok() })
    }

    /// Has a ring that is about to be closed let go of its files now: the kernel does it some time later.
    pub(super) fn empty_file_table(&self, ring: &Ring) {
        if self.files.places > 0 {
            // SAFETY: takes no argument.
            let _ = unsafe { ring.register(register::UNREGISTER_FILES, ptr::null_mut(), 0) };
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::net::{TcpListener, TcpStream};
    use std::os::fd::AsFd;

    use super::*;
    use crate::config::Settings;
    use crate::event_loop::EventLoop;
    use crate::op::{FixedFile, LateSend, Send, Submitter, submit};

    struct Sender(FixedFile);

    impl AsFd for Sender {
        fn as_fd(&self) -> BorrowedFd<'_> {
            self.0.as_fd()
        }
    }

    impl LateSend for Sender {
        fn send_ended(&self, _: usize) {}

        fn late_send(&self, _: std::io::Result<usize>, _: usize) {}
    }

    /// Another file lies under the socket's number when the kernel takes the op.
    #[test]
    fn an_op_is_on_the_file_of_the_table() {
        let mut event_loop = EventLoop::with(Settings::default().fixed_files(4096)).unwrap();
        let has_table = event_loop.ring_report().in_force.contains(Feature::FixedFiles);
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let near = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (mut far, _) = listener.accept().unwrap();
        let other = std::fs::File::open("/dev/null").unwrap();
        let fd = near.as_raw_fd();
        let sent = event_loop.block_on(async {
            let file = Submitter::current().file(near.into());
            (0..31).for_each(|_| file.note_op());
            assert!(!file.is_in_table());
            file.note_op();
            assert_eq!(file.is_in_table(), has_table);
            if has_table {
                // SAFETY: both are open, and the number stays the file's.
                assert_eq!(unsafe { libc::dup2(other.as_raw_fd(), fd) }, fd);
            }
            submit(Send::new(Sender(file), b"by the table".to_vec(), 0, 0)).await
        });
        assert_eq!(sent.unwrap().0, 12);
        let mut bytes = [0; 12];
        far.read_exact(&mut bytes).unwrap();
        assert_eq!(&bytes, b"by the table");
        // The table has let go of it: there is nobody else who has the socket open.
        assert_eq!(far.read(&mut bytes).unwrap(), 0);
    }
}
