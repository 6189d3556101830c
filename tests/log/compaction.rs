//! Compaction: what is dead goes, what is live stays where it is found, over starts too.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use joblog::log::{CompactBudget, CompactReport, Log, LogError, Recovery};
use joblog::types::{EntryIndex, Offset, QueueId, Term};
use tempfile::{TempDir, tempdir};

use crate::support::{Entry, Random, open, options, segments};

const ALL: CompactBudget = CompactBudget { bytes: u64::MAX, jobs: u64::MAX };

/// A log whose jobs can die.
struct World {
    dir: TempDir,
    log: Option<Log>,
    entries: Vec<Entry>,
    dead: BTreeSet<(u32, u64)>,
}

impl World {
    /// A log of entries with three jobs of 30,000 bytes each, eleven to a segment.
    fn new(entries: u64) -> Self {
        let dir = tempdir().unwrap();
        let (log, _, _) = open(dir.path());
        let mut world = Self { dir, log: Some(log), entries: Vec::new(), dead: BTreeSet::new() };
        world.append(entries);
        world
    }

    fn log(&self) -> &Log {
        self.log.as_ref().unwrap()
    }

    fn append(&mut self, entries: u64) {
        for _ in 0..entries {
            let number = self.entries.len() as u64;
            let bodies = (0..3).map(|job| Random(number * 3 + job).bytes(30_000)).collect();
            let entry = Entry {
                bodies,
                facts: vec![7; 100],
                wall_ms: number + 1,
                ..Entry::job(1 + (number % 2) as u32, number / 2 * 3, b"")
            };
            entry.append(self.log()).unwrap();
            self.entries.push(entry);
        }
        self.log().sync().unwrap();
        self.wait_for_tables();
    }

    /// The index up to which segments may be compacted, and have to be tabled before.
    fn wait_for_tables(&self) {
        while self.log().stats().indexed_entries > 11 {
            assert_eq!(self.log().poisoned(), None);
            std::thread::yield_now();
        }
    }

    fn last(&self) -> EntryIndex {
        EntryIndex(self.entries.len() as u64)
    }

    /// Lets all jobs die but those that `lives` says, by entry and place in it.
    fn kill(&mut self, lives: impl Fn(u64, u64) -> bool) {
        for (number, entry) in self.entries.iter().enumerate() {
            for ordinal in 0..3 {
                if !lives(number as u64, ordinal) {
                    self.dead.insert((entry.queue, entry.base_offset + ordinal));
                }
            }
        }
    }

    fn compact_with(&self, budget: CompactBudget) -> Result<CompactReport, LogError> {
        let live = &mut |queue: QueueId, offset: Offset| !self.dead.contains(&(queue.0, offset.0));
        self.log().compact(self.last(), live, budget)
    }

    fn compact(&self) -> CompactReport {
        self.compact_with(ALL).unwrap()
    }

    /// Closes the log and opens it at the checkpoint `after`.
    fn reopen(&mut self, after: EntryIndex) {
        if let Some(log) = self.log.take() {
            log.close().unwrap();
        }
        let mut recovery = Recovery::open(self.dir.path(), options()).unwrap();
        let mut next = after.0 as usize;
        let recovered = recovery
            .replay(after, &mut |view| {
                assert_eq!(Entry::of(view), self.entries[next]);
                next += 1;
                Ok(())
            })
            .unwrap();
        assert_eq!((recovered.last_index, next), (self.last(), self.entries.len()));
        let last = self.entries.last().unwrap();
        assert_eq!(recovered.last_stamp.wall_ms, last.wall_ms);
        let log = recovery.start(Term(recovered.last_term.0 + 1)).unwrap();
        self.log = Some(log);
    }

    /// Every live job is found and read, and nothing of it has changed.
    fn check(&self) {
        let mut live = 0;
        for entry in &self.entries {
            for (ordinal, body) in entry.bodies.iter().enumerate() {
                let offset = entry.base_offset + ordinal as u64;
                if self.dead.contains(&(entry.queue, offset)) {
                    continue;
                }
                live += 1;
                let location = self.log().locate(QueueId(entry.queue), Offset(offset));
                let location = location.expect("a live job is found");
                let job = location.read().unwrap();
                assert_eq!((job.offset.0, job.body), (offset, &body[..]));
                assert_eq!(job.stamp.wall_ms, entry.wall_ms);
                assert!(job.verify());
            }
        }
        assert_eq!(live + self.dead.len(), self.entries.len() * 3);
    }

    fn check_over_starts(&mut self) {
        self.check();
        for _ in 0..2 {
            self.reopen(self.last());
            self.check();
        }
    }
}

fn jobs_files(dir: &Path) -> usize {
    let names = fs::read_dir(dir).unwrap().map(|item| item.unwrap().path());
    names.filter(|path| path.extension().is_some_and(|extension| extension == "jobs")).count()
}

