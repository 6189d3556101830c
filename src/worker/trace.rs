//! A span of `tracing` for each job.

use std::task::{Context, Poll};
use std::time::Instant;

use tower_layer::Layer;
use tower_service::Service;
use tracing::{Instrument, debug, info_span};

use super::delivery::Delivery;
use super::failure::JobFailure;
use super::handler::Boxed;

/// A layer that runs each handler in a span `job` with the job's queue, offset and attempt, so that
/// whatever the handler logs names its job.
#[derive(Clone, Copy, Debug, Default)]
pub struct TraceLayer(());

impl TraceLayer {
    /// The layer.
    pub fn new() -> Self {
        Self(())
    }
}

impl<S> Layer<S> for TraceLayer {
    type Service = Trace<S>;

    fn layer(&self, inner: S) -> Trace<S> {
        Trace { inner }
    }
}

/// The service of a [`TraceLayer`].
#[derive(Clone, Debug)]
pub struct Trace<S> {
    inner: S,
}

impl<S> Service<Delivery> for Trace<S>
where
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
        let Delivery { handle, attempt, .. } = &delivery;
        let span = info_span!("job", queue = %handle.queue, offset = handle.offset, attempt);
        let begun = Instant::now();
        let job = span.in_scope(|| self.inner.call(delivery));
        let watched = async move {
            let result = job.await;
            let took_ms = begun.elapsed().as_millis() as u64;
            match &result {
                Ok(_) => debug!(took_ms, "done"),
                Err(error) => debug!(took_ms, reason = error.reason(), "ended with an error"),
            }
            result
        };
        Box::pin(watched.instrument(span))
    }
}
