//! Torn tails are cut; damage is refused with file and position; nothing else passes as an entry.

use std::fs;
use std::path::{Path, PathBuf};

use joblog::log::{LogError, Recovered, Recovery};
use joblog::types::{EntryIndex, Offset, QueueId, Term};
use tempfile::{TempDir, tempdir};

use crate::support::{Entry, Random, open, options, replay, segments, used_segments};

const HEADER: usize = 4096;
/// Frame header, entry header and one row of the job table.
const BEFORE_BODY: usize = 24 + 88 + 12;

fn job(offset: u64) -> Entry {
    Entry { facts: b"some facts".to_vec(), ..Entry::job(1, offset, &[offset as u8 + 1; 50]) }
}

const FRAME: usize = (BEFORE_BODY + 10 + 50usize).next_multiple_of(8);

/// A log of `count` entries, each written by itself; with `sync`, each is synced, so that all but
/// the last are proved by the one behind.
fn written(count: u64, sync: bool) -> TempDir {
    let dir = tempdir().unwrap();
    let (log, _, _) = open(dir.path());
    for offset in 0..count {
        job(offset).append(&log).unwrap();
        if sync {
            log.sync().unwrap()
        } else {
            log.write().unwrap()
        };
    }
    dir
}

fn change(path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = fs::read(path).unwrap();
    change(&mut bytes);
    fs::write(path, bytes).unwrap();
}

fn refusal(dir: &Path) -> (PathBuf, u64) {
    match replay(dir, options()) {
        Err(LogError::Damaged { file, position, .. }) => (file, position),
        Err(other) => panic!("{other}"),
        Ok((_, recovered, entries)) => panic!("{} entries, {recovered:?}", entries.len()),
    }
}

fn copy_of(dir: &Path) -> TempDir {
    let copy = tempdir().unwrap();
    for path in segments(dir) {
        fs::copy(&path, copy.path().join(path.file_name().unwrap())).unwrap();
    }
    copy
}

fn recovered_len(dir: &Path) -> (Recovered, u64) {
    let (_, recovered, entries) = replay(dir, options()).unwrap();
    let expected: Vec<_> = (0..entries.len() as u64).map(job).collect();
    assert_eq!(entries, expected);
    (recovered, entries.len() as u64)
}

#[test]
fn a_tail_torn_at_any_byte_is_cut_and_the_log_goes_on_elsewhere() {
    let dir = written(3, false);
    let last = HEADER + 2 * FRAME;
    for cut in 0..=BEFORE_BODY + 60 {
        let dir = copy_of(dir.path());
        let path = used_segments(dir.path()).pop().unwrap();
        change(&path, |bytes| bytes[last + cut..].fill(0));
        let torn_file = fs::read(&path).unwrap();
        let (log, recovered, found) = open(dir.path());
        if cut == BEFORE_BODY + 60 {
            assert_eq!((found.len(), recovered.torn), (3, None), "nothing was cut");
            continue;
        }
        assert_eq!(found, [job(0), job(1)], "cut at {cut}");
        match recovered.torn {
            Some(torn) => {
                assert_eq!((&torn.file, torn.position), (&path, last as u64));
                assert!((1..=cut as u64).contains(&torn.bytes));
            }
            None => assert_eq!(cut, 0),
        }
        assert!(!path.exists() || fs::read(&path).unwrap() == torn_file, "it is not modified");
        job(2).append(&log).unwrap();
        log.sync().unwrap();
        drop(log);
        let (recovered, count) = recovered_len(dir.path());
        assert_eq!((recovered.torn, count), (None, 3));
    }
}

#[test]
fn the_unproved_tail_is_written_again_with_its_own_terms() {
    let dir = written(4, true);
    let old = used_segments(dir.path());
    let (log, recovered, found) = open(dir.path());
    assert_eq!((recovered.proved, found.len()), (EntryIndex(3), 4));
    assert_eq!(log.synced(), EntryIndex(4));
    (0..4).for_each(|offset| job(offset).assert_readable(&log));
    drop(log);
    let new = used_segments(dir.path()).pop().unwrap();
    assert!(!old.contains(&new));
    let bytes = fs::read(new).unwrap();
    assert_eq!(bytes[HEADER + 24], 1, "the term under which it was first written");
    assert_eq!(bytes[HEADER + 24 + 8], 4, "the index it had");
    let (recovered, _) = recovered_len(dir.path());
    assert_eq!((recovered.proved, recovered.last_term), (EntryIndex(4), Term(2)));
    // The old copy may now be torn without any loss: the new segment says where the old one ends.
    change(&old[0], |bytes| bytes[HEADER + 3 * FRAME..].fill(0));
    assert_eq!(recovered_len(dir.path()).1, 4);
}

