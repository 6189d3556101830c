//! `tail`, `export` and `import`: jobs that are looked at, carried away, and put back.

use std::fs;
use std::io::{BufRead, BufReader};
use std::process::Stdio;
use std::thread;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use crate::support::{Background, Place, Run, parse};

/// Jobs with everything that a job can have.
fn all_kinds(place: &Place, queue: &str) {
    let raw = place.path("raw");
    fs::write(&raw, b"\0\xff\xfe\n\r\x1b").unwrap();
    let raw = raw.to_str().unwrap();
    for job in [
        &["plain \u{e4} \u{1f600} \"quoted\" \\"][..],
        &[""],
        &["--file", raw],
        &["keyed", "--key", "k", "--header", "a=b=c", "--header", "a=", "--header", "z=\u{e4}"],
        &["urgent", "--priority", "9", "--front"],
        &["delayed", "--delay", "2h", "--ttl", "3d"],
        &["later", "--at", "2100-01-02T03:04:05.678Z"],
    ] {
        place.ok(&[&["enqueue", queue][..], job].concat());
    }
    let lines = "{\"payload_base64\":\"/w==\",\"key_base64\":\"AP8=\",\
                 \"headers\":[{\"name\":\"h\",\"value_base64\":\"/w==\"}]}";
    let run = place.run_with_input(&["import", queue], lines.as_bytes());
    assert_eq!((run.code, run.stdout.as_str()), (0, &*format!("1 job imported to {queue}\n")));
}

/// Jobs without what depends on the queue and the time.
fn contents(export: &str) -> Vec<Value> {
    let bare = |line: &str| {
        let mut job = parse(line);
        let fields = job.as_object_mut().unwrap();
        assert!(fields.remove("job").is_some() && fields.remove("enqueued_at").is_some());
        job
    };
    export.lines().map(bare).collect()
}

#[test]
fn what_is_exported_and_imported_is_the_same() {
    let place = Place::new();
    all_kinds(&place, "q");
    let export = place.ok(&["export", "q"]);
    assert_eq!(export.lines().count(), 8);
    let run = place.run_with_input(&["import", "copy"], export.as_bytes());
    run.expect(0, &["Queue copy is created."]);
    let copy = place.ok(&["export", "copy"]);
    assert_eq!(contents(&copy), contents(&export));
    let jobs = contents(&copy);
    assert_eq!(jobs[2], json!({"headers": [], "payload_base64": "AP/+Cg0b"}));
    let (delay, ttl) = (&jobs[5]["delay_ms"], &jobs[5]["ttl_ms"]);
    assert_eq!((delay, ttl), (&7_200_000.into(), &259_200_000.into()));
    assert_eq!(place.json(&["peek", "q", "--limit", "100"]).len(), 8, "an export changes nothing");
    // A file, and JSON for the sum.
    let path = place.path("export");
    fs::write(&path, &export).unwrap();
    let done = place.json(&["import", "third", path.to_str().unwrap()]);
    assert_eq!(done, [json!({"queue": "third", "jobs": 8})]);
    assert_eq!(contents(&place.ok(&["export", "third", "--json"])), contents(&export));
}

#[test]
fn a_part_of_a_queue_is_exported() {
    let place = Place::new();
    let lines: String = (0..2500).map(|number| format!("{number}\n")).collect();
    place.enqueue("q", &lines);
    let payloads = |arguments: &[&str]| -> Vec<u64> {
        let export = place.ok(&[&["export", "q"], arguments].concat());
        let payload = |job: Value| job["payload"].as_str().unwrap().parse().unwrap();
        export.lines().map(parse).map(payload).collect()
    };
    assert_eq!(payloads(&[]), (0..2500).collect::<Vec<_>>());
    assert_eq!(payloads(&["--from", "2498"]), [2498, 2499]);
    assert_eq!(payloads(&["--from", "7", "--to", "10"]), [7, 8, 9]);
    assert!(payloads(&["--from", "end"]).is_empty());
    assert_eq!(payloads(&["--from", "1h", "--to", "2"]), [0, 1]);
    let third = place.json(&["peek", "q", "--from", "2", "--limit", "1"]).remove(0);
    place.ok(&["group", "create", "q", "keeps-all"]);
    let jobs = place.json(&["fetch", "q", "--jobs", "3"]);
    let name = |job: &Value| {
        format!("{}@{}", job["job"].as_str().unwrap(), job["token"].as_str().unwrap())
    };
    place.ok(&["commit", &name(&jobs[0]), &name(&jobs[2])]);
    assert_eq!(payloads(&["--to", "5"]), [0, 1, 2, 3, 4], "another group has still to see them");
    assert_eq!(payloads(&["--to", "5", "--unconsumed-by", "default"]), [1, 3, 4]);
    assert_eq!(payloads(&["--unconsumed-by", "default"]).len(), 2498);
    assert_eq!(payloads(&["--to", "2", "--unconsumed-by", "keeps-all"]), [0, 1]);
    let at = third["enqueued_at"].as_str().unwrap();
    assert!(payloads(&["--from", at]).first().unwrap() <= &2);
    place.run(&["export", "q", "--unconsumed-by", "none"]).expect(1, &["NO_SUCH_GROUP"]);
    place.run(&["export", "none"]).expect(1, &["NO_SUCH_QUEUE", "qctl queue list"]);
    place.run(&["export", "q", "--from", "soon"]).expect(2, &["start, end, an offset, a time"]);
}

