//! The hex of SPEC.md is what the codec reads and writes, byte for byte.
//!
//! Blocks tagged `hex` hold lines `C: 0c 00 ..` and `S: ..`; `#` begins a remark. Every frame in
//! them goes through the codec and back, and the annotated session is compared with its values.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test may stop at what it did not expect"
)]

mod hex;

use bytes::{BufMut, BytesMut};
use joblog_protocol::frame::{self, FLAG_MORE, FLAG_REPLY, Header};
use joblog_protocol::job::{BatchBuilder, Job};
use joblog_protocol::messages::admin::{
    self, CreateGroup, CreateQueue, GroupDescription, GroupName, GroupSought, ListQueues,
    QueueDescription, QueueList, QueueName, QueueSettings, SeekGroup, UpdateQueue,
};
use joblog_protocol::messages::bulk::{
    BulkDone, Cancel, CancelReply, DeadList, DeadQuery, Pause, Promote, PromoteReply, Purge,
    PurgeReply,
};
use joblog_protocol::messages::enqueue::{Enqueue, EnqueueReply};
use joblog_protocol::messages::fetch::{Delivery, Fetch, FetchReply, LeaseKind, Read, ReadReply};
use joblog_protocol::messages::handles::{Handle, HandleSet, HandleSets};
use joblog_protocol::messages::job_info::{JobDescription, JobQuery};
use joblog_protocol::messages::lease::{
    CancelNotice, ChainReply, Commit, Extend, Fail, FailOutcome, FailReply, Release, Statuses,
    decode_fail_reply, decode_statuses, encode_fail_reply, encode_statuses,
};
use joblog_protocol::messages::moving::{Move, MoveReply};
use joblog_protocol::messages::schedule::{
    ScheduleAdd, ScheduleList, ScheduleName, ScheduleQuery, ScheduleRun,
};
use joblog_protocol::messages::session::{Hello, HelloReply};
use joblog_protocol::messages::stats::Stats;
use joblog_protocol::messages::wait::{Wait, WaitReply};
use joblog_protocol::wire::{Reader, put_text};
use joblog_protocol::{ErrorCode, Opcode, Token};
use smallvec::smallvec;

use hex::{Frame, SPEC, Side, frames, hex, section};

