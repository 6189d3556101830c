//! Opening a log: which segments count, replay, torn tail or damage, and the fresh segment.
//!
//! One rule decides what a missing or broken piece means. The *proof* is the highest durable index
//! that any header or frame carries, wherever it lies. If the first entry that can't be read has an
//! index up to the proof, it was on the disk once: that is damage, and the log refuses to open. If
//! not, nobody was ever promised that it survives a power cut: that is a torn tail, and it is cut,
//! with everything behind it. Old files are never modified for that; the fresh segment's header
//! says where the part that counts ends.

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::types::{EntryIndex, Term};

use super::claim;
use super::entry::EntryView;
use super::error::LogError;
use super::format::*;
use super::frame::{Seed, used};
use super::frames::Frames;
use super::handle::{Beginning, Log};
use super::manifest::{self, Manifest};
use super::map::Map;
use super::options::LogOptions;
use super::replay::{
    ChainPlace, Indexed, Link, Recovered, Replay, Shelf, TornTail, Walk, framed_entry,
};
use super::room;
use super::segment::{FileKind, HeaderError, OpenSegment, Segment, SegmentHeader, id_in};
use super::shared::segment_bytes_for;
use super::table::{self, Sealed};
use super::vote;

/// A log that is being opened: first `replay`, then `start`.
#[derive(Debug)]
pub struct Recovery {
    dir: PathBuf,
    options: LogOptions,
    lock: File,
    /// The segments that count, oldest first.
    chain: Vec<Link>,
    /// Files behind the chain's end. They count only as evidence.
    beyond: Vec<Loose>,
    /// Index tables are not written.
    read_only: bool,
    /// Files of the ballast that are there.
    ballast: u32,
    manifest: Manifest,
    /// Files that do not count any more.
    leftovers: Vec<PathBuf>,
    spare: Option<Unused>,
    next_segment: u64,
    log_id: Option<[u8; 16]>,
    last_term: Term,
    /// Up to here all was synced, as the names of the checkpoints say.
    checkpointed: EntryIndex,
    /// Entries above are cut off by `start`.
    through: EntryIndex,
    replayed: Option<Replayed>,
}

/// A segment file before it is known whether it counts.
#[derive(Debug)]
struct Loose {
    id: u64,
    path: PathBuf,
    /// None for a file too short to be mapped.
    map: Option<Map>,
    header: Result<SegmentHeader, HeaderError>,
    /// The durable index of a header that is not that of the whole file.
    durable: EntryIndex,
}

/// A spare that a run before has prepared and not used.
#[derive(Debug)]
struct Unused {
    id: u64,
    path: PathBuf,
    bytes: usize,
}

#[derive(Debug)]
struct Replayed {
    recovered: Recovered,
    indexed: Indexed,
    /// Where the part that is kept as it lies ends; none if nothing is.
    end: Option<ChainPlace>,
    /// Entries behind `end`, which `start` writes once more.
    moved: VecDeque<(EntryIndex, ChainPlace)>,
    /// The term of the entry in front of those.
    entry_term: Term,
}

/// The part of a segment that stays.
pub(super) struct KeptPart<'a> {
    pub(super) header: SegmentHeader,
    pub(super) segment: &'a Segment,
    pub(super) end: u32,
}

/// Where a log that is damaged would be cut.
pub(super) struct Cut<'a> {
    pub(super) file: PathBuf,
    pub(super) position: u64,
    pub(super) reason: String,
    pub(super) last_kept: EntryIndex,
    /// The segment in which the cut lies, unless nothing of it is kept.
    pub(super) kept: Option<KeptPart<'a>>,
    /// Segments that go as a whole.
    pub(super) gone: Vec<&'a Segment>,
    /// Files behind the chain's end, which go too.
    pub(super) beyond: Vec<Frames<'a>>,
}

/// The files of a directory, by what they are.
struct Listed {
    /// The ids of segments that may belong to the chain, in order.
    segments: Vec<u64>,
    /// What compaction has replaced, or has left unfinished.
    leftovers: Vec<PathBuf>,
    /// The lowest id that no file has had.
    next_id: u64,
}

