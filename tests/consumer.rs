//! The consumer and the reader: as a stream, by the batch, and with commits that ride along.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test may stop at what it did not expect"
)]

mod common;
mod fake;

use std::future::poll_fn;
use std::pin::pin;
use std::task::Poll;

use common::{PATIENCE, Server};
use fake::{block_on, job, run};
use futures_util::StreamExt;
use joblog::client::{
    BatchBuilder, Client, ClientError, CommitStatus, Consumer, ErrorCode, FetchRequest, GroupKind,
    GroupStart, Job, Options, Reader,
};
use joblog_protocol::Opcode;
use joblog_protocol::messages::fetch::Fetch;
use joblog_protocol::messages::lease::encode_statuses;
use tempfile::TempDir;

/// A server with a queue `q` of so many jobs, numbered from 0, and a client.
async fn queue_of(jobs: u64) -> (Server, TempDir, Client) {
    let dir = TempDir::new().unwrap();
    let server = Server::start(dir.path(), &[]);
    let client = connect(&server).await;
    enqueue(&client, "q", jobs).await;
    (server, dir, client)
}

async fn connect(server: &Server) -> Client {
    Client::connect(server.address().to_string(), Options::default()).await.unwrap()
}

async fn enqueue(client: &Client, queue: &str, jobs: u64) {
    let mut batch = BatchBuilder::default();
    (0..jobs).for_each(|number| batch.push(&Job::new(number.to_string())).unwrap());
    client.enqueue_batch(queue, &batch).await.unwrap();
}

#[test]
fn a_stream_brings_every_job_and_its_commits_ride_along() {
    const JOBS: u64 = 500;
    block_on(async {
        let (_server, _dir, client) = queue_of(JOBS).await;
        let mut jobs = Consumer::new(client.clone(), ["q"]).prefetch(7);
        for offset in 0..JOBS {
            let job = jobs.next().await.unwrap().unwrap();
            assert_eq!((job.handle.offset, job.attempt), (offset, 1));
            job.commit_later();
        }
        let group = client.describe_group("q", "default").await.unwrap();
        assert!(group.committed_offset >= JOBS - 7 && group.committed_offset < JOBS);
        jobs.flush().await.unwrap();
        let group = client.describe_group("q", "default").await.unwrap();
        assert_eq!((group.committed_offset, group.leased), (JOBS, 0));
        assert_eq!(jobs.take_refused(), []);
    });
}

#[test]
fn what_is_dropped_goes_back_and_what_was_noted_is_committed() {
    block_on(async {
        let (_server, _dir, client) = queue_of(5).await;
        let mut consumer = Consumer::new(client.clone(), ["q"]).prefetch(5);
        let mut jobs = consumer.fetch().await.unwrap();
        assert_eq!(jobs.len(), 5);
        jobs.remove(0).commit_later();
        assert_eq!(jobs[0].commit().await.unwrap(), CommitStatus::Consumed);
        assert!(jobs[1].extend(PATIENCE).await.unwrap().is_ok());
        drop(jobs);
        drop(consumer);
        let request = FetchRequest { jobs_max: 5, ..FetchRequest::new(["q"]) };
        let again = client.fetch(&request).await.unwrap().jobs;
        let offsets: Vec<_> = again.iter().map(|job| (job.handle.offset, job.attempt)).collect();
        assert_eq!(offsets, [(2, 2), (3, 2), (4, 2)]);
    });
}

#[test]
fn a_fetch_that_was_dropped_goes_on_and_flush_waits_for_its_commits() {
    block_on(async {
        let (_server, _dir, client) = queue_of(1).await;
        let mut consumer = Consumer::new(client.clone(), ["q"]);
        consumer.fetch().await.unwrap().remove(0).commit_later();
        {
            let mut waits = pin!(consumer.fetch());
            let polled = poll_fn(|context| Poll::Ready(waits.as_mut().poll(context)));
            assert!(polled.await.is_pending());
        }
        consumer.flush().await.unwrap();
        let group = client.describe_group("q", "default").await.unwrap();
        assert_eq!(group.committed_offset, 1);
        enqueue(&client, "q", 1).await;
        let jobs = consumer.fetch().await.unwrap();
        assert_eq!((jobs[0].handle.offset, jobs[0].attempt), (1, 1), "it was not given twice");
    });
}

