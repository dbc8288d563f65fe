//! What each submission means.
//!
//! Owns the reading of a submission ([`RawSqe`], [`State::prepare`]) and [`Op`], which is what is left of
//! it: nothing here looks at the submission again. An [`Attempt`] is made without waiting, as the kernel
//! does; one that has to wait is made again when there is news. What is not known here is EINVAL, as with
//! any kernel that is too old for it.

use std::net::{Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, SocketAddrV6};

use super::enter::OpRef;
use super::files::{FileId, FileKind};
use super::memory::{Fault, Hold, Span, copy_in, read};
use super::net::SockId;
use super::net::socket::Phase;
use super::quarantine;
use super::state::State;
use crate::sys::abi::{self, opcode};

mod accept;
mod recv;
mod send;
mod small;

/// `struct io_uring_sqe`, read independently of the driver's writing of it.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct RawSqe {
    pub(super) opcode: u8,
    pub(super) flags: u8,
    pub(super) ioprio: u16,
    pub(super) fd: i32,
    pub(super) off: u64,
    pub(super) addr: u64,
    pub(super) len: u32,
    pub(super) op_flags: u32,
    pub(super) user_data: u64,
    pub(super) buf_group: u16,
    pub(super) personality: u16,
    pub(super) file_index: u32,
    pub(super) addr3: u64,
    pub(super) pad: u64,
}

const _: () = assert!(size_of::<RawSqe>() == 64);

/// An op in flight.
pub(super) struct Op {
    pub(super) user_data: u64,
    pub(super) file: Option<FileId>,
    pub(super) sock: Option<SockId>,
    pub(super) kind: Kind,
    /// Memory that is the kernel's until the completion.
    pub(super) holds: Vec<Hold>,
    /// Bytes moved so far.
    pub(super) done: usize,
    pub(super) going: Going,
    /// It ends without another attempt, with this errno.
    pub(super) cancelled: Option<i32>,
}

/// Where an op stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Going {
    Waiting,
    /// It can go on, and the news are on their way.
    Late,
    Queued,
}

#[derive(Clone, Debug)]
pub(super) enum Kind {
    Nop,
    ReadCount(Span),
    Recv {
        into: Into,
        flags: i32,
    },
    /// Into buffers of a group until so many bytes have come.
    RecvMany {
        group: u16,
        flags: i32,
        left: usize,
    },
    Send {
        from: Vec<Span>,
        flags: i32,
    },
    Accept {
        multishot: bool,
    },
    Connect {
        to: SocketAddr,
        begun: bool,
    },
    Shutdown(Shutdown),
    /// The events that it waits for, and those that woke it.
    Poll(u32, u32),
}

/// Where received bytes go.
#[derive(Clone, Copy, Debug)]
pub(super) enum Into {
    Own(Span),
    /// Whichever buffer of the group comes next, at most so many bytes; 0 for as many as fit.
    Group(u16, usize),
}

/// How an attempt went.
pub(super) enum Attempt {
    /// Result and flags of the last completion.
    Done(i32, u32),
    Wait,
}

impl Attempt {
    fn failed(errno: i32) -> Self {
        Attempt::Done(-errno, 0)
    }
}

/// Ops of one lane complete in the order in which they could.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lane {
    In(Option<SockId>),
    Out(Option<SockId>),
    None(u64),
}

/// Events that end every wait, asked for or not (`IO_POLL_UNMASK`).
const POLL_ALWAYS: u32 =
    (libc::POLLERR | libc::POLLHUP | libc::POLLNVAL | libc::POLLRDHUP) as u16 as u32;

/// Most buffers that one message may have, `UIO_MAXIOV`.
const VECTORS_MAX: usize = 1024;

