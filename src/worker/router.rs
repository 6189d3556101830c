//! The router: typed jobs to handlers by their names.

use std::collections::HashMap;
use std::fmt;
use std::future::ready;
use std::sync::Arc;
use std::task::{Context, Poll};

use tower_service::Service;

use super::delivery::Delivery;
use super::done::Done;
use super::failure::{JobError, JobFailure};
use super::handler::{BlockingFn, Boxed};
use crate::client::TypedJob;

type Route = Arc<dyn Fn(Delivery) -> Boxed<Done, JobError> + Send + Sync>;

/// Gives [typed jobs](TypedJob) to handlers by their names. Run it with
/// [`Worker::run_service`](super::Worker::run_service).
///
/// A job whose name has no route fails, and is tried again: a worker of a newer version may have
/// one. [`Router::fallback`] changes that. A job that can't be read as its type is dead.
///
/// ```
/// use joblog::client::TypedJob;
/// use joblog::worker::{Delivery, JobError, Router};
/// use serde::{Deserialize, Serialize};
///
/// #[derive(Serialize, Deserialize)]
/// struct Welcome {
///     user: u64,
/// }
///
/// impl TypedJob for Welcome {
///     const NAME: &'static str = "welcome";
/// }
///
/// let router = Router::new().route(async |welcome: Welcome, _: Delivery| {
///     println!("welcome, user {}", welcome.user);
///     Ok::<(), JobError>(())
/// });
/// ```
#[derive(Clone, Default)]
pub struct Router {
    routes: Arc<HashMap<&'static str, Route>>,
    fallback: Option<Route>,
}

impl fmt::Debug for Router {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.routes.keys()).finish()
    }
}

impl Router {
    /// A router without routes.
    pub fn new() -> Self {
        Self::default()
    }

    /// Gives jobs of this type to an asynchronous function. The last route for a name holds.
    pub fn route<T, F, R, D, E>(self, handler: F) -> Self
    where
        T: TypedJob,
        F: Fn(T, Delivery) -> R + Send + Sync + 'static,
        R: Future<Output = Result<D, E>> + Send + 'static,
        D: Into<Done>,
        E: JobFailure,
    {
        let handler = Arc::new(handler);
        self.add(T::NAME, move |delivery| match read::<T>(&delivery) {
            Err(error) => Box::pin(ready(Err(error))),
            Ok(job) => {
                let handled = handler(job, delivery);
                Box::pin(async move { said(handled.await) })
            }
        })
    }

    /// Gives jobs of this type to a blocking function, on the runtime's pool of threads for
    /// blocking work.
    pub fn route_blocking<T, F, D, E>(self, handler: F) -> Self
    where
        T: TypedJob,
        F: Fn(T, Delivery) -> Result<D, E> + Send + Sync + 'static,
        D: Into<Done>,
        E: JobFailure + Send + 'static,
    {
        let service = BlockingFn::new(move |delivery: Delivery| {
            let job = read::<T>(&delivery)?;
            said(handler(job, delivery))
        });
        self.add(T::NAME, move |delivery| service.clone().call(delivery))
    }

    /// Gives jobs that no route takes to this function.
    pub fn fallback<F, R, D, E>(mut self, handler: F) -> Self
    where
        F: Fn(Delivery) -> R + Send + Sync + 'static,
        R: Future<Output = Result<D, E>> + Send + 'static,
        D: Into<Done>,
        E: JobFailure,
    {
        self.fallback = Some(Arc::new(move |delivery| {
            let handled = handler(delivery);
            Box::pin(async move { said(handled.await) })
        }));
        self
    }

    fn add(
        mut self,
        name: &'static str,
        route: impl Fn(Delivery) -> Boxed<Done, JobError> + Send + Sync + 'static,
    ) -> Self {
        Arc::make_mut(&mut self.routes).insert(name, Arc::new(route));
        self
    }
}

fn said<D: Into<Done>, E: JobFailure>(result: Result<D, E>) -> Result<Done, JobError> {
    result.map(Into::into).map_err(|error| JobError::of(&error))
}

fn read<T: TypedJob>(delivery: &Delivery) -> Result<T, JobError> {
    T::from_job(&delivery.job).map_err(JobError::never)
}

impl Service<Delivery> for Router {
    type Response = Done;
    type Error = JobError;
    type Future = Boxed<Done, JobError>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), JobError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, delivery: Delivery) -> Self::Future {
        let name = crate::client::type_name(&delivery.job);
        let route = name.and_then(|name| self.routes.get(name)).or(self.fallback.as_ref());
        match route {
            Some(route) => route(delivery),
            None => {
                let what =
                    name.map_or_else(|| "no type".to_owned(), |name| format!("type {name:?}"));
                let reason = format!("the job has {what}, for which this worker has no route");
                Box::pin(ready(Err(JobError::new(reason))))
            }
        }
    }
}
