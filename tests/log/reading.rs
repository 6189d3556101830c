//! Reading back: a replay that begins at a checkpoint, and entries of a log that is open.

use joblog::log::{LogError, Recovery};
use joblog::types::{EntryIndex, Term};
use tempfile::{TempDir, tempdir};

use crate::support::{Entry, Random, open, options};

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
