//! The log while it is open.

use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use joblog::log::{DataFile, EntryView, Files, LogError, LogOptions, Recovery, SystemFiles};
use joblog::types::{EntryIndex, Offset, QueueId, Term};
use parking_lot::Mutex;
use tempfile::tempdir;

use crate::support::{
    Disk, Entry, Fail, Random, SEGMENT_BYTES, Writer, open, open_with, options, replay, segments,
    used_segments,
};

const LONG: Duration = Duration::from_secs(60);

#[test]
fn a_job_is_measured_in_memory_and_read_once_written() {
    let dir = tempdir().unwrap();
    let (log, _, _) = open(dir.path());
    let entry = Entry::job(1, 7, b"body");
    assert_eq!(entry.append(&log).unwrap(), EntryIndex(1));
    assert_eq!(log.find(QueueId(1), Offset(7)).map(|job| job.bytes), Some(4));
    let body = || log.with_body(QueueId(1), Offset(7), <[u8]>::to_vec);
    assert_eq!(body().as_deref(), Some(&b"body"[..]));
    let location = log.locate(QueueId(1), Offset(7)).unwrap();
    assert!(matches!(location.read(), Err(LogError::NotWritten)));
    assert_eq!((log.written(), log.synced()), (EntryIndex(0), EntryIndex(0)));
    assert_eq!(log.write().unwrap(), EntryIndex(1));
    assert_eq!((log.written(), log.synced()), (EntryIndex(1), EntryIndex(0)));
    entry.assert_readable(&log);
    assert_eq!(body().as_deref(), Some(&b"body"[..]));
    assert_eq!(log.sync().unwrap(), EntryIndex(1));
    assert_eq!((log.written(), log.synced()), (EntryIndex(1), EntryIndex(1)));
    assert!(log.find(QueueId(1), Offset(8)).is_none());
    assert!(log.locate(QueueId(2), Offset(7)).is_none());
    log.forget(QueueId(1));
    assert!(log.locate(QueueId(1), Offset(7)).is_none());
    assert_eq!(body(), None);
    assert_eq!(location.read().unwrap().body, b"body", "a location outlives the index");
}

#[test]
fn a_body_outlives_the_log() {
    let dir = tempdir().unwrap();
    let (log, _, _) = open(dir.path());
    Entry::job(1, 0, b"a body to keep").append(&log).unwrap();
    log.write().unwrap();
    let body = log.locate(QueueId(1), Offset(0)).unwrap().body().unwrap();
    log.close().unwrap();
    drop(log);
    assert_eq!(body, b"a body to keep"[..]);
}

#[test]
fn a_reopened_log_replays_the_same_entries_and_goes_on() {
    for seed in 0..12 {
        let mut random = Random(seed);
        let dir = tempdir().unwrap();
        let mut entries: Vec<Entry> = Vec::new();
        for _ in 0..4 {
            let (log, recovered, found) = open(dir.path());
            assert_eq!(found, entries, "seed {seed}");
            assert_eq!(recovered.torn, None);
            assert_eq!(log.next_index().0, entries.len() as u64 + 1);
            entries.iter().for_each(|entry| entry.assert_readable(&log));
            let mut writer = Writer::new(&entries);
            for _ in 0..random.below(150) {
                let entry = writer.entry(&mut random, 6_000);
                entry.append(&log).unwrap();
                entries.push(entry);
                if random.below(5) == 0 {
                    log.write().unwrap();
                }
            }
            match random.below(2) {
                0 => log.close().unwrap(),
                _ => drop(log.write().unwrap()),
            }
            entries.iter().for_each(|entry| entry.assert_readable(&log));
        }
    }
}

#[test]
fn jobs_are_found_on_both_sides_of_a_roll_and_after_a_reopen() {
    let dir = tempdir().unwrap();
    let (log, _, _) = open(dir.path());
    let entries: Vec<_> =
        (0..40).map(|offset| Entry::job(1, offset, &Random(offset).bytes(100_000))).collect();
    for entry in &entries {
        entry.append(&log).unwrap();
        let offset = Offset(entry.base_offset);
        assert_eq!(log.find(QueueId(1), offset).map(|job| job.bytes), Some(100_000), "in memory");
        if entry.base_offset % 15 == 14 {
            log.write().unwrap();
        }
    }
    log.write().unwrap();
    assert_eq!(log.stats().segments, 4);
    entries.iter().for_each(|entry| entry.assert_readable(&log));
    drop(log);
    let (log, _, found) = open(dir.path());
    assert_eq!(found, entries);
    entries.iter().for_each(|entry| entry.assert_readable(&log));
}

