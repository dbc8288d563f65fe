//! Two cores, each with its own piece of work.
//!
//! Owns [`two_cores`]: what a test of messages between cores starts from.

use std::sync::Mutex;

use coreloop::{Cores, Runtime, Settings};

/// Two CPUs of this machine, or one twice.
///
/// # Panics
/// If not even one may be used.
pub fn two_cpus() -> Cores {
    let cpus = Cores::All.resolve().expect("the CPUs of this process");
    Cores::These(vec![cpus[0], cpus[1 % cpus.len()]])
}

/// Runs `a` on one core and `b` on another; what they give.
///
/// # Panics
/// If either panics.
#[track_caller]
pub fn two_cores<A, B, FA, FB, RA, RB>(settings: Settings, a: A, b: B) -> (RA, RB)
where
    A: FnOnce() -> FA + Send + 'static,
    B: FnOnce() -> FB + Send + 'static,
    FA: Future<Output = RA>,
    FB: Future<Output = RB>,
    RA: Send + 'static,
    RB: Send + 'static,
{
    let runtime = Runtime::builder().cores(two_cpus()).settings(settings).build().unwrap();
    let (a, b) = (Mutex::new(Some(a)), Mutex::new(Some(b)));
    let ended = runtime.run(move |core| {
        let first = (core.index() == 0).then(|| a.lock().unwrap().take().expect("run once"));
        let second = (core.index() == 1).then(|| b.lock().unwrap().take().expect("run once"));
        async move {
            let first = match first {
                Some(first) => Some(first().await),
                None => None,
            };
            let second = match second {
                Some(second) => Some(second().await),
                None => None,
            };
            (first, second)
        }
    });
    let mut ended = ended.unwrap_or_else(|e| panic!("{e}")).into_iter();
    let first = ended.next().and_then(|core| core.0);
    let second = ended.next().and_then(|core| core.1);
    (first.expect("the first core's value"), second.expect("the second core's value"))
}
