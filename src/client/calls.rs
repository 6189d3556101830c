//! The commands of the protocol as calls.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use joblog_protocol::error_code::ErrorCode;
use joblog_protocol::job::{BatchBuilder, Job};
use joblog_protocol::limits::{
    FETCH_QUEUES_MAX, FETCH_WAIT_MS_MAX, FRAME_HEADER_BYTES, HANDLES_MAX,
};
use joblog_protocol::messages::admin::{
    self, CreateGroup, CreateQueue, GroupDescription, GroupKind, GroupName, GroupSeek, GroupSought,
    GroupStart, ListQueues, QueueDescription, QueueList, QueueName, QueueSettings, SeekGroup,
    UpdateQueue,
};
use joblog_protocol::messages::bulk::{
    BulkDone, Cancel, CancelOutcome, CancelReply, DeadList, DeadQuery, Pause, Promote,
    PromoteOutcome, PromoteReply, Purge, PurgeReply,
};
use joblog_protocol::messages::enqueue::EnqueueReply;
use joblog_protocol::messages::fetch::{Fetch, LeaseKind, Read, ReadReply};
use joblog_protocol::messages::lease::{
    Commit, Extend, Fail, FailOutcome, Release, decode_fail_reply,
};
use joblog_protocol::messages::stats::Stats;
use joblog_protocol::opcode::Opcode;
use joblog_protocol::wire::DecodeError;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::oneshot;

use super::error::ClientError;
use super::face::Client;
use super::grant::FetchNames;
use super::in_flight::{Changes, Fetching, Reply, Request};
use super::request::{
    CarriedCommits, PendingEnqueue, PendingFetch, WaitingReply, check_count, check_group,
    check_handles, check_job, check_queue, commit_statuses, handle_set, runs, statuses, tokens,
};
use super::types::{
    CommitStatus, DamagedJob, FailStatus, Failure, FetchRequest, Fetched, JobHandle, Lease,
    ReadJobs, ReleaseStatus, StoredJob,
};

/// The next one has a meaning of its own in FAIL.
const MILLIS_MAX: u64 = u64::MAX - 1;
/// Longer waits would be cut by the server.
const WAIT_LONGEST: Duration = Duration::from_millis(FETCH_WAIT_MS_MAX as u64);

/// Every call fails with a [`ClientError`]; what is said under *Errors* is what is special.
impl Client {
    /// Asks the server for an answer. Returns how long that took.
    pub async fn ping(&self) -> Result<Duration, ClientError> {
        let start = Instant::now();
        // The body tells it from a heartbeat, for whoever looks at the packets.
        let request = Request::new(Opcode::Ping, self.next_correlation(), |out| {
            out.extend_from_slice(b"ping");
        });
        self.call(request).await?;
        Ok(start.elapsed())
    }

    /// Creates a queue. Settings that are `None` get their defaults.
    ///
    /// # Errors
    /// [`ClientError`]; it is not sent again after a cut.
    pub async fn create_queue(
        &self,
        queue: &str,
        settings: QueueSettings,
    ) -> Result<(), ClientError> {
        let body = CreateQueue { queue: queue_name(queue)?.queue, settings };
        self.tell(Opcode::CreateQueue, &body).await
    }

    /// Changes settings of a queue: those that are not `None`, and those named in `reset`, which
    /// get their defaults. Returns all settings as they are in force then.
    ///
    /// # Errors
    /// [`ClientError`]; after any of them it is safe to ask again.
    pub async fn update_queue(
        &self,
        queue: &str,
        settings: QueueSettings,
        reset: &[&str],
    ) -> Result<QueueSettings, ClientError> {
        let reset = reset.iter().map(|name| (*name).to_owned()).collect();
        let body = UpdateQueue { queue: queue_name(queue)?.queue, settings, reset };
        self.ask(Opcode::UpdateQueue, &body).await
    }

    /// Deletes a queue with its groups and jobs.
    ///
    /// # Errors
    /// [`ClientError`]; it is not sent again after a cut.
    pub async fn delete_queue(&self, queue: &str) -> Result<(), ClientError> {
        self.tell(Opcode::DeleteQueue, &queue_name(queue)?).await
    }

    /// Lists queues by name: at most `limit` of those behind `after`, which is empty at first.
    pub async fn list_queues(&self, after: &str, limit: u32) -> Result<QueueList, ClientError> {
        self.ask(Opcode::ListQueues, &ListQueues { after: after.to_owned(), limit }).await
    }

