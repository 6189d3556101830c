//! ENQUEUE.

use bytes::{BufMut, BytesMut};

use crate::job::Batch;
use crate::wire::{DecodeError, Reader, in_range, put_name};

/// Flag: refuse with `NO_SUCH_QUEUE` rather than create a missing queue.
const FLAG_NO_CREATE: u8 = 0x01;

/// Flag: a producer and its sequence number follow.
const FLAG_PRODUCER: u8 = 0x02;

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

    /// Reads the body. The jobs themselves are checked by [`Batch::check`].
    ///
    /// # Errors
    /// [`DecodeError`].
    pub fn decode(body: &'a [u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(body);
        let enqueue = Self::read(&mut reader)?;
        reader.finish()?;
        Ok(enqueue)
    }

    /// Reads it from the rest of a body, to its end.
    pub(crate) fn read(reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
        let queue = reader.name()?;
        let flags = reader.u8()?;
        if flags & !(FLAG_NO_CREATE | FLAG_PRODUCER) != 0 {
            return Err(DecodeError::Reserved { field: "ENQUEUE flags", value: flags.into() });
        }
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
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EnqueueReply {
    /// The offset of the first job; the others follow without a gap.
    pub first_offset: u64,
    /// Jobs taken.
    pub count: u32,
    /// Whether the queue was created for them.
    pub created: bool,
}

impl EnqueueReply {
    /// Appends the body.
    pub fn encode(&self, out: &mut BytesMut) {
        out.put_u64_le(self.first_offset);
        out.put_u32_le(self.count);
        out.put_u8(u8::from(self.created));
    }

    /// Reads the body.
    ///
    /// # Errors
    /// [`DecodeError`].
    pub fn decode(body: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(body);
        let reply = Self::read(&mut reader)?;
        reader.finish()?;
        Ok(reply)
    }

    pub(crate) fn read(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let (first_offset, count) = (reader.u64()?, reader.u32()?);
        Ok(Self { first_offset, count, created: reader.u8()? != 0 })
    }
}
