//! `qctl group`.

use clap::{Subcommand, ValueEnum};
use joblog::client::GroupSeek;

use crate::values::{parse_duration, parse_time, unix_now_ms};

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

pub(super) fn parse_to(text: &str) -> Result<GroupSeek, String> {
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
