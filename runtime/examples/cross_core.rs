//! What messages between two cores cost: one way, to and fro between cores that spin, between cores that
//! sleep only while the other one works, and between cores that were idle for a millisecond, with their CPUs.
//! `cargo run --release -p coreloop --example cross_core [one-way|batch|spinning|parked|idle]…`

use std::time::{Duration, Instant};

use coreloop::cross::{self, Receiver, Sender};
use coreloop::{Cores, Runtime, Settings, Spin};

/// Runs `a` on the first core and `b` on the second; what `a` gives.
fn on_two<A, B, FA, FB>(spin: Spin, a: A, b: B) -> f64
where
    A: FnOnce() -> FA + Send + 'static,
    B: FnOnce() -> FB + Send + 'static,
    FA: Future<Output = f64>,
    FB: Future<Output = ()>,
{
    let settings = Settings::default().spin(spin);
    let runtime = Runtime::builder().cores(Cores::Count(2)).settings(settings).build().unwrap();
    let (a, b) = (std::sync::Mutex::new(Some(a)), std::sync::Mutex::new(Some(b)));
    let ended = runtime.run(move |core| {
        let first = (core.index() == 0).then(|| a.lock().unwrap().take().unwrap());
        let second = (core.index() == 1).then(|| b.lock().unwrap().take().unwrap());
        async move {
            if let Some(first) = first {
                return first().await;
            }
            if let Some(second) = second {
                second().await;
            }
            0.0
        }
    });
    ended.unwrap()[0]
}

const ALWAYS: Spin = Spin::Fixed(Duration::from_millis(100));

/// Long enough for a CPU to go to sleep.
const IDLE: Duration = Duration::from_millis(1);

fn one_way(n: u64, batch: bool) -> f64 {
    let (mut tx, mut rx) = cross::channel::<u64>(1024);
    on_two(
        ALWAYS,
        move || async move {
            let mut sum = 0u64;
            let first = rx.recv().await.unwrap();
            let began = Instant::now();
            if batch {
                let mut got = Vec::with_capacity(256);
                while rx.recv_many(&mut got, 256).await > 0 {
                    sum += got.drain(..).sum::<u64>();
                }
            } else {
                while let Some(value) = rx.recv().await {
                    sum += value;
                }
            }
            let took = began.elapsed();
            assert_eq!(sum + first, n * (n - 1) / 2);
            n as f64 / took.as_secs_f64() / 1e6
        },
        move || async move {
            if batch {
                let mut values = 0..n;
                while values.start < n {
                    tx.ready().await.unwrap();
                    tx.try_send_from((&mut values).take(256));
                }
            } else {
                for value in 0..n {
                    tx.send(value).await.unwrap();
                }
            }
        },
    )
}

fn round_trips(n: usize, spin: Spin, pause: Duration) -> (f64, f64) {
    let (tx, back) = cross::channel::<u64>(16);
    let (to, rx) = cross::channel::<u64>(16);
    let (mut tx, mut back, mut to, mut rx): (Sender<_>, Receiver<_>, Sender<_>, Receiver<_>) =
        (to, back, tx, rx);
    let (tell, told) = std::sync::mpsc::channel();
    on_two(
        spin,
        move || async move {
            let mut took = Vec::with_capacity(n);
            for i in 0..n as u64 {
                if !pause.is_zero() {
                    coreloop::time::sleep(pause).await;
                }
                let began = Instant::now();
                tx.send(i).await.unwrap();
                assert_eq!(back.recv().await, Some(i));
                took.push(began.elapsed().as_nanos() as u64);
            }
            took.sort_unstable();
            tell.send((took[n / 2], took[n * 99 / 100])).unwrap();
            0.0
        },
        move || async move {
            while let Some(i) = rx.recv().await {
                to.send(i).await.unwrap();
            }
        },
    );
    let (p50, p99) = told.recv().unwrap();
    (p50 as f64 / 1e3, p99 as f64 / 1e3)
}

fn main() {
    let asked: Vec<String> = std::env::args().skip(1).collect();
    let all = asked.is_empty();
    let wants = |name: &str| all || asked.iter().any(|a| a == name);
    let rate = |run: u32, what: &str, m: f64| println!("{run:>3}  {what:<31}{m:>8.1} M messages/s");
    let trips = |run: u32, what: &str, (p50, p99): (f64, f64)| {
        println!("{run:>3}  {what:<31}{p50:>8.2} µs p50 {p99:>8.2} µs p99");
    };
    println!("run  what");
    for run in 1..=3 {
        if wants("one-way") {
            rate(run, "one way", one_way(20_000_000, false));
        }
        if wants("batch") {
            rate(run, "one way, in batches", one_way(50_000_000, true));
        }
        if wants("spinning") {
            trips(run, "to and fro, spinning", round_trips(1_000_000, ALWAYS, Duration::ZERO));
        }
        if wants("parked") {
            trips(run, "to and fro, parked", round_trips(50_000, Spin::Off, Duration::ZERO));
        }
        if wants("idle") {
            let what = format!("to and fro, idle for {IDLE:?} before");
            trips(run, &what, round_trips(3_000, Spin::Off, IDLE));
        }
    }
}
