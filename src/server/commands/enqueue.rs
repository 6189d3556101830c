//! ENQUEUE and MOVE; and the jobs that a COMMIT carries.

use joblog_protocol::DecodeError;
use joblog_protocol::job::Asked;
use joblog_protocol::messages::enqueue::{Enqueue, EnqueueReply, UniqueHit};
use joblog_protocol::messages::moving::{Move, MoveOutcome, MoveReply};

use super::{Answer, answer};
use crate::broker::{self, Enqueued, Following, JobBatch, Logs, Movable, Moved, Moving};
use crate::server::convert;
use crate::server::reply::Body;
use crate::types::ProducerId;

pub(super) fn enqueue(logs: &Logs, job_bytes_max: usize, body: &[u8]) -> Answer {
    let enqueue = Enqueue::decode(body)?;
    let asked = enqueue.batch.asked(job_bytes_max)?;
    let Following { queue, create, batch } = following(&enqueue, &asked);
    let reply = |enqueued| Body::Enqueued(enqueue_reply(enqueued, batch.jobs.count));
    answer(logs.of(queue).enqueue(queue, create, batch), reply)
}

pub(super) fn move_jobs(logs: &Logs, job_bytes_max: usize, body: &[u8]) -> Answer {
    let Move { queue, dead_for, offsets, jobs } = Move::decode(body)?;
    let count = jobs.batch.count;
    if count as usize != offsets.len() {
        let (field, value) = ("job count", count.into());
        let allowed = "one for each job that is moved";
        return Err(DecodeError::Range { field, value, allowed }.into());
    }
    let asked = jobs.batch.asked(job_bytes_max)?;
    let jobs = following(&jobs, &asked);
    let dead_for = dead_for.map(convert::group);
    let gated = logs.move_jobs(&Moving { queue, dead_for, offsets: &offsets, jobs });
    answer(gated, |Moved { jobs, enqueued }| {
        let outcome = |job: &Movable| match job {
            Movable::Yes => MoveOutcome::Movable,
            Movable::Leased => MoveOutcome::Leased,
            Movable::Gone => MoveOutcome::Gone,
        };
        let outcomes = jobs.iter().map(outcome).collect();
        let enqueued = enqueued.map(|enqueued| enqueue_reply(enqueued, count)).unwrap_or_default();
        Body::encoded(|out| MoveReply { outcomes, enqueued }.encode(out))
    })
}

/// The batch of an ENQUEUE, with its queue.
pub(super) fn following<'a>(enqueue: &Enqueue<'a>, asked: &'a [(u32, Asked<'a>)]) -> Following<'a> {
    let Enqueue { queue, create, producer, batch: jobs } = *enqueue;
    let (producer, sequence) = producer
        .map_or_else(Default::default, |producer| (ProducerId(producer.id), producer.sequence));
    Following { queue, create, batch: JobBatch { jobs, asked, producer, sequence } }
}

pub(super) fn enqueue_reply(enqueued: Enqueued, count: u32) -> EnqueueReply {
    let hit = |hit: &broker::UniqueHit| UniqueHit {
        ordinal: hit.ordinal,
        replaced: hit.replaced,
        offset: hit.offset.0,
    };
    let Enqueued { first, created, hits } = enqueued;
    let hits = hits.iter().map(hit).collect();
    EnqueueReply { first_offset: first.0, count, created, hits }
}
