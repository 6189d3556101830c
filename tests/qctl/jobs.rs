//! `job`, results, `move`, `copy` and `dead retry --to`.

use serde_json::json;

use crate::support::{Background, Place};

#[test]
fn a_result_is_printed_by_whoever_waits_for_it() {
    let place = Place::new();
    let mut waiting = Background::start(place.command(&["enqueue", "q", "7", "--wait"]));
    waiting.await_line("q:0 is enqueued.");
    let worked =
        place.ok(&["work", "q", "--until-empty", "--result", "--", "expr", "{}", "*", "6"]);
    assert_eq!(worked, "42\n");
    let ended = waiting.end();
    assert_eq!((ended.code, ended.stdout.as_str()), (0, "42\n\n"));
    let expected = json!({"job": "q:0", "outcome": "done", "result": "42\n"});
    assert_eq!(place.json(&["job", "wait", "q:0"]), [expected]);
    // The same by hand.
    place.enqueue("q", "x\n");
    let job = place.fetch("q");
    place.run(&["job", "wait", "q:1", "--wait", "10ms"]).expect(1, &[]);
    place.ok(&["extend", &job, "--lease", "1m", "--progress", "7 of 9"]);
    let shown = place.ok(&["job", "show", "q:1"]);
    for line in ["state     leased for default\n", "attempts  1, with 0", "progress  7 of 9\n"] {
        assert!(shown.contains(line), "{line:?} is not in\n{shown}");
    }
    assert_eq!(place.ok(&["commit", &job, "--result", "by hand"]), "q:1  consumed\n");
    assert_eq!(place.ok(&["job", "wait", "q:1"]), "by hand\n");
    assert_eq!(place.json(&["job", "show", "q:1"])[0]["result_bytes"], 7);
    let shown = place.ok(&["queue", "show", "q"]);
    assert!(shown.contains("results     2 kept, 266 bytes; 0 went for others\n"), "{shown}");
}

#[test]
fn the_end_of_a_job_is_the_exit_code_of_who_waits() {
    let place = Place::new();
    place.enqueue("q", "dead\ncancelled\nwithout\n");
    let dead = place.fetch("q");
    place.ok(&["fail", &dead, "--reason", "no ink", "--retries", "0"]);
    place.ok(&["cancel", "q:1"]);
    let without = place.fetch("q");
    place.ok(&["commit", &without]);
    let run = place.run(&["job", "wait", "q:0"]);
    assert_eq!((run.code, run.stdout.as_str()), (1, "q:0  dead by failures: no ink\n"));
    let run = place.run(&["job", "wait", "q:1"]);
    assert_eq!((run.code, run.stdout.as_str()), (1, "q:1  cancelled\n"));
    assert!(place.ok(&["job", "wait", "q:2"]).starts_with("q:2  gone; it has ended"));
    place.run(&["job", "wait", "q:3"]).expect(1, &["BEYOND_END"]);
}

#[test]
fn a_worker_of_another_group_gives_no_results_and_ends() {
    let place = Place::new();
    place.enqueue("q", "x\n");
    place.ok(&["group", "create", "q", "audit"]);
    let work = ["work", "q", "--group", "audit", "--result", "--until-empty", "--", "true"];
    place.run(&work).expect(1, &["NOT_PRIMARY_GROUP"]);
    assert_eq!(place.json(&["group", "show", "q", "audit"])[0]["ready"], 1);
}

#[test]
fn jobs_are_moved_and_copied_by_what_they_are() {
    let place = Place::new();
    for (payload, key) in [("1", "a"), ("2", "b"), ("3", "a"), ("4", "a")] {
        place.ok(&["enqueue", "q", payload, "--key", key, "--header", "kind=x"]);
    }
    place.ok(&["enqueue", "q", "5", "--key", "a", "--delay", "1h"]);
    let leased = place.fetch("q");
    let copied = place.ok(&["copy", "q", "copies", "--key", "a", "--limit", "3"]);
    assert_eq!(copied, "3 jobs copied from q to copies\n");
    let moved = place.json(&["move", "q", "moved", "--key", "a", "--header", "kind=x"]);
    assert_eq!(moved, [json!({"from": "q", "to": "moved", "moved": 2, "leased": 1})]);
    let texts = |queue: &str| -> Vec<String> {
        let jobs = place.json(&["peek", queue]);
        jobs.iter().map(|job| job["payload"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(
        (texts("copies"), texts("moved")),
        (["1", "3", "4"].map(String::from).into(), ["3", "4"].map(String::from).into())
    );
    // What is delayed is delayed there, too.
    assert_eq!(place.ok(&["move", "q", "moved", "--older", "0s"]).split(' ').next(), Some("2"));
    assert_eq!(place.json(&["job", "show", "moved:3"])[0]["state"], "delayed");
    place.ok(&["commit", &leased]);
    assert_eq!(place.json(&["group", "show", "q", "default"])[0]["removed"]["moved"], 4);
    assert_eq!(place.ok(&["move", "q", "moved"]), "0 jobs moved from q to moved\n");
}

#[test]
fn dead_jobs_are_retried_in_another_queue() {
    let place = Place::new();
    place.enqueue("q", "1\n2\n3\n4\n");
    for number in 0..4 {
        let job = place.fetch("q");
        let reason = if number == 2 { "no paper" } else { "no ink" };
        place.ok(&["fail", &job, "--reason", reason, "--retries", "0"]);
    }
    let moved = place.ok(&["dead", "retry", "q", "--error", "ink", "--to", "other"]);
    assert_eq!(moved, "3 jobs moved\n");
    place.run(&["dead", "retry", "q:0", "--to", "other"]).expect(1, &["q:0 is not dead"]);
    assert_eq!((place.count("q", "dead"), place.count("q", "committed_offset")), (1, 2));
    let fetched = place.json(&["fetch", "other", "--jobs", "9"]);
    let texts: Vec<_> = fetched.iter().map(|job| job["payload"].as_str().unwrap()).collect();
    assert_eq!(texts, ["1", "2", "4"]);
    // They are new jobs there.
    assert_eq!(fetched[0]["attempt"], 1);
}
