//! What callers give to the client and get from it.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use joblog_protocol::error_code::ErrorCode;
use joblog_protocol::job::{Job, JobError};
use joblog_protocol::wire::Token;

use super::error::ClientError;

/// One leased job: what commit, release, fail and extend are about.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct JobHandle {
    /// The job's queue.
    pub queue: Arc<str>,
    /// The group that it is leased to; empty for `default`.
    pub group: Arc<str>,
    /// The job's offset in its queue.
    pub offset: u64,
    /// The token of the lease.
    pub token: Token,
}

impl fmt::Display for JobHandle {
    /// `queue:offset@token`, as the command line writes it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}@{}", self.queue, self.offset, self.token)
    }
}

/// A job that a FETCH brought.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeasedJob {
    /// What to commit, release, fail or extend it by.
    pub handle: JobHandle,
    /// How often it has been delivered to the group, this time included.
    pub attempt: u32,
    /// When it was enqueued: milliseconds since the Unix epoch.
    pub enqueued_at_ms: u64,
    /// The job itself.
    pub job: Job,
}

/// A job that a READ brought.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredJob {
    /// Its offset in its queue.
    pub offset: u64,
    /// When it was enqueued: milliseconds since the Unix epoch.
    pub enqueued_at_ms: u64,
    /// The job itself.
    pub job: Job,
}

/// A job that did not arrive as its producer sent it. One that was leased has been released.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("job {queue}:{offset} arrived damaged: {cause}")]
pub struct DamagedJob {
    /// The job's queue.
    pub queue: Arc<str>,
    /// The job's offset in its queue.
    pub offset: u64,
    /// What is wrong with it. Its ordinal is the job's place in the reply.
    pub cause: JobError,
}

/// Under which lease jobs are fetched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lease {
    /// For as long as the session is heard from, and at most for this time; `None` for the
    /// server's default.
    Session(Option<Duration>),
    /// For this time, whatever becomes of the session.
    Timed(Duration),
}

/// What to fetch. [`FetchRequest::new`] has the defaults; change its fields as needed.
#[derive(Clone, Debug)]
pub struct FetchRequest {
    /// The queues in the order in which they are asked, 1 to 255. They need not exist.
    pub queues: Vec<Arc<str>>,
    /// The group; empty, the default, for `default`.
    pub group: Arc<str>,
    /// Jobs at most. Default: 1. No reply has more than 10,000.
    pub jobs_max: u32,
    /// Bytes of the jobs' bodies at most, but for a first job that is larger. Default: 4 MiB.
    pub bytes_max: u32,
    /// How long to wait for a first job. Default: not at all. The server cuts it to 10 min.
    pub wait: Duration,
    /// The lease. Default: a session lease of the server's default length.
    pub lease: Lease,
    /// Whether the queues take turns, so that a full one starves none. Default: no; a queue is
    /// asked when those before it have nothing ready.
    pub by_turns: bool,
}

impl FetchRequest {
    /// Asks these queues for one job, without waiting, under a session lease.
    pub fn new<Q: Into<Arc<str>>>(queues: impl IntoIterator<Item = Q>) -> Self {
        Self {
            queues: queues.into_iter().map(Into::into).collect(),
            group: Arc::from(""),
            jobs_max: 1,
            bytes_max: joblog_protocol::limits::FETCH_BYTES_MAX as u32,
            wait: Duration::ZERO,
            lease: Lease::Session(None),
            by_turns: false,
        }
    }
}

/// What a FETCH brought.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fetched {
    /// The length of the leases, counted by the server from its grant.
    pub lease: Duration,
    /// The jobs; none if the wait ended without one.
    pub jobs: Vec<LeasedJob>,
    /// Jobs whose bytes do not match their checksum. They have been released.
    pub damaged: Vec<DamagedJob>,
}

/// What a READ brought.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReadJobs {
    /// The offset to read from next.
    pub next: u64,
    /// The end of the queue: the offset that its next job will have.
    pub end: u64,
    /// The jobs.
    pub jobs: Vec<StoredJob>,
    /// Jobs whose bytes do not match their checksum.
    pub damaged: Vec<DamagedJob>,
}

/// What became of one job of a COMMIT.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CommitStatus {
    /// It is consumed.
    Consumed,
    /// It was consumed before, most likely by a first COMMIT whose reply was lost. A success.
    AlreadyConsumed,
    /// It is not consumed by this token.
    Refused(ErrorCode),
}

impl CommitStatus {
    /// Whether the group has consumed the job.
    pub fn is_consumed(self) -> bool {
        !matches!(self, Self::Refused(_))
    }
}

impl From<Option<ErrorCode>> for CommitStatus {
    fn from(status: Option<ErrorCode>) -> Self {
        match status {
            None => Self::Consumed,
            Some(ErrorCode::AlreadyConsumed) => Self::AlreadyConsumed,
            Some(code) => Self::Refused(code),
        }
    }
}

/// What became of one job of a RELEASE.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReleaseStatus {
    /// It is handed back.
    Released,
    /// The connection was cut, the RELEASE was sent again, and the lease is gone: it was handed
    /// back by the first RELEASE, or the lease was lost in between.
    Unknown,
    /// It is not handed back by this token.
    Refused(ErrorCode),
}

/// What became of one job of a FAIL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FailStatus {
    /// It will be tried again.
    Retry {
        /// From now.
        after: Duration,
    },
    /// It is dead.
    Dead,
    /// The connection was cut, the FAIL was sent again, and the lease is gone: the first FAIL was
    /// done, or the lease was lost in between.
    Unknown,
    /// It is not failed by this token.
    Refused(ErrorCode),
}

/// How a job failed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Failure {
    /// Why, for people; cut at 4 KiB.
    pub reason: String,
    /// Failures after which the job is dead, instead of the queue's; 0: it is dead now.
    pub failures_max: Option<u32>,
    /// Time until the next attempt, instead of the queue's backoff.
    pub delay: Option<Duration>,
}

/// What the server said when it was greeted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerInfo {
    /// What it calls itself, for people.
    pub agent: String,
    /// The version of the protocol that is spoken.
    pub version: u16,
    /// Whether it knew the session from before.
    pub resumed: bool,
    /// Silence after which it ends the session.
    pub silence: Duration,
    /// Largest job body that it takes, in bytes.
    pub job_bytes_max: u32,
}

/// How the connection stands.
#[derive(Clone, Debug)]
pub enum ConnectionState {
    /// It stands.
    Connected(ServerInfo),
    /// It was cut, or an attempt to make it again failed; the next attempt follows.
    Disconnected(ClientError),
    /// It is closed for good.
    Closed {
        /// Why.
        reason: &'static str,
    },
}

impl ConnectionState {
    /// What the server says of itself, while there is a connection.
    pub fn server(&self) -> Option<&ServerInfo> {
        if let Self::Connected(info) = self { Some(info) } else { None }
    }
}
