//! One job as people ask about it, and what workers say of its progress.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test may stop at what it did not expect"
)]

mod common;

use std::time::Duration;

use common::{PATIENCE, Server};
use joblog::client::{
    Client, ErrorCode, Failure, FetchRequest, Job, JobDescription, JobHandle, JobState, Lease,
    NotBefore, Options, PromoteOutcome, Terms,
};
use tempfile::TempDir;

fn block_on<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async { tokio::time::timeout(4 * PATIENCE, future).await.unwrap() })
}

async fn client(server: &Server) -> Client {
    Client::connect(server.address().to_string(), Options::default()).await.unwrap()
}

async fn fetched(client: &Client, lease: Lease) -> JobHandle {
    let request = FetchRequest { wait: PATIENCE, lease, ..FetchRequest::new(["q"]) };
    client.fetch(&request).await.unwrap().jobs.remove(0).handle
}

async fn info(client: &Client, offset: u64) -> JobDescription {
    client.job_info("q", offset, None).await.unwrap()
}

#[test]
fn a_job_is_described_in_each_state_also_after_a_restart() {
    let dir = TempDir::new().unwrap();
    let mut server = Server::start(dir.path(), &[]);
    let day = Lease::Timed(Duration::from_secs(86_400));
    block_on(async {
        let client = client(&server).await;
        for name in ["dead", "done", "leased", "failed", "ready"] {
            client.enqueue("q", &Job::new(name)).await.unwrap();
        }
        let due = Some(NotBefore::In(86_400_000));
        let delayed = Job { terms: Terms { due, ..Terms::default() }, ..Job::new("delayed") };
        client.enqueue("q", &delayed).await.unwrap();
        client.enqueue("q", &Job::new("cancelled")).await.unwrap();
        // The primary group is not born yet.
        let fresh = info(&client, 0).await;
        assert_eq!((fresh.state, fresh.group.as_str()), (JobState::Ready, "default"));
        assert_eq!(info(&client, 5).await.state, JobState::Delayed);
        assert!(fresh.enqueued_at_ms.is_some() && fresh.attempts.is_none());

        let dead = fetched(&client, day).await;
        let never = Failure { reason: "no ink".into(), failures_max: Some(0), delay: None };
        client.fail(&[dead], &never).await.unwrap();
        let done = fetched(&client, day).await;
        client.commit_with_result(&done, b"42").await.unwrap();
        let leased = fetched(&client, day).await;
        let failed = fetched(&client, day).await;
        let delay = Some(Duration::from_secs(86_400));
        let later = Failure { reason: "x".repeat(300), failures_max: None, delay };
        client.fail(&[failed], &later).await.unwrap();
        let hour = Duration::from_secs(3_600);
        client.extend_with_progress(&leased, hour, "a third").await.unwrap().unwrap();
        client.extend_with_progress(&leased, hour, "half").await.unwrap().unwrap();
        // An EXTEND without a note leaves it.
        client.extend(&[leased], hour).await.unwrap();
        client.cancel("q", &[6]).await.unwrap();
    });
    let look = |server: &Server| {
        block_on(async {
            let client = client(server).await;
            let dead = info(&client, 0).await;
            assert_eq!((dead.state, dead.attempts), (JobState::Dead, Some(1)));
            assert_eq!(dead.cause.as_deref(), Some("failures"));
            assert_eq!(dead.last_error.as_deref(), Some("no ink"));
            assert!(dead.died_at_ms.is_some());
            let done = info(&client, 1).await;
            assert_eq!((done.state, done.result_bytes), (JobState::Consumed, Some(2)));
            assert_eq!((done.attempts, done.failures), (None, None));
            let leased = info(&client, 2).await;
            assert_eq!((leased.state, leased.attempts), (JobState::Leased, Some(1)));
            assert_eq!(leased.progress.as_deref(), Some("half"));
            let lease = leased.lease.unwrap();
            assert_eq!((lease.session, lease.lease_ms), (None, 3_600_000));
            assert!(lease.left_ms <= lease.lease_ms && lease.left_ms > 0);
            let failed = info(&client, 3).await;
            assert_eq!((failed.state, failed.failures), (JobState::Delayed, Some(1)));
            assert_eq!(failed.last_error, Some("x".repeat(256)));
            assert!(failed.due_in_ms.unwrap() <= 86_400_000);
            let ready = info(&client, 4).await;
            assert_eq!((ready.state, ready.attempts), (JobState::Ready, Some(0)));
            assert_eq!(info(&client, 5).await.state, JobState::Delayed);
            assert_eq!(info(&client, 6).await.state, JobState::Cancelled);
            let beyond = client.job_info("q", 7, None).await.unwrap_err();
            assert_eq!(beyond.code(), Some(ErrorCode::BeyondEnd));
            let no_group = client.job_info("q", 0, Some("none")).await.unwrap_err();
            assert_eq!(no_group.code(), Some(ErrorCode::NoSuchGroup));
        });
    };
    look(&server);
    server.kill9();
    server.restart();
    look(&server);
    assert!(server.stop().success());
    server.restart();
    look(&server);
}

