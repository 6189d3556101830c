//! What a call of the client can end with, other than its result.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use joblog_protocol::error_code::ErrorCode;
use joblog_protocol::wire::DecodeError;

/// Why a call failed.
///
/// When the connection is cut, the client reconnects and sends again what can be repeated without
/// harm: everything but the commands that create, delete or seek, or that add, remove or run a
/// schedule. Those end with
/// [`ClientError::OutcomeUnknown`] if they may have reached the server, and are sent again only if
/// they can't have.
///
/// [`ClientError::retryable`] says whether the same call may succeed later and does no harm;
/// [`ClientError::outcome_unknown`], whether it may have been done although it failed.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClientError {
    /// The server refused the request: nothing of it was done.
    #[error("{command} was refused: {text} ({code})")]
    Server {
        /// The command, as SPEC.md names it.
        command: &'static str,
        /// The error's code.
        code: ErrorCode,
        /// What was wrong and what is allowed, for people.
        text: String,
    },
    /// The server answered with an error number that this client does not know.
    #[error("{command} was refused with the unknown error {number}: {text}")]
    UnknownCode {
        /// The command, as SPEC.md names it.
        command: &'static str,
        /// The error's number.
        number: u16,
        /// What the server says about it.
        text: String,
    },
    /// There is no connection, and none could be made in time. Nothing was changed.
    #[error("the server at {address} can't be reached: {cause}")]
    Unreachable {
        /// Where the server was looked for.
        address: String,
        /// Why it could not be reached.
        cause: Arc<io::Error>,
    },
    /// The request found no place among those under way, and was not sent.
    #[error(
        "{command} was not sent within {} ms: too many bytes are under way",
        timeout.as_millis()
    )]
    Busy {
        /// The command, as SPEC.md names it.
        command: &'static str,
        /// How long the call waited.
        timeout: Duration,
    },
    /// No answer came in time. What changes something may have been done, or may be done yet.
    #[error("{command} was not answered within {} ms", timeout.as_millis())]
    Timeout {
        /// The command, as SPEC.md names it.
        command: &'static str,
        /// How long the call waited.
        timeout: Duration,
    },
    /// The request reached the server, or may have, and whether it was done can't be known.
    #[error("whether {command} was done is unknown: {cause}")]
    OutcomeUnknown {
        /// The command, as SPEC.md names it.
        command: &'static str,
        /// What happened.
        cause: String,
    },
    /// The server's reply does not have its command's layout.
    #[error("the reply to {command} can't be read: {cause}")]
    Protocol {
        /// The command, as SPEC.md names it.
        command: &'static str,
        /// What is wrong with it.
        cause: DecodeError,
    },
    /// The request is outside the protocol's limits and was not sent.
    #[error(transparent)]
    Invalid(#[from] DecodeError),
    /// The client holds so many jobs that it could not name them all at a reconnect.
    #[error(
        "{held} jobs are held and {more} more are asked for; allowed are {max} in all: commit, \
         release or fail some first"
    )]
    TooManyHeld {
        /// Jobs held.
        held: usize,
        /// Jobs asked for.
        more: usize,
        /// The limit.
        max: usize,
    },
    /// The client was closed, or another client has taken its session over.
    #[error("the client is closed: {reason}")]
    Closed {
        /// Why.
        reason: &'static str,
    },
    /// The driver's thread could not be started.
    #[error("the client's thread can't be started: {cause}")]
    Start {
        /// What the operating system says.
        cause: Arc<io::Error>,
    },
}

impl ClientError {
    /// Whether the same call may succeed later, without the danger of doing something twice.
    pub fn retryable(&self) -> bool {
        self.fate() == Fate::MaySucceed
    }

    /// Whether the request may have been done all the same.
    pub fn outcome_unknown(&self) -> bool {
        self.fate() == Fate::Unknown
    }

    fn fate(&self) -> Fate {
        match self {
            Self::Server { code, .. } if code.retryable() => Fate::MaySucceed,
            Self::Unreachable { .. } | Self::Busy { .. } => Fate::MaySucceed,
            Self::OutcomeUnknown { .. } | Self::Protocol { .. } => Fate::Unknown,
            Self::Timeout { command, .. } if changes_something(command) => Fate::Unknown,
            Self::Timeout { .. } => Fate::MaySucceed,
            Self::Server { .. }
            | Self::UnknownCode { .. }
            | Self::Invalid(_)
            | Self::TooManyHeld { .. }
            | Self::Closed { .. }
            | Self::Start { .. } => Fate::Refused,
        }
    }

    /// The code, if the server refused the request.
    pub fn code(&self) -> Option<ErrorCode> {
        if let Self::Server { code, .. } = self { Some(*code) } else { None }
    }
}

/// What is known of a request that has failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    /// It was not done, and may be done when it is made again.
    MaySucceed,
    /// It may have been done.
    Unknown,
    /// It was not done, and it will not be.
    Refused,
}

/// A FETCH that is repeated grants other jobs: what the lost one granted is released.
pub(crate) fn changes_something(command: &str) -> bool {
    let asks_only = command.starts_with("LIST") || command.starts_with("DESCRIBE");
    let asks_only = asks_only || ["DEAD_LIST", "SCHEDULE_LIST"].contains(&command);
    !asks_only && !["PING", "READ", "FETCH", "HELLO", "WAIT", "JOB_INFO"].contains(&command)
}
