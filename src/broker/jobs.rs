//! JOB_INFO and PROMOTE: single jobs, as people ask about them.

use super::Broker;
use super::error::BrokerError;
use super::gate::Gated;
use crate::log::JobLocation;
use crate::queue::{JobInfo, PromoteVerdict};
use crate::types::Offset;

/// One job of a queue, described for a group.
#[derive(Clone, Debug)]
pub struct DescribedJob {
    /// The group.
    pub group: String,
    /// What the state knows of it.
    pub info: JobInfo,
    /// Where its bytes lie, if the log has them.
    pub location: Option<JobLocation>,
    /// The time of this description on the clock of the log, in milliseconds.
    pub now_log_ms: u64,
}

impl Broker {
    /// Describes one job for a group, or for the queue's primary group, which need not be made.
    pub fn job_info(
        &self,
        queue: &str,
        offset: Offset,
        group: Option<&str>,
    ) -> Gated<DescribedJob> {
        self.turn(|turn| {
            let id = turn.queue(queue)?;
            let machine = &turn.core.machine;
            let primary = machine.queue(id).map(|info| info.settings.primary_group.clone());
            let (group, group_id) = match group {
                Some(group) => (group.to_owned(), Some(turn.work_group(queue, group)?)),
                None => (primary.unwrap_or_default().into(), machine.primary_group(id)),
            };
            let next = machine.next_offset(id).unwrap_or_default();
            let no_job = || BrokerError::NoSuchJobYet { job: format!("{queue}:{offset}"), next };
            let info = machine.job_info(id, group_id, offset, turn.lease_now_ms);
            let info = info.ok_or_else(no_job)?;
            let location = turn.log.locate(id, offset);
            Ok(DescribedJob { group, info, location, now_log_ms: turn.stamp.log_ms })
        })
    }

    /// Makes delayed jobs ready for all groups.
    pub fn promote(&self, queue: &str, jobs: &[u64]) -> Gated<Vec<PromoteVerdict>> {
        self.turn(|turn| {
            let id = turn.queue(queue)?;
            let machine = &turn.core.machine;
            let jobs = jobs.iter().map(|job| Offset(*job));
            let outcomes: Vec<_> = jobs.map(|job| (job, machine.promote(id, job))).collect();
            let meant = outcomes.iter().filter(|(_, outcome)| *outcome == PromoteVerdict::Promoted);
            let fact = machine.promote_jobs(id, meant.map(|(job, _)| *job));
            turn.record_all(fact);
            Ok(outcomes.into_iter().map(|(_, outcome)| outcome).collect())
        })
    }
}
