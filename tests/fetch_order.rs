//! Which job a FETCH gets: priorities, several queues in order or by turns, and limits.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test may stop at what it did not expect"
)]

mod common;

use std::time::{Duration, Instant};

use bytes::BytesMut;
use common::{Raw, Server, all_done, fetch_of, of_default, qctl_code, qctl_objects};
use joblog_protocol::Opcode;
use joblog_protocol::messages::fetch::{Fetch, LeaseKind};

/// Longer than any wait of these tests should last.
const WAIT_MS: u32 = 60_000;

fn enqueue(server: &Server, queue: &str, jobs: usize) {
    (0..jobs).for_each(|_| drop(qctl_objects(server, 0, &["enqueue", queue, "x"])));
}

/// The names of the jobs that `qctl fetch` gets at once with these arguments.
fn fetched(server: &Server, code: i32, arguments: &[&str]) -> Vec<String> {
    let jobs = qctl_objects(server, code, &[&["fetch", "--lease", "1h"], arguments].concat());
    jobs.iter().map(|job| job["job"].as_str().unwrap().to_owned()).collect()
}

/// Sends a FETCH for one job that waits.
fn wait_for(raw: &mut Raw, queues: &[&str], by_turns: bool) -> u64 {
    let fetch = Fetch { wait_ms: WAIT_MS, by_turns, ..fetch_of(queues) };
    let mut body = BytesMut::new();
    fetch.encode(&mut body);
    let correlation = raw.request(Opcode::Fetch, &body).unwrap();
    // When this is answered, the FETCH has been acted on.
    raw.ask(Opcode::Ping, b"").unwrap();
    correlation
}

/// Which queue of the request the job is from that a waiting FETCH got.
fn answer(raw: &mut Raw, correlation: u64) -> (u8, u64) {
    let jobs = raw.reply_to(correlation).unwrap().jobs();
    assert_eq!(jobs.len(), 1);
    (jobs[0].queue_ordinal, jobs[0].offset)
}

fn counts(server: &Server, queue: &str) -> [u64; 2] {
    let group = qctl_objects(server, 0, &["group", "show", queue, "default"]).remove(0);
    ["ready", "leased"].map(|name| group[name].as_u64().unwrap())
}

#[test]
fn urgent_jobs_come_first_and_keep_their_places_when_they_fail() {
    let dir = tempfile::tempdir().unwrap();
    let mut server = Server::start(dir.path(), &[]);
    for options in [&[][..], &["--priority", "9"], &["--front"], &["--priority", "5"], &["--front"]]
    {
        qctl_objects(&server, 0, &[&["enqueue", "mail", "x"], options].concat());
    }
    assert_eq!(qctl_code(&server, &["enqueue", "mail", "x", "--priority", "10"]), 2);
    let first = qctl_objects(&server, 0, &["fetch", "mail", "--lease", "1h"]).remove(0);
    assert_eq!((&first["job"], &first["priority"]), (&"mail:1".into(), &9.into()));
    let group = qctl_objects(&server, 0, &["group", "show", "mail", "default"]).remove(0);
    assert_eq!(group["ready_by_priority"], serde_json::json!({"5": 1}));
    let token = first["token"].as_str().unwrap();
    let failed = ["fail", &format!("mail:1@{token}"), "--reason", "x", "--delay", "0s"];
    qctl_objects(&server, 0, &failed);
    server.kill9();
    let server = Server::start(dir.path(), &[]);
    let order = fetched(&server, 0, &["mail", "--jobs", "9"]);
    assert_eq!(order, ["mail:1", "mail:3", "mail:4", "mail:2", "mail:0"]);
}

#[test]
fn in_order_a_full_first_queue_keeps_the_others_waiting() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), &["--logs", "3"]);
    for queue in ["a", "b", "c"] {
        enqueue(&server, queue, 2);
    }
    let order = fetched(&server, 0, &["b", "c", "a", "--jobs", "5"]);
    assert_eq!(order, ["b:0", "b:1", "c:0", "c:1", "a:0"]);
}

