//! The fields that facts and the records of a checkpoint are made of, as bytes and back.
//!
//! All numbers are little-endian; a text has its length in front, as a `u32`.

use bytes::{Buf, BufMut};

use crate::queue::{
    Due, EndReason, GroupKind, HeldKey, Holder, JobTerms, PRIORITY_MAX, QueueSettings, Rank,
    Removal, UniqueHit,
};
use crate::types::{KeyHash, Offset, ProducerId, SessionId};

const KIND_WORK: u8 = 1;
const KIND_STREAM: u8 = 2;

const HOLDER_SESSION: u8 = 1;
const HOLDER_TIMED: u8 = 2;

/// Every end of a lease with its number.
pub(super) const REASONS: &[(u8, EndReason)] = &[
    (1, EndReason::Released),
    (2, EndReason::Undelivered),
    (3, EndReason::Failed),
    (4, EndReason::Expired { crash: false }),
    (5, EndReason::Expired { crash: true }),
    (6, EndReason::SessionLost { crash: false }),
    (7, EndReason::SessionLost { crash: true }),
    (8, EndReason::Damaged),
];

pub(super) fn reason_code(reason: EndReason) -> u8 {
    let row = REASONS.iter().find(|(_, known)| *known == reason);
    row.expect("the table has every reason; a test goes through them").0
}

/// Every cause of a removal with its number.
pub(super) const CAUSES: &[(u8, Removal)] = &[
    (1, Removal::Dropped),
    (2, Removal::Aged),
    (3, Removal::Cancelled),
    (4, Removal::Purged),
    (5, Removal::Expired),
    (6, Removal::Moved),
    (7, Removal::Replaced),
];

pub(super) fn cause_code(cause: Removal) -> u8 {
    let row = CAUSES.iter().find(|(_, known)| *known == cause);
    row.expect("the table has every cause; a test goes through them").0
}

/// What a job's terms have: a bit for each, in the order of the fields.
const TERMS_DUE_LOG: u8 = 0x01;
const TERMS_DUE_WALL: u8 = 0x02;
const TERMS_EXPIRES: u8 = 0x04;
const TERMS_RANK: u8 = 0x08;
const TERMS_ALL: u8 = 0x0f;

/// In the byte of a rank, beside its priority.
const RANK_FRONT: u8 = 0x80;

pub(super) fn put_terms(out: &mut Vec<u8>, terms: &JobTerms) {
    let (due_bit, due_ms) = match terms.due {
        None => (0, None),
        Some(Due::Log(ms)) => (TERMS_DUE_LOG, Some(ms)),
        Some(Due::Wall(ms)) => (TERMS_DUE_WALL, Some(ms)),
    };
    let expires_bit = terms.expires_log_ms.map_or(0, |_| TERMS_EXPIRES);
    let rank_bit = if terms.rank == Rank::ORDINARY { 0 } else { TERMS_RANK };
    out.put_u8(due_bit | expires_bit | rank_bit);
    due_ms.into_iter().chain(terms.expires_log_ms).for_each(|ms| out.put_u64_le(ms));
    if rank_bit != 0 {
        put_rank(out, terms.rank);
    }
}

pub(super) fn put_rank(out: &mut Vec<u8>, rank: Rank) {
    out.put_u8(rank.priority | if rank.front { RANK_FRONT } else { 0 });
}

pub(super) fn put_held_key(out: &mut Vec<u8>, held: &HeldKey) {
    out.put_u64_le(held.offset.0);
    out.put_u8(u8::from(held.until_log_ms.is_some()));
    held.until_log_ms.into_iter().for_each(|ms| out.put_u64_le(ms));
    out.put_u8(held.key.len() as u8);
    out.put_slice(&held.key);
}

pub(super) fn put_hits(out: &mut Vec<u8>, hits: &[UniqueHit]) {
    out.put_u32_le(hits.len() as u32);
    for hit in hits {
        out.put_u32_le(hit.ordinal);
        out.put_u8(u8::from(hit.replaced));
        out.put_u64_le(hit.offset.0);
    }
}

pub(super) fn put_text(out: &mut Vec<u8>, text: &str) {
    out.put_u32_le(text.len() as u32);
    out.put_slice(text.as_bytes());
}

