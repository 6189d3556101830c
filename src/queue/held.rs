//! Jobs that are out with a worker: committed, handed back, lost.
//!
//! The two methods that are no facts and take `&mut self` change only what no log holds: how far
//! the timing wheel has been read, and who has been heard of since the start.

use std::sync::Arc;

use smallvec::SmallVec;

use super::ending::Exit;
use super::group::Mark;
use super::leases::{LEASE_MS_MAX, LeaseSlot};
use super::machine::{Machine, leased, work_group};
use super::retry::{after_crash, after_delay, after_failure, mix};
use super::state::Queue;
use super::{
    Contradiction, DeadJob, EndReason, Fact, GroupFact, GroupKind, JobRefusal, LeaseFact, Outcome,
    Removal, RetryTerms, Run, SessionEnd, runs_of,
};
use crate::types::{Grant, GroupId, LeaseRef, Offset, SessionId, Stamp};

/// What may be done.
impl Machine {
    /// Whether the job may be committed with this grant: then a [`LeaseFact::Committed`] may name
    /// it.
    ///
    /// # Errors
    /// [`JobRefusal::AlreadyConsumed`] whatever the grant; [`JobRefusal::LeaseLost`] if the job is
    /// not consumed and the grant is not that of its lease; `BeyondEnd`, `WrongKind`,
    /// `NoSuchGroup`.
    pub fn commit(&self, group: GroupId, job: LeaseRef) -> Result<(), JobRefusal> {
        self.held(group, job).map(|_| ())
    }

    /// Commits several jobs at once: adds a result for each to `results`, and gives the fact
    /// about those that may be committed, if there are any.
    ///
    /// A job that is named twice with its grant is committed once and well both times. That makes
    /// this the safe way to commit a batch, since a fact that commits a job twice would be a
    /// [`Contradiction`](super::Contradiction).
    pub fn commit_jobs(
        &self,
        group: GroupId,
        jobs: impl IntoIterator<Item = LeaseRef>,
        results: &mut Vec<Result<(), JobRefusal>>,
    ) -> Option<Fact> {
        let mut offsets = SmallVec::<[Offset; 8]>::new();
        for job in jobs {
            let result = self.commit(group, job);
            if result.is_ok() {
                offsets.push(job.offset);
            }
            results.push(result);
        }
        let runs = runs_of(&mut offsets);
        (!runs.is_empty()).then_some(Fact::Lease(LeaseFact::Committed { group, runs }))
    }

    /// As [`commit`](Self::commit) of one job, with a result that is kept as the queue's settings
    /// say.
    ///
    /// # Errors
    /// As for [`commit`](Self::commit).
    pub fn commit_with_result(
        &self,
        group: GroupId,
        job: LeaseRef,
        result: &[u8],
        now_log_ms: u64,
    ) -> Result<Fact, JobRefusal> {
        self.commit(group, job)?;
        let (_, queue) = self.of(group).ok_or(JobRefusal::NoSuchGroup)?;
        let Queue { settings, results, .. } = queue;
        let until_log_ms = now_log_ms.saturating_add(settings.result_kept_ms);
        let displaced = results.displaced_by(job.offset, result, settings.result_bytes_max);
        let result = result.into();
        Ok(Fact::Lease(LeaseFact::CommittedWithResult {
            group,
            offset: job.offset,
            result,
            until_log_ms,
            displaced,
        }))
    }

    /// Commits a stream group through an offset.
    ///
    /// # Errors
    /// [`JobRefusal::AlreadyConsumed`] below the committed offset; `BeyondEnd`, `WrongKind`,
    /// `NoSuchGroup`.
    pub fn commit_through(&self, group: GroupId, through: Offset) -> Result<Fact, JobRefusal> {
        let (state, queue) = self.of(group).ok_or(JobRefusal::NoSuchGroup)?;
        if state.kind != GroupKind::Stream {
            return Err(JobRefusal::WrongKind);
        }
        let next = queue.next;
        if through >= next {
            return Err(JobRefusal::BeyondEnd { next });
        }
        if through < state.consumed.floor() {
            return Err(JobRefusal::AlreadyConsumed);
        }
        Ok(Fact::Group(GroupFact::CommittedThrough { group, through }))
    }

    /// Hands a job back without fault, to be ready after `delay_ms`.
    ///
    /// # Errors
    /// As for [`commit`](Self::commit).
    pub fn release(
        &self,
        group: GroupId,
        job: LeaseRef,
        delay_ms: u64,
        now_log_ms: u64,
    ) -> Result<Fact, JobRefusal> {
        let lease = self.held(group, job)?;
        Ok(self.ended(lease, EndReason::Released, after_delay(delay_ms, now_log_ms), ""))
    }

    /// Hands a job back because it failed. `message` says why; `seed` is for the jitter.
    ///
    /// # Errors
    /// As for [`commit`](Self::commit).
    pub fn fail(
        &self,
        group: GroupId,
        job: LeaseRef,
        retry: RetryTerms,
        message: &str,
        now_log_ms: u64,
        seed: u64,
    ) -> Result<Fact, JobRefusal> {
        let lease = self.held(group, job)?;
        let (state, queue) = self.of(group).ok_or(JobRefusal::NoSuchGroup)?;
        let failures = state.mark_after(job.offset, EndReason::Failed).failures;
        let noise = mix(seed, u64::from(group.0), job.offset.0);
        let outcome = after_failure(&queue.settings, retry, failures, now_log_ms, noise);
        Ok(self.ended(lease, EndReason::Failed, outcome, message))
    }

