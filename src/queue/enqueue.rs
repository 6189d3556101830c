//! New jobs: their offsets, their terms, who sent them, and the unique keys that they hold.

use super::machine::{Machine, wake};
use super::{
    Contradiction, EnqueuedBatch, Fact, GroupKind, HeldKey, JobFact, JobTerms, Known, LeaseFact,
    Numbered, Rank, Run, UniqueHit, UniquePlan, WishedKey,
};
use crate::types::{GroupId, Offset, QueueId, Stamp};

/// What may be asked for.
impl Machine {
    /// What is known of a batch that may have been sent before.
    pub fn known(&self, queue: QueueId, batch: Numbered) -> Known {
        self.queues.get(&queue).map_or(Known::New, |state| state.producers.known(batch))
    }

    /// What a batch that is enqueued was told of its unique keys.
    pub fn hits_of(&self, queue: QueueId, batch: Numbered) -> &[UniqueHit] {
        self.queues.get(&queue).map_or(&[], |state| state.producers.hits_of(batch))
    }

    /// How many producers are remembered.
    pub fn producer_count(&self) -> usize {
        self.deadlines.producers.len()
    }

    /// Whether keys matter to the groups of a queue. Then no job of it may have a rank, since it
    /// would overtake others of its key.
    pub fn has_key_rule(&self, queue: QueueId) -> bool {
        self.queues.get(&queue).is_some_and(|state| state.settings.has_key_rule())
    }

    /// The job that holds a unique key.
    pub fn holder(&self, queue: QueueId, key: &[u8]) -> Option<Offset> {
        self.queues.get(&queue)?.unique.holder(key)
    }

    /// Whether a fact that is about to be applied frees the key that a job holds until it is done.
    pub fn frees(&self, queue: QueueId, fact: &Fact, offset: Offset) -> bool {
        let Some(state) = self.queues.get(&queue) else { return false };
        let until_done = state.unique.until_done(offset..offset.next()).next().is_some();
        let primary = state.groups.get(&state.settings.primary_group);
        let within = |runs: &[Run]| runs.iter().any(|run| run.offsets().any(|of| of == offset));
        until_done
            && match fact {
                Fact::Lease(LeaseFact::Committed { group, runs })
                | Fact::Job(JobFact::Removed { group, runs, .. }) => {
                    primary == Some(group) && within(runs)
                }
                Fact::Lease(LeaseFact::CommittedWithResult { group, offset: of, .. }) => {
                    primary == Some(group) && *of == offset
                }
                Fact::Job(JobFact::Withdrawn { queue: of, runs, .. }) => {
                    *of == queue && within(runs)
                }
                Fact::Queue(_) | Fact::Group(_) | Fact::Schedule(_) => false,
                Fact::Lease(
                    LeaseFact::Granted { .. }
                    | LeaseFact::Extended { .. }
                    | LeaseFact::Progressed { .. }
                    | LeaseFact::Ended { .. },
                ) => false,
                Fact::Job(
                    JobFact::TermsSet { .. }
                    | JobFact::KeysHeld { .. }
                    | JobFact::UniqueHits { .. }
                    | JobFact::Promoted { .. }
                    | JobFact::DeadRetried { .. },
                ) => false,
            }
    }

    /// What becomes of the jobs of a batch that have unique keys, in their order. `first` is the
    /// offset that the first new job of the batch gets; `is_freed` says of a job whether its key
    /// is set free with the batch.
    pub fn plan_unique<'a>(
        &self,
        queue: QueueId,
        first: Offset,
        wishes: impl IntoIterator<Item = WishedKey<'a>>,
        now_log_ms: u64,
        is_freed: impl Fn(Offset) -> bool,
    ) -> UniquePlan {
        let Some(state) = self.queues.get(&queue) else { return UniquePlan::default() };
        let is_delayed = |offset| state.delays.get(offset).is_some();
        state.unique.plan(first, wishes, now_log_ms, is_freed, is_delayed)
    }

    /// When the next delayed job is due, on the clock of the log: for one that is due on the wall
    /// clock, if that goes on as it does.
    pub fn next_due_log_ms(&self) -> Option<u64> {
        let again = self.deadlines.retries.first_ms();
        let log = self.deadlines.due_log.first_ms();
        let wall = self.deadlines.due_wall.first_ms().map(|wall_ms| self.log_of_wall(wall_ms));
        [again, log, wall].into_iter().flatten().min()
    }

    /// The heap memory in bytes for the jobs that were enqueued with a due time.
    pub fn delay_heap_bytes(&self) -> usize {
        let queues = self.queues.values();
        queues.map(|queue| queue.delays.heap_bytes() + queue.expiries.heap_bytes()).sum()
    }

    pub(super) fn log_of_wall(&self, wall_ms: u64) -> u64 {
        self.now.log_ms.saturating_add(wall_ms.saturating_sub(self.now.wall_ms))
    }
}

/// What entries and their facts do.
impl Machine {
    /// Applies an entry of `count` jobs that start at `base`, with bodies of `bytes` in all.
    ///
    /// # Errors
    /// The entry cannot follow those before it; see [`Contradiction`].
    pub fn apply_jobs(
        &mut self,
        queue: QueueId,
        base: Offset,
        count: u32,
        bytes: u64,
        stamp: Stamp,
    ) -> Result<(), Contradiction> {
        self.advance(stamp);
        let state = self.queues.get(&queue).ok_or(Contradiction::NoSuchQueue(queue))?;
        let precision = self.precision(state);
        let state = self.queues.get_mut(&queue).ok_or(Contradiction::NoSuchQueue(queue))?;
        let next = base.0.checked_add(u64::from(count)).filter(|_| base == state.next);
        let Some(next) = next else {
            return Err(Contradiction::NotNext { queue, found: base, expected: state.next });
        };
        self.reserved = self.reserved.saturating_sub(u64::from(count));
        state.next = Offset(next);
        state.unconsumed += u64::from(count);
        state.sizes.add(base, bytes, precision);
        for group in state.groups.values() {
            wake(&mut self.groups, &mut self.woken, *group);
        }
        Ok(())
    }

