//! Redis, in the three ways in which it serves as a job queue.

use std::collections::VecDeque;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::Duration;

use anyhow::{Result, bail};
use bytes::{Buf, BytesMut};

use super::resp::{self, Value, put, put_parts};
use super::{Class, Event, Payloads, Setup, Sink, System, Talk};
use crate::children::first_line;

/// How long a killed worker of a stream is waited for.
const IDLE_MS: &[u8] = b"1000";
/// The consumer group of streams.
const GROUP: &[u8] = b"workers";

/// How Redis is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pattern {
    /// `RPUSH` and `LPOP`; a waiting consumer uses `BLPOP`, in batches `BLMPOP`.
    List,
    /// `LMOVE` to a list of the worker's own, and `LREM` from it when the job is done.
    Reliable,
    /// `XADD`, `XREADGROUP`, and `XACK` with `XDEL`.
    Streams,
}

pub(crate) struct Redis(pub(crate) Pattern);

impl System for Redis {
    fn name(&self) -> &'static str {
        match self.0 {
            Pattern::List => "redis",
            Pattern::Reliable => "redis-reliable",
            Pattern::Streams => "redis-streams",
        }
    }

    fn how(&self) -> &'static str {
        match self.0 {
            Pattern::List => "RPUSH; LPOP, or BLPOP to wait: a job is gone once popped",
            Pattern::Reliable => "RPUSH; LREM of the job before with LMOVE, or BLMOVE to wait",
            Pattern::Streams => "XADD; XACK and XDEL of the job before with XREADGROUP",
        }
    }

    fn program(&self) -> &'static str {
        "redis-server"
    }

    fn package(&self) -> &'static str {
        "install redis-server (Debian: apt-get install redis-server)"
    }

    fn version(&self, program: &Path) -> String {
        first_line(program, &["--version"])
    }

    fn loses(&self, class: Class) -> Result<&'static str, &'static str> {
        Ok(match class {
            Class::Memory => "a killed server loses everything",
            Class::Second => "a killed server or a power cut loses about the last second",
            Class::Synced => "a reply that was written, but not what it said",
        })
    }

    fn command(&self, program: &Path, class: Class, dir: &Path, port: u16) -> Result<Command> {
        let mut command = Command::new(program);
        command.args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", ""]);
        command.arg("--dir").arg(dir);
        match class {
            Class::Memory => command.args(["--appendonly", "no"]),
            Class::Second => command.args(["--appendonly", "yes", "--appendfsync", "everysec"]),
            Class::Synced => command.args(["--appendonly", "yes", "--appendfsync", "always"]),
        };
        Ok(command)
    }

    fn await_ready(&self, address: &str) -> Result<()> {
        let mut stream = TcpStream::connect(address)?;
        let mut answer = [0; 64];
        loop {
            stream.write_all(b"PING\r\n")?;
            let count = stream.read(&mut answer)?;
            if !answer.get(..count).unwrap_or_default().starts_with(b"-LOADING") {
                return Ok(());
            }
            thread::sleep(Duration::from_millis(2));
        }
    }

    fn talk(&self, setup: Setup) -> Box<dyn Talk> {
        Box::new(RedisTalk {
            pattern: self.0,
            own_list: format!("working:{}", setup.id).into_bytes(),
            consumer: format!("consumer-{}", setup.id).into_bytes(),
            held: vec![Held::default(); setup.in_flight],
            expected: VecDeque::new(),
            marking: 0,
            ending: false,
            setup,
        })
    }
}

/// Which reply comes next; Redis answers in order.
#[derive(Clone, Copy, Debug)]
enum Expect {
    Ready,
    /// An answer that matters only if it is an error, and not even then if the group is there.
    Group,
    /// An answer to one job of several.
    Part,
    /// What was done is marked as done.
    Marked,
    Enqueued {
        slot: usize,
    },
    /// Jobs, in the shape that this command gives them.
    Jobs {
        slot: usize,
        shape: Shape,
    },
    /// One job of `put_take`, the last of its batch or not.
    Moved {
        slot: usize,
        last: bool,
    },
}

#[derive(Clone, Copy, Debug)]
enum Shape {
    /// LPOP: a job, or a list of them.
    Plain,
    /// BLPOP: a key and a job.
    Keyed,
    /// BLMPOP: a key and a list of jobs.
    KeyedList,
    /// XREADGROUP: for each stream its entries, each an id and its fields.
    Entries,
    /// XAUTOCLAIM: where to go on, and entries.
    Claimed,
}

/// What a slot took last: jobs of the reliable list, ids of a stream.
#[derive(Clone, Debug, Default)]
struct Held {
    queue: Vec<u8>,
    items: Vec<Vec<u8>>,
    /// What the request on its way marks as consumed.
    finishing: Vec<Vec<u8>>,
    moved: usize,
}

struct RedisTalk {
    pattern: Pattern,
    setup: Setup,
    own_list: Vec<u8>,
    consumer: Vec<u8>,
    held: Vec<Held>,
    expected: VecDeque<Expect>,
    /// LREM, XACK and XDEL without an answer, and whether `put_finish` waits for them.
    marking: usize,
    ending: bool,
}

