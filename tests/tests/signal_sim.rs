//! Signals under simulation, with sixteen cores: sent at seeded moments and delivered to any core, several at
//! once, during a stop, with nobody who waits; none is lost, and a stop under load breaks nothing off.

use std::cell::{Cell, RefCell};
use std::net::Ipv4Addr;
use std::rc::Rc;
use std::time::Duration;

use coreloop::cancel::Interruptible;
use coreloop::shutdown::{Drained, Graceful};
use coreloop::signal::{Signal, Signals};
use coreloop::sim::{Faults, Report, Sim};
use coreloop::spawn;
use coreloop::time::{sleep, timeout};
use coreloop_net::{TcpListener, TcpStream};
use coreloop_tests::sim_workload::signals::{self, CORES};

const PORT: u16 = 7000;
const CLIENTS: usize = 24;

#[test]
fn signal_sim_sixteen_cores_hear_of_each() {
    for seed in 0..20 {
        let report = signals::run(seed).unwrap_or_else(|e| panic!("{e}"));
        assert_eq!(report.counters.task_panics, 0);
    }
}

#[test]
fn signal_sim_the_same_seed_is_the_same_run() {
    let (a, b) = (signals::run(5).unwrap(), signals::run(5).unwrap());
    assert_eq!((a.trace_hash, a.steps, a.elapsed), (b.trace_hash, b.steps, b.elapsed));
    assert_ne!(a.trace_hash, signals::run(6).unwrap().trace_hash);
}

#[test]
fn signal_sim_what_nobody_waits_for_does_what_it_does_by_default() {
    for seed in 0..10 {
        let sim = Sim::builder().seed(seed).faults(Faults::hidden()).build();
        let starts = Rc::new(Cell::new(0));
        let counted = starts.clone();
        let server = sim.host("server", CORES, move |core| {
            let counted = counted.clone();
            async move {
                if core.index() > 0 {
                    return std::future::pending().await;
                }
                counted.set(counted.get() + 1);
                if counted.get() == 1 {
                    // Caught once: it does nothing from then on, in this process.
                    drop(Signals::new([Signal::TERM]).unwrap());
                }
                let mut listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, PORT)).unwrap();
                loop {
                    let mut stream = listener.accept().await.unwrap();
                    while let Ok(Some(chunk)) = stream.recv().await {
                        stream.write_all(chunk.to_vec()).await.unwrap();
                    }
                }
            }
        });
        let (own, starts) = (sim.clone(), starts.clone());
        sim.client("client", async move || {
            let soon = || sleep(Duration::from_millis(1 + own.random() % 5));
            let mut stream = connect(server).await;
            for signal in [Signal::TERM, Signal::WINCH, Signal::CHLD, Signal::URG, Signal::PIPE] {
                assert!(own.kill("server", signal));
                soon().await;
                stream.write_all(b"there?".to_vec()).await.unwrap();
                stream.read_exact(vec![0; 6]).await.unwrap();
            }
            assert!(own.kill("server", Signal::HUP), "{} starts", starts.get());
            // The kernel closes what the process had: an end, where a crash would say nothing.
            let end = timeout(Duration::from_secs(60), stream.recv()).await.unwrap();
            assert!(end.is_ok_and(|chunk| chunk.is_none()));
            let refused = TcpStream::connect((server, PORT)).await;
            assert_eq!(refused.unwrap_err().kind(), std::io::ErrorKind::ConnectionRefused);
            assert!(!own.kill("server", Signal::TERM), "there is none");
            own.restart("server");
            soon().await;
            let mut stream = connect(server).await;
            stream.write_all(b"there?".to_vec()).await.unwrap();
            stream.read_exact(vec![0; 6]).await.unwrap();
            // Another process: what the first one caught this one has not.
            assert!(own.kill("server", Signal::TERM));
            let end = timeout(Duration::from_secs(60), stream.recv()).await.unwrap();
            assert!(end.is_ok_and(|chunk| chunk.is_none()));
            assert_eq!(starts.get(), 2);
        });
        sim.run().unwrap_or_else(|e| panic!("seed {seed}: {e}"));
    }
}