    /// Remembers who sent the jobs that were just applied, `count` of them from `first` on.
    ///
    /// # Errors
    /// The batch cannot follow those before it; see [`Contradiction`].
    pub fn apply_numbered(
        &mut self,
        queue: QueueId,
        batch: Numbered,
        first: Offset,
        count: u32,
        log_ms: u64,
    ) -> Result<(), Contradiction> {
        let Numbered { producer, sequence, fingerprint } = batch;
        let state = self.queues.get_mut(&queue).ok_or(Contradiction::NoSuchQueue(queue))?;
        let batch = EnqueuedBatch { sequence, first, count, fingerprint };
        let (is_new, check_log_ms) = state.producers.add(producer, batch, log_ms);
        self.deadlines.producers.moved((queue, producer), None, check_log_ms);
        is_new.then_some(()).ok_or(Contradiction::SequenceTwice(queue, sequence))
    }

    /// Gives new jobs their terms.
    pub(super) fn termed(
        &mut self,
        queue: QueueId,
        runs: &[(Run, JobTerms)],
    ) -> Result<(), Contradiction> {
        for (run, terms) in runs {
            self.check_new(queue, *run)?;
            let fits = self
                .change(queue, |state| run.offsets().all(|offset| state.set_terms(offset, *terms)));
            if fits != Some(true) {
                return Err(Contradiction::NotNew(queue, run.first));
            }
            let JobTerms { due, rank, .. } = *terms;
            if due.is_none() && rank == Rank::ORDINARY {
                continue;
            }
            for id in self.group_ids(queue) {
                if let Some((group, queue, _)) = self.parts(id)
                    && group.kind == GroupKind::Work
                {
                    group.set_aside(queue, *run, *terms);
                }
            }
        }
        Ok(())
    }

    /// Terms are for jobs that no group has been given yet.
    fn check_new(&self, queue: QueueId, run: Run) -> Result<(), Contradiction> {
        let offset = run.first;
        let state = self.queues.get(&queue).ok_or(Contradiction::NoSuchQueue(queue))?;
        let is_new = self.work_groups(state).all(|group| offset >= group.next_fetch);
        if run.end().is_none_or(|end| end > state.next) || !is_new {
            return Err(Contradiction::NotNew(queue, offset));
        }
        Ok(())
    }

    /// Lets jobs take their places, in this order, whose due times have come.
    pub(super) fn come_due(&mut self, queue: QueueId, jobs: &[Offset]) {
        for id in self.group_ids(queue) {
            let Some((group, queue, _)) = self.parts(id) else { continue };
            if group.kind == GroupKind::Stream {
                continue;
            }
            let mut is_woken = false;
            for offset in jobs {
                if !group.consumed.contains(*offset) {
                    group.come_due(queue, *offset);
                    is_woken = true;
                }
            }
            if is_woken {
                self.wake(id);
            }
        }
    }

    /// Lets jobs of a group take their places that go out before they are due. Whether to wait is
    /// for the one who grants: the wall clock may have gone back since.
    pub(super) fn undelay(&mut self, group: GroupId, runs: impl Iterator<Item = Run>) {
        let Some((state, known)) = self.of(group).filter(|(_, known)| !known.delays.is_empty())
        else {
            return;
        };
        let queue = state.queue;
        let ranges = runs.map(|run| run.range());
        let delayed = ranges.flat_map(|range| known.delays.within(range.start, range.end));
        let delayed: Vec<_> = delayed.collect();
        if delayed.is_empty() {
            return;
        }
        self.change(queue, |state| {
            for offset in &delayed {
                state.delays.remove(*offset);
            }
        });
        self.come_due(queue, &delayed);
    }

    pub(super) fn keys_held(
        &mut self,
        queue: QueueId,
        keys: &[HeldKey],
    ) -> Result<(), Contradiction> {
        let state = self.queues.get_mut(&queue).ok_or(Contradiction::NoSuchQueue(queue))?;
        for held in keys {
            let offset = held.offset;
            if offset >= state.next || !state.unique.insert(held.clone()) {
                return Err(Contradiction::KeyTwice(queue, offset));
            }
            self.deadlines.keys.moved((queue, offset), None, held.until_log_ms);
        }
        Ok(())
    }

    pub(super) fn unique_hits(
        &mut self,
        queue: QueueId,
        batch: Option<Numbered>,
        (first, count): (Offset, u32),
        hits: &[UniqueHit],
        log_ms: u64,
    ) -> Result<(), Contradiction> {
        let state = self.queues.get_mut(&queue).ok_or(Contradiction::NoSuchQueue(queue))?;
        let replaced = hits.iter().filter(|hit| hit.replaced).count() as u64;
        state.unique.count(hits.len() as u64 - replaced, replaced);
        let Some(batch) = batch else { return Ok(()) };
        self.apply_numbered(queue, batch, first, count, log_ms)?;
        if let Some(state) = self.queues.get_mut(&queue) {
            state.producers.remember_hits(batch, hits);
        }
        Ok(())
    }
}
