//! A result on the terminal.

use crate::result::{Quantity, WorkloadResult};
use crate::stats::Verdict;

/// Prints one workload at one class.
pub(crate) fn print(result: &WorkloadResult) {
    println!(
        "{} at {} ({} connections, {} in flight, batch {}, {} B, {} jobs): {}",
        result.workload,
        result.class.name(),
        result.connections,
        result.in_flight,
        result.batch,
        result.payload_bytes,
        result.jobs,
        result.stands_for,
    );
    for measure in &result.measures {
        for system in &measure.systems {
            let latency = system.latency_us;
            println!(
                "  {:8} {:15} {:>9.0}/s ({:.0} to {:.0})  \
                 p50 {:.0} p99 {:.0} p99.9 {:.0} max {:.0} us  server {:.2} us/job",
                measure.name,
                system.system,
                system.jobs_per_second,
                system.jobs_per_second_min,
                system.jobs_per_second_max,
                latency.p50,
                latency.p99,
                latency.p999,
                latency.max,
                system.server_cpu_us_per_job,
            );
        }
        for ratio in &measure.ratios {
            let of = match ratio.of {
                Quantity::Rate => "the rate",
                Quantity::Latency => "the speed (latency)",
            };
            println!(
                "  {:8} joblog has {:.2} times {of} of {} ({:.2} to {:.2}): goal {} {}",
                measure.name,
                ratio.ratio.median,
                ratio.theirs,
                ratio.ratio.low,
                ratio.ratio.high,
                ratio.goal,
                verdict(ratio.verdict),
            );
        }
    }
    for footprint in &result.footprints {
        let restart = footprint
            .restart_ms
            .map_or_else(|| "the restart lost it".into(), |time| format!("restart {time:.0} ms"));
        println!(
            "  {:15} memory {:.1} MiB (empty {:.1}; mapped {:.1}), disk {:.1} MiB, {restart}, \
             {} consumed again",
            footprint.system,
            mib(footprint.memory_bytes),
            mib(footprint.memory_empty_bytes),
            mib(footprint.mapped_bytes),
            mib(footprint.disk_bytes),
            footprint.consumed_again,
        );
    }
}

/// A verdict in words.
pub(crate) fn verdict(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Reached => "reached",
        Verdict::Missed => "missed",
        Verdict::NotDecided => "not decided",
    }
}

/// Bytes in MiB.
pub(crate) fn mib(bytes: u64) -> f64 {
    bytes as f64 / (1024.0 * 1024.0)
}

/// Prints redis-benchmark's own figures beside ours.
pub(crate) fn print_baselines(baselines: &[crate::result::Baseline]) {
    for baseline in baselines {
        println!(
            "{} at {}: {:.0}/s; this generator {:.0}/s, {:.2} times{}",
            baseline.command,
            baseline.class.name(),
            baseline.redis_benchmark_per_second,
            baseline.ours_per_second,
            baseline.ours_to_theirs,
            if baseline.within_20_percent { "" } else { ": further apart than 20 %" },
        );
    }
}
