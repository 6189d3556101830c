//! What a handler gets: one delivery of a job, and how it learns that it is to stop.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, watch};

use crate::client::{Client, ClientError, ErrorCode, Job, JobHandle};

/// One delivery of a job to a handler.
#[derive(Clone)]
#[non_exhaustive]
pub struct Delivery {
    /// The queue, the offset and the lease. The worker settles the job: a handler uses this to
    /// name it, not to commit it.
    pub handle: JobHandle,
    /// How often the job has been delivered, this time included.
    pub attempt: u32,
    /// When it was enqueued: milliseconds since the Unix epoch.
    pub enqueued_at_ms: u64,
    /// The job itself.
    pub job: Arc<Job>,
    /// The client of the worker, to enqueue what follows.
    pub client: Client,
    /// Tells the handler to stop.
    pub cancellation: Cancellation,
    /// The time of its lease, which telling the progress renews.
    pub(super) lease: Duration,
    /// Kept by everything that works for the job, also by a thread that outlives its task.
    pub(super) place: Place,
}

impl Delivery {
    /// Tells how far the work has got, for people who look at the job: at most 1 KiB is kept, while
    /// the job is out. The inner error says that the lease is over, or
    /// [`ErrorCode::CancelRequested`].
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn progress(&self, text: &str) -> Result<Result<(), ErrorCode>, ClientError> {
        self.client.extend_with_progress(&self.handle, self.lease, text).await
    }
}

/// One of the places of a worker.
pub(super) type Place = Arc<OwnedSemaphorePermit>;

impl fmt::Debug for Delivery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = f.debug_struct("Delivery");
        debug.field("handle", &self.handle).field("attempt", &self.attempt);
        debug.field("job", &self.job).finish_non_exhaustive()
    }
}

/// Why a handler is to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum StopReason {
    /// The job was cancelled: what it does is for nothing, unless it ends well all the same.
    Cancelled,
    /// The lease is lost: another worker may have the job by now, and the commit will be refused.
    LeaseLost,
    /// It has run for longer than it may. The job has failed.
    RanTooLong,
    /// The worker's time to drain is over. The job has been handed back.
    Drained,
}

/// Tells a handler that it is to stop. The worker does not enforce it where a handler can still
/// end well: after [`StopReason::Cancelled`] and [`StopReason::LeaseLost`] it goes on until it
/// ends. After the other reasons an asynchronous handler is dropped; a blocking one has to look.
#[derive(Clone, Debug)]
pub struct Cancellation {
    reason: watch::Receiver<Option<StopReason>>,
}

/// The worker's end of a [`Cancellation`].
#[derive(Debug)]
pub(super) struct Stop {
    reason: watch::Sender<Option<StopReason>>,
}

impl Cancellation {
    pub(super) fn new() -> (Stop, Self) {
        let (sender, reason) = watch::channel(None);
        (Stop { reason: sender }, Self { reason })
    }

    /// Why to stop, if it is to stop.
    pub fn reason(&self) -> Option<StopReason> {
        *self.reason.borrow()
    }

    /// Whether it is to stop.
    pub fn is_cancelled(&self) -> bool {
        self.reason().is_some()
    }

    /// Waits until it is to stop; for ever, if that never happens.
    pub async fn cancelled(&self) -> StopReason {
        let mut reason = self.reason.clone();
        match reason.wait_for(Option::is_some).await.ok().and_then(|reason| *reason) {
            Some(reason) => reason,
            None => std::future::pending().await,
        }
    }
}

impl Stop {
    /// The first reason stays.
    pub(super) fn stop(&self, reason: StopReason) {
        self.reason.send_if_modified(|current| {
            let is_first = current.is_none();
            current.get_or_insert(reason);
            is_first
        });
    }
}
