//! What two processes say to each other at a hand-over.
//!
//! Owns the messages, over a Unix socket that keeps them whole (SOCK_SEQPACKET): a greeting with the control
//! socket and the count of what follows; batches of names, one a line, with a socket each; `ready` the other
//! way. Every wait is the caller's to limit.

use std::io;
use std::net::Shutdown;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use coreloop::fds;
use coreloop::op::{PollOnce, submit};
use coreloop::planted::{self, Fault};
use coreloop::time::sleep;

/// Bytes of a socket's name.
pub(super) const NAME_MAX: usize = 200;

/// The first message, before the count.
const GREETING: &str = "coreloop handover 1 ";
const READY: &[u8] = b"ready";
/// From a predecessor whose patience has ended.
const LATE: &[u8] = b"late";

/// Sockets that go in one message.
const BATCH: usize = 64;

/// Bytes of the longest message.
const MESSAGE_MAX: usize = BATCH * (NAME_MAX + 1);

/// Sockets that may be lent.
pub(super) const LENT_MAX: usize = 4096;

/// Successors that may wait to be heard.
const BACKLOG: i32 = 8;

/// What came of an attempt at a path.
pub(super) enum Attempt {
    /// Nobody is there: this is the control socket, bound to the path.
    First(OwnedFd),
    Connected(Talk),
    /// Others wait already, or somebody came between.
    Busy,
}

/// A conversation with the other process. Clones are the same one.
#[derive(Clone)]
pub(super) struct Talk {
    socket: Arc<OwnedFd>,
}

/// What a successor got.
pub(super) struct Taken {
    pub(super) control: OwnedFd,
    pub(super) sockets: Vec<(String, OwnedFd)>,
    pub(super) talk: Talk,
}

/// Connects to whoever waits at `path`, or begins to wait there.
pub(super) fn connect_or_bind(path: &Path) -> io::Result<Attempt> {
    match fds::connect_local(path) {
        Ok(socket) => {
            let talk = Talk { socket: Arc::new(socket) };
            if !talk.is_trusted()? {
                let why = format!("{} is another user's", path.display());
                return Err(io::Error::new(io::ErrorKind::PermissionDenied, why));
            }
            return Ok(Attempt::Connected(talk));
        }
        Err(e) => match e.raw_os_error() {
            Some(libc::EAGAIN) => return Ok(Attempt::Busy),
            Some(libc::ENOENT) => {}
            Some(libc::ECONNREFUSED) => remove_left_behind(path)?,
            _ => return Err(e),
        },
    }
    match fds::listen_local(path, BACKLOG) {
        Err(e) if e.raw_os_error() == Some(libc::EADDRINUSE) => Ok(Attempt::Busy),
        control => control.map(Attempt::First),
    }
}

