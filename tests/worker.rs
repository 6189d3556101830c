//! The worker against a real server.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test may stop at what it did not expect"
)]

mod common;
mod fake;

use std::collections::BTreeSet;
use std::error::Error;
use std::future::pending;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::task::{Context, Poll};
use std::thread;
use std::time::Duration;

use common::{PATIENCE, Server, long};
use fake::{block_on, job, run};
use joblog::client::{
    BatchBuilder, Client, ClientError, ErrorCode, FetchRequest, GroupDescription, Job, JobEnd,
    LeasedJob, Options, QueueSettings, TypedJob,
};
use joblog::worker::{
    Counters, Delivery, Done, JobError, JobFailure, MetricsLayer, Retry, Router, StopReason,
    TraceLayer, Worker,
};
use joblog_protocol::Opcode;
use joblog_protocol::messages::fetch::Fetch;
use joblog_protocol::messages::lease::encode_statuses;
use serde::{Deserialize, Serialize};
use tempfile::TempDir;
use tokio::sync::{Notify, Semaphore, oneshot};
use tower_layer::Layer;
use tower_service::Service;

/// A server with its data in a directory that goes with it, and a client.
struct Place {
    server: Server,
    client: Client,
    _data: TempDir,
}

impl Place {
    async fn new() -> Self {
        let data = TempDir::new().unwrap();
        let server = Server::start(data.path(), &[]);
        let client = connect(&server, Options::default()).await;
        Self { server, client, _data: data }
    }

    /// A queue of which every failure is a death, with so many jobs, numbered from 0.
    async fn fill(&self, queue: &str, jobs: usize) {
        let settings = QueueSettings { failures_max: Some(0), ..QueueSettings::default() };
        self.client.create_queue(queue, settings).await.unwrap();
        if jobs == 0 {
            return;
        }
        let mut batch = BatchBuilder::default();
        (0..jobs).for_each(|number| batch.push(&Job::new(number.to_string())).unwrap());
        self.client.enqueue_batch(queue, &batch).await.unwrap();
    }

    async fn group(&self, queue: &str) -> GroupDescription {
        self.client.describe_group(queue, "default").await.unwrap()
    }

