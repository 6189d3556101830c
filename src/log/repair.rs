//! Repairing a log that refuses to open: cutting it in front of the damage, and saying what that
//! costs. What is cut is moved aside and not deleted.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use crate::types::{EntryIndex, Offset, QueueId};

use super::claim;
use super::error::LogError;
use super::files::Files;
use super::format::SEGMENT_HEADER_BYTES;
use super::frames::{Item, walk_file};
use super::options::LogOptions;
use super::recovery::{Cut, KeptPart, Recovery};
use super::segment::SegmentHeader;

/// What a repair would do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RepairPlan {
    /// The damaged file.
    pub file: PathBuf,
    /// Where in it the log would end.
    pub position: u64,
    /// What is wrong there.
    pub reason: String,
    /// The last entry that would be kept.
    pub last_kept: EntryIndex,
    /// Entries behind it that can still be read, and would be lost all the same: each builds on
    /// those before.
    pub entries_lost: u64,
    /// The jobs in them.
    pub jobs_lost: Vec<LostJobs>,
    /// Checkpoints of a later state, which would be lost too.
    pub checkpoints_lost: Vec<PathBuf>,
    /// Whether a checkpoint is left, or none is needed. Without one the log can't be opened.
    pub state_is_left: bool,
    /// The files that would be moved aside.
    pub moved: Vec<PathBuf>,
    /// The file that would be replaced by its part in front of the damage.
    pub trimmed: Option<PathBuf>,
}

/// Jobs of one queue that a repair would lose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LostJobs {
    /// The queue.
    pub queue: QueueId,
    /// The lowest offset.
    pub first: Offset,
    /// The highest offset.
    pub last: Offset,
    /// How many can still be read.
    pub count: u64,
}

/// What would have to be done so that the log in `dir` can be opened. None if it can be. Changes
/// nothing.
///
/// # Errors
/// `NoLog`, `Locked`, `Io`, `Version`; `Damaged` if cutting the log can't help, as where the
/// manifest or a file that it names is damaged: restore that from a backup.
pub fn repair_plan(dir: &Path) -> Result<Option<RepairPlan>, LogError> {
    let mut recovery = Recovery::look(dir, LogOptions::default())?;
    let base = recovery.base();
    let Some(cut) = recovery.cut()? else {
        // What else refuses a start can't be cut off.
        return recovery.replay(recovery.beginning(), &mut |_| Ok(())).map(|_| None);
    };
    plan(dir, base, &cut).map(Some)
}

/// Repairs the log in `dir` as `plan` says. Returns the directory to which the files were moved.
///
/// # Errors
/// `Io`, and those of [`repair_plan`]; `InvalidEntry` if the log is not as it was for the plan. It
/// can be tried again.
pub fn repair(dir: &Path, plan: &RepairPlan) -> Result<PathBuf, LogError> {
    let options = LogOptions::default();
    let files = &*options.files;
    let mut recovery = Recovery::look(dir, options.clone())?;
    let base = recovery.base();
    let cut = recovery.cut()?;
    let cut = cut.filter(|cut| self::plan(dir, base, cut).is_ok_and(|again| again == *plan));
    let Some(cut) = cut else {
        return Err(LogError::InvalidEntry { reason: "the log has changed since the plan" });
    };
    let names = files.list(dir).map_err(|error| LogError::io("listing", dir, error))?;
    let aside = (1..).map(|number| format!("damaged-{number}"));
    let aside = aside.filter(|name| !names.contains(name)).map(|name| dir.join(name)).next();
    let aside = aside.unwrap_or_default();
    files.create_dir(&aside).map_err(|error| LogError::io("creating", &aside, error))?;
    // The newest first: whatever is left after an interruption can be repaired again.
    for path in plan.moved.iter().rev() {
        let to = aside.join(path.file_name().unwrap_or_default());
        match files.rename(path, &to) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(LogError::io("moving", path, error));
            }
            _ => {}
        }
    }
    if let Some(kept) = &cut.kept {
        trim(files, dir, &aside, kept, cut.last_kept)?;
    }
    for dir in [aside.as_path(), dir] {
        files.sync_dir(dir).map_err(|error| LogError::io("syncing", dir, error))?;
    }
    Ok(aside)
}

