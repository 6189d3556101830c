//! Commits that carry jobs, and jobs that move: both or neither, whatever becomes of the server.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test may stop at what it did not expect"
)]

mod common;

use std::collections::BTreeSet;
use std::time::Duration;

use common::{PATIENCE, Raw, Server, new_session};
use joblog::client::{
    BatchBuilder, Client, CommitStatus, EnqueueOutcome, ErrorCode, Failure, FetchRequest, Job,
    JobEnd, JobHandle, MoveOutcome, Options, QueueSettings, Unique,
};
use joblog_protocol::Opcode;
use joblog_protocol::messages::enqueue::{Enqueue, Producer};
use joblog_protocol::messages::handles::Handle;
use joblog_protocol::messages::lease::{ChainReply, Commit, CommitOne};
use tempfile::TempDir;

fn block_on<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async { tokio::time::timeout(4 * PATIENCE, future).await.unwrap() })
}

async fn client(server: &Server) -> Client {
    Client::connect(server.address().to_string(), Options::default()).await.unwrap()
}

async fn fetched(client: &Client, queue: &str) -> JobHandle {
    let request = FetchRequest { wait: PATIENCE, ..FetchRequest::new([queue]) };
    client.fetch(&request).await.unwrap().jobs.remove(0).handle
}

fn batch(payloads: &[&str]) -> BatchBuilder {
    let mut batch = BatchBuilder::default();
    payloads.iter().for_each(|payload| batch.push(&Job::new(*payload)).unwrap());
    batch
}

async fn payloads(client: &Client, queue: &str) -> Vec<String> {
    let read = client.read(queue, 0, 1_000, 1 << 20).await.unwrap();
    let jobs = read.jobs.into_iter();
    jobs.map(|stored| String::from_utf8(stored.job.payload).unwrap()).collect()
}

#[test]
fn a_commit_enqueues_what_follows_and_keeps_its_result() {
    let dir = TempDir::new().unwrap();
    let mut server = Server::start(dir.path(), &[]);
    block_on(async {
        let client = client(&server).await;
        client.enqueue("a", &Job::new("first")).await.unwrap();
        let job = fetched(&client, "a").await;
        let next = batch(&["one", "two"]);
        let chained = client.commit_chain(&job, Some(b"42"), "b", &next).await.unwrap();
        assert_eq!(chained.status, CommitStatus::Consumed);
        let enqueued = chained.enqueued.unwrap();
        assert_eq!((enqueued.first_offset, enqueued.count, enqueued.created), (0, 2, true));
        // Into the queue that it comes from.
        client.enqueue("a", &Job::new("second")).await.unwrap();
        let job = fetched(&client, "a").await;
        let chained = client.commit_chain(&job, None, "a", &batch(&["third"])).await.unwrap();
        assert_eq!(chained.enqueued.unwrap().first_offset, 2);
    });
    server.kill9();
    server.restart();
    block_on(async {
        let client = client(&server).await;
        assert_eq!(payloads(&client, "b").await, ["one", "two"]);
        assert_eq!(payloads(&client, "a").await, ["third"]);
        let end = client.wait("a", 0, Duration::ZERO).await.unwrap();
        assert_eq!(end, Some(JobEnd::Done { result: Some(b"42".to_vec()) }));
        assert_eq!(fetched(&client, "a").await.offset, 2);
    });
}

#[test]
fn a_commit_with_jobs_whose_lease_is_lost_enqueues_nothing() {
    let dir = TempDir::new().unwrap();
    let server = Server::start(dir.path(), &[]);
    block_on(async {
        let client = client(&server).await;
        client.enqueue("a", &Job::new("first")).await.unwrap();
        client.enqueue("b", &Job::new("there before")).await.unwrap();
        let lost = fetched(&client, "a").await;
        client.release(std::slice::from_ref(&lost), Duration::ZERO).await.unwrap();
        let next = batch(&["never"]);
        let chained = client.commit_chain(&lost, Some(b"never"), "b", &next).await.unwrap();
        assert_eq!(chained.status, CommitStatus::Refused(ErrorCode::LeaseLost));
        assert_eq!(chained.enqueued, None);
        let job = fetched(&client, "a").await;
        client.commit(std::slice::from_ref(&job)).await.unwrap();
        let chained = client.commit_chain(&job, None, "b", &next).await.unwrap();
        assert_eq!((chained.status, chained.enqueued), (CommitStatus::AlreadyConsumed, None));
        assert_eq!(payloads(&client, "b").await, ["there before"]);
    });
}

