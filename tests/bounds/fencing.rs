//! A token is good for its own lease, and for nothing else.

use joblog_protocol::messages::fetch::LeaseKind;
use joblog_protocol::messages::lease::FailOutcome;
use joblog_protocol::{ErrorCode, Token};

use crate::common::{Job, Raw, Server, of_default, only};

/// A queue that lives in the second log of a server with two.
fn queue_of_the_second_log() -> String {
    let mut names = (0..).map(|number| format!("q{number}"));
    names.find(|name| crc32fast::hash(name.as_bytes()) % 2 == 1).unwrap()
}

fn first_job(raw: &mut Raw, queue: &str) -> Job {
    raw.enqueue(queue, &["a job"]).unwrap();
    raw.fetch(&[queue], 1, 0).unwrap().remove(0)
}

#[test]
fn a_token_of_one_log_is_no_token_of_another() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), &["--logs", "2"]);
    let mut raw = Raw::greeted(server.address());
    let queue = queue_of_the_second_log();
    let job = first_job(&mut raw, &queue);
    // As the first log would have given it under the same number: each counts for itself.
    let (number, log) = job.token.as_bytes().split_at(8);
    assert_eq!(log, [1, 0]);
    let of_first_log = Token::new(number).unwrap();
    let forged = || of_default(&queue, [(job.offset, of_first_log)]);
    let lost = Some(ErrorCode::LeaseLost);
    assert_eq!(raw.commit(forged()).unwrap(), only(lost));
    assert_eq!(raw.release(forged(), 0).unwrap(), only(lost));
    assert_eq!(raw.extend(forged(), 1_000).unwrap(), only(lost));
    let failed = raw.fail(forged(), "no reason").unwrap();
    assert_eq!(failed[..], [FailOutcome::Refused(ErrorCode::LeaseLost)]);
    let lease = LeaseKind::Session { run_ms_max: None };
    let carried = raw.request_fetch(&[&queue], 1, 0, lease, &[forged()]).unwrap();
    assert_eq!(raw.reply_to(carried).unwrap().statuses(), only(lost));
    // Its own is as good as before.
    assert_eq!(raw.commit(of_default(&queue, [job.handle()])).unwrap(), only(None));
}
