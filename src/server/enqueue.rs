//! ENQUEUE, and what carries jobs to enqueue: the COMMIT of one job, and MOVE.

use bytes::BytesMut;
use joblog_protocol::DecodeError;
use joblog_protocol::job::{Batch, Terms};
use joblog_protocol::messages::enqueue::{Enqueue, EnqueueReply};
use joblog_protocol::messages::lease::{ChainReply, CommitOne as WireCommit};
use joblog_protocol::messages::moving::{Move, MoveOutcome, MoveReply};
use smallvec::smallvec;

use super::connection::Connection;
use super::convert;
use super::dispatch::{Answer, answer};
use super::reply::Body;
use crate::broker::{
    CommitOne, Enqueued, Following, Gates, JobBatch, Movable, Moved, Moving, Wish, WishedKey,
};
use crate::types::ProducerId;

/// What the jobs of a batch want.
#[derive(Default)]
struct Wishes<'a> {
    wishes: Vec<(u32, Wish)>,
    keys: Vec<WishedKey<'a>>,
}

impl Connection {
    pub(super) fn enqueue(&self, body: &[u8]) -> Answer {
        let enqueue = Enqueue::decode(body)?;
        let wishes = match self.wishes(&enqueue.batch) {
            Ok(wishes) => wishes,
            Err(refused) => return Ok((Gates::new(), refused)),
        };
        let Enqueue { queue, create, .. } = enqueue;
        let jobs = job_batch(&enqueue, &wishes);
        let reply = |enqueued| Body::Enqueued(enqueue_reply(Some(enqueued), jobs.count));
        Ok(answer(self.logs.of(queue).enqueue(queue, create, jobs), reply))
    }

    /// COMMIT of one job.
    pub(super) fn commit_one(&self, one: &WireCommit<'_>) -> (Gates, Body) {
        let wishes = match one.jobs.map(|jobs| self.wishes(&jobs.batch)).transpose() {
            Ok(wishes) => wishes.unwrap_or_default(),
            Err(refused) => return (Gates::new(), refused),
        };
        let jobs = one.jobs.as_ref().map(|jobs| {
            let Enqueue { queue, create, .. } = *jobs;
            Following { queue, create, batch: job_batch(jobs, &wishes) }
        });
        let gated = self.logs.commit_one(&CommitOne {
            queue: one.queue,
            group: convert::group(one.group),
            job: convert::held(&one.handle),
            result: one.result,
            jobs,
        });
        answer(gated, |committed| {
            let status = convert::status(&committed.verdict);
            match &one.jobs {
                None => Body::Statuses { statuses: smallvec![status], more: false },
                Some(jobs) => {
                    let enqueued = enqueue_reply(committed.enqueued, jobs.batch.count);
                    Body::Chained(ChainReply { status, enqueued })
                }
            }
        })
    }

    /// MOVE.
    pub(super) fn move_jobs(&self, body: &[u8]) -> Answer {
        let Move { queue, dead_for, offsets, jobs } = Move::decode(body)?;
        let count = jobs.batch.count;
        if count as usize != offsets.len() {
            let (field, value) = ("job count", count.into());
            let allowed = "one for each job that is moved";
            return Err(DecodeError::Range { field, value, allowed });
        }
        let wishes = match self.wishes(&jobs.batch) {
            Ok(wishes) => wishes,
            Err(refused) => return Ok((Gates::new(), refused)),
        };
        let batch = job_batch(&jobs, &wishes);
        let jobs = Following { queue: jobs.queue, create: jobs.create, batch };
        let dead_for = dead_for.map(convert::group);
        let gated = self.logs.move_jobs(&Moving { queue, dead_for, offsets: &offsets, jobs });
        Ok(answer(gated, |Moved { jobs, enqueued }| {
            let outcomes = jobs.iter().map(|job| match job {
                Movable::Yes => MoveOutcome::Movable,
                Movable::Leased => MoveOutcome::Leased,
                Movable::Gone => MoveOutcome::Gone,
            });
            let outcomes = outcomes.collect();
            let mut out = BytesMut::new();
            MoveReply { outcomes, enqueued: enqueue_reply(enqueued, count) }.encode(&mut out);
            Body::Bytes(out)
        }))
    }

    /// Checks every job of a batch, and finds what they want.
    fn wishes<'a>(&self, batch: &Batch<'a>) -> Result<Wishes<'a>, Body> {
        let mut all = Wishes::default();
        let checked = batch.check_terms(self.options.job_bytes_max, |ordinal, asked| {
            if asked.terms != Terms::default() {
                all.wishes.push((ordinal, convert::wish(&asked.terms)));
            }
            all.keys.extend(asked.unique.map(|unique| convert::wished_key(ordinal, &unique)));
        });
        match checked {
            Ok(()) => Ok(all),
            Err(error) => Err(Body::Error(error.code(), error.to_string())),
        }
    }
}

fn job_batch<'a>(enqueue: &Enqueue<'a>, all: &'a Wishes<'a>) -> JobBatch<'a> {
    let Batch { count, table, bodies } = enqueue.batch;
    let producer = enqueue.producer;
    let (producer, sequence) = producer
        .map_or_else(Default::default, |producer| (ProducerId(producer.id), producer.sequence));
    let (wishes, keys) = (&all.wishes[..], &all.keys[..]);
    JobBatch { count, table, bodies, producer, sequence, wishes, keys }
}

fn enqueue_reply(enqueued: Option<Enqueued>, count: u32) -> EnqueueReply {
    enqueued.map_or_else(Default::default, |enqueued| convert::enqueued(enqueued, count))
}
