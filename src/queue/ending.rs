//! How jobs end: the one way out of a group, and the one way out of a queue.
//!
//! A job *leaves* a group once, when that has consumed it. There it gives up its lease, its death
//! or its place among those that wait, its past and notes, and the place of its key. It is *done*
//! in its queue when no group is owed it any more. Then its rank is forgotten and its unique key is
//! free; the queue counts what is left.
//!
//! | end | leaves from | counted as removed | wakes | expiry | unconsumed |
//! |---|---|---|---|---|---|
//! | committed | its lease | no | if keyed or was full | kept while a group waits | less so many |
//! | handed back, withdrawn | its lease | by cause | if keyed or was full | - | less so many |
//! | removed | the dead | by cause | if keyed | stays | less so many |
//! | withdrawn | all but leases | by cause | every group | goes at once | counted anew |
//! | too old | all but leases | no, by its queue | if keyed | stays | counted anew |
//! | committed through | the stream | no | no | stays | counted anew |
//!
//! What changes which groups see a job, or for how long it is kept, ends jobs too: it says to
//! [`Machine::done`] which may have.

use std::ops::Range;

use smallvec::SmallVec;

use super::machine::{Machine, inside, inside_queue, leased, work_group};
use super::state::Queue;
use super::{Contradiction, DeadJob, GroupKind, Removal, Run};
use crate::types::{GroupId, Offset, QueueId};

/// How jobs leave a group.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Exit {
    /// They were out, and are committed.
    Committed,
    /// They were out, and had been withdrawn.
    Withdrawn(Removal),
    /// They were dead.
    Dead(Removal),
}

/// Which jobs of a queue may be done.
pub(super) enum Candidates<'a> {
    /// These have left one group, so many in all.
    Left(&'a [Run], u64, Exit),
    /// These have left all groups that had not given them out.
    Withdrawn(&'a [Run]),
    /// Any of these.
    Within(Range<Offset>),
}

impl Candidates<'_> {
    /// Every job of a queue.
    pub(super) const ANY: Self = Self::Within(Offset(0)..Offset(u64::MAX));

    fn ranges(&self) -> SmallVec<[Range<Offset>; 2]> {
        match self {
            Self::Left(runs, ..) | Self::Withdrawn(runs) => {
                runs.iter().map(|r| r.range()).collect()
            }
            Self::Within(range) => [range.clone()].into_iter().collect(),
        }
    }
}

fn offsets(runs: &[Run]) -> impl Iterator<Item = Offset> {
    runs.iter().flat_map(|run| run.offsets())
}

/// The ways out.
impl Machine {
    /// Has jobs that were out, or dead, leave a group. The walk ends with the first job that was
    /// not out.
    pub(super) fn leave(
        &mut self,
        group: GroupId,
        runs: &[Run],
        exit: Exit,
    ) -> Result<(), Contradiction> {
        let state = self.groups.get_mut(&group).ok_or(Contradiction::NoSuchGroup(group))?;
        if state.kind == GroupKind::Stream {
            return Err(Contradiction::WrongKind(group));
        }
        let (queue, was_full) = (state.queue, state.is_full());
        let (were_out, cause) = match exit {
            Exit::Committed => (true, None),
            Exit::Withdrawn(cause) => (true, Some(cause)),
            Exit::Dead(cause) => (false, Some(cause)),
        };
        let mut count = 0;
        for offset in offsets(runs) {
            if were_out {
                leased(self.leases.remove(group, offset), group, offset)?;
                state.leased_count -= 1;
            }
            state.consume(offset);
            count += 1;
        }
        if let Some(cause) = cause {
            state.removed.add(cause, count);
        }
        if state.keys.is_some() || was_full && were_out {
            self.wake(group);
        }
        self.done(queue, Candidates::Left(runs, count, exit));
        Ok(())
    }

    /// Has a job leave a group, wherever it waits; nothing if it is out. Then the pointer of the
    /// group is still to be settled.
    fn leave_waiting(&mut self, group: GroupId, offset: Offset, cause: Option<Removal>) {
        if self.leases.get(group, offset).is_some() {
            return;
        }
        let was_dead = self.revive(group, offset).is_some();
        let Some((state, queue, deadlines)) = self.parts(group) else { return };
        let left = state.consume_waiting(queue, deadlines, (group, offset), was_dead);
        if let Some(cause) = cause.filter(|_| left) {
            state.removed.add(cause, 1);
        }
    }

