//! Results: what a worker said of a job when it committed it, kept for a time; and how jobs ended.
//!
//! A result lies in the state, not in the log by reference: it is small, read soon or never, and
//! gone in minutes, so compaction need not know of it. What a queue keeps is bounded by a setting;
//! over it, those go first that would have gone first.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::machine::Queue;
use super::{
    Contradiction, DeadJob, Fact, JobRecord, JobRefusal, JobState, LeaseFact, Machine, Record, Run,
};
use crate::types::{Grant, GroupId, Offset, QueueId};

/// What a kept result counts as beside its bytes: its places in two ordered sets, and the head of
/// an allocation.
pub const RESULT_OVERHEAD_BYTES: u64 = 128;

/// The results that a queue keeps.
#[derive(Debug, Default)]
pub(super) struct Results {
    by_job: BTreeMap<Offset, KeptResult>,
    by_end: BTreeSet<(u64, Offset)>,
    /// As the setting counts them.
    bytes: u64,
    /// How many went before their time, for others.
    pub(super) displaced: u64,
}

#[derive(Debug)]
struct KeptResult {
    until_log_ms: u64,
    result: Arc<[u8]>,
}

/// How a job ended, as far as its queue's primary group is concerned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum JobEnd {
    /// It was committed.
    Done {
        /// What its worker said of it, if it did.
        result: Option<Arc<[u8]>>,
    },
    /// It is not fetched again, until somebody retries it.
    Dead(DeadJob),
    /// It was cancelled or purged.
    Cancelled,
    /// Its time was over.
    Expired,
    /// It is consumed, and how is not known any more: without a result, or with one that is gone;
    /// or it was given up when it was dead.
    Unknown,
}

fn cost(result: &[u8]) -> u64 {
    result.len() as u64 + RESULT_OVERHEAD_BYTES
}

impl Results {
    pub(super) fn get(&self, offset: Offset) -> Option<&Arc<[u8]>> {
        self.by_job.get(&offset).map(|kept| &kept.result)
    }

    /// Every result with the time at which it goes, by job.
    pub(super) fn iter(&self) -> impl Iterator<Item = (Offset, u64, &Arc<[u8]>)> {
        self.by_job.iter().map(|(offset, kept)| (*offset, kept.until_log_ms, &kept.result))
    }

    /// When the next one goes.
    pub(super) fn next_end(&self) -> Option<u64> {
        self.by_end.first().map(|(until_log_ms, _)| *until_log_ms)
    }

    /// How many there are, and their bytes as the setting counts them.
    pub(super) fn size(&self) -> (u64, u64) {
        (self.by_job.len() as u64, self.bytes)
    }

    /// Keeps the result of a job; one that it had before is replaced.
    pub(super) fn insert(&mut self, offset: Offset, until_log_ms: u64, result: Arc<[u8]>) {
        self.remove(offset);
        self.bytes += cost(&result);
        self.by_end.insert((until_log_ms, offset));
        self.by_job.insert(offset, KeptResult { until_log_ms, result });
    }

    fn remove(&mut self, offset: Offset) {
        if let Some(kept) = self.by_job.remove(&offset) {
            self.by_end.remove(&(kept.until_log_ms, offset));
            self.bytes -= cost(&kept.result);
        }
    }

    fn remove_first(&mut self) {
        if let Some((_, offset)) = self.by_end.first().copied() {
            self.remove(offset);
        }
    }

    /// Forgets the results of all jobs from an offset on.
    fn remove_from(&mut self, from: Offset) {
        let offsets: Vec<_> = self.by_job.range(from..).map(|(offset, _)| *offset).collect();
        offsets.into_iter().for_each(|offset| self.remove(offset));
    }

    /// How many must go so that another one has its place.
    fn displaced_by(&self, offset: Offset, result: &[u8], bytes_max: u64) -> u32 {
        let replaced = self.get(offset).map_or(0, |result| cost(result));
        let mut bytes = self.bytes - replaced + cost(result);
        let others = self.by_end.iter().filter(|(_, other)| *other != offset);
        let mut costs = others.filter_map(|(_, other)| self.get(*other).map(|r| cost(r)));
        let mut count = 0;
        while bytes > bytes_max
            && let Some(cost) = costs.next()
        {
            bytes -= cost;
            count += 1;
        }
        count
    }
}

/// What a checkpoint holds.
impl Machine {
    pub(super) fn result_records(&self, queue: QueueId) -> impl Iterator<Item = Record> {
        let results = self.queues.get(&queue).map(|state| &state.results).into_iter();
        results.flat_map(move |results| {
            let kept = results.iter().map(move |(offset, until_log_ms, result)| {
                let result = Arc::clone(result);
                Record::Job(JobRecord::Result { queue, offset, until_log_ms, result })
            });
            let count = results.displaced;
            let displaced =
                (count > 0).then_some(Record::Job(JobRecord::Displaced { queue, count }));
            kept.chain(displaced)
        })
    }
}

/// What may be asked for.
impl Machine {
    /// The group that results, and waiting for a job's end, look at; none while it is not made.
    pub fn primary_group(&self, queue: QueueId) -> Option<GroupId> {
        let state = self.queues.get(&queue)?;
        state.groups.get(&*state.settings.primary_group).copied()
    }

