//! Kafka: a topic of 50 partitions, acknowledged produce, and consumers that commit their offset
//! after each take.
//!
//! A partition has one consumer, so the workers of a queue share its partitions out, as the members
//! of a consumer group do. What a worker has fetched ahead it takes from its own buffer, as Kafka's
//! clients do; what it commits is the lowest offset that it has not done.

use std::collections::{BTreeSet, VecDeque};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use bytes::{BufMut, Bytes, BytesMut};

use super::kafka_wire::{Api, Reply, ask, each_message, put_produce, put_request, put_text};
use super::{Class, Event, Payloads, Setup, Sink, System, Talk};
use crate::children::{first_line, free_port};

/// As many as the most workers of a workload.
const PARTITIONS: i32 = 50;
const GROUP: &str = "qbench";
/// Bytes that a fetch brings of each partition at most.
const FETCH_BYTES: i32 = 64 * 1024;
/// How long a fetch waits for a first job, in milliseconds. The broker answers a connection's
/// requests one by one, so the last commit of a phase waits behind it.
const FETCH_WAIT_MS: i32 = 10;
/// How long a topic may take to be there.
const DECLARE_TIME_MAX: Duration = Duration::from_secs(30);
/// The file that tells the broker where its ZooKeeper listens.
const ZOOKEEPER_PORT: &str = "zookeeper-port";

pub(crate) struct Kafka;

impl System for Kafka {
    fn name(&self) -> &'static str {
        "kafka"
    }

    fn how(&self) -> &'static str {
        "50 partitions; Produce with acks=1; Fetch ahead, OffsetCommit after each take"
    }

    fn program(&self) -> &'static str {
        "java"
    }

    fn package(&self) -> &'static str {
        "unpack a release of Apache Kafka from 0.9 to 3.9 and name its directory with --kafka DIR \
         or QBENCH_KAFKA; java is needed too (Debian: apt-get install default-jre-headless)"
    }

    fn version(&self, dir: &Path) -> String {
        let jars = std::fs::read_dir(dir.join("libs")).into_iter().flatten().flatten();
        let names = jars.filter_map(|jar| jar.file_name().into_string().ok());
        let mut brokers: Vec<_> = names.filter_map(|name| broker_version(&name)).collect();
        brokers.sort();
        let java = first_line(Path::new("java"), &["-version"]);
        format!("kafka {}, {java}", brokers.first().map_or("unknown", String::as_str))
    }

    fn loses(&self, class: Class) -> Result<&'static str, &'static str> {
        Ok(match class {
            Class::Memory => "a killed server loses nothing; a power cut what was not yet on disk",
            Class::Second => "a killed server loses nothing; a power cut about the last second",
            Class::Synced => "nothing",
        })
    }

    fn command(&self, home: &Path, class: Class, dir: &Path, port: u16) -> Result<Command> {
        let flush = match class {
            Class::Memory => "",
            Class::Second => "log.flush.interval.ms=1000\nlog.flush.scheduler.interval.ms=1000\n",
            Class::Synced => "log.flush.interval.messages=1\n",
        };
        let zookeeper = std::fs::read_to_string(dir.join(ZOOKEEPER_PORT))?;
        let text = format!(
            "broker.id=0\nlisteners=PLAINTEXT://127.0.0.1:{port}\nlog.dirs={}\n{flush}\
             num.partitions={PARTITIONS}\noffsets.topic.replication.factor=1\n\
             offsets.topic.num.partitions=1\nzookeeper.connect=127.0.0.1:{zookeeper}\n\
             zookeeper.connection.timeout.ms=60000\nzookeeper.session.timeout.ms=2000\n",
            dir.join("log").display()
        );
        let config = dir.join("server.properties");
        std::fs::write(&config, text)?;
        let mut command = java(home);
        command.arg("kafka.Kafka").arg(config);
        Ok(command)
    }

    fn companion(&self, home: &Path, dir: &Path) -> Result<Option<Command>> {
        let port = free_port()?;
        std::fs::write(dir.join(ZOOKEEPER_PORT), port.to_string())?;
        // Short ticks, so that a broker that was killed may soon come back.
        let text = format!(
            "dataDir={}\nclientPort={port}\nclientPortAddress=127.0.0.1\ntickTime=500\n\
             admin.enableServer=false\n",
            dir.join("zookeeper").display()
        );
        let config = dir.join("zookeeper.properties");
        std::fs::write(&config, text)?;
        let mut command = java(home);
        command.arg("org.apache.zookeeper.server.quorum.QuorumPeerMain").arg(config);
        Ok(Some(command))
    }

    /// The topic of committed offsets is made when it is asked for first.
    fn await_ready(&self, address: &str) -> Result<()> {
        until_true("has no coordinator for offsets", || {
            let answer = ask(&mut TcpStream::connect(address)?, Api::FindCoordinator, |out| {
                put_text(out, GROUP);
            })?;
            Ok(Reply(&answer).i16()? == 0)
        })
    }

    /// A topic is made when it is asked for, and is there when all its partitions have a leader.
    fn declare(&self, address: &str, queues: &[String]) -> Result<()> {
        let mut stream = TcpStream::connect(address)?;
        until_true("does not make the topics", || {
            let answer = ask(&mut stream, Api::Metadata, |out| {
                out.put_i32(queues.len() as i32);
                queues.iter().for_each(|queue| put_text(out, queue));
            })?;
            have_leaders(&answer)
        })
    }

    /// Only the worker of a partition can take what lies in it.
    fn pushes(&self) -> bool {
        true
    }

    fn one_queue(&self) -> Option<&'static str> {
        Some("it would need 50 partitions for each queue")
    }

    fn fixed_workers(&self) -> Option<&'static str> {
        Some("its workers share out the partitions once; a hired one would get none")
    }

    fn talk(&self, setup: Setup) -> Box<dyn Talk> {
        let (ordinal, of) = setup.share;
        let own = (0..PARTITIONS).filter(|partition| *partition as usize % of == ordinal);
        Box::new(KafkaTalk {
            partitions: own.map(Partition::new).collect(),
            slots: vec![Slot::default(); setup.in_flight],
            buffer: VecDeque::new(),
            hungry: VecDeque::new(),
            fetching: false,
            expected: VecDeque::new(),
            produce_to: setup.id as i32 % PARTITIONS,
            setup,
        })
    }
}

