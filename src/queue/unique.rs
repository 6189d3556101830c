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
use std::ops::Range;
use std::sync::Arc;

use super::{Fact, JobFact, Numbered, Removal, Runs, runs_of};
use crate::types::{Offset, QueueId};

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
    duplicates: u64,
    /// How many jobs gave way to others, ever.
    replaced: u64,
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

    /// The job that holds a key.
    pub(super) fn holder(&self, key: &[u8]) -> Option<Offset> {
        self.by_key.get(key).copied()
    }

    /// The jobs within a range that hold their keys until they are done.
    pub(super) fn until_done(&self, range: Range<Offset>) -> impl Iterator<Item = Offset> {
        let held = self.by_offset.range(range);
        held.filter(|(_, (_, until_log_ms))| until_log_ms.is_none()).map(|(offset, _)| *offset)
    }

    /// Counts the jobs of a batch that met held keys.
    pub(super) fn count(&mut self, duplicates: u64, replaced: u64) {
        self.duplicates += duplicates;
        self.replaced += replaced;
    }

    /// What becomes of the jobs of a batch that have unique keys, in their order. `first` is the
    /// offset that the first new job of the batch gets; `is_freed` says of a job whether its key
    /// is set free with the batch, and `is_delayed` whether it is not due.
    pub(super) fn plan<'a>(
        &self,
        first: Offset,
        wishes: impl IntoIterator<Item = WishedKey<'a>>,
        now_log_ms: u64,
        is_freed: impl Fn(Offset) -> bool,
        is_delayed: impl Fn(Offset) -> bool,
    ) -> UniquePlan {
        let mut plan = UniquePlan::default();
        let mut of_batch: BTreeMap<&[u8], (Offset, bool)> = BTreeMap::new();
        let mut gone = Vec::new();
        let mut duplicates = 0;
        for WishedKey { ordinal, key, window_ms, replace, delayed } in wishes {
            let offset = first.plus(u64::from(ordinal) - duplicates);
            let known = self.holder(key).filter(|offset| !is_freed(*offset));
            let known = known.map(|offset| (offset, is_delayed(offset)));
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
        plan.replaced = runs_of(&mut gone);
        plan.keys.retain(|held| gone.binary_search(&held.offset).is_err());
        plan
    }

    /// Takes a key back from a record; false if it is not behind all others, or held.
    pub(super) fn restore(&mut self, held: HeldKey) -> bool {
        let last = self.by_offset.last_key_value();
        last.is_none_or(|last| *last.0 < held.offset) && self.insert(held)
    }

    /// False if the key is held already, or the job has another one.
    pub(super) fn insert(&mut self, held: HeldKey) -> bool {
        let HeldKey { offset, key, until_log_ms } = held;
        let job = self.by_offset.insert(offset, (Arc::clone(&key), until_log_ms));
        self.by_key.insert(key, offset).is_none() && job.is_none()
    }

    /// Frees the key of a job. Gives when it would have been free anyway.
    pub(super) fn remove(&mut self, offset: Offset) -> Option<u64> {
        let (key, until_log_ms) = self.by_offset.remove(&offset)?;
        self.by_key.remove(&key);
        until_log_ms
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
        let has_hits = !hits.is_empty();
        let cause = Removal::Replaced;
        let withdrawn =
            (!replaced.is_empty()).then_some(JobFact::Withdrawn { queue, cause, runs: replaced });
        let held = (!keys.is_empty()).then_some(JobFact::KeysHeld { queue, keys });
        let hit = JobFact::UniqueHits { queue, batch, first, count, hits };
        let hit = has_hits.then_some(hit);
        [withdrawn, held, hit].into_iter().flatten().map(Fact::Job)
    }
}
