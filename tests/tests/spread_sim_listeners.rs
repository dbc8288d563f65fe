//! Sixteen simulated cores that each have a listener: a group that is steered by CPU while others leave it, each
//! way of `accept_spread`, and an end in good order, whatever the order of their steps.

use std::cell::{Cell, OnceCell};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::rc::Rc;
use std::time::Duration;

use coreloop::Core;
use coreloop::cancel::{Interruptible, Token};
use coreloop::config::AcceptSpread;
use coreloop::shutdown::{Drained, Graceful};
use coreloop::sim::{Faults, Report, Sim};
use coreloop::time::sleep;
use coreloop_net::spread::{Acceptors, Group, SteeredListener};
use coreloop_net::{ListenOptions, TcpStream};

const CORES: usize = 16;
const CLIENTS: usize = 48;
const ADDR: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 7000);

fn sim(seed: u64) -> Sim {
    Sim::builder().seed(seed).faults(Faults::hidden()).build()
}

/// The CPU on which the simulation had this connection arrive.
fn cpu_of(stream: &TcpStream) -> usize {
    usize::from(stream.peer_addr().unwrap().port()) % CORES
}

/// What a fault refuses is tried again.
async fn until_ok<T, E>(mut f: impl FnMut() -> Result<T, E>) -> T {
    loop {
        match f() {
            Ok(value) => return value,
            Err(_) => sleep(Duration::from_millis(1)).await,
        }
    }
}

/// Connects until it is taken, and hears a byte of the core.
async fn asks(server: IpAddr) -> u8 {
    loop {
        if let Ok(mut stream) = TcpStream::connect((server, ADDR.port())).await
            && let Ok((_, by)) = stream.read_exact(vec![0; 1]).await
        {
            return by[0];
        }
        sleep(Duration::from_millis(1)).await;
    }
}

/// Has this many clients ask once `ready` says so; how many cores answered.
fn all_ask(sim: Sim, server: IpAddr, ready: &Rc<Cell<usize>>, seed: u64) -> (Report, usize) {
    let answers = Rc::new(Cell::new((0, 0u32)));
    for i in 0..CLIENTS {
        let (answers, ready) = (answers.clone(), ready.clone());
        sim.client(&format!("client-{i}"), async move || {
            while ready.get() < CORES {
                sleep(Duration::from_millis(1)).await;
            }
            let by = asks(server).await;
            let (n, cores) = answers.get();
            answers.set((n + 1, cores | 1 << by));
        });
    }
    let report = sim.run().unwrap_or_else(|e| panic!("seed {seed}: {e}"));
    let (n, cores) = answers.get();
    assert_eq!((n, report.counters.task_panics), (CLIENTS, 0), "seed {seed}");
    (report, cores.count_ones() as usize)
}

async fn steered(core: Core, group: Group, ready: Rc<Cell<usize>>, random: Sim) {
    let pause = || sleep(Duration::from_micros(random.random() % 3_000));
    pause().await;
    // One that is of no use, for a while: when it goes, the last one moves into its place.
    let passing = until_ok(|| group.bind(100 + core.index())).await;
    pause().await;
    let mut listener = until_ok(|| group.bind(core.cpu())).await;
    pause().await;
    drop(passing);
    ready.set(ready.get() + 1);
    loop {
        let mut stream = listener.accept().await.unwrap();
        assert_eq!(cpu_of(&stream), core.cpu(), "at {} of {group:?}", listener.position());
        let _ = stream.write_all(vec![core.index() as u8]).await;
    }
}

fn group_of_cores(seed: u64) -> Report {
    let sim = sim(seed);
    let group = Group::new(ADDR, ListenOptions::default()).unwrap();
    let ready = Rc::new(Cell::new(0));
    let (own, own_ready) = (sim.clone(), ready.clone());
    let server = sim.host("server", CORES, move |core| {
        steered(core, group.clone(), own_ready.clone(), own.clone())
    });
    let (report, cores) = all_ask(sim, server, &ready, seed);
    assert!(cores > CORES / 2, "seed {seed}: {cores} cores answered");
    report
}

#[test]
fn spread_sim_sixteen_cores_get_the_connections_of_their_cpus() {
    for seed in 0..2 {
        group_of_cores(seed);
    }
    let (a, b) = (group_of_cores(2), group_of_cores(2));
    assert_eq!((a.trace_hash, a.steps, a.elapsed), (b.trace_hash, b.steps, b.elapsed));
}