/// Of one log and of several: each fetch is a connection of its own.
#[test]
fn by_turns_a_full_queue_starves_none() {
    for logs in ["1", "3"] {
        let dir = tempfile::tempdir().unwrap();
        let server = Server::start(dir.path(), &["--logs", logs]);
        enqueue(&server, "a", 12);
        enqueue(&server, "b", 2);
        enqueue(&server, "c", 4);
        let mut order = String::new();
        for _ in 0..9 {
            let jobs = fetched(&server, 0, &["a", "b", "c", "--by-turns"]);
            assert_eq!(jobs.len(), 1);
            order.push_str(&jobs[0][..1]);
        }
        assert_eq!(order, "abcabcaca", "{logs} logs");
        // Even shares of a batch, and what one does not have is for the others.
        let jobs = fetched(&server, 0, &["a", "b", "c", "--by-turns", "--jobs", "6"]);
        let count = |queue| jobs.iter().filter(|job| job.starts_with(queue)).count();
        assert_eq!(["a", "b", "c"].map(count), [5, 0, 1], "{logs} logs: {jobs:?}");
    }
}

#[test]
fn a_fetch_that_waits_gets_what_comes_first_in_any_of_its_queues() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), &["--logs", "2"]);
    let mut raw = Raw::greeted(server.address());
    for by_turns in [false, true] {
        for (ordinal, queue) in (0..).zip(["a", "b", "c"]) {
            let waiting = wait_for(&mut raw, &["a", "b", "c"], by_turns);
            enqueue(&server, queue, 1);
            assert_eq!(answer(&mut raw, waiting).0, ordinal, "{queue}");
        }
    }
}

/// A session that ends gives jobs of both queues back at once.
#[test]
fn a_fetch_that_waits_takes_in_order_or_by_turns_what_comes_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), &[]);
    let mut raw = Raw::greeted(server.address());
    let mut expected = Vec::new();
    for (by_turns, ordinal) in [(false, 0), (false, 0), (true, 0), (true, 1), (true, 0)] {
        enqueue(&server, "a", 1);
        enqueue(&server, "b", 1);
        let mut worker = Raw::greeted(server.address());
        assert_eq!(worker.fetch(&["b", "a"], 2, 0).unwrap().len(), 2);
        let waiting = wait_for(&mut raw, &["a", "b"], by_turns);
        worker.goodbye().unwrap();
        expected.push(ordinal);
        assert_eq!(answer(&mut raw, waiting).0, ordinal, "{expected:?}");
        assert_eq!(raw.fetch(&["a", "b"], 9, 0).unwrap().len(), 1);
    }
}

#[test]
fn a_waiting_fetch_is_woken_once_for_each_place_that_is_freed() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), &[]);
    qctl_objects(&server, 0, &["queue", "create", "q", "--max-in-flight", "2"]);
    enqueue(&server, "q", 8);
    let mut worker = Raw::greeted(server.address());
    let jobs = worker.fetch(&["q"], 9, 0).unwrap();
    assert_eq!((jobs.len(), counts(&server, "q")), (2, [6, 2]));
    let mut waiting: Vec<Raw> = (0..3).map(|_| Raw::greeted(server.address())).collect();
    let asked: Vec<u64> = waiting.iter_mut().map(|raw| wait_for(raw, &["q"], false)).collect();
    // A commit, a release with a delay and a limit that is raised let one in each.
    assert!(all_done(&worker.commit(of_default("q", [jobs[0].handle()])).unwrap()));
    assert_eq!((answer(&mut waiting[0], asked[0]), counts(&server, "q")), ((0, 2), [5, 2]));
    assert!(all_done(&worker.release(of_default("q", [jobs[1].handle()]), 3_600_000).unwrap()));
    assert_eq!((answer(&mut waiting[1], asked[1]), counts(&server, "q")), ((0, 3), [4, 2]));
    qctl_objects(&server, 0, &["queue", "set", "q", "--max-in-flight", "3"]);
    assert_eq!((answer(&mut waiting[2], asked[2]), counts(&server, "q")), ((0, 4), [3, 3]));
    // A session that ends frees its place, too.
    let last = wait_for(&mut worker, &["q"], false);
    waiting[0].goodbye().unwrap();
    assert_eq!((answer(&mut worker, last), counts(&server, "q")), ((0, 2), [3, 3]));
}

