//! Typed jobs: a name in a header, and JSON as the payload.

use joblog_protocol::job::Job;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// The header with the name of a job's type.
pub const TYPE_HEADER: &str = "type";

/// Why a job can't be made of a value, or read as one.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TypedJobError {
    /// The value has no form in JSON.
    #[error("{name} can't be written as JSON: {cause}")]
    Write {
        /// The name of the type.
        name: &'static str,
        /// What serde says.
        cause: serde_json::Error,
    },
    /// The payload is not this type in JSON.
    #[error("the payload can't be read as {name}: {cause}")]
    Read {
        /// The name of the type.
        name: &'static str,
        /// What serde says.
        cause: serde_json::Error,
    },
    /// The job has another type, or none.
    #[error("the job's type is {found:?}, and not {name:?}")]
    Name {
        /// The name of the type.
        name: &'static str,
        /// The name that the job has, empty for none.
        found: String,
    },
}

/// A type whose values are jobs: JSON as the payload, and the type's name in the header `type`. The
/// name is what producers and workers agree on, in any language: changing it makes another type.
///
/// ```
/// use joblog::client::TypedJob;
/// use serde::{Deserialize, Serialize};
///
/// #[derive(Serialize, Deserialize)]
/// struct Welcome {
///     user: u64,
/// }
///
/// impl TypedJob for Welcome {
///     const NAME: &'static str = "welcome";
/// }
///
/// let job = Welcome { user: 7 }.to_job().unwrap();
/// assert_eq!(job.payload, br#"{"user":7}"#);
/// assert_eq!(Welcome::from_job(&job).unwrap().user, 7);
/// ```
pub trait TypedJob: Serialize + DeserializeOwned {
    /// The name of the type; at most 65,000 bytes.
    const NAME: &'static str;

    /// The job with this value.
    ///
    /// # Errors
    /// [`TypedJobError::Write`].
    fn to_job(&self) -> Result<Job, TypedJobError> {
        let payload = serde_json::to_vec(self);
        Ok(Job {
            payload: payload.map_err(|cause| TypedJobError::Write { name: Self::NAME, cause })?,
            headers: vec![(TYPE_HEADER.to_owned(), Self::NAME.as_bytes().to_vec())],
            ..Job::default()
        })
    }

    /// The value in a job.
    ///
    /// # Errors
    /// [`TypedJobError::Name`] and [`TypedJobError::Read`].
    fn from_job(job: &Job) -> Result<Self, TypedJobError> {
        let found = type_name(job).unwrap_or_default();
        if found != Self::NAME {
            return Err(TypedJobError::Name { name: Self::NAME, found: found.to_owned() });
        }
        serde_json::from_slice(&job.payload)
            .map_err(|cause| TypedJobError::Read { name: Self::NAME, cause })
    }
}

/// The name of a job's type, if it has one.
pub fn type_name(job: &Job) -> Option<&str> {
    let header = job.headers.iter().find(|(name, _)| name == TYPE_HEADER);
    header.and_then(|(_, value)| str::from_utf8(value).ok())
}
