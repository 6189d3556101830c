//! Every message type: it comes back as it went, no beginning of it passes, nothing may follow
//! it, and no bytes make its decoder panic.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test may stop at what it did not expect"
)]

use std::collections::BTreeMap;
use std::fmt::Debug;

use bytes::BytesMut;
use joblog_protocol::frame::{Header, Peek};
use joblog_protocol::job::{Batch, BatchBuilder, Job, JobError, NotBefore, Terms, key_of};
use joblog_protocol::messages::admin::{
    self, CreateGroup, CreateQueue, DeadJob, GroupDescription, GroupKind, GroupName, GroupSeek,
    GroupSought, GroupStart, ListQueues, QueueDescription, QueueList, QueueName, QueueSettings,
    QueueSummary, ResultCounts, SeekGroup, UniqueKeys, UpdateQueue,
};
use joblog_protocol::messages::bulk::{
    BulkDone, Cancel, CancelOutcome, CancelReply, DeadList, DeadQuery, Pause, Promote,
    PromoteOutcome, PromoteReply, Purge, PurgeReply,
};
use joblog_protocol::messages::enqueue::{Enqueue, EnqueueReply, Producer, UniqueHit};
use joblog_protocol::messages::fetch::{Delivery, Fetch, FetchReply, LeaseKind, Read, ReadReply};
use joblog_protocol::messages::handles::{Handle, HandleSet};
use joblog_protocol::messages::job_info::{JobDescription, JobQuery, JobState, LeaseInfo};
use joblog_protocol::messages::lease::{
    CancelNotice, ChainReply, Commit, CommitOne, Extend, Fail, FailOutcome, FailReply, Release,
    Statuses, decode_fail_reply, decode_statuses, encode_fail_reply, encode_statuses,
};
use joblog_protocol::messages::moving::{Move, MoveOutcome, MoveReply};
use joblog_protocol::messages::schedule::{
    Missed, ScheduleAdd, ScheduleDescription, ScheduleFailure, ScheduleFiring, ScheduleList,
    ScheduleName, ScheduleQuery, ScheduleRun,
};
use joblog_protocol::messages::session::{Hello, HelloReply};
use joblog_protocol::messages::stats::{GroupStats, QueueStats, Stats};
use joblog_protocol::messages::wait::{DeathCause, Wait, WaitReply};
use joblog_protocol::unique::Unique;
use joblog_protocol::{DecodeError, ErrorCode, Opcode, Token};
use proptest::prelude::*;
use smallvec::smallvec;

/// What a decoder made of a body: the value as text, and its bytes written anew.
type Decoded = Result<(String, Vec<u8>), ErrorCode>;

struct Case {
    name: &'static str,
    value: String,
    body: Vec<u8>,
    decode: fn(&[u8]) -> Decoded,
}

fn written(put: impl FnOnce(&mut BytesMut)) -> Vec<u8> {
    let mut out = BytesMut::new();
    put(&mut out);
    out.to_vec()
}

fn decoded<T: Debug>(
    value: Result<T, DecodeError>,
    put: impl FnOnce(&T, &mut BytesMut),
) -> Decoded {
    let value = value.map_err(|error| error.code())?;
    Ok((format!("{value:?}"), written(|out| put(&value, out))))
}

/// A case from a value, how it is written, and how it is read.
macro_rules! case {
    ($name:literal, $value:expr, $put:expr, $decode:expr) => {{
        let value = $value;
        Case {
            name: $name,
            value: format!("{value:?}"),
            body: written(|out| $put(&value, out)),
            decode: |body| decoded($decode(body), $put),
        }
    }};
}

macro_rules! json_case {
    ($name:literal, $type:ty, $value:expr) => {
        case!($name, $value, |value, out| admin::encode(out, value), admin::decode::<$type>)
    };
}

fn put_fetch(reply: &FetchReply<'_>, out: &mut BytesMut) {
    FetchReply::encode_head(out, reply.lease_ms, reply.jobs.len() as u32);
    reply.jobs.iter().for_each(|job| job.encode(out));
}

fn put_read(reply: &ReadReply<'_>, out: &mut BytesMut) {
    ReadReply::encode_head(out, reply.next, reply.end, reply.jobs.len() as u32);
    reply.jobs.iter().for_each(|job| job.encode(out));
}

