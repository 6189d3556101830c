//! The records of a checkpoint as bytes and back: the only place that knows both forms.
//!
//! `docs/log-format.md` has the table of these layouts; a test compares the tags. As with facts, a
//! record that can't be read can't be passed over.

use bytes::{Buf, BufMut};
use smallvec::SmallVec;

use super::fields::*;
use super::schedule_codec;
use crate::queue::{
    CHUNK_WORDS, ChunkMembers, DeadJob, EnqueuedBatch, GroupRecord, JobRecord, KeyedPlace,
    LogRecord, MarkedPlace, QueueRecord, Record, RemovedCounts,
};
use crate::types::{Grant, GroupId, Offset, QueueId, Stamp};

const COUNTERS: u8 = 1;
const RETIRED: u8 = 2;
const QUEUE: u8 = 3;
const GROUP: u8 = 4;
const CONSUMED: u8 = 5;
const MARKED: u8 = 6;
const LEASE: u8 = 7;
const DEAD: u8 = 8;
const TERMED: u8 = 9;
const PRODUCER: u8 = 10;
const GONE: u8 = 11;
const AGING: u8 = 12;
const SIZE: u8 = 13;
const WITHDRAWN: u8 = 14;
const LAPSED: u8 = 15;
const OWED: u8 = 16;
const BUCKET: u8 = 17;
const KEYED: u8 = 18;
const RESULT: u8 = 22;
const PROGRESS: u8 = 23;
const LAST_ERROR: u8 = 24;
const DISPLACED: u8 = 25;
const OFFSETS: u8 = 28;
const SKIPPED: u8 = 29;
const HELD: u8 = 20;
const MET: u8 = 21;
const TOLD: u8 = 30;

const MEMBERS_SPARSE: u8 = 1;
const MEMBERS_DENSE: u8 = 2;
const MEMBERS_FULL: u8 = 3;

const PLACE_READY: u8 = 1;
const PLACE_DELAYED: u8 = 2;
const PLACE_LEASED: u8 = 3;
const PLACE_PARKED: u8 = 4;

/// Every place that a job has for its key, with its number.
const KEYED_PLACES: &[(u8, KeyedPlace)] = &[
    (1, KeyedPlace::Holding),
    (2, KeyedPlace::Parked),
    (3, KeyedPlace::Away),
    (4, KeyedPlace::Passed),
    (5, KeyedPlace::Unread),
];

/// Appends one record.
pub(super) fn encode(out: &mut Vec<u8>, record: &Record) {
    match record {
        Record::Log(LogRecord::Counters { next_queue, next_group, next_grant }) => {
            out.put_u8(COUNTERS);
            out.put_u32_le(next_queue.0);
            out.put_u32_le(next_group.0);
            out.put_u64_le(next_grant.0);
        }
        Record::Log(LogRecord::Offsets { reserved, first_of_new }) => {
            out.put_u8(OFFSETS);
            out.put_u64_le(*reserved);
            out.put_u64_le(first_of_new.0);
        }
        Record::Log(LogRecord::Retired { name, next }) => {
            out.put_u8(RETIRED);
            put_text(out, name);
            out.put_u64_le(next.0);
        }
        Record::Queue(QueueRecord::Queue {
            queue,
            name,
            settings,
            next,
            gone,
            aging,
            turned_log_ms,
            expired,
            bytes,
            withdrawn,
            lapsed,
            paused,
        }) => {
            out.put_u8(QUEUE);
            out.put_u32_le(queue.0);
            put_text(out, name);
            put_settings(out, settings);
            out.put_u64_le(next.0);
            out.put_u64_le(gone.0);
            out.put_u64_le(aging.0);
            out.put_u64_le(*turned_log_ms);
            out.put_u64_le(*expired);
            out.put_u64_le(*bytes);
            out.put_u64_le(withdrawn.0);
            out.put_u64_le(lapsed.0);
            out.put_u8(u8::from(*paused));
        }
        Record::Queue(QueueRecord::Gone { chunk, members }) => {
            put_chunk(out, GONE, *chunk, members)
        }
        Record::Queue(QueueRecord::Aging { chunk, members }) => {
            put_chunk(out, AGING, *chunk, members)
        }
        Record::Queue(QueueRecord::Withdrawn { chunk, members }) => {
            put_chunk(out, WITHDRAWN, *chunk, members)
        }
        Record::Queue(QueueRecord::Lapsed { chunk, members }) => {
            put_chunk(out, LAPSED, *chunk, members)
        }
        Record::Queue(QueueRecord::Size { offset, before }) => {
            out.put_u8(SIZE);
            out.put_u64_le(offset.0);
            out.put_u64_le(*before);
        }
        other => encode_terms_and_groups(out, other),
    }
}

