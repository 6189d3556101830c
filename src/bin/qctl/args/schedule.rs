//! `qctl schedule`.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::{ArgGroup, Subcommand, ValueEnum};

use super::enqueue::JobOptions;
use crate::values::parse_duration;

#[derive(Debug, Subcommand)]
pub(crate) enum ScheduleCommand {
    /// Add a schedule: the server enqueues a job each time that it is due.
    Add(Box<ScheduleAddArgs>),
    /// List all schedules.
    List,
    /// Show a schedule, its next due times and its job.
    Show {
        /// The schedule.
        schedule: String,
        /// Show N due times.
        #[arg(long, value_name = "N", default_value_t = 5)]
        #[arg(value_parser = clap::value_parser!(u32).range(0..=100))]
        times: u32,
    },
    /// Let a schedule rest.
    Pause {
        /// The schedule.
        schedule: String,
    },
    /// End a pause: the schedule goes on with what is due from now on.
    Resume {
        /// The schedule.
        schedule: String,
    },
    /// Remove a schedule. Its jobs stay.
    Remove {
        /// The schedule.
        schedule: String,
        /// Do not ask. Needed when standard input is no terminal.
        #[arg(long)]
        yes: bool,
    },
    /// Enqueue a schedule's job now, beside its due times.
    Run {
        /// The schedule.
        schedule: String,
    },
}

#[derive(Debug, clap::Args)]
#[command(group = ArgGroup::new("source").required(true).args(["payload", "file"]))]
#[command(group = ArgGroup::new("timing").required(true).args(["cron", "every"]))]
pub(crate) struct ScheduleAddArgs {
    /// The schedule.
    pub(crate) schedule: String,
    /// The queue of its jobs. It is created if the server allows that.
    pub(crate) queue: String,
    /// The payload of its jobs.
    pub(crate) payload: Option<OsString>,
    /// Take the payload of its jobs from FILE; - is standard input.
    #[arg(long, value_name = "FILE")]
    pub(crate) file: Option<PathBuf>,
    /// Be due as EXPR says: minute, hour, day of the month, month, day of the week.
    #[arg(long, value_name = "EXPR")]
    pub(crate) cron: Option<String>,
    /// Read EXPR in this time zone, as in Europe/Zurich. [default: UTC]
    #[arg(long, value_name = "ZONE", requires = "cron")]
    pub(crate) zone: Option<String>,
    /// Be due each time that DURATION has passed.
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    pub(crate) every: Option<Duration>,
    /// When due times have passed while the server was down: fire the last one, or skip all.
    #[arg(long, value_enum, default_value = "once")]
    pub(crate) missed: MissedArg,
    /// Add it paused.
    #[arg(long)]
    pub(crate) paused: bool,
    /// If there is such a schedule, give it this plan.
    #[arg(long)]
    pub(crate) replace: bool,
    #[command(flatten)]
    pub(crate) job: JobOptions,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum MissedArg {
    Once,
    Skip,
}
