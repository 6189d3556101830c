//! CANCEL, PAUSE, RESUME and PURGE.

use joblog_protocol::limits::{BULK_JOBS_MAX, PURGE_JOBS_MAX};
use joblog_protocol::messages::admin::decode;
use joblog_protocol::messages::bulk::{self, CancelOutcome, CancelReply, PurgeReply};
use joblog_protocol::messages::handles::Handle;
use joblog_protocol::messages::lease::CancelNotice;
use joblog_protocol::wire::in_range;

use super::{Answer, done, json};
use crate::broker::{CancelVerdict, CancelledJob, Logs, PurgeStep};
use crate::server::convert;
use crate::server::reply::Body;
use crate::types::Offset;

pub(super) fn cancel(logs: &Logs, body: &[u8]) -> Answer {
    let bulk::Cancel { queue, jobs } = decode(body)?;
    in_range("jobs", jobs.len() as u64, 1..=BULK_JOBS_MAX as u64, "1 to 4096 offsets")?;
    let outcome = |outcome| match outcome {
        CancelVerdict::Done => CancelOutcome::Cancelled,
        CancelVerdict::Requested => CancelOutcome::Requested,
        CancelVerdict::Consumed => CancelOutcome::Consumed,
        CancelVerdict::NoSuchJob => CancelOutcome::NoSuchJob,
    };
    json(logs.of(&queue).cancel(&queue, &jobs), |outcomes| CancelReply {
        jobs: outcomes.into_iter().map(outcome).collect(),
    })
}

/// What the worker of a cancelled job is told.
pub(in crate::server) fn cancel_notice(job: &CancelledJob) -> Body {
    let handle = Handle { offset: job.offset.0, token: convert::token(job.log, job.grant) };
    let notice = CancelNotice { queue: &job.queue, group: &job.group, handle };
    Body::encoded(|out| notice.encode(out))
}

/// PAUSE and RESUME.
pub(super) fn pause(logs: &Logs, body: &[u8], paused: bool) -> Answer {
    let bulk::Pause { queue, group } = decode(body)?;
    let group = group.as_deref().map(convert::group);
    done(logs.of(&queue).pause(&queue, group, paused))
}

pub(super) fn purge(logs: &Logs, body: &[u8]) -> Answer {
    let bulk::Purge { queue, from, end } = decode(body)?;
    let (from, end, most) = (Offset(from), end.map(Offset), PURGE_JOBS_MAX as u64);
    json(logs.of(&queue).purge(&queue, from, end, most), |(purge, end)| {
        let PurgeStep { count, leased, next, .. } = purge;
        PurgeReply { count, leased, next: next.0, end: end.0 }
    })
}
