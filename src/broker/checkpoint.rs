//! Checkpoints: the state as of one entry, in a file of its own.
//!
//! A file has this name only when it is whole and synced, and the log is synced up to its index:
//! so a checkpoint is true as soon as it can be found. Each sum starts from log id, index and place
//! in the file, so no piece of another checkpoint passes. The layout
//! is in `checkpoint_format`.

use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crc32fast::Hasher;

use super::checkpoint_format::*;
use crate::log::format::Field;
use crate::log::{CHECKPOINT_EXTENSIONS, DataFile, Files};
use crate::queue::{Machine, Record, Restore};
use crate::types::{EntryIndex, Stamp, Term};

/// A chunk is ended when it has reached this.
const CHUNK_BYTES: usize = 256 * 1024;

/// No chunk is longer: a record that is added to one has at most a name, a message, 8 KiB of a set,
/// or the 64 KiB of a result.
const CHUNK_BYTES_MAX: usize = 2 * CHUNK_BYTES;

/// Which of the files that hold the same checkpoint. Where two do, either serves if the other can't
/// be read, as otherwise the checkpoint before does; but no log has to be kept for that.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Which {
    Twin,
    First,
}

impl Which {
    fn extension(self) -> &'static str {
        let [first, twin] = CHECKPOINT_EXTENSIONS;
        match self {
            Self::First => first,
            Self::Twin => twin,
        }
    }
}

/// The name under which a checkpoint is written until it is whole.
const UNFINISHED: &str = "checkpoint.unfinished";

/// Of what a checkpoint is the state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Covered {
    /// The last entry that it covers.
    pub(super) index: EntryIndex,
    /// The term of that entry.
    pub(super) term: Term,
    /// Its clocks.
    pub(super) stamp: Stamp,
}

/// A checkpoint that was read.
#[derive(Debug)]
pub(super) struct Checkpoint {
    pub(super) covered: Covered,
    pub(super) machine: Machine,
    /// Bytes of the file.
    pub(super) bytes: u64,
    /// Which file it was read from.
    pub(super) which: Which,
}

/// Why a checkpoint can't be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CheckpointError {
    /// The system refuses.
    #[error("{operation} {}: {source}", path.display())]
    Io {
        /// What was tried.
        operation: &'static str,
        /// On which file or directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Its bytes are not what was written.
    #[error("{} is damaged at byte {position}: {reason}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Where the first wrong structure begins.
        position: u64,
        /// What is wrong there.
        reason: String,
    },
    /// It was written by another version of the format.
    #[error(
        "{} has format version {found}, this program reads {CHECKPOINT_VERSION}; use the program \
         of that version",
        path.display()
    )]
    Version {
        /// The file.
        path: PathBuf,
        /// The version in its header.
        found: u32,
    },
}

/// The checkpoints of one log.
#[derive(Clone, Debug)]
pub(super) struct Checkpoints {
    files: Arc<dyn Files>,
    /// The directory of the log.
    dir: PathBuf,
}

impl CheckpointError {
    /// Whether it is room that is missing.
    pub(super) fn is_no_space(&self) -> bool {
        let full = [io::ErrorKind::StorageFull, io::ErrorKind::QuotaExceeded];
        matches!(self, Self::Io { source, .. } if full.contains(&source.kind()))
    }
}

impl Checkpoints {
    pub(super) fn new(files: Arc<dyn Files>, dir: &Path) -> Self {
        Self { files, dir: dir.to_owned() }
    }

    /// The file of the checkpoint that covers the log up to `index`, or of its twin.
    fn path_of(&self, index: EntryIndex, which: Which) -> PathBuf {
        self.dir.join(format!("{:020}.{}", index.0, which.extension()))
    }

    /// Reads the newest checkpoint that is whole; what is not is reported and passed over.
    ///
    /// # Errors
    /// `Io` if the directory can't be read; `Version`.
    pub(super) fn newest(&self, log_id: [u8; 16]) -> Result<Option<Checkpoint>, CheckpointError> {
        for (index, which) in self.there()?.into_iter().rev() {
            match self.read(index, which, log_id) {
                Ok(checkpoint) => return Ok(Some(checkpoint)),
                Err(error @ CheckpointError::Version { .. }) => return Err(error),
                Err(error) => tracing::warn!(%error, "falling back to the checkpoint before"),
            }
        }
        Ok(None)
    }

