//! A look at what another thread of the process is doing, while it does it.
//!
//! Owns the signal that asks a thread for a copy of its registers and of the top of its stack, and the one
//! buffer that the copy goes to. The handler does only what may be done there: it loads and stores atomics,
//! asks for its thread's number, and copies bytes of its own stack. It unwinds nothing, takes no lock and
//! allocates nothing: whoever asked does that later, with the copy.
//!
//! One [`Sampler`] exists in a process, so one thread is asked at a time. Protocol of [`Exchange`], whose
//! state is a number of the asking above two bits:
//! ```text
//! Idle --sampler--> Asked --handler--> Filling --handler--> Filled --sampler--> Idle
//!                     +-----sampler, after a limit-----------------------------> Idle
//! ```
//! A handler that comes late finds another number, or not Asked, and does nothing. Targets are never freed,
//! so the handler may read the one that was asked last at any time.

use std::panic::Location;
use std::ptr;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicPtr, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use super::locks::{Mutex, MutexGuard};
use super::per_process::PerProcess;
use super::shared;

/// Bytes of a stack that are copied at most.
const STACK_MAX: usize = 256 * 1024;

/// A thread that can be asked, for as long as it has not taken leave.
pub(crate) struct Target {
    thread: AtomicI32,
    /// Where its stack begins and ends.
    stack_low: AtomicUsize,
    stack_top: AtomicUsize,
    /// Handed to `describe`, on its own thread.
    subject: AtomicPtr<()>,
    describe: AtomicPtr<()>,
}

/// Says what the thread is doing: a word of its own choosing, and a place in the source. Called in a signal
/// handler, on the thread of its subject.
pub(crate) type Describe = unsafe fn(*const ()) -> Said;

pub(crate) type Said = (u64, Option<&'static Location<'static>>);

/// What a thread was doing.
pub(crate) struct Sample {
    /// What `describe` said.
    pub(crate) said: Said,
    /// Program counter, stack pointer, frame pointer, link register; zero where a machine has none.
    pub(crate) registers: [usize; 4],
    /// The stack from the stack pointer on.
    pub(crate) stack: Vec<u8>,
}

/// The one who asks.
pub(crate) struct Sampler {
    signal: i32,
}

/// Whose turn it is with the answer, between the one who asks and handlers. What the answer consists of is
/// used by nobody else meanwhile: by the handler from [`begin`](Self::begin) to [`finish`](Self::finish), by
/// the one who asks from [`is_filled`](Self::is_filled) to [`done`](Self::done).
struct Exchange<T> {
    state: shared::AtomicU64,
    asked_one: shared::AtomicPtr<T>,
}

#[cfg(not(loom))]
static EXCHANGE: Exchange<Target> = Exchange {
    state: shared::AtomicU64::new(IDLE),
    asked_one: shared::AtomicPtr::new(ptr::null_mut()),
};
#[cfg(loom)]
super::model::lazy_static! {
    static ref EXCHANGE: Exchange<Target> = Exchange::modelled();
}

static SAID: AtomicU64 = AtomicU64::new(0);
/// Null, or from a `&'static`.
static SAID_AT: AtomicPtr<Location<'static>> = AtomicPtr::new(ptr::null_mut());
static REGISTERS: [AtomicUsize; 4] = [const { AtomicUsize::new(0) }; 4];
static COPIED: AtomicUsize = AtomicUsize::new(0);
/// [`STACK_MAX`] bytes, allocated by the sampler and never freed.
static BUFFER: AtomicPtr<u8> = AtomicPtr::new(ptr::null_mut());

const IDLE: u64 = 0;
const ASKED: u64 = 1;
const FILLING: u64 = 2;
const FILLED: u64 = 3;

impl<T> Exchange<T> {
    #[cfg(loom)]
    fn modelled() -> Self {
        Self {
            state: shared::AtomicU64::new(IDLE),
            asked_one: shared::AtomicPtr::new(ptr::null_mut()),
        }
    }