fn encode_terms_and_groups(out: &mut Vec<u8>, record: &Record) {
    match record {
        Record::Job(JobRecord::Termed { queue, offset, terms }) => {
            out.put_u8(TERMED);
            out.put_u32_le(queue.0);
            out.put_u64_le(offset.0);
            put_terms(out, terms);
        }
        Record::Job(JobRecord::Producer { queue, producer, last_log_ms, batches }) => {
            out.put_u8(PRODUCER);
            out.put_u32_le(queue.0);
            out.put_slice(&producer.0);
            out.put_u64_le(*last_log_ms);
            out.put_u8(batches.len() as u8);
            for batch in batches {
                out.put_u64_le(batch.sequence);
                out.put_u64_le(batch.first.0);
                out.put_u32_le(batch.count);
                out.put_u32_le(batch.fingerprint);
            }
        }
        Record::Job(JobRecord::Result { queue, offset, until_log_ms, result }) => {
            out.put_u8(RESULT);
            out.put_u32_le(queue.0);
            out.put_u64_le(offset.0);
            out.put_u64_le(*until_log_ms);
            put_bytes(out, result);
        }
        Record::Job(JobRecord::Displaced { queue, count }) => {
            out.put_u8(DISPLACED);
            out.put_u32_le(queue.0);
            out.put_u64_le(*count);
        }
        Record::Group(GroupRecord::Group {
            group,
            queue,
            name,
            kind,
            start,
            committed,
            next_fetch,
            fresh_owed,
            removed,
            paused,
        }) => {
            out.put_u8(GROUP);
            out.put_u32_le(group.0);
            out.put_u32_le(queue.0);
            put_text(out, name);
            put_kind(out, *kind);
            out.put_u64_le(start.0);
            out.put_u64_le(committed.0);
            out.put_u64_le(next_fetch.0);
            out.put_u8(u8::from(*fresh_owed));
            put_removed(out, removed);
            out.put_u8(u8::from(*paused));
        }
        Record::Group(GroupRecord::Consumed { chunk, members }) => {
            put_chunk(out, CONSUMED, *chunk, members)
        }
        other => encode_unique(out, other),
    }
}

fn encode_unique(out: &mut Vec<u8>, record: &Record) {
    match record {
        Record::Job(JobRecord::Held { queue, held }) => {
            out.put_u8(HELD);
            out.put_u32_le(queue.0);
            put_held_key(out, held);
        }
        Record::Job(JobRecord::Met { queue, duplicates, replaced }) => {
            out.put_u8(MET);
            out.put_u32_le(queue.0);
            out.put_u64_le(*duplicates);
            out.put_u64_le(*replaced);
        }
        Record::Job(JobRecord::Told { queue, producer, sequence, hits }) => {
            out.put_u8(TOLD);
            out.put_u32_le(queue.0);
            out.put_slice(&producer.0);
            out.put_u64_le(*sequence);
            put_hits(out, hits);
        }
        Record::Queue(QueueRecord::Skipped { first, end }) => {
            out.put_u8(SKIPPED);
            out.put_u64_le(first.0);
            out.put_u64_le(end.0);
        }
        about_job => encode_job(out, about_job),
    }
}

