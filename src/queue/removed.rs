//! Jobs that leave a group without a commit: consumed like committed ones, and counted by cause.

use super::{Contradiction, Machine, Run};
use crate::types::{GroupId, Offset};

/// Why a job left a group without a commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Removal {
    /// It was dead, and somebody dropped it.
    Dropped,
    /// It was dead for as long as dead jobs are kept.
    Aged,
    /// Somebody cancelled it.
    Cancelled,
    /// Somebody purged its queue.
    Purged,
    /// Its time to live was over.
    Expired,
    /// Somebody moved it to another queue.
    Moved,
    /// A new job with its unique key took its place.
    Replaced,
}

impl Removal {
    /// Every cause, in the order of the counts.
    pub const ALL: [Self; 7] = [
        Self::Dropped,
        Self::Aged,
        Self::Cancelled,
        Self::Purged,
        Self::Expired,
        Self::Moved,
        Self::Replaced,
    ];
}

/// How many jobs left a group without a commit, by cause.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RemovedCounts([u64; Removal::ALL.len()]);

impl RemovedCounts {
    /// How many left for this cause.
    pub fn of(&self, cause: Removal) -> u64 {
        self.0.get(cause as usize).copied().unwrap_or(0)
    }

    /// Counts some more.
    pub fn add(&mut self, cause: Removal, more: u64) {
        if let Some(count) = self.0.get_mut(cause as usize) {
            *count = count.saturating_add(more);
        }
    }
}

impl Machine {
    pub(super) fn removed(
        &mut self,
        group: GroupId,
        cause: Removal,
        runs: &[Run],
    ) -> Result<(), Contradiction> {
        self.each_below_end(group, runs, |machine, offset| {
            machine.undie(group, offset).ok_or(Contradiction::NotDead { group, offset })?;
            if let Some(state) = machine.groups.get_mut(&group) {
                state.leave(offset, cause);
            }
            Ok(())
        })?;
        self.wake_keyed(group);
        let count = runs.iter().map(|run| u64::from(run.count)).sum();
        if let Some(queue) = self.queue_of(group) {
            self.note_consumed(queue, runs, count);
            self.forget_ranks(queue, runs.iter().flat_map(|run| run.offsets()));
            self.free_keys(queue, runs);
        }
        Ok(())
    }

    /// Does something to every offset of `runs`, which must lie within the queue of a work group.
    pub(super) fn each_below_end(
        &mut self,
        group: GroupId,
        runs: &[Run],
        mut act: impl FnMut(&mut Self, Offset) -> Result<(), Contradiction>,
    ) -> Result<(), Contradiction> {
        let queue = super::machine::work_group(&mut self.groups, group)?.queue;
        let end = self.next_offset(queue).unwrap_or_default();
        for run in runs {
            super::machine::inside(group, *run, end)?;
            run.offsets().try_for_each(|offset| act(self, offset))?;
        }
        Ok(())
    }
}
