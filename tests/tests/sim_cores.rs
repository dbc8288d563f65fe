//! Many simulated cores on one thread: they wake each other, time jumps, and what can never end is said.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use coreloop::sim::{Failure, Faults, Sim, SimError};
use coreloop::time::{Instant, sleep, timeout};
use coreloop::{Handle, RemoteError, spawn, spawn_named, yield_now};

/// Every core of `cores` sends a task round all the others, `rounds` times.
async fn send_round(core: coreloop::Core, rounds: usize) {
    for i in 0..rounds {
        let to = (core.index() + i) % core.count();
        let sent = core.handle().spawn_on(to, move || async move {
            yield_now().await;
            i * 2
        });
        assert_eq!(sent.unwrap().await.unwrap(), i * 2);
    }
}

fn cross_core(seed: u64, faults: Faults) -> Result<coreloop::sim::Report, SimError> {
    let sim = Sim::builder().seed(seed).faults(faults).build();
    sim.host("machine", 4, |core| async move {
        send_round(core, 20).await;
        // The others may still send something here.
        sleep(Duration::from_secs(1)).await;
    });
    sim.run()
}

#[test]
fn sim_cores_call_each_other() {
    for seed in 0..50 {
        let report = cross_core(seed, Faults::hidden()).unwrap();
        assert!(report.counters.remote_wakes > 0, "seed {seed}: cores slept and were woken");
        assert_eq!(report.counters.task_panics, 0);
    }
}

#[test]
fn sim_the_same_seed_is_the_same_run() {
    let mut hashes = std::collections::BTreeSet::new();
    for seed in 0..10 {
        let (a, b) = (cross_core(seed, Faults::hidden()), cross_core(seed, Faults::hidden()));
        let (a, b) = (a.unwrap(), b.unwrap());
        assert_eq!((a.trace_hash, a.steps, a.elapsed), (b.trace_hash, b.steps, b.elapsed));
        assert_eq!(a.counters, b.counters, "seed {seed}");
        hashes.insert(a.trace_hash);
    }
    assert_eq!(hashes.len(), 10, "other seeds are other runs");
}

#[test]
fn sim_a_deadlock_is_told_with_the_tasks_that_wait() {
    let sim = Sim::builder().build();
    sim.host("server", 2, |_core| std::future::pending::<()>());
    sim.client("stuck", async || {
        drop(spawn_named("never", std::future::pending::<()>()));
        spawn(std::future::pending::<()>()).await.unwrap();
    });
    let error = sim.run().unwrap_err();
    let Failure::Deadlock { waiting } = error.failure() else { panic!("{error}") };
    assert_eq!(waiting.len(), 3, "a line for each core: {waiting:?}");
    assert!(waiting[2].starts_with("stuck core 0: the main future, task"), "{waiting:?}");
    assert!(waiting[2].contains("`never`"), "{waiting:?}");
    assert!(error.to_string().contains("CORELOOP_SEED=0"), "{error}");
}

#[test]
fn sim_limits_end_what_does_not() {
    let sim = Sim::builder().steps_max(5_000).build();
    sim.client("busy", async || {
        loop {
            yield_now().await;
        }
    });
    let error = sim.run().unwrap_err();
    assert!(matches!(error.failure(), Failure::Steps { limit: 5_000, .. }), "{error}");

    let sim = Sim::builder().time_max(Duration::from_secs(60)).build();
    sim.client("waiting", async || {
        loop {
            sleep(Duration::from_secs(1)).await;
        }
    });
    let error = sim.run().unwrap_err();
    assert!(matches!(error.failure(), Failure::Time { .. }), "{error}");
    assert!(error.elapsed() < Duration::from_secs(65), "{error}");
}

#[test]
fn sim_whoever_yields_sees_the_clock_move() {
    let sim = Sim::builder().build();
    sim.client("yielding", async || {
        let began = Instant::now();
        while began.elapsed() < Duration::from_millis(1) {
            yield_now().await;
        }
    });
    sim.run().unwrap();
}

