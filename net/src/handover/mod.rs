//! A process lets its successor have its listeners, so that a restart refuses nobody.
//!
//! Owns [`Handover`]. The sockets themselves go over (SCM_RIGHTS), not their addresses: the kernel's backlog
//! of each is theirs together, and nobody is refused or reset between the two. What is said, over a Unix
//! socket of whole messages (`wire`):
//! ```text
//! predecessor                                  successor
//! serves                       <-- connects -- begins
//! sends the control socket and every lent one -->
//! serves                                       starts its cores, accepts beside the other
//! ends: accepts no more        <---- ready --- serves
//! drains                                       waits for a successor of its own
//! ```
//! Until `ready` the predecessor goes on as if nothing were; a successor that dies before is forgotten. The
//! control socket, on which successors connect, goes over too: its path stays and never points nowhere.
//! What is lent is a socket, or a [`Group`]: of one, what listens when a successor comes. Groups change no
//! position and no program while they are with two processes, and are told here which of them goes on.
//! Both ends see to it that the other is the same user, or root. All of it goes by the kernel of the loop
//! that it runs on, so that a simulation can have it (`coreloop::sim::Sim::successor`).

mod wire;

use std::fmt;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use coreloop::fds;
use coreloop::planted::{self, Fault};
use coreloop::time::{Instant, sleep, timeout};

use crate::locks::{Mutex, MutexGuard};
use crate::spread::Group;
use wire::{Attempt, Talk};

/// Time that [`Handover::begin`] gives a predecessor to answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(30);

/// Time that a successor has from its connect to its `ready`, unless [`Handover::starting_within`] says
/// otherwise.
const STARTING_WITHIN: Duration = Duration::from_secs(60);

/// Pause before a predecessor that is busy, or goes away, is asked again.
const AGAIN: Duration = Duration::from_millis(10);

/// A process's place between the one before it and the one after it. Clones are the same one, on any thread.
///
/// ```
/// use coreloop::shutdown::Graceful;
/// use coreloop_net::TcpListener;
/// use coreloop_net::handover::Handover;
/// use std::time::Duration;
///
/// # let path = std::env::temp_dir().join(format!("coreloop-doc-{}", std::process::id()));
/// coreloop::run(async move {
///     let handover = Handover::begin(&path).await.unwrap();
///     let listener = match handover.take("http") {
///         Some(socket) => TcpListener::from_fd(socket).unwrap(),
///         None => TcpListener::bind("127.0.0.1:0").unwrap(),
///     };
///     handover.lend("http", &listener).unwrap();
///     // … serve; and with that:
///     handover.ready(1).unwrap();
///     let graceful = Graceful::new(Duration::from_secs(30));
///     let asked = graceful.clone();
///     drop(coreloop::spawn(async move {
///         handover.successor().await.unwrap();
///         asked.begin();
///     }));
///     // … until `graceful` has everything drained.
/// #   drop(listener);
/// #   std::fs::remove_file(&path).unwrap();
/// })
/// .unwrap();
/// ```
#[derive(Clone)]
pub struct Handover {
    inner: Arc<Inner>,
}

struct Inner {
    path: PathBuf,
    state: Mutex<State>,
}

struct State {
    /// Where successors connect; none once one has it all.
    control: Option<Arc<OwnedFd>>,
    /// Told when we are ready.
    predecessor: Option<Talk>,
    was_successor: bool,
    inherited: Vec<(String, OwnedFd)>,
    lent: Vec<(String, Lent)>,
    /// A successor that has the sockets and is not ready, and until when it may take.
    starting: Option<(Talk, Instant)>,
    /// Calls of `ready`.
    ready: usize,
    starting_within: Duration,
}

/// What a successor is to have under a name.
#[derive(Clone)]
enum Lent {
    Socket(Arc<OwnedFd>),
    /// What it consists of when the successor comes.
    Group(Group),
}

impl State {
    fn lend(&mut self, name: &str, lent: Lent) -> io::Result<()> {
        if self.lent.len() >= wire::LENT_MAX {
            return Err(invalid("4,096 sockets are lent already"));
        }
        self.lent.push((name.to_owned(), lent));
        Ok(())
    }
}

/// The groups among what is lent.
fn groups(lent: &[(String, Lent)]) -> impl Iterator<Item = &Group> {
    lent.iter().filter_map(|(_, lent)| match lent {
        Lent::Socket(_) => None,
        Lent::Group(group) => Some(group),
    })
}

/// What is on its way to a successor. Groups are taken back unless it arrives.
struct Sending {
    sockets: Vec<(String, Arc<OwnedFd>)>,
    lent: Vec<(String, Lent)>,
}

