//! Histograms that the runtime writes on an interval: HdrHistogram's own reader takes them, and what it reads
//! is what the cores recorded.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use coreloop::report::{FilesError, HistogramFiles};
use coreloop::time::sleep;
use coreloop::{Cores, EventLoop, Runtime, Settings, Snapshot, StatsLevel, spawn};
use coreloop_tests::Child;
use hdrhistogram::Histogram;
use hdrhistogram::serialization::Deserializer;
use hdrhistogram::serialization::interval_log::{IntervalLogIterator, LogEntry};

const MS: Duration = Duration::from_millis(1);

struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("coreloop-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// The histograms of a log by their tags, intervals put together, and how many intervals there were.
fn read(log: &[u8]) -> (BTreeMap<String, Histogram<u64>>, usize) {
    let (mut by_tag, mut starts) = (BTreeMap::<_, Histogram<u64>>::new(), Vec::new());
    for entry in IntervalLogIterator::new(log) {
        let LogEntry::Interval(line) = entry.unwrap() else { continue };
        let bytes = base64(line.encoded_histogram());
        let values: Histogram<u64> =
            Deserializer::new().deserialize(&mut bytes.as_slice()).unwrap();
        assert!(line.duration() > Duration::ZERO);
        starts.push(line.start_timestamp());
        let all = by_tag.entry(line.tag().unwrap().as_str().to_owned());
        all.and_modify(|all| all.add(&values).unwrap()).or_insert(values);
    }
    assert!(starts.is_sorted(), "later lines are of later intervals");
    starts.dedup();
    (by_tag, starts.len())
}

fn base64(text: &str) -> Vec<u8> {
    const ALPHABET: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let (mut out, mut bits, mut held) = (Vec::new(), 0u32, 0);
    for byte in text.bytes().filter(|byte| *byte != b'=') {
        bits = bits << 6 | ALPHABET.iter().position(|a| *a == byte).unwrap() as u32;
        held += 6;
        if held >= 8 {
            held -= 8;
            out.push((bits >> held) as u8);
        }
    }
    out
}

#[test]
fn report_an_interval_log_holds_all_that_was_recorded() {
    let folder = Folder::new("hlog");
    let log = folder.0.join("run.hlog");
    let settings = Settings::default().stats(StatsLevel::Histograms);
    let mut event_loop = EventLoop::with(settings).unwrap();
    let files = HistogramFiles::log_to(&log).every(20 * MS).distributions_in(&folder.0);
    let writing = files.begin(event_loop.handle()).unwrap();
    event_loop.block_on(async {
        // No more tasks than are all timed in one turn.
        for _ in 0..20 {
            let tasks: Vec<_> = (0..10).map(|_| spawn(sleep(3 * MS))).collect();
            for task in tasks {
                task.await.unwrap();
            }
        }
    });
    let last = event_loop.stats();
    drop(writing);
    let (by_tag, intervals) = read(&std::fs::read(&log).unwrap());
    assert!(intervals >= 2, "{intervals}");
    let recorded = last.histograms.unwrap();
    for (name, values) in recorded.iter() {
        let read = by_tag.get(&format!("core0.{name}"));
        assert_eq!(read.map_or(0, |h| h.len()), values.count(), "{name}");
        if let Some(read) = read {
            assert_eq!(
                (read.max(), read.value_at_quantile(0.5)),
                (values.max_ns(), values.quantile_ns(0.5))
            );
        }
    }
    // One that is first polled after its time takes a poll less, and no timer.
    let fired = recorded.timer_late.count();
    assert!((1..=200).contains(&fired), "{fired}");
    assert!(recorded.poll.count() >= 200 + fired);

    let text = std::fs::read_to_string(folder.0.join("timer_late.hgrm")).unwrap();
    assert!(
        text.starts_with("       Value     Percentile TotalCount 1/(1-Percentile)\n"),
        "{text}"
    );
    assert!(text.contains(&format!("Total count    = {fired:>12}]")), "{text}");
    let leftovers = std::fs::read_dir(&folder.0).unwrap();
    let hidden =
        leftovers.filter(|f| f.as_ref().unwrap().file_name().as_encoded_bytes()[0] == b'.');
    assert_eq!(hidden.count(), 0);
}

#[test]
fn report_a_log_that_was_detached_ends_with_its_cores() {
    let folder = Folder::new("detached");
    let log = folder.0.join("run.hlog");
    let settings = Settings::default().stats(StatsLevel::Histograms);
    let mut event_loop = EventLoop::with(settings).unwrap();
    HistogramFiles::log_to(&log).every(10 * MS).begin(event_loop.handle()).unwrap().detach();
    event_loop.block_on(sleep(15 * MS));
    drop(event_loop);
    let began = std::time::Instant::now();
    let ended = || {
        let tasks = std::fs::read_dir("/proc/self/task").unwrap();
        let names = tasks.filter_map(|t| std::fs::read_to_string(t.ok()?.path().join("comm")).ok());
        !names.into_iter().any(|name| name.trim() == "coreloop-files")
    };
    while !ended() {
        assert!(began.elapsed() < Duration::from_secs(20), "it goes on");
        std::thread::sleep(MS);
    }
    assert!(read(&std::fs::read(&log).unwrap()).0["core0.timer_late"].len() == 1);
}

#[test]
fn report_files_without_histograms_to_write_are_refused() {
    let folder = Folder::new("nothing");
    let log = folder.0.join("run.hlog");
    std::fs::write(&log, "of an earlier run").unwrap();
    for level in [StatsLevel::Off, StatsLevel::Counters] {
        let event_loop = EventLoop::with(Settings::default().stats(level)).unwrap();
        let refused = HistogramFiles::log_to(&log).begin(event_loop.handle()).unwrap_err();
        assert!(matches!(refused, FilesError::NoHistograms), "{level:?}: {refused}");
        assert!(refused.to_string().contains("set stats = histograms"), "{refused}");
    }
    assert_eq!(std::fs::read_to_string(&log).unwrap(), "of an earlier run", "it is not touched");
    let histograms = || Settings::default().stats(StatsLevel::Histograms);
    let event_loop = EventLoop::with(histograms()).unwrap();
    let nowhere = folder.0.join("no").join("run.hlog");
    let refused = HistogramFiles::log_to(&nowhere).begin(event_loop.handle()).unwrap_err();
    assert!(refused.to_string().starts_with(&format!("{}: ", nowhere.display())), "{refused}");
    // One core of two is enough, and the log is of that one.
    let cpu = Cores::Count(1).resolve().unwrap()[0];
    let cores = Runtime::builder().cores(Cores::These(vec![cpu, cpu])).unpinned();
    let files = HistogramFiles::log_to(&log);
    let (tell, writing) = std::sync::mpsc::channel();
    let begun = Arc::new(AtomicBool::new(false));
    let begins = begun.clone();
    let cores = cores.core(1, histograms()).on_start(move |handle| {
        tell.send(files.begin(handle).unwrap()).unwrap();
        begins.store(true, Ordering::Release);
    });
    // What the cores do before that is not in the log, and that may be all where they have a CPU and the
    // thread that begins it has none.
    let work = move |_| {
        let begun = begun.clone();
        async move {
            while !begun.load(Ordering::Acquire) {
                sleep(MS).await;
            }
            sleep(2 * MS).await;
        }
    };
    cores.build().unwrap().run(work).unwrap();
    drop(writing.recv().unwrap());
    let (by_tag, _) = read(&std::fs::read(&log).unwrap());
    assert!(!by_tag.is_empty() && by_tag.keys().all(|tag| tag.starts_with("core1.")), "{by_tag:?}");
}

#[test]
fn report_the_folder_of_distributions_is_made_or_refused_at_the_start() {
    let folder = Folder::new("made");
    let log = folder.0.join("run.hlog");
    std::fs::write(&log, "of an earlier run").unwrap();
    let settings = Settings::default().stats(StatsLevel::Histograms);
    let mut event_loop = EventLoop::with(settings).unwrap();
    let files = |into: &PathBuf| HistogramFiles::log_to(&log).every(10 * MS).distributions_in(into);
    // A file is in the way.
    let refused = files(&log).begin(event_loop.handle()).unwrap_err();
    assert!(matches!(&refused, FilesError::Folder { path, .. } if *path == log), "{refused:?}");
    assert!(refused.to_string().starts_with(&log.display().to_string()), "{refused}");
    assert_eq!(std::fs::read_to_string(&log).unwrap(), "of an earlier run", "it is not touched");

    let deep = folder.0.join("not").join("yet");
    let writing = files(&deep).begin(event_loop.handle()).unwrap();
    event_loop.block_on(sleep(15 * MS));
    drop(writing);
    let names = std::fs::read_dir(&deep).unwrap().map(|f| f.unwrap().file_name());
    let mut names: Vec<_> = names.map(|name| name.into_string().unwrap()).collect();
    names.sort();
    assert!(names.contains(&"timer_late.hgrm".to_owned()), "{names:?}");
    assert!(names.iter().all(|name| !name.starts_with('.')), "{names:?}");
}

#[test]
fn report_a_log_goes_on_without_its_distributions() {
    let child = Child::new("report_a_log_goes_on_without_its_distributions");
    child.says(".hgrm could not be written, and is tried again").run(|| {
        let folder = Folder::new("goes-on");
        let (log, gone) = (folder.0.join("run.hlog"), folder.0.join("gone"));
        let settings = Settings::default().stats(StatsLevel::Histograms);
        let mut event_loop = EventLoop::with(settings).unwrap();
        let files = HistogramFiles::log_to(&log).every(10 * MS).distributions_in(&gone);
        let writing = files.begin(event_loop.handle()).unwrap();
        std::fs::remove_dir_all(&gone).unwrap();
        let intervals = || read(&std::fs::read(&log).unwrap_or_default()).1;
        let mut go_on = |until: &dyn Fn() -> bool| {
            let began = std::time::Instant::now();
            while !until() {
                assert!(began.elapsed() < Duration::from_secs(30), "it has ended");
                event_loop.block_on(sleep(5 * MS));
            }
        };
        go_on(&|| intervals() >= 4);
        // It is there again.
        std::fs::create_dir(&gone).unwrap();
        go_on(&|| gone.join("timer_late.hgrm").exists());
        drop(writing);
        assert!(read(&std::fs::read(&log).unwrap()).0["core0.timer_late"].len() >= 4);
    });
}

#[test]
fn report_a_snapshot_goes_through_serde_unchanged() {
    let settings = Settings::default().stats(StatsLevel::Histograms);
    let mut event_loop = EventLoop::with(settings).unwrap();
    event_loop.block_on(sleep(2 * MS));
    let snapshot = event_loop.stats();
    let text = serde_json::to_string(&snapshot).unwrap();
    assert_eq!(serde_json::from_str::<Snapshot>(&text).unwrap(), snapshot);
    // One of an older version, which lacks what came later, is read too.
    let old: Snapshot = serde_json::from_str(r#"{"core":3,"counters":{"polls":9}}"#).unwrap();
    assert_eq!((old.core, old.counters.polls, old.histograms), (Some(3), 9, None));
}
