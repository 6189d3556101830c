//! Between the wire's types and the domain's: the only place that knows both.

use std::collections::BTreeMap;

use bytes::BytesMut;
use joblog_protocol::job::{Batch, Due, JobError, TABLE_ROW_BYTES, Terms};
use joblog_protocol::limits::BULK_JOBS_MAX;
use joblog_protocol::messages::enqueue::{EnqueueReply, UniqueHit};
use joblog_protocol::messages::handles::{Handle, HandleSet};
use joblog_protocol::messages::job_info::JobState;
use joblog_protocol::messages::lease::{CancelNotice, Fail, FailOutcome};
use joblog_protocol::messages::{admin, bulk, job_info, schedule, stats};
use joblog_protocol::unique::Unique;
use joblog_protocol::{ErrorCode, Token};
use serde::Serialize;
use serde_json::{Map, Value};
use siphasher::sip::SipHasher13;

use super::reply::DescribedJob;
use crate::broker::{
    self, BrokerError, Cancel, CancelledJob, DEFAULT_GROUP, DeadJob, DeadQuery, EndReason,
    Enqueued, Failed, Found, GroupDescription, GroupKind, GroupStats, Held, HeldSet, Holder,
    JobInfo, JobRefusal, JobStanding, Missed, NamedSchedule, Plan, Purged, QueueDescription,
    QueueSettings, QueueStats, QueueSummary, Rank, Refusal, Removal, RemovedCounts, Retry, Seek,
    SeekTo, Start, Timing, UniqueInfo, Wants, Wish, WishedDue, WishedKey,
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

pub(super) fn held(handle: &Handle) -> Held {
    let grant = grant(&handle.token).map(|(_, grant)| grant);
    Held { offset: Offset(handle.offset), grant }
}

pub(super) fn held_set<'a>(set: &HandleSet<'a>) -> HeldSet<'a> {
    let jobs = set.handles.iter().map(held).collect();
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

pub(super) fn retry(fail: &Fail<'_>) -> Retry {
    Retry { failures_max: fail.failures_max, delay_ms: fail.delay_ms }
}

/// The status of one job.
pub(super) fn status(verdict: &Result<(), JobRefusal>) -> Option<ErrorCode> {
    verdict.as_ref().err().map(job_code)
}

pub(super) fn fail_outcome(result: &Result<Failed, JobRefusal>) -> FailOutcome {
    match result {
        Ok(Failed::Retry { in_ms }) => FailOutcome::Retry { in_ms: *in_ms },
        Ok(Failed::Dead) => FailOutcome::Dead,
        Err(refusal) => FailOutcome::Refused(job_code(refusal)),
    }
}

fn job_code(refusal: &JobRefusal) -> ErrorCode {
    match refusal {
        JobRefusal::AlreadyConsumed => ErrorCode::AlreadyConsumed,
        JobRefusal::CancelRequested => ErrorCode::CancelRequested,
        JobRefusal::BeyondEnd { .. } => ErrorCode::BeyondEnd,
        JobRefusal::WrongKind => ErrorCode::WrongGroupKind,
        JobRefusal::NoSuchGroup => ErrorCode::NoSuchGroup,
        JobRefusal::LeaseTooLong => ErrorCode::BadRequest,
        _ => ErrorCode::LeaseLost,
    }
}

/// The code of a request that was refused as a whole.
pub(super) fn error_code(error: &BrokerError) -> ErrorCode {
    match error {
        BrokerError::NoSuchQueue { .. } => ErrorCode::NoSuchQueue,
        BrokerError::NoSuchGroup { .. } => ErrorCode::NoSuchGroup,
        BrokerError::WrongGroupKind { .. } => ErrorCode::WrongGroupKind,
        BrokerError::Refused { refusal, .. } => match refusal {
            Refusal::QueueExists { .. } => ErrorCode::QueueExists,
            Refusal::NoSuchQueue => ErrorCode::NoSuchQueue,
            Refusal::GroupExists { .. } => ErrorCode::GroupExists,
            Refusal::NoSuchGroup => ErrorCode::NoSuchGroup,
            Refusal::QueueFull { .. } => ErrorCode::QueueFull,
            Refusal::ScheduleExists => ErrorCode::ScheduleExists,
            Refusal::NoSuchSchedule => ErrorCode::NoSuchSchedule,
            _ => ErrorCode::BadSetting,
        },
        BrokerError::Job { refusal, .. } => job_code(refusal),
        BrokerError::NoSuchJobYet { .. } => ErrorCode::BeyondEnd,
        BrokerError::NotPrimary { .. } => ErrorCode::NotPrimaryGroup,
        BrokerError::OtherLog { .. } => ErrorCode::OtherLog,
        BrokerError::SequenceTooOld { .. } => ErrorCode::SequenceTooOld,
        BrokerError::RankByKey { .. } => ErrorCode::Unsupported,
        BrokerError::SequenceTaken { .. } => ErrorCode::BadRequest,
        BrokerError::BadSchedule { .. } => ErrorCode::BadSchedule,
        BrokerError::SessionReplaced => ErrorCode::SessionReplaced,
        BrokerError::ShuttingDown => ErrorCode::ShuttingDown,
        BrokerError::NoSpace(_) => ErrorCode::DiskFull,
        BrokerError::Unreadable(_) => ErrorCode::Damaged,
        _ => ErrorCode::LogPoisoned,
    }
}

