//! What must be seen together stands in one entry of the log, and who waits for the end of a job
//! hears of it with the entry that ended it.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test may stop at what it did not expect"
)]

#[path = "common/broker.rs"]
mod broker;

use std::sync::Arc;
use std::task::{Context, Waker};

use broker::SESSION;
use joblog::broker::{
    Caller, CommitOne, Ended, Event, FetchWait, FetchedJobs, Following, Gated, JobBatch, JobEnd,
    LogOptions, Logs, Mailbox, Moving, Ticket,
};
use joblog::types::{EntryIndex, LeaseRef, Offset};
use joblog_protocol::job::{BatchBuilder, Job};
use tempfile::TempDir;

struct Place {
    logs: Logs,
    mailbox: Arc<Mailbox>,
    caller: Caller,
    _dir: TempDir,
}

impl Place {
    fn new() -> Self {
        let dir = TempDir::new().unwrap();
        let broker = broker::open(dir.path(), &LogOptions::default());
        let logs = Logs::new(vec![broker]);
        let mailbox = logs.mailbox(0);
        let (caller, _) = logs.hello(SESSION, None, &[], &mailbox).result.unwrap();
        Self { logs, mailbox, caller, _dir: dir }
    }

    fn enqueue(&self, queue: &str) -> EntryIndex {
        let jobs = one_job();
        let gated = self.logs.of(queue).enqueue(queue, true, batch(&jobs));
        index(&gated)
    }

    fn fetch(&self, queue: &str) -> LeaseRef {
        let queues = [queue];
        let request = broker::fetch_of(&queues, 1);
        let fetched = self.logs.fetch(&self.caller, &request).result.unwrap();
        let FetchedJobs::Now(grants) = fetched.jobs else { panic!("nothing waits") };
        LeaseRef { offset: grants.jobs[0].offset, grant: grants.jobs[0].grant }
    }

    fn commit(&self, job: LeaseRef, jobs: Option<Following<'_>>) -> EntryIndex {
        let result = Some(b"42".as_slice());
        let one = CommitOne { queue: "a", group: "default", job, result, jobs };
        let gated = self.logs.commit_one(&one);
        assert!(gated.result.as_ref().unwrap().verdict.is_ok());
        index(&gated)
    }
}

fn one_job() -> BatchBuilder {
    let mut jobs = BatchBuilder::default();
    jobs.push(&Job::new("x")).unwrap();
    jobs
}

fn batch(jobs: &BatchBuilder) -> JobBatch<'_> {
    JobBatch::plain(jobs.batch())
}

fn index<T: std::fmt::Debug>(gated: &Gated<T>) -> EntryIndex {
    gated.result.as_ref().unwrap();
    gated.gates[0].index
}

#[test]
fn a_commit_and_the_jobs_that_follow_are_one_entry() {
    let place = Place::new();
    place.enqueue("a");
    // The queue is there: its making is a fact of its own, which nobody misses.
    place.enqueue("b");
    let job = place.fetch("a");
    let before = place.enqueue("b");
    let jobs = one_job();
    let jobs = Following { queue: "b", create: true, batch: batch(&jobs) };
    let after = place.commit(job, Some(jobs));
    assert_eq!(after.0, before.0 + 1);
}

#[test]
fn a_job_leaves_its_queue_and_is_in_another_with_one_entry() {
    let place = Place::new();
    place.enqueue("a");
    let before = place.enqueue("b");
    let jobs = one_job();
    let jobs = Following { queue: "b", create: true, batch: batch(&jobs) };
    let moving = Moving { queue: "a", dead_for: None, offsets: &[0], jobs };
    let gated = place.logs.move_jobs(&moving);
    assert!(gated.result.as_ref().unwrap().enqueued.is_some());
    assert_eq!(index(&gated).0, before.0 + 1);
}

#[test]
fn who_waits_is_told_by_the_entry_that_ends_the_job() {
    let place = Place::new();
    place.enqueue("a");
    let job = place.fetch("a");
    let ticket = Arc::new(Ticket::new(5));
    let wait = FetchWait { wait_ms: 60_000, mailbox: &place.mailbox, ticket: &ticket };
    let waiting = place.logs.of("a").wait_for_end("a", Offset(0), Some(wait));
    assert!(waiting.result.unwrap().is_none());
    let committed = place.commit(job, None);
    let mut events = Vec::new();
    place.mailbox.take(&Context::from_waker(Waker::noop()), &mut events);
    let [Event::JobEnded { ticket: 5, ended: Ended::End(end), gates }] = &events[..] else {
        panic!("{events:?}")
    };
    assert_eq!(*end, JobEnd::Done { result: Some(b"42".as_slice().into()) });
    assert_eq!((gates.len(), gates[0].index), (1, committed));
}
