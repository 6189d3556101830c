//! Unique keys through the real binaries: what a job with the same key meets in each state of the
//! one that has it.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test may stop at what it did not expect"
)]

mod common;

use bytes::BytesMut;
use common::{Raw, Server, qctl_code, qctl_objects, until};
use joblog_protocol::Opcode;
use joblog_protocol::job::{BatchBuilder, Job, NotBefore, Terms};
use joblog_protocol::messages::enqueue::{Enqueue, EnqueueOutcome, EnqueueReply, Producer};
use joblog_protocol::unique::Unique;
use serde_json::Value;
use tempfile::TempDir;

struct Place {
    server: Server,
    _directory: TempDir,
}

impl Place {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        Self { server: Server::start(directory.path(), &[]), _directory: directory }
    }

    fn one(&self, arguments: &[&str]) -> Value {
        qctl_objects(&self.server, 0, arguments).remove(0)
    }

    fn ok(&self, arguments: &[&str]) {
        qctl_objects(&self.server, 0, arguments);
    }

    /// Enqueues a job with the key `k`. Gives the name of the job that is in the queue for it, and
    /// whether that is a new one.
    fn enqueue(&self, more: &[&str]) -> (String, bool) {
        let arguments = [&["enqueue", "q", "job", "--unique", "k"], more].concat();
        let job = self.one(&arguments);
        (job["job"].as_str().unwrap().to_owned(), job.get("duplicate").is_none())
    }

    fn expect(&self, offset: u64, is_new: bool) {
        assert_eq!(self.enqueue(&[]), (format!("q:{offset}"), is_new));
    }

    /// Fetches the job. Gives its name with its token.
    fn fetch(&self) -> String {
        let job = self.one(&["fetch", "q", "--wait", "20s", "--lease", "1h"]);
        format!("{}@{}", job["job"].as_str().unwrap(), job["token"].as_str().unwrap())
    }

    fn count(&self, name: &str) -> u64 {
        self.one(&["group", "show", "q", "default"])[name].as_u64().unwrap()
    }

    fn keys(&self) -> [u64; 3] {
        let keys = self.one(&["queue", "show", "q"])["unique"].clone();
        ["held", "duplicates", "replaced"].map(|name| keys[name].as_u64().unwrap_or(0))
    }

    fn kill_and_restart(&mut self) {
        self.server.kill9();
        self.server.restart();
    }
}

#[test]
fn a_waiting_job_holds_its_key_and_a_consumed_one_does_not() {
    let place = Place::new();
    place.expect(0, true);
    place.expect(0, false);
    assert_eq!(place.one(&["enqueue", "q", "x", "--unique", "other"])["job"], "q:1");
    let job = place.fetch();
    place.expect(0, false);
    place.ok(&["commit", &job]);
    place.expect(2, true);
    assert_eq!(place.keys(), [2, 2, 0]);
}

#[test]
fn a_leased_one_and_one_that_waits_for_its_retry_hold_it() {
    let place = Place::new();
    place.ok(&["queue", "create", "q", "--backoff-delays", "1h"]);
    place.expect(0, true);
    let job = place.fetch();
    place.expect(0, false);
    place.ok(&["fail", &job, "--reason", "no ink"]);
    assert_eq!(place.count("delayed"), 1);
    place.expect(0, false);
    // It has been delivered: nothing takes its place.
    assert_eq!(place.enqueue(&["--replace"]), ("q:0".to_owned(), false));
}

#[test]
fn a_dead_job_holds_its_key_until_it_is_dropped_and_while_it_is_retried() {
    let place = Place::new();
    place.expect(0, true);
    let die = || {
        let job = place.fetch();
        place.ok(&["fail", &job, "--reason", "no ink", "--retries", "0"]);
    };
    die();
    place.expect(0, false);
    place.ok(&["dead", "retry", "q:0"]);
    place.expect(0, false);
    die();
    place.ok(&["dead", "drop", "q:0", "--yes"]);
    place.expect(1, true);
}

#[test]
fn a_cancelled_an_expired_and_a_purged_job_free_their_key() {
    let place = Place::new();
    place.expect(0, true);
    assert!(place.fetch().starts_with("q:0@"));
    place.ok(&["cancel", "q:0"]);
    // It is out: its worker may still commit it.
    place.expect(0, false);
    let other = Place::new();
    other.expect(0, true);
    other.ok(&["cancel", "q:0"]);
    assert_eq!(other.enqueue(&["--ttl", "1ms"]), ("q:1".to_owned(), true));
    until("the job has expired", || other.enqueue(&["--delay", "1h"]).0 == "q:2");
    other.ok(&["queue", "purge", "q", "--yes"]);
    other.expect(3, true);
    other.ok(&["queue", "delete", "q", "--yes"]);
    other.expect(4, true);
}

