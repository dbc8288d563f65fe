//! Many cores.
//!
//! Owns [`Runtime`] and its [`Builder`]: one pinned thread and one loop per core, started together, ended
//! together. If one core can't start none runs; if one panics the others are stopped.

use std::any::Any;
use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::{Arc, PoisonError, mpsc};
use std::task::{Context, Poll};
use std::thread;

use crate::config::{Origin, Resolved, Settings};
use crate::contain::discard;
use crate::driver::setup::StartError;
use crate::event_loop::EventLoop;
use crate::executor::close::ShutdownReport;
use crate::handle::Handle;
use crate::mailbox::peers::{Peers, Stop};
use crate::mailbox::queue::JobQueue;
use crate::placement::{self, Cores, CoresError};
use crate::stall::Stall;
use crate::sys::shared::{Condvar, Mutex, MutexGuard};

/// Loops on several cores, one pinned thread each.
///
/// ```
/// use coreloop::{Cores, Runtime};
///
/// let runtime = Runtime::builder().cores(Cores::Count(1)).build().unwrap();
/// let sums = runtime.run(|core| async move { core.index() + 40 }).unwrap();
/// assert_eq!(sums, [40]);
/// ```
pub struct Runtime {
    cpus: Vec<usize>,
    settings: Settings,
    special: HashMap<usize, Settings>,
    pin: bool,
    on_start: Option<OnStart>,
}

type OnStall = dyn Fn(&Stall) + Send + Sync;
type OnStart = Box<dyn FnOnce(Handle) + Send>;

/// What a core's main future is told of its place.
#[derive(Clone, Debug)]
pub struct Core {
    index: usize,
    cpu: usize,
    handle: Handle,
}

impl Core {
    pub(crate) fn new(index: usize, cpu: usize, handle: Handle) -> Self {
        Self { index, cpu, handle }
    }

    /// The core's number in this runtime, from 0.
    pub fn index(&self) -> usize {
        self.index
    }

    /// The CPU that it was given. It runs on that one unless it is [unpinned](Builder::unpinned), or the
    /// system refused to pin it, which is reported.
    pub fn cpu(&self) -> usize {
        self.cpu
    }

    /// How many cores the runtime has.
    pub fn count(&self) -> usize {
        self.handle.cores()
    }

    /// The runtime, for other threads.
    pub fn handle(&self) -> &Handle {
        &self.handle
    }
}

/// Why a runtime gave no values.
#[derive(thiserror::Error)]
#[non_exhaustive]
pub enum RunError {
    /// A core could not be started; none ran.
    #[error("core {core}: {source}")]
    Start {
        /// Its number.
        core: usize,
        /// What was in the way.
        source: StartError,
    },
    /// A thread could not be started; none ran.
    #[error("no thread for core {core}: {source}")]
    Thread {
        /// Its number.
        core: usize,
        /// The system's answer.
        source: std::io::Error,
    },
    /// The main future of a core panicked; the others were stopped.
    #[error("core {core} panicked: {message}")]
    Panicked {
        /// Its number.
        core: usize,
        /// The panic's text.
        message: String,
    },
    /// [`Handle::stop`] ended it before every main future had.
    #[error("the runtime was stopped")]
    Stopped,
}

/// The same text as [`Display`](fmt::Display): a `main` that returns this, or an `unwrap`, then says what to
/// change.
impl fmt::Debug for RunError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Settings of a [`Runtime`].
#[derive(Default)]
#[must_use = "a builder does nothing until `build`"]
pub struct Builder {
    cores: Cores,
    settings: Settings,
    /// With where they were said, if not by `core`.
    special: BTreeMap<usize, (Settings, Option<Origin>)>,
    shared_cpus: bool,
    on_stall: Option<Arc<OnStall>>,
    on_start: Option<OnStart>,
}

impl Builder {
    /// Which CPUs to use ([`Cores::All`]: every one that the process may).
    pub fn cores(mut self, cores: Cores) -> Self {
        self.cores = cores;
        self
    }

    /// Settings of every core.
    pub fn settings(mut self, settings: Settings) -> Self {
        self.settings = settings;
        self
    }

    /// Settings of one core, by its number from 0, instead of the general ones.
    pub fn core(mut self, index: usize, settings: Settings) -> Self {
        self.special.insert(index, (settings, None));
        self
    }

    /// Cores and settings as they were put together from files, the environment and flags.
    pub fn configured(mut self, resolved: &Resolved) -> Self {
        self.cores = resolved.cores().clone();
        self.settings = resolved.settings().clone();
        let of_core = |(core, settings): (usize, &Settings)| {
            (core, (settings.clone(), resolved.place_of(core).cloned()))
        };
        self.special = resolved.special().map(of_core).collect();
        self.shared_cpus = !resolved.pinned();
        self
    }

