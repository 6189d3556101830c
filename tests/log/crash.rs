//! Power cuts at random operations, under random workloads: what was synced is there, what comes
//! back is a prefix of what was appended, and the log goes on.

use std::thread;

use joblog::types::Term;
use tempfile::tempdir;

use crate::support::{Disk, Entry, Random, Writer, replay};

/// One life of the log, from its opening to a power cut. Returns the files it left.
///
/// `entries` is what the log may hold at most; `promised` of them it must hold.
fn live(
    random: &mut Random,
    dir: tempfile::TempDir,
    entries: &mut Vec<Entry>,
    promised: &mut usize,
) -> tempfile::TempDir {
    let disk = Disk::over(dir.path());
    disk.cut_power_after(random.below(60));
    let (recovery, recovered, found) = replay(dir.path(), disk.options()).unwrap();
    assert!(found.len() >= *promised, "{} of {promised} are there: {recovered:?}", found.len());
    assert_eq!(found[..], entries[..found.len()], "what comes back is a prefix");
    // What was found lies on the disk, so an interrupted start may not lose it either.
    entries.truncate(found.len());
    *promised = found.len();
    let log = recovery.start(Term(recovered.last_term.0 + 1)).unwrap();
    assert_eq!(log.synced().0 as usize, found.len(), "a start syncs all that it has found");
    let mut writer = Writer::new(entries);
    let body_max = [40, 3_000, 120_000][random.below(3) as usize];
    loop {
        let synced = log.synced().0 as usize;
        if disk.is_cut() {
            break;
        }
        // Seen before the power failed, so it was promised.
        *promised = synced;
        match random.below(8) {
            0 => assert!(log.write().is_ok()),
            1 => assert!(log.sync().is_ok()),
            2 => assert!(log.mark().is_ok()),
            _ => {
                let entry = writer.entry(random, body_max);
                entry.append(&log).unwrap();
                entries.push(entry);
            }
        }
    }
    let left = tempdir().unwrap();
    disk.leave(left.path(), random);
    left
}

#[test]
fn synced_entries_survive_power_cuts_at_any_operation() {
    for seed in 0..24 {
        let mut random = Random(seed);
        let mut dir = tempdir().unwrap();
        let (mut entries, mut promised) = (Vec::new(), 0);
        for _ in 0..8 {
            println!("seed {seed}: {} entries, {promised} promised", entries.len());
            dir = live(&mut random, dir, &mut entries, &mut promised);
        }
        let (recovery, recovered, found) = replay(dir.path(), crate::support::options()).unwrap();
        assert!(found.len() >= promised);
        assert_eq!(found[..], entries[..found.len()]);
        let log = recovery.start(Term(recovered.last_term.0 + 1)).unwrap();
        found.iter().for_each(|entry| entry.assert_readable(&log));
    }
}

#[test]
fn synced_entries_survive_a_power_cut_while_others_append_and_write() {
    for seed in 0..12 {
        let mut random = Random(seed);
        let (dir, left) = (tempdir().unwrap(), tempdir().unwrap());
        let disk = Disk::over(dir.path());
        let (recovery, ..) = replay(dir.path(), disk.options()).unwrap();
        let log = recovery.start(Term(1)).unwrap();
        disk.cut_power_after(200 + random.below(200));
        let mut entries = Vec::new();
        let mut promised = 0;
        thread::scope(|scope| {
            let (log, disk, entries, random) = (&log, &disk, &mut entries, &mut random);
            scope.spawn(move || {
                let mut writer = Writer::new(&[]);
                while !disk.is_cut() {
                    let entry = writer.entry(random, 2_000);
                    entry.append(log).unwrap();
                    entries.push(entry);
                    if random.below(3) == 0 {
                        log.write().unwrap();
                    }
                }
            });
            loop {
                let synced = log.synced().0 as usize;
                if disk.is_cut() {
                    break;
                }
                promised = synced;
                log.sync().unwrap();
            }
        });
        disk.leave(left.path(), &mut random);
        let (_, recovered, found) = replay(left.path(), crate::support::options()).unwrap();
        assert!(found.len() >= promised, "seed {seed}: {promised} promised, {recovered:?}");
        assert_eq!(found[..], entries[..found.len()]);
    }
}
