//! What a queue keeps, and what goes: jobs that are consumed, or too old, or set aside by a seek.
//!
//! A job is *live* while a group that sees it has still to consume it, while no group sees it, or
//! while the queue keeps consumed jobs for a time. What is not live is *gone*: no group, new or set
//! back, sees it again, so its bytes may be dropped at any time. That follows from the facts of
//! groups alone; compaction is not a part of the state. **Invariant:** what is gone stays gone.
//!
//! A group sees the jobs from its start on. What a new group finds gone it takes as consumed, so
//! the set of each group has all that is gone, and holes among fresh jobs are passed over.

use std::borrow::Cow;

use super::group::Group;
use super::machine::{Queue, inside_queue, take_waiting, wake};
use super::offset_set::OffsetSet;
use super::sizes::Asked;
use super::{Contradiction, Fact, GroupFact, GroupKind, Machine, QueueFact, Refusal};
use crate::types::{GroupId, Offset, QueueId, Stamp};

/// Where a group is set to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seek {
    /// To the first job that the queue still has.
    Beginning,
    /// Behind the last job.
    End,
    /// To this offset.
    To(Offset),
}

/// What is live.
impl Machine {
    /// Whether the bytes of a job may still be asked for.
    pub fn is_live(&self, queue: QueueId, offset: Offset) -> bool {
        let Some(state) = self.queues.get(&queue) else {
            return false;
        };
        if state.gone.contains(offset) {
            return false;
        }
        let mut seen = false;
        let open = self.groups_of(state).any(|group| {
            let sees = group.start <= offset;
            seen |= sees;
            sees && !group.consumed.contains(offset)
        });
        open || !seen || state.keeps_consumed()
    }

    /// The first live job from `from` on.
    pub fn next_live(&self, queue: QueueId, from: Offset) -> Option<Offset> {
        let state = self.queues.get(&queue)?;
        let unseen = state.gone.next_absent(from);
        let found = match self.first_seen(state) {
            Some(seen) if unseen >= seen && !state.keeps_consumed() => {
                let from = from.max(seen);
                self.groups_of(state).map(|group| group.consumed.next_absent(from)).min()?
            }
            _ => unseen,
        };
        Some(found).filter(|found| *found < state.next)
    }

    /// The first offset that a queue retains: that of its first live job, or of its next one.
    pub fn first_offset(&self, queue: QueueId) -> Option<Offset> {
        let state = self.queues.get(&queue)?;
        Some(self.next_live(queue, Offset(0)).unwrap_or(state.next))
    }

    fn groups_of<'a>(&'a self, queue: &'a Queue) -> impl Iterator<Item = &'a Group> + Clone {
        queue.groups.values().filter_map(|group| self.groups.get(group))
    }

    /// The lowest offset that any group of the queue sees.
    pub(super) fn first_seen(&self, queue: &Queue) -> Option<Offset> {
        self.groups_of(queue).map(|group| group.start).min()
    }

    /// What every group that sees it has consumed, and what is gone for other reasons.
    pub(super) fn consumed_by_all<'a>(&'a self, queue: &'a Queue) -> Cow<'a, OffsetSet> {
        let mut groups = self.groups_of(queue);
        let Some(first_seen) = self.first_seen(queue) else {
            return Cow::Borrowed(&queue.gone);
        };
        let all_seen = queue.gone.floor() >= first_seen;
        let common = match (groups.clone().count(), groups.next()) {
            (1, Some(only)) => Cow::Borrowed(&only.consumed),
            _ => {
                let sets = self.groups_of(queue).map(|group| &group.consumed);
                Cow::Owned(OffsetSet::intersection(sets))
            }
        };
        if all_seen { common } else { Cow::Owned(queue.gone.with_from(first_seen, &common)) }
    }

    /// What a group that begins anew takes as consumed: what is gone or withdrawn.
    pub(super) fn not_for_new(&self, queue: &Queue) -> OffsetSet {
        let mut set = self.gone(queue);
        set.add_all(&queue.withdrawn);
        set
    }

