//! Where one core accepts for all, cores that have joined are dealt to, and no others: one that joins late has its
//! share from then on, what one that leaves had queued goes to others, one that never joins costs no connection.

use std::cell::Cell;
use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener as StdListener, TcpStream as StdStream};
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

use coreloop::config::AcceptSpread;
use coreloop::placement::allowed_cpus;
use coreloop::shutdown::Graceful;
use coreloop::sim::Sim;
use coreloop::time::{sleep, timeout};
use coreloop::{Core, Cores, Runtime};
use coreloop_net::spread::{Accepted, Acceptors};
use coreloop_net::{ListenOptions, TcpStream};
use coreloop_tests::settled;

const LIMIT: Duration = Duration::from_secs(20);

const WAYS: [AcceptSpread; 2] = [AcceptSpread::RoundRobin, AcceptSpread::LeastConnections];

/// Of a simulated server.
const ADDR: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 7000);

/// Connections that may be queued for a core that does not look.
const QUEUED: std::ops::RangeInclusive<usize> = 64..=80;

fn acceptors(way: AcceptSpread, cores: usize) -> Acceptors {
    Acceptors::new("127.0.0.1:0", ListenOptions::default(), way, cores).unwrap()
}

fn runtime(cores: usize) -> Runtime {
    let cpu = allowed_cpus()[0];
    Runtime::builder().cores(Cores::These(vec![cpu; cores])).build().unwrap()
}

/// One connection after the other, all of which are kept; which core has each. A core joins when so many have
/// been served, or never: its main future has ended then.
fn dealt(way: AcceptSpread, joins: &'static [Option<usize>], clients: usize) -> Vec<usize> {
    let acceptors = acceptors(way, joins.len());
    let graceful = Graceful::new(Duration::ZERO);
    let served = Arc::new(AtomicUsize::new(0));
    let (tell_joined, joined) = mpsc::channel::<()>();
    let (tell, told) = mpsc::channel::<usize>();
    let (own, ends, seen) = (acceptors.clone(), graceful.clone(), served.clone());
    let server = thread::spawn(move || {
        runtime(joins.len()).run(move |core| {
            let (acceptors, graceful, served) = (own.clone(), ends.clone(), seen.clone());
            let (tell_joined, tell) = (tell_joined.clone(), tell.clone());
            async move {
                let Some(after) = joins[core.index()] else { return };
                let here = graceful.here();
                assert!(settled(LIMIT, || served.load(Ordering::SeqCst) >= after).await);
                let mut acceptor = acceptors.join(&core).unwrap();
                tell_joined.send(()).unwrap();
                let mut kept: Vec<Accepted> = Vec::new();
                while let Ok(accepted) = here.stopping().run(acceptor.accept()).await {
                    match accepted {
                        Ok(accepted) => kept.push(accepted),
                        // The core that accepts may have ended first, at the same word.
                        Err(e) if e.kind() == ErrorKind::BrokenPipe && !graceful.is_ready() => {
                            break;
                        }
                        Err(e) => panic!("{e}"),
                    }
                    tell.send(core.index()).unwrap();
                }
            }
        })
    });
    let (mut streams, mut have) = (Vec::new(), 0);
    let cores = (0..clients).map(|i| {
        served.store(i, Ordering::SeqCst);
        let want = joins.iter().flatten().filter(|after| **after <= i).count();
        while have < want {
            joined.recv_timeout(LIMIT).expect("it joins");
            have += 1;
        }
        streams.push(StdStream::connect(acceptors.addr()).unwrap());
        told.recv_timeout(LIMIT).expect("whoever has it has joined")
    });
    let cores = cores.collect();
    graceful.begin();
    server.join().unwrap().unwrap();
    cores
}

#[test]
fn spread_joins_a_core_that_never_joins_is_dealt_nothing() {
    for way in WAYS {
        // More than would be queued for the two together.
        let cores = dealt(way, &[Some(0), None, None], 200);
        assert_eq!(cores, [0; 200], "{way}");
        // And in the middle of others.
        let cores = dealt(way, &[Some(0), None, Some(0)], 8);
        assert_eq!(cores, [0, 2, 0, 2, 0, 2, 0, 2], "{way}");
    }
}