#[test]
fn segments_without_a_live_job_are_removed() {
    let mut world = World::new(40);
    let before = segments(world.dir.path()).len();
    world.kill(|number, _| number >= 22);
    let report = world.compact();
    assert_eq!((report.segments_removed, report.segments_rewritten), (2, 0));
    assert!(report.complete && report.bytes_freed == 2 << 20);
    assert_eq!(segments(world.dir.path()).len(), before - 2);
    assert_eq!(world.log().segments()[0].first_index, EntryIndex(23));
    world.check_over_starts();
    assert_eq!(jobs_files(world.dir.path()), 0);
}

#[test]
fn a_mostly_dead_segment_keeps_its_live_jobs_in_less_space() {
    let mut world = World::new(40);
    // The first segment keeps three jobs of two entries, the second one all, the third one none.
    world.kill(|number, ordinal| {
        matches!((number, ordinal), (3, 0 | 2) | (7, 1))
            || (11..22).contains(&number)
            || number >= 33
    });
    let report = world.compact();
    assert_eq!((report.segments_removed, report.segments_rewritten), (1, 1));
    assert_eq!(report.segments_made, 1);
    let first = world.log().segments()[0];
    assert_eq!((first.first_index, first.last_index), (EntryIndex(4), EntryIndex(8)));
    assert!(first.compacted && first.file_bytes < 110_000, "{first:?}");
    assert_eq!(report.bytes_freed, (2 << 20) - first.file_bytes);
    assert_eq!(report.bytes_written, first.file_bytes);
    assert!((180_000..190_000).contains(&report.bytes_read), "two entries: {report:?}");
    world.check_over_starts();
    assert_eq!(jobs_files(world.dir.path()), 1);
    // What was dropped is not found any more, and the job after a gap is.
    assert!(world.log().locate(QueueId(2), Offset(3)).is_some());
    assert!(world.log().locate(QueueId(2), Offset(4)).is_none());
    assert!(world.log().locate(QueueId(2), Offset(5)).is_some());
}

#[test]
fn neighbours_are_merged_and_compacted_again_until_nothing_is_left() {
    let mut world = World::new(60);
    world.kill(|number, ordinal| (number % 11 == 5 && ordinal == 1) || number >= 55);
    let report = world.compact();
    assert_eq!((report.segments_rewritten, report.segments_made), (5, 1));
    world.check_over_starts();
    assert_eq!(jobs_files(world.dir.path()), 1);
    world.kill(|number, ordinal| (number == 5 && ordinal == 1) || number >= 55);
    let report = world.compact();
    // With it goes the segment that the start has sealed half full.
    assert_eq!((report.segments_rewritten, report.segments_made), (2, 1), "{report:?}");
    world.check_over_starts();
    assert_eq!(jobs_files(world.dir.path()), 1);
    world.kill(|_, _| false);
    let report = world.compact();
    assert_eq!(report.segments_rewritten, 0);
    world.check_over_starts();
    assert_eq!(jobs_files(world.dir.path()), 0);
    // The log goes on, also where none of its entries is left on the disk.
    world.append(30);
    world.check_over_starts();
}

#[test]
fn what_is_not_worth_it_is_left_alone() {
    let mut world = World::new(40);
    world.kill(|number, ordinal| ordinal < 2 || number >= 33);
    let before = segments(world.dir.path());
    let report = world.compact();
    let done = (report.segments_removed, report.segments_rewritten, report.bytes_written);
    assert_eq!(done, (0, 0, 0));
    assert_eq!(segments(world.dir.path()), before);
    assert!(!world.dir.path().join("manifest").exists());
    // A small file is not written again for the sake of its header.
    world.kill(|number, ordinal| number == 5 && ordinal == 1);
    world.compact();
    for _ in 0..3 {
        assert_eq!(world.compact().bytes_written, 0);
    }
    world.check_over_starts();
}

#[test]
fn entries_above_the_checkpoint_are_never_touched() {
    let mut world = World::new(40);
    world.kill(|_, _| false);
    let live = &mut |_: QueueId, _: Offset| false;
    let report = world.log().compact(EntryIndex(21), live, ALL).unwrap();
    assert_eq!(report.segments_removed, 1, "the second segment ends with entry 22");
    world.reopen(EntryIndex(11));
    assert_eq!(world.log().segments()[0].first_index, EntryIndex(12));
    let refused = world.log().entries(EntryIndex(10), EntryIndex(12), &mut |_| Ok(()));
    assert!(matches!(refused, Err(LogError::Purged { base: EntryIndex(11), .. })));
    let mut found = 0;
    let each = &mut |_: &joblog::log::EntryView<'_>| {
        found += 1;
        Ok(())
    };
    world.log().entries(EntryIndex(11), EntryIndex(40), each).unwrap();
    assert_eq!(found, 29);
    drop(world.log.take());
    let mut recovery = Recovery::open(world.dir.path(), options()).unwrap();
    let refused = recovery.replay(EntryIndex(10), &mut |_| Ok(()));
    assert!(matches!(refused, Err(LogError::Purged { base: EntryIndex(11), .. })));
}

