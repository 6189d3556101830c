//! The annotated session of SPEC.md, held with a real server: it answers what the document says.
//!
//! Tokens and times differ in every run, and texts are for people; all else is compared.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test may stop at what it did not expect"
)]

mod common;
#[path = "../protocol/tests/hex/mod.rs"]
mod hex;

use common::{Raw, Server};
use hex::{Frame, Side, frames, section};
use joblog_protocol::Opcode;
use joblog_protocol::frame::FLAG_MORE;
use joblog_protocol::messages::fetch::FetchReply;
use joblog_protocol::messages::session::HelloReply;
use tempfile::TempDir;

/// The tokens of the document, and those that this server gave in their place.
type Tokens = Vec<(Vec<u8>, Vec<u8>)>;

/// The frame of the document with the tokens of this run.
fn with_tokens(frame: &Frame, tokens: &Tokens) -> Vec<u8> {
    let mut bytes = frame.bytes.clone();
    for (stated, given) in tokens {
        assert_eq!(stated.len(), given.len(), "the document's tokens have this server's form");
        let at = bytes.windows(stated.len()).position(|window| window == stated);
        if let Some(at) = at {
            bytes[at..at + given.len()].copy_from_slice(given);
        }
    }
    bytes
}

fn assert_same_jobs(stated: &FetchReply<'_>, given: &FetchReply<'_>, tokens: &mut Tokens) {
    assert_eq!(stated.lease_ms, given.lease_ms);
    assert_eq!(stated.jobs.len(), given.jobs.len());
    for (stated, given) in stated.jobs.iter().zip(&given.jobs) {
        let mut expected = *stated;
        (expected.token, expected.enqueued_at_ms) = (given.token, given.enqueued_at_ms);
        assert_eq!(*given, expected);
        let bytes = |token: Option<joblog_protocol::Token>| token.unwrap().as_bytes().to_vec();
        tokens.push((bytes(stated.token), bytes(given.token)));
    }
}

fn assert_same_reply(stated: &Frame, given: &common::Frame, tokens: &mut Tokens) {
    let lengths_differ =
        joblog_protocol::frame::Header { length: given.header.length, ..stated.header };
    assert_eq!(given.header, lengths_differ);
    if stated.header.status != 0 {
        return;
    }
    let more = stated.header.flags & FLAG_MORE != 0;
    match stated.opcode() {
        Opcode::Hello => {
            let stated = HelloReply::decode(stated.body()).unwrap();
            let given = HelloReply::decode(&given.body).unwrap();
            assert_eq!(given, HelloReply { agent: given.agent, ..stated });
        }
        Opcode::Fetch if !more => {
            let stated = FetchReply::decode(stated.body()).unwrap();
            let given = FetchReply::decode(&given.body).unwrap();
            assert_same_jobs(&stated, &given, tokens);
        }
        _ => assert_eq!(given.body, stated.body()),
    }
}

#[test]
fn the_annotated_session_is_what_a_server_says() {
    let dir = TempDir::new().unwrap();
    let server = Server::start(dir.path(), &[]);
    let mut raw = Raw::connect(server.address()).unwrap();
    let (mut tokens, mut replies) = (Tokens::new(), 0);
    for frame in frames(section("14. Annotated session")) {
        match frame.side {
            Side::Client => raw.send(&with_tokens(&frame, &tokens)).unwrap(),
            Side::Server => {
                replies += 1;
                assert_same_reply(&frame, &raw.frame().unwrap(), &mut tokens);
            }
        }
    }
    assert!(replies >= 9 && tokens.len() == 2, "the session is shorter than it was");
    raw.assert_closed();
}
