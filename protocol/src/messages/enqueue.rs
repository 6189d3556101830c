//! ENQUEUE.

use bytes::{BufMut, BytesMut};

use crate::job::Batch;
use crate::wire::{DecodeError, Reader, put_name};

/// Flag: refuse with `NO_SUCH_QUEUE` rather than create a missing queue.
const FLAG_NO_CREATE: u8 = 0x01;

/// ENQUEUE: a batch of jobs for one queue; all of them are taken, or none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Enqueue<'a> {
    /// The queue.
    pub queue: &'a str,
    /// Whether a missing queue may be created, if the server allows that.
    pub create: bool,
    /// The jobs.
    pub batch: Batch<'a>,
}

impl<'a> Enqueue<'a> {
    /// Appends the body.
    pub fn encode(&self, out: &mut BytesMut) {
        put_name(out, self.queue);
        out.put_u8(if self.create { 0 } else { FLAG_NO_CREATE });
        self.batch.encode(out);
    }

    /// Reads the body. The jobs themselves are checked by [`Batch::check`].
    ///
    /// # Errors
    /// [`DecodeError`].
    pub fn decode(body: &'a [u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(body);
        let queue = reader.name()?;
        let flags = reader.u8()?;
        if flags & !FLAG_NO_CREATE != 0 {
            return Err(DecodeError::Reserved { field: "ENQUEUE flags", value: flags.into() });
        }
        let batch = Batch::decode(&mut reader)?;
        reader.finish()?;
        Ok(Self { queue, create: flags & FLAG_NO_CREATE == 0, batch })
    }
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
        let reply =
            Self { first_offset: reader.u64()?, count: reader.u32()?, created: reader.u8()? != 0 };
        reader.finish()?;
        Ok(reply)
    }
}