impl Op {
    pub(super) fn name(&self) -> &'static str {
        match &self.kind {
            Kind::Nop => "nop",
            Kind::ReadCount(_) => "read of an eventfd",
            Kind::Recv { .. } | Kind::RecvMany { .. } => "receive",
            Kind::Send { .. } => "send",
            Kind::Accept { .. } => "accept",
            Kind::Connect { .. } => "connect",
            Kind::Shutdown(_) => "shutdown",
            Kind::Poll(..) => "poll",
        }
    }

    /// Whether a signal to its worker ends it with EINTR.
    pub(super) fn may_be_interrupted(&self) -> bool {
        matches!(
            self.kind,
            Kind::Recv { .. }
                | Kind::RecvMany { .. }
                | Kind::Send { .. }
                | Kind::Accept { .. }
                | Kind::Connect { .. }
        )
    }

    pub(super) fn is_send(&self) -> bool {
        matches!(self.kind, Kind::Send { .. })
    }

    /// Whether it waits for something that no socket tells of.
    pub(super) fn is_on_event(&self) -> bool {
        self.sock.is_none() && matches!(self.kind, Kind::ReadCount(_) | Kind::Poll(..))
    }

    /// Whether a worker does it, whatever the state of things.
    pub(super) fn is_always_async(&self) -> bool {
        matches!(self.kind, Kind::Shutdown(_))
    }

    pub(super) fn lane(&self) -> Lane {
        match self.kind {
            Kind::Recv { .. } | Kind::RecvMany { .. } | Kind::Accept { .. } => Lane::In(self.sock),
            Kind::Send { .. } => Lane::Out(self.sock),
            _ => Lane::None(self.user_data),
        }
    }

    /// A result as the trace shows it: without descriptor numbers.
    pub(super) fn shown(&self, result: i32) -> i32 {
        if matches!(self.kind, Kind::Accept { .. }) { result.min(0) } else { result }
    }
}

impl State {
    /// Reads a submission; an errno if it is none that this kernel knows, or names nothing.
    pub(super) fn prepare(&mut self, ring: usize, sqe: &RawSqe) -> Result<Op, i32> {
        let kind = read_kind(sqe)?;
        let is_limited = matches!(kind, Kind::RecvMany { .. }) && sqe.file_index > 0;
        if is_limited && !self.rings.get(ring).is_some_and(|ring| ring.recv_limit) {
            return Err(libc::EINVAL);
        }
        let (file, sock) = self.file_of(ring, sqe, &kind)?;
        // On an eventfd a read brings its count; on a socket it is a receive.
        let kind = match kind {
            Kind::Recv { into: Into::Own(span), .. } if sock.is_none() => {
                if sqe.opcode != opcode::READ {
                    return Err(libc::ENOTSOCK);
                }
                if span.len < 8 {
                    return Err(libc::EINVAL);
                }
                Kind::ReadCount(Span { len: 8, ..span })
            }
            Kind::Nop | Kind::Poll(..) => kind,
            _ if sock.is_none() => return Err(libc::ENOTSOCK),
            // Of Unix sockets a ring is asked for readiness, and for nothing else.
            _ if sock.is_some_and(|sock| self.is_local(sock)) => return Err(libc::EOPNOTSUPP),
            kind => kind,
        };
        let holds = holds_of(&kind).map_err(|Fault| libc::EFAULT)?;
        let (user_data, going) = (sqe.user_data, Going::Waiting);
        Ok(Op { user_data, file, sock, kind, holds, done: 0, going, cancelled: None })
    }

    fn file_of(
        &mut self,
        ring: usize,
        sqe: &RawSqe,
        kind: &Kind,
    ) -> Result<(Option<FileId>, Option<SockId>), i32> {
        if matches!(kind, Kind::Nop) {
            return Ok((None, None));
        }
        let found = if sqe.flags & abi::sqe_flags::FIXED_FILE != 0 {
            self.fixed_file(ring, sqe.fd)
        } else {
            self.look_up(sqe.fd)
        };
        match found {
            Some((file, FileKind::Socket(sock))) => Ok((Some(file), Some(sock))),
            Some((file, FileKind::Event)) => Ok((Some(file), None)),
            None => {
                let (op, fd) = (sqe.opcode, sqe.fd);
                self.blame(super::check::Mistake::BadDescriptor, || format!("op {op} on {fd}"));
                Err(libc::EBADF)
            }
        }
    }