    /// Writes a checkpoint. Its file is whole and durable when this returns, with its bytes.
    ///
    /// # Errors
    /// `Io`. Nothing is left behind then, as far as that can be.
    pub(super) fn write(
        &self,
        log_id: [u8; 16],
        covered: Covered,
        which: Which,
        records: impl Iterator<Item = Record>,
    ) -> Result<u64, CheckpointError> {
        let unfinished = self.dir.join(UNFINISHED);
        let written = self.write_unfinished(&unfinished, log_id, covered, records);
        let path = self.path_of(covered.index, which);
        let named = written.and_then(|bytes| {
            let renamed = self.files.rename(&unfinished, &path);
            renamed.map_err(io_error("naming", &path)).map(|()| bytes)
        });
        let Ok(bytes) = named else {
            // If it can't be removed either, the next one takes its place.
            drop(self.files.remove(&unfinished));
            return named;
        };
        self.files.sync_dir(&self.dir).map_err(io_error("syncing", &self.dir))?;
        Ok(bytes)
    }

    /// Removes all checkpoints but those of `kept`.
    ///
    /// # Errors
    /// `Io`.
    pub(super) fn remove_others(
        &self,
        kept: &[(EntryIndex, Which)],
    ) -> Result<(), CheckpointError> {
        for (index, which) in self.there()?.into_iter().filter(|there| !kept.contains(there)) {
            let path = self.path_of(index, which);
            self.files.remove(&path).map_err(io_error("removing", &path))?;
        }
        self.files.sync_dir(&self.dir).map_err(io_error("syncing", &self.dir))
    }

    /// What the checkpoints cover by their names, the one to be read first last.
    fn there(&self) -> Result<Vec<(EntryIndex, Which)>, CheckpointError> {
        let names = self.files.list(&self.dir).map_err(io_error("listing", &self.dir))?;
        let there = |name: &String| {
            let (index, extension) = name.split_once('.')?;
            let index = EntryIndex(index.parse().ok()?);
            let files = [Which::First, Which::Twin];
            let which = files.into_iter().find(|which| which.extension() == extension)?;
            self.path_of(index, which).ends_with(name).then_some((index, which))
        };
        let mut there: Vec<_> = names.iter().filter_map(there).collect();
        there.sort_unstable();
        Ok(there)
    }

    fn write_unfinished(
        &self,
        path: &Path,
        log_id: [u8; 16],
        covered: Covered,
        records: impl Iterator<Item = Record>,
    ) -> Result<u64, CheckpointError> {
        let created = self.files.create_growing(path);
        let file = created.map_err(io_error("creating", path))?;
        let header = encode_header(log_id, covered);
        let mut writer = Writer {
            file: &*file,
            sums: Sums { log_id, index: covered.index },
            position: 0,
            chunks: 0,
            records: 0,
            chunk: Vec::with_capacity(CHUNK_BYTES_MAX),
        };
        let written = writer.put(&header).and_then(|()| writer.put_records(records));
        written.and_then(|()| file.sync_data()).map_err(io_error("writing", path))?;
        Ok(writer.position)
    }

    fn read(
        &self,
        index: EntryIndex,
        which: Which,
        log_id: [u8; 16],
    ) -> Result<Checkpoint, CheckpointError> {
        let path = self.path_of(index, which);
        let file = self.files.open(&path).map_err(io_error("opening", &path))?;
        let mut reader = CheckpointReader {
            file: BufReader::with_capacity(CHUNK_BYTES, file),
            path,
            position: 0,
            sums: Sums { log_id, index },
        };
        let covered = reader.header()?;
        let machine = reader.machine()?;
        Ok(Checkpoint { covered, machine, bytes: reader.position, which })
    }
}

fn io_error(
    operation: &'static str,
    path: &Path,
) -> impl FnOnce(io::Error) -> CheckpointError + use<> {
    let path = path.to_owned();
    move |source| CheckpointError::Io { operation, path, source }
}

/// From what the sums of one checkpoint start.
#[derive(Clone, Copy, Debug)]
struct Sums {
    log_id: [u8; 16],
    index: EntryIndex,
}

impl Sums {
    /// The sum of what lies at `position` and behind its length field, `rest` last.
    fn of(self, position: u64, length: u32, rest: &[u8]) -> u32 {
        let mut hasher = Hasher::new();
        hasher.update(&self.log_id);
        hasher.update(&self.index.0.to_le_bytes());
        hasher.update(&position.to_le_bytes());
        hasher.update(&length.to_le_bytes());
        hasher.update(rest);
        hasher.finalize()
    }
}

