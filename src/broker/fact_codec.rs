//! Facts as bytes in an entry and back: the only place that knows both forms.
//!
//! `docs/log-format.md` has the table of these layouts. All numbers are little-endian. A fact
//! begins with its tag; there is no length, because a fact that can't be read can't be passed over:
//! the state behind it would be wrong.

use bytes::{Buf, BufMut};
use smallvec::SmallVec;

use super::fields::*;
use super::schedule_codec;
use crate::queue::{Fact, GroupFact, JobFact, LeaseFact, Numbered, Outcome, QueueFact, Run, Runs};
use crate::types::{Grant, GroupId, Offset, QueueId};

const QUEUE_CREATED: u8 = 1;
const QUEUE_DELETED: u8 = 2;
const GROUP_CREATED: u8 = 3;
const GROUP_DELETED: u8 = 4;
const GRANTED: u8 = 5;
const EXTENDED: u8 = 6;
const COMMITTED: u8 = 7;
const COMMITTED_THROUGH: u8 = 8;
const LEASE_ENDED: u8 = 9;
const GROUP_SOUGHT: u8 = 10;
const EXPIRED: u8 = 11;
const KEPT_TURNED: u8 = 12;
const OFFSETS_RESERVED: u8 = 13;
const OFFSETS_SKIPPED: u8 = 14;
const DEAD_RETRIED: u8 = 32;
const REMOVED: u8 = 33;
const TERMED: u8 = 34;
const WITHDRAWN: u8 = 35;
const PAUSED: u8 = 36;
const PASSED: u8 = 44;
const QUEUE_UPDATED: u8 = 48;
const KEYS_HELD: u8 = 49;
const UNIQUE_HITS: u8 = 50;
const COMMITTED_WITH_RESULT: u8 = 53;
const PROGRESSED: u8 = 54;

const OUTCOME_READY: u8 = 1;
const OUTCOME_DELAYED: u8 = 2;
const OUTCOME_DEAD: u8 = 3;
const OUTCOME_WITHDRAWN: u8 = 4;

/// Bytes of a fact in an entry that this version can't read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("fact {ordinal} of the entry can't be read: {reason}")]
pub(super) struct BadFact {
    /// Which fact of the entry, from 0.
    pub(super) ordinal: usize,
    /// What is wrong with it.
    pub(super) reason: &'static str,
}

/// Appends one fact.
pub(super) fn encode(out: &mut Vec<u8>, fact: &Fact) {
    match fact {
        Fact::Queue(QueueFact::Created { queue, name, settings, first_offset }) => {
            out.put_u8(QUEUE_CREATED);
            out.put_u32_le(queue.0);
            put_text(out, name);
            put_settings(out, settings);
            out.put_u64_le(first_offset.0);
        }
        Fact::Queue(QueueFact::Deleted { queue }) => {
            out.put_u8(QUEUE_DELETED);
            out.put_u32_le(queue.0);
        }
        Fact::Queue(QueueFact::Updated { queue, settings }) => {
            out.put_u8(QUEUE_UPDATED);
            out.put_u32_le(queue.0);
            put_settings(out, settings);
        }
        Fact::Group(GroupFact::Created { group, queue, name, kind, start }) => {
            out.put_u8(GROUP_CREATED);
            out.put_u32_le(group.0);
            out.put_u32_le(queue.0);
            put_text(out, name);
            put_kind(out, *kind);
            out.put_u64_le(start.0);
        }
        Fact::Group(GroupFact::Deleted { group }) => {
            out.put_u8(GROUP_DELETED);
            out.put_u32_le(group.0);
        }
        Fact::Group(GroupFact::Sought { group, to }) => {
            out.put_u8(GROUP_SOUGHT);
            put_job(out, *group, *to);
        }
        Fact::Queue(QueueFact::Expired { queue, below }) => {
            out.put_u8(EXPIRED);
            out.put_u32_le(queue.0);
            out.put_u64_le(below.0);
        }
        Fact::Queue(QueueFact::KeptTurned { queue }) => {
            out.put_u8(KEPT_TURNED);
            out.put_u32_le(queue.0);
        }
        Fact::Queue(QueueFact::OffsetsReserved { count }) => {
            out.put_u8(OFFSETS_RESERVED);
            out.put_u64_le(*count);
        }
        Fact::Queue(QueueFact::OffsetsSkipped { count }) => {
            out.put_u8(OFFSETS_SKIPPED);
            out.put_u64_le(*count);
        }
        fact => encode_lease_fact(out, fact),
    }
}