fn put_statuses(value: &Statuses, out: &mut BytesMut) {
    encode_statuses(out, value);
}

fn put_outcomes(value: &FailReply, out: &mut BytesMut) {
    encode_fail_reply(out, value);
}

fn token(length: usize) -> Token {
    Token::new(&[0xa5; 32][..length]).unwrap()
}

fn set<'a>(group: &'a str) -> HandleSet<'a> {
    let handle = |offset, length| Handle { offset, token: token(length) };
    HandleSet { queue: "a/queue", group, handles: smallvec![handle(0, 8), handle(u64::MAX, 32)] }
}

fn delivery(token: Option<Token>) -> Delivery<'static> {
    Delivery {
        queue_ordinal: 1,
        offset: 77,
        token,
        attempt: 3,
        enqueued_at_ms: 1_790_000_000_000,
        flags: 0,
        crc32: 0x1234_5678,
        body: b"\0\0\0\0body",
    }
}

fn batch() -> BatchBuilder {
    let mut builder = BatchBuilder::default();
    let full = Job {
        payload: b"payload".to_vec(),
        key: Some(b"key".to_vec()),
        headers: vec![("name".into(), b"value".to_vec()), (String::new(), Vec::new())],
        terms: Terms { due: Some(NotBefore::At(9)), ttl_ms: Some(10), priority: 3, front: true },
        unique: Some(Unique { key: b"once".to_vec(), window_ms: Some(11), replace: false }),
    };
    builder.push(&full).unwrap();
    builder.push(&Job::default()).unwrap();
    builder.push(&Job::new("last")).unwrap();
    builder
}

fn session_cases() -> Vec<Case> {
    let hello = |held| Hello {
        version_min: 1,
        version_max: 3,
        session: [9; 16],
        silence_ms: 5000,
        agent: "test",
        held,
    };
    let reply = HelloReply {
        version: 1,
        resumed: true,
        silence_ms: 5000,
        leases_kept: 2,
        leases_released: 3,
        job_bytes_max: 1 << 20,
        agent: "joblogd",
    };
    vec![
        case!("HELLO", hello(smallvec![]), Hello::encode, Hello::decode),
        case!("HELLO held", hello(smallvec![token(1), token(32)]), Hello::encode, Hello::decode),
        case!("HELLO reply", reply, HelloReply::encode, HelloReply::decode),
    ]
}

/// A batch is checked behind its message, as a server does it.
fn decode_enqueue(body: &[u8]) -> Decoded {
    let enqueue = Enqueue::decode(body).map_err(|error| error.code())?;
    enqueue.batch.check(1 << 20).map_err(|error: JobError| error.code())?;
    Ok((format!("{enqueue:?}"), written(|out| enqueue.encode(out))))
}

fn decode_move(body: &[u8]) -> Decoded {
    let moving = Move::decode(body).map_err(|error| error.code())?;
    moving.jobs.batch.check(1000).map_err(|error| error.code())?;
    Ok((format!("{moving:?}"), written(|out| moving.encode(out))))
}

fn move_cases() -> Vec<Case> {
    let builder = batch();
    let case = |dead_for| {
        let jobs = Enqueue { queue: "to", create: false, producer: None, batch: builder.batch() };
        let moving = Move { queue: "q", dead_for, offsets: vec![0, 7, u64::MAX], jobs };
        let body = written(|out| moving.encode(out));
        Case { name: "MOVE", value: format!("{moving:?}"), body, decode: decode_move }
    };
    let outcomes = vec![MoveOutcome::Movable, MoveOutcome::Leased, MoveOutcome::Gone];
    let enqueued = EnqueueReply { first_offset: 5, count: 3, created: true, hits: vec![] };
    let reply = MoveReply { outcomes, enqueued };
    let case_of_reply = case!("MOVE reply", reply, MoveReply::encode, MoveReply::decode);
    vec![case(None), case(Some("")), case(Some("g")), case_of_reply]
}

fn decode_chain(body: &[u8]) -> Decoded {
    let commit = Commit::decode(body).map_err(|error| error.code())?;
    if let Commit::One(CommitOne { jobs: Some(jobs), .. }) = &commit {
        jobs.batch.check(1000).map_err(|error| error.code())?;
    }
    Ok((format!("{commit:?}"), written(|out| commit.encode(out))))
}

