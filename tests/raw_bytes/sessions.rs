//! How a connection begins and ends: greetings, sessions that move, goodbyes.

use std::time::{Duration, Instant};

use joblog_protocol::messages::fetch::LeaseKind;
use joblog_protocol::messages::session::HelloReply;
use joblog_protocol::{ErrorCode, Opcode};

use crate::common::{Raw, new_session, of_default, only};
use crate::support::{assert_error, assert_refused, frame_bytes, hello_body, server};

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
