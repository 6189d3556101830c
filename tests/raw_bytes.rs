//! Raw bytes against a real server: what bad input gets, that the connection stays open unless
//! the stream itself can't be trusted, and that nothing a client sends brings the server down.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test may stop at what it did not expect"
)]

mod common;

use std::io::ErrorKind;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use common::{Dice, Frame, Raw, Server, new_session, of_default, only};
use joblog_protocol::frame::{FLAG_REPLY, Header, put_frame, put_request};
use joblog_protocol::job::{Batch, BatchBuilder, Job};
use joblog_protocol::limits::{
    BATCH_BYTES_MAX, BATCH_JOBS_MAX, FRAME_LENGTH_MAX, JOB_BYTES_MAX, WAITING_FETCHES_MAX,
};
use joblog_protocol::messages::enqueue::Enqueue;
use joblog_protocol::messages::fetch::{Fetch, LeaseKind, Read};
use joblog_protocol::messages::lease::{Commit, Extend, Fail, Release};
use joblog_protocol::messages::session::{Hello, HelloReply};
use joblog_protocol::{ErrorCode, Opcode, Token};
use smallvec::smallvec;
use tempfile::TempDir;

/// Below `fsync` nothing here depends on the disk, so the tests are quick.
fn server() -> (Server, TempDir) {
    let dir = TempDir::new().unwrap();
    let server = Server::start(dir.path(), &["--durability", "os"]);
    (server, dir)
}

fn body(put: impl FnOnce(&mut BytesMut)) -> Vec<u8> {
    let mut out = BytesMut::new();
    put(&mut out);
    out.to_vec()
}

fn frame_bytes(opcode: u8, flags: u8, status: u16, correlation: u64, body: &[u8]) -> Vec<u8> {
    let header = Header { length: 0, opcode, flags, status, correlation };
    let mut out = BytesMut::new();
    put_frame(&mut out, header, |out| out.extend_from_slice(body));
    out.to_vec()
}

/// The header of a frame that says it is so long.
fn announced(length: u32, opcode: u8, correlation: u64) -> Vec<u8> {
    let mut bytes = length.to_le_bytes().to_vec();
    bytes.extend_from_slice(&[opcode, 0, 0, 0]);
    bytes.extend_from_slice(&correlation.to_le_bytes());
    bytes
}

/// The frame is this error, and its text has all these words.
#[track_caller]
fn assert_error(frame: &Frame, code: ErrorCode, words: &[&str]) {
    assert_eq!(frame.code(), Some(code), "{:?}", String::from_utf8_lossy(&frame.body));
    assert_eq!(frame.header.flags, FLAG_REPLY);
    let text = frame.text();
    for word in words {
        assert!(text.contains(word), "{code}: {text:?} does not say {word:?}");
    }
    assert!(text.len() > 10, "{code}: {text:?} says nothing");
}

/// The request is refused with this error, and the connection stays open.
#[track_caller]
fn assert_refused(raw: &mut Raw, opcode: Opcode, body: &[u8], code: ErrorCode, words: &[&str]) {
    let reply = raw.ask(opcode, body).unwrap();
    assert_eq!(reply.header.opcode, opcode as u8);
    assert_error(&reply, code, words);
    raw.assert_open();
}

fn enqueue_body(queue: &str, batch: Batch<'_>) -> Vec<u8> {
    body(|out| Enqueue { queue, create: true, producer: None, batch }.encode(out))
}

fn one_job(payload: &[u8]) -> BatchBuilder {
    let mut builder = BatchBuilder::default();
    builder.push(&Job::new(payload)).unwrap();
    builder
}

fn token(bytes: &[u8]) -> Token {
    Token::new(bytes).unwrap()
}

fn assert_no_queue(raw: &mut Raw, queue: &str) {
    let body = format!("{{\"queue\":\"{queue}\"}}");
    assert_refused(raw, Opcode::DescribeQueue, body.as_bytes(), ErrorCode::NoSuchQueue, &[queue]);
}

// Frames

#[test]
fn a_length_below_the_header_ends_the_connection() {
    let (server, _dir) = server();
    for length in [0_u32, 1, 11] {
        for greeted in [false, true] {
            let mut raw = Raw::connect(server.address()).unwrap();
            if greeted {
                raw.hello(new_session(), 0, &[]).unwrap();
            }
            raw.send(&length.to_le_bytes()).unwrap();
            let frame = raw.frame().unwrap();
            let allowed = ["12", "8388608", &length.to_string()];
            assert_error(&frame, ErrorCode::MalformedFrame, &allowed);
            assert_eq!((frame.header.opcode, frame.header.correlation), (0, 0));
            raw.assert_closed();
        }
    }
    Raw::greeted(server.address()).assert_open();
}

#[test]
fn a_frame_over_the_limit_is_refused_at_once_and_a_good_one_behind_it_is_served() {
    let (server, _dir) = server();
    let mut raw = Raw::greeted(server.address());
    let length = FRAME_LENGTH_MAX as u32 + 1;
    for correlation in [77, 78] {
        raw.send(&announced(length, Opcode::Enqueue as u8, correlation)).unwrap();
        let frame = raw.frame().unwrap();
        assert_error(&frame, ErrorCode::FrameTooLarge, &["8388608", &length.to_string()]);
        assert_eq!(frame.header.opcode, Opcode::Enqueue as u8);
        assert_eq!(frame.header.correlation, correlation, "its own correlation id");
        // Its body looks like frames, which must not be taken for some.
        let inside = frame_bytes(Opcode::Ping as u8, 0, 0, 9, &[]);
        let body: Vec<u8> = inside.iter().cycle().take(length as usize - 12).copied().collect();
        raw.send(&body).unwrap();
        raw.assert_open();
    }
}