    /// What is gone.
    pub(super) fn gone(&self, queue: &Queue) -> OffsetSet {
        match queue.keeps_consumed() {
            true => queue.gone.clone(),
            false => self.consumed_by_all(queue).into_owned(),
        }
    }

    /// Counts anew what some group has still to consume.
    pub(super) fn count_unconsumed(&mut self, queue: QueueId) {
        let Some(state) = self.queues.get(&queue) else { return };
        let consumed = self.consumed_by_all(state);
        let unconsumed = state.next.0 - consumed.floor().0 - consumed.above_count();
        if let Some(state) = self.queues.get_mut(&queue) {
            state.unconsumed = unconsumed;
        }
    }

    /// Notes that `group` has consumed a job; true if it was the last to do so.
    pub(super) fn all_have_consumed(&self, queue: &Queue, offset: Offset) -> bool {
        self.groups_of(queue).all(|group| group.start > offset || group.consumed.contains(offset))
    }
}

/// Bounds.
impl Machine {
    /// Whether so many jobs may be added to a queue.
    ///
    /// # Errors
    /// [`Refusal::QueueFull`]; [`Refusal::NoSuchQueue`].
    pub fn check_room(&self, queue: QueueId, count: u32, bytes: u64) -> Result<(), Refusal> {
        let state = self.queues.get(&queue).ok_or(Refusal::NoSuchQueue)?;
        let full = |limit, most, held| Err(Refusal::QueueFull { limit, most, held });
        match state.settings.max_jobs {
            Some(most) if state.unconsumed.saturating_add(u64::from(count)) > most => {
                return full("max_jobs", most, state.unconsumed);
            }
            _ => {}
        }
        match (state.settings.max_bytes, self.unconsumed_bytes(queue)) {
            (Some(most), Some(held)) if held.saturating_add(bytes) > most => {
                full("max_bytes", most, held)
            }
            _ => Ok(()),
        }
    }

    /// The bytes from the first job on that some group has still to consume; only where
    /// `max_bytes` is set. At most a 64th of that too high, or a batch.
    pub fn unconsumed_bytes(&self, queue: QueueId) -> Option<u64> {
        let state = self.queues.get(&queue)?;
        state.settings.max_bytes?;
        let first = self.first_unconsumed(state);
        Some(if first < state.next { state.sizes.from(first) } else { 0 })
    }

    pub(super) fn sizes_asked(&self, queue: &Queue) -> Asked {
        let waiting_from = self.first_unconsumed(queue);
        let kept_from = if queue.keeps_consumed() { queue.gone.floor() } else { waiting_from };
        Asked { kept_from, waiting_from, bounded: queue.settings.max_bytes.is_some() }
    }

    fn first_unconsumed(&self, queue: &Queue) -> Offset {
        match self.first_seen(queue) {
            Some(seen) if queue.gone.floor() >= seen => {
                let floors = self.groups_of(queue).map(|group| group.consumed.floor());
                floors.min().unwrap_or_default()
            }
            _ => queue.gone.floor(),
        }
    }
}

/// Age.
impl Machine {
    /// The queues with a `max_age_ms`, with that, and those that keep consumed jobs for a time.
    pub fn retaining_queues(&self) -> (Vec<(QueueId, u64)>, Vec<QueueId>) {
        let (mut aging, mut keeping) = (Vec::new(), Vec::new());
        for (queue, state) in &self.queues {
            aging.extend(state.settings.max_age_ms.map(|max_age_ms| (*queue, max_age_ms)));
            keeping.extend(state.keeps_consumed().then_some(*queue));
        }
        aging.sort_unstable();
        keeping.sort_unstable();
        (aging, keeping)
    }