#[test]
fn a_line_that_is_no_job_is_named_and_what_is_before_it_is_imported() {
    let place = Place::new();
    let mut lines = "{\"payload\":\"good\"}\n".repeat(1000);
    lines.push_str("{\"payload\":\"bad\",\"prio\":1}\n");
    let run = place.run_with_input(&["import", "q"], lines.as_bytes());
    run.expect(1, &["line 1001 of standard input is no job", "unknown field `prio`"]);
    assert_eq!(run.stdout, "1000 jobs imported to q\n");
    let run = place.run_with_input(&["import", "q", "--no-create", "-"], b"not JSON\n");
    run.expect(1, &["line 1 of standard input is no job"]);
    place.run(&["import", "q", "/none/at/all"]).expect(1, &["/none/at/all can't be read"]);
    let run = place.run_with_input(&["import", "new", "--no-create"], b"{\"payload\":\"x\"}\n");
    run.expect(1, &["NO_SUCH_QUEUE", "are not enqueued"]);
}

#[test]
fn an_import_under_a_name_goes_on_where_it_was_broken_off() {
    let place = Place::new();
    // Far more batches than the server remembers of a producer.
    let lines: String =
        (0..90_000).map(|number| format!("{{\"payload\":\"{number}\"}}\n")).collect();
    let part: String = lines.lines().take(75_000).map(|line| format!("{line}\n")).collect();
    let import = ["import", "q", "--once", "monday"];
    let run = place.run_with_input(&import, part.as_bytes());
    assert_eq!((run.code, run.stdout.as_str()), (0, "75000 jobs imported to q\n"));
    let run = place.run_with_input(&import, lines.as_bytes());
    assert_eq!((run.code, run.stdout.as_str()), (0, "90000 jobs imported to q\n"), "{run:?}");
    let list = place.json(&["queue", "list"]).remove(0);
    assert_eq!(list["next_offset"], 90_000, "none is there twice");
    // Other lines under the same name are not taken for them.
    let run = place.run_with_input(&["import", "q", "--once", "tuesday"], b"{\"payload\":\"a\"}\n");
    assert_eq!(run.code, 0, "{run:?}");
    let run = place.run_with_input(&["import", "q", "--once", "tuesday"], b"{\"payload\":\"b\"}\n");
    run.expect(1, &["lines 1 to 1 are not enqueued"]);
    // Without a name they are new.
    let run = place.run_with_input(&["import", "q"], b"{\"payload\":\"a\"}\n");
    assert_eq!(run.code, 0);
    assert_eq!(place.json(&["queue", "list"])[0]["next_offset"], 90_002);
}

#[test]
fn an_import_under_a_name_survives_a_kill_of_the_server_and_of_qctl() {
    let mut place = Place::new();
    let lines: String =
        (0..20_000).map(|number| format!("{{\"payload\":\"{number}\"}}\n")).collect();
    let path = place.path("lines");
    fs::write(&path, &lines).unwrap();
    let import = ["import", "q", "--once", "x", path.to_str().unwrap()];
    let mut child = place.command(&import).stdout(Stdio::null()).spawn().unwrap();
    while place.run(&["queue", "show", "q"]).code != 0 {}
    kill_process(Pid::from_child(&child), Signal::KILL).unwrap();
    child.wait().unwrap();
    place.server.kill9();
    place.server.restart();
    assert_eq!(place.ok(&import), "20000 jobs imported to q\n");
    let payloads: Vec<Value> = place.ok(&["export", "q"]).lines().map(parse).collect();
    assert_eq!(payloads.len(), 20_000);
    for (number, job) in payloads.iter().enumerate() {
        assert_eq!(job["payload"], number.to_string());
    }
}

