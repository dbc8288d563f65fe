//! Listeners that share a port, chosen by the CPU on which a connection arrives.
//!
//! Owns [`Group`] and its table of positions. The kernel's program (SO_ATTACH_REUSEPORT_CBPF) gives a
//! *position* among the sockets that share the port: `listen(2)` appends, and when a socket leaves, the last
//! one moves into its place. The table follows both under one lock:
//! ```text
//! bind:  append, and steer this CPU to the new position
//! leave: take the socket out of the kernel's group, move the last entry into its place, steer anew
//! ```
//! Invariant: while no lock is held, entry `i` of the table is the kernel's socket `i`. It takes that nobody
//! else (another process, another group) binds the address. A socket leaves by `shutdown(2)` under the lock,
//! not by its close, which may lag behind an operation in flight. A group that is given up
//! ([`unsteer`](Group::unsteer)) has no positions any more.
//!
//! A program outlives whoever attached it, as positions do. So while a successor starts, with whom the one
//! before it has the sockets in common, neither attaches one or takes a socket out: a successor that dies
//! leaves all as it was. Whose they are afterwards, the hand-over says ([`handover`](crate::handover)):
//! ```text
//! the one before:  No --lend_out--> WithSuccessor --give_away--> GivenAway    it was ready
//!                  No <--take_back-----'                                      it came to nothing
//! the successor:   WithPredecessor --own--> No                                it was ready
//! ```

use std::fmt;
use std::io;
use std::net::{Shutdown, SocketAddr};
use std::ops::{Deref, DerefMut};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, PoisonError};

use coreloop::fds;
use coreloop::op::Submitter;

use crate::addr::ToAddr;
use crate::locks::{Mutex, MutexGuard};
use crate::tcp::{ListenOptions, TcpListener};

/// What names a position that there never is: the kernel's own hash chooses then.
const NOBODY: [(usize, u32); 1] = [(0, u32::MAX)];

/// Listeners of several cores on one address, each of which gets the connections that arrive on its core's
/// CPU. Clones are the same group, on any thread.
///
/// The CPU is the one on which the kernel handles the first packet: that of the network card's queue, or on
/// loopback that of the client's thread. Where the queues' interrupts do not go to the cores' own CPUs, all
/// comes to a few cores: a hash, as plain SO_REUSEPORT has it, is better then. Connections that arrive on a
/// CPU of no listener are spread over all. Where two listeners name the same CPU the one of the lower
/// position gets its connections.
///
/// ```
/// use coreloop_net::{ListenOptions, TcpStream};
/// use coreloop_net::spread::Group;
///
/// let group = Group::new("127.0.0.1:0", ListenOptions::default()).unwrap();
/// coreloop::run(async move {
///     // On each core: `group.bind(core.cpu())`.
///     let cpu = coreloop::placement::allowed_cpus()[0];
///     let mut listener = group.bind(cpu).unwrap();
///     let _client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
///     listener.accept().await.unwrap();
///     assert_eq!(group.cpus(), [Some(cpu)]);
/// })
/// .unwrap();
/// ```
#[derive(Clone)]
pub struct Group {
    inner: Arc<Inner>,
}

struct Inner {
    options: ListenOptions,
    members: Mutex<Members>,
}

struct Members {
    addr: SocketAddr,
    /// By position.
    order: Vec<Member>,
    next_number: u64,
    /// Whether another process has the sockets too, and whose the program is.
    shared: Shared,
}

/// Who else has the sockets.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Shared {
    /// Nobody.
    No,
    /// The process that they came from: it may be the one that goes on, so none of them is shut down, and
    /// the program stays its.
    WithPredecessor,
    /// A process that may come to go on with them: likewise, until that is known.
    WithSuccessor,
    /// The process that they were given to: nothing is changed any more.
    GivenAway,
}

