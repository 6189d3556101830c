//! All that lies in a file with frames, be it sound or not.

use std::io;
use std::path::Path;

use crate::types::{EntryIndex, Term};

use super::entry::EntryView;
use super::error::LogError;
use super::format::*;
use super::frame::{FramedEntry, Seed, used};
use super::segment::Segment;

/// Something in the files of a log.
#[derive(Clone, Copy, Debug)]
pub enum Item<'a> {
    /// A file begins.
    File {
        /// Whether compaction has made it.
        compacted: bool,
        /// The term in its header.
        term: Term,
        /// The first index in its header.
        first_index: EntryIndex,
        /// The durable index in its header.
        durable: EntryIndex,
    },
    /// A frame with an entry.
    Entry {
        /// Where the frame begins.
        position: u64,
        /// The durable index that it carries.
        durable: EntryIndex,
        /// The entry.
        view: EntryView<'a>,
        /// Whether the bodies are what was written.
        bodies_are_whole: bool,
    },
    /// A frame without an entry.
    Mark {
        /// Where it begins.
        position: u64,
        /// The durable index that it carries.
        durable: EntryIndex,
    },
    /// Bytes that are no frame, where one should be.
    NoFrame {
        /// Where they begin.
        position: u64,
        /// Where the next frame begins, or the file ends.
        end: u64,
        /// What is wrong.
        reason: &'static str,
    },
}

/// Walks over the frames of one file from `position` on, up to `end` or to where only zeros follow.
pub(super) fn walk_file(
    segment: &Segment,
    position: u32,
    end: Option<u32>,
    each: &mut dyn FnMut(&Path, Item<'_>) -> io::Result<()>,
) -> Result<(), LogError> {
    segment.warm(0, segment.map.len())?;
    let frames = Frames { path: &segment.path, seed: segment.seed, bytes: segment.bytes_from(0) };
    frames.walk(position, end, each)
}

/// The bytes of a file with frames.
pub(super) struct Frames<'a> {
    pub(super) path: &'a Path,
    pub(super) seed: Seed,
    pub(super) bytes: &'a [u8],
}

impl Frames<'_> {
    /// See [`walk_file`].
    pub(super) fn walk(
        &self,
        mut position: u32,
        end: Option<u32>,
        each: &mut dyn FnMut(&Path, Item<'_>) -> io::Result<()>,
    ) -> Result<(), LogError> {
        let mut give = |item: Item<'_>| {
            each(self.path, item).map_err(|error| LogError::io("reading", self.path, error))
        };
        let stop = end.unwrap_or(self.bytes.len() as u32);
        while position < stop {
            let at = u64::from(position);
            let rest = self.from(position);
            match self.seed.parse(rest, position) {
                Ok(frame) => {
                    let durable = frame.durable;
                    give(match &frame.entry {
                        None => Item::Mark { position: at, durable },
                        Some(framed @ FramedEntry { view, .. }) => Item::Entry {
                            position: at,
                            durable,
                            view: *view,
                            bodies_are_whole: framed.bodies_are_whole(),
                        },
                    })?;
                    position += frame.bytes as u32;
                }
                Err(_) if end.is_none() && used(rest) == 0 => return Ok(()),
                Err(reason) => {
                    position = self.next_frame(position, stop);
                    give(Item::NoFrame { position: at, end: u64::from(position), reason })?;
                }
            }
        }
        Ok(())
    }

    fn from(&self, position: u32) -> &[u8] {
        self.bytes.get(position as usize..).unwrap_or_default()
    }

    /// Where the next frame behind `position` begins; `stop` if there is none.
    fn next_frame(&self, position: u32, stop: u32) -> u32 {
        let candidates = (position..stop).step_by(FRAME_ALIGNMENT).skip(1);
        let mut frames = candidates.filter(|candidate| {
            let bytes = self.from(*candidate);
            (bytes.starts_with(&ENTRY_MAGIC) || bytes.starts_with(&MARK_MAGIC))
                && self.seed.parse(bytes, *candidate).is_ok()
        });
        frames.next().unwrap_or(stop)
    }
}
