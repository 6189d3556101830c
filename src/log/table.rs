//! Index tables: where the jobs of one sealed segment lie, in a file beside it.
//!
//! A table is derived from its segment, and is never evidence against it: one that is missing,
//! torn, damaged or of another segment is made again.

use std::io;
use std::path::Path;
use std::sync::{Arc, OnceLock};

use rustc_hash::{FxHashMap, FxHashSet};

use crate::types::{Offset, QueueId, Stamp, Term};

use super::entry::EntryView;
use super::error::LogError;
use super::files::Files;
use super::format::*;
use super::frame::FramedEntry;
use super::map::{Map, Warmth};
use super::segment::{Extent, FileKind, Last, Segment};

/// Where one entry with jobs lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct IndexRow {
    /// The offset of its first job.
    pub(super) base: u64,
    /// Where its frame begins.
    pub(super) position: u32,
    /// How many jobs it has.
    pub(super) count: u32,
    /// Bytes of the entry.
    pub(super) length: u32,
}

/// The entries of one segment, by queue, while they are gathered.
#[derive(Debug, Default)]
pub(super) struct IndexRows {
    queues: FxHashMap<QueueId, Vec<IndexRow>>,
}

/// The index table of a sealed segment.
#[derive(Debug)]
pub(super) struct Table {
    pub(super) segment: Arc<Segment>,
    pub(super) extent: Extent,
    bytes: TableBytes,
    warmth: Option<Warmth>,
    /// Set when the rows were looked at first: the rows made again if those in `bytes` are wrong.
    checked: OnceLock<Option<Vec<u8>>>,
}

/// A segment to which no more entries are appended.
#[derive(Clone, Debug)]
pub(super) struct Sealed {
    pub(super) segment: Arc<Segment>,
    pub(super) extent: Extent,
    pub(super) last: Last,
    /// Its index table, unless that is still to be made.
    pub(super) table: Option<Arc<Table>>,
}

/// An older file, from which compaction may have taken the dead jobs.
#[derive(Clone, Debug)]
pub(super) struct Old {
    pub(super) kind: FileKind,
    pub(super) table: Arc<Table>,
}

#[derive(Debug)]
enum TableBytes {
    Mapped(Map),
    /// The file could not be written.
    Owned(Vec<u8>),
}

/// One queue in a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TableQueue {
    pub(super) queue: QueueId,
    /// Its place among the queues of the table.
    pub(super) slot: u32,
    pub(super) base: u64,
    pub(super) end: u64,
}

/// The extension of the files of index tables.
pub(super) const EXTENSION: &str = "index";

/// The file name of the index table of a segment.
pub(super) fn file_name(id: u64) -> String {
    format!("{id:020}.{EXTENSION}")
}

impl IndexRow {
    /// The row of an entry whose frame begins at `position`.
    #[inline]
    pub(super) fn of(view: &EntryView<'_>, position: u32) -> Self {
        let length = view.encoded_bytes() as u32;
        Self { base: view.base_offset.0, position, count: view.count, length }
    }

    /// One more than the offset of the last job.
    pub(super) fn end(&self) -> u64 {
        self.base + u64::from(self.count)
    }

    fn encode(&self) -> [u8; INDEX_ROW_BYTES] {
        let mut row = [0; INDEX_ROW_BYTES];
        INDEX_ROW_FIELD_BASE.put(&mut row, self.base.to_le_bytes());
        INDEX_ROW_FIELD_POSITION.put(&mut row, self.position.to_le_bytes());
        INDEX_ROW_FIELD_COUNT.put(&mut row, self.count.to_le_bytes());
        INDEX_ROW_FIELD_LENGTH.put(&mut row, self.length.to_le_bytes());
        row
    }

    fn decode(row: &[u8]) -> Self {
        Self {
            base: INDEX_ROW_FIELD_BASE.u64(row),
            position: INDEX_ROW_FIELD_POSITION.u32(row),
            count: INDEX_ROW_FIELD_COUNT.u32(row),
            length: INDEX_ROW_FIELD_LENGTH.u32(row),
        }
    }
}

