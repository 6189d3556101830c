//! COMMIT, RELEASE, FAIL and EXTEND: what a worker says of the jobs it holds.

use smallvec::SmallVec;

use super::Broker;
use super::error::BrokerError;
use super::gate::Gated;
use super::turn::Turn;
use crate::queue::{Fact, GroupKind, JobRefusal, LeaseFact, Outcome, RetryTerms};
use crate::types::{GroupId, LeaseRef, Offset};

/// Leased jobs of one group, by name.
#[derive(Clone, Debug)]
pub struct LeaseRefs<'a> {
    /// The queue.
    pub queue: &'a str,
    /// The group.
    pub group: &'a str,
    /// The jobs.
    pub jobs: SmallVec<[LeaseRef; 2]>,
}

/// What became of each job, in the order of the request.
pub type Verdicts = SmallVec<[Result<(), JobRefusal>; 2]>;

/// What became of a job that failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failed {
    /// It can be fetched again after so many milliseconds.
    Retry {
        /// Milliseconds from now.
        in_ms: u64,
    },
    /// It is dead, or was cancelled meanwhile.
    Dead,
}

/// What workers say of the jobs they hold.
impl Broker {
    /// Consumes jobs. A request that is refused as a whole has consumed none.
    pub fn commit(&self, sets: &[LeaseRefs<'_>]) -> Gated<Verdicts> {
        self.turn(|turn| turn.commit_sets(sets))
    }

    /// Consumes all jobs of a stream group through an offset. `AlreadyConsumed` is a verdict, other
    /// refusals are errors.
    pub fn commit_through(
        &self,
        queue: &str,
        group: &str,
        through: Offset,
    ) -> Gated<Result<(), JobRefusal>> {
        self.turn(|turn| {
            let id = turn.group(queue, group)?;
            let what = || format!("offset {through} of queue {queue:?}, group {group:?}");
            match turn.core.machine.commit_through(id, through) {
                Ok(fact) => {
                    turn.record(&fact);
                    Ok(Ok(()))
                }
                Err(refusal @ JobRefusal::AlreadyConsumed) => Ok(Err(refusal)),
                Err(refusal) => Err(BrokerError::Job { what: what(), refusal }),
            }
        })
    }

    /// Hands jobs back without fault, ready after `delay_ms`.
    pub fn release(&self, set: &LeaseRefs<'_>, delay_ms: u64) -> Gated<Verdicts> {
        self.turn(|turn| {
            let group = turn.work_group(set.queue, set.group)?;
            Ok(turn.release(group, &set.jobs, delay_ms))
        })
    }

    /// Hands jobs back with a reason.
    pub fn fail(
        &self,
        set: &LeaseRefs<'_>,
        retry: RetryTerms,
        reason: &str,
    ) -> Gated<SmallVec<[Result<Failed, JobRefusal>; 2]>> {
        self.turn(|turn| {
            let group = turn.work_group(set.queue, set.group)?;
            Ok(turn.fail(group, &set.jobs, retry, reason))
        })
    }

    /// Renews leases for `lease_ms` from now, and notes what their worker says of its progress.
    pub fn extend(
        &self,
        set: &LeaseRefs<'_>,
        lease_ms: u64,
        progress: Option<&str>,
    ) -> Gated<Verdicts> {
        self.turn(|turn| {
            let group = turn.work_group(set.queue, set.group)?;
            Ok(turn.extend(group, &set.jobs, lease_ms, progress))
        })
    }
}

impl Turn<'_> {
    /// The group that a worker names.
    ///
    /// # Errors
    /// `NoSuchQueue`, `NoSuchGroup`.
    pub(super) fn group(&self, queue: &str, group: &str) -> Result<GroupId, BrokerError> {
        let found = self.core.machine.group_id(self.queue(queue)?, group);
        found.ok_or_else(|| BrokerError::NoSuchGroup { queue: queue.into(), group: group.into() })
    }

    /// As [`Turn::group`], for a work group.
    ///
    /// # Errors
    /// `NoSuchQueue`, `NoSuchGroup`, `WrongGroupKind`.
    pub(super) fn work_group(&self, queue: &str, group: &str) -> Result<GroupId, BrokerError> {
        let id = self.group(queue, group)?;
        match self.core.machine.group_kind(id) {
            Some(GroupKind::Stream) => Err(BrokerError::WrongGroupKind {
                queue: queue.into(),
                group: group.into(),
                kind: "stream",
                allowed: "it has no leases: COMMIT it through an offset",
            }),
            _ => Ok(id),
        }
    }

