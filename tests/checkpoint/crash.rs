//! Crashes around checkpoints: the power is cut, or the process is gone, at every call to the file
//! system in turn.

use std::fs::{self, File};
use std::io;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use joblog::broker::Threads;
use joblog::log::{DataFile, Files, LogOptions, SystemFiles};
use joblog::types::EntryIndex;
use tempfile::tempdir;

use crate::broker;
use crate::support::{Disk, Random, SEGMENT_BYTES};
use crate::world::{World, checkpoints, copy_dir, describe, open};

/// What a cut leaves is the first checkpoint or the second, and at least the log that it covers.
#[test]
fn a_power_cut_anywhere_loses_no_state_that_was_synced() {
    let base = tempdir().unwrap();
    let mut world = World::new(open(base.path(), &Disk::default()), 1);
    world.work(60);
    Threads::start(&world.broker).unwrap().stop().unwrap();
    let promised = describe(&open(copy_dir(base.path()).path(), &Disk::default()));
    drop(world);
    let (mut cut_at, mut fell_back) = (0, 0);
    let second = loop {
        let dir = copy_dir(base.path());
        let disk = Disk::over(dir.path());
        let mut world = World::new(open(dir.path(), &disk), 2);
        let first = world.broker.kept();
        disk.cut_power_after(cut_at);
        world.work(30);
        let made = world.broker.make_checkpoint().unwrap();
        let after = describe(&world.broker);
        let last_index = world.last_index();
        drop(world);
        for seed in 0..6 {
            let left = tempdir().unwrap();
            disk.leave(left.path(), &mut Random(cut_at * 100 + seed));
            let broker = open(left.path(), &Disk::default());
            let kept = broker.kept().index;
            let old = kept == first.index && disk.is_cut();
            assert!(old || kept == made.index, "{kept} after a cut at {cut_at}");
            let last = broker.list_queues("", 1).gates[0].index;
            assert_eq!(EntryIndex(kept.0 + broker.restored()), last);
            if kept == made.index {
                assert_eq!(describe(&broker), after, "cut at {cut_at}");
            } else if broker.restored() == 0 {
                assert_eq!(describe(&broker), promised, "cut at {cut_at}");
                fell_back += 1;
            }
        }
        if !disk.is_cut() {
            break (made.index, last_index);
        }
        cut_at += 1;
    };
    assert_eq!(second.0, second.1);
    assert!(cut_at > 6 && fell_back > 0, "{cut_at} calls, {fell_back} lost all that was new");
}

/// The file system of the machine, which ends the process at its n-th call.
#[derive(Debug)]
struct Aborting {
    left: Arc<AtomicU64>,
}

impl Aborting {
    fn step(&self) {
        step(&self.left);
    }

    fn wrap(&self, file: Box<dyn DataFile>) -> Box<dyn DataFile> {
        Box::new(AbortingFile { left: Arc::clone(&self.left), file })
    }
}

/// Ends the process as kill -9 does: nothing is flushed, no destructor runs.
fn step(left: &AtomicU64) {
    if left.fetch_sub(1, Ordering::SeqCst) == 1 {
        std::process::abort();
    }
}

impl Files for Aborting {
    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        SystemFiles.create_dir(dir)
    }
    fn lock(&self, path: &Path) -> io::Result<File> {
        SystemFiles.lock(path)
    }
    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        SystemFiles.list(dir)
    }
    fn open(&self, path: &Path) -> io::Result<File> {
        SystemFiles.open(path)
    }
    fn create(&self, path: &Path, bytes: u32) -> io::Result<Box<dyn DataFile>> {
        SystemFiles.create(path, bytes).map(|file| self.wrap(file))
    }
    fn create_growing(&self, path: &Path) -> io::Result<Box<dyn DataFile>> {
        self.step();
        SystemFiles.create_growing(path).map(|file| self.wrap(file))
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.step();
        SystemFiles.rename(from, to)?;
        self.step();
        Ok(())
    }
    fn reuse(&self, path: &Path) -> io::Result<Box<dyn DataFile>> {
        SystemFiles.reuse(path).map(|file| self.wrap(file))
    }
    fn remove(&self, path: &Path) -> io::Result<()> {
        self.step();
        SystemFiles.remove(path)
    }
    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.step();
        SystemFiles.sync_dir(dir)
    }
    fn random_id(&self) -> io::Result<[u8; 16]> {
        SystemFiles.random_id()
    }
    fn wall_ms(&self) -> u64 {
        SystemFiles.wall_ms()
    }
}

#[derive(Debug)]
struct AbortingFile {
    left: Arc<AtomicU64>,
    file: Box<dyn DataFile>,
}

impl DataFile for AbortingFile {
    fn write_all_at(&self, bytes: &[u8], position: u64) -> io::Result<()> {
        // Half of it may be there.
        self.file.write_all_at(&bytes[..bytes.len() / 2], position)?;
        step(&self.left);
        self.file.write_all_at(bytes, position)
    }
    fn sync_data(&self) -> io::Result<()> {
        step(&self.left);
        self.file.sync_data()
    }
    fn file(&self) -> &File {
        self.file.file()
    }
}

const DIR: &str = "JOBLOG_TEST_ABORT_DIR";
const CALLS: &str = "JOBLOG_TEST_ABORT_AFTER";

/// What the other test runs in a process of its own; by itself it does nothing.
#[test]
fn makes_checkpoints_until_it_aborts() {
    let (Ok(dir), Ok(calls)) = (std::env::var(DIR), std::env::var(CALLS)) else { return };
    let left = Arc::new(AtomicU64::new(u64::MAX));
    let files = Arc::new(Aborting { left: Arc::clone(&left) });
    let options =
        LogOptions { segment_bytes: SEGMENT_BYTES, prefill: false, files, ..LogOptions::default() };
    let mut world = World::new(broker::open(Path::new(&dir), &options), 7);
    let mut calls = calls.parse().unwrap();
    for _ in 0..3 {
        world.work(40);
        world.broker.sync().unwrap();
        fs::write(Path::new(&dir).join("seen.txt"), describe(&world.broker)).unwrap();
        left.store(calls, Ordering::SeqCst);
        world.broker.make_checkpoint().unwrap();
        calls = left.swap(u64::MAX, Ordering::SeqCst);
    }
}

#[test]
fn a_process_that_is_gone_in_the_middle_of_a_checkpoint_loses_nothing() {
    let mut ended_well = false;
    let mut calls = 1;
    while !ended_well {
        let dir = tempdir().unwrap();
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "crash::makes_checkpoints_until_it_aborts", "--nocapture"])
            .env(DIR, dir.path())
            .env(CALLS, calls.to_string())
            .output()
            .unwrap();
        ended_well = child.status.success();
        let seen = fs::read_to_string(dir.path().join("seen.txt")).unwrap();
        let broker = open(dir.path(), &Disk::default());
        let found = describe(&broker);
        assert_eq!(found, seen, "gone at call {calls}");
        drop(broker);
        let copy = copy_dir(dir.path());
        checkpoints(copy.path()).iter().for_each(|path| fs::remove_file(path).unwrap());
        assert_eq!(describe(&open(copy.path(), &Disk::default())), found, "at call {calls}");
        calls += 1;
    }
    assert!(calls > 20, "only {calls} calls");
}
