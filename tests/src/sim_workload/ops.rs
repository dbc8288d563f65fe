//! Operations of a user's own.
//!
//! Owns the chore that makes them, through the public face of the driver: small and boxed ones, awaited,
//! cancelled and given up; more at a time than the queues hold, each with its cancel; handles that outlive
//! what they name, and some that outlive their loop.

use std::cell::RefCell;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use coreloop::op::{InFlight, PollOnce, Submitter, submit};
use coreloop::sim::Call;

use super::ledger::{Guard, Ledger};
use super::signal::{Sets, Signal};
use super::tracked::{Once, Tagged};

/// Operations of a user's own, small and boxed, awaited and given up; a readiness that never comes.
pub(super) async fn ops(ledger: &Arc<Ledger>) {
    let rounds = 1 + ledger.below(6);
    for _ in 0..rounds {
        let tag = ledger.below(1 << 40);
        let same = match ledger.below(4) {
            0 => submit(Tagged::<1>::new(ledger, tag)).await.map(|t| t == [tag; 1]),
            1 => submit(Tagged::<20>::new(ledger, tag)).await.map(|t| t == [tag; 20]),
            2 => {
                let _ = ledger.limit(Duration::ZERO, submit(Tagged::<20>::new(ledger, tag))).await;
                Ok(true)
            }
            _ => {
                let started = Submitter::current().start(Tagged::<1>::new(ledger, tag));
                drop(started.map(|flying| flying.cancel()));
                Ok(true)
            }
        };
        if !matches!(same, Ok(true)) {
            ledger.found(format!("operation {tag} gave {same:?}"));
        }
    }
    let listens = match listening() {
        Ok(listens) => listens,
        Err(e) => {
            let calls = [Call::Socket, Call::Bind, Call::Listen];
            return ledger.failed(None, &e, "a socket to listen on", &calls);
        }
    };
    match ledger.below(3) {
        0 => never_ready(ledger, listens).await,
        1 => {
            for _ in 0..1 + ledger.below(4) {
                burst(ledger, &listens).await;
            }
        }
        _ => long_held(ledger, listens).await,
    }
}

/// A socket that nobody connects to, so that it is never ready.
fn listening() -> io::Result<Rc<OwnedFd>> {
    let any = SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0));
    let submitter = Submitter::current();
    let socket = submitter.stream_socket(&any)?;
    submitter.bind(&socket, &any)?;
    submitter.listen(&socket, 4)?;
    Ok(Rc::new(socket))
}

/// The socket as an operation holds it, which tells when it lets go.
struct Watched {
    socket: Rc<OwnedFd>,
    _sets: Sets,
    _guard: Guard,
}

impl Watched {
    fn new(ledger: &Arc<Ledger>, socket: &Rc<OwnedFd>) -> (Self, Arc<Signal>) {
        let signal = Arc::new(Signal::default());
        let (_sets, _guard) = (Sets(signal.clone()), ledger.guard());
        (Self { socket: socket.clone(), _sets, _guard }, signal)
    }
}

impl AsFd for Watched {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

async fn never_ready(ledger: &Arc<Ledger>, listens: Rc<OwnedFd>) {
    let ready = submit(PollOnce::new(listens, libc::POLLIN as u32));
    let ready = ledger.limit(ledger.micros(800), ready).await;
    match ready {
        None => {}
        Some(Err(e)) => ledger.failed(None, &e, "a poll", &[Call::Poll]),
        ready => ledger.found(format!("nobody came, but a listener is ready: {ready:?}")),
    }
}

/// More operations than the queue has room for, all dropped before they can end, and each one's end.
async fn burst(ledger: &Arc<Ledger>, listens: &Rc<OwnedFd>) {
    let submitter = Submitter::current();
    let (flying, ends): (Vec<_>, Vec<_>) = (0..4 + ledger.below(50))
        .map(|_| {
            let (watched, end) = Watched::new(ledger, listens);
            (submitter.start(PollOnce::new(watched, libc::POLLIN as u32)), end)
        })
        .unzip();
    if ledger.chance(50) {
        ledger.sleep(ledger.micros(300)).await;
    }
    drop(flying);
    for end in ends {
        end.wait().await;
    }
}

/// A handle that is kept when its operation has ended, and dropped when another may have its place.
async fn long_held(ledger: &Arc<Ledger>, listens: Rc<OwnedFd>) {
    let submitter = Submitter::current();
    let ended = Arc::new(Signal::default());
    let Ok(armed) = submitter.arm(Once::new(ledger, Sets(ended.clone()))) else { return };
    ended.wait().await;
    let mut others: Vec<_> = (0..1 + ledger.below(3))
        .map(|_| Box::pin(submit(PollOnce::new(listens.clone(), libc::POLLIN as u32))))
        .collect();
    for other in &mut others {
        if crate::drive::poll_once(other.as_mut()).await.is_ready() {
            ledger.found("an operation that never ends did".to_owned());
        }
    }
    if armed.is_armed() {
        ledger.found("an operation that has ended is armed".to_owned());
    }
    drop(armed);
    ledger.sleep(ledger.micros(2_000)).await;
    for other in others {
        let ready = ledger.limit(Duration::ZERO, other).await;
        match ready {
            None => {}
            Some(Err(e)) if ledger.may_answer(&e, &[Call::Poll]) => {}
            ready => ledger.found(format!(
                "another operation was ended by a handle that is none of its: {ready:?}"
            )),
        }
    }
}

thread_local! {
    /// Handles that no task has: they outlive the loops of their operations. Bounded by what the cores of
    /// one simulation leave behind.
    static KEPT: RefCell<Vec<Kept>> = const { RefCell::new(Vec::new()) };
}

enum Kept {
    Small { _flying: InFlight<Tagged<1>> },
    Boxed { _flying: InFlight<Tagged<20>> },
}

/// Begins operations when it is dropped, which is when a core ends: more than the queue has room for, so
/// that some are never sent if the kernel turns enters away. Their handles are kept beyond the loop.
pub(super) struct Parting(pub(super) Arc<Ledger>);

impl Drop for Parting {
    fn drop(&mut self) {
        let ledger = &self.0;
        let Some(submitter) = Submitter::try_current().filter(|_| ledger.chance(60)) else {
            return;
        };
        for _ in 0..ledger.below(40) {
            let tag = ledger.below(1 << 40);
            let kept = if ledger.chance(50) {
                submitter
                    .start(Tagged::new(ledger, tag))
                    .map(|_flying| Kept::Small { _flying })
                    .ok()
            } else {
                submitter
                    .start(Tagged::new(ledger, tag))
                    .map(|_flying| Kept::Boxed { _flying })
                    .ok()
            };
            KEPT.with_borrow_mut(|all| all.extend(kept));
        }
    }
}

/// Lets go of the handles that were kept.
pub(super) fn let_go_of_kept() {
    let kept = KEPT.take();
    drop(kept);
}