fn put_deliveries(out: &mut BytesMut, jobs: &[Delivery<'_>]) {
    jobs.iter().for_each(|job| job.encode(out));
}

fn put_fetch_reply(reply: &FetchReply<'_>, out: &mut BytesMut) {
    FetchReply::encode_head(out, reply.lease_ms, reply.jobs.len() as u32);
    put_deliveries(out, &reply.jobs);
}

fn put_read_reply(reply: &ReadReply<'_>, out: &mut BytesMut) {
    ReadReply::encode_head(out, reply.next, reply.end, reply.jobs.len() as u32);
    put_deliveries(out, &reply.jobs);
}

fn json<T: serde::Serialize + serde::de::DeserializeOwned>(body: &[u8], out: &mut BytesMut) {
    admin::encode(out, &admin::decode::<T>(body).unwrap());
}

/// Reads the body of a request and writes it again.
fn request_again(opcode: Opcode, body: &[u8], out: &mut BytesMut) {
    match opcode {
        Opcode::Hello => {
            assert!(Hello::has_magic(body));
            Hello::decode(body).unwrap().encode(out);
        }
        Opcode::Goodbye | Opcode::Drain => assert!(body.is_empty()),
        Opcode::Ping => out.put_slice(body),
        Opcode::CreateQueue => json::<CreateQueue>(body, out),
        Opcode::UpdateQueue => json::<UpdateQueue>(body, out),
        Opcode::DeleteQueue | Opcode::DescribeQueue | Opcode::ListGroups => {
            json::<QueueName>(body, out);
        }
        Opcode::ListQueues | Opcode::Stats => json::<ListQueues>(body, out),
        Opcode::CreateGroup => json::<CreateGroup>(body, out),
        Opcode::SeekGroup => json::<SeekGroup>(body, out),
        Opcode::DeleteGroup | Opcode::DescribeGroup => json::<GroupName>(body, out),
        Opcode::Enqueue => {
            let enqueue = Enqueue::decode(body).unwrap();
            assert_eq!(enqueue.batch.check(1000), Ok(()));
            enqueue.encode(out);
        }
        Opcode::Fetch => Fetch::decode(body).unwrap().encode(out),
        Opcode::Commit => Commit::decode(body).unwrap().encode(out),
        Opcode::Release => Release::decode(body).unwrap().encode(out),
        Opcode::Fail => Fail::decode(body).unwrap().encode(out),
        Opcode::Extend => Extend::decode(body).unwrap().encode(out),
        Opcode::Read => Read::decode(body).unwrap().encode(out),
        Opcode::JobInfo => json::<JobQuery>(body, out),
        Opcode::Wait => Wait::decode(body).unwrap().encode(out),
        Opcode::DeadList | Opcode::DeadRetry | Opcode::DeadDrop => json::<DeadQuery>(body, out),
        Opcode::Cancel => json::<Cancel>(body, out),
        Opcode::Pause | Opcode::Resume => json::<Pause>(body, out),
        Opcode::Purge => json::<Purge>(body, out),
        Opcode::Promote => json::<Promote>(body, out),
        Opcode::Move => Move::decode(body).unwrap().encode(out),
        Opcode::ScheduleAdd => json::<ScheduleAdd>(body, out),
        Opcode::ScheduleList => json::<ScheduleQuery>(body, out),
        Opcode::SchedulePause
        | Opcode::ScheduleResume
        | Opcode::ScheduleRemove
        | Opcode::ScheduleRun => json::<ScheduleName>(body, out),
    }
}

/// Reads the body of a reply and writes it again.
fn reply_again(header: Header, body: &[u8], out: &mut BytesMut) {
    if header.status != 0 {
        assert!(ErrorCode::from_code(header.status).is_some());
        let mut reader = Reader::new(body);
        put_text(out, reader.text("message").unwrap(), 2048);
        return reader.finish().unwrap();
    }
    if header.flags & FLAG_MORE != 0 {
        return encode_statuses(out, &decode_statuses(body).unwrap());
    }
    match Opcode::from_code(header.opcode).unwrap() {
        Opcode::Hello => HelloReply::decode(body).unwrap().encode(out),
        Opcode::Ping => out.put_slice(body),
        Opcode::Goodbye
        | Opcode::Drain
        | Opcode::Pause
        | Opcode::Resume
        | Opcode::CreateQueue
        | Opcode::DeleteQueue
        | Opcode::CreateGroup
        | Opcode::DeleteGroup
        | Opcode::ScheduleAdd
        | Opcode::SchedulePause
        | Opcode::ScheduleResume
        | Opcode::ScheduleRemove => assert!(body.is_empty()),
        Opcode::UpdateQueue => json::<QueueSettings>(body, out),
        Opcode::ListQueues => json::<QueueList>(body, out),
        Opcode::DescribeQueue => json::<QueueDescription>(body, out),
        Opcode::ListGroups => json::<Vec<GroupDescription>>(body, out),
        Opcode::DescribeGroup => json::<GroupDescription>(body, out),
        Opcode::SeekGroup => json::<GroupSought>(body, out),
        Opcode::Enqueue => EnqueueReply::decode(body).unwrap().encode(out),
        Opcode::Fetch => put_fetch_reply(&FetchReply::decode(body).unwrap(), out),
        Opcode::Commit if decode_statuses(body).is_err() => {
            ChainReply::decode(body).unwrap().encode(out);
        }
        Opcode::Commit | Opcode::Release | Opcode::Extend => {
            encode_statuses(out, &decode_statuses(body).unwrap());
        }
        Opcode::Fail => encode_fail_reply(out, &decode_fail_reply(body).unwrap()),
        Opcode::Read => put_read_reply(&ReadReply::decode(body).unwrap(), out),
        Opcode::JobInfo => json::<JobDescription>(body, out),
        Opcode::Wait => WaitReply::decode(body).unwrap().encode(out),
        Opcode::DeadList => json::<DeadList>(body, out),
        Opcode::DeadRetry | Opcode::DeadDrop => json::<BulkDone>(body, out),
        Opcode::Cancel if header.correlation == 0 => {
            CancelNotice::decode(body).unwrap().encode(out);
        }
        Opcode::Cancel => json::<CancelReply>(body, out),
        Opcode::Promote => json::<PromoteReply>(body, out),
        Opcode::Purge => json::<PurgeReply>(body, out),
        Opcode::Move => MoveReply::decode(body).unwrap().encode(out),
        Opcode::ScheduleList => json::<ScheduleList>(body, out),
        Opcode::ScheduleRun => json::<ScheduleRun>(body, out),
        Opcode::Stats => json::<Stats>(body, out),
    }
}

#[test]
fn every_frame_of_the_document_is_read_and_written_as_it_stands() {
    let frames = frames(SPEC);
    assert!(frames.len() >= 50, "only {} frames found", frames.len());
    for frame in frames {
        let header = frame.header;
        let from_server = frame.side == Side::Server;
        assert_eq!(header.flags & FLAG_REPLY != 0, from_server, "{}", hex(&frame.bytes));
        let mut again = BytesMut::new();
        frame::put_frame(&mut again, header, |out| match frame.side {
            Side::Client => request_again(frame.opcode(), frame.body(), out),
            Side::Server => reply_again(header, frame.body(), out),
        });
        assert_eq!(hex(&again), hex(&frame.bytes), "{}", frame.opcode().name());
    }
}

#[test]
fn every_command_has_an_example_of_its_request_and_its_reply() {
    let commands = section("9. Commands");
    for opcode in Opcode::ALL {
        let heading = format!("\n#### {}\n", opcode.name());
        let text = &commands[commands.find(&heading).unwrap() + heading.len()..];
        let text = &text[..text.find("\n#### ").unwrap_or(text.len())];
        let found: Vec<_> = frames(text).iter().map(|f| (f.side, f.opcode())).collect();
        for side in [Side::Client, Side::Server] {
            assert!(found.contains(&(side, *opcode)), "{} {side:?}", opcode.name());
        }
    }
}

fn header(opcode: Opcode, flags: u8, correlation: u64) -> Header {
    Header { length: 0, opcode: opcode as u8, flags, status: 0, correlation }
}

/// The next frame has this header, its body is what `$put` writes of `$value`, and `$decode` reads
/// the same value out of it. With no value, it has no body.
macro_rules! next_is {
    ($frames:expr, $header:expr, $value:expr, $put:expr, $decode:expr) => {{
        let frame: Frame = $frames.next().expect("the session has another frame");
        let value = $value;
        let mut expected = BytesMut::new();
        frame::put_frame(&mut expected, $header, |out| $put(&value, out));
        assert_eq!(hex(&frame.bytes), hex(&expected), "{}", frame.opcode().name());
        assert_eq!($decode(frame.body()).unwrap(), value);
    }};
    ($frames:expr, $header:expr) => {{
        let frame: Frame = $frames.next().expect("the session has another frame");
        let mut expected = BytesMut::new();
        frame::put_frame(&mut expected, $header, |_| {});
        assert_eq!(hex(&frame.bytes), hex(&expected), "{}", frame.opcode().name());
    }};
}

fn token(number: u64) -> Token {
    Token::new(&((1_790_000_000 << 32) | number).to_le_bytes()).unwrap()
}

fn of_mail<'a>(offset: u64) -> HandleSet<'a> {
    let handle = Handle { offset, token: token(offset + 1) };
    HandleSet { queue: "mail", group: "", handles: smallvec![handle] }
}

fn fetch(wait_ms: u32, commits: HandleSets<'_>) -> Fetch<'_> {
    Fetch {
        queues: smallvec!["mail"],
        group: "",
        jobs_max: 10,
        bytes_max: 1 << 20,
        wait_ms,
        lease: LeaseKind::Session { run_ms_max: None },
        by_turns: false,
        commits,
    }
}

fn jobs() -> [Job; 2] {
    let world = Job {
        payload: b"world".to_vec(),
        key: Some(b"user-7".to_vec()),
        headers: vec![("lang".into(), b"en".to_vec())],
        ..Job::default()
    };
    [Job::new("hello"), world]
}

fn greet(frames: &mut impl Iterator<Item = Frame>) {
    let hello = Hello {
        version_min: 1,
        version_max: 1,
        session: 0x184f_2dee_b590_771c_e26b_04a8_d751_3c9f_u128.to_le_bytes(),
        silence_ms: 0,
        agent: "example",
        held: smallvec![],
    };
    next_is!(frames, header(Opcode::Hello, 0, 1), hello, Hello::encode, Hello::decode);
    let reply = HelloReply {
        version: 1,
        resumed: false,
        silence_ms: 10_000,
        leases_kept: 0,
        leases_released: 0,
        job_bytes_max: 1 << 20,
        agent: "joblogd/0.1.0",
    };
    let (put, decode) = (HelloReply::encode, HelloReply::decode);
    next_is!(frames, header(Opcode::Hello, FLAG_REPLY, 1), reply, put, decode);
}

fn enqueue(frames: &mut impl Iterator<Item = Frame>) {
    let create = CreateQueue { queue: "mail".into(), settings: QueueSettings::default() };
    let put = |value: &CreateQueue, out: &mut BytesMut| admin::encode(out, value);
    let decode = admin::decode::<CreateQueue>;
    next_is!(frames, header(Opcode::CreateQueue, 0, 2), create, put, decode);
    next_is!(frames, header(Opcode::CreateQueue, FLAG_REPLY, 2));
    let mut builder = BatchBuilder::default();
    jobs().iter().for_each(|job| builder.push(job).unwrap());
    let batch = builder.batch();
    let bodies = batch.jobs().map(|row| Job::from_body(row.body).unwrap());
    assert_eq!(bodies.collect::<Vec<_>>(), jobs());
    let enqueue = Enqueue { queue: "mail", create: true, producer: None, batch };
    next_is!(frames, header(Opcode::Enqueue, 0, 3), enqueue, Enqueue::encode, Enqueue::decode);
    let reply = EnqueueReply { count: 2, ..EnqueueReply::default() };
    let (put, decode) = (EnqueueReply::encode, EnqueueReply::decode);
    next_is!(frames, header(Opcode::Enqueue, FLAG_REPLY, 3), reply, put, decode);
}

fn fetch_both(frames: &mut impl Iterator<Item = Frame>) {
    let wanted = fetch(5000, smallvec![]);
    next_is!(frames, header(Opcode::Fetch, 0, 4), wanted, Fetch::encode, Fetch::decode);
    let bodies = jobs().map(|job| {
        let mut body = Vec::new();
        job.put_body(&mut body).unwrap();
        body
    });
    let deliveries = bodies.iter().enumerate().map(|(offset, body)| Delivery {
        queue_ordinal: 0,
        offset: offset as u64,
        token: Some(token(offset as u64 + 1)),
        attempt: 1,
        enqueued_at_ms: 1_790_000_123_456,
        flags: 0,
        crc32: crc32fast::hash(body),
        body,
    });
    let reply = FetchReply { lease_ms: 3_600_000, jobs: deliveries.collect() };
    let (put, decode) = (put_fetch_reply, FetchReply::decode);
    next_is!(frames, header(Opcode::Fetch, FLAG_REPLY, 4), reply, put, decode);
}

fn commit_both(frames: &mut impl Iterator<Item = Frame>) {
    let done = || -> Statuses { smallvec![None] };
    let put_done = |value: &Statuses, out: &mut BytesMut| encode_statuses(out, value);
    let commit = Commit::Jobs(smallvec![of_mail(0)]);
    next_is!(frames, header(Opcode::Commit, 0, 5), commit, Commit::encode, Commit::decode);
    let (put, decode) = (put_done, decode_statuses);
    next_is!(frames, header(Opcode::Commit, FLAG_REPLY, 5), done(), put, decode);
    let carrying = fetch(0, smallvec![of_mail(1)]);
    next_is!(frames, header(Opcode::Fetch, 0, 6), carrying, Fetch::encode, Fetch::decode);
    let first = header(Opcode::Fetch, FLAG_REPLY | FLAG_MORE, 6);
    next_is!(frames, first, done(), put, decode);
    let none = FetchReply { lease_ms: 3_600_000, jobs: smallvec![] };
    let (put, decode) = (put_fetch_reply, FetchReply::decode);
    next_is!(frames, header(Opcode::Fetch, FLAG_REPLY, 6), none, put, decode);
}

fn be_refused_and_leave(frames: &mut impl Iterator<Item = Frame>) {
    let fail = Fail { jobs: of_mail(1), failures_max: None, delay_ms: None, reason: "timeout" };
    next_is!(frames, header(Opcode::Fail, 0, 7), fail, Fail::encode, Fail::decode);
    let outcomes: FailReply = smallvec![FailOutcome::Refused(ErrorCode::AlreadyConsumed)];
    let put = |value: &FailReply, out: &mut BytesMut| encode_fail_reply(out, value);
    next_is!(frames, header(Opcode::Fail, FLAG_REPLY, 7), outcomes, put, decode_fail_reply);
    let read =
        Read { queue: "male", from: 0, jobs_max: 10, bytes_max: 1 << 20, unconsumed_by: None };
    next_is!(frames, header(Opcode::Read, 0, 8), read, Read::encode, Read::decode);
    let status = ErrorCode::NoSuchQueue as u16;
    let refused = Header { status, ..header(Opcode::Read, FLAG_REPLY, 8) };
    let put = |value: &&str, out: &mut BytesMut| put_text(out, value, 2048);
    let decode = |body| Reader::new(body).text("message");
    next_is!(frames, refused, "there is no queue \"male\"", put, decode);
    next_is!(frames, header(Opcode::Goodbye, 0, 9));
    next_is!(frames, header(Opcode::Goodbye, FLAG_REPLY, 9));
}

#[test]
fn the_annotated_session_says_what_its_text_says() {
    let frames = &mut frames(section("14. Annotated session")).into_iter();
    greet(frames);
    enqueue(frames);
    fetch_both(frames);
    commit_both(frames);
    be_refused_and_leave(frames);
    assert!(frames.next().is_none(), "the session has more frames than are compared");
}
