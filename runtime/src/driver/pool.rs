//! Receive buffers that the kernel picks from when data is there.
//!
//! Owns the memory of one core's buffer ring (`io_uring_register(2)`, PBUF_RING) and the books about it:
//! which buffers the kernel has, who holds the others, who waits for one. An idle connection holds none.
//!
//! Invariants: a buffer is either the kernel's (in the ring), spare, or held by exactly one [`Chunk`] (an
//! op's own, where it named the buffer), or about to be named by a completion; the memory lives until the
//! last chunk and the ring are gone, or for ever if the kernel never let go. Running out is ordinary: below
//! the low-water mark what arrives is copied out and the buffer goes straight back, a socket that holds more
//! than its quota gets copies, and receives that still find nothing wait in FIFO order.
//!
//! The kernel takes buffers in turn, so all that circulate are touched in turn: few of them stay hot in
//! the caches. So only some circulate at first; when they run low their number doubles, and it is halved
//! again when for a while at least half of them were never needed. The rest are spare.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::io;
use std::mem::ManuallyDrop;
use std::ptr::{self, NonNull};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::task::{Context, Poll, Waker};

use super::chunk::{Chunk, Head};
use super::ring::Ring;
use super::ways::Ways;
use crate::metrics::{Kind, Recorder, wake_contained};
use crate::planted::{self, Fault};
use crate::sys::abi::{self, BufEntry, BufReg, BufStatus};
use crate::sys::linux::Map;

#[derive(Clone, Debug)]
pub(crate) struct PoolConfig {
    /// Buffers, 1 to 32,768.
    pub(crate) count: u32,
    /// Bytes in each.
    pub(crate) size: u32,
    /// Buffers that one socket's chunks may hold before it gets copies.
    pub(crate) quota: u32,
}

/// The one buffer group of a core.
pub(crate) const GROUP: u16 = 0;

/// Added to the distance of two buffers: starts that lie a power of two apart fall into the same few sets
/// of the caches, and short messages touch only the starts.
const STRIDE_SKEW: usize = 192;

pub(crate) struct Pool {
    ring: Option<Provided>,
    size: u32,
    quota: u32,
    /// Whether the ring that knows the buffers is open.
    open: Cell<bool>,
    /// Buffers in the ring, as far as reaped completions tell.
    available: Cell<u32>,
    /// Buffers that are not spare, and how many of them there are to be.
    circulating: Cell<u32>,
    wanted: Cell<u32>,
    spare: RefCell<Vec<u16>>,
    /// The least that was available in this epoch, and receives until its end.
    least: Cell<u32>,
    epoch_left: Cell<u32>,
    metrics: Arc<Recorder>,
    members: RefCell<Members>,
    waiters: RefCell<VecDeque<Rc<Turn>>>,
    ways: Ways,
}

/// The memory that the kernel shares. Unmapped on drop unless leaked.
struct Provided {
    entries: ManuallyDrop<Map>,
    buffers: ManuallyDrop<Map>,
    mask: u16,
    stride: usize,
    tail: Cell<u16>,
    /// By buffer: what is known of the chunk that holds it.
    heads: Box<[Head]>,
    leaked: Cell<bool>,
}

/// How many buffers each socket holds. A place is given back when its socket has gone and holds none.
#[derive(Default)]
struct Members {
    held: Vec<Member>,
    free: Vec<u32>,
}

#[derive(Clone, Copy, Default)]
struct Member {
    held: u16,
    gone: bool,
}