    /// Ends the jobs below an offset for all groups, but for those that are leased; at most about
    /// `jobs_max` of them. None if there is nothing to end.
    pub fn expire(&self, queue: QueueId, below: Offset, jobs_max: u64) -> Option<Fact> {
        let state = self.queues.get(&queue)?;
        let mut from = Offset(0);
        let mut last = None;
        let mut count = 0;
        while count < jobs_max
            && let Some(offset) = self.next_live(queue, from)
            && offset < below
        {
            if self.can_expire(state, offset) {
                last = Some(offset);
                count += 1;
            }
            from = offset.next();
        }
        last.map(|last| Fact::Queue(QueueFact::Expired { queue, below: last.next() }))
    }

    fn can_expire(&self, queue: &Queue, offset: Offset) -> bool {
        let mut seen = false;
        let open = queue.groups.values().any(|id| {
            let group = self.groups.get(id).filter(|group| group.start <= offset);
            seen |= group.is_some();
            let open = group.is_some_and(|group| !group.consumed.contains(offset));
            open && self.leases.get(*id, offset).is_none()
        });
        open || !seen
    }

    pub(super) fn expired(&mut self, queue: QueueId, below: Offset) -> Result<(), Contradiction> {
        let state = self.queues.get(&queue).ok_or(Contradiction::NoSuchQueue(queue))?;
        inside_queue(queue, below, state.next)?;
        let unseen = self.first_seen(state).map_or(below, |seen| seen.min(below));
        let (before, groups) = (state.unconsumed, state.groups.values().copied());
        let groups: Vec<_> = groups.collect();
        // A job that waits for its time is as any other from here on.
        let delayed: Vec<_> = state.delays.within(Offset(0), below).collect();
        delayed.into_iter().for_each(|offset| self.undelay_enqueued(queue, offset));
        for group in groups {
            self.expire_in(group, below);
            self.wake_keyed(group);
        }
        if let Some(state) = self.queues.get_mut(&queue) {
            state.gone.raise(unseen);
        }
        self.count_unconsumed(queue);
        if let Some(state) = self.queues.get_mut(&queue) {
            state.expired += before - state.unconsumed;
        }
        self.forget_ranks_within(queue, Offset(0)..below);
        self.free_keys_within(queue, ..below);
        Ok(())
    }

    fn expire_in(&mut self, id: GroupId, below: Offset) {
        let Some(group) = self.groups.get_mut(&id) else { return };
        if group.kind == GroupKind::Stream {
            group.consumed.raise(below);
            group.fresh_from_floor();
            return;
        }
        let mut at = group.consumed.floor();
        while at < below {
            if self.leases.get(id, at).is_none() {
                self.undie(id, at);
                self.consume_waiting(id, at);
            }
            let Some(group) = self.groups.get(&id) else { return };
            at = group.consumed.next_absent(at.next());
        }
    }

    /// Consumes a job that waits, fresh or again.
    fn consume_waiting(&mut self, id: GroupId, offset: Offset) {
        let Self { queues, groups, delayed, .. } = self;
        let Some(group) = groups.get_mut(&id) else { return };
        let Some(queue) = queues.get(&group.queue) else { return };
        if offset == group.next_fetch {
            group.pass_fresh(queue);
        } else {
            take_waiting(group, queue, delayed, (id, offset), false);
        }
        group.consume(offset);
    }

    /// Lets go of what was consumed one `keep_consumed_for` ago, if that is over.
    pub fn turn_kept(&self, queue: QueueId, now_log_ms: u64) -> Option<Fact> {
        let state = self.queues.get(&queue).filter(|state| state.keeps_consumed())?;
        let due_log_ms = state.turned_log_ms.saturating_add(state.settings.keep_consumed_for_ms);
        if now_log_ms < due_log_ms {
            return None;
        }
        let size = |set: &OffsetSet| (set.floor(), set.above_count());
        let consumed = self.consumed_by_all(state);
        // What is gone is consumed, so that equal sizes mean equal sets.
        (size(&consumed) != size(&state.gone))
            .then_some(Fact::Queue(QueueFact::KeptTurned { queue }))
    }