#[test]
fn spread_joins_a_core_that_joins_late_has_its_share_from_then_on() {
    let joins = &[Some(0), Some(4)];
    let in_turn = dealt(AcceptSpread::RoundRobin, joins, 12);
    assert_eq!(in_turn, [0, 0, 0, 0, 1, 0, 1, 0, 1, 0, 1, 0]);
    // First it comes to have as many.
    let to_the_fewest = dealt(AcceptSpread::LeastConnections, joins, 12);
    assert_eq!(to_the_fewest, [0, 0, 0, 0, 1, 1, 1, 1, 0, 1, 0, 1]);
}

/// Whichever of the two comes first.
#[test]
fn spread_joins_without_the_core_that_accepts_is_an_error_and_no_wait() {
    for first in 0..2 {
        let acceptors = acceptors(AcceptSpread::RoundRobin, 2);
        let turn = Arc::new(AtomicUsize::new(first));
        let ended = runtime(2).run(move |core| {
            let (acceptors, turn) = (acceptors.clone(), turn.clone());
            async move {
                assert!(settled(LIMIT, || turn.load(Ordering::SeqCst) == core.index()).await);
                let mut acceptor = acceptors.join(&core).unwrap();
                let again = acceptors.join(&core).unwrap_err();
                assert_eq!(again.kind(), ErrorKind::AlreadyExists);
                if core.index() == 0 {
                    drop(acceptor);
                    turn.store(1, Ordering::SeqCst);
                    return;
                }
                turn.store(0, Ordering::SeqCst);
                let accepted = timeout(LIMIT, acceptor.accept()).await.expect("it hears of it");
                assert_eq!(accepted.unwrap_err().kind(), ErrorKind::BrokenPipe);
            }
        });
        ended.unwrap();
    }
}

#[test]
fn spread_joins_a_core_that_could_not_listen_may_join_again() {
    let taken = StdListener::bind("127.0.0.1:0").unwrap();
    let addr = taken.local_addr().unwrap();
    let way = AcceptSpread::LeastConnections;
    let acceptors = Acceptors::new(addr, ListenOptions::default(), way, 1).unwrap();
    let taken = Arc::new(std::sync::Mutex::new(Some(taken)));
    let ended = runtime(1).run(move |core| {
        let (acceptors, taken) = (acceptors.clone(), taken.clone());
        async move {
            let refused = acceptors.join(&core).unwrap_err();
            assert_eq!(refused.kind(), ErrorKind::AddrInUse);
            drop(taken.lock().unwrap().take());
            let mut acceptor = acceptors.join(&core).unwrap();
            let client = TcpStream::connect(addr).await.unwrap();
            let accepted = timeout(LIMIT, acceptor.accept()).await.unwrap().unwrap();
            assert_eq!(accepted.peer_addr().unwrap(), client.local_addr().unwrap());
        }
    });
    ended.unwrap();
}

/// One that ends soon where somebody waits in vain.
fn sim(seed: u64) -> Sim {
    Sim::builder().seed(seed).time_max(Duration::from_secs(60)).build()
}

async fn connected(server: IpAddr) -> TcpStream {
    loop {
        // Until somebody listens.
        match TcpStream::connect((server, ADDR.port())).await {
            Ok(stream) => return stream,
            Err(_) => sleep(Duration::from_millis(1)).await,
        }
    }
}

async fn is_answered(mut stream: TcpStream) -> bool {
    stream.read_exact(vec![0; 1]).await.is_ok()
}

async fn answer(mut accepted: Accepted) {
    // It stays until the client has let go of it.
    accepted.write_all(vec![1]).await.unwrap();
    let _ = accepted.recv().await;
}

/// What the cores and the client of a simulation have come to.
#[derive(Default)]
struct Seen {
    connected: Cell<usize>,
    /// For the first core, when the other one joined.
    queued: Cell<usize>,
    by_late: Cell<usize>,
    answered: Cell<usize>,
}

fn add(to: &Cell<usize>, n: usize) {
    to.set(to.get() + n);
}

