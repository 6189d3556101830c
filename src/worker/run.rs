//! The loop of a running worker.
//!
//! Each free place is either asked for by one FETCH that is under way, or taken by a job: a FETCH
//! holds the permits of the places that it asks for, and a job holds one until its handler ends.

use std::collections::{BTreeMap, HashMap};
use std::future::{pending, poll_fn};
use std::mem;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, broadcast};
use tokio::task::{AbortHandle, Id, JoinError, JoinSet};
use tokio::time::{Instant, sleep, sleep_until};
use tower_service::Service;
use tracing::{debug, error, info, warn};

use super::delivery::{Cancellation, Delivery, Stop, StopReason};
use super::done::Done;
use super::failure::{JobError, JobFailure, Retry};
use super::settings::WorkerPlan;
use super::stop::Stopping;
use crate::client::{
    Backoff, Client, ClientError, ConnectionState, ErrorCode, Failure, HeldJob, JobHandle, Noted,
};

/// FETCHes that are under way at once. With so many out, a job that ends is committed by itself,
/// and its place is asked for when one of them is answered.
const FETCHES_MAX: usize = 8;

/// How a worker ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Drained {
    /// Jobs whose handlers ended well.
    pub done: u64,
    /// Jobs that failed: by an error, a panic, or after too long a time.
    pub failed: u64,
    /// Jobs that were handed back without fault.
    pub released: u64,
}

/// A worker that runs. Dropped at any point, it hands back what it has.
pub(super) struct WorkerRun<S> {
    client: Client,
    plan: WorkerPlan,
    service: S,
    noted: Arc<Noted>,
    places: Arc<Semaphore>,
    fetches: JoinSet<(Result<Vec<HeldJob>, ClientError>, OwnedSemaphorePermit)>,
    tasks: JoinSet<Result<Done, JobError>>,
    running: HashMap<Id, Running>,
    /// When the running jobs have run for too long; the number tells those of one moment apart.
    ends: BTreeMap<(Instant, u64), Id>,
    next_number: u64,
    asides: JoinSet<Aside>,
    is_flushing: bool,
    backoff: Backoff,
    /// No FETCH before this time, since the last one failed.
    fetch_at: Option<Instant>,
    /// Set when it drains: until when.
    deadline: Option<Instant>,
    fault: Option<ClientError>,
    drained: Drained,
}

/// A job that a handler has.
struct Running {
    held: HeldJob,
    stop: Stop,
    task: AbortHandle,
    end: (Instant, u64),
}

/// What goes on beside the loop.
enum Aside {
    /// A job was failed or released, or could not be.
    Settled,
    /// A job was committed with what its handler had to say, or could not be.
    Committed,
    /// It can't be committed with that for a reason that does not pass.
    Refused(Box<HeldJob>, ClientError),
    /// Commits went out by themselves, or could not.
    Flushed,
    /// How the leases stand after a reconnect.
    Looked(Vec<(JobHandle, Result<(), ErrorCode>)>),
}

