//! Live connections that change cores while bytes are in flight: none is lost, doubled or out of order, however
//! often; and a balancer that levels what a bad start has made.

use std::cell::Cell;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream as StdStream};
use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

use coreloop::cross::Sharded;
use coreloop::placement::allowed_cpus;
use coreloop::shutdown::Graceful;
use coreloop::time::{Instant, sleep};
use coreloop::{Cores, Handle, PostError, Runtime, spawn};
use coreloop_net::spread::{Balancer, Counted, Loads, Measure, Policy};
use coreloop_net::{TcpListener, TcpStream};
use coreloop_tests::drive::{Rng, pattern_at, poll_once};
use coreloop_tests::net::{PATIENCE, std_pair};

/// Cores of these tests: more than there are CPUs, so that they also take turns.
const CORES: usize = 3;

fn runtime() -> Runtime {
    let cpus = allowed_cpus();
    let cpus = (0..CORES).map(|i| cpus[i % cpus.len()]).collect();
    Runtime::builder().cores(Cores::These(cpus)).build().unwrap()
}

/// Echoes, and after some pieces goes to the next core, at points at which as much as possible is under way: a
/// receive that is armed, a chunk that was read in part.
async fn echo_and_go(mut stream: TcpStream, mut random: Rng, moves: Arc<AtomicUsize>) {
    for _ in 0..1 + random.below(3) {
        let piece = match random.below(3) {
            // A part of what came; the rest is kept.
            0 => {
                let (n, mut buf) = stream.read(Vec::with_capacity(100)).await.unwrap();
                buf.truncate(n);
                buf
            }
            _ => stream.recv().await.unwrap().map(|chunk| chunk.to_vec()).unwrap_or_default(),
        };
        if piece.is_empty() {
            return stream.shutdown(Shutdown::Write).unwrap();
        }
        stream.write_all(piece).await.unwrap();
    }
    if random.below(2) == 0 {
        // Armed, and let go of; it may be ready, and then it is an answer.
        let polled = poll_once(pin!(stream.recv())).await;
        if let std::task::Poll::Ready(chunk) = polled {
            let Some(chunk) = chunk.unwrap() else {
                return stream.shutdown(Shutdown::Write).unwrap();
            };
            stream.write_all(chunk).await.unwrap();
        }
    }
    let handle = Handle::current();
    let next = (Handle::current_core().unwrap() + 1) % handle.cores();
    let stream = stream.detach().await.unwrap();
    moves.fetch_add(1, Ordering::Relaxed);
    let goes_on = async move |stream| Box::pin(echo_and_go(stream, random, moves)).await;
    stream.serve_on(&handle, next, goes_on).await.unwrap();
}

/// Sends the pattern from `salt` on in pieces while `more` and reads it back; the bytes that were right, none if
/// any was wrong or missing.
fn through(addr: SocketAddr, salt: usize, more: impl Fn() -> bool + Send + 'static) -> usize {
    let mut stream = StdStream::connect(addr).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_nodelay(true).unwrap();
    let mut out = stream.try_clone().unwrap();
    let writer = thread::spawn(move || {
        let (mut at, mut random) = (0, Rng::new(salt as u64 + 1));
        while at < BYTES_MAX && more() {
            let n = 1 + random.below(3000) as usize;
            let piece: Vec<u8> = (at..at + n).map(|i| pattern_at(salt + i)).collect();
            out.write_all(&piece).unwrap();
            at += n;
        }
        out.shutdown(Shutdown::Write).unwrap();
        at
    });
    let (mut at, mut buf) = (0, vec![0; 1 << 16]);
    loop {
        let n = stream.read(&mut buf).unwrap();
        if n == 0 {
            break;
        }
        if (at..at + n).zip(&buf).any(|(i, byte)| *byte != pattern_at(salt + i)) {
            return 0;
        }
        at += n;
    }
    if writer.join().unwrap() == at { at } else { 0 }
}

/// Bytes of one client, if moves do not come as fast as they should.
const BYTES_MAX: usize = 100_000_000;

