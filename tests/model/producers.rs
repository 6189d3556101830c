//! Batches that are numbered, sent again, numbered wrongly, or too old to be known.

use std::collections::BTreeMap;

use joblog::queue::{EnqueuedBatch, Known, Numbered, PRODUCER_KEPT_MS, PRODUCER_WINDOW, UniqueHit};
use joblog::types::{Offset, ProducerId, QueueId};

use crate::world::World;

/// What one producer has enqueued to one queue.
#[derive(Debug, Default)]
pub(crate) struct Batches {
    by_number: BTreeMap<u64, EnqueuedBatch>,
    last_log_ms: u64,
    /// What batches were told of unique keys that were held.
    told: BTreeMap<u64, Vec<UniqueHit>>,
}

impl World {
    /// A number for a batch, or none at all; nothing if the batch is not to be enqueued.
    pub(crate) fn number_of_new(&mut self, queue: QueueId) -> Option<Option<Numbered>> {
        if self.rng.below(4) == 0 {
            return Some(None);
        }
        let producer = ProducerId([1 + self.rng.below(2) as u8; 16]);
        let batches = self.producers.get(&(queue, producer));
        let highest = batches.and_then(|batches| batches.by_number.keys().last().copied());
        let highest = highest.unwrap_or(0);
        let sequence = match self.rng.below(4) {
            0 => 1 + self.rng.below(highest + 2),
            // Numbers may be left out.
            _ => highest + 1 + self.rng.below(12),
        };
        let other = u32::from(self.rng.below(8) == 0);
        let fingerprint = sequence as u32 + other;
        let numbered = Numbered { producer, sequence, fingerprint };
        let batch = self.producers.get(&(queue, producer));
        let batch = batch.and_then(|batches| batches.by_number.get(&sequence));
        let least = (highest + 1).saturating_sub(PRODUCER_WINDOW);
        let (expected, what) = match batch {
            _ if sequence < least => (Known::TooOld { least }, "too old"),
            Some(batch) if batch.fingerprint == fingerprint => {
                (Known::Enqueued(*batch), "sent again")
            }
            Some(_) => (Known::Another, "number taken"),
            None => (Known::New, "numbered"),
        };
        assert_eq!(self.machine.known(queue, numbered), expected);
        if what == "sent again" {
            let told = &self.producers[&(queue, producer)].told;
            let told = told.get(&sequence).map_or(&[][..], Vec::as_slice);
            assert_eq!(self.machine.hits_of(queue, numbered), told);
            if !told.is_empty() {
                self.seen.insert("told again");
            }
        }
        self.seen.insert(what);
        (expected == Known::New).then_some(Some(numbered))
    }

    pub(crate) fn note_numbered(
        &mut self,
        queue: QueueId,
        numbered: Option<Numbered>,
        first: Offset,
        count: u32,
    ) {
        if numbered.is_none() {
            return;
        }
        let log_ms = self.log_ms;
        self.machine.apply_numbered(queue, numbered.unwrap(), first, count, log_ms).unwrap();
        self.note_batch(queue, numbered.unwrap(), first, count, Vec::new());
    }

    pub(crate) fn note_batch(
        &mut self,
        queue: QueueId,
        numbered: Numbered,
        first: Offset,
        count: u32,
        told: Vec<UniqueHit>,
    ) {
        let Numbered { producer, sequence, fingerprint } = numbered;
        let log_ms = self.log_ms;
        let batches = self.producers.entry((queue, producer)).or_default();
        batches.by_number.insert(sequence, EnqueuedBatch { sequence, first, count, fingerprint });
        batches.last_log_ms = log_ms;
        batches.told.insert(sequence, told);
    }

    pub(crate) fn forget_producers(&mut self) {
        let before = self.producers.len();
        let log_ms = self.log_ms;
        self.producers.retain(|_, batches| batches.last_log_ms + PRODUCER_KEPT_MS > log_ms);
        assert_eq!(self.machine.producer_count(), self.producers.len());
        if self.producers.len() < before {
            self.seen.insert("forgotten");
        }
    }
}
