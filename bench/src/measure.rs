//! One round of one workload against one server, checked to the last job.

use std::collections::BTreeMap;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use hdrhistogram::Histogram;

use crate::engine::{self, Outcome};
use crate::payload::Ledger;
use crate::proc::disk_bytes;
use crate::result::{Footprint, Latency, Round, SystemMeasure};
use crate::systems::Server;
use crate::workload::{FILL_BATCH, Kind, Workload};

/// Between phases everything dirty is written, and the machine gets this long to come to rest.
const SETTLE_TIME: Duration = Duration::from_millis(30);
/// Jobs that are taken from a backlog at full speed before the rest is drained.
const BACKLOG_SAMPLE: u64 = 100_000;

/// What a round gave, by the name of what was timed.
#[derive(Debug, Default)]
pub(crate) struct Rounds {
    /// System calls of the server in a round of its own.
    pub(crate) syscalls_per_job: Option<f64>,
    pub(crate) measures: BTreeMap<&'static str, (Vec<Round>, Histograms)>,
}

/// The latencies of all rounds.
#[derive(Debug)]
pub(crate) struct Histograms(Histogram<u64>);

impl Rounds {
    fn add(&mut self, name: &'static str, jobs: u64, outcome: &Outcome, nanos: &Histogram<u64>) {
        let empty = || (Vec::new(), Histograms(engine::histogram()));
        let (rounds, all) = self.measures.entry(name).or_insert_with(empty);
        rounds.push(round(jobs, outcome, nanos));
        all.0.add(nanos).expect("histograms have the same bounds");
    }

    /// The rates of a measure, round by round.
    pub(crate) fn rates(&self, name: &str) -> Vec<f64> {
        let rounds = self.measures.get(name).map_or(&[][..], |(rounds, _)| rounds);
        rounds.iter().map(|round| round.jobs_per_second).collect()
    }

    /// The median latencies of a measure, round by round.
    pub(crate) fn latencies(&self, name: &str) -> Vec<f64> {
        let rounds = self.measures.get(name).map_or(&[][..], |(rounds, _)| rounds);
        rounds.iter().map(|round| round.latency_p50_us).collect()
    }

    /// All rounds of a measure in one.
    pub(crate) fn summary(&self, name: &str, server: &Server) -> Option<SystemMeasure> {
        let (rounds, nanos) = self.measures.get(name)?;
        let of = |field: fn(&Round) -> f64| rounds.iter().map(field).collect::<Vec<_>>();
        let rates = of(|round| round.jobs_per_second);
        Some(SystemMeasure {
            system: server.system.name().into(),
            loses: server.system.loses(server.class).unwrap_or_default().into(),
            jobs_per_second: crate::stats::median(&rates),
            jobs_per_second_min: rates.iter().copied().fold(f64::INFINITY, f64::min),
            jobs_per_second_max: rates.iter().copied().fold(0.0, f64::max),
            server_cpu_us_per_job: crate::stats::median(&of(|round| round.server_cpu_us_per_job)),
            server_syscalls_per_job: self.syscalls_per_job,
            latency_us: Latency::of(&nanos.0),
            rounds: rounds.clone(),
        })
    }
}

fn round(jobs: u64, outcome: &Outcome, nanos: &Histogram<u64>) -> Round {
    let per_job = |time: Duration| time.as_secs_f64() * 1e6 / jobs as f64;
    let known = outcome.server.cpu + outcome.generator.cpu;
    Round {
        seconds: outcome.elapsed.as_secs_f64(),
        jobs_per_second: jobs as f64 / outcome.elapsed.as_secs_f64(),
        latency_p50_us: nanos.value_at_quantile(0.5) as f64 / 1_000.0,
        server_cpu_us_per_job: per_job(outcome.server.cpu),
        server_kernel_us_per_job: per_job(outcome.server.system),
        generator_cpu_us_per_job: per_job(outcome.generator.cpu),
        other_cpu_us_per_job: per_job(outcome.machine_busy.saturating_sub(known)),
        server_waits_per_job: outcome.server.waits as f64 / jobs as f64,
        server_preempted_per_job: outcome.server.preempted as f64 / jobs as f64,
        empty_answers: outcome.empty,
    }
}

/// Writes back what is dirty, so that one system's pages do not cost the other's round.
pub(crate) fn settle() {
    rustix::fs::sync();
    thread::sleep(SETTLE_TIME);
}

