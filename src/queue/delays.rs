//! Jobs that were enqueued with a due time: their queue's, and so every group's.
//!
//! A delayed job costs 32 bytes and nothing per group: 16 in a list by offset, and 16 in a heap by
//! due time. What leaves before its time stays in both as a hole, until there are more holes than
//! jobs.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::group::Group;
use super::machine::{Queue, wake};
use super::{Contradiction, GroupKind, JobTerms, Machine, Rank, Run};
use crate::types::{Offset, QueueId, Stamp};

/// When a delayed job is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Due {
    /// On the clock of the log, in milliseconds.
    Log(u64),
    /// On the wall clock, in milliseconds since the Unix epoch.
    Wall(u64),
}

/// The delayed jobs of one queue.
#[derive(Debug, Default)]
pub(super) struct Delays {
    /// By offset. A hole has no due time.
    jobs: Vec<(Offset, PackedDue)>,
    job_count: usize,
    by_log: Heap,
    by_wall: Heap,
}

type Heap = BinaryHeap<Reverse<(u64, Offset)>>;

/// A due time in 8 bytes: the highest bit says which clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct PackedDue(u64);

const ON_WALL: u64 = 1 << 63;

/// Lists and heaps that are shorter keep their holes.
const HOLES_KEPT: usize = 64;

impl PackedDue {
    const HOLE: Self = Self(u64::MAX);

    fn new(due: Due) -> Self {
        match due {
            Due::Log(ms) => Self(ms.min(ON_WALL - 1)),
            Due::Wall(ms) => Self(ms.min(ON_WALL - 2) | ON_WALL),
        }
    }

    fn due(self) -> Option<Due> {
        match self.0 & ON_WALL {
            _ if self == Self::HOLE => None,
            0 => Some(Due::Log(self.0)),
            _ => Some(Due::Wall(self.0 & !ON_WALL)),
        }
    }
}

impl Delays {
    /// When a job is due, if it is delayed.
    pub(super) fn get(&self, offset: Offset) -> Option<Due> {
        let at = self.jobs.binary_search_by_key(&offset, |job| job.0).ok()?;
        self.jobs.get(at)?.1.due()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.job_count == 0
    }

    /// The delayed jobs from `first` to below `end`.
    pub(super) fn within(&self, first: Offset, end: Offset) -> impl Iterator<Item = Offset> {
        let at = self.jobs.partition_point(|job| job.0 < first);
        let jobs = self.jobs.get(at..).unwrap_or_default().iter();
        let jobs = jobs.take_while(move |job| job.0 < end);
        jobs.filter(|job| job.1 != PackedDue::HOLE).map(|job| job.0)
    }

    /// How many neighbouring jobs from `offset` on are delayed.
    pub(super) fn run_from(&self, offset: Offset) -> u64 {
        let Ok(at) = self.jobs.binary_search_by_key(&offset, |job| job.0) else { return 0 };
        let jobs = self.jobs.get(at..).unwrap_or_default().iter().zip(offset.0..);
        let delayed = |(job, wanted): &(&(Offset, PackedDue), u64)| {
            job.0.0 == *wanted && job.1 != PackedDue::HOLE
        };
        jobs.take_while(delayed).count() as u64
    }

    /// The delayed jobs, by offset.
    pub(super) fn iter(&self) -> impl Iterator<Item = (Offset, Due)> {
        self.jobs.iter().filter_map(|(offset, due)| Some((*offset, due.due()?)))
    }

    /// The first due time on either clock.
    pub(super) fn next(&self) -> [Option<u64>; 2] {
        [&self.by_log, &self.by_wall].map(|heap| heap.peek().map(|first| first.0.0))
    }

    /// Adds a job behind all others; false if it is not behind them.
    pub(super) fn push(&mut self, offset: Offset, due: Due) -> bool {
        if self.jobs.last().is_some_and(|last| last.0 >= offset) {
            return false;
        }
        let packed = PackedDue::new(due);
        self.jobs.push((offset, packed));
        self.job_count += 1;
        match packed.due() {
            Some(Due::Wall(ms)) => self.by_wall.push(Reverse((ms, offset))),
            Some(Due::Log(ms)) => self.by_log.push(Reverse((ms, offset))),
            None => {}
        }
        true
    }

    /// Takes a job out before its time; false if it is not delayed.
    pub(super) fn remove(&mut self, offset: Offset) -> bool {
        let removed = self.make_hole(offset);
        if removed {
            self.forget_holes();
        }
        removed
    }

    /// Takes out the next job that is due.
    fn pop_due(&mut self, now: Stamp) -> Option<Offset> {
        let Self { by_log, by_wall, .. } = self;
        let pop = |heap: &mut Heap, now_ms: u64| {
            let is_due = heap.peek().is_some_and(|first| first.0.0 <= now_ms);
            if is_due { heap.pop().map(|first| first.0.1) } else { None }
        };
        let offset = pop(by_log, now.log_ms).or_else(|| pop(by_wall, now.wall_ms))?;
        self.make_hole(offset);
        self.forget_holes();
        Some(offset)
    }

