//! The command line: every command and option, once.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::builder::StyledStr;
use clap::{ArgGroup, CommandFactory, FromArgMatches, Parser, Subcommand, ValueEnum};
use joblog_protocol::limits::DELAY_MS_MAX;

use joblog::client::GroupSeek;

use crate::job_name::JobName;
use crate::values::{parse_duration, parse_time, unix_now_ms};

const GLOBAL: &str = "Global options";

const AFTER_HELP: &str = "\
A job's name is QUEUE:OFFSET, with @TOKEN behind it where its lease is meant.
Durations are whole numbers with a unit: 500ms, 30s, 5m, 2h, 7d.

Exit codes:
  0  Everything was done.
  1  Something was not done; standard error says what.
  2  The command line is wrong.
  3  The server can't be reached.";

/// Work with the queues of a Joblog server.
#[derive(Debug, Parser)]
#[command(version, after_help = AFTER_HELP, max_term_width = 100)]
pub(crate) struct Args {
    #[command(flatten)]
    pub(crate) server: ServerArgs,
    /// Print data as JSON, one object per line.
    #[arg(long, global = true, help_heading = GLOBAL)]
    pub(crate) json: bool,
    #[command(subcommand)]
    pub(crate) command: Command,
}

impl Args {
    /// Reads the command line. A wrong one ends the process with exit code 2.
    pub(crate) fn read() -> Self {
        let matches = with_full_stops(Self::command()).get_matches();
        Self::from_arg_matches(&matches).unwrap_or_else(|error| error.exit())
    }
}

/// Puts back the full stops that clap takes away from the ends of doc comments.
fn with_full_stops(command: clap::Command) -> clap::Command {
    let about = command.get_about().map(with_full_stop);
    let command = match about {
        Some(about) => command.about(about),
        None => command,
    };
    let in_argument = |argument: clap::Arg| match argument.get_help().map(with_full_stop) {
        Some(help) => argument.help(help),
        None => argument,
    };
    command.mut_args(in_argument).mut_subcommands(with_full_stops)
}

fn with_full_stop(text: &StyledStr) -> String {
    let text = text.to_string();
    let is_ended = text.ends_with(['.', ']']);
    if is_ended { text } else { text + "." }
}

/// Where the server is.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = GLOBAL)]
pub(crate) struct ServerArgs {
    /// Connect to the server at ADDR, as HOST:PORT.
    #[arg(long, global = true, value_name = "ADDR", env = "JOBLOG_SERVER", hide_env_values = true)]
    #[arg(default_value = "127.0.0.1:7411")]
    pub(crate) server: String,
    /// Give up on a request that is not answered for DURATION.
    #[arg(long, global = true, value_name = "DURATION", default_value = "30s")]
    #[arg(value_parser = parse_duration)]
    pub(crate) timeout: Duration,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Ask the server for an answer, and say how long it took.
    Ping,
    /// Create, list, show and delete queues.
    #[command(subcommand)]
    Queue(QueueCommand),
    /// Create, list, show and delete the groups of a queue.
    #[command(subcommand)]
    Group(GroupCommand),
    /// Put jobs into a queue.
    Enqueue(EnqueueArgs),
    /// Take jobs under a timed lease, and print them.
    Fetch(FetchArgs),
    /// Print jobs without taking them.
    Peek(PeekArgs),
    /// Consume jobs: their group never gets them again.
    Commit(CommitArgs),
    /// Hand jobs back without fault.
    Release(ReleaseArgs),
    /// Hand jobs back with a reason; the queue's retry policy decides what follows.
    Fail(FailArgs),
    /// Renew the leases of jobs.
    Extend(ExtendArgs),
    /// List, show, retry and drop dead jobs.
    #[command(subcommand)]
    Dead(DeadCommand),
    /// Cancel jobs, whether they wait, are delayed, dead or running.
    ///
    /// They are not delivered any more. The worker of a running job is asked to stop; if it commits
    /// the job all the same, that counts.
    Cancel {
        /// The jobs, as QUEUE:OFFSET.
        #[arg(required = true, value_name = "JOB")]
        jobs: Vec<JobName>,
    },
    /// Check, print and repair the files of a server that is stopped.
    #[command(subcommand)]
    Log(LogCommand),
    /// Run a command for each job, and commit the job if it succeeds.
    ///
    /// The job's payload stands where {} stands in an argument of COMMAND, or comes on standard
    /// input if there is no {}. If COMMAND exits with 0, its whole output is written and then the
    /// job is committed; otherwise the job fails, with the end of the standard error as the reason.
    ///
    /// SIGTERM and SIGINT let running commands finish and take nothing new; a second one kills them
    /// and hands their jobs back.
    Work(WorkArgs),
}

#[derive(Debug, Subcommand)]
pub(crate) enum LogCommand {
    /// Check every byte that counts. Changes nothing.
    Verify {
        /// The data directory of the server, or that of one log.
        dir: PathBuf,
    },
    /// Print every frame. Changes nothing.
    Dump {
        /// The data directory of the server, or that of one log.
        dir: PathBuf,
    },
    /// Cut a log that is refused as damaged, in front of the damage.
    ///
    /// Says first what will be lost. What is cut is moved aside and not deleted.
    Repair {
        /// The data directory of the server, or that of one log.
        dir: PathBuf,
        /// Do not ask.
        #[arg(long)]
        yes: bool,
    },
}

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

