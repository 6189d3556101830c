//! Unique keys: of the jobs of a queue with the same key, one holds it at a time.
//!
//! A job holds its key until it is done in the queue's primary group, or for a time from its
//! enqueue on, whatever becomes of it. A key that is free stays free: no seek gives it back. Which
//! keys new jobs get is a fact; when they are free again follows from other facts and from time, as
//! for delays.
//!
//! A key of 16 bytes that is held was measured to cost 166 bytes, 214 if it is held for a time; one
//! of another length costs so much more or less.

use std::collections::BTreeMap;
use std::ops::RangeBounds;
use std::sync::Arc;

use super::machine::Queue;
use super::record::{JobRecord, Record};
use super::records::check;
use super::{
    Contradiction, Fact, GroupKind, JobFact, LeaseFact, Machine, Numbered, Removal, Run, Runs,
    push_offset,
};
use crate::types::{Offset, QueueId};

/// Hits in one record: 52 KiB.
const HITS_PER_RECORD: usize = 4_096;

/// What a new job wants of its unique key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WishedKey<'a> {
    /// The place of the job in its batch.
    pub ordinal: u32,
    /// The key.
    pub key: &'a [u8],
    /// How long the key is held from the enqueue on; none for until the job is done.
    pub window_ms: Option<u64>,
    /// Whether a job that is enqueued with a delay gives way.
    pub replace: bool,
    /// Whether the new job is enqueued with a delay.
    pub delayed: bool,
}

/// A unique key that a new job holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeldKey {
    /// The job.
    pub offset: Offset,
    /// The key.
    pub key: Arc<[u8]>,
    /// When it is free again, on the clock of the log; none for when the job is done.
    pub until_log_ms: Option<u64>,
}

/// A job of a batch whose unique key was held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UniqueHit {
    /// The place of the job in the batch.
    pub ordinal: u32,
    /// The job that held the key.
    pub offset: Offset,
    /// Whether that one was withdrawn for the new one; otherwise the new one is not enqueued.
    pub replaced: bool,
}

/// What becomes of the jobs of a batch that have unique keys.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UniquePlan {
    /// The keys of those that are enqueued.
    pub keys: Vec<HeldKey>,
    /// The jobs whose keys are held, by their places.
    pub hits: Vec<UniqueHit>,
    /// The jobs that give way.
    pub replaced: Runs,
}

/// The unique keys of one queue.
#[derive(Debug, Default)]
pub(super) struct UniqueKeys {
    by_key: BTreeMap<Arc<[u8]>, Offset>,
    by_offset: BTreeMap<Offset, (Arc<[u8]>, Option<u64>)>,
    /// How many jobs were not enqueued because another held their keys, ever.
    pub(super) duplicates: u64,
    /// How many jobs gave way to others, ever.
    pub(super) replaced: u64,
}

/// How the unique keys of a queue stand.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct UniqueInfo {
    /// Keys that are held.
    pub held: u64,
    /// Jobs that were not enqueued because another held their keys, ever.
    pub duplicates: u64,
    /// Delayed jobs that gave way to others with their keys, ever.
    pub replaced: u64,
}

impl UniqueKeys {
    pub(super) fn is_empty(&self) -> bool {
        self.by_key.is_empty()
    }

    pub(super) fn info(&self) -> UniqueInfo {
        let Self { by_key, duplicates, replaced, .. } = self;
        UniqueInfo { held: by_key.len() as u64, duplicates: *duplicates, replaced: *replaced }
    }

    /// The keys that are held, by the offsets of their jobs.
    pub(super) fn iter(&self) -> impl Iterator<Item = HeldKey> {
        self.by_offset.iter().map(|(offset, (key, until_log_ms))| HeldKey {
            offset: *offset,
            key: Arc::clone(key),
            until_log_ms: *until_log_ms,
        })
    }

    /// False if the key is held already, or the job has another one.
    pub(super) fn insert(&mut self, held: HeldKey) -> bool {
        let HeldKey { offset, key, until_log_ms } = held;
        let job = self.by_offset.insert(offset, (Arc::clone(&key), until_log_ms));
        self.by_key.insert(key, offset).is_none() && job.is_none()
    }

    /// Frees the key of a job. Gives when it would have been free anyway.
    fn remove(&mut self, offset: Offset) -> Option<u64> {
        let (key, until_log_ms) = self.by_offset.remove(&offset)?;
        self.by_key.remove(&key);
        until_log_ms
    }
}

/// What may be asked for.
impl Machine {
    /// The job that holds a unique key.
    pub fn holder(&self, queue: QueueId, key: &[u8]) -> Option<Offset> {
        self.queues.get(&queue)?.unique.by_key.get(key).copied()
    }

