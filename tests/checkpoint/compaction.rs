//! What is gone leaves the disk, and nothing else does, whatever crash comes.

use std::fs;
use std::sync::atomic::AtomicBool;
use std::thread;

use joblog::broker::{Broker, CompactReport, GroupKind, Kept, Start, Threads};
use joblog::types::Offset;
use tempfile::{TempDir, tempdir};

use crate::broker;
use crate::support::{Disk, Random};
use crate::world::{World, checkpoints, copy_dir, describe, open, read_all, twins};

/// Bytes of the segments in a directory.
fn disk_bytes(dir: &TempDir) -> u64 {
    let files = fs::read_dir(dir.path()).unwrap().map(|item| item.unwrap());
    let segments = files.filter(|file| file.path().extension().is_some_and(|e| e == "segment"));
    segments.map(|file| file.metadata().unwrap().len()).sum()
}

/// Two queues, of which one is worked off but for a few jobs that stay out.
fn world_with_a_past(dir: &TempDir, disk: &Disk) -> World {
    let mut world = World::new(open(dir.path(), disk), 11);
    world.job_bytes = 50_000;
    for _ in 0..20 {
        world.enqueue("mail", 5);
    }
    world.enqueue("bills", 3);
    world.job_bytes = 100;
    world.consume("mail", |offset| offset.0 % 40 == 7);
    world
}

/// Goes on with checkpoints until compaction has done something: it waits for the index tables of
/// sealed segments, which are made in the background.
fn compacted(world: &mut World) -> (Kept, CompactReport) {
    for _ in 0..1_000_000 {
        world.enqueue("images", 1);
        let (made, report) = world.broker.make_checkpoint_and_compact().unwrap();
        if report.bytes_freed > 0 {
            return (made, report);
        }
        thread::yield_now();
    }
    panic!("nothing is compacted")
}

#[test]
fn what_is_gone_leaves_the_disk_and_the_rest_stays_readable() {
    let dir = tempdir().unwrap();
    let disk = Disk::default();
    let mut world = world_with_a_past(&dir, &disk);
    let (_, first) = world.broker.make_checkpoint_and_compact().unwrap();
    assert_eq!(first.bytes_freed, 0, "the checkpoint before covers nothing");
    let before = disk_bytes(&dir);
    let (_, second) = compacted(&mut world);
    assert!(second.bytes_freed > 2 << 20, "{second:?}");
    assert!(disk_bytes(&dir) < before);

    let left = read_all(&world.broker);
    let mail: Vec<u64> = left.iter().filter(|(q, _)| q == "mail").map(|(_, o)| o.0).collect();
    let bills = left.iter().filter(|(q, _)| q == "bills").count();
    assert_eq!((mail, bills), (vec![7, 47, 87], 3));
    // A group that comes now passes over what is gone, on disk and in its counts.
    let made = world.broker.create_group("mail", "late", GroupKind::Work, Start::Beginning);
    made.result.unwrap();
    let late = world.broker.describe_group("mail", "late").result.unwrap();
    assert_eq!((late.counts.ready, late.counts.committed), (3, Offset(7)));
    world.broker.sync().unwrap();
    let state = describe(&world.broker);
    drop(world);
    let broker = open(dir.path(), &Disk::default());
    assert_eq!((describe(&broker), read_all(&broker)), (state, left));
}

#[test]
fn after_compaction_the_checkpoint_before_still_serves_and_none_is_refused() {
    let dir = tempdir().unwrap();
    let mut world = world_with_a_past(&dir, &Disk::default());
    compacted(&mut world);
    let (state, left) = (describe(&world.broker), read_all(&world.broker));
    drop(world);
    let newest = checkpoints(dir.path()).pop().unwrap();
    fs::write(newest, b"no checkpoint").unwrap();
    let copy = copy_dir(dir.path());
    let broker = open(copy.path(), &Disk::default());
    assert_eq!((describe(&broker), read_all(&broker)), (state, left));
    for path in checkpoints(dir.path()) {
        fs::write(path, b"no checkpoint").unwrap();
    }
    let opened = Broker::open(dir.path(), Disk::default().options(), broker::options());
    assert!(opened.is_err(), "entries are missing that no checkpoint stands for");
}