#[test]
fn an_unproved_tail_over_several_segments_is_written_again() {
    let dir = tempdir().unwrap();
    let (log, _, _) = open(dir.path());
    let entries: Vec<_> =
        (0..9).map(|offset| Entry::job(1, offset, &Random(offset).bytes(400_000))).collect();
    for entry in &entries {
        entry.append(&log).unwrap();
    }
    log.write().unwrap();
    drop(log);
    let (log, _, found) = open(dir.path());
    assert!(found == entries && log.synced() == EntryIndex(9));
    entries.iter().for_each(|entry| entry.assert_readable(&log));
    drop(log);
    assert!(open(dir.path()).2 == entries);
}

/// Two segments: the first sealed by a restart, the second with one more entry.
fn sealed() -> (TempDir, PathBuf) {
    let dir = written(3, true);
    let (log, _, _) = open(dir.path());
    job(3).append(&log).unwrap();
    log.close().unwrap();
    drop(log);
    let first = used_segments(dir.path()).remove(0);
    (dir, first)
}

#[test]
fn a_flipped_byte_in_a_sealed_segment_is_refused_with_file_and_position() {
    let (dir, first) = sealed();
    let frame = HEADER + FRAME;
    // Frame header, entry header, table, facts: all but the body.
    for at in 0..BEFORE_BODY + 10 {
        change(&first, |bytes| bytes[frame + at] ^= 0x10);
        assert_eq!(refusal(dir.path()), (first.clone(), frame as u64), "byte {at}");
        change(&first, |bytes| bytes[frame + at] ^= 0x10);
    }
    assert_eq!(recovered_len(dir.path()).1, 4);
}

#[test]
fn a_flipped_byte_in_a_header_is_refused() {
    for number in 0..2 {
        let (dir, _) = sealed();
        let path = used_segments(dir.path()).remove(number);
        for at in [0, 8, 12, 20, 30, 50, 60, 70, 90, 2000] {
            change(&path, |bytes| bytes[at] ^= 1);
            assert_eq!(refusal(dir.path()), (path.clone(), 0), "segment {number}, byte {at}");
            change(&path, |bytes| bytes[at] ^= 1);
        }
    }
}

#[test]
fn the_only_segment_without_its_header_is_refused() {
    let dir = written(1, true);
    let path = used_segments(dir.path()).remove(0);
    change(&path, |bytes| bytes[..HEADER].fill(0));
    assert_eq!(refusal(dir.path()), (path, 0));
}

#[test]
fn a_missing_or_shortened_segment_is_refused() {
    let (dir, first) = sealed();
    let whole = fs::read(&first).unwrap();
    fs::remove_file(&first).unwrap();
    let second = used_segments(dir.path()).remove(0);
    assert_eq!(refusal(dir.path()), (second.clone(), 0));
    fs::write(&first, &whole[..whole.len() / 2]).unwrap();
    assert_eq!(refusal(dir.path()), (first.clone(), 0));
    fs::write(&first, whole).unwrap();
    fs::remove_file(&second).unwrap();
    // The first two are proved by the third, which nothing proves without the second segment.
    assert_eq!(recovered_len(dir.path()).1, 3);
}

#[test]
fn a_flipped_byte_before_durable_frames_is_damage_and_before_others_a_torn_tail() {
    for (sync, proved) in [(true, true), (false, false)] {
        let dir = written(4, sync);
        let path = used_segments(dir.path()).remove(0);
        let second = HEADER + FRAME;
        change(&path, |bytes| bytes[second + 40] ^= 1);
        if proved {
            assert_eq!(refusal(dir.path()), (path, second as u64));
        } else {
            let (recovered, count) = recovered_len(dir.path());
            assert_eq!((count, recovered.torn.unwrap().position), (1, second as u64));
        }
    }
}

#[test]
fn after_a_mark_the_last_entry_is_proved_too() {
    let dir = tempdir().unwrap();
    let (log, _, _) = open(dir.path());
    job(0).append(&log).unwrap();
    log.mark().unwrap();
    drop(log);
    let path = used_segments(dir.path()).remove(0);
    change(&path, |bytes| bytes[HEADER + 40] ^= 1);
    assert_eq!(refusal(dir.path()), (path, HEADER as u64));
}