    pub(super) fn attempt(&mut self, at: OpRef, op: &mut Op) -> Attempt {
        match op.kind.clone() {
            Kind::Nop => Attempt::Done(0, 0),
            Kind::ReadCount(span) => self.read_count(op, span),
            Kind::RecvMany { group, flags, left } => self.recv_many(at, op, group, flags, left),
            Kind::Recv { into, flags } => self.recv(at, op, into, flags),
            Kind::Send { from, flags } => self.send(op, &from, flags),
            Kind::Accept { multishot } => self.accept(at, op, multishot),
            Kind::Connect { to, begun } => self.connect(op, to, begun),
            Kind::Shutdown(how) => self.shutdown_op(op, how),
            Kind::Poll(events, woke) => self.poll(op, events, woke),
        }
    }

    /// Whether an attempt would not have to wait.
    pub(super) fn can_go_on(&self, op: &Op) -> bool {
        let (input, output) = (libc::POLLIN as u32, libc::POLLOUT as u32);
        // Not POLLRDHUP, which ends a poll: a send that is full has to wait whatever the peer has ended.
        let over = (libc::POLLERR | libc::POLLHUP) as u32;
        let wanted = match &op.kind {
            Kind::Nop | Kind::Shutdown(_) => return true,
            Kind::ReadCount(_)
            | Kind::Recv { .. }
            | Kind::RecvMany { .. }
            | Kind::Accept { .. } => input,
            Kind::Send { .. } | Kind::Connect { .. } => output,
            Kind::Poll(events, _) => *events | POLL_ALWAYS,
        };
        self.mask_of(op) & (wanted | over) != 0
    }

    /// What woke a poll is what it will tell, whatever is left of it by then.
    pub(super) fn woken_by(&self, op: &Op) -> Option<Kind> {
        match op.kind {
            Kind::Poll(events, _) => {
                Some(Kind::Poll(events, self.mask_of(op) & (events | POLL_ALWAYS)))
            }
            _ => None,
        }
    }

    /// The `POLL*` events of what an op is on.
    fn mask_of(&self, op: &Op) -> u32 {
        match (op.sock, op.file) {
            (Some(sock), _) => self
                .net
                .socks
                .get(&sock)
                .map_or(libc::POLLHUP as u32, |s| s.poll_mask(self.faults.send_buffer)),
            (None, Some(file)) => self.event_mask(file),
            (None, None) => 0,
        }
    }

    /// Whether the peer's side is not there yet, so that neither direction can move.
    fn is_connecting(&self, op: &Op) -> bool {
        let socket = op.sock.and_then(|sock| self.net.socks.get(&sock));
        socket.is_some_and(|s| matches!(s.phase, Phase::Connecting | Phase::Embryo(_)))
    }
}

fn read_kind(sqe: &RawSqe) -> Result<Kind, i32> {
    let sqe_flags = sqe.flags & !abi::sqe_flags::FIXED_FILE;
    let selects = sqe_flags == abi::sqe_flags::BUFFER_SELECT && sqe.opcode == opcode::RECV;
    let shots = match sqe.opcode {
        opcode::ACCEPT => sqe.ioprio == abi::ACCEPT_MULTISHOT,
        opcode::RECV => sqe.ioprio == abi::RECV_MULTISHOT && selects && sqe.len == 0,
        _ => false,
    };
    if (sqe_flags != 0 && !selects) || (sqe.ioprio != 0 && !shots) || sqe.personality != 0 {
        return Err(libc::EINVAL);
    }
    let span = Span { addr: sqe.addr, len: sqe.len as usize };
    let flags = sqe.op_flags as i32;
    Ok(match sqe.opcode {
        opcode::NOP => Kind::Nop,
        opcode::READ => Kind::Recv { into: Into::Own(span), flags: 0 },
        opcode::WRITE => Kind::Send { from: vec![span], flags: 0 },
        opcode::RECV if shots => {
            let left = if sqe.file_index > 0 { sqe.file_index as usize } else { usize::MAX };
            Kind::RecvMany { group: sqe.buf_group, flags, left }
        }
        opcode::RECV => {
            let group = Into::Group(sqe.buf_group, span.len);
            let into = if selects { group } else { Into::Own(span) };
            Kind::Recv { into, flags }
        }
        opcode::SEND => Kind::Send { from: vec![span], flags },
        opcode::SENDMSG => Kind::Send { from: vectors_of(sqe.addr)?, flags },
        opcode::ACCEPT => {
            let known = libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
            // An address is not asked for by anybody here.
            if sqe.addr != 0 || sqe.off != 0 || sqe.len != 0 || flags & !known != 0 {
                return Err(libc::EINVAL);
            }
            Kind::Accept { multishot: shots }
        }
        opcode::CONNECT => Kind::Connect { to: address_of(sqe.addr, sqe.off)?, begun: false },
        opcode::SHUTDOWN => Kind::Shutdown(match sqe.len as i32 {
            libc::SHUT_RD => Shutdown::Read,
            libc::SHUT_WR => Shutdown::Write,
            libc::SHUT_RDWR => Shutdown::Both,
            _ => return Err(libc::EINVAL),
        }),
        opcode::POLL_ADD if sqe.len == 0 => Kind::Poll(sqe.op_flags, 0),
        _ => return Err(libc::EINVAL),
    })
}