/// What a schedule is to do; the job is checked as an ENQUEUE's is.
pub(super) fn plan(add: &schedule::ScheduleAdd, job_bytes_max: usize) -> Result<Plan, JobError> {
    let timing = match add.timing()? {
        schedule::Timing::Cron { expression, zone } => {
            Timing::Cron { expression: expression.into(), zone: zone.into() }
        }
        schedule::Timing::Every { every_ms } => Timing::Every { every_ms },
    };
    let body = add.body()?;
    let mut table = Vec::with_capacity(TABLE_ROW_BYTES);
    for number in [body.len() as u32, 0, crc32fast::hash(&body)] {
        table.extend_from_slice(&number.to_le_bytes());
    }
    let batch = Batch { count: 1, table: &table, bodies: &body };
    batch.check(job_bytes_max)?;
    let missed = match add.missed {
        schedule::Missed::Once => Missed::Once,
        schedule::Missed::Skip => Missed::Skip,
    };
    let queue = add.queue.as_str().into();
    Ok(Plan { queue, timing, missed, table: table.into(), body: body.into() })
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

/// Schedules, with their jobs if `whole`.
pub(super) fn schedule_list(
    schedules: Vec<NamedSchedule>,
    more: bool,
    whole: bool,
) -> schedule::ScheduleList {
    let describe = |named: NamedSchedule| {
        let NamedSchedule { name, schedule: state, next_wall_ms, fired_due_wall_ms } = named;
        let plan = &state.plan;
        let (cron, zone, every_ms) = match &plan.timing {
            Timing::Cron { expression, zone } => (Some(expression), Some(zone), None),
            Timing::Every { every_ms } => (None, None, Some(*every_ms)),
        };
        let firing = state.last_firing.as_ref().zip(fired_due_wall_ms);
        schedule::ScheduleDescription {
            schedule: name,
            queue: plan.queue.to_string(),
            cron: cron.map(ToString::to_string),
            zone: zone.map(ToString::to_string),
            every_ms,
            missed: match plan.missed {
                Missed::Once => schedule::Missed::Once,
                Missed::Skip => schedule::Missed::Skip,
            },
            paused: state.paused,
            next_ms: next_wall_ms,
            fired: state.fired,
            skipped: state.skipped,
            failed: state.failed,
            last_firing: firing.map(|(firing, due_ms)| schedule::ScheduleFiring {
                due_ms,
                fired_ms: firing.wall_ms,
                offset: firing.offset.0,
            }),
            last_failure: state.last_failure.as_ref().map(|failure| schedule::ScheduleFailure {
                failed_ms: failure.wall_ms,
                error: failure.error.to_string(),
                retried: state.retry_log_ms.is_some(),
            }),
            body_base64: whole.then(|| schedule::to_base64(&plan.body)),
        }
    };
    schedule::ScheduleList { schedules: schedules.into_iter().map(describe).collect(), more }
}

/// The settings `base` with the changes that a client asks for: those named in `reset` have their
/// defaults, and what `wire` has a value for has that.
pub(super) fn settings(
    base: &QueueSettings,
    wire: &admin::QueueSettings,
    reset: &[String],
) -> QueueSettings {
    let mut merged = fields(base);
    let named = |(name, _): &(String, Value)| reset.contains(name);
    merged.extend(fields(&QueueSettings::default()).into_iter().filter(named));
    merged.extend(fields(wire));
    serde_json::from_value(Value::Object(merged)).expect(SAME_SETTINGS)
}

pub(super) fn wire_settings(settings: &QueueSettings) -> admin::QueueSettings {
    serde_json::from_value(Value::Object(fields(settings))).expect(SAME_SETTINGS)
}

const SAME_SETTINGS: &str = "both sides have the same names and types; a test compares them";

/// What the settings are, by name; the wire's without those that have no value.
fn fields(settings: &impl Serialize) -> Map<String, Value> {
    match serde_json::to_value(settings) {
        Ok(Value::Object(fields)) => fields,
        _ => unreachable!("a struct of plain fields is a JSON object"),
    }
}

pub(super) fn kind(kind: admin::GroupKind) -> GroupKind {
    match kind {
        admin::GroupKind::Work => GroupKind::Work,
        admin::GroupKind::Stream => GroupKind::Stream,
    }
}

pub(super) fn start(start: admin::GroupStart) -> Start {
    match start {
        admin::GroupStart::Start => Start::Beginning,
        admin::GroupStart::End => Start::End,
        admin::GroupStart::Offset(offset) => Start::At(Offset(offset)),
    }
}

pub(super) fn seek(to: admin::GroupSeek) -> SeekTo {
    match to {
        admin::GroupSeek::Start => SeekTo::Place(Seek::Beginning),
        admin::GroupSeek::End => SeekTo::Place(Seek::End),
        admin::GroupSeek::Offset(offset) => SeekTo::Place(Seek::To(Offset(offset))),
        admin::GroupSeek::TimeMs(wall_ms) => SeekTo::Time(wall_ms),
    }
}

pub(super) fn queue_list(queues: Vec<QueueSummary>, more: bool) -> admin::QueueList {
    let summary = |queue: QueueSummary| admin::QueueSummary {
        queue: queue.name,
        first_offset: queue.first.0,
        next_offset: queue.next.0,
        groups: queue.groups,
    };
    admin::QueueList { queues: queues.into_iter().map(summary).collect(), more }
}

pub(super) fn stats(now_ms: u64, queues: Vec<QueueStats>, more: bool) -> stats::Stats {
    let group = |group: GroupStats| stats::GroupStats {
        group: group.name,
        kind: wire_kind(group.kind),
        paused: group.paused,
        committed_offset: group.counts.committed.0,
        consumed_above: group.counts.consumed_above,
        ready: group.counts.ready,
        leased: group.counts.leased,
        delayed: group.counts.delayed,
        dead: group.counts.dead,
        oldest_enqueued_at_ms: group.oldest_wall_ms,
    };
    let queue = |queue: QueueStats| stats::QueueStats {
        queue: queue.name,
        paused: queue.paused,
        first_offset: queue.first.0,
        next_offset: queue.next.0,
        unconsumed: queue.unconsumed,
        groups: queue.groups.into_iter().map(group).collect(),
    };
    stats::Stats { now_ms, queues: queues.into_iter().map(queue).collect(), more }
}

fn wire_kind(kind: GroupKind) -> admin::GroupKind {
    match kind {
        GroupKind::Work => admin::GroupKind::Work,
        GroupKind::Stream => admin::GroupKind::Stream,
    }
}

pub(super) fn queue_description(
    queue: QueueDescription,
    durability: String,
) -> admin::QueueDescription {
    let (kept, bytes, displaced) = queue.results;
    admin::QueueDescription {
        queue: queue.summary.name,
        first_offset: queue.summary.first.0,
        next_offset: queue.summary.next.0,
        durability,
        paused: queue.paused,
        settings: wire_settings(&queue.settings),
        unconsumed: queue.unconsumed,
        unconsumed_bytes: queue.unconsumed_bytes,
        expired: queue.expired,
        results: admin::ResultCounts { kept, bytes, displaced },
        unique: unique(queue.unique),
        groups: queue.groups.into_iter().map(group_description).collect(),
    }
}

pub(super) fn group_description(group: GroupDescription) -> admin::GroupDescription {
    let counts = group.counts;
    admin::GroupDescription {
        queue: group.queue,
        group: group.name,
        kind: wire_kind(group.kind),
        committed_offset: counts.committed.0,
        consumed_above: counts.consumed_above,
        ready: counts.ready,
        ready_by_priority: by_priority(&counts.ready_by_priority),
        leased: counts.leased,
        delayed: counts.delayed,
        dead: counts.dead,
        parked: counts.parked,
        parked_full: counts.parked_full,
        paused: group.paused,
        removed: removed(&counts.removed),
        dead_jobs: group.dead.into_iter().map(dead_job).collect(),
    }
}

/// The counts of the priorities above 0 that have any.
fn by_priority(counts: &[u64]) -> BTreeMap<u8, u64> {
    let above = (0..).zip(counts.iter().copied()).skip(1);
    above.filter(|(_, count)| *count > 0).collect()
}

/// Left out where there never was a unique key that mattered.
fn unique(info: UniqueInfo) -> Option<admin::UniqueKeys> {
    let UniqueInfo { held, duplicates, replaced } = info;
    (info != UniqueInfo::default()).then_some(admin::UniqueKeys { held, duplicates, replaced })
}

/// The unique key that a producer wants for a job. Whether the job is delayed is for the broker.
pub(super) fn wished_key<'a>(ordinal: u32, unique: &Unique<&'a [u8]>) -> WishedKey<'a> {
    let Unique { key, window_ms, replace } = *unique;
    WishedKey { ordinal, key, window_ms, replace, delayed: false }
}

