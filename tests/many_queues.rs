//! Ten thousand queues cost little, and a thousand written to at once share syncs.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test may stop at what it did not expect"
)]

mod common;

use bytes::BytesMut;
use common::{Raw, Server};
use joblog_protocol::Opcode;
use joblog_protocol::frame::put_request;
use joblog_protocol::job::BatchBuilder;
use joblog_protocol::messages::enqueue::Enqueue;

const QUEUES: usize = 10_000;

/// Requests in flight at once.
const IN_FLIGHT: usize = 1_000;

/// What they may cost, in memory and on the disk, beyond the jobs' own bytes.
const COST_BYTES_MAX: u64 = 20 * 1024 * 1024;

/// Enqueues a job to each queue, many requests in one packet; all are answered.
fn enqueue_to_each(raw: &mut Raw, queues: &[String]) {
    for some in queues.chunks(IN_FLIGHT) {
        let mut packet = BytesMut::new();
        for (correlation, queue) in (1_000_000..).zip(some) {
            let mut batch = BatchBuilder::default();
            batch.push(&joblog_protocol::Job::new("job")).unwrap();
            let enqueue = Enqueue { queue, create: true, producer: None, batch: batch.batch() };
            put_request(&mut packet, Opcode::Enqueue, correlation, |out| enqueue.encode(out));
        }
        raw.send(&packet).unwrap();
        for (correlation, _) in (1_000_000..).zip(some) {
            assert_eq!(raw.reply_to(correlation).unwrap().code(), None);
        }
    }
}

/// Anonymous memory of a process in bytes: what the page cache can't take back.
fn anonymous_bytes(server: &Server) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", server.id())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
}

#[test]
fn ten_thousand_queues_cost_little() {
    let dir = tempfile::tempdir().unwrap();
    let mut server = Server::start(dir.path(), &[]);
    let mut raw = Raw::greeted(server.address());
    enqueue_to_each(&mut raw, &["first".to_owned()]);
    let before = anonymous_bytes(&server);

    let queues: Vec<String> = (0..QUEUES).map(|number| format!("queue-{number}")).collect();
    enqueue_to_each(&mut raw, &queues);
    let cost = anonymous_bytes(&server).saturating_sub(before);
    assert!(cost < COST_BYTES_MAX, "{} queues cost {cost} bytes of memory", QUEUES);

    // All are there after a kill, each with its job.
    server.kill9();
    server.restart();
    let mut raw = Raw::greeted(server.address());
    for queue in [&queues[0], &queues[QUEUES / 2], &queues[QUEUES - 1]] {
        assert_eq!(raw.fetch(&[queue], 10, 0).unwrap().len(), 1, "{queue}");
    }
    let used: u64 = used_bytes(&server.data().join("log-0"));
    assert!(used < COST_BYTES_MAX, "{} queues cost {used} bytes of disk", QUEUES);
}

#[test]
fn a_thousand_queues_written_to_at_once_share_their_syncs() {
    let dir = tempfile::tempdir().unwrap();
    let report = dir.path().join("syncs");
    let mut server = Server::start_slowed(&dir.path().join("data"), "fdatasync", &report);
    let mut raw = Raw::greeted(server.address());
    let queues: Vec<String> = (0..1_000).map(|number| format!("queue-{number}")).collect();
    enqueue_to_each(&mut raw, &queues);
    server.stop_traced();
    let report = std::fs::read_to_string(&report).unwrap();
    let line = report.lines().find(|line| line.contains("fdatasync")).unwrap();
    let syncs: u64 = line.split_whitespace().nth(3).unwrap().parse().unwrap();
    // While one slow sync runs, the next batch forms; one each would be a thousand. Ten measure the
    // disk, and a few are for start and stop.
    assert!(syncs < 200, "{syncs} syncs for a thousand queues:\n{report}");
}

/// Bytes of a directory's files up to the last one that is not zero: segments are allocated ahead.
fn used_bytes(dir: &std::path::Path) -> u64 {
    let files = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    let used = |path| {
        let bytes: Vec<u8> = std::fs::read(path).unwrap();
        bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last as u64 + 1)
    };
    files.map(used).sum()
}
