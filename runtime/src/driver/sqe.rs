//! A submission and a completion, as plain data.
//!
//! Owns the encoding of each op that coreloop submits. Building an [`Sqe`] touches nothing; what makes
//! one dangerous is handing it to the kernel with an address in it, which only the driver does, for ops
//! whose `unsafe impl` answers for that address.

use std::os::fd::{AsRawFd, BorrowedFd};

use crate::sys::abi::{self, opcode};

/// One submission queue entry, 64 bytes, as `io_uring_enter(2)` describes it.
///
/// The constructors cover what coreloop itself submits; [`Sqe::new`] and the setters make any other.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sqe {
    opcode: u8,
    flags: u8,
    ioprio: u16,
    fd: i32,
    off: u64,
    addr: u64,
    len: u32,
    op_flags: u32,
    user_data: u64,
    buf_group: u16,
    personality: u16,
    file_index: u32,
    addr3: u64,
    pad: u64,
}

const _: () = assert!(size_of::<Sqe>() == 64);

impl Sqe {
    /// A submission of `opcode` (see `enum io_uring_op`) on `fd`, all else zero.
    pub fn new(opcode: u8, fd: BorrowedFd<'_>) -> Self {
        Self::raw(opcode, fd.as_raw_fd())
    }

    fn raw(opcode: u8, fd: i32) -> Self {
        Self { opcode, fd, ..Self::default() }
    }

    /// Does nothing and completes with 0.
    pub fn nop() -> Self {
        Self::raw(opcode::NOP, -1)
    }

    /// `read(2)` at `offset`, or at the file's own position for `u64::MAX`.
    pub fn read(fd: BorrowedFd<'_>, buf: *mut u8, len: u32, offset: u64) -> Self {
        Self::new(opcode::READ, fd).addr(buf.addr() as u64).len(len).off(offset)
    }

    /// `write(2)` at `offset`, or at the file's own position for `u64::MAX`.
    pub fn write(fd: BorrowedFd<'_>, buf: *const u8, len: u32, offset: u64) -> Self {
        Self::new(opcode::WRITE, fd).addr(buf.addr() as u64).len(len).off(offset)
    }

    /// `recv(2)` into a buffer of the caller's, with `MSG_*` flags.
    pub fn recv(fd: BorrowedFd<'_>, buf: *mut u8, len: u32, flags: i32) -> Self {
        Self::new(opcode::RECV, fd).addr(buf.addr() as u64).len(len).op_flags(flags as u32)
    }

    /// `recv(2)` into whichever buffer of `group` the kernel takes when data is there (5.19).
    pub fn recv_select(fd: BorrowedFd<'_>, group: u16) -> Self {
        let mut sqe = Self::new(opcode::RECV, fd);
        sqe.flags = abi::sqe_flags::BUFFER_SELECT;
        sqe.buf_group = group;
        sqe
    }

    /// As [`recv_select`](Self::recv_select), again and again until it is cancelled, the stream ends, no
    /// buffer is left (6.0), or `limit` bytes have come (`optlen`, 6.17; 0 for no limit, which others want).
    pub fn recv_multi(fd: BorrowedFd<'_>, group: u16, limit: u32) -> Self {
        let mut sqe = Self::recv_select(fd, group).ioprio(abi::RECV_MULTISHOT);
        sqe.file_index = limit;
        sqe
    }

    /// `send(2)` with `MSG_*` flags.
    pub fn send(fd: BorrowedFd<'_>, buf: *const u8, len: u32, flags: i32) -> Self {
        Self::new(opcode::SEND, fd).addr(buf.addr() as u64).len(len).op_flags(flags as u32)
    }

    /// As [`send`](Self::send), without a copy (6.0): the kernel may read the bytes until a second
    /// completion, which the first one announces by [`Cqe::more`].
    pub fn send_zc(fd: BorrowedFd<'_>, buf: *const u8, len: u32, flags: i32) -> Self {
        Self::send(fd, buf, len, flags).with_op_code(opcode::SEND_ZC)
    }

    /// `sendmsg(2)` with `MSG_*` flags.
    pub fn sendmsg(fd: BorrowedFd<'_>, msg: *const libc::msghdr, flags: i32) -> Self {
        Self::new(opcode::SENDMSG, fd).addr(msg.addr() as u64).len(1).op_flags(flags as u32)
    }