    /// Waits until the group is so.
    async fn until(&self, queue: &str, is_so: impl Fn(&GroupDescription) -> bool) {
        loop {
            // There is no group before the first FETCH.
            if self.client.describe_group(queue, "default").await.is_ok_and(|group| is_so(&group)) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

async fn connect(server: &Server, options: Options) -> Client {
    Client::connect(server.address().to_string(), options).await.unwrap()
}

/// The next job of a queue, if there is one at once.
async fn next(client: &Client, queue: &str) -> Option<LeasedJob> {
    client.fetch(&FetchRequest::new([queue])).await.unwrap().jobs.pop()
}

/// What tells a worker to stop.
fn stopper() -> (Arc<Notify>, impl Future<Output = ()> + Send + 'static) {
    let stop = Arc::new(Notify::new());
    let stopped = Arc::clone(&stop);
    (stop, async move { stopped.notified().await })
}

#[test]
fn jobs_run_at_once_as_many_as_there_are_places_and_no_more_are_taken() {
    const JOBS: usize = 40;
    block_on(async {
        let place = Place::new().await;
        place.fill("first", JOBS).await;
        place.fill("second", JOBS).await;
        let gate = Arc::new(Semaphore::new(0));
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (stop, stopped) = stopper();
        let worker = Worker::new(place.client.clone()).queues(["first", "second"]).concurrency(4);
        let handler = {
            let (gate, seen) = (Arc::clone(&gate), Arc::clone(&seen));
            move |delivery: Delivery| {
                let (gate, seen) = (Arc::clone(&gate), Arc::clone(&seen));
                async move {
                    // One that had been taken without a place would come a second time.
                    assert_eq!(delivery.attempt, 1);
                    let id = (delivery.handle.queue.to_string(), delivery.handle.offset);
                    seen.lock().unwrap().push(id);
                    gate.acquire().await.unwrap().forget();
                    Ok::<(), JobError>(())
                }
            }
        };
        let running = tokio::spawn(worker.until(stopped).run(handler));
        place.until("first", |group| group.leased == 4).await;
        // As long as none ends, no other job is out.
        let other = connect(&place.server, Options::default()).await;
        assert_eq!(next(&other, "second").await.unwrap().handle.offset, 0);
        assert_eq!(place.group("first").await.leased, 4);
        assert_eq!(place.group("second").await.leased, 1);
        gate.add_permits(2 * JOBS);
        place.until("first", |group| group.committed_offset == JOBS as u64).await;
        place.until("second", |group| group.consumed_above == JOBS as u64 - 1).await;
        stop.notify_one();
        let drained = running.await.unwrap().unwrap();
        assert_eq!((drained.done, drained.failed, drained.released), (2 * JOBS as u64 - 1, 0, 0));
        let seen = seen.lock().unwrap();
        let first_of_second = seen.iter().position(|(queue, _)| queue == "second").unwrap();
        assert!(first_of_second >= JOBS, "the queue that was named first comes first");
        assert_eq!(seen.iter().collect::<BTreeSet<_>>().len(), seen.len(), "none came twice");
    });
}

#[test]
fn queues_take_turns_if_they_are_told_to() {
    const JOBS: usize = 10;
    block_on(async {
        let place = Place::new().await;
        place.fill("first", JOBS).await;
        place.fill("second", JOBS).await;
        let (stop, stopped) = stopper();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let for_handler = Arc::clone(&seen);
        let worker = Worker::new(place.client.clone()).queues(["first", "second"]);
        let worker = worker.concurrency(1).by_turns().until(stopped);
        let running = tokio::spawn(worker.run(move |delivery: Delivery| {
            for_handler.lock().unwrap().push(delivery.handle.queue.to_string());
            std::future::ready(Ok::<(), JobError>(()))
        }));
        for queue in ["first", "second"] {
            place.until(queue, |group| group.committed_offset == JOBS as u64).await;
        }
        stop.notify_one();
        running.await.unwrap().unwrap();
        let half = &seen.lock().unwrap()[..JOBS];
        let of_second = half.iter().filter(|queue| *queue == "second").count();
        assert_eq!(of_second, JOBS / 2);
    });
}

#[test]
fn a_commit_rides_on_the_fetch_for_the_place_that_it_frees() {
    let (stop, stopped) = stopper();
    run(
        Options::default(),
        move |fake| {
            let mut peer = fake.greet();
            let fetch = peer.next().expect(Opcode::Fetch);
            assert_eq!(Fetch::decode(&fetch.body).unwrap().jobs_max, 2);
            peer.grant(&fetch, &[job(1), job(2)]);
            let mut committed = Vec::new();
            while committed.len() < 2 {
                let fetch = peer.next().expect(Opcode::Fetch);
                let decoded = Fetch::decode(&fetch.body).unwrap();
                let handles = &decoded.commits[0].handles;
                assert_eq!(decoded.jobs_max as usize, handles.len());
                committed.extend(handles.iter().map(|handle| handle.offset));
                peer.reply_more(&fetch, |out| encode_statuses(out, &vec![None; handles.len()]));
            }
            stop.notify_one();
            // A commit whose status came too late for the worker is made again.
            let mut request = peer.next();
            while request.opcode == Opcode::Commit {
                let count = request.offsets().len();
                peer.statuses(&request, &vec![Some(ErrorCode::AlreadyConsumed); count]);
                request = peer.next();
            }
            request.expect(Opcode::Goodbye);
        },
        async |client| {
            let worker = Worker::new(client).queue("q").concurrency(2).until(stopped);
            let drained = worker.run(async |_| Ok::<(), JobError>(())).await.unwrap();
            assert_eq!(drained.done, 2);
        },
    );
}

/// An error whose kinds mean different things.
enum Trouble {
    Bad,
    Busy,
}

impl JobFailure for Trouble {
    fn reason(&self) -> String {
        match self {
            Self::Bad => "bad".to_owned(),
            Self::Busy => "busy".to_owned(),
        }
    }

    fn retry(&self) -> Retry {
        match self {
            Self::Bad => Retry::Never,
            Self::Busy => Retry::After(PATIENCE),
        }
    }
}

#[test]
fn each_sort_of_failure_has_its_consequence() {
    block_on(async {
        let place = Place::new().await;
        let settings = QueueSettings { failures_max: Some(2), ..QueueSettings::default() };
        place.client.create_queue("q", settings).await.unwrap();
        for payload in ["never", "after", "panic", "ok"] {
            place.client.enqueue("q", &Job::new(payload)).await.unwrap();
        }
        let (stop, stopped) = stopper();
        let worker = Worker::new(place.client.clone()).queue("q").until(stopped);
        let handler = async |delivery: Delivery| match &delivery.job.payload[..] {
            b"never" => Err(Trouble::Bad),
            b"after" => Err(Trouble::Busy),
            b"panic" => panic!("boom {}", delivery.handle.offset),
            _ => Ok(()),
        };
        let running = tokio::spawn(worker.run(handler));
        place.until("q", |group| group.dead == 1 && group.delayed == 2).await;
        place.until("q", |group| group.consumed_above == 1).await;
        let dead = place.group("q").await.dead_jobs;
        assert_eq!((dead[0].offset, &*dead[0].reason), (0, "bad"));
        stop.notify_one();
        let drained = running.await.unwrap().unwrap();
        assert_eq!((drained.done, drained.failed), (1, 3));
    });
}

#[test]
fn a_panic_is_a_failure_with_its_message_and_a_release_is_none() {
    block_on(async {
        let place = Place::new().await;
        place.fill("q", 2).await;
        let (stop, stopped) = stopper();
        let worker = Worker::new(place.client.clone()).queue("q").concurrency(1).until(stopped);
        let handler = async |delivery: Delivery| match (delivery.handle.offset, delivery.attempt) {
            (0, _) => panic!("boom {}", delivery.handle.offset),
            (_, 1) => Err(JobError::release(Duration::ZERO, "not now")),
            _ => Ok(()),
        };
        let running = tokio::spawn(worker.run(handler));
        place.until("q", |group| group.dead == 1 && group.consumed_above == 1).await;
        assert_eq!(place.group("q").await.dead_jobs[0].reason, "it panicked: boom 0");
        stop.notify_one();
        let drained = running.await.unwrap().unwrap();
        assert_eq!((drained.done, drained.failed, drained.released), (1, 1, 1));
    });
}

#[test]
fn a_handler_that_is_stuck_does_not_keep_its_job() {
    block_on(async {
        let place = Place::new().await;
        place.fill("q", 2).await;
        let (stop, stopped) = stopper();
        let worker = Worker::new(place.client.clone()).queue("q").concurrency(1);
        let worker = worker.run_time_max(Duration::from_millis(50)).until(stopped);
        let handler = async |delivery: Delivery| {
            if delivery.handle.offset == 0 {
                pending::<()>().await;
            }
            Ok::<(), JobError>(())
        };
        let running = tokio::spawn(worker.run(handler));
        // Its place is free again, too: the second job is done.
        place.until("q", |group| group.dead == 1 && group.consumed_above == 1).await;
        assert_eq!(place.group("q").await.dead_jobs[0].reason, "it ran for longer than 50 ms");
        stop.notify_one();
        running.await.unwrap().unwrap();
    });
}

#[test]
fn a_blocking_handler_that_is_stuck_keeps_its_place_until_it_ends() {
    block_on(async {
        let place = Place::new().await;
        place.fill("q", 2).await;
        let (stop, stopped) = stopper();
        let (go_on, wait) = mpsc::sync_channel::<()>(1);
        let wait = Mutex::new(wait);
        let worker = Worker::new(place.client.clone()).queue("q").concurrency(1);
        let worker = worker.run_time_max(Duration::from_millis(50)).until(stopped);
        let (told, reason) = mpsc::sync_channel(2);
        let running = tokio::spawn(worker.run_blocking(move |delivery: Delivery| {
            if delivery.handle.offset == 0 {
                wait.lock().unwrap().recv_timeout(PATIENCE).unwrap();
                told.send(delivery.cancellation.reason()).unwrap();
            }
            Ok::<(), JobError>(())
        }));
        place.until("q", |group| group.dead == 1).await;
        let other = connect(&place.server, Options::default()).await;
        let ready = next(&other, "q").await.unwrap();
        assert_eq!(ready.handle.offset, 1, "the worker has not taken it");
        place.client.enqueue("q", &Job::new("third")).await.unwrap();
        go_on.send(()).unwrap();
        place.until("q", |group| group.consumed_above == 1).await;
        assert_eq!(reason.recv().unwrap(), Some(StopReason::RanTooLong));
        stop.notify_one();
        running.await.unwrap().unwrap();
    });
}

#[test]
fn a_handler_is_told_that_its_job_was_cancelled() {
    block_on(async {
        let place = Place::new().await;
        place.fill("q", 1).await;
        let (stop, stopped) = stopper();
        let worker = Worker::new(place.client.clone()).queue("q").until(stopped);
        let (told, reason) = oneshot::channel();
        let told = Mutex::new(Some(told));
        let running = tokio::spawn(worker.run(move |delivery: Delivery| {
            let told = told.lock().unwrap().take().unwrap();
            async move {
                told.send(delivery.cancellation.cancelled().await).unwrap();
                Err::<(), _>("cancelled")
            }
        }));
        place.until("q", |group| group.leased == 1).await;
        let other = connect(&place.server, Options::default()).await;
        assert_eq!(other.cancel("q", &[0]).await.unwrap().len(), 1);
        assert_eq!(reason.await.unwrap(), StopReason::Cancelled);
        place.until("q", |group| group.committed_offset == 1).await;
        stop.notify_one();
        running.await.unwrap().unwrap();
    });
}

#[test]
fn draining_finishes_what_it_can_and_hands_back_the_rest_at_once() {
    block_on(async {
        let place = Place::new().await;
        place.fill("q", 3).await;
        let (stop, stopped) = stopper();
        let worker = Worker::new(place.client.clone()).queue("q").concurrency(2);
        let worker = worker.drain_time_max(Duration::from_millis(200)).until(stopped);
        let draining = Arc::new(Notify::new());
        let begun = Arc::new(Semaphore::new(0));
        let for_handler = (Arc::clone(&draining), Arc::clone(&begun));
        let handler = move |delivery: Delivery| {
            let (draining, begun) = for_handler.clone();
            async move {
                begun.add_permits(1);
                match delivery.handle.offset {
                    0 => draining.notified().await,
                    _ => pending().await,
                }
                Ok::<(), JobError>(())
            }
        };
        let running = tokio::spawn(worker.run(handler));
        drop(begun.acquire_many(2).await.unwrap());
        stop.notify_one();
        draining.notify_one();
        let drained = running.await.unwrap().unwrap();
        assert_eq!((drained.done, drained.failed, drained.released), (1, 0, 1));
        // The client lives on, so it is not the end of its session that gave the job back.
        let group = place.group("q").await;
        assert_eq!((group.committed_offset, group.leased), (1, 0));
        let other = connect(&place.server, Options::default()).await;
        let job = next(&other, "q").await.unwrap();
        assert_eq!((job.handle.offset, job.attempt), (1, 2));
    });
}

#[test]
fn a_worker_that_is_dropped_hands_back_what_it_has() {
    block_on(async {
        let place = Place::new().await;
        place.fill("q", 2).await;
        let worker = Worker::new(place.client.clone()).queue("q");
        let running = tokio::spawn(worker.run(|_| pending::<Result<(), JobError>>()));
        place.until("q", |group| group.leased == 2).await;
        running.abort();
        place.until("q", |group| group.leased == 0).await;
    });
}

/// The worker's runtime has one thread, and its handler blocks it.
#[test]
fn a_handler_that_blocks_its_thread_keeps_its_lease() {
    let options = match long() {
        // The server's silence is 10 s.
        true => Options::default(),
        false => Options::default().silence(Duration::from_millis(500)),
    };
    let time = Duration::from_secs(if long() { 60 } else { 2 });
    let data = TempDir::new().unwrap();
    let server = Server::start(data.path(), &[]);
    let (begun, has_begun) = mpsc::sync_channel(1);
    let (go_on, wait) = mpsc::sync_channel::<()>(1);
    let address = server.address().to_string();
    let worker = thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let client = Client::connect(address, options).await.unwrap();
            client.enqueue("q", &Job::new("x")).await.unwrap();
            let (stop, stopped) = stopper();
            let worker = Worker::new(client).queue("q").until(stopped);
            let wait = Mutex::new(wait);
            let handler = move |_: Delivery| {
                begun.send(()).unwrap();
                wait.lock().unwrap().recv_timeout(2 * PATIENCE).unwrap();
                stop.notify_one();
                std::future::ready(Ok::<(), JobError>(()))
            };
            worker.run(handler).await.unwrap()
        })
    });
    has_begun.recv_timeout(PATIENCE).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let other = connect(&server, Options::default()).await;
        let request = FetchRequest { wait: time, ..FetchRequest::new(["q"]) };
        assert!(other.fetch(&request).await.unwrap().jobs.is_empty(), "it was given to another");
        go_on.send(()).unwrap();
        assert_eq!(worker.join().unwrap().done, 1);
        let group = other.describe_group("q", "default").await.unwrap();
        assert_eq!((group.committed_offset, group.leased), (1, 0));
    });
}

