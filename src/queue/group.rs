//! One group: where each job of its queue stands for it.
//!
//! A job is in exactly one place: consumed, leased, dead, waiting to be delivered again (ready or
//! delayed), waiting in its rank, passed with its key (see `keys`), or fresh. See `fresh` for those.

use std::collections::BTreeSet;

use rustc_hash::FxHashMap;

use super::dead::DeadJobs;
use super::deadlines::Deadlines;
use super::keys::Keys;
use super::limits::{Bucket, Rate};
use super::notes::Notes;
use super::offset_set::OffsetSet;
use super::ranks::Levels;
use super::state::Queue;
use super::{EndReason, GroupKind, KeyedPlace, QueueSettings, RemovedCounts};
use crate::types::{GroupId, Offset, QueueId};

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
    pub(super) notes: Notes,
    /// How many jobs left without a commit.
    pub(super) removed: RemovedCounts,
    /// How many jobs are leased.
    pub(super) leased_count: u64,
    /// How many may be; the highest number where there is no limit.
    in_flight_max: u64,
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
            dead: DeadJobs::default(),
            notes: Notes::default(),
            removed: RemovedCounts::default(),
            leased_count: 0,
            in_flight_max: settings.max_in_flight.unwrap_or(u64::MAX),
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

    /// Forgets all that was delivered, and has it begin anew with other jobs as consumed.
    pub(super) fn restart(&mut self, queue: &Queue, to: Offset, consumed: OffsetSet) {
        let (of, name) = ((self.queue, &queue.settings), std::mem::take(&mut self.name));
        let new = Self::new(of, name, self.kind, self.start.min(to), consumed);
        let Self { removed, bucket, paused, woken, .. } = *self;
        *self = Self { removed, bucket, paused, woken, ..new };
    }

    /// The past of a job that was handed back.
    pub(super) fn mark(&self, offset: Offset) -> Mark {
        self.marks.get(&offset).copied().unwrap_or_default()
    }

    /// The mark that the job has if its lease ends now for `reason`.
    pub(super) fn mark_after(&self, offset: Offset, reason: EndReason) -> Mark {
        let mark = self.mark(offset);
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

    /// Forgets the past of a job that is consumed or dead.
    pub(super) fn forget_past(&mut self, offset: Offset) {
        if !self.marks.is_empty() {
            self.marks.remove(&offset);
        }
        self.notes.forget(offset);
    }
}

/// Jobs that wait.
impl Group {
    /// Has a job wait that was delivered before.
    pub(super) fn wait_again(&mut self, queue: &Queue, offset: Offset) {
        match queue.ranks.get(offset) {
            Some(rank) => self.ranked.add_again(rank, offset),
            None => drop(self.ready.insert(offset)),
        }
    }

    /// Whether a job waits to be delivered again.
    pub(super) fn waits_again(&self, queue: &Queue, offset: Offset) -> bool {
        match queue.ranks.get(offset) {
            Some(rank) => self.ranked.contains_again(rank, offset),
            None => self.ready.contains(&offset),
        }
    }

    /// Takes a job that is not a fresh ordinary one from where it waits, to be delivered if it is
    /// `granted`; false if it does not wait.
    ///
    /// A job whose due time has not come may be granted: whether to is for the one who decides.
    pub(super) fn take_waiting(
        &mut self,
        queue: &Queue,
        deadlines: &mut Deadlines,
        (group, offset): (GroupId, Offset),
        granted: bool,
    ) -> bool {
        let is_ready = match queue.ranks.get(offset) {
            Some(rank) => self.ranked.take(rank, offset, granted),
            None => self.ready.remove(&offset),
        };
        if is_ready {
            return true;
        }
        let due_log_ms = self.undelay(offset);
        deadlines.retries.moved((group, offset), due_log_ms, None);
        due_log_ms.is_some()
    }

    /// Has a job that is delayed from now on, or dead, give its place up if the rule says so.
    pub(super) fn step_aside(&mut self, offset: Offset, dead: bool) {
        if let Some(keys) = &mut self.keys
            && !keys.stays(dead)
        {
            let next = keys.step_aside(offset);
            self.unpark(next);
        }
    }

