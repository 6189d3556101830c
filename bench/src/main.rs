//! `qbench`: measures a running Joblog server. `README.md` beside it says what the numbers mean.

mod cpu;
mod load;
mod wire;

use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

/// Measures a running Joblog server.
#[derive(Debug, Parser)]
#[command(version)]
struct Cli {
    #[command(subcommand)]
    workload: Workload,
}

#[derive(Debug, Subcommand)]
enum Workload {
    /// Enqueue jobs, a batch in each request.
    Enqueue(Options),
    /// Fetch jobs, and commit each on the next FETCH. Enqueue as many before.
    FetchCommit(Options),
}

/// How much load, and on which server.
#[derive(Clone, Debug, Args)]
struct Options {
    /// The server's address.
    #[arg(long, default_value = "127.0.0.1:7411")]
    server: String,
    /// The queue; each connection uses the same one.
    #[arg(long, default_value = "bench")]
    queue: String,
    /// Connections.
    #[arg(long, default_value_t = 50)]
    connections: usize,
    /// Requests that each connection has in flight.
    #[arg(long, default_value_t = 1)]
    in_flight: usize,
    /// Jobs in all.
    #[arg(long, default_value_t = 200_000)]
    jobs: usize,
    /// Jobs in one request.
    #[arg(long, default_value_t = 1)]
    batch: usize,
    /// Bytes of each payload.
    #[arg(long, default_value_t = 100)]
    bytes: usize,
    /// The server's process id, to also tell its CPU time for each job.
    #[arg(long)]
    pid: Option<u32>,
}

fn main() -> ExitCode {
    let (workload, options) = match Cli::parse().workload {
        Workload::Enqueue(options) => (load::Workload::Enqueue, options),
        Workload::FetchCommit(options) => (load::Workload::FetchCommit, options),
    };
    match load::run(workload, &options) {
        Ok(report) => {
            println!("{report}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("qbench: {error}");
            ExitCode::FAILURE
        }
    }
}