    /// `accept4(2)` that goes on accepting until cancelled (5.19), with `SOCK_*` flags.
    pub fn accept_multi(fd: BorrowedFd<'_>, flags: i32) -> Self {
        let mut sqe = Self::new(opcode::ACCEPT, fd).op_flags(flags as u32);
        sqe.ioprio = abi::ACCEPT_MULTISHOT;
        sqe
    }

    /// `accept4(2)` with `SOCK_*` flags, the peer's address not asked for.
    pub fn accept(fd: BorrowedFd<'_>, flags: i32) -> Self {
        Self::new(opcode::ACCEPT, fd).op_flags(flags as u32)
    }

    /// `connect(2)`.
    pub fn connect(fd: BorrowedFd<'_>, addr: *const libc::sockaddr, len: libc::socklen_t) -> Self {
        Self::new(opcode::CONNECT, fd).addr(addr.addr() as u64).off(u64::from(len))
    }

    /// `shutdown(2)` with `SHUT_*`.
    pub fn shutdown(fd: BorrowedFd<'_>, how: i32) -> Self {
        Self::new(opcode::SHUTDOWN, fd).len(how as u32)
    }

    /// Completes when one of the `POLL*` events is there.
    pub fn poll(fd: BorrowedFd<'_>, events: u32) -> Self {
        Self::new(opcode::POLL_ADD, fd).op_flags(events)
    }

    /// Cancels the op with this user data (never by descriptor: a number may have passed on).
    pub(crate) fn cancel(target: u64) -> Self {
        Self::raw(opcode::ASYNC_CANCEL, -1).addr(target)
    }

    /// Sets `addr`.
    #[must_use]
    pub fn addr(mut self, addr: u64) -> Self {
        self.addr = addr;
        self
    }

    /// Sets `len`.
    #[must_use]
    pub fn len(mut self, len: u32) -> Self {
        self.len = len;
        self
    }

    /// Sets `off` (also `addr2`).
    #[must_use]
    pub fn off(mut self, off: u64) -> Self {
        self.off = off;
        self
    }

    /// Sets the op's own flags word (`rw_flags`, `msg_flags`, `accept_flags`, …).
    #[must_use]
    pub fn op_flags(mut self, flags: u32) -> Self {
        self.op_flags = flags;
        self
    }

    /// Sets `ioprio`.
    #[must_use]
    pub fn ioprio(mut self, ioprio: u16) -> Self {
        self.ioprio = ioprio;
        self
    }

    /// The same of another op that is laid out alike.
    pub(crate) fn with_op_code(mut self, opcode: u8) -> Self {
        self.opcode = opcode;
        self
    }

    pub(crate) fn with_user_data(mut self, user_data: u64) -> Self {
        self.user_data = user_data;
        self
    }

    /// Writes it to `place`, field by field. Copied as a whole, what has just been put together in small
    /// pieces would be read back in large ones, which stalls the processor (no store forwarding).
    ///
    /// # Safety
    /// `place` is writable and nobody else's.
    #[inline(always)]
    pub(crate) unsafe fn store(&self, place: *mut Self) {
        // SAFETY: the caller's promise, for each field.
        unsafe {
            (&raw mut (*place).opcode).write(self.opcode);
            (&raw mut (*place).flags).write(self.flags);
            (&raw mut (*place).ioprio).write(self.ioprio);
            (&raw mut (*place).fd).write(self.fd);
            (&raw mut (*place).off).write(self.off);
            (&raw mut (*place).addr).write(self.addr);
            (&raw mut (*place).len).write(self.len);
            (&raw mut (*place).op_flags).write(self.op_flags);
            (&raw mut (*place).user_data).write(self.user_data);
            (&raw mut (*place).buf_group).write(self.buf_group);
            (&raw mut (*place).personality).write(self.personality);
            (&raw mut (*place).file_index).write(self.file_index);
            (&raw mut (*place).addr3).write(self.addr3);
            (&raw mut (*place).pad).write(self.pad);
        }
    }

    /// Names the descriptor by its place in the ring's table of files, which is its number.
    pub(crate) fn on_fixed_file(mut self) -> Self {
        self.flags |= abi::sqe_flags::FIXED_FILE;
        self
    }

    pub(crate) fn op_code(&self) -> u8 {
        self.opcode
    }

    pub(crate) fn fd(&self) -> i32 {
        self.fd
    }
}

/// One completion: what the kernel answered to a submission.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cqe {
    result: i32,
    flags: u32,
}

impl Cqe {
    pub(crate) fn new(result: i32, flags: u32) -> Self {
        Self { result, flags }
    }

