//! A worker's settings, and how it is started.

use std::sync::Arc;
use std::time::Duration;

use joblog_protocol::limits::LEASE_MS_MAX;
use tower_layer::{Identity, Layer, Stack};
use tower_service::Service;

use super::delivery::Delivery;
use super::done::Done;
use super::failure::JobFailure;
use super::handler::{BlockingFn, HandlerFn};
use super::run::{Drained, WorkerRun};
use super::stop::Stopping;
use crate::client::{Client, ClientError, FetchRequest, Lease};

/// On top of a job's maximum run time, until the server itself ends its lease: for a worker whose
/// runtime does not come to do it.
const LEASE_MARGIN: Duration = Duration::from_secs(30);

/// A worker: [`Worker::new`] has the defaults, each method changes one thing, and one of
/// [`Worker::run`], [`Worker::run_blocking`] and [`Worker::run_service`] starts it.
#[derive(Debug)]
#[must_use = "a worker does nothing before it runs"]
pub struct Worker<L = Identity> {
    pub(super) client: Client,
    pub(super) plan: WorkerPlan,
    stopping: Stopping,
    layer: L,
}

/// What a running worker goes by.
#[derive(Clone, Debug)]
pub(super) struct WorkerPlan {
    pub(super) queues: Vec<Arc<str>>,
    pub(super) by_turns: bool,
    pub(super) group: Arc<str>,
    pub(super) concurrency: usize,
    pub(super) run_time_max: Duration,
    pub(super) drain_time_max: Duration,
    pub(super) wait: Duration,
}

impl Worker {
    /// A worker over a client, which others may use at the same time.
    pub fn new(client: Client) -> Self {
        let plan = WorkerPlan {
            queues: Vec::new(),
            by_turns: false,
            group: Arc::from(""),
            concurrency: 8,
            run_time_max: Duration::from_secs(3600),
            drain_time_max: Duration::from_secs(30),
            wait: Duration::from_secs(30),
        };
        Self { client, plan, stopping: Stopping::default(), layer: Identity::new() }
    }
}

impl<L> Worker<L> {
    /// Adds a queue. The one that was named first is asked first, and only if it has no job that
    /// is ready, the next one. A queue need not exist yet.
    pub fn queue(mut self, queue: impl Into<Arc<str>>) -> Self {
        self.plan.queues.push(queue.into());
        self
    }

    /// Adds queues, in their order.
    pub fn queues<Q: Into<Arc<str>>>(mut self, queues: impl IntoIterator<Item = Q>) -> Self {
        self.plan.queues.extend(queues.into_iter().map(Into::into));
        self
    }

    /// Lets the queues take turns, so that a full one starves none. Default: a queue is asked when
    /// those before it have nothing that is ready.
    pub fn by_turns(mut self) -> Self {
        self.plan.by_turns = true;
        self
    }

    /// The group whose jobs it takes, the same in all queues. Default: `default`.
    pub fn group(mut self, group: impl Into<Arc<str>>) -> Self {
        self.plan.group = group.into();
        self
    }

    /// Jobs that run at once at most, 1 to 10,000. No more are taken than there are free places.
    /// Blocking handlers also need as many threads in the runtime's pool, which has 512 by
    /// default. Default: 8.
    pub fn concurrency(mut self, jobs: usize) -> Self {
        self.plan.concurrency = jobs.clamp(1, 10_000);
        self
    }

    /// Longest time that a job may run. Then it fails, and an asynchronous handler is dropped at
    /// its next `await`. A blocking handler can't be ended: it keeps its place until it returns,
    /// but not its job. At most 30 days. Default: 1 h.
    pub fn run_time_max(mut self, time: Duration) -> Self {
        let longest = Duration::from_millis(LEASE_MS_MAX as u64) - LEASE_MARGIN;
        self.plan.run_time_max = time.min(longest);
        self
    }

