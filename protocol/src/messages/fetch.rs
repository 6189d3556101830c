//! FETCH and READ, and the jobs that their replies carry.

use bytes::{BufMut, BytesMut};
use smallvec::SmallVec;

use super::handles::{HandleSets, put_sets, read_sets};
use super::lease::check_lease;
use crate::limits::{FETCH_JOBS_MAX, FETCH_QUEUES_MAX, FETCH_WAIT_MS_MAX};
use crate::wire::{DecodeError, Reader, Token, in_range, put_name, put_token};

/// Flag: timed leases instead of session leases.
const FLAG_TIMED: u8 = 0x01;

/// Flag: the queues take turns.
const FLAG_BY_TURNS: u8 = 0x02;

/// Under which lease jobs go out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LeaseKind {
    /// Lives as long as the session is heard from, up to a maximum run time in milliseconds;
    /// `None` for the server's default.
    Session {
        /// The maximum run time.
        run_ms_max: Option<u64>,
    },
    /// Lives for this time, whatever becomes of the session.
    Timed {
        /// The time in milliseconds.
        lease_ms: u64,
    },
}

/// FETCH: takes ready jobs under a lease.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fetch<'a> {
    /// The queues, in the order in which they are asked; they need not exist.
    pub queues: SmallVec<[&'a str; 2]>,
    /// The group; empty for `default`.
    pub group: &'a str,
    /// Jobs at most.
    pub jobs_max: u32,
    /// Bytes of bodies at most; a first job that is larger comes all the same.
    pub bytes_max: u32,
    /// Milliseconds to wait for a first job; 0 answers at once.
    pub wait_ms: u32,
    /// The lease.
    pub lease: LeaseKind,
    /// Whether the queues take turns, instead of each coming after all before it.
    pub by_turns: bool,
    /// Commits to do first. Their statuses come in a reply of their own, flagged MORE.
    pub commits: HandleSets<'a>,
}

impl<'a> Fetch<'a> {
    /// Appends the body.
    pub fn encode(&self, out: &mut BytesMut) {
        out.put_u8(self.queues.len() as u8);
        self.queues.iter().for_each(|queue| put_name(out, queue));
        put_name(out, self.group);
        out.put_u32_le(self.jobs_max);
        out.put_u32_le(self.bytes_max);
        out.put_u32_le(self.wait_ms);
        let (timed, lease_ms) = match self.lease {
            LeaseKind::Session { run_ms_max } => (0, run_ms_max.unwrap_or(0)),
            LeaseKind::Timed { lease_ms } => (FLAG_TIMED, lease_ms),
        };
        out.put_u8(timed | if self.by_turns { FLAG_BY_TURNS } else { 0 });
        out.put_u64_le(lease_ms);
        put_sets(out, &self.commits);
    }

    pub(super) fn read_from(reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
        let count = reader.u8()?;
        in_range("queue count", count.into(), 1..=FETCH_QUEUES_MAX as u64, "1 to 255")?;
        let queues = (0..count).map(|_| reader.name()).collect::<Result<_, _>>()?;
        let group = reader.name_or_empty()?;
        let jobs_max = reader.u32()?;
        in_range("jobs_max", jobs_max.into(), 1..=u32::MAX.into(), "at least 1")?;
        let bytes_max = reader.u32()?;
        let wait_ms = reader.u32()?.min(FETCH_WAIT_MS_MAX as u32);
        let flags = reader.flags("FETCH flags", FLAG_TIMED | FLAG_BY_TURNS)?;
        let lease = read_lease(flags, reader)?;
        let by_turns = flags & FLAG_BY_TURNS != 0;
        let commits = read_sets(reader)?;
        Ok(Self { queues, group, jobs_max, bytes_max, wait_ms, lease, by_turns, commits })
    }
}

fn read_lease(flags: u8, reader: &mut Reader<'_>) -> Result<LeaseKind, DecodeError> {
    let lease_ms = reader.u64()?;
    let is_timed = flags & FLAG_TIMED != 0;
    if lease_ms == 0 && !is_timed {
        return Ok(LeaseKind::Session { run_ms_max: None });
    }
    check_lease(lease_ms)?;
    Ok(match is_timed {
        true => LeaseKind::Timed { lease_ms },
        false => LeaseKind::Session { run_ms_max: Some(lease_ms) },
    })
}

/// One job in a reply to FETCH or READ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Delivery<'a> {
    /// Which queue of the FETCH it is from, counted from 0; 0 in READ.
    pub queue_ordinal: u8,
    /// Its offset.
    pub offset: u64,
    /// The token of its lease; none in READ.
    pub token: Option<Token>,
    /// How often it has been delivered to the group, this time included; 0 in READ.
    pub attempt: u32,
    /// When it was enqueued: milliseconds since the Unix epoch.
    pub enqueued_at_ms: u64,
    /// Reserved: 0.
    pub flags: u32,
    /// crc32 (IEEE) of the body, made by the producer. The consumer checks it.
    pub crc32: u32,
    /// The body.
    pub body: &'a [u8],
}

