//! Entries: the portable part of the log, as given to `append` and as seen by readers.

use joblog_protocol::job::{Batch, EncodedJob, TABLE_ROW_BYTES, TableRow, body_range};

use crate::types::{EntryIndex, Offset, QueueId, Stamp, Term};

use super::format::*;

/// What kind of entry it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum EntryKind {
    /// Jobs, facts or both.
    #[default]
    Ordinary,
    /// Reserved for replication: fills its index.
    Blank,
    /// Reserved for replication: who takes part.
    Membership,
}

/// An entry, borrowed from where it lies in the log, or of one to append: term and index are the
/// log's to give then.
#[derive(Clone, Copy, Debug, Default)]
pub struct EntryView<'a> {
    /// The term under which it was first written.
    pub term: Term,
    /// Its index.
    pub index: EntryIndex,
    /// Its kind.
    pub kind: EntryKind,
    /// The queue of its jobs; 0 when it has none.
    pub queue: QueueId,
    /// The offset of its first job; 0 when it has none.
    pub base_offset: Offset,
    /// How many jobs it has.
    pub count: u32,
    /// Both clocks when it was appended.
    pub stamp: Stamp,
    /// The producer of its jobs; zeros for none.
    pub producer: [u8; 16],
    /// The producer's sequence number.
    pub sequence: u64,
    /// The job table: `count` rows of 12 bytes.
    pub table: &'a [u8],
    /// The facts, opaque to the log.
    pub facts: &'a [u8],
    /// The bodies, one behind the other.
    pub bodies: &'a [u8],
}

/// One job of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct JobView<'a> {
    /// Its offset in its queue.
    pub offset: Offset,
    /// Both clocks when it was appended.
    pub stamp: Stamp,
    /// The flags of its table row, opaque to the log.
    pub flags: u32,
    /// The crc32 of the body as the producer gave it.
    pub crc: u32,
    /// The body.
    pub body: &'a [u8],
}

impl JobView<'_> {
    /// Whether the body still has the sum that its producer gave it.
    pub fn verify(&self) -> bool {
        crc32fast::hash(self.body) == self.crc
    }
}

impl EntryKind {
    fn from_byte(byte: u8) -> Option<Self> {
        match byte {
            KIND_ORDINARY => Some(Self::Ordinary),
            KIND_BLANK => Some(Self::Blank),
            KIND_MEMBERSHIP => Some(Self::Membership),
            _ => None,
        }
    }

    fn byte(self) -> u8 {
        match self {
            Self::Ordinary => KIND_ORDINARY,
            Self::Blank => KIND_BLANK,
            Self::Membership => KIND_MEMBERSHIP,
        }
    }
}

