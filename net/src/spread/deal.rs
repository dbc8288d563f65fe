//! One core accepts, others serve.
//!
//! Owns [`Dealer`] and its [`Seat`]s: a bounded queue to each core, and the rule that none of the
//! connections is lost in silence. A connection is in one place at each time:
//! ```text
//! pending --room--> queued at a seat --taken--> its core's
//!    ^                   |
//!    └──── came back ────┘ (the seat was dropped, or its core has ended)
//! ```
//! With no seat left it stays pending, and is closed and counted when the dealer goes. With no room at any
//! seat the dealer does not accept: first the listener's queue fills, then the kernel's backlog. A seat that
//! nobody has taken yet is no place: it has no queue, and nothing is dealt to it.

use std::collections::VecDeque;
use std::fmt;
use std::future::poll_fn;
use std::io;
use std::mem;
use std::ops::{Deref, DerefMut};
use std::pin::pin;
use std::str::FromStr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError};
use std::task::{Context, Poll, Waker};

use coreloop::cross::{self, TrySendError};

use super::loads::{Counted, Loads};
use crate::locks::{Mutex, MutexGuard};
use crate::tcp::{DetachedStream, TcpListener, TcpStream};

/// To whom the next connection goes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Deal {
    /// To one after the other; who has no room is passed over.
    #[default]
    RoundRobin,
    /// To whoever has the fewest, in turn among those; who has no room is passed over.
    LeastConnections,
}

impl FromStr for Deal {
    type Err = io::Error;

    /// `round-robin` or `least-connections`.
    fn from_str(text: &str) -> io::Result<Self> {
        match text.trim() {
            "round-robin" => Ok(Self::RoundRobin),
            "least-connections" => Ok(Self::LeastConnections),
            _ => {
                let why = format!("{text:?} is neither round-robin nor least-connections");
                Err(io::Error::new(io::ErrorKind::InvalidInput, why))
            }
        }
    }
}

/// A dealer and a seat for each core of `loads`; each is then moved to where it is used. `queued_max`
/// connections (and up to a quarter more, as in any [`cross::channel`]) may wait at each seat. The core that
/// deals may have a seat too; one that is not to serve drops its seat.
///
/// There is a queue for each core and no more: this is not a mesh.
///
/// # Panics
/// If `queued_max` is 0.
///
/// ```
/// use coreloop_net::spread::{self, Deal, Loads};
/// use coreloop_net::{TcpListener, TcpStream};
///
/// coreloop::run(async {
///     let (mut dealer, mut seats) = spread::dealer(&Loads::new(1), Deal::RoundRobin, 64);
///     let mut listener = TcpListener::bind("127.0.0.1:0").unwrap();
///     let addr = listener.local_addr().unwrap();
///     drop(coreloop::spawn(async move { dealer.run(&mut listener).await }));
///     let mut client = TcpStream::connect(addr).await.unwrap();
///     // On the other core, as a rule.
///     let mut dealt = seats[0].accept().await.unwrap();
///     dealt.write_all("served").await.unwrap();
///     assert_eq!(&*client.recv().await.unwrap().unwrap(), b"served");
/// })
/// .unwrap();
/// ```
#[track_caller]
pub fn dealer(loads: &Loads, deal: Deal, queued_max: usize) -> (Dealer, Vec<Seat>) {
    let (mut dealer, mut seats) = unseated(loads, deal, queued_max);
    let all = (0..loads.cores()).filter_map(|core| seats.take(core)).collect();
    dealer.look();
    (dealer, all)
}

/// As [`dealer`](fn@dealer), and each seat is there once its core takes it.
pub(super) fn unseated(loads: &Loads, deal: Deal, queued_max: usize) -> (Dealer, Seats) {
    let back = Arc::new(Back::default());
    let places = (0..loads.cores()).map(|_| Place::Free).collect();
    let seats = Seats { queued_max, free: vec![true; loads.cores()], back: back.clone() };
    let loads = loads.clone();
    (Dealer { places, loads, deal, next: 0, pending: VecDeque::new(), back }, seats)
}

/// The side that accepts. See [`dealer`](fn@dealer).
///
/// Dropping it closes what it had accepted and not dealt out, and counts it ([`Tally::closed`]); the seats
/// take what is queued for them and then see the end.
pub struct Dealer {
    /// Of each core.
    places: Vec<Place>,
    loads: Loads,
    deal: Deal,
    /// The core that has its turn, where that decides.
    next: usize,
    /// Accepted, given or come back, and not dealt out. No more than [`PENDING_MAX`], one that was accepted,
    /// and those that had been queued at seats that are gone.
    pending: VecDeque<DetachedStream>,
    back: Arc<Back>,
}

