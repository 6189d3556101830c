//! Offsets that are reserved ahead, and passed over as after a run that did not end in order.

use joblog::queue::{Fact, QueueFact};

use crate::world::{FRESH, Job, Place, World};

impl World {
    pub(crate) fn reserve_some(&mut self) {
        let count = self.rng.below(40);
        self.record(Fact::Queue(QueueFact::OffsetsReserved { count }));
    }

    pub(crate) fn skip_reserved(&mut self) {
        if self.rng.below(2) == 0 {
            self.reserve_some();
        }
        let count = self.reserved;
        assert_eq!(self.machine.reserved(), count);
        let expected = (count > 0).then_some(Fact::Queue(QueueFact::OffsetsSkipped { count }));
        assert_eq!(self.machine.skip_reserved(), expected);
        if let Some(fact) = expected {
            self.record(fact);
            self.check_all();
            self.seen.insert("skipped");
        }
    }

    /// No job has these offsets: they are consumed for all and gone, in every queue, and no queue
    /// to come has them.
    pub(crate) fn note_skipped(&mut self, count: u64) {
        self.reserved = 0;
        self.first_of_new += count;
        for (queue, name) in &self.queues {
            let first = self.ends[name];
            let skipped = first..first + count;
            assert_eq!(self.machine.next_offset(*queue).unwrap().0, skipped.end);
            let kept = self.kept.get_mut(queue).unwrap();
            kept.gone.extend(skipped.clone());
            kept.never.extend(skipped.clone());
            for group in self.groups.values_mut().filter(|group| group.queue == *queue) {
                let consumed = |offset| (offset, Job { place: Place::Consumed, ..FRESH });
                group.jobs.extend(skipped.clone().map(consumed));
            }
        }
        self.ends.values_mut().for_each(|end| *end += count);
    }
}
