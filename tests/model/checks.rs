//! What must hold whatever happened.

use joblog::queue::{GroupKind, JobState, Removal};
use joblog::types::{GroupId, Offset};

use crate::world::{Job, Place, World};

impl World {
    pub(crate) fn check_all(&mut self) {
        for group in self.groups.keys().copied().collect::<Vec<_>>() {
            self.check_group(group);
            self.check_infos(group);
            if self.is_keyed(group) && self.groups[&group].kind == GroupKind::Work {
                self.check_places(group);
            }
        }
        self.check_leases();
        self.check_ends();
        self.check_kept();
        self.check_ranks();
        self.check_refills();
        self.check_keys();
        let again = self.groups.values().flat_map(|group| group.jobs.values());
        let due = |job: &Job| {
            if let Place::Delayed(due) = job.place { Some(due) } else { None }
        };
        let enqueued = self.delayed.values().copied();
        assert_eq!(self.machine.next_due_log_ms(), again.filter_map(due).chain(enqueued).min());
    }

    pub(crate) fn check_leases(&self) {
        let leases = self.leases();
        assert_eq!(self.machine.lease_count(), leases.len());
        for (group, offset, lease) in leases {
            let found = self.machine.lease(group, offset).unwrap();
            let job = &self.groups[&group].jobs[&offset.0];
            assert_eq!((found.grant, found.holder), (lease.grant, lease.holder));
            assert_eq!((found.lease_ms, found.restored), (lease.lease_ms, lease.restored));
            let counts = (found.attempt, found.failures, found.crashes);
            assert_eq!(counts, (job.deliveries, job.failures, job.crashes));
        }
    }

    /// Each job is where the model says, the counts add up, and the committed offset has not gone
    /// back.
    pub(crate) fn check_group(&mut self, id: GroupId) {
        let group = self.groups.get_mut(&id).unwrap();
        let counts = self.machine.group(id).unwrap().counts;
        let (mut ready, mut leased, mut delayed, mut dead, mut consumed) = (0, 0, 0, 0, 0);
        let mut parked = 0;
        for (offset, job) in &group.jobs {
            let (count, state) = match job.place {
                Place::Fresh | Place::Again | Place::Passed | Place::AtHand => {
                    (&mut ready, JobState::Ready)
                }
                Place::Parked => (&mut parked, JobState::Parked),
                Place::Leased(_) => (&mut leased, JobState::Leased),
                Place::Delayed(due_log_ms) | Place::NotDue(due_log_ms) => {
                    (&mut delayed, JobState::Delayed { due_log_ms })
                }
                Place::Consumed => (&mut consumed, JobState::Consumed),
                Place::Dead(_) => (&mut dead, JobState::Dead),
            };
            *count += 1;
            assert_eq!(self.machine.job(id, Offset(*offset)), Some(state), "job {offset}");
        }
        assert_eq!((counts.ready, counts.leased, counts.parked), (ready, leased, parked));
        assert_eq!((counts.delayed, counts.dead), (delayed, dead));
        assert_eq!(self.machine.group(id).unwrap().paused, group.paused);
        for cause in Removal::ALL {
            let removed = group.removed.get(&(cause as usize)).copied().unwrap_or(0);
            assert_eq!(counts.removed.of(cause), removed, "{cause:?}");
        }
        let past = |job: &&Job| match job.place {
            Place::Leased(_) => job.deliveries > 1,
            Place::Again | Place::Delayed(_) => true,
            Place::Parked => job.deliveries > 0,
            Place::Fresh | Place::NotDue(_) | Place::AtHand => false,
            Place::Passed | Place::Consumed | Place::Dead(_) => false,
        };
        let marked_count = group.jobs.values().filter(past).count() as u64;
        assert_eq!(counts.marked, marked_count);
        let left = group.jobs.iter().find(|(_, job)| job.place != Place::Consumed);
        let end = self.machine.next_offset(group.queue).unwrap().0;
        let committed = left.map_or(end, |(offset, _)| *offset);
        assert_eq!(counts.committed.0, committed);
        let kept = &self.kept[&group.queue];
        let never = kept.never.range(committed..).count() as u64;
        assert_eq!(counts.consumed_above, consumed - (committed - group.start) - never);
        assert!(committed >= group.committed, "the committed offset went back");
        group.committed = committed;
        for (offset, dead) in self.machine.dead(id, Offset(0)) {
            let job = &group.jobs[&offset.0];
            let counts = (dead.attempts, dead.failures, dead.crashes);
            assert_eq!(counts, (job.deliveries, job.failures, job.crashes));
            assert_eq!(job.place, Place::Dead(dead.died.log_ms));
        }
        self.check_priorities(id);
    }
}
