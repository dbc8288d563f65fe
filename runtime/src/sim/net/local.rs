//! Conversations between the processes of one host.
//!
//! Owns Unix sockets of whole messages (SOCK_SEQPACKET, `unix(7)`): [`Local`], which is all that such a
//! socket has beyond what every socket has, and the names at which they listen, which stay when their
//! sockets are gone, as files do. Nothing travels here: as in Linux a message lies with its receiver when
//! the call that sent it returns, and a connect is done when it returns, whether it has been accepted or
//! not. What may be late are the news of it, as with any socket. A message holds the files that go with it,
//! and a descriptor of each, until it is received, or its receiver is closed.

use std::collections::VecDeque;
use std::io;
use std::net::Shutdown;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use super::socket::{Phase, Socket};
use super::{ProcessId, SockId};
use crate::sim::files::FileId;
use crate::sim::state::State;

pub(in crate::sim) struct Local {
    /// Who is at the far end: whoever made it connect or listen.
    peer_process: Option<ProcessId>,
    /// Who made this one.
    owner: ProcessId,
    end: End,
    inbox: VecDeque<Message>,
    /// Bytes that lie unread with the peer.
    unread: usize,
}

enum End {
    /// With those that have connected and were not accepted.
    Listening {
        backlog: usize,
        queue: VecDeque<SockId>,
    },
    Open(SockId),
}

/// A whole message.
pub(in crate::sim) struct Message {
    pub(in crate::sim) bytes: Vec<u8>,
    pub(in crate::sim) files: Vec<(FileId, OwnedFd)>,
}

impl Local {
    fn new(owner: ProcessId, end: End) -> Self {
        Self { peer_process: None, owner, end, inbox: VecDeque::new(), unread: 0 }
    }

    pub(in crate::sim) fn is_listener(&self) -> bool {
        matches!(self.end, End::Listening { .. })
    }

    /// Descriptors that the world itself has open for what is on its way.
    pub(in crate::sim) fn descriptors(&self) -> usize {
        self.inbox.iter().map(|message| message.files.len()).sum()
    }

    /// The `POLL*` events, as `unix_dgram_poll` has them.
    pub(in crate::sim) fn poll_mask(&self, socket: &Socket, send_buffer: usize) -> u32 {
        let (input, output) = (libc::POLLIN | libc::POLLRDNORM, libc::POLLOUT | libc::POLLWRNORM);
        let mut mask = 0;
        let has_news = match &self.end {
            End::Listening { queue, .. } => !queue.is_empty(),
            End::Open(_) => !self.inbox.is_empty(),
        };
        if has_news {
            mask |= input;
        }
        if socket.receive_shut {
            mask |= input | libc::POLLRDHUP;
        }
        if socket.receive_shut && socket.send_shut {
            mask |= libc::POLLHUP;
        }
        if socket.error != 0 {
            mask |= libc::POLLERR;
        }
        if !self.is_listener() && self.unread * 4 <= send_buffer {
            mask |= output;
        }
        mask as u16 as u32
    }

    /// What lies in it is nobody's any more.
    pub(super) fn take_inbox(&mut self) -> VecDeque<Message> {
        std::mem::take(&mut self.inbox)
    }
}

impl State {
    fn local(&mut self, id: SockId) -> Option<&mut Local> {
        match &mut self.net.socks.get_mut(&id)?.phase {
            Phase::Local(local) => Some(local),
            _ => None,
        }
    }

    pub(in crate::sim) fn is_local(&self, id: SockId) -> bool {
        self.net.socks.get(&id).is_some_and(|socket| matches!(socket.phase, Phase::Local(_)))
    }

    fn add_local(&mut self, local: Local) -> SockId {
        let mut socket = Socket::new(local.owner.host, libc::AF_UNIX);
        socket.phase = Phase::Local(Box::new(local));
        self.add_socket(socket)
    }

