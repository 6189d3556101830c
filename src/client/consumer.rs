//! The consumer: jobs as a stream or by the batch, with commits that ride on the next FETCH.

use std::collections::VecDeque;
use std::fmt;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures_core::Stream;
use joblog_protocol::error_code::ErrorCode;

use super::error::ClientError;
use super::face::Client;
use super::held::HeldJob;
use super::noted::Noted;
use super::types::{DamagedJob, FetchRequest, Fetched, JobHandle, Lease};

type Fetching = Pin<Box<dyn Future<Output = Result<Fetched, ClientError>> + Send>>;

/// Takes jobs of a work group: as a [`Stream`] of [`HeldJob`]s, or by the batch with
/// [`Consumer::fetch`]. One FETCH is under way at a time, and carries the commits that were made
/// by [`HeldJob::commit_later`]: one round trip per job, or per batch.
///
/// The stream ends only when the client is closed. An error is an item like others: the next poll
/// tries again. Jobs that were fetched and not taken go back when the consumer is dropped.
///
/// ```no_run
/// # use std::{future::poll_fn, pin::Pin};
/// # use futures_core::Stream;
/// use joblog::client::{Client, ClientError, Consumer};
///
/// # async fn example(client: Client) -> Result<(), ClientError> {
/// let mut jobs = Consumer::new(client, ["mail", "reports"]).prefetch(8);
/// // With futures-util or tokio-stream: `while let Some(job) = jobs.next().await`.
/// while let Some(job) = poll_fn(|cx| Pin::new(&mut jobs).poll_next(cx)).await {
///     let job = job?;
///     println!("{}: {} bytes", job.handle, job.job.payload.len());
///     job.commit_later();
/// }
/// # Ok(())
/// # }
/// ```
pub struct Consumer {
    noted: Arc<Noted>,
    request: FetchRequest,
    /// The FETCH that is under way: kept here, so that nothing is lost if a future is dropped.
    fetching: Option<Fetching>,
    ready: VecDeque<HeldJob>,
    damaged: Vec<DamagedJob>,
    is_over: bool,
}

impl fmt::Debug for Consumer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ready = self.ready.len();
        f.debug_struct("Consumer").field("request", &self.request).field("ready", &ready).finish()
    }
}

impl Consumer {
    /// A consumer of these queues, in the order in which they are asked, for the group `default`.
    pub fn new<Q: Into<Arc<str>>>(client: Client, queues: impl IntoIterator<Item = Q>) -> Self {
        let wait = Duration::from_secs(30);
        Self {
            noted: Noted::new(client),
            request: FetchRequest { wait, ..FetchRequest::new(queues) },
            fetching: None,
            ready: VecDeque::new(),
            damaged: Vec::new(),
            is_over: false,
        }
    }

    /// The group whose jobs it takes. Default: `default`.
    pub fn group(mut self, group: impl Into<Arc<str>>) -> Self {
        self.request.group = group.into();
        self
    }

    /// Lets the queues take turns, so that a full one starves none. Default: a queue is asked when
    /// those before it have nothing that is ready.
    pub fn by_turns(mut self) -> Self {
        self.request.by_turns = true;
        self
    }

    /// Jobs of one FETCH at most, 1 to 10,000. All but the first wait here for their turn, leased,
    /// while others could have them. Default: 1.
    pub fn prefetch(mut self, jobs: u32) -> Self {
        self.request.jobs_max = jobs.max(1);
        self
    }

    /// How long one FETCH waits for a job, up to 10 min. Default: 30 s.
    pub fn wait(mut self, wait: Duration) -> Self {
        self.request.wait = wait;
        self
    }

    /// The lease. Default: a session lease of the server's default length.
    pub fn lease(mut self, lease: Lease) -> Self {
        self.request.lease = lease;
        self
    }

    /// The next jobs, at least one, or none if the wait ended without any. If the future is
    /// dropped, the FETCH goes on, and the next call gets what it brings.
    ///
    /// # Errors
    /// [`ClientError`]. Commits that were to ride on the FETCH are kept for the next one.
    pub async fn fetch(&mut self) -> Result<Vec<HeldJob>, ClientError> {
        if self.ready.is_empty() {
            poll_fn(|context| self.poll_fetch(context)).await?;
        }
        Ok(self.ready.drain(..).collect())
    }

    /// Commits now what was to ride on the next FETCH.
    ///
    /// # Errors
    /// [`ClientError`]; what was not answered is kept for the next FETCH.
    pub async fn flush(&mut self) -> Result<(), ClientError> {
        poll_fn(|context| self.poll_carried(context)).await;
        self.noted.flush().await
    }

    /// Jobs whose later commit was refused since the last call, with the reason:
    /// [`ErrorCode::LeaseLost`] says that another worker may have the job by now.
    pub fn take_refused(&mut self) -> Vec<(JobHandle, ErrorCode)> {
        self.noted.take_refused()
    }

    /// Jobs that arrived damaged since the last call. They have been released, and are no items of
    /// the stream.
    pub fn take_damaged(&mut self) -> Vec<DamagedJob> {
        std::mem::take(&mut self.damaged)
    }

    /// Ends when the FETCH that is under way carries no commits any more. If it fails, they are
    /// noted again.
    fn poll_carried(&mut self, context: &mut Context<'_>) -> Poll<()> {
        while self.fetching.is_some() && self.noted.is_riding() {
            if self.poll_fetch(context).is_pending() {
                return if self.noted.is_riding() { Poll::Pending } else { Poll::Ready(()) };
            }
        }
        Poll::Ready(())
    }

    /// One whole FETCH; what it brings is ready then.
    fn poll_fetch(&mut self, context: &mut Context<'_>) -> Poll<Result<(), ClientError>> {
        let (noted, request) = (&self.noted, &self.request);
        let fetching = self.fetching.get_or_insert_with(|| Box::pin(noted.fetch(request.clone())));
        let fetched = ready!(fetching.as_mut().poll(context));
        self.fetching = None;
        let Fetched { jobs, damaged, .. } = fetched?;
        self.damaged.extend(damaged);
        let held = |job| HeldJob::new(job, Arc::clone(&self.noted));
        self.ready.extend(jobs.into_iter().map(held));
        Poll::Ready(Ok(()))
    }
}

impl Stream for Consumer {
    type Item = Result<HeldJob, ClientError>;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let consumer = self.get_mut();
        loop {
            if let Some(job) = consumer.ready.pop_front() {
                return Poll::Ready(Some(Ok(job)));
            }
            if consumer.is_over {
                return Poll::Ready(None);
            }
            if let Err(error) = ready!(consumer.poll_fetch(context)) {
                consumer.is_over = matches!(error, ClientError::Closed { .. });
                return Poll::Ready(Some(Err(error)));
            }
        }
    }
}
