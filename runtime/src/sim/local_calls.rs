//! The calls of local conversations, and the second descriptors that they carry.
//!
//! Owns what `SimKernel` answers to them: which error a call may have this time, in the order in which Linux
//! looks, and the descriptors that come of it. What a Unix socket is lies in `net::local`. None of these ever
//! waits; a descriptor that is not of this world is EBADF.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

use socket2::SockAddr;

use super::errnos::Call;
use super::files::{FileKind, placeholder};
use super::kernel::{SimKernel, errno};
use super::net::SockId;
use super::net::local::Message;
use super::state::State;
use crate::sys::descriptors::{PER_MESSAGE_MAX, user};

impl SimKernel {
    pub(super) fn duplicated(&self, fd: BorrowedFd<'_>) -> io::Result<OwnedFd> {
        self.may_fail(Call::Duplicate)?;
        self.world.sweep();
        self.world.with(|state| {
            let Some((file, _)) = state.look_up(fd.as_raw_fd()) else { return failed(libc::EBADF) };
            let fd = state.owned(fd.try_clone_to_owned())?;
            state.name(fd.as_raw_fd(), file);
            Ok(fd)
        })
    }

    pub(super) fn connected_to(&self, path: &Path) -> io::Result<OwnedFd> {
        SockAddr::unix(path)?;
        self.may_fail(Call::Socket)?;
        self.may_fail(Call::ConnectLocal)?;
        self.local_socket(|state| state.connect_at(self.process, path))
    }

    pub(super) fn listening_at(&self, path: &Path, backlog: i32) -> io::Result<OwnedFd> {
        SockAddr::unix(path)?;
        self.may_fail(Call::Socket)?;
        self.may_fail(Call::BindLocal)?;
        self.local_socket(|state| state.listen_at(self.process, path, backlog))
    }

    pub(super) fn accepted_by(&self, listener: BorrowedFd<'_>) -> io::Result<OwnedFd> {
        self.may_fail(Call::AcceptLocal)?;
        self.local_socket(|state| {
            let listener = self.sock_of(state, listener)?;
            state.accept_at(listener)
        })
    }

    /// A descriptor of its own for a socket that a call makes or gives.
    fn local_socket(
        &self,
        made: impl FnOnce(&mut State) -> Result<SockId, i32>,
    ) -> io::Result<OwnedFd> {
        // What was closed is noticed before its number can be taken again.
        self.world.sweep();
        // Had before anything is made: without one, nothing has changed.
        let fd = self.world.owned(placeholder(libc::AF_UNIX))?;
        self.world.with(|state| {
            let sock = made(state).map_err(io::Error::from_raw_os_error)?;
            state.install(&fd, self.process.host, FileKind::Socket(sock), None)?;
            state.settle();
            state.run_unasked();
            io::Result::Ok(())
        })?;
        Ok(fd)
    }

    pub(super) fn message_sent(
        &self,
        socket: BorrowedFd<'_>,
        bytes: &[u8],
        fds: &[BorrowedFd<'_>],
    ) -> io::Result<()> {
        if bytes.is_empty() || fds.len() > PER_MESSAGE_MAX {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        self.may_fail(Call::SendMessage)?;
        self.world.sweep();
        self.world.with(|state| {
            let sock = self.sock_of(state, socket).map_err(io::Error::from_raw_os_error)?;
            errno(state.may_send(sock))?;
            let mut message =
                Message { bytes: bytes.to_vec(), files: Vec::with_capacity(fds.len()) };
            for fd in fds {
                match state.sendable(*fd) {
                    Ok(file) => message.files.push(file),
                    Err(e) => {
                        state.drop_message(message);
                        return Err(e);
                    }
                }
            }
            state.post_message(sock, message);
            state.settle();
            state.run_unasked();
            Ok(())
        })
    }

    pub(super) fn message_received(
        &self,
        socket: BorrowedFd<'_>,
        bytes: &mut [u8],
    ) -> io::Result<(usize, Vec<OwnedFd>)> {
        if bytes.is_empty() {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        self.world.sweep();
        self.world.with(|state| {
            let sock = self.sock_of(state, socket).map_err(io::Error::from_raw_os_error)?;
            let drawn = state.draw_error(Call::ReceiveMessage);
            if let Some(errno) = drawn.filter(|errno| *errno != libc::EMFILE) {
                return failed(errno);
            }
            let next = state.next_message(sock).map_err(io::Error::from_raw_os_error)?;
            let Some(message) = next else { return Ok((0, Vec::new())) };
            let cut = message.bytes.len() > bytes.len();
            if let Some(errno) = drawn.filter(|_| !message.files.is_empty()) {
                state.drop_message(message);
                return failed(errno);
            }
            if cut {
                state.drop_message(message);
                return Err(io::Error::new(io::ErrorKind::InvalidData, "a message was cut off"));
            }
            let n = message.bytes.len();
            bytes[..n].copy_from_slice(&message.bytes);
            let mut fds = Vec::with_capacity(message.files.len());
            for (file, fd) in message.files {
                state.name(fd.as_raw_fd(), file);
                state.let_go(file);
                fds.push(fd);
            }
            state.settle();
            state.run_unasked();
            Ok((n, fds))
        })
    }

    /// The process and the user at the far end. All act as the user of this very process.
    pub(super) fn peer_of(&self, socket: BorrowedFd<'_>) -> io::Result<(u32, u32)> {
        self.world.with(|state| {
            let sock = self.sock_of(state, socket).map_err(io::Error::from_raw_os_error)?;
            // As Linux has it for a socket that nobody has connected.
            let nobody = (0, u32::MAX);
            let process = state.peer_process(sock);
            Ok(process.map_or(nobody, |process| (process.number + 1, user())))
        })
    }
}

fn failed<T>(errno: i32) -> io::Result<T> {
    Err(io::Error::from_raw_os_error(errno))
}
