//! Files of histograms as another implementation of HdrHistogram reads them, the Python one: it counts what
//! the cores did, and finds the same percentiles.

use std::path::{Path, PathBuf};
use std::time::Duration;

use coreloop::report::HistogramFiles;
use coreloop::time::sleep;
use coreloop::{EventLoop, Histograms, Settings, StatsLevel, spawn};
use coreloop_tests::python::{run, with_module};
use coreloop_tests::skip;
use serde_json::Value;

const MS: Duration = Duration::from_millis(1);
/// Percentiles that are compared.
const PERCENTILES: [f64; 5] = [50.0, 90.0, 99.0, 99.9, 100.0];

/// Reads a log; with further files, it holds the distributions to what it has read: each line's count is
/// that of the values up to the line's.
const READER: &str = r##"
import json, math, sys
from hdrh.histogram import HdrHistogram
from hdrh.log import HistogramLogReader

def like(h):
    return HdrHistogram(h.lowest_trackable_value, h.highest_trackable_value, h.significant_figures)

tags, lines = {}, 0
reader = HistogramLogReader(sys.argv[1], HdrHistogram(1, 3_600_000_000_000, 3))
while part := reader.get_next_interval_histogram():
    tags.setdefault(part.get_tag(), like(part)).add(part)
    lines += 1

# That library rounds ranks to the nearest one; the least value that so many are not above is meant.
def at(h, percentile):
    rank = math.ceil(percentile / 100 * h.get_total_count())
    recorded = h.get_recorded_iterator()
    return next(i.value_iterated_to for i in recorded if i.total_count_to_this_value >= rank)

percentiles = json.loads(sys.argv[2])
found = {
    tag: [h.get_total_count(), h.get_max_value(), [at(h, p) for p in percentiles]]
    for tag, h in tags.items()
}
checked = 0
for path in sys.argv[3:]:
    name = path.rsplit("/", 1)[-1].removesuffix(".hgrm")
    all = tags["core0." + name]
    up_to = [(i.value_iterated_to, i.total_count_to_this_value) for i in all.get_recorded_iterator()]
    for line in open(path).read().splitlines()[2:]:
        if line.startswith("#"):
            continue
        value, _, count = line.split()[:3]
        # In us, to as many digits as the histogram tells apart.
        digits = len(value.split(".")[1])
        found_here = [c for ns, c in up_to if f"{ns / 1000:.{digits}f}" == value]
        assert int(count) in found_here, (path, line, up_to)
        checked += 1
    assert f"Total count    = {all.get_total_count():>12}]" in open(path).read(), path
print(json.dumps([lines, checked, found]))
"##;

fn text(path: &Path) -> String {
    path.to_str().unwrap().to_owned()
}

/// What a loop recorded, its log, and its distributions.
fn recorded(folder: &Path) -> (Histograms, PathBuf, Vec<PathBuf>) {
    std::fs::create_dir_all(folder).unwrap();
    let log = folder.join("run.hlog");
    let settings = Settings::default().stats(StatsLevel::Histograms);
    let mut event_loop = EventLoop::with(settings).unwrap();
    let files = HistogramFiles::log_to(&log).every(20 * MS).distributions_in(folder);
    let writing = files.begin(event_loop.handle()).unwrap();
    event_loop.block_on(async {
        for round in 0..30 {
            let tasks: Vec<_> = (0..10).map(|i| spawn(sleep(MS * (1 + (round + i) % 5)))).collect();
            for task in tasks {
                task.await.unwrap();
            }
        }
    });
    let last = event_loop.stats().histograms.unwrap();
    drop(writing);
    let files = std::fs::read_dir(folder).unwrap().map(|file| file.unwrap().path());
    let hgrm = files.filter(|path| path.extension().is_some_and(|ext| ext == "hgrm")).collect();
    (last, log, hgrm)
}

#[test]
fn report_files_are_read_the_same_by_python() {
    let build = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let Some(python) = with_module("hdrh.log", "hdrhistogram==0.10.8", build) else {
        skip!("no python3 with hdrhistogram, and it can't be installed");
    };
    let folder = build.join(format!("report-foreign-{}", std::process::id()));
    let (recorded, log, hgrm) = recorded(&folder);
    let percentiles = serde_json::to_string(&PERCENTILES).unwrap();
    let mut args = vec!["-c".to_owned(), READER.to_owned(), text(&log), percentiles];
    args.extend(hgrm.iter().map(|path| text(path)));
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let (well, said) = run(&python, &args, "").unwrap();
    assert!(well, "{said}");
    let (lines, checked, found): (usize, usize, Value) = serde_json::from_str(&said).unwrap();
    let mut told = 0;
    for (name, values) in recorded.iter() {
        let read = &found[format!("core0.{name}")];
        if values.count() == 0 {
            assert!(read.is_null(), "{name}: {read}");
            continue;
        }
        told += 1;
        assert_eq!(
            (&read[0], &read[1]),
            (&values.count().into(), &values.max_ns().into()),
            "{name}"
        );
        for (at, percentile) in PERCENTILES.iter().enumerate() {
            let ours = values.quantile_ns(percentile / 100.0);
            assert_eq!(read[2][at], ours, "{name} at {percentile} %");
        }
    }
    assert!(told >= 4 && hgrm.len() == told, "{told} {hgrm:?}");
    assert!(lines > told && checked > 10 * told, "{lines} {checked}");
    let _ = std::fs::remove_dir_all(&folder);
}
