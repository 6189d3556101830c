//! A server of its own for each trial, and what is measured on it: the heavy work, the small
//! client beside it, and the server's memory.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::sync_channel;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use joblog_protocol::Opcode;
use joblog_protocol::messages::admin::{self, CreateQueue, ListQueues, QueueSettings};
use joblog_protocol::messages::stats::{GroupStats, Stats};

use super::wire::Client;
use super::{Trial, beside};
use crate::proc;
use crate::result::{Growth, Neighbour};
use crate::stats::ms;
use crate::systems::{self, Server};

/// How long the small client is watched after the heavy work, and when memory is looked at again.
const AFTER: Duration = Duration::from_millis(500);
/// Between two looks at the memory, or at the server's numbers.
const LOOK: Duration = Duration::from_millis(10);
/// The small client begins so long before something is due.
const LEAD: Duration = Duration::from_millis(200);
/// For so long an idle server is watched.
const IDLE: Duration = Duration::from_secs(3);

/// How a server ends before it is started again.
#[derive(Clone, Copy, Debug)]
pub(super) enum End {
    /// SIGTERM, and it stops by itself.
    Stop,
    /// SIGKILL.
    Kill,
}

/// Runs what needs a time to put everything in place, and with more time if that was too short:
/// then it gives nothing.
pub(super) fn with_time(
    time: Duration,
    run: impl Fn(Duration) -> Result<Option<Ground>>,
) -> Result<Vec<Growth>> {
    for factor in [1, 4, 16] {
        if let Some(ground) = run(time * factor)? {
            return Ok(ground.into_rows());
        }
    }
    bail!("the machine is too busy to put everything in place before it is due")
}

/// A server with the state that grows, and the rows measured so far.
pub(super) struct Ground {
    server: Server,
    pid: u32,
    trial: Trial,
    rows: Vec<Growth>,
}

impl Ground {
    /// Starts a server in a fresh directory, with the queue of the small client.
    pub(super) fn start(trial: &Trial) -> Result<Self> {
        let server = Server::start(systems::find("joblog")?, trial.class, &trial.places)?;
        let pid = leader(&server)?;
        let ground = Self { server, pid, trial: trial.clone(), rows: Vec::new() };
        let queue = beside::QUEUE.to_owned();
        let request = CreateQueue { queue, settings: QueueSettings::default() };
        ground.client()?.ask_json(Opcode::CreateQueue, &request)?;
        Ok(ground)
    }

    /// The rows measured.
    pub(super) fn into_rows(self) -> Vec<Growth> {
        self.rows
    }

    /// The row measured last, to add to it.
    pub(super) fn last_row(&mut self) -> Result<&mut Growth> {
        self.rows.last_mut().context("nothing is measured yet")
    }

    /// The server's process.
    pub(super) fn server(&self) -> &Server {
        &self.server
    }

    /// Opens a connection with a session of its own.
    pub(super) fn client(&self) -> Result<Client> {
        Client::connect(&self.server.address, self.trial.patience)
    }

    /// Does the heavy work, which gives whether it ended in time, and adds a row.
    pub(super) fn measure(
        &mut self,
        work: impl Into<String>,
        heavy: impl FnOnce() -> Result<bool>,
    ) -> Result<()> {
        self.measure_from(Instant::now(), work, heavy)
    }

    /// As [`measure`](Self::measure), of work that the server does by itself from `due` on.
    pub(super) fn measure_from(
        &mut self,
        due: Instant,
        work: impl Into<String>,
        heavy: impl FnOnce() -> Result<bool>,
    ) -> Result<()> {
        let before = self.memory_bytes();
        let (stop, peak) = (AtomicBool::new(false), AtomicU64::new(before));
        let (address, patience) = (self.server.address.clone(), self.trial.patience);
        let (ready, is_ready) = sync_channel(1);
        let pid = self.pid;
        let (took, ended, after, waits) = thread::scope(|scope| {
            let small = scope.spawn(|| beside::run(&address, patience, &stop, &ready));
            scope.spawn(|| watch_memory(pid, &stop, &peak));
            // If it fails, its error is told when it is joined.
            let _ready = is_ready.recv_timeout(patience);
            let begun = due.max(Instant::now());
            let outcome = heavy();
            let took = begun.elapsed();
            if outcome.is_ok() {
                thread::sleep(AFTER);
            }
            let after = proc::memory(pid).anonymous;
            stop.store(true, Ordering::Relaxed);
            let waits = small.join().map_err(|_| anyhow!("the small client panicked"))?;
            let waits = outcome.and_then(|ended| Ok((ended, waits.context("the small client")?)));
            waits.map(|(ended, waits)| (took, ended, after, waits))
        })?;
        self.rows.push(Growth {
            work: work.into(),
            took_ms: Some(ms(took)),
            ended,
            beside: Some(Neighbour {
                requests: waits.requests(),
                p99_ms: waits.p99_ms(),
                longest_ms: waits.longest_ms(),
            }),
            memory_before_bytes: before,
            memory_peak_bytes: peak.into_inner(),
            memory_after_bytes: after,
            ..self.row()
        });
        Ok(())
    }