#[test]
fn spread_moves_to_and_fro_under_load_lose_no_byte() {
    const CLIENTS: usize = 8;
    const MOVES: usize = 1_500;
    let moves = Arc::new(AtomicUsize::new(0));
    let (counted, seen) = (moves.clone(), moves.clone());
    let graceful = Graceful::new(Duration::from_secs(1));
    let ends = graceful.clone();
    let (tell, told) = mpsc::channel();
    let clients = thread::spawn(move || {
        let addr = told.recv().unwrap();
        let client = |i| {
            let moves = seen.clone();
            let more = move || moves.load(Ordering::Relaxed) < MOVES;
            move || through(addr, i * 1009, more)
        };
        let threads: Vec<_> = (0..CLIENTS).map(|i| thread::spawn(client(i))).collect();
        let right: Vec<_> = threads.into_iter().map(|t| t.join().unwrap_or(0)).collect();
        ends.begin();
        right
    });
    let ended = runtime().run(move |core| {
        let (moves, tell, graceful) = (counted.clone(), tell.clone(), graceful.clone());
        async move {
            if core.index() == 0 {
                let mut listener = TcpListener::bind("127.0.0.1:0").unwrap();
                tell.send(listener.local_addr().unwrap()).unwrap();
                for i in 0..CLIENTS as u64 {
                    let stream = listener.accept().await.unwrap();
                    drop(spawn(echo_and_go(stream, Rng::new(i * 77 + 5), moves.clone())));
                }
            }
            graceful.begun().await;
        }
    });
    assert!(ended.is_ok());
    let right = clients.join().unwrap();
    assert!(right.iter().all(|n| *n > 0), "streams that came back whole: {right:?}");
    let (moves, bytes) = (moves.load(Ordering::Relaxed), right.iter().sum::<usize>());
    coreloop_tests::figure!("{moves} moves of {CLIENTS} connections, {bytes} bytes");
    assert!(moves >= MOVES, "{moves}");
}

#[test]
fn spread_moves_carry_what_was_received_and_not_taken() {
    coreloop::run(async {
        let (ours, mut theirs) = std_pair();
        let mut stream = TcpStream::from_std(ours);
        theirs.write_all(b"one two three").unwrap();
        let (_, one) = stream.read_exact(vec![0; 4]).await.unwrap();
        assert_eq!(one, b"one ");
        for _ in 0..100 {
            let detached = stream.detach().await.unwrap();
            assert_eq!(detached.unread(), b"two three");
            stream = detached.attach();
        }
        theirs.write_all(b" four").unwrap();
        theirs.shutdown(Shutdown::Write).unwrap();
        let (_, rest) = stream.read_exact(vec![0; 14]).await.unwrap();
        assert_eq!(rest, b"two three four");
        assert!(stream.detach().await.unwrap().attach().recv().await.unwrap().is_none());
    })
    .unwrap();
}

#[test]
fn spread_moves_to_a_core_that_ends_come_back() {
    let (tell, told) = mpsc::channel();
    let told = std::sync::Mutex::new(Some(told));
    let ended = runtime().run(move |core| {
        let (tell, told) = (tell.clone(), told.lock().unwrap().take_if(|_| core.index() == 0));
        async move {
            let Some(told) = told else {
                if core.index() == 1 {
                    // What comes for it from now on it does not look at any more.
                    tell.send(()).unwrap();
                    thread::sleep(Duration::from_millis(100));
                }
                return core.index();
            };
            while told.try_recv().is_err() {
                sleep(Duration::from_millis(1)).await;
            }
            let (ours, mut theirs) = std_pair();
            theirs.write_all(b"still here").unwrap();
            let mut stream = TcpStream::from_std(ours);
            // The first is queued there when the core ends, the others find it gone.
            for _ in 0..50 {
                let detached = stream.detach().await.unwrap();
                let never = async |_| panic!("it arrived at a core that had ended");
                let undelivered = detached.serve_on(core.handle(), 1, never).await.unwrap_err();
                assert_eq!(undelivered.why, PostError::CoreGone);
                stream = undelivered.stream.attach();
            }
            let (_, text) = stream.read_exact(vec![0; 10]).await.unwrap();
            assert_eq!(text, b"still here");
            core.index()
        }
    });
    assert_eq!(ended.unwrap(), [0, 1, 2]);
}

/// Serves requests of one byte: its value in hundreds of microseconds of work. Moves when told to.
async fn serve(mut stream: TcpStream, mut counted: Counted, of_cores: Sharded<Balancer>) {
    let Some(balancer) = of_cores.local() else { return };
    loop {
        let Ok((_, request)) = stream.read_exact(vec![0; 1]).await else { return };
        let until = std::time::Instant::now() + request[0] as u32 * Duration::from_micros(100);
        while std::time::Instant::now() < until {}
        let here = counted.core() as u8;
        if stream.write_all(vec![here]).await.is_err() {
            return;
        }
        if let Some(core) = balancer.should_move(&mut counted) {
            let Ok(stream) = stream.detach().await else { return };
            let goes_on = async move |stream| Box::pin(serve(stream, counted, of_cores)).await;
            stream.serve_on(&Handle::current(), core, goes_on).await.unwrap();
            return;
        }
    }
}

