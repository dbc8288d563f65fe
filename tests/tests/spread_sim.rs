//! Sixteen simulated cores: one deals, fifteen serve and send each connection on to another core in the middle;
//! whatever the order of their steps, every byte comes back.

use std::cell::{Cell, RefCell};
use std::net::{IpAddr, Ipv4Addr};
use std::rc::Rc;
use std::time::Duration;

use coreloop::sim::{Faults, Report, Sim};
use coreloop::time::sleep;
use coreloop::{Core, Handle, spawn};
use coreloop_net::spread::{Counted, Deal, Dealer, Loads, Seat, dealer};
use coreloop_net::{TcpListener, TcpStream};

const CORES: usize = 16;
const CLIENTS: usize = 24;
const PORT: u16 = 7000;

/// Echoes; after each piece the connection goes to the core after next.
async fn echo_and_go(mut stream: TcpStream, mut counted: Counted, moves: usize) {
    let Ok(Some(chunk)) = stream.recv().await else { return };
    if stream.write_all(chunk.to_vec()).await.is_err() {
        return;
    }
    drop(chunk);
    let Ok(stream) = stream.detach().await else { return };
    let to = (Handle::current_core().unwrap() + 2) % CORES;
    counted.move_to(to);
    let goes_on = async move |stream| Box::pin(echo_and_go(stream, counted, moves + 1)).await;
    stream.serve_on(&Handle::current(), to, goes_on).await.unwrap();
}

async fn deal_on(mut dealer: Dealer) {
    let mut listener = loop {
        match TcpListener::bind((Ipv4Addr::UNSPECIFIED, PORT)) {
            Ok(listener) => break listener,
            Err(_) => sleep(Duration::from_millis(1)).await,
        }
    };
    loop {
        // A seat is never gone here; what a fault refuses is tried again.
        let _ = dealer.run(&mut listener).await;
    }
}

/// A dealer and its seats, from which each core takes what is its own.
type Ends = (Option<Dealer>, Vec<Option<Seat>>);

async fn core_of(core: Core, ends: Rc<RefCell<Ends>>) {
    let (dealer, seat) = {
        let mut ends = ends.borrow_mut();
        let dealer = if core.index() == 0 { ends.0.take() } else { None };
        (dealer, ends.1[core.index()].take())
    };
    if let Some(dealer) = dealer {
        drop(seat);
        deal_on(dealer).await;
    } else if let Some(mut seat) = seat {
        while let Some(dealt) = seat.accept().await {
            let (stream, counted) = dealt.into_parts();
            drop(spawn(echo_and_go(stream, counted, 0)));
        }
    }
    std::future::pending().await
}

async fn through(server: IpAddr, salt: u8) {
    let mut stream = loop {
        match TcpStream::connect((server, PORT)).await {
            Ok(stream) => break stream,
            Err(_) => sleep(Duration::from_millis(1)).await,
        }
    };
    for len in [1, 40, 900, 5_000] {
        let bytes: Vec<u8> = (0..len).map(|i| (i % 251) as u8 ^ salt).collect();
        stream.write_all(bytes.clone()).await.unwrap();
        let (_, back) = stream.read_exact(vec![0; len]).await.unwrap();
        assert_eq!(back, bytes);
    }
}

fn run(seed: u64, deal: Deal) -> Report {
    let sim = Sim::builder().seed(seed).faults(Faults::hidden()).build();
    let loads = Loads::new(CORES);
    let (dealer, seats) = dealer(&loads, deal, 1 + seed as usize % 4);
    let tally = dealer.tally();
    let ends = Rc::new(RefCell::new((Some(dealer), seats.into_iter().map(Some).collect())));
    let server = sim.host("server", CORES, move |core| core_of(core, ends.clone()));
    let done = Rc::new(Cell::new(0));
    for i in 0..CLIENTS {
        let done = done.clone();
        sim.client(&format!("client-{i}"), async move || {
            through(server, i as u8).await;
            done.set(done.get() + 1);
        });
    }
    let report = sim.run().unwrap_or_else(|e| panic!("seed {seed}: {e}"));
    assert_eq!(done.get(), CLIENTS, "seed {seed}");
    assert_eq!((tally.dealt(), tally.closed()), (CLIENTS as u64, 0), "seed {seed}");
    report
}

#[test]
fn spread_sim_sixteen_cores_deal_and_move_and_lose_nothing() {
    for seed in 0..4 {
        let deal = [Deal::RoundRobin, Deal::LeastConnections][seed as usize % 2];
        assert_eq!(run(seed, deal).counters.task_panics, 0);
    }
}

#[test]
fn spread_sim_the_same_seed_is_the_same_run() {
    let (a, b) = (run(3, Deal::LeastConnections), run(3, Deal::LeastConnections));
    assert_eq!((a.trace_hash, a.steps, a.elapsed), (b.trace_hash, b.steps, b.elapsed));
}
