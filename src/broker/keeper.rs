//! The keeper: looks at what queues keep (see `retention`), and makes checkpoints, from the log and
//! beside the running state.
//!
//! For a checkpoint it never takes a copy of the state that serves. It takes the last checkpoint,
//! applies the synced entries since then to it, as a start would, and writes the result down. So
//! the state lock is never held for it, a checkpoint is never torn, and what a start does is done
//! all the time. The price is the memory of a second state while it works, and applying each entry
//! twice. The same second state then tells compaction which jobs are gone.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use super::Broker;
use super::checkpoint::{Checkpoint, CheckpointError, Covered, Which};
use super::duties::{Duty, Looks};
use super::replay::replay_entry;
use crate::log::{CompactBudget, CompactReport, LogError};
use crate::queue::Machine;
use crate::types::EntryIndex;

/// Between two looks at how far the log has grown.
const LOOK: Duration = Duration::from_secs(1);

/// What compaction does at a time, and for how long it then leaves the disk to others: at most
/// about 80 MB/s, so that syncs are not held up.
const COMPACT_STEP: CompactBudget = CompactBudget { bytes: 8 << 20, jobs: 200_000 };
const COMPACT_PAUSE: Duration = Duration::from_millis(100);

/// How far the checkpoints have come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Kept {
    /// The last entry that the newest checkpoint covers; 0 for none.
    pub index: EntryIndex,
    /// Bytes of the newest checkpoint.
    pub bytes: u64,
    /// Bytes of entries appended or replayed by this process when it was made.
    pub(super) log_bytes: u64,
}

/// Why a checkpoint could not be made. The log goes on without it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KeeperError {
    /// The log can't be synced or read back.
    #[error(transparent)]
    Log(#[from] LogError),
    /// The checkpoint can't be read or written.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
}

/// A checkpoint that has just been made, with its state.
struct Made {
    machine: Machine,
    /// The last entry up to which the log can be done without: should this checkpoint be unreadable
    /// one day, a start takes its twin, or replays from the one before.
    spared: EntryIndex,
}

impl Broker {
    /// Makes a checkpoint of all that was appended so far, unless the newest covers it already.
    ///
    /// # Errors
    /// [`KeeperError`]; what was there before is still there.
    pub fn make_checkpoint(&self) -> Result<Kept, KeeperError> {
        let _one_at_a_time = self.keeping.lock();
        self.next_checkpoint().map(|_| self.kept())
    }

    /// Makes a checkpoint, and drops from the log what the one before shows to be gone.
    ///
    /// # Errors
    /// [`KeeperError`]; what was there before is still there.
    pub fn make_checkpoint_and_compact(&self) -> Result<(Kept, CompactReport), KeeperError> {
        self.checkpoint_and_compact(&AtomicBool::new(false))
    }

    pub(super) fn checkpoint_and_compact(
        &self,
        stop: &AtomicBool,
    ) -> Result<(Kept, CompactReport), KeeperError> {
        let _one_at_a_time = self.keeping.lock();
        let made = self.next_checkpoint()?;
        let report = made.map(|made| self.compact(&made, stop)).transpose()?;
        Ok((self.kept(), report.unwrap_or_default()))
    }

    /// Drops from the log all that is gone by now: seals what is large if asked to, makes a
    /// checkpoint and its twin, and compacts up to there.
    ///
    /// # Errors
    /// [`KeeperError`]; what was there before is still there.
    pub fn sweep(&self, shrink: bool, stop: &AtomicBool) -> Result<CompactReport, KeeperError> {
        let _one_at_a_time = self.keeping.lock();
        if shrink {
            self.log.shrink()?;
        }
        match self.next_twins()? {
            Some(made) => self.compact(&made, stop),
            None => Ok(CompactReport::default()),
        }
    }

    fn compact(&self, made: &Made, stop: &AtomicBool) -> Result<CompactReport, KeeperError> {
        let Made { machine, spared } = made;
        let mut total = CompactReport::default();
        let mut live = |queue, offset| machine.is_live(queue, offset);
        while !total.complete && !stop.load(Ordering::Relaxed) {
            let step = self.log.compact(*spared, &mut live, COMPACT_STEP)?;
            total = sum(&total, &step);
            // Where nobody can enqueue, there are no syncs to be held up.
            if !total.complete && !self.log.is_full() {
                thread::park_timeout(COMPACT_PAUSE);
            }
        }
        if total.bytes_freed > 0 {
            let CompactReport { segments_removed: removed, segments_rewritten: rewritten, .. } =
                total;
            let (freed, written) = (total.bytes_freed, total.bytes_written);
            tracing::info!(removed, rewritten, freed, written, "compacted the log");
        }
        Ok(total)
    }