    /// Measures what the server does by itself from `due` on, until this holds for all groups of
    /// the queue that grows. Gives false, and measures nothing, if there is no time left before.
    pub(super) fn measure_due(
        &mut self,
        due: Instant,
        work: &str,
        holds: impl Fn(&GroupStats) -> bool,
    ) -> Result<bool> {
        let mut watcher = self.watcher()?;
        let Some(left) = due.checked_duration_since(Instant::now() + LEAD) else {
            return Ok(false);
        };
        thread::sleep(left);
        self.measure_from(due, work, || {
            thread::sleep(due.saturating_duration_since(Instant::now()));
            watcher.until(holds)
        })?;
        Ok(true)
    }

    /// Adds a row that nothing is measured for yet.
    pub(super) fn add_row(&mut self, work: &str, took: Option<Duration>) {
        let memory = self.memory_bytes();
        self.rows.push(Growth {
            work: work.into(),
            took_ms: took.map(ms),
            memory_before_bytes: memory,
            memory_peak_bytes: memory,
            memory_after_bytes: memory,
            ..self.row()
        });
    }

    fn row(&self) -> Growth {
        Growth {
            kind: self.trial.kind.into(),
            size: self.trial.size,
            class: self.trial.class,
            work: String::new(),
            took_ms: None,
            ended: true,
            beside: None,
            memory_before_bytes: 0,
            memory_peak_bytes: 0,
            memory_after_bytes: 0,
            next_start_ms: None,
            idle_cpu_percent: None,
            load_average: proc::load_average(),
        }
    }

    /// The server's own memory.
    pub(super) fn memory_bytes(&self) -> u64 {
        proc::memory(self.pid).anonymous
    }

    /// Ends the server and starts it again on its data; gives the time until it answers a greeting.
    pub(super) fn restart(&mut self, end: End) -> Result<Duration> {
        match end {
            End::Stop => self.server.stop(self.trial.patience)?,
            End::Kill => self.server.kill(),
        }
        let begun = Instant::now();
        self.server.start_again()?;
        // It listens before it has read its log.
        self.client()?;
        let took = begun.elapsed();
        self.pid = leader(&self.server)?;
        Ok(took)
    }

    /// Starts the server again, and notes in the last row how long that took.
    pub(super) fn note_next_start(&mut self, end: End) -> Result<()> {
        let took = self.restart(end)?;
        self.last_row()?.next_start_ms = Some(ms(took));
        Ok(())
    }

    /// Notes in the last row how much of a core the server takes when nobody asks anything.
    pub(super) fn note_idle_cpu(&mut self) -> Result<()> {
        let before = proc::usage(self.pid).cpu;
        thread::sleep(IDLE);
        let used = proc::usage(self.pid).cpu.saturating_sub(before);
        self.last_row()?.idle_cpu_percent = Some(100.0 * used.as_secs_f64() / IDLE.as_secs_f64());
        Ok(())
    }

    /// Something that waits for the groups of the queue that grows.
    pub(super) fn watcher(&self) -> Result<Watcher> {
        Ok(Watcher { client: self.client()?, patience: self.trial.patience })
    }
}

/// Looks at the groups of the queue that grows again and again.
pub(super) struct Watcher {
    client: Client,
    patience: Duration,
}

impl Watcher {
    /// Waits until this holds for all groups; gives false if it does not in time.
    pub(super) fn until(&mut self, holds: impl Fn(&GroupStats) -> bool) -> Result<bool> {
        let until = Instant::now() + self.patience;
        let request = ListQueues { after: beside::QUEUE.into(), limit: 1 };
        while Instant::now() < until {
            let stats: Stats = admin::decode(&self.client.ask_json(Opcode::Stats, &request)?)?;
            if stats.queues.iter().flat_map(|queue| &queue.groups).all(&holds) {
                return Ok(true);
            }
            thread::sleep(LOOK);
        }
        Ok(false)
    }
}

fn leader(server: &Server) -> Result<u32> {
    server.pids().first().copied().context("the server has no process")
}

fn watch_memory(pid: u32, stop: &AtomicBool, peak: &AtomicU64) {
    while !stop.load(Ordering::Relaxed) {
        peak.fetch_max(proc::memory(pid).anonymous, Ordering::Relaxed);
        thread::sleep(LOOK);
    }
}
