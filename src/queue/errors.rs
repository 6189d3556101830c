//! How the machine says no: to a request, and to a fact that cannot be.

use thiserror::Error;

use super::settings::SettingsError;
use crate::types::{Grant, GroupId, Offset, QueueId};

/// Why a request about a queue or a group is refused. Nothing has changed.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum Refusal {
    /// The name is taken.
    #[error("the queue exists already; its settings are the same: {same_settings}")]
    QueueExists {
        /// The queue of that name.
        queue: QueueId,
        /// Whether it has the settings that were asked for.
        same_settings: bool,
    },
    /// No queue has this id.
    #[error("there is no such queue; create it or enqueue to it first")]
    NoSuchQueue,
    /// The name is taken within the queue.
    #[error("the group exists already")]
    GroupExists {
        /// The group of that name.
        group: GroupId,
    },
    /// No group has this id.
    #[error("there is no such group; create it first")]
    NoSuchGroup,
    /// The start is not in the queue.
    #[error("a group of this queue can start at {first} to {next}")]
    StartOutside {
        /// The first offset of the queue.
        first: Offset,
        /// The offset that its next job will get.
        next: Offset,
    },
    /// A setting is not allowed.
    #[error(transparent)]
    Settings(#[from] SettingsError),
    /// What a queue says about keys can't change under the jobs that are parked and out.
    #[error(
        "ordered_by_key, key_concurrency_max and dead_keeps_key can be changed only while no job \
         is to be consumed, and none with a priority is kept; {unconsumed} are to be consumed; \
         use a new queue"
    )]
    KeysInUse {
        /// How many jobs some group has still to consume.
        unconsumed: u64,
    },
    /// The queue has as much as its settings allow.
    #[error(
        "the queue is full: its {limit} is {most}, and {held} are waiting; retry when some are \
         consumed"
    )]
    QueueFull {
        /// The setting.
        limit: &'static str,
        /// What it allows.
        most: u64,
        /// What there is.
        held: u64,
    },
    /// The batch is more than the queue may ever hold.
    #[error(
        "the batch has {asked}, and the queue's {limit} is {most}: it never fits; split it, or \
         raise the setting"
    )]
    NeverFits {
        /// The setting.
        limit: &'static str,
        /// What it allows.
        most: u64,
        /// What the batch has.
        asked: u64,
    },
    /// The queue has as many groups as one may have.
    #[error("the queue has {most} groups, and no more are allowed; delete one first")]
    TooManyGroups {
        /// What is allowed.
        most: usize,
    },
    /// A schedule has this name.
    #[error("the schedule exists already; remove it first, or replace it")]
    ScheduleExists,
    /// No schedule has this name.
    #[error("there is no such schedule; add it first")]
    NoSuchSchedule,
    /// All ids have been given.
    #[error("this log has given all its 2^32 ids of that sort; use another log")]
    OutOfIds,
}

/// Why a request about one job is refused. Nothing has changed.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum JobRefusal {
    /// The group has consumed the job, whoever asks.
    #[error("the group has consumed this job already")]
    AlreadyConsumed,
    /// The job is not consumed, and the token is not that of its lease.
    #[error("the lease is over: the job is not yours any more")]
    LeaseLost,
    /// The lease goes on, but the job was cancelled: its worker is to stop.
    #[error("the job was cancelled; stop working on it, and hand it back")]
    CancelRequested,
    /// There is no such job yet.
    #[error("the queue ends before offset {next}")]
    BeyondEnd {
        /// The offset that its next job will get.
        next: Offset,
    },
    /// The group is of the other kind.
    #[error("a work group commits job by job, a stream group through an offset")]
    WrongKind,
    /// No group has this id.
    #[error("there is no such group; create it first")]
    NoSuchGroup,
    /// The lease cannot be that long.
    #[error("a lease can run for at most {} ms", super::LEASE_MS_MAX)]
    LeaseTooLong,
}

