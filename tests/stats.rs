//! STATS, and READ of what a group has still to consume, byte by byte against a real server.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test may stop at what it did not expect"
)]

mod common;

use common::{Raw, Server, of_default};
use joblog_protocol::messages::fetch::{Read, ReadReply};
use joblog_protocol::{ErrorCode, Opcode};
use serde_json::{Value, json};
use tempfile::TempDir;

fn server(arguments: &[&str]) -> (Server, TempDir, Raw) {
    let dir = TempDir::new().unwrap();
    let server = Server::start(&dir.path().join("data"), arguments);
    let raw = Raw::greeted(server.address());
    (server, dir, raw)
}

fn stats(raw: &mut Raw, after: &str, limit: u32) -> Value {
    let body = json!({"after": after, "limit": limit}).to_string();
    let reply = raw.ask_json(Opcode::Stats, &body).unwrap().ok().unwrap();
    serde_json::from_slice(&reply.body).unwrap()
}

/// The one group of the one queue.
fn group(raw: &mut Raw) -> Value {
    stats(raw, "", 10)["queues"][0]["groups"][0].clone()
}

/// When the jobs of a queue were enqueued.
fn enqueued_at_ms(raw: &mut Raw, queue: &str) -> Vec<u64> {
    let read = Read { queue, from: 0, jobs_max: 100, bytes_max: 1 << 20, unconsumed_by: None };
    let reply = raw.ask_with(Opcode::Read, |out| read.encode(out)).unwrap().ok().unwrap();
    let jobs = ReadReply::decode(&reply.body).unwrap().jobs;
    jobs.iter().map(|job| job.enqueued_at_ms).collect()
}

/// Enqueues jobs at times that differ.
fn enqueue_one_by_one(raw: &mut Raw, queue: &str, count: usize) -> Vec<u64> {
    for number in 0..count {
        raw.enqueue(queue, &[number.to_string()]).unwrap();
        let last = enqueued_at_ms(raw, queue).pop().unwrap();
        while stats(raw, "", 1)["now_ms"].as_u64().unwrap() <= last {}
    }
    enqueued_at_ms(raw, queue)
}

