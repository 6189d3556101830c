//! What producers and workers ask: greeting, enqueueing, fetching, settling, reading.

use std::sync::Arc;

use smallvec::SmallVec;

use super::turn::Turn;
use super::{
    Broker, BrokerError, Event, Failed, FetchTerms, Gated, Grants, Held, JobBatch, Mailbox,
    SessionHandle, UniqueHit, Verdicts, Wait, WaiterId, open,
};
use crate::log::JobLocation;
use crate::queue::{EnqueuedBatch, Fact, JobRefusal, Known, QueueSettings, Retry, SessionEnd};
use crate::types::{Grant, GroupId, LogId, Offset, SessionId};

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

/// Leased jobs of one group, by name.
#[derive(Clone, Debug)]
pub struct HeldSet<'a> {
    /// The queue.
    pub queue: &'a str,
    /// The group.
    pub group: &'a str,
    /// The jobs.
    pub jobs: SmallVec<[Held; 2]>,
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
    pub wait: Option<Wait<'a>>,
    /// What to commit before.
    pub commits: &'a [HeldSet<'a>],
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
        self.turn(|turn| turn.enqueue(queue, create, batch, None))
    }

    /// Takes ready jobs under a lease, or waits for some. Commits are done first; a request that
    /// is refused has done none of them.
    pub fn fetch(&self, caller: &SessionHandle, request: &FetchRequest<'_>) -> Gated<Fetched> {
        self.turn(|turn| {
            turn.check_current(caller)?;
            let FetchRequest { queues, group, terms, .. } = *request;
            let mut places = turn.places(queues, group)?;
            let commits = turn.commit_sets(request.commits)?;
            turn.bear(&mut places)?;
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

    /// Consumes jobs. A request that is refused as a whole has consumed none.
    pub fn commit(&self, sets: &[HeldSet<'_>]) -> Gated<Verdicts> {
        self.turn(|turn| turn.commit_sets(sets))
    }

    /// Consumes all jobs of a stream group through an offset. `AlreadyConsumed` is a verdict, other
    /// refusals are errors.
    pub fn commit_through(
        &self,
        queue: &str,
        group: &str,
        through: Offset,
    ) -> Gated<Result<(), JobRefusal>> {
        self.turn(|turn| {
            let id = turn.group(queue, group)?;
            let what = || format!("offset {through} of queue {queue:?}, group {group:?}");
            match turn.core.machine.commit_through(id, through) {
                Ok(fact) => {
                    turn.record(&fact);
                    Ok(Ok(()))
                }
                Err(refusal @ JobRefusal::AlreadyConsumed) => Ok(Err(refusal)),
                Err(refusal) => Err(BrokerError::Job { what: what(), refusal }),
            }
        })
    }

    /// Hands jobs back without fault, ready after `delay_ms`.
    pub fn release(&self, set: &HeldSet<'_>, delay_ms: u64) -> Gated<Verdicts> {
        self.turn(|turn| {
            let group = turn.work_group(set.queue, set.group)?;
            Ok(turn.release(group, set.jobs.iter().copied(), delay_ms))
        })
    }

    /// Hands jobs back with a reason.
    pub fn fail(
        &self,
        set: &HeldSet<'_>,
        retry: Retry,
        reason: &str,
    ) -> Gated<SmallVec<[Result<Failed, JobRefusal>; 2]>> {
        self.turn(|turn| {
            let group = turn.work_group(set.queue, set.group)?;
            Ok(turn.fail(group, set.jobs.iter().copied(), retry, reason))
        })
    }

    /// Renews leases for `lease_ms` from now, and notes what their worker says of its progress.
    pub fn extend(
        &self,
        set: &HeldSet<'_>,
        lease_ms: u64,
        progress: Option<&str>,
    ) -> Gated<Verdicts> {
        self.turn(|turn| {
            let group = turn.work_group(set.queue, set.group)?;
            Ok(turn.extend(group, set.jobs.iter().copied(), lease_ms, progress))
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
        let sequence = batch.sequence;
        let batch_number = open::numbered(batch.producer, sequence, batch.table);
        let known = |number| self.core.machine.known(id, number);
        match batch_number.map_or(Known::New, known) {
            Known::New => {}
            // It is in the log already, so this turn's gate covers it.
            Known::Enqueued(EnqueuedBatch { first, .. }) => {
                with.into_iter().for_each(|fact| self.record(fact));
                let machine = &self.core.machine;
                let hits = batch_number.map_or(&[][..], |number| machine.hits_of(id, number));
                return Ok(Enqueued { first, created: false, hits: hits.to_vec() });
            }
            Known::Another => return Err(BrokerError::SequenceTaken { sequence }),
            Known::TooOld { least } => {
                return Err(BrokerError::SequenceTooOld { sequence, least });
            }
        }
        self.check_ranks(id, queue, &batch)?;
        let first = self.core.machine.next_offset(id).unwrap_or_default();
        if !batch.keys.is_empty() {
            let hits = self.append_unique(id, queue, first, batch, with)?;
            return Ok(Enqueued { first, created, hits });
        }
        self.check_room(id, queue, &batch)?;
        self.append_jobs(id, first, batch, with, &[])?;
        Ok(Enqueued { first, created, hits: Vec::new() })
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

    pub(super) fn work_groups(
        &self,
        sets: &[HeldSet<'_>],
    ) -> Result<SmallVec<[GroupId; 2]>, BrokerError> {
        sets.iter().map(|set| self.work_group(set.queue, set.group)).collect()
    }

    /// Consumes jobs of several groups; checks that all groups are there before it begins.
    pub(super) fn commit_sets(&mut self, sets: &[HeldSet<'_>]) -> Result<Verdicts, BrokerError> {
        let groups = self.work_groups(sets)?;
        let mut verdicts = Verdicts::new();
        for (set, group) in sets.iter().zip(groups) {
            self.commit(group, set.jobs.iter().copied(), &mut verdicts);
        }
        Ok(verdicts)
    }
}
