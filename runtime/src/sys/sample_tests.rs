//! Threads are looked at: on their own stacks, and on others.

use std::sync::mpsc;
use std::sync::{LazyLock, Mutex, MutexGuard};

use super::*;

/// There is one in a process.
fn sampler() -> Option<MutexGuard<'static, Option<Sampler>>> {
    static ONE: LazyLock<Mutex<Option<Sampler>>> = LazyLock::new(|| Mutex::new(Sampler::take()));
    let one = ONE.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    if one.is_none() {
        println!("SKIPPED sample: no registers are read on this machine");
    }
    one.is_some().then_some(one)
}

#[test]
fn a_thread_is_looked_at_while_it_computes_and_while_it_sleeps() {
    /// # Safety
    /// `subject` is a live `AtomicUsize`.
    unsafe fn describe(subject: *const ()) -> Said {
        // SAFETY: as the caller promises.
        let word = unsafe { &*subject.cast::<AtomicUsize>() }.load(Ordering::Relaxed);
        (word as u64, (word == 41).then(|| Location::caller()))
    }
    let Some(mut sampler) = sampler() else { return };
    let sampler = sampler.as_mut().unwrap();
    static SUBJECT: AtomicUsize = AtomicUsize::new(0);
    let stop = AtomicBool::new(false);
    let (tell, told) = mpsc::channel();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            // SAFETY: a static, read atomically.
            let target = unsafe { Target::this_thread(describe, (&raw const SUBJECT).cast()) };
            SUBJECT.store(41, Ordering::Relaxed);
            tell.send(target).unwrap();
            while !stop.load(Ordering::Relaxed) {
                std::hint::spin_loop();
            }
            SUBJECT.store(42, Ordering::Relaxed);
            let slept = Instant::now();
            std::thread::sleep(Duration::from_millis(300));
            assert!(slept.elapsed() >= Duration::from_millis(300), "std sleeps on");
            target.leave();
        });
        let target = told.recv().unwrap();
        let limit = Duration::from_secs(5);
        let busy = sampler.sample(target, limit);
        // First of all: it would else compute for ever.
        stop.store(true, Ordering::Relaxed);
        let busy = busy.expect("it computes");
        assert_eq!((busy.said.0, busy.said.1.unwrap().file()), (41, file!()));
        assert!(busy.registers[0] != 0 && busy.stack.len() > 100, "{}", busy.stack.len());
        assert!(target.cpu_ns().unwrap() > 0);
        while SUBJECT.load(Ordering::Relaxed) != 42 {
            std::thread::yield_now();
        }
        std::thread::sleep(Duration::from_millis(20));
        assert_eq!(sampler.sample(target, limit).expect("it sleeps").said, (42, None));
    });
    let target = FREE.get().lock().unwrap()[0];
    assert!(sampler.sample(target, Duration::from_millis(1)).is_none(), "it has left");
}

/// Runs `body` on a stack that ends where memory does that nobody may read, below the calling thread's own
/// one: what coroutines do, and parsers that recurse.
#[cfg(target_env = "gnu")]
fn on_another_stack(body: extern "C" fn()) {
    const STACK: usize = 64 * 1024;
    const GUARD: usize = 64 * 1024;
    let own = (&raw const body).addr();
    let mut above = Vec::new();
    let unmap = |at: *mut libc::c_void| {
        // SAFETY: a whole mapping of that size, in which nothing lives any more.
        assert_eq!(unsafe { libc::munmap(at, STACK + GUARD) }, 0);
    };
    let stack = loop {
        let (flags, none) = (libc::MAP_PRIVATE | libc::MAP_ANONYMOUS, libc::PROT_NONE);
        // SAFETY: new memory, which nobody has yet.
        let at = unsafe { libc::mmap(ptr::null_mut(), STACK + GUARD, none, flags, -1, 0) };
        assert_ne!(at, libc::MAP_FAILED);
        if at.addr() < own {
            break at;
        }
        above.push(at);
        assert!(above.len() < 1_000, "the kernel maps upwards");
    };
    // SAFETY: the stack is this function's alone, and live until the context has come back; both contexts
    // live as long. `body` does not unwind.
    unsafe {
        assert_eq!(libc::mprotect(stack, STACK, libc::PROT_READ | libc::PROT_WRITE), 0);
        let (mut back, mut there): (libc::ucontext_t, libc::ucontext_t) =
            (std::mem::zeroed(), std::mem::zeroed());
        assert_eq!(libc::getcontext(&raw mut there), 0);
        (there.uc_stack.ss_sp, there.uc_stack.ss_size) = (stack, STACK);
        there.uc_link = &raw mut back;
        libc::makecontext(&raw mut there, body, 0);
        assert_eq!(libc::swapcontext(&raw mut back, &raw const there), 0);
    }
    above.into_iter().chain([stack]).for_each(unmap);
}

#[cfg(target_env = "gnu")]
#[test]
fn of_a_stack_that_is_not_the_threads_own_nothing_is_copied() {
    /// # Safety
    /// None is needed.
    unsafe fn describe(_: *const ()) -> Said {
        (7, None)
    }
    static SUBJECT: u8 = 0;
    static THERE: AtomicBool = AtomicBool::new(false);
    static STOP: AtomicBool = AtomicBool::new(false);
    extern "C" fn compute() {
        THERE.store(true, Ordering::Release);
        while !STOP.load(Ordering::Relaxed) {
            std::hint::spin_loop();
        }
    }
    let Some(mut sampler) = sampler() else { return };
    let sampler = sampler.as_mut().unwrap();
    let (tell, told) = mpsc::channel();
    let thread = std::thread::spawn(move || {
        // SAFETY: `describe` asks for nothing.
        let target = unsafe { Target::this_thread(describe, (&raw const SUBJECT).cast()) };
        tell.send(target).unwrap();
        on_another_stack(compute);
        target.leave();
    });
    let target = told.recv().unwrap();
    while !THERE.load(Ordering::Acquire) {
        std::thread::yield_now();
    }
    let sample = sampler.sample(target, Duration::from_secs(5));
    STOP.store(true, Ordering::Relaxed);
    thread.join().unwrap();
    let sample = sample.expect("it computes");
    assert_eq!((sample.said, sample.stack.len()), ((7, None), 0));
    assert_ne!(sample.registers[0], 0, "where it is can be said all the same");
}
