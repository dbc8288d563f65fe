//! Tasks, their wakers and times.

use std::panic::catch_unwind;
use std::task::Poll;
use std::time::Duration;

use super::{Seen, say};
use crate::peer::Peer;

const TURN: Duration = Duration::from_millis(2);

pub fn panics<P: Peer>() -> Result<Seen, String> {
    let ended = catch_unwind(panics_in_a_run::<P>);
    ended.unwrap_or_else(|_| Ok(Seen::new(false, "the panic ends the whole run")))
}

fn panics_in_a_run<P: Peer>() -> Result<Seen, String> {
    P::run(|| async {
        let answer = P::panicking().await;
        // Whoever else is there goes on.
        P::sleep(TURN).await;
        match answer {
            Err(error) => Seen::new(true, format!("its awaiter's error ({error})")),
            Ok(()) => Seen::new(false, "no error"),
        }
    })
}

pub fn sleep_max<P: Peer>() -> Result<Seen, String> {
    let fired =
        P::run(|| async { P::limit(Duration::from_millis(100), P::sleep(Duration::MAX)).await })?;
    Ok(Seen::new(fired.is_none(), if fired.is_none() { "never fires" } else { "fires" }))
}

pub fn waker_clones<P: Peer>() -> Result<Seen, String> {
    let polls = P::run(|| async {
        let mut polls = 0;
        let waited = std::future::poll_fn(|cx| {
            polls += 1;
            if polls > 1 {
                return Poll::Ready(());
            }
            let clones: Vec<_> = (0..100_000).map(|_| cx.waker().clone()).collect();
            clones.into_iter().for_each(std::task::Waker::wake);
            Poll::Pending
        });
        P::limit(Duration::from_secs(5), waited).await.ok_or("never polled again").map_err(say)
    })?;
    polls.map(|()| Seen::new(true, "works"))
}
