//! Counts and times of jobs, for whatever collects them.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use tower_layer::Layer;
use tower_service::Service;

use super::delivery::Delivery;
use super::failure::{JobFailure, Retry};
use super::handler::Boxed;

/// How a handler ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// Well: the job is committed.
    Done,
    /// With an error.
    Failed(Retry),
    /// By a panic, or it was dropped: it ran too long, or the worker left.
    Dropped,
}

/// What takes in counts and times: a few lines for the metrics library of your choice.
/// [`Counters`] is one without any.
///
/// ```
/// use std::time::Duration;
/// use joblog::worker::{End, Recorder};
///
/// struct Print;
///
/// impl Recorder for Print {
///     fn ended(&self, queue: &str, end: End, took: Duration) {
///         println!("joblog_job_seconds{{queue={queue:?},end={end:?}}} {}", took.as_secs_f64());
///     }
/// }
/// ```
pub trait Recorder: Send + Sync + 'static {
    /// A handler begins with a job of this queue.
    fn begun(&self, _queue: &str) {}

    /// A handler has ended, after this time.
    fn ended(&self, queue: &str, end: End, took: Duration);
}

impl<R: Recorder + ?Sized> Recorder for Arc<R> {
    fn begun(&self, queue: &str) {
        (**self).begun(queue);
    }

    fn ended(&self, queue: &str, end: End, took: Duration) {
        (**self).ended(queue, end, took);
    }
}

/// Counts over all queues.
#[derive(Debug, Default)]
pub struct Counters {
    begun: AtomicU64,
    done: AtomicU64,
    failed: AtomicU64,
    dropped: AtomicU64,
    took_us: AtomicU64,
}

impl Counters {
    /// Jobs that handlers have now.
    pub fn running(&self) -> u64 {
        let ended = self.done() + self.failed() + self.dropped();
        self.begun.load(Ordering::Relaxed).saturating_sub(ended)
    }

    /// Jobs that ended well.
    pub fn done(&self) -> u64 {
        self.done.load(Ordering::Relaxed)
    }

    /// Jobs whose handlers ended with an error.
    pub fn failed(&self) -> u64 {
        self.failed.load(Ordering::Relaxed)
    }

    /// Jobs whose handlers panicked or were dropped.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    /// The time of all handlers that ended.
    pub fn took(&self) -> Duration {
        Duration::from_micros(self.took_us.load(Ordering::Relaxed))
    }
}

impl Recorder for Counters {
    fn begun(&self, _queue: &str) {
        self.begun.fetch_add(1, Ordering::Relaxed);
    }

    fn ended(&self, _queue: &str, end: End, took: Duration) {
        let counter = match end {
            End::Done => &self.done,
            End::Failed(_) => &self.failed,
            End::Dropped => &self.dropped,
        };
        counter.fetch_add(1, Ordering::Relaxed);
        let took_us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        self.took_us.fetch_add(took_us, Ordering::Relaxed);
    }
}

/// A layer that tells a [`Recorder`] of each job.
pub struct MetricsLayer<R> {
    recorder: Arc<R>,
}

impl<R: Recorder> MetricsLayer<R> {
    /// The layer for this recorder.
    pub fn new(recorder: R) -> Self {
        Self { recorder: Arc::new(recorder) }
    }
}

impl<R> Clone for MetricsLayer<R> {
    fn clone(&self) -> Self {
        Self { recorder: Arc::clone(&self.recorder) }
    }
}

impl<R> fmt::Debug for MetricsLayer<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MetricsLayer")
    }
}

impl<R, S> Layer<S> for MetricsLayer<R> {
    type Service = Metrics<R, S>;

    fn layer(&self, inner: S) -> Metrics<R, S> {
        Metrics { recorder: Arc::clone(&self.recorder), inner }
    }
}

/// The service of a [`MetricsLayer`].
pub struct Metrics<R, S> {
    recorder: Arc<R>,
    inner: S,
}

impl<R, S: Clone> Clone for Metrics<R, S> {
    fn clone(&self) -> Self {
        Self { recorder: Arc::clone(&self.recorder), inner: self.inner.clone() }
    }
}

impl<R, S: fmt::Debug> fmt::Debug for Metrics<R, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").field("inner", &self.inner).finish_non_exhaustive()
    }
}

impl<R, S> Service<Delivery> for Metrics<R, S>
where
    R: Recorder,
    S: Service<Delivery>,
    S::Future: Send + 'static,
    S::Error: JobFailure,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = Boxed<S::Response, S::Error>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, delivery: Delivery) -> Self::Future {
        let watch = Watch {
            recorder: Arc::clone(&self.recorder),
            queue: Arc::clone(&delivery.handle.queue),
            begun: Instant::now(),
            end: End::Dropped,
        };
        watch.recorder.begun(&watch.queue);
        let job = self.inner.call(delivery);
        Box::pin(async move {
            // The whole of it, so that it is told also if this is dropped.
            let mut watch = watch;
            let result = job.await;
            watch.end = match &result {
                Ok(_) => End::Done,
                Err(error) => End::Failed(error.retry()),
            };
            result
        })
    }
}

/// Tells the end of a job, whatever it is.
struct Watch<R: Recorder> {
    recorder: Arc<R>,
    queue: Arc<str>,
    begun: Instant,
    end: End,
}

impl<R: Recorder> Drop for Watch<R> {
    fn drop(&mut self) {
        self.recorder.ended(&self.queue, self.end, self.begun.elapsed());
    }
}
