//! Offsets that are reserved ahead of their use, and those that are passed over because they may
//! have been given.
//!
//! Below `fsync` somebody may be told an offset that the log then loses in a power cut. So the log
//! says ahead, durably, how many jobs may be told of that it does not have: they are *reserved*. A
//! start that finds some reserved, because the last run did not end in order, passes over as many
//! offsets in every queue, and in those that are to come. No job has ever had these: they are gone
//! for every group from the beginning.

use super::group::Group;
use super::machine::Queue;
use super::{Contradiction, Fact, GroupKind, Machine, QueueFact};
use crate::types::Offset;

impl Machine {
    /// How many jobs somebody may have been told of that this state does not have. It falls with
    /// each job.
    pub fn reserved(&self) -> u64 {
        self.reserved
    }

    /// Passes over what is reserved, at a start; none if nothing is.
    pub fn skip_reserved(&self) -> Option<Fact> {
        let count = self.reserved;
        (count > 0).then_some(Fact::Queue(QueueFact::OffsetsSkipped { count }))
    }

    pub(super) fn offsets_skipped(&mut self, count: u64) -> Result<(), Contradiction> {
        let offsets = self.queues.values().map(|queue| queue.next);
        let offsets = offsets.chain(self.retired.values().copied()).chain([self.first_of_new]);
        if offsets.max().is_some_and(|last| last.0.checked_add(count).is_none()) {
            return Err(Contradiction::OutOfOffsets { count });
        }
        self.reserved = 0;
        self.first_of_new = self.first_of_new.plus(count);
        self.retired.values_mut().for_each(|next| *next = next.plus(count));
        let ids: Vec<_> = self.queues.keys().copied().collect();
        for id in ids {
            let retained = self.first_offset(id).unwrap_or_default();
            let Some(queue) = self.queues.get_mut(&id) else { continue };
            let (first, end) = (queue.next, queue.next.plus(count));
            queue.next = end;
            queue.gone.insert_run(first, end);
            // No group comes below what is retained any more.
            queue.skipped.retain(|(_, end)| *end > retained);
            match queue.skipped.last_mut().filter(|last| last.1 == first) {
                Some(last) => last.1 = end,
                None => queue.skipped.push((first, end)),
            }
            for group in queue.groups.values() {
                if let Some(group) = self.groups.get_mut(group) {
                    group.pass_over(first, end);
                }
            }
        }
        Ok(())
    }
}

impl Queue {
    /// How many offsets above `floor` no job has had. A group has consumed all of these.
    pub(super) fn skipped_above(&self, floor: Offset) -> u64 {
        let above = self.skipped.iter().filter(|(first, _)| *first > floor);
        above.map(|(first, end)| end.0 - first.0).sum()
    }
}

impl Group {
    /// Passes over offsets at the end of the queue that no job has.
    fn pass_over(&mut self, first: Offset, end: Offset) {
        self.consumed.insert_run(first, end);
        match self.kind {
            GroupKind::Stream => self.fresh_from_floor(),
            GroupKind::Work if self.next_fetch == first => self.next_fetch = end,
            GroupKind::Work => self.holes += end.0 - first.0,
        }
    }
}
