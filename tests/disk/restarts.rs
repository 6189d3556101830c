//! However often the server is started, stopped and killed, its files take what is in them needs.

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

use tempfile::TempDir;

use crate::common::{Job, Raw, Server, of_default, until};

const MIB: u64 = 1 << 20;

/// Bytes that the files of a directory take on the disk.
fn disk_bytes(dir: &Path) -> u64 {
    let items = std::fs::read_dir(dir).unwrap().map(Result::unwrap);
    // A file may be removed while it is looked at.
    items.filter_map(|item| item.metadata().ok()).map(|file| file.blocks() * 512).sum()
}

fn checkpoint_bytes(dir: &Path) -> u64 {
    let items = std::fs::read_dir(dir).unwrap().map(|item| item.unwrap().path());
    let checkpoints = items.filter(|path| path.extension().is_some_and(|e| e == "checkpoint"));
    checkpoints.filter_map(|path| path.metadata().ok()).map(|file| file.len()).max().unwrap_or(0)
}

/// What an idle log may take, with so many bytes of live jobs.
fn bound(log: &Path, live_bytes: u64) -> u64 {
    (live_bytes + 2 * checkpoint_bytes(log)) * 5 / 2 + 16 * MIB
}

/// Default settings, at a level.
fn start(directory: &TempDir, settings: &str) -> Server {
    let config = directory.path().join("joblog.toml");
    std::fs::write(&config, settings).unwrap();
    Server::start_with(&directory.path().join("data"), &config, &[])
}

fn is_within(server: &Server, live_bytes: u64) -> bool {
    let log = server.data().join("log-0");
    disk_bytes(&log) <= bound(&log, live_bytes)
}

#[test]
fn restarts_do_not_add_up_on_the_disk() {
    for settings in ["", "durability = 'os'\n"] {
        let directory = TempDir::new().unwrap();
        let mut server = start(&directory, settings);
        let log = server.data().join("log-0");
        let mut most = 0;
        for life in 0..40 {
            let mut raw = Raw::greeted(server.address());
            raw.enqueue("q", &[vec![life; 1_000]]).unwrap();
            most = most.max(disk_bytes(&log));
            match life % 2 {
                0 => assert!(server.stop().success()),
                _ => server.kill9(),
            }
            server.restart();
        }
        let live_bytes = 40 * 1_200;
        until("the log takes what it needs", || is_within(&server, live_bytes));
        // Also meanwhile, when the starts followed each other at once.
        assert!(most <= 64 * MIB, "{} MiB", most / MIB);
        let mut raw = Raw::greeted(server.address());
        assert_eq!(raw.fetch(&["q"], 100, 0).unwrap().len(), 40);
    }
}

#[test]
fn a_log_that_was_large_is_small_again_when_its_jobs_are_consumed() {
    let directory = TempDir::new().unwrap();
    let server = start(&directory, "durability = 'os'\n");
    let mut raw = Raw::greeted(server.address());
    let payload = vec![7; 100_000];
    for _ in 0..300 {
        raw.enqueue("q", &[&payload[..]; 5]).unwrap();
    }
    // One that is dead and one that stays out are kept.
    let mut kept = raw.fetch(&["q"], 2, 0).unwrap();
    loop {
        let jobs = raw.fetch(&["q"], 30, 0).unwrap();
        if jobs.is_empty() {
            break;
        }
        raw.commit(of_default("q", jobs.iter().map(Job::handle))).unwrap();
    }
    let live_bytes = 2 * (PAYLOAD_FRAME + payload.len() as u64);
    until("the log takes what it needs", || is_within(&server, live_bytes));
    assert_eq!(kept.pop().unwrap().payload, payload);
}

/// What the log needs for a job beside its body.
const PAYLOAD_FRAME: u64 = 200;

/// A server that is killed again and again before its keeper's next look.
#[test]
fn a_crash_loop_does_not_eat_the_disk() {
    let directory = TempDir::new().unwrap();
    let mut server = start(&directory, "");
    let log = server.data().join("log-0");
    let mut most = 0;
    for life in 0..60 {
        let mut raw = Raw::greeted(server.address());
        raw.enqueue("q", &[vec![life; 1_000]]).unwrap();
        std::thread::sleep(Duration::from_millis(u64::from(life % 4) * 20));
        server.kill9();
        most = most.max(disk_bytes(&log));
        server.restart();
    }
    assert!(most <= 40 * MIB, "{} MiB", most / MIB);
    until("the log takes what it needs", || is_within(&server, 60 * 1_200));
}
