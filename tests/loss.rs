//! Nothing is lost and nothing runs twice in silence: connections cut while jobs travel, workers
//! and servers killed, servers stopped, leases that ran out.
//!
//! The workers here speak the protocol by themselves, from threads: what holds for them holds for
//! a client in any language.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test may stop at what it did not expect"
)]

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use common::{
    Cut, CuttingProxy, Frame, Job, PATIENCE, Raw, Server, all_done, fetch_of, hello_of,
    new_session, of_default, only,
};
use joblog_protocol::frame::{Header, Peek, put_request};
use joblog_protocol::limits::FETCH_JOBS_MAX;
use joblog_protocol::messages::fetch::{Fetch, LeaseKind, Read as ReadRequest, ReadReply};
use joblog_protocol::messages::handles::HandleSet;
use joblog_protocol::messages::session::Hello;
use joblog_protocol::{ErrorCode, Opcode, Token};
use tempfile::TempDir;

const SESSION_LEASE: LeaseKind = LeaseKind::Session { run_ms_max: None };

fn server(arguments: &[&str]) -> (Server, TempDir) {
    let dir = TempDir::new().unwrap();
    let server = Server::start(dir.path(), arguments);
    (server, dir)
}

/// How long a FETCH waits for a job that must come.
const WAIT_MS: u32 = 60_000;

/// Tells threads to end, also when a test ends by a panic.
struct SetOnDrop<'a>(&'a AtomicBool);

impl Drop for SetOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// A job by its queue's place in the list of queues, and its offset.
type JobId = (u8, u64);

/// What workers have seen, to be compared with what is promised.
#[derive(Debug, Default)]
struct Ledger {
    /// The attempts under which each job was delivered, in the order of their arrival.
    attempts: BTreeMap<JobId, Vec<u32>>,
    /// Jobs of which a COMMIT was answered.
    consumed: BTreeSet<JobId>,
}

impl Ledger {
    fn delivered(&mut self, job: &Job) {
        let id = (job.queue_ordinal, job.offset);
        assert!(!self.consumed.contains(&id), "{id:?} is consumed and came again");
        let attempts = self.attempts.entry(id).or_default();
        let before = attempts.last().copied().unwrap_or(0);
        assert!(job.attempt > before, "{id:?}: attempt {} behind {before}", job.attempt);
        attempts.push(job.attempt);
    }

    fn answered(&mut self, id: JobId, status: Option<ErrorCode>) {
        match status {
            None | Some(ErrorCode::AlreadyConsumed) => drop(self.consumed.insert(id)),
            Some(ErrorCode::LeaseLost) => {}
            Some(other) => panic!("{id:?}: {other}"),
        }
    }
}

/// What a worker does about a connection that breaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum AfterBreak {
    /// It greets again with its session and the tokens that it holds.
    Resume,
    /// It forgets what it had and begins a new session.
    Renew,
}

/// One worker: it fetches one job at a time, and commits it with its next FETCH.
struct Worker<'a> {
    address: SocketAddr,
    queues: &'a [&'a str],
    silence_ms: u32,
    after_break: AfterBreak,
    ledger: &'a Mutex<Ledger>,
    session: [u8; 16],
    /// The job whose COMMIT has not been answered yet.
    held: Option<Job>,
}

