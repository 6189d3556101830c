//! Compaction: gives back the space of jobs that nobody will ask for any more.
//!
//! Only segments that a checkpoint stands for are touched, and no file is changed in place: what
//! is still live goes into a new file, which is synced and named in the manifest before the old
//! ones are removed. Until then the manifest names the old ones, so a crash at any point leaves
//! either the old files or the new one in force, and what is not is removed at the next start.

use std::mem;
use std::path::Path;
use std::sync::Arc;

use rustc_hash::{FxHashMap, FxHashSet};

use crate::types::{EntryIndex, Offset, QueueId};

use super::entry::EntryView;
use super::error::LogError;
use super::files::DataFile;
use super::format::*;
use super::frame::Seed;
use super::manifest::{Base, Manifest, OldFile};
use super::map::Map;
use super::segment::{Extent, FileKind, Last, Segment, SegmentHeader};
use super::shared::{Compaction, Shared};
use super::table::{self, IndexRow, IndexRows, Old, Table};

/// How much one call of `compact` may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CompactBudget {
    /// Bytes to read and write. A rewrite that has begun is finished, so it may be exceeded by one
    /// segment.
    pub bytes: u64,
    /// Jobs to ask about.
    pub jobs: u64,
}

/// What one call of `compact` did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CompactReport {
    /// Segments whose jobs were asked about.
    pub segments_examined: usize,
    /// Jobs asked about.
    pub jobs_examined: u64,
    /// Segments removed because they had no live job.
    pub segments_removed: usize,
    /// Segments replaced by what was live in them.
    pub segments_rewritten: usize,
    /// Files made for that.
    pub segments_made: usize,
    /// Bytes read from segments.
    pub bytes_read: u64,
    /// Bytes written.
    pub bytes_written: u64,
    /// Bytes by which the log's files have become smaller.
    pub bytes_freed: u64,
    /// Whether the call has come to the newest segment it may touch, so that the next one begins
    /// with the oldest again.
    pub complete: bool,
}

/// A file that may be compacted.
#[derive(Debug)]
struct Candidate {
    table: Arc<Table>,
    /// What it is to the chain, if it still belongs to it.
    base: Option<Base>,
}

/// Jobs of one entry that are live and follow each other.
#[derive(Clone, Copy, Debug)]
struct LiveRun {
    /// Where the entry's frame begins.
    position: u32,
    /// The first of the jobs within the entry.
    first: u32,
    count: u32,
}

/// What there is in a candidate.
#[derive(Debug)]
struct Examined {
    candidate: Candidate,
    live_jobs: u64,
    /// About the bytes that a file with its live jobs alone would have.
    bytes: u64,
    /// Its live jobs, unless there are too many for a rewrite to be worth it.
    runs: Option<Vec<LiveRun>>,
}

/// Neighbours smaller than a segment by this factor are merged.
const SMALL: u64 = 4;
/// As many small neighbours make a merge worth it.
const MERGED_MIN: usize = 4;
/// A new file is written in pieces of this size.
const PIECE_BYTES: usize = 1 << 20;
/// Queues whose index is changed under one lock.
const QUEUES_AT_ONCE: usize = 512;

impl Candidate {
    fn file_bytes(&self) -> u64 {
        self.table.segment.map.len() as u64
    }

    fn id(&self) -> u64 {
        self.table.segment.id
    }
}

impl Examined {
    /// Whether more than half of the file would be gone after a rewrite.
    fn is_sparse(&self) -> bool {
        self.bytes * 2 <= self.candidate.file_bytes()
    }
}

impl Shared {
    pub(super) fn compact(
        &self,
        checkpointed: EntryIndex,
        live: &mut dyn FnMut(QueueId, Offset) -> bool,
        budget: CompactBudget,
    ) -> Result<CompactReport, LogError> {
        // What was sealed a moment ago is no candidate before it has its table.
        self.wait_for_tables();
        let compacted = loop {
            match self.compact_within(checkpointed, live, budget) {
                Err(LogError::NoSpace { bytes, .. })
                    if self.room.release_ballast_for(u64::from(bytes)) => {}
                other => break other,
            }
        };
        if compacted.as_ref().is_ok_and(|report| report.bytes_freed > 0) {
            self.tail.lock().ballast_due = true;
            self.background_signal.notify_all();
        }
        compacted
    }

