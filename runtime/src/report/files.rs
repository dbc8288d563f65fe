//! Histograms of a runtime's cores, written to files on an interval.
//!
//! Owns [`HistogramFiles`], what is to be written where, [`FilesError`], why nothing is, and [`Writing`], the
//! thread that does it: files block, and no core is held up for them. Each interval is the difference of two
//! snapshots, which are read without a word to the cores.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant, SystemTime};

use super::format::{IntervalLog, percentile_distribution};
use crate::handle::Handle;
use crate::metrics::{CoreState, Snapshot};

/// Files that the histograms of a runtime's cores are written to: HdrHistogram's interval log (`.hlog`), a
/// line for each interval, core and histogram, and its percentile distributions (`.hgrm`), one file for each
/// histogram of all cores together. The settings of a core that is to be in them have to ask for histograms
/// ([`StatsLevel::Histograms`](crate::StatsLevel::Histograms)); where no core's do, [`begin`](Self::begin)
/// says so.
///
/// A line's tag is `core0.poll`: the core's number and the histogram's name. Values are in ns, in the
/// distributions in µs. The tools of that project read them, and logs of several machines can be put
/// together: `cat` merges them, since each line says when it was.
///
/// ```
/// use std::time::Duration;
/// use coreloop::report::HistogramFiles;
/// use coreloop::{Cores, Runtime, Settings, StatsLevel, time::sleep};
///
/// let dir = std::env::temp_dir().join(format!("coreloop-doc-{}", std::process::id()));
/// std::fs::create_dir_all(&dir).unwrap();
/// let log = dir.join("run.hlog");
/// let files = HistogramFiles::log_to(&log).every(Duration::from_millis(100)).distributions_in(&dir);
/// let runtime = Runtime::builder()
///     .cores(Cores::Count(1))
///     .settings(Settings::default().stats(StatsLevel::Histograms))
///     .on_start(move |handle| files.begin(handle).unwrap().detach());
/// runtime.build().unwrap().run(|_| sleep(Duration::from_millis(250))).unwrap();
/// # std::thread::sleep(Duration::from_millis(300));
/// assert!(std::fs::read_to_string(&log).unwrap().contains("Tag=core0.timer_late,"));
/// # assert!(dir.join("poll.hgrm").exists());
/// # std::fs::remove_dir_all(dir).unwrap();
/// ```
#[derive(Clone, Debug)]
#[must_use = "nothing is written until `begin`"]
pub struct HistogramFiles {
    log: PathBuf,
    interval: Duration,
    distributions: Option<PathBuf>,
}

impl HistogramFiles {
    /// An interval log in this file, which is created anew, with an interval of 1 s.
    pub fn log_to(path: impl Into<PathBuf>) -> Self {
        Self { log: path.into(), interval: Duration::from_secs(1), distributions: None }
    }

    /// Another interval; one below 10 ms is 10 ms.
    pub fn every(mut self, interval: Duration) -> Self {
        self.interval = interval.max(Duration::from_millis(10));
        self
    }

    /// Percentile distributions in this folder, `poll.hgrm` and so on: of all cores since their start,
    /// written anew at each interval. A reader never sees half of one. A folder that is not there is made,
    /// with those above it.
    pub fn distributions_in(mut self, folder: impl Into<PathBuf>) -> Self {
        self.distributions = Some(folder.into());
        self
    }

    /// Begins to write, on a thread of its own, until all cores have ended; their last interval is written
    /// too.
    ///
    /// # Errors
    /// [`FilesError`]: no core keeps histograms (no file is touched then), nothing can be written in the
    /// folder of the distributions (the log is not touched then), the log can't be created, or the thread
    /// not be started. What can't be written later is said on standard error, with its path: where that is
    /// the log, it ends the writing; distributions are tried again at each interval, and the log goes on.
    ///
    /// ```
    /// use coreloop::report::{FilesError, HistogramFiles};
    /// use coreloop::{EventLoop, Settings, StatsLevel};
    ///
    /// let event_loop = EventLoop::with(Settings::default().stats(StatsLevel::Counters)).unwrap();
    /// let refused = HistogramFiles::log_to("run.hlog").begin(event_loop.handle()).unwrap_err();
    /// assert!(matches!(refused, FilesError::NoHistograms));
    /// ```
    pub fn begin(self, handle: Handle) -> Result<Writing, FilesError> {
        let before = handle.snapshots();
        if before.iter().all(|core| core.histograms.is_none()) {
            return Err(FilesError::NoHistograms);
        }
        if let Some(folder) = &self.distributions {
            let of_folder = |source| FilesError::Folder { path: folder.clone(), source };
            try_folder(folder).map_err(of_folder)?;
        }
        let of_log = |source| FilesError::Log { path: self.log.clone(), source };
        let out = BufWriter::new(File::create(&self.log).map_err(of_log)?);
        let log = IntervalLog::begin(out, SystemTime::now(), "latencies of coreloop's cores");
        let log = log.map_err(of_log)?;
        let (stop, stopped) = mpsc::channel();
        let writer = Writer {
            began: Instant::now(),
            written: Duration::ZERO,
            before,
            handle,
            log,
            no_distributions: false,
            files: self,
        };
        let thread = thread::Builder::new().name("coreloop-files".to_owned());
        let thread = thread.spawn(move || writer.write(&stopped)).map_err(FilesError::Thread)?;
        Ok(Writing { stop: Some(stop), thread: Some(thread) })
    }
}

