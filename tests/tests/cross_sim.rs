//! Sixteen simulated cores that send each other messages: none is lost, whatever the order of their steps.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use coreloop::cross::{self, Receiver, Sender, Sharded};
use coreloop::sim::{Faults, Report, Sim};
use coreloop::time::sleep;
use coreloop::{Core, spawn, yield_now};

const CORES: usize = 16;
const EACH: u64 = 12;
const SEEDS: u64 = 20;

/// A channel from each core to each, in one row for each core.
struct Mesh {
    senders: Vec<Vec<Sender<u64>>>,
    receivers: Vec<Vec<Receiver<u64>>>,
}

impl Mesh {
    fn new(capacity: usize) -> Self {
        let mut senders: Vec<_> = (0..CORES).map(|_| Vec::new()).collect();
        let mut receivers: Vec<_> = (0..CORES).map(|_| Vec::new()).collect();
        for row in &mut senders {
            for column in &mut receivers {
                let (tx, rx) = cross::channel(capacity);
                row.push(tx);
                column.push(rx);
            }
        }
        Self { senders, receivers }
    }
}

async fn talk(core: Core, mesh: Rc<RefCell<Mesh>>, random: Sim) {
    let at = core.index();
    let senders = std::mem::take(&mut mesh.borrow_mut().senders[at]);
    let receivers = std::mem::take(&mut mesh.borrow_mut().receivers[at]);
    let mut tasks = Vec::new();
    for mut tx in senders {
        let random = random.clone();
        tasks.push(spawn(async move {
            for i in 0..EACH {
                match random.random() % 4 {
                    0 => yield_now().await,
                    1 => sleep(Duration::from_micros(random.random() % 3_000)).await,
                    _ => {}
                }
                tx.send(at as u64 * EACH + i).await.unwrap();
            }
        }));
    }
    for (from, mut rx) in receivers.into_iter().enumerate() {
        tasks.push(spawn(async move {
            for i in 0..EACH {
                assert_eq!(rx.recv().await, Some(from as u64 * EACH + i));
            }
            assert_eq!(rx.recv().await, None);
        }));
    }
    for task in tasks {
        task.await.unwrap();
    }
}

fn meshed(seed: u64, capacity: usize) -> Report {
    let sim = Sim::builder().seed(seed).faults(Faults::hidden()).build();
    let mesh = Rc::new(RefCell::new(Mesh::new(capacity)));
    let own = sim.clone();
    sim.host("machine", CORES, move |core| talk(core, mesh.clone(), own.clone()));
    sim.run().unwrap_or_else(|e| panic!("{e}"))
}

#[test]
fn cross_sim_sixteen_cores_lose_no_message() {
    for seed in 0..SEEDS {
        let report = meshed(seed, 1 + seed as usize % 5);
        assert!(report.counters.remote_wakes > 0, "seed {seed}: cores slept and were woken");
        assert_eq!(report.counters.task_panics, 0);
    }
}

#[test]
fn cross_sim_the_same_seed_is_the_same_run() {
    for seed in [3, 4] {
        let (a, b) = (meshed(seed, 2), meshed(seed, 2));
        assert_eq!((a.trace_hash, a.steps, a.elapsed), (b.trace_hash, b.steps, b.elapsed));
        assert_eq!(a.counters, b.counters);
    }
    assert_ne!(meshed(3, 2).trace_hash, meshed(4, 2).trace_hash);
}

#[test]
fn cross_sim_sharded_counters_add_up() {
    for seed in 0..SEEDS {
        let sim = Sim::builder().seed(seed).faults(Faults::hidden()).build();
        sim.host("machine", CORES, |core| async move {
            if core.index() > 0 {
                // They serve until the first one has its sum.
                return sleep(Duration::from_secs(60)).await;
            }
            let all = Sharded::new(core.handle(), async |core| RefCell::new(core)).await.unwrap();
            for to in 0..CORES {
                all.on(to, async |n| *n.borrow_mut() += 1).await.unwrap();
            }
            let sum = all.map_reduce(async |n| *n.borrow(), 0, |a, b| a + b).await;
            assert_eq!(sum, Ok(CORES * (CORES + 1) / 2));
        });
        sim.run().unwrap_or_else(|e| panic!("{e}"));
    }
}

#[test]
fn cross_sim_a_crashed_host_answers_what_waits() {
    for seed in 0..SEEDS {
        let sim = Sim::builder().seed(seed).faults(Faults::hidden()).build();
        let ends = Rc::new(RefCell::new(None));
        let (taken, own) = (ends.clone(), sim.clone());
        sim.host("server", 2, move |core| {
            let ends = if core.index() == 1 { taken.borrow_mut().take() } else { None };
            async move {
                let ends: Option<(Receiver<u64>, Sender<u64>)> = ends;
                if let Some((mut rx, mut tx)) = ends {
                    while let Some(n) = rx.recv().await {
                        sleep(Duration::from_millis(1)).await;
                        if tx.send(n).await.is_err() {
                            break;
                        }
                    }
                }
                std::future::pending::<()>().await;
            }
        });
        let ((mut to, there), (fro, mut back)) = (cross::channel(2), cross::channel(2));
        *ends.borrow_mut() = Some((there, fro));
        sim.client("client", async move || {
            let receives = spawn(async move {
                let mut n = 0;
                while let Some(i) = back.recv().await {
                    assert_eq!(i, n);
                    n += 1;
                }
                n
            });
            drop(spawn(async move {
                sleep(Duration::from_millis(20)).await;
                own.crash("server");
            }));
            let mut sent = 0;
            while to.send(sent).await.is_ok() {
                sent += 1;
            }
            let received = receives.await.unwrap();
            assert!(received <= sent && received > 3, "{received} of {sent}");
        });
        sim.run().unwrap_or_else(|e| panic!("{e}"));
    }
}