    /// Whether a fact that is about to be applied frees the key that a job holds until it is done.
    pub fn frees(&self, queue: QueueId, fact: &Fact, offset: Offset) -> bool {
        let Some(state) = self.queues.get(&queue) else { return false };
        let held = state.unique.by_offset.get(&offset);
        let until_done = held.is_some_and(|(_, until_log_ms)| until_log_ms.is_none());
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
                _ => false,
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
        let mut plan = UniquePlan::default();
        let Some(state) = self.queues.get(&queue) else { return plan };
        let mut of_batch: BTreeMap<&[u8], (Offset, bool)> = BTreeMap::new();
        let mut gone = Vec::new();
        let mut duplicates = 0;
        for WishedKey { ordinal, key, window_ms, replace, delayed } in wishes {
            let offset = first.plus(u64::from(ordinal) - duplicates);
            let known = self.holder(queue, key).filter(|offset| !is_freed(*offset));
            let known = known.map(|offset| (offset, state.delays.get(offset).is_some()));
            if let Some((holder, waits)) = of_batch.get(key).copied().or(known) {
                let replaced = replace && waits;
                plan.hits.push(UniqueHit { ordinal, offset: holder, replaced });
                if !replaced {
                    duplicates += 1;
                    continue;
                }
                gone.push(holder);
            }
            of_batch.insert(key, (offset, delayed));
            let until_log_ms = window_ms.map(|ms| now_log_ms.saturating_add(ms));
            plan.keys.push(HeldKey { offset, key: key.into(), until_log_ms });
        }
        gone.sort_unstable();
        plan.keys.retain(|held| gone.binary_search(&held.offset).is_err());
        gone.into_iter().for_each(|offset| push_offset(&mut plan.replaced, offset));
        plan
    }
}

impl UniquePlan {
    /// Whether the job at this place of the batch is enqueued.
    pub fn is_new(&self, ordinal: u32) -> bool {
        let found = self.hits.binary_search_by_key(&ordinal, |hit| hit.ordinal);
        found.ok().and_then(|at| self.hits.get(at)).is_none_or(|hit| hit.replaced)
    }

    /// The facts that say so, behind the new jobs. `batch` is the number of the whole batch, and
    /// `first` and `count` what its producer is told.
    pub fn facts(
        self,
        queue: QueueId,
        batch: Option<Numbered>,
        first: Offset,
        count: u32,
    ) -> impl Iterator<Item = Fact> {
        let Self { keys, hits, replaced } = self;
        let cause = Removal::Replaced;
        let withdrawn = (!replaced.is_empty()).then_some(Fact::Job(JobFact::Withdrawn {
            queue,
            cause,
            runs: replaced,
        }));
        let held = (!keys.is_empty()).then_some(Fact::Job(JobFact::KeysHeld { queue, keys }));
        let hit = (!hits.is_empty()).then_some(Fact::Job(JobFact::UniqueHits {
            queue,
            batch,
            first,
            count,
            hits,
        }));
        [withdrawn, held, hit].into_iter().flatten()
    }
}