fn broker_version(jar: &str) -> Option<String> {
    let (_scala, version) = jar.strip_prefix("kafka_")?.split_once('-')?;
    Some(version.strip_suffix(".jar")?.to_owned())
}

fn java(home: &Path) -> Command {
    let mut classes: PathBuf = home.join("libs");
    classes.push("*");
    let mut command = Command::new("java");
    command.args(["-Xms1g", "-Xmx1g", "-XX:+UseG1GC", "-cp"]).arg(classes);
    command
}

fn until_true(what: &str, mut ask: impl FnMut() -> Result<bool>) -> Result<()> {
    let until = Instant::now() + DECLARE_TIME_MAX;
    while !ask()? {
        ensure!(Instant::now() < until, "kafka {what}");
        thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}

/// Whether every topic of a Metadata reply is there with all its partitions.
fn have_leaders(answer: &[u8]) -> Result<bool> {
    let mut reply = Reply(answer);
    for _ in 0..reply.i32()? {
        reply.i32()?;
        reply.text()?;
        reply.i32()?;
    }
    for _ in 0..reply.i32()? {
        let missing = reply.i16()? != 0;
        reply.text()?;
        let partitions = reply.i32()?;
        if missing || partitions != PARTITIONS {
            return Ok(false);
        }
        for _ in 0..partitions {
            let error = reply.i16()?;
            reply.bytes(8)?;
            for _ in 0..2 {
                let replicas = reply.i32()?;
                reply.bytes(4 * replicas.max(0) as usize)?;
            }
            if error != 0 {
                return Ok(false);
            }
        }
    }
    Ok(true)
}

/// A partition of this worker.
#[derive(Debug)]
struct Partition {
    id: i32,
    /// The next offset to fetch.
    next: i64,
    /// Fetched and not done.
    open: BTreeSet<i64>,
}

impl Partition {
    fn new(id: i32) -> Self {
        Self { id, next: 0, open: BTreeSet::new() }
    }

    /// What may be committed: all below is done.
    fn done(&self) -> i64 {
        self.open.first().copied().unwrap_or(self.next)
    }
}

/// A job that was fetched.
#[derive(Clone, Debug)]
struct Job {
    partition: i32,
    offset: i64,
    payload: Bytes,
}

#[derive(Clone, Debug, Default)]
struct Slot {
    /// Jobs that come with the answer to the commit before.
    coming: Vec<Job>,
    /// What the slot took last.
    held: Vec<(i32, i64)>,
    max: usize,
}

/// Which reply comes next.
#[derive(Clone, Copy, Debug)]
enum Expect {
    Offsets,
    Ready,
    Produced { slot: usize },
    Committed { slot: Option<usize> },
    Fetched,
    Finished,
}

struct KafkaTalk {
    setup: Setup,
    partitions: Vec<Partition>,
    slots: Vec<Slot>,
    buffer: VecDeque<Job>,
    /// Slots that wait for the fetch on its way.
    hungry: VecDeque<usize>,
    fetching: bool,
    expected: VecDeque<Expect>,
    /// The partition that the next batch goes to.
    produce_to: i32,
}

impl KafkaTalk {
    fn topic(&self) -> &str {
        self.setup.queues.first().map_or("", String::as_str)
    }

    fn put_partitions(&self, out: &mut BytesMut, each: impl Fn(&mut BytesMut, &Partition)) {
        out.put_i32(1);
        put_text(out, self.topic());
        out.put_i32(self.partitions.len() as i32);
        for partition in &self.partitions {
            out.put_i32(partition.id);
            each(out, partition);
        }
    }

    fn put_commit(&mut self, expect: Expect, out: &mut BytesMut) {
        put_request(out, Api::OffsetCommit, |out| {
            put_text(out, GROUP);
            // No generation and no member: partitions are shared out here. Kept as the broker says.
            out.put_i32(-1);
            put_text(out, "");
            out.put_i64(-1);
            self.put_partitions(out, |out, partition| {
                out.put_i64(partition.done());
                put_text(out, "");
            });
        });
        self.expected.push_back(expect);
    }

    fn put_fetch(&mut self, wait: bool, out: &mut BytesMut) {
        put_request(out, Api::Fetch, |out| {
            out.put_i32(-1);
            out.put_i32(if wait { FETCH_WAIT_MS } else { 0 });
            out.put_i32(i32::from(wait));
            self.put_partitions(out, |out, partition| {
                out.put_i64(partition.next);
                out.put_i32(FETCH_BYTES);
            });
        });
        self.expected.push_back(Expect::Fetched);
        self.fetching = true;
    }

    /// Marks as done what a slot took last; gives whether there was something.
    fn finish_slot(&mut self, slot: usize) -> bool {
        let held = self.slots.get_mut(slot).map(|slot| std::mem::take(&mut slot.held));
        let held = held.unwrap_or_default();
        for (id, offset) in &held {
            if let Some(partition) = self.partitions.iter_mut().find(|one| one.id == *id) {
                partition.open.remove(offset);
            }
        }
        !held.is_empty()
    }

    /// Gives a slot its jobs.
    fn hand_over(&mut self, slot: usize, jobs: Vec<Job>, sink: &mut Sink<'_>) -> Result<()> {
        let Some(state) = self.slots.get_mut(slot) else { return Ok(()) };
        let count = jobs.len();
        for job in jobs {
            state.held.push((job.partition, job.offset));
            sink(Event::Job { slot, payload: &job.payload })?;
        }
        sink(Event::Taken { slot, jobs: count })
    }

    fn take_buffered(&mut self, max: usize) -> Vec<Job> {
        let count = max.min(self.buffer.len());
        self.buffer.drain(..count).collect()
    }

    fn on_offsets(&mut self, mut reply: Reply<'_>) -> Result<()> {
        each_partition(&mut reply, |partition, reply| {
            let offset = reply.i64()?;
            reply.text()?;
            reply.no_error("OffsetFetch")?;
            if let Some(own) = self.partitions.iter_mut().find(|one| one.id == partition) {
                own.next = offset.max(0);
            }
            Ok(())
        })
    }

    fn on_fetched(&mut self, mut reply: Reply<'_>, sink: &mut Sink<'_>) -> Result<()> {
        self.fetching = false;
        let _throttled_ms = reply.i32()?;
        each_partition(&mut reply, |id, reply| {
            reply.no_error("Fetch")?;
            let _end = reply.i64()?;
            let bytes = reply.i32()?;
            let set = reply.bytes(bytes.max(0) as usize)?;
            let Some(own) = self.partitions.iter_mut().find(|one| one.id == id) else {
                return Ok(());
            };
            each_message(set, |offset, payload| {
                if offset >= own.next {
                    own.next = offset + 1;
                    own.open.insert(offset);
                    let payload = Bytes::copy_from_slice(payload);
                    self.buffer.push_back(Job { partition: id, offset, payload });
                }
            })
        })?;
        while let Some(slot) = self.hungry.pop_front() {
            let max = self.slots.get(slot).map_or(0, |slot| slot.max);
            let jobs = self.take_buffered(max);
            self.hand_over(slot, jobs, sink)?;
        }
        Ok(())
    }

    fn on_reply(&mut self, body: &[u8], sink: &mut Sink<'_>) -> Result<()> {
        let Some(expect) = self.expected.pop_front() else {
            bail!("kafka sent a reply to nothing");
        };
        let mut reply = Reply(body);
        match expect {
            Expect::Offsets => self.on_offsets(reply),
            Expect::Ready => sink(Event::Ready),
            Expect::Produced { slot } => {
                each_partition(&mut reply, |_, reply| {
                    reply.no_error("Produce")?;
                    reply.i64().map(drop)
                })?;
                sink(Event::Enqueued { slot })
            }
            Expect::Committed { slot } => {
                each_partition(&mut reply, |_, reply| reply.no_error("OffsetCommit"))?;
                let Some(slot) = slot else { return Ok(()) };
                let coming = self.slots.get_mut(slot).map(|one| std::mem::take(&mut one.coming));
                self.hand_over(slot, coming.unwrap_or_default(), sink)
            }
            Expect::Finished => {
                each_partition(&mut reply, |_, reply| reply.no_error("OffsetCommit"))?;
                sink(Event::Finished)
            }
            Expect::Fetched => self.on_fetched(reply, sink),
        }
    }
}

/// Goes through the partitions of all topics of a reply.
fn each_partition<'a>(
    reply: &mut Reply<'a>,
    mut each: impl FnMut(i32, &mut Reply<'a>) -> Result<()>,
) -> Result<()> {
    for _ in 0..reply.i32()? {
        reply.text()?;
        for _ in 0..reply.i32()? {
            let partition = reply.i32()?;
            each(partition, reply)?;
        }
    }
    Ok(())
}

impl Talk for KafkaTalk {
    fn put_greeting(&mut self, out: &mut BytesMut) {
        if self.setup.consumes {
            put_request(out, Api::OffsetFetch, |out| {
                put_text(out, GROUP);
                self.put_partitions(out, |_, _| {});
            });
            self.expected.push_back(Expect::Offsets);
        }
        put_request(out, Api::FindCoordinator, |out| put_text(out, GROUP));
        self.expected.push_back(Expect::Ready);
    }

    fn put_enqueue(&mut self, slot: usize, queue: &str, jobs: Payloads<'_>, out: &mut BytesMut) {
        put_produce(out, queue, self.produce_to, jobs);
        self.produce_to = (self.produce_to + 1) % PARTITIONS;
        self.expected.push_back(Expect::Produced { slot });
    }

    fn put_take(&mut self, slot: usize, _queue: &str, max: usize, wait: bool, out: &mut BytesMut) {
        let commits = self.finish_slot(slot);
        let coming = self.take_buffered(max);
        let served = !coming.is_empty();
        if let Some(state) = self.slots.get_mut(slot) {
            state.coming = coming;
            state.max = max;
        }
        // A commit of nothing new is what answers a take from the buffer that follows no other.
        if commits || served {
            self.put_commit(Expect::Committed { slot: served.then_some(slot) }, out);
        }
        if !served {
            self.hungry.push_back(slot);
            if !self.fetching {
                self.put_fetch(wait, out);
            }
        }
    }

    fn put_finish(&mut self, out: &mut BytesMut) -> bool {
        for slot in 0..self.slots.len() {
            self.finish_slot(slot);
        }
        // Also with nothing new to commit: its answer shows that those before have been done.
        self.put_commit(Expect::Finished, out);
        true
    }

    fn read(&mut self, input: &mut BytesMut, sink: &mut Sink<'_>) -> Result<()> {
        while let Some(length) = input.first_chunk::<4>() {
            let end = 4 + u32::from_be_bytes(*length) as usize;
            if input.len() < end {
                return Ok(());
            }
            let reply = input.split_to(end);
            let body = reply.get(8..).context("a reply without a correlation id")?;
            self.on_reply(body, sink)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_stands_in_the_name_of_the_brokers_jar() {
        assert_eq!(broker_version("kafka_2.13-3.9.0.jar").as_deref(), Some("3.9.0"));
        assert_eq!(broker_version("kafka-clients-3.9.0.jar"), None);
    }

    #[test]
    fn messages_come_back_out_of_a_produce_and_a_cut_one_is_left_out() {
        let mut out = BytesMut::new();
        let jobs = Payloads { bytes: b"onetwo", each: 3 };
        put_produce(&mut out, "t", 7, jobs);
        // Length, head with the client's name, acks, timeout, topic, partition, length of the set.
        let head = 4 + 8 + 8 + 2 + 4 + (4 + 3) + (4 + 4 + 4);
        let set = &out[head..];
        let read = |set: &[u8]| {
            let mut found = Vec::new();
            each_message(set, |offset, payload| found.push((offset, payload.to_vec()))).unwrap();
            found
        };
        assert_eq!(read(set), [(0, b"one".to_vec()), (0, b"two".to_vec())]);
        assert_eq!(read(&set[..set.len() - 1]), [(0, b"one".to_vec())]);
    }
}
