//! The way down of a server: not ready, no more accepted, drained within a limit, cancelled, gone; on every
//! core, with every connection accounted for.

use std::cell::Cell;
use std::io::{Read, Write};
use std::net::TcpStream as StdStream;
use std::rc::Rc;
use std::sync::mpsc;
use std::time::Duration;

use coreloop::cancel::{Cancelled, Interruptible};
use coreloop::shutdown::{Drained, Graceful};
use coreloop::signal::{Signal, Signals};
use coreloop::time::{Instant, sleep};
use coreloop::{Cores, Runtime, spawn, yield_now};
use coreloop_net::TcpListener;
use coreloop_tests::drive::Drops;
use coreloop_tests::process::kill;
use coreloop_tests::{in_child, net, poll_once};

const MS: Duration = Duration::from_millis(1);

#[coreloop::test(sim, seeds = 20)]
async fn shutdown_phases_come_in_their_order_and_time() {
    let graceful = Graceful::new(300 * MS).lame_duck(100 * MS).closing_within(50 * MS);
    let here = graceful.here();
    assert!(graceful.is_ready());
    yield_now().await;
    let began = Instant::now();
    assert!(graceful.begin());
    assert!(!graceful.begin(), "it had begun");
    graceful.begun().await;
    assert!(!graceful.is_ready());
    assert!(!here.stopping().is_cancelled(), "a lame duck goes on accepting");
    here.stopping().cancelled().await;
    let stopped = began.elapsed();
    assert!(stopped >= 100 * MS && stopped < 150 * MS, "{stopped:?}");
    assert!(!here.cancelling().is_cancelled());
    here.cancelling().cancelled().await;
    let cancelled = began.elapsed();
    assert!(cancelled >= 400 * MS && cancelled < 450 * MS, "{cancelled:?}");
    assert_eq!(here.drained().await, Drained::default());
}

#[coreloop::test(sim, seeds = 20)]
async fn shutdown_counts_what_finished_what_was_cancelled_and_what_is_left() {
    let graceful = Graceful::new(100 * MS).closing_within(50 * MS);
    let here = graceful.here();
    let drops = Drops::new();
    // Before the end begins nothing is counted.
    here.spawn(async {}).await.unwrap().unwrap();
    for ms in [10u32, 20, 30, 1_000, 2_000] {
        let guard = drops.guard();
        drop(here.spawn(async move {
            let _guard = guard;
            sleep(ms * MS).await;
        }));
    }
    // One that does not listen.
    let stubborn = here.guard();
    drop(spawn(async move {
        sleep(10_000 * MS).await;
        drop(stubborn);
    }));
    assert_eq!(here.serving(), 6);
    let began = Instant::now();
    graceful.begin();
    let drained = here.drained().await;
    assert_eq!(drained, Drained { finished: 3, cancelled: 2, left: 1 });
    assert_eq!(drops.count(), 5, "destructors have run by then");
    let took = began.elapsed();
    assert!(took >= 150 * MS && took < 200 * MS, "{took:?}");
}

#[coreloop::test(sim, seeds = 20)]
async fn shutdown_ends_when_the_last_has_finished_and_not_at_the_limit() {
    let graceful = Graceful::new(Duration::MAX);
    let here = graceful.here();
    let done = Rc::new(Cell::new(false));
    let says = done.clone();
    drop(here.spawn(async move {
        sleep(40 * MS).await;
        says.set(true);
    }));
    let waits = here.clone();
    let drained = spawn(async move { waits.drained().await });
    sleep(20 * MS).await;
    assert!(!drained.is_finished(), "it waits for the begin");
    graceful.begin();
    assert_eq!(drained.await.unwrap(), Drained { finished: 1, ..Drained::default() });
    assert!(done.get());
}

#[coreloop::test(sim, seeds = 20)]
async fn shutdown_at_once_cuts_the_drain_short() {
    for begun in [true, false] {
        let graceful = Graceful::new(Duration::MAX).lame_duck(3_600_000 * MS);
        let here = graceful.here();
        let never = here.spawn(std::future::pending::<()>());
        if begun {
            graceful.begin();
            sleep(10 * MS).await;
            assert!(!here.stopping().is_cancelled());
        }
        let began = Instant::now();
        graceful.at_once();
        assert_eq!(here.drained().await, Drained { cancelled: 1, ..Drained::default() });
        assert!(began.elapsed() < 10 * MS);
        let e = never.await.unwrap().unwrap_err();
        assert!(Cancelled::is(&e.into()));
    }
}