impl<'a> Worker<'a> {
    fn new(
        address: SocketAddr,
        queues: &'a [&'a str],
        after_break: AfterBreak,
        ledger: &'a Mutex<Ledger>,
    ) -> Self {
        // A worker that resumes needs no short silence; one that begins anew is waited for.
        let silence_ms = if after_break == AfterBreak::Renew { 2000 } else { 0 };
        let session = new_session();
        Self { address, queues, silence_ms, after_break, ledger, session, held: None }
    }

    /// Works until it is told to end; gives up a connection only when it breaks.
    fn work(&mut self, is_over: &dyn Fn() -> bool) -> io::Result<()> {
        let mut raw = Raw::connect(self.address)?;
        let held: Vec<Token> = self.held.iter().map(|job| job.token).collect();
        raw.hello(self.session, self.silence_ms, &held)?;
        while !is_over() {
            self.turn(&mut raw)?;
        }
        Ok(())
    }

    fn turn(&mut self, raw: &mut Raw) -> io::Result<()> {
        let commits: Vec<HandleSet<'_>> = self
            .held
            .iter()
            .map(|job| of_default(self.queues[usize::from(job.queue_ordinal)], [job.handle()]))
            .collect();
        let fetch = raw.request_fetch(self.queues, 1, 200, SESSION_LEASE, &commits)?;
        if let Some(job) = &self.held {
            let reply = raw.reply_to(fetch)?;
            if reply.code() == Some(ErrorCode::ShuttingDown) {
                return Err(io::ErrorKind::ConnectionAborted.into());
            }
            assert!(reply.more(), "the commit is answered first: {reply:?}");
            let status = reply.statuses()[0];
            self.ledger.lock().unwrap().answered((job.queue_ordinal, job.offset), status);
            self.held = None;
        }
        let mut jobs = raw.reply_to(fetch)?.jobs();
        if let Some(job) = jobs.pop() {
            self.ledger.lock().unwrap().delivered(&job);
            self.held = Some(job);
        }
        Ok(())
    }

    /// What the worker does when its connection broke.
    fn recover(&mut self) {
        if self.after_break == AfterBreak::Renew {
            self.session = new_session();
            self.held = None;
        }
    }
}

/// Two queues of 500 jobs each, behind a proxy that cuts every twentieth reply with jobs.
fn work_through_cuts(after_break: AfterBreak, cut: Cut) {
    const JOBS: usize = 1000;
    let (server, _dir) = server(&[]);
    let queues = ["left", "right"];
    let mut raw = Raw::greeted(server.address());
    for queue in queues {
        // Redelivery after a second crash waits; the default of 5 s only makes the test longer.
        let settings = r#""settings":{"crash_backoff_first_ms":50,"crashes_max":50}"#;
        let body = format!("{{\"queue\":\"{queue}\",{settings}}}");
        assert_eq!(raw.ask_json(Opcode::CreateQueue, &body).unwrap().code(), None);
        let payloads: Vec<String> = (0..JOBS / 2).map(|n| format!("{queue} {n}")).collect();
        raw.enqueue(queue, &payloads).unwrap();
    }
    let proxy = CuttingProxy::start(server.address(), 5, cut, 0xc07);
    let ledger = Mutex::new(Ledger::default());
    let begun = Instant::now();
    let is_over = || {
        assert!(begun.elapsed() < PATIENCE, "jobs are stuck: {:?}", missing(&ledger, JOBS));
        ledger.lock().unwrap().consumed.len() == JOBS
    };
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let mut worker = Worker::new(proxy.address(), &queues, after_break, &ledger);
                while worker.work(&is_over).is_err() {
                    worker.recover();
                }
            });
        }
    });
    let ledger = ledger.into_inner().unwrap();
    assert!(proxy.cuts() >= 20, "only {} of {} were cut", proxy.cuts(), JOBS);
    assert_eq!(ledger.attempts.len(), JOBS, "every job was delivered");
    // A job that was cut came with the attempt behind, and no worker saw any job twice.
    assert!(ledger.attempts.values().all(|attempts| attempts.len() == 1));
    let attempts: usize = ledger.attempts.values().map(|attempts| attempts[0] as usize).sum();
    assert_eq!(attempts, JOBS + proxy.cuts(), "each cut costs one attempt and no more");
    for queue in queues {
        assert_eq!(raw.count(queue, "committed_offset"), JOBS as u64 / 2);
        for count in ["ready", "leased", "delayed", "dead", "consumed_above"] {
            assert_eq!(raw.count(queue, count), 0, "{count} of {queue}");
        }
    }
}

fn missing(ledger: &Mutex<Ledger>, count: usize) -> String {
    let ledger = ledger.lock().unwrap();
    let seen = ledger.attempts.keys().filter(|id| !ledger.consumed.contains(id));
    let (consumed, seen) = (ledger.consumed.len(), seen.collect::<Vec<_>>());
    format!("{consumed} of {count} are consumed; delivered and not committed: {seen:?}")
}

#[test]
fn replies_cut_before_their_first_byte_lose_nothing_to_workers_that_resume() {
    work_through_cuts(AfterBreak::Resume, Cut::Before);
}

#[test]
fn replies_cut_in_half_lose_nothing_to_workers_that_resume() {
    work_through_cuts(AfterBreak::Resume, Cut::Half);
}

