//! Jobs named by offset and token: what COMMIT, RELEASE, FAIL and EXTEND are about.

use bytes::{BufMut, BytesMut};
use smallvec::SmallVec;

use crate::error_code::ErrorCode;
use crate::limits::HANDLES_MAX;
use crate::wire::{DecodeError, Reader, Token, in_range, put_name, put_token};

/// One leased job of a queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Handle {
    /// The job's offset.
    pub offset: u64,
    /// The token of its lease.
    pub token: Token,
}

/// Leased jobs of one queue and group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HandleSet<'a> {
    /// The queue.
    pub queue: &'a str,
    /// The group; empty for `default`.
    pub group: &'a str,
    /// The jobs.
    pub handles: SmallVec<[Handle; 1]>,
}

impl<'a> HandleSet<'a> {
    /// Appends the set.
    pub fn encode(&self, out: &mut BytesMut) {
        put_name(out, self.queue);
        put_name(out, self.group);
        out.put_u32_le(self.handles.len() as u32);
        for handle in &self.handles {
            out.put_u64_le(handle.offset);
            put_token(out, &handle.token);
        }
    }

    /// Reads one set.
    ///
    /// # Errors
    /// [`DecodeError`].
    pub fn decode(reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
        let queue = reader.name()?;
        let group = reader.name_or_empty()?;
        let count = reader.u32()?;
        in_range("job count", count.into(), 1..=HANDLES_MAX as u64, "1 to 65536")?;
        let handle = |_| Ok(Handle { offset: reader.u64()?, token: reader.token()? });
        let handles = (0..count).map(handle).collect::<Result<_, DecodeError>>()?;
        Ok(Self { queue, group, handles })
    }
}

/// A list of sets with its length in a u16 before it; at most [`HANDLES_MAX`] jobs in all.
pub type HandleSets<'a> = SmallVec<[HandleSet<'a>; 1]>;

/// Appends a list of sets.
pub fn put_sets(out: &mut BytesMut, sets: &[HandleSet<'_>]) {
    out.put_u16_le(sets.len() as u16);
    sets.iter().for_each(|set| set.encode(out));
}

/// Reads a list of sets.
///
/// # Errors
/// [`DecodeError`].
pub fn read_sets<'a>(reader: &mut Reader<'a>) -> Result<HandleSets<'a>, DecodeError> {
    let count = reader.u16()?;
    let mut sets = HandleSets::new();
    let mut handles = 0;
    for _ in 0..count {
        let set = HandleSet::decode(reader)?;
        handles += set.handles.len() as u64;
        in_range("job count", handles, 1..=HANDLES_MAX as u64, "1 to 65536")?;
        sets.push(set);
    }
    Ok(sets)
}

/// What became of each job that a request named, in its order; `None` is done.
pub type Statuses = SmallVec<[Option<ErrorCode>; 4]>;

/// Appends statuses, which may be the body of a reply: a count and a u16 for each, 0 for done.
pub fn encode_statuses(out: &mut BytesMut, statuses: &[Option<ErrorCode>]) {
    out.put_u32_le(statuses.len() as u32);
    for status in statuses {
        out.put_u16_le(status.map_or(0, |code| code as u16));
    }
}

/// Reads statuses. A number that this crate does not know is refused.
///
/// # Errors
/// [`DecodeError`].
pub fn read_statuses(reader: &mut Reader<'_>) -> Result<Statuses, DecodeError> {
    let count = reader.u32()?;
    in_range("status count", count.into(), 0..=HANDLES_MAX as u64, "at most 65536")?;
    (0..count).map(|_| read_status(reader)).collect()
}

pub(crate) fn read_status(reader: &mut Reader<'_>) -> Result<Option<ErrorCode>, DecodeError> {
    let number = reader.u16()?;
    let code = ErrorCode::from_code(number);
    if number != 0 && code.is_none() {
        let allowed = "0 or a number of SPEC.md section 11";
        return Err(DecodeError::Range { field: "status", value: number.into(), allowed });
    }
    Ok(code)
}
