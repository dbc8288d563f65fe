//! One core accepts and deals out: in turn or to whoever has the fewest, with backpressure, and with an answer
//! for every connection when a core is gone: it goes to another core, or is closed and counted.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream as StdStream};
use std::pin::pin;
use std::sync::{Arc, Mutex, mpsc};
use std::task::Poll;
use std::thread;
use std::time::Duration;

use coreloop::placement::allowed_cpus;
use coreloop::time::{sleep, timeout};
use coreloop::{Cores, Runtime, spawn};
use coreloop_net::spread::{Deal, DealError, Dealer, Dealt, Loads, Seat, dealer};
use coreloop_net::{TcpListener, TcpStream};
use coreloop_tests::net::PATIENCE;
use coreloop_tests::{poll_once, settled};

const LIMIT: Duration = Duration::from_secs(20);

async fn listener() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    (listener, addr)
}

async fn connect(addr: SocketAddr) -> TcpStream {
    TcpStream::connect(addr).await.unwrap()
}

async fn taken(seat: &mut Seat) -> Dealt {
    timeout(LIMIT, seat.accept()).await.expect("one is dealt").expect("the dealer lives")
}

/// Deals the next `n` connections that the listener has.
async fn deal(dealer: &mut Dealer, listener: &mut TcpListener, n: usize) {
    for _ in 0..n {
        let stream = timeout(LIMIT, listener.accept_detached()).await.unwrap().unwrap();
        dealer.give(stream).await.unwrap();
    }
}

#[coreloop::test]
async fn spread_deal_in_turn_gives_each_core_the_next() {
    let loads = Loads::new(3);
    let (mut dealer, mut seats) = dealer(&loads, Deal::RoundRobin, 8);
    let (mut listener, addr) = listener().await;
    let mut clients = Vec::new();
    for _ in 0..9 {
        clients.push(connect(addr).await);
        deal(&mut dealer, &mut listener, 1).await;
    }
    assert_eq!(loads.all().iter().map(|l| l.connections).collect::<Vec<_>>(), [3, 3, 3]);
    for (core, seat) in seats.iter_mut().enumerate() {
        for turn in 0..3 {
            let dealt = taken(seat).await;
            assert_eq!(dealt.peer_addr().unwrap(), clients[3 * turn + core].local_addr().unwrap());
        }
    }
    assert_eq!(loads.all().iter().map(|l| l.connections).sum::<usize>(), 0, "all were dropped");
}

#[coreloop::test]
async fn spread_deal_to_the_fewest_looks_at_what_each_core_has() {
    let loads = Loads::new(3);
    let (mut dealer, mut seats) = dealer(&loads, Deal::LeastConnections, 8);
    let (mut listener, addr) = listener().await;
    let counts = || loads.all().iter().map(|l| l.connections).collect::<Vec<_>>();
    let _long: Vec<_> = [0, 0, 0, 0, 2].map(|core| loads.count(core)).into();
    let mut clients = Vec::new();
    for want in [[4, 1, 1], [4, 2, 1], [4, 2, 2], [4, 3, 2], [4, 3, 3], [4, 4, 3], [4, 4, 4]] {
        clients.push(connect(addr).await);
        deal(&mut dealer, &mut listener, 1).await;
        let mut have = counts();
        let mut want = want.to_vec();
        // Which of two that have equally many is first is not said.
        have[1..].sort_unstable();
        want[1..].sort_unstable();
        assert_eq!(have, want);
    }
    // One of core 1 ends: the next is its.
    drop(taken(&mut seats[1]).await);
    assert_eq!(counts(), [4, 3, 4]);
    clients.push(connect(addr).await);
    deal(&mut dealer, &mut listener, 1).await;
    assert_eq!(counts(), [4, 4, 4]);
}

#[coreloop::test]
async fn spread_deal_who_has_no_room_is_passed_over() {
    let (mut dealer, mut seats) = dealer(&Loads::new(2), Deal::RoundRobin, 4);
    let (mut listener, addr) = listener().await;
    let mut clients = Vec::new();
    // Seat 0 is not looked at; it fills, and the other one has all that comes then.
    for _ in 0..40 {
        clients.push(connect(addr).await);
        deal(&mut dealer, &mut listener, 1).await;
        while let Ok(Some(one)) = timeout(Duration::ZERO, seats[1].accept()).await {
            drop(one);
        }
    }
    assert_eq!(dealer.tally().dealt(), 40);
    let mut queued = 0;
    while let Ok(Some(one)) = timeout(Duration::from_millis(20), seats[0].accept()).await {
        drop(one);
        queued += 1;
    }
    assert!((4..=8).contains(&queued), "{queued}");
}

