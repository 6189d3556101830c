//! The layout of a checkpoint on disk, and nothing else. `docs/log-format.md` says the same.
//!
//! ```text
//! <index as 20 digits>.checkpoint, little-endian throughout
//! +--------+-------------------+-------------------+-----+---------+
//! | header | length crc chunk  | length crc chunk  | ... | trailer |
//! +--------+-------------------+-------------------+-----+---------+
//!
//! chunk = records, one behind the other (`Record`); none goes over into the next chunk
//! ```

use crate::log::format::layout;

/// The version that this code writes and reads.
///
/// How to change this format:
/// 1. Keep the places of magic, version and crc in the header, and what that crc covers: by them a
///    later version is recognised and refused by name instead of called damage.
/// 2. Change the tables in this file, that of `queue::Record`, and `docs/log-format.md` together;
///    tests compare them.
/// 3. Raise this number, and say in `docs/log-format.md` what the old version had instead.
/// 4. A server reads every version that a release has written, and writes only the newest.
pub const CHECKPOINT_VERSION: u32 = 1;

/// The first bytes of a checkpoint.
pub const CHECKPOINT_MAGIC: [u8; 8] = *b"JOBLOGCP";

layout! {
    /// The header of a checkpoint.
    CHECKPOINT_FIELDS:
    CHECKPOINT_FIELD_MAGIC "magic" 8,
    CHECKPOINT_FIELD_VERSION "version" 4,
    CHECKPOINT_FIELD_CRC "crc" 4,
    CHECKPOINT_FIELD_LOG_ID "log id" 16,
    CHECKPOINT_FIELD_INDEX "index" 8,
    CHECKPOINT_FIELD_TERM "term" 8,
    CHECKPOINT_FIELD_WALL_MS "wall ms" 8,
    CHECKPOINT_FIELD_LOG_MS "log ms" 8,
}

layout! {
    /// What stands in front of each chunk.
    CHUNK_FIELDS:
    CHUNK_FIELD_LENGTH "length" 4,
    CHUNK_FIELD_CRC "crc" 4,
}

layout! {
    /// The trailer: like a chunk without records, and then the counts.
    TRAILER_FIELDS:
    TRAILER_FIELD_LENGTH "length" 4,
    TRAILER_FIELD_CRC "crc" 4,
    TRAILER_FIELD_CHUNKS "chunks" 8,
    TRAILER_FIELD_RECORDS "records" 8,
}

/// Bytes of the header.
pub const HEADER_BYTES: usize = CHECKPOINT_FIELD_LOG_MS.end();
/// Bytes in front of each chunk.
pub const CHUNK_HEADER_BYTES: usize = CHUNK_FIELD_CRC.end();
/// Bytes of the trailer.
pub const TRAILER_BYTES: usize = TRAILER_FIELD_RECORDS.end();

const _: () = assert!(HEADER_BYTES == 64 && CHUNK_HEADER_BYTES == 8 && TRAILER_BYTES == 24);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::format::tests::compare;

    #[test]
    fn the_document_says_what_the_constants_say() {
        compare("## Checkpoint header", CHECKPOINT_FIELDS);
        compare("## Checkpoint chunk", CHUNK_FIELDS);
        compare("## Checkpoint trailer", TRAILER_FIELDS);
        let document = include_str!("../../docs/log-format.md");
        assert!(document.contains(&format!("Checkpoint version: {CHECKPOINT_VERSION}.")));
    }
}
