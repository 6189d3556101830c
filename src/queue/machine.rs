//! The state of all queues and groups of one log, and how a fact changes it.
//!
//! Nothing here decides: what to grant, refuse or retry is in `requests`, and stands in the fact.

use std::collections::{BTreeMap, BTreeSet};

use rustc_hash::FxHashMap;

use super::delays::Delays;
use super::group::{Group, Mark};
use super::leases::Leases;
use super::offset_set::OffsetSet;
use super::producers::Producer;
use super::ranks::Ranks;
use super::results::Results;
use super::schedules::{ScheduleMark, Schedules};
use super::sizes::Sizes;
use super::unique::UniqueKeys;
use super::{
    Contradiction, DeadJob, EndReason, Fact, GroupFact, GroupKind, Holder, JobFact, LeaseFact,
    Outcome, QueueFact, QueueSettings, Removal, Run,
};
use crate::types::{Grant, GroupId, Offset, ProducerId, QueueId, Stamp};

/// The queues and groups of one log.
///
/// A request is validated by a method that takes `&self` and gives a [`Fact`] or a refusal; the
/// fact is appended to the log and then given to [`apply`](Self::apply), as it is when the log is
/// replayed. Two requests about the same job may share an entry only if the second is validated
/// after the fact of the first was applied.
#[derive(Debug)]
pub struct Machine {
    pub(super) queues: FxHashMap<QueueId, Queue>,
    pub(super) queue_names: BTreeMap<Box<str>, QueueId>,
    /// The next offset of each queue that was deleted, by name: offsets are never given twice.
    pub(super) retired: BTreeMap<Box<str>, Offset>,
    pub(super) groups: FxHashMap<GroupId, Group>,
    pub(super) leases: Leases,
    /// All delayed jobs by due time in `log_ms`.
    pub(super) delayed: BTreeSet<(u64, GroupId, Offset)>,
    /// The queues that have jobs enqueued with a due time, by the next one of either clock.
    pub(super) due_log: BTreeSet<(u64, QueueId)>,
    pub(super) due_wall: BTreeSet<(u64, QueueId)>,
    /// The time up to which delayed jobs have been made ready.
    pub(super) now: Stamp,
    /// When buckets that were emptied hold a job again, in `log_ms`.
    pub(super) refills: BTreeSet<(u64, GroupId)>,
    /// The queues that have jobs which expire, by the next one.
    pub(super) expiry_order: BTreeSet<(u64, QueueId)>,
    /// When to look at each producer whether to forget it, in `log_ms`.
    pub(super) producer_checks: BTreeSet<(u64, QueueId, ProducerId)>,
    /// The queues that keep results, by when the next one goes in `log_ms`.
    pub(super) result_ends: BTreeSet<(u64, QueueId)>,
    /// When the unique keys are free again that are held for a time, in `log_ms`.
    pub(super) key_ends: BTreeSet<(u64, QueueId, Offset)>,
    /// When dead jobs go, in `log_ms`, where they are not kept for ever.
    pub(super) dead_ends: BTreeSet<(u64, GroupId, Offset)>,
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

#[derive(Debug)]
pub(super) struct Queue {
    pub(super) name: Box<str>,
    pub(super) settings: QueueSettings,
    /// Jobs that are gone, whatever the groups of today have consumed; see `retention`.
    pub(super) gone: OffsetSet,
    /// Where consumed jobs are kept for a time: what was consumed at `turned_log_ms`.
    pub(super) aging: OffsetSet,
    pub(super) turned_log_ms: u64,
    /// The offset that its next job gets.
    pub(super) next: Offset,
    /// Offsets that no job has had, up to the second of each pair; see `reserved`.
    pub(super) skipped: Vec<(Offset, Offset)>,
    pub(super) groups: BTreeMap<Box<str>, GroupId>,
    /// How many jobs some group has still to consume.
    pub(super) unconsumed: u64,
    /// How many jobs were too old.
    pub(super) expired: u64,
    pub(super) sizes: Sizes,
    pub(super) delays: Delays,
    pub(super) unique: UniqueKeys,
    /// When jobs expire that do.
    pub(super) expiries: Delays,
    /// Those that have, among the withdrawn ones.
    pub(super) lapsed: OffsetSet,
    /// Jobs that stand before the ordinary ones, until they are gone.
    pub(super) ranks: Ranks,
    pub(super) producers: FxHashMap<ProducerId, Producer>,
    pub(super) results: Results,
    /// The last job of each schedule.
    pub(super) schedule_marks: BTreeMap<Box<str>, ScheduleMark>,
    /// Jobs that no group is given any more, whatever becomes of it.
    pub(super) withdrawn: OffsetSet,
    /// Whether nothing is fetched from it for now.
    pub(super) paused: bool,
}

impl Queue {
    /// A queue without jobs and groups, whose first job gets the offset `first`.
    pub(super) fn new(
        name: Box<str>,
        settings: QueueSettings,
        first: Offset,
        now_log_ms: u64,
    ) -> Self {
        Self {
            name,
            settings,
            gone: OffsetSet::new(first),
            aging: OffsetSet::new(first),
            turned_log_ms: now_log_ms,
            next: first,
            skipped: Vec::new(),
            groups: BTreeMap::new(),
            unconsumed: 0,
            expired: 0,
            sizes: Sizes::default(),
            delays: Delays::default(),
            unique: UniqueKeys::default(),
            expiries: Delays::default(),
            lapsed: OffsetSet::new(first),
            ranks: Ranks::default(),
            producers: FxHashMap::default(),
            results: Results::default(),
            schedule_marks: BTreeMap::new(),
            withdrawn: OffsetSet::new(first),
            paused: false,
        }
    }
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
            delayed: BTreeSet::new(),
            due_log: BTreeSet::new(),
            due_wall: BTreeSet::new(),
            now: Stamp::default(),
            refills: BTreeSet::new(),
            expiry_order: BTreeSet::new(),
            producer_checks: BTreeSet::new(),
            result_ends: BTreeSet::new(),
            key_ends: BTreeSet::new(),
            dead_ends: BTreeSet::new(),
            schedules: Schedules::default(),
            woken: Vec::new(),
            next_queue: QueueId(1),
            next_group: GroupId(1),
            next_grant: Grant(1),
            reserved: 0,
            first_of_new: Offset(0),
        }
    }

    /// Applies an entry of `count` jobs that start at `base`, with bodies of `bytes` in all.
    ///
    /// # Errors
    /// The entry cannot follow those before it; see [`Contradiction`].
    pub fn apply_jobs(
        &mut self,
        queue: QueueId,
        base: Offset,
        count: u32,
        bytes: u64,
        stamp: Stamp,
    ) -> Result<(), Contradiction> {
        self.advance(stamp);
        let state = self.queues.get(&queue).ok_or(Contradiction::NoSuchQueue(queue))?;
        let asked = self.sizes_asked(state);
        let state = self.queues.get_mut(&queue).ok_or(Contradiction::NoSuchQueue(queue))?;
        let next = base.0.checked_add(u64::from(count)).filter(|_| base == state.next);
        let Some(next) = next else {
            return Err(Contradiction::NotNext { queue, found: base, expected: state.next });
        };
        self.reserved = self.reserved.saturating_sub(u64::from(count));
        state.next = Offset(next);
        state.unconsumed += u64::from(count);
        state.sizes.add(base, bytes, asked);
        for group in state.groups.values() {
            wake(&mut self.groups, &mut self.woken, *group);
        }
        Ok(())
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
            QueueFact::KeptTurned { queue } => self.kept_turned(*queue, stamp),
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
            GroupFact::Passed { group, runs } => self.passed(*group, runs),
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
            JobFact::Termed { queue, runs } => self.termed(*queue, runs),
            JobFact::KeysHeld { queue, keys } => self.keys_held(*queue, keys),
            JobFact::UniqueHits { queue, batch, first, count, hits } => {
                self.unique_hits(*queue, *batch, (*first, *count), hits, stamp.log_ms)
            }
            JobFact::Withdrawn { queue, cause, runs } => self.withdrawn(*queue, *cause, runs),
            JobFact::DeadRetried { group, runs } => self.dead_retried(*group, runs),
            JobFact::Removed { group, cause, runs } => self.removed(*group, *cause, runs),
        }
    }

    /// Makes ready the delayed jobs that are due. No fact, since due times are facts;
    /// applying an entry does it too, with the stamp of the entry.
    pub fn advance(&mut self, now: Stamp) {
        let log_ms = now.log_ms;
        self.advance_delays(now);
        self.advance_refills(log_ms);
        self.forget_producers(log_ms);
        self.forget_results(log_ms);
        self.advance_keys(log_ms);
        while let Some(&(due_log_ms, group, offset)) = self.delayed.first()
            && due_log_ms <= log_ms
        {
            self.delayed.pop_first();
            if let Some(state) = self.groups.get_mut(&group)
                && let Some(queue) = self.queues.get(&state.queue)
            {
                state.undelay(offset);
                state.come_back(queue, offset);
            }
            wake(&mut self.groups, &mut self.woken, group);
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

    fn queue_created(
        &mut self,
        queue: QueueId,
        name: &str,
        settings: &QueueSettings,
        first: Offset,
        stamp: Stamp,
    ) -> Result<(), Contradiction> {
        let given = queue < self.next_queue || queue.0 == u32::MAX;
        if given || self.queue_names.contains_key(name) {
            return Err(Contradiction::QueueTwice { queue, name: name.into() });
        }
        let least = self.retired.get(name).copied().unwrap_or(self.first_of_new);
        if first < least {
            return Err(Contradiction::OffsetsTwice { queue, found: first, least });
        }
        self.retired.remove(name);
        self.next_queue = QueueId(queue.0 + 1);
        self.queue_names.insert(name.into(), queue);
        let (name, settings) = (name.into(), settings.clone());
        let state = Queue::new(name, settings, first, stamp.log_ms);
        self.queues.insert(queue, state);
        Ok(())
    }

    fn queue_deleted(&mut self, queue: QueueId) -> Result<(), Contradiction> {
        let state = self.queues.get(&queue).ok_or(Contradiction::NoSuchQueue(queue))?;
        let groups: Vec<_> = state.groups.values().copied().collect();
        groups.into_iter().for_each(|group| drop(self.remove_group(group)));
        self.forget_producers_of(queue);
        self.change_results(queue, |results| *results = Results::default());
        self.forget_keys(queue);
        let expiry = self.next_expiry(queue);
        let dues = self.next_dues(queue);
        let state = self.queues.remove(&queue).ok_or(Contradiction::NoSuchQueue(queue))?;
        self.due_changed(queue, dues);
        self.expiry_changed(queue, expiry);
        self.queue_names.remove(&state.name);
        self.retired.insert(state.name, state.next);
        Ok(())
    }

    fn group_created(
        &mut self,
        group: GroupId,
        queue: QueueId,
        name: &str,
        kind: GroupKind,
        start: Offset,
    ) -> Result<(), Contradiction> {
        let state = self.queues.get(&queue).ok_or(Contradiction::NoSuchQueue(queue))?;
        let given = group < self.next_group || group.0 == u32::MAX;
        if given || state.groups.contains_key(name) {
            return Err(Contradiction::GroupTwice { group, name: name.into() });
        }
        let first = self.first_offset(queue).unwrap_or_default();
        if !(first..=state.next).contains(&start) {
            return Err(Contradiction::OutsideQueue { group, offset: start });
        }
        let mut consumed = self.not_for_new(state);
        consumed.raise(start);
        let made = Group::new((queue, &state.settings), name.into(), kind, start, consumed);
        if let Some(state) = self.queues.get_mut(&queue) {
            state.groups.insert(name.into(), group);
        }
        self.next_group = GroupId(group.0 + 1);
        self.groups.insert(group, made);
        self.limits_changed(group, None);
        self.count_skipped(group);
        self.count_unconsumed(queue);
        self.forget_ranks_within(queue, Offset(0)..Offset(u64::MAX));
        self.free_all_keys(queue);
        wake(&mut self.groups, &mut self.woken, group);
        Ok(())
    }

    fn group_deleted(&mut self, group: GroupId) -> Result<(), Contradiction> {
        let state = self.groups.get(&group).ok_or(Contradiction::NoSuchGroup(group))?;
        let queue = state.queue;
        self.forget_results_from(group, Offset(0));
        let gone = self.queues.get(&queue).map(|queue| self.gone(queue));
        let removed = self.remove_group(group);
        if let (Some(queue), Some(gone), Some(removed)) =
            (self.queues.get_mut(&queue), gone, removed)
        {
            queue.gone = gone;
            queue.groups.remove(&removed.name);
        }
        self.count_unconsumed(queue);
        self.forget_ranks_within(queue, Offset(0)..Offset(u64::MAX));
        self.free_all_keys(queue);
        Ok(())
    }

    fn remove_group(&mut self, group: GroupId) -> Option<Group> {
        self.forget_dead_ends(group);
        self.forget_refill(group, self.rate_of(group));
        let state = self.groups.remove(&group)?;
        if state.leased_count > 0 {
            self.leases.remove_group(group);
        }
        for (offset, mark) in &state.marks {
            if let Some(due_log_ms) = mark.due_log_ms {
                self.delayed.remove(&(due_log_ms, group, *offset));
            }
        }
        Some(state)
    }

    fn granted(
        &mut self,
        group: GroupId,
        (holder, first_grant): (Holder, Grant),
        lease_ms: u32,
        runs: &[Run],
        lease_now_ms: u64,
    ) -> Result<(), Contradiction> {
        self.undelay_granted(group, runs);
        let Self { queues, groups, leases, delayed, next_grant, .. } = self;
        let state = work_group(groups, group)?;
        let queue = queues.get(&state.queue).ok_or(Contradiction::NoSuchQueue(state.queue))?;
        let mut grant = first_grant;
        if grant < *next_grant {
            return Err(Contradiction::GrantTwice { found: grant, least: *next_grant });
        }
        let (mut fresh_count, mut redelivered_count, mut ranked_count) = (0_u64, 0_u64, 0_u64);
        for run in runs {
            inside(group, *run, queue.next)?;
            for offset in run.offsets() {
                if offset == state.next_fetch {
                    state.pass_fresh(queue);
                    fresh_count += 1;
                } else if state.keys.as_mut().is_some_and(|keys| keys.grant(offset)) {
                    fresh_count += 1;
                } else if take_waiting(state, queue, delayed, (group, offset), true) {
                    let ranked = u64::from(queue.ranks.get(offset).is_some());
                    ranked_count += ranked;
                    redelivered_count += 1 - ranked;
                } else {
                    return Err(Contradiction::NotReady { group, offset });
                }
                leases.insert((group, offset), (holder, grant), lease_ms, lease_now_ms);
                let next = grant.0.checked_add(1).map(Grant);
                grant =
                    next.ok_or(Contradiction::GrantTwice { found: grant, least: *next_grant })?;
            }
        }
        *next_grant = grant;
        let count = fresh_count + redelivered_count + ranked_count;
        state.leased_count += count;
        if fresh_count != redelivered_count {
            state.fresh_owed = redelivered_count > fresh_count;
        }
        if state.bucket.is_some() {
            self.take_from_bucket(group, count);
        }
        Ok(())
    }

    /// Whether to wait for a due time is for the one who grants: the wall clock may have gone back
    /// since.
    pub(super) fn undelay_granted(&mut self, group: GroupId, runs: &[Run]) {
        let Some(queue) = self.groups.get(&group).map(|state| state.queue) else { return };
        let delays = self.queues.get(&queue).map(|state| &state.delays);
        if delays.is_none_or(|delays| delays.is_empty()) {
            return;
        }
        for run in runs {
            let end = Offset(run.first.0.saturating_add(u64::from(run.count)));
            let delays = self.queues.get(&queue).map(|state| &state.delays);
            let delayed: Vec<_> =
                delays.into_iter().flat_map(|delays| delays.within(run.first, end)).collect();
            delayed.into_iter().for_each(|offset| self.undelay_enqueued(queue, offset));
        }
    }

    pub(super) fn committed(&mut self, group: GroupId, runs: &[Run]) -> Result<(), Contradiction> {
        let state = work_group(&mut self.groups, group)?;
        let (queue, was_full) = (state.queue, state.is_full());
        let mut ended = 0;
        for run in runs {
            // The walk ends with the first job that is not leased.
            for offset in run.offsets() {
                leased(self.leases.remove(group, offset), group, offset)?;
                state.leased_count -= 1;
                state.consume(offset);
                state.said.progress.remove(&offset);
                ended += 1;
            }
        }
        self.wake_keyed(group);
        self.note_consumed(queue, runs, ended);
        self.forget_terms(queue, runs);
        if was_full {
            wake(&mut self.groups, &mut self.woken, group);
        }
        self.free_keys(queue, runs);
        Ok(())
    }

    /// Counts the jobs of `runs`, `count` in all, that no group has still to consume.
    pub(super) fn note_consumed(&mut self, queue: QueueId, runs: &[Run], count: u64) {
        let Some(state) = self.queues.get(&queue) else { return };
        let ended = match state.groups.len() {
            1 => count,
            _ => {
                let offsets = runs.iter().flat_map(|run| run.offsets());
                offsets.filter(|offset| self.all_have_consumed(state, *offset)).count() as u64
            }
        };
        if let Some(state) = self.queues.get_mut(&queue) {
            state.unconsumed -= ended;
        }
    }

    fn committed_through(&mut self, group: GroupId, through: Offset) -> Result<(), Contradiction> {
        let state = self.groups.get_mut(&group).ok_or(Contradiction::NoSuchGroup(group))?;
        if state.kind != GroupKind::Stream {
            return Err(Contradiction::WrongKind { group });
        }
        if self.queues.get(&state.queue).is_none_or(|queue| through >= queue.next) {
            return Err(Contradiction::OutsideQueue { group, offset: through });
        }
        if through < state.consumed.floor() {
            return Err(Contradiction::CommitBack { group, through });
        }
        let (queue, before) = (state.queue, state.consumed.floor());
        state.consumed.raise(through.next());
        state.fresh_from_floor();
        self.count_unconsumed(queue);
        self.forget_ranks_within(queue, before..through.next());
        self.free_keys_within(queue, ..=through);
        Ok(())
    }

    fn lease_ended(
        &mut self,
        (group, offset): (GroupId, Offset),
        reason: EndReason,
        outcome: Outcome,
        message: &str,
        stamp: Stamp,
    ) -> Result<(), Contradiction> {
        let state = work_group(&mut self.groups, group)?;
        let queue = self.queues.get(&state.queue);
        let queue = queue.ok_or(Contradiction::NoSuchQueue(state.queue))?;
        leased(self.leases.remove(group, offset), group, offset)?;
        let was_full = state.is_full();
        state.leased_count -= 1;
        let mut mark = state.mark_after(offset, reason);
        state.said.progress.remove(&offset);
        if reason.is_error() {
            state.said.failed(offset, message);
        }
        match outcome {
            Outcome::Ready => {
                state.marks.insert(offset, mark);
                state.wait_again(queue, offset);
                wake(&mut self.groups, &mut self.woken, group);
            }
            Outcome::Delayed { due_log_ms } => {
                mark.due_log_ms = Some(due_log_ms);
                state.marks.insert(offset, mark);
                state.delayed_count += 1;
                self.delayed.insert((due_log_ms, group, offset));
                state.step_aside(offset, false);
                self.wake_keyed(group);
            }
            Outcome::Dead => {
                state.remove_mark(offset);
                state.said.forget(offset);
                state.step_aside(offset, true);
                let job = DeadJob {
                    reason,
                    message: message.into(),
                    attempts: mark.attempts,
                    failures: mark.failures,
                    crashes: mark.crashes,
                    died: stamp,
                };
                self.died(group, offset, job);
                self.wake_keyed(group);
            }
            Outcome::Withdrawn => {
                let expired = queue.has_lapsed(offset);
                let cause = if expired { Removal::Expired } else { Removal::Cancelled };
                state.leave(offset, cause);
                let (queue, run) = (state.queue, Run { first: offset, count: 1 });
                self.wake_keyed(group);
                self.note_consumed(queue, &[run], 1);
                self.forget_ranks(queue, [offset]);
                self.free_keys(queue, &[run]);
            }
        }
        if was_full {
            wake(&mut self.groups, &mut self.woken, group);
        }
        Ok(())
    }
}

/// What the facts of other files need.
impl Machine {
    /// A group to which nothing was delivered yet; none if there is no such queue.
    pub(super) fn new_group(
        &self,
        queue: QueueId,
        name: Box<str>,
        (kind, start): (GroupKind, Offset),
        consumed: OffsetSet,
    ) -> Option<Group> {
        let settings = &self.queues.get(&queue)?.settings;
        Some(Group::new((queue, settings), name, kind, start, consumed))
    }

    /// Makes a job ready again that was delivered so many times.
    pub(super) fn made_ready(&mut self, group: GroupId, offset: Offset, attempts: u32) {
        if let Some(state) = self.groups.get_mut(&group)
            && let Some(queue) = self.queues.get(&state.queue)
        {
            state.marks.insert(offset, Mark { attempts, ..Mark::default() });
            state.come_back(queue, offset);
        }
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

/// Takes a job that is not a fresh ordinary one from where it waits, to be delivered if it is
/// `granted`; false if it does not wait.
///
/// A job whose due time has not come may be granted: whether to is for the one who decides.
pub(super) fn take_waiting(
    state: &mut Group,
    queue: &Queue,
    delayed: &mut BTreeSet<(u64, GroupId, Offset)>,
    (group, offset): (GroupId, Offset),
    granted: bool,
) -> bool {
    if state.take_ready(queue, offset, granted) {
        return true;
    }
    let due_log_ms = state.undelay(offset);
    due_log_ms.is_some_and(|due_log_ms| delayed.remove(&(due_log_ms, group, offset)))
}

pub(super) fn work_group(
    groups: &mut FxHashMap<GroupId, Group>,
    group: GroupId,
) -> Result<&mut Group, Contradiction> {
    let state = groups.get_mut(&group).ok_or(Contradiction::NoSuchGroup(group))?;
    match state.kind {
        GroupKind::Work => Ok(state),
        GroupKind::Stream => Err(Contradiction::WrongKind { group }),
    }
}

/// Checks that a run ends by `end`, so that walking it is bounded by what the queue holds.
pub(super) fn inside(group: GroupId, run: Run, end: Offset) -> Result<(), Contradiction> {
    match run.first.0.checked_add(u64::from(run.count)) {
        Some(run_end) if run_end <= end.0 => Ok(()),
        _ => Err(Contradiction::OutsideQueue { group, offset: run.first }),
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

fn leased(was_leased: bool, group: GroupId, offset: Offset) -> Result<(), Contradiction> {
    was_leased.then_some(()).ok_or(Contradiction::NotLeased { group, offset })
}

fn lease_ms_of_slot(group: GroupId, lease_ms: u64) -> Result<u32, Contradiction> {
    u32::try_from(lease_ms).map_err(|_| Contradiction::LeaseTooLong { group, lease_ms })
}