impl<'a> Delivery<'a> {
    /// Appends the job.
    pub fn encode(&self, out: &mut BytesMut) {
        out.put_u8(self.queue_ordinal);
        out.put_u64_le(self.offset);
        match &self.token {
            Some(token) => put_token(out, token),
            None => out.put_u8(0),
        }
        out.put_u32_le(self.attempt);
        out.put_u64_le(self.enqueued_at_ms);
        out.put_u32_le(self.flags);
        out.put_u32_le(self.crc32);
        out.put_u32_le(self.body.len() as u32);
        out.put_slice(self.body);
    }

    /// Reads one job.
    ///
    /// # Errors
    /// [`DecodeError`].
    pub fn decode(reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
        let queue_ordinal = reader.u8()?;
        let offset = reader.u64()?;
        let token = match reader.u8()? {
            0 => None,
            length => Some(Token::new(reader.bytes(length.into())?)?),
        };
        let attempt = reader.u32()?;
        let enqueued_at_ms = reader.u64()?;
        let flags = reader.u32()?;
        let crc32 = reader.u32()?;
        let body_bytes = reader.u32()?;
        let body = reader.bytes(body_bytes as usize)?;
        Ok(Self { queue_ordinal, offset, token, attempt, enqueued_at_ms, flags, crc32, body })
    }
}

/// The jobs of a reply.
pub type Deliveries<'a> = SmallVec<[Delivery<'a>; 1]>;

fn read_deliveries<'a>(reader: &mut Reader<'a>) -> Result<Deliveries<'a>, DecodeError> {
    let count = reader.u32()?;
    in_range("job count", count.into(), 0..=FETCH_JOBS_MAX as u64, "at most 10000")?;
    (0..count).map(|_| Delivery::decode(reader)).collect()
}

/// The reply to FETCH: no job if the wait ended without one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FetchReply<'a> {
    /// The time of the leases in milliseconds, counted by the server from its grant.
    pub lease_ms: u64,
    /// The jobs.
    pub jobs: Deliveries<'a>,
}

impl<'a> FetchReply<'a> {
    /// Appends what stands before the jobs; [`Delivery::encode`] for each of `count` follows.
    pub fn encode_head(out: &mut BytesMut, lease_ms: u64, count: u32) {
        out.put_u64_le(lease_ms);
        out.put_u32_le(count);
    }

    pub(super) fn read_from(reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
        Ok(Self { lease_ms: reader.u64()?, jobs: read_deliveries(reader)? })
    }
}

/// READ: jobs from an offset on, without a lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Read<'a> {
    /// The queue.
    pub queue: &'a str,
    /// The first offset wanted; below the queue's first one means from there.
    pub from: u64,
    /// Jobs at most.
    pub jobs_max: u32,
    /// Bytes of bodies at most; a first job that is larger comes all the same.
    pub bytes_max: u32,
    /// Only jobs that this group has still to consume.
    pub unconsumed_by: Option<&'a str>,
}

impl<'a> Read<'a> {
    /// Appends the body.
    pub fn encode(&self, out: &mut BytesMut) {
        put_name(out, self.queue);
        out.put_u64_le(self.from);
        out.put_u32_le(self.jobs_max);
        out.put_u32_le(self.bytes_max);
        put_name(out, self.unconsumed_by.unwrap_or_default());
    }

    pub(super) fn read_from(reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
        let read = Self {
            queue: reader.name()?,
            from: reader.u64()?,
            jobs_max: reader.u32()?,
            bytes_max: reader.u32()?,
            unconsumed_by: Some(reader.name_or_empty()?).filter(|group| !group.is_empty()),
        };
        in_range("jobs_max", read.jobs_max.into(), 1..=u32::MAX.into(), "at least 1")?;
        Ok(read)
    }
}

/// The reply to READ.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReadReply<'a> {
    /// The offset to read from next.
    pub next: u64,
    /// The end of the queue: the offset that its next job will have.
    pub end: u64,
    /// The jobs.
    pub jobs: Deliveries<'a>,
}

impl<'a> ReadReply<'a> {
    /// Appends what stands before the jobs; [`Delivery::encode`] for each of `count` follows.
    pub fn encode_head(out: &mut BytesMut, next: u64, end: u64, count: u32) {
        out.put_u64_le(next);
        out.put_u64_le(end);
        out.put_u32_le(count);
    }

    pub(super) fn read_from(reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
        Ok(Self { next: reader.u64()?, end: reader.u64()?, jobs: read_deliveries(reader)? })
    }
}
