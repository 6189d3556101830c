//! Reading back: a replay that begins at a checkpoint, and entries of a log that is open.

use std::fs;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use joblog::clock::coarse_seconds;
use joblog::log::{LogError, Recovery};
use joblog::types::{EntryIndex, Offset, QueueId, Term};
use tempfile::{TempDir, tempdir};

use crate::support::{Entry, Random, open, options, used_segments};

/// A closed log of entries that fill three segments, and what it holds.
fn three_segments() -> (TempDir, Vec<Entry>) {
    let dir = tempdir().unwrap();
    let (log, _, _) = open(dir.path());
    let entries: Vec<_> =
        (0..12).map(|offset| Entry::job(1, offset, &Random(offset).bytes(200_000))).collect();
    for entry in &entries {
        entry.append(&log).unwrap();
    }
    log.close().unwrap();
    assert_eq!(log.segments().len(), 3);
    (dir, entries)
}

#[test]
fn a_replay_gives_what_comes_after_the_checkpoint_and_finds_all_jobs() {
    let (dir, entries) = three_segments();
    for after in 0..=entries.len() {
        let mut recovery = Recovery::open(dir.path(), options()).unwrap();
        let mut found = Vec::new();
        let recovered = recovery
            .replay(EntryIndex(after as u64), &mut |view| {
                assert_eq!(view.index.0 as usize, after + found.len() + 1);
                found.push(Entry::of(view));
                Ok(())
            })
            .unwrap();
        assert_eq!(found, entries[after..]);
        assert_eq!(recovered.last_index.0 as usize, entries.len());
        assert_eq!(recovered.last_stamp.wall_ms, entries[entries.len() - 1].wall_ms);
        let log = recovery.start(Term(recovered.last_term.0 + 1)).unwrap();
        entries.iter().for_each(|entry| entry.assert_readable(&log));
        log.close().unwrap();
    }
}

#[test]
fn a_checkpoint_above_the_end_is_damage() {
    let (dir, entries) = three_segments();
    let mut recovery = Recovery::open(dir.path(), options()).unwrap();
    let refused = recovery.replay(EntryIndex(entries.len() as u64 + 1), &mut |_| Ok(()));
    assert!(matches!(refused, Err(LogError::Damaged { .. })), "{refused:?}");
}

#[test]
fn entries_are_read_back_in_order_from_any_to_any() {
    let (dir, mut entries) = three_segments();
    let (log, _, _) = open(dir.path());
    for offset in 12..20 {
        entries.push(Entry::job(1, offset, &Random(offset).bytes(200_000)));
        entries[offset as usize].append(&log).unwrap();
    }
    let last = entries.len() as u64;
    let refused = log.entries(EntryIndex(0), EntryIndex(last), &mut |_| Ok(()));
    assert!(matches!(refused, Err(LogError::NotWritten)));
    log.write().unwrap();
    let read = |after: u64, through: u64| {
        let mut found = Vec::new();
        let each = &mut |view: &joblog::log::EntryView<'_>| {
            assert_eq!(view.index.0 as usize, after as usize + found.len() + 1);
            found.push(Entry::of(view));
            Ok(())
        };
        log.entries(EntryIndex(after), EntryIndex(through), each).unwrap();
        assert_eq!(found, entries[after as usize..through.max(after) as usize]);
    };
    for after in 0..=last {
        read(after, last);
        read(after, (after + 1).min(last));
        read(last - after, last);
    }
    read(9, 5);
    let stopped =
        log.entries(EntryIndex(3), EntryIndex(last), &mut |view| match view.index.0 < 6 {
            true => Ok(()),
            false => Err("enough".into()),
        });
    assert!(matches!(stopped, Err(LogError::Replay { index: EntryIndex(6), .. })));
    read(0, last);
}

#[test]
fn segments_tell_what_they_hold() {
    let (dir, entries) = three_segments();
    let (log, _, _) = open(dir.path());
    let segments = log.segments();
    let ends: Vec<_> =
        segments.iter().map(|segment| (segment.first_index.0, segment.last_index.0)).collect();
    assert_eq!(ends, [(1, 5), (6, 10), (11, 12), (13, 12)]);
    assert!(segments.iter().take(2).all(|segment| segment.bytes_used > 1_000_000));
    assert_eq!(log.pending_bytes(), 0);
    Entry::job(1, entries.len() as u64, b"body").append(&log).unwrap();
    assert_eq!(log.pending_bytes(), (24 + 88 + 12 + 4u64).next_multiple_of(8));
    log.write().unwrap();
    assert_eq!(log.pending_bytes(), 0);
    assert_eq!(log.segments()[3].last_index, EntryIndex(13));
}

