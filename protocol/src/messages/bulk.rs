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
