//! STATS: numbers of queues and groups, for those who watch them. Bodies are JSON; the request is
//! that of LIST_QUEUES.

use serde::{Deserialize, Serialize};

use super::admin::GroupKind;

/// The reply to STATS.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stats {
    /// The server's time of day: milliseconds since the Unix epoch.
    pub now_ms: u64,
    /// The queues of this page.
    pub queues: Vec<QueueStats>,
    /// Whether there are more behind the last one.
    pub more: bool,
}

/// The numbers of one queue.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct QueueStats {
    /// Its name.
    pub queue: String,
    /// Whether it is paused, for all groups.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub paused: bool,
    /// The offset of the first job it still has.
    pub first_offset: u64,
    /// The offset that its next job will have.
    pub next_offset: u64,
    /// Jobs that some group has still to consume, or that no group sees.
    pub unconsumed: u64,
    /// Its groups by name.
    pub groups: Vec<GroupStats>,
}

/// The numbers of one group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupStats {
    /// Its name.
    pub group: String,
    /// Its kind.
    pub kind: GroupKind,
    /// Whether the group itself is paused; its queue may be so, too.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub paused: bool,
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
    /// When the oldest job was enqueued that is neither consumed nor dead: milliseconds since the
    /// Unix epoch. None if there is no such job.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub oldest_enqueued_at_ms: Option<u64>,
}
