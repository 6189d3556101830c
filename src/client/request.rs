//! From a typed call to a frame, and from a reply's frame to the caller.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use joblog_protocol::error_code::ErrorCode;
use joblog_protocol::frame::put_request;
use joblog_protocol::job::{Job, JobError};
use joblog_protocol::messages::enqueue::EnqueueReply;
use joblog_protocol::messages::fetch::{Delivery, FetchReply};
use joblog_protocol::messages::handles::{Handle, HandleSet};
use joblog_protocol::messages::lease::{Commit, Release, decode_statuses};
use joblog_protocol::name;
use joblog_protocol::opcode::Opcode;
use joblog_protocol::wire::{DecodeError, Token};
use smallvec::SmallVec;
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout_at};

use super::error::{ClientError, changes_something};
use super::face::Client;
use super::grant::FetchNames;
use super::in_flight::{Changes, Reply, Request};
use super::types::{CommitStatus, ConnectionState, DamagedJob, Fetched, JobHandle, LeasedJob};

impl Request {
    /// A request whose body `body` appends; it has no tokens and no one waits for it yet.
    pub(crate) fn new(opcode: Opcode, correlation: u64, body: impl FnOnce(&mut BytesMut)) -> Self {
        let mut frame = BytesMut::new();
        put_request(&mut frame, opcode, correlation, body);
        Self {
            correlation,
            opcode,
            frame: frame.freeze(),
            tokens: SmallVec::new(),
            changes: Changes::Nothing,
            fetching: None,
            wait_end: None,
            reply: None,
            permits: SmallVec::new(),
            ends_at: None,
            repeated: false,
            sent_once: Arc::default(),
            sequence: None,
        }
    }

    /// A RELEASE of jobs of one queue and group.
    pub(crate) fn release(correlation: u64, run: &[JobHandle], delay_ms: u64) -> Self {
        let jobs = handle_set(run);
        let release = Release { jobs, delay_ms };
        Self {
            tokens: tokens(run),
            changes: Changes::Ended,
            ..Self::new(Opcode::Release, correlation, |out| release.encode(out))
        }
    }

    /// A COMMIT of jobs of any queues and groups.
    pub(crate) fn commit(correlation: u64, jobs: &[JobHandle]) -> Self {
        let commit = Commit::Jobs(runs(jobs).map(handle_set).collect());
        Self {
            tokens: tokens(jobs),
            changes: Changes::Ended,
            ..Self::new(Opcode::Commit, correlation, |out| commit.encode(out))
        }
    }
}

/// Checks a queue's name.
pub(crate) fn check_queue(queue: &str) -> Result<(), DecodeError> {
    Ok(name::check(queue)?)
}

/// Checks a group's name, which may be empty for `default`.
pub(crate) fn check_group(group: &str) -> Result<(), DecodeError> {
    if group.is_empty() {
        return Ok(());
    }
    check_queue(group)
}

/// Checks the names in handles, which a caller may have put together itself.
pub(crate) fn check_handles(handles: &[JobHandle]) -> Result<(), DecodeError> {
    runs(handles).try_for_each(|run| {
        let names = run.first().map(|handle| (&handle.queue, &handle.group));
        names.map_or(Ok(()), |(queue, group)| check_queue(queue).and_then(|()| check_group(group)))
    })
}

/// Cuts handles into runs of one queue and group.
pub(crate) fn runs(handles: &[JobHandle]) -> impl Iterator<Item = &[JobHandle]> {
    handles.chunk_by(|a, b| a.queue == b.queue && a.group == b.group)
}

/// The wire's form of one run.
pub(crate) fn handle_set(run: &[JobHandle]) -> HandleSet<'_> {
    let first = run.first();
    let handle = |job: &JobHandle| Handle { offset: job.offset, token: job.token };
    HandleSet {
        queue: first.map_or("", |handle| &handle.queue),
        group: first.map_or("", |handle| &handle.group),
        handles: run.iter().map(handle).collect(),
    }
}

/// The tokens of these jobs.
pub(crate) fn tokens(handles: &[JobHandle]) -> SmallVec<[Token; 1]> {
    handles.iter().map(|handle| handle.token).collect()
}

/// A request that the driver has.
#[derive(Debug)]
pub(crate) struct WaitingReply {
    pub(crate) client: Client,
    pub(crate) opcode: Opcode,
    pub(crate) receiver: oneshot::Receiver<Result<Reply, ClientError>>,
    pub(crate) sent_once: Arc<AtomicBool>,
    pub(crate) deadline: Instant,
    pub(crate) timeout: Duration,
}

impl WaitingReply {
    pub(crate) async fn reply(mut self) -> Result<Reply, ClientError> {
        match timeout_at(self.deadline, &mut self.receiver).await {
            Ok(Ok(result)) => result,
            Ok(Err(_)) => Err(self.client.closed_error()),
            Err(_) => self.late(),
        }
    }

    /// The driver ends what it can't repeat before it says that it is disconnected. So the state
    /// is read first, and then the channel once more: what is still open then was not done, or is
    /// harmless to repeat.
    fn late(mut self) -> Result<Reply, ClientError> {
        let state = self.client.state().borrow().clone();
        self.receiver.close();
        if let Ok(result) = self.receiver.try_recv() {
            return result;
        }
        let command = self.opcode.name();
        let ConnectionState::Disconnected(error) = state else {
            return Err(ClientError::Timeout { command, timeout: self.timeout });
        };
        let commits = [Opcode::Commit, Opcode::Release, Opcode::Fail, Opcode::Extend];
        let was_enqueued = self.opcode == Opcode::Enqueue && self.sent_once.load(Ordering::Relaxed);
        if was_enqueued || commits.contains(&self.opcode) {
            debug_assert!(changes_something(command));
            return Err(ClientError::OutcomeUnknown { command, cause: error.to_string() });
        }
        Err(error)
    }
}

