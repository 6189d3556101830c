//! Schedules through the real binaries: they fire, whatever becomes of the server and of their
//! queues.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test may stop at what it did not expect"
)]

mod common;

use std::path::Path;

use common::{Server, qctl_any, qctl_code, qctl_objects, until};
use serde_json::Value;

fn show(server: &Server, schedule: &str) -> Value {
    qctl_objects(server, 0, &["schedule", "show", schedule]).remove(0)
}

fn count(server: &Server, schedule: &str, field: &str) -> u64 {
    show(server, schedule)[field].as_u64().unwrap()
}

/// The jobs that a queue has ever had; none if it does not exist.
fn jobs(server: &Server, queue: &str) -> u64 {
    let shown = qctl_any(server, &["queue", "show", queue]);
    shown.first().map_or(0, |queue| queue["next_offset"].as_u64().unwrap())
}

/// A job comes before it is counted as a firing, so a second one for a due time would keep the two
/// apart for ever.
fn one_job_for_each_firing(server: &Server, schedule: &str, queue: &str) {
    until("there is one job for each firing", || {
        let fired = count(server, schedule, "fired");
        let jobs = jobs(server, queue);
        assert!(jobs >= fired, "{fired} firings and only {jobs} jobs");
        jobs == fired
    });
}

/// A configuration file in a directory, for servers that are started several times.
fn config(dir: &Path, more: &str) -> std::path::PathBuf {
    let path = dir.join("joblog.toml");
    std::fs::write(&path, format!("segment_bytes = 16777216\n{more}")).unwrap();
    path
}

#[test]
fn a_schedule_is_added_listed_replaced_paused_run_and_removed() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), &[]);
    let ok = |args: &[&str]| qctl_objects(&server, 0, args);
    let daily = ["--cron", "30 2 * * *", "--zone", "Europe/Zurich"];
    ok(&[&["schedule", "add", "nightly", "reports", "all", "--key", "k"], &daily[..]].concat());
    let shown = show(&server, "nightly");
    assert_eq!((&shown["payload"], &shown["zone"]), (&"all".into(), &"Europe/Zurich".into()));
    assert_eq!(shown["next"].as_array().unwrap().len(), 5);
    let next = shown["next"][0].as_str().unwrap();
    assert!(next.ends_with("T01:30:00.000Z") || next.ends_with("T00:30:00.000Z"), "{next}");

    let again = ["schedule", "add", "nightly", "reports", "some"];
    assert_eq!(qctl_code(&server, &[&again[..], &daily].concat()), 1, "the name is taken");
    ok(&[&again[..], &daily, &["--replace"]].concat());
    assert_eq!(show(&server, "nightly")["payload"], "some");
    assert_eq!(show(&server, "nightly")["next"][0].as_str().unwrap(), next);

    let run = ok(&["schedule", "run", "nightly"]).remove(0);
    assert_eq!(run["job"], "reports:0");
    let fetched = ok(&["fetch", "reports"]).remove(0);
    assert_eq!(fetched["payload"], "some");
    assert_eq!(count(&server, "nightly", "fired"), 0, "a run is no firing");

    ok(&["schedule", "pause", "nightly"]);
    let listed = ok(&["schedule", "list"]);
    assert_eq!(listed.len(), 1);
    assert_eq!((&listed[0]["paused"], &listed[0]["next"]), (&true.into(), &Value::Array(vec![])));
    ok(&["schedule", "run", "nightly"]);
    ok(&["schedule", "resume", "nightly"]);
    assert_eq!(show(&server, "nightly")["next"][0].as_str().unwrap(), next);
    ok(&["schedule", "remove", "nightly", "--yes"]);
    assert!(ok(&["schedule", "list"]).is_empty());
    assert_eq!(qctl_code(&server, &["schedule", "remove", "nightly"]), 2, "nobody can be asked");
    assert_eq!(qctl_code(&server, &["schedule", "remove", "nightly", "--yes"]), 1);
    for verb in ["show", "pause", "resume", "run"] {
        assert_eq!(qctl_code(&server, &["schedule", verb, "nightly"]), 1, "{verb}");
    }
}

#[test]
fn what_is_no_schedule_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), &[]);
    let big = "x".repeat(40_000);
    let add = |code, args: &[&str]| {
        let all = [&["schedule", "add", "s", "q"], args].concat();
        assert_eq!(qctl_code(&server, &all), code, "{args:?}");
    };
    add(1, &["p", "--cron", "61 * * * *"]);
    add(1, &["p", "--cron", "0 0 30 2 *"]);
    add(1, &["p", "--cron", "@daily", "--zone", "Europe/Atlantis"]);
    add(2, &["p", "--every", "999ms"]);
    add(2, &[&big, "--every", "1s"]);
    add(2, &["p"]);
    add(2, &["p", "--every", "1s", "--cron", "@daily"]);
    add(2, &["p", "--every", "1s", "--zone", "UTC"]);
    add(2, &["--every", "1s"]);
    assert!(qctl_objects(&server, 0, &["schedule", "list"]).is_empty());
}

