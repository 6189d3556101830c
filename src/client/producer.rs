//! The buffered producer: jobs that arrive while a batch is under way make the next batch.

use std::collections::{HashMap, VecDeque};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use joblog_protocol::error_code::ErrorCode;
use joblog_protocol::job::{BatchBuilder, Job};
use joblog_protocol::limits::{BATCH_BYTES_MAX, BATCH_JOBS_MAX};
use joblog_protocol::messages::enqueue::{EnqueueOutcome, EnqueueReply};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, oneshot};
use tokio::time::{Instant, sleep, timeout};

use super::backoff::Backoff;
use super::error::ClientError;
use super::face::Client;
use super::options::TIMEOUT_LONGEST;
use super::prepared::check_enqueued;
use super::request::check_queue;

/// What a job in the buffer counts as, on top of its body.
const JOB_OVERHEAD_BYTES: usize = 128;

/// How a [`Producer`] behaves. [`ProducerOptions::default`] suits most; each method changes one
/// thing.
#[derive(Clone, Copy, Debug)]
pub struct ProducerOptions {
    buffer_bytes_max: usize,
    batch_jobs_max: usize,
    batch_bytes_max: usize,
    linger: Duration,
    delivery_timeout: Duration,
}

impl Default for ProducerOptions {
    fn default() -> Self {
        Self {
            buffer_bytes_max: 32 * 1024 * 1024,
            batch_jobs_max: 10_000,
            batch_bytes_max: 1024 * 1024,
            linger: Duration::ZERO,
            delivery_timeout: Duration::from_secs(120),
        }
    }
}

impl ProducerOptions {
    /// Bytes of jobs that may wait for their answers, 128 for each job on top of its body; more
    /// have to wait at [`Producer::send`]. Default: 32 MiB.
    pub fn buffer_bytes_max(mut self, bytes: usize) -> Self {
        self.buffer_bytes_max = bytes.clamp(1, u32::MAX as usize);
        self
    }

    /// Jobs of a batch at most, 1 to 65,536. Default: 10,000.
    pub fn batch_jobs_max(mut self, jobs: usize) -> Self {
        self.batch_jobs_max = jobs.clamp(1, BATCH_JOBS_MAX);
        self
    }

    /// Bytes of a batch's job bodies at most, up to 4 MiB; a job that is larger goes alone.
    /// Default: 1 MiB.
    pub fn batch_bytes_max(mut self, bytes: usize) -> Self {
        self.batch_bytes_max = bytes.clamp(1, BATCH_BYTES_MAX);
        self
    }

    /// How long a batch waits for more jobs before it is sent. Default: not at all; what arrives
    /// while a batch is under way makes the next one.
    pub fn linger(mut self, linger: Duration) -> Self {
        self.linger = linger.min(TIMEOUT_LONGEST);
        self
    }

    /// How long a batch is sent again and again before its jobs get an error, the time of the last
    /// attempt not counted. Default: 2 min.
    pub fn delivery_timeout(mut self, timeout: Duration) -> Self {
        self.delivery_timeout = timeout.min(TIMEOUT_LONGEST);
        self
    }
}

/// Enqueues single jobs in batches. For each queue one batch is under way at a time, so jobs that
/// one task sends to a queue keep their order; whatever arrives meanwhile makes the next batch.
///
/// A batch is sent again under its number until it is answered, and so enqueued once, through cuts,
/// restarts and timeouts. A refusal that can only be about one job parts it from the others.
///
/// Clones are one producer. When all are dropped, what they hold is still sent as long as the
/// runtime runs: call [`Producer::flush`] before the program ends.
///
/// ```no_run
/// # use joblog::client::{Client, ClientError, Job, Producer, ProducerOptions};
/// # async fn example(client: Client) -> Result<(), ClientError> {
/// let producer = Producer::new(client, ProducerOptions::default());
/// let mut pending = Vec::new();
/// for number in 0..10_000 {
///     pending.push(producer.send("mail", &Job::new(number.to_string())).await?);
/// }
/// for job in pending {
///     println!("offset {}", job.await?);
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Producer {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    client: Client,
    options: ProducerOptions,
    /// Bytes that jobs may still take.
    room: Arc<Semaphore>,
    /// The batches that wait, by queue. A queue that is here has a task that sends for it.
    lines: Mutex<HashMap<Arc<str>, WaitingJobs>>,
}

/// What waits for one queue.
#[derive(Debug, Default)]
struct WaitingJobs {
    batches: VecDeque<Filling>,
    /// Told when a second batch begins, since nothing fits into the first one any more.
    filled: Arc<Notify>,
}

type Answer = Result<u64, ClientError>;

/// A batch that is not under way yet.
#[derive(Debug, Default)]
struct Filling {
    batch: BatchBuilder,
    /// Those who wait, in the order of the jobs.
    waiting: Vec<oneshot::Sender<Answer>>,
    room: Option<OwnedSemaphorePermit>,
}

