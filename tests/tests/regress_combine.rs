//! What sets of tasks once lost: failures that a set had taken and could tell nobody of any more, time over
//! many late inputs, and tasks of a race's winner, which were cancelled with the loser.

use std::cell::RefCell;
use std::future::pending;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use coreloop::combine::{
    AsCompleted, Child, Either, TaskGroup, WaitError, as_completed, gather, gather_handles,
    gather_tuple, group, race,
};
use coreloop::task::{JoinHandle, Report};
use coreloop::time::{sleep, timeout};
use coreloop::{EventLoop, Settings, select, spawn, spawn_fallible};
use coreloop_tests::drive::{Drops, tens};
use coreloop_tests::{poll_once, turns};

/// A report, as far as it is compared.
#[derive(Clone, Debug, PartialEq)]
enum Said {
    Panicked(String),
    Failed(String),
    /// The child, the file that it was spawned in, whether it panicked, and the message.
    Group(Option<usize>, Option<&'static str>, bool, Option<String>),
    Other(String),
}

impl Said {
    fn of(report: &Report<'_>) -> Self {
        match report {
            Report::Panicked { message, .. } => Self::Panicked((*message).to_owned()),
            Report::Failed { error, .. } => Self::Failed((*error).to_owned()),
            Report::GroupFailed { child, spawned_at, panicked, message } => {
                let file = spawned_at.map(|at| at.file());
                Self::Group(*child, file, *panicked, message.map(str::to_owned))
            }
            other => Self::Other(other.to_string()),
        }
    }

    /// A child of this file gave an error.
    fn failed(child: usize) -> Self {
        Self::Group(Some(child), Some(file!()), false, None)
    }