    /// The numbers of queues and their groups, by name: at most `limit` of the queues behind
    /// `after`, which is empty at first. Cheaper than descriptions, for those who ask often.
    pub async fn stats(&self, after: &str, limit: u32) -> Result<Stats, ClientError> {
        self.ask(Opcode::Stats, &ListQueues { after: after.to_owned(), limit }).await
    }

    /// Describes a queue with its groups.
    pub async fn describe_queue(&self, queue: &str) -> Result<QueueDescription, ClientError> {
        self.ask(Opcode::DescribeQueue, &queue_name(queue)?).await
    }

    /// Creates a group on a queue.
    ///
    /// # Errors
    /// [`ClientError`]; it is not sent again after a cut.
    pub async fn create_group(
        &self,
        queue: &str,
        group: &str,
        kind: GroupKind,
        start: GroupStart,
    ) -> Result<(), ClientError> {
        let GroupName { queue, group } = group_name(queue, group)?;
        let body = CreateGroup { queue, group, kind, start };
        self.tell(Opcode::CreateGroup, &body).await
    }

    /// Deletes a group.
    ///
    /// # Errors
    /// [`ClientError`]; it is not sent again after a cut.
    pub async fn delete_group(&self, queue: &str, group: &str) -> Result<(), ClientError> {
        self.tell(Opcode::DeleteGroup, &group_name(queue, group)?).await
    }

    /// Sets a group to another place.
    ///
    /// # Errors
    /// [`ClientError`]; it is not sent again after a cut.
    pub async fn seek_group(
        &self,
        queue: &str,
        group: &str,
        to: GroupSeek,
    ) -> Result<GroupSought, ClientError> {
        let GroupName { queue, group } = group_name(queue, group)?;
        self.ask(Opcode::SeekGroup, &SeekGroup { queue, group, to }).await
    }

    /// Lists the groups of a queue.
    pub async fn list_groups(&self, queue: &str) -> Result<Vec<GroupDescription>, ClientError> {
        self.ask(Opcode::ListGroups, &queue_name(queue)?).await
    }

    /// Describes one group.
    pub async fn describe_group(
        &self,
        queue: &str,
        group: &str,
    ) -> Result<GroupDescription, ClientError> {
        self.ask(Opcode::DescribeGroup, &group_name(queue, group)?).await
    }

    /// Lists dead jobs: those that the query means, at most its limit of them. The list goes on at
    /// `next` while there is `more`.
    pub async fn dead_list(&self, query: &DeadQuery) -> Result<DeadList, ClientError> {
        self.ask(Opcode::DeadList, query).await
    }

    /// Makes dead jobs ready again, with no failures and crashes: those that the query means, at
    /// most its limit of them. There may be more from `next` on.
    ///
    /// # Errors
    /// [`ClientError`]; after any of them it is safe to ask again.
    pub async fn dead_retry(&self, query: &DeadQuery) -> Result<BulkDone, ClientError> {
        self.ask(Opcode::DeadRetry, query).await
    }

    /// Gives dead jobs up: those that the query means, at most its limit of them. There may be
    /// more from `next` on.
    ///
    /// # Errors
    /// [`ClientError`]; after any of them it is safe to ask again.
    pub async fn dead_drop(&self, query: &DeadQuery) -> Result<BulkDone, ClientError> {
        self.ask(Opcode::DeadDrop, query).await
    }

    /// Cancels jobs for all groups of their queue. Returns what became of each, in their order.
    ///
    /// # Errors
    /// [`ClientError`]; after any of them it is safe to ask again.
    pub async fn cancel(
        &self,
        queue: &str,
        jobs: &[u64],
    ) -> Result<Vec<CancelOutcome>, ClientError> {
        let body = Cancel { queue: queue_name(queue)?.queue, jobs: jobs.to_vec() };
        let reply: CancelReply = self.ask(Opcode::Cancel, &body).await?;
        check_count(Opcode::Cancel, reply.jobs.len(), jobs.len())?;
        Ok(reply.jobs)
    }

    /// Makes jobs ready now that are delayed, for all groups of their queue. Returns what became of
    /// each, in their order.
    ///
    /// # Errors
    /// [`ClientError`]; after any of them it is safe to ask again.
    pub async fn promote(
        &self,
        queue: &str,
        jobs: &[u64],
    ) -> Result<Vec<PromoteOutcome>, ClientError> {
        let body = Promote { queue: queue_name(queue)?.queue, jobs: jobs.to_vec() };
        let reply: PromoteReply = self.ask(Opcode::Promote, &body).await?;
        check_count(Opcode::Promote, reply.jobs.len(), jobs.len())?;
        Ok(reply.jobs)
    }

