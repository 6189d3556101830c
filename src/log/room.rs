//! Room on the disk: below a watermark jobs are refused, so that what drains the log (grants,
//! commits, checkpoints, compaction) can go on from the rest; and behind that there is a ballast.
//!
//! The ballast lies in a few files, which are given back to the disk one by one. The last is for a
//! start alone, so that a full disk that nobody can drain while the server is down can be drained
//! when it is back.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;

use super::error::LogError;
use super::files::{Files, Space};
use super::format::SEGMENT_HEADER_BYTES;
use super::options::LogOptions;

/// How many files the ballast has.
pub(super) const BALLAST_FILES: u32 = 4;

/// Bytes of each: twice what a start takes, or a segment if that is less.
const BALLAST_FILE_BYTES: u32 = 2 << 20;

/// A start begins with a segment of this size.
const SEGMENT_BYTES_FIRST: u32 = 1 << 20;

/// What is known of the room on the disk.
#[derive(Debug)]
pub(super) struct Room {
    dir: PathBuf,
    options: LogOptions,
    /// At the last look less was free than is to be kept.
    full: AtomicBool,
    /// Files of the ballast that are there.
    ballast: Mutex<u32>,
}

impl LogOptions {
    /// The size of the first segment of a start; the next one has twice as much, and so on.
    pub(super) fn segment_bytes_first(&self) -> u32 {
        self.segment_bytes.min(SEGMENT_BYTES_FIRST)
    }

    fn ballast_file_bytes(&self) -> u32 {
        self.segment_bytes.min(BALLAST_FILE_BYTES)
    }
}

/// The name of a file of the ballast, counted from 1.
fn ballast_name(number: u32) -> String {
    format!("ballast.{number}")
}

/// How many files of the ballast there are in `dir`, each whole, and what else has such a name.
pub(super) fn ballast_in(
    options: &LogOptions,
    dir: &Path,
    names: &[String],
) -> (u32, Vec<PathBuf>) {
    let is_whole = |number: &u32| {
        let file = options.files.open(&dir.join(ballast_name(*number)));
        let bytes = file.and_then(|file| file.metadata()).map(|file| file.len());
        bytes.is_ok_and(|bytes| bytes == u64::from(options.ballast_file_bytes()))
    };
    let whole = (1..=BALLAST_FILES).take_while(is_whole).count() as u32;
    let used: Vec<_> = (1..=whole).map(ballast_name).collect();
    let others = names.iter().filter(|name| name.starts_with("ballast") && !used.contains(name));
    (whole, others.map(|name| dir.join(name)).collect())
}

/// Removes the file of the ballast with this number.
pub(super) fn remove_ballast(files: &dyn Files, dir: &Path, number: u32) -> io::Result<()> {
    match files.remove(&dir.join(ballast_name(number))) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other.and_then(|()| files.sync_dir(dir)),
    }
}

impl Room {
    /// The room for the log in `dir`, with so many files of ballast.
    pub(super) fn new(dir: &Path, options: &LogOptions, ballast: u32) -> Self {
        let (full, ballast) = (AtomicBool::new(false), Mutex::new(ballast));
        Self { dir: dir.to_owned(), options: options.clone(), full, ballast }
    }

    /// Refuses if jobs are not to be taken for want of room. Looks again before it does.
    #[inline]
    pub(super) fn accepts_jobs(&self) -> Result<(), LogError> {
        match self.is_full() {
            true => self.look(),
            false => Ok(()),
        }
    }

    /// Whether at the last look less was free than is to be kept.
    pub(super) fn is_full(&self) -> bool {
        self.full.load(Ordering::Relaxed)
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

    /// The size for a segment of `wanted` bytes: no more than leaves as much free as is to be kept,
    /// and no more than that is, as its rewriting needs room too; but at least `least`.
    pub(super) fn segment_bytes_within(&self, wanted: u32, least: u32) -> u32 {
        let Ok(space) = self.options.files.space(&self.dir) else { return wanted };
        let min = self.options.free_bytes_min_of(&space);
        let page = SEGMENT_HEADER_BYTES as u64;
        let most = min.min(space.free_bytes.saturating_sub(min)) / page * page;
        u64::from(wanted).min(most).max(u64::from(least)) as u32
    }

    /// Gives a part of the ballast back to the disk, for a file of `bytes`. False if that is of no
    /// use, or if there is none but that of a start.
    pub(super) fn release_ballast_for(&self, bytes: u64) -> bool {
        let mut ballast = self.ballast.lock();
        let number = *ballast;
        if number <= 1 {
            return false;
        }
        let spared = u64::from(number - 1) * u64::from(self.options.ballast_file_bytes());
        let enough = |space: Space| space.free_bytes + spared >= bytes;
        if !self.options.files.space(&self.dir).is_ok_and(enough) {
            return false;
        }
        *ballast -= 1;
        self.full.store(true, Ordering::Relaxed);
        let removed = remove_ballast(&*self.options.files, &self.dir, number);
        let dir = self.dir.display();
        match &removed {
            Ok(()) => tracing::warn!(%dir, number, "released some ballast: the disk is full"),
            Err(error) => tracing::error!(%dir, %error, "the ballast can't be released"),
        }
        removed.is_ok()
    }

    /// Whether some of the ballast is missing. It does not wait for who is making some.
    pub(super) fn misses_ballast(&self) -> bool {
        self.ballast.try_lock().is_some_and(|there| *there < BALLAST_FILES)
    }

    /// Makes what is missing of the ballast. It may take from what is kept free, as it is released
    /// again for what that is for; but it leaves as much as one of its files. The file for a start
    /// needs nothing but its own room. It is tried again with the next segment.
    pub(super) fn make_ballast(&self) {
        let (files, bytes) = (&*self.options.files, self.options.ballast_file_bytes());
        let enough = |space: Space| space.free_bytes >= 2 * u64::from(bytes);
        let mut ballast = self.ballast.lock();
        while *ballast < BALLAST_FILES {
            if *ballast > 0 && !files.space(&self.dir).is_ok_and(enough) {
                return;
            }
            let path = self.dir.join(ballast_name(*ballast + 1));
            // It need not be synced: its room is taken, and a start looks whether it is whole.
            if let Err(error) = files.create(&path, bytes) {
                let dir = self.dir.display();
                tracing::warn!(%dir, there = *ballast, %error, "no more ballast can be made");
                let _ = files.remove(&path);
                return;
            }
            *ballast += 1;
        }
    }
}
