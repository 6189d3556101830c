//! The state of all queues and groups of one log, and how a fact changes it.
//!
//! Nothing here decides: what to grant, refuse or retry stands in the fact.

use std::collections::BTreeMap;

use rustc_hash::FxHashMap;

use super::deadlines::Deadlines;
use super::group::Group;
use super::leases::Leases;
use super::schedules::Schedules;
use super::state::Queue;
use super::{Contradiction, Fact, GroupFact, GroupKind, JobFact, LeaseFact, QueueFact, Run};
use crate::types::{Grant, GroupId, Offset, QueueId, Stamp};

/// The queues and groups of one log.
///
/// A request is validated by a method that takes `&self` and gives a [`Fact`] or a refusal; the
/// fact is appended to the log and then given to [`apply`](Self::apply), as it is when the log is
/// replayed. Two requests about the same job may share an entry only if the second is validated
/// after the fact of the first was applied.
#[derive(Debug)]
pub struct Machine {
    /// Each on its own, since a place of the table costs as much whether it is taken or not.
    pub(super) queues: FxHashMap<QueueId, Box<Queue>>,
    pub(super) queue_names: BTreeMap<Box<str>, QueueId>,
    /// The next offset of each queue that was deleted, by name: offsets are never given twice.
    pub(super) retired: BTreeMap<Box<str>, Offset>,
    pub(super) groups: FxHashMap<GroupId, Group>,
    pub(super) leases: Leases,
    pub(super) deadlines: Deadlines,
    /// The time up to which delayed jobs have been made ready.
    pub(super) now: Stamp,
    pub(super) schedules: Schedules,
    /// Groups that got ready jobs since this was last taken, in the order of the events.
    pub(super) woken: Vec<GroupId>,
    pub(super) next_queue: QueueId,
    pub(super) next_group: GroupId,
    pub(super) next_grant: Grant,
    /// Jobs that somebody may have been told of and that this state does not have.
    pub(super) reserved: u64,
    /// The first offset of a queue whose name is new.
    pub(super) first_of_new: Offset,
}

impl Machine {
    /// The state of an empty log.
    pub fn new() -> Self {
        Self {
            queues: FxHashMap::default(),
            queue_names: BTreeMap::new(),
            retired: BTreeMap::new(),
            groups: FxHashMap::default(),
            leases: Leases::new(),
            deadlines: Deadlines::default(),
            now: Stamp::default(),
            schedules: Schedules::default(),
            woken: Vec::new(),
            next_queue: QueueId(1),
            next_group: GroupId(1),
            next_grant: Grant(1),
            reserved: 0,
            first_of_new: Offset(0),
        }
    }

    /// Applies a fact. `stamp` is that of its entry; `lease_now_ms` is the lease clock, from which
    /// leases run (any value while replaying, since [`rearm`](Self::rearm) follows).
    ///
    /// # Errors
    /// The fact cannot follow those before it; see [`Contradiction`].
    pub fn apply(
        &mut self,
        fact: &Fact,
        stamp: Stamp,
        lease_now_ms: u64,
    ) -> Result<(), Contradiction> {
        self.advance(stamp);
        match fact {
            Fact::Queue(fact) => self.apply_to_queue(fact, stamp),
            Fact::Group(fact) => self.apply_to_group(fact),
            Fact::Lease(fact) => self.apply_to_leases(fact, stamp, lease_now_ms),
            Fact::Job(fact) => self.apply_to_jobs(fact, stamp),
            Fact::Schedule(fact) => self.apply_to_schedule(fact, stamp),
        }
    }

    fn apply_to_queue(&mut self, fact: &QueueFact, stamp: Stamp) -> Result<(), Contradiction> {
        match fact {
            QueueFact::Created { queue, name, settings, first_offset } => {
                self.queue_created(*queue, name, settings, *first_offset, stamp)
            }
            QueueFact::Deleted { queue } => self.queue_deleted(*queue),
            QueueFact::Updated { queue, settings } => self.queue_updated(*queue, settings, stamp),
            QueueFact::Expired { queue, below } => self.expired(*queue, *below),
            QueueFact::RetentionPassed { queue } => self.kept_turned(*queue, stamp),
            QueueFact::Paused { queue, group, paused } => self.paused(*queue, *group, *paused),
            QueueFact::OffsetsReserved { count } => {
                self.reserved = *count;
                Ok(())
            }
            QueueFact::OffsetsSkipped { count } => self.offsets_skipped(*count),
        }
    }