    fn compact_within(
        &self,
        checkpointed: EntryIndex,
        live: &mut dyn FnMut(QueueId, Offset) -> bool,
        budget: CompactBudget,
    ) -> Result<CompactReport, LogError> {
        let mut compaction = self.compaction.lock();
        self.refuse_if_poisoned()?;
        if let Some(cause) = &compaction.stopped {
            return Err(LogError::CompactionStopped { cause: Arc::clone(cause) });
        }
        let mut report = CompactReport::default();
        let examined = self.examine(&mut compaction, checkpointed, live, budget, &mut report);
        let (dead, rest): (Vec<_>, Vec<_>) =
            examined.into_iter().partition(|examined| examined.live_jobs == 0);
        let groups = self.groups(&compaction, rest);
        if dead.is_empty() && groups.is_empty() {
            return Ok(report);
        }
        // The entries that made the jobs dead must outlive the jobs.
        self.sync()?;
        let mut compact = || {
            let mut no_space = None;
            if !dead.is_empty() {
                let dead: Vec<_> = dead.iter().map(|dead| &dead.candidate).collect();
                self.replace(&mut compaction, &dead, None, &mut report)?;
                report.segments_removed += dead.len();
            }
            for group in &groups {
                if report.bytes_read + report.bytes_written >= budget.bytes {
                    let first = group.first().map(|first| first.candidate.table.extent.first_index);
                    compaction.cursor = first.unwrap_or_default();
                    report.complete = false;
                    break;
                }
                match self.rewrite(&mut compaction, group, &mut report) {
                    // Another one may need less room.
                    Err(error @ LogError::NoSpace { .. }) => no_space = Some(error),
                    other => other?,
                }
            }
            match no_space {
                Some(error) if report.bytes_freed == 0 => Err(error),
                _ => Ok(()),
            }
        };
        match compact() {
            Ok(()) => Ok(report),
            Err(full @ LogError::NoSpace { .. }) => Err(full),
            Err(error) => {
                tracing::error!(%error, "compaction stops until the log is reopened");
                compaction.stopped = Some(error.to_string().into());
                Err(error)
            }
        }
    }

    /// The files that a checkpoint stands for, in the order of their entries.
    fn candidates(&self, checkpointed: EntryIndex) -> Vec<Candidate> {
        let tail = self.tail.lock();
        let old = tail.old.iter();
        let old = old.map(|old| Candidate { table: Arc::clone(&old.table), base: None });
        let (mut index, mut last) = (EntryIndex(0), Last::default());
        let chain = tail.sealed.iter().map_while(|sealed| {
            let extent = sealed.extent;
            let table = sealed.table.as_ref().filter(|_| extent.last_index <= checkpointed)?;
            index = extent.last_index;
            last = if extent.has_entries() { sealed.last } else { last };
            let base = Base { id: sealed.segment.id, end: extent.end, index, last };
            Some(Candidate { table: Arc::clone(table), base: Some(base) })
        });
        old.chain(chain).collect()
    }

    /// Asks about the jobs of as many files as the budget allows, from where the last call ended.
    fn examine(
        &self,
        compaction: &mut Compaction,
        checkpointed: EntryIndex,
        live: &mut dyn FnMut(QueueId, Offset) -> bool,
        budget: CompactBudget,
        report: &mut CompactReport,
    ) -> Vec<Examined> {
        let mut examined = Vec::new();
        let cursor = mem::take(&mut compaction.cursor);
        report.complete = true;
        for candidate in self.candidates(checkpointed) {
            if candidate.table.extent.first_index < cursor {
                continue;
            }
            if report.jobs_examined >= budget.jobs {
                compaction.cursor = candidate.table.extent.first_index;
                report.complete = false;
                break;
            }
            report.segments_examined += 1;
            examined.push(self.look_into(candidate, live, &mut report.jobs_examined));
        }
        examined
    }

