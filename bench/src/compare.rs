//! Systems side by side: round by round in turn, so that what disturbs the machine disturbs all.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use indicatif::{ProgressBar, ProgressStyle};

use crate::machine::Machine;
use crate::measure::{self, Rounds};
use crate::result::{
    Comparison, Footprint, Measure, Missing, Quantity, Report, SystemInfo, WorkloadResult,
};
use crate::stats::{median, ratio};
use crate::syscalls::Count;
use crate::systems::{Class, Places, Server, System};
use crate::workload::{Kind, Workload};

/// Jobs of the first warm-up, from whose rate the number of jobs of a round follows.
const WARM_UP_JOBS: u64 = 2_000;
/// The number of the round in which system calls are counted.
const SYSCALLS_RUN: u32 = 99;
/// A load on schedule goes on at least so long, or it has no tail.
const OPEN_SECONDS_MIN: f64 = 0.5;
const JOBS_MIN: u64 = 300;
const JOBS_MAX: u64 = 400_000;

/// What to compare, and how.
#[derive(Clone, Debug)]
pub(crate) struct Options {
    pub(crate) rounds: usize,
    /// Aimed at for each timed phase.
    pub(crate) round_seconds: f64,
    /// Jobs in each round, instead of as many as the time allows.
    pub(crate) jobs: Option<u64>,
    pub(crate) goal: f64,
    /// Count system calls in a round of their own.
    pub(crate) syscalls: bool,
    pub(crate) places: Places,
    pub(crate) json: Option<PathBuf>,
}

