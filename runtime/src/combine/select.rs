//! The first of several futures, each with what is to be done then.
//!
//! Owns [`select!`](crate::select): races within a race, so what holds for [`race()`](super::race())
//! holds for it.

/// Runs two or more futures until one of them ends, and then the expression that stands with it.
///
/// Each arm is `pattern = future => expression`, with a comma between two, also after a block; the
/// pattern must always match. If several could end in the same poll, the first one in the order of the
/// arms wins. The losers are dropped before the expression runs, so it may use what they borrowed, and
/// it may `await`, `break` or `return`. Nothing is allocated.
///
/// # Cancel safety
/// A cancel travels inwards through awaits, and losing is one: a task whose handle a loser awaited is
/// cancelled. To keep it, say [`shield`](crate::combine::shield()), or hold the handle outside and pass
/// `&mut handle` (it counts as awaited until the task's next poll, if the task itself is cancelled).
/// What else a drop means is the loser's matter: receives and accepts lose nothing.
///
/// ```
/// use coreloop::time::sleep;
/// use std::time::Duration;
///
/// coreloop::run(async {
///     let task = coreloop::spawn(async { 7 });
///     let what = coreloop::select! {
///         () = sleep(Duration::from_secs(3600)) => "an hour",
///         value = task => if value.unwrap() == 7 { "the task" } else { unreachable!() },
///         () = std::future::pending() => "never",
///     };
///     assert_eq!(what, "the task");
/// })
/// .unwrap();
/// ```
#[macro_export]
macro_rules! select {
    (@race $future:expr) => { $future };
    (@race $future:expr, $($rest:expr),+) => {
        $crate::combine::race($future, $crate::select!(@race $($rest),+))
    };
    (@arms $won:expr; $value:pat => $then:expr) => {
        match $won { $value => $then }
    };
    (@arms $won:expr; $value:pat => $then:expr, $($rest:tt)+) => {
        match $won {
            $crate::combine::Either::First($value) => $then,
            $crate::combine::Either::Second(rest) => $crate::select!(@arms rest; $($rest)+),
        }
    };
    ($value:pat = $future:expr => $then:expr, $($values:pat = $futures:expr => $thens:expr),+ $(,)?) => {{
        let won = $crate::select!(@race $future, $($futures),+).await;
        $crate::select!(@arms won; $value => $then, $($values => $thens),+)
    }};
}
