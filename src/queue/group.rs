//! One group: where each job of its queue stands for it.
//!
//! A job is in exactly one place: consumed, leased, dead, waiting to be delivered again (ready or
//! delayed), waiting in its rank, passed with its key (see `keys`), or fresh.
//!
//! Fresh are ordinary jobs that were never delivered. They stand nowhere, and cost nothing: they
//! are those from the pointer on that are not consumed and not set aside by their queue. Set aside
//! are jobs that are not due, and those with a rank, wherever they stand. The pointer rests on a
//! fresh job or on the end of the queue.

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
use super::{EndReason, GroupKind, JobTerms, KeyedPlace, QueueSettings, RemovedCounts, Run};
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
    holes: u64,
    /// Jobs that were delivered before and can be again, ordinary ones.
    ready: BTreeSet<Offset>,
    /// Jobs that can be fetched, fresh or again, and are not ordinary.
    pub(super) ranked: Levels,
    /// What is known of the jobs that have been handed back and are neither consumed nor dead.
    marks: FxHashMap<Offset, Mark>,
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
    delayed_count: u64,
    /// How many jobs that were enqueued with a due time are not due yet.
    enqueued_delayed: u64,
    /// How many jobs from `next_fetch` on are set aside and not consumed.
    skipped_ahead: u64,
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

    /// The past of a job, if it was handed back.
    pub(super) fn past(&self, offset: Offset) -> Option<Mark> {
        self.marks.get(&offset).copied()
    }

    /// As [`past`](Self::past); of another job, that it has none.
    pub(super) fn mark(&self, offset: Offset) -> Mark {
        self.past(offset).unwrap_or_default()
    }

    /// Notes the past of a job that is handed back.
    pub(super) fn set_mark(&mut self, offset: Offset, mark: Mark) {
        self.delayed_count += u64::from(mark.due_log_ms.is_some());
        self.marks.insert(offset, mark);
    }

    /// How many jobs have a past.
    pub(super) fn marked_count(&self) -> u64 {
        self.marks.len() as u64
    }

    /// The jobs that have a past or wait without one, by offset; those in a rank only with a past.
    pub(super) fn marked(&self) -> BTreeSet<Offset> {
        self.marks.keys().chain(&self.ready).copied().collect()
    }

    /// The jobs that were handed back and are delayed, with their due times.
    pub(super) fn retries(&self) -> impl Iterator<Item = (Offset, Option<u64>)> {
        self.marks.iter().map(|(offset, mark)| (*offset, mark.due_log_ms))
    }

    /// How many jobs can be fetched later.
    pub(super) fn delayed_count(&self) -> u64 {
        self.delayed_count + self.enqueued_delayed
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

    /// The jobs that wait to be delivered again, ordinary ones, by offset.
    pub(super) fn again(&self) -> impl Iterator<Item = Offset> {
        self.ready.iter().copied()
    }

    /// How many jobs a FETCH would get: where keys are to be read, only of those that were.
    pub(super) fn at_hand_count(&self) -> usize {
        self.ready.len() + self.keys.as_ref().map_or(0, |keys| keys.passed().len())
    }

    /// Whether a job can be fetched, or is fresh but for its key or its due time.
    pub(super) fn is_ready(&self, queue: &Queue, offset: Offset) -> bool {
        match queue.ranks.get(offset) {
            Some(rank) if self.kind == GroupKind::Work => self.ranked.contains(rank, offset),
            _ => offset >= self.next_fetch || self.ready.contains(&offset),
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

    /// Consumes a job that is not out, wherever it waits; false if that is nowhere. The pointer is
    /// still to be settled then.
    pub(super) fn consume_waiting(
        &mut self,
        queue: &Queue,
        deadlines: &mut Deadlines,
        (group, offset): (GroupId, Offset),
        was_dead: bool,
    ) -> bool {
        if self.kind == GroupKind::Stream || self.consumed.contains(offset) {
            return false;
        }
        let was_delayed = queue.delays.get(offset).is_some();
        if was_delayed {
            self.enqueued_delayed -= 1;
        } else if !was_dead {
            self.take_waiting(queue, deadlines, (group, offset), false);
        }
        let was_set_aside = was_delayed || queue.ranks.get(offset).is_some();
        if offset >= self.next_fetch && !was_set_aside {
            // A fresh job becomes one that is passed over.
            self.skipped_ahead += 1;
        }
        self.consume(offset);
        true
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

/// The pointer.
impl Group {
    /// Takes all that is not consumed as fresh: all that a stream group needs.
    pub(super) fn fresh_from_floor(&mut self) {
        self.next_fetch = self.consumed.floor();
        self.holes = self.consumed.above_count();
    }

    /// Counts anew what it skips, after its pointer was set, has the ranked jobs wait that are
    /// nowhere else, and moves the pointer to a fresh job.
    pub(super) fn count_skipped(&mut self, queue: &Queue, is_leased: impl Fn(Offset) -> bool) {
        if self.kind == GroupKind::Stream {
            return;
        }
        let floor = self.consumed.floor();
        let delayed = queue.delays.within(floor, queue.next);
        let delayed = delayed.filter(|offset| !self.consumed.contains(*offset));
        self.enqueued_delayed = delayed.count() as u64;
        self.skipped_ahead = queue.set_aside(self, self.next_fetch, queue.next);
        for (offset, rank) in queue.ranks.within(floor, queue.next) {
            let is_elsewhere = self.consumed.contains(offset)
                || self.marks.contains_key(&offset)
                || self.dead.contains(offset)
                || queue.delays.get(offset).is_some()
                || is_leased(offset);
            if !is_elsewhere {
                self.ranked.add_fresh(rank, offset);
            }
        }
        self.settle(queue);
    }

    /// Has new jobs wait elsewhere than among the fresh ones: until they are due, or in their rank.
    pub(super) fn set_aside(&mut self, queue: &Queue, run: Run, terms: JobTerms) {
        match terms.due {
            Some(_) => self.enqueued_delayed += u64::from(run.count),
            None => run.offsets().for_each(|job| self.ranked.add_fresh(terms.rank, job)),
        }
        self.skipped_ahead += u64::from(run.count);
        self.settle(queue);
    }

    /// Counts anew what is consumed behind the pointer, after that was set.
    pub(super) fn count_holes(&mut self) {
        self.holes = self.consumed.count_from(self.next_fetch);
    }

    /// The first fresh job from `from` on, or the end of the queue.
    pub(super) fn next_fresh(&self, queue: &Queue, from: Offset) -> Offset {
        let mut offset = from;
        loop {
            let before = offset;
            if self.holes > 0 {
                offset = self.consumed.next_absent(offset);
            }
            if self.skipped_ahead > 0 && offset < queue.next {
                offset = offset.plus(queue.delays.run_from(offset));
                offset = offset.plus(queue.ranks.run_from(offset));
            }
            if offset == before {
                return offset;
            }
        }
    }

    /// Takes the first fresh job out of those.
    pub(super) fn pass_fresh(&mut self, queue: &Queue) {
        self.next_fetch = self.next_fetch.next();
        self.settle(queue);
    }

    /// Moves the pointer over jobs that are not fresh: they are consumed, or else set aside.
    pub(super) fn settle(&mut self, queue: &Queue) {
        if self.kind == GroupKind::Work {
            let from = self.next_fetch;
            let fresh = self.next_fresh(queue, from);
            let set_aside = match self.skipped_ahead {
                0 => 0,
                _ => queue.set_aside(self, from, fresh),
            };
            self.skipped_ahead -= set_aside;
            self.holes -= fresh.0 - from.0 - set_aside;
            self.next_fetch = fresh;
        }
    }

    /// Passes over offsets at the end of the queue that no job has.
    pub(super) fn pass_over(&mut self, first: Offset, end: Offset) {
        self.consumed.insert_run(first, end);
        match self.kind {
            GroupKind::Stream => self.fresh_from_floor(),
            GroupKind::Work if self.next_fetch == first => self.next_fetch = end,
            GroupKind::Work => self.holes += end.0 - first.0,
        }
    }

    /// How many jobs of its queue it can be given now (a stream group: read).
    pub(super) fn ready_count(&self, queue: &Queue) -> u64 {
        let fresh = queue.next.0 - self.next_fetch.0 - self.holes - self.skipped_ahead;
        let by_key = self.keys.as_ref().map_or(0, |keys| keys.ready_count());
        fresh + self.ready.len() as u64 + self.ranked.len() + by_key
    }
}

impl Queue {
    /// How many jobs from `first` to below `end` are set aside for a group, consumed ones apart.
    fn set_aside(&self, group: &Group, first: Offset, end: Offset) -> u64 {
        let open = |offset: &Offset| !group.consumed.contains(*offset);
        let ranked = self.ranks.within(first, end).map(|(offset, _)| offset).filter(open);
        let delayed = self.delays.within(first, end).filter(open);
        let delayed = delayed.filter(|offset| self.ranks.get(*offset).is_none());
        (ranked.count() + delayed.count()) as u64
    }
}
