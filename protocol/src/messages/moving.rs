//! MOVE: jobs that go from one queue to another, all of them or none.

use bytes::{BufMut, BytesMut};

use super::enqueue::{Enqueue, EnqueueReply};
use crate::limits::BULK_JOBS_MAX;
use crate::wire::{DecodeError, Reader, in_range, put_name};

/// Flag: the jobs are dead ones of a group, which follows.
const FLAG_DEAD: u8 = 0x01;

/// MOVE: jobs leave a queue as other ones are enqueued, both or neither.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Move<'a> {
    /// The queue that they leave.
    pub queue: &'a str,
    /// The group for which they are dead; without one, they wait, and leave for all groups.
    pub dead_for: Option<&'a str>,
    /// The jobs, ascending, at most [`BULK_JOBS_MAX`].
    pub offsets: Vec<u64>,
    /// What is enqueued for them, to a queue of the same log.
    pub jobs: Enqueue<'a>,
}

impl<'a> Move<'a> {
    /// Appends the body.
    pub fn encode(&self, out: &mut BytesMut) {
        put_name(out, self.queue);
        out.put_u8(self.dead_for.map_or(0, |_| FLAG_DEAD));
        if let Some(group) = self.dead_for {
            put_name(out, group);
        }
        out.put_u32_le(self.offsets.len() as u32);
        self.offsets.iter().for_each(|offset| out.put_u64_le(*offset));
        self.jobs.encode(out);
    }

    pub(super) fn read_from(reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
        let (queue, flags) = (reader.name()?, reader.flags("MOVE flags", FLAG_DEAD)?);
        let dead_for = (flags & FLAG_DEAD != 0).then(|| reader.name_or_empty()).transpose()?;
        let count = reader.u32()?;
        in_range("job count", count.into(), 1..=BULK_JOBS_MAX as u64, "1 to 4096")?;
        let offsets = (0..count).map(|_| reader.u64()).collect::<Result<Vec<_>, _>>()?;
        let ascends = offsets.is_sorted_by(|one, next| one < next);
        in_range("order of the jobs", u64::from(ascends), 1..=1, "ascending, each once")?;
        let jobs = Enqueue::read_from(reader)?;
        Ok(Self { queue, dead_for, offsets, jobs })
    }
}

/// What became of one job that was to be moved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum MoveOutcome {
    /// It can be moved, and is if all can.
    Movable = 0,
    /// It is out with a worker.
    Leased = 1,
    /// It is consumed, cancelled or gone, or not dead.
    Gone = 2,
}

/// The reply to MOVE.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MoveReply {
    /// What became of each job, in the order of the request.
    pub outcomes: Vec<MoveOutcome>,
    /// What was enqueued; nothing, a count of 0, unless all jobs could be moved.
    pub enqueued: EnqueueReply,
}

impl MoveReply {
    /// Appends the body.
    pub fn encode(&self, out: &mut BytesMut) {
        out.put_u32_le(self.outcomes.len() as u32);
        self.outcomes.iter().for_each(|outcome| out.put_u8(*outcome as u8));
        self.enqueued.encode(out);
    }

    pub(super) fn read_from(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let count = reader.u32()?;
        in_range("outcome count", count.into(), 0..=BULK_JOBS_MAX as u64, "at most 4096")?;
        let outcomes = (0..count).map(|_| read_outcome(reader)).collect::<Result<_, _>>()?;
        let enqueued = EnqueueReply::read_from(reader)?;
        Ok(Self { outcomes, enqueued })
    }
}

fn read_outcome(reader: &mut Reader<'_>) -> Result<MoveOutcome, DecodeError> {
    let outcomes = [MoveOutcome::Movable, MoveOutcome::Leased, MoveOutcome::Gone];
    let code = reader.u8()?;
    let known = outcomes.into_iter().find(|outcome| *outcome as u8 == code);
    let (field, value, allowed) = ("outcome", code.into(), "0 to 2");
    known.ok_or(DecodeError::Range { field, value, allowed })
}
