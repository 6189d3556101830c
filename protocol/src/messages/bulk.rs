//! What people ask for about many jobs at once: listing, retrying and dropping dead ones.
//!
//! Each request acts on a bounded number of jobs and says where the next one goes on, so that no
//! request, however much it selects, holds up others. The bodies are JSON.

use serde::{Deserialize, Serialize};

use super::admin::DeadJob;

/// DEAD_LIST, DEAD_RETRY and DEAD_DROP: dead jobs of one group. A job is meant if it passes
/// everything that is given.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DeadQuery {
    /// The queue.
    pub queue: String,
    /// The group; empty for `default`.
    #[serde(default)]
    pub group: String,
    /// Only these offsets.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jobs: Option<Vec<u64>>,
    /// Only jobs whose last error has this text in it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// Only jobs that have been dead for longer than so many milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub older_than_ms: Option<u64>,
    /// Only jobs that have been dead for less than so many milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub younger_than_ms: Option<u64>,
    /// Only jobs from this offset on: 0 at first, then `next` of the reply.
    #[serde(default)]
    pub from: u64,
    /// Jobs at most.
    pub limit: u32,
}

/// The reply to DEAD_LIST.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeadList {
    /// The jobs by offset. There may be none, and more behind `next` all the same.
    pub jobs: Vec<DeadJob>,
    /// Where the list goes on.
    pub next: u64,
    /// Whether there may be more from there on.
    pub more: bool,
}

/// The reply to a command that acts on many jobs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BulkDone {
    /// Jobs that it was done to.
    pub count: u64,
    /// Those of the request's `jobs` that it could not be done to.
    pub refused: Vec<u64>,
    /// Where it goes on.
    pub next: u64,
    /// Whether there may be more from there on.
    pub more: bool,
}

/// CANCEL: jobs of a queue, for all of its groups.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cancel {
    /// The queue.
    pub queue: String,
    /// The offsets of the jobs.
    pub jobs: Vec<u64>,
}

/// The reply to CANCEL.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CancelReply {
    /// What became of each job, in the order of the request.
    pub jobs: Vec<CancelOutcome>,
}

/// What became of a job that was to be cancelled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CancelOutcome {
    /// It is consumed for all groups that had not consumed it.
    Cancelled,
    /// It is out with a worker, who is asked to stop. Its commit counts if it comes first.
    Requested,
    /// All groups had consumed it, or it was cancelled before.
    Consumed,
    /// The queue has no such job.
    NoSuchJob,
}

/// PROMOTE: delayed jobs of a queue, for all of its groups.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Promote {
    /// The queue.
    pub queue: String,
    /// The offsets of the jobs.
    pub jobs: Vec<u64>,
}

/// The reply to PROMOTE.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PromoteReply {
    /// What became of each job, in the order of the request.
    pub jobs: Vec<PromoteOutcome>,
}

/// What became of a job that was to be promoted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PromoteOutcome {
    /// It can be fetched now by all groups for which it was delayed.
    Promoted,
    /// It is delayed for no group: ready, out with a worker, dead or consumed.
    NotDelayed,
    /// The queue has no such job.
    NoSuchJob,
}

/// PAUSE and RESUME.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pause {
    /// The queue.
    pub queue: String,
    /// One group of it; without it, all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
}

/// PURGE: all jobs of a queue from an offset on that are not out with a worker.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Purge {
    /// The queue.
    pub queue: String,
    /// The first offset: 0 at first, then `next` of the reply.
    #[serde(default)]
    pub from: u64,
    /// Only jobs below this offset: left out at first, then `end` of the reply.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end: Option<u64>,
}

/// The reply to PURGE.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PurgeReply {
    /// Jobs that are given up.
    pub count: u64,
    /// Jobs that are left, because they are out with a worker.
    pub leased: u64,
    /// Where it goes on.
    pub next: u64,
    /// Where it ends: the end of the queue when it was begun.
    pub end: u64,
}
