//! Facts as bytes in an entry and back: the only place that knows both forms.
//!
//! `docs/log-format.md` has the table of these layouts. All numbers are little-endian. A fact
//! begins with its tag; there is no length, because a fact that can't be read can't be passed over:
//! the state behind it would be wrong.

use bytes::{Buf, BufMut};
use serde::{Deserialize, Serialize};
use smallvec::SmallVec;

use crate::queue::{
    DEAD_KEPT_MS, Due, EndReason, Fact, GroupKind, Holder, JobTerms, Outcome, QueueSettings,
    Removal, Run, Runs,
};
use crate::types::{Grant, GroupId, Offset, QueueId, SessionId};

const QUEUE_CREATED: u8 = 1;
const QUEUE_DELETED: u8 = 2;
const GROUP_CREATED: u8 = 3;
const GROUP_DELETED: u8 = 4;
const GRANTED: u8 = 5;
const EXTENDED: u8 = 6;
const COMMITTED: u8 = 7;
const COMMITTED_THROUGH: u8 = 8;
const LEASE_ENDED: u8 = 9;
const DEAD_RETRIED: u8 = 32;
const REMOVED: u8 = 33;
const TERMED: u8 = 34;

const KIND_WORK: u8 = 1;
const KIND_STREAM: u8 = 2;

const HOLDER_SESSION: u8 = 1;
const HOLDER_TIMED: u8 = 2;

const OUTCOME_READY: u8 = 1;
const OUTCOME_DELAYED: u8 = 2;
const OUTCOME_DEAD: u8 = 3;

/// Bytes of a fact in an entry that this version can't read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("fact {ordinal} of the entry can't be read: {reason}")]
pub(super) struct BadFact {
    /// Which fact of the entry, from 0.
    pub(super) ordinal: usize,
    /// What is wrong with it.
    pub(super) reason: &'static str,
}

/// A queue's settings as they stand in the log: by name, so that new ones can be added.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct StoredSettings {
    failures_max: u32,
    backoff_first_ms: u64,
    backoff_longest_ms: u64,
    crashes_max: u32,
    crash_backoff_first_ms: u64,
    crash_backoff_longest_ms: u64,
    /// Logs of before have none, and kept dead jobs for ever; nobody was promised that.
    #[serde(default = "dead_kept_ms")]
    dead_kept_ms: u64,
}

fn dead_kept_ms() -> u64 {
    DEAD_KEPT_MS
}

/// Appends one fact.
pub(super) fn encode(out: &mut Vec<u8>, fact: &Fact) {
    match fact {
        Fact::QueueCreated { queue, name, settings, first_offset } => {
            out.put_u8(QUEUE_CREATED);
            out.put_u32_le(queue.0);
            put_text(out, name);
            put_settings(out, settings);
            out.put_u64_le(first_offset.0);
        }
        Fact::QueueDeleted { queue } => {
            out.put_u8(QUEUE_DELETED);
            out.put_u32_le(queue.0);
        }
        Fact::GroupCreated { group, queue, name, kind, start } => {
            out.put_u8(GROUP_CREATED);
            out.put_u32_le(group.0);
            out.put_u32_le(queue.0);
            put_text(out, name);
            out.put_u8(match kind {
                GroupKind::Work => KIND_WORK,
                GroupKind::Stream => KIND_STREAM,
            });
            out.put_u64_le(start.0);
        }
        Fact::GroupDeleted { group } => {
            out.put_u8(GROUP_DELETED);
            out.put_u32_le(group.0);
        }
        fact => encode_lease_fact(out, fact),
    }
}

