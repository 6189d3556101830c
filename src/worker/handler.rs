//! Functions as services.

use std::panic::resume_unwind;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::task::spawn_blocking;
use tower_service::Service;

use super::delivery::Delivery;
use super::failure::{JobError, JobFailure};

/// An asynchronous function as a service. [`Worker::run`](super::Worker::run) makes it.
#[derive(Debug)]
pub struct HandlerFn<F>(Arc<F>);

impl<F> Clone for HandlerFn<F> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<F> HandlerFn<F> {
    /// The service that calls this function.
    pub fn new(function: F) -> Self {
        Self(Arc::new(function))
    }
}

impl<F, R, D, E> Service<Delivery> for HandlerFn<F>
where
    F: Fn(Delivery) -> R,
    R: Future<Output = Result<D, E>>,
{
    type Response = D;
    type Error = E;
    type Future = R;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), E>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, delivery: Delivery) -> R {
        (self.0)(delivery)
    }
}

/// A blocking function as a service: it runs on the runtime's pool of threads for blocking work.
/// [`Worker::run_blocking`](super::Worker::run_blocking) makes it.
#[derive(Debug)]
pub struct BlockingFn<F>(Arc<F>);

impl<F> Clone for BlockingFn<F> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<F> BlockingFn<F> {
    /// The service that calls this function.
    pub fn new(function: F) -> Self {
        Self(Arc::new(function))
    }
}

/// A future of a service that is a box.
pub(super) type Boxed<D, E> = Pin<Box<dyn Future<Output = Result<D, E>> + Send>>;

impl<F, D, E> Service<Delivery> for BlockingFn<F>
where
    F: Fn(Delivery) -> Result<D, E> + Send + Sync + 'static,
    D: Send + 'static,
    E: JobFailure + Send + 'static,
{
    type Response = D;
    type Error = JobError;
    type Future = Boxed<D, JobError>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), JobError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, delivery: Delivery) -> Self::Future {
        let function = Arc::clone(&self.0);
        Box::pin(async move {
            // The thread goes on if this future is dropped, and keeps the place until it ends.
            let place = Arc::clone(&delivery.place);
            let thread = spawn_blocking(move || {
                let result = function(delivery);
                drop(place);
                result
            });
            match thread.await {
                Ok(result) => result.map_err(|error| JobError::of(&error)),
                Err(error) if error.is_panic() => resume_unwind(error.into_panic()),
                Err(_) => Err(JobError::new("the runtime ended before the job could begin")),
            }
        })
    }
}
