//! The client against a real server.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test may stop at what it did not expect"
)]

mod common;

use std::collections::BTreeSet;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use common::{Cut, CuttingProxy, PATIENCE, Server};
use joblog::client::{
    BatchBuilder, Client, ClientError, CommitStatus, ConnectionState, ErrorCode, FailStatus,
    Failure, FetchRequest, GroupKind, GroupStart, Job, Lease, LeasedJob, Options, QueueSettings,
    ReleaseStatus,
};
use tempfile::TempDir;

/// A server with its data in a directory that goes with it.
struct Place {
    server: Server,
    _data: TempDir,
}

impl Place {
    fn new() -> Self {
        let data = TempDir::new().unwrap();
        Self { server: Server::start(data.path(), &[]), _data: data }
    }

    async fn client(&self, options: Options) -> Client {
        Client::connect(self.server.address().to_string(), options).await.unwrap()
    }
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async { tokio::time::timeout(3 * PATIENCE, future).await.unwrap() })
}

/// One job of `queue`, for which it waits.
async fn fetch_one(client: &Client, queue: &str) -> LeasedJob {
    let request = FetchRequest { wait: PATIENCE, ..FetchRequest::new([queue]) };
    let mut jobs = client.fetch(&request).await.unwrap().jobs;
    assert_eq!(jobs.len(), 1);
    jobs.remove(0)
}

async fn until(client: &Client, is_so: impl FnMut(&ConnectionState) -> bool) {
    client.state().wait_for(is_so).await.unwrap();
}

#[test]
fn many_tasks_share_one_connection() {
    const JOBS: usize = 2000;
    const TASKS: usize = 50;
    let place = Place::new();
    block_on(async {
        let client = place.client(Options::default()).await;
        let mut tasks = tokio::task::JoinSet::new();
        for task in 0..TASKS {
            let client = client.clone();
            tasks.spawn(async move {
                for job in 0..JOBS / TASKS {
                    client.enqueue("q", &Job::new(format!("{task}/{job}"))).await.unwrap();
                }
            });
        }
        tasks.join_all().await;
        let mut tasks = tokio::task::JoinSet::new();
        for _ in 0..TASKS {
            tasks.spawn(work_until_empty(client.clone()));
        }
        let done: Vec<u64> = tasks.join_all().await.concat();
        assert_eq!(done.len(), JOBS, "each job is delivered once");
        assert_eq!(done.iter().collect::<BTreeSet<_>>().len(), JOBS);
        let group = client.describe_group("q", "default").await.unwrap();
        assert_eq!((group.committed_offset, group.leased), (JOBS as u64, 0));
    });
}

/// Takes jobs, each with the commit of the one before, until there are none.
async fn work_until_empty(client: Client) -> Vec<u64> {
    let mut done = Vec::new();
    let mut held: Option<LeasedJob> = None;
    loop {
        let commits: Vec<_> = held.take().map(|job| job.handle).into_iter().collect();
        let request = FetchRequest::new(["q"]);
        let (carried, fetch) = client.fetch_carrying(&request, &commits).await.unwrap();
        if !commits.is_empty() {
            assert_eq!(carried.statuses().await.unwrap(), [CommitStatus::Consumed]);
        }
        held = fetch.fetched().await.unwrap().jobs.pop();
        match &held {
            Some(job) => done.push(job.handle.offset),
            None => return done,
        }
    }
}

