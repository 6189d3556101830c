//! The data directory: one server at a time, and how long a sync takes on its disk.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, flock};

/// Syncs measured at start.
const PROBES: usize = 9;

/// Bytes written before each of them.
const PROBE_BYTES: usize = 512;

/// Why a data directory can't be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DataDirError {
    /// Another server has it.
    #[error(
        "{} is in use by another joblogd (process {holder}); stop it, or give another --data",
        dir.display()
    )]
    InUse {
        /// The directory.
        dir: PathBuf,
        /// Its process id, as the lock file says.
        holder: String,
    },
    /// The system refuses.
    #[error("{what} {}: {source}", path.display())]
    Io {
        /// What was tried.
        what: &'static str,
        /// On which path.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
}

/// A data directory that this process has for itself until it is dropped.
#[derive(Debug)]
pub struct DataDir {
    path: PathBuf,
    _lock: File,
}

impl DataDir {
    /// Makes the directory if it is missing, and locks it.
    ///
    /// # Errors
    /// [`DataDirError::InUse`] with the holder's process id; [`DataDirError::Io`].
    pub fn open(path: &Path) -> Result<Self, DataDirError> {
        let io = |what, path: &Path| {
            let path = path.to_owned();
            move |source| DataDirError::Io { what, path, source }
        };
        fs::create_dir_all(path).map_err(io("could not make", path))?;
        let lock_path = path.join("LOCK");
        let mut lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .open(&lock_path)
            .map_err(io("could not open", &lock_path))?;
        if flock(&lock, FlockOperation::NonBlockingLockExclusive).is_err() {
            let mut holder = String::new();
            drop(lock.read_to_string(&mut holder));
            let holder = holder.trim().to_owned();
            return Err(DataDirError::InUse { dir: path.to_owned(), holder });
        }
        let written = lock
            .set_len(0)
            .and_then(|()| lock.rewind())
            .and_then(|()| writeln!(lock, "{}", std::process::id()));
        written.map_err(io("could not write", &lock_path))?;
        Ok(Self { path: path.to_owned(), _lock: lock })
    }

    /// Where the log of this number lives.
    pub fn log_dir(&self, log: u32) -> PathBuf {
        self.path.join(format!("log-{log}"))
    }

    /// Measures the median time of a small write with its sync on this disk.
    ///
    /// # Errors
    /// [`DataDirError::Io`].
    pub fn measure_sync(&self) -> Result<Duration, DataDirError> {
        let path = self.path.join("sync-probe");
        let measured = probe(&path);
        drop(fs::remove_file(&path));
        measured.map_err(|source| DataDirError::Io { what: "could not write", path, source })
    }
}

fn probe(path: &Path) -> std::io::Result<Duration> {
    let file = OpenOptions::new().create(true).truncate(true).write(true).open(path)?;
    file.write_all_at(&vec![1; PROBES * PROBE_BYTES], 0)?;
    file.sync_all()?;
    let mut times = Vec::new();
    for nth in 0..PROBES {
        let begun = Instant::now();
        file.write_all_at(&[2; PROBE_BYTES], (nth * PROBE_BYTES) as u64)?;
        file.sync_data()?;
        times.push(begun.elapsed());
    }
    times.sort_unstable();
    Ok(times.get(PROBES / 2).copied().unwrap_or_default())
}
