//! The handle of an open log: what the rest of the server sees of it.

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

use crate::types::{EntryIndex, Offset, QueueId, Term};

use super::compact::{CompactBudget, CompactReport};
use super::entry::{EntryKind, EntryView};
use super::error::LogError;
use super::format::SEGMENT_HEADER_BYTES;
use super::index::JobIndex;
use super::location::{FoundJob, JobLocation};
use super::manifest::Manifest;
use super::options::LogOptions;
use super::replay::Replay;
use super::room::Room;
use super::segment::{Extent, FileKind, Last, OpenSegment, Segment, SegmentHeader};
use super::shared::{Compaction, Resume, Shared};
use super::spare;
use super::table::{Old, Sealed};
use super::tail::{Spare, Tail, WriteBatch};
use super::vote;

/// Numbers about a log, for descriptions and metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogStats {
    /// Segments, without the spare.
    pub segments: usize,
    /// Size of a new segment in bytes.
    pub segment_bytes: u32,
    /// Bytes used in the segment that grows.
    pub active_bytes: u32,
    /// Bytes in memory that no write has taken yet.
    pub pending_bytes: usize,
    /// Entries indexed in memory, at about 24 bytes each: those of the newest segments.
    pub indexed_entries: usize,
    /// Places in memory that lead to an index table on disk, at 32 bytes each: one for each queue
    /// and segment.
    pub indexed_spans: usize,
    /// Index of the last entry appended.
    pub appended: EntryIndex,
    /// Index of the last entry written.
    pub written: EntryIndex,
    /// Index of the last entry synced.
    pub synced: EntryIndex,
}

/// What the segments of a log take on the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileBytes {
    /// Those that nothing is appended to any more: what is dead in them can be dropped.
    pub sealed: u64,
    /// The one that grows, and the spare.
    pub ahead: u64,
}

/// One segment of an open log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentInfo {
    /// The number in its file's name.
    pub id: u64,
    /// The index of its first entry, or the next one if it has none.
    pub first_index: EntryIndex,
    /// The index of its last entry, one less than `first_index` if it has none.
    pub last_index: EntryIndex,
    /// Bytes up to the end of its last frame.
    pub bytes_used: u64,
    /// Size of the file.
    pub file_bytes: u64,
    /// Whether it has only what compaction has kept of other segments.
    pub compacted: bool,
}

/// An open log. All methods take `&self` and may be called from many threads.
///
/// Dropping it without [`close`](Self::close) leaves the files as a crash would: what was not
/// written is lost.
#[derive(Debug)]
pub struct Log {
    shared: Arc<Shared>,
    background: Mutex<Vec<JoinHandle<()>>>,
}

/// What recovery has put together for a log to begin with.
#[derive(Debug)]
pub(super) struct Beginning {
    pub(super) dir: PathBuf,
    pub(super) options: LogOptions,
    pub(super) lock: File,
    pub(super) fresh: Arc<OpenSegment>,
    /// The header of `fresh`.
    pub(super) header: SegmentHeader,
    /// The id for the file after `fresh`.
    pub(super) next_segment: u64,
    pub(super) index: JobIndex,
    /// The term of the last entry that is kept where it lies.
    pub(super) entry_term: Term,
    /// Files of the ballast that are there.
    pub(super) ballast: u32,
    pub(super) manifest: Manifest,
    /// The older files that the manifest names.
    pub(super) old: Vec<Old>,
    /// The segments that still count, oldest first.
    pub(super) sealed: Vec<Sealed>,
}

/// While an old tail is written once more, this much is held in memory at most, plus one entry.
const REWRITE_BYTES_MAX: usize = 4 << 20;

impl Log {
    /// The term of this start.
    pub fn term(&self) -> Term {
        self.shared.term
    }

    /// What tells this log from all others.
    pub fn log_id(&self) -> [u8; 16] {
        self.shared.log_id
    }

    /// The index that the next entry will get.
    pub fn next_index(&self) -> EntryIndex {
        EntryIndex(self.shared.appended().0 + 1)
    }

