//! The pages: what each path gives.
//!
//! Owns the answers, as text or as JSON, and how often a core that does not answer is asked again. Knows no
//! connection.

use std::cell::Cell;
use std::fmt::Write as _;
use std::time::Duration;

use coreloop::config::Resolved;
use coreloop::shutdown::Graceful;
use coreloop::time::Instant;
use coreloop::{Handle, Snapshot, yield_now};
use serde::Serialize;

use super::doc::{self, SCHEMA_VERSION};
use super::http::{Answer, JSON, PLAIN, Request, Status};
use super::openmetrics::Format;
use super::tasks::TaskPages;
use super::{metrics, process, workers};

/// What a document without cores has in their place.
const NO_CORES: &str = "\"cores\":[]";

/// What the answers are made of.
pub(super) struct Pages {
    pub(super) handle: Handle,
    pub(super) config: Option<Resolved>,
    pub(super) graceful: Option<Graceful>,
    pub(super) ready_if: Vec<Box<dyn Fn() -> bool>>,
    /// How long a core may take to answer.
    pub(super) limit: Duration,
    /// When all cores were asked last.
    pub(super) asked: Cell<Option<Instant>>,
    /// When they were asked last so that they had all their time to answer before they were asked again.
    pub(super) asked_before: Cell<Option<Instant>>,
}

/// An answer that is whole, or one that is made while it is taken.
pub(super) enum Reply {
    Whole(Answer),
    Tasks(Box<TaskPages>),
}

/// A core that has not answered is asked again so much later: what is posted to it waits in its queue.
const ASK_AGAIN: Duration = Duration::from_secs(10);

/// Tasks of each core that `/tasks` lists, unless asked for another number.
const TASKS: usize = 1000;
/// The most that it can be asked for.
const TASKS_MAX: usize = 1_000_000;

const INDEX: &str = "\
coreloop: what this process does

