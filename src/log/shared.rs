//! What the handle of the log and its background threads share: appending, writing, syncing.
//!
//! Locks, always taken in this order: `compaction`, `syncing` (over `fdatasync`), `writer` (over
//! `pwrite`), `tail` (memory only, never over a system call). So a slow disk holds up those who
//! wait for it and nobody else.

use std::fs::File;
use std::mem;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use parking_lot::{Condvar, Mutex, MutexGuard};
use rustc_hash::FxHashMap;

use crate::types::{EntryIndex, Offset, QueueId, Term};

use super::entry::{EntryView, body_len};
use super::error::LogError;
use super::format::*;
use super::frame::FramedEntry;
use super::index::FoundIn;
use super::location::{FoundJob, JobLocation};
use super::manifest::Manifest;
use super::options::LogOptions;
use super::room::Room;
use super::segment::OpenSegment;
use super::tail::{Spare, Tail, WriteBatch};

/// The state of an open log.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) dir: PathBuf,
    pub(super) options: LogOptions,
    pub(super) log_id: [u8; 16],
    pub(super) term: Term,
    pub(super) tail: Mutex<Tail>,
    /// Something was appended, or `wake` was called.
    pub(super) appended_signal: Condvar,
    /// The spare became ready, or could not be had.
    pub(super) spare_signal: Condvar,
    /// A background thread has something to do.
    pub(super) background_signal: Condvar,
    /// The batch that is being written; empty between two writes. Two batches go round, this and
    /// the tail's pending one, so that nothing is allocated.
    pub(super) writer: Mutex<Arc<WriteBatch>>,
    pub(super) syncing: Mutex<()>,
    /// Held over a compaction, and taken before all others.
    pub(super) compaction: Mutex<Compaction>,
    /// Index of the last entry appended. These three change under the tail's lock.
    pub(super) appended: AtomicU64,
    pub(super) written: AtomicU64,
    pub(super) synced: AtomicU64,
    /// Bytes appended and not yet written.
    pub(super) pending_bytes: AtomicU64,
    /// Where reading entries back has stopped.
    pub(super) resume: Mutex<Resume>,
    pub(super) room: Room,
    /// The first failure of a write or sync.
    pub(super) poison: OnceLock<Arc<str>>,
    /// Holds the lock on the directory.
    pub(super) _lock: File,
}

/// What compaction remembers between calls.
#[derive(Debug)]
pub(super) struct Compaction {
    pub(super) manifest: Manifest,
    /// The first index of the segment with which the next call begins.
    pub(super) cursor: EntryIndex,
    /// Segments that were not worth a rewrite, with the live jobs they had then.
    pub(super) tried: FxHashMap<u64, u64>,
    /// The failure after which it is not known what the disk has.
    pub(super) stopped: Option<Arc<str>>,
}

/// Where the last reader stopped, so that the next one, which mostly goes on there, need not walk
/// the segment from its beginning.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Resume {
    pub(super) segment: u64,
    pub(super) position: u32,
    /// Index of the entry in front of the position.
    pub(super) before: EntryIndex,
}

impl Compaction {
    pub(super) fn new(manifest: Manifest) -> Self {
        let cursor = EntryIndex(0);
        Self { manifest, cursor, tried: FxHashMap::default(), stopped: None }
    }
}

impl Shared {
    pub(super) fn appended(&self) -> EntryIndex {
        EntryIndex(self.appended.load(Ordering::Acquire))
    }

    pub(super) fn written(&self) -> EntryIndex {
        EntryIndex(self.written.load(Ordering::Acquire))
    }

    pub(super) fn synced(&self) -> EntryIndex {
        EntryIndex(self.synced.load(Ordering::Acquire))
    }

    /// Appends an entry under its term; its index is given here.
    pub(super) fn append(
        &self,
        mut entry: EntryView<'_>,
        bodies_crc: u32,
    ) -> Result<EntryIndex, LogError> {
        entry.check().map_err(|reason| LogError::InvalidEntry { reason })?;
        let bytes = entry.encoded_bytes();
        let max = self.options.entry_bytes_max();
        if bytes > max {
            return Err(LogError::EntryTooLarge { bytes, max });
        }
        let mut tail = self.make_room(frame_bytes(bytes as usize) as u32)?;
        if entry.term < tail.term || entry.term > self.term {
            return Err(LogError::InvalidEntry { reason: "the term is not between its bounds" });
        }
        entry.index = tail.next_index;
        let before = tail.position;
        tail.push(&entry, bodies_crc, self.synced())
            .map_err(|reason| LogError::InvalidEntry { reason })?;
        self.appended.store(entry.index.0, Ordering::Release);
        self.pending_bytes.fetch_add(u64::from(tail.position - before), Ordering::Relaxed);
        self.want_spare(&mut tail);
        drop(tail);
        self.appended_signal.notify_all();
        Ok(entry.index)
    }

