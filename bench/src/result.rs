//! Results as JSON. `bench/README.md` documents every field, and a test compares the two.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

use crate::machine::Machine;
use crate::stats::{Ratio, Verdict};
use crate::systems::Class;

/// The version of the schema; it grows when a field changes its meaning or goes.
pub(crate) const SCHEMA: u32 = 1;

/// A result file.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Report {
    pub(crate) schema: u32,
    pub(crate) command: String,
    pub(crate) machine: Machine,
    pub(crate) systems: Vec<SystemInfo>,
    pub(crate) missing: Vec<Missing>,
    pub(crate) results: Vec<WorkloadResult>,
    pub(crate) baselines: Vec<Baseline>,
    pub(crate) losses: Vec<Loss>,
    #[serde(default)]
    pub(crate) growth: Vec<Growth>,
}

/// A system that took part.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct SystemInfo {
    pub(crate) name: String,
    pub(crate) how: String,
    pub(crate) program: String,
    pub(crate) version: String,
}

/// A system that was asked for and could not take part, in all or in one workload.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Missing {
    pub(crate) system: String,
    pub(crate) why: String,
    /// It can't do this at all; else it should have been there.
    pub(crate) by_nature: bool,
}

/// One workload at one class.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct WorkloadResult {
    pub(crate) workload: String,
    pub(crate) stands_for: String,
    pub(crate) class: Class,
    pub(crate) connections: usize,
    pub(crate) in_flight: usize,
    pub(crate) batch: usize,
    pub(crate) payload_bytes: usize,
    pub(crate) queues: usize,
    pub(crate) jobs: u64,
    pub(crate) pinned: bool,
    pub(crate) order: Vec<String>,
    pub(crate) load_average: f64,
    pub(crate) measures: Vec<Measure>,
    pub(crate) footprints: Vec<Footprint>,
}

/// One thing that was timed, for all systems.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Measure {
    pub(crate) name: String,
    pub(crate) systems: Vec<SystemMeasure>,
    pub(crate) ratios: Vec<Comparison>,
}

/// One thing that was timed, for one system.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct SystemMeasure {
    pub(crate) system: String,
    pub(crate) loses: String,
    pub(crate) jobs_per_second: f64,
    pub(crate) jobs_per_second_min: f64,
    pub(crate) jobs_per_second_max: f64,
    pub(crate) server_cpu_us_per_job: f64,
    /// Counted in a round of its own with `--syscalls`, both directions together.
    pub(crate) server_syscalls_per_job: Option<f64>,
    pub(crate) latency_us: Latency,
    pub(crate) rounds: Vec<Round>,
}

/// One round.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Round {
    pub(crate) seconds: f64,
    pub(crate) jobs_per_second: f64,
    pub(crate) latency_p50_us: f64,
    pub(crate) server_cpu_us_per_job: f64,
    pub(crate) server_kernel_us_per_job: f64,
    pub(crate) generator_cpu_us_per_job: f64,
    pub(crate) other_cpu_us_per_job: f64,
    pub(crate) server_waits_per_job: f64,
    pub(crate) server_preempted_per_job: f64,
    pub(crate) empty_answers: u64,
}

/// Latencies of all rounds together.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Latency {
    pub(crate) p50: f64,
    pub(crate) p90: f64,
    pub(crate) p99: f64,
    pub(crate) p999: f64,
    pub(crate) max: f64,
}

impl Latency {
    pub(crate) fn of(nanos: &Histogram<u64>) -> Self {
        let at = |quantile| nanos.value_at_quantile(quantile) as f64 / 1_000.0;
        Self {
            p50: at(0.5),
            p90: at(0.9),
            p99: at(0.99),
            p999: at(0.999),
            max: nanos.max() as f64 / 1_000.0,
        }
    }
}

/// The first system against another: above 1 the first is better.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Comparison {
    pub(crate) ours: String,
    pub(crate) theirs: String,
    pub(crate) of: Quantity,
    #[serde(flatten)]
    pub(crate) ratio: Ratio,
    pub(crate) goal: f64,
    pub(crate) verdict: Verdict,
}

/// What a ratio is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Quantity {
    /// Jobs a second, ours to theirs.
    Rate,
    /// The median latency, theirs to ours.
    Latency,
}