    fn look_into(
        &self,
        candidate: Candidate,
        live: &mut dyn FnMut(QueueId, Offset) -> bool,
        asked: &mut u64,
    ) -> Examined {
        let small = candidate.file_bytes() * SMALL <= u64::from(self.options.segment_bytes);
        let mut runs = Vec::new();
        let mut live_jobs = 0;
        let mut bytes = SEGMENT_HEADER_BYTES as u64;
        let table = Arc::clone(&candidate.table);
        // What can't be looked into is not dead.
        let lost = table.is_lost();
        for queue in table.queues() {
            for row in table.rows_in(queue.slot) {
                let before = runs.len();
                let mut live_here = 0u32;
                for ordinal in 0..row.count {
                    *asked += 1;
                    if live(queue.queue, Offset(row.base + u64::from(ordinal))) {
                        live_here += 1;
                        extend(&mut runs, before, row.position, ordinal);
                    }
                }
                live_jobs += u64::from(live_here);
                bytes += u64::from(row.length) * u64::from(live_here) / u64::from(row.count.max(1));
                bytes += (runs.len() - before) as u64 * RUN_BYTES;
                if !small && bytes * 2 > candidate.file_bytes() {
                    return Examined { candidate, live_jobs, bytes, runs: None };
                }
            }
        }
        let live_jobs = if lost { u64::MAX } else { live_jobs };
        let runs = (!lost).then_some(runs);
        Examined { candidate, live_jobs, bytes, runs }
    }

    /// Parts what was examined into groups of neighbours that are each worth a new file.
    fn groups(&self, compaction: &Compaction, examined: Vec<Examined>) -> Vec<Vec<Examined>> {
        let max = u64::from(self.options.segment_bytes);
        let (mut groups, mut group) = (Vec::new(), Vec::new());
        let mut group_bytes = 0;
        let mut finish = |group: &mut Vec<Examined>| {
            let group = mem::take(group);
            if group.iter().any(Examined::is_sparse) || group.len() >= MERGED_MIN {
                groups.push(group);
            }
        };
        for file in examined {
            let tried = compaction.tried.get(&file.candidate.id());
            let worth = tried.is_none_or(|jobs| file.live_jobs <= jobs / 2);
            let movable = file.runs.is_some() && worth;
            if !movable || group_bytes + file.bytes > max {
                finish(&mut group);
                group_bytes = 0;
            }
            if movable {
                group_bytes += file.bytes;
                group.push(file);
            }
        }
        finish(&mut group);
        groups
    }

    /// Puts the live jobs of a group of neighbours into a new file.
    fn rewrite(
        &self,
        compaction: &mut Compaction,
        group: &[Examined],
        report: &mut CompactReport,
    ) -> Result<(), LogError> {
        let candidates: Vec<_> = group.iter().map(|file| &file.candidate).collect();
        let old_bytes: u64 = candidates.iter().map(|candidate| candidate.file_bytes()).sum();
        let planned = planned_bytes(group, report);
        let worth = planned.as_ref().is_ok_and(|planned| planned * 4 <= old_bytes * 3);
        if !worth {
            if let Err(error) = planned {
                tracing::error!(%error, "a damaged segment is left as it is");
            }
            for file in group {
                compaction.tried.insert(file.candidate.id(), file.live_jobs);
            }
            return Ok(());
        }
        let bytes = u32::try_from(planned?).map_err(|_| LogError::InvalidEntry {
            reason: "a compacted segment would have more than 4 GiB",
        })?;
        let made = Arc::new(self.make_jobs_file(group, bytes)?);
        report.bytes_written += u64::from(bytes);
        let replaced = self.replace(compaction, &candidates, Some(&made), report);
        if let Err(LogError::NoSpace { .. }) = &replaced {
            // There was no room for the new manifest, so the one in force does not name the file.
            self.discard(&made.segment.path, made.segment.id);
        }
        replaced?;
        report.segments_rewritten += group.len();
        report.segments_made += 1;
        Ok(())
    }