/metrics  counters, gauges and histograms of each core (Prometheus's text; OpenMetrics if asked for)
/tasks    every task: age, where it was spawned, what it waits for (?max=1000 of each core, ?core=0)
/config   every setting, its value and where that came from; what the cores do without
/cores    the cores' numbers since their start, as JSON: for `coreloop-bench top`
/livez    whether every core answers that does not end
/readyz   whether new work is wanted: not while the process goes down

/tasks and /config are JSON with ?format=json, or for who accepts application/json.
";

impl Pages {
    pub(super) async fn answer(&self, request: &Request) -> Reply {
        Reply::Whole(match request.path.as_str() {
            "/" => Answer::text(Status::Ok, INDEX),
            "/metrics" => self.metrics(Format::asked(&request.accept)).await,
            "/tasks" => match self.tasks(request).await {
                Ok(pages) => return Reply::Tasks(Box::new(pages)),
                Err(answer) => answer,
            },
            "/config" => self.config(request),
            "/cores" => self.cores_json().await,
            "/livez" => self.live().await,
            "/readyz" => self.readiness(),
            _ => Answer::text(Status::NotFound, format!("there is no such page\n\n{INDEX}")),
        })
    }

    async fn metrics(&self, format: Format) -> Answer {
        let cores = self.cores().await;
        let mut body = String::new();
        for family in metrics::families(&cores) {
            family.write(format, &mut body);
            // With many cores it is a long text, and other tasks wait.
            yield_now().await;
        }
        body.push_str(format.end());
        Answer { status: Status::Ok, content_type: format.content_type(), body }
    }

    async fn cores(&self) -> doc::Cores {
        let cores = self.stats().await;
        doc::Cores {
            schema_version: SCHEMA_VERSION,
            ready: self.is_ready(),
            process: process::look(),
            ring_workers: workers::look(&cores).await,
            cores,
        }
    }

    /// As one document would be, put together core by core: other tasks have their turns between.
    async fn cores_json(&self) -> Answer {
        let mut document = self.cores().await;
        let cores = std::mem::take(&mut document.cores);
        let head = match serde_json::to_string(&document) {
            Ok(head) => head,
            Err(error) => return Answer::text(Status::Unavailable, format!("{error}\n")),
        };
        let Some((before, after)) = head.split_once(NO_CORES) else {
            document.cores = cores;
            return json(&document);
        };
        let mut body = format!("{before}\"cores\":[");
        for (at, core) in cores.iter().enumerate() {
            if at > 0 {
                body.push(',');
            }
            match serde_json::to_string(core) {
                Ok(core) => body += &core,
                Err(error) => return Answer::text(Status::Unavailable, format!("{error}\n")),
            }
            yield_now().await;
        }
        body += "]";
        body += after;
        body.push('\n');
        Answer { status: Status::Ok, content_type: JSON, body }
    }

    /// What each core did, with gauges of now from those that answer in time.
    async fn stats(&self) -> Vec<Snapshot> {
        self.ask_if_due().await;
        let mut all = Vec::with_capacity(self.handle.cores());
        for core in 0..self.handle.cores() {
            all.extend(self.handle.snapshot(core));
            // One core's histograms are many: other tasks have their turns between.
            yield_now().await;
        }
        all
    }

    /// The same without histograms.
    async fn brief(&self) -> Vec<Snapshot> {
        self.ask_if_due().await;
        self.handle.snapshots_in_brief()
    }

    /// Has all cores say what they have now, unless one still owes an answer.
    async fn ask_if_due(&self) {
        if let Some(asked) = self.asked.get()
            && asked.elapsed() < ASK_AGAIN.max(self.limit)
            && self.handle.snapshots_in_brief().iter().any(|core| is_silent(core, asked))
        {
            return;
        }
        self.ask().await;
    }

    async fn ask(&self) {
        self.asked_before.set(self.asked_in_full());
        self.asked.set(Some(Instant::now()));
        self.handle.all_stats_in_brief(self.limit).await;
    }

    async fn live(&self) -> Answer {
        let all = self.brief().await;
        let silent: Vec<&Snapshot> = self.silent(&all).collect();
        if silent.is_empty() {
            return Answer::text(Status::Ok, "ok\n");
        }
        let mut words = String::new();
        for core in silent {
            let number = core.core.unwrap_or_default();
            let age = core.gauges.age.as_secs_f64();
            let _ = writeln!(
                words,
                "core {number} does not answer: it did {age:.1} s ago; a task keeps it busy"
            );
        }
        Answer::text(Status::Unavailable, words)
    }

    fn is_ready(&self) -> bool {
        self.graceful.as_ref().is_none_or(Graceful::is_ready) && self.ready_if.iter().all(|f| f())
    }

    fn readiness(&self) -> Answer {
        if self.is_ready() {
            return Answer::text(Status::Ok, "ready\n");
        }
        let draining = self.graceful.as_ref().is_some_and(|graceful| !graceful.is_ready());
        let words = if draining { "draining: the process goes down\n" } else { "not ready\n" };
        Answer::text(Status::Unavailable, words)
    }

    async fn tasks(&self, request: &Request) -> Result<TaskPages, Answer> {
        let max = number(request, "max", TASKS)?.min(TASKS_MAX);
        let only = number(request, "core", usize::MAX)?;
        let count = self.handle.cores();
        let cores = match only {
            usize::MAX => 0..count,
            core if core < count => core..core + 1,
            _ => {
                let words = format!("no such core: there are {count}, counted from 0\n");
                return Err(Answer::text(Status::NotFound, words));
            }
        };
        // Of those that don't answer all are waited for together, and not again for each.
        let all = self.brief().await;
        let silent = self.silent(&all).filter_map(|core| core.core).collect();
        Ok(TaskPages::new(
            self.handle.clone(),
            cores,
            silent,
            max,
            self.limit,
            request.wants_json(),
        ))
    }

    /// When the cores were asked last, of those times after which they had all their time to answer.
    fn asked_in_full(&self) -> Option<Instant> {
        let last = self.asked.get().filter(|asked| asked.elapsed() >= self.limit);
        last.or(self.asked_before.get())
    }

    /// Those of `all` that have had their time to answer, and have not answered since.
    fn silent<'a>(&self, all: &'a [Snapshot]) -> impl Iterator<Item = &'a Snapshot> {
        // To be asked again is no sign of life: what they were asked before goes on to count.
        let asked = self.asked_in_full();
        all.iter().filter(move |core| asked.is_some_and(|asked| is_silent(core, asked)))
    }

    fn config(&self, request: &Request) -> Answer {
        let rows = self.config.iter().flat_map(Resolved::rows);
        let idle: Vec<_> = self.config.iter().flat_map(Resolved::without_effect).collect();
        let settings = rows.map(|(core, name, value, origin)| doc::Setting {
            core,
            name: name.to_owned(),
            value,
            origin: origin.to_string(),
            without_effect: idle
                .iter()
                .find(|idle| (idle.0, idle.1) == (core, name))
                .map(|(.., why)| why.clone()),
        });
        let mut step_downs = Vec::new();
        for snapshot in self.handle.snapshots_in_brief() {
            let core = snapshot.core.unwrap_or_default();
            step_downs.extend(snapshot.step_downs.into_iter().map(|step| doc::CoreStepDown {
                core,
                what: step.what,
                why: step.why,
            }));
        }
        let document = doc::Config {
            schema_version: SCHEMA_VERSION,
            settings: settings.collect(),
            step_downs,
        };
        if request.wants_json() {
            return json(&document);
        }
        let mut text = match &self.config {
            Some(config) => config.to_string(),
            None => "the program did not hand its settings to the listener\n".to_owned(),
        };
        text.push_str("\nstepped down:\n");
        if document.step_downs.is_empty() {
            text.push_str("  nothing\n");
        }
        for step in &document.step_downs {
            let _ = writeln!(text, "  core {}: {} ({})", step.core, step.what, step.why);
        }
        Answer { status: Status::Ok, content_type: PLAIN, body: text }
    }
}