impl Producer {
    /// A producer over a client, which others may use at the same time.
    pub fn new(client: Client, options: ProducerOptions) -> Self {
        let room = Arc::new(Semaphore::new(options.buffer_bytes_max));
        let lines = Mutex::default();
        Self { shared: Arc::new(Shared { client, options, room, lines }) }
    }

    /// Hands a job over, when there is room for it. What comes back is the wait for its offset.
    /// Dropping that does not take the job back.
    ///
    /// # Errors
    /// [`ClientError::Invalid`] if the job or the queue's name is not allowed;
    /// [`ClientError::Busy`] if there was no room within the client's request timeout.
    pub async fn send(&self, queue: &str, job: &Job) -> Result<PendingJob, ClientError> {
        let shared = &self.shared;
        let room = Arc::clone(&shared.room).acquire_many_owned(shared.room_for(job));
        let patience = shared.client.options().request_timeout;
        let room = timeout(patience, room).await.ok().and_then(Result::ok);
        self.put(queue, job, room.ok_or_else(|| shared.no_room(patience))?)
    }

    /// As [`Producer::send`], without waiting for room. It has to be called inside a runtime.
    ///
    /// # Errors
    /// As [`Producer::send`].
    pub fn try_send(&self, queue: &str, job: &Job) -> Result<PendingJob, ClientError> {
        let shared = &self.shared;
        let room = Arc::clone(&shared.room).try_acquire_many_owned(shared.room_for(job));
        self.put(queue, job, room.map_err(|_| shared.no_room(Duration::ZERO))?)
    }

    /// Enqueues a job and waits for its offset.
    ///
    /// # Errors
    /// As [`Producer::send`] and [`PendingJob`].
    pub async fn enqueue(&self, queue: &str, job: &Job) -> Result<u64, ClientError> {
        self.send(queue, job).await?.await
    }

    /// Waits until everything that was handed over before has its answer. The answers themselves
    /// are told by each [`PendingJob`].
    pub async fn flush(&self) {
        let Shared { room, options, .. } = &*self.shared;
        // Every job has its room until it is answered. It can't be closed.
        drop(room.acquire_many(options.buffer_bytes_max as u32).await);
    }

    fn put(
        &self,
        queue: &str,
        job: &Job,
        room: OwnedSemaphorePermit,
    ) -> Result<PendingJob, ClientError> {
        check_queue(queue)?;
        self.shared.check_size(job)?;
        let (answer, receiver) = oneshot::channel();
        let mut lines = self.shared.lines();
        let is_new = !lines.contains_key(queue);
        let mut first = WaitingJobs::default();
        let line = lines.get_mut(queue).unwrap_or(&mut first);
        self.shared.options.add(line, job, answer, room)?;
        if is_new {
            let (shared, queue) = (Arc::clone(&self.shared), Arc::<str>::from(queue));
            let filled = Arc::clone(&first.filled);
            lines.insert(Arc::clone(&queue), first);
            drop(lines);
            tokio::spawn(Line { shared, queue, filled, is_over: false }.run());
        }
        Ok(PendingJob { receiver })
    }
}

impl ProducerOptions {
    /// Puts a job into the last batch that waits, or begins one.
    fn add(
        &self,
        line: &mut WaitingJobs,
        job: &Job,
        answer: oneshot::Sender<Answer>,
        room: OwnedSemaphorePermit,
    ) -> Result<(), ClientError> {
        let bytes = job.body_bytes();
        if let Some(last) = line.batches.back_mut().filter(|last| self.fits(&last.batch, bytes)) {
            last.batch.push(job)?;
            last.waiting.push(answer);
            match &mut last.room {
                Some(all) => all.merge(room),
                none => *none = Some(room),
            }
            return Ok(());
        }
        let mut batch = BatchBuilder::default();
        batch.push(job)?;
        line.batches.push_back(Filling { batch, waiting: vec![answer], room: Some(room) });
        if line.batches.len() > 1 {
            line.filled.notify_one();
        }
        Ok(())
    }

    fn fits(&self, batch: &BatchBuilder, bytes: usize) -> bool {
        batch.len() < self.batch_jobs_max && batch.bodies_bytes() + bytes <= self.batch_bytes_max
    }
}

impl Shared {
    /// What is kept here is whole at every moment, so a panic elsewhere has not broken it.
    fn lines(&self) -> MutexGuard<'_, HashMap<Arc<str>, WaitingJobs>> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn room_for(&self, job: &Job) -> u32 {
        let bytes = job.body_bytes() + JOB_OVERHEAD_BYTES;
        bytes.min(self.options.buffer_bytes_max) as u32
    }

    fn no_room(&self, waited: Duration) -> ClientError {
        ClientError::Busy { command: "ENQUEUE", timeout: waited }
    }

    /// What the server would refuse must not take the jobs beside it along.
    fn check_size(&self, job: &Job) -> Result<(), ClientError> {
        let bytes = job.body_bytes();
        let bytes_max = self.client.job_bytes_max();
        if bytes <= bytes_max {
            return Ok(());
        }
        Err(ClientError::Server {
            command: "ENQUEUE",
            code: ErrorCode::JobTooLarge,
            text: format!("the job has {bytes} bytes; allowed are {bytes_max}"),
        })
    }
}

