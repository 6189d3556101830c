//! How a run of `qctl` can end, and what it says then.

use std::io;

use joblog::client::{ClientError, ErrorCode};

use crate::color::{ALARM, Colors};

/// How a run ended that reported its troubles, if any, itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    /// Everything was done.
    Done,
    /// Something was not done.
    Failed,
}

impl Exit {
    pub(crate) fn failed_if(failed: bool) -> Self {
        if failed { Self::Failed } else { Self::Done }
    }
}

/// How a run ended.
pub(crate) type Outcome = Result<Exit, CliError>;

/// Why a run was given up.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CliError {
    #[error(transparent)]
    Client(#[from] ClientError),
    #[error("lines {first} to {last} {}: {error}", fate(error))]
    Lines { first: u64, last: u64, error: ClientError },
    #[error("{0}")]
    Usage(String),
    #[error("{0}")]
    Failed(String),
    #[error("standard output can't be written: {0}")]
    Output(#[from] io::Error),
}

impl CliError {
    fn code(&self) -> u8 {
        match self {
            Self::Client(ClientError::Unreachable { .. })
            | Self::Lines { error: ClientError::Unreachable { .. }, .. } => 3,
            Self::Client(ClientError::Invalid(_))
            | Self::Lines { error: ClientError::Invalid(_), .. } => 2,
            Self::Usage(_) => 2,
            // Whoever read our output has seen enough.
            Self::Output(error) if error.kind() == io::ErrorKind::BrokenPipe => 0,
            Self::Client(_) | Self::Lines { .. } | Self::Failed(_) | Self::Output(_) => 1,
        }
    }

    /// What to do about it, where the error itself can't know.
    fn advice(&self) -> &'static str {
        let Self::Client(error) = self else { return "" };
        if matches!(error, ClientError::Unreachable { .. }) {
            return "\nIs joblogd running there? --server or JOBLOG_SERVER says where to look.";
        }
        if matches!(error, ClientError::OutcomeUnknown { .. }) {
            return "\nLook whether it was done before you try again.";
        }
        let known = ADVICE.iter().find(|(code, _)| error.code() == Some(*code));
        known.map_or("", |(_, advice)| advice)
    }
}

/// What to do when the server refuses something.
const ADVICE: [(ErrorCode, &str); 10] = [
    (ErrorCode::NoSuchQueue, "\n`qctl queue list` lists the queues."),
    (ErrorCode::QueueExists, "\n`qctl queue show QUEUE` shows its settings."),
    (ErrorCode::OtherLog, "\n`qctl copy` reaches over logs; cancel or purge the jobs afterwards."),
    (ErrorCode::NoSuchGroup, "\n`qctl group list QUEUE` lists a queue's groups."),
    (ErrorCode::GroupExists, "\n`qctl group show QUEUE GROUP` shows it."),
    (
        ErrorCode::QueueFull,
        "\nMore workers, or `qctl queue purge QUEUE`, make room; `qctl top` shows who is behind.",
    ),
    (
        ErrorCode::WrongGroupKind,
        "\nWork groups FETCH and commit jobs; stream groups commit with --through.",
    ),
    (
        ErrorCode::LogPoisoned,
        "\nA write failed on the server. Look at its disk, then start it again.",
    ),
    (ErrorCode::DiskFull, "\nMake room on the server's disk; what waits is safe."),
    (ErrorCode::Damaged, "\nStop the server, and `qctl log verify DIR` says what is damaged."),
];

fn fate(error: &ClientError) -> &'static str {
    if error.outcome_unknown() { "may or may not be enqueued" } else { "are not enqueued" }
}

/// The exit code, as `qctl --help` lists them.
pub(crate) fn exit_code(result: &Outcome) -> u8 {
    match result {
        Ok(Exit::Done) => 0,
        Ok(Exit::Failed) => 1,
        Err(error) => error.code(),
    }
}

/// Says on standard error what went wrong.
pub(crate) fn report(result: &Outcome, colors: Colors) {
    if let Err(error) = result
        && error.code() != 0
    {
        tell!("{} {error}{}", colors.paint(ALARM, "qctl:"), error.advice());
    }
}
