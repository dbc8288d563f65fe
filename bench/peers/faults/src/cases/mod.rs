//! The cases: what each does to a runtime, and what of it is told.
//!
//! A case runs in a process of its own, with one runtime. It ends with a [`Seen`]; a panic, a
//! signal or no end at all is told by who started the process.

mod cancel;
mod end;
mod kernel;
mod task;

use std::pin::Pin;
use std::task::Poll;
use std::time::Duration;

use crate::peer::{Peer, any};

/// What a case saw, in a few words, and whether that is what must hold.
pub struct Seen {
    /// For the table.
    pub text: String,
    /// Whether the figure holds.
    pub holds: bool,
}

impl Seen {
    fn new(holds: bool, text: impl Into<String>) -> Self {
        Self { text: text.into(), holds }
    }
}

macro_rules! cases {
    ($($case:ident $name:literal $row:literal $must:literal $run:path;)*) => {
        /// A row of the table.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Case { $(#[doc = $row] $case,)* }

        impl Case {
            /// All of them, in the table's order.
            pub const ALL: &[Self] = &[$(Self::$case),*];

            /// Its name on the command line.
            pub fn name(self) -> &'static str {
                match self { $(Self::$case => $name),* }
            }

            /// What is done.
            pub fn row(self) -> &'static str {
                match self { $(Self::$case => $row),* }
            }

            /// What must hold.
            pub fn must(self) -> &'static str {
                match self { $(Self::$case => $must),* }
            }

            /// Does it to a runtime.
            pub fn run<P: Peer>(self) -> Result<Seen, String> {
                match self { $(Self::$case => $run()),* }
            }
        }
    };
}

cases! {
    RecvDropped "recv-dropped" "poll a receive, the peer writes, drop it, receive again (100 times)"
        "0 lost" cancel::recv_dropped::<P>;
    RecvLimit "recv-limit" "receive under a limit of 2 ms, wait, the peer writes, receive again (100 times)"
        "0 lost" cancel::recv_limit::<P>;
    AcceptDropped "accept-dropped" "a peer connects, the polled accept is dropped (100 times)"
        "0 descriptors left; the next accept gets it" cancel::accept_dropped::<P>;
    OpenDropped "open-dropped" "open polled once, dropped 2 ms later (100 times)"
        "0 descriptors left" cancel::open_dropped::<P>;
    ReadsDropped "reads-dropped" "3,000 receives dropped at once, small ring"
        "0 buffers held after 500 ms" cancel::reads_dropped::<P>;
    EndParked "end-parked" "50 runtimes, each dropped with 4 parked tasks"
        "0 descriptors left, all destructors run" end::parked::<P>;
    EndDirect "end-direct" "runtime dropped with 256 O_DIRECT reads in flight, freed memory reused (50 times)"
        "0 times overwritten" end::direct_reads::<P>;
    EndAccepts "end-accepts" "100 clients connect, runtime dropped before it looks at its accept"
        "0 descriptors left" end::accepts::<P>;
    TaskPanics "task-panics" "a task panics"
        "its awaiter's error; the others go on" task::panics::<P>;
    SleepMax "sleep-max" "`sleep(Duration::MAX)`"
        "never fires" task::sleep_max::<P>;
    OpAfterEnd "op-after-end" "an op used after its runtime is gone"
        "an error" end::op_after::<P>;
    WakerClones "waker-clones" "100,000 clones of a waker, each woken"
        "works" task::waker_clones::<P>;
    WakeAfterEnd "wake-after-end" "a wake after the runtime is gone"
        "nothing happens; the task is freed" end::wake_after::<P>;
    AcceptEmfile "accept-emfile" "EMFILE on accept for 2 s"
        "at most 200 errors, under 100 ms of CPU, served within 100 ms of its end" kernel::emfile::<P>;
    EnterEnomem "enter-enomem" "`io_uring_enter` answers ENOMEM once"
        "goes on: 1,000 echoes right" kernel::echoes::<P>;
    EnterEagain "enter-eagain" "`io_uring_enter` answers EAGAIN every third time"
        "goes on: 1,000 echoes right" kernel::echoes::<P>;
    RingForbidden "ring-forbidden" "io_uring blocked by seccomp"
        "an error that says what to change" kernel::forbidden::<P>;
}

/// Polls a future once, in the calling task.
async fn poll_once<F: Future>(mut future: Pin<&mut F>) -> Option<F::Output> {
    std::future::poll_fn(|cx| match future.as_mut().poll(cx) {
        Poll::Ready(output) => Poll::Ready(Some(output)),
        Poll::Pending => Poll::Ready(None),
    })
    .await
}

/// Has what is set up once set up: descriptors that a runtime keeps for the process are nobody's
/// leak.
fn warm_up<P: Peer>() -> Result<(), String> {
    P::run(|| async {
        let listener = std::net::TcpListener::bind(any()).map_err(say)?;
        drop(P::connect(listener.local_addr().map_err(say)?).await.map_err(say)?);
        P::sleep(Duration::from_millis(20)).await;
        Ok(())
    })?
}

/// An error in words.
fn say(error: impl std::fmt::Display) -> String {
    error.to_string()
}