impl Listed {
    fn sort(dir: &Path, names: &[String], manifest: &Manifest) -> Self {
        let mut listed =
            Self { segments: Vec::new(), leftovers: Vec::new(), next_id: manifest.next_id.max(1) };
        let mut jobs = Vec::new();
        let mut tables = Vec::new();
        for name in names {
            if let Some(id) = FileKind::Segment.id_in(name) {
                listed.next_id = listed.next_id.max(id + 1);
                match id > manifest.base.id {
                    true => listed.segments.push(id),
                    false if manifest.names(FileKind::Segment, id) => {}
                    false => listed.leftovers.push(dir.join(name)),
                }
            } else if let Some(id) = FileKind::Jobs.id_in(name) {
                listed.next_id = listed.next_id.max(id + 1);
                match manifest.names(FileKind::Jobs, id) {
                    true => jobs.push(id),
                    false => listed.leftovers.push(dir.join(name)),
                }
            } else if let Some(id) = id_in(name, table::EXTENSION) {
                tables.push(id);
            } else if name == manifest::NEW_NAME || name == vote::NEW_NAME {
                listed.leftovers.push(dir.join(name));
            }
        }
        listed.segments.sort_unstable();
        for id in tables {
            let used = listed.segments.binary_search(&id).is_ok()
                || jobs.contains(&id)
                || manifest.names(FileKind::Segment, id);
            if !used {
                listed.leftovers.push(dir.join(table::file_name(id)));
            }
        }
        listed
    }
}

impl Recovery {
    /// Opens the log in `dir`, which must be there, to look into it. Nothing is changed by that.
    pub(super) fn look(dir: &Path, options: LogOptions) -> Result<Self, LogError> {
        let no_log = || LogError::NoLog { dir: dir.to_owned() };
        let names = options.files.list(dir).map_err(|error| {
            if error.kind() == io::ErrorKind::NotFound {
                return no_log();
            }
            LogError::io("listing", dir, error)
        })?;
        if !claim::is_log(&names) {
            return Err(no_log());
        }
        let recovery = Self::open(dir, options)?;
        Ok(Self { read_only: true, ..recovery })
    }

    /// From where on a look at all entries replays, if it may: from the log's beginning. Where that
    /// has moved and no checkpoint stands for what was before, a start has nothing to begin with.
    pub(super) fn beginning(&self) -> EntryIndex {
        self.manifest.base.index.min(self.checkpointed)
    }

    /// The last entry in front of the log's beginning: the least that a replay can begin after.
    pub fn base(&self) -> EntryIndex {
        self.manifest.base.index
    }

    /// Hands over each file that counts: its header, and where it ends if that is known.
    pub(super) fn files(
        &self,
        mut each: impl FnMut(&SegmentHeader, &Segment, Option<u32>) -> Result<(), LogError>,
    ) -> Result<(), LogError> {
        for old in &self.manifest.old {
            let (header, segment) = old.open(self.shelf(), self.log_id)?;
            each(&header, &segment, Some(old.extent.end))?;
        }
        let ends = self.chain.iter().skip(1).map(|link| Some(link.header.previous_end));
        for (Link { header, segment }, end) in self.chain.iter().zip(ends.chain([None])) {
            each(header, segment, end)?;
        }
        Ok(())
    }

