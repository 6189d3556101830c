//! What may be done now: requests, checked against the state, become facts or refusals.
//!
//! See `machine` for what a fact does. The two methods that take `&mut self` change only what no
//! log holds: how far the timing wheel has been read, and who has been heard of since the start.

use smallvec::SmallVec;

use super::leases::{LEASE_MS_MAX, Lease};
use super::retry::{after_crash, after_delay, after_failure, mix};
use super::{
    EndReason, Fact, GroupFact, GroupKind, Holder, JobRefusal, LeaseFact, Machine, Outcome, Picked,
    QueueFact, QueueSettings, Refusal, Retry, Runs, SessionEnd, Start, push_offset,
};
use crate::types::{Grant, GroupId, Offset, QueueId, SessionId};

/// Queues and groups.
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
        Ok(Fact::Queue(QueueFact::Created { queue, name: name.into(), settings, first_offset }))
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
    /// [`Refusal::NoSuchQueue`], [`Refusal::GroupExists`], [`Refusal::StartOutside`],
    /// [`Refusal::OutOfIds`].
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
}

/// Fetching.
impl Machine {
    /// Grants the picked jobs. `first_grant` is [`next_grant`](Self::next_grant), plus the number
    /// of jobs granted by other facts of the same entry that have not been applied yet.
    ///
    /// # Errors
    /// [`JobRefusal::LeaseTooLong`].
    pub fn grant(
        &self,
        group: GroupId,
        holder: Holder,
        lease_ms: u64,
        first_grant: Grant,
        picked: &Picked,
    ) -> Result<Fact, JobRefusal> {
        lease_fits(lease_ms)?;
        Ok(Fact::Lease(LeaseFact::Granted {
            group,
            holder,
            lease_ms,
            first_grant,
            runs: picked.runs(),
        }))
    }

    /// The number that the next grant gets.
    pub fn next_grant(&self) -> Grant {
        self.next_grant
    }
}

/// Ending and extending a lease.
impl Machine {
    /// Whether the job may be committed with this grant: then a [`LeaseFact::Committed`] may name
    /// it.
    ///
    /// Here and below, no grant stands for a token that is not one of this log, and fits no lease.
    ///
    /// # Errors
    /// [`JobRefusal::AlreadyConsumed`] whatever the grant; [`JobRefusal::LeaseLost`] if the job is
    /// not consumed and the grant is not that of its lease; `BeyondEnd`, `WrongKind`,
    /// `NoSuchGroup`.
    pub fn commit(
        &self,
        group: GroupId,
        offset: Offset,
        grant: Option<Grant>,
    ) -> Result<(), JobRefusal> {
        self.held(group, offset, grant).map(|_| ())
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
        jobs: impl IntoIterator<Item = (Offset, Option<Grant>)>,
        results: &mut Vec<Result<(), JobRefusal>>,
    ) -> Option<Fact> {
        let mut offsets = SmallVec::<[Offset; 8]>::new();
        for (offset, grant) in jobs {
            let result = self.commit(group, offset, grant);
            if result.is_ok() {
                offsets.push(offset);
            }
            results.push(result);
        }
        offsets.sort_unstable();
        offsets.dedup();
        let mut runs = Runs::new();
        offsets.into_iter().for_each(|offset| push_offset(&mut runs, offset));
        (!runs.is_empty()).then_some(Fact::Lease(LeaseFact::Committed { group, runs }))
    }

    /// Commits a stream group through an offset.
    ///
    /// # Errors
    /// [`JobRefusal::AlreadyConsumed`] below the committed offset; `BeyondEnd`, `WrongKind`,
    /// `NoSuchGroup`.
    pub fn commit_through(&self, group: GroupId, through: Offset) -> Result<Fact, JobRefusal> {
        let state = self.groups.get(&group).ok_or(JobRefusal::NoSuchGroup)?;
        if state.kind != GroupKind::Stream {
            return Err(JobRefusal::WrongKind);
        }
        let next = self.next_offset(state.queue).unwrap_or_default();
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
        offset: Offset,
        grant: Option<Grant>,
        delay_ms: u64,
        now_log_ms: u64,
    ) -> Result<Fact, JobRefusal> {
        let lease = self.held(group, offset, grant)?;
        Ok(self.ended(lease, EndReason::Released, after_delay(delay_ms, now_log_ms), ""))
    }

