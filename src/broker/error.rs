//! Why the broker refuses.

use super::checkpoint::CheckpointError;
use crate::log::LogError;
use crate::queue::{JobRefusal, Refusal};
use crate::types::Offset;

/// Why a request was not done. Unless it says otherwise, nothing has changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BrokerError {
    /// No queue has this name.
    #[error("there is no queue {queue:?}; create it, or enqueue to it with auto_create on")]
    NoSuchQueue {
        /// The name.
        queue: String,
    },
    /// No group of the queue has this name.
    #[error(
        "queue {queue:?} has no group {group:?}; create it (only 'default' is born with its first \
         FETCH)"
    )]
    NoSuchGroup {
        /// The queue's name.
        queue: String,
        /// The group's name.
        group: String,
    },
    /// The group is of the other kind.
    #[error("group {group:?} of queue {queue:?} is a {kind} group; {allowed}")]
    WrongGroupKind {
        /// The queue's name.
        queue: String,
        /// The group's name.
        group: String,
        /// Its kind in words.
        kind: &'static str,
        /// What may be done with it.
        allowed: &'static str,
    },
    /// A queue or group could not be made or changed.
    #[error("{what}: {refusal}")]
    Refused {
        /// The queue or group in words.
        what: String,
        /// Why.
        refusal: Refusal,
    },
    /// One job could not be read or committed through.
    #[error("{what}: {refusal}")]
    Job {
        /// The job in words.
        what: String,
        /// Why.
        refusal: JobRefusal,
    },
    /// The queue has no such job yet.
    #[error("{job} does not exist: the offset of the queue's next job is {next}")]
    NoSuchJobYet {
        /// The job in words.
        job: String,
        /// The end of the queue.
        next: Offset,
    },
    /// A result from a group whose results are not kept.
    #[error(
        "only group {primary:?} of queue {queue:?} gives results, by its setting primary_group; \
         commit for {group:?} without one"
    )]
    NotPrimary {
        /// The queue's name.
        queue: String,
        /// The group's name.
        group: String,
        /// The name of the group that does.
        primary: String,
    },
    /// Two queues that a request concerns at once lie in different logs.
    #[error(
        "queues {queue:?} and {other:?} lie in different logs of this server, so nothing can be \
         done to both at once"
    )]
    OtherLog {
        /// One of them.
        queue: String,
        /// The other.
        other: String,
    },
    /// A batch's number is below what is remembered of its producer.
    #[error(
        "batch {sequence} is too old to know whether it was enqueued: of this producer and queue, \
         numbers from {least} on are remembered"
    )]
    SequenceTooOld {
        /// The number.
        sequence: u64,
        /// The lowest that is remembered.
        least: u64,
    },
    /// A batch has the number of another one.
    #[error("batch {sequence} was enqueued with other jobs; each needs a number of its own")]
    SequenceTaken {
        /// The number.
        sequence: u64,
    },
    /// A job has a priority, or is for the front, in a queue where keys matter.
    #[error(
        "queue {queue:?} gives out the jobs of a key in their order or not too many at a time, \
         which a priority or a place at the front would break; enqueue without"
    )]
    RankByKey {
        /// The queue's name.
        queue: String,
    },
    /// A schedule can't be as it was asked for.
    #[error("{reason}")]
    BadSchedule {
        /// What is wrong, and what is allowed.
        reason: String,
    },
    /// The connection's session has another connection by now.
    #[error(
        "the session of this connection has ended: it was silent for too long, or another \
         connection has taken it over; connect and greet again"
    )]
    SessionReplaced,
    /// The server is stopping.
    #[error("the server is stopping; connect again when it is back")]
    ShuttingDown,
    /// The log takes no writes, and what was written may not survive.
    #[error("the log takes no more writes until the server is started again: {reason}")]
    Poisoned {
        /// The first failure.
        reason: String,
    },
    /// The disk has no room for more.
    #[error("{0}")]
    NoSpace(LogError),
    /// Stored bytes can't be read.
    #[error("{0}")]
    Unreadable(LogError),
}

impl From<LogError> for BrokerError {
    fn from(error: LogError) -> Self {
        match error {
            LogError::NoSpace { .. } => Self::NoSpace(error),
            LogError::Damaged { .. } => Self::Unreadable(error),
            LogError::Io { .. }
            | LogError::Version { .. }
            | LogError::Locked { .. }
            | LogError::SegmentBytes { .. }
            | LogError::TermTooLow { .. }
            | LogError::EntryTooLarge { .. }
            | LogError::InvalidEntry { .. }
            | LogError::Poisoned { .. }
            | LogError::Purged { .. }
            | LogError::CompactionStopped { .. }
            | LogError::NoLog { .. }
            | LogError::Closed
            | LogError::NotWritten
            | LogError::Replay { .. } => Self::Poisoned { reason: error.to_string() },
        }
    }
}

/// Why the broker could not be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The log could not be opened or replayed.
    #[error(transparent)]
    Log(#[from] LogError),
    /// A checkpoint contradicts the log, or can't be used.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// A thread could not be started.
    #[error("a thread could not be started: {0}")]
    Thread(#[from] std::io::Error),
}