#[test]
fn entries_are_read_back_from_old_segments_and_the_growing_one() {
    let dir = tempdir().unwrap();
    let mut random = Random(5);
    let mut entries = Vec::new();
    for _ in 0..3 {
        let (log, _, found) = open(dir.path());
        assert_eq!(found, entries);
        let mut writer = Writer::new(&entries);
        for _ in 0..40 {
            let entry = writer.entry(&mut random, 30_000);
            entry.append(&log).unwrap();
            entries.push(entry);
        }
        let not_written =
            log.entries(EntryIndex(0), EntryIndex(entries.len() as u64), &mut |_| Ok(()));
        assert!(matches!(not_written, Err(LogError::NotWritten)));
        log.write().unwrap();
        assert!(log.stats().segments > 1);
        for _ in 0..20 {
            let after = random.below(entries.len() as u64 + 1);
            let through = after + random.below(entries.len() as u64 + 1 - after);
            let mut read = Vec::new();
            let collect = &mut |view: &EntryView<'_>| {
                assert_eq!(view.index.0, after + 1 + read.len() as u64);
                read.push(Entry::of(view));
                Ok(())
            };
            log.entries(EntryIndex(after), EntryIndex(through), collect).unwrap();
            assert_eq!(read, entries[after as usize..through as usize]);
        }
    }
}

#[test]
fn the_systems_own_files_serve_with_filled_segments_and_without() {
    for prefill in [true, false] {
        let options =
            || LogOptions { segment_bytes: SEGMENT_BYTES, prefill, ..LogOptions::default() };
        let dir = tempdir().unwrap();
        let dir = dir.path().join("made/by/the/log");
        let (log, _, _) = open_with(&dir, options());
        let entries: Vec<_> =
            (0..5).map(|offset| Entry::job(1, offset, &Random(offset).bytes(400_000))).collect();
        for entry in &entries {
            entry.append(&log).unwrap();
            log.sync().unwrap();
        }
        entries.iter().for_each(|entry| entry.assert_readable(&log));
        drop(log);
        let (log, _, found) = open_with(&dir, options());
        assert_eq!(found, entries);
        entries.iter().for_each(|entry| entry.assert_readable(&log));
        log.close().unwrap();
    }
}

#[test]
fn the_largest_entry_fits_and_one_byte_more_is_refused() {
    let dir = tempdir().unwrap();
    let (log, _, _) = open(dir.path());
    let max = options().entry_bytes_max();
    let entry = |bytes: u64| Entry::job(1, bytes, &vec![1; (bytes - 88 - 12) as usize]);
    match entry(max + 1).append(&log).unwrap_err() {
        LogError::EntryTooLarge { bytes, max: allowed } => {
            assert_eq!((bytes, allowed), (max + 1, max));
        }
        other => panic!("{other}"),
    }
    for _ in 0..2 {
        let entry = Entry { queue: 1 + log.next_index().0 as u32, ..entry(max) };
        entry.append(&log).unwrap();
        log.write().unwrap();
        entry.assert_readable(&log);
    }
    log.close().unwrap();
    drop(log);
    let (_, recovered, found) = open(dir.path());
    assert_eq!((found.len(), recovered.proved), (2, EntryIndex(2)), "also the mark had room");
}

#[test]
fn malformed_entries_are_refused_and_leave_nothing() {
    let dir = tempdir().unwrap();
    let (log, _, _) = open(dir.path());
    Entry::job(1, 5, b"x").append(&log).unwrap();
    let below = Entry::job(1, 5, b"y").append(&log);
    assert!(matches!(below, Err(LogError::InvalidEntry { .. })));
    let no_queue = Entry { queue: 0, ..Entry::job(1, 6, b"y") }.append(&log);
    assert!(matches!(no_queue, Err(LogError::InvalidEntry { .. })));
    assert_eq!(Entry::job(1, 6, b"z").append(&log).unwrap(), EntryIndex(2));
    log.sync().unwrap();
    drop(log);
    assert_eq!(open(dir.path()).2.len(), 2);
}