/// Removes the socket of a process that has ended, and nothing else.
fn remove_left_behind(path: &Path) -> io::Result<()> {
    match fds::unlink_local(path) {
        // Somebody else was faster.
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}

/// Pause after accepting failed for want of descriptors or memory: a successor waits meanwhile.
const PAUSE: Duration = Duration::from_millis(50);

/// Attempts at a call that can't be had for want of memory.
const ATTEMPTS: u32 = 100;

/// The next that connects; none if it is not to be trusted, or somebody else was faster, or there is no
/// descriptor for it yet.
pub(super) async fn accept(control: &Arc<OwnedFd>) -> io::Result<Option<Talk>> {
    match readable(control).await {
        Err(e) if passes(&e) => {
            sleep(PAUSE).await;
            return Ok(None);
        }
        looked => looked?,
    }
    match fds::accept_local(control) {
        Ok(socket) => {
            let talk = Talk { socket: Arc::new(socket) };
            Ok(talk.is_trusted()?.then_some(talk))
        }
        Err(e)
            if matches!(
                e.raw_os_error(),
                Some(libc::EAGAIN | libc::EINTR | libc::ECONNABORTED)
            ) =>
        {
            Ok(None)
        }
        Err(e)
            if matches!(
                e.raw_os_error(),
                Some(libc::EMFILE | libc::ENFILE | libc::ENOMEM | libc::ENOBUFS)
            ) =>
        {
            sleep(PAUSE).await;
            Ok(None)
        }
        Err(e) => Err(e),
    }
}

impl Talk {
    #[cfg(test)]
    pub(super) fn over(socket: OwnedFd) -> Self {
        Self { socket: Arc::new(socket) }
    }

    fn is_trusted(&self) -> io::Result<bool> {
        Ok(fds::peer(&self.socket)?.is_trusted())
    }

    /// The successor's part, up to its `ready`; none if the predecessor has ended the conversation.
    pub(super) async fn take_over(self) -> io::Result<Option<Taken>> {
        let Some((text, mut came)) = self.hear().await? else { return Ok(None) };
        let count = text.strip_prefix(GREETING).and_then(|count| count.parse::<usize>().ok());
        let count = count.filter(|count| *count <= LENT_MAX);
        let (Some(count), Some(control)) = (count, came.pop()) else {
            return Err(not_understood("no greeting"));
        };
        let mut sockets = Vec::new();
        while sockets.len() < count {
            let Some((names, came)) = self.hear().await? else { return Ok(None) };
            let names: Vec<_> = names.lines().map(str::to_owned).collect();
            if names.len() != came.len() || came.is_empty() {
                return Err(not_understood("names and sockets do not match"));
            }
            if names.iter().any(|name| name.is_empty() || name.len() > NAME_MAX) {
                return Err(not_understood("a name that is empty or too long"));
            }
            if came.len() > count - sockets.len() {
                return Err(not_understood("more sockets than announced"));
            }
            sockets.extend(names.into_iter().zip(came));
        }
        Ok(Some(Taken { control, sockets, talk: self }))
    }

    /// Never waits. An error that passes is for being asked again.
    pub(super) fn say_ready(&self) -> io::Result<()> {
        let broken = match fds::send(&self.socket, READY, &[]) {
            Err(e) if e.kind() == io::ErrorKind::BrokenPipe => e,
            said => return said,
        };
        // It hears nothing any more: has it gone, or given us up?
        let mut bytes = [0; READY.len()];
        match fds::recv(&self.socket, &mut bytes) {
            Ok((n, _)) if &bytes[..n] == LATE => Err(given_up()),
            Err(e) if passes(&e) && e.kind() != io::ErrorKind::WouldBlock => Err(e),
            _ => Err(broken),
        }
    }

    /// Tells a successor that it took too long, unless it is ready after all: whether it is. One of the two
    /// is what both know from here on.
    ///
    /// # Cancel safety
    /// It can be called again.
    pub(super) async fn give_up(&self) -> bool {
        // Said first: whoever can't send any more finds it. Who has gone does not.
        let told = if planted::is(Fault::UntoldLate, 1) { 0 } else { ATTEMPTS };
        for _ in 0..told {
            match fds::send(&self.socket, LATE, &[]) {
                Err(e) if passes(&e) => sleep(PAUSE).await,
                _ => break,
            }
        }
        self.hear_last().await
    }

    /// Whether `ready` was said before it was too late.
    async fn hear_last(&self) -> bool {
        // From here on `ready` is refused over there; what was sent before is in the queue.
        let _ = fds::shut_down(&self.socket, Shutdown::Read);
        let mut bytes = [0; READY.len()];
        for _ in 0..ATTEMPTS {
            match fds::recv(&self.socket, &mut bytes) {
                Ok((n, _)) => return &bytes[..n] == READY,
                // Who was ready has let go of the conversation, with `late` unread. That is said
                // once, and before what lies in the queue.
                Err(e) if e.raw_os_error() == Some(libc::ECONNRESET) => {}
                Err(e) if passes(&e) => sleep(PAUSE).await,
                Err(_) => break,
            }
        }
        false
    }

    /// The predecessor's first part: everything goes over.
    pub(super) async fn hand_over(
        &self,
        control: &OwnedFd,
        lent: &[(String, Arc<OwnedFd>)],
    ) -> io::Result<()> {
        self.say(&format!("{GREETING}{}", lent.len()), &[control.as_fd()]).await?;
        for batch in lent.chunks(BATCH) {
            let names: Vec<_> = batch.iter().map(|(name, _)| name.as_str()).collect();
            let sockets: Vec<_> = batch.iter().map(|(_, socket)| socket.as_fd()).collect();
            self.say(&names.join("\n"), &sockets).await?;
        }
        Ok(())
    }

    /// The predecessor's second part: whether the successor is ready, and not gone.
    ///
    /// # Cancel safety
    /// It can be called again.
    pub(super) async fn hear_ready(&self) -> io::Result<bool> {
        Ok(self.hear().await?.is_some_and(|(text, _)| text.as_bytes() == READY))
    }

    async fn say(&self, text: &str, sockets: &[BorrowedFd<'_>]) -> io::Result<()> {
        loop {
            match fds::send(&self.socket, text.as_bytes(), sockets) {
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                    submit(PollOnce::new(self.socket.clone(), libc::POLLOUT as u32)).await?;
                }
                said => return said,
            }
        }
    }

    /// The next message; none at the end.
    async fn hear(&self) -> io::Result<Option<(String, Vec<OwnedFd>)>> {
        let mut bytes = vec![0; MESSAGE_MAX];
        loop {
            match fds::recv(&self.socket, &mut bytes) {
                Ok((0, _)) => return Ok(None),
                Ok((n, came)) => {
                    bytes.truncate(n);
                    let text = String::from_utf8(bytes).map_err(|_| not_understood("no text"))?;
                    return Ok(Some((text, came)));
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => readable(&self.socket).await?,
                // The other end has gone, with something unread. What it said before comes next, or the end.
                Err(e) if e.raw_os_error() == Some(libc::ECONNRESET) => {}
                Err(e) => return Err(e),
            }
        }
    }
}

/// Whether an error says something of the moment, and nothing of the conversation.
pub(super) fn passes(e: &io::Error) -> bool {
    let want = [libc::EAGAIN, libc::EINTR, libc::ENOMEM, libc::ENOBUFS, libc::ETOOMANYREFS];
    e.raw_os_error().is_some_and(|errno| want.contains(&errno))
}

async fn readable(socket: &Arc<OwnedFd>) -> io::Result<()> {
    submit(PollOnce::new(socket.clone(), libc::POLLIN as u32)).await.map(drop)
}

fn given_up() -> io::Error {
    let why = "the predecessor waited too long for this process, and serves on";
    io::Error::new(io::ErrorKind::TimedOut, why)
}

fn not_understood(why: &str) -> io::Error {
    let why = format!("the process at this path speaks another language: {why}");
    io::Error::new(io::ErrorKind::InvalidData, why)
}

#[cfg(test)]
mod tests {
    use socket2::{Domain, Socket, Type};

    use super::*;

    fn pair() -> (Talk, Talk) {
        let (a, b) = Socket::pair(Domain::UNIX, Type::SEQPACKET, None).unwrap();
        let of = |socket: Socket| Talk { socket: Arc::new(socket.into()) };
        (of(a), of(b))
    }

    /// A predecessor whose successor was ready, and has gone with `late` unread.
    fn left_by_who_was_ready() -> Talk {
        let (predecessor, successor) = pair();
        successor.say_ready().unwrap();
        fds::send(&predecessor.socket, LATE, &[]).unwrap();
        predecessor
    }

    fn gives_up(predecessor: Talk) -> bool {
        coreloop::run(async move { predecessor.give_up().await }).unwrap()
    }

    #[test]
    fn whoever_is_given_up_is_told_when_it_is_ready() {
        let (predecessor, successor) = pair();
        assert!(!gives_up(predecessor));
        assert_eq!(successor.say_ready().unwrap_err().kind(), io::ErrorKind::TimedOut);
    }

    #[test]
    fn whoever_was_ready_before_it_was_given_up_has_taken_over() {
        let (predecessor, successor) = pair();
        successor.say_ready().unwrap();
        assert!(gives_up(predecessor), "both say the same");
    }

    #[test]
    fn whoever_was_ready_and_let_go_of_the_conversation_has_taken_over_all_the_same() {
        let predecessor = left_by_who_was_ready();
        assert!(coreloop::run(async move { predecessor.hear_last().await }).unwrap());
    }

    #[test]
    fn who_has_gone_with_something_unread_is_heard_to_the_end() {
        let predecessor = left_by_who_was_ready();
        let heard = coreloop::run(async move {
            (predecessor.hear_ready().await.unwrap(), predecessor.hear_ready().await.unwrap())
        });
        assert_eq!(heard.unwrap(), (true, false));
    }

    #[test]
    fn a_predecessor_that_has_gone_has_not_given_up() {
        let (predecessor, successor) = pair();
        drop(predecessor);
        assert_eq!(successor.say_ready().unwrap_err().kind(), io::ErrorKind::BrokenPipe);
    }
}