#[derive(Debug, Subcommand)]
pub(crate) enum GroupCommand {
    /// Create a group on a queue.
    Create {
        /// The queue.
        queue: String,
        /// The group.
        group: String,
        /// Share the jobs under leases (work), or read them in order (stream).
        #[arg(long, value_enum, default_value = "work")]
        kind: Kind,
        /// See jobs from here on: `start` (the first that the queue still has), `end` (only new
        /// ones), or an offset.
        #[arg(long, value_name = "WHERE", default_value = "start", value_parser = parse_from)]
        from: Begin,
    },
    /// List the groups of a queue.
    List {
        /// The queue.
        queue: String,
    },
    /// Show a group and its dead jobs.
    Show {
        /// The queue.
        queue: String,
        /// The group.
        group: String,
    },
    /// Set a group to another place: what lies below is consumed, the rest is to be consumed, as
    /// far as the queue still has it. The group's leases end.
    Seek {
        /// The queue.
        queue: String,
        /// The group.
        group: String,
        /// Where to: `start` (the first job that the queue still has), `end`, an offset, a time
        /// (2026-11-23T05:00:00Z), or so long ago (2h): the first job enqueued since then.
        #[arg(long, value_name = "WHERE", value_parser = parse_to)]
        to: GroupSeek,
    },
    /// Delete a group: what it has consumed is forgotten.
    Delete {
        /// The queue.
        queue: String,
        /// The group.
        group: String,
        /// Do not ask. Needed when standard input is no terminal.
        #[arg(long)]
        yes: bool,
    },
}

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
    Retry(DeadActArgs),
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
    /// Only jobs with TEXT in their last error.
    #[arg(long, value_name = "TEXT")]
    pub(crate) error: Option<String>,
    /// Only jobs that have been dead for longer than DURATION.
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    pub(crate) older: Option<Duration>,
    /// Only jobs that have been dead for less than DURATION.
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

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum Kind {
    Work,
    Stream,
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Begin {
    First,
    End,
    Offset(u64),
}

fn parse_from(text: &str) -> Result<Begin, String> {
    match text {
        "start" => Ok(Begin::First),
        "end" => Ok(Begin::End),
        offset => offset
            .parse()
            .map(Begin::Offset)
            .map_err(|_| "allowed is start, end or an offset".to_owned()),
    }
}

fn parse_to(text: &str) -> Result<GroupSeek, String> {
    match (text, text.parse(), parse_time(text), parse_duration(text)) {
        ("start", ..) => Ok(GroupSeek::Start),
        ("end", ..) => Ok(GroupSeek::End),
        (_, Ok(offset), ..) => Ok(GroupSeek::Offset(offset)),
        (_, _, Ok(unix_ms), _) => Ok(GroupSeek::TimeMs(unix_ms)),
        (_, _, _, Ok(ago)) => {
            Ok(GroupSeek::TimeMs(unix_now_ms().saturating_sub(ago.as_millis() as u64)))
        }
        _ => Err("allowed is start, end, an offset, a time in UTC as in 2026-11-23T05:00:00Z, or \
                  a duration ago as in 2h"
            .to_owned()),
    }
}

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
    /// Give the jobs this key.
    #[arg(long)]
    pub(crate) key: Option<OsString>,
    /// Give the jobs this header. Can be used several times.
    #[arg(long = "header", value_name = "NAME=VALUE")]
    pub(crate) headers: Vec<OsString>,
    /// Deliver the jobs when DURATION has passed, and not before.
    #[arg(long, value_name = "DURATION", value_parser = parse_delay, conflicts_with = "at")]
    pub(crate) delay: Option<Duration>,
    /// Deliver the jobs at TIME, as in 2026-12-24T18:00:00+01:00, and not before.
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    pub(crate) at: Option<u64>,
    /// Do not deliver the jobs any more when DURATION has passed.
    #[arg(long, value_name = "DURATION", value_parser = parse_delay)]
    pub(crate) ttl: Option<Duration>,
    /// Refuse if the queue does not exist.
    #[arg(long)]
    pub(crate) no_create: bool,
}

fn parse_delay(text: &str) -> Result<Duration, String> {
    let delay = parse_duration(text)?;
    if delay.as_millis() > DELAY_MS_MAX as u128 {
        return Err("a delay is at most 366d; --at reaches further".to_owned());
    }
    Ok(delay)
}

#[derive(Debug, clap::Args)]
pub(crate) struct FetchArgs {
    /// The queues, in the order in which they are asked.
    #[arg(required = true, value_name = "QUEUE")]
    pub(crate) queues: Vec<String>,
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
    /// Let the job fail N times, instead of as often as its queue says; 0 makes it dead now.
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
}

#[derive(Debug, clap::Args)]
pub(crate) struct WorkArgs {
    /// The queues, in the order in which they are asked.
    #[arg(required = true, value_name = "QUEUE")]
    pub(crate) queues: Vec<String>,
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
    /// The command and its arguments.
    #[arg(required = true, last = true, value_name = "COMMAND")]
    pub(crate) command: Vec<OsString>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_definition_is_consistent() {
        with_full_stops(Args::command()).debug_assert();
    }
}
