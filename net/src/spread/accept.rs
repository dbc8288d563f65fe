//! Connections for every core of a server, the way that its settings say.
//!
//! Owns [`Acceptors`], a process's one way of accepting, and [`Acceptor`], a core's part in it. What each
//! way does is [`group`](super::Group)'s, [`deal`](super::dealer())'s and the kernel's; here is which of them
//! it is, and the step down from one that the kernel can't.

use std::collections::VecDeque;
use std::fmt;
use std::future::{Future, poll_fn};
use std::io;
use std::mem;
use std::net::SocketAddr;
use std::ops::{Deref, DerefMut};
use std::pin::{Pin, pin};
use std::sync::{Arc, PoisonError};
use std::task::{Context, Poll, Waker, ready};

use coreloop::cancel::Token;
use coreloop::config::AcceptSpread;
use coreloop::op::Submitter;
use coreloop::task::JoinHandle;
use coreloop::{Core, Handle};

use super::deal::{Deal, Dealer, Dealt, Seat, Seats, unseated};
use super::group::{Group, SteeredListener};
use super::loads::{Counted, Loads};
use crate::addr::ToAddr;
use crate::locks::{Mutex, MutexGuard};
use crate::tcp::{DetachedStream, ListenOptions, TcpListener, TcpStream};

/// Connections that wait at the seat of each core, where they are dealt out.
const QUEUED_MAX: usize = 64;

/// How the cores of a server come by their connections. Clones are the same one, on any thread.
///
/// ```
/// use coreloop::config::AcceptSpread;
/// use coreloop::{Cores, Runtime, Settings};
/// use coreloop_net::spread::Acceptors;
/// use coreloop_net::{ListenOptions, TcpStream};
///
/// let settings = Settings::default().accept_spread(AcceptSpread::LeastConnections);
/// let way = AcceptSpread::of(&settings);
/// let runtime = Runtime::builder().settings(settings).cores(Cores::Count(1)).build().unwrap();
/// let acceptors = Acceptors::new("127.0.0.1:0", ListenOptions::default(), way, 1).unwrap();
/// runtime
///     .run(move |core| {
///         let acceptors = acceptors.clone();
///         async move {
///             let mut acceptor = acceptors.join(&core).unwrap();
///             let addr = acceptors.addr();
///             let _client = TcpStream::connect(addr).await.unwrap();
///             let accepted = acceptor.accept().await.unwrap();
///             assert_eq!(accepted.local_addr().unwrap(), addr);
///         }
///     })
///     .unwrap();
/// ```
#[derive(Clone)]
pub struct Acceptors {
    inner: Arc<Inner>,
}

struct Inner {
    options: ListenOptions,
    asked: AcceptSpread,
    loads: Loads,
    state: Mutex<State>,
}

struct State {
    addr: SocketAddr,
    group: Group,
    /// Of cores that have not joined, where connections are dealt out.
    seats: Option<Seats>,
    /// Until core 0 has joined.
    dealer: Option<Dealer>,
    /// Why core 0 could not listen when it tried last; it may try again.
    refused: Option<String>,
    /// Who waits on core 0 until it tries to join.
    untried: Vec<Waker>,
    /// Why it is not the way that was asked for.
    stepped_down: Option<String>,
    /// Why the core that accepts for all accepts no more.
    over: Option<String>,
}