impl<S> WorkerRun<S>
where
    S: Service<Delivery> + Clone + Send + 'static,
    S::Response: Into<Done>,
    S::Future: Send,
    S::Error: JobFailure + Send,
{
    pub(super) fn new(client: Client, plan: WorkerPlan, service: S) -> Self {
        Self {
            noted: Noted::new(client.clone()),
            client,
            service,
            places: Arc::new(Semaphore::new(plan.concurrency)),
            plan,
            fetches: JoinSet::new(),
            tasks: JoinSet::new(),
            running: HashMap::new(),
            ends: BTreeMap::new(),
            next_number: 0,
            asides: JoinSet::new(),
            is_flushing: false,
            backoff: Backoff::new(),
            fetch_at: None,
            deadline: None,
            fault: None,
            drained: Drained::default(),
        }
    }

    pub(super) async fn run(mut self, mut stopping: Stopping) -> Result<Drained, ClientError> {
        let mut state = self.client.state();
        let mut cancelled = self.client.cancelled();
        info!(queues = ?self.plan.queues, places = self.plan.concurrency, "the worker begins");
        while !self.is_over() {
            self.advance();
            let next_time = self.next_time();
            // The end of a job comes first: its commit rides on the FETCH for its place.
            tokio::select! {
                biased;
                Some(ended) = self.tasks.join_next_with_id() => self.ended(ended),
                Some(fetched) = self.fetches.join_next() => self.fetched(fetched),
                Some(aside) = self.asides.join_next() => self.aside(aside),
                notice = cancelled.recv() => self.notice(notice),
                Ok(()) = state.changed() => {
                    let is_up = matches!(*state.borrow_and_update(), ConnectionState::Connected(_));
                    if is_up {
                        self.look_at_leases();
                    }
                }
                () = stopping.next() => self.stop(),
                () = until(next_time) => self.at_time(),
                // A thread that was given up has ended, which no task tells.
                () = free_place(&self.places), if self.places.available_permits() == 0 => {}
            }
        }
        self.leave().await;
        info!(?self.drained, "the worker ends");
        self.fault.take().map_or(Ok(self.drained), Err)
    }

    fn is_over(&self) -> bool {
        let is_late = self.deadline.is_some_and(|deadline| deadline <= Instant::now());
        let is_closed = matches!(self.fault, Some(ClientError::Closed { .. }));
        let is_idle = self.running.is_empty() && self.fetches.is_empty();
        let is_settled = self.asides.is_empty() && self.noted.is_empty();
        self.deadline.is_some() && (is_late || is_closed || (is_idle && is_settled))
    }

    /// Takes the next step that can be taken: a FETCH for the free places, or the commits that no
    /// FETCH carries.
    fn advance(&mut self) {
        while let Some(ended) = self.tasks.try_join_next_with_id() {
            self.ended(ended);
        }
        let may_fetch =
            self.deadline.is_none() && self.fetch_at.is_none() && self.fetches.len() < FETCHES_MAX;
        let free = self.places.available_permits() as u32;
        if may_fetch
            && free > 0
            && let Ok(places) = Arc::clone(&self.places).try_acquire_many_owned(free)
        {
            let fetch = self.noted.fetch(self.plan.request(free));
            let noted = Arc::clone(&self.noted);
            self.fetches.spawn(async move { (hold(fetch.await, &noted), places) });
        }
        if !self.noted.is_empty() && !self.is_flushing {
            self.is_flushing = true;
            let noted = Arc::clone(&self.noted);
            let pause = self.backoff.clone().delay();
            self.asides.spawn(async move {
                if let Err(error) = noted.flush().await {
                    warn!(%error, "a commit is made again");
                    sleep(pause).await;
                }
                Aside::Flushed
            });
        }
        for (job, code) in self.noted.take_refused() {
            warn!(%job, %code, "a job that was done could not be committed");
        }
    }

    fn fetched(
        &mut self,
        fetched: Result<(Result<Vec<HeldJob>, ClientError>, OwnedSemaphorePermit), JoinError>,
    ) {
        // One that was aborted has nothing.
        let Ok((result, mut places)) = fetched else {
            return;
        };
        match result {
            // What comes too late goes back as it is dropped.
            Ok(_) if self.deadline.is_some() => {}
            Ok(jobs) => {
                self.backoff.reset();
                for job in jobs {
                    if let Some(place) = places.split(1) {
                        self.begin(job, place);
                    }
                }
            }
            Err(error) if is_passing(&error) => {
                warn!(%error, "no jobs can be fetched; it is tried again");
                self.fetch_at = Some(Instant::now() + self.backoff.delay());
            }
            Err(error) => {
                error!(%error, "no jobs can be fetched");
                self.fault.get_or_insert(error);
                self.drain();
            }
        }
    }

    fn begin(&mut self, mut held: HeldJob, place: OwnedSemaphorePermit) {
        let (stop, cancellation) = Cancellation::new();
        let place = Arc::new(place);
        let delivery = Delivery {
            handle: held.handle.clone(),
            attempt: held.attempt,
            enqueued_at_ms: held.enqueued_at_ms,
            job: Arc::new(held.take_job()),
            client: self.client.clone(),
            cancellation,
            lease: self.plan.lease(),
            place: Arc::clone(&place),
        };
        let mut service = self.service.clone();
        let task = self.tasks.spawn(async move {
            let is_ready = poll_fn(|context| service.poll_ready(context)).await;
            let result = match is_ready {
                Ok(()) => service.call(delivery).await,
                Err(error) => Err(error),
            };
            drop(place);
            result.map(Into::into).map_err(|error| JobError::of(&error))
        });
        let end = (Instant::now() + self.plan.run_time_max, self.next_number);
        self.next_number += 1;
        self.ends.insert(end, task.id());
        self.running.insert(task.id(), Running { held, stop, task, end });
    }

    fn ended(&mut self, ended: Result<(Id, Result<Done, JobError>), JoinError>) {
        let (id, result) = match ended {
            Ok((id, result)) => (id, result),
            Err(error) => (error.id(), Err(JobError::new(panic_text(error)))),
        };
        // One that was given up before is settled already.
        let Some(Running { held, end, .. }) = self.running.remove(&id) else {
            return;
        };
        self.ends.remove(&end);
        match result {
            Ok(done) if done.is_plain() => {
                self.drained.done += 1;
                held.commit_later();
            }
            Ok(done) => {
                self.asides.spawn(commit(held, done));
            }
            Err(error) => self.fail(held, &error),
        }
    }

    fn fail(&mut self, mut held: HeldJob, error: &JobError) {
        warn!(job = %held.handle, attempt = held.attempt, retry = ?error.retry(), %error, "failed");
        let failure = match error.retry() {
            Retry::Release(delay) => {
                self.drained.released += 1;
                self.asides.spawn(async move {
                    release(&mut held, delay).await;
                    Aside::Settled
                });
                return;
            }
            Retry::Backoff => Failure::default(),
            Retry::After(delay) => Failure { delay: Some(delay), ..Failure::default() },
            Retry::Never => Failure { failures_max: Some(0), ..Failure::default() },
        };
        self.drained.failed += 1;
        let failure = Failure { reason: error.reason(), ..failure };
        self.asides.spawn(async move {
            fail(&mut held, &failure).await;
            Aside::Settled
        });
    }

    fn aside(&mut self, aside: Result<Aside, JoinError>) {
        match aside {
            Ok(Aside::Flushed) => self.is_flushing = false,
            Ok(Aside::Looked(leases)) => {
                for (handle, lease) in leases {
                    match lease {
                        Err(ErrorCode::LeaseLost) => self.tell(&handle, StopReason::LeaseLost),
                        Err(ErrorCode::CancelRequested) => {
                            self.tell(&handle, StopReason::Cancelled);
                        }
                        _ => {}
                    }
                }
            }
            Ok(Aside::Committed) => self.drained.done += 1,
            Ok(Aside::Refused(held, error)) => self.fail(*held, &JobError::from(error)),
            Ok(Aside::Settled) | Err(_) => {}
        }
    }

    /// Tells the handler of a job to stop, if one has it.
    fn tell(&self, handle: &JobHandle, reason: StopReason) {
        let is_it = |running: &&Running| running.held.handle.token == handle.token;
        if let Some(running) = self.running.values().find(is_it) {
            debug!(job = %running.held.handle, ?reason, "its handler is told to stop");
            running.stop.stop(reason);
        }
    }

    fn notice(&mut self, notice: Result<JobHandle, broadcast::error::RecvError>) {
        match notice {
            Ok(handle) => self.tell(&handle, StopReason::Cancelled),
            Err(broadcast::error::RecvError::Lagged(_)) => self.look_at_leases(),
            // The client itself has the other end.
            Err(broadcast::error::RecvError::Closed) => {}
        }
    }

    /// Asks how the leases of all running jobs stand: what was said while there was no connection
    /// was not heard.
    fn look_at_leases(&mut self) {
        let handles: Vec<_> =
            self.running.values().map(|running| running.held.handle.clone()).collect();
        if handles.is_empty() {
            return;
        }
        let (client, lease) = (self.client.clone(), self.plan.lease());
        self.asides.spawn(async move {
            let statuses = client.extend(&handles, lease).await.unwrap_or_default();
            Aside::Looked(handles.into_iter().zip(statuses).collect())
        });
    }

    /// The next time at which something is to be done.
    fn next_time(&self) -> Option<Instant> {
        let end = self.ends.keys().next().map(|(end, _)| *end);
        [end, self.fetch_at, self.deadline].into_iter().flatten().min()
    }

    fn at_time(&mut self) {
        let now = Instant::now();
        self.fetch_at = self.fetch_at.filter(|at| *at > now);
        let later = self.ends.split_off(&(now, u64::MAX));
        for id in mem::replace(&mut self.ends, later).into_values() {
            if let Some(Running { held, stop, task, .. }) = self.running.remove(&id) {
                stop.stop(StopReason::RanTooLong);
                task.abort();
                let ms = self.plan.run_time_max.as_millis();
                self.fail(held, &JobError::new(format!("it ran for longer than {ms} ms")));
            }
        }
    }

    fn stop(&mut self) {
        match self.deadline {
            None => self.drain(),
            Some(_) => self.deadline = Some(Instant::now()),
        }
    }

    /// Takes no more jobs, and gives those that run their time.
    fn drain(&mut self) {
        if self.deadline.is_none() {
            info!(running = self.running.len(), "the worker takes no more jobs");
            self.deadline = Some(Instant::now() + self.plan.drain_time_max);
            self.fetches.abort_all();
        }
    }

    /// Hands back at once what still runs, and waits until that is done.
    async fn leave(&mut self) {
        self.fetches.abort_all();
        while self.fetches.join_next().await.is_some() {}
        let mut left = Vec::new();
        for (_, Running { held, stop, task, .. }) in mem::take(&mut self.running) {
            stop.stop(StopReason::Drained);
            task.abort();
            left.push(held.into_leased().handle);
        }
        self.drained.released += left.len() as u64;
        if let Err(error) = self.client.release(&left, Duration::ZERO).await {
            warn!(%error, jobs = left.len(), "jobs could not be handed back");
        }
    }
}