fn encode_job(out: &mut Vec<u8>, record: &Record) {
    match record {
        Record::Group(GroupRecord::Marked { offset, place, attempts, failures, crashes }) => {
            out.put_u8(MARKED);
            out.put_u64_le(offset.0);
            match place {
                MarkedPlace::Ready => out.put_u8(PLACE_READY),
                MarkedPlace::Delayed { due_log_ms } => {
                    out.put_u8(PLACE_DELAYED);
                    out.put_u64_le(*due_log_ms);
                }
                MarkedPlace::Leased => out.put_u8(PLACE_LEASED),
                MarkedPlace::Parked => out.put_u8(PLACE_PARKED),
            }
            out.put_u32_le(*attempts);
            out.put_u32_le(*failures);
            out.put_u32_le(*crashes);
        }
        Record::Group(GroupRecord::Lease { offset, grant, holder, lease_ms }) => {
            out.put_u8(LEASE);
            out.put_u64_le(offset.0);
            out.put_u64_le(grant.0);
            put_holder(out, *holder);
            out.put_u32_le(*lease_ms);
        }
        Record::Group(GroupRecord::Bucket { millijobs, at_log_ms }) => {
            out.put_u8(BUCKET);
            out.put_u64_le(*millijobs);
            out.put_u64_le(*at_log_ms);
        }
        Record::Group(GroupRecord::Owed { rank }) => {
            out.put_u8(OWED);
            put_rank(out, *rank);
        }
        Record::Group(GroupRecord::Progress { offset, note }) => {
            out.put_u8(PROGRESS);
            out.put_u64_le(offset.0);
            put_text(out, note);
        }
        Record::Group(GroupRecord::LastError { offset, error }) => {
            out.put_u8(LAST_ERROR);
            out.put_u64_le(offset.0);
            put_text(out, error);
        }
        Record::Group(GroupRecord::Dead { offset, job }) => {
            out.put_u8(DEAD);
            out.put_u64_le(offset.0);
            out.put_u8(reason_code(job.reason));
            put_text(out, &job.message);
            out.put_u32_le(job.attempts);
            out.put_u32_le(job.failures);
            out.put_u32_le(job.crashes);
            out.put_u64_le(job.died.wall_ms);
            out.put_u64_le(job.died.log_ms);
        }
        Record::Group(GroupRecord::Keyed { offset, key, place }) => {
            let row = KEYED_PLACES.iter().find(|(_, known)| known == place);
            out.put_u8(KEYED);
            out.put_u64_le(offset.0);
            out.put_u8(row.expect("the table has every place; a test goes through them").0);
            put_key(out, *key);
        }
        record => schedule_codec::encode_record(out, record),
    }
}

fn put_chunk(out: &mut Vec<u8>, tag: u8, chunk: u64, members: &ChunkMembers) {
    out.put_u8(tag);
    out.put_u64_le(chunk);
    match members {
        ChunkMembers::Sparse(offsets) => {
            out.put_u8(MEMBERS_SPARSE);
            out.put_u32_le(offsets.len() as u32);
            offsets.iter().for_each(|low| out.put_u16_le(*low));
        }
        ChunkMembers::Dense(words) => {
            out.put_u8(MEMBERS_DENSE);
            words.iter().for_each(|word| out.put_u64_le(*word));
        }
        ChunkMembers::Full => out.put_u8(MEMBERS_FULL),
    }
}