impl Acceptors {
    /// For so many cores that listen on one address. With port 0 the first that listens chooses, and the
    /// others join it.
    ///
    /// # Errors
    /// `InvalidInput` for text that is no literal address.
    ///
    /// # Panics
    /// If there are no cores.
    #[track_caller]
    pub fn new(
        addr: impl ToAddr,
        options: ListenOptions,
        way: AcceptSpread,
        cores: usize,
    ) -> io::Result<Self> {
        let addr = addr.to_addr()?;
        let loads = Loads::new(cores);
        let deal = match way {
            AcceptSpread::RoundRobin => Some(Deal::RoundRobin),
            AcceptSpread::LeastConnections => Some(Deal::LeastConnections),
            _ => None,
        };
        let (dealer, seats) = deal.map(|deal| unseated(&loads, deal, QUEUED_MAX)).unzip();
        let state = Mutex::new(State {
            addr,
            group: Group::new(addr, options.clone())?,
            seats,
            dealer,
            refused: None,
            untried: Vec::new(),
            stepped_down: None,
            over: None,
        });
        Ok(Self { inner: Arc::new(Inner { options, asked: way, loads, state }) })
    }

    /// The running core's part in it. Core 0's is what accepts for all, where connections are dealt out; a
    /// core has its share of them from its join on, and none if it never joins.
    ///
    /// # Errors
    /// As [`ListenOptions::bind`]; `AlreadyExists` for a core that has joined, where they are dealt out.
    ///
    /// # Panics
    /// Outside a running loop; for a core beyond those that there are.
    #[track_caller]
    pub fn join(&self, core: &Core) -> io::Result<Acceptor> {
        assert!(core.index() < self.inner.loads.cores(), "core {} is one too many", core.index());
        if let AcceptSpread::RoundRobin | AcceptSpread::LeastConnections = self.inner.asked {
            let source = self.dealt(core)?;
            return Ok(Acceptor { source, core: core.index(), acceptors: self.clone() });
        }
        let mut state = self.lock();
        let source = match self.inner.asked {
            AcceptSpread::Cpu if state.stepped_down.is_none() => {
                self.steered(&mut state, core.cpu())?
            }
            _ => Source::Plain(self.plain(&mut state)?),
        };
        if let Some(why) = &state.stepped_down {
            let (asked, other) = (self.inner.asked, AcceptSpread::ReusePort);
            let why = format!("asked {asked}, in force {other}, because {why}");
            Submitter::current().say_step_down("accept_spread", &why);
        }
        Ok(Acceptor { source, core: core.index(), acceptors: self.clone() })
    }

    fn plain(&self, state: &mut State) -> io::Result<TcpListener> {
        let listener = self.inner.options.clone().reuse_port(true).bind(state.addr)?;
        state.addr = listener.local_addr()?;
        Ok(listener)
    }

    fn steered(&self, state: &mut State, cpu: usize) -> io::Result<Source> {
        let refused = match state.group.bind(cpu) {
            Ok(listener) => {
                state.addr = state.group.addr();
                return Ok(Source::Steered(listener));
            }
            Err(refused) => refused,
        };
        // Whether it was the program or the address: a plain listener has the address alone to fail for.
        let plain = self.plain(state)?;
        let mut why = format!("the kernel takes no program for the port ({refused})");
        // The program of the cores that came before names none of the listeners that come now.
        if let Err(kept) = state.group.unsteer() {
            // Not as it was asked for, and nothing is lost: whoever gets a connection accepts.
            why += &format!(", and keeps the one that it has ({kept}): the cores before serve all");
        }
        state.stepped_down = Some(why);
        Ok(Source::Plain(plain))
    }

    #[track_caller]
    fn dealt(&self, core: &Core) -> io::Result<Source> {
        let mut state = self.lock();
        let source = self.seated(&mut state, core);
        // Whoever waits for core 0 hears how it went, with nothing held.
        let told = if core.index() == 0 { mem::take(&mut state.untried) } else { Vec::new() };
        drop(state);
        told.into_iter().for_each(Waker::wake);
        source
    }