    fn apply_to_group(&mut self, fact: &GroupFact) -> Result<(), Contradiction> {
        match fact {
            GroupFact::Created { group, queue, name, kind, start } => {
                self.group_created(*group, *queue, name, *kind, *start)
            }
            GroupFact::Deleted { group } => self.group_deleted(*group),
            GroupFact::Sought { group, to } => self.group_sought(*group, *to),
            GroupFact::CommittedThrough { group, through } => {
                self.committed_through(*group, *through)
            }
            GroupFact::KeysRead { group, runs } => self.passed(*group, runs),
        }
    }

    fn apply_to_leases(
        &mut self,
        fact: &LeaseFact,
        stamp: Stamp,
        lease_now_ms: u64,
    ) -> Result<(), Contradiction> {
        match fact {
            LeaseFact::Granted { group, holder, lease_ms, first_grant, runs } => {
                let lease_ms = lease_ms_of_slot(*group, *lease_ms)?;
                self.granted(*group, (*holder, *first_grant), lease_ms, runs, lease_now_ms)
            }
            LeaseFact::Extended { group, offset, lease_ms } => {
                let lease_ms = lease_ms_of_slot(*group, *lease_ms)?;
                let extended = self.leases.extend(*group, *offset, lease_ms, lease_now_ms);
                leased(extended, *group, *offset)
            }
            LeaseFact::Progressed { group, offset, note } => self.progressed(*group, *offset, note),
            LeaseFact::Committed { group, runs } => self.committed(*group, runs),
            LeaseFact::CommittedWithResult { group, offset, result, until_log_ms, displaced } => {
                let job = (*group, *offset);
                self.committed_with_result(job, result, *until_log_ms, *displaced)
            }
            LeaseFact::Ended { group, offset, reason, outcome, message } => {
                self.lease_ended((*group, *offset), *reason, *outcome, message, stamp)
            }
        }
    }

    fn apply_to_jobs(&mut self, fact: &JobFact, stamp: Stamp) -> Result<(), Contradiction> {
        match fact {
            JobFact::TermsSet { queue, runs } => self.termed(*queue, runs),
            JobFact::KeysHeld { queue, keys } => self.keys_held(*queue, keys),
            JobFact::UniqueHits { queue, batch, first, count, hits } => {
                self.unique_hits(*queue, *batch, (*first, *count), hits, stamp.log_ms)
            }
            JobFact::Withdrawn { queue, cause, runs } => self.withdrawn(*queue, *cause, runs),
            JobFact::Promoted { queue, runs } => self.promoted(*queue, runs),
            JobFact::DeadRetried { group, runs } => self.dead_retried(*group, runs),
            JobFact::Removed { group, cause, runs } => self.removed(*group, *cause, runs),
        }
    }

    /// Makes ready the delayed jobs that are due, and forgets what is kept for a time. No fact,
    /// since due times are facts; applying an entry does it too, with the stamp of the entry.
    pub fn advance(&mut self, now: Stamp) {
        let log_ms = now.log_ms;
        self.now = now;
        while let Some(queue) = self.deadlines.next_due(now) {
            let due = self.change(queue, |state| state.delays.take_due(now));
            self.come_due(queue, &due.unwrap_or_default());
        }
        while let Some(group) = self.deadlines.refills.pop(log_ms) {
            self.wake(group);
        }
        while let Some((queue, id)) = self.deadlines.producers.pop(log_ms) {
            let state = self.queues.get_mut(&queue);
            let check_log_ms = state.and_then(|state| state.producers.check(id, log_ms));
            self.deadlines.producers.moved((queue, id), None, check_log_ms);
        }
        while let Some(queue) = self.deadlines.results.next(log_ms) {
            self.change(queue, |state| state.results.remove_over(log_ms));
        }
        while let Some((queue, offset)) = self.deadlines.keys.pop(log_ms) {
            self.queues.get_mut(&queue).map(|state| state.unique.remove(offset));
        }
        while let Some((group, offset)) = self.deadlines.retries.pop(log_ms) {
            if let Some((state, queue, _)) = self.parts(group) {
                state.undelay(offset);
                state.come_back(queue, offset);
            }
            self.wake(group);
        }
    }

    /// Lets all leases run in full from now on, when the server is ready after a replay, and marks
    /// them as restored: their end is no crash until their worker has been heard of.
    pub fn rearm(&mut self, lease_now_ms: u64) {
        self.leases.rearm(lease_now_ms);
    }

    /// Gives no grant below `floor` from now on: the term of the start, in the upper 32 bits.
    pub fn raise_grants(&mut self, floor: Grant) {
        self.next_grant = self.next_grant.max(floor);
    }