    /// `bind(2)` and `listen(2)` of a new socket.
    pub(in crate::sim) fn listen_at(
        &mut self,
        owner: ProcessId,
        path: &Path,
        backlog: i32,
    ) -> Result<SockId, i32> {
        let name = (owner.host, PathBuf::from(path));
        if self.net.names.contains_key(&name) {
            return Err(libc::EADDRINUSE);
        }
        let backlog = usize::try_from(backlog).unwrap_or(usize::MAX);
        let id =
            self.add_local(Local::new(owner, End::Listening { backlog, queue: VecDeque::new() }));
        self.note("local listen", &[i64::from(id.0)]);
        self.net.names.insert(name, id);
        Ok(id)
    }

    /// `unlink(2)` of a socket's name: 0 or an errno. The socket goes on, and nobody finds it any more.
    pub(in crate::sim) fn unlink_name(&mut self, by: ProcessId, path: &Path) -> i32 {
        let removed = self.net.names.remove(&(by.host, PathBuf::from(path)));
        removed.map_or(libc::ENOENT, |_| 0)
    }

    /// `connect(2)` of a new socket.
    pub(in crate::sim) fn connect_at(&mut self, by: ProcessId, path: &Path) -> Result<SockId, i32> {
        let name = (by.host, PathBuf::from(path));
        let Some(&listener) = self.net.names.get(&name) else { return Err(libc::ENOENT) };
        let deaf = self.socket(listener).is_none_or(|socket| socket.receive_shut);
        let Some(there) = self.local(listener).filter(|_| !deaf) else {
            return Err(libc::ECONNREFUSED);
        };
        let owner = there.owner;
        let End::Listening { backlog, queue } = &there.end else { return Err(libc::ECONNREFUSED) };
        if queue.len() > *backlog {
            return Err(libc::EAGAIN);
        }
        // Each is the other's end; the second number is known once it is made.
        let client = self.add_local(Local::new(by, End::Open(listener)));
        let child = self.add_local(Local::new(owner, End::Open(client)));
        if let Some(client) = self.local(client) {
            (client.end, client.peer_process) = (End::Open(child), Some(owner));
        }
        if let Some(child) = self.local(child) {
            child.peer_process = Some(by);
        }
        if let Some(Local { end: End::Listening { queue, .. }, .. }) = self.local(listener) {
            queue.push_back(child);
        }
        self.note("local connect", &[i64::from(client.0), i64::from(listener.0)]);
        self.touch(listener);
        Ok(client)
    }

    /// The next that waits to be accepted; EAGAIN if nobody does.
    pub(in crate::sim) fn accept_at(&mut self, listener: SockId) -> Result<SockId, i32> {
        let deaf = self.socket(listener).is_none_or(|socket| socket.receive_shut);
        match self.local(listener).map(|local| &mut local.end) {
            Some(End::Listening { queue, .. }) => {
                let nobody = if deaf { libc::EINVAL } else { libc::EAGAIN };
                queue.pop_front().ok_or(nobody)
            }
            _ => Err(libc::EINVAL),
        }
    }

    /// Whether a message can be sent now: 0 or an errno, as `unix_seqpacket_sendmsg` looks.
    pub(in crate::sim) fn may_send(&mut self, id: SockId) -> i32 {
        let buffer = self.faults.send_buffer;
        let Some(socket) = self.socket(id) else { return libc::EBADF };
        let error = socket.take_error();
        let shut = socket.send_shut;
        let Phase::Local(local) = &socket.phase else { return libc::ENOTCONN };
        let (full, end) = (local.unread >= buffer, &local.end);
        let End::Open(peer) = *end else { return libc::ENOTCONN };
        if error != 0 {
            return error;
        }
        let deaf = self.socket(peer).is_none_or(|peer| peer.receive_shut);
        if shut || deaf {
            libc::EPIPE
        } else if full {
            libc::EAGAIN
        } else {
            0
        }
    }

    /// A message lies with the peer of a socket that may send.
    pub(in crate::sim) fn post_message(&mut self, id: SockId, message: Message) {
        let (bytes, files) = (message.bytes.len(), message.files.len());
        self.note("local send", &[i64::from(id.0), bytes as i64, files as i64]);
        let Some(local) = self.local(id) else { return };
        let End::Open(peer) = local.end else { return };
        local.unread += bytes;
        if let Some(there) = self.local(peer) {
            there.inbox.push_back(message);
            self.touch(peer);
        }
    }