#[test]
fn a_chain_that_is_refused_as_a_whole_leaves_the_job_leased() {
    let dir = TempDir::new().unwrap();
    let server = Server::start(dir.path(), &["--logs", "2"]);
    block_on(async {
        let client = client(&server).await;
        client.enqueue("a", &Job::new("x")).await.unwrap();
        let job = fetched(&client, "a").await;
        // Of a few names, some lie in the other log.
        let mut refused = 0;
        for name in ["b", "c", "d", "e", "f", "g", "h", "i"] {
            let settings = QueueSettings { max_jobs: Some(1), ..QueueSettings::default() };
            client.create_queue(name, settings).await.unwrap();
            let over = client.commit_chain(&job, None, name, &batch(&["1", "2"])).await;
            match over.unwrap_err().code() {
                Some(ErrorCode::OtherLog) => refused += 1,
                code => assert_eq!(code, Some(ErrorCode::BatchTooLarge)),
            }
            assert_eq!(payloads(&client, name).await, <[&str; 0]>::default());
            // So it is with a move.
            match client.move_jobs("a", None, &[0], name, &batch(&["1"])).await {
                Ok(reply) => assert_eq!(reply.outcomes, [MoveOutcome::Leased]),
                Err(error) => assert_eq!(error.code(), Some(ErrorCode::OtherLog)),
            }
        }
        assert!((1..8).contains(&refused), "{refused}");
        assert_eq!(client.commit(&[job]).await.unwrap(), [CommitStatus::Consumed]);
    });
}

#[test]
fn a_chain_that_is_sent_again_is_answered_as_before() {
    let dir = TempDir::new().unwrap();
    let mut server = Server::start(dir.path(), &[]);
    let session = new_session();
    let mut raw = Raw::connect(server.address()).unwrap();
    raw.hello(session, 60_000, &[]).unwrap();
    raw.enqueue("a", &[b"x"]).unwrap();
    let (offset, token) = raw.fetch(&["a"], 1, 0).unwrap()[0].handle();
    let next = batch(&["follows"]);
    let mut body = bytes::BytesMut::new();
    let producer = Some(Producer { id: [9; 16], sequence: 1 });
    let jobs = Enqueue { queue: "b", create: true, producer, batch: next.batch() };
    let handle = Handle { offset, token };
    let one = CommitOne { queue: "a", group: "", handle, result: None, jobs: Some(jobs) };
    Commit::One(one).encode(&mut body);
    let first = raw.ask(Opcode::Commit, &body).unwrap();
    let first = ChainReply::decode(&first.body).unwrap();
    assert_eq!((first.status, first.enqueued.count), (None, 1));
    server.kill9();
    server.restart();
    let mut raw = Raw::greeted(server.address());
    let again = raw.ask(Opcode::Commit, &body).unwrap();
    let again = ChainReply::decode(&again.body).unwrap();
    assert_eq!(again.status, Some(ErrorCode::AlreadyConsumed));
    assert_eq!((again.enqueued.first_offset, again.enqueued.count), (0, 1));
    assert_eq!(raw.fetch(&["b"], 10, 0).unwrap().len(), 1);
}

/// A chain of jobs, each following from the one before, is one job long at every moment.
#[test]
fn no_kill_shows_half_a_chain() {
    let dir = TempDir::new().unwrap();
    let config = dir.path().join("joblog.toml");
    std::fs::write(&config, "segment_bytes = 16777216\ncheckpoint_bytes = 1048576\n").unwrap();
    let data = dir.path().join("data");
    let session = new_session();
    let mut server = Server::start_with(&data, &config, &[]);
    Raw::greeted(server.address()).enqueue("a", &[b"0"]).unwrap();
    server.kill9();
    let mut sequence = 0;
    let points = [("pwrite64", [14, 20, 31]), ("fdatasync", [16, 19, 27]), ("sendto", [4, 7, 12])];
    for (call, times) in points {
        for nth in times {
            if let Some(mut doomed) = Server::start_doomed(&data, &config, call, nth) {
                let mut raw = Raw::connect(doomed.address()).unwrap();
                let greeted = raw.hello(session, 600_000, &[]);
                let broken = greeted.and_then(|_| follow(&mut raw, &mut sequence));
                assert!(broken.is_err(), "{call}");
                doomed.wait();
            }
            let mut server = Server::start_with(&data, &config, &[]);
            let mut raw = Raw::connect(server.address()).unwrap();
            raw.hello(session, 600_000, &[]).unwrap();
            let jobs = raw.fetch(&["a", "b"], 10, 0).unwrap();
            let found: BTreeSet<Vec<u8>> = jobs.iter().map(|job| job.payload.clone()).collect();
            assert_eq!((jobs.len(), found.len()), (1, 1), "{call} {nth}: {found:?}");
            server.kill9();
        }
    }
    assert!(sequence > 20, "only {sequence} links");
}

