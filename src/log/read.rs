//! Reading entries back from an open log, for a state that is to catch up with it.

use std::sync::Arc;

use crate::types::EntryIndex;

use super::error::LogError;
use super::format::*;
use super::frame::{Frame, FramedEntry};
use super::handle::Log;
use super::replay::Replay;
use super::segment::Segment;
use super::tail::Sealed;

impl Log {
    /// Hands the entries behind `after` up to `through` to `each`, in order. They are read from
    /// the files, without any lock held meanwhile. `through` must have been written.
    ///
    /// # Errors
    /// `Damaged` with file and position, `Replay` with what `each` returned, `NotWritten`.
    pub fn entries(
        &self,
        after: EntryIndex,
        through: EntryIndex,
        each: &mut Replay<'_>,
    ) -> Result<(), LogError> {
        let segments = {
            let tail = self.shared.tail.lock();
            let (last, end) = (EntryIndex(u64::MAX), tail.position);
            let active = Sealed { segment: Arc::clone(&tail.active.segment), last, end };
            let sealed = tail.sealed.iter().filter(|sealed| sealed.last > after);
            sealed.cloned().chain([active]).collect::<Vec<_>>()
        };
        let mut next = after.0 + 1;
        for Sealed { segment, end, .. } in &segments {
            let mut position = SEGMENT_HEADER_BYTES as u32;
            while position < *end && next <= through.0 {
                let frame = frame_at(segment, position)?;
                if let Some(FramedEntry { view, .. }) = &frame.entry
                    && view.index.0 >= next
                {
                    if view.index.0 > next {
                        return Err(segment.damaged(position, "the entries before are missing"));
                    }
                    each(view).map_err(|source| LogError::Replay { index: view.index, source })?;
                    next += 1;
                }
                position += frame.bytes as u32;
            }
        }
        if next <= through.0 { Err(LogError::NotWritten) } else { Ok(()) }
    }
}

/// The frame at `position`, checked.
fn frame_at(segment: &Segment, position: u32) -> Result<Frame<'_>, LogError> {
    let begin = position as usize;
    let header = segment.map.get(begin, begin + FRAME_HEADER_BYTES).ok_or(LogError::NotWritten)?;
    let end = begin + FRAME_HEADER_BYTES + FRAME_FIELD_LENGTH.u32(header) as usize;
    let bytes = segment.map.get(begin, end).ok_or(LogError::NotWritten)?;
    segment.seed.parse(bytes, position).map_err(|reason| segment.damaged(position, reason))
}