    /// Declares a leased job dead because its payload cannot be read.
    ///
    /// # Errors
    /// As for [`commit`](Self::commit).
    pub fn damage(&self, group: GroupId, job: LeaseRef, message: &str) -> Result<Fact, JobRefusal> {
        let lease = self.held(group, job)?;
        Ok(self.ended(lease, EndReason::Damaged, Outcome::Dead, message))
    }

    /// Lets a lease run for `lease_ms` from now on.
    ///
    /// # Errors
    /// As for [`commit`](Self::commit); [`JobRefusal::LeaseTooLong`].
    pub fn extend(&self, group: GroupId, job: LeaseRef, lease_ms: u64) -> Result<Fact, JobRefusal> {
        self.held(group, job)?;
        lease_fits(lease_ms)?;
        Ok(Fact::Lease(LeaseFact::Extended { group, offset: job.offset, lease_ms }))
    }

    /// Notes what a worker says of its job's progress; with an empty note, nothing any more.
    ///
    /// # Errors
    /// As for [`commit`](Self::commit).
    pub fn note_progress(
        &self,
        group: GroupId,
        job: LeaseRef,
        note: &str,
    ) -> Result<Fact, JobRefusal> {
        self.commit(group, job)?;
        Ok(Fact::Lease(LeaseFact::Progressed { group, offset: job.offset, note: note.into() }))
    }

    /// The lease of the job, if `grant` is its grant.
    fn held(&self, group: GroupId, job: LeaseRef) -> Result<&LeaseSlot, JobRefusal> {
        // The good case first: a lease implies all that is checked below.
        let LeaseRef { offset, grant } = job;
        let lease = self.leases.get(group, offset);
        if let Some(lease) = lease.filter(|lease| lease.grant == grant) {
            return Ok(lease);
        }
        let (state, queue) = self.of(group).ok_or(JobRefusal::NoSuchGroup)?;
        if state.kind != GroupKind::Work {
            return Err(JobRefusal::WrongKind);
        }
        let next = queue.next;
        if offset >= next {
            return Err(JobRefusal::BeyondEnd { next });
        }
        if state.consumed.contains(offset) {
            return Err(JobRefusal::AlreadyConsumed);
        }
        Err(JobRefusal::LeaseLost)
    }

    /// The ends of leases that are over at `lease_now_ms`, at most `limit`.
    ///
    /// A lease stays until its fact is applied, so that asking again before then gives the same
    /// facts again, and none is lost if they were not appended.
    pub fn take_expired(
        &mut self,
        lease_now_ms: u64,
        now_log_ms: u64,
        seed: u64,
        limit: usize,
    ) -> Vec<Fact> {
        let over = self.leases.over(lease_now_ms, limit);
        let mut over: Vec<_> = over.map(|l| (l.grant, l.group, l.offset)).collect();
        over.sort_unstable();
        let leases = over.iter().filter_map(|(_, group, offset)| self.leases.get(*group, *offset));
        leases
            .map(|lease| {
                let reason = EndReason::Expired { crash: !lease.restored() };
                self.crashed(lease, reason, now_log_ms, seed)
            })
            .collect()
    }

    /// The ends of all leases of a session that is over, in the order of their grants.
    pub fn end_session(
        &self,
        session: SessionId,
        end: SessionEnd,
        now_log_ms: u64,
        seed: u64,
    ) -> Vec<Fact> {
        let mut leases: Vec<_> = self.leases.of_session(session).collect();
        leases.sort_unstable_by_key(|lease| lease.grant);
        let end_of = |lease: &LeaseSlot| match end {
            SessionEnd::Goodbye => self.ended(lease, EndReason::Undelivered, Outcome::Ready, ""),
            SessionEnd::Silent => {
                let reason = EndReason::SessionLost { crash: !lease.restored() };
                self.crashed(lease, reason, now_log_ms, seed)
            }
        };
        leases.into_iter().map(end_of).collect()
    }

    /// Notes that a session is back with the leases `held`, and gives the ends of its others, in
    /// the order of their grants: their jobs never reached the worker, and are ready at once.
    ///
    /// Grants in `held` that are not leases of the session mean nothing here; they are refused
    /// when they are used.
    pub fn resume_session(&mut self, session: SessionId, held: &[Grant]) -> Vec<Fact> {
        self.leases.mark_living(session);
        let mut held = held.to_vec();
        held.sort_unstable();
        let leases = self.leases.of_session(session);
        let mut lost: Vec<_> = leases.filter(|l| held.binary_search(&l.grant).is_err()).collect();
        lost.sort_unstable_by_key(|lease| lease.grant);
        let end_of = |lease| self.ended(lease, EndReason::Undelivered, Outcome::Ready, "");
        lost.into_iter().map(end_of).collect()
    }

