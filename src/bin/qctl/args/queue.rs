//! `qctl queue`.

use std::time::Duration;

use clap::Subcommand;

use crate::values::parse_duration;

#[derive(Debug, Subcommand)]
pub(crate) enum QueueCommand {
    /// Create a queue.
    Create(Box<QueueCreateArgs>),
    /// List all queues.
    List,
    /// Show a queue's settings, its groups and their dead jobs.
    Show {
        /// The queue.
        queue: String,
    },
    /// Let nothing be fetched from a queue, or by one group of it.
    Pause {
        /// The queue.
        queue: String,
        /// Only this group.
        #[arg(long)]
        group: Option<String>,
    },
    /// End a pause.
    Resume {
        /// The queue.
        queue: String,
        /// Only that of this group.
        #[arg(long)]
        group: Option<String>,
    },
    /// Give up all jobs of a queue, for all groups, but for those that are being worked on.
    Purge {
        /// The queue.
        queue: String,
        /// Do not ask. Needed when standard input is no terminal.
        #[arg(long)]
        yes: bool,
    },
    /// Delete a queue with its groups and all of its jobs.
    Delete {
        /// The queue.
        queue: String,
        /// Do not ask. Needed when standard input is no terminal.
        #[arg(long)]
        yes: bool,
    },
}

/// What is left out has the server's default.
#[derive(Debug, clap::Args)]
pub(crate) struct QueueCreateArgs {
    /// The queue.
    pub(crate) queue: String,
    /// Let a job fail N times; after one more it is dead. [default: 25]
    #[arg(long, value_name = "N")]
    pub(crate) failures_max: Option<u32>,
    /// Wait for DURATION before the first retry; it doubles from there. [default: 1s]
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    pub(crate) backoff_first: Option<Duration>,
    /// Wait for at most DURATION before a retry. [default: 1h]
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    pub(crate) backoff_longest: Option<Duration>,
    /// Let N leases of a job be lost; after one more it is dead. [default: 5]
    #[arg(long, value_name = "N")]
    pub(crate) crashes_max: Option<u32>,
    /// Wait for DURATION before a redelivery after the second lost lease; it doubles from there.
    /// [default: 5s]
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    pub(crate) crash_backoff_first: Option<Duration>,
    /// Wait for at most DURATION before a redelivery after a lost lease. [default: 5m]
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    pub(crate) crash_backoff_longest: Option<Duration>,
    /// Keep dead jobs for DURATION; 0 for ever [default: 90d].
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    pub(crate) dead_kept: Option<Duration>,
    /// Keep consumed jobs for at least DURATION, so that a group can be set back to them.
    /// [default: 0]
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    pub(crate) keep_consumed_for: Option<Duration>,
    /// End jobs that are older than DURATION although nobody has consumed them; they are counted
    /// as expired. [default: never]
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    pub(crate) max_age: Option<Duration>,
    /// Refuse more jobs while N wait to be consumed. [default: any number]
    #[arg(long, value_name = "N")]
    pub(crate) max_jobs: Option<u64>,
    /// Refuse more jobs while BYTES of them wait to be consumed. [default: any number]
    #[arg(long, value_name = "BYTES")]
    pub(crate) max_bytes: Option<u64>,
}