/// What facts and time do.
impl Machine {
    pub(super) fn keys_held(
        &mut self,
        queue: QueueId,
        keys: &[HeldKey],
    ) -> Result<(), Contradiction> {
        let state = self.queues.get_mut(&queue).ok_or(Contradiction::NoSuchQueue(queue))?;
        for held in keys {
            let offset = held.offset;
            if offset >= state.next || !state.unique.insert(held.clone()) {
                return Err(Contradiction::KeyTwice { queue, offset });
            }
            self.key_ends.extend(held.until_log_ms.map(|ms| (ms, queue, offset)));
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
        state.unique.replaced += replaced;
        state.unique.duplicates += hits.len() as u64 - replaced;
        match batch {
            Some(batch) => {
                self.apply_numbered(queue, batch, first, count, log_ms)?;
                self.remember_hits(queue, batch, hits);
                Ok(())
            }
            None => Ok(()),
        }
    }

    /// Frees the keys whose time is over.
    pub(super) fn advance_keys(&mut self, now_log_ms: u64) {
        while let Some(&(until_log_ms, queue, offset)) = self.key_ends.first()
            && until_log_ms <= now_log_ms
        {
            self.key_ends.pop_first();
            if let Some(state) = self.queues.get_mut(&queue) {
                state.unique.remove(offset);
            }
        }
    }

    /// Frees the keys of those jobs of `runs` that are done.
    pub(super) fn free_keys(&mut self, queue: QueueId, runs: &[Run]) {
        let holds = |state: &Queue| !state.unique.is_empty();
        if !self.queues.get(&queue).is_some_and(holds) {
            return;
        }
        for run in runs {
            let end = run.first.plus(u64::from(run.count));
            self.free_keys_within(queue, run.first..end);
        }
    }

    /// Frees the keys of all jobs of a queue that are done.
    pub(super) fn free_all_keys(&mut self, queue: QueueId) {
        self.free_keys_within(queue, ..);
    }

    /// Frees the keys of jobs that are done, of a part of a queue.
    pub(super) fn free_keys_within(&mut self, queue: QueueId, offsets: impl RangeBounds<Offset>) {
        let Some(state) = self.queues.get(&queue) else { return };
        let held = state.unique.by_offset.range(offsets);
        let until_done = held.filter(|(_, (_, until_log_ms))| until_log_ms.is_none());
        let done = until_done.filter(|(offset, _)| self.is_done(state, **offset));
        let done: Vec<_> = done.map(|(offset, _)| *offset).collect();
        if let Some(state) = self.queues.get_mut(&queue) {
            for offset in done {
                state.unique.remove(offset);
            }
        }
    }

    /// Frees the keys of jobs that gave way to others, also those that are held for a time.
    pub(super) fn free_replaced(&mut self, queue: QueueId, runs: &[Run]) {
        let Some(state) = self.queues.get_mut(&queue) else { return };
        for offset in runs.iter().flat_map(|run| run.offsets()) {
            if let Some(until_log_ms) = state.unique.remove(offset) {
                self.key_ends.remove(&(until_log_ms, queue, offset));
            }
        }
    }

    /// Forgets the keys of a queue that is deleted.
    pub(super) fn forget_keys(&mut self, queue: QueueId) {
        let Some(state) = self.queues.get(&queue) else { return };
        for held in state.unique.iter() {
            if let Some(until_log_ms) = held.until_log_ms {
                self.key_ends.remove(&(until_log_ms, queue, held.offset));
            }
        }
    }

    /// Whether a job is done in the queue's primary group; without that, in all groups that see it.
    fn is_done(&self, queue: &Queue, offset: Offset) -> bool {
        let primary = queue.groups.get(&queue.settings.primary_group);
        let primary = primary.and_then(|group| self.groups.get(group));
        if let Some(group) = primary {
            let withdrawn = group.kind == GroupKind::Stream && queue.has_withdrawn(offset);
            return withdrawn || group.consumed.contains(offset);
        }
        let groups = || queue.groups.values().filter_map(|group| self.groups.get(group));
        let seen = groups().any(|group| group.start <= offset);
        queue.gone.contains(offset)
            || queue.has_withdrawn(offset)
            || (seen && self.all_have_consumed(queue, offset))
    }

    /// Takes a key back; false if it can't be.
    fn restore_key(&mut self, queue: QueueId, held: HeldKey) -> bool {
        let Some(state) = self.queues.get_mut(&queue) else { return false };
        let (offset, until_log_ms) = (held.offset, held.until_log_ms);
        let ascends = state.unique.by_offset.last_key_value().is_none_or(|last| *last.0 < offset);
        let restored = offset < state.next && ascends && state.unique.insert(held);
        self.key_ends.extend(until_log_ms.map(|ms| (ms, queue, offset)));
        restored
    }
}

/// As records, and back.
impl Machine {
    /// All about unique keys, as records.
    pub(super) fn unique_records(&self, queue: QueueId) -> impl Iterator<Item = Record> {
        let state = self.queues.get(&queue).into_iter();
        let keys = state.clone().flat_map(|state| state.unique.iter());
        let counts = state.filter_map(move |state| {
            let UniqueInfo { duplicates, replaced, .. } = state.unique.info();
            let counts = Record::Job(JobRecord::Met { queue, duplicates, replaced });
            (duplicates + replaced > 0).then_some(counts)
        });
        let hits = self.all_hits(queue).into_iter().flat_map(move |(producer, sequence, hits)| {
            hits.chunks(HITS_PER_RECORD).map(move |hits| {
                Record::Job(JobRecord::Told { queue, producer, sequence, hits: hits.to_vec() })
            })
        });
        let keys = keys.map(move |held| Record::Job(JobRecord::Held { queue, held }));
        keys.chain(counts).chain(hits)
    }

    /// Takes a record back that is about unique keys.
    ///
    /// # Errors
    /// Why it can't be.
    pub(super) fn restore_unique(&mut self, record: Record) -> Result<(), &'static str> {
        check(self.groups.is_empty(), "unique keys come before groups")?;
        match record {
            Record::Job(JobRecord::Held { queue, held }) => {
                check(self.restore_key(queue, held), "the job can't hold this key")
            }
            Record::Job(JobRecord::Met { queue, duplicates, replaced }) => {
                let state = self.queues.get_mut(&queue).ok_or("its queue is missing")?;
                let UniqueInfo { duplicates: more, replaced: other, .. } = state.unique.info();
                check(more + other == 0, "the counts come twice")?;
                (state.unique.duplicates, state.unique.replaced) = (duplicates, replaced);
                Ok(())
            }
            Record::Job(JobRecord::Told { queue, producer, sequence, hits }) => {
                let fits = self.restore_hits(queue, producer, sequence, hits);
                check(fits, "no batch of a producer can have met these keys")
            }
            _ => Err("it is not about unique keys"),
        }
    }
}
