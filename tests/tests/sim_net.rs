//! Simulated machines and what lies between them: bytes arrive whole, links are cut and heal, machines
//! crash and come back, and what is left behind is told.

use std::cell::{Cell, RefCell};
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::rc::Rc;
use std::time::Duration;

use coreloop::sim::{Failure, Faults, Sim};
use coreloop::time::{Instant, sleep, timeout};
use coreloop::{Settings, spawn};
use coreloop_net::{TcpListener, TcpStream};

const PORT: u16 = 7000;
const MS: Duration = Duration::from_millis(1);

/// Sends back what comes, on every core of a host.
async fn echo() -> io::Result<()> {
    let mut listener = loop {
        // Refused where the faults are so.
        match TcpListener::bind((Ipv4Addr::UNSPECIFIED, PORT)) {
            Ok(listener) => break listener,
            Err(_) => sleep(MS).await,
        }
    };
    loop {
        let Ok(mut stream) = listener.accept().await else { continue };
        drop(spawn(async move {
            while let Ok(Some(chunk)) = stream.recv().await {
                if stream.write_all(chunk).await.is_err() {
                    return;
                }
            }
        }));
    }
}

/// Sends `bytes` and gives what comes back.
async fn through(stream: &mut TcpStream, bytes: Vec<u8>) -> io::Result<Vec<u8>> {
    let len = bytes.len();
    stream.write_all(bytes).await?;
    Ok(stream.read_exact(vec![0; len]).await?.1)
}

async fn connected(server: IpAddr) -> TcpStream {
    loop {
        // Refused until the server listens.
        match TcpStream::connect((server, PORT)).await {
            Ok(stream) => return stream,
            Err(_) => sleep(MS).await,
        }
    }
}

fn numbered(len: usize, seed: u64) -> Vec<u8> {
    (0..len as u64).map(|i| (i.wrapping_mul(31) ^ seed ^ (i >> 8)) as u8).collect()
}

#[test]
fn sim_net_bytes_come_back_whole_whatever_goes_wrong() {
    coreloop::sim::check(40, |sim| {
        let server = sim.host("server", 2, |_core| echo());
        for client in ["a", "b", "c"] {
            let seed = sim.random();
            sim.client(client, async move || {
                let mut stream = connected(server).await;
                assert_eq!(stream.peer_addr().unwrap(), (server, PORT).into());
                for len in [1, 100, 5_000] {
                    let bytes = numbered(len, seed);
                    assert_eq!(through(&mut stream, bytes.clone()).await.unwrap(), bytes);
                }
            });
        }
    });
}

#[test]
fn sim_net_the_same_seed_is_the_same_run() {
    let run = |seed| {
        let sim = Sim::builder().seed(seed).faults(Faults::all()).build();
        let server = sim.host("server", 2, |_core| echo());
        for client in ["a", "b"] {
            let own = sim.clone();
            sim.client(client, async move || {
                let bytes = numbered(2_000, own.random());
                let mut stream = connected(server).await;
                // It may be reset; that is a part of the run, too.
                drop(through(&mut stream, bytes).await);
            });
        }
        let report = sim.run().unwrap();
        (report.trace_hash, report.steps, report.elapsed, report.counters)
    };
    for seed in 0..20 {
        assert_eq!(run(seed), run(seed), "seed {seed}");
    }
    assert_ne!(run(0).0, run(1).0);
}

/// Which numbers descriptors have is no part of a run: not even where a table of files has few places.
#[test]
fn sim_net_the_same_seed_is_the_same_run_whatever_descriptors_are_open() {
    let settings = Settings::default().ring_entries(64).cq_entries(128).buffers(32, 2048);
    let run = |seed, others: usize| {
        let null = |_| std::fs::File::open("/dev/null").unwrap();
        let _others: Vec<_> = (0..others).map(null).collect();
        let settings = settings.clone().fixed_files(64);
        let sim = Sim::builder().seed(seed).faults(Faults::errors()).settings(settings).build();
        let server = sim.host("server", 2, |_core| echo());
        for client in ["a", "b"] {
            sim.client(client, async move || {
                for _ in 0..10 {
                    let mut stream = connected(server).await;
                    drop(through(&mut stream, vec![1; 100]).await);
                }
            });
        }
        let report = sim.run().unwrap();
        (report.trace_hash, report.steps, report.elapsed, report.counters)
    };
    for seed in 0..10 {
        assert_eq!(run(seed, 0), run(seed, 100), "seed {seed}");
    }
}

