//! Jobs that live for a time only, through the real binaries.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test may stop at what it did not expect"
)]

mod common;

use common::{Server, qctl_code, qctl_objects, until};
use serde_json::Value;

fn group(server: &Server) -> Value {
    qctl_objects(server, 0, &["group", "show", "mail", "default"]).remove(0)
}

fn fetch(server: &Server) -> Option<(String, Value)> {
    let mut jobs = qctl_objects(server, 0, &["fetch", "mail", "--wait", "1m", "--lease", "1h"]);
    let job = jobs.pop()?;
    let [name, token] = ["job", "token"].map(|field| job[field].as_str().unwrap());
    Some((format!("{name}@{token}"), job["payload"].clone()))
}

#[test]
fn an_expired_job_is_not_delivered_and_is_counted() {
    let dir = tempfile::tempdir().unwrap();
    let mut server = Server::start(dir.path(), &[]);
    qctl_objects(&server, 0, &["enqueue", "mail", "first"]);
    let (first, _) = fetch(&server).unwrap();
    qctl_objects(&server, 0, &["enqueue", "mail", "short", "--ttl", "1ms"]);
    qctl_objects(&server, 0, &["enqueue", "mail", "long", "--ttl", "1h"]);
    // Also one that is delayed, and one that expires while the server is away.
    qctl_objects(&server, 0, &["enqueue", "mail", "late", "--ttl", "1ms", "--delay", "1h"]);
    until("both have expired", || group(&server)["removed"]["expired"] == 2);
    server.kill9();
    server.restart();
    assert_eq!(group(&server)["removed"]["expired"], 2);
    assert_eq!(fetch(&server).unwrap().1, "long");
    assert_eq!(group(&server)["ready"], 0);
    qctl_objects(&server, 0, &["commit", &first]);
    assert_eq!(group(&server)["committed_offset"], 2);
    assert_eq!(qctl_code(&server, &["group", "create", "mail", "audit"]), 0);
    let audit = qctl_objects(&server, 0, &["fetch", "mail", "--group", "audit", "--jobs", "9"]);
    let seen: Vec<_> = audit.iter().map(|job| job["payload"].as_str().unwrap()).collect();
    // What every group had consumed is not there any more.
    assert_eq!(seen, ["long"]);
}

#[test]
fn a_job_that_expires_while_it_is_leased_can_be_committed_and_is_not_tried_again() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), &[]);
    // Long enough to be fetched in time, wherever this runs; one that was not is tried again.
    let leased = |payload: &str| {
        let mut leased = None;
        until("the job is fetched in time", || {
            qctl_objects(&server, 0, &["enqueue", "mail", payload, "--ttl", "1500ms"]);
            let args = ["fetch", "mail", "--lease", "1h"];
            leased = match qctl_code(&server, &["ping"]) {
                0 => common::qctl_any(&server, &args).pop(),
                code => panic!("{code}"),
            };
            leased.is_some()
        });
        let job = leased.unwrap();
        let [name, token] = ["job", "token"].map(|field| job[field].as_str().unwrap());
        format!("{name}@{token}")
    };
    let (committed, failed) = (leased("committed"), leased("failed"));
    let before = group(&server)["removed"]["expired"].as_u64().unwrap_or(0);
    // Its time is over when another job that was enqueued later has expired.
    qctl_objects(&server, 0, &["enqueue", "mail", "mark", "--ttl", "1600ms"]);
    until("the mark has expired", || {
        group(&server)["removed"]["expired"].as_u64().unwrap_or(0) > before
    });
    assert_eq!(qctl_code(&server, &["extend", &committed, "--lease", "1m"]), 0);
    assert_eq!(qctl_objects(&server, 0, &["commit", &committed])[0]["status"], "consumed");
    assert_eq!(qctl_objects(&server, 0, &["fail", &failed, "--reason", "x"])[0]["status"], "dead");
    let group = group(&server);
    assert_eq!(
        (&group["delayed"], &group["ready"], &group["leased"]),
        (&0.into(), &0.into(), &0.into())
    );
    assert_eq!(group["removed"]["expired"], before + 2);
}