    /// Asks `target`; gives the number of this asking. Only while nothing is asked.
    fn ask(&self, target: &'static T) -> u64 {
        let number = (self.state.load(Ordering::Relaxed) >> 2) + 1;
        self.asked_one.store(ptr::from_ref(target).cast_mut(), Ordering::Relaxed);
        // Released: the one asked, and that the last answer has been read.
        shared::store_u64(&self.state, number << 2 | ASKED, Ordering::Release);
        number
    }

    /// Whether the answer is there.
    fn is_filled(&self, number: u64) -> bool {
        self.state.load(Ordering::Acquire) == number << 2 | FILLED
    }

    /// Asks no more, if no handler has begun with it.
    fn withdraw(&self, number: u64) -> bool {
        let (asked, idle) = (number << 2 | ASKED, number << 2 | IDLE);
        // Nothing comes with it: a handler that has not begun has written nothing.
        self.state.compare_exchange(asked, idle, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }

    /// The answer has been read.
    fn done(&self, number: u64) {
        shared::store_u64(&self.state, number << 2 | IDLE, Ordering::Release);
    }

    /// In the handler: whom to describe, if that number is asked and no handler has begun with it.
    fn begin(&self, number: u64) -> Option<&'static T> {
        let (asked, filling) = (number << 2 | ASKED, number << 2 | FILLING);
        self.state
            .compare_exchange(asked, filling, Ordering::Acquire, Ordering::Relaxed)
            .is_ok()
            // SAFETY: stored before the state became Asked, from a reference that lives for ever.
            .then(|| unsafe { &*self.asked_one.load(Ordering::Relaxed) })
    }

    /// In the handler: the answer is complete.
    fn finish(&self, number: u64) {
        shared::store_u64(&self.state, number << 2 | FILLED, Ordering::Release);
    }
}

/// Targets that took leave, for the next thread: as many exist as ever were watched at a time.
static FREE: PerProcess<Mutex<Vec<&'static Target>>> = PerProcess::new(Mutex::default);

fn free() -> MutexGuard<'static, Vec<&'static Target>> {
    // Nothing panics while it is held.
    FREE.get().lock().unwrap_or_else(PoisonError::into_inner)
}

impl Target {
    /// Makes one of the calling thread.
    ///
    /// # Safety
    /// Until [`leave`](Self::leave), on this thread: `describe` may be called with `subject` at any moment,
    /// between any two instructions of the thread.
    pub(crate) unsafe fn this_thread(describe: Describe, subject: *const ()) -> &'static Self {
        let free = free().pop();
        let target = free.unwrap_or_else(|| {
            Box::leak(Box::new(Self {
                thread: AtomicI32::new(0),
                stack_low: AtomicUsize::new(0),
                stack_top: AtomicUsize::new(0),
                subject: AtomicPtr::new(ptr::null_mut()),
                describe: AtomicPtr::new(ptr::null_mut()),
            }))
        });
        let (low, top) = stack();
        target.stack_low.store(low, Ordering::Relaxed);
        target.stack_top.store(top, Ordering::Relaxed);
        target.describe.store(describe as *mut (), Ordering::Relaxed);
        target.subject.store(subject.cast_mut(), Ordering::Relaxed);
        target.thread.store(thread_id(), Ordering::Release);
        target
    }

    /// Nothing is asked of the thread any more. By the thread itself, so no handler of it runs now.
    pub(crate) fn leave(&'static self) {
        self.thread.store(0, Ordering::Release);
        self.subject.store(ptr::null_mut(), Ordering::Release);
        free().push(self);
    }

    /// CPU time of its thread in ns; none if that has ended.
    pub(crate) fn cpu_ns(&self) -> Option<u64> {
        let thread = self.thread.load(Ordering::Acquire);
        // The clock of a thread by its number: `CPUCLOCK_SCHED` of one thread, as the kernel names it.
        let clock = (!thread << 3) | 6;
        let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        // SAFETY: a live timespec; a clock that there is not is an error.
        let failed = unsafe { libc::clock_gettime(clock, &raw mut now) } != 0;
        (!failed).then(|| now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64)
    }
}

