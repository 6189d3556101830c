//! Replay: reads the chain of segments frame by frame and delivers its entries in order. Segments
//! that a checkpoint stands for are not read if they have an index table.

use std::collections::VecDeque;
use std::error::Error;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::types::{EntryIndex, Stamp, Term};

use super::entry::EntryView;
use super::error::LogError;
use super::files::Files;
use super::format::{SEGMENT_FIELD_CRC, SEGMENT_HEADER_BYTES, frame_bytes};
use super::frame::FramedEntry;
use super::index::JobIndex;
use super::manifest::{Base, OldFile};
use super::map::Map;
use super::segment::{Extent, Last, Segment, SegmentHeader};
use super::table::{IndexRow, IndexRows, Old, Table, scan};

/// What replay calls for each entry. An error ends the replay.
pub type Replay<'a> = dyn FnMut(&EntryView<'_>) -> Result<(), Box<dyn Error + Send + Sync>> + 'a;

/// One segment of the chain.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) header: SegmentHeader,
    pub(super) segment: Arc<Segment>,
}

/// A place in the chain.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct ChainPlace {
    /// Which segment, from the oldest.
    pub(super) link: usize,
    pub(super) position: u32,
}

/// Where index tables are kept.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shelf<'a> {
    pub(super) files: &'a dyn Files,
    pub(super) dir: &'a Path,
    /// What is made is kept in memory.
    pub(super) read_only: bool,
}

/// What is known of where jobs lie.
#[derive(Debug, Default)]
pub(super) struct Indexed {
    pub(super) index: JobIndex,
    /// The tables of the older files, in order.
    pub(super) old: Vec<Old>,
    /// The tables of the first segments of the chain.
    pub(super) tables: Vec<Arc<Table>>,
    /// What the segment behind them has, and its last entry.
    rows: IndexRows,
    last: Last,
}

/// What a replay found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recovered {
    /// Index of the last entry; 0 if there is none.
    pub last_index: EntryIndex,
    /// The highest term in the log; `start` wants a higher one.
    pub last_term: Term,
    /// Both clocks of the last entry.
    pub last_stamp: Stamp,
    /// The entries up to here were known to be synced. `start` writes those above once more, and a
    /// few of those below if it is not sure where they were synced.
    pub proved: EntryIndex,
    /// What was cut, for a warning.
    pub torn: Option<TornTail>,
}

/// The end of the last run that a crash has left incomplete and that recovery has cut.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TornTail {
    /// The segment in which the cut lies.
    pub file: PathBuf,
    /// The position of the cut.
    pub position: u64,
    /// Bytes behind it that were not zero, up to the last of them.
    pub bytes: u64,
    /// What was wrong there.
    pub reason: &'static str,
}

/// The walk through the chain. Entries wait until it is known that they are *held*: on the disk,
/// where they lie, in a segment whose header is there too. What is not held by the end is written
/// once more by `start`, and if nothing even proves that it was synced, looked at more closely
/// before anybody sees it.
///
/// A header proves that the entries in its segment were synced before it was written, but not that
/// it is on the disk itself: only what was appended after the start that wrote it says so. A
/// checkpoint proves its entries too, but not where they were then.
pub(super) struct Walk<'a, 'f> {
    chain: &'a [Link],
    shelf: Shelf<'a>,
    each: &'a mut Replay<'f>,
    pub(super) waiting: VecDeque<(EntryIndex, ChainPlace)>,
    /// Behind the last entry that is held. What follows, be it a mark, may not be on the disk.
    pub(super) end: Option<ChainPlace>,
    /// The highest durable index in a frame.
    held: EntryIndex,
    pub(super) indexed: Indexed,
    /// Entries up to here are indexed and not delivered: a checkpoint stands for them.
    after: EntryIndex,
    /// Entries above are to be cut off.
    through: EntryIndex,
    /// The index that the next entry must have.
    pub(super) expected: u64,
    /// The term of the last entry read, which the next may not go below.
    term: Term,
    pub(super) recovered: Recovered,
}

