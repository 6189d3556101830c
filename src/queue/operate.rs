//! What people, and time, do to jobs: they are cancelled, purged, moved or expire; those that are
//! dead are retried, dropped or moved, and delayed ones promoted; and groups and queues pause.
//!
//! No group is given a job any more that was withdrawn, also none that is made later. One that is
//! out with a worker then stays with it: its commit wins if it comes first, and every other end of
//! the lease is the end of the job.

use std::collections::BTreeMap;

use super::group::Group;
use super::machine::Machine;
use super::{
    Contradiction, DeadJob, Fact, JobFact, QueueFact, Removal, Run, Runs, push_offset, runs_of,
};
use crate::types::{Grant, GroupId, Offset, QueueId, Stamp};

/// What becomes of a job that is to be cancelled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CancelVerdict {
    /// It is consumed for all groups that had not consumed it.
    Done,
    /// It is out with a worker of a group, who is asked to stop; for other groups it is consumed.
    Requested,
    /// All groups had consumed it, or it was cancelled before.
    Consumed,
    /// The queue has no such job yet.
    NoSuchJob,
}

/// What becomes of a job that is to be promoted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PromoteVerdict {
    /// It can be fetched by all groups for which it was delayed.
    Promoted,
    /// It is delayed for no group.
    NotDelayed,
    /// The queue has no such job yet.
    NoSuchJob,
}

/// What a step of a purge has found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PurgeStep {
    /// What it does, if there is anything to do.
    pub fact: Option<Fact>,
    /// Jobs that it consumes for a group or more.
    pub count: u64,
    /// Jobs that it leaves, because they are out with a worker.
    pub leased: u64,
    /// Where the next step begins.
    pub next: Offset,
}

/// Jobs that are withdrawn.
impl Machine {
    /// What a cancel of the job does.
    pub fn cancel(&self, queue: QueueId, offset: Offset) -> CancelVerdict {
        let Some(state) = self.queues.get(&queue) else { return CancelVerdict::NoSuchJob };
        if offset >= state.next {
            return CancelVerdict::NoSuchJob;
        }
        if self.leases_of(queue, offset).next().is_some() {
            return CancelVerdict::Requested;
        }
        let consumed = |group: &Group| group.consumed.contains(offset);
        let mut groups = self.work_groups(state).peekable();
        let nobody_waits = groups.peek().is_some() && groups.all(consumed);
        let withdrawn = state.withdrawn.contains(offset);
        match nobody_waits || withdrawn || !self.is_live(queue, offset) {
            true => CancelVerdict::Consumed,
            false => CancelVerdict::Done,
        }
    }

    /// Cancels jobs of which [`cancel`](Self::cancel) said `Done` or `Requested`, or lets those go
    /// that are moved to another queue, of which it said `Done`. Jobs that are withdrawn already
    /// are passed over.
    pub fn withdraw(
        &self,
        queue: QueueId,
        jobs: impl IntoIterator<Item = Offset>,
        cause: Removal,
    ) -> Option<Fact> {
        let state = self.queues.get(&queue)?;
        let new = jobs.into_iter().filter(|offset| !state.withdrawn.contains(*offset));
        let runs = runs_of(&mut new.collect::<Vec<_>>());
        (!runs.is_empty()).then_some(Fact::Job(JobFact::Withdrawn { queue, cause, runs }))
    }

    /// Looks at up to `count_max` jobs from `from` to below `end`, and withdraws those that are not
    /// out with a worker.
    pub fn purge(&self, queue: QueueId, from: Offset, end: Offset, count_max: u64) -> PurgeStep {
        let mut purge = PurgeStep { fact: None, count: 0, leased: 0, next: from };
        let Some(state) = self.queues.get(&queue) else { return purge };
        let groups: Vec<_> = self.work_groups(state).collect();
        let committed = groups.iter().map(|group| group.consumed.floor()).min();
        let mut offset = from.max(state.gone.floor()).max(committed.unwrap_or_default());
        let mut runs = Runs::new();
        let stop = end.min(state.next);
        let mut looked_at = 0;
        while looked_at < count_max
            && let Some(live) = self.next_live(queue, offset).filter(|live| *live < stop)
        {
            (offset, looked_at) = (live, looked_at + 1);
            if self.leases_of(queue, offset).next().is_some() {
                purge.leased += 1;
            } else if !state.withdrawn.contains(offset) {
                let waits = groups.iter().any(|group| !group.consumed.contains(offset));
                purge.count += u64::from(waits || groups.is_empty());
                push_offset(&mut runs, offset);
            }
            offset = offset.next();
        }
        purge.next = if looked_at < count_max { stop.max(offset) } else { offset };
        let cause = Removal::Purged;
        purge.fact =
            (!runs.is_empty()).then_some(Fact::Job(JobFact::Withdrawn { queue, cause, runs }));
        purge
    }

