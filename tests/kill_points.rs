//! The server is killed at named points, from outside, on the unchanged binary: as it enters a
//! system call of which it is known what it stands for. After each kill every job whose ENQUEUE was
//! answered is there, and none whose COMMIT was answered comes again.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test may stop at what it did not expect"
)]

mod common;

use std::collections::BTreeSet;
use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

use common::{Job, Raw, Server, new_session, of_default};

/// Jobs of one ENQUEUE. All but one of them are committed.
const BATCH: u64 = 16;

/// Large, so that segments fill up, checkpoints fall due, and there is something to compact.
const PAYLOAD_BYTES: usize = 32 * 1024;

/// The client sends nothing while it waits for a reply, and a busy disk may take its time.
const SILENCE_MS: u32 = 600_000;

/// A load that has not met its point by then shows that there is no such point any more.
const LOAD_TIME_MAX: Duration = Duration::from_secs(60);

/// What the client knows of every job, by its number.
#[derive(Default)]
struct Ledger {
    next: u64,
    /// ENQUEUE was answered, COMMIT was not sent.
    there: BTreeSet<u64>,
    /// ENQUEUE was not answered.
    perhaps_there: BTreeSet<u64>,
    /// COMMIT was sent and not answered.
    perhaps_consumed: BTreeSet<u64>,
    /// COMMIT was answered.
    consumed: BTreeSet<u64>,
}

fn payload(number: u64) -> Vec<u8> {
    let mut payload = vec![number as u8; PAYLOAD_BYTES];
    payload[..8].copy_from_slice(&number.to_le_bytes());
    payload
}

fn number(job: &Job) -> u64 {
    let number = u64::from_le_bytes(job.payload[..8].try_into().unwrap());
    assert_eq!(job.payload, payload(number));
    number
}

impl Ledger {
    /// Works until the server is gone.
    fn work(&mut self, raw: &mut Raw) -> io::Result<()> {
        let begun = Instant::now();
        while begun.elapsed() < LOAD_TIME_MAX {
            let numbers: Vec<u64> = (self.next..self.next + BATCH).collect();
            self.next += BATCH;
            self.perhaps_there.extend(&numbers);
            let payloads: Vec<_> = numbers.iter().map(|number| payload(*number)).collect();
            raw.enqueue("q", &payloads)?;
            for number in &numbers {
                self.perhaps_there.remove(number);
                self.there.insert(*number);
            }

            let jobs = raw.fetch(&["q"], BATCH as u32 - 1, 0)?;
            let numbers: Vec<u64> = jobs.iter().map(number).collect();
            for number in &numbers {
                assert!(self.there.remove(number), "job {number} comes out of turn");
                self.perhaps_consumed.insert(*number);
            }
            raw.commit(of_default("q", jobs.iter().map(Job::handle)))?;
            for number in &numbers {
                self.perhaps_consumed.remove(number);
                self.consumed.insert(*number);
            }
        }
        panic!("the server was never killed: its point is not met any more");
    }

    /// Compares with all that the server has, and takes over what was not known.
    fn compare(&mut self, raw: &mut Raw) {
        let mut found = BTreeSet::new();
        loop {
            let jobs = raw.fetch(&["q"], 100, 0).unwrap();
            if jobs.is_empty() {
                break;
            }
            for job in &jobs {
                assert!(found.insert(number(job)), "job {} is there twice", number(job));
            }
        }
        let lost: Vec<_> = self.there.difference(&found).collect();
        assert!(lost.is_empty(), "lost: {lost:?}");
        let again: Vec<_> = self.consumed.intersection(&found).collect();
        assert!(again.is_empty(), "consumed, and there again: {again:?}");
        let known = |number| {
            self.there.contains(number)
                || self.perhaps_there.contains(number)
                || self.perhaps_consumed.contains(number)
        };
        assert!(found.iter().all(known), "jobs that were never enqueued");

        let gone = self.perhaps_consumed.difference(&found).copied();
        self.consumed.extend(gone);
        self.there = found;
        self.perhaps_there.clear();
        self.perhaps_consumed.clear();
    }
}

/// Kills the server at each of these points in turn, on the same data.
fn kill_at(points: &[(&str, &str, &[u32])]) {
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("joblog.toml");
    std::fs::write(&config, "segment_bytes = 16777216\ncheckpoint_bytes = 1048576\n").unwrap();
    let data = dir.path().join("data");
    let session = new_session();
    let mut ledger = Ledger::default();
    // What is made only once is made now, so that it is not counted below.
    with_server(&data, &config, |raw| {
        raw.hello(session, SILENCE_MS, &[]).unwrap();
        raw.enqueue("q", &[payload(0)]).unwrap();
    });
    ledger.next = 1;
    ledger.there.insert(0);

    let mut killed_at_work = 0;
    for (name, call, times) in points {
        for nth in *times {
            if let Some(mut doomed) = Server::start_doomed(&data, &config, call, *nth) {
                let mut raw = Raw::connect(doomed.address()).unwrap();
                let broken =
                    raw.hello(session, SILENCE_MS, &[]).and_then(|_| ledger.work(&mut raw));
                assert!(broken.is_err(), "{name}");
                doomed.wait();
                killed_at_work += 1;
            }
            with_server(&data, &config, |raw| {
                // The session names no token: all its jobs are back.
                raw.hello(session, SILENCE_MS, &[]).unwrap();
                ledger.compare(raw);
            });
        }
    }
    // A start that is killed counts, too, but the points are meant for a server at work.
    assert!(killed_at_work >= points.len(), "only {killed_at_work} kills were at work");
}

fn with_server(data: &Path, config: &Path, act: impl FnOnce(&mut Raw)) {
    let mut server = Server::start_with(data, config, &[]);
    act(&mut Raw::connect(server.address()).unwrap());
    server.kill9();
}

#[test]
fn killed_around_the_write_and_the_sync_of_an_append() {
    kill_at(&[
        // The main thread's first ten writes and syncs measure this disk.
        ("before a write", "pwrite64", &[20, 41, 64]),
        ("after an append, before its sync", "fdatasync", &[16, 33, 50]),
        ("after a sync, before a reply", "sendto", &[4, 9, 17]),
    ]);
}

#[test]
fn killed_while_a_checkpoint_is_made_and_what_it_covers_is_compacted() {
    kill_at(&[
        ("before a file gets its name", "rename", &[1, 2, 3, 4]),
        // A start syncs a few files and directories, too.
        ("before a file or directory is synced", "fsync", &[9, 12, 15]),
        // The main thread's first one is the file that measures this disk.
        ("before a file is removed", "unlink", &[2, 3, 4]),
    ]);
}
