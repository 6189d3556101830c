//! READ, JOB_INFO and PROMOTE: jobs without a lease.

use joblog_protocol::limits::{BULK_JOBS_MAX, FETCH_BYTES_MAX, FETCH_JOBS_MAX};
use joblog_protocol::messages::admin::decode;
use joblog_protocol::messages::bulk::{self, PromoteOutcome, PromoteReply};
use joblog_protocol::messages::fetch::Read;
use joblog_protocol::messages::job_info::{self, JobQuery, JobState};
use joblog_protocol::wire::in_range;

use super::dead::death_cause;
use super::{Answer, answer, json};
use crate::broker::{DescribedJob, Holder, JobInfo, JobStanding, Logs, PromoteVerdict};
use crate::server::reply::Body;
use crate::types::Offset;

pub(super) fn read(logs: &Logs, body: &[u8]) -> Answer {
    let Read { queue, from, jobs_max, bytes_max, unconsumed_by } = Read::decode(body)?;
    let jobs_max = (jobs_max as usize).min(FETCH_JOBS_MAX);
    let bytes_max = u64::from(bytes_max).min(FETCH_BYTES_MAX as u64);
    let broker = logs.of(queue);
    answer(broker.read(queue, Offset(from), jobs_max, bytes_max, unconsumed_by), Body::Read)
}

pub(super) fn info(logs: &Logs, body: &[u8]) -> Answer {
    let JobQuery { queue, offset, group } = decode(body)?;
    let group = Some(group.as_str()).filter(|group| !group.is_empty());
    let gated = logs.of(&queue).job_info(&queue, Offset(offset), group);
    answer(gated, |job| {
        let location = job.location.clone();
        Body::Job(Box::new((describe(queue, offset, job), location)))
    })
}

pub(super) fn promote(logs: &Logs, body: &[u8]) -> Answer {
    let bulk::Promote { queue, jobs } = decode(body)?;
    in_range("jobs", jobs.len() as u64, 1..=BULK_JOBS_MAX as u64, "1 to 4096 offsets")?;
    let outcome = |outcome| match outcome {
        PromoteVerdict::Promoted => PromoteOutcome::Promoted,
        PromoteVerdict::NotDelayed => PromoteOutcome::NotDelayed,
        PromoteVerdict::NoSuchJob => PromoteOutcome::NoSuchJob,
    };
    json(logs.of(&queue).promote(&queue, &jobs), |outcomes| PromoteReply {
        jobs: outcomes.into_iter().map(outcome).collect(),
    })
}

/// One job, but for what stands in its bytes.
fn describe(queue: String, offset: u64, described: DescribedJob) -> job_info::JobDescription {
    let DescribedJob { group, info, now_log_ms, .. } = described;
    let JobInfo { standing, attempts, failures, crashes, .. } = info;
    let (mut due_in_ms, mut lease, mut dead) = (None, None, None);
    let state = match standing {
        JobStanding::Ready => JobState::Ready,
        JobStanding::Parked => JobState::Parked,
        JobStanding::Delayed { due_log_ms } => {
            due_in_ms = Some(due_log_ms.saturating_sub(now_log_ms));
            JobState::Delayed
        }
        JobStanding::Leased(held) => {
            lease = Some(job_info::LeaseInfo {
                session: session_name(held.holder),
                lease_ms: held.lease_ms,
                left_ms: held.left_ms,
                cancel_requested: info.cancel_requested,
            });
            JobState::Leased
        }
        JobStanding::Dead(job) => {
            dead = Some(job);
            JobState::Dead
        }
        JobStanding::Consumed => JobState::Consumed,
        JobStanding::Cancelled => JobState::Cancelled,
        JobStanding::Expired => JobState::Expired,
    };
    let last_error = info.last_error.as_deref().or_else(|| Some(&dead.as_ref()?.message));
    job_info::JobDescription {
        queue,
        offset,
        group,
        state,
        enqueued_at_ms: None,
        due_in_ms,
        attempts,
        failures: attempts.map(|_| failures),
        crashes: attempts.map(|_| crashes),
        lease,
        progress: info.progress.as_deref().map(str::to_owned),
        last_error: last_error.filter(|error| !error.is_empty()).map(str::to_owned),
        cause: dead.as_ref().map(|dead| death_cause(dead).name().to_owned()),
        died_at_ms: dead.as_ref().map(|dead| dead.died.wall_ms),
        result_bytes: info.result_bytes,
    }
}

/// The beginning of a session's id: enough to tell it from others, too little to take it over.
fn session_name(holder: Holder) -> Option<String> {
    match holder {
        Holder::Session(session) => Some(session.to_string().chars().take(8).collect()),
        Holder::Timed => None,
    }
}