fn encode_lease_fact(out: &mut Vec<u8>, fact: &Fact) {
    match fact {
        Fact::Lease(LeaseFact::Granted { group, holder, lease_ms, first_grant, runs }) => {
            out.put_u8(GRANTED);
            out.put_u32_le(group.0);
            put_holder(out, *holder);
            out.put_u64_le(*lease_ms);
            out.put_u64_le(first_grant.0);
            put_runs(out, runs);
        }
        Fact::Lease(LeaseFact::Extended { group, offset, lease_ms }) => {
            out.put_u8(EXTENDED);
            put_job(out, *group, *offset);
            out.put_u64_le(*lease_ms);
        }
        Fact::Lease(LeaseFact::Progressed { group, offset, note }) => {
            out.put_u8(PROGRESSED);
            put_job(out, *group, *offset);
            put_text(out, note);
        }
        Fact::Lease(LeaseFact::Committed { group, runs }) => {
            out.put_u8(COMMITTED);
            out.put_u32_le(group.0);
            put_runs(out, runs);
        }
        Fact::Lease(LeaseFact::CommittedWithResult {
            group,
            offset,
            result,
            until_log_ms,
            displaced,
        }) => {
            out.put_u8(COMMITTED_WITH_RESULT);
            put_job(out, *group, *offset);
            out.put_u64_le(*until_log_ms);
            out.put_u32_le(*displaced);
            put_bytes(out, result);
        }
        Fact::Group(GroupFact::CommittedThrough { group, through }) => {
            out.put_u8(COMMITTED_THROUGH);
            put_job(out, *group, *through);
        }
        Fact::Lease(LeaseFact::Ended { group, offset, reason, outcome, message }) => {
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
                Outcome::Withdrawn => out.put_u8(OUTCOME_WITHDRAWN),
            }
            put_text(out, message);
        }
        fact => encode_job_fact(out, fact),
    }
}

fn encode_job_fact(out: &mut Vec<u8>, fact: &Fact) {
    match fact {
        Fact::Job(JobFact::DeadRetried { group, runs }) => {
            out.put_u8(DEAD_RETRIED);
            out.put_u32_le(group.0);
            put_runs(out, runs);
        }
        Fact::Job(JobFact::Removed { group, cause, runs }) => {
            out.put_u8(REMOVED);
            out.put_u32_le(group.0);
            out.put_u8(cause_code(*cause));
            put_runs(out, runs);
        }
        Fact::Job(JobFact::Termed { queue, runs }) => {
            out.put_u8(TERMED);
            out.put_u32_le(queue.0);
            out.put_u32_le(runs.len() as u32);
            for (run, terms) in runs {
                put_run(out, *run);
                put_terms(out, terms);
            }
        }
        Fact::Job(JobFact::KeysHeld { queue, keys }) => {
            out.put_u8(KEYS_HELD);
            out.put_u32_le(queue.0);
            out.put_u32_le(keys.len() as u32);
            keys.iter().for_each(|held| put_held_key(out, held));
        }
        Fact::Job(JobFact::UniqueHits { queue, batch, first, count, hits }) => {
            out.put_u8(UNIQUE_HITS);
            out.put_u32_le(queue.0);
            out.put_u8(u8::from(batch.is_some()));
            if let Some(Numbered { producer, sequence, fingerprint }) = batch {
                out.put_slice(&producer.0);
                out.put_u64_le(*sequence);
                out.put_u32_le(*fingerprint);
            }
            out.put_u64_le(first.0);
            out.put_u32_le(*count);
            put_hits(out, hits);
        }
        Fact::Job(JobFact::Withdrawn { queue, cause, runs }) => {
            out.put_u8(WITHDRAWN);
            out.put_u32_le(queue.0);
            out.put_u8(cause_code(*cause));
            put_runs(out, runs);
        }
        Fact::Group(GroupFact::Passed { group, runs }) => {
            out.put_u8(PASSED);
            out.put_u32_le(group.0);
            out.put_u32_le(runs.len() as u32);
            for (run, key) in runs {
                put_run(out, *run);
                put_key(out, *key);
            }
        }
        Fact::Queue(QueueFact::Paused { queue, group, paused }) => {
            out.put_u8(PAUSED);
            out.put_u32_le(queue.0);
            out.put_u32_le(group.map_or(0, |group| group.0));
            out.put_u8(u8::from(*paused));
        }
        fact => schedule_codec::encode_fact(out, fact),
    }
}