/// Why a segment was not read to its end, and where.
type ReadStop = (ChainPlace, &'static str);

impl Link {
    /// What counts of the segment, by the header of the one that continues it.
    pub(super) fn extent(&self, next: &SegmentHeader) -> Extent {
        Extent::new(&self.header, EntryIndex(next.first_index.0 - 1), next.previous_end)
    }
}

impl Indexed {
    /// Adds an older file that the manifest names.
    pub(super) fn add_old(
        &mut self,
        shelf: Shelf<'_>,
        log_id: Option<[u8; 16]>,
        old: &OldFile,
    ) -> Result<(), LogError> {
        let (_, segment) = old.open(shelf, log_id)?;
        self.skip_segment(shelf, &Arc::new(segment), old.extent)?;
        self.old.extend(self.tables.pop().map(|table| Old { kind: old.kind, table }));
        Ok(())
    }

    /// Adds the table of the next segment of the chain, which is complete now.
    pub(super) fn finish_segment(
        &mut self,
        shelf: Shelf<'_>,
        segment: &Arc<Segment>,
        extent: Extent,
    ) -> Result<(), LogError> {
        let (rows, last) = (std::mem::take(&mut self.rows), std::mem::take(&mut self.last));
        let files = (!shelf.read_only).then_some(shelf.files);
        let table = Table::write(files, shelf.dir, segment, extent, &rows, last);
        self.add_table(table).map_err(|reason| segment.damaged(0, reason))
    }

    /// Adds the table of the next segment of the chain, from the disk if it has a good one there.
    fn skip_segment(
        &mut self,
        shelf: Shelf<'_>,
        segment: &Arc<Segment>,
        extent: Extent,
    ) -> Result<(), LogError> {
        let found = Table::open(shelf.files, shelf.dir, segment, extent);
        // A table that contradicts those before it is as good as none.
        if found.is_some_and(|table| self.add_table(table).is_ok()) {
            return Ok(());
        }
        (self.rows, self.last) = scan(segment, &extent)?;
        self.finish_segment(shelf, segment, extent)
    }

    fn add_table(&mut self, table: Table) -> Result<(), &'static str> {
        let table = Arc::new(table);
        let queues: Vec<_> = table.queues().collect();
        self.index.add_spans(&table, &queues)?;
        self.tables.push(table);
        Ok(())
    }
}

impl OldFile {
    /// Opens the file and checks its header.
    pub(super) fn open(
        &self,
        shelf: Shelf<'_>,
        log_id: Option<[u8; 16]>,
    ) -> Result<(SegmentHeader, Segment), LogError> {
        let Self { kind, id, extent } = *self;
        let path = shelf.dir.join(kind.file_name(id));
        let file = shelf.files.open(&path).map_err(|error| {
            if error.kind() == io::ErrorKind::NotFound {
                return LogError::damaged(&path, 0, "a file that the manifest names is missing");
            }
            LogError::io("opening", &path, error)
        })?;
        let bytes = file.metadata().map_err(|error| LogError::io("reading", &path, error))?.len();
        if bytes < u64::from(extent.end) {
            return Err(LogError::damaged(&path, bytes, "the file is shorter than it was"));
        }
        let map = Map::whole(&file).map_err(|error| LogError::io("mapping", &path, error))?;
        map.populate_range(0, SEGMENT_HEADER_BYTES)
            .map_err(|error| LogError::io("reading", &path, error))?;
        let page = map.get(0, SEGMENT_HEADER_BYTES).unwrap_or_default();
        let header = SegmentHeader::decode(kind, page);
        let header = header.ok().filter(|header| {
            header.id == id
                && Some(header.log_id) == log_id
                && SEGMENT_FIELD_CRC.u32(page) == extent.header_crc
        });
        let Some(header) = header else {
            return Err(LogError::damaged(&path, 0, "the header is not the one it had"));
        };
        Ok((header, Segment::cold(header.log_id, id, path, map)))
    }
}

