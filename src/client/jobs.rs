//! Calls about one job: committing it with a result, and waiting for its end.

use std::sync::Arc;
use std::time::{Duration, Instant};

use joblog_protocol::error_code::ErrorCode;
use joblog_protocol::job::BatchBuilder;
use joblog_protocol::limits::FETCH_WAIT_MS_MAX;
use joblog_protocol::messages::enqueue::{Enqueue, EnqueueReply};
use joblog_protocol::messages::handles::Handle;
use joblog_protocol::messages::job_info::{JobDescription, JobQuery};
use joblog_protocol::messages::lease::{ChainReply, Commit, CommitOne};
use joblog_protocol::messages::moving::{Move, MoveReply};
use joblog_protocol::messages::wait::{DeathCause, Wait, WaitReply};
use joblog_protocol::opcode::Opcode;

use super::error::ClientError;
use super::face::Client;
use super::in_flight::Request;
use super::request::{check_handles, check_queue, commit_statuses};
use super::types::{CommitStatus, JobHandle};

/// One WAIT waits for no longer; a longer wait is several of them.
const WAIT_LONGEST: Duration = Duration::from_millis(FETCH_WAIT_MS_MAX as u64);

/// How a job ended for its queue's primary group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum JobEnd {
    /// It was committed.
    Done {
        /// What its worker said of it, if it did.
        result: Option<Vec<u8>>,
    },
    /// It is dead, until somebody retries it.
    Dead {
        /// Why.
        cause: DeathCause,
        /// What its worker said last.
        reason: String,
    },
    /// It was cancelled or purged.
    Cancelled,
    /// Its time was over.
    Expired,
    /// It has ended, and how is not known any more: it was committed without a result, or its
    /// result has been kept for long enough, or it was given up when dead.
    Gone,
}

/// What became of a commit with jobs that follow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chained {
    /// Of the commit.
    pub status: CommitStatus,
    /// The jobs in their queue; none if the commit was refused. Of a commit that was sent again
    /// and had been done before, those that it enqueued then.
    pub enqueued: Option<EnqueueReply>,
}

impl Client {
    /// Consumes one job, and has its queue keep `result` for those who wait for the job's end: at
    /// most 64 KiB.
    ///
    /// # Errors
    /// [`ClientError`]; after any of them it is safe to commit the job again. `NOT_PRIMARY_GROUP`
    /// if the job is not leased to the group whose results are kept.
    pub async fn commit_with_result(
        &self,
        job: &JobHandle,
        result: &[u8],
    ) -> Result<CommitStatus, ClientError> {
        check_handles(std::slice::from_ref(job))?;
        let body = Commit::One(CommitOne {
            queue: &job.queue,
            group: &job.group,
            handle: Handle { offset: job.offset, token: job.token },
            result: Some(result),
            jobs: None,
        });
        let request = self.commit_request(&body, std::slice::from_ref(job))?;
        let reply = self.call(request).await?;
        let statuses = commit_statuses(Opcode::Commit, &reply.body, 1)?;
        Ok(statuses.first().copied().unwrap_or(CommitStatus::Consumed))
    }

    /// Consumes one job, and enqueues those that follow from it: both, or neither, whatever becomes
    /// of the server. Their queue must lie in the same log as the job's: on a server with one log
    /// all do.
    ///
    /// # Errors
    /// [`ClientError`]: nothing was done, but for [`ClientError::OutcomeUnknown`] and
    /// [`ClientError::Timeout`]; after any of them it is safe to commit the job again without jobs,
    /// which says whether it is consumed. `OTHER_LOG` if the queues lie in different logs.
    pub async fn commit_chain(
        &self,
        job: &JobHandle,
        result: Option<&[u8]>,
        queue: &str,
        batch: &BatchBuilder,
    ) -> Result<Chained, ClientError> {
        check_handles(std::slice::from_ref(job))?;
        check_queue(queue)?;
        let sequence = Arc::new(self.next_sequence(queue).await?);
        let body = Commit::One(CommitOne {
            queue: &job.queue,
            group: &job.group,
            handle: Handle { offset: job.offset, token: job.token },
            result,
            jobs: Some(Enqueue {
                queue,
                create: self.options().create_queues,
                producer: Some(sequence.producer()),
                batch: batch.batch(),
            }),
        });
        let mut request = self.commit_request(&body, std::slice::from_ref(job))?;
        request.sequence = Some(sequence);
        let reply = self.call(request).await?.read(ChainReply::decode)?;
        let enqueued = Some(reply.enqueued).filter(|enqueued| enqueued.count > 0);
        Ok(Chained { status: reply.status.into(), enqueued })
    }