#[coreloop::test]
async fn spread_deal_without_room_anywhere_leaves_connections_to_the_kernel() {
    let (mut dealer, mut seats) = dealer(&Loads::new(2), Deal::RoundRobin, 4);
    let tally = dealer.tally();
    let (mut listener, addr) = listener().await;
    let running = spawn(async move { dealer.run(&mut listener).await });
    let mut clients = Vec::new();
    for _ in 0..60 {
        clients.push(connect(addr).await);
    }
    sleep(Duration::from_millis(30)).await;
    let dealt = tally.dealt();
    assert!((8..=16).contains(&dealt), "{dealt} of two queues of four");
    for i in 0..60 {
        // As room comes, the dealer goes on, wherever it is.
        let seat = i % 2;
        let mut one = taken(&mut seats[seat]).await;
        one.write_all(b"here".to_vec()).await.unwrap();
    }
    assert_eq!((tally.dealt(), tally.returned(), tally.closed()), (60, 0, 0));
    for client in &mut clients {
        assert_eq!(client.read_exact(vec![0; 4]).await.unwrap().1, b"here");
    }
    running.cancel();
}

#[coreloop::test]
async fn spread_deal_what_is_queued_at_a_seat_that_goes_is_dealt_to_others() {
    let loads = Loads::new(2);
    let (mut dealer, mut seats) = dealer(&loads, Deal::RoundRobin, 16);
    let tally = dealer.tally();
    let (mut listener, addr) = listener().await;
    let running = spawn(async move { dealer.run(&mut listener).await });
    let mut clients = Vec::new();
    for _ in 0..10 {
        clients.push(connect(addr).await);
    }
    assert!(settled(LIMIT, || tally.dealt() == 10).await);
    drop(seats.remove(0));
    // The dealer waits for the next connection: it is woken.
    assert!(settled(LIMIT, || tally.dealt() == 15).await, "{tally:?}");
    assert_eq!((tally.returned(), loads.of(0).connections), (5, 0));
    for _ in 0..10 {
        let mut one = taken(&mut seats[0]).await;
        one.write_all(b"here".to_vec()).await.unwrap();
    }
    for client in &mut clients {
        assert_eq!(client.read_exact(vec![0; 4]).await.unwrap().1, b"here");
    }
    // The last one goes too, with one queued: it is kept, then closed and counted.
    let mut last = connect(addr).await;
    assert!(settled(LIMIT, || tally.dealt() == 16).await);
    drop(seats);
    let ended = timeout(LIMIT, running).await.unwrap().unwrap();
    assert!(matches!(ended, Err(DealError::NoSeatLeft)), "{ended:?}");
    assert_eq!((tally.returned(), tally.closed()), (6, 1));
    assert!(timeout(LIMIT, last.recv()).await.unwrap().unwrap().is_none(), "closed");
}

#[coreloop::test]
async fn spread_deal_without_seats_gives_back_what_it_has() {
    let (mut dealer, seats) = dealer(&Loads::new(3), Deal::LeastConnections, 4);
    let (mut listener, addr) = listener().await;
    drop(seats);
    let mut client = connect(addr).await;
    let ended = dealer.run(&mut listener).await;
    assert!(matches!(ended, Err(DealError::NoSeatLeft)), "{ended:?}");
    let mut kept = dealer.take_pending();
    let mut server = kept.pop().expect("the one that came").attach();
    assert!(kept.is_empty());
    server.write_all(b"here".to_vec()).await.unwrap();
    assert_eq!(client.read_exact(vec![0; 4]).await.unwrap().1, b"here");
    drop(dealer);
}

/// Who gives again and again, and has no patience, is refused before that takes all descriptors.
#[coreloop::test]
async fn spread_deal_gives_that_are_dropped_keep_a_bounded_number() {
    const KEPT_MAX: usize = 256;
    let (mut dealer, mut seats) = dealer(&Loads::new(1), Deal::RoundRobin, 1);
    let tally = dealer.tally();
    let (mut listener, addr) = listener().await;
    let (mut dealt, mut kept) = (0, 0);
    let refused = loop {
        drop(connect(addr).await);
        let stream = timeout(LIMIT, listener.accept_detached()).await.unwrap().unwrap();
        match poll_once(pin!(dealer.give(stream))).await {
            Poll::Ready(Ok(())) => dealt += 1,
            Poll::Pending => kept += 1,
            Poll::Ready(Err(e)) => break e,
        }
        assert!(kept <= KEPT_MAX);
    };
    assert_eq!(kept, KEPT_MAX);
    assert!(refused.to_string().contains("let `flush` end"), "{refused}");
    let DealError::Full(refused) = refused else { panic!("{refused}") };
    // With room at a seat, the next one is kept in place of the one that goes there.
    drop(taken(&mut seats[0]).await);
    assert!(poll_once(pin!(dealer.give(refused))).await.is_pending());
    // Nothing was lost: all of them come.
    for left in (0..dealt + kept).rev() {
        let ended = poll_once(pin!(dealer.flush())).await;
        assert_eq!(ended.is_ready(), left < dealt, "{left}");
        drop(taken(&mut seats[0]).await);
    }
    assert_eq!((tally.dealt(), tally.closed()), ((dealt + kept + 1) as u64, 0));
}

