//! `qctl job`, `qctl move` and `qctl copy`.

use std::ffi::OsString;
use std::time::Duration;

use clap::Subcommand;

use crate::job_name::JobName;
use crate::values::parse_duration;

#[derive(Debug, Subcommand)]
pub(crate) enum JobCommand {
    /// Show where a job stands, and what happened to it.
    Show {
        /// The job, as QUEUE:OFFSET.
        job: JobName,
        /// For this work group. [default: the queue's primary group]
        #[arg(long)]
        group: Option<String>,
    },
    /// Wait until a job has ended, and print its result.
    ///
    /// It ends when its queue's primary group has consumed it, or when it is dead for that group.
    /// The exit code is 0 if it is done.
    Wait {
        /// The job, as QUEUE:OFFSET.
        job: JobName,
        /// Wait for at most DURATION.
        #[arg(long, value_name = "DURATION", default_value = "10m", value_parser = parse_duration)]
        wait: Duration,
    },
    /// Make jobs ready now that are delayed or wait for their next try.
    ///
    /// They count as delayed no longer, for all groups of their queue.
    Promote {
        /// The jobs, as QUEUE:OFFSET.
        #[arg(required = true, value_name = "JOB")]
        jobs: Vec<JobName>,
    },
}

/// Jobs that go from one queue to another.
#[derive(Debug, clap::Args)]
pub(crate) struct MoveArgs {
    /// The queue that has the jobs.
    pub(crate) from_queue: String,
    /// The queue that gets them. It is created if the server allows that.
    pub(crate) to_queue: String,
    /// Only jobs with this key. [default: any]
    #[arg(long)]
    pub(crate) key: Option<OsString>,
    /// Only jobs with this header. Can be used several times: then with all of them.
    /// [default: any]
    #[arg(long = "header", value_name = "NAME=VALUE")]
    pub(crate) headers: Vec<OsString>,
    /// Only jobs that were enqueued longer ago than DURATION. [default: any]
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    pub(crate) older: Option<Duration>,
    /// Only jobs that were enqueued less long ago than DURATION. [default: any]
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    pub(crate) younger: Option<Duration>,
    /// Begin at offset N.
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) from: u64,
    /// At most N jobs. [default: all]
    #[arg(long, value_name = "N", default_value_t = u64::MAX, hide_default_value = true)]
    pub(crate) limit: u64,
}
