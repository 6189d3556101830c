//! One job as people ask about it: where it stands for a group, and what happened to it.

use std::sync::Arc;

use super::machine::Machine;
use super::state::Queue;
use super::{DeadJob, Holder, JobState, Removal};
use crate::types::{GroupId, Offset, QueueId};

/// A lease, as people ask about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeaseView {
    /// Who holds it.
    pub holder: Holder,
    /// How long it runs from its grant, its last extension or the last start of the server.
    pub lease_ms: u64,
    /// How much of that is left.
    pub left_ms: u64,
}

/// Where a job stands, as people ask.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum JobStanding {
    /// It can be fetched.
    Ready,
    /// It waits for others of its key.
    Parked,
    /// It can be fetched later.
    Delayed {
        /// When, on the clock of the log.
        due_log_ms: u64,
    },
    /// It is out with a worker.
    Leased(LeaseView),
    /// It is not fetched again.
    Dead(DeadJob),
    /// It is consumed.
    Consumed,
    /// It was cancelled or purged.
    Cancelled,
    /// Its time was over.
    Expired,
}

/// One job, described for a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JobInfo {
    /// Where it stands.
    pub standing: JobStanding,
    /// How often it was delivered to the group; not known any more of one that is consumed.
    pub attempts: Option<u32>,
    /// How often a worker said that it failed.
    pub failures: u32,
    /// How often its worker was lost.
    pub crashes: u32,
    /// Whether it was cancelled while it is out: its worker is to stop.
    pub cancel_requested: bool,
    /// What its worker said of its progress.
    pub progress: Option<Box<str>>,
    /// What a worker said when it failed last.
    pub last_error: Option<Box<str>>,
    /// The bytes of its result, while that is kept.
    pub result_bytes: Option<u64>,
}

/// How a job ended, as far as its queue's primary group is concerned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum JobEnd {
    /// It was committed.
    Done {
        /// What its worker said of it, if it did.
        result: Option<Arc<[u8]>>,
    },
    /// It is not fetched again, until somebody retries it.
    Dead(DeadJob),
    /// It was cancelled or purged.
    Cancelled,
    /// Its time was over.
    Expired,
    /// It is consumed, and how is not known any more: without a result, or with one that is gone;
    /// or it was given up when it was dead.
    Unknown,
}

impl Machine {
    /// One job of a queue, described for a group, or, without one, for a group that nothing was
    /// delivered to; none if there is no such job yet.
    pub fn job_info(
        &self,
        queue: QueueId,
        group: Option<GroupId>,
        offset: Offset,
        lease_now_ms: u64,
    ) -> Option<JobInfo> {
        let state = self.queues.get(&queue).filter(|state| offset < state.next)?;
        let mut info = JobInfo {
            standing: self.standing((queue, state), group, offset, lease_now_ms)?,
            attempts: None,
            failures: 0,
            crashes: 0,
            cancel_requested: false,
            progress: None,
            last_error: None,
            result_bytes: state.results.get(offset).map(|result| result.len() as u64),
        };
        let of_group = group.and_then(|id| Some((id, self.groups.get(&id)?)));
        let Some((id, of_group)) = of_group else { return Some(info) };
        let mark = of_group.mark(offset);
        let counts = match &info.standing {
            JobStanding::Dead(dead) => Some((dead.attempts, dead.failures, dead.crashes)),
            JobStanding::Leased(_) => Some((mark.attempts + 1, mark.failures, mark.crashes)),
            JobStanding::Ready | JobStanding::Parked | JobStanding::Delayed { .. } => {
                Some((mark.attempts, mark.failures, mark.crashes))
            }
            JobStanding::Consumed | JobStanding::Cancelled | JobStanding::Expired => None,
        };
        info.attempts = counts.map(|(attempts, ..)| attempts);
        (info.failures, info.crashes) = counts.map_or((0, 0), |(_, f, c)| (f, c));
        let is_leased = matches!(info.standing, JobStanding::Leased(_));
        info.cancel_requested = is_leased && self.is_cancelled(id, offset);
        let (progress, last_error) = of_group.notes.of(offset);
        (info.progress, info.last_error) = (progress.map(Into::into), last_error.map(Into::into));
        Some(info)
    }

    fn standing(
        &self,
        (queue, state): (QueueId, &Queue),
        group: Option<GroupId>,
        offset: Offset,
        lease_now_ms: u64,
    ) -> Option<JobStanding> {
        let withdrawn = || match state.withdrawal(offset) {
            None => JobStanding::Consumed,
            Some(Removal::Expired) => JobStanding::Expired,
            Some(_) => JobStanding::Cancelled,
        };
        let Some(group) = group else {
            let is_withdrawn = state.withdrawn.contains(offset);
            return Some(match self.enqueued_due_log_ms(state, offset) {
                _ if is_withdrawn || !self.is_live(queue, offset) => withdrawn(),
                Some(due_log_ms) => JobStanding::Delayed { due_log_ms },
                None => JobStanding::Ready,
            });
        };
        Some(match self.job(group, offset)? {
            JobState::Ready => JobStanding::Ready,
            JobState::Parked => JobStanding::Parked,
            JobState::Delayed { due_log_ms } => JobStanding::Delayed { due_log_ms },
            JobState::Leased => {
                let lease = self.leases.get(group, offset)?;
                let left_ms = lease.deadline_ms().saturating_sub(lease_now_ms);
                let (holder, lease_ms) = (self.leases.holder(lease), lease.lease_ms());
                JobStanding::Leased(LeaseView { holder, lease_ms, left_ms })
            }
            JobState::Dead => {
                let (_, dead) = self.dead(group, offset).next()?;
                JobStanding::Dead(dead.clone())
            }
            JobState::Consumed => match self.job_end(queue, offset) {
                Some(JobEnd::Done { .. }) if self.primary_group(queue) == Some(group) => {
                    JobStanding::Consumed
                }
                _ => withdrawn(),
            },
        })
    }

    /// How a job ended; none if it has not, or if there is no such job yet.
    pub fn job_end(&self, queue: QueueId, offset: Offset) -> Option<JobEnd> {
        let state = self.queues.get(&queue).filter(|state| offset < state.next)?;
        let withdrawn = || {
            let expired = state.withdrawal(offset)? == Removal::Expired;
            Some(if expired { JobEnd::Expired } else { JobEnd::Cancelled })
        };
        let Some(group) = self.primary_group(queue) else {
            return withdrawn();
        };
        match self.job(group, offset)? {
            JobState::Consumed => match state.results.get(offset) {
                Some(result) => Some(JobEnd::Done { result: Some(Arc::clone(result)) }),
                None => withdrawn().or(Some(JobEnd::Unknown)),
            },
            JobState::Dead => {
                self.dead(group, offset).next().map(|dead| JobEnd::Dead(dead.1.clone()))
            }
            JobState::Leased | JobState::Ready | JobState::Parked | JobState::Delayed { .. } => {
                None
            }
        }
    }
}
