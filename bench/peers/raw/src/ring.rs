//! The submission side of a ring: building it, filling it, entering it.
//!
//! Submissions collect until the turn ends; one enter then submits them all and waits. What is
//! pushed here names connections by slot, which is the descriptor or the index of the registered
//! file. Nothing here knows what a form does with its completions.

use std::io;
use std::os::fd::RawFd;
use std::ptr;

use io_uring::squeue::{self, Entry, SubmissionQueue};
use io_uring::{EnterFlags, IoUring, Submitter, opcode, types};

use crate::options::RingServerOptions;
use crate::report::Counters;

/// The only group of shared buffers.
pub const BUFFER_GROUP: u16 = 0;

/// One enter makes room unless it is interrupted; after so many the ring is broken.
const MAKE_ROOM_TRIES_MAX: u32 = 1000;

/// Which operation a completion belongs to: the upper half of its user data, the slot being the
/// lower.
pub mod kind {
    /// A receive.
    pub const RECV: u32 = 0;
    /// A send.
    pub const SEND: u32 = 1;
    /// The multishot accept.
    pub const ACCEPT: u32 = 2;
    /// The poll of the signal descriptor.
    pub const SIGNAL: u32 = 3;
    /// A cancel or close, whose outcome changes nothing.
    pub const IGNORED: u32 = 4;
}

/// Sets a ring up as a single-threaded loop wants it. To be called on the loop's own thread,
/// which alone may submit.
pub fn build(options: &RingServerOptions) -> io::Result<IoUring> {
    IoUring::builder()
        .setup_single_issuer()
        .setup_coop_taskrun()
        .setup_defer_taskrun()
        .setup_taskrun_flag()
        .setup_submit_all()
        .setup_no_sqarray()
        .setup_cqsize(options.cq_entries)
        .build(options.ring_entries)
}

/// The submission side, with the counters, which the completion side shares.
pub struct Queue<'ring> {
    submitter: Submitter<'ring>,
    sq: SubmissionQueue<'ring>,
    enter_flags: u32,
    /// Says that a slot is an index of a registered file, if it is.
    slot_flags: squeue::Flags,
    direct: bool,
    /// Connections accepted and not closed.
    pub open: u32,
    /// What has been done so far.
    pub counters: Counters,
}

impl<'ring> Queue<'ring> {
    /// Registers the ring's own descriptor and, if asked for, a table of files.
    pub fn new(
        mut submitter: Submitter<'ring>,
        sq: SubmissionQueue<'ring>,
        options: &RingServerOptions,
    ) -> io::Result<Self> {
        submitter.register_ring_fd()?;
        let mut enter_flags = EnterFlags::GETEVENTS;
        if options.no_iowait {
            enter_flags |= EnterFlags::NO_IOWAIT;
        }
        let mut slot_flags = squeue::Flags::empty();
        if options.direct {
            submitter.register_files_sparse(options.server.max_connections)?;
            slot_flags = squeue::Flags::FIXED_FILE;
        }
        Ok(Self {
            submitter,
            sq,
            enter_flags: enter_flags.bits(),
            slot_flags,
            direct: options.direct,
            open: 0,
            counters: Counters::default(),
        })
    }