impl Sending {
    /// From here on the sockets of a group are, and stay, at their positions.
    fn of(lent: Vec<(String, Lent)>) -> Self {
        let mut sockets = Vec::with_capacity(lent.len());
        for (name, lent) in &lent {
            match lent {
                Lent::Socket(socket) => sockets.push((name.clone(), socket.clone())),
                Lent::Group(group) => {
                    let all = group.lend_out().into_iter();
                    sockets.extend(all.map(|socket| (name.clone(), socket)));
                }
            }
        }
        Self { sockets, lent }
    }

    /// The successor has it all: what comes of it is known later.
    fn arrived(mut self) {
        self.lent.clear();
    }
}

impl Drop for Sending {
    fn drop(&mut self) {
        groups(&self.lent).for_each(Group::take_back);
    }
}

fn invalid(why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, why)
}

fn check_name(name: &str) -> io::Result<()> {
    if name.is_empty() || name.len() > wire::NAME_MAX || name.contains(char::is_control) {
        return Err(invalid("the name of a socket is 1 to 200 bytes without control characters"));
    }
    Ok(())
}

impl Handover {
    /// Takes over the sockets of the process that waits for successors at `path`; where there is none it
    /// begins with none, and waits there itself from now on. Waits up to 30 s for a predecessor that does not
    /// answer. The path's directory must be writable for this user alone, or others could be in the way.
    /// The path stays when the process ends, and is taken anew by the next one. Two that begin at the same
    /// moment where nobody waits yet may both find themselves the first: start one at a time there, as a
    /// service manager does.
    ///
    /// On any loop, also one that only does this: `coreloop::run(Handover::begin(path))`.
    ///
    /// # Errors
    /// `PermissionDenied` if another user's process is there; `InvalidData` if it speaks another language;
    /// `AlreadyExists` for a path that is something else than a socket;
    /// EMFILE where this process may not have as many sockets as are lent; `TimedOut`; as `socket(2)`,
    /// `bind(2)`, `connect(2)`. What may pass (ENOMEM, ENOBUFS, EINTR, EAGAIN, ETOOMANYREFS) is one
    /// only after those 30 s: until then the predecessor is asked again.
    ///
    /// # Cancel safety
    /// A predecessor goes on as if it had not been asked.
    pub async fn begin(path: impl AsRef<Path>) -> io::Result<Self> {
        let path = path.as_ref().to_owned();
        let until = Instant::now() + ANSWER_WITHIN;
        loop {
            let left = until.duration_since(Instant::now());
            let took = match wire::connect_or_bind(&path) {
                Ok(Attempt::First(control)) => {
                    return Ok(Self::of(path, control, None, Vec::new()));
                }
                Ok(Attempt::Connected(talk)) => {
                    timeout(left, talk.take_over()).await.unwrap_or(Ok(None))
                }
                Ok(Attempt::Busy) => Ok(None),
                Err(e) => Err(e),
            };
            match took {
                Ok(Some(taken)) => {
                    return Ok(Self::of(path, taken.control, Some(taken.talk), taken.sockets));
                }
                Err(e) if !wire::passes(&e) || until <= Instant::now() => return Err(e),
                Ok(None) if until <= Instant::now() => {
                    let why =
                        format!("the process at {} did not hand over in time", path.display());
                    return Err(io::Error::new(io::ErrorKind::TimedOut, why));
                }
                // It went away, or has handed over to another: somebody else is there soon, or nobody.
                // Or the kernel wanted memory, and who let go of the conversation may begin another.
                Ok(None) | Err(_) => sleep(AGAIN).await,
            }
        }
    }

    fn of(
        path: PathBuf,
        control: OwnedFd,
        predecessor: Option<Talk>,
        inherited: Vec<(String, OwnedFd)>,
    ) -> Self {
        let state = Mutex::new(State {
            control: Some(Arc::new(control)),
            was_successor: predecessor.is_some(),
            predecessor,
            inherited,
            lent: Vec::new(),
            starting: None,
            ready: 0,
            starting_within: STARTING_WITHIN,
        });
        Self { inner: Arc::new(Inner { path, state }) }
    }

    /// How long a successor may take from its connect to its `ready` before it is given up (60 s). For those
    /// that connect from now on.
    pub fn starting_within(&self, limit: Duration) {
        self.lock().starting_within = limit;
    }

    /// Whether there was a predecessor.
    pub fn is_successor(&self) -> bool {
        self.lock().was_successor
    }