impl<'a, 'f> Walk<'a, 'f> {
    /// A walk that begins behind `base` and delivers the entries above `after`, up to which all was
    /// synced. It stops behind `through`.
    pub(super) fn new(
        chain: &'a [Link],
        shelf: Shelf<'a>,
        base: &Base,
        after: EntryIndex,
        through: EntryIndex,
        each: &'a mut Replay<'f>,
    ) -> Self {
        Self {
            chain,
            shelf,
            each,
            waiting: VecDeque::new(),
            end: None,
            held: base.index,
            indexed: Indexed::default(),
            after,
            through,
            expected: base.index.0 + 1,
            term: base.last.term,
            recovered: Recovered {
                last_index: base.index,
                last_term: base.last.term,
                last_stamp: base.last.stamp,
                proved: after,
                torn: None,
            },
        }
    }

    /// Walks to where reading stops, which is the end of the last segment or before, and delivers
    /// the entries that are proved until then.
    pub(super) fn run(&mut self) -> Result<ReadStop, LogError> {
        for (number, link) in self.chain.iter().enumerate() {
            self.check_header(link)?;
            let next = self.chain.get(number + 1).map(|next| &next.header);
            match next {
                Some(next) if self.may_skip(number, next) => self.skip(number, link, next)?,
                _ => {
                    let end = next.map(|next| next.previous_end);
                    if let Some(stop) = self.segment(number, link, end)? {
                        return Ok(stop);
                    }
                }
            }
        }
        Ok(ReadStop::default())
    }

    fn check_header(&mut self, Link { header, segment }: &Link) -> Result<(), LogError> {
        if header.first_index.0 != self.expected {
            return Err(segment.damaged(0, "the segment does not begin with the next index"));
        }
        if header.term < self.term {
            return Err(segment.damaged(0, "the segment's term is below the one before"));
        }
        self.recovered.proved = self.recovered.proved.max(header.durable);
        // None of its own entries waits yet.
        self.hold(header.durable)
    }

    /// Whether a checkpoint stands for the segment `number` and all of it is held: the entry behind
    /// it was synced, and a later header says that something in it was.
    fn may_skip(&self, number: usize, next: &SegmentHeader) -> bool {
        let first = EntryIndex(self.expected);
        next.first_index <= self.after
            && self.waiting.is_empty()
            && self.chain.iter().skip(number + 1).any(|link| link.header.durable >= first)
    }

    /// Passes over a segment that a checkpoint stands for.
    fn skip(&mut self, number: usize, link: &Link, next: &SegmentHeader) -> Result<(), LogError> {
        let extent = link.extent(next);
        self.end = Some(ChainPlace { link: number, position: extent.end });
        self.indexed.skip_segment(self.shelf, &link.segment, extent)?;
        if let Some(table) = self.indexed.tables.last().filter(|_| extent.has_entries()) {
            let Last { term, stamp } = table.last();
            self.term = term;
            self.recovered.last_index = extent.last_index;
            self.recovered.last_term = term;
            self.recovered.last_stamp = stamp;
        }
        self.expected = next.first_index.0;
        Ok(())
    }

    /// Whether the walk has come to the entry behind which the log is to be cut.
    pub(super) fn is_through(&self) -> bool {
        self.expected > self.through.0
    }

    /// Reads one segment up to `end`, or if it is the last, up to the first that is no frame.
    fn segment(
        &mut self,
        number: usize,
        link: &Link,
        end: Option<u32>,
    ) -> Result<Option<ReadStop>, LogError> {
        let Link { header, segment } = link;
        segment.warm(0, segment.map.len())?;
        let mut position = SEGMENT_HEADER_BYTES as u32;
        while end != Some(position) {
            let place = ChainPlace { link: number, position };
            if end.is_some_and(|end| position > end) {
                return Ok(Some((place, "a frame crosses the segment's end")));
            }
            let frame = match segment.seed.parse(segment.bytes_from(position), position) {
                Ok(frame) => frame,
                Err(reason) => return Ok(Some((place, reason))),
            };
            if let Some(FramedEntry { view, .. }) = &frame.entry {
                if self.is_through() {
                    return Ok(Some((place, "the log is cut here")));
                }
                self.check_order(view).map_err(|reason| segment.damaged(position, reason))?;
                if view.term > header.term {
                    return Err(segment.damaged(position, "the entry's term is its segment's"));
                }
                self.waiting.push_back((view.index, place));
                self.expected += 1;
                self.term = view.term;
            }
            self.recovered.proved = self.recovered.proved.max(frame.durable);
            self.held = self.held.max(frame.durable);
            // A header that says more than what will be left can't stay.
            let stays = header.durable <= self.through;
            let before = EntryIndex(header.first_index.0 - 1);
            self.hold(if stays { self.held } else { self.held.min(before) })?;
            position += frame.bytes as u32;
        }
        Ok(None)
    }