/// The task that sends the batches of one queue, one after the other.
struct Line {
    shared: Arc<Shared>,
    queue: Arc<str>,
    filled: Arc<Notify>,
    /// Whether its line is gone, and perhaps another task's by now.
    is_over: bool,
}

impl Line {
    async fn run(mut self) {
        loop {
            self.linger().await;
            match self.next() {
                Some(filling) => self.send(filling).await,
                None => return,
            }
        }
    }

    async fn linger(&self) {
        let linger = self.shared.options.linger;
        let is_filled =
            || self.shared.lines().get(&self.queue).is_some_and(|w| w.batches.len() > 1);
        if !linger.is_zero() && !is_filled() {
            // Told of an earlier batch, it sends this one a little early: that does no harm.
            drop(timeout(linger, self.filled.notified()).await);
        }
    }

    /// The next batch; without one the line ends, and the next job begins another.
    fn next(&mut self) -> Option<Filling> {
        let mut lines = self.shared.lines();
        let next = lines.get_mut(&self.queue).and_then(|waiting| waiting.batches.pop_front());
        if next.is_none() {
            lines.remove(&self.queue);
            self.is_over = true;
        }
        next
    }

    async fn send(&self, filling: Filling) {
        let Filling { batch, waiting, room } = filling;
        // Batches behind each other on this stack keep the order of the jobs.
        let mut parts = vec![(batch, waiting)];
        while let Some((batch, waiting)) = parts.pop() {
            let result = self.enqueue(&batch).await;
            match result {
                Ok(enqueued) => {
                    let offsets = enqueued.outcomes().map(EnqueueOutcome::offset);
                    offsets.zip(waiting).for_each(|(offset, to)| drop(to.send(Ok(offset))));
                }
                Err(error) if is_about_a_job(&error) && batch.len() > 1 => {
                    let (left, right) = halves(&batch, waiting);
                    parts.extend([right, left]);
                }
                Err(error) => {
                    waiting.into_iter().for_each(|to| drop(to.send(Err(error.clone()))));
                }
            }
        }
        drop(room);
    }

    async fn enqueue(&self, batch: &BatchBuilder) -> Result<EnqueueReply, ClientError> {
        let Shared { client, options, .. } = &*self.shared;
        let deadline = Instant::now() + options.delivery_timeout;
        let mut backoff = Backoff::new();
        let prepared = loop {
            match client.prepare(&self.queue, batch).await {
                Ok(prepared) => break prepared,
                // All numbers of the queue are out with others.
                Err(error) if error.retryable() && Instant::now() < deadline => {
                    sleep(backoff.delay()).await;
                }
                Err(error) => return Err(error),
            }
        };
        let patience = deadline.saturating_duration_since(Instant::now());
        let enqueued = prepared.send_within(patience).await?;
        check_enqueued(enqueued, batch.len())
    }
}

impl Drop for Line {
    /// The runtime ends: what was not sent never will be.
    fn drop(&mut self) {
        if !self.is_over {
            self.shared.lines().remove(&self.queue);
        }
    }
}

/// Whether a batch was refused for what one of its jobs is.
fn is_about_a_job(error: &ClientError) -> bool {
    use ErrorCode::{BadChecksum, BadRequest, JobTooLarge, Unsupported};
    error
        .code()
        .is_some_and(|code| [BadChecksum, BadRequest, JobTooLarge, Unsupported].contains(&code))
}

type Part = (BatchBuilder, Vec<oneshot::Sender<Answer>>);

/// Cuts a batch in two.
fn halves(batch: &BatchBuilder, mut waiting: Vec<oneshot::Sender<Answer>>) -> (Part, Part) {
    let middle = batch.len() / 2;
    let (mut left, mut right) = (BatchBuilder::default(), BatchBuilder::default());
    for (ordinal, row) in batch.batch().jobs().enumerate() {
        let half = if ordinal < middle { &mut left } else { &mut right };
        // Each was taken before, with the same limits.
        let taken = Job::from_body(row.body).and_then(|job| half.push(&job));
        debug_assert!(taken.is_ok(), "{taken:?}");
    }
    let behind = waiting.split_off(middle.min(waiting.len()));
    ((left, waiting), (right, behind))
}

/// A job that was handed over to a [`Producer`]: a future with its offset; if another job holds
/// its unique key, with the offset of that one.
///
/// It ends with the [`ClientError`] that ended its batch, or with [`ClientError::OutcomeUnknown`]
/// if the runtime that sent it ended.
#[derive(Debug)]
#[must_use = "the job is sent without it, but whether that succeeded is told here"]
pub struct PendingJob {
    receiver: oneshot::Receiver<Answer>,
}

impl Future for PendingJob {
    type Output = Result<u64, ClientError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.receiver).poll(context).map(|answer| {
            answer.unwrap_or_else(|_| {
                let cause = "the runtime of its producer ended".to_owned();
                Err(ClientError::OutcomeUnknown { command: "ENQUEUE", cause })
            })
        })
    }
}
