//! Jobs that are to be delivered later, through the real binaries.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test may stop at what it did not expect"
)]

mod common;

use std::process::Command;
use std::time::{Duration, Instant};

use common::{Server, qctl_code, qctl_objects, until};

/// What a job may come too early because of clocks that count whole milliseconds.
const ROUNDING: Duration = Duration::from_millis(2);

fn fetch(server: &Server, wait: &str) -> Option<String> {
    let code = if wait == "0" { 1 } else { 0 };
    let jobs = qctl_objects(server, code, &["fetch", "mail", "--wait", wait, "--lease", "1h"]);
    jobs.first().map(|job| job["payload"].as_str().unwrap().to_owned())
}

fn counts(server: &Server, group: &str) -> [u64; 4] {
    let group = qctl_objects(server, 0, &["group", "show", "mail", group]).remove(0);
    ["ready", "leased", "delayed", "committed_offset"].map(|name| group[name].as_u64().unwrap())
}

#[test]
fn a_delayed_job_waits_for_its_time_and_holds_up_no_other() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), &[]);
    qctl_objects(&server, 0, &["enqueue", "mail", "far", "--delay", "1h"]);
    qctl_objects(&server, 0, &["enqueue", "mail", "now"]);
    assert_eq!(fetch(&server, "1m").as_deref(), Some("now"));
    assert_eq!(counts(&server, "default"), [0, 1, 1, 0]);
    assert_eq!(fetch(&server, "0"), None);
    let start = Instant::now();
    qctl_objects(&server, 0, &["enqueue", "mail", "later", "--delay", "700ms"]);
    assert_eq!(fetch(&server, "1m").as_deref(), Some("later"));
    assert!(start.elapsed() + ROUNDING >= Duration::from_millis(700), "{:?}", start.elapsed());
}

#[test]
fn a_job_waits_for_the_time_of_day_that_it_names() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), &[]);
    let date = |of: &str| {
        let output = Command::new("date").args(["-d", of, "+%Y-%m-%dT%H:%M:%S%:z"]).output();
        String::from_utf8(output.unwrap().stdout).unwrap().trim().to_owned()
    };
    let past = date("1 hour ago");
    qctl_objects(&server, 0, &["enqueue", "mail", "past", "--at", &past]);
    assert_eq!(fetch(&server, "1m").as_deref(), Some("past"));
    let soon = date("2 seconds");
    qctl_objects(&server, 0, &["enqueue", "mail", "soon", "--at", &soon]);
    let peeked = qctl_objects(&server, 0, &["peek", "mail", "--from", "1"]).remove(0);
    assert!(peeked["at"].as_str().unwrap().ends_with('Z'));
    assert_eq!(fetch(&server, "1m").as_deref(), Some("soon"));
    let now = date("now");
    assert!(now >= soon, "{now} is before {soon}");
}

#[test]
fn a_delay_goes_on_while_the_server_is_away_and_holds_for_groups_made_later() {
    let dir = tempfile::tempdir().unwrap();
    let mut server = Server::start(dir.path(), &[]);
    qctl_objects(&server, 0, &["enqueue", "mail", "far", "--delay", "1h"]);
    let start = Instant::now();
    qctl_objects(&server, 0, &["enqueue", "mail", "later", "--delay", "3s"]);
    server.kill9();
    server.restart();
    assert_eq!(qctl_code(&server, &["group", "create", "mail", "audit"]), 0);
    let [ready, leased, delayed, _] = counts(&server, "audit");
    assert_eq!((ready + delayed, leased, delayed > 0), (2, 0, true));
    assert_eq!(fetch(&server, "1m").as_deref(), Some("later"));
    // A restart shifts no job by more than a second.
    assert!(start.elapsed() >= Duration::from_secs(2), "{:?}", start.elapsed());
    until("it is ready for the other group, too", || counts(&server, "audit") == [1, 0, 1, 0]);
    assert_eq!(qctl_code(&server, &["enqueue", "mail", "x", "--delay", "400d"]), 2);
    let both = ["enqueue", "mail", "x", "--delay", "1s", "--at", "2030-01-01T00:00:00Z"];
    assert_eq!(qctl_code(&server, &both), 2);
}
