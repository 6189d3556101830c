//! COMMIT, RELEASE, FAIL and EXTEND.

use bytes::{BufMut, BytesMut};
use smallvec::SmallVec;

use super::enqueue::{Enqueue, EnqueueReply};
use super::handles::{
    Handle, HandleSet, HandleSets, put_sets, read_sets, read_status, read_statuses,
};
pub use super::handles::{Statuses, encode_statuses};
use crate::error_code::ErrorCode;
use crate::limits::{
    DELAY_MS_MAX, HANDLES_MAX, LEASE_MS_MAX, LEASE_MS_MIN, PROGRESS_BYTES_MAX, REASON_BYTES_MAX,
    RESULT_BYTES_MAX,
};
use crate::wire::{DecodeError, Reader, in_range, put_name, put_text, put_token, whole};

const FORM_JOBS: u8 = 0;
const FORM_THROUGH: u8 = 1;
const FORM_ONE: u8 = 2;

/// In form 2: a result follows.
const FLAG_RESULT: u8 = 0x01;

/// In form 2: jobs to enqueue follow.
const FLAG_JOBS: u8 = 0x02;

/// In EXTEND: a note of the progress follows.
const FLAG_PROGRESS: u8 = 0x01;

/// In FAIL: the queue's retry policy decides.
const BY_POLICY_U32: u32 = u32::MAX;
const BY_POLICY_U64: u64 = u64::MAX;

/// COMMIT: consumes jobs by token, or all jobs of a stream group through an offset.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Commit<'a> {
    /// Jobs of work groups. The reply has a status for each.
    Jobs(HandleSets<'a>),
    /// A stream group's jobs up to and with this offset. The reply has one status.
    Through {
        /// The queue.
        queue: &'a str,
        /// The group; empty for `default`.
        group: &'a str,
        /// The last offset that is consumed.
        offset: u64,
    },
    /// One job, with what its worker says of it. The reply has one status.
    One(CommitOne<'a>),
}

/// One job that is committed with what its worker says of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CommitOne<'a> {
    /// The queue.
    pub queue: &'a str,
    /// The group; empty for `default`.
    pub group: &'a str,
    /// The job.
    pub handle: Handle,
    /// Its result: opaque, at most [`RESULT_BYTES_MAX`] bytes.
    pub result: Option<&'a [u8]>,
    /// Jobs that are enqueued with the commit, both or neither; to a queue of the same log.
    pub jobs: Option<Enqueue<'a>>,
}

impl<'a> CommitOne<'a> {
    fn encode(&self, out: &mut BytesMut) {
        put_name(out, self.queue);
        put_name(out, self.group);
        out.put_u64_le(self.handle.offset);
        put_token(out, &self.handle.token);
        let jobs = self.jobs.map_or(0, |_| FLAG_JOBS);
        out.put_u8(self.result.map_or(0, |_| FLAG_RESULT) | jobs);
        if let Some(result) = self.result {
            out.put_u32_le(result.len() as u32);
            out.put_slice(result);
        }
        if let Some(jobs) = &self.jobs {
            jobs.encode(out);
        }
    }

    fn read_from(reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
        let (queue, group) = (reader.name()?, reader.name_or_empty()?);
        let handle = Handle { offset: reader.u64()?, token: reader.token()? };
        let flags = reader.flags("COMMIT flags", FLAG_RESULT | FLAG_JOBS)?;
        let result = (flags & FLAG_RESULT != 0).then(|| read_result(reader)).transpose()?;
        let jobs = (flags & FLAG_JOBS != 0).then(|| Enqueue::read_from(reader)).transpose()?;
        Ok(Self { queue, group, handle, result, jobs })
    }
}

/// The reply to a COMMIT of one job that carries jobs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChainReply {
    /// What became of the commit; `None` is done.
    pub status: Option<ErrorCode>,
    /// The jobs as they are in their queue; none of them, a count of 0, if the commit was refused.
    pub enqueued: EnqueueReply,
}

impl ChainReply {
    /// Appends the body.
    pub fn encode(&self, out: &mut BytesMut) {
        encode_statuses(out, &[self.status]);
        self.enqueued.encode(out);
    }

