//! Queues and groups: made, changed, set elsewhere, deleted; and offsets that are passed over.
//!
//! A setting is looked at when it is needed, so most changes of a queue need nothing more. What was
//! computed from one before is computed anew, so that a change holds for the jobs that are there.
//!
//! Below `fsync` somebody may be told an offset that the log then loses in a power cut. So the log
//! says ahead, durably, how many jobs may be told of that it does not have: they are *reserved*. A
//! start that finds some reserved, because the last run did not end in order, passes over as many
//! offsets in every queue, and in those that are to come. No job has ever had these: they are gone
//! for every group from the beginning.

use super::deadlines::QueueTimes;
use super::ending::Candidates;
use super::group::Group;
use super::keys::Keys;
use super::limits::Rate;
use super::machine::{Machine, inside_queue};
use super::state::Queue;
use super::{Contradiction, Fact, GroupFact, GroupKind, QueueFact, QueueSettings, Refusal, Start};
use crate::types::{GroupId, Offset, QueueId, Stamp};

/// Groups of one queue. What concerns all of them at once stays a short turn.
pub const QUEUE_GROUPS_MAX: usize = 1_000;

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

/// What may be done.
impl Machine {
    /// Makes a queue.
    ///
    /// # Errors
    /// [`Refusal::QueueExists`], [`Refusal::Settings`], [`Refusal::OutOfIds`].
    pub fn create_queue(&self, name: &str, settings: QueueSettings) -> Result<Fact, Refusal> {
        if let Some(queue) = self.queue_id(name) {
            let state = self.queues.get(&queue);
            let same_settings = state.is_some_and(|state| state.settings == settings);
            return Err(Refusal::QueueExists { queue, same_settings });
        }
        settings.validate()?;
        let queue = self.next_queue;
        if queue.0 == u32::MAX {
            return Err(Refusal::OutOfIds);
        }
        let first_offset = self.retired.get(name).copied().unwrap_or(self.first_of_new);
        let (name, settings) = (name.into(), Box::new(settings));
        Ok(Fact::Queue(QueueFact::Created { queue, name, settings, first_offset }))
    }

    /// Deletes a queue with its groups.
    ///
    /// # Errors
    /// [`Refusal::NoSuchQueue`].
    pub fn delete_queue(&self, queue: QueueId) -> Result<Fact, Refusal> {
        self.queues.get(&queue).ok_or(Refusal::NoSuchQueue)?;
        Ok(Fact::Queue(QueueFact::Deleted { queue }))
    }

    /// Makes a group.
    ///
    /// # Errors
    /// [`Refusal::NoSuchQueue`], [`Refusal::GroupExists`], [`Refusal::TooManyGroups`],
    /// [`Refusal::StartOutside`], [`Refusal::OutOfIds`].
    pub fn create_group(
        &self,
        queue: QueueId,
        name: &str,
        kind: GroupKind,
        start: Start,
    ) -> Result<Fact, Refusal> {
        let state = self.queues.get(&queue).ok_or(Refusal::NoSuchQueue)?;
        if let Some(&group) = state.groups.get(name) {
            return Err(Refusal::GroupExists { group });
        }
        if state.groups.len() >= QUEUE_GROUPS_MAX {
            return Err(Refusal::TooManyGroups { most: QUEUE_GROUPS_MAX });
        }
        let next = state.next;
        let first = self.first_offset(queue).unwrap_or(next);
        let start = match start {
            Start::Beginning => first,
            Start::End => next,
            Start::At(offset) if (first..=next).contains(&offset) => offset,
            Start::At(_) => return Err(Refusal::StartOutside { first, next }),
        };
        let group = self.next_group;
        if group.0 == u32::MAX {
            return Err(Refusal::OutOfIds);
        }
        Ok(Fact::Group(GroupFact::Created { group, queue, name: name.into(), kind, start }))
    }

    /// Deletes a group with its leases.
    ///
    /// # Errors
    /// [`Refusal::NoSuchGroup`].
    pub fn delete_group(&self, group: GroupId) -> Result<Fact, Refusal> {
        self.groups.get(&group).ok_or(Refusal::NoSuchGroup)?;
        Ok(Fact::Group(GroupFact::Deleted { group }))
    }