/// Waits until the segments in front of the one that grows have their tables.
fn wait_for_tables(log: &joblog::log::Log) {
    while log.stats().indexed_spans + 1 < log.segments().len() {
        assert_eq!(log.poisoned(), None);
        std::thread::yield_now();
    }
}

fn index_files(dir: &Path) -> Vec<PathBuf> {
    let mut paths: Vec<_> = fs::read_dir(dir).unwrap().map(|item| item.unwrap().path()).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "index"));
    paths.sort();
    paths
}

#[test]
fn sealed_segments_get_tables_and_leave_memory() {
    let dir = tempdir().unwrap();
    let (log, _, _) = open(dir.path());
    let entries: Vec<_> =
        (0..12).map(|offset| Entry::job(1, offset, &Random(offset).bytes(200_000))).collect();
    for entry in &entries {
        entry.append(&log).unwrap();
    }
    log.sync().unwrap();
    wait_for_tables(&log);
    assert_eq!((log.stats().indexed_spans, log.stats().indexed_entries), (2, 2));
    assert_eq!(index_files(dir.path()).len(), 2);
    entries.iter().for_each(|entry| entry.assert_readable(&log));
    assert!(log.locate(QueueId(1), Offset(12)).is_none());
}

/// What is behind the checkpoint is found and can be read, whatever became of the tables.
fn assert_found(dir: &Path, entries: &[Entry]) {
    let mut recovery = Recovery::open(dir, options()).unwrap();
    let after = entries.len() as u64;
    let recovered =
        recovery.replay(EntryIndex(after), &mut |_| panic!("there is nothing above")).unwrap();
    assert_eq!(recovered.last_index, EntryIndex(after));
    assert_eq!(recovered.last_stamp.wall_ms, entries[entries.len() - 1].wall_ms);
    let log = recovery.start(Term(recovered.last_term.0 + 1)).unwrap();
    entries.iter().for_each(|entry| entry.assert_readable(&log));
}

#[test]
fn a_table_missing_or_torn_or_changed_or_stale_is_made_again() {
    let (dir, entries) = three_segments();
    assert_found(dir.path(), &entries);
    let tables = index_files(dir.path());
    assert_eq!(tables.len(), 3);
    let good: Vec<_> = tables.iter().map(|path| fs::read(path).unwrap()).collect();
    let change = |bytes: &[u8]| {
        for path in &tables {
            fs::write(path, bytes).unwrap();
        }
        assert_found(dir.path(), &entries);
    };
    change(&[]);
    change(&vec![0; good[0].len()]);
    change(&good[0]);
    change(&good[1]);
    for cut in [1, 50, 104, 128, good[0].len() - 1] {
        change(&good[0][..cut]);
    }
    for at in 0..good[0].len() {
        // Every byte of the first, when the others are whole.
        let mut bad = good[0].clone();
        bad[at] ^= 0x40;
        fs::write(&tables[0], &bad).unwrap();
        assert_found(dir.path(), &entries);
    }
    tables.iter().for_each(|path| fs::remove_file(path).unwrap());
    assert_found(dir.path(), &entries);
    assert_eq!(fs::read(&tables[0]).unwrap(), good[0]);
}

#[test]
fn with_tables_a_start_reads_no_segment_that_a_checkpoint_stands_for() {
    let (dir, entries) = three_segments();
    assert_found(dir.path(), &entries);
    // All behind the header is lost, which a start that reads the segment would refuse.
    let first = used_segments(dir.path()).remove(0);
    let mut bytes = fs::read(&first).unwrap();
    bytes[4096..].fill(0);
    fs::write(&first, bytes).unwrap();
    let mut recovery = Recovery::open(dir.path(), options()).unwrap();
    recovery.replay(EntryIndex(12), &mut |_| Ok(())).unwrap();
    let log = recovery.start(Term(1 << 20)).unwrap();
    let lost = log.locate(QueueId(1), Offset(0)).unwrap();
    assert!(matches!(
        lost.read(),
        Err(LogError::Damaged { file, position: 4096, .. }) if file == first
    ));
    entries[5..].iter().for_each(|entry| entry.assert_readable(&log));
}