/// Reads the record at the start of `bytes` and moves `bytes` behind it.
///
/// # Errors
/// What is wrong with it.
pub(super) fn decode(bytes: &mut &[u8]) -> Read<Record> {
    Ok(match u8(bytes)? {
        COUNTERS => Record::Log(LogRecord::Counters {
            next_queue: QueueId(u32(bytes)?),
            next_group: GroupId(u32(bytes)?),
            next_grant: Grant(u64(bytes)?),
        }),
        OFFSETS => Record::Log(LogRecord::Offsets {
            reserved: u64(bytes)?,
            first_of_new: Offset(u64(bytes)?),
        }),
        RETIRED => {
            Record::Log(LogRecord::Retired { name: text(bytes)?, next: Offset(u64(bytes)?) })
        }
        QUEUE => Record::Queue(QueueRecord::Queue {
            queue: QueueId(u32(bytes)?),
            name: text(bytes)?,
            settings: Box::new(settings(bytes)?),
            next: Offset(u64(bytes)?),
            gone: Offset(u64(bytes)?),
            aging: Offset(u64(bytes)?),
            turned_log_ms: u64(bytes)?,
            expired: u64(bytes)?,
            bytes: u64(bytes)?,
            withdrawn: Offset(u64(bytes)?),
            lapsed: Offset(u64(bytes)?),
            paused: flag(bytes)?,
        }),
        GONE => Record::Queue(QueueRecord::Gone { chunk: u64(bytes)?, members: members(bytes)? }),
        AGING => Record::Queue(QueueRecord::Aging { chunk: u64(bytes)?, members: members(bytes)? }),
        WITHDRAWN => {
            Record::Queue(QueueRecord::Withdrawn { chunk: u64(bytes)?, members: members(bytes)? })
        }
        LAPSED => {
            Record::Queue(QueueRecord::Lapsed { chunk: u64(bytes)?, members: members(bytes)? })
        }
        SIZE => {
            Record::Queue(QueueRecord::Size { offset: Offset(u64(bytes)?), before: u64(bytes)? })
        }
        SKIPPED => Record::Queue(QueueRecord::Skipped {
            first: Offset(u64(bytes)?),
            end: Offset(u64(bytes)?),
        }),
        GROUP => Record::Group(GroupRecord::Group {
            group: GroupId(u32(bytes)?),
            queue: QueueId(u32(bytes)?),
            name: text(bytes)?,
            kind: kind(bytes)?,
            start: Offset(u64(bytes)?),
            committed: Offset(u64(bytes)?),
            next_fetch: Offset(u64(bytes)?),
            fresh_owed: flag(bytes)?,
            removed: removed(bytes)?,
            paused: flag(bytes)?,
        }),
        TERMED => Record::Job(JobRecord::Termed {
            queue: QueueId(u32(bytes)?),
            offset: Offset(u64(bytes)?),
            terms: terms(bytes)?,
        }),
        tag => decode_unique(tag, bytes)?,
    })
}

fn decode_unique(tag: u8, bytes: &mut &[u8]) -> Read<Record> {
    Ok(match tag {
        HELD => {
            Record::Job(JobRecord::Held { queue: QueueId(u32(bytes)?), held: held_key(bytes)? })
        }
        MET => Record::Job(JobRecord::Met {
            queue: QueueId(u32(bytes)?),
            duplicates: u64(bytes)?,
            replaced: u64(bytes)?,
        }),
        TOLD => Record::Job(JobRecord::Told {
            queue: QueueId(u32(bytes)?),
            producer: producer(bytes)?,
            sequence: u64(bytes)?,
            hits: hits(bytes)?,
        }),
        PRODUCER => Record::Job(JobRecord::Producer {
            queue: QueueId(u32(bytes)?),
            producer: producer(bytes)?,
            last_log_ms: u64(bytes)?,
            batches: batches(bytes)?,
        }),
        RESULT => Record::Job(JobRecord::Result {
            queue: QueueId(u32(bytes)?),
            offset: Offset(u64(bytes)?),
            until_log_ms: u64(bytes)?,
            result: byte_string(bytes)?.into(),
        }),
        DISPLACED => {
            Record::Job(JobRecord::Displaced { queue: QueueId(u32(bytes)?), count: u64(bytes)? })
        }
        about_job => decode_job(about_job, bytes)?,
    })
}

