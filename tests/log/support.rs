//! Entries to append, a seeded generator, and a disk that can lose power.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::thread;

use joblog::log::{
    DataFile, EntryView, Files, Log, LogError, LogOptions, Recovered, Recovery, Space, SystemFiles,
};
use joblog::types::{EntryIndex, Offset, QueueId, Stamp, Term};

pub(crate) const SEGMENT_BYTES: u32 = 1 << 20;

/// SplitMix64: small, seeded, good enough to choose with.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    pub(crate) fn bytes(&mut self, len: u64) -> Vec<u8> {
        let words = (0..len.div_ceil(8)).map(|_| self.next().to_le_bytes());
        let mut bytes = words.collect::<Vec<_>>().concat();
        bytes.truncate(len as usize);
        bytes
    }
}

/// An entry that owns its parts, to compare with what comes back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) queue: u32,
    pub(crate) base_offset: u64,
    pub(crate) bodies: Vec<Vec<u8>>,
    pub(crate) facts: Vec<u8>,
    pub(crate) wall_ms: u64,
    /// The producer gave wrong sums.
    pub(crate) wrong_sums: bool,
}

impl Entry {
    pub(crate) fn job(queue: u32, offset: u64, body: &[u8]) -> Self {
        let bodies = vec![body.to_vec()];
        let facts = Vec::new();
        Self { queue, base_offset: offset, bodies, facts, wall_ms: 1, wrong_sums: false }
    }

    pub(crate) fn facts(facts: &[u8]) -> Self {
        let facts = facts.to_vec();
        let bodies = Vec::new();
        Self { queue: 0, base_offset: 0, bodies, facts, wall_ms: 2, wrong_sums: false }
    }

    pub(crate) fn table(&self) -> Vec<u8> {
        let mut table = Vec::new();
        let mut end = 0;
        for body in &self.bodies {
            end += body.len() as u32;
            let crc = crc32fast::hash(body) ^ u32::from(self.wrong_sums);
            table.extend(end.to_le_bytes());
            table.extend((body.len() as u32 % 7).to_le_bytes());
            table.extend(crc.to_le_bytes());
        }
        table
    }

    pub(crate) fn append(&self, log: &Log) -> Result<EntryIndex, LogError> {
        log.append(&EntryView {
            queue: QueueId(self.queue),
            base_offset: Offset(self.base_offset),
            count: self.bodies.len() as u32,
            table: &self.table(),
            facts: &self.facts,
            bodies: &self.bodies.concat(),
            stamp: Stamp { wall_ms: self.wall_ms, log_ms: self.wall_ms * 2 },
            producer: [self.queue as u8; 16],
            sequence: self.base_offset,
            ..EntryView::default()
        })
    }

    pub(crate) fn of(view: &EntryView<'_>) -> Self {
        assert_eq!(view.stamp.log_ms, view.stamp.wall_ms * 2);
        assert_eq!((view.producer, view.sequence), ([view.queue.0 as u8; 16], view.base_offset.0));
        Self {
            queue: view.queue.0,
            base_offset: view.base_offset.0,
            bodies: view.jobs().map(|job| job.body.to_vec()).collect(),
            facts: view.facts.to_vec(),
            wall_ms: view.stamp.wall_ms,
            wrong_sums: view.jobs().any(|job| !job.verify()),
        }
    }

    /// Compares the entry's jobs with what the log finds and reads.
    pub(crate) fn assert_readable(&self, log: &Log) {
        for (ordinal, body) in self.bodies.iter().enumerate() {
            let (queue, offset) = (QueueId(self.queue), Offset(self.base_offset + ordinal as u64));
            assert_eq!(log.find(queue, offset).map(|job| job.bytes), Some(body.len() as u32));
            let location = log.locate(queue, offset).expect("the job is indexed");
            let job = location.read().unwrap();
            assert_eq!((job.offset, job.body), (offset, &body[..]));
            assert_eq!(job.stamp.wall_ms, self.wall_ms);
            assert_eq!(job.flags, body.len() as u32 % 7);
            assert_eq!(job.verify(), !self.wrong_sums);
            assert_eq!(location.body().unwrap(), &body[..]);
        }
    }
}

/// Random entries over a few queues, with offsets that go up.
#[derive(Clone)]
pub(crate) struct Writer {
    next_offset: BTreeMap<u32, u64>,
    clock: u64,
}

