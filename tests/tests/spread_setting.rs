//! The setting `accept_spread`: each value does what it says, and what the kernel can't is stepped down in words.

use std::io::{self, ErrorKind};
use std::net::{SocketAddr, TcpStream as StdStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

use coreloop::config::{AcceptSpread, Field};
use coreloop::placement::allowed_cpus;
use coreloop::shutdown::Graceful;
use coreloop::{Core, Cores, Runtime, Settings};
use coreloop_net::ListenOptions;
use coreloop_net::spread::{Accepted, Acceptor, Acceptors};
use coreloop_tests::process::{
    block_socket_option, file_limit, fill_descriptor_gaps, run_on, set_file_limit,
};
use coreloop_tests::{in_child, settled, skip};

const LIMIT: Duration = Duration::from_secs(20);

/// A server of two cores that keeps what it accepts; what each has of all that were connected, in their order.
struct Served {
    cores: Vec<usize>,
    acceptors: Acceptors,
}

/// Connects so many times, each from the CPU that `from` says, and waits after each for its accept.
fn served(way: AcceptSpread, cpus: [usize; 2], from: &[usize]) -> Served {
    served_by(way, cpus, from, [Acceptors::join; 2])
}

/// How a core joins.
type Join = fn(&Acceptors, &Core) -> io::Result<Acceptor>;

/// As [`served`], with cores that join so, one after the other.
fn served_by(way: AcceptSpread, cpus: [usize; 2], from: &[usize], joins: [Join; 2]) -> Served {
    let acceptors = Acceptors::new("127.0.0.1:0", ListenOptions::default(), way, 2).unwrap();
    let graceful = Graceful::new(Duration::ZERO);
    let (joined, addrs) = mpsc::channel::<SocketAddr>();
    let (tell, told) = mpsc::channel::<usize>();
    let runtime = Runtime::builder().cores(Cores::These(cpus.to_vec())).build().unwrap();
    let (own, ends) = (acceptors.clone(), graceful.clone());
    let turn = Arc::new(AtomicUsize::new(0));
    let server = thread::spawn(move || {
        runtime.run(move |core| {
            let (acceptors, graceful) = (own.clone(), ends.clone());
            let (joined, tell, turn) = (joined.clone(), tell.clone(), turn.clone());
            async move {
                let here = graceful.here();
                assert!(settled(LIMIT, || turn.load(Ordering::SeqCst) == core.index()).await);
                let mut acceptor = joins[core.index()](&acceptors, &core).unwrap();
                let book = core.handle().snapshot(core.index()).unwrap().step_downs;
                let said = book.iter().find(|step| step.what == "accept_spread");
                let told = said.is_some_and(|s| s.why.starts_with("asked cpu, in force reuseport"));
                assert_eq!(told, acceptors.stepped_down().is_some(), "{said:?}");
                turn.fetch_add(1, Ordering::SeqCst);
                joined.send(acceptors.addr()).unwrap();
                let mut kept: Vec<Accepted> = Vec::new();
                loop {
                    let next = here.stopping().run(acceptor.accept()).await;
                    let accepted = match next {
                        Ok(Ok(accepted)) => accepted,
                        // The core that accepts may have ended first, at the same word.
                        Ok(Err(e)) if e.kind() == ErrorKind::BrokenPipe && !graceful.is_ready() => {
                            break;
                        }
                        Ok(Err(e)) => panic!("{e}"),
                        Err(_) => break,
                    };
                    kept.push(accepted);
                    tell.send(core.index()).unwrap();
                }
                assert_eq!(acceptors.loads().of(core.index()).connections, kept.len());
            }
        })
    });
    let addr = [addrs.recv().unwrap(), addrs.recv().unwrap()].map(|addr| addr.port());
    let addr = SocketAddr::from(([127, 0, 0, 1], addr.into_iter().max().unwrap()));
    let mut clients = Vec::new();
    let cores = from.iter().map(|cpu| {
        run_on(*cpu).unwrap();
        clients.push(StdStream::connect(addr).unwrap());
        told.recv_timeout(LIMIT).expect("it is accepted")
    });
    let cores = cores.collect();
    graceful.begin();
    server.join().unwrap().unwrap();
    Served { cores, acceptors }
}

fn first_cpu() -> [usize; 2] {
    [allowed_cpus()[0]; 2]
}

/// Done on a thread of its own, whose CPU is chosen.
fn apart(f: impl FnOnce() + Send + 'static) {
    thread::spawn(f).join().unwrap();
}

#[test]
fn spread_setting_reuseport_gives_each_core_some() {
    apart(|| {
        let cpus = first_cpu();
        let served = served(AcceptSpread::ReusePort, cpus, &[cpus[0]; 64]);
        // One chance in 2^63 that a hash sends all of them to one.
        assert!((0..2).all(|core| served.cores.contains(&core)), "{:?}", served.cores);
        assert_eq!(served.acceptors.way(), AcceptSpread::ReusePort);
    });
}

#[test]
fn spread_setting_cpu_gives_each_core_its_cpus() {
    let cpus = allowed_cpus();
    if cpus.len() < 2 {
        skip!("a choice takes two CPUs");
    }
    apart(move || {
        let (a, b) = (cpus[0], cpus[1]);
        let served = served(AcceptSpread::Cpu, [a, b], &[a, a, b, a, b, b, b, a]);
        assert_eq!(served.cores, [0, 0, 1, 0, 1, 1, 1, 0]);
        assert_eq!(served.acceptors.way(), AcceptSpread::Cpu);
    });
}

#[test]
fn spread_setting_round_robin_gives_them_in_turn() {
    apart(|| {
        let cpus = first_cpu();
        let served = served(AcceptSpread::RoundRobin, cpus, &[cpus[0]; 8]);
        assert_eq!(served.cores, [0, 1, 0, 1, 0, 1, 0, 1]);
    });
}

/// Core 0 keeps what it gets and core 1 nothing: all but the first go to core 1.
#[test]
fn spread_setting_least_connections_gives_to_whoever_has_the_fewest() {
    let runtime = Runtime::builder().cores(Cores::These(first_cpu().to_vec())).build().unwrap();
    let way = AcceptSpread::LeastConnections;
    let acceptors = Acceptors::new("127.0.0.1:0", ListenOptions::default(), way, 2).unwrap();
    let counts = Arc::new([AtomicUsize::new(0), AtomicUsize::new(0)]);
    let (seen, joined) = (counts.clone(), Arc::new(AtomicUsize::new(0)));
    let graceful = Graceful::new(Duration::ZERO);
    runtime
        .run(move |core| {
            let (acceptors, counts) = (acceptors.clone(), counts.clone());
            let (graceful, joined) = (graceful.clone(), joined.clone());
            async move {
                let here = graceful.here();
                let mut acceptor = acceptors.join(&core).unwrap();
                joined.fetch_add(1, Ordering::SeqCst);
                if core.index() == 0 {
                    // Before, the other one has no share.
                    assert!(settled(LIMIT, || joined.load(Ordering::SeqCst) == 2).await);
                    let (addr, counts) = (acceptors.addr(), counts.clone());
                    let graceful = graceful.clone();
                    drop(coreloop::spawn_blocking(move || {
                        for i in 1..=9 {
                            let _client = StdStream::connect(addr).unwrap();
                            let all =
                                || counts.iter().map(|n| n.load(Ordering::SeqCst)).sum::<usize>();
                            while all() < i {
                                thread::sleep(Duration::from_millis(1));
                            }
                        }
                        graceful.begin();
                    }));
                }
                let mut kept = Vec::new();
                while let Ok(accepted) = here.stopping().run(acceptor.accept()).await {
                    // The core that deals may have ended before this one is told to stop.
                    let accepted = match accepted {
                        Ok(accepted) => accepted,
                        Err(e) if e.kind() == ErrorKind::BrokenPipe && !graceful.is_ready() => {
                            break;
                        }
                        Err(e) => panic!("{e}"),
                    };
                    if core.index() == 0 {
                        kept.push(accepted);
                    } else {
                        // Its place in the count is given up before anybody hears of it.
                        drop(accepted);
                    }
                    counts[core.index()].fetch_add(1, Ordering::SeqCst);
                }
            }
        })
        .unwrap();
    let seen = [&seen[0], &seen[1]].map(|n| n.load(Ordering::SeqCst));
    assert_eq!(seen, [1, 8]);
}

/// A kernel that takes no such program, as one without BPF: its own spread, and why.
#[test]
fn spread_setting_cpu_steps_down_where_the_kernel_takes_no_program() {
    in_child("spread_setting_cpu_steps_down_where_the_kernel_takes_no_program", || {
        if let Err(e) = refuse(libc::SO_ATTACH_REUSEPORT_CBPF) {
            skip!("no seccomp filters here: {e}");
        }
        // Its threads inherit the filter.
        let cpus = first_cpu();
        let served = served(AcceptSpread::Cpu, cpus, &[cpus[0]; 64]);
        assert!((0..2).all(|core| served.cores.contains(&core)), "{:?}", served.cores);
        assert_eq!(served.acceptors.way(), AcceptSpread::ReusePort);
        let why = served.acceptors.stepped_down().unwrap();
        assert!(why.starts_with("accept_spread = cpu is reuseport here"), "{why}");
        assert!(why.contains("Protocol not available"), "{why}");
    });
}

fn refuse(option: i32) -> io::Result<()> {
    block_socket_option(option, libc::ENOPROTOOPT)
}

/// 64 connections where the first core's program is taken and `second` joins as the second one, whose program is
/// not; and why it stepped down.
///
/// # Errors
/// Where no thread can be refused anything.
fn stepped_down_in_the_middle(second: Join) -> io::Result<(Served, String)> {
    // On a thread of its own.
    thread::spawn(|| refuse(libc::SO_ATTACH_REUSEPORT_CBPF)).join().unwrap()?;
    let (cpus, joins) = (first_cpu(), [Acceptors::join, second]);
    let served = served_by(AcceptSpread::Cpu, cpus, &[cpus[0]; 64], joins);
    assert_eq!(served.acceptors.way(), AcceptSpread::ReusePort);
    let why = served.acceptors.stepped_down().unwrap();
    Ok((served, why))
}

const REFUSED: &str = "takes no program for the port (Protocol not available (os error 92))";

/// The one that there is goes, and both have some.
#[test]
fn spread_setting_cpu_steps_down_in_the_middle_and_no_core_is_left_out() {
    in_child("spread_setting_cpu_steps_down_in_the_middle_and_no_core_is_left_out", || {
        let served = stepped_down_in_the_middle(|acceptors, core| {
            refuse(libc::SO_ATTACH_REUSEPORT_CBPF)?;
            acceptors.join(core)
        });
        let (served, why) = match served {
            Ok(served) => served,
            Err(e) => skip!("no seccomp filters here: {e}"),
        };
        // One chance in 2^63 that a hash sends all of them to one.
        assert!((0..2).all(|core| served.cores.contains(&core)), "{:?}", served.cores);
        assert!(why.ends_with(REFUSED), "{why}");
    });
}

/// Without a descriptor for its part in the group, and with a kernel that takes no program away: a program that
/// names nobody is as good.
#[test]
fn spread_setting_cpu_steps_down_in_the_middle_where_the_program_can_not_be_detached() {
    let name = "spread_setting_cpu_steps_down_in_the_middle_where_the_program_can_not_be_detached";
    in_child(name, || {
        let served = stepped_down_in_the_middle(|acceptors, core| {
            refuse(libc::SO_DETACH_REUSEPORT_BPF)?;
            let before = file_limit();
            // Room for a listener, and not for a second descriptor of it.
            set_file_limit(fill_descriptor_gaps() + 1);
            let joined = acceptors.join(core);
            set_file_limit(before);
            joined
        });
        let (served, why) = match served {
            Ok(served) => served,
            Err(e) => skip!("no seccomp filters here: {e}"),
        };
        assert!((0..2).all(|core| served.cores.contains(&core)), "{:?}", served.cores);
        assert!(why.ends_with("for the port (Too many open files (os error 24))"), "{why}");
    });
}

/// A kernel that keeps the program that it has, whatever is done: whoever joined before serves all, and it is said.
#[test]
fn spread_setting_cpu_steps_down_in_the_middle_and_loses_none_where_the_program_stays() {
    let name = "spread_setting_cpu_steps_down_in_the_middle_and_loses_none_where_the_program_stays";
    in_child(name, || {
        let served = stepped_down_in_the_middle(|acceptors, core| {
            refuse(libc::SO_ATTACH_REUSEPORT_CBPF)?;
            refuse(libc::SO_DETACH_REUSEPORT_BPF)?;
            acceptors.join(core)
        });
        let (served, why) = match served {
            Ok(served) => served,
            Err(e) => skip!("no seccomp filters here: {e}"),
        };
        assert_eq!(served.cores, [0; 64]);
        assert!(why.contains("keeps the one that it has (Protocol not available"), "{why}");
        assert!(why.ends_with("the cores before serve all"), "{why}");
    });
}

#[test]
fn spread_setting_is_read_from_text() {
    let field = Field::named("accept_spread").unwrap();
    let mut settings = Settings::default();
    for way in AcceptSpread::ALL {
        field.set(&mut settings, &way.to_string()).unwrap();
        assert_eq!(AcceptSpread::of(&settings), way);
        assert_eq!(field.get(&settings), way.to_string());
    }
    let wrong = field.set(&mut settings, "hash").unwrap_err().to_string();
    assert!(wrong.contains("reuseport, cpu, round-robin or least-connections"), "{wrong}");
}
