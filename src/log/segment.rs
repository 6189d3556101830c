//! Segments: one preallocated file each, its header, and what reads and writes it.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use crate::types::{EntryIndex, Stamp, Term};

use super::error::LogError;
use super::files::DataFile;
use super::format::*;
use super::frame::{Frame, FramedEntry, Seed};
use super::map::{Map, Warmth};
use super::options::LogOptions;

/// What a file with frames in it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FileKind {
    /// Entries as they were appended.
    Segment,
    /// What compaction has kept of segments.
    Jobs,
}

impl FileKind {
    fn magic(self) -> [u8; 8] {
        match self {
            Self::Segment => SEGMENT_MAGIC,
            Self::Jobs => JOBS_MAGIC,
        }
    }

    fn extension(self) -> &'static str {
        match self {
            Self::Segment => "segment",
            Self::Jobs => "jobs",
        }
    }

    /// The name of the file of this id.
    pub(super) fn file_name(self, id: u64) -> String {
        format!("{id:020}.{}", self.extension())
    }

    /// The id in a file name, if it is one of this kind.
    pub(super) fn id_in(self, name: &str) -> Option<u64> {
        id_in(name, self.extension())
    }
}

/// The id in the name of a file that belongs to a segment, if it is one.
pub(super) fn id_in(name: &str, extension: &str) -> Option<u64> {
    let digits = name.strip_suffix(extension)?.strip_suffix('.')?;
    let id = digits.parse().ok()?;
    (id > 0 && format!("{id:020}") == digits).then_some(id)
}

/// What the first page of a segment says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SegmentHeader {
    pub(super) kind: FileKind,
    pub(super) id: u64,
    pub(super) log_id: [u8; 16],
    /// The term under which the segment was opened: no entry in it has a higher one.
    pub(super) term: Term,
    pub(super) first_index: EntryIndex,
    /// The segment that this one continues; 0 for none.
    pub(super) previous: u64,
    /// Where that one ends. What lies behind was cut or moved here and no longer counts.
    pub(super) previous_end: u32,
    /// The synced index that was known when the header was made.
    pub(super) durable: EntryIndex,
    pub(super) wall_ms: u64,
    pub(super) size: u32,
}

/// Why the first page of a file is no header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum HeaderError {
    Invalid(&'static str),
    Version(u32),
}

impl SegmentHeader {
    pub(super) fn encode(&self) -> [u8; SEGMENT_HEADER_BYTES] {
        let mut page = [0; SEGMENT_HEADER_BYTES];
        SEGMENT_FIELD_MAGIC.put(&mut page, self.kind.magic());
        SEGMENT_FIELD_VERSION.put(&mut page, FORMAT_VERSION.to_le_bytes());
        SEGMENT_FIELD_ID.put(&mut page, self.id.to_le_bytes());
        SEGMENT_FIELD_LOG_ID.put(&mut page, self.log_id);
        SEGMENT_FIELD_TERM.put(&mut page, self.term.0.to_le_bytes());
        SEGMENT_FIELD_FIRST_INDEX.put(&mut page, self.first_index.0.to_le_bytes());
        SEGMENT_FIELD_PREVIOUS.put(&mut page, self.previous.to_le_bytes());
        SEGMENT_FIELD_PREVIOUS_END.put(&mut page, u64::from(self.previous_end).to_le_bytes());
        SEGMENT_FIELD_DURABLE.put(&mut page, self.durable.0.to_le_bytes());
        SEGMENT_FIELD_WALL_MS.put(&mut page, self.wall_ms.to_le_bytes());
        SEGMENT_FIELD_SIZE.put(&mut page, self.size.to_le_bytes());
        let crc = SEGMENT_FIELD_CRC.crc_around(&page);
        SEGMENT_FIELD_CRC.put(&mut page, crc.to_le_bytes());
        page
    }

    pub(super) fn decode(kind: FileKind, page: &[u8]) -> Result<Self, HeaderError> {
        if page.len() != SEGMENT_HEADER_BYTES || !page.starts_with(&kind.magic()) {
            return Err(HeaderError::Invalid("the file does not begin with a segment header"));
        }
        if SEGMENT_FIELD_CRC.crc_around(page) != SEGMENT_FIELD_CRC.u32(page) {
            return Err(HeaderError::Invalid("the segment header's checksum does not match"));
        }
        let version = SEGMENT_FIELD_VERSION.u32(page);
        if version != FORMAT_VERSION {
            return Err(HeaderError::Version(version));
        }
        let header = Self {
            kind,
            id: SEGMENT_FIELD_ID.u64(page),
            log_id: SEGMENT_FIELD_LOG_ID.id(page),
            term: Term(SEGMENT_FIELD_TERM.u64(page)),
            first_index: EntryIndex(SEGMENT_FIELD_FIRST_INDEX.u64(page)),
            previous: SEGMENT_FIELD_PREVIOUS.u64(page),
            previous_end: u32::try_from(SEGMENT_FIELD_PREVIOUS_END.u64(page))
                .map_err(|_| HeaderError::Invalid("the previous segment ends beyond 32 bits"))?,
            durable: EntryIndex(SEGMENT_FIELD_DURABLE.u64(page)),
            wall_ms: SEGMENT_FIELD_WALL_MS.u64(page),
            size: SEGMENT_FIELD_SIZE.u32(page),
        };
        match header.previous < header.id && header.first_index.0 > 0 && header.term.0 > 0 {
            true => Ok(header),
            false => Err(HeaderError::Invalid("the segment header contradicts itself")),
        }
    }
}

