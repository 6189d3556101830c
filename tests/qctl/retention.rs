//! What queues keep, refuse and let go, as a person sees it.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

use crate::common::PATIENCE;
use crate::support::Place;

/// Consumes everything that is ready.
fn consume(place: &Place, queue: &str) {
    place.ok(&["work", queue, "--until-empty", "--", "true"]);
}

/// The payloads that the queue still has.
fn peek(place: &Place, queue: &str) -> Vec<String> {
    let jobs = place.json(&["peek", queue, "--limit", "100"]);
    jobs.iter().map(|job| job["payload"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn a_full_queue_refuses_until_jobs_are_consumed() {
    let place = Place::new();
    place.ok(&["queue", "create", "q", "--max-jobs", "2"]);
    place.enqueue("q", "a\nb\n");
    let refused = place.run(&["enqueue", "q", "c"]);
    refused.expect(1, &["QUEUE_FULL", "its max_jobs is 2, and 2 are waiting"]);
    let text = place.ok(&["queue", "show", "q"]);
    assert!(text.contains("max jobs    2; 2 not consumed"), "{text}");
    consume(&place, "q");
    place.ok(&["enqueue", "q", "c"]);

    place.ok(&["queue", "create", "bytes", "--max-bytes", "64"]);
    place.ok(&["enqueue", "bytes", &"x".repeat(40)]);
    place.run(&["enqueue", "bytes", &"y".repeat(40)]).expect(1, &["QUEUE_FULL", "max_bytes"]);
    consume(&place, "bytes");
    place.ok(&["enqueue", "bytes", &"y".repeat(40)]);
}

#[test]
fn jobs_that_are_too_old_are_counted_and_gone() {
    let place = Place::new();
    place.ok(&["queue", "create", "q", "--max-age", "1s"]);
    place.enqueue("q", "a\nb\nc\n");
    let leased = place.fetch("q");
    let begun = Instant::now();
    let show = || place.json(&["queue", "show", "q"]).remove(0);
    while show()["expired"] != 2 {
        assert!(begun.elapsed() < PATIENCE, "{}", show());
    }
    let text = place.ok(&["queue", "show", "q"]);
    assert!(text.contains("max age     1s; 2 expired"), "{text}");
    // A job that is out with a worker is the worker's.
    assert_eq!(peek(&place, "q"), ["a"]);
    place.ok(&["commit", &leased]);
    assert_eq!(show()["unconsumed"], 0);
}

#[test]
fn a_group_is_set_to_the_start_the_end_an_offset_and_a_time() {
    let place = Place::new();
    place.ok(&["queue", "create", "q", "--keep-consumed-for", "1h"]);
    place.enqueue("q", "a\nb\n");
    let unix_ms = || SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis();
    let enqueued = unix_ms();
    while unix_ms() == enqueued {}
    place.enqueue("q", "c\n");
    consume(&place, "q");
    assert_eq!(place.count("q", "committed_offset"), 3);
    let seek = |to: &str| {
        place.ok(&["group", "seek", "q", "default", "--to", to]);
        (place.count("q", "committed_offset"), place.count("q", "ready"))
    };
    assert_eq!(seek("start"), (0, 3));
    assert_eq!(seek("end"), (3, 0));
    assert_eq!(seek("1"), (1, 2));
    assert_eq!(seek("5m"), (0, 3), "all were enqueued since then");
    let third = place.json(&["peek", "q", "--from", "2"]).remove(0);
    assert_eq!(seek(third["enqueued_at"].as_str().unwrap()), (2, 1));
    let wrong = place.run(&["group", "seek", "q", "default", "--to", "4"]);
    wrong.expect(1, &["BAD_SETTING", "0 to 3"]);
    place.run(&["group", "seek", "q", "default", "--to", "soon"]).expect(2, &["an offset"]);
    place.run(&["group", "seek", "q", "other", "--to", "end"]).expect(1, &["NO_SUCH_GROUP"]);
}

#[test]
fn what_all_groups_have_consumed_is_gone_unless_it_is_kept() {
    let place = Place::new();
    place.enqueue("q", "a\nb\n");
    place.ok(&["group", "create", "q", "slow"]);
    consume(&place, "q");
    assert_eq!(peek(&place, "q"), ["a", "b"], "a group has still to consume them");
    place.ok(&["group", "delete", "q", "slow", "--yes"]);
    assert!(peek(&place, "q").is_empty());
    place.ok(&["group", "seek", "q", "default", "--to", "start"]);
    assert_eq!(place.count("q", "ready"), 0, "what is gone does not come back");
    place.ok(&["group", "create", "q", "late"]);
    let late = place.json(&["group", "show", "q", "late"]).remove(0);
    assert_eq!((&late["committed_offset"], &late["ready"]), (&2.into(), &0.into()));
}
