//! The load generator: one thread, one epoll, many connections, for every system the same.
//!
//! A connection's turn is: read once, handle every reply that has come, then write all requests
//! for which there is room, at once. So a pipeline is refilled in bursts, as redis-benchmark does.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail, ensure};
use bytes::{Buf, BytesMut};
use hdrhistogram::Histogram;
use rustix::event::{Timespec, epoll};

use crate::payload::{self, Ledger, Stamp};
use crate::proc::{self, Usage};
use crate::systems::{Event, Payloads, Server, Setup, Talk};

/// A phase in which nothing happens for so long has failed.
const SILENCE_MAX: Duration = Duration::from_secs(30);
/// Latencies are recorded up to this, to three digits.
const LATENCY_NS_MAX: u64 = 60_000_000_000;
const READ_BYTES: usize = 256 * 1024;

/// When producers send.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Pace {
    /// When there is room in flight: a closed loop.
    Closed,
    /// When the job before has reached its consumer: one job in the system at a time.
    OneByOne,
    /// On schedule, so many a second, whatever the answers do: an open loop. Latencies count from
    /// the intended time of sending.
    PerSecond(f64),
}

/// What a phase does.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) producers: usize,
    pub(crate) consumers: usize,
    /// Requests in flight on each producer's connection.
    pub(crate) producer_slots: usize,
    /// Requests in flight on each consumer's connection.
    pub(crate) consumer_slots: usize,
    pub(crate) batch: usize,
    pub(crate) payload_bytes: usize,
    pub(crate) queues: Vec<String>,
    /// The numbers of the jobs to enqueue.
    pub(crate) enqueue: std::ops::Range<u64>,
    /// Jobs to consume.
    pub(crate) consume: u64,
    /// Consumers wait for jobs; else each asks only for jobs that are there.
    pub(crate) wait: bool,
    pub(crate) pace: Pace,
    /// Ends at the first answer without a job: all may be lost.
    pub(crate) may_be_empty: bool,
    /// How long a worker holds one job in ten.
    pub(crate) slow: Option<Duration>,
}

/// What a phase gave.
#[derive(Clone, Debug)]
pub(crate) struct Outcome {
    pub(crate) elapsed: Duration,
    /// From (intended) sending to the answer, of each enqueue request.
    pub(crate) enqueue_ns: Histogram<u64>,
    /// From sending to the answer, of each take request that gave jobs.
    pub(crate) take_ns: Histogram<u64>,
    /// From (intended) sending of a job to its arrival at a consumer.
    pub(crate) hand_off_ns: Histogram<u64>,
    /// Take requests that were answered with nothing.
    pub(crate) empty: u64,
    /// What the server, this process and the whole machine used.
    pub(crate) server: Usage,
    pub(crate) generator: Usage,
    pub(crate) machine_busy: Duration,
}

pub(crate) fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, LATENCY_NS_MAX, 3).expect("the bounds are right")
}

struct Connection {
    stream: TcpStream,
    talk: Box<dyn Talk>,
    input: BytesMut,
    output: BytesMut,
    produces: bool,
    ready: bool,
    finished: bool,
    /// Slots without a request.
    idle: Vec<usize>,
    /// When each slot's request was sent, or meant to be.
    sent: Vec<Instant>,
    /// Whether epoll tells when there is room to write.
    awaits_room: bool,
}

/// The counts that all connections of a phase share.
struct Shared<'a> {
    plan: &'a Plan,
    ledger: &'a mut Ledger,
    epoch: Instant,
    begun: Instant,
    next: u64,
    answered: u64,
    /// Jobs that consumers may still ask for.
    claims: u64,
    consumed: u64,
    /// Jobs that have come, and those that answers told of.
    came: u64,
    told: u64,
    turn: usize,
    payloads: Vec<u8>,
    outcome: Outcome,
    /// When a slow job is done: connection and slot.
    held: BinaryHeap<Reverse<(Instant, usize, usize)>>,
}

