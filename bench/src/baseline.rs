//! redis-benchmark's own figure for the same load, beside ours: is our generator a fair one?

use std::process::Command;

use anyhow::{Context, Result};

use crate::children::find_program;
use crate::measure::{self, Rounds};
use crate::result::Baseline;
use crate::systems::{self, Class, Places, Server};
use crate::workload;

const ROUNDS: usize = 3;
const JOBS: u64 = 20_000;

/// RPUSH and LPOP of 100 B over 50 connections, one and 16 in flight, by both generators in turn.
pub(crate) fn run(class: Class, places: &Places) -> Result<Vec<Baseline>> {
    let program = find_program("redis-benchmark")
        .context("redis-benchmark is not installed (Debian: apt-get install redis-tools)")?;
    let mut baselines = Vec::new();
    for (name, in_flight) in [("c50", 1_u64), ("c50-p16", 16)] {
        let workload = workload::find(name)?;
        let jobs = if in_flight == 1 { JOBS } else { JOBS * 5 };
        for (measure, command) in [("enqueue", "rpush"), ("consume", "lpop")] {
            let mut server = Server::start(systems::find("redis")?, class, places)?;
            let mut ours = Rounds::default();
            let mut theirs = Vec::new();
            let mut arguments = vec![String::from("-p"), port(&server).into()];
            let numbers = format!("-c 50 -d 100 -n {jobs} -P {in_flight} --csv -t {command}");
            arguments.extend(numbers.split(' ').map(String::from));
            for round in 0..ROUNDS {
                measure::run(&mut server, &workload, jobs, round as u32, &mut ours)?;
                measure::settle();
                if command == "lpop" {
                    // LPOP of an empty list would be no job: fill the list that it uses first.
                    fill(&server, &program, jobs)?;
                }
                theirs.push(rate(&program, &arguments)?);
            }
            let (ours, theirs) =
                (crate::stats::median(&ours.rates(measure)), crate::stats::median(&theirs));
            let ours_to_theirs = ours / theirs;
            baselines.push(Baseline {
                class,
                command: format!("redis-benchmark {numbers}"),
                redis_benchmark_per_second: theirs,
                ours_per_second: ours,
                ours_to_theirs,
                within_20_percent: (0.8..=1.25).contains(&ours_to_theirs),
            });
        }
    }
    Ok(baselines)
}

fn port(server: &Server) -> &str {
    server.address.rsplit(':').next().unwrap_or_default()
}

fn fill(server: &Server, program: &std::path::Path, jobs: u64) -> Result<()> {
    let numbers = format!("-c 50 -d 100 -n {jobs} -P 64 --csv -t rpush");
    let mut arguments = vec![String::from("-p"), port(server).into()];
    arguments.extend(numbers.split(' ').map(String::from));
    rate(program, &arguments).map(drop)
}

/// The requests a second that redis-benchmark reports.
fn rate(program: &std::path::Path, arguments: &[String]) -> Result<f64> {
    let output = Command::new(program).args(arguments).output().context("redis-benchmark")?;
    let text = String::from_utf8_lossy(&output.stdout);
    let field = text.lines().last().and_then(|line| line.split(',').nth(1));
    let number = field.and_then(|field| field.trim_matches('"').parse().ok());
    number.with_context(|| format!("redis-benchmark said: {text}"))
}
