//! Starts and ends of several cores that once went wrong: a panic that stopped the others only after a close,
//! a failure that came of another one, a panic whose payload panics, a hook that waits for core 0.

use std::cell::RefCell;
use std::future::pending;
use std::panic::panic_any;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::thread;
use std::time::Duration;

use coreloop::placement::allowed_cpus;

use coreloop::time::sleep;
use coreloop::{Builder, Cores, Handle, RemoteError, RunError, Runtime, Settings, spawn_blocking};
use coreloop_tests::in_child;

/// Two cores of one CPU.
fn two() -> Builder {
    Runtime::builder().cores(Cores::These(vec![allowed_cpus()[0]; 2]))
}

/// As above, with closes that wait for closures as long as those take.
fn patient() -> Runtime {
    two().settings(Settings::default().grace(Duration::MAX)).build().unwrap()
}

#[derive(Clone, Default)]
struct Flag(Arc<AtomicBool>);

impl Flag {
    fn set(&self) {
        self.0.store(true, Ordering::SeqCst);
    }

    fn is_set(&self) -> bool {
        self.0.load(Ordering::SeqCst)
    }

    async fn wait(&self) {
        while !self.is_set() {
            sleep(Duration::from_millis(1)).await;
        }
    }
}

/// Has a thread wait until all senders are gone. It waits already when this returns.
async fn block_on_the_end_of<T: Send + 'static>(told: mpsc::Receiver<T>) {
    let begun = Flag::default();
    let begins = begun.clone();
    drop(spawn_blocking(move || {
        begins.set();
        drop(told.recv());
    }));
    begun.wait().await;
}

#[track_caller]
fn assert_panicked<R: std::fmt::Debug>(ended: Result<R, RunError>, which: usize, with: &str) {
    match ended {
        Err(RunError::Panicked { core, message }) => {
            assert_eq!((core, message.as_str()), (which, with));
        }
        other => panic!("{other:?}"),
    }
}

/// The core that panicked waited, for ever, for a closure that waits for the other one, which was not told.
#[test]
fn runtime_a_panic_stops_the_others_before_its_own_core_is_closed() {
    in_child("runtime_a_panic_stops_the_others_before_its_own_core_is_closed", || {
        let (tell, told) = mpsc::channel::<()>();
        let ends = Mutex::new((Some(tell), Some(told)));
        let ended = patient().run(move |core| {
            let mut ends = ends.lock().unwrap();
            let tell = (core.index() == 0).then(|| ends.0.take());
            let told = if core.index() == 1 { ends.1.take() } else { None };
            async move {
                let _until_this_is_dropped = tell;
                if let Some(told) = told {
                    block_on_the_end_of(told).await;
                    panic!("core one");
                }
                pending::<()>().await;
            }
        });
        assert_panicked(ended, 1, "core one");
    });
}

thread_local! {
    /// Dropped when the thread ends, after its core has.
    static LAST: RefCell<Option<mpsc::Sender<()>>> = const { RefCell::new(None) };
}

/// Panics when it is dropped.
struct Sore;

impl Drop for Sore {
    fn drop(&mut self) {
        panic!("as it is stopped");
    }
}

/// The core that panicked first ended last, and the other's panic was given as the reason.
#[test]
fn runtime_the_first_panic_is_told_also_if_its_core_ends_last() {
    in_child("runtime_the_first_panic_is_told_also_if_its_core_ends_last", || {
        let (tell, told) = mpsc::channel::<()>();
        let ends = Mutex::new((Some(told), Some(tell)));
        let begun = Flag::default();
        let ended = patient().run(move |core| {
            let mut ends = ends.lock().unwrap();
            let told = if core.index() == 0 { ends.0.take() } else { None };
            if core.index() == 1 {
                LAST.set(ends.1.take());
            }
            let begun = begun.clone();
            async move {
                if let Some(told) = told {
                    block_on_the_end_of(told).await;
                    begun.wait().await;
                    panic!("core zero");
                }
                let _sore = Sore;
                begun.set();
                pending::<()>().await;
            }
        });
        assert_panicked(ended, 0, "core zero");
    });
}

/// What a panic carries, and what comes of dropping it.
struct Bomb;

impl Drop for Bomb {
    fn drop(&mut self) {
        panic_any(Bomb);
    }
}

/// The payload was dropped bare: the core told nothing any more, and the caller's thread got the next one.
#[test]
fn runtime_a_payload_that_panics_when_dropped_hides_no_panic() {
    in_child("runtime_a_payload_that_panics_when_dropped_hides_no_panic", || {
        let text = "with something else than text";
        let ended = two().build().unwrap().run(|core| async move {
            if core.index() == 1 {
                panic_any(Bomb);
            }
            pending::<()>().await;
        });
        assert_panicked(ended, 1, text);
        let hooked = two().on_start(|_| panic_any(Bomb)).build().unwrap();
        assert_panicked(hooked.run(|_| pending::<()>()), 0, text);
    });
}

/// The hook ran on core 0's thread, in front of its loop, and so waited for ever.
#[test]
fn runtime_the_start_hook_may_wait_for_core_0() {
    in_child("runtime_the_start_hook_may_wait_for_core_0", || {
        let (here, hooked) = (thread::current().id(), Flag::default());
        let hook = hooked.clone();
        let runtime = two().on_start(move |handle| {
            assert_eq!(thread::current().id(), here, "on the thread that runs it");
            for core in 0..2 {
                let task = handle.spawn_on(core, || async {
                    sleep(Duration::from_millis(2)).await;
                    Handle::current_core().unwrap()
                });
                assert_eq!(task.unwrap().join(), Ok(core));
            }
            hook.set();
        });
        let is_after = move |core: coreloop::Core| {
            let hooked = hooked.clone();
            let after = hooked.is_set();
            async move {
                hooked.wait().await;
                after || core.index() > 0
            }
        };
        let after = runtime.build().unwrap().run(is_after).unwrap();
        assert_eq!(after, [true; 2], "core 0's main future is made after the hook");
    });
}

/// A stop, and another core's panic, end core 0 while its hook still waits for it.
#[test]
fn runtime_the_start_hook_does_not_outlast_a_stop() {
    in_child("runtime_the_start_hook_does_not_outlast_a_stop", || {
        for panics in [false, true] {
            let begun = Flag::default();
            let begins = begun.clone();
            let runtime = two().on_start(move |handle| {
                let task = handle.spawn_on(0, move || {
                    begins.set();
                    pending::<()>()
                });
                assert_eq!(task.unwrap().join(), Err(RemoteError::Gone));
            });
            let ended = runtime.build().unwrap().run(move |core| {
                let begun = begun.clone();
                async move {
                    begun.wait().await;
                    assert!(core.index() != 1 || !panics, "core one");
                    core.handle().stop();
                    pending::<()>().await;
                }
            });
            if panics {
                assert_panicked(ended, 1, "core one");
            } else {
                assert!(matches!(ended, Err(RunError::Stopped)), "{ended:?}");
            }
        }
    });
}

/// They are the thread's: one that a core started has that core's alone. It was told of the process's.
#[test]
fn runtime_cores_that_a_cores_own_thread_may_not_use_are_told_as_the_threads() {
    let runtime = Runtime::builder().cores(Cores::Count(1)).build().unwrap();
    let cpu = runtime.cpus()[0];
    let says = runtime.run(|_| async {
        let resolved = || Cores::Count(2).resolve().unwrap_err().to_string();
        thread::spawn(resolved).join().unwrap()
    });
    let said = format!("2 cores were asked for, but this thread may use 1 ({cpu})");
    assert_eq!(says.unwrap(), [said]);
}