#[test]
fn a_worker_goes_on_after_the_server_was_killed() {
    const JOBS: u64 = 300;
    block_on(async {
        let mut place = Place::new().await;
        place.fill("q", JOBS as usize).await;
        let (stop, stopped) = stopper();
        let runs = Arc::new(AtomicUsize::new(0));
        let worker = Worker::new(place.client.clone()).queue("q").concurrency(4).until(stopped);
        let handler = {
            let runs = Arc::clone(&runs);
            move |_: Delivery| {
                runs.fetch_add(1, Ordering::Relaxed);
                async {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                    Ok::<(), JobError>(())
                }
            }
        };
        let running = tokio::spawn(worker.run(handler));
        for part in 1..=3 {
            place.until("q", |group| group.committed_offset > part * JOBS / 4).await;
            place.server.kill9();
            place.server.restart();
        }
        place.until("q", |group| group.committed_offset == JOBS).await;
        stop.notify_one();
        assert_eq!(running.await.unwrap().unwrap().failed, 0);
        // Only a job whose grant was lost with its reply comes again, and that is no second run.
        assert_eq!(runs.load(Ordering::Relaxed) as u64, JOBS);
    });
}

#[test]
fn what_will_never_work_ends_the_worker() {
    block_on(async {
        let place = Place::new().await;
        place.fill("q", 1).await;
        let worker = Worker::new(place.client.clone()).queue("q").group("misspelt");
        let error = worker.run(async |_| Ok::<(), JobError>(())).await.unwrap_err();
        assert_eq!(error.code(), Some(ErrorCode::NoSuchGroup));
        let none = Worker::new(place.client.clone());
        let error = none.run(async |_| Ok::<(), JobError>(())).await.unwrap_err();
        assert!(matches!(error, ClientError::Invalid(_)), "{error}");
        let worker = Worker::new(place.client.clone()).queue("later");
        place.client.clone().close().await.unwrap();
        let error = worker.run(async |_| Ok::<(), JobError>(())).await.unwrap_err();
        assert!(matches!(error, ClientError::Closed { .. }), "{error}");
    });
}

