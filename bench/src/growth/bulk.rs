//! Much at once: jobs, leases and queues by the thousand, through the wire.

use anyhow::{Result, ensure};
use bytes::BytesMut;
use joblog_protocol::job::{BatchBuilder, Job, NotBefore, Terms};
use joblog_protocol::limits::{BATCH_BYTES_MAX, FETCH_JOBS_MAX, FETCH_QUEUES_MAX};
use joblog_protocol::messages::admin::{CreateQueue, QueueSettings};
use joblog_protocol::messages::enqueue::Enqueue;
use joblog_protocol::messages::fetch::{Fetch, FetchReply, LeaseKind};
use joblog_protocol::messages::handles::{Handle, HandleSet, HandleSets};
use joblog_protocol::messages::lease::Commit;
use joblog_protocol::{Opcode, messages::admin};

use super::wire::Client;

/// The queue that grows: by name behind that of the small client.
pub(super) const QUEUE: &str = "grown";
/// Jobs of a batch, and a payload of them: 4 MiB hold as many with attributes.
const BATCH_JOBS: u64 = 10_000;
const PAYLOAD_BYTES: usize = 16;
/// Small requests in flight.
pub(super) const IN_FLIGHT: u64 = 256;
/// Handles of a request.
pub(super) const HANDLES: usize = 60_000;
/// A lease or a delay that does not end by itself while anything is measured.
pub(super) const HOUR_MS: u64 = 3_600_000;

/// A batch of so many jobs, which are due at this time of day, or at once.
pub(super) fn batch(count: u64, payload_bytes: usize, at_ms: Option<u64>) -> Result<BatchBuilder> {
    let terms = Terms { due: at_ms.map(NotBefore::At), ..Terms::default() };
    let job = Job { terms, ..Job::new(vec![0x55; payload_bytes]) };
    let mut batch = BatchBuilder::default();
    for _ in 0..count {
        batch.push(&job)?;
    }
    Ok(batch)
}

/// Appends the body of an ENQUEUE.
pub(super) fn put_enqueue(out: &mut BytesMut, queue: &str, batch: &BatchBuilder) {
    Enqueue { queue, create: true, producer: None, batch: batch.batch() }.encode(out);
}

/// Enqueues so many small jobs.
pub(super) fn enqueue(
    client: &mut Client,
    queue: &str,
    count: u64,
    at_ms: Option<u64>,
) -> Result<()> {
    let full = batch(BATCH_JOBS.min(count), PAYLOAD_BYTES, at_ms)?;
    client.ask_many(Opcode::Enqueue, count / BATCH_JOBS, 2, |_, out| {
        put_enqueue(out, queue, &full);
    })?;
    let rest = count % BATCH_JOBS;
    if rest > 0 {
        let batch = batch(rest, PAYLOAD_BYTES, at_ms)?;
        client.ask(Opcode::Enqueue, |out| put_enqueue(out, queue, &batch))?;
    }
    Ok(())
}

/// Enqueues jobs of a MiB each, four in a request, `in_flight` requests at once.
pub(super) fn enqueue_large(client: &mut Client, requests: u64, in_flight: u64) -> Result<()> {
    // Each job's body begins with the length of its attributes.
    let large = batch(4, BATCH_BYTES_MAX / 4 - 4, None)?;
    client.ask_many(Opcode::Enqueue, requests, in_flight, |_, out| {
        put_enqueue(out, QUEUE, &large);
    })
}

/// Takes so many jobs, which must be there.
pub(super) fn take(
    client: &mut Client,
    group: &str,
    count: u64,
    lease: LeaseKind,
) -> Result<Vec<Handle>> {
    let mut handles = Vec::new();
    while (handles.len() as u64) < count {
        let rest = count - handles.len() as u64;
        let jobs_max = rest.min(FETCH_JOBS_MAX as u64) as u32;
        let body =
            client.ask(Opcode::Fetch, |out| put_fetch(out, &[QUEUE], group, jobs_max, lease))?;
        let reply = FetchReply::decode(&body)?;
        ensure!(!reply.jobs.is_empty(), "only {} of {count} jobs were there", handles.len());
        let each = |offset, token| Some(Handle { offset, token: token? });
        handles.extend(reply.jobs.iter().filter_map(|job| each(job.offset, job.token)));
    }
    Ok(handles)
}