pub(super) fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    out.put_u32_le(bytes.len() as u32);
    out.put_slice(bytes);
}

pub(super) fn put_kind(out: &mut Vec<u8>, kind: GroupKind) {
    out.put_u8(match kind {
        GroupKind::Work => KIND_WORK,
        GroupKind::Stream => KIND_STREAM,
    });
}

pub(super) fn put_holder(out: &mut Vec<u8>, holder: Holder) {
    match holder {
        Holder::Session(SessionId(id)) => {
            out.put_u8(HOLDER_SESSION);
            out.put_slice(&id);
        }
        Holder::Timed => out.put_u8(HOLDER_TIMED),
    }
}

/// A queue's settings stand in the log by name, so that new ones can be added.
pub(super) fn put_settings(out: &mut Vec<u8>, settings: &QueueSettings) {
    let json = serde_json::to_string(settings).expect("a struct of plain fields has a JSON form");
    put_text(out, &json);
}

pub(super) fn put_key(out: &mut Vec<u8>, key: Option<KeyHash>) {
    out.put_u8(u8::from(key.is_some()));
    key.into_iter().for_each(|key| out.put_u64_le(key.0));
}

/// What is read, or why not.
pub(super) type Read<T> = Result<T, &'static str>;

pub(super) const SHORT: &str = "it ends too soon";

pub(super) fn u8(bytes: &mut &[u8]) -> Read<u8> {
    bytes.try_get_u8().map_err(|_| SHORT)
}

pub(super) fn u32(bytes: &mut &[u8]) -> Read<u32> {
    bytes.try_get_u32_le().map_err(|_| SHORT)
}

pub(super) fn u64(bytes: &mut &[u8]) -> Read<u64> {
    bytes.try_get_u64_le().map_err(|_| SHORT)
}

pub(super) fn byte_string<'a>(bytes: &mut &'a [u8]) -> Read<&'a [u8]> {
    let length = u32(bytes)? as usize;
    let (string, rest) = bytes.split_at_checked(length).ok_or(SHORT)?;
    *bytes = rest;
    Ok(string)
}

pub(super) fn text(bytes: &mut &[u8]) -> Read<Box<str>> {
    let text = byte_string(bytes)?;
    std::str::from_utf8(text).map(Box::from).map_err(|_| "a text in it is not UTF-8")
}

pub(super) fn settings(bytes: &mut &[u8]) -> Read<QueueSettings> {
    serde_json::from_str(&text(bytes)?)
        .map_err(|_| "its settings are unknown; a newer version may have written them")
}

pub(super) fn kind(bytes: &mut &[u8]) -> Read<GroupKind> {
    match u8(bytes)? {
        KIND_WORK => Ok(GroupKind::Work),
        KIND_STREAM => Ok(GroupKind::Stream),
        _ => Err("its kind of group is unknown"),
    }
}

pub(super) fn holder(bytes: &mut &[u8]) -> Read<Holder> {
    match u8(bytes)? {
        HOLDER_SESSION => {
            let (id, rest) = bytes.split_first_chunk::<16>().ok_or(SHORT)?;
            *bytes = rest;
            Ok(Holder::Session(SessionId(*id)))
        }
        HOLDER_TIMED => Ok(Holder::Timed),
        _ => Err("its kind of holder is unknown"),
    }
}

pub(super) fn reason(bytes: &mut &[u8]) -> Read<EndReason> {
    let code = u8(bytes)?;
    let row = REASONS.iter().find(|(known, _)| *known == code);
    row.map(|(_, reason)| *reason).ok_or("its reason is unknown")
}

pub(super) fn cause(bytes: &mut &[u8]) -> Read<Removal> {
    let code = u8(bytes)?;
    let row = CAUSES.iter().find(|(known, _)| *known == code);
    row.map(|(_, cause)| *cause).ok_or("its cause is unknown")
}

