//! Order and concurrency by key, through the client library and a real server.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test may stop at what it did not expect"
)]

mod common;

use std::collections::BTreeSet;
use std::time::Duration;

use common::{PATIENCE, Server};
use joblog::client::{
    BatchBuilder, Client, CommitStatus, DeadQuery, ErrorCode, FailStatus, Failure, FetchRequest,
    GroupDescription, GroupKind, GroupStart, Job, Lease, LeasedJob, Options, QueueSettings, Terms,
};

const LONG: Duration = Duration::from_secs(600);

fn block_on<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async { tokio::time::timeout(4 * PATIENCE, future).await.unwrap() })
}

async fn connected(server: &Server) -> Client {
    let options = Options::default().silence(LONG).request_timeout(LONG);
    Client::connect(server.address().to_string(), options).await.unwrap()
}

fn ordered() -> QueueSettings {
    QueueSettings { ordered_by_key: Some(true), ..QueueSettings::default() }
}

fn places(count: u32) -> QueueSettings {
    QueueSettings { key_concurrency_max: Some(count), ..QueueSettings::default() }
}

/// Enqueues one job for each letter: its key, and a `-` stands for none.
async fn enqueue(client: &Client, keys: &str) {
    for letter in keys.bytes() {
        let key = (letter != b'-').then(|| vec![letter]);
        client.enqueue("mail", &Job { key, ..Job::new([letter]) }).await.unwrap();
    }
}

fn of_mail(jobs_max: u32, wait: Duration) -> FetchRequest {
    FetchRequest { jobs_max, wait, ..FetchRequest::new(["mail"]) }
}

async fn fetch_as(client: &Client, request: &FetchRequest) -> Vec<LeasedJob> {
    client.fetch(request).await.unwrap().jobs
}

async fn fetch(client: &Client, jobs_max: u32) -> Vec<LeasedJob> {
    fetch_as(client, &of_mail(jobs_max, Duration::ZERO)).await
}

fn offsets(jobs: &[LeasedJob]) -> Vec<u64> {
    jobs.iter().map(|job| job.handle.offset).collect()
}

async fn commit(client: &Client, jobs: &[LeasedJob]) {
    let handles: Vec<_> = jobs.iter().map(|job| job.handle.clone()).collect();
    let statuses = client.commit(&handles).await.unwrap();
    assert!(statuses.iter().all(|status| *status == CommitStatus::Consumed), "{statuses:?}");
}

async fn fail(client: &Client, job: &LeasedJob, failure: Failure) -> FailStatus {
    client.fail(std::slice::from_ref(&job.handle), &failure).await.unwrap()[0]
}

async fn group(client: &Client) -> GroupDescription {
    client.describe_group("mail", "default").await.unwrap()
}

#[test]
fn a_job_that_fails_holds_back_its_key_until_it_is_done_and_no_other_key() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), &[]);
    block_on(async {
        let client = connected(&server).await;
        client.create_queue("mail", ordered()).await.unwrap();
        enqueue(&client, "aaabb-").await;
        let out = fetch(&client, 10).await;
        assert_eq!(offsets(&out), [0, 3, 5], "one of each key, and those without one");
        assert!(fetch(&client, 10).await.is_empty());
        assert_eq!((group(&client).await.parked, group(&client).await.ready), (3, 0));
        let delay = Some(Duration::from_millis(300));
        let retry = fail(&client, &out[0], Failure { delay, ..Failure::default() }).await;
        assert!(matches!(retry, FailStatus::Retry { .. }), "{retry:?}");
        commit(&client, &out[1..2]).await;
        // Job 1 is behind job 0, which waits for its second attempt.
        let other = fetch(&client, 10).await;
        assert_eq!(offsets(&other), [4]);
        let again = fetch_as(&client, &of_mail(10, LONG)).await;
        assert_eq!((offsets(&again), again[0].attempt), (vec![0], 2));
        client.release(&[again[0].handle.clone()], Duration::ZERO).await.unwrap();
        let again = fetch(&client, 10).await;
        assert_eq!((offsets(&again), again[0].attempt), (vec![0], 3));
        commit(&client, &again).await;
        for next in [1, 2] {
            let job = fetch(&client, 10).await;
            assert_eq!(offsets(&job), [next]);
            commit(&client, &job).await;
        }
        assert_eq!(group(&client).await.parked, 0);
    });
}

