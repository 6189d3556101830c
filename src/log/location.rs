//! Where a job lies, and reading it from there.

use std::sync::Arc;

use bytes::Bytes;

use crate::types::{Offset, QueueId};

use super::entry::JobView;
use super::error::LogError;
use super::frame::FramedEntry;
use super::index::FoundIn;
use super::segment::Segment;

/// Where a job lies. It keeps the segment mapped.
#[derive(Clone, Debug)]
pub struct JobLocation {
    segment: Arc<Segment>,
    /// Where the frame of its entry begins; 0, where none does, if that can't be found out.
    position: u32,
    queue: QueueId,
    offset: Offset,
}

/// A job that was found.
#[derive(Clone, Debug)]
pub struct FoundJob {
    /// Where it lies.
    pub location: JobLocation,
    /// Bytes of its body; 0 if they can't be read, which reading it says.
    pub bytes: u32,
    /// Whether it lies in a sealed segment, so that reading it may wait for the disk.
    pub is_sealed: bool,
}

impl JobLocation {
    /// The place of a job that was found so. None if the job is not there after all.
    pub(super) fn new(found: FoundIn, queue: QueueId, offset: Offset) -> Option<Self> {
        let (segment, position) = match found {
            FoundIn::Row(segment, row) => (segment, row.position),
            FoundIn::Span(span) => (Arc::clone(span.segment()), span.position(offset)?),
        };
        Some(Self { segment, position, queue, offset })
    }

    /// Reads the job through the map.
    ///
    /// What an earlier process has written is checked: the frame, and the body against the sums
    /// that its producer and the log have made of it.
    ///
    /// # Errors
    /// `NotWritten` while the entry is in memory only; `Damaged` with file and position if the disk
    /// has changed the entry or the body; `Io` if it can't be read.
    pub fn read(&self) -> Result<JobView<'_>, LogError> {
        let (framed, job) = self.job()?;
        // A producer may have given a wrong sum: only if the log's own is wrong too is it damage.
        if self.segment.is_cold() && !job.verify() && !framed.bodies_are_whole() {
            return Err(self.damaged("the body is not what was written"));
        }
        Ok(job)
    }

    /// The job's body by reference to the map, for large ones. It keeps the segment mapped.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub fn body(&self) -> Result<Bytes, LogError> {
        let begin_of = |bytes: &[u8]| bytes.as_ptr().addr();
        let job = self.read()?;
        let map = self.segment.map.get(self.position as usize, self.position as usize);
        let begin = begin_of(job.body) - map.map_or(0, begin_of) + self.position as usize;
        let end = begin + job.body.len();
        Ok(Bytes::from_owner(MappedBody { segment: Arc::clone(&self.segment), begin, end }))
    }

    /// Reads the job without looking at its body.
    pub(super) fn read_unchecked(&self) -> Result<JobView<'_>, LogError> {
        self.job().map(|(_, job)| job)
    }

    fn job(&self) -> Result<(FramedEntry<'_>, JobView<'_>), LogError> {
        let framed = self.segment.entry_at(self.position)?;
        let view = &framed.view;
        let ordinal = self.offset.0.checked_sub(view.base_offset.0).map(u32::try_from);
        let job = match ordinal {
            Some(Ok(ordinal)) if view.queue == self.queue => view.job(ordinal),
            _ => None,
        };
        let job = job.ok_or_else(|| self.damaged("the entry here has no such job"))?;
        Ok((framed, job))
    }

    fn damaged(&self, reason: &'static str) -> LogError {
        self.segment.damaged(self.position, reason)
    }
}

/// A published stretch of a segment.
struct MappedBody {
    segment: Arc<Segment>,
    begin: usize,
    end: usize,
}

impl AsRef<[u8]> for MappedBody {
    fn as_ref(&self) -> &[u8] {
        self.segment.map.get(self.begin, self.end).unwrap_or_default()
    }
}