    pub(super) fn kept_turned(
        &mut self,
        queue: QueueId,
        stamp: Stamp,
    ) -> Result<(), Contradiction> {
        let state = self.queues.get(&queue).ok_or(Contradiction::NoSuchQueue(queue))?;
        let consumed = self.consumed_by_all(state).into_owned();
        let still = OffsetSet::intersection([&state.aging, &consumed].into_iter());
        let gone = state.gone.with_from(Offset(0), &still);
        if let Some(state) = self.queues.get_mut(&queue) {
            state.gone = gone;
            state.aging = consumed;
            state.turned_log_ms = stamp.log_ms;
        }
        self.forget_ranks_within(queue, Offset(0)..Offset(u64::MAX));
        Ok(())
    }
}

/// Setting groups to another place.
impl Machine {
    /// Sets a group to another place: what lies below is consumed, what lies from there on and is
    /// not gone is to be consumed, as if it had never been delivered. Its leases end.
    ///
    /// # Errors
    /// [`Refusal::NoSuchGroup`]; [`Refusal::StartOutside`] behind the end of the queue. An offset
    /// below the first that the queue retains stands for that one.
    pub fn seek(&self, group: GroupId, seek: Seek) -> Result<Fact, Refusal> {
        let state = self.groups.get(&group).ok_or(Refusal::NoSuchGroup)?;
        let next = self.next_offset(state.queue).ok_or(Refusal::NoSuchGroup)?;
        let first = self.first_offset(state.queue).unwrap_or(next);
        let to = match seek {
            Seek::Beginning => first,
            Seek::End => next,
            Seek::To(offset) if offset > next => return Err(Refusal::StartOutside { first, next }),
            Seek::To(offset) => offset.max(first),
        };
        Ok(Fact::Group(GroupFact::Sought { group, to }))
    }

    pub(super) fn group_sought(&mut self, id: GroupId, to: Offset) -> Result<(), Contradiction> {
        let queue = self.queue_of(id).ok_or(Contradiction::NoSuchGroup(id))?;
        let next = self.next_offset(queue).ok_or(Contradiction::NoSuchQueue(queue))?;
        inside_queue(queue, to, next)?;
        self.forget_results_from(id, to);
        let group = self.groups.get(&id).ok_or(Contradiction::NoSuchGroup(id))?;
        let state = self.queues.get(&queue).ok_or(Contradiction::NoSuchQueue(queue))?;
        let mut consumed = self.not_for_new(state);
        consumed.raise(to);
        if group.leased_count > 0 {
            self.leases.remove_group(id);
        }
        let dead: Vec<_> = group.dead.keys().copied().collect();
        dead.into_iter().for_each(|offset| drop(self.undie(id, offset)));
        if let Some(group) = self.groups.get_mut(&id) {
            for (offset, mark) in &group.marks {
                if let Some(due_log_ms) = mark.due_log_ms {
                    self.delayed.remove(&(due_log_ms, id, *offset));
                }
            }
            let (name, start) = (std::mem::take(&mut group.name), group.start.min(to));
            let (woken, removed, paused) = (group.woken, group.removed, group.paused);
            let (in_flight_max, bucket) = (group.in_flight_max, group.bucket);
            let kind = group.kind;
            if let Some(state) = self.queues.get(&queue) {
                *group = Group::new((queue, &state.settings), name, kind, start, consumed);
            }
            (group.woken, group.removed, group.paused) = (woken, removed, paused);
            (group.in_flight_max, group.bucket) = (in_flight_max, bucket);
        }
        self.count_skipped(id);
        self.count_unconsumed(queue);
        self.forget_ranks_within(queue, Offset(0)..Offset(u64::MAX));
        self.free_all_keys(queue);
        wake(&mut self.groups, &mut self.woken, id);
        Ok(())
    }
}

impl Queue {
    /// Whether what is consumed is kept for a time.
    pub(super) fn keeps_consumed(&self) -> bool {
        self.settings.keep_consumed_for_ms > 0
    }
}