impl Pool {
    /// Maps the buffers and makes them known to the ring. `sees` as for [`Ways::new`].
    pub(crate) fn register(
        ring: &Ring,
        config: &PoolConfig,
        metrics: &Arc<Recorder>,
        sees: bool,
    ) -> io::Result<Self> {
        let entries = config.count.next_power_of_two();
        let stride = (config.size as usize).next_multiple_of(64) + STRIDE_SKEW;
        let provided = Provided {
            entries: ManuallyDrop::new(Map::anonymous(entries as usize * size_of::<BufEntry>())?),
            buffers: ManuallyDrop::new(Map::anonymous(config.count as usize * stride)?),
            mask: (entries - 1) as u16,
            stride,
            tail: Cell::new(0),
            heads: (0..config.count).map(|bid| Head::of_buffer(bid as u16)).collect(),
            leaked: Cell::new(false),
        };
        let mut reg = BufReg {
            ring_addr: provided.entries.addr().addr().get() as u64,
            ring_entries: entries,
            bgid: GROUP,
            ..BufReg::default()
        };
        let op = abi::register::PBUF_RING;
        // SAFETY: one live buf_reg; the pages that it names stay mapped until unregistered or leaked.
        unsafe { ring.register(op, ptr::from_mut(&mut reg).cast(), 1) }?;
        let pool = Self::new(Some(provided), config, metrics.clone(), sees);
        pool.spare.replace((0..config.count).rev().map(|bid| bid as u16).collect());
        pool.circulate(config.count.min(CIRCULATING_MIN));
        Ok(pool)
    }

    /// A pool without a ring: receives bring memory of their own.
    pub(crate) fn without_ring(config: &PoolConfig, metrics: &Arc<Recorder>) -> Self {
        Self::new(None, config, metrics.clone(), false)
    }

    fn new(
        ring: Option<Provided>,
        config: &PoolConfig,
        metrics: Arc<Recorder>,
        sees: bool,
    ) -> Self {
        Self {
            ring,
            size: config.size,
            quota: config.quota,
            open: Cell::new(true),
            available: Cell::new(0),
            circulating: Cell::new(0),
            wanted: Cell::new(0),
            spare: RefCell::default(),
            least: Cell::new(u32::MAX),
            epoch_left: Cell::new(EPOCH),
            metrics,
            members: RefCell::default(),
            waiters: RefCell::default(),
            ways: Ways::new(sees),
        }
    }

    /// Which way of receiving pays.
    #[inline]
    pub(crate) fn ways(&self) -> &Ways {
        &self.ways
    }

    pub(crate) fn has_ring(&self) -> bool {
        self.ring.is_some()
    }

    /// Buffers that are neither the kernel's nor spare: those that chunks hold, if all is well.
    #[cfg(any(test, feature = "sim"))]
    pub(crate) fn out(&self) -> i64 {
        let all = self.ring.as_ref().map_or(0, |ring| ring.heads.len() as i64);
        all - i64::from(self.available.get()) - self.spare.borrow().len() as i64
    }

    /// Buffers in all.
    pub(crate) fn count(&self) -> u32 {
        self.ring.as_ref().map_or(0, |ring| ring.heads.len() as u32)
    }

    /// Buffers that the kernel has, or that are spare.
    pub(crate) fn free(&self) -> u32 {
        self.available.get() + self.spare.borrow().len() as u32
    }

    /// Bytes that are mapped for them, and those of their heads.
    pub(crate) fn bytes(&self) -> usize {
        self.ring.as_ref().map_or(0, |ring| ring.heads.len() * (ring.stride + size_of::<Head>()))
    }

    /// Bytes in one buffer.
    pub(crate) fn buffer_size(&self) -> u32 {
        self.size
    }

    /// Enters a socket into the books.
    pub(crate) fn join(self: &Rc<Self>) -> Membership {
        let mut members = self.members.borrow_mut();
        let id = match members.free.pop() {
            Some(id) => id,
            None => {
                members.held.push(Member::default());
                members.held.len() as u32 - 1
            }
        };
        members.held[id as usize] = Member::default();
        Membership { pool: self.clone(), id }
    }

    /// What a completion brought in buffer `bid`: in the buffer itself, or copied if they run low. None if it
    /// brought nothing; the buffer is in the ring again.
    #[inline]
    pub(crate) fn received(self: Rc<Self>, bid: u16, len: u32, member: u32) -> Option<Chunk> {
        let ring = self.ring.as_ref()?;
        let Some(head) = ring.heads.get(usize::from(bid)).filter(|_| len <= self.size) else {
            debug_assert!(false, "a completion names buffer {bid} with {len} bytes");
            return None;
        };
        self.available.set(self.available.get().saturating_sub(1));
        if len == 0 {
            self.provide(bid);
            return None;
        }
        if self.runs_low() || !self.enter_holder(&head.tag, member) {
            return Some(self.copied(bid, len));
        }
        let (head, first) = (NonNull::from(head), self.address(bid));
        // SAFETY: the completion gave the buffer to us, with `len` bytes of it written; nobody else has it
        // until it is provided again, which `give_back` does.
        Some(unsafe { Chunk::of_buffer(head, self, first, len) })
    }

