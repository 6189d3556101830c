//! The Rust client of a Joblog server.
//!
//! A [`Client`] is a handle on one connection; it is cheap to clone, and many tasks may use it at
//! once. The connection belongs to a *driver* on an operating system thread of its own, so that
//! heartbeats, and reconnecting after a cut, do not depend on the caller's runtime making
//! progress: a worker that computes for minutes keeps its leases.
//!
//! After a cut the driver comes back with the same session and names the tokens of all jobs that
//! it has handed out and that are not settled yet. So a job whose reply was lost on the way is
//! ready for others at once, and a job that a caller works on stays with it. What becomes of
//! requests that were under way is said at [`ClientError`].
//!
//! Calls must be made inside a tokio runtime with its timer enabled.
//!
//! ```no_run
//! use joblog::client::{Client, FetchRequest, Job, Options};
//!
//! # async fn example() -> Result<(), joblog::client::ClientError> {
//! let client = Client::connect("127.0.0.1:7411", Options::default()).await?;
//! client.enqueue("mail", &Job::new("hello")).await?;
//! let fetched = client.fetch(&FetchRequest::new(["mail"])).await?;
//! for leased in fetched.jobs {
//!     client.commit(&[leased.handle]).await?;
//! }
//! client.close().await
//! # }
//! ```

mod addresses;
mod backoff;
mod calls;
mod connection;
mod consumer;
mod driver;
mod error;
mod face;
mod grant;
mod held;
mod in_flight;
mod jobs;
mod noted;
mod options;
mod prepared;
mod producer;
mod reader;
mod request;
mod schedules;
mod sequence;
mod session;
mod typed;
mod types;

pub use addresses::Addresses;
pub use consumer::Consumer;
pub use error::ClientError;
pub use face::Client;
pub use held::HeldJob;
pub use joblog_protocol::error_code::ErrorCode;
pub use joblog_protocol::job::{BatchBuilder, Job, NotBefore, Terms};
pub use joblog_protocol::messages::admin::{
    DeadJob, GroupDescription, GroupKind, GroupSeek, GroupSought, GroupStart, QueueDescription,
    QueueList, QueueSettings, QueueSummary, ResultCounts, UniqueKeys,
};
pub use joblog_protocol::messages::bulk::{
    BulkDone, CancelOutcome, DeadList, DeadQuery, PromoteOutcome, PurgeReply,
};
pub use joblog_protocol::messages::enqueue::{EnqueueOutcome, EnqueueReply as Enqueued, UniqueHit};
pub use joblog_protocol::messages::job_info::{JobDescription, JobState, LeaseInfo};
pub use joblog_protocol::messages::moving::{MoveOutcome, MoveReply};
pub use joblog_protocol::messages::schedule::{
    Missed, ScheduleAdd, ScheduleDescription, ScheduleFailure, ScheduleFiring, ScheduleList,
    ScheduleQuery, ScheduleRun, body_of as schedule_body, job_of as schedule_job,
};
pub use joblog_protocol::messages::stats::{GroupStats, QueueStats, Stats};
pub use joblog_protocol::messages::wait::DeathCause;
pub use joblog_protocol::unique::Unique;
pub use joblog_protocol::wire::{DecodeError, Token};
pub use jobs::{Chained, JobEnd};
pub use options::Options;
pub use prepared::PreparedBatch;
pub use producer::{PendingJob, Producer, ProducerOptions};
pub use reader::Reader;
pub use request::{CarriedCommits, PendingEnqueue, PendingFetch};
pub use typed::{TYPE_HEADER, TypedJob, TypedJobError, type_name};
pub use types::{
    CommitStatus, ConnectionState, DamagedJob, FailStatus, Failure, FetchRequest, Fetched,
    JobHandle, Lease, LeasedJob, ReadJobs, ReleaseStatus, ServerInfo, StoredJob,
};

#[cfg(feature = "worker")]
pub(crate) use backoff::Backoff;
#[cfg(feature = "worker")]
pub(crate) use noted::Noted;
