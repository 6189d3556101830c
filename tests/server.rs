//! The server as its operator meets it: start, stop, limits; and how it hands jobs to those who
//! wait for them.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test may stop at what it did not expect"
)]

mod common;

use std::process::Command;

use common::{Raw, Server, all_done, new_session, of_default};
use joblog_protocol::ErrorCode;
use joblog_protocol::messages::fetch::LeaseKind;
use tempfile::TempDir;

/// Long enough that a test would not pass by a wait that ended.
const LONG_WAIT_MS: u32 = 60_000;

fn server_with(config: &str) -> (Server, TempDir) {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("joblog.toml");
    std::fs::write(&file, format!("segment_bytes = 16777216\n{config}")).unwrap();
    let server = Server::start_with(&dir.path().join("data"), &file, &[]);
    (server, dir)
}

/// Sends a FETCH that waits.
fn wait_for(raw: &mut Raw, queues: &[&str], jobs_max: u32, wait_ms: u32) -> u64 {
    let lease = LeaseKind::Session { run_ms_max: None };
    raw.request_fetch(queues, jobs_max, wait_ms, lease, &[]).unwrap()
}

#[test]
fn the_ready_line_names_address_durability_and_the_time_of_a_sync() {
    let dir = tempfile::tempdir().unwrap();
    for durability in ["fsync", "interval:50", "os"] {
        let data = dir.path().join(durability.replace(':', "-"));
        let mut server = Server::start(&data, &["--durability", durability]);
        let line = server.ready_line().to_owned();
        let address = format!("joblogd ready on {} ", server.address());
        assert!(line.starts_with(&address), "{line}");
        assert!(line.contains(&format!("durability {durability},")), "{line}");
        assert!(line.contains(" ms here"), "{line}");

        let mut raw = Raw::greeted(server.address());
        raw.enqueue("q", &["kept"]).unwrap();
        assert_eq!(server.stop().code(), Some(0));
        server.restart();
        let mut raw = Raw::greeted(server.address());
        let jobs = raw.fetch(&["q"], 10, 0).unwrap();
        assert_eq!(jobs.len(), 1, "at {durability} a clean stop loses nothing");
    }
}

#[test]
fn queues_of_several_logs_are_served_as_those_of_one() {
    let dir = tempfile::tempdir().unwrap();
    let mut server = Server::start(dir.path(), &["--logs", "3"]);
    let mut raw = Raw::greeted(server.address());
    let queues: Vec<String> = (0..30).map(|number| format!("q{number}")).collect();
    let names: Vec<&str> = queues.iter().map(String::as_str).collect();
    for name in &names {
        raw.enqueue(name, &[name, name]).unwrap();
    }
    let of_log = |log| std::fs::read_dir(dir.path().join(format!("log-{log}"))).unwrap().count();
    assert!((0..3).all(|log| of_log(log) > 0));

    // In the order given, across the logs, and within the number asked for.
    let jobs = raw.fetch(&names, 45, 0).unwrap();
    let expected: Vec<u8> = (0..30).flat_map(|number| [number, number]).take(45).collect();
    assert_eq!(jobs.iter().map(|job| job.queue_ordinal).collect::<Vec<_>>(), expected);
    let sets: Vec<_> = jobs
        .iter()
        .map(|job| of_default(names[usize::from(job.queue_ordinal)], [job.handle()]))
        .collect();

    // A lost reply is a job back in the queue, in each of the logs: only these tokens are held.
    let session = new_session();
    let mut holder = Raw::connect(server.address()).unwrap();
    holder.hello(session, 0, &[]).unwrap();
    let rest = holder.fetch(&names, 100, 0).unwrap();
    assert_eq!(rest.len(), 15);
    let held: Vec<_> = rest.iter().take(3).map(|job| job.token).collect();
    let mut again = Raw::connect(server.address()).unwrap();
    assert_eq!(again.hello(session, 0, &held).unwrap(), (3, 12));

    // Commits of several logs in one request, after a kill: the tokens are still good.
    server.kill9();
    server.restart();
    let mut raw = Raw::greeted(server.address());
    for set in sets {
        assert!(all_done(&raw.commit(set).unwrap()));
    }
    assert_eq!(raw.fetch(&names, 100, 0).unwrap().len(), 12);

    // A FETCH waits in all of them, is answered by the first, and forgotten by the others.
    for name in [names[0], names[1], names[2], names[7]] {
        let mut worker = Raw::greeted(server.address());
        let waiting = wait_for(&mut worker, &names, 2, LONG_WAIT_MS);
        worker.assert_open();
        raw.enqueue(name, &["late"]).unwrap();
        let jobs = worker.reply_to(waiting).unwrap().jobs();
        assert_eq!((jobs.len(), names[usize::from(jobs[0].queue_ordinal)]), (1, name));
        raw.enqueue(name, &["for the next"]).unwrap();
        assert_eq!(raw.fetch(&names, 5, 0).unwrap().len(), 1);
        worker.goodbye().unwrap();
        assert_eq!(raw.fetch(&names, 5, 0).unwrap().len(), 1, "given back by the goodbye");
    }

    assert_eq!(server.stop().code(), Some(0));
    let output = Command::new(env!("CARGO_BIN_EXE_joblogd"))
        .args(["--listen", "127.0.0.1:0", "--logs", "2", "--data"])
        .arg(dir.path())
        .output()
        .unwrap();
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(text.contains("logs is 2") && text.contains('3'), "{text}");
}