fn enqueue_cases() -> Vec<Case> {
    let builder = batch();
    let case = |name, create: bool| {
        let producer = (!create).then_some(Producer { id: [7; 16], sequence: 1 << 40 });
        let enqueue = Enqueue { queue: "q", create, producer, batch: builder.batch() };
        let body = written(|out| enqueue.encode(out));
        Case { name, value: format!("{enqueue:?}"), body, decode: decode_enqueue }
    };
    let hits = vec![UniqueHit { ordinal: 2, replaced: true, offset: 4 }];
    let hit = EnqueueReply { first_offset: 5, count: 3, created: true, hits };
    let reply = EnqueueReply { hits: Vec::new(), ..hit.clone() };
    vec![
        case("ENQUEUE", true),
        case("ENQUEUE no create", false),
        case!("ENQUEUE reply", reply, EnqueueReply::encode, EnqueueReply::decode),
        case!("ENQUEUE reply with hits", hit, EnqueueReply::encode, EnqueueReply::decode),
    ]
}

fn fetch_cases() -> Vec<Case> {
    fn fetch(lease: LeaseKind) -> Fetch<'static> {
        Fetch {
            queues: smallvec!["one", "two", "three"],
            group: "g",
            jobs_max: 10,
            bytes_max: 0,
            wait_ms: 1000,
            lease,
            by_turns: false,
            commits: smallvec![],
        }
    }
    let session = LeaseKind::Session { run_ms_max: None };
    let bounded = LeaseKind::Session { run_ms_max: Some(100) };
    let timed = LeaseKind::Timed { lease_ms: 2_592_000_000 };
    let commits = smallvec![set(""), set("g")];
    let carrying = Fetch { group: "", by_turns: true, commits, ..fetch(timed) };
    let leased = smallvec![delivery(Some(token(8))), delivery(Some(token(32)))];
    let jobs = FetchReply { lease_ms: 5, jobs: leased };
    let none = FetchReply { lease_ms: 5, jobs: smallvec![] };
    let read = Read { queue: "q", from: 9, jobs_max: u32::MAX, bytes_max: 1, unconsumed_by: None };
    let read_by = Read { unconsumed_by: Some("g"), ..read };
    let seen = ReadReply { next: 10, end: 11, jobs: smallvec![delivery(None)] };
    vec![
        case!("FETCH", fetch(session), Fetch::encode, Fetch::decode),
        case!("FETCH bounded", fetch(bounded), Fetch::encode, Fetch::decode),
        case!("FETCH carrying", carrying, Fetch::encode, Fetch::decode),
        case!("FETCH reply", jobs, put_fetch, FetchReply::decode),
        case!("FETCH reply, empty", none, put_fetch, FetchReply::decode),
        case!("READ", read, Read::encode, Read::decode),
        case!("READ by group", read_by, Read::encode, Read::decode),
        case!("READ reply", seen, put_read, ReadReply::decode),
    ]
}

