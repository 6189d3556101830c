//! ENQUEUE.

use bytes::{BufMut, BytesMut};

use crate::job::Batch;
use crate::wire::{DecodeError, Reader, in_range, put_name};

/// Flag: refuse with `NO_SUCH_QUEUE` rather than create a missing queue.
const FLAG_NO_CREATE: u8 = 0x01;

/// Flag: a producer and its sequence number follow.
const FLAG_PRODUCER: u8 = 0x02;

/// Flag of the reply: the queue was created.
const FLAG_CREATED: u8 = 0x01;

/// Flag of the reply: hits follow.
const FLAG_HITS: u8 = 0x02;

/// Who sends a batch, so that the server knows it when it comes again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Producer {
    /// 128 random bits, the same for all batches of one producer; not all zero.
    pub id: [u8; 16],
    /// The number of the batch among those that the producer sends to the queue: at least 1,
    /// higher for each new one.
    pub sequence: u64,
}

/// ENQUEUE: a batch of jobs for one queue; all of them are taken, or none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Enqueue<'a> {
    /// The queue.
    pub queue: &'a str,
    /// Whether a missing queue may be created, if the server allows that.
    pub create: bool,
    /// Who sends it; without that, a batch that is sent twice is enqueued twice.
    pub producer: Option<Producer>,
    /// The jobs.
    pub batch: Batch<'a>,
}

impl<'a> Enqueue<'a> {
    /// Appends the body.
    pub fn encode(&self, out: &mut BytesMut) {
        put_name(out, self.queue);
        let no_create = if self.create { 0 } else { FLAG_NO_CREATE };
        let producer = self.producer.map_or(0, |_| FLAG_PRODUCER);
        out.put_u8(no_create | producer);
        if let Some(Producer { id, sequence }) = &self.producer {
            out.put_slice(id);
            out.put_u64_le(*sequence);
        }
        self.batch.encode(out);
    }

    /// Reads it from the rest of a body, to its end.
    pub(super) fn read_from(reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
        let queue = reader.name()?;
        let flags = reader.flags("ENQUEUE flags", FLAG_NO_CREATE | FLAG_PRODUCER)?;
        let has_producer = flags & FLAG_PRODUCER != 0;
        let producer = has_producer.then(|| read_producer(reader)).transpose()?;
        let batch = Batch::decode(reader)?;
        Ok(Self { queue, create: flags & FLAG_NO_CREATE == 0, producer, batch })
    }
}

fn read_producer(reader: &mut Reader<'_>) -> Result<Producer, DecodeError> {
    let producer = Producer { id: reader.array()?, sequence: reader.u64()? };
    in_range("producer", u64::from(producer.id != [0; 16]), 1..=1, "not all zero")?;
    in_range("sequence", producer.sequence, 1..=u64::MAX, "at least 1")?;
    Ok(producer)
}

/// The reply to ENQUEUE.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EnqueueReply {
    /// The offset of the first job that is new; the other new ones follow without a gap. What it
    /// would have been if there is none.
    pub first_offset: u64,
    /// Jobs of the batch.
    pub count: u32,
    /// Whether the queue was created for them.
    pub created: bool,
    /// The jobs whose unique keys were held already, by their places in the batch.
    pub hits: Vec<UniqueHit>,
}

/// A job of a batch whose unique key another job held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UniqueHit {
    /// The place of the job in the batch, from 0.
    pub ordinal: u32,
    /// Whether the other job was withdrawn, and this one is new; otherwise this one is not
    /// enqueued.
    pub replaced: bool,
    /// The offset of the other job.
    pub offset: u64,
}

/// What became of one job of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EnqueueOutcome {
    /// It is enqueued.
    New {
        /// Its offset.
        offset: u64,
    },
    /// It is not enqueued: another job holds its unique key.
    Duplicate {
        /// The offset of that one.
        offset: u64,
    },
    /// It is enqueued in the place of a job that was delayed and held its unique key.
    Replaced {
        /// Its offset.
        offset: u64,
        /// The offset of the other one, which was withdrawn.
        old: u64,
    },
}

