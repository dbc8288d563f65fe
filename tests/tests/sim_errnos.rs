//! Every error that a call may answer with is drawn, and reaches whoever made the call.
//!
//! A small server and its client make every call through the lowest face there is, over so many seeds that
//! each error of the table comes. Those of a loop's start and of its enters are dealt with below; of them
//! the report says that they came, and the run that they did no harm.

#![allow(unsafe_code)]

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::future::poll_fn;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Shutdown, SocketAddr};
use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use coreloop::fds;
use coreloop::op::{AcceptOne, AcceptQueue, Connect, Cqe, Op, PollOnce, Read, Sqe};
use coreloop::op::{Submitter, submit};
use coreloop::sim::{Call, Faults, Sim};
use coreloop::time::{sleep, timeout};
use coreloop_net::{TcpListener, TcpStream};

const PORT: u16 = 7000;
const MS: Duration = Duration::from_millis(1);

/// What was seen: call and errno.
#[derive(Clone, Default)]
struct Seen(Rc<RefCell<BTreeSet<(Call, i32)>>>);

impl Seen {
    /// Of a call that makes a socket first.
    fn note_made<T>(&self, call: Call, result: io::Result<T>) -> Option<T> {
        let errno = result.as_ref().err().and_then(io::Error::raw_os_error);
        match errno.is_some_and(|errno| Call::Socket.errnos().contains(&errno)) {
            // Either of the two it may have been.
            true if errno.is_some_and(|errno| is_listed(call, errno)) => {
                self.0.borrow_mut().extend(errno.map(|errno| (Call::Socket, errno)));
                self.note(call, result)
            }
            true => self.note(Call::Socket, result),
            false => self.note(call, result),
        }
    }

    fn note<T>(&self, call: Call, result: io::Result<T>) -> Option<T> {
        result
            .inspect_err(|e| {
                let errno = e.raw_os_error().unwrap_or_else(|| panic!("{call:?}: {e}"));
                assert!(is_listed(call, errno), "{call:?} answered {e}, which is in no table");
                self.0.borrow_mut().insert((call, errno));
            })
            .ok()
    }
}

/// Whether a table has it: what a connection broke by, either of its directions may be told.
fn is_listed(call: Call, errno: i32) -> bool {
    let stream = [Call::Receive, Call::Send];
    let calls = if stream.contains(&call) { &stream[..] } else { &[call] };
    calls.iter().any(|c| c.errnos().contains(&errno) || c.own_errnos().contains(&errno))
}

/// A write as it comes: no errno is dealt with on the way.
struct Write {
    socket: Rc<OwnedFd>,
    bytes: Box<[u8; 64]>,
}

// SAFETY: the bytes are on the heap and stay there until the completion; the descriptor lives as long.
unsafe impl Op for Write {
    type Out = io::Result<u32>;

    fn prepare(&mut self) -> Sqe {
        Sqe::send(self.socket.as_fd(), self.bytes.as_ptr(), 64, libc::MSG_NOSIGNAL)
    }

    unsafe fn finish(self, cqe: Cqe) -> io::Result<u32> {
        cqe.result()
    }
}

fn listen(seen: &Seen, submitter: &Submitter) -> Option<Rc<OwnedFd>> {
    let any = SocketAddr::from((Ipv4Addr::UNSPECIFIED, PORT));
    let socket = seen.note(Call::Socket, submitter.stream_socket(&any))?;
    socket2::SockRef::from(&socket).set_reuse_address(true).unwrap();
    socket2::SockRef::from(&socket).set_reuse_port(true).unwrap();
    seen.note(Call::Bind, submitter.bind(&socket, &any))?;
    seen.note(Call::Listen, submitter.listen(&socket, 8))?;
    // Without the program it listens as well.
    seen.note(Call::Steer, submitter.steer_by_cpu(&socket, &[(0, 0)]));
    let local = seen.note(Call::LocalAddr, submitter.local_addr(&socket));
    assert!(local.is_none_or(|local| local.port() == PORT));
    Some(Rc::new(socket))
}