async fn until(condition: impl Fn() -> bool) {
    while !condition() {
        sleep(Duration::from_millis(5)).await;
    }
}

/// The core that accepts does not look at its seat; what finds no room there goes to one that joins later.
#[test]
fn spread_joins_a_dealer_without_room_hears_of_a_core_that_joins() {
    const CLIENTS: usize = 120;
    let left = CLIENTS - QUEUED.end();
    for (seed, way) in (0..).zip(WAYS) {
        let sim = sim(seed);
        let acceptors = Acceptors::new(ADDR, ListenOptions::default(), way, 2).unwrap();
        let seen = Rc::new(Seen::default());
        let own = seen.clone();
        let server = sim.host("server", 2, move |core| {
            let (acceptors, seen) = (acceptors.clone(), own.clone());
            async move {
                let is_late = core.index() == 1;
                if is_late {
                    until(|| seen.connected.get() == CLIENTS).await;
                    sleep(Duration::from_secs(1)).await;
                    seen.queued.set(acceptors.loads().of(0).connections);
                }
                let mut acceptor = acceptors.join(&core).unwrap();
                until(|| is_late || seen.by_late.get() >= left).await;
                loop {
                    drop(coreloop::spawn(answer(acceptor.accept().await.unwrap())));
                    add(&seen.by_late, usize::from(is_late));
                }
            }
        });
        let own = seen.clone();
        sim.client("client", async move || {
            let mut streams = Vec::new();
            for _ in 0..CLIENTS {
                streams.push(connected(server).await);
                add(&own.connected, 1);
            }
            for stream in streams {
                add(&own.answered, usize::from(is_answered(stream).await));
            }
        });
        sim.run().unwrap_or_else(|e| panic!("{way}: {e}"));
        let queued = seen.queued.get();
        assert!(QUEUED.contains(&queued), "{way}: there was room, or too much: {queued}");
        assert!(seen.by_late.get() >= left, "{way}: {}", seen.by_late.get());
        assert_eq!(seen.answered.get(), CLIENTS, "{way}");
    }
}

/// Joins at some time, and may leave soon after; or never does. The first core stays.
async fn comes_and_goes(core: Core, acceptors: Acceptors, random: Sim) {
    let is_first = core.index() == 0;
    let (after, fate) = (random.random() % 30, random.random() % 3);
    if fate == 0 && !is_first {
        return;
    }
    sleep(Duration::from_millis(after)).await;
    let mut acceptor = acceptors.join(&core).unwrap();
    let leaves_after = if fate == 1 && !is_first { 3 } else { usize::MAX };
    for _ in 0..leaves_after {
        let accepted = acceptor.accept().await.unwrap();
        if random.random().is_multiple_of(2) {
            // Meanwhile others are queued for it.
            sleep(Duration::from_millis(2)).await;
        }
        answer(accepted).await;
    }
}

#[test]
fn spread_joins_sixteen_cores_that_come_and_go_cost_no_connection() {
    const CORES: usize = 16;
    const CLIENTS: usize = 24;
    const EACH: usize = 5;
    for (seed, way) in (0..).zip(WAYS.into_iter().cycle().take(4)) {
        let sim = sim(seed);
        let acceptors = Acceptors::new(ADDR, ListenOptions::default(), way, CORES).unwrap();
        let random = sim.clone();
        let server = sim.host("server", CORES, move |core| {
            comes_and_goes(core, acceptors.clone(), random.clone())
        });
        let answered = Rc::new(Cell::new(0));
        for i in 0..CLIENTS {
            let answered = answered.clone();
            sim.client(&format!("client-{i}"), async move || {
                for _ in 0..EACH {
                    let is_answered = is_answered(connected(server).await).await;
                    answered.set(answered.get() + usize::from(is_answered));
                }
            });
        }
        let report = sim.run().unwrap_or_else(|e| panic!("seed {seed}, {way}: {e}"));
        assert_eq!(
            (answered.get(), report.counters.task_panics),
            (CLIENTS * EACH, 0),
            "seed {seed}, {way}"
        );
    }
}