#[test]
fn appenders_writers_and_syncers_keep_order_and_lose_nothing() {
    const APPENDERS: u32 = 3;
    const EACH: u64 = 1_500;
    let dir = tempdir().unwrap();
    let (log, _, _) = open(dir.path());
    let appended = Mutex::new(Vec::new());
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let (log, appended, done) = (&log, &appended, &done);
        let others = [
            scope.spawn(move || {
                let mut synced = EntryIndex(0);
                while log.wait_for_append(synced, LONG) || !done.load(Ordering::Acquire) {
                    let next = log.sync().unwrap();
                    assert!(next >= synced);
                    synced = next;
                }
            }),
            scope.spawn(move || {
                while !done.load(Ordering::Acquire) {
                    assert!(log.written() <= log.write().unwrap());
                    thread::yield_now();
                }
            }),
        ];
        let appenders: Vec<_> = (1..=APPENDERS)
            .map(|queue| {
                scope.spawn(move || {
                    let mut random = Random(u64::from(queue));
                    for offset in 0..EACH {
                        let len = random.below(2_000);
                        let entry = Entry::job(queue, offset, &random.bytes(len));
                        let mut order = appended.lock();
                        let index = entry.append(log).unwrap();
                        order.push(entry);
                        assert_eq!(index.0, order.len() as u64);
                        drop(order);
                        assert_eq!(
                            log.find(QueueId(queue), Offset(offset)).map(|job| job.bytes),
                            Some(len as u32)
                        );
                        if offset % 10 == 0 {
                            assert!(log.write().unwrap() >= index);
                            log.locate(QueueId(queue), Offset(offset)).unwrap().read().unwrap();
                        }
                        if offset % 100 == 0 {
                            assert!(log.sync().unwrap() >= index);
                        }
                    }
                })
            })
            .collect();
        appenders.into_iter().for_each(|appender| appender.join().unwrap());
        done.store(true, Ordering::Release);
        log.wake();
        others.into_iter().for_each(|other| other.join().unwrap());
    });
    log.close().unwrap();
    let appended = appended.into_inner();
    appended.iter().for_each(|entry| entry.assert_readable(&log));
    drop(log);
    assert_eq!(open(dir.path()).2, appended);
}

#[test]
fn waiting_ends_by_an_append_a_wake_or_the_end() {
    let dir = tempdir().unwrap();
    let (log, _, _) = open(dir.path());
    let log = Arc::new(log);
    assert!(!log.wait_for_append(EntryIndex(0), Duration::ZERO));
    let waiter = |beyond| {
        let log = Arc::clone(&log);
        thread::spawn(move || log.wait_for_append(EntryIndex(beyond), LONG))
    };
    let waiting = waiter(0);
    Entry::facts(b"f").append(&log).unwrap();
    assert!(waiting.join().unwrap());
    assert!(log.wait_for_append(EntryIndex(0), LONG), "what is there is not waited for");
    let waiting = waiter(1);
    log.wake();
    assert!(!waiting.join().unwrap());
    log.wake();
    assert!(log.wait_for_append(EntryIndex(0), LONG), "news come before a wake");
    assert!(!log.wait_for_append(EntryIndex(1), LONG), "which is not forgotten");
    let waiting = waiter(1);
    log.close().unwrap();
    assert!(!waiting.join().unwrap());
}

#[test]
fn a_closed_log_refuses_appends_is_proved_and_still_reads() {
    let dir = tempdir().unwrap();
    let (log, _, _) = open(dir.path());
    let entry = Entry::job(1, 0, b"body");
    entry.append(&log).unwrap();
    log.close().unwrap();
    log.close().unwrap();
    assert!(matches!(entry.append(&log), Err(LogError::Closed)));
    assert_eq!(log.synced(), EntryIndex(1));
    entry.assert_readable(&log);
    drop(log);
    let (_, recovered, found) = replay(dir.path(), options()).unwrap();
    assert_eq!((recovered.proved, found), (EntryIndex(1), vec![entry]));
}

#[test]
fn the_first_failed_write_poisons() {
    let dir = tempdir().unwrap();
    let disk = Disk::over(dir.path());
    let log = replay(dir.path(), disk.options()).unwrap().0.start(Term(1)).unwrap();
    Entry::job(1, 0, b"kept").append(&log).unwrap();
    log.sync().unwrap();
    Entry::job(1, 1, b"lost").append(&log).unwrap();
    disk.fail(Fail::Write);
    assert!(matches!(log.write(), Err(LogError::Poisoned { .. })));
    // The disk is well again, but what it has is unknown.
    disk.fail(Fail::Nothing);
    let cause = log.poisoned().unwrap();
    assert!(cause.contains("injected") && cause.contains(".segment"), "{cause}");
    for refused in [Entry::facts(b"f").append(&log), log.write(), log.sync()] {
        assert!(matches!(refused, Err(LogError::Poisoned { cause: c }) if c == cause));
    }
    assert!(matches!(log.close(), Err(LogError::Poisoned { .. })));
    assert_eq!((log.written(), log.synced()), (EntryIndex(1), EntryIndex(1)));
    assert_eq!(log.find(QueueId(1), Offset(1)).map(|job| job.bytes), Some(4));
    drop(log);
    assert_eq!(open(dir.path()).2, [Entry::job(1, 0, b"kept")]);
}