impl IndexRows {
    /// Adds an entry. A queue's offsets must go up.
    #[inline]
    pub(super) fn add(&mut self, queue: QueueId, row: IndexRow) -> Result<(), &'static str> {
        let rows = self.queues.entry(queue).or_default();
        if rows.last().is_some_and(|last| row.base < last.end()) {
            return Err("the base offset is not above the queue's last one");
        }
        rows.push(row);
        Ok(())
    }

    /// Whether it has an entry of the queue.
    pub(super) fn has(&self, queue: QueueId) -> bool {
        self.queues.contains_key(&queue)
    }

    /// One more than the queue's last offset.
    pub(super) fn end_of(&self, queue: QueueId) -> Option<u64> {
        self.queues.get(&queue)?.last().map(IndexRow::end)
    }

    /// The entry that holds a job.
    #[inline]
    pub(super) fn find(&self, queue: QueueId, offset: Offset) -> Option<IndexRow> {
        let rows = self.queues.get(&queue)?;
        let after = rows.partition_point(|row| row.base <= offset.0);
        rows.get(after.checked_sub(1)?).filter(|row| offset.0 < row.end()).copied()
    }

    pub(super) fn forget(&mut self, queue: QueueId) {
        self.queues.remove(&queue);
    }

    /// How many entries it has.
    pub(super) fn len(&self) -> usize {
        self.queues.values().map(Vec::len).sum()
    }

    /// The table of these rows, as it stands in its file.
    fn encode(&self, segment: &Segment, extent: &Extent, last: Last) -> Vec<u8> {
        let mut queues: Vec<_> = self.queues.iter().collect();
        queues.sort_unstable_by_key(|(queue, _)| **queue);
        let directory_bytes = queues.len() * INDEX_QUEUE_BYTES;
        let rows_at = INDEX_HEADER_BYTES + directory_bytes;
        let mut bytes = Vec::with_capacity(rows_at + self.len() * INDEX_ROW_BYTES);
        bytes.resize(INDEX_HEADER_BYTES, 0);
        let mut first_row = 0;
        for (queue, rows) in &queues {
            let mut row = [0; INDEX_QUEUE_BYTES];
            let (base, end) = (rows.first().map(|row| row.base), rows.last().map(IndexRow::end));
            INDEX_QUEUE_FIELD_ID.put(&mut row, queue.0.to_le_bytes());
            INDEX_QUEUE_FIELD_FIRST_ROW.put(&mut row, (first_row as u32).to_le_bytes());
            INDEX_QUEUE_FIELD_BASE.put(&mut row, base.unwrap_or(0).to_le_bytes());
            INDEX_QUEUE_FIELD_END.put(&mut row, end.unwrap_or(0).to_le_bytes());
            bytes.extend_from_slice(&row);
            first_row += rows.len();
        }
        for row in queues.iter().flat_map(|(_, rows)| rows.iter()) {
            bytes.extend_from_slice(&row.encode());
        }
        let rows_crc = crc32fast::hash(bytes.get(rows_at..).unwrap_or_default());
        let header = bytes.get_mut(..INDEX_HEADER_BYTES).unwrap_or_default();
        INDEX_FIELD_MAGIC.put(header, INDEX_MAGIC);
        INDEX_FIELD_VERSION.put(header, FORMAT_VERSION.to_le_bytes());
        INDEX_FIELD_SEGMENT.put(header, segment.id.to_le_bytes());
        INDEX_FIELD_LOG_ID.put(header, segment.log_id);
        INDEX_FIELD_FIRST_INDEX.put(header, extent.first_index.0.to_le_bytes());
        INDEX_FIELD_LAST_INDEX.put(header, extent.last_index.0.to_le_bytes());
        INDEX_FIELD_LAST_TERM.put(header, last.term.0.to_le_bytes());
        INDEX_FIELD_LAST_WALL_MS.put(header, last.stamp.wall_ms.to_le_bytes());
        INDEX_FIELD_LAST_LOG_MS.put(header, last.stamp.log_ms.to_le_bytes());
        INDEX_FIELD_HEADER_CRC.put(header, extent.header_crc.to_le_bytes());
        INDEX_FIELD_END.put(header, extent.end.to_le_bytes());
        INDEX_FIELD_QUEUES.put(header, (queues.len() as u32).to_le_bytes());
        INDEX_FIELD_ROWS.put(header, (first_row as u32).to_le_bytes());
        INDEX_FIELD_ROWS_CRC.put(header, rows_crc.to_le_bytes());
        let crc = crc32fast::hash(bytes.get(INDEX_COVERED_FROM..rows_at).unwrap_or_default());
        INDEX_FIELD_CRC.put(&mut bytes, crc.to_le_bytes());
        bytes
    }
}