/// Whether a core that was asked at `asked` has said nothing since. One that ends is not asked any more.
fn is_silent(core: &Snapshot, asked: Instant) -> bool {
    core.state.answers() && core.gauges.age > asked.elapsed()
}

fn number(request: &Request, name: &str, default: usize) -> Result<usize, Answer> {
    let Some(text) = request.parameter(name) else { return Ok(default) };
    text.parse().map_err(|_| {
        Answer::text(Status::BadRequest, format!("{name}: {text:?} is not a whole number\n"))
    })
}

fn json(document: &impl Serialize) -> Answer {
    match serde_json::to_string(document) {
        Ok(body) => Answer { status: Status::Ok, content_type: JSON, body: body + "\n" },
        // Numbers, words and lists: there is nothing that could be refused.
        Err(error) => Answer::text(Status::Unavailable, format!("{error}\n")),
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use coreloop::EventLoop;
    use coreloop_tests::drive::{poll_once, rest, stepped};

    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    fn pages(of: &EventLoop, limit: Duration) -> Pages {
        Pages {
            handle: of.handle(),
            config: None,
            graceful: None,
            ready_if: Vec::new(),
            limit,
            asked: Cell::new(None),
            asked_before: Cell::new(None),
        }
    }

    fn says(own: &mut EventLoop, pages: &Pages) -> Status {
        own.block_on(pages.live()).status
    }

    /// What `/livez` says of a core that goes on while it is asked.
    fn says_of_one_that_goes_on(
        own: &mut EventLoop,
        other: &mut EventLoop,
        pages: &Pages,
    ) -> Status {
        let mut answer = pin!(pages.live());
        assert!(own.block_on(poll_once(answer.as_mut())).is_pending());
        rest(other);
        own.block_on(answer).status
    }

    #[test]
    fn a_core_that_hangs_does_not_live_because_it_is_asked_again() {
        let (mut own, mut other) = (stepped(), stepped());
        let pages = pages(&other, Duration::from_millis(300));
        // Nobody has it go on, and all its time passes.
        assert_eq!(says(&mut own, &pages), Status::Unavailable);
        let mut again = pin!(pages.ask());
        assert!(own.block_on(poll_once(again.as_mut())).is_pending());
        assert_eq!(says(&mut own, &pages), Status::Unavailable);
        // Nor because it is asked once more before that time has passed.
        let mut once_more = pin!(pages.ask());
        assert!(own.block_on(poll_once(once_more.as_mut())).is_pending());
        assert_eq!(says(&mut own, &pages), Status::Unavailable);
        // It goes on, and lives.
        rest(&mut other);
        assert_eq!(pages.silent(&pages.handle.snapshots()).count(), 0);
        assert_eq!(says_of_one_that_goes_on(&mut own, &mut other, &pages), Status::Ok);
    }

    #[test]
    fn a_core_whose_queue_others_keep_full_is_asked_all_the_same() {
        let (mut own, mut other) = (stepped(), stepped());
        let pages = pages(&other, Duration::from_millis(300));
        let fill = || while pages.handle.call_soon_threadsafe(0, || ()).is_ok() {};
        for _ in 0..3 {
            fill();
            assert_eq!(says_of_one_that_goes_on(&mut own, &mut other, &pages), Status::Ok);
        }
        // Nor are there questions without end where it does not go on.
        fill();
        let mut asks: Vec<_> = (0..1_100).map(|_| Box::pin(pages.handle.stats(0))).collect();
        let mut refused = 0;
        for ask in &mut asks {
            refused += u32::from(own.block_on(poll_once(ask.as_mut())).is_ready());
        }
        assert_eq!(refused, 1_100 - 256);
        // Nor do they take the place of closures.
        drop(asks);
        rest(&mut other);
        assert_eq!(
            (0..).take_while(|_| pages.handle.call_soon_threadsafe(0, || ()).is_ok()).count(),
            1_024
        );
    }

    #[test]
    fn a_core_that_has_answered_has_its_time_when_it_is_asked_again() {
        let (mut own, mut other) = (stepped(), stepped());
        let pages = pages(&other, HOUR);
        assert_eq!(says_of_one_that_goes_on(&mut own, &mut other, &pages), Status::Ok);
        for _ in 0..2 {
            let mut again = pin!(pages.ask());
            assert!(own.block_on(poll_once(again.as_mut())).is_pending());
            assert_eq!(says(&mut own, &pages), Status::Ok);
        }
    }
}