fn encode_lease_fact(out: &mut Vec<u8>, fact: &Fact) {
    match fact {
        Fact::Granted { group, holder, lease_ms, first_grant, runs } => {
            out.put_u8(GRANTED);
            out.put_u32_le(group.0);
            match holder {
                Holder::Session(SessionId(id)) => {
                    out.put_u8(HOLDER_SESSION);
                    out.put_slice(id);
                }
                Holder::Timed => out.put_u8(HOLDER_TIMED),
            }
            out.put_u64_le(*lease_ms);
            out.put_u64_le(first_grant.0);
            put_runs(out, runs);
        }
        Fact::Extended { group, offset, lease_ms } => {
            out.put_u8(EXTENDED);
            put_job(out, *group, *offset);
            out.put_u64_le(*lease_ms);
        }
        Fact::Committed { group, runs } => {
            out.put_u8(COMMITTED);
            out.put_u32_le(group.0);
            put_runs(out, runs);
        }
        Fact::CommittedThrough { group, through } => {
            out.put_u8(COMMITTED_THROUGH);
            put_job(out, *group, *through);
        }
        Fact::LeaseEnded { group, offset, reason, outcome, message } => {
            out.put_u8(LEASE_ENDED);
            put_job(out, *group, *offset);
            out.put_u8(reason_code(*reason));
            match outcome {
                Outcome::Ready => out.put_u8(OUTCOME_READY),
                Outcome::Delayed { due_log_ms } => {
                    out.put_u8(OUTCOME_DELAYED);
                    out.put_u64_le(*due_log_ms);
                }
                Outcome::Dead => out.put_u8(OUTCOME_DEAD),
            }
            put_text(out, message);
        }
        Fact::DeadRetried { group, runs } => {
            out.put_u8(DEAD_RETRIED);
            out.put_u32_le(group.0);
            put_runs(out, runs);
        }
        Fact::Removed { group, cause, runs } => {
            out.put_u8(REMOVED);
            out.put_u32_le(group.0);
            out.put_u8(cause_code(*cause));
            put_runs(out, runs);
        }
        Fact::Termed { queue, runs } => {
            out.put_u8(TERMED);
            out.put_u32_le(queue.0);
            out.put_u32_le(runs.len() as u32);
            runs.iter().for_each(|(run, terms)| put_terms(out, *run, terms));
        }
        _ => unreachable!("the other facts are encoded by encode"),
    }
}

/// Every end of a lease with its number.
const REASONS: &[(u8, EndReason)] = &[
    (1, EndReason::Released),
    (2, EndReason::Undelivered),
    (3, EndReason::Failed),
    (4, EndReason::Expired { crash: false }),
    (5, EndReason::Expired { crash: true }),
    (6, EndReason::SessionLost { crash: false }),
    (7, EndReason::SessionLost { crash: true }),
    (8, EndReason::Damaged),
];

fn reason_code(reason: EndReason) -> u8 {
    let row = REASONS.iter().find(|(_, known)| *known == reason);
    row.expect("the table has every reason; a test goes through them").0
}

/// What a job's terms have: a bit for each, in the order of the fields.
const TERMS_DUE_LOG: u8 = 0x01;
const TERMS_DUE_WALL: u8 = 0x02;
const TERMS_ALL: u8 = 0x03;

fn put_terms(out: &mut Vec<u8>, run: Run, terms: &JobTerms) {
    let (due_bit, due_ms) = match terms.due {
        None => (0, None),
        Some(Due::Log(ms)) => (TERMS_DUE_LOG, Some(ms)),
        Some(Due::Wall(ms)) => (TERMS_DUE_WALL, Some(ms)),
    };
    out.put_u64_le(run.first.0);
    out.put_u32_le(run.count);
    out.put_u8(due_bit);
    if let Some(ms) = due_ms {
        out.put_u64_le(ms);
    }
}

/// Every cause of a removal with its number.
const CAUSES: &[(u8, Removal)] = &[(1, Removal::Dropped), (2, Removal::Aged)];

fn cause_code(cause: Removal) -> u8 {
    let row = CAUSES.iter().find(|(_, known)| *known == cause);
    row.expect("the table has every cause; a test goes through them").0
}

fn put_text(out: &mut Vec<u8>, text: &str) {
    out.put_u32_le(text.len() as u32);
    out.put_slice(text.as_bytes());
}

fn put_job(out: &mut Vec<u8>, group: GroupId, offset: Offset) {
    out.put_u32_le(group.0);
    out.put_u64_le(offset.0);
}

fn put_runs(out: &mut Vec<u8>, runs: &[Run]) {
    out.put_u32_le(runs.len() as u32);
    for run in runs {
        out.put_u64_le(run.first.0);
        out.put_u32_le(run.count);
    }
}

fn put_settings(out: &mut Vec<u8>, settings: &QueueSettings) {
    let stored = StoredSettings {
        failures_max: settings.failures_max,
        backoff_first_ms: settings.backoff_first_ms,
        backoff_longest_ms: settings.backoff_longest_ms,
        crashes_max: settings.crashes_max,
        crash_backoff_first_ms: settings.crash_backoff_first_ms,
        crash_backoff_longest_ms: settings.crash_backoff_longest_ms,
        dead_kept_ms: settings.dead_kept_ms,
    };
    let json = serde_json::to_string(&stored).expect("a struct of numbers has a JSON form");
    put_text(out, &json);
}

/// Reads all facts of an entry.
///
/// # Errors
/// [`BadFact`] for the first one that can't be read.
pub(super) fn decode_all(mut bytes: &[u8]) -> Result<SmallVec<[Fact; 2]>, BadFact> {
    let mut facts = SmallVec::new();
    while bytes.has_remaining() {
        let bad = |reason| BadFact { ordinal: facts.len(), reason };
        let fact = decode(&mut bytes).map_err(bad)?;
        facts.push(fact);
    }
    Ok(facts)
}

