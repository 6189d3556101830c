//! Which batches a producer has enqueued lately, so that one that is sent again is known.
//!
//! A batch is remembered while its sequence number is among the last 64 up to the producer's
//! highest for the queue, and for a day after the producer's last batch.

use std::collections::BTreeMap;

use smallvec::SmallVec;

use super::{Contradiction, Machine, UniqueHit};
use crate::types::{Offset, ProducerId, QueueId};

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

/// A producer of one queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Producer {
    /// When it enqueued last.
    last_log_ms: u64,
    /// When it is looked at whether to forget it; its key in the machine's order.
    check_log_ms: u64,
    /// Its batches within the window, ascending.
    batches: SmallVec<[EnqueuedBatch; 1]>,
    /// The unique keys that were held, by the numbers of those batches that met any.
    hits: BTreeMap<u64, Vec<UniqueHit>>,
}

impl Producer {
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

impl Machine {
    /// What is known of a batch that may have been sent before.
    pub fn known(&self, queue: QueueId, batch: Numbered) -> Known {
        let state = self.queues.get(&queue);
        let Some(producer) = state.and_then(|state| state.producers.get(&batch.producer)) else {
            return Known::New;
        };
        match producer.find(batch.sequence) {
            Ok(known) if known.fingerprint == batch.fingerprint => Known::Enqueued(*known),
            Ok(_) => Known::Another,
            Err(_) => match least(producer.highest()) {
                least if batch.sequence < least => Known::TooOld { least },
                _ => Known::New,
            },
        }
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
        let Numbered { producer: id, sequence, fingerprint } = batch;
        let state = self.queues.get_mut(&queue).ok_or(Contradiction::NoSuchQueue(queue))?;
        let producer = state.producers.entry(id).or_insert_with(|| {
            let producer = Producer::new(log_ms);
            self.producer_checks.insert((producer.check_log_ms, queue, id));
            producer
        });
        producer.last_log_ms = log_ms;
        if !producer.add(EnqueuedBatch { sequence, first, count, fingerprint }) {
            return Err(Contradiction::SequenceTwice { queue, sequence });
        }
        Ok(())
    }

    /// Remembers what a batch was told of its unique keys.
    pub(super) fn remember_hits(&mut self, queue: QueueId, batch: Numbered, hits: &[UniqueHit]) {
        let state = self.queues.get_mut(&queue);
        let producer = state.and_then(|state| state.producers.get_mut(&batch.producer));
        if let Some(producer) = producer {
            producer.hits.insert(batch.sequence, hits.to_vec());
        }
    }

    /// What a batch that is enqueued was told of its unique keys.
    pub fn hits_of(&self, queue: QueueId, batch: Numbered) -> &[UniqueHit] {
        let producer =
            self.queues.get(&queue).and_then(|state| state.producers.get(&batch.producer));
        producer.and_then(|producer| producer.hits.get(&batch.sequence)).map_or(&[], Vec::as_slice)
    }

    /// What batches of a queue were told of their unique keys, by producer and number.
    pub(super) fn all_hits(&self, queue: QueueId) -> Vec<(ProducerId, u64, &[UniqueHit])> {
        let producers = self.queues.get(&queue).into_iter().flat_map(|state| &state.producers);
        let mut hits: Vec<_> = producers
            .flat_map(|(id, producer)| producer.hits.iter().map(|(n, hits)| (*id, *n, &hits[..])))
            .collect();
        hits.sort_unstable_by_key(|(id, sequence, _)| (*id, *sequence));
        hits
    }

    /// Takes back a part of what a batch was told; false if it can't be.
    pub(super) fn restore_hits(
        &mut self,
        queue: QueueId,
        id: ProducerId,
        sequence: u64,
        hits: Vec<UniqueHit>,
    ) -> bool {
        let producer = self.queues.get_mut(&queue).and_then(|state| state.producers.get_mut(&id));
        let Some(producer) = producer else { return false };
        let Ok(batch) = producer.find(sequence).copied() else { return false };
        let all = producer.hits.entry(sequence).or_default();
        all.extend(hits);
        let ascends = all.is_sorted_by(|one, next| one.ordinal < next.ordinal);
        ascends && all.last().is_some_and(|last| last.ordinal < batch.count)
    }

    /// How many producers are remembered.
    pub fn producer_count(&self) -> usize {
        self.producer_checks.len()
    }

    /// Forgets the producers that have not been heard of for a day.
    pub(super) fn forget_producers(&mut self, now_log_ms: u64) {
        while let Some(&(check_log_ms, queue, id)) = self.producer_checks.first()
            && check_log_ms <= now_log_ms
        {
            self.producer_checks.pop_first();
            let Some(state) = self.queues.get_mut(&queue) else { continue };
            let Some(producer) = state.producers.get_mut(&id) else { continue };
            let end_log_ms = producer.last_log_ms.saturating_add(PRODUCER_KEPT_MS);
            if end_log_ms <= now_log_ms {
                state.producers.remove(&id);
            } else {
                producer.check_log_ms = end_log_ms;
                self.producer_checks.insert((end_log_ms, queue, id));
            }
        }
    }

    /// Forgets the producers of a queue that is deleted.
    pub(super) fn forget_producers_of(&mut self, queue: QueueId) {
        let Some(state) = self.queues.get_mut(&queue) else { return };
        for (id, producer) in state.producers.drain() {
            self.producer_checks.remove(&(producer.check_log_ms, queue, id));
        }
    }

    /// The producers of a queue, by id: when each enqueued last, and its batches.
    pub(super) fn producers_of(
        &self,
        queue: QueueId,
    ) -> Vec<(ProducerId, u64, SmallVec<[EnqueuedBatch; 1]>)> {
        let state = self.queues.get(&queue);
        let producers = state.into_iter().flat_map(|state| &state.producers);
        let parts = |(id, producer): (&ProducerId, &Producer)| {
            (*id, producer.last_log_ms, producer.batches.clone())
        };
        let mut producers: Vec<_> = producers.map(parts).collect();
        producers.sort_unstable_by_key(|(id, ..)| *id);
        producers
    }

    /// Takes a producer back from a record; false if it can't be.
    pub(super) fn restore_producer(
        &mut self,
        queue: QueueId,
        id: ProducerId,
        last_log_ms: u64,
        batches: SmallVec<[EnqueuedBatch; 1]>,
    ) -> bool {
        let Some(state) = self.queues.get_mut(&queue) else { return false };
        let ascends = batches.is_sorted_by(|one, next| one.sequence < next.sequence);
        let lowest = batches.first().map_or(0, |batch| batch.sequence);
        let mut producer = Producer::new(last_log_ms);
        producer.batches = batches;
        let fits = ascends && lowest > 0 && lowest >= least(producer.highest());
        let check_log_ms = producer.check_log_ms;
        if !fits || state.producers.insert(id, producer).is_some() {
            return false;
        }
        self.producer_checks.insert((check_log_ms, queue, id))
    }
}