#[test]
fn spread_sim_sixteen_cores_accept_each_way() {
    for (seed, way) in (0..).zip(AcceptSpread::ALL.into_iter().cycle().take(8)) {
        let sim = sim(seed);
        let acceptors = Acceptors::new(ADDR, ListenOptions::default(), way, CORES).unwrap();
        let (ready, loads) = (Rc::new(Cell::new(0)), acceptors.loads().clone());
        let own_ready = ready.clone();
        let server = sim.host("server", CORES, move |core| {
            let (acceptors, ready) = (acceptors.clone(), own_ready.clone());
            async move {
                let mut acceptor = until_ok(|| acceptors.join(&core)).await;
                ready.set(ready.get() + 1);
                loop {
                    let mut accepted = acceptor.accept().await.unwrap();
                    let _ = accepted.write_all(vec![core.index() as u8]).await;
                }
            }
        });
        let (_, cores) = all_ask(sim, server, &ready, seed);
        assert!(cores > CORES / 2, "{way}: {cores} cores answered");
        assert!(loads.all().iter().all(|load| load.connections <= 1), "{way}: {loads:?}");
    }
}

/// Faults refuse a core its place in the group after others have theirs: the connections of those that joined from
/// then on, and how many these are; none if it was the first that was refused, or nobody was.
fn stepped_down(seed: u64) -> Option<(usize, usize)> {
    let sim = Sim::builder().seed(seed).faults(Faults::calls()).build();
    let way = AcceptSpread::Cpu;
    let acceptors = Acceptors::new(ADDR, ListenOptions::default(), way, CORES).unwrap();
    let (ready, had) = (Rc::new(Cell::new(0)), Rc::new(Cell::new((0, 0))));
    let (own, own_ready, own_had) = (acceptors.clone(), ready.clone(), had.clone());
    let server = sim.host("server", CORES, move |core| {
        let (acceptors, ready, had) = (own.clone(), own_ready.clone(), own_had.clone());
        async move {
            let mut acceptor = until_ok(|| acceptors.join(&core)).await;
            let is_late = usize::from(acceptors.stepped_down().is_some());
            had.set((had.get().0, had.get().1 + is_late));
            ready.set(ready.get() + 1);
            loop {
                let Ok(mut accepted) = acceptor.accept().await else { continue };
                had.set((had.get().0 + is_late, had.get().1));
                let _ = accepted.write_all(vec![core.index() as u8]).await;
            }
        }
    });
    all_ask(sim, server, &ready, seed);
    let (_, late) = had.get();
    (1..CORES).contains(&late).then(|| had.get())
}

#[test]
fn spread_sim_a_step_down_in_the_middle_leaves_no_core_out() {
    let found: Vec<_> = (0..100).filter_map(stepped_down).take(3).collect();
    assert_eq!(found.len(), 3, "faults do it in some of these seeds");
    assert!(found.iter().all(|(connections, _)| *connections > 0), "{found:?}");
}

/// Serves until the end has begun, and then what it has accepted to its end.
async fn until_stopped(core: Core, graceful: Graceful, random: Sim) -> Drained {
    let here = graceful.here();
    let acceptors = Acceptors::new(ADDR, ListenOptions::default(), AcceptSpread::default(), CORES);
    let acceptors = acceptors.unwrap();
    let mut acceptor = until_ok(|| acceptors.join(&core)).await;
    if core.index() == random.random() as usize % CORES {
        let (graceful, after) = (graceful.clone(), random.random() % 30);
        drop(coreloop::spawn(async move {
            sleep(Duration::from_millis(after)).await;
            graceful.begin();
        }));
    }
    while let Ok(accepted) = here.stopping().run(acceptor.accept()).await {
        let (mut stream, counted) = accepted.unwrap().into_parts();
        let takes = Duration::from_millis(random.random() % 40);
        drop(here.spawn(async move {
            sleep(takes).await;
            let _ = stream.write_all(vec![counted.core() as u8]).await;
        }));
    }
    drop(acceptor);
    here.drained().await
}

#[test]
fn shutdown_sim_sixteen_cores_end_together_and_answer_what_they_have() {
    for seed in 0..3 {
        let sim = sim(seed);
        let graceful = Graceful::new(Duration::from_secs(5));
        let drained = Rc::new(Cell::new((0, Drained::default())));
        let (own, ends, begins) = (sim.clone(), drained.clone(), graceful.clone());
        let server = sim.host("server", CORES, move |core| {
            let serves = until_stopped(core, graceful.clone(), own.clone());
            let ends = ends.clone();
            async move {
                let here = serves.await;
                let (cores, all) = ends.get();
                ends.set((cores + 1, [all, here].into_iter().sum()));
            }
        });
        for i in 0..CLIENTS {
            sim.client(&format!("client-{i}"), async move || {
                // Whoever comes too late is refused: that is an end too, and no silence.
                if let Ok(mut stream) = TcpStream::connect((server, ADDR.port())).await {
                    let _ = stream.read_exact(vec![0; 1]).await;
                }
            });
        }
        // Whether a core began it or not, it has begun by now.
        sim.client("patience", async move || {
            sleep(Duration::from_millis(100)).await;
            begins.begin();
            sleep(Duration::from_secs(1)).await;
        });
        sim.run().unwrap_or_else(|e| panic!("seed {seed}: {e}"));
        let (cores, all) = drained.get();
        assert_eq!((cores, all.cancelled, all.left), (CORES, 0, 0), "seed {seed}: {all:?}");
    }
}

