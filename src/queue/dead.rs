//! Dead jobs: which there are, how they come back, and how they go.

use std::collections::BTreeMap;

use super::machine::Queue;
use super::{Contradiction, EndReason, Fact, JobFact, Machine, Removal, Run, Runs, push_offset};
use crate::types::{GroupId, Offset, Stamp};

/// A job that is not fetched again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeadJob {
    /// Why its last lease ended.
    pub reason: EndReason,
    /// What the worker said last; empty if it said nothing.
    pub message: Box<str>,
    /// How often it was delivered.
    pub attempts: u32,
    /// How often a worker said that it failed.
    pub failures: u32,
    /// How often its worker was lost.
    pub crashes: u32,
    /// When it died, on both clocks.
    pub died: Stamp,
}

/// The dead jobs of one group, by offset.
pub(super) type DeadJobs = BTreeMap<Offset, DeadJob>;

/// When a dead job goes, on the clock of the log; never, if dead jobs are kept for ever.
pub(super) fn end_log_ms(queue: Option<&Queue>, died: Stamp) -> Option<u64> {
    let kept_ms = queue.map_or(0, |queue| queue.settings.dead_kept_ms);
    (kept_ms > 0).then(|| died.log_ms.saturating_add(kept_ms))
}

/// What may be asked for.
impl Machine {
    /// The dead jobs of a group from an offset on, by offset.
    pub fn dead(&self, group: GroupId, from: Offset) -> impl Iterator<Item = (Offset, &DeadJob)> {
        let state = self.groups.get(&group).into_iter();
        state.flat_map(move |state| state.dead.range(from..)).map(|(offset, job)| (*offset, job))
    }

    /// Makes dead jobs ready again. Jobs that are not dead are passed over; no fact if none is.
    pub fn retry_dead(
        &self,
        group: GroupId,
        jobs: impl IntoIterator<Item = Offset>,
    ) -> Option<Fact> {
        self.dead_runs(group, jobs).map(|runs| Fact::Job(JobFact::DeadRetried { group, runs }))
    }

    /// Drops dead jobs. Jobs that are not dead are passed over; no fact if none is.
    pub fn drop_dead(
        &self,
        group: GroupId,
        jobs: impl IntoIterator<Item = Offset>,
    ) -> Option<Fact> {
        let cause = Removal::Dropped;
        self.dead_runs(group, jobs).map(|runs| Fact::Job(JobFact::Removed { group, cause, runs }))
    }

    /// Lets dead jobs go that are moved to another queue. Jobs that are not dead are passed over;
    /// no fact if none is.
    pub fn move_dead(
        &self,
        group: GroupId,
        jobs: impl IntoIterator<Item = Offset>,
    ) -> Option<Fact> {
        let cause = Removal::Moved;
        self.dead_runs(group, jobs).map(|runs| Fact::Job(JobFact::Removed { group, cause, runs }))
    }

    /// Whether a job is dead for a group.
    pub fn is_dead(&self, group: GroupId, offset: Offset) -> bool {
        self.groups.get(&group).is_some_and(|state| state.dead.contains_key(&offset))
    }

    /// Drops at most `limit` of the dead jobs that have been kept for long enough.
    pub fn drop_aged(&self, now_log_ms: u64, limit: usize) -> Vec<Fact> {
        let over = self.dead_ends.iter().take_while(|(end_log_ms, ..)| *end_log_ms <= now_log_ms);
        let mut by_group: BTreeMap<GroupId, Vec<Offset>> = BTreeMap::new();
        for (_, group, offset) in over.take(limit) {
            by_group.entry(*group).or_default().push(*offset);
        }
        let cause = Removal::Aged;
        let aged = by_group.into_iter().filter_map(|(group, jobs)| {
            let runs = self.dead_runs(group, jobs)?;
            Some(Fact::Job(JobFact::Removed { group, cause, runs }))
        });
        aged.collect()
    }

    /// When the next dead job has been kept for long enough, on the clock of the log.
    pub fn next_dead_end_log_ms(&self) -> Option<u64> {
        self.dead_ends.first().map(|(end_log_ms, ..)| *end_log_ms)
    }

    /// When each dead job of a group goes, where they are not kept for ever.
    pub(super) fn dead_ends_of(&self, group: GroupId) -> Vec<(u64, GroupId, Offset)> {
        let Some(state) = self.groups.get(&group) else { return Vec::new() };
        let queue = self.queues.get(&state.queue);
        let dead = state.dead.iter();
        let end = |(offset, job): (&Offset, &DeadJob)| {
            Some((end_log_ms(queue, job.died)?, group, *offset))
        };
        dead.filter_map(end).collect()
    }

    fn dead_runs(&self, group: GroupId, jobs: impl IntoIterator<Item = Offset>) -> Option<Runs> {
        let dead = &self.groups.get(&group)?.dead;
        let mut jobs: Vec<_> = jobs.into_iter().filter(|job| dead.contains_key(job)).collect();
        jobs.sort_unstable();
        jobs.dedup();
        let mut runs = Runs::new();
        jobs.into_iter().for_each(|job| push_offset(&mut runs, job));
        (!runs.is_empty()).then_some(runs)
    }
}

/// What the facts do.
impl Machine {
    pub(super) fn died(&mut self, group: GroupId, offset: Offset, job: DeadJob) {
        let Some(state) = self.groups.get_mut(&group) else { return };
        if let Some(end_log_ms) = end_log_ms(self.queues.get(&state.queue), job.died) {
            self.dead_ends.insert((end_log_ms, group, offset));
        }
        state.dead.insert(offset, job);
    }

    /// Takes a job from the dead ones; none if it is not among them.
    pub(super) fn undie(&mut self, group: GroupId, offset: Offset) -> Option<DeadJob> {
        let state = self.groups.get_mut(&group)?;
        let job = state.dead.remove(&offset)?;
        if let Some(end_log_ms) = end_log_ms(self.queues.get(&state.queue), job.died) {
            self.dead_ends.remove(&(end_log_ms, group, offset));
        }
        Some(job)
    }

    pub(super) fn dead_retried(
        &mut self,
        group: GroupId,
        runs: &[Run],
    ) -> Result<(), Contradiction> {
        self.each_below_end(group, runs, |machine, offset| {
            let job = machine.undie(group, offset);
            let job = job.ok_or(Contradiction::NotDead { group, offset })?;
            machine.made_ready(group, offset, job.attempts);
            if let Some(state) = machine.groups.get_mut(&group) {
                state.said.failed(offset, &job.message);
            }
            Ok(())
        })
    }
}
