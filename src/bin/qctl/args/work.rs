//! `qctl work`.

use std::ffi::OsString;
use std::time::Duration;

use crate::values::parse_duration;

#[derive(Debug, clap::Args)]
pub(crate) struct WorkArgs {
    /// The queues, in the order in which they are asked.
    #[arg(required = true, value_name = "QUEUE")]
    pub(crate) queues: Vec<String>,
    /// Let the queues take turns, so that a full one starves none.
    #[arg(long)]
    pub(crate) by_turns: bool,
    /// Work for this group.
    #[arg(long, default_value = "default")]
    pub(crate) group: String,
    /// Run up to N commands at once.
    #[arg(long, value_name = "N", default_value_t = 1)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub(crate) concurrency: u32,
    /// Let a job fail N times and try again, before it is dead. [default: by its queue]
    #[arg(long, value_name = "N")]
    pub(crate) retries: Option<u32>,
    /// End when nothing is ready or leased for the group. What still waits is listed, and the
    /// exit code is 1 if a job became dead.
    #[arg(long)]
    pub(crate) until_empty: bool,
    /// Take jobs for DURATION, which is renewed while their commands run. [default: the server's]
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    pub(crate) lease: Option<Duration>,
    /// Give each job what its command has written to standard output as its result: at most
    /// 64 KiB, for those who wait for its end.
    #[arg(long)]
    pub(crate) result: bool,
    /// The command and its arguments.
    #[arg(required = true, last = true, value_name = "COMMAND")]
    pub(crate) command: Vec<OsString>,
}