/// Runs workloads at classes, and saves the report after each.
pub(crate) fn run(
    systems: &[&'static dyn System],
    classes: &[Class],
    workloads: &[Workload],
    options: &Options,
) -> Result<Report> {
    let mut report = Report::new(Machine::here(&options.places.dir)?);
    let present = take_roll(systems, &options.places, &mut report);
    ensure!(!present.is_empty(), "none of the systems is installed: {:?}", report.missing);
    let steps = classes.len() * workloads.len();
    let bar = progress(steps as u64);
    for class in classes {
        for workload in workloads {
            bar.set_message(format!("{} at {}", workload.name, class.name()));
            if let Some(result) = one(&present, *class, workload, options, &mut report, &bar)? {
                bar.suspend(|| crate::report::text::print(&result));
                report.results.push(result);
            }
            bar.inc(1);
            report.save(options.json.as_deref())?;
        }
    }
    bar.finish_and_clear();
    for missing in &report.missing {
        eprintln!("not measured: {}: {}", missing.system, missing.why);
    }
    Ok(report)
}

/// Finds out which systems are installed, and names those that are not.
pub(crate) fn take_roll(
    systems: &[&'static dyn System],
    places: &Places,
    report: &mut Report,
) -> Vec<&'static dyn System> {
    let mut present = Vec::new();
    for system in systems {
        match places.program(*system) {
            Ok(program) => {
                let info = SystemInfo {
                    name: system.name().into(),
                    how: system.how().into(),
                    version: system.version(&program),
                    program: program.display().to_string(),
                };
                eprintln!("{}: {} ({})", info.name, info.program, info.version);
                report.systems.push(info);
                present.push(*system);
            }
            Err(error) => {
                miss(report, *system, &format!("{error:#}"), false);
            }
        }
    }
    present
}

fn miss(report: &mut Report, system: &dyn System, why: &str, by_nature: bool) {
    let missing = Missing { system: system.name().into(), why: why.into(), by_nature };
    if !report.missing.contains(&missing) {
        report.missing.push(missing);
    }
}

pub(crate) fn progress(steps: u64) -> ProgressBar {
    let bar = ProgressBar::new(steps);
    let style = ProgressStyle::with_template("{elapsed_precise} [{bar:30}] {pos}/{len} {msg}");
    if let Ok(style) = style {
        bar.set_style(style);
    }
    bar.enable_steady_tick(std::time::Duration::from_millis(500));
    bar
}

/// One workload at one class; nothing if no system can do it.
fn one(
    systems: &[&'static dyn System],
    class: Class,
    workload: &Workload,
    options: &Options,
    report: &mut Report,
    bar: &ProgressBar,
) -> Result<Option<WorkloadResult>> {
    let mut servers = Vec::new();
    for system in systems {
        if let Err(why) = system.loses(class) {
            miss(report, *system, &format!("class {}: {why}", class.name()), true);
        } else if let Some(why) = workload.refuses(*system) {
            miss(report, *system, &format!("workload {}: {why}", workload.name), true);
        } else {
            match Server::start(*system, class, &options.places) {
                Ok(server) => servers.push((server, Rounds::default())),
                Err(error) => miss(report, *system, &format!("{error:#}"), false),
            }
        }
    }
    if servers.is_empty() {
        return Ok(None);
    }
    let place = || format!("{} at class {}", workload.name, class.name());
    let load_average = crate::proc::load_average();
    let jobs = warm_up(&mut servers, workload, options).with_context(place)?;
    let rounds = if matches!(workload.kind, Kind::Backlog { .. }) { 1 } else { options.rounds };
    let mut footprints: Vec<Footprint> = Vec::new();
    for round in 0..rounds {
        for (server, results) in &mut servers {
            let name = server.system.name();
            bar.set_message(format!("{} round {} {name}", place(), round + 1));
            let run = 100 + round as u32;
            let footprint =
                measure::run(server, workload, jobs, run, results).with_context(place)?;
            footprints.extend(footprint);
        }
    }
    if options.syscalls && !matches!(workload.kind, Kind::Backlog { .. }) {
        for (server, results) in &mut servers {
            let count = Count::start(&server.pids())?;
            measure::run(server, workload, jobs, SYSCALLS_RUN, &mut Rounds::default())?;
            results.syscalls_per_job = Some(count.stop()? as f64 / jobs as f64);
        }
    }
    Ok(Some(WorkloadResult {
        workload: workload.name.into(),
        stands_for: workload.stands_for.into(),
        class,
        connections: workload.connections,
        in_flight: workload.in_flight,
        batch: workload.batch,
        payload_bytes: workload.payload_bytes,
        queues: workload.queues,
        jobs,
        pinned: options.places.pinned,
        order: servers.iter().map(|(server, _)| server.system.name().into()).collect(),
        load_average,
        measures: measures(&servers, workload, options.goal),
        footprints,
    }))
}

/// Runs every system once without keeping the result, and gives the number of jobs of a round.
fn warm_up(
    servers: &mut [(Server, Rounds)],
    workload: &Workload,
    options: &Options,
) -> Result<u64> {
    if let Kind::Backlog { jobs } = workload.kind {
        return Ok(jobs);
    }
    if let Some(jobs) = options.jobs {
        return Ok(jobs.max(workload.queues as u64));
    }
    if let Kind::Open { per_second } = workload.kind {
        let jobs = (per_second * options.round_seconds.max(OPEN_SECONDS_MIN)) as u64;
        for (server, _) in servers.iter_mut() {
            measure::run(server, workload, jobs, 0, &mut Rounds::default())?;
        }
        return Ok(jobs);
    }
    let mut rates = Vec::new();
    for (server, _) in servers.iter_mut() {
        let mut rounds = Rounds::default();
        let first = if workload.connections <= 2 { JOBS_MIN } else { WARM_UP_JOBS };
        let first = first.max(workload.batch as u64 * 50);
        measure::run(server, workload, first, 0, &mut rounds)?;
        let names = ["enqueue", "consume", "consume-last", "through"];
        let all = names.iter().flat_map(|name| rounds.rates(name));
        rates.push(all.fold(f64::INFINITY, f64::min));
    }
    let together = rates.iter().map(|rate| rate.ln()).sum::<f64>() / rates.len() as f64;
    let jobs = (together.exp() * options.round_seconds) as u64;
    let jobs = jobs.clamp(JOBS_MIN.max(workload.queues as u64), JOBS_MAX);
    for (server, _) in servers.iter_mut() {
        measure::run(server, workload, jobs / 2 + 1, 1, &mut Rounds::default())?;
    }
    Ok(jobs)
}

fn measures(servers: &[(Server, Rounds)], workload: &Workload, goal: f64) -> Vec<Measure> {
    let names = ["enqueue", "consume", "consume-last", "through"];
    let present = names
        .into_iter()
        .filter(|name| servers.iter().all(|(_, rounds)| rounds.measures.contains_key(name)));
    present
        .map(|name| Measure {
            name: name.into(),
            systems: servers
                .iter()
                .filter_map(|(server, rounds)| rounds.summary(name, server))
                .collect(),
            ratios: comparisons(servers, name, workload, goal),
        })
        .collect()
}

fn comparisons(
    servers: &[(Server, Rounds)],
    name: &str,
    workload: &Workload,
    goal: f64,
) -> Vec<Comparison> {
    let is_ours = |server: &Server| server.system.name() == "joblog";
    let Some((_, ours)) = servers.iter().find(|(server, _)| is_ours(server)) else {
        return Vec::new();
    };
    let timed = matches!(workload.kind, Kind::HandOff | Kind::Open { .. });
    let of = if timed { Quantity::Latency } else { Quantity::Rate };
    let others = servers.iter().filter(|(server, _)| !is_ours(server));
    others
        .map(|(server, theirs)| {
            let ratio = match of {
                Quantity::Rate => ratio(&ours.rates(name), &theirs.rates(name)),
                Quantity::Latency => ratio(&theirs.latencies(name), &ours.latencies(name)),
            };
            Comparison {
                ours: "joblog".into(),
                theirs: server.system.name().into(),
                of,
                ratio,
                goal,
                verdict: ratio.verdict(goal, ours.rates(name).len()),
            }
        })
        .collect()
}

/// Compares a result with the same workloads in reversed order: how far the medians differ.
pub(crate) fn order_differences(first: &Report, second: &Report) -> Vec<(String, f64)> {
    let mut differences = Vec::new();
    for result in &first.results {
        let same = |other: &&WorkloadResult| {
            other.workload == result.workload && other.class == result.class
        };
        let Some(other) = second.results.iter().find(same) else { continue };
        for (measure, reversed) in result.measures.iter().zip(&other.measures) {
            for (ours, theirs) in measure.ratios.iter().zip(&reversed.ratios) {
                let change = theirs.ratio.median / ours.ratio.median;
                let place = (&result.workload, result.class.name(), &measure.name, &ours.theirs);
                let (workload, class, name, system) = place;
                differences.push((format!("{workload} {class} {name}, {system}"), change));
            }
        }
    }
    differences
}

/// The median of how far an order matters.
pub(crate) fn order_effect(differences: &[(String, f64)]) -> f64 {
    median(&differences.iter().map(|(_, change)| *change).collect::<Vec<_>>())
}

/// Where data of servers is kept unless told otherwise.
pub(crate) fn default_dir() -> PathBuf {
    let own = std::env::current_exe().ok();
    let target = own.as_deref().and_then(Path::parent).map(|dir| dir.join("qbench-data"));
    target.unwrap_or_else(std::env::temp_dir)
}
