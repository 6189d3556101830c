//! The pieces that a checkpoint is made of; `records` takes a state apart into them, and back.

use std::sync::Arc;

use smallvec::SmallVec;
use thiserror::Error;

use super::coding::declare;
use super::offset_set::ChunkMembers;
use super::{
    DeadJob, EnqueuedBatch, GroupKind, HeldKey, Holder, JobTerms, KeyedPlace, QueueSettings, Rank,
    RemovedCounts, Schedule, ScheduleMark, UniqueHit,
};
use crate::types::{Grant, GroupId, KeyHash, Offset, ProducerId, QueueId};

declare! {
    /// One piece of the state.
    Record:

    /// What concerns the log as a whole.
    Log(LogRecord) {
        /// What is given next; the first record.
        Counters = 1 "counters" {
            /// The id of the next queue.
            next_queue: QueueId,
            /// The id of the next group.
            next_group: GroupId,
            /// The number of the next grant.
            next_grant: Grant,
        }
        /// Offsets of jobs that this state does not have; left out if there are none.
        Offsets = 28 "offsets" {
            /// How many jobs somebody may have been told of.
            reserved: u64,
            /// The first offset of a queue whose name is new.
            first_of_new: Offset,
        }
        /// A deleted queue, as far as it is remembered.
        DeletedQueue = 2 "deleted queue" {
            /// Its name.
            name: Box<str>,
            /// The offset that its next job would have got.
            next: Offset,
        }
    }

    /// A queue, and the sets of its jobs.
    Queue(QueueRecord) {
        /// A queue.
        Queue = 3 "queue" {
            /// Its id.
            queue: QueueId,
            /// Its name.
            name: Box<str>,
            /// Its settings.
            settings: Box<QueueSettings>,
            /// The offset that its next job gets.
            next: Offset,
            /// All below is gone.
            gone: Offset,
            /// All below had been consumed at `turned_log_ms`.
            aging: Offset,
            /// When `keep_consumed_for` last passed, on the clock of the log.
            turned_log_ms: u64,
            /// How many jobs were too old.
            expired: u64,
            /// Bytes of all its jobs ever.
            bytes: u64,
            /// All jobs below are withdrawn.
            withdrawn: Offset,
            /// All jobs below have outlived their time.
            lapsed: Offset,
            /// Whether nothing is fetched from it for now.
            paused: bool,
        }
        /// Jobs of the queue that are gone above that, of one chunk.
        Gone = 11 "gone" {
            /// The chunk: the offsets of its jobs divided by 65,536.
            chunk: u64,
            /// Which of them.
            members: ChunkMembers,
        }
        /// Jobs of the queue that had been consumed above that, of one chunk.
        Aging = 12 "aging" {
            /// The chunk: the offsets of its jobs divided by 65,536.
            chunk: u64,
            /// Which of them.
            members: ChunkMembers,
        }
        /// Jobs of the queue that are withdrawn above that, of one chunk.
        Withdrawn = 14 "withdrawn" {
            /// The chunk: the offsets of its jobs divided by 65,536.
            chunk: u64,
            /// Which of them.
            members: ChunkMembers,
        }
        /// Those of them that have outlived their time, of one chunk.
        Lapsed = 15 "lapsed" {
            /// The chunk: the offsets of its jobs divided by 65,536.
            chunk: u64,
            /// Which of them.
            members: ChunkMembers,
        }
        /// How many bytes came before a job of the queue.
        Size = 13 "size" {
            /// The job.
            offset: Offset,
            /// The bytes of all jobs before it.
            before: u64,
        }
        /// Offsets of the queue that no job has had.
        Skipped = 29 "skipped" {
            /// The lowest.
            first: Offset,
            /// One more than the highest.
            end: Offset,
        }
    }

    /// What is known of the jobs of a queue, and of who enqueued them.
    Job(JobRecord) {
        /// A job that is not like all others of its queue.
        Terms = 9 "job terms" {
            /// The queue.
            queue: QueueId,
            /// The job.
            offset: Offset,
            /// What sets it apart.
            terms: JobTerms,
        }
        /// A producer that has enqueued to a queue lately.
        Producer = 10 "producer" {
            /// The queue.
            queue: QueueId,
            /// The producer.
            producer: ProducerId,
            /// When it enqueued last, on the clock of the log.
            last_log_ms: u64,
            /// Its batches that are remembered, ascending.
            batches: SmallVec<[EnqueuedBatch; 1]>,
        }
        /// A unique key that a job holds.
        UniqueKey = 20 "unique key" {
            /// The queue.
            queue: QueueId,
            /// The job and its key.
            held: HeldKey,
        }
        /// How often unique keys were met, if ever.
        UniqueCounts = 21 "unique counts" {
            /// The queue.
            queue: QueueId,
            /// Jobs that were not enqueued.
            duplicates: u64,
            /// Jobs that gave way to others.
            replaced: u64,
        }
        /// What a batch of a producer was told of its unique keys, or a part of it.
        UniqueHits = 30 "unique hits" {
            /// The queue.
            queue: QueueId,
            /// The producer.
            producer: ProducerId,
            /// The number of the batch.
            sequence: u64,
            /// The jobs of the batch whose keys were held.
            hits: Vec<UniqueHit>,
        }
        /// What a worker said of a job, while it is kept.
        Result = 22 "result" {
            /// The queue.
            queue: QueueId,
            /// The job.
            offset: Offset,
            /// How long, on the clock of the log.
            until_log_ms: u64,
            /// What the worker said.
            result: Arc<[u8]>,
        }
        /// A queue some of whose results went before their time.
        Displaced = 25 "displaced" {
            /// The queue.
            queue: QueueId,
            /// How many.
            count: u64,
        }
    }

    /// Schedules, and what they have enqueued.
    Schedule(ScheduleRecord) {
        /// A schedule.
        Schedule = 26 "schedule" {
            /// Its name.
            name: Box<str>,
            /// The schedule.
            schedule: Box<Schedule>,
        }
        /// Which is the last job of a schedule in a queue.
        Mark = 27 "schedule mark" {
            /// The queue.
            queue: QueueId,
            /// The schedule's name.
            schedule: Box<str>,
            /// The job.
            mark: ScheduleMark,
        }
    }

    /// A group, and its jobs.
    Group(GroupRecord) {
        /// A group; what follows up to the next group is about its jobs.
        Group = 4 "group" {
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
            /// The lowest offset that it has not consumed.
            committed: Offset,
            /// The first job that was never delivered.
            next_fetch: Offset,
            /// Whether fresh jobs are first next time.
            fresh_owed: bool,
            /// How many jobs left without a commit.
            removed: RemovedCounts,
            /// Whether nothing is fetched for now.
            paused: bool,
        }
        /// Jobs that the group has consumed above its committed offset, of one chunk.
        Consumed = 5 "consumed" {
            /// The chunk: the offsets of its jobs divided by 65,536.
            chunk: u64,
            /// Which of them.
            members: ChunkMembers,
        }
        /// A job that the pointer has passed and that is neither consumed nor dead: it was handed
        /// back, or, with counts of 0, enqueued with a due time that came too late.
        Marked = 6 "marked" {
            /// The job.
            offset: Offset,
            /// Where it stands.
            place: MarkedPlace,
            /// How often it was delivered and came back.
            attempts: u32,
            /// How often a worker said that it failed.
            failures: u32,
            /// How often its worker was lost.
            crashes: u32,
        }
        /// A job that is out with a worker.
        Lease = 7 "lease" {
            /// The job.
            offset: Offset,
            /// The number of the lease.
            grant: Grant,
            /// Who holds it.
            holder: Holder,
            /// How long it runs, in milliseconds.
            lease_ms: u32,
        }
        /// A job that is not fetched again.
        Dead = 8 "dead" {
            /// The job.
            offset: Offset,
            /// Why and when.
            job: DeadJob,
        }
        /// What the group may be given, where its queue has a rate.
        Bucket = 17 "bucket" {
            /// In thousandths of a job.
            millijobs: u64,
            /// As of when, on the clock of the log.
            at_log_ms: u64,
        }
        /// Of the jobs of this rank that wait, a fresh one is first next time.
        FreshOwed = 16 "fresh owed" {
            /// The rank.
            rank: Rank,
        }
        /// What the worker of a job that is out said of its progress.
        Progress = 23 "progress" {
            /// The job.
            offset: Offset,
            /// What it said.
            note: Box<str>,
        }
        /// What a worker said when a job failed that is to be tried again.
        LastError = 24 "last error" {
            /// The job.
            offset: Offset,
            /// What it said.
            error: Box<str>,
        }
        /// A job that the pointer has passed, where keys matter.
        Keyed = 18 "keyed" {
            /// The job.
            offset: Offset,
            /// Where it stands for its key.
            place: KeyedPlace,
            /// Its key, if it is known to have one.
            key: Option<KeyHash>,
        }
    }
}

/// Where a job stands that was handed back before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MarkedPlace {
    /// It can be fetched.
    Ready,
    /// It can be fetched later.
    Delayed {
        /// When, on the clock of the log.
        due_log_ms: u64,
    },
    /// It is out again.
    Leased,
    /// It waits for others of its key.
    Parked,
}

/// A record that cannot follow those before it: the checkpoint is damaged or foreign.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[error("record {ordinal} does not follow from those before it: {reason}")]
pub struct BadRecord {
    /// Which record, from 0.
    pub ordinal: u64,
    /// What is wrong with it.
    pub reason: &'static str,
}