#[test]
fn replies_cut_before_their_first_byte_lose_nothing_to_workers_that_begin_anew() {
    work_through_cuts(AfterBreak::Renew, Cut::Before);
}

#[test]
fn replies_cut_in_half_lose_nothing_to_workers_that_begin_anew() {
    work_through_cuts(AfterBreak::Renew, Cut::Half);
}

// A worker is killed

fn hello_and_fetch(queue: &str, jobs_max: u32) -> Vec<u8> {
    let hello = Hello { silence_ms: 1000, ..hello_of(new_session()) };
    let fetch = Fetch { jobs_max, ..fetch_of(&[queue]) };
    let mut out = bytes::BytesMut::new();
    put_request(&mut out, Opcode::Hello, 1, |out| hello.encode(out));
    put_request(&mut out, Opcode::Fetch, 2, |out| fetch.encode(out));
    out.to_vec()
}

/// Reads frames until one has this correlation id.
fn reply_from(mut from: impl Read, correlation: u64) -> Frame {
    let (mut input, mut buffer) = (Vec::new(), [0; 4096]);
    loop {
        while let Peek::Whole(header) = Header::peek(&input) {
            let bytes: Vec<u8> = input.drain(..4 + header.length as usize).collect();
            if header.correlation == correlation {
                return Frame { header, body: bytes[16..].to_vec() };
            }
        }
        let count = from.read(&mut buffer).unwrap();
        assert_ne!(count, 0, "it ended before its reply");
        input.extend_from_slice(&buffer[..count]);
    }
}

#[test]
fn jobs_of_a_killed_worker_go_to_another_within_the_grace_time() {
    let (server, _dir) = server(&[]);
    let mut other = Raw::greeted(server.address());
    other.enqueue("q", &["a", "b", "c"]).unwrap();
    // A process of its own that holds a connection: bash opens it, and cat shows what comes.
    let address = server.address();
    let mut worker = Command::new("bash")
        .arg("-c")
        .arg(format!("exec 3<>/dev/tcp/{}/{}; cat >&3; exec cat <&3", address.ip(), address.port()))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = worker.stdin.take().unwrap();
    input.write_all(&hello_and_fetch("q", 2)).unwrap();
    drop(input);
    let held = reply_from(worker.stdout.take().unwrap(), 2).jobs();
    assert_eq!(held.len(), 2, "it holds two jobs");
    assert_eq!(other.count("q", "leased"), 2);
    worker.kill().unwrap();
    worker.wait().unwrap();

    let begun = Instant::now();
    let mut got = BTreeMap::new();
    while got.len() < 3 {
        for job in other.fetch(&["q"], 10, 1000).unwrap() {
            got.insert(job.offset, job.attempt);
        }
        assert!(begun.elapsed() < PATIENCE, "only {got:?} came");
    }
    let expected: BTreeMap<u64, u32> =
        (0..3).map(|n| (n, if held.iter().any(|job| job.offset == n) { 2 } else { 1 })).collect();
    assert_eq!(got, expected);
}

// The server is killed

/// Whether the server is up, for all who need it.
struct Outage {
    up: Mutex<bool>,
    changed: Condvar,
}

impl Outage {
    fn new() -> Self {
        Self { up: Mutex::new(true), changed: Condvar::new() }
    }

    fn set(&self, up: bool) {
        *self.up.lock().unwrap() = up;
        self.changed.notify_all();
    }

    fn wait_until_up(&self) {
        let up = self.up.lock().unwrap();
        let (up, _) = self.changed.wait_timeout_while(up, PATIENCE, |up| !*up).unwrap();
        assert!(*up, "the server did not come back");
    }
}

/// What producers were told: the payload at each offset of the one queue.
type Acknowledged = Mutex<BTreeMap<u64, String>>;

fn produce(
    address: SocketAddr,
    name: &str,
    acknowledged: &Acknowledged,
    outage: &Outage,
    is_over: &dyn Fn() -> bool,
) {
    let session = new_session();
    let mut number = 0;
    let mut send = |raw: &mut Raw| -> io::Result<()> {
        let payloads: Vec<String> = (0..5).map(|n| format!("{name} {number} {n}")).collect();
        number += 1;
        let first = raw.enqueue("q", &payloads)?;
        acknowledged.lock().unwrap().extend((first..).zip(payloads));
        Ok(())
    };
    while !is_over() {
        outage.wait_until_up();
        let Ok(mut raw) = Raw::connect(address) else { continue };
        if raw.hello(session, 0, &[]).is_ok() {
            while !is_over() && send(&mut raw).is_ok() {}
        }
    }
}