    /// A completion that the driver makes up for an op that never reached the kernel.
    pub(crate) fn error(errno: i32) -> Self {
        Self { result: -errno, flags: 0 }
    }

    /// The count or descriptor, or the error.
    ///
    /// # Errors
    /// The errno that the kernel answered with.
    pub fn result(&self) -> std::io::Result<u32> {
        if self.result < 0 {
            Err(std::io::Error::from_raw_os_error(-self.result))
        } else {
            Ok(self.result as u32)
        }
    }

    /// The result as the kernel gave it: negative errno, or a count.
    pub fn raw_result(&self) -> i32 {
        self.result
    }

    /// Whether more completions of the same submission will come (`IORING_CQE_F_MORE`).
    pub fn more(&self) -> bool {
        self.flags & abi::cqe_flags::MORE != 0
    }

    /// Whether its submission has other completions, before or after: multishot, or a send without copy.
    #[inline]
    pub(crate) fn is_of_several(&self) -> bool {
        self.flags & (abi::cqe_flags::MORE | abi::cqe_flags::NOTIF) != 0
    }

    /// The provided buffer that was taken, if one was (`IORING_CQE_F_BUFFER`).
    pub fn buffer(&self) -> Option<u16> {
        let taken = self.flags & abi::cqe_flags::BUFFER != 0;
        taken.then_some((self.flags >> abi::cqe_flags::BUFFER_SHIFT) as u16)
    }

    pub(crate) fn raw_flags(&self) -> u32 {
        self.flags
    }
}

#[cfg(test)]
#[allow(unsafe_code)]
mod tests {
    use std::mem::transmute;
    use std::os::fd::AsFd;

    use io_uring::{opcode as oracle, squeue::Entry, types};

    use super::*;

    fn bytes(sqe: Sqe) -> [u8; 64] {
        // SAFETY: both are plain 64-byte data without padding.
        unsafe { transmute::<Sqe, [u8; 64]>(sqe) }
    }

    fn entry(e: Entry) -> [u8; 64] {
        // SAFETY: `Entry` is a transparent wrapper of the kernel's 64-byte sqe.
        unsafe { transmute::<Entry, [u8; 64]>(e) }
    }

    #[test]
    fn encoding_equals_that_of_the_io_uring_crate() {
        let file = std::fs::File::open("/dev/null").unwrap();
        let fd = file.as_fd();
        let raw = types::Fd(fd.as_raw_fd());
        let mut buf = [0u8; 8];
        let p = buf.as_mut_ptr();
        let msg = std::ptr::null::<libc::msghdr>();
        let sa = p.cast::<libc::sockaddr>();
        let pairs = [
            (Sqe::nop(), oracle::Nop::new().build()),
            (Sqe::read(fd, p, 8, 3), oracle::Read::new(raw, p, 8).offset(3).build()),
            (Sqe::write(fd, p, 8, 3), oracle::Write::new(raw, p, 8).offset(3).build()),
            (Sqe::recv(fd, p, 8, 2), oracle::Recv::new(raw, p, 8).flags(2).build()),
            (Sqe::send(fd, p, 8, 2), oracle::Send::new(raw, p, 8).flags(2).build()),
            (Sqe::send_zc(fd, p, 8, 2), oracle::SendZc::new(raw, p, 8).flags(2).build()),
            (
                Sqe::recv_select(fd, 7),
                oracle::Recv::new(raw, std::ptr::null_mut(), 0)
                    .buf_group(7)
                    .build()
                    .flags(io_uring::squeue::Flags::BUFFER_SELECT),
            ),
            (Sqe::recv_multi(fd, 7, 0), oracle::RecvMulti::new(raw, 7).build()),
            (Sqe::sendmsg(fd, msg, 1), oracle::SendMsg::new(raw, msg.cast()).flags(1).build()),
            (Sqe::accept_multi(fd, 5), oracle::AcceptMulti::new(raw).flags(5).build()),
            (Sqe::connect(fd, sa, 16), oracle::Connect::new(raw, sa.cast(), 16).build()),
            (Sqe::shutdown(fd, 1), oracle::Shutdown::new(raw, 1).build()),
            (Sqe::poll(fd, 1), oracle::PollAdd::new(raw, 1).build()),
            (Sqe::cancel(99), oracle::AsyncCancel::new(99).build()),
        ];
        for (ours, theirs) in pairs {
            assert_eq!(bytes(ours), entry(theirs), "{ours:?}");
        }
    }
}
