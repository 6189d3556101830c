//! Replay: reads the chain of segments frame by frame and delivers its entries in order.

use std::collections::VecDeque;
use std::error::Error;
use std::sync::Arc;

use crate::types::{EntryIndex, Term};

use super::entry::EntryView;
use super::error::LogError;
use super::format::SEGMENT_HEADER_BYTES;
use super::frame::FramedEntry;
use super::index::JobIndex;
use super::recovery::Recovered;
use super::segment::{Segment, SegmentHeader};

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
pub(super) struct Place {
    /// Which segment, from the oldest.
    pub(super) link: usize,
    pub(super) position: u32,
}

/// The walk through the chain. Entries wait until a later frame proves them, so that the tail that
/// nothing proves can be looked at more closely before anybody sees it.
pub(super) struct Walk<'a, 'f> {
    chain: &'a [Link],
    each: &'a mut Replay<'f>,
    pub(super) waiting: VecDeque<(EntryIndex, Place)>,
    pub(super) index: JobIndex,
    /// Entries up to here are indexed and not delivered: a checkpoint stands for them.
    after: EntryIndex,
    /// The index that the next entry must have.
    pub(super) expected: u64,
    /// The term of the last entry read, which the next may not go below.
    term: Term,
    pub(super) recovered: Recovered,
}

/// Why a segment was not read to its end, and where.
type Stop = (Place, &'static str);

impl<'a, 'f> Walk<'a, 'f> {
    /// A walk that delivers the entries above `after`, up to which all was synced.
    pub(super) fn new(chain: &'a [Link], after: EntryIndex, each: &'a mut Replay<'f>) -> Self {
        Self {
            chain,
            each,
            waiting: VecDeque::new(),
            index: JobIndex::default(),
            after,
            expected: 1,
            term: Term(0),
            recovered: Recovered { proved: after, ..Recovered::default() },
        }
    }

    /// Walks to where reading stops, which is the end of the last segment or before, and delivers
    /// the entries that are proved until then.
    pub(super) fn run(&mut self) -> Result<Stop, LogError> {
        for (number, link) in self.chain.iter().enumerate() {
            let end = self.chain.get(number + 1).map(|next| next.header.previous_end);
            if let Some(stop) = self.segment(number, link, end)? {
                return Ok(stop);
            }
        }
        Ok(Stop::default())
    }

    /// Reads one segment up to `end`, or if it is the last, up to the first that is no frame.
    fn segment(
        &mut self,
        number: usize,
        link: &Link,
        end: Option<u32>,
    ) -> Result<Option<Stop>, LogError> {
        let Link { header, segment } = link;
        segment.map.populate().map_err(|error| LogError::io("reading", &segment.path, error))?;
        if header.first_index.0 != self.expected {
            return Err(segment.damaged(0, "the segment does not begin with the next index"));
        }
        if header.term < self.term {
            return Err(segment.damaged(0, "the segment's term is below the one before"));
        }
        self.prove(header.durable)?;
        let mut position = SEGMENT_HEADER_BYTES as u32;
        while end != Some(position) {
            let place = Place { link: number, position };
            if end.is_some_and(|end| position > end) {
                return Ok(Some((place, "a frame crosses the segment's end")));
            }
            let frame = match segment.seed.parse(segment.bytes_from(position), position) {
                Ok(frame) => frame,
                Err(reason) => return Ok(Some((place, reason))),
            };
            if let Some(FramedEntry { view, .. }) = &frame.entry {
                self.check_order(view).map_err(|reason| segment.damaged(position, reason))?;
                if view.term > header.term {
                    return Err(segment.damaged(position, "the entry's term is its segment's"));
                }
                self.waiting.push_back((view.index, place));
                self.expected += 1;
                self.term = view.term;
            }
            self.prove(frame.durable)?;
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

    /// Takes note that the entries up to `durable` were synced, and delivers them.
    fn prove(&mut self, durable: EntryIndex) -> Result<(), LogError> {
        self.recovered.proved = self.recovered.proved.max(durable);
        while let Some((index, place)) = self.waiting.front().copied() {
            if index > self.recovered.proved {
                break;
            }
            self.waiting.pop_front();
            let Some(link) = self.chain.get(place.link) else {
                continue;
            };
            let view = framed_entry(&link.segment, place.position)?.view;
            if view.count > 0 {
                self.index
                    .add(view.queue, view.base_offset, view.count, &link.segment, place.position)
                    .map_err(|reason| link.segment.damaged(place.position, reason))?;
            }
            self.deliver(&view)?;
        }
        Ok(())
    }

    /// Of the entries that nothing proves, forgets the first whose bodies are not whole and all
    /// behind it.
    pub(super) fn cut_torn_bodies(&mut self) -> Option<Place> {
        let chain = self.chain;
        let torn = self.waiting.iter().position(|(_, place)| {
            let framed =
                chain.get(place.link).map(|link| framed_entry(&link.segment, place.position));
            !framed.is_some_and(|framed| framed.is_ok_and(|framed| framed.bodies_are_whole()))
        })?;
        let place = self.waiting.get(torn).map(|(_, place)| *place);
        self.waiting.truncate(torn);
        place
    }

    /// Delivers the entries that nothing proves. `start` indexes them where it writes them again.
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
