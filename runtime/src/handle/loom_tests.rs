//! loom's models of a task's end on another core, and of the request to end all cores.

use std::panic::Location;
use std::sync::Arc;

use super::{RemoteError, promise as promised};
use crate::mailbox::peers::Stop;
use crate::runtime::until_stopped;
use crate::sys::model::thread;
use crate::sys::modelled::{block_on, check};

#[test]
fn loom_remote_a_kept_promise_reaches_who_awaits_it() {
    check(4, || {
        let (promise, handle) = promised(Location::caller());
        let core = thread::spawn(move || promise.keep(Ok(Box::new(7))));
        assert_eq!(block_on(handle), Ok(Box::new(7)));
        core.join().unwrap();
    });
}

#[test]
fn loom_remote_a_blocked_thread_hears_of_the_end() {
    for kept in [false, true] {
        check(4, move || {
            let (promise, handle) = promised(Location::caller());
            let core = thread::spawn(move || {
                if kept {
                    promise.keep(Ok(Box::new(7)));
                }
            });
            let value = handle.join();
            assert_eq!(value, if kept { Ok(Box::new(7)) } else { Err(RemoteError::Gone) });
            core.join().unwrap();
        });
    }
}

#[test]
fn loom_remote_a_core_that_ends_answers_and_a_handle_may_go_meanwhile() {
    check(4, || {
        let (promise, handle) = promised::<Box<u8>>(Location::caller());
        let core = thread::spawn(move || drop(promise));
        assert_eq!(block_on(handle), Err(RemoteError::Gone));
        core.join().unwrap();
        let (promise, handle) = promised::<Box<u8>>(Location::caller());
        let core = thread::spawn(move || promise.keep(Ok(Box::new(7))));
        drop(handle);
        core.join().unwrap();
    });
}

#[test]
fn loom_stop_reaches_each_main_future() {
    check(4, || {
        let stop = Arc::new(Stop::default());
        let main = || {
            let stop = stop.clone();
            thread::spawn(move || {
                assert_eq!(block_on(until_stopped(std::future::pending::<()>(), &stop)), None);
            })
        };
        let mains = [main(), main()];
        stop.ask();
        mains.into_iter().for_each(|main| main.join().unwrap());
    });
}
