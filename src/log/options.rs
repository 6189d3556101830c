//! How a log is kept.

use std::sync::Arc;

use super::error::LogError;
use super::files::{Files, Space, SystemFiles};
use super::format::{FRAME_HEADER_BYTES, SEGMENT_HEADER_BYTES};

/// Without a setting this much is kept free, or a twentieth of the disk if that is less.
const FREE_BYTES_MIN: u64 = 1 << 30;

/// How a log is kept.
#[derive(Clone, Debug)]
pub struct LogOptions {
    /// The most that a segment file has, in bytes: a multiple of 4096, from 64 KiB to 1 GiB. An
    /// entry must fit into one. The first of a start has 1 MiB, the next twice as much, and so on.
    /// Segments that are there keep their size.
    pub segment_bytes: u32,
    /// Write zeros over a new segment before it is used, in the background. A sync into such a
    /// segment takes about 0.7 of the time (4 KiB, ext4), because the file system need not note
    /// which blocks are new; but all is written twice. Worth it where replies wait for syncs.
    pub prefill: bool,
    /// While less than this is free on the disk, no jobs are taken, in bytes; none for 1 GiB or a
    /// twentieth of the disk, whichever is less.
    pub free_bytes_min: Option<u64>,
    /// The file system.
    pub files: Arc<dyn Files>,
}

impl LogOptions {
    /// The least and the most that `segment_bytes` may be.
    pub const SEGMENT_BYTES_BOUNDS: (u32, u32) = (64 << 10, 1 << 30);

    pub(super) fn check(&self) -> Result<(), LogError> {
        let (min, max) = Self::SEGMENT_BYTES_BOUNDS;
        let given = self.segment_bytes;
        match (min..=max).contains(&given) && given.is_multiple_of(SEGMENT_HEADER_BYTES as u32) {
            true => Ok(()),
            false => Err(LogError::SegmentBytes { given, min, max }),
        }
    }

    /// The most bytes that an entry may have, header, table, facts and bodies together: it lies
    /// behind a segment's header and before a mark.
    pub fn entry_bytes_max(&self) -> u64 {
        u64::from(self.segment_bytes) - (SEGMENT_HEADER_BYTES + 2 * FRAME_HEADER_BYTES) as u64
    }

    /// The bytes to be kept free on a disk like this.
    pub(super) fn free_bytes_min_of(&self, space: &Space) -> u64 {
        self.free_bytes_min.unwrap_or_else(|| FREE_BYTES_MIN.min(space.total_bytes / 20))
    }
}

impl Default for LogOptions {
    fn default() -> Self {
        Self {
            segment_bytes: 64 << 20,
            prefill: true,
            free_bytes_min: None,
            files: Arc::new(SystemFiles),
        }
    }
}
