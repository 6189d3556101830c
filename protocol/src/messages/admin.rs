//! The commands on queues and groups. Their bodies are JSON, so that they can grow.

use std::collections::BTreeMap;

use bytes::{BufMut, BytesMut};
use serde::de::{DeserializeOwned, Error};
use serde::{Deserialize, Deserializer, Serialize};

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

/// The settings of a queue. In CREATE_QUEUE what is left out has its default, and what is not
/// known is refused; in a description what is not known is passed over.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct QueueSettings {
    /// Failures after which a job is dead: it is tried once more than this.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failures_max: Option<u32>,
    /// Milliseconds before the first retry after a failure; it doubles from there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub backoff_first_ms: Option<u64>,
    /// Longest time in milliseconds before a retry after a failure.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub backoff_longest_ms: Option<u64>,
    /// Crashes after which a job is dead.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub crashes_max: Option<u32>,
    /// Milliseconds before the redelivery after a second crash; it doubles from there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub crash_backoff_first_ms: Option<u64>,
    /// Longest time in milliseconds before a redelivery after a crash.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub crash_backoff_longest_ms: Option<u64>,
    /// Milliseconds for which a dead job is kept; 0 for ever.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dead_kept_ms: Option<u64>,
    /// Milliseconds for which consumed jobs are kept at least; 0 for not at all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub keep_consumed_for_ms: Option<u64>,
    /// Age in milliseconds at which a job ends although nobody has consumed it; none for never.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_age_ms: Option<u64>,
    /// Jobs that may wait to be consumed; none for any number.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_jobs: Option<u64>,
    /// Bytes of bodies that may wait to be consumed; none for any number.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_bytes: Option<u64>,
}

impl QueueSettings {
    /// The names of all settings.
    pub const NAMES: &[&str] = &[
        "failures_max",
        "backoff_first_ms",
        "backoff_longest_ms",
        "crashes_max",
        "crash_backoff_first_ms",
        "crash_backoff_longest_ms",
        "dead_kept_ms",
        "keep_consumed_for_ms",
        "max_age_ms",
        "max_jobs",
        "max_bytes",
    ];

    /// A misspelt setting would be a default that nobody asked for.
    fn deserialize_strictly<'de, D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let settings = serde_json::Map::deserialize(from)?;
        let known = |name: &&String| Self::NAMES.contains(&name.as_str());
        if let Some(name) = settings.keys().find(|name| !known(name)) {
            return Err(D::Error::unknown_field(name, Self::NAMES));
        }
        Self::deserialize(serde_json::Value::Object(settings)).map_err(D::Error::custom)
    }
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
    /// Its groups by name.
    pub groups: Vec<GroupDescription>,
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
    /// Jobs out under a lease.
    pub leased: u64,
    /// Jobs that wait for their time.
    pub delayed: u64,
    /// Dead jobs.
    pub dead: u64,
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

/// Checks a name that arrived in a JSON body.
///
/// # Errors
/// [`DecodeError::Name`].
pub fn check_name(name: &str) -> Result<(), DecodeError> {
    Ok(name::check(name)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_setting_is_refused_in_a_request_and_passed_over_in_a_description() {
        let settings = br#"{"failures_max":3,"from_a_later_version":1}"#;
        assert_eq!(decode::<QueueSettings>(settings).unwrap().failures_max, Some(3));
        let request = [br#"{"queue":"q","settings":"#, &settings[..], b"}"].concat();
        let error = decode::<CreateQueue>(&request).unwrap_err().to_string();
        assert!(error.contains("from_a_later_version"), "{error}");
        assert!(error.contains("crash_backoff_longest_ms"), "{error}");
    }

    #[test]
    fn the_names_of_the_settings_are_all_named() {
        let all = QueueSettings {
            failures_max: Some(1),
            backoff_first_ms: Some(2),
            backoff_longest_ms: Some(3),
            crashes_max: Some(4),
            crash_backoff_first_ms: Some(5),
            crash_backoff_longest_ms: Some(6),
            dead_kept_ms: Some(7),
            keep_consumed_for_ms: Some(8),
            max_age_ms: Some(9),
            max_jobs: Some(10),
            max_bytes: Some(11),
        };
        let value = serde_json::to_value(all).unwrap();
        let names: Vec<_> = value.as_object().unwrap().keys().collect();
        assert_eq!(names.len(), QueueSettings::NAMES.len());
        assert!(names.iter().all(|name| QueueSettings::NAMES.contains(&name.as_str())));
        let request = CreateQueue { queue: "q".into(), settings: all };
        let mut body = BytesMut::new();
        encode(&mut body, &request);
        assert_eq!(decode::<CreateQueue>(&body).unwrap(), request);
    }
}