#[test]
fn a_dead_job_frees_its_key_or_keeps_it_as_the_queue_says() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), &[]);
    block_on(async {
        let client = connected(&server).await;
        let dies = || Failure { failures_max: Some(0), ..Failure::default() };
        let all = DeadQuery { queue: "mail".into(), limit: 10, ..DeadQuery::default() };

        client.create_queue("mail", ordered()).await.unwrap();
        enqueue(&client, "aaa").await;
        let first = fetch(&client, 1).await;
        assert_eq!(fail(&client, &first[0], dies()).await, FailStatus::Dead);
        let second = fetch(&client, 1).await;
        assert_eq!(offsets(&second), [1], "the dead job has left its place");
        // It comes back to its place in the order: behind the one that is out, before the rest.
        client.dead_retry(&all).await.unwrap();
        assert!(fetch(&client, 10).await.is_empty());
        commit(&client, &second).await;
        assert_eq!(offsets(&fetch(&client, 10).await), [0]);
        client.delete_queue("mail").await.unwrap();

        let keeps = QueueSettings { dead_keeps_key: Some(true), ..ordered() };
        client.create_queue("mail", keeps).await.unwrap();
        enqueue(&client, "aaab").await;
        let out = fetch(&client, 10).await;
        let [first, last] = [out[0].handle.offset, out[1].handle.offset];
        assert_eq!(fail(&client, &out[0], dies()).await, FailStatus::Dead);
        assert!(fetch(&client, 10).await.is_empty(), "the dead job holds its key");
        client.dead_retry(&all).await.unwrap();
        let again = fetch(&client, 10).await;
        assert_eq!(offsets(&again), [first]);
        assert_eq!(fail(&client, &again[0], dies()).await, FailStatus::Dead);
        client.dead_drop(&all).await.unwrap();
        assert_eq!(offsets(&fetch(&client, 10).await), [first + 1], "and a dropped one does not");
        assert_eq!(last, first + 3);
    });
}

#[test]
fn a_worker_that_is_lost_holds_its_key_until_the_job_is_given_out_again() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), &[]);
    block_on(async {
        let client = connected(&server).await;
        let soon = QueueSettings { crash_backoff_first_ms: Some(300), ..ordered() };
        client.create_queue("mail", soon).await.unwrap();
        enqueue(&client, "aa").await;
        let lease = Lease::Timed(Duration::from_millis(200));
        let short = FetchRequest { lease, ..of_mail(10, LONG) };
        // The second crash has a backoff, in which the key is held as well.
        for attempt in [1, 2, 3] {
            let jobs = fetch_as(&client, &short).await;
            assert_eq!((offsets(&jobs), jobs[0].attempt), (vec![0], attempt));
        }
        let last = fetch_as(&client, &of_mail(10, LONG)).await;
        assert_eq!((offsets(&last), last[0].attempt), (vec![0], 4));
        commit(&client, &last).await;
        assert_eq!(offsets(&fetch(&client, 10).await), [1]);
    });
}

#[test]
fn a_restart_in_the_middle_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let mut server = Server::start(dir.path(), &[]);
    let held = block_on(async {
        let client = connected(&server).await;
        client.create_queue("mail", ordered()).await.unwrap();
        enqueue(&client, "abab-ab").await;
        let timed = FetchRequest { lease: Lease::Timed(LONG), ..of_mail(2, Duration::ZERO) };
        fetch_as(&client, &timed).await
    });
    assert_eq!(offsets(&held), [0, 1]);
    for clean in [false, true] {
        match clean {
            true => assert!(server.stop().success()),
            false => server.kill9(),
        }
        server.restart();
    }
    block_on(async {
        let client = connected(&server).await;
        assert_eq!(offsets(&fetch(&client, 10).await), [4]);
        assert_eq!(group(&client).await.parked, 4);
        commit(&client, &held).await;
        let next = fetch(&client, 10).await;
        assert_eq!(offsets(&next), [2, 3]);
        commit(&client, &next).await;
        assert_eq!(offsets(&fetch(&client, 10).await), [5, 6]);
    });
}

