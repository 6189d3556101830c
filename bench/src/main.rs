//! `qbench`: measures Joblog beside Redis and others. `README.md` beside it says how, and what the
//! numbers mean.

mod baseline;
mod cgroup;
mod children;
mod cli;
mod compare;
mod engine;
mod growth;
mod loss;
mod machine;
mod measure;
mod payload;
mod proc;
mod report;
mod result;
mod stats;
mod syscalls;
mod systems;
mod workload;

use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::Parser;
use rustix::thread::{CpuSet, sched_setaffinity};

use cli::{Cli, Command, RunArgs};
use systems::System;
use workload::Workload;

fn main() -> ExitCode {
    let command = Cli::parse().command;
    match children::guard().and_then(|()| run(command)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("qbench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> Result<()> {
    match command {
        Command::Compare { systems, workloads, all, large, reverse, no_baseline, run } => {
            let mut systems = cli::systems(&systems)?;
            if reverse {
                systems.reverse();
            }
            compare_all(&systems, &cli::workloads(&workloads, all, large)?, !no_baseline, run)
        }
        Command::Run { workload, system, run } => {
            compare_all(&[systems::find(&system)?], &[workload::find(&workload)?], false, run)
        }
        Command::Loss(loss) => loss::run(loss.resolve()?),
        Command::LossWorker { system, address, id, queue } => {
            loss::worker::run(systems::find(&system)?, &address, id, &queue)
        }
        Command::Growth(args) => growth::run(&args.resolve()?),
        Command::Orders { first, second } => orders(&first, &second),
        Command::Report { files, out } => report::markdown::write(&files, &out),
        Command::List { json } => report::list::print(json),
    }
}

fn compare_all(
    systems: &[&'static dyn System],
    workloads: &[Workload],
    baseline: bool,
    run: RunArgs,
) -> Result<()> {
    let (classes, options) = run.resolve()?;
    let mut report = compare::run(systems, &classes, workloads, &options)?;
    let has_redis = report.systems.iter().any(|system| system.name == "redis");
    if baseline && has_redis {
        for class in classes {
            report.baselines.extend(baseline::run(class, &options.places)?);
            report.save(options.json.as_deref())?;
        }
        report::text::print_baselines(&report.baselines);
    }
    report.check_complete()
}

fn orders(first: &std::path::Path, second: &std::path::Path) -> Result<()> {
    let differences =
        compare::order_differences(&result::Report::load(first)?, &result::Report::load(second)?);
    for (place, change) in &differences {
        println!("{place}: the ratio is {change:.2} times that of the first order");
    }
    println!("median {:.2}", compare::order_effect(&differences));
    Ok(())
}

/// Keeps this process on the second core, if there is one.
fn pin_generator() -> Result<()> {
    let mut set = CpuSet::new();
    set.set(1);
    sched_setaffinity(None, &set).context("--pinned needs a second core")
}