    fn next_checkpoint(&self) -> Result<Option<Made>, KeeperError> {
        if self.log.sync()? <= self.kept().index {
            return Ok(None);
        }
        let Advanced { machine, before, covered, log_bytes } = self.advanced()?;
        self.write_checkpoint(covered, Which::First, &machine, log_bytes)?;
        // The one before stays, in case that the new one can't be read some day.
        self.checkpoints.remove_others(&[before, (covered.index, Which::First)])?;
        Ok(Some(Made { machine, spared: before.0 }))
    }

    /// As `next_checkpoint`, also if there is nothing new, and with a twin instead of the
    /// checkpoint before. There are never more than three.
    fn next_twins(&self) -> Result<Option<Made>, KeeperError> {
        let Advanced { machine, before, covered, log_bytes } = self.advanced()?;
        let [first, twin] = [Which::First, Which::Twin].map(|which| (covered.index, which));
        if covered.index.0 == 0 {
            return Ok(None);
        }
        self.write_checkpoint(covered, Which::First, &machine, log_bytes)?;
        self.checkpoints.remove_others(&[before, first])?;
        self.write_checkpoint(covered, Which::Twin, &machine, log_bytes)?;
        self.checkpoints.remove_others(&[first, twin])?;
        Ok(Some(Made { machine, spared: covered.index }))
    }

    /// The state of the newest checkpoint, with all that was appended since then.
    fn advanced(&self) -> Result<Advanced, KeeperError> {
        let log_bytes = self.core.lock().log_bytes;
        let through = self.log.sync()?;
        let (mut machine, mut covered, which) = match self.checkpoints.newest(self.log.log_id())? {
            Some(Checkpoint { machine, covered, which, .. }) => (machine, covered, which),
            None => (Machine::new(), Covered::default(), Which::First),
        };
        let before = (covered.index, which);
        if covered.index < through {
            self.log.entries(covered.index, through, &mut |entry| {
                let (index, term, stamp) = (entry.index, entry.term, entry.stamp);
                covered = Covered { index, term, stamp };
                replay_entry(&mut machine, entry).map(drop)
            })?;
        }
        Ok(Advanced { machine, before, covered, log_bytes })
    }

    fn write_checkpoint(
        &self,
        covered: Covered,
        which: Which,
        machine: &Machine,
        log_bytes: u64,
    ) -> Result<(), KeeperError> {
        let write = || self.checkpoints.write(self.log.log_id(), covered, which, machine.records());
        let about = self.kept().bytes;
        let bytes = loop {
            match write() {
                Err(error) if error.is_no_space() && self.log.release_ballast_for(about) => {}
                written => break written?,
            }
        };
        tracing::info!(index = covered.index.0, bytes, ?which, "made a checkpoint");
        *self.kept.lock() = Kept { index: covered.index, bytes, log_bytes };
        Ok(())
    }

    /// How far the checkpoints have come.
    pub fn kept(&self) -> Kept {
        *self.kept.lock()
    }

    pub(super) fn run_keeper(&self, stop: &AtomicBool) {
        let mut looks = Looks::default();
        while !stop.load(Ordering::Relaxed) && self.log.poisoned().is_none() {
            self.retain();
            match self.next_duty(&mut looks) {
                Some(Duty::Checkpoint) => {
                    if let Err(error) = self.checkpoint_and_compact(stop) {
                        tracing::warn!(%error, "no checkpoint or no compaction; it is tried again");
                        looks.failed(self.now_ms());
                    }
                }
                Some(Duty::Sweep { shrink, rest }) => {
                    let begun_ms = self.now_ms();
                    match self.sweep(shrink, stop) {
                        Ok(_) => self.swept(&mut looks, begun_ms, rest),
                        Err(error) => {
                            tracing::warn!(%error, "what is gone stays for now");
                            looks.failed(self.now_ms());
                        }
                    }
                }
                None => {}
            }
            thread::park_timeout(LOOK);
        }
    }
}

/// A state beside the running one.
struct Advanced {
    machine: Machine,
    /// What the checkpoint covers that it began with, and the file that it was read from.
    before: (EntryIndex, Which),
    covered: Covered,
    /// As in [`Kept`].
    log_bytes: u64,
}

/// What two calls of compaction have done together.
fn sum(one: &CompactReport, next: &CompactReport) -> CompactReport {
    CompactReport {
        segments_examined: one.segments_examined + next.segments_examined,
        jobs_examined: one.jobs_examined + next.jobs_examined,
        segments_removed: one.segments_removed + next.segments_removed,
        segments_rewritten: one.segments_rewritten + next.segments_rewritten,
        segments_made: one.segments_made + next.segments_made,
        bytes_read: one.bytes_read + next.bytes_read,
        bytes_written: one.bytes_written + next.bytes_written,
        bytes_freed: one.bytes_freed + next.bytes_freed,
        complete: next.complete,
    }
}