async fn connect(server: std::net::IpAddr) -> TcpStream {
    loop {
        match TcpStream::connect((server, PORT)).await {
            Ok(stream) => return stream,
            Err(_) => sleep(Duration::from_millis(1)).await,
        }
    }
}

/// Every core accepts and echoes until the stop, then serves to the end what it has accepted.
async fn serve(graceful: Graceful) -> Drained {
    let here = graceful.here();
    let mut listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, PORT)).unwrap();
    while let Ok(mut stream) = listener.accept().cancel_on(here.stopping()).await {
        drop(here.spawn(async move {
            while let Ok(Some(chunk)) = stream.recv().await {
                if stream.write_all(chunk.to_vec()).await.is_err() {
                    return;
                }
            }
        }));
    }
    drop(listener);
    here.drained().await
}

/// Ended: those that no byte came back on, and those that got all of them.
#[derive(Default)]
struct Ends {
    unserved: Cell<usize>,
    whole: Cell<usize>,
}

async fn echo(server: std::net::IpAddr, ends: &Ends, sim: &Sim) {
    sleep(Duration::from_micros(sim.random() % 20_000)).await;
    let Ok(mut stream) = TcpStream::connect((server, PORT)).await else {
        return ends.unserved.set(ends.unserved.get() + 1);
    };
    for round in 0..5u8 {
        let bytes = vec![round; 700];
        let sent = stream.write_all(bytes.clone()).await.is_ok();
        match stream.read_exact(vec![0; 700]).await {
            Ok((_, back)) if sent => assert_eq!(back, bytes),
            // Whoever waited in the backlog at the stop is reset; whoever was accepted never is.
            other if round == 0 => {
                drop(other);
                return ends.unserved.set(ends.unserved.get() + 1);
            }
            other => panic!("broken off in round {round}: {other:?}"),
        }
        sleep(Duration::from_micros(sim.random() % 3_000)).await;
    }
    ends.whole.set(ends.whole.get() + 1);
}

fn stopped(seed: u64) -> (Report, usize, usize) {
    let sim = Sim::builder().seed(seed).faults(Faults::hidden()).build();
    let graceful = Graceful::new(Duration::from_secs(600));
    let all = Rc::new(RefCell::new(Vec::new()));
    let (drained, own) = (all.clone(), graceful.clone());
    let waits_on = (seed % CORES as u64) as usize;
    let server = sim.host("server", CORES, move |core| {
        let (drained, graceful) = (drained.clone(), own.clone());
        async move {
            if core.index() == waits_on {
                let signals = Signals::new([Signal::TERM]).unwrap();
                let asked = graceful.clone();
                drop(spawn(async move { asked.on_signals(signals).await }));
            }
            let ended = serve(graceful).await;
            drained.borrow_mut().push(ended);
        }
    });
    let ends = Rc::new(Ends::default());
    for i in 0..CLIENTS {
        let (ends, own) = (ends.clone(), sim.clone());
        sim.client(&format!("client-{i}"), async move || echo(server, &ends, &own).await);
    }
    let own = sim.clone();
    sim.client("operator", async move || {
        sleep(Duration::from_micros(2_000 + own.random() % 15_000)).await;
        assert!(own.kill("server", Signal::TERM));
        graceful.begun().await;
        sleep(Duration::from_secs(3600)).await;
    });
    let report = sim.run().unwrap_or_else(|e| panic!("seed {seed}: {e}"));
    let all: Vec<Drained> = all.take();
    assert_eq!(all.len(), CORES, "seed {seed}: every core has ended by itself");
    let sum: Drained = all.into_iter().sum();
    assert_eq!((sum.cancelled, sum.left), (0, 0), "seed {seed}");
    let (whole, unserved) = (ends.whole.get(), ends.unserved.get());
    assert_eq!(whole + unserved, CLIENTS, "seed {seed}");
    (report, whole, unserved)
}

#[test]
fn signal_sim_a_stop_under_load_breaks_nothing_off() {
    let (mut whole, mut unserved) = (0, 0);
    for seed in 0..10 {
        let (_, w, u) = stopped(seed);
        (whole, unserved) = (whole + w, unserved + u);
    }
    assert!(whole > 0 && unserved > 0, "{whole} whole, {unserved} too late");
}