/// A segment as its readers know it.
#[derive(Debug)]
pub(super) struct Segment {
    pub(super) id: u64,
    pub(super) log_id: [u8; 16],
    pub(super) path: PathBuf,
    pub(super) seed: Seed,
    pub(super) map: Map,
    warmth: Warmth,
    /// Where the frame begins that was checked last, of a segment that another process has written.
    checked: Option<AtomicU32>,
}

impl Segment {
    /// A segment that this process writes.
    pub(super) fn own(log_id: [u8; 16], id: u64, path: PathBuf, map: Map) -> Self {
        let (seed, warmth) = (Seed::new(log_id, id), Warmth::of(&map));
        Self { id, log_id, path, seed, map, warmth, checked: None }
    }

    /// A segment that another process has written: nothing in it is believed before it is checked.
    pub(super) fn cold(log_id: [u8; 16], id: u64, path: PathBuf, map: Map) -> Self {
        Self { checked: Some(AtomicU32::new(0)), ..Self::own(log_id, id, path, map) }
    }

    /// Whether the bytes come from another process, and so from a disk that may have changed them.
    #[inline]
    pub(super) fn is_cold(&self) -> bool {
        self.checked.is_some()
    }

    /// Brings the bytes from `begin` to `end` into memory if they may not be there, so that a disk
    /// that can't be read is an error and not a signal.
    #[inline]
    pub(super) fn warm(&self, begin: usize, end: usize) -> Result<(), LogError> {
        let warmed = self.warmth.warm(&self.map, begin, end);
        warmed.map_err(|error| LogError::io("reading", &self.path, error))
    }

    /// The entry whose frame begins at `position`.
    ///
    /// In a segment written by this process only what keeps the access within bounds is looked at;
    /// in others also the frame's checksum, when it is not the frame that was checked last.
    #[inline]
    pub(super) fn entry_at(&self, position: u32) -> Result<FramedEntry<'_>, LogError> {
        let begin = position as usize;
        self.warm(begin, begin + FRAME_HEADER_BYTES)?;
        let header = self.map.get(begin, begin + FRAME_HEADER_BYTES).ok_or(LogError::NotWritten)?;
        if !header.starts_with(&ENTRY_MAGIC) {
            return Err(self.damaged(position, "no frame begins here any more"));
        }
        let end = begin + FRAME_HEADER_BYTES + FRAME_FIELD_LENGTH.u32(header) as usize;
        self.warm(begin, end)?;
        let frame = self.map.get(begin, end).ok_or_else(|| {
            self.damaged(position, "the frame's length runs over what is written")
        })?;
        if let Some(checked) = &self.checked
            && checked.load(Ordering::Relaxed) != position
        {
            self.seed.parse(frame, position).map_err(|reason| self.damaged(position, reason))?;
            checked.store(position, Ordering::Relaxed);
        }
        FramedEntry::again(frame).map_err(|reason| self.damaged(position, reason))
    }

    /// The frame at `position`, checked.
    pub(super) fn frame_at(&self, position: u32) -> Result<Frame<'_>, LogError> {
        let begin = position as usize;
        self.warm(begin, begin + FRAME_HEADER_BYTES)?;
        let header = self.map.get(begin, begin + FRAME_HEADER_BYTES).ok_or(LogError::NotWritten)?;
        self.warm(begin, begin + FRAME_HEADER_BYTES + FRAME_FIELD_LENGTH.u32(header) as usize)?;
        let bytes = self.map.from(begin).ok_or(LogError::NotWritten)?;
        self.seed.parse(bytes, position).map_err(|reason| self.damaged(position, reason))
    }

    /// All bytes from `position` on of a segment that is mapped whole.
    pub(super) fn bytes_from(&self, position: u32) -> &[u8] {
        self.map.bytes().get(position as usize..).unwrap_or_default()
    }

    pub(super) fn damaged(&self, position: u32, reason: &'static str) -> LogError {
        LogError::damaged(&self.path, u64::from(position), reason)
    }
}

/// What counts of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Extent {
    /// The crc in the segment's header.
    pub(super) header_crc: u32,
    pub(super) first_index: EntryIndex,
    pub(super) last_index: EntryIndex,
    /// Where the part that counts ends.
    pub(super) end: u32,
}

/// What is remembered of a segment's last entry; zeros if it has none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Last {
    pub(super) term: Term,
    pub(super) stamp: Stamp,
}

impl Extent {
    pub(super) fn has_entries(&self) -> bool {
        self.first_index <= self.last_index
    }

