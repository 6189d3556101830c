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

#[test]
fn below_the_watermark_jobs_are_refused_and_facts_go_on_until_the_ballast_is_gone() {
    let (dir, disk) = (tempdir().unwrap(), Disk::default());
    disk.hold(Some(12 * SEGMENT));
    let log = start(&disk, &dir, 4 * SEGMENT);
    let ballast = dir.path().join("ballast");
    assert!(ballast.exists());
    let jobs = fill(&log, 0);
    assert!(log.accepts_jobs().is_err());
    assert!((20..60).contains(&jobs), "{jobs}");
    assert!(ballast.exists(), "jobs do not take it");
    // Facts fill what was kept back, and then the ballast.
    let mut facts = 0;
    let refused = loop {
        let appended = Entry::facts(&[1; 10_000]).append(&log);
        log.write().unwrap();
        log.settle();
        match appended {
            Ok(_) => facts += 1,
            refused => break refused,
        }
    };
    assert!(is_full(&refused));
    assert!(!ballast.exists() && facts >= 5 * 6, "{facts} facts");
    assert_eq!(log.poisoned(), None);
    log.sync().unwrap();
    drop(log);
    // A start needs a segment too.
    disk.hold(Some(16 * SEGMENT));
    let log = start(&disk, &dir, 4 * SEGMENT);
    assert_eq!(log.next_index().0, jobs + facts + 1);
    assert!(log.accepts_jobs().is_err(), "it knows from the beginning");
    // With room jobs are taken again, without a restart, and the ballast comes back in time.
    disk.hold(None);
    assert!(log.accepts_jobs().is_ok());
    for offset in jobs..jobs + 14 {
        Entry::job(1, offset, &[7; 10_000]).append(&log).unwrap();
        log.write().unwrap();
        log.settle();
    }
    assert!(ballast.exists());
}

#[test]
fn a_start_takes_the_ballast_if_there_is_no_other_room() {
    let (dir, disk) = (tempdir().unwrap(), Disk::default());
    let log = start(&disk, &dir, 0);
    for offset in 0..20 {
        Entry::job(1, offset, &[7; 10_000]).append(&log).unwrap();
        log.sync().unwrap();
        log.settle();
    }
    drop(log);
    // Neither is there a spare, nor room for one.
    let used = used_segments(dir.path());
    let spare = segments(dir.path()).into_iter().find(|path| !used.contains(path)).unwrap();
    fs::remove_file(spare).unwrap();
    let files = fs::read_dir(dir.path()).unwrap();
    let bytes = files.map(|item| item.unwrap().metadata().unwrap().len()).sum();
    for ballast in [true, false] {
        assert_eq!(dir.path().join("ballast").exists(), ballast);
        let disk = Disk::over(dir.path());
        disk.hold(Some(bytes));
        let recovery = Recovery::open(dir.path(), disk.options_with(SEGMENT as u32)).unwrap();
        match recovery.start(Term(if ballast { 2 } else { 3 })) {
            Ok(log) => assert!(ballast && log.next_index() == EntryIndex(21)),
            Err(error) => assert!(!ballast && matches!(error, LogError::NoSpace { .. }), "{error}"),
        }
    }
}

#[test]
fn a_full_disk_is_drained_by_compaction() {
    let (dir, disk) = (tempdir().unwrap(), Disk::default());
    disk.hold(Some(14 * SEGMENT));
    let log = start(&disk, &dir, 4 * SEGMENT);
    let jobs = fill(&log, 0);
    log.sync().unwrap();
    log.settle();
    // Of six jobs in a segment one is left, so rewriting needs room before it brings any.
    let live = &mut |_: QueueId, offset: Offset| offset.0.is_multiple_of(6);
    let used: u64 = log.segments().iter().map(|segment| segment.file_bytes).sum();
    disk.hold(Some(used + 2 * SEGMENT + 5_000));
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