    fn seated(&self, state: &mut State, core: &Core) -> io::Result<Source> {
        let (core, handle) = (core.index(), core.handle());
        let joined = || io::Error::new(io::ErrorKind::AlreadyExists, "this core has joined");
        if !state.seats.as_ref().is_some_and(|seats| seats.is_free(core)) {
            return Err(joined());
        }
        // Before the seat is taken: without a listener this core has not joined, and may again.
        let listener = if core == 0 {
            let listener = self.plain(state);
            let why = |e| format!("the core that accepts for all could not listen: {e}");
            state.refused = listener.as_ref().err().map(why);
            Some(listener?)
        } else {
            None
        };
        let seat = state.seats.as_mut().and_then(|seats| seats.take(core)).ok_or_else(joined)?;
        let accepts = listener.and_then(|listener| {
            let dealer = state.dealer.take()?;
            Some(self.deals(dealer, listener))
        });
        let core_0 = state.dealer.is_some().then(|| Core0 { handle: handle.clone(), tries: None });
        Ok(Source::Dealt { seat, accepts, core_0 })
    }

    /// The next connection of a core that joined before core 0, until it has had one.
    async fn first_of(&self, seat: &mut Seat, core_0: &mut Core0) -> io::Result<Option<Dealt>> {
        let mut next = pin!(seat.accept());
        poll_fn(|cx| {
            if let Poll::Ready(dealt) = next.as_mut().poll(cx) {
                return Poll::Ready(Ok(dealt));
            }
            loop {
                let state = self.lock();
                if state.dealer.is_none() {
                    // It has joined: the seat tells of all that is to come.
                    return Poll::Pending;
                }
                let refused = state.refused.clone();
                drop(state);
                let why = match refused {
                    Some(why) => why,
                    None if ready!(core_0.poll_tried(self, cx)) => continue,
                    None => "the core that accepts for all has ended, and had not joined".into(),
                };
                return Poll::Ready(Err(io::Error::new(io::ErrorKind::BrokenPipe, why)));
            }
        })
        .await
    }

    /// On core 0: until it has tried to join.
    async fn tried(self) {
        poll_fn(|cx| {
            let waker = cx.waker().clone();
            let mut state = self.lock();
            if state.dealer.is_none() || state.refused.is_some() {
                return Poll::Ready(());
            }
            state.untried.push(waker);
            Poll::Pending
        })
        .await;
    }

    /// Accepts for all, until it is stopped or cancelled.
    fn deals(&self, mut dealer: Dealer, mut listener: TcpListener) -> Accepts {
        let (acceptors, stopping) = (self.clone(), Token::new());
        let stopped = stopping.clone();
        let task = coreloop::spawn_named("dealer", async move {
            // By a block of its own: where it is stopped, the future goes before the listener does.
            let ended = stopped.run(async { dealer.run(&mut listener).await }).await;
            if let Ok(Err(why)) = ended {
                acceptors.lock().over = Some(why.to_string());
            }
            let accepted = listener.pause().await;
            let mut rest = dealer.into_pending();
            rest.extend(accepted);
            rest
        });
        Accepts { task, stopping }
    }

    /// Where they listen; with its port, if 0 was asked for and one listens.
    pub fn addr(&self) -> SocketAddr {
        self.lock().addr
    }

    /// How connections are spread: as was asked for, or what it stepped down to.
    pub fn way(&self) -> AcceptSpread {
        match self.stepped_down() {
            Some(_) => AcceptSpread::ReusePort,
            None => self.inner.asked,
        }
    }

    /// Why it is not the way that was asked for, in words; none if it is. Known when all have joined.
    pub fn stepped_down(&self) -> Option<String> {
        let (asked, other) = (self.inner.asked, AcceptSpread::ReusePort);
        let state = self.lock();
        let why = state.stepped_down.as_ref()?;
        Some(format!("accept_spread = {asked} is {other} here: {why}"))
    }

