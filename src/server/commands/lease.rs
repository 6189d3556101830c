//! COMMIT, RELEASE, FAIL and EXTEND: what a worker says of the jobs it holds.

use joblog_protocol::ErrorCode;
use joblog_protocol::messages::lease::{
    self, ChainReply, Commit, Extend, Fail, FailOutcome, FailReply, Release, encode_fail_reply,
};
use smallvec::{SmallVec, smallvec};

use super::enqueue::{enqueue_reply, following};
use super::{Answer, answer};
use crate::broker::{Caller, CommitOne, Failed, JobRefusal, LeaseRefs, Logs, RetryTerms, Verdicts};
use crate::server::convert;
use crate::server::errors::job_code;
use crate::server::reply::Body;
use crate::types::Offset;

pub(super) fn commit(logs: &Logs, caller: &Caller, job_bytes_max: usize, body: &[u8]) -> Answer {
    match Commit::decode(body)? {
        Commit::Jobs(sets) => {
            let sets: SmallVec<[LeaseRefs<'_>; 1]> =
                sets.iter().map(|set| convert::lease_refs(logs, set)).collect();
            answer(logs.commit(caller, &sets), statuses)
        }
        Commit::One(one) => commit_one(logs, job_bytes_max, &one),
        Commit::Through { queue, group, offset } => {
            let group = convert::group(group);
            let gated = logs.of(queue).commit_through(queue, group, Offset(offset));
            answer(gated, |verdict| statuses(smallvec![verdict]))
        }
    }
}

fn commit_one(logs: &Logs, job_bytes_max: usize, one: &lease::CommitOne<'_>) -> Answer {
    let asked = one.jobs.map(|jobs| jobs.batch.asked(job_bytes_max)).transpose()?;
    let gated = logs.commit_one(&CommitOne {
        queue: one.queue,
        group: convert::group(one.group),
        job: convert::lease_ref(logs.id_of(one.queue), &one.handle),
        result: one.result,
        jobs: one.jobs.as_ref().zip(asked.as_ref()).map(|(jobs, asked)| following(jobs, asked)),
    });
    answer(gated, |committed| {
        let status = status(&committed.verdict);
        match &one.jobs {
            None => Body::Statuses { statuses: smallvec![status], more: false },
            Some(jobs) => {
                let count = jobs.batch.count;
                let enqueued = committed.enqueued.map(|enqueued| enqueue_reply(enqueued, count));
                let enqueued = enqueued.unwrap_or_default();
                Body::encoded(|out| ChainReply { status, enqueued }.encode(out))
            }
        }
    })
}

pub(super) fn release(logs: &Logs, body: &[u8]) -> Answer {
    let Release { jobs, delay_ms } = Release::decode(body)?;
    answer(logs.of(jobs.queue).release(&convert::lease_refs(logs, &jobs), delay_ms), statuses)
}

pub(super) fn fail(logs: &Logs, body: &[u8]) -> Answer {
    let Fail { jobs, failures_max, delay_ms, reason } = Fail::decode(body)?;
    let set = convert::lease_refs(logs, &jobs);
    let gated = logs.of(set.queue).fail(&set, RetryTerms { failures_max, delay_ms }, reason);
    let outcome = |result: &Result<Failed, JobRefusal>| match result {
        Ok(Failed::Retry { in_ms }) => FailOutcome::Retry { in_ms: *in_ms },
        Ok(Failed::Dead) => FailOutcome::Dead,
        Err(refusal) => FailOutcome::Refused(job_code(refusal)),
    };
    answer(gated, |results| {
        let outcomes: FailReply = results.iter().map(outcome).collect();
        Body::encoded(|out| encode_fail_reply(out, &outcomes))
    })
}

pub(super) fn extend(logs: &Logs, body: &[u8]) -> Answer {
    let Extend { jobs, lease_ms, progress } = Extend::decode(body)?;
    let set = convert::lease_refs(logs, &jobs);
    answer(logs.of(set.queue).extend(&set, lease_ms, progress), statuses)
}

/// The reply of statuses alone.
fn statuses(verdicts: Verdicts) -> Body {
    Body::Statuses { statuses: verdicts.iter().map(status).collect(), more: false }
}

/// The status of one job.
pub(super) fn status(verdict: &Result<(), JobRefusal>) -> Option<ErrorCode> {
    verdict.as_ref().err().map(job_code)
}