#[test]
fn the_largest_length_is_answered_without_its_body() {
    let (server, _dir) = server();
    let mut raw = Raw::greeted(server.address());
    raw.send(&announced(u32::MAX, 0xee, 5)).unwrap();
    let frame = raw.frame().unwrap();
    assert_error(&frame, ErrorCode::FrameTooLarge, &["4294967295"]);
    assert_eq!((frame.header.opcode, frame.header.correlation), (0xee, 5));
}

#[test]
fn a_frame_of_the_largest_length_allowed_is_read() {
    let (server, _dir) = server();
    let mut raw = Raw::greeted(server.address());
    let large = vec![7; FRAME_LENGTH_MAX - 12];
    let correlation = 9;
    let mut bytes = announced(FRAME_LENGTH_MAX as u32, Opcode::Ping as u8, correlation);
    bytes.extend_from_slice(&large);
    raw.send(&bytes).unwrap();
    let reply = raw.reply_to(correlation).unwrap();
    assert_eq!((reply.code(), reply.body.len()), (None, large.len()));
}

#[test]
fn an_oversize_job_is_not_read_into_memory() {
    let (server, _dir) = server();
    let mut raw = Raw::greeted(server.address());
    raw.assert_open();
    let before_bytes = server.resident_bytes();
    let total = 100 * 1024 * 1024_u32;
    raw.send(&announced(total + 12, Opcode::Enqueue as u8, 1)).unwrap();
    let (piece, mut largest_bytes) = ([0x5a; 64 * 1024], 0);
    for nth in 0..total as usize / piece.len() {
        raw.send(&piece).unwrap();
        if nth % 100 == 0 {
            largest_bytes = largest_bytes.max(server.resident_bytes());
        }
    }
    assert_error(&raw.frame().unwrap(), ErrorCode::FrameTooLarge, &["8388608"]);
    raw.assert_open();
    let grown_bytes = largest_bytes.saturating_sub(before_bytes);
    assert!(grown_bytes < 16 * 1024 * 1024, "memory grew by {grown_bytes} bytes");
}

#[test]
fn a_frame_that_is_cut_off_has_no_effect() {
    let (server, _dir) = server();
    let builder = one_job(b"never");
    let whole = frame_bytes(0x20, 0, 0, 1, &enqueue_body("cut", builder.batch()));
    for end in [1, 3, 4, 15, 16, 20, whole.len() - 1] {
        let mut raw = Raw::greeted(server.address());
        raw.send(&whole[..end]).unwrap();
        raw.shut_sending();
        raw.assert_closed();
    }
    assert_no_queue(&mut Raw::greeted(server.address()), "cut");
}

#[test]
fn two_frames_in_one_packet_are_both_served() {
    let (server, _dir) = server();
    let mut raw = Raw::greeted(server.address());
    let both = [frame_bytes(3, 0, 0, 100, b"a"), frame_bytes(3, 0, 0, 101, b"b")].concat();
    raw.send(&both).unwrap();
    assert_eq!(raw.reply_to(100).unwrap().body, b"a");
    assert_eq!(raw.reply_to(101).unwrap().body, b"b");
}

#[test]
fn one_frame_in_many_packets_is_served() {
    let (server, _dir) = server();
    let mut raw = Raw::greeted(server.address());
    let builder = one_job(b"slow");
    let bytes = frame_bytes(0x20, 0, 0, 100, &enqueue_body("slow", builder.batch()));
    for byte in bytes {
        raw.send(&[byte]).unwrap();
    }
    assert_eq!(raw.reply_to(100).unwrap().code(), None);
    assert_eq!(raw.fetch(&["slow"], 10, 0).unwrap()[0].payload, b"slow");
}

#[test]
fn reserved_bits_of_a_header_are_refused() {
    let (server, _dir) = server();
    let mut raw = Raw::greeted(server.address());
    for (flags, status) in [(0x01, 0), (0x02, 0), (0x80, 0), (0, 1), (0, 0xffff)] {
        raw.send(&frame_bytes(Opcode::Ping as u8, flags, status, 50, b"x")).unwrap();
        let reply = raw.reply_to(50).unwrap();
        assert_error(&reply, ErrorCode::Unsupported, &["0"]);
        raw.assert_open();
    }
}

#[test]
fn reserved_bits_of_a_hello_are_refused_too() {
    let (server, _dir) = server();
    let mut raw = Raw::connect(server.address()).unwrap();
    for (flags, status) in [(0x01, 0), (0x80, 0), (0, 1)] {
        let opcode = Opcode::Hello as u8;
        raw.send(&frame_bytes(opcode, flags, status, 50, &hello_body(|_| {}))).unwrap();
        assert_error(&raw.reply_to(50).unwrap(), ErrorCode::Unsupported, &["0"]);
    }
    raw.hello(new_session(), 0, &[]).unwrap();
}

#[test]
fn an_unknown_opcode_is_refused() {
    let (server, _dir) = server();
    let mut raw = Raw::greeted(server.address());
    for opcode in (0..=u8::MAX).filter(|opcode| Opcode::from_code(*opcode).is_none()) {
        raw.send(&frame_bytes(opcode, 0, 0, 60, b"what?")).unwrap();
        let reply = raw.reply_to(60).unwrap();
        assert_eq!(reply.header.opcode, opcode);
        assert_error(&reply, ErrorCode::UnknownOpcode, &[&format!("{opcode:#04x}")]);
    }
    raw.assert_open();
}

// Greeting