impl<'a> EntryView<'a> {
    /// Its jobs as they came from the wire.
    #[inline]
    pub(super) fn batch(&self) -> Batch<'a> {
        Batch { count: self.count, table: self.table, bodies: self.bodies }
    }

    /// The jobs in offset order.
    pub fn jobs(&self) -> impl Iterator<Item = JobView<'a>> + use<'a> {
        let view = *self;
        (0..).zip(view.batch().jobs()).map(move |(ordinal, job)| view.job_view(ordinal, job))
    }

    /// The job at `ordinal` within the entry.
    #[inline]
    pub(super) fn job(&self, ordinal: u32) -> Option<JobView<'a>> {
        Some(self.job_view(ordinal, self.batch().job(ordinal)?))
    }

    fn job_view(&self, ordinal: u32, job: EncodedJob<'a>) -> JobView<'a> {
        let EncodedJob { flags, crc32: crc, body } = job;
        let offset = self.base_offset.plus(u64::from(ordinal));
        JobView { offset, stamp: self.stamp, flags, crc, body }
    }

    /// Bytes of the whole entry.
    #[inline]
    pub(super) fn encoded_bytes(&self) -> u64 {
        let parts = [ENTRY_HEADER_BYTES, self.table.len(), self.facts.len(), self.bodies.len()];
        parts.iter().map(|&part| part as u64).sum()
    }

    /// The entry header. Lengths must have been checked to fit 32 bits.
    #[inline]
    pub(super) fn encode_header(&self) -> [u8; ENTRY_HEADER_BYTES] {
        let mut header = [0; ENTRY_HEADER_BYTES];
        ENTRY_FIELD_TERM.put(&mut header, self.term.0.to_le_bytes());
        ENTRY_FIELD_INDEX.put(&mut header, self.index.0.to_le_bytes());
        ENTRY_FIELD_KIND.put(&mut header, [self.kind.byte()]);
        ENTRY_FIELD_QUEUE.put(&mut header, self.queue.0.to_le_bytes());
        ENTRY_FIELD_BASE_OFFSET.put(&mut header, self.base_offset.0.to_le_bytes());
        ENTRY_FIELD_COUNT.put(&mut header, self.count.to_le_bytes());
        ENTRY_FIELD_FACTS.put(&mut header, (self.facts.len() as u32).to_le_bytes());
        ENTRY_FIELD_WALL_MS.put(&mut header, self.stamp.wall_ms.to_le_bytes());
        ENTRY_FIELD_LOG_MS.put(&mut header, self.stamp.log_ms.to_le_bytes());
        ENTRY_FIELD_PRODUCER.put(&mut header, self.producer);
        ENTRY_FIELD_SEQUENCE.put(&mut header, self.sequence.to_le_bytes());
        ENTRY_FIELD_BODIES.put(&mut header, (self.bodies.len() as u32).to_le_bytes());
        header
    }

    /// Takes an entry's bytes apart by the lengths in its header, without reading the rest.
    #[inline]
    pub(super) fn split(bytes: &'a [u8]) -> Result<Self, &'static str> {
        let short = "the entry is shorter than its parts";
        let (header, rest) = bytes.split_at_checked(ENTRY_HEADER_BYTES).ok_or(short)?;
        let count = ENTRY_FIELD_COUNT.u32(header);
        let facts_bytes = ENTRY_FIELD_FACTS.u32(header) as usize;
        let bodies_bytes = ENTRY_FIELD_BODIES.u32(header) as usize;
        let table_bytes = count as usize * TABLE_ROW_BYTES;
        let (table, rest) = rest.split_at_checked(table_bytes).ok_or(short)?;
        let (facts, bodies) = rest.split_at_checked(facts_bytes).ok_or(short)?;
        if bodies.len() != bodies_bytes {
            return Err("the entry's length differs from the sum of its parts");
        }
        Ok(Self {
            term: Term(ENTRY_FIELD_TERM.u64(header)),
            index: EntryIndex(ENTRY_FIELD_INDEX.u64(header)),
            kind: EntryKind::from_byte(ENTRY_FIELD_KIND.u8(header)).ok_or("unknown entry kind")?,
            queue: QueueId(ENTRY_FIELD_QUEUE.u32(header)),
            base_offset: Offset(ENTRY_FIELD_BASE_OFFSET.u64(header)),
            count,
            stamp: Stamp {
                wall_ms: ENTRY_FIELD_WALL_MS.u64(header),
                log_ms: ENTRY_FIELD_LOG_MS.u64(header),
            },
            producer: ENTRY_FIELD_PRODUCER.id(header),
            sequence: ENTRY_FIELD_SEQUENCE.u64(header),
            table,
            facts,
            bodies,
        })
    }

    /// Takes an entry's bytes apart and checks all that the log relies on later.
    pub(super) fn parse(bytes: &'a [u8]) -> Result<Self, &'static str> {
        let reserved = u32::from(ENTRY_FIELD_FLAGS.u8(bytes))
            | u32::from(ENTRY_FIELD_RESERVED.u16(bytes))
            | ENTRY_FIELD_RESERVED_2.u32(bytes);
        if reserved != 0 {
            return Err("a reserved field of the entry is not zero");
        }
        let view = Self::split(bytes)?;
        if view.index.0 == 0 || view.term.0 == 0 {
            return Err("the entry has no index or no term");
        }
        view.check()?;
        Ok(view)
    }

    /// Checks that queue, count, table and bodies agree with each other.
    #[inline]
    pub(super) fn check(&self) -> Result<(), &'static str> {
        if self.table.len() != self.count as usize * TABLE_ROW_BYTES {
            return Err("the job table does not have 12 bytes a job");
        }
        if (self.count == 0) != (self.queue.0 == 0) {
            return Err("an entry names a queue if and only if it has jobs");
        }
        let last_offset = self.base_offset.0.checked_add(u64::from(self.count));
        if last_offset.is_none() {
            return Err("the offsets run over 64 bits");
        }
        let mut end = 0;
        for row in TableRow::all(self.table) {
            if row.end < end {
                return Err("the ends in the job table go back");
            }
            end = row.end;
        }
        if end as usize != self.bodies.len() {
            return Err("the bodies do not end where the job table says");
        }
        Ok(())
    }
}

/// Length of the body of the job at `ordinal`, read from an entry's header and table alone.
#[inline]
pub(super) fn body_len(entry: &[u8], ordinal: u32) -> Option<u32> {
    if ordinal >= ENTRY_FIELD_COUNT.u32(entry) {
        return None;
    }
    let range = body_range(entry.get(ENTRY_HEADER_BYTES..)?, ordinal)?;
    u32::try_from(range.len()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(end: u32) -> [u8; TABLE_ROW_BYTES] {
        TableRow { end, ..TableRow::default() }.encode()
    }

    fn entry<'a>(count: u32, table: &'a [u8], bodies: &'a [u8]) -> EntryView<'a> {
        EntryView {
            term: Term(9),
            index: EntryIndex(8),
            kind: EntryKind::Ordinary,
            queue: QueueId(u32::from(count > 0)),
            base_offset: Offset(7),
            count,
            table,
            facts: b"facts",
            bodies,
            stamp: Stamp { wall_ms: 1, log_ms: 2 },
            producer: [3; 16],
            sequence: 4,
        }
    }

    #[test]
    fn what_is_encoded_is_parsed() {
        let table = [row(2), row(2), row(5)].concat();
        let view = entry(3, &table, b"aabbb");
        let bytes = [&view.encode_header(), &table[..], b"facts", b"aabbb"].concat();
        assert_eq!(bytes.len() as u64, view.encoded_bytes());
        let back = EntryView::parse(&bytes).unwrap();
        assert_eq!(format!("{back:?}"), format!("{view:?}"));
        let bodies: Vec<_> = back.jobs().map(|job| (job.offset.0, job.body)).collect();
        assert_eq!(bodies, [(7, &b"aa"[..]), (8, b""), (9, b"bbb")]);
        assert_eq!(back.job(2).unwrap().body, b"bbb");
        assert_eq!(back.job(3), None);
        assert_eq!([0, 1, 2, 3].map(|i| body_len(&bytes, i)), [Some(2), Some(0), Some(3), None]);
        for cut in 0..bytes.len() {
            assert!(EntryView::parse(&bytes[..cut]).is_err(), "cut at {cut}");
        }
    }

    #[test]
    fn contradictions_are_refused() {
        let at = |entry: EntryView<'_>| entry.check();
        assert_eq!(at(entry(1, &row(3), b"abc")), Ok(()));
        assert!(at(entry(2, &row(3), b"abc")).is_err());
        assert!(at(entry(1, &row(2), b"abc")).is_err());
        assert!(at(entry(1, &row(4), b"abc")).is_err());
        assert!(at(entry(2, &[row(3), row(2)].concat(), b"ab")).is_err());
        assert!(at(EntryView { queue: QueueId(0), ..entry(1, &row(3), b"abc") }).is_err());
        assert!(at(EntryView { queue: QueueId(1), ..entry(0, &[], b"") }).is_err());
        assert!(at(EntryView { base_offset: Offset(u64::MAX), ..entry(1, &row(0), b"") }).is_err());
    }
}