    /// The first of the sockets of this name that came from the predecessor and were not taken.
    pub fn take(&self, name: &str) -> Option<OwnedFd> {
        let mut state = self.lock();
        let at = state.inherited.iter().position(|(named, _)| named == name)?;
        Some(state.inherited.remove(at).1)
    }

    /// All sockets of this name that came and were not taken, in the order in which they were lent.
    pub fn take_all(&self, name: &str) -> Vec<OwnedFd> {
        std::iter::from_fn(|| self.take(name)).collect()
    }

    /// Core `core`'s part of them, where `cores` of this process share what any number of its predecessor's
    /// had: every socket goes to one core, to some cores none. All are dealt before any is taken, so each
    /// core gets the same answer whenever it asks, once.
    ///
    /// # Panics
    /// If there is no such core.
    #[track_caller]
    pub fn take_share(&self, name: &str, core: usize, cores: usize) -> Vec<OwnedFd> {
        assert!(core < cores, "core {core} of {cores}");
        // A name that no socket has: those of this core's are left under it for the core to take.
        let mine = |core: usize| format!("{name}\n{core}");
        {
            let mut state = self.lock();
            let named = state.inherited.iter_mut().filter(|(named, _)| named == name);
            for (i, (named, _)) in named.enumerate() {
                *named = mine(i % cores);
            }
        }
        self.take_all(&mine(core))
    }

    /// Keeps a duplicate of a socket for the successor, under this name. A name may have several. The socket
    /// stays open, and listens, until it was handed over or this goes, also if the original is closed. A
    /// listener of a [`Group`] that is dropped ends its socket for all who have it, and no successor can
    /// [adopt](Group::adopt) what was lent of it any more: [`lend_group`](Self::lend_group) is for those.
    ///
    /// # Errors
    /// `InvalidInput` for a name that is empty, longer than 200 bytes, or has a control character (a line
    /// break among them), and for more than 4,096 sockets; as `dup(2)`.
    pub fn lend(&self, name: &str, socket: impl AsFd) -> io::Result<()> {
        check_name(name)?;
        let socket = Arc::new(fds::duplicate(socket)?);
        self.lock().lend(name, Lent::Socket(socket))
    }

    /// Keeps a group for the successor, under this name: it gets the sockets of the listeners that there are
    /// when it comes, in the order of their positions, for [`Group::adopt`]. To be called before
    /// [`ready`](Self::ready), with or without listeners yet, from any thread; a group that is lent already
    /// stays as it is lent. It takes care of what two processes can do to each other's listeners:
    ///
    /// - A group that was adopted is this process's [own](Group::own) with `ready`, and not before.
    /// - While a successor starts, positions stay. A listener that ends leaves its socket, and what waits in
    ///   it, to whoever goes on, and none is bound anew (`ResourceBusy`).
    /// - If that successor comes to nothing, those that have ended leave the group, and connections come to
    ///   the listeners of their CPUs, whatever it has done to the port.
    /// - If it is ready, the group is [given away](Group::give_away) before [`successor`](Self::successor)
    ///   returns.
    ///
    /// # Errors
    /// `InvalidInput` as for [`lend`](Self::lend).
    ///
    /// ```
    /// use coreloop_net::ListenOptions;
    /// use coreloop_net::handover::Handover;
    /// use coreloop_net::spread::Group;
    ///
    /// # let path = std::env::temp_dir().join(format!("coreloop-doc-group-{}", std::process::id()));
    /// coreloop::run(async move {
    ///     let handover = Handover::begin(&path).await.unwrap();
    ///     let (came, options) = (handover.take_all("http"), ListenOptions::default());
    ///     let group = if came.is_empty() {
    ///         Group::new("127.0.0.1:0", options).unwrap()
    ///     } else {
    ///         Group::adopt(came, options).unwrap()
    ///     };
    ///     handover.lend_group("http", &group).unwrap();
    ///     // On each core: `group.bind(core.cpu())`, and with that:
    ///     let listener = group.bind(coreloop::placement::allowed_cpus()[0]).unwrap();
    ///     handover.ready(1).unwrap();
    /// #   drop(listener);
    /// #   std::fs::remove_file(&path).unwrap();
    /// })
    /// .unwrap();
    /// ```
    pub fn lend_group(&self, name: &str, group: &Group) -> io::Result<()> {
        check_name(name)?;
        let mut state = self.lock();
        if groups(&state.lent).any(|lent| lent.is(group)) {
            return Ok(());
        }
        state.lend(name, Lent::Group(group.clone()))
    }

