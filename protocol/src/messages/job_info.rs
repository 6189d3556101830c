//! JOB_INFO: one job, described for people. The bodies are JSON.

use serde::{Deserialize, Serialize};

/// JOB_INFO.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JobQuery {
    /// The queue.
    pub queue: String,
    /// The job.
    pub offset: u64,
    /// The group for which; empty for the queue's primary group.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub group: String,
}

/// Where a job stands for a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum JobState {
    /// It can be fetched.
    Ready,
    /// It waits for others of its key.
    Parked,
    /// It can be fetched later.
    Delayed,
    /// It is out with a worker.
    Leased,
    /// It is not fetched again, until somebody retries it.
    Dead,
    /// It is consumed.
    Consumed,
    /// It was cancelled or purged.
    Cancelled,
    /// Its time was over.
    Expired,
}

/// The lease of a job that is out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaseInfo {
    /// The first 8 hexadecimal digits of the session that holds it; none if it is a timed lease.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<String>,
    /// How long it runs in milliseconds, from its grant, its last EXTEND or the server's start.
    pub lease_ms: u64,
    /// How much of that is left.
    pub left_ms: u64,
    /// Whether the job was cancelled: its worker is to stop.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub cancel_requested: bool,
}

/// The reply to JOB_INFO. What does not apply, or is not known, is left out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobDescription {
    /// The queue.
    pub queue: String,
    /// The job.
    pub offset: u64,
    /// The group.
    pub group: String,
    /// Where the job stands.
    pub state: JobState,
    /// When it was enqueued: milliseconds since the Unix epoch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub enqueued_at_ms: Option<u64>,
    /// Milliseconds until it can be fetched.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub due_in_ms: Option<u64>,
    /// How often it was delivered to the group.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attempts: Option<u32>,
    /// How often a worker said that it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failures: Option<u32>,
    /// How often its worker was lost.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub crashes: Option<u32>,
    /// Its lease.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lease: Option<LeaseInfo>,
    /// What its worker said of its progress.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub progress: Option<String>,
    /// What a worker said when it failed last; cut, unless the job is dead.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_error: Option<String>,
    /// Why it is dead: `failures`, `crashes` or `damaged`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cause: Option<String>,
    /// When it died: milliseconds since the Unix epoch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub died_at_ms: Option<u64>,
    /// Bytes of its result, while that is kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub result_bytes: Option<u64>,
}