    /// Hands a job back because it failed. `message` says why; `seed` is for the jitter.
    ///
    /// # Errors
    /// As for [`commit`](Self::commit).
    #[expect(clippy::too_many_arguments, reason = "time and seed are arguments on purpose")]
    pub fn fail(
        &self,
        group: GroupId,
        offset: Offset,
        grant: Option<Grant>,
        retry: Retry,
        message: &str,
        now_log_ms: u64,
        seed: u64,
    ) -> Result<Fact, JobRefusal> {
        let lease = self.held(group, offset, grant)?;
        let state = self.groups.get(&group).ok_or(JobRefusal::NoSuchGroup)?;
        let queue = self.queues.get(&state.queue).ok_or(JobRefusal::NoSuchGroup)?;
        let failures = state.mark_after(offset, EndReason::Failed).failures;
        let noise = mix(seed, u64::from(group.0), offset.0);
        let outcome = after_failure(&queue.settings, retry, failures, now_log_ms, noise);
        Ok(self.ended(lease, EndReason::Failed, outcome, message))
    }

    /// Declares a leased job dead because its payload cannot be read.
    ///
    /// # Errors
    /// As for [`commit`](Self::commit).
    pub fn damage(
        &self,
        group: GroupId,
        offset: Offset,
        grant: Option<Grant>,
        message: &str,
    ) -> Result<Fact, JobRefusal> {
        let lease = self.held(group, offset, grant)?;
        Ok(self.ended(lease, EndReason::Damaged, Outcome::Dead, message))
    }

    /// Lets a lease run for `lease_ms` from now on.
    ///
    /// # Errors
    /// As for [`commit`](Self::commit); [`JobRefusal::LeaseTooLong`].
    pub fn extend(
        &self,
        group: GroupId,
        offset: Offset,
        grant: Option<Grant>,
        lease_ms: u64,
    ) -> Result<Fact, JobRefusal> {
        self.held(group, offset, grant)?;
        lease_fits(lease_ms)?;
        Ok(Fact::Lease(LeaseFact::Extended { group, offset, lease_ms }))
    }

    /// The lease of the job, if `grant` is its grant.
    fn held(
        &self,
        group: GroupId,
        offset: Offset,
        grant: Option<Grant>,
    ) -> Result<&Lease, JobRefusal> {
        // The good case first: a lease implies all that is checked below.
        let lease = self.leases.get(group, offset);
        if let Some(lease) = lease.filter(|lease| Some(lease.grant) == grant) {
            return Ok(lease);
        }
        let state = self.groups.get(&group).ok_or(JobRefusal::NoSuchGroup)?;
        if state.kind != GroupKind::Work {
            return Err(JobRefusal::WrongKind);
        }
        let next = self.next_offset(state.queue).unwrap_or_default();
        if offset >= next {
            return Err(JobRefusal::BeyondEnd { next });
        }
        if state.consumed.contains(offset) {
            return Err(JobRefusal::AlreadyConsumed);
        }
        Err(JobRefusal::LeaseLost)
    }
}

/// Sessions and time.
impl Machine {
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
        let end_of = |lease: &Lease| match end {
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
    fn crashed(&self, lease: &Lease, reason: EndReason, now_log_ms: u64, seed: u64) -> Fact {
        let state = self.groups.get(&lease.group);
        let queue = state.and_then(|state| self.queues.get(&state.queue));
        let outcome = match (state, queue) {
            (Some(state), Some(queue)) if reason.is_crash() => {
                let crashes = state.mark_after(lease.offset, reason).crashes;
                let noise = mix(seed, u64::from(lease.group.0), lease.offset.0);
                after_crash(&queue.settings, crashes, now_log_ms, noise)
            }
            _ => Outcome::Ready,
        };
        self.ended(lease, reason, outcome, "")
    }

    /// The end of a lease. A job that was withdrawn meanwhile has no other outcome than that.
    fn ended(&self, lease: &Lease, reason: EndReason, outcome: Outcome, message: &str) -> Fact {
        let (group, offset) = (lease.group, lease.offset);
        let withdrawn = self.is_withdrawn(group, offset);
        let outcome = if withdrawn { Outcome::Withdrawn } else { outcome };
        Fact::Lease(LeaseFact::Ended { group, offset, reason, outcome, message: message.into() })
    }
}

fn lease_fits(lease_ms: u64) -> Result<(), JobRefusal> {
    if lease_ms > LEASE_MS_MAX { Err(JobRefusal::LeaseTooLong) } else { Ok(()) }
}