/// Runs a phase against a server. `epoch` is the origin of the times in payloads.
pub(crate) fn run(
    server: &Server,
    plan: &Plan,
    ledger: &mut Ledger,
    epoch: Instant,
) -> Result<Outcome> {
    let mut engine = Engine::open(server, plan)?;
    engine.greet()?;
    let mut shared = Shared::new(plan, ledger, epoch);
    let used = (server.usage(), proc::own_usage(), proc::machine_busy());
    engine.work(&mut shared)?;
    engine.finish(&mut shared)?;
    let outcome = &mut shared.outcome;
    outcome.elapsed = shared.begun.elapsed();
    outcome.server = server.usage().since(used.0);
    outcome.generator = proc::own_usage().since(used.1);
    outcome.machine_busy = proc::machine_busy().saturating_sub(used.2);
    Ok(shared.outcome)
}

/// Checks that a server has no job left in these queues.
pub(crate) fn check_empty(server: &Server, queues: &[String], payload_bytes: usize) -> Result<()> {
    let plan = Plan {
        producers: 0,
        consumers: 1,
        producer_slots: 1,
        consumer_slots: 1,
        batch: 1,
        payload_bytes,
        queues: queues.to_vec(),
        enqueue: 0..0,
        consume: 0,
        wait: false,
        may_be_empty: false,
        pace: Pace::Closed,
        slow: None,
    };
    let mut engine = Engine::open(server, &plan)?;
    engine.greet()?;
    for queue in queues {
        let Some(connection) = engine.connections.first_mut() else { return Ok(()) };
        connection.talk.put_take(0, queue, 1, false, &mut connection.output);
        engine.flush(0)?;
        let until = Instant::now() + SILENCE_MAX;
        let mut answered = false;
        while !answered {
            ensure!(Instant::now() < until, "the server does not say whether it is empty");
            engine.wait(Some(Duration::from_millis(100)))?;
            let Some(connection) = engine.connections.first_mut() else { return Ok(()) };
            connection.fill(&mut engine.scratch)?;
            connection.talk.read(&mut connection.input, &mut |event| {
                ensure!(!matches!(event, Event::Job { .. }), "a job is left in {queue}");
                answered |= matches!(event, Event::Taken { .. });
                Ok(())
            })?;
        }
    }
    Ok(())
}

impl<'a> Shared<'a> {
    fn new(plan: &'a Plan, ledger: &'a mut Ledger, epoch: Instant) -> Self {
        let outcome = Outcome {
            elapsed: Duration::ZERO,
            enqueue_ns: histogram(),
            take_ns: histogram(),
            hand_off_ns: histogram(),
            empty: 0,
            server: Usage::default(),
            generator: Usage::default(),
            machine_busy: Duration::ZERO,
        };
        Self {
            plan,
            ledger,
            epoch,
            begun: Instant::now(),
            next: plan.enqueue.start,
            answered: 0,
            claims: plan.consume,
            consumed: 0,
            came: 0,
            told: 0,
            turn: 0,
            payloads: Vec::new(),
            outcome,
            held: BinaryHeap::new(),
        }
    }

    fn is_done(&self) -> bool {
        if self.plan.may_be_empty && self.outcome.empty > 0 {
            return true;
        }
        let to_enqueue = self.plan.enqueue.end - self.plan.enqueue.start;
        self.answered >= to_enqueue && self.consumed >= self.plan.consume
    }

    /// When the next job is to be sent; nothing if that is no matter of time, or all are sent.
    fn next_due(&self) -> Option<Instant> {
        let Pace::PerSecond(rate) = self.plan.pace else { return None };
        let sent = self.next - self.plan.enqueue.start;
        let due = self.begun + Duration::from_secs_f64(sent as f64 / rate);
        (self.next < self.plan.enqueue.end).then_some(due)
    }

    /// How many jobs may be sent now with one request, and since when.
    fn may_send(&self, now: Instant) -> (u64, Instant) {
        let left = self.plan.enqueue.end - self.next;
        match self.plan.pace {
            Pace::Closed => (left.min(self.plan.batch as u64), now),
            Pace::OneByOne => {
                let on_the_way = self.next - self.plan.enqueue.start > self.consumed;
                (if on_the_way { 0 } else { left.min(1) }, now)
            }
            Pace::PerSecond(_) => match self.next_due() {
                Some(due) if due <= now => (1, due),
                _ => (0, now),
            },
        }
    }

