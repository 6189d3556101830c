//! CREATE_GROUP, DELETE_GROUP, LIST_GROUPS, DESCRIBE_GROUP and SEEK_GROUP.

use std::collections::BTreeMap;

use joblog_protocol::messages::admin::{self, check_name, decode};

use super::dead::dead_job;
use super::{Answer, done, json};
use crate::broker::{
    GroupDescription, GroupKind, Logs, Removal, RemovedCounts, Seek, SeekTo, Start,
};
use crate::types::Offset;

pub(super) fn create(logs: &Logs, body: &[u8]) -> Answer {
    let admin::CreateGroup { queue, group, kind, start } = decode(body)?;
    check_name(&group)?;
    let kind = match kind {
        admin::GroupKind::Work => GroupKind::Work,
        admin::GroupKind::Stream => GroupKind::Stream,
    };
    let start = match start {
        admin::GroupStart::Start => Start::Beginning,
        admin::GroupStart::End => Start::End,
        admin::GroupStart::Offset(offset) => Start::At(Offset(offset)),
    };
    done(logs.of(&queue).create_group(&queue, &group, kind, start))
}

pub(super) fn delete(logs: &Logs, body: &[u8]) -> Answer {
    let admin::GroupName { queue, group } = decode(body)?;
    done(logs.of(&queue).delete_group(&queue, &group))
}

pub(super) fn list(logs: &Logs, body: &[u8]) -> Answer {
    let admin::QueueName { queue } = decode(body)?;
    let described = logs.of(&queue).describe_queue(&queue);
    json(described, |described| group_descriptions(described.summary.groups, &queue))
}

pub(super) fn describe(logs: &Logs, body: &[u8]) -> Answer {
    let admin::GroupName { queue, group } = decode(body)?;
    let described = logs.of(&queue).describe_group(&queue, &group);
    json(described, |described| group_description(described, queue))
}

pub(super) fn seek(logs: &Logs, body: &[u8]) -> Answer {
    let admin::SeekGroup { queue, group, to } = decode(body)?;
    let to = match to {
        admin::GroupSeek::Start => SeekTo::Place(Seek::Beginning),
        admin::GroupSeek::End => SeekTo::Place(Seek::End),
        admin::GroupSeek::Offset(offset) => SeekTo::Place(Seek::To(Offset(offset))),
        admin::GroupSeek::TimeMs(wall_ms) => SeekTo::Time(wall_ms),
    };
    json(logs.of(&queue).seek_group(&queue, &group, to), |committed| admin::GroupSought {
        committed_offset: committed.0,
    })
}

pub(super) fn wire_kind(kind: GroupKind) -> admin::GroupKind {
    match kind {
        GroupKind::Work => admin::GroupKind::Work,
        GroupKind::Stream => admin::GroupKind::Stream,
    }
}

pub(super) fn group_descriptions(
    groups: Vec<GroupDescription>,
    queue: &str,
) -> Vec<admin::GroupDescription> {
    groups.into_iter().map(|group| group_description(group, queue.to_owned())).collect()
}

fn group_description(group: GroupDescription, queue: String) -> admin::GroupDescription {
    let counts = group.counts;
    admin::GroupDescription {
        queue,
        group: group.name,
        kind: wire_kind(group.kind),
        committed_offset: counts.committed.0,
        consumed_above: counts.consumed_above,
        ready: counts.ready,
        ready_by_priority: by_priority(&counts.ready_by_priority),
        leased: counts.leased,
        delayed: counts.delayed,
        dead: counts.dead,
        parked: counts.parked,
        parked_full: counts.parked_full,
        paused: group.paused,
        removed: removed(&counts.removed),
        dead_jobs: group.dead.into_iter().map(dead_job).collect(),
    }
}

/// The counts of the priorities above 0 that have any.
fn by_priority(counts: &[u64]) -> BTreeMap<u8, u64> {
    let above = (0..).zip(counts.iter().copied()).skip(1);
    above.filter(|(_, count)| *count > 0).collect()
}

fn removed(counts: &RemovedCounts) -> BTreeMap<String, u64> {
    let name = |cause| match cause {
        Removal::Dropped => "dropped",
        Removal::Aged => "aged",
        Removal::Cancelled => "cancelled",
        Removal::Purged => "purged",
        Removal::Expired => "expired",
        Removal::Moved => "moved",
        Removal::Replaced => "replaced",
    };
    let counted = Removal::ALL.into_iter().map(|cause| (name(cause).to_owned(), counts.of(cause)));
    counted.filter(|(_, count)| *count > 0).collect()
}