    /// Lets a job that was out be fetched again, as soon as its key has a place for it.
    pub(super) fn come_back(&mut self, queue: &Queue, offset: Offset) {
        if self.keys.as_mut().is_none_or(|keys| keys.come_back(offset)) {
            self.wait_again(queue, offset);
        }
    }

    /// Lets a job take its place whose due time of enqueueing has come: one that the pointer has
    /// not reached is fresh now, one behind it is ready. One with a rank waits in its level,
    /// wherever the pointer stands.
    pub(super) fn come_due(&mut self, queue: &Queue, offset: Offset) {
        self.enqueued_delayed -= 1;
        match (queue.ranks.get(offset), &mut self.keys) {
            (Some(rank), _) => self.ranked.add_fresh(rank, offset),
            (None, _) if offset >= self.next_fetch => self.skipped_ahead -= 1,
            (None, Some(keys)) => keys.let_read(offset),
            (None, None) => drop(self.ready.insert(offset)),
        }
    }

    /// Whether a job waits for others of its key.
    pub(super) fn is_parked(&self, offset: Offset) -> bool {
        let place = self.keys.as_ref().and_then(|keys| keys.place(offset));
        place == Some(KeyedPlace::Parked)
    }

    fn unpark(&mut self, offset: Option<Offset>) {
        if let (Some(offset), Some(keys)) = (offset, &mut self.keys) {
            match self.marks.contains_key(&offset) {
                true => drop(self.ready.insert(offset)),
                false => keys.let_pass(offset),
            }
        }
    }

    /// Notes that a job is consumed which was delivered, or waited elsewhere than among the fresh
    /// ones. One from the pointer on was set aside, and is a hole from now on.
    pub(super) fn consume(&mut self, offset: Offset) {
        self.forget_past(offset);
        self.consumed.insert(offset);
        if let Some(keys) = &mut self.keys {
            let next = keys.forget(offset);
            self.unpark(next);
        }
        if offset >= self.next_fetch {
            self.skipped_ahead -= 1;
            self.holes += 1;
        }
    }

    /// Whether every job from the committed offset on is in exactly one place, if none was counted
    /// twice.
    pub(super) fn accounts_for_all(&self) -> bool {
        let by_key = self.keys.as_ref().map_or(0, |keys| keys.parked_count() + keys.ready_count());
        let waiting = self.ready.len() as u64 + self.ranked.len() + self.delayed_count;
        let accounted = waiting
            + by_key
            + self.enqueued_delayed
            + self.leased_count
            + self.dead.len()
            + self.consumed.above_count();
        let passed = self.next_fetch.0 - self.consumed.floor().0;
        accounted == passed + self.skipped_ahead + self.holes
    }
}

/// Limits.
impl Group {
    /// Takes note of the limits of its queue, as they are from now on.
    pub(super) fn set_limits(
        &mut self,
        settings: &QueueSettings,
        before: Option<Rate>,
        now_log_ms: u64,
    ) {
        self.in_flight_max = settings.max_in_flight.unwrap_or(u64::MAX);
        self.bucket = settings.rate().map(|rate| match (self.bucket, before) {
            (Some(bucket), Some(before)) => bucket.rerated(before, rate, now_log_ms),
            _ => Bucket::full(rate, now_log_ms),
        });
    }

    /// When its bucket holds a job again, if it is empty.
    pub(super) fn refill_log_ms(&self, rate: Option<Rate>) -> Option<u64> {
        self.bucket?.refill_log_ms(rate?)
    }

    /// How many jobs it may be given now, apart from how many are ready.
    pub(super) fn room(&self, queue: &Queue, now_log_ms: u64) -> u64 {
        let places = self.in_flight_max.saturating_sub(self.leased_count);
        match (self.bucket, queue.settings.rate()) {
            (Some(bucket), Some(rate)) => places.min(bucket.jobs(rate, now_log_ms)),
            _ => places,
        }
    }

    /// Whether it has as many jobs out as it may.
    pub(super) fn is_full(&self) -> bool {
        self.leased_count >= self.in_flight_max
    }
}