#[test]
fn the_numbers_of_a_group_are_those_of_its_description() {
    let (_server, _dir, mut raw) = server(&[]);
    let times = enqueue_one_by_one(&mut raw, "q", 4);
    let queue = stats(&mut raw, "", 10)["queues"][0].take();
    assert_eq!(
        queue,
        json!({"queue": "q", "first_offset": 0, "next_offset": 4, "unconsumed": 4, "groups": []})
    );
    let jobs = raw.fetch(&["q"], 2, 0).unwrap();
    let handle = |at: usize| of_default("q", [jobs[at].handle()]);
    raw.fail(handle(0), "no").unwrap();
    let job = raw.fetch(&["q"], 1, 0).unwrap().remove(0);
    raw.commit(handle(1)).unwrap();
    raw.ask_json(Opcode::Pause, r#"{"queue":"q","group":"default"}"#).unwrap().ok().unwrap();
    raw.ask_json(Opcode::Pause, r#"{"queue":"q"}"#).unwrap().ok().unwrap();
    assert_eq!(
        group(&mut raw),
        json!({
            "group": "default", "kind": "work", "paused": true, "committed_offset": 0,
            "consumed_above": 1, "ready": 2, "leased": 1, "delayed": 0, "dead": 0,
            "oldest_enqueued_at_ms": times[0],
        })
    );
    assert_eq!(stats(&mut raw, "", 10)["queues"][0]["paused"], true);
    raw.release(of_default("q", [job.handle()]), 0).unwrap();
    assert_eq!(group(&mut raw)["leased"], 0);
}

#[test]
fn the_oldest_job_is_the_first_that_is_neither_consumed_nor_dead() {
    let (mut server, _dir, mut raw) = server(&[]);
    let create = r#"{"queue":"q","settings":{"failures_max":0}}"#;
    raw.ask_json(Opcode::CreateQueue, create).unwrap().ok().unwrap();
    let times = enqueue_one_by_one(&mut raw, "q", 4);
    let jobs = raw.fetch(&["q"], 4, 0).unwrap();
    let oldest = |raw: &mut Raw| group(raw)["oldest_enqueued_at_ms"].as_u64();
    assert_eq!(oldest(&mut raw), Some(times[0]));
    raw.fail(of_default("q", [jobs[0].handle()]), "dead").unwrap();
    raw.fail(of_default("q", [jobs[1].handle()]), "dead").unwrap();
    assert_eq!(oldest(&mut raw), Some(times[2]), "dead jobs do not wait");
    raw.commit(of_default("q", [jobs[2].handle()])).unwrap();
    assert_eq!(oldest(&mut raw), Some(times[3]));
    // Also after a restart, where the jobs come from the disk.
    server.kill9();
    server.restart();
    let mut raw = Raw::greeted(server.address());
    assert_eq!(oldest(&mut raw), Some(times[3]));
    raw.commit(of_default("q", [jobs[3].handle()])).unwrap();
    assert_eq!(oldest(&mut raw), None);
}

#[test]
fn the_pages_of_several_logs_are_one_list_by_name() {
    let (_server, _dir, mut raw) = server(&["--logs", "3"]);
    let names: Vec<String> = (0..25).map(|number| format!("q{number:02}")).collect();
    for name in names.iter().rev() {
        raw.enqueue(name, &["x"]).unwrap();
    }
    let (mut seen, mut after, mut pages) = (Vec::new(), String::new(), 0);
    loop {
        let page = stats(&mut raw, &after, 10);
        for queue in page["queues"].as_array().unwrap() {
            seen.push(queue["queue"].as_str().unwrap().to_owned());
        }
        pages += 1;
        after = seen.last().unwrap().clone();
        if page["more"] == false {
            break;
        }
    }
    assert_eq!((seen, pages), (names, 3));
    let wrong = raw.ask_json(Opcode::Stats, r#"{"limit":1,"before":"x"}"#).unwrap();
    assert_eq!(wrong.code(), Some(ErrorCode::BadRequest));
}

#[test]
fn read_leaves_out_what_a_group_has_consumed() {
    let (_server, _dir, mut raw) = server(&[]);
    raw.enqueue("q", &["a", "b", "c", "d"]).unwrap();
    let slow = r#"{"queue":"q","group":"slow","kind":"stream"}"#;
    raw.ask_json(Opcode::CreateGroup, slow).unwrap().ok().unwrap();
    let jobs = raw.fetch(&["q"], 4, 0).unwrap();
    raw.commit(of_default("q", [jobs[0].handle(), jobs[2].handle()])).unwrap();
    let mut read = |group, from| {
        let (jobs_max, bytes_max) = (10, 1 << 20);
        let read = Read { queue: "q", from, jobs_max, bytes_max, unconsumed_by: group };
        let reply = raw.ask_with(Opcode::Read, |out| read.encode(out)).unwrap();
        if let Some(code) = reply.code() {
            return Err(code);
        }
        let reply = ReadReply::decode(&reply.body).unwrap();
        assert_eq!((reply.next, reply.end), (4, 4));
        Ok(reply.jobs.iter().map(|job| job.offset).collect::<Vec<_>>())
    };
    assert_eq!(read(None, 0), Ok(vec![0, 1, 2, 3]));
    assert_eq!(read(Some("slow"), 0), Ok(vec![0, 1, 2, 3]));
    assert_eq!(read(Some("default"), 0), Ok(vec![1, 3]));
    assert_eq!(read(Some("default"), 2), Ok(vec![3]));
    assert_eq!(read(Some("none"), 0), Err(ErrorCode::NoSuchGroup));
}
