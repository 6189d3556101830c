//! `qctl work`: a durable `xargs`.

use std::fs::{self, File};
use std::process::Stdio;

use rustix::process::Signal;

use crate::support::{Background, Place, Run, await_pipe, let_go};

fn sorted(text: &str) -> Vec<&str> {
    let mut lines: Vec<&str> = text.lines().collect();
    lines.sort_unstable();
    lines
}

/// A command for `sh` that says its payload through one pipe, and goes on when told by another.
fn held_up(place: &Place) -> (String, std::path::PathBuf, std::path::PathBuf) {
    let (started, go) = (place.pipe("started"), place.pipe("go"));
    let script = format!("echo $0 > {}; read x < {}; echo did $0", started.display(), go.display());
    (script, started, go)
}

#[test]
fn each_job_runs_once_with_its_payload_as_argument_or_input() {
    let place = Place::new();
    let lines: Vec<String> = (100..200).map(|number| format!("job {number}")).collect();
    let work = ["work", "q", "--until-empty", "--concurrency", "4", "--"];
    place.enqueue("q", &(lines.join("\n") + "\n"));
    let out = place.ok(&[&work[..], &["echo", "<{}>", "{}"]].concat());
    let expected: Vec<String> = lines.iter().map(|line| format!("<{line}> {line}")).collect();
    assert_eq!(sorted(&out), expected);
    place.enqueue("q", &(lines.join("\n") + "\n"));
    let out = place.ok(&[&work[..], &["sh", "-c", "cat; echo"]].concat());
    assert_eq!(sorted(&out), lines);
    assert_eq!(place.count("q", "committed_offset"), 200);
    // A command need not read its input.
    place.enqueue("q", "x\n");
    place.ok(&[&work[..], &["true"]].concat());
}

#[test]
fn the_output_of_a_job_stays_whole() {
    let place = Place::new();
    let lines: String = (10..20).map(|number| format!("{number}\n")).collect();
    place.enqueue("q", &lines);
    let script = "for i in 1 2 3 4 5; do echo $0; sleep 0.01; done";
    let work = ["work", "q", "--until-empty", "--concurrency", "5", "--", "sh", "-c", script, "{}"];
    let out = place.ok(&work);
    let lines: Vec<&str> = out.lines().collect();
    assert_eq!(lines.len(), 50);
    for piece in lines.chunks(5) {
        assert!(piece.iter().all(|line| line == &piece[0]), "{piece:?}");
    }
}

#[test]
fn a_failing_command_is_retried_until_its_job_is_dead() {
    let place = Place::new();
    place.ok(&["queue", "create", "q", "--backoff-first", "1ms", "--backoff-longest", "1ms"]);
    place.enqueue("q", "bad\ngood\n");
    let script = "echo trouble with $0 >&2; [ $0 = good ] || exit 3";
    let work = ["work", "q", "--until-empty", "--retries", "2", "--", "sh", "-c", script, "{}"];
    let mut attempts = 0;
    let last = loop {
        let run = place.run(&work);
        attempts += run.stderr.matches("trouble with bad").count();
        if run.stderr.contains("dead now") {
            break run;
        }
        assert_eq!(run.code, 0, "a job that waits for its retry has not failed for good: {run:?}");
    };
    last.expect(1, &["q:0: exit status 3", "q:0 failed for good", "q: 0 delayed, 1 dead"]);
    assert_eq!(attempts, 3);
    let shown = place.ok(&["queue", "show", "q"]);
    for line in ["    exit status 3\n    trouble with bad", "(3 attempts, 3 failures, 0 crashes)"] {
        assert!(shown.contains(line), "{line:?} is not in\n{shown}");
    }
    // The dead job of an earlier run is told again, but is no failure of this one.
    place.run(&work).expect(0, &["q: 0 delayed, 1 dead"]);
}

#[test]
fn the_end_waits_for_what_others_have_leased() {
    let place = Place::new();
    place.enqueue("q", "x\n");
    place.ok(&["fetch", "q", "--lease", "1s"]);
    let out = place.ok(&["work", "q", "--until-empty", "--", "echo", "{}"]);
    assert_eq!(out, "x\n");
    // Neither a queue nor a group need be there.
    place.ok(&["work", "none", "--until-empty", "--", "true"]);
}

#[test]
fn a_command_that_can_not_be_started_ends_the_work_and_keeps_the_job() {
    let place = Place::new();
    place.enqueue("q", "x\n");
    let run = place.run(&["work", "q", "--", "/no/such/command", "{}"]);
    run.expect(1, &["the command /no/such/command can't be started", "No such file"]);
    assert_eq!((place.count("q", "ready"), place.count("q", "leased")), (1, 0));
    place.run(&["work", "q", "--group", "misspelt", "--", "true"]).expect(1, &["NO_SUCH_GROUP"]);
}

#[test]
fn a_payload_that_no_argument_can_be_fails_its_job_alone() {
    let place = Place::new();
    fs::write(place.path("zero"), b"a\0b").unwrap();
    fs::write(place.path("long"), vec![b'x'; 500_000]).unwrap();
    for name in ["zero", "long"] {
        place.ok(&["enqueue", "q", "--file", place.path(name).to_str().unwrap()]);
    }
    place.enqueue("q", "fine\n");
    let work = ["work", "q", "--until-empty", "--retries", "0", "--", "echo", "{}"];
    let run = place.run(&work);
    run.expect(1, &["q:0 failed for good", "q:1 failed for good"]);
    assert_eq!(run.stdout, "fine\n");
    let shown = place.ok(&["queue", "show", "q"]);
    assert!(shown.contains("zero byte") && shown.contains("too long for an argument"), "{shown}");
}

