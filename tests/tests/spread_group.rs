//! Listeners that share a port: a connection is accepted by the listener of the CPU that it arrives on, also
//! after others have left the group in any order; and the hand-out by the kernel's own hash.

use std::net::{SocketAddr, TcpStream as StdStream};
use std::sync::{Arc, Barrier, mpsc};
use std::thread;
use std::time::Duration;

use coreloop::cancel::Interruptible;
use coreloop::placement::allowed_cpus;
use coreloop::time::{Instant, timeout};
use coreloop::{Cores, Runtime, spawn_blocking};
use coreloop_net::spread::{Group, SteeredListener};
use coreloop_net::{ListenOptions, TcpListener, TcpStream};
use coreloop_tests::drive::Rng;
use coreloop_tests::net::{accepted_by, comes_to, connect_on};
use coreloop_tests::process::run_on;
use coreloop_tests::skip;

const LIMIT: Duration = Duration::from_secs(20);

/// CPUs that no machine has here: listeners that get nothing unless the table is wrong.
const NOWHERE: usize = 90_000;

fn group() -> Group {
    Group::new("127.0.0.1:0", ListenOptions::default()).unwrap()
}

/// Connects from each of the CPUs several times; each time the listener of that CPU must have it.
async fn all_right(listeners: &mut [SteeredListener], cpus: &[usize]) {
    let group_cpus = listeners.iter().map(|l| l.position()).collect::<Vec<_>>();
    for round in 0..4 {
        for &(mut cpu) in cpus {
            if round % 2 == 1 {
                cpu = *cpus.iter().rev().find(|c| **c != cpu).unwrap_or(&cpu);
            }
            let addr = listeners[0].local_addr().unwrap();
            let client = connect_on(cpu, addr).await;
            let at = accepted_by(listeners).await;
            assert_eq!(cpu_of(&listeners[at]), cpu, "positions {group_cpus:?}");
            drop(client);
        }
    }
}

fn cpu_of(listener: &SteeredListener) -> usize {
    listener.group().cpus()[listener.position()].expect("it has one")
}

#[test]
fn spread_group_after_one_of_three_is_closed_the_others_have_their_cpus() {
    let cpus = allowed_cpus();
    if cpus.len() < 2 {
        skip!("a choice takes two CPUs");
    }
    // Each of the three positions is the one that is left.
    for leaves in 0..3 {
        let cpus = [cpus[0], cpus[1]];
        coreloop::run(async move {
            let group = group();
            let mut listeners = Vec::new();
            let mut rest = cpus.to_vec();
            for position in 0..3 {
                let cpu = if position == leaves { NOWHERE } else { rest.remove(0) };
                listeners.push(group.bind(cpu).unwrap());
            }
            all_right(&mut listeners, &cpus).await;
            drop(listeners.remove(leaves));
            assert_eq!(group.cpus().len(), 2);
            all_right(&mut listeners, &cpus).await;
            // And again, with one that comes anew.
            listeners.push(group.bind(NOWHERE + 1).unwrap());
            all_right(&mut listeners, &cpus).await;
        })
        .unwrap();
    }
}

#[test]
fn spread_group_is_right_however_listeners_come_and_go() {
    let cpus = allowed_cpus();
    if cpus.len() < 2 {
        skip!("a choice takes two CPUs");
    }
    coreloop::run(async move {
        let (cpus, group) = ([cpus[0], cpus[1]], group());
        let mut random = Rng::new(5);
        let mut listeners: Vec<_> = cpus.iter().map(|cpu| group.bind(*cpu).unwrap()).collect();
        for step in 0..40 {
            let others: Vec<usize> =
                (0..listeners.len()).filter(|i| !cpus.contains(&cpu_of(&listeners[*i]))).collect();
            match random.below(3) {
                0 if !others.is_empty() => {
                    let one = others[random.below(others.len() as u64) as usize];
                    drop(listeners.swap_remove(one));
                }
                1 => {
                    // One of the two that matter, and back again.
                    let at = listeners.iter().position(|l| cpus.contains(&cpu_of(l))).unwrap();
                    let cpu = cpu_of(&listeners[at]);
                    drop(listeners.remove(at));
                    listeners.push(group.bind(cpu).unwrap());
                }
                _ => listeners.push(group.bind(NOWHERE + step).unwrap()),
            }
            all_right(&mut listeners, &cpus).await;
        }
    })
    .unwrap();
}

