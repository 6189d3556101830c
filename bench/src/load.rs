//! A closed loop over many connections: each has so many requests in flight, and sends the next
//! when one is answered.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::io;
use std::rc::Rc;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use hdrhistogram::Histogram;
use joblog_protocol::frame::put_request;
use joblog_protocol::job::BatchBuilder;
use joblog_protocol::messages::enqueue::Enqueue;
use joblog_protocol::messages::fetch::{Fetch, FetchReply, LeaseKind};
use joblog_protocol::messages::handles::{Handle, HandleSet, HandleSets};
use joblog_protocol::messages::lease::Commit;
use joblog_protocol::{Job, Opcode};
use smallvec::smallvec;
use tokio::runtime::Builder;
use tokio::task::LocalSet;

use crate::Options;
use crate::cpu;
use crate::wire::Wire;

/// What the load does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Workload {
    Enqueue,
    FetchCommit,
}

/// What was measured.
pub(crate) struct Report {
    jobs: usize,
    elapsed: Duration,
    server_cpu: Option<Duration>,
    latency_us: Histogram<u64>,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rate = self.jobs as f64 / self.elapsed.as_secs_f64();
        let at = |quantile| self.latency_us.value_at_quantile(quantile);
        write!(f, "{} jobs, {rate:.0} a second, ", self.jobs)?;
        write!(f, "p50 {} us, p99 {} us, max {} us", at(0.5), at(0.99), self.latency_us.max())?;
        if let Some(cpu) = self.server_cpu {
            write!(f, ", server CPU {:.2} us a job", cpu.as_secs_f64() * 1e6 / self.jobs as f64)?;
        }
        Ok(())
    }
}

/// What all connections share.
struct Shared {
    options: Options,
    /// Jobs that no request has claimed yet.
    unclaimed: Cell<usize>,
    done: Cell<usize>,
    latency_us: RefCell<Histogram<u64>>,
}

impl Shared {
    /// Claims up to a batch of the jobs that are left.
    fn claim(&self) -> usize {
        let count = self.unclaimed.get().min(self.options.batch);
        self.unclaimed.set(self.unclaimed.get() - count);
        count
    }

    fn answered(&self, sent: Instant, jobs: usize) {
        self.done.set(self.done.get() + jobs);
        self.latency_us.borrow_mut().saturating_record(sent.elapsed().as_micros() as u64);
    }
}

/// Runs a load to its end.
pub(crate) fn run(workload: Workload, options: &Options) -> io::Result<Report> {
    let histogram = || Histogram::new_with_bounds(1, 60_000_000, 3).map_err(io::Error::other);
    let shared = Rc::new(Shared {
        options: options.clone(),
        unclaimed: Cell::new(options.jobs),
        done: Cell::new(0),
        latency_us: RefCell::new(histogram()?),
    });
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let (elapsed, server_cpu) = LocalSet::new().block_on(&runtime, async {
        let mut wires = Vec::new();
        for _ in 0..options.connections {
            wires.push(Wire::connect(&options.server).await?);
        }
        let cpu_before = options.pid.and_then(cpu::used);
        let begun = Instant::now();
        let start = |wire| {
            let shared = Rc::clone(&shared);
            tokio::task::spawn_local(async move {
                match workload {
                    Workload::Enqueue => enqueue(wire, &shared).await,
                    Workload::FetchCommit => fetch_commit(wire, &shared).await,
                }
            })
        };
        for task in wires.into_iter().map(start).collect::<Vec<_>>() {
            task.await.map_err(io::Error::other)??;
        }
        let cpu_used = options.pid.and_then(cpu::used).zip(cpu_before);
        let server_cpu = cpu_used.map(|(after, before)| after - before);
        io::Result::Ok((begun.elapsed(), server_cpu))
    })?;
    if shared.done.get() != options.jobs {
        let text = format!("{} of {} jobs were done", shared.done.get(), options.jobs);
        return Err(io::Error::other(text));
    }
    let latency_us = std::mem::replace(&mut *shared.latency_us.borrow_mut(), histogram()?);
    Ok(Report { jobs: options.jobs, elapsed, server_cpu, latency_us })
}