impl Writer {
    pub(crate) fn new(entries: &[Entry]) -> Self {
        let mut writer = Self { next_offset: BTreeMap::new(), clock: entries.len() as u64 };
        for entry in entries.iter().filter(|entry| entry.queue > 0) {
            let next = entry.base_offset + entry.bodies.len() as u64;
            writer.next_offset.insert(entry.queue, next);
        }
        writer
    }

    pub(crate) fn entry(&mut self, random: &mut Random, body_max: u64) -> Entry {
        self.clock += 1;
        let facts_len = random.below(3) * random.below(60);
        let mut entry = Entry::facts(&random.bytes(facts_len));
        entry.wall_ms = self.clock;
        if random.below(4) > 0 {
            entry.queue = 1 + random.below(3) as u32;
            let next = self.next_offset.entry(entry.queue).or_insert(0);
            // Now and then a queue leaves offsets out.
            entry.base_offset = *next + random.below(8) / 7 * 5;
            for _ in 0..=random.below(5) {
                let len = random.below(body_max);
                entry.bodies.push(random.bytes(len));
            }
            entry.wrong_sums = random.below(10) == 0;
            *next = entry.base_offset + entry.bodies.len() as u64;
        }
        entry
    }
}

/// Small segments on a disk that takes a sync's time for granted.
pub(crate) fn options() -> LogOptions {
    Disk::default().options()
}

/// Replays the log and returns what it holds.
pub(crate) fn replay(
    dir: &Path,
    options: LogOptions,
) -> Result<(Recovery, Recovered, Vec<Entry>), LogError> {
    let mut recovery = Recovery::open(dir, options)?;
    let mut entries = Vec::new();
    let recovered = recovery.replay(EntryIndex(0), &mut |view| {
        entries.push(Entry::of(view));
        assert_eq!(view.index.0, entries.len() as u64);
        Ok(())
    })?;
    assert_eq!(recovered.last_index.0, entries.len() as u64);
    Ok((recovery, recovered, entries))
}

/// Opens the log under the next term and returns it with what it held.
pub(crate) fn open(dir: &Path) -> (Log, Recovered, Vec<Entry>) {
    open_with(dir, options())
}

pub(crate) fn open_with(dir: &Path, options: LogOptions) -> (Log, Recovered, Vec<Entry>) {
    let (recovery, recovered, entries) = replay(dir, options).unwrap();
    let log = recovery.start(Term(recovered.last_term.0 + 1)).unwrap();
    (log, recovered, entries)
}

/// The segment files, oldest first.
pub(crate) fn segments(dir: &Path) -> Vec<PathBuf> {
    let mut paths: Vec<_> = fs::read_dir(dir)
        .unwrap()
        .map(|item| item.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "segment"))
        .collect();
    paths.sort();
    paths
}

/// The segments that are in use: those whose first byte is not zero.
pub(crate) fn used_segments(dir: &Path) -> Vec<PathBuf> {
    let used = |path: &PathBuf| fs::read(path).unwrap().first() != Some(&0);
    segments(dir).into_iter().filter(used).collect()
}

/// A file system over a real directory that remembers what a power cut could have left.
///
/// Fault model: of the writes since a file's last sync, any subset of 512-byte sectors may have
/// reached the disk, in any order. A created, renamed or removed name may or may not be as it was
/// made until the directory is synced; a name that was taken over by a rename has either the old
/// file or the new one. The size of a new file is durable with its first sync. What was synced is
/// there. After a failed sync the pages count as clean, so that what was not written by then never
/// is, though it can be read until the power fails. A call that fails may have done its work, or a
/// part of it, or nothing.
///
/// The directory and the disk go on over a process that is killed: only `leave` takes what was not
/// synced away.
#[derive(Clone, Debug, Default)]
pub(crate) struct Disk(Arc<Mutex<State>>);

#[derive(Clone, Debug, Default)]
struct State {
    files: BTreeMap<PathBuf, Kept>,
    /// Operations until the power fails.
    until_cut: Option<u64>,
    at_cut: Option<BTreeMap<PathBuf, Kept>>,
    fail: Fail,
    /// One operation that fails: which one from now on, and how.
    failing: Option<(u64, io::ErrorKind)>,
    failed: bool,
    /// Chooses how much of a failed call was done.
    chance: u64,
    capacity: Option<u64>,
    /// Print each call.
    trace: bool,
}