    /// Takes the next job that is due from the order by time alone: it is still known by offset,
    /// until it is removed.
    pub(super) fn peek_due(&mut self, now: Stamp) -> Option<Offset> {
        let first = self.by_log.peek().filter(|first| first.0.0 <= now.log_ms)?;
        let offset = first.0.1;
        self.by_log.pop();
        self.forget_holes();
        Some(offset)
    }

    fn make_hole(&mut self, offset: Offset) -> bool {
        let Ok(at) = self.jobs.binary_search_by_key(&offset, |job| job.0) else { return false };
        let Some(job) = self.jobs.get_mut(at) else { return false };
        let was = std::mem::replace(&mut job.1, PackedDue::HOLE);
        self.job_count -= usize::from(was != PackedDue::HOLE);
        was != PackedDue::HOLE
    }

    /// Keeps a living job on top of each heap, and the holes fewer than the jobs.
    fn forget_holes(&mut self) {
        if self.job_count == 0 {
            *self = Self::default();
            return;
        }
        let Self { jobs, by_log, by_wall, job_count } = self;
        if jobs.len() > 2 * *job_count + HOLES_KEPT {
            jobs.retain(|job| job.1 != PackedDue::HOLE);
            jobs.shrink_to(2 * jobs.len());
        }
        let lives = |offset: Offset| {
            let found = jobs.binary_search_by_key(&offset, |job| job.0).ok();
            found.and_then(|at| jobs.get(at)).is_some_and(|job| job.1 != PackedDue::HOLE)
        };
        for heap in [by_log, by_wall] {
            if heap.len() > 2 * *job_count + HOLES_KEPT {
                heap.retain(|entry| lives(entry.0.1));
                heap.shrink_to(2 * heap.len());
            }
            while heap.peek().is_some_and(|first| !lives(first.0.1)) {
                heap.pop();
            }
        }
    }

    fn heap_bytes(&self) -> usize {
        self.jobs.capacity() * size_of::<(Offset, PackedDue)>()
            + (self.by_log.capacity() + self.by_wall.capacity()) * size_of::<(u64, Offset)>()
    }
}

/// What can be seen.
impl Machine {
    /// When the next delayed job is due, on the clock of the log: for one that is due on the wall
    /// clock, if that goes on as it does.
    pub fn next_due_log_ms(&self) -> Option<u64> {
        let again = self.delayed.first().map(|(due_log_ms, ..)| *due_log_ms);
        let log = self.due_log.first().map(|(due_log_ms, _)| *due_log_ms);
        let wall = self.due_wall.first().map(|(due_wall_ms, _)| self.log_of_wall(*due_wall_ms));
        [again, log, wall].into_iter().flatten().min()
    }

    /// The heap memory in bytes for the jobs that were enqueued with a due time.
    pub fn delay_heap_bytes(&self) -> usize {
        let bytes = |queue: &Queue| queue.delays.heap_bytes() + queue.expiries.heap_bytes();
        self.queues.values().map(bytes).sum()
    }

    /// The due time of a job that was enqueued with one, on the clock of the log.
    pub(super) fn enqueued_due_log_ms(&self, queue: QueueId, offset: Offset) -> Option<u64> {
        match self.queues.get(&queue)?.delays.get(offset)? {
            Due::Log(ms) => Some(ms),
            Due::Wall(ms) => Some(self.log_of_wall(ms)),
        }
    }

    pub(super) fn log_of_wall(&self, wall_ms: u64) -> u64 {
        self.now.log_ms.saturating_add(wall_ms.saturating_sub(self.now.wall_ms))
    }
}

/// What facts and time do.
impl Machine {
    /// Gives new jobs their terms.
    pub(super) fn termed(
        &mut self,
        queue: QueueId,
        runs: &[(Run, JobTerms)],
    ) -> Result<(), Contradiction> {
        let before = self.next_dues(queue);
        for (run, terms) in runs {
            self.check_new(queue, *run)?;
            if terms.rank != Rank::ORDINARY {
                self.ranked_run(queue, *run, terms.rank)?;
            }
            match terms.due {
                Some(due) => self.delayed_run(queue, *run, due)?,
                None if terms.rank != Rank::ORDINARY => self.rank_fresh(queue, *run, terms.rank),
                None => {}
            }
            if let Some(ms) = terms.expires_log_ms {
                self.expiring_run(queue, *run, ms)?;
            }
        }
        self.due_changed(queue, before);
        Ok(())
    }

    /// Takes the terms of a job back from a record; false if they can't be.
    pub(super) fn restore_terms(
        &mut self,
        queue: QueueId,
        offset: Offset,
        terms: JobTerms,
    ) -> bool {
        let before = (self.next_dues(queue), self.next_expiry(queue));
        let Some(state) = self.queues.get_mut(&queue) else { return false };
        // A job that is gone may still have an expiry: it is forgotten when its time comes.
        let within = offset < state.next;
        let JobTerms { due, expires_log_ms, rank } = terms;
        let restored = within
            && terms != JobTerms::default()
            && (rank == Rank::ORDINARY || state.ranks.push(offset, rank))
            && due.is_none_or(|due| state.delays.push(offset, due))
            && expires_log_ms.is_none_or(|ms| state.expiries.push(offset, Due::Log(ms)));
        self.due_changed(queue, before.0);
        self.expiry_changed(queue, before.1);
        restored
    }