pub(super) fn enqueued(enqueued: Enqueued, count: u32) -> EnqueueReply {
    let hit = |hit: &broker::UniqueHit| UniqueHit {
        ordinal: hit.ordinal,
        replaced: hit.replaced,
        offset: hit.offset.0,
    };
    let Enqueued { first, created, hits } = enqueued;
    let hits = hits.iter().map(hit).collect();
    EnqueueReply { first_offset: first.0, count, created, hits }
}

fn removed(counts: &RemovedCounts) -> BTreeMap<String, u64> {
    let name = |cause| match cause {
        Removal::Dropped => "dropped",
        Removal::Aged => "aged",
        Removal::Cancelled => "cancelled",
        Removal::Purged => "purged",
        Removal::Expired => "expired",
        Removal::Moved => "moved",
        Removal::Replaced => "replaced",
    };
    let counted = Removal::ALL.into_iter().map(|cause| (name(cause).to_owned(), counts.of(cause)));
    counted.filter(|(_, count)| *count > 0).collect()
}

pub(super) fn cancelled(outcomes: Vec<Cancel>) -> bulk::CancelReply {
    let outcome = |outcome| match outcome {
        Cancel::Done => bulk::CancelOutcome::Cancelled,
        Cancel::Requested => bulk::CancelOutcome::Requested,
        Cancel::Consumed => bulk::CancelOutcome::Consumed,
        Cancel::NoSuchJob => bulk::CancelOutcome::NoSuchJob,
    };
    bulk::CancelReply { jobs: outcomes.into_iter().map(outcome).collect() }
}

