//! The facts that stand in the log, and the small types that they are made of.
//!
//! A fact says what has been decided, never what was asked for: granted offsets, durations, due
//! times, outcomes. So the same log gives the same state under other rules.
//!
//! A new fact is a new row of the table below, with a tag that no fact ever had; what else it
//! takes, the compiler and the tests of `coding` say. No row changes its tag, its fields or their
//! order.

use std::ops::Range;
use std::sync::Arc;

use smallvec::SmallVec;
use thiserror::Error;

use super::coding::declare;
use super::{
    Due, HeldKey, Numbered, Plan, QueueSettings, Rank, Removal, ScheduleMark, Settled, UniqueHit,
};
use crate::types::{Grant, GroupId, KeyHash, Offset, QueueId, SessionId};

declare! {
    /// Something that has happened to the queues and groups of a log, other than new jobs.
    Fact:

    /// What has happened to queues.
    Queue(QueueFact) {
        /// A queue was made.
        Created = 1 "queue created" {
            /// Its id.
            queue: QueueId,
            /// Its name.
            name: Box<str>,
            /// Its settings.
            settings: Box<QueueSettings>,
            /// The offset of its first job: above 0 if a queue of this name was deleted before,
            /// since `name:offset` names one job for ever.
            first_offset: Offset,
        }
        /// A queue was deleted, with its jobs and groups.
        Deleted = 2 "queue deleted" {
            /// The queue.
            queue: QueueId,
        }
        /// The settings of a queue were changed.
        Updated = 48 "queue updated" {
            /// The queue.
            queue: QueueId,
            /// All of its settings from now on.
            settings: Box<QueueSettings>,
        }
        /// Jobs were too old, and are consumed by all groups, but for those that were leased.
        Expired = 11 "expired" {
            /// The queue.
            queue: QueueId,
            /// They lie below this offset.
            below: Offset,
        }
        /// A queue's `keep_consumed_for` has passed once more: what was consumed the last time, and
        /// still is, is gone.
        RetentionPassed = 12 "retention passed" {
            /// The queue.
            queue: QueueId,
        }
        /// A queue or one group of it pauses, or goes on.
        Paused = 36 "paused" {
            /// The queue.
            queue: QueueId,
            /// The group; none for the queue as a whole.
            group: Option<GroupId>,
            /// Whether it pauses from now on.
            paused: bool,
        }
        /// From here on so many jobs may be told of before the log is synced again up to a fact
        /// like this one; what was reserved before no longer counts.
        OffsetsReserved = 13 "offsets reserved" {
            /// How many, of all queues together.
            count: u64,
        }
        /// No job has or gets the next so many offsets, in any queue that is there or will be made:
        /// a run that did not end in order may have told somebody of such jobs and lost them.
        OffsetsSkipped = 14 "offsets skipped" {
            /// How many.
            count: u64,
        }
    }

    /// What has happened to a group.
    Group(GroupFact) {
        /// A group was made.
        Created = 3 "group created" {
            /// Its id.
            group: GroupId,
            /// The queue whose jobs it sees.
            queue: QueueId,
            /// Its name within the queue.
            name: Box<str>,
            /// Its kind.
            kind: GroupKind,
            /// The first job that it sees.
            start: Offset,
        }
        /// A group was deleted, with its leases.
        Deleted = 4 "group deleted" {
            /// The group.
            group: GroupId,
        }
        /// A group was set to another place; its leases, delays and deaths are forgotten.
        Sought = 10 "group sought" {
            /// The group.
            group: GroupId,
            /// What lies below is consumed.
            to: Offset,
        }
        /// All jobs up to an offset are consumed.
        CommittedThrough = 8 "committed through" {
            /// The stream group.
            group: GroupId,
            /// The last consumed offset.
            through: Offset,
        }
        /// The pointer has passed jobs of a group with keys. Those whose key has a place for them
        /// can be fetched, the others are parked.
        KeysRead = 44 "keys read" {
            /// The work group.
            group: GroupId,
            /// The jobs, each run with the key of its jobs, if they have one.
            runs: Vec<(Run, Option<KeyHash>)>,
        }
    }

    /// What has happened to jobs that are out with workers, or go out.
    Lease(LeaseFact) {
        /// Jobs went out under leases.
        Granted = 5 "granted" {
            /// The work group.
            group: GroupId,
            /// Who holds the leases.
            holder: Holder,
            /// How long each lease runs, in milliseconds of the lease clock.
            lease_ms: u64,
            /// The grant of the first job; the others count on from it, over all runs.
            first_grant: Grant,
            /// The jobs.
            runs: Runs,
        }
        /// A lease runs for a new duration from now on.
        Extended = 6 "extended" {
            /// The work group.
            group: GroupId,
            /// The leased job.
            offset: Offset,
            /// The new duration in milliseconds.
            lease_ms: u64,
        }
        /// A worker said something of its job's progress.
        Progressed = 54 "progressed" {
            /// The work group.
            group: GroupId,
            /// The leased job.
            offset: Offset,
            /// What it said; empty for nothing any more.
            note: Box<str>,
        }
        /// Leased jobs are consumed.
        Committed = 7 "committed" {
            /// The work group.
            group: GroupId,
            /// The jobs.
            runs: Runs,
        }
        /// A leased job is consumed, and what its worker said of it is kept for a time.
        CommittedWithResult = 53 "committed with result" {
            /// The work group.
            group: GroupId,
            /// The job.
            offset: Offset,
            /// How long what the worker said is kept, on the clock of the log.
            until_log_ms: u64,
            /// How many results of the queue go for it, those first that would have gone first.
            displaced: u32,
            /// What the worker said.
            result: Arc<[u8]>,
        }
        /// A lease ended without a commit.
        Ended = 9 "lease ended" {
            /// The work group.
            group: GroupId,
            /// The job that was leased.
            offset: Offset,
            /// Why it ended.
            reason: EndReason,
            /// What becomes of the job.
            outcome: Outcome,
            /// What the worker said; empty if it said nothing.
            message: Box<str>,
        }
    }

    /// What has happened to jobs that are not out.
    Job(JobFact) {
        /// New jobs are not like all others. Stands in the entry of the jobs.
        TermsSet = 34 "job terms set" {
            /// The queue.
            queue: QueueId,
            /// The jobs by offset, each run with its terms.
            runs: Vec<(Run, JobTerms)>,
        }
        /// New jobs hold unique keys. Stands in the entry of the jobs.
        KeysHeld = 49 "keys held" {
            /// The queue.
            queue: QueueId,
            /// The jobs with their keys, by offset.
            keys: Vec<HeldKey>,
        }
        /// Jobs of a batch had unique keys that others held. Stands in the entry of the batch's new
        /// jobs, if it has any.
        UniqueHits = 50 "unique hits" {
            /// The queue.
            queue: QueueId,
            /// The number of the batch, if it has one.
            batch: Option<Numbered>,
            /// The offset of the batch's first new job, or what it would have been.
            first: Offset,
            /// How many jobs the batch has.
            count: u32,
            /// Those jobs.
            hits: Vec<UniqueHit>,
        }
        /// Jobs are not delivered any more, to no group: those that are not out are consumed.
        Withdrawn = 35 "withdrawn" {
            /// The queue.
            queue: QueueId,
            /// Why.
            cause: Removal,
            /// The jobs.
            runs: Runs,
        }
        /// Delayed jobs can be fetched now, by all groups.
        Promoted = 37 "promoted" {
            /// The queue.
            queue: QueueId,
            /// The jobs.
            runs: Runs,
        }
        /// Dead jobs are ready again, their failures and crashes forgotten.
        DeadRetried = 32 "dead retried" {
            /// The work group.
            group: GroupId,
            /// The jobs.
            runs: Runs,
        }
        /// Jobs are consumed without a commit.
        Removed = 33 "removed" {
            /// The work group.
            group: GroupId,
            /// Why.
            cause: Removal,
            /// The jobs.
            runs: Runs,
        }
    }

    /// What has happened to a schedule.
    Schedule(ScheduleFact) {
        /// A schedule was added, or has another plan.
        Set = 59 "schedule set" {
            /// Its name.
            name: Box<str>,
            /// What it is to do.
            plan: Arc<Plan>,
            /// Whether it is paused.
            paused: bool,
            /// Its next due time.
            next: Option<Due>,
        }
        /// A schedule was taken away.
        Removed = 60 "schedule removed" {
            /// Its name.
            name: Box<str>,
        }
        /// A schedule pauses, or goes on.
        Paused = 61 "schedule paused" {
            /// Its name.
            name: Box<str>,
            /// Whether it pauses from now on.
            paused: bool,
            /// Its next due time.
            next: Option<Due>,
        }
        /// Something became of a schedule's next due time.
        Settled = 62 "schedule settled" {
            /// Its name.
            name: Box<str>,
            /// The due time.
            due: Due,
            /// What became of it.
            settled: Settled,
        }
        /// Which is the last job of a schedule in a queue. Stands in the entry of the job, or alone
        /// and without one, when the schedule is gone.
        Marked = 63 "schedule marked" {
            /// The queue.
            queue: QueueId,
            /// The schedule's name.
            name: Box<str>,
            /// The job.
            mark: Option<ScheduleMark>,
        }
    }
}