impl Sampler {
    /// The process's one; none if it exists already, or if this machine or its signals don't allow one.
    pub(crate) fn take() -> Option<Self> {
        static TAKEN: AtomicBool = AtomicBool::new(false);
        if !HAS_REGISTERS || TAKEN.swap(true, Ordering::AcqRel) {
            return None;
        }
        let buffer = Box::leak(vec![0u8; STACK_MAX].into_boxed_slice());
        BUFFER.store(buffer.as_mut_ptr(), Ordering::Release);
        Some(Self { signal: install()? })
    }

    /// Asks a thread, and waits for its answer for at most `limit`: it gives none while it blocks the signal
    /// or can't be interrupted.
    pub(crate) fn sample(&mut self, target: &'static Target, limit: Duration) -> Option<Sample> {
        let number = EXCHANGE.ask(target);
        let sent = queue_signal(target.thread.load(Ordering::Acquire), self.signal, number);
        let began = Instant::now();
        while !EXCHANGE.is_filled(number) {
            // One that is filling it will be done soon: it is interrupted by nothing but the scheduler.
            if (!sent || began.elapsed() >= limit) && EXCHANGE.withdraw(number) {
                return None;
            }
            std::thread::sleep(Duration::from_micros(50));
        }
        let len = COPIED.load(Ordering::Relaxed);
        // SAFETY: the handler has written so many bytes of the buffer, and writes no more: it is Filled.
        let stack = unsafe { std::slice::from_raw_parts(BUFFER.load(Ordering::Relaxed), len) };
        // SAFETY: null, or stored by the handler from a reference that lives for ever.
        let at = unsafe { SAID_AT.load(Ordering::Relaxed).as_ref() };
        let sample = Sample {
            said: (SAID.load(Ordering::Relaxed), at),
            registers: [0, 1, 2, 3].map(|i| REGISTERS[i].load(Ordering::Relaxed)),
            stack: stack.to_vec(),
        };
        EXCHANGE.done(number);
        Some(sample)
    }
}

/// Starts a thread that takes no signals: those of the process are for others.
pub(crate) fn spawn_unsignalled(
    name: &str,
    f: impl FnOnce() + Send + 'static,
) -> std::io::Result<std::thread::JoinHandle<()>> {
    // SAFETY: all-zero bytes are a set; both are live, and `filled` and `before` are filled by the calls.
    unsafe {
        let (mut filled, mut before): (libc::sigset_t, libc::sigset_t) =
            (std::mem::zeroed(), std::mem::zeroed());
        libc::sigfillset(&raw mut filled);
        libc::pthread_sigmask(libc::SIG_SETMASK, &raw const filled, &raw mut before);
        let started = std::thread::Builder::new().name(name.to_owned()).spawn(f);
        libc::pthread_sigmask(libc::SIG_SETMASK, &raw const before, ptr::null_mut());
        started
    }
}

/// `siginfo_t` of a queued signal, as the kernel takes it.
#[repr(C)]
struct Queued {
    signo: i32,
    errno: i32,
    code: i32,
    padding: i32,
    pid: i32,
    uid: u32,
    value: u64,
    rest: [u64; 12],
}

const _: () = assert!(size_of::<Queued>() == 128 && size_of::<libc::siginfo_t>() == 128);

fn queue_signal(thread: i32, signal: i32, value: u64) -> bool {
    // SAFETY: these two ask for numbers.
    let (pid, uid) = unsafe { (libc::getpid(), libc::getuid()) };
    let info = Queued {
        signo: signal,
        errno: 0,
        code: libc::SI_QUEUE,
        padding: 0,
        pid,
        uid,
        value,
        rest: [0; 12],
    };
    // SAFETY: a live siginfo_t. The signal has our handler, and a thread that has ended is an error.
    thread > 0
        && unsafe {
            libc::syscall(libc::SYS_rt_tgsigqueueinfo, pid, thread, signal, &raw const info) == 0
        }
}