    /// Longest time for the jobs that run when the worker is told to stop; what still runs then is
    /// handed back at once. A second signal ends this time. Default: 30 s.
    pub fn drain_time_max(mut self, time: Duration) -> Self {
        self.plan.drain_time_max = time;
        self
    }

    /// How long one FETCH waits for a job, up to 10 min. Default: 30 s.
    pub fn wait(mut self, wait: Duration) -> Self {
        self.plan.wait = wait;
        self
    }

    /// Stops when this future ends, instead of at SIGTERM or SIGINT.
    pub fn until(mut self, stop: impl Future<Output = ()> + Send + 'static) -> Self {
        self.stopping = Stopping::When(Box::pin(stop));
        self
    }

    /// Puts a layer around the handler. The layer that was added first is the outermost.
    pub fn layer<M>(self, layer: M) -> Worker<Stack<M, L>> {
        let Self { client, plan, stopping, layer: outer } = self;
        Worker { client, plan, stopping, layer: Stack::new(layer, outer) }
    }

    /// Runs an asynchronous function for each job, until the worker is told to stop. Each runs in
    /// a task of its own. It returns nothing, or a [`Done`].
    ///
    /// # Errors
    /// [`ClientError`] if the client is closed, or if the server refuses to give jobs for a reason
    /// that does not pass: `NO_SUCH_GROUP` for instance. What runs is finished before.
    pub async fn run<F, R, D, E>(self, handler: F) -> Result<Drained, ClientError>
    where
        L: Layer<HandlerFn<F>>,
        L::Service: Service<Delivery> + Clone + Send + 'static,
        <L::Service as Service<Delivery>>::Response: Into<Done>,
        <L::Service as Service<Delivery>>::Future: Send,
        <L::Service as Service<Delivery>>::Error: JobFailure + Send,
        F: Fn(Delivery) -> R,
        R: Future<Output = Result<D, E>>,
    {
        self.run_service(HandlerFn::new(handler)).await
    }

    /// Runs a blocking function for each job, on the runtime's pool of threads for blocking work.
    ///
    /// # Errors
    /// As [`Worker::run`].
    pub async fn run_blocking<F, D, E>(self, handler: F) -> Result<Drained, ClientError>
    where
        L: Layer<BlockingFn<F>>,
        L::Service: Service<Delivery> + Clone + Send + 'static,
        <L::Service as Service<Delivery>>::Response: Into<Done>,
        <L::Service as Service<Delivery>>::Future: Send,
        <L::Service as Service<Delivery>>::Error: JobFailure + Send,
        F: Fn(Delivery) -> Result<D, E> + Send + Sync + 'static,
        D: Send + 'static,
        E: JobFailure + Send + 'static,
    {
        self.run_service(BlockingFn::new(handler)).await
    }

    /// Runs a service for each job: a [`Router`](super::Router), or one of your own. Each job has a
    /// clone of it.
    ///
    /// # Errors
    /// As [`Worker::run`].
    pub async fn run_service<S>(self, service: S) -> Result<Drained, ClientError>
    where
        L: Layer<S>,
        L::Service: Service<Delivery> + Clone + Send + 'static,
        <L::Service as Service<Delivery>>::Response: Into<Done>,
        <L::Service as Service<Delivery>>::Future: Send,
        <L::Service as Service<Delivery>>::Error: JobFailure + Send,
    {
        let service = self.layer.layer(service);
        WorkerRun::new(self.client, self.plan, service).run(self.stopping).await
    }
}

impl WorkerPlan {
    /// What to ask for when so many places are free.
    pub(super) fn request(&self, free: u32) -> FetchRequest {
        FetchRequest {
            group: Arc::clone(&self.group),
            jobs_max: free,
            by_turns: self.by_turns,
            wait: self.wait,
            lease: Lease::Session(Some(self.lease())),
            ..FetchRequest::new(self.queues.iter().cloned())
        }
    }

    /// The maximum run time of a lease, which the server ends by itself.
    pub(super) fn lease(&self) -> Duration {
        self.run_time_max + LEASE_MARGIN
    }
}
