//! The on-disk layout of the log, and nothing else. `docs/log-format.md` says the same in tables.
//!
//! ```text
//! segment file <id, 20 digits>.segment, preallocated, little-endian throughout
//! +----------------------+---------+-----+---------+-----+--------------------------------+
//! | header, 4096 bytes   | frame   | pad | frame   | pad | ... zeros up to the file's end |
//! +----------------------+---------+-----+---------+-----+--------------------------------+
//! 0                      4096      each frame begins at a multiple of 8
//!
//! frame = frame header (24) + entry            mark = frame header alone, entry length 0
//! entry = entry header (88) + table (12 x jobs) + facts + bodies
//!
//! +-------+-----+--------+------------+---------+--------------+-------+-------+--------+
//! | magic | crc | length | bodies crc | durable | entry header | table | facts | bodies |
//! +-------+-----+--------+------------+---------+--------------+-------+-------+--------+
//!               |<---------- what crc covers ----------------------------->|<- bodies crc
//! ```
//!
//! The frame is local to its file; the entry is portable. The frame's crc starts from a seed made
//! of log id, segment id and position, so neither leftover bytes nor a payload that contains
//! log bytes can pass as a frame. It leaves the bodies out so that replay need not read them; the
//! bodies have a sum of their own, which the log makes itself and reads only to tell whether an
//! entry that may never have been synced is whole. It can't use the sums in the job table for
//! that: a producer makes them, and one that gets them wrong must not cost others their jobs.
//! The rows of the job table are those of the wire: `joblog_protocol::job` has their layout.
//! Zero is never valid: both magics, every index and every term differ from it.

/// One field of a header: what `docs/log-format.md` shows as a row.
#[derive(Clone, Copy, Debug)]
pub struct Field {
    /// The name in the tables.
    pub name: &'static str,
    /// Bytes from the start of its header.
    pub offset: usize,
    /// Bytes it takes.
    pub size: usize,
}

impl Field {
    pub(crate) const fn first(name: &'static str, size: usize) -> Self {
        Self { name, offset: 0, size }
    }

    pub(crate) const fn after(previous: Self, name: &'static str, size: usize) -> Self {
        Self { name, offset: previous.end(), size }
    }

    /// Where the next field begins.
    pub const fn end(self) -> usize {
        self.offset + self.size
    }

    /// The field's bytes. Missing bytes read as zeros, which no check accepts.
    #[inline]
    fn bytes<const N: usize>(self, header: &[u8]) -> [u8; N] {
        header.get(self.offset..).and_then(|rest| rest.first_chunk()).copied().unwrap_or([0; N])
    }

    /// The field as one byte.
    #[inline]
    pub fn u8(self, header: &[u8]) -> u8 {
        u8::from_le_bytes(self.bytes(header))
    }

    /// The field as a 16-bit number.
    #[inline]
    pub fn u16(self, header: &[u8]) -> u16 {
        u16::from_le_bytes(self.bytes(header))
    }

    /// The field as a 32-bit number.
    #[inline]
    pub fn u32(self, header: &[u8]) -> u32 {
        u32::from_le_bytes(self.bytes(header))
    }

    /// The field as a 64-bit number.
    #[inline]
    pub fn u64(self, header: &[u8]) -> u64 {
        u64::from_le_bytes(self.bytes(header))
    }

    /// The field as 16 plain bytes.
    #[inline]
    pub fn id(self, header: &[u8]) -> [u8; 16] {
        self.bytes(header)
    }

    /// The crc32 of a header but for this field, which is its place.
    pub(crate) fn crc_around(self, header: &[u8]) -> u32 {
        let mut hasher = crc32fast::Hasher::new();
        hasher.update(header.get(..self.offset).unwrap_or_default());
        hasher.update(header.get(self.end()..).unwrap_or_default());
        hasher.finalize()
    }