    /// Appends an entry to the tail in memory and returns its index. Who wants indexes in the
    /// order of his own decisions holds his own lock around this.
    ///
    /// Waits for the disk only if the next segment is needed and not ready: see
    /// [`reserve`](Self::reserve).
    ///
    /// # Errors
    /// `InvalidEntry`, `EntryTooLarge`, `NoSpace` for jobs on a disk that is nearly full, `NoSpace`
    /// or `Io` if no further segment can be had (then nothing was appended, and a later attempt may
    /// succeed), `Closed`, `Poisoned`.
    pub fn append(&self, entry: &EntryView<'_>) -> Result<EntryIndex, LogError> {
        self.append_as(EntryKind::Ordinary, self.shared.term, entry)
    }

    /// Appends an entry of another kind, or under a term that others have agreed on. The terms of
    /// entries never go back, and stay within the term of the start.
    ///
    /// # Errors
    /// As [`append`](Self::append); `InvalidEntry` for a term outside its bounds.
    pub fn append_as(
        &self,
        kind: EntryKind,
        term: Term,
        entry: &EntryView<'_>,
    ) -> Result<EntryIndex, LogError> {
        if entry.count > 0 {
            self.accepts_jobs()?;
        }
        let bodies_crc = crc32fast::hash(entry.bodies);
        self.shared.append(EntryView { kind, term, ..*entry }, bodies_crc)
    }

    /// Refuses if the disk has less free than is kept back. Cheap while it has more.
    ///
    /// # Errors
    /// `NoSpace`.
    pub fn accepts_jobs(&self) -> Result<(), LogError> {
        self.shared.room.accepts_jobs()
    }

    /// Gives a part of the ballast back to the disk, for who must write `bytes` and finds it full.
    /// False if that is of no use. The log does it by itself for its own files.
    pub fn release_ballast_for(&self, bytes: u64) -> bool {
        self.shared.room.release_ballast_for(bytes)
    }

    /// Goes on in a segment of the first size, if the present one is larger, and lets the spare go:
    /// for a log that is idle, or whose disk is full. What is dead in the larger one can then be
    /// dropped by compaction.
    ///
    /// # Errors
    /// As [`append`](Self::append).
    pub fn shrink(&self) -> Result<(), LogError> {
        self.shared.shrink()
    }

    /// The most bytes that an entry may have.
    pub fn entry_bytes_max(&self) -> u64 {
        self.shared.options.entry_bytes_max()
    }

    /// Whether entries of `bytes` in all can be appended next without a further segment. Waits for
    /// nothing.
    pub fn has_room(&self, bytes: u32) -> bool {
        self.shared.tail.lock().has_room(bytes)
    }

    /// The bytes of its segments.
    pub fn file_bytes(&self) -> FileBytes {
        let tail = self.shared.tail.lock();
        let bytes_of = |segment: &Segment| segment.map.len() as u64;
        let old = tail.old.iter().map(|old| bytes_of(&old.table.segment));
        let sealed = tail.sealed.iter().map(|sealed| bytes_of(&sealed.segment));
        let spare = match &tail.spare {
            Spare::Ready(spare) => bytes_of(&spare.segment),
            Spare::Idle | Spare::Wanted | Spare::Failed(_) => 0,
        };
        let ahead = bytes_of(&tail.active.segment) + spare;
        FileBytes { sealed: old.chain(sealed).sum(), ahead }
    }

    /// Looks how much room the disk has, and has missing ballast made if there is enough: for a
    /// caller that does so now and then. Whether less is free than is to be kept.
    pub fn tend_room(&self) -> bool {
        let full = self.shared.room.look().is_err();
        if self.shared.room.misses_ballast() {
            self.shared.tail.lock().ballast_due = true;
            self.shared.background_signal.notify_all();
        }
        full
    }

    /// Whether the disk has less free than is to be kept, by the last look.
    pub fn is_full(&self) -> bool {
        self.shared.room.is_full()
    }

    /// Makes sure that entries of `bytes` in all can be appended next without a further segment.
    /// Waits for the disk if one is needed and not ready.
    ///
    /// # Errors
    /// As [`append`](Self::append).
    pub fn reserve(&self, bytes: u32) -> Result<(), LogError> {
        let max = self.shared.options.entry_bytes_max();
        // No new segment would ever have the room.
        if u64::from(bytes) > max {
            return Err(LogError::EntryTooLarge { bytes: bytes.into(), max });
        }
        self.shared.make_room(bytes).map(drop)
    }

