//! The client when things break: 10,000 jobs go in and out while connections are cut, the server
//! is stopped or killed, or a connection is half open. No call hangs past its timeout, no job is
//! lost, and none is enqueued twice.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test may stop at what it did not expect"
)]

mod common;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use common::{Cut, CuttingProxy, FreezingProxy, PATIENCE, Server, long, until};
use joblog::client::{
    BatchBuilder, Client, GroupKind, GroupStart, Job, Options, Producer, ProducerOptions,
    QueueSettings, Reader,
};
use joblog::worker::{Delivery, JobError, Worker};
use joblog_protocol::Opcode;
use tempfile::TempDir;
use tokio::sync::Notify;
use tokio::task::JoinSet;

const JOBS: usize = 10_000;
/// Jobs of one batch, so that there are many batches for things to break.
const BATCH: usize = 10;

/// How far it has got, for whoever breaks things.
#[derive(Default)]
struct Progress {
    /// Jobs that were enqueued by hand, which are half of them.
    by_hand: AtomicUsize,
    /// Calls that ended with an error, and were made again.
    errors: AtomicUsize,
}

impl Progress {
    /// Waits until so many hundredths of the jobs that go by hand are enqueued.
    fn reach(&self, percent: usize) {
        until("so many jobs are enqueued", || {
            self.by_hand.load(Ordering::Relaxed) >= JOBS / 2 * percent / 100
        });
    }
}

/// Where the producer and the worker connect to, and as whom.
struct Ways {
    producer: String,
    worker: String,
    options: Options,
}

impl Ways {
    fn straight(server: &Server, options: Options) -> Self {
        let address = server.address().to_string();
        Self { producer: address.clone(), worker: address, options }
    }
}

fn start() -> (Server, TempDir) {
    let data = TempDir::new().unwrap();
    (Server::start(data.path(), &[]), data)
}

/// Sends all jobs in and takes them out while `faults` breaks things. Returns the progress.
fn survive(server: &mut Server, ways: &Ways, faults: impl FnOnce(&mut Server, &Progress) + Send) {
    let progress = Arc::new(Progress::default());
    let address = server.address().to_string();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let observer = runtime.block_on(async {
        let observer = Client::connect(address, Options::default()).await.unwrap();
        observer.create_queue("q", QueueSettings::default()).await.unwrap();
        // It keeps every job for the count at the end.
        observer.create_group("q", "audit", GroupKind::Stream, GroupStart::Start).await.unwrap();
        observer
    });
    thread::scope(|scope| {
        let for_faults = Arc::clone(&progress);
        let faults = scope.spawn(move || faults(server, &for_faults));
        let whole = Duration::from_secs(if long() { 900 } else { 300 });
        runtime.block_on(async {
            tokio::time::timeout(whole, carry(ways, &progress)).await.unwrap();
        });
        faults.join().unwrap();
    });
    runtime.block_on(check(observer));
}

