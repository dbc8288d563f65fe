//! Connecting.
//!
//! Owns [`Connect`]. The address lies in the op's slot: the kernel reads it at submission, which comes
//! after the poll. A connect that is dropped is cancelled, and its socket closed at the completion.

use std::io;
use std::net::SocketAddr;
use std::os::fd::AsFd;

use super::{Cqe, Op, Sqe};

/// A connect of a socket to an address; gives the socket back when connected.
pub struct Connect<S> {
    socket: S,
    address: libc::sockaddr_in6,
    len: libc::socklen_t,
}

impl<S: AsFd + 'static> Connect<S> {
    /// A connect of `socket`, which was made for the family of `address`.
    pub fn new(socket: S, address: SocketAddr) -> Self {
        // SAFETY: all-zero bytes are a valid sockaddr_in6.
        let mut storage: libc::sockaddr_in6 = unsafe { std::mem::zeroed() };
        let len = match address {
            SocketAddr::V4(v4) => {
                let place = (&raw mut storage).cast::<libc::sockaddr_in>();
                // SAFETY: a sockaddr_in is smaller than a sockaddr_in6, no stricter aligned, and valid
                // whatever its bytes are.
                let place = unsafe { &mut *place };
                place.sin_family = libc::AF_INET as libc::sa_family_t;
                place.sin_port = v4.port().to_be();
                place.sin_addr.s_addr = u32::from_ne_bytes(v4.ip().octets());
                size_of::<libc::sockaddr_in>()
            }
            SocketAddr::V6(v6) => {
                storage.sin6_family = libc::AF_INET6 as libc::sa_family_t;
                storage.sin6_port = v6.port().to_be();
                storage.sin6_addr.s6_addr = v6.ip().octets();
                storage.sin6_flowinfo = v6.flowinfo();
                storage.sin6_scope_id = v6.scope_id();
                size_of::<libc::sockaddr_in6>()
            }
        };
        Self { socket, address: storage, len: len as libc::socklen_t }
    }
}

// SAFETY: the address lies within the op, which does not move from `prepare` on, and is not touched until
// the completion; the descriptor lives with `socket`.
unsafe impl<S: AsFd + 'static> Op for Connect<S> {
    type Out = io::Result<S>;

    fn prepare(&mut self) -> Sqe {
        Sqe::connect(self.socket.as_fd(), (&raw const self.address).cast(), self.len)
    }

    unsafe fn finish(self, cqe: Cqe) -> io::Result<S> {
        cqe.result()?;
        Ok(self.socket)
    }
}
