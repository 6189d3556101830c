//! Checkpoints through the broker's face: a start takes the newest whole one and replays only what
//! came after, whatever crash or damage came between.

#![allow(
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test may stop at what it did not expect"
)]

#[path = "../common/broker.rs"]
mod broker;
mod compaction;
mod crash;
#[path = "../log/support.rs"]
#[allow(dead_code, reason = "the disk that loses power is shared; entries are not used here")]
mod support;
mod world;

use std::fs;
use std::path::Path;

use joblog::broker::{Broker, LogError, OpenError, Threads};
use joblog::log::Recovery;
use joblog::types::{EntryIndex, Stamp, Term};
use tempfile::tempdir;

use support::{Disk, Random};
use world::{World, checkpoints, copy_dir, describe, open};

#[test]
fn a_start_replays_only_what_came_after_the_checkpoint() {
    let dir = tempdir().unwrap();
    let mut world = World::new(open(dir.path(), &Disk::default()), 1);
    world.work(200);
    let made = world.broker.make_checkpoint().unwrap();
    let index = made.index;
    assert!(index.0 >= 100, "{index}");
    assert_eq!(world.broker.make_checkpoint().unwrap(), made, "nothing came in between");
    world.work(20);
    world.broker.sync().unwrap();
    let before = describe(&world.broker);
    let last = world.last_index();
    drop(world);

    let broker = open(dir.path(), &Disk::default());
    assert_eq!(broker.restored(), last.0 - index.0, "entries behind the checkpoint");
    assert_eq!(broker.kept().index, index);
    assert_eq!(describe(&broker), before);

    Threads::start(&broker).unwrap().stop().unwrap();
    drop(broker);
    assert_eq!(checkpoints(dir.path()).len(), 2);
    let broker = open(dir.path(), &Disk::default());
    assert_eq!(broker.restored(), 0, "a clean stop makes a checkpoint");
    assert_eq!(describe(&broker), before);
}

#[test]
fn many_lives_end_in_the_state_that_the_whole_log_gives() {
    let dir = tempdir().unwrap();
    for life in 0..12 {
        let mut world = World::new(open(dir.path(), &Disk::default()), life);
        let mut random = Random(life);
        for _ in 0..random.below(4) {
            world.work(random.below(80));
            world.broker.make_checkpoint().unwrap();
        }
        world.work(random.below(60));
        world.broker.sync().unwrap();
        let before = describe(&world.broker);
        drop(world);
        assert_eq!(describe(&open(dir.path(), &Disk::default())), before, "life {life}");
        let copy = copy_dir(dir.path());
        checkpoints(copy.path()).iter().for_each(|path| fs::remove_file(path).unwrap());
        assert_eq!(describe(&open(copy.path(), &Disk::default())), before, "life {life}, from 1");
    }
}

/// The copy of a log with two checkpoints, and the state that it must come back with.
fn two_checkpoints() -> (tempfile::TempDir, String, u64) {
    let dir = tempdir().unwrap();
    let mut world = World::new(open(dir.path(), &Disk::default()), 3);
    world.work(100);
    let first = world.broker.make_checkpoint().unwrap();
    world.work(50);
    world.broker.make_checkpoint().unwrap();
    let behind_first = world.last_index().0 - first.index.0;
    let state = describe(&world.broker);
    drop(world);
    (dir, state, behind_first)
}

#[test]
fn a_damaged_checkpoint_falls_back_to_the_one_before_and_then_to_the_log() {
    let (dir, state, behind_first) = two_checkpoints();
    let newest = checkpoints(dir.path()).pop().unwrap();
    let whole = fs::read(&newest).unwrap();
    let mut random = Random(9);
    for _ in 0..40 {
        let copy = copy_dir(dir.path());
        let mut bytes = whole.clone();
        match random.below(2) {
            0 => bytes[random.below(whole.len() as u64) as usize] ^= 1 << random.below(8),
            _ => bytes.truncate(random.below(whole.len() as u64) as usize),
        }
        fs::write(copy.path().join(newest.file_name().unwrap()), bytes).unwrap();
        let broker = open(copy.path(), &Disk::default());
        assert_eq!((describe(&broker), broker.restored()), (state.clone(), behind_first));
        // The next one is made from the whole one, and the damaged one goes.
        let mut world = World::new(broker, 4);
        world.work(20);
        world.broker.make_checkpoint().unwrap();
        assert!(!checkpoints(copy.path()).iter().any(|path| path.ends_with(&newest)));
        assert_eq!(checkpoints(copy.path()).len(), 2);
    }
    for path in checkpoints(dir.path()) {
        fs::write(path, b"no checkpoint").unwrap();
    }
    assert_eq!(describe(&open(dir.path(), &Disk::default())), state);
}

#[test]
fn a_checkpoint_above_the_logs_end_is_refused() {
    let dir = tempdir().unwrap();
    let mut world = World::new(open(dir.path(), &Disk::default()), 5);
    world.work(60);
    world.broker.make_checkpoint().unwrap();
    let old = copy_dir(dir.path());
    world.work(60);
    world.broker.make_checkpoint().unwrap();
    let newest = checkpoints(dir.path()).pop().unwrap();
    drop(world);
    let refused = |dir: &Path| {
        let opened = Broker::open(dir, Disk::default().options(), broker::options());
        let log_error = matches!(opened, Err(OpenError::Log(LogError::Damaged { .. })));
        assert!(log_error || matches!(opened, Err(OpenError::Checkpoint(_))), "{opened:?}");
    };
    fs::copy(&newest, old.path().join(newest.file_name().unwrap())).unwrap();
    refused(old.path());
    support::segments(old.path()).iter().for_each(|path| fs::remove_file(path).unwrap());
    refused(old.path());
}

/// With no entry behind the checkpoint, the log's clock goes on from the checkpoint.
#[test]
fn the_clock_of_the_log_never_goes_back_over_a_clean_restart() {
    let dir = tempdir().unwrap();
    let recovery = Recovery::open(dir.path(), Disk::default().options()).unwrap();
    let log = recovery.start(Term(1)).unwrap();
    let far_ms = 1 << 50;
    let mut entry = support::Entry::facts(&[]);
    entry.wall_ms = far_ms;
    entry.append(&log).unwrap();
    log.close().unwrap();
    drop(log);
    for life in 0..2 {
        let broker = open(dir.path(), &Disk::default());
        assert_eq!(broker.restored(), 1 - life, "entries replayed");
        Threads::start(&broker).unwrap().stop().unwrap();
    }
    let mut world = World::new(open(dir.path(), &Disk::default()), 6);
    world.work(5);
    world.broker.sync().unwrap();
    drop(world);
    let mut last = Stamp::default();
    let mut recovery = Recovery::open(dir.path(), Disk::default().options()).unwrap();
    recovery
        .replay(EntryIndex(0), &mut |entry| {
            assert!(entry.stamp.log_ms >= last.log_ms, "{:?} after {last:?}", entry.stamp);
            last = entry.stamp;
            Ok(())
        })
        .unwrap();
    assert!(last.log_ms >= far_ms);
}
