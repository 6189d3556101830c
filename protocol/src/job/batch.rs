//! A batch of jobs: their table, and their bodies behind each other.

use std::ops::Range;

use bytes::{BufMut, BytesMut};

use super::{Asked, Job, check_body};
use crate::error_code::ErrorCode;
use crate::limits::{BATCH_BYTES_MAX, BATCH_JOBS_MAX};
use crate::wire::{DecodeError, Reader};

/// Bytes of one row of the job table.
pub const TABLE_ROW_BYTES: usize = 12;

/// One row of the job table: the only place that knows its layout.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TableRow {
    /// Where the job's body ends within the bodies; the next one begins there.
    pub end: u32,
    /// Reserved: 0.
    pub flags: u32,
    /// crc32 (IEEE) of the body, made by the producer.
    pub crc32: u32,
}

impl TableRow {
    /// The row's bytes.
    pub fn encode(self) -> [u8; TABLE_ROW_BYTES] {
        let [e0, e1, e2, e3] = self.end.to_le_bytes();
        let [f0, f1, f2, f3] = self.flags.to_le_bytes();
        let [c0, c1, c2, c3] = self.crc32.to_le_bytes();
        [e0, e1, e2, e3, f0, f1, f2, f3, c0, c1, c2, c3]
    }

    /// Reads a row.
    #[inline]
    pub fn decode(row: &[u8; TABLE_ROW_BYTES]) -> Self {
        let [e0, e1, e2, e3, f0, f1, f2, f3, c0, c1, c2, c3] = *row;
        let number = u32::from_le_bytes;
        Self {
            end: number([e0, e1, e2, e3]),
            flags: number([f0, f1, f2, f3]),
            crc32: number([c0, c1, c2, c3]),
        }
    }

    /// The rows of a table.
    #[inline]
    pub fn all(table: &[u8]) -> impl ExactSizeIterator<Item = Self> {
        rows(table).iter().map(Self::decode)
    }
}

fn rows(table: &[u8]) -> &[[u8; TABLE_ROW_BYTES]] {
    table.as_chunks().0
}

/// Where the body of a job lies within the bodies.
#[inline]
pub fn body_range(table: &[u8], ordinal: u32) -> Option<Range<usize>> {
    let rows = rows(table);
    let end_of = |ordinal: usize| rows.get(ordinal).map(|row| TableRow::decode(row).end as usize);
    let begin = match ordinal.checked_sub(1) {
        Some(before) => end_of(before as usize)?,
        None => 0,
    };
    Some(begin..end_of(ordinal as usize)?)
}

/// A job as it travels and is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EncodedJob<'a> {
    /// The flags of its row.
    pub flags: u32,
    /// The crc32 of its row.
    pub crc32: u32,
    /// Its body.
    pub body: &'a [u8],
}

impl<'a> EncodedJob<'a> {
    /// The job with this body, as a producer sends it.
    pub fn new(body: &'a [u8]) -> Self {
        Self { flags: 0, crc32: crc32fast::hash(body), body }
    }
}

/// Why a job or a batch is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum JobError {
    /// The batch's fields do not fit together, or it is over a limit.
    #[error(transparent)]
    Decode(#[from] DecodeError),
    /// A row's end lies before its start or behind the bodies.
    #[error("job {ordinal} of the batch ends at byte {end}; allowed are {start} to {bodies}")]
    End {
        /// Which job of the batch, from 0.
        ordinal: usize,
        /// The end given.
        end: usize,
        /// Where its body starts.
        start: usize,
        /// Bytes of all bodies.
        bodies: usize,
    },
    /// A body is over the limit.
    #[error("job {ordinal} of the batch has {bytes} bytes; allowed are {bytes_max}")]
    TooLarge {
        /// Which job of the batch, from 0.
        ordinal: usize,
        /// Its bytes.
        bytes: usize,
        /// The limit in force.
        bytes_max: usize,
    },
    /// A body does not match its checksum.
    #[error("job {ordinal} of the batch has crc32 {actual:#010x}, but its row says {stated:#010x}")]
    Checksum {
        /// Which job of the batch, from 0.
        ordinal: usize,
        /// Computed over the body.
        actual: u32,
        /// Stated in the table.
        stated: u32,
    },
    /// A body's attributes can't be read.
    #[error("job {ordinal} of the batch: {source}")]
    Attributes {
        /// Which job of the batch, from 0.
        ordinal: usize,
        /// What is wrong with them.
        source: DecodeError,
    },
}