    /// As [`commit`](Self::commit) of one job, with a result that is kept as the queue's settings
    /// say.
    ///
    /// # Errors
    /// As for [`commit`](Self::commit).
    pub fn commit_with_result(
        &self,
        group: GroupId,
        offset: Offset,
        grant: Option<Grant>,
        result: &[u8],
        now_log_ms: u64,
    ) -> Result<Fact, JobRefusal> {
        self.commit(group, offset, grant)?;
        let queue = self.queue_of(group).and_then(|queue| self.queues.get(&queue));
        let Queue { settings, results, .. } = queue.ok_or(JobRefusal::NoSuchGroup)?;
        let until_log_ms = now_log_ms.saturating_add(settings.result_kept_ms);
        let displaced = results.displaced_by(offset, result, settings.result_bytes_max);
        let result = result.into();
        Ok(Fact::Lease(LeaseFact::CommittedWithResult {
            group,
            offset,
            result,
            until_log_ms,
            displaced,
        }))
    }

    /// How a job ended; none if it has not, or if there is no such job yet.
    pub fn job_end(&self, queue: QueueId, offset: Offset) -> Option<JobEnd> {
        let state = self.queues.get(&queue).filter(|state| offset < state.next)?;
        let withdrawn = || {
            let expired = state.has_lapsed(offset);
            let end = if expired { JobEnd::Expired } else { JobEnd::Cancelled };
            state.has_withdrawn(offset).then_some(end)
        };
        let Some(group) = self.primary_group(queue) else {
            return withdrawn();
        };
        match self.job(group, offset)? {
            JobState::Consumed => match state.results.get(offset) {
                Some(result) => Some(JobEnd::Done { result: Some(Arc::clone(result)) }),
                None => withdrawn().or(Some(JobEnd::Unknown)),
            },
            JobState::Dead => {
                self.dead(group, offset).next().map(|dead| JobEnd::Dead(dead.1.clone()))
            }
            _ => None,
        }
    }

    /// How many results a queue keeps, their bytes as `result_bytes_max` counts them, and how many
    /// have gone before their time.
    pub fn results(&self, queue: QueueId) -> Option<(u64, u64, u64)> {
        let results = &self.queues.get(&queue)?.results;
        let (count, bytes) = results.size();
        Some((count, bytes, results.displaced))
    }

    /// When the next result goes, on the clock of the log.
    pub fn next_result_end_log_ms(&self) -> Option<u64> {
        self.result_ends.first().map(|(until_log_ms, _)| *until_log_ms)
    }
}

/// What facts and time do.
impl Machine {
    pub(super) fn committed_with_result(
        &mut self,
        (group, offset): (GroupId, Offset),
        result: &Arc<[u8]>,
        until_log_ms: u64,
        displaced: u32,
    ) -> Result<(), Contradiction> {
        let runs = [Run { first: offset, count: 1 }];
        self.committed(group, &runs)?;
        let Some(queue) = self.queue_of(group) else { return Ok(()) };
        self.change_results(queue, |results| {
            let others = results.by_job.len() - usize::from(results.get(offset).is_some());
            results.remove(offset);
            for _ in 0..(displaced as usize).min(others) {
                results.remove_first();
                results.displaced += 1;
            }
            results.insert(offset, until_log_ms, Arc::clone(result));
        });
        Ok(())
    }

    /// Forgets the results whose time is over.
    pub(super) fn forget_results(&mut self, log_ms: u64) {
        while let Some(&(until_log_ms, queue)) = self.result_ends.first()
            && until_log_ms <= log_ms
        {
            self.change_results(queue, |results| {
                while results.next_end().is_some_and(|until_log_ms| until_log_ms <= log_ms) {
                    results.remove_first();
                }
            });
        }
    }

    /// Forgets the results of jobs from an offset on, if it is the primary group to which they are
    /// new again.
    pub(super) fn forget_results_from(&mut self, group: GroupId, from: Offset) {
        let queue = self.queue_of(group);
        if let Some(queue) = queue.filter(|queue| self.primary_group(*queue) == Some(group)) {
            self.change_results(queue, |results| results.remove_from(from));
        }
    }

    pub(super) fn change_results(&mut self, queue: QueueId, change: impl FnOnce(&mut Results)) {
        let Some(state) = self.queues.get_mut(&queue) else { return };
        let before = state.results.next_end();
        change(&mut state.results);
        let after = state.results.next_end();
        if before != after {
            before.map(|until_log_ms| self.result_ends.remove(&(until_log_ms, queue)));
            after.map(|until_log_ms| self.result_ends.insert((until_log_ms, queue)));
        }
    }

    /// Takes a result back from a record; false if it can't be.
    pub(super) fn restore_result(
        &mut self,
        queue: QueueId,
        offset: Offset,
        until_log_ms: u64,
        result: Arc<[u8]>,
    ) -> bool {
        let state = self.queues.get(&queue);
        let fits =
            state.is_some_and(|state| offset < state.next && state.results.get(offset).is_none());
        if fits {
            self.change_results(queue, |results| results.insert(offset, until_log_ms, result));
        }
        fits
    }
}