/// Follows a queue in the background.
struct Follower {
    run: Background,
    lines: std::io::Lines<BufReader<std::process::ChildStdout>>,
}

impl Follower {
    fn start(place: &Place, arguments: &[&str]) -> Self {
        let arguments = [&["tail", "q", "--interval", "10ms"], arguments].concat();
        let mut run = Background::start(place.command(&arguments));
        let lines = BufReader::new(run.stdout()).lines();
        Self { run, lines }
    }

    fn next(&mut self) -> String {
        self.lines.next().unwrap().unwrap()
    }
}

#[test]
fn tail_shows_jobs_as_they_are_enqueued_and_takes_none() {
    let place = Place::new();
    place.enqueue("q", "a\nb\nc\n");
    let mut follower = Follower::start(&place, &["-n", "2"]);
    assert!(follower.next().starts_with("q:1  20"));
    assert!(follower.next().ends_with("Z  c"));
    place.ok(&["enqueue", "q", "d\u{1b}[2J\n", "--key", "k"]);
    let line = follower.next();
    assert!(line.ends_with("Z  key=k  d\\u{1b}[2J\\n"), "{line:?}");
    assert!(place.json(&["group", "list", "q"]).is_empty(), "not even a group is born");
    // What is consumed before it could be shown is told.
    follower.run.signal(Signal::STOP);
    place.enqueue("q", "e\nf\n");
    place.ok(&["work", "q", "--until-empty", "--", "true"]);
    place.enqueue("q", "g\n");
    follower.run.signal(Signal::CONT);
    assert!(follower.next().starts_with("q:6  "), "the next one that is there");
    follower.run.await_line("2 of the jobs from q:4 on were consumed before they could be shown");
    follower.run.signal(Signal::INT);
    let run = follower.run.end();
    assert_eq!((run.code, run.stderr.as_str()), (0, ""));
}

#[test]
fn tail_begins_where_it_is_told() {
    let place = Place::new();
    place.enqueue("q", "a\nb\nc\n");
    for (from, first) in [("start", "a"), ("1", "b"), ("1h", "a"), ("2000-01-01T00:00:00Z", "a")] {
        let mut follower = Follower::start(&place, &["--from", from, "--json"]);
        let job = parse(&follower.next());
        assert_eq!(job["payload"], first, "{from}");
        follower.run.signal(Signal::TERM);
        assert_eq!(follower.run.end().code, 0);
    }
    let mut follower = Follower::start(&place, &["--from", "end"]);
    // When it has found the end can't be seen: jobs come until it has shown one.
    let reader = thread::spawn(move || follower.next());
    while !reader.is_finished() {
        place.enqueue("q", "new\n");
    }
    let line = reader.join().unwrap();
    assert!(line.ends_with("  new"), "{line:?}");
    place.run(&["tail", "none"]).expect(1, &["NO_SUCH_QUEUE"]);
    place.run(&["tail", "q", "--from", "middle"]).expect(2, &["start, end, an offset"]);
    place.run(&["tail", "q", "--interval", "0"]).expect(2, &["at least 1ms"]);
    place.run(&["tail", "q", "-n", "1", "--from", "end"]).expect(2, &["cannot be used with"]);
}

#[test]
fn tail_ends_when_nobody_reads_it() {
    let place = Place::new();
    place.enqueue("q", "a\n");
    let mut child = place.command(&["tail", "q", "--interval", "10ms"]);
    let mut child = child.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert!(line.starts_with("q:0  "), "{line}");
    let run = Run::of(child.wait_with_output().unwrap());
    assert_eq!((run.code, run.stderr.as_str()), (0, ""), "though no other job comes");
}

#[test]
fn tail_follows_a_queue_that_was_made_anew() {
    let place = Place::new();
    place.enqueue("q", "a\nb\n");
    let mut follower = Follower::start(&place, &[]);
    assert!(follower.next().ends_with("  a") && follower.next().ends_with("  b"));
    follower.run.signal(Signal::STOP);
    place.ok(&["queue", "delete", "q", "--yes"]);
    place.enqueue("q", "new\n");
    follower.run.signal(Signal::CONT);
    let line = follower.next();
    assert!(line.starts_with("q:2  "), "no offset comes twice: {line:?}");
}