    /// For registering buffers.
    pub fn submitter(&self) -> &Submitter<'ring> {
        &self.submitter
    }

    /// Submits everything and waits for `want` completions. Interrupted or refused for a full
    /// completion queue, it submits less: the rest stays queued for the next turn.
    #[inline]
    pub fn enter(&mut self, want: u32) -> io::Result<()> {
        self.sq.sync();
        let count = self.sq.len() as u32;
        self.counters.enters += 1;
        // SAFETY: no argument is passed; the flags ask for completions and nothing else.
        let entered =
            unsafe { self.submitter.enter::<libc::sigset_t>(count, want, self.enter_flags, None) };
        self.sq.sync();
        match entered {
            Ok(_) => Ok(()),
            Err(error) => match error.raw_os_error() {
                Some(libc::EINTR | libc::EBUSY | libc::EAGAIN) => Ok(()),
                _ => Err(error),
            },
        }
    }

    /// Receives once into memory of the caller's.
    ///
    /// # Safety
    /// `length` bytes from `into` stay valid and unread until the completion.
    #[inline]
    pub unsafe fn recv_into(&mut self, slot: u32, into: *mut u8, length: u32) {
        self.push(
            opcode::Recv::new(types::Fd(slot as RawFd), into, length).build(),
            kind::RECV,
            slot,
        );
    }

    /// Receives once, at most `length` bytes, into whichever shared buffer is next.
    #[inline]
    pub fn recv_select(&mut self, slot: u32, length: u32) {
        let fd = types::Fd(slot as RawFd);
        let entry = opcode::Recv::new(fd, ptr::null_mut(), length).buf_group(BUFFER_GROUP).build();
        self.push(entry.flags(squeue::Flags::BUFFER_SELECT), kind::RECV, slot);
    }

    /// Receives over and over into shared buffers.
    #[inline]
    pub fn recv_multishot(&mut self, slot: u32) {
        let entry = opcode::RecvMulti::new(types::Fd(slot as RawFd), BUFFER_GROUP).build();
        self.push(entry, kind::RECV, slot);
    }

    /// Sends once; the kernel may take less.
    ///
    /// # Safety
    /// `length` bytes from `from` stay valid and unwritten until the completion.
    #[inline]
    pub unsafe fn send(&mut self, slot: u32, from: *const u8, length: u32) {
        self.push(
            opcode::Send::new(types::Fd(slot as RawFd), from, length).build(),
            kind::SEND,
            slot,
        );
    }

    /// Makes the receive on a connection end, if one is in flight. Not by shutting the socket
    /// down: that runs on a worker, which could look the descriptor up after its reuse.
    pub fn cancel_recv(&mut self, slot: u32) {
        let entry = opcode::AsyncCancel::new(user_data(kind::RECV, slot)).build();
        self.push_entry(entry.user_data(user_data(kind::IGNORED, slot)));
    }

    /// Closes a connection. Nothing may be in flight or queued on it.
    pub fn close(&mut self, slot: u32) {
        self.open -= 1;
        let entry = if self.direct {
            opcode::Close::new(types::Fixed(slot)).build()
        } else {
            opcode::Close::new(types::Fd(slot as RawFd)).build()
        };
        // Not through `push`: a close names its file by another field, without the flag.
        self.push_entry(entry.user_data(user_data(kind::IGNORED, slot)));
    }

    /// Accepts from now on.
    pub fn accept(&mut self, listener: RawFd) {
        let entry =
            opcode::AcceptMulti::new(types::Fd(listener)).allocate_file_index(self.direct).build();
        self.push_entry(entry.user_data(user_data(kind::ACCEPT, 0)));
    }

    /// Completes once when the descriptor can be read.
    pub fn poll_signals(&mut self, signals: RawFd) {
        let entry = opcode::PollAdd::new(types::Fd(signals), libc::POLLIN as u32).build();
        self.push_entry(entry.user_data(user_data(kind::SIGNAL, 0)));
    }

    #[inline]
    fn push(&mut self, entry: Entry, kind: u32, slot: u32) {
        self.push_entry(entry.flags(self.slot_flags).user_data(user_data(kind, slot)));
    }

    #[inline]
    fn push_entry(&mut self, entry: Entry) {
        // SAFETY: the functions above state which memory an entry names and who keeps it.
        if unsafe { self.sq.push(&entry) }.is_err() {
            self.make_room(&entry);
        }
    }

    /// Submits without waiting, so that a turn may hold more submissions than the queue does.
    #[cold]
    fn make_room(&mut self, entry: &Entry) {
        for _ in 0..MAKE_ROOM_TRIES_MAX {
            self.enter(0).expect("a ring that could be entered until now can be entered");
            // SAFETY: as in `push_entry`.
            if unsafe { self.sq.push(entry) }.is_ok() {
                return;
            }
        }
        panic!("the kernel takes no submissions");
    }
}

/// What a completion carries back.
#[inline]
pub fn user_data(kind: u32, slot: u32) -> u64 {
    u64::from(kind) << 32 | u64::from(slot)
}