/// Replaces a segment by its part up to the cut, in which nothing says that more was synced.
fn trim(
    files: &dyn Files,
    dir: &Path,
    aside: &Path,
    kept: &KeptPart<'_>,
    last_kept: EntryIndex,
) -> Result<(), LogError> {
    let KeptPart { header, segment, end } = kept;
    let new = dir.join("segment.repaired");
    let io = |operation, error| LogError::io(operation, &new, error);
    let _ = files.remove(&new);
    let file = files.create(&new, header.size).map_err(|error| io("creating", error))?;
    let header = SegmentHeader { durable: header.durable.min(last_kept), ..*header };
    let frames = segment.map.get(SEGMENT_HEADER_BYTES, *end as usize).unwrap_or_default();
    file.write_all_at(&header.encode(), 0)
        .and_then(|()| file.write_all_at(frames, SEGMENT_HEADER_BYTES as u64))
        .and_then(|()| file.sync_data())
        .map_err(|error| io("writing", error))?;
    let to = aside.join(segment.path.file_name().unwrap_or_default());
    files.rename(&segment.path, &to).map_err(|error| LogError::io("moving", &to, error))?;
    files.rename(&new, &segment.path).map_err(|error| io("renaming", error))
}

fn plan(dir: &Path, base: EntryIndex, cut: &Cut<'_>) -> Result<RepairPlan, LogError> {
    let (mut entries_lost, mut jobs_lost) = (0, Vec::<LostJobs>::new());
    let mut note = |_: &Path, item: Item<'_>| {
        if let Item::Entry { view, .. } = item {
            entries_lost += 1;
            if view.count > 0 {
                lose(&mut jobs_lost, view.queue, view.base_offset, view.count);
            }
        }
        Ok(())
    };
    if let Some(kept) = &cut.kept {
        walk_file(kept.segment, kept.end, None, &mut note)?;
    }
    for segment in &cut.gone {
        walk_file(segment, SEGMENT_HEADER_BYTES as u32, None, &mut note)?;
    }
    for frames in &cut.beyond {
        frames.walk(SEGMENT_HEADER_BYTES as u32, None, &mut note)?;
    }
    jobs_lost.sort_by_key(|lost| lost.queue);
    let names = std::fs::read_dir(dir).map_err(|error| LogError::io("listing", dir, error))?;
    let mut checkpoints: Vec<_> = names.flatten().map(|item| item.path()).collect();
    checkpoints.retain(|path| checkpoint_index(path).is_some());
    checkpoints.sort();
    let later = |path: &PathBuf| checkpoint_index(path) > Some(cut.last_kept.0);
    let (checkpoints_lost, left): (Vec<_>, Vec<_>) = checkpoints.into_iter().partition(later);
    let state_is_left =
        base.0 == 0 || left.iter().any(|path| checkpoint_index(path) >= Some(base.0));
    let gone = cut.gone.iter().map(|segment| segment.path.clone());
    let mut moved: Vec<_> =
        gone.chain(cut.beyond.iter().map(|frames| frames.path.to_owned())).collect();
    moved.sort();
    moved.extend(checkpoints_lost.iter().cloned());
    Ok(RepairPlan {
        file: cut.file.clone(),
        position: cut.position,
        reason: cut.reason.clone(),
        last_kept: cut.last_kept,
        entries_lost,
        jobs_lost,
        checkpoints_lost,
        state_is_left,
        moved,
        trimmed: cut.kept.as_ref().map(|kept| kept.segment.path.clone()),
    })
}

fn lose(lost: &mut Vec<LostJobs>, queue: QueueId, base: Offset, count: u32) {
    let end = base.plus(u64::from(count) - 1);
    match lost.iter_mut().find(|lost| lost.queue == queue) {
        Some(lost) => {
            lost.first = lost.first.min(base);
            lost.last = lost.last.max(end);
            lost.count += u64::from(count);
        }
        None => lost.push(LostJobs { queue, first: base, last: end, count: count.into() }),
    }
}

/// The index in the name of a checkpoint.
fn checkpoint_index(path: &Path) -> Option<u64> {
    claim::checkpoint_in(path.file_name()?.to_str()?).map(|index| index.0)
}

impl fmt::Display for RepairPlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { file, position, reason, last_kept, entries_lost, .. } = self;
        writeln!(f, "{} is damaged at byte {position}: {reason}", file.display())?;
        writeln!(f, "The log would end with entry {last_kept}.")?;
        writeln!(
            f,
            "Lost would be what is damaged, and {entries_lost} readable entries behind it."
        )?;
        for LostJobs { queue, first, last, count } in &self.jobs_lost {
            writeln!(f, "  queue {queue}: {count} jobs with offsets from {first} to {last}")?;
        }
        writeln!(f, "Also what these entries say of older jobs: they may come again.")?;
        for path in &self.checkpoints_lost {
            writeln!(f, "A checkpoint of a later state would be moved aside: {}", path.display())?;
        }
        if !self.state_is_left {
            writeln!(f, "No checkpoint would be left: the log could not be opened even then.")?;
        }
        for path in &self.moved {
            writeln!(f, "To be moved aside: {}", path.display())?;
        }
        match &self.trimmed {
            Some(path) => writeln!(f, "To be replaced by its sound part: {}", path.display()),
            None => Ok(()),
        }
    }
}
