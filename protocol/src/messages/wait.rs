//! WAIT: how a job ends, as soon as it has.

use bytes::{BufMut, BytesMut};

use super::lease::read_result;
use crate::limits::{FETCH_WAIT_MS_MAX, REASON_BYTES_MAX};
use crate::wire::{DecodeError, Reader, put_name, put_text};

const NOT_YET: u8 = 0;
const DONE: u8 = 1;
const DEAD: u8 = 2;
const CANCELLED: u8 = 3;
const EXPIRED: u8 = 4;

/// WAIT: answers when a job has ended for its queue's primary group, or when the time is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wait<'a> {
    /// The queue.
    pub queue: &'a str,
    /// The job.
    pub offset: u64,
    /// Milliseconds to wait; 0 answers at once.
    pub wait_ms: u32,
}

impl<'a> Wait<'a> {
    /// Appends the body.
    pub fn encode(&self, out: &mut BytesMut) {
        put_name(out, self.queue);
        out.put_u64_le(self.offset);
        out.put_u32_le(self.wait_ms);
    }

    pub(super) fn read_from(reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
        let (queue, offset) = (reader.name()?, reader.u64()?);
        let wait_ms = reader.u32()?.min(FETCH_WAIT_MS_MAX as u32);
        Ok(Self { queue, offset, wait_ms })
    }
}

/// Why a job is dead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum DeathCause {
    /// It failed too often.
    Failures = 1,
    /// Its workers were lost too often.
    Crashes = 2,
    /// Its stored bytes are damaged.
    Damaged = 3,
}

impl DeathCause {
    /// Its name in the JSON bodies of other commands.
    pub fn name(self) -> &'static str {
        match self {
            Self::Failures => "failures",
            Self::Crashes => "crashes",
            Self::Damaged => "damaged",
        }
    }

    fn from_code(code: u8) -> Result<Self, DecodeError> {
        let causes = [Self::Failures, Self::Crashes, Self::Damaged];
        let (field, value, allowed) = ("cause of death", code.into(), "1 to 3");
        let known = causes.into_iter().find(|cause| *cause as u8 == code);
        known.ok_or(DecodeError::Range { field, value, allowed })
    }
}

/// The reply to WAIT.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WaitReply<'a> {
    /// The time is over, and the job has not ended.
    NotYet,
    /// It was committed.
    Done {
        /// Its result, if its worker gave one.
        result: Option<&'a [u8]>,
    },
    /// It is dead.
    Dead {
        /// Why.
        cause: DeathCause,
        /// What its worker said last.
        reason: &'a str,
    },
    /// It was cancelled or purged.
    Cancelled,
    /// Its time was over.
    Expired,
}

impl<'a> WaitReply<'a> {
    /// Appends the body.
    pub fn encode(&self, out: &mut BytesMut) {
        match self {
            Self::NotYet => out.put_u8(NOT_YET),
            Self::Done { result } => {
                out.put_u8(DONE);
                out.put_u8(u8::from(result.is_some()));
                if let Some(result) = result {
                    out.put_u32_le(result.len() as u32);
                    out.put_slice(result);
                }
            }
            Self::Dead { cause, reason } => {
                out.put_u8(DEAD);
                out.put_u8(*cause as u8);
                put_text(out, reason, REASON_BYTES_MAX);
            }
            Self::Cancelled => out.put_u8(CANCELLED),
            Self::Expired => out.put_u8(EXPIRED),
        }
    }

    pub(super) fn read_from(reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
        Ok(match reader.u8()? {
            NOT_YET => Self::NotYet,
            DONE => {
                let has_result = reader.u8()? != 0;
                let result = has_result.then(|| read_result(reader)).transpose()?;
                Self::Done { result }
            }
            DEAD => Self::Dead {
                cause: DeathCause::from_code(reader.u8()?)?,
                reason: reader.text("reason")?,
            },
            CANCELLED => Self::Cancelled,
            EXPIRED => Self::Expired,
            outcome => {
                let (field, value, allowed) = ("outcome", outcome.into(), "0 to 4");
                return Err(DecodeError::Range { field, value, allowed });
            }
        })
    }
}