    /// Gives a queue other settings; no fact if it has them.
    ///
    /// # Errors
    /// [`Refusal::NoSuchQueue`], [`Refusal::Settings`]; [`Refusal::KeysInUse`] for what a queue
    /// says about keys, while jobs of it are to be consumed.
    pub fn update_queue(
        &self,
        queue: QueueId,
        settings: QueueSettings,
    ) -> Result<Option<Fact>, Refusal> {
        let state = self.queues.get(&queue).ok_or(Refusal::NoSuchQueue)?;
        settings.validate()?;
        if state.holds_to_keys() && !state.settings.has_key_rule_of(&settings) {
            return Err(Refusal::KeysInUse { unconsumed: state.unconsumed });
        }
        let changes = state.settings != settings;
        let settings = Box::new(settings);
        Ok(changes.then_some(Fact::Queue(QueueFact::Updated { queue, settings })))
    }

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
}

/// What the facts do.
impl Machine {
    pub(super) fn queue_created(
        &mut self,
        queue: QueueId,
        name: &str,
        settings: &QueueSettings,
        first: Offset,
        stamp: Stamp,
    ) -> Result<(), Contradiction> {
        let given = queue < self.next_queue || queue.0 == u32::MAX;
        if given || self.queue_names.contains_key(name) {
            return Err(Contradiction::QueueTwice(queue, name.into()));
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
        self.queues.insert(queue, Box::new(state));
        Ok(())
    }

    pub(super) fn queue_deleted(&mut self, queue: QueueId) -> Result<(), Contradiction> {
        self.queues.get(&queue).ok_or(Contradiction::NoSuchQueue(queue))?;
        self.group_ids(queue).into_iter().for_each(|group| drop(self.remove_group(group)));
        let state = self.queues.remove(&queue).ok_or(Contradiction::NoSuchQueue(queue))?;
        self.deadlines.queue_moved(queue, state.times(), QueueTimes::default());
        for (producer, check_log_ms) in state.producers.checks() {
            self.deadlines.producers.moved((queue, producer), Some(check_log_ms), None);
        }
        for held in state.unique.iter() {
            self.deadlines.keys.moved((queue, held.offset), held.until_log_ms, None);
        }
        self.queue_names.remove(&state.name);
        self.retired.insert(state.name, state.next);
        Ok(())
    }

    pub(super) fn queue_updated(
        &mut self,
        queue: QueueId,
        settings: &QueueSettings,
        stamp: Stamp,
    ) -> Result<(), Contradiction> {
        let state = self.queues.get(&queue).ok_or(Contradiction::NoSuchQueue(queue))?;
        let (rate, dead_kept_ms) = (state.settings.rate(), state.settings.dead_kept_ms);
        let other_keys = !state.settings.has_key_rule_of(settings);
        if other_keys && state.holds_to_keys() {
            return Err(Contradiction::KeysInUse(queue));
        }
        // What is gone without being kept stays gone; what is consumed from now on is kept.
        let begins_to_keep = !state.keeps_consumed() && settings.keep_consumed_for_ms > 0;
        let gone = begins_to_keep.then(|| self.gone(state));
        if let Some(state) = self.queues.get_mut(&queue) {
            state.settings = settings.clone();
            if let Some(gone) = gone {
                state.aging = gone.clone();
                state.gone = gone;
                state.turned_log_ms = stamp.log_ms;
            }
        }
        for group in self.group_ids(queue) {
            self.dead_kept(group, dead_kept_ms, settings.dead_kept_ms);
            self.limits_changed(group, rate);
            if let Some(state) = self.groups.get_mut(&group).filter(|_| other_keys) {
                state.keys = Keys::of_queue(settings, state.kind);
            }
            // What is allowed now may let a job go out.
            self.wake(group);
        }
        self.done(queue, Candidates::ANY);
        Ok(())
    }

    pub(super) fn group_created(
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
            return Err(Contradiction::GroupTwice(group, name.into()));
        }
        let first = self.first_offset(queue).unwrap_or_default();
        if !(first..=state.next).contains(&start) {
            return Err(Contradiction::OutsideQueue(group, start));
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
        self.seen_anew(group);
        Ok(())
    }

    pub(super) fn group_deleted(&mut self, group: GroupId) -> Result<(), Contradiction> {
        let (state, queue) = self.of(group).ok_or(Contradiction::NoSuchGroup(group))?;
        let (id, gone) = (state.queue, self.gone(queue));
        self.forget_results_from(group, Offset(0));
        let removed = self.remove_group(group);
        if let (Some(queue), Some(removed)) = (self.queues.get_mut(&id), removed) {
            queue.gone = gone;
            queue.groups.remove(&removed.name);
        }
        self.done(id, Candidates::ANY);
        Ok(())
    }

    pub(super) fn group_sought(&mut self, group: GroupId, to: Offset) -> Result<(), Contradiction> {
        let (state, queue) = self.of(group).ok_or(Contradiction::NoSuchGroup(group))?;
        inside_queue(state.queue, to, queue.next)?;
        let mut consumed = self.not_for_new(queue);
        consumed.raise(to);
        self.forget_results_from(group, to);
        self.forget_delivered(group);
        if let Some((state, queue, _)) = self.parts(group) {
            state.restart(queue, to, consumed);
        }
        self.seen_anew(group);
        Ok(())
    }

    /// Has a group that begins anew find its place, and ends what no group sees any more.
    fn seen_anew(&mut self, group: GroupId) {
        self.count_skipped(group);
        if let Some(queue) = self.queue_of(group) {
            self.done(queue, Candidates::ANY);
        }
        self.wake(group);
    }

    /// Counts anew what a group skips, after its pointer was set.
    pub(super) fn count_skipped(&mut self, id: GroupId) {
        let Self { queues, groups, leases, .. } = self;
        let Some(group) = groups.get_mut(&id) else { return };
        if let Some(queue) = queues.get(&group.queue) {
            group.count_skipped(queue, |offset| leases.get(id, offset).is_some());
        }
    }

    /// Forgets the results of jobs from an offset on, if it is the primary group to which they are
    /// new again.
    fn forget_results_from(&mut self, group: GroupId, from: Offset) {
        let queue = self.queue_of(group);
        if let Some(queue) = queue.filter(|queue| self.primary_group(*queue) == Some(group)) {
            self.change(queue, |state| state.results.remove_from(from));
        }
    }

    fn remove_group(&mut self, group: GroupId) -> Option<Group> {
        self.forget_delivered(group);
        if let Some((state, queue, deadlines)) = self.parts(group) {
            let refill_log_ms = state.refill_log_ms(queue.settings.rate());
            deadlines.refills.moved(group, refill_log_ms, None);
        }
        self.groups.remove(&group)
    }

    /// Forgets the leases of a group, and what waits for a time there.
    fn forget_delivered(&mut self, group: GroupId) {
        let Some((state, queue, deadlines)) = self.parts(group) else { return };
        for (offset, due_log_ms) in state.retries() {
            deadlines.retries.moved((group, offset), due_log_ms, None);
        }
        for (offset, job) in state.dead.from(Offset(0)) {
            let end_log_ms = job.end_log_ms(queue.settings.dead_kept_ms);
            deadlines.dead.moved((group, offset), end_log_ms, None);
        }
        if state.leased_count > 0 {
            self.leases.remove_group(group);
        }
    }

    /// Takes note of how long the dead jobs of a group are kept from now on.
    fn dead_kept(&mut self, group: GroupId, before_ms: u64, after_ms: u64) {
        let Some((state, _, deadlines)) = self.parts(group) else { return };
        for (offset, job) in state.dead.from(Offset(0)) {
            let (before, after) = (job.end_log_ms(before_ms), job.end_log_ms(after_ms));
            deadlines.dead.moved((group, offset), before, after);
        }
    }

    /// Takes note of the limits of a group's queue, as they are from now on.
    fn limits_changed(&mut self, group: GroupId, before: Option<Rate>) {
        let now_log_ms = self.now.log_ms;
        let Some((state, queue, deadlines)) = self.parts(group) else { return };
        let refill_log_ms = state.refill_log_ms(before);
        state.set_limits(&queue.settings, before, now_log_ms);
        let refilled_log_ms = state.refill_log_ms(queue.settings.rate());
        deadlines.refills.moved(group, refill_log_ms, refilled_log_ms);
    }

    pub(super) fn offsets_skipped(&mut self, count: u64) -> Result<(), Contradiction> {
        let offsets = self.queues.values().map(|queue| queue.next);
        let offsets = offsets.chain(self.retired.values().copied()).chain([self.first_of_new]);
        if offsets.max().is_some_and(|last| last.0.checked_add(count).is_none()) {
            return Err(Contradiction::OutOfOffsets(count));
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