struct Member {
    number: u64,
    /// A second descriptor of its socket: whoever leaves steers the group through another's. Also a
    /// hand-over's that is under way.
    socket: Arc<OwnedFd>,
    /// Whose connections it gets; none if it gets only those of CPUs without a listener, or no more at all.
    cpu: Option<usize>,
    /// Another process has it too or had, and no core has taken it up, or has any more.
    adopted: bool,
    /// Its listener ended while a successor had it: it leaves the group if that one comes to nothing.
    left: bool,
}

impl Group {
    /// A group without listeners. With port 0 the first one chooses, and the others join it.
    ///
    /// # Errors
    /// `InvalidInput` for text that is no literal address.
    pub fn new(addr: impl ToAddr, options: ListenOptions) -> io::Result<Self> {
        Ok(Self::of(addr.to_addr()?, options, Vec::new()))
    }

    /// A group of sockets that listen already: all of a group, from another process, in the order of their
    /// positions ([`sockets`](Self::sockets)). Each [`bind`](Self::bind) takes up one of them, in that order,
    /// and makes a new one only when none is left.
    ///
    /// Until [`own`](Self::own) is called they are the other process's as well, which may have to go on with
    /// them: a listener that is dropped before leaves its socket as it is, for the next one to take up, and
    /// which of them a connection comes to is still as the other process has it, whatever CPUs they are bound
    /// for here.
    ///
    /// # Errors
    /// `InvalidInput` without sockets, or for one that does not listen; as `getsockname(2)`.
    ///
    /// # Panics
    /// Outside a running loop.
    #[track_caller]
    pub fn adopt(sockets: Vec<OwnedFd>, options: ListenOptions) -> io::Result<Self> {
        let invalid = |why| io::Error::new(io::ErrorKind::InvalidInput, why);
        let first = sockets.first().ok_or_else(|| invalid("no sockets were handed over"))?;
        let submitter = Submitter::current();
        let addr = submitter.local_addr(first)?;
        for socket in &sockets {
            if !submitter.is_listener(socket)? {
                return Err(invalid("a socket does not listen"));
            }
        }
        Ok(Self::of(addr, options, sockets))
    }

    /// The sockets that were [adopted](Self::adopt) are this process's alone from now on: to be called once
    /// their predecessor lets go, which it does after [`ready`](crate::handover::Handover::ready); that calls
    /// it for groups that are [lent](crate::handover::Handover::lend_group) by then. Connections come to the
    /// listeners of their CPUs here from now on, and listeners that are dropped later leave the group. After
    /// [`give_away`](Self::give_away) it changes nothing. From any thread.
    pub fn own(&self) {
        let mut members = self.lock();
        if members.shared == Shared::WithPredecessor {
            members.shared = Shared::No;
            // An error leaves the predecessor's program, all of whose positions are taken here: until a
            // listener comes or goes.
            let _ = members.steer(None);
        }
    }

    fn of(addr: SocketAddr, options: ListenOptions, adopted: Vec<OwnedFd>) -> Self {
        let next_number = adopted.len() as u64;
        let shared = if adopted.is_empty() { Shared::No } else { Shared::WithPredecessor };
        let member = |(number, socket)| {
            let socket = Arc::new(socket);
            Member { number, socket, cpu: None, adopted: true, left: false }
        };
        let order = (0..).zip(adopted).map(member).collect();
        let members = Mutex::new(Members { addr, order, next_number, shared });
        Self { inner: Arc::new(Inner { options: options.reuse_port(true), members }) }
    }

    /// A listener of the running core, which gets the connections that arrive on `cpu`, as a rule the core's
    /// own ([`Core::cpu`](coreloop::Core::cpu)).
    ///
    /// # Errors
    /// As [`ListenOptions::bind`], and as `setsockopt(2)` for the program: `InvalidInput` for more than 1,000
    /// CPUs, and for a group that was [given away](Self::give_away); `ResourceBusy` while a successor that
    /// has the sockets ([`lend_group`](crate::handover::Handover::lend_group)) is starting.
    ///
    /// # Panics
    /// Outside a running loop.
    #[track_caller]
    pub fn bind(&self, cpu: usize) -> io::Result<SteeredListener> {
        let mut members = self.lock();
        let position = members.left_over();
        self.join(&mut members, position, Some(cpu))
    }

