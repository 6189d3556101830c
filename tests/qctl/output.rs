//! What all commands have in common: JSON, colours, and readers that have seen enough.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use serde_json::json;

use crate::support::{Place, Run};

/// Reads one line of its output, as `head -1` does, and then no more.
fn head_1(mut command: Command) -> (String, Run) {
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    (line, Run::of(child.wait_with_output().unwrap()))
}

#[test]
fn every_change_is_told_as_an_object() {
    let place = Place::new();
    let changes: &[(&[&str], serde_json::Value)] = &[
        (&["queue", "create", "q"], json!({"queue": "q", "done": "created"})),
        (&["group", "create", "q", "g"], json!({"queue": "q", "group": "g", "done": "created"})),
        (&["queue", "pause", "q"], json!({"queue": "q", "done": "paused"})),
        (
            &["queue", "pause", "q", "--group", "g"],
            json!({"queue": "q", "group": "g", "done": "paused"}),
        ),
        (&["queue", "resume", "q"], json!({"queue": "q", "done": "resumed"})),
        (
            &["group", "seek", "q", "g", "--to", "end"],
            json!({"queue": "q", "group": "g", "committed_offset": 0}),
        ),
        (
            &["group", "delete", "q", "g", "--yes"],
            json!({"queue": "q", "group": "g", "done": "deleted"}),
        ),
        (&["queue", "purge", "q", "--yes"], json!({"queue": "q", "purged": 0, "leased": 0})),
        (&["queue", "delete", "q", "--yes"], json!({"queue": "q", "done": "deleted"})),
    ];
    for (arguments, told) in changes {
        assert_eq!(place.json(arguments), std::slice::from_ref(told), "{arguments:?}");
    }
}

#[test]
fn nothing_destructive_is_done_where_nobody_can_be_asked() {
    let place = Place::new();
    place.enqueue("q", "a\nb\n");
    place.ok(&["group", "create", "q", "g"]);
    let job = place.fetch("q");
    place.ok(&["fail", &job, "--reason", "no", "--retries", "0"]);
    let before = place.json(&["queue", "show", "q"]);
    for (arguments, told) in [
        (&["queue", "delete", "q"][..], "--yes is needed to delete queue q with its groups"),
        (&["group", "delete", "q", "g"], "--yes is needed to delete group g of queue q"),
        (&["queue", "purge", "q"], "--yes is needed to purge all jobs of queue q"),
        (&["dead", "drop", "q", "--all"], "--yes is needed to drop dead jobs of q"),
        (&["dead", "drop", "q:0"], "--yes is needed to drop dead jobs of q:0"),
    ] {
        place.run(arguments).expect(2, &[told]);
    }
    assert_eq!(place.json(&["queue", "show", "q"]), before);
}

#[test]
fn colors_are_for_terminals_and_for_those_who_ask() {
    let place = Place::new();
    place.enqueue("q", "x\n");
    let job = place.fetch("q");
    place.ok(&["fail", &job, "--reason", "no", "--retries", "0"]);
    let list = |color: &[&str]| place.ok(&[&["group", "list", "q"], color].concat());
    let plain = list(&[]);
    assert!(!plain.contains('\u{1b}'), "no terminal: {plain:?}");
    assert_eq!(list(&["--color", "never"]), plain);
    let colored = list(&["--color=always"]);
    assert!(colored.contains("\u{1b}[1mGROUP"), "{colored:?}");
    assert!(colored.contains("\u{1b}[1m\u{1b}[31m1\u{1b}[0m"), "one is dead: {colored:?}");
    let help = place.ok(&["queue", "--help", "--color", "always"]);
    assert!(help.contains('\u{1b}'), "{help:?}");
    let wrong = place.run(&["--color", "always", "queue", "show", "none"]);
    wrong.expect(1, &["\u{1b}[1m\u{1b}[31mqctl:\u{1b}[0m DESCRIBE_QUEUE"]);
    place.run(&["ping", "--color", "blue"]).expect(2, &["auto, always, never"]);
}

#[test]
fn a_long_output_ends_quietly_when_its_reader_has_seen_enough() {
    let place = Place::new();
    place.enqueue("q", &"a line that is long enough to fill a pipe soon\n".repeat(4000));
    let jobs = place.json(&["fetch", "q", "--jobs", "4000"]);
    let text = |job: &serde_json::Value, name: &str| job[name].as_str().unwrap().to_owned();
    let names: Vec<String> =
        jobs.iter().map(|job| text(job, "job") + "@" + &text(job, "token")).collect();
    let mut fail: Vec<&str> = names.iter().map(String::as_str).collect();
    fail.splice(0..0, ["fail", "--retries", "0", "--reason", "a reason of some length"]);
    place.ok(&fail);
    for (arguments, begin) in [
        (&["peek", "q", "--limit", "1000000"][..], "job       q:0\n"),
        (&["peek", "q", "--limit", "1000000", "--json"], "{\"job\":\"q:0\""),
        (&["dead", "list", "q", "--limit", "1000000"], "JOB "),
        (&["dead", "list", "q", "--limit", "1000000", "--json"], "{\"job\":\"q:0\""),
    ] {
        let (line, run) = head_1(place.command(arguments));
        assert!(line.starts_with(begin), "{arguments:?}: {line:?}");
        assert_eq!((run.code, run.stderr.as_str()), (0, ""), "{arguments:?}");
    }
    let whole = place.ok(&["dead", "list", "q", "--limit", "1000000"]);
    assert_eq!(whole.lines().count(), 4001, "one head for all pages");
}
