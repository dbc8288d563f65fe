//! `io_uring_register(2)`.
//!
//! Owns the few of its calls that a loop makes: the probe, registered rings, an eventfd to be told by,
//! provided buffers, and files (`fixed`).

use std::ffi::c_void;
use std::os::fd::{BorrowedFd, RawFd};

use super::buffers::Group;
use super::errnos::Call;
use super::fixed::takes_out;
use super::kernel::SimKernel;
use super::memory::{Fault, read, write};
use crate::sys::abi::{
    BufReg, BufStatus, OP_SUPPORTED, Probe, ProbeOp, RsrcUpdate, opcode, register,
};

/// Ops that the simulated kernel does.
const OPS: [u8; 11] = [
    opcode::NOP,
    opcode::POLL_ADD,
    opcode::SENDMSG,
    opcode::ACCEPT,
    opcode::ASYNC_CANCEL,
    opcode::CONNECT,
    opcode::READ,
    opcode::WRITE,
    opcode::SEND,
    opcode::RECV,
    opcode::SHUTDOWN,
];

/// Entries of one buffer ring, at most.
const BUFFERS_MAX: u32 = 32_768;

impl SimKernel {
    /// # Safety
    /// As [`Kernel::register`](crate::sys::Kernel::register).
    pub(super) unsafe fn register_call(
        &self,
        fd: RawFd,
        op: u32,
        arg: *mut c_void,
        count: u32,
    ) -> Result<u32, i32> {
        let addr = arg.addr() as u64;
        let ring = self.ring_of(fd, false)?;
        let undoes = matches!(
            op,
            register::UNREGISTER_RING_FDS
                | register::UNREGISTER_PBUF_RING
                | register::UNREGISTER_FILES
        ) || op == register::FILES_UPDATE && takes_out(addr);
        if !undoes && let Some(errno) = self.world.with(|s| s.draw_error(Call::Register)) {
            return Err(errno);
        }
        match op {
            register::PROBE => self.probe(addr, count),
            register::RING_FDS if self.shape.ring_fds => self.register_ring(addr, ring),
            register::UNREGISTER_RING_FDS if self.shape.ring_fds => self.unregister_ring(addr),
            register::EVENTFD => self.register_eventfd(addr, ring),
            register::FILES2 => self.world.with(|state| state.register_files(addr, count, ring)),
            register::FILES_UPDATE => {
                self.world.with(|state| state.update_files(addr, count, ring))
            }
            register::UNREGISTER_FILES => self.world.with(|state| state.empty_files(ring)),
            register::PBUF_RING if self.shape.buffer_rings => self.register_buffers(addr, ring),
            register::UNREGISTER_PBUF_RING if self.shape.buffer_rings => {
                self.unregister_buffers(addr, ring)
            }
            register::PBUF_STATUS if self.shape.buffer_rings && self.shape.buf_status => {
                self.buffers_taken(addr, ring)
            }
            _ => Err(libc::EINVAL),
        }
    }

    fn probe(&self, addr: u64, count: u32) -> Result<u32, i32> {
        let mut probe =
            Probe { last_op: *OPS.iter().max().expect("not empty"), ..Probe::default() };
        for op in OPS {
            probe.ops[usize::from(op)] = ProbeOp { op, flags: OP_SUPPORTED, ..ProbeOp::default() };
        }
        if (count as usize) < probe.ops.len() {
            return Err(libc::EINVAL);
        }
        probe.ops_len = probe.last_op + 1;
        write(addr, &probe).map_err(|Fault| libc::EFAULT)?;
        Ok(0)
    }

    fn register_ring(&self, addr: u64, ring: usize) -> Result<u32, i32> {
        // SAFETY: any bytes are an update.
        let mut update = unsafe { read::<RsrcUpdate>(addr) }.map_err(|Fault| libc::EFAULT)?;
        let mut registered = self.registered.borrow_mut();
        let free = registered.iter().position(Option::is_none).ok_or(libc::EBUSY)?;
        update.offset = free as u32;
        write(addr, &update).map_err(|Fault| libc::EFAULT)?;
        registered[free] = Some(ring);
        Ok(1)
    }

    fn unregister_ring(&self, addr: u64) -> Result<u32, i32> {
        // SAFETY: any bytes are an update.
        let update = unsafe { read::<RsrcUpdate>(addr) }.map_err(|Fault| libc::EFAULT)?;
        let mut registered = self.registered.borrow_mut();
        *registered.get_mut(update.offset as usize).ok_or(libc::EINVAL)? = None;
        Ok(1)
    }

    fn register_eventfd(&self, addr: u64, ring: usize) -> Result<u32, i32> {
        // SAFETY: any bytes are a number.
        let fd = unsafe { read::<i32>(addr) }.map_err(|Fault| libc::EFAULT)?;
        if fd < 0 {
            return Err(libc::EBADF);
        }
        self.world.with(|state| {
            state.look_up(fd).ok_or(libc::EBADF)?;
            // SAFETY: it was open a moment ago, and this thread has not closed it since.
            let twin = unsafe { BorrowedFd::borrow_raw(fd) }.try_clone_to_owned();
            let twin = twin.map_err(|e| e.raw_os_error().unwrap_or(libc::EBADF))?;
            let ring = state.rings.get_mut(ring).ok_or(libc::EBADF)?;
            if ring.notify.is_some() {
                return Err(libc::EBUSY);
            }
            ring.notify = Some(twin);
            Ok(0)
        })
    }

    fn register_buffers(&self, addr: u64, ring: usize) -> Result<u32, i32> {
        // SAFETY: any bytes are a registration.
        let reg = unsafe { read::<BufReg>(addr) }.map_err(|Fault| libc::EFAULT)?;
        let entries = reg.ring_entries;
        let sized = entries.is_power_of_two() && entries <= BUFFERS_MAX;
        if !sized || reg.flags != 0 || !reg.ring_addr.is_multiple_of(4096) || reg.ring_addr == 0 {
            return Err(libc::EINVAL);
        }
        self.world.with(|state| {
            let ring = state.rings.get_mut(ring).ok_or(libc::EBADF)?;
            if ring.groups.contains_key(&reg.bgid) {
                return Err(libc::EEXIST);
            }
            ring.groups.insert(reg.bgid, Group::new(&reg));
            Ok(0)
        })
    }

    fn unregister_buffers(&self, addr: u64, ring: usize) -> Result<u32, i32> {
        // SAFETY: any bytes are a registration.
        let reg = unsafe { read::<BufReg>(addr) }.map_err(|Fault| libc::EFAULT)?;
        self.world.with(|state| {
            let ring = state.rings.get_mut(ring).ok_or(libc::EBADF)?;
            ring.groups.remove(&reg.bgid).map(|_| 0).ok_or(libc::ENOENT)
        })
    }

    fn buffers_taken(&self, addr: u64, ring: usize) -> Result<u32, i32> {
        // SAFETY: any bytes are a question.
        let mut status = unsafe { read::<BufStatus>(addr) }.map_err(|Fault| libc::EFAULT)?;
        if status.resv != [0; 8] {
            return Err(libc::EINVAL);
        }
        status.head = self.world.with(|state| {
            let group = u16::try_from(status.buf_group).map_err(|_| libc::ENOENT)?;
            let ring = state.rings.get(ring).ok_or(libc::EBADF)?;
            Ok::<_, i32>(ring.groups.get(&group).ok_or(libc::ENOENT)?.taken().into())
        })?;
        write(addr, &status).map_err(|Fault| libc::EFAULT)?;
        Ok(0)
    }
}
