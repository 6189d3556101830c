//! A disk that is nearly full: no more jobs, but what drains the log goes on.

use std::fs;

use joblog::log::{CompactBudget, Log, LogError, LogOptions, Recovery};
use joblog::types::{EntryIndex, Offset, QueueId, Term};
use tempfile::{TempDir, tempdir};

use crate::support::{Disk, Entry, segments, used_segments};

const SEGMENT: u64 = 64 << 10;

fn start(disk: &Disk, dir: &TempDir, free_bytes_min: u64) -> Log {
    let options =
        LogOptions { free_bytes_min: Some(free_bytes_min), ..disk.options_with(SEGMENT as u32) };
    let mut recovery = Recovery::open(dir.path(), options).unwrap();
    let recovered = recovery.replay(EntryIndex(0), &mut |_| Ok(())).unwrap();
    let log = recovery.start(Term(recovered.last_term.0 + 1)).unwrap();
    log.settle();
    log
}

fn is_full(refused: &Result<EntryIndex, LogError>) -> bool {
    matches!(refused, Err(LogError::NoSpace { .. }))
}

/// Appends jobs until one is refused; how many were taken.
fn fill(log: &Log, first: u64) -> u64 {
    for offset in first.. {
        let appended = Entry::job(1, offset, &[7; 10_000]).append(log);
        log.write().unwrap();
        log.settle();
        match appended {
            Ok(_) => {}
            refused => {
                assert!(is_full(&refused), "{refused:?}");
                return offset;
            }
        }
    }
    unreachable!("the disk is full before")
}

/// The files of the ballast, each of which is whole.
fn ballast(dir: &TempDir) -> usize {
    let names = (1..=4).map(|number| dir.path().join(format!("ballast.{number}")));
    let there: Vec<_> = names.filter(|path| path.exists()).collect();
    there.iter().for_each(|path| assert_eq!(fs::metadata(path).unwrap().len(), SEGMENT));
    there.len()
}

/// Appends facts until one is refused; how many were taken.
fn fill_with_facts(log: &Log) -> u64 {
    for facts in 0.. {
        let appended = Entry::facts(&[1; 10_000]).append(log);
        log.write().unwrap();
        log.settle();
        match appended {
            Ok(_) => {}
            refused => {
                assert!(is_full(&refused), "{refused:?}");
                return facts;
            }
        }
    }
    unreachable!("the disk is full before")
}

#[test]
fn below_the_watermark_jobs_are_refused_and_facts_go_on_until_the_ballast_is_gone() {
    let (dir, disk) = (tempdir().unwrap(), Disk::default());
    disk.hold(Some(16 * SEGMENT));
    let log = start(&disk, &dir, 4 * SEGMENT);
    assert_eq!(ballast(&dir), 4);
    let jobs = fill(&log, 0);
    assert!(log.accepts_jobs().is_err());
    assert!((20..60).contains(&jobs), "{jobs}");
    assert_eq!(ballast(&dir), 4, "jobs do not take it");
    // Facts fill what was kept back, and then the ballast but for that of a start.
    let facts = fill_with_facts(&log);
    assert!(ballast(&dir) == 1 && facts >= 6 * 6, "{facts} facts");
    assert_eq!(log.poisoned(), None);
    log.sync().unwrap();
    drop(log);
    // The disk is as full as it was.
    let log = start(&disk, &dir, 4 * SEGMENT);
    assert_eq!((log.next_index().0, ballast(&dir)), (jobs + facts + 1, 0));
    assert!(log.accepts_jobs().is_err(), "it knows from the beginning");
    let more = fill_with_facts(&log);
    assert!(more >= 5, "{more} facts");
    // With room jobs are taken again, without a restart, and the ballast comes back in time.
    disk.hold(None);
    assert!(log.accepts_jobs().is_ok());
    for offset in jobs..jobs + 14 {
        Entry::job(1, offset, &[7; 10_000]).append(&log).unwrap();
        log.write().unwrap();
        log.settle();
    }
    assert_eq!(ballast(&dir), 4);
}

#[test]
fn a_start_on_a_full_disk_takes_ballast_as_long_as_there_is_some() {
    let (dir, disk) = (tempdir().unwrap(), Disk::default());
    let log = start(&disk, &dir, 0);
    for offset in 0..20 {
        Entry::job(1, offset, &[7; 10_000]).append(&log).unwrap();
        log.sync().unwrap();
        log.settle();
    }
    let entries = log.next_index().0;
    drop(log);
    // Neither is there a spare, nor room for one.
    let used = used_segments(dir.path());
    let spares = segments(dir.path()).into_iter().filter(|path| !used.contains(path));
    spares.for_each(|path| fs::remove_file(path).unwrap());
    let files = fs::read_dir(dir.path()).unwrap();
    let bytes = files.map(|item| item.unwrap().metadata().unwrap().len()).sum();
    for life in 0..5 {
        assert_eq!(ballast(&dir), 4 - life);
        let disk = Disk::over(dir.path());
        disk.hold(Some(bytes));
        let recovery = Recovery::open(dir.path(), disk.options_with(SEGMENT as u32)).unwrap();
        match recovery.start(Term(2 + life as u64)) {
            Ok(log) => {
                assert!(life < 4 && log.next_index().0 == entries + life as u64);
                Entry::facts(b"a life").append(&log).unwrap();
                log.sync().unwrap();
            }
            Err(error) => {
                assert!(life == 4 && matches!(error, LogError::NoSpace { .. }), "{error}");
            }
        }
    }
}

