//! What was typed, and what it means.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Result, bail};
use clap::{Args, Parser, Subcommand};

use crate::compare::{Options, default_dir};
use crate::growth;
use crate::loss::{self, Fault};
use crate::systems::{self, Class, Places, System};
use crate::workload::{self, Workload};

/// Measures Joblog beside Redis and other queues, in one run, with the same load.
///
/// Starts the servers itself, on free loopback ports and in fresh directories, and stops them.
#[derive(Debug, Parser)]
#[command(version, after_help = "Exit codes: 0 done; 1 a run failed or was wrong; 2 wrong usage.")]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Compare systems; by default Joblog and Redis with the main workloads, in under 5 minutes.
    Compare {
        /// The systems, in the order in which they take turns.
        #[arg(long, value_delimiter = ',', default_value = "joblog,redis", value_name = "NAMES")]
        systems: Vec<String>,
        /// The workloads. [default: the main ones, which `qbench list` marks]
        #[arg(long, value_delimiter = ',', value_name = "NAMES")]
        workloads: Vec<String>,
        /// Run all workloads but the large ones.
        #[arg(long, conflicts_with = "workloads")]
        all: bool,
        /// With --all, run the large workloads too: some take 10 GB of memory.
        #[arg(long, requires = "all")]
        large: bool,
        /// Take turns in reversed order.
        #[arg(long)]
        reverse: bool,
        /// Leave out redis-benchmark's own figures.
        #[arg(long)]
        no_baseline: bool,
        #[command(flatten)]
        run: RunArgs,
    },
    /// Run one workload on one system.
    Run {
        /// The workload.
        workload: String,
        /// The system.
        #[arg(long, default_value = "joblog")]
        system: String,
        #[command(flatten)]
        run: RunArgs,
    },
    /// Cut connections, kill workers and kill the server, and count the jobs that are lost.
    Loss(LossArgs),
    /// A worker of `loss`, in a process of its own so that it can be killed.
    #[command(hide = true)]
    LossWorker {
        #[arg(long)]
        system: String,
        #[arg(long)]
        address: String,
        #[arg(long)]
        id: usize,
        #[arg(long)]
        queue: String,
    },
    /// Let one thing grow (queues, groups, leases, ...), and measure what that costs Joblog and how
    /// long a small client beside it waits.
    Growth(GrowthArgs),
    /// Compare two result files of the same workloads run in both orders.
    Orders {
        /// The result of `qbench compare`.
        first: PathBuf,
        /// The result of `qbench compare --reverse`.
        second: PathBuf,
    },
    /// Turn result files into a page of Markdown with plots.
    Report {
        /// Result files.
        #[arg(required = true)]
        files: Vec<PathBuf>,
        /// Write results.md and the plots into this directory.
        #[arg(long, default_value = ".", value_name = "DIR")]
        out: PathBuf,
    },
    /// List workloads, what can grow, and systems.
    List {
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
}

/// How to run.
#[derive(Debug, Args)]
pub(crate) struct RunArgs {
    /// The durability classes.
    #[arg(long, value_delimiter = ',', default_value = "memory,second,synced", value_enum)]
    classes: Vec<Class>,
    /// Rounds of each system.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Seconds aimed at for each timed phase.
    #[arg(long, default_value_t = 0.35, value_name = "SECONDS")]
    round_seconds: f64,
    /// Jobs in each round, without warm-up. [default: as many as --round-seconds allows]
    #[arg(long)]
    jobs: Option<u64>,
    /// Decide whether Joblog has at least so many times the rate of the other.
    #[arg(long, default_value_t = 1.0)]
    goal: f64,
    /// Run servers on the first core and the generator on the second.
    #[arg(long)]
    pinned: bool,
    /// Give each server at most so many MiB of memory, page cache included. Needs root.
    #[arg(long, value_name = "MIB")]
    memory_cap: Option<u64>,
    /// Count the servers' system calls with perf, in a round more that is not timed.
    #[arg(long)]
    syscalls: bool,
    /// Write the result to this file, after each workload.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    #[command(flatten)]
    places: PlaceArgs,
}

