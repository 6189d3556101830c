//! Which batches a producer has enqueued lately, so that one that is sent again is known.
//!
//! A batch is remembered while its sequence number is among the last 64 up to the producer's
//! highest for the queue, and for a day after the producer's last batch.

use std::collections::BTreeMap;

use rustc_hash::FxHashMap;
use smallvec::SmallVec;

use super::UniqueHit;
use crate::types::{Offset, ProducerId};

/// How many sequence numbers up to the highest are remembered.
pub const PRODUCER_WINDOW: u64 = 64;

/// How long a producer is remembered after its last batch, in milliseconds of the log's clock.
pub const PRODUCER_KEPT_MS: u64 = 24 * 3_600 * 1_000;

/// A batch as its producer numbers it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Numbered {
    /// The producer.
    pub producer: ProducerId,
    /// The number.
    pub sequence: u64,
    /// A checksum over the batch's job table, to tell it from another one of the same number.
    pub fingerprint: u32,
}

/// A batch that was enqueued.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EnqueuedBatch {
    /// Its number.
    pub sequence: u64,
    /// The offset of its first job.
    pub first: Offset,
    /// How many jobs.
    pub count: u32,
    /// The checksum over its job table.
    pub fingerprint: u32,
}

/// What is known of a numbered batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Known {
    /// Nothing: it is new.
    New,
    /// It is enqueued.
    Enqueued(EnqueuedBatch),
    /// Another batch had its number.
    Another,
    /// Its number is below the window: nobody knows.
    TooOld {
        /// The lowest number that is known.
        least: u64,
    },
}

/// The producers of one queue.
#[derive(Debug, Default)]
pub(super) struct Producers(FxHashMap<ProducerId, KnownProducer>);

#[derive(Debug)]
struct KnownProducer {
    /// When it enqueued last.
    last_log_ms: u64,
    /// When it is looked at whether to forget it; its key among the deadlines.
    check_log_ms: u64,
    /// Its batches within the window, ascending.
    batches: SmallVec<[EnqueuedBatch; 1]>,
    /// The unique keys that were held, by the numbers of those batches that met any.
    hits: BTreeMap<u64, Vec<UniqueHit>>,
}

impl KnownProducer {
    fn new(log_ms: u64) -> Self {
        let check_log_ms = log_ms.saturating_add(PRODUCER_KEPT_MS);
        let (batches, hits) = (SmallVec::new(), BTreeMap::new());
        Self { last_log_ms: log_ms, check_log_ms, batches, hits }
    }

    fn highest(&self) -> u64 {
        self.batches.last().map_or(0, |batch| batch.sequence)
    }

    fn find(&self, sequence: u64) -> Result<&EnqueuedBatch, usize> {
        let at = self.batches.binary_search_by_key(&sequence, |batch| batch.sequence)?;
        self.batches.get(at).ok_or(at)
    }

    /// Remembers a batch; false if its number is taken or below the window.
    fn add(&mut self, batch: EnqueuedBatch) -> bool {
        let Err(at) = self.find(batch.sequence) else { return false };
        if batch.sequence < least(self.highest()) {
            return false;
        }
        self.batches.insert(at, batch);
        let least = least(self.highest());
        let gone = self.batches.iter().take_while(|batch| batch.sequence < least).count();
        self.batches.drain(..gone);
        while self.hits.first_key_value().is_some_and(|(sequence, _)| *sequence < least) {
            self.hits.pop_first();
        }
        true
    }
}

/// The lowest number within the window.
fn least(highest: u64) -> u64 {
    (highest + 1).saturating_sub(PRODUCER_WINDOW)
}

impl Producers {
    /// What is known of a batch that may have been sent before.
    pub(super) fn known(&self, batch: Numbered) -> Known {
        let Some(producer) = self.0.get(&batch.producer) else { return Known::New };
        match producer.find(batch.sequence) {
            Ok(known) if known.fingerprint == batch.fingerprint => Known::Enqueued(*known),
            Ok(_) => Known::Another,
            Err(_) => match least(producer.highest()) {
                least if batch.sequence < least => Known::TooOld { least },
                _ => Known::New,
            },
        }
    }