/// Jobs that go back when they are dropped.
fn hold(
    fetched: Result<crate::client::Fetched, ClientError>,
    noted: &Arc<Noted>,
) -> Result<Vec<HeldJob>, ClientError> {
    let fetched = fetched?;
    for damaged in &fetched.damaged {
        warn!(%damaged, "it was handed back");
    }
    Ok(fetched.jobs.into_iter().map(|job| HeldJob::new(job, Arc::clone(noted))).collect())
}

/// Whether a FETCH may succeed later.
fn is_passing(error: &ClientError) -> bool {
    match error {
        ClientError::Server { code, .. } => code.retryable(),
        ClientError::Closed { .. }
        | ClientError::Invalid(_)
        | ClientError::UnknownCode { .. }
        | ClientError::Start { .. } => false,
        ClientError::Unreachable { .. }
        | ClientError::Busy { .. }
        | ClientError::Timeout { .. }
        | ClientError::OutcomeUnknown { .. }
        | ClientError::Protocol { .. }
        | ClientError::TooManyHeld { .. } => true,
    }
}

/// Commits a job with its result and the jobs that follow, until there is an answer.
async fn commit(mut held: HeldJob, done: Done) -> Aside {
    let mut backoff = Backoff::new();
    loop {
        let Done { result, next } = &done;
        let committed = match next {
            Some(next) => held.commit_chain(result.as_deref(), &next.queue, &next.jobs).await,
            None => held.commit_with_result(result.as_deref().unwrap_or_default()).await,
        };
        match committed {
            Ok(status) if status.is_consumed() => return Aside::Committed,
            Ok(status) => {
                warn!(job = %held.handle, ?status, "a job that was done could not be committed");
                return Aside::Settled;
            }
            Err(error @ ClientError::Closed { .. }) => {
                warn!(job = %held.handle, %error, "a job that was done could not be committed");
                return Aside::Settled;
            }
            Err(error) if is_passing(&error) => {
                warn!(job = %held.handle, %error, "a commit is made again");
                sleep(backoff.delay()).await;
            }
            Err(error) => return Aside::Refused(Box::new(held), error),
        }
    }
}