#[test]
fn a_delayed_job_holds_its_key_and_gives_way_to_one_that_replaces_it() {
    let place = Place::new();
    assert_eq!(place.enqueue(&["--delay", "1h"]), ("q:0".to_owned(), true));
    place.expect(0, false);
    let replaced = ["enqueue", "q", "later", "--unique", "k", "--replace", "--delay", "2h"];
    let replaced = place.one(&replaced);
    assert_eq!((&replaced["job"], &replaced["replaced"]), (&"q:1".into(), &"q:0".into()));
    assert_eq!(place.enqueue(&["--replace"]), ("q:2".to_owned(), true));
    // It is ready, so nothing replaces it.
    assert_eq!(place.enqueue(&["--replace"]), ("q:2".to_owned(), false));
    assert!(place.fetch().starts_with("q:2@"));
    assert_eq!(place.keys(), [1, 2, 2]);
    assert_eq!(place.count("delayed"), 0);
    // What gave way is delivered to no group.
    assert_eq!(qctl_code(&place.server, &["group", "create", "q", "late"]), 0);
    let late = place.one(&["group", "show", "q", "late"]);
    assert_eq!((&late["ready"], &late["delayed"]), (&1.into(), &0.into()));
}

#[test]
fn a_key_that_is_held_for_a_time_outlives_its_job_and_is_free_when_that_is_over() {
    let place = Place::new();
    assert_eq!(place.enqueue(&["--unique-for", "1h"]), ("q:0".to_owned(), true));
    let job = place.fetch();
    place.ok(&["commit", &job]);
    place.expect(0, false);
    let short = ["enqueue", "short", "x", "--unique", "k", "--unique-for", "300ms"];
    assert_eq!(place.one(&short)["job"], "short:0");
    until("the window is over", || place.one(&short)["job"] == "short:1");
}

#[test]
fn keys_counts_and_windows_survive_a_kill_and_a_checkpoint() {
    let mut place = Place::new();
    place.expect(0, true);
    place.expect(0, false);
    let window = ["enqueue", "q", "x", "--unique", "w", "--unique-for", "1h"];
    assert_eq!(place.one(&window)["job"], "q:1");
    place.kill_and_restart();
    place.expect(0, false);
    assert_eq!(place.one(&window)["duplicate"], true);
    assert_eq!(place.keys(), [2, 3, 0]);
    // A clean stop makes a checkpoint.
    place.server.stop();
    place.server.restart();
    place.expect(0, false);
    assert_eq!(place.one(&window)["job"], "q:1");
    assert_eq!(place.keys(), [2, 5, 0]);
    let job = place.fetch();
    place.ok(&["commit", &job]);
    place.kill_and_restart();
    place.expect(2, true);
}

#[test]
fn the_primary_group_says_when_a_job_is_done() {
    let place = Place::new();
    place.ok(&["queue", "create", "q", "--primary-group", "main"]);
    place.ok(&["group", "create", "q", "main"]);
    place.expect(0, true);
    let job = place.fetch();
    place.ok(&["commit", &job]);
    place.expect(0, false);
    place.ok(&["queue", "set", "q", "--primary-group", "default"]);
    place.expect(1, true);
    // Without its primary group, a queue asks all that there are.
    place.ok(&["queue", "set", "q", "--primary-group", "nobody"]);
    let job = place.fetch();
    place.ok(&["commit", &job]);
    place.expect(1, false);
    place.ok(&["group", "delete", "q", "main", "--yes"]);
    place.expect(2, true);
}

fn keyed(payload: &str, key: &str) -> Job {
    let unique = Some(Unique { key: key.as_bytes().to_vec(), ..Unique::default() });
    Job { unique, ..Job::new(payload) }
}

fn send(raw: &mut Raw, jobs: &[Job], producer: Option<Producer>) -> EnqueueReply {
    let mut batch = BatchBuilder::default();
    jobs.iter().for_each(|job| batch.push(job).unwrap());
    let enqueue = Enqueue { queue: "q", create: true, producer, batch: batch.batch() };
    let mut body = BytesMut::new();
    enqueue.encode(&mut body);
    let reply = raw.ask(Opcode::Enqueue, &body).unwrap();
    assert_eq!(reply.code(), None);
    EnqueueReply::decode(&reply.body).unwrap()
}

fn offsets(reply: &EnqueueReply) -> Vec<u64> {
    reply.outcomes().map(EnqueueOutcome::offset).collect()
}

