//! FETCHes that wait, and commits that ride on them.

use joblog_protocol::ErrorCode;
use joblog_protocol::limits::WAITING_FETCHES_MAX;
use joblog_protocol::messages::fetch::LeaseKind;

use crate::common::{of_default, only};
use crate::support::{assert_error, server_with_queues};

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