    /// Writes the new file and its index table, and makes both durable.
    fn make_jobs_file(&self, group: &[Examined], bytes: u32) -> Result<Table, LogError> {
        let id = {
            let mut tail = self.tail.lock();
            tail.next_segment += 1;
            tail.next_segment - 1
        };
        let path = self.dir.join(FileKind::Jobs.file_name(id));
        let made = self.write_jobs_file(group, bytes, id, &path);
        made.inspect_err(|_| self.discard(&path, id))
    }

    /// Removes a file that no manifest names. If that fails, the next start does it.
    fn discard(&self, path: &Path, id: u64) {
        let files = &*self.options.files;
        let _ = files.remove(path);
        let _ = files.remove(&self.dir.join(table::file_name(id)));
    }

    fn write_jobs_file(
        &self,
        group: &[Examined],
        bytes: u32,
        id: u64,
        path: &Path,
    ) -> Result<Table, LogError> {
        let files = &*self.options.files;
        let file = files
            .create(path, bytes)
            .map_err(|source| LogError::creating(&self.dir, path, bytes, source))?;
        let io = |operation, error| LogError::io(operation, path, error);
        let mut copy = Copy::begin(self, &*file, id, bytes);
        for run in group.iter().flat_map(runs_of) {
            copy.push(&run?).map_err(|error| io("writing", error))?;
        }
        let Copy { rows, last, first_index, last_index, end, .. } =
            copy.finish().map_err(|error| io("writing", error))?;
        files.sync_dir(&self.dir).map_err(|error| LogError::io("syncing", &self.dir, error))?;
        let map = Map::whole(file.file()).map_err(|error| io("mapping", error))?;
        let header_crc = SEGMENT_FIELD_CRC.u32(map.bytes());
        let segment = Arc::new(Segment::own(self.log_id, id, path.to_owned(), map));
        let extent = Extent { header_crc, first_index, last_index, end };
        Ok(Table::write(Some(files), &self.dir, &segment, extent, &rows, last))
    }

    /// Has `made` stand for the files `gone`: in the manifest, in the index, and then alone.
    fn replace(
        &self,
        compaction: &mut Compaction,
        gone: &[&Candidate],
        made: Option<&Arc<Table>>,
        report: &mut CompactReport,
    ) -> Result<(), LogError> {
        let ids: Vec<u64> = gone.iter().map(|candidate| candidate.id()).collect();
        let before = compaction.manifest.base;
        let base = gone.iter().filter_map(|gone| gone.base).rfind(|base| base.id > before.id);
        let base = base.map_or(before, |base| match base.last == Last::default() {
            // None of the segments in front of its end has an entry.
            true => Base { last: before.last, ..base },
            false => base,
        });
        let old = self.old_after(&base, &ids, made);
        let next_id = self.tail.lock().next_segment;
        let manifest = Manifest {
            generation: compaction.manifest.generation + 1,
            next_id,
            base,
            old: old.iter().map(OldFile::of).collect(),
        };
        let files = &*self.options.files;
        manifest.store(files, &self.dir, self.log_id)?;
        compaction.manifest = manifest;
        self.replace_spans(&ids, gone, made);
        {
            let mut tail = self.tail.lock();
            tail.old = old;
            tail.sealed.retain(|sealed| sealed.segment.id > base.id);
        }
        for candidate in gone {
            compaction.tried.remove(&candidate.id());
            let segment = &candidate.table.segment;
            let io = |error| LogError::io("removing", &segment.path, error);
            files.remove(&segment.path).map_err(io)?;
            // Its table may be missing, and is of no use without it.
            let _ = files.remove(&self.dir.join(table::file_name(segment.id)));
            report.bytes_freed += candidate.file_bytes();
        }
        let made_bytes = made.map_or(0, |made| made.segment.map.len() as u64);
        report.bytes_freed = report.bytes_freed.saturating_sub(made_bytes);
        files.sync_dir(&self.dir).map_err(|error| LogError::io("syncing", &self.dir, error))
    }

