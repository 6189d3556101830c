//! Looking into a log that is closed, and repairing it.

use std::fs;
use std::path::{Path, PathBuf};

use joblog::log::{self, Item, LogError, Recovered, Recovery, RepairPlan};
use joblog::types::{EntryIndex, Offset, QueueId};
use tempfile::{TempDir, tempdir};

use crate::support::{Entry, open, replay, used_segments};

/// Three segments with five entries each, all synced; every entry has two jobs.
fn written() -> (TempDir, Vec<PathBuf>, Vec<Entry>) {
    let dir = tempdir().unwrap();
    let mut entries = Vec::new();
    for life in 0..3 {
        let (log, _, _) = open(dir.path());
        for number in life * 5..life * 5 + 5u64 {
            let bodies = vec![vec![number as u8; 1_000], vec![7; 30]];
            let facts = b"some facts".to_vec();
            let queue = 1 + (number % 2) as u32;
            let entry = Entry { bodies, facts, ..Entry::job(queue, number * 2, b"") };
            entry.append(&log).unwrap();
            entries.push(entry);
            log.sync().unwrap();
        }
        log.close().unwrap();
    }
    let segments = used_segments(dir.path());
    assert_eq!(segments.len(), 3);
    (dir, segments, entries)
}

const FRAME: usize = (24 + 88 + 24 + 10 + 1_030usize).next_multiple_of(8);

fn flip(path: &Path, at: usize) {
    let mut bytes = fs::read(path).unwrap();
    bytes[at] ^= 4;
    fs::write(path, bytes).unwrap();
}

fn names(dir: &Path) -> Vec<PathBuf> {
    let mut names: Vec<_> = fs::read_dir(dir).unwrap().map(|item| item.unwrap().path()).collect();
    names.sort();
    names
}

#[test]
fn a_whole_log_is_told_to_be_whole_and_is_not_changed() {
    let (dir, _, _) = written();
    let before = names(dir.path());
    let found = log::verify(dir.path()).unwrap();
    assert!(found.is_whole(), "{found:?}");
    assert_eq!((found.files, found.entries, found.jobs), (3, 15, 30));
    assert_eq!(found.last_index, EntryIndex(15));
    assert!(log::repair_plan(dir.path()).unwrap().is_none());
    let (mut indexes, mut marks) = (Vec::new(), 0);
    log::dump(dir.path(), &mut |_, item| {
        match item {
            Item::Entry { view, bodies_are_whole: true, .. } => indexes.push(view.index.0),
            Item::Mark { .. } => marks += 1,
            Item::File { .. } => {}
            other => panic!("{other:?}"),
        }
        Ok(())
    })
    .unwrap();
    assert_eq!((indexes, marks), ((1..=15).collect(), 1), "marks behind held entries are gone");
    assert_eq!(names(dir.path()), before);
    assert!(log::verify(&dir.path().join("nothing")).is_err());
    let (open_log, _, _) = open(dir.path());
    assert!(matches!(log::verify(dir.path()), Err(LogError::Locked { .. })));
    drop(open_log);
}

#[test]
fn each_damage_is_named_and_only_what_replay_needs_is_refused() {
    let (dir, segments, _) = written();
    // A body of the second entry; the first job's.
    flip(&segments[0], 4096 + FRAME + 24 + 88 + 24 + 10 + 500);
    let found = log::verify(dir.path()).unwrap();
    assert!(found.refusal.is_none() && !found.is_whole());
    assert_eq!(found.damaged_jobs.len(), 1);
    let job = &found.damaged_jobs[0];
    assert_eq!((job.queue, job.offset), (QueueId(2), Offset(2)));
    assert_eq!((&job.file, job.position), (&segments[0], 4096 + FRAME as u64));
    // And a frame of the third.
    flip(&segments[1], 4096 + 2 * FRAME + 40);
    let found = log::verify(dir.path()).unwrap();
    assert!(matches!(&found.refusal, Some(LogError::Damaged { file, .. }) if *file == segments[1]));
    let damage = &found.damage[0];
    let begin = 4096 + 2 * FRAME as u64;
    assert_eq!((damage.position, damage.end), (begin, begin + FRAME as u64));
    assert_eq!(found.entries, 14, "what lies behind is looked at too");
}

/// What a start says of a log.
fn start(dir: &Path) -> Result<Recovered, LogError> {
    let mut recovery = Recovery::open(dir, crate::support::options())?;
    recovery.replay(recovery.base(), &mut |_| Ok(()))
}

#[test]
fn where_there_is_no_log_that_is_said_and_none_is_begun() {
    let dir = tempdir().unwrap();
    for name in [None, Some("notes.txt"), Some("1.segment"), Some("12.checkpoint")] {
        if let Some(name) = name {
            fs::write(dir.path().join(name), b"not of a log").unwrap();
        }
        let before = names(dir.path());
        assert!(matches!(log::verify(dir.path()), Err(LogError::NoLog { .. })), "{name:?}");
        assert!(matches!(log::repair_plan(dir.path()), Err(LogError::NoLog { .. })));
        let dumped = log::dump(dir.path(), &mut |_, _| Ok(()));
        assert!(matches!(dumped, Err(LogError::NoLog { .. })));
        assert_eq!(names(dir.path()), before, "not even a lock is made");
    }
}

