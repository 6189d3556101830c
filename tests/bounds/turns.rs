//! A turn has an end: who asks for much lets the others in between.

use std::io::Write;

use bytes::BytesMut;
use joblog_protocol::Opcode;
use joblog_protocol::frame::put_request;
use joblog_protocol::job::BatchBuilder;
use joblog_protocol::messages::enqueue::Enqueue;

use crate::common::{Raw, Server};

/// Requests that a connection has acted on before the next has its turn.
const REQUESTS_PER_TURN: usize = 64;

/// More than one read brings, and less than the socket holds.
const PIPELINED: usize = 1_200;

/// ENQUEUEs of one job each with this payload, one behind the other.
fn pipelined(payload: &str) -> BytesMut {
    let mut builder = BatchBuilder::default();
    builder.push(&joblog_protocol::Job::new(payload)).unwrap();
    let enqueue = Enqueue { queue: "q", create: true, producer: None, batch: builder.batch() };
    let mut bytes = BytesMut::new();
    for correlation in 0..PIPELINED as u64 {
        put_request(&mut bytes, Opcode::Enqueue, correlation, |out| enqueue.encode(out));
    }
    bytes
}

#[test]
fn connections_take_turns_of_sixty_four_requests() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("one.toml"), "io_threads = 1\n").unwrap();
    let config = dir.path().join("one.toml");
    let server = Server::start_with(&dir.path().join("data"), &config, &[]);
    let mut clients = [Raw::greeted(server.address()), Raw::greeted(server.address())];
    let senders: Vec<_> = clients.iter().map(Raw::second_handle).collect();
    // All of both is there when the server looks.
    server.pause();
    let sending: Vec<_> = ["a", "b"]
        .into_iter()
        .zip(senders)
        .map(|(payload, mut sender)| {
            std::thread::spawn(move || sender.write_all(&pipelined(payload)).unwrap())
        })
        .collect();
    sending.into_iter().for_each(|thread| thread.join().unwrap());
    server.resume();
    for client in &mut clients {
        for _ in 0..PIPELINED {
            assert_eq!(client.frame().unwrap().code(), None);
        }
    }
    let [mut raw, _other] = clients;
    let mut payloads = Vec::new();
    while payloads.len() < 2 * PIPELINED {
        let jobs = raw.fetch(&["q"], 10_000, 0).unwrap();
        payloads.extend(jobs.into_iter().map(|job| job.payload));
    }
    // As long as both have some left, neither has more than a turn at a time.
    let last_of = |payload: &[u8]| payloads.iter().rposition(|other| other == payload).unwrap();
    let both = last_of(b"a").min(last_of(b"b"));
    let longest = payloads[..both].chunk_by(|one, next| one == next).map(<[_]>::len).max();
    assert_eq!(longest, Some(REQUESTS_PER_TURN));
}