impl Table {
    /// Opens the table of a segment. None if there is none that speaks of this extent.
    pub(super) fn open(
        files: &dyn Files,
        dir: &Path,
        segment: &Arc<Segment>,
        extent: Extent,
    ) -> Option<Self> {
        let file = files.open(&dir.join(file_name(segment.id))).ok()?;
        let map = Map::whole(&file).ok()?;
        map.populate_range(0, map.len().min(INDEX_HEADER_BYTES)).ok()?;
        let queues = INDEX_FIELD_QUEUES.u32(map.bytes()) as usize;
        let rows_at = INDEX_HEADER_BYTES + queues.checked_mul(INDEX_QUEUE_BYTES)?;
        map.populate_range(0, rows_at.min(map.len())).ok()?;
        let belongs = speaks_of(map.bytes(), segment, &extent, rows_at);
        let segment = Arc::clone(segment);
        belongs.then(|| Self::new(segment, extent, TableBytes::Mapped(map)))
    }

    /// Makes the table of a segment and writes it to its file. If that can't be done, or is not
    /// wanted, it stays in memory.
    pub(super) fn write(
        files: Option<&dyn Files>,
        dir: &Path,
        segment: &Arc<Segment>,
        extent: Extent,
        rows: &IndexRows,
        last: Last,
    ) -> Self {
        let encoded = rows.encode(segment, &extent, last);
        let path = dir.join(file_name(segment.id));
        let bytes = match files.map(|files| write_file(files, &path, &encoded)) {
            None => TableBytes::Owned(encoded),
            Some(Ok(map)) => TableBytes::Mapped(map),
            Some(Err(error)) => {
                let file = path.display();
                tracing::warn!(%file, %error, "an index table is kept in memory");
                TableBytes::Owned(encoded)
            }
        };
        Self::new(Arc::clone(segment), extent, bytes)
    }

    fn new(segment: Arc<Segment>, extent: Extent, bytes: TableBytes) -> Self {
        let warmth = match &bytes {
            TableBytes::Mapped(map) => Some(Warmth::of(map)),
            TableBytes::Owned(_) => None,
        };
        Self { segment, extent, bytes, warmth, checked: OnceLock::new() }
    }

    /// What is remembered of the last entry.
    pub(super) fn last(&self) -> Last {
        let header = self.header();
        let wall_ms = INDEX_FIELD_LAST_WALL_MS.u64(header);
        let log_ms = INDEX_FIELD_LAST_LOG_MS.u64(header);
        Last { term: Term(INDEX_FIELD_LAST_TERM.u64(header)), stamp: Stamp { wall_ms, log_ms } }
    }

    /// How many entries with jobs the segment has.
    pub(super) fn rows(&self) -> usize {
        INDEX_FIELD_ROWS.u32(self.header()) as usize
    }

    /// The queues that have jobs in the segment.
    pub(super) fn queues(&self) -> impl ExactSizeIterator<Item = TableQueue> {
        let directory = self.header().get(INDEX_HEADER_BYTES..self.rows_at()).unwrap_or_default();
        directory.chunks_exact(INDEX_QUEUE_BYTES).enumerate().map(|(slot, queue)| TableQueue {
            queue: QueueId(INDEX_QUEUE_FIELD_ID.u32(queue)),
            slot: slot as u32,
            base: INDEX_QUEUE_FIELD_BASE.u64(queue),
            end: INDEX_QUEUE_FIELD_END.u64(queue),
        })
    }

