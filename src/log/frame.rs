//! Frames: what the log puts around an entry in a file, and how it knows them again.

use crc32fast::Hasher;

use crate::types::EntryIndex;

use super::entry::EntryView;
use super::format::*;

/// From what the checksums of one segment's frames start: log id and segment id.
#[derive(Clone, Copy, Debug)]
pub(super) struct Seed(u32);

/// A frame that passed its check.
#[derive(Debug)]
pub(super) struct Frame<'a> {
    /// The synced index that was known when it was made.
    pub(super) durable: EntryIndex,
    /// The entry, unless it is a mark.
    pub(super) entry: Option<FramedEntry<'a>>,
    /// Bytes up to the next frame.
    pub(super) bytes: usize,
}

/// The entry in a frame. Its bodies have not been checked.
#[derive(Debug)]
pub(super) struct FramedEntry<'a> {
    pub(super) view: EntryView<'a>,
    pub(super) bodies_crc: u32,
}

impl<'a> FramedEntry<'a> {
    /// Reads the entry of a frame at the start of `bytes` that has passed its check before.
    pub(super) fn again(bytes: &'a [u8]) -> Result<Self, &'static str> {
        let end = FRAME_HEADER_BYTES + FRAME_FIELD_LENGTH.u32(bytes) as usize;
        let entry = bytes.get(FRAME_HEADER_BYTES..end).ok_or("the frame is cut short")?;
        let view = EntryView::split(entry)?;
        Ok(Self { view, bodies_crc: FRAME_FIELD_BODIES_CRC.u32(bytes) })
    }

    /// Whether the bodies are those that were appended. It reads them all.
    pub(super) fn bodies_are_whole(&self) -> bool {
        crc32fast::hash(self.view.bodies) == self.bodies_crc
    }
}

impl Seed {
    pub(super) fn new(log_id: [u8; 16], segment: u64) -> Self {
        let mut hasher = Hasher::new();
        hasher.update(&log_id);
        hasher.update(&segment.to_le_bytes());
        Self(hasher.finalize())
    }

    #[inline]
    fn crc(self, position: u32, covered: &[u8]) -> u32 {
        let mut hasher = Hasher::new_with_initial(self.0);
        hasher.update(&u64::from(position).to_le_bytes());
        hasher.update(covered);
        hasher.finalize()
    }

    /// Appends the frame around `entry` to `buffer`, padded up to the next frame.
    #[inline]
    pub(super) fn push_entry(
        self,
        buffer: &mut Vec<u8>,
        position: u32,
        durable: EntryIndex,
        entry: &EntryView<'_>,
        bodies_crc: u32,
    ) {
        let begin = buffer.len();
        let length = entry.encoded_bytes();
        let mut header = [0; FRAME_HEADER_BYTES];
        FRAME_FIELD_MAGIC.put(&mut header, ENTRY_MAGIC);
        FRAME_FIELD_LENGTH.put(&mut header, (length as u32).to_le_bytes());
        FRAME_FIELD_BODIES_CRC.put(&mut header, bodies_crc.to_le_bytes());
        FRAME_FIELD_DURABLE.put(&mut header, durable.0.to_le_bytes());
        buffer.reserve(frame_bytes(length as usize));
        buffer.extend_from_slice(&header);
        buffer.extend_from_slice(&entry.encode_header());
        buffer.extend_from_slice(entry.table);
        buffer.extend_from_slice(entry.facts);
        self.seal(buffer, begin, position);
        buffer.extend_from_slice(entry.bodies);
        buffer.resize(begin + frame_bytes(length as usize), 0);
    }

    /// Appends a mark to `buffer`.
    pub(super) fn push_mark(self, buffer: &mut Vec<u8>, position: u32, durable: EntryIndex) {
        let begin = buffer.len();
        let mut header = [0; FRAME_HEADER_BYTES];
        FRAME_FIELD_MAGIC.put(&mut header, MARK_MAGIC);
        FRAME_FIELD_DURABLE.put(&mut header, durable.0.to_le_bytes());
        buffer.extend_from_slice(&header);
        self.seal(buffer, begin, position);
    }

    /// Puts the checksum of all from `begin` to the buffer's end into the frame at `begin`.
    #[inline]
    fn seal(self, buffer: &mut [u8], begin: usize, position: u32) {
        let crc = self.crc(position, buffer.get(begin + FRAME_COVERED_FROM..).unwrap_or_default());
        FRAME_FIELD_CRC.put(buffer.get_mut(begin..).unwrap_or_default(), crc.to_le_bytes());
    }

    /// Reads the frame at the start of `bytes`, which lie at `position` of the segment and may
    /// run on behind the frame.
    pub(super) fn parse(self, bytes: &[u8], position: u32) -> Result<Frame<'_>, &'static str> {
        let header =
            bytes.first_chunk::<FRAME_HEADER_BYTES>().ok_or("no room for a frame header")?;
        let mark = header.starts_with(&MARK_MAGIC);
        if !mark && !header.starts_with(&ENTRY_MAGIC) {
            return Err("no frame begins here");
        }
        let length = FRAME_FIELD_LENGTH.u32(header) as usize;
        let end = FRAME_HEADER_BYTES + length;
        let entry = bytes
            .get(FRAME_HEADER_BYTES..end)
            .ok_or("the frame's length runs over the segment's end")?;
        let bodies = ENTRY_FIELD_BODIES.u32(entry) as usize;
        let covered = bytes
            .get(FRAME_COVERED_FROM..end.saturating_sub(if mark { 0 } else { bodies }))
            .ok_or("the bodies' length runs over the frame")?;
        if self.crc(position, covered) != FRAME_FIELD_CRC.u32(header) {
            return Err("the frame's checksum does not match");
        }
        let entry = match mark {
            true if length != 0 => return Err("a mark has an entry"),
            true => None,
            false => Some(FramedEntry {
                view: EntryView::parse(entry)?,
                bodies_crc: FRAME_FIELD_BODIES_CRC.u32(header),
            }),
        };
        let durable = EntryIndex(FRAME_FIELD_DURABLE.u64(header));
        Ok(Frame { durable, entry, bytes: frame_bytes(length) })
    }