fn put_job(out: &mut Vec<u8>, group: GroupId, offset: Offset) {
    out.put_u32_le(group.0);
    out.put_u64_le(offset.0);
}

fn put_runs(out: &mut Vec<u8>, runs: &[Run]) {
    out.put_u32_le(runs.len() as u32);
    runs.iter().for_each(|run| put_run(out, *run));
}

fn put_run(out: &mut Vec<u8>, run: Run) {
    out.put_u64_le(run.first.0);
    out.put_u32_le(run.count);
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

fn decode(bytes: &mut &[u8]) -> Read<Fact> {
    Ok(match u8(bytes)? {
        QUEUE_CREATED => Fact::Queue(QueueFact::Created {
            queue: QueueId(u32(bytes)?),
            name: text(bytes)?,
            settings: settings(bytes)?,
            first_offset: Offset(u64(bytes)?),
        }),
        QUEUE_DELETED => Fact::Queue(QueueFact::Deleted { queue: QueueId(u32(bytes)?) }),
        QUEUE_UPDATED => Fact::Queue(QueueFact::Updated {
            queue: QueueId(u32(bytes)?),
            settings: settings(bytes)?,
        }),
        GROUP_CREATED => Fact::Group(GroupFact::Created {
            group: GroupId(u32(bytes)?),
            queue: QueueId(u32(bytes)?),
            name: text(bytes)?,
            kind: kind(bytes)?,
            start: Offset(u64(bytes)?),
        }),
        GROUP_DELETED => Fact::Group(GroupFact::Deleted { group: GroupId(u32(bytes)?) }),
        GROUP_SOUGHT => {
            Fact::Group(GroupFact::Sought { group: GroupId(u32(bytes)?), to: Offset(u64(bytes)?) })
        }
        EXPIRED => Fact::Queue(QueueFact::Expired {
            queue: QueueId(u32(bytes)?),
            below: Offset(u64(bytes)?),
        }),
        KEPT_TURNED => Fact::Queue(QueueFact::KeptTurned { queue: QueueId(u32(bytes)?) }),
        OFFSETS_RESERVED => Fact::Queue(QueueFact::OffsetsReserved { count: u64(bytes)? }),
        OFFSETS_SKIPPED => Fact::Queue(QueueFact::OffsetsSkipped { count: u64(bytes)? }),
        tag => return decode_about_jobs(tag, bytes),
    })
}

fn decode_about_jobs(tag: u8, bytes: &mut &[u8]) -> Read<Fact> {
    Ok(match tag {
        GRANTED => Fact::Lease(LeaseFact::Granted {
            group: GroupId(u32(bytes)?),
            holder: holder(bytes)?,
            lease_ms: u64(bytes)?,
            first_grant: Grant(u64(bytes)?),
            runs: runs(bytes)?,
        }),
        EXTENDED => Fact::Lease(LeaseFact::Extended {
            group: GroupId(u32(bytes)?),
            offset: Offset(u64(bytes)?),
            lease_ms: u64(bytes)?,
        }),
        COMMITTED => {
            Fact::Lease(LeaseFact::Committed { group: GroupId(u32(bytes)?), runs: runs(bytes)? })
        }
        PROGRESSED => Fact::Lease(LeaseFact::Progressed {
            group: GroupId(u32(bytes)?),
            offset: Offset(u64(bytes)?),
            note: text(bytes)?,
        }),
        COMMITTED_WITH_RESULT => Fact::Lease(LeaseFact::CommittedWithResult {
            group: GroupId(u32(bytes)?),
            offset: Offset(u64(bytes)?),
            until_log_ms: u64(bytes)?,
            displaced: u32(bytes)?,
            result: byte_string(bytes)?.into(),
        }),
        COMMITTED_THROUGH => Fact::Group(GroupFact::CommittedThrough {
            group: GroupId(u32(bytes)?),
            through: Offset(u64(bytes)?),
        }),
        LEASE_ENDED => Fact::Lease(LeaseFact::Ended {
            group: GroupId(u32(bytes)?),
            offset: Offset(u64(bytes)?),
            reason: reason(bytes)?,
            outcome: outcome(bytes)?,
            message: text(bytes)?,
        }),
        GROUP_SOUGHT => {
            Fact::Group(GroupFact::Sought { group: GroupId(u32(bytes)?), to: Offset(u64(bytes)?) })
        }
        EXPIRED => Fact::Queue(QueueFact::Expired {
            queue: QueueId(u32(bytes)?),
            below: Offset(u64(bytes)?),
        }),
        KEPT_TURNED => Fact::Queue(QueueFact::KeptTurned { queue: QueueId(u32(bytes)?) }),
        OFFSETS_RESERVED => Fact::Queue(QueueFact::OffsetsReserved { count: u64(bytes)? }),
        OFFSETS_SKIPPED => Fact::Queue(QueueFact::OffsetsSkipped { count: u64(bytes)? }),
        tag => decode_job_fact(tag, bytes)?,
    })
}

fn decode_job_fact(tag: u8, bytes: &mut &[u8]) -> Read<Fact> {
    Ok(match tag {
        DEAD_RETRIED => {
            Fact::Job(JobFact::DeadRetried { group: GroupId(u32(bytes)?), runs: runs(bytes)? })
        }
        WITHDRAWN => Fact::Job(JobFact::Withdrawn {
            queue: QueueId(u32(bytes)?),
            cause: cause(bytes)?,
            runs: runs(bytes)?,
        }),
        PAUSED => Fact::Queue(QueueFact::Paused {
            queue: QueueId(u32(bytes)?),
            group: Some(GroupId(u32(bytes)?)).filter(|group| group.0 != 0),
            paused: flag(bytes)?,
        }),
        TERMED => {
            let (queue, count) = (QueueId(u32(bytes)?), u32(bytes)?);
            let runs = (0..count).map(|_| Ok((run(bytes)?, terms(bytes)?))).collect::<Read<_>>()?;
            Fact::Job(JobFact::Termed { queue, runs })
        }
        PASSED => {
            let (group, count) = (GroupId(u32(bytes)?), u32(bytes)?);
            let runs = (0..count).map(|_| Ok((run(bytes)?, key(bytes)?))).collect::<Read<_>>()?;
            Fact::Group(GroupFact::Passed { group, runs })
        }
        KEYS_HELD => {
            let (queue, count) = (QueueId(u32(bytes)?), u32(bytes)?);
            let keys = (0..count).map(|_| held_key(bytes)).collect::<Read<_>>()?;
            Fact::Job(JobFact::KeysHeld { queue, keys })
        }
        UNIQUE_HITS => Fact::Job(JobFact::UniqueHits {
            queue: QueueId(u32(bytes)?),
            batch: flag(bytes)?.then(|| numbered(bytes)).transpose()?,
            first: Offset(u64(bytes)?),
            count: u32(bytes)?,
            hits: hits(bytes)?,
        }),
        REMOVED => Fact::Job(JobFact::Removed {
            group: GroupId(u32(bytes)?),
            cause: cause(bytes)?,
            runs: runs(bytes)?,
        }),
        tag => schedule_codec::fact(tag, bytes)?,
    })
}

fn numbered(bytes: &mut &[u8]) -> Read<Numbered> {
    let (producer, sequence) = (producer(bytes)?, u64(bytes)?);
    Ok(Numbered { producer, sequence, fingerprint: u32(bytes)? })
}

fn runs(bytes: &mut &[u8]) -> Read<Runs> {
    let count = u32(bytes)?;
    (0..count).map(|_| run(bytes)).collect()
}

fn run(bytes: &mut &[u8]) -> Read<Run> {
    Ok(Run { first: Offset(u64(bytes)?), count: u32(bytes)? })
}

fn outcome(bytes: &mut &[u8]) -> Read<Outcome> {
    match u8(bytes)? {
        OUTCOME_READY => Ok(Outcome::Ready),
        OUTCOME_DELAYED => Ok(Outcome::Delayed { due_log_ms: u64(bytes)? }),
        OUTCOME_DEAD => Ok(Outcome::Dead),
        OUTCOME_WITHDRAWN => Ok(Outcome::Withdrawn),
        _ => Err("its outcome is unknown"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::queue::{
        Due, GroupKind, HeldKey, Holder, JobTerms, QueueSettings, Rank, Removal, UniqueHit,
    };
    use crate::types::{KeyHash, ProducerId, SessionId};

    fn one_of_each() -> Vec<Fact> {
        let (group, queue, offset) = (GroupId(7), QueueId(3), Offset(1 << 40));
        let runs: Runs = [Run { first: offset, count: 2 }, Run { first: Offset(9), count: 1 }]
            .into_iter()
            .collect();
        let settings = QueueSettings { failures_max: 3, ..QueueSettings::default() };
        let mut facts = vec![
            Fact::Queue(QueueFact::Updated { queue, settings: settings.clone() }),
            Fact::Queue(QueueFact::Created {
                queue,
                name: "q".into(),
                settings,
                first_offset: Offset(5),
            }),
            Fact::Queue(QueueFact::Deleted { queue }),
            Fact::Group(GroupFact::Created {
                group,
                queue,
                name: "default".into(),
                kind: GroupKind::Stream,
                start: offset,
            }),
            Fact::Group(GroupFact::Deleted { group }),
            Fact::Lease(LeaseFact::Granted {
                group,
                holder: Holder::Session(SessionId([9; 16])),
                lease_ms: 30_000,
                first_grant: Grant(u64::MAX - 5),
                runs: runs.clone(),
            }),
            Fact::Lease(LeaseFact::Extended { group, offset, lease_ms: 100 }),
            Fact::Lease(LeaseFact::Committed { group, runs: runs.clone() }),
            Fact::Lease(LeaseFact::Progressed { group, offset, note: "halfway".into() }),
            Fact::Lease(LeaseFact::CommittedWithResult {
                group,
                offset,
                result: b"42".as_slice().into(),
                until_log_ms: 1 << 50,
                displaced: 3,
            }),
            Fact::Job(JobFact::DeadRetried { group, runs: runs.clone() }),
            Fact::Group(GroupFact::CommittedThrough { group, through: offset }),
            Fact::Group(GroupFact::Sought { group, to: offset }),
            Fact::Queue(QueueFact::Expired { queue, below: offset }),
            Fact::Queue(QueueFact::KeptTurned { queue }),
            Fact::Queue(QueueFact::OffsetsReserved { count: 0 }),
            Fact::Queue(QueueFact::OffsetsSkipped { count: 1 << 40 }),
        ];
        let delayed = Outcome::Delayed { due_log_ms: 5 };
        let outcomes = [Outcome::Ready, delayed, Outcome::Dead, Outcome::Withdrawn];
        for (ordinal, (_, reason)) in REASONS.iter().enumerate() {
            let outcome = outcomes[ordinal % outcomes.len()];
            let message = "no room".into();
            facts.push(Fact::Lease(LeaseFact::Ended {
                group,
                offset,
                reason: *reason,
                outcome,
                message,
            }));
        }
        let dues = [Some(Due::Log(1)), None, Some(Due::Wall(u64::MAX))].into_iter();
        let run = Run { first: offset, count: 3 };
        let terms_of = |due: Option<Due>| {
            let rank = Rank { priority: 9, front: due.is_some() };
            JobTerms { due, expires_log_ms: due.map(|_| 7), rank }
        };
        let runs_of_terms = dues.map(|due| (run, terms_of(due))).collect();
        facts.push(Fact::Job(JobFact::Termed { queue, runs: runs_of_terms }));
        let keys = [Some(KeyHash(u64::MAX)), None].map(|key| (run, key));
        facts.push(Fact::Group(GroupFact::Passed { group, runs: keys.to_vec() }));
        for group in [None, Some(group)] {
            facts.push(Fact::Queue(QueueFact::Paused { queue, group, paused: group.is_none() }));
        }
        let held = |until_log_ms| HeldKey { offset, key: b"once"[..].into(), until_log_ms };
        facts.push(Fact::Job(JobFact::KeysHeld { queue, keys: vec![held(None), held(Some(8))] }));
        let producer = ProducerId([7; 16]);
        for batch in [None, Some(Numbered { producer, sequence: 9, fingerprint: 1 << 30 })] {
            let replaced = batch.is_some();
            let hits = vec![UniqueHit { ordinal: 3, replaced, offset }];
            facts.push(Fact::Job(JobFact::UniqueHits {
                queue,
                batch,
                first: offset,
                count: 4,
                hits,
            }));
        }
        let cause = Removal::Purged;
        facts.extend(schedule_codec::tests::facts());
        facts.push(Fact::Job(JobFact::Withdrawn { queue, cause, runs: runs.clone() }));
        assert_eq!(CAUSES.len(), Removal::ALL.len());
        for cause in Removal::ALL {
            facts.push(Fact::Job(JobFact::Removed { group, cause, runs: runs.clone() }));
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
