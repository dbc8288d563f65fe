//! A wrapper says how long a future took, however it ended (B4).

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use coreloop::time::{Ended, Timing, sleep, timed, timeout, try_timed};
use coreloop::{Histogram, spawn, yield_now};
use coreloop_tests::Child;

const SECOND: Duration = Duration::from_secs(1);

fn keep(into: &Rc<Cell<Option<Timing>>>) -> impl FnOnce(Timing) + use<> {
    let into = into.clone();
    move |timing| assert!(into.replace(Some(timing)).is_none(), "told once")
}

#[coreloop::test(sim)]
async fn b4_a_value_an_error_a_cancel_and_a_panic_are_told_apart() {
    let told = Rc::new(Cell::new(None));
    let take = || told.take().map(|t: Timing| (t.ended, t.took.as_secs()));
    assert_eq!(
        timed(keep(&told), async {
            sleep(SECOND).await;
            7
        })
        .await,
        7
    );
    assert_eq!(take(), Some((Ended::Ready, 1)));
    let failing = async {
        sleep(2 * SECOND).await;
        Err::<(), _>("no")
    };
    assert!(try_timed(keep(&told), failing).await.is_err());
    assert_eq!(take(), Some((Ended::Failed, 2)));
    let fine = try_timed(keep(&told), async { Ok::<_, ()>(1) });
    assert_eq!((fine.await, take()), (Ok(1), Some((Ended::Ready, 0))));
    assert!(timeout(3 * SECOND, timed(keep(&told), sleep(60 * SECOND))).await.is_err());
    assert_eq!(take(), Some((Ended::Cancelled, 3)));
    let task = spawn(timed(keep(&told), sleep(60 * SECOND)));
    sleep(4 * SECOND).await;
    task.cancel();
    assert!(task.await.unwrap_err().is_cancelled());
    assert_eq!(take(), Some((Ended::Cancelled, 4)));
    let panics = spawn(timed(keep(&told), async {
        sleep(5 * SECOND).await;
        panic!("on purpose")
    }));
    assert!(panics.await.unwrap_err().is_panic());
    assert_eq!(take(), Some((Ended::Panicked, 5)));
}

#[coreloop::test(sim)]
async fn b4_time_counts_from_the_first_poll() {
    let told = Rc::new(Cell::new(None));
    let future = timed(keep(&told), sleep(SECOND));
    drop(timed(keep(&told), sleep(SECOND)));
    assert!(told.take().is_none(), "one that never began has nothing to tell");
    sleep(10 * SECOND).await;
    // Its own deadline has passed: what it takes is the turn that it gives way.
    future.await;
    assert!(told.take().unwrap().took < SECOND);
}

/// A panic within an unwinding would be the end of the process.
#[test]
fn b4_a_sink_that_panics_while_the_future_does_is_contained() {
    coreloop::run(async {
        let loud = spawn(timed(|_| panic!("the sink's"), async { panic!("the future's") }));
        let e = loud.await.unwrap_err();
        assert_eq!(e.panic_message(), Some("the future's"));
        // Borrowed by somebody, a histogram is passed by.
        let histogram = Rc::new(RefCell::new(Histogram::default()));
        let held = histogram.clone();
        let holds = spawn(timed(histogram.clone(), async move {
            let _held = held.borrow();
            panic!("with the histogram in hand");
        }));
        assert!(holds.await.unwrap_err().is_panic());
        timed(histogram.clone(), yield_now()).await;
        assert_eq!(histogram.borrow().count(), 2);
    })
    .unwrap();
}

#[coreloop::test(sim)]
async fn b4_a_histogram_takes_every_end() {
    let histogram = Rc::new(RefCell::new(Histogram::default()));
    for ms in [10, 20, 30] {
        timed(histogram.clone(), sleep(Duration::from_millis(ms))).await;
    }
    let cut = timed(histogram.clone(), sleep(SECOND));
    assert!(timeout(Duration::from_millis(50), cut).await.is_err());
    let h = histogram.borrow();
    assert_eq!(h.count(), 4);
    let ms = |ns: u64| ns as f64 / 1e6;
    assert!((ms(h.min_ns()) - 10.0).abs() < 1.2 && (ms(h.max_ns()) - 50.0).abs() < 1.8, "{h:?}");
}

#[test]
fn b4_a_name_makes_a_line_on_standard_error() {
    let child = Child::new("b4_a_name_makes_a_line_on_standard_error");
    child.says("fetch 1: ready after ").run(|| {
        coreloop::run(timed(format!("fetch {}", 1), yield_now())).unwrap();
    });
    let child = Child::new("b4_a_name_makes_a_line_on_standard_error");
    child.says("fetch 2: cancelled after ").run(|| {
        coreloop::run(async {
            let hour = timed("fetch 2", sleep(3600 * SECOND));
            assert!(timeout(Duration::from_millis(1), hour).await.is_err());
        })
        .unwrap();
    });
}