impl JobError {
    /// The code to answer with.
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::Decode(error) | Self::Attributes { source: error, .. } => error.code(),
            Self::End { .. } => ErrorCode::BadRequest,
            Self::TooLarge { .. } => ErrorCode::JobTooLarge,
            Self::Checksum { .. } => ErrorCode::BadChecksum,
        }
    }
}

/// A batch being put together: the job table and the bodies, as they travel and are kept.
#[derive(Clone, Debug, Default)]
pub struct BatchBuilder {
    table: BytesMut,
    bodies: BytesMut,
}

impl BatchBuilder {
    /// Adds a job.
    ///
    /// # Errors
    /// [`DecodeError::Batch`] if the batch would be over its limits, [`DecodeError::Range`] if the
    /// job itself is; the batch stays as it was.
    pub fn push(&mut self, job: &Job) -> Result<(), DecodeError> {
        let start = self.bodies.len();
        check_batch(self.len() + 1, start + job.body_bytes())?;
        job.put_body(&mut self.bodies)?;
        let crc32 = crc32fast::hash(self.bodies.get(start..).unwrap_or_default());
        self.end_job(0, crc32);
        Ok(())
    }

    /// Adds a job as it is. [`Batch::check`] tells whether it, and the batch, are right.
    pub fn push_encoded(&mut self, job: EncodedJob<'_>) {
        self.bodies.put_slice(job.body);
        self.end_job(job.flags, job.crc32);
    }

    fn end_job(&mut self, flags: u32, crc32: u32) {
        let end = self.bodies.len() as u32;
        self.table.put_slice(&TableRow { end, flags, crc32 }.encode());
    }

    /// Jobs in it.
    pub fn len(&self) -> usize {
        rows(&self.table).len()
    }

    /// Whether it has no job.
    pub fn is_empty(&self) -> bool {
        self.table.is_empty()
    }

    /// Bytes of the bodies.
    pub fn bodies_bytes(&self) -> usize {
        self.bodies.len()
    }

    /// The batch as it stands.
    pub fn batch(&self) -> Batch<'_> {
        Batch { count: self.len() as u32, table: &self.table, bodies: &self.bodies }
    }
}

/// Checks a batch's size: 1 to 65,536 jobs, at most 4 MiB of bodies.
fn check_batch(jobs: usize, bytes: usize) -> Result<(), DecodeError> {
    let too_large = |field, value: usize, allowed| {
        Err(DecodeError::Batch { field, value: value as u64, allowed })
    };
    if !(1..=BATCH_JOBS_MAX).contains(&jobs) {
        return too_large("a job count of", jobs, "1 to 65536 jobs");
    }
    if bytes > BATCH_BYTES_MAX {
        return too_large("a size in bytes of", bytes, "at most 4 MiB");
    }
    Ok(())
}

/// The job table and the bodies of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Batch<'a> {
    /// Jobs in it.
    pub count: u32,
    /// `count` rows of [`TABLE_ROW_BYTES`].
    pub table: &'a [u8],
    /// All bodies behind each other.
    pub bodies: &'a [u8],
}

impl<'a> Batch<'a> {
    /// Reads a batch, which ends the message.
    ///
    /// # Errors
    /// [`DecodeError`] if its sizes do not fit together or are over a limit.
    pub fn decode(reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
        let count = reader.u32()?;
        check_batch(count as usize, 0)?;
        let table = reader.bytes(count as usize * TABLE_ROW_BYTES)?;
        let bodies = reader.bytes(reader.remaining())?;
        check_batch(count as usize, bodies.len())?;
        Ok(Self { count, table, bodies })
    }

    /// Writes the batch.
    pub fn encode(&self, out: &mut BytesMut) {
        out.put_u32_le(self.count);
        out.put_slice(self.table);
        out.put_slice(self.bodies);
    }

    /// The jobs, as far as the table is right; [`Batch::check`] says whether it is.
    pub fn jobs(&self) -> impl Iterator<Item = EncodedJob<'a>> + use<'a> {
        let bodies = self.bodies;
        let mut begin = 0;
        TableRow::all(self.table).map_while(move |TableRow { end, flags, crc32 }| {
            let body = bodies.get(begin..end as usize)?;
            begin = end as usize;
            Some(EncodedJob { flags, crc32, body })
        })
    }