type Read<T> = Result<T, &'static str>;

const SHORT: &str = "it ends too soon";

fn decode(bytes: &mut &[u8]) -> Read<Fact> {
    Ok(match u8(bytes)? {
        QUEUE_CREATED => Fact::QueueCreated {
            queue: QueueId(u32(bytes)?),
            name: text(bytes)?,
            settings: settings(bytes)?,
            first_offset: Offset(u64(bytes)?),
        },
        QUEUE_DELETED => Fact::QueueDeleted { queue: QueueId(u32(bytes)?) },
        GROUP_CREATED => Fact::GroupCreated {
            group: GroupId(u32(bytes)?),
            queue: QueueId(u32(bytes)?),
            name: text(bytes)?,
            kind: kind(bytes)?,
            start: Offset(u64(bytes)?),
        },
        GROUP_DELETED => Fact::GroupDeleted { group: GroupId(u32(bytes)?) },
        GRANTED => Fact::Granted {
            group: GroupId(u32(bytes)?),
            holder: holder(bytes)?,
            lease_ms: u64(bytes)?,
            first_grant: Grant(u64(bytes)?),
            runs: runs(bytes)?,
        },
        EXTENDED => Fact::Extended {
            group: GroupId(u32(bytes)?),
            offset: Offset(u64(bytes)?),
            lease_ms: u64(bytes)?,
        },
        COMMITTED => Fact::Committed { group: GroupId(u32(bytes)?), runs: runs(bytes)? },
        COMMITTED_THROUGH => {
            Fact::CommittedThrough { group: GroupId(u32(bytes)?), through: Offset(u64(bytes)?) }
        }
        LEASE_ENDED => Fact::LeaseEnded {
            group: GroupId(u32(bytes)?),
            offset: Offset(u64(bytes)?),
            reason: reason(bytes)?,
            outcome: outcome(bytes)?,
            message: text(bytes)?,
        },
        DEAD_RETRIED => Fact::DeadRetried { group: GroupId(u32(bytes)?), runs: runs(bytes)? },
        TERMED => {
            let (queue, count) = (QueueId(u32(bytes)?), u32(bytes)?);
            let runs = (0..count).map(|_| terms(bytes)).collect::<Read<_>>()?;
            Fact::Termed { queue, runs }
        }
        REMOVED => {
            Fact::Removed { group: GroupId(u32(bytes)?), cause: cause(bytes)?, runs: runs(bytes)? }
        }
        _ => return Err("its tag is unknown; a newer version may have written it"),
    })
}

fn u8(bytes: &mut &[u8]) -> Read<u8> {
    bytes.try_get_u8().map_err(|_| SHORT)
}

fn u32(bytes: &mut &[u8]) -> Read<u32> {
    bytes.try_get_u32_le().map_err(|_| SHORT)
}

fn u64(bytes: &mut &[u8]) -> Read<u64> {
    bytes.try_get_u64_le().map_err(|_| SHORT)
}

fn text(bytes: &mut &[u8]) -> Read<Box<str>> {
    let length = u32(bytes)? as usize;
    let (text, rest) = bytes.split_at_checked(length).ok_or(SHORT)?;
    *bytes = rest;
    std::str::from_utf8(text).map(Box::from).map_err(|_| "a text in it is not UTF-8")
}

fn settings(bytes: &mut &[u8]) -> Read<QueueSettings> {
    let stored: StoredSettings = serde_json::from_str(&text(bytes)?)
        .map_err(|_| "its settings are unknown; a newer version may have written them")?;
    Ok(QueueSettings {
        failures_max: stored.failures_max,
        backoff_first_ms: stored.backoff_first_ms,
        backoff_longest_ms: stored.backoff_longest_ms,
        crashes_max: stored.crashes_max,
        crash_backoff_first_ms: stored.crash_backoff_first_ms,
        crash_backoff_longest_ms: stored.crash_backoff_longest_ms,
        dead_kept_ms: stored.dead_kept_ms,
    })
}

fn kind(bytes: &mut &[u8]) -> Read<GroupKind> {
    match u8(bytes)? {
        KIND_WORK => Ok(GroupKind::Work),
        KIND_STREAM => Ok(GroupKind::Stream),
        _ => Err("its kind of group is unknown"),
    }
}

