//! The command line: every command and option, once; a file for each family of commands.

mod dead;
mod enqueue;
mod group;
mod jobs;
mod log;
mod moving;
mod queue;
mod schedule;
mod settings;
mod transfer;
mod work;

use std::path::PathBuf;
use std::time::Duration;

use clap::builder::StyledStr;
use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};
use clap_complete::Shell;

pub(crate) use self::dead::{DeadActArgs, DeadCommand, DeadFilter};
pub(crate) use self::enqueue::{EnqueueArgs, JobOptions};
pub(crate) use self::group::{Begin, GroupCommand, Kind};
pub(crate) use self::jobs::{
    CommitArgs, ExtendArgs, FailArgs, FetchArgs, JobArgs, PeekArgs, ReleaseArgs,
};
pub(crate) use self::log::LogCommand;
pub(crate) use self::moving::{JobCommand, MoveArgs};
pub(crate) use self::queue::QueueCommand;
pub(crate) use self::schedule::{MissedArg, ScheduleAddArgs, ScheduleCommand};
pub(crate) use self::transfer::{ExportArgs, ImportArgs, TailArgs, TopArgs};
pub(crate) use self::work::WorkArgs;
use crate::color::{self, When};
use crate::job_name::JobName;
use crate::values::parse_duration;

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
#[command(name = "qctl", version, after_help = AFTER_HELP, max_term_width = 100)]
pub(crate) struct Args {
    #[command(flatten)]
    pub(crate) server: ServerArgs,
    /// Print data as JSON, one object per line.
    #[arg(long, global = true, help_heading = GLOBAL)]
    pub(crate) json: bool,
    /// Use colours: on a terminal (auto; NO_COLOR turns them off), always or never.
    #[arg(long, global = true, help_heading = GLOBAL, value_name = "WHEN", value_enum)]
    #[arg(default_value = "auto", hide_possible_values = true)]
    pub(crate) color: When,
    #[command(subcommand)]
    pub(crate) command: Command,
}

impl Args {
    /// Reads the command line. A wrong one ends the process with exit code 2.
    pub(crate) fn read() -> Self {
        let choice = color::choice(std::env::args_os());
        let matches = definition().color(choice).get_matches();
        Self::from_arg_matches(&matches).unwrap_or_else(|error| error.exit())
    }
}

/// The command line, for those who make something of it.
pub(crate) fn definition() -> clap::Command {
    with_full_stops(Args::command())
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
    /// Follow a queue: print jobs as they are enqueued, without taking them.
    ///
    /// What every group has consumed before it could be shown is counted on standard error. It ends
    /// at SIGINT, at SIGTERM, and when nobody reads its output any more.
    Tail(TailArgs),
    /// Print jobs as JSON, one on each line, for `qctl import`. Changes nothing.
    Export(ExportArgs),
    /// Put the jobs of an export into a queue.
    ///
    /// A delay and a time to live begin anew. Each batch of lines is enqueued once, also if the
    /// connection is cut meanwhile; --once makes that so for several runs together.
    Import(ImportArgs),
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
    /// Show one job, wait for its end, and make delayed ones ready.
    #[command(subcommand)]
    Job(JobCommand),
    /// Move jobs that wait, or are delayed or dead, to another queue, for all groups.
    ///
    /// Each is in one of the queues at every moment, whatever ends meanwhile. It goes on there as a
    /// new job, with what is left of its delay and its time to live. Both queues must lie in the
    /// same log: on a server with one log all do.
    Move(MoveArgs),
    /// Copy the jobs of a queue to another one. They stay where they are, too.
    Copy(MoveArgs),
    /// Add, list, show, pause, run and remove schedules: jobs that the server enqueues by itself.
    #[command(subcommand)]
    Schedule(ScheduleCommand),
    /// Check, print and repair the files of a server that is stopped.
    #[command(subcommand)]
    Log(LogCommand),
    /// Show the numbers of all queues, live; without a terminal, once as a table.
    ///
    /// With --json it prints an object at each look. On a terminal, keys select, pause and resume
    /// queues, and show their groups; q quits.
    Top(TopArgs),
    /// Print a script that completes commands and options: for bash, zsh, fish and others.
    Completions {
        /// The shell.
        shell: Shell,
    },
    /// Print the man page of qctl, or write one for each command.
    Man {
        /// Where to write the pages.
        #[arg(value_name = "DIR")]
        directory: Option<PathBuf>,
    },
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_definition_is_consistent() {
        definition().debug_assert();
    }
    /// Every command with its words, `qctl` left out.
    fn commands(command: &clap::Command, words: &str, each: &mut impl FnMut(&str, &clap::Command)) {
        for inner in command.get_subcommands() {
            let words = format!("{words} {}", inner.get_name());
            match inner.has_subcommands() {
                true => commands(inner, &words, each),
                false => each(words.trim_start(), inner),
            }
        }
    }

    #[test]
    fn every_option_says_what_is_so_without_it() {
        let mut silent = Vec::new();
        commands(&definition(), "", &mut |words, command| {
            assert!(command.get_about().is_some(), "{words} says nothing");
            for argument in command.get_arguments() {
                let help = argument.get_help().map(ToString::to_string).unwrap_or_default();
                assert!(!help.is_empty(), "{words}: {} says nothing", argument.get_id());
                let is_one_of = |group: &clap::ArgGroup| {
                    group.is_required_set() && group.get_args().any(|id| id == argument.get_id())
                };
                let is_told = argument.is_positional()
                    || command.get_groups().any(is_one_of)
                    || argument.is_required_set()
                    || !argument.get_action().takes_values()
                    || !argument.get_default_values().is_empty()
                    || help.contains("[default: ");
                if !is_told {
                    silent.push(format!("{words} --{}", argument.get_long().unwrap_or_default()));
                }
            }
        });
        assert!(silent.is_empty(), "no default in the help of {silent:#?}");
    }

    #[test]
    fn the_page_of_qctl_lists_the_commands_that_there_are() {
        let page = include_str!("../../../docs/qctl.md");
        let rows = page.lines().filter_map(|line| line.strip_prefix("| `qctl "));
        let listed: Vec<&str> = rows.filter_map(|row| Some(row.split_once("` |")?.0)).collect();
        let mut there_are = Vec::new();
        commands(&Args::command(), "", &mut |words, _| there_are.push(words.to_owned()));
        assert_eq!(listed, there_are, "the table of docs/qctl.md, and the commands");
    }
}
