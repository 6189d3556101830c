//! Limits say what they mean, and what an entry frees counts for what it adds.

use bytes::BytesMut;
use joblog_protocol::job::{BatchBuilder, NotBefore, Terms};
use joblog_protocol::limits::QUEUE_GROUPS_MAX;
use joblog_protocol::messages::enqueue::{Enqueue, EnqueueReply};
use joblog_protocol::messages::handles::Handle;
use joblog_protocol::messages::lease::{ChainReply, Commit, CommitOne};
use joblog_protocol::unique::Unique;
use joblog_protocol::{ErrorCode, Job, Opcode};

use crate::common::{Frame, Raw, Server};

fn server_with_queue(settings: &str) -> (tempfile::TempDir, Server, Raw) {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), &[]);
    let mut raw = Raw::greeted(server.address());
    let body = format!("{{\"queue\":\"q\",\"settings\":{settings}}}");
    raw.ask_json(Opcode::CreateQueue, &body).unwrap().ok().unwrap();
    (dir, server, raw)
}

fn enqueue(raw: &mut Raw, jobs: &[Job]) -> Frame {
    let mut builder = BatchBuilder::default();
    jobs.iter().for_each(|job| builder.push(job).unwrap());
    let enqueue = Enqueue { queue: "q", create: false, producer: None, batch: builder.batch() };
    raw.ask_with(Opcode::Enqueue, |out| enqueue.encode(out)).unwrap()
}

#[test]
fn a_batch_that_never_fits_is_told_so() {
    let (_dir, _server, mut raw) = server_with_queue(r#"{"max_jobs":2,"max_bytes":100}"#);
    let small = || Job::new("x");
    for (batch, limit) in [
        (vec![small(), small(), small()], "max_jobs is 2"),
        (vec![Job::new(vec![b'x'; 200])], "max_bytes is 100"),
    ] {
        let never = enqueue(&mut raw, &batch);
        assert_eq!(never.code(), Some(ErrorCode::BatchTooLarge));
        assert!(never.text().contains(limit) && never.text().contains("never"), "{}", never.text());
    }
    assert_eq!(enqueue(&mut raw, &[small(), small()]).code(), None);
    // What fits an empty queue may be tried again.
    assert_eq!(enqueue(&mut raw, &[small()]).code(), Some(ErrorCode::QueueFull));
}

#[test]
fn a_job_that_replaces_another_fits_a_full_queue() {
    let (_dir, _server, mut raw) = server_with_queue(r#"{"max_jobs":1}"#);
    let due = Some(NotBefore::In(3_600_000));
    let unique = Some(Unique { key: b"report".to_vec(), window_ms: None, replace: true });
    let job = Job { terms: Terms { due, ..Terms::default() }, unique, ..Job::new("report") };
    assert_eq!(enqueue(&mut raw, std::slice::from_ref(&job)).code(), None);
    let again = enqueue(&mut raw, &[job]);
    assert_eq!(again.code(), None);
    assert_eq!(EnqueueReply::decode(&again.body).unwrap().first_offset, 1);
    assert_eq!(enqueue(&mut raw, &[Job::new("x")]).code(), Some(ErrorCode::QueueFull));
}

#[test]
fn a_job_that_enqueues_its_follower_fits_its_own_full_queue() {
    let (_dir, _server, mut raw) = server_with_queue(r#"{"max_jobs":1}"#);
    assert_eq!(enqueue(&mut raw, &[Job::new("first")]).code(), None);
    let job = raw.fetch(&["q"], 1, 0).unwrap().remove(0);
    let mut builder = BatchBuilder::default();
    builder.push(&Job::new("second")).unwrap();
    let chain = |raw: &mut Raw, group: &str| {
        let jobs = Enqueue { queue: "q", create: false, producer: None, batch: builder.batch() };
        let handle = Handle { offset: job.offset, token: job.token };
        let one = CommitOne { queue: "q", group, handle, result: None, jobs: Some(jobs) };
        let mut body = BytesMut::new();
        Commit::One(one).encode(&mut body);
        raw.ask(Opcode::Commit, &body).unwrap()
    };
    let reply = chain(&mut raw, "");
    assert_eq!(reply.code(), None, "{}", String::from_utf8_lossy(&reply.body));
    assert_eq!(ChainReply::decode(&reply.body).unwrap().status, None);
    assert_eq!(raw.fetch(&["q"], 1, 0).unwrap().remove(0).payload, b"second");
}

#[test]
fn a_queue_has_a_thousand_groups_and_no_more() {
    let (_dir, _server, mut raw) = server_with_queue("{}");
    let create = |raw: &mut Raw, group: &str| {
        let body = format!("{{\"queue\":\"q\",\"group\":\"{group}\",\"kind\":\"work\"}}");
        raw.ask_json(Opcode::CreateGroup, &body).unwrap()
    };
    for number in 0..QUEUE_GROUPS_MAX {
        assert_eq!(create(&mut raw, &format!("g{number}")).code(), None);
    }
    let refused = create(&mut raw, "one-more");
    assert_eq!(refused.code(), Some(ErrorCode::TooMany));
    assert!(refused.text().contains("1000 groups"), "{}", refused.text());
    // The group that a FETCH would make counts as well.
    assert!(raw.fetch(&["q"], 1, 0).unwrap_err().to_string().contains("TOO_MANY"));
    let gone = raw.ask_json(Opcode::DeleteGroup, "{\"queue\":\"q\",\"group\":\"g0\"}").unwrap();
    assert_eq!(gone.code(), None);
    assert!(raw.fetch(&["q"], 1, 0).unwrap().is_empty());
}