    /// Forgets what a queue knows of those jobs that are done, and counts what is left.
    pub(super) fn done(&mut self, queue: QueueId, ended: Candidates<'_>) {
        let Some(state) = self.queues.get_mut(&queue) else { return };
        let has_indexed =
            !(state.ranks.is_empty() && state.unique.is_empty() && state.expiries.is_empty());
        match ended {
            Candidates::Left(_, count, _) if state.groups.len() == 1 => state.unconsumed -= count,
            Candidates::Left(..) | Candidates::Withdrawn(_) | Candidates::Within(_) => {
                self.count_unconsumed(queue, &ended);
            }
        }
        if has_indexed {
            self.forget_done(queue, &ended);
        }
    }

    /// Counts what some group has still to consume.
    pub(super) fn count_unconsumed(&mut self, queue: QueueId, ended: &Candidates<'_>) {
        let Some(state) = self.queues.get(&queue) else { return };
        let unconsumed = match ended {
            Candidates::Left(runs, ..) => {
                let left = offsets(runs).filter(|offset| self.all_have_consumed(state, *offset));
                state.unconsumed - left.count() as u64
            }
            Candidates::Withdrawn(_) | Candidates::Within(_) => {
                let consumed = self.consumed_by_all(state);
                state.next.0 - consumed.floor().0 - consumed.above_count()
            }
        };
        if let Some(state) = self.queues.get_mut(&queue) {
            state.unconsumed = unconsumed;
        }
    }

    fn forget_done(&mut self, queue: QueueId, ended: &Candidates<'_>) {
        let Some(state) = self.queues.get(&queue) else { return };
        let ranges = ended.ranges();
        let ranked = ranges.iter().flat_map(|range| state.ranks.within(range.start, range.end));
        let ranked = ranked.map(|(offset, _)| offset).filter(|job| !self.is_live(queue, *job));
        let ranked: Vec<_> = ranked.collect();
        let held = ranges.iter().flat_map(|range| state.unique.until_done(range.clone()));
        let held: Vec<_> = held.filter(|offset| self.is_done(state, *offset)).collect();
        let mut expiring = Vec::new();
        if matches!(ended, Candidates::Left(_, _, Exit::Committed)) {
            let all = ranges.iter().flat_map(|range| state.expiries.within(range.start, range.end));
            let nobody_waits =
                |job: &Offset| self.work_groups(state).all(|group| group.consumed.contains(*job));
            expiring.extend(all.filter(nobody_waits));
        }
        self.change(queue, |state| {
            for offset in ranked {
                state.ranks.remove(offset);
            }
            for offset in held {
                state.unique.remove(offset);
            }
            for offset in expiring {
                state.expiries.remove(offset);
            }
        });
    }

    /// Whether a job is done in the queue's primary group; without that, in all groups that see it.
    fn is_done(&self, queue: &Queue, offset: Offset) -> bool {
        let primary = queue.groups.get(&queue.settings.primary_group);
        let withdrawn = queue.withdrawn.contains(offset);
        if let Some(group) = primary.and_then(|group| self.groups.get(group)) {
            let is_stream = group.kind == GroupKind::Stream;
            return is_stream && withdrawn || group.consumed.contains(offset);
        }
        let is_seen = self.groups_of(queue).any(|group| group.start <= offset);
        let consumed = is_seen && self.all_have_consumed(queue, offset);
        queue.gone.contains(offset) || withdrawn || consumed
    }

    /// Takes a job from the dead ones; none if it is not among them.
    pub(super) fn revive(&mut self, group: GroupId, offset: Offset) -> Option<DeadJob> {
        let (state, queue, deadlines) = self.parts(group)?;
        let job = state.dead.remove(offset)?;
        let end_log_ms = job.end_log_ms(queue.settings.dead_kept_ms);
        deadlines.dead.moved((group, offset), end_log_ms, None);
        Some(job)
    }
}

/// The facts that end jobs.
impl Machine {
    pub(super) fn committed(&mut self, group: GroupId, runs: &[Run]) -> Result<(), Contradiction> {
        self.leave(group, runs, Exit::Committed)
    }

    pub(super) fn removed(
        &mut self,
        group: GroupId,
        cause: Removal,
        runs: &[Run],
    ) -> Result<(), Contradiction> {
        self.each_revived(group, runs, |_, _, _| ())?;
        self.leave(group, runs, Exit::Dead(cause))
    }

    /// Takes jobs from the dead ones, and does something with each.
    pub(super) fn each_revived(
        &mut self,
        group: GroupId,
        runs: &[Run],
        act: impl Fn(&mut Self, Offset, DeadJob),
    ) -> Result<(), Contradiction> {
        let end = work_group(&mut self.groups, &self.queues, group)?.1.next;
        for run in runs {
            inside(group, *run, end)?;
            for offset in run.offsets() {
                let job = self.revive(group, offset);
                act(self, offset, job.ok_or(Contradiction::NotDead(group, offset))?);
            }
        }
        Ok(())
    }