fn encode_header(log_id: [u8; 16], covered: Covered) -> [u8; HEADER_BYTES] {
    let mut header = [0; HEADER_BYTES];
    CHECKPOINT_FIELD_MAGIC.put(&mut header, CHECKPOINT_MAGIC);
    CHECKPOINT_FIELD_VERSION.put(&mut header, CHECKPOINT_VERSION.to_le_bytes());
    CHECKPOINT_FIELD_LOG_ID.put(&mut header, log_id);
    CHECKPOINT_FIELD_INDEX.put(&mut header, covered.index.0.to_le_bytes());
    CHECKPOINT_FIELD_TERM.put(&mut header, covered.term.0.to_le_bytes());
    CHECKPOINT_FIELD_WALL_MS.put(&mut header, covered.stamp.wall_ms.to_le_bytes());
    CHECKPOINT_FIELD_LOG_MS.put(&mut header, covered.stamp.log_ms.to_le_bytes());
    let crc = CHECKPOINT_FIELD_CRC.crc_around(&header);
    CHECKPOINT_FIELD_CRC.put(&mut header, crc.to_le_bytes());
    header
}

struct Writer<'a> {
    file: &'a dyn DataFile,
    sums: Sums,
    position: u64,
    chunks: u64,
    records: u64,
    chunk: Vec<u8>,
}

impl Writer<'_> {
    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all_at(bytes, self.position)?;
        self.position += bytes.len() as u64;
        Ok(())
    }

    fn put_records(&mut self, records: impl Iterator<Item = Record>) -> io::Result<()> {
        self.chunk.resize(CHUNK_HEADER_BYTES, 0);
        for record in records {
            record.encode(&mut self.chunk);
            self.records += 1;
            if self.chunk.len() >= CHUNK_BYTES {
                self.put_chunk()?;
            }
        }
        if self.chunk.len() > CHUNK_HEADER_BYTES {
            self.put_chunk()?;
        }
        let mut trailer = [0; TRAILER_BYTES];
        TRAILER_FIELD_CHUNKS.put(&mut trailer, self.chunks.to_le_bytes());
        TRAILER_FIELD_RECORDS.put(&mut trailer, self.records.to_le_bytes());
        let counts = trailer.get(CHUNK_HEADER_BYTES..).unwrap_or_default();
        let crc = self.sums.of(self.position, 0, counts);
        TRAILER_FIELD_CRC.put(&mut trailer, crc.to_le_bytes());
        self.put(&trailer)
    }

    fn put_chunk(&mut self) -> io::Result<()> {
        let mut chunk = std::mem::take(&mut self.chunk);
        let records = chunk.get(CHUNK_HEADER_BYTES..).unwrap_or_default();
        let length = records.len() as u32;
        let crc = self.sums.of(self.position, length, records);
        CHUNK_FIELD_LENGTH.put(&mut chunk, length.to_le_bytes());
        CHUNK_FIELD_CRC.put(&mut chunk, crc.to_le_bytes());
        let put = self.put(&chunk);
        self.chunks += 1;
        chunk.truncate(CHUNK_HEADER_BYTES);
        self.chunk = chunk;
        put
    }
}

struct CheckpointReader {
    file: BufReader<File>,
    path: PathBuf,
    position: u64,
    sums: Sums,
}

impl CheckpointReader {
    fn header(&mut self) -> Result<Covered, CheckpointError> {
        let mut header = [0; HEADER_BYTES];
        self.fill(&mut header)?;
        if !header.starts_with(&CHECKPOINT_MAGIC) {
            return Err(self.damaged(0, "it does not begin as a checkpoint"));
        }
        if CHECKPOINT_FIELD_CRC.crc_around(&header) != CHECKPOINT_FIELD_CRC.u32(&header) {
            return Err(self.damaged(0, "the header's checksum does not match"));
        }
        let found = CHECKPOINT_FIELD_VERSION.u32(&header);
        if found != CHECKPOINT_VERSION {
            return Err(CheckpointError::Version { path: self.path.clone(), found });
        }
        let number = |field: Field| field.u64(&header);
        let covered = Covered {
            index: EntryIndex(number(CHECKPOINT_FIELD_INDEX)),
            term: Term(number(CHECKPOINT_FIELD_TERM)),
            stamp: Stamp {
                wall_ms: number(CHECKPOINT_FIELD_WALL_MS),
                log_ms: number(CHECKPOINT_FIELD_LOG_MS),
            },
        };
        if CHECKPOINT_FIELD_LOG_ID.id(&header) != self.sums.log_id {
            return Err(self.damaged(0, "it belongs to another log"));
        }
        if covered.index != self.sums.index {
            return Err(self.damaged(0, "its index is not the one in its name"));
        }
        Ok(covered)
    }

