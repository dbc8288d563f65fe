//! The numbers and structures of `io_uring`, as `include/uapi/linux/io_uring.h` lays them out.
//!
//! Owns nothing but constants and `#[repr(C)]` layouts. Only what the loop uses is here; the test at the
//! end of `driver/sqe.rs` holds our encoding against that of the `io-uring` crate.

pub(crate) mod setup {
    //! Flags of `io_uring_setup(2)`.
    pub(crate) const SQPOLL: u32 = 1 << 1;
    pub(crate) const SQ_AFF: u32 = 1 << 2;
    pub(crate) const CQSIZE: u32 = 1 << 3;
    pub(crate) const CLAMP: u32 = 1 << 4;
    pub(crate) const SUBMIT_ALL: u32 = 1 << 7;
    pub(crate) const COOP_TASKRUN: u32 = 1 << 8;
    pub(crate) const TASKRUN_FLAG: u32 = 1 << 9;
    pub(crate) const SINGLE_ISSUER: u32 = 1 << 12;
    pub(crate) const DEFER_TASKRUN: u32 = 1 << 13;
    pub(crate) const NO_SQARRAY: u32 = 1 << 16;
}

pub(crate) mod feat {
    //! Features that `io_uring_setup(2)` answers with.
    pub(crate) const SINGLE_MMAP: u32 = 1 << 0;
    pub(crate) const NODROP: u32 = 1 << 1;
    pub(crate) const EXT_ARG: u32 = 1 << 8;
    /// Came with 6.12, as did `IORING_ENTER_ABS_TIMER`, which has no bit of its own.
    pub(crate) const MIN_TIMEOUT: u32 = 1 << 15;
    pub(crate) const NO_IOWAIT: u32 = 1 << 17;
}

pub(crate) mod enter {
    //! Flags of `io_uring_enter(2)`.
    pub(crate) const GETEVENTS: u32 = 1 << 0;
    pub(crate) const SQ_WAKEUP: u32 = 1 << 1;
    pub(crate) const SQ_WAIT: u32 = 1 << 2;
    pub(crate) const EXT_ARG: u32 = 1 << 3;
    pub(crate) const REGISTERED_RING: u32 = 1 << 4;
    pub(crate) const ABS_TIMER: u32 = 1 << 5;
    pub(crate) const NO_IOWAIT: u32 = 1 << 7;
}

pub(crate) mod sq_flags {
    //! Bits that the kernel sets in the submission ring's flags word.
    pub(crate) const NEED_WAKEUP: u32 = 1 << 0;
    pub(crate) const CQ_OVERFLOW: u32 = 1 << 1;
    pub(crate) const TASKRUN: u32 = 1 << 2;
}

pub(crate) mod register {
    //! Opcodes of `io_uring_register(2)`.
    pub(crate) const UNREGISTER_FILES: u32 = 3;
    pub(crate) const EVENTFD: u32 = 4;
    pub(crate) const FILES_UPDATE: u32 = 6;
    pub(crate) const PROBE: u32 = 8;
    pub(crate) const FILES2: u32 = 13;
    pub(crate) const IOWQ_AFF: u32 = 17;
    pub(crate) const UNREGISTER_IOWQ_AFF: u32 = 18;
    pub(crate) const IOWQ_MAX_WORKERS: u32 = 19;
    pub(crate) const RING_FDS: u32 = 20;
    pub(crate) const UNREGISTER_RING_FDS: u32 = 21;
    pub(crate) const PBUF_RING: u32 = 22;
    pub(crate) const UNREGISTER_PBUF_RING: u32 = 23;
    /// 6.8.
    pub(crate) const PBUF_STATUS: u32 = 26;
    pub(crate) const NAPI: u32 = 27;
    #[cfg(test)]
    pub(crate) const UNREGISTER_NAPI: u32 = 28;
    /// Takes no ring: any thread may.
    pub(crate) const SEND_MSG_RING: u32 = 31;
}