    pub(super) fn withdrawn(
        &mut self,
        queue: QueueId,
        cause: Removal,
        runs: &[Run],
    ) -> Result<(), Contradiction> {
        let state = self.queues.get(&queue).ok_or(Contradiction::NoSuchQueue(queue))?;
        let is_outside = |run: &&Run| run.end().is_none_or(|end| end > state.next);
        if let Some(run) = runs.iter().find(is_outside) {
            return Err(Contradiction::NoSuchJobs(queue, run.first));
        }
        let (groups, first_seen) = (self.group_ids(queue), self.first_seen(state));
        for offset in offsets(runs) {
            groups.iter().for_each(|group| self.leave_waiting(*group, offset, Some(cause)));
        }
        let freed = self.change(queue, |state| {
            let mut freed = Vec::new();
            for offset in offsets(runs) {
                state.withdrawn.insert(offset);
                if first_seen.is_none_or(|seen| offset < seen) {
                    state.gone.insert(offset);
                }
                if cause == Removal::Expired {
                    state.lapsed.insert(offset);
                }
                state.expiries.remove(offset);
                state.delays.remove(offset);
                if cause == Removal::Replaced {
                    freed.push((offset, state.unique.remove(offset)));
                }
            }
            freed
        });
        for (offset, until_log_ms) in freed.into_iter().flatten() {
            self.deadlines.keys.moved((queue, offset), until_log_ms, None);
        }
        self.done(queue, Candidates::Withdrawn(runs));
        for group in groups {
            self.settle(group);
            // An expired job may have stood before one that is ready.
            self.wake(group);
        }
        Ok(())
    }

    /// Jobs below an offset are too old, but for those that are out.
    pub(super) fn expired(&mut self, queue: QueueId, below: Offset) -> Result<(), Contradiction> {
        let state = self.queues.get(&queue).ok_or(Contradiction::NoSuchQueue(queue))?;
        inside_queue(queue, below, state.next)?;
        let unseen = self.first_seen(state).map_or(below, |seen| seen.min(below));
        let before = state.unconsumed;
        let groups = self.group_ids(queue);
        for id in &groups {
            let Some(group) = self.groups.get_mut(id) else { continue };
            if group.kind == GroupKind::Stream {
                group.consumed.raise(below);
                group.fresh_from_floor();
                continue;
            }
            let mut at = group.consumed.floor();
            while at < below {
                self.leave_waiting(*id, at, None);
                let Some(group) = self.groups.get(id) else { break };
                at = group.consumed.next_absent(at.next());
            }
        }
        self.change(queue, |state| {
            let delayed: Vec<_> = state.delays.within(Offset(0), below).collect();
            for offset in delayed {
                state.delays.remove(offset);
            }
            state.gone.raise(unseen);
        });
        for group in groups {
            self.settle(group);
            self.wake_keyed(group);
        }
        self.done(queue, Candidates::Within(Offset(0)..below));
        if let Some(state) = self.queues.get_mut(&queue) {
            state.expired += before - state.unconsumed;
        }
        Ok(())
    }

    pub(super) fn committed_through(
        &mut self,
        group: GroupId,
        through: Offset,
    ) -> Result<(), Contradiction> {
        let Some((state, known, _)) = self.parts(group) else {
            return Err(Contradiction::NoSuchGroup(group));
        };
        let before = state.consumed.floor();
        match state.kind {
            GroupKind::Work => return Err(Contradiction::WrongKind(group)),
            GroupKind::Stream if through >= known.next => {
                return Err(Contradiction::OutsideQueue(group, through));
            }
            GroupKind::Stream if through < before => {
                return Err(Contradiction::CommitBack(group, through));
            }
            GroupKind::Stream => {}
        }
        state.consumed.raise(through.next());
        state.fresh_from_floor();
        let queue = state.queue;
        self.done(queue, Candidates::Within(before..through.next()));
        Ok(())
    }

    fn settle(&mut self, group: GroupId) {
        if let Some((state, queue, _)) = self.parts(group) {
            state.settle(queue);
        }
    }

    /// Has those look again who wait for jobs of a group with keys, after one of it has moved.
    pub(super) fn wake_keyed(&mut self, group: GroupId) {
        if self.is_keyed(group) {
            self.wake(group);
        }
    }
}