/// Bytes of a fact in an entry that this version can't read.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("fact {ordinal} of the entry can't be read: {reason}")]
pub struct BadFact {
    /// Which fact of the entry, from 0.
    pub ordinal: usize,
    /// What is wrong with it.
    pub reason: &'static str,
}

impl Fact {
    /// Reads all facts of an entry.
    ///
    /// # Errors
    /// [`BadFact`] for the first one that can't be read.
    pub fn decode_all(mut bytes: &[u8]) -> Result<SmallVec<[Self; 2]>, BadFact> {
        let mut facts = SmallVec::new();
        while !bytes.is_empty() {
            let bad = |reason| BadFact { ordinal: facts.len(), reason };
            let fact = Self::decode(&mut bytes).map_err(bad)?;
            facts.push(fact);
        }
        Ok(facts)
    }
}

/// A fact is moved about for each small operation: what is large in one stands behind a pointer.
const _: () = assert!(size_of::<Fact>() <= 104);

/// How the members of a group share its jobs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GroupKind {
    /// They share the jobs under leases and commit job by job.
    Work,
    /// They read in order and commit through an offset.
    Stream,
}

/// Who holds a lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Holder {
    /// A session: the lease ends with it, or when its time is over.
    Session(SessionId),
    /// Nobody: the lease ends when its time is over, not by silence.
    Timed,
}

