//! What these tests share: a server, bodies that are as they should be, and refusals.

use bytes::BytesMut;
use joblog_protocol::frame::{FLAG_REPLY, Header, put_frame};
use joblog_protocol::job::{Batch, BatchBuilder, Job};
use joblog_protocol::messages::enqueue::Enqueue;
use joblog_protocol::messages::fetch::Read;
use joblog_protocol::messages::lease::{Commit, Extend, Fail, Release};
use joblog_protocol::messages::session::Hello;
use joblog_protocol::{ErrorCode, Opcode, Token};
use smallvec::smallvec;
use tempfile::TempDir;

use crate::common::{Frame, Raw, Server, fetch_of, hello_of, new_session, of_default};

/// Below `fsync` nothing here depends on the disk, so the tests are quick.
pub(crate) fn server() -> (Server, TempDir) {
    let dir = TempDir::new().unwrap();
    let server = Server::start(dir.path(), &["--durability", "os"]);
    (server, dir)
}

pub(crate) fn body(put: impl FnOnce(&mut BytesMut)) -> Vec<u8> {
    let mut out = BytesMut::new();
    put(&mut out);
    out.to_vec()
}

pub(crate) fn frame_bytes(
    opcode: u8,
    flags: u8,
    status: u16,
    correlation: u64,
    body: &[u8],
) -> Vec<u8> {
    let header = Header { length: 0, opcode, flags, status, correlation };
    let mut out = BytesMut::new();
    put_frame(&mut out, header, |out| out.extend_from_slice(body));
    out.to_vec()
}

/// The header of a frame that says it is so long.
pub(crate) fn announced(length: u32, opcode: u8, correlation: u64) -> Vec<u8> {
    let mut bytes = length.to_le_bytes().to_vec();
    bytes.extend_from_slice(&[opcode, 0, 0, 0]);
    bytes.extend_from_slice(&correlation.to_le_bytes());
    bytes
}

/// The frame is this error, and its text has all these words.
#[track_caller]
pub(crate) fn assert_error(frame: &Frame, code: ErrorCode, words: &[&str]) {
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
pub(crate) fn assert_refused(
    raw: &mut Raw,
    opcode: Opcode,
    body: &[u8],
    code: ErrorCode,
    words: &[&str],
) {
    let reply = raw.ask(opcode, body).unwrap();
    assert_eq!(reply.header.opcode, opcode as u8);
    assert_error(&reply, code, words);
    raw.assert_open();
}

pub(crate) fn enqueue_body(queue: &str, batch: Batch<'_>) -> Vec<u8> {
    body(|out| Enqueue { queue, create: true, producer: None, batch }.encode(out))
}

pub(crate) fn one_job(payload: &[u8]) -> BatchBuilder {
    let mut builder = BatchBuilder::default();
    builder.push(&Job::new(payload)).unwrap();
    builder
}

pub(crate) fn token(bytes: &[u8]) -> Token {
    Token::new(bytes).unwrap()
}

pub(crate) fn assert_no_queue(raw: &mut Raw, queue: &str) {
    let body = format!("{{\"queue\":\"{queue}\"}}");
    assert_refused(raw, Opcode::DescribeQueue, body.as_bytes(), ErrorCode::NoSuchQueue, &[queue]);
}

pub(crate) fn hello_body(change: impl FnOnce(&mut Hello<'_>)) -> Vec<u8> {
    let mut hello = hello_of(new_session());
    change(&mut hello);
    body(|out| hello.encode(out))
}

/// A body of every command that has one, as it should be.
pub(crate) fn good_bodies() -> Vec<(Opcode, Vec<u8>)> {
    let builder = one_job(b"payload");
    let jobs = || of_default("q", [(0, token(&[1; 8]))]);
    let fetch = fetch_of(&["q"]);
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
pub(crate) fn server_with_queues() -> (Server, TempDir, Raw) {
    let (server, dir) = server();
    let mut raw = Raw::greeted(server.address());
    raw.enqueue("q", &["first"]).unwrap();
    raw.enqueue("s", &["first"]).unwrap();
    raw.fetch(&["q"], 1, 0).unwrap();
    let group = br#"{"queue":"s","group":"g","kind":"stream"}"#;
    assert_eq!(raw.ask(Opcode::CreateGroup, group).unwrap().code(), None);
    (server, dir, raw)
}
