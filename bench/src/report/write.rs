//! The result files: JSON, and the percentile distribution of HdrHistogram.
//!
//! Owns the formats, the error that names the file, and that a file is there whole or as it was: a new
//! one is written beside it and then takes its name. Knows nothing of the terminal; the interval log,
//! written while a run goes on, is `hlog`'s.

use std::ffi::OsString;
use std::fmt;
use std::fs::{self, File};
use std::io::{self, BufWriter, ErrorKind, Write};
use std::path::{Path, PathBuf};

use coreloop::report::format::percentile_distribution;
use hdrhistogram::Histogram;
use serde::Serialize;

/// A result file that could not be written.
#[derive(Debug)]
pub struct WriteError {
    path: PathBuf,
    cause: io::Error,
}

impl WriteError {
    /// `cause`, while writing `path`.
    pub fn new(path: &Path, cause: io::Error) -> WriteError {
        WriteError { path: path.to_owned(), cause }
    }
}

impl fmt::Display for WriteError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "can't write {}: {}", self.path.display(), self.cause)
    }
}

impl std::error::Error for WriteError {}

/// Checks that `path` can be written, and leaves all as it is: what is there, since the run may yet be
/// refused, and nothing where there was nothing. Called before a run: finding out after ten minutes of
/// load that a folder doesn't exist would be rude.
pub fn probe(path: &Path) -> Result<(), WriteError> {
    let tried = match File::create_new(path) {
        Ok(_) => fs::remove_file(path),
        Err(error) if error.kind() == ErrorKind::AlreadyExists => probe_existing(path),
        Err(error) => Err(error),
    };
    tried.map_err(|cause| WriteError::new(path, cause))
}

fn probe_existing(path: &Path) -> io::Result<()> {
    use std::os::unix::fs::FileTypeExt;

    match fs::metadata(path) {
        // Its reader would take this for all of it, and without a reader this would wait.
        Ok(file) if file.file_type().is_fifo() => Ok(()),
        Ok(_) => File::options().write(true).open(path).map(drop),
        // A link to what is not there yet.
        Err(error) if error.kind() == ErrorKind::NotFound => {
            File::create(path)?;
            fs::remove_file(fs::canonicalize(path)?)
        }
        Err(error) => Err(error),
    }
}

/// Writes `report` as indented JSON.
pub fn json(path: &Path, report: &impl Serialize) -> Result<(), WriteError> {
    write_file(path, |out| {
        serde_json::to_writer_pretty(&mut *out, report)?;
        out.write_all(b"\n")
    })
}

/// Writes text as it is.
pub fn text(path: &Path, text: &str) -> Result<(), WriteError> {
    write_file(path, |out| out.write_all(text.as_bytes()))
}

/// Writes the percentile distribution of `histogram` (in ns) in µs.
pub fn hgrm(path: &Path, histogram: &Histogram<u64>) -> Result<(), WriteError> {
    write_file(path, |out| percentile_distribution(out, histogram, 1e3))
}

/// Where an open loop's uncorrected distribution goes: beside the corrected one.
pub fn uncorrected_path(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".uncorrected");
    PathBuf::from(name)
}

type Content<'a> = &'a mut dyn FnMut(&mut BufWriter<File>) -> io::Result<()>;

fn write_file(
    path: &Path,
    mut content: impl FnMut(&mut BufWriter<File>) -> io::Result<()>,
) -> Result<(), WriteError> {
    let written = match fs::symlink_metadata(path) {
        // A device or a pipe, or a link, to one of them for all that is known (/dev/stdout): the name stays.
        Ok(there) if !there.is_file() => in_place(path, &mut content),
        there => replace(path, there.ok().map(|file| file.permissions()), &mut content),
    };
    written.map_err(|cause| WriteError::new(path, cause))
}

fn in_place(path: &Path, content: Content<'_>) -> io::Result<()> {
    write_to(File::create(path)?, content)
}

fn write_to(file: File, content: Content<'_>) -> io::Result<()> {
    let mut out = BufWriter::new(file);
    content(&mut out)?;
    out.flush()
}

/// Writes a new file, which takes the name once it is whole: what had it before is not lost to a full disk.
fn replace(
    path: &Path,
    permissions: Option<fs::Permissions>,
    content: Content<'_>,
) -> io::Result<()> {
    let Some(beside) = beside(path) else { return in_place(path, content) };
    // A folder in which there may be no new files, though this one may be written.
    let Ok(file) = File::create(&beside) else { return in_place(path, content) };
    let written = write_to(file, content).and_then(|()| {
        if let Some(permissions) = permissions {
            fs::set_permissions(&beside, permissions)?;
        }
        // A file that is mounted by itself can't be replaced.
        fs::rename(&beside, path).or_else(|_| fs::copy(&beside, path).map(drop))
    });
    // Mostly it has the other name by now.
    let _ = fs::remove_file(&beside);
    written
}

