//! Commits that nobody waits for: they ride on the next FETCH.

use std::mem;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use joblog_protocol::error_code::ErrorCode;

use super::error::ClientError;
use super::face::Client;
use super::request::runs;
use super::types::{CommitStatus, FetchRequest, Fetched, JobHandle};

/// Commits that one FETCH carries; more wait for the next one.
const CARRIED_MAX: usize = 4096;

/// Jobs that are to be committed with the next FETCH. What is left when it is dropped goes out by
/// itself.
#[derive(Debug)]
pub(crate) struct Noted {
    client: Client,
    jobs: Mutex<Jobs>,
}

#[derive(Debug, Default)]
struct Jobs {
    waiting: Vec<JobHandle>,
    /// Requests with commits that are not answered yet.
    riding: usize,
    refused: Vec<(JobHandle, ErrorCode)>,
}

impl Noted {
    pub(crate) fn new(client: Client) -> Arc<Self> {
        Arc::new(Self { client, jobs: Mutex::default() })
    }

    pub(crate) fn client(&self) -> &Client {
        &self.client
    }

    /// What is kept here is whole at every moment, so a panic elsewhere has not broken it.
    fn jobs(&self) -> MutexGuard<'_, Jobs> {
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn add(&self, handle: JobHandle) {
        self.jobs().waiting.push(handle);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.jobs().waiting.is_empty()
    }

    /// Whether commits are on their way.
    pub(crate) fn is_riding(&self) -> bool {
        self.jobs().riding > 0
    }

    /// The jobs that are not consumed by their tokens, told once.
    pub(crate) fn take_refused(&self) -> Vec<(JobHandle, ErrorCode)> {
        mem::take(&mut self.jobs().refused)
    }

    fn record(&self, commits: Vec<JobHandle>, statuses: Vec<CommitStatus>) {
        let refused = commits.into_iter().zip(statuses).filter_map(|(job, status)| match status {
            CommitStatus::Refused(code) => Some((job, code)),
            CommitStatus::Consumed | CommitStatus::AlreadyConsumed => None,
        });
        self.jobs().refused.extend(refused);
    }

    /// Takes a FETCH's worth of commits, jobs of one queue and group behind each other.
    fn ride(self: &Arc<Self>) -> Riding {
        let mut jobs = self.jobs();
        let count = jobs.waiting.len().min(CARRIED_MAX);
        let mut commits: Vec<_> = jobs.waiting.drain(..count).collect();
        commits.sort_by(|a, b| (&a.queue, &a.group).cmp(&(&b.queue, &b.group)));
        jobs.riding += 1;
        Riding { noted: Arc::clone(self), commits }
    }

    /// Fetches, and carries what is noted. Whatever becomes of it, no commit is forgotten: one
    /// without an answer is noted again.
    ///
    /// # Errors
    /// Those of the FETCH.
    pub(crate) fn fetch(
        self: &Arc<Self>,
        request: FetchRequest,
    ) -> impl Future<Output = Result<Fetched, ClientError>> + Send + use<> {
        // Taken now, so that none goes out twice.
        let riding = (!self.is_empty()).then(|| self.ride());
        let client = self.client.clone();
        async move {
            let Some(riding) = riding else {
                return client.fetch(&request).await;
            };
            let (carried, fetch) = client.fetch_carrying(&request, &riding.commits).await?;
            match carried.statuses().await {
                Ok(statuses) => riding.answered(statuses),
                // The FETCH was refused as a whole, perhaps for one of them: no other may suffer.
                Err(error) if is_refusal(&error) => {
                    drop(fetch);
                    riding.commit_alone().await?;
                    return client.fetch(&request).await;
                }
                Err(_) => drop(riding),
            }
            fetch.fetched().await
        }
    }

    /// Commits what is noted, without a FETCH.
    ///
    /// # Errors
    /// [`ClientError`]; then what was not answered is noted again.
    pub(crate) async fn flush(self: &Arc<Self>) -> Result<(), ClientError> {
        while !self.is_empty() {
            self.ride().commit_alone().await?;
        }
        Ok(())
    }
}

impl Drop for Noted {
    fn drop(&mut self) {
        let mut waiting = mem::take(&mut self.jobs().waiting);
        waiting.sort_by(|a, b| (&a.queue, &a.group).cmp(&(&b.queue, &b.group)));
        waiting.chunks(CARRIED_MAX).for_each(|jobs| self.client.commit_unawaited(jobs));
    }
}

/// Commits on their way: without an answer they are noted again.
#[derive(Debug)]
struct Riding {
    noted: Arc<Noted>,
    commits: Vec<JobHandle>,
}

impl Riding {
    fn answered(mut self, statuses: Vec<CommitStatus>) {
        let commits = mem::take(&mut self.commits);
        self.noted.record(commits, statuses);
    }

    /// Commits the jobs of each queue and group by themselves.
    async fn commit_alone(mut self) -> Result<(), ClientError> {
        loop {
            let Some(run) = runs(&self.commits).next().map(<[_]>::to_vec) else {
                return Ok(());
            };
            let statuses = match self.noted.client.commit(&run).await {
                Ok(statuses) => statuses,
                Err(ClientError::Server { code, .. }) if !code.retryable() => {
                    vec![CommitStatus::Refused(code); run.len()]
                }
                Err(error) => return Err(error),
            };
            self.commits.drain(..run.len());
            self.noted.record(run, statuses);
        }
    }
}

impl Drop for Riding {
    fn drop(&mut self) {
        let mut jobs = self.noted.jobs();
        jobs.riding -= 1;
        jobs.waiting.append(&mut self.commits);
    }
}

fn is_refusal(error: &ClientError) -> bool {
    error.code().is_some_and(|code| !code.retryable())
}
