//! Seeded histories: lives of a log that end by a kill, a power cut or a failing disk, with
//! checkpoints and compaction in between. After each the log has every entry that was synced, the
//! entries are a prefix of what was appended, and every job that is not dead can be read.
//!
//! `JOBLOG_SEEDS=n` runs so many histories; `JOBLOG_SEED=n` runs one, which does the same calls in
//! the same order each time, and prints them.

use std::collections::BTreeSet;
use std::env;
use std::fs;
use std::io;
use std::panic::{self, AssertUnwindSafe};
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use joblog::log::{CompactBudget, Log, LogError, LogOptions, Recovered, Recovery};
use joblog::types::{EntryIndex, Offset, QueueId, Term};
use tempfile::{TempDir, tempdir, tempdir_in};

use crate::support::{Disk, Entry, Random, used_segments};

const SEEDS: u64 = 5_000;
const SEGMENT_BYTES: u32 = 64 << 10;
const QUEUES: u64 = 3;

/// The jobs that have been consumed: what the state machine would keep.
type Dead = BTreeSet<(u32, u64)>;

struct History {
    random: Random,
    dir: TempDir,
    disk: Disk,
    /// All bodies have this size, so that frames behind a cut begin where others did.
    same_size: Option<u64>,
    /// What the log may hold, by index.
    entries: Vec<Entry>,
    /// Up to here the log must hold it.
    promised: u64,
    /// The highest term under which something may have been seen.
    term: u64,
    /// The state after all entries.
    dead: Dead,
    /// Durable states with the index that they stand for, oldest first.
    checkpoints: Vec<(u64, Dead)>,
    /// Only checkpoints from here on can serve.
    floor: u64,
    next_offset: [u64; QUEUES as usize],
}

/// A directory in memory, if there is such a place: what a disk keeps is the fake one's to say.
fn scratch() -> TempDir {
    tempdir_in("/dev/shm").or_else(|_| tempdir()).unwrap()
}

/// What an entry's facts say: these jobs are consumed.
fn facts_of(dead: &[(u32, u64)]) -> Vec<u8> {
    let bytes = |(queue, offset): &(u32, u64)| {
        let mut fact = queue.to_le_bytes().to_vec();
        fact.extend(offset.to_le_bytes());
        fact
    };
    dead.iter().flat_map(bytes).collect()
}

fn apply(dead: &mut Dead, entry: &Entry) {
    for fact in entry.facts.chunks_exact(12) {
        let queue = u32::from_le_bytes(fact[..4].try_into().unwrap());
        dead.insert((queue, u64::from_le_bytes(fact[4..].try_into().unwrap())));
    }
}

impl History {
    fn new(seed: u64) -> Self {
        let mut random = Random(seed);
        let same_size = (random.below(3) == 0).then(|| 40 + random.below(900));
        Self {
            random,
            dir: scratch(),
            disk: Disk::default(),
            same_size,
            entries: Vec::new(),
            promised: 0,
            term: 0,
            dead: Dead::new(),
            checkpoints: Vec::new(),
            floor: 0,
            next_offset: [0; QUEUES as usize],
        }
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.random.below(bound)
    }

    /// Tells in a single history what it does.
    fn note(&self, what: &str) {
        if env::var_os("JOBLOG_SEED").is_some() {
            let mut names: Vec<_> = fs::read_dir(self.dir.path()).unwrap().collect();
            names.sort_by_key(|item| item.as_ref().unwrap().file_name());
            let names = names.into_iter().map(|item| item.unwrap().file_name());
            let (entries, promised) = (self.entries.len(), self.promised);
            eprintln!("-- {what}: {entries} entries, {promised} promised");
            eprintln!("   {:?}", names.collect::<Vec<_>>());
        }
    }

    fn options(&self) -> LogOptions {
        self.disk.options_with(SEGMENT_BYTES)
    }

    /// A life from a start to its end, and what is left of the disk then.
    fn live(&mut self) {
        let operations = self.below(120);
        self.disk.trace(env::var_os("JOBLOG_SEED").is_some());
        match self.below(8) {
            0..4 => self.disk.cut_power_after(operations),
            4..7 => {
                let kind = [io::ErrorKind::Other, io::ErrorKind::StorageFull];
                let kind = kind[self.below(2) as usize];
                self.disk.fail_after(operations, kind);
            }
            _ => {}
        }
        if let Some(log) = self.start() {
            for _ in 0..10 + self.below(40) {
                log.settle();
                let synced = log.synced().0;
                if self.disk.is_cut() || log.poisoned().is_some() {
                    break;
                }
                self.promised = self.promised.max(synced);
                self.step(&log);
            }
            self.end(log);
        }
        self.disk.heal();
        if self.disk.is_cut() || self.below(3) == 0 {
            self.note("power cut");
            let left = scratch();
            self.disk.leave(left.path(), &mut self.random);
            self.disk = Disk::over(left.path());
            self.dir = left;
        }
    }

