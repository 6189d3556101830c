//! The data directory: one server at a time, and how long a sync takes on its disk.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Read, Seek, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, flock};

use crate::types::LogId;

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
    /// It was made with another number of logs.
    #[error(
        "logs is {asked}, but {} was made with {there}, which can't be changed; leave the setting \
         out, or make another directory",
        dir.display()
    )]
    LogCount {
        /// The directory.
        dir: PathBuf,
        /// How many it has.
        there: u16,
        /// How many were asked for.
        asked: u16,
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
        // It is held all the same; others are only not told by whom, as on a full disk.
        if let Err(error) = written {
            let file = lock_path.display();
            tracing::warn!(%file, %error, "the process id could not be written down");
        }
        Ok(Self { path: path.to_owned(), _lock: lock })
    }

    /// Where a log lives.
    pub fn log_dir(&self, log: LogId) -> PathBuf {
        self.path.join(format!("log-{log}"))
    }

    /// How many logs there are to open. A new directory gets as many as are asked for, or 1.
    ///
    /// # Errors
    /// [`DataDirError::LogCount`] if it has another number: queues would be looked for in the
    /// wrong log.
    pub fn log_count(&self, asked: Option<u16>) -> Result<u16, DataDirError> {
        let path = self.path.join("LOGS");
        let io = |source| DataDirError::Io { what: "could not read", path: path.clone(), source };
        let there = match fs::read_to_string(&path) {
            Ok(text) => text.trim().parse().map_err(|_| io(ErrorKind::InvalidData.into()))?,
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(io(error)),
            Err(_) => {
                let count = asked.unwrap_or(1);
                self.write_log_count(count).map_err(io)?;
                count
            }
        };
        match asked {
            Some(asked) if there != asked => {
                Err(DataDirError::LogCount { dir: self.path.clone(), there, asked })
            }
            _ => Ok(there),
        }
    }

    /// Whole or not at all, before any log is made.
    fn write_log_count(&self, count: u16) -> io::Result<()> {
        let new = self.path.join("LOGS.new");
        let mut file = File::create(&new)?;
        writeln!(file, "{count}")?;
        file.sync_all()?;
        fs::rename(&new, self.path.join("LOGS"))?;
        File::open(&self.path)?.sync_all()
    }

    /// Measures the median time of a small write with its sync on this disk. None if that fails,
    /// which it does on a full one.
    pub fn measure_sync(&self) -> Option<Duration> {
        let path = self.path.join("sync-probe");
        let measured = probe(&path);
        drop(fs::remove_file(&path));
        let failed = |error: &io::Error| tracing::warn!(%error, "a sync could not be measured");
        measured.inspect_err(failed).ok()
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