/// What is to go wrong without a power cut.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Fail {
    #[default]
    Nothing,
    Write,
    Sync,
    Create,
    Rename,
    Remove,
    SyncDir,
}

#[derive(Clone, Debug)]
struct Kept {
    /// What a sync has made durable.
    durable: Vec<u8>,
    /// The size with which it was made, which is not durable before that.
    len: usize,
    unsynced: Vec<(u64, Vec<u8>)>,
    name_is_durable: bool,
    removed: bool,
    /// What the name stood for before, if a rename took it over and that is not durable yet.
    before: Option<Box<Self>>,
}

impl Kept {
    fn new(durable: Vec<u8>, name_is_durable: bool) -> Self {
        let len = durable.len();
        Self { durable, len, unsynced: vec![], name_is_durable, removed: false, before: None }
    }

    /// What a power cut leaves of the contents.
    fn left(&self, random: &mut Random, sector_kept_of_4: u64) -> Vec<u8> {
        let mut bytes = self.durable.clone();
        if bytes.len() < self.len && random.below(4) < sector_kept_of_4 {
            bytes.resize(self.len, 0);
        }
        for (position, sector) in &self.unsynced {
            if random.below(4) < sector_kept_of_4 {
                put(&mut bytes, *position, sector);
            }
        }
        bytes
    }
}

impl State {
    fn chance(&mut self) -> u64 {
        let mut random = Random(self.chance);
        self.chance = random.next();
        random.next()
    }

    /// Whether this operation is to fail.
    fn fails(&mut self, kind: Fail) -> Option<io::Error> {
        if self.fail == kind {
            return Some(match kind {
                Fail::Create => io::ErrorKind::StorageFull.into(),
                _ => io::Error::other("injected"),
            });
        }
        match &mut self.failing {
            Some((0, error)) => {
                let error = io::Error::new(*error, format!("injected at {kind:?}"));
                (self.failing, self.failed) = (None, true);
                self.note("which fails");
                Some(error)
            }
            Some((left, _)) => {
                *left -= 1;
                None
            }
            None => None,
        }
    }

    /// As `fails`, for calls that are done or not: an error ends it before it has done anything.
    fn fails_before(&mut self, kind: Fail) -> io::Result<Option<io::Error>> {
        match self.fails(kind) {
            Some(failure) if self.chance().is_multiple_of(2) => Err(failure),
            other => Ok(other),
        }
    }

    fn note(&self, text: &str) {
        if self.trace {
            eprintln!("{text}");
        }
    }

    fn used(&self) -> u64 {
        let files = self.files.values().filter(|kept| !kept.removed);
        files.map(|kept| kept.durable.len().max(kept.len) as u64).sum()
    }

    fn make_names_durable(&mut self, dir: &Path) {
        self.files.retain(|path, kept| path.parent() != Some(dir) || !kept.removed);
        for kept in self.files.values_mut() {
            (kept.name_is_durable, kept.before) = (true, None);
        }
    }
}

impl Disk {
    /// A disk with the files of `dir`, all durable.
    pub(crate) fn over(dir: &Path) -> Self {
        let disk = Self::default();
        let paths = fs::read_dir(dir).unwrap().map(|item| item.unwrap().path());
        for path in paths.filter(|path| !path.ends_with("lock")) {
            let durable = fs::read(&path).unwrap();
            disk.0.lock().unwrap().files.insert(path, Kept::new(durable, true));
        }
        disk
    }

    pub(crate) fn options(&self) -> LogOptions {
        self.options_with(SEGMENT_BYTES)
    }

    pub(crate) fn options_with(&self, segment_bytes: u32) -> LogOptions {
        let files = Arc::new(self.clone());
        LogOptions { segment_bytes, prefill: false, free_bytes_min: None, files }
    }

    /// Has each call be printed from now on.
    pub(crate) fn trace(&self, trace: bool) {
        self.0.lock().unwrap().trace = trace;
    }

    pub(crate) fn cut_power_after(&self, operations: u64) {
        self.0.lock().unwrap().until_cut = Some(operations);
    }

    pub(crate) fn is_cut(&self) -> bool {
        self.0.lock().unwrap().at_cut.is_some()
    }

    pub(crate) fn fail(&self, fail: Fail) {
        self.0.lock().unwrap().fail = fail;
    }