    /// A buffer for a receive that names it: one of the spare ones, the last that was given back; so few
    /// of them are in use that they stay hot in the caches. None if there are none.
    #[inline]
    pub(crate) fn take_spare(self: &Rc<Self>) -> Option<Chunk> {
        let ring = self.ring.as_ref().filter(|_| self.open.get())?;
        let bid = self.spare.borrow_mut().pop()?;
        let head = &ring.heads[usize::from(bid)];
        head.named.set(true);
        let (head, first) = (NonNull::from(head), self.address(bid));
        // SAFETY: a spare buffer is nobody's, and its bytes are those of whoever had it before, or zeros.
        Some(unsafe { Chunk::of_buffer(head, self.clone(), first, self.size) })
    }

    /// What a receive brought into memory that it named: that memory, or a copy where it is no buffer of
    /// ours or its socket holds enough of them.
    #[inline]
    pub(crate) fn received_into(&self, mut chunk: Chunk, len: u32, member: u32) -> Chunk {
        if chunk.holder().is_some_and(|holder| self.enter_holder(holder, member)) {
            chunk.cut(len);
            return chunk;
        }
        self.copied_from(&chunk, len)
    }

    #[cold]
    fn copied_from(&self, chunk: &Chunk, len: u32) -> Chunk {
        if !chunk.is_copy() {
            self.metrics.count(Kind::ChunksCopied);
        }
        Chunk::copy_of(&chunk[..chunk.len().min(len as usize)])
    }

    /// Notes who holds a buffer; `false` if that one holds as many as it may.
    #[inline]
    fn enter_holder(&self, holder: &Cell<u32>, member: u32) -> bool {
        match self.members.borrow_mut().held.get_mut(member as usize) {
            Some(m) if m.gone => holder.set(NOBODY),
            Some(m) if u32::from(m.held) >= self.quota => return false,
            Some(m) => {
                m.held += 1;
                holder.set(member);
            }
            None => holder.set(NOBODY),
        }
        true
    }

    #[cold]
    fn copied(&self, bid: u16, len: u32) -> Chunk {
        self.metrics.count(Kind::ChunksCopied);
        // SAFETY: the completion gave the buffer to us, with `len` bytes of it written.
        let bytes = unsafe { std::slice::from_raw_parts(self.address(bid).as_ptr(), len as usize) };
        let copy = Chunk::copy_of(bytes);
        self.provide(bid);
        if planted::is(Fault::BufferTwice, 1) {
            self.provide(bid); // Two receives get the same buffer.
        }
        copy
    }

    /// A chunk is done with its buffer.
    #[inline]
    pub(super) fn give_back(&self, bid: u16) {
        let Some(ring) = &self.ring else { return };
        let head = &ring.heads[usize::from(bid)];
        let holder = head.tag.replace(NOBODY);
        let mut members = self.members.borrow_mut();
        if let Some(m) = members.held.get_mut(holder as usize) {
            m.held -= 1;
            if m.gone && m.held == 0 {
                members.free.push(holder);
            }
        }
        drop(members);
        if head.named.replace(false) {
            // As if it came out of the ring; if too many circulate it is put aside.
            self.circulating.set(self.circulating.get() + 1);
            if planted::is(Fault::BufferTwice, 3) && self.open.get() {
                self.provide(bid);
            }
        }
        if self.open.get() {
            self.provide(bid);
            if planted::is(Fault::BufferTwice, 2) {
                self.provide(bid);
            }
        }
    }

    /// Where buffer `bid` lies.
    #[inline]
    pub(super) fn address(&self, bid: u16) -> NonNull<u8> {
        let ring = self.ring.as_ref().expect("only a pool with a ring hands out buffer ids");
        // SAFETY: `bid` is below the count (checked where it came in), so this lies in the mapping.
        unsafe { ring.buffers.addr().add(usize::from(bid) * ring.stride) }
    }