    /// Writes everything appended so far and returns the index of the last entry written. Callers
    /// at the same time share one write.
    ///
    /// # Errors
    /// `Poisoned`, also for the caller whose write failed.
    pub fn write(&self) -> Result<EntryIndex, LogError> {
        self.shared.write()
    }

    /// Writes and syncs everything appended so far and returns the index of the last entry synced.
    /// Appends and writes go on meanwhile.
    ///
    /// # Errors
    /// `Poisoned`, also for the caller whose sync failed. A sync is never tried again.
    pub fn sync(&self) -> Result<EntryIndex, LogError> {
        self.shared.sync()
    }

    /// Syncs, and writes down durably up to which index that succeeded. To be called when the log
    /// falls idle: from then on damage to any entry is told from a torn tail.
    ///
    /// # Errors
    /// `Poisoned`.
    pub fn mark(&self) -> Result<(), LogError> {
        self.shared.mark()
    }

    /// Index of the last entry in the files.
    pub fn written(&self) -> EntryIndex {
        self.shared.written()
    }

    /// Index of the last entry that a sync covers.
    pub fn synced(&self) -> EntryIndex {
        self.shared.synced()
    }

    /// Blocks until there is an entry beyond `beyond` (true), or until `timeout`, `wake`, `close`
    /// or a failure.
    pub fn wait_for_append(&self, beyond: EntryIndex, timeout: Duration) -> bool {
        self.shared.wait_for_append(beyond, timeout)
    }

    /// Ends one `wait_for_append` that has nothing to report: the present one or the next.
    pub fn wake(&self) {
        self.shared.tail.lock().woken = true;
        self.shared.appended_signal.notify_all();
    }

    /// Where a job lies and how long it is, also while its entry is in memory only.
    pub fn find(&self, queue: QueueId, offset: Offset) -> Option<FoundJob> {
        self.shared.find(queue, offset)
    }

    /// Gives what `look` makes of a job's body, also while its entry is in memory only. None if
    /// the job is not there, or can't be read. The body is not checked.
    pub fn with_body<T>(
        &self,
        queue: QueueId,
        offset: Offset,
        look: impl FnOnce(&[u8]) -> T,
    ) -> Option<T> {
        self.shared.with_body(queue, offset, look)
    }

    /// Hands the written entries above `after`, up to `through`, to `each`, in the order of their
    /// indexes. No lock is held over reading or over `each`.
    ///
    /// # Errors
    /// `NotWritten` if `through` is not written yet, `Damaged`, `Io`, or `Replay` with what `each`
    /// returned.
    pub fn entries(
        &self,
        after: EntryIndex,
        through: EntryIndex,
        each: &mut Replay<'_>,
    ) -> Result<(), LogError> {
        self.shared.entries(after, through, each)
    }

    /// Bytes appended and not yet written. Cheap: for those who slow producers down.
    pub fn pending_bytes(&self) -> u64 {
        self.shared.pending_bytes.load(Ordering::Relaxed)
    }

    /// The segments, oldest first; the last one is growing. Those that compaction has made come
    /// first.
    pub fn segments(&self) -> Vec<SegmentInfo> {
        let tail = self.shared.tail.lock();
        let info = |segment: &Segment, extent: &Extent, compacted| SegmentInfo {
            id: segment.id,
            first_index: extent.first_index,
            last_index: extent.last_index,
            bytes_used: u64::from(extent.end),
            file_bytes: segment.map.len() as u64,
            compacted,
        };
        let old = tail.old.iter().map(|Old { kind, table }| {
            info(&table.segment, &table.extent, *kind == FileKind::Jobs)
        });
        let sealed = tail.sealed.iter().map(|sealed| info(&sealed.segment, &sealed.extent, false));
        let extent = Extent::new(&tail.header, tail.last_index(), tail.position);
        old.chain(sealed).chain([info(&tail.active.segment, &extent, false)]).collect()
    }

