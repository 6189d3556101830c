//! Looking into the files of a log that nobody has open: all that is in them, and what is wrong.

use std::io;
use std::path::{Path, PathBuf};

use crate::types::{EntryIndex, Offset, QueueId};

use super::error::LogError;
use super::format::*;
use super::frames::{Item, walk_file};
use super::options::LogOptions;
use super::recovery::Recovery;
use super::replay::TornTail;
use super::segment::FileKind;

/// What a check of all files has found.
#[derive(Debug, Default)]
pub struct Verified {
    /// Files with entries.
    pub files: usize,
    /// Entries in them.
    pub entries: u64,
    /// Jobs in them.
    pub jobs: u64,
    /// Bytes up to the ends of their last frames.
    pub bytes: u64,
    /// Index of the last entry.
    pub last_index: EntryIndex,
    /// What a start would cut as never synced.
    pub torn: Option<TornTail>,
    /// Jobs whose bodies are not what was written. A start serves the others.
    pub damaged_jobs: Vec<DamagedBody>,
    /// Places where no frame is, though one should be.
    pub damage: Vec<Damage>,
    /// Why a start would refuse the log.
    pub refusal: Option<LogError>,
}

/// A job whose body the disk has changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DamagedBody {
    /// Its queue.
    pub queue: QueueId,
    /// Its offset.
    pub offset: Offset,
    /// The file that it is in.
    pub file: PathBuf,
    /// Where the frame of its entry begins.
    pub position: u64,
}

/// A place where no frame is, though one should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    /// The file.
    pub file: PathBuf,
    /// Where it begins.
    pub position: u64,
    /// Where the next frame begins, or the file ends.
    pub end: u64,
    /// What is wrong.
    pub reason: &'static str,
}

/// Hands everything that counts in the files of the log in `dir` to `each`, file by file. Changes
/// nothing.
///
/// # Errors
/// As [`Recovery::open`]; what `each` returns.
pub fn dump(
    dir: &Path,
    each: &mut dyn FnMut(&Path, Item<'_>) -> io::Result<()>,
) -> Result<(), LogError> {
    walk(&Recovery::look(dir, LogOptions::default())?, each)
}

/// Checks every byte of the log in `dir` that counts. Changes nothing.
///
/// # Errors
/// `Locked` or `Io`; damage is no error here but what is reported.
pub fn verify(dir: &Path) -> Result<Verified, LogError> {
    let mut found = Verified::default();
    let mut recovery = match Recovery::look(dir, LogOptions::default()) {
        Ok(recovery) => recovery,
        Err(error @ (LogError::Damaged { .. } | LogError::Version { .. })) => {
            found.refusal = Some(error);
            return Ok(found);
        }
        Err(error) => return Err(error),
    };
    walk(&recovery, &mut |file, item| {
        found.note(file, item);
        Ok(())
    })?;
    match recovery.replay(recovery.beginning(), &mut |_| Ok(())) {
        Ok(recovered) => {
            found.last_index = recovered.last_index;
            if let Some(torn) = &recovered.torn {
                // That is no damage: nobody was promised that it is there.
                found.damage.retain(|damage| damage.file != torn.file);
            }
            found.torn = recovered.torn;
        }
        Err(error) => found.refusal = Some(error),
    }
    Ok(found)
}

impl Verified {
    /// Whether nothing is wrong.
    pub fn is_whole(&self) -> bool {
        self.refusal.is_none() && self.damage.is_empty() && self.damaged_jobs.is_empty()
    }

    fn note(&mut self, file: &Path, item: Item<'_>) {
        match item {
            Item::File { .. } => self.files += 1,
            Item::Entry { position, view, bodies_are_whole, .. } => {
                self.entries += 1;
                self.jobs += u64::from(view.count);
                self.bytes += frame_bytes(view.encoded_bytes() as usize) as u64;
                self.last_index = view.index;
                // A wrong sum of a producer in an entry that is whole is no damage.
                let damaged = view.jobs().filter(|job| !bodies_are_whole && !job.verify());
                self.damaged_jobs.extend(damaged.map(|job| DamagedBody {
                    queue: view.queue,
                    offset: job.offset,
                    file: file.to_owned(),
                    position,
                }));
            }
            Item::Mark { .. } => self.bytes += FRAME_HEADER_BYTES as u64,
            Item::NoFrame { position, end, reason } => {
                self.damage.push(Damage { file: file.to_owned(), position, end, reason });
            }
        }
    }
}

/// Walks over all files of an opened log.
fn walk(
    recovery: &Recovery,
    each: &mut dyn FnMut(&Path, Item<'_>) -> io::Result<()>,
) -> Result<(), LogError> {
    recovery.files(|header, segment, end| {
        let item = Item::File {
            compacted: header.kind == FileKind::Jobs,
            term: header.term,
            first_index: header.first_index,
            durable: header.durable,
        };
        each(&segment.path, item).map_err(|error| LogError::io("reading", &segment.path, error))?;
        walk_file(segment, SEGMENT_HEADER_BYTES as u32, end, each)
    })
}