#[test]
fn spread_group_of_cores_each_serves_its_own_cpu() {
    let cpus = allowed_cpus();
    if cpus.len() < 2 {
        skip!("a choice takes two CPUs");
    }
    let cpus = vec![cpus[0], cpus[1]];
    let group = group();
    let (tell, told) = mpsc::channel();
    let runtime = Runtime::builder().cores(Cores::These(cpus.clone())).build().unwrap();
    let client = thread::spawn(move || {
        let ports: Vec<SocketAddr> = told.iter().take(2).collect();
        assert_eq!(ports[0], ports[1], "both listen on one address");
        for i in 0..40 {
            let cpu = cpus[i % 2];
            run_on(cpu).unwrap();
            let mut stream = StdStream::connect(ports[0]).unwrap();
            let mut says = [0; 8];
            std::io::Read::read_exact(&mut stream, &mut says).unwrap();
            assert_eq!(usize::from_le_bytes(says), cpu);
        }
    });
    let served = runtime.run(move |core| {
        let (group, tell) = (group.clone(), tell.clone());
        async move {
            let mut listener = group.bind(core.cpu()).unwrap();
            tell.send(listener.local_addr().unwrap()).unwrap();
            for _ in 0..20 {
                let mut stream = listener.accept().await.unwrap();
                stream.write_all(core.cpu().to_le_bytes().to_vec()).await.unwrap();
            }
            // A connection for the other core must not be reset because this one is done.
            coreloop::time::sleep(Duration::from_millis(50)).await;
        }
    });
    assert_eq!(served.unwrap().len(), 2);
    client.join().unwrap();
}

#[test]
fn spread_group_one_that_retires_gets_no_more_and_loses_none() {
    let cpus = allowed_cpus();
    coreloop::run(async move {
        let (cpu, group) = (cpus[0], group());
        let (mut a, mut b) = (group.bind(cpu).unwrap(), group.bind(NOWHERE).unwrap());
        let addr = a.local_addr().unwrap();
        let before = connect_on(cpu, addr).await;
        a.retire().unwrap();
        assert_eq!(group.cpus(), [None, Some(NOWHERE)]);
        let after = connect_on(cpu, addr).await;
        let from = |s: TcpStream| s.peer_addr().unwrap();
        assert_eq!(from(a.accept().await.unwrap()), before.local_addr().unwrap());
        assert_eq!(from(b.accept().await.unwrap()), after.local_addr().unwrap());
        let none = a.accept().until(Instant::now() + Duration::from_millis(20)).await;
        assert!(none.is_err());
        drop(a);
        // The last one is reset by nothing that another does.
        let last = connect_on(cpu, addr).await;
        assert_eq!(from(b.accept().await.unwrap()), last.local_addr().unwrap());
    })
    .unwrap();
}

#[test]
fn spread_group_adopts_sockets_at_their_positions_and_gives_them_away() {
    let cpus = allowed_cpus();
    coreloop::run(async move {
        let cpu = cpus[0];
        let old = group();
        let mut theirs = vec![old.bind(NOWHERE).unwrap(), old.bind(NOWHERE + 1).unwrap()];
        let sockets = old.sockets().unwrap();
        let addr = old.addr();
        let new = Group::adopt(sockets, ListenOptions::default()).unwrap();
        // Fewer cores than there were: this one takes the first, somebody empties the second.
        let mut ours = new.bind(cpu).unwrap();
        let rest = new.take_left_over().unwrap().expect("there is one more");
        assert!(new.take_left_over().unwrap().is_none());
        assert_eq!((ours.position(), rest.position()), (0, 1));
        old.give_away();
        assert_eq!(old.bind(cpu).unwrap_err().kind(), std::io::ErrorKind::InvalidInput);
        assert!(old.take_left_over().unwrap().is_none());
        theirs.clear();
        new.own();
        drop(rest);
        assert_eq!(new.cpus(), [Some(cpu)]);
        for _ in 0..10 {
            let client = connect_on(cpu, addr).await;
            let served = timeout(LIMIT, ours.accept()).await.unwrap().unwrap();
            assert_eq!(served.peer_addr().unwrap(), client.local_addr().unwrap());
        }
    })
    .unwrap();
}

#[test]
fn spread_group_a_successor_that_fails_leaves_its_predecessor_the_sockets() {
    let cpu = allowed_cpus()[0];
    coreloop::run(async move {
        let old = group();
        let mut theirs = vec![old.bind(cpu).unwrap(), old.bind(NOWHERE).unwrap()];
        for _ in 0..3 {
            // It takes them up, finds that it can't go on, and ends in good order.
            let new = Group::adopt(old.sockets().unwrap(), ListenOptions::default()).unwrap();
            let first = new.bind(cpu).unwrap();
            let left_over = new.take_left_over().unwrap().expect("there is one more");
            drop((first, left_over));
            assert_eq!(new.cpus(), [None, None], "their positions are what they were");
            let again = new.bind(cpu).unwrap();
            assert_eq!(again.position(), 0, "the same socket, and no new one");
            drop((again, new));
            assert_eq!(comes_to(&mut theirs, cpu).await, 0);
        }
    })
    .unwrap();
}

