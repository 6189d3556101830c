//! ENQUEUE and MOVE; and the jobs that a COMMIT carries.

use joblog_protocol::DecodeError;
use joblog_protocol::job::{Batch, JobError, Terms};
use joblog_protocol::messages::enqueue::{Enqueue, EnqueueReply, UniqueHit};
use joblog_protocol::messages::moving::{Move, MoveOutcome, MoveReply};

use super::{Answer, answer};
use crate::broker::{
    self, Enqueued, Following, JobBatch, Logs, Movable, Moved, Moving, Wish, WishedKey,
};
use crate::server::convert;
use crate::server::reply::Body;
use crate::types::ProducerId;

/// What the jobs of a batch want.
#[derive(Default)]
pub(super) struct Wishes<'a> {
    wishes: Vec<(u32, Wish)>,
    keys: Vec<WishedKey<'a>>,
}

pub(super) fn enqueue(logs: &Logs, job_bytes_max: usize, body: &[u8]) -> Answer {
    let enqueue = Enqueue::decode(body)?;
    let wishes = wishes(&enqueue.batch, job_bytes_max)?;
    let Following { queue, create, batch } = following(&enqueue, &wishes);
    let reply = |enqueued| Body::Enqueued(enqueue_reply(enqueued, batch.count));
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
    let wishes = wishes(&jobs.batch, job_bytes_max)?;
    let jobs = following(&jobs, &wishes);
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

/// Checks every job of a batch, and finds what they want.
pub(super) fn wishes<'a>(batch: &Batch<'a>, job_bytes_max: usize) -> Result<Wishes<'a>, JobError> {
    let mut all = Wishes::default();
    batch.check_terms(job_bytes_max, |ordinal, asked| {
        if asked.terms != Terms::default() {
            all.wishes.push((ordinal, convert::wish(&asked.terms)));
        }
        all.keys.extend(asked.unique.map(|unique| convert::wished_key(ordinal, &unique)));
    })?;
    Ok(all)
}

/// The batch of an ENQUEUE, with its queue.
pub(super) fn following<'a>(enqueue: &Enqueue<'a>, all: &'a Wishes<'a>) -> Following<'a> {
    let Enqueue { queue, create, producer, batch } = *enqueue;
    let Batch { count, table, bodies } = batch;
    let (producer, sequence) = producer
        .map_or_else(Default::default, |producer| (ProducerId(producer.id), producer.sequence));
    let (wishes, keys) = (&all.wishes[..], &all.keys[..]);
    let batch = JobBatch { count, table, bodies, producer, sequence, wishes, keys };
    Following { queue, create, batch }
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