#[test]
fn sim_panics_and_errors_of_main_futures_are_told_by_name() {
    let sim = Sim::builder().seed(3).build();
    sim.host("server", 1, |_core| async {
        sleep(Duration::from_secs(5)).await;
        panic!("the bottom fell out");
    });
    sim.client("client", || sleep(Duration::from_secs(10)));
    let error = sim.run().unwrap_err();
    assert!(error.to_string().contains("the bottom fell out"), "{error}");
    let Failure::Panicked { host, core: 0, .. } = error.failure() else { panic!("{error}") };
    assert_eq!((host.as_str(), error.seed()), ("server", 3));
    let s = error.elapsed().as_secs_f64();
    assert!((5.0..5.1).contains(&s), "it was seen at once: {s}");

    let sim = Sim::builder().build();
    sim.client("client", async || Err::<(), _>("no such luck"));
    let error = sim.run().unwrap_err();
    assert!(matches!(error.failure(), Failure::Failed { .. }), "{error}");
    assert!(error.to_string().contains("no such luck"), "{error}");
}

#[test]
fn sim_a_stopped_host_runs_its_destructors_and_is_closed() {
    struct Counted(Rc<Cell<u32>>);
    impl Drop for Counted {
        fn drop(&mut self) {
            self.0.set(self.0.get() + 1);
        }
    }
    let dropped = Rc::new(Cell::new(0));
    let sim = Sim::builder().build();
    let counter = dropped.clone();
    sim.host("server", 2, move |_core| {
        let (a, b) = (Counted(counter.clone()), Counted(counter.clone()));
        drop(spawn(async move {
            let _held = a;
            std::future::pending::<()>().await;
        }));
        async move {
            let _held = b;
            std::future::pending::<()>().await;
        }
    });
    sim.client("client", || sleep(Duration::from_secs(1)));
    sim.run().unwrap();
    assert_eq!(dropped.get(), 4, "a task and a main future on each of two cores");
}

/// The handle that a host left at its boot of this number.
async fn booted(handles: &RefCell<Vec<Handle>>, boot: usize) -> Handle {
    loop {
        if let Some(handle) = handles.borrow().get(boot) {
            return handle.clone();
        }
        sleep(Duration::from_millis(1)).await;
    }
}

#[test]
fn sim_a_crashed_core_answers_with_an_error_and_comes_back_fresh() {
    coreloop::sim::check(300, |sim| {
        let handles: Rc<RefCell<Vec<Handle>>> = Rc::default();
        let boots = Rc::new(Cell::new(0));
        let (seen, counted) = (handles.clone(), boots.clone());
        sim.host("server", 2, move |core| {
            if core.index() == 0 {
                counted.set(counted.get() + 1);
                seen.borrow_mut().push(core.handle().clone());
            }
            std::future::pending::<()>()
        });
        let own = sim.clone();
        sim.client("client", async move || {
            let old = booted(&handles, 0).await;
            let remote = old.spawn_on(1, std::future::pending::<()>).unwrap();
            sleep(Duration::from_millis(1)).await;
            own.crash("server");
            let gone = timeout(Duration::from_secs(1), remote).await.unwrap();
            assert_eq!(gone, Err(RemoteError::Gone));
            assert!(old.call_soon_threadsafe(0, || ()).is_err(), "the core has ended");
            own.restart("server");
            let fresh = booted(&handles, 1).await;
            assert_eq!(fresh.spawn_on(1, || async { 9 }).unwrap().await, Ok(9));
            assert_eq!(boots.get(), 2);
        });
    });
}

#[test]
fn sim_a_failing_seed_is_told_with_how_to_see_it_again() {
    let build = Sim::builder();
    let one_in_eight = |sim: &Sim| {
        let own = sim.clone();
        sim.client("client", async move || assert_ne!(own.random() % 8, 0, "an unlucky number"));
    };
    let error = build.first_failure(200, one_in_eight).expect("one in eight fails");
    let again = build.clone().seed(error.seed()).build();
    one_in_eight(&again);
    assert_eq!(again.run().unwrap_err().to_string(), error.to_string());
}
