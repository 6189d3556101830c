//! Reads written entries back while the log is open: for a second machine, or for a replica.

use std::sync::Arc;

use crate::types::EntryIndex;

use super::error::LogError;
use super::format::SEGMENT_HEADER_BYTES;
use super::replay::Replay;
use super::segment::Segment;
use super::shared::{Resume, Shared};

/// What is to be read of one segment.
struct SegmentPart {
    segment: Arc<Segment>,
    /// Index of the entry in front of the first.
    before: EntryIndex,
    end: u32,
}

impl Shared {
    /// Hands the entries above `after`, up to `through`, to `each`. No lock is held meanwhile.
    pub(super) fn entries(
        &self,
        after: EntryIndex,
        through: EntryIndex,
        each: &mut Replay<'_>,
    ) -> Result<(), LogError> {
        if through > self.written() {
            return Err(LogError::NotWritten);
        }
        if after >= through {
            return Ok(());
        }
        let mut next = EntryIndex(after.0 + 1);
        let stretches = self.stretches(after, through)?;
        let mut resume = *self.resume.lock();
        for SegmentPart { segment, before, end } in stretches {
            let at = (resume.segment == segment.id && resume.before < next).then_some(resume);
            let mut place = at.unwrap_or(Resume {
                segment: segment.id,
                position: SEGMENT_HEADER_BYTES as u32,
                before,
            });
            while place.position < end && next <= through {
                let frame = segment.frame_at(place.position)?;
                if let Some(framed) = &frame.entry {
                    place.before = framed.view.index;
                    if framed.view.index == next {
                        let index = next;
                        each(&framed.view).map_err(|source| LogError::Replay { index, source })?;
                        next.0 += 1;
                    }
                }
                place.position += frame.bytes as u32;
            }
            resume = place;
        }
        *self.resume.lock() = resume;
        match next > through {
            true => Ok(()),
            false => Err(LogError::damaged(&self.dir, 0, "an entry is missing in its segment")),
        }
    }

    /// The segments that hold the entries above `after`, up to `through`.
    fn stretches(
        &self,
        after: EntryIndex,
        through: EntryIndex,
    ) -> Result<Vec<SegmentPart>, LogError> {
        let tail = self.tail.lock();
        let sealed = tail.sealed.iter().map(|sealed| SegmentPart {
            segment: Arc::clone(&sealed.segment),
            before: EntryIndex(sealed.extent.first_index.0 - 1),
            end: sealed.extent.end,
        });
        let active = SegmentPart {
            segment: Arc::clone(&tail.active.segment),
            before: EntryIndex(tail.header.first_index.0 - 1),
            end: tail.position,
        };
        let mut stretches: Vec<_> = sealed.chain([active]).collect();
        drop(tail);
        if let Some(first) = stretches.first().filter(|first| after < first.before) {
            return Err(LogError::Purged { base: first.before, asked: after });
        }
        let first = stretches.partition_point(|stretch| stretch.before <= after);
        stretches.drain(..first.saturating_sub(1));
        stretches.retain(|stretch| stretch.before < through);
        Ok(stretches)
    }
}
