//! The tail: the end of the log in memory, behind one short lock.

use std::collections::VecDeque;
use std::mem;
use std::sync::Arc;

use crate::types::{EntryIndex, Term};

use super::entry::EntryView;
use super::error::LogError;
use super::format::*;
use super::index::JobIndex;
use super::segment::{Extent, FileKind, Last, OpenSegment, Segment, SegmentHeader};
use super::table::{IndexRow, IndexRows, Old, Sealed};

/// Bytes on their way to the files: what one `write` takes.
#[derive(Debug, Default)]
pub(super) struct WriteBatch {
    bytes: Vec<u8>,
    parts: Vec<WritePart>,
    /// The last index in it.
    pub(super) last_index: EntryIndex,
}

/// A part of a batch: a stretch of one segment. A batch has more than one after a roll only.
#[derive(Debug)]
pub(super) struct WritePart {
    pub(super) segment: Arc<OpenSegment>,
    /// Where in the segment it begins.
    pub(super) position: u32,
    /// Where in the batch's bytes it begins.
    begin: usize,
}

/// A buffer that grew beyond this for one large batch is given back afterwards.
const BUFFER_BYTES_KEPT: usize = 8 << 20;

impl WriteBatch {
    pub(super) fn is_empty(&self) -> bool {
        self.parts.is_empty()
    }

    pub(super) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// The parts, each with its bytes.
    pub(super) fn parts(&self) -> impl Iterator<Item = (&WritePart, &[u8])> {
        let ends = self.parts.iter().skip(1).map(|part| part.begin).chain([self.bytes.len()]);
        self.parts
            .iter()
            .zip(ends)
            .map(|(part, end)| (part, self.bytes.get(part.begin..end).unwrap_or_default()))
    }

    /// The frame at `position` of `segment` and all behind it in its part, if it is in here.
    fn frame_at(&self, segment: &Segment, position: u32) -> Option<&[u8]> {
        self.parts().find_map(|(part, bytes)| {
            let begin = position.checked_sub(part.position)? as usize;
            let here = part.segment.segment.id == segment.id && begin < bytes.len();
            here.then(|| bytes.get(begin..)).flatten()
        })
    }

    /// Empties it, keeping its memory.
    pub(super) fn clear(&mut self) {
        self.parts.clear();
        self.bytes.clear();
        self.bytes.shrink_to(BUFFER_BYTES_KEPT);
    }
}

/// The segment prepared ahead.
#[derive(Debug)]
pub(super) enum Spare {
    /// Nobody needs one yet.
    Idle,
    /// To be prepared.
    Wanted,
    /// Ready to be rolled to.
    Ready(Arc<OpenSegment>),
    /// Could not be prepared.
    Failed(LogError),
}

/// The end of the log.
#[derive(Debug)]
pub(super) struct Tail {
    pub(super) next_index: EntryIndex,
    /// The segment that grows.
    pub(super) active: Arc<OpenSegment>,
    /// Where in it the next frame goes.
    pub(super) position: u32,
    /// The highest durable index that a header or frame carries.
    pub(super) proved: EntryIndex,
    /// What no `write` has taken yet.
    pub(super) pending: WriteBatch,
    /// What a `write` has taken and not yet finished.
    pub(super) inflight: Option<Arc<WriteBatch>>,
    pub(super) index: JobIndex,
    /// Segments with bytes written since their last sync, oldest first.
    pub(super) dirty: Vec<Arc<OpenSegment>>,
    pub(super) spare: Spare,
    /// The size that somebody waits for a spare of; 0 for nobody.
    pub(super) spare_awaited: u32,
    /// The size of the next spare, unless a larger one is awaited.
    pub(super) spare_bytes: u32,
    /// Segments that are made and whose names are not durable yet.
    pub(super) unnamed: Vec<Arc<OpenSegment>>,
    /// Spares that nobody has a use for any more.
    pub(super) discarded: Vec<Arc<OpenSegment>>,
    /// The start is over: until then the background does only what is waited for.
    pub(super) started: bool,
    /// How many of the background threads have something to do.
    pub(super) busy: usize,
    /// It is time to look whether there is room for a ballast.
    pub(super) ballast_due: bool,
    /// The id for the next file.
    pub(super) next_segment: u64,
    /// The older files in front of the log's beginning, in the order of their entries.
    pub(super) old: Vec<Old>,
    /// The segments between the log's beginning and the active one, oldest first.
    pub(super) sealed: Vec<Sealed>,
    /// Sealed segments whose index tables are still to be made, oldest first, by their ids.
    pub(super) untabled: VecDeque<(u64, Arc<IndexRows>)>,
    /// The header of the active segment.
    pub(super) header: SegmentHeader,
    /// The term of the last entry, below which none may follow.
    pub(super) term: Term,
    /// The last entry in the active segment.
    pub(super) last: Last,
    /// No more appends are taken.
    pub(super) closed: bool,
    /// The background threads are to end.
    pub(super) stopping: bool,
    /// Somebody called `wake` and nobody has seen it yet.
    pub(super) woken: bool,
}

impl Tail {
    pub(super) fn last_index(&self) -> EntryIndex {
        EntryIndex(self.next_index.0 - 1)
    }