/// How to lose jobs.
#[derive(Debug, Args)]
pub(crate) struct LossArgs {
    /// The systems.
    #[arg(
        long,
        value_delimiter = ',',
        default_value = "joblog,redis,redis-reliable,redis-streams",
        value_name = "NAMES"
    )]
    systems: Vec<String>,
    /// What goes wrong.
    #[arg(long, value_delimiter = ',', default_value = "cut,worker,server", value_enum)]
    faults: Vec<Fault>,
    /// Jobs that are enqueued.
    #[arg(long, default_value_t = 1_000)]
    jobs: u64,
    /// Workers.
    #[arg(long, default_value_t = 4)]
    workers: usize,
    /// Also rq from PyPI, workers on two queues, in a virtual environment made for it.
    #[arg(long)]
    rq: bool,
    /// Take for lost what is not done after so many seconds without news.
    #[arg(long, default_value_t = 15, value_name = "SECONDS")]
    patience: u64,
    /// Write the result to this file, after each experiment.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    #[command(flatten)]
    places: PlaceArgs,
}

impl LossArgs {
    pub(crate) fn resolve(self) -> Result<loss::Options> {
        Ok(loss::Options {
            systems: systems(&self.systems)?,
            faults: self.faults,
            jobs: self.jobs,
            workers: self.workers,
            rq: self.rq,
            patience: Duration::from_secs(self.patience),
            json: self.json,
            places: self.places.resolve(false),
        })
    }
}

/// What grows.
#[derive(Debug, Args)]
pub(crate) struct GrowthArgs {
    /// What grows, as `qbench list` names it. [default: all, in under 5 minutes]
    #[arg(value_name = "KIND")]
    kinds: Vec<String>,
    /// Sizes, instead of those that `qbench list` names; `of` there says what they count.
    #[arg(long, value_delimiter = ',', value_name = "NUMBERS", requires = "kinds")]
    sizes: Vec<u64>,
    /// The durability class.
    #[arg(long, visible_alias = "durability", default_value = "memory", value_enum)]
    class: Class,
    /// Give up what does not end within so many seconds.
    #[arg(long, default_value_t = 60, value_name = "SECONDS")]
    patience: u64,
    /// Write the result to this file, after each trial.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    #[command(flatten)]
    places: PlaceArgs,
}

impl GrowthArgs {
    pub(crate) fn resolve(self) -> Result<growth::Options> {
        let kinds = match self.kinds.as_slice() {
            [] => growth::KINDS.iter().collect(),
            names => names.iter().map(|name| growth::find(name)).collect::<Result<_>>()?,
        };
        Ok(growth::Options {
            kinds,
            sizes: self.sizes,
            class: self.class,
            patience: Duration::from_secs(self.patience),
            json: self.json,
            places: self.places.resolve(false),
        })
    }
}

/// Where things are.
#[derive(Debug, Args)]
pub(crate) struct PlaceArgs {
    /// Joblog's server. [default: joblogd beside qbench]
    #[arg(long, value_name = "PATH")]
    joblogd: Option<PathBuf>,
    /// The directory of a release of Apache Kafka, 0.9 to 3.9
    #[arg(long, value_name = "DIR", env = "QBENCH_KAFKA")]
    kafka: Option<PathBuf>,
    /// Keep the data of servers in fresh directories in here. [default: qbench-data beside qbench]
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
}

impl PlaceArgs {
    pub(crate) fn resolve(self, pinned: bool) -> Places {
        Places {
            joblogd: self.joblogd,
            kafka: self.kafka,
            dir: self.dir.unwrap_or_else(default_dir),
            pinned,
            memory_cap: None,
        }
    }
}

impl RunArgs {
    /// The classes and the options.
    pub(crate) fn resolve(self) -> Result<(Vec<Class>, Options)> {
        if self.rounds == 0 {
            bail!("--rounds 0 measures nothing; 5 or more give an interval");
        }
        if self.pinned {
            crate::pin_generator()?;
        }
        let options = Options {
            rounds: self.rounds,
            round_seconds: self.round_seconds,
            jobs: self.jobs,
            goal: self.goal,
            syscalls: self.syscalls,
            places: Places {
                memory_cap: self.memory_cap.map(|mib| mib * 1024 * 1024),
                ..self.places.resolve(self.pinned)
            },
            json: self.json,
        };
        Ok((self.classes, options))
    }
}

/// The systems with these names.
pub(crate) fn systems(names: &[String]) -> Result<Vec<&'static dyn System>> {
    if names.iter().any(|name| name == "all") {
        return Ok(systems::ALL.to_vec());
    }
    names.iter().map(|name| systems::find(name)).collect()
}

/// The workloads with these names, or the main ones, or all.
pub(crate) fn workloads(names: &[String], all: bool, large: bool) -> Result<Vec<Workload>> {
    if !names.is_empty() {
        return names.iter().map(|name| workload::find(name)).collect();
    }
    let wanted = |workload: &Workload| if all { large || !workload.large } else { workload.main };
    Ok(workload::ALL.into_iter().filter(wanted).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        use clap::CommandFactory;
        Cli::command().debug_assert();
    }
}