#[test]
fn a_second_server_on_the_same_data_says_who_has_it() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), &[]);
    let holder = std::fs::read_to_string(dir.path().join("LOCK")).unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_joblogd"))
        .args(["--listen", "127.0.0.1:0", "--data"])
        .arg(dir.path())
        .output()
        .unwrap();
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains(&format!("process {}", holder.trim())), "{text}");
    Raw::greeted(server.address()).assert_open();
}

#[test]
fn a_port_that_is_taken_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(&dir.path().join("one"), &[]);
    let address = server.address().to_string();
    let output = Command::new(env!("CARGO_BIN_EXE_joblogd"))
        .args(["--listen", &address, "--data"])
        .arg(dir.path().join("two"))
        .output()
        .unwrap();
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains(&address), "{text}");
}

#[test]
fn a_connection_over_the_limit_is_told_so_and_closed() {
    let (server, _dir) = server_with("connections_max = 2\n");
    let mut first = Raw::greeted(server.address());
    let mut second = Raw::greeted(server.address());
    let mut third = Raw::connect(server.address()).unwrap();
    let frame = third.frame().unwrap();
    assert_eq!(frame.code(), Some(ErrorCode::TooMany));
    assert!(frame.text().contains('2'), "{}", frame.text());
    third.assert_closed();
    first.assert_open();
    second.assert_open();
}

#[test]
fn without_auto_create_a_missing_queue_is_refused() {
    let (server, _dir) = server_with("auto_create = false\n");
    let mut raw = Raw::greeted(server.address());
    let error = raw.enqueue("q", &["job"]).unwrap_err().to_string();
    assert!(error.contains("NO_SUCH_QUEUE"), "{error}");
}

#[test]
fn a_job_goes_to_the_first_who_waits_and_to_no_other() {
    let (server, _dir) = server_with("");
    let mut producer = Raw::greeted(server.address());
    producer.enqueue("q", &["already there"]).unwrap();
    let mut first = Raw::greeted(server.address());
    assert_eq!(first.fetch(&["q"], 1, 0).unwrap().len(), 1);

    // PING behind the FETCH says that it waits in its line before the next one comes.
    let waiting = wait_for(&mut first, &["q"], 1, LONG_WAIT_MS);
    first.assert_open();
    let mut second = Raw::greeted(server.address());
    wait_for(&mut second, &["q"], 1, LONG_WAIT_MS);
    second.assert_open();

    producer.enqueue("q", &["one"]).unwrap();
    let jobs = first.reply_to(waiting).unwrap().jobs();
    assert_eq!(jobs[0].payload, b"one");

    producer.enqueue("q", &["two"]).unwrap();
    let jobs = second.frame().unwrap().jobs();
    assert_eq!(jobs[0].payload, b"two");
}