/// Fails a job, again and again until there is an answer; one that can't be failed goes back.
async fn fail(held: &mut HeldJob, failure: &Failure) {
    let mut backoff = Backoff::new();
    loop {
        match held.fail(failure).await {
            Ok(status) => return debug!(job = %held.handle, ?status, "failed"),
            Err(error) if is_passing(&error) => {
                warn!(job = %held.handle, %error, "a failure is told again");
                sleep(backoff.delay()).await;
            }
            Err(error) => return warn!(job = %held.handle, %error, "a failure can't be told"),
        }
    }
}

/// Releases a job, again and again until there is an answer.
async fn release(held: &mut HeldJob, delay: Duration) {
    let mut backoff = Backoff::new();
    loop {
        match held.release(delay).await {
            Ok(status) => return debug!(job = %held.handle, ?status, "released"),
            Err(error) if is_passing(&error) => sleep(backoff.delay()).await,
            Err(error) => return warn!(job = %held.handle, %error, "it can't be released"),
        }
    }
}

/// What a panic said, for people.
fn panic_text(error: JoinError) -> String {
    let Ok(panic) = error.try_into_panic() else {
        return "the runtime ended while the job ran".to_owned();
    };
    let panic = AssertUnwindSafe(panic);
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    match text.or_else(|| panic.downcast_ref::<String>().cloned()) {
        Some(text) => format!("it panicked: {text}"),
        None => "it panicked".to_owned(),
    }
}

async fn until(time: Option<Instant>) {
    match time {
        Some(time) => sleep_until(time).await,
        None => pending().await,
    }
}

async fn free_place(places: &Semaphore) {
    // It is given back at once: the loop takes what is free.
    drop(places.acquire().await);
}