#[test]
fn what_a_start_has_written_again_is_proved_by_the_segments_header() {
    let dir = written(3, true);
    drop(open(dir.path()));
    // Nothing follows the entry that was written again.
    let path = used_segments(dir.path()).pop().unwrap();
    change(&path, |bytes| bytes[HEADER + 40] ^= 1);
    assert_eq!(refusal(dir.path()), (path, HEADER as u64));
}

#[test]
fn a_flipped_body_is_damage_to_its_job_alone() {
    let (dir, first) = sealed();
    change(&first, |bytes| bytes[HEADER + BEFORE_BODY + 10 + 3] ^= 1);
    let (log, recovered, found) = open(dir.path());
    assert_eq!((recovered.torn, found.len()), (None, 4));
    let location = log.locate(QueueId(1), Offset(0)).unwrap();
    for refused in [location.read().map(drop), location.body().map(drop)] {
        assert!(matches!(
            refused,
            Err(LogError::Damaged { file, position, .. }) if file == first && position == 4096
        ));
    }
    assert!(log.locate(QueueId(1), Offset(1)).unwrap().read().unwrap().verify());
}

#[test]
fn a_wrong_sum_by_a_producer_cuts_nothing() {
    let dir = tempdir().unwrap();
    let (log, _, _) = open(dir.path());
    let wrong = Entry { wrong_sums: true, ..job(0) };
    wrong.append(&log).unwrap();
    job(1).append(&log).unwrap();
    log.sync().unwrap();
    drop(log);
    let (_, recovered, found) = open(dir.path());
    assert_eq!((recovered.torn, found), (None, vec![wrong, job(1)]));
}

#[test]
fn frames_from_elsewhere_are_never_taken_for_entries() {
    let dir = written(3, true);
    let path = used_segments(dir.path()).remove(0);
    let frames = fs::read(&path).unwrap()[HEADER..HEADER + 3 * FRAME].to_vec();
    // Another log with frames of the same size at the same positions, its tail torn.
    let other = written(2, true);
    let other_path = used_segments(other.path()).remove(0);
    change(&other_path, |bytes| {
        bytes[HEADER + 2 * FRAME..HEADER + 3 * FRAME].copy_from_slice(&frames[2 * FRAME..]);
    });
    assert_eq!(recovered_len(other.path()).1, 2);
    // Frames of the same segment at another position.
    change(&path, |bytes| {
        bytes[HEADER + 3 * FRAME..HEADER + 6 * FRAME].copy_from_slice(&frames);
    });
    assert_eq!(recovered_len(dir.path()).1, 3);
}

#[test]
fn a_payload_of_log_bytes_is_never_taken_for_entries() {
    let dir = written(3, true);
    let (log, _, _) = open(dir.path());
    let path = used_segments(dir.path()).remove(0);
    let mut payload = fs::read(&path).unwrap();
    payload.truncate(HEADER + 3 * FRAME);
    for shift in 0..8 {
        let body = [&vec![0; shift][..], &payload].concat();
        Entry::job(2, shift as u64, &body).append(&log).unwrap();
    }
    log.write().unwrap();
    drop(log);
    let path = used_segments(dir.path()).pop().unwrap();
    // The first of these entries is torn, so that all behind it is searched for proof.
    let rewritten = HEADER + FRAME;
    change(&path, |bytes| bytes[rewritten + 30] ^= 1);
    let (_, recovered, found) = replay(dir.path(), options()).unwrap();
    assert_eq!(found.len(), 3);
    assert_eq!(recovered.torn.unwrap().position, rewritten as u64);
}

#[test]
fn segments_of_two_logs_do_not_mix() {
    let dir = written(1, true);
    let other = tempdir().unwrap();
    let (log, _, _) = open(other.path());
    drop(log);
    let (log, _, _) = open(other.path());
    drop(log);
    let foreign = used_segments(other.path()).pop().unwrap();
    let copied = dir.path().join("00000000000000000077.segment");
    fs::copy(foreign, &copied).unwrap();
    assert!(matches!(
        Recovery::open(dir.path(), options()),
        Err(LogError::Damaged { file, .. }) if file == copied
    ));
}
