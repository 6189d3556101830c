//! What can go wrong in the log, in one enum.

use std::error::Error;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::types::{EntryIndex, Term};

/// An error of the log.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LogError {
    /// The file system refused; nothing that was acknowledged is lost by it.
    #[error("{operation} {}: {source}", path.display())]
    Io {
        /// What was tried.
        operation: &'static str,
        /// On which file or directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The disk has no room for another file, or too little for more jobs. Retry after making room.
    #[error("no space for {bytes} bytes in {}: {source}; make room and retry", dir.display())]
    NoSpace {
        /// The log's directory.
        dir: PathBuf,
        /// The size of the file, or of a segment.
        bytes: u32,
        /// What the system said.
        source: io::Error,
    },
    /// Bytes that were durable are not what was written. Restore the file from a copy.
    #[error(
        "{} is damaged at byte {position}: {reason}; restore the file from a backup or a replica",
        file.display()
    )]
    Damaged {
        /// The damaged file.
        file: PathBuf,
        /// The byte at which the first wrong structure begins.
        position: u64,
        /// What is wrong there.
        reason: &'static str,
    },
    /// A segment was written by another version of the format.
    #[error(
        "{} has format version {found}, this program reads {supported}; use the program of that \
         version",
        file.display()
    )]
    Version {
        /// The segment.
        file: PathBuf,
        /// The version in its header.
        found: u32,
        /// The version that this program reads.
        supported: u32,
    },
    /// Another process (or another handle in this one) has the log open.
    #[error("{} is in use by another process; stop it first", dir.display())]
    Locked {
        /// The log's directory.
        dir: PathBuf,
    },
    /// An option lies outside its bounds.
    #[error("segment_bytes is {given}; allowed are multiples of 4096 from {min} to {max}")]
    SegmentBytes {
        /// What was asked for.
        given: u32,
        /// The least that is allowed.
        min: u32,
        /// The most that is allowed.
        max: u32,
    },
    /// The term of a start must be above every term in the log.
    #[error("term {given} is not above {last}, the last term in the log; start with a higher one")]
    TermTooLow {
        /// The term given to `start`.
        given: Term,
        /// The highest term found.
        last: Term,
    },
    /// The entry does not fit into one segment.
    #[error("the entry has {bytes} bytes, a segment holds {max}; send smaller batches")]
    EntryTooLarge {
        /// Bytes of the entry.
        bytes: u64,
        /// The most that an entry may have.
        max: u64,
    },
    /// The parts of the entry contradict each other.
    #[error("the entry is malformed: {reason}")]
    InvalidEntry {
        /// What contradicts what.
        reason: &'static str,
    },
    /// An earlier write or sync failed. The log takes nothing more until it is opened again.
    #[error("the log stopped at its first failed write and must be reopened: {cause}")]
    Poisoned {
        /// The first failure.
        cause: Arc<str>,
    },
    /// Entries that are asked for have gone: a checkpoint stands for them.
    #[error("the entries up to {base} have been compacted away; {asked} is asked for")]
    Purged {
        /// The last entry in front of the log's beginning.
        base: EntryIndex,
        /// The entry after which reading was to begin.
        asked: EntryIndex,
    },
    /// An earlier write, sync or rename of compaction failed. The log itself goes on.
    #[error("compaction stopped at its first failure until the log is reopened: {cause}")]
    CompactionStopped {
        /// The first failure.
        cause: Arc<str>,
    },
    /// There is none where one was to be looked into.
    #[error("there is no log in {}; a start would begin a new, empty one there", dir.display())]
    NoLog {
        /// The directory.
        dir: PathBuf,
    },
    /// The log was closed.
    #[error("the log is closed")]
    Closed,
    /// The job's entry has not been written yet, so it can't be read through the map.
    #[error("the job's entry is still in memory; read it after the write that covers it")]
    NotWritten,
    /// The receiver of replayed entries refused one.
    #[error("replay stopped at entry {index}: {source}")]
    Replay {
        /// The refused entry.
        index: EntryIndex,
        /// Why it was refused.
        source: Box<dyn Error + Send + Sync>,
    },
}

impl LogError {
    pub(super) fn io(operation: &'static str, path: &Path, source: io::Error) -> Self {
        Self::Io { operation, path: path.to_owned(), source }
    }

    /// What to say when a file of `bytes` could not be made.
    pub(super) fn creating(dir: &Path, path: &Path, bytes: u32, source: io::Error) -> Self {
        let full = [io::ErrorKind::StorageFull, io::ErrorKind::QuotaExceeded];
        match full.contains(&source.kind()) {
            true => Self::NoSpace { dir: dir.to_owned(), bytes, source },
            false => Self::io("creating", path, source),
        }
    }

    pub(super) fn damaged(file: &Path, position: u64, reason: &'static str) -> Self {
        Self::Damaged { file: file.to_owned(), position, reason }
    }
}