    fn next_queue(&mut self) -> &'a str {
        let queues = &self.plan.queues;
        self.turn = (self.turn + 1) % queues.len().max(1);
        queues.get(self.turn).map_or("", String::as_str)
    }

    fn make_payloads(&mut self, count: u64, sent: Instant) {
        self.payloads.clear();
        let sent_ns = sent.duration_since(self.epoch).as_nanos() as u64;
        for number in self.next..self.next + count {
            let stamp = Stamp { run: self.ledger.run(), number, sent_ns };
            payload::put(&mut self.payloads, stamp, self.plan.payload_bytes);
        }
        self.next += count;
    }

    fn on_job(&mut self, payload: &[u8], now: Instant) -> Result<Stamp> {
        self.came += 1;
        let (stamp, is_new) = self.ledger.note(payload, self.plan.payload_bytes)?;
        if !is_new {
            self.claims += 1;
            return Ok(stamp);
        }
        self.consumed += 1;
        let now_ns = now.duration_since(self.epoch).as_nanos() as u64;
        self.outcome.hand_off_ns.saturating_record(now_ns.saturating_sub(stamp.sent_ns));
        Ok(stamp)
    }
}

/// How many jobs the request that was in a slot had asked for is kept in the claim of the slot.
struct Engine {
    epoll: OwnedFd,
    connections: Vec<Connection>,
    /// Jobs that each slot of each connection has claimed.
    claimed: Vec<Vec<u64>>,
    scratch: Vec<u8>,
}

impl Engine {
    fn open(server: &Server, plan: &Plan) -> Result<Self> {
        let mut engine = Self {
            epoll: epoll::create(epoll::CreateFlags::CLOEXEC)?,
            connections: Vec::new(),
            claimed: Vec::new(),
            scratch: vec![0; READ_BYTES],
        };
        server.system.declare(&server.address, &plan.queues)?;
        for id in 0..plan.producers + plan.consumers {
            let produces = id < plan.producers;
            let slots = if produces { plan.producer_slots } else { plan.consumer_slots };
            let stream = TcpStream::connect(&server.address)
                .with_context(|| format!("connecting to {}", server.system.name()))?;
            stream.set_nodelay(true)?;
            stream.set_nonblocking(true)?;
            let data = epoll::EventData::new_u64(id as u64);
            epoll::add(&engine.epoll, &stream, data, epoll::EventFlags::IN)?;
            let talk = server.system.talk(Setup {
                id,
                queues: plan.queues.clone(),
                declares: id == 0,
                consumes: !produces,
                share: (id.saturating_sub(plan.producers), plan.consumers.max(1)),
                in_flight: slots,
                batch: plan.batch,
                silence_ms: 0,
            });
            engine.claimed.push(vec![0; slots]);
            engine.connections.push(Connection {
                stream,
                talk,
                input: BytesMut::with_capacity(READ_BYTES),
                output: BytesMut::new(),
                produces,
                ready: false,
                finished: false,
                idle: (0..slots).rev().collect(),
                sent: vec![Instant::now(); slots],
                awaits_room: false,
            });
        }
        Ok(engine)
    }

    /// Greets on the first connection, which creates the queues, then on all others.
    fn greet(&mut self) -> Result<()> {
        for id in 0..self.connections.len() {
            if let Some(connection) = self.connections.get_mut(id) {
                connection.talk.put_greeting(&mut connection.output);
            }
            self.flush(id)?;
            if id == 0 || id + 1 == self.connections.len() {
                self.await_ready(id + 1)?;
            }
        }
        Ok(())
    }

    fn await_ready(&mut self, count: usize) -> Result<()> {
        let until = Instant::now() + SILENCE_MAX;
        while self.connections.iter().take(count).any(|connection| !connection.ready) {
            ensure!(Instant::now() < until, "the server does not answer a greeting");
            for id in self.wait(Some(Duration::from_millis(100)))? {
                let Some(connection) = self.connections.get_mut(id) else { continue };
                connection.fill(&mut self.scratch)?;
                let ready = &mut connection.ready;
                connection.talk.read(&mut connection.input, &mut |event| {
                    *ready |= event == Event::Ready;
                    Ok(())
                })?;
                self.flush(id)?;
            }
        }
        Ok(())
    }