/// Where a core's connections are put.
enum Place {
    /// Nobody has taken the seat yet.
    Free,
    Taken(cross::Sender<Parcel>),
    /// The seat was dropped, or its core has ended.
    Gone,
}

impl Place {
    fn sender(&mut self) -> Option<&mut cross::Sender<Parcel>> {
        if let Self::Taken(sender) = self { Some(sender) } else { None }
    }
}

/// Why a dealer deals no more.
#[derive(Debug)]
#[non_exhaustive]
pub enum DealError {
    /// Accepting failed: the listener is of no use any more.
    Accept(io::Error),
    /// Every seat is gone. [`Dealer::take_pending`] has what could not be dealt out.
    NoSeatLeft,
    /// So many connections wait for a seat with room already that this one was not taken: [`Dealer::give`],
    /// called again and again and dropped each time before there was room.
    Full(DetachedStream),
}

impl fmt::Display for DealError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Accept(e) => write!(f, "accepting failed: {e}"),
            Self::NoSeatLeft => f.write_str("every core that took connections is gone"),
            Self::Full(_) => write!(
                f,
                "{PENDING_MAX} connections wait for a core with room; let `flush` end before giving more"
            ),
        }
    }
}

impl std::error::Error for DealError {}

/// Connections that may wait for room in a dealer when it is given one more; one more is refused then.
const PENDING_MAX: usize = 256;

impl Dealer {
    /// Accepts and deals out, for ever.
    ///
    /// # Errors
    /// [`DealError`].
    ///
    /// # Cancel safety
    /// No connection is lost: what was accepted and not dealt out is dealt by the next call of anything here,
    /// what was not asked for stays with the listener.
    pub async fn run(&mut self, listener: &mut TcpListener) -> Result<(), DealError> {
        loop {
            self.flush().await?;
            let mut accept = pin!(listener.accept_detached());
            let back = self.back.clone();
            let accepted = poll_fn(|cx| {
                if back.poll_told(cx).is_ready() {
                    return Poll::Ready(None);
                }
                accept.as_mut().poll(cx).map(Some)
            });
            match accepted.await {
                Some(Ok(stream)) => self.pending.push_back(stream),
                Some(Err(e)) => return Err(DealError::Accept(e)),
                None => {}
            }
        }
    }

    /// Deals one connection out, once there is room. Those that were kept before go first.
    ///
    /// # Errors
    /// [`DealError::NoSeatLeft`]; the connection is kept then: see [`take_pending`](Self::take_pending).
    /// [`DealError::Full`] with the connection, if 256 are kept already for which there is no room.
    ///
    /// # Cancel safety
    /// The connection is kept, and dealt by the next call of anything here. A future that was never polled
    /// closes it.
    pub async fn give(&mut self, stream: DetachedStream) -> Result<(), DealError> {
        if self.pending.len() >= PENDING_MAX {
            self.deal_while_there_is_room();
        }
        if self.pending.len() >= PENDING_MAX {
            return Err(DealError::Full(stream));
        }
        self.pending.push_back(stream);
        self.flush().await
    }

    /// Deals out what has been accepted, and what came back from seats that are gone.
    ///
    /// # Errors
    /// [`DealError::NoSeatLeft`], if there is something to deal.
    ///
    /// # Cancel safety
    /// Nothing is lost.
    pub async fn flush(&mut self) -> Result<(), DealError> {
        while !self.deal_while_there_is_room() {
            if self.places.iter().all(|place| matches!(place, Place::Gone)) {
                return Err(DealError::NoSeatLeft);
            }
            self.room().await;
        }
        Ok(())
    }

    /// Whether all that was pending has been dealt out.
    fn deal_while_there_is_room(&mut self) -> bool {
        loop {
            self.look();
            let Some(stream) = self.pending.pop_front() else { return true };
            if let Err(stream) = self.place(stream) {
                self.pending.push_front(stream);
                return false;
            }
        }
    }

    /// What could not be dealt out.
    pub fn take_pending(&mut self) -> Vec<DetachedStream> {
        self.look();
        self.pending.drain(..).collect()
    }

    /// Takes up what it was told: connections that came back, seats that were taken.
    fn look(&mut self) {
        let mut told = self.back.lock();
        self.pending.extend(told.returned.drain(..));
        for (core, sender) in told.taken.drain(..) {
            self.places[core] = Place::Taken(sender);
        }
    }

    /// What has become of the connections; may outlive the dealer.
    pub fn tally(&self) -> Tally {
        Tally { back: self.back.clone() }
    }