/// All jobs of the queue, by offset.
fn read_all(raw: &mut Raw) -> BTreeMap<u64, String> {
    let (mut all, mut from) = (BTreeMap::new(), 0);
    loop {
        let read = ReadRequest {
            queue: "q",
            from,
            jobs_max: 10_000,
            bytes_max: u32::MAX,
            unconsumed_by: None,
        };
        let reply = raw.ask_with(Opcode::Read, |out| read.encode(out)).unwrap();
        assert_eq!(reply.code(), None);
        let reply = ReadReply::decode(&reply.body).unwrap();
        for job in &reply.jobs {
            let payload = joblog_protocol::Job::from_body(job.body).unwrap().payload;
            all.insert(job.offset, String::from_utf8(payload).unwrap());
        }
        from = reply.next;
        if from == reply.end {
            return all;
        }
    }
}

/// A worker that holds one job and nothing else, through everything.
struct Patient {
    session: [u8; 16],
    job: Job,
}

impl Patient {
    /// Between two kills others may need their time.
    const SILENCE_MS: u32 = 600_000;

    fn begin(address: SocketAddr) -> Self {
        let session = new_session();
        let mut raw = Raw::connect(address).unwrap();
        raw.hello(session, Self::SILENCE_MS, &[]).unwrap();
        raw.enqueue("patient", &["one"]).unwrap();
        let job = raw.fetch(&["patient"], 1, 0).unwrap().remove(0);
        Self { session, job }
    }

    /// Comes back after a restart.
    fn come_back(&self, address: SocketAddr) -> Raw {
        let mut raw = Raw::connect(address).unwrap();
        let kept = raw.hello(self.session, Self::SILENCE_MS, &[self.job.token]).unwrap();
        assert_eq!(kept, (1, 0), "the lease has lived through the restart");
        raw
    }
}

fn kill_the_server_under_load(durability: &str, kills: usize) {
    let (mut server, _dir) = server(&["--durability", durability]);
    let address = server.address();
    let (ledger, acknowledged) = (Mutex::new(Ledger::default()), Acknowledged::default());
    // What is consumed is kept, so that all jobs can be looked at in the end.
    let kept = r#"{"queue":"q","settings":{"keep_consumed_for_ms":31536000000}}"#;
    let created = Raw::greeted(address).ask_json(Opcode::CreateQueue, kept).unwrap();
    assert_eq!(created.code(), None);
    let (outage, over) = (Outage::new(), AtomicBool::new(false));
    let (produced_all, carried_over) = (AtomicBool::new(false), AtomicUsize::new(0));
    let patient = Patient::begin(address);
    let consumed = || ledger.lock().unwrap().consumed.len();
    thread::scope(|scope| {
        let _ends = (SetOnDrop(&produced_all), SetOnDrop(&over));
        for name in ["p1", "p2"] {
            let (acknowledged, outage) = (&acknowledged, &outage);
            let is_over = || produced_all.load(Ordering::Relaxed);
            scope.spawn(move || produce(address, name, acknowledged, outage, &is_over));
        }
        for _ in 0..4 {
            scope.spawn(|| {
                let resume = AfterBreak::Resume;
                let mut worker = Worker::new(address, &["q"], resume, &ledger);
                while worker.work(&|| over.load(Ordering::Relaxed)).is_err() {
                    carried_over.fetch_add(usize::from(worker.held.is_some()), Ordering::Relaxed);
                    outage.wait_until_up();
                }
            });
        }
        for _ in 0..kills {
            let before = consumed();
            await_that("work goes on", || consumed() >= before + 20);
            outage.set(false);
            server.kill9();
            server.restart();
            drop(patient.come_back(address));
            outage.set(true);
        }
        produced_all.store(true, Ordering::Relaxed);
        let mut raw = Raw::greeted(address);
        await_that("the queue is worked off", || {
            let left = ["ready", "leased", "delayed"].map(|name| raw.count("q", name));
            left == [0; 3]
        });
        over.store(true, Ordering::Relaxed);
    });
    assert!(carried_over.into_inner() > 0, "no worker held a job when the server was killed");
    check_after_kills(address, &patient, &ledger.into_inner().unwrap(), acknowledged);
}

