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

use super::ending::Candidates;
use super::machine::Machine;
use super::offset_set::OffsetSet;
use super::sizes::Precision;
use super::state::Queue;
use super::{Contradiction, Fact, GroupKind, JobFact, LeaseFact, QueueFact, Refusal, Runs};
use crate::types::{GroupId, Offset, QueueId, Stamp};

impl Machine {
    /// Whether the bytes of a job may still be asked for.
    pub fn is_live(&self, queue: QueueId, offset: Offset) -> bool {
        let Some(state) = self.queues.get(&queue) else {
            return false;
        };
        if state.gone.contains(offset) {
            return false;
        }
        state.keeps_consumed() || self.is_owed(state, offset, |_| true)
    }

    /// Whether one of some groups that see a job has still to consume it, or no group sees it.
    fn is_owed(&self, queue: &Queue, offset: Offset, of: impl Fn(GroupId) -> bool) -> bool {
        let mut seen = false;
        let owed = queue.groups.values().any(|id| {
            let group = self.groups.get(id).filter(|group| group.start <= offset);
            seen |= group.is_some();
            group.is_some_and(|group| !group.consumed.contains(offset)) && of(*id)
        });
        owed || !seen
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

    /// About the bytes of the bodies of a queue's live jobs, and how many jobs these are. As sizes
    /// are not known one by one, those from the first live job on count as equally large.
    pub fn live_bytes(&self, queue: QueueId) -> (u64, u64) {
        let (Some(state), Some(first)) = (self.queues.get(&queue), self.first_offset(queue)) else {
            return (0, 0);
        };
        let skipped = state.skipped.iter().filter(|(_, end)| *end > first);
        let skipped: u64 = skipped.map(|(begin, end)| end.0 - begin.0.max(first.0)).sum();
        let jobs = (state.next.0 - first.0).saturating_sub(skipped);
        let live = match state.keeps_consumed() {
            true => jobs,
            false => state.unconsumed.min(jobs),
        };
        let bytes = u128::from(state.sizes.from(first)) * u128::from(live);
        ((bytes / u128::from(jobs.max(1))) as u64, live)
    }

    /// The first offset that a queue retains: that of its first live job, or of its next one.
    pub fn first_offset(&self, queue: QueueId) -> Option<Offset> {
        let state = self.queues.get(&queue)?;
        Some(self.next_live(queue, Offset(0)).unwrap_or(state.next))
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

    /// Whether every group that sees a job has consumed it.
    pub(super) fn all_have_consumed(&self, queue: &Queue, offset: Offset) -> bool {
        self.groups_of(queue).all(|group| group.start > offset || group.consumed.contains(offset))
    }

    /// Whether so many jobs may be added to a queue, by an entry that also frees so many.
    ///
    /// # Errors
    /// [`Refusal::QueueFull`]; [`Refusal::NeverFits`]; [`Refusal::NoSuchQueue`].
    pub fn check_room(
        &self,
        queue: QueueId,
        count: u32,
        bytes: u64,
        freed: u64,
    ) -> Result<(), Refusal> {
        let state = self.queues.get(&queue).ok_or(Refusal::NoSuchQueue)?;
        let fits = |limit, most, held: u64, asked: u64| {
            if asked > most {
                return Err(Refusal::NeverFits { limit, most, asked });
            }
            let is_full = held.saturating_add(asked) > most;
            if is_full { Err(Refusal::QueueFull { limit, most, held }) } else { Ok(()) }
        };
        if let Some(most) = state.settings.max_jobs {
            let held = state.unconsumed.saturating_sub(freed);
            fits("max_jobs", most, held, u64::from(count))?;
        }
        match (state.settings.max_bytes, self.unconsumed_bytes(queue)) {
            (Some(most), Some(held)) => fits("max_bytes", most, held, bytes),
            _ => Ok(()),
        }
    }

    /// How many jobs of a queue no group is owed any more when a fact is applied that commits some,
    /// or withdraws some that are not out.
    pub fn freed_by(&self, queue: QueueId, fact: &Fact) -> u64 {
        let Some(state) = self.queues.get(&queue) else { return 0 };
        let first_seen = self.first_seen(state);
        let committed = |offset: Offset, by| !self.is_owed(state, offset, |group| group != by);
        let is_stream = |group| self.group_kind(group) == Some(GroupKind::Stream);
        let withdrawn = |offset: Offset| {
            first_seen.is_none_or(|seen| offset < seen) || !self.is_owed(state, offset, is_stream)
        };
        let offsets =
            |runs: &'_ Runs| runs.iter().flat_map(|run| run.offsets()).collect::<Vec<_>>();
        let freed = match fact {
            Fact::Lease(LeaseFact::Committed { group, runs }) if self.is_of(*group, queue) => {
                offsets(runs).into_iter().filter(|offset| committed(*offset, *group)).count()
            }
            Fact::Lease(LeaseFact::CommittedWithResult { group, offset, .. })
                if self.is_of(*group, queue) =>
            {
                usize::from(committed(*offset, *group))
            }
            Fact::Job(JobFact::Withdrawn { queue: of, runs, .. }) if *of == queue => {
                offsets(runs).into_iter().filter(|offset| withdrawn(*offset)).count()
            }
            Fact::Queue(_) | Fact::Group(_) | Fact::Lease(_) | Fact::Job(_) | Fact::Schedule(_) => {
                0
            }
        };
        freed as u64
    }

    fn is_of(&self, group: GroupId, queue: QueueId) -> bool {
        self.groups.get(&group).is_some_and(|state| state.queue == queue)
    }

    /// The bytes from the first job on that some group has still to consume; only where
    /// `max_bytes` is set. At most a 64th of that too high, or a batch.
    pub fn unconsumed_bytes(&self, queue: QueueId) -> Option<u64> {
        let state = self.queues.get(&queue)?;
        state.settings.max_bytes?;
        let first = self.first_unconsumed(state);
        Some(if first < state.next { state.sizes.from(first) } else { 0 })
    }

    pub(super) fn precision(&self, queue: &Queue) -> Precision {
        let waiting_from = self.first_unconsumed(queue);
        let kept_from = if queue.keeps_consumed() { queue.gone.floor() } else { waiting_from };
        Precision { kept_from, waiting_from, bounded: queue.settings.max_bytes.is_some() }
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
            if self.is_owed(state, offset, |group| self.leases.get(group, offset).is_none()) {
                last = Some(offset);
                count += 1;
            }
            from = offset.next();
        }
        last.map(|last| Fact::Queue(QueueFact::Expired { queue, below: last.next() }))
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
            .then_some(Fact::Queue(QueueFact::RetentionPassed { queue }))
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
        self.done(queue, Candidates::ANY);
        Ok(())
    }
}
