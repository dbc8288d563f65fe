//! Acceptors that stop: what had been accepted, dealt or was on its way is given to somebody, and served.

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};
use std::rc::Rc;
use std::time::Duration;

use coreloop::config::AcceptSpread;
use coreloop::shutdown::Graceful;
use coreloop::sim::{Faults, Sim};
use coreloop::time::sleep;
use coreloop::{Core, spawn};
use coreloop_net::spread::{Accepted, Acceptors};
use coreloop_net::{ListenOptions, TcpListener, TcpStream};

const CORES: usize = 4;
const CLIENTS: usize = 24;
const PORT: u16 = 7000;
const MS: Duration = Duration::from_millis(1);

const WAYS: [AcceptSpread; 3] =
    [AcceptSpread::ReusePort, AcceptSpread::RoundRobin, AcceptSpread::LeastConnections];

/// What happened at the server.
#[derive(Default)]
struct Seen {
    /// Connections that `accept` gave, and that `stop` did.
    accepted: Cell<usize>,
    stopped: Cell<usize>,
    /// First bytes of all that were served.
    served: RefCell<BTreeSet<u8>>,
}

async fn serve(mut stream: Accepted, seen: Rc<Seen>) {
    let Ok(Some(chunk)) = stream.recv().await else { return };
    seen.served.borrow_mut().insert(chunk[0]);
    let _ = stream.write_all(chunk.to_vec()).await;
}

/// Takes a few connections slowly, then stops; each core at a time of its own.
async fn core_of(core: Core, acceptors: Acceptors, graceful: Graceful, seen: Rc<Seen>, seed: u64) {
    let here = graceful.here();
    let mut acceptor = loop {
        match acceptors.join(&core) {
            Ok(acceptor) => break acceptor,
            Err(_) => sleep(MS).await,
        }
    };
    // A listener of its own accepts from the first that is asked for on.
    let least = usize::from(acceptors.way() == AcceptSpread::ReusePort);
    for _ in 0..least + seed as usize % 3 {
        let Ok(accepted) = here.stopping().run(acceptor.accept()).await else { break };
        seen.accepted.set(seen.accepted.get() + 1);
        drop(here.spawn(serve(accepted.unwrap(), seen.clone())));
    }
    here.stopping().cancelled().await;
    // Any order of the cores.
    sleep(MS * ((seed >> 2) as u32 * (core.index() as u32 + 1) % 5)).await;
    for accepted in acceptor.stop().await {
        seen.stopped.set(seen.stopped.get() + 1);
        drop(here.spawn(serve(accepted, seen.clone())));
    }
    here.all_drained().await;
}

/// A byte there and back.
async fn client(server: IpAddr, number: u8, connected: Rc<Cell<usize>>) -> bool {
    let mut stream = TcpStream::connect((server, PORT)).await.unwrap();
    connected.set(connected.get() + 1);
    if stream.write_all(vec![number]).await.is_err() {
        return false;
    }
    matches!(stream.recv().await, Ok(Some(chunk)) if *chunk == [number])
}

/// Whether `stop` had something to give, which depends on the seed.
fn run(seed: u64, way: AcceptSpread) -> bool {
    let sim = Sim::builder().seed(seed).faults(Faults::none()).build();
    let options = ListenOptions::default();
    let acceptors = Acceptors::new((Ipv4Addr::UNSPECIFIED, PORT), options, way, CORES).unwrap();
    let graceful = Graceful::new(Duration::from_secs(60));
    let seen = Rc::new(Seen::default());
    let (at_server, ends) = (seen.clone(), graceful.clone());
    let server = sim.host("server", CORES, move |core| {
        core_of(core, acceptors.clone(), ends.clone(), at_server.clone(), seed)
    });
    let (connected, answered) = (Rc::new(Cell::new(0)), Rc::new(Cell::new(0)));
    sim.client("clients", {
        let (connected, answered) = (connected.clone(), answered.clone());
        async move || {
            sleep(20 * MS).await;
            let all: Vec<_> = (0..CLIENTS as u8)
                .map(|number| {
                    let (connected, answered) = (connected.clone(), answered.clone());
                    spawn(async move {
                        let ok = client(server, number, connected).await;
                        answered.set(answered.get() + usize::from(ok));
                    })
                })
                .collect();
            while connected.get() < CLIENTS {
                sleep(MS).await;
            }
            // Those that are connected are accepted, or dealt out; which of both is the seed's.
            sleep(MS * (1 + seed as u32 % 4)).await;
            graceful.begin();
            for one in all {
                one.await.unwrap();
            }
        }
    });
    sim.run().unwrap_or_else(|e| panic!("seed {seed}, {way}: {e}"));
    let (accepted, stopped) = (seen.accepted.get(), seen.stopped.get());
    assert_eq!(accepted + stopped, CLIENTS, "seed {seed}, {way}: {accepted} and {stopped}");
    assert_eq!(seen.served.borrow().len(), CLIENTS, "seed {seed}, {way}");
    assert_eq!(answered.get(), CLIENTS, "seed {seed}, {way}");
    stopped > 0
}

#[test]
fn spread_stop_gives_what_was_accepted_or_dealt_in_whatever_order_cores_stop() {
    for way in WAYS {
        let had: usize = (0..24).map(|seed| usize::from(run(seed, way))).sum();
        assert!(had > 12, "{way}: {had} of 24 runs had something to give");
    }
}

/// On the machine's own kernel: connections that wait at each core, and none of them is reset.
#[test]
fn spread_stop_resets_no_connection_of_a_real_kernel() {
    for way in WAYS {
        // Dealt out, more than there is room for at the seat: some are on their way to it, or not yet.
        let count = if way == AcceptSpread::ReusePort { 10 } else { 120 };
        let acceptors = Acceptors::new("127.0.0.1:0", ListenOptions::default(), way, 1).unwrap();
        let cores = coreloop::Cores::Count(1);
        let runtime = coreloop::Runtime::builder().cores(cores).build().unwrap();
        let ended = runtime.run(move |core| {
            let acceptors = acceptors.clone();
            async move {
                let mut acceptor = acceptors.join(&core).unwrap();
                let mut clients = Vec::new();
                for _ in 0..count {
                    clients.push(TcpStream::connect(acceptors.addr()).await.unwrap());
                }
                let mut all = vec![acceptor.accept().await.unwrap()];
                // A turn or two: the others are accepted, or dealt.
                sleep(20 * MS).await;
                all.extend(acceptor.stop().await);
                assert_eq!(all.len(), count, "{way}");
                assert_eq!(acceptors.loads().of(0).connections, count);
                for accepted in &mut all {
                    accepted.write_all("y").await.unwrap();
                }
                for client in &mut clients {
                    assert_eq!(&*client.recv().await.unwrap().unwrap(), b"y", "{way}");
                }
                drop(all);
                assert_eq!(acceptors.loads().of(0).connections, 0);
                let refused = TcpListener::bind(acceptors.addr()).map(drop);
                refused.expect("nobody listens there any more");
            }
        });
        ended.unwrap();
    }
}
