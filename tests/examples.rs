//! The examples, run as a reader would run them, against a real server.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test may stop at what it did not expect"
)]

mod common;

use std::env;
use std::io::{BufRead, BufReader, Read};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::LazyLock;
use std::time::Duration;

use common::{PATIENCE, Server, until};
use joblog::client::{Client, FetchRequest, GroupDescription, Job, Options};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

/// The folder of the examples, which are built once.
static EXAMPLES: LazyLock<PathBuf> = LazyLock::new(|| {
    // This test is `target/debug/deps/examples-...`.
    let target = env::current_exe().unwrap().ancestors().nth(3).unwrap().to_owned();
    let built = Command::new(env!("CARGO"))
        .args(["build", "--quiet", "--locked", "--workspace", "--examples", "--target-dir"])
        .arg(&target)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .status();
    assert!(built.unwrap().success());
    target.join("debug/examples")
});

fn start(example: &str, server: &Server, arguments: &[&str]) -> Running {
    let child = Command::new(EXAMPLES.join(example))
        .args(arguments)
        .env("JOBLOG_ADDRESS", server.address().to_string())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn();
    Running(child.unwrap())
}

/// An example that runs. It is killed when this is dropped.
struct Running(Child);

impl Running {
    /// Waits for its end, and returns what it has said.
    fn output(mut self) -> String {
        let mut said = String::new();
        self.0.stdout.take().unwrap().read_to_string(&mut said).unwrap();
        assert!(self.0.wait().unwrap().success(), "{said}");
        said
    }

    fn stop(self) -> String {
        kill_process(Pid::from_child(&self.0), Signal::TERM).unwrap();
        self.output()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

fn server() -> (Server, TempDir) {
    let data = TempDir::new().unwrap();
    (Server::start(data.path(), &[]), data)
}

fn with_client<T>(server: &Server, call: impl AsyncFnOnce(Client) -> T) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let address = server.address().to_string();
        let client = Client::connect(address, Options::default()).await.unwrap();
        tokio::time::timeout(PATIENCE, call(client)).await.unwrap()
    })
}

/// Waits until the group `default` of a queue is so.
fn until_group(server: &Server, queue: &str, is_so: impl Fn(&GroupDescription) -> bool) {
    with_client(server, async |client| {
        while !client.describe_group(queue, "default").await.is_ok_and(|group| is_so(&group)) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    });
}

#[test]
fn what_the_producer_enqueues_the_worker_does_and_the_stream_takes() {
    let (server, _data) = server();
    let said = start("producer", &server, &["emails", "200"]).output();
    assert!(said.starts_with("200 jobs in emails") && said.contains("Some(199)"), "{said}");
    let said = start("stream_consumer", &server, &["emails", "10"]).output();
    assert_eq!(said.lines().count(), 10, "{said}");
    until_group(&server, "emails", |group| group.committed_offset == 10 && group.leased == 0);
    let worker = start("worker", &server, &["emails"]);
    until_group(&server, "emails", |group| group.committed_offset == 200);
    let said = worker.stop();
    assert!(said.ends_with("190 done, 0 failed, 0 handed back\n"), "{said}");
    assert!(said.contains("\n199: user 199, attempt 1\n"), "{said}");
}

#[test]
fn typed_jobs_find_their_handlers() {
    let (server, _data) = server();
    let worker = start("typed_worker", &server, &[]);
    until_group(&server, "typed", |group| group.dead == 2 && group.consumed_above == 1);
    let said = worker.stop();
    for line in ["welcome, ada\n", "307200 pixels\n", "2 done, 2 failed\n"] {
        assert!(said.contains(line), "{said}");
    }
}

#[test]
fn the_pipeline_ends_with_its_sum() {
    let (server, _data) = server();
    let said = start("pipeline", &server, &["three", "words", "here"]).output();
    assert_eq!(said, "3 words, 3 lengths, 14 letters\n");
}

/// The example says that it gives its jobs back after 5 s of silence.
#[test]
fn a_worker_that_is_killed_gives_its_jobs_back_within_its_silence() {
    let (server, _data) = server();
    with_client(&server, async |client| {
        client.enqueue("q", &Job::new("sleep 3600000")).await.unwrap();
    });
    let mut worker = start("worker", &server, &["q"]);
    let mut begun = String::new();
    BufReader::new(worker.0.stdout.take().unwrap()).read_line(&mut begun).unwrap();
    assert_eq!(begun, "0: sleep 3600000, attempt 1\n");
    drop(worker);
    with_client(&server, async |client| {
        // The lease itself would go on for 10 min and more.
        let request = FetchRequest { wait: PATIENCE, ..FetchRequest::new(["q"]) };
        let jobs = client.fetch(&request).await.unwrap().jobs;
        assert_eq!((jobs[0].handle.offset, jobs[0].attempt), (0, 2));
    });
}

#[test]
fn a_worker_that_is_stopped_hands_back_at_once_what_it_can_not_finish() {
    let (server, _data) = server();
    with_client(&server, async |client| {
        client.enqueue("q", &Job::new("sleep 3600000")).await.unwrap();
    });
    let mut worker = start("worker", &server, &["q"]);
    let mut out = BufReader::new(worker.0.stdout.take().unwrap());
    let mut said = String::new();
    out.read_line(&mut said).unwrap();
    let worker_id = Pid::from_child(&worker.0);
    kill_process(worker_id, Signal::TERM).unwrap();
    // The second signal ends the time to drain.
    until("it has left", || {
        kill_process(worker_id, Signal::TERM).ok();
        worker.0.try_wait().unwrap().is_some_and(|status| status.success())
    });
    out.read_to_string(&mut said).unwrap();
    assert!(said.ends_with("0 done, 0 failed, 1 handed back\n"), "{said}");
    until_group(&server, "q", |group| group.leased == 0);
}