    fn work(&mut self, shared: &mut Shared<'_>) -> Result<()> {
        shared.begun = Instant::now();
        // Consumers first, so that they wait when the first job is sent.
        for id in (0..self.connections.len()).rev() {
            self.refill(id, shared)?;
        }
        let mut last_news = Instant::now();
        while !shared.is_done() {
            let now = Instant::now();
            let held_until = shared.held.peek().map(|Reverse((due, _, _))| *due);
            let due = [shared.next_due(), held_until].into_iter().flatten().min();
            let timeout = due.map_or(Duration::from_secs(1), |due| due.duration_since(now));
            let ids = self.wait(Some(timeout))?;
            if !ids.is_empty() {
                last_news = Instant::now();
            } else if last_news.elapsed() > SILENCE_MAX {
                let (plan, done) = (shared.plan, (shared.answered, shared.consumed));
                let all = (plan.enqueue.end - plan.enqueue.start, plan.consume);
                bail!("the server fell silent: {done:?} of {all:?} jobs enqueued and consumed");
            }
            for id in ids {
                self.on_input(id, shared)?;
            }
            self.after_holding(shared)?;
            if shared.plan.pace != Pace::Closed {
                self.send_what_is_due(shared)?;
            }
        }
        Ok(())
    }

    /// Gives producers with room the jobs that are due, beginning with another one each time.
    fn send_what_is_due(&mut self, shared: &mut Shared<'_>) -> Result<()> {
        let producers = shared.plan.producers;
        for step in 0..producers {
            if shared.may_send(Instant::now()).0 == 0 {
                break;
            }
            self.refill((shared.next as usize + step) % producers, shared)?;
        }
        Ok(())
    }

    fn after_holding(&mut self, shared: &mut Shared<'_>) -> Result<()> {
        while let Some(Reverse((due, id, slot))) = shared.held.peek().copied()
            && due <= Instant::now()
        {
            shared.held.pop();
            if let Some(connection) = self.connections.get_mut(id) {
                connection.idle.push(slot);
            }
            self.refill(id, shared)?;
        }
        Ok(())
    }

    fn on_input(&mut self, id: usize, shared: &mut Shared<'_>) -> Result<()> {
        let Some(connection) = self.connections.get_mut(id) else { return Ok(()) };
        let Some(claimed) = self.claimed.get_mut(id) else { return Ok(()) };
        connection.fill(&mut self.scratch)?;
        let now = Instant::now();
        let (sent, idle, finished) =
            (&connection.sent, &mut connection.idle, &mut connection.finished);
        let sent_at = |slot: usize| sent.get(slot).copied().unwrap_or(now);
        let mut slow = false;
        connection.talk.read(&mut connection.input, &mut |event| {
            match event {
                Event::Ready => {}
                Event::Enqueued { slot } => {
                    let latency = now.duration_since(sent_at(slot)).as_nanos() as u64;
                    shared.outcome.enqueue_ns.saturating_record(latency);
                    shared.answered += claimed.get_mut(slot).map_or(0, std::mem::take);
                    idle.push(slot);
                }
                Event::Job { payload, .. } => slow |= shared.on_job(payload, now)?.number % 10 == 0,
                Event::Taken { slot, jobs } => {
                    let asked = claimed.get_mut(slot).map_or(0, std::mem::take);
                    shared.claims += asked.saturating_sub(jobs as u64);
                    shared.told += jobs as u64;
                    ensure!(
                        shared.told <= shared.came,
                        "an answer told of a job that did not come"
                    );
                    if jobs == 0 {
                        shared.outcome.empty += 1;
                    } else {
                        let latency = now.duration_since(sent_at(slot)).as_nanos() as u64;
                        shared.outcome.take_ns.saturating_record(latency);
                    }
                    match shared.plan.slow.filter(|_| std::mem::take(&mut slow)) {
                        Some(time) => shared.held.push(Reverse((now + time, id, slot))),
                        None => idle.push(slot),
                    }
                }
                Event::Finished => *finished = true,
            }
            Ok(())
        })?;
        self.refill(id, shared)
    }

