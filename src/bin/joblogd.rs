//! The server's binary: settings, start, and a clean end on SIGTERM or SIGINT.

#![cfg_attr(not(test), deny(clippy::unreachable, clippy::wildcard_enum_match_arm))]

use std::error::Error;
use std::io::{IsTerminal, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use clap::Parser;
use joblog::broker::{Broker, BrokerOptions, Durability, LogOptions, Logs, Scheduler, Threads};
use joblog::config::{Config, Overrides};
use joblog::server::data_dir::DataDir;
use joblog::server::{ServerOptions, bind, serve};
use joblog::types::LogId;
use tokio::signal::unix::{SignalKind, signal};

/// A durable job queue: a fetched job counts as consumed only after an explicit commit.
///
/// Settings come from flags, else from the environment, else from the file given with --config,
/// else they have their defaults, which docs/configuration.md lists.
#[derive(Debug, Parser)]
#[command(version)]
struct Args {
    /// Read settings from this TOML file.
    #[arg(long, env = "JOBLOG_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,

    /// Keep the data in this directory. [default: joblog-data]
    #[arg(long, env = "JOBLOG_DATA", value_name = "DIR")]
    data: Option<PathBuf>,

    /// Listen on this address; port 0 takes a free one. [default: 127.0.0.1:7411]
    #[arg(long, env = "JOBLOG_LISTEN", value_name = "ADDR")]
    listen: Option<String>,

    /// Answer when the disk has it (fsync), when the system has it and sync every so many
    /// milliseconds (interval:<ms>), or when the system has it (os). [default: fsync]
    #[arg(long, env = "JOBLOG_DURABILITY", value_name = "LEVEL")]
    durability: Option<String>,

    /// Make the data directory with so many logs, each with its own sync and lock; it can't be
    /// changed later. [default: as many as it has, or 1]
    #[arg(long, env = "JOBLOG_LOGS", value_name = "N")]
    logs: Option<u64>,

    /// Allow an address that others can reach, though there is no authentication yet.
    #[arg(long, env = "JOBLOG_INSECURE")]
    insecure: bool,

    /// Log this much to standard error: error, warn, info, debug or trace.
    #[arg(long, env = "JOBLOG_LOG", value_name = "LEVEL", default_value = "info")]
    log: tracing::Level,
}

impl Args {
    fn resolve(self) -> Result<Config, Box<dyn Error>> {
        let mut config = Config::defaults();
        if let Some(path) = &self.config {
            Overrides::read(path)?.apply(&mut config)?;
        }
        let flags = Overrides {
            listen: self.listen,
            data: self.data,
            durability: self.durability,
            insecure: self.insecure.then_some(true),
            logs: self.logs,
            ..Overrides::default()
        };
        flags.apply(&mut config)?;
        config.check()?;
        Ok(config)
    }
}

fn main() -> ExitCode {
    let args = Args::parse();
    let colours = std::io::stderr().is_terminal();
    let logging = tracing_subscriber::fmt().with_max_level(args.log).with_ansi(colours);
    logging.with_writer(std::io::stderr).init();
    match args.resolve().and_then(|config| run(&config)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("joblogd: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(config: &Config) -> Result<(), Box<dyn Error>> {
    let data_dir = DataDir::open(&config.data)?;
    let sync_time = data_dir.measure_sync();
    let listener = bind(config.listen)
        .map_err(|error| format!("could not listen on {}: {error}", config.listen))?;
    let address = listener.local_addr()?;

    let log_options = LogOptions {
        segment_bytes: config.segment_bytes,
        // Zeros written ahead pay off only where someone waits for syncs.
        prefill: config.durability == Durability::Fsync,
        ..LogOptions::default()
    };
    let count = data_dir.log_count(config.logs)?;
    let mut brokers = Vec::new();
    for log in (0..count).map(LogId) {
        let options = BrokerOptions {
            durability: config.durability,
            silence_ms: config.session_silence_ms,
            auto_create: config.auto_create,
            shards: config.io_threads,
            checkpoint_bytes: config.checkpoint_bytes,
            log,
            ..BrokerOptions::default()
        };
        brokers.push(Broker::open(&data_dir.log_dir(log), log_options.clone(), options)?);
    }
    let threads = brokers.iter().map(Threads::start).collect::<Result<Vec<_>, _>>()?;
    let logs = Arc::new(Logs::new(brokers));
    let scheduler = Scheduler::start(&logs)?;

    let sync_time = sync_time.map_or_else(
        || "a sync could not be measured".to_owned(),
        |time| format!("a sync takes {:.2} ms here", time.as_secs_f64() * 1_000.0),
    );
    let ready = format!(
        "joblogd ready on {address} (durability {}, {sync_time}, data in {})",
        config.durability,
        config.data.display()
    );
    let server_options = ServerOptions {
        job_bytes_max: config.job_bytes_max,
        run_ms_max: config.session_run_ms_max,
        io_threads: config.io_threads,
        connections_max: config.connections_max,
    };
    serve(listener, &logs, &server_options, until_signal(&ready))?;
    scheduler.stop();
    threads.into_iter().try_for_each(Threads::stop)?;
    tracing::info!("stopped");
    Ok(())
}

/// Says that the server is ready, and is done when SIGTERM or SIGINT has come. Whoever has read
/// that line may send one.
async fn until_signal(ready: &str) {
    let signals = (signal(SignalKind::terminate()), signal(SignalKind::interrupt()));
    let mut stdout = std::io::stdout();
    if let Err(error) = writeln!(stdout, "{ready}").and_then(|()| stdout.flush()) {
        tracing::warn!(%error, "standard output can't be written");
    }
    let (Ok(mut terminate), Ok(mut interrupt)) = signals else {
        tracing::error!("signals can't be caught: end the server with SIGKILL; it loses nothing");
        return std::future::pending().await;
    };
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    tracing::info!("stopping");
}
