//! A commit of one job with what its worker says of it: a result, and jobs that follow from it.
//!
//! The jobs and the commit are one entry of the log, so no recovery sees one without the other.

use super::Broker;
use super::error::BrokerError;
use super::gate::Gated;
use super::logs::Logs;
use super::requests::Enqueued;
use super::turn::{JobBatch, Turn};
use crate::queue::{Fact, JobRefusal, LeaseFact, Run, Runs};
use crate::types::LeaseRef;

/// One job that is committed with what its worker says of it.
#[derive(Clone, Copy, Debug)]
pub struct CommitOne<'a> {
    /// The queue.
    pub queue: &'a str,
    /// The group.
    pub group: &'a str,
    /// The job.
    pub job: LeaseRef,
    /// Its result.
    pub result: Option<&'a [u8]>,
    /// What is enqueued with the commit.
    pub jobs: Option<Following<'a>>,
}

/// Jobs that follow from a job.
#[derive(Clone, Copy, Debug)]
pub struct Following<'a> {
    /// Their queue, of the same log.
    pub queue: &'a str,
    /// Whether it may be made for them.
    pub create: bool,
    /// The jobs.
    pub batch: JobBatch<'a>,
}

/// What became of the commit of one job.
#[derive(Clone, Debug)]
pub struct CommittedOne {
    /// Of the commit itself.
    pub verdict: Result<(), JobRefusal>,
    /// The jobs that follow, if they are in their queue, now or since a commit that came before.
    pub enqueued: Option<Enqueued>,
}

impl Logs {
    /// Consumes one job, keeps its result, and enqueues what follows from it; all, or nothing.
    pub fn commit_one(&self, one: &CommitOne<'_>) -> Gated<CommittedOne> {
        let broker = self.of_both(one.queue, one.jobs.map_or(one.queue, |jobs| jobs.queue));
        Gated::from(broker).and_then(|broker| broker.commit_one(one))
    }
}

impl Broker {
    fn commit_one(&self, one: &CommitOne<'_>) -> Gated<CommittedOne> {
        let bytes = one.jobs.as_ref().map_or(0, |jobs| self.bytes_of(&jobs.batch));
        self.turn_with(bytes, |turn| {
            let fact = match turn.committed_fact(one)? {
                Ok(fact) => fact,
                Err(refusal) => {
                    let enqueued = one.jobs.filter(|_| refusal == JobRefusal::AlreadyConsumed);
                    let enqueued = enqueued.and_then(|jobs| turn.enqueued_before(&jobs));
                    return Ok(CommittedOne { verdict: Err(refusal), enqueued });
                }
            };
            let Some(Following { queue, create, batch }) = one.jobs else {
                turn.record(&fact);
                return Ok(CommittedOne { verdict: Ok(()), enqueued: None });
            };
            let create = create && self.options.auto_create;
            let enqueued = turn.enqueue(queue, create, batch, Some(&fact))?;
            Ok(CommittedOne { verdict: Ok(()), enqueued: Some(enqueued) })
        })
    }
}

impl Turn<'_> {
    /// The fact that commits a job, or why it is not to be committed.
    fn committed_fact(&self, one: &CommitOne<'_>) -> Result<Result<Fact, JobRefusal>, BrokerError> {
        let CommitOne { queue, group, job, result, .. } = *one;
        let id = self.work_group(queue, group)?;
        let machine = &self.core.machine;
        let Some(result) = result else {
            let runs = Runs::from_iter([Run { first: job.offset, count: 1 }]);
            let committed = machine.commit(id, job);
            return Ok(committed.map(|()| Fact::Lease(LeaseFact::Committed { group: id, runs })));
        };
        self.check_primary(queue, group)?;
        Ok(machine.commit_with_result(id, job, result, self.stamp.log_ms))
    }

    /// Whether a group is the one whose results are kept.
    fn check_primary(&self, queue: &str, group: &str) -> Result<(), BrokerError> {
        let machine = &self.core.machine;
        let info = machine.queue_id(queue).and_then(|id| machine.queue(id));
        let primary = info.map_or("", |info| &info.settings.primary_group);
        if primary == group {
            return Ok(());
        }
        let [queue, group, primary] = [queue, group, primary].map(str::to_owned);
        Err(BrokerError::NotPrimary { queue, group, primary })
    }

    /// Where numbered jobs are that an earlier request has enqueued.
    pub(super) fn enqueued_before(&self, jobs: &Following<'_>) -> Option<Enqueued> {
        let queue = self.core.machine.queue_id(jobs.queue)?;
        self.known(queue, &jobs.batch).ok().flatten()
    }
}