    /// The groups for which a job is out with a worker, with the leases' numbers.
    pub fn leases_of(
        &self,
        queue: QueueId,
        offset: Offset,
    ) -> impl Iterator<Item = (GroupId, Grant)> {
        let groups = self.queues.get(&queue).into_iter().flat_map(|state| state.groups.values());
        groups.filter_map(move |group| {
            self.leases.get(*group, offset).map(|lease| (*group, lease.grant))
        })
    }

    /// Whether a job was cancelled: if it is out with a worker, that is to stop. One that expired
    /// while it was out may be worked on to its end.
    pub fn is_cancelled(&self, group: GroupId, offset: Offset) -> bool {
        self.withdrawal(group, offset) == Some(Removal::Cancelled)
    }

    /// Why a job of a group's queue is not delivered any more, if it was withdrawn.
    pub(super) fn withdrawal(&self, group: GroupId, offset: Offset) -> Option<Removal> {
        self.of(group)?.1.withdrawal(offset)
    }

    /// The jobs that have expired, of one queue at a time and at most `limit`. It must be applied:
    /// what it names is not named again.
    pub fn lapse(&mut self, now_log_ms: u64, limit: usize) -> Option<Fact> {
        let queue = self.deadlines.expiries.next(now_log_ms)?;
        let now = Stamp { wall_ms: 0, log_ms: now_log_ms };
        let mut expired: Vec<_> = self.change(queue, |state| {
            std::iter::from_fn(|| state.expiries.peek_due(now)).take(limit).collect()
        })?;
        let (cause, runs) = (Removal::Expired, runs_of(&mut expired));
        (!runs.is_empty()).then_some(Fact::Job(JobFact::Withdrawn { queue, cause, runs }))
    }
}

/// Dead jobs.
impl Machine {
    /// The dead jobs of a group from an offset on, by offset.
    pub fn dead(&self, group: GroupId, from: Offset) -> impl Iterator<Item = (Offset, &DeadJob)> {
        self.groups.get(&group).into_iter().flat_map(move |state| state.dead.from(from))
    }

    /// Makes dead jobs ready again. Jobs that are not dead are passed over; no fact if none is.
    pub fn retry_dead(
        &self,
        group: GroupId,
        jobs: impl IntoIterator<Item = Offset>,
    ) -> Option<Fact> {
        self.dead_among(group, jobs).map(|runs| Fact::Job(JobFact::DeadRetried { group, runs }))
    }

    /// Lets dead jobs go that are dropped, or moved to another queue. Jobs that are not dead are
    /// passed over; no fact if none is.
    pub fn remove_dead(
        &self,
        group: GroupId,
        jobs: impl IntoIterator<Item = Offset>,
        cause: Removal,
    ) -> Option<Fact> {
        let runs = self.dead_among(group, jobs)?;
        Some(Fact::Job(JobFact::Removed { group, cause, runs }))
    }

    /// Whether a job is dead for a group.
    pub fn is_dead(&self, group: GroupId, offset: Offset) -> bool {
        self.groups.get(&group).is_some_and(|state| state.dead.contains(offset))
    }

    /// Drops at most `limit` of the dead jobs that have been kept for long enough.
    pub fn drop_aged(&self, now_log_ms: u64, limit: usize) -> Vec<Fact> {
        let mut by_group: BTreeMap<GroupId, Vec<Offset>> = BTreeMap::new();
        for (group, offset) in self.deadlines.dead.due(now_log_ms).take(limit) {
            by_group.entry(group).or_default().push(offset);
        }
        let aged = by_group.into_iter();
        aged.filter_map(|(group, jobs)| self.remove_dead(group, jobs, Removal::Aged)).collect()
    }