    /// Puts `value`, already little-endian, into its place in `header`.
    #[inline]
    pub fn put<const N: usize>(self, header: &mut [u8], value: [u8; N]) {
        debug_assert_eq!(N, self.size, "{} has {} bytes", self.name, self.size);
        let slot = header.get_mut(self.offset..).and_then(|rest| rest.first_chunk_mut());
        debug_assert!(slot.is_some(), "{} lies within its header", self.name);
        if let Some(slot) = slot {
            *slot = value;
        }
    }
}

macro_rules! layout {
    ($(#[$doc:meta])* $table:ident: $first:ident $name:literal $size:literal,
     $($rest:ident $rest_name:literal $rest_size:literal,)*) => {
        #[doc = $name]
        pub const $first: $crate::log::format::Field =
            $crate::log::format::Field::first($name, $size);
        $crate::log::format::layout!(@after $first; $($rest $rest_name $rest_size,)*);
        $(#[$doc])*
        pub const $table: &[$crate::log::format::Field] = &[$first, $($rest),*];
    };
    (@after $previous:ident;) => {};
    (@after $previous:ident; $field:ident $name:literal $size:literal, $($rest:tt)*) => {
        #[doc = $name]
        pub const $field: $crate::log::format::Field =
            $crate::log::format::Field::after($previous, $name, $size);
        $crate::log::format::layout!(@after $field; $($rest)*);
    };
}

pub(crate) use layout;

/// The version that this code writes and reads.
///
/// How to change this format:
/// 1. Keep the places of the segment header's magic, version and crc, and what that crc covers:
///    by them a later version is recognised and refused by name instead of called damage.
/// 2. Change the tables in this file and in `docs/log-format.md` together; a test compares them.
/// 3. Raise this number, and say in `docs/log-format.md` what the old version had instead.
/// 4. Put a segment of the old version into `tests/fixtures/` with a test that opens it: a server
///    reads every version that a release has written, and writes only the newest.
/// 5. Never give a new meaning to a reserved field without a new number: old code refuses
///    values other than zero there.
pub const FORMAT_VERSION: u32 = 1;

/// The first bytes of a segment.
pub const SEGMENT_MAGIC: [u8; 8] = *b"JOBLOGSG";
/// The first bytes of a jobs file, which has what compaction has kept of old segments.
pub const JOBS_MAGIC: [u8; 8] = *b"JOBLOGJB";
/// The first bytes of the vote.
pub const VOTE_MAGIC: [u8; 8] = *b"JOBLOGVT";
/// The first bytes of the manifest.
pub const MANIFEST_MAGIC: [u8; 8] = *b"JOBLOGMF";
/// The first bytes of an index table.
pub const INDEX_MAGIC: [u8; 8] = *b"JOBLOGIX";
/// The first bytes of a frame around an entry.
pub const ENTRY_MAGIC: [u8; 4] = *b"JENT";
/// The first bytes of a frame without an entry, which only carries the durable index.
pub const MARK_MAGIC: [u8; 4] = *b"JMRK";

layout! {
    /// The segment header: once per file, zeros behind it up to `SEGMENT_HEADER_BYTES`.
    SEGMENT_FIELDS:
    SEGMENT_FIELD_MAGIC "magic" 8,
    SEGMENT_FIELD_VERSION "version" 4,
    SEGMENT_FIELD_CRC "crc" 4,
    SEGMENT_FIELD_ID "segment id" 8,
    SEGMENT_FIELD_LOG_ID "log id" 16,
    SEGMENT_FIELD_TERM "term" 8,
    SEGMENT_FIELD_FIRST_INDEX "first index" 8,
    SEGMENT_FIELD_PREVIOUS "previous id" 8,
    SEGMENT_FIELD_PREVIOUS_END "previous end" 8,
    SEGMENT_FIELD_DURABLE "durable index" 8,
    SEGMENT_FIELD_WALL_MS "wall ms" 8,
    SEGMENT_FIELD_SIZE "file size" 4,
    SEGMENT_FIELD_RESERVED "reserved" 4,
}

layout! {
    /// The frame header: in front of every entry, and alone as a mark.
    FRAME_FIELDS:
    FRAME_FIELD_MAGIC "magic" 4,
    FRAME_FIELD_CRC "crc" 4,
    FRAME_FIELD_LENGTH "length" 4,
    FRAME_FIELD_BODIES_CRC "bodies crc" 4,
    FRAME_FIELD_DURABLE "durable index" 8,
}

layout! {
    /// The entry header.
    ENTRY_FIELDS:
    ENTRY_FIELD_TERM "term" 8,
    ENTRY_FIELD_INDEX "index" 8,
    ENTRY_FIELD_KIND "kind" 1,
    ENTRY_FIELD_FLAGS "flags" 1,
    ENTRY_FIELD_RESERVED "reserved 1" 2,
    ENTRY_FIELD_QUEUE "queue id" 4,
    ENTRY_FIELD_BASE_OFFSET "base offset" 8,
    ENTRY_FIELD_COUNT "job count" 4,
    ENTRY_FIELD_FACTS "facts length" 4,
    ENTRY_FIELD_WALL_MS "wall ms" 8,
    ENTRY_FIELD_LOG_MS "log ms" 8,
    ENTRY_FIELD_PRODUCER "producer id" 16,
    ENTRY_FIELD_SEQUENCE "producer sequence" 8,
    ENTRY_FIELD_BODIES "bodies length" 4,
    ENTRY_FIELD_RESERVED_2 "reserved 2" 4,
}

layout! {
    /// The header of an index table.
    INDEX_FIELDS:
    INDEX_FIELD_MAGIC "magic" 8,
    INDEX_FIELD_VERSION "version" 4,
    INDEX_FIELD_CRC "crc" 4,
    INDEX_FIELD_SEGMENT "segment id" 8,
    INDEX_FIELD_LOG_ID "log id" 16,
    INDEX_FIELD_FIRST_INDEX "first index" 8,
    INDEX_FIELD_LAST_INDEX "last index" 8,
    INDEX_FIELD_LAST_TERM "last term" 8,
    INDEX_FIELD_LAST_WALL_MS "last wall ms" 8,
    INDEX_FIELD_LAST_LOG_MS "last log ms" 8,
    INDEX_FIELD_HEADER_CRC "header crc" 4,
    INDEX_FIELD_END "end" 4,
    INDEX_FIELD_QUEUES "queue count" 4,
    INDEX_FIELD_ROWS "row count" 4,
    INDEX_FIELD_ROWS_CRC "rows crc" 4,
    INDEX_FIELD_RESERVED "reserved" 4,
}

layout! {
    /// One queue in an index table.
    INDEX_QUEUE_FIELDS:
    INDEX_QUEUE_FIELD_ID "queue id" 4,
    INDEX_QUEUE_FIELD_FIRST_ROW "first row" 4,
    INDEX_QUEUE_FIELD_BASE "base offset" 8,
    INDEX_QUEUE_FIELD_END "end offset" 8,
}

layout! {
    /// One entry with jobs in an index table.
    INDEX_ROW_FIELDS:
    INDEX_ROW_FIELD_BASE "base offset" 8,
    INDEX_ROW_FIELD_POSITION "position" 4,
    INDEX_ROW_FIELD_COUNT "job count" 4,
    INDEX_ROW_FIELD_LENGTH "length" 4,
}

layout! {
    /// The header of the vote.
    VOTE_FIELDS:
    VOTE_FIELD_MAGIC "magic" 8,
    VOTE_FIELD_VERSION "version" 4,
    VOTE_FIELD_CRC "crc" 4,
    VOTE_FIELD_LOG_ID "log id" 16,
}

layout! {
    /// The header of the manifest.
    MANIFEST_FIELDS:
    MANIFEST_FIELD_MAGIC "magic" 8,
    MANIFEST_FIELD_VERSION "version" 4,
    MANIFEST_FIELD_CRC "crc" 4,
    MANIFEST_FIELD_LOG_ID "log id" 16,
    MANIFEST_FIELD_GENERATION "generation" 8,
    MANIFEST_FIELD_NEXT_ID "next id" 8,
    MANIFEST_FIELD_BASE_ID "base id" 8,
    MANIFEST_FIELD_BASE_INDEX "base index" 8,
    MANIFEST_FIELD_BASE_TERM "base term" 8,
    MANIFEST_FIELD_BASE_WALL_MS "base wall ms" 8,
    MANIFEST_FIELD_BASE_LOG_MS "base log ms" 8,
    MANIFEST_FIELD_BASE_END "base end" 4,
    MANIFEST_FIELD_FILES "file count" 4,
}

layout! {
    /// One file in the manifest.
    MANIFEST_FILE_FIELDS:
    MANIFEST_FILE_FIELD_ID "id" 8,
    MANIFEST_FILE_FIELD_FIRST_INDEX "first index" 8,
    MANIFEST_FILE_FIELD_LAST_INDEX "last index" 8,
    MANIFEST_FILE_FIELD_KIND "kind" 4,
    MANIFEST_FILE_FIELD_HEADER_CRC "header crc" 4,
    MANIFEST_FILE_FIELD_END "end" 4,
    MANIFEST_FILE_FIELD_RESERVED "reserved" 4,
}

/// Bytes before the first frame of a segment: one page, so that the header is written alone.
pub const SEGMENT_HEADER_BYTES: usize = 4096;
/// Bytes of the frame header, and of a mark.
pub const FRAME_HEADER_BYTES: usize = FRAME_FIELD_DURABLE.end();
/// Bytes of the entry header.
pub const ENTRY_HEADER_BYTES: usize = ENTRY_FIELD_RESERVED_2.end();
/// Bytes of the header of an index table.
pub const INDEX_HEADER_BYTES: usize = INDEX_FIELD_RESERVED.end();
/// Bytes for each queue in an index table.
pub const INDEX_QUEUE_BYTES: usize = INDEX_QUEUE_FIELD_END.end();
/// Bytes for each entry in an index table.
pub const INDEX_ROW_BYTES: usize = INDEX_ROW_FIELD_LENGTH.end();
/// Where the part of an index table that its crc covers begins: behind magic, version and crc.
pub const INDEX_COVERED_FROM: usize = INDEX_FIELD_CRC.end();
/// Bytes of the header of the vote.
pub const VOTE_HEADER_BYTES: usize = VOTE_FIELD_LOG_ID.end();
/// Where the part of the vote that its crc covers begins: behind magic, version and crc.
pub const VOTE_COVERED_FROM: usize = VOTE_FIELD_CRC.end();
/// Bytes of the header of the manifest.
pub const MANIFEST_HEADER_BYTES: usize = MANIFEST_FIELD_FILES.end();
/// Bytes for each file in the manifest.
pub const MANIFEST_FILE_BYTES: usize = MANIFEST_FILE_FIELD_RESERVED.end();
/// Where the part of the manifest that its crc covers begins: behind magic, version and crc.
pub const MANIFEST_COVERED_FROM: usize = MANIFEST_FIELD_CRC.end();
/// Frames begin at multiples of this.
pub const FRAME_ALIGNMENT: usize = 8;
/// Where the part of a frame that its crc covers begins: behind magic and crc.
pub const FRAME_COVERED_FROM: usize = FRAME_FIELD_CRC.end();

/// An entry with jobs, facts or both.
pub const KIND_ORDINARY: u8 = 1;
/// Reserved for replication: an entry that only fills its index.
pub const KIND_BLANK: u8 = 2;
/// Reserved for replication: who takes part.
pub const KIND_MEMBERSHIP: u8 = 3;

/// In the manifest: a segment that is kept as it was written.
pub const FILE_SEGMENT: u32 = 1;
/// In the manifest: a jobs file.
pub const FILE_JOBS: u32 = 2;

const _: () = assert!(SEGMENT_FIELD_RESERVED.end() == 96);
const _: () = assert!(SEGMENT_FIELD_RESERVED.end() <= SEGMENT_HEADER_BYTES);
const _: () = assert!(FRAME_HEADER_BYTES == 24);
const _: () = assert!(ENTRY_HEADER_BYTES == 88);
const _: () = assert!(VOTE_HEADER_BYTES == 32);
const _: () = assert!(MANIFEST_HEADER_BYTES == 96);
const _: () = assert!(MANIFEST_FILE_BYTES == 40);
const _: () = assert!(INDEX_HEADER_BYTES == 104);
const _: () = assert!(INDEX_QUEUE_BYTES == 24);
const _: () = assert!(INDEX_ROW_BYTES == 20);
const _: () = assert!(SEGMENT_HEADER_BYTES.is_multiple_of(FRAME_ALIGNMENT));
const _: () = assert!(FRAME_HEADER_BYTES.is_multiple_of(FRAME_ALIGNMENT));

/// The bytes that a frame around `entry_bytes` takes, with its padding.
pub const fn frame_bytes(entry_bytes: usize) -> usize {
    (FRAME_HEADER_BYTES + entry_bytes).next_multiple_of(FRAME_ALIGNMENT)
}

#[cfg(test)]
pub(crate) mod tests {
    use joblog_protocol::job::TableRow;

    use super::*;

    const DOCUMENT: &str = include_str!("../../docs/log-format.md");

    /// Takes the rows `| offset | size | name | ..` under the heading and compares them.
    pub(crate) fn compare(heading: &str, fields: &[Field]) {
        let section = DOCUMENT.split(heading).nth(1).expect("the heading is in the document");
        let rows: Vec<(usize, usize, String)> = section
            .lines()
            .take_while(|line| !line.starts_with("## "))
            .filter_map(|line| {
                let mut cells = line.split('|').map(str::trim).skip(1);
                let offset = cells.next()?.parse().ok()?;
                let size = cells.next()?.parse().ok()?;
                Some((offset, size, cells.next()?.to_owned()))
            })
            .collect();
        let expected: Vec<_> =
            fields.iter().map(|field| (field.offset, field.size, field.name.to_owned())).collect();
        assert_eq!(rows, expected, "{heading}");
    }

    #[test]
    fn the_document_says_what_a_job_table_row_is() {
        let end = Field::first("end", 4);
        let flags = Field::after(end, "flags", 4);
        let fields = [end, flags, Field::after(flags, "crc", 4)];
        let row = TableRow { end: 0x0403_0201, flags: 0x0807_0605, crc32: 0x0c0b_0a09 }.encode();
        assert_eq!(fields.map(|field| field.u32(&row)), [0x0403_0201, 0x0807_0605, 0x0c0b_0a09]);
        compare("## Job table row", &fields);
    }

    #[test]
    fn the_document_says_what_the_constants_say() {
        compare("## Segment header", SEGMENT_FIELDS);
        compare("## Frame header", FRAME_FIELDS);
        compare("## Entry header", ENTRY_FIELDS);
        compare("## Vote", VOTE_FIELDS);
        compare("## Manifest header", MANIFEST_FIELDS);
        compare("## Manifest file", MANIFEST_FILE_FIELDS);
        compare("## Index table header", INDEX_FIELDS);
        compare("## Index table queue", INDEX_QUEUE_FIELDS);
        compare("## Index table row", INDEX_ROW_FIELDS);
        assert!(DOCUMENT.contains(&format!("Format version: {FORMAT_VERSION}.")));
    }
}
