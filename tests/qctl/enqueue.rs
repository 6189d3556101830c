//! `enqueue` and `peek`: what goes in is what is there.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;

use serde_json::json;

use crate::support::{Place, parse};

#[test]
fn one_job_is_named_and_shown_with_all_that_it_has() {
    let place = Place::new();
    let arguments = ["enqueue", "q", "hello", "--key", "k", "--header", "a=b=c", "--header", "d="];
    let run = place.run(&arguments);
    run.expect(0, &["Queue q is created."]);
    assert_eq!(run.stdout, "q:0\n");
    assert_eq!(place.json(&["enqueue", "q", "again"]), [json!({"job": "q:1"})]);
    let mut job = place.json(&["peek", "q", "--limit", "1"]).remove(0);
    let enqueued_at = job["enqueued_at"].take();
    assert!(enqueued_at.as_str().unwrap().ends_with('Z'), "{enqueued_at}");
    let headers = json!([{"name": "a", "value": "b=c"}, {"name": "d", "value": ""}]);
    assert_eq!(
        job,
        json!({
            "job": "q:0", "enqueued_at": null, "key": "k", "headers": headers, "payload": "hello"
        })
    );
    let text = place.ok(&["peek", "q"]);
    for line in ["job       q:0\n", "header    a=b=c\n", "payload   hello\n", "job       q:1\n"] {
        assert!(text.contains(line), "{line:?} is not in\n{text}");
    }
}

#[test]
fn bytes_go_through_as_they_are() {
    let place = Place::new();
    let raw = OsStr::from_bytes(b"\xff\xfe");
    let words = ["enqueue", "q", "--key"].map(OsStr::new);
    assert_eq!(place.ok(&[&words[..], &[raw, raw]].concat()), "q:0\n");
    let path = place.path("payload");
    fs::write(&path, b"\0\xff\n").unwrap();
    assert_eq!(place.ok(&["enqueue", "q", "--file", path.to_str().unwrap()]), "q:1\n");
    let run = place.run_with_input(&["enqueue", "q", "--file", "-"], b"from a pipe\n");
    assert_eq!((run.code, run.stdout.as_str()), (0, "q:2\n"));
    let jobs = place.json(&["peek", "q"]);
    assert_eq!(jobs[0]["key_base64"], "//4=");
    assert_eq!(jobs[0]["payload_base64"], "//4=");
    assert_eq!(jobs[1]["payload_base64"], "AP8K");
    assert_eq!(jobs[2]["payload"], "from a pipe\n");
}

#[test]
fn each_line_is_a_job_in_order() {
    let place = Place::new();
    let lines: String = (0..2500).map(|number| format!("line {number}\n")).collect();
    let path = place.path("lines");
    fs::write(&path, &lines).unwrap();
    let path = path.to_str().unwrap();
    assert_eq!(place.ok(&["enqueue", "q", "--lines", path]), "2500 jobs enqueued to q\n");
    let run = place.run_with_input(&["enqueue", "q", "--lines", "-", "--json"], b"x\n\n\xff");
    assert_eq!(parse(run.stdout.trim()), json!({"queue": "q", "jobs": 3}));
    let jobs = place.json(&["peek", "q", "--limit", "10000"]);
    assert_eq!(jobs.len(), 2503);
    for (number, job) in jobs.iter().take(2500).enumerate() {
        assert_eq!(job["payload"], format!("line {number}"));
    }
    assert_eq!(
        (&jobs[2501]["payload"], &jobs[2502]["payload_base64"]),
        (&"".into(), &"/w==".into())
    );
    let page = place.json(&["peek", "q", "--from", "2499", "--limit", "2"]);
    assert_eq!((&page[0]["job"], &page[1]["payload"]), (&"q:2499".into(), &"x".into()));
    let run = place.run_with_input(&["enqueue", "q", "--lines", "-"], b"");
    assert_eq!((run.code, run.stdout.as_str()), (0, "0 jobs enqueued to q\n"));
}

#[test]
fn what_can_not_be_enqueued_is_named() {
    let place = Place::new();
    place.run(&["enqueue", "q", "x", "--no-create"]).expect(1, &["NO_SUCH_QUEUE"]);
    place.run(&["enqueue", "q", "--file", "/none/at/all"]).expect(1, &["/none/at/all can't be"]);
    place.run(&["enqueue", "q", "--lines", "/none"]).expect(1, &["/none can't be read"]);
    let mut lines = b"short\n".to_vec();
    lines.resize(lines.len() + 1024 * 1024, b'x');
    let run = place.run_with_input(&["enqueue", "q", "--lines", "-"], &lines);
    run.expect(1, &["line 2 of standard input is too long", "1048576 bytes"]);
    let path = place.path("large");
    fs::write(&path, &lines).unwrap();
    let run = place.run(&["enqueue", "q", "--file", path.to_str().unwrap()]);
    run.expect(1, &["JOB_TOO_LARGE"]);
    assert!(place.json(&["queue", "list"]).is_empty(), "no job of the lines was taken");
}

#[test]
fn peek_takes_nothing() {
    let place = Place::new();
    place.run(&["peek", "q"]).expect(1, &["NO_SUCH_QUEUE"]);
    place.enqueue("q", "a\n");
    assert_eq!(place.json(&["peek", "q"]).len(), 1);
    assert!(place.json(&["peek", "q", "--from", "1"]).is_empty());
    assert!(place.json(&["group", "list", "q"]).is_empty(), "not even a group is born");
}