/// Commits each job with the one that follows from it, in two queues by turns, until the server is
/// gone.
fn follow(raw: &mut Raw, sequence: &mut u64) -> std::io::Result<()> {
    for _ in 0..10_000 {
        for (queue, next_queue) in [("a", "b"), ("b", "a")] {
            let Some(job) = raw.fetch(&[queue], 1, 0)?.pop() else { continue };
            *sequence += 1;
            let (offset, token) = job.handle();
            let next = batch(&[&sequence.to_string()]);
            let producer = Some(Producer { id: [9; 16], sequence: *sequence });
            let jobs = Enqueue { queue: next_queue, create: true, producer, batch: next.batch() };
            let handle = Handle { offset, token };
            let result = Some(b"done".as_slice());
            let one = CommitOne { queue, group: "", handle, result, jobs: Some(jobs) };
            let mut body = bytes::BytesMut::new();
            Commit::One(one).encode(&mut body);
            let reply = raw.ask(Opcode::Commit, &body)?;
            assert_eq!(ChainReply::decode(&reply.body).unwrap().status, None);
        }
    }
    panic!("the server was never killed");
}

#[test]
fn jobs_move_all_or_none() {
    let dir = TempDir::new().unwrap();
    let mut server = Server::start(dir.path(), &[]);
    block_on(async {
        let client = client(&server).await;
        client.enqueue_batch("a", &batch(&["0", "1", "2", "3"])).await.unwrap();
        let leased = fetched(&client, "a").await;
        let all = batch(&["0", "1", "2"]);
        let refused = client.move_jobs("a", None, &[0, 1, 9], "b", &all).await.unwrap();
        let outcomes = [MoveOutcome::Leased, MoveOutcome::Movable, MoveOutcome::Gone];
        assert_eq!((refused.outcomes.as_slice(), refused.enqueued.count), (&outcomes[..], 0));
        let some = batch(&["1", "2"]);
        let moved = client.move_jobs("a", None, &[1, 2], "b", &some).await.unwrap();
        assert_eq!(moved.enqueued.count, 2);
        let again = client.move_jobs("a", None, &[1, 2], "b", &some).await.unwrap();
        assert_eq!(again.outcomes, [MoveOutcome::Gone; 2]);
        client.commit(&[leased]).await.unwrap();
        let dead = fetched(&client, "a").await;
        assert_eq!(dead.offset, 3);
        let never = Failure { reason: "no".into(), failures_max: Some(0), delay: None };
        client.fail(&[dead], &never).await.unwrap();
        let one = batch(&["3"]);
        let moved = client.move_jobs("a", Some("default"), &[3], "b", &one).await.unwrap();
        assert_eq!(moved.enqueued.count, 1);
    });
    server.kill9();
    server.restart();
    block_on(async {
        let client = client(&server).await;
        assert_eq!(payloads(&client, "b").await, ["1", "2", "3"]);
        let group = client.describe_group("a", "default").await.unwrap();
        assert_eq!((group.committed_offset, group.dead), (4, 0));
        assert_eq!(group.removed.get("moved"), Some(&3));
    });
}

/// A job that goes on as another with its unique key, as one that comes again and again does.
#[test]
fn a_job_that_follows_takes_over_the_unique_key_of_the_one_that_is_committed() {
    let dir = TempDir::new().unwrap();
    let server = Server::start(dir.path(), &[]);
    block_on(async {
        let client = client(&server).await;
        let unique = Some(Unique { key: b"k".to_vec(), ..Unique::default() });
        let keyed = Job { unique, ..Job::new("again") };
        client.enqueue("a", &keyed).await.unwrap();
        let mut next = BatchBuilder::default();
        next.push(&keyed).unwrap();
        for round in 1..4 {
            let job = fetched(&client, "a").await;
            let result = (round % 2 == 0).then_some(&b"42"[..]);
            let chained = client.commit_chain(&job, result, "a", &next).await.unwrap();
            assert_eq!(chained.status, CommitStatus::Consumed);
            let enqueued = chained.enqueued.unwrap();
            assert_eq!((enqueued.first_offset, enqueued.hits), (round, vec![]));
        }
        // It holds the key now, so nothing else does.
        let enqueued = client.enqueue("a", &keyed).await.unwrap();
        let outcomes: Vec<_> = enqueued.outcomes().collect();
        assert_eq!(outcomes, [EnqueueOutcome::Duplicate { offset: 3 }]);
        let described = client.describe_queue("a").await.unwrap();
        assert_eq!(described.unique.unwrap().held, 1);
    });
}