#[test]
fn the_first_failed_sync_poisons_and_is_not_tried_again() {
    let dir = tempdir().unwrap();
    let disk = Disk::over(dir.path());
    let log = replay(dir.path(), disk.options()).unwrap().0.start(Term(1)).unwrap();
    Entry::facts(b"written").append(&log).unwrap();
    disk.fail(Fail::Sync);
    assert!(matches!(log.sync(), Err(LogError::Poisoned { .. })));
    disk.fail(Fail::Nothing);
    assert!(matches!(log.sync(), Err(LogError::Poisoned { .. })));
    assert!(matches!(log.mark(), Err(LogError::Poisoned { .. })));
    assert_eq!((log.written(), log.synced()), (EntryIndex(1), EntryIndex(0)));
}

#[test]
fn a_full_disk_refuses_a_new_segment_and_poisons_nothing() {
    let dir = tempdir().unwrap();
    let disk = Disk::over(dir.path());
    let log = replay(dir.path(), disk.options()).unwrap().0.start(Term(1)).unwrap();
    disk.fail(Fail::Create);
    let body = vec![7; 300_000];
    let mut offset = 0;
    let refused = loop {
        match Entry::job(1, offset, &body).append(&log) {
            Ok(_) => offset += 1,
            Err(error) => break error,
        }
    };
    assert!(matches!(refused, LogError::NoSpace { bytes: SEGMENT_BYTES, .. }), "{refused}");
    assert!(matches!(Entry::job(1, offset, &body).append(&log), Err(LogError::NoSpace { .. })));
    // What still fits is taken, and what was taken is safe.
    Entry::facts(b"small").append(&log).unwrap();
    log.sync().unwrap();
    assert_eq!(log.poisoned(), None);
    disk.fail(Fail::Nothing);
    Entry::job(1, offset, &body).append(&log).unwrap();
    log.close().unwrap();
    drop(log);
    assert_eq!(open(dir.path()).2.len() as u64, offset + 2);
}

#[test]
fn sealed_segments_are_synced_without_being_asked() {
    let dir = tempdir().unwrap();
    let (log, _, _) = open(dir.path());
    for offset in 0..4 {
        Entry::job(1, offset, &vec![7; 400_000]).append(&log).unwrap();
        log.write().unwrap();
    }
    // Two entries fill a segment, so the first two are sealed.
    while log.synced() < EntryIndex(2) {
        assert_eq!(log.poisoned(), None);
        thread::yield_now();
    }
    assert_eq!(log.synced(), EntryIndex(2));
}

/// The files of the machine, whose syncs take as long as a test holds them up.
#[derive(Clone, Debug, Default)]
struct SlowSyncs {
    held_up: Arc<Mutex<()>>,
}

#[derive(Debug)]
struct SlowFile {
    held_up: Arc<Mutex<()>>,
    file: Box<dyn DataFile>,
}

impl SlowSyncs {
    fn wrap(&self, file: Box<dyn DataFile>) -> Box<dyn DataFile> {
        Box::new(SlowFile { held_up: Arc::clone(&self.held_up), file })
    }
}

impl Files for SlowSyncs {
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
        SystemFiles.create_growing(path).map(|file| self.wrap(file))
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        SystemFiles.rename(from, to)
    }
    fn reuse(&self, path: &Path) -> io::Result<Box<dyn DataFile>> {
        SystemFiles.reuse(path).map(|file| self.wrap(file))
    }
    fn remove(&self, path: &Path) -> io::Result<()> {
        SystemFiles.remove(path)
    }
    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        drop(self.held_up.lock());
        SystemFiles.sync_dir(dir)
    }
    fn random_id(&self) -> io::Result<[u8; 16]> {
        SystemFiles.random_id()
    }
    fn wall_ms(&self) -> u64 {
        SystemFiles.wall_ms()
    }
}