#[test]
fn two_groups_are_independent_and_one_made_later_keeps_the_order_too() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), &[]);
    block_on(async {
        let client = connected(&server).await;
        client.create_queue("mail", ordered()).await.unwrap();
        enqueue(&client, "aa").await;
        assert_eq!(offsets(&fetch(&client, 10).await), [0]);
        client.create_group("mail", "audit", GroupKind::Work, GroupStart::Start).await.unwrap();
        let audit = FetchRequest { group: "audit".into(), ..of_mail(10, Duration::ZERO) };
        for offset in [0, 1] {
            let jobs = fetch_as(&client, &audit).await;
            assert_eq!(offsets(&jobs), [offset]);
            commit(&client, &jobs).await;
        }
        assert!(fetch(&client, 10).await.is_empty());
    });
}

#[test]
fn a_key_has_as_many_jobs_out_as_the_queue_says() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), &[]);
    block_on(async {
        let client = connected(&server).await;
        client.create_queue("mail", places(2)).await.unwrap();
        enqueue(&client, "aaaab").await;
        let out = fetch(&client, 10).await;
        assert_eq!(offsets(&out), [0, 1, 4]);
        assert!(fetch(&client, 10).await.is_empty());
        // A job that waits for its next attempt leaves its place to the next of its key.
        let delay = Some(Duration::from_millis(200));
        fail(&client, &out[0], Failure { delay, ..Failure::default() }).await;
        let next = fetch(&client, 10).await;
        assert_eq!(offsets(&next), [2]);
        // When it is due, it waits for a place, before those that come after it.
        let description = || async { group(&client).await };
        while description().await.delayed > 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        assert_eq!(description().await.parked, 2);
        assert!(fetch(&client, 10).await.is_empty());
        commit(&client, &next).await;
        assert_eq!(offsets(&fetch(&client, 10).await), [0]);
    });
}

#[test]
fn one_waiting_fetch_is_answered_when_a_key_gets_free() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), &[]);
    block_on(async {
        let client = connected(&server).await;
        client.create_queue("mail", ordered()).await.unwrap();
        enqueue(&client, "aaa").await;
        let first = fetch(&client, 1).await;
        let (one, two) = (connected(&server).await, connected(&server).await);
        let wait = of_mail(1, LONG);
        let mut one_waits = Box::pin(one.fetch(&wait));
        let mut two_waits = Box::pin(two.fetch(&wait));
        let pings = async {
            let (a, b) = tokio::join!(one.ping(), two.ping());
            (a.unwrap(), b.unwrap())
        };
        tokio::select! {
            jobs = &mut one_waits => panic!("one has {jobs:?}"),
            jobs = &mut two_waits => panic!("two has {jobs:?}"),
            _ = pings => {}
        }
        commit(&client, &first).await;
        let (got, other) = tokio::select! {
            jobs = &mut one_waits => (jobs.unwrap().jobs, two_waits),
            jobs = &mut two_waits => (jobs.unwrap().jobs, one_waits),
        };
        assert_eq!(offsets(&got), [1]);
        // The other one still waits: it gets what comes next, and that is of another key.
        enqueue(&client, "b").await;
        assert_eq!(offsets(&other.await.unwrap().jobs), [3]);
    });
}

#[test]
fn the_pointer_waits_while_as_many_are_parked_as_may_be() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), &[]);
    block_on(async {
        let client = connected(&server).await;
        let bounded = QueueSettings { parked_max: Some(2), ..ordered() };
        client.create_queue("mail", bounded).await.unwrap();
        enqueue(&client, "aaabac").await;
        let out = fetch(&client, 10).await;
        // Two are parked, b goes, and then the pointer stands at one that would be the third.
        assert_eq!(offsets(&out), [0, 3]);
        let full = group(&client).await;
        assert_eq!((full.parked, full.parked_full, full.ready), (2, true, 2));
        let waiting = of_mail(10, LONG);
        let mut waits = Box::pin(client.fetch(&waiting));
        let ping = connected(&server).await;
        tokio::select! {
            jobs = &mut waits => panic!("the pointer did not wait: {jobs:?}"),
            _ = ping.ping() => {}
        }
        commit(&ping, &out[..1]).await;
        // With a place among the parked ones the pointer goes on, to c.
        assert_eq!(offsets(&waits.await.unwrap().jobs), [1, 5]);
        let full = group(&ping).await;
        assert_eq!((full.parked, full.parked_full), (2, true));
        assert!(client.cancel("mail", &[2]).await.is_ok());
        assert!(!group(&ping).await.parked_full);
    });
}

