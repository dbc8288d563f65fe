//! Paths of one test's own.
//!
//! Owns [`OwnPath`]: a name in the folder of temporary files that nobody else uses, and that is gone at the end.

use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

/// A path at which nothing is yet; what is there when this is dropped is removed.
#[derive(Debug)]
pub struct OwnPath(PathBuf);

impl OwnPath {
    /// One that has `name` in it.
    pub fn new(name: &str) -> Self {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("coreloop-{name}-{}-{number}", std::process::id());
        Self(std::env::temp_dir().join(name))
    }
}

impl Deref for OwnPath {
    type Target = Path;

    fn deref(&self) -> &Path {
        &self.0
    }
}

impl AsRef<Path> for OwnPath {
    fn as_ref(&self) -> &Path {
        &self.0
    }
}

impl Drop for OwnPath {
    fn drop(&mut self) {
        // Mostly whoever listened there has removed it.
        let _ = std::fs::remove_file(&self.0);
    }
}