fn check_after_kills(
    address: SocketAddr,
    patient: &Patient,
    ledger: &Ledger,
    acknowledged: Acknowledged,
) {
    let mut raw = patient.come_back(address);
    let committed = raw.commit(of_default("patient", [patient.job.handle()])).unwrap();
    assert_eq!(committed, only(None), "it commits with the token that it had");
    let (stored, acknowledged) = (read_all(&mut raw), acknowledged.into_inner().unwrap());
    assert!(acknowledged.len() > 100, "only {} jobs were produced", acknowledged.len());
    for (offset, payload) in &acknowledged {
        assert_eq!(stored.get(offset), Some(payload), "job {offset} is not there");
    }
    let payloads: BTreeSet<&String> = stored.values().collect();
    assert_eq!(payloads.len(), stored.len(), "no batch is there twice");
    let last = stored.keys().next_back().copied();
    assert!(Some(raw.count("q", "committed_offset")) > last, "all are consumed");
    assert_eq!(raw.count("q", "consumed_above"), 0);
    assert_eq!(raw.count("q", "dead"), 0);
    let offsets: Vec<u64> = ledger.attempts.keys().map(|(_, offset)| *offset).collect();
    assert_eq!(offsets, stored.keys().copied().collect::<Vec<_>>(), "each job reached a worker");
}

/// Waits until it is so, which others bring about.
fn await_that(what: &str, mut is_so: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < PATIENCE, "not within {PATIENCE:?}: {what}");
        thread::sleep(Duration::from_millis(2));
    }
}

#[test]
fn a_server_killed_twenty_times_keeps_what_it_has_answered() {
    kill_the_server_under_load("fsync", 20);
}

/// What is written to the system survives the death of the process, if not of the machine.
#[test]
fn a_server_killed_below_fsync_keeps_what_it_has_answered() {
    kill_the_server_under_load("os", 10);
    kill_the_server_under_load("interval:50", 5);
}

#[test]
fn a_restart_gives_a_silent_session_its_full_time() {
    let (mut server, _dir) = server(&[]);
    let patient = Patient::begin(server.address());
    server.kill9();
    server.restart();
    // The silence limit is 10 s: a lease of 2 s that runs out meanwhile must not end it.
    let mut other = Raw::greeted(server.address());
    other.enqueue("q", &["marker"]).unwrap();
    let marker = other.fetch_timed("q", 1, 2000).unwrap().remove(0);
    let again = other.fetch(&["q"], 1, WAIT_MS).unwrap().remove(0);
    assert_eq!(again.offset, marker.offset);
    let mut raw = patient.come_back(server.address());
    let committed = raw.commit(of_default("patient", [patient.job.handle()])).unwrap();
    assert_eq!(committed, only(None));
}

// The server is stopped

/// Sends a PING every 300 ms from a thread of its own, whatever its session does, as a client
/// should. Its replies are kept by the reader and looked at by nobody.
fn beat(mut stream: TcpStream, over: &AtomicBool) {
    let mut out = bytes::BytesMut::new();
    put_request(&mut out, Opcode::Ping, u64::MAX, |_| {});
    while !over.load(Ordering::Relaxed) {
        stream.write_all(&out).unwrap();
        thread::sleep(Duration::from_millis(300));
    }
}

