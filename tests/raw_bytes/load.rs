//! Much at once, and bytes at random: none of it brings the server down.

use std::io::ErrorKind;

use joblog_protocol::Opcode;
use joblog_protocol::limits::FRAME_LENGTH_MAX;
use joblog_protocol::messages::fetch::Fetch;

use crate::common::{Dice, Raw, fetch_of, of_default};
use crate::support::{frame_bytes, good_bodies, server, server_with_queues};

/// A session that asks for much in one frame must not break the log for all others.
#[test]
fn a_fail_of_many_jobs_with_a_long_reason_breaks_nothing() {
    let (server, _dir) = server();
    let mut raw = Raw::greeted(server.address());
    raw.enqueue("q", &vec!["x"; 20_000]).unwrap();
    let mut jobs = raw.fetch(&["q"], 10_000, 0).unwrap();
    jobs.extend(raw.fetch(&["q"], 10_000, 0).unwrap());
    assert_eq!(jobs.len(), 20_000);
    let handles = of_default("q", jobs.iter().map(crate::common::Job::handle));
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
        let fetch = Fetch { group: &group, jobs_max: 100, ..fetch_of(&["q"]) };
        let jobs = raw.ask_with(Opcode::Fetch, |out| fetch.encode(out)).unwrap().jobs();
        let mut handles = of_default("q", jobs.iter().map(crate::common::Job::handle));
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
    let rounds = if crate::common::long() { 10_000 } else { 2_000 };
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