    /// The process is killed, or stops in order.
    fn end(&mut self, log: Log) {
        if self.below(4) > 0 || self.disk.is_cut() {
            return;
        }
        let closed = log.close();
        if !self.disk.is_cut() && closed.is_ok() {
            self.promised = log.synced().0;
        }
    }

    /// Opens the log and checks what it has. None if the disk has failed meanwhile.
    fn start(&mut self) -> Option<Log> {
        self.note("start");
        let (recovery, recovered) = match self.replay() {
            Ok(replayed) => replayed,
            Err(error) => {
                assert!(self.disk.heal(), "nothing has failed: {error}");
                return None;
            }
        };
        assert!(recovered.last_term.0 >= self.term, "terms go on: {recovered:?}");
        let term = recovered.last_term.0.max(self.term) + 1;
        match recovery.start(Term(term)) {
            Ok(log) => {
                assert_eq!(log.synced(), recovered.last_index);
                if !self.disk.is_cut() {
                    (self.promised, self.term) = (log.synced().0, term);
                }
                self.check(&log);
                Some(log)
            }
            Err(error) => {
                assert!(self.disk.heal(), "nothing has failed: {error}");
                None
            }
        }
    }

    /// Replays from a checkpoint, and takes what was found for what there is.
    fn replay(&mut self) -> Result<(Recovery, Recovered), LogError> {
        let cut = self.disk.is_cut();
        let floor = self.floor;
        self.checkpoints.retain(|(index, _)| *index >= floor);
        let some = self.checkpoints.len() as u64;
        let chosen = if some > 0 { Some(self.below(some) as usize) } else { None };
        let (after, mut dead) = match chosen {
            Some(chosen) => self.checkpoints[chosen].clone(),
            None => (0, Dead::new()),
        };
        let mut recovery = Recovery::open(self.dir.path(), self.options())?;
        let mut next = after as usize;
        let entries = &self.entries;
        let recovered = recovery.replay(EntryIndex(after), &mut |view| {
            assert_eq!(view.index.0, next as u64 + 1);
            let found = Entry::of(view);
            assert!(
                entries.get(next) == Some(&found),
                "entry {} is not what was appended",
                next + 1
            );
            apply(&mut dead, &found);
            next += 1;
            Ok(())
        })?;
        let found = recovered.last_index.0;
        assert_eq!(found, next as u64);
        assert!(cut || found >= self.promised, "{} promised: {recovered:?}", self.promised);
        self.entries.truncate(next);
        self.dead = Dead::new();
        self.entries.iter().for_each(|entry| apply(&mut self.dead, entry));
        assert!(self.dead == dead, "the state is that of all entries");
        self.next_offset = [0; QUEUES as usize];
        for entry in self.entries.iter().filter(|entry| entry.queue > 0) {
            let end = entry.base_offset + entry.bodies.len() as u64;
            self.next_offset[entry.queue as usize - 1] = end;
        }
        Ok((recovery, recovered))
    }

    /// Every job that is not dead is found and read.
    fn check(&mut self, log: &Log) {
        for entry in &self.entries {
            for (ordinal, body) in entry.bodies.iter().enumerate() {
                let offset = entry.base_offset + ordinal as u64;
                if self.dead.contains(&(entry.queue, offset)) {
                    continue;
                }
                let location = log.locate(QueueId(entry.queue), Offset(offset));
                let location =
                    location.unwrap_or_else(|| panic!("{}:{offset} is lost", entry.queue));
                let job = location.read().unwrap();
                assert!(job.offset.0 == offset && job.body == &body[..]);
            }
        }
        let mut next = self.floor as usize;
        let through = log.written();
        let read = log.entries(EntryIndex(self.floor), through, &mut |view| {
            assert!(Entry::of(view) == self.entries[next]);
            next += 1;
            Ok(())
        });
        read.unwrap();
        assert_eq!(next as u64, through.0.max(self.floor));
    }

    fn step(&mut self, log: &Log) {
        self.note("step");
        let result = match self.below(16) {
            0..6 => self.append_jobs(log),
            6..9 => self.append_facts(log),
            9 | 10 => log.write().map(drop),
            11 => log.sync().map(drop),
            12 => log.sync().and_then(|_| {
                log.settle();
                log.mark()
            }),
            13 => self.checkpoint(log),
            14 => self.compact(log),
            _ => {
                let written = log.write();
                if written.is_ok() {
                    self.check(log);
                }
                written.map(drop)
            }
        };
        if let Err(error) = result {
            // The disk may have failed before, in the background.
            let expected = log.poisoned().is_some() || self.disk.has_failed();
            assert!(expected, "nothing has failed: {error}");
        }
    }

    fn append_jobs(&mut self, log: &Log) -> Result<(), LogError> {
        let queue = 1 + self.below(QUEUES) as u32;
        let base_offset = self.next_offset[queue as usize - 1] + self.below(8) / 7 * 3;
        let count = 1 + self.below(5);
        let bodies = (0..count).map(|_| self.body()).collect::<Vec<_>>();
        let clock = self.entries.len() as u64 + 1;
        let entry = Entry {
            queue,
            base_offset,
            bodies,
            wall_ms: clock,
            wrong_sums: self.below(10) == 0,
            facts: Vec::new(),
        };
        entry.append(log)?;
        self.next_offset[queue as usize - 1] = base_offset + count;
        self.entries.push(entry);
        Ok(())
    }

