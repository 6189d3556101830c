//! The job index: in which segment the entry of each job lies.
//!
//! In memory are only the rows of the segment that grows, and of those sealed so recently that
//! their tables are not written yet; of all others a span for each queue and segment, which leads
//! to the segment's table. So memory does not grow with the backlog.

use std::sync::Arc;

use rustc_hash::{FxHashMap, FxHashSet};

use crate::types::{Offset, QueueId};

use super::segment::Segment;
use super::table::{IndexRow, IndexRows, Table, TableQueue};

/// Where the jobs of all queues lie.
#[derive(Debug, Default)]
pub(super) struct JobIndex {
    /// What the segment that grows has.
    active: IndexRows,
    /// Sealed segments without a table, oldest first.
    recent: Vec<Recent>,
    /// Per queue the segments with a table that hold its jobs, by rising offsets.
    spans: FxHashMap<QueueId, Vec<Span>>,
    /// Deleted queues that `recent` may still have.
    forgotten: FxHashSet<QueueId>,
}

#[derive(Debug)]
struct Recent {
    segment: Arc<Segment>,
    rows: Arc<IndexRows>,
}

/// The jobs of one queue in one segment with a table. There may be gaps between its offsets.
#[derive(Clone, Debug)]
pub(super) struct Span {
    base: u64,
    end: u64,
    table: Arc<Table>,
    slot: u32,
}

/// Where to find a job, as far as memory tells.
#[derive(Debug)]
pub(super) enum FoundIn {
    /// In this entry.
    Row(Arc<Segment>, IndexRow),
    /// If anywhere, in what this table says; which may have to be read from the disk.
    Span(Span),
}

impl Span {
    /// Where the frame of the entry begins that holds a job. It may read the disk. None if no
    /// entry does, 0 if that can't be found out.
    pub(super) fn position(&self, offset: Offset) -> Option<u32> {
        match self.table.is_lost() {
            true => Some(0),
            false => self.table.find(self.slot, offset).map(|row| row.position),
        }
    }

    /// The first job that it may hold.
    pub(super) fn first(&self) -> Offset {
        Offset(self.base)
    }

    /// The entries from the one that holds the job at `offset` on. They read the disk.
    pub(super) fn rows_from(&self, offset: Offset) -> impl Iterator<Item = IndexRow> {
        let rows = (!self.table.is_lost()).then(|| self.table.rows_in(self.slot));
        rows.into_iter().flatten().filter(move |row| row.end() > offset.0)
    }

    pub(super) fn segment(&self) -> &Arc<Segment> {
        &self.table.segment
    }
}