    /// The older files when `made` stands for `gone` and the log begins behind `base`.
    fn old_after(&self, base: &Base, gone: &[u64], made: Option<&Arc<Table>>) -> Vec<Old> {
        let tail = self.tail.lock();
        let chain = tail.sealed.iter().filter(|sealed| sealed.segment.id <= base.id);
        let chain = chain.filter_map(|sealed| {
            // All up to the base are candidates, and so have tables.
            let table = Arc::clone(sealed.table.as_ref()?);
            Some(Old { kind: FileKind::Segment, table })
        });
        let mut made = made.map(|made| Old { kind: FileKind::Jobs, table: Arc::clone(made) });
        let mut files = Vec::new();
        for old in tail.old.iter().cloned().chain(chain) {
            match gone.contains(&old.table.segment.id) {
                true => files.extend(made.take()),
                false => files.push(old),
            }
        }
        files
    }

    fn replace_spans(&self, ids: &[u64], gone: &[&Candidate], made: Option<&Arc<Table>>) {
        let made_queues: FxHashMap<_, _> = made
            .iter()
            .flat_map(|made| made.queues().map(move |queue| (queue.queue, (*made, queue))))
            .collect();
        let queues: FxHashSet<_> =
            gone.iter().flat_map(|gone| gone.table.queues().map(|queue| queue.queue)).collect();
        let queues: Vec<_> = queues.into_iter().collect();
        for some in queues.chunks(QUEUES_AT_ONCE) {
            let mut tail = self.tail.lock();
            for queue in some {
                tail.index.replace_spans(*queue, ids, made_queues.get(queue).copied());
            }
        }
    }
}

impl OldFile {
    fn of(Old { kind, table }: &Old) -> Self {
        Self { kind: *kind, id: table.segment.id, extent: table.extent }
    }
}

/// What a run costs beyond its jobs, about: frame, entry header and padding.
const RUN_BYTES: u64 = (FRAME_HEADER_BYTES + ENTRY_HEADER_BYTES + FRAME_ALIGNMENT) as u64;

/// Adds the job at `ordinal` to the runs, of which those from `begin` on are of the same entry.
fn extend(runs: &mut Vec<LiveRun>, begin: usize, position: u32, ordinal: u32) {
    match runs.get_mut(begin..).and_then(<[LiveRun]>::last_mut) {
        Some(run) if run.first + run.count == ordinal => run.count += 1,
        _ => runs.push(LiveRun { position, first: ordinal, count: 1 }),
    }
}

/// The size of a file with the live jobs of a group. Reads their entries and checks them.
fn planned_bytes(group: &[Examined], report: &mut CompactReport) -> Result<u64, LogError> {
    let mut bytes = SEGMENT_HEADER_BYTES as u64;
    for file in group {
        let segment = &file.candidate.table.segment;
        let mut checked = 0;
        for run in sorted(file) {
            let framed = segment.entry_at(run.position)?;
            if checked != run.position {
                checked = run.position;
                report.bytes_read += framed.view.encoded_bytes();
                if !framed.bodies_are_whole() {
                    return Err(segment.damaged(run.position, "the bodies are not whole"));
                }
            }
            bytes += frame_bytes(LivePart::of(segment, run)?.encoded_bytes()) as u64;
        }
    }
    Ok(bytes.next_multiple_of(SEGMENT_HEADER_BYTES as u64))
}

/// The runs of a file in the order of its entries.
fn sorted(file: &Examined) -> Vec<LiveRun> {
    let mut runs = file.runs.clone().unwrap_or_default();
    runs.sort_unstable_by_key(|run| (run.position, run.first));
    runs
}

