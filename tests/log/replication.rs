//! What a replicated log needs: entries under given terms and of other kinds, a suffix that is cut
//! off, and a vote.

use std::fs;

use joblog::log::{EntryKind, EntryView, Log, LogError, Recovered, Recovery};
use joblog::types::{EntryIndex, Offset, QueueId, Stamp, Term};
use tempfile::{TempDir, tempdir};

use crate::support::{Disk, Entry, Random, open, options, used_segments};

fn append(log: &Log, kind: EntryKind, term: u64, facts: &[u8]) -> Result<EntryIndex, LogError> {
    let stamp = Stamp { wall_ms: 1, log_ms: 2 };
    let entry = EntryView { facts, stamp, ..EntryView::default() };
    log.append_as(kind, Term(term), &entry)
}

#[test]
fn entries_keep_the_kinds_and_terms_that_they_are_given() {
    let dir = tempdir().unwrap();
    let log = Recovery::open(dir.path(), options()).unwrap().start(Term(1_000)).unwrap();
    let given = [
        (EntryKind::Membership, 3, &b"a, b and c"[..]),
        (EntryKind::Blank, 3, b""),
        (EntryKind::Ordinary, 5, b"facts"),
    ];
    for (kind, term, facts) in given {
        append(&log, kind, term, facts).unwrap();
    }
    for term in [4, 1_001] {
        let refused = append(&log, EntryKind::Blank, term, b"");
        assert!(matches!(refused, Err(LogError::InvalidEntry { .. })), "term {term}");
    }
    log.close().unwrap();
    drop(log);
    for term in [2_000, 3_000] {
        let mut recovery = Recovery::open(dir.path(), options()).unwrap();
        let mut found = Vec::new();
        let each = &mut |view: &joblog::log::EntryView<'_>| {
            found.push((view.kind, view.term.0, view.facts.to_vec()));
            Ok(())
        };
        recovery.replay(EntryIndex(0), each).unwrap();
        let expected = given.map(|(kind, term, facts)| (kind, term, facts.to_vec()));
        assert_eq!(found, expected);
        let log = recovery.start(Term(term)).unwrap();
        let refused = append(&log, EntryKind::Blank, 4, b"");
        assert!(matches!(refused, Err(LogError::InvalidEntry { .. })), "also over a start");
    }
}

/// Opens the log cut behind `through`, and checks what is left.
fn cut(dir: &TempDir, through: u64, entries: &[Entry]) -> (Log, Recovered) {
    let mut recovery = Recovery::open(dir.path(), options()).unwrap();
    recovery.truncate_after(EntryIndex(through)).unwrap();
    let mut found = Vec::new();
    let recovered = recovery
        .replay(EntryIndex(0), &mut |view| {
            found.push(Entry::of(view));
            Ok(())
        })
        .unwrap();
    let left = entries.len().min(through as usize);
    assert_eq!(found, entries[..left]);
    assert_eq!((recovered.last_index.0, &recovered.torn), (left as u64, &None));
    let log = recovery.start(Term(recovered.last_term.0 + 1)).unwrap();
    (log, recovered)
}

#[test]
fn a_suffix_is_cut_off_for_good_wherever_it_begins() {
    for through in 0..=12 {
        let dir = tempdir().unwrap();
        let (log, _, _) = open(dir.path());
        let mut entries: Vec<_> =
            (0..10).map(|offset| Entry::job(1, offset, &Random(offset).bytes(200_000))).collect();
        for entry in &entries {
            entry.append(&log).unwrap();
        }
        log.sync().unwrap();
        drop(log);
        // The last entries are written again by a start, whose header then says more than is left.
        let (log, _, _) = open(dir.path());
        log.close().unwrap();
        drop(log);
        let (log, _) = cut(&dir, through, &entries);
        entries.truncate(through as usize);
        entries.iter().for_each(|entry| entry.assert_readable(&log));
        let next = entries.len() as u64;
        assert!(log.locate(QueueId(1), Offset(next)).is_none());
        // Other entries take the places.
        for offset in next..next + 3 {
            entries.push(Entry::job(1, offset, &Random(99 + offset).bytes(300_000)));
            entries[offset as usize].append(&log).unwrap();
        }
        log.sync().unwrap();
        drop(log);
        for _ in 0..2 {
            let (log, _, found) = open(dir.path());
            assert!(found == entries, "through {through}");
            entries.iter().for_each(|entry| entry.assert_readable(&log));
        }
    }
}

