//! What a start of the real server has to do, after a clean stop and after a kill.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test may stop at what it did not expect"
)]

mod common;

use common::{Raw, Server, until};
use tempfile::TempDir;

const BATCHES: u64 = 30;

/// A server that makes a checkpoint for each MiB, with some MiB of jobs in its queue.
fn busy_server(directory: &TempDir) -> Server {
    let config = directory.path().join("joblog.toml");
    std::fs::write(&config, "segment_bytes = 16777216\ncheckpoint_bytes = 1048576\n").unwrap();
    let server = Server::start_with(&directory.path().join("data"), &config, &[]);
    let mut raw = Raw::greeted(server.address());
    let payload = vec![b'x'; 100_000];
    for _ in 0..BATCHES {
        raw.enqueue("q", &[&payload[..], b"small"]).unwrap();
    }
    server
}

/// How many entries the start has replayed.
fn replayed(server: &Server) -> u64 {
    let is_said = |line: &&str| line.contains("restored the state") && line.contains("entries=");
    // The line may come after the one on standard output that says that the server is ready.
    until("what is restored is said", || server.errors().lines().any(|line| is_said(&line)));
    let errors = server.errors();
    let line = errors.lines().find(is_said).unwrap();
    let (_, count) = line.split_once("entries=").unwrap();
    count.chars().take_while(char::is_ascii_digit).collect::<String>().parse().unwrap()
}

fn ready(server: &Server) -> u64 {
    let mut raw = Raw::greeted(server.address());
    raw.fetch(&["q"], 1, 0).unwrap();
    raw.count("q", "ready") + raw.count("q", "leased")
}

#[test]
fn a_start_after_a_clean_stop_replays_nothing() {
    let directory = TempDir::new().unwrap();
    let mut server = busy_server(&directory);
    assert!(server.stop().success());
    server.restart();
    assert_eq!(replayed(&server), 0);
    assert_eq!(ready(&server), 2 * BATCHES);
}

#[test]
fn a_start_after_a_kill_replays_what_came_after_the_checkpoint() {
    let directory = TempDir::new().unwrap();
    let mut server = busy_server(&directory);
    until("a checkpoint is made", || server.errors().contains("made a checkpoint"));
    server.kill9();
    server.restart();
    assert!(replayed(&server) < BATCHES, "{} entries", replayed(&server));
    assert_eq!(ready(&server), 2 * BATCHES);
}
