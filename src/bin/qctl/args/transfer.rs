//! What follows a queue, and what carries its jobs away and back.

use std::path::PathBuf;
use std::time::Duration;

use joblog::client::GroupSeek;

use super::group::parse_to;
use crate::top::Sort;
use crate::values::parse_duration;

#[derive(Debug, clap::Args)]
pub(crate) struct TailArgs {
    /// The queue.
    pub(crate) queue: String,
    /// Begin with the last N jobs, as far as the queue still has them.
    #[arg(short = 'n', long, value_name = "N", default_value_t = 10, conflicts_with = "from")]
    pub(crate) lines: u64,
    /// Begin at `start` (the first job that the queue still has), `end` (only new jobs), an
    /// offset, a time (2026-11-23T05:00:00Z), or so long ago (2h). [default: -n says where]
    #[arg(long, value_name = "WHERE", value_parser = parse_to)]
    pub(crate) from: Option<GroupSeek>,
    /// Ask the server for new jobs every DURATION.
    #[arg(long, value_name = "DURATION", default_value = "200ms", value_parser = parse_period)]
    pub(crate) interval: Duration,
}

/// A period must not be nothing: the server would be asked without a pause.
pub(super) fn parse_period(text: &str) -> Result<Duration, String> {
    match parse_duration(text)? {
        Duration::ZERO => Err("a period is at least 1ms".to_owned()),
        period => Ok(period),
    }
}

#[derive(Debug, clap::Args)]
pub(crate) struct TopArgs {
    /// Only these queues. [default: all]
    #[arg(value_name = "QUEUE")]
    pub(crate) queues: Vec<String>,
    /// Look every DURATION.
    #[arg(long, value_name = "DURATION", default_value = "1s", value_parser = parse_period)]
    pub(crate) interval: Duration,
    /// Sort by NUMBER, the largest first, or by name.
    #[arg(long, value_name = "NUMBER", value_enum, default_value = "name")]
    pub(crate) sort: Sort,
    /// Look once, also on a terminal.
    #[arg(long)]
    pub(crate) once: bool,
}

#[derive(Debug, clap::Args)]
pub(crate) struct ExportArgs {
    /// The queue.
    pub(crate) queue: String,
    /// Begin at `start` (the first job that the queue still has), an offset, a time
    /// (2026-11-23T05:00:00Z), or so long ago (2h).
    #[arg(long, value_name = "WHERE", default_value = "start", value_parser = parse_to)]
    pub(crate) from: GroupSeek,
    /// End in front of offset N. [default: where the queue ends when the export begins]
    #[arg(long, value_name = "N")]
    pub(crate) to: Option<u64>,
    /// Only jobs that GROUP has still to consume. [default: all that the queue still has]
    #[arg(long, value_name = "GROUP")]
    pub(crate) unconsumed_by: Option<String>,
}

#[derive(Debug, clap::Args)]
pub(crate) struct ImportArgs {
    /// The queue. It is created if the server allows that.
    pub(crate) queue: String,
    /// The file with one job on each line; - is standard input.
    #[arg(default_value = "-")]
    pub(crate) file: PathBuf,
    /// Import each line once, also if this is run again with the same NAME, queue and file within
    /// a day: it goes on where it was broken off. [default: a run knows nothing of those before]
    #[arg(long, value_name = "NAME")]
    pub(crate) once: Option<String>,
    /// Refuse if the queue does not exist.
    #[arg(long)]
    pub(crate) no_create: bool,
}
