//! Numbers of queues and groups, for those who watch them.

use super::Broker;
use super::gate::Gated;
use crate::queue::{GroupCounts, GroupKind, Machine};
use crate::types::{Offset, QueueId};

/// Groups in one page, together; a queue with more has a page of its own.
const GROUPS_MAX: usize = 1_000;

/// The numbers of a queue.
#[derive(Clone, Debug)]
pub struct QueueStats {
    /// Its name.
    pub name: String,
    /// Whether it is paused.
    pub paused: bool,
    /// The offset of the first job that it retains.
    pub first: Offset,
    /// The offset that its next job will have.
    pub next: Offset,
    /// Jobs that some group has still to consume.
    pub unconsumed: u64,
    /// Its groups by name.
    pub groups: Vec<GroupStats>,
}

/// The numbers of a group.
#[derive(Clone, Debug)]
pub struct GroupStats {
    /// Its name.
    pub name: String,
    /// Its kind.
    pub kind: GroupKind,
    /// Whether it is paused.
    pub paused: bool,
    /// Where its jobs stand.
    pub counts: GroupCounts,
    /// When its oldest job was enqueued that is neither consumed nor dead, in milliseconds since
    /// the Unix epoch.
    pub oldest_wall_ms: Option<u64>,
}

impl Broker {
    /// The numbers of up to `limit` queues behind `after`, by name; also whether there are more.
    ///
    /// The counts are kept, so they cost nothing to look at. How old the oldest job of a group is
    /// stands in the log: one look there for each group, without the state lock.
    pub fn stats(&self, after: &str, limit: usize) -> Gated<(Vec<QueueStats>, bool)> {
        let seen = self.view(|turn| {
            let machine = &turn.core.machine;
            let mut ids = machine.queues_after(after).peekable();
            let (mut queues, mut groups) = (Vec::new(), 0);
            while queues.len() < limit
                && groups < GROUPS_MAX
                && let Some(id) = ids.next()
            {
                let Some((queue, oldest)) = queue_stats(machine, id) else { continue };
                groups += oldest.len();
                queues.push((id, queue, oldest));
            }
            Ok((queues, ids.peek().is_some()))
        });
        seen.map(|(queues, more)| {
            let aged = |(id, mut queue, oldest): (QueueId, QueueStats, Vec<Option<Offset>>)| {
                for (group, offset) in queue.groups.iter_mut().zip(oldest) {
                    group.oldest_wall_ms = offset.and_then(|offset| self.wall_ms_of(id, offset));
                }
                queue
            };
            (queues.into_iter().map(aged).collect(), more)
        })
    }

    /// The time of day.
    pub fn wall_ms(&self) -> u64 {
        self.clock.stamp().wall_ms
    }

    /// When a job was enqueued. A job whose entry can't be read has no age here; that it is damaged
    /// is told to whoever fetches it.
    fn wall_ms_of(&self, queue: QueueId, offset: Offset) -> Option<u64> {
        self.stamp_of(queue, offset).ok().flatten().map(|stamp| stamp.wall_ms)
    }
}

/// A queue's numbers, and for each group its oldest job that is neither consumed nor dead.
fn queue_stats(machine: &Machine, id: QueueId) -> Option<(QueueStats, Vec<Option<Offset>>)> {
    let info = machine.queue(id)?;
    let oldest = machine.groups(id).map(|group| machine.oldest_open(group.group)).collect();
    let groups = machine.groups(id).map(|group| GroupStats {
        name: group.name.to_owned(),
        kind: group.kind,
        paused: group.paused,
        counts: group.counts,
        oldest_wall_ms: None,
    });
    let queue = QueueStats {
        name: info.name.to_owned(),
        paused: info.paused,
        first: info.first,
        next: info.next,
        unconsumed: info.unconsumed,
        groups: groups.collect(),
    };
    Some((queue, oldest))
}