    /// The connections of each core, for all that it accepts: what waits at its seat too.
    pub fn loads(&self) -> &Loads {
        &self.inner.loads
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // What panics while it is held (no loop) has changed nothing yet.
        self.inner.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a core knows of core 0 that has joined before that one did.
struct Core0 {
    handle: Handle,
    /// Its next try to join: whether it came to one. Kept when an accept is dropped, for the next.
    tries: Option<Pin<Box<dyn Future<Output = bool>>>>,
}

impl Core0 {
    /// Whether it has tried to join since the last refusal; not if it has ended without.
    fn poll_tried(&mut self, acceptors: &Acceptors, cx: &mut Context<'_>) -> Poll<bool> {
        let tries = self.tries.get_or_insert_with(|| {
            let (handle, acceptors) = (self.handle.clone(), acceptors.clone());
            Box::pin(async move {
                match handle.spawn_on_when_room(0, move || acceptors.tried()).await {
                    Ok(tried) => tried.await.is_ok(),
                    Err(_) => false,
                }
            })
        });
        let tried = ready!(tries.as_mut().poll(cx));
        self.tries = None;
        Poll::Ready(tried)
    }
}

impl fmt::Debug for Core0 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Core0").finish_non_exhaustive()
    }
}

impl fmt::Debug for Acceptors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut out = f.debug_struct("Acceptors");
        out.field("addr", &self.addr()).field("way", &self.way()).finish_non_exhaustive()
    }
}

/// One core's part in accepting. See [`Acceptors::join`].
///
/// Dropping it closes the core's listener, with what it had accepted and not given, or sends what waits at
/// its seat to the others; core 0's, where connections are dealt out, accepts no more for any. At an orderly
/// end [`stop`](Self::stop) loses none of them.
#[derive(Debug)]
pub struct Acceptor {
    source: Source,
    core: usize,
    acceptors: Acceptors,
}

#[derive(Debug)]
enum Source {
    Plain(TcpListener),
    Steered(SteeredListener),
    Dealt {
        seat: Seat,
        /// The task that accepts for all, on core 0.
        accepts: Option<Accepts>,
        /// Where it joined before core 0 did, until it has had a connection.
        core_0: Option<Core0>,
    },
}

/// The task that accepts for all.
#[derive(Debug)]
struct Accepts {
    /// Gives what it has not dealt out when it is stopped.
    task: JoinHandle<VecDeque<DetachedStream>>,
    stopping: Token,
}

impl Drop for Accepts {
    fn drop(&mut self) {
        self.task.cancel();
    }
}

impl Acceptor {
    /// What it is a part of.
    pub fn acceptors(&self) -> &Acceptors {
        &self.acceptors
    }

    /// This core's next connection.
    ///
    /// # Cancel safety
    /// No connection is lost.
    ///
    /// # Errors
    /// As [`TcpListener::accept`]; `BrokenPipe` if the core that accepts for all has ended, joined or not,
    /// and, with the reason, from its [join](Acceptors::join) that failed until one that does not: then it is
    /// dealt to. At a [graceful](coreloop::shutdown::Graceful) end it may hear of that before this core does:
    /// [`Graceful::is_ready`](coreloop::shutdown::Graceful::is_ready) says whether the end has begun.
    pub async fn accept(&mut self) -> io::Result<Accepted> {
        let stream = match &mut self.source {
            Source::Plain(listener) => listener.accept().await?,
            Source::Steered(listener) => listener.accept().await?,
            Source::Dealt { seat, core_0, .. } => {
                let dealt = match core_0 {
                    Some(known) => {
                        let dealt = self.acceptors.first_of(seat, known).await?;
                        *core_0 = None;
                        dealt
                    }
                    None => seat.accept().await,
                };
                if let Some(dealt) = dealt {
                    let (stream, counted) = dealt.into_parts();
                    return Ok(Accepted { stream, counted });
                }
                let over = self.acceptors.lock().over.clone();
                let why = over.unwrap_or_else(|| "the core that accepts has ended".into());
                return Err(io::Error::new(io::ErrorKind::BrokenPipe, why));
            }
        };
        Ok(Accepted { stream, counted: self.acceptors.inner.loads.count(self.core) })
    }