#[test]
fn queues_and_groups_are_created_described_and_deleted() {
    let place = Place::new();
    block_on(async {
        let client = place.client(Options::default()).await;
        let settings = QueueSettings { failures_max: Some(7), ..QueueSettings::default() };
        client.create_queue("b", settings.clone()).await.unwrap();
        client.create_queue("a", QueueSettings::default()).await.unwrap();
        let error = client.create_queue("a", settings).await.unwrap_err();
        assert_eq!(error.code(), Some(ErrorCode::QueueExists));
        let page = client.list_queues("", 1).await.unwrap();
        assert_eq!((page.queues[0].queue.as_str(), page.more), ("a", true));
        let page = client.list_queues("a", 1).await.unwrap();
        assert_eq!((page.queues[0].queue.as_str(), page.more), ("b", false));

        client.create_group("b", "s", GroupKind::Stream, GroupStart::Start).await.unwrap();
        let described = client.describe_queue("b").await.unwrap();
        assert_eq!(described.settings.failures_max, Some(7));
        let delays = Some(vec![5, 6]);
        let change = QueueSettings { backoff_delays_ms: delays, ..QueueSettings::default() };
        let changed = client.update_queue("b", change.clone(), &["failures_max"]).await.unwrap();
        assert_eq!(changed, client.describe_queue("b").await.unwrap().settings);
        assert_eq!(changed.backoff_delays_ms, change.backoff_delays_ms);
        assert_eq!(changed.failures_max, Some(25));
        let error = client.update_queue("c", change, &[]).await.unwrap_err();
        assert_eq!(error.code(), Some(ErrorCode::NoSuchQueue));
        let unknown = client.update_queue("b", QueueSettings::default(), &["speed"]).await;
        assert_eq!(unknown.unwrap_err().code(), Some(ErrorCode::BadRequest));
        assert_eq!(described.groups[0].kind, GroupKind::Stream);
        assert_eq!(client.list_groups("b").await.unwrap(), described.groups);
        client.delete_group("b", "s").await.unwrap();
        let error = client.describe_group("b", "s").await.unwrap_err();
        assert_eq!(error.code(), Some(ErrorCode::NoSuchGroup));
        client.delete_queue("b").await.unwrap();
        let error = client.delete_queue("b").await.unwrap_err();
        assert_eq!(error.code(), Some(ErrorCode::NoSuchQueue));
        let error = client.list_groups("b").await.unwrap_err();
        assert_eq!(error.code(), Some(ErrorCode::NoSuchQueue));
    });
}

#[test]
fn a_missing_queue_is_created_only_if_that_is_wanted() {
    let place = Place::new();
    block_on(async {
        let strict = place.client(Options::default().create_queues(false)).await;
        let error = strict.enqueue("q", &Job::new("x")).await.unwrap_err();
        assert_eq!(error.code(), Some(ErrorCode::NoSuchQueue));
        let client = place.client(Options::default()).await;
        assert!(client.enqueue("q", &Job::new("x")).await.unwrap().created);
        assert!(!strict.enqueue("q", &Job::new("y")).await.unwrap().created);
    });
}

#[test]
fn a_job_arrives_as_it_was_sent_and_is_settled_in_each_way() {
    let place = Place::new();
    block_on(async {
        let client = place.client(Options::default()).await;
        let sent = Job {
            payload: vec![0, 255, 10],
            key: Some(b"k\xff".to_vec()),
            headers: vec![("h".to_owned(), vec![0xfe]), ("h".to_owned(), Vec::new())],
            ..Job::default()
        };
        let mut batch = BatchBuilder::default();
        (0..5).for_each(|_| batch.push(&sent).unwrap());
        let enqueued = client.enqueue_batch("q", &batch).await.unwrap();
        assert_eq!((enqueued.first_offset, enqueued.count), (0, 5));

        let lease = Lease::Timed(Duration::from_secs(60));
        let request = FetchRequest { jobs_max: 5, lease, ..FetchRequest::new(["none", "q"]) };
        let fetched = client.fetch(&request).await.unwrap();
        assert_eq!(fetched.lease, Duration::from_secs(60));
        let handles: Vec<_> = fetched.jobs.iter().map(|job| job.handle.clone()).collect();
        assert!(fetched.jobs.iter().all(|leased| leased.job == sent && leased.attempt == 1));
        assert_eq!(handles[3].to_string(), format!("q:3@{}", handles[3].token));

        let minute = Duration::from_secs(60);
        assert_eq!(client.extend(&handles, minute).await.unwrap(), [Ok(()); 5]);
        let released = client.release(&handles[..1], minute).await.unwrap();
        assert_eq!(released, [ReleaseStatus::Released]);
        let dead = Failure { failures_max: Some(0), reason: "why".into(), delay: None };
        assert_eq!(client.fail(&handles[1..2], &dead).await.unwrap(), [FailStatus::Dead]);
        let retry = Failure { delay: Some(minute), ..Failure::default() };
        let retried = client.fail(&handles[2..3], &retry).await.unwrap();
        assert_eq!(retried, [FailStatus::Retry { after: minute }]);
        let lost = CommitStatus::Refused(ErrorCode::LeaseLost);
        let committed = client.commit(&handles).await.unwrap();
        let consumed = CommitStatus::Consumed;
        assert_eq!(committed, [lost, lost, lost, consumed, consumed]);
        let again = client.commit(&handles[3..]).await.unwrap();
        assert_eq!(again, [CommitStatus::AlreadyConsumed; 2]);

        let group = client.describe_group("q", "default").await.unwrap();
        assert_eq!((group.delayed, group.dead, group.consumed_above), (2, 1, 2));
        assert_eq!((group.dead_jobs[0].offset, &*group.dead_jobs[0].reason), (1, "why"));
    });
}

