//! DEAD_LIST, DEAD_RETRY and DEAD_DROP.

use joblog_protocol::DecodeError;
use joblog_protocol::limits::BULK_JOBS_MAX;
use joblog_protocol::messages::admin::{self, decode};
use joblog_protocol::messages::bulk;
use joblog_protocol::messages::wait::DeathCause;
use joblog_protocol::wire::in_range;

use super::{Answer, json};
use crate::broker::{DeadJob, DeadQuery, EndReason, Found, Logs};
use crate::server::convert;
use crate::types::Offset;

pub(super) fn list(logs: &Logs, body: &[u8]) -> Answer {
    let query = read_query(body)?;
    let query = dead_query(&query);
    json(logs.of(query.queue).list_dead(&query), |found| bulk::DeadList {
        jobs: found.jobs.into_iter().map(dead_job).collect(),
        next: found.next.0,
        more: found.more,
    })
}

pub(super) fn retry(logs: &Logs, body: &[u8]) -> Answer {
    let query = read_query(body)?;
    let query = dead_query(&query);
    json(logs.of(query.queue).retry_dead(&query), bulk_done)
}

pub(super) fn drop(logs: &Logs, body: &[u8]) -> Answer {
    let query = read_query(body)?;
    let query = dead_query(&query);
    json(logs.of(query.queue).drop_dead(&query), bulk_done)
}

fn read_query(body: &[u8]) -> Result<bulk::DeadQuery, DecodeError> {
    let query: bulk::DeadQuery = decode(body)?;
    let named = query.jobs.as_ref().map_or(0, Vec::len) as u64;
    in_range("jobs", named, 0..=BULK_JOBS_MAX as u64, "at most 4096 offsets")?;
    Ok(query)
}

fn dead_query(query: &bulk::DeadQuery) -> DeadQuery<'_> {
    DeadQuery {
        queue: &query.queue,
        group: convert::group(&query.group),
        jobs: query.jobs.as_deref(),
        error: query.error.as_deref(),
        older_than_ms: query.older_than_ms,
        younger_than_ms: query.younger_than_ms,
        from: Offset(query.from),
        limit: (query.limit as usize).clamp(1, BULK_JOBS_MAX),
    }
}

fn bulk_done(found: Found<Offset>) -> bulk::BulkDone {
    bulk::BulkDone {
        count: found.jobs.len() as u64,
        refused: found.refused.into_iter().map(|offset| offset.0).collect(),
        next: found.next.0,
        more: found.more,
    }
}

pub(super) fn dead_job((offset, job): (Offset, DeadJob)) -> admin::DeadJob {
    admin::DeadJob {
        offset: offset.0,
        cause: death_cause(&job).name().to_owned(),
        reason: job.message.into(),
        attempts: job.attempts,
        failures: job.failures,
        crashes: job.crashes,
        died_at_ms: job.died.wall_ms,
    }
}

pub(super) fn death_cause(job: &DeadJob) -> DeathCause {
    match job.reason {
        EndReason::Damaged => DeathCause::Damaged,
        EndReason::Expired { crash: true } | EndReason::SessionLost { crash: true } => {
            DeathCause::Crashes
        }
        EndReason::Released
        | EndReason::Undelivered
        | EndReason::Failed
        | EndReason::Expired { crash: false }
        | EndReason::SessionLost { crash: false } => DeathCause::Failures,
    }
}
