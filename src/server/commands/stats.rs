//! STATS.

use joblog_protocol::messages::admin::{ListQueues, decode};
use joblog_protocol::messages::stats;

use super::group::wire_kind;
use super::queue::LIST_QUEUES_MAX;
use super::{Answer, json};
use crate::broker::{GroupDescription, Logs, QueueSummary};

pub(super) fn stats(logs: &Logs, body: &[u8]) -> Answer {
    let ListQueues { after, limit } = decode(body)?;
    let limit = (limit as usize).clamp(1, LIST_QUEUES_MAX);
    json(logs.stats(&after, limit), |(queues, more)| stats::Stats {
        now_ms: logs.wall_ms(),
        queues: queues.into_iter().map(queue_stats).collect(),
        more,
    })
}

fn queue_stats(queue: QueueSummary) -> stats::QueueStats {
    stats::QueueStats {
        queue: queue.name,
        paused: queue.paused,
        first_offset: queue.first.0,
        next_offset: queue.next.0,
        unconsumed: queue.unconsumed,
        groups: queue.groups.into_iter().map(group_stats).collect(),
    }
}

fn group_stats(group: GroupDescription) -> stats::GroupStats {
    stats::GroupStats {
        group: group.name,
        kind: wire_kind(group.kind),
        paused: group.paused,
        committed_offset: group.counts.committed.0,
        consumed_above: group.counts.consumed_above,
        ready: group.counts.ready,
        leased: group.counts.leased,
        delayed: group.counts.delayed,
        dead: group.counts.dead,
        oldest_enqueued_at_ms: group.oldest_wall_ms,
    }
}
