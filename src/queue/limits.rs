//! Limits that protect what workers use: how many jobs of a queue a group has out at once, and how
//! many it is given per second.
//!
//! A group that has reached one is not given more, and nobody who waits is woken for it in vain:
//! the end of a lease frees a place and wakes the group, and a bucket that was emptied says when it
//! holds a job again. Each group of a queue has its own places and its own bucket, so that no group
//! takes another's. What a bucket holds follows from what was granted and when, on the clock of the
//! log.

use super::group::Group;
use super::machine::{Queue, wake};
use super::{Machine, QueueSettings};
use crate::types::GroupId;

/// A thousandth of a job: what a rate of one job per second brings in a millisecond.
const JOB: u64 = 1_000;

/// How many jobs a queue's groups are given per second.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Rate {
    per_second: u64,
    /// How many at once at most, after a time without any.
    burst: u64,
}

/// What a group may be given still, and as of when. It fills with time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Bucket {
    /// In thousandths of a job.
    pub(super) millijobs: u64,
    pub(super) at_log_ms: u64,
}

impl QueueSettings {
    pub(super) fn rate(&self) -> Option<Rate> {
        let per_second = self.rate_per_second?;
        Some(Rate { per_second, burst: self.rate_burst.unwrap_or(per_second) })
    }
}

impl Bucket {
    pub(super) fn full(rate: Rate, now_log_ms: u64) -> Self {
        Self { millijobs: rate.burst.saturating_mul(JOB), at_log_ms: now_log_ms }
    }

    /// As it is at this time, with this rate.
    fn filled(self, rate: Rate, now_log_ms: u64) -> Self {
        let passed_ms = now_log_ms.saturating_sub(self.at_log_ms);
        let filled = self.millijobs.saturating_add(passed_ms.saturating_mul(rate.per_second));
        let millijobs = filled.min(Self::full(rate, 0).millijobs);
        Self { millijobs, at_log_ms: now_log_ms.max(self.at_log_ms) }
    }

    /// How many jobs it holds.
    fn jobs(self, rate: Rate, now_log_ms: u64) -> u64 {
        self.filled(rate, now_log_ms).millijobs / JOB
    }

    /// When it holds a job again, if it holds none as of its time.
    fn refill_log_ms(self, rate: Rate) -> Option<u64> {
        let missing = JOB.checked_sub(self.millijobs).filter(|missing| *missing > 0)?;
        Some(self.at_log_ms.saturating_add(missing.div_ceil(rate.per_second)))
    }

    pub(super) fn fits(self, rate: Rate) -> bool {
        self.millijobs <= Self::full(rate, 0).millijobs
    }
}

impl Group {
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

impl Machine {
    /// When the next bucket that was emptied holds a job again, on the clock of the log.
    pub fn next_refill_log_ms(&self) -> Option<u64> {
        self.refills.first().map(|(at_log_ms, _)| *at_log_ms)
    }

    /// The rate at which a group is given jobs, if there is one.
    pub(super) fn rate_of(&self, id: GroupId) -> Option<Rate> {
        let queue = self.groups.get(&id).and_then(|group| self.queues.get(&group.queue));
        queue.and_then(|queue| queue.settings.rate())
    }

    /// Takes note of the limits of a group's queue, as they are from now on.
    pub(super) fn limits_changed(&mut self, id: GroupId, before: Option<Rate>) {
        self.forget_refill(id, before);
        let now_log_ms = self.now.log_ms;
        let Some(group) = self.groups.get_mut(&id) else { return };
        let Some(queue) = self.queues.get(&group.queue) else { return };
        group.in_flight_max = queue.settings.max_in_flight.unwrap_or(u64::MAX);
        let rate = queue.settings.rate();
        group.bucket = rate.map(|rate| match (group.bucket, before) {
            (Some(bucket), Some(before)) => {
                bucket.filled(before, now_log_ms).filled(rate, now_log_ms)
            }
            _ => Bucket::full(rate, now_log_ms),
        });
        self.note_refill(id);
    }

    /// Takes jobs that were granted out of the group's bucket.
    pub(super) fn take_from_bucket(&mut self, id: GroupId, count: u64) {
        let Some(rate) = self.rate_of(id) else { return };
        self.forget_refill(id, Some(rate));
        let now_log_ms = self.now.log_ms;
        if let Some(bucket) = self.groups.get_mut(&id).and_then(|group| group.bucket.as_mut()) {
            *bucket = bucket.filled(rate, now_log_ms);
            bucket.millijobs = bucket.millijobs.saturating_sub(count.saturating_mul(JOB));
        }
        self.note_refill(id);
    }

    /// Wakes the groups whose buckets hold a job again.
    pub(super) fn advance_refills(&mut self, now_log_ms: u64) {
        while let Some(&(at_log_ms, group)) = self.refills.first()
            && at_log_ms <= now_log_ms
        {
            self.refills.pop_first();
            wake(&mut self.groups, &mut self.woken, group);
        }
    }

    pub(super) fn forget_refill(&mut self, id: GroupId, rate: Option<Rate>) {
        let bucket = self.groups.get(&id).and_then(|group| group.bucket);
        if let (Some(bucket), Some(rate)) = (bucket, rate)
            && let Some(at_log_ms) = bucket.refill_log_ms(rate)
        {
            self.refills.remove(&(at_log_ms, id));
        }
    }

    /// Plans to wake a group whose bucket holds no job.
    pub(super) fn note_refill(&mut self, id: GroupId) {
        let bucket = self.groups.get(&id).and_then(|group| group.bucket);
        if let (Some(bucket), Some(rate)) = (bucket, self.rate_of(id))
            && let Some(at_log_ms) = bucket.refill_log_ms(rate)
        {
            self.refills.insert((at_log_ms, id));
        }
    }
}