/// Enqueues and consumes all jobs.
async fn carry(ways: &Ways, progress: &Arc<Progress>) {
    let worker = Client::connect(ways.worker.as_str(), ways.options.clone()).await.unwrap();
    let all_done = Arc::new(Notify::new());
    let stopped = Arc::clone(&all_done);
    let worker = Worker::new(worker).queue("q").wait(Duration::from_secs(1));
    let worker = worker.until(async move { stopped.notified().await });
    let working = tokio::spawn(worker.run(async |_: Delivery| Ok::<(), JobError>(())));
    let client = Client::connect(ways.producer.as_str(), ways.options.clone()).await.unwrap();
    let mut tasks = JoinSet::new();
    tasks.spawn(produce_buffered(client.clone(), 0..JOBS / 2));
    for part in 0..4 {
        let first = JOBS / 2 + part * JOBS / 8;
        let jobs = first..first + JOBS / 8;
        tasks.spawn(produce_by_hand(client.clone(), jobs, Arc::clone(progress)));
    }
    tasks.join_all().await;
    while client.describe_group("q", "default").await.map_or(0, |group| group.committed_offset)
        < JOBS as u64
    {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    all_done.notify_one();
    working.await.unwrap().unwrap();
}

/// Half of the jobs go through the buffered producer.
async fn produce_buffered(client: Client, jobs: std::ops::Range<usize>) {
    let patient = ProducerOptions::default()
        .batch_jobs_max(BATCH)
        .buffer_bytes_max(64 * 1024)
        .delivery_timeout(4 * PATIENCE);
    let producer = Producer::new(client, patient);
    let mut pending = JoinSet::new();
    for number in jobs {
        let job = Job::new(number.to_string());
        // A full buffer may outlast the call's timeout, as long as the server is away.
        let sent = loop {
            match producer.send("q", &job).await {
                Ok(sent) => break sent,
                Err(error) => assert!(error.retryable(), "{error}"),
            }
        };
        pending.spawn(async move { sent.await.unwrap() });
    }
    producer.flush().await;
    pending.join_all().await;
}

/// The other half by a program that sends its batches again itself.
async fn produce_by_hand(client: Client, jobs: std::ops::Range<usize>, progress: Arc<Progress>) {
    let numbers: Vec<_> = jobs.collect();
    for numbers in numbers.chunks(BATCH) {
        let mut batch = BatchBuilder::default();
        numbers.iter().for_each(|number| batch.push(&Job::new(number.to_string())).unwrap());
        let prepared = loop {
            match client.prepare("q", &batch).await {
                Ok(prepared) => break prepared,
                Err(error) => assert!(error.retryable(), "{error}"),
            }
        };
        loop {
            // Far more than the timeout of the call itself, and far less than for ever.
            match tokio::time::timeout(PATIENCE, prepared.send()).await.expect("the call hangs") {
                Ok(_) => break,
                Err(error) => {
                    assert!(error.retryable() || error.outcome_unknown(), "{error}");
                    progress.errors.fetch_add(1, Ordering::Relaxed);
                }
            }
        }
        progress.by_hand.fetch_add(numbers.len(), Ordering::Relaxed);
    }
}

/// Every job is in the queue once, and consumed.
async fn check(observer: Client) {
    let group = observer.describe_group("q", "default").await.unwrap();
    assert_eq!((group.committed_offset, group.leased, group.dead), (JOBS as u64, 0, 0));
    let mut found = BTreeMap::new();
    let mut reader = Reader::open(observer, "q", "audit").await.unwrap().jobs_max(10_000);
    while reader.next_offset() < JOBS as u64 {
        for stored in reader.read().await.unwrap().jobs {
            let number: usize = String::from_utf8(stored.job.payload).unwrap().parse().unwrap();
            *found.entry(number).or_insert(0) += 1;
        }
    }
    assert_eq!(found.len(), JOBS);
    assert!(found.values().all(|count| *count == 1), "none was enqueued twice");
}

fn short() -> Options {
    Options::default().request_timeout(Duration::from_millis(500))
}

#[test]
fn while_replies_are_cut() {
    let (mut server, _data) = start();
    let options = Options::default().request_timeout(Duration::from_secs(10));
    let producer = CuttingProxy::start_for(Opcode::Enqueue, server.address(), 3, Cut::Half, 3);
    let worker = CuttingProxy::start(server.address(), 3, Cut::Before, 4);
    let ways = Ways {
        producer: producer.address().to_string(),
        worker: worker.address().to_string(),
        options,
    };
    survive(&mut server, &ways, |_, _| {});
    assert!(producer.cuts() >= 10, "{} cuts", producer.cuts());
    assert!(worker.cuts() >= 10, "{} cuts", worker.cuts());
}

#[test]
fn while_the_server_is_stopped() {
    let (mut server, _data) = start();
    let ways = Ways::straight(&server, short());
    survive(&mut server, &ways, |server, progress| {
        for percent in [10, 40, 70] {
            progress.reach(percent);
            let before = progress.errors.load(Ordering::Relaxed);
            let begun = Instant::now();
            server.pause();
            let least =
                if long() && percent == 40 { Duration::from_secs(30) } else { Duration::ZERO };
            // One that sends by hand has met its timeout, which is what this is about.
            until("calls time out", || {
                let errors = progress.errors.load(Ordering::Relaxed) - before;
                errors >= 1 && begun.elapsed() >= least
            });
            server.resume();
        }
    });
}

#[test]
fn while_the_server_is_killed_and_started() {
    let (mut server, _data) = start();
    let ways = Ways::straight(&server, short());
    survive(&mut server, &ways, |server, progress| {
        for percent in [5, 25, 45, 65, 85] {
            progress.reach(percent);
            server.kill9();
            server.restart();
        }
    });
}

#[test]
fn while_connections_are_half_open() {
    let (mut server, _data) = start();
    let proxy = FreezingProxy::start(server.address());
    let address = proxy.address().to_string();
    let ways = Ways {
        producer: address.clone(),
        worker: address,
        options: short().silence(Duration::from_millis(500)),
    };
    survive(&mut server, &ways, |_, progress| {
        for percent in [5, 25, 45, 65, 85] {
            progress.reach(percent);
            proxy.freeze();
        }
    });
}
