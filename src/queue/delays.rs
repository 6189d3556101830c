//! When jobs of a queue are due that were enqueued with a due time, or when they expire.
//!
//! A job costs 32 bytes and nothing per group: 16 in a list by offset, and 16 in a heap by
//! due time. What leaves before its time stays in both as a hole, until there are more holes than
//! jobs.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use crate::types::{Offset, Stamp};

/// When a delayed job is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Due {
    /// On the clock of the log, in milliseconds.
    Log(u64),
    /// On the wall clock, in milliseconds since the Unix epoch.
    Wall(u64),
}

/// The delayed jobs of one queue, or those that expire.
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

    /// Takes out the jobs that are due.
    pub(super) fn take_due(&mut self, now: Stamp) -> Vec<Offset> {
        std::iter::from_fn(|| self.pop_due(now)).collect()
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

    pub(super) fn heap_bytes(&self) -> usize {
        self.jobs.capacity() * size_of::<(Offset, PackedDue)>()
            + (self.by_log.capacity() + self.by_wall.capacity()) * size_of::<(u64, Offset)>()
    }
}