    /// Puts a request into every idle slot for which there is work, and writes them at once.
    fn refill(&mut self, id: usize, shared: &mut Shared<'_>) -> Result<()> {
        let Some(connection) = self.connections.get_mut(id) else { return Ok(()) };
        let Some(claimed) = self.claimed.get_mut(id) else { return Ok(()) };
        let now = Instant::now();
        while let Some(slot) = connection.idle.last().copied() {
            let (count, sent) = if connection.produces {
                shared.may_send(now)
            } else if shared.plan.wait {
                // Waiting ends when all is consumed; what comes is counted when it comes.
                (
                    if shared.consumed < shared.plan.consume {
                        shared.plan.batch as u64
                    } else {
                        0
                    },
                    now,
                )
            } else {
                let count = shared.claims.min(shared.plan.batch as u64);
                shared.claims -= count;
                (count, now)
            };
            if count == 0 {
                break;
            }
            connection.idle.pop();
            let queue = shared.next_queue();
            if connection.produces {
                shared.make_payloads(count, sent);
                let payloads =
                    Payloads { bytes: &shared.payloads, each: shared.plan.payload_bytes };
                connection.talk.put_enqueue(slot, queue, payloads, &mut connection.output);
            } else {
                let (max, wait) = (count as usize, shared.plan.wait);
                connection.talk.put_take(slot, queue, max, wait, &mut connection.output);
            }
            if let Some(place) = connection.sent.get_mut(slot) {
                *place = sent;
            }
            if let Some(place) = claimed.get_mut(slot) {
                *place = if connection.produces || !shared.plan.wait { count } else { 0 };
            }
        }
        self.flush(id)
    }

    /// Marks the last jobs as consumed and waits until that is confirmed.
    fn finish(&mut self, shared: &mut Shared<'_>) -> Result<()> {
        let mut open = Vec::new();
        for (id, connection) in self.connections.iter_mut().enumerate() {
            if !connection.produces && connection.talk.put_finish(&mut connection.output) {
                open.push(id);
            }
        }
        for id in &open {
            self.flush(*id)?;
        }
        let until = Instant::now() + SILENCE_MAX;
        let finished = |engine: &Self, id: &usize| {
            engine.connections.get(*id).is_none_or(|connection| connection.finished)
        };
        while !open.iter().all(|id| finished(self, id)) {
            ensure!(Instant::now() < until, "the server does not confirm the last jobs");
            for id in self.wait(Some(Duration::from_millis(100)))? {
                self.on_input(id, shared)?;
            }
        }
        Ok(())
    }

    fn wait(&mut self, timeout: Option<Duration>) -> Result<Vec<usize>> {
        let timeout = timeout.map(|time| Timespec {
            tv_sec: time.as_secs().cast_signed(),
            tv_nsec: i64::from(time.subsec_nanos()),
        });
        let mut events = Vec::with_capacity(self.connections.len().max(1));
        let buffer = rustix::buffer::spare_capacity(&mut events);
        match epoll::wait(&self.epoll, buffer, timeout.as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        let ids = events.iter().map(|event| event.data.u64() as usize).collect::<Vec<_>>();
        for event in &events {
            let flags = event.flags;
            if flags.contains(epoll::EventFlags::OUT) {
                self.flush(event.data.u64() as usize)?;
            }
        }
        Ok(ids)
    }

    fn flush(&mut self, id: usize) -> Result<()> {
        let connection = self.connections.get_mut(id).ok_or_else(|| anyhow!("no connection"))?;
        connection.drain()?;
        let awaits_room = !connection.output.is_empty();
        if awaits_room != connection.awaits_room {
            connection.awaits_room = awaits_room;
            let out = if awaits_room { epoll::EventFlags::OUT } else { epoll::EventFlags::empty() };
            let data = epoll::EventData::new_u64(id as u64);
            epoll::modify(&self.epoll, &connection.stream, data, epoll::EventFlags::IN | out)?;
        }
        Ok(())
    }
}

impl Connection {
    /// Reads what has come: one read unless that filled the buffer.
    fn fill(&mut self, scratch: &mut [u8]) -> Result<()> {
        let before = self.input.len();
        loop {
            match self.stream.read(scratch) {
                // What it said last may be why; the end shows again at the next read.
                Ok(0) if self.input.len() > before => return Ok(()),
                Ok(0) => bail!("the server closed a connection"),
                Ok(count) => {
                    self.input.extend_from_slice(scratch.get(..count).unwrap_or_default());
                    if count < scratch.len() {
                        return Ok(());
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error).context("reading from the server"),
            }
        }
    }

    /// Writes as much as there is room for.
    fn drain(&mut self) -> Result<()> {
        while !self.output.is_empty() {
            match self.stream.write(&self.output) {
                Ok(count) => self.output.advance(count),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error).context("writing to the server"),
            }
        }
        Ok(())
    }
}
