//! Descriptors that cross the border of a process.
//!
//! Owns SCM_RIGHTS (`unix(7)`), who is at the far end of a Unix socket, and taking over the descriptors that
//! a process was started with. Nothing here blocks.

use std::io;
use std::mem::{self, MaybeUninit};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::ptr;
use std::sync::atomic::{AtomicBool, Ordering};

/// Descriptors that one message may carry; the kernel's own limit.
pub(crate) const PER_MESSAGE_MAX: usize = 253;

/// Room for a control message with the most descriptors, aligned as the kernel's header wants it.
#[repr(C, align(8))]
struct Control([MaybeUninit<u8>; 16 + PER_MESSAGE_MAX * size_of::<RawFd>() + 16]);

impl Control {
    fn new() -> Self {
        Self([MaybeUninit::zeroed(); 16 + PER_MESSAGE_MAX * size_of::<RawFd>() + 16])
    }
}

/// One message with `bytes`, at least one, and `fds`, without waiting.
pub(crate) fn send(socket: BorrowedFd<'_>, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<()> {
    if bytes.is_empty() || fds.len() > PER_MESSAGE_MAX {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let mut control = Control::new();
    let mut iov = libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
    // SAFETY: all-zero bytes are a valid msghdr.
    let mut msg: libc::msghdr = unsafe { mem::zeroed() };
    msg.msg_iov = &raw mut iov;
    msg.msg_iovlen = 1;
    if !fds.is_empty() {
        let len = size_of_val(fds) as u32;
        msg.msg_control = control.0.as_mut_ptr().cast();
        // SAFETY: plain arithmetic.
        msg.msg_controllen = unsafe { libc::CMSG_SPACE(len) } as _;
        // SAFETY: the control buffer is larger than one header with the most descriptors, and aligned; what
        // is written lies within it. A borrowed descriptor is its number, as the kernel wants it.
        unsafe {
            let header = libc::CMSG_FIRSTHDR(&raw const msg);
            (*header).cmsg_level = libc::SOL_SOCKET;
            (*header).cmsg_type = libc::SCM_RIGHTS;
            (*header).cmsg_len = libc::CMSG_LEN(len) as _;
            let data = libc::CMSG_DATA(header).cast::<RawFd>();
            for (i, fd) in fds.iter().enumerate() {
                data.add(i).write_unaligned(fd.as_raw_fd());
            }
        }
    }
    let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
    // SAFETY: `msg` names live memory of the lengths that it says.
    let sent = unsafe { libc::sendmsg(socket.as_raw_fd(), &raw const msg, flags) };
    match usize::try_from(sent) {
        Err(_) => Err(io::Error::last_os_error()),
        Ok(sent) if sent < bytes.len() => {
            let why = format!("the socket took {sent} bytes of a message of {}", bytes.len());
            Err(io::Error::new(io::ErrorKind::WriteZero, why))
        }
        Ok(_) => Ok(()),
    }
}

/// One message: how many bytes of it were put into `bytes`, which has room for one at least, and its
/// descriptors, close-on-exec. Without waiting.
pub(crate) fn recv(socket: BorrowedFd<'_>, bytes: &mut [u8]) -> io::Result<(usize, Vec<OwnedFd>)> {
    if bytes.is_empty() {
        // Of a stream it would receive nothing, as at its end.
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let mut control = Control::new();
    let mut iov = libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: bytes.len() };
    // SAFETY: all-zero bytes are a valid msghdr.
    let mut msg: libc::msghdr = unsafe { mem::zeroed() };
    msg.msg_iov = &raw mut iov;
    msg.msg_iovlen = 1;
    msg.msg_control = control.0.as_mut_ptr().cast();
    msg.msg_controllen = size_of::<Control>() as _;
    let flags = libc::MSG_DONTWAIT | libc::MSG_CMSG_CLOEXEC;
    // SAFETY: `msg` names live memory of the lengths that it says.
    let got = unsafe { libc::recvmsg(socket.as_raw_fd(), &raw mut msg, flags) };
    if got < 0 {
        return Err(io::Error::last_os_error());
    }
    let mut fds = Vec::new();
    // SAFETY: the kernel filled the control buffer up to the length that it left in `msg`.
    let mut header = unsafe { libc::CMSG_FIRSTHDR(&raw const msg) };
    while !header.is_null() {
        // SAFETY: a header that the kernel wrote, and its data; each descriptor in it was made for us and is
        // taken once.
        unsafe {
            if ((*header).cmsg_level, (*header).cmsg_type) == (libc::SOL_SOCKET, libc::SCM_RIGHTS) {
                let data = libc::CMSG_DATA(header).cast::<RawFd>();
                let bytes = (*header).cmsg_len as usize - libc::CMSG_LEN(0) as usize;
                for i in 0..bytes / size_of::<RawFd>() {
                    fds.push(OwnedFd::from_raw_fd(data.add(i).read_unaligned()));
                }
            }
            header = libc::CMSG_NXTHDR(&raw const msg, header);
        }
    }
    // There was room for the most that one may carry: the others could not be made.
    if msg.msg_flags & libc::MSG_CTRUNC != 0 {
        return Err(io::Error::from_raw_os_error(libc::EMFILE));
    }
    if msg.msg_flags & libc::MSG_TRUNC != 0 {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "a message was cut off"));
    }
    Ok((got as usize, fds))
}