/// What the cores share while a group's sockets get a new owner.
#[derive(Default)]
struct Change {
    new: OnceCell<Group>,
    /// How many clients have been answered by a listener of the old owner, and of the new one.
    answered: [Cell<usize>; 2],
    /// Cores that have come to: their old listener, their new one, the end of the old one.
    steps: [Cell<usize>; 3],
}

impl Change {
    /// Says that this core has taken a step, and waits for the others.
    async fn together(&self, step: usize) {
        self.steps[step].set(self.steps[step].get() + 1);
        while self.steps[step].get() < CORES {
            sleep(Duration::from_millis(1)).await;
        }
    }
}

/// Accepts until the end, and what had been accepted by then; each hears these two bytes.
async fn answers(mut listener: SteeredListener, says: [u8; 2], end: Token) {
    let answer = |mut stream: TcpStream| {
        drop(coreloop::spawn(async move { stream.write_all(says.to_vec()).await }));
    };
    while let Ok(stream) = listener.accept().cancel_on(&end).await {
        answer(stream);
    }
    for stream in listener.pause().await {
        answer(stream.attach());
    }
}

/// Its old listener, then one of the sockets that came, and then that one alone.
async fn changes(core: Core, old: Group, change: Rc<Change>, random: Sim) {
    let (end, cpu) = (Token::new(), core.cpu() as u8);
    let listener = until_ok(|| old.bind(core.cpu())).await;
    let serves = coreloop::spawn(answers(listener, [0, cpu], end.clone()));
    change.together(0).await;
    sleep(Duration::from_micros(20_000 + random.random() % 3_000)).await;
    // The first may have come from far away.
    while change.answered[0].get() == 0 {
        sleep(Duration::from_millis(1)).await;
    }
    if core.index() == 0 {
        let adopt = || Group::adopt(old.sockets()?, ListenOptions::default());
        let new = until_ok(adopt).await;
        assert!(change.new.set(new).is_ok());
    }
    let new = loop {
        match change.new.get() {
            Some(new) => break new.clone(),
            None => sleep(Duration::from_millis(1)).await,
        }
    };
    let listener = until_ok(|| new.bind(core.cpu())).await;
    let serving = coreloop::spawn(answers(listener, [1, cpu], Token::new()));
    change.together(1).await;
    old.give_away();
    end.cancel();
    serves.await.unwrap();
    // By whichever core is the first: from then on the new table is in force.
    new.own();
    change.together(2).await;
    serving.await.unwrap();
}

#[test]
fn spread_sim_a_group_of_sixteen_changes_its_owner_and_refuses_nobody() {
    for seed in 0..2 {
        let sim = sim(seed);
        let group = Group::new(ADDR, ListenOptions::default()).unwrap();
        let change = Rc::new(Change::default());
        let (own, own_change) = (sim.clone(), change.clone());
        let server = sim.host("server", CORES, move |core| {
            changes(core, group.clone(), own_change.clone(), own.clone())
        });
        for i in 0..CLIENTS {
            let (change, random) = (change.clone(), sim.clone());
            sim.client(&format!("client-{i}"), async move || {
                while change.steps[0].get() < CORES {
                    sleep(Duration::from_millis(1)).await;
                }
                for round in 0..6 {
                    sleep(Duration::from_micros(random.random() % 12_000)).await;
                    // Meanwhile a socket has those of one CPU in its backlog, and gets those of another.
                    let is_over = round >= 5;
                    while is_over && change.steps[2].get() < CORES {
                        sleep(Duration::from_millis(1)).await;
                    }
                    let mut stream = TcpStream::connect((server, ADDR.port())).await.unwrap();
                    let cpu = usize::from(stream.local_addr().unwrap().port()) % CORES;
                    let (_, by) = stream.read_exact(vec![0; 2]).await.unwrap();
                    assert!(!is_over || by == [1, cpu as u8], "{by:?} answers one of CPU {cpu}");
                    let n = &change.answered[usize::from(by[0])];
                    n.set(n.get() + 1);
                }
            });
        }
        let report = sim.run().unwrap_or_else(|e| panic!("seed {seed}: {e}"));
        let [by_old, by_new] = [0, 1].map(|owner| change.answered[owner].get());
        assert_eq!((by_old + by_new, report.counters.task_panics), (CLIENTS * 6, 0), "seed {seed}");
        assert!(by_old > 0 && by_new > 0, "seed {seed}: {by_old} by the old, {by_new} by the new");
    }
}