pub(super) fn purged(purged: Purged) -> bulk::PurgeReply {
    let Purged { count, leased, next, end } = purged;
    bulk::PurgeReply { count, leased, next: next.0, end: end.0 }
}

/// What the worker of a cancelled job is told.
pub(super) fn cancel_notice(job: &CancelledJob) -> BytesMut {
    let handle = Handle { offset: job.offset.0, token: token(job.log, job.grant) };
    let mut out = BytesMut::new();
    CancelNotice { queue: &job.queue, group: &job.group, handle }.encode(&mut out);
    out
}

/// The dead jobs that a query means.
pub(super) fn dead_query(query: &bulk::DeadQuery) -> DeadQuery<'_> {
    DeadQuery {
        queue: &query.queue,
        group: group(&query.group),
        jobs: query.jobs.as_deref(),
        error: query.error.as_deref(),
        older_than_ms: query.older_than_ms,
        younger_than_ms: query.younger_than_ms,
        from: Offset(query.from),
        limit: (query.limit as usize).clamp(1, BULK_JOBS_MAX),
    }
}

pub(super) fn dead_list(found: Found<(Offset, DeadJob)>) -> bulk::DeadList {
    let jobs = found.jobs.into_iter().map(dead_job).collect();
    bulk::DeadList { jobs, next: found.next.0, more: found.more }
}

pub(super) fn bulk_done(found: Found<Offset>) -> bulk::BulkDone {
    bulk::BulkDone {
        count: found.jobs.len() as u64,
        refused: found.refused.into_iter().map(|offset| offset.0).collect(),
        next: found.next.0,
        more: found.more,
    }
}

