//! An hour of heartbeats passes in under a second.
//!
//! Between cores, and over the simulated network. The time is promised of a release build, as a step of
//! `.ci/run` demands it: `cargo test --release -p coreloop-tests --test sim_heartbeats`. Other builds are
//! held to a wide limit.

use std::io;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use coreloop::sim::{Faults, Sim};
use coreloop::time::{interval, sleep};
use coreloop_net::{TcpListener, TcpStream};
use coreloop_tests::trials::best_of;

const HOUR: Duration = Duration::from_secs(3600);

/// What is promised, and what no trial may take.
const PROMISED: Duration = Duration::from_secs(if cfg!(debug_assertions) { 20 } else { 1 });
const WIDE: Duration = Duration::from_secs(60);

const TRIALS: usize = 5;

#[test]
fn sim_heartbeats_between_cores_an_hour_is_under_a_second() {
    const CORES: usize = 3;
    let trial = || {
        let beats = Arc::new(AtomicU64::new(0));
        let counted = beats.clone();
        let sim = Sim::builder().seed(1).build();
        sim.host("machine", CORES, move |core| {
            let beats = counted.clone();
            async move {
                let mut every = interval(Duration::from_secs(1));
                loop {
                    every.tick().await;
                    // To the next core, which counts it.
                    let (to, beats) = ((core.index() + 1) % core.count(), beats.clone());
                    let count = move || _ = beats.fetch_add(1, Ordering::Relaxed);
                    core.handle().call_soon_threadsafe(to, count).unwrap();
                }
            }
        });
        sim.client("clock", || sleep(HOUR));
        let began = std::time::Instant::now();
        let report = sim.run().unwrap();
        let (beats, took) = (beats.load(Ordering::Relaxed), began.elapsed());
        assert!(report.elapsed >= HOUR, "{:?}", report.elapsed);
        assert!((3600 * CORES as u64).abs_diff(beats) <= 2 * CORES as u64, "{beats} beats");
        assert!(report.steps < 6 * beats, "a few steps each: {}", report.steps);
        took
    };
    let took = best_of(TRIALS, PROMISED, WIDE, trial);
    coreloop_tests::figure!("an hour of heartbeats between cores took {took:?}");
}

/// Sends back what comes.
async fn echo() -> io::Result<()> {
    let mut listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 7000))?;
    let mut stream = listener.accept().await?;
    while let Some(chunk) = stream.recv().await? {
        stream.write_all(chunk).await?;
    }
    Ok(())
}

#[test]
fn sim_heartbeats_over_the_network_an_hour_is_under_a_second() {
    let trial = || {
        let sim = Sim::builder().faults(Faults::none()).build();
        let server = sim.host("server", 1, |_core| echo());
        sim.client("client", async move || {
            sleep(Duration::from_millis(1)).await;
            let mut stream = TcpStream::connect((server, 7000)).await.unwrap();
            for beat in 0..3600u32 {
                sleep(Duration::from_secs(1)).await;
                let bytes = beat.to_le_bytes().to_vec();
                stream.write_all(bytes.clone()).await.unwrap();
                let (_, back) = stream.read_exact(vec![0; 4]).await.unwrap();
                assert_eq!(back, bytes);
            }
        });
        let began = std::time::Instant::now();
        let report = sim.run().unwrap();
        let took = began.elapsed();
        assert!(report.elapsed >= HOUR, "{:?}", report.elapsed);
        assert!(report.steps < 20 * 3600, "a few steps each: {}", report.steps);
        took
    };
    let took = best_of(TRIALS, PROMISED, WIDE, trial);
    coreloop_tests::figure!("an hour of heartbeats over the network took {took:?}");
}