/// One worker whose fetches carry its commits does not take its own place each time.
#[test]
fn a_place_that_a_fetch_frees_is_for_those_who_wait_already() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), &[]);
    qctl_objects(&server, 0, &["queue", "create", "q", "--max-in-flight", "1"]);
    enqueue(&server, "q", 3);
    let (mut one, mut other) = (Raw::greeted(server.address()), Raw::greeted(server.address()));
    let job = one.fetch(&["q"], 1, 0).unwrap().remove(0);
    let waiting = wait_for(&mut other, &["q"], false);
    let lease = LeaseKind::Session { run_ms_max: None };
    let commits = [of_default("q", [job.handle()])];
    let asked = one.request_fetch(&["q"], 1, 0, lease, &commits).unwrap();
    assert_eq!(answer(&mut other, waiting), (0, 1));
    assert!(all_done(&one.reply_to(asked).unwrap().statuses()));
    assert!(one.reply_to(asked).unwrap().jobs().is_empty());
}

#[test]
fn a_queue_that_is_paused_or_at_its_limit_holds_up_no_other_of_a_fetch() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), &[]);
    qctl_objects(&server, 0, &["queue", "create", "full", "--max-in-flight", "1"]);
    let rate = ["--rate-per-second", "1", "--rate-burst", "1"];
    qctl_objects(&server, 0, &[&["queue", "create", "slow"][..], &rate].concat());
    for queue in ["paused", "full", "slow", "free"] {
        enqueue(&server, queue, 9);
    }
    qctl_objects(&server, 0, &["queue", "pause", "paused"]);
    for turns in [&["--jobs", "6"][..], &["--jobs", "6", "--by-turns"]] {
        let mut jobs = fetched(&server, 0, &[&["paused", "full", "slow", "free"], turns].concat());
        // A second may pass, and then the rate allows one more.
        jobs.retain(|job| !job.starts_with("slow"));
        assert!(jobs.iter().filter(|job| job.starts_with("free")).count() >= 4, "{jobs:?}");
        assert!(jobs.iter().all(|job| !job.starts_with("paused")));
        assert!(jobs.iter().filter(|job| job.starts_with("full")).count() <= 1);
        enqueue(&server, "free", 6);
    }
    // Nor does it hold up one that waits.
    let mut raw = Raw::greeted(server.address());
    let waiting = wait_for(&mut raw, &["paused", "full", "empty"], false);
    enqueue(&server, "empty", 1);
    assert_eq!(answer(&mut raw, waiting), (2, 0));
}

#[test]
fn a_rate_is_kept_over_a_restart_and_wakes_those_who_wait() {
    let dir = tempfile::tempdir().unwrap();
    let mut server = Server::start(dir.path(), &[]);
    let rate = ["--rate-per-second", "2", "--rate-burst", "3"];
    qctl_objects(&server, 0, &[&["queue", "create", "q"][..], &rate].concat());
    let start = Instant::now();
    enqueue(&server, "q", 40);
    let mut given = fetched(&server, 0, &["q", "--jobs", "40"]).len();
    assert_eq!(given, 3);
    server.kill9();
    let server = Server::start(dir.path(), &[]);
    let mut raw = Raw::greeted(server.address());
    while given < 8 {
        let waiting = wait_for(&mut raw, &["q"], false);
        assert_eq!(answer(&mut raw, waiting).1, given as u64);
        given += 1;
    }
    // A clock that counts whole milliseconds may be one ahead.
    let least = Duration::from_millis(500 * (8 - 3) - 2);
    assert!(start.elapsed() >= least, "{:?}", start.elapsed());
}

#[test]
fn limits_that_can_not_be_are_refused_and_the_others_are_shown() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), &[]);
    for wrong in [
        &["--max-in-flight", "0"][..],
        &["--rate-per-second", "0"],
        &["--rate-per-second", "1000001"],
        &["--rate-burst", "5"],
    ] {
        assert_eq!(qctl_code(&server, &[&["queue", "create", "q"], wrong].concat()), 1);
    }
    let right = ["--max-in-flight", "7", "--rate-per-second", "50", "--rate-burst", "5"];
    qctl_objects(&server, 0, &[&["queue", "create", "q"][..], &right].concat());
    let settings = &qctl_objects(&server, 0, &["queue", "show", "q"])[0]["settings"];
    let shown = ["max_in_flight", "rate_per_second", "rate_burst"];
    assert_eq!(shown.map(|name| settings[name].as_u64().unwrap()), [7, 50, 5]);
}
