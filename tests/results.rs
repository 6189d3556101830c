//! Results of jobs, and waiting for their ends, through the real server and the client.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test may stop at what it did not expect"
)]

mod common;

use std::time::Duration;

use common::{PATIENCE, Raw, Server};
use joblog::client::{
    Client, ClientError, CommitStatus, DeathCause, ErrorCode, Failure, FetchRequest, Job, JobEnd,
    JobHandle, Options, QueueSettings, ResultCounts, Terms,
};
use joblog_protocol::Opcode;
use joblog_protocol::limits::{JOB_WAITS_MAX, RESULT_BYTES_MAX};
use joblog_protocol::messages::wait::{Wait, WaitReply};
use tempfile::TempDir;

fn block_on<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async { tokio::time::timeout(4 * PATIENCE, future).await.unwrap() })
}

async fn client(server: &Server) -> Client {
    Client::connect(server.address().to_string(), Options::default()).await.unwrap()
}

/// Enqueues a job and fetches it.
async fn leased(client: &Client) -> JobHandle {
    client.enqueue("q", &Job::new("x")).await.unwrap();
    fetched(client, "").await
}

async fn fetched(client: &Client, group: &str) -> JobHandle {
    let request = FetchRequest { wait: PATIENCE, group: group.into(), ..FetchRequest::new(["q"]) };
    client.fetch(&request).await.unwrap().jobs.remove(0).handle
}

fn done(result: &[u8]) -> Option<JobEnd> {
    Some(JobEnd::Done { result: Some(result.to_vec()) })
}

fn code<T>(result: Result<T, ClientError>) -> Option<ErrorCode> {
    result.err().and_then(|error| error.code())
}

#[test]
fn a_result_survives_a_restart_and_a_checkpoint() {
    let dir = TempDir::new().unwrap();
    let mut server = Server::start(dir.path(), &[]);
    let large = vec![7; RESULT_BYTES_MAX];
    block_on(async {
        let client = client(&server).await;
        for result in [b"first".as_slice(), &large, b""] {
            let job = leased(&client).await;
            let status = client.commit_with_result(&job, result).await.unwrap();
            assert_eq!(status, CommitStatus::Consumed);
            // What comes again keeps what came first.
            let again = client.commit_with_result(&job, b"again").await.unwrap();
            assert_eq!(again, CommitStatus::AlreadyConsumed);
        }
        let job = leased(&client).await;
        let over = client.commit_with_result(&job, &vec![0; RESULT_BYTES_MAX + 1]).await;
        assert!(matches!(over, Err(ClientError::Invalid(_))), "{over:?}");
        client.commit(&[job]).await.unwrap();
    });
    let look = |server: &Server| {
        block_on(async {
            let client = client(server).await;
            for (offset, result) in [(0, b"first".as_slice()), (1, &large), (2, b"")] {
                let end = client.wait("q", offset, Duration::ZERO).await.unwrap();
                assert_eq!(end, done(result), "{offset}");
            }
            let without = client.wait("q", 3, Duration::ZERO).await.unwrap();
            assert_eq!(without, Some(JobEnd::Gone));
            let beyond = client.wait("q", 4, Duration::ZERO).await;
            assert_eq!(code(beyond), Some(ErrorCode::BeyondEnd));
        });
    };
    look(&server);
    server.kill9();
    server.restart();
    look(&server);
    // A clean stop leaves a checkpoint, and nothing to replay.
    assert!(server.stop().success());
    server.restart();
    look(&server);
}

