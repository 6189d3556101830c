//! The client itself: connecting, handing requests to the driver, and closing.

use std::slice;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use joblog_protocol::limits::{JOB_WAITS_MAX, WAITING_FETCHES_MAX};
use joblog_protocol::opcode::Opcode;
use tokio::sync::{Semaphore, broadcast, mpsc, oneshot, watch};
use tokio::time::{Instant, timeout_at};

use super::addresses::Addresses;
use super::driver::{Driver, Ends};
use super::error::ClientError;
use super::grant::Abandoned;
use super::in_flight::{Reply, Request};
use super::options::Options;
use super::request::WaitingReply;
use super::sequence::{Sequence, Sequences};
use super::types::{ConnectionState, JobHandle};

/// What a small request counts as among the bytes in flight.
const REQUEST_BYTES_MIN: usize = 1024;
/// Until a job that arrived damaged is ready again.
const DAMAGED_DELAY_MS: u64 = 10_000;
/// Cancelled jobs that a slow listener is kept for.
const CANCELLED_KEPT: usize = 1024;
/// A thread's name is cut at 15 bytes by the system.
const THREAD_NAME: &str = "joblog-client";

/// A handle on one connection to a Joblog server. Clone it freely: all clones are one client, with
/// one session. When the last one is dropped, the client says goodbye in the background; only
/// [`Client::close`] waits for that.
#[derive(Clone, Debug)]
pub struct Client {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    options: Options,
    requests: mpsc::Sender<Request>,
    state: watch::Receiver<ConnectionState>,
    abandoned: Arc<Abandoned>,
    next_correlation: Arc<AtomicU64>,
    sequences: Sequences,
    cancelled: broadcast::Sender<JobHandle>,
    /// Bytes that requests may still take.
    budget: Arc<Semaphore>,
    /// FETCHes that may still wait on the connection.
    fetches: Arc<Semaphore>,
    /// WAITs that may.
    waits: Arc<Semaphore>,
}

impl Client {
    /// Connects to the server at an address (`host:port`) and greets it. Of several addresses the
    /// first that answers is taken, and after a cut they are tried in turn again.
    ///
    /// # Errors
    /// [`ClientError::Unreachable`] if the first attempt fails at each address;
    /// [`ClientError::Server`] if a server refuses the greeting, and no other one takes it.
    pub async fn connect(
        addresses: impl Into<Addresses>,
        options: Options,
    ) -> Result<Self, ClientError> {
        let id = match options.session {
            Some(id) => id,
            None => random_id()?,
        };
        // Not the session's id: a caller may choose that, and use it again for other batches.
        let producer = match options.producer {
            Some(id) => id,
            None => random_id()?,
        };
        let disconnected = ConnectionState::Disconnected(ClientError::Closed {
            reason: "it is not connected yet",
        });
        // Each request in the channel has its share of the budget, so there is always a place.
        let places = options.bytes_in_flight_max / REQUEST_BYTES_MIN + 16;
        let (requests, receiver) = mpsc::channel(places);
        let (state, watching) = watch::channel(disconnected);
        let shared = Shared {
            options: options.clone(),
            requests,
            state: watching,
            abandoned: Arc::default(),
            next_correlation: Arc::new(AtomicU64::new(1)),
            sequences: Sequences::new(producer),
            cancelled: broadcast::channel(CANCELLED_KEPT).0,
            budget: Arc::new(Semaphore::new(options.bytes_in_flight_max)),
            fetches: Arc::new(Semaphore::new(WAITING_FETCHES_MAX)),
            waits: Arc::new(Semaphore::new(JOB_WAITS_MAX)),
        };
        let ends = Ends {
            requests: receiver,
            state,
            abandoned: Arc::clone(&shared.abandoned),
            next_correlation: Arc::clone(&shared.next_correlation),
            cancelled: shared.cancelled.clone(),
        };
        let connected = start(Driver::new(addresses.into(), options, id, ends))?;
        match connected.await {
            Ok(result) => result?,
            Err(_) => {
                let reason = "its thread ended";
                return Err(ClientError::Closed { reason });
            }
        }
        Ok(Self { shared: Arc::new(shared) })
    }

    /// How the connection stands: to look at, or to wait for the next change.
    pub fn state(&self) -> watch::Receiver<ConnectionState> {
        let mut state = self.shared.state.clone();
        state.mark_unchanged();
        state
    }

    /// Where to hear of jobs that were cancelled while this client has them under a session lease:
    /// work on them is for nothing, unless it is committed before anyone else ends it. An EXTEND
    /// says so too, with [`ErrorCode::CancelRequested`](super::ErrorCode::CancelRequested).
    pub fn cancelled(&self) -> broadcast::Receiver<JobHandle> {
        self.shared.cancelled.subscribe()
    }

    /// Waits for the answers to what is under way, FETCHes excepted, says goodbye, and ends: the
    /// session's leases end at once. Every later call, on any clone, gets [`ClientError::Closed`].
    ///
    /// # Errors
    /// None so far: if the server can't be reached, the client ends without a goodbye.
    pub async fn close(self) -> Result<(), ClientError> {
        let (done, ended) = oneshot::channel();
        let mut goodbye = Request::new(Opcode::Goodbye, self.next_correlation(), |_| {});
        goodbye.reply = Some(done);
        if self.shared.requests.send(goodbye).await.is_ok() {
            // The driver drops its end when it is done, within its patience.
            drop(ended.await);
        }
        Ok(())
    }

