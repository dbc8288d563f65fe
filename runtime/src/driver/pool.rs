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

use super::chunk::{Chunk, Head};
use super::ring::Ring;
use super::ways::Ways;
use crate::metrics::{Kind, Recorder};
use crate::planted::{self, Fault};
use crate::sys::abi::{self, BufEntry, BufReg};
use crate::sys::linux::Map;

mod turns;

pub use self::turns::BufferTurn;
use self::turns::Turn;

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
    // Whatever is not done for each message is called last, with nothing left to do: so the way of most saves
    // no registers.
    #[inline]
    pub(crate) fn received(self: &Rc<Self>, bid: u16, len: u32, member: u32) -> Option<Chunk> {
        let ring = self.ring.as_ref()?;
        let Some(head) = ring.heads.get(usize::from(bid)).filter(|_| len <= self.size) else {
            debug_assert!(false, "a completion names buffer {bid} with {len} bytes");
            return None;
        };
        let available = self.available.get().saturating_sub(1);
        self.available.set(available);
        if len == 0 {
            self.provide(bid);
            return None;
        }
        self.least.set(self.least.get().min(available));
        let left = self.epoch_left.get() - 1;
        self.epoch_left.set(left);
        if left == 0 || available < self.low_water() {
            return Some(self.received_where_few(bid, len, member));
        }
        if !self.enter_holder(&head.tag, member) {
            return Some(self.copied(bid, len));
        }
        // SAFETY: the completion gave the buffer to us, with `len` bytes of it written; nobody else has it
        // until it is provided again, which `give_back` does.
        Some(unsafe { self.chunk(head, bid, len) })
    }

    /// As [`received`](Self::received), at the end of an epoch, and where buffers are few unless something
    /// can be done about it.
    #[cold]
    #[inline(never)]
    fn received_where_few(self: &Rc<Self>, bid: u16, len: u32, member: u32) -> Chunk {
        if self.epoch_left.get() == 0 {
            self.end_epoch();
        }
        let low = self.available.get() < self.low_water() && !self.double();
        match &self.ring {
            Some(ring) if !low => {
                let head = &ring.heads[usize::from(bid)];
                if self.enter_holder(&head.tag, member) {
                    // SAFETY: as in `received`.
                    return unsafe { self.chunk(head, bid, len) };
                }
            }
            _ => {}
        }
        self.copied(bid, len)
    }

    /// The first `len` bytes of buffer `bid`, whose head that is.
    ///
    /// # Safety
    /// They were written, and nobody else has the buffer until `give_back`.
    #[inline(always)]
    unsafe fn chunk(self: &Rc<Self>, head: &Head, bid: u16, len: u32) -> Chunk {
        let (head, first) = (NonNull::from(head), self.address(bid));
        // SAFETY: as the caller promised; the head lies in this pool.
        unsafe { Chunk::of_buffer(head, self.clone(), first, len) }
    }

    /// A buffer for a receive that names it: one of the spare ones, the last that was given back; so few
    /// of them are in use that they stay hot in the caches. None if there are none.
    #[inline]
    pub(crate) fn take_spare(self: &Rc<Self>) -> Option<Chunk> {
        let ring = self.ring.as_ref().filter(|_| self.open.get())?;
        let bid = self.spare.borrow_mut().pop()?;
        let head = &ring.heads[usize::from(bid)];
        head.named.set(true);
        // SAFETY: a spare buffer is nobody's, and its bytes are those of whoever had it before, or zeros.
        Some(unsafe { self.chunk(head, bid, self.size) })
    }

    /// What a receive brought into memory that it named: that memory, or a copy where it is no buffer of
    /// ours or its socket holds enough of them.
    pub(crate) fn received_into(&self, mut chunk: Chunk, len: u32, member: u32) -> Chunk {
        if self.keep_received(&mut chunk, len, member) {
            return chunk;
        }
        if !chunk.is_copy() {
            self.metrics.count(Kind::ChunksCopied);
        }
        Chunk::copy_of(&chunk[..chunk.len().min(len as usize)])
    }

    /// Whether memory that a receive named is kept as what it brought, cut to that: a buffer of ours, whose
    /// socket may hold one more.
    #[inline]
    pub(crate) fn keep_received(&self, chunk: &mut Chunk, len: u32, member: u32) -> bool {
        let kept = chunk.holder().is_some_and(|holder| self.enter_holder(holder, member));
        if kept {
            chunk.cut(len);
        }
        kept
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
        let holder = ring.heads[usize::from(bid)].tag.replace(NOBODY);
        if self.leaves_last(holder) {
            return self.give_back_last(bid, holder);
        }
        self.circulate_again(ring, bid);
    }

    /// A member holds one buffer less; whether it was the last one of a member that is gone.
    #[inline]
    fn leaves_last(&self, holder: u32) -> bool {
        let mut members = self.members.borrow_mut();
        let Some(m) = members.held.get_mut(holder as usize) else { return false };
        m.held -= 1;
        m.gone && m.held == 0
    }

    #[cold]
    #[inline(never)]
    fn give_back_last(&self, bid: u16, holder: u32) {
        self.members.borrow_mut().free.push(holder);
        if let Some(ring) = &self.ring {
            self.circulate_again(ring, bid);
        }
    }

    #[inline(always)]
    fn circulate_again(&self, ring: &Provided, bid: u16) {
        if ring.heads[usize::from(bid)].named.replace(false) {
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

    /// Below so many available buffers there are few.
    #[inline]
    fn low_water(&self) -> u32 {
        // At least one stays in circulation, whatever users hold on to.
        (self.circulating.get() / 4).max(1)
    }

    /// Twice as many circulate from now on; `false` if there are no more.
    #[cold]
    #[inline(never)]
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
    #[cold]
    #[inline(never)]
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
            return self.put_aside(bid);
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

    /// It does not circulate any more.
    #[inline]
    fn put_aside(&self, bid: u16) {
        let mut spare = self.spare.borrow_mut();
        // All buffers were in there at first; only planted faults make more of them. Asked, so that the
        // compiler sees that it need not grow.
        let has_room = spare.len() < spare.capacity();
        debug_assert!(has_room || cfg!(feature = "planted"), "a buffer was given back twice");
        if has_room || cfg!(feature = "planted") {
            spare.push(bid);
        }
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