/// `clients` connections that all begin at core 0, each of which asks for so much work again and again until
/// `enough` says so of the loads; the loads then, and how many connections were moved.
fn balanced(
    policy: Policy,
    work: fn(usize) -> u8,
    clients: usize,
    enough: fn(&Loads) -> bool,
) -> (Loads, u64) {
    let loads = Loads::new(CORES);
    let graceful = Graceful::new(Duration::ZERO);
    let (tell, told) = mpsc::channel();
    // Begun when the clients are done: no core ends before that.
    let done = Graceful::new(Duration::ZERO);
    let (ends, is_done) = (graceful.clone(), done.clone());
    let driver = thread::spawn(move || {
        let addr: SocketAddr = told.recv().unwrap();
        let client = |i| {
            let graceful = ends.clone();
            move || {
                let mut stream = StdStream::connect(addr).unwrap();
                stream.set_read_timeout(Some(PATIENCE)).unwrap();
                let mut asked = 0;
                while graceful.is_ready() {
                    stream.write_all(&[work(i)]).unwrap();
                    stream.read_exact(&mut [0]).unwrap();
                    asked += 1;
                    thread::sleep(Duration::from_millis(4));
                }
                asked
            }
        };
        let threads: Vec<_> = (0..clients).map(|i| thread::spawn(client(i))).collect();
        let asked = threads.into_iter().map(|t| t.join().unwrap_or(0)).sum::<usize>();
        is_done.begin();
        asked
    });
    let (of_all, seen) = (loads.clone(), Arc::new(AtomicUsize::new(0)));
    let level = seen.clone();
    let last = Arc::new(std::sync::Mutex::new(0));
    let moved = last.clone();
    let ended = runtime().run(move |core| {
        let (loads, tell, graceful) = (of_all.clone(), tell.clone(), graceful.clone());
        let done = done.clone();
        let (policy, seen, moved) = (policy.clone(), seen.clone(), moved.clone());
        async move {
            if core.index() > 0 {
                return done.begun().await;
            }
            let of_cores = {
                let loads = loads.clone();
                let make = async move |core| Balancer::new(&loads, core, policy.clone());
                Sharded::new(core.handle(), make).await.unwrap()
            };
            for core_index in 0..core.count() {
                let of_cores = of_cores.clone();
                let measures = move || async move {
                    let balancer = of_cores.local().unwrap();
                    let _ = balancer.measure().await;
                };
                drop(core.handle().spawn_on(core_index, measures).unwrap());
            }
            let mut listener = TcpListener::bind("127.0.0.1:0").unwrap();
            tell.send(listener.local_addr().unwrap()).unwrap();
            for _ in 0..clients {
                let stream = listener.accept().await.unwrap();
                drop(spawn(serve(stream, loads.count(0), of_cores.clone())));
            }
            let limit = Instant::now() + PATIENCE;
            while !enough(&loads) && Instant::now() < limit {
                sleep(Duration::from_millis(20)).await;
            }
            seen.store(usize::from(enough(&loads)), Ordering::Relaxed);
            let all = of_cores.map_reduce(async |b| b.moved(), 0, |a, b| a + b).await.unwrap();
            *moved.lock().unwrap() = all;
            graceful.begin();
            done.begun().await;
        }
    });
    ended.unwrap();
    let moved = *last.lock().unwrap();
    assert_eq!(level.load(Ordering::Relaxed), 1, "never level, after {moved} moves");
    assert!(driver.join().unwrap() >= clients);
    (loads, moved)
}

#[test]
fn spread_balancer_levels_the_number_of_connections() {
    let mut policy = Policy::default();
    policy.period = Duration::from_millis(20);
    let level = |loads: &Loads| loads.all().iter().all(|load| (6..=15).contains(&load.connections));
    let (loads, moved) = balanced(policy, |_| 0, 30, level);
    // 30 on one core, 10 on each at best: twenty have to go, and each goes once or hardly more.
    assert!((15..=40).contains(&moved), "{moved} moves: {loads:?}");
}

#[test]
fn spread_balancer_by_work_moves_away_from_the_busy_core() {
    let mut policy = Policy::default();
    policy.measure = Measure::Busy;
    policy.period = Duration::from_millis(50);
    policy.stay = Duration::from_millis(200);
    let away = |loads: &Loads| (1..CORES).all(|core| loads.of(core).connections >= 1);
    let (_, moved) = balanced(policy, |i| 1 + (i % 2) as u8 * 4, 8, away);
    assert!(moved >= 2);
}

#[test]
fn spread_balancer_knows_whose_connection_it_is() {
    coreloop::run(async {
        let (loads, others) = (Loads::new(2), Loads::new(2));
        let policy = Policy::default();
        let balancer = Balancer::new(&loads, 0, policy);
        let _crowd: Vec<_> = (0..10).map(|_| loads.count(0)).collect();
        let looks = Cell::new(0);
        let asked = |counted: &mut Counted| {
            looks.set(looks.get() + 1);
            balancer.should_move(counted)
        };
        assert_eq!(asked(&mut others.count(0)), None, "of other loads");
        assert_eq!(asked(&mut loads.count(1)), None, "of another core");
        let mut one = loads.count(0);
        assert_eq!(asked(&mut one), Some(1));
        assert_eq!((one.core(), loads.of(1).connections), (1, 1), "it is counted there at once");
        one.move_to(0);
        assert_eq!(asked(&mut one), None, "it has just moved");
    })
    .unwrap();
}
