//! Results as a page of Markdown, with plots beside it.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::svg::{self, Bar, Curve, Group};
use super::text::{mib, verdict};
use crate::result::{Baseline, Footprint, Loss, Measure, Quantity, Report, WorkloadResult};
use crate::systems::Class;

/// Writes `results.md` and the plots into a directory.
pub(crate) fn write(files: &[PathBuf], out: &Path) -> Result<()> {
    fs::create_dir_all(out).with_context(|| out.display().to_string())?;
    let mut page = String::from("# Results\n\nWritten by `qbench report`; do not edit.\n");
    let reports = files.iter().map(|file| Report::load(file)).collect::<Result<Vec<_>>>()?;
    for (report, file) in reports.iter().zip(files) {
        put_origin(&mut page, report, file)?;
    }
    let results: Vec<_> = reports.iter().flat_map(|report| &report.results).collect();
    for class in Class::ALL {
        put_class(&mut page, class, &results, out)?;
    }
    let footprints: Vec<_> =
        results.iter().filter(|result| !result.footprints.is_empty()).collect();
    if !footprints.is_empty() {
        put_footprints(&mut page, &footprints, out)?;
    }
    let losses: Vec<_> = reports.iter().flat_map(|report| &report.losses).collect();
    if !losses.is_empty() {
        put_losses(&mut page, &losses, out)?;
    }
    let baselines: Vec<_> = reports.iter().flat_map(|report| &report.baselines).collect();
    if !baselines.is_empty() {
        put_baselines(&mut page, &baselines)?;
    }
    let growth: Vec<_> = reports.iter().flat_map(|report| &report.growth).collect();
    if !growth.is_empty() {
        writeln!(page, "\n## Growth\n\n{}", super::growth::head())?;
        growth.iter().try_for_each(|row| writeln!(page, "{}", super::growth::row(row)))?;
    }
    let path = out.join("results.md");
    fs::write(&path, page).with_context(|| path.display().to_string())?;
    println!("{}", path.display());
    Ok(())
}

fn put_origin(page: &mut String, report: &Report, file: &Path) -> Result<()> {
    let machine = &report.machine;
    let name = file.file_name().unwrap_or_default().to_string_lossy();
    writeln!(page, "\n`{name}`: `{}`\n", report.command)?;
    writeln!(
        page,
        "- {} cores of {}, {:.0} GiB, Linux {}, {}; a sync of 4 KiB takes {:.0} us; load average \
         {:.2} at the start",
        machine.cores,
        machine.cpu,
        mib(machine.memory_bytes) / 1024.0,
        machine.kernel,
        machine.file_system,
        machine.sync_us,
        machine.load_average,
    )?;
    writeln!(page, "- commit {}", machine.commit)?;
    for system in &report.systems {
        writeln!(page, "- {}: {}. {}", system.name, system.version, system.how)?;
    }
    for missing in &report.missing {
        writeln!(page, "- not measured: {}: {}", missing.system, missing.why)?;
    }
    Ok(())
}

fn put_class(
    page: &mut String,
    class: Class,
    results: &[&WorkloadResult],
    out: &Path,
) -> Result<()> {
    let results: Vec<_> = results.iter().filter(|result| result.class == class).collect();
    if results.is_empty() {
        return Ok(());
    }
    writeln!(page, "\n## Class {}: {}\n", class.name(), class.title())?;
    let mut promises: Vec<(&str, &str)> = Vec::new();
    let measures = results.iter().flat_map(|result| &result.measures);
    for system in measures.flat_map(|measure| &measure.systems) {
        if !promises.iter().any(|(name, _)| *name == system.system) {
            promises.push((&system.system, &system.loses));
        }
    }
    writeln!(page, "What a crash loses:\n")?;
    for (name, loses) in promises {
        writeln!(page, "- {name}: {loses}")?;
    }
    let throughput: Vec<Group> = results.iter().flat_map(|result| groups(result)).collect();
    if !throughput.is_empty() {
        let name = format!("throughput-{}.svg", class.name());
        let title = format!("Jobs a second, {}", class.title());
        fs::write(out.join(&name), svg::bars(&title, "jobs/s", &throughput))?;
        writeln!(page, "\n![{title}]({name})")?;
    }
    let curves: Vec<Curve> = results.iter().flat_map(|result| curves(result)).collect();
    if !curves.is_empty() {
        let name = format!("latency-{}.svg", class.name());
        let title = format!("Latency, {}", class.title());
        fs::write(out.join(&name), svg::latencies(&title, &curves))?;
        writeln!(page, "\n![{title}]({name})")?;
    }
    writeln!(
        page,
        "\n| workload | measure | system | jobs/s (median; min-max) | p50 us | p99 us | \
         p99.9 us | \
         max us | server CPU us/job | kernel part | generator | waits/job | Joblog is |"
    )?;
    writeln!(page, "|---|---|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|---|")?;
    for result in results {
        for measure in &result.measures {
            put_rows(page, result, measure)?;
        }
    }
    Ok(())
}