    /// Puts a connection to the seat whose turn it is, or to the next that has room.
    fn place(&mut self, mut stream: DetachedStream) -> Result<(), DetachedStream> {
        for core in self.order() {
            let Some(sender) = self.places[core].sender() else { continue };
            let counted = Some(self.loads.count(core));
            let parcel = Parcel { stream: Some(stream), counted, back: self.back.clone() };
            match sender.try_send(parcel) {
                Ok(()) => {
                    self.next = (core + 1) % self.places.len();
                    self.back.dealt.fetch_add(1, Ordering::Relaxed);
                    return Ok(());
                }
                Err(TrySendError::Full(mut parcel)) => stream = parcel.open().0,
                Err(TrySendError::Closed(mut parcel)) => {
                    stream = parcel.open().0;
                    self.places[core] = Place::Gone;
                }
            }
        }
        Err(stream)
    }

    /// All cores, the one that is to have the next connection first.
    fn order(&self) -> Vec<usize> {
        let cores = self.places.len();
        let mut order: Vec<usize> = (0..cores).map(|i| (self.next + i) % cores).collect();
        if self.deal == Deal::LeastConnections {
            // Stable: those with equally many stay in turn.
            order.sort_by_key(|core| self.loads.of(*core).connections);
        }
        order
    }

    /// Waits for room at any seat, for the end of one, or for one that is taken.
    async fn room(&mut self) {
        let senders = self.places.iter_mut().filter_map(Place::sender);
        let mut waits: Vec<_> = senders.map(|sender| Box::pin(sender.ready())).collect();
        let back = &self.back;
        poll_fn(|cx| {
            let any = waits.iter_mut().any(|wait| wait.as_mut().poll(cx).is_ready());
            if any { Poll::Ready(()) } else { back.poll_told(cx) }
        })
        .await;
    }
}

impl Dealer {
    /// Ends it, with what could not be dealt out: nothing comes back any more.
    pub(super) fn into_pending(mut self) -> VecDeque<DetachedStream> {
        // What was on its way to seats that are gone comes back first.
        self.places.clear();
        self.end();
        mem::take(&mut self.pending)
    }

    fn end(&mut self) {
        let mut told = self.back.lock();
        if told.over {
            // What has come back since is of the seats that stop.
            return;
        }
        told.over = true;
        let waker = told.waker.take();
        self.pending.extend(told.returned.drain(..));
        let taken = mem::take(&mut told.taken);
        // With nothing held: who waits at those seats is woken, and sees the end.
        drop((told, waker, taken));
    }
}

impl Drop for Dealer {
    fn drop(&mut self) {
        self.end();
        self.back.closed.fetch_add(self.pending.len() as u64, Ordering::Relaxed);
    }
}

impl fmt::Debug for Dealer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seats = self.places.iter().filter(|place| matches!(place, Place::Taken(_))).count();
        let mut out = f.debug_struct("Dealer");
        out.field("deal", &self.deal).field("seats", &seats).finish_non_exhaustive()
    }
}

/// What a [`Dealer`] has done.
#[derive(Clone)]
pub struct Tally {
    back: Arc<Back>,
}

impl Tally {
    /// Connections put to a seat, twice if they came back.
    pub fn dealt(&self) -> u64 {
        self.back.dealt.load(Ordering::Relaxed)
    }

    /// Of these, how many came back because their core was gone before it took them.
    pub fn returned(&self) -> u64 {
        self.back.came_back.load(Ordering::Relaxed)
    }

    /// Connections that were closed because nobody was left to serve them.
    pub fn closed(&self) -> u64 {
        self.back.closed.load(Ordering::Relaxed)
    }
}

impl fmt::Debug for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tally")
            .field("dealt", &self.dealt())
            .field("returned", &self.returned())
            .field("closed", &self.closed())
            .finish()
    }
}

/// The way from seats to their dealer.
#[derive(Default)]
struct Back {
    told: Mutex<Told>,
    dealt: AtomicU64,
    came_back: AtomicU64,
    closed: AtomicU64,
}

#[derive(Default)]
struct Told {
    /// No more than were queued at seats.
    returned: Vec<DetachedStream>,
    /// Whose seats were taken, with where to put their connections.
    taken: Vec<(usize, cross::Sender<Parcel>)>,
    waker: Option<Waker>,
    /// The dealer is gone.
    over: bool,
    /// Seats that are about to take up what comes back then.
    stopping: usize,
}

impl Back {
    fn lock(&self) -> MutexGuard<'_, Told> {
        // Nothing panics while it is held.
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn give(&self, stream: DetachedStream) {
        let mut told = self.lock();
        if told.over && told.stopping == 0 {
            drop(told);
            self.closed.fetch_add(1, Ordering::Relaxed);
            return drop(stream);
        }
        told.returned.push(stream);
        self.came_back.fetch_add(1, Ordering::Relaxed);
        wake(told);
    }