    pub(super) fn work_groups(
        &self,
        sets: &[LeaseRefs<'_>],
    ) -> Result<SmallVec<[GroupId; 2]>, BrokerError> {
        sets.iter().map(|set| self.work_group(set.queue, set.group)).collect()
    }

    /// Consumes jobs of several groups; checks that all groups are there before it begins.
    pub(super) fn commit_sets(&mut self, sets: &[LeaseRefs<'_>]) -> Result<Verdicts, BrokerError> {
        let groups = self.work_groups(sets)?;
        let mut verdicts = Verdicts::new();
        for (set, group) in sets.iter().zip(groups) {
            self.commit(group, &set.jobs, &mut verdicts);
        }
        Ok(verdicts)
    }

    /// Consumes jobs.
    pub(super) fn commit(&mut self, group: GroupId, jobs: &[LeaseRef], verdicts: &mut Verdicts) {
        for job in jobs {
            let verdict = self.core.machine.commit(group, *job);
            if verdict.is_ok() {
                self.record_committed(group, job.offset);
            }
            verdicts.push(verdict);
        }
    }

    /// Hands jobs back without fault.
    pub(super) fn release(&mut self, group: GroupId, jobs: &[LeaseRef], delay_ms: u64) -> Verdicts {
        let release = |turn: &Self, job| {
            let now_ms = turn.stamp.log_ms;
            turn.core.machine.release(group, job, delay_ms, now_ms)
        };
        self.record_each(jobs, release)
    }

    /// Renews leases, and notes their progress if it is told.
    pub(super) fn extend(
        &mut self,
        group: GroupId,
        jobs: &[LeaseRef],
        lease_ms: u64,
        progress: Option<&str>,
    ) -> Verdicts {
        let extend = |turn: &Self, job| turn.core.machine.extend(group, job, lease_ms);
        let mut verdicts = self.record_each(jobs, extend);
        for (job, verdict) in jobs.iter().zip(&mut verdicts) {
            if let (Ok(()), Some(note)) = (&verdict, progress) {
                let noted = self.core.machine.note_progress(group, *job, note);
                *verdict = noted.map(|fact| self.record(&fact));
            }
            if verdict.is_ok() && self.core.machine.is_cancelled(group, job.offset) {
                *verdict = Err(JobRefusal::CancelRequested);
            }
        }
        verdicts
    }

    fn record_each(
        &mut self,
        jobs: &[LeaseRef],
        decide: impl Fn(&Self, LeaseRef) -> Result<Fact, JobRefusal>,
    ) -> Verdicts {
        let mut verdicts = Verdicts::new();
        for job in jobs {
            verdicts.push(decide(self, *job).map(|fact| self.record(&fact)));
        }
        verdicts
    }

    /// Hands jobs back with a reason; the retry policy decides what follows.
    pub(super) fn fail(
        &mut self,
        group: GroupId,
        jobs: &[LeaseRef],
        retry: RetryTerms,
        message: &str,
    ) -> SmallVec<[Result<Failed, JobRefusal>; 2]> {
        let now_ms = self.stamp.log_ms;
        let mut results = SmallVec::new();
        for job in jobs {
            let seed = self.core.next_seed();
            let machine = &self.core.machine;
            let decided = machine.fail(group, *job, retry, message, now_ms, seed);
            results.push(decided.map(|fact| {
                self.record(&fact);
                failed(&fact, now_ms)
            }));
        }
        results
    }
}

fn failed(fact: &Fact, now_ms: u64) -> Failed {
    let Fact::Lease(LeaseFact::Ended { outcome, .. }) = fact else {
        return Failed::Retry { in_ms: 0 };
    };
    match *outcome {
        Outcome::Dead | Outcome::Withdrawn => Failed::Dead,
        Outcome::Delayed { due_log_ms } => {
            Failed::Retry { in_ms: due_log_ms.saturating_sub(now_ms) }
        }
        Outcome::Ready => Failed::Retry { in_ms: 0 },
    }
}
