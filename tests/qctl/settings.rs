//! `queue set`: settings that change while the queue is in use, as a person sees it.

use crate::common::until;
use crate::support::Place;

#[test]
fn what_is_named_changes_and_the_rest_stays() {
    let place = Place::new();
    place.ok(&["queue", "create", "q", "--failures-max", "3", "--max-jobs", "5"]);
    place
        .run(&["queue", "set", "q", "--backoff-delays", "1s,1m,2h", "--primary-group", "main"])
        .expect(0, &["Queue q is changed."]);
    let settings = || place.json(&["queue", "show", "q"]).remove(0)["settings"].clone();
    let expected = serde_json::json!([1_000, 60_000, 7_200_000]);
    assert_eq!(settings()["backoff_delays_ms"], expected);
    assert_eq!((&settings()["failures_max"], &settings()["max_jobs"]), (&3.into(), &5.into()));
    assert_eq!(settings()["primary_group"], "main");
    let text = place.ok(&["queue", "show", "q"]);
    assert!(text.contains("dead after more than 3; retried after 1s, 1m, 2h\n"), "{text}");

    place.ok(&["queue", "set", "q", "--reset", "max-jobs", "--reset", "backoff-delays"]);
    assert!(settings().get("max_jobs").is_none());
    assert_eq!(settings()["backoff_delays_ms"], serde_json::json!([]));
    assert_eq!(settings()["failures_max"], 3);

    place.run(&["queue", "set", "q"]).expect(2, &["no setting is named"]);
    place.run(&["queue", "set", "q", "--reset", "speed"]).expect(2, &["speed"]);
    let wrong = place.run(&["queue", "set", "q", "--backoff-first", "2h"]);
    wrong.expect(1, &["BAD_SETTING", "backoff_first_ms is 7200000; allowed is 1 to 3600000"]);
    let wrong = place.run(&["queue", "set", "q", "--primary-group", "a:b"]);
    wrong.expect(1, &["BAD_NAME"]);
    place.run(&["queue", "set", "p", "--max-jobs", "1"]).expect(1, &["NO_SUCH_QUEUE"]);
}

#[test]
fn a_queue_that_is_full_takes_jobs_when_its_bounds_are_raised() {
    let place = Place::new();
    place.enqueue("q", "a\nb\n");
    place.ok(&["queue", "set", "q", "--max-jobs", "1"]);
    place.run(&["enqueue", "q", "c"]).expect(1, &["QUEUE_FULL", "its max_jobs is 1, and 2 are"]);
    let unconsumed = &place.json(&["queue", "show", "q"]).remove(0)["unconsumed"];
    assert_eq!(*unconsumed, 2, "nothing goes");
    place.ok(&["queue", "set", "q", "--max-jobs", "3"]);
    place.ok(&["enqueue", "q", "c"]);

    // What was there before the bound was set counts, too.
    place.ok(&["enqueue", "bytes", &"x".repeat(400)]);
    place.ok(&["queue", "set", "bytes", "--max-bytes", "600"]);
    place.run(&["enqueue", "bytes", &"y".repeat(400)]).expect(1, &["QUEUE_FULL", "max_bytes"]);
    place.ok(&["enqueue", "bytes", &"y".repeat(40)]);
    place.ok(&["queue", "set", "bytes", "--reset", "max-bytes"]);
    place.ok(&["enqueue", "bytes", &"y".repeat(400)]);
}

#[test]
fn dead_jobs_go_when_they_are_kept_for_less_and_consumed_ones_are_kept_from_now_on() {
    let place = Place::new();
    place.ok(&["queue", "create", "q", "--failures-max", "0"]);
    place.enqueue("q", "a\nb\nc\n");
    let dead = place.fetch("q");
    place.ok(&["fail", &dead, "--reason", "no ink"]);
    assert_eq!(place.count("q", "dead"), 1);
    place.ok(&["queue", "set", "q", "--dead-kept", "1ms"]);
    until("the dead job has gone", || place.count("q", "dead") == 0);

    let first = place.fetch("q");
    place.ok(&["commit", &first]);
    place.ok(&["queue", "set", "q", "--keep-consumed-for", "1h"]);
    let second = place.fetch("q");
    place.ok(&["commit", &second]);
    place.ok(&["group", "seek", "q", "default", "--to", "start"]);
    assert_eq!(place.count("q", "committed_offset"), 2, "what was gone stays gone");
    assert_eq!(place.count("q", "ready"), 1, "what was consumed later is kept");
}

#[test]
fn a_list_of_delays_is_kept_to_and_a_failure_can_have_its_own() {
    let place = Place::new();
    place.ok(&["queue", "create", "q", "--backoff-delays", "1h,2h", "--failures-max", "1"]);
    place.enqueue("q", "a\nb\nc\n");
    let fail = |more: &[&str]| {
        let job = place.fetch("q");
        let arguments = [&["fail", &job, "--reason", "no ink"], more].concat();
        place.json(&arguments).remove(0)
    };
    assert_eq!(fail(&[])["retry_in_ms"], 3_600_000);
    assert_eq!(fail(&["--delay", "7h"])["retry_in_ms"], 25_200_000);
    assert_eq!(fail(&["--retries", "0"])["status"], "dead");
}

#[test]
fn a_change_outlives_a_restart_and_does_not_shift_a_delay_that_has_begun() {
    let mut place = Place::new();
    place.ok(&["queue", "create", "q", "--backoff-delays", "1h"]);
    place.enqueue("q", "a\n");
    let job = place.fetch("q");
    place.ok(&["fail", &job, "--reason", "no ink"]);
    place.ok(&["queue", "set", "q", "--backoff-delays", "1ms"]);
    place.server.kill9();
    place.server.restart();
    let settings = place.json(&["queue", "show", "q"]).remove(0)["settings"].clone();
    assert_eq!(settings["backoff_delays_ms"], serde_json::json!([1]));
    assert_eq!(place.count("q", "delayed"), 1);
}

#[test]
fn a_queue_says_what_it_promises_about_keys_and_a_group_what_is_parked() {
    let place = Place::new();
    place.ok(&[
        "queue",
        "create",
        "q",
        "--ordered-by-key",
        "--dead-keeps-key",
        "--parked-max",
        "1",
    ]);
    let text = place.ok(&["queue", "show", "q"]);
    let keys = "one job of a key after the other; a dead job holds back the others of its key; at \
                most 1 parked in each group";
    assert!(text.contains(keys), "{text}");
    (0..3).for_each(|_| drop(place.ok(&["enqueue", "q", "x", "--key", "k"])));
    place.ok(&["fetch", "q"]);
    place.run(&["fetch", "q"]).expect(1, &[]);
    let group = place.json(&["group", "show", "q", "default"]).remove(0);
    assert_eq!((&group["parked"], &group["parked_full"]), (&1.into(), &true.into()));
    let text = place.ok(&["group", "show", "q", "default"]);
    assert!(text.contains("1 parked, behind others of their keys; as many as may"), "{text}");
    assert_eq!(place.json(&["job", "show", "q:1"]).remove(0)["state"], "parked");
    let change = place.run(&["queue", "set", "q", "--ordered-by-key=false"]);
    change.expect(1, &["BAD_SETTING", "ordered_by_key", "3 are to be consumed"]);
}