    /// Those of these jobs that are dead; none if none is.
    fn dead_among(&self, group: GroupId, jobs: impl IntoIterator<Item = Offset>) -> Option<Runs> {
        let runs = self.groups.get(&group)?.dead.among(jobs);
        (!runs.is_empty()).then_some(runs)
    }
}

/// Jobs that are promoted.
impl Machine {
    /// What a promotion of the job does.
    pub fn promote(&self, queue: QueueId, offset: Offset) -> PromoteVerdict {
        let Some(state) = self.queues.get(&queue).filter(|state| offset < state.next) else {
            return PromoteVerdict::NoSuchJob;
        };
        let is_enqueued_so = state.delays.get(offset).is_some();
        let waits = |group: &Group| {
            let retry = group.mark(offset).due_log_ms;
            retry.is_some() || is_enqueued_so && !group.consumed.contains(offset)
        };
        let mut groups = self.work_groups(state).peekable();
        let is_delayed = if groups.peek().is_some() { groups.any(waits) } else { is_enqueued_so };
        if is_delayed { PromoteVerdict::Promoted } else { PromoteVerdict::NotDelayed }
    }

    /// Promotes jobs of which [`promote`](Self::promote) said `Promoted`; no fact for none.
    pub fn promote_jobs(
        &self,
        queue: QueueId,
        jobs: impl IntoIterator<Item = Offset>,
    ) -> Option<Fact> {
        let runs = runs_of(&mut jobs.into_iter().collect::<Vec<_>>());
        (!runs.is_empty()).then_some(Fact::Job(JobFact::Promoted { queue, runs }))
    }

    pub(super) fn promoted(&mut self, queue: QueueId, runs: &[Run]) -> Result<(), Contradiction> {
        let state = self.queues.get(&queue).ok_or(Contradiction::NoSuchQueue(queue))?;
        let is_outside = |run: &&Run| run.end().is_none_or(|end| end > state.next);
        if let Some(run) = runs.iter().find(is_outside) {
            return Err(Contradiction::NoSuchJobs(queue, run.first));
        }
        let groups = self.group_ids(queue);
        for offset in runs.iter().flat_map(|run| run.offsets()) {
            if self.change(queue, |state| state.delays.remove(offset)) == Some(true) {
                self.come_due(queue, &[offset]);
            }
            groups.iter().for_each(|group| self.end_retry_delay(*group, offset));
        }
        Ok(())
    }

    fn end_retry_delay(&mut self, id: GroupId, offset: Offset) {
        let Some((group, queue, deadlines)) = self.parts(id) else { return };
        if let Some(due_log_ms) = group.undelay(offset) {
            deadlines.retries.moved((id, offset), Some(due_log_ms), None);
            group.come_back(queue, offset);
            self.wake(id);
        }
    }
}

/// Pauses.
impl Machine {
    /// Pauses a queue or one group of it, or ends that; no fact if it is so already.
    pub fn pause(&self, queue: QueueId, group: Option<GroupId>, paused: bool) -> Option<Fact> {
        let was = match group {
            Some(group) => self.groups.get(&group).map(|state| state.paused),
            None => self.queues.get(&queue).map(|state| state.paused),
        };
        (was? != paused).then_some(Fact::Queue(QueueFact::Paused { queue, group, paused }))
    }

    pub(super) fn paused(
        &mut self,
        queue: QueueId,
        group: Option<GroupId>,
        paused: bool,
    ) -> Result<(), Contradiction> {
        let state = self.queues.get_mut(&queue).ok_or(Contradiction::NoSuchQueue(queue))?;
        let Some(group) = group else {
            state.paused = paused;
            self.group_ids(queue).into_iter().for_each(|group| self.wake(group));
            return Ok(());
        };
        let state = self.groups.get_mut(&group).ok_or(Contradiction::NoSuchGroup(group))?;
        state.paused = paused;
        self.wake(group);
        Ok(())
    }
}
