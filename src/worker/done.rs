//! What a handler that ended well has to say.

use std::sync::Arc;

use joblog_protocol::job::BatchBuilder;
use serde::Serialize;

use super::failure::JobError;
use crate::client::Job;

/// What a handler returns, if it has more to say than `()`: the job's result, or jobs that follow.
///
/// ```
/// use joblog::client::Job;
/// use joblog::worker::{Delivery, Done, JobError};
///
/// async fn resize(delivery: Delivery) -> Result<Done, JobError> {
///     let small = &delivery.job.payload[..delivery.job.payload.len() / 2];
///     // The upload is enqueued with the commit of this job: both, or neither.
///     Done::json(&small.len())?.then("upload", [Job::new(small)])
/// }
/// ```
#[derive(Clone, Debug, Default)]
pub struct Done {
    pub(super) result: Option<Vec<u8>>,
    pub(super) next: Option<Next>,
}

/// Jobs that follow from one.
#[derive(Clone, Debug)]
pub(super) struct Next {
    pub(super) queue: Arc<str>,
    pub(super) jobs: BatchBuilder,
}

impl Done {
    /// With this result, which the queue keeps for those who wait for the job's end: at most
    /// 64 KiB, and only of its primary group.
    pub fn result(result: impl Into<Vec<u8>>) -> Self {
        Self { result: Some(result.into()), next: None }
    }

    /// With this value in JSON as the result.
    ///
    /// # Errors
    /// If the value has no form in JSON.
    pub fn json(value: &impl Serialize) -> Result<Self, JobError> {
        Ok(Self::result(serde_json::to_vec(value).map_err(JobError::never)?))
    }

    /// And these jobs follow: they are enqueued with the commit of this one, both or neither. Their
    /// queue must lie in the same log as the job's; on a server with one log all do.
    ///
    /// # Errors
    /// If the jobs are over a limit of a batch.
    pub fn then(
        mut self,
        queue: impl Into<Arc<str>>,
        jobs: impl IntoIterator<Item = Job>,
    ) -> Result<Self, JobError> {
        let mut batch = BatchBuilder::default();
        for job in jobs {
            batch.push(&job).map_err(JobError::never)?;
        }
        let next = Next { queue: queue.into(), jobs: batch };
        self.next = Some(next).filter(|next| !next.jobs.is_empty());
        Ok(self)
    }

    /// Whether the commit alone says it.
    pub(super) fn is_plain(&self) -> bool {
        self.result.is_none() && self.next.is_none()
    }
}

impl From<()> for Done {
    fn from((): ()) -> Self {
        Self::default()
    }
}