    /// Pauses a queue, or one group of it: nothing is fetched until it is resumed.
    ///
    /// # Errors
    /// [`ClientError`]; after any of them it is safe to ask again.
    pub async fn pause(&self, queue: &str, group: Option<&str>) -> Result<(), ClientError> {
        self.pause_or_resume(Opcode::Pause, queue, group).await
    }

    /// Ends a pause.
    ///
    /// # Errors
    /// [`ClientError`]; after any of them it is safe to ask again.
    pub async fn resume(&self, queue: &str, group: Option<&str>) -> Result<(), ClientError> {
        self.pause_or_resume(Opcode::Resume, queue, group).await
    }

    async fn pause_or_resume(
        &self,
        opcode: Opcode,
        queue: &str,
        group: Option<&str>,
    ) -> Result<(), ClientError> {
        let body = Pause { queue: queue_name(queue)?.queue, group: group.map(str::to_owned) };
        self.tell(opcode, &body).await
    }

    /// Gives up a part of the jobs of a queue that are not out with a worker: from `from` on, below
    /// `end`. The purge goes on from `next` to `end` of the reply, until both are the same.
    ///
    /// # Errors
    /// [`ClientError`]; after any of them it is safe to ask again.
    pub async fn purge(
        &self,
        queue: &str,
        from: u64,
        end: Option<u64>,
    ) -> Result<PurgeReply, ClientError> {
        let body = Purge { queue: queue_name(queue)?.queue, from, end };
        self.ask(Opcode::Purge, &body).await
    }

    /// Takes no more jobs: FETCHes that wait, and all later ones, are answered without any.
    pub async fn drain(&self) -> Result<(), ClientError> {
        self.call(Request::new(Opcode::Drain, self.next_correlation(), |_| {})).await.map(drop)
    }

    /// Enqueues one job. If another job of the queue holds its unique key, the reply's
    /// [`hits`](EnqueueReply::hits) say which, and nothing is enqueued.
    ///
    /// # Errors
    /// [`ClientError`]. After a cut it is sent again, and enqueued once whatever became of the
    /// first one. [`ClientError::OutcomeUnknown`] is left for a server that does not come back in
    /// time: the job may be in the queue, and another call may put it there twice.
    pub async fn enqueue(&self, queue: &str, job: &Job) -> Result<EnqueueReply, ClientError> {
        let mut batch = BatchBuilder::default();
        batch.push(job)?;
        self.enqueue_batch(queue, &batch).await
    }

    /// Enqueues a batch: all of its jobs, or none, but for those whose unique keys are held. The
    /// offsets of the new ones follow each other; [`EnqueueReply::outcomes`] has that of each job.
    ///
    /// # Errors
    /// As [`Client::enqueue`].
    pub async fn enqueue_batch(
        &self,
        queue: &str,
        batch: &BatchBuilder,
    ) -> Result<EnqueueReply, ClientError> {
        self.enqueue_later(queue, batch).await?.enqueued().await
    }

    /// Hands a batch over without waiting for the answer, so that several can be under way: up to
    /// 64 for one queue.
    ///
    /// # Errors
    /// [`ClientError`], if the request could not be handed over.
    pub async fn enqueue_later(
        &self,
        queue: &str,
        batch: &BatchBuilder,
    ) -> Result<PendingEnqueue, ClientError> {
        self.prepare(queue, batch).await?.submit().await
    }

    /// Takes ready jobs under a lease. If the returned future is dropped before it is done, what
    /// it would have brought is handed back.
    pub async fn fetch(&self, fetch: &FetchRequest) -> Result<Fetched, ClientError> {
        let (waiting, names, _) = self.submit_fetch(fetch, &[]).await?;
        PendingFetch { waiting, names }.fetched().await
    }

    /// A FETCH that carries commits, which are done before it: one round trip for both. The two
    /// results come separately, since the FETCH may go on waiting for long.
    ///
    /// # Errors
    /// [`ClientError`], if the request could not be handed over.
    pub async fn fetch_carrying(
        &self,
        fetch: &FetchRequest,
        commits: &[JobHandle],
    ) -> Result<(CarriedCommits, PendingFetch), ClientError> {
        let (waiting, names, receiver) = self.submit_fetch(fetch, commits).await?;
        let carried = CarriedCommits {
            client: self.clone(),
            receiver,
            count: commits.len(),
            deadline: waiting.deadline - fetch.wait.min(WAIT_LONGEST),
            timeout: self.options().request_timeout,
        };
        Ok((carried, PendingFetch { waiting, names }))
    }