    /// The end of a lease whose worker was lost for `reason`.
    fn crashed(&self, lease: &LeaseSlot, reason: EndReason, now_log_ms: u64, seed: u64) -> Fact {
        let outcome = match self.of(lease.group) {
            Some((state, queue)) if reason.is_crash() => {
                let crashes = state.mark_after(lease.offset, reason).crashes;
                let noise = mix(seed, u64::from(lease.group.0), lease.offset.0);
                after_crash(&queue.settings, crashes, now_log_ms, noise)
            }
            _ => Outcome::Ready,
        };
        self.ended(lease, reason, outcome, "")
    }

    /// The end of a lease. A job that was withdrawn meanwhile has no other outcome than that.
    fn ended(&self, lease: &LeaseSlot, reason: EndReason, outcome: Outcome, message: &str) -> Fact {
        let (group, offset) = (lease.group, lease.offset);
        let withdrawn = self.withdrawal(group, offset).is_some();
        let outcome = if withdrawn { Outcome::Withdrawn } else { outcome };
        Fact::Lease(LeaseFact::Ended { group, offset, reason, outcome, message: message.into() })
    }
}

/// What the facts do.
impl Machine {
    pub(super) fn committed_with_result(
        &mut self,
        (group, offset): (GroupId, Offset),
        result: &Arc<[u8]>,
        until_log_ms: u64,
        displaced: u32,
    ) -> Result<(), Contradiction> {
        self.leave(group, &[Run { first: offset, count: 1 }], Exit::Committed)?;
        if let Some(queue) = self.queue_of(group) {
            let result = Arc::clone(result);
            self.change(queue, |state| {
                state.results.insert(offset, until_log_ms, result, displaced);
            });
        }
        Ok(())
    }

    pub(super) fn progressed(
        &mut self,
        group: GroupId,
        offset: Offset,
        note: &str,
    ) -> Result<(), Contradiction> {
        let is_leased = self.leases.get(group, offset).is_some();
        let state = self.groups.get_mut(&group).filter(|_| is_leased);
        let state = state.ok_or(Contradiction::NotLeased(group, offset))?;
        state.notes.set_progress(offset, note);
        Ok(())
    }

    pub(super) fn lease_ended(
        &mut self,
        (group, offset): (GroupId, Offset),
        reason: EndReason,
        outcome: Outcome,
        message: &str,
        stamp: Stamp,
    ) -> Result<(), Contradiction> {
        let Self { queues, groups, leases, deadlines, .. } = self;
        let (state, queue) = work_group(groups, queues, group)?;
        if outcome == Outcome::Withdrawn {
            let cause = queue.withdrawal(offset).unwrap_or(Removal::Cancelled);
            return self.leave(group, &[Run { first: offset, count: 1 }], Exit::Withdrawn(cause));
        }
        leased(leases.remove(group, offset), group, offset)?;
        let was_full = state.is_full();
        state.leased_count -= 1;
        let mut mark = state.mark_after(offset, reason);
        state.notes.set_progress(offset, "");
        if reason.is_error() {
            state.notes.set_error(offset, message);
        }
        match outcome {
            Outcome::Ready => {
                state.set_mark(offset, mark);
                state.wait_again(queue, offset);
            }
            Outcome::Delayed { due_log_ms } => {
                mark.due_log_ms = Some(due_log_ms);
                state.set_mark(offset, mark);
                deadlines.retries.moved((group, offset), None, mark.due_log_ms);
                state.step_aside(offset, false);
            }
            // The other has left the group above.
            Outcome::Dead | Outcome::Withdrawn => {
                state.forget_past(offset);
                state.step_aside(offset, true);
                let Mark { attempts, failures, crashes, .. } = mark;
                let (message, died) = (message.into(), stamp);
                let job = DeadJob { reason, message, attempts, failures, crashes, died };
                let end_log_ms = job.end_log_ms(queue.settings.dead_kept_ms);
                deadlines.dead.moved((group, offset), None, end_log_ms);
                state.dead.insert(offset, job);
            }
        }
        if was_full || outcome == Outcome::Ready || state.keys.is_some() {
            self.wake(group);
        }
        Ok(())
    }

    pub(super) fn dead_retried(
        &mut self,
        group: GroupId,
        runs: &[Run],
    ) -> Result<(), Contradiction> {
        self.each_revived(group, runs, |machine, offset, job| {
            if let Some((state, queue, _)) = machine.parts(group) {
                state.set_mark(offset, Mark { attempts: job.attempts, ..Mark::default() });
                state.come_back(queue, offset);
                state.notes.set_error(offset, &job.message);
            }
            machine.wake(group);
        })
    }
}

impl EndReason {
    /// Whether what the worker said with it is an error.
    fn is_error(self) -> bool {
        matches!(self, Self::Failed | Self::Damaged)
    }
}

/// Checks that a lease is not too long.
pub(super) fn lease_fits(lease_ms: u64) -> Result<(), JobRefusal> {
    if lease_ms > LEASE_MS_MAX { Err(JobRefusal::LeaseTooLong) } else { Ok(()) }
}
