//! Entries to append, a seeded generator, and a disk that can lose power.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use joblog::log::{
    DataFile, EntryView, Files, Log, LogError, LogOptions, NewEntry, Recovered, Recovery,
    SystemFiles,
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
        (0..len).map(|_| self.next() as u8).collect()
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
        log.append(&NewEntry {
            queue: QueueId(self.queue),
            base_offset: Offset(self.base_offset),
            count: self.bodies.len() as u32,
            table: &self.table(),
            facts: &self.facts,
            bodies: &self.bodies.concat(),
            stamp: Stamp { wall_ms: self.wall_ms, log_ms: self.wall_ms * 2 },
            producer: [self.queue as u8; 16],
            sequence: self.base_offset,
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
            assert_eq!(log.job_len(queue, offset), Some(body.len() as u32));
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
/// reached the disk, in any order. A created or removed name may or may not be there until the
/// directory is synced. What was synced is there.
#[derive(Clone, Debug, Default)]
pub(crate) struct Disk(Arc<Mutex<State>>);

#[derive(Clone, Debug, Default)]
struct State {
    files: BTreeMap<PathBuf, Kept>,
    /// Operations until the power fails.
    until_cut: Option<u64>,
    at_cut: Option<BTreeMap<PathBuf, Kept>>,
    fail: Fail,
}

/// What is to go wrong without a power cut.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Fail {
    #[default]
    Nothing,
    Write,
    Sync,
    Create,
}

#[derive(Clone, Debug)]
struct Kept {
    /// What a sync has made durable.
    durable: Vec<u8>,
    unsynced: Vec<(u64, Vec<u8>)>,
    name_is_durable: bool,
    removed: bool,
}

impl Disk {
    /// A disk with the files of `dir`, all durable.
    pub(crate) fn over(dir: &Path) -> Self {
        let disk = Self::default();
        let paths = fs::read_dir(dir).unwrap().map(|item| item.unwrap().path());
        for path in paths.filter(|path| !path.ends_with("lock")) {
            let durable = fs::read(&path).unwrap();
            let kept = Kept { durable, unsynced: vec![], name_is_durable: true, removed: false };
            disk.0.lock().unwrap().files.insert(path, kept);
        }
        disk
    }

    pub(crate) fn options(&self) -> LogOptions {
        LogOptions { segment_bytes: SEGMENT_BYTES, prefill: false, files: Arc::new(self.clone()) }
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

    /// Puts into `dir` what the power cut (now, if there was none) has left.
    pub(crate) fn leave(&self, dir: &Path, random: &mut Random) {
        let state = self.0.lock().unwrap();
        let sector_kept_of_4 = random.below(5);
        for (path, kept) in state.at_cut.as_ref().unwrap_or(&state.files) {
            if !kept.name_is_durable && random.below(2) == 0 {
                continue;
            }
            if kept.removed && random.below(2) == 0 {
                continue;
            }
            let mut bytes = kept.durable.clone();
            for (position, sector) in &kept.unsynced {
                if random.below(4) < sector_kept_of_4 {
                    put(&mut bytes, *position, sector);
                }
            }
            fs::write(dir.join(path.file_name().unwrap()), bytes).unwrap();
        }
    }

    fn step<T>(&self, act: impl FnOnce(&mut State) -> T) -> T {
        let mut state = self.0.lock().unwrap();
        match state.until_cut {
            Some(0) => {
                state.at_cut = Some(state.files.clone());
                state.until_cut = None;
            }
            Some(left) => state.until_cut = Some(left - 1),
            None => {}
        }
        act(&mut state)
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

    fn create(
        &self,
        path: &Path,
        bytes: u32,
        fill: &dyn Fn() -> bool,
    ) -> io::Result<Box<dyn DataFile>> {
        self.step(|state| {
            if state.fail == Fail::Create {
                return Err(io::ErrorKind::StorageFull.into());
            }
            assert!(!fill(), "the tests do not ask for it");
            let file = OpenOptions::new().read(true).write(true).create_new(true).open(path)?;
            file.set_len(u64::from(bytes))?;
            let file = Box::new(file);
            let durable = vec![0; bytes as usize];
            let unsynced = vec![];
            let kept = Kept { durable, unsynced, name_is_durable: false, removed: false };
            state.files.insert(path.to_owned(), kept);
            let disk = self.clone();
            Ok(Box::new(DiskFile { disk, path: path.to_owned(), file }) as Box<dyn DataFile>)
        })
    }

    fn create_growing(&self, path: &Path) -> io::Result<Box<dyn DataFile>> {
        self.step(|state| {
            if state.fail == Fail::Create {
                return Err(io::ErrorKind::StorageFull.into());
            }
            let file = SystemFiles.create_growing(path)?;
            let (durable, unsynced) = (vec![], vec![]);
            let kept = Kept { durable, unsynced, name_is_durable: false, removed: false };
            state.files.insert(path.to_owned(), kept);
            let disk = self.clone();
            Ok(Box::new(DiskFile { disk, path: path.to_owned(), file }) as Box<dyn DataFile>)
        })
    }

    /// The file may come back under either name, or both, until the directory is synced.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.step(|state| {
            if let Some(kept) = state.files.get_mut(from) {
                let renamed = Kept { name_is_durable: false, removed: false, ..kept.clone() };
                kept.removed = true;
                state.files.insert(to.to_owned(), renamed);
            }
        });
        SystemFiles.rename(from, to)
    }

    fn reuse(&self, path: &Path) -> io::Result<Box<dyn DataFile>> {
        let file = SystemFiles.reuse(path)?;
        let durable = fs::read(path)?;
        let kept = Kept { durable, unsynced: vec![], name_is_durable: true, removed: false };
        self.step(|state| {
            state.files.entry(path.to_owned()).or_insert(kept);
        });
        Ok(Box::new(DiskFile { disk: self.clone(), path: path.to_owned(), file }))
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.step(|state| {
            if let Some(kept) = state.files.get_mut(path) {
                kept.removed = true;
            }
        });
        SystemFiles.remove(path)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.step(|state| {
            state.files.retain(|path, kept| path.parent() != Some(dir) || !kept.removed);
            state.files.values_mut().for_each(|kept| kept.name_is_durable = true);
        });
        Ok(())
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

impl DataFile for DiskFile {
    fn write_all_at(&self, bytes: &[u8], position: u64) -> io::Result<()> {
        self.disk.step(|state| {
            if state.fail == Fail::Write {
                return Err(io::Error::other("injected"));
            }
            let kept = state.files.get_mut(&self.path).expect("created through the disk");
            // Split at the sectors of the file, for `leave` to choose among.
            let (mut rest, mut at) = (bytes, position);
            while !rest.is_empty() {
                let len = rest.len().min(512 - at as usize % 512);
                kept.unsynced.push((at, rest[..len].to_vec()));
                (rest, at) = (&rest[len..], at + len as u64);
            }
            self.file.write_all_at(bytes, position)
        })
    }

    fn sync_data(&self) -> io::Result<()> {
        self.disk.step(|state| {
            if state.fail == Fail::Sync {
                return Err(io::Error::other("injected"));
            }
            let kept = state.files.get_mut(&self.path).expect("created through the disk");
            for (position, bytes) in kept.unsynced.drain(..) {
                put(&mut kept.durable, position, &bytes);
            }
            Ok(())
        })
    }

    fn file(&self) -> &File {
        self.file.file()
    }
}
