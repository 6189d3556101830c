//! `fetch`, and what can be done with a leased job.

use serde_json::json;

use crate::support::Place;

#[test]
fn fetch_shows_the_job_its_token_and_when_the_lease_ends() {
    let place = Place::new();
    place.enqueue("b", "first\nsecond\n");
    let text = place.ok(&["fetch", "a", "b", "--lease", "5m"]);
    for text_part in ["job       b:0@", "attempt   1\n", "(in 5m)\n", "payload   first\n"] {
        assert!(text.contains(text_part), "{text_part:?} is not in\n{text}");
    }
    let job = place.json(&["fetch", "b", "--jobs", "10"]).remove(0);
    assert_eq!(
        (&job["job"], &job["attempt"], &job["payload"]),
        (&"b:1".into(), &1.into(), &"second".into())
    );
    assert!(job["lease_ends_at"].as_str() > job["enqueued_at"].as_str());
    place.run(&["fetch", "b", "--wait", "10ms"]).expect(1, &["no job was ready within 10ms"]);
}

#[test]
fn a_timed_lease_outlives_the_run_that_took_it() {
    let place = Place::new();
    place.enqueue("q", "x\n");
    let job = place.fetch("q");
    assert_eq!(place.count("q", "leased"), 1);
    assert_eq!(place.ok(&["extend", &job, "--lease", "1h"]), "q:0  extended\n");
    assert_eq!(place.ok(&["commit", &job]), "q:0  consumed\n");
    assert_eq!(place.ok(&["commit", &job]), "q:0  already_consumed\n");
    assert_eq!(place.count("q", "committed_offset"), 1);
}

#[test]
fn a_job_is_released_and_failed() {
    let place = Place::new();
    place.enqueue("q", "x\n");
    let first = place.fetch("q");
    assert_eq!(place.ok(&["release", &first]), "q:0  released\n");
    place.run(&["release", &first]).expect(1, &[]);
    let second = place.fetch("q");
    let failed = place.json(&["fail", &second, "--reason", "no", "--delay", "0s"]);
    assert_eq!(failed, [json!({"job": "q:0", "status": "failed", "retry_in_ms": 0})]);
    let third = place.fetch("q");
    let failed = place.ok(&["fail", &third, "--reason", "no more", "--retries", "0"]);
    assert_eq!(failed, "q:0  dead\n");
    let shown = place.ok(&["queue", "show", "q"]);
    for line in ["Group default: 1 dead\n", "by failures (3 attempts, 2 failures, 0", "    no more"]
    {
        assert!(shown.contains(line), "{line:?} is not in\n{shown}");
    }
    place.enqueue("q", "y\n");
    let job = place.fetch("q");
    assert_eq!(place.ok(&["release", &job, "--delay", "1h"]), "q:1  released\n");
    assert_eq!(place.count("q", "delayed"), 1);
}

#[test]
fn a_lost_lease_is_refused_in_each_way() {
    let place = Place::new();
    place.enqueue("q", "x\n");
    let lost = place.fetch("q");
    place.ok(&["release", &lost]);
    for arguments in [
        &["commit", &lost][..],
        &["release", &lost],
        &["fail", &lost, "--reason", "x"],
        &["extend", &lost, "--lease", "1m"],
    ] {
        let run = place.run(arguments);
        assert_eq!(run.code, 1, "{run:?}");
        assert!(run.stdout.starts_with("q:0  refused: LEASE_LOST: "), "{run:?}");
    }
    let run = place.run(&["commit", &lost, "--json"]);
    assert_eq!(run.code, 1);
    let expected = "{\"job\":\"q:0\",\"status\":\"refused\",\"error\":\"LEASE_LOST\"}\n";
    assert_eq!(run.stdout, expected);
    place.run(&["commit", "q:99@00"]).expect(1, &[]);
    place.run(&["commit", "none:0@00"]).expect(1, &[]);
}

#[test]
fn several_jobs_are_settled_at_once_and_one_refusal_is_a_failure() {
    let place = Place::new();
    place.enqueue("q", "a\nb\nc\n");
    let jobs = [place.fetch("q"), place.fetch("q"), place.fetch("q")];
    place.ok(&["release", &jobs[1]]);
    let run = place.run(&["commit", &jobs[0], &jobs[1], &jobs[2]]);
    assert_eq!(run.code, 1);
    let words: Vec<&str> = run.stdout.lines().map(|line| &line[..12]).collect();
    assert_eq!(words, ["q:0  consume", "q:1  refused", "q:2  consume"]);
}

#[test]
fn a_stream_group_commits_through_an_offset() {
    let place = Place::new();
    place.enqueue("q", "a\nb\nc\n");
    place.ok(&["group", "create", "q", "s", "--kind", "stream"]);
    let commit = ["commit", "q:1", "--through", "--group", "s"];
    assert_eq!(place.ok(&commit), "q:1  consumed\n");
    assert_eq!(place.json(&["group", "show", "q", "s"])[0]["committed_offset"], 2);
    place.run(&["fetch", "q", "--group", "s"]).expect(1, &["WRONG_GROUP_KIND"]);
    let run = place.run(&["commit", "q:9", "--through", "--group", "s"]);
    assert_eq!(run.code, 1, "{run:?}");
}