    /// A child of this file panicked.
    fn panicked(child: usize, message: &str) -> Self {
        Self::Group(Some(child), Some(file!()), true, Some(message.to_owned()))
    }
}

/// A loop, and what it reports.
fn listened_to() -> (EventLoop, Arc<Mutex<Vec<Said>>>) {
    let said = Arc::new(Mutex::new(Vec::new()));
    let log = said.clone();
    let settings = Settings::default().on_report(move |r| log.lock().unwrap().push(Said::of(r)));
    (EventLoop::with(settings).unwrap(), said)
}

/// All reports of a loop that runs this and ends.
fn heard(main: impl AsyncFnOnce()) -> Vec<Said> {
    let (mut event_loop, said) = listened_to();
    event_loop.block_on(main());
    drop(event_loop);
    said.lock().unwrap().clone()
}

type Boxed<T = ()> = Pin<Box<dyn Future<Output = T>>>;

fn panics_and(second: impl Future<Output = ()> + 'static) -> [Boxed; 2] {
    [Box::pin(async { panic!("the first") }), Box::pin(second)]
}

/// Every kind of gather of one that panics and one that never ends.
const GATHERS: [fn() -> Boxed; 3] = [
    || Box::pin(async { drop(gather(panics_and(pending())).await) }),
    || Box::pin(async { drop(gather_handles(panics_and(pending()).map(spawn)).await) }),
    || Box::pin(async { drop(gather_tuple::<(_, _)>(panics_and(pending()).into()).await) }),
];

/// A gather took the results of its tasks one by one, and with them a panic that it then dropped.
#[test]
fn regress_gather_that_is_dropped_reports_what_it_took() {
    let panicked = [Said::Panicked("the first".to_owned())];
    for (kind, made) in GATHERS.iter().enumerate() {
        let said = heard(async || assert!(timeout(tens(5), made()).await.is_err()));
        assert_eq!(said, panicked, "kind {kind}, by a limit");
        let said = heard(async || {
            let outer = spawn(made());
            turns(5).await;
            outer.cancel();
            assert!(outer.await.unwrap_err().is_cancelled());
        });
        assert_eq!(said, panicked, "kind {kind}, by a cancel");
        let said = heard(async || {
            let mut set = made();
            for _ in 0..3 {
                assert!(poll_once(Pin::new(&mut set)).await.is_pending());
                turns(2).await;
            }
        });
        assert_eq!(said, panicked, "kind {kind}, let go of");
    }
    // So is an error that counts as a failure.
    let said = heard(async || {
        let fails: [Boxed<Result<(), &str>>; 2] =
            [Box::pin(async { Err("an error") }), Box::pin(pending())];
        assert!(timeout(tens(5), gather_handles(fails.map(spawn_fallible))).await.is_err());
    });
    assert_eq!(said, [Said::Failed("an error".to_owned())]);
}

#[test]
fn regress_gather_that_completes_gives_the_panic_and_reports_nothing() {
    let said = heard(async || {
        let (first, second) = gather_tuple::<(_, _)>(panics_and(turns(3)).into()).await;
        let sets = [
            gather(panics_and(turns(3))).await,
            gather_handles(panics_and(turns(3)).map(spawn)).await,
            vec![first, second],
        ];
        for set in sets {
            assert_eq!(set[0].as_ref().unwrap_err().panic_message(), Some("the first"));
            assert!(set[1].is_ok() && set.len() == 2);
        }
        turns(2).await;
    });
    assert_eq!(said, []);
}

/// Child 0 gives an error, child 1 panics, child 2 never ends: the group has to wait for it.
fn spawn_failing(g: &TaskGroup<&'static str>) {
    drop::<Child<()>>(g.spawn(async { Err("an error") }));
    drop::<Child<()>>(g.spawn(async { panic!("a panic") }));
    drop::<Child<()>>(g.spawn(pending()));
}

async fn failing(g: &TaskGroup<&'static str>) -> Result<(), &'static str> {
    spawn_failing(g);
    Ok(())
}

fn both() -> [Said; 2] {
    [Said::failed(0), Said::panicked(1, "a panic")]
}

/// A destructor that panics.
struct Sore(&'static str);

impl Drop for Sore {
    fn drop(&mut self) {
        panic!("{}", self.0);
    }
}

/// A group noted the failures for its error, and dropped them where there was none to return.
#[test]
fn regress_group_over_its_limit_reports_failures() {
    let said = heard(async || {
        let mut limited = pin!(timeout(tens(10), group(failing)));
        assert!(poll_once(limited.as_mut()).await.is_pending());
        // It is polled no more until both have failed and the time is over.
        turns(3).await;
        sleep(tens(15)).await;
        assert!(poll_once(limited.as_mut()).await.map(|ended| ended.is_err()) == Poll::Ready(true));
        turns(2).await;
    });
    assert_eq!(said, both());
}

#[test]
fn regress_group_whose_awaiter_is_cancelled_reports_failures() {
    let said = heard(async || {
        let outer = Rc::new(RefCell::new(None));
        let own: Rc<RefCell<Option<JoinHandle<_>>>> = outer.clone();
        let task = spawn(group(async move |g| {
            spawn_failing(g);
            // In the turn of the others, and behind them.
            drop(g.spawn(async move {
                assert!(own.borrow().as_ref().is_some_and(JoinHandle::cancel));
                Ok(())
            }));
            Ok(())
        }));
        outer.replace(Some(task));
        turns(5).await;
        let task = outer.take().unwrap();
        assert!(task.await.unwrap_err().is_cancelled());
    });
    assert_eq!(said, both());
}

#[test]
fn regress_group_whose_body_ends_badly_reports_failures() {
    // It gives an error, and the group is let go of before it has waited for its child.
    let said = heard(async || {
        let mut left = pin!(group(async |g| {
            drop::<Child<()>>(g.spawn(pending()));
            Err::<(), _>("an error")
        }));
        assert!(poll_once(left.as_mut()).await.is_pending());
    });
    assert_eq!(said, [Said::Group(None, None, false, None)]);
    // It panics when it is dropped, because children have failed.
    let said = heard(async || {
        let task = spawn(group(async |g| {
            let _sore = Sore("the body");
            spawn_failing(g);
            pending::<Result<(), _>>().await
        }));
        assert_eq!(task.await.unwrap_err().panic_message(), Some("the body"));
        turns(2).await;
    });
    assert_eq!(said, both());
    // It panics when it is polled, and then a child that is cancelled does, too.
    let said = heard(async || {
        let task = spawn(group(async |g: &TaskGroup<&str>| {
            drop::<Child<()>>(g.spawn(async {
                let _sore = Sore("a child");
                pending().await
            }));
            turns(2).await;
            if g.len() == 1 { panic!("the body") } else { Ok(()) }
        }));
        assert_eq!(task.await.unwrap_err().panic_message(), Some("the body"));
        turns(2).await;
    });
    assert_eq!(said, [Said::panicked(0, "a child")]);
}

#[test]
fn regress_group_reports_what_fails_after_a_hard_cancel() {
    let said = heard(async || {
        let outer = spawn(group(async |g: &TaskGroup<&str>| {
            for why in ["no panic", "one", "two"] {
                drop::<Child<()>>(g.spawn(async move {
                    let _sore = (why != "no panic").then(|| Sore(why));
                    pending().await
                }));
            }
            Ok(())
        }));
        turns(3).await;
        outer.cancel();
        assert!(outer.await.unwrap_err().is_cancelled());
        turns(2).await;
    });
    assert_eq!(said, [Said::panicked(1, "one"), Said::panicked(2, "two")]);
}

/// As a task's panic is, whose handle goes when its loop does not run.
#[test]
fn regress_group_let_go_of_outside_its_loop_reports_to_it() {
    let (mut event_loop, said) = listened_to();
    let mut left = Box::pin(group(failing));
    let mut task = None;
    event_loop.block_on(async {
        assert!(poll_once(left.as_mut()).await.is_pending());
        task = Some(spawn(async { panic!("a task") }));
        turns(3).await;
    });
    drop(task);
    assert_eq!(said.lock().unwrap().drain(..).as_slice(), [Said::Panicked("a task".to_owned())]);
    drop(left);
    assert_eq!(*said.lock().unwrap(), both());
}

#[test]
fn regress_group_that_returns_its_failures_reports_none() {
    let said = heard(async || {
        let failed = group(async |g| {
            spawn_failing(g);
            drop::<Child<()>>(g.spawn(async {
                let _sore = Sore("a destructor");
                pending().await
            }));
            Ok(())
        });
        let children: Vec<_> =
            failed.await.unwrap_err().failures().iter().map(|failure| failure.child).collect();
        assert_eq!(children, [Some(0), Some(1), Some(3)]);
        let failed = group(async |_: &TaskGroup<&str>| Err::<(), _>("an error"));
        assert_eq!(failed.await.unwrap_err().failures().len(), 1);
        turns(2).await;
    });
    assert_eq!(said, []);
}

/// The indices that are given as late, in their order.
async fn late(mut ended: AsCompleted<()>) -> Vec<usize> {
    let mut late = Vec::new();
    while let Some((index, result)) = ended.next().await {
        assert!(matches!(result, Err(WaitError::Elapsed)), "{index}");
        late.push(index);
    }
    late
}

/// For each late input all that were given before were passed over: in a debug build that took minutes.
#[test]
fn regress_as_completed_gives_100_000_late_inputs() {
    const INPUTS: usize = 100_000;
    coreloop::run(async {
        for limit in [Duration::ZERO, tens(1)] {
            let tasks = (0..INPUTS).map(|_| spawn(pending()));
            let late = late(as_completed(tasks).within(limit)).await;
            assert!(late.iter().copied().eq(0..INPUTS), "{} are late", late.len());
        }
    })
    .unwrap();
}

/// What has ended is given where it stands among late ones, and nothing is given twice or left out.
#[test]
fn regress_as_completed_gives_late_inputs_between_others() {
    coreloop::run(async {
        let drops = Drops::new();
        let tasks: Vec<_> = (0..30)
            .map(|n| {
                let guard = drops.guard();
                spawn(async move {
                    let _guard = guard;
                    if n % 3 != 0 {
                        pending().await
                    }
                })
            })
            .collect();
        turns(2).await;
        let mut ended = as_completed(tasks).within(Duration::ZERO);
        for n in 0..10 {
            assert!(matches!(ended.next().await, Some((index, Ok(()))) if index == 3 * n));
        }
        assert_eq!(late(ended).await, (0..30).filter(|n| n % 3 != 0).collect::<Vec<_>>());
        turns(2).await;
        assert_eq!(drops.count(), 10, "the late ones run on");
    })
    .unwrap();
}

/// Ends at its poll number `polls`, if at all, and keeps the handle that it has polled until it is dropped.
struct Holds {
    handle: JoinHandle<()>,
    polls: u32,
    /// Whether it polls the handle in its last poll, too.
    to_the_last: bool,
}

impl Future for Holds {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        self.polls -= 1;
        if self.polls > 0 || self.to_the_last {
            assert!(Pin::new(&mut self.handle).poll(cx).is_pending());
        }
        cx.waker().wake_by_ref();
        if self.polls > 0 { Poll::Pending } else { Poll::Ready(()) }
    }
}

/// Holds the handle of a task that never ends.
fn holds(drops: &Drops, polls: u32, to_the_last: bool) -> Holds {
    let guard = drops.guard();
    let handle = spawn(async move {
        let _guard = guard;
        pending().await
    });
    Holds { handle, polls, to_the_last }
}

/// The winner was dropped as the loser was, and a task whose handle it still held was cancelled.
#[test]
fn regress_race_cancels_what_the_losers_await_and_nothing_of_the_winner() {
    coreloop::run(async {
        for (arms, place, to_the_last) in (0..20).map(|n| (n / 10 + 2, n / 2 % 5, n % 2 == 0)) {
            let (won, lost) = (Drops::new(), Drops::new());
            let arm = |at| match at == place {
                true => holds(&won, 3, to_the_last),
                false => holds(&lost, 100, true),
            };
            let winner = match arms {
                _ if place >= arms => continue,
                2 if race(arm(0), arm(1)).await == Either::First(()) => 0,
                2 => 1,
                _ => select! { () = arm(0) => 0, () = arm(1) => 1, () = arm(2) => 2 },
            };
            assert_eq!(winner, place);
            turns(3).await;
            let ended = (won.count(), lost.count());
            assert_eq!(ended, (0, arms - 1), "place {place} of {arms}, {to_the_last}");
        }
    })
    .unwrap();
}
