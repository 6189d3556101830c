//! Room on the disk: below a watermark jobs are refused, so that what drains the log (grants,
//! commits, checkpoints, compaction) can go on from the rest; and behind that there is a ballast.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use super::error::LogError;
use super::files::{Files, Space};
use super::options::LogOptions;

/// The name of the ballast: a file that is removed when there is no room for a segment.
pub(super) const BALLAST: &str = "ballast";

/// What is known of the room on the disk.
#[derive(Debug)]
pub(super) struct Room {
    dir: PathBuf,
    options: LogOptions,
    /// At the last look less was free than is to be kept.
    full: AtomicBool,
    ballast: AtomicBool,
}

/// Removes the ballast in `dir`. Whether it was there.
pub(super) fn remove_ballast(files: &dyn Files, dir: &Path) -> io::Result<bool> {
    match files.remove(&dir.join(BALLAST)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        other => other.and_then(|()| files.sync_dir(dir)).map(|()| true),
    }
}

impl Room {
    /// The room for the log in `dir`; `ballast` says whether there is one.
    pub(super) fn new(dir: &Path, options: &LogOptions, ballast: bool) -> Self {
        let (full, ballast) = (AtomicBool::new(false), AtomicBool::new(ballast));
        Self { dir: dir.to_owned(), options: options.clone(), full, ballast }
    }

    /// Refuses if jobs are not to be taken for want of room. Looks again before it does.
    #[inline]
    pub(super) fn accepts_jobs(&self) -> Result<(), LogError> {
        match self.full.load(Ordering::Relaxed) {
            true => self.look(),
            false => Ok(()),
        }
    }

    /// Asks the file system how much is free, and remembers whether that is enough.
    pub(super) fn look(&self) -> Result<(), LogError> {
        let Ok(space) = self.options.files.space(&self.dir) else {
            // A file system that does not say is not full.
            return Ok(());
        };
        let min = self.options.free_bytes_min_of(&space);
        let full = space.free_bytes < min;
        if self.full.swap(full, Ordering::Relaxed) != full {
            let (free_bytes, dir) = (space.free_bytes, self.dir.display());
            match full {
                true => tracing::warn!(%dir, free_bytes, min, "no jobs are taken: disk full"),
                false => tracing::info!(%dir, free_bytes, min, "jobs are taken again"),
            }
        }
        match full {
            true => Err(LogError::NoSpace {
                dir: self.dir.clone(),
                bytes: self.options.segment_bytes,
                source: io::Error::new(
                    io::ErrorKind::StorageFull,
                    format!("{} bytes are free, {min} are kept back", space.free_bytes),
                ),
            }),
            false => Ok(()),
        }
    }

    /// Gives the ballast back to the disk. False if there is none.
    pub(super) fn release_ballast(&self) -> bool {
        if !self.ballast.swap(false, Ordering::Relaxed) {
            return false;
        }
        self.full.store(true, Ordering::Relaxed);
        let removed = remove_ballast(&*self.options.files, &self.dir);
        let dir = self.dir.display();
        match &removed {
            Ok(_) => tracing::warn!(%dir, "released the ballast: the disk is full"),
            Err(error) => tracing::error!(%dir, %error, "the ballast can't be released"),
        }
        removed.unwrap_or(false)
    }

    /// Whether a ballast is missing that there is room for.
    pub(super) fn wants_ballast(&self) -> bool {
        !self.ballast.load(Ordering::Relaxed) && !self.full.load(Ordering::Relaxed)
    }

    /// Makes a ballast if that leaves enough room. It is tried again with the next segment.
    pub(super) fn make_ballast(&self) {
        let (files, bytes) = (&*self.options.files, self.options.segment_bytes);
        let enough = |space: Space| {
            let min = self.options.free_bytes_min_of(&space);
            space.free_bytes >= min.saturating_add(u64::from(bytes))
        };
        if !files.space(&self.dir).is_ok_and(enough) {
            return;
        }
        let path = self.dir.join(BALLAST);
        match files.create(&path, bytes, &|| false) {
            Ok(_) => self.ballast.store(true, Ordering::Relaxed),
            Err(error) => {
                let dir = self.dir.display();
                tracing::warn!(%dir, %error, "there is no ballast");
                let _ = files.remove(&path);
            }
        }
    }
}