    /// Has the operation fail that comes after so many others.
    pub(crate) fn fail_after(&self, operations: u64, kind: io::ErrorKind) {
        let mut state = self.0.lock().unwrap();
        (state.failing, state.failed) = (Some((operations, kind)), false);
    }

    /// Whether something has failed since `fail_after`.
    pub(crate) fn has_failed(&self) -> bool {
        self.0.lock().unwrap().failed
    }

    /// Lets nothing fail any more. Whether something had.
    pub(crate) fn heal(&self) -> bool {
        let mut state = self.0.lock().unwrap();
        state.failing = None;
        std::mem::take(&mut state.failed)
    }

    /// Lets the files have so many bytes in all.
    pub(crate) fn hold(&self, bytes: Option<u64>) {
        self.0.lock().unwrap().capacity = bytes;
    }

    /// Puts into `dir` what the power cut (now, if there was none) has left.
    pub(crate) fn leave(&self, dir: &Path, random: &mut Random) {
        let state = self.0.lock().unwrap();
        let sector_kept_of_4 = random.below(5);
        for (path, kept) in state.at_cut.as_ref().unwrap_or(&state.files) {
            let mut kept = kept;
            if !kept.name_is_durable && random.below(2) == 0 {
                match &kept.before {
                    Some(before) => kept = before,
                    None => continue,
                }
            }
            if kept.removed && random.below(2) == 0 {
                continue;
            }
            let bytes = kept.left(random, sector_kept_of_4);
            // Most of a file is zeros, which need not be written.
            let used = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
            let file = File::create(dir.join(path.file_name().unwrap())).unwrap();
            file.write_all_at(&bytes[..used], 0).unwrap();
            file.set_len(bytes.len() as u64).unwrap();
        }
    }

    fn step<T>(&self, call: &str, path: &Path, act: impl FnOnce(&mut State) -> T) -> T {
        let mut state = self.0.lock().unwrap();
        if state.trace {
            let thread = thread::current();
            let thread = thread.name().unwrap_or("test");
            eprintln!("{thread}: {call} {:?}", path.file_name().unwrap());
        }
        match state.until_cut {
            Some(0) => {
                state.note("the power fails");
                state.at_cut = Some(state.files.clone());
                state.until_cut = None;
            }
            Some(left) => state.until_cut = Some(left - 1),
            None => {}
        }
        act(&mut state)
    }

    fn file(&self, path: &Path, file: Box<dyn DataFile>) -> Box<dyn DataFile> {
        Box::new(DiskFile { disk: self.clone(), path: path.to_owned(), file })
    }
}