    /// Accepts no more on this core, and gives what had been accepted for it and not been asked for. Where
    /// connections are dealt out, core 0's gives what has not been dealt, too; what is dealt to another core
    /// while that one stops goes to those that go on. At a graceful end let all of them stop, in any order.
    ///
    /// What lies in the kernel's queue is reset as the listener closes: what comes meanwhile, and what
    /// had not been accepted for want of room, of descriptors, or of anybody who had asked. So let those
    /// who send connections know before
    /// ([`Graceful::lame_duck`](coreloop::shutdown::Graceful::lame_duck)), and go on accepting until
    /// then; or hand the listener [over](crate::handover).
    ///
    /// # Cancel safety
    /// Dropping the future is dropping the acceptor.
    ///
    /// ```
    /// use coreloop::cancel::Interruptible;
    /// use coreloop::config::AcceptSpread;
    /// use coreloop::shutdown::Graceful;
    /// use coreloop::{Cores, Runtime};
    /// use coreloop_net::ListenOptions;
    /// use coreloop_net::spread::Acceptors;
    /// use std::time::Duration;
    ///
    /// let (way, options) = (AcceptSpread::ReusePort, ListenOptions::default());
    /// let acceptors = Acceptors::new("127.0.0.1:0", options, way, 1).unwrap();
    /// let graceful = Graceful::new(Duration::from_secs(5));
    /// let runtime = Runtime::builder().cores(Cores::Count(1)).build().unwrap();
    /// runtime
    ///     .run(move |core| {
    ///         let (acceptors, graceful) = (acceptors.clone(), graceful.clone());
    ///         async move {
    ///             let (mut acceptor, here) = (acceptors.join(&core).unwrap(), graceful.here());
    ///             graceful.begin();
    ///             let accept = |accepted| drop(here.spawn(async move { drop(accepted) }));
    ///             while let Ok(Ok(next)) = here.stopping().run(acceptor.accept()).await {
    ///                 accept(next);
    ///             }
    ///             acceptor.stop().await.into_iter().for_each(accept);
    ///             here.drained().await
    ///         }
    ///     })
    ///     .unwrap();
    /// ```
    pub async fn stop(self) -> Vec<Accepted> {
        let Self { source, core, acceptors } = self;
        let count = |stream: DetachedStream| Accepted {
            stream: stream.attach(),
            counted: acceptors.inner.loads.count(core),
        };
        let (seat, accepts) = match source {
            Source::Plain(mut listener) => {
                return listener.pause().await.into_iter().map(count).collect();
            }
            Source::Steered(mut listener) => {
                return listener.pause().await.into_iter().map(count).collect();
            }
            Source::Dealt { seat, accepts, .. } => (seat, accepts),
        };
        let mut undealt = VecDeque::new();
        if let Some(mut accepts) = accepts {
            accepts.stopping.cancel();
            // It panics nowhere, and nobody else cancels it; else there is nothing to give.
            undealt = (&mut accepts.task).await.unwrap_or_default();
        }
        let (queued, rest) = seat.stop();
        let queued = queued.into_iter().map(|(stream, counted)| {
            let stream = stream.attach();
            Accepted { stream, counted }
        });
        queued.chain(rest.into_iter().chain(undealt).map(count)).collect()
    }
}

/// A connection; it counts among its core's until it is dropped.
#[derive(Debug)]
pub struct Accepted {
    stream: TcpStream,
    counted: Counted,
}

impl Accepted {
    /// The connection, and its place in the count.
    pub fn into_parts(self) -> (TcpStream, Counted) {
        (self.stream, self.counted)
    }
}

impl Deref for Accepted {
    type Target = TcpStream;

    fn deref(&self) -> &TcpStream {
        &self.stream
    }
}

impl DerefMut for Accepted {
    fn deref_mut(&mut self) -> &mut TcpStream {
        &mut self.stream
    }
}