/// Runs one round. `run` is a number that no other round of this server has.
///
/// # Errors
/// Anything that went wrong, and any job that did not come back exactly once and undamaged.
pub(crate) fn run(
    server: &mut Server,
    workload: &Workload,
    jobs: u64,
    run: u32,
    rounds: &mut Rounds,
) -> Result<Option<Footprint>> {
    let name = server.system.name();
    let queues: Vec<String> = (0..workload.queues).map(|at| format!("q{run}-{at}")).collect();
    let mut ledger = Ledger::new(run, jobs);
    let epoch = Instant::now();
    settle();
    let footprint = match workload.kind {
        Kind::Backlog { .. } => {
            Some(backlog(server, workload, &queues, (&mut ledger, jobs), epoch, rounds)?)
        }
        Kind::Apart => {
            let plan = workload.enqueue(&queues, 0..jobs);
            let outcome = engine::run(server, &plan, &mut ledger, epoch)
                .with_context(|| format!("{name}: enqueueing"))?;
            rounds.add("enqueue", jobs, &outcome, &outcome.enqueue_ns);
            settle();
            let plan = workload.consume(&queues, jobs, server.system);
            let outcome = engine::run(server, &plan, &mut ledger, epoch)
                .with_context(|| format!("{name}: consuming"))?;
            rounds.add("consume", jobs, &outcome, &outcome.take_ns);
            None
        }
        Kind::Together | Kind::HandOff | Kind::Open { .. } => {
            let outcome = engine::run(server, &workload.both(&queues, jobs), &mut ledger, epoch)
                .with_context(|| format!("{name}: enqueueing and consuming"))?;
            rounds.add("through", jobs, &outcome, &outcome.hand_off_ns);
            if matches!(workload.kind, Kind::Open { .. }) {
                rounds.add("enqueue", jobs, &outcome, &outcome.enqueue_ns);
            }
            None
        }
    };
    // Jobs that a crash took with it are not missed: a footprint then says that they are lost.
    if footprint.as_ref().is_none_or(|footprint| footprint.restart_ms.is_some()) {
        ledger.close().with_context(|| format!("{name}: the run is wrong"))?;
    }
    engine::check_empty(server, &queues, workload.payload_bytes)
        .with_context(|| format!("{name}: the run is wrong"))?;
    Ok(footprint)
}