/// A layer of another library: its errors are boxes.
#[derive(Clone)]
struct Boxing<S>(S, &'static str, Arc<Mutex<Vec<&'static str>>>);

struct BoxingLayer(&'static str, Arc<Mutex<Vec<&'static str>>>);

impl<S> Layer<S> for BoxingLayer {
    type Service = Boxing<S>;

    fn layer(&self, service: S) -> Boxing<S> {
        Boxing(service, self.0, Arc::clone(&self.1))
    }
}

impl<S> Service<Delivery> for Boxing<S>
where
    S: Service<Delivery, Response = ()>,
    S::Error: Into<Box<dyn Error + Send + Sync>>,
    S::Future: Send + 'static,
{
    type Response = ();
    type Error = Box<dyn Error + Send + Sync>;
    type Future = std::pin::Pin<Box<dyn Future<Output = Result<(), Self::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.0.poll_ready(context).map_err(Into::into)
    }

    fn call(&mut self, delivery: Delivery) -> Self::Future {
        self.2.lock().unwrap().push(self.1);
        let job = self.0.call(delivery);
        Box::pin(async move { job.await.map_err(Into::into) })
    }
}

#[test]
fn layers_go_around_the_handler_from_the_outside_in() {
    block_on(async {
        let place = Place::new().await;
        place.fill("q", 3).await;
        let (stop, stopped) = stopper();
        let order = Arc::new(Mutex::new(Vec::new()));
        let counters = Arc::new(Counters::default());
        let [outer, inner] = ["outer", "inner"].map(|name| BoxingLayer(name, Arc::clone(&order)));
        let worker = Worker::new(place.client.clone()).queue("q").concurrency(1).until(stopped);
        let worker = worker.layer(MetricsLayer::new(Arc::clone(&counters)));
        // Without a subscriber a span has no name: this one takes everything.
        let subscriber = tracing_subscriber::fmt().with_writer(std::io::sink).finish();
        let _everything = tracing::subscriber::set_default(subscriber);
        let handler = async |delivery: Delivery| {
            assert_eq!(tracing::Span::current().metadata().unwrap().name(), "job");
            match delivery.handle.offset {
                0 => Ok(()),
                1 => Err(JobError::never("no")),
                _ => panic!("boom"),
            }
        };
        let worker = worker.layer(TraceLayer::new()).layer(outer).layer(inner);
        let running = tokio::spawn(worker.run(handler));
        place.until("q", |group| group.dead == 2 && group.committed_offset == 1).await;
        stop.notify_one();
        running.await.unwrap().unwrap();
        assert_eq!(order.lock().unwrap()[..2], ["outer", "inner"]);
        let counts = (counters.done(), counters.failed(), counters.dropped(), counters.running());
        assert_eq!(counts, (1, 1, 1, 0));
    });
}