#[test]
fn a_job_whose_output_is_lost_is_not_committed() {
    let place = Place::new();
    place.enqueue("q", "x\n");
    // Without an end of line, which would be a reason to write it out.
    let mut command = place.command(&["work", "q", "--", "printf", "%s", "{}"]);
    let full = File::options().write(true).open("/dev/full").unwrap();
    let run = Run::of(command.stdout(full).stderr(Stdio::piped()).output().unwrap());
    run.expect(1, &["standard output can't be written"]);
    assert_eq!((place.count("q", "ready"), place.count("q", "committed_offset")), (1, 0));
}

#[test]
fn sigterm_finishes_what_runs_and_takes_nothing_new() {
    let place = Place::new();
    place.enqueue("q", "first\n");
    let (script, started, go) = held_up(&place);
    let work = ["work", "q", "--concurrency", "2", "--", "sh", "-c", &script, "{}"];
    let mut worker = Background::start(place.command(&work));
    assert_eq!(await_pipe(&started), "first\n");
    worker.signal(Signal::TERM);
    worker.await_line("finishing 1 running");
    // Its FETCH still waits at the server, which gives it this one.
    place.enqueue("q", "second\n");
    let_go(&go);
    let run = worker.end();
    assert_eq!((run.code, run.stdout.as_str()), (0, "did first\n"), "{run:?}");
    assert_eq!((place.count("q", "committed_offset"), place.count("q", "ready")), (1, 1));
}

#[test]
fn a_second_signal_kills_what_runs_and_hands_it_back() {
    let place = Place::new();
    place.enqueue("q", "x\n");
    let started = place.pipe("started");
    let script = format!("echo > {}; sleep 1000; echo never", started.display());
    let mut worker =
        Background::start(place.command(&["work", "q", "--", "sh", "-c", &script, "{}"]));
    await_pipe(&started);
    worker.signal(Signal::INT);
    worker.await_line("a second signal kills");
    worker.signal(Signal::INT);
    let run = worker.end();
    run.expect(1, &["1 running were killed, and their jobs handed back"]);
    assert_eq!(run.stdout, "");
    assert_eq!((place.count("q", "ready"), place.count("q", "leased")), (1, 0));
}

#[test]
fn a_worker_without_jobs_ends_at_a_signal() {
    let place = Place::new();
    place.ok(&["queue", "create", "q"]);
    let command = place.command(&["work", "q", "--", "true"]);
    let worker = Background::start(command);
    // The group is born with the worker's first FETCH.
    while place.json(&["group", "list", "q"]).is_empty() {}
    worker.signal(Signal::TERM);
    let run = worker.end();
    assert_eq!((run.code, run.stderr.as_str()), (0, ""));
}

#[test]
fn a_worker_goes_on_after_the_server_was_killed() {
    let mut place = Place::new();
    place.enqueue("q", "first\n");
    let (script, started, go) = held_up(&place);
    let work = ["work", "q", "--until-empty", "--", "sh", "-c", &script, "{}"];
    let mut worker = Background::start(place.command(&work));
    await_pipe(&started);
    place.server.kill9();
    worker.await_line("trying again");
    let_go(&go);
    place.server.restart();
    worker.await_line("connected again");
    let run = worker.end();
    assert_eq!((run.code, run.stdout.as_str()), (0, "did first\n"), "{run:?}");
    assert_eq!(place.count("q", "committed_offset"), 1);
}

#[test]
fn a_lease_that_was_lost_is_reported() {
    let place = Place::new();
    place.enqueue("q", "x\n");
    let (script, started, go) = held_up(&place);
    let work = ["work", "q", "--lease", "300ms", "--", "sh", "-c", &script, "{}"];
    let mut worker = Background::start(place.command(&work));
    await_pipe(&started);
    // While it is stopped, the longest time of the lease runs out, and another gets the job.
    worker.signal(Signal::STOP);
    let job = place.fetch("q");
    worker.signal(Signal::CONT);
    let_go(&go);
    worker.await_line("q:0 is not committed: its lease was lost");
    place.ok(&["commit", &job]);
    worker.signal(Signal::TERM);
    assert_eq!(worker.end().code, 0);
}

#[test]
fn the_lease_is_kept_for_as_long_as_the_command_runs() {
    let place = Place::new();
    place.enqueue("q", "x\n");
    let (script, started, go) = held_up(&place);
    let work = ["work", "q", "--until-empty", "--lease", "300ms", "--", "sh", "-c", &script, "{}"];
    let worker = Background::start(place.command(&work));
    await_pipe(&started);
    // Several times the lease's length.
    place.run(&["fetch", "q", "--wait", "1500ms"]).expect(1, &["no job was ready"]);
    let_go(&go);
    let run = worker.end();
    assert_eq!((run.code, run.stdout.as_str()), (0, "did x\n"), "{run:?}");
}
