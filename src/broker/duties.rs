//! What the keeper has to do next, and when: a checkpoint, so that a start replays little, or a
//! sweep, so that the disk holds little that is dead.
//!
//! How much is dead is an estimate, from the number of live jobs and the sizes of those around
//! them, and wrong where sizes differ much. So it only says when a sweep pays while the log is
//! busy. What a sweep was not able to drop is not tried again before as much more has died; and
//! when the log falls idle, there is one whatever the estimate is.

use super::Broker;
use crate::types::{EntryIndex, QueueId};

/// A checkpoint is due when the log since the last one has this many times its size.
const LOG_PER_CHECKPOINT: u64 = 4;

/// So much may be dead beside as much as is live.
const DEAD_BYTES_MAX: u64 = 8 << 20;

/// The same on a full disk.
const DEAD_BYTES_MAX_FULL: u64 = 1 << 20;

/// An idle log that takes no more has nothing to give back.
const IDLE_BYTES: u64 = 4 << 20;

/// Looks without an append after which a log counts as idle.
const IDLE_LOOKS: u32 = 2;

/// What is done to the log after a failure waits for so long.
const REST_AFTER_FAILURE_MS: u64 = 10_000;

/// What a job takes in the log beside its body, if it is alone in its entry.
const JOB_OVERHEAD_BYTES: u64 = 124;

/// Queues that are looked at under one lock.
const QUEUES_AT_ONCE: u32 = 1_000;

/// What the keeper is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Duty {
    /// The log has grown enough for another checkpoint.
    Checkpoint,
    /// Enough may be dead.
    Sweep {
        /// Whether the segment that grows ends before, so that what is dead in it can go too.
        shrink: bool,
        /// So many times as long as it takes, there is no other one.
        rest: u64,
    },
}

/// What the keeper remembers between its looks.
#[derive(Debug, Default)]
pub(super) struct Looks {
    /// The last entry at the last look.
    appended: EntryIndex,
    /// Looks since then that have found it again.
    quiet: u32,
    /// The last entry at the last sweep.
    swept: EntryIndex,
    /// What seemed to be dead after it.
    left_bytes: u64,
    /// No sweep before this time, and after a failure nothing.
    sweep_from_ms: u64,
    work_from_ms: u64,
    /// No estimate before this time.
    estimate_from_ms: u64,
}

impl Looks {
    /// Notes that something failed.
    pub(super) fn failed(&mut self, now_ms: u64) {
        self.work_from_ms = now_ms + REST_AFTER_FAILURE_MS;
    }

    /// Notes a look. Whether the log is idle.
    fn look(&mut self, appended: EntryIndex) -> bool {
        self.quiet = if appended == self.appended { self.quiet + 1 } else { 0 };
        self.appended = appended;
        self.quiet >= IDLE_LOOKS
    }
}

impl Broker {
    /// What is to be done now.
    pub(super) fn next_duty(&self, looks: &mut Looks) -> Option<Duty> {
        let full = self.log.tend_room();
        let (appended, log_bytes) = {
            let core = self.core.lock();
            (core.last_index, core.log_bytes)
        };
        let idle = looks.look(appended);
        let now_ms = self.now_ms();
        if now_ms < looks.work_from_ms {
            return None;
        }
        if appended > looks.swept
            && now_ms >= looks.sweep_from_ms
            && let Some(sweep) = self.sweep_is_due(looks, idle, full, now_ms)
        {
            return Some(sweep);
        }
        let kept = self.kept();
        let grown = log_bytes - kept.log_bytes;
        let due = grown >= self.options.checkpoint_bytes.max(LOG_PER_CHECKPOINT * kept.bytes);
        due.then_some(Duty::Checkpoint)
    }

    fn sweep_is_due(&self, looks: &mut Looks, idle: bool, full: bool, now_ms: u64) -> Option<Duty> {
        let files = self.log.file_bytes();
        let all = files.sealed + files.ahead;
        if idle && all > IDLE_BYTES {
            return Some(Duty::Sweep { shrink: true, rest: 50 });
        }
        let (bytes, most, rest) = match full {
            true => (all, DEAD_BYTES_MAX_FULL, 3),
            false => (files.sealed, DEAD_BYTES_MAX, 10),
        };
        if bytes <= most + looks.left_bytes || now_ms < looks.estimate_from_ms {
            return None;
        }
        let live = self.live_bytes_in_all();
        // Looking at a hundred thousand queues is not for free either.
        let took_ms = self.now_ms() - now_ms;
        looks.estimate_from_ms = now_ms + 100 * took_ms;
        let dead = bytes.saturating_sub(live + looks.left_bytes);
        let due = dead > if full { most } else { most + live };
        due.then_some(Duty::Sweep { shrink: full, rest })
    }

    /// Notes that a sweep that began then is over.
    pub(super) fn swept(&self, looks: &mut Looks, begun_ms: u64, rest: u64) {
        let now_ms = self.now_ms();
        looks.swept = self.kept().index;
        looks.sweep_from_ms = now_ms + rest * (now_ms - begun_ms);
        let files = self.log.file_bytes();
        looks.left_bytes = files.sealed.saturating_sub(self.live_bytes_in_all());
    }

    /// About the bytes that are needed: those of live jobs, and two checkpoints.
    fn live_bytes_in_all(&self) -> u64 {
        let mut live = 2 * self.kept().bytes;
        let mut first = 0;
        loop {
            let core = self.core.lock();
            let end = core.machine.next_queue().0;
            let some = first..end.min(first + QUEUES_AT_ONCE);
            for queue in some.clone().map(QueueId) {
                let (bytes, jobs) = core.machine.live_bytes(queue);
                live += bytes + jobs * JOB_OVERHEAD_BYTES;
            }
            if some.end == end {
                return live;
            }
            first = some.end;
        }
    }

    pub(super) fn now_ms(&self) -> u64 {
        self.clock.log_ms()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_is_idle_when_nothing_was_appended_for_some_looks() {
        let mut looks = Looks::default();
        let idle = [3, 3, 3, 4, 4, 4, 4].map(|index| looks.look(EntryIndex(index)));
        assert_eq!(idle, [false, false, true, false, false, true, true]);
    }
}