#[test]
fn hits_within_a_batch_are_told_and_the_others_stand_in_the_queue_in_their_order() {
    let place = Place::new();
    let mut raw = Raw::greeted(place.server.address());
    assert_eq!(offsets(&send(&mut raw, &[keyed("a", "k")], None)), [0]);
    let jobs =
        [Job::new("b"), keyed("no", "k"), keyed("c", "l"), keyed("no", "l"), keyed("no", "k")];
    let reply = send(&mut raw, &[&jobs[..], &[Job::new("d")]].concat(), None);
    assert_eq!(offsets(&reply), [1, 0, 2, 2, 0, 3]);
    assert_eq!((reply.first_offset, reply.count, reply.hits.len()), (1, 6, 3));
    let payloads: Vec<_> = qctl_objects(&place.server, 0, &["peek", "q", "--limit", "10"])
        .iter()
        .map(|job| job["payload"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(payloads, ["a", "b", "c", "d"]);
    let mut jobs = Vec::new();
    until("all are fetched", || {
        jobs.extend(raw.fetch(&["q"], 10, 0).unwrap());
        jobs.len() == 4
    });
}

#[test]
fn a_job_of_a_batch_that_is_delayed_gives_way_to_a_later_one() {
    let place = Place::new();
    let mut raw = Raw::greeted(place.server.address());
    let delayed = Terms { due: Some(NotBefore::In(3_600_000)), ..Terms::default() };
    let first = Job { terms: delayed, ..keyed("first", "k") };
    let mut second = keyed("second", "k");
    second.unique = second.unique.map(|unique| Unique { replace: true, ..unique });
    let reply = send(&mut raw, &[first, Job::new("x"), second], None);
    let expected = [
        EnqueueOutcome::New { offset: 0 },
        EnqueueOutcome::New { offset: 1 },
        EnqueueOutcome::Replaced { offset: 2, old: 0 },
    ];
    assert_eq!(reply.outcomes().collect::<Vec<_>>(), expected);
    assert_eq!(place.keys(), [1, 0, 1]);
    place.expect(2, false);
}

#[test]
fn a_batch_that_is_sent_again_is_told_the_same_also_after_its_keys_are_free() {
    let mut place = Place::new();
    let mut raw = Raw::greeted(place.server.address());
    let id = [7; 16];
    let number = |sequence| Some(Producer { id, sequence });
    assert_eq!(offsets(&send(&mut raw, &[keyed("a", "k")], number(1))), [0]);
    let batch = [Job::new("b"), keyed("no", "k"), keyed("c", "l"), keyed("no", "l")];
    let first = send(&mut raw, &batch, number(2));
    assert_eq!(offsets(&first), [1, 0, 2, 2]);
    // A batch of which nothing is new is remembered, too.
    let nothing = send(&mut raw, &[keyed("no", "l")], number(3));
    assert_eq!(offsets(&nothing), [2]);
    let told = |raw: &mut Raw| {
        let again = send(raw, &batch, number(2));
        assert_eq!(EnqueueReply { created: again.created, ..first.clone() }, again);
        assert_eq!(offsets(&send(raw, &[keyed("no", "l")], number(3))), [2]);
    };
    told(&mut raw);
    place.kill_and_restart();
    told(&mut Raw::greeted(place.server.address()));
    place.server.stop();
    place.server.restart();
    place.ok(&["queue", "purge", "q", "--yes"]);
    let mut raw = Raw::greeted(place.server.address());
    told(&mut raw);
    // Asked anew, the keys are free.
    assert_eq!(offsets(&send(&mut raw, &[keyed("d", "k")], number(4))), [3]);
    assert_eq!(place.keys()[1], 3, "what is sent again is not counted again");
}

#[test]
fn a_duplicate_takes_no_room_of_a_full_queue() {
    let place = Place::new();
    place.ok(&["queue", "create", "q", "--max-jobs", "1"]);
    place.expect(0, true);
    place.expect(0, false);
    let refused = ["enqueue", "q", "x", "--unique", "other"];
    assert_eq!(qctl_code(&place.server, &refused), 1);
    // A refused job holds no key.
    let job = place.fetch();
    place.ok(&["commit", &job]);
    assert_eq!(place.one(&refused)["job"], "q:1");
}

#[test]
fn keys_and_windows_outside_their_bounds_are_refused() {
    let place = Place::new();
    let long = "k".repeat(256);
    assert_eq!(qctl_code(&place.server, &["enqueue", "q", "x", "--unique", &long]), 2);
    assert_eq!(qctl_code(&place.server, &["enqueue", "q", "x", "--unique", ""]), 2);
    let zero = ["enqueue", "q", "x", "--unique", "k", "--unique-for", "0"];
    assert_eq!(qctl_code(&place.server, &zero), 2);
    assert_eq!(qctl_code(&place.server, &["enqueue", "q", "x", "--replace"]), 2);
    assert_eq!(place.one(&["enqueue", "q", "x", "--unique", &long[1..]])["job"], "q:0");
}