    /// The entry that holds a job of the queue at `slot`. It may read the disk.
    pub(super) fn find(&self, slot: u32, offset: Offset) -> Option<IndexRow> {
        let rows = self.rows_of(slot)?;
        let row_at = |number: usize| {
            let begin = number * INDEX_ROW_BYTES;
            rows.get(begin..begin + INDEX_ROW_BYTES).map(IndexRow::decode)
        };
        let (mut low, mut high) = (0, rows.len() / INDEX_ROW_BYTES);
        while low < high {
            let middle = low + (high - low) / 2;
            match row_at(middle)?.base <= offset.0 {
                true => low = middle + 1,
                false => high = middle,
            }
        }
        row_at(low.checked_sub(1)?).filter(|row| offset.0 < row.end())
    }

    /// Whether neither the rows nor the segment can be read. It may read the disk. To be asked
    /// before the rows are looked at.
    pub(super) fn is_lost(&self) -> bool {
        let warmed = match (&self.bytes, &self.warmth) {
            (TableBytes::Mapped(map), Some(warmth)) => warmth.warm(map, 0, map.len()),
            _ => Ok(()),
        };
        if let Err(error) = warmed {
            let segment = self.segment.path.display();
            tracing::error!(%segment, %error, "an index table can't be read");
            return true;
        }
        self.checked_rows().is_some_and(<[u8]>::is_empty)
    }

    /// All entries of the queue at `slot`, by rising offsets. It may read the disk.
    pub(super) fn rows_in(&self, slot: u32) -> impl ExactSizeIterator<Item = IndexRow> {
        self.rows_of(slot).unwrap_or_default().chunks_exact(INDEX_ROW_BYTES).map(IndexRow::decode)
    }

    /// The rows of the queue at `slot`, which are checked as a whole the first time.
    fn rows_of(&self, slot: u32) -> Option<&[u8]> {
        let bytes = self.checked_rows().unwrap_or_else(|| self.header());
        let first_row = |slot: usize| {
            let begin = INDEX_HEADER_BYTES + slot * INDEX_QUEUE_BYTES;
            let queue = self.header().get(begin..begin + INDEX_QUEUE_BYTES)?;
            Some(INDEX_QUEUE_FIELD_FIRST_ROW.u32(queue) as usize)
        };
        let slot = slot as usize;
        let queues = INDEX_FIELD_QUEUES.u32(self.header()) as usize;
        let end = match slot + 1 {
            next if next < queues => first_row(next)?,
            next if next == queues => self.rows(),
            _ => return None,
        };
        let rows_at = self.rows_at();
        let begin = rows_at + first_row(slot)? * INDEX_ROW_BYTES;
        bytes.get(begin..rows_at + end * INDEX_ROW_BYTES)
    }

    /// The table made again, if its rows are damaged; empty if that can't be done.
    fn checked_rows(&self) -> Option<&[u8]> {
        self.checked.get_or_init(|| self.check_rows()).as_deref()
    }

    /// Checks the rows. If they are damaged, makes them again from the segment.
    fn check_rows(&self) -> Option<Vec<u8>> {
        let TableBytes::Mapped(map) = &self.bytes else { return None };
        let readable = map.populate_range(self.rows_at(), map.len()).is_ok();
        let rows = || map.bytes().get(self.rows_at()..).unwrap_or_default();
        if readable && crc32fast::hash(rows()) == INDEX_FIELD_ROWS_CRC.u32(self.header()) {
            return None;
        }
        let segment = self.segment.path.display();
        tracing::warn!(%segment, "a damaged index table is made again");
        match self.made_again() {
            Ok(bytes) => Some(bytes),
            Err(error) => {
                tracing::error!(%error, "jobs of a segment can't be found");
                Some(Vec::new())
            }
        }
    }

    /// The table from the segment. Queues that were deleted before it was made first have no place
    /// in it.
    fn made_again(&self) -> Result<Vec<u8>, LogError> {
        let (mut rows, last) = scan(&self.segment, &self.extent)?;
        let known: FxHashSet<_> = self.queues().map(|queue| queue.queue).collect();
        rows.queues.retain(|queue, _| known.contains(queue));
        let bytes = rows.encode(&self.segment, &self.extent, last);
        let directory = INDEX_HEADER_BYTES..self.rows_at();
        match bytes.get(directory.clone()) == self.header().get(directory) {
            true => Ok(bytes),
            false => Err(self.segment.damaged(0, "the segment is not the one of its index table")),
        }
    }