    /// Terms are for jobs that no group has been given yet.
    fn check_new(&self, queue: QueueId, run: Run) -> Result<(), Contradiction> {
        let offset = run.first;
        let state = self.queues.get(&queue).ok_or(Contradiction::NoSuchQueue(queue))?;
        let end = offset.0.checked_add(u64::from(run.count));
        let groups = state.groups.values().filter_map(|group| self.groups.get(group));
        let is_new = |group: &Group| group.kind == GroupKind::Stream || offset >= group.next_fetch;
        if end.is_none_or(|end| end > state.next.0) || !groups.into_iter().all(is_new) {
            return Err(Contradiction::NotNew { queue, offset });
        }
        Ok(())
    }

    fn expiring_run(&mut self, queue: QueueId, run: Run, ms: u64) -> Result<(), Contradiction> {
        let before = self.next_expiry(queue);
        let Some(state) = self.queues.get_mut(&queue) else { return Ok(()) };
        for offset in run.offsets() {
            if !state.expiries.push(offset, Due::Log(ms)) {
                return Err(Contradiction::NotNew { queue, offset });
            }
        }
        self.expiry_changed(queue, before);
        Ok(())
    }

    fn delayed_run(&mut self, queue: QueueId, run: Run, due: Due) -> Result<(), Contradiction> {
        let Some(state) = self.queues.get_mut(&queue) else { return Ok(()) };
        for offset in run.offsets() {
            if !state.delays.push(offset, due) {
                return Err(Contradiction::NotNew { queue, offset });
            }
        }
        for group in state.groups.values() {
            if let Some(group) = self.groups.get_mut(group)
                && group.kind == GroupKind::Work
            {
                group.enqueued_delayed += u64::from(run.count);
                group.skipped_ahead += u64::from(run.count);
                group.settle(state);
            }
        }
        Ok(())
    }

    /// Lets those jobs take their places that were enqueued with a due time and are due.
    pub(super) fn advance_delays(&mut self, now: Stamp) {
        self.now = now;
        while let Some(queue) = self.next_due_queue(now) {
            let before = self.next_dues(queue);
            while let Some(state) = self.queues.get_mut(&queue)
                && let Some(offset) = state.delays.pop_due(now)
            {
                self.taken_from_delays(queue, offset);
            }
            self.due_changed(queue, before);
        }
    }

    fn next_due_queue(&self, now: Stamp) -> Option<QueueId> {
        let log = self.due_log.first().filter(|(ms, _)| *ms <= now.log_ms);
        let wall = self.due_wall.first().filter(|(ms, _)| *ms <= now.wall_ms);
        log.or(wall).map(|(_, queue)| *queue)
    }

    /// Lets a job take its place before its time; nothing if it is not delayed.
    pub(super) fn undelay_enqueued(&mut self, queue: QueueId, offset: Offset) {
        let before = self.next_dues(queue);
        let state = self.queues.get_mut(&queue);
        if state.is_some_and(|state| state.delays.remove(offset)) {
            self.taken_from_delays(queue, offset);
            self.due_changed(queue, before);
        }
    }

    /// A job that the pointer of a group has not reached is fresh now; one behind it is ready. One
    /// with a rank waits in its level, wherever the pointer stands.
    fn taken_from_delays(&mut self, queue: QueueId, offset: Offset) {
        let Some(state) = self.queues.get(&queue) else { return };
        for id in state.groups.values() {
            let Some(group) = self.groups.get_mut(id) else { continue };
            if group.kind == GroupKind::Stream || group.consumed.contains(offset) {
                continue;
            }
            group.enqueued_delayed -= 1;
            match state.ranks.get(offset) {
                Some(rank) => group.ranked.add_fresh(rank, offset),
                None if offset < group.next_fetch => group.come_due(offset),
                None => group.skipped_ahead -= 1,
            }
            wake(&mut self.groups, &mut self.woken, *id);
        }
    }

    pub(super) fn next_dues(&self, queue: QueueId) -> [Option<u64>; 2] {
        self.queues.get(&queue).map_or([None, None], |state| state.delays.next())
    }

    /// Keeps the order of the queues by their next due times.
    pub(super) fn due_changed(&mut self, queue: QueueId, before: [Option<u64>; 2]) {
        let after = self.next_dues(queue);
        let orders = [&mut self.due_log, &mut self.due_wall];
        for ((order, before), after) in orders.into_iter().zip(before).zip(after) {
            if before == after {
                continue;
            }
            if let Some(ms) = before {
                order.remove(&(ms, queue));
            }
            if let Some(ms) = after {
                order.insert((ms, queue));
            }
        }
    }
}