    fn machine(&mut self) -> Result<Machine, CheckpointError> {
        let mut restore = Restore::new();
        let (mut chunks, mut records) = (0_u64, 0_u64);
        let mut chunk = Vec::new();
        loop {
            let at = self.position;
            let mut header = [0; CHUNK_HEADER_BYTES];
            self.fill(&mut header)?;
            let length = CHUNK_FIELD_LENGTH.u32(&header);
            let wanted = match length as usize {
                0 => TRAILER_BYTES - CHUNK_HEADER_BYTES,
                1..=CHUNK_BYTES_MAX => length as usize,
                _ => return Err(self.damaged(at, "no chunk is that long")),
            };
            chunk.resize(wanted, 0);
            self.fill(&mut chunk)?;
            if self.sums.of(at, length, &chunk) != CHUNK_FIELD_CRC.u32(&header) {
                return Err(self.damaged(at, "the checksum does not match"));
            }
            if length == 0 {
                let trailer = [&header[..], &chunk].concat();
                let counts = [TRAILER_FIELD_CHUNKS, TRAILER_FIELD_RECORDS];
                if counts.map(|field| field.u64(&trailer)) != [chunks, records] {
                    return Err(self.damaged(at, "chunks or records are missing"));
                }
                break;
            }
            let mut rest = &chunk[..];
            while !rest.is_empty() {
                let record = Record::decode(&mut rest);
                let record = record.map_err(|reason| self.damaged(at, reason))?;
                restore.add(record).map_err(|bad| self.damaged(at, &bad.to_string()))?;
                records += 1;
            }
            chunks += 1;
        }
        let end = self.position;
        if self.read(&mut [0])? > 0 {
            return Err(self.damaged(end, "it goes on behind its trailer"));
        }
        restore.finish().map_err(|bad| self.damaged(end, &bad.to_string()))
    }