    /// Drops what is dead of the entries up to `checkpointed`: unlinks segments without a live job,
    /// rewrites those whose live part has fallen below half, and merges small neighbours. `live`
    /// says whether a job may still be asked for; no lock is held over it. What is read while this
    /// goes on stays readable. One call does as much as `budget` allows and the next goes on there.
    ///
    /// A start can replay only from `checkpointed` on afterwards: give the index of the oldest
    /// checkpoint that may still have to serve. All that has been appended is synced first.
    ///
    /// # Errors
    /// `NoSpace` if there is no room for a rewritten segment: nothing has changed then. `Io` or
    /// `Damaged`: compaction stops until the log is reopened, what is there stays as it is.
    /// `CompactionStopped`, `Poisoned`.
    pub fn compact(
        &self,
        checkpointed: EntryIndex,
        live: &mut dyn FnMut(QueueId, Offset) -> bool,
        budget: CompactBudget,
    ) -> Result<CompactReport, LogError> {
        self.shared.compact(checkpointed, live, budget)
    }

    /// Brings a queue's jobs from `from` on into memory, as far as they lie in sealed segments,
    /// about `bytes_max` bytes of them: for a thread that may wait for the disk on behalf of one
    /// that is to read them soon. Gives the offset that it has come to.
    pub fn read_ahead(&self, queue: QueueId, from: Offset, bytes_max: u64) -> Offset {
        self.shared.read_ahead(queue, from, bytes_max)
    }

    /// Where a job lies. It can be read once its entry is written.
    pub fn locate(&self, queue: QueueId, offset: Offset) -> Option<JobLocation> {
        self.shared.locate(queue, offset)
    }

    /// Drops a deleted queue from the job index. Its id must not come again.
    pub fn forget(&self, queue: QueueId) {
        self.shared.tail.lock().index.forget(queue);
    }

    /// The vote that was saved last, if there is one.
    ///
    /// # Errors
    /// `Damaged`, `Io`.
    pub fn vote(&self) -> Result<Option<Vec<u8>>, LogError> {
        vote::load(&*self.shared.options.files, &self.shared.dir, self.shared.log_id)
    }

    /// Saves a vote of at most [`VOTE_BYTES_MAX`](super::VOTE_BYTES_MAX) bytes, durably. One caller
    /// at a time.
    ///
    /// # Errors
    /// `Io`: whether the old vote counts or the new one is unknown then. `InvalidEntry` for a vote
    /// that is too long.
    pub fn save_vote(&self, vote: &[u8]) -> Result<(), LogError> {
        vote::store(&*self.shared.options.files, &self.shared.dir, self.shared.log_id, vote)
    }

    /// Waits until the background threads have nothing to do. For tests that want the same calls of
    /// the file system in the same order each time.
    pub fn settle(&self) {
        self.shared.settle();
    }

    /// Refuses further appends, writes and syncs all that was appended, and notes durably that it
    /// did. Afterwards the log can still be read.
    ///
    /// # Errors
    /// `Poisoned`.
    pub fn close(&self) -> Result<(), LogError> {
        {
            let mut tail = self.shared.tail.lock();
            tail.closed = true;
            self.shared.appended_signal.notify_all();
            self.shared.spare_signal.notify_all();
        }
        let marked = self.shared.mark();
        self.end_background();
        marked
    }

    /// The first failure of a write or sync, if there was one.
    pub fn poisoned(&self) -> Option<Arc<str>> {
        self.shared.poison.get().cloned()
    }

    /// Numbers about the log. Walks the job index: for descriptions, not for the hot path.
    pub fn stats(&self) -> LogStats {
        let tail = self.shared.tail.lock();
        LogStats {
            segments: tail.old.len() + tail.sealed.len() + 1,
            segment_bytes: self.shared.options.segment_bytes,
            active_bytes: tail.position,
            pending_bytes: tail.pending.len(),
            indexed_entries: tail.index.entries(),
            indexed_spans: tail.index.spans(),
            appended: tail.last_index(),
            written: self.shared.written(),
            synced: self.shared.synced(),
        }
    }