    /// Remembers a batch; false if its number is taken or below the window. With that, when its
    /// producer is looked at, if it is new.
    pub(super) fn add(
        &mut self,
        id: ProducerId,
        batch: EnqueuedBatch,
        log_ms: u64,
    ) -> (bool, Option<u64>) {
        let mut check_log_ms = None;
        let producer = self.0.entry(id).or_insert_with(|| {
            let producer = KnownProducer::new(log_ms);
            check_log_ms = Some(producer.check_log_ms);
            producer
        });
        producer.last_log_ms = log_ms;
        (producer.add(batch), check_log_ms)
    }

    /// Looks at a producer when its time has come, and forgets it if it has not been heard of for
    /// a day. Otherwise, when it is looked at again.
    pub(super) fn check(&mut self, id: ProducerId, now_log_ms: u64) -> Option<u64> {
        let producer = self.0.get_mut(&id)?;
        let end_log_ms = producer.last_log_ms.saturating_add(PRODUCER_KEPT_MS);
        if end_log_ms <= now_log_ms {
            self.0.remove(&id);
            return None;
        }
        producer.check_log_ms = end_log_ms;
        Some(end_log_ms)
    }

    /// When each producer is looked at.
    pub(super) fn checks(&self) -> impl Iterator<Item = (ProducerId, u64)> {
        self.0.iter().map(|(id, producer)| (*id, producer.check_log_ms))
    }

    /// Remembers what a batch was told of its unique keys.
    pub(super) fn remember_hits(&mut self, batch: Numbered, hits: &[UniqueHit]) {
        if let Some(producer) = self.0.get_mut(&batch.producer) {
            producer.hits.insert(batch.sequence, hits.to_vec());
        }
    }

    /// What a batch that is enqueued was told of its unique keys.
    pub(super) fn hits_of(&self, batch: Numbered) -> &[UniqueHit] {
        let producer = self.0.get(&batch.producer);
        producer.and_then(|producer| producer.hits.get(&batch.sequence)).map_or(&[], Vec::as_slice)
    }

    /// What batches were told of their unique keys, by producer and number.
    pub(super) fn all_hits(&self) -> Vec<(ProducerId, u64, &[UniqueHit])> {
        let producers = self.0.iter();
        let mut hits: Vec<_> = producers
            .flat_map(|(id, producer)| producer.hits.iter().map(|(n, hits)| (*id, *n, &hits[..])))
            .collect();
        hits.sort_unstable_by_key(|(id, sequence, _)| (*id, *sequence));
        hits
    }

    /// Every producer by id: when it enqueued last, and its batches.
    pub(super) fn all(&self) -> Vec<(ProducerId, u64, SmallVec<[EnqueuedBatch; 1]>)> {
        let parts = |(id, producer): (&ProducerId, &KnownProducer)| {
            (*id, producer.last_log_ms, producer.batches.clone())
        };
        let mut producers: Vec<_> = self.0.iter().map(parts).collect();
        producers.sort_unstable_by_key(|(id, ..)| *id);
        producers
    }

    /// Takes a producer back from a record, and says when it is looked at; none if it can't be so.
    pub(super) fn restore(
        &mut self,
        id: ProducerId,
        last_log_ms: u64,
        batches: SmallVec<[EnqueuedBatch; 1]>,
    ) -> Option<u64> {
        let ascends = batches.is_sorted_by(|one, next| one.sequence < next.sequence);
        let lowest = batches.first().map_or(0, |batch| batch.sequence);
        let mut producer = KnownProducer::new(last_log_ms);
        producer.batches = batches;
        let fits = ascends && lowest > 0 && lowest >= least(producer.highest());
        let check_log_ms = producer.check_log_ms;
        let is_new = self.0.insert(id, producer).is_none();
        (fits && is_new).then_some(check_log_ms)
    }

    /// Takes back a part of what a batch was told; false if it can't be.
    pub(super) fn restore_hits(
        &mut self,
        id: ProducerId,
        sequence: u64,
        hits: Vec<UniqueHit>,
    ) -> bool {
        let Some(producer) = self.0.get_mut(&id) else { return false };
        let Ok(batch) = producer.find(sequence).copied() else { return false };
        let all = producer.hits.entry(sequence).or_default();
        all.extend(hits);
        let ascends = all.is_sorted_by(|one, next| one.ordinal < next.ordinal);
        ascends && all.last().is_some_and(|last| last.ordinal < batch.count)
    }
}
