//! Jobs that are withdrawn from a queue, by a cancel or a purge: no group is given them any more,
//! also none that is made later; and groups and queues that pause.
//!
//! A job that is out with a worker when it is withdrawn stays with it: its commit wins if it comes
//! first, and every other end of the lease is the end of the job.

use super::group::Group;
use super::machine::{Queue, take_waiting, wake};
use super::{
    Contradiction, Fact, GroupKind, JobFact, Machine, QueueFact, Removal, Run, Runs, push_offset,
};
use crate::types::{Grant, GroupId, Offset, QueueId};

/// What becomes of a job that is to be cancelled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cancel {
    /// It is consumed for all groups that had not consumed it.
    Done,
    /// It is out with a worker of a group, who is asked to stop; for other groups it is consumed.
    Requested,
    /// All groups had consumed it, or it was cancelled before.
    Consumed,
    /// The queue has no such job yet.
    NoSuchJob,
}

/// What a step of a purge has found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Purge {
    /// What it does, if there is anything to do.
    pub fact: Option<Fact>,
    /// Jobs that it consumes for a group or more.
    pub count: u64,
    /// Jobs that it leaves, because they are out with a worker.
    pub leased: u64,
    /// Where the next step begins.
    pub next: Offset,
}

/// What may be asked for.
impl Machine {
    /// What a cancel of the job does.
    pub fn cancel(&self, queue: QueueId, offset: Offset) -> Cancel {
        let Some(state) = self.queues.get(&queue) else { return Cancel::NoSuchJob };
        if offset >= state.next {
            return Cancel::NoSuchJob;
        }
        if self.leases_of(queue, offset).next().is_some() {
            return Cancel::Requested;
        }
        let consumed = |group: &Group| group.consumed.contains(offset);
        let mut groups = self.work_groups(state).peekable();
        let nobody_waits = groups.peek().is_some() && groups.all(consumed);
        let withdrawn = state.withdrawn.contains(offset);
        match nobody_waits || withdrawn || !self.is_live(queue, offset) {
            true => Cancel::Consumed,
            false => Cancel::Done,
        }
    }

    /// Cancels jobs of which [`cancel`](Self::cancel) said `Done` or `Requested`; those that are
    /// withdrawn already are passed over.
    pub fn cancel_jobs(
        &self,
        queue: QueueId,
        jobs: impl IntoIterator<Item = Offset>,
    ) -> Option<Fact> {
        self.withdraw_jobs(queue, jobs, Removal::Cancelled)
    }

    /// Lets jobs go that are moved to another queue: of those [`cancel`](Self::cancel) says `Done`.
    pub fn move_jobs(
        &self,
        queue: QueueId,
        jobs: impl IntoIterator<Item = Offset>,
    ) -> Option<Fact> {
        self.withdraw_jobs(queue, jobs, Removal::Moved)
    }

    fn withdraw_jobs(
        &self,
        queue: QueueId,
        jobs: impl IntoIterator<Item = Offset>,
        cause: Removal,
    ) -> Option<Fact> {
        let state = self.queues.get(&queue)?;
        let mut jobs: Vec<_> = jobs.into_iter().collect();
        jobs.sort_unstable();
        jobs.dedup();
        let mut runs = Runs::new();
        let new = jobs.into_iter().filter(|offset| !state.withdrawn.contains(*offset));
        new.for_each(|offset| push_offset(&mut runs, offset));
        (!runs.is_empty()).then_some(Fact::Job(JobFact::Withdrawn { queue, cause, runs }))
    }

    /// Looks at up to `count_max` jobs from `from` to below `end`, and withdraws those that are not
    /// out with a worker.
    pub fn purge(&self, queue: QueueId, from: Offset, end: Offset, count_max: u64) -> Purge {
        let mut purge = Purge { fact: None, count: 0, leased: 0, next: from };
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
        let queue = self.groups.get(&group).and_then(|state| self.queues.get(&state.queue));
        let expired = queue.is_some_and(|queue| queue.has_lapsed(offset));
        self.is_withdrawn(group, offset) && !expired
    }

    /// Whether a job of a group's queue was withdrawn: it is not delivered any more.
    pub(super) fn is_withdrawn(&self, group: GroupId, offset: Offset) -> bool {
        let state = self.groups.get(&group);
        let queue = state.and_then(|state| self.queues.get(&state.queue));
        queue.is_some_and(|queue| queue.has_withdrawn(offset))
    }

    /// Pauses a queue or one group of it, or ends that; no fact if it is so already.
    pub fn pause(&self, queue: QueueId, group: Option<GroupId>, paused: bool) -> Option<Fact> {
        let was = match group {
            Some(group) => self.groups.get(&group).map(|state| state.paused),
            None => self.queues.get(&queue).map(|state| state.paused),
        };
        (was? != paused).then_some(Fact::Queue(QueueFact::Paused { queue, group, paused }))
    }

    /// Whether nothing is fetched for a group: it is paused, or its queue.
    pub fn is_paused(&self, group: GroupId) -> bool {
        let Some(state) = self.groups.get(&group) else { return false };
        state.paused || self.queues.get(&state.queue).is_some_and(|queue| queue.paused)
    }