#[test]
fn a_stream_is_read_in_pages_and_committed_through() {
    let place = Place::new();
    block_on(async {
        let client = place.client(Options::default()).await;
        let mut batch = BatchBuilder::default();
        (0..10).for_each(|number| batch.push(&Job::new(number.to_string())).unwrap());
        client.enqueue_batch("q", &batch).await.unwrap();
        client.create_group("q", "s", GroupKind::Stream, GroupStart::Start).await.unwrap();
        let (mut from, mut payloads) = (0, Vec::new());
        loop {
            let read = client.read("q", from, 4, 1 << 20).await.unwrap();
            assert_eq!(read.end, 10);
            payloads.extend(read.jobs.into_iter().map(|stored| stored.job.payload));
            if read.next == read.end {
                break;
            }
            from = read.next;
        }
        let numbers: Vec<_> = (0..10).map(|number| number.to_string().into_bytes()).collect();
        assert_eq!(payloads, numbers);
        let status = client.commit_through("q", "s", 6).await.unwrap();
        assert_eq!(status, CommitStatus::Consumed);
        assert_eq!(client.describe_group("q", "s").await.unwrap().committed_offset, 7);
    });
}

#[test]
fn a_fetch_that_was_dropped_hands_back_what_it_gets() {
    let place = Place::new();
    block_on(async {
        let dropping = place.client(Options::default()).await;
        let waiting = FetchRequest { wait: PATIENCE, ..FetchRequest::new(["q"]) };
        let (_, fetch) = dropping.fetch_carrying(&waiting, &[]).await.unwrap();
        dropping.ping().await.unwrap();
        drop(fetch);
        // The server does not know, and gives the job to the one who waited first.
        let other = place.client(Options::default()).await;
        other.enqueue("q", &Job::new("x")).await.unwrap();
        let job = fetch_one(&other, "q").await;
        assert_eq!(job.attempt, 2);
    });
}

#[test]
fn closing_hands_back_at_once_what_is_held() {
    let place = Place::new();
    block_on(async {
        let closing = place.client(Options::default()).await;
        let other = place.client(Options::default()).await;
        other.enqueue("q", &Job::new("x")).await.unwrap();
        fetch_one(&closing, "q").await;
        closing.close().await.unwrap();
        // Without waiting: the session's silence has nothing to do with it.
        let fetched = other.fetch(&FetchRequest::new(["q"])).await.unwrap();
        assert_eq!(fetched.jobs.len(), 1);
    });
}

#[test]
fn a_token_and_a_waiting_fetch_outlive_a_kill_of_the_server() {
    let mut place = Place::new();
    block_on(async {
        let client = place.client(Options::default()).await;
        client.enqueue("q", &Job::new("x")).await.unwrap();
        let job = fetch_one(&client, "q").await;
        let waiting = tokio::spawn({
            let client = client.clone();
            async move { fetch_one(&client, "later").await }
        });
        client.ping().await.unwrap();
        tokio::task::yield_now().await;
        place.server.kill9();
        until(&client, |state| matches!(state, ConnectionState::Disconnected(_))).await;
        place.server.restart();
        let committed = client.commit(&[job.handle]).await.unwrap();
        assert_eq!(committed, [CommitStatus::Consumed]);
        let other = place.client(Options::default()).await;
        other.enqueue("later", &Job::new("y")).await.unwrap();
        assert_eq!(waiting.await.unwrap().job, Job::new("y"));
    });
}