/// A name in the same folder that nobody else uses.
fn beside(path: &Path) -> Option<PathBuf> {
    let mut name = OsString::from(".");
    name.push(path.file_name()?);
    name.push(format!(".{}.tmp", std::process::id()));
    Some(path.with_file_name(name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::histogram;

    #[test]
    fn the_distribution_reads_as_hdrhistogram_prints_it() {
        let mut values = histogram();
        for us in [1u64, 2, 3, 4, 5, 6, 7, 8, 9, 10] {
            values.saturating_record(us * 1_000);
        }
        let mut out = Vec::new();
        percentile_distribution(&mut out, &values, 1e3).unwrap();
        let text = String::from_utf8(out).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[0], "       Value     Percentile TotalCount 1/(1-Percentile)");
        assert_eq!(lines[1], "");
        assert_eq!(lines[2], "       1.000 0.000000000000          1           1.00");
        assert!(lines.contains(&"       5.003 0.500000000000          5           2.00"), "{text}");
        let last = lines.iter().rposition(|line| !line.starts_with('#')).unwrap();
        assert_eq!(lines[last], "      10.007 1.000000000000         10");
        assert_eq!(
            lines[last + 1..],
            [
                "#[Mean    =        5.502, StdDeviation   =        2.874]",
                "#[Max     =       10.007, Total count    =           10]",
                "#[Buckets =           26, SubBuckets     =         2048]",
            ]
        );
    }

    #[test]
    fn an_error_names_the_file() {
        let path = Path::new("/nonexistent/dir/run.json");
        let error = json(path, &1).unwrap_err().to_string();
        assert!(
            error.starts_with("can't write /nonexistent/dir/run.json: No such file"),
            "{error}"
        );
        assert!(probe(path).is_err());
    }

    /// A folder of one test, gone at its end.
    struct Folder(PathBuf);

    impl Folder {
        fn new(name: &str) -> Folder {
            let path = std::env::temp_dir().join(format!("write-{name}-{}", std::process::id()));
            fs::create_dir_all(&path).unwrap();
            Folder(path)
        }

        fn pipe(&self, name: &str) -> PathBuf {
            let path = self.0.join(name);
            let made = std::process::Command::new("mkfifo").arg(&path).status();
            assert!(made.unwrap().success());
            path
        }

        fn names(&self) -> Vec<String> {
            let entries = fs::read_dir(&self.0).unwrap();
            let mut names: Vec<String> =
                entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
            names.sort();
            names
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn a_probe_changes_nothing() {
        let folder = Folder::new("probe");
        let (old, new, link) = (folder.0.join("old"), folder.0.join("new"), folder.0.join("link"));
        fs::write(&old, "last night's figures").unwrap();
        std::os::unix::fs::symlink("target", &link).unwrap();
        for path in [&old, &new, &link] {
            probe(path).unwrap();
        }
        assert_eq!(fs::read_to_string(&old).unwrap(), "last night's figures");
        assert_eq!(folder.names(), ["link", "old"]);
        // Nobody reads from the pipe.
        probe(&folder.pipe("pipe")).unwrap();
        probe(Path::new("/dev/null")).unwrap();
        assert!(probe(&folder.0).is_err(), "a folder");
    }

    #[test]
    fn a_file_is_replaced_whole_or_not_at_all() {
        use std::os::unix::fs::PermissionsExt;

        let folder = Folder::new("replace");
        let path = folder.0.join("run.json");
        text(&path, "old").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        let full = |out: &mut BufWriter<File>| {
            out.write_all(&[b'x'; 100_000])?;
            Err(io::Error::from(ErrorKind::StorageFull))
        };
        assert!(write_file(&path, full).is_err());
        assert_eq!(fs::metadata(&path).unwrap().len(), 3, "the old one");
        text(&path, "new").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "new");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o640);
        assert_eq!(folder.names(), ["run.json"]);
    }

    #[test]
    fn what_is_no_file_of_its_own_is_written_in_place() {
        use std::io::Read;
        use std::os::unix::fs::FileTypeExt;

        let folder = Folder::new("place");
        let (target, link) = (folder.0.join("target"), folder.0.join("link"));
        std::os::unix::fs::symlink("target", &link).unwrap();
        text(&link, "through the link").unwrap();
        assert_eq!(fs::read_to_string(&target).unwrap(), "through the link");
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        let pipe = folder.pipe("pipe");
        let mut reader = File::options().read(true).write(true).open(&pipe).unwrap();
        text(&pipe, "through the pipe").unwrap();
        assert!(fs::metadata(&pipe).unwrap().file_type().is_fifo());
        let mut read = [0; 16];
        reader.read_exact(&mut read).unwrap();
        assert_eq!(&read, b"through the pipe");
        // By way of a link: a test that fails must not take a device away.
        let full = folder.0.join("full");
        std::os::unix::fs::symlink("/dev/full", &full).unwrap();
        let error = text(&full, "no room").unwrap_err().to_string();
        assert!(error.contains("No space left"), "{error}");
    }

    #[test]
    fn the_uncorrected_distribution_lies_beside_the_corrected() {
        assert_eq!(uncorrected_path(Path::new("a/run.hgrm")), Path::new("a/run.hgrm.uncorrected"));
    }
}