#[test]
fn progress_ends_with_its_lease_and_is_the_worker_s_alone() {
    let dir = TempDir::new().unwrap();
    let server = Server::start(dir.path(), &[]);
    block_on(async {
        let client = client(&server).await;
        client.enqueue("q", &Job::new("x")).await.unwrap();
        let job = fetched(&client, Lease::Session(None)).await;
        let hour = Duration::from_secs(3_600);
        let long = "y".repeat(2_000);
        client.extend_with_progress(&job, hour, &long).await.unwrap().unwrap();
        let told = info(&client, 0).await;
        assert_eq!(told.progress, Some("y".repeat(1_024)));
        // Enough to tell a session from others, too little to take it over.
        assert_eq!(told.lease.unwrap().session.unwrap().len(), 8);
        client.extend_with_progress(&job, hour, "").await.unwrap().unwrap();
        assert_eq!(info(&client, 0).await.progress, None);
        client.extend_with_progress(&job, hour, "half").await.unwrap().unwrap();
        client.cancel("q", &[0]).await.unwrap();
        let asked = info(&client, 0).await;
        assert!(asked.lease.unwrap().cancel_requested);
        let cancelled = client.extend_with_progress(&job, hour, "more").await.unwrap();
        assert_eq!(cancelled, Err(ErrorCode::CancelRequested));
        assert_eq!(info(&client, 0).await.progress.as_deref(), Some("more"));
        client.release(std::slice::from_ref(&job), Duration::ZERO).await.unwrap();
        let lost = client.extend_with_progress(&job, hour, "late").await.unwrap();
        assert_eq!(lost, Err(ErrorCode::AlreadyConsumed));
        let ended = info(&client, 0).await;
        assert_eq!((ended.state, ended.progress), (JobState::Cancelled, None));
    });
}

#[test]
fn a_promoted_job_is_ready_also_after_a_restart_and_wakes_who_waits() {
    let dir = TempDir::new().unwrap();
    let mut server = Server::start(dir.path(), &[]);
    let day = Lease::Timed(Duration::from_secs(86_400));
    block_on(async {
        let client = client(&server).await;
        let due = Some(NotBefore::In(86_400_000));
        let delayed = Job { terms: Terms { due, ..Terms::default() }, ..Job::new("delayed") };
        client.enqueue("q", &Job::new("failed")).await.unwrap();
        client.enqueue("q", &delayed).await.unwrap();
        client.enqueue("q", &delayed).await.unwrap();
        let failed = fetched(&client, day).await;
        let delay = Some(Duration::from_secs(86_400));
        let later = Failure { reason: "no ink".into(), failures_max: None, delay };
        client.fail(&[failed], &later).await.unwrap();

        let outcomes = client.promote("q", &[0, 2, 2, 9]).await.unwrap();
        let (done, none) = (PromoteOutcome::Promoted, PromoteOutcome::NoSuchJob);
        assert_eq!(outcomes, [done, done, done, none]);
        let again = client.promote("q", &[0]).await.unwrap();
        assert_eq!(again, [PromoteOutcome::NotDelayed]);
    });
    server.kill9();
    server.restart();
    block_on(async {
        let client = client(&server).await;
        let states = [JobState::Ready, JobState::Delayed, JobState::Ready];
        for (offset, state) in (0..).zip(states) {
            assert_eq!(info(&client, offset).await.state, state, "{offset}");
        }
        // What was counted stays.
        assert_eq!(info(&client, 0).await.failures, Some(1));
        let first = [fetched(&client, day).await, fetched(&client, day).await];
        assert_eq!(first.map(|job| job.offset), [0, 2]);
        let waiting = fetched(&client, day);
        let promoting = async {
            // The FETCH went out first, on the same connection.
            client.promote("q", &[1]).await.unwrap()
        };
        let (job, outcomes) = tokio::join!(waiting, promoting);
        assert_eq!((job.offset, &outcomes[..]), (1, &[PromoteOutcome::Promoted][..]));
        let missing = client.promote("none", &[0]).await.unwrap_err();
        assert_eq!(missing.code(), Some(ErrorCode::NoSuchQueue));
    });
}