fn runs_of(file: &Examined) -> impl Iterator<Item = Result<LivePart<'_>, LogError>> {
    let segment = &file.candidate.table.segment;
    sorted(file).into_iter().map(|run| LivePart::of(segment, run))
}

/// Some jobs of an entry, on their way to another file.
struct LivePart<'a> {
    /// The entry; its table, facts and bodies are not the part's.
    whole: EntryView<'a>,
    table: Vec<u8>,
    bodies: &'a [u8],
}

impl<'a> LivePart<'a> {
    fn of(segment: &'a Segment, run: LiveRun) -> Result<Self, LogError> {
        let whole = segment.entry_at(run.position)?.view;
        let (table, bodies) = whole
            .batch()
            .part(run.first, run.count)
            .ok_or_else(|| segment.damaged(run.position, "the entry has not the jobs it had"))?;
        let base_offset = whole.base_offset.plus(u64::from(run.first));
        let whole = EntryView { base_offset, count: run.count, ..whole };
        Ok(Self { whole, table, bodies })
    }

    fn view(&self) -> EntryView<'_> {
        EntryView { table: &self.table, facts: &[], bodies: self.bodies, ..self.whole }
    }

    fn encoded_bytes(&self) -> usize {
        self.view().encoded_bytes() as usize
    }
}

/// A file with frames in the making.
struct Copy<'a> {
    file: &'a dyn DataFile,
    header: SegmentHeader,
    seed: Seed,
    buffer: Vec<u8>,
    /// Where in the file the buffer begins.
    written: u32,
    rows: IndexRows,
    last: Last,
    first_index: EntryIndex,
    last_index: EntryIndex,
    /// Where the next frame goes.
    end: u32,
}

impl<'a> Copy<'a> {
    fn begin(shared: &Shared, file: &'a dyn DataFile, id: u64, size: u32) -> Self {
        let header = SegmentHeader {
            kind: FileKind::Jobs,
            id,
            log_id: shared.log_id,
            term: shared.term,
            first_index: EntryIndex(1),
            previous: 0,
            previous_end: 0,
            durable: shared.synced(),
            wall_ms: shared.options.files.wall_ms(),
            size,
        };
        Self {
            file,
            header,
            seed: Seed::new(shared.log_id, id),
            buffer: Vec::with_capacity(PIECE_BYTES),
            written: SEGMENT_HEADER_BYTES as u32,
            rows: IndexRows::default(),
            last: Last::default(),
            first_index: EntryIndex(0),
            last_index: EntryIndex(0),
            end: SEGMENT_HEADER_BYTES as u32,
        }
    }

    fn push(&mut self, part: &LivePart<'_>) -> std::io::Result<()> {
        let view = part.view();
        let crc = crc32fast::hash(part.bodies);
        self.seed.push_entry(&mut self.buffer, self.end, self.header.durable, &view, crc);
        let added = self.rows.add(view.queue, IndexRow::of(&view, self.end));
        added.map_err(std::io::Error::other)?;
        if self.first_index.0 == 0 {
            self.first_index = view.index;
        }
        self.last_index = view.index;
        self.last = Last { term: view.term, stamp: view.stamp };
        self.end = self.written + self.buffer.len() as u32;
        match self.buffer.len() >= PIECE_BYTES {
            true => self.write(),
            false => Ok(()),
        }
    }

    fn write(&mut self) -> std::io::Result<()> {
        self.file.write_all_at(&self.buffer, u64::from(self.written))?;
        self.written = self.end;
        self.buffer.clear();
        Ok(())
    }

    /// Writes the rest and the header, and syncs the file.
    fn finish(mut self) -> std::io::Result<Self> {
        self.write()?;
        self.header.first_index = self.first_index;
        self.file.write_all_at(&self.header.encode(), 0)?;
        self.file.sync_data()?;
        Ok(self)
    }
}
