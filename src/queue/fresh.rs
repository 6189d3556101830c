//! The pointer of a group: which jobs are fresh, and which are set aside.
//!
//! Ordinary jobs that were never delivered stand nowhere: they are those from the pointer on that
//! are not consumed and not set aside by their queue. Set aside are jobs that are not due, and
//! those with a rank, wherever they stand. The pointer rests on a fresh job or on the end of the
//! queue.

use super::group::Group;
use super::machine::Queue;
use super::{GroupKind, Machine};
use crate::types::{GroupId, Offset};

impl Machine {
    /// Counts anew what a group skips, after its pointer was set, has the ranked jobs wait that are
    /// nowhere else, and moves the pointer to a fresh job.
    pub(super) fn count_skipped(&mut self, id: GroupId) {
        let Some(group) = self.groups.get_mut(&id) else { return };
        let Some(queue) = self.queues.get(&group.queue) else { return };
        if group.kind == GroupKind::Stream {
            return;
        }
        let (floor, next_fetch) = (group.consumed.floor(), group.next_fetch);
        let consumed = &group.consumed;
        let delayed = queue.delays.within(floor, queue.next);
        let delayed = delayed.filter(|offset| !consumed.contains(*offset));
        group.enqueued_delayed = delayed.count() as u64;
        group.skipped_ahead = queue.set_aside(group, next_fetch, queue.next);
        for (offset, rank) in queue.ranks.within(floor, queue.next) {
            let is_elsewhere = group.consumed.contains(offset)
                || group.marks.contains_key(&offset)
                || group.dead.contains_key(&offset)
                || queue.delays.get(offset).is_some()
                || self.leases.get(id, offset).is_some();
            if !is_elsewhere {
                group.ranked.add_fresh(rank, offset);
            }
        }
        group.settle(queue);
    }
}

impl Queue {
    /// How many jobs from `first` to below `end` are set aside for a group, consumed ones apart.
    fn set_aside(&self, group: &Group, first: Offset, end: Offset) -> u64 {
        let open = |offset: &Offset| !group.consumed.contains(*offset);
        let ranked = self.ranks.within(first, end).map(|(offset, _)| offset).filter(open);
        let delayed = self.delays.within(first, end).filter(open);
        let delayed = delayed.filter(|offset| self.ranks.get(*offset).is_none());
        (ranked.count() + delayed.count()) as u64
    }
}

impl Group {
    /// The first fresh job from `from` on, or the end of the queue.
    pub(super) fn next_fresh(&self, queue: &Queue, from: Offset) -> Offset {
        let mut offset = from;
        loop {
            let before = offset;
            if self.holes > 0 {
                offset = self.consumed.next_absent(offset);
            }
            if self.skipped_ahead > 0 && offset < queue.next {
                offset = offset.plus(queue.delays.run_from(offset));
                offset = offset.plus(queue.ranks.run_from(offset));
            }
            if offset == before {
                return offset;
            }
        }
    }

    /// Takes the first fresh job out of those.
    pub(super) fn pass_fresh(&mut self, queue: &Queue) {
        self.next_fetch = self.next_fetch.next();
        self.settle(queue);
    }

    /// Moves the pointer over jobs that are not fresh: they are consumed, or else set aside.
    pub(super) fn settle(&mut self, queue: &Queue) {
        if self.kind == GroupKind::Work {
            let from = self.next_fetch;
            let fresh = self.next_fresh(queue, from);
            let set_aside = match self.skipped_ahead {
                0 => 0,
                _ => queue.set_aside(self, from, fresh),
            };
            self.skipped_ahead -= set_aside;
            self.holes -= fresh.0 - from.0 - set_aside;
            self.next_fetch = fresh;
        }
    }

    /// Notes that a job is consumed which was delivered, or waited elsewhere than among the fresh
    /// ones. One from the pointer on was set aside, and is a hole from now on.
    pub(super) fn consume(&mut self, offset: Offset) {
        self.remove_mark(offset);
        self.consumed.insert(offset);
        self.forget_key(offset);
        if offset >= self.next_fetch {
            self.skipped_ahead -= 1;
            self.holes += 1;
        }
    }
}