#[test]
fn each_job_is_done_once_over_a_connection_that_is_cut_again_and_again() {
    const JOBS: u64 = 600;
    let place = Place::new();
    for cut in [Cut::Before, Cut::Half] {
        let proxy = CuttingProxy::start(place.server.address(), 5, cut, 11);
        let queue = format!("{cut:?}");
        let done = block_on(async {
            let producer = place.client(Options::default()).await;
            let mut batch = BatchBuilder::default();
            (0..JOBS).for_each(|number| batch.push(&Job::new(number.to_string())).unwrap());
            producer.enqueue_batch(&queue, &batch).await.unwrap();
            let mut workers = tokio::task::JoinSet::new();
            for _ in 0..2 {
                let address = proxy.address().to_string();
                let client = Client::connect(address, Options::default()).await.unwrap();
                // They share what they hold: a cut under one task's FETCH must not lose another's.
                for _ in 0..4 {
                    workers.spawn(work_one_by_one(client.clone(), queue.clone(), JOBS));
                }
            }
            workers.join_all().await.concat()
        });
        assert_eq!(done.len() as u64, JOBS, "each job was handed to a worker once");
        assert_eq!(done.into_iter().collect::<BTreeSet<u64>>().len() as u64, JOBS);
        assert!(proxy.cuts() >= 10, "{} cuts", proxy.cuts());
    }
}

/// Fetches and commits until all jobs of the queue are consumed. Returns what it has done.
async fn work_one_by_one(client: Client, queue: String, jobs: u64) -> Vec<u64> {
    let wait = Duration::from_millis(200);
    let request = FetchRequest { wait, ..FetchRequest::new([queue.as_str()]) };
    let mut done = Vec::new();
    while client.describe_group(&queue, "default").await.map_or(0, |group| group.committed_offset)
        < jobs
    {
        for leased in client.fetch(&request).await.unwrap().jobs {
            done.push(leased.handle.offset);
            let status = client.commit(&[leased.handle]).await.unwrap()[0];
            assert!(status.is_consumed(), "{status:?}");
        }
    }
    done
}

#[test]
fn what_is_asked_while_the_server_is_away_waits_for_it() {
    let mut place = Place::new();
    block_on(async {
        let client = place.client(Options::default()).await;
        assert!(place.server.stop().success());
        until(&client, |state| matches!(state, ConnectionState::Disconnected(_))).await;
        let (payload, restart) = (Job::new("x"), async { place.server.restart() });
        let fetch = fetch_one(&client, "q");
        let (job, enqueued, ()) = tokio::join!(fetch, client.enqueue("q", &payload), restart);
        assert_eq!(enqueued.unwrap().first_offset, 0);
        assert_eq!(job.job, payload);
    });
}

#[test]
fn a_call_to_a_stalled_server_ends_with_its_timeout() {
    let place = Place::new();
    block_on(async {
        let patient = Options::default().request_timeout(Duration::from_millis(200));
        let client = place.client(patient).await;
        place.server.pause();
        let error = client.ping().await.unwrap_err();
        assert!(matches!(error, ClientError::Timeout { .. }), "{error}");
        place.server.resume();
        // Late answers to what nobody awaits any more disturb nothing.
        while let Err(error) = client.ping().await {
            assert!(matches!(error, ClientError::Timeout { .. }), "{error}");
        }
    });
}

#[test]
fn a_lease_lives_while_the_callers_thread_computes() {
    let place = Place::new();
    let (fetched, has_fetched) = mpsc::sync_channel(1);
    let (computed, has_computed) = mpsc::sync_channel::<()>(1);
    let silence = Duration::from_millis(500);
    let address = place.server.address().to_string();
    let worker = thread::spawn(move || {
        block_on(async {
            let client =
                Client::connect(address, Options::default().silence(silence)).await.unwrap();
            client.enqueue("q", &Job::new("x")).await.unwrap();
            let job = fetch_one(&client, "q").await;
            fetched.send(()).unwrap();
            // The only thread of this runtime does nothing else meanwhile.
            has_computed.recv_timeout(PATIENCE).unwrap();
            let committed = client.commit(&[job.handle]).await.unwrap();
            assert_eq!(committed, [CommitStatus::Consumed]);
        });
    });
    has_fetched.recv_timeout(PATIENCE).unwrap();
    block_on(async {
        let other = place.client(Options::default()).await;
        let request = FetchRequest { wait: 4 * silence, ..FetchRequest::new(["q"]) };
        assert!(other.fetch(&request).await.unwrap().jobs.is_empty());
    });
    computed.send(()).unwrap();
    worker.join().unwrap();
}