/// Serves requests of a byte, each of which takes `work`, until it is told to stop between two.
async fn serve(
    graceful: Graceful,
    work: Duration,
    core: usize,
    port: mpsc::Sender<(usize, u16)>,
) -> Drained {
    let here = graceful.here();
    let mut listener = TcpListener::bind("127.0.0.1:0").unwrap();
    port.send((core, listener.local_addr().unwrap().port())).unwrap();
    while let Ok(mut stream) = listener.accept().cancel_on(here.stopping()).await {
        let stopping = here.stopping().clone();
        drop(here.spawn(async move {
            while let Ok(Some(chunk)) = stream.recv().cancel_on(&stopping).await {
                sleep(work).await;
                stream.write_all(chunk).await.unwrap();
            }
        }));
    }
    drop(listener);
    here.drained().await
}

/// Three cores, on one CPU.
fn three_cores() -> Runtime {
    let cores = Cores::These(vec![coreloop::placement::allowed_cpus()[0]; 3]);
    Runtime::builder().cores(cores).build().unwrap()
}

/// A server of three cores with so many clients at each, each within a request when the signals come; what it
/// said, and how many clients had their answer.
fn signalled(
    clients: [usize; 3],
    work: Duration,
    limit: Duration,
    signals: u32,
) -> (Drained, usize) {
    let graceful = Graceful::new(limit);
    let (port, ports) = mpsc::channel();
    let (subscribed, is_subscribed) = mpsc::channel();
    let server = std::thread::spawn(move || {
        let ended = three_cores().run(move |core| {
            let (graceful, port, subscribed) = (graceful.clone(), port.clone(), subscribed.clone());
            async move {
                let signals = Signals::new([Signal::TERM, Signal::INT]).unwrap();
                let heeding = graceful.clone();
                drop(spawn(async move { heeding.on_signals(signals).await }));
                subscribed.send(()).unwrap();
                serve(graceful, work, core.index(), port).await
            }
        });
        ended.unwrap().into_iter().sum()
    });
    let ports: Vec<_> = (0..3).map(|_| ports.recv().unwrap()).collect();
    (0..3).for_each(|_| is_subscribed.recv().unwrap());
    let mut all = Vec::new();
    for (core, port) in ports {
        for _ in 0..clients[core] {
            let mut client = StdStream::connect(("127.0.0.1", port)).unwrap();
            client.set_read_timeout(Some(net::PATIENCE)).unwrap();
            client.write_all(b"x").unwrap();
            all.push(client);
        }
    }
    // Each has been read by now, on any machine that is not stuck.
    std::thread::sleep(200 * MS);
    for _ in 0..signals {
        kill(std::process::id() as i32, libc::SIGTERM);
        std::thread::sleep(50 * MS);
    }
    let drained = server.join().unwrap();
    let answered = all.into_iter().filter_map(|mut c| c.read(&mut [0; 8]).ok()).sum();
    (drained, answered)
}

#[test]
fn shutdown_a_signal_lets_every_core_finish_its_requests() {
    in_child("shutdown_a_signal_lets_every_core_finish_its_requests", || {
        let (drained, answered) = signalled([20; 3], 600 * MS, net::PATIENCE, 1);
        assert_eq!(drained, Drained { finished: 60, ..Drained::default() });
        assert_eq!(answered, 60);
    });
}

#[test]
fn shutdown_past_the_limit_requests_are_cancelled() {
    in_child("shutdown_past_the_limit_requests_are_cancelled", || {
        let (drained, answered) = signalled([5; 3], 3600 * 1000 * MS, 100 * MS, 1);
        assert_eq!(drained, Drained { cancelled: 15, ..Drained::default() });
        assert_eq!(answered, 0);
    });
}

#[test]
fn shutdown_a_second_signal_ends_it_at_once() {
    in_child("shutdown_a_second_signal_ends_it_at_once", || {
        let (drained, _) = signalled([5; 3], 3600 * 1000 * MS, Duration::MAX, 2);
        assert_eq!(drained, Drained { cancelled: 15, ..Drained::default() });
    });
}

#[test]
fn shutdown_a_second_signal_is_heard_by_cores_that_drain_while_others_have_ended() {
    let name = "shutdown_a_second_signal_is_heard_by_cores_that_drain_while_others_have_ended";
    in_child(name, || {
        for busy in 0..3 {
            let mut clients = [0; 3];
            clients[busy] = 2;
            let (drained, _) = signalled(clients, 3600 * 1000 * MS, Duration::MAX, 2);
            assert_eq!(drained, Drained { cancelled: 2, ..Drained::default() });
        }
    });
}

