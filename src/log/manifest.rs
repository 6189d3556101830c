//! The manifest: where the log begins, and which older files still have live jobs.

use std::io;
use std::path::Path;

use crate::types::{EntryIndex, Stamp, Term};

use super::error::LogError;
use super::files::Files;
use super::format::*;
use super::map::Map;
use super::segment::{Extent, FileKind, Last};

/// The name of the manifest.
pub(super) const NAME: &str = "manifest";
/// The name of a manifest in the making.
pub(super) const NEW_NAME: &str = "manifest.new";

/// What the manifest says. A log without one begins with its first entry, and has no older files.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Manifest {
    pub(super) generation: u64,
    /// No file with this id or a higher one was made before this manifest.
    pub(super) next_id: u64,
    pub(super) base: Base,
    /// The older files, in the order of their entries.
    pub(super) old: Vec<OldFile>,
}

/// What lies in front of the log's beginning.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Base {
    /// The segment that the first one of the chain continues; 0 for none.
    pub(super) id: u64,
    /// Where it ended.
    pub(super) end: u32,
    /// Its last entry. All up to it were synced.
    pub(super) index: EntryIndex,
    pub(super) last: Last,
}

/// One older file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct OldFile {
    pub(super) kind: FileKind,
    pub(super) id: u64,
    pub(super) extent: Extent,
}

impl Manifest {
    /// Reads the manifest in `dir`, with the id of the log. None if there is none.
    pub(super) fn load(
        files: &dyn Files,
        dir: &Path,
    ) -> Result<Option<(Self, [u8; 16])>, LogError> {
        let path = dir.join(NAME);
        let file = match files.open(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            other => other.map_err(|error| LogError::io("opening", &path, error))?,
        };
        let bytes = file.metadata().map_err(|error| LogError::io("reading", &path, error))?.len();
        if bytes == 0 {
            return Err(LogError::damaged(&path, 0, "the manifest is empty"));
        }
        let map = Map::whole(&file).map_err(|error| LogError::io("mapping", &path, error))?;
        map.populate_range(0, map.len()).map_err(|error| LogError::io("reading", &path, error))?;
        let version = MANIFEST_FIELD_VERSION.u32(map.bytes());
        if map.bytes().starts_with(&MANIFEST_MAGIC) && version != FORMAT_VERSION && version != 0 {
            let supported = FORMAT_VERSION;
            return Err(LogError::Version { file: path, found: version, supported });
        }
        let decoded = Self::decode(map.bytes());
        decoded.map(Some).map_err(|reason| LogError::damaged(&path, 0, reason))
    }

    /// Makes this the manifest in `dir`, durably.
    pub(super) fn store(
        &self,
        files: &dyn Files,
        dir: &Path,
        log_id: [u8; 16],
    ) -> Result<(), LogError> {
        let (new, path) = (dir.join(NEW_NAME), dir.join(NAME));
        match files.remove(&new) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(LogError::io("removing", &new, error));
            }
            _ => {}
        }
        let bytes = self.encode(log_id);
        let len = bytes.len() as u32;
        let file =
            files.create(&new, len).map_err(|source| LogError::creating(dir, &new, len, source))?;
        file.write_all_at(&bytes, 0)
            .and_then(|()| file.sync_data())
            .map_err(|error| LogError::io("writing", &new, error))?;
        files.rename(&new, &path).map_err(|error| LogError::io("renaming", &new, error))?;
        files.sync_dir(dir).map_err(|error| LogError::io("syncing", dir, error))
    }

    /// Whether it names this file.
    pub(super) fn names(&self, kind: FileKind, id: u64) -> bool {
        self.old.iter().any(|old| old.kind == kind && old.id == id)
    }

    fn encode(&self, log_id: [u8; 16]) -> Vec<u8> {
        let Base { id, end, index, last } = self.base;
        let mut bytes = vec![0; MANIFEST_HEADER_BYTES];
        let header = bytes.as_mut_slice();
        MANIFEST_FIELD_MAGIC.put(header, MANIFEST_MAGIC);
        MANIFEST_FIELD_VERSION.put(header, FORMAT_VERSION.to_le_bytes());
        MANIFEST_FIELD_LOG_ID.put(header, log_id);
        MANIFEST_FIELD_GENERATION.put(header, self.generation.to_le_bytes());
        MANIFEST_FIELD_NEXT_ID.put(header, self.next_id.to_le_bytes());
        MANIFEST_FIELD_BASE_ID.put(header, id.to_le_bytes());
        MANIFEST_FIELD_BASE_INDEX.put(header, index.0.to_le_bytes());
        MANIFEST_FIELD_BASE_TERM.put(header, last.term.0.to_le_bytes());
        MANIFEST_FIELD_BASE_WALL_MS.put(header, last.stamp.wall_ms.to_le_bytes());
        MANIFEST_FIELD_BASE_LOG_MS.put(header, last.stamp.log_ms.to_le_bytes());
        MANIFEST_FIELD_BASE_END.put(header, end.to_le_bytes());
        MANIFEST_FIELD_FILES.put(header, (self.old.len() as u32).to_le_bytes());
        for old in &self.old {
            bytes.extend_from_slice(&old.encode());
        }
        let crc = crc32fast::hash(bytes.get(MANIFEST_COVERED_FROM..).unwrap_or_default());
        MANIFEST_FIELD_CRC.put(&mut bytes, crc.to_le_bytes());
        bytes
    }

    fn decode(bytes: &[u8]) -> Result<(Self, [u8; 16]), &'static str> {
        let (header, files) =
            bytes.split_at_checked(MANIFEST_HEADER_BYTES).ok_or("the manifest is cut short")?;
        if !header.starts_with(&MANIFEST_MAGIC)
            || MANIFEST_FIELD_VERSION.u32(header) != FORMAT_VERSION
        {
            return Err("the file does not begin with a manifest's header");
        }
        let crc = crc32fast::hash(bytes.get(MANIFEST_COVERED_FROM..).unwrap_or_default());
        if crc != MANIFEST_FIELD_CRC.u32(header) {
            return Err("the manifest's checksum does not match");
        }
        if files.len() != MANIFEST_FIELD_FILES.u32(header) as usize * MANIFEST_FILE_BYTES {
            return Err("the manifest has not the number of files that it says");
        }
        let stamp = Stamp {
            wall_ms: MANIFEST_FIELD_BASE_WALL_MS.u64(header),
            log_ms: MANIFEST_FIELD_BASE_LOG_MS.u64(header),
        };
        let base = Base {
            id: MANIFEST_FIELD_BASE_ID.u64(header),
            end: MANIFEST_FIELD_BASE_END.u32(header),
            index: EntryIndex(MANIFEST_FIELD_BASE_INDEX.u64(header)),
            last: Last { term: Term(MANIFEST_FIELD_BASE_TERM.u64(header)), stamp },
        };
        let old = files.chunks_exact(MANIFEST_FILE_BYTES).map(OldFile::decode);
        let manifest = Self {
            generation: MANIFEST_FIELD_GENERATION.u64(header),
            next_id: MANIFEST_FIELD_NEXT_ID.u64(header),
            base,
            old: old.collect::<Result<_, _>>()?,
        };
        Ok((manifest, MANIFEST_FIELD_LOG_ID.id(header)))
    }
}