/// A start needs no more than what a start needs, however large segments are.
#[test]
fn the_segments_of_a_start_begin_with_a_mebibyte_and_double() {
    let (dir, disk) = (tempdir().unwrap(), Disk::default());
    let options = || disk.options_with(16 << 20);
    let sizes = |log: &Log| -> Vec<u64> {
        log.segments().iter().map(|segment| segment.file_bytes >> 20).collect()
    };
    let log = Recovery::open(dir.path(), options()).unwrap().start(Term(1)).unwrap();
    log.settle();
    assert_eq!((sizes(&log), segments(dir.path()).len()), (vec![1], 1), "and no spare");
    for offset in 0..70 {
        Entry::job(1, offset, &[7; 500_000]).append(&log).unwrap();
        log.sync().unwrap();
    }
    assert_eq!(sizes(&log), [1, 2, 4, 8, 16, 16]);
    // One that would not fit has one of its own size, and the doubling goes on.
    log.close().unwrap();
    drop(log);
    let log = Recovery::open(dir.path(), options()).unwrap().start(Term(2)).unwrap();
    Entry::job(1, 70, &vec![7; 5 << 20]).append(&log).unwrap();
    log.sync().unwrap();
    Entry::job(1, 71, &vec![7; 1 << 20]).append(&log).unwrap();
    log.sync().unwrap();
    assert_eq!(sizes(&log)[6..], [1, 5, 4]);
    log.close().unwrap();
}

#[test]
fn a_log_that_shrinks_goes_on_in_a_small_segment_and_keeps_no_spare() {
    let (dir, disk) = (tempdir().unwrap(), Disk::default());
    let log = Recovery::open(dir.path(), disk.options_with(16 << 20)).unwrap();
    let log = log.start(Term(1)).unwrap();
    for offset in 0..26 {
        Entry::job(1, offset, &[7; 500_000]).append(&log).unwrap();
        log.sync().unwrap();
    }
    log.settle();
    assert_eq!(segments(dir.path()).len(), 5, "four segments and a spare");
    log.shrink().unwrap();
    log.settle();
    let sizes = log.segments().iter().map(|segment| segment.file_bytes >> 20).collect::<Vec<_>>();
    assert_eq!((sizes, segments(dir.path()).len()), (vec![1, 2, 4, 8, 1], 5));
    log.shrink().unwrap();
    assert_eq!(log.segments().len(), 5, "it is small already");
    // What was sealed can go, the last of it too.
    let budget = CompactBudget { bytes: u64::MAX, jobs: u64::MAX };
    log.sync().unwrap();
    let report = log.compact(EntryIndex(26), &mut |_, _| false, budget).unwrap();
    assert_eq!((report.segments_removed, log.segments().len()), (4, 1));
    for offset in 26..28 {
        Entry::job(1, offset, &[7; 500_000]).append(&log).unwrap();
    }
    log.close().unwrap();
    drop(log);
    let mut recovery = Recovery::open(dir.path(), disk.options_with(16 << 20)).unwrap();
    let recovered = recovery.replay(EntryIndex(26), &mut |_| Ok(())).unwrap();
    assert_eq!(recovered.last_index, EntryIndex(28));
}

#[test]
fn a_full_disk_is_drained_by_compaction() {
    let (dir, disk) = (tempdir().unwrap(), Disk::default());
    disk.hold(Some(17 * SEGMENT));
    let log = start(&disk, &dir, 4 * SEGMENT);
    let jobs = fill(&log, 0);
    log.sync().unwrap();
    log.settle();
    // Of six jobs in a segment one is left, so rewriting needs room before it brings any.
    let live = &mut |_: QueueId, offset: Offset| offset.0.is_multiple_of(6);
    let used: u64 = log.segments().iter().map(|segment| segment.file_bytes).sum();
    disk.hold(Some(used + 5 * SEGMENT + 5_000));
    let budget = CompactBudget { bytes: u64::MAX, jobs: u64::MAX };
    let report = log.compact(EntryIndex(jobs), live, budget).unwrap();
    assert!(report.segments_rewritten >= 4, "{report:?}");
    assert!(log.accepts_jobs().is_ok());
    for offset in (0..jobs).filter(|offset| offset.is_multiple_of(6)) {
        let location = log.locate(QueueId(1), Offset(offset)).unwrap();
        assert_eq!(location.read().unwrap().body, [7; 10_000]);
    }
    fill(&log, jobs);
}