async fn enqueue(mut wire: Wire, shared: &Shared) -> io::Result<()> {
    let options = &shared.options;
    let mut builder = BatchBuilder::default();
    for _ in 0..options.batch {
        builder.push(&Job::new(vec![b'x'; options.bytes])).map_err(io::Error::other)?;
    }
    let mut request = BytesMut::new();
    let message = Enqueue { queue: &options.queue, create: true, batch: builder.batch() };
    put_request(&mut request, Opcode::Enqueue, 0, |out| message.encode(out));
    let request: Bytes = request.freeze();

    let mut sent = std::collections::VecDeque::new();
    loop {
        let mut burst = BytesMut::new();
        while sent.len() < options.in_flight {
            let count = shared.claim();
            if count == 0 {
                break;
            }
            sent.push_back(Instant::now());
            burst.extend_from_slice(&request);
        }
        if !burst.is_empty() {
            wire.send(&burst).await?;
        }
        let Some(at) = sent.pop_front() else { return Ok(()) };
        wire.reply().await?;
        shared.answered(at, options.batch);
    }
}

/// A worker: each FETCH carries the commits of the jobs before. A pop that returned nothing is no
/// job, so the load ends with an error if the queue runs dry.
async fn fetch_commit(mut wire: Wire, shared: &Shared) -> io::Result<()> {
    let options = &shared.options;
    let mut commits: Vec<HandleSets<'_>> = vec![HandleSets::new(); options.in_flight];
    let mut in_flight = 0;
    let mut idle: Vec<usize> = (0..options.in_flight).collect();
    let mut sent = vec![Instant::now(); options.in_flight];
    loop {
        let mut burst = BytesMut::new();
        while let Some(place) = idle.pop() {
            let count = shared.claim();
            if count == 0 {
                break;
            }
            let fetch = Fetch {
                queues: smallvec![options.queue.as_str()],
                group: "",
                jobs_max: count as u32,
                bytes_max: u32::MAX,
                wait_ms: 0,
                lease: LeaseKind::Session { run_ms_max: None },
                commits: commits.get_mut(place).map(std::mem::take).unwrap_or_default(),
            };
            put_request(&mut burst, Opcode::Fetch, place as u64, |out| fetch.encode(out));
            if let Some(at) = sent.get_mut(place) {
                *at = Instant::now();
            }
            in_flight += 1;
        }
        if !burst.is_empty() {
            wire.send(&burst).await?;
        }
        if in_flight == 0 {
            break;
        }
        let (place, body) = wire.reply().await?;
        in_flight -= 1;
        let place = place as usize;
        let reply = FetchReply::decode(&body).map_err(io::Error::other)?;
        if reply.jobs.is_empty() {
            return Err(io::Error::other("the queue is empty; enqueue as many jobs before"));
        }
        let handles = reply
            .jobs
            .iter()
            .filter_map(|job| job.token.map(|token| Handle { offset: job.offset, token }));
        let set = HandleSet { queue: &options.queue, group: "", handles: handles.collect() };
        if let (Some(at), Some(place)) = (sent.get(place), commits.get_mut(place)) {
            shared.answered(*at, set.handles.len());
            *place = smallvec![set];
        }
        idle.push(place);
    }
    commit_last(&mut wire, commits).await
}

async fn commit_last(wire: &mut Wire, commits: Vec<HandleSets<'_>>) -> io::Result<()> {
    for sets in commits.into_iter().filter(|sets| !sets.is_empty()) {
        let mut request = BytesMut::new();
        let commit = Commit::Jobs(sets);
        put_request(&mut request, Opcode::Commit, 0, |out| commit.encode(out));
        wire.send(&request).await?;
        wire.reply().await?;
    }
    Ok(())
}
