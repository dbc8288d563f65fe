//! Sixteen simulated cores that send each other messages: none is lost, whatever the order of their steps.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use coreloop::cross::{self, Receiver, SendError, Sender, Sharded};
use coreloop::sim::{Faults, Report, Sim};
use coreloop::time::sleep;
use coreloop::{Core, PostError, RemoteError, spawn, yield_now};

const CORES: usize = 16;
const EACH: u64 = 12;
const SEEDS: u64 = 20;

/// A channel from each core to each, in one row for each core.
struct Mesh<T: Send + 'static> {
    senders: Vec<Vec<Sender<T>>>,
    receivers: Vec<Vec<Receiver<T>>>,
}

impl<T: Send + 'static> Mesh<T> {
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

async fn talk(core: Core, mesh: Rc<RefCell<Mesh<u64>>>, random: Sim) {
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

/// What became of messages.
#[derive(Default)]
struct Counts {
    made: AtomicU64,
    delivered: AtomicU64,
    came_back: AtomicU64,
    dropped: AtomicU64,
}

/// Is counted once, where it ends.
struct Message {
    number: u64,
    ends: Option<Arc<Counts>>,
}

impl Message {
    fn new(number: u64, counts: &Arc<Counts>) -> Self {
        counts.made.fetch_add(1, Ordering::Relaxed);
        Self { number, ends: Some(counts.clone()) }
    }

    fn ends(mut self, how: impl Fn(&Counts) -> &AtomicU64) -> u64 {
        let counts = self.ends.take().expect("it ends once");
        how(&counts).fetch_add(1, Ordering::Relaxed);
        self.number
    }
}

impl Drop for Message {
    fn drop(&mut self) {
        if let Some(counts) = self.ends.take() {
            counts.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// A core of sixteen, of which one ends in the middle. How many of its calls to that one were answered, and how
/// many were not.
async fn outlive(
    core: Core,
    mesh: Rc<RefCell<Mesh<Message>>>,
    counts: Arc<Counts>,
    dies: usize,
    random: Sim,
) -> (u64, u64) {
    let at = core.index();
    let senders = std::mem::take(&mut mesh.borrow_mut().senders[at]);
    let receivers = std::mem::take(&mut mesh.borrow_mut().receivers[at]);
    let mut tasks = Vec::new();
    for (to, mut tx) in senders.into_iter().enumerate() {
        let (random, counts) = (random.clone(), counts.clone());
        tasks.push(spawn(async move {
            for i in 0..EACH {
                sleep(Duration::from_micros(random.random() % 500)).await;
                if let Err(SendError(message)) = tx.send(Message::new(i, &counts)).await {
                    assert_eq!(to, dies, "the others take what is theirs");
                    message.ends(|counts| &counts.came_back);
                }
            }
        }));
    }
    for (from, mut rx) in receivers.into_iter().enumerate() {
        tasks.push(spawn(async move {
            let mut next = 0;
            while let Some(message) = rx.recv().await {
                assert_eq!(message.ends(|counts| &counts.delivered), next);
                next += 1;
            }
            assert!(next == EACH || from == dies, "{next} of {EACH} from {from}");
        }));
    }
    if at == dies {
        sleep(Duration::from_micros(500 + random.random() % 3_000)).await;
        return (0, 0);
    }
    let (mut answered, mut gone) = (0, 0);
    for i in 0..EACH {
        let pause = Duration::from_micros(random.random() % 1_000);
        let call = move || async move {
            sleep(pause).await;
            i
        };
        match core.handle().spawn_on_when_room(dies, call).await {
            Ok(task) => match task.await {
                Ok(value) => {
                    assert_eq!(value, i);
                    answered += 1;
                }
                Err(RemoteError::Gone) => gone += 1,
                Err(e) => panic!("{e}"),
            },
            Err(PostError::CoreGone) => gone += 1,
            Err(e) => panic!("{e}"),
        }
    }
    for task in tasks {
        task.await.unwrap();
    }
    (answered, gone)
}

#[test]
fn cross_sim_one_of_sixteen_cores_dies_and_everything_is_answered() {
    let calls = Rc::new(Cell::new((0, 0)));
    let mut all = [0; 3];
    for seed in 0..SEEDS {
        let sim = Sim::builder().seed(seed).faults(Faults::hidden()).build();
        let mesh = Rc::new(RefCell::new(Mesh::new(1 + seed as usize % 5)));
        let (counts, own) = (Arc::new(Counts::default()), sim.clone());
        let (all_counts, told) = (counts.clone(), calls.clone());
        let dies = seed as usize % CORES;
        sim.host("machine", CORES, move |core| {
            let (mesh, counts) = (mesh.clone(), all_counts.clone());
            let (told, own) = (told.clone(), own.clone());
            async move {
                let (answered, gone) = outlive(core, mesh, counts, dies, own).await;
                told.set((told.get().0 + answered, told.get().1 + gone));
            }
        });
        sim.run().unwrap_or_else(|e| panic!("{e}"));
        let [made, delivered, came_back, dropped] =
            [&counts.made, &counts.delivered, &counts.came_back, &counts.dropped]
                .map(|n| n.load(Ordering::Relaxed));
        assert_eq!(made, delivered + came_back + dropped, "seed {seed}");
        // Between the fifteen that live on nothing is lost.
        assert!(delivered >= 15 * 15 * EACH, "seed {seed}");
        all = [all[0] + delivered, all[1] + came_back, all[2] + dropped];
    }
    assert!(all.iter().all(|n| *n > 0), "delivered, came back, dropped: {all:?}");
    let (answered, gone) = calls.get();
    assert_eq!(answered + gone, SEEDS * 15 * EACH);
    assert!(answered > 0 && gone > 0, "{answered} answered, {gone} gone");
    coreloop_tests::figure!("messages {all:?}; {answered} calls answered, {gone} gone");
}