/// An ENQUEUE that is under way. Those of one client reach the server in the order in which they
/// were handed over.
#[derive(Debug)]
pub struct PendingEnqueue {
    pub(crate) waiting: WaitingReply,
}

impl PendingEnqueue {
    /// Waits for the answer.
    ///
    /// # Errors
    /// As [`Client::enqueue`].
    pub async fn enqueued(self) -> Result<EnqueueReply, ClientError> {
        self.waiting.reply().await?.read(EnqueueReply::decode)
    }
}

/// A FETCH that is under way. Dropping it hands back what it brings.
#[derive(Debug)]
pub struct PendingFetch {
    pub(crate) waiting: WaitingReply,
    pub(crate) names: Arc<FetchNames>,
}

impl PendingFetch {
    /// Waits for the jobs.
    ///
    /// # Errors
    /// [`ClientError`]; a timeout is the FETCH's own wait and the request timeout together.
    pub async fn fetched(self) -> Result<Fetched, ClientError> {
        let Self { waiting, names } = self;
        let client = waiting.client.clone();
        let reply = waiting.reply().await?;
        take_jobs(&client, &names, reply)
    }
}

/// Reads the jobs of a reply. What is damaged goes back, the rest is the caller's; of a reply that
/// can't be read the grant hands back what it can.
fn take_jobs(
    client: &Client,
    names: &FetchNames,
    mut whole: Reply,
) -> Result<Fetched, ClientError> {
    let grant = whole.grant.take();
    let reply = whole.read(FetchReply::decode)?;
    let mut fetched = Fetched {
        lease: Duration::from_millis(reply.lease_ms),
        jobs: Vec::with_capacity(reply.jobs.len()),
        damaged: Vec::new(),
    };
    for (ordinal, delivery) in reply.jobs.iter().enumerate() {
        let handle = whole.read(|_| names.handle(delivery))?;
        match check_job(ordinal, delivery) {
            Ok(job) => fetched.jobs.push(LeasedJob {
                handle,
                attempt: delivery.attempt,
                enqueued_at_ms: delivery.enqueued_at_ms,
                job,
            }),
            Err(cause) => {
                fetched.damaged.push(DamagedJob {
                    queue: Arc::clone(&handle.queue),
                    offset: handle.offset,
                    cause,
                });
                client.hand_back_damaged(handle);
            }
        }
    }
    if let Some(grant) = grant {
        grant.disarm();
    }
    Ok(fetched)
}

/// Reads one job, after its checksum has shown that it is as its producer sent it.
pub(crate) fn check_job(ordinal: usize, delivery: &Delivery<'_>) -> Result<Job, JobError> {
    let actual = crc32fast::hash(delivery.body);
    let stated = delivery.crc32;
    if actual != stated {
        return Err(JobError::Checksum { ordinal, actual, stated });
    }
    Job::from_body(delivery.body).map_err(|source| JobError::Attributes { ordinal, source })
}

/// The commits that a FETCH carries. Their statuses come when they are durable, however long the
/// FETCH itself goes on waiting.
#[derive(Debug)]
pub struct CarriedCommits {
    pub(crate) client: Client,
    pub(crate) receiver: oneshot::Receiver<Result<Bytes, ClientError>>,
    pub(crate) count: usize,
    pub(crate) deadline: Instant,
    pub(crate) timeout: Duration,
}

impl CarriedCommits {
    /// Waits for the statuses, in the order of the handles.
    ///
    /// # Errors
    /// [`ClientError`]; after any of them it is safe to commit the jobs again.
    pub async fn statuses(self) -> Result<Vec<CommitStatus>, ClientError> {
        match timeout_at(self.deadline, self.receiver).await {
            Ok(Ok(result)) => commit_statuses(Opcode::Fetch, &result?, self.count),
            Ok(Err(_)) => Err(self.client.closed_error()),
            Err(_) => Err(ClientError::OutcomeUnknown {
                command: Opcode::Commit.name(),
                cause: format!("no answer came within {} ms", self.timeout.as_millis()),
            }),
        }
    }
}

/// Reads the statuses of a COMMIT or of the commits that a FETCH carried.
pub(crate) fn commit_statuses(
    opcode: Opcode,
    body: &[u8],
    count: usize,
) -> Result<Vec<CommitStatus>, ClientError> {
    let statuses = statuses(opcode, body, count)?;
    Ok(statuses.into_iter().map(CommitStatus::from).collect())
}

/// Reads statuses, of which there must be as many as jobs were named.
pub(crate) fn statuses(
    opcode: Opcode,
    body: &[u8],
    count: usize,
) -> Result<Vec<Option<ErrorCode>>, ClientError> {
    let statuses = decode_statuses(body).map_err(|cause| protocol(opcode, cause))?;
    check_count(opcode, statuses.len(), count)?;
    Ok(statuses.into_vec())
}

/// A reply must say something about each job, and about no other.
pub(crate) fn check_count(opcode: Opcode, given: usize, count: usize) -> Result<(), ClientError> {
    if given == count {
        return Ok(());
    }
    let cause = DecodeError::Range {
        field: "status count",
        value: given as u64,
        allowed: "one for each job that the request named",
    };
    Err(protocol(opcode, cause))
}

/// The error for a reply that can't be read.
pub(crate) fn protocol(opcode: Opcode, cause: DecodeError) -> ClientError {
    ClientError::Protocol { command: opcode.name(), cause }
}
