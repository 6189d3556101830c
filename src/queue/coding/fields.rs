//! What facts and records are made of, as bytes and back.

use std::sync::Arc;

use bytes::BufMut;
use serde::{Deserialize, Serialize};
use smallvec::SmallVec;

use super::{Codec, Read, SHORT, decode_all, decode_bytes, encode_all, encode_bytes};
use crate::queue::{
    CHUNK_WORDS, ChunkMembers, DeadJob, Due, EndReason, EnqueuedBatch, Firing, FiringFailure,
    GroupKind, HeldKey, Holder, JobTerms, KeyedPlace, MarkedPlace, Missed, Numbered, Outcome,
    PRIORITY_MAX, Plan, QueueSettings, Rank, Removal, RemovedCounts, Run, Runs, Schedule,
    ScheduleMark, Settled, Timing, UniqueHit,
};
use crate::types::{Grant, GroupId, KeyHash, Offset, ProducerId, QueueId, SessionId, Stamp};

/// Types around one other: as what they hold.
macro_rules! newtypes {
    ($($type:ident)*) => {$(
        impl Codec for $type {
            #[inline]
            fn encode(&self, out: &mut Vec<u8>) {
                self.0.encode(out);
            }

            fn decode(bytes: &mut &[u8]) -> Read<Self> {
                Codec::decode(bytes).map(Self)
            }
        }
    )*};
}

/// Structs: one field behind the other.
macro_rules! structs {
    ($($type:ident { $($field:ident),* })*) => {$(
        impl Codec for $type {
            fn encode(&self, out: &mut Vec<u8>) {
                let Self { $($field),* } = self;
                $($field.encode(out);)*
            }

            fn decode(bytes: &mut &[u8]) -> Read<Self> {
                Ok(Self { $($field: Codec::decode(bytes)?),* })
            }
        }

        #[cfg(test)]
        impl super::tests::samples::Sample for $type {
            fn sample(seed: usize) -> Self {
                Self { $($field: super::tests::samples::Sample::sample(seed)),* }
            }
        }
    )*};
}

/// Enums: a code, and then the fields. A field that is given a value is told by the code.
macro_rules! enums {
    ($($type:ident $unknown:literal {$(
        $code:literal $variant:ident
            $(($inner:ident))? $({ $($field:ident $(= $value:literal)?),* })?,
    )*})*) => {$(
        impl Codec for $type {
            fn encode(&self, out: &mut Vec<u8>) {
                match self {$(
                    Self::$variant $(($inner))? $({ $($field $(: $value)?),* })? => {
                        out.put_u8($code);
                        $($inner.encode(out);)?
                        $($(field!(encode out $field $($value)?);)*)?
                    }
                )*}
            }

            #[deny(unreachable_patterns)]
            fn decode(bytes: &mut &[u8]) -> Read<Self> {
                Ok(match u8::decode(bytes)? {
                    $($code => Self::$variant
                        $((field!(decode bytes $inner)))?
                        $({ $($field: field!(decode bytes $field $($value)?)),* })?,)*
                    _ => return Err($unknown),
                })
            }
        }

        #[cfg(test)]
        impl super::tests::samples::Sample for $type {
            fn sample(seed: usize) -> Self {
                let makers: &[fn(usize) -> Self] = &[$(|_seed| Self::$variant
                    $((field!(sample _seed $inner)))?
                    $({ $($field: field!(sample _seed $field $($value)?)),* })?,)*];
                super::tests::samples::one_of(makers, seed)
            }
        }
    )*};
}

macro_rules! field {
    (encode $out:ident $field:ident) => {
        $field.encode($out)
    };
    (encode $out:ident $field:ident $value:literal) => {};
    (decode $bytes:ident $field:ident) => {
        Codec::decode($bytes)?
    };
    (sample $seed:ident $field:ident) => {
        super::tests::samples::Sample::sample($seed)
    };
    ($do:ident $from:ident $field:ident $value:literal) => {
        $value
    };
}

newtypes! { QueueId Offset Grant KeyHash SessionId ProducerId }

structs! {
    Stamp { wall_ms, log_ms }
    Run { first, count }
    Numbered { producer, sequence, fingerprint }
    EnqueuedBatch { sequence, first, count, fingerprint }
    UniqueHit { ordinal, replaced, offset }
    DeadJob { reason, message, attempts, failures, crashes, died }
    Firing { due, wall_ms, offset }
    FiringFailure { wall_ms, error }
}