impl Files for Disk {
    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        SystemFiles.create_dir(dir)
    }

    fn lock(&self, path: &Path) -> io::Result<File> {
        SystemFiles.lock(path)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        SystemFiles.list(dir)
    }

    fn open(&self, path: &Path) -> io::Result<File> {
        SystemFiles.open(path)
    }

    fn create(&self, path: &Path, bytes: u32) -> io::Result<Box<dyn DataFile>> {
        self.step("create", path, |state| {
            let failure = state.fails_before(Fail::Create)?;
            if state.capacity.is_some_and(|capacity| state.used() + u64::from(bytes) > capacity) {
                return Err(io::ErrorKind::StorageFull.into());
            }
            let file = OpenOptions::new().read(true).write(true).create_new(true).open(path)?;
            let bytes = if failure.is_some() { 0 } else { bytes };
            file.set_len(u64::from(bytes))?;
            let before = state.files.remove(path).filter(|kept| kept.name_is_durable);
            let (len, before) = (bytes as usize, before.map(Box::new));
            let kept = Kept { len, before, ..Kept::new(vec![], false) };
            state.files.insert(path.to_owned(), kept);
            failure.map_or_else(|| Ok(self.file(path, Box::new(file))), Err)
        })
    }

    fn create_growing(&self, path: &Path) -> io::Result<Box<dyn DataFile>> {
        self.step("create growing", path, |state| {
            if let Some(failure) = state.fails(Fail::Create) {
                return Err(failure);
            }
            let file = SystemFiles.create_growing(path)?;
            state.files.insert(path.to_owned(), Kept::new(vec![], false));
            Ok(self.file(path, file))
        })
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.step("rename", to, |state| {
            let failure = state.fails_before(Fail::Rename)?;
            SystemFiles.rename(from, to)?;
            let before = state.files.remove(to).filter(|kept| !kept.removed).map(|kept| {
                match kept.name_is_durable {
                    true => Some(Box::new(kept)),
                    // Neither has the disk seen this name yet.
                    false => kept.before,
                }
            });
            if let Some(kept) = state.files.get_mut(from) {
                let before = before.flatten();
                let renamed =
                    Kept { name_is_durable: false, removed: false, before, ..kept.clone() };
                kept.removed = true;
                state.files.insert(to.to_owned(), renamed);
            }
            failure.map_or(Ok(()), Err)
        })
    }

    fn reuse(&self, path: &Path) -> io::Result<Box<dyn DataFile>> {
        let file = SystemFiles.reuse(path)?;
        let durable = fs::read(path)?;
        self.step("reuse", path, |state| {
            state.files.entry(path.to_owned()).or_insert_with(|| Kept::new(durable, true));
        });
        Ok(self.file(path, file))
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.step("remove", path, |state| {
            let failure = state.fails_before(Fail::Remove)?;
            SystemFiles.remove(path)?;
            if let Some(kept) = state.files.get_mut(path) {
                kept.removed = true;
            }
            failure.map_or(Ok(()), Err)
        })
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.step("sync dir", dir, |state| match state.fails(Fail::SyncDir) {
            Some(failure) => Err(failure),
            None => {
                state.make_names_durable(dir);
                Ok(())
            }
        })
    }

    fn space(&self, _: &Path) -> io::Result<Space> {
        let state = self.0.lock().unwrap();
        let total_bytes = state.capacity.unwrap_or(1 << 40);
        Ok(Space { free_bytes: total_bytes.saturating_sub(state.used()), total_bytes })
    }

    fn random_id(&self) -> io::Result<[u8; 16]> {
        SystemFiles.random_id()
    }

    fn wall_ms(&self) -> u64 {
        1
    }
}

/// Puts `piece` into `bytes`, which may grow by that.
fn put(bytes: &mut Vec<u8>, position: u64, piece: &[u8]) {
    let begin = position as usize;
    if bytes.len() < begin + piece.len() {
        bytes.resize(begin + piece.len(), 0);
    }
    bytes[begin..begin + piece.len()].copy_from_slice(piece);
}

#[derive(Debug)]
struct DiskFile {
    disk: Disk,
    path: PathBuf,
    file: Box<dyn DataFile>,
}

impl DiskFile {
    /// What the disk has of the file, also when it has got another name since it was opened.
    fn kept<'a>(&self, state: &'a mut State) -> Option<&'a mut Kept> {
        state.files.get_mut(&self.path)
    }
}

impl DataFile for DiskFile {
    fn write_all_at(&self, bytes: &[u8], position: u64) -> io::Result<()> {
        self.disk.step(&format!("write {} at {position} of", bytes.len()), &self.path, |state| {
            let failure = state.fails(Fail::Write);
            let done = match failure {
                Some(_) => state.chance() as usize % (bytes.len() + 1),
                None => bytes.len(),
            };
            let bytes = &bytes[..done];
            if let Some(kept) = self.kept(state) {
                // Split at the sectors of the file, for `leave` to choose among.
                let (mut rest, mut at) = (bytes, position);
                while !rest.is_empty() {
                    let len = rest.len().min(512 - at as usize % 512);
                    kept.unsynced.push((at, rest[..len].to_vec()));
                    (rest, at) = (&rest[len..], at + len as u64);
                }
            }
            self.file.write_all_at(bytes, position)?;
            failure.map_or(Ok(()), Err)
        })
    }

    fn sync_data(&self) -> io::Result<()> {
        self.disk.step("sync", &self.path, |state| {
            let failure = state.fails(Fail::Sync);
            let mut chance = Random(state.chance());
            if let Some(kept) = self.kept(state) {
                if failure.is_none() && kept.durable.len() < kept.len {
                    kept.durable.resize(kept.len, 0);
                }
                for (position, bytes) in kept.unsynced.drain(..) {
                    // After a failure nothing is retried: what is lost now stays lost.
                    if failure.is_none() || chance.below(2) == 0 {
                        put(&mut kept.durable, position, &bytes);
                    }
                }
            }
            failure.map_or(Ok(()), Err)
        })
    }

    fn file(&self) -> &File {
        self.file.file()
    }
}