fn lease_cases() -> Vec<Case> {
    let jobs = Commit::Jobs(smallvec![set("g"), set("")]);
    let through = Commit::Through { queue: "q", group: "g", offset: 12 };
    let release = Release { jobs: set("g"), delay_ms: 31_622_400_000 };
    let by_policy = Fail { jobs: set("g"), failures_max: None, delay_ms: None, reason: "why" };
    let own = Fail { jobs: set(""), failures_max: Some(0), delay_ms: Some(0), reason: "" };
    let extend = |progress| Extend { jobs: set("g"), lease_ms: 100, progress };
    let handle = Handle { offset: 5, token: token(8) };
    let notice = CancelNotice { queue: "q", group: "g", handle };
    let with = |result, jobs| CommitOne { queue: "q", group: "", handle, result, jobs };
    let one = |result| Commit::One(with(result, None));
    let producer = Some(Producer { id: [7; 16], sequence: 9 });
    let builder = batch();
    let jobs_of = Enqueue { queue: "next", create: true, producer, batch: builder.batch() };
    let chain = Commit::One(with(Some(b"42"), Some(jobs_of)));
    let chain = Case {
        name: "COMMIT with jobs",
        value: format!("{chain:?}"),
        body: written(|out| chain.encode(out)),
        decode: decode_chain,
    };
    let enqueued = EnqueueReply { first_offset: 1 << 40, count: 3, created: true, hits: vec![] };
    let chained = ChainReply { status: None, enqueued: enqueued.clone() };
    let unchained = ChainReply { status: Some(ErrorCode::LeaseLost), enqueued };
    let statuses: Statuses = smallvec![None, Some(ErrorCode::LeaseLost), None];
    let refused = FailOutcome::Refused(ErrorCode::AlreadyConsumed);
    let outcomes: FailReply =
        smallvec![refused, FailOutcome::Retry { in_ms: 7 }, FailOutcome::Dead];
    vec![
        case!("COMMIT", jobs, Commit::encode, Commit::decode),
        case!("COMMIT through", through, Commit::encode, Commit::decode),
        case!("COMMIT one", one(None), Commit::encode, Commit::decode),
        case!("COMMIT with a result", one(Some(b"42")), Commit::encode, Commit::decode),
        chain,
        case!("COMMIT reply with jobs", chained, ChainReply::encode, ChainReply::decode),
        case!("COMMIT reply, refused", unchained, ChainReply::encode, ChainReply::decode),
        case!("COMMIT with an empty one", one(Some(b"")), Commit::encode, Commit::decode),
        case!("RELEASE", release, Release::encode, Release::decode),
        case!("FAIL by policy", by_policy, Fail::encode, Fail::decode),
        case!("FAIL by its own", own, Fail::encode, Fail::decode),
        case!("EXTEND", extend(None), Extend::encode, Extend::decode),
        case!("EXTEND progress", extend(Some("half")), Extend::encode, Extend::decode),
        case!("EXTEND nothing", extend(Some("")), Extend::encode, Extend::decode),
        case!("CANCEL notice", notice, CancelNotice::encode, CancelNotice::decode),
        case!("statuses", statuses, put_statuses, decode_statuses),
        case!("FAIL reply", outcomes, put_outcomes, decode_fail_reply),
    ]
}

fn wait_cases() -> Vec<Case> {
    let session = Some("00ff".to_owned());
    let lease = LeaseInfo { session, lease_ms: 1, left_ms: 0, cancel_requested: true };
    let described = JobDescription {
        queue: "q".into(),
        offset: 1,
        group: "g".into(),
        state: JobState::Leased,
        enqueued_at_ms: Some(2),
        due_in_ms: Some(3),
        attempts: Some(4),
        failures: Some(5),
        crashes: Some(6),
        lease: Some(lease),
        progress: Some("half".into()),
        last_error: Some("no \"ink\"".into()),
        cause: Some("failures".into()),
        died_at_ms: Some(7),
        result_bytes: Some(8),
    };
    let asked = JobQuery { queue: "q".into(), offset: 1, group: "g".into() };
    let wait = Wait { queue: "q", offset: u64::MAX, wait_ms: 600_000 };
    let done = |result| WaitReply::Done { result };
    let dead = WaitReply::Dead { cause: DeathCause::Crashes, reason: "no ink" };
    vec![
        json_case!("JOB_INFO", JobQuery, asked),
        json_case!("JOB_INFO reply", JobDescription, described),
        case!("WAIT", wait, Wait::encode, Wait::decode),
        case!("WAIT reply, not yet", WaitReply::NotYet, WaitReply::encode, WaitReply::decode),
        case!("WAIT reply, done", done(None), WaitReply::encode, WaitReply::decode),
        case!("WAIT reply, result", done(Some(b"42")), WaitReply::encode, WaitReply::decode),
        case!("WAIT reply, dead", dead, WaitReply::encode, WaitReply::decode),
        case!("WAIT reply, cancelled", WaitReply::Cancelled, WaitReply::encode, WaitReply::decode),
        case!("WAIT reply, expired", WaitReply::Expired, WaitReply::encode, WaitReply::decode),
    ]
}

#[test]
fn a_result_over_the_limit_has_an_error_of_its_own() {
    let handle = Handle { offset: 5, token: token(8) };
    let with = |bytes: usize| {
        let result = vec![0; bytes];
        let result = Some(result.as_slice());
        let one = CommitOne { queue: "q", group: "", handle, result, jobs: None };
        let body = written(|out| Commit::One(one).encode(out));
        Commit::decode(&body).map(drop).map_err(|error| error.code())
    };
    assert_eq!(with(65_536), Ok(()));
    assert_eq!(with(65_537), Err(ErrorCode::ResultTooLarge));
}