    /// The extent of the segment with this header, which ends at `end`, behind `last_index`.
    pub(super) fn new(header: &SegmentHeader, last_index: EntryIndex, end: u32) -> Self {
        let header_crc = SEGMENT_FIELD_CRC.u32(&header.encode());
        Self { header_crc, first_index: header.first_index, last_index, end }
    }
}

/// A segment that may still be written or synced. When the last one to hold it lets go, the file
/// is closed; the map stays with the [`Segment`].
#[derive(Debug)]
pub(super) struct OpenSegment {
    pub(super) segment: Arc<Segment>,
    pub(super) file: Box<dyn DataFile>,
    /// Index of the last entry once the segment is sealed; until then `OPEN`.
    last_index: AtomicU64,
    /// Whether its name in the directory is durable, without which nothing in it is.
    named: AtomicBool,
}

const OPEN: u64 = u64::MAX;

impl OpenSegment {
    /// Creates the file, of `bytes` zeros. Neither file nor name is durable yet.
    pub(super) fn create(
        options: &LogOptions,
        dir: &Path,
        log_id: [u8; 16],
        id: u64,
        bytes: u32,
    ) -> Result<Self, LogError> {
        let files = &options.files;
        let path = dir.join(FileKind::Segment.file_name(id));
        let file = files.create(&path, bytes).map_err(|source| {
            // A half-made file is of no use; if it can't be removed either, the next start does.
            let _ = files.remove(&path);
            LogError::creating(dir, &path, bytes, source)
        })?;
        Self::new(file, path, log_id, id)
    }

    /// Wraps a file that is allocated and all zeros.
    pub(super) fn new(
        file: Box<dyn DataFile>,
        path: PathBuf,
        log_id: [u8; 16],
        id: u64,
    ) -> Result<Self, LogError> {
        let map = Map::growing(file.file(), SEGMENT_HEADER_BYTES)
            .map_err(|error| LogError::io("mapping", &path, error))?;
        let segment = Arc::new(Segment::own(log_id, id, path, map));
        let (last_index, named) = (AtomicU64::new(OPEN), AtomicBool::new(false));
        Ok(Self { segment, file, last_index, named })
    }

    /// Size of the file.
    pub(super) fn bytes(&self) -> u32 {
        self.segment.map.len() as u32
    }

    pub(super) fn is_named(&self) -> bool {
        self.named.load(Ordering::Acquire)
    }

    /// Notes that the directory was synced after the file was created.
    pub(super) fn set_named(&self) {
        self.named.store(true, Ordering::Release);
    }

    /// Says that nothing follows the entry `last`.
    pub(super) fn seal(&self, last: EntryIndex) {
        self.last_index.store(last.0, Ordering::Relaxed);
    }

    /// The last index of the segment, if it is sealed.
    pub(super) fn sealed_at(&self) -> Option<EntryIndex> {
        let last = self.last_index.load(Ordering::Relaxed);
        (last != OPEN).then_some(EntryIndex(last))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header() -> SegmentHeader {
        SegmentHeader {
            kind: FileKind::Segment,
            id: 4,
            log_id: [5; 16],
            term: Term(6),
            first_index: EntryIndex(7),
            previous: 3,
            previous_end: 8192,
            durable: EntryIndex(5),
            wall_ms: 9,
            size: 1 << 20,
        }
    }

    fn decode(page: &[u8]) -> Result<SegmentHeader, HeaderError> {
        SegmentHeader::decode(FileKind::Segment, page)
    }

    #[test]
    fn a_header_reads_back_and_no_flipped_bit_passes() {
        let page = header().encode();
        assert_eq!(decode(&page), Ok(header()));
        assert!(SegmentHeader::decode(FileKind::Jobs, &page).is_err());
        for bit in 0..page.len() * 8 {
            let mut bad = page;
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(matches!(decode(&bad), Err(HeaderError::Invalid(_))));
        }
        assert!(decode(&[0; SEGMENT_HEADER_BYTES]).is_err());
        assert!(decode(&[]).is_err());
    }

    #[test]
    fn a_later_version_is_called_by_its_number() {
        let mut page = header().encode();
        SEGMENT_FIELD_VERSION.put(&mut page, 2u32.to_le_bytes());
        let crc = SEGMENT_FIELD_CRC.crc_around(&page);
        SEGMENT_FIELD_CRC.put(&mut page, crc.to_le_bytes());
        assert_eq!(decode(&page), Err(HeaderError::Version(2)));
    }

    #[test]
    fn only_exact_names_are_segments() {
        for kind in [FileKind::Segment, FileKind::Jobs] {
            assert_eq!(kind.id_in(&kind.file_name(12)), Some(12));
        }
        for name in ["12.segment", "lock", "00000000000000000000.segment", "x.segment"] {
            assert_eq!(FileKind::Segment.id_in(name), None, "{name}");
        }
        assert_eq!(FileKind::Jobs.id_in(&FileKind::Segment.file_name(12)), None);
    }
}
