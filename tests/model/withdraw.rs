//! Jobs that are cancelled or purged, and queues and groups that pause.

use joblog::queue::{CancelVerdict, Fact, GroupKind, JobFact, Removal, Run};
use joblog::types::{GroupId, Offset, QueueId};

use crate::world::{Group, Place, World};

impl World {
    fn any_queue(&mut self) -> Option<QueueId> {
        let ids: Vec<_> = self.queues.keys().copied().collect();
        self.rng.one_of(&ids)
    }

    fn work_groups(&self, queue: QueueId) -> impl Iterator<Item = &Group> {
        let groups = self.groups.values().filter(move |group| group.queue == queue);
        groups.filter(|group| group.kind == GroupKind::Work)
    }

    fn is_leased(&self, queue: QueueId, offset: u64) -> bool {
        let place = |group: &Group| group.jobs.get(&offset).map(|job| job.place.clone());
        self.work_groups(queue).any(|group| matches!(place(group), Some(Place::Leased(_))))
    }

    fn all_consumed(&self, queue: QueueId, offset: u64) -> bool {
        let consumed =
            |group: &Group| group.jobs.get(&offset).is_none_or(|job| job.place == Place::Consumed);
        self.work_groups(queue).count() > 0 && self.work_groups(queue).all(consumed)
    }

    pub(crate) fn cancel_some(&mut self) {
        let Some(queue) = self.any_queue() else {
            return;
        };
        let end = self.machine.next_offset(queue).unwrap().0;
        let kept = &self.kept[&queue];
        let first = kept.first;
        let mut meant = Vec::new();
        for _ in 0..1 + self.rng.below(3) {
            let mut out = self.leases();
            out.retain(|(group, ..)| self.groups[group].queue == queue);
            let offset = match self.rng.one_of(&out) {
                Some((_, offset, _)) if self.rng.below(3) == 0 => offset.0,
                _ => (end + 2).saturating_sub(self.rng.below(25)),
            };
            let expected = match offset {
                _ if offset >= end => CancelVerdict::NoSuchJob,
                _ if self.is_leased(queue, offset) => CancelVerdict::Requested,
                _ if offset < first || self.gone.contains(&(queue, offset)) => {
                    CancelVerdict::Consumed
                }
                _ if self.kept[&queue].gone.contains(&offset) => CancelVerdict::Consumed,
                _ if self.all_consumed(queue, offset) => CancelVerdict::Consumed,
                _ => CancelVerdict::Done,
            };
            assert_eq!(self.machine.cancel(queue, Offset(offset)), expected, "{offset}");
            if matches!(expected, CancelVerdict::Done | CancelVerdict::Requested) {
                meant.push(Offset(offset));
                self.seen.insert(if expected == CancelVerdict::Done {
                    "cancelled"
                } else {
                    "requested"
                });
            }
        }
        if let Some(fact) = self.machine.withdraw(queue, meant, Removal::Cancelled) {
            self.record(fact);
            self.check_all();
        }
    }

    pub(crate) fn purge_some(&mut self) {
        let Some(queue) = self.any_queue() else {
            return;
        };
        let end = self.machine.next_offset(queue).unwrap();
        let (from, count) = (Offset(end.0.saturating_sub(self.rng.below(40))), self.rng.below(30));
        let purge = self.machine.purge(queue, from, end, count);
        if let Some(fact) = purge.fact {
            let Fact::Job(JobFact::Withdrawn { runs, .. }) = &fact else { panic!("{fact:?}") };
            for offset in runs.iter().flat_map(|run| run.offsets()) {
                assert!(!self.is_leased(queue, offset.0) && offset >= from && offset < end);
            }
            self.record(fact);
            self.seen.insert("purged");
        }
        let first = self.kept[&queue].first;
        for offset in from.0.max(first)..purge.next.0.min(end.0) {
            let held = self.is_leased(queue, offset);
            let withdrawn = self.gone.contains(&(queue, offset));
            let gone = withdrawn || self.kept[&queue].gone.contains(&offset);
            assert!(held || gone || self.all_consumed(queue, offset));
        }
    }

    pub(crate) fn pause_some(&mut self) {
        let Some(queue) = self.any_queue() else {
            return;
        };
        let group = match self.rng.below(2) {
            0 => None,
            _ => self.any_group(GroupKind::Work).filter(|id| self.groups[id].queue == queue),
        };
        // More often off than on.
        let paused = self.rng.below(6) == 0;
        if let Some(fact) = self.machine.pause(queue, group, paused) {
            self.record(fact);
            self.seen.insert("paused");
        }
    }

    pub(crate) fn is_paused(&self, group: GroupId) -> bool {
        let state = &self.groups[&group];
        state.paused || self.paused.contains(&state.queue)
    }

    pub(crate) fn is_gone(&self, group: GroupId, offset: Offset) -> bool {
        self.gone.contains(&(self.groups[&group].queue, offset.0))
    }

    /// What every group has consumed does not expire any more.
    pub(crate) fn forget_expiry(&mut self, group: GroupId, offset: Offset) {
        let queue = self.groups[&group].queue;
        if self.all_consumed(queue, offset.0) {
            self.expiries.remove(&(queue, offset.0));
        }
    }

    pub(crate) fn note_withdrawn(&mut self, queue: QueueId, cause: Removal, runs: &[Run]) {
        for offset in runs.iter().flat_map(|run| run.offsets()) {
            assert!(self.gone.insert((queue, offset.0)), "{offset} is withdrawn twice");
            self.delayed.remove(&(queue, offset.0));
            self.expiries.remove(&(queue, offset.0));
            if cause == Removal::Replaced {
                self.free_replaced(queue, offset.0);
            }
            if cause == Removal::Expired {
                self.expired.insert((queue, offset.0));
            }
            if self.is_unseen(queue, offset.0) {
                self.kept.get_mut(&queue).unwrap().gone.insert(offset.0);
            }
            for group in self.groups.values_mut().filter(|group| group.queue == queue) {
                let Some(job) = group.jobs.get_mut(&offset.0) else { continue };
                let stays = matches!(job.place, Place::Leased(_) | Place::Consumed);
                if group.kind == GroupKind::Work && !stays {
                    job.place = Place::Consumed;
                    *group.removed.entry(cause as usize).or_default() += 1;
                }
            }
        }
        self.settle(queue);
    }

    fn is_unseen(&self, queue: QueueId, offset: u64) -> bool {
        let mut groups = self.groups.values().filter(|group| group.queue == queue);
        groups.all(|group| !group.jobs.contains_key(&offset))
    }

    pub(crate) fn note_paused(&mut self, queue: QueueId, group: Option<GroupId>, paused: bool) {
        match group {
            Some(group) => self.groups.get_mut(&group).unwrap().paused = paused,
            None if paused => assert!(self.paused.insert(queue)),
            None => assert!(self.paused.remove(&queue)),
        }
    }
}