#[test]
fn a_frame_changed_on_the_disk_is_damage_to_its_jobs_alone() {
    let (dir, entries) = three_segments();
    assert_found(dir.path(), &entries);
    let first = used_segments(dir.path()).remove(0);
    // A byte of the second entry's header, table and body each.
    let second = 4096 + (24 + 88 + 12 + 200_000usize).next_multiple_of(8);
    for at in [8, 40, 24 + 88 + 4, 24 + 88 + 12 + 77_777] {
        let mut bytes = fs::read(&first).unwrap();
        bytes[second + at] ^= 1;
        fs::write(&first, &bytes).unwrap();
        let mut recovery = Recovery::open(dir.path(), options()).unwrap();
        let recovered = recovery.replay(EntryIndex(12), &mut |_| Ok(())).unwrap();
        let log = recovery.start(Term(recovered.last_term.0 + 1)).unwrap();
        let location = log.locate(QueueId(1), Offset(1)).unwrap();
        let refused = location.read().map(drop);
        assert!(
            matches!(&refused, Err(LogError::Damaged { position: p, .. }) if *p == second as u64),
            "byte {at}: {refused:?}"
        );
        entries[..1].iter().chain(&entries[2..]).for_each(|entry| entry.assert_readable(&log));
        drop(log);
        bytes[second + at] ^= 1;
        fs::write(&first, &bytes).unwrap();
    }
}

#[test]
fn a_segment_cut_short_under_the_log_is_an_error_and_no_signal() {
    let (dir, entries) = three_segments();
    assert_found(dir.path(), &entries);
    let mut recovery = Recovery::open(dir.path(), options()).unwrap();
    let recovered = recovery.replay(EntryIndex(12), &mut |_| Ok(())).unwrap();
    let log = recovery.start(Term(recovered.last_term.0 + 1)).unwrap();
    let location = log.locate(QueueId(1), Offset(4)).unwrap();
    let first = used_segments(dir.path()).remove(0);
    fs::OpenOptions::new().write(true).open(&first).unwrap().set_len(8192).unwrap();
    assert!(matches!(location.read(), Err(LogError::Io { path, .. }) if path == first));
    assert!(log.entries(EntryIndex(0), EntryIndex(3), &mut |_| Ok(())).is_err());
}

/// What this process has written is in memory, until it is evicted and has to come from the disk.
#[test]
fn what_was_read_before_and_can_not_be_read_again_is_an_error_and_no_signal() {
    let dir = tempdir().unwrap();
    let (log, ..) = open(dir.path());
    let entries: Vec<_> = (0..12).map(|nth| Entry::job(1, nth, &[nth as u8; 200_000])).collect();
    for entry in &entries {
        entry.append(&log).unwrap();
    }
    log.sync().unwrap();
    log.settle();
    entries[..3].iter().for_each(|entry| entry.assert_readable(&log));
    let locations: Vec<_> =
        (0..4).map(|offset| log.locate(QueueId(1), Offset(offset)).unwrap()).collect();
    let read_at = coarse_seconds();
    let first = used_segments(dir.path()).remove(0);
    while coarse_seconds() < read_at + 2 {
        thread::sleep(Duration::from_millis(20));
    }
    fs::OpenOptions::new().write(true).open(&first).unwrap().set_len(4096).unwrap();
    for location in locations {
        assert!(matches!(location.read(), Err(LogError::Io { .. })));
    }
    entries[8..].iter().for_each(|entry| entry.assert_readable(&log));
}

#[test]
fn a_queue_is_read_ahead_over_its_sealed_segments() {
    let (dir, entries) = three_segments();
    assert_found(dir.path(), &entries);
    let (log, ..) = open(dir.path());
    let through = |from, bytes_max| log.read_ahead(QueueId(1), Offset(from), bytes_max).0;
    assert_eq!((through(0, 0), through(0, 1), through(3, 1)), (0, 1, 4));
    assert_eq!(through(1, 500_000), 4, "three entries of 200 KB");
    let all = through(0, u64::MAX);
    assert!(all > 5, "over more than one segment: {all}");
    assert_eq!(through(all, u64::MAX), all, "there is no more");
    assert_eq!(log.read_ahead(QueueId(9), Offset(7), u64::MAX), Offset(7), "no such queue");
    entries.iter().for_each(|entry| entry.assert_readable(&log));
}