enums! {
    GroupKind "its kind of group is unknown" {
        1 Work,
        2 Stream,
    }
    Holder "its kind of holder is unknown" {
        1 Session(id),
        2 Timed,
    }
    EndReason "its reason is unknown" {
        1 Released,
        2 Undelivered,
        3 Failed,
        4 Expired { crash = false },
        5 Expired { crash = true },
        6 SessionLost { crash = false },
        7 SessionLost { crash = true },
        8 Damaged,
    }
    Outcome "its outcome is unknown" {
        1 Ready,
        2 Delayed { due_log_ms },
        3 Dead,
        4 Withdrawn,
    }
    Removal "its cause is unknown" {
        1 Dropped,
        2 Aged,
        3 Cancelled,
        4 Purged,
        5 Expired,
        6 Moved,
        7 Replaced,
    }
    MarkedPlace "the place of its job is unknown" {
        1 Ready,
        2 Delayed { due_log_ms },
        3 Leased,
        4 Parked,
    }
    KeyedPlace "the place of its job is unknown" {
        1 Holding,
        2 Parked,
        3 Away,
        4 Passed,
        5 Unread,
    }
    ChunkMembers "its form of a chunk is unknown" {
        1 Sparse(offsets),
        2 Dense(words),
        3 Full,
    }
    Settled "what became of its due time is unknown" {
        1 Fired { offset, next },
        2 Skipped { count, next },
        3 Failed { retry_log_ms, error },
    }
}

impl Codec for GroupId {
    fn encode(&self, out: &mut Vec<u8>) {
        self.0.encode(out);
    }

    fn decode(bytes: &mut &[u8]) -> Read<Self> {
        u32::decode(bytes).map(Self)
    }

    /// 0 is no group.
    fn encode_option(group: Option<&Self>, out: &mut Vec<u8>) {
        out.put_u32_le(group.map_or(0, |group| group.0));
    }

    fn decode_option(bytes: &mut &[u8]) -> Read<Option<Self>> {
        Ok(Some(Self::decode(bytes)?).filter(|group| group.0 != 0))
    }
}

impl Codec for [u8; 16] {
    #[inline]
    fn encode(&self, out: &mut Vec<u8>) {
        out.put_slice(self);
    }

    fn decode(bytes: &mut &[u8]) -> Read<Self> {
        let (id, rest) = bytes.split_first_chunk().ok_or(SHORT)?;
        *bytes = rest;
        Ok(*id)
    }
}

impl Codec for [u64; CHUNK_WORDS] {
    fn encode(&self, out: &mut Vec<u8>) {
        self.iter().for_each(|word| out.put_u64_le(*word));
    }

    fn decode(bytes: &mut &[u8]) -> Read<Self> {
        let mut words = [0; CHUNK_WORDS];
        for word in &mut words {
            *word = u64::decode(bytes)?;
        }
        Ok(words)
    }
}

impl Codec for Runs {
    fn encode(&self, out: &mut Vec<u8>) {
        encode_all(self, out);
    }

    fn decode(bytes: &mut &[u8]) -> Read<Self> {
        decode_all(bytes)
    }
}

impl Codec for SmallVec<[EnqueuedBatch; 1]> {
    fn encode(&self, out: &mut Vec<u8>) {
        out.put_u8(self.len() as u8);
        self.iter().for_each(|batch| batch.encode(out));
    }

    fn decode(bytes: &mut &[u8]) -> Read<Self> {
        let count = u8::decode(bytes)?;
        (0..count).map(|_| EnqueuedBatch::decode(bytes)).collect()
    }
}

impl Codec for Box<str> {
    fn encode(&self, out: &mut Vec<u8>) {
        encode_bytes(self.as_bytes(), out);
    }

    fn decode(bytes: &mut &[u8]) -> Read<Self> {
        let text = std::str::from_utf8(decode_bytes(bytes)?);
        text.map(Self::from).map_err(|_| "a text in it is not UTF-8")
    }
}

impl Codec for Box<[u8]> {
    fn encode(&self, out: &mut Vec<u8>) {
        encode_bytes(self, out);
    }

    fn decode(bytes: &mut &[u8]) -> Read<Self> {
        decode_bytes(bytes).map(Self::from)
    }
}

impl Codec for Arc<[u8]> {
    fn encode(&self, out: &mut Vec<u8>) {
        encode_bytes(self, out);
    }

    fn decode(bytes: &mut &[u8]) -> Read<Self> {
        decode_bytes(bytes).map(Self::from)
    }
}

/// A queue's settings stand in the log by name, so that new ones can be added.
impl Codec for QueueSettings {
    fn encode(&self, out: &mut Vec<u8>) {
        let json = serde_json::to_vec(self).expect("a struct of plain fields has a JSON form");
        encode_bytes(&json, out);
    }