impl RedisTalk {
    /// Marks as consumed what a slot holds.
    fn put_done(&mut self, slot: usize, out: &mut BytesMut) {
        let Some(held) = self.held.get_mut(slot) else { return };
        held.finishing = std::mem::take(&mut held.items);
        let items = &held.finishing;
        if items.is_empty() {
            return;
        }
        match self.pattern {
            Pattern::List => {}
            Pattern::Reliable => {
                for item in items {
                    put(out, &[b"LREM", &self.own_list, b"1", item]);
                    self.expected.push_back(Expect::Marked);
                    self.marking += 1;
                }
            }
            Pattern::Streams => {
                resp::put_head(out, items.len() + 3);
                put_parts(out, &[b"XACK".as_slice(), &held.queue, GROUP]);
                items.iter().for_each(|item| resp::put_part(out, item));
                resp::put_head(out, items.len() + 2);
                put_parts(out, &[b"XDEL".as_slice(), &held.queue]);
                items.iter().for_each(|item| resp::put_part(out, item));
                self.expected.extend([Expect::Marked, Expect::Marked]);
                self.marking += 2;
            }
        }
    }

    fn on_reply(&mut self, value: &Value<'_>, sink: &mut Sink<'_>) -> Result<()> {
        let Some(expect) = self.expected.pop_front() else {
            bail!("redis sent a reply to nothing: {value:?}");
        };
        if let Value::Error(text) = value
            && !(matches!(expect, Expect::Group) && text.starts_with(b"BUSYGROUP"))
        {
            bail!("redis answered {}", String::from_utf8_lossy(text));
        }
        match expect {
            Expect::Ready => sink(Event::Ready),
            Expect::Group | Expect::Part => Ok(()),
            Expect::Marked => {
                self.marking -= 1;
                let is_end = self.ending && self.marking == 0;
                if is_end { sink(Event::Finished) } else { Ok(()) }
            }
            Expect::Enqueued { slot } => sink(Event::Enqueued { slot }),
            Expect::Moved { slot, last } => self.on_moved(slot, last, value, sink),
            Expect::Jobs { slot, shape: Shape::Entries } => {
                let entries = value.elements().flat_map(|stream| stream.elements().skip(1));
                self.on_entries(slot, entries.flat_map(Value::elements), sink)
            }
            Expect::Jobs { slot, shape: Shape::Claimed } => {
                let entries = value.elements().skip(1).take(1).flat_map(Value::elements);
                self.on_entries(slot, entries, sink)
            }
            Expect::Jobs { slot, shape } => on_jobs(slot, shape, value, sink),
        }
    }

    fn on_moved(
        &mut self,
        slot: usize,
        last: bool,
        value: &Value<'_>,
        sink: &mut Sink<'_>,
    ) -> Result<()> {
        let Some(held) = self.held.get_mut(slot) else { return Ok(()) };
        held.finishing.clear();
        if let Some(payload) = value.text() {
            held.items.push(payload.to_vec());
            held.moved += 1;
            sink(Event::Job { slot, payload })?;
        }
        if last {
            sink(Event::Taken { slot, jobs: std::mem::take(&mut held.moved) })
        } else {
            Ok(())
        }
    }

    fn on_entries<'a, 'b: 'a>(
        &mut self,
        slot: usize,
        entries: impl Iterator<Item = &'a Value<'b>>,
        sink: &mut Sink<'_>,
    ) -> Result<()> {
        let Some(held) = self.held.get_mut(slot) else { return Ok(()) };
        held.finishing.clear();
        let mut jobs = 0;
        for entry in entries {
            let id = entry.elements().next().and_then(Value::text);
            let field = entry.elements().nth(1).and_then(|fields| fields.elements().next_back());
            let Some((id, payload)) = id.zip(field.and_then(Value::text)) else {
                bail!("redis sent a stream entry without an id or a field");
            };
            held.items.push(id.to_vec());
            jobs += 1;
            sink(Event::Job { slot, payload })?;
        }
        sink(Event::Taken { slot, jobs })
    }
}

fn on_jobs(slot: usize, shape: Shape, value: &Value<'_>, sink: &mut Sink<'_>) -> Result<()> {
    let mut jobs = 0;
    let mut give = |payload| {
        jobs += 1;
        sink(Event::Job { slot, payload })
    };
    match (shape, value) {
        (_, Value::Nil) => {}
        (Shape::Plain, Value::Text(payload)) => give(payload)?,
        (Shape::Plain, list) => list.elements().filter_map(Value::text).try_for_each(give)?,
        (Shape::Keyed, pair) => {
            pair.elements().skip(1).filter_map(Value::text).try_for_each(give)?
        }
        (_, pair) => {
            let lists = pair.elements().skip(1);
            lists.flat_map(Value::elements).filter_map(Value::text).try_for_each(give)?;
        }
    }
    sink(Event::Taken { slot, jobs })
}