/// One job, as JOB_INFO describes it.
pub(super) fn job_description(
    job: &DescribedJob,
    enqueued_at_ms: Option<u64>,
) -> job_info::JobDescription {
    let DescribedJob { queue, offset, info: described } = job;
    let JobInfo { standing, attempts, failures, crashes, .. } = &described.info;
    let state = match standing {
        JobStanding::Ready => JobState::Ready,
        JobStanding::Parked => JobState::Parked,
        JobStanding::Delayed { .. } => JobState::Delayed,
        JobStanding::Leased(_) => JobState::Leased,
        JobStanding::Dead(_) => JobState::Dead,
        JobStanding::Consumed => JobState::Consumed,
        JobStanding::Cancelled => JobState::Cancelled,
        JobStanding::Expired => JobState::Expired,
    };
    let dead = if let JobStanding::Dead(dead) = standing { Some(dead) } else { None };
    let last_error = described.info.last_error.as_ref().or_else(|| Some(&dead?.message));
    let due_in_ms = match standing {
        JobStanding::Delayed { due_log_ms } => {
            Some(due_log_ms.saturating_sub(described.now_log_ms))
        }
        _ => None,
    };
    let lease = match standing {
        JobStanding::Leased(lease) => Some(job_info::LeaseInfo {
            session: session_name(lease.holder),
            lease_ms: lease.lease_ms,
            left_ms: lease.left_ms,
            cancel_requested: described.info.cancel_requested,
        }),
        _ => None,
    };
    job_info::JobDescription {
        queue: queue.clone(),
        offset: *offset,
        group: described.group.clone(),
        state,
        enqueued_at_ms,
        due_in_ms,
        attempts: *attempts,
        failures: attempts.map(|_| *failures),
        crashes: attempts.map(|_| *crashes),
        lease,
        progress: described.info.progress.as_deref().map(str::to_owned),
        last_error: last_error.filter(|error| !error.is_empty()).map(|error| error.to_string()),
        cause: dead.map(|dead| death_cause(dead).to_owned()),
        died_at_ms: dead.map(|dead| dead.died.wall_ms),
        result_bytes: described.info.result_bytes,
    }
}

/// The beginning of a session's id: enough to tell it from others, too little to take it over.
fn session_name(holder: Holder) -> Option<String> {
    match holder {
        Holder::Session(session) => Some(session.to_string().chars().take(8).collect()),
        Holder::Timed => None,
    }
}

fn death_cause(job: &DeadJob) -> &'static str {
    match job.reason {
        EndReason::Damaged => "damaged",
        reason if reason.is_crash() => "crashes",
        _ => "failures",
    }
}

fn dead_job((offset, job): (Offset, DeadJob)) -> admin::DeadJob {
    admin::DeadJob {
        offset: offset.0,
        cause: death_cause(&job).to_owned(),
        reason: job.message.into(),
        attempts: job.attempts,
        failures: job.failures,
        crashes: job.crashes,
        died_at_ms: job.died.wall_ms,
    }
}

#[cfg(test)]
mod tests {
    use joblog_protocol::job::Job;

    use super::*;

    #[test]
    fn the_wire_and_the_domain_have_the_same_settings() {
        let domain = fields(&QueueSettings::default());
        let names: Vec<_> = domain.keys().map(String::as_str).collect();
        let mut wire = admin::QueueSettings::NAMES.to_vec();
        wire.sort_unstable();
        assert_eq!(names, wire);
        // A value for each, none of them a default.
        let other = |(name, value): (String, Value)| match value {
            Value::Number(number) => (name, (number.as_u64().unwrap() + 1).into()),
            Value::Null => (name, 1.into()),
            Value::Bool(value) => (name, (!value).into()),
            Value::Array(_) => (name, vec![7].into()),
            _ => (name, "other".into()),
        };
        let all = Value::Object(domain.into_iter().map(other).collect());
        let wire: admin::QueueSettings = serde_json::from_value(all).unwrap();
        let default = QueueSettings::default();
        let changed = settings(&default, &wire, &[]);
        assert_eq!(wire_settings(&changed), wire);
        let names: Vec<_> = admin::QueueSettings::NAMES.iter().map(ToString::to_string).collect();
        assert_eq!(settings(&changed, &admin::QueueSettings::default(), &names), default);
        let one = admin::QueueSettings { max_jobs: Some(5), ..admin::QueueSettings::default() };
        let expected = QueueSettings { max_jobs: Some(5), ..default };
        assert_eq!(settings(&changed, &one, &names), expected);
    }

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