    /// The job at a place.
    #[inline]
    pub fn job(&self, ordinal: u32) -> Option<EncodedJob<'a>> {
        let row = rows(self.table).get(ordinal as usize)?;
        let TableRow { flags, crc32, .. } = TableRow::decode(row);
        let body = self.bodies.get(body_range(self.table, ordinal)?)?;
        Some(EncodedJob { flags, crc32, body })
    }

    /// The table and the bodies of `count` jobs from `first` on, as a batch of their own.
    pub fn part(&self, first: u32, count: u32) -> Option<(Vec<u8>, &'a [u8])> {
        let end = first.checked_add(count)?;
        let rows = rows(self.table).get(first as usize..end as usize)?.as_flattened();
        let begin = body_range(self.table, first)?.start;
        let end = body_range(self.table, end.checked_sub(1)?)?.end;
        let mut table = Vec::with_capacity(rows.len());
        for row in TableRow::all(rows) {
            let end = row.end.checked_sub(begin as u32)?;
            table.extend(TableRow { end, ..row }.encode());
        }
        Some((table, self.bodies.get(begin..end)?))
    }

    /// Checks every job: its place, size, reserved flags, checksum and attributes.
    ///
    /// # Errors
    /// [`JobError`] naming the first job that is wrong.
    pub fn check(&self, job_bytes_max: usize) -> Result<(), JobError> {
        self.asked(job_bytes_max).map(drop)
    }

    /// As [`Batch::check`]; gives what each job asks for that asks for anything, with its place.
    ///
    /// # Errors
    /// [`JobError`] naming the first job that is wrong.
    pub fn asked(&self, job_bytes_max: usize) -> Result<Vec<(u32, Asked<'a>)>, JobError> {
        let (bodies, mut begin) = (self.bodies.len(), 0);
        let mut all = Vec::new();
        for (ordinal, row) in TableRow::all(self.table).enumerate() {
            let end = row.end as usize;
            let wrong_end = JobError::End { ordinal, end, start: begin, bodies };
            let body = self.bodies.get(begin..end).ok_or(wrong_end)?;
            let asked = check_job(ordinal, body, row, job_bytes_max)?;
            if asked != Asked::default() {
                all.push((ordinal as u32, asked));
            }
            begin = end;
        }
        if begin != bodies {
            return Err(DecodeError::Surplus { count: bodies - begin }.into());
        }
        Ok(all)
    }
}

fn check_job(
    ordinal: usize,
    body: &[u8],
    row: TableRow,
    bytes_max: usize,
) -> Result<Asked<'_>, JobError> {
    let TableRow { flags, crc32: stated, .. } = row;
    if body.len() > bytes_max {
        return Err(JobError::TooLarge { ordinal, bytes: body.len(), bytes_max });
    }
    if flags != 0 {
        return Err(DecodeError::Reserved { field: "job flags", value: u64::from(flags) }.into());
    }
    let actual = crc32fast::hash(body);
    if actual != stated {
        return Err(JobError::Checksum { ordinal, actual, stated });
    }
    check_body(body).map_err(|source| JobError::Attributes { ordinal, source })
}

#[cfg(test)]
mod tests {
    use super::super::tests::sample;
    use super::*;

    #[test]
    fn each_fault_of_a_batch_is_named() {
        let mut builder = BatchBuilder::default();
        builder.push(&sample()).unwrap();
        builder.push(&Job::new("second")).unwrap();
        let good = builder.batch();
        assert_eq!(good.check(1000), Ok(()));
        assert_eq!(good.jobs().count(), 2);
        assert_eq!(good.check(12).unwrap_err().code(), ErrorCode::JobTooLarge);

        let mut bodies = good.bodies.to_vec();
        *bodies.last_mut().unwrap() ^= 1;
        let flipped = Batch { bodies: &bodies, ..good };
        assert!(matches!(flipped.check(1000), Err(JobError::Checksum { ordinal: 1, .. })));

        let mut table = good.table.to_vec();
        table[3] = 0x80;
        let beyond = Batch { table: &table, ..good };
        assert!(matches!(beyond.check(1000), Err(JobError::End { ordinal: 0, .. })));

        let mut table = good.table.to_vec();
        table[4] = 1;
        let flagged = Batch { table: &table, ..good };
        assert_eq!(flagged.check(1000).unwrap_err().code(), ErrorCode::Unsupported);
    }
}