fn decode_job(tag: u8, bytes: &mut &[u8]) -> Read<Record> {
    Ok(match tag {
        CONSUMED => {
            Record::Group(GroupRecord::Consumed { chunk: u64(bytes)?, members: members(bytes)? })
        }
        MARKED => Record::Group(GroupRecord::Marked {
            offset: Offset(u64(bytes)?),
            place: place(bytes)?,
            attempts: u32(bytes)?,
            failures: u32(bytes)?,
            crashes: u32(bytes)?,
        }),
        LEASE => Record::Group(GroupRecord::Lease {
            offset: Offset(u64(bytes)?),
            grant: Grant(u64(bytes)?),
            holder: holder(bytes)?,
            lease_ms: u32(bytes)?,
        }),
        BUCKET => {
            Record::Group(GroupRecord::Bucket { millijobs: u64(bytes)?, at_log_ms: u64(bytes)? })
        }
        OWED => Record::Group(GroupRecord::Owed { rank: rank(bytes)? }),
        PROGRESS => {
            Record::Group(GroupRecord::Progress { offset: Offset(u64(bytes)?), note: text(bytes)? })
        }
        LAST_ERROR => Record::Group(GroupRecord::LastError {
            offset: Offset(u64(bytes)?),
            error: text(bytes)?,
        }),
        DEAD => {
            Record::Group(GroupRecord::Dead { offset: Offset(u64(bytes)?), job: dead_job(bytes)? })
        }
        KEYED => Record::Group(GroupRecord::Keyed {
            offset: Offset(u64(bytes)?),
            place: keyed_place(bytes)?,
            key: key(bytes)?,
        }),
        tag => schedule_codec::record(tag, bytes)?,
    })
}

fn batches(bytes: &mut &[u8]) -> Read<SmallVec<[EnqueuedBatch; 1]>> {
    let count = u8(bytes)?;
    let batch = |_| {
        Ok(EnqueuedBatch {
            sequence: u64(bytes)?,
            first: Offset(u64(bytes)?),
            count: u32(bytes)?,
            fingerprint: u32(bytes)?,
        })
    };
    (0..count).map(batch).collect()
}

/// A count for each cause that has one.
fn put_removed(out: &mut Vec<u8>, removed: &RemovedCounts) {
    let counted = CAUSES.iter().filter(|(_, cause)| removed.of(*cause) > 0);
    out.put_u8(counted.clone().count() as u8);
    for (code, cause) in counted {
        out.put_u8(*code);
        out.put_u64_le(removed.of(*cause));
    }
}

fn removed(bytes: &mut &[u8]) -> Read<RemovedCounts> {
    let mut removed = RemovedCounts::default();
    for _ in 0..u8(bytes)? {
        let cause = cause(bytes)?;
        removed.add(cause, u64(bytes)?);
    }
    Ok(removed)
}

fn place(bytes: &mut &[u8]) -> Read<MarkedPlace> {
    match u8(bytes)? {
        PLACE_READY => Ok(MarkedPlace::Ready),
        PLACE_DELAYED => Ok(MarkedPlace::Delayed { due_log_ms: u64(bytes)? }),
        PLACE_LEASED => Ok(MarkedPlace::Leased),
        PLACE_PARKED => Ok(MarkedPlace::Parked),
        _ => Err("the place of its job is unknown"),
    }
}

fn keyed_place(bytes: &mut &[u8]) -> Read<KeyedPlace> {
    let code = u8(bytes)?;
    let row = KEYED_PLACES.iter().find(|(known, _)| *known == code);
    row.map(|(_, place)| *place).ok_or("the place of its job is unknown")
}

fn members(bytes: &mut &[u8]) -> Read<ChunkMembers> {
    match u8(bytes)? {
        MEMBERS_SPARSE => {
            let count = u32(bytes)?;
            let low = |_| bytes.try_get_u16_le().map_err(|_| SHORT);
            Ok(ChunkMembers::Sparse((0..count).map(low).collect::<Read<_>>()?))
        }
        MEMBERS_DENSE => {
            let mut words = Box::new([0; CHUNK_WORDS]);
            for word in words.iter_mut() {
                *word = u64(bytes)?;
            }
            Ok(ChunkMembers::Dense(words))
        }
        MEMBERS_FULL => Ok(ChunkMembers::Full),
        _ => Err("its form of a chunk is unknown"),
    }
}

