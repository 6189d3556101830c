//! COMMIT, RELEASE, FAIL and EXTEND: what a worker says of the jobs it holds.

use smallvec::SmallVec;

use super::error::BrokerError;
use super::turn::Turn;
use crate::queue::{Fact, GroupKind, JobRefusal, LeaseFact, Outcome, Retry};
use crate::types::{Grant, GroupId, Offset};

/// One job that a worker names. No grant stands for a token that this server never gave.
#[derive(Clone, Copy, Debug)]
pub struct Held {
    /// Its offset.
    pub offset: Offset,
    /// The lease that the worker believes it has.
    pub grant: Option<Grant>,
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

impl Turn<'_> {
    /// The group that a worker names.
    ///
    /// # Errors
    /// `NoSuchQueue`, `NoSuchGroup`.
    pub(super) fn group(&self, queue: &str, group: &str) -> Result<GroupId, BrokerError> {
        let machine = &self.core.machine;
        let no_queue = || BrokerError::NoSuchQueue { queue: queue.into() };
        let queue_id = machine.queue_id(queue).ok_or_else(no_queue)?;
        machine
            .group_id(queue_id, group)
            .ok_or_else(|| BrokerError::NoSuchGroup { queue: queue.into(), group: group.into() })
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

    /// Consumes jobs.
    pub(super) fn commit(
        &mut self,
        group: GroupId,
        jobs: impl IntoIterator<Item = Held>,
        verdicts: &mut Verdicts,
    ) {
        for Held { offset, grant } in jobs {
            let verdict = self.core.machine.commit(group, offset, grant);
            if verdict.is_ok() {
                self.record_committed(group, offset);
            }
            verdicts.push(verdict);
        }
    }

    /// Hands jobs back without fault.
    pub(super) fn release(
        &mut self,
        group: GroupId,
        jobs: impl IntoIterator<Item = Held>,
        delay_ms: u64,
    ) -> Verdicts {
        let release = |turn: &Self, Held { offset, grant }| {
            let now_ms = turn.stamp.log_ms;
            turn.core.machine.release(group, offset, grant, delay_ms, now_ms)
        };
        self.record_each(jobs, release)
    }

    /// Renews leases, and notes their progress if it is told.
    pub(super) fn extend(
        &mut self,
        group: GroupId,
        jobs: impl IntoIterator<Item = Held>,
        lease_ms: u64,
        progress: Option<&str>,
    ) -> Verdicts {
        let extend = |turn: &Self, Held { offset, grant }| {
            turn.core.machine.extend(group, offset, grant, lease_ms)
        };
        let jobs: SmallVec<[Held; 2]> = jobs.into_iter().collect();
        let mut verdicts = self.record_each(jobs.iter().copied(), extend);
        for (job, verdict) in jobs.iter().zip(&mut verdicts) {
            if let (Ok(()), Some(note)) = (&verdict, progress) {
                let noted = self.core.machine.note_progress(group, job.offset, job.grant, note);
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
        jobs: impl IntoIterator<Item = Held>,
        decide: impl Fn(&Self, Held) -> Result<Fact, JobRefusal>,
    ) -> Verdicts {
        let mut verdicts = Verdicts::new();
        for job in jobs {
            verdicts.push(decide(self, job).map(|fact| self.record(&fact)));
        }
        verdicts
    }

    /// Hands jobs back with a reason; the retry policy decides what follows.
    pub(super) fn fail(
        &mut self,
        group: GroupId,
        jobs: impl IntoIterator<Item = Held>,
        retry: Retry,
        message: &str,
    ) -> SmallVec<[Result<Failed, JobRefusal>; 2]> {
        let now_ms = self.stamp.log_ms;
        let mut results = SmallVec::new();
        for Held { offset, grant } in jobs {
            let seed = self.core.next_seed();
            let machine = &self.core.machine;
            let decided = machine.fail(group, offset, grant, retry, message, now_ms, seed);
            results.push(decided.map(|fact| {
                self.record(&fact);
                failed(&fact, now_ms)
            }));
        }
        results
    }
}

fn failed(fact: &Fact, now_ms: u64) -> Failed {
    match fact {
        Fact::Lease(LeaseFact::Ended { outcome: Outcome::Dead | Outcome::Withdrawn, .. }) => {
            Failed::Dead
        }
        Fact::Lease(LeaseFact::Ended { outcome: Outcome::Delayed { due_log_ms }, .. }) => {
            Failed::Retry { in_ms: due_log_ms.saturating_sub(now_ms) }
        }
        _ => Failed::Retry { in_ms: 0 },
    }
}