#[test]
fn a_handler_can_give_a_result_and_jobs_that_follow() {
    block_on(async {
        let place = Place::new().await;
        place.fill("q", 2).await;
        let (stop, stopped) = stopper();
        let worker = Worker::new(place.client.clone()).queue("q").until(stopped);
        let handler = async |delivery: Delivery| {
            if delivery.handle.offset == 1 {
                // A result may have 64 KiB.
                return Ok(Done::result(vec![0; 65_537]));
            }
            delivery.progress("half").await?.unwrap();
            let info = delivery.client.job_info("q", 0, None).await?;
            assert_eq!(info.progress.as_deref(), Some("half"));
            Done::json(&3)?.then("next", ["a", "b"].map(Job::new))
        };
        let running = tokio::spawn(worker.run(handler));
        let end = place.client.wait("q", 0, PATIENCE).await.unwrap();
        assert_eq!(end, Some(JobEnd::Done { result: Some(b"3".to_vec()) }));
        for payload in ["a", "b"] {
            assert_eq!(next(&place.client, "next").await.unwrap().job, Job::new(payload));
        }
        // What can't be committed has failed, and says why.
        place.until("q", |group| group.dead == 1).await;
        let reason = place.group("q").await.dead_jobs[0].reason.clone();
        assert!(reason.contains("65537"), "{reason}");
        stop.notify_one();
        let drained = running.await.unwrap().unwrap();
        assert_eq!((drained.done, drained.failed), (1, 1));
    });
}