/// What a backlog costs.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Footprint {
    pub(crate) system: String,
    pub(crate) backlog: u64,
    pub(crate) memory_empty_bytes: u64,
    pub(crate) memory_bytes: u64,
    pub(crate) mapped_bytes: u64,
    pub(crate) disk_bytes: u64,
    /// Milliseconds from starting the server again after SIGKILL to the first job in hand; none if
    /// the backlog was lost with the server.
    pub(crate) restart_ms: Option<f64>,
    /// Jobs that were consumed before the kill and came again after it.
    pub(crate) consumed_again: u64,
}

/// redis-benchmark's figure beside ours for the same load.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Baseline {
    pub(crate) class: Class,
    pub(crate) command: String,
    pub(crate) redis_benchmark_per_second: f64,
    pub(crate) ours_per_second: f64,
    pub(crate) ours_to_theirs: f64,
    pub(crate) within_20_percent: bool,
}

/// What one system lost in the loss experiment.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Loss {
    pub(crate) system: String,
    pub(crate) how: String,
    pub(crate) fault: String,
    pub(crate) faults: u64,
    pub(crate) enqueued: u64,
    pub(crate) lost: u64,
    pub(crate) run_twice: u64,
    pub(crate) seconds_until_last: f64,
}

/// Heavy work on much of one kind.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Growth {
    pub(crate) kind: String,
    pub(crate) size: u64,
    pub(crate) class: Class,
    pub(crate) work: String,
    /// How long the work took; null where only what came of it is told.
    pub(crate) took_ms: Option<f64>,
    /// It ended in time; else it was given up.
    pub(crate) ended: bool,
    /// The small client beside it; null where there was none.
    pub(crate) beside: Option<Neighbour>,
    /// The server's own memory.
    pub(crate) memory_before_bytes: u64,
    pub(crate) memory_peak_bytes: u64,
    /// Half a second after the work.
    pub(crate) memory_after_bytes: u64,
    /// From starting it again to its answer to a greeting.
    pub(crate) next_start_ms: Option<f64>,
    /// Of one core, while nobody asks anything.
    pub(crate) idle_cpu_percent: Option<f64>,
    pub(crate) load_average: f64,
}

/// A small client beside heavy work.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Neighbour {
    /// Requests, those included that would have begun while one waited.
    pub(crate) requests: u64,
    pub(crate) p99_ms: f64,
    pub(crate) longest_ms: f64,
}

impl Report {
    /// An empty one.
    pub(crate) fn new(machine: Machine) -> Self {
        let arguments: Vec<String> = std::env::args().skip(1).collect();
        Self {
            schema: SCHEMA,
            command: format!("qbench {}", arguments.join(" ")),
            machine,
            systems: Vec::new(),
            missing: Vec::new(),
            results: Vec::new(),
            baselines: Vec::new(),
            losses: Vec::new(),
            growth: Vec::new(),
        }
    }

    /// Checks that every system that was asked for was there.
    ///
    /// # Errors
    /// One is not installed or did not start.
    pub(crate) fn check_complete(&self) -> Result<()> {
        let absent = self.missing.iter().find(|missing| !missing.by_nature);
        absent.map_or(Ok(()), |missing| anyhow::bail!("{}: {}", missing.system, missing.why))
    }

    /// Writes it, over what was written before: called after each result, so that a failure later
    /// takes nothing away.
    pub(crate) fn save(&self, path: Option<&Path>) -> Result<()> {
        let Some(path) = path else { return Ok(()) };
        let text = serde_json::to_string_pretty(self)? + "\n";
        let new = path.with_extension("json.new");
        fs::write(&new, text)
            .and_then(|()| fs::rename(&new, path))
            .with_context(|| format!("writing {}", path.display()))
    }

    /// Reads one.
    pub(crate) fn load(path: &Path) -> Result<Self> {
        let text = fs::read_to_string(path).with_context(|| path.display().to_string())?;
        let report: Self = serde_json::from_str(&text)
            .with_context(|| format!("{} is no result of qbench", path.display()))?;
        anyhow::ensure!(
            report.schema == SCHEMA,
            "{} has schema {}, this qbench reads {SCHEMA}",
            path.display(),
            report.schema
        );
        Ok(report)
    }
}
