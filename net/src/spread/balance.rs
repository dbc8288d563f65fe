//! When a connection should move, asked at the points at which it could.
//!
//! Owns [`Balancer`], one core's view: it reads the loads once a period, decides by
//! [`policy`](super::policy), and deals the moves of the period out to whoever asks first. It moves nothing
//! itself: at which point a connection may go is known to its protocol alone.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::fmt;
use std::time::Duration;

use coreloop::time::{Instant, sleep};
use coreloop::{Handle, NoLoop};

use super::loads::{Counted, Loads};
use super::policy::{Decision, Policy};

/// Says when a connection of this core should go to another. Stays on its core; share it with an `Rc`.
///
/// ```
/// use coreloop::cross::Sharded;
/// use coreloop_net::TcpStream;
/// use coreloop_net::spread::{Balancer, Counted};
///
/// async fn serve(mut stream: TcpStream, mut counted: Counted, of_cores: Sharded<Balancer>) {
///     let Some(balancer) = of_cores.local() else { return };
///     while let Ok(Some(request)) = stream.recv().await {
///         if stream.write_all(request).await.is_err() {
///             return;
///         }
///         // Between two requests it may go.
///         if let Some(core) = balancer.should_move(&mut counted) {
///             let handle = coreloop::Handle::current();
///             let Ok(stream) = stream.detach().await else { return };
///             let there = async move |stream| Box::pin(serve(stream, counted, of_cores)).await;
///             // A core that has ended gives it back: it could be served here as well.
///             let _ = stream.serve_on(&handle, core, there).await;
///             return;
///         }
///     }
/// }
/// ```
pub struct Balancer {
    loads: Loads,
    core: usize,
    policy: Policy,
    state: RefCell<State>,
}

struct State {
    decision: Decision,
    next_look: Instant,
    moves: VecDeque<usize>,
    moved: u64,
}

impl Balancer {
    /// For core `core` of those that `loads` counts.
    ///
    /// # Panics
    /// If there is no such core.
    #[track_caller]
    pub fn new(loads: &Loads, core: usize, policy: Policy) -> Self {
        assert!(core < loads.cores(), "core {core} of {}", loads.cores());
        let state = State {
            decision: Decision::default(),
            next_look: Instant::now(),
            moves: VecDeque::new(),
            moved: 0,
        };
        Self { loads: loads.clone(), core, policy, state: RefCell::new(state) }
    }

    /// Whether this connection is to go now, and where to; it is counted there from now on, and if it does
    /// not get there has to be counted back ([`Counted::move_to`]). At most [`Policy::moves_max`] answers in
    /// one [`Policy::period`] name a core. One reading of the clock, and once a period a look at all loads.
    ///
    /// `None` also for a connection of other [`Loads`], of another core, or one that has just moved.
    pub fn should_move(&self, connection: &mut Counted) -> Option<usize> {
        if connection.core() != self.core || !connection.is_of(&self.loads) {
            return None;
        }
        let now = Instant::now();
        if connection.moved().is_some_and(|at| now < at + self.policy.stay) {
            return None;
        }
        let mut state = self.state.borrow_mut();
        if now >= state.next_look {
            state.next_look = now + self.policy.period;
            state.moves = state.decision.plan(&self.policy, self.core, &self.loads.all()).into();
        }
        let to = state.moves.pop_front()?;
        state.moved += 1;
        connection.move_to(to);
        Some(to)
    }

    /// How many connections it has sent away.
    pub fn moved(&self) -> u64 {
        self.state.borrow().moved
    }

    /// Measures how busy this core is, each [`Policy::period`], for ever: CPU time of its thread less what it
    /// only spun for, as the core's own [`Snapshot`](coreloop::Snapshot) has it. At
    /// [`StatsLevel::Off`](coreloop::StatsLevel::Off) spinning counts as work.
    ///
    /// # Cancel safety
    /// There is nothing to lose.
    ///
    /// # Errors
    /// Outside a running loop.
    pub async fn measure(&self) -> Result<(), NoLoop> {
        let handle = Handle::try_current()?;
        let here = Handle::current_core()?;
        let (mut since, mut worked) = (Instant::now(), Duration::ZERO);
        let mut first = true;
        loop {
            // A core whose queue of closures is full says nothing this time.
            if let Ok(stats) = handle.stats(here).await {
                let spun = Duration::from_nanos(stats.counters.spin_ns);
                let total = stats.cpu_time.saturating_sub(spun);
                let (did, took) = (total.saturating_sub(worked), since.elapsed());
                if !first && !took.is_zero() {
                    let permille = did.as_nanos() * 1000 / took.as_nanos();
                    self.loads.set_busy(self.core, u32::try_from(permille).unwrap_or(1000));
                }
                (since, worked, first) = (Instant::now(), total, false);
            }
            sleep(self.policy.period).await;
        }
    }
}

impl fmt::Debug for Balancer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut out = f.debug_struct("Balancer");
        out.field("core", &self.core).field("loads", &self.loads).finish_non_exhaustive()
    }
}