/// The memory that the kernel has until the completion.
fn holds_of(kind: &Kind) -> Result<Vec<Hold>, Fault> {
    match kind {
        Kind::ReadCount(span) => Ok(vec![Hold::of(*span, true)?]),
        Kind::Recv { into: Into::Own(span), .. } => Ok(vec![Hold::of(*span, true)?]),
        Kind::Send { from, .. } => from.iter().map(|span| Hold::of(*span, false)).collect(),
        _ => Ok(Vec::new()),
    }
}

/// The buffers of a `msghdr`, which are read at submission.
fn vectors_of(addr: u64) -> Result<Vec<Span>, i32> {
    // SAFETY: any bytes are a header, whose pointers are only looked at as numbers.
    let header = unsafe { read::<Words<7>>(addr) }.map_err(|Fault| libc::EFAULT)?.0;
    // As `struct user_msghdr` lies: name, namelen, iov, iovlen, control, controllen, flags.
    let (vectors, count) = (header[2], header[3] as usize);
    if count > VECTORS_MAX {
        return Err(libc::EMSGSIZE);
    }
    let header = Span { addr, len: size_of::<libc::msghdr>() };
    let vectors = Span { addr: vectors, len: count * 16 };
    quarantine::look_at(header);
    quarantine::look_at(vectors);
    let bytes = copy_in(vectors).map_err(|Fault| libc::EFAULT)?;
    let word =
        |at: usize| u64::from_ne_bytes(bytes[at..at + 8].try_into().expect("within the vectors"));
    Ok((0..count).map(|n| Span { addr: word(n * 16), len: word(n * 16 + 8) as usize }).collect())
}

/// So many words of 8 bytes, such as a `msghdr` is.
#[derive(Clone, Copy)]
struct Words<const N: usize>([u64; N]);

impl<const N: usize> Default for Words<N> {
    fn default() -> Self {
        Self([0; N])
    }
}

const _: () = assert!(size_of::<Words<7>>() == size_of::<libc::msghdr>());

/// The address of a connect, which is read at submission.
fn address_of(addr: u64, len: u64) -> Result<SocketAddr, i32> {
    let len = len as usize;
    if !(2..=size_of::<libc::sockaddr_storage>()).contains(&len) {
        return Err(libc::EINVAL);
    }
    quarantine::look_at(Span { addr, len });
    let bytes = copy_in(Span { addr, len }).map_err(|Fault| libc::EFAULT)?;
    let family = i32::from(u16::from_ne_bytes([bytes[0], bytes[1]]));
    let port = |b: &[u8]| u16::from_be_bytes([b[2], b[3]]);
    match family {
        libc::AF_INET if len >= size_of::<libc::sockaddr_in>() => {
            let ip: [u8; 4] = bytes[4..8].try_into().expect("4 bytes");
            Ok((Ipv4Addr::from(ip), port(&bytes)).into())
        }
        libc::AF_INET6 if len >= size_of::<libc::sockaddr_in6>() => {
            let ip: [u8; 16] = bytes[8..24].try_into().expect("16 bytes");
            Ok(SocketAddrV6::new(Ipv6Addr::from(ip), port(&bytes), 0, 0).into())
        }
        libc::AF_INET | libc::AF_INET6 => Err(libc::EINVAL),
        _ => Err(libc::EAFNOSUPPORT),
    }
}