    /// Leaves the threads unpinned (they are pinned by default).
    pub fn unpinned(mut self) -> Self {
        self.shared_cpus = true;
        self
    }

    /// Who is told of stalls of any core: [`Settings::on_stall`](crate::Settings::on_stall) for all of
    /// them, those with settings of their own too.
    pub fn on_stall(mut self, hook: impl Fn(&Stall) + Send + Sync + 'static) -> Self {
        self.on_stall = Some(Arc::new(hook));
        self
    }

    /// Called once with the handle when all cores have started, on the thread that called
    /// [`Runtime::run`]. It may wait for any core: core 0 makes its main future when this has returned, and
    /// until then runs what others send it. If it panics, the runtime ends as if core 0 had
    /// ([`RunError::Panicked`]).
    pub fn on_start(mut self, f: impl FnOnce(Handle) + Send + 'static) -> Self {
        self.on_start = Some(Box::new(f));
        self
    }

    /// Checks the settings. Nothing is started yet.
    ///
    /// # Errors
    /// Cores that can't be had, settings out of range.
    pub fn build(mut self) -> Result<Runtime, BuildError> {
        if let Some(hook) = self.on_stall.take() {
            for settings in
                self.special.values_mut().map(|(own, _)| own).chain([&mut self.settings])
            {
                let hook = hook.clone();
                *settings = std::mem::take(settings).on_stall(move |stall| hook(stall));
            }
        }
        let cpus = self.cores.resolve()?;
        self.settings.checked()?;
        for (index, (settings, place)) in &self.special {
            settings.checked()?;
            if *index >= cpus.len() {
                let place = place.as_ref().map(Origin::to_string);
                let place = place.unwrap_or_else(|| format!("Builder::core({index}, …)"));
                return Err(BuildError::NoSuchCore { core: *index, cores: cpus.len(), place });
            }
        }
        Ok(Runtime {
            cpus,
            settings: self.settings,
            special: self.special.into_iter().map(|(core, (own, _))| (core, own)).collect(),
            pin: !self.shared_cpus,
            on_start: self.on_start,
        })
    }
}

impl fmt::Debug for Builder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Builder").field("cores", &self.cores).finish_non_exhaustive()
    }
}

/// Why a [`Builder`] was refused.
#[derive(thiserror::Error)]
#[non_exhaustive]
pub enum BuildError {
    /// Cores that can't be had.
    #[error(transparent)]
    Cores(#[from] CoresError),
    /// A setting out of its range.
    #[error(transparent)]
    Setting(#[from] StartError),
    /// Settings for a core that there is not.
    #[error("{place}: settings for core {core}, but there are only {cores}, counted from 0")]
    NoSuchCore {
        /// Its number.
        core: usize,
        /// How many there are.
        cores: usize,
        /// Where they were said: a file with its line, a variable, a flag, or the call of the builder.
        place: String,
    },
}

/// The same text as [`Display`](fmt::Display): a `main` that returns this, or an `unwrap`, then says what to
/// change.
impl fmt::Debug for BuildError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Runtime {
    /// Settings to start from.
    pub fn builder() -> Builder {
        Builder::default()
    }

    /// The CPUs that the cores will run on.
    pub fn cpus(&self) -> &[usize] {
        &self.cpus
    }

    /// Runs `f` on every core and drives the future that it makes there to its end; each core is then
    /// closed in order (tasks cancelled, I/O awaited). The futures never leave their core. Blocks the
    /// calling thread.
    ///
    /// # Errors
    /// [`RunError`]. The first panic stops the other cores.
    pub fn run<F, Fut, R>(self, f: F) -> Result<Vec<R>, RunError>
    where
        F: Fn(Core) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = R>,
        R: Send + 'static,
    {
        let stop = Arc::new(Stop::default());
        let gate = Arc::new(Gate::new(self.cpus.len()));
        let f = Arc::new(f);
        let hooked = self.on_start.is_some().then(Arc::<Stop>::default);
        let (tell, told) = mpsc::channel();
        let mut threads = Vec::with_capacity(self.cpus.len());
        for (index, &cpu) in self.cpus.iter().enumerate() {
            let settings = self.special.get(&index).unwrap_or(&self.settings).clone();
            let sharers = self.cpus.iter().filter(|c| **c == cpu).count();
            let spin = placement::spin_on_these_cpus(settings.spin_setting(), sharers);
            let all_pinned = self.cpus.clone();
            let settings = settings.spin(spin);
            let hooked = hooked.clone().filter(|_| index == 0);
            let seat = Seat { index, cpu, settings, pin: self.pin, all_pinned, hooked };
            let (f, stop, tell) = (f.clone(), stop.clone(), tell.clone());
            let gate_of_core = gate.clone();
            let body = move || seat.run(&*f, &stop, &gate_of_core, &tell);
            match thread::Builder::new().name(format!("coreloop-{index}")).spawn(body) {
                Ok(thread) => threads.push(thread),
                Err(source) => {
                    gate.give_up(index);
                    join_all(threads);
                    return Err(RunError::Thread { core: index, source });
                }
            }
        }
        if let Some(on_start) = self.on_start
            && let Some(queues) = gate.all()
        {
            let handle = Handle::of(Peers::new(queues, stop.clone()));
            if let Err(payload) = catch_unwind(AssertUnwindSafe(|| on_start(handle))) {
                gate.give_up(0);
                stop.ask();
                // The receiver is ours.
                let _ = tell.send((0, Ended::panicked(0, payload)));
            }
        }
        if let Some(hooked) = hooked {
            hooked.ask();
        }
        drop(tell);
        join_all(threads);
        collect(told.into_iter().collect(), self.cpus.len(), gate.failed_first())
    }
}

impl fmt::Debug for Runtime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Runtime").field("cpus", &self.cpus).finish_non_exhaustive()
    }
}