/// The process, and the user, at the far end of a connected Unix socket.
pub(crate) fn peer(socket: BorrowedFd<'_>) -> io::Result<(u32, u32)> {
    let mut cred = libc::ucred { pid: 0, uid: 0, gid: 0 };
    let mut len = size_of::<libc::ucred>() as libc::socklen_t;
    // SAFETY: a live ucred of the length that is given, which the call fills.
    let rc = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_PEERCRED,
            ptr::from_mut(&mut cred).cast(),
            &mut len,
        )
    };
    if rc == 0 { Ok((cred.pid as u32, cred.uid)) } else { Err(io::Error::last_os_error()) }
}

/// The user that this process acts as.
pub(crate) fn user() -> u32 {
    // SAFETY: always succeeds.
    unsafe { libc::geteuid() }
}

/// Takes over the `count` descriptors from 3 on that this process was started with, close-on-exec from now
/// on; none from the second call on. The caller has seen that they were meant for this process.
pub(crate) fn take_inherited(count: RawFd) -> io::Result<Vec<OwnedFd>> {
    const FIRST: RawFd = 3;
    static TAKEN: AtomicBool = AtomicBool::new(false);
    if TAKEN.swap(true, Ordering::SeqCst) {
        return Ok(Vec::new());
    }
    let numbers = FIRST..FIRST.saturating_add(count);
    // All are looked at before the first is owned. What came through an exec can't be close-on-exec, which
    // all is that std or this crate opens: variables of before an exec in place, or a count that is too
    // large, take none of theirs.
    for number in numbers.clone() {
        // SAFETY: plain integers.
        let flags = unsafe { libc::fcntl(number, libc::F_GETFD) };
        if flags < 0 {
            return Err(io::Error::last_os_error());
        }
        if flags & libc::FD_CLOEXEC != 0 {
            return Err(io::Error::from_raw_os_error(libc::EBADF));
        }
    }
    let take = |number| {
        // SAFETY: plain integers. The only flag there is, is set.
        if unsafe { libc::fcntl(number, libc::F_SETFD, libc::FD_CLOEXEC) } < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: it is open, and as far as its flag tells it was there before this process's first
        // instruction, so nobody else in it was given it; the caller has seen that it is meant for this
        // process, and this is done once.
        Ok(unsafe { OwnedFd::from_raw_fd(number) })
    };
    numbers.map(take).collect()
}