    /// Whether buffers are few, after what can be done about it.
    fn runs_low(&self) -> bool {
        let available = self.available.get();
        self.least.set(self.least.get().min(available));
        let left = self.epoch_left.get() - 1;
        self.epoch_left.set(left);
        if left == 0 {
            self.end_epoch();
        }
        // At least one stays in circulation, whatever users hold on to.
        let low_water = (self.circulating.get() / 4).max(1);
        available < low_water && !self.double()
    }

    /// Twice as many circulate from now on; `false` if there are no more.
    fn double(&self) -> bool {
        if self.spare.borrow().is_empty() || !self.open.get() {
            return false;
        }
        self.circulate(self.circulating.get().max(1) * 2);
        true
    }

    fn circulate(&self, wanted: u32) {
        self.wanted.set(wanted);
        while self.circulating.get() < wanted {
            let Some(bid) = self.spare.borrow_mut().pop() else { return };
            self.circulating.set(self.circulating.get() + 1);
            self.provide(bid);
        }
    }

    /// Looks back at an epoch: more than half of the buffers were never needed, so half of them will do.
    fn end_epoch(&self) {
        let circulating = self.circulating.get();
        if self.least.get() > circulating / 2 && circulating > CIRCULATING_MIN {
            self.wanted.set((circulating / 2).max(CIRCULATING_MIN));
        }
        self.least.set(u32::MAX);
        self.epoch_left.set(EPOCH);
    }

    /// Puts a buffer into the ring, or aside if more circulate than are wanted.
    #[inline]
    fn provide(&self, bid: u16) {
        let Some(ring) = &self.ring else { return };
        if self.circulating.get() > self.wanted.get() {
            self.circulating.set(self.circulating.get() - 1);
            self.spare.borrow_mut().push(bid);
            return;
        }
        let tail = ring.tail.get();
        let entries = ring.entries.addr().cast::<BufEntry>();
        let addr = self.address(bid).addr().get() as u64;
        // SAFETY: the entry lies in the mapping; the kernel reads entries below the published tail only,
        // and there are no more buffers than entries, so this one is not among those. Field by field:
        // the tail itself overlays `resv` of entry 0.
        unsafe {
            let entry = entries.add(usize::from(tail & ring.mask)).as_ptr();
            (&raw mut (*entry).addr).write(addr);
            (&raw mut (*entry).len).write(self.size);
            (&raw mut (*entry).bid).write(bid);
            let shared = &raw mut (*entries.as_ptr()).resv;
            AtomicU16::from_ptr(shared).store(tail.wrapping_add(1), Ordering::Release);
        }
        ring.tail.set(tail.wrapping_add(1));
        self.available.set(self.available.get() + 1);
    }

    /// Takes the buffers out of the kernel's hands; the ring is quiet.
    pub(crate) fn unregister(&self, ring: &Ring) {
        self.open.set(false);
        if self.ring.is_some() {
            let mut reg = BufReg { bgid: GROUP, ..BufReg::default() };
            let op = abi::register::UNREGISTER_PBUF_RING;
            // SAFETY: one live buf_reg naming our own group. Closing the ring would do the same.
            let _ = unsafe { ring.register(op, ptr::from_mut(&mut reg).cast(), 1) };
        }
    }

    /// Gives the memory up for good: the kernel may still write there.
    pub(crate) fn leak(&self) {
        self.open.set(false);
        if let Some(ring) = &self.ring {
            ring.leaked.set(true);
        }
    }

    /// Buffers that a receive would find. A receive that was woken for nothing again and again waits in one
    /// of the kernel's worker threads, and has taken its buffer beforehand: no completion tells of that, and
    /// turns given for such buffers would go round and round. (Before 6.8 the kernel does not say; then it
    /// is as many as completions tell.)
    pub(crate) fn to_be_found(&self, ring: &Ring) -> u32 {
        match self.in_ring(ring) {
            Some(0) if self.double() => self.in_ring(ring).unwrap_or(0),
            Some(found) => found,
            None => self.available.get(),
        }
    }