#[test]
fn a_result_is_forgotten_after_its_time() {
    let dir = TempDir::new().unwrap();
    let mut server = Server::start(dir.path(), &[]);
    block_on(async {
        let settings = QueueSettings { result_kept_ms: Some(1), ..QueueSettings::default() };
        let client = client(&server).await;
        client.create_queue("q", settings).await.unwrap();
        let job = leased(&client).await;
        client.commit_with_result(&job, b"short").await.unwrap();
        while client.wait("q", 0, Duration::ZERO).await.unwrap() != Some(JobEnd::Gone) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
    server.kill9();
    server.restart();
    block_on(async {
        let end = client(&server).await.wait("q", 0, Duration::ZERO).await.unwrap();
        assert_eq!(end, Some(JobEnd::Gone));
    });
}

#[test]
fn results_over_the_bound_of_the_queue_go_oldest_first_and_are_counted() {
    let dir = TempDir::new().unwrap();
    let server = Server::start(dir.path(), &[]);
    block_on(async {
        let settings =
            QueueSettings { result_bytes_max: Some(131_072), ..QueueSettings::default() };
        let client = client(&server).await;
        client.create_queue("q", settings).await.unwrap();
        for _ in 0..3 {
            let job = leased(&client).await;
            client.commit_with_result(&job, &[1; 60_000]).await.unwrap();
        }
        let ends = [
            client.wait("q", 0, Duration::ZERO).await.unwrap(),
            client.wait("q", 1, Duration::ZERO).await.unwrap(),
        ];
        assert_eq!(ends, [Some(JobEnd::Gone), done(&[1; 60_000])]);
        let queue = client.describe_queue("q").await.unwrap();
        let expected = ResultCounts { kept: 2, bytes: 2 * (60_000 + 128), displaced: 1 };
        assert_eq!(queue.results, expected);
    });
}

#[test]
fn only_the_primary_group_gives_results_and_ends() {
    let dir = TempDir::new().unwrap();
    let server = Server::start(dir.path(), &[]);
    block_on(async {
        let client = client(&server).await;
        let settings =
            QueueSettings { primary_group: Some("main".into()), ..QueueSettings::default() };
        client.create_queue("q", settings).await.unwrap();
        let (kind, start) = (joblog::client::GroupKind::Work, joblog::client::GroupStart::Start);
        client.create_group("q", "main", kind, start).await.unwrap();
        let other = leased(&client).await;
        let refused = client.commit_with_result(&other, b"other").await;
        assert_eq!(code(refused), Some(ErrorCode::NotPrimaryGroup));
        assert_eq!(client.commit(&[other]).await.unwrap(), [CommitStatus::Consumed]);
        assert_eq!(client.wait("q", 0, Duration::from_millis(1)).await.unwrap(), None);
        let job = fetched(&client, "main").await;
        client.commit_with_result(&job, b"main").await.unwrap();
        assert_eq!(client.wait("q", 0, Duration::ZERO).await.unwrap(), done(b"main"));
    });
}

/// Waits for job 0 of `q`, and brings its end about once the server waits for it.
async fn wait_while<F: Future<Output = ()>>(
    server: &Server,
    act: impl FnOnce(Client) -> F,
) -> Result<Option<JobEnd>, ClientError> {
    let waiting = client(server).await;
    let acting = client(server).await;
    let (end, ()) = tokio::join!(waiting.wait("q", 0, 2 * PATIENCE), async {
        // The WAIT before it on the connection has been acted on when this is answered.
        waiting.ping().await.unwrap();
        act(acting).await;
    });
    end
}

#[test]
fn a_wait_ends_with_each_kind_of_end() {
    let dead = |cause, reason: &str| Some(JobEnd::Dead { cause, reason: reason.to_owned() });
    let never = Failure { reason: "no ink".into(), failures_max: Some(0), delay: None };
    type Act = fn(Client, JobHandle, Failure) -> std::pin::Pin<Box<dyn Future<Output = ()>>>;
    let acts: [(Option<JobEnd>, Act); 5] = [
        (done(b"42"), |client, job, _| {
            Box::pin(async move {
                client.commit_with_result(&job, b"42").await.unwrap();
            })
        }),
        (Some(JobEnd::Done { result: None }), |client, job, _| {
            Box::pin(async move { drop(client.commit(&[job]).await.unwrap()) })
        }),
        (dead(DeathCause::Failures, "no ink"), |client, job, never| {
            Box::pin(async move { drop(client.fail(&[job], &never).await.unwrap()) })
        }),
        (Some(JobEnd::Cancelled), |client, job, _| {
            Box::pin(async move {
                client.cancel("q", &[0]).await.unwrap();
                client.release(&[job], Duration::ZERO).await.unwrap();
            })
        }),
        (Some(JobEnd::Cancelled), |client, job, _| {
            Box::pin(async move {
                client.release(&[job], Duration::ZERO).await.unwrap();
                client.purge("q", 0, None).await.unwrap();
            })
        }),
    ];
    for (expected, act) in acts {
        let dir = TempDir::new().unwrap();
        let server = Server::start(dir.path(), &[]);
        block_on(async {
            let worker = client(&server).await;
            let job = leased(&worker).await;
            let never = never.clone();
            let end = wait_while(&server, |_| act(worker, job, never)).await;
            assert_eq!(end.unwrap(), expected);
        });
    }
}

#[test]
fn a_wait_ends_when_the_job_expires_or_its_queue_is_deleted() {
    let dir = TempDir::new().unwrap();
    let server = Server::start(dir.path(), &[]);
    block_on(async {
        let client = client(&server).await;
        let terms = Terms { ttl_ms: Some(300), ..Terms::default() };
        client.enqueue("q", &Job { terms, ..Job::new("x") }).await.unwrap();
        let end = client.wait("q", 0, 2 * PATIENCE).await.unwrap();
        assert_eq!(end, Some(JobEnd::Expired));
        assert_eq!(client.wait("q", 0, Duration::ZERO).await.unwrap(), Some(JobEnd::Expired));
        client.delete_queue("q").await.unwrap();
    });
    let dir = TempDir::new().unwrap();
    let server = Server::start(dir.path(), &[]);
    block_on(async {
        client(&server).await.enqueue("q", &Job::new("x")).await.unwrap();
        let end = wait_while(&server, |acting| async move {
            acting.delete_queue("q").await.unwrap();
        });
        assert_eq!(code(end.await), Some(ErrorCode::NoSuchQueue));
    });
}

#[test]
fn a_wait_goes_on_over_a_restart_of_the_server() {
    let dir = TempDir::new().unwrap();
    let mut server = Server::start(dir.path(), &[]);
    block_on(async {
        let waiting = client(&server).await;
        let worker = client(&server).await;
        let job = leased(&worker).await;
        let (end, ()) = tokio::join!(waiting.wait("q", 0, 2 * PATIENCE), async {
            waiting.ping().await.unwrap();
            server.kill9();
            server.restart();
            // Its token has come through the restart.
            worker.commit_with_result(&job, b"after").await.unwrap();
        });
        assert_eq!(end.unwrap(), done(b"after"));
    });
}

#[test]
fn waits_are_bounded_and_those_of_a_closed_connection_are_forgotten() {
    let dir = TempDir::new().unwrap();
    let server = Server::start(dir.path(), &[]);
    let wait = |raw: &mut Raw, wait_ms| {
        let body = Wait { queue: "q", offset: 0, wait_ms };
        let mut out = bytes::BytesMut::new();
        body.encode(&mut out);
        raw.request(Opcode::Wait, &out).unwrap()
    };
    for _ in 0..3 {
        let mut raw = Raw::greeted(server.address());
        raw.enqueue("q", &[b"x"]).unwrap();
        for _ in 0..JOB_WAITS_MAX {
            wait(&mut raw, 600_000);
        }
        let refused = wait(&mut raw, 600_000);
        assert_eq!(raw.reply_to(refused).unwrap().code(), Some(ErrorCode::TooMany));
        // One that does not wait has always a place.
        let at_once = wait(&mut raw, 0);
        let reply = raw.reply_to(at_once).unwrap();
        assert_eq!(WaitReply::decode(&reply.body).unwrap(), WaitReply::NotYet);
    }
}