fn put_rows(page: &mut String, result: &WorkloadResult, measure: &Measure) -> Result<()> {
    for system in &measure.systems {
        let latency = system.latency_us;
        let ratio = measure.ratios.iter().find(|ratio| ratio.theirs == system.system);
        let of = |field: fn(&crate::result::Round) -> f64| {
            crate::stats::median(&system.rounds.iter().map(field).collect::<Vec<_>>())
        };
        let ratio = ratio.map_or_else(String::new, |ratio| {
            let of = match ratio.of {
                Quantity::Rate => "x the rate",
                Quantity::Latency => "x as soon",
            };
            let numbers = ratio.ratio;
            format!(
                "{:.2} {of} ({:.2}-{:.2}): {}",
                numbers.median,
                numbers.low,
                numbers.high,
                verdict(numbers.verdict(ratio.goal, system.rounds.len()))
            )
        });
        writeln!(
            page,
            "| {} | {} | {} | {:.0} ({:.0}-{:.0}) | {:.0} | {:.0} | {:.0} | {:.0} | {:.2} | \
             {:.2} | {:.2} | {:.2} | {ratio} |",
            result.workload,
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
            of(|round| round.server_kernel_us_per_job),
            of(|round| round.generator_cpu_us_per_job),
            of(|round| round.server_waits_per_job),
        )?;
    }
    Ok(())
}

/// Bars of what has a rate of its own: not of loads on schedule.
fn groups(result: &WorkloadResult) -> Vec<Group> {
    let is_rate = |measure: &&Measure| {
        measure.ratios.iter().all(|ratio| ratio.of == Quantity::Rate)
            && !result.workload.starts_with("open")
            && !result.workload.starts_with("hand-off")
    };
    let group = |measure: &Measure| Group {
        name: format!("{} {}", result.workload, measure.name),
        bars: measure
            .systems
            .iter()
            .map(|system| Bar {
                name: system.system.clone(),
                value: system.jobs_per_second,
                low: system.jobs_per_second_min,
                high: system.jobs_per_second_max,
            })
            .collect(),
    };
    result.measures.iter().filter(is_rate).map(group).collect()
}

/// Curves of what is about latency.
fn curves(result: &WorkloadResult) -> Vec<Curve> {
    let is_timed = result.workload.starts_with("open") || result.workload.starts_with("hand-off");
    let measures = result.measures.iter().filter(|measure| is_timed && measure.name == "through");
    let systems = measures.flat_map(|measure| &measure.systems);
    systems
        .map(|system| Curve {
            name: system.system.clone(),
            of: format!("{}, {} systems in turn", result.workload, result.order.len()),
            points: [
                ("p50", system.latency_us.p50),
                ("p90", system.latency_us.p90),
                ("p99", system.latency_us.p99),
                ("p99.9", system.latency_us.p999),
                ("max", system.latency_us.max),
            ],
        })
        .collect()
}