    /// Whether a FETCH would get a job. Cheap.
    pub fn has_for_fetch(&self, group: GroupId) -> bool {
        self.ready_count(group) > 0 && !self.is_paused(group) && self.has_room(group)
    }

    fn has_room(&self, group: GroupId) -> bool {
        let Some(state) = self.groups.get(&group) else { return false };
        let queue = self.queues.get(&state.queue);
        queue.is_some_and(|queue| state.room(queue, self.now.log_ms) > 0)
    }

    pub(super) fn work_groups<'a>(&'a self, queue: &'a Queue) -> impl Iterator<Item = &'a Group> {
        let groups = queue.groups.values().filter_map(|group| self.groups.get(group));
        groups.filter(|group| group.kind == GroupKind::Work)
    }
}

/// What the facts do.
impl Machine {
    pub(super) fn withdrawn(
        &mut self,
        queue: QueueId,
        cause: Removal,
        runs: &[Run],
    ) -> Result<(), Contradiction> {
        let state = self.queues.get(&queue).ok_or(Contradiction::NoSuchQueue(queue))?;
        for run in runs {
            let end = run.first.0.checked_add(u64::from(run.count));
            if end.is_none_or(|end| end > state.next.0) {
                return Err(Contradiction::NoSuchJobs { queue, offset: run.first });
            }
        }
        let groups: Vec<_> = state.groups.values().copied().collect();
        let first_seen = self.first_seen(state);
        let (dues, expiry) = (self.next_dues(queue), self.next_expiry(queue));
        for offset in runs.iter().flat_map(|run| run.offsets()) {
            let Some(state) = self.queues.get_mut(&queue) else { return Ok(()) };
            state.withdrawn.insert(offset);
            if first_seen.is_none_or(|seen| offset < seen) {
                state.gone.insert(offset);
            }
            state.expiries.remove(offset);
            if cause == Removal::Expired {
                state.lapsed.insert(offset);
            }
            let was_delayed = state.delays.remove(offset);
            for group in &groups {
                self.withdrawn_from(*group, offset, was_delayed, cause);
            }
            self.forget_ranks(queue, [offset]);
        }
        self.due_changed(queue, dues);
        self.expiry_changed(queue, expiry);
        match cause {
            Removal::Replaced => self.free_replaced(queue, runs),
            _ => self.free_keys(queue, runs),
        }
        for group in groups {
            self.settle(group);
            // An expired job may have stood before one that is ready.
            wake(&mut self.groups, &mut self.woken, group);
        }
        self.count_unconsumed(queue);
        Ok(())
    }

    fn withdrawn_from(&mut self, id: GroupId, offset: Offset, was_delayed: bool, cause: Removal) {
        if self.leases.get(id, offset).is_some() {
            return;
        }
        let was_dead = self.undie(id, offset).is_some();
        let Self { queues, groups, delayed, .. } = self;
        let Some(group) = groups.get_mut(&id) else { return };
        let Some(queue) = queues.get(&group.queue) else { return };
        if group.kind == GroupKind::Stream || group.consumed.contains(offset) {
            return;
        }
        if was_delayed {
            group.enqueued_delayed -= 1;
        } else if !was_dead {
            take_waiting(group, queue, delayed, (id, offset), false);
        }
        let was_set_aside = was_delayed || queue.ranks.get(offset).is_some();
        if offset >= group.next_fetch && !was_set_aside {
            // A fresh job becomes one that is passed over.
            group.skipped_ahead += 1;
        }
        group.leave(offset, cause);
    }

    pub(super) fn paused(
        &mut self,
        queue: QueueId,
        group: Option<GroupId>,
        paused: bool,
    ) -> Result<(), Contradiction> {
        let state = self.queues.get_mut(&queue).ok_or(Contradiction::NoSuchQueue(queue))?;
        let groups: Vec<_> = match group {
            Some(group) => vec![group],
            None => {
                state.paused = paused;
                state.groups.values().copied().collect()
            }
        };
        if let Some(id) = group {
            let state = self.groups.get_mut(&id).ok_or(Contradiction::NoSuchGroup(id))?;
            state.paused = paused;
        }
        groups.iter().for_each(|group| wake(&mut self.groups, &mut self.woken, *group));
        Ok(())
    }

    fn settle(&mut self, group: GroupId) {
        if let Some(group) = self.groups.get_mut(&group)
            && let Some(queue) = self.queues.get(&group.queue)
        {
            group.settle(queue);
        }
    }
}

impl Queue {
    pub(super) fn has_lapsed(&self, offset: Offset) -> bool {
        self.lapsed.contains(offset)
    }

    pub(super) fn has_withdrawn(&self, offset: Offset) -> bool {
        self.withdrawn.contains(offset)
    }
}

impl Group {
    /// Consumes a job without a commit, wherever it was.
    pub(super) fn leave(&mut self, offset: Offset, cause: Removal) {
        self.consume(offset);
        self.said.forget(offset);
        self.removed.add(cause, 1);
    }
}
