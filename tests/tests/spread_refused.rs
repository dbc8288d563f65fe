//! Where one core accepts for all and can't: whoever waits to be dealt to hears of it, and why.

use std::io::ErrorKind;
use std::net::TcpListener as StdListener;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use coreloop::config::AcceptSpread;
use coreloop::placement::allowed_cpus;
use coreloop::time::timeout;
use coreloop::{Cores, Runtime};
use coreloop_net::spread::{Acceptor, Acceptors};
use coreloop_net::{ListenOptions, TcpStream};
use coreloop_tests::settled;

const LIMIT: Duration = Duration::from_secs(20);

fn two_cores() -> Runtime {
    let cpu = allowed_cpus()[0];
    Runtime::builder().cores(Cores::These(vec![cpu; 2])).build().unwrap()
}

/// How far a test has come.
#[derive(Clone, Default)]
struct Step(Arc<AtomicUsize>);

impl Step {
    fn is(&self, step: usize) {
        self.0.store(step, Ordering::SeqCst);
    }

    async fn reached(&self, step: usize) {
        let has = || self.0.load(Ordering::SeqCst) >= step;
        assert!(settled(LIMIT, has).await, "step {step}");
    }
}

/// What an accept that has no chance is told.
async fn told(acceptor: &mut Acceptor) -> String {
    let accepted = timeout(LIMIT, acceptor.accept()).await.expect("it hears of it");
    let error = accepted.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::BrokenPipe);
    error.to_string()
}

/// The other core waits already, or comes later.
#[test]
fn spread_refused_a_core_that_can_not_listen_is_told_to_who_waits() {
    for waits in [true, false] {
        let taken = StdListener::bind("127.0.0.1:0").unwrap();
        let addr = taken.local_addr().unwrap();
        let (way, options) = (AcceptSpread::RoundRobin, ListenOptions::default());
        let acceptors = Acceptors::new(addr, options, way, 2).unwrap();
        let (taken, step) = (Arc::new(Mutex::new(Some(taken))), Step::default());
        let ended = two_cores().run(move |core| {
            let (acceptors, taken, step) = (acceptors.clone(), taken.clone(), step.clone());
            async move {
                if core.index() == 1 {
                    step.reached(if waits { 0 } else { 2 }).await;
                    let mut acceptor = acceptors.join(&core).unwrap();
                    let hears =
                        coreloop::spawn(async move { (told(&mut acceptor).await, acceptor) });
                    coreloop::yield_now().await;
                    step.is(if waits { 1 } else { 2 });
                    let (why, mut acceptor) = hears.await.unwrap();
                    assert!(why.contains("could not listen"), "{why}");
                    step.is(3);
                    step.reached(4).await;
                    timeout(LIMIT, acceptor.accept()).await.expect("it is dealt to").unwrap();
                    return step.is(5);
                }
                step.reached(if waits { 1 } else { 0 }).await;
                let refused = acceptors.join(&core).unwrap_err();
                assert_eq!(refused.kind(), ErrorKind::AddrInUse);
                if !waits {
                    step.is(2);
                }
                step.reached(3).await;
                // And when it can after all, both are dealt to.
                drop(taken.lock().unwrap().take());
                let mut own = acceptors.join(&core).unwrap();
                step.is(4);
                let mut clients = Vec::new();
                for _ in 0..2 {
                    clients.push(TcpStream::connect(addr).await.unwrap());
                }
                timeout(LIMIT, own.accept()).await.unwrap().unwrap();
                step.reached(5).await;
            }
        });
        ended.unwrap();
    }
}

/// The other core waits when it ends, or comes later.
#[test]
fn spread_refused_a_core_that_ends_and_never_joined_is_told_to_who_waits() {
    for waits in [true, false] {
        let (way, options) = (AcceptSpread::LeastConnections, ListenOptions::default());
        let acceptors = Acceptors::new("127.0.0.1:0", options, way, 2).unwrap();
        let step = Step::default();
        let ended = two_cores().run(move |core| {
            let (acceptors, step) = (acceptors.clone(), step.clone());
            async move {
                if core.index() == 0 {
                    return step.reached(usize::from(waits)).await;
                }
                if !waits {
                    let ended = || core.handle().spawn_on(0, async || ()).is_err();
                    assert!(settled(LIMIT, ended).await);
                }
                let mut acceptor = acceptors.join(&core).unwrap();
                let hears = coreloop::spawn(async move { told(&mut acceptor).await });
                coreloop::yield_now().await;
                step.is(1);
                let why = hears.await.unwrap();
                assert!(why.contains("has ended, and had not joined"), "{why}");
            }
        });
        ended.unwrap();
    }
}