    pub(super) fn read_from(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let statuses = read_statuses(reader)?;
        in_range("status count", statuses.len() as u64, 1..=1, "exactly 1")?;
        let enqueued = EnqueueReply::read_from(reader)?;
        Ok(Self { status: statuses.first().copied().flatten(), enqueued })
    }
}

/// Reads the bytes of a result with their length in a u32 before them.
pub(crate) fn read_result<'a>(reader: &mut Reader<'a>) -> Result<&'a [u8], DecodeError> {
    let bytes = reader.u32()? as usize;
    if bytes > RESULT_BYTES_MAX {
        return Err(DecodeError::Result { bytes });
    }
    reader.bytes(bytes)
}

impl<'a> Commit<'a> {
    /// Appends the body.
    pub fn encode(&self, out: &mut BytesMut) {
        match self {
            Self::Jobs(sets) => {
                out.put_u8(FORM_JOBS);
                put_sets(out, sets);
            }
            Self::Through { queue, group, offset } => {
                out.put_u8(FORM_THROUGH);
                put_name(out, queue);
                put_name(out, group);
                out.put_u64_le(*offset);
            }
            Self::One(one) => {
                out.put_u8(FORM_ONE);
                one.encode(out);
            }
        }
    }

    pub(super) fn read_from(reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
        Ok(match reader.u8()? {
            FORM_JOBS => Self::Jobs(read_sets(reader)?),
            FORM_THROUGH => Self::Through {
                queue: reader.name()?,
                group: reader.name_or_empty()?,
                offset: reader.u64()?,
            },
            FORM_ONE => Self::One(CommitOne::read_from(reader)?),
            form => {
                let allowed = "0 (jobs), 1 (through an offset) or 2 (one job)";
                return Err(DecodeError::Range { field: "form", value: form.into(), allowed });
            }
        })
    }
}

/// The body of a reply that is statuses alone: COMMIT, RELEASE, EXTEND, a FETCH's commits.
///
/// # Errors
/// [`DecodeError`].
pub fn decode_statuses(body: &[u8]) -> Result<Statuses, DecodeError> {
    whole(body, read_statuses)
}

/// RELEASE: hands jobs back without fault.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Release<'a> {
    /// The jobs.
    pub jobs: HandleSet<'a>,
    /// Milliseconds until they are ready again; 0 for at once.
    pub delay_ms: u64,
}

impl<'a> Release<'a> {
    /// Appends the body.
    pub fn encode(&self, out: &mut BytesMut) {
        self.jobs.encode(out);
        out.put_u64_le(self.delay_ms);
    }

    pub(super) fn read_from(reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
        let jobs = HandleSet::decode(reader)?;
        let delay_ms = reader.u64()?;
        check_delay(delay_ms)?;
        Ok(Self { jobs, delay_ms })
    }
}

/// FAIL: hands jobs back with a reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fail<'a> {
    /// The jobs.
    pub jobs: HandleSet<'a>,
    /// Failures after which a job is dead, instead of the queue's; 0: it is dead now.
    pub failures_max: Option<u32>,
    /// Milliseconds until the next attempt, instead of the queue's backoff.
    pub delay_ms: Option<u64>,
    /// Why, for people; cut at [`REASON_BYTES_MAX`].
    pub reason: &'a str,
}

impl<'a> Fail<'a> {
    /// Appends the body.
    pub fn encode(&self, out: &mut BytesMut) {
        self.jobs.encode(out);
        out.put_u32_le(self.failures_max.unwrap_or(BY_POLICY_U32));
        out.put_u64_le(self.delay_ms.unwrap_or(BY_POLICY_U64));
        put_text(out, self.reason, REASON_BYTES_MAX);
    }

    pub(super) fn read_from(reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
        let jobs = HandleSet::decode(reader)?;
        let failures_max = Some(reader.u32()?).filter(|value| *value != BY_POLICY_U32);
        let delay_ms = Some(reader.u64()?).filter(|value| *value != BY_POLICY_U64);
        check_delay(delay_ms.unwrap_or(0))?;
        let reason = crate::wire::cut(reader.text("reason")?, REASON_BYTES_MAX);
        Ok(Self { jobs, failures_max, delay_ms, reason })
    }
}

/// What became of one failed job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FailOutcome {
    /// It was refused.
    Refused(ErrorCode),
    /// It is ready again after so many milliseconds.
    Retry {
        /// Milliseconds from now.
        in_ms: u64,
    },
    /// It is dead.
    Dead,
}