    /// The highest durable index, not below `at_least`, that any frame in `bytes` carries, wherever
    /// it begins. `bytes` lie at `position`. This is how a torn tail is told from damage.
    pub(super) fn proof_in(
        self,
        bytes: &[u8],
        position: u32,
        at_least: EntryIndex,
    ) -> Option<EntryIndex> {
        let mut proof = None;
        for (page, chunk) in bytes.chunks(PAGE.len()).enumerate() {
            // Most of what is looked at was never written.
            if is_zero(chunk) {
                continue;
            }
            for begin in (0..chunk.len()).step_by(FRAME_ALIGNMENT) {
                let begin = page * PAGE.len() + begin;
                let rest = bytes.get(begin..).unwrap_or_default();
                if !(rest.starts_with(&ENTRY_MAGIC) || rest.starts_with(&MARK_MAGIC))
                    || FRAME_FIELD_DURABLE.u64(rest) < at_least.0
                {
                    continue;
                }
                if let Ok(frame) = self.parse(rest, position + begin as u32) {
                    proof = proof.max(Some(frame.durable));
                }
            }
        }
        proof
    }
}

/// What an untouched page looks like, to compare with as a whole.
const PAGE: &[u8] = &[0; 4096];

fn is_zero(chunk: &[u8]) -> bool {
    PAGE.starts_with(chunk)
}

/// Bytes up to the last that is not zero.
pub(super) fn used(bytes: &[u8]) -> usize {
    let pages = bytes.chunks(PAGE.len()).enumerate().rev();
    pages
        .skip_while(|(_, chunk)| is_zero(chunk))
        .map(|(page, chunk)| {
            let last = chunk.iter().rposition(|&byte| byte != 0).unwrap_or(0);
            page * PAGE.len() + last + 1
        })
        .next()
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use joblog_protocol::job::{TABLE_ROW_BYTES, TableRow};

    use super::*;
    use crate::types::{QueueId, Term};

    const SEED: fn() -> Seed = || Seed::new([7; 16], 3);

    fn frame(position: u32) -> Vec<u8> {
        let body = b"a body of some length";
        let row = TableRow { end: body.len() as u32, ..TableRow::default() }.encode();
        let view = EntryView {
            term: Term(1),
            index: EntryIndex(6),
            queue: QueueId(1),
            count: 1,
            table: &row,
            facts: b"facts",
            bodies: body,
            ..EntryView::default()
        };
        let mut buffer = Vec::new();
        SEED().push_entry(&mut buffer, position, EntryIndex(5), &view, crc32fast::hash(body));
        buffer
    }

    #[test]
    fn every_flipped_bit_before_the_bodies_is_found() {
        let good = frame(4096);
        let bodies_at = FRAME_HEADER_BYTES + ENTRY_HEADER_BYTES + TABLE_ROW_BYTES + 5;
        assert!(SEED().parse(&good, 4096).is_ok());
        for bit in 0..bodies_at * 8 {
            let mut bad = good.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(SEED().parse(&bad, 4096).is_err(), "bit {bit}");
        }
        let mut bad = good.clone();
        bad[bodies_at] ^= 1;
        let frame = SEED().parse(&bad, 4096).unwrap();
        assert!(!frame.entry.unwrap().bodies_are_whole());
        assert!(SEED().parse(&good, 4096).unwrap().entry.unwrap().bodies_are_whole());
    }

    #[test]
    fn a_frame_counts_only_in_its_own_place() {
        let good = frame(4096);
        assert!(SEED().parse(&good, 4104).is_err());
        assert!(Seed::new([7; 16], 4).parse(&good, 4096).is_err());
        assert!(Seed::new([8; 16], 3).parse(&good, 4096).is_err());
        assert!(SEED().parse(&[0; 4096], 4096).is_err());
    }

    #[test]
    fn marks_carry_only_the_durable_index() {
        let mut buffer = Vec::new();
        SEED().push_mark(&mut buffer, 4096, EntryIndex(9));
        let mark = SEED().parse(&buffer, 4096).unwrap();
        assert_eq!((mark.durable, mark.bytes), (EntryIndex(9), FRAME_HEADER_BYTES));
        assert!(mark.entry.is_none());
        for bit in 0..buffer.len() * 8 {
            let mut bad = buffer.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(SEED().parse(&bad, 4096).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn used_bytes_end_with_the_last_that_is_not_zero() {
        let mut bytes = vec![0; 10_000];
        assert_eq!((used(&bytes), used(&[])), (0, 0));
        for at in [0, 1, 4095, 4096, 8191, 8192, 9999] {
            bytes[at] = 1;
            assert_eq!(used(&bytes), at + 1);
        }
    }

    #[test]
    fn proof_is_found_behind_garbage_and_only_if_it_suffices() {
        let mut bytes = vec![0xAB; 64];
        bytes.extend(frame(4096 + 64));
        let proof = |at_least| SEED().proof_in(&bytes, 4096, EntryIndex(at_least));
        assert_eq!(proof(5), Some(EntryIndex(5)));
        assert_eq!(proof(6), None);
        assert_eq!(SEED().proof_in(&bytes, 8192, EntryIndex(1)), None);
    }
}