fn group_description() -> GroupDescription {
    let dead = DeadJob {
        offset: 3,
        cause: "failures".into(),
        reason: "said \"no\"\n".into(),
        attempts: 4,
        failures: 3,
        crashes: 1,
        died_at_ms: 1_790_000_000_000,
    };
    GroupDescription {
        queue: "q".into(),
        group: "g".into(),
        kind: GroupKind::Stream,
        committed_offset: 1,
        consumed_above: 2,
        ready: 3,
        ready_by_priority: BTreeMap::from([(9, 1), (2, 1)]),
        leased: 4,
        delayed: 5,
        dead: 6,
        parked: 9,
        parked_full: true,
        paused: true,
        removed: BTreeMap::from([("dropped".into(), 7), ("aged".into(), 8)]),
        dead_jobs: vec![dead],
    }
}

fn bulk_cases() -> Vec<Case> {
    let least = DeadQuery { queue: "q".into(), limit: 1, ..DeadQuery::default() };
    let most = DeadQuery {
        group: "g".into(),
        jobs: Some(vec![0, u64::MAX]),
        error: Some("no \"ink\"".into()),
        older_than_ms: Some(1),
        younger_than_ms: Some(2),
        from: 3,
        ..least.clone()
    };
    let list = DeadList { jobs: group_description().dead_jobs, next: 4, more: true };
    let cancel = Cancel { queue: "q".into(), jobs: vec![0, 9] };
    let outcomes = [CancelOutcome::Cancelled, CancelOutcome::Requested, CancelOutcome::Consumed];
    let cancelled = CancelReply { jobs: [&outcomes[..], &[CancelOutcome::NoSuchJob]].concat() };
    let promote = Promote { queue: "q".into(), jobs: vec![0, 9] };
    let outcomes = vec![PromoteOutcome::Promoted, PromoteOutcome::NotDelayed];
    let promoted = PromoteReply { jobs: [outcomes, vec![PromoteOutcome::NoSuchJob]].concat() };
    let purged = PurgeReply { count: 1, leased: 2, next: 3, end: 4 };
    let done = BulkDone { count: 1, refused: vec![5], next: 6, more: false };
    vec![
        json_case!("DEAD_RETRY", DeadQuery, least),
        json_case!("DEAD_LIST", DeadQuery, most.clone()),
        json_case!("DEAD_DROP", DeadQuery, most),
        json_case!("DEAD_LIST reply", DeadList, list),
        json_case!("bulk reply", BulkDone, done),
        json_case!("CANCEL", Cancel, cancel),
        json_case!("CANCEL reply", CancelReply, cancelled),
        json_case!("PROMOTE", Promote, promote),
        json_case!("PROMOTE reply", PromoteReply, promoted),
        json_case!("PAUSE", Pause, Pause { queue: "q".into(), group: None }),
        json_case!("RESUME", Pause, Pause { queue: "q".into(), group: Some("g".into()) }),
        json_case!("PURGE", Purge, Purge { queue: "q".into(), from: 1, end: Some(2) }),
        json_case!("PURGE reply", PurgeReply, purged),
    ]
}

fn stats() -> Stats {
    let group = GroupStats {
        group: "g".into(),
        kind: GroupKind::Work,
        paused: true,
        committed_offset: 1,
        consumed_above: 2,
        ready: 3,
        leased: 4,
        delayed: 5,
        dead: 6,
        oldest_enqueued_at_ms: Some(7),
    };
    let queue = QueueStats {
        queue: "q".into(),
        paused: true,
        first_offset: 1,
        next_offset: 2,
        unconsumed: 3,
        groups: vec![group],
    };
    Stats { now_ms: 8, queues: vec![queue], more: true }
}