    fn fill(&mut self, buffer: &mut [u8]) -> Result<(), CheckpointError> {
        let at = self.position;
        match self.file.read_exact(buffer) {
            Ok(()) => self.position += buffer.len() as u64,
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                return Err(self.damaged(at, "it ends too soon"));
            }
            Err(error) => return Err(io_error("reading", &self.path)(error)),
        }
        Ok(())
    }

    fn read(&mut self, buffer: &mut [u8]) -> Result<usize, CheckpointError> {
        self.file.read(buffer).map_err(io_error("reading", &self.path))
    }

    fn damaged(&self, position: u64, reason: &str) -> CheckpointError {
        CheckpointError::Damaged { path: self.path.clone(), position, reason: reason.to_owned() }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::log::SystemFiles;
    use crate::queue::{LogRecord, QueueRecord};
    use crate::types::{Grant, GroupId, Offset, QueueId};

    const LOG_ID: [u8; 16] = [9; 16];

    fn covered(index: u64) -> Covered {
        let stamp = Stamp { wall_ms: 7_000, log_ms: 500 };
        Covered { index: EntryIndex(index), term: Term(3), stamp }
    }

    /// A few records, or enough for several chunks.
    fn records(queues: u32) -> Vec<Record> {
        let counters = Record::Log(LogRecord::Counters {
            next_queue: QueueId(queues + 1),
            next_group: GroupId(1),
            next_grant: Grant(8),
        });
        let queue = |number| {
            Record::Queue(QueueRecord::Queue {
                queue: QueueId(number),
                name: format!("queue-{number}").into(),
                settings: Box::default(),
                next: Offset(u64::from(number)),
                gone: Offset(0),
                aging: Offset(0),
                turned_log_ms: 0,
                expired: 0,
                bytes: 0,
                withdrawn: Offset(0),
                lapsed: Offset(0),
                paused: false,
            })
        };
        std::iter::once(counters).chain((1..=queues).map(queue)).collect()
    }

    fn checkpoints(dir: &Path) -> Checkpoints {
        Checkpoints::new(Arc::new(SystemFiles), dir)
    }

    #[test]
    fn what_was_written_comes_back_over_many_chunks() {
        let dir = tempfile::tempdir().unwrap();
        let all = checkpoints(dir.path());
        for queues in [0, 3, 10_000] {
            let covered = covered(u64::from(queues) + 1);
            let bytes =
                all.write(LOG_ID, covered, Which::First, records(queues).into_iter()).unwrap();
            let newest = all.newest(LOG_ID).unwrap().unwrap();
            assert_eq!((newest.covered, newest.bytes), (covered, bytes));
            assert!(newest.machine.records().eq(records(queues)));
            assert_eq!(
                fs::metadata(all.path_of(covered.index, Which::First)).unwrap().len(),
                bytes
            );
            assert_eq!(bytes > 4 * CHUNK_BYTES as u64, queues == 10_000);
        }
        all.remove_others(&[4, 5].map(|index| (EntryIndex(index), Which::First))).unwrap();
        assert_eq!(all.there().unwrap(), [(EntryIndex(4), Which::First)]);
    }

    #[test]
    fn no_flipped_bit_missing_end_or_added_byte_passes() {
        let dir = tempfile::tempdir().unwrap();
        let all = checkpoints(dir.path());
        all.write(LOG_ID, covered(5), Which::First, records(1).into_iter()).unwrap();
        all.write(LOG_ID, covered(6), Which::First, records(3).into_iter()).unwrap();
        let path = all.path_of(EntryIndex(6), Which::First);
        let whole = fs::read(&path).unwrap();
        let falls_back = |bytes: &[u8]| {
            fs::write(&path, bytes).unwrap();
            assert_eq!(all.newest(LOG_ID).unwrap().unwrap().covered.index, EntryIndex(5));
        };
        for bit in 0..whole.len() * 8 {
            let mut bad = whole.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            falls_back(&bad);
        }
        (0..whole.len()).for_each(|end| falls_back(&whole[..end]));
        falls_back(&[&whole[..], &[0]].concat());
        fs::write(&path, &whole).unwrap();
        assert_eq!(all.newest(LOG_ID).unwrap().unwrap().covered.index, EntryIndex(6));
    }

    #[test]
    fn a_twin_serves_where_the_first_can_not_be_read() {
        let dir = tempfile::tempdir().unwrap();
        let all = checkpoints(dir.path());
        for which in [Which::First, Which::Twin] {
            all.write(LOG_ID, covered(6), which, records(3).into_iter()).unwrap();
        }
        let newest = || all.newest(LOG_ID).unwrap().map(|newest| newest.covered.index);
        let paths = [Which::First, Which::Twin].map(|which| all.path_of(EntryIndex(6), which));
        for path in &paths {
            let whole = fs::read(path).unwrap();
            fs::write(path, b"none").unwrap();
            assert_eq!(newest(), Some(EntryIndex(6)));
            fs::write(path, whole).unwrap();
        }
        all.remove_others(&[(EntryIndex(6), Which::First)]).unwrap();
        assert_eq!(paths.map(|path| path.exists()), [true, false]);
    }

    #[test]
    fn one_of_another_log_index_or_version_is_not_taken() {
        let dir = tempfile::tempdir().unwrap();
        let all = checkpoints(dir.path());
        all.write(LOG_ID, covered(5), Which::First, records(1).into_iter()).unwrap();
        assert!(all.newest([1; 16]).unwrap().is_none());
        fs::rename(
            all.path_of(EntryIndex(5), Which::First),
            all.path_of(EntryIndex(6), Which::First),
        )
        .unwrap();
        assert!(all.newest(LOG_ID).unwrap().is_none());
        let mut later = encode_header(LOG_ID, covered(7));
        CHECKPOINT_FIELD_VERSION.put(&mut later, 2_u32.to_le_bytes());
        let crc = CHECKPOINT_FIELD_CRC.crc_around(&later);
        CHECKPOINT_FIELD_CRC.put(&mut later, crc.to_le_bytes());
        fs::write(all.path_of(EntryIndex(7), Which::First), later).unwrap();
        let error = all.newest(LOG_ID).unwrap_err();
        assert!(matches!(error, CheckpointError::Version { found: 2, .. }), "{error}");
    }
}