impl JobIndex {
    /// Adds an entry of the segment that grows. A queue's offsets must go up.
    #[inline]
    pub(super) fn add(&mut self, queue: QueueId, row: IndexRow) -> Result<(), &'static str> {
        if !self.active.has(queue) && self.sealed_end_of(queue).is_some_and(|end| row.base < end) {
            return Err("the base offset is not above the queue's last one");
        }
        self.active.add(queue, row)
    }

    /// One more than the last offset of the queue in front of the segment that grows.
    fn sealed_end_of(&self, queue: QueueId) -> Option<u64> {
        let recent = self.recent.iter().rev().find_map(|recent| recent.rows.end_of(queue));
        recent.or_else(|| self.spans.get(&queue)?.last().map(|span| span.end))
    }

    /// Finds a job. `active` is the segment that grows.
    #[inline]
    pub(super) fn find(
        &self,
        active: &Arc<Segment>,
        queue: QueueId,
        offset: Offset,
    ) -> Option<FoundIn> {
        if let Some(row) = self.active.find(queue, offset) {
            return Some(FoundIn::Row(Arc::clone(active), row));
        }
        for recent in self.recent.iter().rev() {
            if let Some(row) = recent.rows.find(queue, offset)
                && !self.forgotten.contains(&queue)
            {
                return Some(FoundIn::Row(Arc::clone(&recent.segment), row));
            }
        }
        let spans = self.spans.get(&queue)?;
        let after = spans.partition_point(|span| span.base <= offset.0);
        let span = spans.get(after.checked_sub(1)?).filter(|span| offset.0 < span.end)?;
        Some(FoundIn::Span(span.clone()))
    }

    /// The first sealed segment with a table that has jobs of the queue from `offset` on.
    pub(super) fn span_from(&self, queue: QueueId, offset: Offset) -> Option<Span> {
        let spans = self.spans.get(&queue)?;
        spans.get(spans.partition_point(|span| span.end <= offset.0)).cloned()
    }

    /// Notes that `segment`, which grew until now, is sealed, and returns its rows.
    pub(super) fn seal(&mut self, segment: &Arc<Segment>) -> Arc<IndexRows> {
        let rows = Arc::new(std::mem::take(&mut self.active));
        let recent = Recent { segment: Arc::clone(segment), rows: Arc::clone(&rows) };
        self.recent.push(recent);
        rows
    }

    /// Adds queues of a table whose segment comes after those of all tables added before.
    pub(super) fn add_spans(
        &mut self,
        table: &Arc<Table>,
        queues: &[TableQueue],
    ) -> Result<(), &'static str> {
        for &TableQueue { queue, slot, base, end } in queues {
            if self.forgotten.contains(&queue) {
                continue;
            }
            let spans = self.spans.entry(queue).or_default();
            if spans.last().is_some_and(|last| base < last.end) {
                return Err("the base offset is not above the queue's last one");
            }
            spans.push(Span { base, end, table: Arc::clone(table), slot });
        }
        Ok(())
    }

    /// For one queue, has the jobs in `table` stand for those in the segments `gone`.
    pub(super) fn replace_spans(
        &mut self,
        queue: QueueId,
        gone: &[u64],
        table: Option<(&Arc<Table>, TableQueue)>,
    ) {
        let Some(spans) = self.spans.get_mut(&queue) else { return };
        spans.retain(|span| !gone.contains(&span.table.segment.id));
        if let Some((table, TableQueue { slot, base, end, .. })) = table {
            let at = spans.partition_point(|span| span.base < base);
            spans.insert(at, Span { base, end, table: Arc::clone(table), slot });
        }
        if spans.is_empty() {
            self.spans.remove(&queue);
        }
    }

    /// Forgets the rows of a sealed segment, for which its table stands from now on.
    pub(super) fn forget_recent(&mut self, segment: u64) {
        self.recent.retain(|recent| recent.segment.id != segment);
        if self.recent.is_empty() {
            self.forgotten.clear();
        }
    }

    /// Drops all that is known of a queue.
    pub(super) fn forget(&mut self, queue: QueueId) {
        self.active.forget(queue);
        self.spans.remove(&queue);
        if !self.recent.is_empty() {
            self.forgotten.insert(queue);
        }
    }

    /// How many entries are indexed in memory.
    pub(super) fn entries(&self) -> usize {
        self.active.len() + self.recent.iter().map(|recent| recent.rows.len()).sum::<usize>()
    }

    /// How many spans there are.
    pub(super) fn spans(&self) -> usize {
        self.spans.values().map(Vec::len).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::files::SystemFiles;
    use crate::log::map::Map;
    use crate::log::segment::{Extent, Last};
    use crate::types::EntryIndex;

    fn segment(id: u64) -> Arc<Segment> {
        let file = tempfile::tempfile().unwrap();
        file.set_len(4096).unwrap();
        let map = Map::whole(&file).unwrap();
        Arc::new(Segment::own([0; 16], id, "test".into(), map))
    }

    fn row(base: u64, position: u32) -> IndexRow {
        IndexRow { base, position, count: 2, length: 88 }
    }

    /// The segment and position where the index finds a job.
    fn place(index: &JobIndex, active: &Arc<Segment>, offset: u64) -> Option<(u64, u32)> {
        Some(match index.find(active, QueueId(3), Offset(offset))? {
            FoundIn::Row(segment, row) => (segment.id, row.position),
            FoundIn::Span(span) => (span.segment().id, span.position(Offset(offset))?),
        })
    }

    #[test]
    fn jobs_are_found_while_their_segment_grows_and_when_it_is_sealed_and_has_a_table() {
        let dir = tempfile::tempdir().unwrap();
        let (one, two) = (segment(1), segment(2));
        let mut index = JobIndex::default();
        let queue = QueueId(3);
        index.add(queue, row(10, 4096)).unwrap();
        index.add(queue, row(15, 5000)).unwrap();
        let check = |index: &JobIndex, active| {
            assert_eq!(place(index, active, 10), Some((1, 4096)));
            assert_eq!(place(index, active, 16), Some((1, 5000)));
            assert_eq!([9, 12, 14, 17].map(|offset| place(index, active, offset)), [None; 4]);
        };
        check(&index, &one);
        let rows = index.seal(&one);
        assert!(index.add(queue, row(16, 4096)).is_err(), "below what is sealed");
        index.add(queue, row(20, 4096)).unwrap();
        check(&index, &two);
        let (first_index, last_index) = (EntryIndex(1), EntryIndex(2));
        let extent = Extent { header_crc: 1, first_index, last_index, end: 6000 };
        let last = Last::default();
        let table = Table::write(Some(&SystemFiles), dir.path(), &one, extent, &rows, last);
        let table = Arc::new(table);
        let queues: Vec<_> = table.queues().collect();
        index.add_spans(&table, &queues).unwrap();
        index.forget_recent(1);
        assert_eq!((index.entries(), index.spans()), (1, 1));
        check(&index, &two);
        assert_eq!(place(&index, &two, 21), Some((2, 4096)));
        assert!(index.add_spans(&table, &queues).is_err(), "no table twice");
        let mut other = JobIndex::default();
        other.add_spans(&table, &queues).unwrap();
        assert!(other.add(queue, row(16, 4096)).is_err(), "below what a table has");
    }

    #[test]
    fn a_forgotten_queue_is_gone_from_all_places() {
        let dir = tempfile::tempdir().unwrap();
        let (one, two) = (segment(1), segment(2));
        let mut index = JobIndex::default();
        index.add(QueueId(3), row(10, 4096)).unwrap();
        let rows = index.seal(&one);
        index.forget(QueueId(3));
        assert_eq!(place(&index, &two, 10), None);
        let (first_index, last_index) = (EntryIndex(1), EntryIndex(1));
        let extent = Extent { header_crc: 1, first_index, last_index, end: 6000 };
        let last = Last::default();
        let table = Table::write(Some(&SystemFiles), dir.path(), &one, extent, &rows, last);
        let queues: Vec<_> = table.queues().collect();
        index.add_spans(&Arc::new(table), &queues).unwrap();
        index.forget_recent(1);
        assert_eq!((index.entries(), index.spans()), (0, 0));
    }
}
