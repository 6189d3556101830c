//! One group: where each job of its queue stands for it.
//!
//! A job is in exactly one place: consumed, leased, dead, waiting to be delivered again (ready or
//! delayed), or fresh. Fresh jobs are those from `next_fetch` on that are not consumed, and cost
//! nothing.

use std::collections::{BTreeMap, BTreeSet};

use rustc_hash::FxHashMap;

use super::offset_set::OffsetSet;
use super::{EndReason, GroupKind};
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
    /// Jobs that were delivered before and can be again.
    pub(super) ready: BTreeSet<Offset>,
    /// What is known of the jobs that have been handed back and are neither consumed nor dead.
    pub(super) marks: FxHashMap<Offset, Mark>,
    pub(super) dead: BTreeMap<Offset, DeadJob>,
    /// How many jobs are leased.
    pub(super) leased_count: u64,
    /// How many marks have a due time.
    pub(super) delayed_count: u64,
    /// Whether the last grant took more redelivered jobs than fresh ones, so that fresh jobs are
    /// first next time.
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

/// A job that is not fetched again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeadJob {
    /// Why its last lease ended.
    pub reason: EndReason,
    /// What the worker said last; empty if it said nothing.
    pub message: Box<str>,
    /// How often it was delivered.
    pub attempts: u32,
    /// How often a worker said that it failed.
    pub failures: u32,
    /// How often its worker was lost.
    pub crashes: u32,
    /// When it died, in milliseconds since the Unix epoch.
    pub died_wall_ms: u64,
}

impl Group {
    /// A group to which nothing was delivered yet. What lies below `start` is in `consumed`.
    pub(super) fn new(
        queue: QueueId,
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
            marks: FxHashMap::default(),
            dead: BTreeMap::new(),
            leased_count: 0,
            delayed_count: 0,
            fresh_owed: false,
            woken: false,
        }
    }

    /// The fresh job behind `offset`, which is one itself.
    pub(super) fn fresh_behind(&self, offset: Offset) -> Offset {
        match self.holes {
            0 => offset.next(),
            _ => self.consumed.next_absent(offset.next()),
        }
    }

    /// Takes the first fresh job out of those.
    pub(super) fn pass_fresh(&mut self) {
        let next = self.fresh_behind(self.next_fetch);
        self.holes -= next.0 - self.next_fetch.0 - 1;
        self.next_fetch = next;
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

    /// Forgets the mark of a job that is consumed or dead.
    pub(super) fn remove_mark(&mut self, offset: Offset) {
        if !self.marks.is_empty() {
            self.marks.remove(&offset);
        }
    }
}
