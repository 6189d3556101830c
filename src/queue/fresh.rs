//! The pointer of a group: which jobs are fresh, and which are set aside.
//!
//! Ordinary jobs that were never delivered stand nowhere: they are those from the pointer on that
//! are not consumed and not set aside by their queue, and cost nothing. Set aside are jobs that are
//! not due, and those with a rank, wherever they stand. The pointer rests on a fresh job or on the
//! end of the queue.

use super::GroupKind;
use super::group::Group;
use super::state::Queue;
use crate::types::Offset;

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
    /// Takes all that is not consumed as fresh: all that a stream group needs.
    pub(super) fn fresh_from_floor(&mut self) {
        self.next_fetch = self.consumed.floor();
        self.holes = self.consumed.above_count();
    }

    /// Counts anew what it skips, after its pointer was set, has the ranked jobs wait that are
    /// nowhere else, and moves the pointer to a fresh job.
    pub(super) fn count_skipped(&mut self, queue: &Queue, is_leased: impl Fn(Offset) -> bool) {
        if self.kind == GroupKind::Stream {
            return;
        }
        let floor = self.consumed.floor();
        let delayed = queue.delays.within(floor, queue.next);
        let delayed = delayed.filter(|offset| !self.consumed.contains(*offset));
        self.enqueued_delayed = delayed.count() as u64;
        self.skipped_ahead = queue.set_aside(self, self.next_fetch, queue.next);
        for (offset, rank) in queue.ranks.within(floor, queue.next) {
            let is_elsewhere = self.consumed.contains(offset)
                || self.marks.contains_key(&offset)
                || self.dead.contains(offset)
                || queue.delays.get(offset).is_some()
                || is_leased(offset);
            if !is_elsewhere {
                self.ranked.add_fresh(rank, offset);
            }
        }
        self.settle(queue);
    }

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

    /// Passes over offsets at the end of the queue that no job has.
    pub(super) fn pass_over(&mut self, first: Offset, end: Offset) {
        self.consumed.insert_run(first, end);
        match self.kind {
            GroupKind::Stream => self.fresh_from_floor(),
            GroupKind::Work if self.next_fetch == first => self.next_fetch = end,
            GroupKind::Work => self.holes += end.0 - first.0,
        }
    }

    /// How many jobs of its queue it can be given now (a stream group: read).
    pub(super) fn ready_count(&self, queue: &Queue) -> u64 {
        let fresh = queue.next.0 - self.next_fetch.0 - self.holes - self.skipped_ahead;
        let by_key = self.keys.as_ref().map_or(0, |keys| keys.ready_count());
        fresh + self.ready.len() as u64 + self.ranked.len() + by_key
    }
}