#[test]
fn settings_that_contradict_each_other_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), &[]);
    block_on(async {
        let client = connected(&server).await;
        let both = QueueSettings { key_concurrency_max: Some(2), ..ordered() };
        let none = QueueSettings { parked_max: Some(0), ..ordered() };
        for (settings, name) in [(both, "key_concurrency_max"), (none, "parked_max")] {
            let error = client.create_queue("mail", settings).await.unwrap_err();
            assert_eq!(error.code(), Some(ErrorCode::BadSetting), "{error}");
            assert!(error.to_string().contains(name), "{error}");
        }
    });
}

#[test]
fn what_a_queue_says_about_keys_changes_only_while_it_is_empty_and_no_priority_overtakes() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), &[]);
    block_on(async {
        let client = connected(&server).await;
        enqueue(&client, "aa").await;
        let refused = client.update_queue("mail", ordered(), &[]).await.unwrap_err();
        assert_eq!(refused.code(), Some(ErrorCode::BadSetting), "{refused}");
        commit(&client, &fetch(&client, 10).await).await;
        let settings = client.update_queue("mail", ordered(), &[]).await.unwrap();
        assert_eq!(settings.ordered_by_key, Some(true));
        enqueue(&client, "aa").await;
        assert_eq!(offsets(&fetch(&client, 10).await), [2]);
        let wider = QueueSettings { parked_max: Some(7), ..QueueSettings::default() };
        let settings = client.update_queue("mail", wider, &[]).await.unwrap();
        assert_eq!((settings.ordered_by_key, settings.parked_max), (Some(true), Some(7)));
        let terms = Terms { priority: 1, ..Terms::default() };
        let urgent = client.enqueue("mail", &Job { terms, ..Job::new("now") }).await.unwrap_err();
        assert_eq!(urgent.code(), Some(ErrorCode::Unsupported), "{urgent}");
    });
}

/// What a parked job may cost in the server's memory, its part of the mapped log included.
const PARKED_BYTES_MAX: u64 = 160;

#[test]
fn a_million_jobs_of_one_key_are_passed_over_in_short_turns_and_bounded_memory() {
    const PARKED: u64 = 1_000_000;
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), &["--durability", "os"]);
    block_on(async {
        let client = connected(&server).await;
        client.create_queue("mail", ordered()).await.unwrap();
        let job = Job { key: Some(b"a".to_vec()), ..Job::new("x") };
        let mut left = PARKED + 1;
        while left > 0 {
            let mut batch = BatchBuilder::default();
            for _ in 0..left.min(50_000) {
                batch.push(&job).unwrap();
            }
            left -= batch.len() as u64;
            client.enqueue_batch("mail", &batch).await.unwrap();
        }
        enqueue(&client, "b").await;
        let first = fetch(&client, 1).await;
        assert_eq!(offsets(&first), [0]);
        let before = server.resident_bytes();
        let other = connected(&server).await;
        let waiting = of_mail(1, LONG);
        let mut waits = Box::pin(other.fetch(&waiting));
        let mut seen = BTreeSet::new();
        let found = loop {
            tokio::select! {
                biased;
                jobs = &mut waits => break jobs.unwrap().jobs,
                now = group(&client) => seen.insert(now.parked),
            };
        };
        assert_eq!(offsets(&found), [PARKED + 1]);
        // Others were served meanwhile.
        assert!(seen.iter().any(|parked| (1..PARKED).contains(parked)), "{seen:?}");
        let full = group(&client).await;
        assert_eq!((full.parked, full.parked_full), (PARKED, true));
        let grown = server.resident_bytes().saturating_sub(before);
        assert!(grown < PARKED * PARKED_BYTES_MAX, "{grown} bytes for {PARKED} parked jobs");
        eprintln!("{} bytes for each parked job", grown / PARKED);
        commit(&client, &first).await;
        assert_eq!(offsets(&fetch(&client, 10).await), [1]);
    });
}