pub(crate) mod opcode {
    //! Operations, `enum io_uring_op`.
    pub(crate) const NOP: u8 = 0;
    pub(crate) const POLL_ADD: u8 = 6;
    pub(crate) const SENDMSG: u8 = 9;
    pub(crate) const ACCEPT: u8 = 13;
    pub(crate) const ASYNC_CANCEL: u8 = 14;
    pub(crate) const CONNECT: u8 = 16;
    pub(crate) const READ: u8 = 22;
    pub(crate) const WRITE: u8 = 23;
    pub(crate) const SEND: u8 = 26;
    pub(crate) const RECV: u8 = 27;
    pub(crate) const SHUTDOWN: u8 = 34;
    pub(crate) const MSG_RING: u8 = 40;
    pub(crate) const SEND_ZC: u8 = 47;
    pub(crate) const LAST_KNOWN: u8 = 64;

    /// What it does, by the name of the system call that does the same.
    pub(crate) fn name(opcode: u8) -> &'static str {
        match opcode {
            NOP => "nop",
            POLL_ADD => "poll",
            SENDMSG => "sendmsg",
            ACCEPT => "accept",
            ASYNC_CANCEL => "cancel",
            CONNECT => "connect",
            READ => "read",
            WRITE => "write",
            SEND | SEND_ZC => "send",
            RECV => "recv",
            SHUTDOWN => "shutdown",
            _ => "an operation",
        }
    }
}

pub(crate) mod sqe_flags {
    //! Flags of a submission.
    pub(crate) const FIXED_FILE: u8 = 1 << 0;
    pub(crate) const BUFFER_SELECT: u8 = 1 << 5;
}

pub(crate) mod cqe_flags {
    //! Flags of a completion.
    pub(crate) const BUFFER: u32 = 1 << 0;
    pub(crate) const MORE: u32 = 1 << 1;
    /// The kernel has let go of what an earlier completion was of.
    pub(crate) const NOTIF: u32 = 1 << 3;
    pub(crate) const BUFFER_SHIFT: u32 = 16;
}

/// `IORING_RECV_MULTISHOT`, in `ioprio` of a receive (6.0).
pub(crate) const RECV_MULTISHOT: u16 = 1 << 1;
/// `IORING_ACCEPT_MULTISHOT`, in `ioprio` of an accept (5.19).
pub(crate) const ACCEPT_MULTISHOT: u16 = 1 << 0;

pub(crate) const OFF_SQ_RING: i64 = 0;
pub(crate) const OFF_CQ_RING: i64 = 0x800_0000;
pub(crate) const OFF_SQES: i64 = 0x1000_0000;

/// `struct io_sqring_offsets`.
#[repr(C)]
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct SqOffsets {
    pub(crate) head: u32,
    pub(crate) tail: u32,
    pub(crate) ring_mask: u32,
    pub(crate) ring_entries: u32,
    pub(crate) flags: u32,
    pub(crate) dropped: u32,
    pub(crate) array: u32,
    pub(crate) resv1: u32,
    pub(crate) user_addr: u64,
}

/// `struct io_cqring_offsets`.
#[repr(C)]
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct CqOffsets {
    pub(crate) head: u32,
    pub(crate) tail: u32,
    pub(crate) ring_mask: u32,
    pub(crate) ring_entries: u32,
    pub(crate) overflow: u32,
    pub(crate) cqes: u32,
    pub(crate) flags: u32,
    pub(crate) resv1: u32,
    pub(crate) user_addr: u64,
}

/// `struct io_uring_params`.
#[repr(C)]
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct Params {
    pub(crate) sq_entries: u32,
    pub(crate) cq_entries: u32,
    pub(crate) flags: u32,
    pub(crate) sq_thread_cpu: u32,
    pub(crate) sq_thread_idle: u32,
    pub(crate) features: u32,
    pub(crate) wq_fd: u32,
    pub(crate) resv: [u32; 3],
    pub(crate) sq_off: SqOffsets,
    pub(crate) cq_off: CqOffsets,
}

/// `struct io_uring_cqe` of the plain 16 bytes.
#[repr(C)]
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct RawCqe {
    pub(crate) user_data: u64,
    pub(crate) res: i32,
    pub(crate) flags: u32,
}

/// `struct __kernel_timespec`.
#[repr(C)]
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct Timespec {
    pub(crate) sec: i64,
    pub(crate) nsec: i64,
}

/// `struct io_uring_getevents_arg`.
#[repr(C)]
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct GetEventsArg {
    pub(crate) sigmask: u64,
    pub(crate) sigmask_size: u32,
    pub(crate) min_wait_usec: u32,
    pub(crate) ts: u64,
}