#[derive(Serialize, Deserialize)]
struct Add {
    left: u64,
    right: u64,
}

impl TypedJob for Add {
    const NAME: &'static str = "add";
}

#[derive(Serialize, Deserialize)]
struct Shout(String);

impl TypedJob for Shout {
    const NAME: &'static str = "shout";
}

#[test]
fn a_router_gives_typed_jobs_to_their_handlers() {
    block_on(async {
        let place = Place::new().await;
        place.fill("q", 0).await;
        let unreadable = Job { payload: b"{".to_vec(), ..Shout(String::new()).to_job().unwrap() };
        let jobs = [
            Add { left: 2, right: 3 }.to_job().unwrap(),
            Shout("hey".into()).to_job().unwrap(),
            unreadable,
            Job::new("of no type"),
        ];
        for job in &jobs {
            place.client.enqueue("q", job).await.unwrap();
        }
        let (stop, stopped) = stopper();
        let said = Arc::new(Mutex::new(BTreeSet::new()));
        let [sums, shouts] = [Arc::clone(&said), Arc::clone(&said)];
        let router = Router::new()
            .route(move |add: Add, _: Delivery| {
                let sums = Arc::clone(&sums);
                async move {
                    sums.lock().unwrap().insert((add.left + add.right).to_string());
                    Ok::<(), JobError>(())
                }
            })
            .route_blocking(move |shout: Shout, _: Delivery| {
                shouts.lock().unwrap().insert(shout.0.to_uppercase());
                Ok::<(), JobError>(())
            });
        let worker = Worker::new(place.client.clone()).queue("q").until(stopped);
        let running = tokio::spawn(worker.run_service(router));
        place.until("q", |group| group.dead == 2 && group.committed_offset == 2).await;
        stop.notify_one();
        running.await.unwrap().unwrap();
        let expected = ["5", "HEY"].map(str::to_owned);
        assert_eq!(*said.lock().unwrap(), BTreeSet::from(expected));
        let reasons = place.group("q").await.dead_jobs;
        assert!(reasons[0].reason.contains("can't be read as shout"), "{}", reasons[0].reason);
        assert!(reasons[1].reason.contains("no type"), "{}", reasons[1].reason);
    });
}