    /// The next of the adopted sockets that no core has taken up; none if there is none. It gets no
    /// connections but those of CPUs without a listener: where a process has fewer cores than its
    /// predecessor had, somebody has to accept what waits there, and then
    /// [`retire`](SteeredListener::retire) it. That is once the sockets are this process's
    /// [own](Self::own): before, connections come to it as they came to the predecessor's listener.
    ///
    /// # Errors
    /// As `setsockopt(2)`.
    ///
    /// # Panics
    /// Outside a running loop, if there is one.
    #[track_caller]
    pub fn take_left_over(&self) -> io::Result<Option<SteeredListener>> {
        let mut members = self.lock();
        if members.shared == Shared::GivenAway {
            return Ok(None); // The successor has it.
        }
        let Some(position) = members.left_over() else { return Ok(None) };
        self.join(&mut members, Some(position), None).map(Some)
    }

    /// Takes up the socket at this position, or makes one.
    #[track_caller]
    fn join(
        &self,
        members: &mut Members,
        position: Option<usize>,
        cpu: Option<usize>,
    ) -> io::Result<SteeredListener> {
        match members.shared {
            Shared::GivenAway => {
                // The program is the successor's now, and so are the positions.
                let why = "the group was given away to a successor";
                return Err(io::Error::new(io::ErrorKind::InvalidInput, why));
            }
            Shared::WithSuccessor if position.is_none() => {
                // It may have added sockets of its own, behind which this one would come.
                let why = "a successor that has the group's sockets is starting";
                return Err(io::Error::new(io::ErrorKind::ResourceBusy, why));
            }
            _ => {}
        }
        let (listener, number) = match position {
            Some(position) => {
                let member = &mut members.order[position];
                let listener = TcpListener::from_fd(member.socket.try_clone()?)?;
                (member.cpu, member.adopted, member.left) = (cpu, false, false);
                (listener, member.number)
            }
            None => {
                let options = &self.inner.options;
                let listener = options.listen(options.bound(&members.addr)?)?;
                let socket = Arc::new(listener.as_fd().try_clone_to_owned()?);
                members.addr = listener.local_addr()?;
                let number = members.next_number;
                members.next_number += 1;
                members.order.push(Member { number, socket, cpu, adopted: false, left: false });
                (listener, number)
            }
        };
        if let Err(e) = members.steer(Some(listener.submitter())) {
            members.leave(number, listener.submitter());
            return Err(e);
        }
        Ok(SteeredListener { listener, number, group: self.clone() })
    }

    /// Gives steering up: from now on the kernel's own hash chooses, among all that listen at the address,
    /// also those that are none of this group's. Nobody is to bind here any more, or to retire.
    ///
    /// # Errors
    /// As `setsockopt(2)`: the program that is attached stays then, as it is.
    ///
    /// # Panics
    /// Outside a running loop.
    #[track_caller]
    pub(super) fn unsteer(&self) -> io::Result<()> {
        let mut members = self.lock();
        for member in &mut members.order {
            // Whoever leaves later has no table to attach.
            member.cpu = None;
        }
        let Some(Member { socket, .. }) = members.order.first() else { return Ok(()) };
        let submitter = Submitter::current();
        let detached = submitter.steer_by_cpu(socket, &[]);
        detached.or_else(|_| submitter.steer_by_cpu(socket, &NOBODY))
    }

    /// Whose connections the listeners get, by position. For logs and tests.
    pub fn cpus(&self) -> Vec<Option<usize>> {
        self.lock().order.iter().map(|member| member.cpu).collect()
    }

