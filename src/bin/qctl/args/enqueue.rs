//! `qctl enqueue`.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::ArgGroup;
use joblog_protocol::limits::{DELAY_MS_MAX, PRIORITY_MAX};

use crate::values::{parse_duration, parse_time};

#[derive(Debug, clap::Args)]
#[command(group = ArgGroup::new("source").required(true).args(["payload", "file", "lines"]))]
pub(crate) struct EnqueueArgs {
    /// The queue. It is created if the server allows that.
    pub(crate) queue: String,
    /// The payload of one job.
    pub(crate) payload: Option<OsString>,
    /// Take the payload of one job from FILE; - is standard input.
    #[arg(long, value_name = "FILE")]
    pub(crate) file: Option<PathBuf>,
    /// Make each line of FILE a job; - is standard input.
    #[arg(long, value_name = "FILE")]
    pub(crate) lines: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) job: JobOptions,
    /// Deliver the jobs at TIME, as in 2026-12-24T18:00:00+01:00, and not before.
    /// [default: at once]
    #[arg(long, value_name = "TIME", value_parser = parse_time, conflicts_with = "delay")]
    pub(crate) at: Option<u64>,
    /// Wait until the job has ended, for at most DURATION [default: 10m], and print its result.
    #[arg(long, value_name = "DURATION", value_parser = parse_duration, conflicts_with = "lines")]
    #[arg(num_args = 0..=1, require_equals = true, default_missing_value = "10m")]
    pub(crate) wait: Option<Duration>,
    /// Enqueue the job only if no other job of the queue has this unique key and is not done yet.
    /// [default: none]
    #[arg(long, value_name = "KEY", conflicts_with = "lines")]
    pub(crate) unique: Option<OsString>,
    /// Let the job hold its unique key for DURATION, whatever becomes of it.
    /// [default: until it is done]
    #[arg(long, value_name = "DURATION", value_parser = parse_delay, requires = "unique")]
    pub(crate) unique_for: Option<Duration>,
    /// Take the place of a job with the unique key that is delayed.
    #[arg(long, requires = "unique")]
    pub(crate) replace: bool,
    /// Refuse if the queue does not exist.
    #[arg(long)]
    pub(crate) no_create: bool,
}

/// What jobs are given beside their payload, whoever enqueues them.
#[derive(Debug, clap::Args)]
pub(crate) struct JobOptions {
    /// Give the jobs this key. [default: none]
    #[arg(long)]
    pub(crate) key: Option<OsString>,
    /// Give the jobs this header. Can be used several times. [default: none]
    #[arg(long = "header", value_name = "NAME=VALUE")]
    pub(crate) headers: Vec<OsString>,
    /// Deliver the jobs when DURATION has passed, and not before. [default: at once]
    #[arg(long, value_name = "DURATION", value_parser = parse_delay)]
    pub(crate) delay: Option<Duration>,
    /// Do not deliver the jobs any more when DURATION has passed. [default: never]
    #[arg(long, value_name = "DURATION", value_parser = parse_delay)]
    pub(crate) ttl: Option<Duration>,
    /// Deliver the jobs before those of a lower priority: 0 to 9, 9 the most urgent.
    #[arg(long, value_name = "N", default_value_t = 0)]
    #[arg(value_parser = clap::value_parser!(u8).range(0..=PRIORITY_MAX as i64))]
    pub(crate) priority: u8,
    /// Put the jobs before all others of their priority.
    #[arg(long)]
    pub(crate) front: bool,
}

fn parse_delay(text: &str) -> Result<Duration, String> {
    let delay = parse_duration(text)?;
    if delay.as_millis() > DELAY_MS_MAX as u128 {
        return Err("a delay is at most 366d; --at reaches further".to_owned());
    }
    Ok(delay)
}
