//! Blocking work under a simulated kernel (B1): no threads, virtual time, and all of it follows from the seed.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use coreloop::combine::gather_handles;
use coreloop::sim::Sim;
use coreloop::time::{Instant, sleep, timeout};
use coreloop::{Settings, spawn_blocking};
use coreloop_tests::drive::Drops;

const MS: Duration = Duration::from_millis(1);

#[coreloop::test(sim, seeds = 20)]
async fn b1_sim_blocking_work_is_done_by_the_thread_that_steps() {
    let here = std::thread::current().id();
    let began = Instant::now();
    let handles = (0..40).map(|i| spawn_blocking(move || (i, std::thread::current().id())));
    let values: Vec<_> = gather_handles(handles).await.into_iter().map(Result::unwrap).collect();
    assert_eq!(values, (0..40).map(|i| (i, here)).collect::<Vec<_>>());
    let took = began.elapsed();
    assert!(took > Duration::ZERO && took < 40 * 25 * MS, "it takes virtual time: {took:?}");
}

#[coreloop::test(sim, seeds = 20)]
async fn b1_sim_panics_limits_and_cancels_are_those_of_threads() {
    let e = spawn_blocking(|| panic!("in there")).await.unwrap_err();
    assert_eq!(e.panic_message(), Some("in there"));
    let drops = Drops::new();
    // More than there are stand-ins for threads: some run, some wait.
    let handles: Vec<_> = (0..40)
        .map(|_| {
            let guard = drops.guard();
            spawn_blocking(move || drop(guard))
        })
        .collect();
    sleep(MS).await;
    for handle in handles {
        drop(timeout(Duration::ZERO, handle).await);
    }
    sleep(1_000 * MS).await;
    assert_eq!(drops.count(), 40, "each was run or dropped, once");
}

/// Runs `seed`: the trace's hash, and the order in which closures ran.
fn run(seed: u64, threads: u32) -> (u64, Vec<u32>) {
    let settings = Settings::default().blocking_threads(threads).blocking_queue(4);
    let sim = Sim::builder().seed(seed).settings(settings).build();
    let order = Arc::new(Mutex::new(Vec::new()));
    let seen = order.clone();
    sim.client("client", move || {
        let seen = seen.clone();
        async move {
            let handles = (0..30).map(|i| {
                let seen = seen.clone();
                spawn_blocking(move || seen.lock().unwrap().push(i))
            });
            for ended in gather_handles(handles).await {
                ended.unwrap();
            }
        }
    });
    let report = sim.run().unwrap();
    let order = order.lock().unwrap().clone();
    (report.trace_hash, order)
}

#[test]
fn b1_sim_the_same_seed_gives_the_same_run_and_others_give_others() {
    let mut hashes = Vec::new();
    let mut orders = Vec::new();
    for seed in 0..20 {
        let (hash, order) = run(seed, 3);
        assert_eq!(run(seed, 3), (hash, order.clone()), "seed {seed} once more");
        hashes.push(hash);
        orders.push(order);
    }
    hashes.sort_unstable();
    hashes.dedup();
    orders.sort_unstable();
    orders.dedup();
    assert_eq!(hashes.len(), 20);
    assert!(orders.len() > 10, "closures overtake each other: {} orders", orders.len());
    for seed in 0..20 {
        assert!(run(seed, 1).1.into_iter().eq(0..30), "one thread takes them in order");
    }
}

#[test]
fn b1_sim_a_crash_in_the_middle_leaves_nothing() {
    coreloop::sim::check(20, |sim| {
        let (drops, boots) = (Drops::new(), Rc::new(Cell::new(0)));
        let ends = Rc::new(RefCell::new(Vec::new()));
        let (counted, booted, ended) = (drops.clone(), boots.clone(), ends.clone());
        sim.host("server", 1, move |_core| {
            booted.set(booted.get() + 1);
            let (drops, ends) = (counted.clone(), ended.clone());
            async move {
                let handles = (0..50).map(|_| {
                    let guard = drops.guard();
                    spawn_blocking(move || drop(guard))
                });
                gather_handles(handles).await;
                ends.borrow_mut().push(Instant::now());
                std::future::pending::<()>().await;
            }
        });
        let own = sim.clone();
        sim.client("client", async move || {
            sleep(15 * MS).await;
            own.crash("server");
            sleep(1_000 * MS).await;
            assert_eq!(drops.count(), 50, "run or dropped");
            own.restart("server");
            sleep(1_000 * MS).await;
            assert_eq!((drops.count(), boots.get(), ends.borrow().len()), (100, 2, 1));
        });
    });
}