    pub(crate) fn options(&self) -> &Options {
        &self.shared.options
    }

    pub(crate) fn next_correlation(&self) -> u64 {
        self.shared.next_correlation.fetch_add(1, Ordering::Relaxed)
    }

    /// What the server says is the largest job body, while it can be asked.
    pub(crate) fn job_bytes_max(&self) -> usize {
        let state = self.shared.state.borrow();
        state.server().map_or(usize::MAX, |server| server.job_bytes_max as usize)
    }

    /// Hands a job back without waiting for the answer. It has a delay, since it would most likely
    /// arrive damaged again.
    pub(crate) fn hand_back_damaged(&self, handle: JobHandle) {
        let correlation = self.next_correlation();
        let release = Request::release(correlation, slice::from_ref(&handle), DAMAGED_DELAY_MS);
        if self.shared.requests.try_send(release).is_err() {
            self.shared.abandoned.add([handle]);
        }
    }

    /// Hands jobs back at once, without fault, and without waiting for the answer.
    pub(crate) fn hand_back(&self, handles: impl IntoIterator<Item = JobHandle>) {
        self.shared.abandoned.add(handles);
    }

    /// Commits jobs without waiting for the answer. A client that has too much under way, or is
    /// closed, lets them come again instead.
    pub(crate) fn commit_unawaited(&self, jobs: &[JobHandle]) {
        let commit = Request::commit(self.next_correlation(), jobs);
        drop(self.shared.requests.try_send(commit));
    }

    /// Why there is no driver any more.
    pub(crate) fn closed_error(&self) -> ClientError {
        let state = self.shared.state.borrow();
        let ConnectionState::Closed { reason } = *state else {
            return ClientError::Closed { reason: "its thread ended" };
        };
        ClientError::Closed { reason }
    }

    /// The number of the next batch for a queue, when there is a place for it.
    pub(crate) async fn next_sequence(&self, queue: &str) -> Result<Sequence, ClientError> {
        let timeout = self.shared.options.request_timeout;
        let deadline = Instant::now() + timeout;
        let next = timeout_at(deadline, self.shared.sequences.next(queue)).await;
        next.map_err(|_| self.not_sent(Opcode::Enqueue, timeout))
    }

    /// Hands a request to the driver. What comes back is the wait for its answer, until the end of
    /// its timeout, which counts from here.
    pub(crate) async fn submit(
        &self,
        mut request: Request,
        timeout: Duration,
    ) -> Result<WaitingReply, ClientError> {
        let deadline = Instant::now() + timeout;
        let opcode = request.opcode;
        if timeout_at(deadline, self.admit(&mut request)).await.is_err() {
            return Err(self.not_sent(opcode, timeout));
        }
        let (reply, receiver) = oneshot::channel();
        request.reply = Some(reply);
        let sent_once = Arc::clone(&request.sent_once);
        let sent = self.shared.requests.send(request).await;
        sent.map_err(|_| self.closed_error())?;
        Ok(WaitingReply { client: self.clone(), opcode, receiver, sent_once, deadline, timeout })
    }

    /// Waits for a place among the requests under way. What waits has a bound of its own, which is
    /// the server's, so that it can't keep a COMMIT out.
    async fn admit(&self, request: &mut Request) {
        let Shared { budget, fetches, waits, options, .. } = &*self.shared;
        let bytes = request.frame.len().clamp(REQUEST_BYTES_MIN, options.bytes_in_flight_max);
        let waiting = request.wait_end.map(|_| waits);
        if let Some(places) = request.fetching.as_ref().map_or(waiting, |_| Some(fetches)) {
            let permit = Arc::clone(places).acquire_owned().await;
            request.permits.extend(permit.ok());
        }
        let permit = Arc::clone(budget).acquire_many_owned(bytes as u32).await;
        request.permits.extend(permit.ok());
    }

    fn not_sent(&self, opcode: Opcode, timeout: Duration) -> ClientError {
        if let ConnectionState::Disconnected(error) = &*self.shared.state.borrow() {
            return error.clone();
        }
        ClientError::Busy { command: opcode.name(), timeout }
    }

    /// Sends a request and waits for its reply.
    pub(crate) async fn call(&self, request: Request) -> Result<Reply, ClientError> {
        let timeout = self.shared.options.request_timeout;
        self.submit(request, timeout).await?.reply().await
    }
}

fn random_id() -> Result<[u8; 16], ClientError> {
    let mut id = [0; 16];
    getrandom::fill(&mut id).map_err(|error| ClientError::Start {
        cause: Arc::new(std::io::Error::other(error.to_string())),
    })?;
    Ok(id)
}

/// Starts the driver's thread with a runtime of its own.
fn start(driver: Driver) -> Result<oneshot::Receiver<Result<(), ClientError>>, ClientError> {
    let cannot = |cause| ClientError::Start { cause: Arc::new(cause) };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .enable_time()
        .build()
        .map_err(cannot)?;
    let (connected, first) = oneshot::channel();
    thread::Builder::new()
        .name(THREAD_NAME.to_owned())
        .spawn(move || runtime.block_on(driver.run(connected)))
        .map_err(cannot)?;
    Ok(first)
}