    /// The address of the listeners; with its port, if 0 was asked for and one has been bound.
    pub fn addr(&self) -> SocketAddr {
        self.lock().addr
    }

    /// From now on the sockets are another process's too, and are left in the kernel's group as they are:
    /// listeners that are dropped here only close their descriptors. To be called before the listeners end
    /// whenever a successor may have them: once it is there, and also where this process ends by itself while
    /// one starts. A listener that ends without it listens no more, whoever has it. Of a group that is
    /// [lent](crate::handover::Handover::lend_group) the hand-over sees to all of that.
    pub fn give_away(&self) {
        self.lock().shared = Shared::GivenAway;
    }

    /// Duplicates of the sockets, by position: for a successor, which gives them to [`adopt`](Self::adopt).
    /// They are those of this moment: one whose listener ends later listens no more. A hand-over that is to
    /// have those of its own moment is [`lend_group`](crate::handover::Handover::lend_group).
    ///
    /// # Errors
    /// As `dup(2)`.
    pub fn sockets(&self) -> io::Result<Vec<OwnedFd>> {
        self.lock().order.iter().map(|member| member.socket.try_clone()).collect()
    }

    /// The sockets by position, for a process that may come to go on with them. Which of the two does is to
    /// be said afterwards: [`give_away`](Self::give_away) or [`take_back`](Self::take_back). A group that
    /// was adopted is owned by now: who waits for a successor is ready.
    pub(crate) fn lend_out(&self) -> Vec<Arc<OwnedFd>> {
        let mut members = self.lock();
        if members.shared != Shared::GivenAway {
            members.shared = Shared::WithSuccessor;
        }
        members.order.iter().map(|member| member.socket.clone()).collect()
    }

    /// The process that they were lent to has come to nothing. Does nothing if they are lent to none.
    pub(crate) fn take_back(&self) {
        let mut members = self.lock();
        if members.shared != Shared::WithSuccessor {
            return;
        }
        members.shared = Shared::No;
        while let Some(position) = members.order.iter().position(|member| member.left) {
            // As it would have left, had there been no successor.
            let left = members.order.swap_remove(position);
            let _ = fds::shut_down(&left.socket, Shutdown::Both);
        }
        // Also where none has left: the other process may have attached a program of its own. An error
        // leaves that one, until a listener comes or goes.
        let _ = members.steer(None);
    }

    /// Whether they are clones of each other.
    pub(crate) fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.inner, &other.inner)
    }

    fn lock(&self) -> MutexGuard<'_, Members> {
        // What panics while it is held (no loop) has changed nothing yet.
        self.inner.members.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Members {
    fn position(&self, number: u64) -> Option<usize> {
        self.order.iter().position(|member| member.number == number)
    }

    /// The first of the adopted sockets that no core has.
    fn left_over(&self) -> Option<usize> {
        self.order.iter().position(|member| member.adopted)
    }

    fn leave(&mut self, number: u64, submitter: &Submitter) {
        let Some(position) = self.position(number) else { return };
        match self.shared {
            // Not one of ours to end: it keeps its position, for whoever takes it up or goes on.
            Shared::WithPredecessor | Shared::WithSuccessor => {
                let left = self.shared == Shared::WithSuccessor;
                let member = &mut self.order[position];
                (member.cpu, member.adopted, member.left) = (None, true, left);
            }
            Shared::GivenAway => {
                self.order.swap_remove(position);
                return;
            }
            Shared::No => {
                // What the kernel does too, in the next line.
                let left = self.order.swap_remove(position);
                // Out of the kernel's group at once, and not when the last operation on it has ended. The
                // program is out of date from here to the next call: for that moment a connection may go to
                // another core.
                let _ = submitter.shutdown(&left.socket, Shutdown::Both);
            }
        }
        // An error would leave the others with the old program: the same, for longer.
        let _ = self.steer(Some(submitter));
    }

    /// Has the kernel do what the table says, if that is ours to say: a listener's kernel, or where there is
    /// none that of the running loop, or the system's.
    fn steer(&self, submitter: Option<&Submitter>) -> io::Result<()> {
        if self.shared != Shared::No {
            // Whoever goes on does it then. Until then it is as the one before has it, who may be that.
            return Ok(());
        }
        let mut table: Vec<(usize, u32)> = Vec::with_capacity(self.order.len());
        for (position, member) in (0..).zip(&self.order) {
            if let Some(cpu) = member.cpu
                && table.iter().all(|(named, _)| *named != cpu)
            {
                table.push((cpu, position));
            }
        }
        let Some(any) = self.order.first().filter(|_| !table.is_empty()) else { return Ok(()) };
        match submitter {
            Some(submitter) => submitter.steer_by_cpu(&any.socket, &table),
            None => fds::steer_by_cpu(&any.socket, &table),
        }
    }
}