    /// Moves to the end of `woken` the groups that got ready jobs since this was last called, each
    /// once, in the order in which it happened.
    pub fn take_woken(&mut self, woken: &mut Vec<GroupId>) {
        for group in self.woken.drain(..) {
            if let Some(state) = self.groups.get_mut(&group) {
                state.woken = false;
                woken.push(group);
            }
        }
    }

    /// A group with its queue.
    pub(super) fn of(&self, group: GroupId) -> Option<(&Group, &Queue)> {
        let state = self.groups.get(&group)?;
        Some((state, self.queues.get(&state.queue)?))
    }

    /// A group to be changed, with its queue and what waits for a time.
    pub(super) fn parts(&mut self, group: GroupId) -> Option<(&mut Group, &Queue, &mut Deadlines)> {
        let state = self.groups.get_mut(&group)?;
        let queue = self.queues.get(&state.queue)?;
        Some((state, queue, &mut self.deadlines))
    }

    /// The groups of a queue, by name.
    pub(super) fn groups_of<'a>(
        &'a self,
        queue: &'a Queue,
    ) -> impl Iterator<Item = &'a Group> + Clone {
        queue.groups.values().filter_map(|group| self.groups.get(group))
    }

    /// Of these, the work groups.
    pub(super) fn work_groups<'a>(&'a self, queue: &'a Queue) -> impl Iterator<Item = &'a Group> {
        self.groups_of(queue).filter(|group| group.kind == GroupKind::Work)
    }

    /// The ids of the groups of a queue, by name.
    pub(super) fn group_ids(&self, queue: QueueId) -> Vec<GroupId> {
        let state = self.queues.get(&queue).into_iter();
        state.flat_map(|state| state.groups.values().copied()).collect()
    }

    /// Changes a queue, and keeps in order what it waits for.
    pub(super) fn change<T>(
        &mut self,
        queue: QueueId,
        change: impl FnOnce(&mut Queue) -> T,
    ) -> Option<T> {
        let state = self.queues.get_mut(&queue)?;
        let before = state.times();
        let changed = change(state);
        self.deadlines.queue_moved(queue, before, state.times());
        Some(changed)
    }

    /// Notes that a group has got ready jobs.
    pub(super) fn wake(&mut self, group: GroupId) {
        wake(&mut self.groups, &mut self.woken, group);
    }
}

impl Default for Machine {
    fn default() -> Self {
        Self::new()
    }
}

/// Notes that a group has got ready jobs.
pub(super) fn wake(
    groups: &mut FxHashMap<GroupId, Group>,
    woken: &mut Vec<GroupId>,
    group: GroupId,
) {
    if let Some(state) = groups.get_mut(&group)
        && !std::mem::replace(&mut state.woken, true)
    {
        woken.push(group);
    }
}

/// A group of which a fact says what is only so of work groups, with its queue.
pub(super) fn work_group<'a>(
    groups: &'a mut FxHashMap<GroupId, Group>,
    queues: &'a FxHashMap<QueueId, Box<Queue>>,
    group: GroupId,
) -> Result<(&'a mut Group, &'a Queue), Contradiction> {
    let state = groups.get_mut(&group).ok_or(Contradiction::NoSuchGroup(group))?;
    let queue = queues.get(&state.queue).ok_or(Contradiction::NoSuchQueue(state.queue))?;
    match state.kind {
        GroupKind::Work => Ok((state, queue)),
        GroupKind::Stream => Err(Contradiction::WrongKind(group)),
    }
}

/// Checks that a run ends by `end`, so that walking it is bounded by what the queue holds.
pub(super) fn inside(group: GroupId, run: Run, end: Offset) -> Result<(), Contradiction> {
    match run.end() {
        Some(run_end) if run_end <= end => Ok(()),
        _ => Err(Contradiction::OutsideQueue(group, run.first)),
    }
}

/// Checks that an offset is one that the queue has given, or its next.
pub(super) fn inside_queue(
    queue: QueueId,
    offset: Offset,
    next: Offset,
) -> Result<(), Contradiction> {
    if offset <= next { Ok(()) } else { Err(Contradiction::BehindQueue { queue, offset, next }) }
}

/// Checks that there was a lease.
pub(super) fn leased(
    was_leased: bool,
    group: GroupId,
    offset: Offset,
) -> Result<(), Contradiction> {
    was_leased.then_some(()).ok_or(Contradiction::NotLeased(group, offset))
}

fn lease_ms_of_slot(group: GroupId, lease_ms: u64) -> Result<u32, Contradiction> {
    u32::try_from(lease_ms).map_err(|_| Contradiction::LeaseTooLong(group, lease_ms))
}