    /// Appends an entry, for which there must be room in the active segment.
    #[inline]
    pub(super) fn push(
        &mut self,
        entry: &EntryView<'_>,
        bodies_crc: u32,
        durable: EntryIndex,
    ) -> Result<(), &'static str> {
        let segment = &self.active.segment;
        if entry.count > 0 {
            self.index.add(entry.queue, IndexRow::of(entry, self.position))?;
        }
        let seed = segment.seed;
        let position = self.position;
        let buffer = self.part_at_end();
        seed.push_entry(buffer, position, durable, entry, bodies_crc);
        self.position += frame_bytes(entry.encoded_bytes() as usize) as u32;
        self.proved = self.proved.max(durable);
        self.next_index = EntryIndex(entry.index.0 + 1);
        self.term = entry.term;
        self.last = Last { term: entry.term, stamp: entry.stamp };
        Ok(())
    }

    /// Whether an entry whose frame takes `bytes` fits the active segment, and a mark behind it.
    pub(super) fn has_room(&self, bytes: u32) -> bool {
        self.position + bytes <= self.active.bytes() - FRAME_HEADER_BYTES as u32
    }

    /// Appends a mark, for which there must be room in the active segment.
    pub(super) fn push_mark(&mut self, durable: EntryIndex) {
        let (seed, position) = (self.active.segment.seed, self.position);
        seed.push_mark(self.part_at_end(), position, durable);
        self.position += FRAME_HEADER_BYTES as u32;
        self.proved = self.proved.max(durable);
    }

    /// Seals the active segment and goes on in `fresh`. The header of `fresh` is written together
    /// with its first frames, because only now is it known where the sealed one ends.
    pub(super) fn roll(
        &mut self,
        fresh: Arc<OpenSegment>,
        log_id: [u8; 16],
        term: Term,
        durable: EntryIndex,
        wall_ms: u64,
    ) {
        let header = SegmentHeader {
            kind: FileKind::Segment,
            id: fresh.segment.id,
            log_id,
            term,
            first_index: self.next_index,
            previous: self.active.segment.id,
            previous_end: self.position,
            durable,
            wall_ms,
            size: fresh.bytes(),
        };
        self.active.seal(self.last_index());
        let segment = &self.active.segment;
        self.untabled.push_back((segment.id, self.index.seal(segment)));
        self.sealed.push(Sealed {
            segment: Arc::clone(segment),
            extent: Extent::new(&self.header, self.last_index(), self.position),
            last: mem::take(&mut self.last),
            table: None,
        });
        self.header = header;
        self.active = fresh;
        self.position = 0;
        let begin = self.pending.len();
        let segment = Arc::clone(&self.active);
        self.pending.parts.push(WritePart { segment, position: 0, begin });
        self.pending.bytes.extend_from_slice(&header.encode());
        self.position = SEGMENT_HEADER_BYTES as u32;
        self.proved = self.proved.max(durable);
    }

    /// The frame at `position` of `segment` while it is in memory.
    #[inline]
    pub(super) fn in_memory(&self, segment: &Segment, position: u32) -> Option<&[u8]> {
        self.pending
            .frame_at(segment, position)
            .or_else(|| self.inflight.as_ref()?.frame_at(segment, position))
    }

    /// The sealed segment of this id.
    pub(super) fn sealed_of(&self, id: u64) -> Option<&Sealed> {
        self.sealed.iter().rev().find(|sealed| sealed.segment.id == id)
    }

    /// Whether the sealed segment of this id is synced to its end.
    pub(super) fn is_synced(&self, id: u64, synced: EntryIndex) -> bool {
        self.sealed_of(id).is_some_and(|sealed| sealed.extent.last_index <= synced)
    }

    /// Hands what is pending to the writer, in exchange for its empty batch. False if there is
    /// nothing.
    pub(super) fn take(&mut self, writer: &mut WriteBatch) -> bool {
        if self.pending.is_empty() {
            return false;
        }
        self.pending.last_index = self.last_index();
        mem::swap(&mut self.pending, writer);
        true
    }

    /// Notes that `batch` is in the files and not yet synced.
    pub(super) fn retire(&mut self, batch: &WriteBatch) {
        self.inflight = None;
        for part in &batch.parts {
            let id = part.segment.segment.id;
            if self.dirty.iter().all(|dirty| dirty.segment.id != id) {
                self.dirty.push(Arc::clone(&part.segment));
            }
        }
    }

    /// How many of the dirty segments, from the oldest, will not be written again.
    pub(super) fn sealed_dirty(&self, written: EntryIndex) -> usize {
        let finished = |open: &&Arc<OpenSegment>| open.sealed_at().is_some_and(|at| at <= written);
        self.dirty.iter().take_while(finished).count()
    }

    /// The buffer to append to, with a part for the active segment.
    #[inline]
    fn part_at_end(&mut self) -> &mut Vec<u8> {
        if self.pending.parts.is_empty() {
            let segment = Arc::clone(&self.active);
            self.pending.parts.push(WritePart { segment, position: self.position, begin: 0 });
        }
        &mut self.pending.bytes
    }
}