/// One sweep is enough, also for what the segment that grows has, and either file of its
/// checkpoint serves.
#[test]
fn a_sweep_drops_all_that_is_gone_at_once_and_either_twin_serves() {
    let dir = tempdir().unwrap();
    let world = world_with_a_past(&dir, &Disk::default());
    let before = disk_bytes(&dir);
    let report = world.broker.sweep(true, &AtomicBool::new(false)).unwrap();
    assert!(report.bytes_freed > before / 2, "{report:?} of {before}");
    assert_eq!((checkpoints(dir.path()).len(), twins(dir.path()).len()), (1, 1));
    let again = world.broker.sweep(true, &AtomicBool::new(false)).unwrap();
    assert_eq!(again.bytes_freed, 0, "nothing is left to drop");
    let (state, left) = (describe(&world.broker), read_all(&world.broker));
    drop(world);
    for lost in [checkpoints(dir.path()), twins(dir.path())] {
        let copy = copy_dir(dir.path());
        fs::write(copy.path().join(lost[0].file_name().unwrap()), b"no checkpoint").unwrap();
        let broker = open(copy.path(), &Disk::default());
        assert_eq!((describe(&broker), read_all(&broker)), (state.clone(), left.clone()));
        // The next checkpoint is made from the one that can be read, and that stays.
        let mut world = World::new(broker, 13);
        world.work(20);
        world.broker.make_checkpoint().unwrap();
        let state = describe(&world.broker);
        drop(world);
        fs::write(checkpoints(copy.path()).pop().unwrap(), b"no checkpoint").unwrap();
        assert_eq!(describe(&open(copy.path(), &Disk::default())), state);
    }
}

#[test]
fn a_power_cut_anywhere_in_a_sweep_loses_nothing_that_was_synced() {
    let base = tempdir().unwrap();
    let world = world_with_a_past(&base, &Disk::default());
    Threads::start(&world.broker).unwrap().stop().unwrap();
    drop(world);
    let promised = read_all(&open(copy_dir(base.path()).path(), &Disk::default()));
    let mut cut_at = 0;
    loop {
        let dir = copy_dir(base.path());
        let disk = Disk::over(dir.path());
        let broker = open(dir.path(), &disk);
        broker.settle();
        disk.cut_power_after(cut_at);
        let report = broker.sweep(true, &AtomicBool::new(false)).unwrap();
        assert!(report.bytes_freed > 0);
        assert_eq!(read_all(&broker), promised);
        drop(broker);
        for seed in 0..2 {
            let left = tempdir().unwrap();
            disk.leave(left.path(), &mut Random(cut_at * 10 + seed));
            let broker = open(left.path(), &Disk::default());
            assert_eq!(read_all(&broker), promised, "cut at {cut_at}, seed {seed}");
        }
        if !disk.is_cut() {
            break;
        }
        cut_at += 1;
    }
    assert!(cut_at > 15, "only {cut_at} calls");
}

#[test]
fn a_power_cut_anywhere_in_checkpoint_and_compaction_loses_nothing_that_was_synced() {
    let base = tempdir().unwrap();
    let world = world_with_a_past(&base, &Disk::default());
    Threads::start(&world.broker).unwrap().stop().unwrap();
    drop(world);
    let promised = read_all(&open(copy_dir(base.path()).path(), &Disk::default()));
    let mut cut_at = 0;
    loop {
        let dir = copy_dir(base.path());
        let disk = Disk::over(dir.path());
        let mut world = World::new(open(dir.path(), &disk), 12);
        disk.cut_power_after(cut_at);
        let (made, _) = compacted(&mut world);
        let after = read_all(&world.broker);
        drop(world);
        for seed in 0..2 {
            let left = tempdir().unwrap();
            disk.leave(left.path(), &mut Random(cut_at * 10 + seed));
            let broker = open(left.path(), &Disk::default());
            let found = read_all(&broker);
            let what = format!("cut at {cut_at}, seed {seed}: {found:?}");
            assert!(promised.iter().all(|job| found.contains(job)), "{what}");
            assert!(found.iter().all(|job| after.contains(job)), "{what}");
            assert!(disk.is_cut() || broker.kept().index == made.index, "{what}");
        }
        if !disk.is_cut() {
            break;
        }
        cut_at += 1;
    }
    assert!(cut_at > 15, "only {cut_at} calls");
}