impl OldFile {
    fn encode(&self) -> [u8; MANIFEST_FILE_BYTES] {
        let mut row = [0; MANIFEST_FILE_BYTES];
        let kind = match self.kind {
            FileKind::Segment => FILE_SEGMENT,
            FileKind::Jobs => FILE_JOBS,
        };
        MANIFEST_FILE_FIELD_ID.put(&mut row, self.id.to_le_bytes());
        MANIFEST_FILE_FIELD_FIRST_INDEX.put(&mut row, self.extent.first_index.0.to_le_bytes());
        MANIFEST_FILE_FIELD_LAST_INDEX.put(&mut row, self.extent.last_index.0.to_le_bytes());
        MANIFEST_FILE_FIELD_KIND.put(&mut row, kind.to_le_bytes());
        MANIFEST_FILE_FIELD_HEADER_CRC.put(&mut row, self.extent.header_crc.to_le_bytes());
        MANIFEST_FILE_FIELD_END.put(&mut row, self.extent.end.to_le_bytes());
        row
    }

    fn decode(row: &[u8]) -> Result<Self, &'static str> {
        let kind = match MANIFEST_FILE_FIELD_KIND.u32(row) {
            FILE_SEGMENT => FileKind::Segment,
            FILE_JOBS => FileKind::Jobs,
            _ => return Err("the manifest names a file of an unknown kind"),
        };
        let extent = Extent {
            header_crc: MANIFEST_FILE_FIELD_HEADER_CRC.u32(row),
            first_index: EntryIndex(MANIFEST_FILE_FIELD_FIRST_INDEX.u64(row)),
            last_index: EntryIndex(MANIFEST_FILE_FIELD_LAST_INDEX.u64(row)),
            end: MANIFEST_FILE_FIELD_END.u32(row),
        };
        match extent.first_index.0 > 0 {
            true => Ok(Self { kind, id: MANIFEST_FILE_FIELD_ID.u64(row), extent }),
            false => Err("the manifest names a file without a first index"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest() -> Manifest {
        let extent = |first, last| Extent {
            header_crc: 77,
            first_index: EntryIndex(first),
            last_index: EntryIndex(last),
            end: 8192,
        };
        let last = Last { term: Term(5), stamp: Stamp { wall_ms: 6, log_ms: 7 } };
        Manifest {
            generation: 3,
            next_id: 12,
            base: Base { id: 9, end: 4444, index: EntryIndex(100), last },
            old: vec![
                OldFile { kind: FileKind::Jobs, id: 11, extent: extent(1, 60) },
                OldFile { kind: FileKind::Segment, id: 8, extent: extent(61, 90) },
            ],
        }
    }

    #[test]
    fn a_manifest_reads_back_and_no_flipped_bit_and_no_cut_passes() {
        let bytes = manifest().encode([4; 16]);
        assert_eq!(Manifest::decode(&bytes), Ok((manifest(), [4; 16])));
        for bit in 0..bytes.len() * 8 {
            let mut bad = bytes.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(Manifest::decode(&bad).is_err(), "bit {bit}");
        }
        for cut in 0..bytes.len() {
            assert!(Manifest::decode(&bytes[..cut]).is_err(), "cut at {cut}");
        }
        assert!(manifest().names(FileKind::Jobs, 11) && !manifest().names(FileKind::Jobs, 8));
    }
}