fn hello_body(change: impl FnOnce(&mut Hello<'_>)) -> Vec<u8> {
    let mut hello = Hello {
        version_min: 1,
        version_max: 1,
        session: new_session(),
        silence_ms: 0,
        agent: "raw",
        held: smallvec![],
    };
    change(&mut hello);
    body(|out| hello.encode(out))
}

#[test]
fn the_first_frame_must_be_a_hello() {
    let (server, _dir) = server();
    let mut without_magic = hello_body(|_| {});
    without_magic[0] = b'X';
    let firsts = [
        (Opcode::Ping as u8, &b"hello"[..]),
        (Opcode::Enqueue as u8, &[]),
        (0xee, &[]),
        (Opcode::Hello as u8, &[]),
        (Opcode::Hello as u8, &without_magic),
    ];
    for (opcode, body) in firsts {
        let mut raw = Raw::connect(server.address()).unwrap();
        raw.send(&frame_bytes(opcode, 0, 0, 3, body)).unwrap();
        let reply = raw.frame().unwrap();
        assert_error(&reply, ErrorCode::NotGreeted, &["HELLO", "JLOG"]);
        assert_eq!((reply.header.opcode, reply.header.correlation), (opcode, 3));
        raw.assert_closed();
    }
}

#[test]
fn a_version_that_is_not_spoken_is_refused() {
    let (server, _dir) = server();
    for (version_min, version_max) in [(2, 3), (0, 0), (65535, 65535)] {
        let mut raw = Raw::connect(server.address()).unwrap();
        let hello = hello_body(|hello| {
            (hello.version_min, hello.version_max) = (version_min, version_max);
        });
        let reply = raw.ask(Opcode::Hello, &hello).unwrap();
        let asked = version_min.to_string();
        assert_error(&reply, ErrorCode::UnsupportedVersion, &["speaks 1", &asked]);
        raw.assert_closed();
    }
    let mut raw = Raw::connect(server.address()).unwrap();
    let wide = hello_body(|hello| (hello.version_min, hello.version_max) = (0, 65535));
    let reply = raw.ask(Opcode::Hello, &wide).unwrap();
    assert_eq!(HelloReply::decode(&reply.body).unwrap().version, 1);
}

#[test]
fn a_hello_with_another_fault_is_refused_and_may_be_sent_again() {
    let (server, _dir) = server();
    let mut raw = Raw::connect(server.address()).unwrap();
    let cut = hello_body(|_| {});
    let faults = [
        (hello_body(|hello| hello.session = [0; 16]), ErrorCode::BadRequest, "zero"),
        (hello_body(|hello| hello.silence_ms = 499), ErrorCode::BadRequest, "500"),
        (hello_body(|hello| hello.silence_ms = 3_600_001), ErrorCode::BadRequest, "1 h"),
        (hello_body(|hello| hello.version_min = 2), ErrorCode::BadRequest, "version_min"),
        (cut[..cut.len() - 1].to_vec(), ErrorCode::BadRequest, "needed"),
        ([&cut[..], &[0]].concat(), ErrorCode::BadRequest, "behind"),
        ([&cut[..cut.len() - 4], &[1, 0, 0, 0, 0]].concat(), ErrorCode::BadToken, "1 to 32"),
    ];
    for (hello, code, word) in faults {
        assert_error(&raw.ask(Opcode::Hello, &hello).unwrap(), code, &[word]);
    }
    raw.hello(new_session(), 0, &[]).unwrap();
    let again = hello_body(|_| {});
    assert_refused(&mut raw, Opcode::Hello, &again, ErrorCode::BadRequest, &["already"]);
}

#[test]
fn requests_behind_a_hello_need_not_wait_for_its_reply() {
    let (server, _dir) = server();
    let mut raw = Raw::connect(server.address()).unwrap();
    let hello = frame_bytes(Opcode::Hello as u8, 0, 0, 1, &hello_body(|_| {}));
    let ping = frame_bytes(Opcode::Ping as u8, 0, 0, 2, b"early");
    raw.send(&[hello, ping].concat()).unwrap();
    assert_eq!(raw.reply_to(1).unwrap().code(), None);
    assert_eq!(raw.reply_to(2).unwrap().body, b"early");
}

#[test]
fn a_second_connection_takes_the_session_over() {
    let (server, _dir) = server();
    let session = new_session();
    let mut old = Raw::connect(server.address()).unwrap();
    old.hello(session, 0, &[]).unwrap();
    old.enqueue("q", &["a", "b"]).unwrap();
    let jobs = old.fetch(&["q"], 2, 0).unwrap();
    let mut new = Raw::connect(server.address()).unwrap();
    let kept_and_released = new.hello(session, 0, &[jobs[1].token]).unwrap();
    assert_eq!(kept_and_released, (1, 1));
    let told = old.frame().unwrap();
    assert_error(&told, ErrorCode::SessionReplaced, &["session"]);
    assert_eq!((told.header.opcode, told.header.correlation), (0, 0));
    old.assert_closed();
    // The job that was not named is back at once, without fault; the other is still held.
    let again = new.fetch(&["q"], 2, 0).unwrap();
    assert_eq!(again.len(), 1);
    assert_eq!((again[0].offset, again[0].attempt), (jobs[0].offset, 2));
    assert_eq!(new.commit(of_default("q", [jobs[1].handle()])).unwrap(), only(None));
}

// Requests

/// A body of every command that has one, as it should be.
fn good_bodies() -> Vec<(Opcode, Vec<u8>)> {
    let builder = one_job(b"payload");
    let jobs = || of_default("q", [(0, token(&[1; 8]))]);
    let fetch = Fetch {
        queues: smallvec!["q"],
        group: "",
        jobs_max: 1,
        bytes_max: 1000,
        wait_ms: 0,
        lease: LeaseKind::Session { run_ms_max: None },
        by_turns: false,
        commits: smallvec![],
    };
    let commit = Commit::Jobs(smallvec![jobs()]);
    let through = Commit::Through { queue: "s", group: "g", offset: 0 };
    let release = Release { jobs: jobs(), delay_ms: 0 };
    let fail = Fail { jobs: jobs(), failures_max: None, delay_ms: None, reason: "why" };
    let extend = Extend { jobs: jobs(), lease_ms: 1000, progress: None };
    let read = Read { queue: "q", from: 0, jobs_max: 1, bytes_max: 1000, unconsumed_by: None };
    vec![
        (Opcode::Enqueue, enqueue_body("q", builder.batch())),
        (Opcode::Fetch, body(|out| fetch.encode(out))),
        (Opcode::Commit, body(|out| commit.encode(out))),
        (Opcode::Commit, body(|out| through.encode(out))),
        (Opcode::Release, body(|out| release.encode(out))),
        (Opcode::Fail, body(|out| fail.encode(out))),
        (Opcode::Extend, body(|out| extend.encode(out))),
        (Opcode::Read, body(|out| read.encode(out))),
    ]
}

/// A server with a queue `q` of one job, and a queue `s` with a stream group `g`.
fn server_with_queues() -> (Server, TempDir, Raw) {
    let (server, dir) = server();
    let mut raw = Raw::greeted(server.address());
    raw.enqueue("q", &["first"]).unwrap();
    raw.enqueue("s", &["first"]).unwrap();
    raw.fetch(&["q"], 1, 0).unwrap();
    let group = br#"{"queue":"s","group":"g","kind":"stream"}"#;
    assert_eq!(raw.ask(Opcode::CreateGroup, group).unwrap().code(), None);
    (server, dir, raw)
}

#[test]
fn a_body_that_is_too_short_or_too_long_is_refused() {
    let (_server, _dir, mut raw) = server_with_queues();
    for (opcode, body) in good_bodies() {
        let reply = raw.ask(opcode, &body).unwrap();
        assert_eq!(reply.code(), None, "{} is not as it should be", opcode.name());
        for end in 0..body.len() {
            let reply = raw.ask(opcode, &body[..end]).unwrap();
            let code = reply.code().unwrap_or_else(|| panic!("{} to {end}", opcode.name()));
            assert!(!code.closes(), "{} to {end}: {code}", opcode.name());
        }
        let longer = [&body[..], &[0]].concat();
        assert_refused(&mut raw, opcode, &longer, ErrorCode::BadRequest, &["left"]);
        let shorter = &body[..body.len() - 1];
        // A batch ends with its bodies: one byte less is a job that ends behind them.
        assert_refused(&mut raw, opcode, shorter, ErrorCode::BadRequest, &[]);
    }
}

#[test]
fn a_name_outside_the_grammar_is_refused() {
    let (_server, _dir, mut raw) = server_with_queues();
    for (opcode, mut body) in good_bodies() {
        // Where the one letter of the first name stands.
        let at = body.iter().position(|byte| b"qs".contains(byte)).unwrap();
        for bad in [b':', b'@', b' ', 0, 0xff] {
            body[at] = bad;
            assert_refused(&mut raw, opcode, &body, ErrorCode::BadName, &["letters", "255"]);
        }
        if !matches!(opcode, Opcode::Fetch) {
            body[at - 1] = 0;
            body.remove(at);
            assert_refused(&mut raw, opcode, &body, ErrorCode::BadName, &["letters"]);
        }
    }
    let long = "x".repeat(256);
    for name in ["", "a:b", "a@b", "a b", "\u{e4}", &long] {
        let queue = format!("{{\"queue\":\"{name}\"}}");
        let create = Opcode::CreateQueue;
        assert_refused(&mut raw, create, queue.as_bytes(), ErrorCode::BadName, &["letters"]);
        let group = format!("{{\"queue\":\"q\",\"group\":\"{name}\",\"kind\":\"work\"}}");
        let create = Opcode::CreateGroup;
        assert_refused(&mut raw, create, group.as_bytes(), ErrorCode::BadName, &["letters"]);
        let describe = Opcode::DescribeQueue;
        assert_refused(&mut raw, describe, queue.as_bytes(), ErrorCode::NoSuchQueue, &[]);
    }
    assert_eq!(raw.enqueue("A.b_c-d/9", &["x"]).unwrap(), 0);
    assert_eq!(raw.enqueue(&"x".repeat(255), &["x"]).unwrap(), 0);
}

#[test]
fn a_batch_over_a_limit_is_refused_whole() {
    let (_server, _dir, mut raw) = server_with_queues();
    let none = Batch { count: 0, table: &[], bodies: &[] };
    let refused = ErrorCode::BatchTooLarge;
    let body = enqueue_body("none", none);
    assert_refused(&mut raw, Opcode::Enqueue, &body, refused, &["0", "65536"]);

    let count = BATCH_JOBS_MAX as u32 + 1;
    let (mut table, mut bodies) = (Vec::new(), Vec::new());
    for _ in 0..count {
        bodies.extend_from_slice(&[0; 4]);
        let row = [bodies.len() as u32, 0, crc32fast::hash(&[0; 4])].map(u32::to_le_bytes);
        table.extend_from_slice(&row.concat());
    }
    let many = Batch { count, table: &table, bodies: &bodies };
    let body = enqueue_body("many", many);
    assert_refused(&mut raw, Opcode::Enqueue, &body, refused, &["65537", "65536"]);
    let allowed = Batch {
        count: count - 1,
        table: &table[..table.len() - 12],
        bodies: &bodies[..bodies.len() - 4],
    };
    let reply = raw.ask(Opcode::Enqueue, &enqueue_body("all", allowed)).unwrap();
    assert_eq!(reply.code(), None);

    let bodies = vec![0; BATCH_BYTES_MAX + 1];
    let table = [bodies.len() as u32, 0, 0].map(u32::to_le_bytes).concat();
    let large = Batch { count: 1, table: &table, bodies: &bodies };
    let body = enqueue_body("large", large);
    assert_refused(&mut raw, Opcode::Enqueue, &body, refused, &["4194305", "4 MiB"]);
    for queue in ["none", "many", "large"] {
        assert_no_queue(&mut raw, queue);
    }
}

#[test]
fn a_job_over_the_limit_is_refused_with_its_whole_batch() {
    let (_server, _dir, mut raw) = server_with_queues();
    let mut builder = one_job(b"small");
    builder.push(&Job::new(vec![1; JOB_BYTES_MAX - 4 + 1])).unwrap();
    let body = enqueue_body("none", builder.batch());
    let refused = ErrorCode::JobTooLarge;
    assert_refused(&mut raw, Opcode::Enqueue, &body, refused, &["job 1", "1048577", "1048576"]);
    assert_no_queue(&mut raw, "none");
    assert_eq!(raw.enqueue("q", &[vec![1; JOB_BYTES_MAX - 4]]).unwrap(), 1);
}

#[test]
fn a_job_that_does_not_match_its_checksum_is_refused_with_its_whole_batch() {
    let (_server, _dir, mut raw) = server_with_queues();
    let mut builder = one_job(b"good");
    builder.push(&Job::new("damaged on the way")).unwrap();
    let mut body = enqueue_body("none", builder.batch());
    *body.last_mut().unwrap() ^= 0x10;
    assert_refused(&mut raw, Opcode::Enqueue, &body, ErrorCode::BadChecksum, &["job 1", "crc32"]);
    assert_no_queue(&mut raw, "none");
}

#[test]
fn a_batch_whose_fields_do_not_fit_together_is_refused() {
    let (_server, _dir, mut raw) = server_with_queues();
    let good = one_job(b"payload");
    let batch = good.batch();
    let with = |end: u32, flags: u32, bodies: &[u8]| {
        let table = [end, flags, crc32fast::hash(bodies)].map(u32::to_le_bytes).concat();
        enqueue_body("none", Batch { count: 1, table: &table, bodies })
    };
    let end = batch.bodies.len() as u32;
    let tag = [&3_u32.to_le_bytes()[..], &[9, 0, 0]].concat();
    let cut_tag = [&3_u32.to_le_bytes()[..], &[1, 5, 0]].concat();
    let beyond = [&9_u32.to_le_bytes()[..], &[1, 0, 0]].concat();
    let attributes = [&70_000_u32.to_le_bytes()[..], &vec![0; 70_000]].concat();
    let refusals = [
        (with(end + 1, 0, batch.bodies), ErrorCode::BadRequest, "job 0"),
        (with(u32::MAX, 0, batch.bodies), ErrorCode::BadRequest, "job 0"),
        (with(end, 1, batch.bodies), ErrorCode::Unsupported, "flags"),
        (with(end, 0x8000_0000, batch.bodies), ErrorCode::Unsupported, "flags"),
        (with(3, 0, &[0; 3]), ErrorCode::BadRequest, "job 0"),
        (with(tag.len() as u32, 0, &tag), ErrorCode::Unsupported, "tag"),
        (with(cut_tag.len() as u32, 0, &cut_tag), ErrorCode::BadRequest, "job 0"),
        (with(beyond.len() as u32, 0, &beyond), ErrorCode::BadRequest, "job 0"),
        (with(attributes.len() as u32, 0, &attributes), ErrorCode::BadRequest, "65535"),
    ];
    for (body, code, word) in refusals {
        assert_refused(&mut raw, Opcode::Enqueue, &body, code, &[word]);
    }
    assert_no_queue(&mut raw, "none");
}

#[test]
fn a_field_outside_its_range_is_refused() {
    let (_server, _dir, mut raw) = server_with_queues();
    let bodies = good_bodies();
    let of = |opcode: Opcode| bodies.iter().find(|(known, _)| *known == opcode).unwrap().1.clone();
    let with = |opcode: Opcode, at_end: usize, bytes: &[u8]| {
        let mut body = of(opcode);
        let at = body.len() - at_end;
        body[at..at + bytes.len()].copy_from_slice(bytes);
        body
    };
    let refused = ErrorCode::BadRequest;
    let year = &31_622_400_001_u64.to_le_bytes();
    let faults = [
        // From the end of a FETCH: the number of its sets, the lease, its flags, then its numbers.
        (Opcode::Fetch, with(Opcode::Fetch, 10, &99_u64.to_le_bytes()), "100"),
        (Opcode::Fetch, with(Opcode::Fetch, 10, &u64::MAX.to_le_bytes()), "30 days"),
        (Opcode::Fetch, with(Opcode::Fetch, 23, &[0; 4]), "jobs_max"),
        (Opcode::Release, with(Opcode::Release, 8, year), "366 days"),
        (Opcode::Extend, with(Opcode::Extend, 9, &99_u64.to_le_bytes()), "100"),
        (Opcode::Read, with(Opcode::Read, 9, &[0; 4]), "jobs_max"),
        (Opcode::Commit, [&[3][..], &of(Opcode::Commit)[1..]].concat(), "through"),
        (Opcode::Commit, body(|out| set_of_none().encode(out)), "65536"),
    ];
    for (opcode, body, word) in faults {
        assert_refused(&mut raw, opcode, &body, refused, &[word]);
    }
    let mut reserved = of(Opcode::Enqueue);
    reserved[2] = 0x80;
    assert_refused(&mut raw, Opcode::Enqueue, &reserved, ErrorCode::Unsupported, &["flags"]);
    let reserved = with(Opcode::Fetch, 11, &[4]);
    assert_refused(&mut raw, Opcode::Fetch, &reserved, ErrorCode::Unsupported, &["FETCH flags"]);
}

fn set_of_none<'a>() -> Commit<'a> {
    Commit::Jobs(smallvec![of_default("q", [])])
}

#[test]
fn a_token_that_never_was_holds_no_job() {
    let (_server, _dir, mut raw) = server_with_queues();
    raw.enqueue("q", &["second"]).unwrap();
    let lost = only(Some(ErrorCode::LeaseLost));
    for never in [&[1; 8][..], &[0; 8], &[0xff; 8], &[9], &[7; 32]] {
        // Job 0 is leased, job 1 is ready.
        for offset in [0, 1] {
            let jobs = || of_default("q", [(offset, token(never))]);
            assert_eq!(raw.commit(jobs()).unwrap(), lost, "{never:?}");
            assert_eq!(raw.release(jobs(), 0).unwrap(), lost, "{never:?}");
            assert_eq!(raw.extend(jobs(), 1000).unwrap(), lost, "{never:?}");
            let outcomes = raw.fail(jobs(), "why").unwrap();
            assert_eq!(format!("{outcomes:?}"), "[Refused(LeaseLost)]");
        }
    }
    for length in [0_u8, 33, 255] {
        let name = [1, b'q', 0, 1, 0, 0, 0];
        let set = [&name[..], &[0; 8], &[length], &vec![5; usize::from(length)]].concat();
        let commit = [&[0, 1, 0][..], &set].concat();
        let refused = ErrorCode::BadToken;
        assert_refused(&mut raw, Opcode::Commit, &commit, refused, &["1 to 32"]);
    }
}

#[test]
fn an_offset_beyond_the_end_is_refused() {
    let (_server, _dir, mut raw) = server_with_queues();
    for offset in [1, u64::MAX] {
        let jobs = || of_default("q", [(offset, token(&[1; 8]))]);
        let beyond = only(Some(ErrorCode::BeyondEnd));
        assert_eq!(raw.commit(jobs()).unwrap(), beyond);
        assert_eq!(raw.release(jobs(), 0).unwrap(), beyond);
        let through = Commit::Through { queue: "s", group: "g", offset };
        let body = body(|out| through.encode(out));
        assert_refused(&mut raw, Opcode::Commit, &body, ErrorCode::BeyondEnd, &["1"]);
    }
}

#[test]
fn a_command_for_the_other_kind_of_group_is_refused() {
    let (_server, _dir, mut raw) = server_with_queues();
    let through = Commit::Through { queue: "q", group: "", offset: 0 };
    let wrong = ErrorCode::WrongGroupKind;
    let body_of_through = body(|out| through.encode(out));
    assert_refused(&mut raw, Opcode::Commit, &body_of_through, wrong, &["work group"]);
    let set = || {
        let mut set = of_default("s", [(0, token(&[1; 8]))]);
        set.group = "g";
        set
    };
    let commit = body(|out| Commit::Jobs(smallvec![set()]).encode(out));
    let release = body(|out| Release { jobs: set(), delay_ms: 0 }.encode(out));
    let extend = body(|out| Extend { jobs: set(), lease_ms: 1000, progress: None }.encode(out));
    let fail = Fail { jobs: set(), failures_max: None, delay_ms: None, reason: "" };
    let fetch = Fetch {
        queues: smallvec!["s"],
        group: "g",
        jobs_max: 1,
        bytes_max: 1,
        wait_ms: 5000,
        lease: LeaseKind::Timed { lease_ms: 1000 },
        by_turns: false,
        commits: smallvec![],
    };
    for (opcode, body) in [
        (Opcode::Commit, commit),
        (Opcode::Release, release),
        (Opcode::Extend, extend),
        (Opcode::Fail, body(|out| fail.encode(out))),
        (Opcode::Fetch, body(|out| fetch.encode(out))),
    ] {
        assert_refused(&mut raw, opcode, &body, wrong, &["stream", "COMMIT"]);
    }
}

#[test]
fn what_does_not_exist_and_what_exists_already_is_said() {
    let (_server, _dir, mut raw) = server_with_queues();
    let q = &br#"{"queue":"q"}"#[..];
    let nowhere = &br#"{"queue":"nowhere"}"#[..];
    let no_group = &br#"{"queue":"q","group":"nobody"}"#[..];
    let twice = &br#"{"queue":"s","group":"g","kind":"work"}"#[..];
    for (opcode, body, code, word) in [
        (Opcode::CreateQueue, q, ErrorCode::QueueExists, "exists"),
        (Opcode::CreateGroup, twice, ErrorCode::GroupExists, "exists"),
        (Opcode::DeleteQueue, nowhere, ErrorCode::NoSuchQueue, "nowhere"),
        (Opcode::DescribeQueue, nowhere, ErrorCode::NoSuchQueue, "nowhere"),
        (Opcode::ListGroups, nowhere, ErrorCode::NoSuchQueue, "nowhere"),
        (Opcode::DeleteGroup, no_group, ErrorCode::NoSuchGroup, "nobody"),
        (Opcode::DescribeGroup, no_group, ErrorCode::NoSuchGroup, "nobody"),
    ] {
        assert_refused(&mut raw, opcode, body, code, &[word]);
    }
    let read = body(|out| {
        Read { queue: "nowhere", from: 0, jobs_max: 1, bytes_max: 1, unconsumed_by: None }
            .encode(out);
    });
    assert_refused(&mut raw, Opcode::Read, &read, ErrorCode::NoSuchQueue, &["nowhere"]);
    let builder = one_job(b"x");
    let enqueue =
        Enqueue { queue: "nowhere", create: false, producer: None, batch: builder.batch() };
    let enqueue = body(|out| enqueue.encode(out));
    assert_refused(&mut raw, Opcode::Enqueue, &enqueue, ErrorCode::NoSuchQueue, &["nowhere"]);
    let mut fetch = good_bodies().remove(1).1;
    fetch.splice(3..4, [6, b'n', b'o', b'b', b'o', b'd', b'y']);
    assert_refused(&mut raw, Opcode::Fetch, &fetch, ErrorCode::NoSuchGroup, &["nobody"]);
}

#[test]
fn a_json_body_that_is_wrong_is_refused() {
    let (_server, _dir, mut raw) = server_with_queues();
    let bad = ErrorCode::BadRequest;
    for (body, code, word) in [
        ("", bad, "JSON"),
        ("{", bad, "JSON"),
        ("[]", bad, "JSON"),
        ("\u{0}", bad, "JSON"),
        ("{}", bad, "queue"),
        (r#"{"queue":7}"#, bad, "string"),
        (r#"{"queue":"new","colour":"red"}"#, bad, "colour"),
        (r#"{"queue":"new","settings":{"failures_maxx":1}}"#, bad, "failures_maxx"),
        (r#"{"queue":"new","settings":{"failures_max":-1}}"#, bad, "JSON"),
        (r#"{"queue":"new","settings":{"failures_max":4294967296}}"#, bad, "JSON"),
        (r#"{"queue":"new"} "#, ErrorCode::QueueExists, "exists"),
        (r#"{"queue":"new2","settings":{"backoff_first_ms":0}}"#, ErrorCode::BadSetting, "1 to"),
    ] {
        if code == ErrorCode::QueueExists {
            drop(raw.ask_json(Opcode::CreateQueue, r#"{"queue":"new"}"#).unwrap());
        }
        assert_refused(&mut raw, Opcode::CreateQueue, body.as_bytes(), code, &[word]);
    }
    let nested = "[".repeat(1_000_000);
    assert_refused(&mut raw, Opcode::ListQueues, nested.as_bytes(), bad, &["JSON"]);
    let outside = r#"{"queue":"q","group":"new","kind":"work","start":{"offset":2}}"#;
    let refused = ErrorCode::BadSetting;
    assert_refused(&mut raw, Opcode::CreateGroup, outside.as_bytes(), refused, &["0 to 1"]);
}

// Replies

#[test]
fn a_waiting_fetch_holds_up_nothing_and_its_commits_are_answered_first() {
    let (_server, _dir, mut raw) = server_with_queues();
    raw.enqueue("w", &["one"]).unwrap();
    let job = raw.fetch(&["w"], 1, 0).unwrap().remove(0);
    let commits = [of_default("w", [job.handle()])];
    let lease = LeaseKind::Session { run_ms_max: None };
    let waiting = raw.request_fetch(&["w"], 1, 600_000, lease, &commits).unwrap();
    let statuses = raw.frame().unwrap();
    assert_eq!(statuses.header.correlation, waiting);
    assert!(statuses.more(), "another reply to the FETCH follows");
    assert_eq!(statuses.statuses(), only(None));
    raw.assert_open();
    raw.enqueue("w", &["two"]).unwrap();
    let jobs = raw.reply_to(waiting).unwrap();
    assert!(!jobs.more());
    assert_eq!(jobs.jobs()[0].payload, b"two");
}

#[test]
fn a_fetch_that_is_refused_has_not_done_its_commits() {
    let (_server, _dir, mut raw) = server_with_queues();
    raw.enqueue("w", &["one"]).unwrap();
    let job = raw.fetch(&["w"], 1, 0).unwrap().remove(0);
    let commits = [of_default("w", [job.handle()]), of_default("nowhere", [job.handle()])];
    let lease = LeaseKind::Session { run_ms_max: None };
    let fetch = raw.request_fetch(&["w"], 1, 0, lease, &commits).unwrap();
    let reply = raw.reply_to(fetch).unwrap();
    assert_error(&reply, ErrorCode::NoSuchQueue, &["nowhere"]);
    assert_eq!(raw.commit(of_default("w", [job.handle()])).unwrap(), only(None));
}

#[test]
fn one_fetch_more_than_may_wait_is_refused() {
    let (_server, _dir, mut raw) = server_with_queues();
    let lease = LeaseKind::Session { run_ms_max: None };
    for _ in 0..WAITING_FETCHES_MAX {
        raw.request_fetch(&["later"], 1, 600_000, lease, &[]).unwrap();
    }
    let one_more = raw.request_fetch(&["later"], 1, 600_000, lease, &[]).unwrap();
    let reply = raw.reply_to(one_more).unwrap();
    assert_error(&reply, ErrorCode::TooMany, &["1024"]);
    raw.assert_open();
}

#[test]
fn goodbye_is_answered_and_closes() {
    let (server, _dir) = server();
    let mut raw = Raw::greeted(server.address());
    raw.enqueue("q", &["a"]).unwrap();
    assert_eq!(raw.fetch(&["q"], 1, 0).unwrap()[0].attempt, 1);
    raw.goodbye().unwrap();
    raw.assert_closed();
    let jobs = Raw::greeted(server.address()).fetch(&["q"], 1, 0).unwrap();
    assert_eq!(jobs[0].attempt, 2, "its lease has ended at once");
}

#[test]
fn a_stopping_server_answers_waiting_fetches_and_closes() {
    let (mut server, _dir) = server();
    let mut raw = Raw::greeted(server.address());
    let lease = LeaseKind::Session { run_ms_max: None };
    let waiting = raw.request_fetch(&["q"], 1, 600_000, lease, &[]).unwrap();
    raw.assert_open();
    let status = server.stop();
    assert_eq!(raw.reply_to(waiting).unwrap().jobs().len(), 0);
    raw.assert_closed();
    assert!(status.success(), "{status}");
}

// Whatever comes

/// A session that asks for much in one frame must not break the log for all others.
#[test]
fn a_fail_of_many_jobs_with_a_long_reason_breaks_nothing() {
    let (server, _dir) = server();
    let mut raw = Raw::greeted(server.address());
    raw.enqueue("q", &vec!["x"; 20_000]).unwrap();
    let mut jobs = raw.fetch(&["q"], 10_000, 0).unwrap();
    jobs.extend(raw.fetch(&["q"], 10_000, 0).unwrap());
    assert_eq!(jobs.len(), 20_000);
    let handles = of_default("q", jobs.iter().map(common::Job::handle));
    let outcomes = raw.fail(handles, &"because ".repeat(512)).unwrap();
    assert_eq!(outcomes.len(), 20_000);
    raw.assert_open();
    assert_eq!(raw.enqueue("q", &["after"]).unwrap(), 20_000);
}

/// A description that does not fit into a frame is an error, not a frame that no one may read.
#[test]
fn a_description_over_the_limit_of_a_frame_breaks_nothing() {
    let (server, _dir) = server();
    let mut raw = Raw::greeted(server.address());
    let settings = r#"{"queue":"q","settings":{"failures_max":0}}"#;
    assert_eq!(raw.ask_json(Opcode::CreateQueue, settings).unwrap().code(), None);
    raw.enqueue("q", &vec!["x"; 100]).unwrap();
    for number in 0..5 {
        let group = format!("g{number}");
        let create = format!("{{\"queue\":\"q\",\"group\":\"{group}\",\"kind\":\"work\"}}");
        assert_eq!(raw.ask_json(Opcode::CreateGroup, &create).unwrap().code(), None);
        let fetch = Fetch {
            queues: smallvec!["q"],
            group: &group,
            jobs_max: 100,
            bytes_max: u32::MAX,
            wait_ms: 0,
            lease: LeaseKind::Session { run_ms_max: None },
            by_turns: false,
            commits: smallvec![],
        };
        let jobs = raw.ask_with(Opcode::Fetch, |out| fetch.encode(out)).unwrap().jobs();
        let mut handles = of_default("q", jobs.iter().map(common::Job::handle));
        handles.group = &group;
        raw.fail(handles, &"\u{1}".repeat(4096)).unwrap();
    }
    for opcode in [Opcode::DescribeQueue, Opcode::ListGroups] {
        let reply = raw.ask_json(opcode, r#"{"queue":"q"}"#).unwrap();
        assert!(reply.body.len() <= FRAME_LENGTH_MAX - 12, "{} bytes", reply.body.len());
        raw.assert_open();
    }
}

/// The bytes of a good frame with a few of them changed, or random ones.
fn nonsense(dice: &mut Dice, good: &[(Opcode, Vec<u8>)]) -> Vec<u8> {
    let (opcode, body) = &good[dice.below(good.len() as u64) as usize];
    let mut bytes = frame_bytes(*opcode as u8, 0, 0, dice.next(), body);
    match dice.below(4) {
        0 => {
            let count = dice.below(2000) as usize;
            let body = dice.bytes(count);
            frame_bytes(dice.next() as u8, 0, 0, dice.next(), &body)
        }
        1 => {
            let count = dice.below(500) as usize;
            dice.bytes(count)
        }
        _ => {
            for _ in 0..=dice.below(4) {
                let at = dice.below(bytes.len() as u64) as usize;
                bytes[at] = dice.next() as u8;
            }
            bytes
        }
    }
}

#[test]
fn no_bytes_bring_the_server_down() {
    let (mut server, _dir, raw) = server_with_queues();
    drop(raw);
    let good = good_bodies();
    let seed = 0x5eed;
    let mut dice = Dice::new(seed);
    let rounds = if common::long() { 10_000 } else { 2_000 };
    for round in 0..rounds {
        let mut raw = Raw::greeted(server.address());
        for _ in 0..dice.below(20) {
            let bytes = nonsense(&mut dice, &good);
            match raw.send(&bytes) {
                Ok(()) => {}
                Err(error) => {
                    let closed = [ErrorKind::BrokenPipe, ErrorKind::ConnectionReset];
                    assert!(closed.contains(&error.kind()), "{error}");
                    break;
                }
            }
        }
        if round % 100 == 0 {
            Raw::greeted(server.address()).assert_open();
        }
    }
    Raw::greeted(server.address()).assert_open();
    let status = server.stop();
    assert!(status.success(), "{status}, seed {seed:#x}:\n{}", server.errors());
    assert!(!server.errors().contains("panicked"), "seed {seed:#x}:\n{}", server.errors());
}

#[test]
fn a_connection_that_never_greets_is_closed() {
    let (server, _dir) = server();
    let begun = Instant::now();
    let mut raw = Raw::connect(server.address()).unwrap();
    raw.send(b"GET / HTTP/1.1\r\n\r\n").unwrap();
    let frame = raw.frame_within(Duration::from_secs(30)).unwrap().unwrap();
    assert_error(&frame, ErrorCode::FrameTooLarge, &["8388608"]);
    raw.assert_closed();
    assert!(begun.elapsed() < Duration::from_secs(60));
}

#[test]
fn requests_are_not_cut_by_how_they_are_packed() {
    let (server, _dir) = server();
    let mut raw = Raw::greeted(server.address());
    let mut out = BytesMut::new();
    for correlation in 1000..1500 {
        put_request(&mut out, Opcode::Ping, correlation, |out| {
            out.extend_from_slice(&correlation.to_le_bytes());
        });
    }
    let mut dice = Dice::new(7);
    let mut rest = &out[..];
    while !rest.is_empty() {
        let (piece, behind) = rest.split_at(rest.len().min(1 + dice.below(200) as usize));
        raw.send(piece).unwrap();
        rest = behind;
    }
    for correlation in 1000_u64..1500 {
        assert_eq!(raw.reply_to(correlation).unwrap().body, correlation.to_le_bytes());
    }
}