    /// The tail, with room for `bytes` in its active segment; rolls if need be.
    pub(super) fn make_room(&self, bytes: u32) -> Result<MutexGuard<'_, Tail>, LogError> {
        self.roll_until(segment_bytes_for(bytes), |tail| tail.has_room(bytes))
    }

    /// Goes on in a segment of the first size, and lets a larger one end where it is. So what is
    /// dead in it can be dropped, and a log that has little to hold takes little room.
    pub(super) fn shrink(&self) -> Result<(), LogError> {
        let first = self.options.segment_bytes_first();
        let large = {
            let mut tail = self.tail.lock();
            match mem::replace(&mut tail.spare, Spare::Idle) {
                Spare::Ready(spare) => tail.discarded.push(spare),
                other @ (Spare::Idle | Spare::Wanted | Spare::Failed(_)) => tail.spare = other,
            }
            tail.spare_bytes = first;
            tail.active.segment.id
        };
        self.background_signal.notify_all();
        self.roll_until(first, |tail| {
            tail.active.segment.id != large || tail.active.bytes() <= first
        })
        .map(drop)
    }

    /// The tail, when it is as it should be; rolls to a segment of at least `least` bytes before.
    fn roll_until(
        &self,
        least: u32,
        enough: impl Fn(&Tail) -> bool,
    ) -> Result<MutexGuard<'_, Tail>, LogError> {
        let mut tail = self.tail.lock();
        let mut asked = false;
        loop {
            if tail.closed {
                return Err(LogError::Closed);
            }
            self.refuse_if_poisoned()?;
            if enough(&tail) {
                return Ok(tail);
            }
            match mem::replace(&mut tail.spare, Spare::Wanted) {
                Spare::Ready(fresh) if fresh.bytes() >= least => {
                    tail.spare = Spare::Idle;
                    tail.spare_awaited = 0;
                    tail.spare_bytes = tail.spare_bytes.saturating_mul(2);
                    tail.spare_bytes = tail.spare_bytes.min(self.options.segment_bytes);
                    let wall_ms = self.options.files.wall_ms();
                    tail.roll(fresh, self.log_id, self.term, self.synced(), wall_ms);
                    self.background_signal.notify_all();
                }
                Spare::Failed(error) if asked => {
                    tail.spare = Spare::Idle;
                    tail.spare_awaited = 0;
                    return Err(error);
                }
                // An old failure is no reason to refuse: there may be room by now.
                other @ (Spare::Idle | Spare::Wanted | Spare::Ready(_) | Spare::Failed(_)) => {
                    if let Spare::Ready(small) = other {
                        tail.discarded.push(small);
                    }
                    asked = true;
                    tail.spare_awaited = tail.spare_awaited.max(least);
                    self.background_signal.notify_all();
                    self.spare_signal.wait(&mut tail);
                }
            }
        }
    }

    /// Has a spare be prepared in time: when half of the active segment is used. Before that it
    /// would be room that a log with little to do never needs.
    fn want_spare(&self, tail: &mut Tail) {
        if matches!(tail.spare, Spare::Idle) && tail.position > tail.active.bytes() / 2 {
            tail.spare = Spare::Wanted;
            self.background_signal.notify_all();
        }
    }

    /// Writes what is appended, unless another caller has.
    pub(super) fn write(&self) -> Result<EntryIndex, LogError> {
        let goal = self.appended();
        let mut writer = self.writer.lock();
        self.refuse_if_poisoned()?;
        let written = self.written();
        if written >= goal {
            return Ok(written);
        }
        self.flush(&mut writer)
    }

    /// Writes all that is pending, also what has no index.
    fn flush(&self, writer: &mut Arc<WriteBatch>) -> Result<EntryIndex, LogError> {
        self.refuse_if_poisoned()?;
        let own = "the tail lets go of a batch before the writer's lock is released";
        {
            let mut tail = self.tail.lock();
            if !tail.take(Arc::get_mut(writer).expect(own)) {
                return Ok(self.written());
            }
            tail.inflight = Some(Arc::clone(writer));
        }
        for (part, bytes) in writer.parts() {
            let position = part.position;
            let OpenSegment { segment, file, .. } = &*part.segment;
            if let Err(error) = file.write_all_at(bytes, u64::from(position)) {
                return Err(self.poison("writing", &segment.path, &error));
            }
            segment.map.publish(position as usize + bytes.len());
        }
        let last = writer.last_index;
        let rolled = {
            let mut tail = self.tail.lock();
            tail.retire(writer);
            self.written.store(last.0, Ordering::Release);
            self.pending_bytes.store(tail.pending.len() as u64, Ordering::Relaxed);
            tail.dirty.len() > 1
        };
        if rolled {
            self.background_signal.notify_all();
        }
        Arc::get_mut(writer).expect(own).clear();
        Ok(last)
    }

    /// Writes and syncs what is appended, unless another caller has.
    pub(super) fn sync(&self) -> Result<EntryIndex, LogError> {
        let goal = self.appended();
        let guard = self.syncing.lock();
        self.refuse_if_poisoned()?;
        let synced = self.synced();
        if synced >= goal {
            return Ok(synced);
        }
        self.sync_all(&guard)
    }

    /// Makes the last synced index known to a later recovery, by a mark, which is synced.
    pub(super) fn mark(&self) -> Result<(), LogError> {
        let guard = self.syncing.lock();
        let synced = self.sync_all(&guard)?;
        {
            let mut tail = self.tail.lock();
            let room = tail.active.bytes() - tail.position;
            if tail.proved >= synced || room < FRAME_HEADER_BYTES as u32 {
                return Ok(());
            }
            tail.push_mark(synced);
        }
        self.sync_all(&guard).map(drop)
    }

    fn sync_all(&self, _syncing: &MutexGuard<'_, ()>) -> Result<EntryIndex, LogError> {
        self.flush(&mut self.writer.lock())?;
        let (target, dirty) = {
            let mut tail = self.tail.lock();
            (self.written(), mem::take(&mut tail.dirty))
        };
        self.sync_files(&dirty)?;
        self.move_synced(target)
    }

    /// Syncs the sealed segments, so that at every durability level the part of the log that may
    /// be lost stays small.
    pub(super) fn sync_sealed(&self) -> Result<EntryIndex, LogError> {
        let _guard = self.syncing.lock();
        self.refuse_if_poisoned()?;
        let sealed: Vec<_> = {
            let mut tail = self.tail.lock();
            let sealed = tail.sealed_dirty(self.written());
            tail.dirty.drain(..sealed).collect()
        };
        self.sync_files(&sealed)?;
        let last = sealed.last().and_then(|segment| segment.sealed_at());
        self.move_synced(last.unwrap_or_default())
    }

    fn sync_files(&self, segments: &[Arc<OpenSegment>]) -> Result<(), LogError> {
        for OpenSegment { segment, file, .. } in segments.iter().map(AsRef::as_ref) {
            if let Err(error) = file.sync_data() {
                return Err(self.poison("syncing", &segment.path, &error));
            }
        }
        if segments.iter().all(|segment| segment.is_named()) {
            return Ok(());
        }
        // They were needed before there was time for this.
        match self.options.files.sync_dir(&self.dir) {
            Err(error) => Err(self.poison("syncing", &self.dir, &error)),
            Ok(()) => {
                segments.iter().for_each(|segment| segment.set_named());
                Ok(())
            }
        }
    }

    fn move_synced(&self, to: EntryIndex) -> Result<EntryIndex, LogError> {
        let tail = self.tail.lock();
        let before = self.synced.fetch_max(to.0, Ordering::AcqRel);
        if !tail.untabled.is_empty() {
            self.background_signal.notify_all();
        }
        Ok(EntryIndex(before.max(to.0)))
    }

    /// Waits for an entry beyond `beyond`, a `wake`, the end of the log, or the timeout. True if
    /// there is such an entry.
    pub(super) fn wait_for_append(&self, beyond: EntryIndex, timeout: Duration) -> bool {
        let mut tail = self.tail.lock();
        loop {
            if tail.last_index() > beyond {
                return true;
            }
            if mem::take(&mut tail.woken) || tail.closed || self.poison.get().is_some() {
                return false;
            }
            if self.appended_signal.wait_for(&mut tail, timeout).timed_out() {
                return tail.last_index() > beyond;
            }
        }
    }

    pub(super) fn find(&self, queue: QueueId, offset: Offset) -> Option<FoundJob> {
        let tail = self.tail.lock();
        let found = tail.index.find(&tail.active.segment, queue, offset)?;
        let is_sealed = matches!(found, FoundIn::Span(_));
        let mut bytes = None;
        if let FoundIn::Row(segment, row) = &found
            && let Some(frame) = tail.in_memory(segment, row.position)
        {
            let ordinal = offset.0.checked_sub(row.base)? as u32;
            bytes = Some(body_len(frame.get(FRAME_HEADER_BYTES..)?, ordinal)?);
        }
        // Tables and maps may have to wait for the disk, which must not happen under the lock.
        drop(tail);
        let location = JobLocation::new(found, queue, offset)?;
        let read = || location.read_unchecked().map_or(0, |job| job.body.len() as u32);
        let bytes = bytes.unwrap_or_else(read);
        Some(FoundJob { location, bytes, is_sealed })
    }

    /// See [`Log::read_ahead`](super::Log::read_ahead).
    pub(super) fn read_ahead(&self, queue: QueueId, from: Offset, bytes_max: u64) -> Offset {
        let (mut at, mut bytes) = (from, 0);
        while bytes < bytes_max {
            let Some(span) = self.tail.lock().index.span_from(queue, at) else { break };
            at = at.max(span.first());
            let before = at;
            for row in span.rows_from(at) {
                let begin = row.position as usize;
                let end = begin + FRAME_HEADER_BYTES + row.length as usize;
                // What can't be read is for the one who asks for the job to say.
                let _ = span.segment().warm(begin, end);
                (at, bytes) = (Offset(row.end()), bytes + u64::from(row.length));
                if bytes >= bytes_max {
                    break;
                }
            }
            if at == before {
                break;
            }
        }
        at
    }

    pub(super) fn with_body<T>(
        &self,
        queue: QueueId,
        offset: Offset,
        look: impl FnOnce(&[u8]) -> T,
    ) -> Option<T> {
        let tail = self.tail.lock();
        let found = tail.index.find(&tail.active.segment, queue, offset)?;
        if let FoundIn::Row(segment, row) = &found
            && let Some(frame) = tail.in_memory(segment, row.position)
        {
            let framed = FramedEntry::again(frame).ok()?;
            let ordinal = offset.0.checked_sub(row.base)? as u32;
            return framed.view.job(ordinal).map(|job| look(job.body));
        }
        drop(tail);
        let location = JobLocation::new(found, queue, offset)?;
        location.read_unchecked().ok().map(|job| look(job.body))
    }

    pub(super) fn locate(&self, queue: QueueId, offset: Offset) -> Option<JobLocation> {
        let tail = self.tail.lock();
        let found = tail.index.find(&tail.active.segment, queue, offset)?;
        drop(tail);
        JobLocation::new(found, queue, offset)
    }

    pub(super) fn refuse_if_poisoned(&self) -> Result<(), LogError> {
        match self.poison.get() {
            None => Ok(()),
            Some(cause) => Err(LogError::Poisoned { cause: Arc::clone(cause) }),
        }
    }

    /// Stops the log: what the failed call has left on the disk is unknown, and asking again may
    /// well be answered with a success that is none.
    pub(super) fn poison(&self, operation: &str, path: &Path, error: &std::io::Error) -> LogError {
        let cause = format!("{operation} {} failed: {error}", path.display());
        tracing::error!(%cause, "the log takes nothing more until it is reopened");
        let cause = self.poison.get_or_init(|| cause.into());
        // Under the lock, or one who is about to wait would miss the signal.
        let _tail = self.tail.lock();
        self.appended_signal.notify_all();
        self.spare_signal.notify_all();
        LogError::Poisoned { cause: Arc::clone(cause) }
    }
}

/// The size of a segment into which an entry fits whose frame takes `bytes`.
pub(super) fn segment_bytes_for(bytes: u32) -> u32 {
    let bytes = SEGMENT_HEADER_BYTES as u32 + bytes + FRAME_HEADER_BYTES as u32;
    bytes.next_multiple_of(SEGMENT_HEADER_BYTES as u32)
}