#[test]
fn a_call_stays_within_its_budget_and_the_next_goes_on_there() {
    let mut world = World::new(100);
    world.kill(|number, ordinal| (number % 11 == 5 && ordinal == 1) || number >= 99);
    let mut calls = 0;
    loop {
        calls += 1;
        let budget = CompactBudget { bytes: 1, jobs: 40 };
        let report = world.compact_with(budget).unwrap();
        assert!(report.jobs_examined <= 66 && report.segments_made <= 1, "{report:?}");
        world.check();
        if report.complete {
            break;
        }
    }
    assert!(calls >= 5, "{calls}");
    world.check_over_starts();
    assert!(world.log().segments().iter().filter(|segment| segment.compacted).count() >= 4);
    // Many small neighbours become one.
    let report = world.compact();
    assert!(report.segments_made == 1 && report.segments_rewritten >= 4, "{report:?}");
    world.check_over_starts();
}

#[test]
fn a_job_that_is_being_read_stays_readable() {
    let mut world = World::new(30);
    let location = world.log().locate(QueueId(1), Offset(1)).unwrap();
    let body = location.body().unwrap();
    world.kill(|number, _| number >= 22);
    assert_eq!(world.compact().segments_removed, 2);
    assert_eq!(location.read().unwrap().body, &world.entries[0].bodies[1][..]);
    assert_eq!(body, world.entries[0].bodies[1][..]);
}

#[test]
fn a_live_job_in_a_damaged_entry_keeps_its_segment_as_it_is() {
    let mut world = World::new(40);
    world.reopen(world.last());
    world.kill(|number, ordinal| (number == 5 && ordinal == 1) || number >= 11);
    let first = segments(world.dir.path()).remove(0);
    let mut bytes = fs::read(&first).unwrap();
    let entry = (24 + 88 + 36 + 100 + 90_000usize).next_multiple_of(8);
    bytes[4096 + 5 * entry + 24 + 88 + 36 + 100 + 40_000] ^= 1;
    fs::write(&first, bytes).unwrap();
    let report = world.compact();
    assert_eq!((report.segments_rewritten, report.bytes_written), (0, 0));
    assert!(first.exists(), "the evidence is kept");
    assert_eq!(world.compact().bytes_read, 0, "it is not tried again and again");
    let location = world.log().locate(QueueId(2), Offset(7)).unwrap();
    assert!(matches!(location.read(), Err(LogError::Damaged { file, .. }) if file == first));
}

#[test]
fn a_changed_manifest_or_a_missing_file_is_refused_by_name() {
    let mut world = World::new(40);
    world.kill(|number, ordinal| (number == 5 && ordinal == 1) || number >= 11);
    assert_eq!(world.compact().segments_made, 1);
    world.reopen(world.last());
    drop(world.log.take());
    let refused = |file: &Path| {
        let opened = Recovery::open(world.dir.path(), options());
        let replayed =
            opened.and_then(|mut recovery| recovery.replay(EntryIndex(40), &mut |_| Ok(())));
        match replayed {
            Err(LogError::Damaged { file: named, .. } | LogError::Version { file: named, .. }) => {
                assert_eq!(named, file);
            }
            other => panic!("{other:?}"),
        }
    };
    let manifest = world.dir.path().join("manifest");
    let good = fs::read(&manifest).unwrap();
    for at in 0..good.len() {
        let mut bad = good.clone();
        bad[at] ^= 2;
        fs::write(&manifest, bad).unwrap();
        refused(&manifest);
        fs::write(&manifest, &good[..at]).unwrap();
        refused(&manifest);
    }
    fs::write(&manifest, &good).unwrap();
    let jobs = fs::read_dir(world.dir.path()).unwrap().map(|item| item.unwrap().path());
    let jobs = jobs.into_iter().find(|path| path.extension().is_some_and(|e| e == "jobs")).unwrap();
    let kept = fs::read(&jobs).unwrap();
    for at in [0, 8, 12, 20, 30, 50, 90, 2000] {
        let mut bad = kept.clone();
        bad[at] ^= 1;
        fs::write(&jobs, bad).unwrap();
        refused(&jobs);
    }
    fs::write(&jobs, &kept[..4096]).unwrap();
    refused(&jobs);
    fs::remove_file(&jobs).unwrap();
    refused(&jobs);
    fs::write(&jobs, kept).unwrap();
    world.reopen(world.last());
    world.check();
    // Without the manifest the log does not begin where its segments do.
    drop(world.log.take());
    fs::remove_file(&manifest).unwrap();
    assert!(matches!(
        Recovery::open(world.dir.path(), options())
            .and_then(|mut r| r.replay(EntryIndex(40), &mut |_| Ok(()))),
        Err(LogError::Damaged { .. })
    ));
}
