//! Limits that protect what workers use: how many jobs of a queue a group has out at once, and how
//! many it is given per second.
//!
//! A group that has reached one is not given more, and nobody who waits is woken for it in vain:
//! the end of a lease frees a place and wakes the group, and a bucket that was emptied says when it
//! holds a job again. Each group of a queue has its own places and its own bucket, so that no group
//! takes another's. What a bucket holds follows from what was granted and when, on the clock of the
//! log.

use super::QueueSettings;

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
    millijobs: u64,
    at_log_ms: u64,
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

    /// From what a record says of it.
    pub(super) fn restored(millijobs: u64, at_log_ms: u64) -> Self {
        Self { millijobs, at_log_ms }
    }

    /// What it holds in thousandths of a job, and as of when.
    pub(super) fn content(self) -> (u64, u64) {
        (self.millijobs, self.at_log_ms)
    }

    /// As it is when jobs are taken out, as many as it holds.
    pub(super) fn without(self, count: u64, rate: Rate, now_log_ms: u64) -> Self {
        let Self { millijobs, at_log_ms } = self.filled(rate, now_log_ms);
        Self { millijobs: millijobs.saturating_sub(count.saturating_mul(JOB)), at_log_ms }
    }

    /// As it is when the rate changes.
    pub(super) fn rerated(self, before: Rate, rate: Rate, now_log_ms: u64) -> Self {
        self.filled(before, now_log_ms).filled(rate, now_log_ms)
    }

    /// As it is at this time, with this rate.
    fn filled(self, rate: Rate, now_log_ms: u64) -> Self {
        let passed_ms = now_log_ms.saturating_sub(self.at_log_ms);
        let filled = self.millijobs.saturating_add(passed_ms.saturating_mul(rate.per_second));
        let millijobs = filled.min(Self::full(rate, 0).millijobs);
        Self { millijobs, at_log_ms: now_log_ms.max(self.at_log_ms) }
    }

    /// How many jobs it holds.
    pub(super) fn jobs(self, rate: Rate, now_log_ms: u64) -> u64 {
        self.filled(rate, now_log_ms).millijobs / JOB
    }

    /// When it holds a job again, if it holds none as of its time.
    pub(super) fn refill_log_ms(self, rate: Rate) -> Option<u64> {
        let missing = JOB.checked_sub(self.millijobs).filter(|missing| *missing > 0)?;
        Some(self.at_log_ms.saturating_add(missing.div_ceil(rate.per_second)))
    }

    /// Whether it holds no more than it may.
    pub(super) fn fits(self, rate: Rate) -> bool {
        self.millijobs <= Self::full(rate, 0).millijobs
    }
}