/// Puts our handler on a real-time signal that nobody else handles. It stays there: one of these signals
/// that came later would end the process otherwise.
fn install() -> Option<i32> {
    (libc::SIGRTMIN() + 1..libc::SIGRTMAX()).find(|&signal| {
        // SAFETY: all-zero bytes are a sigaction; the calls read and write live ones. The handler does only
        // what a handler may do.
        unsafe {
            let mut before: libc::sigaction = std::mem::zeroed();
            if libc::sigaction(signal, ptr::null(), &raw mut before) != 0
                || before.sa_sigaction != libc::SIG_DFL
            {
                return false;
            }
            let mut ours: libc::sigaction = std::mem::zeroed();
            ours.sa_sigaction = on_signal as *const () as usize;
            ours.sa_flags = libc::SA_SIGINFO | libc::SA_RESTART;
            libc::sigemptyset(&raw mut ours.sa_mask);
            libc::sigaction(signal, &raw const ours, ptr::null_mut()) == 0
        }
    })
}

/// The handler: see the top of this file.
extern "C" fn on_signal(_: i32, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
    // SAFETY: the kernel hands a handler with SA_SIGINFO both, live while it runs; they are only read. A
    // signal that somebody else sent has some other value in its place, or none.
    let (code, value) = unsafe { ((*info).si_code, (*info.cast::<Queued>()).value) };
    if code != libc::SI_QUEUE {
        return;
    }
    let Some(target) = EXCHANGE.begin(value) else { return };
    COPIED.store(0, Ordering::Relaxed);
    SAID.store(0, Ordering::Relaxed);
    SAID_AT.store(ptr::null_mut(), Ordering::Relaxed);
    // Another loop's thread may have got the number of one that has ended.
    if target.thread.load(Ordering::Relaxed) == thread_id() {
        // SAFETY: as above; the kernel saved the registers of this thread there.
        let registers = unsafe { registers_of(context) };
        for (place, register) in REGISTERS.iter().zip(registers) {
            place.store(register, Ordering::Relaxed);
        }
        let low = target.stack_low.load(Ordering::Relaxed);
        copy_stack(registers[1], low, target.stack_top.load(Ordering::Relaxed));
        let subject = target.subject.load(Ordering::Relaxed);
        let describe = target.describe.load(Ordering::Relaxed);
        if !subject.is_null() {
            // SAFETY: stored by `this_thread` from a `Describe`, whose caller allows this call on this thread
            // until the target takes leave, which clears the subject.
            let (word, at) =
                unsafe { std::mem::transmute::<*mut (), Describe>(describe)(subject.cast_const()) };
            SAID.store(word, Ordering::Relaxed);
            SAID_AT.store(
                at.map_or(ptr::null_mut(), |at| ptr::from_ref(at).cast_mut()),
                Ordering::Relaxed,
            );
        }
    }
    EXCHANGE.finish(value);
}

/// Copies the stack from `from` on, if that lies in the thread's own one, from `low` to `top`: a thread may
/// run on another one for a while (a coroutine's, a signal's), of which nobody says where it ends.
fn copy_stack(from: usize, low: usize, top: usize) {
    // The handler's, below what it interrupted.
    let here = stack_pointer();
    let own = low..top;
    if !own.contains(&from) || !own.contains(&here) || here > from {
        return;
    }
    let len = (top - from).min(STACK_MAX);
    let buffer = BUFFER.load(Ordering::Acquire);
    // SAFETY: all between a live stack pointer and the end of its stack is mapped and this thread's own; the
    // buffer has STACK_MAX bytes and is nobody's while the state is Filling. Bytes, whatever they hold.
    unsafe { ptr::copy_nonoverlapping(ptr::with_exposed_provenance::<u8>(from), buffer, len) };
    COPIED.store(len, Ordering::Relaxed);
}

/// Where the calling function's stack ends. (A local may lie elsewhere: AddressSanitizer moves them.)
#[inline(always)]
fn stack_pointer() -> usize {
    let here: usize;
    // SAFETY: it reads a register.
    #[cfg(target_arch = "x86_64")]
    unsafe {
        std::arch::asm!("mov {}, rsp", out(reg) here, options(nomem, nostack, preserves_flags));
    }
    // SAFETY: as above.
    #[cfg(target_arch = "aarch64")]
    unsafe {
        std::arch::asm!("mov {}, sp", out(reg) here, options(nomem, nostack, preserves_flags));
    }
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    {
        // Nobody is asked there.
        here = 0;
    }
    here
}

