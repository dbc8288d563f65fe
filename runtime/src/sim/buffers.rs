//! Provided buffers, from the kernel's side.
//!
//! Owns [`Group`]: the ring of entries that a user fills, how far it was read, and which ids are in it.
//! What a buffer holds is overwritten when it is provided, and looked at when it is taken: who still reads
//! it then reads nonsense, and who still writes there is found out.

use std::collections::BTreeSet;

use super::check::Mistake;
use super::memory::{Fault, Span, copy_in, copy_out, read};
use super::state::State;
use crate::sys::abi::{BufEntry, BufReg};

/// Bytes at the start of a buffer that are overwritten and looked at.
const POISONED: usize = 64;
const POISON: [u8; POISONED] = [0xD7; POISONED];

/// Where the tail lies: over `resv` of the first entry.
const TAIL: u64 = 14;

pub(super) struct Group {
    addr: u64,
    entries: u32,
    /// Entries that were taken, and that were read, both counted on for ever.
    head: u16,
    seen: u16,
    inside: BTreeSet<u16>,
}

/// A buffer that a receive may use.
#[derive(Clone, Copy, Debug)]
pub(super) struct Chosen {
    pub(super) bid: u16,
    pub(super) span: Span,
}

impl Group {
    pub(super) fn new(reg: &BufReg) -> Self {
        Self {
            addr: reg.ring_addr,
            entries: reg.ring_entries,
            head: 0,
            seen: 0,
            inside: BTreeSet::new(),
        }
    }

    /// Entries that were taken.
    pub(super) fn taken(&self) -> u16 {
        self.head
    }
}

impl State {
    /// Reads what was provided since the last look.
    pub(super) fn look_at_buffers(&mut self, ring: usize) {
        let Some(groups) =
            self.rings.get(ring).map(|r| r.groups.keys().copied().collect::<Vec<_>>())
        else {
            return;
        };
        for id in groups {
            if self.look_at_group(ring, id).is_err() {
                self.blame(Mistake::MemoryGone, || format!("the ring of buffer group {id}"));
            }
        }
    }

    fn look_at_group(&mut self, ring: usize, id: u16) -> Result<(), Fault> {
        let Some(group) = self.rings.get_mut(ring).and_then(|r| r.groups.get_mut(&id)) else {
            return Ok(());
        };
        // SAFETY: any bytes are a number.
        let tail = unsafe { read::<u16>(group.addr + TAIL) }?;
        let mut mistakes = Vec::new();
        if u32::from(tail.wrapping_sub(group.head)) > group.entries {
            mistakes.push((Mistake::ProvidedTooMany, format!("tail {tail}, head {}", group.head)));
        }
        let mut left = group.entries;
        while group.seen != tail && left > 0 {
            left -= 1;
            let entry = group.entry(group.seen)?;
            group.seen = group.seen.wrapping_add(1);
            if !group.inside.insert(entry.bid) {
                mistakes.push((Mistake::ProvidedTwice, format!("buffer {}", entry.bid)));
            }
            let poisoned = POISONED.min(entry.len as usize);
            if copy_out(entry.addr, &POISON[..poisoned]).is_err() {
                mistakes.push((Mistake::MemoryGone, format!("buffer {}", entry.bid)));
            }
        }
        for (mistake, detail) in mistakes {
            self.blame(mistake, || detail);
        }
        Ok(())
    }

    /// The buffer that the next receive may use; an errno if there is none.
    pub(super) fn choose_buffer(&mut self, ring: usize, id: u16) -> Result<Chosen, i32> {
        self.look_at_group(ring, id).map_err(|Fault| libc::EFAULT)?;
        let group = self.rings.get(ring).and_then(|r| r.groups.get(&id)).ok_or(libc::ENOBUFS)?;
        if group.head == group.seen {
            return Err(libc::ENOBUFS);
        }
        let entry = group.entry(group.head).map_err(|Fault| libc::EFAULT)?;
        Ok(Chosen { bid: entry.bid, span: Span { addr: entry.addr, len: entry.len as usize } })
    }

    /// The buffer that was chosen is used.
    pub(super) fn commit_buffer(
        &mut self,
        ring: usize,
        id: u16,
        chosen: Chosen,
    ) -> Result<(), i32> {
        let looked = Span { len: chosen.span.len.min(POISONED), ..chosen.span };
        let found = copy_in(looked).map_err(|Fault| libc::EFAULT)?;
        if found[..] != POISON[..looked.len] {
            self.blame(Mistake::ProvidedTouched, || format!("buffer {}", chosen.bid));
        }
        if let Some(group) = self.rings.get_mut(ring).and_then(|r| r.groups.get_mut(&id)) {
            group.inside.remove(&chosen.bid);
            group.head = group.head.wrapping_add(1);
        }
        Ok(())
    }
}

impl Group {
    fn entry(&self, position: u16) -> Result<BufEntry, Fault> {
        let at = u32::from(position) & (self.entries - 1);
        let addr = self.addr + u64::from(at) * size_of::<BufEntry>() as u64;
        // SAFETY: any bytes are an entry.
        unsafe { read::<BufEntry>(addr) }
    }
}
