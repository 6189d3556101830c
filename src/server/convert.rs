//! Tokens, the names of groups, and what a producer wants: shared by several commands.

use joblog_protocol::Token;
use joblog_protocol::job::{Batch, Due, Terms};
use joblog_protocol::messages::handles::{Handle, HandleSet};
use joblog_protocol::unique::Unique;
use siphasher::sip::SipHasher13;

use crate::broker::{
    DEFAULT_GROUP, Held, HeldSet, Logs, Plan, Rank, Wants, Wish, WishedDue, WishedKey,
};
use crate::types::{Grant, KeyHash, LogId, Offset};

/// The token of a grant: its number, little-endian, and behind it the log's unless that is 0.
/// Clients do not look inside.
pub(super) fn token(log: LogId, grant: Grant) -> Token {
    let [n0, n1, n2, n3, n4, n5, n6, n7] = grant.0.to_le_bytes();
    let [l0, l1] = log.0.to_le_bytes();
    let bytes = [n0, n1, n2, n3, n4, n5, n6, n7, l0, l1];
    let used = if log.0 == 0 { 8 } else { 10 };
    let (token, _) = bytes.split_at(used);
    Token::new(token).expect("eight or ten bytes are a token")
}

/// The log and grant of a token, if it has a form that this server gives out.
pub(super) fn grant(token: &Token) -> Option<(LogId, Grant)> {
    let (number, log) = token.as_bytes().split_first_chunk::<8>()?;
    let log = match log {
        [] => LogId(0),
        log => LogId(u16::from_le_bytes(log.try_into().ok()?)),
    };
    Some((log, Grant(u64::from_le_bytes(*number))))
}

/// The group that a name stands for.
pub(super) fn group(name: &str) -> &str {
    if name.is_empty() { DEFAULT_GROUP } else { name }
}

/// A job of a log that a worker names. A token of another log is none of this one: the grants of
/// each log count from the same number.
pub(super) fn held(log: LogId, handle: &Handle) -> Held {
    let grant = grant(&handle.token).filter(|(of, _)| *of == log).map(|(_, grant)| grant);
    Held { offset: Offset(handle.offset), grant }
}

pub(super) fn held_set<'a>(logs: &Logs, set: &HandleSet<'a>) -> HeldSet<'a> {
    let log = logs.id_of(set.queue);
    let jobs = set.handles.iter().map(|handle| held(log, handle)).collect();
    HeldSet { queue: set.queue, group: group(set.group), jobs }
}

/// What the key in a job's body is known by, if it has one that can be read: SipHash-1-3 under a
/// key of zeros. It stands in the log, so it stays what it is.
pub fn key_hash(body: &[u8]) -> Option<KeyHash> {
    let key = joblog_protocol::job::key_of(body)?;
    Some(KeyHash(SipHasher13::new().hash(key)))
}

/// What a producer wants of one job.
pub(super) fn wish(terms: &Terms) -> Wish {
    let due = terms.due.map(|due| match due {
        Due::In(delay_ms) => WishedDue::In { delay_ms },
        Due::At(wall_ms) => WishedDue::At { wall_ms },
    });
    let rank = Rank { priority: terms.priority, front: terms.front };
    Wish { due, ttl_ms: terms.ttl_ms, rank }
}

/// What the job of a schedule wants.
pub fn wants(plan: &Plan) -> Wants<'_> {
    let batch = Batch { count: 1, table: &plan.table, bodies: &plan.body };
    let mut wants = Wants::default();
    // It was checked when the schedule was added.
    drop(batch.check_terms(plan.body.len(), |ordinal, asked| {
        wants.wishes.push((ordinal, wish(&asked.terms)));
        wants.keys.extend(asked.unique.map(|unique| wished_key(ordinal, &unique)));
    }));
    wants
}

/// The unique key that a producer wants for a job. Whether the job is delayed is for the broker.
pub(super) fn wished_key<'a>(ordinal: u32, unique: &Unique<&'a [u8]>) -> WishedKey<'a> {
    let Unique { key, window_ms, replace } = *unique;
    WishedKey { ordinal, key, window_ms, replace, delayed: false }
}

#[cfg(test)]
mod tests {
    use bytes::BytesMut;
    use joblog_protocol::job::Job;

    use super::*;

    #[test]
    fn the_hash_of_a_key_is_what_it_was_in_every_log() {
        let hash_of = |key: &[u8]| {
            let mut body = BytesMut::new();
            let job = Job { key: Some(key.to_vec()), ..Job::new("hello") };
            job.put_body(&mut body).unwrap();
            key_hash(&body)
        };
        assert_eq!(hash_of(b"user-7"), Some(KeyHash(0xec60_244a_7350_3c84)));
        assert_eq!(hash_of(b""), Some(KeyHash(0xd1fb_a762_150c_532c)));
        assert_eq!(key_hash(&[0, 0, 0, 0, b'x']), None);
        assert_eq!(key_hash(b"x"), None);
    }
}