fn thread_id() -> i32 {
    // SAFETY: it asks for a number.
    unsafe { libc::syscall(libc::SYS_gettid) as i32 }
}

/// Where the calling thread's stack begins and ends; nowhere if that can't be told.
fn stack() -> (usize, usize) {
    // SAFETY: `attr` is filled by the first call, read by the second, and done with by the third.
    unsafe {
        let mut attr: libc::pthread_attr_t = std::mem::zeroed();
        if libc::pthread_getattr_np(libc::pthread_self(), &raw mut attr) != 0 {
            return (0, 0);
        }
        let (mut low, mut size) = (ptr::null_mut(), 0);
        let told = libc::pthread_attr_getstack(&raw const attr, &raw mut low, &raw mut size);
        libc::pthread_attr_destroy(&raw mut attr);
        if told == 0 { (low.addr(), low.addr() + size) } else { (0, 0) }
    }
}

const HAS_REGISTERS: bool = cfg!(any(target_arch = "x86_64", target_arch = "aarch64"));

/// # Safety
/// `context` is what a handler was given.
unsafe fn registers_of(context: *mut libc::c_void) -> [usize; 4] {
    // SAFETY: as the caller promises.
    let context = unsafe { &(*context.cast::<libc::ucontext_t>()).uc_mcontext };
    #[cfg(target_arch = "x86_64")]
    let registers = {
        let register = |which: i32| context.gregs[which as usize] as usize;
        [register(libc::REG_RIP), register(libc::REG_RSP), register(libc::REG_RBP), 0]
    };
    #[cfg(target_arch = "aarch64")]
    let registers = {
        let register = |which: usize| context.regs[which] as usize;
        [context.pc as usize, context.sp as usize, register(29), register(30)]
    };
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    let registers = {
        _ = context;
        [0; 4]
    };
    registers
}

#[cfg(all(test, loom))]
mod loom_tests {
    use std::sync::Arc;

    use super::Exchange;
    use crate::sys::model::{cell::UnsafeCell, check, thread};

    struct Shared {
        exchange: Exchange<u64>,
        /// The answer.
        filled_by: UnsafeCell<u64>,
    }

    // SAFETY: loom reports two that use the cell at a time.
    unsafe impl Sync for Shared {}

    static TARGETS: [u64; 3] = [0, 1, 2];

    /// What [`on_signal`](super::on_signal) does for the signal of one asking.
    fn handle(shared: &Shared, number: u64) {
        if let Some(target) = shared.exchange.begin(number) {
            assert_eq!(*target, number, "another one was described");
            // SAFETY: this handler alone has the answer; loom looks.
            shared.filled_by.with_mut(|at| unsafe { *at = number });
            shared.exchange.finish(number);
        }
    }

    /// Two are asked, one after the other; each handler comes when it likes, also late. What is given as an
    /// answer is that of the one who was asked, and whole.
    #[test]
    fn loom_sample_an_answer_is_the_asked_ones_and_whole() {
        check(3, || {
            let exchange = Exchange::modelled();
            let shared = Arc::new(Shared { exchange, filled_by: UnsafeCell::new(0) });
            let handler = |number| {
                let shared = shared.clone();
                thread::spawn(move || handle(&shared, number))
            };
            // There before they are asked: what they see is the exchange's doing alone.
            for (number, handler) in [1, 2].map(|number| (number, handler(number))) {
                let exchange = &shared.exchange;
                assert_eq!(exchange.ask(&TARGETS[number as usize]), number);
                if exchange.is_filled(number) || !exchange.withdraw(number) {
                    if !exchange.is_filled(number) {
                        handler.join().unwrap();
                    }
                    assert!(exchange.is_filled(number), "a handler that has begun ends it");
                    // SAFETY: filled, so no handler has it; loom looks.
                    shared.filled_by.with(|at| assert_eq!(unsafe { *at }, number));
                    exchange.done(number);
                }
            }
        });
    }
}

#[cfg(test)]
#[path = "sample_tests.rs"]
mod tests;