    fn in_ring(&self, ring: &Ring) -> Option<u32> {
        let tail = self.ring.as_ref()?.tail.get();
        let mut status = BufStatus { buf_group: GROUP.into(), ..BufStatus::default() };
        let op = abi::register::PBUF_STATUS;
        // SAFETY: one live buf_status that names our own group, which the kernel fills in.
        unsafe { ring.register(op, ptr::from_mut(&mut status).cast(), 1) }.ok()?;
        Some(u32::from(tail.wrapping_sub(status.head as u16)))
    }

    /// Lets the next receives try, as many as may find one of `most` buffers. Called once a tick, so that a
    /// turn given to a socket without data does not hold up those behind it.
    pub(crate) fn give_turns(&self, most: u32) {
        for _ in 0..self.available.get().min(most) {
            let Some(turn) = self.waiters.borrow_mut().pop_front() else { return };
            turn.give(&self.metrics);
        }
    }

    /// Lets every waiting receive go on: the loop ends, and it will be told so.
    pub(crate) fn give_all_turns(&self) {
        self.open.set(false);
        loop {
            let Some(turn) = self.waiters.borrow_mut().pop_front() else { return };
            turn.give(&self.metrics);
        }
    }

    /// Whether receives wait for a buffer.
    pub(crate) fn has_waiters(&self) -> bool {
        !self.waiters.borrow().is_empty()
    }
}

/// Buffers that circulate at first and at least.
const CIRCULATING_MIN: u32 = 128;

/// Receives after which it is asked whether fewer would do.
const EPOCH: u32 = 16_384;

/// Who holds a buffer that is no member's.
pub(super) const NOBODY: u32 = u32::MAX;

impl Drop for Provided {
    fn drop(&mut self) {
        if !self.leaked.get() {
            // SAFETY: both are dropped once, here, and not used after.
            unsafe {
                ManuallyDrop::drop(&mut self.entries);
                ManuallyDrop::drop(&mut self.buffers);
            }
        }
    }
}

/// One socket's place in the pool's books.
pub struct Membership {
    pool: Rc<Pool>,
    id: u32,
}

impl Membership {
    pub(crate) fn id(&self) -> u32 {
        self.id
    }

    pub(crate) fn pool(&self) -> &Rc<Pool> {
        &self.pool
    }
}

impl Drop for Membership {
    fn drop(&mut self) {
        let mut members = self.pool.members.borrow_mut();
        let member = &mut members.held[self.id as usize];
        member.gone = true;
        if member.held == 0 {
            members.free.push(self.id);
        }
    }
}

impl std::fmt::Debug for Membership {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Membership").field("id", &self.id).finish_non_exhaustive()
    }
}

struct Turn {
    given: Cell<bool>,
    waker: RefCell<Option<Waker>>,
}

impl Turn {
    fn give(&self, metrics: &Recorder) {
        self.given.set(true);
        let waker = self.waker.borrow_mut().take();
        if let Some(waker) = waker {
            wake_contained(waker, metrics);
        }
    }
}

/// A place in the line for a buffer. Dropping it leaves the line.
pub struct BufferTurn {
    pool: Rc<Pool>,
    turn: Rc<Turn>,
}

impl BufferTurn {
    /// Joins the end of the line.
    pub(crate) fn wait(pool: &Rc<Pool>) -> Self {
        pool.double();
        let given = Cell::new(!pool.open.get());
        let turn = Rc::new(Turn { given, waker: RefCell::new(None) });
        if turn.given.get() {
            return Self { pool: pool.clone(), turn };
        }
        pool.waiters.borrow_mut().push_back(turn.clone());
        Self { pool: pool.clone(), turn }
    }

    /// Ready when it is this one's turn to try again.
    pub fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.turn.given.get() {
            return Poll::Ready(());
        }
        let waker = cx.waker().clone();
        // Cloning a foreign waker runs its code, which may have driven the loop.
        if self.turn.given.get() {
            return Poll::Ready(());
        }
        let old = self.turn.waker.borrow_mut().replace(waker);
        drop(old);
        Poll::Pending
    }
}

impl Drop for BufferTurn {
    fn drop(&mut self) {
        if !self.turn.given.get() {
            self.pool.waiters.borrow_mut().retain(|t| !Rc::ptr_eq(t, &self.turn));
        }
    }
}