    async fn submit_fetch(
        &self,
        fetch: &FetchRequest,
        commits: &[JobHandle],
    ) -> Result<(WaitingReply, Arc<FetchNames>, CarriedReceiver), ClientError> {
        let (carried, receiver) = oneshot::channel();
        let wait = fetch.wait.min(WAIT_LONGEST);
        let mut request = self.fetch_request(fetch, commits)?;
        let names =
            Arc::new(FetchNames { queues: fetch.queues.clone(), group: Arc::clone(&fetch.group) });
        request.fetching = Some(Fetching {
            names: Arc::clone(&names),
            jobs_max: fetch.jobs_max as usize,
            wait_end: Instant::now() + wait,
            carried: Some(carried),
        });
        let timeout = self.options().request_timeout + wait;
        Ok((self.submit(request, timeout).await?, names, receiver))
    }

    fn fetch_request(
        &self,
        fetch: &FetchRequest,
        commits: &[JobHandle],
    ) -> Result<Request, ClientError> {
        check_group(&fetch.group)?;
        fetch.queues.iter().try_for_each(|queue| check_queue(queue))?;
        check_range("queue count", fetch.queues.len(), FETCH_QUEUES_MAX, "1 to 255")?;
        check_handles(commits)?;
        let body = Fetch {
            queues: fetch.queues.iter().map(|queue| &**queue).collect(),
            group: &fetch.group,
            jobs_max: fetch.jobs_max,
            bytes_max: fetch.bytes_max,
            wait_ms: u32::try_from(fetch.wait.as_millis()).unwrap_or(u32::MAX),
            lease: lease_kind(fetch.lease),
            by_turns: fetch.by_turns,
            commits: runs(commits).map(handle_set).collect(),
        };
        let check = |body: &[u8]| Fetch::decode(body).map(drop);
        let request = self.checked(Opcode::Fetch, |out| body.encode(out), check)?;
        Ok(Request { tokens: tokens(commits), ..request })
    }

    /// Consumes jobs. Returns a status for each, in their order.
    ///
    /// # Errors
    /// [`ClientError`]; after any of them it is safe to commit the jobs again.
    pub async fn commit(&self, jobs: &[JobHandle]) -> Result<Vec<CommitStatus>, ClientError> {
        if jobs.is_empty() {
            return Ok(Vec::new());
        }
        check_handles(jobs)?;
        let body = Commit::Jobs(runs(jobs).map(handle_set).collect());
        let reply = self.call(self.commit_request(&body, jobs)?).await?;
        commit_statuses(Opcode::Commit, &reply.body, jobs.len())
    }

    /// Consumes a stream group's jobs up to and with `offset`.
    ///
    /// # Errors
    /// [`ClientError`]; after any of them it is safe to commit again.
    pub async fn commit_through(
        &self,
        queue: &str,
        group: &str,
        offset: u64,
    ) -> Result<CommitStatus, ClientError> {
        check_queue(queue)?;
        check_group(group)?;
        let body = Commit::Through { queue, group, offset };
        let reply = self.call(self.commit_request(&body, &[])?).await?;
        let statuses = commit_statuses(Opcode::Commit, &reply.body, 1)?;
        Ok(statuses.first().copied().unwrap_or(CommitStatus::Consumed))
    }

    pub(super) fn commit_request(
        &self,
        body: &Commit<'_>,
        jobs: &[JobHandle],
    ) -> Result<Request, ClientError> {
        let check = |body: &[u8]| Commit::decode(body).map(drop);
        let request = self.checked(Opcode::Commit, |out| body.encode(out), check)?;
        Ok(Request { tokens: tokens(jobs), changes: Changes::Ended, ..request })
    }

    /// Hands jobs back without fault, ready again after `delay`. Returns a status for each.
    ///
    /// # Errors
    /// [`ClientError`]; if jobs of several queues or groups are named, some may be released.
    pub async fn release(
        &self,
        jobs: &[JobHandle],
        delay: Duration,
    ) -> Result<Vec<ReleaseStatus>, ClientError> {
        let delay_ms = millis(delay);
        let encode = |run: &[JobHandle], out: &mut BytesMut| {
            Release { jobs: handle_set(run), delay_ms }.encode(out);
        };
        let check = |body: &[u8]| Release::decode(body).map(drop);
        let mut results = Vec::with_capacity(jobs.len());
        let replies = self.settle(Opcode::Release, jobs, Changes::Ended, encode, check);
        for (reply, count) in replies.await? {
            let statuses = statuses(Opcode::Release, &reply.body, count)?;
            results.extend(statuses.into_iter().map(|status| match status {
                None => ReleaseStatus::Released,
                Some(ErrorCode::LeaseLost) if reply.repeated => ReleaseStatus::Unknown,
                Some(code) => ReleaseStatus::Refused(code),
            }));
        }
        Ok(results)
    }

