//! A ring's table of files.
//!
//! Owns putting files in and out, and finding one by its place. What is in a table stays open, whoever
//! closes its descriptors: who forgets to take a socket out is found by a peer that waits for its end.

use super::check::Mistake;
use super::files::{FileId, FileKind};
use super::memory::{Fault, read};
use super::state::State;
use crate::sys::abi::{RSRC_SPARSE, RsrcRegister, RsrcUpdate};

/// Places of a table, at most, `IORING_MAX_FIXED_FILES`.
const PLACES_MAX: u32 = 1 << 20;

/// Whether an update puts nothing in a place: that is not refused.
pub(super) fn takes_out(addr: u64) -> bool {
    // SAFETY: any bytes are an update.
    let update = unsafe { read::<RsrcUpdate>(addr) };
    // SAFETY: any bytes are a number.
    update.and_then(|update| unsafe { read::<i32>(update.data) }).is_ok_and(|fd| fd == -1)
}

impl State {
    /// `IORING_REGISTER_FILES2`, of a table of empty places.
    pub(super) fn register_files(
        &mut self,
        addr: u64,
        bytes: u32,
        ring: usize,
    ) -> Result<u32, i32> {
        if bytes as usize != size_of::<RsrcRegister>() {
            return Err(libc::EINVAL);
        }
        // SAFETY: any bytes are a registration.
        let table = unsafe { read::<RsrcRegister>(addr) }.map_err(|Fault| libc::EFAULT)?;
        if table.nr == 0 || table.flags != RSRC_SPARSE || table.data != 0 || table.tags != 0 {
            return Err(libc::EINVAL);
        }
        if table.nr > PLACES_MAX {
            return Err(libc::EMFILE);
        }
        let ring = self.rings.get_mut(ring).ok_or(libc::EBADF)?;
        if !ring.files.is_empty() {
            return Err(libc::EBUSY);
        }
        ring.files = vec![None; table.nr as usize];
        Ok(0)
    }

    /// `IORING_REGISTER_FILES_UPDATE` of one place: a descriptor's file, or with -1 none.
    pub(super) fn update_files(&mut self, addr: u64, count: u32, ring: usize) -> Result<u32, i32> {
        // SAFETY: any bytes are an update.
        let update = unsafe { read::<RsrcUpdate>(addr) }.map_err(|Fault| libc::EFAULT)?;
        // SAFETY: any bytes are a number.
        let fd = unsafe { read::<i32>(update.data) }.map_err(|Fault| libc::EFAULT)?;
        if count != 1 || update.resv != 0 || fd < -1 {
            return Err(libc::EINVAL);
        }
        let file = match fd {
            -1 => None,
            fd => Some(self.look_up(fd).ok_or(libc::EBADF)?.0),
        };
        let files = &mut self.rings.get_mut(ring).ok_or(libc::EBADF)?.files;
        let place = files.get_mut(update.offset as usize).ok_or(libc::EINVAL)?;
        let before = std::mem::replace(place, file);
        if let Some(file) = file {
            self.hold(file);
        }
        if let Some(before) = before {
            self.let_go(before);
            self.settle();
        }
        Ok(1)
    }

    /// `IORING_UNREGISTER_FILES`, and what the end of a ring does.
    pub(super) fn empty_files(&mut self, ring: usize) -> Result<u32, i32> {
        let files = std::mem::take(&mut self.rings.get_mut(ring).ok_or(libc::EBADF)?.files);
        if files.is_empty() {
            return Err(libc::ENXIO);
        }
        for file in files.into_iter().flatten() {
            self.let_go(file);
        }
        self.settle();
        Ok(0)
    }

    /// What is in a place. A loop's places are the numbers of its descriptors: it is a mistake if that one
    /// names something else.
    pub(super) fn fixed_file(&mut self, ring: usize, place: i32) -> Option<(FileId, FileKind)> {
        let at = usize::try_from(place).ok()?;
        let id = (*self.rings.get(ring)?.files.get(at)?)?;
        let found = Some((id, self.kind_of(id)?));
        if self.look_up(place) != found {
            self.blame(Mistake::BadDescriptor, || format!("place {place} has another's file"));
        }
        found
    }
}