    /// Where the log has to be cut so that it can be opened; none if it can be.
    pub(super) fn cut(&mut self) -> Result<Option<Cut<'_>>, LogError> {
        let base = self.manifest.base;
        let mut ignore = |_: &EntryView<'_>| Ok(());
        let (shelf, through) = (self.shelf(), self.through);
        let mut walk = Walk::new(&self.chain, shelf, &base, base.index, through, &mut ignore);
        walk.recovered.proved = self.checkpointed;
        let (place, reason) = walk.run()?;
        let Err(error) = self.refuse_damage(place, reason, &walk) else { return Ok(None) };
        let LogError::Damaged { file, position, reason } = error else { return Err(error) };
        let last_kept = EntryIndex(walk.expected - 1);
        let link = self.chain.get(place.link);
        let kept = link.filter(|_| place.position as usize > SEGMENT_HEADER_BYTES);
        let whole = usize::from(kept.is_some());
        let gone = self.chain.iter().skip(place.link + whole).map(|link| &*link.segment);
        Ok(Some(Cut {
            file,
            position,
            reason: reason.to_owned(),
            last_kept,
            kept: kept.map(|link| KeptPart {
                header: link.header,
                segment: &link.segment,
                end: place.position,
            }),
            gone: gone.collect(),
            beyond: self.beyond.iter().map(|loose| loose.frames(self.log_id)).collect(),
        }))
    }

    fn shelf(&self) -> Shelf<'_> {
        let files = &*self.options.files;
        Shelf { files, dir: &self.dir, read_only: self.read_only }
    }

    /// Opens the log in `dir`, creating the directory if need be, and takes its lock.
    ///
    /// # Errors
    /// `Locked`, `Io`, `Version`, `SegmentBytes`, or `Damaged` if the segments do not fit together.
    pub fn open(dir: &Path, options: LogOptions) -> Result<Self, LogError> {
        options.check()?;
        let files = &*options.files;
        files.create_dir(dir).map_err(|error| LogError::io("creating", dir, error))?;
        let lock_path = dir.join("lock");
        let lock = files.lock(&lock_path).map_err(|error| {
            if error.kind() == io::ErrorKind::WouldBlock {
                return LogError::Locked { dir: dir.to_owned() };
            }
            LogError::io("locking", &lock_path, error)
        })?;
        let names = files.list(dir).map_err(|error| LogError::io("listing", dir, error))?;
        let (manifest, log_id) = match Manifest::load(files, dir)? {
            Some((manifest, log_id)) => (manifest, Some(log_id)),
            None => (Manifest::default(), None),
        };
        let Listed { segments, mut leftovers, next_id } = Listed::sort(dir, &names, &manifest);
        let (ballast, no_ballast) = room::ballast_in(&options, dir, &names);
        leftovers.extend(no_ballast);
        let mut found = Vec::with_capacity(segments.len());
        for id in segments {
            found.push(Loose::open(&options, dir, id)?);
        }
        let mut recovery = Self {
            dir: dir.to_owned(),
            lock,
            chain: Vec::new(),
            beyond: Vec::new(),
            last_term: manifest.base.last.term,
            manifest,
            read_only: false,
            ballast,
            leftovers,
            spare: None,
            next_segment: next_id,
            log_id,
            checkpointed: claim::checkpointed(&names),
            through: EntryIndex(u64::MAX),
            replayed: None,
            options,
        };
        recovery.check_identity(&mut found)?;
        recovery.take_spare(&mut found)?;
        recovery.resolve_chain(found)?;
        Ok(recovery)
    }

    /// What tells this log from all others; none if it is new.
    pub fn known_log_id(&self) -> Option<[u8; 16]> {
        self.log_id
    }

    /// Has the log end with the entry `through`: a replay stops there, and `start` cuts off what
    /// follows, all at once and durably. For a replica whose last entries were never agreed on.
    /// Checkpoints above must be gone before the start, as they would be taken for damage.
    ///
    /// # Errors
    /// `Purged` if the log begins above.
    pub fn truncate_after(&mut self, through: EntryIndex) -> Result<(), LogError> {
        let base = self.manifest.base.index;
        if through < base {
            return Err(LogError::Purged { base, asked: through });
        }
        (self.through, self.replayed) = (through, None);
        Ok(())
    }

    /// Hands every entry above `after` to `each`, in the order of their indexes. For those up to
    /// `after` a checkpoint stands, before which they were synced; 0 for none.
    ///
    /// # Errors
    /// `Damaged` with file and position, also if the log ends below `after`; `Purged` if it begins
    /// above; `Replay` with what `each` returned, or `Io`.
    pub fn replay(
        &mut self,
        after: EntryIndex,
        each: &mut Replay<'_>,
    ) -> Result<Recovered, LogError> {
        let base = self.manifest.base;
        if after < base.index {
            return Err(LogError::Purged { base: base.index, asked: after });
        }
        if after > self.through {
            return Err(LogError::damaged(&self.dir, 0, "a checkpoint is above the log's end"));
        }
        let shelf = self.shelf();
        let mut walk = Walk::new(&self.chain, shelf, &base, after, self.through, each);
        walk.recovered.proved = after.max(self.checkpointed);
        for old in &self.manifest.old {
            walk.indexed.add_old(shelf, self.log_id, old)?;
        }
        let (mut place, mut reason) = walk.run()?;
        let cut = walk.is_through();
        if !cut {
            self.refuse_damage(place, reason, &walk)?;
        }
        let mut recovered = walk.recovered.clone();
        if let Some(torn_at) = walk.cut_torn_bodies() {
            (place, reason) = (torn_at, "the bodies of an entry are not whole");
        }
        let entry_term = walk.recovered.last_term;
        walk.deliver_rest()?;
        let Walk { indexed, end, waiting: moved, recovered: last, .. } = walk;
        recovered.last_index = last.last_index;
        recovered.last_stamp = last.last_stamp;
        recovered.last_term = last.last_term.max(self.last_term);
        recovered.torn = if cut { None } else { self.torn_tail(place, reason) };
        recovered.proved = recovered.proved.min(recovered.last_index);
        if let Some(TornTail { file, position, bytes, reason }) = &recovered.torn {
            let file = file.display();
            tracing::warn!(%file, position, bytes, reason, "cut a torn tail that was never synced");
        }
        self.replayed =
            Some(Replayed { recovered: recovered.clone(), indexed, end, moved, entry_term });
        Ok(recovered)
    }

    /// Opens a fresh segment for `term`, writes into it what may not have been synced, syncs it,
    /// and removes the files that no longer count. Replays first if nobody has.
    ///
    /// # Errors
    /// `TermTooLow`, `NoSpace`, `Io`, and those of `replay`. The log can then be opened again.
    pub fn start(mut self, term: Term) -> Result<Log, LogError> {
        let replayed = match self.replayed.take() {
            Some(replayed) => replayed,
            None => {
                self.replay(self.manifest.base.index, &mut |_| Ok(()))?;
                return self.start(term);
            }
        };
        let last = replayed.recovered.last_term;
        if term <= last {
            return Err(LogError::TermTooLow { given: term, last });
        }
        let log_id = self.log_id()?;
        let moved_bytes = self.bytes_of(&replayed.moved)?;
        let (fresh, next_segment) = self.fresh_segment(log_id, moved_bytes)?;
        let first_index =
            EntryIndex(replayed.recovered.last_index.0 + 1 - replayed.moved.len() as u64);
        let (previous, previous_end, kept) = self.predecessor(replayed.end);
        let header = SegmentHeader {
            kind: FileKind::Segment,
            id: fresh.segment.id,
            log_id,
            term,
            first_index,
            previous,
            previous_end,
            durable: replayed.recovered.last_index,
            wall_ms: self.options.files.wall_ms(),
            size: fresh.bytes(),
        };
        let mut indexed = replayed.indexed;
        let sealed = self.seal(&mut indexed, kept, &header)?;
        let Self { dir, options, lock, chain, beyond, ballast, manifest, leftovers, .. } = self;
        let fresh = Arc::new(fresh);
        let log = Log::begin(Beginning {
            dir,
            options,
            lock,
            fresh: Arc::clone(&fresh),
            header,
            next_segment,
            index: indexed.index,
            entry_term: replayed.entry_term,
            ballast,
            manifest,
            old: indexed.old,
            sealed,
        })?;
        for (_, ChainPlace { link, position }) in &replayed.moved {
            let Some(link) = chain.get(*link) else {
                continue;
            };
            let framed = framed_entry(&link.segment, *position)?;
            log.append_again(framed.view, framed.bodies_crc)?;
        }
        log.finish_start(&fresh, &header)?;
        let gone = chain.iter().skip(kept).flat_map(|link| {
            let table = table::file_name(link.segment.id);
            [link.segment.path.clone(), link.segment.path.with_file_name(table)]
        });
        let gone = gone.chain(beyond.into_iter().map(|loose| loose.path)).chain(leftovers);
        log.remove(&gone.collect::<Vec<_>>())?;
        log.started();
        Ok(log)
    }

    /// Checks that all headers are of one log and of this version, and notes id and highest term.
    fn check_identity(&mut self, found: &mut [Loose]) -> Result<(), LogError> {
        for loose in found {
            match &loose.header {
                Ok(header) => {
                    if *self.log_id.get_or_insert(header.log_id) != header.log_id {
                        let reason = "the segment belongs to another log";
                        return Err(LogError::damaged(&loose.path, 0, reason));
                    }
                    if header.id != loose.id {
                        let reason = "the segment id in the header is not the one in the name";
                        return Err(LogError::damaged(&loose.path, 0, reason));
                    }
                    self.last_term = self.last_term.max(header.term);
                    // A power cut may have kept the header and not the size, as neither was synced.
                    // What was synced, it still proves.
                    if loose.bytes().len() != header.size as usize {
                        loose.durable = header.durable;
                        let reason = "the file has not the size that its header says";
                        loose.header = Err(HeaderError::Invalid(reason));
                    }
                }
                Err(HeaderError::Version(found)) => {
                    return Err(LogError::Version {
                        file: loose.path.clone(),
                        found: *found,
                        supported: FORMAT_VERSION,
                    });
                }
                Err(HeaderError::Invalid(_)) => {}
            }
        }
        Ok(())
    }

    /// Takes the newest file for the fresh segment if it is an unused spare of the right size. One
    /// of another size would only take room.
    fn take_spare(&mut self, found: &mut Vec<Loose>) -> Result<(), LogError> {
        let Some(last) = found.last().filter(|last| last.header.is_err()) else {
            return Ok(());
        };
        last.populate()?;
        if let Some(Loose { id, path, map, .. }) = found.pop_if(|last| used(last.bytes()) == 0) {
            let bytes = map.map_or(0, |map| map.len());
            self.spare = Some(Unused { id, path, bytes });
        }
        Ok(())
    }

    /// Follows the headers from the newest segment to the log's beginning. Where one is missing on
    /// the way, everything from there on lies beyond the chain's end, and the search begins again
    /// before it.
    fn resolve_chain(&mut self, mut found: Vec<Loose>) -> Result<(), LogError> {
        let base = self.manifest.base;
        let mut end = u64::MAX;
        let mut wanted = Vec::new();
        while let Some(tip) =
            found.iter().rev().find(|loose| loose.id < end && loose.header.is_ok())
        {
            wanted.clear();
            let mut next = tip.id;
            while next != base.id {
                let at = found.binary_search_by_key(&next, |loose| loose.id).ok();
                let header = at.and_then(|at| found.get(at)?.header.as_ref().ok());
                let Some(header) = header else { break };
                wanted.push(next);
                next = header.previous;
            }
            if next == base.id {
                break;
            }
            wanted.clear();
            end = next;
        }
        let tip = wanted.first().copied().unwrap_or(0);
        for loose in found.drain(..) {
            match (loose.header, loose.map) {
                (Ok(header), Some(map)) if wanted.contains(&loose.id) => {
                    let segment = Segment::cold(header.log_id, loose.id, loose.path, map);
                    self.chain.push(Link { header, segment: Arc::new(segment) });
                }
                (header, map) if loose.id > tip => {
                    self.beyond.push(Loose { header, map, ..loose });
                }
                _ => self.leftovers.push(loose.path),
            }
        }
        match self.chain.first() {
            Some(Link { header, segment }) if header.previous_end != base.end => {
                Err(segment.damaged(0, "the segment does not go on where the manifest says"))
            }
            _ => Ok(()),
        }
    }

    /// Refuses if anything proves that the entry after the last one read was once synced.
    fn refuse_damage(
        &self,
        stop: ChainPlace,
        reason: &'static str,
        walk: &Walk<'_, '_>,
    ) -> Result<(), LogError> {
        let expected = EntryIndex(walk.expected);
        for link in self.chain.iter().skip(stop.link) {
            link.segment.warm(0, link.segment.map.len())?;
        }
        self.beyond.iter().try_for_each(Loose::populate)?;
        let chain = self.chain.iter().enumerate().skip(stop.link);
        let proved = walk.recovered.proved >= expected
            || chain.clone().any(|(number, link)| match number == stop.link {
                true => proves(&link.segment, stop.position, expected),
                false => link.header.durable >= expected || proves(&link.segment, 0, expected),
            })
            || self.beyond.iter().any(|loose| loose.proves(self.log_id, expected));
        if !proved {
            return Ok(());
        }
        // Where the chain's last segment simply ends, it is its successor that is missing.
        Err(match (self.chain.get(stop.link), self.beyond.first()) {
            (Some(link), Some(next)) if used(link.segment.bytes_from(stop.position)) == 0 => {
                next.damaged()
            }
            (None, Some(next)) => next.damaged(),
            (Some(link), None) if used(link.segment.bytes_from(stop.position)) == 0 => {
                let reason = "the log ends here, but more of it was synced: its end is missing";
                link.segment.damaged(stop.position, reason)
            }
            (Some(link), _) => link.segment.damaged(stop.position, reason),
            (None, None) => LogError::damaged(&self.dir, 0, "the segments are missing"),
        })
    }

    /// Describes what lies behind the place where the log ends, if anything does.
    fn torn_tail(&self, end: ChainPlace, reason: &'static str) -> Option<TornTail> {
        let rest = self.chain.iter().enumerate().skip(end.link).map(|(number, link)| {
            let from = if number == end.link { end.position } else { 0 };
            used(link.segment.bytes_from(from))
        });
        let bytes = rest.sum::<usize>()
            + self.beyond.iter().map(|loose| used(loose.bytes())).sum::<usize>();
        let (file, position) = match self.chain.get(end.link) {
            Some(link) => (&link.segment.path, u64::from(end.position)),
            None => (&self.beyond.first()?.path, 0),
        };
        (bytes > 0).then(|| TornTail { file: file.clone(), position, bytes: bytes as u64, reason })
    }

    /// The id of the log, drawn now if it is a new one.
    fn log_id(&self) -> Result<[u8; 16], LogError> {
        let draw = || {
            let drawn = self.options.files.random_id();
            drawn.map_err(|error| LogError::io("drawing a log id for", &self.dir, error))
        };
        self.log_id.map_or_else(draw, Ok)
    }

    /// The bytes that entries take which `start` writes once more.
    fn bytes_of(&self, moved: &VecDeque<(EntryIndex, ChainPlace)>) -> Result<u64, LogError> {
        let mut bytes = 0;
        for (_, ChainPlace { link, position }) in moved {
            if let Some(link) = self.chain.get(*link) {
                let view = framed_entry(&link.segment, *position)?.view;
                bytes += frame_bytes(view.encoded_bytes() as usize) as u64;
            }
        }
        Ok(bytes)
    }

    /// The segment for new entries, with room for `moved_bytes` of old ones as far as one may have
    /// it, and the id for the one after it.
    fn fresh_segment(
        &mut self,
        log_id: [u8; 16],
        moved_bytes: u64,
    ) -> Result<(OpenSegment, u64), LogError> {
        let options = &self.options;
        let files = &*options.files;
        let moved = u32::try_from(moved_bytes).map_or(u32::MAX / 2, |bytes| bytes.min(1 << 30));
        let bytes = options.segment_bytes_first().max(segment_bytes_for(moved));
        let bytes = bytes.min(options.segment_bytes);
        match self.spare.take() {
            Some(Unused { id, path, bytes: there }) if there == bytes as usize => {
                let opened = files.reuse(&path);
                let file = opened.map_err(|error| LogError::io("opening", &path, error))?;
                return Ok((OpenSegment::new(file, path, log_id, id)?, self.next_segment));
            }
            // Its room may be needed for the one of the right size.
            Some(Unused { path, .. }) => {
                files.remove(&path).map_err(|error| LogError::io("removing", &path, error))?;
            }
            None => {}
        }
        let id = self.next_segment;
        let mut made = OpenSegment::create(options, &self.dir, log_id, id, bytes);
        while matches!(made, Err(LogError::NoSpace { .. })) && self.ballast > 0 {
            room::remove_ballast(files, &self.dir, self.ballast)
                .map_err(|error| LogError::io("removing the ballast in", &self.dir, error))?;
            self.ballast -= 1;
            made = OpenSegment::create(options, &self.dir, log_id, id, bytes);
        }
        Ok((made?, id + 1))
    }

    /// The first `kept` segments of the chain, which the one with the header `fresh` continues.
    /// Makes the index tables that the replay has not made.
    fn seal(
        &self,
        indexed: &mut Indexed,
        kept: usize,
        fresh: &SegmentHeader,
    ) -> Result<Vec<Sealed>, LogError> {
        let shelf = self.shelf();
        let chain = self.chain.get(..kept).unwrap_or_default();
        let successors = chain.iter().skip(1).map(|link| &link.header).chain([fresh]);
        for (link, next) in chain.iter().zip(successors).skip(indexed.tables.len()) {
            indexed.finish_segment(shelf, &link.segment, link.extent(next))?;
        }
        let sealed = indexed.tables.iter().map(|table| Sealed {
            segment: Arc::clone(&table.segment),
            extent: table.extent,
            last: table.last(),
            table: Some(Arc::clone(table)),
        });
        Ok(sealed.collect())
    }

    /// What the fresh segment continues: the previous segment's id, its end, and how many
    /// segments of the chain are kept. One of which nothing is kept is passed over, so that starts
    /// without appends in between do not add up.
    fn predecessor(&self, end: Option<ChainPlace>) -> (u64, u32, usize) {
        let base = self.manifest.base;
        let last = end.and_then(|end| Some((end, self.chain.get(end.link)?)));
        last.map_or((base.id, base.end, 0), |(end, link)| {
            (link.segment.id, end.position, end.link + 1)
        })
    }
}

