//! Bodies of requests: lengths, names, fields outside of their ranges, wrong JSON.

use joblog_protocol::messages::lease::Commit;
use joblog_protocol::{ErrorCode, Opcode};
use smallvec::smallvec;

use crate::common::of_default;
use crate::support::{assert_refused, body, good_bodies, server_with_queues};

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