    /// Moves jobs that wait to another queue of the same log, or, with `dead_for`, dead jobs of
    /// that group: `batch` has one job for each, in the same order. All are moved, or none: then
    /// the outcomes say which can't be.
    ///
    /// # Errors
    /// [`ClientError`]; `OTHER_LOG` if the queues lie in different logs. After a cut it is sent
    /// again, and done once.
    pub async fn move_jobs(
        &self,
        queue: &str,
        dead_for: Option<&str>,
        offsets: &[u64],
        to: &str,
        batch: &BatchBuilder,
    ) -> Result<MoveReply, ClientError> {
        check_queue(queue)?;
        check_queue(to)?;
        let sequence = Arc::new(self.next_sequence(to).await?);
        let body = Move {
            queue,
            dead_for,
            offsets: offsets.to_vec(),
            jobs: Enqueue {
                queue: to,
                create: self.options().create_queues,
                producer: Some(sequence.producer()),
                batch: batch.batch(),
            },
        };
        let check = |body: &[u8]| Move::decode(body).map(drop);
        let request = self.checked(Opcode::Move, |out| body.encode(out), check)?;
        let request = Request { sequence: Some(sequence), ..request };
        self.call(request).await?.read(MoveReply::decode)
    }

    /// Renews the lease of one job, as [`Client::extend`], and notes what its worker says of its
    /// progress, for people: at most 1 KiB is kept, while the job is out; an empty text is nothing.
    ///
    /// # Errors
    /// [`ClientError`]; the code if the job's lease is over.
    pub async fn extend_with_progress(
        &self,
        job: &JobHandle,
        lease: Duration,
        progress: &str,
    ) -> Result<Result<(), ErrorCode>, ClientError> {
        let jobs = std::slice::from_ref(job);
        let statuses = self.extend_noting(jobs, lease, Some(progress)).await?;
        Ok(statuses.first().copied().unwrap_or(Ok(())))
    }

    /// Describes one job for a group, or for its queue's primary group.
    ///
    /// # Errors
    /// [`ClientError`]; `BEYOND_END` if there is no such job yet.
    pub async fn job_info(
        &self,
        queue: &str,
        offset: u64,
        group: Option<&str>,
    ) -> Result<JobDescription, ClientError> {
        check_queue(queue)?;
        let (queue, group) = (queue.to_owned(), group.unwrap_or_default().to_owned());
        self.ask(Opcode::JobInfo, &JobQuery { queue, offset, group }).await
    }

    /// Waits until a job has ended for its queue's primary group; none if it has not within
    /// `wait`. Over a cut or a restart of the server it goes on waiting.
    ///
    /// # Errors
    /// [`ClientError`]; `BEYOND_END` if there is no such job yet.
    pub async fn wait(
        &self,
        queue: &str,
        offset: u64,
        wait: Duration,
    ) -> Result<Option<JobEnd>, ClientError> {
        check_queue(queue)?;
        let deadline = Instant::now() + wait;
        loop {
            let left = deadline.saturating_duration_since(Instant::now()).min(WAIT_LONGEST);
            match self.wait_once(queue, offset, left).await {
                Ok(None) if Instant::now() < deadline => {}
                Err(error) if error.code() == Some(ErrorCode::ResultGone) => {
                    return Ok(Some(JobEnd::Gone));
                }
                answer => return answer,
            }
        }
    }

    async fn wait_once(
        &self,
        queue: &str,
        offset: u64,
        wait: Duration,
    ) -> Result<Option<JobEnd>, ClientError> {
        let wait_ms = wait.as_micros().div_ceil(1_000) as u32;
        let body = Wait { queue, offset, wait_ms };
        let request = Request {
            wait_end: Some(Instant::now() + wait),
            ..Request::new(Opcode::Wait, self.next_correlation(), |out| body.encode(out))
        };
        let timeout = self.options().request_timeout + wait;
        let reply = self.submit(request, timeout).await?.reply().await?;
        Ok(match reply.read(WaitReply::decode)? {
            WaitReply::NotYet => None,
            WaitReply::Done { result } => Some(JobEnd::Done { result: result.map(<[u8]>::to_vec) }),
            WaitReply::Dead { cause, reason } => {
                Some(JobEnd::Dead { cause, reason: reason.to_owned() })
            }
            WaitReply::Cancelled => Some(JobEnd::Cancelled),
            WaitReply::Expired => Some(JobEnd::Expired),
        })
    }
}