impl EnqueueOutcome {
    /// The offset of the job that is in the queue for this one.
    pub fn offset(self) -> u64 {
        match self {
            Self::New { offset } | Self::Duplicate { offset } | Self::Replaced { offset, .. } => {
                offset
            }
        }
    }
}

impl EnqueueReply {
    /// What became of each job of the batch, in its order.
    pub fn outcomes(&self) -> impl Iterator<Item = EnqueueOutcome> {
        let mut hits = self.hits.iter().peekable();
        let mut next = self.first_offset;
        (0..self.count).map(move |ordinal| {
            let hit = hits.next_if(|hit| hit.ordinal == ordinal);
            if let Some(UniqueHit { replaced: false, offset, .. }) = hit {
                return EnqueueOutcome::Duplicate { offset: *offset };
            }
            let offset = next;
            next = next.saturating_add(1);
            match hit {
                Some(hit) => EnqueueOutcome::Replaced { offset, old: hit.offset },
                None => EnqueueOutcome::New { offset },
            }
        })
    }

    /// Appends the body.
    pub fn encode(&self, out: &mut BytesMut) {
        out.put_u64_le(self.first_offset);
        out.put_u32_le(self.count);
        let created = if self.created { FLAG_CREATED } else { 0 };
        if self.hits.is_empty() {
            return out.put_u8(created);
        }
        out.put_u8(created | FLAG_HITS);
        out.put_u32_le(self.hits.len() as u32);
        for hit in &self.hits {
            out.put_u32_le(hit.ordinal);
            out.put_u8(u8::from(hit.replaced));
            out.put_u64_le(hit.offset);
        }
    }

    pub(super) fn read_from(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let (first_offset, count) = (reader.u64()?, reader.u32()?);
        let flags = reader.u8()?;
        let created = flags & FLAG_CREATED != 0;
        let mut hits: Vec<UniqueHit> = Vec::new();
        let hit_count = if flags & FLAG_HITS != 0 { reader.u32()? } else { 0 };
        for _ in 0..hit_count {
            let ordinal = reader.u32()?;
            let least = hits.last().map_or(0, |last| last.ordinal.saturating_add(1));
            let allowed = "ascending, and below the number of jobs";
            let most = u64::from(count).saturating_sub(1);
            in_range("ordinal", ordinal.into(), least.into()..=most, allowed)?;
            let (replaced, offset) = (reader.u8()? != 0, reader.u64()?);
            hits.push(UniqueHit { ordinal, replaced, offset });
        }
        Ok(Self { first_offset, count, created, hits })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_new_jobs_have_the_offsets_that_follow_each_other() {
        let hits = vec![
            UniqueHit { ordinal: 1, replaced: false, offset: 2 },
            UniqueHit { ordinal: 3, replaced: true, offset: 9 },
        ];
        let reply = EnqueueReply { first_offset: 50, count: 5, created: false, hits };
        let outcomes: Vec<_> = reply.outcomes().collect();
        let expected = [
            EnqueueOutcome::New { offset: 50 },
            EnqueueOutcome::Duplicate { offset: 2 },
            EnqueueOutcome::New { offset: 51 },
            EnqueueOutcome::Replaced { offset: 52, old: 9 },
            EnqueueOutcome::New { offset: 53 },
        ];
        assert_eq!(outcomes, expected);
        let mut body = BytesMut::new();
        reply.encode(&mut body);
        assert_eq!(EnqueueReply::decode(&body), Ok(reply.clone()));
        // An ordinal that the batch does not have, and one that comes twice.
        for ordinal in [5, 1] {
            let mut wrong = reply.clone();
            wrong.hits[1].ordinal = ordinal;
            let mut body = BytesMut::new();
            wrong.encode(&mut body);
            assert!(EnqueueReply::decode(&body).is_err(), "{ordinal}");
        }
        let none = [&[0; 12][..], &[2, 1, 0, 0, 0]].concat();
        assert!(EnqueueReply::decode(&none).is_err());
    }
}