/// A fact that cannot follow the facts before it: the log is damaged or not this one.
///
/// The machine that returned it may have applied a part of the fact and must be thrown away.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum Contradiction {
    /// The queue was never made, or is deleted.
    #[error("the log speaks of queue {0}, which does not exist at this point")]
    NoSuchQueue(QueueId),
    /// The group was never made, or is deleted.
    #[error("the log speaks of group {0}, which does not exist at this point")]
    NoSuchGroup(GroupId),
    /// The schedule was never added, or is removed.
    #[error("the log speaks of schedule {0:?}, which does not exist at this point")]
    NoSuchSchedule(Box<str>),
    /// A schedule is settled at another time than its next one.
    #[error("the log settles a due time of schedule {0:?} that is not its next")]
    NotDue(Box<str>),
    /// A new queue has an id or a name that was given before.
    #[error("the log makes queue {0} named {1:?}, but the id or the name is taken")]
    QueueTwice(QueueId, Box<str>),
    /// A new group has an id or a name that was given before.
    #[error("the log makes group {0} named {1:?}, but the id or the name is taken")]
    GroupTwice(GroupId, Box<str>),
    /// A queue starts where offsets were given before.
    #[error("queue {queue} starts at offset {found}, but offsets below {least} were given before")]
    OffsetsTwice {
        /// The queue.
        queue: QueueId,
        /// Where it starts.
        found: Offset,
        /// Where it could.
        least: Offset,
    },
    /// Jobs do not follow the jobs before them.
    #[error("queue {queue} goes on at offset {found}, but its next is {expected}")]
    NotNext {
        /// The queue.
        queue: QueueId,
        /// Where the jobs start.
        found: Offset,
        /// Where they should.
        expected: Offset,
    },
    /// Offsets that the queue does not have.
    #[error("the log speaks of offset {1} in group {0}, outside the queue")]
    OutsideQueue(GroupId, Offset),
    /// An offset that the queue has not given yet.
    #[error("the log speaks of offset {offset} in queue {queue}, which ends at {next}")]
    BehindQueue {
        /// The queue.
        queue: QueueId,
        /// The offset.
        offset: Offset,
        /// The end of the queue.
        next: Offset,
    },
    /// A work-group fact on a stream group, or the other way round.
    #[error("the log treats group {0} as one of the other kind")]
    WrongKind(GroupId),
    /// The job was neither fresh nor waiting to be delivered again.
    #[error("the log grants offset {1} of group {0}, which was not to be had")]
    NotReady(GroupId, Offset),
    /// What a queue says about keys changes while jobs are to be consumed.
    #[error("the log changes the rule for keys of queue {0}, which has jobs to be consumed")]
    KeysInUse(QueueId),
    /// Keys in a group to which they do not matter.
    #[error("the log reads keys for group {0}, whose queue has no rule for keys")]
    NotKeyed(GroupId),
    /// The job was not leased.
    #[error("the log ends or changes a lease on offset {1} of group {0}; there is none")]
    NotLeased(GroupId, Offset),
    /// Terms for a job that is not new.
    #[error("the log gives terms to offset {1} of queue {0}, which is not a new job")]
    NotNew(QueueId, Offset),
    /// Jobs that the queue does not have.
    #[error("the log withdraws offset {1} of queue {0}, which has no such job")]
    NoSuchJobs(QueueId, Offset),
    /// A unique key that another job holds, or a job that has one already.
    #[error("the log gives offset {1} of queue {0} a unique key that it can't have")]
    KeyTwice(QueueId, Offset),
    /// A batch of a producer that was enqueued before, or that is older than what is known.
    #[error("the log enqueues batch {1} of a producer to queue {0} a second time")]
    SequenceTwice(QueueId, u64),
    /// The job was not dead.
    #[error("the log retries or drops offset {1} of group {0}, which was not dead")]
    NotDead(GroupId, Offset),
    /// A queue would have no offsets left.
    #[error("the log passes over {0} offsets, which a queue does not have any more")]
    OutOfOffsets(u64),
    /// A grant that was given before.
    #[error("the log gives grant {found}, but {least} is the next")]
    GrantTwice {
        /// The grant.
        found: Grant,
        /// The lowest that can be given.
        least: Grant,
    },
    /// A committed offset that goes back.
    #[error("the log commits group {0} through {1}, which it had consumed already")]
    CommitBack(GroupId, Offset),
    /// A lease longer than any that can be granted.
    #[error("the log has a lease of {1} ms in group {0}; no lease is that long")]
    LeaseTooLong(GroupId, u64),
}