#[test]
fn shutdown_reaches_16_simulated_cores() {
    coreloop::sim::check(20, |sim| {
        let graceful = Graceful::new(1_000 * MS).lame_duck(10 * MS);
        let begins = graceful.clone();
        sim.client("server", move || {
            let begins = begins.clone();
            async move {
                sleep(20 * MS).await;
                begins.begin();
                sleep(2_000 * MS).await;
            }
        });
        sim.host("cores", 16, move |core| {
            let graceful = graceful.clone();
            async move {
                let here = graceful.here();
                drop(here.spawn(sleep((core.index() as u32 * 10) * MS)));
                let began = Instant::now();
                let drained = here.drained().await;
                // The first ended before the begin; where a link's delays leave no doubt, later ones did not.
                assert_eq!(drained.cancelled + drained.left, 0);
                match core.index() {
                    0 => assert_eq!(drained.finished, 0),
                    8.. => assert_eq!(drained.finished, 1),
                    _ => {}
                }
                assert!(began.elapsed() >= 25 * MS);
            }
        });
    });
}

/// A core on which something runs for all stays until all have drained, also those of which nobody waits for
/// their end, and no longer than the limits allow where one hangs.
#[coreloop::test(sim, seeds = 20)]
async fn shutdown_a_core_may_wait_for_all() {
    let graceful = Graceful::new(300 * MS).closing_within(50 * MS);
    let (here, other, gone, hangs) =
        (graceful.here(), graceful.here(), graceful.here(), graceful.here());
    let ended = Rc::new(Cell::new(false));
    let (guard, seen) = (other.guard(), ended.clone());
    drop(spawn(async move {
        sleep(100 * MS).await;
        drop(guard);
        assert_eq!(other.drained().await, Drained { finished: 1, ..Drained::default() });
        seen.set(true);
        // Again, and counted once.
        other.drained().await;
        std::future::pending::<()>().await;
    }));
    let began = Instant::now();
    graceful.begin();
    here.drained().await;
    assert!(!ended.get());
    let mut all = Box::pin(here.all_drained());
    assert!(poll_once(all.as_mut()).await.is_pending());
    sleep(150 * MS).await;
    assert!(ended.get());
    assert!(poll_once(all.as_mut()).await.is_pending(), "of two nobody has heard");
    drop(gone);
    sleep(10 * MS).await;
    assert!(poll_once(all.as_mut()).await.is_pending());
    let late = hangs.clone();
    drop(hangs);
    all.await;
    let took = began.elapsed();
    assert!((350 * MS..400 * MS).contains(&took), "{took:?}");
    // Nothing but that one is waited for.
    let again = spawn(async move { here.all_drained().await });
    drop(late);
    again.await.unwrap();
    assert_eq!(began.elapsed().as_millis(), took.as_millis());
}

/// The time for closing is waited once, whoever needs it.
#[coreloop::test(sim, seeds = 5)]
async fn shutdown_the_closing_time_is_one_for_all() {
    let graceful = Graceful::new(300 * MS).closing_within(50 * MS);
    let (here, hangs) = (graceful.here(), graceful.here());
    let (_left, _other) = (here.guard(), hangs.guard());
    let began = Instant::now();
    graceful.begin();
    assert_eq!(here.all_drained().await.left, 1);
    let took = began.elapsed();
    assert!((350 * MS..380 * MS).contains(&took), "{took:?}");
}

/// The first core alone hears of signals, and has nothing to drain: the second signal ends what others have.
#[test]
fn shutdown_signals_are_heard_by_a_core_that_waits_for_all() {
    in_child("shutdown_signals_are_heard_by_a_core_that_waits_for_all", || {
        let graceful = Graceful::new(Duration::MAX);
        let (serves, is_served) = mpsc::channel();
        let (drained, has_drained) = mpsc::channel();
        let server = std::thread::spawn(move || {
            let ended = three_cores().run(move |core| {
                let (graceful, serves, drained) =
                    (graceful.clone(), serves.clone(), drained.clone());
                async move {
                    let here = graceful.here();
                    if core.index() > 0 {
                        drop(here.spawn(std::future::pending::<()>()));
                        serves.send(()).unwrap();
                        return here.drained().await;
                    }
                    let signals = Signals::new([Signal::TERM]).unwrap();
                    drop(spawn(async move { graceful.on_signals(signals).await }));
                    serves.send(()).unwrap();
                    here.drained().await;
                    drained.send(()).unwrap();
                    here.all_drained().await
                }
            });
            ended.unwrap().into_iter().sum::<Drained>()
        });
        (0..3).for_each(|_| is_served.recv().unwrap());
        kill(std::process::id() as i32, libc::SIGTERM);
        has_drained.recv().unwrap();
        kill(std::process::id() as i32, libc::SIGTERM);
        let all = server.join().unwrap();
        assert_eq!(all, Drained { cancelled: 2, ..Drained::default() });
    });
}