fn schedule_cases() -> Vec<Case> {
    let add = ScheduleAdd {
        schedule: "s".into(),
        queue: "q".into(),
        cron: None,
        zone: None,
        every_ms: Some(1_000),
        missed: Missed::Skip,
        paused: true,
        replace: true,
        body_base64: "AAAAAA==".into(),
    };
    let cron = ScheduleAdd {
        cron: Some("@daily".into()),
        zone: Some("UTC".into()),
        every_ms: None,
        ..add.clone()
    };
    let query = ScheduleQuery { schedule: Some("s".into()), after: "a".into(), limit: 2, times: 3 };
    let description = ScheduleDescription {
        schedule: "s".into(),
        queue: "q".into(),
        cron: Some("@daily".into()),
        zone: Some("UTC".into()),
        every_ms: None,
        missed: Missed::Once,
        paused: true,
        next_ms: vec![1, 2],
        fired: 3,
        skipped: 4,
        failed: 5,
        last_firing: Some(ScheduleFiring { due_ms: 6, fired_ms: 7, offset: 8 }),
        last_failure: Some(ScheduleFailure { failed_ms: 9, error: "full".into(), retried: true }),
        body_base64: Some("AAAAAA==".into()),
    };
    let list = ScheduleList { schedules: vec![description], more: true };
    let name = ScheduleName { schedule: "s".into() };
    vec![
        json_case!("SCHEDULE_ADD", ScheduleAdd, add),
        json_case!("SCHEDULE_ADD", ScheduleAdd, cron),
        json_case!("SCHEDULE_LIST", ScheduleQuery, query),
        json_case!("SCHEDULE_LIST reply", ScheduleList, list),
        json_case!("SCHEDULE_PAUSE", ScheduleName, name.clone()),
        json_case!("SCHEDULE_RESUME", ScheduleName, name.clone()),
        json_case!("SCHEDULE_REMOVE", ScheduleName, name.clone()),
        json_case!("SCHEDULE_RUN", ScheduleName, name),
        json_case!("SCHEDULE_RUN reply", ScheduleRun, ScheduleRun { queue: "q".into(), offset: 1 }),
    ]
}

fn admin_cases() -> Vec<Case> {
    let settings = QueueSettings {
        failures_max: Some(1),
        backoff_delays_ms: Some(vec![1, 2]),
        crash_backoff_longest_ms: Some(u64::MAX),
        ..QueueSettings::default()
    };
    let reset = vec!["max_age_ms".into(), "dead_kept_ms".into()];
    let update = UpdateQueue { queue: "q".into(), settings: settings.clone(), reset };
    let summary = QueueSummary {
        queue: "q".into(),
        first_offset: 1,
        next_offset: 2,
        groups: vec!["g".into()],
    };
    let description = QueueDescription {
        queue: "q".into(),
        first_offset: 1,
        next_offset: 2,
        durability: "interval:100".into(),
        paused: true,
        settings: settings.clone(),
        unconsumed: 3,
        unconsumed_bytes: Some(4),
        expired: 5,
        results: ResultCounts { kept: 6, bytes: 7, displaced: 8 },
        unique: Some(UniqueKeys { held: 6, duplicates: 7, replaced: 8 }),
        groups: vec![group_description()],
    };
    let create_group =
        |kind, start| CreateGroup { queue: "q".into(), group: "g".into(), kind, start };
    let at = create_group(GroupKind::Work, GroupStart::Offset(5));
    let end = create_group(GroupKind::Stream, GroupStart::End);
    let seek = |to| SeekGroup { queue: "q".into(), group: "g".into(), to };
    let group = GroupName { queue: "q".into(), group: "g".into() };
    vec![
        json_case!(
            "CREATE_QUEUE",
            CreateQueue,
            CreateQueue { queue: "q".into(), settings: settings.clone() }
        ),
        json_case!("UPDATE_QUEUE", UpdateQueue, update),
        json_case!("queue name", QueueName, QueueName { queue: "q".into() }),
        json_case!("LIST_QUEUES", ListQueues, ListQueues { after: "a".into(), limit: 10 }),
        json_case!("queue list", QueueList, QueueList { queues: vec![summary], more: true }),
        json_case!("STATS", ListQueues, ListQueues { after: "a".into(), limit: 10 }),
        json_case!("STATS reply", Stats, stats()),
        json_case!("queue", QueueDescription, description),
        json_case!("CREATE_GROUP at", CreateGroup, at),
        json_case!("CREATE_GROUP end", CreateGroup, end),
        json_case!("group name", GroupName, group),
        json_case!("SEEK_GROUP", SeekGroup, seek(GroupSeek::TimeMs(7))),
        json_case!("SEEK_GROUP end", SeekGroup, seek(GroupSeek::End)),
        json_case!("group sought", GroupSought, GroupSought { committed_offset: 9 }),
        json_case!("group list", Vec<GroupDescription>, vec![group_description()]),
        json_case!("group", GroupDescription, group_description()),
    ]
}