    /// The next message; none at the end, and EAGAIN if there is none yet.
    pub(in crate::sim) fn next_message(&mut self, id: SockId) -> Result<Option<Message>, i32> {
        let Some(socket) = self.socket(id) else { return Err(libc::EBADF) };
        let (error, shut) = (socket.take_error(), socket.receive_shut);
        let Phase::Local(local) = &mut socket.phase else { return Err(libc::ENOTCONN) };
        let End::Open(peer) = local.end else { return Err(libc::ENOTCONN) };
        if error != 0 {
            return Err(error);
        }
        let Some(message) = local.inbox.pop_front() else {
            return if shut { Ok(None) } else { Err(libc::EAGAIN) };
        };
        let (bytes, files) = (message.bytes.len(), message.files.len());
        self.note("local receive", &[i64::from(id.0), bytes as i64, files as i64]);
        if let Some(there) = self.local(peer) {
            there.unread -= bytes;
            self.touch(peer);
        }
        Ok(Some(message))
    }

    /// Who is at the far end of a socket, if anybody ever was.
    pub(in crate::sim) fn peer_process(&mut self, id: SockId) -> Option<ProcessId> {
        self.local(id)?.peer_process
    }

    pub(super) fn shut_down_local(&mut self, id: SockId, how: Shutdown) -> i32 {
        let (receive, send) = (how != Shutdown::Write, how != Shutdown::Read);
        let Some(socket) = self.socket(id) else { return libc::EBADF };
        socket.receive_shut |= receive;
        socket.send_shut |= send;
        let peer = match self.local(id).map(|local| &local.end) {
            Some(End::Open(peer)) => Some(*peer),
            _ => None,
        };
        self.touch(id);
        if let Some(peer) = peer
            && let Some(there) = self.socket(peer)
        {
            there.send_shut |= receive;
            there.receive_shut |= send;
            self.touch(peer);
        }
        0
    }

    /// Nothing names the socket any more; or it was not accepted, and who would have accepted it has gone.
    pub(super) fn close_local(&mut self, id: SockId, local: Local, embryo: bool) {
        self.forget(id);
        match local.end {
            End::Listening { queue, .. } => {
                for child in queue {
                    let Some(socket) = self.socket(child) else { continue };
                    let phase = std::mem::replace(&mut socket.phase, Phase::Ended);
                    if let Phase::Local(local) = phase {
                        self.close_local(child, *local, true);
                    }
                }
            }
            End::Open(peer) => self.leave(peer, embryo || !local.inbox.is_empty()),
        }
        local.inbox.into_iter().for_each(|message| self.drop_message(message));
    }

    /// The far end of this socket has gone, with something unread or without.
    fn leave(&mut self, id: SockId, unread: bool) {
        let Some(local) = self.local(id) else { return };
        local.unread = 0;
        let Some(socket) = self.socket(id) else { return };
        (socket.receive_shut, socket.send_shut) = (true, true);
        if unread {
            socket.error = libc::ECONNRESET;
        }
        self.touch(id);
    }

    /// What nobody will receive: the files that went with it are let go of.
    pub(in crate::sim) fn drop_message(&mut self, message: Message) {
        for (file, fd) in message.files {
            drop(fd);
            self.let_go(file);
        }
    }

    /// What a message needs of a file: that it stays, and a descriptor of it.
    pub(in crate::sim) fn sendable(&mut self, fd: BorrowedFd<'_>) -> io::Result<(FileId, OwnedFd)> {
        let bad = || io::Error::from_raw_os_error(libc::EBADF);
        let (file, _) = self.look_up(fd.as_raw_fd()).ok_or_else(bad)?;
        let fd = self.owned(fd.try_clone_to_owned())?;
        self.hold(file);
        Ok((file, fd))
    }
}