/// Neighbouring offsets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    /// The lowest.
    pub first: Offset,
    /// How many.
    pub count: u32,
}

/// What sets a job apart from the others of its queue.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct JobTerms {
    /// When it can be fetched first, if not at once.
    pub due: Option<Due>,
    /// When it is not delivered any more, on the clock of the log.
    pub expires_log_ms: Option<u64>,
    /// Where it stands among the jobs that are ready.
    pub rank: Rank,
}

/// Offsets as runs. One or two of them take no allocation.
pub type Runs = SmallVec<[Run; 2]>;

/// Why a lease ended without a commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EndReason {
    /// The worker handed the job back. No fault.
    Released,
    /// The worker does not have the job: its session came back without it or said goodbye. No
    /// fault.
    Undelivered,
    /// The worker said that the job failed. Counts as a failure.
    Failed,
    /// The time of the lease was over.
    Expired {
        /// Whether it counts as a crash of the job: not if the server was away meanwhile.
        crash: bool,
    },
    /// The session was silent for too long.
    SessionLost {
        /// Whether it counts as a crash of the job: not if the server was away meanwhile.
        crash: bool,
    },
    /// The payload of the job cannot be read.
    Damaged,
}

/// What becomes of a job whose lease ended without a commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It can be fetched at once.
    Ready,
    /// It can be fetched later.
    Delayed {
        /// When, on the clock of the log.
        due_log_ms: u64,
    },
    /// It is not fetched again.
    Dead,
    /// It was withdrawn while it was out, and is consumed.
    Withdrawn,
}

/// What a worker that reports a failure wants to become of the job, where it is not content with
/// the settings of the queue.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RetryTerms {
    /// How many failures the job may have; one more and it is dead.
    pub failures_max: Option<u32>,
    /// The wait until the next delivery in milliseconds.
    pub delay_ms: Option<u64>,
}

/// Where a new group starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// With the first job of the queue.
    Beginning,
    /// With the next job that is enqueued.
    End,
    /// With this offset.
    At(Offset),
}

/// How a session ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SessionEnd {
    /// It was not heard from for the grace time.
    Silent,
    /// It said that it was going.
    Goodbye,
}

impl RetryTerms {
    /// As the settings of the queue say.
    pub const POLICY: Self = Self { failures_max: None, delay_ms: None };
    /// The job is dead at once.
    pub const NEVER: Self = Self { failures_max: Some(0), delay_ms: None };
}

impl EndReason {
    /// Whether it counts as a crash of the job.
    pub fn is_crash(self) -> bool {
        matches!(self, Self::Expired { crash: true } | Self::SessionLost { crash: true })
    }
}

impl Run {
    /// The offset behind the last; none if that would be more than an offset can be.
    pub fn end(self) -> Option<Offset> {
        self.first.0.checked_add(u64::from(self.count)).map(Offset)
    }

    /// From the first to below the end.
    pub(super) fn range(self) -> Range<Offset> {
        self.first..self.first.plus(u64::from(self.count))
    }

    /// The offsets of the run, in order.
    pub fn offsets(self) -> impl Iterator<Item = Offset> {
        (0..u64::from(self.count)).map(move |n| self.first.plus(n))
    }
}

/// Adds `offset` to `runs`: to the last run if it goes on there, otherwise as a new one.
pub fn push_offset(runs: &mut Runs, offset: Offset) {
    if let Some(last) = runs.last_mut()
        && last.first.0.checked_add(u64::from(last.count)) == Some(offset.0)
        && let Some(count) = last.count.checked_add(1)
    {
        last.count = count;
        return;
    }
    runs.push(Run { first: offset, count: 1 });
}

/// Offsets as runs, in order and each once.
pub(super) fn runs_of(offsets: &mut [Offset]) -> Runs {
    offsets.sort_unstable();
    let (mut runs, mut last) = (Runs::new(), None);
    for offset in offsets {
        if last.replace(*offset) != Some(*offset) {
            push_offset(&mut runs, *offset);
        }
    }
    runs
}