#[coreloop::test]
async fn spread_deal_seats_take_what_is_queued_when_the_dealer_is_gone() {
    let (mut dealer, mut seats) = dealer(&Loads::new(2), Deal::RoundRobin, 4);
    let tally = dealer.tally();
    let (mut listener, addr) = listener().await;
    let clients = [connect(addr).await, connect(addr).await, connect(addr).await];
    deal(&mut dealer, &mut listener, 3).await;
    drop(dealer);
    drop(taken(&mut seats[0]).await);
    drop(taken(&mut seats[0]).await);
    assert!(seats[0].accept().await.is_none());
    // With nobody to go back to, what this one has queued is closed, and counted.
    drop(seats);
    assert_eq!((tally.dealt(), tally.returned(), tally.closed()), (3, 0, 1));
    drop(clients);
}

/// Three cores and a dealer on the first; the third ends in the middle. Every client is served.
#[test]
fn spread_deal_a_core_that_ends_in_the_middle_costs_no_connection() {
    const CLIENTS: usize = 400;
    let cpus = allowed_cpus();
    let cpus = vec![cpus[0], cpus[1 % cpus.len()], cpus[1 % cpus.len()]];
    let runtime = Runtime::builder().cores(Cores::These(cpus)).build().unwrap();
    let (dealer, seats) = dealer(&Loads::new(3), Deal::LeastConnections, 8);
    let tally = dealer.tally();
    let ends =
        Arc::new(Mutex::new((Some(dealer), seats.into_iter().map(Some).collect::<Vec<_>>())));
    let (tell, told) = mpsc::channel();
    let clients = thread::spawn(move || {
        let addr: SocketAddr = told.recv().unwrap();
        let client = move || {
            (0..CLIENTS / 4)
                .filter(|i| {
                    let mut stream = StdStream::connect(addr).unwrap();
                    stream.set_read_timeout(Some(PATIENCE)).unwrap();
                    stream.write_all(&i.to_le_bytes()).unwrap();
                    let mut back = Vec::new();
                    stream.read_to_end(&mut back).is_ok() && back == i.to_le_bytes()
                })
                .count()
        };
        let threads: Vec<_> = (0..4).map(|_| thread::spawn(client)).collect();
        threads.into_iter().map(|t| t.join().unwrap()).sum::<usize>()
    });
    let served = runtime.run(move |core| {
        let (dealer, mut seat) = {
            let mut ends = ends.lock().unwrap();
            let dealer = if core.index() == 0 { ends.0.take() } else { None };
            (dealer, ends.1[core.index()].take().unwrap())
        };
        let tell = tell.clone();
        async move {
            if let Some(mut dealer) = dealer {
                let mut listener = TcpListener::bind("127.0.0.1:0").unwrap();
                tell.send(listener.local_addr().unwrap()).unwrap();
                drop(seat);
                let until = async {
                    while dealer.tally().dealt() - dealer.tally().returned() < CLIENTS as u64 {
                        let _ = timeout(Duration::from_millis(5), dealer.run(&mut listener)).await;
                    }
                };
                timeout(2 * LIMIT, until).await.unwrap();
                return 0;
            }
            let mut served = 0;
            while let Some(mut stream) = seat.accept().await {
                if core.index() == 2 {
                    // What it took it answers before it ends. What is queued behind it then, it does not.
                    let (_, sent) = stream.read_exact(vec![0; 8]).await.unwrap();
                    stream.write_all(sent).await.unwrap();
                    served += 1;
                    if served == 31 {
                        std::thread::sleep(Duration::from_millis(30));
                        return served;
                    }
                    continue;
                }
                served += 1;
                drop(spawn(async move {
                    let (_, sent) = stream.read_exact(vec![0; 8]).await.unwrap();
                    stream.write_all(sent).await.unwrap();
                }));
            }
            sleep(Duration::from_millis(50)).await;
            served
        }
    });
    let served = served.unwrap();
    assert_eq!(clients.join().unwrap(), CLIENTS, "{served:?} {tally:?}");
    assert_eq!((served[2], served.iter().sum::<usize>()), (31, CLIENTS), "{tally:?}");
    assert_eq!(tally.closed(), 0);
}