    fn header(&self) -> &[u8] {
        match &self.bytes {
            TableBytes::Mapped(map) => map.bytes(),
            TableBytes::Owned(bytes) => bytes,
        }
    }

    fn rows_at(&self) -> usize {
        INDEX_HEADER_BYTES + INDEX_FIELD_QUEUES.u32(self.header()) as usize * INDEX_QUEUE_BYTES
    }
}

/// Reads a sealed segment from its beginning to its end, for what its table says.
pub(super) fn scan(segment: &Segment, extent: &Extent) -> Result<(IndexRows, Last), LogError> {
    let (mut rows, mut last) = (IndexRows::default(), Last::default());
    let mut last_index = extent.first_index.0 - 1;
    let mut position = SEGMENT_HEADER_BYTES as u32;
    while position < extent.end {
        let frame = segment.frame_at(position)?;
        if let Some(FramedEntry { view, .. }) = &frame.entry {
            (last_index, last) = (view.index.0, Last { term: view.term, stamp: view.stamp });
            if view.count > 0 {
                let added = rows.add(view.queue, IndexRow::of(view, position));
                added.map_err(|reason| segment.damaged(position, reason))?;
            }
        }
        position += frame.bytes as u32;
    }
    if last_index != extent.last_index.0 {
        return Err(segment.damaged(position, "the segment's last entry has not the right index"));
    }
    Ok((rows, last))
}

/// Whether `bytes`, whose rows begin at `rows_at`, are a table of this segment.
fn speaks_of(bytes: &[u8], segment: &Segment, extent: &Extent, rows_at: usize) -> bool {
    let whole = rows_at + INDEX_FIELD_ROWS.u32(bytes) as usize * INDEX_ROW_BYTES;
    bytes.len() == whole
        && bytes.starts_with(&INDEX_MAGIC)
        && INDEX_FIELD_VERSION.u32(bytes) == FORMAT_VERSION
        && INDEX_FIELD_CRC.u32(bytes)
            == crc32fast::hash(bytes.get(INDEX_COVERED_FROM..rows_at).unwrap_or_default())
        && INDEX_FIELD_SEGMENT.u64(bytes) == segment.id
        && INDEX_FIELD_LOG_ID.id(bytes) == segment.log_id
        && INDEX_FIELD_HEADER_CRC.u32(bytes) == extent.header_crc
        && INDEX_FIELD_END.u32(bytes) == extent.end
        && INDEX_FIELD_FIRST_INDEX.u64(bytes) == extent.first_index.0
        && INDEX_FIELD_LAST_INDEX.u64(bytes) == extent.last_index.0
}