fn join_all(threads: Vec<thread::JoinHandle<()>>) {
    for thread in threads {
        if let Err(payload) = thread.join() {
            discard(payload);
        }
    }
}

/// How one core ended.
enum Ended<R> {
    Value(R),
    Stopped,
    /// Another core could not start.
    NeverRan,
    Failed(RunError),
}

impl<R> Ended<R> {
    fn panicked(core: usize, payload: Box<dyn Any + Send>) -> Self {
        let message = text_of(&*payload);
        discard(payload);
        Self::Failed(RunError::Panicked { core, message })
    }

    fn is_failed(&self) -> bool {
        matches!(self, Self::Failed(_))
    }
}

fn collect<R>(
    mut ended: Vec<(usize, Ended<R>)>,
    cores: usize,
    failed_first: Option<usize>,
) -> Result<Vec<R>, RunError> {
    // Panics and failed starts first: the others were only stopped because of them. Of several the first: it
    // may be why others panicked, and may have ended after them.
    let failed = |(_, e): &(usize, Ended<R>)| e.is_failed();
    let first = ended.iter().position(|e| failed(e) && Some(e.0) == failed_first);
    if let Some(at) = first.or_else(|| ended.iter().position(failed))
        && let Ended::Failed(error) = ended.swap_remove(at).1
    {
        return Err(error);
    }
    ended.sort_by_key(|(index, _)| *index);
    let values: Vec<R> = ended
        .into_iter()
        .filter_map(|(_, e)| if let Ended::Value(value) = e { Some(value) } else { None })
        .collect();
    if values.len() == cores { Ok(values) } else { Err(RunError::Stopped) }
}

/// Where the cores wait for each other: none runs unless all have started.
struct Gate {
    state: Mutex<GateState>,
    changed: Condvar,
    cores: usize,
}

#[derive(Default)]
struct GateState {
    queues: Vec<(usize, Arc<JobQueue>)>,
    /// The first core that did not start, or panicked.
    failed: Option<usize>,
}

impl Gate {
    fn new(cores: usize) -> Self {
        Self { state: Mutex::default(), changed: Condvar::new(), cores }
    }

    fn lock(&self) -> MutexGuard<'_, GateState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn give_up(&self, index: usize) {
        self.lock().failed.get_or_insert(index);
        self.changed.notify_all();
    }

    fn failed_first(&self) -> Option<usize> {
        self.lock().failed
    }

    /// Enters with this core's queue; then as [`all`](Self::all).
    fn pass(&self, index: usize, queue: Arc<JobQueue>) -> Option<Vec<Arc<JobQueue>>> {
        self.lock().queues.push((index, queue));
        self.changed.notify_all();
        self.all()
    }

    /// All queues in order when all are there; none if a core failed before.
    fn all(&self) -> Option<Vec<Arc<JobQueue>>> {
        let mut state = self.lock();
        while state.queues.len() < self.cores {
            if state.failed.is_some() {
                return None;
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        let mut queues = state.queues.clone();
        queues.sort_by_key(|(index, _)| *index);
        Some(queues.into_iter().map(|(_, queue)| queue).collect())
    }
}

/// One core to be.
struct Seat {
    index: usize,
    cpu: usize,
    settings: Settings,
    pin: bool,
    /// The CPUs of all cores.
    all_pinned: Vec<usize>,
    /// What the main future is not made before: asked when the hook has returned.
    hooked: Option<Arc<Stop>>,
}

/// Stops the other cores when this one's panic begins, and not when the close that follows has ended: that
/// takes up to its grace, and what it waits for may wait for them.
struct StopsOthers<'a> {
    index: usize,
    stop: &'a Stop,
    gate: &'a Gate,
}

