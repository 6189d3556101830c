//! Dead jobs through the real binaries: listed, shown, retried, dropped, and gone in time.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test may stop at what it did not expect"
)]

mod common;

use common::{Server, qctl_code, qctl_objects as objects, until};
use serde_json::Value;

fn offsets(server: &Server, args: &[&str]) -> Vec<u64> {
    let listed = objects(server, 0, &[&["dead", "list", "mail"], args].concat());
    listed.iter().map(|dead| dead["offset"].as_u64().unwrap()).collect()
}

fn group(server: &Server) -> Value {
    objects(server, 0, &["group", "show", "mail", "default"]).remove(0)
}

/// Enqueues jobs that die with these reasons.
fn kill(server: &Server, reasons: &[&str]) {
    for reason in reasons {
        objects(server, 0, &["enqueue", "mail", reason]);
        let fetched = objects(server, 0, &["fetch", "mail"]);
        let job = fetched[0]["job"].as_str().unwrap();
        let name = format!("{job}@{}", fetched[0]["token"].as_str().unwrap());
        objects(server, 0, &["fail", &name, "--reason", reason, "--retries", "0"]);
    }
}

#[test]
fn dead_jobs_are_listed_shown_retried_and_dropped() {
    let dir = tempfile::tempdir().unwrap();
    let mut server = Server::start(dir.path(), &[]);
    kill(&server, &["no ink", "no paper", "no ink left", "fire"]);
    server.kill9();
    server.restart();

    assert_eq!(offsets(&server, &[]), [0, 1, 2, 3]);
    assert_eq!(offsets(&server, &["--error", "ink"]), [0, 2]);
    assert_eq!(offsets(&server, &["--limit", "1", "--error", "paper"]), [1]);
    assert!(offsets(&server, &["--older", "1h"]).is_empty());
    assert_eq!(offsets(&server, &["--younger", "1h"]).len(), 4);
    let shown = objects(&server, 0, &["dead", "show", "mail:3"]);
    assert_eq!((&shown[0]["reason"], &shown[1]["payload"]), (&"fire".into(), &"fire".into()));
    assert_eq!(objects(&server, 1, &["dead", "show", "mail:9"]), Vec::<Value>::new());

    // What is meant must be said, and nobody can be asked here.
    objects(&server, 2, &["dead", "retry", "mail"]);
    objects(&server, 2, &["dead", "drop", "mail:1"]);

    assert_eq!(objects(&server, 0, &["dead", "retry", "mail", "--error", "ink"])[0]["jobs"], 2);
    assert_eq!(objects(&server, 1, &["dead", "retry", "mail:0"])[0]["jobs"], 0);
    // Its failures are forgotten, its attempts are not.
    let again = objects(&server, 0, &["fetch", "mail"]);
    assert_eq!((&again[0]["job"], &again[0]["attempt"]), (&"mail:0".into(), &2.into()));
    let name = format!("mail:0@{}", again[0]["token"].as_str().unwrap());
    objects(&server, 0, &["fail", &name, "--reason", "no ink", "--retries", "1"]);
    assert_eq!(offsets(&server, &[]), [1, 3]);

    objects(&server, 0, &["dead", "drop", "mail:1", "--yes"]);
    assert_eq!(objects(&server, 0, &["dead", "drop", "mail", "--all", "--yes"])[0]["jobs"], 1);
    server.kill9();
    server.restart();
    let group = group(&server);
    assert_eq!((&group["dead"], &group["removed"]["dropped"]), (&0.into(), &2.into()));
    assert_eq!(group["consumed_above"], 2);
}

#[test]
fn a_dead_job_goes_when_it_has_been_kept_for_as_long_as_its_queue_says() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), &[]);
    assert_eq!(qctl_code(&server, &["queue", "create", "mail", "--dead-kept", "50ms"]), 0);
    kill(&server, &["no ink"]);
    until("the dead job is gone", || group(&server)["dead"] == 0);
    let group = group(&server);
    assert_eq!((&group["removed"]["aged"], &group["committed_offset"]), (&1.into(), &1.into()));
}