    fn body(&mut self) -> Vec<u8> {
        if let Some(len) = self.same_size {
            let byte = self.below(256) as u8;
            return vec![byte; len as usize];
        }
        // A payload may be a piece of its own log.
        if self.below(12) == 0
            && let Some(path) = used_segments(self.dir.path()).pop()
        {
            let bytes = fs::read(path).unwrap();
            let begin = self.below(8) as usize;
            return bytes[4096 - begin * 8..12_288].to_vec();
        }
        let len = self.below(2_000);
        self.random.bytes(len)
    }

    /// Consumes some jobs: a few, or all of a stretch, so that compaction finds something to do.
    fn append_facts(&mut self, log: &Log) -> Result<(), LogError> {
        let jobs = |entry: &Entry| -> Vec<(u32, u64)> {
            let end = entry.base_offset + entry.bodies.len() as u64;
            (entry.base_offset..end).map(|offset| (entry.queue, offset)).collect()
        };
        let live: Vec<_> = self.entries.iter().flat_map(jobs).collect();
        let live: Vec<_> = live.into_iter().filter(|job| !self.dead.contains(job)).collect();
        let take = self.below(live.len() as u64 + 1) as usize;
        let keep_of = 2 + self.below(12);
        let mut dead = Vec::new();
        for job in live.into_iter().take(take) {
            if self.below(keep_of) > 0 {
                dead.push(job);
            }
        }
        let clock = self.entries.len() as u64 + 1;
        let entry = Entry { wall_ms: clock, ..Entry::facts(&facts_of(&dead)) };
        entry.append(log)?;
        apply(&mut self.dead, &entry);
        self.entries.push(entry);
        Ok(())
    }

    /// Keeps the state as of now, which is durable as soon as the log is synced up to it.
    fn checkpoint(&mut self, log: &Log) -> Result<(), LogError> {
        let index = log.sync()?.0;
        assert_eq!(index, self.entries.len() as u64);
        if !self.disk.is_cut() {
            self.checkpoints.push((index, self.dead.clone()));
            let superfluous = self.checkpoints.len().saturating_sub(2);
            self.checkpoints.drain(..superfluous);
        }
        Ok(())
    }

    fn compact(&mut self, log: &Log) -> Result<(), LogError> {
        let some = self.checkpoints.len() as u64;
        if some == 0 {
            return Ok(());
        }
        // The background is to have nothing to do that comes between. What made jobs dead is
        // written and not synced: that is for compaction to do.
        log.write()?;
        log.settle();
        let chosen = self.below(some) as usize;
        let index = self.checkpoints[chosen].0;
        self.floor = self.floor.max(index);
        let bytes = [1, 200_000, u64::MAX][self.below(3) as usize];
        let jobs = [20, u64::MAX][self.below(2) as usize];
        let dead = &self.dead;
        let live = &mut |queue: QueueId, offset: Offset| !dead.contains(&(queue.0, offset.0));
        let report = log.compact(EntryIndex(index), live, CompactBudget { bytes, jobs })?;
        COMPACTED.fetch_add(report.segments_rewritten as u64, Ordering::Relaxed);
        REMOVED.fetch_add(report.segments_removed as u64, Ordering::Relaxed);
        Ok(())
    }
}

/// How much compaction there was: histories without any would show nothing.
static COMPACTED: AtomicU64 = AtomicU64::new(0);
static REMOVED: AtomicU64 = AtomicU64::new(0);

fn run(seed: u64) {
    let mut history = History::new(seed);
    for _ in 0..4 {
        history.live();
    }
    history.disk = Disk::over(history.dir.path());
    assert!(history.start().is_some());
}

fn number(name: &str) -> Option<u64> {
    env::var(name).ok().map(|text| text.parse().expect("a number"))
}

#[test]
fn nothing_synced_is_lost_and_nothing_consumed_comes_back_in_any_history() {
    let (first, end) = match number("JOBLOG_SEED") {
        Some(seed) => (seed, seed + 1),
        None => (0, number("JOBLOG_SEEDS").unwrap_or(SEEDS)),
    };
    let next = AtomicU64::new(first);
    let threads = thread::available_parallelism().map_or(1, usize::from);
    thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= end {
                        return;
                    }
                    if let Err(cause) = panic::catch_unwind(AssertUnwindSafe(|| run(seed))) {
                        next.store(end, Ordering::Relaxed);
                        eprintln!("the history of JOBLOG_SEED={seed} failed");
                        panic::resume_unwind(cause);
                    }
                }
            });
        }
    });
    let done = (COMPACTED.load(Ordering::Relaxed), REMOVED.load(Ordering::Relaxed));
    println!("{} segments were rewritten, {} removed", done.0, done.1);
    assert!(end - first < 100 || (done.0 > (end - first) / 2 && done.1 > end - first), "{done:?}");
}
