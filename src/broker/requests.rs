//! What producers and workers ask: greeting, enqueueing, fetching, reading.

use std::sync::Arc;

use smallvec::SmallVec;

use super::turn::Turn;
use super::{
    Broker, BrokerError, Event, FetchTerms, FetchWait, Gated, Grants, JobBatch, LeaseRefs, Mailbox,
    SessionHandle, UniqueHit, Verdicts, WaiterId,
};
use crate::log::JobLocation;
use crate::queue::{EnqueuedBatch, Fact, Known, QueueSettings, SessionEnd};
use crate::types::{Grant, LogId, Offset, QueueId, SessionId};

/// A session that was greeted.
#[derive(Clone, Debug)]
pub struct Greeted {
    /// The session of this connection.
    pub handle: SessionHandle,
    /// Whether it was known.
    pub resumed: bool,
    /// Silence in milliseconds after which it is ended.
    pub silence_ms: u64,
    /// Leases that go on.
    pub leases_kept: usize,
    /// Leases that were released, because the client does not hold their tokens.
    pub leases_released: usize,
}

/// Jobs that were enqueued.
#[derive(Clone, Debug)]
pub struct Enqueued {
    /// The offset of the first that is new, or what it would have been.
    pub first: Offset,
    /// Whether the queue was made for them.
    pub created: bool,
    /// Those whose unique keys were held already.
    pub hits: Vec<UniqueHit>,
}

/// A FETCH.
#[derive(Debug)]
pub struct FetchRequest<'a> {
    /// The queues, in order.
    pub queues: &'a [&'a str],
    /// The group.
    pub group: &'a str,
    /// How much, and under which lease.
    pub terms: FetchTerms,
    /// Whether to wait.
    pub wait: Option<FetchWait<'a>>,
    /// What to commit before.
    pub commits: &'a [LeaseRefs<'a>],
}

/// What a FETCH got.
#[derive(Debug)]
pub struct Fetched {
    /// What became of its commits, in order.
    pub commits: Verdicts,
    /// Its jobs, or that it waits.
    pub jobs: FetchedJobs,
}

/// The jobs of a FETCH.
#[derive(Debug)]
pub enum FetchedJobs {
    /// At once; none if it does not wait.
    Now(Grants),
    /// They come as an [`Event`]. It waits in these logs.
    Waiting(SmallVec<[(LogId, WaiterId); 1]>),
}

/// What a READ got.
#[derive(Debug)]
pub struct ReadJobs {
    /// Where to read on.
    pub next: Offset,
    /// The offset that the queue's next job will have.
    pub end: Offset,
    /// The jobs.
    pub jobs: Vec<(Offset, JobLocation)>,
}

/// Requests of producers and workers.
impl Broker {
    /// Greets a session: detaches its old connection, and releases what the client does not hold.
    pub fn hello(
        &self,
        session: SessionId,
        silence_ms: Option<u64>,
        held: &[Grant],
        mailbox: &Arc<Mailbox>,
    ) -> Gated<Greeted> {
        self.turn(|turn| {
            let machine = &mut turn.core.machine;
            let leases = machine.session_lease_count(session);
            let released = machine.resume_session(session, held);
            let resumed = leases > 0 || turn.core.sessions.knows(session);
            let silence_ms = silence_ms.unwrap_or(self.options.silence_ms);
            let now_ms = turn.lease_now_ms;
            let mailbox = Some(Arc::clone(mailbox));
            let (handle, before) = turn.core.sessions.connect(session, silence_ms, mailbox, now_ms);
            if let Some(before) = before {
                turn.core.waiters.remove_all(&before);
                turn.core.ends.remove_all(&before);
                before.send(Event::Replaced);
            }
            released.iter().for_each(|fact| turn.record(fact));
            Ok(Greeted {
                handle,
                resumed,
                silence_ms,
                leases_kept: leases - released.len(),
                leases_released: released.len(),
            })
        })
    }

    /// Ends a session at once, with all its leases.
    pub fn goodbye(&self, caller: &SessionHandle) -> Gated<()> {
        self.turn(|turn| {
            turn.check_current(caller)?;
            turn.end_session(caller.session, SessionEnd::Goodbye);
            Ok(())
        })
    }

    /// Notes that something came from a client: its session is not silent.
    pub fn heard(&self, caller: &SessionHandle) {
        caller.heard(self.lease_clock.now_ms());
    }

    /// Appends jobs to a queue; `create` says whether the client wants a missing one made.
    pub fn enqueue(&self, queue: &str, create: bool, batch: JobBatch<'_>) -> Gated<Enqueued> {
        let create = create && self.options.auto_create;
        self.turn_with(self.bytes_of(&batch), |turn| turn.enqueue(queue, create, batch, None))
    }

    /// The room that a batch takes in the log; none if it is to be refused for want of room, so
    /// that nothing is made for it.
    pub(super) fn bytes_of(&self, batch: &JobBatch<'_>) -> usize {
        match self.log.accepts_jobs() {
            Ok(()) => batch.jobs.table.len() + batch.jobs.bodies.len(),
            Err(_) => 0,
        }
    }