impl fmt::Debug for Group {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let members = self.lock();
        let cpus: Vec<_> = members.order.iter().map(|member| member.cpu).collect();
        f.debug_struct("Group").field("addr", &members.addr).field("cpus", &cpus).finish()
    }
}

/// A listener of a [`Group`], and of one core: a [`TcpListener`] in all it can do.
///
/// Dropping it takes it out of the group; what waits in its backlog is reset then, as by the close of any
/// listener. To lose none, [`retire`](Self::retire) it first.
#[derive(Debug)]
pub struct SteeredListener {
    listener: TcpListener,
    number: u64,
    group: Group,
}

impl SteeredListener {
    /// Has new connections go to the other listeners of the group from now on. What has come already, and
    /// what is in the middle of its handshake, still comes to this one: go on accepting for about a round
    /// trip before it is dropped. The last listener with a CPU goes on as before. So it does while another
    /// process has the sockets too, a predecessor or a successor that is starting: where they come to is
    /// changed once one of the two has them alone. Those that it leaves wait for that one.
    ///
    /// # Errors
    /// As `setsockopt(2)`; nothing has changed then.
    ///
    /// ```
    /// use coreloop::cancel::Interruptible;
    /// use coreloop::time::Instant;
    /// # use coreloop_net::spread::SteeredListener;
    /// # use std::time::Duration;
    /// # fn serve(_: coreloop_net::TcpStream) {}
    ///
    /// # async fn end(mut listener: SteeredListener) -> std::io::Result<()> {
    /// listener.retire()?;
    /// let until = Instant::now() + Duration::from_secs(1);
    /// while let Ok(stream) = listener.accept().until(until).await {
    ///     serve(stream);
    /// }
    /// drop(listener);
    /// # Ok(())
    /// # }
    /// ```
    pub fn retire(&mut self) -> io::Result<()> {
        let mut members = self.group.lock();
        let Some(position) = members.position(self.number) else { return Ok(()) };
        if members.shared == Shared::GivenAway {
            return Ok(());
        }
        let cpu = members.order[position].cpu.take();
        let steered = members.steer(Some(self.listener.submitter()));
        if steered.is_err() {
            members.order[position].cpu = cpu;
        }
        steered
    }

    /// The group that it belongs to.
    pub fn group(&self) -> &Group {
        &self.group
    }

    /// Its position in the group now; another's leaving may change it.
    pub fn position(&self) -> usize {
        let members = self.group.lock();
        members.position(self.number).expect("it leaves when it is dropped")
    }
}

impl Drop for SteeredListener {
    fn drop(&mut self) {
        self.group.lock().leave(self.number, self.listener.submitter());
    }
}

impl Deref for SteeredListener {
    type Target = TcpListener;

    fn deref(&self) -> &TcpListener {
        &self.listener
    }
}

impl DerefMut for SteeredListener {
    fn deref_mut(&mut self) -> &mut TcpListener {
        &mut self.listener
    }
}