/// Fills, weighs, consumes a part at full speed, kills and restarts the server, drains the rest.
fn backlog(
    server: &mut Server,
    workload: &Workload,
    queues: &[String],
    (ledger, jobs): (&mut Ledger, u64),
    epoch: Instant,
    rounds: &mut Rounds,
) -> Result<Footprint> {
    let empty = server.memory().anonymous;
    engine::run(server, &workload.fill(queues, jobs), ledger, epoch)?;
    settle();
    let memory = server.memory();
    let disk = disk_bytes(server.data());

    let sample = BACKLOG_SAMPLE.min(jobs / 2);
    let plan = workload.consume(queues, sample, server.system);
    let outcome = engine::run(server, &plan, ledger, epoch)?;
    rounds.add("consume", sample, &outcome, &outcome.take_ns);

    server.kill();
    ledger.after_kill();
    let begun = Instant::now();
    server.start_again()?;
    let one = workload.consume(queues, 1, server.system);
    let one = engine::Plan { consumers: 1, consumer_slots: 1, may_be_empty: true, ..one };
    let lost = engine::run(server, &one, ledger, epoch)?.empty > 0;
    let mut restart_ms = None;
    if !lost {
        restart_ms = Some(begun.elapsed().as_secs_f64() * 1_000.0);
        let left = jobs - ledger.back();
        let last = sample.min(left / 2);
        let rest = workload.consume(queues, left - last, server.system);
        engine::run(
            server,
            &engine::Plan { batch: FILL_BATCH, slow: None, ..rest },
            ledger,
            epoch,
        )?;
        // The last jobs ought to cost what the first did.
        let plan = workload.consume(queues, last, server.system);
        let outcome = engine::run(server, &plan, ledger, epoch)?;
        rounds.add("consume-last", last, &outcome, &outcome.take_ns);
    }
    Ok(Footprint {
        system: server.system.name().into(),
        backlog: jobs,
        memory_empty_bytes: empty,
        memory_bytes: memory.anonymous,
        mapped_bytes: memory.mapped,
        disk_bytes: disk,
        restart_ms,
        consumed_again: ledger.again(),
    })
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::process::Command;

    use bytes::BytesMut;

    use super::*;
    use crate::systems::{self, Class, Event, Payloads, Places, Setup, Sink, System, Talk};

    /// What is done to one job on its way to the consumer.
    #[derive(Clone, Copy)]
    enum Fault {
        None,
        Drop,
        Double,
        Damage,
    }

    /// Redis, with a fault in between.
    struct Faulty(Fault);

    struct FaultyTalk {
        inner: Box<dyn Talk>,
        fault: Fault,
        jobs: usize,
    }

    impl System for Faulty {
        fn name(&self) -> &'static str {
            "redis"
        }
        fn how(&self) -> &'static str {
            "with a fault"
        }
        fn program(&self) -> &'static str {
            "redis-server"
        }
        fn package(&self) -> &'static str {
            "install redis-server (Debian: apt-get install redis-server)"
        }
        fn version(&self, _program: &Path) -> String {
            String::new()
        }
        fn loses(&self, _class: Class) -> Result<&'static str, &'static str> {
            Ok("everything")
        }
        fn command(&self, program: &Path, class: Class, dir: &Path, port: u16) -> Result<Command> {
            systems::find("redis").unwrap().command(program, class, dir, port)
        }
        fn talk(&self, setup: Setup) -> Box<dyn Talk> {
            let inner = systems::find("redis").unwrap().talk(setup);
            Box::new(FaultyTalk { inner, fault: self.0, jobs: 0 })
        }
    }

    impl Talk for FaultyTalk {
        fn put_greeting(&mut self, out: &mut BytesMut) {
            self.inner.put_greeting(out);
        }
        fn put_enqueue(
            &mut self,
            slot: usize,
            queue: &str,
            jobs: Payloads<'_>,
            out: &mut BytesMut,
        ) {
            self.inner.put_enqueue(slot, queue, jobs, out);
        }
        fn put_take(
            &mut self,
            slot: usize,
            queue: &str,
            max: usize,
            wait: bool,
            out: &mut BytesMut,
        ) {
            self.inner.put_take(slot, queue, max, wait, out);
        }
        fn put_finish(&mut self, out: &mut BytesMut) -> bool {
            self.inner.put_finish(out)
        }
        fn read(&mut self, input: &mut BytesMut, sink: &mut Sink<'_>) -> Result<()> {
            let Self { inner, fault, jobs } = self;
            inner.read(input, &mut |event| {
                let Event::Job { slot, payload } = event else { return sink(event) };
                *jobs += 1;
                match fault {
                    _ if *jobs != 7 => sink(event),
                    Fault::None => sink(event),
                    Fault::Drop => Ok(()),
                    Fault::Double => {
                        sink(event)?;
                        sink(event)
                    }
                    Fault::Damage => {
                        let mut damaged = payload.to_vec();
                        damaged[40] ^= 1;
                        sink(Event::Job { slot, payload: &damaged })
                    }
                }
            })
        }
    }

    fn round_with(system: &'static Faulty) -> Result<()> {
        let dir = tempfile::tempdir().unwrap();
        let places = Places {
            joblogd: None,
            kafka: None,
            dir: dir.path().to_owned(),
            pinned: false,
            memory_cap: None,
        };
        let mut server = Server::start(system, Class::Memory, &places)?;
        let one = crate::workload::find("c1")?;
        let mut rounds = Rounds::default();
        run(&mut server, &one, 50, 3, &mut rounds)?;
        assert_eq!(rounds.rates("enqueue").len(), 1);
        assert_eq!(rounds.rates("consume").len(), 1);
        Ok(())
    }

    #[test]
    fn a_job_that_is_doubled_or_damaged_fails_the_round() {
        round_with(&Faulty(Fault::None)).unwrap();
        for (system, words) in
            [(&Faulty(Fault::Double), "was consumed twice"), (&Faulty(Fault::Damage), "damaged")]
        {
            let error = format!("{:#}", round_with(system).unwrap_err());
            assert!(error.contains(words), "{error}");
        }
    }

    #[test]
    fn a_job_that_is_lost_fails_the_round() {
        let error = format!("{:#}", round_with(&Faulty(Fault::Drop)).unwrap_err());
        assert!(error.contains("did not come"), "{error}");
    }
}