    /// Takes ready jobs under a lease, or waits for some. Commits are done first; a request that
    /// is refused has done none of them.
    pub fn fetch(&self, caller: &SessionHandle, request: &FetchRequest<'_>) -> Gated<Fetched> {
        self.turn(|turn| {
            turn.check_current(caller)?;
            let FetchRequest { queues, group, terms, .. } = *request;
            let mut places = turn.places(queues, group)?;
            let commits = turn.commit_sets(request.commits)?;
            turn.make_default(&mut places)?;
            if !request.commits.is_empty() {
                // A place that they have freed is for those who wait already.
                turn.serve_waiters();
            }
            let jobs = match &request.wait {
                Some(wait) if !turn.is_ready(&places) => {
                    let waiter = turn.wait(queues, group, terms, wait);
                    FetchedJobs::Waiting(SmallVec::from_iter([(self.options.log, waiter)]))
                }
                // Another log was faster, and answers.
                Some(wait) if !wait.ticket.claim() => FetchedJobs::Now(Grants::none()),
                _ => FetchedJobs::Now(turn.take(&places, &terms)),
            };
            Ok(Fetched { commits, jobs })
        })
    }

    /// Finds jobs from an offset on, without a lease.
    pub fn read(
        &self,
        queue: &str,
        from: Offset,
        jobs_max: usize,
        bytes_max: u64,
        unconsumed_by: Option<&str>,
    ) -> Gated<ReadJobs> {
        self.view(|turn| {
            let id = turn.queue(queue)?;
            let group = unconsumed_by.map(|group| turn.group(queue, group)).transpose()?;
            let machine = &turn.core.machine;
            let next_of = |from| match group {
                None => machine.next_live(id, from),
                Some(group) => machine.next_unconsumed(group, from),
            };
            let end = machine.next_offset(id).unwrap_or_default();
            let mut read = ReadJobs { next: from, end, jobs: Vec::new() };
            let mut bytes = 0;
            while read.jobs.len() < jobs_max
                && let Some(offset) = next_of(read.next)
            {
                let Some(job) = self.log.find(id, offset) else { break };
                bytes += u64::from(job.bytes);
                if bytes > bytes_max && !read.jobs.is_empty() {
                    break;
                }
                read.jobs.push((offset, job.location));
                read.next = offset.next();
            }
            if next_of(read.next).is_none() {
                read.next = read.next.max(end);
            }
            Ok(read)
        })
    }
}

impl Turn<'_> {
    /// Appends jobs to a queue, which is made if it is missing and `create` says so. A fact that
    /// was validated stands in the entry of the jobs; if they are refused, it is not recorded.
    pub(super) fn enqueue(
        &mut self,
        queue: &str,
        create: bool,
        batch: JobBatch<'_>,
        with: Option<&Fact>,
    ) -> Result<Enqueued, BrokerError> {
        let (id, created) = match self.queue(queue) {
            Ok(id) => (id, false),
            Err(_) if create => {
                tracing::info!(queue, "created by its first jobs");
                (self.create_queue(queue, QueueSettings::default())?, true)
            }
            Err(error) => return Err(error),
        };
        if let Some(enqueued) = self.known(id, &batch)? {
            // It is in the log already, so this turn's gate covers it.
            with.into_iter().for_each(|fact| self.record(fact));
            return Ok(enqueued);
        }
        self.check_ranks(id, queue, &batch)?;
        let first = self.core.machine.next_offset(id).unwrap_or_default();
        if batch.asked.iter().any(|(_, asked)| asked.unique.is_some()) {
            let hits = self.append_unique(id, queue, first, batch, with)?;
            return Ok(Enqueued { first, created, hits });
        }
        self.check_room(id, queue, &batch, with)?;
        self.append_jobs(id, first, batch, with, &[])?;
        Ok(Enqueued { first, created, hits: Vec::new() })
    }

    /// Where the jobs of a numbered batch are, if it was enqueued before.
    ///
    /// # Errors
    /// `SequenceTaken`, `SequenceTooOld`.
    pub(super) fn known(
        &self,
        queue: QueueId,
        batch: &JobBatch<'_>,
    ) -> Result<Option<Enqueued>, BrokerError> {
        let (machine, sequence) = (&self.core.machine, batch.sequence);
        let Some(number) = batch.number() else { return Ok(None) };
        match machine.known(queue, number) {
            Known::New => Ok(None),
            Known::Enqueued(EnqueuedBatch { first, .. }) => {
                let hits = machine.hits_of(queue, number).to_vec();
                Ok(Some(Enqueued { first, created: false, hits }))
            }
            Known::Another => Err(BrokerError::SequenceTaken { sequence }),
            Known::TooOld { least } => Err(BrokerError::SequenceTooOld { sequence, least }),
        }
    }

    /// Whether the caller's connection is still its session's.
    pub(super) fn check_current(&self, caller: &SessionHandle) -> Result<(), BrokerError> {
        if self.core.sessions.is_current(caller) {
            return Ok(());
        }
        Err(BrokerError::SessionReplaced)
    }

    /// Ends a session with all its leases. Its connection is closed unless it said goodbye.
    pub(super) fn end_session(&mut self, session: SessionId, end: SessionEnd) {
        let seed = self.core.next_seed();
        let ended = self.core.machine.end_session(session, end, self.stamp.log_ms, seed);
        ended.iter().for_each(|fact| self.record(fact));
        if let Some(Some(mailbox)) = self.core.sessions.remove(session) {
            self.core.waiters.remove_all(&mailbox);
            self.core.ends.remove_all(&mailbox);
            if end == SessionEnd::Silent {
                mailbox.send(Event::Silent);
            }
        }
    }
}