    fn decode(bytes: &mut &[u8]) -> Read<Self> {
        serde_json::from_slice(decode_bytes(bytes)?)
            .map_err(|_| "its settings are unknown; a newer version may have written them")
    }
}

impl Codec for Due {
    fn encode(&self, out: &mut Vec<u8>) {
        Self::encode_option(Some(self), out);
    }

    fn decode(bytes: &mut &[u8]) -> Read<Self> {
        Self::decode_option(bytes)?.ok_or("its due time is missing")
    }

    fn encode_option(due: Option<&Self>, out: &mut Vec<u8>) {
        let (code, ms) = match due {
            None => return out.put_u8(0),
            Some(Self::Log(ms)) => (1, *ms),
            Some(Self::Wall(ms)) => (2, *ms),
        };
        out.put_u8(code);
        out.put_u64_le(ms);
    }

    fn decode_option(bytes: &mut &[u8]) -> Read<Option<Self>> {
        Ok(match u8::decode(bytes)? {
            0 => None,
            1 => Some(Self::Log(u64::decode(bytes)?)),
            2 => Some(Self::Wall(u64::decode(bytes)?)),
            _ => return Err("the clock of its due time is unknown"),
        })
    }
}

/// What a job's terms have: a bit for each, in the order of the fields.
const TERMS_DUE_LOG: u8 = 0x01;
const TERMS_DUE_WALL: u8 = 0x02;
const TERMS_EXPIRES: u8 = 0x04;
const TERMS_RANK: u8 = 0x08;
const TERMS_ALL: u8 = 0x0f;

impl Codec for JobTerms {
    fn encode(&self, out: &mut Vec<u8>) {
        let (due_bit, due_ms) = match self.due {
            None => (0, None),
            Some(Due::Log(ms)) => (TERMS_DUE_LOG, Some(ms)),
            Some(Due::Wall(ms)) => (TERMS_DUE_WALL, Some(ms)),
        };
        let expires_bit = self.expires_log_ms.map_or(0, |_| TERMS_EXPIRES);
        let rank_bit = if self.rank == Rank::ORDINARY { 0 } else { TERMS_RANK };
        out.put_u8(due_bit | expires_bit | rank_bit);
        due_ms.into_iter().chain(self.expires_log_ms).for_each(|ms| out.put_u64_le(ms));
        if rank_bit != 0 {
            self.rank.encode(out);
        }
    }

    fn decode(bytes: &mut &[u8]) -> Read<Self> {
        let bits = u8::decode(bytes)?;
        let both_clocks = TERMS_DUE_LOG | TERMS_DUE_WALL;
        if bits & !TERMS_ALL != 0 || bits & both_clocks == both_clocks {
            return Err("its terms are unknown; a newer version may have written them");
        }
        let due = match bits & both_clocks {
            TERMS_DUE_LOG => Some(Due::Log(u64::decode(bytes)?)),
            TERMS_DUE_WALL => Some(Due::Wall(u64::decode(bytes)?)),
            _ => None,
        };
        let expires = (bits & TERMS_EXPIRES != 0).then(|| u64::decode(bytes)).transpose()?;
        let rank = (bits & TERMS_RANK != 0).then(|| Rank::decode(bytes)).transpose()?;
        Ok(Self { due, expires_log_ms: expires, rank: rank.unwrap_or_default() })
    }
}

/// In the byte of a rank, beside its priority.
const RANK_FRONT: u8 = 0x80;

impl Codec for Rank {
    fn encode(&self, out: &mut Vec<u8>) {
        out.put_u8(self.priority | if self.front { RANK_FRONT } else { 0 });
    }

    fn decode(bytes: &mut &[u8]) -> Read<Self> {
        let byte = u8::decode(bytes)?;
        let rank = Self { priority: byte & !RANK_FRONT, front: byte & RANK_FRONT != 0 };
        let fits = rank.priority <= PRIORITY_MAX && rank != Self::ORDINARY;
        if fits { Ok(rank) } else { Err("its rank is none that a job can have") }
    }
}

impl Codec for HeldKey {
    fn encode(&self, out: &mut Vec<u8>) {
        self.offset.encode(out);
        self.until_log_ms.encode(out);
        out.put_u8(self.key.len() as u8);
        out.put_slice(&self.key);
    }

    fn decode(bytes: &mut &[u8]) -> Read<Self> {
        let (offset, until_log_ms) = (Codec::decode(bytes)?, Codec::decode(bytes)?);
        let length = usize::from(u8::decode(bytes)?);
        let key = bytes.split_off(..length).ok_or(SHORT)?;
        Ok(Self { offset, key: key.into(), until_log_ms })
    }
}