#[test]
fn sim_net_what_was_sent_into_a_partition_arrives_when_it_heals() {
    coreloop::sim::check(300, |sim| {
        let server = sim.host("server", 1, |_core| echo());
        let own = sim.clone();
        sim.client("client", async move || {
            let mut stream = connected(server).await;
            through(&mut stream, vec![1]).await.unwrap();
            own.partition("client", "server");
            let cut = Instant::now();
            let asked = through(&mut stream, vec![2]);
            let healer = spawn({
                let own = own.clone();
                async move {
                    sleep(Duration::from_secs(10)).await;
                    own.heal("client", "server");
                }
            });
            assert_eq!(asked.await.unwrap(), [2]);
            assert!(cut.elapsed() >= Duration::from_secs(10), "{:?}", cut.elapsed());
            healer.await.unwrap();
        });
    });
}

#[test]
fn sim_net_nobody_is_reached_across_a_partition() {
    coreloop::sim::check(300, |sim| {
        let server = sim.host("server", 1, |_core| echo());
        let own = sim.clone();
        sim.client("client", async move || {
            sleep(MS).await;
            own.partition("client", "server");
            let asked = timeout(Duration::from_secs(20), TcpStream::connect((server, PORT))).await;
            assert!(asked.is_err(), "a connection came about");
            own.heal("client", "server");
            let mut stream = connected(server).await;
            assert_eq!(through(&mut stream, vec![7]).await.unwrap(), [7]);
        });
    });
}

#[test]
fn sim_net_a_reset_is_an_error_to_whoever_waits() {
    let sim = Sim::builder().faults(Faults::none()).build();
    let server = sim.host("server", 1, |_core| echo());
    let own = sim.clone();
    sim.client("client", async move || {
        let mut stream = connected(server).await;
        through(&mut stream, vec![1]).await.unwrap();
        own.reset("client", "server");
        let error = stream.recv().await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    });
    sim.run().unwrap();
}

#[test]
fn sim_net_latency_is_waited_for() {
    let sim = Sim::builder().faults(Faults::none()).build();
    let server = sim.host("server", 1, |_core| echo());
    let own = sim.clone();
    sim.client("client", async move || {
        own.latency("client", "server", 40 * MS, 50 * MS);
        sleep(MS).await;
        let mut stream = connected(server).await;
        let asked = Instant::now();
        through(&mut stream, vec![1]).await.unwrap();
        let took = asked.elapsed();
        assert!((80 * MS..101 * MS).contains(&took), "there and back: {took:?}");
    });
    sim.run().unwrap();
}

#[test]
fn sim_net_a_crash_says_nothing_and_a_restart_begins_anew() {
    coreloop::sim::check(300, |sim| {
        // What a disk would hold, and what memory does.
        let (disk, lost) = (Rc::new(Cell::new(0)), Rc::new(RefCell::new(Vec::new())));
        let (written, noted) = (disk.clone(), lost.clone());
        let server = sim.host("server", 1, move |_core| {
            written.set(written.get() + 1);
            noted.borrow_mut().push(written.get());
            echo()
        });
        let own = sim.clone();
        sim.client("client", async move || {
            let mut stream = connected(server).await;
            through(&mut stream, vec![1]).await.unwrap();
            own.crash("server");
            // The machine is gone without a word: an answer never comes.
            let asked = timeout(Duration::from_secs(1), through(&mut stream, vec![2])).await;
            assert!(!matches!(asked, Ok(Ok(_))), "a dead machine answered");
            own.restart("server");
            let mut fresh = connected(server).await;
            assert_eq!(through(&mut fresh, vec![3]).await.unwrap(), [3]);
            assert_eq!((disk.get(), &lost.borrow()[..]), (2, &[1, 2][..]));
        });
    });
}

#[test]
fn sim_net_a_descriptor_left_open_fails_the_simulation() {
    let kept = Rc::new(RefCell::new(None));
    let sim = Sim::builder().faults(Faults::none()).build();
    let server = sim.host("server", 1, |_core| echo());
    let keep = kept.clone();
    sim.client("client", async move || {
        let stream = connected(server).await;
        *keep.borrow_mut() = Some(stream.detach().await.unwrap());
    });
    let error = sim.run().unwrap_err();
    let Failure::DescriptorsLeft { open } = error.failure() else { panic!("{error}") };
    assert_eq!(open.len(), 1, "{open:?}");
    assert!(open[0].contains("client") && open[0].contains("socket"), "{open:?}");
    drop(kept);
}

#[test]
#[should_panic(expected = "there is no host \"servr\"; there are: server")]
fn sim_net_a_name_that_is_no_host_is_said() {
    let sim = Sim::builder().build();
    sim.host("server", 1, |_core| echo());
    sim.addr("servr");
}