/// The newest segments are missing, and only a checkpoint, or its twin, knows of them.
#[test]
fn a_log_whose_end_is_missing_is_refused_by_all_and_can_be_cut_there() {
    for extension in ["checkpoint", "twin"] {
        let (dir, segments, entries) = written();
        let checkpoint = dir.path().join(format!("{:020}.{extension}", 15));
        fs::write(&checkpoint, b"state").unwrap();
        fs::remove_file(&segments[2]).unwrap();
        let found = log::verify(dir.path()).unwrap();
        let refused = start(dir.path()).unwrap_err();
        assert_eq!(found.refusal.map(|refusal| refusal.to_string()), Some(refused.to_string()));
        assert!(refused.to_string().contains("its end is missing"), "{refused}");
        let plan = repaired(dir.path(), 10, &entries);
        assert_eq!((plan.checkpoints_lost, plan.entries_lost), (vec![checkpoint], 0));
        assert_eq!(start(dir.path()).unwrap().last_index, EntryIndex(10));

        let (dir, segments, entries) = written();
        fs::write(dir.path().join(format!("{:020}.{extension}", 3)), b"state").unwrap();
        segments.iter().for_each(|path| fs::remove_file(path).unwrap());
        let found = log::verify(dir.path()).unwrap();
        let refused = start(dir.path()).unwrap_err();
        assert_eq!(found.refusal.map(|refusal| refusal.to_string()), Some(refused.to_string()));
        repaired(dir.path(), 0, &entries);
    }
}

fn repaired(dir: &Path, kept: u64, entries: &[Entry]) -> RepairPlan {
    let before = names(dir);
    let plan = log::repair_plan(dir).unwrap().expect("there is something to repair");
    assert_eq!(plan.last_kept, EntryIndex(kept), "{plan}");
    assert_eq!(names(dir), before, "a plan changes nothing");
    let aside = log::repair(dir, &plan).unwrap();
    for path in plan.moved.iter().chain(&plan.trimmed) {
        assert!(aside.join(path.file_name().unwrap()).exists(), "the evidence is kept");
    }
    if kept == 0 {
        assert!(matches!(log::verify(dir), Err(LogError::NoLog { .. })), "nothing is left");
        return plan;
    }
    let found = log::verify(dir).unwrap();
    assert!(found.is_whole(), "{found:?}");
    let (_, recovered, found) = replay(dir, crate::support::options()).unwrap();
    assert_eq!((recovered.last_index.0, &found[..]), (kept, &entries[..kept as usize]));
    assert!(log::repair_plan(dir).unwrap().is_none());
    plan
}

#[test]
fn a_repair_cuts_in_front_of_the_damage_and_says_what_that_costs() {
    let (dir, segments, entries) = written();
    fs::write(dir.path().join(format!("{:020}.checkpoint", 14)), b"state").unwrap();
    fs::write(dir.path().join(format!("{:020}.checkpoint", 7)), b"state").unwrap();
    flip(&segments[1], 4096 + 2 * FRAME + 40);
    let plan = repaired(dir.path(), 7, &entries);
    assert_eq!((&plan.file, plan.position), (&segments[1], 4096 + 2 * FRAME as u64));
    assert_eq!((plan.entries_lost, plan.jobs_lost.len()), (7, 2));
    assert_eq!(plan.jobs_lost.iter().map(|lost| lost.count).sum::<u64>(), 14);
    assert_eq!(plan.jobs_lost[1].first, Offset(18));
    assert_eq!(plan.checkpoints_lost.len(), 1);
    assert!(plan.state_is_left);
    assert!(dir.path().join(format!("{:020}.checkpoint", 7)).exists());
    // The log goes on from there.
    let (log, _, _) = open(dir.path());
    Entry::facts(b"goes on").append(&log).unwrap();
    log.close().unwrap();
    assert_eq!(log.next_index(), EntryIndex(9));
}

#[test]
fn a_repair_does_without_a_header_or_a_segment_or_anything() {
    let (dir, segments, entries) = written();
    flip(&segments[1], 60);
    let plan = repaired(dir.path(), 5, &entries);
    // The segment that was prepared ahead may have been there already, or not yet.
    assert_eq!(plan.entries_lost, 10, "{plan}");
    assert!((2..=3).contains(&plan.moved.len()), "{plan}");
    let (dir, segments, entries) = written();
    fs::remove_file(&segments[2]).unwrap();
    assert!(log::repair_plan(dir.path()).unwrap().is_none(), "nothing proves that it was there");
    let (dir, segments, _) = written();
    fs::remove_file(&segments[1]).unwrap();
    repaired(dir.path(), 5, &entries);
    let (dir, segments, _) = written();
    flip(&segments[0], 60);
    repaired(dir.path(), 0, &entries);
}

#[test]
fn a_plan_serves_only_the_log_that_it_was_made_for() {
    let (dir, segments, _) = written();
    flip(&segments[1], 4096 + 2 * FRAME + 40);
    let plan = log::repair_plan(dir.path()).unwrap().unwrap();
    flip(&segments[1], 4096 + FRAME + 40);
    assert!(matches!(log::repair(dir.path(), &plan), Err(LogError::InvalidEntry { .. })));
    assert!(segments.iter().all(|path| path.exists()));
}