/// Puts `bytes` into a file in place of what it may have been, and maps it.
fn write_file(files: &dyn Files, path: &Path, bytes: &[u8]) -> io::Result<Map> {
    match files.remove(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let len = u32::try_from(bytes.len()).map_err(io::Error::other)?;
    let file = files.create(path, len)?;
    file.write_all_at(bytes, 0)?;
    file.sync_data()?;
    Map::whole(file.file())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::log::files::SystemFiles;
    use crate::types::EntryIndex;

    const LAST: Last = Last { term: Term(4), stamp: Stamp { wall_ms: 5, log_ms: 6 } };

    fn segment(id: u64) -> Arc<Segment> {
        let file = tempfile::tempfile().unwrap();
        file.set_len(8192).unwrap();
        let map = Map::whole(&file).unwrap();
        Arc::new(Segment::own([7; 16], id, "test".into(), map))
    }

    fn extent() -> Extent {
        let (first_index, last_index) = (EntryIndex(1), EntryIndex(0));
        Extent { header_crc: 9, first_index, last_index, end: 4096 }
    }

    fn rows() -> IndexRows {
        let mut rows = IndexRows::default();
        let far = 1 << 40;
        for (queue, base, count, position) in [
            (3, 10, 5, 4096),
            (1, 0, 1, 4200),
            (3, 15, 1, 5000),
            (3, 20, 2, 6000),
            (3, far, 3, 7000),
        ] {
            rows.add(QueueId(queue), IndexRow { base, position, count, length: 88 }).unwrap();
        }
        assert!(
            rows.add(QueueId(3), IndexRow { base: far + 2, position: 0, count: 1, length: 88 })
                .is_err()
        );
        rows
    }

    #[test]
    fn what_is_written_is_found_and_nothing_else_is() {
        let dir = tempfile::tempdir().unwrap();
        let segment = segment(2);
        let written =
            Table::write(Some(&SystemFiles), dir.path(), &segment, extent(), &rows(), LAST);
        let opened = Table::open(&SystemFiles, dir.path(), &segment, extent()).unwrap();
        for table in [written, opened] {
            assert_eq!((table.last(), table.rows()), (LAST, 5));
            let queues: Vec<_> = table.queues().collect();
            assert_eq!(queues[0], TableQueue { queue: QueueId(1), slot: 0, base: 0, end: 1 });
            assert_eq!((queues[1].queue, queues[1].base), (QueueId(3), 10));
            assert_eq!(queues[1].end, (1 << 40) + 3);
            for (offset, position) in
                [(10, 4096), (14, 4096), (15, 5000), (21, 6000), ((1 << 40) + 2, 7000)]
            {
                let row = table.find(1, Offset(offset)).unwrap();
                assert_eq!(row.position, position);
                assert_eq!(rows().find(QueueId(3), Offset(offset)), Some(row));
            }
            for missing in [0, 9, 16, 19, 22, (1 << 40) - 1, (1 << 40) + 3, u64::MAX] {
                assert_eq!(table.find(1, Offset(missing)), None, "{missing}");
                assert_eq!(rows().find(QueueId(3), Offset(missing)), None);
            }
            assert_eq!(table.find(0, Offset(0)).unwrap().position, 4200);
            assert_eq!(table.find(2, Offset(0)), None);
        }
    }

    #[test]
    fn a_table_of_another_segment_or_state_is_none() {
        let dir = tempfile::tempdir().unwrap();
        let one = segment(2);
        Table::write(Some(&SystemFiles), dir.path(), &one, extent(), &rows(), LAST);
        let open = |segment, extent| Table::open(&SystemFiles, dir.path(), segment, extent);
        assert!(open(&one, extent()).is_some());
        for other in [
            Extent { header_crc: 8, ..extent() },
            Extent { first_index: EntryIndex(2), ..extent() },
            Extent { last_index: EntryIndex(1), ..extent() },
            Extent { end: 4104, ..extent() },
        ] {
            assert!(open(&one, other).is_none());
        }
        fs::rename(dir.path().join(file_name(2)), dir.path().join(file_name(3))).unwrap();
        assert!(open(&one, extent()).is_none());
        assert!(open(&segment(3), extent()).is_none());
    }

    #[test]
    fn no_flipped_bit_and_no_cut_passes() {
        let dir = tempfile::tempdir().unwrap();
        let segment = segment(2);
        Table::write(Some(&SystemFiles), dir.path(), &segment, extent(), &rows(), LAST);
        let path = dir.path().join(file_name(2));
        let good = fs::read(&path).unwrap();
        let rows_at = INDEX_HEADER_BYTES + 2 * INDEX_QUEUE_BYTES;
        for bit in 0..good.len() * 8 {
            let mut bad = good.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            fs::write(&path, bad).unwrap();
            let opened = Table::open(&SystemFiles, dir.path(), &segment, extent());
            match bit / 8 < rows_at {
                true => assert!(opened.is_none(), "bit {bit}"),
                // The segment here has no entries, so that is what a table made again says.
                false => assert_eq!(opened.unwrap().find(1, Offset(10)), None, "bit {bit}"),
            }
        }
        for cut in 0..good.len() {
            fs::write(&path, &good[..cut]).unwrap();
            assert!(Table::open(&SystemFiles, dir.path(), &segment, extent()).is_none());
        }
    }
}
