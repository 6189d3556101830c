//! `qctl queue`.

use clap::Subcommand;

use super::settings::{SettingsArgs, parse_setting};

#[derive(Debug, Subcommand)]
pub(crate) enum QueueCommand {
    /// Create a queue.
    Create(Box<QueueCreateArgs>),
    /// Change settings of a queue. What is not named stays as it is.
    Set(Box<QueueSetArgs>),
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
        /// Only this group. [default: all groups]
        #[arg(long)]
        group: Option<String>,
    },
    /// End a pause.
    Resume {
        /// The queue.
        queue: String,
        /// Only that of this group. [default: that of the whole queue]
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
    #[command(flatten)]
    pub(crate) settings: SettingsArgs,
}

#[derive(Debug, clap::Args)]
pub(crate) struct QueueSetArgs {
    /// The queue.
    pub(crate) queue: String,
    #[command(flatten)]
    pub(crate) settings: SettingsArgs,
    /// Give SETTING its default back. It is named like its option: `--reset max-jobs`.
    /// [default: none]
    #[arg(long, value_name = "SETTING", value_parser = parse_setting)]
    pub(crate) reset: Vec<&'static str>,
}