/// `struct io_uring_buf`, one entry of a provided-buffer ring. The `resv` of entry 0 is the ring's tail.
#[repr(C)]
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct BufEntry {
    pub(crate) addr: u64,
    pub(crate) len: u32,
    pub(crate) bid: u16,
    pub(crate) resv: u16,
}

/// `struct io_uring_buf_reg`.
#[repr(C)]
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct BufReg {
    pub(crate) ring_addr: u64,
    pub(crate) ring_entries: u32,
    pub(crate) bgid: u16,
    pub(crate) flags: u16,
    pub(crate) resv: [u64; 3],
}

/// `struct io_uring_buf_status`, as `IORING_REGISTER_PBUF_STATUS` takes it.
#[repr(C)]
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct BufStatus {
    pub(crate) buf_group: u32,
    /// Entries that were taken, modulo 2^16.
    pub(crate) head: u32,
    pub(crate) resv: [u32; 8],
}

/// `struct io_uring_rsrc_register`, as `IORING_REGISTER_FILES2` takes it.
#[repr(C)]
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct RsrcRegister {
    pub(crate) nr: u32,
    pub(crate) flags: u32,
    pub(crate) resv: u64,
    pub(crate) data: u64,
    pub(crate) tags: u64,
}

/// `IORING_RSRC_REGISTER_SPARSE` (5.19): a table of empty places.
pub(crate) const RSRC_SPARSE: u32 = 1 << 0;

/// `struct io_uring_rsrc_update`, as `IORING_REGISTER_RING_FDS` takes it, and `struct io_uring_files_update`,
/// which is laid out alike.
#[repr(C)]
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct RsrcUpdate {
    pub(crate) offset: u32,
    pub(crate) resv: u32,
    pub(crate) data: u64,
}

/// `struct io_uring_napi` as `IORING_REGISTER_NAPI` takes it.
#[repr(C)]
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct Napi {
    pub(crate) busy_poll_us: u32,
    pub(crate) prefer_busy_poll: u8,
    pub(crate) opcode: u8,
    pub(crate) pad: [u8; 2],
    pub(crate) op_param: u32,
    pub(crate) resv: u32,
}

/// `struct io_uring_sqe` as `IORING_REGISTER_SEND_MSG_RING` takes it: a completion with this user data for
/// another ring.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub(crate) struct Message {
    opcode: u8,
    flags: u8,
    ioprio: u16,
    ring: i32,
    user_data: u64,
    rest: [u64; 6],
}

impl Message {
    pub(crate) fn new(ring: i32, user_data: u64) -> Self {
        Self { opcode: opcode::MSG_RING, flags: 0, ioprio: 0, ring, user_data, rest: [0; 6] }
    }
}

/// User data of the messages that wake a core: ours, and of no op.
pub(crate) const WAKE_MESSAGE: u64 = 1 << 29;

/// `struct io_uring_probe_op`.
#[repr(C)]
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct ProbeOp {
    pub(crate) op: u8,
    pub(crate) resv: u8,
    pub(crate) flags: u16,
    pub(crate) resv2: u32,
}

/// `struct io_uring_probe` with room for every op that this page knows.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub(crate) struct Probe {
    pub(crate) last_op: u8,
    pub(crate) ops_len: u8,
    pub(crate) resv: u16,
    pub(crate) resv2: [u32; 3],
    pub(crate) ops: [ProbeOp; opcode::LAST_KNOWN as usize],
}

impl Default for Probe {
    fn default() -> Self {
        let ops = [ProbeOp::default(); opcode::LAST_KNOWN as usize];
        Self { last_op: 0, ops_len: 0, resv: 0, resv2: [0; 3], ops }
    }
}

/// `IO_URING_OP_SUPPORTED` in [`ProbeOp::flags`].
pub(crate) const OP_SUPPORTED: u16 = 1;

const _: () = assert!(size_of::<Params>() == 120);
const _: () = assert!(size_of::<RawCqe>() == 16);
const _: () = assert!(size_of::<GetEventsArg>() == 24);
const _: () = assert!(size_of::<BufEntry>() == 16);
const _: () = assert!(size_of::<BufReg>() == 40);
const _: () = assert!(size_of::<BufStatus>() == 40);
const _: () = assert!(size_of::<Message>() == 64);
const _: () = assert!(size_of::<Napi>() == 16);
const _: () = assert!(size_of::<Probe>() == 16 + 8 * opcode::LAST_KNOWN as usize);