impl Drop for StopsOthers<'_> {
    fn drop(&mut self) {
        if thread::panicking() {
            // In this order: a core that is stopped may panic as well, and is not the first.
            self.gate.give_up(self.index);
            self.stop.ask();
        }
    }
}

impl Seat {
    fn run<F, Fut, R>(
        self,
        f: &F,
        stop: &Arc<Stop>,
        gate: &Gate,
        tell: &mpsc::Sender<(usize, Ended<R>)>,
    ) where
        F: Fn(Core) -> Fut,
        Fut: Future<Output = R>,
    {
        let index = self.index;
        let ended = catch_unwind(AssertUnwindSafe(|| self.run_inner(f, stop, gate)))
            .unwrap_or_else(|payload| {
                gate.give_up(index);
                stop.ask();
                Ended::panicked(index, payload)
            });
        // The receiver waits for all of us.
        let _ = tell.send((index, ended));
    }

    fn run_inner<F, Fut, R>(self, f: &F, stop: &Arc<Stop>, gate: &Gate) -> Ended<R>
    where
        F: Fn(Core) -> Fut,
        Fut: Future<Output = R>,
    {
        let Seat { index, cpu, settings, pin, all_pinned, hooked } = self;
        let all_cpus = placement::allowed_cpus();
        let pinned = pin && placement::pin_to(cpu);
        if pin && !pinned {
            crate::contain::tell(format_args!(
                "coreloop: core {index} could not be pinned to CPU {cpu}; it runs unpinned"
            ));
        }
        let beside = placement::beside(&all_cpus, &all_pinned);
        let room = pinned && !beside.contains(&cpu);
        let settings =
            if room { settings.submitting_on(beside[index % beside.len()]) } else { settings };
        let workers_beside = settings.workers_beside();
        let mut event_loop = match EventLoop::with_spin_as_given(settings) {
            Ok(event_loop) => event_loop,
            Err(source) => {
                gate.give_up(index);
                return Ended::Failed(RunError::Start { core: index, source });
            }
        };
        // Made after the loop, and so dropped before it.
        let _stops_others = StopsOthers { index, stop, gate };
        if pin && !pinned {
            let why = format!("off: sched_setaffinity(2) refuses CPU {cpu}");
            event_loop.core().metrics.step_down("pin", &why);
        }
        if pinned {
            if workers_beside {
                // Without it they are a nuisance to the loops at worst.
                let _ = event_loop.core().driver.workers_on(&beside);
            }
            event_loop.core().blocking.run_on(beside);
        }
        event_loop.core().set_place(index, pinned.then_some(cpu));
        let Some(queues) = gate.pass(index, event_loop.core().jobs.clone()) else {
            return Ended::NeverRan;
        };
        let peers = Peers::new(queues, stop.clone());
        event_loop.core().join_peers(peers.clone());
        let handle = Handle::of(peers);
        if let Some(hooked) = hooked {
            // The hook may wait for this core.
            let returned = until_stopped(std::future::pending::<()>(), &hooked);
            event_loop.block_on(until_stopped(returned, stop));
        }
        let main = f(Core::new(index, cpu, handle));
        let ended = event_loop.block_on(until_stopped(main, stop));
        let report = event_loop.end();
        warn_of_leaks(index, &report);
        ended.map_or(Ended::Stopped, Ended::Value)
    }
}

fn warn_of_leaks(index: usize, report: &ShutdownReport) {
    if report.ops_leaked > 0 {
        let n = report.ops_leaked;
        crate::contain::tell(format_args!(
            "coreloop: core {index} ended with {n} operations still in the kernel; leaked"
        ));
    }
    if report.blocking_left > 0 {
        let n = report.blocking_left;
        crate::contain::tell(format_args!(
            "coreloop: core {index} ended while {n} closures of spawn_blocking ran; left behind"
        ));
    }
}

/// The main future's value; none if the runtime was stopped first. The future is dropped in either case.
pub(crate) async fn until_stopped<F: Future>(main: F, stop: &Stop) -> Option<F::Output> {
    let mut main = pin!(main);
    let mut registered = false;
    std::future::poll_fn(move |cx: &mut Context<'_>| {
        if !registered {
            registered = true;
            stop.wake_when_asked(cx.waker());
        }
        if stop.asked() {
            return Poll::Ready(None);
        }
        main.as_mut().poll(cx).map(Some)
    })
    .await
}

pub(crate) fn text_of(payload: &(dyn Any + Send)) -> String {
    let text = payload.downcast_ref::<&str>().map(|s| (*s).to_owned());
    let text = text.or_else(|| payload.downcast_ref::<String>().cloned());
    text.unwrap_or_else(|| "with something else than text".to_owned())
}