#[test]
fn a_server_stopped_for_thirty_seconds_gives_no_job_out_twice() {
    const STOP: Duration = Duration::from_secs(30);
    let (server, _dir) = server(&[]);
    let address = server.address();
    let (ledger, over) = (Mutex::new(Ledger::default()), AtomicBool::new(false));
    // Far shorter than the stop: a server that took it for silence would end everything.
    let silence_ms = 4000;
    let mut holder = Raw::connect(address).unwrap();
    holder.hello(new_session(), silence_ms, &[]).unwrap();
    holder.enqueue("held", &["session", "timed"]).unwrap();
    let long = holder.fetch(&["held"], 1, 0).unwrap().remove(0);
    let timed = holder.fetch_timed("held", 1, 20_000).unwrap().remove(0);
    thread::scope(|scope| {
        let _end = SetOnDrop(&over);
        let (beats_on, over) = (holder.second_handle(), &over);
        scope.spawn(|| beat(beats_on, over));
        for _ in 0..4 {
            scope.spawn(|| {
                let mut worker = Worker::new(address, &["q"], AfterBreak::Renew, &ledger);
                worker.silence_ms = silence_ms;
                worker.work(&|| over.load(Ordering::Relaxed)).expect("no connection breaks");
            });
        }
        let mut raw = Raw::greeted(address);
        let delivered = || ledger.lock().unwrap().attempts.len();
        for _ in 0..10 {
            raw.enqueue("q", &vec!["x"; 50]).unwrap();
        }
        await_that("work has begun", || delivered() > 10);
        server.pause();
        thread::sleep(STOP);
        server.resume();
        raw.enqueue("q", &vec!["y"; 50]).unwrap();
        await_that("all is done", || ledger.lock().unwrap().consumed.len() == 550);
        over.store(true, Ordering::Relaxed);
    });
    let attempts = ledger.into_inner().unwrap().attempts;
    let twice: Vec<_> = attempts.iter().filter(|(_, attempts)| **attempts != [1]).collect();
    assert!(twice.is_empty(), "delivered more than once: {twice:?}");
    let both = of_default("held", [long.handle(), timed.handle()]);
    assert!(all_done(&holder.commit(both).unwrap()), "leases do not run while the server stands");
}

// Commits in any order

#[test]
fn one_job_left_behind_a_million_is_all_that_is_replayed() {
    const ABOVE: u64 = 1_000_000;
    const BATCH: usize = 50_000;
    let (mut server, _dir) = server(&["--durability", "os"]);
    let session = new_session();
    let mut raw = Raw::connect(server.address()).unwrap();
    raw.hello(session, 0, &[]).unwrap();
    raw.enqueue("q", &["never committed"]).unwrap();
    for _ in 0..ABOVE / BATCH as u64 {
        raw.enqueue("q", &vec![""; BATCH]).unwrap();
    }
    let left = raw.fetch(&["q"], 1, 0).unwrap().remove(0);
    assert_eq!(left.offset, 0);
    let mut committed = 0;
    while committed < ABOVE {
        let jobs = raw.fetch(&["q"], FETCH_JOBS_MAX as u32, 0).unwrap();
        assert!(!jobs.is_empty());
        committed += jobs.len() as u64;
        let statuses = raw.commit(of_default("q", jobs.iter().map(Job::handle))).unwrap();
        assert!(all_done(&statuses));
    }
    server.kill9();
    server.restart();
    let mut raw = Raw::connect(server.address()).unwrap();
    assert_eq!(raw.hello(session, 0, &[]).unwrap(), (0, 1), "one lease was left");
    assert_eq!(raw.count("q", "committed_offset"), 0);
    assert_eq!(raw.count("q", "consumed_above"), ABOVE);
    let again = raw.fetch(&["q"], FETCH_JOBS_MAX as u32, 500).unwrap();
    assert_eq!(again.iter().map(|job| (job.offset, job.attempt)).collect::<Vec<_>>(), [(0, 2)]);
    assert_eq!(raw.commit(of_default("q", [again[0].handle()])).unwrap(), only(None));
    assert!(raw.count("q", "committed_offset") > ABOVE);
    assert_eq!(raw.count("q", "consumed_above"), 0);
    assert_eq!(raw.count("q", "consumed_above"), 0);
}

// Leases that have ended

/// The job went from the first worker to the second: what the first still says is refused.
fn assert_lost(first: &mut Raw, second: &mut Raw, lost: &Job) {
    let again = second.fetch(&["q"], 1, WAIT_MS).unwrap().remove(0);
    assert_eq!((again.offset, again.attempt), (lost.offset, lost.attempt + 1));
    assert_ne!(again.token, lost.token);
    let mine = || of_default("q", [lost.handle()]);
    let refused = only(Some(ErrorCode::LeaseLost));
    assert_eq!(first.commit(mine()).unwrap(), refused);
    assert_eq!(first.release(mine(), 0).unwrap(), refused);
    assert_eq!(format!("{:?}", first.fail(mine(), "late").unwrap()), "[Refused(LeaseLost)]");
    assert_eq!(first.extend(mine(), 60_000).unwrap(), refused);
    assert_eq!(second.extend(of_default("q", [again.handle()]), 60_000).unwrap(), only(None));
    assert_eq!(second.commit(of_default("q", [again.handle()])).unwrap(), only(None));
    let consumed = only(Some(ErrorCode::AlreadyConsumed));
    assert_eq!(first.commit(mine()).unwrap(), consumed, "a commit finds the job consumed");
    assert_eq!(first.extend(mine(), 60_000).unwrap(), consumed);
}

