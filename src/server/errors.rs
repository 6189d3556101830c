//! What a client is told of an error: its code and its text, for every kind of error there is.
//!
//! The matches have no rest: an error without a code does not compile.

use joblog_protocol::job::JobError;
use joblog_protocol::{DecodeError, ErrorCode};

use crate::broker::{BrokerError, JobRefusal, Refusal};

/// Why a request, or what a reply tells of, was refused.
#[derive(Debug)]
pub(super) struct Refused {
    /// For programs.
    pub(super) code: ErrorCode,
    /// For people.
    pub(super) text: String,
}

impl Refused {
    pub(super) fn new(code: ErrorCode, text: impl Into<String>) -> Self {
        Self { code, text: text.into() }
    }
}

impl From<DecodeError> for Refused {
    fn from(error: DecodeError) -> Self {
        Self::new(error.code(), error.to_string())
    }
}

impl From<JobError> for Refused {
    fn from(error: JobError) -> Self {
        Self::new(error.code(), error.to_string())
    }
}

impl From<&BrokerError> for Refused {
    fn from(error: &BrokerError) -> Self {
        let code = match error {
            BrokerError::NoSuchQueue { .. } => ErrorCode::NoSuchQueue,
            BrokerError::NoSuchGroup { .. } => ErrorCode::NoSuchGroup,
            BrokerError::WrongGroupKind { .. } => ErrorCode::WrongGroupKind,
            BrokerError::Refused { refusal, .. } => refusal_code(refusal),
            BrokerError::Job { refusal, .. } => job_code(refusal),
            BrokerError::NoSuchJobYet { .. } => ErrorCode::BeyondEnd,
            BrokerError::NotPrimary { .. } => ErrorCode::NotPrimaryGroup,
            BrokerError::OtherLog { .. } => ErrorCode::OtherLog,
            BrokerError::SequenceTooOld { .. } => ErrorCode::SequenceTooOld,
            BrokerError::SequenceTaken { .. } => ErrorCode::BadRequest,
            BrokerError::RankByKey { .. } => ErrorCode::Unsupported,
            BrokerError::BadSchedule { .. } => ErrorCode::BadSchedule,
            BrokerError::SessionReplaced => ErrorCode::SessionReplaced,
            BrokerError::ShuttingDown => ErrorCode::ShuttingDown,
            BrokerError::Poisoned { .. } => ErrorCode::LogPoisoned,
            BrokerError::NoSpace(_) => ErrorCode::DiskFull,
            BrokerError::Unreadable(_) => ErrorCode::Damaged,
        };
        Self::new(code, error.to_string())
    }
}

/// The code of a queue, group or schedule that could not be made or changed.
fn refusal_code(refusal: &Refusal) -> ErrorCode {
    match refusal {
        Refusal::QueueExists { .. } => ErrorCode::QueueExists,
        Refusal::NoSuchQueue => ErrorCode::NoSuchQueue,
        Refusal::GroupExists { .. } => ErrorCode::GroupExists,
        Refusal::NoSuchGroup => ErrorCode::NoSuchGroup,
        Refusal::StartOutside { .. }
        | Refusal::Settings(_)
        | Refusal::KeysInUse { .. }
        | Refusal::OutOfIds => ErrorCode::BadSetting,
        Refusal::QueueFull { .. } => ErrorCode::QueueFull,
        Refusal::NeverFits { .. } => ErrorCode::BatchTooLarge,
        Refusal::TooManyGroups { .. } => ErrorCode::TooMany,
        Refusal::ScheduleExists => ErrorCode::ScheduleExists,
        Refusal::NoSuchSchedule => ErrorCode::NoSuchSchedule,
    }
}

/// The code of one job that was refused.
pub(super) fn job_code(refusal: &JobRefusal) -> ErrorCode {
    match refusal {
        JobRefusal::AlreadyConsumed => ErrorCode::AlreadyConsumed,
        JobRefusal::LeaseLost => ErrorCode::LeaseLost,
        JobRefusal::CancelRequested => ErrorCode::CancelRequested,
        JobRefusal::BeyondEnd { .. } => ErrorCode::BeyondEnd,
        JobRefusal::WrongKind => ErrorCode::WrongGroupKind,
        JobRefusal::NoSuchGroup => ErrorCode::NoSuchGroup,
        JobRefusal::LeaseTooLong => ErrorCode::BadRequest,
    }
}
