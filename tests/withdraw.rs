//! Cancelling, pausing, purging and draining, through the real binaries.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test may stop at what it did not expect"
)]

mod common;

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::Duration;

use common::{PATIENCE, Server, qctl_code, qctl_objects, until};
use joblog::client::{
    CancelOutcome, Client, CommitStatus, ErrorCode, FailStatus, Failure, FetchRequest, Fetched,
    Job, Options,
};
use serde_json::Value;

fn group(server: &Server, name: &str) -> Value {
    qctl_objects(server, 0, &["group", "show", "mail", name]).remove(0)
}

fn statuses(server: &Server, code: i32, jobs: &[&str]) -> Vec<String> {
    let views = qctl_objects(server, code, &[&["cancel"], jobs].concat());
    views.iter().map(|view| view["status"].as_str().unwrap().to_owned()).collect()
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async { tokio::time::timeout(2 * PATIENCE, future).await.unwrap() })
}

async fn client(server: &Server) -> Client {
    Client::connect(server.address().to_string(), Options::default()).await.unwrap()
}

async fn fetch(client: &Client, wait: Duration) -> Fetched {
    client.fetch(&FetchRequest { wait, ..FetchRequest::new(["mail"]) }).await.unwrap()
}

#[test]
fn a_job_is_cancelled_in_each_state_for_all_groups() {
    let dir = tempfile::tempdir().unwrap();
    let mut server = Server::start(dir.path(), &[]);
    for payload in ["dead", "done", "waiting"] {
        qctl_objects(&server, 0, &["enqueue", "mail", payload]);
    }
    for end in ["fail", "commit"] {
        let fetched = qctl_objects(&server, 0, &["fetch", "mail"]).remove(0);
        let [job, token] = ["job", "token"].map(|name| fetched[name].as_str().unwrap().to_owned());
        let name = format!("{job}@{token}");
        let more: &[&str] = if end == "fail" { &["--reason", "x", "--retries", "0"] } else { &[] };
        qctl_objects(&server, 0, &[&[end, name.as_str()], more].concat());
    }
    qctl_objects(&server, 0, &["enqueue", "mail", "delayed", "--delay", "1h"]);
    let all = ["mail:0", "mail:1", "mail:2", "mail:3", "mail:9"];
    let expected = ["cancelled", "consumed", "cancelled", "cancelled", "no_such_job"];
    assert_eq!(statuses(&server, 1, &all), expected);
    assert_eq!(statuses(&server, 1, &["mail:2"]), ["consumed"]);
    server.kill9();
    server.restart();
    let default = group(&server, "default");
    assert_eq!(default["removed"]["cancelled"], 3);
    let left = ["ready", "delayed", "dead"].map(|name| default[name].as_u64().unwrap());
    assert_eq!((left, &default["committed_offset"]), ([0; 3], &4.into()));
    // A group that is made later sees none of them.
    assert_eq!(qctl_code(&server, &["group", "create", "mail", "audit"]), 0);
    let audit = group(&server, "audit");
    assert_eq!((&audit["ready"], &audit["committed_offset"]), (&0.into(), &4.into()));
}

#[test]
fn the_worker_of_a_cancelled_job_is_told_at_once_and_a_commit_that_comes_first_counts() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), &[]);
    block_on(async {
        let client = client(&server).await;
        let mut cancelled = client.cancelled();
        for payload in ["committed", "failed"] {
            client.enqueue("mail", &Job::new(payload)).await.unwrap();
        }
        let first = fetch(&client, PATIENCE).await.jobs.remove(0).handle;
        let second = fetch(&client, PATIENCE).await.jobs.remove(0).handle;
        let outcomes = client.cancel("mail", &[0, 1]).await.unwrap();
        assert_eq!(outcomes, [CancelOutcome::Requested; 2]);
        for handle in [&first, &second] {
            let told = cancelled.recv().await.unwrap();
            assert_eq!((told.offset, told.token), (handle.offset, handle.token));
        }
        let lease = Duration::from_secs(60);
        let extended = client.extend(std::slice::from_ref(&first), lease).await.unwrap();
        assert_eq!(extended, [Err(ErrorCode::CancelRequested)]);
        assert_eq!(client.commit(&[first]).await.unwrap(), [CommitStatus::Consumed]);
        // Every other end is the end of the job: it is not tried again.
        let failed = client.fail(&[second], &Failure::default()).await.unwrap();
        assert_eq!(failed, [FailStatus::Dead]);
        let group = client.describe_group("mail", "default").await.unwrap();
        assert_eq!((group.committed_offset, group.leased, group.delayed), (2, 0, 0));
        assert_eq!(group.removed.get("cancelled"), Some(&1));
    });
}