    /// Opens the log on its fresh segment, whose header is not written yet.
    pub(super) fn begin(beginning: Beginning) -> Result<Self, LogError> {
        let Beginning { dir, options, lock, fresh, header, next_segment, .. } = beginning;
        let before = EntryIndex(header.first_index.0 - 1);
        let tail = Tail {
            next_index: header.first_index,
            active: fresh,
            position: SEGMENT_HEADER_BYTES as u32,
            proved: before,
            pending: WriteBatch::default(),
            inflight: None,
            index: beginning.index,
            dirty: Vec::new(),
            spare: Spare::Idle,
            spare_awaited: 0,
            spare_bytes: options.segment_bytes_first().saturating_mul(2).min(options.segment_bytes),
            unnamed: Vec::new(),
            discarded: Vec::new(),
            started: false,
            busy: 0,
            ballast_due: true,
            next_segment,
            old: beginning.old,
            sealed: beginning.sealed,
            untabled: VecDeque::new(),
            header,
            last: Last::default(),
            term: beginning.entry_term,
            closed: false,
            stopping: false,
            woken: false,
        };
        let room = Room::new(&dir, &options, beginning.ballast);
        let shared = Arc::new(Shared {
            dir,
            options,
            log_id: header.log_id,
            term: header.term,
            tail: Mutex::new(tail),
            appended_signal: Condvar::new(),
            spare_signal: Condvar::new(),
            background_signal: Condvar::new(),
            writer: Mutex::default(),
            syncing: Mutex::new(()),
            compaction: Mutex::new(Compaction::new(beginning.manifest)),
            appended: AtomicU64::new(before.0),
            written: AtomicU64::new(before.0),
            synced: AtomicU64::new(before.0),
            pending_bytes: AtomicU64::new(0),
            resume: Mutex::new(Resume::default()),
            room,
            poison: OnceLock::new(),
            _lock: lock,
        });
        // A log on a full disk takes no jobs from the beginning.
        let _ = shared.room.look();
        let threads = spare::spawn(&shared)
            .map_err(|error| LogError::io("starting a thread for", &shared.dir, error))?;
        Ok(Self { shared, background: Mutex::new(threads) })
    }

    /// Appends an entry that an earlier segment already has, under its own term.
    pub(super) fn append_again(
        &self,
        entry: EntryView<'_>,
        bodies_crc: u32,
    ) -> Result<(), LogError> {
        self.shared.append(entry, bodies_crc)?;
        if self.shared.tail.lock().pending.len() > REWRITE_BYTES_MAX {
            self.shared.write()?;
        }
        Ok(())
    }

    /// Syncs what was appended again, and only then writes and syncs the header that makes it
    /// count: if this is interrupted, the old segments still do.
    pub(super) fn finish_start(
        &self,
        fresh: &OpenSegment,
        header: &SegmentHeader,
    ) -> Result<(), LogError> {
        self.shared.sync()?;
        let OpenSegment { segment, file, .. } = fresh;
        file.write_all_at(&header.encode(), 0)
            .and_then(|()| file.sync_data())
            .map_err(|error| LogError::io("writing", &segment.path, error))?;
        self.shared.tail.lock().proved = header.durable;
        let dir = &self.shared.dir;
        let synced = self.shared.options.files.sync_dir(dir);
        synced.map_err(|error| LogError::io("syncing", dir, error))
    }

    /// Lets the background thread do what need not be waited for.
    pub(super) fn started(&self) {
        self.shared.tail.lock().started = true;
        self.shared.background_signal.notify_all();
    }

    /// Removes files that no longer count.
    pub(super) fn remove(&self, paths: &[PathBuf]) -> Result<(), LogError> {
        if paths.is_empty() {
            return Ok(());
        }
        let (files, dir) = (&self.shared.options.files, &self.shared.dir);
        for path in paths {
            match files.remove(path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(LogError::io("removing", path, error));
                }
                _ => {}
            }
        }
        files.sync_dir(dir).map_err(|error| LogError::io("syncing", dir, error))
    }

    fn end_background(&self) {
        self.shared.tail.lock().stopping = true;
        self.shared.background_signal.notify_all();
        for thread in self.background.lock().drain(..) {
            if thread.join().is_err() {
                tracing::error!("a background thread of the log panicked");
            }
        }
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        self.end_background();
    }
}