fn holder(bytes: &mut &[u8]) -> Read<Holder> {
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

fn runs(bytes: &mut &[u8]) -> Read<Runs> {
    let count = u32(bytes)?;
    (0..count).map(|_| Ok(Run { first: Offset(u64(bytes)?), count: u32(bytes)? })).collect()
}

fn reason(bytes: &mut &[u8]) -> Read<EndReason> {
    let code = u8(bytes)?;
    let row = REASONS.iter().find(|(known, _)| *known == code);
    row.map(|(_, reason)| *reason).ok_or("its reason is unknown")
}

fn terms(bytes: &mut &[u8]) -> Read<(Run, JobTerms)> {
    let run = Run { first: Offset(u64(bytes)?), count: u32(bytes)? };
    let bits = u8(bytes)?;
    if bits & !TERMS_ALL != 0 || bits & TERMS_ALL == TERMS_ALL {
        return Err("its terms are unknown; a newer version may have written them");
    }
    let due = match bits {
        TERMS_DUE_LOG => Some(Due::Log(u64(bytes)?)),
        TERMS_DUE_WALL => Some(Due::Wall(u64(bytes)?)),
        _ => None,
    };
    Ok((run, JobTerms { due }))
}

fn cause(bytes: &mut &[u8]) -> Read<Removal> {
    let code = u8(bytes)?;
    let row = CAUSES.iter().find(|(known, _)| *known == code);
    row.map(|(_, cause)| *cause).ok_or("its cause is unknown")
}

fn outcome(bytes: &mut &[u8]) -> Read<Outcome> {
    match u8(bytes)? {
        OUTCOME_READY => Ok(Outcome::Ready),
        OUTCOME_DELAYED => Ok(Outcome::Delayed { due_log_ms: u64(bytes)? }),
        OUTCOME_DEAD => Ok(Outcome::Dead),
        _ => Err("its outcome is unknown"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one_of_each() -> Vec<Fact> {
        let (group, queue, offset) = (GroupId(7), QueueId(3), Offset(1 << 40));
        let runs: Runs = [Run { first: offset, count: 2 }, Run { first: Offset(9), count: 1 }]
            .into_iter()
            .collect();
        let settings = QueueSettings { failures_max: 3, ..QueueSettings::default() };
        let mut facts = vec![
            Fact::QueueCreated { queue, name: "q".into(), settings, first_offset: Offset(5) },
            Fact::QueueDeleted { queue },
            Fact::GroupCreated {
                group,
                queue,
                name: "default".into(),
                kind: GroupKind::Stream,
                start: offset,
            },
            Fact::GroupDeleted { group },
            Fact::Granted {
                group,
                holder: Holder::Session(SessionId([9; 16])),
                lease_ms: 30_000,
                first_grant: Grant(u64::MAX - 5),
                runs: runs.clone(),
            },
            Fact::Extended { group, offset, lease_ms: 100 },
            Fact::Committed { group, runs: runs.clone() },
            Fact::DeadRetried { group, runs: runs.clone() },
            Fact::CommittedThrough { group, through: offset },
        ];
        let outcomes = [Outcome::Ready, Outcome::Delayed { due_log_ms: 5 }, Outcome::Dead];
        for (ordinal, (_, reason)) in REASONS.iter().enumerate() {
            let outcome = outcomes[ordinal % outcomes.len()];
            let message = "no room".into();
            facts.push(Fact::LeaseEnded { group, offset, reason: *reason, outcome, message });
        }
        let dues = [Some(Due::Log(1)), None, Some(Due::Wall(u64::MAX))].into_iter();
        let run = Run { first: offset, count: 3 };
        let runs_of_terms = dues.map(|due| (run, JobTerms { due })).collect();
        facts.push(Fact::Termed { queue, runs: runs_of_terms });
        assert_eq!(CAUSES.len(), Removal::ALL.len());
        for cause in Removal::ALL {
            facts.push(Fact::Removed { group, cause, runs: runs.clone() });
        }
        facts
    }

    #[test]
    fn every_fact_comes_back() {
        let facts = one_of_each();
        let mut bytes = Vec::new();
        facts.iter().for_each(|fact| encode(&mut bytes, fact));
        assert_eq!(decode_all(&bytes).unwrap().into_vec(), facts);
    }

    #[test]
    fn no_beginning_of_a_fact_passes() {
        for fact in one_of_each() {
            let mut bytes = Vec::new();
            encode(&mut bytes, &fact);
            for end in 1..bytes.len() {
                let error = decode_all(&bytes[..end]).unwrap_err();
                assert_eq!(error.ordinal, 0, "{fact:?} cut at {end}");
            }
        }
        assert!(decode_all(&[0]).is_err(), "zero is no tag");
    }
}