/// Its own would be left behind where it dies, and where it ends in good order too.
#[test]
fn spread_group_the_program_is_the_predecessors_until_the_sockets_are_owned() {
    let cpu = allowed_cpus()[0];
    coreloop::run(async move {
        let old = group();
        let mut theirs = vec![old.bind(NOWHERE).unwrap(), old.bind(cpu).unwrap()];
        let new = Group::adopt(old.sockets().unwrap(), ListenOptions::default()).unwrap();
        let first = new.bind(cpu).unwrap();
        assert_eq!((first.position(), comes_to(&mut theirs, cpu).await), (0, 1), "one core");
        let mut second = new.bind(NOWHERE + 1).unwrap();
        assert_eq!(comes_to(&mut theirs, cpu).await, 1, "all cores");
        second.retire().unwrap();
        assert_eq!(comes_to(&mut theirs, cpu).await, 1, "one retires");
        drop((second, first));
        assert_eq!(comes_to(&mut theirs, cpu).await, 1, "they have ended");
        let _again = [new.bind(cpu).unwrap(), new.bind(NOWHERE + 1).unwrap()];
        new.own();
        assert_eq!(comes_to(&mut theirs, cpu).await, 0, "by the new one's table");
        old.give_away();
    })
    .unwrap();
}

#[test]
fn spread_group_left_over_sockets_are_taken_up_once_whoever_asks() {
    let old = group();
    coreloop::run(async move {
        let _theirs: Vec<_> = (0..8).map(|i| old.bind(NOWHERE + i).unwrap()).collect();
        let new = Group::adopt(old.sockets().unwrap(), ListenOptions::default()).unwrap();
        let together = Arc::new(Barrier::new(4));
        let ask = || {
            let (new, together) = (new.clone(), together.clone());
            spawn_blocking(move || {
                together.wait();
                coreloop::run(async {
                    let took = std::iter::from_fn(|| new.take_left_over().unwrap());
                    let took: Vec<_> = took.collect();
                    together.wait();
                    took.len()
                })
                .unwrap()
            })
        };
        let asked: Vec<_> = (0..4).map(|_| ask()).collect();
        let mut took = 0;
        for one in asked {
            took += one.await.unwrap();
        }
        assert_eq!((took, new.cpus().len()), (8, 8), "no more than there were");
    })
    .unwrap();
}

#[test]
fn spread_by_hash_reaches_every_listener_of_a_port() {
    let cpu = allowed_cpus()[0];
    let cores = 3;
    let runtime = Runtime::builder().cores(Cores::These(vec![cpu; cores])).build().unwrap();
    let all_bound = Arc::new(Barrier::new(2));
    let (tell, told) = mpsc::channel::<(usize, SocketAddr)>();
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let bound = all_bound.clone();
    let client = thread::spawn(move || {
        bound.wait();
        let clients: Vec<_> = (0..200).map(|_| StdStream::connect(port).unwrap()).collect();
        clients.len()
    });
    let group = coreloop_net::spread::Loads::new(cores);
    let ready = group.clone();
    let accepted = runtime.run(move |core| {
        let (loads, all_bound, tell) = (ready.clone(), all_bound.clone(), tell.clone());
        async move {
            let mut listener = TcpListener::bind(port).unwrap();
            tell.send((core.index(), listener.local_addr().unwrap())).unwrap();
            let _here = loads.count(core.index());
            if core.index() == 0 {
                let all = || loads.all().iter().all(|load| load.connections == 1);
                assert!(coreloop_tests::settled(LIMIT, all).await);
                spawn_blocking(move || all_bound.wait().is_leader()).await.unwrap();
            }
            let mut accepted = Vec::new();
            loop {
                let next = listener.accept().until(Instant::now() + Duration::from_millis(500));
                match next.await {
                    Ok(stream) => accepted.push(stream),
                    Err(_) if accepted.is_empty() => {}
                    Err(_) => return accepted.len(),
                }
            }
        }
    });
    let accepted = accepted.unwrap();
    assert_eq!(client.join().unwrap(), 200);
    assert_eq!(accepted.iter().sum::<usize>(), 200);
    assert!(accepted.iter().all(|n| *n > 20), "{accepted:?}");
    drop(told);
}