#[test]
fn qctl_work_kills_the_command_of_a_cancelled_job() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), &[]);
    qctl_objects(&server, 0, &["enqueue", "mail", "x"]);
    let mut worker = Command::new(env!("CARGO_BIN_EXE_qctl"))
        .env("JOBLOG_SERVER", server.address().to_string())
        .args(["work", "mail", "--until-empty", "--", "sleep", "3600"])
        .stdin(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    until("the job runs", || {
        let groups = qctl_objects(&server, 0, &["group", "list", "mail"]);
        groups.first().is_some_and(|group| group["leased"] == 1)
    });
    assert_eq!(statuses(&server, 0, &["mail:0"]), ["requested"]);
    let said: Vec<_> =
        BufReader::new(worker.stderr.take().unwrap()).lines().map(Result::unwrap).collect();
    assert!(said.iter().any(|line| line.contains("mail:0 was cancelled")), "{said:?}");
    assert!(worker.wait().unwrap().success());
    assert_eq!(group(&server, "default")["removed"]["cancelled"], 1);
}

#[test]
fn a_paused_queue_gives_nothing_until_it_goes_on_and_a_restart_keeps_it_so() {
    let dir = tempfile::tempdir().unwrap();
    let mut server = Server::start(dir.path(), &[]);
    qctl_objects(&server, 0, &["enqueue", "mail", "one"]);
    assert_eq!(qctl_code(&server, &["queue", "pause", "mail"]), 0);
    server.kill9();
    server.restart();
    assert!(qctl_objects(&server, 1, &["fetch", "mail"]).is_empty());
    assert_eq!(qctl_objects(&server, 0, &["queue", "show", "mail"])[0]["paused"], true);
    // One that waits is served as soon as the queue goes on.
    block_on(async {
        let client = client(&server).await;
        let (fetched, ()) = tokio::join!(fetch(&client, PATIENCE), async {
            client.ping().await.unwrap();
            client.resume("mail", None).await.unwrap();
        });
        assert_eq!(fetched.jobs[0].job, Job::new("one"));
        client.commit(&[fetched.jobs[0].handle.clone()]).await.unwrap();
        // A pause of one group is not one of the others.
        client.enqueue("mail", &Job::new("two")).await.unwrap();
        client.pause("mail", Some("default")).await.unwrap();
        assert!(fetch(&client, Duration::ZERO).await.jobs.is_empty());
    });
    assert_eq!(group(&server, "default")["paused"], true);
    assert_eq!(qctl_code(&server, &["group", "create", "mail", "audit"]), 0);
    let audit = qctl_objects(&server, 0, &["fetch", "mail", "--group", "audit"]);
    assert_eq!(audit[0]["payload"], "two");
    assert_eq!(qctl_code(&server, &["queue", "resume", "mail", "--group", "default"]), 0);
    assert_eq!(qctl_objects(&server, 0, &["fetch", "mail"])[0]["payload"], "two");
}

#[test]
fn a_purge_takes_all_but_what_is_being_worked_on() {
    const JOBS: usize = 40_000;
    let dir = tempfile::tempdir().unwrap();
    let mut server = Server::start(dir.path(), &[]);
    let list = dir.path().join("lines");
    std::fs::write(&list, "x\n".repeat(JOBS)).unwrap();
    qctl_objects(&server, 0, &["enqueue", "mail", "--lines", list.to_str().unwrap()]);
    let leased = qctl_objects(&server, 0, &["fetch", "mail", "--lease", "1h"]).remove(0);
    qctl_objects(&server, 2, &["queue", "purge", "mail"]);
    let purged = qctl_objects(&server, 0, &["queue", "purge", "mail", "--yes"]).remove(0);
    assert_eq!((&purged["purged"], &purged["leased"]), (&(JOBS - 1).into(), &1.into()));
    server.kill9();
    server.restart();
    let left = group(&server, "default");
    assert_eq!((&left["ready"], &left["leased"]), (&0.into(), &1.into()));
    assert_eq!(left["removed"]["purged"], JOBS - 1);
    let name = format!("mail:0@{}", leased["token"].as_str().unwrap());
    qctl_objects(&server, 0, &["commit", &name]);
    assert_eq!(group(&server, "default")["committed_offset"], JOBS);
}

#[test]
fn a_client_that_drains_gets_nothing_more_and_loses_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), &[]);
    block_on(async {
        let (draining, other) = (client(&server).await, client(&server).await);
        draining.enqueue("mail", &Job::new("held")).await.unwrap();
        let held = fetch(&draining, PATIENCE).await.jobs.remove(0).handle;
        // The one that waits is answered at once.
        let (waited, ()) = tokio::join!(fetch(&draining, 10 * PATIENCE), async {
            draining.ping().await.unwrap();
            draining.drain().await.unwrap();
        });
        assert!(waited.jobs.is_empty());
        other.enqueue("mail", &Job::new("other")).await.unwrap();
        // A later one is, too; its commits are done all the same.
        let request = FetchRequest { wait: PATIENCE, ..FetchRequest::new(["mail"]) };
        let (carried, fetched) = draining.fetch_carrying(&request, &[held]).await.unwrap();
        assert_eq!(carried.statuses().await.unwrap(), [CommitStatus::Consumed]);
        assert!(fetched.fetched().await.unwrap().jobs.is_empty());
        assert_eq!(fetch(&other, PATIENCE).await.jobs[0].job, Job::new("other"));
    });
}