#[test]
fn a_job_passes_by_one_who_has_gone() {
    let (server, _dir) = server_with("");
    let mut producer = Raw::greeted(server.address());
    producer.enqueue("q", &["already there"]).unwrap();
    let mut gone = Raw::greeted(server.address());
    assert_eq!(gone.fetch(&["q"], 1, 0).unwrap().len(), 1);
    wait_for(&mut gone, &["q"], 1, LONG_WAIT_MS);
    gone.assert_open();
    let mut second = Raw::greeted(server.address());
    let waiting = wait_for(&mut second, &["q"], 1, LONG_WAIT_MS);
    second.assert_open();

    gone.shut_sending();
    gone.assert_closed();
    producer.enqueue("q", &["next"]).unwrap();
    let jobs = second.reply_to(waiting).unwrap().jobs();
    assert_eq!(jobs[0].payload, b"next");
}

#[test]
fn a_fetch_waits_for_a_queue_that_does_not_exist_and_for_each_of_several() {
    let (server, _dir) = server_with("");
    let mut producer = Raw::greeted(server.address());
    let mut worker = Raw::greeted(server.address());
    for queue in ["b", "a", "c"] {
        let waiting = wait_for(&mut worker, &["a", "b", "c"], 5, LONG_WAIT_MS);
        worker.assert_open();
        producer.enqueue(queue, &[queue]).unwrap();
        let jobs = worker.reply_to(waiting).unwrap().jobs();
        assert_eq!((jobs.len(), &jobs[0].payload[..]), (1, queue.as_bytes()));
        let statuses = worker.commit(of_default(queue, [jobs[0].handle()])).unwrap();
        assert!(all_done(&statuses));
    }
}

#[test]
fn several_queues_are_taken_from_in_the_order_given() {
    let (server, _dir) = server_with("");
    let mut raw = Raw::greeted(server.address());
    raw.enqueue("low", &["l0", "l1"]).unwrap();
    raw.enqueue("high", &["h0", "h1"]).unwrap();
    let jobs = raw.fetch(&["high", "low"], 3, 0).unwrap();
    let payloads: Vec<_> = jobs.iter().map(|job| job.payload.clone()).collect();
    assert_eq!(payloads, [b"h0", b"h1", b"l0"]);
}

#[test]
fn a_job_that_comes_back_is_handed_to_one_who_waits() {
    let (server, _dir) = server_with("");
    let mut holder = Raw::greeted(server.address());
    holder.enqueue("q", &["job"]).unwrap();
    let jobs = holder.fetch(&["q"], 1, 0).unwrap();
    let mut waiter = Raw::greeted(server.address());
    let waiting = wait_for(&mut waiter, &["q"], 1, LONG_WAIT_MS);
    waiter.assert_open();

    holder.release(of_default("q", [jobs[0].handle()]), 0).unwrap();
    let again = waiter.reply_to(waiting).unwrap().jobs();
    assert_eq!((again[0].offset, again[0].attempt), (0, 2));

    // A delay is over by itself: nothing else has to happen for the job to be delivered.
    let waiting = wait_for(&mut holder, &["q"], 1, LONG_WAIT_MS);
    holder.assert_open();
    waiter.release(of_default("q", [again[0].handle()]), 200).unwrap();
    let third = holder.reply_to(waiting).unwrap().jobs();
    assert_eq!((third[0].offset, third[0].attempt), (0, 3));
}

#[test]
fn a_wait_that_is_over_is_answered_without_jobs() {
    let (server, _dir) = server_with("");
    let mut raw = Raw::greeted(server.address());
    let waiting = wait_for(&mut raw, &["q"], 1, 50);
    let reply = raw.reply_to(waiting).unwrap();
    assert_eq!((reply.code(), reply.jobs().len()), (None, 0));
}