    /// Hands jobs back with a reason; the retry policy decides what follows. Returns a status for
    /// each.
    ///
    /// # Errors
    /// [`ClientError`]; if jobs of several queues or groups are named, some may be failed.
    pub async fn fail(
        &self,
        jobs: &[JobHandle],
        failure: &Failure,
    ) -> Result<Vec<FailStatus>, ClientError> {
        let encode = |run: &[JobHandle], out: &mut BytesMut| {
            let fail = Fail {
                jobs: handle_set(run),
                failures_max: failure.failures_max,
                delay_ms: failure.delay.map(millis),
                reason: &failure.reason,
            };
            fail.encode(out);
        };
        let check = |body: &[u8]| Fail::decode(body).map(drop);
        let mut results = Vec::with_capacity(jobs.len());
        let replies = self.settle(Opcode::Fail, jobs, Changes::Failed, encode, check);
        for (reply, count) in replies.await? {
            let outcomes = reply.read(decode_fail_reply)?;
            check_count(Opcode::Fail, outcomes.len(), count)?;
            results.extend(outcomes.into_iter().map(|outcome| match outcome {
                FailOutcome::Retry { in_ms } => {
                    FailStatus::Retry { after: Duration::from_millis(in_ms) }
                }
                FailOutcome::Dead => FailStatus::Dead,
                FailOutcome::Refused(ErrorCode::LeaseLost) if reply.repeated => FailStatus::Unknown,
                FailOutcome::Refused(code) => FailStatus::Refused(code),
            }));
        }
        Ok(results)
    }

    /// Renews leases: for `lease` from now, or for a session lease, up to this run time from now.
    /// Returns a status for each job.
    pub async fn extend(
        &self,
        jobs: &[JobHandle],
        lease: Duration,
    ) -> Result<Vec<Result<(), ErrorCode>>, ClientError> {
        self.extend_noting(jobs, lease, None).await
    }

    pub(super) async fn extend_noting(
        &self,
        jobs: &[JobHandle],
        lease: Duration,
        progress: Option<&str>,
    ) -> Result<Vec<Result<(), ErrorCode>>, ClientError> {
        let lease_ms = millis(lease);
        let encode = |run: &[JobHandle], out: &mut BytesMut| {
            Extend { jobs: handle_set(run), lease_ms, progress }.encode(out);
        };
        let check = |body: &[u8]| Extend::decode(body).map(drop);
        let mut results = Vec::with_capacity(jobs.len());
        let replies = self.settle(Opcode::Extend, jobs, Changes::Extended(lease), encode, check);
        for (reply, count) in replies.await? {
            let statuses = statuses(Opcode::Extend, &reply.body, count)?;
            results.extend(statuses.into_iter().map(|status| status.map_or(Ok(()), Err)));
        }
        Ok(results)
    }

    /// One request for each run of jobs of one queue and group, all sent before the first answer
    /// is awaited. Returns the replies with their numbers of jobs.
    async fn settle(
        &self,
        opcode: Opcode,
        jobs: &[JobHandle],
        changes: Changes,
        encode: impl Fn(&[JobHandle], &mut BytesMut),
        check: impl Fn(&[u8]) -> Result<(), DecodeError>,
    ) -> Result<Vec<(Reply, usize)>, ClientError> {
        check_handles(jobs)?;
        let mut waits = Vec::new();
        for run in runs(jobs).flat_map(|run| run.chunks(HANDLES_MAX)) {
            let request = self.checked(opcode, |out| encode(run, out), &check)?;
            let request = Request { tokens: tokens(run), changes, ..request };
            let timeout = self.options().request_timeout;
            waits.push((self.submit(request, timeout).await?, run.len()));
        }
        let mut replies = Vec::with_capacity(waits.len());
        for (waiting, count) in waits {
            replies.push((waiting.reply().await?, count));
        }
        Ok(replies)
    }

