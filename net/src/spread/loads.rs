//! What each core has to do, for all to see.
//!
//! Owns [`Loads`]: a count of connections and a share of busy time for each core, each on a cache line of
//! its own, and [`Counted`], a connection's place in the count. Figures, not truths: they are read without
//! any order between them.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};

use coreloop::time::Instant;

/// The loads of all cores. Clones are the same ones, on any thread.
///
/// ```
/// use coreloop_net::spread::Loads;
///
/// let loads = Loads::new(2);
/// let mut connection = loads.count(0);
/// connection.move_to(1);
/// assert_eq!((loads.of(0).connections, loads.of(1).connections), (0, 1));
/// drop(connection);
/// assert_eq!(loads.of(1).connections, 0);
/// ```
#[derive(Clone)]
pub struct Loads {
    cores: Arc<[Core]>,
}

/// Two lines: the prefetcher of some machines takes them in pairs.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Core {
    connections: AtomicUsize,
    busy_permille: AtomicU32,
}

/// What one core has to do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Load {
    /// Connections that it serves, and those that are on their way to it.
    pub connections: usize,
    /// Thousandths of its time that it worked, of late: 0 to 1,000. 0 where nobody measures.
    pub busy_permille: u32,
}

impl Loads {
    /// For so many cores, with nothing to do yet.
    ///
    /// # Panics
    /// If there are none.
    #[track_caller]
    pub fn new(cores: usize) -> Self {
        assert!(cores > 0, "there is one core at least");
        Self { cores: (0..cores).map(|_| Core::default()).collect() }
    }

    /// How many cores there are.
    pub fn cores(&self) -> usize {
        self.cores.len()
    }

    /// The load of one.
    ///
    /// # Panics
    /// If there is no such core, as all that is given a core's number here does.
    #[track_caller]
    pub fn of(&self, core: usize) -> Load {
        let core = &self.cores[core];
        Load {
            connections: core.connections.load(Ordering::Relaxed),
            busy_permille: core.busy_permille.load(Ordering::Relaxed),
        }
    }

    /// The loads of all.
    pub fn all(&self) -> Vec<Load> {
        (0..self.cores()).map(|core| self.of(core)).collect()
    }

    /// Counts a connection as `core`'s until what this gives is dropped.
    #[track_caller]
    pub fn count(&self, core: usize) -> Counted {
        self.cores[core].connections.fetch_add(1, Ordering::Relaxed);
        Counted { loads: self.clone(), core, moved: None }
    }

    /// Says how busy a core is, in thousandths of its time, at most 1,000:
    /// [`Balancer::measure`](super::Balancer::measure) does.
    #[track_caller]
    pub fn set_busy(&self, core: usize, permille: u32) {
        self.cores[core].busy_permille.store(permille.min(1000), Ordering::Relaxed);
    }
}

impl fmt::Debug for Loads {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.all()).finish()
    }
}

/// A connection's place in the count of a core; travels with it.
#[must_use = "the connection is counted until this is dropped"]
pub struct Counted {
    loads: Loads,
    core: usize,
    moved: Option<Instant>,
}

impl Counted {
    /// The core that it is counted for.
    pub fn core(&self) -> usize {
        self.core
    }

    /// Counts it for another core.
    #[track_caller]
    pub fn move_to(&mut self, core: usize) {
        self.loads.cores[core].connections.fetch_add(1, Ordering::Relaxed);
        self.loads.cores[self.core].connections.fetch_sub(1, Ordering::Relaxed);
        self.core = core;
        self.moved = Some(Instant::now());
    }

    /// When it last moved.
    pub(super) fn moved(&self) -> Option<Instant> {
        self.moved
    }

    pub(super) fn is_of(&self, loads: &Loads) -> bool {
        Arc::ptr_eq(&self.loads.cores, &loads.cores)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.loads.cores[self.core].connections.fetch_sub(1, Ordering::Relaxed);
    }
}

impl fmt::Debug for Counted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Counted").field("core", &self.core).finish_non_exhaustive()
    }
}