    fn seat(&self, core: usize, sender: cross::Sender<Parcel>) {
        let mut told = self.lock();
        if told.over {
            drop(told);
            // The seat sees the end.
            return drop(sender);
        }
        told.taken.push((core, sender));
        wake(told);
    }

    fn poll_told(&self, cx: &mut Context<'_>) -> Poll<()> {
        // Cloned before the lock is taken: a foreign waker's code runs with nothing held.
        let new = cx.waker().clone();
        let mut told = self.lock();
        if !(told.returned.is_empty() && told.taken.is_empty()) {
            return Poll::Ready(());
        }
        let old = told.waker.replace(new);
        drop(told);
        drop(old);
        Poll::Pending
    }
}

/// Has the dealer look, with nothing held.
fn wake(mut told: MutexGuard<'_, Told>) {
    let waker = told.waker.take();
    drop(told);
    if let Some(waker) = waker {
        waker.wake();
    }
}

/// Seats that are taken one by one; the dealer knows of those that were.
pub(super) struct Seats {
    queued_max: usize,
    /// Of each core, whether nobody has taken it.
    free: Vec<bool>,
    back: Arc<Back>,
}

impl Seats {
    pub(super) fn is_free(&self, core: usize) -> bool {
        self.free[core]
    }

    /// The seat of this core, which is dealt to from now on; none if it was taken before.
    pub(super) fn take(&mut self, core: usize) -> Option<Seat> {
        if !mem::take(&mut self.free[core]) {
            return None;
        }
        let (sender, receiver) = cross::channel(self.queued_max);
        self.back.seat(core, sender);
        Some(Seat { core, receiver, back: self.back.clone() })
    }
}

/// A connection on its way to a seat; goes back if it is dropped on the way.
struct Parcel {
    stream: Option<DetachedStream>,
    counted: Option<Counted>,
    back: Arc<Back>,
}

impl Parcel {
    fn open(&mut self) -> (DetachedStream, Counted) {
        let both = self.stream.take().zip(self.counted.take());
        both.expect("a parcel is opened once, by whoever has it")
    }
}

impl Drop for Parcel {
    fn drop(&mut self) {
        drop(self.counted.take());
        if let Some(stream) = self.stream.take() {
            self.back.give(stream);
        }
    }
}

/// The side that serves, of one core. See [`dealer`](fn@dealer).
///
/// Dropping it sends what is queued for it back, to be dealt to the others.
pub struct Seat {
    core: usize,
    receiver: cross::Receiver<Parcel>,
    back: Arc<Back>,
}

impl Seat {
    /// The core that it is meant for.
    pub fn core(&self) -> usize {
        self.core
    }

    /// The next connection, on the running loop; none once the dealer is gone and everything was taken.
    ///
    /// # Cancel safety
    /// No connection is lost.
    ///
    /// # Panics
    /// Outside a running loop.
    pub async fn accept(&mut self) -> Option<Dealt> {
        let (stream, counted) = self.receiver.recv().await?.open();
        Some(Dealt { stream: stream.attach(), counted })
    }

    /// Ends it, with what is queued for it; what is dealt to it meanwhile goes back to the dealer, or is in
    /// the second list where that has ended.
    pub(super) fn stop(self) -> (Vec<(DetachedStream, Counted)>, Vec<DetachedStream>) {
        let Self { mut receiver, back, .. } = self;
        let queued = std::iter::from_fn(|| receiver.try_recv().ok());
        let queued = queued.map(|mut parcel| parcel.open()).collect();
        back.lock().stopping += 1;
        drop(receiver);
        let mut told = back.lock();
        told.stopping -= 1;
        let rest = if told.over { mem::take(&mut told.returned) } else { Vec::new() };
        drop(told);
        (queued, rest)
    }
}

impl fmt::Debug for Seat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Seat").field("core", &self.core).finish_non_exhaustive()
    }
}

/// A connection that was dealt to this core; it counts among the core's until it is dropped.
#[derive(Debug)]
pub struct Dealt {
    stream: TcpStream,
    counted: Counted,
}

impl Dealt {
    /// The connection, and its place in the count, for who moves it on.
    pub fn into_parts(self) -> (TcpStream, Counted) {
        (self.stream, self.counted)
    }
}

impl Deref for Dealt {
    type Target = TcpStream;

    fn deref(&self) -> &TcpStream {
        &self.stream
    }
}

impl DerefMut for Dealt {
    fn deref_mut(&mut self) -> &mut TcpStream {
        &mut self.stream
    }
}