/// The reply to FAIL, in the order of the request.
pub type FailReply = SmallVec<[FailOutcome; 2]>;

/// Appends the body of a reply to FAIL.
pub fn encode_fail_reply(out: &mut BytesMut, outcomes: &[FailOutcome]) {
    out.put_u32_le(outcomes.len() as u32);
    for outcome in outcomes {
        let (status, dead, in_ms) = match *outcome {
            FailOutcome::Refused(code) => (code as u16, 0, 0),
            FailOutcome::Retry { in_ms } => (0, 0, in_ms),
            FailOutcome::Dead => (0, 1, 0),
        };
        out.put_u16_le(status);
        out.put_u8(dead);
        out.put_u64_le(in_ms);
    }
}

/// Reads the body of a reply to FAIL.
///
/// # Errors
/// [`DecodeError`].
pub fn decode_fail_reply(body: &[u8]) -> Result<FailReply, DecodeError> {
    whole(body, |reader| {
        let count = reader.u32()?;
        in_range("outcome count", count.into(), 0..=HANDLES_MAX as u64, "at most 65536")?;
        let outcome = |_| {
            let (status, dead, in_ms) = (read_status(reader)?, reader.u8()?, reader.u64()?);
            Ok(match (status, dead) {
                (Some(code), _) => FailOutcome::Refused(code),
                (None, 0) => FailOutcome::Retry { in_ms },
                (None, _) => FailOutcome::Dead,
            })
        };
        (0..count).map(outcome).collect()
    })
}

/// EXTEND: renews leases, from now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Extend<'a> {
    /// The jobs.
    pub jobs: HandleSet<'a>,
    /// Milliseconds from now: of a timed lease, or of a session lease's maximum run.
    pub lease_ms: u64,
    /// What the worker says of its progress, for people: empty for nothing any more, `None` for
    /// what it said before. Cut at [`PROGRESS_BYTES_MAX`].
    pub progress: Option<&'a str>,
}

impl<'a> Extend<'a> {
    /// Appends the body.
    pub fn encode(&self, out: &mut BytesMut) {
        self.jobs.encode(out);
        out.put_u64_le(self.lease_ms);
        out.put_u8(self.progress.map_or(0, |_| FLAG_PROGRESS));
        if let Some(progress) = self.progress {
            put_text(out, progress, PROGRESS_BYTES_MAX);
        }
    }

    pub(super) fn read_from(reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
        let jobs = HandleSet::decode(reader)?;
        let lease_ms = reader.u64()?;
        check_lease(lease_ms)?;
        let flags = reader.flags("EXTEND flags", FLAG_PROGRESS)?;
        let progress = (flags & FLAG_PROGRESS != 0).then(|| reader.text("progress")).transpose()?;
        let progress = progress.map(|progress| crate::wire::cut(progress, PROGRESS_BYTES_MAX));
        Ok(Self { jobs, lease_ms, progress })
    }
}

pub(crate) fn check_lease(lease_ms: u64) -> Result<(), DecodeError> {
    let allowed = LEASE_MS_MIN as u64..=LEASE_MS_MAX as u64;
    in_range("lease_ms", lease_ms, allowed, "100 ms to 30 days")
}

fn check_delay(delay_ms: u64) -> Result<(), DecodeError> {
    in_range("delay_ms", delay_ms, 0..=DELAY_MS_MAX as u64, "0 to 366 days")
}

/// What a server tells the worker of a job that was cancelled, without being asked: its body has
/// the opcode of CANCEL and correlation id 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CancelNotice<'a> {
    /// The queue.
    pub queue: &'a str,
    /// The group.
    pub group: &'a str,
    /// The job.
    pub handle: Handle,
}

impl<'a> CancelNotice<'a> {
    /// Appends the body.
    pub fn encode(&self, out: &mut BytesMut) {
        put_name(out, self.queue);
        put_name(out, self.group);
        out.put_u64_le(self.handle.offset);
        put_token(out, &self.handle.token);
    }

    pub(super) fn read_from(reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
        let (queue, group) = (reader.name()?, reader.name()?);
        let handle = Handle { offset: reader.u64()?, token: reader.token()? };
        Ok(Self { queue, group, handle })
    }
}
