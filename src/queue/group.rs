//! One group: where each job of its queue stands for it.
//!
//! A job is in exactly one place: consumed, leased, dead, waiting to be delivered again (ready or
//! delayed), waiting in its rank, passed with its key (see `keys`), or fresh. Fresh jobs are those
//! from `next_fetch` on that are not consumed and not set aside (see `fresh`), and cost nothing.

use std::collections::BTreeSet;

use rustc_hash::FxHashMap;

use super::dead::DeadJobs;
use super::job::Sayings;
use super::keys::Keys;
use super::limits::Bucket;
use super::offset_set::OffsetSet;
use super::ranks::Levels;
use super::{EndReason, GroupKind, QueueSettings, RemovedCounts};
use crate::types::{Offset, QueueId};

#[derive(Debug)]
pub(super) struct Group {
    pub(super) queue: QueueId,
    pub(super) name: Box<str>,
    pub(super) kind: GroupKind,
    /// The first job that it sees.
    pub(super) start: Offset,
    /// Its floor is the committed offset. All that a stream group has.
    pub(super) consumed: OffsetSet,
    /// The first job that was never delivered.
    pub(super) next_fetch: Offset,
    /// Jobs behind `next_fetch` that are consumed: they were gone when the group came.
    pub(super) holes: u64,
    /// Jobs that were delivered before and can be again, ordinary ones.
    pub(super) ready: BTreeSet<Offset>,
    /// Jobs that can be fetched, fresh or again, and are not ordinary.
    pub(super) ranked: Levels,
    /// What is known of the jobs that have been handed back and are neither consumed nor dead.
    pub(super) marks: FxHashMap<Offset, Mark>,
    pub(super) dead: DeadJobs,
    pub(super) said: Sayings,
    /// How many jobs left without a commit.
    pub(super) removed: RemovedCounts,
    /// How many jobs are leased.
    pub(super) leased_count: u64,
    /// How many may be; the highest number where there is no limit.
    pub(super) in_flight_max: u64,
    /// What it may be given, where its queue has a rate.
    pub(super) bucket: Option<Bucket>,
    /// How many marks have a due time.
    pub(super) delayed_count: u64,
    /// How many jobs that were enqueued with a due time are not due yet.
    pub(super) enqueued_delayed: u64,
    /// How many jobs from `next_fetch` on are set aside and not consumed.
    pub(super) skipped_ahead: u64,
    /// What it knows of keys; none where they do not matter.
    pub(super) keys: Option<Box<Keys>>,
    /// Whether nothing is fetched for now.
    pub(super) paused: bool,
    /// Whether the last grant took more redelivered jobs than fresh ones, ordinary ones, so that
    /// fresh jobs are first next time.
    pub(super) fresh_owed: bool,
    /// Whether the group stands in the machine's list of woken groups.
    pub(super) woken: bool,
}

/// The past of a job that has been handed back.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Mark {
    /// When it can be fetched again, if it is delayed.
    pub(super) due_log_ms: Option<u64>,
    /// How often it was delivered and came back.
    pub(super) attempts: u32,
    pub(super) failures: u32,
    pub(super) crashes: u32,
}

/// The cost of a job that comes back; see `GroupCounts::marked`.
const _: () = assert!(size_of::<(Offset, Mark)>() == 40);

impl Group {
    /// A group to which nothing was delivered yet. What lies below `start` is in `consumed`.
    pub(super) fn new(
        (queue, settings): (QueueId, &QueueSettings),
        name: Box<str>,
        kind: GroupKind,
        start: Offset,
        consumed: OffsetSet,
    ) -> Self {
        Self {
            queue,
            name,
            kind,
            start,
            next_fetch: consumed.floor(),
            holes: consumed.above_count(),
            consumed,
            ready: BTreeSet::new(),
            ranked: Levels::default(),
            marks: FxHashMap::default(),
            dead: DeadJobs::new(),
            said: Sayings::default(),
            removed: RemovedCounts::default(),
            leased_count: 0,
            in_flight_max: u64::MAX,
            bucket: None,
            delayed_count: 0,
            enqueued_delayed: 0,
            skipped_ahead: 0,
            keys: Keys::of_queue(settings, kind),
            paused: false,
            fresh_owed: false,
            woken: false,
        }
    }

    /// Takes all that is not consumed as fresh: all that a stream group needs.
    pub(super) fn fresh_from_floor(&mut self) {
        self.next_fetch = self.consumed.floor();
        self.holes = self.consumed.above_count();
    }

    /// The mark that the job has if its lease ends now for `reason`.
    pub(super) fn mark_after(&self, offset: Offset, reason: EndReason) -> Mark {
        let mark = self.marks.get(&offset).copied().unwrap_or_default();
        let failed = u32::from(reason == EndReason::Failed);
        Mark {
            due_log_ms: None,
            attempts: mark.attempts.saturating_add(1),
            failures: mark.failures.saturating_add(failed),
            crashes: mark.crashes.saturating_add(u32::from(reason.is_crash())),
        }
    }

    /// Takes the due time from the mark of a job, if it has one.
    pub(super) fn undelay(&mut self, offset: Offset) -> Option<u64> {
        let due_log_ms = self.marks.get_mut(&offset)?.due_log_ms.take();
        self.delayed_count -= u64::from(due_log_ms.is_some());
        due_log_ms
    }

    /// Forgets the mark of a job that is consumed or dead.
    pub(super) fn remove_mark(&mut self, offset: Offset) {
        if !self.marks.is_empty() {
            self.marks.remove(&offset);
            self.said.forget(offset);
        }
    }
}