#[test]
fn a_timed_lease_that_ran_out_holds_nothing() {
    let (server, _dir) = server(&[]);
    let (mut first, mut second) = (Raw::greeted(server.address()), Raw::greeted(server.address()));
    first.enqueue("q", &["a"]).unwrap();
    let job = first.fetch_timed("q", 1, 200).unwrap().remove(0);
    assert_lost(&mut first, &mut second, &job);
}

#[test]
fn a_session_lease_over_its_maximum_run_holds_nothing() {
    let (server, _dir) = server(&[]);
    let (mut first, mut second) = (Raw::greeted(server.address()), Raw::greeted(server.address()));
    first.enqueue("q", &["a"]).unwrap();
    let lease = LeaseKind::Session { run_ms_max: Some(200) };
    let fetch = first.request_fetch(&["q"], 1, 0, lease, &[]).unwrap();
    let job = first.reply_to(fetch).unwrap().jobs().remove(0);
    assert_lost(&mut first, &mut second, &job);
}

#[test]
fn leases_of_a_silent_session_hold_nothing() {
    let (server, _dir) = server(&[]);
    let mut first = Raw::connect(server.address()).unwrap();
    let session = new_session();
    first.hello(session, 1500, &[]).unwrap();
    first.enqueue("q", &["a"]).unwrap();
    let job = first.fetch(&["q"], 1, 0).unwrap().remove(0);
    first.assert_closed();
    let (mut first, mut second) =
        (Raw::connect(server.address()).unwrap(), Raw::greeted(server.address()));
    assert_eq!(first.hello(session, 0, &[job.token]).unwrap(), (0, 0), "its lease has ended");
    assert_lost(&mut first, &mut second, &job);
}

#[test]
fn an_extended_lease_goes_on() {
    let (server, _dir) = server(&[]);
    let (mut first, mut second) = (Raw::greeted(server.address()), Raw::greeted(server.address()));
    first.enqueue("q", &["held", "marker"]).unwrap();
    let held = first.fetch_timed("q", 1, 3000).unwrap().remove(0);
    let extended = first.extend(of_default("q", [held.handle()]), 600_000).unwrap();
    assert_eq!(extended, only(None));
    // A lease taken later and just as long ends, and by then the first would have ended too.
    let marker = first.fetch_timed("q", 1, 3000).unwrap().remove(0);
    let again = second.fetch(&["q"], 2, WAIT_MS).unwrap();
    assert_eq!(again.iter().map(|job| job.offset).collect::<Vec<_>>(), [marker.offset]);
    assert_eq!(first.commit(of_default("q", [held.handle()])).unwrap(), only(None));
}

#[test]
fn a_commit_whose_reply_was_lost_is_told_that_it_was_done() {
    let (server, _dir) = server(&[]);
    let session = new_session();
    let mut raw = Raw::connect(server.address()).unwrap();
    raw.hello(session, 0, &[]).unwrap();
    raw.enqueue("q", &["alone", "carried"]).unwrap();
    let jobs = raw.fetch(&["q"], 2, 0).unwrap();
    let mut watcher = Raw::greeted(server.address());

    // The first COMMIT rides on a FETCH, the second is on its own; nobody reads their replies.
    raw.request_fetch(&["q"], 1, 0, SESSION_LEASE, &[of_default("q", [jobs[0].handle()])]).unwrap();
    raw.request_commit(of_default("q", [jobs[1].handle()])).unwrap();
    await_that("both are committed", || watcher.count("q", "committed_offset") == 2);
    drop(raw);

    let mut raw = Raw::connect(server.address()).unwrap();
    let tokens = [jobs[0].token, jobs[1].token];
    assert_eq!(raw.hello(session, 0, &tokens).unwrap(), (0, 0), "no lease is left");
    let again = raw.commit(of_default("q", jobs.iter().map(Job::handle))).unwrap();
    let consumed = Some(ErrorCode::AlreadyConsumed);
    assert_eq!(again.to_vec(), [consumed, consumed]);
}
