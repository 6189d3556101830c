//! What takes, shows and settles jobs.

use std::ffi::OsString;
use std::time::Duration;

use crate::job_name::JobName;
use crate::values::parse_duration;

#[derive(Debug, clap::Args)]
pub(crate) struct FetchArgs {
    /// The queues, in the order in which they are asked.
    #[arg(required = true, value_name = "QUEUE")]
    pub(crate) queues: Vec<String>,
    /// Let the queues take turns, so that a full one starves none.
    #[arg(long)]
    pub(crate) by_turns: bool,
    /// Fetch for this group.
    #[arg(long, default_value = "default")]
    pub(crate) group: String,
    /// Take at most N jobs.
    #[arg(long, value_name = "N", default_value_t = 1)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) jobs: u32,
    /// Wait up to DURATION for a first job; at most 10m.
    #[arg(long, value_name = "DURATION", default_value = "0s", value_parser = parse_duration)]
    pub(crate) wait: Duration,
    /// Lease the jobs for DURATION.
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = parse_duration)]
    pub(crate) lease: Duration,
}

#[derive(Debug, clap::Args)]
pub(crate) struct PeekArgs {
    /// The queue.
    pub(crate) queue: String,
    /// Begin at offset N.
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) from: u64,
    /// Print at most N jobs.
    #[arg(long, value_name = "N", default_value_t = 10)]
    pub(crate) limit: u64,
}

/// Leased jobs of one group.
#[derive(Debug, clap::Args)]
pub(crate) struct JobArgs {
    /// The jobs, as QUEUE:OFFSET@TOKEN.
    #[arg(required = true, value_name = "JOB")]
    pub(crate) jobs: Vec<JobName>,
    /// The group that they are leased to.
    #[arg(long, default_value = "default")]
    pub(crate) group: String,
}

#[derive(Debug, clap::Args)]
pub(crate) struct CommitArgs {
    #[command(flatten)]
    pub(crate) jobs: JobArgs,
    /// Consume all jobs up to and with QUEUE:OFFSET; for stream groups, without tokens.
    #[arg(long)]
    pub(crate) through: bool,
    /// Give the one job this result: at most 64 KiB, for those who wait for its end.
    /// [default: none]
    #[arg(long, value_name = "TEXT", conflicts_with = "through")]
    pub(crate) result: Option<OsString>,
}

#[derive(Debug, clap::Args)]
pub(crate) struct ReleaseArgs {
    #[command(flatten)]
    pub(crate) jobs: JobArgs,
    /// Make the jobs ready again after DURATION.
    #[arg(long, value_name = "DURATION", default_value = "0s", value_parser = parse_duration)]
    pub(crate) delay: Duration,
}

#[derive(Debug, clap::Args)]
pub(crate) struct FailArgs {
    #[command(flatten)]
    pub(crate) jobs: JobArgs,
    /// Say why; at most 4 KiB of it are kept.
    #[arg(long, value_name = "TEXT")]
    pub(crate) reason: String,
    /// Let the job fail N times; 0 makes it dead now. [default: as often as its queue says]
    #[arg(long, value_name = "N")]
    pub(crate) retries: Option<u32>,
    /// Try again after DURATION. [default: by the queue's backoff]
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    pub(crate) delay: Option<Duration>,
}

#[derive(Debug, clap::Args)]
pub(crate) struct ExtendArgs {
    #[command(flatten)]
    pub(crate) jobs: JobArgs,
    /// Lease the jobs for DURATION from now.
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    pub(crate) lease: Duration,
    /// Note what there is to say of the jobs' progress: at most 1 KiB, shown by `qctl job show`.
    /// [default: what was noted before]
    #[arg(long, value_name = "TEXT")]
    pub(crate) progress: Option<String>,
}
