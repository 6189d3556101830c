//! Jobs on their way from the driver to a caller: whoever drops them hands them back.

use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use joblog_protocol::messages::fetch::{Delivery, FetchReply};
use joblog_protocol::wire::DecodeError;
use tokio::sync::Notify;

use super::types::JobHandle;

/// The queues and the group that a FETCH asked.
#[derive(Debug)]
pub(crate) struct FetchNames {
    pub(crate) queues: Vec<Arc<str>>,
    pub(crate) group: Arc<str>,
}

impl FetchNames {
    /// The handle of a job in a reply to this FETCH.
    ///
    /// # Errors
    /// [`DecodeError`] if it has no token, or is from a queue that was not asked.
    pub(crate) fn handle(&self, delivery: &Delivery<'_>) -> Result<JobHandle, DecodeError> {
        let ordinal = delivery.queue_ordinal;
        let queue = self.queues.get(usize::from(ordinal));
        Ok(JobHandle {
            queue: queue.cloned().ok_or_else(|| DecodeError::Range {
                field: "queue ordinal",
                value: ordinal.into(),
                allowed: "one of the queues that were asked",
            })?,
            group: Arc::clone(&self.group),
            offset: delivery.offset,
            token: delivery.token.ok_or(DecodeError::Token { length: 0 })?,
        })
    }
}

/// Jobs that wait for the driver to release them. The list holds no more than what was granted; a
/// bounded channel would not do, since `Drop` can't wait for a place in it.
#[derive(Debug, Default)]
pub(crate) struct Abandoned {
    handles: Mutex<Vec<JobHandle>>,
    added: Notify,
}

impl Abandoned {
    pub(crate) fn add(&self, jobs: impl IntoIterator<Item = JobHandle>) {
        let mut handles = self.handles.lock().unwrap_or_else(PoisonError::into_inner);
        handles.extend(jobs);
        drop(handles);
        self.added.notify_one();
    }

    pub(crate) fn take(&self) -> Vec<JobHandle> {
        let mut handles = self.handles.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut *handles)
    }

    /// Ends when something was added since the last call.
    pub(crate) async fn added(&self) {
        self.added.notified().await;
    }
}

/// Travels with a FETCH reply. Dropped anywhere before [`Grant::disarm`], its jobs are released: in
/// the channel, in a future that is never polled again, or because no one listens any more.
#[derive(Debug)]
pub(crate) struct Grant {
    names: Arc<FetchNames>,
    /// The body of the reply; empty once its jobs are the caller's.
    body: Bytes,
    abandoned: Arc<Abandoned>,
}

impl Grant {
    pub(crate) fn new(names: Arc<FetchNames>, body: Bytes, abandoned: Arc<Abandoned>) -> Self {
        Self { names, body, abandoned }
    }

    /// From here on the jobs are the caller's.
    pub(crate) fn disarm(mut self) {
        self.body = Bytes::new();
    }
}

impl Drop for Grant {
    fn drop(&mut self) {
        if let Ok(reply) = FetchReply::decode(&self.body) {
            let handles = reply.jobs.iter();
            self.abandoned.add(handles.filter_map(|job| self.names.handle(job).ok()));
        }
    }
}