#[test]
fn a_commit_for_a_queue_that_is_gone_is_in_nobodys_way() {
    block_on(async {
        let (_server, _dir, client) = queue_of(2).await;
        enqueue(&client, "gone", 1).await;
        let mut consumer = Consumer::new(client.clone(), ["gone", "q"]).prefetch(2);
        let jobs = consumer.fetch().await.unwrap();
        assert_eq!(jobs.len(), 2);
        jobs.into_iter().for_each(joblog::client::HeldJob::commit_later);
        client.delete_queue("gone").await.unwrap();
        let last = consumer.fetch().await.unwrap();
        assert_eq!(last[0].handle.offset, 1);
        let refused = consumer.take_refused();
        assert_eq!((refused.len(), &*refused[0].0.queue), (1, "gone"));
        assert_eq!(refused[0].1, ErrorCode::NoSuchQueue);
        let group = client.describe_group("q", "default").await.unwrap();
        assert_eq!(group.committed_offset, 1);
    });
}

#[test]
fn a_commit_without_an_answer_rides_again() {
    run(
        Options::default().request_timeout(std::time::Duration::from_millis(200)),
        |fake| {
            let mut peer = fake.greet();
            let fetch = peer.next().expect(Opcode::Fetch);
            peer.grant(&fetch, &[job(1)]);
            // Not answered in time, though it was done.
            peer.next().expect(Opcode::Fetch);
            let again = peer.next().expect(Opcode::Fetch);
            let commits = Fetch::decode(&again.body).unwrap().commits;
            assert_eq!((commits.len(), commits[0].handles[0].offset), (1, 1));
            peer.reply_more(&again, |out| {
                encode_statuses(out, &[Some(ErrorCode::AlreadyConsumed)]);
            });
            peer.grant(&again, &[job(2)]);
            let release = peer.next().expect(Opcode::Release);
            assert_eq!(release.offsets(), [2], "the job that is dropped");
            peer.statuses(&release, &[None]);
            peer.next().expect(Opcode::Goodbye);
        },
        async |client| {
            let mut jobs = Consumer::new(client, ["q"]).wait(std::time::Duration::ZERO);
            jobs.next().await.unwrap().unwrap().commit_later();
            let error = jobs.next().await.unwrap().unwrap_err();
            assert!(matches!(error, ClientError::Timeout { .. }), "{error}");
            assert_eq!(jobs.next().await.unwrap().unwrap().handle.offset, 2);
            assert_eq!(jobs.take_refused(), []);
        },
    );
}

#[test]
fn a_stream_ends_when_its_client_is_closed() {
    block_on(async {
        let (_server, _dir, client) = queue_of(1).await;
        let mut jobs = Consumer::new(client.clone(), ["empty"]);
        let mut next = Box::pin(jobs.next());
        assert!(poll_fn(|cx| Poll::Ready(next.as_mut().poll(cx))).await.is_pending());
        client.close().await.unwrap();
        let error = next.await.unwrap().unwrap_err();
        assert!(matches!(error, ClientError::Closed { .. }), "{error}");
        assert!(jobs.next().await.is_none());
    });
}

#[test]
fn a_reader_goes_on_where_its_group_has_committed() {
    block_on(async {
        let (_server, _dir, client) = queue_of(10).await;
        let error = Reader::open(client.clone(), "q", "s").await.unwrap_err();
        assert_eq!(error.code(), Some(ErrorCode::NoSuchGroup));
        client.create_group("q", "s", GroupKind::Stream, GroupStart::Start).await.unwrap();
        let mut reader = Reader::open(client.clone(), "q", "s").await.unwrap().jobs_max(4);
        assert_eq!(reader.commit().await.unwrap(), CommitStatus::AlreadyConsumed);
        let read = reader.read().await.unwrap();
        assert_eq!((read.jobs.len(), reader.next_offset()), (4, 4));
        assert_eq!(reader.commit().await.unwrap(), CommitStatus::Consumed);
        reader.read().await.unwrap();
        // What was read and not committed is read again.
        let mut again = Reader::open(client.clone(), "q", "s").await.unwrap();
        let read = again.read().await.unwrap();
        let offsets: Vec<_> = read.jobs.iter().map(|job| job.offset).collect();
        assert_eq!(offsets, [4, 5, 6, 7, 8, 9]);
        again.commit_through(6).await.unwrap();
        assert_eq!(client.describe_group("q", "s").await.unwrap().committed_offset, 7);
        // At the end it waits.
        let more = async { enqueue(&client, "q", 1).await };
        let (read, ()) = tokio::join!(again.read(), more);
        assert_eq!(read.unwrap().jobs[0].offset, 10);
    });
}
