//! A log whose disk has failed: whoever waits is told, and the server rests.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use joblog_protocol::messages::fetch::LeaseKind;
use joblog_protocol::messages::wait::Wait;
use joblog_protocol::{ErrorCode, Opcode};

use crate::common::{Raw, Server, of_default};

/// Longer than it takes to have the log fail.
const DELAY: Duration = Duration::from_secs(4);

/// From here on each `fdatasync` of a running server fails, until this is dropped.
struct FailingSyncs(Child);

impl FailingSyncs {
    fn of(server: &Server) -> Self {
        let mut strace = Command::new("strace")
            .args(["-f", "-o", "/dev/null", "-e", "trace=fdatasync"])
            .args(["-e", "inject=fdatasync:error=EIO", "-p", &server.id().to_string()])
            .stderr(Stdio::piped())
            .spawn()
            .expect("strace is installed");
        let mut said = BufReader::new(strace.stderr.take().unwrap());
        let mut line = String::new();
        said.read_line(&mut line).unwrap();
        assert!(line.contains("attached"), "{line}");
        // What it says later must find a reader.
        thread::spawn(move || std::io::copy(&mut said, &mut std::io::sink()));
        Self(strace)
    }
}

impl Drop for FailingSyncs {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// The time that a thread of the server has spent on a processor, to a hundredth of a second.
fn busy(server: &Server, thread: &str) -> Duration {
    let tasks = std::fs::read_dir(format!("/proc/{}/task", server.id())).unwrap();
    for task in tasks.map(|task| task.unwrap().path()) {
        if std::fs::read_to_string(task.join("comm")).unwrap().trim() == thread {
            let stat = std::fs::read_to_string(task.join("stat")).unwrap();
            // The fields behind the name: user and system time are the 12th and 13th of them.
            let fields: Vec<_> = stat.rsplit(") ").next().unwrap().split(' ').collect();
            let ticks = |field: &str| field.parse::<u64>().unwrap();
            return Duration::from_millis(10 * (ticks(fields[11]) + ticks(fields[12])));
        }
    }
    panic!("no thread {thread:?}");
}

#[test]
fn whoever_waits_on_a_log_that_fails_is_told_and_nothing_spins() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), &[]);
    let mut other = Raw::greeted(server.address());
    // A wait that is over soon, and then is due for as long as nobody ends it.
    other.enqueue("orders", &["waited for"]).unwrap();
    let mut waiting = Raw::greeted(server.address());
    let lease = LeaseKind::Session { run_ms_max: None };
    let fetch = waiting.request_fetch(&["mail"], 1, 60_000, lease, &[]).unwrap();
    let mut wait = bytes::BytesMut::new();
    Wait { queue: "orders", offset: 0, wait_ms: 60_000 }.encode(&mut wait);
    let wait = waiting.request(Opcode::Wait, &wait).unwrap();
    waiting.assert_open();

    let failing = FailingSyncs::of(&server);
    let refused = other.enqueue("orders", &["one more"]).unwrap_err().to_string();
    assert!(refused.contains("OUTCOME_UNKNOWN"), "{refused}");
    for correlation in [fetch, wait] {
        let told = waiting.reply_to(correlation).unwrap();
        assert_eq!(told.code(), Some(ErrorCode::LogPoisoned), "{}", told.text());
    }
    drop(failing);
    // Requests are answered, and none waits: not even the one that would be due at once.
    waiting.assert_open();
    for (queue, wait_ms) in [("mail", 1), ("orders", 60_000)] {
        let fetch = waiting.request_fetch(&[queue], 1, wait_ms, lease, &[]).unwrap();
        let told = waiting.reply_to(fetch).unwrap();
        assert_eq!(told.code(), Some(ErrorCode::LogPoisoned), "{}", told.text());
    }
}

#[test]
fn the_timer_of_a_failed_log_rests() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), &[]);
    let mut raw = Raw::greeted(server.address());
    raw.enqueue("mail", &["soon"]).unwrap();
    let job = raw.fetch(&["mail"], 1, 0).unwrap().remove(0);
    // Due when the log has failed, and for ever then.
    raw.release(of_default("mail", [job.handle()]), DELAY.as_millis() as u64).unwrap();
    let released = Instant::now();
    let failing = FailingSyncs::of(&server);
    raw.enqueue("mail", &["fails"]).unwrap_err();
    drop(failing);
    assert!(released.elapsed() < DELAY, "the log failed too late for this test");
    thread::sleep(DELAY);
    let (before, start) = (busy(&server, "joblog-timer"), Instant::now());
    thread::sleep(Duration::from_secs(1));
    let (spent, passed) = (busy(&server, "joblog-timer") - before, start.elapsed());
    // It looks ten times a second. Without a rest it takes what a busy machine leaves to it.
    assert!(spent < passed / 20, "{spent:?} of {passed:?} on a processor, with nothing to do");
}