    /// Says that this core is ready. With the call of the last of `cores` the predecessor is told to let go,
    /// if there is one; `true` from that call. Sockets that came and were not taken are closed then: what is
    /// in their backlog is reset if nobody else has them. Groups that are [lent](Self::lend_group) are this
    /// process's [own](Group::own) then. Never waits, from any thread.
    ///
    /// # Errors
    /// `TimedOut` if the predecessor has given this process up
    /// ([`starting_within`](Self::starting_within)): it serves on and waits for another successor, so this
    /// one should end. As `sendmsg(2)`; a predecessor that has gone by itself is no error. After one of
    /// want of memory (ENOMEM, ENOBUFS, ETOOMANYREFS) that call counts as not made, and can be made again.
    pub fn ready(&self, cores: usize) -> io::Result<bool> {
        let mut state = self.lock();
        state.ready += 1;
        if state.ready != cores {
            return Ok(false);
        }
        let left_over = std::mem::take(&mut state.inherited);
        let predecessor = state.predecessor.take();
        drop(state);
        match predecessor.as_ref().map(Talk::say_ready) {
            Some(Err(e)) if e.kind() != io::ErrorKind::BrokenPipe => {
                if wire::passes(&e) {
                    let mut state = self.lock();
                    (state.predecessor, state.ready) = (predecessor, cores - 1);
                    state.inherited = left_over;
                }
                Err(e)
            }
            _ => {
                let lent = self.lock().lent.clone();
                groups(&lent).for_each(Group::own);
                Ok(true)
            }
        }
    }

    /// Waits until a successor has taken over: it has the lent sockets and is [`ready`](Self::ready). To
    /// be called once everything is lent, by whichever core's `ready` was the last. From then on this
    /// process should [pause](crate::TcpListener::pause) its listeners, serve what it has accepted to its
    /// end, and go. The lent duplicates are closed, lent groups given away, and the path is the successor's.
    ///
    /// Successors that are not ready in time, die, or are another user's are passed over. Without a
    /// descriptor to hear one with (EMFILE and the like) it looks again every 50 ms.
    ///
    /// # Errors
    /// `NotConnected` if a successor took over before; `InvalidInput` when one comes and there are more than
    /// 4,096 sockets, those of groups among them; as `accept4(2)`, but for those above.
    ///
    /// # Cancel safety
    /// It can be called again, and goes on with a successor that has got the sockets. One that was in the
    /// middle of getting them asks anew. Until it is called again, lent groups that a successor has stay as
    /// they are, also if that one has died meanwhile.
    pub async fn successor(&self) -> io::Result<()> {
        loop {
            let (control, starting) = {
                let state = self.lock();
                (state.control.clone(), state.starting.clone())
            };
            let Some(control) = control else {
                let why = "a successor has taken over already";
                return Err(io::Error::new(io::ErrorKind::NotConnected, why));
            };
            let Some((talk, until)) = starting else {
                let Some(talk) = wire::accept(&control).await? else { continue };
                let (limit, lent) = {
                    let mut state = self.lock();
                    if state.control.is_none() {
                        // Somebody else who waited here has handed over: this one is to ask that successor.
                        continue;
                    }
                    if planted::is(Fault::LentTooShort, 1) {
                        state.lent.clear();
                    }
                    (state.starting_within, state.lent.clone())
                };
                let until = Instant::now() + limit;
                let sending = Sending::of(lent);
                if sending.sockets.len() > wire::LENT_MAX {
                    return Err(invalid("more than 4,096 sockets are lent"));
                }
                // Whatever goes wrong there is the successor's end, not ours.
                let handed = timeout(limit, talk.hand_over(&control, &sending.sockets)).await;
                if let Ok(Ok(())) = handed {
                    self.lock().starting = Some((talk, until));
                    sending.arrived();
                }
                continue;
            };
            let left = until.duration_since(Instant::now());
            let is_ready = match timeout(left, talk.hear_ready()).await {
                Ok(Ok(is_ready)) => is_ready || planted::is(Fault::EndForReady, 1),
                // It may be ready all the same, and must not take us for gone.
                Ok(Err(e)) if wire::passes(&e) && !left.is_zero() => {
                    sleep(AGAIN).await;
                    continue;
                }
                Ok(Err(_)) | Err(_) => talk.give_up().await,
            };
            let lent = {
                let mut state = self.lock();
                state.starting = None;
                if is_ready {
                    state.control = None;
                    std::mem::take(&mut state.lent)
                } else {
                    state.lent.clone()
                }
            };
            if is_ready {
                // Before anybody hears of it, and ends its listeners.
                groups(&lent).for_each(Group::give_away);
                return Ok(());
            }
            groups(&lent).for_each(Group::take_back);
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing panics while it is held.
        self.inner.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Handover {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handover").field("path", &self.inner.path).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod wire_fuzz_tests;