fn cases() -> Vec<Case> {
    [session_cases(), enqueue_cases(), fetch_cases(), lease_cases(), wait_cases()]
        .into_iter()
        .chain([admin_cases(), bulk_cases(), move_cases(), schedule_cases()])
        .flatten()
        .collect()
}

#[test]
fn every_message_comes_back_as_it_went() {
    for case in cases() {
        let (value, body) =
            (case.decode)(&case.body).unwrap_or_else(|e| panic!("{}: {e}", case.name));
        assert_eq!(value, case.value, "{}", case.name);
        assert_eq!(body, case.body, "{}", case.name);
    }
}

#[test]
fn no_beginning_of_a_message_passes() {
    for case in cases() {
        for end in 0..case.body.len() {
            let result = (case.decode)(&case.body[..end]);
            assert!(result.is_err(), "{}: {end} of {} bytes pass", case.name, case.body.len());
        }
    }
}

#[test]
fn nothing_may_follow_a_message() {
    for case in cases() {
        for byte in [0, 1, 0xff] {
            let longer = [&case.body[..], &[byte]].concat();
            assert!((case.decode)(&longer).is_err(), "{} with {byte:#x} behind", case.name);
        }
    }
}

/// A body with one byte set differently, and the code that must come of it.
fn assert_code(name: &str, decode: fn(&[u8]) -> Decoded, body: &[u8], code: ErrorCode) {
    assert_eq!(decode(body).map(|(value, _)| value), Err(code), "{name}");
}

fn with(body: &[u8], at: usize, byte: u8) -> Vec<u8> {
    let mut body = body.to_vec();
    body[at] = byte;
    body
}

#[test]
fn each_fault_has_its_code() {
    let cases = cases();
    let of = |name| cases.iter().find(|case| case.name == name).unwrap();
    let faults = [
        ("HELLO", 6, 0, ErrorCode::BadRequest),
        ("HELLO held", 38, 0, ErrorCode::BadToken),
        ("HELLO held", 38, 33, ErrorCode::BadToken),
        ("ENQUEUE", 0, 0, ErrorCode::BadName),
        ("ENQUEUE", 1, b':', ErrorCode::BadName),
        ("ENQUEUE", 1, 0xff, ErrorCode::BadName),
        ("ENQUEUE", 2, 0x04, ErrorCode::Unsupported),
        ("ENQUEUE", 3, 0, ErrorCode::BatchTooLarge),
        ("ENQUEUE", 5, 2, ErrorCode::BatchTooLarge),
        ("ENQUEUE", 8, 1, ErrorCode::BadRequest),
        ("ENQUEUE", 11, 1, ErrorCode::Unsupported),
        ("ENQUEUE", 15, 0, ErrorCode::BadChecksum),
        ("FETCH", 0, 0, ErrorCode::BadRequest),
        ("FETCH", 17, 0, ErrorCode::BadRequest),
        ("FETCH", 29, 4, ErrorCode::Unsupported),
        ("COMMIT", 0, 3, ErrorCode::BadRequest),
        ("COMMIT one", 21, 0x04, ErrorCode::Unsupported),
        ("MOVE", 2, 0x02, ErrorCode::Unsupported),
        ("MOVE", 3, 0, ErrorCode::BadRequest),
        ("MOVE", 7, 8, ErrorCode::BadRequest),
        ("statuses", 4, 200, ErrorCode::BadRequest),
        ("CREATE_QUEUE", 0, b'[', ErrorCode::BadRequest),
    ];
    for (name, at, byte, code) in faults {
        let case = of(name);
        assert_ne!(case.body[at], byte, "{name} has this byte anyway");
        assert_code(&format!("{name} at {at}"), case.decode, &with(&case.body, at, byte), code);
    }
}

#[test]
fn an_attribute_of_a_later_version_is_refused() {
    let body = [&3_u32.to_le_bytes()[..], &[99, 0, 0]].concat();
    let table = [7_u32, 0, crc32fast::hash(&body)].map(u32::to_le_bytes).concat();
    let batch = Batch { count: 1, table: &table, bodies: &body };
    assert_eq!(batch.check(100).unwrap_err().code(), ErrorCode::Unsupported);
}