/// A count for each cause that has one.
impl Codec for RemovedCounts {
    fn encode(&self, out: &mut Vec<u8>) {
        let counted = Removal::ALL.into_iter().filter(|cause| self.of(*cause) > 0);
        out.put_u8(counted.clone().count() as u8);
        counted.for_each(|cause| (cause, self.of(cause)).encode(out));
    }

    fn decode(bytes: &mut &[u8]) -> Read<Self> {
        let mut removed = Self::default();
        for _ in 0..u8::decode(bytes)? {
            let (cause, count) = Codec::decode(bytes)?;
            removed.add(cause, count);
        }
        Ok(removed)
    }
}

impl Codec for ScheduleMark {
    fn encode(&self, out: &mut Vec<u8>) {
        Self::encode_option(Some(self), out);
    }

    fn decode(bytes: &mut &[u8]) -> Read<Self> {
        Ok(Self { due: Due::decode(bytes)?, offset: Offset::decode(bytes)? })
    }

    /// One without a due time is none.
    fn encode_option(mark: Option<&Self>, out: &mut Vec<u8>) {
        mark.map(|mark| mark.due).encode(out);
        mark.iter().for_each(|mark| mark.offset.encode(out));
    }

    fn decode_option(bytes: &mut &[u8]) -> Read<Option<Self>> {
        let Some(due) = Due::decode_option(bytes)? else { return Ok(None) };
        Ok(Some(Self { due, offset: Offset::decode(bytes)? }))
    }
}

/// A plan but for its job as it stands in the log: by name, so that new parts can be added.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct StoredPlan<'a> {
    queue: Box<str>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    cron: Option<Box<str>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    zone: Option<Box<str>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    every_ms: Option<u64>,
    missed: &'a str,
}

const MISSED_ONCE: &str = "once";
const MISSED_SKIP: &str = "skip";

impl Codec for Arc<Plan> {
    fn encode(&self, out: &mut Vec<u8>) {
        let (cron, zone, every_ms) = match self.timing.clone() {
            Timing::Cron { expression, zone } => (Some(expression), Some(zone), None),
            Timing::Every { every_ms } => (None, None, Some(every_ms)),
        };
        let missed = match self.missed {
            Missed::Once => MISSED_ONCE,
            Missed::Skip => MISSED_SKIP,
        };
        let stored = StoredPlan { queue: self.queue.clone(), cron, zone, every_ms, missed };
        let json = serde_json::to_vec(&stored).expect("a struct of texts has a JSON form");
        encode_bytes(&json, out);
        self.table.encode(out);
        self.body.encode(out);
    }

    fn decode(bytes: &mut &[u8]) -> Read<Self> {
        const UNKNOWN: &str = "its plan is unknown; a newer version may have written it";
        let stored = serde_json::from_slice(decode_bytes(bytes)?);
        let stored: StoredPlan<'_> = stored.map_err(|_| UNKNOWN)?;
        let timing = match (stored.cron, stored.zone, stored.every_ms) {
            (Some(expression), Some(zone), None) => Timing::Cron { expression, zone },
            (None, None, Some(every_ms)) => Timing::Every { every_ms },
            _ => return Err(UNKNOWN),
        };
        let missed = match stored.missed {
            MISSED_ONCE => Missed::Once,
            MISSED_SKIP => Missed::Skip,
            _ => return Err(UNKNOWN),
        };
        let (table, body) = (Codec::decode(bytes)?, Codec::decode(bytes)?);
        Ok(Self::new(Plan { queue: stored.queue, timing, missed, table, body }))
    }
}

impl Codec for Schedule {
    fn encode(&self, out: &mut Vec<u8>) {
        self.plan.encode(out);
        self.paused.encode(out);
        self.next.encode(out);
        self.retry_log_ms.map(Due::Log).encode(out);
        self.failed_in_row.encode(out);
        self.fired.encode(out);
        self.skipped.encode(out);
        self.failed.encode(out);
        self.last_firing.encode(out);
        self.last_failure.encode(out);
    }

    fn decode(bytes: &mut &[u8]) -> Read<Self> {
        Ok(Self {
            plan: Codec::decode(bytes)?,
            paused: Codec::decode(bytes)?,
            next: Codec::decode(bytes)?,
            retry_log_ms: match Due::decode_option(bytes)? {
                None => None,
                Some(Due::Log(ms)) => Some(ms),
                Some(Due::Wall(_)) => return Err("its retry is on the wrong clock"),
            },
            failed_in_row: Codec::decode(bytes)?,
            fired: Codec::decode(bytes)?,
            skipped: Codec::decode(bytes)?,
            failed: Codec::decode(bytes)?,
            last_firing: Codec::decode(bytes)?,
            last_failure: Codec::decode(bytes)?,
        })
    }
}