async fn serve(seen: Seen) {
    let submitter = Submitter::current();
    loop {
        let Some(listener) = listen(&seen, &submitter) else {
            sleep(MS).await;
            continue;
        };
        let queue = AcceptQueue::new(&submitter);
        for _ in 0..10 {
            let op = AcceptOne::new(listener.clone(), queue.clone());
            let armed = submitter.arm(op).map_err(|(_, e)| e).unwrap();
            let accepted = poll_fn(|cx| match queue.pop() {
                Some(accepted) => Poll::Ready(accepted),
                None => {
                    queue.wake_on_arrival(cx);
                    Poll::Pending
                }
            });
            let accepted = accepted.await;
            drop(armed);
            if let Some(socket) = seen.note(Call::Accept, accepted) {
                drop(coreloop::spawn(answer(seen.clone(), Rc::new(socket))));
            }
        }
        queue.close();
    }
}

async fn answer(seen: Seen, socket: Rc<OwnedFd>) {
    loop {
        let ready = submit(PollOnce::new(socket.clone(), libc::POLLIN as u32)).await;
        if seen.note(Call::Poll, ready).is_none() {
            continue;
        }
        let read = submit(Read::new(socket.clone(), Vec::with_capacity(64))).await;
        match seen.note(Call::Receive, read.map_err(|e| e.into_parts().0)) {
            Some((0, _)) => return,
            Some(_) => {}
            None => return,
        }
        let sent = submit(Write { socket: socket.clone(), bytes: Box::new([7; 64]) }).await;
        if seen.note(Call::Send, sent).is_none() {
            return;
        }
    }
}

async fn call(seen: Seen, server: IpAddr) {
    let submitter = Submitter::current();
    for _ in 0..20 {
        sleep(MS).await;
        let to = SocketAddr::from((server, PORT));
        let Some(socket) = seen.note(Call::Socket, submitter.stream_socket(&to)) else { continue };
        let connected = submit(Connect::new(socket, to)).await;
        let Some(socket) = seen.note(Call::Connect, connected) else { continue };
        let socket = Rc::new(socket);
        seen.note(Call::PeerAddr, submitter.peer_addr(&socket));
        for _ in 0..4 {
            let sent = submit(Write { socket: socket.clone(), bytes: Box::new([7; 64]) }).await;
            if seen.note(Call::Send, sent).is_none() {
                break;
            }
            // The server may have given up, without a word to a connection that it did not accept.
            let read = submit(Read::new(socket.clone(), Vec::with_capacity(64)));
            let Ok(read) = timeout(100 * MS, read).await else { break };
            if seen.note(Call::Receive, read.map_err(|e| e.into_parts().0)).is_none() {
                break;
            }
        }
        seen.note(Call::Shutdown, submitter.shutdown(&socket, Shutdown::Write));
    }
}

/// What a process says to another one, as far as it comes; here they are one.
async fn talk(seen: Seen) {
    for _ in 0..20 {
        sleep(MS).await;
        let listener = seen.note_made(Call::BindLocal, fds::listen_local("talk", 8));
        let Some(listener) = listener else { continue };
        if let Some(near) = seen.note_made(Call::ConnectLocal, fds::connect_local("talk")) {
            assert!(fds::peer(&near).unwrap().is_trusted());
            let far = seen.note(Call::AcceptLocal, fds::accept_local(&listener));
            let lent = seen.note(Call::Duplicate, fds::duplicate(&near));
            for _ in 0..2 {
                let lent = lent.as_ref().map(|lent| lent.as_fd());
                let sent = fds::send(&near, b"yours", &Vec::from_iter(lent));
                if seen.note(Call::SendMessage, sent).is_none() {
                    continue;
                }
                let Some(far) = &far else { continue };
                let (got, mut bytes) = (lent.is_some() as usize, [0; 5]);
                let came = seen.note(Call::ReceiveMessage, fds::recv(far, &mut bytes));
                assert!(came.is_none_or(|(n, fds)| n == 5 && fds.len() <= got));
            }
        }
        drop(listener);
        while seen.note(Call::Unlink, fds::unlink_local("talk")).is_none() {}
    }
}

/// Whether the loop deals with it, so that no user is told.
fn is_inner(call: Call) -> bool {
    let inner = [Call::ReadEvent, Call::EventFd, Call::Setup, Call::Register, Call::Enter];
    inner.contains(&call)
}

/// Seeds after which nothing of the table may be missing.
const SEEDS: u64 = 400;