    fn check_order(&self, view: &EntryView<'_>) -> Result<(), &'static str> {
        if view.index.0 != self.expected {
            return Err("the entry has not the next index");
        }
        if view.term < self.term {
            return Err("the entry's term is below the one before");
        }
        Ok(())
    }

    /// Takes note that of those that wait the entries up to `held` are, and delivers them.
    fn hold(&mut self, held: EntryIndex) -> Result<(), LogError> {
        while let Some((index, place)) = self.waiting.front().copied() {
            if index > held {
                break;
            }
            self.waiting.pop_front();
            self.finish_before(place.link)?;
            let Some(link) = self.chain.get(place.link) else {
                continue;
            };
            let view = framed_entry(&link.segment, place.position)?.view;
            if view.count > 0 {
                let row = IndexRow::of(&view, place.position);
                let added = self.indexed.rows.add(view.queue, row);
                added.map_err(|reason| link.segment.damaged(place.position, reason))?;
            }
            let bytes = frame_bytes(view.encoded_bytes() as usize) as u32;
            self.end = Some(ChainPlace { position: place.position + bytes, ..place });
            self.indexed.last = Last { term: view.term, stamp: view.stamp };
            self.deliver(&view)?;
        }
        Ok(())
    }

    /// Makes the tables of the segments in front of `link`, which is reached.
    fn finish_before(&mut self, link: usize) -> Result<(), LogError> {
        while self.indexed.tables.len() < link {
            let number = self.indexed.tables.len();
            let (Some(link), Some(next)) = (self.chain.get(number), self.chain.get(number + 1))
            else {
                break;
            };
            let extent = link.extent(&next.header);
            self.indexed.finish_segment(self.shelf, &link.segment, extent)?;
        }
        Ok(())
    }

    /// Of the entries that nothing proves, forgets the first whose bodies are not whole and all
    /// behind it.
    pub(super) fn cut_torn_bodies(&mut self) -> Option<ChainPlace> {
        let chain = self.chain;
        let proved = self.recovered.proved;
        let torn = self.waiting.iter().position(|(index, place)| {
            if *index <= proved {
                return false;
            }
            let framed =
                chain.get(place.link).map(|link| framed_entry(&link.segment, place.position));
            !framed.is_some_and(|framed| framed.is_ok_and(|framed| framed.bodies_are_whole()))
        })?;
        let place = self.waiting.get(torn).map(|(_, place)| *place);
        self.waiting.truncate(torn);
        place
    }

    /// Delivers the entries that are not held. `start` indexes them where it writes them again.
    pub(super) fn deliver_rest(&mut self) -> Result<(), LogError> {
        let chain = self.chain;
        for at in 0..self.waiting.len() {
            let Some((_, place)) = self.waiting.get(at).copied() else {
                break;
            };
            let Some(link) = chain.get(place.link) else {
                break;
            };
            let view = framed_entry(&link.segment, place.position)?.view;
            self.deliver(&view)?;
        }
        Ok(())
    }

    fn deliver(&mut self, view: &EntryView<'_>) -> Result<(), LogError> {
        if view.index > self.after {
            (self.each)(view).map_err(|source| LogError::Replay { index: view.index, source })?;
        }
        self.recovered.last_index = view.index;
        self.recovered.last_term = view.term;
        self.recovered.last_stamp = view.stamp;
        Ok(())
    }
}

/// The entry whose frame has passed its check before.
pub(super) fn framed_entry(segment: &Segment, position: u32) -> Result<FramedEntry<'_>, LogError> {
    FramedEntry::again(segment.bytes_from(position))
        .map_err(|reason| segment.damaged(position, reason))
}