#[test]
fn schedules_fire_into_queues_of_several_logs_and_a_paused_one_does_not() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), &["--logs", "3"]);
    let ok = |args: &[&str]| qctl_objects(&server, 0, args);
    let queues = ["a", "b", "c", "d", "e"];
    for queue in queues {
        ok(&["schedule", "add", queue, queue, "x", "--every", "1s"]);
    }
    ok(&["schedule", "add", "resting", "f", "x", "--every", "1s", "--paused"]);
    // A worker that waits is given the job when it comes.
    let fetched = ok(&["fetch", "a", "--wait", "1m"]).remove(0);
    assert_eq!(fetched["payload"], "x");
    for queue in queues {
        until("it fires twice", || count(&server, queue, "fired") >= 2);
    }
    assert_eq!((count(&server, "resting", "fired"), jobs(&server, "f")), (0, 0));
}

#[test]
fn what_was_missed_while_the_server_was_down_fires_once() {
    let dir = tempfile::tempdir().unwrap();
    let mut server = Server::start(dir.path(), &[]);
    qctl_objects(&server, 0, &["schedule", "add", "s", "q", "x", "--every", "1s"]);
    until("it fires", || count(&server, "s", "fired") >= 1);
    let before = show(&server, "s")["next_ms"][0].as_u64().unwrap();
    server.stop();
    let unix_ms = || std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap().as_millis() as u64;
    until("three more are due", || unix_ms() > before + 4_000);
    let server = Server::start(dir.path(), &[]);
    until("it fires again", || count(&server, "s", "fired") >= 2);
    assert!(count(&server, "s", "skipped") >= 3, "{}", show(&server, "s"));
    one_job_for_each_firing(&server, "s", "q");
}

/// Kills the server as soon as the job of a due time is seen, which is before or after that is
/// settled; and as it enters one of its syncs. Something is due at each start.
#[test]
fn killed_around_a_firing_it_gives_one_job() {
    let dir = tempfile::tempdir().unwrap();
    let config = config(dir.path(), "logs = 2\n");
    let data = dir.path().join("data");
    let mut server = Server::start_with(&data, &config, &[]);
    // Each of these two queues lives in another log.
    let queues = ["a", "b"];
    for queue in queues {
        qctl_objects(&server, 0, &["schedule", "add", queue, queue, "x", "--every", "1s"]);
    }
    until("both fire", || queues.iter().all(|queue| count(&server, queue, "fired") > 0));
    for round in 0..16 {
        let queue = queues[round % 2];
        let before = jobs(&server, queue);
        until("there is another job", || jobs(&server, queue) > before);
        server.kill9();
        server.restart();
    }
    server.kill9();
    for nth in 13..17 {
        if let Some(mut doomed) = Server::start_doomed(&data, &config, "fdatasync", nth) {
            doomed.wait();
        }
    }
    let server = Server::start_with(&data, &config, &[]);
    for queue in queues {
        let before = count(&server, queue, "fired");
        until("it goes on", || count(&server, queue, "fired") > before);
        one_job_for_each_firing(&server, queue, queue);
    }
}

#[test]
fn a_full_or_missing_queue_is_told_and_tried_again() {
    let dir = tempfile::tempdir().unwrap();
    let config = config(dir.path(), "auto_create = false\n");
    let server = Server::start_with(&dir.path().join("data"), &config, &[]);
    let ok = |args: &[&str]| qctl_objects(&server, 0, args);
    ok(&["schedule", "add", "s", "q", "x", "--every", "1s"]);
    until("it fails", || count(&server, "s", "failed") > 0);
    let error = show(&server, "s")["last_failure"]["error"].as_str().unwrap().to_owned();
    assert!(error.contains("there is no queue \"q\""), "{error}");
    ok(&["queue", "create", "q", "--max-jobs", "1"]);
    until("it fires", || count(&server, "s", "fired") == 1);
    until("it is full", || {
        let shown = show(&server, "s");
        let error = shown["last_failure"]["error"].as_str().unwrap();
        error.contains("the queue is full")
    });
    assert_eq!(jobs(&server, "q"), 1);
    ok(&["work", "q", "--until-empty", "--", "true"]);
    until("it fires again", || count(&server, "s", "fired") >= 2);
    one_job_for_each_firing(&server, "s", "q");
    ok(&["queue", "delete", "q", "--yes"]);
    let error = || show(&server, "s")["last_failure"]["error"].as_str().unwrap().to_owned();
    until("it fails again", || error().contains("there is no queue"));
}
