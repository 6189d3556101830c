//! `qctl dead`.

use std::time::Duration;

use clap::Subcommand;

use crate::job_name::JobName;
use crate::values::parse_duration;

#[derive(Debug, Subcommand)]
pub(crate) enum DeadCommand {
    /// List the dead jobs of a group.
    List {
        #[command(flatten)]
        filter: DeadFilter,
        /// List at most N jobs.
        #[arg(long, value_name = "N", default_value_t = 100)]
        limit: u64,
    },
    /// Show one dead job whole: why it is dead, and what it is.
    Show {
        /// The job, as QUEUE:OFFSET.
        job: JobName,
        /// The group for which it is dead.
        #[arg(long, default_value = "default")]
        group: String,
    },
    /// Make dead jobs ready again, as if they had never failed.
    Retry {
        #[command(flatten)]
        act: DeadActArgs,
        /// Move them to another queue of the same log, as new jobs there. [default: their own]
        #[arg(long, value_name = "QUEUE")]
        to: Option<String>,
    },
    /// Give dead jobs up: their group never gets them again.
    Drop(DeadActArgs),
}

/// Which dead jobs are meant.
#[derive(Debug, clap::Args)]
pub(crate) struct DeadFilter {
    /// The queue, or one job of it as QUEUE:OFFSET.
    pub(crate) target: String,
    /// The group for which they are dead.
    #[arg(long, default_value = "default")]
    pub(crate) group: String,
    /// Only jobs with TEXT in their last error. [default: any]
    #[arg(long, value_name = "TEXT")]
    pub(crate) error: Option<String>,
    /// Only jobs that have been dead for longer than DURATION. [default: any]
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    pub(crate) older: Option<Duration>,
    /// Only jobs that have been dead for less than DURATION. [default: any]
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    pub(crate) younger: Option<Duration>,
}

#[derive(Debug, clap::Args)]
pub(crate) struct DeadActArgs {
    #[command(flatten)]
    pub(crate) filter: DeadFilter,
    /// All dead jobs of the group, if nothing says which.
    #[arg(long)]
    pub(crate) all: bool,
    /// Do not ask. Needed when standard input is no terminal.
    #[arg(long)]
    pub(crate) yes: bool,
}