pub(super) fn terms(bytes: &mut &[u8]) -> Read<JobTerms> {
    let bits = u8(bytes)?;
    let both_clocks = TERMS_DUE_LOG | TERMS_DUE_WALL;
    if bits & !TERMS_ALL != 0 || bits & both_clocks == both_clocks {
        return Err("its terms are unknown; a newer version may have written them");
    }
    let due = match bits & both_clocks {
        TERMS_DUE_LOG => Some(Due::Log(u64(bytes)?)),
        TERMS_DUE_WALL => Some(Due::Wall(u64(bytes)?)),
        _ => None,
    };
    let expires = (bits & TERMS_EXPIRES != 0).then(|| u64(bytes)).transpose()?;
    let rank = (bits & TERMS_RANK != 0).then(|| rank(bytes)).transpose()?;
    Ok(JobTerms { due, expires_log_ms: expires, rank: rank.unwrap_or_default() })
}

pub(super) fn rank(bytes: &mut &[u8]) -> Read<Rank> {
    let byte = u8(bytes)?;
    let rank = Rank { priority: byte & !RANK_FRONT, front: byte & RANK_FRONT != 0 };
    let fits = rank.priority <= PRIORITY_MAX && rank != Rank::ORDINARY;
    if fits { Ok(rank) } else { Err("its rank is none that a job can have") }
}

pub(super) fn held_key(bytes: &mut &[u8]) -> Read<HeldKey> {
    let offset = Offset(u64(bytes)?);
    let until_log_ms = flag(bytes)?.then(|| u64(bytes)).transpose()?;
    let length = usize::from(u8(bytes)?);
    let (key, rest) = bytes.split_at_checked(length).ok_or(SHORT)?;
    *bytes = rest;
    Ok(HeldKey { offset, key: key.into(), until_log_ms })
}

pub(super) fn hits(bytes: &mut &[u8]) -> Read<Vec<UniqueHit>> {
    let count = u32(bytes)?;
    let hit = |_| {
        let (ordinal, replaced) = (u32(bytes)?, flag(bytes)?);
        Ok(UniqueHit { ordinal, replaced, offset: Offset(u64(bytes)?) })
    };
    (0..count).map(hit).collect()
}

pub(super) fn producer(bytes: &mut &[u8]) -> Read<ProducerId> {
    let (id, rest) = bytes.split_first_chunk::<16>().ok_or(SHORT)?;
    *bytes = rest;
    Ok(ProducerId(*id))
}

pub(super) fn key(bytes: &mut &[u8]) -> Read<Option<KeyHash>> {
    flag(bytes)?.then(|| u64(bytes).map(KeyHash)).transpose()
}

pub(super) fn flag(bytes: &mut &[u8]) -> Read<bool> {
    match u8(bytes)? {
        0 => Ok(false),
        1 => Ok(true),
        _ => Err("a flag in it is neither 0 nor 1"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::queue::{DEAD_KEPT_MS, PARKED_MAX};

    #[test]
    fn settings_of_older_logs_are_read_with_defaults_and_all_come_back() {
        let old = r#"{"failures_max":3,"backoff_first_ms":1,"backoff_longest_ms":2,
            "crashes_max":4,"crash_backoff_first_ms":5,"crash_backoff_longest_ms":6}"#;
        let read = |text: &str| {
            let mut bytes = Vec::new();
            put_text(&mut bytes, text);
            settings(&mut &bytes[..])
        };
        let found = read(old).unwrap();
        assert_eq!((found.failures_max, found.crash_backoff_longest_ms), (3, 6));
        assert_eq!((found.keep_consumed_for_ms, found.max_age_ms), (0, None));
        assert_eq!((found.dead_kept_ms, found.parked_max), (DEAD_KEPT_MS, PARKED_MAX));
        assert!(!found.ordered_by_key && found.key_concurrency_max.is_none());
        let new = QueueSettings {
            backoff_delays_ms: vec![1, 2],
            primary_group: "main".into(),
            result_kept_ms: 5,
            result_bytes_max: 200_000,
            dead_kept_ms: 10,
            keep_consumed_for_ms: 9,
            max_age_ms: Some(8),
            max_jobs: Some(7),
            max_bytes: Some(6),
            ordered_by_key: true,
            key_concurrency_max: Some(1),
            dead_keeps_key: true,
            parked_max: 5,
            ..found
        };
        let mut bytes = Vec::new();
        put_settings(&mut bytes, &new);
        assert_eq!(settings(&mut &bytes[..]), Ok(new));
        assert!(read(&old.replace('}', r#","later":1}"#)).is_err());
    }
}