fn put_footprints(page: &mut String, results: &[&&WorkloadResult], out: &Path) -> Result<()> {
    writeln!(page, "\n## What a backlog costs\n")?;
    type Field = fn(&Footprint) -> f64;
    let fields: [(&str, &str, Field); 3] = [
        ("memory", "MiB", |footprint| mib(footprint.memory_bytes)),
        ("disk", "MiB", |footprint| mib(footprint.disk_bytes)),
        ("restart", "ms", |footprint| footprint.restart_ms.unwrap_or(0.0)),
    ];
    for (name, unit, value) in fields {
        let group = |result: &&&WorkloadResult| Group {
            name: format!("{} {}", result.workload, result.class.name()),
            bars: result
                .footprints
                .iter()
                .map(|footprint| {
                    let value = value(footprint);
                    Bar { name: footprint.system.clone(), value, low: value, high: value }
                })
                .collect(),
        };
        let groups: Vec<Group> = results.iter().map(group).collect();
        let file = format!("backlog-{name}.svg");
        let title = format!("{name} against backlog");
        fs::write(out.join(&file), svg::bars(&title, unit, &groups))?;
        writeln!(page, "![{title}]({file})\n")?;
    }
    writeln!(
        page,
        "| workload | class | system | memory MiB (empty) | mapped MiB | disk MiB | \
         killed to first job ms | consumed again |"
    )?;
    writeln!(page, "|---|---|---|--:|--:|--:|--:|--:|")?;
    for result in results {
        for footprint in &result.footprints {
            let restart = footprint
                .restart_ms
                .map_or_else(|| "lost with the server".into(), |time| format!("{time:.0}"));
            writeln!(
                page,
                "| {} | {} | {} | {:.1} ({:.1}) | {:.1} | {:.1} | {restart} | {} |",
                result.workload,
                result.class.name(),
                footprint.system,
                mib(footprint.memory_bytes),
                mib(footprint.memory_empty_bytes),
                mib(footprint.mapped_bytes),
                mib(footprint.disk_bytes),
                footprint.consumed_again,
            )?;
        }
    }
    Ok(())
}

fn put_losses(page: &mut String, losses: &[&Loss], out: &Path) -> Result<()> {
    writeln!(page, "\n## Lost jobs\n")?;
    let mut groups: Vec<Group> = Vec::new();
    for loss in losses {
        let value = loss.lost as f64;
        let bar = Bar { name: loss.system.clone(), value, low: value, high: value };
        match groups.iter_mut().find(|group| group.name == loss.fault) {
            Some(group) => group.bars.push(bar),
            None => groups.push(Group { name: loss.fault.clone(), bars: vec![bar] }),
        }
    }
    let title = "Jobs lost for ever";
    fs::write(out.join("loss.svg"), svg::bars(title, "jobs", &groups))?;
    writeln!(page, "![{title}](loss.svg)\n")?;
    writeln!(
        page,
        "| what went wrong | system | how it is used | times | enqueued | lost | done twice | last \
         done after the last fault |"
    )?;
    writeln!(page, "|---|---|---|--:|--:|--:|--:|--:|")?;
    for loss in losses {
        writeln!(
            page,
            "| {} | {} | {} | {} | {} | {} | {} | {:.2} s |",
            loss.fault,
            loss.system,
            loss.how,
            loss.faults,
            loss.enqueued,
            loss.lost,
            loss.run_twice,
            loss.seconds_until_last,
        )?;
    }
    Ok(())
}

fn put_baselines(page: &mut String, baselines: &[&Baseline]) -> Result<()> {
    writeln!(page, "\n## redis-benchmark beside this generator, against Redis\n")?;
    writeln!(page, "| class | command | redis-benchmark/s | qbench/s | ratio | within 20 % |")?;
    writeln!(page, "|---|---|--:|--:|--:|---|")?;
    for baseline in baselines {
        writeln!(
            page,
            "| {} | `{}` | {:.0} | {:.0} | {:.2} | {} |",
            baseline.class.name(),
            baseline.command,
            baseline.redis_benchmark_per_second,
            baseline.ours_per_second,
            baseline.ours_to_theirs,
            if baseline.within_20_percent { "yes" } else { "no" },
        )?;
    }
    Ok(())
}
