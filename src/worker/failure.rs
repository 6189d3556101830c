//! How handlers fail, and what that means for the job.

use std::convert::Infallible;
use std::error::Error;
use std::fmt;
use std::time::Duration;

/// What follows a failure.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Retry {
    /// The job is tried again after the backoff of its queue, until it is out of failures.
    #[default]
    Backoff,
    /// The same, after this time instead of the backoff.
    After(Duration),
    /// The job is dead: listed with its reason, and not tried again by itself.
    Never,
    /// It was no failure: the job goes back, is ready again after this time, and nothing is
    /// counted.
    Release(Duration),
}

/// An error of a handler. Implement it for an error type whose kinds differ in what they mean for
/// the job.
///
/// ```
/// use std::time::Duration;
/// use joblog::worker::{JobFailure, Retry};
///
/// enum MailError {
///     NoSuchAddress(String),
///     TooManyRequests(Duration),
///     Network(std::io::Error),
/// }
///
/// impl JobFailure for MailError {
///     fn reason(&self) -> String {
///         match self {
///             Self::NoSuchAddress(address) => format!("there is no {address}"),
///             Self::TooManyRequests(_) => "the server asks to slow down".to_owned(),
///             Self::Network(error) => error.to_string(),
///         }
///     }
///
///     fn retry(&self) -> Retry {
///         match self {
///             Self::NoSuchAddress(_) => Retry::Never,
///             Self::TooManyRequests(pause) => Retry::Release(*pause),
///             Self::Network(_) => Retry::Backoff,
///         }
///     }
/// }
/// ```
pub trait JobFailure {
    /// Why, for people; kept with the job, cut at 4 KiB.
    fn reason(&self) -> String;

    /// What follows. Default: the queue's backoff.
    fn retry(&self) -> Retry {
        Retry::Backoff
    }
}

/// An error of a handler that any other error turns into with `?`: the job is tried again, unless
/// it was made by one of the functions here.
///
/// ```
/// use joblog::worker::JobError;
///
/// fn parse(payload: &[u8]) -> Result<u64, JobError> {
///     let text = str::from_utf8(payload).map_err(JobError::never)?;
///     Ok(text.parse::<u64>()?)
/// }
/// assert_eq!(parse(b"x").unwrap_err().to_string(), "invalid digit found in string");
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JobError {
    reason: String,
    retry: Retry,
}

impl JobError {
    /// Tried again after the queue's backoff.
    pub fn new(reason: impl fmt::Display) -> Self {
        Self { reason: reason.to_string(), retry: Retry::Backoff }
    }

    /// Tried again after this time.
    pub fn after(delay: Duration, reason: impl fmt::Display) -> Self {
        Self { retry: Retry::After(delay), ..Self::new(reason) }
    }

    /// Never tried again: the job is dead.
    pub fn never(reason: impl fmt::Display) -> Self {
        Self { retry: Retry::Never, ..Self::new(reason) }
    }

    /// No failure: the job goes back, and is ready again after this time.
    pub fn release(delay: Duration, reason: impl fmt::Display) -> Self {
        Self { retry: Retry::Release(delay), ..Self::new(reason) }
    }

    pub(super) fn of(failure: &impl JobFailure) -> Self {
        Self { reason: failure.reason(), retry: failure.retry() }
    }
}

impl fmt::Display for JobError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.reason)
    }
}

impl<E: Error> From<E> for JobError {
    /// The reason names the causes too.
    fn from(error: E) -> Self {
        Self::new(chain(&error))
    }
}

/// `what: its cause: the cause of that`.
fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

/// What a [`JobError`] is as a standard error. It is none itself, so that all others turn into it.
#[derive(Debug)]
struct Boxed(JobError);

impl fmt::Display for Boxed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Error for Boxed {}

impl From<JobError> for Box<dyn Error + Send + Sync> {
    /// For layers whose errors are boxes; what follows the failure comes through.
    fn from(error: JobError) -> Self {
        Box::new(Boxed(error))
    }
}

impl JobFailure for JobError {
    fn reason(&self) -> String {
        self.reason.clone()
    }

    fn retry(&self) -> Retry {
        self.retry
    }
}

impl JobFailure for Box<dyn Error + Send + Sync> {
    fn reason(&self) -> String {
        chain(&**self)
    }

    fn retry(&self) -> Retry {
        self.downcast_ref::<Boxed>().map_or(Retry::Backoff, |boxed| boxed.0.retry)
    }
}

impl JobFailure for String {
    fn reason(&self) -> String {
        self.clone()
    }
}

impl JobFailure for &str {
    fn reason(&self) -> String {
        (*self).to_owned()
    }
}

impl JobFailure for Infallible {
    fn reason(&self) -> String {
        match *self {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_turns_into_a_job_error_with_its_causes() {
        #[derive(Debug, thiserror::Error)]
        #[error("outer")]
        struct Outer(#[source] std::num::ParseIntError);
        let inner = "x".parse::<u8>().unwrap_err();
        let error = JobError::from(Outer(inner));
        assert_eq!(error.reason(), "outer: invalid digit found in string");
        assert_eq!(error.retry(), Retry::Backoff);
    }

    #[test]
    fn what_follows_comes_through_a_box() {
        let boxed = Box::<dyn Error + Send + Sync>::from(JobError::never("no"));
        assert_eq!((boxed.reason(), boxed.retry()), ("no".to_owned(), Retry::Never));
        let plain = Box::<dyn Error + Send + Sync>::from("plain");
        assert_eq!((plain.reason(), plain.retry()), ("plain".to_owned(), Retry::Backoff));
    }
}