impl Loose {
    fn open(options: &LogOptions, dir: &Path, id: u64) -> Result<Self, LogError> {
        let path = dir.join(FileKind::Segment.file_name(id));
        let io = |operation, error| LogError::io(operation, &path, error);
        let file = options.files.open(&path).map_err(|error| io("opening", error))?;
        let bytes = file.metadata().map_err(|error| io("reading", error))?.len();
        if bytes == 0 {
            let header = Err(HeaderError::Invalid("the file is empty"));
            return Ok(Self { id, path, map: None, header, durable: EntryIndex(0) });
        }
        let map = Map::whole(&file).map_err(|error| io("mapping", error))?;
        map.populate_range(0, SEGMENT_HEADER_BYTES).map_err(|error| io("reading", error))?;
        let page = map.get(0, SEGMENT_HEADER_BYTES).unwrap_or_default();
        let header = SegmentHeader::decode(FileKind::Segment, page);
        Ok(Self { id, path, map: Some(map), header, durable: EntryIndex(0) })
    }

    fn bytes(&self) -> &[u8] {
        self.map.as_ref().map_or(&[], Map::bytes)
    }

    fn frames(&self, log_id: Option<[u8; 16]>) -> Frames<'_> {
        let seed = Seed::new(log_id.unwrap_or_default(), self.id);
        Frames { path: &self.path, seed, bytes: self.bytes() }
    }

    /// Brings the file into memory, so that a bad disk is an error.
    fn populate(&self) -> Result<(), LogError> {
        let populated = self.map.as_ref().map_or(Ok(()), |map| map.populate_range(0, map.len()));
        populated.map_err(|error| LogError::io("reading", &self.path, error))
    }

    /// Whether anything in the file says that the entry `index` was synced.
    fn proves(&self, log_id: Option<[u8; 16]>, index: EntryIndex) -> bool {
        let in_header = self.header.as_ref().is_ok_and(|header| header.durable >= index);
        in_header
            || self.durable >= index
            || match log_id {
                Some(id) => Seed::new(id, self.id).proof_in(self.bytes(), 0, index).is_some(),
                // The very first header of a log is synced before anything follows it.
                None => used(self.bytes()) > SEGMENT_HEADER_BYTES,
            }
    }

    fn damaged(&self) -> LogError {
        let reason = match self.header {
            Err(HeaderError::Invalid(reason)) => reason,
            _ => "the segment before it is missing or has no valid header",
        };
        LogError::damaged(&self.path, 0, reason)
    }
}

/// Whether a frame from `position` on says that the entry `index` was synced.
fn proves(segment: &Segment, position: u32, index: EntryIndex) -> bool {
    segment.seed.proof_in(segment.bytes_from(position), position, index).is_some()
}
