//! The small client beside the heavy work: one connection, one request in flight, a job at a time
//! through a queue of its own.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::SyncSender;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Result;
use hdrhistogram::Histogram;
use joblog_protocol::Opcode;
use joblog_protocol::messages::fetch::{Fetch, FetchReply, LeaseKind};
use joblog_protocol::messages::handles::{Handle, HandleSet, HandleSets};
use smallvec::smallvec;

use super::bulk;
use super::wire::Client;
use crate::engine::histogram;
use crate::stats::ms;

/// Its queue: by name before all others.
pub(super) const QUEUE: &str = "beside";
/// A request begins each so often, if the one before is answered.
const PACE: Duration = Duration::from_millis(1);
/// Jobs before anything is measured.
const WARM_UP_JOBS: usize = 25;
const PAYLOAD_BYTES: usize = 100;

/// How long its requests took.
pub(super) struct Waits {
    ns: Histogram<u64>,
}

impl Waits {
    pub(super) fn requests(&self) -> u64 {
        self.ns.len()
    }

    pub(super) fn p99_ms(&self) -> f64 {
        ms(Duration::from_nanos(self.ns.value_at_quantile(0.99)))
    }

    pub(super) fn longest_ms(&self) -> f64 {
        ms(Duration::from_nanos(self.ns.max()))
    }
}

/// Runs until `stop`, and tells `ready` when measuring begins.
pub(super) fn run(
    address: &str,
    patience: Duration,
    stop: &AtomicBool,
    ready: &SyncSender<()>,
) -> Result<Waits> {
    let mut small = Small { client: Client::connect(address, patience)?, held: None };
    for _ in 0..WARM_UP_JOBS {
        small.enqueue()?;
        small.take()?;
    }
    // The other side only goes away when the measurement has failed.
    let _listening = ready.send(());
    let mut ns = histogram();
    let mut turn = 0_u64;
    while !stop.load(Ordering::Relaxed) {
        let begun = Instant::now();
        if turn.is_multiple_of(2) {
            small.enqueue()?
        } else {
            small.take()?
        }
        turn += 1;
        let took = begun.elapsed();
        // A wait stands also for the requests that would have begun meanwhile.
        ns.record_correct(took.as_nanos() as u64, PACE.as_nanos() as u64)?;
        thread::sleep(PACE.saturating_sub(took));
    }
    Ok(Waits { ns })
}

struct Small {
    client: Client,
    held: Option<Handle>,
}

impl Small {
    fn enqueue(&mut self) -> Result<()> {
        let batch = bulk::batch(1, PAYLOAD_BYTES, None)?;
        self.client.ask(Opcode::Enqueue, |out| bulk::put_enqueue(out, QUEUE, &batch)).map(drop)
    }

    /// Takes a job, and commits the one before. A lease may be lost where the server stood still
    /// for long; the job then comes again, which is as good.
    fn take(&mut self) -> Result<()> {
        let held = self.held.take().map(|handle| HandleSet {
            queue: QUEUE,
            group: "",
            handles: smallvec![handle],
        });
        let fetch = Fetch {
            queues: smallvec![QUEUE],
            group: "",
            jobs_max: 1,
            bytes_max: u32::MAX,
            wait_ms: 0,
            lease: LeaseKind::Session { run_ms_max: None },
            by_turns: false,
            commits: held.into_iter().collect::<HandleSets<'_>>(),
        };
        let body = self.client.ask(Opcode::Fetch, |out| fetch.encode(out))?;
        let reply = FetchReply::decode(&body)?;
        let job = reply.jobs.first().and_then(|job| Some((job.offset, job.token?)));
        self.held = job.map(|(offset, token)| Handle { offset, token });
        Ok(())
    }
}
