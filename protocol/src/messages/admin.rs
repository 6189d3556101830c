//! The commands on queues and groups. Their bodies are JSON, so that they can grow.

use std::collections::BTreeMap;

use bytes::{BufMut, BytesMut};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

pub use super::settings::{QueueSettings, UpdateQueue};
use crate::name;
use crate::wire::DecodeError;

/// Reads a JSON body.
///
/// # Errors
/// [`DecodeError::Json`].
pub fn decode<T: DeserializeOwned>(body: &[u8]) -> Result<T, DecodeError> {
    serde_json::from_slice(body).map_err(|error| DecodeError::Json { reason: error.to_string() })
}

/// Appends a JSON body.
pub fn encode<T: Serialize>(out: &mut BytesMut, value: &T) {
    serde_json::to_writer(out.writer(), value).expect("these types have no map with odd keys");
}

/// CREATE_QUEUE.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CreateQueue {
    /// The queue's name.
    pub queue: String,
    /// Its settings.
    #[serde(default, deserialize_with = "QueueSettings::deserialize_strictly")]
    pub settings: QueueSettings,
}

/// DELETE_QUEUE, DESCRIBE_QUEUE and LIST_GROUPS: one queue by name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct QueueName {
    /// The queue's name.
    pub queue: String,
}

/// LIST_QUEUES: a page of the queues by name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ListQueues {
    /// Only names behind this one; empty for the first page.
    #[serde(default)]
    pub after: String,
    /// Queues at most; a server may give fewer, but then `more` is set.
    pub limit: u32,
}

/// The reply to LIST_QUEUES.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct QueueList {
    /// The queues of this page.
    pub queues: Vec<QueueSummary>,
    /// Whether there are more behind the last one.
    pub more: bool,
}

/// One queue in a list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct QueueSummary {
    /// Its name.
    pub queue: String,
    /// The offset of the first job it still has.
    pub first_offset: u64,
    /// The offset that its next job will have.
    pub next_offset: u64,
    /// Its groups.
    pub groups: Vec<String>,
}

/// What a group is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum GroupKind {
    /// Consumers share the jobs under leases.
    Work,
    /// Consumers read in order and commit through an offset.
    Stream,
}

/// From where a new group sees the jobs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum GroupStart {
    /// From the first job that the queue still has.
    #[default]
    Start,
    /// Only jobs enqueued from now on.
    End,
    /// From this offset on.
    Offset(u64),
}

/// CREATE_GROUP.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CreateGroup {
    /// The queue.
    pub queue: String,
    /// The group's name.
    pub group: String,
    /// Its kind.
    pub kind: GroupKind,
    /// From where it sees the jobs.
    #[serde(default)]
    pub start: GroupStart,
}

/// DELETE_GROUP and DESCRIBE_GROUP: one group by name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GroupName {
    /// The queue.
    pub queue: String,
    /// The group's name.
    pub group: String,
}

/// Where a group is set to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GroupSeek {
    /// The first job that the queue still has.
    Start,
    /// Behind the last job.
    End,
    /// This offset; one below the first job that the queue still has stands for that one.
    Offset(u64),
    /// The first job enqueued at this time or later, in milliseconds since the Unix epoch.
    TimeMs(u64),
}

/// SEEK_GROUP.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SeekGroup {
    /// The queue.
    pub queue: String,
    /// The group.
    pub group: String,
    /// Where to.
    pub to: GroupSeek,
}

/// The reply to SEEK_GROUP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupSought {
    /// The lowest offset that the group has not consumed now.
    pub committed_offset: u64,
}

/// The reply to DESCRIBE_QUEUE.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct QueueDescription {
    /// Its name.
    pub queue: String,
    /// The offset of the first job it still has.
    pub first_offset: u64,
    /// The offset that its next job will have.
    pub next_offset: u64,
    /// Whether it is paused, for all groups.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub paused: bool,
    /// The durability in force: `fsync`, `interval:<ms>` or `os`.
    pub durability: String,
    /// All settings as they are in force.
    pub settings: QueueSettings,
    /// Jobs that some group has still to consume: what `max_jobs` bounds.
    #[serde(default)]
    pub unconsumed: u64,
    /// The bytes of their bodies: what `max_bytes` bounds; only where that is set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unconsumed_bytes: Option<u64>,
    /// Jobs that ended because of their age.
    #[serde(default)]
    pub expired: u64,
    /// The results that it keeps; left out if there never were any.
    #[serde(default, skip_serializing_if = "ResultCounts::is_zero")]
    pub results: ResultCounts,
    /// How its unique keys stand; left out if it never had one that mattered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unique: Option<UniqueKeys>,
    /// Its groups by name.
    pub groups: Vec<GroupDescription>,
}

/// The results that a queue keeps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResultCounts {
    /// How many.
    pub kept: u64,
    /// Their bytes, as `result_bytes_max` counts them.
    pub bytes: u64,
    /// How many went before their time, for others.
    pub displaced: u64,
}

impl ResultCounts {
    fn is_zero(&self) -> bool {
        *self == Self::default()
    }
}

/// How the unique keys of a queue stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UniqueKeys {
    /// Keys that are held.
    pub held: u64,
    /// Jobs that were not enqueued because another held their keys, ever.
    pub duplicates: u64,
    /// Delayed jobs that gave way to others with their keys, ever.
    pub replaced: u64,
}

/// A group: in QueueDescription, in the array that LIST_GROUPS gives, and as the reply to
/// DESCRIBE_GROUP.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupDescription {
    /// The queue.
    pub queue: String,
    /// The group's name.
    pub group: String,
    /// Its kind.
    pub kind: GroupKind,
    /// The lowest offset that it has not consumed.
    pub committed_offset: u64,
    /// Jobs consumed above the committed offset.
    pub consumed_above: u64,
    /// Jobs that a FETCH would get now; in a stream group, jobs not committed.
    pub ready: u64,
    /// Of these, those with a priority, by priority. Priorities that have none are left out, and so
    /// is 0, which the others have.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub ready_by_priority: BTreeMap<u8, u64>,
    /// Jobs out under a lease.
    pub leased: u64,
    /// Jobs that wait for their time.
    pub delayed: u64,
    /// Dead jobs.
    pub dead: u64,
    /// Jobs that wait for others of their key.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub parked: u64,
    /// Whether as many are parked as `parked_max` allows, so that the group waits at the next job
    /// that would be.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub parked_full: bool,
    /// Whether the group itself is paused; its queue may be so, too.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub paused: bool,
    /// Jobs that left the group without a commit, since it was created, by cause. What is not
    /// named has none.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub removed: BTreeMap<String, u64>,
    /// The first of the dead jobs by offset, at most 100.
    pub dead_jobs: Vec<DeadJob>,
}

/// A dead job of a group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeadJob {
    /// Its offset.
    pub offset: u64,
    /// Why it is dead: `failures`, `crashes` or `damaged`.
    pub cause: String,
    /// The last error's text.
    pub reason: String,
    /// How often it was delivered.
    pub attempts: u32,
    /// How often a worker said that it failed.
    pub failures: u32,
    /// How often its lease was lost.
    pub crashes: u32,
    /// When it died: milliseconds since the Unix epoch.
    pub died_at_ms: u64,
}

fn is_zero(count: &u64) -> bool {
    *count == 0
}

/// Checks a name that arrived in a JSON body.
///
/// # Errors
/// [`DecodeError::Name`].
pub fn check_name(name: &str) -> Result<(), DecodeError> {
    Ok(name::check(name)?)
}