#[test]
fn a_cut_that_the_power_interrupts_is_made_or_not() {
    let mut outcomes = [0; 2];
    for seed in 0..60 {
        let mut random = Random(seed);
        let (dir, left) = (tempdir().unwrap(), tempdir().unwrap());
        let (log, _, _) = open(dir.path());
        let entries: Vec<_> = (0..9).map(|offset| Entry::job(1, offset, &[7; 99])).collect();
        for entry in &entries {
            entry.append(&log).unwrap();
        }
        log.close().unwrap();
        drop(log);
        let disk = Disk::over(dir.path());
        let mut recovery = Recovery::open(dir.path(), disk.options()).unwrap();
        recovery.truncate_after(EntryIndex(4)).unwrap();
        disk.cut_power_after(random.below(14));
        let log = recovery.start(Term(50)).unwrap();
        let cut_before_the_end = disk.is_cut();
        drop(log);
        disk.leave(left.path(), &mut random);
        let found = open(left.path()).2;
        assert!(found == entries || found == entries[..4], "seed {seed}: {} entries", found.len());
        assert!(found.len() == 4 || cut_before_the_end);
        outcomes[usize::from(found.len() == 4)] += 1;
    }
    assert!(outcomes.iter().all(|count| *count > 3), "{outcomes:?}");
}

#[test]
fn a_checkpoint_above_the_cut_is_refused() {
    let dir = tempdir().unwrap();
    let (log, _, _) = open(dir.path());
    for offset in 0..9 {
        Entry::job(1, offset, &[7; 99]).append(&log).unwrap();
    }
    log.close().unwrap();
    drop(log);
    let mut recovery = Recovery::open(dir.path(), options()).unwrap();
    recovery.truncate_after(EntryIndex(4)).unwrap();
    assert!(recovery.replay(EntryIndex(5), &mut |_| Ok(())).is_err());
    let recovered = recovery.replay(EntryIndex(4), &mut |_| Ok(())).unwrap();
    assert_eq!(recovered.last_index, EntryIndex(4));
}

#[test]
fn a_vote_is_kept_and_damage_to_it_is_refused() {
    let dir = tempdir().unwrap();
    let (log, _, _) = open(dir.path());
    assert_eq!(log.vote().unwrap(), None);
    for vote in [&b"node 3 in term 7"[..], b"", b"node 1 in term 8"] {
        log.save_vote(vote).unwrap();
        assert_eq!(log.vote().unwrap().unwrap(), vote);
    }
    assert!(matches!(log.save_vote(&[0; 4097]), Err(LogError::InvalidEntry { .. })));
    drop(log);
    let (log, _, _) = open(dir.path());
    assert_eq!(log.vote().unwrap().unwrap(), b"node 1 in term 8");
    let path = dir.path().join("vote");
    let good = fs::read(&path).unwrap();
    for at in 0..good.len() {
        let mut bad = good.clone();
        bad[at] ^= 1;
        fs::write(&path, bad).unwrap();
        assert!(matches!(log.vote(), Err(LogError::Damaged { .. })), "byte {at}");
        fs::write(&path, &good[..at]).unwrap();
        assert!(matches!(log.vote(), Err(LogError::Damaged { .. })), "cut at {at}");
    }
    assert_eq!(used_segments(dir.path()).len(), 1);
}