    /// Reads jobs from an offset on, without a lease: at most `jobs_max` of them, in at most
    /// `bytes_max` bytes but for a first job that is larger.
    pub async fn read(
        &self,
        queue: &str,
        from: u64,
        jobs_max: u32,
        bytes_max: u32,
    ) -> Result<ReadJobs, ClientError> {
        let unconsumed_by = None;
        self.read_jobs(Read { queue, from, jobs_max, bytes_max, unconsumed_by }).await
    }

    /// Reads jobs as [`Client::read`] does, but only those that a group has still to consume.
    pub async fn read_unconsumed(
        &self,
        queue: &str,
        group: &str,
        from: u64,
        jobs_max: u32,
        bytes_max: u32,
    ) -> Result<ReadJobs, ClientError> {
        check_queue(group)?;
        let unconsumed_by = Some(group);
        self.read_jobs(Read { queue, from, jobs_max, bytes_max, unconsumed_by }).await
    }

    async fn read_jobs(&self, body: Read<'_>) -> Result<ReadJobs, ClientError> {
        check_queue(body.queue)?;
        let check = |body: &[u8]| Read::decode(body).map(drop);
        let request = self.checked(Opcode::Read, |out| body.encode(out), check)?;
        let reply = self.call(request).await?;
        Ok(read_jobs(&Arc::from(body.queue), &reply.read(ReadReply::decode)?))
    }

    /// A request whose body `check`, the server's decoder, does not refuse.
    pub(super) fn checked(
        &self,
        opcode: Opcode,
        encode: impl FnOnce(&mut BytesMut),
        check: impl FnOnce(&[u8]) -> Result<(), DecodeError>,
    ) -> Result<Request, DecodeError> {
        let request = Request::new(opcode, self.next_correlation(), encode);
        check(request.frame.get(FRAME_HEADER_BYTES..).unwrap_or_default())?;
        Ok(request)
    }

    fn json<T: Serialize>(&self, opcode: Opcode, body: &T) -> Request {
        Request::new(opcode, self.next_correlation(), |out| {
            admin::encode(out, body);
        })
    }

    /// Asks for what has no answer but that it is done.
    pub(super) async fn tell<T: Serialize>(
        &self,
        opcode: Opcode,
        body: &T,
    ) -> Result<(), ClientError> {
        self.call(self.json(opcode, body)).await.map(drop)
    }

    pub(super) async fn ask<T: Serialize, R: DeserializeOwned>(
        &self,
        opcode: Opcode,
        body: &T,
    ) -> Result<R, ClientError> {
        self.call(self.json(opcode, body)).await?.read(admin::decode)
    }
}

type CarriedReceiver = oneshot::Receiver<Result<bytes::Bytes, ClientError>>;

fn read_jobs(queue: &Arc<str>, reply: &ReadReply<'_>) -> ReadJobs {
    let mut read = ReadJobs {
        next: reply.next,
        end: reply.end,
        jobs: Vec::with_capacity(reply.jobs.len()),
        damaged: Vec::new(),
    };
    for (ordinal, delivery) in reply.jobs.iter().enumerate() {
        let offset = delivery.offset;
        match check_job(ordinal, delivery) {
            Ok(job) => {
                read.jobs.push(StoredJob { offset, enqueued_at_ms: delivery.enqueued_at_ms, job })
            }
            Err(cause) => read.damaged.push(DamagedJob { queue: Arc::clone(queue), offset, cause }),
        }
    }
    read
}

fn queue_name(queue: &str) -> Result<QueueName, DecodeError> {
    check_queue(queue)?;
    Ok(QueueName { queue: queue.to_owned() })
}

fn group_name(queue: &str, group: &str) -> Result<GroupName, DecodeError> {
    check_queue(queue)?;
    check_queue(group)?;
    Ok(GroupName { queue: queue.to_owned(), group: group.to_owned() })
}

fn lease_kind(lease: Lease) -> LeaseKind {
    match lease {
        Lease::Session(run_max) => LeaseKind::Session { run_ms_max: run_max.map(millis) },
        Lease::Timed(lease) => LeaseKind::Timed { lease_ms: millis(lease) },
    }
}

/// Whole milliseconds, which the decoder's range check sees as they are.
fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).map_or(MILLIS_MAX, |ms| ms.min(MILLIS_MAX))
}

fn check_range(
    field: &'static str,
    value: usize,
    max: usize,
    allowed: &'static str,
) -> Result<(), DecodeError> {
    if (1..=max).contains(&value) {
        return Ok(());
    }
    Err(DecodeError::Range { field, value: value as u64, allowed })
}
