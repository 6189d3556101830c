//! A leased job that goes back by itself if nobody settles it.

use std::ops::Deref;
use std::slice;
use std::sync::Arc;
use std::time::Duration;

use joblog_protocol::error_code::ErrorCode;
use joblog_protocol::job::BatchBuilder;
#[cfg(feature = "worker")]
use joblog_protocol::job::Job;

use super::error::ClientError;
#[cfg(doc)]
use super::face::Client;
use super::noted::Noted;
use super::types::{CommitStatus, FailStatus, Failure, LeasedJob, ReleaseStatus};

/// A leased job from a [`Consumer`](super::Consumer). Dropped without being settled, it goes back
/// to its queue at once, without fault.
///
/// A call that fails leaves the job held, so it can be made again. After one that succeeded, the
/// job is settled: what its status says about it is final.
#[derive(Debug)]
#[must_use = "a job that is dropped goes back to its queue"]
pub struct HeldJob {
    leased: LeasedJob,
    noted: Arc<Noted>,
    is_settled: bool,
}

impl Deref for HeldJob {
    type Target = LeasedJob;

    fn deref(&self) -> &LeasedJob {
        &self.leased
    }
}

impl HeldJob {
    pub(crate) fn new(leased: LeasedJob, noted: Arc<Noted>) -> Self {
        Self { leased, noted, is_settled: false }
    }

    /// Consumes the job, durably.
    ///
    /// # Errors
    /// [`ClientError`]; after any of them it is safe to call this again.
    pub async fn commit(&mut self) -> Result<CommitStatus, ClientError> {
        let statuses = self.noted.client().commit(slice::from_ref(&self.leased.handle)).await?;
        self.is_settled = true;
        Ok(statuses.first().copied().unwrap_or(CommitStatus::Consumed))
    }

    /// Consumes the job with a result, as [`Client::commit_with_result`].
    ///
    /// # Errors
    /// As there; after any of them it is safe to call this again.
    pub async fn commit_with_result(&mut self, result: &[u8]) -> Result<CommitStatus, ClientError> {
        let status = self.noted.client().commit_with_result(&self.leased.handle, result).await?;
        self.is_settled = true;
        Ok(status)
    }

    /// Consumes the job and enqueues those that follow, both or neither, as
    /// [`Client::commit_chain`].
    ///
    /// # Errors
    /// As there; after any of them it is safe to call this again.
    pub async fn commit_chain(
        &mut self,
        result: Option<&[u8]>,
        queue: &str,
        batch: &BatchBuilder,
    ) -> Result<CommitStatus, ClientError> {
        let client = self.noted.client();
        let chained = client.commit_chain(&self.leased.handle, result, queue, batch).await?;
        self.is_settled = true;
        Ok(chained.status)
    }

    /// Consumes the job with the consumer's next FETCH, in one round trip with it, or when the
    /// consumer is flushed or dropped. Until then, a crash of this program makes the job run
    /// again. [`Consumer::take_refused`](super::Consumer::take_refused) tells what was refused.
    pub fn commit_later(mut self) {
        self.is_settled = true;
        self.noted.add(self.leased.handle.clone());
    }

    /// Hands the job back without fault, ready again after `delay`.
    ///
    /// # Errors
    /// [`ClientError`]; after any of them it is safe to call this again.
    pub async fn release(&mut self, delay: Duration) -> Result<ReleaseStatus, ClientError> {
        let jobs = slice::from_ref(&self.leased.handle);
        let statuses = self.noted.client().release(jobs, delay).await?;
        self.is_settled = true;
        Ok(statuses.first().copied().unwrap_or(ReleaseStatus::Unknown))
    }

    /// Hands the job back with a reason; the retry policy decides what follows.
    ///
    /// # Errors
    /// [`ClientError`]; after any of them it is safe to call this again.
    pub async fn fail(&mut self, failure: &Failure) -> Result<FailStatus, ClientError> {
        let jobs = slice::from_ref(&self.leased.handle);
        let statuses = self.noted.client().fail(jobs, failure).await?;
        self.is_settled = true;
        Ok(statuses.first().copied().unwrap_or(FailStatus::Unknown))
    }

    /// Renews the lease: for `lease` from now, or for a session lease, up to this run time from
    /// now. The inner error says why not, or [`ErrorCode::CancelRequested`].
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn extend(&self, lease: Duration) -> Result<Result<(), ErrorCode>, ClientError> {
        let jobs = slice::from_ref(&self.leased.handle);
        let statuses = self.noted.client().extend(jobs, lease).await?;
        Ok(statuses.first().copied().unwrap_or(Ok(())))
    }

    /// The job itself, for one who works on it; what is left has an empty one.
    #[cfg(feature = "worker")]
    pub(crate) fn take_job(&mut self) -> Job {
        std::mem::take(&mut self.leased.job)
    }

    /// Takes the job out: from here on, the caller settles it by its handle.
    pub fn into_leased(mut self) -> LeasedJob {
        self.is_settled = true;
        self.leased.clone()
    }
}

impl Drop for HeldJob {
    fn drop(&mut self) {
        if !self.is_settled {
            self.noted.client().hand_back([self.leased.handle.clone()]);
        }
    }
}