#[test]
fn of_several_keys_the_last_one_holds() {
    let attributes = [1, 1, 0, b'a', 2, 2, 0, 1, b'h', 1, 1, 0, b'b'];
    let body = [&13_u32.to_le_bytes()[..], &attributes, b"payload"].concat();
    assert_eq!(Job::from_body(&body).unwrap().key.as_deref(), Some(&b"b"[..]));
    assert_eq!(key_of(&body), Some(&b"b"[..]));
    assert_eq!(key_of(&body[..16]), None, "cut short");
}

#[test]
fn a_long_wait_is_cut_and_a_long_reason_too() {
    let fetch = cases().into_iter().find(|case| case.name == "FETCH").unwrap();
    let waits = with(&fetch.body, 28, 0xff);
    assert_eq!(Fetch::decode(&waits).unwrap().wait_ms, 600_000);
    let reason = "\u{e4}".repeat(3000);
    let jobs = written(|out| set("").encode(out));
    let policy = [0xff; 12];
    let text = [&6000_u16.to_le_bytes(), reason.as_bytes()].concat();
    let body = [&jobs[..], &policy, &text].concat();
    assert_eq!(Fail::decode(&body).unwrap().reason.len(), 4096);
}

/// All that reads bytes from the other side.
fn decode_with_everything(bytes: &[u8]) {
    for case in cases() {
        let _ = (case.decode)(bytes);
    }
    let _ = Job::from_body(bytes);
    let _ = key_of(bytes);
    let _ = Token::new(bytes);
    let _ = std::str::from_utf8(bytes).map(str::parse::<Token>);
    if let Peek::Whole(header) = Header::peek(bytes) {
        assert!(bytes.len() >= header.body_bytes() + 16);
    }
    let table = &bytes[..bytes.len() / 2 / 12 * 12];
    let batch = Batch { count: 0, table, bodies: &bytes[bytes.len() / 2..] };
    assert!(batch.check(1 << 20).is_err() || batch.jobs().count() == table.len() / 12);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    #[test]
    fn no_bytes_make_a_decoder_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        decode_with_everything(&bytes);
    }

    /// Bytes that are nearly right come further than random ones.
    #[test]
    fn no_damage_makes_a_decoder_panic(
        choice in any::<prop::sample::Index>(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
    ) {
        let cases = cases();
        let mut body = choice.get(&cases).body.clone();
        for (at, byte) in changes {
            let at = at.index(body.len());
            body[at] = byte;
        }
        decode_with_everything(&body);
    }

    #[test]
    fn every_job_comes_back(
        payload in prop::collection::vec(any::<u8>(), 0..100),
        key in prop::option::of(prop::collection::vec(any::<u8>(), 0..100)),
        names in prop::collection::vec(".{0,20}", 0..4),
        value in prop::collection::vec(any::<u8>(), 0..20),
    ) {
        let headers = names.into_iter().map(|name| (name, value.clone())).collect();
        let job = Job { payload, key, headers, ..Job::default() };
        let mut builder = BatchBuilder::default();
        builder.push(&job).unwrap();
        prop_assert_eq!(builder.batch().check(1 << 20), Ok(()));
        let body = builder.batch().jobs().next().unwrap().body.to_vec();
        prop_assert_eq!(body.len(), job.body_bytes());
        prop_assert_eq!(key_of(&body), job.key.as_deref());
        prop_assert_eq!(Job::from_body(&body).unwrap(), job);
    }
}

#[test]
fn every_command_has_a_case() {
    let names: Vec<_> = cases().iter().map(|case| case.name).collect();
    let under = |opcode: &Opcode| match opcode {
        Opcode::Drain | Opcode::Goodbye | Opcode::Ping => None,
        Opcode::DeleteQueue | Opcode::DescribeQueue | Opcode::ListGroups => Some("queue name"),
        Opcode::DeleteGroup | Opcode::DescribeGroup => Some("group name"),
        other => Some(other.name()),
    };
    for name in Opcode::ALL.iter().filter_map(under) {
        assert!(names.iter().any(|known| known.starts_with(name)), "no case for {name}");
    }
}