/// Why no histograms are written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FilesError {
    /// No core keeps any, so that the files would stay empty.
    #[error(
        "no core keeps histograms, so there is nothing to write: set stats = histograms \
         (Settings::stats(StatsLevel::Histograms)), for all cores or for some"
    )]
    NoHistograms,
    /// The interval log can't be created or begun.
    #[error("{}: {source}", path.display())]
    Log {
        /// The log.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// The folder of the distributions can't be made, or takes no file.
    #[error("{}: percentile distributions can't be written there: {source}", path.display())]
    Folder {
        /// The folder.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// The thread that writes can't be started.
    #[error("no thread to write histograms: {0}")]
    Thread(#[source] io::Error),
}

/// For a `main` that returns an [`io::Error`]: the text is all there, and the kind is the system's.
///
/// ```
/// use coreloop::report::FilesError;
/// use std::io;
///
/// let error = io::Error::from(FilesError::NoHistograms);
/// assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
/// assert!(error.to_string().contains("stats = histograms"));
/// ```
impl From<FilesError> for io::Error {
    fn from(error: FilesError) -> Self {
        let kind = match &error {
            FilesError::NoHistograms => io::ErrorKind::InvalidInput,
            FilesError::Log { source, .. }
            | FilesError::Folder { source, .. }
            | FilesError::Thread(source) => source.kind(),
        };
        Self::new(kind, error)
    }
}

/// Histograms that are being written. Dropping it writes what there is and ends it.
#[derive(Debug)]
#[must_use = "dropping it ends the writing: `detach` lets it go on"]
pub struct Writing {
    stop: Option<mpsc::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Writing {
    /// Goes on until all cores have ended; the interval in which they do is written within one more, if the
    /// process lives so long.
    pub fn detach(mut self) {
        if let Some(stop) = self.stop.take() {
            _ = stop.send(());
        }
        self.thread = None;
    }
}

impl Drop for Writing {
    /// Blocks until the last interval is written.
    fn drop(&mut self) {
        self.stop = None;
        if let Some(thread) = self.thread.take() {
            _ = thread.join();
        }
    }
}

struct Writer {
    files: HistogramFiles,
    handle: Handle,
    log: IntervalLog<BufWriter<File>>,
    began: Instant,
    /// Until when, since `began`, everything is in the log.
    written: Duration,
    before: Vec<Snapshot>,
    /// Whether the distributions could not be written the last time.
    no_distributions: bool,
}

impl Writer {
    fn write(mut self, stopped: &mpsc::Receiver<()>) {
        let mut detached = false;
        loop {
            let next = self.written + self.files.interval;
            let wait = next.saturating_sub(self.began.elapsed());
            let told = if detached {
                thread::sleep(wait);
                Err(RecvTimeoutError::Timeout)
            } else {
                stopped.recv_timeout(wait)
            };
            if told.is_ok() {
                detached = true;
                continue;
            }
            // Looked at before the figures, which are the last ones then.
            let ended = self.handle.snapshots().iter().all(|core| core.state == CoreState::Ended);
            if let Err(e) = self.interval() {
                crate::contain::tell(format_args!(
                    "coreloop: histograms are no longer written to {}: {e}",
                    self.files.log.display()
                ));
                return;
            }
            if ended || told == Err(RecvTimeoutError::Disconnected) {
                return;
            }
        }
    }

    /// Writes what happened since the last time.
    fn interval(&mut self) -> io::Result<()> {
        let now = self.handle.snapshots();
        let (start, end) = (self.written, self.began.elapsed());
        for (core, before) in now.iter().zip(&self.before) {
            let (number, new) = (core.core.unwrap_or_default(), core.since(before));
            for (name, values) in new.histograms.iter().flat_map(|all| all.iter()) {
                if values.count() > 0 {
                    let tag = format!("core{number}.{name}");
                    self.log.line(start, end - start, &tag, values.hdr())?;
                }
            }
        }
        self.log.flush()?;
        let failed = self.write_distributions(&Snapshot::sum(&now)).err();
        if let Some((path, e)) = failed.as_ref().filter(|_| !self.no_distributions) {
            crate::contain::tell(format_args!(
                "coreloop: {} could not be written, and is tried again at each interval: {e}",
                path.display()
            ));
        }
        self.no_distributions = failed.is_some();
        (self.written, self.before) = (end, now);
        Ok(())
    }

    /// The error comes with the file that it is of.
    fn write_distributions(&self, sum: &Snapshot) -> Result<(), (PathBuf, io::Error)> {
        let Some(folder) = &self.files.distributions else { return Ok(()) };
        for (name, values) in sum.histograms.iter().flat_map(|all| all.iter()) {
            if values.count() == 0 {
                continue;
            }
            let path = folder.join(format!("{name}.hgrm"));
            let unfinished = folder.join(format!(".{name}.hgrm.new"));
            let write = || {
                let mut out = BufWriter::new(File::create(&unfinished)?);
                percentile_distribution(&mut out, values.hdr(), 1e3)?;
                out.flush()?;
                fs::rename(&unfinished, &path)
            };
            if let Err(e) = write() {
                // Half of one is of no use; where it can't be taken away either, that was said.
                _ = fs::remove_file(&unfinished);
                return Err((path, e));
            }
        }
        Ok(())
    }
}

/// Makes the folder, if it is not there, and sees whether it takes a file.
fn try_folder(folder: &Path) -> io::Result<()> {
    fs::create_dir_all(folder)?;
    let trial = folder.join(".coreloop.hgrm.new");
    File::create(&trial)?;
    fs::remove_file(&trial)
}