/// Appends the body of a FETCH that does not wait.
fn put_fetch(out: &mut BytesMut, queues: &[&str], group: &str, jobs_max: u32, lease: LeaseKind) {
    let fetch = Fetch {
        queues: queues.iter().copied().collect(),
        group,
        jobs_max,
        bytes_max: u32::MAX,
        wait_ms: 0,
        lease,
        by_turns: false,
        commits: HandleSets::new(),
    };
    fetch.encode(out);
}

/// A lease that lives for an hour.
pub(super) fn long_lease() -> LeaseKind {
    LeaseKind::Timed { lease_ms: HOUR_MS }
}

/// Jobs of the queue that grows.
pub(super) fn set<'a>(group: &'a str, handles: &[Handle]) -> HandleSet<'a> {
    HandleSet { queue: QUEUE, group, handles: handles.iter().copied().collect() }
}

/// Creates the queue that grows.
pub(super) fn create(client: &mut Client, settings: QueueSettings) -> Result<()> {
    let queue = QUEUE.to_owned();
    client.ask_json(Opcode::CreateQueue, &CreateQueue { queue, settings }).map(drop)
}

/// The name of one of many queues.
fn name(number: u64) -> String {
    format!("{QUEUE}-{number:07}")
}

/// Creates so many queues.
pub(super) fn create_each(client: &mut Client, count: u64, settings: &QueueSettings) -> Result<()> {
    client.ask_many(Opcode::CreateQueue, count, IN_FLIGHT, |number, out| {
        admin::encode(out, &CreateQueue { queue: name(number), settings: settings.clone() });
    })
}

/// Puts a job into each of so many queues, which are created if they are missing.
pub(super) fn enqueue_each(client: &mut Client, count: u64) -> Result<()> {
    let one = batch(1, PAYLOAD_BYTES, None)?;
    client.ask_many(Opcode::Enqueue, count, IN_FLIGHT, |number, out| {
        put_enqueue(out, &name(number), &one);
    })
}

/// Takes and commits all jobs of so many queues.
pub(super) fn consume_each(client: &mut Client, count: u64) -> Result<()> {
    let mut first = 0;
    while first < count {
        let end = (first + FETCH_QUEUES_MAX as u64).min(count);
        let names: Vec<String> = (first..end).map(name).collect();
        let queues: Vec<&str> = names.iter().map(String::as_str).collect();
        while consume_some(client, &queues)? {}
        first = end;
    }
    Ok(())
}

/// Takes and commits jobs of these queues; gives false if there were none.
fn consume_some(client: &mut Client, queues: &[&str]) -> Result<bool> {
    let jobs_max = FETCH_JOBS_MAX as u32;
    let body =
        client.ask(Opcode::Fetch, |out| put_fetch(out, queues, "", jobs_max, long_lease()))?;
    let reply = FetchReply::decode(&body)?;
    let mut sets = HandleSets::new();
    for job in &reply.jobs {
        let (Some(queue), Some(token)) = (queues.get(usize::from(job.queue_ordinal)), job.token)
        else {
            continue;
        };
        let handle = Handle { offset: job.offset, token };
        match sets.last_mut() {
            Some(set) if set.queue == *queue => set.handles.push(handle),
            _ => sets.push(HandleSet { queue, group: "", handles: [handle].into_iter().collect() }),
        }
    }
    if sets.is_empty() {
        return Ok(false);
    }
    client.ask(Opcode::Commit, |out| Commit::Jobs(sets).encode(out))?;
    Ok(true)
}
