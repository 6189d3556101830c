//! A fast queue beside one with a standing backlog, a job delayed by a year and a dead one: the
//! disk holds what is live, and not what has passed through.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test may stop at what it did not expect"
)]

mod common;

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use common::{Job, PATIENCE, Raw, Server, all_done, new_session, of_default, until};

const PAYLOAD_BYTES: usize = 32 * 1024;

/// Jobs that stay: 64 MiB.
const STANDING: u64 = 2_048;

/// Jobs that pass through: 384 MiB.
const PASSING: u64 = 12_288;

const BATCH: u64 = 32;

/// The client sends nothing while it waits for a reply, and a busy disk may take its time.
const SILENCE_MS: u32 = 600_000;

/// Milliseconds of a year.
const YEAR_MS: u64 = 365 * 24 * 3_600_000;

fn payload(number: u64) -> Vec<u8> {
    let mut payload = vec![number as u8; PAYLOAD_BYTES];
    payload[..8].copy_from_slice(&number.to_le_bytes());
    payload
}

fn enqueue(raw: &mut Raw, queue: &str, first: u64) {
    let payloads: Vec<_> = (first..first + BATCH).map(payload).collect();
    raw.enqueue(queue, &payloads).unwrap();
}

/// Bytes that the files of a directory take on the disk.
fn disk_bytes(dir: &Path) -> u64 {
    let entries = std::fs::read_dir(dir).unwrap().map(Result::unwrap);
    // A file may be removed while it is looked at.
    entries.filter_map(|entry| entry.metadata().ok()).map(|file| file.blocks() * 512).sum()
}

#[test]
fn the_disk_holds_what_is_live_and_not_what_has_passed() {
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("joblog.toml");
    let text = "segment_bytes = 16777216\ncheckpoint_bytes = 1048576\ndurability = 'os'\n";
    std::fs::write(&config, text).unwrap();
    let data = dir.path().join("data");
    let mut server = Server::start_with(&data, &config, &[]);
    let session = new_session();
    let mut raw = Raw::connect(server.address()).unwrap();
    raw.hello(session, SILENCE_MS, &[]).unwrap();

    // Before all else, so that it lies in the oldest segment: one job a year away, and a dead one.
    raw.enqueue("odd", &[payload(0), payload(1)]).unwrap();
    let jobs = raw.fetch(&["odd"], 2, 0).unwrap();
    raw.release(of_default("odd", [jobs[0].handle()]), YEAR_MS).unwrap();
    raw.ask_json(
        joblog_protocol::Opcode::CreateQueue,
        r#"{"queue":"x","settings":{"failures_max":0}}"#,
    )
    .unwrap();
    raw.enqueue("x", &[payload(2)]).unwrap();
    let dying = raw.fetch(&["x"], 1, 0).unwrap();
    raw.fail(of_default("x", [dying[0].handle()]), "no ink").unwrap();

    // The backlog and the passing jobs share their segments.
    let share = STANDING / BATCH;
    let turns = PASSING / BATCH;
    for turn in 0..turns {
        if turn < share {
            enqueue(&mut raw, "slow", turn * BATCH);
        }
        enqueue(&mut raw, "fast", turn * BATCH);
        let jobs = raw.fetch(&["fast"], BATCH as u32, 0).unwrap();
        assert_eq!(jobs.len() as u64, BATCH);
        assert!(all_done(&raw.commit(of_default("fast", jobs.iter().map(Job::handle))).unwrap()));
    }

    let live_bytes = (STANDING + 4) * PAYLOAD_BYTES as u64;
    let log = data.join("log-0");
    let begun = Instant::now();
    while disk_bytes(&log) > live_bytes * 5 / 2 {
        let used = disk_bytes(&log);
        assert!(begun.elapsed() < 2 * PATIENCE, "{used} bytes of disk for {live_bytes} live ones");
        // The checkpoints that let go of what is dead come after there is something new.
        raw.enqueue("tick", &[payload(0), payload(1)]).unwrap();
        let jobs = raw.fetch(&["tick"], 2, 0).unwrap();
        raw.commit(of_default("tick", jobs.iter().map(Job::handle))).unwrap();
        thread::sleep(Duration::from_millis(50));
    }
    // When it has been done.
    until("the work of compaction is reported", || server.errors().contains("compacted"));

    // Nothing that is live has gone with the rest, also for a start that knows only the files.
    server.kill9();
    server.restart();
    let mut raw = Raw::connect(server.address()).unwrap();
    raw.hello(session, SILENCE_MS, &[jobs[1].token]).unwrap();
    let mut next = 0;
    while next < STANDING {
        for job in raw.fetch(&["slow"], 100, 0).unwrap() {
            assert_eq!((job.offset, &job.payload), (next, &payload(next)));
            next += 1;
        }
    }
    assert_eq!(raw.count("odd", "delayed"), 1);
    assert_eq!(raw.count("x", "dead"), 1);
    assert_eq!(raw.count("odd", "leased"), 1);
    assert!(raw.fetch(&["fast", "tick"], 10, 0).unwrap().is_empty());
}