fn dead_job(bytes: &mut &[u8]) -> Read<DeadJob> {
    Ok(DeadJob {
        reason: reason(bytes)?,
        message: text(bytes)?,
        attempts: u32(bytes)?,
        failures: u32(bytes)?,
        crashes: u32(bytes)?,
        died: Stamp { wall_ms: u64(bytes)?, log_ms: u64(bytes)? },
    })
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::queue::{
        Due, GroupKind, HeldKey, Holder, JobTerms, QueueSettings, Rank, Removal, UniqueHit,
    };
    use crate::types::{KeyHash, ProducerId, SessionId};

    const DOCUMENT: &str = include_str!("../../docs/log-format.md");

    pub(in crate::broker) fn one_of_each() -> Vec<Record> {
        let mut words = Box::new([7; CHUNK_WORDS]);
        words[3] = u64::MAX;
        let offset = Offset(1 << 40);
        let (attempts, failures, crashes) = (9, 8, 7);
        let marked = |place| {
            Record::Group(GroupRecord::Marked { offset, place, attempts, failures, crashes })
        };
        let lease = |holder| {
            Record::Group(GroupRecord::Lease { offset, grant: Grant(77), holder, lease_ms: 5 })
        };
        let consumed = |members| Record::Group(GroupRecord::Consumed { chunk: 11, members });
        let dead = |(_, reason): &(u8, _)| {
            Record::Group(GroupRecord::Dead {
                offset,
                job: DeadJob {
                    reason: *reason,
                    message: "no ink".into(),
                    attempts,
                    failures,
                    crashes,
                    died: Stamp { wall_ms: 1 << 50, log_ms: 1 << 40 },
                },
            })
        };
        let mut removed = RemovedCounts::default();
        Removal::ALL.into_iter().zip(1..).for_each(|(cause, count)| removed.add(cause, count));
        let batch =
            |sequence| EnqueuedBatch { sequence, first: offset, count: 3, fingerprint: 1 << 31 };
        let termed = |due| {
            let rank = Rank { priority: 9, front: true };
            let terms = JobTerms { due: Some(due), expires_log_ms: Some(9), rank };
            Record::Job(JobRecord::Termed { queue: QueueId(3), offset, terms })
        };
        let held_key = |until_log_ms| {
            Record::Job(JobRecord::Held {
                queue: QueueId(3),
                held: HeldKey { offset, key: b"once"[..].into(), until_log_ms },
            })
        };
        let mut records = vec![
            Record::Log(LogRecord::Counters {
                next_queue: QueueId(4),
                next_group: GroupId(5),
                next_grant: Grant(u64::MAX),
            }),
            Record::Log(LogRecord::Offsets { reserved: 1 << 20, first_of_new: offset }),
            Record::Log(LogRecord::Retired { name: "gone".into(), next: offset }),
            Record::Queue(QueueRecord::Queue {
                queue: QueueId(3),
                name: "mail".into(),
                settings: Box::new(QueueSettings { failures_max: 3, ..QueueSettings::default() }),
                next: offset,
                gone: Offset(2),
                aging: Offset(3),
                turned_log_ms: 1 << 41,
                expired: 6,
                bytes: 1 << 42,
                withdrawn: Offset(4),
                lapsed: Offset(3),
                paused: true,
            }),
            Record::Queue(QueueRecord::Gone {
                chunk: 12,
                members: ChunkMembers::Sparse(vec![2, 65_534]),
            }),
            Record::Queue(QueueRecord::Aging { chunk: 13, members: ChunkMembers::Full }),
            Record::Queue(QueueRecord::Withdrawn {
                chunk: 14,
                members: ChunkMembers::Sparse(vec![7]),
            }),
            Record::Queue(QueueRecord::Lapsed {
                chunk: 15,
                members: ChunkMembers::Sparse(vec![7]),
            }),
            Record::Queue(QueueRecord::Size { offset, before: 9 }),
            Record::Queue(QueueRecord::Skipped { first: offset, end: Offset(1 << 41) }),
            termed(Due::Log(5)),
            termed(Due::Wall(6)),
            Record::Job(JobRecord::Producer {
                queue: QueueId(3),
                producer: ProducerId([4; 16]),
                last_log_ms: 1 << 41,
                batches: [batch(7), batch(8)].into_iter().collect(),
            }),
            held_key(None),
            held_key(Some(1 << 40)),
            Record::Job(JobRecord::Met { queue: QueueId(3), duplicates: 1 << 33, replaced: 5 }),
            Record::Job(JobRecord::Told {
                queue: QueueId(3),
                producer: ProducerId([4; 16]),
                sequence: 8,
                hits: vec![
                    UniqueHit { ordinal: 1, replaced: false, offset },
                    UniqueHit { ordinal: 2, replaced: true, offset: Offset(9) },
                ],
            }),
            Record::Job(JobRecord::Result {
                queue: QueueId(3),
                offset,
                until_log_ms: 1 << 41,
                result: b"42".as_slice().into(),
            }),
            Record::Job(JobRecord::Displaced { queue: QueueId(3), count: 5 }),
            Record::Group(GroupRecord::Group {
                group: GroupId(2),
                queue: QueueId(3),
                name: "default".into(),
                kind: GroupKind::Work,
                start: Offset(4),
                committed: Offset(5),
                next_fetch: offset,
                fresh_owed: true,
                removed,
                paused: false,
            }),
            consumed(ChunkMembers::Sparse(vec![1, 500, 65_535])),
            consumed(ChunkMembers::Dense(words)),
            consumed(ChunkMembers::Full),
            marked(MarkedPlace::Ready),
            marked(MarkedPlace::Delayed { due_log_ms: 1 << 60 }),
            marked(MarkedPlace::Leased),
            marked(MarkedPlace::Parked),
            lease(Holder::Timed),
            lease(Holder::Session(SessionId([3; 16]))),
        ];
        records.extend(REASONS.iter().map(dead));
        records.push(Record::Group(GroupRecord::Bucket { millijobs: 1 << 50, at_log_ms: 9 }));
        records.push(Record::Group(GroupRecord::Owed { rank: Rank { priority: 0, front: true } }));
        records.push(Record::Group(GroupRecord::Progress { offset, note: "halfway".into() }));
        records.push(Record::Group(GroupRecord::LastError { offset, error: "no ink".into() }));
        records.extend(KEYED_PLACES.iter().map(|(_, place)| {
            let key = (*place != KeyedPlace::Unread).then_some(KeyHash(1 << 63));
            Record::Group(GroupRecord::Keyed { offset, key, place: *place })
        }));
        let groups = records
            .iter()
            .position(|record| matches!(record, Record::Group(GroupRecord::Group { .. })));
        let before = groups.unwrap_or_default();
        records.splice(before..before, schedule_codec::tests::records());
        records
    }

    #[test]
    fn every_record_comes_back_and_no_beginning_of_one_passes() {
        for record in one_of_each() {
            let mut bytes = Vec::new();
            encode(&mut bytes, &record);
            let mut rest = &bytes[..];
            assert_eq!(decode(&mut rest), Ok(record.clone()));
            assert!(rest.is_empty(), "{record:?}");
            for end in 0..bytes.len() {
                assert!(decode(&mut &bytes[..end]).is_err(), "{record:?} cut at {end}");
            }
        }
    }

    #[test]
    fn the_document_has_the_tags_of_the_code() {
        let section =
            DOCUMENT.split("## Checkpoint records").nth(1).expect("the document has the records");
        let rows = section.lines().take_while(|line| !line.starts_with('#'));
        let stated: Vec<(u8, String)> = rows
            .filter_map(|line| {
                let mut cells = line.split('|').map(str::trim).skip(1);
                Some((cells.next()?.parse().ok()?, cells.next()?.to_owned()))
            })
            .collect();
        let mut coded = Vec::new();
        for record in one_of_each() {
            let mut bytes = Vec::new();
            encode(&mut bytes, &record);
            let name = format!("{record:?}");
            let name = name.split(['(', ' ']).nth(1).unwrap_or_default().to_lowercase();
            coded.push((bytes[0], name));
        }
        coded.dedup();
        assert_eq!(stated, coded);
    }
}