impl Talk for RedisTalk {
    fn put_greeting(&mut self, out: &mut BytesMut) {
        if self.pattern == Pattern::Streams && self.setup.declares {
            for queue in &self.setup.queues {
                put(out, &[b"XGROUP", b"CREATE", queue.as_bytes(), GROUP, b"0", b"MKSTREAM"]);
                self.expected.push_back(Expect::Group);
            }
        }
        put(out, &[b"PING"]);
        self.expected.push_back(Expect::Ready);
    }

    fn put_enqueue(&mut self, slot: usize, queue: &str, jobs: Payloads<'_>, out: &mut BytesMut) {
        if self.pattern == Pattern::Streams {
            let count = jobs.iter().len();
            for (ordinal, payload) in jobs.iter().enumerate() {
                put(out, &[b"XADD", queue.as_bytes(), b"*", b"j", payload]);
                let last = ordinal + 1 == count;
                let expect = if last { Expect::Enqueued { slot } } else { Expect::Part };
                self.expected.push_back(expect);
            }
            return;
        }
        resp::put_head(out, jobs.iter().len() + 2);
        resp::put_part(out, b"RPUSH");
        resp::put_part(out, queue.as_bytes());
        jobs.iter().for_each(|payload| resp::put_part(out, payload));
        self.expected.push_back(Expect::Enqueued { slot });
    }

    fn put_take(&mut self, slot: usize, queue: &str, max: usize, wait: bool, out: &mut BytesMut) {
        self.put_done(slot, out);
        let (queue, count) = (queue.as_bytes(), max.to_string());
        let count = count.as_bytes();
        let shape = match (self.pattern, wait, max) {
            (Pattern::List, false, 1) => {
                put(out, &[b"LPOP", queue]);
                Shape::Plain
            }
            (Pattern::List, false, _) => {
                put(out, &[b"LPOP", queue, count]);
                Shape::Plain
            }
            (Pattern::List, true, 1) => {
                put(out, &[b"BLPOP", queue, b"0"]);
                Shape::Keyed
            }
            (Pattern::List, true, _) => {
                put(out, &[b"BLMPOP", b"0", b"1", queue, b"LEFT", b"COUNT", count]);
                Shape::KeyedList
            }
            (Pattern::Reliable, true, _) => {
                put(out, &[b"BLMOVE", queue, &self.own_list, b"LEFT", b"RIGHT", b"0"]);
                self.expected.push_back(Expect::Moved { slot, last: true });
                return;
            }
            (Pattern::Reliable, false, _) => {
                for ordinal in 1..=max {
                    put(out, &[b"LMOVE", queue, &self.own_list, b"LEFT", b"RIGHT"]);
                    self.expected.push_back(Expect::Moved { slot, last: ordinal == max });
                }
                return;
            }
            (Pattern::Streams, wait, _) => {
                resp::put_head(out, if wait { 11 } else { 9 });
                let parts = [b"XREADGROUP".as_slice(), b"GROUP", GROUP, &self.consumer];
                put_parts(out, &parts);
                put_parts(out, &[b"COUNT".as_slice(), count]);
                if wait {
                    put_parts(out, &[b"BLOCK".as_slice(), b"0"]);
                }
                put_parts(out, &[b"STREAMS".as_slice(), queue, b">"]);
                Shape::Entries
            }
        };
        if let Some(held) = self.held.get_mut(slot) {
            held.queue = queue.to_vec();
        }
        self.expected.push_back(Expect::Jobs { slot, shape });
    }

    fn put_finish(&mut self, out: &mut BytesMut) -> bool {
        for slot in 0..self.held.len() {
            self.put_done(slot, out);
        }
        self.ending = self.marking > 0;
        self.ending
    }

    fn lose_connection(&mut self) {
        self.expected.clear();
        self.marking = 0;
        for held in &mut self.held {
            held.items.append(&mut held.finishing);
            held.moved = 0;
        }
    }

    fn put_recover(&mut self, slot: usize, queue: &str, out: &mut BytesMut) -> bool {
        match self.pattern {
            Pattern::List => return false,
            // Jobs in the worker's own list are from before it was killed or cut off. What it
            // holds is done, and leaves the list first.
            Pattern::Reliable => {
                self.put_done(slot, out);
                put(out, &[b"LMOVE", &self.own_list, &self.own_list, b"LEFT", b"LEFT"]);
                self.expected.push_back(Expect::Moved { slot, last: true });
            }
            Pattern::Streams => {
                self.put_done(slot, out);
                let head = [b"XAUTOCLAIM".as_slice(), queue.as_bytes(), GROUP, &self.consumer];
                resp::put_head(out, 8);
                put_parts(out, &head);
                put_parts(out, &[IDLE_MS, b"0", b"COUNT", b"1"]);
                let shape = Shape::Claimed;
                self.expected.push_back(Expect::Jobs { slot, shape });
                if let Some(held) = self.held.get_mut(slot) {
                    held.queue = queue.as_bytes().to_vec();
                }
            }
        }
        true
    }

    fn read(&mut self, input: &mut BytesMut, sink: &mut Sink<'_>) -> Result<()> {
        let mut at = 0;
        while let Some((value, length)) = resp::read(input.get(at..).unwrap_or_default())? {
            self.on_reply(&value, sink)?;
            at += length;
        }
        input.advance(at);
        Ok(())
    }
}
