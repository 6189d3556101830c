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
use super::checkpoint::{CheckpointError, Covered};
use super::replay::replay_entry;
use crate::log::{CompactBudget, CompactReport, LogError};
use crate::queue::Machine;
use crate::types::EntryIndex;

/// Between two looks at how far the log has grown.
const LOOK: Duration = Duration::from_secs(1);

/// Looks that are left out after a checkpoint that failed.
const LOOKS_AFTER_FAILURE: u32 = 60;

/// A checkpoint is due when the log since the last one has this many times its size.
const LOG_PER_CHECKPOINT: u64 = 4;

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
    /// The last entry that the checkpoint before it covers.
    before: EntryIndex,
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

    /// Makes a checkpoint, and drops from the log what it shows to be gone.
    ///
    /// # Errors
    /// [`KeeperError`]; what was there before is still there.
    pub fn make_checkpoint_and_compact(&self) -> Result<(Kept, CompactReport), KeeperError> {
        self.checkpoint_and_compact(&AtomicBool::new(false))
    }

    fn checkpoint_and_compact(
        &self,
        stop: &AtomicBool,
    ) -> Result<(Kept, CompactReport), KeeperError> {
        let _one_at_a_time = self.keeping.lock();
        let mut total = CompactReport::default();
        if let Some(Made { machine, before }) = self.next_checkpoint()? {
            // Should the new checkpoint be unreadable one day, a start replays from the one before.
            let mut live = |queue, offset| machine.is_live(queue, offset);
            while !total.complete && !stop.load(Ordering::Relaxed) {
                let step = self.log.compact(before, &mut live, COMPACT_STEP)?;
                total = sum(&total, &step);
                if !total.complete {
                    thread::park_timeout(COMPACT_PAUSE);
                }
            }
        }
        if total.bytes_freed > 0 {
            let CompactReport { segments_removed: removed, segments_rewritten: rewritten, .. } =
                total;
            let (freed, written) = (total.bytes_freed, total.bytes_written);
            tracing::info!(removed, rewritten, freed, written, "compacted the log");
        }
        Ok((self.kept(), total))
    }

    fn next_checkpoint(&self) -> Result<Option<Made>, KeeperError> {
        let kept = self.kept();
        let log_bytes = self.core.lock().log_bytes;
        let through = self.log.sync()?;
        if through <= kept.index {
            return Ok(None);
        }
        let log_id = self.log.log_id();
        let base = self.checkpoints.newest(log_id)?;
        let mut covered = base.as_ref().map(|base| base.covered);
        let before = covered.map_or(EntryIndex(0), |covered| covered.index);
        let mut machine = base.map_or_else(Machine::new, |base| base.machine);
        self.log.entries(before, through, &mut |entry| {
            let (index, term, stamp) = (entry.index, entry.term, entry.stamp);
            covered = Some(Covered { index, term, stamp });
            replay_entry(&mut machine, entry).map(drop)
        })?;
        let Some(covered) = covered else {
            return Ok(None);
        };
        let bytes = self.checkpoints.write(log_id, covered, machine.records())?;
        // The one before stays, in case that the new one can't be read some day.
        self.checkpoints.remove_others(&[before, covered.index])?;
        tracing::info!(index = covered.index.0, bytes, "made a checkpoint");
        *self.kept.lock() = Kept { index: covered.index, bytes, log_bytes };
        Ok(Some(Made { machine, before }))
    }

    /// How far the checkpoints have come.
    pub fn kept(&self) -> Kept {
        *self.kept.lock()
    }

    pub(super) fn run_keeper(&self, stop: &AtomicBool) {
        let mut looks_left_out = 0;
        while !stop.load(Ordering::Relaxed) && self.log.poisoned().is_none() {
            thread::park_timeout(LOOK);
            self.retain();
            if looks_left_out > 0 {
                looks_left_out -= 1;
            } else if self.checkpoint_is_due()
                && let Err(error) = self.checkpoint_and_compact(stop)
            {
                tracing::warn!(%error, "no checkpoint or no compaction; it is tried again");
                looks_left_out = LOOKS_AFTER_FAILURE;
            }
        }
    }

    fn checkpoint_is_due(&self) -> bool {
        let Kept { bytes, log_bytes, .. } = self.kept();
        let grown = self.core.lock().log_bytes - log_bytes;
        grown >= self.options.checkpoint_bytes.max(LOG_PER_CHECKPOINT * bytes)
    }
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