impl DataFile for SlowFile {
    fn write_all_at(&self, bytes: &[u8], position: u64) -> io::Result<()> {
        self.file.write_all_at(bytes, position)
    }
    fn sync_data(&self) -> io::Result<()> {
        drop(self.held_up.lock());
        self.file.sync_data()
    }
    fn file(&self) -> &File {
        self.file.file()
    }
}

#[test]
fn who_needs_a_segment_waits_for_no_sync() {
    let dir = tempdir().unwrap();
    let files = SlowSyncs::default();
    let options = LogOptions {
        segment_bytes: SEGMENT_BYTES,
        prefill: false,
        files: Arc::new(files.clone()),
        ..LogOptions::default()
    };
    let (log, _, _) = open_with(dir.path(), options.clone());
    log.settle();
    let held_up = files.held_up.lock();
    let (done, appended) = std::sync::mpsc::sync_channel(1);
    thread::scope(|scope| {
        let log = &log;
        scope.spawn(move || {
            for offset in 0..20 {
                Entry::job(1, offset, &vec![7; 400_000]).append(log).unwrap();
                log.write().unwrap();
            }
            done.send(log.segments().len()).unwrap();
        });
        let segments = appended.recv_timeout(LONG);
        // Whatever came, the thread has to end.
        drop(held_up);
        assert_eq!(segments, Ok(10), "while no sync had ended");
    });
    log.close().unwrap();
    drop(log);
    assert_eq!(open_with(dir.path(), options).2.len(), 20);
}

#[test]
fn a_log_is_opened_once_at_a_time_and_within_bounds() {
    let dir = tempdir().unwrap();
    let (log, _, _) = open(dir.path());
    assert!(matches!(Recovery::open(dir.path(), options()), Err(LogError::Locked { .. })));
    drop(log);
    assert!(Recovery::open(dir.path(), options()).is_ok());
    for segment_bytes in [0, 4096, SEGMENT_BYTES + 1, u32::MAX] {
        let options = LogOptions { segment_bytes, ..options() };
        let refused = Recovery::open(dir.path(), options);
        assert!(matches!(refused, Err(LogError::SegmentBytes { .. })));
    }
}

#[test]
fn terms_rise_and_a_start_without_replay_replays() {
    let dir = tempdir().unwrap();
    let start = |term| Recovery::open(dir.path(), options()).unwrap().start(Term(term));
    let log = start(5).unwrap();
    assert_eq!(log.term(), Term(5));
    Entry::facts(b"f").append(&log).unwrap();
    log.close().unwrap();
    drop(log);
    for term in [0, 4, 5] {
        let refused = start(term);
        assert!(matches!(refused, Err(LogError::TermTooLow { last: Term(5), .. })));
    }
    let log = start(9).unwrap();
    assert_eq!(log.next_index(), EntryIndex(2));
    drop(log);
    assert!(matches!(start(9), Err(LogError::TermTooLow { last: Term(9), .. })), "no entry needed");
}

#[test]
fn the_receiver_of_a_replay_can_refuse() {
    let dir = tempdir().unwrap();
    let (log, _, _) = open(dir.path());
    Entry::facts(b"f").append(&log).unwrap();
    log.close().unwrap();
    drop(log);
    let mut recovery = Recovery::open(dir.path(), options()).unwrap();
    let refused = recovery.replay(EntryIndex(0), &mut |_| Err("no".into())).unwrap_err();
    assert!(matches!(refused, LogError::Replay { index: EntryIndex(1), .. }), "{refused}");
}

#[test]
fn starts_without_appends_do_not_add_up_and_the_spare_is_used_again() {
    let dir = tempdir().unwrap();
    let mut most = 0;
    for _ in 0..5 {
        let (log, _, _) = open(dir.path());
        log.close().unwrap();
        drop(log);
        most = most.max(segments(dir.path()).len());
        assert_eq!(used_segments(dir.path()).len(), 1);
    }
    assert!(most <= 2, "a segment and a spare, not {most}");
    let (log, _, _) = open(dir.path());
    // Filling the segment makes sure that there is a spare behind the one rolled to.
    for offset in 0..3 {
        Entry::job(1, offset, &vec![1; 400_000]).append(&log).unwrap();
    }
    log.close().unwrap();
    drop(log);
    let before = segments(dir.path());
    let used = used_segments(dir.path());
    let spare = before.last().unwrap();
    if !used.contains(spare) {
        let (log, _, _) = open(dir.path());
        assert!(used_segments(dir.path()).contains(spare), "the spare became the fresh segment");
        drop(log);
    }
}