#[test]
fn sim_errnos_each_is_drawn_and_reaches_its_caller() {
    let seen = Seen::default();
    let (mut drawn, mut starts_failed) = (BTreeSet::new(), 0);
    let missing = |drawn: &BTreeSet<(Call, i32)>| {
        let all = Call::ALL.iter().flat_map(|c| c.errnos().iter().map(|errno| (*c, *errno)));
        let seen = seen.0.borrow();
        let came = |pair: (Call, i32)| {
            if is_inner(pair.0) { drawn.contains(&pair) } else { seen.contains(&pair) }
        };
        all.filter(|pair| !came(*pair)).collect::<Vec<_>>()
    };
    let mut seeds = 0;
    while !missing(&drawn).is_empty() {
        assert!(seeds < SEEDS, "not in {seeds} seeds: {:?}", missing(&drawn));
        let sim = Sim::builder().seed(seeds).faults(Faults::errors()).build();
        let own = seen.clone();
        let server = sim.host("server", 2, move |core| {
            let own = own.clone();
            async move {
                if core.index() == 0 {
                    return serve(own).await;
                }
                // Wakes between the cores: reads of eventfds.
                loop {
                    sleep(5 * MS).await;
                    let there = core.handle().spawn_on(0, || async {});
                    if let Ok(there) = there {
                        drop(there.await);
                    }
                }
            }
        });
        let own = seen.clone();
        sim.client("client", move || call(own, server));
        let own = seen.clone();
        sim.client("talker", move || talk(own));
        let report = sim.run().unwrap();
        drawn.extend(report.errors.keys().copied());
        starts_failed += report.starts_failed;
        seeds += 1;
    }
    assert!(starts_failed > 0, "a host that could not be started was started again");
    coreloop_tests::figure!("all errors of the table came within {seeds} seeds");
}

#[test]
fn sim_errnos_none_comes_unless_it_is_asked_for() {
    for (seed, faults) in (0..40).flat_map(|n| [(n, Faults::none()), (n, Faults::hidden())]) {
        let seen = Seen::default();
        let sim = Sim::builder().seed(seed).faults(faults).build();
        let own = seen.clone();
        let server = sim.host("server", 1, move |_core| serve(own.clone()));
        let own = seen.clone();
        sim.client("client", move || call(own, server));
        let own = seen.clone();
        sim.client("talker", move || talk(own));
        sim.run().unwrap();
        for (call, errno) in &*seen.0.borrow() {
            // By itself: a server that does not listen yet, or no longer.
            assert!(call.own_errnos().contains(errno), "seed {seed}: {call:?} answered {errno}");
        }
    }
}

/// What a listener deals with: want of descriptors and memory by a pause, a connection that failed by the
/// next one, as accept(2) says.
#[test]
fn sim_errnos_a_listener_goes_on_after_those_that_are_not_its_own() {
    let own = [libc::ENOSR, libc::ESOCKTNOSUPPORT, libc::EPROTONOSUPPORT, libc::ETIMEDOUT];
    let (mut drawn, mut told) = (BTreeSet::new(), BTreeSet::new());
    for seed in 0..60 {
        let seen = Rc::new(RefCell::new(BTreeSet::new()));
        let noted = seen.clone();
        let sim = Sim::builder().seed(seed).faults(Faults::errors()).build();
        let server = sim.host("server", 1, move |_core| {
            let noted = noted.clone();
            async move {
                let mut listener = loop {
                    match TcpListener::bind((Ipv4Addr::UNSPECIFIED, PORT)) {
                        Ok(listener) => break listener,
                        Err(_) => sleep(MS).await,
                    }
                };
                loop {
                    if let Err(e) = listener.accept().await {
                        noted.borrow_mut().insert(e.raw_os_error().unwrap());
                    }
                }
            }
        });
        sim.client("client", async move || {
            for _ in 0..20 {
                sleep(MS).await;
                drop(TcpStream::connect((server, PORT)).await);
            }
        });
        let report = sim.run().unwrap();
        drawn.extend(report.errors.into_keys().filter(|key| key.0 == Call::Accept));
        told.extend(seen.take());
    }
    assert_eq!(drawn.len(), Call::Accept.errnos().len(), "{drawn:?}");
    assert_eq!(told, own.into());
}
