//! All that waits for a time, by when it is due.
//!
//! Every ordered set of due times is here. Whoever changes when something is due says when it was
//! due before and when it is now, so that nothing stays behind in an order.

use std::collections::BTreeSet;

use crate::types::{GroupId, Offset, ProducerId, QueueId, Stamp};

/// What waits, by kind. All but `due_wall` is in milliseconds on the clock of the log.
#[derive(Debug, Default)]
pub(super) struct Deadlines {
    /// Jobs that were handed back, until they can be fetched again.
    pub(super) retries: DueOrder<(GroupId, Offset)>,
    /// Queues with jobs that were enqueued with a due time, until the next one.
    pub(super) due_log: DueOrder<QueueId>,
    /// The same for due times on the wall clock.
    pub(super) due_wall: DueOrder<QueueId>,
    /// Queues with jobs that expire, until the next one does.
    pub(super) expiries: DueOrder<QueueId>,
    /// Queues that keep results, until the next one goes.
    pub(super) results: DueOrder<QueueId>,
    /// Groups whose buckets are empty, until they hold a job again.
    pub(super) refills: DueOrder<GroupId>,
    /// Producers, until it is looked at whether to forget them.
    pub(super) producers: DueOrder<(QueueId, ProducerId)>,
    /// Jobs that hold unique keys for a time, until those are free again.
    pub(super) keys: DueOrder<(QueueId, Offset)>,
    /// Dead jobs that are not kept for ever, until they go.
    pub(super) dead: DueOrder<(GroupId, Offset)>,
}

/// Things of one kind, by when they are due.
#[derive(Debug, Default)]
pub(super) struct DueOrder<T>(BTreeSet<(u64, T)>);

/// What a queue waits for, each by when it is due next.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct QueueTimes {
    pub(super) due_log_ms: Option<u64>,
    pub(super) due_wall_ms: Option<u64>,
    pub(super) expiry_log_ms: Option<u64>,
    pub(super) result_end_log_ms: Option<u64>,
}

impl Deadlines {
    /// A queue of which a job is due that was enqueued with a due time.
    pub(super) fn next_due(&self, now: Stamp) -> Option<QueueId> {
        self.due_log.next(now.log_ms).or_else(|| self.due_wall.next(now.wall_ms))
    }

    /// Notes that a queue which waited for some times waits for others now.
    pub(super) fn queue_moved(&mut self, queue: QueueId, before: QueueTimes, after: QueueTimes) {
        self.due_log.moved(queue, before.due_log_ms, after.due_log_ms);
        self.due_wall.moved(queue, before.due_wall_ms, after.due_wall_ms);
        self.expiries.moved(queue, before.expiry_log_ms, after.expiry_log_ms);
        self.results.moved(queue, before.result_end_log_ms, after.result_end_log_ms);
    }
}

impl<T: Copy + Ord> DueOrder<T> {
    /// Notes that what was due at one time is due at another; none for never.
    pub(super) fn moved(&mut self, what: T, before: Option<u64>, after: Option<u64>) {
        if before == after {
            return;
        }
        if let Some(ms) = before {
            self.0.remove(&(ms, what));
        }
        if let Some(ms) = after {
            self.0.insert((ms, what));
        }
    }

    /// When the first is due.
    pub(super) fn first_ms(&self) -> Option<u64> {
        self.0.first().map(|(ms, _)| *ms)
    }

    /// What is due, in order.
    pub(super) fn due(&self, now_ms: u64) -> impl Iterator<Item = T> {
        self.0.iter().take_while(move |(ms, _)| *ms <= now_ms).map(|(_, what)| *what)
    }

    /// The first that is due.
    pub(super) fn next(&self, now_ms: u64) -> Option<T> {
        self.0.first().filter(|(ms, _)| *ms <= now_ms).map(|(_, what)| *what)
    }

    /// Takes out the first that is due.
    pub(super) fn pop(&mut self, now_ms: u64) -> Option<T> {
        let next = self.next(now_ms)?;
        self.0.pop_first();
        Some(next)
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }
}
